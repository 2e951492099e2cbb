//! `${vault:MOUNT/PATH#FIELD}`: version 2 of the KV engine of a Vault or OpenBao, over five HTTP calls: read a secret, and
//! log in, look up and renew the token that this takes. The first segment of a path is the mount.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, StatusCode};
use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::ask::{Document, Trouble, text_of};
use crate::net::{self, Bounds, Upstream};
use crate::secret::{Mask, Secret};

const TOKEN: HeaderName = HeaderName::from_static("x-vault-token");
const NAMESPACE: HeaderName = HeaderName::from_static("x-vault-namespace");
/// Refuses calls that were not meant as such.
const REQUEST: HeaderName = HeaderName::from_static("x-vault-request");
/// What bounds each call.
const BOUNDS: Bounds = Bounds { time: Duration::from_secs(10), bytes: 1 << 20 };
/// Most characters of the server's own words in a message.
const WORDS_MAX: usize = 200;
/// A token is renewed when this part of its life is left.
const RENEW_AT: f64 = 0.4;

/// `vault`.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `address`.
    pub upstream: Arc<Upstream>,
    /// What follows the origin in `address`.
    pub path: String,
    /// `namespace`.
    pub namespace: Option<HeaderValue>,
    /// How it knows us.
    pub login: Login,
    /// How often secrets are read anew.
    pub refresh: Duration,
}

/// How a Vault knows us.
#[derive(Clone, Debug)]
pub enum Login {
    /// `token`.
    Token(Secret),
    /// `kubernetes`: the token of our service account, for a role.
    Kubernetes {
        /// `role`.
        role: String,
        /// `mount`: where the method is mounted below `auth/`.
        mount: String,
        /// `jwt`.
        jwt: Secret,
    },
}

/// The token of a login, over all calls of one Vault.
#[derive(Debug, Default)]
pub struct Session(Mutex<Option<Token>>);

#[derive(Clone, Debug)]
struct Token {
    value: HeaderValue,
    renewable: bool,
    /// When it ends, and how long it lives from one renewal to the next. None lives for ever, or says nothing.
    life: Option<(Instant, Duration)>,
}

impl Token {
    /// When it should be renewed.
    fn due(&self) -> Option<Instant> {
        self.life.map(|(end, length)| end - length.mul_f64(RENEW_AT))
    }
}

impl Session {
    /// Reads a secret. A token that we asked for ourselves and that is refused is asked for once more.
    ///
    /// # Errors
    /// Why there is no value.
    pub async fn fetch(&self, id: &str, settings: &Settings) -> Result<Document, Trouble> {
        let (mount, path) = id.split_once('/').unwrap_or((id, ""));
        let target = format!("{}/v1/{}/data/{}", settings.path, encode(mount), path.split('/').map(encode).collect::<Vec<_>>().join("/"));
        let token = self.token(settings).await?;
        let mut answer = call(settings, Method::GET, &target, Some(&token), None).await?;
        if answer.0 == StatusCode::FORBIDDEN && matches!(settings.login, Login::Kubernetes { .. }) {
            self.forget(&token).await;
            let token = self.token(settings).await?;
            answer = call(settings, Method::GET, &target, Some(&token), None).await?;
        }
        match answer {
            (StatusCode::OK, body) => document(&body),
            (StatusCode::NOT_FOUND, _) => Err(Trouble::new(
                "the Vault has no such secret",
                "MOUNT/PATH: the mount of a KV engine of version 2, and the path without `data/`",
            )),
            (StatusCode::FORBIDDEN, body) => {
                Err(refused("the Vault refuses", &body, settings, "does a policy of the token allow `read` on MOUNT/data/PATH?"))
            }
            (status, body) => Err(refused(&format!("the Vault answers {}", status.as_u16()), &body, settings, "")),
        }
    }

    /// Renews the token if it is time, and says when it will be again.
    pub async fn keep(&self, settings: &Settings) -> Option<Instant> {
        let due = self.0.lock().await.as_ref().and_then(Token::due);
        if due.is_some_and(|due| due <= Instant::now())
            && let Err(trouble) = self.token(settings).await
        {
            tracing::warn!("the token of the Vault cannot be renewed: {}", trouble.why);
        }
        self.0.lock().await.as_ref().and_then(Token::due)
    }

    async fn forget(&self, value: &HeaderValue) {
        let mut held = self.0.lock().await;
        if held.as_ref().is_some_and(|token| token.value == value) {
            *held = None;
        }
    }

    /// A token that is good for a while. Who asks while another fetches it waits for that.
    async fn token(&self, settings: &Settings) -> Result<HeaderValue, Trouble> {
        let mut held = self.0.lock().await;
        if let Some(token) = &mut *held {
            if token.due().is_none_or(|due| due > Instant::now()) {
                return Ok(token.value.clone());
            }
            let renewed = if token.renewable { renew(token, settings).await } else { Err(Trouble::new("it cannot be renewed", "")) };
            match (renewed, &settings.login) {
                (Ok(renewed), _) => *token = renewed,
                (Err(_), Login::Kubernetes { .. }) => *token = login(settings).await?,
                // It may still serve for the rest of its life; then the Vault says so.
                (Err(trouble), Login::Token(_)) => {
                    tracing::warn!("the token of the Vault ends soon: {}", trouble.why);
                    token.life = None;
                }
            }
            return Ok(token.value.clone());
        }
        let token = login(settings).await?;
        let value = token.value.clone();
        *held = Some(token);
        Ok(value)
    }
}

async fn login(settings: &Settings) -> Result<Token, Trouble> {
    match &settings.login {
        Login::Token(secret) => {
            let value = header(secret)?;
            let target = format!("{}/v1/auth/token/lookup-self", settings.path);
            match call(settings, Method::GET, &target, Some(&value), None).await? {
                (StatusCode::OK, body) => {
                    let body = parse(&body)?;
                    let data = &body["data"];
                    Ok(token(value, data["renewable"] == true, data["ttl"].as_u64(), data["creation_ttl"].as_u64()))
                }
                // Not every token may look at itself. Whether it is good is seen when it is used.
                (StatusCode::FORBIDDEN | StatusCode::NOT_FOUND, _) => Ok(token(value, false, None, None)),
                (status, body) => Err(refused(&format!("the Vault answers {}", status.as_u16()), &body, settings, "")),
            }
        }
        Login::Kubernetes { role, mount, jwt } => {
            let target = format!("{}/v1/auth/{}/login", settings.path, mount.split('/').map(encode).collect::<Vec<_>>().join("/"));
            let body = json!({ "role": role, "jwt": jwt.expose() }).to_string();
            match call(settings, Method::POST, &target, None, Some(body)).await? {
                (StatusCode::OK, body) => granted(&body),
                (status, body) => Err(refused(
                    &format!("the Vault answers {} to the login as `{role}`", status.as_u16()),
                    &body,
                    settings,
                    "is the role bound to this service account and namespace?",
                )),
            }
        }
    }
}

async fn renew(token: &Token, settings: &Settings) -> Result<Token, Trouble> {
    let target = format!("{}/v1/auth/token/renew-self", settings.path);
    match call(settings, Method::POST, &target, Some(&token.value), Some("{}".into())).await? {
        (StatusCode::OK, body) => {
            let renewed = granted(&body)?;
            // At the end of its greatest life a token is renewed for less and less; that is a refusal in small steps.
            let before = token.life.map(|(_, length)| length).unwrap_or_default();
            if renewed.life.is_some_and(|(_, length)| length < before.mul_f64(RENEW_AT)) {
                return Err(Trouble::new("it has reached its greatest life", ""));
            }
            Ok(renewed)
        }
        (status, body) => Err(refused(&format!("the Vault answers {}", status.as_u16()), &body, settings, "")),
    }
}

fn granted(body: &Bytes) -> Result<Token, Trouble> {
    let body = parse(body)?;
    let auth = &body["auth"];
    let Some(value) = auth["client_token"].as_str() else { return Err(Trouble::new("the Vault's answer holds no token", "")) };
    let length = auth["lease_duration"].as_u64();
    Ok(token(header(&Secret::new(value.to_owned()))?, auth["renewable"] == true, length, length))
}

/// `left` and `length` in seconds; zero is for ever.
fn token(value: HeaderValue, renewable: bool, left: Option<u64>, length: Option<u64>) -> Token {
    let left = left.filter(|left| *left > 0).map(Duration::from_secs);
    let life = left.map(|left| (Instant::now() + left, length.filter(|l| *l > 0).map_or(left, Duration::from_secs)));
    Token { value, renewable, life }
}

fn header(secret: &Secret) -> Result<HeaderValue, Trouble> {
    let mut value =
        HeaderValue::from_str(secret.expose()).map_err(|_| Trouble::new("the token of the Vault holds what no header may", ""))?;
    value.set_sensitive(true);
    Ok(value)
}

async fn call(
    settings: &Settings,
    method: Method,
    target: &str,
    token: Option<&HeaderValue>,
    body: Option<String>,
) -> Result<(StatusCode, Bytes), Trouble> {
    let mut request = Request::builder().method(method).uri(target).header(REQUEST, "true");
    if let Some(token) = token {
        request = request.header(TOKEN, token);
    }
    if let Some(namespace) = &settings.namespace {
        request = request.header(NAMESPACE, namespace);
    }
    if body.is_some() {
        request = request.header(http::header::CONTENT_TYPE, "application/json");
    }
    let request =
        request.body(Bytes::from(body.unwrap_or_default())).map_err(|error| Trouble::new(format!("this cannot be asked: {error}"), ""))?;
    let answer = net::fetch(&settings.upstream, request, BOUNDS).await;
    let answer =
        answer.map_err(|error| Trouble::new(format!("the Vault does not answer: {}", error.cause()), "is `vault.address` right?"))?;
    Ok((answer.status(), answer.into_body()))
}

fn parse(body: &Bytes) -> Result<Value, Trouble> {
    serde_json::from_slice(body).map_err(|_| Trouble::new("the Vault's answer is not JSON", "is `vault.address` right?"))
}

fn document(body: &Bytes) -> Result<Document, Trouble> {
    let body = parse(body)?;
    let Some(map) = body["data"]["data"].as_object() else {
        return Err(Trouble::new(
            "the Vault's answer is none of version 2 of the KV engine",
            "KV version 1 and other engines are not supported",
        ));
    };
    Ok(Document::Map(map.iter().filter_map(|(name, value)| Some((name.clone(), text_of(value)?))).collect()))
}

/// What the server says about it, without what we told it.
fn refused(what: &str, body: &Bytes, settings: &Settings, hint: &str) -> Trouble {
    let words =
        parse(body).ok().and_then(|b| Some(b["errors"].as_array()?.iter().filter_map(Value::as_str).collect::<Vec<_>>().join("; ")));
    let words: String = words.unwrap_or_default().chars().filter(|c| !c.is_control()).take(WORDS_MAX).collect();
    let own = match &settings.login {
        Login::Token(secret) | Login::Kubernetes { jwt: secret, .. } => secret,
    };
    let words = Mask::new([own]).apply(&words).unwrap_or(words);
    Trouble::new(if words.is_empty() { what.to_owned() } else { format!("{what}: {words}") }, hint)
}

fn encode(segment: &str) -> String {
    percent_encoding::utf8_percent_encode(segment, percent_encoding::NON_ALPHANUMERIC).to_string().replace("%2D", "-").replace("%5F", "_")
}
