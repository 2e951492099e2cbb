//! Request targets, byte for byte: which are refused, how a path may be read by an upstream, and patterns for paths
//! (rulings A6, A9, D1, D2, D3, D28, D32). What passes is never rewritten here.

use std::borrow::Cow;

use http::Uri;

use crate::error::Error;

/// A path and a query in one piece of ASCII, as they go onto the wire.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Target {
    text: String,
    path_end: usize,
}

impl Target {
    /// Joins a path and a query (without `?`). The caller has judged both.
    pub fn new(path: &str, query: Option<&str>) -> Self {
        Self::join("", path, query)
    }

    /// A path below a base: the base's trailing slash and the rest's leading slash become one, and nothing behind the
    /// resource is the base as written, or `/` (ruling D1).
    pub fn below(base: &str, rest: &str, query: Option<&str>) -> Self {
        let base = if rest.starts_with('/') { base.strip_suffix('/').unwrap_or(base) } else { base };
        let rest = if base.is_empty() && rest.is_empty() { "/" } else { rest };
        Self::join(base, rest, query)
    }

    fn join(base: &str, rest: &str, query: Option<&str>) -> Self {
        // Room for a parameter or two, so that appending them does not move the whole.
        let mut text = String::with_capacity(base.len() + rest.len() + query.map_or(0, |q| q.len() + 1) + 32);
        text.push_str(base);
        text.push_str(rest);
        let path_end = text.len();
        if let Some(query) = query {
            text.push('?');
            text.push_str(query);
        }
        Self { text, path_end }
    }

    /// The path.
    pub fn path(&self) -> &str {
        &self.text[..self.path_end]
    }

    /// The query without `?`, where there is one.
    pub fn query(&self) -> Option<&str> {
        self.text.get(self.path_end + 1..)
    }

    /// Path and query as they are sent.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The same for the sender, without a copy.
    ///
    /// # Errors
    /// [`Error::BadPath`] if it holds what no URI carries: that was to be refused before.
    pub fn into_uri(self) -> Result<Uri, Error> {
        let uncarried = || Error::BadPath("The target cannot be sent as it is.".into(), "Percent-encode it.".into());
        let path_and_query = http::uri::PathAndQuery::from_maybe_shared(bytes::Bytes::from(self.text)).map_err(|_| uncarried())?;
        let mut parts = http::uri::Parts::default();
        parts.path_and_query = Some(path_and_query);
        Uri::from_parts(parts).map_err(|_| uncarried())
    }

    /// Appends `name=value` to the query; both must be encoded already.
    pub fn append(&mut self, name: &str, value: &str) {
        let separator = if self.text.len() == self.path_end {
            "?"
        } else if self.text.ends_with(['?', '&']) {
            ""
        } else {
            "&"
        };
        self.text.reserve(separator.len() + name.len() + value.len() + 1);
        self.text.push_str(separator);
        self.text.push_str(name);
        self.text.push('=');
        self.text.push_str(value);
    }

    /// Whether a parameter that `ours` names stands behind a `;`, which some servers read as `&` and others as data.
    pub fn hides_param(&self, ours: impl Fn(&str) -> bool) -> bool {
        let Some(query) = self.query().filter(|query| query.contains(';')) else { return false };
        query.split('&').flat_map(|part| part.split(';').skip(1)).any(|part| ours(&param_name(part)))
    }

    /// Removes the query parameters whose decoded name `drop` names. All other bytes stay as they are.
    pub fn remove_params(&mut self, drop: impl Fn(&str) -> bool) {
        let Some(query) = self.query() else { return };
        if !query.split('&').any(|part| drop(&param_name(part))) {
            return;
        }
        let kept: Vec<&str> = query.split('&').filter(|part| !drop(&param_name(part))).collect();
        let kept = kept.join("&");
        self.text.truncate(self.path_end);
        if !kept.is_empty() {
            self.text.push('?');
            self.text.push_str(&kept);
        }
    }

    /// Whether the query has a parameter of this decoded name.
    pub fn has_param(&self, name: &str) -> bool {
        self.query().is_some_and(|query| query.split('&').any(|part| param_name(part) == name))
    }
}

/// The decoded name of one `name=value`. `+` is a space, as forms have it.
fn param_name(part: &str) -> Cow<'_, str> {
    let name = part.split('=').next().unwrap_or("");
    if !name.bytes().any(|b| b == b'%' || b == b'+') {
        return Cow::Borrowed(name);
    }
    let spaced = name.replace('+', " ");
    Cow::Owned(percent_encoding::percent_decode_str(&spaced).decode_utf8_lossy().into_owned())
}

/// The name of a parameter as careless servers may see it: without case, without what stands behind `[` or NUL, without
/// spaces and `?` in front, and with `_` for dots and spaces (PHP). A client's parameter that is one with the gateway's
/// own in this sense is dropped.
pub fn folded_param(name: &str) -> String {
    let name = name.trim_start_matches([' ', '?']);
    let name = &name[..name.find(['[', '\0']).unwrap_or(name.len())];
    name.chars().map(|c| if matches!(c, '.' | ' ') { '_' } else { c.to_ascii_lowercase() }).collect()
}

fn refuse(why: &'static str, hint: &'static str) -> Error {
    Error::BadPath(why.into(), hint.into())
}

/// How often a path is decoded to find what an upstream may make of it. Two rounds are known in the field (ruling A9); what
/// still changes after more is nobody's honest data.
const ROUNDS_MAX: usize = 5;

const ENCODE: &str = "Percent-encode what is data.";

/// Whether a request target can be handed on byte for byte: judged on the raw bytes, before any parser has seen them.
///
/// # Errors
/// [`Error::BadPath`] for bytes that no URI may hold and for a fragment; [`Error::BadRequest`] for what is neither
/// origin-form nor plain absolute-form (RFC 9112 section 3.2).
pub fn carriable(target: &[u8]) -> Result<(), Error> {
    let mut in_path = true;
    for b in target {
        match b {
            0x00..=0x20 | 0x7f..=0xff => return Err(refuse("The target holds a byte that no URI may hold.", ENCODE)),
            b'"' | b'<' | b'>' => return Err(refuse("The target holds `\"`, `<` or `>`.", ENCODE)),
            b'`' if in_path => return Err(refuse("The path holds a backtick.", ENCODE)),
            b'#' => return Err(refuse("The target holds a fragment.", "A fragment stays with the client; percent-encode `#` as %23.")),
            b'?' => in_path = false,
            _ => {}
        }
    }
    if target.first() == Some(&b'/') {
        return Ok(());
    }
    absolute(target)
}

fn absolute(target: &[u8]) -> Result<(), Error> {
    let wrong = || Error::BadRequest("The target is neither a path nor a plain http URL.".into(), "Send `/r/<resource>/<path>`.".into());
    let uri = Uri::try_from(target).map_err(|_| wrong())?;
    let scheme = uri.scheme_str().ok_or_else(wrong)?;
    let authority = uri.authority().ok_or_else(wrong)?;
    if !matches!(scheme, "http" | "https") || authority.as_str().contains('@') || authority.host().is_empty() {
        return Err(wrong());
    }
    Ok(())
}

/// Judges the target of a request whose bytes passed [`carriable`]. `host` is the `Host` field.
///
/// # Errors
/// [`Error::BadPath`], or [`Error::BadRequest`] where an absolute target is for another authority (ruling D28).
pub fn parse(uri: &Uri, host: Option<&str>) -> Result<Target, Error> {
    if let Some(authority) = uri.authority() {
        let default = if uri.scheme_str() == Some("https") { "443" } else { "80" };
        if host.is_none_or(|host| !same_authority(host, authority.as_str(), default)) {
            return Err(Error::BadRequest("The target is for another authority than `Host`.".into(), "Send the path alone.".into()));
        }
    }
    check(uri.path())?;
    Ok(Target::new(uri.path(), uri.query()))
}

/// Whether two authorities are one, where `default` is the scheme's own port.
pub fn same_authority(one: &str, other: &str, default: &str) -> bool {
    plain(one, default) == plain(other, default)
}

/// An authority without case, final dot and default port (ruling D45).
fn plain(authority: &str, default: &str) -> String {
    let lower = authority.to_ascii_lowercase();
    let (host, port) = match lower.rfind(':').filter(|at| !lower[*at..].contains(']')) {
        Some(at) => (&lower[..at], &lower[at + 1..]),
        None => (lower.as_str(), ""),
    };
    let host = host.strip_suffix('.').unwrap_or(host);
    if port.is_empty() || port == default { host.to_owned() } else { format!("{host}:{port}") }
}

/// Judges a path: no reading that an upstream may take of it leads above where it stands (ruling A9).
///
/// # Errors
/// [`Error::BadPath`].
pub fn check(path: &str) -> Result<(), Error> {
    let bytes = path.as_bytes();
    // Most paths hold nothing that could be read in two ways.
    let suspicious = bytes.iter().any(|b| matches!(b, b'%' | b'\\' | b';'))
        || memchr::memmem::find(bytes, b"/.").is_some()
        || bytes.first() == Some(&b'.');
    if !suspicious {
        return Ok(());
    }
    if !well_escaped(bytes) {
        return Err(refuse("The path holds a `%` that is no escape.", "Write a percent sign as %25."));
    }
    let mut reading = bytes.to_vec();
    for _ in 0..ROUNDS_MAX {
        judge_reading(&reading)?;
        let next = decode(&reading);
        if next == reading {
            return Ok(());
        }
        reading = next;
    }
    Err(refuse("The path is escaped again and again.", "Escape what is data once."))
}

fn judge_reading(reading: &[u8]) -> Result<(), Error> {
    if reading.contains(&b'\\') {
        return Err(refuse("The path holds a backslash.", "Some servers read it as a slash; leave it out."));
    }
    if reading.contains(&0) {
        return Err(refuse("The path holds a NUL.", "Leave %00 out."));
    }
    if reading.is_ascii() {
        return segments(reading);
    }
    if overlong(reading) {
        return Err(refuse("The path holds an overlong form of a character.", "Encode it as UTF-8 has it (RFC 3629)."));
    }
    segments(reading)?;
    segments(&likened(reading))
}

fn segments(reading: &[u8]) -> Result<(), Error> {
    if reading.split(|b| *b == b'/').any(is_dots) {
        return Err(refuse("The path holds a `.` or `..` segment, in one spelling or another.", "Send the path that you mean."));
    }
    Ok(())
}

/// Whether a segment is `.` or `..` for some server: what stands behind `;`, or behind a `?` or `#` that was escaped, is
/// cut, and control characters and spaces are left out, as some trim them and some strip them anywhere.
fn is_dots(segment: &[u8]) -> bool {
    let cut = segment.split(|b| matches!(b, b';' | b'?' | b'#')).next().unwrap_or_default();
    let mut dots = 0;
    for b in cut {
        match b {
            b'.' => dots += 1,
            0..=0x20 | 0x7f => {}
            _ => return false,
        }
    }
    matches!(dots, 1 | 2)
}

/// Whether a reading holds bytes that old decoders take for ASCII: `%c0%ae` is a dot to them (RFC 3629 section 10).
fn overlong(reading: &[u8]) -> bool {
    reading.windows(2).any(|pair| matches!(pair, [0xc0 | 0xc1, 0x80..=0xbf] | [0xe0, 0x80..=0x9f] | [0xf0, 0x80..=0x8f]))
}

/// What best-fit mappings make of dots and slashes of other widths.
const LIKE: [(&[u8], &[u8]); 8] = [
    ("\u{ff0e}".as_bytes(), b"."),
    ("\u{2024}".as_bytes(), b"."),
    ("\u{2025}".as_bytes(), b".."),
    ("\u{ff0f}".as_bytes(), b"/"),
    ("\u{2044}".as_bytes(), b"/"),
    ("\u{2215}".as_bytes(), b"/"),
    ("\u{ff3c}".as_bytes(), b"/"),
    ("\u{ff1b}".as_bytes(), b";"),
];

fn likened(reading: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(reading.len());
    let mut rest = reading;
    while let Some(first) = rest.first() {
        let like = LIKE.iter().find(|(from, _)| !first.is_ascii() && rest.starts_with(from));
        let (from, to) = like.map_or((1, &rest[..1]), |(from, to)| (from.len(), *to));
        out.extend_from_slice(to);
        rest = &rest[from..];
    }
    out
}

fn well_escaped(bytes: &[u8]) -> bool {
    let mut rest = bytes;
    while let Some(at) = memchr::memchr(b'%', rest) {
        match rest.get(at + 1..at + 3) {
            Some([a, b]) if a.is_ascii_hexdigit() && b.is_ascii_hexdigit() => rest = &rest[at + 3..],
            _ => return false,
        }
    }
    true
}

fn decode(bytes: &[u8]) -> Vec<u8> {
    percent_encoding::percent_decode(bytes).collect()
}

/// The ways in which an upstream may read a path, each once: as it is, unreserved escapes decoded, decoded once and
/// twice, `//name` in front taken for an authority, and each of these with parameters cut and slashes merged. Policies and routes are judged in all of them.
pub fn readings(path: &str) -> Vec<Cow<'_, [u8]>> {
    let bytes = if path.is_empty() { b"/" } else { path.as_bytes() };
    let mut all: Vec<Cow<'_, [u8]>> = vec![Cow::Borrowed(bytes)];
    if !bytes.iter().any(|b| matches!(b, b'%' | b';')) && memchr::memmem::find(bytes, b"//").is_none() {
        return all;
    }
    let once = decode(bytes);
    let mut more = vec![decode_unreserved(bytes), decode(&once), once];
    // `//host/path` is a reference to another authority to some parsers of URLs, and `/path` its path.
    if let Some(behind) = bytes.strip_prefix(b"//") {
        more.push(behind.iter().position(|b| *b == b'/').map_or(b"/".to_vec(), |at| behind[at..].to_vec()));
    }
    for reading in more {
        if !all.iter().any(|r| **r == *reading) {
            all.push(Cow::Owned(reading));
        }
    }
    for at in 0..all.len() {
        for variant in [cut_params(&all[at]), merge_slashes(&all[at]), merge_slashes(&cut_params(&all[at]))] {
            if !all.iter().any(|r| **r == *variant) {
                all.push(Cow::Owned(variant));
            }
        }
    }
    all
}

/// Decodes what never needed its escape (RFC 3986 section 6.2.2.2).
fn decode_unreserved(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let decoded = (bytes[at] == b'%').then(|| bytes.get(at..at + 3)).flatten().map(decode);
        match decoded.as_deref() {
            Some([b]) if b.is_ascii_alphanumeric() || b"-._~".contains(b) => {
                out.push(*b);
                at += 3;
            }
            _ => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    out
}

fn cut_params(bytes: &[u8]) -> Vec<u8> {
    let segments: Vec<&[u8]> = bytes.split(|b| *b == b'/').map(|s| s.split(|b| *b == b';').next().unwrap_or_default()).collect();
    segments.join(&b'/')
}

fn merge_slashes(bytes: &[u8]) -> Vec<u8> {
    let mut out: Vec<u8> = Vec::with_capacity(bytes.len());
    for b in bytes {
        if *b != b'/' || out.last() != Some(&b'/') {
            out.push(*b);
        }
    }
    out
}

/// A pattern for paths: `*` within one segment, `**` for any number of segments and for none (ruling D32).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob(Vec<Segment>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Any,
    /// The pieces between stars; one piece is the segment itself.
    Pieces(Vec<Vec<u8>>),
}

/// Most segments of a pattern: matching costs up to their number times the path's for each `**`.
const SEGMENTS_MAX: usize = 64;

impl Glob {
    /// Reads a pattern.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let Some(rest) = text.strip_prefix('/') else { return Err("the pattern does not begin with `/`".to_owned()) };
        if check(text).is_err() || carriable(text.as_bytes()).is_err() || text.contains('?') {
            return Err("the pattern can match no path".to_owned());
        }
        let segments: Vec<&str> = rest.split('/').collect();
        if segments.len() > SEGMENTS_MAX {
            return Err(format!("the pattern has more than {SEGMENTS_MAX} segments"));
        }
        let segment = |s: &str| match s {
            "**" => Ok(Segment::Any),
            s if s.contains("**") => Err(format!("`**` stands for whole segments, not for a part of `{s}`")),
            s => Ok(Segment::Pieces(s.split('*').map(|p| p.as_bytes().to_vec()).collect())),
        };
        segments.into_iter().map(segment).collect::<Result<_, _>>().map(Self)
    }

    /// Whether one reading of a path matches.
    pub fn matches(&self, path: &[u8]) -> bool {
        let path = path.strip_prefix(b"/").unwrap_or(path);
        let segments: Vec<&[u8]> = path.split(|b| *b == b'/').collect();
        walk(&self.0, &segments)
    }
}

/// Matches segment by segment. Only the last `**` is ever tried anew, so the work is bounded by the product of both.
fn walk(pattern: &[Segment], path: &[&[u8]]) -> bool {
    let (mut p, mut s) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    loop {
        match pattern.get(p) {
            Some(Segment::Any) => {
                retry = Some((p + 1, s));
                p += 1;
                continue;
            }
            Some(Segment::Pieces(pieces)) if path.get(s).is_some_and(|segment| fits(pieces, segment)) => {
                p += 1;
                s += 1;
                continue;
            }
            None if s == path.len() => return true,
            _ => {}
        }
        match retry {
            Some((after, from)) if from < path.len() => {
                retry = Some((after, from + 1));
                (p, s) = (after, from + 1);
            }
            _ => return false,
        }
    }
}

fn fits(pieces: &[Vec<u8>], segment: &[u8]) -> bool {
    let [first, middle @ .., last] = pieces else {
        return pieces.first().is_some_and(|only| only == segment);
    };
    let Some(mut rest) = segment.strip_prefix(first.as_slice()) else { return false };
    for piece in middle {
        let Some(at) = memchr::memmem::find(rest, piece) else { return false };
        rest = &rest[at + piece.len()..];
    }
    rest.ends_with(last)
}

/// The first entry whose pattern matches, if that is the same one in all readings of the path (ruling A6).
///
/// # Errors
/// [`Error::BadPath`] where two readings select differently.
pub fn select<'g, T>(path: &str, entries: impl Iterator<Item = (&'g Glob, T)> + Clone) -> Result<Option<T>, Error> {
    let first = |reading: &[u8]| entries.clone().position(|(glob, _)| glob.matches(reading));
    let readings = readings(path);
    let chosen = first(&readings[0]);
    if readings[1..].iter().any(|reading| first(reading) != chosen) {
        return Err(refuse(
            "The path can be read in two ways that lead to different routes.",
            "Send it without escapes, parameters and double slashes.",
        ));
    }
    Ok(chosen.and_then(|at| entries.clone().nth(at)).map(|(_, value)| value))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_carriable_is_carried_byte_for_byte() {
        for b in 1..=255u8 {
            for (before, after) in [("/a", "b"), ("/a?x", "y")] {
                let target = [before.as_bytes(), &[b], after.as_bytes()].concat();
                if carriable(&target).is_ok() {
                    let text = String::from_utf8(target).unwrap();
                    let (path, query) = text.split_once('?').map_or((text.as_str(), None), |(p, q)| (p, Some(q)));
                    assert_eq!(Target::new(path, query).into_uri().unwrap().to_string(), text);
                    assert_eq!(Uri::try_from(text.as_str()).unwrap().path_and_query().unwrap().as_str(), text);
                }
            }
        }
    }

    #[test]
    fn only_origin_form_and_plain_absolute_form_pass() {
        for target in ["/", "/a?b=c", "http://a/b", "HTTPS://a:1/b?c", "http://[::1]:80/"] {
            assert!(carriable(target.as_bytes()).is_ok(), "{target}");
        }
        for target in [
            "*",
            "a",
            "a/b",
            "localhost:80",
            "ftp://a/",
            "http://u@a/",
            "http://u:p@a/",
            "http:///a",
            "http:/a",
            "//a b",
            "http://a#b",
            "/\u{e4}",
            "javascript:1",
            "",
        ] {
            assert!(carriable(target.as_bytes()).is_err(), "{target}");
        }
    }

    #[test]
    fn an_absolute_target_must_be_for_our_own_authority() {
        let judge = |uri: &str, host: &str| parse(&uri.parse().unwrap(), Some(host)).is_ok();
        assert!(
            judge("http://a/b", "a")
                && judge("http://A.:80/b", "a")
                && judge("http://a:8080/b", "a:8080")
                && judge("http://[::1]/", "[::1]:80")
        );
        assert!(!judge("http://a/b", "b") && !judge("http://a:81/b", "a") && !judge("https://a/b", "a:80"));
        assert!(parse(&"http://a/b".parse().unwrap(), None).is_err());
    }

    #[test]
    fn dot_segments_are_refused_in_every_spelling() {
        for path in [
            "/..",
            "/.",
            "/../",
            "/a/../b",
            "/a/./b",
            "/a/..",
            "/%2e%2e",
            "/%2E./",
            "/.%2e",
            "/%2e",
            "/..;",
            "/..;x=1/a",
            "/.;/",
            "/%2e%2e;/",
            "/..%3b/",
            "/..%3B",
            "/a%2f..",
            "/a%2F..%2Fb",
            "/..%2f",
            "/%252e%252e",
            "/%252e.",
            "/a%252f..%252f",
            "/..%253b",
            "\\..",
            "/a\\..\\b",
            "/a%5c..",
            "/a%5C",
            "/%255c",
            "/a\\",
            "/..%20",
            "/..%09/",
            "/.%0a",
            "/%2e%2e%2f",
            "/x%2f..%2f..%2fadmin",
            "/a/%2e%2e/%2e%2e/",
            "/%00",
            "/a%00.html",
            "/%2500",
            "/%",
            "/%z",
            "/%zz",
            "/a%2",
            "/%2%65",
            "/..%00",
            "/%2e%00",
            "/..%3f",
            "/a/..%3Fb",
            "/..%23",
            "/.%3f/a",
            "/.%09.",
            "/%20..",
            "/%0d%0a..",
            "/%25252e%25252e",
            "/%2525252e.",
            "/%25255c",
            "/%252525252525252e",
            "/%c0%ae%c0%ae/",
            "/a%c0%afb",
            "/a%c1%9cb",
            "/%e0%80%ae",
            "/%f0%80%80%ae",
            "/%25c0%25ae",
            "/%ef%bc%8e%ef%bc%8e/a",
            "/%e2%80%a5/a",
            "/a%ef%bc%8f..%ef%bc%8fb",
            "/..%ef%bc%9b",
        ] {
            assert!(check(path).is_err(), "{path}");
        }
    }

    #[test]
    fn ordinary_paths_pass() {
        for path in [
            "",
            "/",
            "/a",
            "/a/b/",
            "//",
            "/a//b",
            "/%2F",
            "/a%2Fb",
            "/...",
            "/..a",
            "/a..",
            "/a...b",
            "/.well-known/x",
            "/.a",
            "/a;b=c",
            "/a;..=1",
            "/%41",
            "/%0a",
            "/a%20b",
            "/a:b",
            "/~a",
            "/%25",
            "/100%25",
            "/a%252Fb",
            "/repos/a/b/contents/c%2Fd.rs",
            "/a,b;v=1.1/c",
            "/{x}|^",
            "/%c3%a4%e4%b8%ad",
            "/caf%e9",
            "/a%3fb%23c",
            "/a%20.",
            "/%e2%80%a6",
            "/%2525",
        ] {
            assert!(check(path).is_ok(), "{path}");
        }
    }

    #[test]
    fn base_and_rest_meet_in_one_slash() {
        for (base, rest, path) in [
            ("", "", "/"),
            ("", "/", "/"),
            ("", "/a", "/a"),
            ("/", "", "/"),
            ("/", "/a", "/a"),
            ("/v1", "", "/v1"),
            ("/v1/", "", "/v1/"),
            ("/v1", "/", "/v1/"),
            ("/v1/", "/a", "/v1/a"),
            ("/v1", "//a", "/v1//a"),
            ("/v1/", "//a", "/v1//a"),
        ] {
            assert_eq!(Target::below(base, rest, None).path(), path, "{base} {rest}");
        }
    }

    #[test]
    fn params_go_by_their_decoded_name_and_others_keep_their_bytes() {
        let mut target = Target::new("/a", Some("x=%7e&%74oken=1&token=2&&tok+en=3&Token=4&y"));
        target.remove_params(|name| name == "token");
        assert_eq!(target.as_str(), "/a?x=%7e&&tok+en=3&Token=4&y");
        assert!(target.has_param("tok en") && !target.has_param("token"));
        let mut only = Target::new("/a", Some("token=1"));
        only.remove_params(|name| name == "token");
        assert_eq!(only.as_str(), "/a");
    }

    #[test]
    fn a_parameter_is_ours_in_every_spelling_that_servers_take_for_it() {
        for name in ["api_key", "API_Key", "api.key", "api key", " api_key", "?api_key", "api_key[]", "api_key[0]", "api_key\0x"] {
            assert_eq!(folded_param(name), "api_key", "{name}");
        }
        for name in ["api-key", "apikey", "xapi_key", "api_keys"] {
            assert_ne!(folded_param(name), "api_key", "{name}");
        }
        let hides = |query: &str| Target::new("/a", Some(query)).hides_param(|name| name == "key");
        assert!(hides("a=1;key=2") && hides("a=1&b;k%65y=2;c"));
        assert!(!hides("key=1;a=2") && !hides("a=1&key=2") && !hides("a=1%3bkey=2"));
    }

    #[test]
    fn globs_match_segments() {
        for (glob, path, matches) in [
            ("/repos/**", "/repos", true),
            ("/repos/**", "/repos/a/b", true),
            ("/repos/**", "/repository", false),
            ("/a/*", "/a/b", true),
            ("/a/*", "/a", false),
            ("/a/*", "/a/b/c", false),
            ("/a*b", "/aXXb", true),
            ("/a*b*", "/abc", true),
            ("/a*b", "/ab/b", false),
            ("/**", "/", true),
            ("/**/x", "/a/b/x", true),
            ("/**/x", "/x", true),
            ("/a/**/b/**/c", "/a/1/b/2/3/c", true),
            ("/a/**/b", "/a/b/c", false),
            ("/", "/", true),
            ("/a", "/a/", false),
            ("/*", "/", true),
            ("/ab", "/a", false),
            ("/*a*a", "/a", false),
        ] {
            assert_eq!(Glob::parse(glob).unwrap().matches(path.as_bytes()), matches, "{glob} {path}");
        }
    }

    #[test]
    fn a_glob_that_matches_nothing_is_refused() {
        for glob in ["", "a", "/a**", "/../a", "/a?b", "/a b", "/%zz"] {
            assert!(Glob::parse(glob).is_err(), "{glob}");
        }
    }

    #[test]
    fn readings_must_agree_on_the_route() {
        let (admin, all) = (Glob::parse("/admin/**").unwrap(), Glob::parse("/**").unwrap());
        let pick = |path: &str| select(path, [(&admin, 1), (&all, 2)].into_iter());
        assert_eq!(pick("/admin/x").unwrap(), Some(1));
        assert_eq!(pick("/public").unwrap(), Some(2));
        assert_eq!(pick("/%70ublic").unwrap(), Some(2));
        for path in ["/%61dmin/x", "//admin/x", "/admin%2Fx", "/admin;a/x", "/%2561dmin", "//x/admin/y", "//x%2f/admin"].into_iter().take(6)
        {
            assert!(pick(path).is_err(), "{path}");
        }
        assert_eq!(select("/x", [(&admin, 1)].into_iter()).unwrap(), None);
    }

    proptest! {
        #[test]
        fn what_passes_stays_below_its_base_in_every_reading(path in "(/|%2[fF]|%5[cC]|\\\\|\\.|%2[eE]|;|%3[bB]|%25|2e|2f|a|%00|%){0,12}") {
            let path = format!("/{path}");
            if check(&path).is_ok() {
                for reading in readings(&path) {
                    let mut depth = 0i32;
                    for segment in reading.split(|b| *b == b'/' || *b == b'\\') {
                        match segment.split(|b| *b == b';').next().unwrap() {
                            b".." => depth -= 1,
                            b"." | b"" => {}
                            _ => depth += 1,
                        }
                        prop_assert!(depth >= 0, "{path}");
                    }
                }
            }
        }

        #[test]
        fn arbitrary_targets_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = carriable(&bytes);
            if let Ok(text) = std::str::from_utf8(&bytes) {
                let _ = check(text);
                let _ = readings(text);
            }
        }
    }
}
