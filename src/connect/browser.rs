//! What a browser says by itself: which name it calls, on whose behalf, and what it was given to keep. A page of another
//! site can send a browser here, which is how people come back from a provider, but not in a frame, not unseen, and not
//! with an answer in its name.

use http::header::{COOKIE, HOST, ORIGIN};
use http::{HeaderMap, HeaderName};

use crate::net::Origin;
use crate::secret::Secret;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
const SEC_FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");
const SEC_PURPOSE: HeaderName = HeaderName::from_static("sec-purpose");

/// Whether this is a person who goes to a page, as far as the browser says: no frame, no image, no script, no guess at
/// what the person might do next.
pub fn navigates(headers: &HeaderMap) -> bool {
    let says = |name: &HeaderName, good: &[u8]| headers.get_all(name).iter().all(|value| value.as_bytes() == good);
    says(&SEC_FETCH_MODE, b"navigate") && says(&SEC_FETCH_DEST, b"document") && !headers.contains_key(SEC_PURPOSE)
}

/// Whether a form was sent by one of our own pages. They tell no referrer, so their origin is `null` to some browsers: it
/// is the proof in the form that counts.
pub fn is_own(headers: &HeaderMap, origin: &Origin) -> bool {
    let own = origin.to_string();
    headers.get_all(SEC_FETCH_SITE).iter().all(|site| site.as_bytes() == b"same-origin")
        && headers.get_all(ORIGIN).iter().all(|said| said.as_bytes() == b"null" || said.as_bytes().eq_ignore_ascii_case(own.as_bytes()))
}

/// Whether the browser calls one of these names: another one is a name that was made to lead here (DNS rebinding).
pub fn calls(headers: &HeaderMap, names: &[String]) -> bool {
    let mut hosts = headers.get_all(HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else { return false };
    host.to_str().is_ok_and(|host| names.iter().any(|name| name.eq_ignore_ascii_case(host)))
}

/// The name of a session's cookie. `__Host-` ties it to this very host by TLS (RFC 6265bis); where there is no TLS, on
/// loopback, browsers would not take that.
pub fn cookie_name(id: &str, secure: bool) -> String {
    let front = if secure { "__Host-postern-" } else { "postern-" };
    [front, id].concat()
}

/// The cookie for a session, for as long as it lives. `Lax`: it must come along when the provider sends the browser back.
pub fn cookie(id: &str, value: &Secret, secure: bool) -> String {
    let scope = if secure { "Path=/; Secure" } else { "Path=/connect" };
    format!("{}={}; {scope}; HttpOnly; SameSite=Lax; Max-Age=600", cookie_name(id, secure), value.expose())
}

/// What the browser was given; `None` where it brings none or several.
pub fn brought(headers: &HeaderMap, name: &str) -> Option<Secret> {
    let pairs = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(';'));
    let mut found = pairs.filter_map(|pair| pair.trim().split_once('=')).filter(|(n, _)| *n == name).map(|(_, value)| value);
    match (found.next(), found.next()) {
        (Some(value), None) if !value.is_empty() => Some(Secret::new(value.to_owned())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn only_a_person_who_goes_to_a_page_passes() {
        for good in [&[][..], &[("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document"), ("sec-fetch-site", "cross-site")]] {
            assert!(navigates(&headers(good)));
        }
        for wrong in [("sec-fetch-dest", "iframe"), ("sec-fetch-dest", "image"), ("sec-fetch-mode", "no-cors"), ("sec-purpose", "prefetch")]
        {
            assert!(!navigates(&headers(&[wrong])), "{wrong:?}");
        }
    }

    #[test]
    fn a_form_of_another_site_is_not_our_own() {
        let own = Origin::parse("http", "127.0.0.1:8081").unwrap();
        for good in [&[][..], &[("origin", "http://127.0.0.1:8081")], &[("origin", "null"), ("sec-fetch-site", "same-origin")]] {
            assert!(is_own(&headers(good), &own));
        }
        for wrong in [
            &[("origin", "http://evil.example")][..],
            &[("origin", "http://127.0.0.1:8082")],
            &[("sec-fetch-site", "cross-site"), ("origin", "null")],
            &[("sec-fetch-site", "same-site")],
            &[("sec-fetch-site", "none")],
        ] {
            assert!(!is_own(&headers(wrong), &own), "{wrong:?}");
        }
    }

    #[test]
    fn a_foreign_name_is_noticed() {
        let names = ["127.0.0.1:8081".to_owned(), "gw.example".to_owned()];
        for (host, good) in [("127.0.0.1:8081", true), ("GW.example", true), ("evil.example", false), ("127.0.0.1", false)] {
            assert_eq!(calls(&headers(&[("host", host)]), &names), good, "{host}");
        }
        assert!(!calls(&headers(&[]), &names));
        assert!(!calls(&headers(&[("host", "gw.example"), ("host", "evil.example")]), &names));
    }

    #[test]
    fn one_cookie_of_the_name_counts_and_two_do_not() {
        let brought = |cookie: &'static str| brought(&headers(&[("cookie", cookie)]), "postern-a").map(|v| v.expose().to_owned());
        assert_eq!(brought("x=1; postern-a=v; y=2"), Some("v".into()));
        for wrong in ["postern-b=v", "postern-a=", "postern-a=v; postern-a=w", "Xpostern-a=v", ""] {
            assert_eq!(brought(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_cookie_is_for_this_host_and_no_script() {
        let value = Secret::new("v".into());
        assert_eq!(cookie("a", &value, true), "__Host-postern-a=v; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=600");
        assert!(!cookie("a", &value, false).contains("Domain"));
    }
}
