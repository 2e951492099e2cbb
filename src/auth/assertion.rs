//! Signed assertions: a key with its algorithm and header, as the schemes read it (rulings E14, F34). What the claims
//! are is the schemes' affair; an assertion is made anew for each attempt, as it may be good for one (ruling F33).

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::{Map, Value, json};

use crate::auth::token::Failure;
use crate::error::Error;
use crate::key::{Algorithm, Encoding, Key, sha256};
use crate::tree::{self, Fields, Folders, Node, Problems};

/// Life of an assertion that says nothing else, in seconds: long enough for two clocks that differ, short enough for
/// issuers that bound it.
pub const LIFE: u64 = 180;
/// Largest certificate file, in bytes.
const CERTIFICATE_MAX: u64 = 256 * 1024;

/// A key, ready to sign claims.
#[derive(Debug)]
pub struct Signer {
    key: Key,
    algorithm: Algorithm,
    header: Map<String, Value>,
}

/// Which key a scheme needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// `private_key`, or `key` for HMAC.
    Any,
    /// A secret that stands elsewhere, so that there is no key to read.
    Given,
}

impl Signer {
    /// Reads `private_key` or `key` with `key_encoding`, `algorithm`, `key_id`, `certificate` and `header`. `given` is the
    /// key where it stands elsewhere.
    pub fn read(fields: &Fields<'_>, given: Option<Key>, folders: &Folders, problems: &Problems) -> Option<Self> {
        let needs = if given.is_some() { Needs::Given } else { Needs::Any };
        let key = given.or_else(|| key(fields, problems));
        let algorithm = fields.node("algorithm").map(|node| algorithm(node, problems));
        let mut header = Map::new();
        if let Some(id) = fields.text("key_id") {
            header.insert("kid".into(), id.into());
        }
        if let Some(node) = fields.node("certificate") {
            thumbprints(node, folders, problems, &mut header);
        }
        if let Some(node) = fields.node("header") {
            header.extend(json_map(node, problems)?);
        }
        let key = key?;
        let algorithm = match algorithm {
            Some(algorithm) => algorithm?,
            None => key.usual(),
        };
        if !key.fits(algorithm) {
            let hint = match needs {
                Needs::Given => "a client secret signs with HS256, HS384 or HS512",
                Needs::Any => "RS and PS need an RSA key, ES256 one on P-256, EdDSA Ed25519, HS a secret under `key`",
            };
            problems.error(fields.key_place("algorithm"), format!("the key cannot sign by {}", algorithm.name()), hint);
            return None;
        }
        Some(Self { key, algorithm, header })
    }

    /// A signer with a key that was read already, for keys that come in a file with more.
    pub fn new(key: Key, id: Option<&str>) -> Self {
        let header = id.map(|id| ("kid".to_owned(), id.into())).into_iter().collect();
        Self { algorithm: key.usual(), key, header }
    }

    /// Signs claims that are JSON already.
    ///
    /// # Errors
    /// If the key fails, which a key that was read does not.
    pub fn sign_json(&self, claims: &str) -> Result<String, Error> {
        let header = self.key.header(self.algorithm, &self.header);
        header.and_then(|header| self.key.compact(self.algorithm, &header, claims)).map_err(|error| Error::Internal(error.to_string()))
    }

    /// By which algorithm it signs.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Signs any message.
    ///
    /// # Errors
    /// If the key fails, which a key that was read does not.
    pub fn sign_bytes(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        self.key.sign(self.algorithm, message).map_err(|error| Error::Internal(error.to_string()))
    }

    /// Whether a signature costs hundreds of microseconds rather than tens.
    pub fn is_slow(&self) -> bool {
        self.key.is_slow()
    }

    /// Signs claims; `null` among them is left out.
    ///
    /// # Errors
    /// If the key fails, which a key that was read does not.
    pub fn sign(&self, claims: &Map<String, Value>) -> Result<String, Failure> {
        let claims = claims.iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k.clone(), v.clone())).collect();
        self.key.jwt(self.algorithm, &self.header, &claims).map_err(|error| Failure::Own(Error::Internal(error.to_string())))
    }
}

/// The claims that every assertion has: who, from when until when (in seconds since 1970), and a number used once.
pub fn claims(issuer: &str, now: u64) -> Map<String, Value> {
    let seconds = now / 1000;
    let claims = json!({ "iss": issuer, "iat": seconds, "exp": seconds + LIFE, "jti": once() });
    claims.as_object().cloned().unwrap_or_default()
}

/// A version 4 UUID, never twice the same.
pub fn once() -> String {
    let mut bytes = [0; 16];
    if aws_lc_rs::rand::fill(&mut bytes).is_err() {
        fastrand::fill(&mut bytes);
    }
    uuid::Builder::from_random_bytes(bytes).into_uuid().to_string()
}

fn key(fields: &Fields<'_>, problems: &Problems) -> Option<Key> {
    let encoding = fields.choice("key_encoding", &Encoding::ALL, Encoding::Text);
    match (fields.node("private_key"), fields.node("key")) {
        (Some(_), Some(other)) => {
            problems.error(other.place, "`private_key` and `key` contradict each other", "`key` is a secret for HS256 and its like");
            None
        }
        (Some(node), None) => {
            let text = node.secret(problems)?;
            Key::private(text.expose()).map_err(|error| problems.error(node.place, error.0, error.1)).ok()
        }
        (None, Some(node)) => {
            let text = node.secret(problems)?;
            encoding.bytes(text.expose()).map(Key::hmac).map_err(|error| problems.error(node.place, error.0, error.1)).ok()
        }
        (None, None) => {
            problems.error(fields.place(), "`private_key` is missing", "add `private_key: \"${file:key.pem}\"`, or `key` for HMAC");
            None
        }
    }
}

fn algorithm(node: &Node, problems: &Problems) -> Option<Algorithm> {
    let found = node.word().and_then(|word| Algorithm::ALL.iter().find(|(name, _)| *name == word));
    if found.is_none() {
        let names: Vec<&str> = Algorithm::ALL.iter().map(|(name, _)| *name).collect();
        problems.error(
            node.place,
            format!("{} is no algorithm that is known here", node.shown()),
            tree::closest(node.word().unwrap_or(""), &names),
        );
    }
    found.map(|(_, algorithm)| *algorithm)
}

/// `x5t` and `x5t#S256` of a certificate (RFC 7515 sections 4.1.7 and 4.1.8).
fn thumbprints(node: &Node, folders: &Folders, problems: &Problems, header: &mut Map<String, Value>) {
    let Some(der) = certificate(node, folders, problems) else { return };
    let sha1 = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, &der);
    header.insert("x5t".into(), URL_SAFE_NO_PAD.encode(sha1).into());
    header.insert("x5t#S256".into(), URL_SAFE_NO_PAD.encode(sha256(&der)).into());
}

/// A certificate, by its path or as PEM.
pub fn certificate(node: &Node, folders: &Folders, problems: &Problems) -> Option<CertificateDer<'static>> {
    let text = node.text(problems)?;
    let pem = if text.contains("-----BEGIN") {
        text.into_bytes()
    } else {
        let (seen, read) = crate::file::read(&folders.join(node.place, &text), CERTIFICATE_MAX);
        problems.saw(seen);
        let wrong = |error: std::io::Error| {
            let hint = "a PEM file, relative to the file that names it";
            problems.error(node.place, format!("{} cannot be read: {error}", node.shown()), hint);
        };
        read.map_err(wrong).ok()?
    };
    let der = CertificateDer::from_pem_slice(&pem).ok();
    if der.is_none() {
        problems.error(node.place, "this is not a PEM certificate", "`-----BEGIN CERTIFICATE-----`");
    }
    der
}

/// A map of the tree as JSON: numbers, true, false and `null` keep their type.
pub fn json_map(node: &Node, problems: &Problems) -> Option<Map<String, Value>> {
    match json(node, problems)? {
        Value::Object(map) => Some(map),
        _ => {
            problems.error(node.place, format!("expected a map, found {}", node.kind()), "");
            None
        }
    }
}

/// A node of the tree as JSON.
pub fn json(node: &Node, problems: &Problems) -> Option<Value> {
    Some(match &node.value {
        tree::Value::Null => Value::Null,
        tree::Value::Bool(flag) => Value::Bool(*flag),
        tree::Value::Number(number) => match serde_json::from_str(number) {
            Ok(number @ Value::Number(_)) => number,
            _ => Value::String(number.to_string()),
        },
        tree::Value::List(items) => Value::Array(items.iter().map(|item| json(item, problems)).collect::<Option<_>>()?),
        tree::Value::Map(entries) => {
            Value::Object(entries.iter().map(|entry| Some((entry.key.to_string(), json(&entry.node, problems)?))).collect::<Option<_>>()?)
        }
        tree::Value::Text(_) | tree::Value::Secret(_) | tree::Value::Mixed(_) | tree::Value::Unresolved(_) => {
            Value::String(node.text(problems)?)
        }
    })
}
