//! What tells that a credential or a session has ended (`refused`, `expired`): a status, a redirect to the login, or a
//! condition on the answer, whose body is held back for that and put back.

use std::sync::Arc;
use std::time::Duration;

use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, LOCATION};
use http::{HeaderMap, HeaderValue, Response, StatusCode};

use super::body::Reader;
use super::expect::{condition, status};
use super::facts::{self, Facts, Seen};
use crate::auth::Context;
use crate::auth::whose::Whose;
use crate::body::{self, Begun, Body};
use crate::call::Call;
use crate::error::Error;
use crate::expr::{Condition, Name, Settings, Value};
use crate::net::Origin;
use crate::tree::{Fields, Node};

/// Longest time that an answer is held back to be looked at: one to a watch or a long poll has no near end.
const PATIENCE: Duration = Duration::from_secs(1);

/// How it is told.
#[derive(Debug)]
pub struct Ended {
    statuses: Vec<u16>,
    /// A path, or a whole URL without a query.
    redirect_to: Option<String>,
    when: Option<Condition>,
    settings: Arc<Settings>,
    origin: Origin,
    base_path: String,
    limit: u64,
}

impl Ended {
    /// By 401 alone.
    pub fn usual(context: &Context<'_>) -> Self {
        Self {
            statuses: vec![StatusCode::UNAUTHORIZED.as_u16()],
            redirect_to: None,
            when: None,
            settings: context.settings.clone(),
            origin: context.origin.clone(),
            base_path: context.base_path.trim_end_matches('/').to_owned(),
            limit: context.buffer,
        }
    }

    /// Reads `{ statuses, when }`, and where there is such a thing `redirect_to`.
    pub fn read(node: &Node, redirects: Redirects, context: &Context<'_>, reader: Reader<'_>) -> Option<Self> {
        let fields = Fields::of(node, "a map of `statuses` and `when`", reader.problems)?;
        let usual = Self::usual(context);
        let statuses = match fields.node("statuses") {
            None => Some(usual.statuses.clone()),
            Some(node) => {
                let read: Vec<_> = node.items().iter().map(|node| status(node, reader.problems)).collect();
                read.into_iter().collect()
            }
        };
        let redirect_to = match redirects {
            Redirects::Told => fields.node("redirect_to").map(|node| {
                let text = node.text(reader.problems)?;
                let good = text.starts_with('/') || Origin::of(&text).is_ok();
                if !good || text.contains(['?', '#']) {
                    reader.problems.error(
                        node.place,
                        "`redirect_to` is the path of the login page, without a query",
                        "redirect_to: /login",
                    );
                    return None;
                }
                Some(text)
            }),
            Redirects::Untold => None,
        };
        let when = condition(fields.node("when"), reader, facts::ANSWER.without(crate::expr::Names::of(&[Name::Captured])));
        fields.finish();
        let redirect_to = match redirect_to {
            Some(read) => Some(read?),
            None => None,
        };
        Some(Self { statuses: statuses?, redirect_to, when: when?, ..usual })
    }

    /// What a request must ask for, so that its answer can be judged: a body that can be read.
    pub fn prepare(&self, headers: &mut HeaderMap) {
        if self.reads_body() {
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        }
    }

    fn reads_body(&self) -> bool {
        self.when.as_ref().is_some_and(|when| when.names().has(Name::Body))
    }

    /// Whether this status alone tells the end.
    pub fn has(&self, status: StatusCode) -> bool {
        self.statuses.contains(&status.as_u16())
    }

    /// Whether more than the status of such an answer must be looked at.
    pub fn needs_more(&self, status: StatusCode) -> bool {
        !self.has(status) && (self.when.is_some() || self.redirect_to.is_some())
    }

    /// Whether an answer tells the end. The body is put back as it came.
    ///
    /// # Errors
    /// What the answer's body itself fails with.
    pub async fn told(&self, call: &Call, answer: &mut Response<Body>) -> Result<bool, Error> {
        if self.statuses.contains(&answer.status().as_u16()) || self.redirects(call.target.path(), answer.status(), answer.headers()) {
            return Ok(true);
        }
        let Some(when) = &self.when else { return Ok(false) };
        if !self.reads_body() {
            return Ok(self.holds(when, call, answer.status(), answer.headers(), None));
        }
        if !readable(answer.headers()) {
            return Ok(false);
        }
        match body::begin_within(std::mem::take(answer.body_mut()), self.limit, PATIENCE).await? {
            Begun::Whole(bytes) => {
                let holds = self.holds(when, call, answer.status(), answer.headers(), Some(&bytes));
                *answer.body_mut() = if bytes.is_empty() { Body::Empty } else { Body::Full(bytes) };
                Ok(holds)
            }
            // What is too long to be held, or does not end, is no page that says so.
            Begun::Longer(body) => {
                *answer.body_mut() = body;
                Ok(false)
            }
        }
    }

    /// A condition that cannot judge an answer says nothing about it.
    fn holds(&self, when: &Condition, call: &Call, status: StatusCode, headers: &HeaderMap, body: Option<&[u8]>) -> bool {
        let captured = Value::Null;
        let whose = Whose::anybody();
        let answer = Some(Seen { status, headers, body });
        let facts = Facts { settings: &self.settings, captured: &captured, occasion: &call.occasion, whose: &whose, answer };
        when.holds(&facts).unwrap_or(false)
    }

    /// Whether it is a redirect to the login page. `path` is that of the request.
    pub fn redirects(&self, path: &str, status: StatusCode, headers: &HeaderMap) -> bool {
        self.redirect_to.as_deref().is_some_and(|login| self.leads_to(login, path, status, headers))
    }

    /// Whether it is a redirect to `login`, a path or a whole URL.
    pub fn leads_to(&self, login: &str, path: &str, status: StatusCode, headers: &HeaderMap) -> bool {
        if !status.is_redirection() {
            return false;
        }
        let Some(to) = headers.get(LOCATION).and_then(|to| to.to_str().ok()) else { return false };
        let bare = |text: &str| text.split(['?', '#']).next().unwrap_or_default().trim_end_matches('/').to_owned();
        let whole =
            |text: &str| Origin::of(text.split('#').next().unwrap_or_default()).ok().map(|(origin, rest)| (origin.to_string(), bare(rest)));
        let ours = self.origin.to_string();
        let to = if to.starts_with("//") {
            whole(&format!("{}:{to}", if self.origin.is_https() { "https" } else { "http" }))
        } else if to.contains("://") && !to.starts_with('/') {
            whole(to)
        } else if to.starts_with('/') {
            Some((ours.clone(), bare(to)))
        } else {
            Some((ours.clone(), bare(&format!("{}/{to}", path.rsplit_once('/').map_or("", |(directory, _)| directory)))))
        };
        let Some((origin, to)) = to else { return false };
        if login.contains("://") {
            return whole(login) == Some((origin, to));
        }
        // Whether the path counts from the host or from the base is the upstream's affair.
        origin == ours && (to == bare(login) || to.strip_prefix(self.base_path.as_str()) == Some(&bare(login)))
    }
}

/// Whether a redirect to the login can tell the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Redirects {
    /// It can (`redirect_to`).
    Told,
    /// There is no such key.
    Untold,
}

/// Whether a body is text of a known end: streams of events have none, and what is compressed cannot be read.
fn readable(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default().to_ascii_lowercase();
    let textual = ["json", "xml", "html", "text/plain", "urlencoded"].iter().any(|word| kind.contains(word));
    let endless = ["stream", "ndjson", "jsonl", "json-seq"].iter().any(|word| kind.contains(word));
    textual && !endless && !headers.contains_key(CONTENT_ENCODING)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(redirect_to: &str) -> Ended {
        Ended {
            statuses: vec![401],
            redirect_to: Some(redirect_to.to_owned()),
            when: None,
            settings: Arc::default(),
            origin: Origin::of("https://app.example/v1").unwrap().0,
            base_path: "/v1".into(),
            limit: 1024,
        }
    }

    #[test]
    fn a_redirect_to_the_login_is_known_however_it_is_written() {
        for (login, location, told) in [
            ("/login", "/login", true),
            ("/login", "/login/?next=/x", true),
            ("/login/", "https://app.example/login?x", true),
            ("/login", "https://APP.example:443/login#top", true),
            ("/login", "//app.example/login", true),
            ("/login", "/v1/login", true),
            ("/login", "https://other.example/login", false),
            ("/login", "//other.example/login", false),
            ("/login", "/login2", false),
            ("/login", "/x/login", false),
            ("/login", "/home?next=/login", false),
            ("/v1/a/login", "login", true),
            ("https://sso.example/auth", "https://sso.example/auth?client=1", true),
            ("https://sso.example/auth", "/auth", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(LOCATION, location.parse().unwrap());
            assert_eq!(ended(login).redirects("/v1/a/b", StatusCode::FOUND, &headers), told, "{login} {location}");
            assert!(!ended(login).redirects("/v1/a/b", StatusCode::OK, &headers));
        }
        assert!(!ended("/login").redirects("/", StatusCode::FOUND, &HeaderMap::new()));
    }

    #[test]
    fn only_text_of_a_known_end_is_held_back() {
        for (kind, encoding, good) in [
            ("application/json; charset=utf-8", "", true),
            ("text/html", "", true),
            ("application/problem+xml", "", true),
            ("text/event-stream", "", false),
            ("application/x-ndjson", "", false),
            ("application/json-seq", "", false),
            ("application/octet-stream", "", false),
            ("text/html", "gzip", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, kind.parse().unwrap());
            if !encoding.is_empty() {
                headers.insert(CONTENT_ENCODING, encoding.parse().unwrap());
            }
            assert_eq!(readable(&headers), good, "{kind} {encoding}");
        }
    }
}
