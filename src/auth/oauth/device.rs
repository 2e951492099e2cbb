//! `oauth2_device`: the device authorization grant (RFC 8628). Its two calls have the dialects of every token call.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Response, StatusCode};
use serde_json::{Map, Value as Json};

use super::Oauth;
use super::call::{Call, Endpoint, Shape};
use super::form::{Form, Value};
use super::read::{Kind, call, material, refreshing};
use super::reply;
use super::trouble::Step;
use crate::auth::assertion;
use crate::auth::consent::{Ask, Back, Begun, Consent, Refusal, Working};
use crate::auth::device::{Device, Said, Shown, Vars};
use crate::auth::grant::{self, Material, NewSeat};
use crate::auth::granted::Gives;
use crate::auth::presented::Presence;
use crate::auth::read::fields;
use crate::auth::token::Minted;
use crate::auth::whose::{Asking, Reads, Whose};
use crate::auth::{Reading, Scheme};
use crate::clock::Clock;
use crate::net::{self, Origin};
use crate::secret::Secret;
use crate::tree::{Fields, Node};

const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:device_code";
/// How often is asked where the issuer does not say (RFC 8628 section 3.2), and the most that it can say.
const INTERVAL: u64 = 5;
const INTERVAL_MAX: u64 = 60;
/// How long a code lives where the issuer does not say, and the most that it can say, in seconds.
const LIFE: u64 = 300;
const LIFE_MAX: u64 = 1800;
/// Longest code that a person is shown, longest code that is kept, longest address.
const USER_CODE_MAX: usize = 64;
const DEVICE_CODE_MAX: usize = 4096;
const URI_MAX: usize = 2048;
/// Longest word of an issuer's for what went wrong.
const CODE_MAX: usize = 60;

/// Consent on another device.
#[derive(Debug)]
pub struct ByDevice {
    /// The call that brings a code.
    device: Call,
    /// The token call.
    call: Call,
    revoke: Option<Call>,
    /// What is asked for.
    form: Form,
    scopes: Vec<String>,
    /// Whether a person may be sent to plain http.
    allow_http: bool,
}

/// Reads `{ device_url, token_url, client_id, … }`.
pub fn read(node: &Node, reading: Reading<'_>) -> Option<Box<dyn Scheme>> {
    let (context, problems) = (reading.context, reading.problems);
    let fields = fields(node, "a map with the settings of the grant", problems)?;
    let presence = Presence::read(&fields, reading);
    let renew_before = fields.node("renew_before").map(|n| n.duration(problems));
    let tls = match fields.node("tls") {
        Some(node) => {
            let trust = net::tls::Config::read(node, context.folders, problems)?;
            Some(context.certified(trust, node.place, problems)?)
        }
        None => None,
    };
    let offered = Kind::Device.offered();
    let call = call(&fields, reading, Kind::Device, tls.as_ref(), None);
    let device = fields.need("device_url").and_then(|n| Endpoint::read(n, offered, tls.as_ref(), context, problems));
    let revoke = fields.node("revoke_url").map(|n| Endpoint::read(n, offered, tls.as_ref(), context, problems));
    let token = fields.node("refresh_token").map(|n| n.secret(problems));
    let (form, scopes) = wanted(&fields)?;
    let (call, device) = (call?, device?);
    let refresh = refreshing(fields.node("refresh"), Kind::Device, &call, reading, tls.as_ref());
    let place = fields.place();
    fields.finish();
    if !context.durable {
        let hint = "store: { file: { path: ./data } }";
        problems.error(place, "an issuer may replace a refresh token at any renewal, and `store: memory` would lose it", hint);
        return None;
    }
    let renew_before = match renew_before {
        Some(read) => Some(read?),
        None => None,
    };
    let bare = |endpoint: Endpoint, params| Call { endpoint, method: Method::POST, shape: Shape::Form, params, ..call.clone() };
    let own = call.params.iter().filter(|(name, _)| name != "grant_type").cloned().collect();
    let revoke = match revoke {
        Some(endpoint) => Some(bare(endpoint?, Vec::new())),
        None => None,
    };
    let token = match token {
        Some(read) => Some(read?),
        None => None,
    };
    let consent = ByDevice { device: bare(device, own), call: call.clone(), revoke, form, scopes, allow_http: context.allow_http };
    let gives = Gives { captures: call.mapping.captures().map(str::to_owned).collect() };
    // With a refresh token that somebody has already nobody is asked.
    let asks = token.is_none();
    let oauth = Oauth { refresh_token: token, ..Oauth::consented(call, refresh?) };
    let material = material(node, &oauth, Kind::Device, context);
    let seat = context.tokens.seat(NewSeat {
        resource: context.resource.into(),
        scheme: "oauth2_device",
        identity: reading.fingerprint.of([material.bytes()]),
        material,
        renew_before,
        source: Arc::new(oauth),
        shelf: asks.then(|| context.tokens.connections().shelf(context.owner)),
        // The accounts of a person's consent have grants of their own, and a given refresh token is one.
        reads: Reads::default(),
    });
    let consent = asks.then(|| Arc::new(consent) as Arc<dyn Consent>);
    Some(presence?.consenting(consent).of(seat, gives, reading))
}

/// What a person is asked for: scopes, audience, resource.
fn wanted(fields: &Fields<'_>) -> Option<(Form, Vec<String>)> {
    let mut form = Form::default();
    let scopes = fields.texts("scopes");
    let separator = fields.text("scope_separator").unwrap_or_else(|| " ".into());
    if !scopes.is_empty() {
        form.set("scope", Value::Scopes(scopes.clone(), separator));
    }
    for key in ["audience", "resource"] {
        if let Some(node) = fields.node(key) {
            form.set(key, Value::Json(assertion::json(node, fields.problems())?));
        }
    }
    Some((form, scopes))
}

impl Consent for ByDevice {
    fn provider(&self) -> String {
        self.device.endpoint.origin().to_string()
    }

    fn parties(&self) -> Material {
        let client = self.call.client.id().map(Secret::expose).unwrap_or_default();
        Material::of(["device", &self.call.endpoint.issuer(), client].map(str::as_bytes))
    }

    fn scopes(&self) -> Vec<String> {
        self.scopes.clone()
    }

    fn redirect_uri(&self) -> Option<&str> {
        None
    }

    fn device(&self) -> Option<&dyn Device> {
        Some(self)
    }

    fn begin<'a>(&'a self, _: Ask<'a>) -> Working<'a, Begun> {
        Box::pin(async { Err(Refusal::Wrong("consent is given on another device".into())) })
    }

    fn finish<'a>(&'a self, _: Back<'a>) -> Working<'a, Minted> {
        Box::pin(async { Err(Refusal::Wrong("consent is given on another device".into())) })
    }

    fn revoke<'a>(&'a self, minted: &'a Minted, clock: &'a Clock) -> Working<'a, bool> {
        Box::pin(async move {
            let Some(call) = &self.revoke else { return Ok(false) };
            let (token, hint) = match (&minted.refresh, &minted.access) {
                (Some(token), _) => (token, "refresh_token"),
                (None, Some(token)) => (token, "access_token"),
                (None, None) => return Ok(false),
            };
            let mut form = Form::default();
            form.set("token", token.clone());
            form.set("token_type_hint", hint);
            let (whose, before) = (Whose::anybody(), Some(minted));
            Ok(call.told(form, &Asking::new(&call.settings, grant::Ask { before, whose: &whose, clock })).await?)
        })
    }
}

impl Device for ByDevice {
    fn show<'a>(&'a self, vars: &'a Vars, clock: &'a Clock) -> Working<'a, Shown> {
        Box::pin(async move {
            let whose = Whose::with(vars);
            let asking = Asking::new(&self.device.settings, grant::Ask { before: None, whose: &whose, clock });
            let (response, mask) = self.device.exchange(Step::Device, self.form.clone(), &asking).await?;
            let wrong = |what: &str| Refusal::from(reply::story(Step::Device, &response).down(what, None));
            if let Some(code) = code(&response) {
                let said = described(&response).map(|said| mask.apply(&said).unwrap_or(said));
                return Err(reply::story(Step::Device, &response).down_with(&format!("says {code}"), None, said).into());
            }
            if !response.status().is_success() {
                return Err(wrong("is no success"));
            }
            let Some(answer) = object(&response) else { return Err(wrong("is no JSON")) };
            self.shown(&answer).map_err(wrong)
        })
    }

    fn ask<'a>(&'a self, device_code: &'a Secret, vars: &'a Vars, clock: &'a Clock) -> Working<'a, Said> {
        Box::pin(async move {
            let now = clock.millis();
            let whose = Whose::with(vars);
            let asking = Asking::new(&self.call.settings, grant::Ask { before: None, whose: &whose, clock });
            let mut form = Form::default();
            form.set("grant_type", GRANT_TYPE);
            form.set("device_code", device_code.clone());
            let (response, mask) = self.call.exchange(Step::Code, form, &asking).await?;
            match code(&response).as_deref() {
                Some("authorization_pending") => Ok(Said::Wait),
                Some("slow_down") => Ok(Said::SlowDown),
                _ if response.status() == StatusCode::TOO_MANY_REQUESTS => Ok(Said::SlowDown),
                // Whatever else an issuer says is its last word (RFC 8628 section 3.5).
                Some(code) if response.status().is_client_error() => {
                    let said = described(&response).map(|said| mask.apply(&said).unwrap_or(said));
                    Err(Refusal::Denied(code.to_owned(), said))
                }
                _ => Ok(Said::Given(Box::new(self.call.mapping.understand(&response, Step::Code, now, None, &mask)?))),
            }
        })
    }
}

impl ByDevice {
    /// What the answer says, judged: people will be shown it, and follow it.
    fn shown(&self, answer: &Map<String, Json>) -> Result<Shown, &'static str> {
        let text = |name: &str, most: usize| {
            let text = answer.get(name).and_then(Json::as_str).filter(|t| !t.is_empty() && t.len() <= most);
            text.filter(|t| !t.chars().any(char::is_control)).map(str::to_owned)
        };
        let number = |name: &str| {
            let value = answer.get(name)?;
            value.as_u64().or_else(|| value.as_f64().filter(|n| *n >= 0.0).map(|n| n as u64)).or_else(|| value.as_str()?.parse().ok())
        };
        // An early draft, and some who still follow it, say `url`.
        let uri = text("verification_uri", URI_MAX).or_else(|| text("verification_url", URI_MAX)).ok_or("holds no `verification_uri`")?;
        let complete = text("verification_uri_complete", URI_MAX).or_else(|| text("verification_url_complete", URI_MAX));
        let good = |url: &str| Origin::of(url).is_ok_and(|(origin, _)| origin.is_safe(self.allow_http));
        if !good(&uri) || !complete.as_deref().is_none_or(good) {
            return Err("sends people to an address that is not https");
        }
        Ok(Shown {
            user_code: text("user_code", USER_CODE_MAX).ok_or("holds no `user_code`")?,
            uri,
            complete,
            interval: Duration::from_secs(number("interval").unwrap_or(INTERVAL).clamp(1, INTERVAL_MAX)),
            life: Duration::from_secs(number("expires_in").filter(|n| *n > 0).unwrap_or(LIFE).min(LIFE_MAX)),
            device_code: Secret::new(text("device_code", DEVICE_CODE_MAX).ok_or("holds no `device_code`")?),
        })
    }
}

fn object(response: &Response<Bytes>) -> Option<Map<String, Json>> {
    match serde_json::from_slice(response.body()) {
        Ok(Json::Object(object)) => Some(object),
        _ => None,
    }
}

/// The issuer's word for what went wrong, where it looks like one.
fn code(response: &Response<Bytes>) -> Option<String> {
    let object = object(response)?;
    let code = object.get("error")?.as_str()?;
    let good = (1..=CODE_MAX).contains(&code.len()) && code.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b));
    good.then(|| code.to_owned())
}

/// What it adds, in one bounded line.
fn described(response: &Response<Bytes>) -> Option<String> {
    const SHOWN: usize = 200;
    let object = object(response)?;
    let text = object.get("error_description")?.as_str()?;
    Some(text.chars().filter(|c| !c.is_control()).take(SHOWN).collect())
}
