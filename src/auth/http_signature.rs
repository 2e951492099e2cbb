//! `http_signature`: HTTP Message Signatures (RFC 9421) over chosen components of the request, with the digest of the body
//! (RFC 9530) where it is one of them. Signatures of answers are not verified here.

mod component;
mod structured;

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::CONTENT_LENGTH;
use http::{HeaderName, HeaderValue};

use self::component::Component;
use crate::auth::read::fields;
use crate::auth::whole::whole;
use crate::auth::{Owned, Reading, Scheme, Signing};
use crate::body::Body;
use crate::call::Call;
use crate::error::Error;
use crate::key::{Algorithm, Encoding, Key};
use crate::tree::{Fields, Node, Problems};

const SIGNATURE: HeaderName = HeaderName::from_static("signature");
const SIGNATURE_INPUT: HeaderName = HeaderName::from_static("signature-input");
const CONTENT_DIGEST: HeaderName = HeaderName::from_static("content-digest");

/// Most components of one signature.
const MOST_COMPONENTS: usize = 64;

/// The algorithms of RFC 9421 section 3.3, under the names that stand in `alg`.
const ALGORITHMS: [(&str, Algorithm); 6] = [
    ("ed25519", Algorithm::EdDSA),
    ("ecdsa-p256-sha256", Algorithm::ES256),
    ("ecdsa-p384-sha384", Algorithm::ES384),
    ("rsa-pss-sha512", Algorithm::PS512),
    ("rsa-v1_5-sha256", Algorithm::RS256),
    ("hmac-sha256", Algorithm::HS256),
];

/// The hash in `Content-Digest`.
#[derive(Clone, Copy, Debug)]
enum Hash {
    Sha256,
    Sha512,
}

/// Signs messages.
#[derive(Debug)]
pub struct HttpSignature {
    key: Key,
    algorithm: Algorithm,
    components: Vec<Component>,
    /// `;keyid="…";alg="…";tag="…"`, as it is sent and signed.
    suffix: String,
    label: String,
    expires: Option<Duration>,
    /// Whether each signature has a number used once.
    nonce: bool,
    hash: Hash,
    /// Whether the resource is reached by TLS.
    secure: bool,
    buffer: u64,
    identity: Arc<str>,
}

/// Reads `{ key_id, private_key | key, algorithm, components, expires, digest, label, nonce, tag }`.
pub(super) fn read(node: &Node, reading: Reading<'_>) -> Option<Box<dyn Scheme>> {
    let problems = reading.problems;
    let fields = fields(node, "a map with `key_id`, `private_key` and `components`", problems)?;
    let key_id = fields.node("key_id").map(|n| quotable(n, "key_id", problems));
    let tag = fields.node("tag").map(|n| quotable(n, "tag", problems));
    let nonce = fields.flag("nonce", false);
    let algorithm = algorithm(&fields);
    let key = key(&fields);
    let components = components(&fields);
    let expires = fields.node("expires").map(|n| n.duration(problems));
    let hash = fields.choice("digest", &[("sha-256", Hash::Sha256), ("sha-512", Hash::Sha512)], Hash::Sha256);
    let label = fields.node("label").map_or_else(|| Some("sig1".to_owned()), |n| label(n, problems));
    fields.finish();
    let (place, key, secret) = key?;
    let (components, label) = (components?, label?);
    let expires = expires.map_or(Some(None), |expires| expires.map(Some))?;
    let algorithm = algorithm?.unwrap_or_else(|| key.usual());
    let Some((name, _)) = ALGORITHMS.iter().find(|(_, a)| *a == algorithm && key.fits(*a)) else {
        let hint = "ed25519 needs Ed25519, ecdsa-… its curve, rsa-… RSA, hmac-sha256 a secret under `key`";
        problems.error(place, "`algorithm` and the key do not belong together", hint);
        return None;
    };
    let key_id = match key_id {
        Some(key_id) => key_id?,
        None => match key.id().filter(|id| is_quotable(id)) {
            Some(id) => id.to_owned(),
            None => {
                problems.error(node.place, "`key_id` is missing", "add `key_id: …`: the name under which the verifier knows the key");
                return None;
            }
        },
    };
    let mut suffix = format!(";keyid=\"{}\";alg=\"{name}\"", escaped(&key_id));
    if let Some(tag) = tag {
        suffix.push_str(&format!(";tag=\"{}\"", escaped(&tag?)));
    }
    let identity = reading.fingerprint.of([&b"http_signature"[..], key_id.as_bytes(), secret.expose().as_bytes()]);
    let (secure, buffer) = (reading.context.secure, reading.context.buffer);
    Some(Box::new(HttpSignature { key, algorithm, components, suffix, label, expires, nonce, hash, secure, buffer, identity }))
}

/// `None` once something is wrong; `Some(None)` where the key decides.
fn algorithm(fields: &Fields<'_>) -> Option<Option<Algorithm>> {
    let Some(node) = fields.node("algorithm") else { return Some(None) };
    let word = node.text(fields.problems())?;
    if let Some((_, algorithm)) = ALGORITHMS.iter().find(|(name, _)| *name == word) {
        return Some(Some(*algorithm));
    }
    let all: Vec<&str> = ALGORITHMS.iter().map(|(name, _)| *name).collect();
    let hint = crate::tree::closest(&word, &all);
    fields.problems().error(node.place, format!("`algorithm` is one of: {}", all.join(", ")), hint);
    None
}

fn key(fields: &Fields<'_>) -> Option<(crate::tree::Place, Key, crate::secret::Secret)> {
    let problems = fields.problems();
    let encoding = fields.choice("key_encoding", &Encoding::ALL, Encoding::Text);
    let (private, shared) = (fields.node("private_key"), fields.node("key"));
    let (node, made) = match (private, shared) {
        (Some(node), None) => (node, node.secret(problems).map(|text| (Key::private(text.expose()), text))),
        (None, Some(node)) => (node, node.secret(problems).map(|text| (encoding.bytes(text.expose()).map(Key::hmac), text))),
        (Some(_), Some(_)) => {
            problems.error(fields.place(), "`private_key` and `key` are both here", "`key` is for hmac-sha256; remove one");
            return None;
        }
        (None, None) => {
            problems.error(fields.place(), "`private_key` is missing", "add `private_key: \"${file:key.pem}\"`, or `key` for hmac-sha256");
            return None;
        }
    };
    let (made, text) = made?;
    match made {
        Ok(key) => Some((node.place, key, text)),
        Err(why) => {
            problems.error(node.place, why.0, why.1);
            None
        }
    }
}

fn components(fields: &Fields<'_>) -> Option<Vec<Component>> {
    let problems = fields.problems();
    let node = fields.need("components")?;
    let mut all: Vec<Component> = Vec::new();
    let mut good = true;
    for item in node.items() {
        let Some(component) = Component::read(item, problems) else {
            good = false;
            continue;
        };
        if all.iter().any(|other| other.id() == component.id()) {
            problems.error(item.place, "this component stands here twice", "");
            good = false;
        }
        all.push(component);
    }
    if all.len() > MOST_COMPONENTS || (good && all.is_empty()) {
        problems.error(node.place, format!("`components` are 1 to {MOST_COMPONENTS}"), "as [\"@method\", \"@target-uri\", content-digest]");
        return None;
    }
    let covers = |name: &HeaderName| all.iter().any(|component| component.is_field(name));
    if covers(&CONTENT_LENGTH) && !covers(&CONTENT_DIGEST) {
        let hint = "sign content-digest too: only then the body is held, and its length known";
        problems.error(node.place, "`content-length` cannot be signed alone", hint);
        return None;
    }
    good.then_some(all)
}

fn is_quotable(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| (0x20..0x7f).contains(&b))
}

/// A structured-fields string (RFC 8941 section 3.3.3).
fn quotable(node: &Node, key: &str, problems: &Problems) -> Option<String> {
    let text = node.text(problems)?;
    if !is_quotable(&text) {
        problems.error(node.place, format!("`{key}` is made of visible ASCII"), "");
        return None;
    }
    Some(text)
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"")
}

/// A key of a dictionary (RFC 8941 section 3.1.2).
fn label(node: &Node, problems: &Problems) -> Option<String> {
    let text = node.text(problems)?;
    let first = text.bytes().next().is_some_and(|b| b.is_ascii_lowercase() || b == b'*');
    if !first || !text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-.*".contains(&b)) {
        problems.error(node.place, "`label` is made of small letters, digits, `_`, `-`, `.` and `*`", "as sig1");
        return None;
    }
    Some(text)
}

impl Scheme for HttpSignature {
    fn owns(&self) -> Owned {
        let mut headers = vec![SIGNATURE, SIGNATURE_INPUT];
        headers.extend(self.digests().then_some(CONTENT_DIGEST));
        Owned { headers, ..Owned::default() }
    }

    fn identity(&self, _: &Call) -> Option<Arc<str>> {
        Some(self.identity.clone())
    }

    /// The key does not travel, but whoever sees a signature can send it again.
    fn secret(&self) -> bool {
        true
    }

    fn fresh(&self) -> bool {
        false
    }

    fn seals(&self) -> bool {
        true
    }

    fn sign<'a>(&'a self, call: &'a mut Call) -> Signing<'a> {
        if !self.digests() {
            return Signing::Done(self.seal(call));
        }
        if matches!(call.body, Body::Empty) {
            return Signing::Done(self.digest(call, b"").and_then(|()| self.seal(call)));
        }
        Signing::Later(Box::pin(async move {
            let bytes = whole(call, self.buffer).await?;
            self.digest(call, &bytes)?;
            self.seal(call)
        }))
    }
}

impl HttpSignature {
    fn digests(&self) -> bool {
        self.components.iter().any(|component| component.is_field(&CONTENT_DIGEST))
    }

    /// The digest of the body is the gateway's own word (RFC 9530 section 2, ruling F30).
    fn digest(&self, call: &mut Call, body: &[u8]) -> Result<(), Error> {
        let (name, algorithm) = match self.hash {
            Hash::Sha256 => ("sha-256", &digest::SHA256),
            Hash::Sha512 => ("sha-512", &digest::SHA512),
        };
        let text = format!("{name}=:{}:", STANDARD.encode(digest::digest(algorithm, body)));
        call.headers.insert(CONTENT_DIGEST, value(&text)?);
        Ok(())
    }

    fn seal(&self, call: &mut Call) -> Result<(), Error> {
        let created = call.occasion.now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let expires = self.expires.map(|after| format!(";expires={}", created + after.as_secs())).unwrap_or_default();
        let nonce = if self.nonce { format!(";nonce=\"{}\"", call.occasion.uuid()) } else { String::new() };
        let (base, params) = self.base(call, &format!(";created={created}{expires}{nonce}{}", self.suffix))?;
        let signature = self.key.sign(self.algorithm, base.as_bytes()).map_err(|why| Error::Internal(why.to_string()))?;
        call.headers.insert(SIGNATURE_INPUT, value(&format!("{}={params}", self.label))?);
        let mut signature = value(&format!("{}=:{}:", self.label, STANDARD.encode(signature)))?;
        signature.set_sensitive(true);
        call.headers.insert(SIGNATURE, signature);
        Ok(())
    }

    /// The signature base and the signature's parameters (RFC 9421 section 2.5). What the request does not have is not
    /// covered, and the parameters say so.
    fn base(&self, call: &Call, params: &str) -> Result<(String, String), Error> {
        let (mut lines, mut covered) = (String::with_capacity(512), String::with_capacity(128));
        let scheme = if call.is_secure(self.secure) { "https" } else { "http" };
        for component in &self.components {
            let Some(value) = component.value(call, scheme)? else { continue };
            let id = component.id();
            lines.push_str(&format!("{id}: {value}\n"));
            covered.push_str(&format!("{}{id}", if covered.is_empty() { "" } else { " " }));
        }
        let params = format!("({covered}){params}");
        lines.push_str("\"@signature-params\": ");
        lines.push_str(&params);
        Ok((lines, params))
    }
}

fn value(text: &str) -> Result<HeaderValue, Error> {
    HeaderValue::from_str(text).map_err(|_| Error::Internal("a signature that no field can carry".into()))
}

#[cfg(test)]
mod tests;
