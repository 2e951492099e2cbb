//! The canonical form of a request (AWS Signature Version 4, "Create a canonical request"), and the strict spelling of
//! targets (RFC 3986) in which every reading of them leads to the same canonical form.

use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HOST};
use http::{HeaderMap, HeaderName};

use crate::path::Target;

/// How a service derives the canonical path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dialect {
    /// The path of the wire is encoded once more. S3 takes it as it is.
    pub twice: bool,
    /// Empty and dot segments are removed. S3 keeps them, as they are part of a key.
    pub normalizes: bool,
}

impl Dialect {
    /// S3 and what speaks like it.
    pub const S3: Self = Self { twice: false, normalizes: false };
    /// All other services.
    pub const OTHER: Self = Self { twice: true, normalizes: true };
}

/// A canonical request.
#[derive(Debug)]
pub struct Canonical {
    /// Its text.
    pub text: String,
    /// The names of the signed fields, with semicolons between them.
    pub fields: String,
}

/// Rewrites a target so that all that is not unreserved is percent-encoded, with upper-case digits, and what is
/// unreserved is not; in the query `+` means a space, and empty parameters go. For S3 an encoded slash is a slash, as
/// both name the same key. `None` where nothing changes.
pub fn strict(target: &Target, dialect: Dialect) -> Option<Target> {
    let path = strict_path(target.path(), dialect);
    let query = target.query().map(strict_query).filter(|query| !query.is_empty());
    (path != target.path() || query.as_deref() != target.query()).then(|| Target::new(&path, query.as_deref()))
}

fn strict_path(path: &str, dialect: Dialect) -> String {
    let mut out = String::with_capacity(path.len());
    for (byte, written) in decoded(path) {
        match byte {
            b'/' if written == 1 || !dialect.twice => out.push('/'),
            _ => push(byte, &mut out),
        }
    }
    out
}

fn strict_query(query: &str) -> String {
    let mut out = String::with_capacity(query.len());
    for piece in query.split('&').filter(|piece| !piece.is_empty()) {
        if !out.is_empty() {
            out.push('&');
        }
        let (name, value) = piece.split_once('=').map_or((piece, None), |(name, value)| (name, Some(value)));
        recode(name, &mut out);
        if let Some(value) = value {
            out.push('=');
            recode(value, &mut out);
        }
    }
    out
}

/// A name or a value of the query.
fn recode(text: &str, out: &mut String) {
    for (byte, written) in decoded(text) {
        push(if byte == b'+' && written == 1 { b' ' } else { byte }, out);
    }
}

/// The bytes that a text stands for, each with how many bytes wrote it: three where it was percent-encoded.
fn decoded(text: &str) -> impl Iterator<Item = (u8, usize)> + '_ {
    let bytes = text.as_bytes();
    let mut at = 0;
    std::iter::from_fn(move || {
        let byte = *bytes.get(at)?;
        let digit = |offset: usize| bytes.get(at + offset).and_then(|b| char::from(*b).to_digit(16));
        let (byte, written) = match (byte, digit(1), digit(2)) {
            // Two digits fit a byte.
            (b'%', Some(high), Some(low)) => ((high * 16 + low) as u8, 3),
            _ => (byte, 1),
        };
        at += written;
        Some((byte, written))
    })
}

fn push(byte: u8, out: &mut String) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
        out.push(char::from(byte));
        return;
    }
    out.push('%');
    out.push(char::from(DIGITS[usize::from(byte >> 4)]));
    out.push(char::from(DIGITS[usize::from(byte & 15)]));
}

/// Whether a field is signed: what says where the request goes, what its body is, and everything of the service's own.
/// Not what hops on the way may change.
pub fn signs(name: &HeaderName) -> bool {
    *name == HOST
        || *name == CONTENT_TYPE
        || *name == CONTENT_ENCODING
        || name.as_str() == "content-md5"
        || name.as_str().starts_with("x-amz-")
}

/// The canonical request. `target` is in its strict form; `payload` is the hash of the body, or the word for it.
pub fn canonical(method: &str, target: &Target, headers: &HeaderMap, payload: &str, dialect: Dialect) -> Canonical {
    canonical_of(method, target, headers, payload, dialect, signs)
}

/// The same over the fields that `signs` names.
pub fn canonical_of(
    method: &str,
    target: &Target,
    headers: &HeaderMap,
    payload: &str,
    dialect: Dialect,
    signs: impl Fn(&HeaderName) -> bool,
) -> Canonical {
    let mut names: Vec<&HeaderName> = headers.keys().filter(|name| signs(name)).collect();
    names.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
    let mut text = String::with_capacity(1024);
    text.push_str(method);
    text.push('\n');
    path(target.path(), dialect, &mut text);
    text.push('\n');
    query(target.query().unwrap_or_default(), &mut text);
    text.push('\n');
    let mut fields = String::with_capacity(128);
    for name in names {
        text.push_str(name.as_str());
        text.push(':');
        for (index, value) in headers.get_all(name).iter().enumerate() {
            if index > 0 {
                text.push(',');
            }
            squeeze(value.as_bytes(), &mut text);
        }
        text.push('\n');
        if !fields.is_empty() {
            fields.push(';');
        }
        fields.push_str(name.as_str());
    }
    text.push('\n');
    text.push_str(&fields);
    text.push('\n');
    text.push_str(payload);
    Canonical { text, fields }
}

fn path(path: &str, dialect: Dialect, out: &mut String) {
    let normal = if dialect.normalizes { normalized(path) } else { std::borrow::Cow::Borrowed(path) };
    if !dialect.twice {
        out.push_str(&normal);
        return;
    }
    for byte in normal.bytes() {
        if byte == b'/' { out.push('/') } else { push(byte, out) }
    }
}

/// The path without empty and dot segments (RFC 3986 section 5.2.4); a slash at the end stays.
fn normalized(path: &str) -> std::borrow::Cow<'_, str> {
    if !path.contains("//") && !path.contains("/.") {
        return path.into();
    }
    let mut segments: Vec<&str> = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(segments.pop()),
            other => segments.push(other),
        }
    }
    let directory = path.ends_with('/') || path.ends_with("/.") || path.ends_with("/..");
    let end = if directory && !segments.is_empty() { "/" } else { "" };
    format!("/{}{end}", segments.join("/")).into()
}

/// The parameters in the order of their names, then values, each with its `=`.
fn query(query: &str, out: &mut String) {
    if query.is_empty() {
        return;
    }
    let mut pairs: Vec<(&str, &str)> = query.split('&').map(|piece| piece.split_once('=').unwrap_or((piece, ""))).collect();
    pairs.sort_unstable();
    for (index, (name, value)) in pairs.into_iter().enumerate() {
        if index > 0 {
            out.push('&');
        }
        out.push_str(name);
        out.push('=');
        out.push_str(value);
    }
}

/// A field's value without outer white space, and with one space for several.
fn squeeze(value: &[u8], out: &mut String) {
    let value = String::from_utf8_lossy(value.trim_ascii());
    let mut space = false;
    for c in value.chars() {
        if c == ' ' && space {
            continue;
        }
        space = c == ' ';
        out.push(c);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn target(text: &str) -> Target {
        let (path, query) = text.split_once('?').map_or((text, None), |(path, query)| (path, Some(query)));
        Target::new(path, query)
    }

    fn made_strict(text: &str, dialect: Dialect) -> String {
        let target = target(text);
        strict(&target, dialect).unwrap_or(target).as_str().to_owned()
    }

    #[test]
    fn a_target_is_spelt_in_one_way() {
        for (sent, arrives) in [
            ("/a/b-._~", "/a/b-._~"),
            ("/a b(c)!'*;:@&=+$,", "/a%20b%28c%29%21%27%2A%3B%3A%40%26%3D%2B%24%2C"),
            ("/%61%2d%7E%e2%82%ac", "/a-~%E2%82%AC"),
            ("/a//b/", "/a//b/"),
            ("/a%252Fb", "/a%252Fb"),
            ("/a?acl", "/a?acl"),
            ("/a?b=c+d%2be&B=%41", "/a?b=c%20d%2Be&B=A"),
            ("/a?b==&&c=&=d&", "/a?b=%3D&c=&=d"),
            ("/a?", "/a"),
            ("/a?&", "/a"),
            ("/a?x=%zz%", "/a?x=%25zz%25"),
            ("/a?x=/?:@", "/a?x=%2F%3F%3A%40"),
        ] {
            assert_eq!(made_strict(sent, Dialect::S3), arrives, "{sent}");
            assert_eq!(made_strict(sent, Dialect::OTHER), arrives, "{sent}");
        }
        assert_eq!(made_strict("/a%2Fb%2fc", Dialect::S3), "/a/b/c");
        assert_eq!(made_strict("/a%2Fb%2fc", Dialect::OTHER), "/a%2Fb%2Fc");
    }

    #[test]
    fn paths_are_normalized_as_rfc_3986_says() {
        for (path, normal) in [
            ("/", "/"),
            ("//", "/"),
            ("/a", "/a"),
            ("/a/", "/a/"),
            ("/a//b//", "/a/b/"),
            ("/./a/../b", "/b"),
            ("/a/..", "/"),
            ("/a/b/..", "/a/"),
            ("/.a", "/.a"),
        ] {
            assert_eq!(normalized(path), normal, "{path}");
        }
    }

    proptest! {
        #[test]
        fn strict_is_strict_already_and_means_the_same(text in "/([ -~]|%[0-9a-fA-F]{2}){0,20}") {
            for dialect in [Dialect::S3, Dialect::OTHER] {
                let once = made_strict(&text, dialect);
                prop_assert_eq!(&made_strict(&once, dialect), &once);
                prop_assert!(once.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~%/?&=".contains(&b)));
                let meaning = |text: &str| decoded(text.split('?').next().unwrap()).map(|(b, _)| b).collect::<Vec<_>>();
                prop_assert_eq!(meaning(&text), meaning(&once));
            }
        }
    }
}
