//! `test` of a resource: the call that shows that it works, and what its answer must be. `postern test` makes it.

use std::sync::Arc;

use http::{HeaderName, Method};

use super::resource::method;
use crate::expr::{Condition, Inputs, Map, Moments, Name, Names, Settings, Value};
use crate::tree::{self, Entry, Fields, Node, Problems};
use crate::uri::encode_query;

/// Largest body that a test sends.
const BODY_MAX: usize = 1 << 20;
/// Most calls of one `test`.
const PROBES_MAX: usize = 16;

/// One call, and what its answer must be.
#[derive(Debug)]
pub struct Probe {
    /// The method.
    pub method: Method,
    /// What follows `/r/<resource>`, with a query where there is one.
    pub path: String,
    /// `url`: what stands there in place of the resource's base URL.
    pub elsewhere: Option<Node>,
    /// Fields that the test sends as a client would.
    pub headers: Vec<(HeaderName, String)>,
    /// The body.
    pub body: Vec<u8>,
    statuses: Vec<u16>,
    when: Option<Condition>,
    settings: Arc<Settings>,
}

/// Reads `test`: one call or a list, of which the first success counts (ruling E18).
pub fn read(fields: &Fields<'_>, settings: &Arc<Settings>, problems: &Problems) -> Vec<Probe> {
    let Some(node) = fields.node("test") else { return Vec::new() };
    let items: Vec<Node> = node.items().iter().map(|item| settled(item, settings, problems)).collect();
    if items.is_empty() || items.len() > PROBES_MAX {
        problems.error(node.place, format!("`test` is one call, or a list of up to {PROBES_MAX}"), "test: { path: /status }");
    }
    items.iter().filter_map(|item| probe(item, settings, problems)).collect()
}

/// A call with its templates evaluated; a condition is none, and a base URL is judged with its expressions.
fn settled(node: &Node, settings: &Settings, problems: &Problems) -> Node {
    let tree::Value::Map(entries) = &node.value else { return settings.settle(node, Names::FIXED, problems) };
    let entry = |e: &Entry| {
        let node = if matches!(&*e.key, "when" | "url") { e.node.clone() } else { settings.settle(&e.node, Names::FIXED, problems) };
        Entry { key: e.key.clone(), place: e.place, node }
    };
    Node { place: node.place, value: tree::Value::Map(entries.iter().map(entry).collect()) }
}

fn probe(node: &Node, settings: &Arc<Settings>, problems: &Problems) -> Option<Probe> {
    let fields = Fields::of(node, "a call: a map with `path`", problems)?;
    let verb = fields.node("method").map_or(Some(Method::GET), |n| method(n, problems));
    let path = fields.node("path").map_or(Some(String::new()), |n| path(n, problems));
    let elsewhere = fields.raw("url").cloned();
    let mut headers = fields.node("headers").map(|n| headers(n, problems)).unwrap_or_default();
    let (json, form) = (fields.node("json"), fields.node("form"));
    if let (Some(_), Some(form)) = (json, form) {
        problems.error(form.place, "a call has one body", "write `json` or `form`");
    }
    let body = match (json, form) {
        (Some(json), _) => Some((self::json(json, problems)?, "application/json")),
        (None, Some(form)) => Some((self::form(form, problems)?, "application/x-www-form-urlencoded")),
        (None, None) => None,
    };
    let (body, kind) = body.map_or((String::new(), None), |(body, kind)| (body, Some(kind)));
    if body.len() > BODY_MAX {
        problems.error(node.place, "the body of a test is larger than 1MiB", "");
    }
    if let Some(kind) = kind.filter(|_| !headers.iter().any(|(name, _)| *name == http::header::CONTENT_TYPE)) {
        headers.push((http::header::CONTENT_TYPE, kind.to_owned()));
    }
    let statuses = fields.items("statuses").iter().filter_map(|n| status(n, problems)).collect();
    let when = fields.node("when").map(|n| condition(n, settings, problems));
    fields.finish();
    Some(Probe {
        method: verb?,
        path: path?,
        elsewhere,
        headers,
        body: body.into_bytes(),
        statuses,
        when: match when {
            Some(when) => Some(when?),
            None => None,
        },
        settings: settings.clone(),
    })
}

fn path(node: &Node, problems: &Problems) -> Option<String> {
    let text = node.text(problems)?;
    let good = (text.is_empty() || text.starts_with(['/', '?'])) && text.bytes().all(|b| (0x21..0x7f).contains(&b) && b != b'#');
    if !good {
        problems.error(node.place, "`path` is what follows /r/<resource>, percent-encoded", "path: /status?verbose=1");
        return None;
    }
    Some(text)
}

fn headers(node: &Node, problems: &Problems) -> Vec<(HeaderName, String)> {
    if Fields::of(node, "a map of header fields", problems).is_none() {
        return Vec::new();
    }
    let mut all = Vec::new();
    for entry in node.entries() {
        let Some(value) = entry.node.text(problems) else { continue };
        match HeaderName::from_bytes(entry.key.as_bytes()) {
            Ok(name) if !value.contains(['\r', '\n', '\0']) => all.push((name, value)),
            _ => problems.error(
                entry.place,
                format!("`{}` is no header field", entry.key),
                "a name of letters, digits and `-`, and one line",
            ),
        }
    }
    all
}

fn json(node: &Node, problems: &Problems) -> Option<String> {
    let mut text = String::new();
    let written = Value::of_node(node).map(|value| value.write_json(Moments::Refused, &mut text));
    if !matches!(written, Some(Ok(()))) {
        problems.error(node.place, "this cannot be written as JSON", "");
        return None;
    }
    Some(text)
}

fn form(node: &Node, problems: &Problems) -> Option<String> {
    Fields::of(node, "a map of form fields", problems)?;
    let pair = |name: &str, node: &Node| Some(format!("{}={}", encode_query(name), encode_query(&node.text(problems)?)));
    let pairs: Option<Vec<String>> = node.entries().iter().map(|e| pair(&e.key, &e.node)).collect();
    Some(pairs?.join("&"))
}

fn status(node: &Node, problems: &Problems) -> Option<u16> {
    let status = node.count(problems)?;
    if !(200..600).contains(&status) {
        problems.error(node.place, format!("{status} is no status of an answer"), "statuses: [200]");
        return None;
    }
    u16::try_from(status).ok()
}

fn condition(node: &Node, settings: &Settings, problems: &Problems) -> Option<Condition> {
    let text = node.literal(problems)?;
    match Condition::compile(&text, &settings.scope(Names::FIXED.with(Names::ANSWER))) {
        Ok(condition) => Some(condition),
        Err(mistakes) => {
            mistakes.into_iter().for_each(|m| problems.error(node.place, m.message, m.hint));
            None
        }
    }
}

/// An answer as a condition sees it.
pub struct Answer<'a> {
    /// The status.
    pub status: u16,
    /// The fields.
    pub headers: &'a [(String, String)],
    /// The body.
    pub body: &'a [u8],
}

impl Probe {
    /// The call of a resource without `test`: its base URL.
    pub fn base() -> Self {
        Self {
            method: Method::GET,
            path: String::new(),
            elsewhere: None,
            headers: Vec::new(),
            body: Vec::new(),
            statuses: Vec::new(),
            when: None,
            settings: Arc::default(),
        }
    }

    /// Judges an answer.
    ///
    /// # Errors
    /// What it lacks, without anything of its content.
    pub fn judge(&self, answer: &Answer<'_>) -> Result<(), String> {
        let good = if self.statuses.is_empty() { (200..300).contains(&answer.status) } else { self.statuses.contains(&answer.status) };
        if !good {
            let wanted: Vec<String> = self.statuses.iter().map(u16::to_string).collect();
            return Err(format!("expected {}", if wanted.is_empty() { "2xx".to_owned() } else { wanted.join(" or ") }));
        }
        let Some(when) = &self.when else { return Ok(()) };
        match when.holds(&Judged { answer, settings: &self.settings }) {
            Ok(true) => Ok(()),
            Ok(false) => Err(format!("`when` does not hold: {when:?}")),
            Err(failure) => Err(failure.to_string()),
        }
    }
}

/// What a condition reads.
struct Judged<'j> {
    answer: &'j Answer<'j>,
    settings: &'j Settings,
}

impl Inputs for Judged<'_> {
    fn input(&self, name: Name) -> Result<Option<Value>, &'static str> {
        Ok(match name {
            Name::Status => Some(Value::whole(self.answer.status)),
            Name::Headers => {
                let fields =
                    self.answer.headers.iter().map(|(name, value)| (name.to_ascii_lowercase().into(), Value::text(value.as_str())));
                Some(Value::Map(Arc::new(Map::of_fields(fields))))
            }
            Name::Body => {
                let text = String::from_utf8_lossy(self.answer.body);
                Some(Value::from_json(&text).unwrap_or_else(|_| Value::text(&*text)))
            }
            _ => return self.settings.input(name),
        })
    }
}
