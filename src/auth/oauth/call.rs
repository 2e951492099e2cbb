//! One call to a token endpoint: where it goes, how it is written, who says to be calling, and how the answer is read.
//! Every dialect is a key here, and no issuer has code of its own.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response};
use zeroize::Zeroizing;

use super::client::Client;
use super::form::{Form, Value};
use super::reply::Mapping;
use super::trouble::{self, Step};
use crate::auth::Context;
use crate::auth::field::Field;
use crate::auth::grant::Ask;
use crate::auth::said::{self, Said};
use crate::auth::token::{Failure, Minted};
use crate::auth::whose::{Asking, Whose};
use crate::clock::Clock;
use crate::error::{Error, Unreachable};
use crate::expr::{self, Inputs as _, Moments, Name, Names, Settings, Template};
use crate::net::{self, Bounds, Hosts, Origin, Reach, Upstream};
use crate::secret::{Mask, Secret};
use crate::tree::{self, Node, Problems};

/// Largest answer of a token endpoint.
const ANSWER_MAX: u64 = 256 * 1024;
/// Most parameters and most headers of a call.
const ENTRIES_MAX: usize = 64;
/// Fields that belong to the framing and to the connection.
const FRAMING: [&str; 6] = ["host", "content-length", "transfer-encoding", "connection", "te", "upgrade"];

/// Where a token endpoint is.
#[derive(Clone, Debug)]
pub struct Endpoint {
    upstream: Arc<Upstream>,
    /// Path and query.
    target: String,
    /// As written, for the audience of assertions.
    url: String,
    /// Whether it stands for one that is still to be found.
    stands_in: bool,
    /// What makes it, where only a call knows it.
    made: Option<Arc<Made>>,
}

/// How issuers of a resource are reached.
#[derive(Clone, Debug)]
pub struct Way {
    tls: Option<net::tls::Config>,
    connect: std::time::Duration,
    queue: std::time::Duration,
}

impl Way {
    /// With the scheme's own `tls`, where it has some.
    pub fn new(tls: Option<&net::tls::Config>, context: &Context<'_>) -> Self {
        Self { tls: tls.or(context.tls).cloned(), connect: context.connect, queue: context.queue }
    }

    /// The endpoint at an absolute URL.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn to(&self, url: &str, reach: Reach) -> Result<Endpoint, &'static str> {
        let (origin, rest) = Origin::of(url)?;
        let target = if rest.starts_with('/') { rest.to_owned() } else { format!("/{rest}") };
        if target.parse::<http::uri::PathAndQuery>().is_err() {
            return Err("its path holds a character that no URL may hold");
        }
        let pool = net::pool::Config::read(None, origin.is_https(), &Problems::default()).ok_or("there is no way to it")?;
        let upstream = Upstream::new(origin, self.tls.clone(), pool, self.connect, self.queue).reaching(reach);
        Ok(Endpoint { upstream: Arc::new(upstream), target, url: url.to_owned(), stands_in: false, made: None })
    }
}

/// A token URL to be made.
#[derive(Debug)]
struct Made {
    template: Template,
    base: Option<String>,
    /// Where a host that is made may be (ruling F26).
    hosts: Option<Hosts>,
    allow_http: bool,
}

/// Stands for a host that is not known yet: a name that leads nowhere (RFC 6761 section 6.4).
const NOWHERE: &str = "nowhere.invalid";

impl Endpoint {
    /// Reads an absolute URL. `tls` is the scheme's own, where it has some.
    pub fn read(node: &Node, offered: Names, tls: Option<&net::tls::Config>, context: &Context<'_>, problems: &Problems) -> Option<Self> {
        if node.is_template() {
            let template = said::template(node, offered, context.settings, problems)?;
            return Self::late(template, node.place, tls, context, problems);
        }
        Self::of(&node.text(problems)?, node.place, tls, context, problems)
    }

    /// The same from a text that stands at `place` or was made from what stands there.
    pub fn of(url: &str, place: tree::Place, tls: Option<&net::tls::Config>, context: &Context<'_>, problems: &Problems) -> Option<Self> {
        let (origin, _) = parts(url, place, problems)?;
        if !origin.is_safe(context.allow_http) {
            problems.error(place, "a credential would travel over plain http", "use https, or set `allow_http: true` on the resource");
            return None;
        }
        let wrong = |why| problems.error(place, format!("this is no token URL: {why}"), "");
        Way::new(tls, context).to(url, Reach::Written).map_err(wrong).ok()
    }

    /// One that stands for another at the same issuer, which is still to be found.
    pub fn as_stand_in(&self) -> Self {
        Self { stands_in: true, ..self.clone() }
    }

    /// Whether it stands for one that is still to be found.
    pub fn is_stand_in(&self) -> bool {
        self.stands_in
    }

    /// The path.
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// One that is made for each call.
    fn late(
        template: Template,
        place: tree::Place,
        tls: Option<&net::tls::Config>,
        context: &Context<'_>,
        problems: &Problems,
    ) -> Option<Self> {
        let known = template.beginning().split_once("://").and_then(|(scheme, rest)| Some((scheme, rest.split_once('/')?.0)));
        let origin = match known.map_or_else(|| Origin::parse("https", NOWHERE), |(scheme, authority)| Origin::parse(scheme, authority)) {
            Ok(origin) => origin,
            Err(why) => {
                problems.error(place, format!("this is no token URL: {why}"), "https://issuer.example/token");
                return None;
            }
        };
        if known.is_none() && context.hosts.is_none() && !template.names().has(Name::Base) {
            let hint = "name what it may become: hosts: [\"*.example.com\"] on the resource";
            problems.error(place, "an expression makes the host of a token URL, and there are no `hosts`", hint);
            return None;
        }
        if known.is_some() && !origin.is_safe(context.allow_http) {
            problems.error(place, "a credential would travel over plain http", "use https, or set `allow_http: true` on the resource");
            return None;
        }
        let pool = net::pool::Config::read(None, origin.is_https(), problems)?;
        let reach = if known.is_some() { Reach::Written } else { Reach::Made { private: context.private } };
        let upstream = Upstream::new(origin, tls.or(context.tls).cloned(), pool, context.connect, context.queue);
        let upstream = upstream.reaching(reach).allowing_private(context.private);
        let base = match context.settings.input(Name::Base) {
            Ok(Some(expr::Value::Text(base))) => Some(base.to_string()),
            _ => None,
        };
        let url = format!("{template:?}");
        let made = Made { template, base, hosts: context.hosts.cloned(), allow_http: context.allow_http };
        Some(Self { upstream: Arc::new(upstream), target: "/".into(), url, stands_in: false, made: Some(Arc::new(made)) })
    }

    /// What its expressions read.
    pub fn names(&self) -> Names {
        self.made.as_ref().map_or(Names::NONE, |made| made.template.names())
    }

    /// Where it is for this call.
    ///
    /// # Errors
    /// Where it cannot be made, or leads where the gateway may not go.
    pub fn at(&self, asking: &Asking<'_>) -> Result<Self, Failure> {
        let Some(made) = &self.made else { return Ok(self.clone()) };
        let astray = |why: String| Failure::Own(Error::Unreachable(Unreachable::Astray(why.into())));
        let url = expr::url(&made.template, asking, made.base.as_deref()).map_err(|unmade| match unmade {
            expr::Unmade::Failed(failure) => said::failed(&failure, &made.template),
            expr::Unmade::Unfit(why) => astray(why.into()),
        })?;
        let (origin, rest) = Origin::of(&url.text).map_err(|why| astray(why.into()))?;
        if url.host && !made.hosts.as_ref().is_some_and(|hosts| hosts.allow(&origin)) {
            return Err(astray("`hosts` does not allow the issuer's host".into()));
        }
        if !origin.is_safe(made.allow_http) {
            return Err(astray("a credential would travel over plain http".into()));
        }
        let target = if rest.starts_with('/') { rest.to_owned() } else { format!("/{rest}") };
        if target.parse::<http::uri::PathAndQuery>().is_err() {
            return Err(astray("its path holds a character that no URL may hold".into()));
        }
        // What a value makes of it must not lead above where it is written.
        if crate::path::check(target.split('?').next().unwrap_or_default()).is_err() {
            return Err(astray("its path could be read as another one".into()));
        }
        let upstream = if self.upstream.origin().is(&origin) { self.upstream.clone() } else { self.upstream.at(&origin) };
        Ok(Self { upstream, target, url: url.text.to_string(), stands_in: false, made: None })
    }

    /// The URL of a service by which this machine gives identities: clouds have it on link-local addresses, without TLS.
    pub fn of_machine(url: &str, place: tree::Place, context: &Context<'_>, problems: &Problems) -> Option<Self> {
        let (origin, target) = parts(url, place, problems)?;
        let pool = net::pool::Config::read(None, origin.is_https(), problems)?;
        let upstream = Upstream::new(origin, context.tls.cloned(), pool, context.connect, context.queue).reaching(Reach::Machine);
        Some(Self { upstream: Arc::new(upstream), target, url: url.to_owned(), stands_in: false, made: None })
    }

    /// Path and query.
    ///
    /// # Errors
    /// If they are none, which was judged when they were read.
    pub fn target(&self) -> Result<http::Uri, Error> {
        self.target.parse().map_err(|_| Error::Internal("a token URL cannot be built".into()))
    }

    /// Sends a request there and reads the whole answer.
    ///
    /// # Errors
    /// Why there is no answer.
    pub async fn ask(&self, request: Request<Bytes>, time: std::time::Duration, bytes: u64) -> Result<Response<Bytes>, Error> {
        net::fetch(&self.upstream, request, Bounds { time, bytes }).await
    }

    /// Scheme, host and port.
    pub fn origin(&self) -> &Origin {
        self.upstream.origin()
    }

    /// Whose it is: its origin, or what makes that, or the issuer of whom it is still to be found out.
    pub fn issuer(&self) -> String {
        if self.made.is_some() || self.stands_in { self.url.clone() } else { self.origin().to_string() }
    }

    /// As written.
    pub fn url(&self) -> &str {
        &self.url
    }
}

/// Where a URL leads, and its path with its query.
fn parts(url: &str, place: tree::Place, problems: &Problems) -> Option<(Origin, String)> {
    let wrong = |why: &str, hint: &str| problems.error(place, format!("this is no token URL: {why}"), hint);
    let (origin, rest) = Origin::of(url).map_err(|why| wrong(why, "https://issuer.example/token")).ok()?;
    let target = if rest.starts_with('/') { rest.to_owned() } else { format!("/{rest}") };
    if target.parse::<http::uri::PathAndQuery>().is_err() {
        wrong("its path holds a character that no URL may hold", "percent-encode it");
        return None;
    }
    Some((origin, target))
}

/// How parameters travel (`body`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// `application/x-www-form-urlencoded`.
    Form,
    /// A JSON object.
    Json,
    /// In the query, with no body.
    Query,
}

impl Shape {
    /// All of them by name.
    pub const ALL: [(&'static str, Self); 3] = [("form", Self::Form), ("json", Self::Json), ("query", Self::Query)];
}

/// A parameter as the operator writes it; `None` removes it.
pub type Param = (String, Option<Argument>);

/// The value of a parameter.
#[derive(Clone, Debug)]
pub enum Argument {
    /// As written.
    Ready(Value),
    /// It holds an expression.
    Said(Said),
}

impl Argument {
    /// The value, now; `None` where it is null, and so left out.
    ///
    /// # Errors
    /// Where an expression fails.
    pub fn make(&self, asking: &Asking<'_>) -> Result<Option<Value>, Failure> {
        let said = match self {
            Self::Ready(value) => return Ok(Some(value.clone())),
            Self::Said(said) => said,
        };
        let made = said.make(asking, Moments::Refused)?;
        Ok(match made.json {
            serde_json::Value::Null => None,
            serde_json::Value::String(text) if made.secret => Some(Secret::new(text).into()),
            serde_json::Value::String(text) => Some(text.into()),
            other => Some(Value::Json(other)),
        })
    }

    /// What its expressions read.
    pub fn names(&self) -> Names {
        match self {
            Self::Ready(_) => Names::NONE,
            Self::Said(said) => said.names(),
        }
    }
}

/// A header of a token call as the operator writes it; `None` removes it.
pub type Line = (HeaderName, Option<Written>);

/// The value of a header.
#[derive(Clone, Debug)]
pub enum Written {
    /// As written.
    Ready(HeaderValue),
    /// It holds an expression.
    Computed(Arc<Template>),
}

/// One kind of call.
#[derive(Clone, Debug)]
pub struct Call {
    /// Where to.
    pub endpoint: Endpoint,
    /// How.
    pub method: Method,
    /// How the parameters travel.
    pub shape: Shape,
    /// Further fields; `None` removes one.
    pub headers: Vec<Line>,
    /// Further parameters, and standard ones that are replaced or removed.
    pub params: Vec<Param>,
    /// Other names for parameters; `None` removes one (ruling E22).
    pub renames: Vec<(String, Option<String>)>,
    /// Who says to be calling.
    pub client: Client,
    /// How the answer is read.
    pub mapping: Mapping,
    /// What bounds the call.
    pub time: std::time::Duration,
    /// What its expressions read besides what is asked.
    pub settings: Arc<Settings>,
}

impl Call {
    /// What its expressions read.
    pub fn names(&self) -> Names {
        let params = self.params.iter().filter_map(|(_, argument)| argument.as_ref()).map(Argument::names);
        let headers = self.headers.iter().filter_map(|(_, value)| match value {
            Some(Written::Computed(template)) => Some(template.names()),
            _ => None,
        });
        params.chain(headers).fold(self.endpoint.names(), Names::with)
    }

    /// The names of captures that its expressions read.
    pub fn captures(&self) -> Vec<&str> {
        let url = self.endpoint.made.iter().flat_map(|made| made.template.captures());
        let params = self.params.iter().flat_map(|(_, argument)| match argument {
            Some(Argument::Said(said)) => said.captures(),
            _ => Vec::new(),
        });
        let headers = self.headers.iter().flat_map(|(_, value)| match value {
            Some(Written::Computed(template)) => template.captures(),
            _ => Vec::new(),
        });
        url.chain(params).chain(headers).collect()
    }

    /// Sends it with these standard parameters, and reads the answer.
    ///
    /// # Errors
    /// Why there is no token.
    pub async fn send(&self, step: Step, form: Form, asking: &Asking<'_>) -> Result<Minted, Failure> {
        let ask = asking.ask();
        let (response, mask) = self.exchange(step, form, asking).await?;
        self.mapping.understand(&response, step, ask.clock.millis(), ask.before, &mask)
    }

    /// The same for nobody in particular, where there was nothing before.
    ///
    /// # Errors
    /// Why there is no token.
    pub async fn send_alone(&self, step: Step, form: Form, clock: &Clock) -> Result<Minted, Failure> {
        let whose = Whose::anybody();
        self.send(step, form, &Asking::new(&self.settings, Ask { before: None, whose: &whose, clock })).await
    }

    /// Sends it with these standard parameters where nothing is wanted in return. Whether the answer was a good one.
    ///
    /// # Errors
    /// Why there was no answer.
    pub async fn told(&self, form: Form, asking: &Asking<'_>) -> Result<bool, Failure> {
        let (response, _) = self.exchange(Step::Revocation, form, asking).await?;
        Ok(response.status().is_success())
    }

    /// Sends it, and hands over what came, with what must not be shown of it.
    ///
    /// # Errors
    /// Why there was no answer.
    pub async fn exchange(&self, step: Step, mut form: Form, asking: &Asking<'_>) -> Result<(Response<Bytes>, Mask), Failure> {
        let now = asking.ask().clock.millis();
        let endpoint = self.endpoint.at(asking)?;
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("postern/", env!("CARGO_PKG_VERSION"))));
        self.client.present(&mut form, &mut headers, &endpoint.url, now)?;
        for (name, argument) in &self.params {
            match argument.as_ref().map(|argument| argument.make(asking)).transpose()?.flatten() {
                Some(value) => form.set(name, value),
                None => form.remove(name),
            }
        }
        for (name, to) in &self.renames {
            match to {
                Some(to) => form.rename(name, to),
                None => form.remove(name),
            }
        }
        let mut secrets = form.secrets();
        for (name, value) in &self.headers {
            match value {
                Some(written) => drop(headers.insert(name, written.value(asking)?)),
                None => drop(headers.remove(name)),
            }
        }
        // What the operator writes into a header is often a credential, with a word in front.
        let shown = |value: &HeaderValue| value.to_str().map(str::to_owned).unwrap_or_default();
        for text in self.headers.iter().filter_map(|(name, _)| headers.get(name)).map(shown) {
            secrets.extend(text.split_once(' ').map(|(_, rest)| Secret::new(rest.to_owned())));
            secrets.push(Secret::new(text));
        }
        let mask = Mask::new(secrets.iter().chain(self.client.secrets()));
        let request = self.request(&endpoint, &form, headers)?;
        let bounds = Bounds { time: self.time, bytes: ANSWER_MAX };
        match net::fetch(&endpoint.upstream, request, bounds).await {
            Ok(response) => Ok((response, mask)),
            Err(error) => Err(trouble::unanswered(step, &endpoint.upstream.origin().to_string(), &error)),
        }
    }

    fn request(&self, endpoint: &Endpoint, form: &Form, mut headers: HeaderMap) -> Result<Request<Bytes>, Failure> {
        let mut target = Zeroizing::new(endpoint.target.clone());
        let body = match self.shape {
            Shape::Query => {
                let query = form.encoded();
                if !query.is_empty() {
                    let mark = if target.contains('?') { '&' } else { '?' };
                    target.push(mark);
                    target.push_str(&query);
                }
                Bytes::new()
            }
            Shape::Form => {
                headers.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static("application/x-www-form-urlencoded"));
                Bytes::from(form.encoded().as_bytes().to_vec())
            }
            Shape::Json => {
                headers.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static("application/json"));
                Bytes::from(form.json().as_bytes().to_vec())
            }
        };
        let mut request = Request::new(body);
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = target.parse().map_err(|_| Failure::Own(Error::Internal("a token URL cannot be built".into())))?;
        *request.headers_mut() = headers;
        Ok(request)
    }
}

impl Written {
    /// The value, now.
    ///
    /// # Errors
    /// Where an expression fails, or what it makes cannot stand in a header.
    fn value(&self, asking: &Asking<'_>) -> Result<HeaderValue, Failure> {
        match self {
            Self::Ready(value) => Ok(value.clone()),
            Self::Computed(template) => {
                let (text, _) = said::text(template, asking)?;
                let field = Field::new(&text).map_err(|why| Failure::Own(Error::Internal(format!("a header of a token call: {why}"))));
                Ok(field?.value())
            }
        }
    }
}

/// Reads `params`: text, numbers, true, false, lists and maps; `null` removes a standard parameter (ruling F3).
pub fn params(node: Option<&Node>, shape: Shape, offered: Names, context: &Context<'_>, problems: &Problems) -> Option<Vec<Param>> {
    let Some(node) = node else { return Some(Vec::new()) };
    let entries = entries(node, "a map of parameters", problems)?;
    let read = entries.iter().map(|entry| {
        let value = match &entry.node.value {
            tree::Value::Null => None,
            tree::Value::Secret(secret) => Some(Argument::Ready(Value::Text(secret.clone()))),
            tree::Value::Map(_) if shape != Shape::Json => {
                problems.error(entry.node.place, "a map has no place in a form or a query", "set `body: json`");
                return None;
            }
            tree::Value::Mixed(_) if !entry.node.is_template() => Some(Argument::Ready(Secret::new(entry.node.text(problems)?).into())),
            tree::Value::Text(_) | tree::Value::Unresolved(_) if !entry.node.is_template() => {
                Some(Argument::Ready(entry.node.text(problems)?.into()))
            }
            _ => Some(match Said::read(&entry.node, offered, context.settings, problems)? {
                Said::Ready(json) => Argument::Ready(Value::Json(json)),
                said => Argument::Said(said),
            }),
        };
        Some((entry.key.to_string(), value))
    });
    // All are read before any failure counts, so that every problem is reported.
    read.collect::<Vec<_>>().into_iter().collect()
}

/// Reads `headers` of a token call; `null` removes one.
pub fn headers(node: Option<&Node>, offered: Names, context: &Context<'_>, problems: &Problems) -> Option<Vec<Line>> {
    let Some(node) = node else { return Some(Vec::new()) };
    let entries = entries(node, "a map of headers", problems)?;
    let read = entries.iter().map(|entry| {
        let name = HeaderName::from_bytes(entry.key.as_bytes()).ok().filter(|name| !FRAMING.contains(&name.as_str()));
        let Some(name) = name else {
            problems.error(entry.place, format!("`{}` cannot be set", entry.key), "it is no name of a header, or belongs to the framing");
            return None;
        };
        if entry.node.is_null() {
            return Some((name, None));
        }
        if entry.node.is_template() {
            let template = said::template(&entry.node, offered, context.settings, problems)?;
            if let Err(mistake) = template.text_only() {
                problems.error(entry.node.place, mistake.message, mistake.hint);
                return None;
            }
            return Some((name, Some(Written::Computed(Arc::new(template)))));
        }
        let text = super::client::secret_or_text(&entry.node, problems)?;
        let field =
            Field::new(text.expose()).map_err(|why| problems.error(entry.node.place, format!("this header cannot be sent: {why}"), ""));
        Some((name, Some(Written::Ready(field.ok()?.value()))))
    });
    read.collect::<Vec<_>>().into_iter().collect()
}

/// Reads `fields`: other names for parameters; `null` removes one.
pub fn renames(node: Option<&Node>, problems: &Problems) -> Option<Vec<(String, Option<String>)>> {
    let Some(node) = node else { return Some(Vec::new()) };
    let entries = entries(node, "a map of parameters and their names", problems)?;
    let read = entries.iter().map(|entry| {
        let to = if entry.node.is_null() { None } else { Some(entry.node.text(problems)?) };
        Some((entry.key.to_string(), to))
    });
    read.collect::<Vec<_>>().into_iter().collect()
}

/// Whether a header that the operator wrote says who the client is.
pub fn presents(headers: &[Line]) -> bool {
    headers.iter().any(|(name, value)| *name == AUTHORIZATION && value.is_some())
}

fn entries<'n>(node: &'n Node, expected: &str, problems: &Problems) -> Option<&'n [tree::Entry]> {
    let entries = tree::Fields::of(node, expected, problems).map(|_| node.entries())?;
    if entries.len() > ENTRIES_MAX {
        problems.error(node.place, format!("more than {ENTRIES_MAX} entries"), "");
        return None;
    }
    Some(entries)
}
