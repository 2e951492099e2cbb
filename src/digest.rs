//! Tells whether something is still what it was, without keeping it: HMAC-SHA256 under a key that is drawn once for the
//! process, so that what is kept in memory or compared says nothing about the secrets that went into it.

use std::fmt;
use std::io::Read as _;
use std::sync::LazyLock;

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use zeroize::Zeroizing;

static KEY: LazyLock<hmac::Key> = LazyLock::new(|| {
    random_key().unwrap_or_else(|| {
        // Without the system's randomness digests are merely easier to guess for whoever can read our memory.
        let mut bytes = [0; 32];
        fastrand::fill(&mut bytes);
        hmac::Key::new(hmac::HMAC_SHA256, &bytes)
    })
});

/// A key for HMAC-SHA256 that nobody knows; `None` where the system has no randomness. It comes from the kernel where
/// that can be read: the library's generator first collects jitter for some 70 ms, which would be most of a start.
pub fn random_key() -> Option<hmac::Key> {
    let mut bytes = Zeroizing::new([0; 32]);
    match std::fs::File::open("/dev/urandom").and_then(|mut kernel| kernel.read_exact(&mut *bytes)) {
        Ok(()) => Some(hmac::Key::new(hmac::HMAC_SHA256, &*bytes)),
        Err(_) => hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new()).ok(),
    }
}

/// What something came to. Meaningless outside this process.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest([u8; 32]);

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Digest")
    }
}

impl Digest {
    /// The digest of these bytes alone.
    pub fn of(bytes: &[u8]) -> Self {
        let mut digester = Digester::new();
        digester.bytes(bytes);
        digester.finish()
    }
}

/// Takes in one thing after another.
pub struct Digester(hmac::Context);

impl Digester {
    /// Has taken in nothing yet.
    pub fn new() -> Self {
        Self(hmac::Context::with_key(&KEY))
    }

    /// Takes bytes in with their length, so that `ab`, `c` differs from `a`, `bc`.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.0.update(&(bytes.len() as u64).to_be_bytes());
        self.0.update(bytes);
    }

    /// Takes in a byte that says what follows.
    pub fn mark(&mut self, mark: u8) {
        self.0.update(&[mark]);
    }

    /// Takes in another digest.
    pub fn digest(&mut self, digest: Digest) {
        self.0.update(&digest.0);
    }

    /// What it all came to.
    pub fn finish(self) -> Digest {
        let mut digest = [0; 32];
        digest.copy_from_slice(self.0.sign().as_ref());
        Digest(digest)
    }
}

impl Default for Digester {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Digester {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Digester")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_tells_where_one_part_ends_and_shows_nothing() {
        let of = |parts: [&str; 2]| {
            let mut digester = Digester::new();
            parts.iter().for_each(|p| digester.bytes(p.as_bytes()));
            digester.finish()
        };
        assert_eq!(of(["ab", "c"]), of(["ab", "c"]));
        assert_ne!(of(["ab", "c"]), of(["a", "bc"]));
        assert_eq!(format!("{:?}", Digest::of(b"secret")), "Digest");
    }
}
