//! The request as it would have gone out, taken apart and with no secret left in it. What remains is byte for byte what
//! the upstream would have got.

use http::HeaderName;

use super::said::{From, Said};
use crate::auth::Owned;
use crate::auth::token::STAND_IN;
use crate::secret::{Mask, REDACTED};

/// A name and a value of the request, and who said so.
#[derive(Clone, Debug)]
pub struct Part {
    /// The field or parameter.
    pub name: String,
    /// Its value, redacted.
    pub value: String,
    /// Who said so.
    pub from: From,
}

/// The request, redacted.
#[derive(Clone, Debug)]
pub struct Wire {
    /// The method.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// The fields in their order.
    pub fields: Vec<Part>,
    /// The parameters of the query in their order.
    pub params: Vec<Part>,
    /// The body.
    pub body: String,
}

/// What is known when a request is taken apart.
pub struct Known<'k> {
    /// What the configuration says.
    pub said: &'k Said<'k>,
    /// What the schemes under `auth` set.
    pub owned: &'k Owned,
    /// The fields that the client sent.
    pub client: &'k [(String, String)],
    /// The parameters that the client sent, as names and values on the wire.
    pub query: &'k [(String, String)],
    /// Finds the resource's secrets by value.
    pub mask: &'k Mask,
    /// The same, and short ones too: for where a scheme puts a secret into a path or a body.
    pub exact: &'k Mask,
}

/// Takes a request apart. `None` if it is none.
pub fn dissect(bytes: &[u8], known: &Known<'_>) -> Option<Wire> {
    let end = memchr::memmem::find(bytes, b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let mut lines = head.split("\r\n");
    let mut first = lines.next()?.split(' ');
    let (method, target) = (first.next()?.to_owned(), first.next()?);
    let fields = lines.filter_map(|line| line.split_once(':')).map(|(name, value)| field(name, value.trim(), known)).collect();
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    let params: Vec<Part> = query.map(pairs).unwrap_or_default().into_iter().map(|(n, v)| param(n, v, known)).collect();
    let path = if known.owned.segments.is_empty() { hidden(path, known.mask) } else { hidden(path, known.exact) };
    let target = match query {
        None => path,
        Some(_) => format!("{path}?{}", params.iter().map(written).collect::<Vec<_>>().join("&")),
    };
    let body = String::from_utf8_lossy(&bytes[end + 4..]).into_owned();
    let scheme_writes = !known.owned.members.is_empty() || known.said.find(&["body"]).is_some();
    let body = hidden(&body, if scheme_writes { known.exact } else { known.mask });
    Some(Wire { method, target, fields, params, body })
}

fn written(part: &Part) -> String {
    // A parameter without `=` keeps its spelling.
    if part.value.is_empty() && !part.name.ends_with('=') {
        part.name.clone()
    } else {
        format!("{}={}", part.name.trim_end_matches('='), part.value)
    }
}

/// The pairs of a query as they are on the wire; a name with an empty value keeps its `=`.
pub fn pairs(query: &str) -> Vec<(String, String)> {
    let pair = |piece: &str| match piece.split_once('=') {
        Some((name, "")) => (format!("{name}="), String::new()),
        Some((name, value)) => (name.to_owned(), value.to_owned()),
        None => (piece.to_owned(), String::new()),
    };
    query.split('&').map(pair).collect()
}

fn hidden(text: &str, mask: &Mask) -> String {
    mask.apply(text).unwrap_or_else(|| text.to_owned())
}

fn field(name: &str, value: &str, known: &Known<'_>) -> Part {
    let folded = |name: &str| name.to_ascii_lowercase().replace('_', "-");
    let owns = |owned: &HeaderName| folded(owned.as_str()) == folded(name);
    if known.owned.headers.iter().any(owns) {
        return Part { name: name.into(), value: credential(value), from: auth(known) };
    }
    if name.eq_ignore_ascii_case("cookie") {
        return cookies(name, value, known);
    }
    if name.eq_ignore_ascii_case("authorization") && known.owned.passes_authorization {
        return Part { name: name.into(), value: credential(value), from: From::Client };
    }
    let from_client = known.client.iter().any(|(n, v)| n.eq_ignore_ascii_case(name) && v == value);
    let configured = known.said.find(&["headers", name]).filter(|found| !found.node.is_null());
    let locked = configured.as_ref().is_some_and(|found| found.node.get("locked").and_then(|n| n.word()) == Some("true"));
    match configured {
        Some(found) if locked || !from_client => {
            let value = if known.said.is_secret(found.node) { secret(value).to_owned() } else { hidden(value, known.mask) };
            Part { name: name.into(), value, from: found.from }
        }
        _ => {
            let value = if name.eq_ignore_ascii_case("authorization") { credential(value) } else { hidden(value, known.mask) };
            Part { name: name.into(), value, from: if from_client { From::Client } else { From::Gateway } }
        }
    }
}

/// What is shown of a secret: nothing, unless it is not there yet.
fn secret(value: &str) -> &str {
    if value == STAND_IN { STAND_IN } else { REDACTED }
}

/// A credential: the word in front of it is no secret.
fn credential(value: &str) -> String {
    if value.ends_with(STAND_IN) {
        return value.to_owned();
    }
    match value.split_once(' ') {
        Some((word, rest))
            if !rest.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b)) && !rest.contains(' ') =>
        {
            format!("{word} {REDACTED}")
        }
        _ => REDACTED.to_owned(),
    }
}

fn auth(known: &Known<'_>) -> From {
    known.said.find(&["auth"]).map_or(From::Gateway, |found| found.from)
}

/// One field of several sources: whoever said the first one that is not the client's is named.
fn cookies(name: &str, value: &str, known: &Known<'_>) -> Part {
    let mut from = From::Client;
    let pairs = value.split("; ").map(|pair| {
        let (cookie, value) = pair.split_once('=').unwrap_or((pair, ""));
        if known.owned.cookies.iter().any(|owned| owned == cookie) {
            from = auth(known);
            return format!("{cookie}={}", credential(value));
        }
        match known.said.find(&["cookies", cookie]) {
            Some(found) => {
                from = found.from;
                if known.said.is_secret(found.node) { format!("{cookie}={}", secret(value)) } else { format!("{cookie}={value}") }
            }
            None => pair.to_owned(),
        }
    });
    let value = hidden(&pairs.collect::<Vec<_>>().join("; "), known.mask);
    Part { name: name.into(), value, from }
}

fn param(name: String, value: String, known: &Known<'_>) -> Part {
    let decoded = percent_encoding::percent_decode_str(name.trim_end_matches('=')).decode_utf8_lossy().into_owned();
    if known.owned.params.contains(&decoded) {
        return Part { name, value: secret(&percent_encoding::percent_decode_str(&value).decode_utf8_lossy()).into(), from: auth(known) };
    }
    let from_client = known.query.iter().any(|(n, v)| *n == name && *v == value);
    match known.said.find(&["params", &decoded]).filter(|_| !from_client) {
        Some(found) => {
            let decoded = percent_encoding::percent_decode_str(&value).decode_utf8_lossy();
            let value = if known.said.is_secret(found.node) { secret(&decoded).to_owned() } else { hidden(&value, known.mask) };
            Part { name, value, from: found.from }
        }
        None => Part { name, value: hidden(&value, known.mask), from: if from_client { From::Client } else { From::Gateway } },
    }
}
