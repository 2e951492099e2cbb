//! The schemes of OAuth 2 as the configuration writes them. The table of grants is data; what they share is read once.

use std::time::Duration;

use http::Method;
use serde_json::Map;

use super::call::{self, Call, Endpoint, Param, Shape};
use super::client::{Client, Usual, secret_or_text};
use super::consent::ByCode;
use super::discovery::Finder;
use super::form::{Form, Value};
use super::reply::Mapping;
use super::{Assertion, First, Oauth};
use crate::auth::assertion::Signer;
use crate::auth::grant::{Material, NewSeat};
use crate::auth::granted::Gives;
use crate::auth::presented::Presence;
use crate::auth::read::fields;
use crate::auth::said::{self, Said};
use crate::auth::saml::Saml;
use crate::auth::whose::Reads;
use crate::auth::{Context, Reading, Scheme};
use crate::expr::{Name, Names};
use crate::net;
use crate::secret::Secret;
use crate::tree::{self, Fields, Node, Problems, closest};

/// Longest time that an issuer has for its answer, where `timeouts.head` does not say less.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A grant of this build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// RFC 6749 section 4.4.
    ClientCredentials,
    /// RFC 6749 section 4.3.
    Password,
    /// RFC 7523.
    JwtBearer,
    /// RFC 7522.
    SamlBearer,
    /// RFC 8693.
    TokenExchange,
    /// RFC 6749 section 6, with a refresh token that somebody has already.
    AuthorizationCode,
    /// RFC 8628.
    Device,
    /// Client credentials in another spelling (ruling G15).
    Auth0,
}

/// All of them by the name of their scheme.
pub const KINDS: [(&str, Kind); 8] = [
    ("oauth2_client_credentials", Kind::ClientCredentials),
    ("oauth2_password", Kind::Password),
    ("oauth2_jwt_bearer", Kind::JwtBearer),
    ("oauth2_saml_bearer", Kind::SamlBearer),
    ("oauth2_token_exchange", Kind::TokenExchange),
    ("oauth2_authorization_code", Kind::AuthorizationCode),
    ("oauth2_device", Kind::Device),
    ("auth0", Kind::Auth0),
];

/// Keys that say something about consent only.
const CONSENT: [&str; 12] = [
    "audience",
    "authorize",
    "callback",
    "issuer",
    "params",
    "pkce",
    "redirect_uri",
    "resource",
    "revoke_url",
    "scope_separator",
    "scopes",
    "authorize_url",
];

impl Kind {
    fn name(self) -> &'static str {
        KINDS.iter().find(|(_, kind)| *kind == self).map_or("", |(name, _)| name)
    }

    /// `grant_type` of the first call.
    fn grant_type(self) -> Option<&'static str> {
        match self {
            Self::ClientCredentials | Self::Auth0 => Some("client_credentials"),
            Self::Password => Some("password"),
            Self::JwtBearer => Some("urn:ietf:params:oauth:grant-type:jwt-bearer"),
            Self::SamlBearer => Some("urn:ietf:params:oauth:grant-type:saml2-bearer"),
            Self::TokenExchange => Some("urn:ietf:params:oauth:grant-type:token-exchange"),
            Self::AuthorizationCode | Self::Device => None,
        }
    }

    /// The parameters of a token call: under this key (ruling F2).
    fn params(self) -> &'static str {
        if self == Self::AuthorizationCode { "token_params" } else { "params" }
    }

    /// What a client that says nothing is taken for.
    fn usual(self) -> Usual {
        if self == Self::Auth0 { Usual::Post } else { Usual::Basic }
    }
}

/// Reads a scheme of this kind.
pub fn read(node: &Node, reading: Reading<'_>, kind: Kind) -> Option<Box<dyn Scheme>> {
    let problems = reading.problems;
    let fields = fields(node, "a map with the settings of the grant", problems)?;
    let presence = Presence::read(&fields, reading);
    let renew_before = fields.node("renew_before").map(|n| n.duration(problems));
    let oauth = oauth(&fields, reading, kind);
    fields.finish();
    let (oauth, presence) = (oauth?, presence?);
    let renew_before = match renew_before {
        Some(read) => Some(read?),
        None => None,
    };
    let called_back = oauth.consent.iter().flat_map(|consent| consent.captures());
    let gives = Gives { captures: oauth.call.mapping.captures().chain(called_back).map(str::to_owned).collect() };
    // The accounts of a person's consent have grants of their own, and a given refresh token is one.
    let reads = if kind == Kind::AuthorizationCode { Reads::default() } else { oauth.reads() };
    let material = material(node, &oauth, kind, reading.context);
    let consent = oauth.consent.clone().map(|consent| consent as std::sync::Arc<dyn crate::auth::consent::Consent>);
    let shelf = consent.is_some().then(|| reading.context.tokens.connections().shelf(reading.context.owner));
    let seat = reading.context.tokens.seat(NewSeat {
        resource: reading.context.resource.into(),
        scheme: kind.name(),
        identity: reading.fingerprint.of([material.bytes()]),
        material,
        renew_before,
        source: std::sync::Arc::new(oauth),
        shelf,
        reads,
    });
    Some(presence.consenting(consent).of(seat, gives, reading))
}

/// What names the grant: everything that is written, but for how its token is presented. A refresh token is the grant
/// itself: whatever else changes around it, the one that has taken its place is not to be lost (ruling A13).
pub(super) fn material(node: &Node, oauth: &Oauth, kind: Kind, context: &Context<'_>) -> Material {
    match &oauth.refresh_token {
        Some(token) if matches!(kind, Kind::AuthorizationCode | Kind::Device) => {
            let id = oauth.call.client.id().map(Secret::expose).unwrap_or_default();
            Material::of([kind.name(), oauth.call.endpoint.url(), id, token.expose()].map(str::as_bytes))
        }
        _ => {
            let mut parts = vec![kind.name().as_bytes().to_vec()];
            written(node, &["place", "refused", "renew_before"], &mut parts);
            // An issuer may bind what it mints to the certificate (RFC 8705 section 3).
            parts.extend(context.certificate.map(|certificate| certificate.fingerprint().to_vec()));
            // What expressions read at each call is no part of what is written.
            if !oauth.names().is_empty() {
                parts.push(context.settings.material().to_vec());
            }
            Material::of(parts.iter().map(Vec::as_slice))
        }
    }
}

/// Everything in a subtree as bytes, in an order that does not depend on how it was written.
pub fn written(node: &Node, except: &[&str], into: &mut Vec<Vec<u8>>) {
    match &node.value {
        tree::Value::Map(entries) => {
            let mut entries: Vec<_> = entries.iter().filter(|e| !except.contains(&&*e.key)).collect();
            entries.sort_by(|a, b| a.key.cmp(&b.key));
            into.push(format!("map {}", entries.len()).into_bytes());
            for entry in entries {
                into.push(entry.key.as_bytes().to_vec());
                written(&entry.node, &[], into);
            }
        }
        tree::Value::List(items) => {
            into.push(format!("list {}", items.len()).into_bytes());
            items.iter().for_each(|item| written(item, &[], into));
        }
        tree::Value::Secret(secret) => into.push(secret.expose().as_bytes().to_vec()),
        tree::Value::Mixed(pieces) => {
            into.push(format!("pieces {}", pieces.len()).into_bytes());
            into.extend(pieces.iter().map(|piece| piece.text().as_bytes().to_vec()));
        }
        tree::Value::Null => into.push(b"null".to_vec()),
        tree::Value::Unresolved(_) => into.push(b"unset".to_vec()),
        _ => into.push(node.word().unwrap_or_default().as_bytes().to_vec()),
    }
}

fn oauth(fields: &Fields<'_>, reading: Reading<'_>, kind: Kind) -> Option<Oauth> {
    let (context, problems) = (reading.context, reading.problems);
    let tls = match fields.node("tls") {
        Some(node) => {
            let trust = net::tls::Config::read(node, context.folders, problems)?;
            Some(context.certified(trust, node.place, problems)?)
        }
        None => None,
    };
    let finder = if kind == Kind::AuthorizationCode { Finder::read(fields, tls.as_ref(), reading)? } else { None };
    let call = call(fields, reading, kind, tls.as_ref(), finder.as_deref());
    let first = if kind == Kind::AuthorizationCode { Some(None) } else { first(fields, reading, kind).map(Some) };
    let refresh = fields.node("refresh");
    if call.is_none() && kind == Kind::AuthorizationCode {
        // What is wrong with the call makes no stranger of the keys that are read after it.
        for key in CONSENT.iter().chain(&["discover", "refresh_token", "registration"]) {
            let _ = fields.node(key);
        }
    }
    let (call, mut first) = (call?, first?);
    let (mut refresh_token, mut consent) = (None, None);
    if kind == Kind::AuthorizationCode {
        match person(fields, &call, reading, tls.as_ref(), finder.as_ref())? {
            Given::Token(token) => refresh_token = Some(token),
            Given::Consent(by) => {
                first = by.again();
                consent = Some(std::sync::Arc::from(by));
            }
        }
    }
    let brought: Vec<&str> = consent.iter().flat_map(|by: &std::sync::Arc<ByCode>| by.captures()).collect();
    if let Some(unknown) = call.captures().into_iter().find(|name| !brought.contains(name)) {
        let hint =
            if brought.is_empty() { format!("callback: {{ capture: {{ {unknown}: query.… }} }}") } else { closest(unknown, &brought) };
        problems.error(fields.place(), format!("the token call reads `captured.{unknown}`, and no redirect brings it"), hint);
        return None;
    }
    // Logins often come with a refresh token; client credentials are simply presented again, unless told otherwise.
    let refreshes = !first.as_ref().is_some_and(|first| first.bearer)
        && (refresh.is_some() || matches!(kind, Kind::Password | Kind::AuthorizationCode | Kind::TokenExchange));
    let refresh = if refreshes { Some(refreshing(refresh, kind, &call, reading, tls.as_ref())?) } else { None };
    Some(Oauth { first, call, refresh, refresh_token, consent, finder, must_keep: kind == Kind::AuthorizationCode })
}

/// What a person has given or will give.
enum Given {
    /// A refresh token that they had from elsewhere.
    Token(Secret),
    /// Their consent.
    Consent(Box<ByCode>),
}

/// `refresh_token` or `authorize_url`: both need a store that outlives the process (ruling A13).
fn person(
    fields: &Fields<'_>,
    call: &Call,
    reading: Reading<'_>,
    tls: Option<&net::tls::Config>,
    finder: Option<&std::sync::Arc<Finder>>,
) -> Option<Given> {
    let problems = reading.problems;
    let token = fields.node("refresh_token");
    let consents = fields.node("authorize_url").is_some() || finder.is_some_and(|finder| finder.issuer().is_some());
    if !consents {
        let stray: Vec<&str> = CONSENT.into_iter().filter(|key| fields.node(key).is_some()).collect();
        for key in &stray {
            problems.error(
                fields.key_place(key),
                format!("`{key}` says how a person consents, and nobody is asked"),
                "add `authorize_url`",
            );
        }
        if token.is_none() {
            let hint = "authorize_url: https://issuer.example/authorize, or a refresh token that you have: refresh_token: \"${env:REFRESH_TOKEN}\"";
            problems.error(
                fields.place(),
                "without `authorize_url` nobody can be asked, and without `refresh_token` there is no token",
                hint,
            );
            return None;
        }
    }
    if !reading.context.durable {
        let place = token.map_or(fields.place(), |node| node.place);
        let hint = "store: { file: { path: ./data } }";
        problems.error(place, "an issuer may replace a refresh token at any renewal, and `store: memory` would lose it", hint);
        return None;
    }
    // What a configured token stands for needs no consent, but what is said about it is judged all the same.
    let consent = if consents { Some(ByCode::read(fields, call, reading, tls, finder)?) } else { None };
    match token {
        Some(node) => {
            let token = node.secret(problems)?;
            if token.is_empty() {
                problems.error(node.place, "the refresh token is empty", "check the file or variable that it comes from");
                return None;
            }
            Some(Given::Token(token))
        }
        None => consent.map(Box::new).map(Given::Consent),
    }
}

pub(super) fn call(
    fields: &Fields<'_>,
    reading: Reading<'_>,
    kind: Kind,
    tls: Option<&net::tls::Config>,
    finder: Option<&Finder>,
) -> Option<Call> {
    let (context, problems) = (reading.context, reading.problems);
    let endpoint = match kind {
        Kind::Auth0 => domain(fields, reading, tls),
        _ if fields.node("token_url").is_none() && finder.is_some_and(|finder| finder.issuer().is_some()) => {
            finder.and_then(Finder::stand_in)
        }
        _ => fields.need("token_url").and_then(|n| Endpoint::read(n, kind.offered(), tls, context, problems)),
    };
    let (method, shape) = manner(fields, (&Method::POST, Shape::Form), problems)?;
    let params = call::params(fields.node(kind.params()), shape, kind.offered(), context, problems);
    let headers = call::headers(fields.node("headers"), kind.offered(), context, problems);
    let renames = call::renames(fields.node("fields"), problems);
    let client = Client::read(fields, kind.usual(), kind.asserts(), context, problems);
    let mapping = Mapping::read(fields.node("response"), &Mapping::default(), false, problems)
        .and_then(|mapping| mapping.capturing(fields.node("capture"), problems));
    let client = client?;
    let (headers, params) = (headers?, params?);
    let registered = finder.is_some_and(Finder::registers);
    if client.id().is_none() && !registered && kind.usual_client() && !call::presents(&headers) && params.is_empty() {
        problems.error(fields.place(), "`client_id` is missing", "add `client_id: …`");
        return None;
    }
    let time = context.head.min(PATIENCE);
    let endpoint = endpoint?;
    if client.is_known_by_certificate() && !endpoint.origin().is_https() {
        let (place, why, hint) =
            (fields.key_place("client_auth"), "a client certificate is shown over TLS only", "use https in the token URL");
        if !endpoint.origin().is_loopback() {
            problems.error(place, why, hint);
            return None;
        }
        problems.warn(place, why, hint);
    }
    let settings = context.settings.clone();
    Some(Call { endpoint, method, shape, headers, params, renames: renames?, client, mapping: mapping?, time, settings })
}

impl Kind {
    /// Whether its first call holds an assertion, whose key and audience are its own.
    fn asserts(self) -> bool {
        matches!(self, Self::JwtBearer | Self::SamlBearer)
    }

    /// What its expressions may read. An account that several clients use is nobody's of them, and a redirect has brought
    /// something before the first call.
    pub(super) fn offered(self) -> Names {
        const BROUGHT: Names = Names::of(&[Name::Captured]);
        match self {
            Self::AuthorizationCode => said::FIRST.without(Names::CLIENT).with(BROUGHT),
            Self::Device => said::FIRST.without(Names::CLIENT),
            _ => said::FIRST,
        }
    }

    /// The same in a refresh.
    fn offered_to_refresh(self) -> Names {
        if matches!(self, Self::AuthorizationCode | Self::Device) { said::REFRESH.without(Names::CLIENT) } else { said::REFRESH }
    }

    /// Whether a client without a name would be a mistake, unless headers or parameters name it.
    fn usual_client(self) -> bool {
        matches!(self, Self::ClientCredentials | Self::Auth0 | Self::AuthorizationCode | Self::Device)
    }
}

/// `method` and `body`: a GET has no body, so its parameters go into the query.
fn manner(fields: &Fields<'_>, usual: (&Method, Shape), problems: &Problems) -> Option<(Method, Shape)> {
    const METHODS: [&str; 4] = ["GET", "POST", "PUT", "PATCH"];
    let method = match fields.node("method") {
        None => usual.0.clone(),
        Some(node) => match node.word().filter(|w| METHODS.contains(w)) {
            Some(word) => Method::from_bytes(word.as_bytes()).ok()?,
            None => {
                problems.error(node.place, format!("`method` is one of: {}; found {}", METHODS.join(", "), node.shown()), "");
                return None;
            }
        },
    };
    let default = if method == Method::GET { Shape::Query } else { usual.1 };
    let shape = fields.choice("body", &Shape::ALL, default);
    if method == Method::GET && shape != Shape::Query {
        problems.error(fields.key_place("body"), "a GET has no body", "body: query, or another method");
        return None;
    }
    Some((method, shape))
}

/// The token URL of a tenant, whose domain people paste as they find it.
fn domain(fields: &Fields<'_>, reading: Reading<'_>, tls: Option<&net::tls::Config>) -> Option<Endpoint> {
    let node = fields.need("domain")?;
    let text = node.text(reading.problems)?;
    let (scheme, rest) = text.split_once("://").unwrap_or(("https", &text));
    let host = rest.trim_end_matches('/');
    if host.is_empty() || host.contains(['/', '?', '#', '@', ' ']) {
        reading.problems.error(node.place, "`domain` is the host of the tenant", "domain: tenant.eu.auth0.com");
        return None;
    }
    Endpoint::of(&format!("{scheme}://{host}/oauth/token"), node.place, tls, reading.context, reading.problems)
}

/// Reads what is special in the first call.
struct Parameters<'r> {
    reading: Reading<'r>,
    form: Form,
    said: Vec<(&'static str, Said)>,
    bearer: bool,
}

impl Parameters<'_> {
    /// A parameter of any kind, as written or made for each call. `None` after an error was reported.
    fn take(&mut self, name: &'static str, node: &Node) -> Option<()> {
        let problems = self.reading.problems;
        if let tree::Value::Secret(secret) = &node.value {
            self.form.set(name, secret.clone());
            return Some(());
        }
        match Said::read(node, said::FIRST, self.reading.context.settings, problems)? {
            Said::Ready(json) => self.form.set(name, Value::Json(json)),
            said => self.said.push((name, said)),
        }
        Some(())
    }

    /// One that is text, and may be secret.
    fn text(&mut self, name: &'static str, node: &Node) -> Option<()> {
        if node.is_template() {
            return self.take(name, node);
        }
        self.form.set(name, secret_or_text(node, self.reading.problems)?);
        Some(())
    }

    /// One that is a secret.
    fn secret(&mut self, name: &'static str, node: &Node) -> Option<()> {
        if node.is_template() {
            return self.take(name, node);
        }
        self.form.set(name, node.secret(self.reading.problems)?);
        Some(())
    }
}

fn first(fields: &Fields<'_>, reading: Reading<'_>, kind: Kind) -> Option<First> {
    let mut all = Parameters { reading, form: Form::default(), said: Vec::new(), bearer: false };
    if let Some(grant) = kind.grant_type() {
        all.form.set("grant_type", grant);
    }
    let mut assertion = None;
    let whole = match kind {
        Kind::Password => password(fields, &mut all),
        Kind::TokenExchange => exchange(fields, &mut all),
        Kind::JwtBearer => {
            assertion = bearer(fields, reading);
            assertion.as_ref().map(|_| ())
        }
        Kind::SamlBearer => {
            assertion = saml(fields, reading);
            assertion.as_ref().map(|_| ())
        }
        Kind::Auth0 => fields.need("audience").map(|_| ()),
        Kind::ClientCredentials | Kind::AuthorizationCode | Kind::Device => Some(()),
    };
    let scopes = fields.texts("scopes");
    let separator = fields.text("scope_separator").unwrap_or_else(|| " ".into());
    if !scopes.is_empty() {
        all.form.set("scope", Value::Scopes(scopes, separator));
    }
    // Where there is an assertion, it is for this audience.
    if !kind.asserts()
        && let Some(node) = fields.node("audience")
    {
        all.take("audience", node)?;
    }
    if let Some(node) = fields.node("resource") {
        all.take("resource", node)?;
    }
    whole?;
    Some(First { form: all.form, said: all.said, bearer: all.bearer, assertion })
}

fn password(fields: &Fields<'_>, all: &mut Parameters<'_>) -> Option<()> {
    let username = fields.need("username").and_then(|n| all.text("username", n));
    let password = fields.need("password").and_then(|n| {
        if n.is_template() {
            return all.take("password", n);
        }
        all.form.set("password", n.secret_or_empty(all.reading.problems)?);
        Some(())
    });
    username.and(password)
}

fn exchange(fields: &Fields<'_>, all: &mut Parameters<'_>) -> Option<()> {
    const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
    let kind_of = |key: &'static str| fields.text(key).unwrap_or_else(|| ACCESS_TOKEN.into());
    let subject = fields.need("subject").and_then(|node| {
        if node.word() == Some("client") {
            all.bearer = true;
            return Some(());
        }
        all.secret("subject_token", node)
    });
    let subject_type = kind_of("subject_token_type");
    all.form.set("subject_token_type", subject_type);
    let actor_type = kind_of("actor_token_type");
    if let Some(node) = fields.node("actor") {
        all.secret("actor_token", node)?;
        all.form.set("actor_token_type", actor_type);
    }
    if let Some(requested) = fields.text("requested_token_type") {
        all.form.set("requested_token_type", requested);
    }
    subject
}

/// The assertion of a JWT bearer grant: the operator's claims win, `null` removes one.
fn bearer(fields: &Fields<'_>, reading: Reading<'_>) -> Option<Assertion> {
    let problems = reading.problems;
    if let Some(node) = fields.node("assertion") {
        for key in ["issuer", "subject", "claims"] {
            if fields.node(key).is_some() {
                problems.error(fields.key_place(key), format!("`{key}` says nothing beside a ready `assertion`"), "remove one of them");
            }
        }
        return node.secret(problems).map(Assertion::Made);
    }
    let said = |node: &Node| Said::read(node, said::FIRST, reading.context.settings, problems);
    let signer = Signer::read(fields, None, reading.context.folders, problems);
    let issuer =
        fields.need("issuer").and_then(|n| if n.is_template() { said(n) } else { n.text(problems).map(|t| Said::Ready(t.into())) });
    let mut claims = Vec::new();
    if let Some(node) = fields.node("audience") {
        claims.push(("aud".to_owned(), said(node)?));
    }
    if let Some(node) = fields.node("subject") {
        if node.is_template() {
            claims.push(("sub".to_owned(), said(node)?));
        } else if let Some(subject) = node.text_or_unset(problems).filter(|s| !s.is_empty()) {
            claims.push(("sub".to_owned(), Said::Ready(subject.into())));
        }
    }
    if let Some(node) = fields.node("claims") {
        Fields::of(node, "a map of claims", problems)?;
        for entry in node.entries() {
            claims.retain(|(name, _)| **name != *entry.key);
            claims.push((entry.key.to_string(), said(&entry.node)?));
        }
    }
    Some(Assertion::Signed { signer: Box::new(signer?), issuer: issuer?, claims: Said::Map(claims) })
}

/// The assertion of a SAML bearer grant.
fn saml(fields: &Fields<'_>, reading: Reading<'_>) -> Option<Assertion> {
    if let Some(node) = fields.node("assertion") {
        for key in ["issuer", "subject", "attributes", "recipient"] {
            if fields.node(key).is_some() {
                let why = format!("`{key}` says nothing beside a ready `assertion`");
                reading.problems.error(fields.key_place(key), why, "remove one of them");
            }
        }
        return node.secret(reading.problems).map(Assertion::Made);
    }
    // One that only a call makes is no recipient that could be said beforehand.
    let token_url = fields.node("token_url").filter(|n| !n.is_template()).and_then(|n| n.text(reading.problems));
    Saml::read(fields, token_url.as_deref(), reading).map(|saml| Assertion::Saml(Box::new(saml)))
}

/// A JWT bearer grant whose settings come in a key file: the call to `url`, which is said at `place`.
pub fn asserted(
    url: &str,
    place: tree::Place,
    signer: Signer,
    issuer: String,
    claims: Map<String, serde_json::Value>,
    token: &str,
    reading: Reading<'_>,
) -> Option<Oauth> {
    let mut form = Form::default();
    form.set("grant_type", Kind::JwtBearer.grant_type().unwrap_or_default());
    let call = Call {
        endpoint: Endpoint::of(url, place, None, reading.context, reading.problems)?,
        method: Method::POST,
        shape: Shape::Form,
        headers: Vec::new(),
        params: Vec::new(),
        renames: Vec::new(),
        client: Client::nobody(),
        mapping: Mapping::default().token_at(token),
        time: reading.context.head.min(PATIENCE),
        settings: reading.context.settings.clone(),
    };
    let (issuer, claims) = (Said::Ready(issuer.into()), Said::Ready(claims.into()));
    let assertion = Some(Assertion::Signed { signer: Box::new(signer), issuer, claims });
    let first = First { form, said: Vec::new(), bearer: false, assertion };
    Some(Oauth { first: Some(first), call, refresh: None, refresh_token: None, consent: None, finder: None, must_keep: false })
}

/// `refresh`: each key falls back to the scheme's own (ruling E7).
pub(super) fn refreshing(
    node: Option<&Node>,
    kind: Kind,
    first: &Call,
    reading: Reading<'_>,
    tls: Option<&net::tls::Config>,
) -> Option<Call> {
    let offered = kind.offered_to_refresh();
    let problems = reading.problems;
    // Another grant's type is not the refresh's.
    let inherited = |params: &[Param]| params.iter().filter(|(name, _)| name != "grant_type").cloned().collect();
    let mut call = Call { params: inherited(&first.params), ..first.clone() };
    let Some(node) = node else { return Some(call) };
    let fields = Fields::of(node, "a map with the settings of the refresh", problems)?;
    if let Some(node) = fields.node("url") {
        call.endpoint = Endpoint::read(node, offered, tls, reading.context, problems)?;
    }
    (call.method, call.shape) = manner(&fields, (&first.method, first.shape), problems)?;
    if let Some(node) = fields.node("params") {
        call.params = call::params(Some(node), call.shape, offered, reading.context, problems)?;
    }
    if let Some(node) = fields.node("headers") {
        call.headers = call::headers(Some(node), offered, reading.context, problems)?;
    }
    if fields.node("client_auth").is_some() {
        // Who the client is stays; only how it says so may differ.
        call.client = call.client.otherwise(&fields, problems)?;
    }
    call.mapping = Mapping::read(fields.node("response"), &first.mapping, true, problems)?;
    fields.finish();
    Some(call)
}
