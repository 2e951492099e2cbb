//! `hex unhex b64encode b64decode b64url b64url_decode text xml_escape`: between bytes and text. What is decoded may be
//! written with or without padding, with white space around, and hex in either case.

use base64::Engine as _;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{self, GeneralPurpose, GeneralPurposeConfig};
use minijinja::{Environment, Error, Value as Engine};

use super::args::{message, text};
use crate::expr::bridge::{self, complain};
use crate::expr::place;

const TOLERANT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent).with_decode_allow_trailing_bits(true);
const DECODE: GeneralPurpose = GeneralPurpose::new(&STANDARD, TOLERANT);
const DECODE_URL: GeneralPurpose = GeneralPurpose::new(&URL_SAFE, TOLERANT);

pub fn install(engine: &mut Environment<'static>) {
    engine.add_filter("hex", |value: &Engine| {
        let bytes = message(value)?;
        Ok::<_, Error>(hex(&bytes))
    });
    engine.add_filter("unhex", |value: &Engine| {
        let text = text(value)?;
        unhex(text.trim()).map(bridge::bytes).ok_or_else(|| complain("`unhex` met what is no hex: an even number of 0-9 and a-f"))
    });
    engine.add_filter("b64encode", |value: &Engine| {
        let bytes = message(value)?;
        Ok::<_, Error>(general_purpose::STANDARD.encode(&bytes))
    });
    engine.add_filter("b64url", |value: &Engine| {
        let bytes = message(value)?;
        Ok::<_, Error>(general_purpose::URL_SAFE_NO_PAD.encode(&bytes))
    });
    engine.add_filter("b64decode", |value: &Engine| decoded(value, &DECODE, "b64decode"));
    engine.add_filter("b64url_decode", |value: &Engine| decoded(value, &DECODE_URL, "b64url_decode"));
    engine.add_filter("text", |value: &Engine| {
        let bytes = message(value)?;
        String::from_utf8(bytes.into_owned()).map_err(|_| complain("`text` met bytes that are no UTF-8"))
    });
    engine.add_filter("xml_escape", |value: &Engine| {
        let text = text(value)?;
        place::xml(&text).map(|text| text.into_owned()).map_err(|why| complain(format!("`xml_escape`: {why}")))
    });
}

fn decoded(value: &Engine, engine: &GeneralPurpose, name: &str) -> Result<Engine, Error> {
    let text = text(value)?;
    let packed: String = text.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    engine.decode(packed).map(bridge::bytes).map_err(|_| complain(format!("`{name}` met what is no base64 of its alphabet")))
}

/// In lower case.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

/// Reads hex of either case.
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect()
}
