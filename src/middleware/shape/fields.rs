//! Which of a client's fields go on: hop-by-hop, identity and steering fields do not, nor what the resource or its
//! scheme owns, in any spelling (product, section 4; rulings A15 to A17, D10).

use http::header::{ACCEPT_ENCODING, AUTHORIZATION, CONNECTION, COOKIE, EXPECT, TE, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::trailers::Screen;

/// What never goes on, whatever the resource says: framing, hop-by-hop fields (RFC 9110 section 7.6.1), and the
/// gateway's own.
const NEVER: [&str; 13] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "transfer-encoding",
    "content-length",
    "te",
    "upgrade",
    "http2-settings",
    "host",
    "x-request-id",
    "proxy-authorization",
    "proxy-authenticate",
    "expect",
];
/// Who the client is, and what steers an upstream: only where `forward.headers` names them (ruling A16).
const UNLESS_NAMED: [&str; 19] = [
    "forwarded",
    "x-real-ip",
    "x-client-ip",
    "true-client-ip",
    "cf-connecting-ip",
    "cf-connecting-ipv6",
    "x-cluster-client-ip",
    "fastly-client-ip",
    "x-original-url",
    "x-rewrite-url",
    "x-original-host",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-amz-security-token",
    "x-client-cert",
    "x-ssl-cert",
    "x-remote-user",
    "x-original-method",
];
const UNLESS_NAMED_PREFIXES: [&str; 5] = ["x-forwarded-", "x-envoy-", "x-ssl-", "ssl-client-", "x-client-cert-"];
const NEVER_PREFIXES: [&str; 2] = ["proxy-", "postern-"];

/// Whether a field frames a message, belongs to one hop, or is the gateway's own.
pub fn is_never(name: &str) -> bool {
    NEVER.contains(&name) || NEVER_PREFIXES.iter().any(|p| name.starts_with(p))
}

/// Whether a field goes on only where the resource names it.
fn is_unless_named(name: &str) -> bool {
    UNLESS_NAMED.contains(&name) || UNLESS_NAMED_PREFIXES.iter().any(|p| name.starts_with(p)) || name == "x-forwarded"
}

/// What of a client's fields goes on to one resource.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// The resource's or its scheme's: locked, removed, owned.
    pub owned: Vec<HeaderName>,
    /// Named in `forward.headers`.
    pub named: Vec<HeaderName>,
    /// Whether `Authorization` goes on.
    pub authorization: bool,
    /// Whether `Cookie` goes on.
    pub cookies: bool,
}

impl Filter {
    /// Whether a field of this name never comes from the client.
    pub fn removes(&self, name: &HeaderName) -> bool {
        self.owned.contains(name)
    }

    /// Removes what does not go on. With `switches` the wish to switch protocols is kept. What `Connection` nominates
    /// goes first of all: nothing that is put in afterwards can be struck out by a client.
    pub fn apply(&self, headers: &mut HeaderMap, switches: bool) {
        let trailers = headers.get_all(TE).iter().any(|v| mentions(v, "trailers"));
        let nominated = nominated(headers);
        let gone: Vec<HeaderName> =
            headers.keys().filter(|name| !self.keeps(name, switches) || nominated.contains(name)).cloned().collect();
        for name in gone {
            // The upgrade is asked for anew by whoever sends.
            if !(switches && name == UPGRADE) {
                headers.remove(name);
            }
        }
        if trailers {
            headers.insert(TE, HeaderValue::from_static("trailers"));
        }
    }

    /// What of a client's trailers goes on: nothing that its head could not hold.
    pub fn screen(&self) -> Screen {
        let filter = self.clone();
        Screen::new(move |name| filter.keeps(name, false))
    }

    fn keeps(&self, name: &HeaderName, switches: bool) -> bool {
        let text = name.as_str();
        if text.as_bytes().contains(&b'_') {
            return !self.imitates(text);
        }
        if self.owned.contains(name) {
            return false;
        }
        match *name {
            AUTHORIZATION => self.authorization,
            COOKIE => self.cookies,
            UPGRADE => switches,
            EXPECT | ACCEPT_ENCODING => true,
            _ => !is_never(text) && (!is_unless_named(text) || self.named.contains(name)),
        }
    }

    /// Whether `_` read as `-` makes it a field that does not go on (ruling A17).
    fn imitates(&self, text: &str) -> bool {
        let dashed = text.replace('_', "-");
        let closed = matches!(dashed.as_str(), "authorization" | "cookie");
        closed || is_never(&dashed) || is_unless_named(&dashed) || self.owned.iter().any(|o| o.as_str().replace('_', "-") == dashed)
    }
}

/// The fields that `Connection` nominates.
pub fn nominated(headers: &HeaderMap) -> Vec<HeaderName> {
    let mut all = Vec::new();
    for value in headers.get_all(CONNECTION) {
        for one in value.as_bytes().split(|b| *b == b',') {
            let one = one.trim_ascii();
            if !one.eq_ignore_ascii_case(b"close") && !one.eq_ignore_ascii_case(b"keep-alive") {
                all.extend(HeaderName::from_bytes(one));
            }
        }
    }
    all
}

fn mentions(value: &HeaderValue, word: &str) -> bool {
    value.to_str().is_ok_and(|v| v.split(',').any(|one| one.split(';').next().unwrap_or("").trim().eq_ignore_ascii_case(word)))
}
