//! What the mock says: JSON answers, and problems (RFC 9457) that tell what to change. The mock is an upstream like any
//! other, so its problems are its own and are told apart by their `type`; the gateway's are in [`crate::error`].

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use http_body_util::Full;
use serde_json::json;

/// The body of every answer.
pub type Body = Full<Bytes>;

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    status: StatusCode,
    code: &'static str,
    detail: String,
    hint: String,
    header: Option<(HeaderName, &'static str)>,
}

impl Problem {
    fn new(status: StatusCode, code: &'static str, detail: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { status, code, detail: detail.into(), hint: hint.into(), header: None }
    }

    /// 400: the path or the query cannot be read.
    pub fn query(detail: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad-query", detail, hint)
    }

    /// 400: the body cannot be read.
    pub fn body(detail: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad-body", detail, hint)
    }

    /// 404.
    pub fn absent(detail: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", detail, hint)
    }

    /// 405, with what is allowed (RFC 9110 section 15.5.6).
    pub fn method(allow: &'static str) -> Self {
        let problem =
            Self::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "This method does nothing here.", format!("Allowed: {allow}"));
        Self { header: Some((ALLOW, allow)), ..problem }
    }

    /// 408: the body did not arrive.
    pub fn slow() -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, "slow-body", "The body did not arrive in time.", "Send it at once.")
    }

    /// 409.
    pub fn conflict(detail: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "conflict", detail, hint)
    }

    /// 412 (RFC 9110 section 15.5.13).
    pub fn precondition() -> Self {
        let hint = "Read the record again: somebody changed it, or the ETag is of another one.";
        Self::new(
            StatusCode::PRECONDITION_FAILED,
            "precondition-failed",
            "The record is not in the state that If-Match or If-None-Match asks for.",
            hint,
        )
    }

    /// 413: a body or a record over so many bytes.
    pub fn large(limit: usize) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", format!("A record may have at most {limit} bytes."), "Send less.")
    }

    /// 415.
    pub fn media(detail: impl Into<String>) -> Self {
        let hint = "Send JSON with `Content-Type: application/json`; with curl: --json '{\"name\":\"Ada\"}'";
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", detail, hint)
    }

    /// 422: it would take too much work.
    pub fn work(detail: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "too-much-work", detail, hint)
    }

    /// 503: too many searches at a time.
    pub fn busy() -> Self {
        let problem = Self::new(StatusCode::SERVICE_UNAVAILABLE, "busy", "Too many searches run already.", "Try again shortly.");
        Self { header: Some((RETRY_AFTER, "1")), ..problem }
    }

    /// 507: no room for another change (RFC 4918 section 11.5).
    pub fn full(detail: impl Into<String>) -> Self {
        let hint = "Delete records that you created, or start the mock anew: changes live in memory only.";
        Self::new(StatusCode::INSUFFICIENT_STORAGE, "full", detail, hint)
    }

    /// The answer that says so.
    pub fn answer(self) -> Response<Body> {
        let text = json!({
            "type": format!("urn:postern:mock:{}", self.code),
            "title": self.status.canonical_reason().unwrap_or("Problem"),
            "status": self.status.as_u16(),
            "code": self.code,
            "detail": self.detail,
            "hint": self.hint,
        });
        let mut answer = full(self.status, "application/problem+json", &text.to_string());
        if let Some((name, value)) = self.header {
            answer.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        answer
    }
}

/// JSON with this status.
pub fn json(status: StatusCode, text: &str) -> Response<Body> {
    full(status, "application/json", text)
}

/// No body at all: for 204 and 304.
pub fn empty(status: StatusCode) -> Response<Body> {
    let mut answer = Response::new(Body::default());
    *answer.status_mut() = status;
    answer
}

/// The newline is for people who read answers in a terminal.
fn full(status: StatusCode, media: &'static str, text: &str) -> Response<Body> {
    let mut bytes = Vec::with_capacity(text.len() + 1);
    bytes.extend_from_slice(text.as_bytes());
    bytes.push(b'\n');
    let mut answer = Response::new(Body::from(bytes));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media));
    answer
}
