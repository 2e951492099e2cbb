//! Leads the URLs that stand inside JSON answers back to the gateway, where `rewrite_links` names them (ruling E9). Such an
//! answer is held whole, up to `limits.buffer`; what is larger, compressed or no JSON goes on as it is.

use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, ETAG, TRAILER};
use http::{HeaderMap, HeaderValue, Method, Response};

use super::links::Links;
use crate::auth::json::{self, Step};
use crate::body::{self, Begun, Body};
use crate::error::Error;
use crate::tree::{Fields, Node, Problems};

/// Most paths of one resource.
const PATHS_MAX: usize = 32;
/// Most steps of one path.
const STEPS_MAX: usize = 16;
/// Fields that speak of the very bytes of a body (RFC 9530).
const OF_BYTES: [&str; 4] = ["content-digest", "repr-digest", "digest", "content-md5"];

/// Where links stand.
#[derive(Clone, Debug)]
pub struct Paging {
    ways: Vec<Vec<Step>>,
}

impl Paging {
    /// Reads `rewrite_links`. `None` after an error was reported.
    pub fn read(node: &Node, problems: &Problems) -> Option<Self> {
        let fields = Fields::of(node, "where links stand, as in `{ json: [$.next] }`", problems)?;
        let paths = fields.need("json");
        fields.finish();
        let paths = paths?;
        if paths.items().len() > PATHS_MAX {
            problems.error(paths.place, format!("more than {PATHS_MAX} paths"), "use `[*]`");
            return None;
        }
        let ways: Vec<Option<Vec<Step>>> = paths.items().iter().map(|path| way(path, problems)).collect();
        let ways: Vec<Vec<Step>> = ways.into_iter().collect::<Option<_>>()?;
        if ways.is_empty() {
            problems.error(paths.place, "no path", "json: [$.next]");
            return None;
        }
        Some(Self { ways })
    }

    /// Leads back what is inside the base. `path` is that of the request, and `most` bounds what is held.
    ///
    /// # Errors
    /// What the body itself fails with.
    pub async fn lead(
        &self,
        answer: Response<Body>,
        asked: &Method,
        links: &Links,
        path: &str,
        most: u64,
    ) -> Result<Response<Body>, Error> {
        if !is_json(answer.headers()) || answer.headers().contains_key(CONTENT_ENCODING) {
            return Ok(answer);
        }
        let (mut head, body) = answer.into_parts();
        if *asked == Method::HEAD {
            // What it would be is known to GET alone.
            speak_no_more_of_bytes(&mut head.headers);
            return Ok(Response::from_parts(head, body));
        }
        let whole = match body::begin(body, most).await? {
            Begun::Whole(whole) => whole,
            Begun::Longer(body) => return Ok(Response::from_parts(head, body)),
        };
        // What could be read in two ways stays what it is: a text, a number, a path of another server.
        let mut edit = |text: &str| {
            let url = text.starts_with('/') || text.contains("://");
            links.map(text, path).filter(|mapped| url && links.leads_in(mapped))
        };
        let body = match json::replace(&whole, &self.ways, &mut edit) {
            Ok(Some(new)) => {
                speak_no_more_of_bytes(&mut head.headers);
                new.into()
            }
            Ok(None) | Err(_) => whole,
        };
        Ok(Response::from_parts(head, if body.is_empty() { Body::Empty } else { Body::Full(body) }))
    }
}

/// Drops what was said of the bytes that the upstream sent; a strong validator becomes a weak one (RFC 9110 section 8.8.1).
fn speak_no_more_of_bytes(headers: &mut HeaderMap) {
    headers.remove(CONTENT_LENGTH);
    headers.remove(TRAILER);
    OF_BYTES.iter().for_each(|name| drop(headers.remove(*name)));
    let weak = headers.get(ETAG).filter(|tag| tag.as_bytes().starts_with(b"\"")).map(|tag| [b"W/", tag.as_bytes()].concat());
    if let Some(Ok(weak)) = weak.map(|weak| HeaderValue::from_bytes(&weak)) {
        headers.insert(ETAG, weak);
    }
}

/// `application/json`, `text/json`, and whatever ends in `+json` (RFC 6839).
fn is_json(headers: &HeaderMap) -> bool {
    let Some(kind) = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()) else { return false };
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    matches!(kind.as_str(), "application/json" | "text/json") || kind.ends_with("+json")
}

/// `$.a.b`, `$['odd name']`, `$.list[0].url`, `$.items[*].links.next`: a subset of RFC 9535.
fn way(node: &Node, problems: &Problems) -> Option<Vec<Step>> {
    let text = node.text(problems)?;
    let steps = steps(&text).filter(|steps| (1..=STEPS_MAX).contains(&steps.len()));
    if steps.is_none() {
        problems.error(node.place, "this is no path to a link", "json: [$.next, \"$.items[*].url\", \"$['odd name']\"]");
    }
    steps
}

fn steps(text: &str) -> Option<Vec<Step>> {
    let mut rest = text.strip_prefix('$')?;
    let mut all = Vec::new();
    while !rest.is_empty() {
        if let Some(behind) = rest.strip_prefix('.') {
            let end = behind.find(['.', '[']).unwrap_or(behind.len());
            let name = &behind[..end];
            if name.is_empty() || name.contains(['*', ']', '\'', '"', ' ']) && name != "*" {
                return None;
            }
            all.push(if name == "*" { Step::Each } else { Step::Name(name.to_owned()) });
            rest = &behind[end..];
            continue;
        }
        let behind = rest.strip_prefix('[')?;
        let (step, end) = match behind.as_bytes().first()? {
            quote @ (b'\'' | b'"') => {
                let end = behind[1..].find(char::from(*quote))?;
                (Step::Name(behind[1..=end].to_owned()), end + 2)
            }
            b'*' => (Step::Each, 1),
            _ => {
                let end = behind.find(']')?;
                (Step::Index(behind[..end].parse().ok()?), end)
            }
        };
        all.push(step);
        rest = behind[end..].strip_prefix(']')?;
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lead_to_members_and_elements() {
        let name = |name: &str| Step::Name(name.to_owned());
        for (text, way) in [
            ("$.next", vec![name("next")]),
            ("$.d.__next", vec![name("d"), name("__next")]),
            ("$['a.b']['c']", vec![name("a.b"), name("c")]),
            ("$.items[*].link[0]", vec![name("items"), Step::Each, name("link"), Step::Index(0)]),
            ("$[\"x y\"].*", vec![name("x y"), Step::Each]),
        ] {
            assert_eq!(steps(text), Some(way), "{text}");
        }
        for text in ["next", "$.", "$..next", "$.a[", "$.a[b]", "$.a[-1]", "$.a['b'", "$a", "$.a b", "$.a[?(@.x)]"] {
            assert_eq!(steps(text), None, "{text}");
        }
        assert_eq!(steps("$"), Some(Vec::new()));
    }
}
