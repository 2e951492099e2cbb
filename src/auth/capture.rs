//! Paths into an answer (rulings G10, B31, F17, F18): `json.a.b[1].c`, `json.list.0.id`, `header.X`, `cookie.x`,
//! `regex.body.PATTERN`, `xml.a.b`, `query.x` of a redirect's `Location`, `body`. What needs a choice is an expression's affair.

use bytes::Bytes;
use http::header::{LOCATION, SET_COOKIE};
use http::{HeaderMap, HeaderName};
use regex::Regex;
use serde_json::Value;

use crate::xml::{self, Event, Scanner};

/// Largest compiled pattern, in bytes.
const PATTERN_BYTES: usize = 1 << 18;
/// Most steps of a path.
const STEPS_MAX: usize = 32;

/// An answer that paths lead into.
#[derive(Debug)]
pub struct Answer<'a> {
    headers: &'a HeaderMap,
    body: &'a Bytes,
    json: Option<Value>,
}

impl<'a> Answer<'a> {
    /// An answer with its whole body. JSON is told by looking, as many issuers get their `Content-Type` wrong.
    pub fn new(headers: &'a HeaderMap, body: &'a Bytes) -> Self {
        Self { headers, body, json: serde_json::from_slice(body).ok() }
    }

    /// The body as JSON, if it is.
    pub fn json(&self) -> Option<&Value> {
        self.json.as_ref()
    }
}

/// Where something stands in an answer.
#[derive(Clone, Debug)]
pub enum Path {
    /// In a JSON body.
    Json(Vec<Step>),
    /// A field.
    Header(HeaderName),
    /// A cookie that the answer sets.
    Cookie(String),
    /// The first group of a pattern, else its match, in the body as text.
    Regex(Box<Regex>),
    /// The text of the first such element in an XML body, or an attribute of it (`@name` as the last step). Names have no
    /// prefix.
    Xml(Vec<String>),
    /// A parameter of the address that a redirect leads to, decoded.
    Query(String),
    /// The whole body, without white space at its ends.
    Body,
}

/// One step into JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A member, or, where the value is a list and this is a number, an item.
    Key(String),
    /// An item.
    Index(usize),
}

impl Path {
    /// Reads a path.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        const KNOWN: &str = "a path is json.a.b[0], header.NAME, cookie.NAME, xml.a.b, query.NAME, regex.body.PATTERN or body";
        if text == "body" {
            return Ok(Self::Body);
        }
        if let Some(rest) = text.strip_prefix("json").filter(|rest| rest.starts_with('[')) {
            return steps(rest).map(Self::Json);
        }
        let (kind, rest) = text.split_once('.').ok_or(KNOWN)?;
        match kind {
            "json" => steps(rest).map(Self::Json),
            "header" => HeaderName::from_bytes(rest.as_bytes()).map(Self::Header).map_err(|_| "this is no name of a header"),
            "cookie" if !rest.is_empty() => Ok(Self::Cookie(rest.to_owned())),
            "query" if !rest.is_empty() => Ok(Self::Query(rest.to_owned())),
            "xml" => elements(rest).map(Self::Xml),
            "regex" => {
                let pattern = rest.strip_prefix("body.").ok_or("a pattern is looked for in the body: regex.body.PATTERN")?;
                let built = regex::RegexBuilder::new(pattern).size_limit(PATTERN_BYTES).build();
                built.map(|regex| Self::Regex(Box::new(regex))).map_err(|_| "this is no regular expression, or too large a one")
            }
            _ => Err(KNOWN),
        }
    }

    /// What stands there; `None` where nothing does, or `null`.
    pub fn find(&self, answer: &Answer<'_>) -> Option<Value> {
        match self {
            Self::Json(steps) => {
                let found = steps.iter().try_fold(answer.json.as_ref()?, |value, step| match (value, step) {
                    (Value::Object(map), Step::Key(key)) => map.get(key),
                    (Value::Array(items), Step::Index(index)) => items.get(*index),
                    (Value::Array(items), Step::Key(key)) => items.get(key.parse::<usize>().ok()?),
                    _ => None,
                });
                found.filter(|value| !value.is_null()).cloned()
            }
            Self::Header(name) => answer.headers.get(name)?.to_str().ok().map(Into::into),
            Self::Cookie(name) => {
                // The last word wins, as in a browser.
                let pairs = answer.headers.get_all(SET_COOKIE).iter().filter_map(|v| v.to_str().ok());
                let mut pairs = pairs.filter_map(|v| v.split(';').next()?.split_once('='));
                pairs.rfind(|(n, _)| n.trim() == name).map(|(_, v)| v.trim().into())
            }
            Self::Xml(path) => element(std::str::from_utf8(answer.body).ok()?, path).map(Into::into),
            Self::Query(name) => {
                let query = answer.headers.get(LOCATION)?.to_str().ok()?.split_once('?')?.1;
                let query = query.split('#').next().unwrap_or_default();
                let piece = query.split('&').find(|piece| super::form::is_named(piece.as_bytes(), name))?;
                let value = piece.split_once('=').map_or("", |(_, value)| value).replace('+', " ");
                percent_encoding::percent_decode_str(&value).decode_utf8().ok().map(|value| value.into_owned().into())
            }
            Self::Regex(regex) => {
                let text = std::str::from_utf8(answer.body).ok()?;
                let found = regex.captures(text)?;
                found.get(1).or_else(|| found.get(0)).map(|m| m.as_str().into())
            }
            Self::Body => std::str::from_utf8(answer.body).ok().map(str::trim).filter(|t| !t.is_empty()).map(Into::into),
        }
    }
}

/// A scalar as text: numbers as written.
pub fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

fn elements(text: &str) -> Result<Vec<String>, &'static str> {
    let steps: Vec<String> = text.split('.').map(str::to_owned).collect();
    let attribute = |at: usize| at > 0 && at + 1 == steps.len();
    let good = |(at, step): (usize, &String)| {
        let name = step.strip_prefix('@').filter(|_| attribute(at)).unwrap_or(step);
        !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '-')
    };
    if steps.len() > STEPS_MAX || !steps.iter().enumerate().all(good) {
        return Err("a path into XML is made of names of elements: xml.login.session, xml.login.@id");
    }
    Ok(steps)
}

/// The text of the first element that the path leads to, from the root on.
fn element(text: &str, path: &[String]) -> Option<String> {
    let (path, attribute) = match path.split_last() {
        Some((last, around)) if last.starts_with('@') => (around, last.strip_prefix('@')),
        _ => (path, None),
    };
    let mut scanner = Scanner::new(text);
    let mut found: Option<String> = None;
    // The whole document is read, so that half of one is none.
    let mut done = false;
    while let Some(event) = scanner.event().ok()? {
        let open = scanner.open();
        let fits = |open: &[&str]| open.len() == path.len() && open.iter().zip(path).all(|(name, step)| xml::local(name) == step);
        match event {
            Event::Start { name, attributes, empty, .. } if found.is_none() && !done => {
                let around = if empty { open } else { &open[..open.len() - 1] };
                if fits(&[around, &[name]].concat()) {
                    found = Some(match attribute {
                        None => String::new(),
                        Some(wanted) => {
                            let all = xml::attributes(&text[attributes]).ok()?;
                            all.into_iter().find(|(name, _)| xml::local(name) == wanted)?.1.into_owned()
                        }
                    });
                    done = empty || attribute.is_some();
                }
            }
            Event::Text(part) if !done && fits(open) => found.as_mut()?.push_str(&xml::unescaped(part).ok()?),
            Event::Literal(part) if !done && fits(open) => found.as_mut()?.push_str(part),
            Event::End { .. } if found.is_some() && open.len() < path.len() => done = true,
            _ => {}
        }
    }
    found.map(|text| text.trim().to_owned())
}

fn steps(text: &str) -> Result<Vec<Step>, &'static str> {
    let mut steps = Vec::new();
    for part in text.split('.') {
        let (key, mut indexes) = part.split_at(part.find('[').unwrap_or(part.len()));
        if key.is_empty() && (indexes.is_empty() || !steps.is_empty()) {
            return Err("a step of the path is empty");
        }
        if !key.is_empty() {
            steps.push(Step::Key(key.to_owned()));
        }
        while let Some(rest) = indexes.strip_prefix('[') {
            let (index, rest) = rest.split_once(']').ok_or("`[` is not closed")?;
            steps.push(Step::Index(index.parse().map_err(|_| "an index is a whole number")?));
            indexes = rest;
        }
        if !indexes.is_empty() {
            return Err("something stands behind `]`");
        }
    }
    if steps.len() > STEPS_MAX {
        return Err("the path has too many steps");
    }
    Ok(steps)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn found(path: &str, body: &str) -> Option<Value> {
        let mut headers = HeaderMap::new();
        headers.insert("x-token", "h".parse().unwrap());
        headers.append("set-cookie", "sid=old; Path=/".parse().unwrap());
        headers.append("set-cookie", "sid=new=1; HttpOnly".parse().unwrap());
        headers.append("set-cookie", "other=x".parse().unwrap());
        Path::parse(path).unwrap().find(&Answer::new(&headers, &Bytes::from(body.to_owned())))
    }

    #[test]
    fn paths_lead_into_json_by_dots_and_indexes() {
        let body = r#"{"a":{"b":[{"c":1},{"c":"x"}]},"n":null,"big":12345678901234567890}"#;
        for (path, value) in [
            ("json.a.b[1].c", json!("x")),
            ("json.a.b.0.c", json!(1)),
            ("json.a.b[0]", json!({ "c": 1 })),
            ("json.big", serde_json::from_str("12345678901234567890").unwrap()),
        ] {
            assert_eq!(found(path, body), Some(value), "{path}");
        }
        for path in ["json.a.x", "json.a.b[2].c", "json.a.b.c", "json.n", "json.a.b[0].c.d"] {
            assert_eq!(found(path, body), None, "{path}");
        }
        assert_eq!(found("json[1].a", r#"[1,{"a":2}]"#), Some(json!(2)));
    }

    #[test]
    fn paths_lead_to_fields_cookies_patterns_and_the_whole_body() {
        for (path, body, value) in [
            ("header.X-Token", "", Some("h")),
            ("header.none", "", None),
            ("cookie.sid", "", Some("new=1")),
            ("regex.body.n=(\\w+)", "a n=xy. b", Some("xy")),
            ("regex.body.n=.", "n=x", Some("n=x")),
            ("regex.body.z", "n", None),
            ("body", " plain-token\n", Some("plain-token")),
            ("body", " \n", None),
        ] {
            assert_eq!(found(path, body), value.map(Into::into), "{path}");
        }
        let headers = HeaderMap::new();
        let binary = Bytes::from_static(&[0xff]);
        assert_eq!(Path::Body.find(&Answer::new(&headers, &binary)), None);
    }

    #[test]
    fn paths_lead_into_xml_and_into_a_redirects_query() {
        let body = r#"<?xml version="1.0"?><s:env xmlns:s="x"><s:body><r id="7&amp;"><t>a&lt;b<![CDATA[&]]></t><t>second</t><u/></r></s:body></s:env>"#;
        for (path, value) in [
            ("xml.env.body.r.t", Some("a<b&")),
            ("xml.env.body.r.@id", Some("7&")),
            ("xml.env.body.r.u", Some("")),
            ("xml.env.body.r.@none", None),
            ("xml.env.t", None),
            ("xml.body", None),
        ] {
            assert_eq!(found(path, body), value.map(Into::into), "{path}");
        }
        for broken in ["<env><body><r><t>a</t></r></body>", "{}", "", "<!DOCTYPE a><env/>"] {
            assert_eq!(found("xml.env.body.r.t", broken), None, "{broken}");
        }
        let mut headers = HeaderMap::new();
        headers.insert(LOCATION, "https://x/cb?state=1&code=a%2Fb+c#f".parse().unwrap());
        let body = Bytes::new();
        let answer = Answer::new(&headers, &body);
        assert_eq!(Path::parse("query.code").unwrap().find(&answer), Some("a/b c".into()));
        assert_eq!(Path::parse("query.none").unwrap().find(&answer), None);
    }

    #[test]
    fn what_is_no_path_is_refused() {
        for wrong in [
            "",
            "json",
            "json.",
            "json.a..b",
            "json.a[x]",
            "json.a[1",
            "json.a[1]b",
            "header.",
            "header.a b",
            "cookie.",
            "regex.a",
            "regex.body.(",
            "xml.",
            "xml.a..b",
            "xml.@a",
            "xml.a.@b.c",
            "xml.a b",
            "query.",
            "token",
        ] {
            assert!(Path::parse(wrong).is_err(), "{wrong}");
        }
    }
}
