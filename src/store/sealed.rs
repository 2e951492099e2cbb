//! Records sealed at rest: each under a data key of its own (AES-256-GCM), which is wrapped by the master key. The name of
//! a record is bound to both, so that no record can be put in another's place. Several master keys rotate: the first
//! seals, all open, and what another has wrapped is wrapped anew when the store is opened.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::{Failure, RECORD_MAX, Records};

/// Version of the envelope, in front of every record.
const VERSION: u8 = 1;
const KEY: usize = 32;
const TAG: usize = 16;
const ID: usize = 8;
/// A wrapped data key: which master key, nonce, key, tag.
const WRAPPED: usize = ID + NONCE_LEN + KEY + TAG;
/// What is not the record itself.
const ENVELOPE: usize = 1 + WRAPPED + NONCE_LEN + TAG;
/// The record that holds the key of [`Sealed::name`].
const INDEX: &str = "index";

/// A key that wraps data keys.
#[derive(Clone)]
pub struct MasterKey {
    bytes: Zeroizing<[u8; KEY]>,
    id: [u8; ID],
}

impl std::fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(crate::secret::REDACTED)
    }
}

impl PartialEq for MasterKey {
    fn eq(&self, other: &Self) -> bool {
        aws_lc_rs::constant_time::verify_slices_are_equal(&*self.bytes, &*other.bytes).is_ok()
    }
}

impl MasterKey {
    /// A key of 32 bytes; `None` for any other length.
    pub fn new(bytes: &[u8]) -> Option<Self> {
        let bytes = Zeroizing::new(<[u8; KEY]>::try_from(bytes).ok()?);
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &*bytes), b"postern master key");
        let id = <[u8; ID]>::try_from(&tag.as_ref()[..ID]).ok()?;
        Some(Self { bytes, id })
    }

    /// A key from its text: 32 bytes in base64 or hexadecimal (ruling C24).
    pub fn parse(text: &str) -> Option<Self> {
        use crate::key::Encoding;
        let text = text.trim();
        let encoding = if text.len() == 2 * KEY { Encoding::Hex } else { Encoding::Base64 };
        Self::new(&encoding.bytes(text).ok()?)
    }

    /// A random key.
    ///
    /// # Errors
    /// If the system gives no randomness.
    pub fn random() -> Result<Self, Failure> {
        Ok(Self::made()?.0)
    }

    /// A random key and its text in base64.
    ///
    /// # Errors
    /// If the system gives no randomness.
    pub fn made() -> Result<(Self, Zeroizing<String>), Failure> {
        let bytes = random::<KEY>()?;
        let text = Zeroizing::new(STANDARD.encode(*bytes) + "\n");
        Ok((Self::new(&*bytes).ok_or_else(broken)?, text))
    }

    fn cipher(&self) -> Result<LessSafeKey, Failure> {
        cipher(&self.bytes)
    }
}

/// Sealed records.
#[derive(Debug)]
pub struct Sealed {
    records: Box<dyn Records>,
    /// The first seals. Never empty.
    keys: Vec<MasterKey>,
    index: hmac::Key,
}

impl Sealed {
    /// Seals these records with the first of the keys. Whatever another of them has wrapped is wrapped anew.
    ///
    /// # Errors
    /// If a record is there that none of the keys opens, or the records cannot be read or written.
    pub fn open(records: Box<dyn Records>, keys: Vec<MasterKey>) -> Result<Self, Failure> {
        let mut sealed = Self { records, keys, index: hmac::Key::new(hmac::HMAC_SHA256, &[]) };
        let Some(first) = sealed.keys.first().cloned() else { return Err(Failure("the store has no key".into())) };
        let mut strange = 0;
        for name in sealed.records.names()? {
            let Some(record) = sealed.records.read(&name)? else { continue };
            match sealed.wrapper(&record) {
                Some(key) if key.id == first.id => {}
                Some(key) => {
                    let record = rewrap(&name, record, key, &first)?;
                    sealed.records.write(&name, &record)?;
                }
                None => strange += 1,
            }
        }
        if strange > 0 {
            return Err(Failure(format!(
                "{strange} records were sealed with another key: add it to master_key (a list: the first seals, all open), or remove the store"
            )));
        }
        let bytes = match sealed.read(INDEX)? {
            Some(bytes) => bytes,
            None => {
                let bytes = Zeroizing::new(random::<KEY>()?.to_vec());
                sealed.write(INDEX, &bytes)?;
                bytes
            }
        };
        sealed.index = hmac::Key::new(hmac::HMAC_SHA256, &bytes);
        Ok(sealed)
    }

    /// Whether records outlive the process.
    pub fn is_durable(&self) -> bool {
        self.records.is_durable()
    }

    /// A name that tells nothing of its parts, the same for the life of the store.
    pub fn name<'p>(&self, kind: &str, parts: impl IntoIterator<Item = &'p [u8]>) -> String {
        let mut context = hmac::Context::with_key(&self.index);
        for part in parts {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        let digits: String = context.sign().as_ref()[..16].iter().map(|b| format!("{b:02x}")).collect();
        format!("{kind}/{digits}")
    }

    /// The record of this name, opened.
    ///
    /// # Errors
    /// If it cannot be read, or was tampered with.
    pub fn read(&self, name: &str) -> Result<Option<Zeroizing<Vec<u8>>>, Failure> {
        let Some(record) = self.records.read(name)? else { return Ok(None) };
        let key = self.wrapper(&record).ok_or_else(|| damaged(name))?;
        let data_key = unwrap(name, &record, key)?;
        let (nonce, sealed) = record[1 + WRAPPED..].split_at(NONCE_LEN);
        open(&cipher(&data_key)?, nonce, &aad("data", name), sealed).map(Some).ok_or_else(|| damaged(name))
    }

    /// Seals and writes a record.
    ///
    /// # Errors
    /// If it cannot be written, or is larger than [`RECORD_MAX`].
    pub fn write(&self, name: &str, record: &[u8]) -> Result<(), Failure> {
        if record.len() + ENVELOPE > RECORD_MAX {
            return Err(Failure(format!("a record of {} bytes is too large", record.len())));
        }
        let first = self.keys.first().ok_or_else(broken)?;
        let data_key = random::<KEY>()?;
        let mut sealed = vec![VERSION];
        sealed.extend_from_slice(&wrap(name, &data_key, first)?);
        sealed.extend_from_slice(&seal(&cipher(&data_key)?, &aad("data", name), record)?);
        self.records.write(name, &sealed)
    }

    /// Removes a record.
    ///
    /// # Errors
    /// If the medium cannot be written.
    pub fn remove(&self, name: &str) -> Result<(), Failure> {
        self.records.remove(name)
    }

    /// All names but the store's own.
    ///
    /// # Errors
    /// If the medium cannot be read.
    pub fn names(&self) -> Result<Vec<String>, Failure> {
        Ok(self.records.names()?.into_iter().filter(|name| name != INDEX).collect())
    }

    /// The key that has wrapped this record's.
    fn wrapper(&self, record: &[u8]) -> Option<&MasterKey> {
        let id = record.get(1..=ID).filter(|_| record.len() >= ENVELOPE && record[0] == VERSION)?;
        self.keys.iter().find(|key| key.id == id)
    }
}

fn wrap(name: &str, data_key: &[u8; KEY], with: &MasterKey) -> Result<Vec<u8>, Failure> {
    Ok([&with.id[..], &seal(&with.cipher()?, &aad("key", name), data_key)?].concat())
}

fn unwrap(name: &str, record: &[u8], with: &MasterKey) -> Result<Zeroizing<[u8; KEY]>, Failure> {
    let (nonce, wrapped) = record[1 + ID..=WRAPPED].split_at(NONCE_LEN);
    let opened = open(&with.cipher()?, nonce, &aad("key", name), wrapped).ok_or_else(|| damaged(name))?;
    Ok(Zeroizing::new(<[u8; KEY]>::try_from(opened.as_slice()).map_err(|_| damaged(name))?))
}

fn rewrap(name: &str, mut record: Vec<u8>, from: &MasterKey, to: &MasterKey) -> Result<Vec<u8>, Failure> {
    let data_key = unwrap(name, &record, from)?;
    record.splice(1..=WRAPPED, wrap(name, &data_key, to)?);
    Ok(record)
}

fn cipher(key: &[u8; KEY]) -> Result<LessSafeKey, Failure> {
    UnboundKey::new(&AES_256_GCM, key).map(LessSafeKey::new).map_err(|_| broken())
}

/// Nonce, then what is sealed, then its tag. The nonce is drawn: a data key seals one record and its life is short, a
/// master key stays far below the 2^32 wraps that a drawn nonce bears.
fn seal(cipher: &LessSafeKey, aad: &str, bytes: &[u8]) -> Result<Vec<u8>, Failure> {
    let nonce = random::<NONCE_LEN>()?;
    let mut sealed = bytes.to_vec();
    cipher.seal_in_place_append_tag(Nonce::assume_unique_for_key(*nonce), Aad::from(aad), &mut sealed).map_err(|_| broken())?;
    Ok([&nonce[..], &sealed].concat())
}

fn open(cipher: &LessSafeKey, nonce: &[u8], aad: &str, sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(sealed.to_vec());
    let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
    let length = cipher.open_in_place(nonce, Aad::from(aad), &mut bytes).ok()?.len();
    bytes.truncate(length);
    Some(bytes)
}

fn aad(what: &str, name: &str) -> String {
    format!("postern:{VERSION}:{what}:{name}")
}

fn random<const N: usize>() -> Result<Zeroizing<[u8; N]>, Failure> {
    let mut bytes = Zeroizing::new([0; N]);
    aws_lc_rs::rand::fill(&mut *bytes).map_err(|_| Failure("the system gives no random bytes".into()))?;
    Ok(bytes)
}

fn damaged(name: &str) -> Failure {
    Failure(format!("the record {name} is damaged or was tampered with"))
}

fn broken() -> Failure {
    Failure("sealing failed".into())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::store::Memory;

    /// Records that a test can look at from outside.
    #[derive(Clone, Debug, Default)]
    struct Glass(Arc<Memory>);

    impl Records for Glass {
        fn read(&self, name: &str) -> Result<Option<Vec<u8>>, Failure> {
            self.0.read(name)
        }
        fn write(&self, name: &str, record: &[u8]) -> Result<(), Failure> {
            self.0.write(name, record)
        }
        fn remove(&self, name: &str) -> Result<(), Failure> {
            self.0.remove(name)
        }
        fn names(&self) -> Result<Vec<String>, Failure> {
            self.0.names()
        }
        fn is_durable(&self) -> bool {
            true
        }
    }

    fn key(n: u8) -> MasterKey {
        MasterKey::new(&[n; KEY]).unwrap()
    }

    fn opened(glass: &Glass, keys: &[u8]) -> Result<Sealed, Failure> {
        Sealed::open(Box::new(glass.clone()), keys.iter().map(|n| key(*n)).collect())
    }

    fn text(sealed: &Sealed, name: &str) -> Result<String, Failure> {
        Ok(String::from_utf8(sealed.read(name)?.unwrap().to_vec()).unwrap())
    }

    #[test]
    fn what_was_sealed_opens_again_and_cannot_be_read_at_rest() {
        let glass = Glass::default();
        let sealed = opened(&glass, &[1]).unwrap();
        sealed.write("a", b"hunter2 hunter2").unwrap();
        assert_eq!(text(&sealed, "a").unwrap(), "hunter2 hunter2");
        assert_eq!(sealed.read("b").unwrap(), None);
        let raw = glass.read("a").unwrap().unwrap();
        assert!(!raw.windows(7).any(|w| w == b"hunter2"));
        sealed.write("a", b"hunter2 hunter2").unwrap();
        assert_ne!(glass.read("a").unwrap().unwrap(), raw, "the same text is sealed in the same way twice");
        assert_eq!(sealed.names().unwrap(), ["a"]);
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let glass = Glass::default();
        let sealed = opened(&glass, &[1]).unwrap();
        sealed.write("a", b"text").unwrap();
        let good = glass.read("a").unwrap().unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            glass.write("a", &bad).unwrap();
            assert!(sealed.read("a").is_err(), "byte {at}");
            glass.write("a", &good[..at]).unwrap();
            assert!(sealed.read("a").is_err(), "cut at {at}");
        }
    }

    #[test]
    fn a_record_put_in_anothers_place_does_not_open() {
        let glass = Glass::default();
        let sealed = opened(&glass, &[1]).unwrap();
        sealed.write("connection/github/alice", b"hers").unwrap();
        sealed.write("connection/github/bob", b"his").unwrap();
        glass.write("connection/github/bob", &glass.read("connection/github/alice").unwrap().unwrap()).unwrap();
        assert!(sealed.read("connection/github/bob").is_err());
    }

    #[test]
    fn a_new_first_key_wraps_everything_anew_and_the_old_one_can_go() {
        let glass = Glass::default();
        let old = opened(&glass, &[1]).unwrap();
        old.write("a", b"text").unwrap();
        let name = old.name("grant", [&b"x"[..]]);
        let both = opened(&glass, &[2, 1]).unwrap();
        assert_eq!(text(&both, "a").unwrap(), "text");
        let new = opened(&glass, &[2]).unwrap();
        assert_eq!(text(&new, "a").unwrap(), "text");
        assert_eq!(new.name("grant", [&b"x"[..]]), name, "names change with the key");
        assert!(opened(&glass, &[1]).is_err());
    }

    #[test]
    fn a_store_of_an_unknown_key_is_not_opened_and_nothing_in_it_changes() {
        let glass = Glass::default();
        opened(&glass, &[1]).unwrap().write("a", b"text").unwrap();
        let before = glass.read("a").unwrap();
        let error = opened(&glass, &[2]).unwrap_err();
        assert!(error.0.contains("add it to master_key"), "{error}");
        assert_eq!(glass.read("a").unwrap(), before);
    }

    #[test]
    fn a_name_tells_its_parts_apart() {
        let sealed = opened(&Glass::default(), &[1]).unwrap();
        assert_ne!(sealed.name("g", [&b"ab"[..], b"c"]), sealed.name("g", [&b"a"[..], b"bc"]));
    }

    #[test]
    fn a_master_key_is_32_bytes_in_base64_or_hex() {
        let hex = "07".repeat(32);
        let base64 = STANDARD.encode([7; 32]);
        assert!(MasterKey::parse(&hex) == Some(key(7)) && MasterKey::parse(&format!(" {base64}\n")) == Some(key(7)));
        for wrong in ["", "07", &"zz".repeat(32), &STANDARD.encode([7; 31]), &STANDARD.encode([7; 33])] {
            assert!(MasterKey::parse(wrong).is_none(), "{wrong}");
        }
        assert_eq!(format!("{:?}", key(7)), "[redacted]");
    }
}
