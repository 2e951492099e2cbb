//! The life of a token, and the only place that knows expiry, early renewal and back-off. It is a machine without I/O:
//! it is told the time, says whose turn it is, and is told what came of a fetch. Who fetches, and how all wait for one
//! fetch, is `grant.rs`.
//!
//! ```text
//! none ──► fetching ──► fresh ──► ageing ──► expired ──► fetching …
//!              │          ▲          │          (ageing: renewed while still served)
//!              │          └──────────┘
//!              ├──► backing off ──► fetching    the issuer failed: 1 s to 60 s, full jitter
//!              └──► refused                     the issuer refused the grant: a person must mend it
//! ```

use std::any::Any;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::auth::captured::Captured;
pub use crate::call::STAND_IN;
use crate::call::Ticket;
use crate::error::{Error, Trouble};
use crate::secret::Secret;

/// Shortest wait after a failure.
const LEAST_WAIT: Duration = Duration::from_secs(1);
/// Longest wait after a failure, where the issuer does not ask for more.
const MOST_WAIT: Duration = Duration::from_secs(60);
/// Longest wait that an issuer's `Retry-After` can ask for.
const MOST_ASKED: Duration = Duration::from_secs(15 * 60);
/// How often a token that nothing can renew is refused before it is given up, and how long apart in milliseconds.
const WORN_OUT: u32 = 3;
const WORN_APART: u64 = 60_000;
/// The renewal's lead is a fifth of the life, between these two (ruling F24).
const MOST_LEAD: u64 = 5 * 60 * 1000;
const LEAST_LEAD: u64 = 10 * 1000;
/// How often an issuer may turn a login down before a person must mend it: more would lock accounts (ruling F43).
const DENIALS_MAX: u32 = 3;
/// A token this close to its end would be dead on arrival.
const LAST_GASP: u64 = 1000;

/// The next token's number.
static SERIAL: AtomicU64 = AtomicU64::new(1);

/// What stands for a token that is made here, where nothing is sent, as [`STAND_IN`] for one that is fetched.
pub const UNSIGNED: &str = "[to be signed]";

/// Where a token is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Nobody has needed one yet.
    None,
    /// There is none, and one is being fetched.
    Fetching,
    /// Served.
    Fresh,
    /// Served, and to be renewed, or being renewed.
    Ageing,
    /// Dead by its age or by a refusal. The next call fetches.
    Expired,
    /// The issuer failed; it is left alone for a while.
    BackingOff,
    /// The issuer refused the grant. A person must mend it.
    Refused,
}

impl State {
    /// The word on the admin API.
    pub fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Fetching => "fetching",
            Self::Fresh => "fresh",
            Self::Ageing => "ageing",
            Self::Expired => "expired",
            Self::BackingOff => "backing off",
            Self::Refused => "refused",
        }
    }
}

/// What an issuer gave.
#[derive(Clone, Debug, Default)]
pub struct Minted {
    /// The token; never empty.
    pub access: Option<Secret>,
    /// What renews it, where there is such a thing.
    pub refresh: Option<Secret>,
    /// An ID token (OpenID Connect), where there is one.
    pub id: Option<Secret>,
    /// Other values of the reply (`capture`).
    pub captured: Captured,
    /// When it was asked for, in milliseconds since 1970.
    pub obtained: u64,
    /// When it ends, in milliseconds since 1970; `None`: nobody knows, so it serves until it is refused.
    pub expires: Option<u64>,
    /// Whether that end is only supposed, because nobody has named one.
    pub supposed: bool,
    /// Whether this grant's refresh token has ever been replaced: then the old one is spent.
    pub rotates: bool,
}

/// A token as it is served.
#[derive(Debug)]
pub struct Token {
    /// What the issuer gave.
    pub minted: Minted,
    /// Counts the tokens of one grant.
    pub generation: u64,
    /// Tells it from every other token of the process.
    pub serial: u64,
    /// Whether an upstream has taken it.
    accepted: AtomicBool,
    ages: u64,
    dies: u64,
    /// What lives as long as the token, and goes with it.
    beside: OnceLock<Arc<dyn Any + Send + Sync>>,
}

impl Token {
    /// The one with [`STAND_IN`] for its text.
    pub fn stand_in() -> Self {
        let minted = Minted { access: Some(Secret::new(STAND_IN.into())), ..Minted::default() };
        Self { minted, generation: 0, serial: 0, accepted: AtomicBool::new(false), ages: u64::MAX, dies: u64::MAX, beside: OnceLock::new() }
    }

    /// The one that a scheme left in a call when it acquired or signed.
    pub fn of(ticket: Option<&Ticket>) -> Option<Arc<Self>> {
        ticket.and_then(|ticket| ticket.clone().downcast().ok())
    }

    /// Whether it is a real one.
    pub fn is_real(&self) -> bool {
        self.generation > 0
    }

    /// The token's text.
    pub fn access(&self) -> &str {
        self.minted.access.as_ref().map_or("", Secret::expose)
    }

    /// What lives beside it, made by whoever asks first.
    pub fn beside<T: Any + Send + Sync>(&self, make: impl Fn(&Minted) -> T) -> Arc<T> {
        let beside = self.beside.get_or_init(|| Arc::new(make(&self.minted)));
        // One scheme presents a token, so there is one type.
        beside.clone().downcast().unwrap_or_else(|_| Arc::new(make(&self.minted)))
    }

    /// Notes that an upstream has taken it.
    pub fn accept(&self) {
        // Most answers find it noted: a look costs less than a write to memory that all cores share.
        if !self.accepted.load(Ordering::Relaxed) {
            self.accepted.store(true, Ordering::Relaxed);
        }
    }

    /// Whether it can be served without a second look.
    pub fn is_fresh(&self, now: u64) -> bool {
        now < self.ages
    }

    fn is_alive(&self, now: u64) -> bool {
        now < self.dies
    }
}

/// Why a fetch brought no token.
#[derive(Clone, Debug)]
pub enum Failure {
    /// The issuer cannot be reached, is failing, or sends what is no token. It may ask for some patience.
    Down(Trouble, Option<Duration>),
    /// The issuer denies a renewal, for another reason than the grant.
    Denied(Trouble, Option<Duration>),
    /// Like `Down`, and nobody knows whether the issuer has acted on the request.
    Unknown(Trouble),
    /// A login was turned down, which a few times may be a mistake of the server's and then is not (ruling F43).
    TurnedDown(Trouble),
    /// The issuer refused the grant.
    Refused(Trouble),
    /// The gateway's own trouble.
    Own(Error),
}

impl Failure {
    /// What whoever needs the token is told; `wait` is when to come back, where that helps.
    pub fn error(&self, wait: Duration) -> Error {
        match self {
            Self::Down(trouble, _) | Self::Denied(trouble, _) | Self::Unknown(trouble) | Self::TurnedDown(trouble) => {
                Error::IssuerUnavailable(Box::new(trouble.clone()), wait)
            }
            Self::Refused(trouble) => Error::CredentialRefused(Box::new(trouble.clone())),
            Self::Own(error) => error.clone(),
        }
    }

    /// How long the issuer asks to be left alone, where it says so.
    pub fn asked(&self) -> Option<Duration> {
        match self {
            Self::Down(_, asked) | Self::Denied(_, asked) => *asked,
            _ => None,
        }
    }

    /// What happened, for people.
    pub fn detail(&self) -> String {
        match self {
            Self::Own(error) => error.detail().to_string(),
            Self::Down(trouble, _)
            | Self::Denied(trouble, _)
            | Self::Unknown(trouble)
            | Self::TurnedDown(trouble)
            | Self::Refused(trouble) => trouble.detail.to_string(),
        }
    }

    /// What happened, for logs and the admin API.
    pub fn cause(&self) -> String {
        match self {
            Self::Down(trouble, _)
            | Self::Denied(trouble, _)
            | Self::Unknown(trouble)
            | Self::TurnedDown(trouble)
            | Self::Refused(trouble) => trouble.cause.to_string(),
            Self::Own(error) => error.cause().to_string(),
        }
    }
}

/// Whose turn it is.
#[derive(Debug)]
pub enum Turn {
    /// This one is served.
    Serve(Arc<Token>),
    /// This one is served, and the asker is to begin a fetch.
    Renew(Arc<Token>),
    /// The asker is to begin a fetch, and to wait for its end.
    Fetch,
    /// A fetch is under way; the asker waits for its end.
    Wait,
    /// There is none and there will be none now.
    Fail(Error),
}

/// The machine.
#[derive(Debug)]
pub struct Life {
    token: Option<Arc<Token>>,
    /// An upstream has refused the token.
    dead: bool,
    /// It was given up, as nothing can renew it.
    worn: bool,
    /// What it was made from has changed: it serves until there is another.
    outdated: bool,
    fetching: bool,
    generation: u64,
    /// Fetches that failed since the last good one.
    failures: u32,
    /// Logins that were turned down since the last good one.
    denials: u32,
    /// Sessions in a row that ended before any upstream took them.
    stillborn: u32,
    /// No fetch before this moment.
    due: u64,
    failure: Option<Failure>,
    /// When the last failure was.
    failed: u64,
    /// Renewals for refusals since an upstream last took a token, and no further one before this moment.
    refusals: u32,
    refusal_due: u64,
    /// `renew_before`, in milliseconds.
    lead: Option<u64>,
    /// Draws from 0 to 1.
    dice: fn() -> f64,
}

impl Life {
    /// A life that has not begun. `renew_before` is the operator's lead (ruling E16).
    pub fn new(renew_before: Option<Duration>) -> Self {
        Self {
            token: None,
            dead: false,
            worn: false,
            outdated: false,
            fetching: false,
            generation: 0,
            failures: 0,
            denials: 0,
            stillborn: 0,
            due: 0,
            failure: None,
            failed: 0,
            refusals: 0,
            refusal_due: 0,
            lead: renew_before.map(millis),
            dice: fastrand::f64,
        }
    }

    /// Where it stands.
    pub fn state(&self, now: u64) -> State {
        let alive = self.alive(now);
        match (&self.failure, alive) {
            (Some(Failure::Refused(_)), _) => State::Refused,
            _ if self.fetching => {
                if alive.is_some() {
                    State::Ageing
                } else {
                    State::Fetching
                }
            }
            (_, Some(token)) if token.is_fresh(now) => State::Fresh,
            (_, Some(_)) => State::Ageing,
            (Some(_), None) if now < self.due => State::BackingOff,
            _ if self.token.is_some() => State::Expired,
            _ => State::None,
        }
    }

    /// The last token, dead or alive.
    pub fn token(&self) -> Option<&Arc<Token>> {
        self.token.as_ref()
    }

    /// The last failure since the last good fetch, and when it was.
    pub fn failure(&self) -> Option<(&Failure, u64)> {
        self.failure.as_ref().map(|failure| (failure, self.failed))
    }

    /// When the next fetch may begin, where that is not at once.
    pub fn due(&self, now: u64) -> Option<u64> {
        Some(self.due).filter(|due| now < *due)
    }

    /// Asks for the token. Whoever is told to begin a fetch has to report it by [`Life::done`].
    pub fn turn(&mut self, now: u64) -> Turn {
        let alive = self.alive(now).cloned();
        let refused = matches!(self.failure, Some(Failure::Refused(_)));
        match alive {
            Some(token) if (token.is_fresh(now) && !self.outdated) || self.fetching || refused || now < self.due => Turn::Serve(token),
            Some(token) => {
                self.fetching = true;
                Turn::Renew(token)
            }
            None if self.fetching => Turn::Wait,
            None if refused || now < self.due => Turn::Fail(self.error(now)),
            None => {
                self.fetching = true;
                Turn::Fetch
            }
        }
    }

    /// An upstream has refused `used`. Whether another attempt is worthwhile: with the token that has taken its place,
    /// or with one that will be fetched. Refusals lead to renewals at most so often, and those of tokens that no
    /// upstream has ever taken less and less often, so that an upstream that always says 401 does not make the issuer mint
    /// without end.
    pub fn refuse(&mut self, now: u64, used: &Token) -> bool {
        if used.generation != self.generation || self.dead {
            return !matches!(self.failure, Some(Failure::Refused(_)));
        }
        if used.accepted.load(Ordering::Relaxed) {
            self.refusals = 0;
        }
        // Also where it was taken before: one path for which the token has no rights must not make the issuer mint with
        // every call.
        if now < self.refusal_due {
            return false;
        }
        self.refusals += 1;
        self.refusal_due = now + self.wait(self.refusals);
        self.dead = true;
        !matches!(self.failure, Some(Failure::Refused(_)))
    }

    /// As [`Life::refuse`], of a token that nothing can renew: it serves until it is refused (ruling G9), and one refusal may
    /// be about one path or one caller. It is given up once it was refused so often, that long apart, and taken never
    /// between. There is no other attempt.
    pub fn wear(&mut self, now: u64, used: &Token) -> bool {
        if used.generation != self.generation || self.dead {
            return !matches!(self.failure, Some(Failure::Refused(_)));
        }
        if used.accepted.swap(false, Ordering::Relaxed) {
            (self.refusals, self.refusal_due) = (0, 0);
        }
        if now < self.refusal_due {
            return false;
        }
        self.refusals += 1;
        self.refusal_due = now + WORN_APART;
        if self.refusals >= WORN_OUT {
            (self.dead, self.worn) = (true, true);
            self.failed = now;
            self.failure = Some(Failure::Refused(Trouble {
                detail: "The upstream refuses the token again and again, and nothing can renew it.".into(),
                hint: "Connect the account again, or put a new credential into the configuration and reload.".into(),
                cause: "a token that nothing can renew was refused again and again".into(),
            }));
        }
        false
    }

    /// As [`Life::refuse`], told by somebody who remembers by himself which refusals are no matter of the token: one that was
    /// taken before has ended, however short it lived. One that ends before it was ever taken may be the answer to a wrong
    /// password: after a few of those the login is refused, as if it had been turned down (ruling F43).
    pub fn end(&mut self, now: u64, used: &Token) -> bool {
        if used.generation != self.generation || self.dead {
            return self.refuse(now, used);
        }
        if used.accepted.load(Ordering::Relaxed) {
            self.refusal_due = 0;
            self.stillborn = 0;
            return self.refuse(now, used);
        }
        let worthwhile = self.refuse(now, used);
        if !self.dead {
            return worthwhile;
        }
        self.stillborn += 1;
        if self.stillborn < DENIALS_MAX {
            return worthwhile;
        }
        let told = format!("None of {DENIALS_MAX} sessions that the login brought was ever taken, and it is left alone until a reload.");
        self.failure = Some(Failure::Refused(Trouble {
            detail: told.clone().into(),
            hint: "Check user name and password; `login.expect` tells a good login from a failed one.".into(),
            cause: told.into(),
        }));
        self.failed = now;
        false
    }

    /// A fetch has ended.
    pub fn done(&mut self, now: u64, outcome: Result<Minted, Failure>) {
        self.fetching = false;
        match outcome {
            Ok(minted) => {
                if self.token.as_ref().is_some_and(|token| token.accepted.load(Ordering::Relaxed)) {
                    self.stillborn = 0;
                }
                self.generation += 1;
                self.failures = 0;
                self.denials = 0;
                self.due = 0;
                self.failure = None;
                self.dead = false;
                (self.outdated, self.worn) = (false, false);
                self.token = Some(Arc::new(self.token_of(minted)));
            }
            Err(failure) => {
                let failure = self.counted(failure);
                self.failures = self.failures.saturating_add(1);
                let asked = failure.asked().map_or(0, |asked| millis(asked.min(MOST_ASKED)));
                self.due = now + self.wait(self.failures).max(asked);
                self.failed = now;
                self.failure = Some(failure);
            }
        }
    }

    /// A person has acted: what was refused or backs off is tried again at the next call. A login that was turned down gets
    /// one more try.
    pub fn forgive(&mut self) {
        self.failure = None;
        self.failures = 0;
        self.denials = self.denials.min(DENIALS_MAX - 1);
        self.stillborn = self.stillborn.min(DENIALS_MAX - 1);
        self.due = 0;
        if self.worn {
            (self.worn, self.dead, self.refusals) = (false, false, 0);
        }
    }

    /// What the token was made from has changed: it is to be had anew, and serves until then.
    pub fn outdate(&mut self, used: &Token) {
        self.outdated |= used.generation == self.generation;
    }

    /// A login that is turned down once too often is refused.
    fn counted(&mut self, failure: Failure) -> Failure {
        let Failure::TurnedDown(trouble) = failure else { return failure };
        self.denials += 1;
        if self.denials < DENIALS_MAX {
            return Failure::TurnedDown(trouble);
        }
        let more = "It was tried as often as an account survives, and is left alone until a reload.";
        Failure::Refused(Trouble {
            detail: format!("{} {more}", trouble.detail).into(),
            cause: format!("{} {more}", trouble.cause).into(),
            hint: trouble.hint,
        })
    }

    fn alive(&self, now: u64) -> Option<&Arc<Token>> {
        self.token.as_ref().filter(|token| !self.dead && token.is_alive(now))
    }

    fn error(&self, now: u64) -> Error {
        let wait = Duration::from_millis(self.due.saturating_sub(now));
        self.failure.as_ref().map_or_else(|| Error::Internal("a token failed without a reason".into()), |failure| failure.error(wait))
    }

    /// Full jitter: anything from the least wait to one that doubles with each failure.
    fn wait(&self, failures: u32) -> u64 {
        let ceiling = LEAST_WAIT.saturating_mul(1 << failures.min(10)).min(MOST_WAIT);
        millis(LEAST_WAIT) + ((ceiling - LEAST_WAIT).as_millis() as f64 * (self.dice)()) as u64
    }

    fn token_of(&self, minted: Minted) -> Token {
        let (ages, dies) = match minted.expires {
            None => (u64::MAX, u64::MAX),
            Some(expires) => {
                let life = expires.saturating_sub(minted.obtained);
                let lead = self.lead.unwrap_or_else(|| (life / 5).clamp(LEAST_LEAD, MOST_LEAD)).min(life / 2);
                // Later, never earlier: some issuers refuse to renew before the lead that the operator gave.
                let jitter = (lead as f64 / 4.0 * (self.dice)()) as u64;
                (expires - lead + jitter, expires - LAST_GASP.min(life / 10))
            }
        };
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let accepted = AtomicBool::new(false);
        Token { minted, generation: self.generation, serial, accepted, ages: ages.min(dies), dies, beside: OnceLock::new() }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
