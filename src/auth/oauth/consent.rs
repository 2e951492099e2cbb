//! Consent by OAuth 2: the authorization code flow (RFC 6749 section 4.1) with PKCE (RFC 7636), resource indicators
//! (RFC 8707), the issuer's word in the answer (RFC 9207), and the dialects of authorize URLs and callbacks (rulings E3,
//! E4).

use std::sync::Arc;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::Method;
use serde_json::Value as Json;

use super::First;
use super::call::{self, Call, Endpoint, Param, Shape};
use super::client::Client;
use super::discovery::{Finder, Found};
use super::form::{Form, Value};
use super::trouble::Step;
use crate::auth::assertion;
use crate::auth::captured::{Captured, Held};
use crate::auth::consent::{Ask, Back, Begun, Consent, Kept, Params, Refusal, Working};
use crate::auth::grant::{self, Material};
use crate::auth::said;
use crate::auth::token::{Failure, Minted};
use crate::auth::whose::{Asking, Whose};
use crate::auth::{Context, Reading};
use crate::clock::Clock;
use crate::error::Error;
use crate::expr::Names;
use crate::net::{self, Origin};
use crate::secret::Secret;
use crate::tree::{Fields, Node, Problems};
use crate::uri::encode_loosely;

/// What expressions about consent may read: nothing of a client, as it is a person's account.
const OFFERED: Names = said::FIRST.without(Names::CLIENT);
/// Longest authorize URL, with its parameters.
const URL_MAX: usize = 16 * 1024;
/// Most values that a callback brings.
const CAPTURES_MAX: usize = 32;
/// Longest word of a provider for what went wrong, and the longest that it adds.
const CODE_MAX: usize = 60;
const SAID_MAX: usize = 300;

/// A consent by an authorization code.
#[derive(Debug)]
pub struct ByCode {
    authorize: Authorize,
    callback: Callback,
    /// The token call that takes the code.
    call: Call,
    revoke: Option<Call>,
    pkce: bool,
    scopes: Option<(Vec<String>, String)>,
    resource: Option<Json>,
    audience: Option<Json>,
    finder: Option<Arc<Finder>>,
    issuer: Option<String>,
    redirect_uri: Option<String>,
}

/// The authorize URL and its dialect.
#[derive(Debug)]
struct Authorize {
    origin: Origin,
    url: String,
    /// Whether the URL is that of an issuer whose own is still to be found.
    found: bool,
    params: Vec<Param>,
    renames: Vec<(String, Option<String>)>,
    /// Whether parameters go behind `#`.
    fragment: bool,
    /// Whether values are encoded only as far as they must be.
    loose: bool,
}

/// What the callback brings.
#[derive(Debug)]
struct Callback {
    /// The parameter of the code; none where the redirect itself is the success.
    code: Option<String>,
    /// What is kept of the rest: a name, a parameter, and whether it must be there.
    captures: Vec<(String, String, bool)>,
}

impl ByCode {
    /// Reads what belongs to consent. `call` is the scheme's token call.
    pub fn read(
        fields: &Fields<'_>,
        call: &Call,
        reading: Reading<'_>,
        tls: Option<&net::tls::Config>,
        finder: Option<&Arc<Finder>>,
    ) -> Option<Self> {
        let (context, problems) = (reading.context, reading.problems);
        let authorize = Authorize::read(fields, finder.and_then(|finder| finder.issuer()), context, problems);
        let callback = Callback::read(fields.node("callback"), problems);
        let scopes = fields.texts("scopes");
        let separator = fields.text("scope_separator").unwrap_or_else(|| " ".into());
        let json = |key: &'static str| fields.node(key).map(|node| assertion::json(node, problems));
        let (resource, audience) = (json("resource"), json("audience"));
        let issuer = fields.node("issuer").map(|node| issuer(node, problems));
        let redirect_uri = fields.node("redirect_uri").map(|node| redirect_uri(node, context, problems));
        let revoke = fields.node("revoke_url").map(|node| Endpoint::read(node, OFFERED, tls, context, problems));
        let pkce = fields.flag("pkce", true);
        let revoke = match revoke {
            Some(endpoint) => {
                Some(Call { endpoint: endpoint?, method: Method::POST, shape: Shape::Form, params: Vec::new(), ..call.clone() })
            }
            None => None,
        };
        Some(Self {
            authorize: authorize?,
            callback: callback?,
            call: call.clone(),
            revoke,
            pkce,
            scopes: (!scopes.is_empty()).then_some((scopes, separator)),
            resource: flat(resource)?,
            audience: flat(audience)?,
            issuer: flat(issuer)?.or_else(|| Some(finder?.issuer()?.to_owned())),
            finder: finder.cloned(),
            redirect_uri: flat(redirect_uri)?,
        })
    }

    /// How a token is had when the one before has ended, where that needs no person.
    pub fn again(&self) -> Option<First> {
        if self.callback.code.is_some() {
            return None;
        }
        Some(First { form: self.own(), said: Vec::new(), bearer: false, assertion: None })
    }

    /// The gateway's own credentials, which a person's yes has given a meaning.
    fn own(&self) -> Form {
        let mut form = Form::default();
        form.set("grant_type", "client_credentials");
        self.scope(&mut form);
        form
    }

    fn scope(&self, form: &mut Form) {
        if let Some((scopes, separator)) = &self.scopes {
            form.set("scope", Value::Scopes(scopes.clone(), separator.clone()));
        }
    }

    /// The parameters of the authorize URL.
    fn question(&self, ask: Ask<'_>, verifier: Option<&Secret>, client: &Client, found: Option<&Found>) -> Result<Form, Failure> {
        let whose = Whose::with(ask.vars);
        let asking = Asking::new(&self.call.settings, grant::Ask { before: None, whose: &whose, clock: ask.clock });
        let mut form = Form::default();
        form.set("response_type", "code");
        if let Some(id) = client.id() {
            form.set("client_id", id.clone());
        }
        form.set("redirect_uri", ask.redirect_uri);
        self.scope(&mut form);
        form.set("state", ask.state.clone());
        if let Some(verifier) = verifier {
            let hash = digest::digest(&digest::SHA256, verifier.expose().as_bytes());
            form.set("code_challenge", URL_SAFE_NO_PAD.encode(hash));
            form.set("code_challenge_method", "S256");
        }
        for (name, value) in [("resource", self.indicator(found)), ("audience", self.audience.clone())] {
            if let Some(value) = value {
                form.set(name, Value::Json(value));
            }
        }
        for (name, value) in &self.authorize.params {
            match value.as_ref().map(|argument| argument.make(&asking)).transpose()?.flatten() {
                Some(value) => form.set(name, value),
                None => form.remove(name),
            }
        }
        for (name, to) in &self.authorize.renames {
            match to {
                Some(to) => form.rename(name, to),
                None => form.remove(name),
            }
        }
        form.remove_empty();
        Ok(form)
    }

    /// What the token is for: as written, or as the resource calls itself.
    fn indicator(&self, found: Option<&Found>) -> Option<Json> {
        self.resource.clone().or_else(|| found?.resource.as_deref().map(Into::into))
    }

    /// The issuer of the answer must be the one that was asked, or a code of one could be sent to another (RFC 9207; RFC
    /// 9700 section 4.4). Where the operator has not named it, it must at least live where the browser was sent to.
    fn judge_issuer(&self, params: &Params, kept: &Kept) -> Result<(), Refusal> {
        let wrong = |why: &'static str| Err(Refusal::Wrong(why.into()));
        let came = params.one("iss").map_err(Refusal::Wrong)?;
        match (came, &self.issuer) {
            (None, _) if kept.names_itself => wrong("the answer does not name its issuer, which says that it always does"),
            (None, _) => Ok(()),
            (Some(came), Some(issuer)) if came.expose() == issuer => Ok(()),
            (Some(_), Some(_)) => wrong("the answer names another issuer than the one that was asked"),
            (Some(came), None) => {
                let origin = Origin::of(came.expose()).map(|(origin, _)| origin.to_string());
                let known = [self.authorize.origin.to_string(), self.call.endpoint.origin().to_string()];
                if origin.is_ok_and(|origin| known.contains(&origin)) {
                    return Ok(());
                }
                wrong("the answer names an issuer that is not known here: `issuer` of the scheme says which one it is")
            }
        }
    }

    /// The names under which what the redirect brings is kept with the token.
    pub fn captures(&self) -> impl Iterator<Item = &str> {
        self.callback.captures.iter().map(|(name, ..)| name.as_str())
    }

    fn captured(&self, params: &Params) -> Result<Captured, Refusal> {
        let mut captured = Captured::default();
        for (name, param, needed) in &self.callback.captures {
            match params.one(param).map_err(Refusal::Wrong)? {
                Some(value) => {
                    captured.insert(name, Held::Text(value.clone())).map_err(|full| Refusal::Wrong(full.0.into()))?;
                }
                None if *needed => return Err(Refusal::Wrong(format!("`{param}` is missing in the answer").into())),
                None => {}
            }
        }
        Ok(captured)
    }
}

impl Consent for ByCode {
    fn provider(&self) -> String {
        self.authorize.origin.to_string()
    }

    fn parties(&self) -> Material {
        // A client that the issuer registers is that issuer's affair.
        let registered = self.finder.as_ref().is_some_and(|finder| finder.registers());
        let client = self.call.client.id().filter(|_| !registered).map(Secret::expose).unwrap_or_default();
        Material::of(["code", &self.call.endpoint.issuer(), client].map(str::as_bytes))
    }

    fn scopes(&self) -> Vec<String> {
        self.scopes.as_ref().map(|(scopes, _)| scopes.clone()).unwrap_or_default()
    }

    fn redirect_uri(&self) -> Option<&str> {
        self.redirect_uri.as_deref()
    }

    fn begin<'a>(&'a self, ask: Ask<'a>) -> Working<'a, Begun> {
        Box::pin(async move {
            let verifier = if self.pkce { Some(random()?) } else { None };
            let (found, registered) = match &self.finder {
                Some(finder) => {
                    let scopes = self.scopes.as_ref().map(|(scopes, _)| scopes.join(" "));
                    let (found, client) = finder.ready(ask.redirect_uri, scopes, ask.clock.millis()).await?;
                    (Some(found), client)
                }
                None => (None, None),
            };
            let form = self.question(ask, verifier.as_ref(), registered.as_ref().unwrap_or(&self.call.client), found.as_deref())?;
            let query = if self.authorize.loose { form.encoded_by(encode_loosely) } else { form.encoded() };
            let url = self.authorize.with(&query, found.as_deref())?;
            if url.expose().len() > URL_MAX {
                return Err(Refusal::Wrong("the authorize URL is too long".into()));
            }
            let names_itself = found.as_ref().is_some_and(|found| found.names_itself);
            let resource = self.indicator(found.as_deref());
            Ok(Begun { url, kept: Kept { verifier, token: None, names_itself, resource } })
        })
    }

    fn finish<'a>(&'a self, back: Back<'a>) -> Working<'a, Minted> {
        Box::pin(async move {
            self.judge_issuer(back.params, back.kept)?;
            if let Some(error) = back.params.one("error").map_err(Refusal::Wrong)? {
                let said = back.params.one("error_description").ok().flatten();
                return Err(Refusal::Denied(word(error.expose()), said.map(|said| shortened(said.expose()))));
            }
            let captured = self.captured(back.params)?;
            let mut form = Form::default();
            match &self.callback.code {
                Some(name) => {
                    let code = back.params.one(name).map_err(Refusal::Wrong)?;
                    let code = code.ok_or_else(|| Refusal::Wrong(format!("`{name}` is missing in the answer").into()))?;
                    form.set("grant_type", "authorization_code");
                    form.set("code", code.clone());
                    form.set("redirect_uri", back.redirect_uri);
                    if let Some(verifier) = &back.kept.verifier {
                        form.set("code_verifier", verifier.clone());
                    }
                }
                // The person's yes was all that was missing: the client's own credentials do the rest.
                None => form = self.own(),
            }
            if let Some(resource) = &back.kept.resource {
                form.set("resource", Value::Json(resource.clone()));
            }
            let before = Minted { captured, ..Minted::default() };
            let call = match &self.finder {
                Some(finder) => &finder.complete(&self.call, back.clock.millis()).await?,
                None => &self.call,
            };
            let whose = Whose::with(back.vars);
            let ask = grant::Ask { before: Some(&before), whose: &whose, clock: back.clock };
            Ok(call.send(Step::Code, form, &Asking::new(&call.settings, ask)).await?)
        })
    }

    fn revoke<'a>(&'a self, minted: &'a Minted, clock: &'a Clock) -> Working<'a, bool> {
        Box::pin(async move {
            let now = clock.millis();
            let mut call = match (&self.revoke, &self.finder) {
                (Some(call), _) => call.clone(),
                (None, Some(finder)) => match finder.revocation(now).await {
                    Some(endpoint) => Call { endpoint, method: Method::POST, shape: Shape::Form, params: Vec::new(), ..self.call.clone() },
                    None => return Ok(false),
                },
                (None, None) => return Ok(false),
            };
            if let Some(finder) = &self.finder {
                call = finder.complete(&call, now).await?;
            }
            // With a refresh token ends the whole grant (RFC 7009 section 2.1).
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

impl Authorize {
    /// `issuer`: of whom the URL is to be found out, where it is not written.
    fn read(fields: &Fields<'_>, issuer: Option<&str>, context: &Context<'_>, problems: &Problems) -> Option<Self> {
        let node = if issuer.is_some() { fields.node("authorize_url") } else { Some(fields.need("authorize_url")?) };
        let place = node.map_or(fields.place(), |node| node.place);
        let found = node.is_none();
        let url = node.map_or_else(|| issuer.map(str::to_owned), |node| node.text(problems));
        let params = call::params(fields.node("params"), Shape::Query, OFFERED, context, problems);
        let (mut more, mut renames, mut fragment, mut loose) = (Some(Vec::new()), Some(Vec::new()), false, false);
        if let Some(node) = fields.node("authorize") {
            let fields = Fields::of(node, "a map with `params`, `rename`, `fragment` and `encode`", problems)?;
            more = call::params(fields.node("params"), Shape::Query, OFFERED, context, problems);
            renames = call::renames(fields.node("rename"), problems);
            fragment = fields.flag("fragment", false);
            loose = fields.choice("encode", &[("strict", false), ("raw", true)], false);
            fields.finish();
        }
        let (url, mut params, more, renames) = (url?, params?, more?, renames?);
        params.extend(more);
        let lost = params.iter().any(|(name, value)| name == "state" && value.is_none()) || renames.iter().any(|(name, _)| name == "state");
        if lost {
            problems.error(
                place,
                "`state` ties the answer to the browser that asked, and cannot be removed or renamed",
                "leave `state` as it is",
            );
            return None;
        }
        let wrong = |why: &str| {
            problems.error(place, format!("this is no authorize URL: {why}"), "https://issuer.example/authorize");
        };
        let (front, behind) = url.split_once('#').map_or((url.as_str(), None), |(front, behind)| (front, Some(behind)));
        let (origin, _) = Origin::of(front).map_err(wrong).ok()?;
        if behind.is_some_and(|behind| !fragment || behind.bytes().any(|b| !(0x21..=0x7e).contains(&b) || b == b'#')) {
            wrong("it holds a fragment; `authorize: { fragment: true }` puts the parameters behind it");
            return None;
        }
        if !origin.is_safe(context.allow_http) {
            problems.error(place, "consent would travel over plain http", "use https, or set `allow_http: true` on the resource");
            return None;
        }
        Some(Self { origin, url, found, params, renames, fragment, loose })
    }

    /// The URL with these parameters.
    fn with(&self, query: &str, found: Option<&Found>) -> Result<Secret, Refusal> {
        let url = match found.filter(|_| self.found) {
            Some(found) => found.authorize.as_deref().ok_or_else(|| Refusal::Wrong("the issuer names no page for consent".into()))?,
            None => self.url.as_str(),
        };
        let behind = if self.fragment { url.split_once('#').map(|(_, behind)| behind) } else { Some(url) };
        let mark = match behind {
            None => "#",
            Some(text) if !text.contains('?') => "?",
            Some(text) if text.ends_with(['?', '&']) => "",
            Some(_) => "&",
        };
        Ok(Secret::new([url, mark, query].concat()))
    }
}

impl Callback {
    fn read(node: Option<&Node>, problems: &Problems) -> Option<Self> {
        let usual = || Some("code".to_owned());
        let Some(node) = node else { return Some(Self { code: usual(), captures: Vec::new() }) };
        let fields = Fields::of(node, "a map with `code`, `capture` and `optional`", problems)?;
        let code = match fields.raw("code") {
            None => usual(),
            Some(node) if node.is_null() => None,
            Some(node) => Some(node.text(problems).filter(|text| !text.is_empty())?),
        };
        let optional = fields.texts("optional");
        let mut captures = Vec::new();
        let entries = fields.node("capture").map(Node::entries).unwrap_or_default();
        if entries.len() > CAPTURES_MAX {
            problems.error(fields.key_place("capture"), format!("`capture` keeps up to {CAPTURES_MAX} values"), "");
            return None;
        }
        for entry in entries {
            let path = entry.node.text(problems)?;
            let Some(param) = path.strip_prefix("query.").filter(|param| !param.is_empty()) else {
                problems.error(entry.node.place, "a callback has parameters only", "capture: { realm: query.realmId }");
                return None;
            };
            captures.push((entry.key.to_string(), param.to_owned(), !optional.iter().any(|name| **name == *entry.key)));
        }
        if let Some(stray) = optional.iter().find(|name| !captures.iter().any(|(captured, ..)| captured == *name)) {
            problems.error(fields.key_place("optional"), format!("`{stray}` is not captured"), "`optional` lists names of `capture`");
            return None;
        }
        fields.finish();
        Some(Self { code, captures })
    }
}

fn issuer(node: &Node, problems: &Problems) -> Option<String> {
    let text = node.text(problems)?;
    if let Err(why) = Origin::of(&text) {
        problems.error(node.place, format!("this is no issuer: {why}"), "issuer: https://issuer.example");
        return None;
    }
    Some(text)
}

fn redirect_uri(node: &Node, context: &Context<'_>, problems: &Problems) -> Option<String> {
    let text = node.text(problems)?;
    let wrong = |why: &str| problems.error(node.place, format!("this is no redirect URI: {why}"), "https://gw.example/connect/callback");
    let (origin, path) = Origin::of(&text).map_err(wrong).ok()?;
    if path.contains('?') {
        wrong("it holds a query");
        return None;
    }
    if !origin.is_safe(context.allow_http) {
        problems.error(node.place, "a code would come back over plain http", "use https, or set `allow_http: true` on the resource");
        return None;
    }
    Some(text)
}

/// A verifier: 256 bits, in 43 characters (RFC 7636 section 4.1).
fn random() -> Result<Secret, Failure> {
    let mut bytes = zeroize::Zeroizing::new([0; 32]);
    aws_lc_rs::rand::fill(&mut *bytes).map_err(|_| Failure::Own(Error::Internal("the system gives no random bytes".into())))?;
    Ok(Secret::new(URL_SAFE_NO_PAD.encode(*bytes)))
}

/// A provider's code for what went wrong, where it looks like one.
fn word(text: &str) -> String {
    let good = (1..=CODE_MAX).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b));
    if good { text.to_owned() } else { "an error".to_owned() }
}

fn shortened(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(SAID_MAX).collect()
}

/// Something that is there must have been read.
fn flat<T>(read: Option<Option<T>>) -> Option<Option<T>> {
    match read {
        None => Some(None),
        Some(None) => None,
        Some(value) => Some(value),
    }
}
