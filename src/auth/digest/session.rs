//! A remembered challenge and what answers it (RFC 7616 section 3.4): the counter, the client's nonce, the response.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use aws_lc_rs::rand;
use http::{HeaderValue, Method};
use zeroize::Zeroizing;

use super::challenge::{Challenge, Quality};
use crate::secret::Secret;

/// How often one nonce is used; `nc` has room for more, so that calls that are already on their way never run over.
const MOST_USES: u32 = u32::MAX - 0x0100_0000;

/// Who presents itself.
pub struct User {
    /// The user name.
    pub name: Secret,
    /// The password.
    pub password: Secret,
}

/// A challenge as it is being used.
pub struct Session {
    challenge: Challenge,
    /// The user name as it is sent, with its parameter's name.
    user: Vec<u8>,
    /// The hash of what only both sides know.
    secret: Zeroizing<String>,
    cnonce: String,
    count: AtomicU32,
    proven: AtomicBool,
}

/// What a response covers, ready but for the count.
pub struct Request {
    /// Hash of method, target and, for `auth-int`, body.
    hash: String,
    uri: Vec<u8>,
    quality: Quality,
}

impl Session {
    /// Answers `challenge` for `user`. `None` where the system gives no random bytes.
    pub fn new(challenge: Challenge, user: &User) -> Option<Self> {
        let mut random = [0; 16];
        rand::fill(&mut random).ok()?;
        Some(Self::with(challenge, user, format!("{:032x}", u128::from_be_bytes(random))))
    }

    fn with(challenge: Challenge, user: &User, cnonce: String) -> Self {
        let (name, hash) = (user.name.expose().as_bytes(), challenge.hash);
        let secret = Zeroizing::new(hash.joined(&[name, &challenge.realm, user.password.expose().as_bytes()]));
        let secret =
            if challenge.session { Zeroizing::new(hash.joined(&[secret.as_bytes(), &challenge.nonce, cnonce.as_bytes()])) } else { secret };
        let user = spelt(&challenge, name);
        Self { challenge, user, secret, cnonce, count: AtomicU32::new(0), proven: AtomicBool::new(false) }
    }

    /// The same session under the server's next nonce. What `-sess` is bound to stays (RFC 7616 section 3.4.2).
    pub fn followed_by(&self, nonce: Vec<u8>) -> Self {
        Self {
            challenge: Challenge { nonce, stale: false, ..self.challenge.clone() },
            user: self.user.clone(),
            secret: self.secret.clone(),
            cnonce: self.cnonce.clone(),
            count: AtomicU32::new(0),
            proven: AtomicBool::new(self.proven.load(Ordering::Relaxed)),
        }
    }

    /// What it answers.
    pub fn challenge(&self) -> &Challenge {
        &self.challenge
    }

    /// Whether the nonce may be used on.
    pub fn lasts(&self) -> bool {
        self.count.load(Ordering::Relaxed) < MOST_USES
    }

    /// The server has accepted a response: user and password are right.
    pub fn prove(&self) {
        self.proven.store(true, Ordering::Relaxed);
    }

    /// Whether the server ever accepted a response.
    pub fn is_proven(&self) -> bool {
        self.proven.load(Ordering::Relaxed)
    }

    /// What a response to this request covers. `body` is there where it is to be protected.
    pub fn request(&self, method: &Method, uri: &str, body: Option<&[u8]>) -> Request {
        let (hash, method) = (self.challenge.hash, method.as_str().as_bytes());
        let (hash, quality) = match body {
            Some(body) => (hash.joined(&[method, uri.as_bytes(), hash.hex(body).as_bytes()]), Quality::Integrity),
            None if self.challenge.quality == Quality::Legacy => (hash.joined(&[method, uri.as_bytes()]), Quality::Legacy),
            None => (hash.joined(&[method, uri.as_bytes()]), Quality::Auth),
        };
        Request { hash, uri: escaped(uri.as_bytes()), quality }
    }

    /// `Authorization` for a request, under the next count: each call gives another.
    pub fn authorization(&self, request: &Request) -> Option<HeaderValue> {
        let hash = self.challenge.hash;
        let mut text = Vec::with_capacity(512);
        text.extend_from_slice(b"Digest ");
        text.extend_from_slice(&self.user);
        let mut put = |name: &str, value: &[u8]| {
            text.extend_from_slice(b", ");
            text.extend_from_slice(name.as_bytes());
            text.extend_from_slice(b"=");
            text.extend_from_slice(value);
        };
        put("realm", &quoted(&self.challenge.realm));
        put("nonce", &quoted(&self.challenge.nonce));
        put("uri", &[b"\"", request.uri.as_slice(), b"\""].concat());
        if let Some(algorithm) = &self.challenge.algorithm {
            put("algorithm", algorithm);
        }
        let response = if request.quality == Quality::Legacy {
            hash.joined(&[self.secret.as_bytes(), &self.challenge.nonce, request.hash.as_bytes()])
        } else {
            let quality = if request.quality == Quality::Integrity { "auth-int" } else { "auth" };
            let count = format!("{:08x}", self.count.fetch_add(1, Ordering::Relaxed).saturating_add(1));
            put("nc", count.as_bytes());
            put("cnonce", &quoted(self.cnonce.as_bytes()));
            put("qop", quality.as_bytes());
            let parts = [
                self.secret.as_bytes(),
                &self.challenge.nonce,
                count.as_bytes(),
                self.cnonce.as_bytes(),
                quality.as_bytes(),
                request.hash.as_bytes(),
            ];
            hash.joined(&parts)
        };
        put("response", &quoted(response.as_bytes()));
        if let Some(opaque) = &self.challenge.opaque {
            put("opaque", &quoted(opaque));
        }
        if self.challenge.userhash {
            put("userhash", b"true");
        }
        let mut value = HeaderValue::from_bytes(&text).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("hash", &self.challenge.hash).finish_non_exhaustive()
    }
}

/// The user name for the wire: hashed where the server wants that, in extended notation where it is not ASCII and the
/// server reads UTF-8, in quotes else (RFC 7616 sections 3.4 and 3.4.4).
fn spelt(challenge: &Challenge, name: &[u8]) -> Vec<u8> {
    if challenge.userhash {
        return [b"username=\"", challenge.hash.joined(&[name, &challenge.realm]).as_bytes(), b"\""].concat();
    }
    if challenge.utf8 && !name.is_ascii() {
        // RFC 8187 section 3.2.1, attr-char.
        const KEPT: &percent_encoding::AsciiSet = &percent_encoding::NON_ALPHANUMERIC
            .remove(b'!')
            .remove(b'#')
            .remove(b'$')
            .remove(b'&')
            .remove(b'+')
            .remove(b'-')
            .remove(b'.')
            .remove(b'^')
            .remove(b'_')
            .remove(b'`')
            .remove(b'|')
            .remove(b'~');
        return format!("username*=UTF-8''{}", percent_encoding::percent_encode(name, KEPT)).into_bytes();
    }
    [b"username=", quoted(name).as_slice()].concat()
}

fn quoted(value: &[u8]) -> Vec<u8> {
    [b"\"", escaped(value).as_slice(), b"\""].concat()
}

fn escaped(value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.len());
    for byte in value {
        if matches!(byte, b'"' | b'\\') {
            out.push(b'\\');
        }
        out.push(*byte);
    }
    out
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use http::header::WWW_AUTHENTICATE;

    use super::*;
    use crate::auth::digest::challenge::strongest;

    fn session(challenge: &str, name: &str, password: &str, cnonce: &str) -> Session {
        let mut headers = HeaderMap::new();
        headers.insert(WWW_AUTHENTICATE, challenge.parse().unwrap());
        let user = User { name: Secret::new(name.into()), password: Secret::new(password.into()) };
        Session::with(strongest(&headers).unwrap(), &user, cnonce.into())
    }

    fn sent(session: &Session, uri: &str, body: Option<&[u8]>) -> String {
        let value = session.authorization(&session.request(&Method::GET, uri, body)).unwrap();
        assert!(value.is_sensitive());
        String::from_utf8(value.as_bytes().to_vec()).unwrap()
    }

    fn mufasa(algorithm: &str, more: &str) -> Session {
        let challenge = format!(
            "Digest realm=\"http-auth@example.org\", qop=\"auth, auth-int\", algorithm={algorithm}, \
             nonce=\"7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v\", opaque=\"FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS\"{more}"
        );
        session(&challenge, "Mufasa", "Circle of Life", "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ")
    }

    // RFC 7616 section 3.9.1.
    #[test]
    fn md5_and_sha_256_answer_as_in_the_rfc() {
        let rest = |algorithm: &str, response: &str| {
            format!(
                "Digest username=\"Mufasa\", realm=\"http-auth@example.org\", nonce=\"7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v\", \
                 uri=\"/dir/index.html\", algorithm={algorithm}, nc=00000001, cnonce=\"f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ\", \
                 qop=auth, response=\"{response}\", opaque=\"FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS\""
            )
        };
        assert_eq!(sent(&mufasa("MD5", ""), "/dir/index.html", None), rest("MD5", "8ca523f5e9506fed4657c9700eebdbec"));
        let sha = "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1";
        assert_eq!(sent(&mufasa("SHA-256", ""), "/dir/index.html", None), rest("SHA-256", sha));
    }

    const JASON: &str = "Digest realm=\"api@example.org\", qop=\"auth\", algorithm=SHA-512-256, \
                         nonce=\"5TsQWLVdgBdmrQ0XsxbDODV+57QdFR34I9HAbC/RVvkK\", opaque=\"HRPCssKJSGjCrkzDg8OhwpzCiGPChXYjwrI2QmXDnsOS\", \
                         charset=UTF-8, userhash=true";

    // RFC 7616 section 3.9.2 with the values of erratum 4897.
    #[test]
    fn sha_512_256_with_a_hashed_user_name_answers_as_in_the_erratum() {
        let cnonce = "NTg6RKcb9boFIAS3KrFK9BGeh+iDa/sm6jUMp2wds69v";
        let text = sent(&session(JASON, "J\u{e4}s\u{f8}n Doe", "Secret, or not?", cnonce), "/doe.json", None);
        for part in [
            "username=\"793263caabb707a56211940d90411ea4a575adeccb7e360aeb624ed06ece9b0b\"",
            "response=\"3798d4131c277846293534c3edc11bd8a5e4cdcbff78b05db9d95eeb1cec68a5\"",
            "userhash=true",
        ] {
            assert!(text.contains(part), "{text}");
        }
        let plain = JASON.replace(", userhash=true", "");
        let text = sent(&session(&plain, "J\u{e4}s\u{f8}n Doe", "Secret, or not?", cnonce), "/doe.json", None);
        assert!(text.contains("username*=UTF-8''J%C3%A4s%C3%B8n%20Doe, ") && !text.contains("userhash"), "{text}");
        assert!(text.contains("3798d4131c277846293534c3edc11bd8a5e4cdcbff78b05db9d95eeb1cec68a5"));
    }

    // RFC 2617 section 3.5.
    #[test]
    fn the_example_of_rfc_2617_holds_without_an_algorithm() {
        let challenge = "Digest realm=\"testrealm@host.com\", qop=\"auth,auth-int\", nonce=\"dcd98b7102dd2f0e8b11d0f600bfb0c093\", \
                         opaque=\"5ccc069c403ebaf9f0171e9517f40e41\"";
        let text = sent(&session(challenge, "Mufasa", "Circle Of Life", "0a4f113b"), "/dir/index.html", None);
        assert!(text.contains("response=\"6629fae49393a05397450978507c4ef1\"") && !text.contains("algorithm"), "{text}");
    }

    // RFC 2069 section 2.4, with its erratum 749.
    #[test]
    fn a_server_of_rfc_2069_gets_neither_count_nor_quality() {
        let challenge = "Digest realm=\"testrealm@host.com\", nonce=\"dcd98b7102dd2f0e8b11d0f600bfb0c093\", opaque=\"5ccc069c403ebaf9f0171e9517f40e41\"";
        let text = sent(&session(challenge, "Mufasa", "CircleOfLife", "x"), "/dir/index.html", None);
        assert!(text.contains("response=\"1949323746fe6a43ef61f9606e7febea\""), "{text}");
        assert!(!text.contains("nc=") && !text.contains("cnonce") && !text.contains("qop"), "{text}");
    }

    // Worked out with the formulas of RFC 7616 section 3.4 by another program (Python's hashlib).
    #[test]
    fn sessions_and_protected_bodies_answer_by_the_formulas() {
        let text = sent(&mufasa("MD5-sess", ""), "/dir/index.html", None);
        assert!(text.contains("response=\"e783283f46242139c486a698fec7211d\""), "{text}");
        let text = sent(&mufasa("SHA-256", ""), "/dir/index.html", Some(b"hello"));
        assert!(text.contains("qop=auth-int") && text.contains(INTEGRITY), "{text}");
    }

    const INTEGRITY: &str = "response=\"887bb8d7a6c4cc95528278df0ec68f641244105a1d6a3aa8769488086b20e097\"";

    #[test]
    fn every_authorization_has_a_count_of_its_own() {
        let session = mufasa("MD5", "");
        let request = session.request(&Method::GET, "/", None);
        let counts: Vec<String> = (0..17)
            .map(|_| String::from_utf8(session.authorization(&request).unwrap().as_bytes().to_vec()).unwrap())
            .map(|text| text.split("nc=").nth(1).unwrap()[..8].to_owned())
            .collect();
        assert_eq!((counts[0].as_str(), counts[9].as_str(), counts[16].as_str()), ("00000001", "0000000a", "00000011"));
    }

    #[test]
    fn the_next_nonce_starts_a_count_of_its_own_and_keeps_what_the_session_is_bound_to() {
        let session = mufasa("SHA-256-sess", "");
        sent(&session, "/", None);
        let next = session.followed_by(b"n2".to_vec());
        assert_eq!((&next.secret, &next.cnonce), (&session.secret, &session.cnonce));
        assert!(sent(&next, "/", None).contains("nonce=\"n2\", uri=\"/\", algorithm=SHA-256-sess, nc=00000001"));
    }

    #[test]
    fn a_worn_nonce_is_given_up_long_before_its_count_could_repeat() {
        let session = mufasa("MD5", "");
        assert!(session.lasts());
        session.count.store(MOST_USES, Ordering::Relaxed);
        assert!(!session.lasts());
    }

    #[test]
    fn quotes_and_backslashes_are_escaped_on_the_wire_and_not_in_the_hash() {
        let text = sent(&session(r#"Digest realm="a \"b\"", nonce="n\\1""#, r#"u"s\er"#, "p", "c"), "/", None);
        assert!(text.contains(r#"username="u\"s\\er", realm="a \"b\"", nonce="n\\1""#), "{text}");
        let response = crate::auth::digest::hash::Hash::Md5;
        let a1 = response.joined(&[br#"u"s\er"#, br#"a "b""#, b"p"]);
        let expected = response.joined(&[a1.as_bytes(), br"n\1", response.hex(b"GET:/").as_bytes()]);
        assert!(text.contains(&expected));
    }

    #[test]
    fn a_session_never_prints() {
        let text = format!("{:?}", mufasa("MD5", ""));
        assert!(!text.contains("Mufasa") && !text.contains("7ypf"), "{text}");
    }
}
