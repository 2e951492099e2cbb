//! One step of a login: a call as its templates make it, what its answer must be, and what is kept of that (rulings E12, E27,
//! F15 to F20, F26).

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, COOKIE, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response};
use zeroize::Zeroizing;

use super::body::{Pairs, Payload, Reader, text};
use super::expect::{Expect, condition};
use super::facts::{self, Facts};
use super::line::{Line, Spot};
use super::told::{Fault, Teller};
use crate::auth::capture::{Answer, Path};
use crate::auth::captured::{Captured, Held};
use crate::auth::field::Field;
use crate::auth::jar::Jar;
use crate::expr::{self, Condition, Inputs, Template, Unmade};
use crate::net::Origin;
use crate::secret::Secret;
use crate::tree::{Fields, Node, Problems, Value as Tree};

/// Largest answer of a step.
const ANSWER_MAX: u64 = 256 * 1024;
/// Most headers of a call, and most captures of a step.
const ENTRIES_MAX: usize = 64;
/// Fields that belong to the framing and to the connection.
const FRAMING: [&str; 7] = ["host", "content-length", "transfer-encoding", "connection", "te", "upgrade", "expect"];
const METHODS: [&str; 7] = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"];

/// A call.
#[derive(Debug)]
pub struct Step {
    /// Its name.
    pub name: String,
    /// The same as people are told.
    title: String,
    call: Call,
    capture: Vec<(String, Path)>,
    optional: Vec<String>,
    when: Option<Condition>,
    expect: Expect,
}

/// What is sent.
#[derive(Debug)]
pub struct Call {
    method: Method,
    url: Template,
    headers: Headers,
    query: Pairs,
    payload: Option<(Payload, HeaderValue)>,
}

/// Fields of a call; `None` removes one that is sent otherwise.
#[derive(Debug, Default)]
pub struct Headers(Vec<(HeaderName, Option<Template>)>);

impl Step {
    /// Reads a step that is a call. `reader` knows what its templates may read.
    pub fn read(name: &str, fields: &Fields<'_>, reader: Reader<'_>, line: &Line, hosts: bool) -> Option<Self> {
        let call = Call::read(fields, reader, line, hosts);
        let capture = fields.node("capture").map_or(Some(Vec::new()), |node| captures(node, reader.problems));
        let optional = fields.texts("optional");
        let when = condition(fields.node("when"), reader, facts::STEP);
        let expect = fields.node("expect").map_or(Some(Expect::default()), |node| Expect::read(node, reader));
        let capture = capture?;
        for name in optional.iter().filter(|name| !capture.iter().any(|(n, _)| n == *name)) {
            let place = fields.key_place("optional");
            reader.problems.error(place, format!("`{name}` is optional, but nothing captures it"), "name an entry of `capture`");
        }
        let title = format!("Step `{name}`");
        Some(Self { name: name.to_owned(), title, call: call?, capture, optional, when: when?, expect: expect? })
    }

    /// The names that it captures.
    pub fn captures(&self) -> impl Iterator<Item = &str> {
        self.capture.iter().map(|(name, _)| name.as_str())
    }

    fn teller(&self) -> Teller<'_> {
        Teller::new(&self.title).sending(self.call.carries())
    }

    /// Whether it is to be taken.
    ///
    /// # Errors
    /// A condition that is neither true nor false.
    pub fn applies(&self, inputs: &dyn Inputs) -> Result<bool, Fault> {
        let Some(when) = &self.when else { return Ok(true) };
        when.holds(inputs).map_err(|failure| self.teller().unsendable(format_args!("its `when` is {failure}")))
    }

    /// Sends it and reads the answer. Cookies go with it and are taken from the answer.
    ///
    /// # Errors
    /// Why there is no answer.
    pub async fn send(&self, facts: &Facts<'_>, line: &Line, jar: &mut Jar, now: u64) -> Result<Response<Bytes>, Fault> {
        let teller = self.teller();
        let draft = self.call.draft(teller, facts, line)?;
        draft.send(teller, line, jar, ANSWER_MAX, now).await.map(|(response, _)| response)
    }

    /// Judges the answer and keeps what is captured of it: all that is there, also where something is missing, as it may have
    /// taken the place of what is spent.
    ///
    /// # Errors
    /// What is wrong with the answer.
    pub fn understand(&self, response: &Response<Bytes>, facts: Facts<'_>, captured: &mut Captured) -> Result<(), Fault> {
        let teller = self.teller();
        self.expect.judge(teller, response, facts)?;
        let answer = Answer::new(response.headers(), response.body());
        let mut wrong = None;
        for (name, path) in &self.capture {
            let found = path.find(&answer);
            if found.as_ref().is_some_and(|value| value.is_object() || value.is_array()) {
                let fault = || teller.unfit(response, format_args!("holds more than one value for `capture.{name}`: an object or a list"));
                wrong.get_or_insert_with(fault);
                continue;
            }
            // An empty text is as good as none: it would only fail later, and less plainly.
            let held = found.as_ref().and_then(Held::of).filter(|held| !held.secret().is_empty());
            match held.map(|held| captured.insert(name, held)) {
                Some(Ok(())) => {}
                Some(Err(full)) => {
                    let fault = || teller.useless(response, format_args!("holds too much for `capture.{name}`: {}", full.0));
                    wrong.get_or_insert_with(fault);
                }
                None if self.optional.contains(name) => {}
                None => {
                    wrong.get_or_insert_with(|| teller.unfit(response, format_args!("holds nothing for `capture.{name}`")));
                }
            }
        }
        wrong.map_or(Ok(()), Err)
    }
}

impl Call {
    /// Reads `method`, `url`, `headers`, `params` and the body. `hosts`: whether there is an allow-list for hosts that are made.
    fn read(fields: &Fields<'_>, reader: Reader<'_>, line: &Line, hosts: bool) -> Option<Self> {
        let payload = reader.payload(fields);
        let url = fields.need("url").and_then(|node| url(node, reader, line, hosts));
        let headers = Headers::read(fields.node("headers"), reader);
        let query = fields.node("params").map_or(Some(Pairs::default()), |node| reader.pairs(node));
        let method = match fields.node("method") {
            None => Some(Method::GET),
            Some(node) => method(node, reader.problems),
        };
        let (method, payload) = (method?, payload?);
        if payload.is_some() && matches!(method, Method::GET | Method::HEAD) {
            reader.problems.error(fields.place(), format!("a {method} has no body"), "method: POST");
            return None;
        }
        Self::of(method, url?, headers?, query?, payload, fields, reader.problems)
    }

    /// A call of these parts.
    pub fn of(
        method: Method,
        url: Template,
        headers: Headers,
        query: Pairs,
        payload: Option<(Payload, String)>,
        fields: &Fields<'_>,
        problems: &Problems,
    ) -> Option<Self> {
        let payload = match payload {
            None => None,
            Some((payload, kind)) => match HeaderValue::from_str(&kind) {
                Ok(kind) => Some((payload, kind)),
                Err(_) => {
                    problems.error(fields.key_place("content_type"), "this is no type of content", "content_type: text/plain");
                    return None;
                }
            },
        };
        Some(Self { method, url, headers, query, payload })
    }

    /// Everything that is to be sent but for the cookies.
    ///
    /// # Errors
    /// What cannot be made, or where it must not go.
    pub fn draft(&self, teller: Teller<'_>, facts: &Facts<'_>, line: &Line) -> Result<Draft, Fault> {
        let made = expr::url(&self.url, facts, Some(line.base())).map_err(|unmade| match unmade {
            Unmade::Failed(failure) => teller.unsendable(failure),
            Unmade::Unfit(why) => teller.unsendable(format_args!("its URL cannot be made: {why}")),
        })?;
        let mut spot = line.lead(&made).map_err(|error| teller.strayed(error))?;
        spot.append(&self.query.write(facts).map_err(|why| teller.unsendable(why))?);
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("postern/", env!("CARGO_PKG_VERSION"))));
        let mut body = None;
        if let Some((payload, kind)) = &self.payload {
            headers.insert(CONTENT_TYPE, kind.clone());
            body = Some(payload.write(facts).map_err(|why| teller.unsendable(why))?);
        }
        self.headers.put(&mut headers, facts).map_err(|why| teller.unsendable(why))?;
        Ok(Draft { spot, method: self.method.clone(), headers, body })
    }

    /// Whether it may carry a credential: a body, which is what logins send, or anything secret elsewhere.
    fn carries(&self) -> bool {
        self.payload.is_some() || self.url.holds_secret() || self.headers.carry() || self.query.hold_secret()
    }

    /// The names of the fields of its form; none where it sends none.
    pub fn form_names(&self) -> Vec<&str> {
        match &self.payload {
            Some((Payload::Form(pairs), _)) => pairs.names().collect(),
            _ => Vec::new(),
        }
    }

    /// Adds a field to the body that was made of its payload: a pair of a form, a member of a JSON object.
    pub fn add(&self, draft: &mut Draft, name: &str, value: &Secret) {
        let Some((payload, _)) = &self.payload else { return };
        if let Some(body) = &mut draft.body {
            *body = payload.with(body, name, value);
        }
    }
}

/// A request that is to be sent.
#[derive(Debug)]
pub struct Draft {
    /// Where it goes.
    pub spot: Spot,
    method: Method,
    /// Its fields.
    pub headers: HeaderMap,
    body: Option<Zeroizing<String>>,
}

impl Draft {
    /// Sends it with the cookies for its place, unless it has some of its own, and takes in those of the answer, whose names
    /// it returns. Of the answer at most `bytes` are read.
    ///
    /// # Errors
    /// Why there is no answer.
    pub async fn send(
        mut self,
        teller: Teller<'_>,
        line: &Line,
        jar: &mut Jar,
        bytes: u64,
        now: u64,
    ) -> Result<(Response<Bytes>, Vec<String>), Fault> {
        if !self.headers.contains_key(COOKIE)
            && let Some(cookies) = cookies(jar, &self.spot, now)
        {
            self.headers.insert(COOKIE, cookies);
        }
        let body = self.body.as_ref().map_or_else(Bytes::new, |body| Bytes::from(body.as_bytes().to_vec()));
        let mut request = Request::new(body);
        *request.method_mut() = self.method;
        *request.uri_mut() = self.spot.target.parse().map_err(|_| teller.unsendable("its URL cannot be written"))?;
        *request.headers_mut() = self.headers;
        let spot = &self.spot;
        let response = line.send(spot, request, bytes).await.map_err(|error| teller.unanswered(spot.origin(), error))?;
        let set = jar.take(response.headers(), spot.origin(), spot.path(), &line.named(), now);
        Ok((response, set))
    }
}

/// The `Cookie` field for a spot.
fn cookies(jar: &Jar, spot: &Spot, now: u64) -> Option<HeaderValue> {
    let pairs = jar.pairs(spot.origin(), spot.path(), now);
    if pairs.is_empty() {
        return None;
    }
    let line: Vec<String> = pairs.iter().map(|(name, value)| [name, "=", value.expose()].concat()).collect();
    Field::new(&Zeroizing::new(line.join("; "))).ok().map(|field| field.value())
}

impl Headers {
    /// Reads a map of fields; `null` removes one.
    pub fn read(node: Option<&Node>, reader: Reader<'_>) -> Option<Self> {
        let Some(node) = node else { return Some(Self::default()) };
        Fields::of(node, "a map of headers", reader.problems)?;
        if node.entries().len() > ENTRIES_MAX {
            reader.problems.error(node.place, format!("more than {ENTRIES_MAX} headers"), "");
            return None;
        }
        let one = |entry: &crate::tree::Entry| {
            let name = HeaderName::from_bytes(entry.key.as_bytes()).ok().filter(|name| !FRAMING.contains(&name.as_str()));
            let Some(name) = name else {
                let hint = "it is no name of a header, or belongs to the framing";
                reader.problems.error(entry.place, format!("`{}` cannot be set", entry.key), hint);
                return None;
            };
            if entry.node.is_null() {
                return Some((name, None));
            }
            reader.template(&entry.node).map(|template| (name, Some(template)))
        };
        let read: Vec<_> = node.entries().iter().map(one).collect();
        read.into_iter().collect::<Option<_>>().map(Self)
    }

    fn carry(&self) -> bool {
        let carries = |(name, template): &(HeaderName, Option<Template>)| {
            template.as_ref().is_some_and(|template| name == AUTHORIZATION || template.holds_secret())
        };
        self.0.iter().any(carries)
    }

    /// Sets the fields.
    ///
    /// # Errors
    /// Which value cannot be had, or is no legal one.
    pub fn put(&self, headers: &mut HeaderMap, inputs: &dyn Inputs) -> Result<(), String> {
        for (name, template) in &self.0 {
            let Some(template) = template else {
                headers.remove(name);
                continue;
            };
            let value = text(template, inputs)?;
            let field = Field::new(&value).map_err(|why| format!("the value of its header `{name}` cannot be sent: {why}"))?;
            headers.insert(name, field.value());
        }
        Ok(())
    }
}

/// A method.
pub fn method(node: &Node, problems: &Problems) -> Option<Method> {
    let word = node.word().filter(|word| METHODS.contains(word)).and_then(|word| Method::from_bytes(word.as_bytes()).ok());
    if word.is_none() {
        problems.error(node.place, format!("`method` is one of: {}; found {}", METHODS.join(", "), node.shown()), "");
    }
    word
}

fn captures(node: &Node, problems: &Problems) -> Option<Vec<(String, Path)>> {
    const EXAMPLE: &str = "capture: { token: json.data.token }";
    Fields::of(node, "a map of names and paths", problems)?;
    if node.entries().len() > ENTRIES_MAX {
        problems.error(node.place, format!("more than {ENTRIES_MAX} captures"), EXAMPLE);
        return None;
    }
    let one = |entry: &crate::tree::Entry| {
        if !is_name(&entry.key) {
            problems.error(
                entry.place,
                format!("`{}` cannot be named in an expression", entry.key),
                "letters, digits and `_`: access_token",
            );
            return None;
        }
        let text = entry.node.text(problems)?;
        let path = Path::parse(&text).map_err(|why| problems.error(entry.node.place, why, EXAMPLE)).ok()?;
        Some((entry.key.to_string(), path))
    };
    let read: Vec<_> = node.entries().iter().map(one).collect();
    read.into_iter().collect()
}

/// Whether it can stand behind `captured.`.
pub fn is_name(text: &str) -> bool {
    text.len() <= 64
        && text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// The URL of a call: absolute, or behind `{{ base }}`. One whose host an expression makes needs `hosts`.
pub fn url(node: &Node, reader: Reader<'_>, line: &Line, hosts: bool) -> Option<Template> {
    let problems = reader.problems;
    let template = reader.template(node)?;
    let written: String = match &node.value {
        Tree::Mixed(pieces) => pieces.iter().map(crate::tree::Piece::text).collect(),
        _ => node.literal(problems)?,
    };
    let error = |why: &str, hint: &str| {
        problems.error(node.place, why, hint);
        None
    };
    let behind = written.strip_prefix("{{").and_then(|rest| rest.split_once("}}"));
    let made = match behind {
        Some((first, rest)) if first.trim() == "base" => {
            if !(rest.is_empty() || rest.starts_with(['/', '?'])) {
                return error("a path begins with `/`", "{{ base }}/login");
            }
            if reader.settings.base().is_none() {
                return error("`base_url` is known only after the login", "write the URL of the login out");
            }
            false
        }
        Some(_) => true,
        None => {
            let Some((_, rest)) = written.split_once("://") else {
                return error("a relative URL leads nowhere", "write `{{ base }}` in front: url: \"{{ base }}/login\"");
            };
            let made = rest.split('/').next().is_some_and(|host| host.contains("{{"));
            if !made {
                line.name(&written);
            }
            made
        }
    };
    if made && !hosts {
        return error(
            "an expression makes the host of this URL, and the resource has no `hosts`",
            "name what it may become: hosts: [\"*.example.com\"]",
        );
    }
    if template.is_constant() {
        if matches!(node.value, Tree::Secret(_)) && written.contains('?') {
            return error("a reference in the query of a URL would not be encoded", "put it under `params`, or write {{ secrets.name }}");
        }
        let judged = Origin::of(&written).map_err(str::to_owned).and_then(|_| {
            let made = expr::url(&template, reader.settings, None).map_err(|unmade| unmade.to_string())?;
            line.lead(&made).map_err(|error| error.detail().into_owned())
        });
        if let Err(why) = judged {
            return error(&format!("this URL cannot be called: {why}"), "https://api.example.com/login");
        }
    }
    Some(template)
}
