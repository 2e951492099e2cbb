//! The only place where an [`Error`] becomes a reply: problem+json (RFC 9457) with `Proxy-Status` (RFC 9209).

use http::header::{ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderName, HeaderValue, Response};
use serde_json::json;

use crate::body::Body;
use crate::error::{Error, Fault};

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");
/// What is forwarded, for `Allow` on a 405 (RFC 9110 section 15.5.6).
const FORWARDED_METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

/// The reply to a request that failed. `id` is the request id, `resource` the name, once known.
pub fn reply(error: &Error, id: &str, resource: Option<&str>) -> Response<Body> {
    log(error, id, resource);
    let mut problem = json!({
        "type": format!("urn:postern:error:{}", error.code()),
        "title": error.title(),
        "status": error.status().as_u16(),
        "detail": error.detail(),
        "code": error.code(),
        "request_id": id,
        "fault": error.fault().word(),
        "retryable": error.retryable(),
        "hint": error.hint(),
    });
    if let Some(resource) = resource {
        problem["resource"] = resource.into();
    }
    if let Some(connection) = error.connection() {
        problem["connection"] = connection.into();
    }
    if let Some(link) = error.link() {
        problem["connect_url"] = link.into();
    }
    // A line end, so that a shell prompt does not stick to the answer.
    let mut response = Response::new(Body::Full(format!("{problem}\n").into()));
    *response.status_mut() = error.status();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Ok(id) = HeaderValue::from_str(id) {
        headers.insert(X_REQUEST_ID, id);
    }
    let details = error.detail().replace(['"', '\\'], "'");
    if let Ok(status) = HeaderValue::from_str(&format!("postern; error={}; details=\"{details}\"", error.proxy_status())) {
        headers.insert(PROXY_STATUS, status);
    }
    if let Some(wait) = error.retry_after() {
        headers.insert(RETRY_AFTER, HeaderValue::from(wait.as_secs().max(1)));
    }
    if matches!(error, Error::MethodNotAllowed(_)) {
        headers.insert(ALLOW, HeaderValue::from_static(FORWARDED_METHODS));
    }
    if matches!(error, Error::Unauthenticated(..)) {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"postern\""));
    }
    if ends_the_connection(error) {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Whether nothing more is read from a client after this: what is left of the request is not worth reading, cannot be told
/// from the next one, or comes from somebody who tries doors.
fn ends_the_connection(error: &Error) -> bool {
    matches!(
        error,
        Error::BadRequest(..)
            | Error::BadPath(..)
            | Error::MethodNotAllowed(_)
            | Error::SlowHead
            | Error::SlowBody
            | Error::BodyTooLarge(..)
            | Error::HeadersTooLarge(_)
            | Error::Draining
    )
}

/// The operator hears of what is theirs to mend; a caller's mistakes are the audit log's business.
fn log(error: &Error, id: &str, resource: Option<&str>) {
    let resource = resource.unwrap_or("-");
    match error.fault() {
        Fault::Client => tracing::debug!(id, resource, code = error.code(), "{}", error.cause()),
        Fault::Upstream | Fault::Issuer => tracing::warn!(id, resource, code = error.code(), "{}", error.cause()),
        Fault::Gateway if matches!(error, Error::Internal(_)) => tracing::error!(id, resource, code = error.code(), "{}", error.cause()),
        Fault::Gateway => tracing::warn!(id, resource, code = error.code(), "{}", error.cause()),
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;
    use crate::error::{Stage, TlsFault, Unreachable};

    fn body(response: Response<Body>) -> serde_json::Value {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let bytes = runtime.block_on(response.into_body().collect()).unwrap().to_bytes();
        serde_json::from_slice(&bytes).unwrap()
    }

    #[test]
    fn a_reply_says_what_happened_and_what_to_change() {
        let response = reply(&Error::Timeout(Stage::Head), "id-1", Some("demo"));
        assert_eq!(response.status(), 504);
        assert_eq!(
            response.headers()[PROXY_STATUS],
            "postern; error=http_response_timeout; details=\"The upstream did not answer in time.\""
        );
        let problem = body(response);
        assert_eq!(problem["type"], "urn:postern:error:upstream-timeout");
        assert_eq!(problem["resource"], "demo");
        assert_eq!(problem["fault"], "upstream");
        assert_eq!(problem["retryable"], true);
        assert!(problem["hint"].as_str().unwrap().contains("timeouts.head"));
    }

    #[test]
    fn what_is_for_the_log_stays_out_of_the_reply() {
        for error in [
            Error::Internal("pointer at 0x1".into()),
            Error::Unreachable(Unreachable::Network("10.0.0.7: no route".into())),
            Error::Dns("db.internal".into()),
            Error::Tls(TlsFault::Handshake("alert 40".into())),
        ] {
            let cause = error.cause().into_owned();
            let text = body(reply(&error, "id", None)).to_string();
            assert!(!text.contains(&cause), "{text}");
        }
    }
}
