//! `/api`: what runs, and reading it again. It needs `admin.token`; without one configured it answers on loopback only,
//! and changes nothing but what the operator has already written (rulings B15, B16).

use std::net::IpAddr;

use bytes::Bytes;
use http::header::{ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use http_body_util::Full;
use serde_json::{Value, json};

use crate::auth::grant::{Tokens, View};
use crate::error::Error;
use crate::reload::{Answer, Handle};
use crate::secret::Secret;
use crate::snapshot::Common;

/// Who calls, and by which listener.
#[derive(Clone, Copy, Debug)]
pub struct Caller {
    /// The address it calls from.
    pub ip: IpAddr,
    /// Whether it has called a loopback address.
    pub loopback: bool,
}

/// Answers one request below `/api`.
pub async fn answer(
    method: &Method,
    path: &str,
    headers: &HeaderMap,
    caller: Caller,
    common: &Common,
    reload: &Handle,
    tokens: &Tokens,
) -> Response<Full<Bytes>> {
    if let Err(refusal) = admit(headers, caller, common, Need::Look) {
        return *refusal;
    }
    match (method, path) {
        (&Method::GET | &Method::HEAD, "/api/config") => json_of(StatusCode::OK, &reload.state()),
        (&Method::GET | &Method::HEAD, "/api/tokens") => json_of(StatusCode::OK, &grants(tokens)),
        (&Method::POST, "/api/reload") => reloaded(reload).await,
        (_, "/api/config" | "/api/tokens") => not_allowed("GET, HEAD"),
        (_, "/api/reload") => not_allowed("POST"),
        _ => problem(
            StatusCode::NOT_FOUND,
            "bad-path",
            "There is no such call.",
            "GET /api/config, GET /api/tokens, GET /api/connections, POST /api/connect-sessions, POST /api/reload",
        ),
    }
}

/// The life of every token: states, ages and errors, and never a token (`docs/tokens.md`).
fn grants(tokens: &Tokens) -> Value {
    let now = tokens.clock().millis();
    let moment = |millis: u64| jiff::Timestamp::from_millisecond(i64::try_from(millis).unwrap_or(i64::MAX)).map(|t| t.to_string()).ok();
    let view = |view: View| {
        let mut shown = json!({
            "resource": &*view.resource,
            "scheme": view.scheme,
            "credential": &*view.credential,
            "state": view.state.word(),
        });
        if let Some(client) = &view.client {
            shown["client"] = (&**client).into();
        }
        if let Some(obtained) = view.obtained {
            shown["age"] = (now.saturating_sub(obtained) / 1000).into();
            shown["expires"] = view.expires.and_then(moment).into();
        }
        if let Some(due) = view.due {
            shown["next_attempt"] = moment(due).into();
        }
        if let Some((what, at)) = view.failure {
            shown["last_error"] = json!({ "time": moment(at), "what": what });
        }
        shown
    };
    json!({ "tokens": tokens.views().into_iter().map(view).collect::<Vec<_>>() })
}

/// What a call needs where no `admin.token` is configured.
#[derive(Clone, Copy, Debug)]
pub enum Need<'n> {
    /// To call from loopback: it only looks, or does what the operator has written already.
    Look,
    /// To bring this token too, as it changes something. `None`: there is none, so nobody can.
    Change(Option<&'n Secret>),
}

/// The same check for every call, before anything is told about which calls there are.
pub fn admit(headers: &HeaderMap, caller: Caller, common: &Common, need: Need<'_>) -> Result<(), Box<Response<Full<Bytes>>>> {
    if let Err(error) = common.site.judge(headers, caller.loopback) {
        return Err(Box::new(problem(error.status(), error.code(), &error.detail(), &error.hint())));
    }
    match &common.token {
        Some(token) if presents(headers, token) => Ok(()),
        Some(_) => Err(unauthenticated("This needs the admin token.", "Authorization: Bearer <admin.token>")),
        None if caller.ip.to_canonical().is_loopback() => match need {
            Need::Look => Ok(()),
            Need::Change(Some(token)) if presents(headers, token) => Ok(()),
            Need::Change(Some(_)) => {
                let hint = "Set admin.token, or bring the token in the file admin.token in the store's folder, as `postern connect` does.";
                Err(unauthenticated("This changes something, and needs a token.", hint))
            }
            Need::Change(None) => Err(unauthenticated("This changes something, and needs admin.token.", "Set admin.token.")),
        },
        None => Err(Box::new(problem(
            StatusCode::FORBIDDEN,
            "forbidden",
            "Without a token the admin API answers on loopback only.",
            "Set admin.token, and send it as Authorization: Bearer.",
        ))),
    }
}

fn unauthenticated(detail: &str, hint: &str) -> Box<Response<Full<Bytes>>> {
    let mut refusal = problem(StatusCode::UNAUTHORIZED, "unauthenticated", detail, hint);
    refusal.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"postern-admin\""));
    Box::new(refusal)
}

/// Whether the one `Authorization` field is `Bearer` with this token, compared in constant time.
fn presents(headers: &HeaderMap, token: &Secret) -> bool {
    let mut fields = headers.get_all(AUTHORIZATION).iter();
    let (Some(field), None) = (fields.next(), fields.next()) else { return false };
    let Some((scheme, presented)) = field.to_str().ok().and_then(|v| v.split_once(' ')) else { return false };
    scheme.eq_ignore_ascii_case("bearer") && Secret::new(presented.trim_start_matches(' ').to_owned()) == *token
}

async fn reloaded(reload: &Handle) -> Response<Full<Bytes>> {
    match reload.ask().await {
        Ok(Answer::Applied(version, difference)) => json_of(
            StatusCode::OK,
            &json!({ "version": &*version, "added": difference.added, "changed": difference.changed, "removed": difference.removed }),
        ),
        Ok(Answer::Refused(report)) => json_of(StatusCode::UNPROCESSABLE_ENTITY, &report),
        Err(error) => failed(&error),
    }
}

pub fn failed(error: &Error) -> Response<Full<Bytes>> {
    let mut response = problem(error.status(), error.code(), &error.detail(), &error.hint());
    if let Some(wait) = error.retry_after() {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(wait.as_secs().max(1)));
    }
    response
}

pub fn not_allowed(methods: &'static str) -> Response<Full<Bytes>> {
    let mut response = problem(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "This call has another method.", methods);
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(methods));
    response
}

pub fn problem(status: StatusCode, code: &str, detail: &str, hint: &str) -> Response<Full<Bytes>> {
    let title = status.canonical_reason().unwrap_or("Error");
    let body = json!({ "type": format!("urn:postern:error:{code}"), "title": title, "status": status.as_u16(), "detail": detail,
        "code": code, "hint": hint });
    let mut response = json_of(status, &body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    response
}

pub fn json_of(status: StatusCode, value: &Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(format!("{value}\n").into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn presents_of(fields: &[&'static str]) -> bool {
        let mut headers = HeaderMap::new();
        for field in fields {
            headers.append(AUTHORIZATION, HeaderValue::from_static(field));
        }
        presents(&headers, &Secret::new("right-token".into()))
    }

    #[test]
    fn only_the_one_right_token_is_taken() {
        for good in [["Bearer right-token"], ["bearer  right-token"]] {
            assert!(presents_of(&good), "{good:?}");
        }
        for wrong in [
            &[][..],
            &["Bearer wrong"],
            &["Bearer"],
            &["Bearer "],
            &["Basic right-token"],
            &["right-token"],
            &["Bearer right-token "],
            &["Bearer right-token", "Bearer right-token"],
        ] {
            assert!(!presents_of(wrong), "{wrong:?}");
        }
    }
}
