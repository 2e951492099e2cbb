//! Sets one field of a form, or finds one in a query (WHATWG URL, `application/x-www-form-urlencoded`). The bytes of
//! all other fields stay.

use percent_encoding::percent_decode;

/// Whether a `name=value` piece has this name once decoded, whether or not `+` is read as a space.
pub fn is_named(piece: &[u8], name: &str) -> bool {
    let end = memchr::memchr(b'=', piece).unwrap_or(piece.len());
    let written = &piece[..end];
    let says = |text: &[u8]| percent_decode(text).eq(name.bytes());
    says(written) || (written.contains(&b'+') && says(&spaced(written)))
}

fn spaced(text: &[u8]) -> Vec<u8> {
    text.iter().map(|b| if *b == b'+' { b' ' } else { *b }).collect()
}

/// The form with `pair` (an encoded `name=value`) in place of the first field called `name`, and without the others
/// of that name; at the end where there was none.
pub fn set(text: &[u8], name: &str, pair: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + pair.len() + 1);
    let mut placed = false;
    for (index, piece) in text.split(|b| *b == b'&').enumerate() {
        let ours = is_named(piece, name);
        if ours && placed {
            continue;
        }
        if index > 0 {
            out.push(b'&');
        }
        out.extend_from_slice(if ours { pair.as_bytes() } else { piece });
        placed |= ours;
    }
    if !placed {
        if !out.is_empty() && !out.ends_with(b"&") {
            out.push(b'&');
        }
        out.extend_from_slice(pair.as_bytes());
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn put(text: &str) -> String {
        String::from_utf8(set(text.as_bytes(), "api key", "api%20key=S")).unwrap()
    }

    #[test]
    fn a_new_field_goes_to_the_end() {
        assert_eq!(put(""), "api%20key=S");
        assert_eq!(put("a=1"), "a=1&api%20key=S");
        assert_eq!(put("a=1&"), "a=1&api%20key=S");
        assert_eq!(put("&"), "&api%20key=S");
    }

    #[test]
    fn the_callers_field_is_replaced_in_any_spelling_and_only_one_stays() {
        assert_eq!(put("x=1&api+key=a&y=2&api%20key=b&%61pi%20%6bey&z"), "x=1&api%20key=S&y=2&z");
    }

    #[test]
    fn a_plus_may_mean_a_plus() {
        assert!(is_named(b"a+b=1", "a+b"));
        assert!(is_named(b"a%2Bb=1", "a+b"));
        assert!(!is_named(b"a%2Bb=1", "a b"));
    }

    #[test]
    fn other_fields_keep_their_bytes() {
        assert_eq!(put("a=%zz&&=x&b=+%2b&apikey=1&api%20key2=3"), "a=%zz&&=x&b=+%2b&apikey=1&api%20key2=3&api%20key=S");
    }

    proptest! {
        #[test]
        fn every_other_field_keeps_its_bytes_and_the_name_stands_once(text in "([a-c=+%26 ]|api key|api\\+key|api%20key|&){0,12}") {
            let out = put(&text);
            let others = |text: &str| text.split('&').filter(|p| !p.is_empty() && !is_named(p.as_bytes(), "api key")).map(str::to_owned).collect::<Vec<_>>();
            prop_assert_eq!(others(&text), others(&out));
            prop_assert_eq!(out.split('&').filter(|p| is_named(p.as_bytes(), "api key")).count(), 1);
        }
    }
}
