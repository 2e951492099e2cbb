//! A strict reader of XML 1.0 that keeps nothing but its place: tags, text, and where they stand. There are no document
//! types, so no entities but the five of the standard, nothing external, and nothing that grows while it is read.
//!
//! It does not judge names of elements beyond what tells them apart, nor namespaces.

use std::borrow::Cow;
use std::ops::Range;

/// Deepest nesting of elements.
pub const DEPTH_MAX: usize = 64;

/// Why a text is not read as XML, and at which byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// What is wrong. Holds nothing of the text.
    pub why: &'static str,
    /// Where.
    pub at: usize,
}

/// Something in a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event<'x> {
    /// A start tag.
    Start {
        /// Its name, prefix included.
        name: &'x str,
        /// The bytes of its attributes.
        attributes: Range<usize>,
        /// The whole tag, from `<` to behind `>`.
        tag: Range<usize>,
        /// Whether it is its own end: `<a/>`.
        empty: bool,
    },
    /// The end tag that belongs to the last open start tag.
    End {
        /// The whole tag.
        tag: Range<usize>,
    },
    /// Text, with its references unread.
    Text(&'x str),
    /// What stands in a CDATA section, as it is.
    Literal(&'x str),
}

/// Reads a document event by event. After the last one its form has been judged whole: one root, all tags closed.
#[derive(Debug)]
pub struct Scanner<'x> {
    text: &'x str,
    at: usize,
    open: Vec<&'x str>,
    rooted: bool,
}

impl<'x> Scanner<'x> {
    /// At the beginning of a document.
    pub fn new(text: &'x str) -> Self {
        let at = if text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
        Self { text, at, open: Vec::new(), rooted: false }
    }

    /// Names of the elements that are open, outermost first.
    pub fn open(&self) -> &[&'x str] {
        &self.open
    }

    /// The next event, or `None` at the end.
    ///
    /// # Errors
    /// Where it is not well-formed, or holds a document type.
    pub fn event(&mut self) -> Result<Option<Event<'x>>, Wrong> {
        loop {
            let rest = &self.text[self.at..];
            if rest.is_empty() {
                return match (self.open.is_empty(), self.rooted) {
                    (true, true) => Ok(None),
                    (true, false) => self.wrong("there is no element"),
                    (false, _) => self.wrong("an element is not closed"),
                };
            }
            if !rest.starts_with('<') {
                let text = self.characters()?;
                if self.open.is_empty() {
                    continue;
                }
                return Ok(Some(Event::Text(text)));
            }
            if rest.starts_with("<!--") {
                self.skip("<!--", "-->")?;
            } else if rest.starts_with("<?") {
                self.skip("<?", "?>")?;
            } else if rest.starts_with("<![CDATA[") {
                if self.open.is_empty() {
                    return self.wrong("there is text outside the root element");
                }
                let inner = self.skip("<![CDATA[", "]]>")?;
                return Ok(Some(Event::Literal(&self.text[inner])));
            } else if rest.starts_with("<!") {
                return self.wrong("document types are refused");
            } else if rest.starts_with("</") {
                return self.end().map(Some);
            } else {
                return self.start().map(Some);
            }
        }
    }

    fn wrong<T>(&self, why: &'static str) -> Result<T, Wrong> {
        Err(Wrong { why, at: self.at })
    }

    fn skip(&mut self, open: &str, close: &str) -> Result<Range<usize>, Wrong> {
        let from = self.at + open.len();
        let Some(length) = self.text[from..].find(close) else { return self.wrong("something opens and does not close") };
        self.at = from + length + close.len();
        Ok(from..from + length)
    }

    fn characters(&mut self) -> Result<&'x str, Wrong> {
        let rest = &self.text[self.at..];
        let text = &rest[..rest.find('<').unwrap_or(rest.len())];
        if self.open.is_empty() && !text.bytes().all(|b| b.is_ascii_whitespace()) {
            return self.wrong("there is text outside the root element");
        }
        if text.contains("]]>") {
            return self.wrong("`]]>` stands outside a CDATA section");
        }
        self.at += text.len();
        Ok(text)
    }

    fn start(&mut self) -> Result<Event<'x>, Wrong> {
        if self.rooted && self.open.is_empty() {
            return self.wrong("there is a second root element");
        }
        if self.open.len() >= DEPTH_MAX {
            return self.wrong("elements are nested too deeply");
        }
        let from = self.at;
        let end = self.close_of_tag(from)?;
        let empty = self.text[..end].ends_with('/');
        let inside = &self.text[from + 1..end - usize::from(empty)];
        let name = &inside[..inside.find(|c: char| c.is_ascii_whitespace()).unwrap_or(inside.len())];
        self.named(name)?;
        let attributes = from + 1 + name.len()..from + 1 + inside.len();
        self.at = end + 1;
        self.rooted = true;
        if !empty {
            self.open.push(name);
        }
        Ok(Event::Start { name, attributes, tag: from..end + 1, empty })
    }

    /// Where the `>` of a tag stands; one inside quotes is no end.
    fn close_of_tag(&self, from: usize) -> Result<usize, Wrong> {
        let mut quote = None;
        for (at, byte) in self.text.bytes().enumerate().skip(from + 1) {
            match (quote, byte) {
                (None, b'>') => return Ok(at),
                (None, b'"' | b'\'') => quote = Some(byte),
                (Some(open), byte) if byte == open => quote = None,
                (_, b'<') => break,
                _ => {}
            }
        }
        self.wrong("a tag does not end")
    }

    fn end(&mut self) -> Result<Event<'x>, Wrong> {
        let from = self.at;
        let inner = self.skip("</", ">")?;
        let name = self.text[inner].trim_ascii_end();
        match self.open.pop() {
            Some(open) if open == name => Ok(Event::End { tag: from..self.at }),
            _ => Err(Wrong { why: "an end tag does not match", at: from }),
        }
    }

    fn named(&self, name: &str) -> Result<(), Wrong> {
        let begins = |c: char| c.is_alphabetic() || "_:".contains(c);
        let goes_on = |c: char| c.is_alphanumeric() || "_:.-\u{b7}".contains(c);
        if name.starts_with(begins) && name.chars().all(goes_on) { Ok(()) } else { self.wrong("this is no name of an element") }
    }
}

/// A name without its prefix.
pub fn local(name: &str) -> &str {
    name.rsplit_once(':').map_or(name, |(_, local)| local)
}

/// The attributes of a start tag: names with their prefix, values with their references read.
///
/// # Errors
/// Where they are not well-formed.
pub fn attributes(text: &str) -> Result<Vec<(&str, Cow<'_, str>)>, &'static str> {
    const WRONG: &str = "an attribute is not well-formed";
    let mut found: Vec<(&str, Cow<'_, str>)> = Vec::new();
    let mut rest = text.trim_ascii_start();
    while !rest.is_empty() {
        let (name, behind) = rest.split_once('=').ok_or(WRONG)?;
        let name = name.trim_ascii_end();
        let behind = behind.trim_ascii_start();
        let quote = behind.chars().next().filter(|c| "\"'".contains(*c)).ok_or(WRONG)?;
        let (value, after) = behind[1..].split_once(quote).ok_or(WRONG)?;
        let bad = name.is_empty() || name.contains(|c: char| c.is_ascii_whitespace() || "\"'<>/".contains(c));
        if bad || found.iter().any(|(n, _)| *n == name) || !(after.is_empty() || after.starts_with(|c: char| c.is_ascii_whitespace())) {
            return Err(WRONG);
        }
        found.push((name, unescaped(value)?));
        rest = after.trim_ascii_start();
    }
    Ok(found)
}

/// Text with its references read (section 4.1).
///
/// # Errors
/// For a reference that is none of the five, or names no character.
pub fn unescaped(text: &str) -> Result<Cow<'_, str>, &'static str> {
    const WRONG: &str = "an entity is not one of lt, gt, amp, quot and apos";
    if !text.contains('&') {
        return Ok(Cow::Borrowed(text));
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once('&') {
        out.push_str(before);
        let (name, after) = behind.split_once(';').ok_or(WRONG)?;
        out.push(match name {
            "lt" => '<',
            "gt" => '>',
            "amp" => '&',
            "quot" => '"',
            "apos" => '\'',
            _ => {
                let number = name.strip_prefix('#').ok_or(WRONG)?;
                let (digits, base) = number.strip_prefix('x').map_or((number, 10), |hex| (hex, 16));
                let plain = !digits.is_empty() && digits.len() <= 7 && digits.chars().all(|c| c.is_digit(base));
                let code = u32::from_str_radix(digits, base).ok().filter(|_| plain).ok_or(WRONG)?;
                char::from_u32(code).filter(|c| *c >= ' ' || "\t\n\r".contains(*c)).ok_or(WRONG)?
            }
        });
        rest = after;
    }
    out.push_str(rest);
    Ok(Cow::Owned(out))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(text: &str) -> Result<Vec<String>, Wrong> {
        let mut scanner = Scanner::new(text);
        let mut events = Vec::new();
        while let Some(event) = scanner.event()? {
            events.push(match event {
                Event::Start { name, attributes, empty, .. } => {
                    format!("<{name}|{}{}", text[attributes].trim(), if empty { "/" } else { "" })
                }
                Event::End { .. } => ">".to_owned(),
                Event::Text(text) => format!("t:{text}"),
                Event::Literal(text) => format!("c:{text}"),
            });
        }
        Ok(events)
    }

    #[test]
    fn a_document_is_read_event_by_event() {
        let text = "\u{feff}<?xml version=\"1.0\"?>\n<!-- <x> -->\n<a b='>' c=\"1\"><s:d/>t&amp;<![CDATA[<&]]></a >\n";
        assert_eq!(shown(text).unwrap(), ["<a|b='>' c=\"1\"", "<s:d|/", "t:t&amp;", "c:<&", ">"]);
    }

    #[test]
    fn what_is_not_well_formed_is_refused() {
        for text in [
            "",
            " ",
            "x",
            "<a>",
            "<a></b>",
            "</a>",
            "<a/><b/>",
            "<a/>x",
            "<a",
            "<a b='>",
            "<1/>",
            "< a/>",
            "<a>]]></a>",
            "<a><![CDATA[</a>",
            "<a><!-- </a>",
            "<!DOCTYPE a [<!ENTITY x 'y'>]><a>&x;</a>",
            "<a><b></a></b>",
        ] {
            assert!(shown(text).is_err(), "{text}");
        }
        assert_eq!(shown(&format!("{}<a/>", " <!-- -->".repeat(100_000))).unwrap(), ["<a|/"]);
    }

    #[test]
    fn nesting_is_bounded() {
        let nested = |levels: usize| format!("{}{}", "<a>".repeat(levels), "</a>".repeat(levels));
        assert!(shown(&nested(DEPTH_MAX)).is_ok());
        assert!(shown(&nested(DEPTH_MAX + 1)).is_err());
    }

    #[test]
    fn references_are_the_five_and_numbers() {
        assert_eq!(unescaped("&lt;&#65;&#x42;&amp;lt;&quot;&apos;&gt;").unwrap(), "<AB&lt;\"'>");
        for wrong in ["&x;", "&", "&lt", "&#;", "&#x;", "&#0;", "&#xD800;", "&#99999999;", "&#+1;"] {
            assert!(unescaped(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn attributes_are_read_with_their_values() {
        assert_eq!(attributes(" a='1' s:b = \"&lt;2\" ").unwrap(), [("a", "1".into()), ("s:b", Cow::from("<2"))]);
        for wrong in ["a", "a=1", "a='1", "a='1'b='2'", "a='1' a='2'", "='1'", "a b='1'"] {
            assert!(attributes(wrong).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[<>/!\\[\\]a= '\"&;#?ü-]{0,40}") {
            let _ = shown(&text);
        }
    }
}
