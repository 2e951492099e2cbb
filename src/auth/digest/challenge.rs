//! Reads challenges and their parameters (RFC 9110 sections 5.6.4 and 11.6.1), and of them what Digest says (RFC 7616
//! section 3.3). Several challenges may share one field, in which a comma separates both challenges and parameters.
//!
//! What cannot be read in one way only is no challenge.

use http::HeaderMap;
use http::header::{HeaderName, WWW_AUTHENTICATE};

use super::hash::Hash;

/// Most challenges that are looked at in one answer.
const MOST_CHALLENGES: usize = 16;
/// Most parameters of one.
const MOST_PARAMS: usize = 32;

const AUTHENTICATION_INFO: HeaderName = HeaderName::from_static("authentication-info");

/// What a server offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// The realm, without quotes and escapes.
    pub realm: Vec<u8>,
    /// The nonce.
    pub nonce: Vec<u8>,
    /// What goes back as it came.
    pub opaque: Option<Vec<u8>>,
    /// The algorithm as it was spelt; a server of RFC 2069 names none.
    pub algorithm: Option<Vec<u8>>,
    /// The hash function.
    pub hash: Hash,
    /// Whether the secret is bound to the first nonces (`-sess`).
    pub session: bool,
    /// What may be protected.
    pub quality: Quality,
    /// The nonce was too old, and nothing else was wrong.
    pub stale: bool,
    /// The user name is sent as a hash.
    pub userhash: bool,
    /// The server reads user names in UTF-8.
    pub utf8: bool,
}

/// `qop`: what the response protects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quality {
    /// The server knows none of it (RFC 2069).
    Legacy,
    /// The request line.
    Auth,
    /// The body too.
    Integrity,
    /// Either.
    Both,
}

/// The strongest Digest challenge of an answer that this build can meet; the first of equals, as the server ranks them.
pub fn strongest(headers: &HeaderMap) -> Option<Challenge> {
    let mut best: Option<Challenge> = None;
    let fields = headers.get_all(WWW_AUTHENTICATE).iter().flat_map(|field| challenges(field.as_bytes()));
    for (scheme, params) in fields.take(MOST_CHALLENGES) {
        let Some(one) = scheme.eq_ignore_ascii_case(b"digest").then(|| Challenge::read(&params)).flatten() else { continue };
        if best.as_ref().is_none_or(|best| one.hash > best.hash) {
            best = Some(one);
        }
    }
    best
}

/// The nonce that the server wants next (RFC 7616 section 3.5).
pub fn next_nonce(headers: &HeaderMap) -> Option<Vec<u8>> {
    let field = headers.get(AUTHENTICATION_INFO)?.as_bytes();
    let mut reader = Reader(field);
    let params = reader.params();
    Params(params).get(b"nextnonce").filter(|nonce| !nonce.is_empty()).map(<[u8]>::to_vec)
}

impl Challenge {
    fn read(params: &Params) -> Option<Self> {
        let algorithm = params.get(b"algorithm");
        let (hash, session) = Hash::named(algorithm.unwrap_or(b"MD5"))?;
        let quality = match params.get(b"qop") {
            None => Quality::Legacy,
            Some(offered) => quality(offered)?,
        };
        // Without a quality there is no client nonce to bind a session to (RFC 2617 section 3.2.2.2).
        if session && quality == Quality::Legacy {
            return None;
        }
        let says = |name: &[u8], word: &[u8]| params.get(name).is_some_and(|value| value.eq_ignore_ascii_case(word));
        Some(Self {
            realm: params.get(b"realm")?.to_vec(),
            nonce: params.get(b"nonce").filter(|nonce| !nonce.is_empty())?.to_vec(),
            opaque: params.get(b"opaque").map(<[u8]>::to_vec),
            algorithm: algorithm.map(<[u8]>::to_vec),
            hash,
            session,
            quality,
            stale: says(b"stale", b"true"),
            userhash: says(b"userhash", b"true"),
            utf8: says(b"charset", b"utf-8"),
        })
    }
}

fn quality(offered: &[u8]) -> Option<Quality> {
    let offers = |word: &[u8]| offered.split(|b| *b == b',').any(|one| one.trim_ascii().eq_ignore_ascii_case(word));
    match (offers(b"auth"), offers(b"auth-int")) {
        (true, true) => Some(Quality::Both),
        (true, false) => Some(Quality::Auth),
        (false, true) => Some(Quality::Integrity),
        (false, false) => None,
    }
}

/// Parameters of one challenge. A name that stands there twice makes it unreadable.
#[derive(Debug)]
struct Params(Option<Vec<(Vec<u8>, Vec<u8>)>>);

impl Params {
    fn get(&self, name: &[u8]) -> Option<&[u8]> {
        let all = self.0.as_ref()?;
        all.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_slice())
    }
}

/// The challenges of one field: schemes with their parameters.
fn challenges(field: &[u8]) -> Vec<(Vec<u8>, Params)> {
    let mut reader = Reader(field);
    let mut all = Vec::new();
    while all.len() < MOST_CHALLENGES {
        reader.skip(|b| matches!(b, b',' | b' ' | b'\t'));
        let scheme = reader.token();
        if scheme.is_empty() {
            break;
        }
        let scheme = scheme.to_vec();
        reader.skip(|b| matches!(b, b' ' | b'\t'));
        if reader.token68() {
            all.push((scheme, Params(Some(Vec::new()))));
            continue;
        }
        let params = reader.params();
        let broken = params.is_none();
        all.push((scheme, Params(params)));
        if broken {
            break;
        }
    }
    all
}

/// What is left to read.
struct Reader<'f>(&'f [u8]);

impl<'f> Reader<'f> {
    fn skip(&mut self, what: impl Fn(u8) -> bool) {
        let end = self.0.iter().position(|b| !what(*b)).unwrap_or(self.0.len());
        self.0 = &self.0[end..];
    }

    /// A token (RFC 9110 section 5.6.2); empty where none stands here.
    fn token(&mut self) -> &'f [u8] {
        let legal = |b: &u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b);
        let end = self.0.iter().position(|b| !legal(b)).unwrap_or(self.0.len());
        let (token, rest) = self.0.split_at(end);
        self.0 = rest;
        token
    }

    /// Skips a token68 that is all that a challenge says (`Negotiate YII=`).
    fn token68(&mut self) -> bool {
        let legal = |b: &u8| b.is_ascii_alphanumeric() || b"-._~+/".contains(b);
        let text = self.0.iter().position(|b| !legal(b)).unwrap_or(self.0.len());
        let padding = self.0[text..].iter().position(|b| *b != b'=').unwrap_or(self.0.len() - text);
        let rest = self.0[text + padding..].trim_ascii_start();
        let whole = text > 0 && (rest.is_empty() || rest[0] == b',');
        if whole {
            self.0 = rest;
        }
        whole
    }

    /// `name=value` pairs with commas between them, up to the next scheme or the end. `None` where they are malformed.
    fn params(&mut self) -> Option<Vec<(Vec<u8>, Vec<u8>)>> {
        let mut all: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        loop {
            self.skip(|b| matches!(b, b',' | b' ' | b'\t'));
            let before = self.0;
            let name = self.token();
            self.skip(|b| matches!(b, b' ' | b'\t'));
            if self.0.first() != Some(&b'=') || name.is_empty() {
                // The next challenge, or the end, or what nobody can read.
                self.0 = before;
                return (before.is_empty() || !name.is_empty()).then_some(all);
            }
            self.0 = &self.0[1..];
            self.skip(|b| matches!(b, b' ' | b'\t'));
            let value = if self.0.first() == Some(&b'"') { self.quoted()? } else { self.token().to_vec() };
            if all.len() == MOST_PARAMS || all.iter().any(|(n, _)| n.eq_ignore_ascii_case(name)) {
                return None;
            }
            all.push((name.to_vec(), value));
            self.skip(|b| matches!(b, b' ' | b'\t'));
            if !matches!(self.0.first(), None | Some(b',')) {
                return None;
            }
        }
    }

    /// A quoted string without its quotes and escapes; `None` if it does not end.
    fn quoted(&mut self) -> Option<Vec<u8>> {
        let mut value = Vec::new();
        let mut rest = self.0.get(1..)?;
        loop {
            match rest {
                [b'"', after @ ..] => {
                    self.0 = after;
                    return Some(value);
                }
                [b'\\', escaped, after @ ..] => {
                    value.push(*escaped);
                    rest = after;
                }
                [byte, after @ ..] => {
                    value.push(*byte);
                    rest = after;
                }
                [] => return None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn best(fields: &[&str]) -> Option<Challenge> {
        let mut headers = HeaderMap::new();
        for field in fields {
            headers.append(WWW_AUTHENTICATE, HeaderValue::from_bytes(field.as_bytes()).unwrap());
        }
        strongest(&headers)
    }

    // RFC 7616 section 3.9.1.
    #[test]
    fn of_the_two_challenges_of_the_rfc_the_stronger_is_taken() {
        let field = |algorithm: &str| {
            format!(
                "Digest realm=\"http-auth@example.org\", qop=\"auth, auth-int\", algorithm={algorithm}, \
                 nonce=\"7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v\", opaque=\"FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS\""
            )
        };
        for fields in [vec![field("MD5"), field("SHA-256")], vec![format!("{}, {}", field("SHA-256"), field("MD5"))]] {
            let fields: Vec<&str> = fields.iter().map(String::as_str).collect();
            let challenge = best(&fields).unwrap();
            assert_eq!((challenge.hash, challenge.quality), (Hash::Sha256, Quality::Both));
            assert_eq!(challenge.realm, b"http-auth@example.org");
        }
    }

    #[test]
    fn other_schemes_in_the_same_field_are_passed_over() {
        let digest = "Digest realm=\"a, b\", nonce=n";
        for field in [
            format!("Basic realm=\"x\", {digest}"),
            format!("Negotiate, {digest}, Bearer"),
            format!("Negotiate YII/+=, ,{digest} , NTLM TlRM=="),
            format!("Basic realm=\"x, Digest nonce=\\\"\", charset=\"UTF-8\",{digest}"),
            digest.replace("Digest", "dIGEST"),
        ] {
            let challenge = best(&[&field]).unwrap_or_else(|| panic!("{field}"));
            assert_eq!((challenge.realm.as_slice(), challenge.nonce.as_slice()), (&b"a, b"[..], &b"n"[..]), "{field}");
        }
    }

    #[test]
    fn quotes_and_escapes_are_taken_off() {
        let challenge =
            best(&[r#"Digest realm = "a \"b\" \\ c" ,nonce="n",stale=TRUE, userhash="true", charset="utf-8", opaque="""#]).unwrap();
        assert_eq!(challenge.realm, br#"a "b" \ c"#);
        assert_eq!((challenge.stale, challenge.userhash, challenge.utf8), (true, true, true));
        assert_eq!((challenge.opaque, challenge.quality), (Some(Vec::new()), Quality::Legacy));
    }

    #[test]
    fn what_cannot_be_met_or_read_in_one_way_is_no_challenge() {
        for field in [
            "",
            "Digest",
            "Basic realm=\"x\"",
            "Digest realm=\"x\"",
            "Digest nonce=\"x\"",
            "Digest realm=\"x\", nonce=\"\"",
            "Digest realm=\"x\", nonce=\"n\", algorithm=SHA-1",
            "Digest realm=\"x\", nonce=\"n\", algorithm=MD5-sess",
            "Digest realm=\"x\", nonce=\"n\", qop=\"auth-conf\"",
            "Digest realm=\"x\", nonce=\"n\", nonce=\"m\"",
            "Digest realm=\"x\", nonce=\"n",
            "Digest realm=\"x\" nonce=\"n\"",
            "Digest realm=\"x\"; nonce=\"n\"",
        ] {
            assert_eq!(best(&[field]), None, "{field}");
        }
        // The unknown one does not hide the known one.
        let known = best(&["Digest realm=\"x\", nonce=\"n\", algorithm=SHA-3, qop=auth, Digest realm=\"x\", nonce=\"m\""]).unwrap();
        assert_eq!(known.nonce, b"m");
    }

    #[test]
    fn the_next_nonce_stands_in_authentication_info() {
        let mut headers = HeaderMap::new();
        assert_eq!(next_nonce(&headers), None);
        headers.insert(AUTHENTICATION_INFO, HeaderValue::from_static("qop=auth, rspauth=\"a\", nextnonce=\"n2\", nc=00000001"));
        assert_eq!(next_nonce(&headers).as_deref(), Some(&b"n2"[..]));
        headers.insert(AUTHENTICATION_INFO, HeaderValue::from_static("nextnonce=\"\""));
        assert_eq!(next_nonce(&headers), None);
    }

    #[test]
    fn a_thousand_challenges_are_not_all_read() {
        let field = "Digest realm=\"x\", nonce=\"n\", ".repeat(1000);
        assert_eq!(challenges(field.as_bytes()).len(), MOST_CHALLENGES);
        assert!(best(&[&format!("Digest realm=\"x\", nonce=\"n\"{}", ", a=b".repeat(1000))]).is_none());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_harm(field in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = challenges(&field);
            let _ = challenges(&[b"Digest ", field.as_slice()].concat());
        }

        #[test]
        fn any_realm_is_read_back(realm in "[ -~]{0,20}") {
            let quoted = realm.replace('\\', "\\\\").replace('"', "\\\"");
            let challenge = best(&[&format!("Digest nonce=\"n\", realm=\"{quoted}\", Basic")]).unwrap();
            prop_assert_eq!(challenge.realm, realm.as_bytes());
        }
    }
}
