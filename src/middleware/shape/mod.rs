//! Makes the client's request the upstream's, and the upstream's answer the client's (product, section 4): hygiene,
//! defaults, parameters, cookies on the way there; mapping of links and what browsers must see on the way back. All
//! that does not depend on the request is prepared when the configuration is loaded.

mod answer;
mod config;
mod fields;
mod links;
mod paging;

use std::sync::Arc;

use http::header::{ACCEPT, ACCEPT_ENCODING, COOKIE, Entry, HOST, IF_RANGE, MAX_FORWARDS, RANGE, USER_AGENT, VIA};
use http::{HeaderMap, HeaderName, HeaderValue, Method};

pub use config::{Base, Build, Config, SHAPING};

use self::answer::Back;
use self::fields::Filter;
use super::{Answer, Elsewhere, Next, Step};
use crate::body::Body;
use crate::call::{Call, Caller, Parts};
use crate::error::Error;
use crate::fill::Fills;
use crate::net::Cidr;
use crate::path::{Target, folded_param};
use crate::trailers::Screen;

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED: HeaderName = HeaderName::from_static("forwarded");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// The gateway as upstreams see it.
#[derive(Debug)]
pub struct Gateway {
    name: String,
    via: HeaderValue,
    user_agent: HeaderValue,
    trusted: Vec<Cidr>,
}

impl Gateway {
    /// `name` is a token (checked when the configuration is read); `trusted` are proxies whose word about a client's
    /// address is believed.
    pub fn new(name: &str, version: &str, trusted: Vec<Cidr>) -> Self {
        let value = |text: String| HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static("postern"));
        Self { name: name.to_owned(), via: value(format!("1.1 {name}")), user_agent: value(format!("postern/{version}")), trusted }
    }
}

/// Whether and how the client's address is passed on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientIp {
    /// Not at all.
    #[default]
    Off,
    /// In `X-Forwarded-For`.
    XForwardedFor,
    /// In `Forwarded` (RFC 7239).
    Forwarded,
}

/// Fields that every request gets, and those that a scheme and the framing may add: room for them is made at once.
const OWN_FIELDS: usize = 8;

/// A field that the resource sets.
#[derive(Clone, Debug)]
struct Set {
    name: HeaderName,
    value: HeaderValue,
    locked: bool,
}

/// A parameter that the resource sets.
#[derive(Clone, Debug)]
struct Param {
    /// As clients may spell it, decoded.
    name: String,
    /// Encoded pairs.
    pairs: Vec<(String, String)>,
    locked: bool,
}

/// Shapes the calls of one route.
#[derive(Debug)]
pub struct Shape {
    gateway: Arc<Gateway>,
    /// Whether only signing knows the base URL: then it puts its path in front, and says where the call goes.
    late: bool,
    base: String,
    host: HeaderValue,
    filter: Filter,
    /// The same for what stands behind a body.
    screen: Screen,
    set: Vec<Set>,
    /// Parameters of the client that go: locked, removed, or owned by the scheme; folded.
    dropped_params: Vec<String>,
    params: Vec<Param>,
    /// Configured cookies, `name=value` each.
    cookies: Vec<(String, HeaderValue)>,
    /// Cookies of the client that go although cookies are forwarded.
    dropped_cookies: Vec<String>,
    client_ip: ClientIp,
    /// What the request itself gives, the same for every attempt.
    fills: Option<Fills>,
    /// Whether an expression makes the `User-Agent`.
    computes_agent: bool,
    /// Whether bodies of answers are searched for the credential or for links: not compressed, and not in pieces of the client's choice,
    /// of which none would hold one.
    scanned: bool,
    back: Arc<Back>,
}

impl Step for Shape {
    async fn handle(&self, mut call: Call, next: &impl Next) -> Answer {
        self.refuse_loop(&call.headers)?;
        count_down(&mut call)?;
        self.target(&mut call)?;
        self.fields(&mut call);
        if let Some(fills) = &self.fills {
            // Boxed, so that the calls of other resources need no room for it.
            Box::pin(fills.put(&mut call)).await?;
        }
        // As it is before anything is signed: a credential may come to stand in it.
        let path: Option<Arc<str>> = self.back.needs_path().then(|| call.target.path().into());
        if self.late {
            // Nobody knows yet where their links lead.
            call.hints = None;
        }
        if let (Some(hints), Some(path)) = (&mut call.hints, &path) {
            hints.led(self.back.clone(), path.clone());
        }
        if self.late || self.back.paging.is_some() {
            return Box::pin(self.led(call, path, next)).await;
        }
        let record = call.record.clone();
        let mut response = next.run(call).await?;
        self.back.clean(&mut response, path.as_deref().unwrap_or("/"), &record.borrow().id);
        Ok(response)
    }
}

impl Shape {
    /// Runs a call whose answer needs more than its head: links in its body are led back, or where they lead back to is
    /// known from the call alone.
    async fn led(&self, call: Call, path: Option<Arc<str>>, next: &impl Next) -> Answer {
        let (method, record) = (call.method.clone(), call.record.clone());
        let mut response = next.run(call).await?;
        let base = record.borrow_mut().base.take();
        let path = path.as_deref().unwrap_or("/");
        let (back, path) = match &base {
            Some(base) => (&self.back.at(&base.0, &base.1), Target::below(&base.1, path, None).path().to_owned()),
            None => (&*self.back, path.to_owned()),
        };
        // What another host says of its paths leads nowhere here.
        let own = response.extensions().get::<Elsewhere>().is_none();
        if let Some((paging, most)) = back.paging.as_ref().filter(|_| own) {
            response = Box::pin(paging.lead(response, &method, &back.links, &path, *most)).await?;
        }
        back.clean(&mut response, &path, &record.borrow().id);
        Ok(response)
    }

    /// A request that has passed this very gateway comes from a resource that points back at it (ruling B30).
    fn refuse_loop(&self, headers: &HeaderMap) -> Result<(), Error> {
        let own = |via: &HeaderValue| {
            let Ok(text) = via.to_str() else { return false };
            text.split(',').any(|one| one.split_ascii_whitespace().nth(1) == Some(self.gateway.name.as_str()))
        };
        if headers.get_all(VIA).iter().any(own) { Err(Error::Loop(self.gateway.name.clone())) } else { Ok(()) }
    }

    fn target(&self, call: &mut Call) -> Result<(), Error> {
        let (path, query) = (call.target.path(), call.target.query());
        let mut target = if self.late { Target::new(path, query) } else { Target::below(&self.base, path, query) };
        if !self.dropped_params.is_empty() {
            let ours = |name: &str| self.dropped_params.contains(&folded_param(name));
            if target.hides_param(ours) {
                let why = "The query holds a parameter of the gateway's own behind a `;`, which some servers read as `&`.";
                return Err(Error::BadPath(why.into(), "Encode `;` as %3B.".into()));
            }
            target.remove_params(ours);
        }
        for param in &self.params {
            if param.locked || !target.has_param(&param.name) {
                param.pairs.iter().for_each(|(name, value)| target.append(name, value));
            }
        }
        call.target = target;
        Ok(())
    }

    fn fields(&self, call: &mut Call) {
        let default_accept = self.set.iter().any(|s| s.name == ACCEPT);
        let switches = call.upgrade.is_some();
        let forwarded_for = self.chain(&call.headers, &call.caller);
        trace(call);
        let Parts { headers, record, body, .. } = &mut **call;
        if let Body::Inbound(body) = body {
            body.screen(self.screen.clone());
        }
        self.filter.apply(headers, switches);
        headers.reserve(self.set.len() + OWN_FIELDS);
        if default_accept && headers.get(ACCEPT).is_some_and(|a| a == "*/*") && headers.get_all(ACCEPT).iter().count() == 1 {
            headers.remove(ACCEPT);
        }
        for set in &self.set {
            match headers.entry(&set.name) {
                Entry::Vacant(place) => _ = place.insert(set.value.clone()),
                Entry::Occupied(mut place) if set.locked => _ = place.insert(set.value.clone()),
                Entry::Occupied(_) => {}
            }
        }
        if !headers.contains_key(USER_AGENT) && !self.filter.removes(&USER_AGENT) && !self.computes_agent {
            headers.insert(USER_AGENT, self.gateway.user_agent.clone());
        }
        if self.scanned {
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
            headers.remove(RANGE);
            headers.remove(IF_RANGE);
        }
        headers.insert(HOST, self.host.clone());
        headers.append(VIA, self.gateway.via.clone());
        if !self.cookies.is_empty() || !self.dropped_cookies.is_empty() {
            self.merge_cookies(headers);
        }
        if let Some((name, value)) = forwarded_for {
            headers.insert(name, value);
        }
        if let Ok(id) = HeaderValue::from_str(&record.borrow().id) {
            headers.insert(X_REQUEST_ID, id);
        }
    }

    /// One `Cookie` field: the client's, where they are forwarded, and the configured ones, which win (ruling D6).
    fn merge_cookies(&self, headers: &mut HeaderMap) {
        let name_of = |cookie: &[u8]| cookie.split(|b| *b == b'=').next().unwrap_or_default().trim_ascii().to_vec();
        let mut all: Vec<u8> = Vec::new();
        let mut push = |cookie: &[u8]| {
            if !all.is_empty() {
                all.extend_from_slice(b"; ");
            }
            all.extend_from_slice(cookie);
        };
        for field in headers.get_all(COOKIE) {
            for cookie in field.as_bytes().split(|b| *b == b';').map(<[u8]>::trim_ascii).filter(|c| !c.is_empty()) {
                let name = name_of(cookie);
                let ours =
                    self.cookies.iter().any(|(n, _)| n.as_bytes() == name) || self.dropped_cookies.iter().any(|n| n.as_bytes() == name);
                if !ours {
                    push(cookie);
                }
            }
        }
        self.cookies.iter().for_each(|(_, cookie)| push(cookie.as_bytes()));
        headers.remove(COOKIE);
        if let Ok(mut value) = HeaderValue::from_bytes(&all)
            && !all.is_empty()
        {
            value.set_sensitive(true);
            headers.insert(COOKIE, value);
        }
    }

    /// The client's address for the upstream. A chain that the peer brings is kept only if the peer is trusted.
    fn chain(&self, headers: &HeaderMap, caller: &Caller) -> Option<(HeaderName, HeaderValue)> {
        let ip = caller.ip.filter(|_| self.client_ip != ClientIp::Off)?;
        let (name, own) = match self.client_ip {
            ClientIp::Forwarded if ip.is_ipv6() => (FORWARDED, format!("for=\"[{ip}]\"")),
            ClientIp::Forwarded => (FORWARDED, format!("for={ip}")),
            _ => (X_FORWARDED_FOR, ip.to_string()),
        };
        let trusted = self.gateway.trusted.iter().any(|block| block.contains(ip));
        let before: Vec<&str> = headers.get_all(&name).iter().filter(|_| trusted).filter_map(|v| v.to_str().ok()).collect();
        let all = before.into_iter().chain([own.as_str()]).collect::<Vec<_>>().join(", ");
        HeaderValue::try_from(all).ok().map(|value| (name, value))
    }
}

/// Counts `Max-Forwards` down (RFC 9110 section 7.6.2). It means something with OPTIONS alone, as TRACE is not forwarded.
fn count_down(call: &mut Call) -> Result<(), Error> {
    if call.method != Method::OPTIONS {
        return Ok(());
    }
    let Some(left) = call.headers.get(MAX_FORWARDS) else { return Ok(()) };
    let left = left.to_str().ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit())).and_then(|text| text.parse::<u32>().ok());
    match left {
        Some(0) => Err(Error::BadRequest("`Max-Forwards` is 0: the request may go no further.".into(), "Raise it.".into())),
        Some(left) if call.headers.get_all(MAX_FORWARDS).iter().count() == 1 => {
            call.headers.insert(MAX_FORWARDS, HeaderValue::from(left - 1));
            Ok(())
        }
        _ => Err(Error::BadRequest("`Max-Forwards` is not one number.".into(), "Send one, or none.".into())),
    }
}

/// Continues a trace with a span of our own (W3C Trace Context 1, section 3). What is malformed is dropped.
fn trace(call: &mut Call) {
    let Some(value) = call.headers.get(TRACEPARENT) else {
        call.headers.remove(TRACESTATE);
        return;
    };
    let parsed = value.to_str().ok().and_then(parse_trace).filter(|_| call.headers.get_all(TRACEPARENT).iter().count() == 1);
    let Some((id, flags)) = parsed else {
        call.headers.remove(TRACEPARENT);
        call.headers.remove(TRACESTATE);
        return;
    };
    let span = fastrand::u64(1..);
    let next = format!("00-{id}-{span:016x}-{flags}");
    call.record.borrow_mut().trace = Some(id.into());
    if let Ok(next) = HeaderValue::try_from(next) {
        call.headers.insert(TRACEPARENT, next);
    }
}

/// The trace id and the flags of a `traceparent`.
fn parse_trace(text: &str) -> Option<(String, String)> {
    let parts: Vec<&str> = text.split('-').collect();
    let hex = |s: &str, length: usize| s.len() == length && s.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    let set = |s: &str| s.bytes().any(|b| b != b'0');
    match parts.as_slice() {
        [version, id, span, flags, rest @ ..] => {
            let known = *version == "00" && rest.is_empty();
            let later = hex(version, 2) && *version != "ff" && *version != "00";
            let good = (known || later) && hex(id, 32) && set(id) && hex(span, 16) && set(span) && hex(flags, 2);
            good.then(|| ((*id).to_owned(), (*flags).to_owned()))
        }
        _ => None,
    }
}
