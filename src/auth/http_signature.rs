//! `http_signature`: HTTP Message Signatures (RFC 9421) over chosen components of the request, with the digest of the body
//! (RFC 9530) where it is one of them. Signatures of answers are not verified here.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::HOST;
use http::{HeaderName, HeaderValue};

use crate::auth::read::fields;
use crate::auth::whole::whole;
use crate::auth::{Owned, Reading, Scheme, Signing};
use crate::body::Body;
use crate::call::Call;
use crate::clock::Clock;
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

/// A part of the request that is signed.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Component {
    Method,
    TargetUri,
    Authority,
    Scheme,
    RequestTarget,
    Path,
    Query,
    Field(HeaderName),
}

/// Derived components by name (RFC 9421 section 2.2).
const DERIVED: [(&str, Component); 7] = [
    ("@method", Component::Method),
    ("@target-uri", Component::TargetUri),
    ("@authority", Component::Authority),
    ("@scheme", Component::Scheme),
    ("@request-target", Component::RequestTarget),
    ("@path", Component::Path),
    ("@query", Component::Query),
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
    /// `;keyid="…";alg="…"`, as it is sent and signed.
    suffix: String,
    label: String,
    expires: Option<Duration>,
    hash: Hash,
    secure: bool,
    buffer: u64,
    clock: Clock,
    identity: Arc<str>,
}

/// Reads `{ key_id, private_key | key, algorithm, components, expires, digest, label }`.
pub(super) fn read(node: &Node, reading: Reading<'_>) -> Option<Box<dyn Scheme>> {
    let problems = reading.problems;
    let fields = fields(node, "a map with `key_id`, `private_key` and `components`", problems)?;
    let key_id = fields.node("key_id").map(|n| quotable(n, problems));
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
    let suffix = format!(";keyid=\"{}\";alg=\"{name}\"", key_id.replace('\\', "\\\\").replace('"', "\\\""));
    let identity = reading.fingerprint.of([&b"http_signature"[..], key_id.as_bytes(), secret.expose().as_bytes()]);
    let (secure, buffer) = (reading.context.secure, reading.context.buffer);
    let clock = Clock::system();
    Some(Box::new(HttpSignature { key, algorithm, components, suffix, label, expires, hash, secure, buffer, clock, identity }))
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
        let Some(component) = component(item, problems) else {
            good = false;
            continue;
        };
        if all.contains(&component) {
            problems.error(item.place, "this component stands here twice", "");
            good = false;
        }
        all.push(component);
    }
    if all.len() > MOST_COMPONENTS || (good && all.is_empty()) {
        problems.error(node.place, format!("`components` are 1 to {MOST_COMPONENTS}"), "as [\"@method\", \"@target-uri\", content-digest]");
        return None;
    }
    good.then_some(all)
}

fn component(node: &Node, problems: &Problems) -> Option<Component> {
    let text = node.text(problems)?;
    if let Some((_, component)) = DERIVED.iter().find(|(name, _)| *name == text) {
        return Some(component.clone());
    }
    let unbuilt = text.contains(';') || text.starts_with("@query-param");
    if unbuilt {
        problems.error(node.place, "parameters of components are not built into this version", "sign the whole field, or @query");
        return None;
    }
    if text.starts_with('@') {
        let all: Vec<&str> = DERIVED.iter().map(|(name, _)| *name).collect();
        problems.error(node.place, format!("no such component; there are {}", all.join(", ")), crate::tree::closest(&text, &all));
        return None;
    }
    let name = HeaderName::try_from(text.to_ascii_lowercase()).ok();
    // What the connection or the framing sets is not known yet when the request is signed.
    let moving =
        ["connection", "transfer-encoding", "te", "trailer", "upgrade", "expect", "content-length", "signature", "signature-input"];
    match name.filter(|name| !moving.contains(&name.as_str())) {
        Some(name) => Some(Component::Field(name)),
        None => {
            problems.error(node.place, "this field cannot be signed", "it frames the message or belongs to the connection");
            None
        }
    }
}

fn is_quotable(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| (0x20..0x7f).contains(&b))
}

/// A structured-fields string (RFC 8941 section 3.3.3).
fn quotable(node: &Node, problems: &Problems) -> Option<String> {
    let text = node.text(problems)?;
    if !is_quotable(&text) {
        problems.error(node.place, "`key_id` is made of visible ASCII", "");
        return None;
    }
    Some(text)
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
        self.components.contains(&Component::Field(CONTENT_DIGEST))
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
        let created = self.clock.millis() / 1000;
        let expires = self.expires.map(|after| format!(";expires={}", created + after.as_secs())).unwrap_or_default();
        let (base, params) = self.base(call, &format!(";created={created}{expires}{}", self.suffix));
        let signature = self.key.sign(self.algorithm, base.as_bytes()).map_err(|why| Error::Internal(why.to_string()))?;
        call.headers.insert(SIGNATURE_INPUT, value(&format!("{}={params}", self.label))?);
        let mut signature = value(&format!("{}=:{}:", self.label, STANDARD.encode(signature)))?;
        signature.set_sensitive(true);
        call.headers.insert(SIGNATURE, signature);
        Ok(())
    }

    /// The signature base and the signature's parameters (RFC 9421 section 2.5). A field that the request does not have
    /// is not covered, and the parameters say so.
    fn base(&self, call: &Call, params: &str) -> (String, String) {
        let (mut lines, mut covered) = (String::with_capacity(512), String::with_capacity(128));
        for component in &self.components {
            let Some((name, value)) = self.line(component, call) else { continue };
            lines.push_str(&format!("\"{name}\": {value}\n"));
            covered.push_str(&format!("{}\"{name}\"", if covered.is_empty() { "" } else { " " }));
        }
        let params = format!("({covered}){params}");
        lines.push_str("\"@signature-params\": ");
        lines.push_str(&params);
        (lines, params)
    }

    fn line<'c>(&self, component: &'c Component, call: &Call) -> Option<(&'c str, String)> {
        let scheme = if self.secure { "https" } else { "http" };
        let authority = || {
            let host = call.headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default().to_ascii_lowercase();
            let port = if self.secure { ":443" } else { ":80" };
            host.strip_suffix(port).map(str::to_owned).unwrap_or(host)
        };
        let value = match component {
            Component::Method => call.method.as_str().to_owned(),
            Component::TargetUri => format!("{scheme}://{}{}", authority(), call.target.as_str()),
            Component::Authority => authority(),
            Component::Scheme => scheme.to_owned(),
            Component::RequestTarget => call.target.as_str().to_owned(),
            Component::Path => call.target.path().to_owned(),
            Component::Query => format!("?{}", call.target.query().unwrap_or_default()),
            Component::Field(name) => {
                if !call.headers.contains_key(name) {
                    return None;
                }
                let values: Vec<String> =
                    call.headers.get_all(name).iter().map(|v| String::from_utf8_lossy(v.as_bytes().trim_ascii()).into_owned()).collect();
                return Some((name.as_str(), values.join(", ")));
            }
        };
        DERIVED.iter().find(|(_, derived)| derived == component).map(|(name, _)| (*name, value))
    }
}

fn value(text: &str) -> Result<HeaderValue, Error> {
    HeaderValue::from_str(text).map_err(|_| Error::Internal("a signature that no field can carry".into()))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::auth::support::{BUFFER, auth, call, call_with, complaints, signed};
    use crate::path::Target;

    /// RFC 9421 section B.1.4.
    const ED25519: &str =
        "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIJ+DYvh6SEqVTm50DFtMDoQikTmiCqirVv9mWG9qfSnF\n-----END PRIVATE KEY-----\n";
    /// RFC 9421 section B.1.5.
    const SHARED: &str = "uzvJfB4u3N0Jy4T7NZ75MDVcr8zSTInedJtkgcu46YW4XByzNJjxBdtjUkdJPBtbmHhIDi6pcl8jsasjlTMtDQ==";

    /// The request of RFC 9421 section B.2.
    fn test_request() -> Call {
        let mut call = call_with("application/json", b"{\"hello\": \"world\"}");
        call.target = Target::new("/foo", Some("param=Value&Pet=dog"));
        for (name, text) in [
            ("host", "example.com"),
            ("date", "Tue, 20 Apr 2021 02:07:55 GMT"),
            ("content-length", "18"),
            ("content-digest", "sha-512=:WZDPaVn/7XgHaAy8pmojAkGWoRx2UFChF41A2svX+TaPm+AbwAgBWnrIiYllu7BNNyealdVLvRwEmTHWXvJwew==:"),
        ] {
            call.headers.insert(name, HeaderValue::from_static(text));
        }
        call
    }

    fn scheme(key: Key, components: &[&str]) -> HttpSignature {
        let component = |text: &&str| match DERIVED.iter().find(|(name, _)| name == text) {
            Some((_, component)) => component.clone(),
            None => Component::Field(HeaderName::try_from(*text).unwrap()),
        };
        HttpSignature {
            algorithm: key.usual(),
            key,
            components: components.iter().map(component).collect(),
            suffix: String::new(),
            label: "sig".into(),
            expires: None,
            hash: Hash::Sha512,
            secure: true,
            buffer: BUFFER,
            clock: Clock::system(),
            identity: "x".into(),
        }
    }

    // RFC 9421 section B.2.5.
    #[test]
    fn hmac_signs_the_test_request_as_the_rfc_does() {
        let key = Key::hmac(Encoding::Base64.bytes(SHARED).unwrap());
        let scheme = scheme(key, &["date", "@authority", "content-type"]);
        let (base, _) = scheme.base(&test_request(), ";created=1618884473;keyid=\"test-shared-secret\"");
        let expected = "\"date\": Tue, 20 Apr 2021 02:07:55 GMT\n\"@authority\": example.com\n\"content-type\": application/json\n\
                        \"@signature-params\": (\"date\" \"@authority\" \"content-type\");created=1618884473;keyid=\"test-shared-secret\"";
        assert_eq!(base, expected);
        let signature = scheme.key.sign(scheme.algorithm, base.as_bytes()).unwrap();
        assert_eq!(STANDARD.encode(signature), "pxcQw6G3AjtMBQjwo8XzkZf/bws5LelbaMk5rGIGtE8=");
    }

    // RFC 9421 section B.2.6.
    #[test]
    fn ed25519_signs_the_test_request_as_the_rfc_does() {
        let scheme = scheme(Key::private(ED25519).unwrap(), &["date", "@method", "@path", "@authority", "content-type", "content-length"]);
        let (base, _) = scheme.base(&test_request(), ";created=1618884473;keyid=\"test-key-ed25519\"");
        let signature = STANDARD.encode(scheme.key.sign(scheme.algorithm, base.as_bytes()).unwrap());
        assert_eq!(signature, "wqcAqbmYJ2ji2glfAMaRy4gruYYnx2nEFN2HN6jrnDnQCK1u02Gb04v9EDgwUPiu4A0w6vuQv5lIp5WPpBKRCw==");
    }

    // RFC 9421 sections 2.2.1 to 2.2.7, and the digest of section B.2.
    #[test]
    fn every_derived_component_and_the_digest_are_those_of_the_rfc() {
        let names = ["@method", "@target-uri", "@authority", "@scheme", "@request-target", "@path", "@query", "content-digest", "x-absent"];
        let scheme = scheme(Key::private(ED25519).unwrap(), &names);
        let mut call = test_request();
        call.headers.remove("content-digest");
        scheme.digest(&mut call, b"{\"hello\": \"world\"}").unwrap();
        let (base, params) = scheme.base(&call, ";created=1");
        assert_eq!(
            base,
            "\"@method\": POST\n\"@target-uri\": https://example.com/foo?param=Value&Pet=dog\n\"@authority\": example.com\n\"@scheme\": https\n\
             \"@request-target\": /foo?param=Value&Pet=dog\n\"@path\": /foo\n\"@query\": ?param=Value&Pet=dog\n\"content-digest\": \
             sha-512=:WZDPaVn/7XgHaAy8pmojAkGWoRx2UFChF41A2svX+TaPm+AbwAgBWnrIiYllu7BNNyealdVLvRwEmTHWXvJwew==:\n\"@signature-params\": \
             (\"@method\" \"@target-uri\" \"@authority\" \"@scheme\" \"@request-target\" \"@path\" \"@query\" \"content-digest\");created=1"
        );
        assert!(!params.contains("x-absent"));
    }

    fn configured(more: Value) -> Value {
        let mut all =
            json!({ "key_id": "k1", "key": "${secret:hunter2hunter2}", "components": ["@method", "@target-uri", "content-digest"] });
        more.as_object().unwrap().iter().for_each(|(key, value)| all[key] = value.clone());
        json!({ "http_signature": all })
    }

    #[test]
    fn a_call_gets_its_digest_its_parameters_and_its_signature() {
        let mut call = call_with("text/plain", b"abc");
        call.headers.insert(HOST, HeaderValue::from_static("example.com"));
        call.headers.insert(CONTENT_DIGEST, HeaderValue::from_static("sha-256=:mine:"));
        let call = signed(&auth(configured(json!({ "expires": "5m" }))), call).unwrap();
        assert_eq!(call.headers[CONTENT_DIGEST], "sha-256=:ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=:");
        let input = call.headers[SIGNATURE_INPUT].to_str().unwrap();
        assert!(input.starts_with("sig1=(\"@method\" \"@target-uri\" \"content-digest\");created="), "{input}");
        assert!(input.ends_with(";keyid=\"k1\";alg=\"hmac-sha256\""), "{input}");
        let number = |name: &str| input.split(name).nth(1).unwrap().split(';').next().unwrap().parse::<u64>().unwrap();
        assert_eq!(number(";expires="), number(";created=") + 300);
        assert!(call.headers[SIGNATURE].to_str().unwrap().starts_with("sig1=:") && call.headers[SIGNATURE].is_sensitive());
    }

    #[test]
    fn a_body_is_read_only_where_its_digest_is_signed() {
        let long = vec![b'x'; BUFFER as usize + 1];
        let digesting = signed(&auth(configured(json!({}))), call_with("", &long));
        assert_eq!(digesting.unwrap_err(), Error::BodyTooLarge(BUFFER, "limits.buffer".into()));
        assert!(signed(&auth(configured(json!({ "components": ["@method"] }))), call_with("", &long)).is_ok());
        let empty = signed(&auth(configured(json!({ "digest": "sha-512" }))), call("/a")).unwrap();
        assert!(
            empty.headers[CONTENT_DIGEST]
                .to_str()
                .unwrap()
                .starts_with("sha-512=:z4PhNX7vuL3xVChQ1m2AB9Yg5AULVxXcg/SpIdNs6c5H0NE8XYXysP+DGNKHfuwvY7kxvUdBeoGlODJ6+SfaPg==")
        );
    }

    #[test]
    fn what_is_wrong_or_unbuilt_is_said() {
        assert_eq!(complaints(configured(json!({}))), Vec::<String>::new());
        for (more, expected) in [
            (json!({ "algorithm": "ed25519" }), "do not belong together"),
            (json!({ "algorithm": "hmac-sha1" }), "is one of"),
            (json!({ "private_key": "${secret:x}" }), "both here"),
            (json!({ "key": null }), "`private_key` is missing"),
            (json!({ "key": null, "private_key": "${secret:hunter2}" }), "no private key"),
            (json!({ "key_id": null }), "`key_id` is missing"),
            (json!({ "key_id": "ü" }), "visible ASCII"),
            (json!({ "components": [] }), "1 to 64"),
            (json!({ "components": ["@methd"] }), "did you mean `@method`"),
            (json!({ "components": ["@query-param;name=\"x\""] }), "not built"),
            (json!({ "components": ["date;bs"] }), "not built"),
            (json!({ "components": ["content-length"] }), "cannot be signed"),
            (json!({ "components": ["date", "Date"] }), "twice"),
            (json!({ "label": "Sig" }), "small letters"),
            (json!({ "digest": "md5" }), "is one of"),
            (json!({ "key": "literal" }), "must be a reference"),
        ] {
            let found = complaints(configured(more.clone()));
            assert!(found.len() == 1 && found[0].contains(expected), "{more}: {found:?}");
            assert!(!found[0].contains("hunter2"));
        }
    }

    #[test]
    fn nothing_of_it_prints() {
        let text = format!("{:?}", auth(configured(json!({}))));
        assert!(!text.contains("hunter2"), "{text}");
    }
}
