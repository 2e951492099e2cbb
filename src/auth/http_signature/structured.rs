//! Structured fields (RFC 9651) in their one strict spelling, as signatures cover them. Values are not kept: a parser that
//! writes down what it reads is all that is needed.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::percent_decode;

/// A member of a dictionary: its key, its value where that is not just true, and its parameters.
struct Member {
    key: String,
    value: Option<String>,
    params: String,
}

/// Fields of which it is known that they are dictionaries, for those whose text could be a list as well.
const DICTIONARIES: [&str; 8] = [
    "accept-signature",
    "content-digest",
    "priority",
    "repr-digest",
    "signature",
    "signature-input",
    "want-content-digest",
    "want-repr-digest",
];

/// The strict spelling of a field (RFC 9421 section 2.1.1); `None` where it is no structured field, or could be two that
/// are spelled differently.
pub fn strict(name: &str, text: &str) -> Option<String> {
    let dictionary = Parser::new(text).dictionary().map(|members| written(&members));
    if DICTIONARIES.contains(&name) {
        return dictionary;
    }
    match (dictionary, Parser::new(text).list()) {
        (Some(one), Some(other)) => (one == other).then_some(one),
        (one, other) => one.or(other),
    }
}

/// The strict spelling of one member of a dictionary (RFC 9421 section 2.1.2), or that there is none of this key; `None`
/// where the field is no dictionary.
pub fn member(text: &str, key: &str) -> Option<Option<String>> {
    let members = Parser::new(text).dictionary()?;
    let found = members.iter().find(|member| member.key == key);
    Some(found.map(|member| [member.value.as_deref().unwrap_or("?1"), &member.params].concat()))
}

/// Whether this can be a key of a dictionary (section 3.1.2).
pub fn is_key(text: &str) -> bool {
    let mut parser = Parser::new(text);
    parser.key().is_some() && parser.rest.is_empty()
}

fn written(members: &[Member]) -> String {
    let one = |member: &Member| match &member.value {
        Some(value) => [&member.key, "=", value, &member.params].concat(),
        None => [&*member.key, &member.params].concat(),
    };
    members.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// What is still to be read (RFC 9651 section 4.2).
struct Parser<'t> {
    rest: &'t [u8],
}

impl<'t> Parser<'t> {
    fn new(text: &'t str) -> Self {
        Self { rest: text.trim_matches(' ').as_bytes() }
    }

    fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    fn take(&mut self, byte: u8) -> bool {
        let there = self.peek() == Some(byte);
        if there {
            self.rest = &self.rest[1..];
        }
        there
    }

    fn take_while(&mut self, good: impl Fn(u8) -> bool) -> &'t str {
        let length = self.rest.iter().take_while(|b| good(**b)).count();
        let (taken, rest) = self.rest.split_at(length);
        self.rest = rest;
        // What is taken is always ASCII.
        std::str::from_utf8(taken).unwrap_or_default()
    }

    fn dictionary(&mut self) -> Option<Vec<Member>> {
        let mut members: Vec<Member> = Vec::new();
        if self.rest.is_empty() {
            return Some(members);
        }
        loop {
            let key = self.key()?.to_owned();
            let value = if self.take(b'=') { Some(self.item_or_list()?).filter(|value| value != "?1") } else { None };
            let member = Member { key, value, params: self.params()? };
            match members.iter_mut().find(|other| other.key == member.key) {
                Some(other) => *other = member,
                None => members.push(member),
            }
            if !self.comma()? {
                return Some(members);
            }
        }
    }

    fn list(&mut self) -> Option<String> {
        let mut items = Vec::new();
        if self.rest.is_empty() {
            return Some(String::new());
        }
        loop {
            items.push([self.item_or_list()?, self.params()?].concat());
            if !self.comma()? {
                return Some(items.join(", "));
            }
        }
    }

    /// Whether a comma follows; `None` where something else does, or nothing follows the comma.
    fn comma(&mut self) -> Option<bool> {
        self.take_while(|b| b == b' ' || b == b'\t');
        if self.rest.is_empty() {
            return Some(false);
        }
        let comma = self.take(b',');
        self.take_while(|b| b == b' ' || b == b'\t');
        (comma && !self.rest.is_empty()).then_some(true)
    }

    fn item_or_list(&mut self) -> Option<String> {
        if !self.take(b'(') {
            return self.item();
        }
        let mut items = Vec::new();
        loop {
            self.take_while(|b| b == b' ');
            if self.take(b')') {
                return Some(format!("({})", items.join(" ")));
            }
            items.push([self.item()?, self.params()?].concat());
            if !matches!(self.peek(), Some(b' ' | b')')) {
                return None;
            }
        }
    }

    fn params(&mut self) -> Option<String> {
        let mut params: Vec<(String, String)> = Vec::new();
        while self.take(b';') {
            self.take_while(|b| b == b' ');
            let key = self.key()?.to_owned();
            let value = if self.take(b'=') { self.item()? } else { "?1".into() };
            match params.iter_mut().find(|(other, _)| *other == key) {
                Some((_, other)) => *other = value,
                None => params.push((key, value)),
            }
        }
        let one = |(key, value): &(String, String)| if value == "?1" { format!(";{key}") } else { format!(";{key}={value}") };
        Some(params.iter().map(one).collect())
    }

    fn key(&mut self) -> Option<&'t str> {
        let first = self.peek()?;
        (first.is_ascii_lowercase() || first == b'*')
            .then(|| self.take_while(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-.*".contains(&b)))
    }

    fn item(&mut self) -> Option<String> {
        match self.peek()? {
            b'-' | b'0'..=b'9' => self.number(),
            b'"' => self.string(),
            b'*' | b'a'..=b'z' | b'A'..=b'Z' => {
                Some(self.take_while(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~:/".contains(&b)).to_owned())
            }
            b':' => {
                self.take(b':');
                let text = self.take_while(|b| b.is_ascii_alphanumeric() || b"+/=".contains(&b));
                let bytes = STANDARD.decode(text).ok()?;
                self.take(b':').then(|| format!(":{}:", STANDARD.encode(bytes)))
            }
            b'?' => {
                self.take(b'?');
                let flag = self.take_while(|b| b == b'0' || b == b'1');
                (flag.len() == 1).then(|| format!("?{flag}"))
            }
            b'@' => {
                self.take(b'@');
                self.number().filter(|number| !number.contains('.')).map(|number| format!("@{number}"))
            }
            b'%' => self.display(),
            _ => None,
        }
    }

    /// Sections 4.1.4 and 4.1.5.
    fn number(&mut self) -> Option<String> {
        let sign = if self.take(b'-') { "-" } else { "" };
        let whole = self.take_while(|b| b.is_ascii_digit());
        let digits = match whole.trim_start_matches('0') {
            "" => "0",
            digits => digits,
        };
        if !self.take(b'.') {
            let sign = if digits == "0" { "" } else { sign };
            return (1..=15).contains(&whole.len()).then(|| [sign, digits].concat());
        }
        let fraction = self.take_while(|b| b.is_ascii_digit());
        let short = match fraction.trim_end_matches('0') {
            "" => "0",
            short => short,
        };
        ((1..=12).contains(&whole.len()) && (1..=3).contains(&fraction.len())).then(|| [sign, digits, ".", short].concat())
    }

    fn string(&mut self) -> Option<String> {
        self.take(b'"');
        let mut out = String::from("\"");
        loop {
            out.push_str(self.take_while(|b| (0x20..0x7f).contains(&b) && b != b'"' && b != b'\\'));
            if self.take(b'"') {
                out.push('"');
                return Some(out);
            }
            if !self.take(b'\\') {
                return None;
            }
            match self.peek()? {
                b @ (b'"' | b'\\') => {
                    self.take(b);
                    out.extend(['\\', char::from(b)]);
                }
                _ => return None,
            }
        }
    }

    /// Text beyond ASCII (section 4.1.11).
    fn display(&mut self) -> Option<String> {
        if !self.take(b'%') || !self.take(b'"') {
            return None;
        }
        let written = self.take_while(|b| (0x20..0x7f).contains(&b) && b != b'"');
        let escapes = written.split('%').skip(1);
        let lower = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        let good = escapes.into_iter().all(|escape| escape.len() >= 2 && escape.bytes().take(2).all(lower));
        percent_decode(written.as_bytes()).decode_utf8().ok()?;
        (good && self.take(b'"')).then(|| format!("%\"{written}\""))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // RFC 9421 sections 2.1.1 and 2.1.2.
    #[test]
    fn the_examples_of_rfc_9421_are_spelled_as_there() {
        assert_eq!(strict("example-dict", "  a=1,    b=2;x=1;y=2,   c=(a   b   c)").unwrap(), "a=1, b=2;x=1;y=2, c=(a b c)");
        let text = "  a=1, b=2;x=1;y=2, c=(a   b    c), d";
        for (key, value) in [("a", "1"), ("d", "?1"), ("b", "2;x=1;y=2"), ("c", "(a b c)")] {
            assert_eq!(member(text, key).unwrap().unwrap(), value);
        }
        assert_eq!(member(text, "e"), Some(None));
    }

    #[test]
    fn every_kind_of_item_has_one_spelling() {
        for (text, expected) in [
            ("007", "7"),
            ("-0", "0"),
            ("1.50", "1.5"),
            ("-00.0", "-0.0"),
            ("999999999999999", "999999999999999"),
            ("\"a\\\"b\\\\\"", "\"a\\\"b\\\\\""),
            ("*tok/en:x", "*tok/en:x"),
            (":aGk=:", ":aGk=:"),
            ("?0", "?0"),
            ("@1659578233", "@1659578233"),
            ("%\"f%c3%bc\"", "%\"f%c3%bc\""),
            ("a;b;c=?1;b=2", "a;b=2;c"),
            ("(  1   \"x\";y )", "(1 \"x\";y)"),
            ("", ""),
        ] {
            assert_eq!(strict("x", text).as_deref(), Some(expected), "{text}");
        }
        assert_eq!(strict("x", "a=1, b, a=?1;q").as_deref(), Some("a;q, b"));
    }

    #[test]
    fn what_is_no_structured_field_or_could_be_two_is_refused() {
        for wrong in [
            "a,",
            "a b",
            "(a",
            "\"a",
            "\"\\n\"",
            "1.",
            "1.2345",
            "1234567890123456",
            "?2",
            ":a:",
            "@1.5",
            "%\"%C3\"",
            "%\"%c3\"",
            "ü",
            "=1",
            "a;B",
            "a=",
            "a==1",
            "(1,2)",
            "a, a",
        ] {
            assert_eq!(strict("x", wrong), None, "{wrong}");
        }
        assert_eq!(strict("priority", "u, u").as_deref(), Some("u"));
        assert_eq!(member("(a b)", "a"), None);
        assert!(is_key("a-1.*") && !is_key("A") && !is_key("") && !is_key("a b"));
    }
}
