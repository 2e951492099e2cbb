//! The three legs of OAuth 1.0a (RFC 5849 section 2): a temporary credential, a person's yes, a token.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, USER_AGENT};
use http::{HeaderValue, Method, Request, Response};
use serde_json::Value as Json;

use super::{Own, Subject};
use crate::auth::Reading;
use crate::auth::captured::{Captured, Held};
use crate::auth::consent::{Ask, Back, Begun, Consent, Kept, Params, Refusal, Working};
use crate::auth::grant::{self, Material};
use crate::auth::oauth::PATIENCE;
use crate::auth::oauth::call::{self, Endpoint, Param, Shape};
use crate::auth::oauth::form::Form;
use crate::auth::token::{Failure, Minted};
use crate::auth::whose::{Asking, Whose};
use crate::clock::Clock;
use crate::error::{Error, Trouble};
use crate::expr::{Names, Settings};
use crate::net::Origin;
use crate::secret::Secret;
use crate::tree::{Fields, Node};

/// Largest answer with a credential.
const ANSWER_MAX: u64 = 64 * 1024;
/// Under this name the secret of the token is kept beside it.
const SECRET: &str = "oauth_token_secret";

/// `consent` as the operator writes it.
#[derive(Debug)]
pub struct Written {
    request: Endpoint,
    authorize: (Origin, String),
    access: Endpoint,
    params: Vec<Param>,
    /// What their expressions read.
    settings: Arc<Settings>,
    redirect_uri: Option<String>,
    time: std::time::Duration,
}

/// A consent by a temporary credential.
pub struct ByToken {
    own: Own,
    written: Written,
}

impl std::fmt::Debug for ByToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ByToken")
    }
}

impl Written {
    /// Reads `{ request_url, authorize_url, access_url, params, redirect_uri }` (ruling E19).
    pub fn read(node: &Node, reading: Reading<'_>) -> Option<Self> {
        let (context, problems) = (reading.context, reading.problems);
        let fields = Fields::of(node, "a map with `request_url`, `authorize_url` and `access_url`", problems)?;
        let endpoint = |key: &'static str| fields.need(key).and_then(|node| Endpoint::read(node, Names::NONE, None, context, problems));
        let (request, access) = (endpoint("request_url"), endpoint("access_url"));
        let authorize = fields.need("authorize_url").and_then(|node| {
            let endpoint = Endpoint::read(node, Names::NONE, None, context, problems)?;
            Some((endpoint.origin().clone(), endpoint.url().to_owned()))
        });
        let params = call::params(fields.node("params"), Shape::Form, Names::NONE, context, problems);
        let redirect_uri = fields.node("redirect_uri").map(|node| {
            let endpoint = Endpoint::read(node, Names::NONE, None, context, problems)?;
            Some(endpoint.url().to_owned())
        });
        if !context.durable {
            let hint = "store: { file: { path: ./data } }";
            problems.error(node.place, "what a person has consented to is kept, and `store: memory` would lose it", hint);
            return None;
        }
        fields.finish();
        let redirect_uri = match redirect_uri {
            Some(read) => Some(read?),
            None => None,
        };
        Some(Self {
            request: request?,
            authorize: authorize?,
            access: access?,
            params: params?,
            settings: context.settings.clone(),
            redirect_uri,
            time: context.head.min(PATIENCE),
        })
    }

    /// The consent that this consumer asks for.
    pub fn by(self, own: Own) -> Arc<ByToken> {
        Arc::new(ByToken { own, written: self })
    }
}

/// The token of a connection, and its secret.
pub fn pair(minted: &Minted) -> Option<(&str, &Secret)> {
    Some((minted.access.as_ref()?.expose(), minted.captured.get(SECRET)?.secret()))
}

impl ByToken {
    /// Asks for a credential, and returns it with its secret and what came with it.
    async fn credential(
        &self,
        endpoint: &Endpoint,
        own: &Own,
        protocol: &[(&'static str, &str)],
        form: &Form,
    ) -> Result<(Secret, Secret, Params), Failure> {
        let body = form.encoded();
        let target = endpoint.target().map_err(Failure::Own)?;
        let subject = Subject {
            method: "POST",
            scheme: if endpoint.origin().is_https() { "https" } else { "http" },
            authority: endpoint.origin().authority().to_str().unwrap_or_default(),
            path: target.path(),
            query: target.query().unwrap_or_default(),
            protocol,
        };
        let (nonce, now) = own.occasion().map_err(Failure::Own)?;
        let value = own.authorization(&subject, Some(body.as_bytes()), &nonce, &now).map_err(Failure::Own)?;
        let mut request = Request::new(Bytes::from(body.as_bytes().to_vec()));
        *request.method_mut() = Method::POST;
        let headers = request.headers_mut();
        headers.insert(AUTHORIZATION, value);
        headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("postern/", env!("CARGO_PKG_VERSION"))));
        if !body.is_empty() {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        }
        *request.uri_mut() = target.clone();
        let sent = endpoint.ask(request, self.written.time, ANSWER_MAX).await;
        let response = sent.map_err(|error| unanswered(endpoint, &error))?;
        let params = understood(&response)?;
        let text = |name: &str| params.one(name).ok().flatten().cloned();
        match (text("oauth_token"), text(SECRET)) {
            (Some(token), Some(secret)) => Ok((token, secret, params)),
            _ => Err(down("The provider's answer holds no token with its secret.")),
        }
    }
}

impl Consent for ByToken {
    fn provider(&self) -> String {
        self.written.authorize.0.to_string()
    }

    fn parties(&self) -> Material {
        Material::of(["oauth1", &self.written.access.issuer(), &self.own.consumer_key].map(str::as_bytes))
    }

    fn scopes(&self) -> Vec<String> {
        Vec::new()
    }

    fn redirect_uri(&self) -> Option<&str> {
        self.written.redirect_uri.as_deref()
    }

    fn begin<'a>(&'a self, ask: Ask<'a>) -> Working<'a, Begun> {
        Box::pin(async move {
            // OAuth 1.0a has no state: it travels in the address to which the provider sends the browser.
            let callback = Secret::new(format!("{}?state={}", ask.redirect_uri, crate::uri::encode_query(ask.state.expose())));
            let mut form = Form::default();
            let whose = Whose::with(ask.vars);
            let asking = Asking::new(&self.written.settings, grant::Ask { before: None, whose: &whose, clock: ask.clock });
            for (name, argument) in &self.written.params {
                if let Some(value) = argument.as_ref().map(|argument| argument.make(&asking)).transpose()?.flatten() {
                    form.set(name, value);
                }
            }
            let protocol = [("oauth_callback", callback.expose())];
            let (token, secret, params) = self.credential(&self.written.request, &self.own, &protocol, &form).await?;
            // A provider that does not know of callbacks cannot tell one person's yes from another's (section 2.1).
            if params.one("oauth_callback_confirmed").ok().flatten().is_none_or(|confirmed| confirmed.expose() != "true") {
                return Err(down("The provider does not confirm the callback, as OAuth 1.0a demands.").into());
            }
            let url = &self.written.authorize.1;
            let mark = if url.contains('?') { '&' } else { '?' };
            let url = Secret::new(format!("{url}{mark}oauth_token={}", crate::uri::encode_query(token.expose())));
            Ok(Begun { url, kept: Kept { verifier: Some(secret), token: Some(token), ..Kept::default() } })
        })
    }

    fn finish<'a>(&'a self, back: Back<'a>) -> Working<'a, Minted> {
        Box::pin(async move {
            let one = |name: &str| back.params.one(name).map_err(Refusal::Wrong);
            if one("denied")?.is_some() {
                return Err(Refusal::Denied("access_denied".into(), None));
            }
            let (Some(token), Some(secret)) = (&back.kept.token, &back.kept.verifier) else {
                return Err(Refusal::Wrong("nothing was asked for".into()));
            };
            // The yes must be to this very credential.
            if one("oauth_token")? != Some(token) {
                return Err(Refusal::Wrong("the answer is about another credential than the one that was asked for".into()));
            }
            let verifier = one("oauth_verifier")?.ok_or_else(|| Refusal::Wrong("`oauth_verifier` is missing in the answer".into()))?;
            let own = self.own.with(token.expose().to_owned(), secret).map_err(Failure::Own)?;
            let protocol = [("oauth_verifier", verifier.expose())];
            let asked = back.clock.millis();
            let (token, secret, _) = self.credential(&self.written.access, &own, &protocol, &Form::default()).await?;
            let mut captured = Captured::default();
            captured.insert(SECRET, Held::Text(secret)).map_err(|full| Refusal::Wrong(full.0.into()))?;
            Ok(Minted { access: Some(token), captured, obtained: asked, ..Minted::default() })
        })
    }

    fn revoke<'a>(&'a self, _: &'a Minted, _: &'a Clock) -> Working<'a, bool> {
        // OAuth 1.0a knows no way.
        Box::pin(async { Ok(false) })
    }
}

fn understood(response: &Response<Bytes>) -> Result<Params, Failure> {
    if !response.status().is_success() {
        return Err(down(&format!("The provider answers {} and gives no credential.", response.status().as_u16())));
    }
    let text = std::str::from_utf8(response.body()).ok().map(str::trim);
    // Some answer in JSON, whatever the standard says.
    let json: Option<Json> = text.filter(|text| text.starts_with('{')).and_then(|text| serde_json::from_str(text).ok());
    let form = json.as_ref().and_then(Json::as_object).map(|map| {
        let pair = |(name, value): (&String, &Json)| {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            format!("{}={}", crate::uri::encode_query(name), crate::uri::encode_query(&text))
        };
        map.iter().map(pair).collect::<Vec<_>>().join("&")
    });
    let form = zeroize::Zeroizing::new(form.or_else(|| text.map(str::to_owned)).unwrap_or_default());
    Params::read(&form).ok_or_else(|| down("The provider's answer is no form."))
}

fn unanswered(endpoint: &Endpoint, error: &Error) -> Failure {
    let cause = format!("{} gives no credential: {}", endpoint.origin(), error.cause());
    let detail = format!("The provider could not be asked for a credential: {}", error.detail());
    Failure::Down(Trouble { detail: detail.into(), hint: "Check the addresses under `consent`.".into(), cause: cause.into() }, None)
}

fn down(what: &str) -> Failure {
    let hint = "Check consumer, signature and addresses against the provider's manual, and the callback that it knows.";
    Failure::Down(Trouble { detail: what.to_owned().into(), hint: hint.into(), cause: what.to_owned().into() }, None)
}
