//! `/api/connections` and `/api/connect-sessions`: who asks for an account, redeems the code that a browser has brought, and
//! takes connections away. Whoever changes something needs a token, also where `admin.token` is not configured: then it is
//! the one in a file that only the gateway's own user reads, so that neither a page in a browser nor another user of the
//! machine connects accounts.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::api::{Need, failed, json_of, not_allowed};
use crate::auth::connection::New;
use crate::connect::{Begun, Desk, Opened, Order, Showing};
use crate::error::Error;
use crate::secret::Secret;

const CONNECTIONS: &str = "/api/connections";
const SESSIONS: &str = "/api/connect-sessions";
const REDEEM: &str = "/api/connect-sessions/redeem";
/// Largest body.
const BODY_MAX: usize = 64 * 1024;
/// How long it may take to arrive.
const PATIENCE: Duration = Duration::from_secs(10);

type Answer = Response<Full<Bytes>>;

/// Whether a path is answered here.
pub fn has(path: &str) -> bool {
    [CONNECTIONS, SESSIONS].iter().any(|room| path.strip_prefix(room).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
}

/// What such a request needs.
pub fn need<'n>(request: &Request<Incoming>, own_token: Option<&'n Secret>) -> Need<'n> {
    if matches!(*request.method(), Method::GET | Method::HEAD) { Need::Look } else { Need::Change(own_token) }
}

/// Answers whoever may.
pub async fn answer(request: Request<Incoming>, desk: Option<&Desk>) -> Answer {
    let Some(desk) = desk else { return failed(&Error::Internal("there is no desk for people who connect accounts".into())) };
    let path = request.uri().path().to_owned();
    let done = match (request.method(), path.as_str()) {
        (&Method::GET | &Method::HEAD, CONNECTIONS) => Ok(json_of(StatusCode::OK, &desk.connections())),
        (&Method::GET | &Method::HEAD, path) if session(path).is_some() => match session(path).and_then(|id| desk.session(id)) {
            Some(shown) => Ok(json_of(StatusCode::OK, &shown)),
            None => Err(Error::BadPath("There is no such session, or no longer.".into(), "POST /api/connect-sessions begins one.".into())),
        },
        (&Method::POST, SESSIONS) => begin(request, desk).await,
        (&Method::POST, REDEEM) => redeem(request, desk).await,
        (&Method::DELETE, path) if path.starts_with("/api/connections/") => disconnect(path, desk).await,
        (_, CONNECTIONS) => Ok(not_allowed("GET, HEAD")),
        (_, SESSIONS | REDEEM) => Ok(not_allowed("POST")),
        (_, path) if path.starts_with("/api/connections/") => Ok(not_allowed("DELETE")),
        _ => Err(Error::BadPath("There is no such call.".into(), "POST /api/connect-sessions, POST /api/connect-sessions/redeem".into())),
    };
    done.unwrap_or_else(|error| failed(&error))
}

/// The session that a path names.
fn session(path: &str) -> Option<&str> {
    path.strip_prefix(SESSIONS)?.strip_prefix('/').filter(|id| !id.is_empty() && path != REDEEM)
}

async fn begin(request: Request<Incoming>, desk: &Desk) -> Result<Answer, Error> {
    let body = Body::read(request, &["resource", "connection", "client", "return_url", "vars"]).await?;
    let resource = body.text("resource")?.ok_or_else(|| refused("`resource` is missing."))?;
    let vars = match body.0.get("vars") {
        None | Some(Value::Null) => None,
        Some(Value::Object(vars)) => {
            let text = |value: &Value| value.as_str().map(str::to_owned).ok_or_else(|| refused("`vars` are texts by name."));
            Some(vars.iter().map(|(name, value)| Ok((name.clone(), text(value)?))).collect::<Result<BTreeMap<_, _>, Error>>()?)
        }
        Some(_) => return Err(refused("`vars` are texts by name.")),
    };
    let order =
        Order { resource, connection: body.text("connection")?, client: body.text("client")?, return_url: body.text("return_url")?, vars };
    let moment = |millis: u64| jiff::Timestamp::from_millisecond(i64::try_from(millis).unwrap_or(i64::MAX)).map(|t| t.to_string()).ok();
    let shown = match desk.begin(order).await? {
        Begun::Browser(Opened { id, link, redirect_uri, until, connection }) => {
            json!({ "session": id, "connect_url": link.expose(), "redirect_uri": redirect_uri, "connection": &*connection, "expires": moment(until) })
        }
        Begun::Device(Showing { id, shown, until, connection }) => json!({
            "session": id, "user_code": shown.user_code, "verification_uri": shown.uri, "verification_uri_complete": shown.complete,
            "connection": &*connection, "expires": moment(until),
        }),
    };
    Ok(json_of(StatusCode::CREATED, &shown))
}

async fn redeem(request: Request<Incoming>, desk: &Desk) -> Result<Answer, Error> {
    let body = Body::read(request, &["code", "session", "look"]).await?;
    let code = body.text("code")?.ok_or_else(|| refused("`code` is missing."))?;
    let session = body.text("session")?;
    if body.flag("look")? {
        let New { owner, name, client, .. } = desk.shown(&code, session.as_deref()).await?;
        let shown = json!({ "connected": false, "resource": &*owner.resource, "connection": &*name, "client": client.as_deref() });
        return Ok(json_of(StatusCode::OK, &shown));
    }
    let (owner, account) = desk.redeem(&code, session.as_deref()).await?;
    let shown =
        json!({ "connected": true, "resource": &*owner.resource, "connection": &*account.name, "client": account.client.as_deref() });
    Ok(json_of(StatusCode::OK, &shown))
}

async fn disconnect(path: &str, desk: &Desk) -> Result<Answer, Error> {
    let names = path.strip_prefix("/api/connections/").and_then(|rest| rest.split_once('/'));
    let (resource, name) = names.ok_or_else(|| refused("The path names a resource and a connection."))?;
    let decoded = percent_encoding::percent_decode_str(name).decode_utf8().map_err(|_| refused("The name is no text."))?;
    let revoked = desk.disconnect(resource, &decoded).await?;
    Ok(json_of(StatusCode::OK, &json!({ "deleted": true, "resource": resource, "connection": decoded, "revoked": revoked })))
}

/// A JSON object with these members and no others.
struct Body(serde_json::Map<String, Value>);

impl Body {
    async fn read(request: Request<Incoming>, known: &[&str]) -> Result<Self, Error> {
        // Pages of other sites can send forms and plain text anywhere, but not this.
        let kind = request.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).and_then(|kind| kind.split(';').next());
        if kind.is_none_or(|kind| !kind.trim().eq_ignore_ascii_case("application/json")) {
            return Err(refused("The body is JSON: Content-Type: application/json."));
        }
        let reading = Limited::new(request.into_body(), BODY_MAX).collect();
        let bytes = match tokio::time::timeout(PATIENCE, reading).await {
            Ok(Ok(bytes)) => bytes.to_bytes(),
            Ok(Err(_)) => return Err(Error::BodyTooLarge(BODY_MAX as u64, "the bound of this call".into())),
            Err(_) => return Err(Error::SlowBody),
        };
        let Ok(Value::Object(map)) = serde_json::from_slice(&bytes) else { return Err(refused("The body is no JSON object.")) };
        match map.keys().find(|key| !known.contains(&key.as_str())) {
            Some(_) => Err(Error::BadRequest(
                "The body has a member that is not known here.".into(),
                format!("Known: {}", known.join(", ")).into(),
            )),
            None => Ok(Self(map)),
        }
    }

    fn flag(&self, name: &'static str) -> Result<bool, Error> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(_) => Err(Error::BadRequest(format!("`{name}` is true or false.").into(), "".into())),
        }
    }

    fn text(&self, name: &'static str) -> Result<Option<String>, Error> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err(Error::BadRequest(format!("`{name}` is a text.").into(), "".into())),
        }
    }
}

fn refused(why: &'static str) -> Error {
    Error::BadRequest(why.into(), "POST /api/connect-sessions {\"resource\": \"NAME\"}; docs/connections.md tells the rest.".into())
}
