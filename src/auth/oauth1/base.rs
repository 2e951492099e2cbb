//! The signature base string (RFC 5849 section 3.4.1): method, address and every parameter, wherever it stands.

use std::borrow::Cow;

use percent_encoding::percent_decode;

use crate::uri::encode_query;

/// Parameters of the protocol and of the request, decoded.
pub type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

/// The pairs of a query or of a form, decoded as forms are (section 3.4.1.3.1).
pub fn pairs(text: &[u8]) -> impl Iterator<Item = (Vec<u8>, Vec<u8>)> + '_ {
    text.split(|b| *b == b'&').filter(|piece| !piece.is_empty()).map(|piece| {
        let (name, value) = match memchr::memchr(b'=', piece) {
            Some(at) => (&piece[..at], &piece[at + 1..]),
            None => (piece, &b""[..]),
        };
        (decoded(name), decoded(value))
    })
}

fn decoded(text: &[u8]) -> Vec<u8> {
    let spaced: Vec<u8> = text.iter().map(|b| if *b == b'+' { b' ' } else { *b }).collect();
    percent_decode(&spaced).collect()
}

/// The base string of a request. `path` is as it is sent; `pairs` are all parameters but `realm` and `oauth_signature`.
pub fn string(method: &str, scheme: &str, authority: &str, path: &str, pairs: &Pairs) -> String {
    let mut encoded: Vec<(String, String)> = pairs.iter().map(|(name, value)| (encode(name), encode(value))).collect();
    encoded.sort_unstable();
    let normal = encoded.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&");
    let address = format!("{scheme}://{}{path}", host(scheme, authority));
    [&method.to_ascii_uppercase(), "&", &encode_query(&address), "&", &encode_query(&normal)].concat()
}

/// The authority in small letters and without the port that its scheme implies (section 3.4.1.2).
fn host(scheme: &str, authority: &str) -> String {
    let lower = authority.to_ascii_lowercase();
    let port = if scheme == "https" { ":443" } else { ":80" };
    lower.strip_suffix(port).map(str::to_owned).unwrap_or(lower)
}

/// Percent-encodes bytes: everything but unreserved, in capitals (section 3.6).
pub fn encode(bytes: &[u8]) -> String {
    match String::from_utf8_lossy(bytes) {
        Cow::Borrowed(text) => encode_query(text),
        Cow::Owned(_) => bytes
            .iter()
            .map(|b| match b {
                b if b.is_ascii_alphanumeric() || b"-._~".contains(b) => char::from(*b).to_string(),
                b => format!("%{b:02X}"),
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // RFC 5849 section 3.4.1.1.
    #[test]
    fn the_base_string_is_that_of_the_rfc() {
        let oauth = "oauth_consumer_key=9djdj82h48djs9d2&oauth_token=kkk9d7dh3k39sjv7&oauth_signature_method=HMAC-SHA1\
                     &oauth_timestamp=137131201&oauth_nonce=7d8f3e4a";
        let all: Pairs = [&b"b5=%3D%253D&a3=a&c%40=&a2=r%20b"[..], b"c2&a3=2+q", oauth.as_bytes()].into_iter().flat_map(pairs).collect();
        let expected = "POST&http%3A%2F%2Fexample.com%2Frequest&a2%3Dr%2520b%26a3%3D2%2520q%26a3%3Da%26b5%3D%253D%25253D%26c%2540%3D%26c2%3D\
                        %26oauth_consumer_key%3D9djdj82h48djs9d2%26oauth_nonce%3D7d8f3e4a%26oauth_signature_method%3DHMAC-SHA1\
                        %26oauth_timestamp%3D137131201%26oauth_token%3Dkkk9d7dh3k39sjv7";
        assert_eq!(string("post", "http", "EXAMPLE.COM:80", "/request", &all), expected);
    }

    // RFC 5849 section 3.4.1.2.
    #[test]
    fn only_the_port_that_the_scheme_implies_goes() {
        assert_eq!(host("https", "www.Example.net:8080"), "www.example.net:8080");
        assert_eq!(host("https", "example.com:443"), "example.com");
        assert_eq!(host("http", "example.com:443"), "example.com:443");
        assert_eq!(host("http", "[::1]:80"), "[::1]");
    }

    #[test]
    fn bytes_that_are_no_text_are_encoded_as_they_are() {
        assert_eq!(encode(b"a \xff~"), "a%20%FF~");
        assert_eq!(pairs(b"%ff=%zz&&=x&y").collect::<Vec<_>>().len(), 3);
    }
}
