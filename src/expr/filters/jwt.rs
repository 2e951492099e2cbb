//! `jwt`: a map of claims to a signed compact JWT (RFC 7519, RFC 7515 section 3.1). `claims`: a JWT to its claims, which
//! nobody has verified.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use minijinja::{Environment, Error, State, Value as Engine};
use zeroize::Zeroizing;

use super::args::{Given, bound, charge, message, needed, text};
use super::sign::{charge_signature, private, unusable};
use crate::expr::bridge::{self, complain};
use crate::expr::value::{Moments, Value};
use crate::key::{Algorithm, Encoding, Key};

/// Largest JWT that is read.
const JWT_MAX: usize = 64 << 10;
const ENCODINGS: &str = "`key_encoding` is 'text', 'hex' or 'base64'";

pub fn install(engine: &mut Environment<'static>) {
    engine.add_filter("jwt", |state: &State, claims: &Engine, args: Given| {
        let [algorithm, key, encoding, header] = bound(["algorithm", "key", "key_encoding", "header"], args)?;
        let (algorithm, key) = (needed(algorithm)?, needed(key)?);
        let algorithm = algorithm_of(&text(&algorithm)?).map_err(complain)?;
        let encoding = encoding.map_or(Ok(Encoding::Text), |e| encoding_of(&text(&e)?).map_err(complain))?;
        let header = header.map_or(Ok(serde_json::Map::new()), |header| object(&header, "header"))?;
        if header.get("alg").is_some_and(|alg| alg != algorithm.name()) {
            return Err(complain("`header` names another algorithm than `algorithm` does"));
        }
        let claims = object(claims, "map of claims")?;
        charge(state, 32 * (claims.len() + header.len()))?;
        charge_signature(state)?;
        let key = if algorithm.is_hmac() { mac_key(&key, encoding)? } else { private(&key)? };
        key.jwt(algorithm, &header, &claims).map_err(unusable)
    });
    engine.add_filter("claims", |state: &State, jwt: &Engine| {
        let jwt = text(jwt)?;
        charge(state, jwt.len())?;
        let claims = claims(&jwt).map_err(complain)?;
        Ok::<_, Error>(bridge::engine(&claims))
    });
}

/// A map as JSON, with moments as `NumericDate` and numbers as written.
fn object(value: &Engine, what: &str) -> Result<serde_json::Map<String, serde_json::Value>, Error> {
    let wrong = || complain(format!("`jwt` needs a map as its {what}"));
    let Some(Value::Map(map)) = bridge::ours(value)? else { return Err(wrong()) };
    let mut json = Zeroizing::new(String::new());
    Value::Map(map).write_json(Moments::Seconds, &mut json).map_err(|why| complain(format!("`jwt`: {why}")))?;
    serde_json::from_str(&json).map_err(|_| wrong())
}

/// A secret as its `key_encoding` says, or an `oct` JWK.
fn mac_key(key: &Engine, encoding: Encoding) -> Result<Key, Error> {
    let written = message(key)?;
    let Ok(text) = std::str::from_utf8(&written) else { return Ok(Key::hmac(Zeroizing::new(written.into_owned()))) };
    if encoding == Encoding::Text && text.trim_start().starts_with('{') && text.contains("\"kty\"") {
        return Key::private(text).map_err(unusable);
    }
    encoding.bytes(text).map(Key::hmac).map_err(unusable)
}

fn algorithm_of(name: &str) -> Result<Algorithm, String> {
    let found = Algorithm::ALL.iter().find(|(known, _)| *known == name).map(|(_, algorithm)| *algorithm);
    found.ok_or_else(|| format!("`algorithm` is one of {}", Algorithm::ALL.map(|(known, _)| known).join(" ")))
}

fn encoding_of(name: &str) -> Result<Encoding, String> {
    let found = Encoding::ALL.iter().find(|(known, _)| *known == name).map(|(_, encoding)| *encoding);
    found.ok_or_else(|| ENCODINGS.to_owned())
}

pub fn check(args: &[Option<&str>]) -> Result<(), String> {
    if let Some(Some(name)) = args.first() {
        algorithm_of(name)?;
    }
    args.get(2).copied().flatten().map_or(Ok(()), |encoding| encoding_of(encoding).map(drop))
}

/// The claims of a compact JWT, unverified.
fn claims(jwt: &str) -> Result<Value, String> {
    let wrong = || "`claims` met what is no JWT".to_owned();
    if jwt.len() > JWT_MAX {
        return Err(format!("`claims` met a JWT of more than {JWT_MAX} bytes"));
    }
    let mut parts = jwt.trim().split('.');
    let (Some(_), Some(payload), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
        return Err(wrong());
    };
    let json = URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).map_err(|_| wrong())?;
    let json = String::from_utf8(json).map_err(|_| wrong())?;
    match Value::from_json(&json) {
        Ok(claims @ Value::Map(_)) => Ok(claims),
        _ => Err(wrong()),
    }
}
