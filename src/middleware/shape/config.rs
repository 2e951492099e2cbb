//! What a resource says about shaping, as written, and how it becomes a [`Shape`].

use std::sync::Arc;

use http::header::{ACCEPT, AUTHORIZATION, COOKIE, USER_AGENT};
use http::{HeaderName, HeaderValue};

use super::answer::Back;
use super::fields::{Filter, is_never};
use super::links::Links;
use super::paging::Paging;
use super::{ClientIp, Gateway, Param, Set, Shape};
use crate::auth::Owned;
use crate::expr::{self, Names, Settings, Template, Unset};
use crate::fill::{Fill, Fills, Spot};
use crate::net::Origin;
use crate::path::folded_param;
use crate::tree::{Fields, Node, Place, Problems, Value};
use crate::uri::encode_query;

/// Fields that a resource cannot set, and why.
const NOT_SET_HERE: [(&str, &str); 5] = [
    ("cookie", "use `cookies`"),
    ("via", "the gateway marks its own way"),
    ("trailer", "trailers announce themselves"),
    ("traceparent", "a trace is continued, not begun here"),
    ("tracestate", "a trace is continued, not begun here"),
];

/// The keys `headers params cookies forward redirects rewrite_links browser` of a resource.
#[derive(Clone, Debug)]
pub struct Config {
    headers: Vec<(HeaderName, Place, Rule<HeaderValue>)>,
    params: Vec<(String, Place, Rule<Vec<String>>)>,
    cookies: Vec<(String, HeaderValue)>,
    computed_cookies: Vec<Fill>,
    forward: Forward,
    rewrites: bool,
    paging: Option<Paging>,
    browser: bool,
}

/// A name, where it stands, and what becomes of it; nothing where an unset value is left out.
type Named<N, V> = (N, Place, Option<Rule<V>>);

/// What becomes of one name.
#[derive(Clone, Debug)]
enum Rule<T> {
    /// It is set: a default, or locked.
    Set { value: T, locked: bool },
    /// It is computed for each request.
    Computed { templates: Vec<Arc<Template>>, locked: bool, unset: Unset },
    /// It is removed, the client's too.
    Remove,
}

#[derive(Clone, Debug, Default)]
struct Forward {
    authorization: bool,
    cookies: bool,
    client_ip: ClientIp,
    headers: Vec<HeaderName>,
}

/// Where a resource's upstream is.
#[derive(Clone, Copy, Debug)]
pub struct Base<'b> {
    /// Scheme, host, port.
    pub origin: &'b Origin,
    /// The path as written.
    pub path: &'b str,
}

/// What a shape is built with.
#[derive(Debug)]
pub struct Build<'b> {
    /// The name of the resource.
    pub resource: &'b str,
    /// Where it leads.
    pub base: Base<'b>,
    /// Whether only signing knows where that is.
    pub late: bool,
    /// What its schemes own.
    pub owned: Owned,
    /// The gateway as upstreams see it.
    pub gateway: Arc<Gateway>,
    /// What its expressions read besides the request.
    pub settings: Arc<Settings>,
    /// `limits.buffer`.
    pub buffer: u64,
    /// Whether bodies of answers are searched, and so must come whole and as they are.
    pub scanned: bool,
    /// Whether something is merged into bodies.
    pub merged: bool,
}

/// What headers, parameters, cookies and bodies may read.
pub const SHAPING: Names = Names::FIXED.with(Names::CLIENT).with(Names::REQUEST).with(Names::ATTEMPT).with(Names::GRANTED);

impl Config {
    /// Reads the keys of a resource. `None` after an error was reported.
    pub fn read(fields: &Fields<'_>, settings: &Settings, problems: &Problems) -> Option<Self> {
        let paging = fields.node("rewrite_links").map(|n| Paging::read(n, problems));
        // A map says what is followed, and is read by `follow`.
        let follows = fields.raw("redirects").is_some_and(|n| matches!(n.value, Value::Map(_)));
        let redirects = follows || fields.choice("redirects", &[("rewrite", true), ("pass", false)], true);
        let (cookies, computed_cookies) = fields.node("cookies").map(|n| cookies(n, settings, problems)).unwrap_or_default();
        let config = Self {
            headers: Vec::new(),
            params: Vec::new(),
            cookies,
            computed_cookies,
            forward: fields.node("forward").map_or_else(|| Some(Forward::default()), |n| forward(n, problems))?,
            rewrites: redirects,
            paging: match paging {
                Some(paging) => Some(paging?),
                None => None,
            },
            browser: fields.flag("browser", false),
        };
        config.overlay(fields, settings, problems)
    }

    /// Lays `headers` and `params` of a route over these: names that are the same are replaced.
    pub fn overlay(mut self, fields: &Fields<'_>, settings: &Settings, problems: &Problems) -> Option<Self> {
        for (name, place, rule) in fields.node("headers").map(|n| headers(n, settings, problems)).unwrap_or_default() {
            self.headers.retain(|(n, ..)| *n != name);
            self.headers.extend(rule.map(|rule| (name, place, rule)));
        }
        for (name, place, rule) in fields.node("params").map(|n| params(n, settings, problems)).unwrap_or_default() {
            self.params.retain(|(n, ..)| *n != name);
            self.params.extend(rule.map(|rule| (name, place, rule)));
        }
        Some(self)
    }

    /// Builds it. `None` after an error was reported.
    pub fn build(self, build: Build<'_>, problems: &Problems) -> Option<(Shape, Option<Fills>)> {
        let Build { resource, base, late, owned, gateway, settings, buffer, scanned, merged } = build;
        let mut fills = self.computed_cookies;
        let mut filter = Filter {
            owned: owned.headers.clone(),
            named: self.forward.headers.clone(),
            authorization: self.forward.authorization || owned.passes_authorization,
            cookies: self.forward.cookies,
        };
        let mut good = true;
        let mut set = Vec::new();
        for (name, place, rule) in self.headers {
            if owned.headers.contains(&name) {
                problems.error(place, format!("`{name}` belongs to the scheme under `auth`"), "remove it here");
                good = false;
            }
            match rule {
                Rule::Remove => filter.owned.push(name),
                Rule::Set { value, locked } => {
                    if locked {
                        filter.owned.push(name.clone());
                    }
                    set.push(Set { name, value, locked });
                }
                Rule::Computed { templates, locked, unset } => {
                    if locked {
                        filter.owned.push(name.clone());
                    }
                    fills.push(Fill { spot: Spot::Header(name), templates, unset });
                }
            }
        }
        let mut dropped_params: Vec<String> = owned.params.clone();
        let mut params = Vec::new();
        for (name, place, rule) in self.params {
            if owned.params.contains(&name) {
                problems.error(place, format!("`{name}` belongs to the scheme under `auth`"), "remove it here");
                good = false;
            }
            match rule {
                Rule::Remove => dropped_params.push(name),
                Rule::Set { value, locked } => {
                    if locked {
                        dropped_params.push(name.clone());
                    }
                    let pairs = value.iter().map(|v| (encode_query(&name), encode_query(v))).collect();
                    params.push(Param { name, pairs, locked });
                }
                Rule::Computed { templates, locked, unset } => {
                    if locked {
                        dropped_params.push(name.clone());
                    }
                    fills.push(Fill { spot: Spot::Param(name), templates, unset });
                }
            }
        }
        let back = Back {
            links: Links::new(resource, base.origin, base.path),
            rewrites: self.rewrites,
            paging: self.paging.map(|paging| (paging, buffer)),
            cookies: self.forward.cookies,
            browser: self.browser,
        };
        let (steady, volatile) = Fills::split(fills, &settings, buffer, merged, late);
        let computes = |fills: &Option<Fills>| fills.as_ref().is_some_and(|fills| fills.sets(&USER_AGENT));
        let computes_agent = computes(&steady) || computes(&volatile);
        let shape = good.then(|| Shape {
            gateway,
            late,
            base: base.path.to_owned(),
            host: base.origin.authority().clone(),
            screen: filter.screen(),
            filter,
            set,
            dropped_params: dropped_params.iter().map(|name| folded_param(name)).collect(),
            params,
            cookies: self.cookies,
            dropped_cookies: owned.cookies,
            client_ip: self.forward.client_ip,
            fills: steady,
            computes_agent,
            scanned: scanned || back.paging.is_some(),
            back: Arc::new(back),
        })?;
        Some((shape, volatile))
    }
}

/// A value with its switches: `"text"`, or `{ value, locked, omit_if_unset }`.
struct Written<'n> {
    value: &'n Node,
    locked: bool,
    omit: bool,
}

fn written<'n>(node: &'n Node, problems: &'n Problems) -> Option<Written<'n>> {
    if !matches!(node.value, Value::Map(_)) {
        return Some(Written { value: node, locked: false, omit: false });
    }
    let fields = Fields::of(node, "text, or a map with `value`", problems)?;
    let value = fields.raw("value");
    let (locked, omit) = (fields.flag("locked", false), fields.flag("omit_if_unset", false));
    let place = fields.place();
    fields.finish();
    let Some(value) = value else {
        problems.error(place, "`value` is missing", "{ value: …, locked: true }");
        return None;
    };
    Some(Written { value, locked, omit })
}

fn headers(node: &Node, settings: &Settings, problems: &Problems) -> Vec<Named<HeaderName, HeaderValue>> {
    if Fields::of(node, "a map of header fields", problems).is_none() {
        return Vec::new();
    }
    let mut all: Vec<Named<HeaderName, HeaderValue>> = Vec::new();
    for entry in node.entries() {
        let Some(name) = header_name(&entry.key, entry.place, problems) else { continue };
        if all.iter().any(|(n, ..)| *n == name) {
            problems.error(entry.place, format!("`{name}` is there twice, in two spellings"), "header names have no case");
        }
        if let Some(rule) = header(&name, &entry.node, settings, problems) {
            all.push((name, entry.place, rule));
        }
    }
    all
}

fn header_name(text: &str, place: Place, problems: &Problems) -> Option<HeaderName> {
    let Ok(name) = HeaderName::from_bytes(text.as_bytes()) else {
        problems.error(place, format!("`{text}` is no name of a header field"), "letters, digits and `-`");
        return None;
    };
    let reason = NOT_SET_HERE.iter().find(|(n, _)| *n == name.as_str()).map(|(_, why)| *why);
    let reason = reason.or_else(|| is_never(name.as_str()).then_some("it frames the message, belongs to one hop, or is the gateway's own"));
    if let Some(why) = reason {
        problems.error(place, format!("`{text}` cannot be set here"), why);
        return None;
    }
    Some(name)
}

fn header(name: &HeaderName, node: &Node, settings: &Settings, problems: &Problems) -> Option<Option<Rule<HeaderValue>>> {
    if node.is_null() {
        return Some(Some(Rule::Remove));
    }
    let Written { value, locked, omit } = written(node, problems)?;
    if value.is_template() {
        return computed(std::slice::from_ref(value), locked, omit, settings, problems).map(Some);
    }
    let text = if omit { value.text_or_unset(problems)? } else { value.text(problems)? };
    if omit && text.is_empty() {
        return Some(None);
    }
    if *name == AUTHORIZATION && matches!(value.value, Value::Text(_)) {
        problems.warn(value.place, "a credential is written into the file", "use `auth`, or a reference: \"${env:NAME}\"");
    }
    let Ok(mut header) = HeaderValue::try_from(text.as_bytes()) else {
        problems.error(value.place, "the value holds a line end or another control character", "");
        return None;
    };
    header.set_sensitive(matches!(value.value, Value::Secret(_)));
    if *name == ACCEPT && header.is_empty() {
        problems.warn(value.place, "an empty `Accept` accepts nothing", "");
    }
    Some(Some(Rule::Set { value: header, locked }))
}

fn params(node: &Node, settings: &Settings, problems: &Problems) -> Vec<Named<String, Vec<String>>> {
    if Fields::of(node, "a map of parameters", problems).is_none() {
        return Vec::new();
    }
    node.entries().iter().filter_map(|e| param(&e.node, settings, problems).map(|rule| (e.key.to_string(), e.place, rule))).collect()
}

fn param(node: &Node, settings: &Settings, problems: &Problems) -> Option<Option<Rule<Vec<String>>>> {
    if node.is_null() {
        return Some(Some(Rule::Remove));
    }
    let Written { value, locked, omit } = written(node, problems)?;
    if value.items().iter().any(Node::is_template) {
        return computed(value.items(), locked, omit, settings, problems).map(Some);
    }
    let one = |n: &Node| if omit { n.text_or_unset(problems) } else { n.text(problems) };
    let all: Vec<String> = match &value.value {
        Value::List(items) => items.iter().map(one).collect::<Option<_>>()?,
        _ => vec![one(value)?],
    };
    let all: Vec<String> = all.into_iter().filter(|v| !(omit && v.is_empty())).collect();
    Some((!all.is_empty() || locked).then_some(Rule::Set { value: all, locked }))
}

/// What only a request can give.
fn computed<T>(nodes: &[Node], locked: bool, omit: bool, settings: &Settings, problems: &Problems) -> Option<Rule<T>> {
    let template = |node: &Node| {
        let template = expr::read(node, &settings.scope(SHAPING), problems)?;
        if let Err(mistake) = template.text_only() {
            problems.error(node.place, mistake.message, mistake.hint);
            return None;
        }
        Some(Arc::new(template))
    };
    let templates = nodes.iter().map(template).collect::<Option<Vec<_>>>()?;
    Some(Rule::Computed { templates, locked, unset: if omit { Unset::Omitted } else { Unset::Kept } })
}

fn cookies(node: &Node, settings: &Settings, problems: &Problems) -> (Vec<(String, HeaderValue)>, Vec<Fill>) {
    let (mut ready, mut fills) = (Vec::new(), Vec::new());
    if Fields::of(node, "a map of cookies", problems).is_none() {
        return (ready, fills);
    }
    for entry in node.entries() {
        if !entry.node.is_template() {
            ready.extend(cookie(&entry.key, &entry.node, entry.place, problems));
        } else if HeaderName::from_bytes(entry.key.as_bytes()).is_err() {
            problems.error(entry.place, format!("`{}` is no name of a cookie", entry.key), "");
        } else if let Some(Rule::Computed::<()> { templates, unset, .. }) =
            computed(std::slice::from_ref(&entry.node), true, false, settings, problems)
        {
            fills.push(Fill { spot: Spot::Cookie(entry.key.to_string()), templates, unset });
        }
    }
    (ready, fills)
}

/// A cookie's value is made of cookie-octets (RFC 6265 section 4.1.1).
fn cookie(name: &str, node: &Node, place: Place, problems: &Problems) -> Option<(String, HeaderValue)> {
    let value = node.text(problems)?;
    let octet = |b: u8| matches!(b, 0x21 | 0x23..=0x2b | 0x2d..=0x3a | 0x3c..=0x5b | 0x5d..=0x7e);
    if HeaderName::from_bytes(name.as_bytes()).is_err() || !value.bytes().all(octet) {
        problems.error(
            place,
            "a cookie is a token and a value without spaces, quotes, commas, semicolons and backslashes",
            "encode the value as the upstream wants it",
        );
        return None;
    }
    let mut pair = HeaderValue::try_from(format!("{name}={value}")).ok()?;
    pair.set_sensitive(matches!(node.value, Value::Secret(_)));
    Some((name.to_owned(), pair))
}

fn forward(node: &Node, problems: &Problems) -> Option<Forward> {
    let fields = Fields::of(node, "a map of `authorization`, `cookies`, `client_ip` and `headers`", problems)?;
    let client_ip = [("off", ClientIp::Off), ("x-forwarded-for", ClientIp::XForwardedFor), ("forwarded", ClientIp::Forwarded)];
    let mut headers = Vec::new();
    for node in fields.items("headers") {
        let Some(text) = node.text(problems) else { continue };
        match HeaderName::from_bytes(text.as_bytes()) {
            Ok(name) if name == AUTHORIZATION || name == COOKIE => problems.error(
                node.place,
                format!("{} has a switch of its own", node.shown()),
                "forward: { authorization: true, cookies: true }",
            ),
            Ok(name) if is_never(name.as_str()) => problems.error(
                node.place,
                format!("{} is never forwarded", node.shown()),
                "it frames the message, belongs to one hop, or is the gateway's own",
            ),
            Ok(name) => headers.push(name),
            Err(_) => problems.error(node.place, format!("{} is no name of a header field", node.shown()), ""),
        }
    }
    let forward = Forward {
        authorization: fields.flag("authorization", false),
        cookies: fields.flag("cookies", false),
        client_ip: fields.choice("client_ip", &client_ip, ClientIp::Off),
        headers,
    };
    fields.finish();
    Some(forward)
}
