//! The hash functions of HTTP Digest (RFC 7616 section 6.1), and `SHA-512`, which is not registered and yet served.

use aws_lc_rs::digest;
use md5::Digest as _;

use crate::hex::hex;

/// A hash function. The stronger is the greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hash {
    /// MD5 (RFC 1321): what a challenge without `algorithm` means.
    Md5,
    /// SHA-256.
    Sha256,
    /// SHA-512/256 of FIPS 180-4, with initial values of its own (erratum 4897): not SHA-512 cut short.
    Sha512Over256,
    /// SHA-512.
    Sha512,
}

impl Hash {
    /// The function and whether it is the `-sess` variant; `None` for a name that nobody here knows.
    pub fn named(name: &[u8]) -> Option<(Self, bool)> {
        let name = name.to_ascii_lowercase();
        let (base, session) = name.strip_suffix(b"-sess").map_or((name.as_slice(), false), |base| (base, true));
        let hash = match base {
            b"md5" => Self::Md5,
            b"sha-256" => Self::Sha256,
            b"sha-512-256" => Self::Sha512Over256,
            b"sha-512" => Self::Sha512,
            _ => return None,
        };
        Some((hash, session))
    }

    /// The hash over the parts with colons between them, in lower-case hex.
    pub fn joined(self, parts: &[&[u8]]) -> String {
        let mut whole = zeroize::Zeroizing::new(Vec::with_capacity(parts.iter().map(|part| part.len() + 1).sum()));
        for (index, part) in parts.iter().enumerate() {
            if index > 0 {
                whole.push(b':');
            }
            whole.extend_from_slice(part);
        }
        self.hex(&whole)
    }

    /// The hash in lower-case hex.
    pub fn hex(self, bytes: &[u8]) -> String {
        let algorithm = match self {
            Self::Md5 => return hex(&md5::Md5::digest(bytes)),
            Self::Sha256 => &digest::SHA256,
            Self::Sha512Over256 => &digest::SHA512_256,
            Self::Sha512 => &digest::SHA512,
        };
        hex(digest::digest(algorithm, bytes).as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // RFC 1321 section A.5, and FIPS 180-4 through NIST's examples.
    #[test]
    fn the_functions_are_those_of_their_standards() {
        assert_eq!(Hash::Md5.hex(b"abc"), "900150983cd24fb0d6963f7d28e17f72");
        assert_eq!(Hash::Sha256.hex(b"abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(Hash::Sha512Over256.hex(b"abc"), "53048e2681941ef99b2e29b76b4c7dabe4c2d0c634fc6d46e0e2f13107e7af23");
        assert!(Hash::Sha512.hex(b"abc").starts_with("ddaf35a193617abacc417349ae204131"));
    }

    #[test]
    fn names_are_read_in_any_case_and_strength_is_their_order() {
        assert_eq!(Hash::named(b"sha-256-SESS"), Some((Hash::Sha256, true)));
        assert_eq!(Hash::named(b"Md5"), Some((Hash::Md5, false)));
        assert_eq!(Hash::named(b"SHA-1"), None);
        assert!(Hash::Md5 < Hash::Sha256 && Hash::Sha256 < Hash::Sha512Over256);
    }
}
