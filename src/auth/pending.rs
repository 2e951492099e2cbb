//! Connections to be: what an issuer gave, sealed, until the client for whom a person has consented redeems it (ruling
//! G6). It outlives the process, as a second consent is a person's time, and it ends with the link that led to it.

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::sync::Arc;
use zeroize::Zeroizing;

use crate::auth::bond::Bond;
use crate::auth::connection::{Connections, New, Owner};
use crate::auth::record;
use crate::auth::token::Minted;
use crate::call::Account;
use crate::error::Error;
use crate::secret::Secret;
use crate::store::Sealed;

/// How many wrong codes end it.
const ATTEMPTS_MAX: u64 = 5;
/// What records are about.
const PENDING: &str = "pending";

/// What a code leads to.
#[derive(Debug)]
pub enum Redeemed {
    /// The connection is there.
    Connected(Owner, Arc<Account>),
    /// What it leads to was asked for under another configuration.
    Changed,
    /// There is nothing of this code: it is wrong, was used, or is too old.
    Nothing,
}

struct Pending {
    code: String,
    until: u64,
    attempts: u64,
    new: New,
    grant: Zeroizing<Vec<u8>>,
}

impl Connections {
    /// Keeps what an issuer gave until `until`, in milliseconds since 1970. Waits for the disk.
    ///
    /// # Errors
    /// If it cannot be stored.
    pub fn pend(&self, id: &str, code: &Secret, until: u64, new: New, minted: &Minted) -> Result<(), Error> {
        let store = self.store()?;
        let pending = Pending { code: hashed(code), until, attempts: 0, new, grant: record::write(Some(minted), record::Stage::Settled) };
        Ok(store.write(&place(&store, id), &written(&pending))?)
    }

    /// Makes a connection of what is kept, once, for whoever brings the code, if it still `fits`. Waits for the disk.
    ///
    /// # Errors
    /// If the store fails, or the connection cannot be made.
    pub fn redeem(&self, id: &str, code: &Secret, now: u64, fits: impl FnOnce(&New) -> bool) -> Result<Redeemed, Error> {
        let store = self.store()?;
        let place = place(&store, id);
        let _one = self.redeeming();
        let Some(pending) = proved(&store, &place, code, now)? else { return Ok(Redeemed::Nothing) };
        if !fits(&pending.new) {
            return Ok(Redeemed::Changed);
        }
        let Some((minted, _)) = record::read(&pending.grant) else { return Ok(Redeemed::Nothing) };
        // It is gone before it is used: nothing is redeemed twice, whatever happens.
        store.remove(&place)?;
        let owner = pending.new.owner.clone();
        Ok(Redeemed::Connected(owner, self.put(pending.new, &minted, now)?))
    }

    /// What a code leads to: nothing is done with it. Waits for the disk.
    ///
    /// # Errors
    /// If the store fails.
    pub fn shown(&self, id: &str, code: &Secret, now: u64) -> Result<Option<New>, Error> {
        let store = self.store()?;
        let _one = self.redeeming();
        Ok(proved(&store, &place(&store, id), code, now)?.map(|pending| pending.new))
    }

    /// Takes away what was never redeemed, and returns what its issuer gave. Waits for the disk.
    ///
    /// # Errors
    /// If the store fails.
    pub fn abandon(&self, id: &str) -> Result<Option<Minted>, Error> {
        let store = self.store()?;
        let place = place(&store, id);
        let _one = self.redeeming();
        let Some(pending) = store.read(&place)?.and_then(|record| read(&record)) else { return Ok(None) };
        store.remove(&place)?;
        Ok(record::read(&pending.grant).map(|(minted, _)| minted))
    }

    /// Takes away what ended while nobody looked.
    pub(super) fn sweep(store: &Sealed, names: &[String], now: u64) {
        for name in names.iter().filter(|name| name.starts_with(PENDING) && name[PENDING.len()..].starts_with('/')) {
            let over =
                !matches!(store.read(name).map(|record| record.and_then(|record| read(&record))), Ok(Some(pending)) if now < pending.until);
            if over && let Err(error) = store.remove(name) {
                tracing::warn!("a consent that nobody redeemed could not be removed yet: {error}");
            }
        }
    }
}

/// What is kept for whoever brings this code. A few wrong ones are forgiven. What is too old, or was guessed at too often, is
/// left to whoever takes it away: its issuer is to be told.
fn proved(store: &Sealed, place: &str, code: &Secret, now: u64) -> Result<Option<Pending>, Error> {
    let Some(mut pending) = store.read(place)?.and_then(|record| read(&record)) else { return Ok(None) };
    if now >= pending.until || pending.attempts >= ATTEMPTS_MAX {
        return Ok(None);
    }
    if Secret::new(hashed(code)) == Secret::new(pending.code.clone()) {
        return Ok(Some(pending));
    }
    pending.attempts += 1;
    store.write(place, &written(&pending))?;
    Ok(None)
}

fn place(store: &Sealed, id: &str) -> String {
    store.name(PENDING, [id.as_bytes()])
}

/// Who reads the record learns no code.
fn hashed(code: &Secret) -> String {
    STANDARD.encode(digest::digest(&digest::SHA256, code.expose().as_bytes()))
}

fn written(pending: &Pending) -> Zeroizing<Vec<u8>> {
    let New { owner, name, client, vars, bond } = &pending.new;
    let record = json!({
        "version": 1,
        "code": pending.code,
        "until": pending.until,
        "attempts": pending.attempts,
        "environment": &*owner.environment,
        "resource": &*owner.resource,
        "connection": &**name,
        "client": client.as_deref(),
        "vars": vars,
        "bond": bond.text(),
        "grant": std::str::from_utf8(&pending.grant).unwrap_or_default(),
    });
    Zeroizing::new(record.to_string().into_bytes())
}

fn read(bytes: &[u8]) -> Option<Pending> {
    let record: Value = serde_json::from_slice(bytes).ok()?;
    let text = |name: &str| record.get(name).and_then(Value::as_str);
    let number = |name: &str| record.get(name).and_then(Value::as_u64);
    let vars = record.get("vars").and_then(Value::as_object).into_iter().flatten();
    let new = New {
        owner: Owner { environment: text("environment")?.into(), resource: text("resource")?.into() },
        name: text("connection")?.into(),
        client: text("client").map(Into::into),
        vars: vars.filter_map(|(n, v)| Some((n.clone(), v.as_str()?.to_owned()))).collect(),
        bond: Bond::stored(text("bond")?),
    };
    let grant = Zeroizing::new(text("grant")?.as_bytes().to_vec());
    Some(Pending { code: text("code")?.to_owned(), until: number("until")?, attempts: number("attempts")?, new, grant })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{File, MasterKey};

    fn connections(folder: &std::path::Path) -> (Connections, Arc<Sealed>) {
        let store = Sealed::open(Box::new(File::open(folder).unwrap()), vec![MasterKey::new(&[1; 32]).unwrap()]);
        let store = Arc::new(store.unwrap());
        let connections = Connections::default();
        connections.open(&store, 0).unwrap();
        (connections, store)
    }

    fn code(text: &str) -> Secret {
        Secret::new(text.into())
    }

    fn pend(connections: &Connections) {
        let owner = Owner { environment: "".into(), resource: "api".into() };
        let new = New { owner, name: "a".into(), client: Some("c".into()), vars: Default::default(), bond: Bond::stored("b") };
        let minted = Minted { access: Some(code("token")), ..Minted::default() };
        connections.pend("id", &code("right"), 100, new, &minted).unwrap();
    }

    fn redeem(connections: &Connections, text: &str, now: u64) -> bool {
        matches!(connections.redeem("id", &code(text), now, |new| new.bond == Bond::stored("b")).unwrap(), Redeemed::Connected(..))
    }

    #[test]
    fn a_code_connects_once_and_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let (connections, store) = connections(folder.path());
        pend(&connections);
        assert!(redeem(&connections, "right", 99));
        assert!(!redeem(&connections, "right", 99));
        assert_eq!(store.names().unwrap().len(), 2, "the connection and its grant");
    }

    #[test]
    fn a_code_shows_what_it_leads_to_and_is_good_afterwards_but_not_under_another_configuration() {
        let folder = tempfile::tempdir().unwrap();
        let (connections, _) = connections(folder.path());
        pend(&connections);
        assert!(connections.shown("id", &code("wrong"), 1).unwrap().is_none());
        assert_eq!(connections.shown("id", &code("right"), 1).unwrap().unwrap().client.as_deref(), Some("c"));
        assert!(matches!(connections.redeem("id", &code("right"), 1, |_| false).unwrap(), Redeemed::Changed));
        assert!(redeem(&connections, "right", 1));
    }

    #[test]
    fn a_code_is_good_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        pend(&connections(folder.path()).0);
        assert!(redeem(&connections(folder.path()).0, "right", 99));
    }

    #[test]
    fn a_code_that_is_too_old_connects_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let (connections, store) = connections(folder.path());
        pend(&connections);
        assert!(!redeem(&connections, "right", 100));
        assert!(connections.abandon("id").unwrap().is_some(), "nobody can tell its issuer any more");
        assert!(store.names().unwrap().is_empty());
    }

    #[test]
    fn a_few_wrong_codes_are_forgiven_and_five_end_it() {
        for (wrong, good) in [(4, true), (5, false)] {
            let folder = tempfile::tempdir().unwrap();
            let (connections, _) = connections(folder.path());
            pend(&connections);
            (0..wrong).for_each(|_| assert!(!redeem(&connections, "wrong", 1)));
            assert_eq!(redeem(&connections, "right", 1), good);
            assert_eq!(connections.abandon("id").unwrap().is_some(), !good, "what was guessed at is never revoked");
        }
    }

    #[test]
    fn what_nobody_redeems_is_taken_away_at_once_and_at_a_start() {
        let folder = tempfile::tempdir().unwrap();
        let (connections, store) = connections(folder.path());
        pend(&connections);
        let names = store.names().unwrap();
        Connections::sweep(&store, &names, 99);
        assert_eq!(store.names().unwrap().len(), 1);
        Connections::sweep(&store, &names, 100);
        assert!(store.names().unwrap().is_empty());
        pend(&connections);
        assert_eq!(connections.abandon("id").unwrap().unwrap().access, Some(code("token")));
        assert!(!redeem(&connections, "right", 1));
    }
}
