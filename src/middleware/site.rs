//! Browsers are not clients by accident: refuses what a page of another site makes a browser send (ruling D27), and lets
//! pages of the configured origins in (`server.cors`, the CORS protocol of the WHATWG Fetch standard).

use std::net::IpAddr;

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, HOST, ORIGIN,
    VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode};

use crate::body::Body;
use crate::error::Error;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
/// What pages may send: everything that is forwarded.
const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
/// For how many seconds a browser may remember what a preflight has said.
const PREFLIGHT_AGE: HeaderValue = HeaderValue::from_static("600");
/// Longest list of fields that a preflight may ask for.
const ASKED_MAX: usize = 4096;

/// Which requests of browsers are refused.
#[derive(Debug, Default)]
pub struct Site {
    /// The gateway's own origin as others see it (`server.public_url`), without a path.
    public: Option<String>,
    /// Origins whose pages may call (`server.cors.origins`).
    origins: Vec<String>,
}

impl Site {
    /// Judges by the gateway's own origins, the `Host` it is called by and its public URL, and by those of `origins`.
    pub fn new(public: Option<String>, origins: &[String]) -> Self {
        let plain = |origin: &str| origin.trim_end_matches('/').to_ascii_lowercase();
        Self { public: public.as_deref().map(plain), origins: origins.iter().map(|origin| plain(origin)).collect() }
    }

    /// Refuses cross-site requests, and on a loopback listener names that are not loopback (DNS rebinding).
    ///
    /// # Errors
    /// [`Error::CrossSite`].
    pub fn judge(&self, headers: &HeaderMap, loopback: bool) -> Result<(), Error> {
        let host = headers.get(HOST).map_or(Some(""), |h| h.to_str().ok()).unwrap_or("?");
        if loopback && !host.is_empty() && !is_loopback(host) {
            return Err(Error::CrossSite("The gateway listens on loopback and was called by another name.".into()));
        }
        if self.page(headers).is_some() {
            return Ok(());
        }
        for site in headers.get_all(SEC_FETCH_SITE) {
            if matches!(site.as_bytes(), b"cross-site" | b"same-site") {
                return Err(Error::CrossSite("A page of another site made the browser send this.".into()));
            }
        }
        for origin in headers.get_all(ORIGIN) {
            if !origin.to_str().is_ok_and(|origin| self.is_own(origin, host)) {
                return Err(Error::CrossSite("The origin of the page is not this gateway's.".into()));
            }
        }
        Ok(())
    }

    /// The origin of the page that sends this, if it is one of the configured ones.
    pub fn page(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        if self.origins.is_empty() {
            return None;
        }
        let mut all = headers.get_all(ORIGIN).iter();
        let (origin, None) = (all.next()?, all.next()) else { return None };
        let text = origin.to_str().ok()?;
        self.origins.iter().any(|known| known.eq_ignore_ascii_case(text)).then(|| origin.clone())
    }

    /// The answer to a browser that asks whether a page of a configured origin may call. It is the gateway's own: what
    /// the request itself may is decided when it comes.
    pub fn preflight(&self, method: &Method, headers: &HeaderMap) -> Option<Response<Body>> {
        if *method != Method::OPTIONS || !headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD) {
            return None;
        }
        self.page(headers)?;
        let mut response = Response::new(Body::Empty);
        *response.status_mut() = StatusCode::NO_CONTENT;
        let fields = response.headers_mut();
        fields.insert(ACCESS_CONTROL_ALLOW_METHODS, METHODS);
        fields.insert(ACCESS_CONTROL_MAX_AGE, PREFLIGHT_AGE);
        if let Some(asked) = headers.get(ACCESS_CONTROL_REQUEST_HEADERS).filter(|asked| is_list(asked.as_bytes())) {
            fields.insert(ACCESS_CONTROL_ALLOW_HEADERS, asked.clone());
        }
        Some(response)
    }

    fn is_own(&self, origin: &str, host: &str) -> bool {
        let origin = origin.to_ascii_lowercase();
        if self.public.as_deref() == Some(origin.as_str()) {
            return true;
        }
        let authority = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
        authority.is_some_and(|authority| !host.is_empty() && authority.eq_ignore_ascii_case(host))
    }
}

/// Lets the page read the answer: every field of it, and never with the browser's own credentials.
pub fn share(page: HeaderValue, headers: &mut HeaderMap) {
    headers.remove(ACCESS_CONTROL_ALLOW_CREDENTIALS);
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, page);
    headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("*"));
    headers.append(VARY, HeaderValue::from_static("Origin"));
}

/// Whether these are names of fields, with commas between them.
fn is_list(names: &[u8]) -> bool {
    names.len() <= ASKED_MAX && names.iter().all(|b| crate::http1::is_token(*b) || matches!(b, b',' | b' '))
}

/// The name that every machine has for itself (RFC 6761 section 6.3).
const LOCALHOST: &[u8] = b"localhost";

/// Whether a `Host` names this machine only: `localhost`, a name below it, or a loopback address. Compared without case,
/// final dot and port (ruling D45).
fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(""),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    let name_of_it = || {
        let name = name.as_bytes();
        let (below, end) = name.split_at(name.len().saturating_sub(LOCALHOST.len()));
        end.eq_ignore_ascii_case(LOCALHOST) && (below.is_empty() || below.ends_with(b"."))
    };
    // An address begins with a digit or has a colon; nothing else is worth reading as one.
    let address = name.starts_with(|c: char| c.is_ascii_digit()) || name.contains(':');
    (address && name.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())) || name_of_it()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn judge(fields: &[(&'static str, &'static str)], loopback: bool) -> bool {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        Site::new(Some("https://gw.example/".into()), &["https://App.example:8443".into()]).judge(&headers, loopback).is_ok()
    }

    #[test]
    fn programs_pass() {
        assert!(judge(&[("host", "localhost:8080")], true));
        assert!(judge(&[("host", "LOCALHOST.:8080")], true));
        assert!(judge(&[("host", "127.1.2.3:8080")], true));
        assert!(judge(&[("host", "1.LocalHost")], true));
        assert!(judge(&[("host", "[::1]:8080")], true));
        assert!(judge(&[("host", "gw.example")], false));
        assert!(judge(&[], true));
    }

    #[test]
    fn pages_of_other_sites_are_refused() {
        assert!(!judge(&[("host", "localhost"), ("sec-fetch-site", "cross-site")], true));
        assert!(!judge(&[("host", "localhost"), ("sec-fetch-site", "same-site")], true));
        assert!(!judge(&[("host", "localhost"), ("origin", "https://evil.example")], true));
        assert!(!judge(&[("host", "localhost"), ("origin", "null")], true));
        assert!(!judge(&[("host", "localhost"), ("origin", "http://localhost"), ("origin", "http://evil")], true));
        assert!(judge(&[("host", "localhost:8080"), ("origin", "http://localhost:8080"), ("sec-fetch-site", "same-origin")], true));
        assert!(judge(&[("host", "other"), ("origin", "https://GW.example")], false));
    }

    #[test]
    fn a_rebound_name_is_refused_on_loopback() {
        for host in [
            "1.localhost.evil",
            "xlocalhost",
            ".",
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "10.0.0.1",
            "notlocalhost",
            "[::2]",
        ] {
            assert!(!judge(&[("host", host)], true), "{host}");
            assert!(judge(&[("host", host)], false), "{host}");
        }
    }

    #[test]
    fn pages_of_configured_origins_are_let_in_and_of_no_other() {
        let page = ("origin", "https://app.example:8443");
        assert!(judge(&[("host", "localhost"), page, ("sec-fetch-site", "cross-site")], true));
        assert!(!judge(&[("host", "evil.example"), page], true));
        for origin in [
            "https://app.example",
            "http://app.example:8443",
            "https://app.example:8443.evil",
            "https://x.app.example:8443",
            "null",
            "*",
            "",
        ] {
            assert!(!judge(&[("host", "localhost"), ("origin", origin)], true), "{origin}");
        }
        assert!(!judge(&[("host", "localhost"), page, ("origin", "https://evil.example")], true));
    }

    #[test]
    fn a_preflight_is_answered_for_configured_origins_only() {
        let ask = |origin: &'static str, fields: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(ORIGIN, HeaderValue::from_static(origin));
            headers.insert(ACCESS_CONTROL_REQUEST_METHOD, HeaderValue::from_static("PUT"));
            headers.insert(ACCESS_CONTROL_REQUEST_HEADERS, HeaderValue::from_static(fields));
            Site::new(None, &["https://app.example".into()]).preflight(&Method::OPTIONS, &headers)
        };
        let allowed = ask("https://app.example", "postern-key, x-a").unwrap();
        assert_eq!(allowed.headers()[ACCESS_CONTROL_ALLOW_HEADERS], "postern-key, x-a");
        assert!(!allowed.headers().contains_key("access-control-allow-credentials"));
        assert!(!ask("https://app.example", "a;b").unwrap().headers().contains_key(ACCESS_CONTROL_ALLOW_HEADERS));
        assert!(ask("https://evil.example", "x-a").is_none());
    }
}
