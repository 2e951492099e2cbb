//! A secret: text that never prints, is wiped when dropped, and is compared in constant time.
//!
//! There is neither `Display` nor serialisation, and `Debug` says `[redacted]`. [`Mask`] finds a secret by value in
//! text that is about to be written somewhere.

use std::fmt;
use std::sync::Arc;

use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use zeroize::Zeroizing;

/// What stands wherever a secret would have stood.
pub const REDACTED: &str = "[redacted]";

/// Secrets shorter than this are not searched for by value: they would mask ordinary text (ruling A19).
const LEAST_MASKED: usize = 8;

/// Text that must not be shown. Clones share one allocation, which is wiped when the last one goes.
#[derive(Clone)]
pub struct Secret(Arc<Zeroizing<String>>);

impl Secret {
    /// Takes the text over.
    pub fn new(text: String) -> Self {
        Self(Arc::new(Zeroizing::new(text)))
    }

    /// The text itself. Call it only where the secret goes onto the wire to the origin it is for.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether there is nothing in it: an empty string is no secret (ruling A23).
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        aws_lc_rs::constant_time::verify_slices_are_equal(self.0.as_bytes(), other.0.as_bytes()).is_ok()
    }
}

impl Eq for Secret {}

/// Finds secrets by value: as they are, percent-encoded, JSON-escaped, and inside base64 at any of its three alignments.
#[derive(Clone, Default)]
pub struct Mask {
    spellings: Vec<Zeroizing<String>>,
    glance: Glance,
}

impl Mask {
    /// A mask for these secrets; those under eight bytes are left out.
    pub fn new<'s>(secrets: impl IntoIterator<Item = &'s Secret>) -> Self {
        let mut spellings: Vec<Zeroizing<String>> = Vec::new();
        for secret in secrets {
            let text = secret.expose();
            if text.len() < LEAST_MASKED {
                continue;
            }
            spellings.push(Zeroizing::new(text.to_owned()));
            let encoded = percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string();
            let written = crate::uri::encode_query(text);
            spellings.push(Zeroizing::new(lower_escapes(&encoded)));
            spellings.push(Zeroizing::new(encoded));
            spellings.push(Zeroizing::new(lower_escapes(&written)));
            spellings.push(Zeroizing::new(written));
            spellings.push(Zeroizing::new(json_escaped(text)));
            for alignment in 0..3 {
                spellings.push(Zeroizing::new(base64_core(&STANDARD, text, alignment)));
                spellings.push(Zeroizing::new(base64_core(&URL_SAFE, text, alignment)));
            }
        }
        Self::of(spellings)
    }

    /// A mask that finds secrets of any length, as they are, percent-encoded and JSON-escaped: for a text in which one is
    /// known to stand, as it masks ordinary text too.
    pub fn exact<'s>(secrets: impl IntoIterator<Item = &'s Secret>) -> Self {
        let spell = |secret: &Secret| {
            let text = secret.expose();
            let encoded = percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string();
            [text.to_owned(), encoded, crate::uri::encode_query(text), crate::uri::encode_segment(text), json_escaped(text)]
        };
        let all = secrets.into_iter().filter(|secret| !secret.is_empty()).flat_map(spell);
        Self::of(all.map(Zeroizing::new).collect())
    }

    fn of(mut spellings: Vec<Zeroizing<String>>) -> Self {
        spellings.sort_by(|a, b| b.len().cmp(&a.len()).then(a.cmp(b)));
        spellings.dedup();
        let shortest = spellings.last().map_or(usize::MAX, |s| s.len());
        let glance = Glance::new(&spellings, shortest);
        Self { spellings, glance }
    }

    /// Whether any secret stands in `text`.
    pub fn finds(&self, text: &str) -> bool {
        self.finds_in(text.as_bytes())
    }

    /// The text with every secret replaced; `None` where there was none.
    pub fn apply(&self, text: &str) -> Option<String> {
        if !self.finds(text) {
            return None;
        }
        let mut masked = text.to_owned();
        for spelling in &self.spellings {
            if masked.contains(spelling.as_str()) {
                masked = masked.replace(spelling.as_str(), REDACTED);
            }
        }
        Some(masked)
    }
}

impl Mask {
    /// Whether there is nothing to look for.
    pub fn is_empty(&self) -> bool {
        self.spellings.is_empty()
    }

    /// Whether any secret stands in `bytes`.
    pub fn finds_in(&self, bytes: &[u8]) -> bool {
        self.glance.may_find(bytes)
            && self.spellings.iter().any(|s| s.len() <= bytes.len() && memchr::memmem::find(bytes, s.as_bytes()).is_some())
    }

    /// Replaces every secret by as many `*`, so that whatever counts the bytes still holds. Says whether there was one.
    pub fn star(&self, bytes: &mut [u8]) -> bool {
        let mut found = false;
        if !self.glance.may_find(bytes) {
            return false;
        }
        let length = bytes.len();
        for spelling in self.spellings.iter().filter(|s| s.len() <= length) {
            let mut from = 0;
            while let Some(at) = memchr::memmem::find(&bytes[from..], spelling.as_bytes()) {
                let end = from + at + spelling.len();
                bytes[from + at..end].fill(b'*');
                (from, found) = (end, true);
            }
        }
        found
    }

    /// How many bytes at the end may be the beginning of a secret, and must be kept until more has come.
    pub fn open_end(&self, bytes: &[u8]) -> usize {
        self.spellings.iter().map(|spelling| open_end(spelling.as_bytes(), bytes)).max().unwrap_or(0)
    }
}

/// The longest end of `bytes` that is a beginning of `secret`, short of all of it.
fn open_end(secret: &[u8], bytes: &[u8]) -> usize {
    let [first, ..] = secret else { return 0 };
    let tail = &bytes[bytes.len().saturating_sub(secret.len() - 1)..];
    memchr::memchr_iter(*first, tail).map(|at| &tail[at..]).find(|end| secret.starts_with(end)).map_or(0, <[u8]>::len)
}

/// Tells at a glance of nearly all text that no secret stands in it: looking at two bytes at the end of a window as long as
/// the shortest spelling says how far the window may move (Wu and Manber, 1994).
#[derive(Clone, Default)]
struct Glance {
    /// The length of the window; 0 where there is nothing to look for.
    window: usize,
    /// How far it may move, by a hash of the two bytes. Where two pairs share a place, the shorter way counts.
    moves: Zeroizing<Vec<u8>>,
}

impl Glance {
    /// Places of the table. It is there once for each resource, so it is small.
    const PLACES: usize = 256;

    fn new(spellings: &[Zeroizing<String>], shortest: usize) -> Self {
        if spellings.is_empty() {
            return Self::default();
        }
        let window = shortest.min(usize::from(u8::MAX));
        let reach = u8::try_from(window.saturating_sub(1)).unwrap_or(u8::MAX);
        let mut moves = Zeroizing::new(vec![reach; Self::PLACES]);
        for spelling in spellings {
            for (at, pair) in spelling.as_bytes()[..window].windows(2).enumerate() {
                let place = &mut moves[Self::place(pair[0], pair[1])];
                *place = (*place).min(u8::try_from(window - 2 - at).unwrap_or(u8::MAX));
            }
        }
        Self { window, moves }
    }

    fn place(one: u8, other: u8) -> usize {
        (usize::from(one).wrapping_mul(31) ^ usize::from(other)) % Self::PLACES
    }

    /// Whether it is worth while to look closer.
    fn may_find(&self, bytes: &[u8]) -> bool {
        if self.window == 0 || bytes.len() < self.window {
            return false;
        }
        // A window of one byte has no pair.
        let Some(mut at) = self.window.checked_sub(2) else { return true };
        while let Some([one, other]) = bytes.get(at..at + 2) {
            match self.moves[Self::place(*one, *other)] {
                0 => return true,
                further => at += usize::from(further),
            }
        }
        false
    }
}

impl fmt::Debug for Mask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mask({} spellings)", self.spellings.len())
    }
}

/// Percent-encoded text with small letters in its escapes.
fn lower_escapes(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut left = 0;
    for c in text.chars() {
        out.push(if left > 0 { c.to_ascii_lowercase() } else { c });
        left = if c == '%' { 2 } else { left - usize::from(left > 0) };
    }
    out
}

fn json_escaped(text: &str) -> String {
    let quoted = serde_json::Value::from(text).to_string();
    quoted[1..quoted.len() - 1].to_owned()
}

/// The characters of the base64 form that depend on `text` alone when `alignment` bytes stand in front of it.
fn base64_core(engine: &impl base64::Engine, text: &str, alignment: usize) -> String {
    let mut bytes = Zeroizing::new(vec![0u8; alignment]);
    bytes.extend_from_slice(text.as_bytes());
    let whole = Zeroizing::new(engine.encode(&*bytes));
    // The first characters mix in the bytes before, the last ones mix in what follows.
    let from = [0, 2, 3][alignment];
    let until = bytes.len() * 8 / 6;
    whole[from..until].to_owned()
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;

    use super::*;

    #[test]
    fn a_secret_never_prints() {
        let secret = Secret::new("hunter2hunter2".into());
        assert_eq!(format!("{secret:?}"), REDACTED);
        assert!(!format!("{:?}", Mask::new([&secret])).contains("hunter2"));
    }

    #[test]
    fn a_mask_finds_a_secret_in_every_spelling() {
        let secret = Secret::new("p&ss \"wörd/+".into());
        let mask = Mask::new([&secret]);
        for prefix in ["", "u", "us", "use"] {
            for suffix in ["", "x", "yz"] {
                let basic = STANDARD.encode(format!("{prefix}{}{suffix}", secret.expose()));
                assert!(mask.finds(&basic), "{basic}");
                assert!(mask.finds(&URL_SAFE.encode(format!("{prefix}{}{suffix}", secret.expose()))));
            }
        }
        assert_eq!(mask.apply("a p&ss \"wörd/+ b").as_deref(), Some("a [redacted] b"));
        assert!(mask.finds("q=p%26ss%20%22w%C3%B6rd%2F%2B"));
        assert!(mask.finds(r#"{"x":"p&ss \"wörd/+"}"#));
        assert_eq!(mask.apply("nothing here"), None);
    }

    #[test]
    fn a_glance_overlooks_nothing() {
        let secrets = ["hunter2hunter2", "0123456789abcdef0123456789abcdef", "aaaaaaaa", "p&ss wörd"].map(|s| Secret::new(s.into()));
        let (mask, exact) = (Mask::new(&secrets), Mask::exact(&[Secret::new("u".into()), Secret::new("äö".into())]));
        for mask in [&mask, &exact] {
            for spelling in &mask.spellings {
                for before in 0..40 {
                    let text = format!("{}{}{}", "ab".repeat(before), spelling.as_str(), "=".repeat(before % 3));
                    assert!(mask.finds(&text), "{text}");
                    assert!(mask.finds(&text[1.min(before)..]), "{text}");
                }
            }
        }
        assert!(!mask.finds("GET /r/demo/customers?_limit=5&_sort=-total HTTP/1.1") && !Mask::default().finds("anything"));
    }

    #[test]
    fn a_short_secret_is_not_searched_for() {
        assert!(!Mask::new([&Secret::new("u".into())]).finds("user"));
    }

    #[test]
    fn equality_looks_at_the_value() {
        assert_eq!(Secret::new("a".into()), Secret::new("a".into()));
        assert_ne!(Secret::new("a".into()), Secret::new("b".into()));
    }

    #[test]
    fn stars_take_the_place_of_every_spelling_byte_for_byte() {
        let secret = Secret::new("p&ss/wörd+1".into());
        let mask = Mask::new([&secret]);
        let quoted = serde_json::Value::from(secret.expose()).to_string();
        let percent = crate::uri::encode_query(secret.expose());
        let spellings = [secret.expose().to_owned(), percent.clone(), lower_escapes(&percent), quoted, STANDARD.encode(secret.expose())];
        for spelling in spellings {
            let mut text = format!("before {spelling} and {spelling}").into_bytes();
            let length = text.len();
            assert!(mask.star(&mut text), "{spelling}");
            assert_eq!(text.len(), length);
            assert!(!mask.star(&mut text) && text.starts_with(b"before ") && text.contains(&b'*'));
        }
        assert!(!mask.star(&mut b"nothing of the kind".to_vec()));
        assert_eq!(lower_escapes("A%2FB%C3%B6C"), "A%2fB%c3%b6C");
    }

    #[test]
    fn an_open_end_is_what_may_become_a_secret() {
        let mask = Mask::new([&Secret::new("abcabcabd".into())]);
        for (text, open) in [("xyz", 0), ("xa", 1), ("xabcabca", 7), ("abcabcabc", 6), ("abcabcabd", 0), ("", 0), ("abcabcab", 8)] {
            assert_eq!(open_end(b"abcabcabd", text.as_bytes()), open, "{text}");
            assert!(mask.open_end(text.as_bytes()) >= open);
        }
    }
}
