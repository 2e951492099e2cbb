//! Judges what arrives: an upstream and an issuer that compare every byte that matters, and recompute every signature by
//! means of their own.

use std::collections::BTreeMap;

use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::signature::KeyPair as _;
use aws_lc_rs::{digest, hmac};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use md5::Digest as _;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde_json::{Value, json};

use super::scenarios::{Scenario, TokenCall};
use crate::support::issuer::decoded;
use crate::support::{Seen, Upstream};

/// How an upstream tells who signed.
pub enum Sign {
    Digest {
        user: &'static str,
        password: String,
    },
    Aws {
        id: &'static str,
        key: String,
        region: &'static str,
        service: &'static str,
    },
    OAuth1 {
        realm: &'static str,
        consumer: (&'static str, String),
        token: (&'static str, String),
    },
    /// A signed assertion at the issuer.
    Assertion {
        public: String,
        issuer: &'static str,
        subject: &'static str,
        scope: &'static str,
    },
}

/// An RSA key as PEM.
pub struct Pair {
    pub private: String,
    pub public: String,
}

impl Pair {
    pub fn generate() -> Self {
        let pair = aws_lc_rs::rsa::KeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048).unwrap();
        let private: Pkcs8V1Der<'_> = pair.as_der().unwrap();
        let public: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
        let pem = |label: &str, der: &[u8]| format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der));
        Self { private: pem("PRIVATE KEY", private.as_ref()), public: pem("PUBLIC KEY", public.as_ref()) }
    }
}

/// An upstream and issuer for this scenario on one port. What is wrong is refused with 401 and the reason.
pub fn serve(scenario: Scenario) -> Upstream {
    // What the test of any preset looks for in an answer.
    let body = json!({ "ok": true, "valid": true, "data": { "viewer": { "id": "1" }, "shop": { "name": "acme" } } });
    Upstream::answering(move |seen, stream| {
        let token = scenario.token.as_ref().filter(|token| seen.target() == token.path);
        // Beside the token, the instance at which it is good.
        let minted = json!({
            "access_token": format!("minted-{}", scenario.preset), "token_type": "Bearer", "expires_in": 3600,
            "instance_url": format!("http://{}", seen.field("host").unwrap_or_default()),
        });
        let (status, fields, body) = match (token, challenge(&scenario, seen)) {
            (None, Some(challenge)) => ("401 Unauthorized", challenge, json!({})),
            (Some(token), _) => match token_call(&scenario, token, seen) {
                Ok(()) => ("200 OK", String::new(), minted),
                Err(why) => ("401 Unauthorized", String::new(), json!({ "error": "invalid_client", "why": why })),
            },
            (None, None) => match call(&scenario, seen) {
                Ok(()) => ("200 OK", String::new(), body.clone()),
                Err(why) => ("401 Unauthorized", String::new(), json!({ "why": why })),
            },
        };
        let fields = format!("Content-Type: application/json\r\n{fields}");
        crate::support::issuer::answer(stream, status, &fields, &body.to_string())
    })
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, found: T, wanted: T) -> Result<(), String> {
    if found == wanted { Ok(()) } else { Err(format!("{what}: {found:?} is not {wanted:?}")) }
}

/// The API call.
fn call(scenario: &Scenario, seen: &Seen) -> Result<(), String> {
    let (method, _, body) = scenario.asks;
    let asked = (method, scenario.sees, body);
    let found = (seen.line().split(' ').next().unwrap_or_default(), seen.target(), std::str::from_utf8(&seen.body).unwrap_or_default());
    if found != asked {
        same("method, target and body", found, scenario.probe)?;
    }
    for (name, value) in &scenario.fields {
        same(name, seen.fields(name), vec![value.as_str()])?;
    }
    match &scenario.sign {
        Some(Sign::Digest { user, password }) => digest_response(seen, user, password),
        Some(Sign::Aws { id, key, region, service }) => aws(seen, id, key, region, service),
        Some(Sign::OAuth1 { realm, consumer, token }) => oauth1(seen, realm, consumer, token),
        Some(Sign::Assertion { .. }) => Ok(()),
        // Nothing but what is told may stand in `Authorization`.
        None => same(
            "authorization",
            seen.fields("authorization").len(),
            scenario.fields.iter().filter(|(name, _)| *name == "authorization").count(),
        ),
    }
}

fn token_call(scenario: &Scenario, call: &TokenCall, seen: &Seen) -> Result<(), String> {
    same("line", seen.line(), format!("POST {} HTTP/1.1", call.path).as_str())?;
    same("content-type", seen.field("content-type"), Some("application/x-www-form-urlencoded"))?;
    same("authorization", seen.fields("authorization"), call.authorization.iter().map(String::as_str).collect())?;
    let mut form = decoded(&String::from_utf8_lossy(&seen.body));
    form.sort();
    if let Some(Sign::Assertion { public, issuer, subject, scope }) = &scenario.sign {
        let form: BTreeMap<String, String> = form.into_iter().collect();
        same("fields", form.keys().map(String::as_str).collect(), vec!["assertion", "grant_type"])?;
        same("grant_type", form["grant_type"].as_str(), "urn:ietf:params:oauth:grant-type:jwt-bearer")?;
        return assertion(&form["assertion"], public, issuer, subject, scope, call.path);
    }
    for (_, value) in form.iter_mut().filter(|(name, _)| call.form.iter().any(|(n, v)| n == name && v == "*")) {
        value.replace_range(.., "*");
    }
    let wanted: Vec<(String, String)> = call.form.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    same("form", form, wanted)
}

fn assertion(token: &str, public: &str, issuer: &str, subject: &str, scope: &str, path: &str) -> Result<(), String> {
    let key = jsonwebtoken::DecodingKey::from_rsa_pem(public.as_bytes()).unwrap();
    let mut rules = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::RS256);
    rules.validate_aud = false;
    let data = jsonwebtoken::decode::<Value>(token, &key, &rules).map_err(|why| why.to_string())?;
    same("kid", data.header.kid.as_deref(), Some("kid-1"))?;
    let claims = &data.claims;
    for (name, wanted) in [("iss", issuer), ("sub", subject), ("scope", scope)] {
        same(name, claims[name].as_str(), Some(wanted))?;
    }
    same("aud", claims["aud"].as_str().map(|aud| aud.ends_with(path)), Some(true))?;
    let (from, to) = (claims["iat"].as_u64().unwrap_or(0), claims["exp"].as_u64().unwrap_or(0));
    same("life", (1..=3600).contains(&to.saturating_sub(from)), true)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The challenge of a server that wants Digest and has seen nothing of it yet.
fn challenge(scenario: &Scenario, seen: &Seen) -> Option<String> {
    let wanted = matches!(scenario.sign, Some(Sign::Digest { .. })) && seen.field("authorization").is_none();
    wanted.then(|| {
        let challenge = r#"Digest realm="MMS Public API", domain="", nonce="bm9uY2U=", algorithm=MD5, qop="auth", stale=false"#;
        format!("WWW-Authenticate: {challenge}\r\n")
    })
}

/// RFC 7616 section 3.4.1, for MD5 and `auth`.
fn digest_response(seen: &Seen, user: &str, password: &str) -> Result<(), String> {
    let found = pairs(seen, "Digest ")?;
    let get = |name: &str| found.get(name).cloned().unwrap_or_default();
    let md5 = |text: String| hex(&md5::Md5::digest(text.as_bytes()));
    same("username", get("username").as_str(), user)?;
    same("uri", get("uri").as_str(), seen.target())?;
    let method = seen.line().split(' ').next().unwrap_or_default();
    let first = md5(format!("{user}:MMS Public API:{password}"));
    let second = md5(format!("{method}:{}", seen.target()));
    let wanted = md5(format!("{first}:bm9uY2U=:{}:{}:auth:{second}", get("nc"), get("cnonce")));
    same("response", get("response"), wanted)
}

/// The `name="value"` pairs of `Authorization` behind a scheme word.
fn pairs(seen: &Seen, word: &str) -> Result<BTreeMap<String, String>, String> {
    let value = seen.field("authorization").unwrap_or_default();
    let rest = value.strip_prefix(word).ok_or_else(|| format!("authorization is not {word}"))?;
    let pair = |part: &str| part.trim().split_once('=').map(|(n, v)| (n.to_owned(), v.trim_matches('"').to_owned()));
    Ok(rest.split(',').filter_map(pair).collect())
}

fn mac(key: &[u8], message: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message).as_ref().to_vec()
}

/// AWS Signature Version 4 over a request whose target is in its strict spelling.
fn aws(seen: &Seen, id: &str, key: &str, region: &str, service: &str) -> Result<(), String> {
    let found = pairs(seen, "AWS4-HMAC-SHA256 ")?;
    let time = seen.field("x-amz-date").unwrap_or_default().to_owned();
    let scope = format!("{}/{region}/{service}/aws4_request", time.get(..8).unwrap_or_default());
    same("credential", found.get("Credential").map(String::as_str), Some(format!("{id}/{scope}").as_str()))?;
    let names = found.get("SignedHeaders").cloned().unwrap_or_default();
    for name in ["host", "x-amz-content-sha256", "x-amz-date", "x-amz-security-token"] {
        same(name, names.split(';').any(|n| n == name), true)?;
    }
    let fields: String = names.split(';').map(|name| format!("{name}:{}\n", seen.field(name).unwrap_or_default())).collect();
    let (path, query) = seen.target().split_once('?').unwrap_or((seen.target(), ""));
    let mut query: Vec<&str> = query.split('&').collect();
    query.sort_unstable();
    let method = seen.line().split(' ').next().unwrap_or_default();
    let hash = seen.field("x-amz-content-sha256").unwrap_or_default();
    same("hash", hash, hex(digest::digest(&digest::SHA256, &seen.body).as_ref()).as_str())?;
    let canonical = format!("{method}\n{path}\n{}\n{fields}\n{names}\n{hash}", query.join("&"));
    let text = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{}", hex(digest::digest(&digest::SHA256, canonical.as_bytes()).as_ref()));
    let key = scope.split('/').fold(format!("AWS4{key}").into_bytes(), |key, part| mac(&key, part.as_bytes()));
    same("signature", found.get("Signature").cloned(), Some(hex(&mac(&key, text.as_bytes()))))
}

/// Everything but RFC 3986 `unreserved`.
const STRICT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

fn strict(text: &str) -> String {
    utf8_percent_encode(text, STRICT).to_string()
}

/// RFC 5849 section 3.4, for HMAC-SHA256 and requests without a form.
fn oauth1(seen: &Seen, realm: &str, consumer: &(&str, String), token: &(&str, String)) -> Result<(), String> {
    let plain = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let mut found: BTreeMap<String, String> = pairs(seen, "OAuth ")?.into_iter().map(|(name, value)| (name, plain(&value))).collect();
    same("realm", found.remove("realm").as_deref(), Some(realm))?;
    for (name, wanted) in [("oauth_consumer_key", consumer.0), ("oauth_token", token.0), ("oauth_signature_method", "HMAC-SHA256")] {
        same(name, found.get(name).map(String::as_str), Some(wanted))?;
    }
    let signature = found.remove("oauth_signature").unwrap_or_default();
    let (path, query) = seen.target().split_once('?').unwrap_or((seen.target(), ""));
    let mut all: Vec<(String, String)> = found.iter().map(|(name, value)| (strict(name), strict(value))).collect();
    all.extend(query.split('&').filter_map(|pair| pair.split_once('=')).map(|(n, v)| (strict(&plain(n)), strict(&plain(v)))));
    all.sort();
    let all: Vec<String> = all.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
    let method = seen.line().split(' ').next().unwrap_or_default();
    let url = format!("http://{}{path}", seen.field("host").unwrap_or_default());
    let text = format!("{method}&{}&{}", strict(&url), strict(&all.join("&")));
    let key = format!("{}&{}", strict(&consumer.1), strict(&token.1));
    same("signature", signature, STANDARD.encode(mac(key.as_bytes(), text.as_bytes())))
}
