//! Encoding for the place where a value goes, so that no text can become structure (ruling H16): path, query, form, XML.
//! JSON is written by [`crate::expr::Value::write_json`], and a header has no encoding: it must be legal as it is.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use zeroize::Zeroizing;

/// Everything but RFC 3986 `unreserved`.
pub const STRICT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Everything but what `application/x-www-form-urlencoded` leaves alone (WHATWG URL section 5.2), and the space.
const FORM: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'*').remove(b' ');

/// What opens a CDATA section.
const SECTION: &str = "<![CDATA[";

/// As a name or a value in a query.
pub fn query(text: &str) -> Cow<'_, str> {
    utf8_percent_encode(text, STRICT).into()
}

/// As a part of a path segment: `:` and its like stay, `/` does not.
pub fn segment(text: &str) -> Cow<'_, str> {
    crate::uri::encode_segment(text).into()
}

/// As a name or a value in a form: a space is `+`.
pub fn form(text: &str) -> Cow<'_, str> {
    let encoded: Cow<'_, str> = utf8_percent_encode(text, FORM).into();
    if encoded.contains(' ') { encoded.replace(' ', "+").into() } else { encoded }
}

/// As character data or the value of an attribute in XML.
///
/// # Errors
/// For characters that XML 1.0 cannot hold at all (section 2.2).
pub fn xml(text: &str) -> Result<Cow<'_, str>, &'static str> {
    let illegal = |c: char| (c < ' ' && !"\t\n\r".contains(c)) || c == '\u{fffe}' || c == '\u{ffff}';
    if text.contains(illegal) {
        return Err("it holds a control character, which no XML document can hold");
    }
    // A carriage return would be read back as a line feed (section 2.11).
    let special = |c: char| "<>&\"'\r".contains(c);
    if !text.contains(special) {
        return Ok(Cow::Borrowed(text));
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&apos;"),
            '\r' => out.push_str("&#13;"),
            c => out.push(c),
        }
    }
    Ok(Cow::Owned(out))
}

/// Appends text to a document as character data. In a CDATA section nothing could be escaped, and what stands before and
/// behind would be read together with it: so it stands between two sections.
///
/// # Errors
/// As [`xml`].
pub fn append_xml(document: &mut String, text: &str) -> Result<(), &'static str> {
    let escaped = Zeroizing::new(xml(text)?.into_owned());
    if in_section(document) {
        document.extend(["]]>", &escaped, SECTION]);
    } else {
        document.push_str(&escaped);
    }
    Ok(())
}

/// Whether a CDATA section is open at the end.
fn in_section(text: &str) -> bool {
    text.rfind(SECTION).is_some_and(|open| !text[open..].contains("]]>"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_place_has_its_own_encoding() {
        let text = "a:b/c d&e=f+g~*";
        assert_eq!(query(text), "a%3Ab%2Fc%20d%26e%3Df%2Bg~%2A");
        assert_eq!(segment(text), "a:b%2Fc%20d&e=f+g~*");
        assert_eq!(form(text), "a%3Ab%2Fc+d%26e%3Df%2Bg%7E*");
        assert_eq!(xml("<a b=\"c\" d='e'>&]]>\r\n").unwrap(), "&lt;a b=&quot;c&quot; d=&apos;e&apos;&gt;&amp;]]&gt;&#13;\n");
    }

    #[test]
    fn xml_refuses_what_it_cannot_hold() {
        for wrong in ["\0", "a\u{1}", "\u{b}", "\u{ffff}"] {
            assert!(xml(wrong).is_err(), "{wrong:?}");
        }
        assert_eq!(xml("ü\t\n").unwrap(), "ü\t\n");
    }

    #[test]
    fn values_beside_each_other_in_a_section_do_not_end_it() {
        let put = |pieces: &[(&str, &str)]| {
            let mut out = String::new();
            for (written, value) in pieces {
                out.push_str(written);
                append_xml(&mut out, value).unwrap();
            }
            out
        };
        assert_eq!(put(&[("<a><![CDATA[", "]]"), ("", "><b/>")]), "<a><![CDATA[]]>]]<![CDATA[]]>&gt;&lt;b/&gt;<![CDATA[");
        assert_eq!(put(&[("<a><![CDATA[x]]></a><b>", "]]>\r")]), "<a><![CDATA[x]]></a><b>]]&gt;&#13;");
        assert_eq!(put(&[("<a>", "<![CDATA["), ("", "<b/>")]), "<a>&lt;![CDATA[&lt;b/&gt;");
        assert!(append_xml(&mut String::new(), "\0").is_err());
    }

    proptest! {
        #[test]
        fn what_is_encoded_reads_back(text in any::<String>()) {
            let decode = |text: &str| percent_encoding::percent_decode_str(text).decode_utf8().unwrap().into_owned();
            prop_assert_eq!(decode(&query(&text)), text.clone());
            prop_assert_eq!(decode(&segment(&text)), text.clone());
            prop_assert_eq!(decode(&form(&text).replace('+', " ")), text);
        }

        #[test]
        fn nothing_encoded_can_be_structure(text in any::<String>()) {
            prop_assert!(!query(&text).contains(['&', '=', '#', '?', '/', '+', ' ']));
            prop_assert!(!segment(&text).contains(['/', '?', '#', ' ']));
            prop_assert!(!form(&text).contains(['&', '=', '#', '?', '/', ' ']));
            if let Ok(xml) = xml(&text) {
                prop_assert!(!xml.contains(['<', '>', '"', '\'']));
            }
        }
    }
}
