//! What an issuer answered: where the token is, when it ends, what else is kept, and what is wrong (rulings B24, E1, E6,
//! G9). An answer without a token is always an error, whatever its status says.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, DATE, LOCATION, RETRY_AFTER};
use http::{Response, StatusCode};
use serde_json::Value;

use super::trouble::{Step, Story};
use crate::auth::capture::{self, Answer, Path};
use crate::auth::captured::{Captured, Held};
use crate::auth::expiry::{self, Unit};
use crate::auth::field::Field;
use crate::auth::token::{Failure, Minted};
use crate::secret::{Mask, Secret};
use crate::tree::{Fields, Node, Problems};

/// Longest token: what a header can carry at most servers, and some.
const TOKEN_MAX: usize = 32 * 1024;
/// Most values that are kept beside the token.
const CAPTURES_MAX: usize = 32;
/// The life of a token about which nobody says anything (ruling G9).
const UNSAID: u64 = 3_600_000;
/// Two clocks that differ by less are one: the `Date` of an answer counts whole seconds, and is made before it arrives.
const CLOCKS_AGREE: i64 = 5_000;

/// Where things are in an answer.
#[derive(Clone, Debug)]
pub struct Mapping {
    /// `None`: the answer holds none, and the token before lives on.
    token: Option<Vec<Path>>,
    refresh: Vec<Path>,
    id: Option<Path>,
    expires_in: Option<Path>,
    unit: Unit,
    expires_at: Option<Path>,
    ttl: Option<u64>,
    error: Option<(Path, Option<Value>)>,
    capture: Vec<(String, Path)>,
}

impl Default for Mapping {
    fn default() -> Self {
        let path = |key: &str| Path::Json(vec![capture::Step::Key(key.to_owned())]);
        Self {
            token: Some(vec![path("access_token")]),
            refresh: vec![path("refresh_token")],
            id: Some(path("id_token")),
            expires_in: Some(path("expires_in")),
            unit: Unit::Seconds,
            expires_at: None,
            ttl: None,
            error: None,
            capture: Vec::new(),
        }
    }
}

impl Mapping {
    /// Reads `response`; what it leaves out is as in `base`. `refresh`: whether the token may be said not to be there.
    pub fn read(node: Option<&Node>, base: &Self, refresh: bool, problems: &Problems) -> Option<Self> {
        let Some(node) = node else { return Some(base.clone()) };
        let fields = Fields::of(node, "a map of where things are", problems)?;
        let token = match fields.raw("token") {
            None => base.token.clone(),
            Some(node) if node.is_null() && refresh => None,
            Some(node) => Some(paths(node, problems)?),
        };
        let one = |key: &'static str, default: &Option<Path>| match fields.raw(key) {
            None => Some(default.clone()),
            Some(node) if node.is_null() => Some(None),
            Some(node) => path(node, problems).map(Some),
        };
        let mapping = Self {
            token,
            refresh: fields.node("refresh_token").map_or_else(|| Some(base.refresh.clone()), |n| paths(n, problems))?,
            id: one("id_token", &base.id)?,
            expires_in: one("expires_in", &base.expires_in)?,
            unit: fields.choice("unit", &Unit::ALL, base.unit),
            expires_at: one("expires_at", &base.expires_at)?,
            ttl: match fields.node("ttl") {
                Some(node) => u64::try_from(node.duration(problems)?.as_millis()).ok(),
                None => base.ttl,
            },
            error: fields.node("error").map_or_else(|| Some(base.error.clone()), |n| error(n, problems).map(Some))?,
            capture: base.capture.clone(),
        };
        fields.unbuilt("refresh_expires_in", |_| false);
        fields.finish();
        Some(mapping)
    }

    /// The token under this name, where the operator has not said otherwise.
    pub fn token_at(mut self, key: &str) -> Self {
        self.token = Some(vec![Path::Json(vec![capture::Step::Key(key.to_owned())])]);
        self
    }

    /// An answer that has the token at this path and the moment of its end at that one.
    pub fn at(token: Path, expires_at: Option<Path>) -> Self {
        Self { token: Some(vec![token]), expires_at, ..Self::default() }
    }

    /// Reads `capture`: names and where their values are (ruling E1).
    pub fn capturing(mut self, node: Option<&Node>, problems: &Problems) -> Option<Self> {
        let Some(node) = node else { return Some(self) };
        if Fields::of(node, "a map of names and paths", problems).is_none() || node.entries().len() > CAPTURES_MAX {
            problems.error(node.place, format!("`capture` keeps up to {CAPTURES_MAX} values"), "capture: { realm: json.realm_id }");
            return None;
        }
        for entry in node.entries() {
            self.capture.push((entry.key.to_string(), path(&entry.node, problems)?));
        }
        Some(self)
    }

    /// The names of what is captured.
    pub fn captures(&self) -> impl Iterator<Item = &str> {
        self.capture.iter().map(|(name, _)| name.as_str())
    }

    /// What the answer gives. `before` is what there was; `asked` the moment of the request.
    ///
    /// # Errors
    /// What is wrong with the answer, for people, without anything that must not be shown.
    pub fn understand(
        &self,
        response: &Response<Bytes>,
        step: Step,
        asked: u64,
        before: Option<&Minted>,
        mask: &Mask,
    ) -> Result<Minted, Failure> {
        let answer = Answer::new(response.headers(), response.body());
        let story = Story::new(step, describe(response, &answer));
        let error = self.wrong(&answer);
        if !response.status().is_success() || error.is_some() {
            return Err(self.refusal(response, &answer, story, error, mask));
        }
        let access = match &self.token {
            None => before.and_then(|b| b.access.clone()).ok_or_else(|| story.down("holds no token, and there was none before", None))?,
            Some(paths) => {
                let found = paths.iter().find_map(|p| p.find(&answer)).and_then(|v| capture::text(&v)).filter(|t| !t.is_empty());
                Secret::new(found.ok_or_else(|| self.tokenless(&answer, &story, mask))?)
            }
        };
        judge(&access).map_err(|why| story.down(why, None))?;
        let refresh = self.refresh.iter().find_map(|p| p.find(&answer)).and_then(|v| capture::text(&v)).filter(|t| !t.is_empty());
        let refresh = refresh.map(Secret::new).or_else(|| before.and_then(|b| b.refresh.clone()));
        let (expires, supposed) = self.end(&answer, response, asked, &access).map_err(|why| story.down(why, None))?;
        let captured = self.captured(&answer, before).map_err(|why| story.down(&why, None))?;
        // An answer without one says nothing about the one before (OpenID Connect Core 1.0, section 12.2).
        let id = self.id.as_ref().and_then(|p| p.find(&answer)).and_then(|v| capture::text(&v)).filter(|t| !t.is_empty());
        let id = id.map(Secret::new).or_else(|| before.and_then(|b| b.id.clone()));
        Ok(Minted { access: Some(access), refresh, id, captured, obtained: asked, expires, supposed, rotates: false })
    }

    /// A 2xx answer without a token.
    fn tokenless(&self, answer: &Answer<'_>, story: &Story, mask: &Mask) -> Failure {
        let code = answer.json().and_then(|json| json.get("error")).and_then(Value::as_str).and_then(word);
        match code {
            Some("invalid_grant") => story.refused("invalid_grant", description(answer, mask)),
            Some(code) => story.down_with(&format!("says {code}"), None, description(answer, mask)),
            None => story.down("holds no token where `response.token` says", None),
        }
    }

    /// The error that a good status may hide, where the operator has said where it stands.
    fn wrong(&self, answer: &Answer<'_>) -> Option<Value> {
        let (path, ok) = self.error.as_ref()?;
        let found = path.find(answer);
        match (ok, found) {
            (Some(ok), found) if found.as_ref().and_then(capture::text) == capture::text(ok) => None,
            (Some(_), found) => Some(found.unwrap_or(Value::Null)),
            (None, None) => None,
            (None, Some(found)) => {
                let none = matches!(&found, Value::Bool(false)) || capture::text(&found).is_some_and(|t| t.is_empty() || t == "0");
                (!none).then_some(found)
            }
        }
    }

    fn refusal(&self, response: &Response<Bytes>, answer: &Answer<'_>, story: Story, error: Option<Value>, mask: &Mask) -> Failure {
        let status = response.status();
        if status.is_redirection() {
            let to = response.headers().get(LOCATION).and_then(|l| l.to_str().ok());
            let to = to.and_then(|l| crate::net::Origin::of(l).ok()).map_or_else(String::new, |(origin, _)| format!(" to {origin}"));
            return story.down(&format!("is a redirect{to}, which is not followed"), None);
        }
        let code = error.as_ref().and_then(Value::as_str).or_else(|| answer.json()?.get("error")?.as_str()).and_then(word);
        let asked = response.headers().get(RETRY_AFTER).and_then(|r| r.to_str().ok()).and_then(|r| patience(r, response));
        let said = description(answer, mask);
        match code {
            Some("invalid_grant") if !status.is_server_error() => story.refused("invalid_grant", said),
            Some(code) => story.denied(status, &format!("says {code}"), asked, said),
            None if status.is_success() => story.denied(status, "says that it failed", asked, said),
            None => story.denied(status, "is no success", asked, said),
        }
    }

    /// The values of `capture`: an answer that lacks one keeps that of the answer before (ruling E1).
    fn captured(&self, answer: &Answer<'_>, before: Option<&Minted>) -> Result<Captured, String> {
        let mut captured = before.map(|b| b.captured.clone()).unwrap_or_default();
        for (name, path) in &self.capture {
            match path.find(answer).as_ref().and_then(Held::of) {
                Some(held) => captured.insert(name, held).map_err(|why| format!("holds too much for `capture.{name}`: {}", why.0))?,
                None if captured.get(name).is_some() => {}
                None => return Err(format!("holds nothing for `capture.{name}`")),
            }
        }
        Ok(captured)
    }

    /// When the token ends, by our own clock, and whether that is only supposed.
    fn end(
        &self,
        answer: &Answer<'_>,
        response: &Response<Bytes>,
        asked: u64,
        access: &Secret,
    ) -> Result<(Option<u64>, bool), &'static str> {
        let theirs = response.headers().get(DATE).and_then(|d| d.to_str().ok()).and_then(|d| expiry::moment(&d.into()).ok().flatten());
        // A moment is one of the issuer's clock, and what is left of it is told by that clock.
        let moment = |at: u64| {
            let skew = theirs.map_or(0, |theirs| theirs as i64 - asked as i64);
            let at = if skew.abs() < CLOCKS_AGREE { at } else { at.saturating_add_signed(-skew) };
            // One that is past is an end too: such a token is dead, and not one of which nobody knows the end.
            Some(at.max(asked))
        };
        let life = self.expires_in.as_ref().and_then(|p| p.find(answer)).map(|v| expiry::life(&v, self.unit));
        let life = life.transpose().map_err(|()| "says when the token ends in a form that is not known here (expires_in)")?;
        let at = self.expires_at.as_ref().and_then(|p| p.find(answer)).map(|v| expiry::moment(&v));
        let at = at.transpose().map_err(|()| "says when the token ends in a form that is not known here (expires_at)")?;
        let said = life.flatten().map(|life| asked + life).or_else(|| at.flatten().and_then(moment));
        let known = said.or_else(|| self.ttl.map(|ttl| asked + ttl)).or_else(|| expiry::of_jwt(access.expose()).and_then(moment));
        // Zero says that nobody knows; silence has a rule of its own (ruling G9).
        let unknown = life.is_some() || at.is_some();
        let supposed = known.is_none() && !unknown;
        Ok((known.or_else(|| supposed.then(|| asked + UNSAID)), supposed))
    }
}

fn judge(token: &Secret) -> Result<(), &'static str> {
    if token.expose().len() > TOKEN_MAX {
        return Err("holds a token of more than 32 KiB");
    }
    match Field::new(token.expose()) {
        Ok(_) if token.expose().chars().all(|c| !c.is_control()) => Ok(()),
        _ => Err("holds a token with a line break or another character that no request can carry"),
    }
}

/// The beginning of what can be told of an answer.
pub fn story(step: Step, response: &Response<Bytes>) -> Story {
    Story::new(step, describe(response, &Answer::new(response.headers(), response.body())))
}

/// What arrived, without its content: `400 application/json of 57 bytes`.
fn describe(response: &Response<Bytes>, answer: &Answer<'_>) -> String {
    let kind = response.headers().get(CONTENT_TYPE).and_then(|t| t.to_str().ok()).and_then(|t| t.split(';').next());
    let kind = kind.map(str::trim).filter(|t| t.len() <= 60 && t.bytes().all(|b| b.is_ascii_alphanumeric() || b"/+.-".contains(&b)));
    let size = response.body().len();
    let status = response.status();
    let body = match (size, kind, answer.json()) {
        (0, ..) => "nothing in it".to_owned(),
        (_, Some(kind), _) => format!("{size} bytes of {kind}"),
        (_, None, Some(_)) => format!("{size} bytes of JSON"),
        (_, None, None) => format!("{size} bytes"),
    };
    format!("{} with {body}", status.as_u16())
}

/// What the issuer says about its error, for the log: bounded, in one line, without what was sent to it.
fn description(answer: &Answer<'_>, mask: &Mask) -> Option<String> {
    const SHOWN: usize = 200;
    let text = answer.json()?.get("error_description")?.as_str()?;
    let masked = mask.apply(text).unwrap_or_else(|| text.to_owned());
    Some(masked.chars().filter(|c| !c.is_control()).take(SHOWN).collect())
}

/// An error code, where it looks like one and not like anything else.
fn word(text: &str) -> Option<&str> {
    Some(text).filter(|t| (1..=60).contains(&t.len()) && t.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b)))
}

fn patience(text: &str, response: &Response<Bytes>) -> Option<Duration> {
    if !matches!(response.status(), StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
        return None;
    }
    if let Ok(seconds) = text.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    // A date is one of the issuer's clock (RFC 9110 section 10.2.3).
    let date = |text: &str| expiry::moment(&text.into()).ok().flatten();
    let now = date(response.headers().get(DATE)?.to_str().ok()?)?;
    Some(Duration::from_millis(date(text)?.saturating_sub(now)))
}

fn paths(node: &Node, problems: &Problems) -> Option<Vec<Path>> {
    let all: Vec<Option<Path>> = node.items().iter().map(|n| path(n, problems)).collect();
    if all.is_empty() {
        problems.error(node.place, "there is no path here", "json.access_token");
    }
    all.into_iter().collect::<Option<Vec<_>>>().filter(|all| !all.is_empty())
}

fn path(node: &Node, problems: &Problems) -> Option<Path> {
    let text = node.text(problems)?;
    Path::parse(&text).map_err(|why| problems.error(node.place, why, "json.access_token")).ok()
}

fn error(node: &Node, problems: &Problems) -> Option<(Path, Option<Value>)> {
    if node.entries().is_empty() {
        return Some((path(node, problems)?, None));
    }
    let fields = Fields::of(node, "a path, or a map with `path` and `ok`", problems)?;
    let path = fields.need("path").and_then(|n| path(n, problems));
    let ok = fields.node("ok").and_then(|n| crate::auth::assertion::json(n, problems));
    fields.finish();
    Some((path?, ok))
}

#[cfg(test)]
mod tests;
