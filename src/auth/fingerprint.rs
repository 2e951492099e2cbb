//! Names a credential without telling it: HMAC-SHA256 under a key that is drawn when the process first needs it.
//!
//! A fingerprint is stable for the life of the process and means nothing outside it: a stolen audit log cannot be
//! searched for guessed passwords.

use std::fmt::Write as _;
use std::sync::{Arc, LazyLock};

use aws_lc_rs::hmac;

static KEY: LazyLock<Option<hmac::Key>> = LazyLock::new(crate::digest::random_key);

/// How many bytes of the tag are shown; two hex digits each.
const SHOWN: usize = 8;

/// Makes fingerprints.
#[derive(Clone, Copy)]
pub struct Fingerprint(&'static hmac::Key);

impl Fingerprint {
    /// The maker with the key of this process; `None` where the system has no randomness.
    pub fn keyed() -> Option<Self> {
        KEY.as_ref().map(Self)
    }

    /// Sixteen hex digits over the parts. Lengths are part of it, so `ab`, `c` differs from `a`, `bc`.
    pub fn of<'p>(self, parts: impl IntoIterator<Item = &'p [u8]>) -> Arc<str> {
        let mut context = hmac::Context::with_key(self.0);
        for part in parts {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        let mut hex = String::with_capacity(2 * SHOWN);
        for byte in &context.sign().as_ref()[..SHOWN] {
            // Writing to a string cannot fail.
            let _ = write!(hex, "{byte:02x}");
        }
        hex.into()
    }
}

impl std::fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Fingerprint")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(parts: &[&str]) -> Arc<str> {
        Fingerprint::keyed().unwrap().of(parts.iter().map(|p| p.as_bytes()))
    }

    #[test]
    fn a_fingerprint_is_sixteen_hex_digits_and_stable_within_the_process() {
        let one = of(&["bearer", "hunter2"]);
        assert_eq!(one.len(), 16);
        assert!(one.bytes().all(|b| b.is_ascii_hexdigit()));
        assert_eq!(one, of(&["bearer", "hunter2"]));
    }

    #[test]
    fn a_fingerprint_tells_apart_where_one_part_ends() {
        assert_ne!(of(&["ab", "c"]), of(&["a", "bc"]));
        assert_ne!(of(&["ab", ""]), of(&["ab"]));
    }
}
