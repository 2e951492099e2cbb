//! The parts of a request that a signature covers (RFC 9421 section 2): fields, whole or in part, and what is derived from
//! the request line. What belongs to answers or comes behind the body is not served.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderName;
use http::header::HOST;
use percent_encoding::percent_decode_str;

use super::structured;
use crate::call::Call;
use crate::error::Error;
use crate::expr::place;
use crate::tree::{Node, Problems};

/// A covered part, and how the signature names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Component {
    part: Part,
    /// `"name";parameters`.
    id: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Method,
    TargetUri,
    Authority,
    Scheme,
    RequestTarget,
    Path,
    Query,
    /// One parameter of the query, by its encoded name.
    QueryParam(String),
    Field(HeaderName, Form),
}

/// How a field is covered.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Form {
    /// As it is, its lines joined.
    Plain,
    /// Each line as bytes (`bs`).
    Bytes,
    /// As a structured field (`sf`).
    Strict,
    /// One member of a dictionary (`key`).
    Member(String),
}

/// Derived components by name (section 2.2).
const DERIVED: [(&str, Part); 7] = [
    ("@method", Part::Method),
    ("@target-uri", Part::TargetUri),
    ("@authority", Part::Authority),
    ("@scheme", Part::Scheme),
    ("@request-target", Part::RequestTarget),
    ("@path", Part::Path),
    ("@query", Part::Query),
];

/// What the connection or the framing sets is not known yet when the request is signed.
const MOVING: [&str; 8] = ["connection", "transfer-encoding", "te", "trailer", "upgrade", "expect", "signature", "signature-input"];

const EXAMPLES: &str = "as date, \"date;bs\", \"priority;sf\", \"priority;key=\\\"u\\\"\" and \"@query-param;name=\\\"id\\\"\"";

impl Component {
    /// Reads `name`, or `name;parameter`.
    pub fn read(node: &Node, problems: &Problems) -> Option<Self> {
        let text = node.text(problems)?;
        match Self::parse(&text) {
            Ok(component) => Some(component),
            Err((why, hint)) => {
                problems.error(node.place, why, hint);
                None
            }
        }
    }

    fn parse(text: &str) -> Result<Self, (String, String)> {
        let wrong = |why: &str, hint: &str| Err((why.to_owned(), hint.to_owned()));
        let (name, parameter) = text.split_once(';').map_or((text, None), |(name, rest)| (name, Some(rest.trim())));
        let name = name.trim().trim_matches('"').to_ascii_lowercase();
        let (parameter, value) = match parameter.map(|p| p.split_once('=').map_or((p, None), |(p, v)| (p, Some(v)))) {
            None => (None, None),
            Some((parameter, value)) => (Some(parameter), value.map(|v| v.trim_matches('"').to_owned())),
        };
        match parameter {
            Some("req") => return wrong("`req` belongs into the signature of an answer", "leave it out: a request is signed here"),
            Some("tr") => return wrong("trailers cannot be signed", "they come behind the body, and the signature in front of it"),
            _ => {}
        }
        if name == "@query-param" {
            let (Some("name"), Some(value)) = (parameter, value) else {
                return wrong("`@query-param` names its parameter", "\"@query-param;name=\\\"id\\\"\"");
            };
            let name = encoded(&percent_decode_str(&value).decode_utf8_lossy());
            return Ok(Self { id: format!("\"@query-param\";name=\"{name}\""), part: Part::QueryParam(name) });
        }
        if name == "@status" {
            return wrong("`@status` belongs into the signature of an answer", "a request has none");
        }
        if name.starts_with('@') {
            let all: Vec<&str> = DERIVED.iter().map(|(name, _)| *name).chain(["@query-param"]).collect();
            let Some((_, part)) = DERIVED.iter().find(|(known, _)| *known == name) else {
                return Err((format!("no such component; there are {}", all.join(", ")), crate::tree::closest(&name, &all)));
            };
            if parameter.is_some() {
                return wrong(&format!("`{name}` takes no parameter"), EXAMPLES);
            }
            return Ok(Self { part: part.clone(), id: format!("\"{name}\"") });
        }
        let Some(field) = HeaderName::try_from(&name).ok().filter(|name| !MOVING.contains(&name.as_str())) else {
            return wrong("this field cannot be signed", "it frames the message or belongs to the connection");
        };
        let (form, id) = match (parameter, value) {
            (None, _) => (Form::Plain, format!("\"{name}\"")),
            (Some("bs"), None) => (Form::Bytes, format!("\"{name}\";bs")),
            (Some("sf"), None) => (Form::Strict, format!("\"{name}\";sf")),
            (Some("key"), Some(key)) if structured::is_key(&key) => (Form::Member(key.clone()), format!("\"{name}\";key=\"{key}\"")),
            _ => return wrong("a field takes one of the parameters `bs`, `sf` and `key`", EXAMPLES),
        };
        Ok(Self { part: Part::Field(field, form), id })
    }

    /// How the signature names it.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Whether it is this field, or a part of it.
    pub fn is_field(&self, name: &HeaderName) -> bool {
        matches!(&self.part, Part::Field(field, _) if field == name)
    }

    /// Its value; `None` where the request has no such thing, so that it cannot be covered.
    ///
    /// # Errors
    /// Where the request has something of this name that cannot be signed as asked.
    pub fn value(&self, call: &Call, scheme: &str) -> Result<Option<String>, Error> {
        Ok(Some(match &self.part {
            Part::Method => call.method.as_str().to_owned(),
            Part::TargetUri => format!("{scheme}://{}{}", authority(call, scheme), call.target.as_str()),
            Part::Authority => authority(call, scheme),
            Part::Scheme => scheme.to_owned(),
            Part::RequestTarget => call.target.as_str().to_owned(),
            Part::Path => call.target.path().to_owned(),
            Part::Query => format!("?{}", call.target.query().unwrap_or_default()),
            Part::QueryParam(name) => return query_param(call.target.query().unwrap_or_default(), name),
            Part::Field(name, form) => return field(call, name, form),
        }))
    }
}

/// The authority in small letters, without the port that its scheme implies (section 2.2.3).
fn authority(call: &Call, scheme: &str) -> String {
    let host = call.headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default().to_ascii_lowercase();
    let port = if scheme == "https" { ":443" } else { ":80" };
    host.strip_suffix(port).map(str::to_owned).unwrap_or(host)
}

/// Decoded as a form and encoded again (section 2.2.8). One that is there twice could be read two ways.
fn query_param(query: &str, name: &str) -> Result<Option<String>, Error> {
    let decoded = |text: &str| percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
    let pairs = query.split('&').filter(|pair| !pair.is_empty()).map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let mut values = pairs.filter(|(n, _)| encoded(&decoded(n)) == name).map(|(_, value)| encoded(&decoded(value)));
    let value = values.next();
    if values.next().is_some() {
        let why = "A parameter of the query that this resource signs by its name is there more than once.";
        return Err(Error::BadRequest(why.into(), "Send it once.".into()));
    }
    Ok(value)
}

/// As a form is encoded, with spaces as `%20`.
fn encoded(text: &str) -> String {
    place::form(text).replace('+', "%20")
}

fn field(call: &Call, name: &HeaderName, form: &Form) -> Result<Option<String>, Error> {
    let lines: Vec<&[u8]> = call.headers.get_all(name).iter().map(|v| v.as_bytes().trim_ascii()).collect();
    if lines.is_empty() {
        return Ok(None);
    }
    if *form == Form::Bytes {
        let line = |line: &&[u8]| format!(":{}:", STANDARD.encode(line));
        return Ok(Some(lines.iter().map(line).collect::<Vec<_>>().join(", ")));
    }
    let text = lines.iter().map(|line| String::from_utf8_lossy(line)).collect::<Vec<_>>().join(", ");
    let value = match form {
        Form::Plain | Form::Bytes => Some(Some(text)),
        Form::Strict => structured::strict(name.as_str(), &text).map(Some),
        Form::Member(key) => structured::member(&text, key),
    };
    value.ok_or_else(|| {
        let why = format!("The field `{name}` is signed as a structured field, and is none.");
        Error::BadRequest(why.into(), "Write it as RFC 9651 wants it.".into())
    })
}
