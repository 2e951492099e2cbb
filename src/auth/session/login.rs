//! The login itself: the page with its CSRF token, then the form or the JSON. What came of it is judged, as a failed login
//! mostly looks like a success: the login page again with 200, or a redirect back to it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ORIGIN, REFERER};
use http::{HeaderValue, Method, Response};
use serde_json::Value as Json;

use super::CsrfHeader;
use super::page::{self, Selector};
use crate::auth::Reading;
use crate::auth::captured::{Captured, Held};
use crate::auth::field::Field;
use crate::auth::flow::{self, Draft, Ended, Exchange, Expect, Facts, Fault, Headers, Line, Pairs, Reader, Seen, Teller};
use crate::auth::grant::{Ask, Fetching, Source};
use crate::auth::jar::Jar;
use crate::auth::token::Minted;
use crate::call::Occasion;
use crate::expr::{Condition, Settings, Template, Value};
use crate::secret::Secret;
use crate::tree::{Fields, Node, Piece, Problems, Value as Tree};

/// Longest time of page and login together.
const LOGIN_TIME: Duration = Duration::from_secs(60);
/// Largest login page, and largest answer to the login.
const PAGE_MAX: u64 = 1024 * 1024;
/// Longest CSRF token.
const CSRF_MAX: usize = 4096;
/// The name under which cookies are kept.
const COOKIES: &str = "set-cookie";

const PAGE: Teller<'static> = Teller::new("The login page");
const LOGIN: Teller<'static> = Teller::new("The login").sending(true);

/// How to log in.
#[derive(Debug)]
pub struct Login {
    line: Line,
    settings: Arc<Settings>,
    page: Option<Exchange>,
    csrf: Option<Csrf>,
    header: Option<CsrfHeader>,
    post: Exchange,
    expect: Expect,
    ended: Option<Arc<Ended>>,
    failed: Option<Condition>,
}

/// The CSRF token of the page.
#[derive(Debug)]
struct Csrf {
    selector: Selector,
    attribute: String,
    field: String,
}

impl Login {
    /// Reads `{ page, csrf, method, path, headers, form or json, expect }`.
    pub fn read(node: &Node, line: Line, header: Option<CsrfHeader>, reading: Reading<'_>, reader: Reader<'_>) -> Option<Self> {
        let problems = reading.problems;
        let fields = Fields::of(node, "a map of `path` and `form` or `json`", problems)?;
        let hosts = reading.context.hosts.is_some();
        let page = fields.node("page").map(|node| address(node, reader, &line, hosts));
        let csrf = fields.node("csrf").map(|node| csrf(node, problems));
        let path = fields.need("path").and_then(|node| address(node, reader, &line, hosts));
        let method = fields.node("method").map_or(Some(Method::POST), |node| flow::method(node, problems));
        let headers = Headers::read(fields.node("headers"), reader);
        let payload = reader.payload(&fields);
        let expect = fields.node("expect").map(|node| Expect::read(node, reader));
        let (payload, method) = (payload?, method?);
        if payload.is_none() || method == Method::GET {
            let hint = "form: { username: me, password: \"${env:PASSWORD}\" }";
            problems.error(fields.place(), "a login sends a `form` or `json`, with a method that has a body", hint);
            return None;
        }
        let (page, csrf, expect) = (flat(page)?, flat(csrf)?, flat(expect)?);
        if csrf.is_some() && page.is_none() {
            problems.error(fields.key_place("csrf"), "a CSRF token is picked from a page, and there is no `page`", "page: /login");
            return None;
        }
        let post = Exchange::of(method, path?, headers?, Pairs::default(), payload, &fields, problems)?;
        let page = match page {
            Some(url) => Some(Exchange::of(Method::GET, url, Headers::default(), Pairs::default(), None, &fields, problems)?),
            None => None,
        };
        fields.finish();
        let settings = reading.context.settings.clone();
        let expect = expect.map_or_else(Expect::of_login, Expect::or_of_login);
        Some(Self { line, settings, page, csrf, header, post, expect, ended: None, failed: None })
    }

    /// What tells the end of a session tells that there is none, too.
    pub fn judging(&mut self, ended: Arc<Ended>, failed: Option<Condition>) {
        self.ended = Some(ended);
        self.failed = failed;
    }

    /// The hosts that it may share cookies with.
    pub fn named(&self) -> Vec<String> {
        self.line.named()
    }

    /// Whether the login has a CSRF token.
    pub fn has_csrf(&self) -> bool {
        self.csrf.is_some()
    }

    async fn run(&self, ask: Ask<'_>) -> Result<Minted, Fault> {
        let asked = ask.clock.millis();
        let occasion = Occasion::new(ask.clock.clone());
        let captured = Value::Map(Arc::default());
        let facts = Facts { settings: &self.settings, captured: &captured, occasion: &occasion, whose: ask.whose, answer: None };
        let mut jar = Jar::default();
        let mut post = self.post.draft(LOGIN, &facts, &self.line)?;
        if let Some(page) = &self.page {
            let draft = page.draft(PAGE, &facts, &self.line)?;
            let from = format!("{}{}", draft.spot.origin(), draft.spot.path());
            let (response, _) = draft.send(PAGE, &self.line, &mut jar, PAGE_MAX, asked).await?;
            Expect::default().judge(PAGE, &response, facts)?;
            if let Some(csrf) = &self.csrf {
                self.post.add(&mut post, &csrf.field, &csrf.pick(&response)?);
            }
            come_from(&mut post, &from);
        }
        if let Some(header) = &self.header
            && let Some(value) = jar.value(&header.cookie, post.spot.origin(), post.spot.path(), asked)
            && let Ok(field) = Field::new(value.expose())
        {
            post.headers.entry(&header.name).or_insert(field.value());
        }
        let path = post.spot.path().to_owned();
        let (response, set) = post.send(LOGIN, &self.line, &mut jar, PAGE_MAX, asked).await?;
        self.judge(&path, &response, facts)?;
        if jar.is_empty() {
            return Err(LOGIN.unfit(&response, "sets no cookie"));
        }
        let mut kept = Captured::default();
        let record = Held::Json(Secret::new(jar.to_record().to_string()));
        kept.insert(COOKIES, record).map_err(|full| LOGIN.useless(&response, full.0))?;
        let expires = jar.end_of(&set);
        Ok(Minted { access: Some(Secret::new("-".into())), captured: kept, obtained: asked, expires, ..Minted::default() })
    }

    /// Whether the answer lets anybody in.
    fn judge(&self, path: &str, response: &Response<Bytes>, facts: Facts<'_>) -> Result<(), Fault> {
        self.expect.judge(LOGIN, response, facts)?;
        let Some(ended) = &self.ended else { return Ok(()) };
        let (status, headers) = (response.status(), response.headers());
        let page = self.page.as_ref().and_then(|page| page.draft(PAGE, &facts, &self.line).ok());
        let back = page.is_some_and(|page| ended.leads_to(page.spot.path(), path, status, headers));
        if back || ended.redirects(path, status, headers) {
            return Err(LOGIN.denied(response, "leads back to the login page"));
        }
        let seen = Seen { status, headers, body: Some(response.body()) };
        let failed = |when: &Condition| when.holds(&Facts { answer: Some(seen), ..facts }).unwrap_or(false);
        if self.failed.as_ref().is_some_and(failed) {
            return Err(LOGIN.denied(response, "`expired.when` takes for the end of a session"));
        }
        let names = self.post.form_names();
        if status.is_success() && page::has_inputs(&String::from_utf8_lossy(response.body()), &names) {
            return Err(LOGIN.denied(response, "is the login page again"));
        }
        Ok(())
    }
}

/// A form is sent from its page, and whoever guards against forgery looks at that.
fn come_from(post: &mut Draft, page: &str) {
    if let Ok(page) = HeaderValue::from_str(page) {
        post.headers.entry(REFERER).or_insert(page);
    }
    if let Ok(origin) = HeaderValue::try_from(post.spot.origin().to_string()) {
        post.headers.entry(ORIGIN).or_insert(origin);
    }
}

impl Source for Login {
    fn fetch<'a>(&'a self, ask: Ask<'a>) -> Fetching<'a> {
        Box::pin(async move {
            match tokio::time::timeout(LOGIN_TIME, self.run(ask)).await {
                Ok(done) => done.map_err(|fault| fault.failure),
                Err(_) => Err(LOGIN.endless(LOGIN_TIME)),
            }
        })
    }
}

/// The cookies that a login has brought.
pub fn jar_of(minted: &Minted) -> Jar {
    let record = minted.captured.get(COOKIES).and_then(|held| serde_json::from_str::<Json>(held.secret().expose()).ok());
    record.map(|record| Jar::of_record(&record)).unwrap_or_default()
}

impl Csrf {
    /// The token of the page.
    fn pick(&self, response: &Response<Bytes>) -> Result<Secret, Fault> {
        let page = String::from_utf8_lossy(response.body());
        match self.selector.find(&page, &self.attribute) {
            Some(token) if token.len() <= CSRF_MAX => Ok(Secret::new(token)),
            Some(_) => Err(PAGE.useless(response, "holds too long a value for `login.csrf`")),
            None => Err(PAGE.useless(response, "holds nothing for `login.csrf`")),
        }
    }
}

fn csrf(node: &Node, problems: &Problems) -> Option<Csrf> {
    let fields = Fields::of(node, "a map of `selector`, `attribute` and `field`", problems)?;
    let selector = fields.need("selector").and_then(|node| {
        let text = node.text(problems)?;
        Selector::parse(&text).map_err(|why| problems.error(node.place, why, "selector: \"input[name=csrf]\"")).ok()
    });
    let attribute = fields.text("attribute").unwrap_or_else(|| "value".into());
    let field = fields.need("field").and_then(|node| node.text(problems));
    fields.finish();
    Some(Csrf { selector: selector?, attribute: attribute.to_ascii_lowercase(), field: field? })
}

/// A path below the base URL, or a whole URL.
fn address(node: &Node, reader: Reader<'_>, line: &Line, hosts: bool) -> Option<Template> {
    const BASE: &str = "{{ base }}";
    let value = match &node.value {
        Tree::Text(text) if text.starts_with('/') => Tree::Text([BASE, text].concat().into()),
        Tree::Secret(text) if text.expose().starts_with('/') => {
            Tree::Mixed([Piece::Written(BASE.into()), Piece::Secret(text.clone())].into())
        }
        Tree::Mixed(pieces) if pieces.first().is_some_and(|piece| piece.text().starts_with('/')) => {
            Tree::Mixed(std::iter::once(Piece::Written(BASE.into())).chain(pieces.iter().cloned()).collect())
        }
        Tree::Text(text) if !text.contains("://") && !text.starts_with("{{") => {
            reader.problems.error(node.place, "a path begins with `/`", format!("/{text}"));
            return None;
        }
        other => other.clone(),
    };
    flow::url(&Node { place: node.place, value }, reader, line, hosts)
}

/// Something that is there must have been read.
fn flat<T>(read: Option<Option<T>>) -> Option<Option<T>> {
    match read {
        None => Some(None),
        Some(None) => None,
        Some(value) => Some(value),
    }
}
