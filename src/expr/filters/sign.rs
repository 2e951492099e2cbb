//! `ed25519 rsa_sha256 ecdsa_sha256 public_key_fingerprint`: signatures under private keys in any of the spellings of
//! `key.rs`, and what names the public half.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use minijinja::{Environment, Error, State, Value as Engine};
use zeroize::Zeroizing;

use super::args::{Given, bound, charge, charge_bytes, message, needed, only, text};
use crate::expr::bridge::{self, complain};
use crate::key::{Algorithm, Key, KeyError, sha256};

/// What a signature costs: as much as reading this many bytes.
const SIGNATURE_COST: usize = 256 << 10;
/// What stands in front of the 32 bytes of a seed in PKCS#8 (RFC 8410 section 7).
const SEED_IN_PKCS8: [u8; 16] = [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
const SEED_LENGTH: usize = 32;

pub fn install(engine: &mut Environment<'static>) {
    engine.add_filter("ed25519", |state: &State, value: &Engine, args: Given| signed(state, value, &only("key", args)?, Algorithm::EdDSA));
    engine
        .add_filter("rsa_sha256", |state: &State, value: &Engine, args: Given| signed(state, value, &only("key", args)?, Algorithm::RS256));
    engine.add_filter("ecdsa_sha256", |state: &State, value: &Engine, args: Given| {
        let [key, form] = bound(["key", "form"], args)?;
        let form = form.map_or(Ok(Form::Der), |form| form_of(&text(&form)?).map_err(complain))?;
        let signature = signed(state, value, &needed(key)?, Algorithm::ES256)?;
        match (form, bridge::as_bytes(&signature)) {
            (Form::Der, Some(raw)) => Ok(bridge::bytes(der(&raw))),
            _ => Ok(signature),
        }
    });
    engine.add_filter("public_key_fingerprint", |state: &State, value: &Engine| {
        charge(state, SIGNATURE_COST)?;
        let public = private(value)?.public().ok_or_else(|| complain("`public_key_fingerprint` takes a private key, not a secret"))?;
        Ok::<_, Error>(bridge::bytes(sha256(&public)))
    });
}

fn signed(state: &State<'_, '_>, value: &Engine, key: &Engine, algorithm: Algorithm) -> Result<Engine, Error> {
    let bytes = message(value)?;
    charge_bytes(state, value)?;
    charge_signature(state)?;
    let signature = private(key)?.sign(algorithm, &bytes).map_err(unusable)?;
    Ok(bridge::bytes(signature))
}

/// A key's error in our words.
pub fn unusable(KeyError(why, hint): KeyError) -> Error {
    complain(format!("{why}: {hint}"))
}

/// The private key that text or bytes hold: text in any spelling, DER, or the 32 bytes of an Ed25519 seed.
pub fn private(value: &Engine) -> Result<Key, Error> {
    let written = match bridge::as_bytes(value) {
        None => match text(value)? {
            Cow::Borrowed(text) => return Key::private(text).map_err(unusable),
            Cow::Owned(text) => text.into_bytes(),
        },
        Some(bytes) if bytes.len() == SEED_LENGTH => [&SEED_IN_PKCS8[..], &bytes].concat(),
        Some(bytes) => bytes.to_vec(),
    };
    let written = Zeroizing::new(written);
    match std::str::from_utf8(&written) {
        Ok(text) => Key::private(text).map_err(unusable),
        Err(_) => Key::private(&Zeroizing::new(STANDARD.encode(&*written))).map_err(unusable),
    }
}

/// Pays for a signature.
pub fn charge_signature(state: &State<'_, '_>) -> Result<(), Error> {
    charge(state, SIGNATURE_COST)
}

/// How an ECDSA signature is written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// ASN.1 (RFC 3279 section 2.2.3), as openssl and most libraries write it.
    Der,
    /// The two numbers, one behind the other, as in JWS (RFC 7518 section 3.4) and RFC 9421.
    Raw,
}

fn form_of(form: &str) -> Result<Form, String> {
    match form {
        "der" => Ok(Form::Der),
        "raw" => Ok(Form::Raw),
        _ => Err("`form` is 'der' (ASN.1, as openssl writes it) or 'raw' (the two numbers, as in JWT)".into()),
    }
}

pub fn check_form(args: &[Option<&str>]) -> Result<(), String> {
    args.get(1).copied().flatten().map_or(Ok(()), |form| form_of(form).map(drop))
}

/// `SEQUENCE { r INTEGER, s INTEGER }` of the two halves.
fn der(raw: &[u8]) -> Vec<u8> {
    let (r, s) = raw.split_at(raw.len() / 2);
    let body = [integer(r), integer(s)].concat();
    // Two numbers of 32 bytes never need a long form of the length.
    let length = u8::try_from(body.len()).unwrap_or_default();
    [&[0x30, length][..], &body].concat()
}

fn integer(number: &[u8]) -> Vec<u8> {
    let first = number.iter().position(|b| *b != 0).unwrap_or(number.len().saturating_sub(1));
    let number = &number[first..];
    let sign = number.first().is_some_and(|b| b & 0x80 != 0);
    let length = u8::try_from(number.len() + usize::from(sign)).unwrap_or_default();
    [&[0x02, length][..], &[0][..usize::from(sign)], number].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_integer_is_short_and_never_negative() {
        assert_eq!(integer(&[0, 0, 1]), [2, 1, 1]);
        assert_eq!(integer(&[0, 0x80]), [2, 2, 0, 0x80]);
        assert_eq!(integer(&[0, 0]), [2, 1, 0]);
    }
}
