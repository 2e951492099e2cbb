//! Which of a client's fields go on: hop-by-hop, identity and steering fields do not, nor what the resource or its
//! scheme owns, in any spelling (product, section 4; rulings A15 to A17, D10).

use http::header::{AUTHORIZATION, CONNECTION, COOKIE, EXPECT, TE, TRAILER, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::trailers::Screen;

/// What never goes on, whatever the resource says: framing, hop-by-hop fields (RFC 9110 section 7.6.1), the gateway's
/// own, and `Proxy`, which CGI makes a setting of the program behind it (httpoxy).
const NEVER: [&str; 11] = [
    "connection",
    "keep-alive",
    "transfer-encoding",
    "content-length",
    "te",
    "upgrade",
    "http2-settings",
    "host",
    "x-request-id",
    "expect",
    "proxy",
];
const NEVER_PREFIXES: [&str; 2] = ["proxy-", "postern-"];

/// Who the client is, and what steers an upstream: only where `forward.headers` names them (ruling A16). Those that
/// begin with `x-`, without it.
const X_UNLESS_NAMED: [&str; 28] = [
    "anonymous-consumer",
    "apigateway-api-userinfo",
    "amz-security-token",
    "authenticated-user",
    "azure-clientip",
    "azure-socketip",
    "client-cert",
    "client-dn",
    "client-ip",
    "clientip",
    "cluster-client-ip",
    "custom-ip-authorization",
    "forwarded",
    "forwarder-for",
    "host",
    "http-path-override",
    "http-verb",
    "matched-path",
    "method-override",
    "ms-client-principal",
    "now-route-matches",
    "originating-ip",
    "path-info",
    "proxyuser-ip",
    "real-ip",
    "script-name",
    "url-scheme",
    "userinfo",
];
const X_UNLESS_NAMED_PREFIXES: [&str; 24] = [
    "amzn-mtls-",
    "amzn-oidc-",
    "appengine-",
    "arr-",
    "auth-request-",
    "authentik-",
    "client-cert-",
    "consumer-",
    "credential-",
    "envoy-",
    "forwarded-",
    "goog-authenticated-",
    "goog-iap-",
    "http-method",
    "invoke-",
    "middleware-",
    "ms-client-principal-",
    "original-",
    "pomerium-",
    "real-ip-",
    "remote-",
    "rewrite-",
    "ssl-",
    "webauth-",
];
/// Those that begin otherwise.
const UNLESS_NAMED: [&str; 13] = [
    "base-url",
    "cf-connecting-ip",
    "cf-connecting-ipv6",
    "cf-pseudo-ipv4",
    "client-cert",
    "client-cert-chain",
    "client-ip",
    "destination",
    "fastly-client-ip",
    "forwarded",
    "front-end-https",
    "script-name",
    "true-client-ip",
];
const UNLESS_NAMED_PREFIXES: [&str; 4] = ["cf-access-", "remote-", "ssl-client-", "wl-proxy-"];

/// Whether a field frames a message, belongs to one hop, or is the gateway's own.
pub fn is_never(name: &str) -> bool {
    NEVER.contains(&name) || NEVER_PREFIXES.iter().any(|p| name.starts_with(p))
}

/// Whether a field goes on only where the resource names it.
fn is_unless_named(name: &str) -> bool {
    match name.strip_prefix("x-") {
        Some(rest) => X_UNLESS_NAMED.contains(&rest) || X_UNLESS_NAMED_PREFIXES.iter().any(|p| rest.starts_with(p)),
        None => UNLESS_NAMED.contains(&name) || UNLESS_NAMED_PREFIXES.iter().any(|p| name.starts_with(p)),
    }
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
        keep_trailers(headers, |name| self.keeps(name, false) && !nominated.contains(name));
    }

    /// What of a client's trailers goes on: nothing that its head could not hold.
    pub fn screen(&self) -> Screen {
        let filter = self.clone();
        Screen::new(move |name| filter.keeps(name, false))
    }

    fn keeps(&self, name: &HeaderName, switches: bool) -> bool {
        let text = name.as_str();
        if text.bytes().any(|b| b != b'-' && !b.is_ascii_alphanumeric()) {
            return !self.imitates(text);
        }
        if self.owned.iter().any(|owned| is_spelling_of(text, owned.as_str())) {
            return false;
        }
        match *name {
            AUTHORIZATION => self.authorization,
            COOKIE => self.cookies,
            UPGRADE => switches,
            EXPECT => true,
            _ => !is_never(text) && (!is_unless_named(text) || self.named.contains(name)),
        }
    }

    /// Whether it becomes a field that does not go on once `_`, or whatever else is neither letter nor digit, is read as
    /// `-` (ruling A17).
    fn imitates(&self, text: &str) -> bool {
        let folded = folded(text);
        let closed = matches!(folded.as_str(), "authorization" | "cookie");
        closed || is_never(&folded) || is_unless_named(&folded) || self.owned.iter().any(|o| self::folded(o.as_str()) == folded)
    }
}

/// Whether a name of letters, digits and `-` is what `owned` is read as: an operator may have written `_` too.
fn is_spelling_of(text: &str, owned: &str) -> bool {
    text.len() == owned.len() && text.bytes().zip(owned.bytes()).all(|(t, o)| t == o || (t == b'-' && !o.is_ascii_alphanumeric()))
}

fn folded(name: &str) -> String {
    String::from_utf8(crate::http1::folded(name.as_bytes())).unwrap_or_default()
}

/// Announces only trailers that would pass as fields: what is not announced, hyper does not send on.
pub fn keep_trailers(headers: &mut HeaderMap, keeps: impl Fn(&HeaderName) -> bool) {
    if !headers.contains_key(TRAILER) {
        return;
    }
    let announced = headers.get_all(TRAILER).iter().flat_map(|value| value.as_bytes().split(|b| *b == b','));
    let kept: Vec<HeaderName> = announced.filter_map(|one| HeaderName::from_bytes(one.trim_ascii()).ok()).filter(keeps).collect();
    headers.remove(TRAILER);
    let kept = kept.iter().map(HeaderName::as_str).collect::<Vec<_>>().join(", ");
    if let Ok(value) = HeaderValue::try_from(kept)
        && !value.is_empty()
    {
        headers.insert(TRAILER, value);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn passes(name: &str) -> bool {
        let filter = Filter { owned: vec![HeaderName::from_static("x-api-key")], ..Filter::default() };
        let mut headers = HeaderMap::new();
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        headers.insert(&name, HeaderValue::from_static("1"));
        filter.apply(&mut headers, false);
        headers.contains_key(name)
    }

    #[test]
    fn what_steers_or_identifies_is_dropped_in_every_spelling() {
        let plain = NEVER.iter().chain(&UNLESS_NAMED).map(|n| (*n).to_owned());
        let with_x = X_UNLESS_NAMED.iter().map(|n| format!("x-{n}"));
        let prefixed = NEVER_PREFIXES.iter().chain(&UNLESS_NAMED_PREFIXES).map(|p| format!("{p}zz"));
        let x_prefixed = X_UNLESS_NAMED_PREFIXES.iter().map(|p| format!("x-{p}zz"));
        let own = ["authorization", "cookie", "x-api-key"].map(str::to_owned);
        for name in plain.chain(with_x).chain(prefixed).chain(x_prefixed).chain(own) {
            if name == "expect" {
                continue;
            }
            for spelling in [name.clone(), name.replace('-', "_"), name.replace('-', "."), name.replacen('-', "!", 1)] {
                assert!(!passes(&spelling), "{spelling}");
            }
        }
    }

    #[test]
    fn an_owned_name_with_an_underscore_is_owned_in_every_spelling_too() {
        let filter = Filter { owned: vec![HeaderName::from_static("tenant_id")], ..Filter::default() };
        for (name, goes_on) in [("tenant-id", false), ("tenant_id", false), ("tenant.id", false), ("tenant-ids", true), ("tenantid", true)]
        {
            let mut headers = HeaderMap::new();
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static("8"));
            filter.apply(&mut headers, false);
            assert_eq!(headers.contains_key(name), goes_on, "{name}");
        }
    }

    #[test]
    fn ordinary_fields_pass() {
        for name in [
            "accept",
            "accept-encoding",
            "range",
            "x-fine",
            "x_fine",
            "x.fine",
            "x-forward",
            "origin",
            "xx-original-url",
            "idempotency-key",
        ] {
            assert!(passes(name), "{name}");
        }
    }

    #[test]
    fn only_trailers_that_would_pass_as_fields_are_announced() {
        let mut headers = HeaderMap::new();
        headers.append(TRAILER, HeaderValue::from_static("X-Sum, Authorization, x-api_key"));
        headers.append(TRAILER, HeaderValue::from_static("X-Original-URL,,bad name,X-Two"));
        Filter { owned: vec![HeaderName::from_static("x-api-key")], ..Filter::default() }.apply(&mut headers, false);
        assert_eq!(headers.get_all(TRAILER).iter().collect::<Vec<_>>(), ["x-sum, x-two"]);
    }
}
