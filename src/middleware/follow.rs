//! Follows an upstream's redirects where the operator says so, and to where (ruling E20): inside the base, or to hosts that
//! `redirects.to` names. It stands outside `sign`, so that each hop is signed anew for where it goes. What is not followed is
//! the answer.

use http::header::{AUTHORIZATION, COOKIE, HOST, LINK, LOCATION, SET_COOKIE};
use http::{HeaderValue, Method, Response, StatusCode};

use crate::auth::Auth;
use crate::body::{self, Body};
use crate::call::Call;
use crate::middleware::{Answer, Elsewhere, Next, Step};
use crate::net::Hosts;
use crate::origin::Origin;
use crate::path::{self, Target};
use crate::tree::{Fields, Node, Problems};
use crate::uri::{self, Reference};

/// Most redirects that an operator may have followed for one request.
const FOLLOW_MAX: u64 = 10;

/// `redirects` with `follow`, as written.
#[derive(Clone, Debug)]
pub struct Config {
    most: u64,
    to: Option<Hosts>,
}

impl Config {
    /// Reads `{ follow, to }`. `None` after an error was reported.
    pub fn read(node: &Node, problems: &Problems) -> Option<Self> {
        let fields = Fields::of(node, "one of: rewrite, pass; or `{ follow: 1, to: [\"*.example.com\"] }`", problems)?;
        let count = fields.need("follow").map(|_| fields.count("follow", 1, 1));
        let to = fields.node("to").map(|n| Hosts::read(n, problems));
        let place = fields.place();
        fields.finish();
        let most = count?;
        if most > FOLLOW_MAX {
            problems.error(place, format!("`follow` is at most {FOLLOW_MAX}"), "each redirect is a request more");
            return None;
        }
        Some(Self { most, to })
    }
}

/// Follows the redirects of one route.
#[derive(Debug)]
pub struct Follow {
    config: Config,
    origin: Origin,
    /// The base path without its trailing slash.
    base: String,
    /// `limits.buffer`: a longer body is not sent a second time.
    buffer: u64,
    /// To prepare each hop as the first request was.
    auth: Option<Auth>,
    /// Whether a credential may travel over plain http to hosts that are not loopback (ruling G1).
    allow_http: bool,
}

impl Follow {
    /// For a resource that is there, with what it presents and its `allow_http`.
    pub fn new(config: Config, origin: &Origin, base: &str, buffer: u64, (auth, allow_http): (Option<Auth>, bool)) -> Self {
        let base = base.trim_end_matches('/').to_owned();
        Self { config, origin: origin.clone(), base, buffer, auth: auth.filter(Auth::prepares), allow_http }
    }

    /// Where an answer to a request for `path` at `from` leads, if somewhere that is allowed.
    fn next(&self, answer: &Response<Body>, method: &Method, from: &Origin, path: &str) -> Option<(Origin, Target)> {
        let safe = matches!(*method, Method::GET | Method::HEAD);
        let follows = match answer.status() {
            StatusCode::MOVED_PERMANENTLY | StatusCode::FOUND | StatusCode::SEE_OTHER => safe,
            StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT => true,
            _ => false,
        };
        let mut locations = answer.headers().get_all(LOCATION).iter();
        let (location, None) = (locations.next().filter(|_| follows)?.to_str().ok()?, locations.next()) else { return None };
        let Reference { origin, path, query } = uri::resolve(location, from, path)?;
        path::check(&path).ok()?;
        (self.leads_in(&origin, &path) || self.is_named(from, &origin)).then(|| (origin, Target::new(&path, query.as_deref())))
    }

    /// Inside the base: what a client could have asked for itself.
    fn leads_in(&self, origin: &Origin, path: &str) -> bool {
        let inside = path.strip_prefix(self.base.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        origin.is(&self.origin) && inside
    }

    /// A host of the list, and not from TLS into the clear.
    fn is_named(&self, from: &Origin, origin: &Origin) -> bool {
        let downgrade = (from.is_https() || self.origin.is_https()) && !origin.is_https();
        !downgrade && origin.is_safe(self.allow_http) && self.config.to.as_ref().is_some_and(|to| to.allow(origin))
    }

    /// What the client reads in the light of its own request must not be relative to another, and another host's cookies
    /// are not the resource's.
    fn settle(&self, answer: &mut Response<Body>, from: &Origin, path: &str) {
        let headers = answer.headers_mut();
        for name in [LOCATION, LINK] {
            let values: Vec<HeaderValue> = headers.get_all(&name).iter().cloned().collect();
            headers.remove(&name);
            for value in values {
                let text = value.to_str().ok();
                let settled = match name {
                    LOCATION => text.and_then(|text| absolute(text, from, path)),
                    _ => text.and_then(|text| uri::map_links(text, |reference| absolute(reference, from, path))),
                };
                let settled = settled.and_then(|text| HeaderValue::try_from(text).ok());
                headers.append(&name, settled.unwrap_or(value));
            }
        }
        if !from.is(&self.origin) {
            headers.remove(SET_COOKIE);
            answer.extensions_mut().insert(Elsewhere);
        }
    }

    /// Makes the call one for there.
    fn turn(&self, call: &mut Call, from: &Origin, to: Origin, target: Target) -> Result<(), crate::error::Error> {
        call.target = target;
        call.headers.insert(HOST, to.authority().clone());
        if !to.is(from) {
            // The client gave them to the resource, and to nobody else. What the gateway itself presents comes later.
            call.headers.remove(AUTHORIZATION);
            call.headers.remove(COOKIE);
        }
        call.origin = (!to.is(&self.origin)).then(|| Box::new(to));
        self.auth.as_ref().map_or(Ok(()), |auth| auth.prepare(call))
    }
}

impl Step for Follow {
    async fn handle(&self, mut call: Call, next: &impl Next) -> Answer {
        if call.upgrade.is_some() {
            return next.run(call).await;
        }
        let mut from = call.origin.as_deref().unwrap_or(&self.origin).clone();
        for hop in 0..=self.config.most {
            let (method, path) = (call.method.clone(), call.target.path().to_owned());
            let spare = call.spare(if hop < self.config.most { self.buffer } else { 0 });
            let mut answer = next.run(call).await?;
            let there = self.next(&answer, &method, &from, &path).filter(|_| hop < self.config.most && spare.is_whole());
            let Some((to, target)) = there else {
                if hop > 0 {
                    self.settle(&mut answer, &from, &path);
                }
                return Ok(answer);
            };
            body::drain(answer.into_body()).await;
            let Some(again) = spare.take() else { break };
            call = again;
            self.turn(&mut call, &from, to.clone(), target)?;
            from = to;
        }
        Err(crate::error::Error::Internal("a whole body was not at hand".into()))
    }
}

/// A reference that an answer to a request for `path` at `from` holds, as it is anywhere.
fn absolute(reference: &str, from: &Origin, path: &str) -> Option<String> {
    let fragment = reference.find('#').map_or("", |at| &reference[at..]);
    let Reference { origin, path, query } = uri::resolve(reference, from, path)?;
    let query = query.map_or_else(String::new, |query| format!("?{query}"));
    Some(format!("{origin}{path}{query}{fragment}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn follow(to: &str) -> Follow {
        let problems = Problems::default();
        let node = crate::auth::support::node(&serde_json::json!(to));
        let to = Some(Hosts::read(&node, &problems)).filter(|_| !to.is_empty());
        let origin = Origin::parse("https", "api.example").unwrap();
        Follow::new(Config { most: 1, to }, &origin, "/v1/", 0, (None, false))
    }

    fn led(follow: &Follow, status: u16, method: &Method, location: &str) -> Option<String> {
        let answer = Response::builder().status(status).header(LOCATION, location).body(Body::Empty).unwrap();
        let from = follow.origin.clone();
        follow.next(&answer, method, &from, "/v1/a/b").map(|(origin, target)| format!("{origin}{}", target.as_str()))
    }

    #[test]
    fn what_is_inside_the_base_or_named_is_followed_and_nothing_else() {
        let follow = follow("*.files.example");
        for (location, there) in [
            ("/v1/c?x=1#y", Some("https://api.example/v1/c?x=1")),
            ("c", Some("https://api.example/v1/a/c")),
            ("?page=2", Some("https://api.example/v1/a/b?page=2")),
            ("https://API.example:443/v1/c", Some("https://api.example/v1/c")),
            ("//eu.files.example/any", Some("https://eu.files.example/any")),
            ("https://eu.files.example/any", Some("https://eu.files.example/any")),
            ("https://eu.files.example", Some("https://eu.files.example/")),
            ("/admin", None),
            ("../../admin", None),
            ("/v1/../admin", None),
            ("/v1/%2e%2e/admin", None),
            ("/v1/a%2f..%2f..%2fadmin", None),
            ("/v10/c", None),
            ("https://else.example/v1/c", None),
            ("https://api.example.evil/v1/c", None),
            ("https://evil@api.example/v1/c", None),
            ("https://files.example.evil/any", None),
            ("https://eu.files.example:8443/any", None),
            ("http://eu.files.example/any", None),
            ("http://api.example/v1/c", None),
            ("ftp://eu.files.example/any", None),
            ("javascript:alert(1)", None),
            ("/v1/a b", None),
            ("/v1\\..\\admin", None),
        ] {
            assert_eq!(led(&follow, 302, &Method::GET, location).as_deref(), there, "{location}");
        }
    }

    #[test]
    fn a_credential_does_not_go_on_in_the_clear() {
        let plain = |allow_http| {
            let origin = Origin::parse("http", "127.0.0.1:8000").unwrap();
            Follow { origin, allow_http, ..follow("*.example") }
        };
        assert_eq!(led(&plain(false), 302, &Method::GET, "http://files.example/x"), None);
        assert!(led(&plain(true), 302, &Method::GET, "http://files.example/x").is_some());
        assert!(led(&plain(false), 302, &Method::GET, "https://files.example/x").is_some());
    }

    #[test]
    fn a_method_that_changes_something_follows_only_what_keeps_it() {
        let follow = follow("");
        for (status, post) in [(301, false), (302, false), (303, false), (307, true), (308, true)] {
            assert!(led(&follow, status, &Method::GET, "/v1/c").is_some(), "{status}");
            assert_eq!(led(&follow, status, &Method::POST, "/v1/c").is_some(), post, "{status}");
        }
        for status in [200, 201, 300, 304, 305, 306, 400] {
            assert_eq!(led(&follow, status, &Method::GET, "/v1/c"), None, "{status}");
        }
    }
}
