//! Browsers are not clients by accident: refuses what a page of another site makes a browser send (ruling D27).

use std::net::IpAddr;

use http::header::{HOST, ORIGIN};
use http::{HeaderMap, HeaderName};

use crate::error::Error;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Which requests of browsers are refused.
#[derive(Debug, Default)]
pub struct Site {
    /// The gateway's own origin as others see it (`server.public_url`), without a path.
    public: Option<String>,
}

impl Site {
    /// Judges by the gateway's own origins: the `Host` it is called by, and its public URL.
    pub fn new(public: Option<String>) -> Self {
        Self { public: public.map(|origin| origin.trim_end_matches('/').to_ascii_lowercase()) }
    }

    /// Refuses cross-site requests, and on a loopback listener names that are not loopback (DNS rebinding).
    ///
    /// # Errors
    /// [`Error::CrossSite`].
    pub fn judge(&self, headers: &HeaderMap, loopback: bool) -> Result<(), Error> {
        let host = headers.get(HOST).map_or(Some(""), |h| h.to_str().ok()).unwrap_or("?");
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
        if loopback && !host.is_empty() && !is_loopback(host) {
            return Err(Error::CrossSite("The gateway listens on loopback and was called by another name.".into()));
        }
        Ok(())
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

/// Whether a `Host` names this machine only: `localhost`, a name below it, or a loopback address. Compared without case,
/// final dot and port (ruling D45).
fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(""),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost") || name.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
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
        Site::new(Some("https://gw.example/".into())).judge(&headers, loopback).is_ok()
    }

    #[test]
    fn programs_pass() {
        assert!(judge(&[("host", "localhost:8080")], true));
        assert!(judge(&[("host", "LOCALHOST.:8080")], true));
        assert!(judge(&[("host", "127.1.2.3:8080")], true));
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
        for host in ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "10.0.0.1", "notlocalhost", "[::2]"] {
            assert!(!judge(&[("host", host)], true), "{host}");
            assert!(judge(&[("host", host)], false), "{host}");
        }
    }
}
