//! The grammar of HTTP/1.1 messages in its strict form (RFC 9110 section 5, RFC 9112), for both sides: the edge judges
//! requests by it, `net::strict` the answers of upstreams. It knows forms and framing, not what a field means.

mod chunks;

pub use chunks::{Chunks, Malformed};

/// What is wrong with a message, and what to send instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What is wrong, in a sentence.
    pub why: &'static str,
    /// What to send instead.
    pub hint: &'static str,
}

const fn fault(why: &'static str, hint: &'static str) -> Fault {
    Fault { why, hint }
}

const BARE: Fault = fault("A line of the head does not end with CR LF.", "End every line with CR LF, and put neither alone into a field.");
const CONTROL: Fault = fault("A field's value holds a control character.", "Send visible characters, spaces and tabs only.");
const NO_FIELD: Fault = fault("A field is not `Name: value`.", "No folding, no space before the colon, only token characters in the name.");
const TWO_LENGTHS: Fault = fault("There is more than one `Content-Length`.", "Send exactly one.");
const BAD_LENGTH: Fault = fault("`Content-Length` is not a plain number.", "Send decimal digits only.");
const BAD_CODING: Fault =
    fault("`Transfer-Encoding` is something else than exactly one `chunked`.", "Send `Transfer-Encoding: chunked` or `Content-Length`.");
const BOTH: Fault = fault("Both `Content-Length` and `Transfer-Encoding` are there.", "Send one of them.");
const OLD_CHUNKS: Fault = fault("`Transfer-Encoding` has no meaning in HTTP/1.0.", "Use HTTP/1.1 or `Content-Length`.");

/// Longest number in `Content-Length`: what fits 64 bits, short of overflow.
const LENGTH_DIGITS_MAX: usize = 18;

/// The two versions that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0.
    Http10,
    /// HTTP/1.1.
    Http11,
}

impl Version {
    /// Reads `HTTP/1.1` or `HTTP/1.0`; anything else is neither, in other case too (RFC 9112 section 2.3).
    pub fn read(bytes: &[u8]) -> Option<Self> {
        match bytes {
            b"HTTP/1.1" => Some(Self::Http11),
            b"HTTP/1.0" => Some(Self::Http10),
            _ => None,
        }
    }
}

/// Reads the lines of a head that arrives in pieces, looking at each byte once.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lines {
    /// Where the next line begins.
    at: usize,
    /// Up to where there is no line end.
    scanned: usize,
}

impl Lines {
    /// Where the next line begins: behind the last one that was read.
    pub fn at(&self) -> usize {
        self.at
    }

    /// The next line without its end; `None` if it is not whole yet. `bytes` are those of before, and more.
    ///
    /// # Errors
    /// If CR and LF do not stand together, or an unfinished line holds a control character: no wait mends that.
    pub fn next<'b>(&mut self, bytes: &'b [u8]) -> Result<Option<&'b [u8]>, Fault> {
        match memchr::memchr(b'\n', &bytes[self.scanned..]) {
            Some(found) => {
                let end = self.scanned + found;
                let line = bytes[self.at..end].strip_suffix(b"\r").ok_or(BARE)?;
                (self.at, self.scanned) = (end + 1, end + 1);
                Ok(Some(line))
            }
            None => {
                let fresh = &bytes[self.scanned..];
                // A CR may be the first half of the end; it is looked at again with what follows.
                let whole = fresh.strip_suffix(b"\r").unwrap_or(fresh);
                if whole.contains(&b'\r') {
                    return Err(BARE);
                }
                if !whole.iter().all(|b| is_field_byte(*b)) {
                    return Err(CONTROL);
                }
                self.scanned += whole.len();
                Ok(None)
            }
        }
    }
}

/// Splits a field line into name and trimmed value.
///
/// # Errors
/// For folded lines, white space around the name, names that are no token, control characters in the value (RFC 9112
/// section 5).
pub fn field(line: &[u8]) -> Result<(&[u8], &[u8]), Fault> {
    let colon = line.iter().position(|b| !is_token(*b)).filter(|at| *at > 0 && line[*at] == b':').ok_or(NO_FIELD)?;
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    if !value.iter().all(|b| is_field_byte(*b)) {
        return Err(CONTROL);
    }
    Ok((name, value.trim_ascii()))
}

/// What the framing fields of a head say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Framed {
    /// `Content-Length`.
    pub length: Option<u64>,
    /// `Transfer-Encoding: chunked`.
    pub chunked: bool,
}

impl Framed {
    /// Looks at a field.
    ///
    /// # Errors
    /// For a second framing field of a kind, and for any value but plain digits or exactly one `chunked` (RFC 9112
    /// sections 6.1 to 6.3).
    pub fn field(&mut self, name: &[u8], value: &[u8]) -> Result<(), Fault> {
        match name.len() {
            14 if name.eq_ignore_ascii_case(b"content-length") => self.length(value),
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => self.coding(value),
            _ => Ok(()),
        }
    }

    /// Judges both together, once the head is over.
    ///
    /// # Errors
    /// If both are there, or chunks in HTTP/1.0.
    pub fn judge(self, version: Version) -> Result<Self, Fault> {
        match self {
            Self { length: Some(_), chunked: true } => Err(BOTH),
            Self { chunked: true, .. } if version == Version::Http10 => Err(OLD_CHUNKS),
            fine => Ok(fine),
        }
    }

    fn length(&mut self, value: &[u8]) -> Result<(), Fault> {
        if self.length.is_some() {
            return Err(TWO_LENGTHS);
        }
        let digits = !value.is_empty() && value.len() <= LENGTH_DIGITS_MAX && value.iter().all(u8::is_ascii_digit);
        let length = std::str::from_utf8(value).ok().filter(|_| digits).and_then(|v| v.parse().ok());
        self.length = Some(length.ok_or(BAD_LENGTH)?);
        Ok(())
    }

    fn coding(&mut self, value: &[u8]) -> Result<(), Fault> {
        if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
            return Err(BAD_CODING);
        }
        self.chunked = true;
        Ok(())
    }
}

/// Characters of a token (RFC 9110 section 5.6.2), as a table: this runs for every byte of every name.
const TOKEN: [bool; 256] = token_table();
/// Bytes of a field value: visible, space, tab, and obs-text (RFC 9110 section 5.5).
const FIELD: [bool; 256] = field_table();

const fn token_table() -> [bool; 256] {
    let extra = b"!#$%&'*+-.^_`|~";
    let mut table = [false; 256];
    let mut b = 0;
    while b < 256 {
        table[b] = (b as u8).is_ascii_alphanumeric();
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

/// Whether a byte may stand in a token.
pub fn is_token(b: u8) -> bool {
    TOKEN[b as usize]
}

/// Whether a byte may stand in a field value.
pub fn is_field_byte(b: u8) -> bool {
    FIELD[b as usize]
}

/// A name as careless readers may see it: all in lower case, and whatever is neither letter nor digit as `-`. CGI and
/// its heirs do that, and then take `Transfer_Encoding` or `X.Original.URL` for what it imitates.
pub fn folded(name: &[u8]) -> Vec<u8> {
    name.iter().map(|b| if b.is_ascii_alphanumeric() { b.to_ascii_lowercase() } else { b'-' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_the_same_however_they_arrive() {
        let text = b"one\r\ntwo \r\n\r\nrest";
        let mut whole = Lines::default();
        let mut expected = Vec::new();
        while let Some(line) = whole.next(text).unwrap() {
            expected.push(line.to_vec());
        }
        let mut slow = Lines::default();
        let mut lines = Vec::new();
        for end in 0..=text.len() {
            while let Some(line) = slow.next(&text[..end]).unwrap() {
                lines.push(line.to_vec());
            }
        }
        assert_eq!((lines, slow.at()), (expected, whole.at()));
        assert_eq!(whole.at(), text.len() - 4);
    }

    #[test]
    fn what_no_wait_can_mend_is_refused_before_the_line_ends() {
        for text in [&b"a\rb"[..], b"a\0", b"a\x0bb", b"a\x7f", b"\x1f"] {
            assert!(Lines::default().next(text).is_err(), "{text:?}");
        }
        assert_eq!(Lines::default().next(b"a\r"), Ok(None));
        assert_eq!(Lines::default().next(b"a\tb\xe4"), Ok(None));
        assert!(Lines::default().next(b"a\n").is_err());
    }

    #[test]
    fn framing_fields_have_one_reading() {
        let framed = |fields: &[(&str, &str)]| {
            let mut framed = Framed::default();
            fields.iter().try_for_each(|(n, v)| framed.field(n.as_bytes(), v.as_bytes())).and_then(|()| framed.judge(Version::Http11))
        };
        assert_eq!(framed(&[]), Ok(Framed::default()));
        assert_eq!(framed(&[("content-LENGTH", "05")]), Ok(Framed { length: Some(5), chunked: false }));
        assert_eq!(framed(&[("Transfer-Encoding", "CHUNKED")]), Ok(Framed { length: None, chunked: true }));
        for wrong in ["", "-1", "+1", "1_0", "0x1", "1 2", "1,1", "1.0", "\u{0661}", "1234567890123456789"] {
            assert!(framed(&[("Content-Length", wrong)]).is_err(), "{wrong}");
        }
        for wrong in
            ["", "gzip", "gzip, chunked", "chunked, identity", "chunked,", "\"chunked\"", "chunked;a=b", "identity", "chunked chunked"]
        {
            assert!(framed(&[("Transfer-Encoding", wrong)]).is_err(), "{wrong}");
        }
        assert!(framed(&[("Content-Length", "1"), ("Content-Length", "1")]).is_err());
        assert!(framed(&[("Content-Length", "1"), ("Transfer-Encoding", "chunked")]).is_err());
    }
}
