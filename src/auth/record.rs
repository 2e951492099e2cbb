//! A grant's record in the store: what its tokens are, and whether a renewal had been begun (ruling H11).

use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::auth::captured::Captured;
use crate::auth::token::Minted;
use crate::secret::Secret;

/// Where the record stands between two tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The issuer has been or is about to be asked; nobody knows what came of it.
    Renewing,
    /// What is written is what the issuer gave last.
    Settled,
}

/// The record's bytes.
pub fn write(minted: Option<&Minted>, stage: Stage) -> Zeroizing<Vec<u8>> {
    let empty = Minted::default();
    let minted = minted.unwrap_or(&empty);
    let text = |secret: &Option<Secret>| secret.as_ref().map(|s| s.expose().to_owned());
    let record = json!({
        "version": 1,
        "renewing": stage == Stage::Renewing,
        "access": text(&minted.access),
        "refresh": text(&minted.refresh),
        "id": text(&minted.id),
        "captured": minted.captured.to_record(),
        "obtained": minted.obtained,
        "expires": minted.expires,
        "supposed": minted.supposed,
        "rotates": minted.rotates,
    });
    Zeroizing::new(record.to_string().into_bytes())
}

/// What a record holds; `None` where there is nothing to go on from. A renewal that was begun and never settled leaves
/// its access token in doubt: the issuer may have voided it, so only what renews is taken up. The stage says so too.
pub fn read(bytes: &[u8]) -> Option<(Minted, Stage)> {
    let record: Value = serde_json::from_slice(bytes).ok()?;
    let text = |name: &str| record.get(name).and_then(Value::as_str).filter(|t| !t.is_empty()).map(|t| Secret::new(t.to_owned()));
    let renewing = record.get("renewing").and_then(Value::as_bool).unwrap_or(true);
    let minted = Minted {
        access: text("access").filter(|_| !renewing),
        refresh: text("refresh"),
        id: text("id"),
        captured: record.get("captured").map(Captured::of_record).unwrap_or_default(),
        obtained: record.get("obtained").and_then(Value::as_u64).unwrap_or(0),
        expires: record.get("expires").and_then(Value::as_u64),
        supposed: record.get("supposed").and_then(Value::as_bool).unwrap_or(false),
        rotates: record.get("rotates").and_then(Value::as_bool).unwrap_or(false),
    };
    let stage = if renewing { Stage::Renewing } else { Stage::Settled };
    let something = minted.access.is_some() || minted.refresh.is_some() || !minted.captured.is_empty();
    something.then_some((minted, stage))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::captured::Held;

    fn minted() -> Minted {
        let mut captured = Captured::default();
        captured.insert("realm", Held::Json(Secret::new("7".into()))).unwrap();
        Minted {
            access: Some(Secret::new("a".into())),
            refresh: Some(Secret::new("r".into())),
            id: Some(Secret::new("i".into())),
            captured,
            obtained: 1,
            expires: Some(2),
            supposed: true,
            rotates: true,
        }
    }

    #[test]
    fn a_settled_record_is_read_as_it_was_written() {
        let (read, stage) = read(&write(Some(&minted()), Stage::Settled)).unwrap();
        assert_eq!(stage, Stage::Settled);
        assert_eq!((read.access, read.refresh), (minted().access, minted().refresh));
        assert_eq!((read.id, read.captured), (minted().id, minted().captured));
        assert_eq!((read.obtained, read.expires, read.supposed, read.rotates), (1, Some(2), true, true));
    }

    #[test]
    fn after_an_unsettled_renewal_only_what_renews_is_taken_up() {
        let (read, stage) = read(&write(Some(&minted()), Stage::Renewing)).unwrap();
        assert_eq!(stage, Stage::Renewing);
        assert_eq!((read.access, read.refresh), (None, minted().refresh));
        // A flow renews itself by what it has captured.
        let flow = Minted { refresh: None, ..minted() };
        assert_eq!(super::read(&write(Some(&flow), Stage::Renewing)).unwrap().0.captured, minted().captured);
    }

    #[test]
    fn a_record_with_nothing_to_go_on_from_is_none() {
        assert!(read(&write(None, Stage::Renewing)).is_none());
        for wrong in ["", "{}", "[]", "null", "{\"access\":5}"] {
            assert!(read(wrong.as_bytes()).is_none(), "{wrong}");
        }
    }
}
