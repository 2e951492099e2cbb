//! Grants: each has one life of a token, shared by all who present it, on every core and over reloads. Fetches run in
//! the background, one at a time for each grant, so that a caller who leaves changes nothing. What must outlive the
//! process is journalled before the issuer is asked and stored before anything is done with the answer (ruling H11).

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::sync::watch;
use zeroize::Zeroizing;

use crate::auth::Acquiring;
use crate::auth::connection::{CONSENTED, Connection, Connections, Shelf};
use crate::auth::family::{Family, Member};
use crate::auth::fingerprint::Fingerprint;
use crate::auth::record;
use crate::auth::token::{Failure, Life, Minted, State, Token, Turn};
use crate::auth::whose::{Reads, Whose};
use crate::call::Call;
use crate::clock::Clock;
use crate::error::{Error, Trouble};
use crate::net::Background;
use crate::store::{self, Sealed};
use crate::telemetry::TokenCounts;

/// How many fetches a caller waits for: the one under way, and one of its own.
const ROUNDS: u32 = 3;
/// How many grants there may be before those that are gone are looked for.
const LEAST_KNOWN: usize = 64;
/// How often a spent refresh token may have been used without an answer (ruling F42).
const UNKNOWN_MAX: u32 = 2;

/// How a token is had.
pub type Fetching<'a> = Pin<Box<dyn Future<Output = Result<Minted, Failure>> + 'a>>;

/// What a source is asked with.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// What there was before, where that helps.
    pub before: Option<&'a Minted>,
    /// Whose token it is to be.
    pub whose: &'a Whose,
    /// The time of day.
    pub clock: &'a Clock,
}

/// Whoever knows how to have a token. It is asked in the background, once at a time.
pub trait Source: std::fmt::Debug + Send + Sync {
    /// Fetches a token. It bounds its own time.
    fn fetch<'a>(&'a self, ask: Ask<'a>) -> Fetching<'a>;

    /// As [`Source::fetch`], where what has been given already can be kept before the rest is there.
    fn fetch_in_parts<'a>(&'a self, ask: Ask<'a>, _: Part<'a>) -> Fetching<'a> {
        self.fetch(ask)
    }

    /// Whether it asks an issuer at all: what is made here is neither counted nor stored.
    fn asks(&self) -> bool {
        true
    }

    /// Whether what it gives is worth keeping over a restart.
    fn lasts(&self) -> bool {
        true
    }

    /// Whether what the issuer gives cannot be had a second time, so that losing it would lose the grant.
    fn must_keep(&self) -> bool {
        false
    }

    /// Whether it can have another token after this one without a person.
    fn renews(&self, _minted: &Minted) -> bool {
        true
    }
}

/// Where a source leaves what must not be lost if the rest of a fetch fails: what renews may be spent, and its successor
/// known to nobody else (ruling E26).
#[derive(Clone, Copy, Debug)]
pub struct Part<'a> {
    grant: &'a Grant,
    source: &'a dyn Source,
}

impl Part<'_> {
    /// Has the next fetch go on from this, also after a restart. Nothing of it is presented.
    pub async fn keep(&self, minted: Minted) {
        if let Some((store, name)) = self.grant.place(self.source) {
            let record = record::write(Some(&minted), record::Stage::Renewing);
            if let Err(error) = blocking(move || store.write(&name, &record)).await {
                tracing::warn!("a part of a login could not be stored, and would be lost by a restart: {}", error.cause());
            }
        }
        lock(&self.grant.memory).before = Some(minted);
    }
}

/// What names a grant: everything that its tokens depend on, secrets included.
#[derive(Clone)]
pub struct Material(Zeroizing<Vec<u8>>);

impl std::fmt::Debug for Material {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(crate::secret::REDACTED)
    }
}

impl Material {
    /// Joins parts so that they can be told apart.
    pub fn of<'p>(parts: impl IntoIterator<Item = &'p [u8]>) -> Self {
        let mut all = Zeroizing::new(Vec::new());
        for part in parts {
            all.extend_from_slice(&(part.len() as u64).to_be_bytes());
            all.extend_from_slice(part);
        }
        Self(all)
    }

    /// All of it.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// All grants of the process. Clones share them.
#[derive(Clone, Debug)]
pub struct Tokens(Arc<House>, Connections);

/// What all grants need.
#[derive(Debug)]
struct House {
    clock: Clock,
    background: OnceLock<Background>,
    store: OnceLock<Arc<Sealed>>,
    counts: Arc<TokenCounts>,
    grants: Mutex<Known<Grant>>,
    families: Mutex<Known<Family>>,
    seats: Mutex<Vec<Weak<Seat>>>,
    /// What stands for every token where nothing is sent.
    stand_in: OnceLock<Arc<Token>>,
}

/// A place where a grant's token is presented: a scheme of a resource.
#[derive(Debug)]
pub struct Seat {
    /// The resource.
    pub resource: Arc<str>,
    /// The scheme.
    pub scheme: &'static str,
    /// The grant.
    pub grant: Arc<Grant>,
    /// How this configuration would have a token: of a grant that outlives a reload, the newest seats have the last word.
    source: Arc<dyn Source>,
    /// The accounts of the resource, where each call names one: then it is their grants that are presented.
    shelf: Option<Arc<Shelf>>,
    renew_before: Option<Duration>,
    whose: Arc<Whose>,
    /// The grants of its callers, where its acquisition reads them: then it is theirs that are presented.
    family: Option<Arc<Family>>,
}

/// A grant as people may see it.
#[derive(Clone, Debug)]
pub struct View {
    /// The resource that presents its token.
    pub resource: Arc<str>,
    /// By which scheme.
    pub scheme: &'static str,
    /// Whose it is, where its acquisition reads the caller's name.
    pub client: Option<Arc<str>>,
    /// Its fingerprint, as in audit records.
    pub credential: Arc<str>,
    /// Where its token is in its life.
    pub state: State,
    /// When the token was asked for, in milliseconds since 1970.
    pub obtained: Option<u64>,
    /// When it ends, where anybody knows.
    pub expires: Option<u64>,
    /// When the next fetch may begin, where that is not at once.
    pub due: Option<u64>,
    /// The last failure since the last good fetch, and when it was.
    pub failure: Option<(String, u64)>,
}

impl Tokens {
    /// No grants yet. Nothing is fetched before [`Tokens::start`].
    pub fn new(clock: Clock) -> Self {
        let house = House {
            clock,
            background: OnceLock::new(),
            store: OnceLock::new(),
            counts: Arc::default(),
            grants: Mutex::default(),
            families: Mutex::default(),
            seats: Mutex::default(),
            stand_in: OnceLock::new(),
        };
        Self(Arc::new(house), Connections::default())
    }

    /// Says where fetches run and what keeps what must outlive the process. The second time changes nothing.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn start(&self, background: Background, store: Option<Arc<Sealed>>) -> Result<(), store::Failure> {
        let _ = self.0.background.set(background);
        if let Some(store) = store.filter(|store| store.is_durable()) {
            self.1.open(&store, self.0.clock.millis())?;
            let _ = self.0.store.set(store);
        }
        Ok(())
    }

    /// All connections.
    pub fn connections(&self) -> &Connections {
        &self.1
    }

    /// Where fetches run, once they do.
    pub fn background(&self) -> Option<&Background> {
        self.0.background.get()
    }

    /// Whether nothing is sent.
    pub fn rehearses(&self) -> bool {
        self.0.stand_in.get().is_some()
    }

    /// From now on nothing is fetched, and a word stands for every token: for requests that are shown and not sent.
    pub fn rehearse(&self) {
        let _ = self.0.stand_in.set(Arc::new(Token::stand_in()));
    }

    /// The figures of token requests.
    pub fn counts(&self) -> Arc<TokenCounts> {
        self.0.counts.clone()
    }

    /// Somebody has looked at these resources: what issuers had refused is tried once more. A configuration that was read and
    /// did not take over is no such look, and neither is one that changed something else: each try may be one too many.
    pub fn forgive(&self, resource: impl Fn(&str) -> bool) {
        let seats: Vec<Arc<Seat>> = lock(&self.0.seats).iter().filter_map(Weak::upgrade).collect();
        for seat in seats.iter().filter(|seat| resource(&seat.resource)) {
            seat.grant.forgive();
            let family = seat.family.iter().flat_map(|family| family.all());
            family.for_each(|member| member.grant.forgive());
            seat.shelf.iter().flat_map(|shelf| shelf.begun()).for_each(|grant| grant.forgive());
        }
    }

    /// The seat of a scheme. A grant that is there already keeps its life, whatever else has changed around it.
    pub fn seat(&self, seat: NewSeat) -> Arc<Seat> {
        let NewSeat { resource, scheme, material, identity, source, shelf, renew_before, reads } = seat;
        let begin = || Grant::begun(Some("grant"), identity.clone(), material.clone(), Mutex::new(Life::new(renew_before)), self.0.clone());
        let (grant, _) = lock(&self.0.grants).find(&identity, begin);
        // Without the system's randomness no configuration with a scheme is read.
        let family = Fingerprint::keyed()
            .filter(|_| !reads.is_nothing())
            .map(|fingerprint| lock(&self.0.families).find(&identity, || Family::new(reads, material, fingerprint)).0);
        let whose = Arc::new(Whose::anybody());
        let seat = Arc::new(Seat { resource, scheme, grant, source, shelf, renew_before, whose, family });
        let mut seats = lock(&self.0.seats);
        seats.retain(|seat| seat.strong_count() > 0);
        seats.push(Arc::downgrade(&seat));
        seat
    }

    /// All grants as people may see them, by resource.
    pub fn views(&self) -> Vec<View> {
        let seats: Vec<Arc<Seat>> = lock(&self.0.seats).iter().filter_map(Weak::upgrade).collect();
        // The grants of accounts are shown with their connections.
        let mut views: Vec<View> = seats.iter().filter(|seat| seat.shelf.is_none()).flat_map(|seat| seat.views()).collect();
        views.sort_by(|a, b| (&a.resource, a.scheme, &a.credential).cmp(&(&b.resource, b.scheme, &b.credential)));
        // Routes of one resource may share a grant.
        views.dedup_by(|a, b| (&a.resource, a.scheme, &a.credential) == (&b.resource, b.scheme, &b.credential));
        views
    }

    /// A grant that nothing else knows of.
    #[cfg(test)]
    pub(super) fn alone(&self, material: Material, identity: Arc<str>) -> Arc<Grant> {
        Arc::new(Grant::begun(None, identity, material, Mutex::new(Life::new(None)), self.0.clone()))
    }

    /// The time of day, as grants see it.
    pub fn clock(&self) -> &Clock {
        &self.0.clock
    }
}

/// What a seat is made of.
#[derive(Debug)]
pub struct NewSeat {
    /// The resource.
    pub resource: Arc<str>,
    /// The scheme.
    pub scheme: &'static str,
    /// What names the grant.
    pub material: Material,
    /// The fingerprint of that.
    pub identity: Arc<str>,
    /// `renew_before`.
    pub renew_before: Option<Duration>,
    /// How a token is had.
    pub source: Arc<dyn Source>,
    /// The accounts of the resource, where each call names one.
    pub shelf: Option<Arc<Shelf>>,
    /// What the acquisition reads of the caller.
    pub reads: Reads,
}

/// What is known by name as long as anybody has it.
#[derive(Debug)]
struct Known<T> {
    all: HashMap<Arc<str>, Weak<T>>,
    /// How many there may be before those that are gone are looked for.
    patience: usize,
}

impl<T> Default for Known<T> {
    fn default() -> Self {
        Self { all: HashMap::new(), patience: LEAST_KNOWN }
    }
}

impl<T> Known<T> {
    /// The one of this name, and whether it was there.
    fn find(&mut self, name: &Arc<str>, begin: impl FnOnce() -> T) -> (Arc<T>, bool) {
        if let Some(there) = self.all.get(name).and_then(Weak::upgrade) {
            return (there, true);
        }
        if self.all.len() >= self.patience {
            self.all.retain(|_, one| one.strong_count() > 0);
            self.patience = (self.all.len() * 2).max(LEAST_KNOWN);
        }
        let new = Arc::new(begin());
        self.all.insert(name.clone(), Arc::downgrade(&new));
        (new, false)
    }
}

/// The grant that a call presents.
enum Presents<'a> {
    Shared(&'a Arc<Grant>),
    Own(Arc<Member>),
}

impl std::ops::Deref for Presents<'_> {
    type Target = Arc<Grant>;

    fn deref(&self) -> &Arc<Grant> {
        match self {
            Self::Shared(grant) => grant,
            Self::Own(member) => &member.grant,
        }
    }
}

impl Seat {
    fn views(&self) -> Vec<View> {
        match &self.family {
            None => vec![self.view(&self.grant, None)],
            Some(family) => family.all().iter().map(|member| self.view(&member.grant, member.whose.name())).collect(),
        }
    }

    fn view(&self, grant: &Grant, client: Option<&str>) -> View {
        let now = grant.house.clock.millis();
        let life = lock(&grant.life);
        View {
            resource: self.resource.clone(),
            scheme: self.scheme,
            client: client.map(Into::into),
            credential: grant.identity.clone(),
            state: life.state(now),
            obtained: life.token().map(|token| token.minted.obtained),
            expires: life.token().and_then(|token| token.minted.expires),
            due: life.due(now),
            failure: life.failure().map(|(failure, at)| (failure.cause(), at)),
        }
    }

    /// The grant that a call presents: its account's, where the resource has several, or its caller's, where the
    /// acquisition reads that.
    fn of<'a>(&'a self, call: &'a Call) -> Result<Presents<'a>, Error> {
        let house = &self.grant.house;
        let life = || Mutex::new(Life::new(self.renew_before));
        if self.shelf.is_some() {
            let connection = call.account.as_deref().and_then(Connection::of);
            let connection = connection.ok_or_else(|| Error::Internal("a call names no account".into()))?;
            let begin = |material: &Material, identity, over| Grant {
                over,
                ..Grant::begun(Some(CONSENTED), identity, material.clone(), life(), house.clone())
            };
            return Ok(Presents::Shared(connection.grant(begin)));
        }
        let Some(family) = &self.family else { return Ok(Presents::Shared(&self.grant)) };
        // What is had for one caller is had again for the next run's: nothing of it is stored.
        let begin = |material, identity: Arc<str>| {
            lock(&house.grants).find(&identity, || Grant::begun(None, identity.clone(), material, life(), house.clone())).0
        };
        Ok(Presents::Own(family.member(Whose::of(call, family.reads)?, begin)))
    }

    /// Whose the token is that a call presents.
    fn whose(&self, call: &Call, presents: &Presents<'_>) -> Arc<Whose> {
        match (presents, &call.account) {
            (Presents::Own(member), _) => member.whose.clone(),
            (Presents::Shared(_), Some(account)) if self.shelf.is_some() => Arc::new(Whose::account(account)),
            _ => self.whose.clone(),
        }
    }

    /// The fingerprint of what a call presents.
    pub fn identity(&self, call: &Call) -> Option<Arc<str>> {
        match &self.family {
            Some(family) => Whose::of(call, family.reads).ok().map(|whose| family.name(&whose).1),
            None => self.of(call).ok().map(|grant| grant.identity.clone()),
        }
    }

    /// A caller whose own token is exchanged has one, also where nothing is fetched.
    fn judge(&self, call: &Call) -> Result<(), Error> {
        match &self.family {
            Some(family) if family.reads.bearer => Whose::of(call, family.reads).map(drop),
            _ => Ok(()),
        }
    }

    /// Whether what it presents is had for the client's own bearer token.
    pub fn takes_bearer(&self) -> bool {
        self.family.as_ref().is_some_and(|family| family.reads.bearer)
    }

    /// The token, if it can be served without waiting.
    pub fn fresh(&self, call: &Call) -> Option<Arc<Token>> {
        self.judge(call).ok()?;
        if let Some(stand_in) = self.grant.house.stand_in.get() {
            return Some(stand_in.clone());
        }
        self.of(call).ok()?.fresh()
    }

    /// The same where one token serves everybody.
    pub fn shared_fresh(&self) -> Option<Arc<Token>> {
        self.grant.house.stand_in.get().cloned().or_else(|| self.grant.fresh())
    }

    /// The token that serves everybody. Waits for it, if need be.
    ///
    /// # Errors
    /// Why there is none now.
    pub async fn shared_token(&self) -> Result<Arc<Token>, Error> {
        if let Some(stand_in) = self.grant.house.stand_in.get() {
            return Ok(stand_in.clone());
        }
        self.grant.token(self, &self.whose).await
    }

    /// As [`Seat::refuse`] where one token serves everybody.
    pub fn refuse_shared(&self, used: &Token) -> bool {
        self.grant.refuse(used, self, &self.whose, Life::refuse)
    }

    /// The token: at once, or waited for.
    pub fn acquire<'a>(&'a self, call: &'a Call) -> Acquiring<'a> {
        match self.fresh(call) {
            Some(token) => Acquiring::Done(Ok(token)),
            None => Acquiring::Later(Box::pin(self.token(call))),
        }
    }

    /// The token. Waits for it, if need be.
    ///
    /// # Errors
    /// Why there is none now.
    pub async fn token(&self, call: &Call) -> Result<Arc<Token>, Error> {
        self.judge(call)?;
        if let Some(stand_in) = self.grant.house.stand_in.get() {
            return Ok(stand_in.clone());
        }
        let grant = self.of(call)?;
        let whose = self.whose(call, &grant);
        grant.token(self, &whose).await
    }

    /// Whether each call names whose token it is.
    pub fn is_shared_out(&self) -> bool {
        self.shelf.is_some() || self.family.is_some()
    }

    /// Begins what is due for the token, and waits for nothing.
    pub fn nudge(&self) {
        self.grant.nudge(self, &self.whose);
    }

    /// What this token was made from has changed: another one is fetched, and until then it serves on.
    pub fn outdate(&self, used: &Token, call: &Call) {
        if let Ok(grant) = self.of(call) {
            grant.outdate(used, self, &self.whose(call, &grant));
        }
    }

    /// An upstream has refused this token. Whether another attempt is worthwhile; what it needs has then been begun.
    pub fn refuse(&self, used: &Token, call: &Call) -> bool {
        self.of(call).is_ok_and(|grant| {
            let whose = self.whose(call, &grant);
            grant.refuse(used, self, &whose, Life::refuse)
        })
    }

    /// The session that this token stands for has ended, as [`Life::end`] has it.
    pub fn end(&self, used: &Token, call: &Call) -> bool {
        self.of(call).is_ok_and(|grant| grant.refuse(used, self, &self.whose(call, &grant), Life::end))
    }
}

/// One grant: a life, and how to go on with it.
#[derive(Debug)]
pub struct Grant {
    /// What its records are about; nothing of it is stored where this is `None`.
    kind: Option<&'static str>,
    identity: Arc<str>,
    material: Material,
    life: Mutex<Life>,
    /// The living token, for callers in a hurry. Set and cleared under the lock of `life`.
    current: ArcSwapOption<Token>,
    /// Changes with each end of a fetch.
    ended: watch::Sender<u64>,
    memory: Mutex<Memory>,
    /// How many fetches are under way.
    running: AtomicUsize,
    /// Whether what it belongs to is gone: then nothing is fetched for it and nothing of it is stored.
    over: Over,
    house: Arc<House>,
}

/// What a grant remembers between fetches.
#[derive(Debug, Default)]
struct Memory {
    /// Whether the store was asked what it has.
    asked: bool,
    /// What was there before, in memory or in the store.
    before: Option<Minted>,
    /// What the issuer gave and the store would not take.
    unsaved: Option<Minted>,
    /// Requests with a token that can be used once, whose answer never came.
    unknown: u32,
}

/// Whether something is over. Held by whoever writes about it, so that nothing is written afterwards.
pub type Over = Arc<Mutex<bool>>;

impl Grant {
    fn begun(kind: Option<&'static str>, identity: Arc<str>, material: Material, life: Mutex<Life>, house: Arc<House>) -> Self {
        Self {
            kind,
            identity,
            material,
            life,
            current: ArcSwapOption::empty(),
            ended: watch::Sender::new(0),
            memory: Mutex::default(),
            running: AtomicUsize::new(0),
            over: Over::default(),
            house,
        }
    }

    /// Its fingerprint.
    pub fn identity(&self) -> &Arc<str> {
        &self.identity
    }

    /// Where it stands in its life.
    pub fn state(&self, now: u64) -> State {
        lock(&self.life).state(now)
    }

    /// Waits for a fetch that is under way, at most so long. Whether none is any more.
    pub async fn quiet(&self, most: Duration) -> bool {
        let mut ended = self.ended.subscribe();
        let quiet = async {
            while self.running.load(Ordering::SeqCst) > 0 {
                if ended.changed().await.is_err() {
                    break;
                }
            }
        };
        tokio::time::timeout(most, quiet).await.is_ok()
    }

    /// What its issuer gave last, as far as this process has heard of it.
    pub fn last(&self) -> Option<Minted> {
        let memory = lock(&self.memory);
        memory.unsaved.clone().or_else(|| memory.before.clone())
    }

    fn fresh(&self) -> Option<Arc<Token>> {
        let token = self.current.load();
        token.as_ref().filter(|token| token.is_fresh(self.house.clock.millis())).cloned()
    }

    fn forgive(&self) {
        let mut life = lock(&self.life);
        if life.state(self.house.clock.millis()) == State::Refused {
            life.forgive();
            let now = self.house.clock.millis();
            self.current.store(life.token().filter(|token| token.is_fresh(now)).filter(|_| life.state(now) == State::Fresh).cloned());
            lock(&self.memory).unknown = 0;
        }
    }

    async fn token(self: &Arc<Self>, by: &Seat, whose: &Arc<Whose>) -> Result<Arc<Token>, Error> {
        // Before the first look, so that no end of a fetch is missed.
        let mut ended = self.ended.subscribe();
        for _ in 0..ROUNDS {
            let turn = lock(&self.life).turn(self.house.clock.millis());
            match turn {
                Turn::Serve(token) => return Ok(token),
                Turn::Renew(token) => {
                    self.begin(by, whose);
                    return Ok(token);
                }
                Turn::Fail(error) => return Err(error),
                Turn::Fetch => self.begin(by, whose),
                Turn::Wait => {}
            }
            if ended.changed().await.is_err() {
                break;
            }
        }
        let trouble = Trouble {
            detail: "The issuer's tokens end before they can be used.".into(),
            hint: "Check what the issuer says about their life, and both clocks; `response.ttl` sets it.".into(),
            cause: "every token that was fetched was dead on arrival".into(),
        };
        Err(Error::IssuerUnavailable(Box::new(trouble), Duration::from_secs(1)))
    }

    fn refuse(self: &Arc<Self>, used: &Token, by: &Seat, whose: &Arc<Whose>, tell: fn(&mut Life, u64, &Token) -> bool) -> bool {
        let now = self.house.clock.millis();
        let tell = if by.source.renews(&used.minted) { tell } else { Life::wear };
        let (worthwhile, begin) = {
            let mut life = lock(&self.life);
            let before = life.state(now);
            let worthwhile = tell(&mut life, now, used);
            if let Some((failure, _)) = life.failure().filter(|_| before != State::Refused && life.state(now) == State::Refused) {
                tracing::error!(resource = &*by.resource, "the login is refused, and a person must mend it: {}", failure.cause());
            }
            if life.state(now) == State::Fresh || life.state(now) == State::Ageing {
                (worthwhile, false)
            } else {
                self.current.store(None);
                (worthwhile, worthwhile && matches!(life.turn(now), Turn::Fetch))
            }
        };
        if begin {
            self.begin(by, whose);
        }
        worthwhile
    }

    fn nudge(self: &Arc<Self>, by: &Seat, whose: &Arc<Whose>) {
        let turn = lock(&self.life).turn(self.house.clock.millis());
        if matches!(turn, Turn::Renew(_) | Turn::Fetch) {
            self.begin(by, whose);
        }
    }

    fn outdate(self: &Arc<Self>, used: &Token, by: &Seat, whose: &Arc<Whose>) {
        lock(&self.life).outdate(used);
        self.nudge(by, whose);
    }

    /// Begins the fetch that the machine has asked for.
    fn begin(self: &Arc<Self>, by: &Seat, whose: &Arc<Whose>) {
        let (source, whose) = (by.source.clone(), whose.clone());
        self.running.fetch_add(1, Ordering::SeqCst);
        let mut job = Job { grant: self.clone(), source, whose, by: by.resource.clone(), outcome: None };
        // Only after it is counted: whoever has ended it waits for those that did not see that.
        if *lock(&self.over) {
            job.outcome = Some(Err(gone()));
            return drop(job);
        }
        match self.house.background.get() {
            // A job that is not taken is dropped, and so has ended.
            Some(background) => drop(background.spawn(move || job.run())),
            None => drop(job),
        }
    }

    fn finish(&self, by: &str, outcome: Result<Minted, Failure>) {
        let now = self.house.clock.millis();
        {
            let mut life = lock(&self.life);
            life.done(now, outcome);
            match life.failure() {
                None => self.current.store(life.token().cloned()),
                Some((failure @ Failure::Refused(_), _)) => {
                    tracing::error!(resource = by, "the grant was refused, and a person must mend it: {}", failure.cause());
                }
                Some((failure, _)) => {
                    let wait = life.due(now).map_or(0, |due| due - now);
                    tracing::warn!(resource = by, "no token: {}; the issuer is left alone for {wait} ms", failure.cause());
                }
            }
        }
        self.ended.send_modify(|count| *count += 1);
    }

    /// Has a token, by way of the store where there is one.
    async fn fetch(&self, source: &dyn Source, whose: &Whose, by: &Arc<str>) -> Result<Minted, Failure> {
        let unsaved = lock(&self.memory).unsaved.clone();
        if let Some(minted) = unsaved {
            // The issuer has given it already, and would not do so twice.
            return self.keep(source, minted).await;
        }
        let asked = lock(&self.memory).asked;
        let stored = if asked { None } else { self.stored(source).await? };
        lock(&self.memory).asked = true;
        if let Some((stored, stage)) = stored {
            if stage == record::Stage::Renewing && stored.rotates {
                // It was sent once, and nobody knows what came of it (ruling H11).
                lock(&self.memory).unknown = UNKNOWN_MAX - 1;
            }
            let stored = settled(source, stored);
            let living = stored.access.is_some() && stored.expires.is_none_or(|end| end > self.house.clock.millis());
            lock(&self.memory).before = Some(stored.clone());
            if living {
                return Ok(stored);
            }
        }
        let before = lock(&self.memory).before.clone();
        // What cannot be renewed is not put in doubt.
        if source.must_keep() && before.as_ref().is_none_or(|before| source.renews(before)) {
            self.journal(source, before.as_ref()).await?;
        }
        let ask = Ask { before: before.as_ref(), whose, clock: &self.house.clock };
        let outcome = source.fetch_in_parts(ask, Part { grant: self, source }).await;
        if source.asks() {
            let result = match &outcome {
                Ok(_) => "ok",
                Err(Failure::Refused(_)) => "refused",
                Err(_) => "failed",
            };
            self.house.counts.count(by, result);
        }
        match outcome {
            Ok(mut minted) => {
                if let Some(before) = &before {
                    minted.rotates |= before.rotates || (before.refresh.is_some() && minted.refresh != before.refresh);
                }
                self.keep(source, settled(source, minted)).await
            }
            Err(Failure::Unknown(trouble)) => Err(self.unknown(trouble, before.as_ref())),
            Err(failure) => Err(failure),
        }
    }

    /// A request without an answer: with a token that can be used once it may be tried once more (ruling F42).
    fn unknown(&self, trouble: Trouble, before: Option<&Minted>) -> Failure {
        if !before.is_some_and(|before| before.rotates) {
            return Failure::Unknown(trouble);
        }
        let mut memory = lock(&self.memory);
        memory.unknown += 1;
        if memory.unknown < UNKNOWN_MAX {
            return Failure::Unknown(trouble);
        }
        Failure::Refused(Trouble {
            detail: "The refresh token was sent twice without an answer, and may be spent.".into(),
            hint: "Put a new refresh token into the configuration and reload.".into(),
            cause: format!("a refresh token that can be used once was sent twice without an answer: {}", trouble.cause).into(),
        })
    }

    async fn stored(&self, source: &dyn Source) -> Result<Option<(Minted, record::Stage)>, Failure> {
        let Some((store, name)) = self.place(source) else { return Ok(None) };
        let read = blocking(move || store.read(&name)).await;
        match read {
            Ok(record) => Ok(record.and_then(|record| record::read(&record))),
            Err(error) if source.must_keep() => Err(Failure::Own(error)),
            Err(error) => {
                tracing::warn!("the store cannot be read, so a token is fetched anew: {}", error.cause());
                Ok(None)
            }
        }
    }

    /// The intent to renew is on disk before the issuer hears of it.
    async fn journal(&self, source: &dyn Source, before: Option<&Minted>) -> Result<(), Failure> {
        self.write(source, record::write(before, record::Stage::Renewing)).await.map_err(Failure::Own)
    }

    /// Stores a record of it, unless it is over: not even what was under way is written then.
    async fn write(&self, source: &dyn Source, record: Zeroizing<Vec<u8>>) -> Result<(), Error> {
        let Some((store, name)) = self.place(source) else { return Ok(()) };
        let over = self.over.clone();
        let write = move || {
            let over = lock(&over);
            if *over { Ok(()) } else { store.write(&name, &record) }
        };
        blocking(write).await
    }

    /// Stores what the issuer gave, and only then lets it be used.
    async fn keep(&self, source: &dyn Source, minted: Minted) -> Result<Minted, Failure> {
        if let Err(error) = self.write(source, record::write(Some(&minted), record::Stage::Settled)).await {
            if source.must_keep() {
                lock(&self.memory).unsaved = Some(minted);
                return Err(Failure::Own(error));
            }
            tracing::warn!("a token could not be stored, and is fetched anew after a restart: {}", error.cause());
        }
        *lock(&self.memory) = Memory { asked: true, before: Some(minted.clone()), unsaved: None, unknown: 0 };
        Ok(minted)
    }

    fn place(&self, source: &dyn Source) -> Option<(Arc<Sealed>, String)> {
        let store = self.house.store.get().filter(|_| source.asks() && source.lasts())?;
        Some((store.clone(), store.name(self.kind?, [self.material.bytes()])))
    }
}

fn gone() -> Failure {
    Failure::Refused(Trouble {
        detail: "The account was taken away.".into(),
        hint: "Connect it again.".into(),
        cause: "its connection was taken away or replaced".into(),
    })
}

/// Without any way to renew, a token of which nobody has said when it ends serves until it is refused (ruling G9).
fn settled(source: &dyn Source, minted: Minted) -> Minted {
    if minted.supposed && !source.renews(&minted) { Minted { expires: None, supposed: false, ..minted } } else { minted }
}

/// A fetch under way. However it ends, the machine hears of it.
struct Job {
    grant: Arc<Grant>,
    source: Arc<dyn Source>,
    whose: Arc<Whose>,
    by: Arc<str>,
    outcome: Option<Result<Minted, Failure>>,
}

impl Job {
    async fn run(mut self) {
        self.outcome = Some(self.grant.fetch(&*self.source, &self.whose, &self.by).await);
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        let lost = || Err(Failure::Own(Error::Internal("a fetch of a token ended without a result".into())));
        self.grant.running.fetch_sub(1, Ordering::SeqCst);
        self.grant.finish(&self.by, self.outcome.take().unwrap_or_else(lost));
    }
}

/// The store waits for its disk: not on the thread on which all other fetches run.
pub(super) async fn blocking<T: Send + 'static>(
    act: impl FnOnce() -> Result<T, crate::store::Failure> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(act).await {
        Ok(done) => Ok(done?),
        Err(_) => Err(Error::Internal("a job of the store panicked".into())),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
