//! Judges the bytes of a request head: complete, incomplete, or refused (RFC 9112 sections 2 to 6).
//!
//! Strict where hyper is lenient: what could be read two ways is refused. Only framing and form are judged here;
//! what a path or a field means is the stack's business.

use std::borrow::Cow;

use crate::error::Error;

/// Bounds of a request head.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Largest head in bytes (`server.limits.header_bytes`).
    pub bytes: usize,
    /// Most fields (`server.limits.headers`).
    pub fields: usize,
}

/// How the message goes on behind its head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// So many bytes of body; zero is none.
    Length(u64),
    /// Chunks.
    Chunked,
}

/// What a buffer that begins with a head holds.
#[derive(Debug, PartialEq, Eq)]
pub enum Judged {
    /// Not yet a whole head.
    Partial,
    /// A head of so many bytes, empty lines before it included.
    Head {
        /// Where the head begins: behind the empty lines.
        start: usize,
        /// Where it ends.
        end: usize,
        /// What follows.
        framing: Framing,
    },
    /// Not a head that can be read in one way only.
    Refused(Error),
}

/// Longest method: `UPDATEREDIRECTREF`, the longest registered one, has 17 bytes.
const METHOD_MAX: usize = 32;
/// Longest number in `Content-Length`: what fits 64 bits, short of overflow.
const LENGTH_DIGITS_MAX: usize = 18;
/// Empty lines before a request line that are skipped (RFC 9112 section 2.2).
const EMPTY_LINES_MAX: usize = 4;

/// Judges `bytes`, which begin where a request may begin.
pub fn judge(bytes: &[u8], bounds: Bounds) -> Judged {
    let start = skip_empty_lines(bytes);
    let Some(length) = find_end(&bytes[start..]) else {
        return partial(&bytes[start..], bounds);
    };
    if length > bounds.bytes {
        return Judged::Refused(too_large());
    }
    let end = start + length;
    match read(&bytes[start..end], bounds) {
        Ok(framing) => Judged::Head { start, end, framing },
        Err(error) => Judged::Refused(error),
    }
}

fn skip_empty_lines(bytes: &[u8]) -> usize {
    let mut start = 0;
    while start < 2 * EMPTY_LINES_MAX && bytes[start..].starts_with(b"\r\n") {
        start += 2;
    }
    start
}

/// The length of the head with its empty line. A bare LF ends it too: it is refused by `read`, but must not make the
/// gateway wait for more.
fn find_end(bytes: &[u8]) -> Option<usize> {
    let mut from = 0;
    while let Some(at) = memchr::memchr(b'\n', &bytes[from..]) {
        let line_end = from + at + 1;
        match bytes.get(line_end..) {
            Some([b'\r', b'\n', ..]) => return Some(line_end + 2),
            Some([b'\n', ..]) => return Some(line_end + 1),
            _ => from = line_end,
        }
    }
    None
}

/// An incomplete head is waited for, unless it is too large or wrong already.
fn partial(bytes: &[u8], bounds: Bounds) -> Judged {
    if bytes.len() > bounds.bytes {
        return Judged::Refused(too_large());
    }
    if !bytes.first().is_none_or(|b| is_token(*b) || *b == b'\r') {
        return Judged::Refused(refuse("The request does not begin with a method.", "Speak HTTP/1.1; on a TLS listener, use https."));
    }
    Judged::Partial
}

fn read(head: &[u8], bounds: Bounds) -> Result<Framing, Error> {
    if head.starts_with(b"PRI * HTTP/2.0\r\n") {
        return Err(refuse("HTTP/2 is not spoken here.", "Use HTTP/1.1."));
    }
    let (line, rest) = take_line(head)?;
    let version = request_line(line)?;
    fields(rest, version, bounds)
}

/// Splits off one line. CR belongs before LF and nowhere else.
fn take_line(bytes: &[u8]) -> Result<(&[u8], &[u8]), Error> {
    let bare = || refuse("A line of the head does not end with CR LF.", "End every line with CR LF, and put neither alone into a field.");
    let at = memchr::memchr(b'\n', bytes).ok_or_else(bare)?;
    let line = bytes[..at].strip_suffix(b"\r").ok_or_else(bare)?;
    Ok((line, &bytes[at + 1..]))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Version {
    Http10,
    Http11,
}

fn request_line(line: &[u8]) -> Result<Version, Error> {
    let malformed = || refuse("The request line is not `METHOD target HTTP/1.1`.", "One space between the three parts, and nothing else.");
    let method_end = memchr::memchr(b' ', line).ok_or_else(malformed)?;
    let (method, rest) = (&line[..method_end], &line[method_end + 1..]);
    if method.is_empty() || method.len() > METHOD_MAX || !method.iter().all(|b| is_token(*b)) {
        return Err(refuse(
            "The method is not a token of at most 32 bytes.",
            "Use GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS or an extension method.",
        ));
    }
    let target_end = memchr::memchr(b' ', rest).ok_or_else(malformed)?;
    let (target, version) = (&rest[..target_end], &rest[target_end + 1..]);
    let version = match version {
        b"HTTP/1.1" => Version::Http11,
        b"HTTP/1.0" => Version::Http10,
        _ => return Err(refuse("The version is neither HTTP/1.1 nor HTTP/1.0.", "Use HTTP/1.1.")),
    };
    if target.is_empty() {
        return Err(malformed());
    }
    if method == b"CONNECT" {
        return Err(Error::MethodNotAllowed("CONNECT".into()));
    }
    crate::path::carriable(target)?;
    Ok(version)
}

#[derive(Default)]
struct Seen {
    host: bool,
    length: Option<u64>,
    chunked: bool,
}

fn fields(mut rest: &[u8], version: Version, bounds: Bounds) -> Result<Framing, Error> {
    let mut seen = Seen::default();
    let mut count = 0;
    loop {
        let (line, after) = take_line(rest)?;
        if line.is_empty() {
            break;
        }
        count += 1;
        if count > bounds.fields {
            return Err(Error::HeadersTooLarge(format!("The head has more than {} fields (server.limits.headers).", bounds.fields).into()));
        }
        field(line, &mut seen)?;
        rest = after;
    }
    if version == Version::Http11 && !seen.host {
        return Err(refuse("There is no `Host` field.", "Send exactly one `Host`."));
    }
    match (seen.chunked, seen.length) {
        (true, Some(_)) => Err(refuse("Both `Content-Length` and `Transfer-Encoding` are there.", "Send one of them.")),
        (true, None) if version == Version::Http10 => {
            Err(refuse("`Transfer-Encoding` has no meaning in HTTP/1.0.", "Use HTTP/1.1 or `Content-Length`."))
        }
        (true, None) => Ok(Framing::Chunked),
        (false, length) => Ok(Framing::Length(length.unwrap_or(0))),
    }
}

fn field(line: &[u8], seen: &mut Seen) -> Result<(), Error> {
    let colon = line.iter().position(|b| !is_token(*b));
    let Some(colon) = colon.filter(|at| *at > 0 && line[*at] == b':') else {
        return Err(refuse("A field is not `Name: value`.", "No folding, no space before the colon, only token characters in the name."));
    };
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    if !value.iter().all(|b| is_field_byte(*b)) {
        return Err(refuse("A field's value holds a control character.", "Send visible characters, spaces and tabs only."));
    }
    match name.len() {
        4 if name.eq_ignore_ascii_case(b"host") => host(trim(value), seen),
        14 if name.eq_ignore_ascii_case(b"content-length") => content_length(trim(value), seen),
        17 if name.eq_ignore_ascii_case(b"transfer-encoding") => transfer_encoding(trim(value), seen),
        // A lenient upstream may read `_` as `-`: nothing that frames a message comes in that spelling.
        14 | 17 if name.contains(&b'_') && is_framing_alias(name) => {
            Err(refuse("A field imitates one that frames the message.", "Spell it with `-`."))
        }
        _ => Ok(()),
    }
}

fn is_framing_alias(name: &[u8]) -> bool {
    let dashed: Vec<u8> = name.iter().map(|b| if *b == b'_' { b'-' } else { b.to_ascii_lowercase() }).collect();
    dashed == b"content-length" || dashed == b"transfer-encoding"
}

fn host(value: &[u8], seen: &mut Seen) -> Result<(), Error> {
    if seen.host {
        return Err(refuse("There is more than one `Host` field.", "Send exactly one `Host`."));
    }
    seen.host = true;
    if value.is_empty() || !value.iter().all(|b| b.is_ascii_alphanumeric() || b"-._~:[]!$&'()*+;=%".contains(b)) {
        return Err(refuse("`Host` is not a host with an optional port.", "Send `Host: name` or `Host: name:port`."));
    }
    Ok(())
}

fn content_length(value: &[u8], seen: &mut Seen) -> Result<(), Error> {
    if seen.length.is_some() {
        return Err(refuse("There is more than one `Content-Length`.", "Send exactly one."));
    }
    let digits = !value.is_empty() && value.len() <= LENGTH_DIGITS_MAX && value.iter().all(u8::is_ascii_digit);
    let Some(length) = std::str::from_utf8(value).ok().filter(|_| digits).and_then(|v| v.parse().ok()) else {
        return Err(refuse("`Content-Length` is not a plain number.", "Send decimal digits only."));
    };
    seen.length = Some(length);
    Ok(())
}

fn transfer_encoding(value: &[u8], seen: &mut Seen) -> Result<(), Error> {
    if seen.chunked || !value.eq_ignore_ascii_case(b"chunked") {
        return Err(refuse(
            "`Transfer-Encoding` is something else than exactly one `chunked`.",
            "Send `Transfer-Encoding: chunked` or `Content-Length`.",
        ));
    }
    seen.chunked = true;
    Ok(())
}

fn trim(value: &[u8]) -> &[u8] {
    value.trim_ascii()
}

fn refuse(why: &'static str, hint: &'static str) -> Error {
    Error::BadRequest(Cow::Borrowed(why), Cow::Borrowed(hint))
}

fn too_large() -> Error {
    Error::HeadersTooLarge("The head of the request is too large (server.limits.header_bytes).".into())
}

/// Characters of a token (RFC 9110 section 5.6.2), as a table: this runs for every byte of every name.
const TOKEN: [bool; 256] = table(b"!#$%&'*+-.^_`|~", true);
/// Bytes of a field value: visible, space, tab, and obs-text (RFC 9110 section 5.5).
const FIELD: [bool; 256] = field_table();

const fn table(extra: &[u8], alphanumeric: bool) -> [bool; 256] {
    let mut table = [false; 256];
    let mut b = 0;
    while b < 256 {
        table[b] = alphanumeric && (b as u8).is_ascii_alphanumeric();
        b += 1;
    }
    let mut i = 0;
    while i < extra.len() {
        table[extra[i] as usize] = true;
        i += 1;
    }
    table
}

const fn field_table() -> [bool; 256] {
    let mut table = [false; 256];
    let mut b = 0x20;
    while b < 256 {
        table[b] = b != 0x7f;
        b += 1;
    }
    table[b'\t' as usize] = true;
    table
}

fn is_token(b: u8) -> bool {
    TOKEN[b as usize]
}

fn is_field_byte(b: u8) -> bool {
    FIELD[b as usize]
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { bytes: 1024, fields: 10 };

    fn framing(head: &str) -> Option<Framing> {
        match judge(head.as_bytes(), BOUNDS) {
            Judged::Head { end, framing, .. } => {
                assert_eq!(end, head.len());
                Some(framing)
            }
            Judged::Partial => panic!("partial: {head:?}"),
            Judged::Refused(_) => None,
        }
    }

    #[test]
    fn a_plain_head_passes() {
        assert_eq!(framing("GET /a HTTP/1.1\r\nHost: x\r\n\r\n"), Some(Framing::Length(0)));
        assert_eq!(framing("POST /a HTTP/1.1\r\nhost:x\r\nContent-Length: 5 \r\n\r\n"), Some(Framing::Length(5)));
        assert_eq!(framing("POST /a HTTP/1.1\r\nHost: [::1]:80\r\nTransfer-Encoding: Chunked\r\n\r\n"), Some(Framing::Chunked));
        assert_eq!(framing("GET /a HTTP/1.0\r\n\r\n"), Some(Framing::Length(0)));
        assert_eq!(framing("\r\nGET /a HTTP/1.1\r\nHost: x\r\n\r\n"), Some(Framing::Length(0)));
    }

    #[test]
    fn what_could_be_read_two_ways_is_refused() {
        let heads = [
            "GET /a HTTP/1.1\nHost: x\n\n",
            "GET /a HTTP/1.1\r\nHost: x\n\r\n",
            "GET /a HTTP/1.1\r\nHost: x\r\nA: b\rc\r\n\r\n",
            "GET /a HTTP/1.1\r\n\r\n",
            "GET /a HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n",
            "GET /a HTTP/1.1\r\nHost:\r\n\r\n",
            "GET /a HTTP/1.1\r\nHost: a b\r\n\r\n",
            "GET /a HTTP/1.1\r\nHost: a@b\r\n\r\n",
            "GET /a HTTP/1.1\r\nHost : x\r\n\r\n",
            "GET /a HTTP/1.1\r\n Host: x\r\n\r\n",
            "GET /a HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n",
            "GET /a HTTP/1.1\r\nHost: x\r\nA\r\n\r\n",
            "GET /a HTTP/1.1\r\nHost: x\r\n: b\r\n\r\n",
            "GET /a HTTP/1.1\r\nHost: x\r\nA: b\0c\r\n\r\n",
            "GET  /a HTTP/1.1\r\nHost: x\r\n\r\n",
            "GET /a  HTTP/1.1\r\nHost: x\r\n\r\n",
            "GET /a b HTTP/1.1\r\nHost: x\r\n\r\n",
            "GET /a HTTP/1.2\r\nHost: x\r\n\r\n",
            "GET /a http/1.1\r\nHost: x\r\n\r\n",
            "GET /a\r\nHost: x\r\n\r\n",
            "G\"T /a HTTP/1.1\r\nHost: x\r\n\r\n",
            "GET /a#b HTTP/1.1\r\nHost: x\r\n\r\n",
            "PRI * HTTP/2.0\r\n\r\n",
            "POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
            "POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 5, 5\r\n\r\n",
            "POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: +5\r\n\r\n",
            "POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 0x5\r\n\r\n",
            "POST /a HTTP/1.1\r\nHost: x\r\nContent-Length:\r\n\r\n",
            "POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n",
            "POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            "POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            "POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            "POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n",
            "POST /a HTTP/1.1\r\nHost: x\r\nTransfer_Encoding: chunked\r\n\r\n",
            "POST /a HTTP/1.1\r\nHost: x\r\nContent_Length: 5\r\n\r\n",
            "POST /a HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
        ];
        for head in heads {
            assert_eq!(framing(head), None, "{head:?}");
        }
    }

    #[test]
    fn half_a_head_is_waited_for() {
        let head = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n";
        for end in 0..head.len() {
            assert_eq!(judge(&head[..end], BOUNDS), Judged::Partial, "{end}");
        }
    }

    #[test]
    fn a_head_over_its_bounds_is_refused_before_it_ends() {
        let long = format!("GET /a HTTP/1.1\r\nHost: x\r\nA: {}", "b".repeat(1024));
        assert!(matches!(judge(long.as_bytes(), BOUNDS), Judged::Refused(Error::HeadersTooLarge(_))));
        let many = format!("GET /a HTTP/1.1\r\nHost: x\r\n{}\r\n", "A: b\r\n".repeat(10));
        assert!(matches!(judge(many.as_bytes(), BOUNDS), Judged::Refused(Error::HeadersTooLarge(_))));
    }

    #[test]
    fn a_tls_hello_on_a_plain_port_is_refused_at_once() {
        assert!(matches!(judge(b"\x16\x03\x01\x02", BOUNDS), Judged::Refused(_)));
    }
}
