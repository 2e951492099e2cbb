//! Judges a request that came over HTTP/2 (RFC 9113 section 8), and makes it what the stack knows: a target in
//! origin-form, one `Host`, one `Cookie`. What `head.rs` is for HTTP/1.1.
//!
//! hyper has judged already: field names in lower case, pseudo-fields known, single and in front, none of the
//! connection's own fields, `TE` with nothing but `trailers`, a `Content-Length` that the body keeps to.

use std::borrow::Cow;

use http::header::{CONTENT_LENGTH, COOKIE, EXPECT, HOST};
use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, HeaderValue, Method, Request, Uri};

use super::head::Bounds;
use crate::error::Error;

/// Longest method, as over HTTP/1.1.
const METHOD_MAX: usize = 32;
/// Longest number in `Content-Length`.
const LENGTH_DIGITS_MAX: usize = 18;
/// What a field costs besides its name and its value: colon, space and line end, as over HTTP/1.1.
const FIELD_COST: usize = 4;

/// Judges a request and brings it into the form that the stack knows.
///
/// # Errors
/// [`Error::BadRequest`], [`Error::BadPath`], [`Error::HeadersTooLarge`], or [`Error::MethodNotAllowed`] for CONNECT.
pub fn judge<B>(request: &mut Request<B>, bounds: Bounds) -> Result<(), Error> {
    size(request, bounds)?;
    if request.method() == Method::CONNECT {
        return Err(Error::MethodNotAllowed("CONNECT".into()));
    }
    if request.method().as_str().len() > METHOD_MAX {
        return Err(refuse("The method is longer than 32 bytes.", "Use a registered method."));
    }
    fields(request.headers())?;
    let host = authority(request.uri(), request.headers())?;
    *request.uri_mut() = target(request.uri())?;
    let headers = request.headers_mut();
    headers.insert(HOST, host);
    // What is interim cannot be said over HTTP/2 (ruling H10), so nobody may wait for it.
    headers.remove(EXPECT);
    join_cookies(headers);
    Ok(())
}

fn size<B>(request: &Request<B>, bounds: Bounds) -> Result<(), Error> {
    let headers = request.headers();
    if headers.len() > bounds.fields {
        return Err(Error::HeadersTooLarge(format!("The head has more than {} fields (server.limits.headers).", bounds.fields).into()));
    }
    let target = request.uri().path_and_query().map_or(0, |p| p.as_str().len());
    let fields: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + FIELD_COST).sum();
    if target + fields > bounds.bytes {
        return Err(Error::HeadersTooLarge("The head of the request is too large (server.limits.header_bytes).".into()));
    }
    Ok(())
}

fn fields(headers: &HeaderMap) -> Result<(), Error> {
    for (name, value) in headers {
        let value = value.as_bytes();
        if value.first().is_some_and(is_space) || value.last().is_some_and(is_space) {
            return Err(refuse("A field's value begins or ends with white space.", "Leave it out: RFC 9113 section 8.2.1."));
        }
        match name.as_str() {
            "connection" | "keep-alive" | "proxy-connection" | "transfer-encoding" | "upgrade" | "http2-settings" => {
                return Err(refuse("A field belongs to an HTTP/1.1 connection.", "Leave it out: RFC 9113 section 8.2.2."));
            }
            // A lenient upstream may read `_` as `-`: nothing that frames a message comes in that spelling.
            text if text.contains('_') && matches!(text.replace('_', "-").as_str(), "content-length" | "transfer-encoding") => {
                return Err(refuse("A field imitates one that frames the message.", "Spell it with `-`."));
            }
            _ => {}
        }
    }
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let Some(length) = lengths.next() else { return Ok(()) };
    let digits = !length.is_empty() && length.len() <= LENGTH_DIGITS_MAX && length.as_bytes().iter().all(u8::is_ascii_digit);
    if !digits || lengths.next().is_some() {
        return Err(refuse("`Content-Length` is not one plain number.", "Send it once, in decimal digits only, or leave it out."));
    }
    Ok(())
}

fn is_space(b: &u8) -> bool {
    matches!(b, b' ' | b'\t')
}

/// The authority that the request is for, from `:authority`, else from `Host`; where both are there they agree.
fn authority(uri: &Uri, headers: &HeaderMap) -> Result<HeaderValue, Error> {
    let default = match uri.scheme_str() {
        Some("https") => "443",
        Some("http") | None => "80",
        Some(_) => return Err(refuse("`:scheme` is neither http nor https.", "Send `:scheme` http or https.")),
    };
    let mut hosts = headers.get_all(HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(refuse("There is more than one `Host` field.", "Send `:authority` alone."));
    }
    let Some(authority) = uri.authority() else {
        let host = host.ok_or_else(|| refuse("There is neither `:authority` nor `Host`.", "Send `:authority`."))?;
        return plain_host(host.as_bytes()).map(|()| host.clone());
    };
    plain_host(authority.as_str().as_bytes())?;
    let agrees = |host: &HeaderValue| host.to_str().is_ok_and(|host| crate::path::same_authority(host, authority.as_str(), default));
    if !host.is_none_or(agrees) {
        return Err(refuse("`Host` is another authority than `:authority`.", "Send `:authority` alone."));
    }
    HeaderValue::from_str(authority.as_str()).map_err(|_| refuse("`:authority` is no host with an optional port.", "Send `name:port`."))
}

/// A host with an optional port: no userinfo (RFC 9113 section 8.3.1), nothing that another parser could place elsewhere.
fn plain_host(host: &[u8]) -> Result<(), Error> {
    let good = !host.is_empty() && host.iter().all(|b| b.is_ascii_alphanumeric() || b"-._~:[]!$&'()*+;=%".contains(b));
    let read = std::str::from_utf8(host).ok().filter(|_| good).and_then(|h| h.parse::<Authority>().ok());
    match read {
        Some(authority) if !authority.host().is_empty() => Ok(()),
        _ => Err(refuse("The authority is not a host with an optional port.", "Send `name` or `name:port`, without a user.")),
    }
}

/// The target in origin-form, byte for byte.
fn target(uri: &Uri) -> Result<Uri, Error> {
    let target = uri.path_and_query().map_or("", PathAndQuery::as_str);
    if !target.starts_with('/') {
        return Err(refuse("`:path` does not begin with `/`.", "Send `/r/<resource>/<path>`."));
    }
    crate::path::carriable(target.as_bytes())?;
    let mut parts = http::uri::Parts::default();
    parts.path_and_query = uri.path_and_query().cloned();
    Uri::from_parts(parts).map_err(|_| refuse("`:path` is no target.", "Send `/r/<resource>/<path>`."))
}

/// Crumbs become one field before they go where HTTP/1.1 may be spoken (RFC 9113 section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let mut crumbs = headers.get_all(COOKIE).iter();
    let (Some(first), Some(second)) = (crumbs.next(), crumbs.next()) else { return };
    let mut all = first.as_bytes().to_vec();
    for crumb in std::iter::once(second).chain(crumbs) {
        all.extend_from_slice(b"; ");
        all.extend_from_slice(crumb.as_bytes());
    }
    if let Ok(mut value) = HeaderValue::from_bytes(&all) {
        value.set_sensitive(true);
        headers.insert(COOKIE, value);
    }
}

fn refuse(why: &'static str, hint: &'static str) -> Error {
    Error::BadRequest(Cow::Borrowed(why), Cow::Borrowed(hint))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { bytes: 1024, fields: 10 };

    fn request(uri: &str, fields: &[(&'static str, &'static str)]) -> Request<()> {
        let mut request = Request::new(());
        *request.uri_mut() = uri.parse().unwrap();
        for (name, value) in fields {
            request.headers_mut().append(*name, HeaderValue::from_static(value));
        }
        request
    }

    fn judged(uri: &str, fields: &[(&'static str, &'static str)]) -> Result<Request<()>, Error> {
        let mut request = request(uri, fields);
        judge(&mut request, BOUNDS).map(|()| request)
    }

    #[test]
    fn a_plain_request_takes_the_form_of_http_1_1() {
        let request =
            judged("http://localhost:80/r/a?b=1", &[("host", "LOCALHOST"), ("cookie", "a=1"), ("cookie", "b=2"), ("expect", "x")]);
        let request = request.unwrap();
        assert_eq!(request.uri(), "/r/a?b=1");
        assert_eq!(request.headers()["host"], "localhost:80");
        assert_eq!(request.headers().get_all("cookie").iter().collect::<Vec<_>>(), ["a=1; b=2"]);
        assert!(!request.headers().contains_key("expect"));
        assert_eq!(judged("/a", &[("host", "h:1")]).unwrap().headers()["host"], "h:1");
        assert!(judged("https://a/", &[("host", "a:443")]).is_ok());
    }

    #[test]
    fn what_could_be_read_two_ways_is_refused() {
        for (uri, fields) in [
            ("/a", &[][..]),
            ("/a", &[("host", "")]),
            ("/a", &[("host", "a@b")]),
            ("/a", &[("host", "a"), ("host", "a")]),
            ("http://a/", &[("host", "b")]),
            ("http://a/", &[("host", "a:81")]),
            ("http://a/", &[("host", "a"), ("host", "a")]),
            ("http://u@a/", &[]),
            ("http://u:p@a/", &[]),
            ("ftp://a/", &[]),
            ("http://a/", &[("content-length", "5"), ("content-length", "5")]),
            ("http://a/", &[("content-length", "+5")]),
            ("http://a/", &[("content-length", "")]),
            ("http://a/", &[("content-length", "1111111111111111111")]),
            ("http://a/", &[("content_length", "5")]),
            ("http://a/", &[("transfer_encoding", "chunked")]),
            ("http://a/", &[("transfer-encoding", "chunked")]),
            ("http://a/", &[("upgrade", "websocket")]),
            ("http://a/", &[("x", " a")]),
            ("http://a/", &[("x", "a\t")]),
        ] {
            assert!(judged(uri, fields).is_err(), "{uri} {fields:?}");
        }
    }

    #[test]
    fn a_head_over_its_bounds_is_refused() {
        let many = [("a", "b"); 11];
        assert!(matches!(judged("http://a/", &many), Err(Error::HeadersTooLarge(_))));
        let long: &'static str = "x".repeat(1024).leak();
        assert!(matches!(judged("http://a/", &[("a", long)]), Err(Error::HeadersTooLarge(_))));
    }

    #[test]
    fn connect_is_not_forwarded() {
        let mut request = request("http://a/", &[]);
        *request.method_mut() = Method::CONNECT;
        assert!(matches!(judge(&mut request, BOUNDS), Err(Error::MethodNotAllowed(_))));
    }
}
