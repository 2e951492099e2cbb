//! Readers of HTTP/1.1 requests, each lenient in its own way, as servers in the field are. What the gateway sends must
//! mean the same to all of them.

/// What a reader lets pass, and how it then reads it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reader {
    pub name: &'static str,
    /// LF alone ends a line.
    pub bare_lf: bool,
    /// CR alone ends a line.
    pub bare_cr: bool,
    /// A line that begins with white space goes on with the one before.
    pub folds: bool,
    /// White space around names goes.
    pub trims_names: bool,
    /// What is neither letter nor digit in a name is `-`.
    pub folds_names: bool,
    /// Of two fields of a name the last counts.
    pub last_wins: bool,
    /// `Content-Length` beats `Transfer-Encoding`.
    pub length_wins: bool,
    /// Any coding that holds the word is chunked.
    pub loose_coding: bool,
    /// Numbers end at the first character that is no digit.
    pub loose_numbers: bool,
    /// A value ends at its first NUL.
    pub cuts_at_nul: bool,
    /// Any white space parts the request line.
    pub any_white_space: bool,
    /// Trailers count as fields of the head.
    pub merges_trailers: bool,
    /// Control characters in a value go.
    pub strips_controls: bool,
}

/// Fourteen of them; the first is strict.
pub const READERS: [Reader; 14] = {
    const STRICT: Reader = Reader {
        name: "strict",
        bare_lf: false,
        bare_cr: false,
        folds: false,
        trims_names: false,
        folds_names: false,
        last_wins: false,
        length_wins: false,
        loose_coding: false,
        loose_numbers: false,
        cuts_at_nul: false,
        any_white_space: false,
        merges_trailers: false,
        strips_controls: false,
    };
    [
        STRICT,
        Reader { name: "bare LF", bare_lf: true, ..STRICT },
        Reader { name: "bare CR", bare_lf: true, bare_cr: true, ..STRICT },
        Reader { name: "folding", folds: true, ..STRICT },
        Reader { name: "trimmed names", trims_names: true, ..STRICT },
        Reader { name: "CGI names", folds_names: true, ..STRICT },
        Reader { name: "CGI names, last wins", folds_names: true, last_wins: true, trims_names: true, ..STRICT },
        Reader { name: "last wins", last_wins: true, ..STRICT },
        Reader { name: "length wins", length_wins: true, ..STRICT },
        Reader { name: "loose coding", loose_coding: true, folds: true, ..STRICT },
        Reader { name: "loose numbers", loose_numbers: true, bare_lf: true, ..STRICT },
        Reader { name: "cut at NUL", cuts_at_nul: true, strips_controls: true, ..STRICT },
        Reader { name: "any white space", any_white_space: true, bare_lf: true, bare_cr: true, ..STRICT },
        Reader {
            name: "everything",
            bare_lf: true,
            bare_cr: true,
            folds: true,
            trims_names: true,
            folds_names: true,
            last_wins: true,
            length_wins: true,
            loose_coding: true,
            loose_numbers: true,
            cuts_at_nul: true,
            any_white_space: true,
            merges_trailers: true,
            strips_controls: true,
        },
    ]
};

/// A request as a reader understood it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Understood {
    pub method: String,
    pub target: String,
    pub host: Option<String>,
    pub authorization: Option<String>,
    pub body: Vec<u8>,
}

impl Reader {
    /// All requests of a connection, and how many bytes were left over.
    pub fn read(&self, mut bytes: &[u8]) -> (Vec<Understood>, usize) {
        let mut all = Vec::new();
        while let Some((request, used)) = self.one(bytes) {
            all.push(request);
            bytes = &bytes[used..];
        }
        (all, bytes.len())
    }

    fn one(&self, bytes: &[u8]) -> Option<(Understood, usize)> {
        let mut at = 0;
        let (line, next) = self.line(bytes, at)?;
        at = next;
        let (method, target) = self.request_line(line)?;
        let mut fields: Vec<(String, String)> = Vec::new();
        loop {
            let (line, next) = self.line(bytes, at)?;
            at = next;
            if line.is_empty() {
                break;
            }
            self.field(line, &mut fields);
        }
        let length = self.find(&fields, "content-length").and_then(|v| self.number(&v, 10));
        let coding = self.find(&fields, "transfer-encoding").map(|v| v.to_ascii_lowercase());
        let chunked = coding.is_some_and(|v| if self.loose_coding { v.contains("chunked") } else { v == "chunked" });
        let body = if chunked && !(self.length_wins && length.is_some()) {
            let (body, next) = self.chunks(bytes, at, &mut fields)?;
            at = next;
            body
        } else {
            let length = length.unwrap_or(0);
            let body = bytes.get(at..at + length)?.to_vec();
            at += length;
            body
        };
        let understood =
            Understood { method, target, host: self.find(&fields, "host"), authorization: self.find(&fields, "authorization"), body };
        Some((understood, at))
    }

    fn line<'b>(&self, bytes: &'b [u8], from: usize) -> Option<(&'b [u8], usize)> {
        let rest = bytes.get(from..)?;
        for at in 0..rest.len() {
            match (rest[at], rest.get(at + 1)) {
                (b'\r', Some(b'\n')) => return Some((&rest[..at], from + at + 2)),
                (b'\n', _) if self.bare_lf => return Some((&rest[..at], from + at + 1)),
                (b'\r', Some(_)) if self.bare_cr => return Some((&rest[..at], from + at + 1)),
                _ => {}
            }
        }
        None
    }

    fn request_line(&self, line: &[u8]) -> Option<(String, String)> {
        let text = String::from_utf8_lossy(line).into_owned();
        let parts: Vec<&str> = if self.any_white_space { text.split_whitespace().collect() } else { text.split(' ').collect() };
        Some(((*parts.first()?).to_owned(), (*parts.get(1)?).to_owned()))
    }

    fn field(&self, line: &[u8], fields: &mut Vec<(String, String)>) {
        let mut line = line.to_vec();
        if self.strips_controls {
            line.retain(|b| *b == 0 || *b == b'\t' || *b >= b' ');
        }
        let text = String::from_utf8_lossy(&line).into_owned();
        if self.folds && text.starts_with([' ', '\t']) {
            if let Some((_, value)) = fields.last_mut() {
                value.push_str(text.trim());
            }
            return;
        }
        let Some((name, value)) = text.split_once(':') else { return };
        let mut name = name.to_ascii_lowercase();
        if self.trims_names {
            name = name.trim().to_owned();
        }
        if self.folds_names {
            name = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        }
        let value = if self.cuts_at_nul { value.split('\0').next().unwrap_or("") } else { value };
        fields.push((name, value.trim().to_owned()));
    }

    fn find(&self, fields: &[(String, String)], name: &str) -> Option<String> {
        let mut found = fields.iter().filter(|(n, _)| n == name).map(|(_, v)| v.clone());
        if self.last_wins { found.next_back() } else { found.next() }
    }

    fn number(&self, text: &str, radix: u32) -> Option<usize> {
        let text = if self.loose_numbers { text.trim().trim_start_matches("0x").trim_start_matches('+') } else { text };
        let end = if self.loose_numbers { text.find(|c: char| !c.is_digit(radix)).unwrap_or(text.len()) } else { text.len() };
        usize::from_str_radix(&text[..end], radix).ok()
    }

    fn chunks(&self, bytes: &[u8], mut at: usize, fields: &mut Vec<(String, String)>) -> Option<(Vec<u8>, usize)> {
        let mut body = Vec::new();
        loop {
            let (line, next) = self.line(bytes, at)?;
            at = next;
            let text = String::from_utf8_lossy(line).into_owned();
            let size = self.number(text.split(';').next().unwrap_or(""), 16)?;
            if size == 0 {
                break;
            }
            body.extend_from_slice(bytes.get(at..at + size)?);
            at += size;
            let (rest, next) = self.line(bytes, at)?;
            if !rest.is_empty() {
                return None;
            }
            at = next;
        }
        loop {
            let (line, next) = self.line(bytes, at)?;
            at = next;
            if line.is_empty() {
                return Some((body, at));
            }
            if self.merges_trailers {
                self.field(line, fields);
            }
        }
    }
}
