//! What an upstream's answer may say to the client: no hop-by-hop fields, nothing in the gateway's name, no other
//! resource's cookies, and what browsers must know of an origin that all resources share (ruling G5).

use http::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, LINK, LOCATION, SET_COOKIE, TRANSFER_ENCODING, UPGRADE, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};

use super::X_REQUEST_ID;
use super::fields::{is_never, keep_trailers, nominated};
use super::links::Links;
use super::paging::Paging;
use crate::body::Body;
use crate::call::Led;
use crate::net::Origin;

const CROSS_ORIGIN_RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");
/// What an upstream may not say of an origin that is not its own.
const NOT_THEIRS: [&str; 4] = ["service-worker-allowed", "clear-site-data", "strict-transport-security", "alt-svc"];

/// What a server in front of the gateway would take as an order: to send one of its own files, or another address's
/// answer.
const ORDERS: [&str; 5] = ["x-accel-redirect", "x-sendfile", "x-lighttpd-send-file", "x-litespeed-location", "x-reproxy-url"];

/// The way back, for one resource.
#[derive(Clone, Debug)]
pub struct Back {
    pub links: Links,
    /// Whether `Location` and `Link` are mapped (`redirects: rewrite`).
    pub rewrites: bool,
    /// Links inside of bodies, and how large these may be.
    pub paging: Option<(Paging, u64)>,
    /// Whether cookies are forwarded.
    pub cookies: bool,
    /// Whether browsers may run what this upstream answers.
    pub browser: bool,
}

impl Led for Back {
    fn lead(&self, link: &HeaderValue, path: &str) -> HeaderValue {
        if self.rewrites { self.lead_link(link, path) } else { link.clone() }
    }
}

impl Back {
    /// The way back from another base.
    pub fn at(&self, origin: &Origin, path: &str) -> Self {
        Self { links: self.links.at(origin, path), ..self.clone() }
    }

    /// Whether the path of the request is needed for the answer.
    pub fn needs_path(&self) -> bool {
        self.rewrites || self.paging.is_some()
    }

    /// Cleans an answer to a request for `path`.
    pub fn clean(&self, response: &mut Response<Body>, path: &str, id: &str) {
        let status = response.status();
        let headers = response.headers_mut();
        let switched = status == StatusCode::SWITCHING_PROTOCOLS;
        let framed_twice = headers.contains_key(TRANSFER_ENCODING);
        let named = nominated(headers);
        let gone: Vec<HeaderName> =
            headers.keys().filter(|name| !self.keeps(name, switched) || (named.contains(name) && !switched)).cloned().collect();
        for name in gone {
            headers.remove(name);
        }
        keep_trailers(headers, |name| self.keeps(name, false) && !named.contains(name));
        if switched {
            headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        }
        if framed_twice || status == StatusCode::NO_CONTENT || switched {
            headers.remove(CONTENT_LENGTH);
        }
        if self.rewrites {
            self.map(headers, path);
        }
        if self.cookies && headers.contains_key(SET_COOKIE) {
            self.keep_cookies(headers);
        }
        if !self.browser && !switched {
            headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox"));
            headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
            headers.insert(CROSS_ORIGIN_RESOURCE_POLICY, HeaderValue::from_static("same-origin"));
        }
        if let Ok(id) = HeaderValue::from_str(id) {
            headers.insert(X_REQUEST_ID, id);
        }
    }

    fn lead_link(&self, link: &HeaderValue, path: &str) -> HeaderValue {
        let mapped = link.to_str().ok().and_then(|text| self.links.map_link(text, path)).and_then(|text| text.try_into().ok());
        mapped.unwrap_or_else(|| link.clone())
    }

    fn keeps(&self, name: &HeaderName, switched: bool) -> bool {
        match *name {
            SET_COOKIE => self.cookies,
            CONTENT_LENGTH => true,
            UPGRADE => switched,
            _ => {
                let text = name.as_str();
                let foreign = text.starts_with("access-control-") || NOT_THEIRS.contains(&text);
                !is_never(text) && !ORDERS.contains(&text) && (self.browser || !foreign)
            }
        }
    }

    fn map(&self, headers: &mut HeaderMap, path: &str) {
        let location = headers.get(LOCATION).and_then(|v| v.to_str().ok()).and_then(|v| self.links.map(v, path));
        if let Some(Ok(location)) = location.map(HeaderValue::try_from) {
            headers.insert(LOCATION, location);
        }
        if !headers.contains_key(LINK) {
            return;
        }
        let links: Vec<HeaderValue> = headers.get_all(LINK).iter().map(|link| self.lead_link(link, path)).collect();
        headers.remove(LINK);
        for link in links {
            headers.append(LINK, link);
        }
    }

    fn keep_cookies(&self, headers: &mut HeaderMap) {
        let cookies: Vec<HeaderValue> =
            headers.get_all(SET_COOKIE).iter().filter_map(|v| self.keep_cookie(v.to_str().ok()?)?.try_into().ok()).collect();
        headers.remove(SET_COOKIE);
        for cookie in cookies {
            headers.append(SET_COOKIE, cookie);
        }
    }

    /// A cookie that its own resource alone gets back: without `Domain`, with its `Path` below `/r/<resource>`. A
    /// `__Host-` cookie demands `Path=/`, which all resources share, so it cannot be kept (RFC 6265bis section 4.1.3).
    fn keep_cookie(&self, cookie: &str) -> Option<String> {
        if cookie.trim_start().get(..7).is_some_and(|p| p.eq_ignore_ascii_case("__host-")) {
            return None;
        }
        let mut parts = cookie.split(';');
        let mut kept = vec![parts.next()?.trim().to_owned()];
        let mut path = None;
        for part in parts.map(str::trim) {
            let (name, value) = part.split_once('=').map_or((part, ""), |(n, v)| (n.trim(), v.trim()));
            if name.eq_ignore_ascii_case("path") {
                path = Some(value);
            } else if !name.eq_ignore_ascii_case("domain") && !part.is_empty() {
                kept.push(part.to_owned());
            }
        }
        let inside = path.filter(|p| p.starts_with('/') && crate::path::check(p).is_ok()).and_then(|p| self.links.inside(p));
        kept.push(format!("Path={}", inside.as_deref().unwrap_or(self.links.prefix())));
        Some(kept.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Origin;

    fn back() -> Back {
        Back {
            links: Links::new("x", &Origin::parse("https", "api.example").unwrap(), "/v1"),
            rewrites: true,
            paging: None,
            cookies: true,
            browser: false,
        }
    }

    #[test]
    fn cookies_stay_below_their_resource() {
        for (cookie, kept) in [
            ("a=b", "a=b; Path=/r/x"),
            ("a=b; Path=/; Domain=example; Secure; HttpOnly", "a=b; Secure; HttpOnly; Path=/r/x"),
            ("a=b; path=/v1/c; SameSite=Lax", "a=b; SameSite=Lax; Path=/r/x/c"),
            ("a=b; Path=/v10", "a=b; Path=/r/x"),
            ("a=b; Path=/v1/../../y", "a=b; Path=/r/x"),
            ("a=b; Path=c; ; Path=/v1/d", "a=b; Path=/r/x/d"),
        ] {
            assert_eq!(back().keep_cookie(cookie).as_deref(), Some(kept), "{cookie}");
        }
        assert_eq!(back().keep_cookie("__Host-a=b; Path=/; Secure"), None);
    }

    #[test]
    fn a_length_beside_chunks_is_not_passed_on() {
        let mut response =
            Response::builder().header("content-length", "5").header("transfer-encoding", "chunked").body(Body::Empty).unwrap();
        back().clean(&mut response, "/v1/a", "id");
        assert!(response.headers().get("content-length").is_none() && response.headers().get("transfer-encoding").is_none());
    }
}
