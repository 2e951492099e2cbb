//! Percent-encoding for a place (RFC 3986, ruling H16). What is already in a URL is never touched by these.

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

/// Text as part of a path segment: everything but `pchar` is encoded, so `:` stays and `/` does not.
pub fn encode_segment(text: &str) -> String {
    utf8_percent_encode(text, SEGMENT).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_keeps_colons_and_loses_slashes() {
        assert_eq!(encode_segment("a:b/c?d"), "a:b%2Fc%3Fd");
    }

    #[test]
    fn a_query_keeps_only_unreserved() {
        assert_eq!(encode_query("a b&c=d+~"), "a%20b%26c%3Dd%2B~");
    }
}
