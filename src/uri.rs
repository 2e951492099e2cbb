//! Percent-encoding for a place (RFC 3986, ruling H16). What is already in a URL is never touched by these.

use crate::origin::Origin;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// Everything but RFC 3986 `unreserved`.
const QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Everything but RFC 3986 `pchar`.
const SEGMENT: &AsciiSet = &QUERY
    .remove(b'!')
    .remove(b'$')
    .remove(b'&')
    .remove(b'\'')
    .remove(b'(')
    .remove(b')')
    .remove(b'*')
    .remove(b'+')
    .remove(b',')
    .remove(b';')
    .remove(b'=')
    .remove(b':')
    .remove(b'@');

/// Text as part of a query: everything but unreserved is encoded.
pub fn encode_query(text: &str) -> String {
    utf8_percent_encode(text, QUERY).to_string()
}

/// Everything that would end a value, or that no URL may hold.
const LOOSE: &AsciiSet =
    &percent_encoding::CONTROLS.add(b' ').add(b'"').add(b'<').add(b'>').add(b'#').add(b'&').add(b'%').add(b'+').add(b'\\');

/// Text as part of a query where a server does not decode what it could: only what would become structure is encoded.
pub fn encode_loosely(text: &str) -> String {
    utf8_percent_encode(text, LOOSE).to_string()
}

/// Text as part of a path segment: everything but `pchar` is encoded, so `:` stays and `/` does not.
pub fn encode_segment(text: &str) -> String {
    utf8_percent_encode(text, SEGMENT).to_string()
}

/// Whether a URI reference begins with a scheme (RFC 3986 section 4.1).
pub fn has_scheme(reference: &str) -> bool {
    let Some((scheme, _)) = reference.split_once(':') else { return false };
    !scheme.contains('/')
        && scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
}

/// Whether a segment is a dot segment, in any spelling.
pub fn is_dots(segment: &str) -> bool {
    matches!(segment.to_ascii_lowercase().replace("%2e", ".").as_str(), "." | "..")
}

/// The path without dot segments (RFC 3986 section 5.2.4).
pub fn normal(path: &str) -> String {
    if !path.split('/').any(is_dots) {
        return path.to_owned();
    }
    let mut out: Vec<&str> = Vec::new();
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    for (at, segment) in segments.iter().enumerate() {
        if is_dots(segment) {
            if segment.len() != 1 && !segment.eq_ignore_ascii_case("%2e") {
                out.pop();
            }
            if at + 1 == segments.len() {
                out.push("");
            }
        } else {
            out.push(segment);
        }
    }
    format!("/{}", out.join("/"))
}

/// Maps every `<URI-Reference>` of a `Link` field (RFC 8288 section 3). `None` leaves the field as it is.
pub fn map_links(field: &str, map: impl Fn(&str) -> Option<String>) -> Option<String> {
    let mut out = String::with_capacity(field.len());
    let (mut rest, mut changed) = (field, false);
    while let Some(at) = target_start(rest) {
        let Some(end) = rest[at..].find('>') else { break };
        let reference = &rest[at + 1..at + end];
        out.push_str(&rest[..=at]);
        match map(reference.trim()) {
            Some(mapped) => {
                changed = true;
                out.push_str(&mapped);
            }
            None => out.push_str(reference),
        }
        out.push('>');
        rest = &rest[at + end + 1..];
    }
    out.push_str(rest);
    changed.then_some(out)
}

/// Where the next `<` stands that is not inside a quoted string.
fn target_start(text: &str) -> Option<usize> {
    let (mut quoted, mut escaped) = (false, false);
    for (at, b) in text.bytes().enumerate() {
        match b {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'<' if !quoted => return Some(at),
            _ => {}
        }
    }
    None
}

/// A URI reference, resolved.
#[derive(Clone, Debug)]
pub struct Reference {
    /// Scheme, host and port.
    pub origin: Origin,
    /// The path, with at least a slash and without dot segments.
    pub path: String,
    /// What follows `?`.
    pub query: Option<String>,
}

/// Resolves a reference that an answer to a request for `path` at `from` holds (RFC 3986 section 5.2). `None` where it is
/// none, names a user, or is for neither http nor https. A fragment goes.
pub fn resolve(reference: &str, from: &Origin, path: &str) -> Option<Reference> {
    let reference = reference.split('#').next().unwrap_or_default();
    if reference.bytes().any(|b| !(0x21..=0x7e).contains(&b) || matches!(b, b'\\' | b'"' | b'<' | b'>')) {
        return None;
    }
    let scheme = if from.is_https() { "https:" } else { "http:" };
    let absolute = if reference.starts_with("//") { [scheme, reference].concat() } else { reference.to_owned() };
    let (origin, rest) = if has_scheme(&absolute) {
        let (scheme, rest) = absolute.split_once(':')?;
        Origin::of(&[&scheme.to_ascii_lowercase(), ":", rest].concat()).ok().map(|(origin, rest)| (origin, rest.to_owned()))?
    } else {
        (from.clone(), absolute)
    };
    let (hierarchy, query) = rest.split_once('?').map_or((rest.as_str(), None), |(path, query)| (path, Some(query)));
    let elsewhere = has_scheme(reference) || reference.starts_with("//");
    let path = match hierarchy {
        "" if elsewhere => "/".to_owned(),
        "" => path.to_owned(),
        rooted if rooted.starts_with('/') => normal(rooted),
        relative => normal(&format!("{}{relative}", &path[..=path.rfind('/').unwrap_or(0)])),
    };
    path.starts_with('/').then(|| Reference { origin, path, query: query.map(str::to_owned) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_keeps_colons_and_loses_slashes() {
        assert_eq!(encode_segment("a:b/c?d"), "a:b%2Fc%3Fd");
    }

    #[test]
    fn loosely_encoded_text_keeps_what_is_no_structure() {
        assert_eq!(encode_loosely("https://a/b?c=d,e;f:g &h#i+%"), "https://a/b?c=d,e;f:g%20%26h%23i%2B%25");
    }

    #[test]
    fn a_query_keeps_only_unreserved() {
        assert_eq!(encode_query("a b&c=d+~"), "a%20b%26c%3Dd%2B~");
    }
}
