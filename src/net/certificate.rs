//! Certificates with their keys, as PEM: read and judged when the configuration is loaded. [`Certificate`] is the
//! gateway's own towards upstreams and issuers; what a listener shows is `identity.rs`'s affair.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::client::ResolvesClientCert;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use zeroize::Zeroizing;

use super::tls::provider;
use crate::clock::Clock;
use crate::key::sha256;
use crate::tree::{Folders, Node, Problems};

/// Largest certificate chain or bundle of authorities.
const PEM_BYTES_MAX: u64 = 4 << 20;
/// How long before its end a certificate is warned about.
const SOON: Duration = Duration::from_secs(14 * 24 * 3600);
/// How a PEM file begins, for hints.
pub(super) const CERTIFICATE: &str = "a file of `-----BEGIN CERTIFICATE-----` blocks";
const KEY: &str = "the file that holds `-----BEGIN PRIVATE KEY-----`";

/// A client certificate with its key, ready for handshakes. Clones share it.
#[derive(Clone)]
pub struct Certificate {
    resolver: Arc<dyn ResolvesClientCert>,
    fingerprint: Arc<[u8]>,
}

impl std::fmt::Debug for Certificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Certificate")
    }
}

impl Certificate {
    /// Reads a chain (a path, or PEM) and its private key. `None` after an error was reported.
    pub fn read(cert: &Node, key: &Node, folders: &Folders, problems: &Problems) -> Option<Self> {
        let text = pem(cert, folders, problems);
        let secret = key.secret(problems);
        let (text, secret) = (text?, secret?);
        let chain = chain(cert, &text, Reader::Upstreams, problems)?;
        let pem = Zeroizing::new(secret.expose().replace("\\n", "\n").into_bytes());
        let Ok(der) = PrivateKeyDer::from_pem_slice(&pem) else {
            problems.error(key.place, "this is not a PEM private key", KEY);
            return None;
        };
        let fingerprint = sha256(&chain.iter().flat_map(|certificate| certificate.iter().copied()).collect::<Vec<u8>>());
        let pair = CertifiedKey::from_der(chain, der, &provider()).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => {
                problems.error(key.place, "the key does not belong to the certificate", "name the pair that was issued together")
            }
            rustls::Error::General(_) => problems.error(key.place, "this kind of private key is not supported", KEY),
            error => problems.error(cert.place, format!("the certificate cannot be used: {error}"), CERTIFICATE),
        });
        Some(Self { resolver: Arc::new(SingleCertAndKey::from(pair.ok()?)), fingerprint: fingerprint.into() })
    }

    /// What shows it in handshakes.
    pub(super) fn resolver(&self) -> Arc<dyn ResolvesClientCert> {
        self.resolver.clone()
    }

    /// The SHA-256 of the chain.
    pub fn fingerprint(&self) -> &[u8] {
        &self.fingerprint
    }
}

/// Who reads a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reader {
    /// Of the gateway's listeners.
    Clients,
    /// And issuers.
    Upstreams,
}

impl Reader {
    fn word(self) -> &'static str {
        match self {
            Self::Clients => "clients",
            Self::Upstreams => "upstreams",
        }
    }
}

/// A file by its path, or PEM by a reference or as it is.
pub(super) fn pem(node: &Node, folders: &Folders, problems: &Problems) -> Option<Vec<u8>> {
    let text = node.text(problems)?;
    if text.contains("-----BEGIN") {
        return Some(text.into_bytes());
    }
    let (seen, read) = crate::file::read(&folders.join(node.place, &text), PEM_BYTES_MAX);
    problems.saw(seen);
    read.map_err(|error| problems.error(node.place, format!("{text} cannot be read: {error}"), "paths begin at the folder of this file"))
        .ok()
}

/// The certificates of a chain, first the one that is shown. Warns of one that is not valid now, or not for long.
pub(super) fn chain(node: &Node, pem: &[u8], reader: Reader, problems: &Problems) -> Option<Vec<CertificateDer<'static>>> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let Ok(chain) = chain else {
        problems.error(node.place, "this is not a PEM certificate", CERTIFICATE);
        return None;
    };
    let Some(leaf) = chain.first() else {
        problems.error(node.place, "there is no certificate in it", CERTIFICATE);
        return None;
    };
    match validity(leaf) {
        None => problems.error(node.place, "the certificate cannot be read", CERTIFICATE),
        Some((begin, end)) => {
            let now = Clock::system().wall();
            if end <= now {
                let why = format!("the certificate has expired: {} will refuse it", reader.word());
                problems.warn(node.place, why, "renew it; a running gateway takes it over");
            } else if begin > now {
                let why = format!("the certificate is not valid yet: {} will refuse it", reader.word());
                problems.warn(node.place, why, "check this machine's clock");
            } else if end < now + SOON {
                problems.warn(node.place, "the certificate expires within two weeks", "renew it; a running gateway takes it over");
            }
        }
    }
    Some(chain)
}

/// From when to when a certificate holds (RFC 5280 section 4.1.2.5).
fn validity(certificate: &[u8]) -> Option<(SystemTime, SystemTime)> {
    let (_, whole, _) = element(certificate)?;
    let (_, mut rest, _) = element(whole)?;
    if element(rest)?.0 == 0xa0 {
        // The version, which is there but in the oldest.
        rest = element(rest)?.2;
    }
    // Serial number, signature algorithm, issuer.
    for _ in 0..3 {
        rest = element(rest)?.2;
    }
    let (_, dates, _) = element(rest)?;
    let (begin_kind, begin, after) = element(dates)?;
    let (end_kind, end, _) = element(after)?;
    Some((moment(begin_kind, begin)?, moment(end_kind, end)?))
}

/// One element of DER: its tag, its content, and what follows.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f)).filter(|(d, _)| d.len() <= 4)?;
        (digits.iter().fold(0, |n, d| n << 8 | usize::from(*d)), rest)
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

/// UTCTime or GeneralizedTime, both in UTC and to the second.
fn moment(kind: u8, text: &[u8]) -> Option<SystemTime> {
    let digits = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    let full = match kind {
        0x17 if digits.len() == 12 => format!("{}{digits}", if digits < "50" { "20" } else { "19" }),
        0x18 if digits.len() == 14 => digits.to_owned(),
        _ => return None,
    };
    let part = |from: usize, to: usize| full.get(from..to)?.parse::<i16>().ok();
    let small = |from: usize| part(from, from + 2).and_then(|n| i8::try_from(n).ok());
    let civil = jiff::civil::DateTime::new(part(0, 4)?, small(4)?, small(6)?, small(8)?, small(10)?, small(12)?, 0).ok()?;
    let seconds = jiff::tz::Offset::UTC.to_timestamp(civil).ok()?.as_second();
    match u64::try_from(seconds) {
        Ok(since) => Some(UNIX_EPOCH + Duration::from_secs(since)),
        Err(_) => UNIX_EPOCH.checked_sub(Duration::from_secs(seconds.unsigned_abs())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;
    use crate::tree::{Place, Value};

    fn issued() -> (String, String) {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec!["gateway.example".to_owned()]).unwrap();
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    }

    fn read(cert: &str, key: &str) -> (Option<Certificate>, Vec<String>) {
        let problems = Problems::default();
        let node = |value| Node { place: Place::default(), value };
        let (cert, key) = (node(Value::Text(cert.into())), node(Value::Secret(Secret::new(key.to_owned()))));
        let read = Certificate::read(&cert, &key, &Folders::one("/conf"), &problems);
        (read, problems.into_sorted().into_iter().map(|p| p.message).collect())
    }

    #[test]
    fn a_pair_is_taken_also_where_its_line_breaks_are_written_out() {
        let (cert, key) = issued();
        for key in [key.clone(), key.replace('\n', "\\n")] {
            let (read, problems) = read(&cert, &key);
            assert!(read.is_some() && problems.is_empty(), "{problems:?}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_pair_is_told_apart_and_never_shown() {
        let ((cert, key), (other, _)) = (issued(), issued());
        for (cert, key, part) in [
            (other.as_str(), key.as_str(), "does not belong"),
            (&cert, "hunter2", "not a PEM private key"),
            ("nowhere.pem", &key, "cannot be read"),
            (&key, &key, "no certificate in it"),
        ] {
            let (read, problems) = read(cert, key);
            assert!(read.is_none() && problems.len() == 1 && problems[0].contains(part), "{part}: {problems:?}");
            assert!(!problems[0].contains("hunter2") && !problems[0].contains("PRIVATE KEY-"), "{problems:?}");
        }
    }

    #[test]
    fn a_certificate_has_one_name_whoever_reads_it() {
        let (cert, key) = issued();
        let name = || read(&cert, &key).0.unwrap().fingerprint().to_vec();
        assert_eq!((name(), name().len()), (name(), 32));
    }

    #[test]
    fn both_forms_of_time_are_read() {
        let at = |kind, text: &str| moment(kind, text.as_bytes()).map(|t| t.duration_since(UNIX_EPOCH).unwrap().as_secs());
        assert_eq!(at(0x17, "700101000001Z"), Some(1));
        assert_eq!(at(0x18, "20500101000000Z"), Some(2_524_608_000));
        for (kind, text) in [(0x17, "7001010000Z"), (0x18, "700101000001Z"), (0x17, "701301000001Z"), (0x02, "700101000001Z")] {
            assert_eq!(at(kind, text), None, "{text}");
        }
    }
}
