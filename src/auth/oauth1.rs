//! `oauth1`: OAuth 1.0a signatures (RFC 5849 section 3), two-legged, with a token that is there already, or with that of a
//! connection, and the body hash of the OAuth extension of that name.
//!
//! The base string is `oauth1/base.rs`, and how a person gives a token `oauth1/consent.rs`.

mod base;
mod consent;

use std::sync::Arc;

use aws_lc_rs::{digest, hmac, rand};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{HeaderMap, HeaderValue};
use zeroize::Zeroizing;

use self::base::Pairs;
use self::consent::ByToken;
use crate::auth::connection::{Connection, Connections};
use crate::auth::consent::Consent;
use crate::auth::read::fields;
use crate::auth::token::STAND_IN;
use crate::auth::whole::whole;
use crate::auth::{Owned, Reading, Scheme, Signing};
use crate::body::Body;
use crate::call::Call;
use crate::clock::Clock;
use crate::error::Error;
use crate::key::{Algorithm, Key};
use crate::secret::Secret;
use crate::tree::{Fields, Node, Place, Problems};

/// Parameters of the protocol: nobody but the gateway says them.
const OWNED: [&str; 10] = [
    "oauth_consumer_key",
    "oauth_token",
    "oauth_signature_method",
    "oauth_signature",
    "oauth_timestamp",
    "oauth_nonce",
    "oauth_version",
    "oauth_body_hash",
    "oauth_callback",
    "oauth_verifier",
];

/// How it is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    HmacSha1,
    HmacSha256,
    HmacSha512,
    RsaSha256,
    Plaintext,
}

const METHODS: [(&str, Method); 5] = [
    ("HMAC-SHA1", Method::HmacSha1),
    ("HMAC-SHA256", Method::HmacSha256),
    ("HMAC-SHA512", Method::HmacSha512),
    ("RSA-SHA256", Method::RsaSha256),
    ("PLAINTEXT", Method::Plaintext),
];

/// What signs.
#[derive(Clone)]
enum Signer {
    Hmac(Box<hmac::Key>),
    Rsa(Arc<Key>),
    Plain(Secret),
}

/// OAuth 1.0a.
pub struct OAuth1 {
    own: Own,
    consented: Option<Consented>,
}

/// A connection's tokens instead of a written one.
struct Consented {
    by: Arc<ByToken>,
    connections: Connections,
}

/// Whoever signs, with one token or none.
#[derive(Clone)]
struct Own {
    method: Method,
    signer: Signer,
    consumer_key: String,
    consumer_secret: Secret,
    token: Option<String>,
    realm: Option<String>,
    body_hash: bool,
    secure: bool,
    buffer: u64,
    clock: Clock,
    identity: Arc<str>,
}

/// What is signed.
struct Subject<'s> {
    method: &'s str,
    scheme: &'s str,
    authority: &'s str,
    path: &'s str,
    query: &'s str,
    /// Parameters of the protocol that only this request has.
    protocol: &'s [(&'static str, &'s str)],
}

/// Reads `{ consumer_key, consumer_secret, token, token_secret, signature, realm, private_key, body_hash, consent }`.
pub(super) fn read(node: &Node, reading: Reading<'_>) -> Option<Box<dyn Scheme>> {
    let problems = reading.problems;
    let fields = fields(node, "a map with `consumer_key` and `consumer_secret`", problems)?;
    let consumer_key = fields.need("consumer_key").and_then(|n| n.text(problems));
    let token = fields.node("token").map(|n| n.text_or_unset(problems));
    let token_secret = fields.node("token_secret").map(|n| n.secret_or_empty(problems));
    let realm = fields.node("realm").map(|n| realm(n, &fields));
    let method = method(&fields);
    let body_hash = fields.flag("body_hash", false);
    let consent = fields.node("consent").map(|node| consent::Written::read(node, reading));
    if consent.is_some() {
        for key in ["token", "token_secret"] {
            if fields.node(key).is_some() {
                problems.error(fields.key_place(key), format!("`{key}` says nothing where a person gives the token"), "remove one of them");
                return None;
            }
        }
    }
    if body_hash && method == Some(Method::Plaintext) {
        problems.error(fields.place(), "PLAINTEXT signs nothing, so no hash of the body either", "remove `body_hash`");
        return None;
    }
    let rsa = method == Some(Method::RsaSha256);
    let private_key = fields.node("private_key").map(|n| Some((n.place, n.secret(problems)?)));
    let consumer_secret = match fields.raw("consumer_secret") {
        Some(node) => node.secret_or_empty(problems),
        None if rsa => Some(Secret::new(String::new())),
        None => {
            problems.error(fields.place(), "`consumer_secret` is missing", "add `consumer_secret: \"${env:NAME}\"`");
            None
        }
    };
    if private_key.is_some() && method.is_some() && !rsa {
        problems.error(fields.place(), "`private_key` is for RSA signatures", "write `signature: RSA-SHA256`, or remove the key");
    }
    fields.finish();
    let (method, consumer_key, consumer_secret) = (method?, consumer_key?, consumer_secret?);
    let token = token.map_or(Some(None), |token| token.map(Some))?.filter(|token| !token.is_empty());
    let token_secret = token_secret.map_or(Some(Secret::new(String::new())), |secret| secret)?;
    let realm = realm.map_or(Some(None), |realm| realm.map(Some))?;
    let rsa_key = private_key.as_ref().and_then(Option::as_ref).map(|(_, key)| key.clone());
    let signer = signer(method, &consumer_secret, &token_secret, private_key, (node.place, problems))?;
    let token_text = token.as_deref().unwrap_or_default();
    let identity = reading.fingerprint.of([
        &b"oauth1"[..],
        consumer_key.as_bytes(),
        consumer_secret.expose().as_bytes(),
        token_text.as_bytes(),
        token_secret.expose().as_bytes(),
        rsa_key.as_ref().map_or("", Secret::expose).as_bytes(),
    ]);
    let (buffer, secure) = (reading.context.buffer, reading.context.secure);
    let clock = Clock::system();
    let own = Own { method, signer, consumer_key, consumer_secret, token, realm, body_hash, secure, buffer, clock, identity };
    let consented = match consent {
        Some(written) => Some(Consented { by: written?.by(own.clone()), connections: reading.context.tokens.connections().clone() }),
        None => None,
    };
    Some(Box::new(OAuth1 { own, consented }))
}

fn method(fields: &Fields<'_>) -> Option<Method> {
    if let Some(node) = fields.node("signature").filter(|n| n.word() == Some("RSA-SHA1")) {
        let hint = "the one provider of cryptography signs no SHA-1 with RSA any more: use RSA-SHA256, or an HMAC";
        fields.problems().error(node.place, "`signature: RSA-SHA1` is not built into this version", hint);
        return None;
    }
    Some(fields.choice("signature", &METHODS, Method::HmacSha1))
}

fn signer(
    method: Method,
    consumer: &Secret,
    token: &Secret,
    private: Option<Option<(Place, Secret)>>,
    (place, problems): (Place, &Problems),
) -> Option<Signer> {
    match method {
        Method::RsaSha256 => {
            let Some(private) = private else {
                problems.error(place, "`private_key` is missing", "add `private_key: \"${file:key.pem}\"`");
                return None;
            };
            let (at, text) = private?;
            match Key::private(text.expose()) {
                Ok(key) if key.fits(Algorithm::RS256) => Some(Signer::Rsa(Arc::new(key))),
                Ok(_) => {
                    problems.error(at, "`private_key` is no RSA key", "RSA-SHA256 needs one of 2048 bits or more");
                    None
                }
                Err(why) => {
                    problems.error(at, why.0, why.1);
                    None
                }
            }
        }
        _ => shared(method, consumer, token),
    }
}

/// What signs with the two secrets; `None` for a method that has a key of its own.
fn shared(method: Method, consumer: &Secret, token: &Secret) -> Option<Signer> {
    let shared = Zeroizing::new([base::encode(consumer.expose().as_bytes()), "&".into(), base::encode(token.expose().as_bytes())].concat());
    let algorithm = match method {
        Method::HmacSha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
        Method::HmacSha256 => hmac::HMAC_SHA256,
        Method::HmacSha512 => hmac::HMAC_SHA512,
        Method::Plaintext => return Some(Signer::Plain(Secret::new(shared.to_string()))),
        Method::RsaSha256 => return None,
    };
    Some(Signer::Hmac(Box::new(hmac::Key::new(algorithm, shared.as_bytes()))))
}

/// A quoted string (RFC 9110 section 5.6.4), which is not percent-encoded (RFC 5849 section 3.5.1).
fn realm(node: &Node, fields: &Fields<'_>) -> Option<String> {
    let text = node.text(fields.problems())?;
    if text.contains(char::is_control) {
        fields.problems().error(node.place, "`realm` holds a line break or another control character", "");
        return None;
    }
    Some(text.replace('\\', "\\\\").replace('"', "\\\""))
}

impl Scheme for OAuth1 {
    fn owns(&self) -> Owned {
        Owned { headers: vec![AUTHORIZATION], params: OWNED.map(str::to_owned).to_vec(), ..Owned::default() }
    }

    fn identity(&self, call: &Call) -> Option<Arc<str>> {
        match &self.consented {
            Some(_) => Some(Connection::of(call.account.as_deref()?)?.identity().clone()),
            None => Some(self.own.identity.clone()),
        }
    }

    fn consent(&self) -> Option<Arc<dyn Consent>> {
        self.consented.as_ref().map(|consented| consented.by.clone() as Arc<dyn Consent>)
    }

    fn secret(&self) -> bool {
        true
    }

    fn fresh(&self) -> bool {
        // Only this method sends a secret, and only a person's is not the configuration's own.
        self.consented.is_some() && self.own.method == Method::Plaintext
    }

    fn seals(&self) -> bool {
        true
    }

    fn sign<'a>(&'a self, call: &'a mut Call) -> Signing<'a> {
        match &self.consented {
            None if self.own.reads(call) => Signing::Later(Box::pin(self.own.seal_whole(call))),
            None => Signing::Done(self.own.seal_head(call)),
            Some(consented) => Signing::Later(Box::pin(async move {
                let own = consented.own(&self.own, call).await?;
                if own.reads(call) { own.seal_whole(call).await } else { own.seal_head(call) }
            })),
        }
    }
}

impl Consented {
    /// The same with the token of the call's account.
    async fn own(&self, own: &Own, call: &Call) -> Result<Own, Error> {
        let Some(account) = &call.account else {
            // Nothing is sent: there the token would stand.
            return own.with(STAND_IN.to_owned(), &Secret::new(String::new()));
        };
        let minted = self.connections.given(account).await?;
        let (token, secret) = consent::pair(&minted).ok_or_else(|| Error::Internal("a connection without its token".into()))?;
        own.with(token.to_owned(), secret)
    }
}

/// Whether the fields of the body are parameters (RFC 5849 section 3.4.1.3.1).
fn is_form(headers: &HeaderMap) -> bool {
    let essence = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).and_then(|v| v.split(';').next()).unwrap_or_default();
    essence.trim().eq_ignore_ascii_case("application/x-www-form-urlencoded")
}

impl Own {
    /// The same consumer with another token.
    fn with(&self, token: String, secret: &Secret) -> Result<Self, Error> {
        let signer = match &self.signer {
            Signer::Rsa(key) => Signer::Rsa(key.clone()),
            _ => shared(self.method, &self.consumer_secret, secret).ok_or_else(|| Error::Internal("no signer".into()))?,
        };
        Ok(Self { token: Some(token), signer, ..self.clone() })
    }

    /// Whether the body must be read.
    fn reads(&self, call: &Call) -> bool {
        !(matches!(call.body, Body::Empty) || self.method == Method::Plaintext) && (is_form(&call.headers) || self.body_hash)
    }

    fn seal_head(&self, call: &mut Call) -> Result<(), Error> {
        let bytes = matches!(call.body, Body::Empty).then_some(&b""[..]);
        let form = is_form(&call.headers);
        self.seal(call, bytes, form)
    }

    async fn seal_whole(&self, call: &mut Call) -> Result<(), Error> {
        let form = is_form(&call.headers);
        let bytes = whole(call, self.buffer).await?;
        self.seal(call, Some(&bytes), form)
    }

    /// Signs a call. `body` is there where it was read.
    fn seal(&self, call: &mut Call, body: Option<&[u8]>, form: bool) -> Result<(), Error> {
        let (nonce, now) = self.occasion()?;
        let hash = body.filter(|_| self.body_hash && !form).map(|body| self.hash(body));
        let authority = call.headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
        let subject = Subject {
            method: call.method.as_str(),
            scheme: if call.is_secure(self.secure) { "https" } else { "http" },
            authority,
            path: call.target.path(),
            query: call.target.query().unwrap_or_default(),
            protocol: &hash.as_deref().map(|hash| ("oauth_body_hash", hash)).into_iter().collect::<Vec<_>>(),
        };
        let value = self.authorization(&subject, body.filter(|_| form), &nonce, &now)?;
        call.headers.insert(AUTHORIZATION, value);
        Ok(())
    }

    /// A nonce and a time.
    fn occasion(&self) -> Result<(String, String), Error> {
        let mut random = [0; 16];
        rand::fill(&mut random).map_err(|_| Error::Internal("the system gives no random bytes".into()))?;
        Ok((format!("{:032x}", u128::from_be_bytes(random)), (self.clock.millis() / 1000).to_string()))
    }

    fn authorization(&self, subject: &Subject<'_>, form: Option<&[u8]>, nonce: &str, timestamp: &str) -> Result<HeaderValue, Error> {
        let name = METHODS.iter().find(|(_, method)| *method == self.method).map_or("", |(name, _)| name);
        let mut protocol = vec![
            ("oauth_consumer_key", self.consumer_key.as_str()),
            ("oauth_signature_method", name),
            ("oauth_timestamp", timestamp),
            ("oauth_nonce", nonce),
            ("oauth_version", "1.0"),
        ];
        protocol.extend(self.token.as_deref().map(|token| ("oauth_token", token)));
        protocol.extend(subject.protocol.iter().copied());
        let mut all: Pairs = protocol.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec())).collect();
        all.extend(base::pairs(subject.query.as_bytes()));
        for pair in form.into_iter().flat_map(base::pairs) {
            if OWNED.iter().any(|owned| owned.as_bytes() == pair.0) {
                let why = "The form holds a parameter of the OAuth protocol, which would speak against the gateway's own.";
                return Err(Error::BadRequest(why.into(), "Leave out what begins with oauth_.".into()));
            }
            all.push(pair);
        }
        let Subject { method, scheme, authority, path, .. } = subject;
        let signature = self.signature(&base::string(method, scheme, authority, path, &all))?;
        let mut text = Zeroizing::new(String::with_capacity(512));
        text.push_str("OAuth ");
        if let Some(realm) = &self.realm {
            text.push_str("realm=\"");
            text.push_str(realm);
            text.push_str("\", ");
        }
        for (name, value) in &protocol {
            text.push_str(name);
            text.push_str("=\"");
            text.push_str(&base::encode(value.as_bytes()));
            text.push_str("\", ");
        }
        text.push_str("oauth_signature=\"");
        text.push_str(&base::encode(signature.as_bytes()));
        text.push('"');
        let mut value =
            HeaderValue::from_bytes(text.as_bytes()).map_err(|_| Error::Internal("OAuth parameters that no field carries".into()))?;
        value.set_sensitive(true);
        Ok(value)
    }

    /// The signature of a base string, before it is percent-encoded.
    fn signature(&self, base: &str) -> Result<Zeroizing<String>, Error> {
        Ok(Zeroizing::new(match &self.signer {
            Signer::Hmac(key) => STANDARD.encode(hmac::sign(key, base.as_bytes())),
            Signer::Plain(secret) => secret.expose().to_owned(),
            Signer::Rsa(key) => {
                let signature = key.sign(Algorithm::RS256, base.as_bytes()).map_err(|why| Error::Internal(why.to_string()))?;
                STANDARD.encode(signature)
            }
        }))
    }

    /// The hash of a body, by the function of the signature (OAuth Request Body Hash 1.0, section 3.2).
    fn hash(&self, body: &[u8]) -> String {
        let algorithm = match self.method {
            Method::HmacSha1 | Method::Plaintext => &digest::SHA1_FOR_LEGACY_USE_ONLY,
            Method::HmacSha256 | Method::RsaSha256 => &digest::SHA256,
            Method::HmacSha512 => &digest::SHA512,
        };
        STANDARD.encode(digest::digest(algorithm, body))
    }
}

impl std::fmt::Debug for OAuth1 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OAuth1").field("method", &self.own.method).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use serde_json::{Value, json};

    use super::*;
    use crate::auth::support::{BUFFER, auth, call, call_with, complaints, signed};

    fn scheme(signature: &str, token: Option<&str>, secrets: (&str, &str)) -> Own {
        let method = METHODS.iter().find(|(name, _)| *name == signature).unwrap().1;
        let problems = Problems::default();
        let secret = |text: &str| Secret::new(text.to_owned());
        Own {
            method,
            consumer_secret: secret(secrets.0),
            signer: signer(method, &secret(secrets.0), &secret(secrets.1), None, (Place::default(), &problems)).unwrap(),
            consumer_key: "dpf43f3p2l4k3l03".into(),
            token: token.map(str::to_owned),
            realm: None,
            body_hash: false,
            secure: false,
            buffer: BUFFER,
            clock: Clock::system(),
            identity: "x".into(),
        }
    }

    // RFC 5849 section 1.2, the last request. It names no version, so the base string is given as it is.
    #[test]
    fn the_example_of_the_rfc_has_its_signature() {
        let scheme = scheme("HMAC-SHA1", Some("nnch734d00sl2jdk"), ("kd94hf93k423kf44", "pfkkdhi9sl3r4s00"));
        let pairs: Pairs = base::pairs(
            b"file=vacation.jpg&size=original&oauth_consumer_key=dpf43f3p2l4k3l03&oauth_token=nnch734d00sl2jdk\
              &oauth_signature_method=HMAC-SHA1&oauth_timestamp=137131202&oauth_nonce=chapoH",
        )
        .collect();
        let base = base::string("GET", "http", "photos.example.net", "/photos", &pairs);
        assert_eq!(*scheme.signature(&base).unwrap(), "MdpQcU8iPSUjWoN/UDMsK2sui9I=");
    }

    // RFC 5849 section 1.2, the first request.
    #[test]
    fn plaintext_is_the_secrets_themselves() {
        let scheme = scheme("PLAINTEXT", None, ("kd94hf93k423kf44", ""));
        assert_eq!(*scheme.signature("anything").unwrap(), "kd94hf93k423kf44&");
        let value = scheme.authorization(&SUBJECT, None, "n", "1").unwrap();
        assert!(value.to_str().unwrap().ends_with("oauth_signature=\"kd94hf93k423kf44%26\"") && value.is_sensitive());
    }

    const SUBJECT: Subject<'static> = Subject { method: "GET", scheme: "http", authority: "a", path: "/a", query: "", protocol: &[] };

    fn configured(more: Value) -> Value {
        let mut all = json!({ "consumer_key": "k", "consumer_secret": "${secret:hunter2}" });
        more.as_object().unwrap().iter().for_each(|(key, value)| all[key] = value.clone());
        json!({ "oauth1": all })
    }

    fn sent(more: Value, mut call: Call) -> String {
        call.headers.insert(HOST, HeaderValue::from_static("api.example.com"));
        signed(&auth(configured(more)), call).unwrap().headers[AUTHORIZATION].to_str().unwrap().to_owned()
    }

    #[test]
    fn no_two_calls_share_a_nonce_and_the_realm_stands_first() {
        let one = sent(json!({ "realm": "a \"b\"", "token": "t/1", "token_secret": "${secret:ts}" }), call("/a?x=1"));
        assert!(one.starts_with("OAuth realm=\"a \\\"b\\\"\", oauth_consumer_key=\"k\", oauth_signature_method=\"HMAC-SHA1\""), "{one}");
        assert!(one.contains("oauth_token=\"t%2F1\"") && one.contains("oauth_version=\"1.0\""), "{one}");
        let nonce = |text: &str| text.split("oauth_nonce=\"").nth(1).unwrap()[..32].to_owned();
        assert_ne!(nonce(&one), nonce(&sent(json!({}), call("/a?x=1"))));
    }

    #[test]
    fn the_hash_of_a_body_is_there_where_it_is_wanted_and_never_of_a_form() {
        let hashed = json!({ "body_hash": true });
        // OAuth Request Body Hash 1.0, appendix A.1 and A.2.
        assert!(
            sent(hashed.clone(), call_with("text/plain", b"Hello World!")).contains("oauth_body_hash=\"Lve95gjOVATpfV8EL5X4nxwjKHE%3D\"")
        );
        assert!(sent(hashed.clone(), call("/a")).contains("oauth_body_hash=\"2jmj7l5rSw0yVb%2FvlWAYkK%2FYBwk%3D\""));
        assert!(!sent(hashed, call_with("application/x-www-form-urlencoded", b"a=b")).contains("oauth_body_hash"));
        assert!(!sent(json!({}), call_with("text/plain", b"Hello World!")).contains("oauth_body_hash"));
    }

    #[test]
    fn a_form_that_speaks_the_protocol_or_is_too_long_is_refused() {
        let form = |body: &[u8]| signed(&auth(configured(json!({}))), call_with("application/x-www-form-urlencoded; charset=utf-8", body));
        assert!(form(b"a=b&oauth+token=x").is_ok());
        assert!(matches!(form(b"a=b&oauth%5Ftoken=x").unwrap_err(), Error::BadRequest(..)));
        let long = vec![b'x'; BUFFER as usize + 1];
        assert_eq!(form(&long).unwrap_err(), Error::BodyTooLarge(BUFFER, "limits.buffer".into()));
        // Any other body streams.
        let streamed = signed(&auth(configured(json!({}))), call_with("text/plain", &long)).unwrap();
        assert!(matches!(streamed.body, Body::Full(_)));
    }

    #[test]
    fn what_is_wrong_or_unbuilt_is_said() {
        assert_eq!(complaints(configured(json!({}))), Vec::<String>::new());
        for (more, expected) in [
            (json!({ "signature": "RSA-SHA1" }), "not built"),
            (json!({ "signature": "HMAC-SHA2" }), "is one of"),
            (json!({ "signature": "RSA-SHA256" }), "`private_key` is missing"),
            (json!({ "signature": "RSA-SHA256", "private_key": "${secret:hunter2}" }), "no private key"),
            (json!({ "private_key": "${secret:hunter2}" }), "is for RSA"),
            (json!({ "signature": "PLAINTEXT", "body_hash": true }), "signs nothing"),
            (
                json!({ "consent": { "request_url": "https://x/r", "authorize_url": "https://x/a", "access_url": "https://x/t" }, "token": "t" }),
                "says nothing where a person gives the token",
            ),
            (json!({ "consumer_secret": "literal" }), "must be a reference"),
            (json!({ "realm": "a\nb" }), "line break"),
        ] {
            let found = complaints(configured(more.clone()));
            assert!(found.len() == 1 && found[0].contains(expected), "{more}: {found:?}");
            assert!(!found[0].contains("hunter2"));
        }
        assert_eq!(complaints(json!({ "oauth1": {} })).len(), 2);
    }

    #[test]
    fn nothing_of_it_prints() {
        let text = format!("{:?}", auth(configured(json!({ "signature": "PLAINTEXT" }))));
        assert!(!text.contains("hunter2"), "{text}");
    }
}
