//! Judges the bytes of a request head as they arrive: whole, not yet whole, or refused (RFC 9112 sections 2 to 6).
//!
//! Strict where hyper is lenient: what could be read two ways is refused, and at the first line that is wrong. Only
//! framing and form are judged here; what a path or a field means is the stack's business.

use std::borrow::Cow;

use crate::error::Error;
use crate::http1::{Fault, Framed, Lines, Version, field, folded, is_token};

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
/// Longest target: hyper's own limit is 64 KiB, and a base path and parameters come to it.
const TARGET_MAX: usize = 60 * 1024;
/// Longest name of a field.
const NAME_MAX: usize = 256;
/// Longest `Host`: 255 bytes of name, a colon, five digits (RFC 1035 section 2.3.4).
const HOST_MAX: usize = 261;
/// Empty lines before a request line that are skipped (RFC 9112 section 2.2).
const EMPTY_LINES_MAX: usize = 4;

/// Judges `bytes`, which begin where a request may begin.
pub fn judge(bytes: &[u8], bounds: Bounds) -> Judged {
    Reader::default().judge(bytes, bounds)
}

/// Judges one head that arrives in pieces, each line once.
#[derive(Debug, Default)]
pub struct Reader {
    lines: Lines,
    /// Where the head begins.
    start: usize,
    empty: usize,
    version: Option<Version>,
    host: bool,
    framed: Framed,
    expects: bool,
    fields: usize,
}

impl Reader {
    /// Judges `bytes`: those that were judged before, and what has arrived since.
    pub fn judge(&mut self, bytes: &[u8], bounds: Bounds) -> Judged {
        match self.read(bytes, bounds) {
            Ok(Some(framing)) => Judged::Head { start: self.start, end: self.lines.at(), framing },
            Ok(None) => Judged::Partial,
            Err(error) => Judged::Refused(error),
        }
    }

    fn read(&mut self, bytes: &[u8], bounds: Bounds) -> Result<Option<Framing>, Error> {
        if self.version.is_none() && !bytes.get(self.lines.at()).is_none_or(|b| is_token(*b) || *b == b'\r') {
            return Err(refuse("The request does not begin with a method.", "Speak HTTP/1.1; on a TLS listener, use https."));
        }
        while let Some(line) = self.lines.next(bytes).map_err(faulty)? {
            if self.lines.at() - self.start > bounds.bytes {
                return Err(too_large());
            }
            let Some(version) = self.version else {
                self.first_line(line)?;
                continue;
            };
            if line.is_empty() {
                return self.finish(version).map(Some);
            }
            self.fields += 1;
            if self.fields > bounds.fields {
                return Err(Error::HeadersTooLarge(
                    format!("The head has more than {} fields (server.limits.headers).", bounds.fields).into(),
                ));
            }
            self.field(line)?;
        }
        if bytes.len() - self.start > bounds.bytes { Err(too_large()) } else { Ok(None) }
    }

    fn first_line(&mut self, line: &[u8]) -> Result<(), Error> {
        if line.is_empty() && self.empty < EMPTY_LINES_MAX {
            self.empty += 1;
            self.start = self.lines.at();
            return Ok(());
        }
        self.version = Some(request_line(line)?);
        Ok(())
    }

    fn field(&mut self, line: &[u8]) -> Result<(), Error> {
        let (name, value) = field(line).map_err(faulty)?;
        self.framed.field(name, value).map_err(faulty)?;
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => self.host(value),
            6 if name.eq_ignore_ascii_case(b"expect") => self.expect(value),
            // A lenient upstream may read `_` as `-`: nothing that frames a message comes in that spelling.
            14 | 17 if imitates_framing(name) => Err(refuse("A field imitates one that frames the message.", "Spell it with `-`.")),
            length if length > NAME_MAX => Err(Error::HeadersTooLarge("The name of a field is over 256 bytes.".into())),
            _ => Ok(()),
        }
    }

    fn host(&mut self, value: &[u8]) -> Result<(), Error> {
        if self.host {
            return Err(refuse("There is more than one `Host` field.", "Send exactly one `Host`."));
        }
        self.host = true;
        if value.len() > HOST_MAX || !is_authority(value) {
            return Err(refuse("`Host` is not a host with an optional port.", "Send `Host: name` or `Host: name:port`."));
        }
        Ok(())
    }

    /// The one expectation that there is (RFC 9110 section 10.1.1). A second field, or another word, is read by some as
    /// it and by others not, and what follows is then body to one and request to the other.
    fn expect(&mut self, value: &[u8]) -> Result<(), Error> {
        if self.expects || !value.eq_ignore_ascii_case(b"100-continue") {
            return Err(refuse("`Expect` is something else than exactly one `100-continue`.", "Leave `Expect` out."));
        }
        self.expects = true;
        Ok(())
    }

    fn finish(&self, version: Version) -> Result<Framing, Error> {
        if version == Version::Http11 && !self.host {
            return Err(refuse("There is no `Host` field.", "Send exactly one `Host`."));
        }
        let framed = self.framed.judge(version).map_err(faulty)?;
        Ok(if framed.chunked { Framing::Chunked } else { Framing::Length(framed.length.unwrap_or(0)) })
    }
}

fn request_line(line: &[u8]) -> Result<Version, Error> {
    if line == b"PRI * HTTP/2.0" {
        return Err(refuse("The preface of HTTP/2 is broken, or stands behind a request.", "Begin a connection with it."));
    }
    let malformed = || refuse("The request line is not `METHOD target HTTP/1.1`.", "One space between the three parts, and nothing else.");
    let method_end = memchr::memchr(b' ', line).ok_or_else(malformed)?;
    let (method, rest) = (&line[..method_end], &line[method_end + 1..]);
    if !is_method(method) {
        return Err(refuse(
            "The method is not up to 32 capital letters, digits, `-` and `_`.",
            "Use GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS or an extension method.",
        ));
    }
    let target_end = memchr::memchr(b' ', rest).ok_or_else(malformed)?;
    let (target, version) = (&rest[..target_end], &rest[target_end + 1..]);
    let Some(version) = Version::read(version) else {
        return Err(refuse("The version is neither HTTP/1.1 nor HTTP/1.0.", "Use HTTP/1.1."));
    };
    if target.is_empty() {
        return Err(malformed());
    }
    if target.len() > TARGET_MAX {
        return Err(Error::HeadersTooLarge("The target is over 60 KiB.".into()));
    }
    if method == b"CONNECT" {
        return Err(Error::MethodNotAllowed("CONNECT".into()));
    }
    crate::path::carriable(target)?;
    Ok(version)
}

/// Methods are case-sensitive (RFC 9110 section 9.1), but not to everybody: `trace` would be an extension method here
/// and TRACE there. All that are registered fit this.
fn is_method(method: &[u8]) -> bool {
    method.first().is_some_and(u8::is_ascii_uppercase)
        && method.len() <= METHOD_MAX
        && method.iter().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_'))
}

fn imitates_framing(name: &[u8]) -> bool {
    if name.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-') {
        return false;
    }
    matches!(&*folded(name), b"content-length" | b"transfer-encoding")
}

/// A host with an optional port, as names and addresses of machines really are: of RFC 3986's `reg-name` neither escapes
/// nor sub-delimiters, which no such name holds and every reader treats in its own way.
fn is_authority(value: &[u8]) -> bool {
    if let Some(rest) = value.strip_prefix(b"[") {
        let Some(end) = memchr::memchr(b']', rest) else { return false };
        let address = std::str::from_utf8(&rest[..end]).is_ok_and(|a| a.parse::<std::net::Ipv6Addr>().is_ok());
        return address && is_port(&rest[end + 1..]);
    }
    let end = memchr::memchr(b':', value).unwrap_or(value.len());
    let name = value[..end].strip_suffix(b".").unwrap_or(&value[..end]);
    let label = |label: &[u8]| !label.is_empty() && label.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    name.split(|b| *b == b'.').all(label) && is_port(&value[end..])
}

/// Nothing, or a colon and up to five digits that fit 16 bits.
fn is_port(text: &[u8]) -> bool {
    let Some(digits) = text.strip_prefix(b":") else { return text.is_empty() };
    digits.len() <= 5 && digits.iter().all(u8::is_ascii_digit) && digits.iter().fold(0u32, |n, d| n * 10 + u32::from(d - b'0')) <= 65535
}

fn faulty(fault: Fault) -> Error {
    refuse(fault.why, fault.hint)
}

fn refuse(why: &'static str, hint: &'static str) -> Error {
    Error::BadRequest(Cow::Borrowed(why), Cow::Borrowed(hint))
}

fn too_large() -> Error {
    Error::HeadersTooLarge("The head of the request is too large (server.limits.header_bytes).".into())
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
            "GET /a\r\n",
            "get /a HTTP/1.1\r\n",
            "Get /a HTTP/1.1\r\n",
            "G!T /a HTTP/1.1\r\n",
            "-GET /a HTTP/1.1\r\n",
            "GET /a HTTP/1.1\r\nHost: x\r\nExpect: 200-ok\r\n",
            "GET /a HTTP/1.1\r\nHost: x\r\nExpect: y 100-continue\r\n",
            "GET /a HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nExpect: 100-continue\r\n",
            "GET /a HTTP/1.1\r\nHost: x\r\nContent.Length: 5\r\n",
            "GET /a HTTP/1.1\r\nHost: x\r\nA: b\rc",
            "GET /a\rHTTP/1.1",
            "GET /a HTTP/1.1\r\nHost: \0",
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
    fn a_host_is_a_name_or_an_address_with_an_optional_port() {
        for host in ["x", "a.b.", "a_b-c.1", "x:80", "x:", "10.0.0.1:8080", "[::1]", "[2001:db8::1]:443", "xn--bcher-kva.example"] {
            assert!(is_authority(host.as_bytes()), "{host}");
        }
        let long = format!("{}.example", "a".repeat(300));
        for host in [
            "", ":80", ".", "..", ".a", "a..b", "a b", "a,b", "a@b", "u:p@h", "a/b", "a?b", "a#b", "a\\b", "a:b", "a:80:80", "a:99999",
            "a:123456", "a:-1", "a:+80", "[::1", "[::1]x", "[a]", "[]", "::1", "a%41", "ä", "a;b", "a\"b", "http://a", "*",
        ] {
            assert!(!is_authority(host.as_bytes()), "{host}");
        }
        assert_eq!(framing(&format!("GET /a HTTP/1.1\r\nHost: {long}\r\n\r\n")), None);
    }

    #[test]
    fn a_wrong_line_is_refused_before_the_head_ends() {
        let mut reader = Reader::default();
        assert_eq!(reader.judge(b"GET /a HTTP/1.1\r\nHost: x\r\n", BOUNDS), Judged::Partial);
        assert!(matches!(reader.judge(b"GET /a HTTP/1.1\r\nHost: x\r\nHost: x\r\n", BOUNDS), Judged::Refused(_)));
    }

    #[test]
    fn long_targets_and_names_are_refused() {
        let bounds = Bounds { bytes: 256 * 1024, fields: 10 };
        for head in
            [format!("GET /{} HTTP/1.1\r\n", "a".repeat(TARGET_MAX)), format!("GET / HTTP/1.1\r\n{}: b\r\n", "a".repeat(NAME_MAX + 1))]
        {
            assert!(matches!(judge(head.as_bytes(), bounds), Judged::Refused(Error::HeadersTooLarge(_))));
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
