//! Runs the steps of a flow, from the first or, to renew, from a named one (rulings F13, F14, E2): what they capture is the
//! credential, and cookies go from step to step. It asks in the background, once for all who wait.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::DATE;
use http::{Response, StatusCode};
use serde_json::{Value as Json, json};

use super::apply::Apply;
use super::facts::Facts;
use super::lasts::Lasts;
use super::line::Line;
use super::step::Step;
use super::told::{Fault, Teller};
use crate::auth::captured::{Captured, Held};
use crate::auth::expiry;
use crate::auth::grant::{Ask, Fetching, Part, Seat, Source};
use crate::auth::jar::Jar;
use crate::auth::token::{Failure, Minted, Token};
use crate::call::Occasion;
use crate::expr::Settings;
use crate::secret::Secret;

/// Longest time of all steps together.
const RUN_TIME: Duration = Duration::from_secs(120);
/// The name under which cookies are kept beside captured values. No expression can name it.
const COOKIES: &str = "set-cookie";
/// All steps together.
const WHOLE: Teller<'static> = Teller::new("The login");
/// Two clocks that differ by less are one, in milliseconds.
const CLOCKS_AGREE: i64 = 5_000;

/// What is done at one place of a flow.
#[derive(Debug)]
pub enum Deed {
    /// A call.
    Call(Box<Step>),
    /// The token of another scheme, under this name (ruling E2).
    Grant(String, Arc<Seat>),
}

impl Deed {
    /// The name of its step.
    pub fn name(&self) -> String {
        match self {
            Self::Call(step) => step.name.clone(),
            Self::Grant(name, _) => name.clone(),
        }
    }
}

/// All steps, and what they need.
#[derive(Debug)]
pub struct Run {
    /// The steps in their order.
    pub deeds: Vec<Deed>,
    /// The way of their calls.
    pub line: Line,
    /// The resource's words.
    pub settings: Arc<Settings>,
    /// Where a renewal begins; the beginning where it is not said.
    pub refresh: Option<usize>,
    /// Whether the operator has said so, and what is captured may be the only way to renew.
    pub must_keep: bool,
    /// How long the result holds.
    pub lasts: Lasts,
    /// Where the results go, to be judged before they are used.
    pub apply: Arc<Apply>,
}

/// What there is between two steps.
#[derive(Debug, Default)]
struct State {
    captured: Captured,
    jar: Jar,
    /// The server's clock less ours, in milliseconds.
    skew: i64,
    /// The token of the last grant step, and whose it is.
    granted: Option<(usize, Arc<Token>)>,
}

impl Source for Run {
    fn fetch<'a>(&'a self, ask: Ask<'a>) -> Fetching<'a> {
        Box::pin(async move {
            let ended = tokio::time::timeout(RUN_TIME, self.run(ask, None)).await;
            ended.unwrap_or_else(|_| Err(WHOLE.endless(RUN_TIME)))
        })
    }

    fn fetch_in_parts<'a>(&'a self, ask: Ask<'a>, part: Part<'a>) -> Fetching<'a> {
        Box::pin(async move {
            let ended = tokio::time::timeout(RUN_TIME, self.run(ask, Some(part).filter(|_| self.must_keep))).await;
            ended.unwrap_or_else(|_| Err(WHOLE.endless(RUN_TIME)))
        })
    }

    fn must_keep(&self) -> bool {
        self.must_keep
    }
}

impl Run {
    async fn run(&self, ask: Ask<'_>, part: Option<Part<'_>>) -> Result<Minted, Failure> {
        if let (Some(from), Some(before)) = (self.refresh, ask.before.filter(|before| !before.captured.is_empty())) {
            let state = State::of(before);
            let progress = part.map(|part| Progress { part, before, kept: state.captured.clone() });
            match self.from(from, state, ask, progress).await {
                Ok(minted) => return Ok(minted),
                // Nobody has answered: the beginning would fare no better.
                Err(fault) if !fault.answered => return Err(fault.failure),
                Err(fault) => tracing::debug!("a renewal failed, so all steps are run: {}", fault.failure.cause()),
            }
        }
        self.from(0, State::default(), ask, None).await.map_err(|fault| fault.failure)
    }

    async fn from(&self, first: usize, mut state: State, ask: Ask<'_>, mut progress: Option<Progress<'_>>) -> Result<Minted, Fault> {
        let asked = ask.clock.millis();
        let mut at = first;
        let mut renewed = false;
        while let Some(deed) = self.deeds.get(at) {
            let done = self.deed(at, deed, &mut state, ask).await;
            // What the last step brings is kept as a whole.
            if let Some(progress) = progress.as_mut().filter(|_| done.is_err() || at + 1 < self.deeds.len()) {
                progress.keep(&state).await;
            }
            match done {
                Ok(()) => at += 1,
                // The token of a grant may have been voided before its end: with another one it is tried once more.
                Err(Turned::Down(fault)) => match &state.granted {
                    Some((grant, token)) if !renewed && *grant < at && self.renews(*grant, token) => {
                        renewed = true;
                        at = *grant;
                    }
                    _ => return Err(fault),
                },
                Err(Turned::Wrong(fault)) => return Err(fault),
            }
        }
        let minted = self.minted(&state, asked, ask);
        if let Some(progress) = progress.as_mut().filter(|_| minted.is_err()) {
            progress.keep(&state).await;
        }
        minted
    }

    fn renews(&self, grant: usize, token: &Token) -> bool {
        matches!(self.deeds.get(grant), Some(Deed::Grant(_, seat)) if seat.refuse_shared(token))
    }

    async fn deed(&self, at: usize, deed: &Deed, state: &mut State, ask: Ask<'_>) -> Result<(), Turned> {
        match deed {
            Deed::Grant(name, seat) => {
                let fault = |failure| Turned::Wrong(Fault { failure, answered: true });
                let token = seat.shared_token().await.map_err(|error| fault(Failure::Own(error)))?;
                let held = granted(&token);
                state.captured.insert(name, held).map_err(|full| fault(WHOLE.unsendable(full.0).failure))?;
                state.granted = Some((at, token));
                Ok(())
            }
            Deed::Call(step) => self.call(step, state, ask).await,
        }
    }

    async fn call(&self, step: &Step, state: &mut State, ask: Ask<'_>) -> Result<(), Turned> {
        let occasion = Occasion::new(ask.clock.clone());
        let captured = state.captured.value();
        let facts = Facts { settings: &self.settings, captured: &captured, occasion: &occasion, whose: ask.whose, answer: None };
        if !step.applies(&facts)? {
            return Ok(());
        }
        let now = ask.clock.millis();
        let response = step.send(&facts, &self.line, &mut state.jar, now).await?;
        state.skew = skew(&response, now).unwrap_or(state.skew);
        let understood = step.understand(&response, facts, &mut state.captured);
        understood.map_err(|fault| match response.status() {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Turned::Down(fault),
            _ => Turned::Wrong(fault),
        })
    }

    /// The result: what was captured, how long it holds, and whether it can be presented at all.
    fn minted(&self, state: &State, asked: u64, ask: Ask<'_>) -> Result<Minted, Fault> {
        let State { captured, skew, .. } = state;
        let occasion = Occasion::new(ask.clock.clone());
        let value = captured.value();
        let facts = Facts { settings: &self.settings, captured: &value, occasion: &occasion, whose: ask.whose, answer: None };
        let shown = self.apply.captures().filter_map(|name| captured.get(name));
        let shown: Vec<Secret> = shown.filter(|held| matches!(held, Held::Text(_))).map(|held| held.secret().clone()).collect();
        let here = |moment: u64| moment.saturating_add_signed(-*skew);
        let expires = match self.lasts.end(&facts, asked, here).map_err(|why| WHOLE.unsendable(why))? {
            Some(said) => said,
            None => shown.iter().find_map(|text| expiry::of_jwt(text.expose())).map(here),
        };
        self.apply.judge(captured, ask.whose, ask.clock).map_err(|why| WHOLE.unsendable(why))?;
        let access = shown.into_iter().next().unwrap_or_else(|| Secret::new("-".into()));
        Ok(Minted { access: Some(access), captured: state.left(), obtained: asked, expires, ..Minted::default() })
    }
}

/// Why a deed brought nothing.
enum Turned {
    /// The server does not take the credential that came with it.
    Down(Fault),
    /// Anything else.
    Wrong(Fault),
}

impl From<Fault> for Turned {
    fn from(fault: Fault) -> Self {
        Self::Wrong(fault)
    }
}

impl State {
    /// What a run before has left.
    fn of(before: &Minted) -> Self {
        let mut captured = before.captured.clone();
        let cookies = captured.get(COOKIES).and_then(|held| serde_json::from_str(held.secret().expose()).ok());
        captured.remove(COOKIES);
        Self { captured, jar: cookies.map(|record: Json| Jar::of_record(&record)).unwrap_or_default(), ..Self::default() }
    }

    /// What it leaves to the next run.
    fn left(&self) -> Captured {
        let mut captured = self.captured.clone();
        if !self.jar.is_empty() {
            // Too many cookies to keep are no reason to have no login: they go from step to step of this run.
            let _ = captured.insert(COOKIES, Held::Json(Secret::new(self.jar.to_record().to_string())));
        }
        captured
    }
}

/// A renewal under way, of which nothing may be lost that has taken the place of something before: it may be spent.
struct Progress<'a> {
    part: Part<'a>,
    before: &'a Minted,
    /// What would be there if the rest failed.
    kept: Captured,
}

impl Progress<'_> {
    /// Keeps what there is now, if a value that was there before has been replaced.
    async fn keep(&mut self, state: &State) {
        if self.kept.iter().all(|(name, held)| state.captured.get(name) == Some(held)) {
            return;
        }
        self.kept = state.captured.clone();
        self.part.keep(Minted { access: None, captured: state.left(), ..self.before.clone() }).await;
    }
}

/// What a token is under the name of its step: `access_token`, and what its scheme captures.
pub fn granted(token: &Token) -> Held {
    let mut map = serde_json::Map::new();
    for (name, held) in token.minted.captured.iter() {
        let value = match held {
            Held::Text(text) => Json::String(text.expose().to_owned()),
            Held::Json(json) => serde_json::from_str(json.expose()).unwrap_or(Json::Null),
        };
        map.insert(name.to_owned(), value);
    }
    map.insert("access_token".into(), json!(token.access()));
    Held::Json(Secret::new(Json::Object(map).to_string()))
}

/// The server's clock less ours, where they differ.
fn skew(response: &Response<Bytes>, now: u64) -> Option<i64> {
    let theirs = response.headers().get(DATE)?.to_str().ok().and_then(|date| expiry::moment(&date.into()).ok().flatten())?;
    let skew = i64::try_from(theirs).ok()? - i64::try_from(now).ok()?;
    Some(if skew.abs() < CLOCKS_AGREE { 0 } else { skew })
}
