//! Connections to upstreams: a pool of its own on each core, last in first out, with one bound per upstream over all
//! cores. HTTP/2 connections are shared (`multiplexed.rs`), HTTP/1.1 ones carry one call at a time. What it resends
//! unseen is ruling D19 and no more.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::poll_fn;
use std::hash::{BuildHasherDefault, Hasher};
use std::pin::pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::UPGRADE;
use http::uri::{Authority, Scheme};
use http::{Method, Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::task::AbortHandle;

use super::dial::{self, Connected};
use super::diversion::Diversion;
use super::failure::{self, Fate};
use super::guard::Reach;
use super::multiplexed::{self, Place, Settling, Shared};
pub use super::settings::Config;
use super::settings::Versions;
use super::strict::{Exchange, HEAD_BYTES, Strict};
use super::tls;
use crate::body::Alarm;
use crate::call::{Finish, Hints};
use crate::error::{Breach, Error, TlsFault};
use crate::net::Origin;

/// Most origins beside a resource's own whose connections are kept.
const OTHERS_MAX: usize = 64;
/// How often idle connections are looked through.
const SWEEP: Duration = Duration::from_secs(1);
/// How often a request that was handed back unsent is tried on another connection.
const UNSENT_MAX: u32 = 4;

/// An upstream as all cores see it.
#[derive(Debug)]
pub struct Upstream {
    id: u64,
    origin: Origin,
    /// For `:scheme` and `:authority`.
    scheme: Scheme,
    authority: Option<Authority>,
    tls: Option<tls::Config>,
    reach: Reach,
    config: Config,
    connect: Duration,
    queue: Duration,
    slots: Arc<Semaphore>,
    /// Who waits for a slot, over all cores: while someone does, no connection idles.
    waiting: AtomicUsize,
    freed: Notify,
    /// No resource leads here any more: what is in use ends, and nothing idles.
    retired: AtomicBool,
    /// Whether the last handshake came to HTTP/1.1: then calls do not wait for each other's.
    speaks_one: AtomicBool,
    /// Where connections lead instead, if anywhere.
    diversion: Option<Diversion>,
    /// Whether hosts that a template, a capture or a redirect made may be private (`allow_private`).
    private: bool,
    /// The same terms at other origins, the one used last at the end.
    others: Mutex<Vec<Arc<Upstream>>>,
}

impl Upstream {
    /// The same with other rules about where its host may be. [`Reach::Written`] holds otherwise.
    pub fn reaching(self, reach: Reach) -> Self {
        Self { reach, ..self }
    }

    /// The same where hosts that are not written out may be private or loopback, or not.
    #[must_use]
    pub fn allowing_private(self, private: bool) -> Self {
        Self { private, ..self }
    }

    /// The same terms at another origin, which a template, a capture or a redirect has made and somebody has allowed. It has
    /// connections and bounds of its own; of many origins those used last are remembered.
    pub fn at(&self, origin: &Origin) -> Arc<Self> {
        let mut others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        let there = others.iter().position(|other| other.origin.is(origin)).map(|at| others.remove(at));
        let other = there.unwrap_or_else(|| {
            let config = Config { versions: self.config.versions.at(origin.is_https()), ..self.config };
            let new = Self::new(origin.clone(), self.tls.clone(), config, self.connect, self.queue);
            let reach = Reach::Made { private: self.private };
            Arc::new(Self { diversion: self.diversion.clone(), ..new.reaching(reach) })
        });
        others.push(other.clone());
        if others.len() > OTHERS_MAX {
            others.remove(0).retire();
        }
        if self.retired.load(Ordering::Relaxed) {
            other.retire();
        }
        other
    }

    /// An upstream with its bounds. `connect` and `queue` are the resource's timeouts of these names.
    pub fn new(origin: Origin, tls: Option<tls::Config>, config: Config, connect: Duration, queue: Duration) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            scheme: if origin.is_https() { Scheme::HTTPS } else { Scheme::HTTP },
            authority: Authority::try_from(origin.authority().as_bytes()).ok(),
            origin,
            tls,
            reach: Reach::Written,
            config,
            connect,
            queue,
            slots: Arc::new(Semaphore::new(config.max_connections)),
            waiting: AtomicUsize::new(0),
            freed: Notify::new(),
            retired: AtomicBool::new(false),
            speaks_one: AtomicBool::new(false),
            diversion: None,
            private: false,
            others: Mutex::default(),
        }
    }

    /// The same, but its connections lead there while the diversion is on: nothing is dialled.
    pub fn diverted(&self, diversion: Diversion) -> Self {
        let same = Self::new(self.origin.clone(), self.tls.clone(), self.config, self.connect, self.queue);
        Self { diversion: Some(diversion), reach: self.reach, private: self.private, ..same }
    }

    /// No resource leads here any more. Its idle connections are closed within a second; those in use serve their call to
    /// its end and are closed then.
    pub fn retire(&self) {
        self.retired.store(true, Ordering::Relaxed);
        self.others.lock().unwrap_or_else(PoisonError::into_inner).drain(..).for_each(|other| other.retire());
    }

    /// Where it is.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Which addresses may be dialled.
    pub(super) fn reach(&self) -> Reach {
        self.reach
    }

    /// `timeouts.connect`.
    pub(super) fn patience(&self) -> Duration {
        self.connect
    }

    /// What a connection is made with.
    pub(super) fn terms(&self, versions: Versions) -> dial::Terms<'_> {
        dial::Terms { tls: self.tls.as_ref(), versions, reach: self.reach }
    }

    /// What a call may be sent over: one that asks to switch protocols needs HTTP/1.1.
    pub(super) fn versions(&self, switches: bool) -> Result<Versions, Error> {
        if self.diversion.as_ref().is_some_and(Diversion::is_on) {
            return Ok(Versions::One);
        }
        match self.config.versions {
            Versions::Two if switches => Err(Error::Forbidden(
                "This upstream is spoken to over HTTP/2, where protocols are not switched.".into(),
                "Add 1.1 to http.versions of the resource.".into(),
            )),
            _ if switches => Ok(Versions::One),
            versions => Ok(versions),
        }
    }
}

/// What sending cost.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stats {
    /// Waiting for a connection.
    pub queue: Duration,
    /// Making one.
    pub connect: Duration,
    /// How many times the request was put on a wire.
    pub attempts: u32,
}

/// The connections of one core.
#[derive(Debug)]
pub struct Pool<B>(Rc<Inner<B>>);

impl<B> Clone for Pool<B> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

#[derive(Debug)]
struct Inner<B> {
    idle: RefCell<HashMap<u64, Shelf<B>, BuildHasherDefault<Number>>>,
    /// How many idle connections there are, so that a sweep with nothing to do costs nothing.
    count: Cell<usize>,
    /// The time of the last sweep. Ages are told by it: to the second is enough, and asking the clock for each request is not free.
    swept: Cell<Instant>,
}

/// Upstreams are numbered by the gateway itself, so that their numbers need no hash that withstands enemies.
#[derive(Debug, Default)]
struct Number(u64);

impl Hasher for Number {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|b| self.write_u64(self.0 ^ u64::from(*b)));
    }

    fn write_u64(&mut self, number: u64) {
        // Fibonacci hashing: neighbours are spread over all bits.
        self.0 = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

#[derive(Debug)]
struct Shelf<B> {
    upstream: Arc<Upstream>,
    /// Idle HTTP/1.1 connections.
    connections: Vec<Connection<B>>,
    /// HTTP/2 connections, whatever they carry.
    shared: Vec<Rc<Shared<B>>>,
    /// The connection that is being made and may turn out to be one for all who wait.
    opening: Option<Rc<Opening>>,
}

impl<B> Shelf<B> {
    fn new(upstream: &Arc<Upstream>) -> Self {
        Self { upstream: upstream.clone(), connections: Vec::new(), shared: Vec::new(), opening: None }
    }

    fn is_empty(&self) -> bool {
        self.connections.is_empty() && self.shared.is_empty() && self.opening.is_none()
    }

    fn place(&self, now: Instant) -> Option<Place<B>> {
        let max_age = self.upstream.config.max_age;
        self.shared.iter().filter(|s| now.duration_since(s.born) < max_age).find_map(Shared::place)
    }
}

/// A connection that is being made, for those who wait for it.
#[derive(Debug, Default)]
struct Opening {
    over: Cell<bool>,
    failed: RefCell<Option<Error>>,
    news: Notify,
}

impl Opening {
    fn end(&self, failed: Option<Error>) {
        self.failed.replace(failed);
        self.over.set(true);
        self.news.notify_waiters();
    }

    async fn ended(&self) -> Result<(), Error> {
        while !self.over.get() {
            self.news.notified().await;
        }
        self.failed.borrow().clone().map_or(Ok(()), Err)
    }
}

#[derive(Debug)]
struct Connection<B> {
    sender: SendRequest<B>,
    task: AbortHandle,
    exchange: Arc<Exchange>,
    born: Instant,
    rested: Instant,
    /// Kept with the connection, so that its timer is made once and not for each request.
    alarm: Alarm,
}

/// What a call has been given to go out on.
#[derive(Debug)]
enum Held<B> {
    Whole(Connection<B>),
    Place(Place<B>),
}

/// A connection that is being used. Dropped without [`Lease::done`] it is cut, or its stream reset, so that the upstream
/// sees that nobody wants its answer any more.
#[derive(Debug)]
pub struct Lease<B> {
    pool: Pool<B>,
    upstream: Arc<Upstream>,
    held: Option<Held<B>>,
}

impl<B> Lease<B> {
    /// The answer has been read to its end: the connection may serve another.
    pub fn done(mut self) {
        if let Some(Held::Whole(connection)) = self.held.take_if(|held| matches!(held, Held::Whole(_))) {
            self.pool.put(&self.upstream, connection);
        }
    }

    /// The connection has switched protocols, and ends with the tunnel.
    pub fn switched(mut self) {
        self.held = None;
    }
}

impl<B> Drop for Lease<B> {
    fn drop(&mut self) {
        match self.held.take() {
            Some(Held::Whole(connection)) => connection.task.abort(),
            Some(Held::Place(place)) => {
                drop(place);
                if self.upstream.waiting.load(Ordering::Relaxed) > 0 {
                    self.upstream.freed.notify_waiters();
                }
            }
            None => {}
        }
    }
}

impl<B> Pool<B> {
    /// An empty pool.
    pub fn new() -> Self {
        Self(Rc::new(Inner { idle: RefCell::default(), count: Cell::new(0), swept: Cell::new(Instant::now()) }))
    }

    fn put(&self, upstream: &Arc<Upstream>, mut connection: Connection<B>) {
        let now = self.0.swept.get();
        let wanted = upstream.waiting.load(Ordering::Relaxed) == 0
            || self.0.idle.borrow().get(&upstream.id).is_some_and(|s| s.connections.is_empty());
        let young = now.duration_since(connection.born) < upstream.config.max_age && !upstream.retired.load(Ordering::Relaxed);
        let mut idle = self.0.idle.borrow_mut();
        let shelf = idle.entry(upstream.id).or_insert_with(|| Shelf::new(upstream));
        if connection.sender.is_closed()
            || !connection.exchange.reusable()
            || !young
            || shelf.connections.len() >= upstream.config.max_idle
            || !wanted
        {
            // Dropping the sender ends the connection once its last bytes have gone.
            return;
        }
        connection.rested = now;
        shelf.connections.push(connection);
        self.0.count.set(self.0.count.get() + 1);
        if upstream.waiting.load(Ordering::Relaxed) > 0 {
            upstream.freed.notify_waiters();
        }
    }

    fn take(&self, upstream: &Upstream) -> Option<Connection<B>> {
        let mut idle = self.0.idle.borrow_mut();
        let connection = idle.get_mut(&upstream.id)?.connections.pop()?;
        self.0.count.set(self.0.count.get() - 1);
        Some(connection)
    }

    fn give_back(&self, upstream: &Upstream, connection: Connection<B>) {
        if let Some(shelf) = self.0.idle.borrow_mut().get_mut(&upstream.id) {
            shelf.connections.push(connection);
            self.0.count.set(self.0.count.get() + 1);
        }
    }

    /// Closes what has idled or lived too long, and what others wait for.
    pub fn sweep(&self) {
        let now = Instant::now();
        self.0.swept.set(now);
        if self.0.count.get() == 0 {
            // All shelves are empty, and some may be of upstreams that nothing leads to any more.
            self.0.idle.borrow_mut().clear();
            return;
        }
        let mut left = 0;
        self.0.idle.borrow_mut().retain(|_, shelf| {
            let config = shelf.upstream.config;
            let retired = shelf.upstream.retired.load(Ordering::Relaxed);
            let young = |born: Instant| !retired && now.duration_since(born) < config.max_age;
            shelf.connections.retain(|c| !c.sender.is_closed() && now.duration_since(c.rested) < config.idle && young(c.born));
            // Calls that are under way keep theirs.
            shelf.shared.retain(|s| !s.is_closed() && young(s.born) && s.idle_since().is_none_or(|i| now.duration_since(i) < config.idle));
            if shelf.upstream.waiting.load(Ordering::Relaxed) > 0 {
                match shelf.shared.iter().position(|s| s.idle_since().is_some()) {
                    _ if !shelf.connections.is_empty() => drop(shelf.connections.remove(0)),
                    Some(at) => drop(shelf.shared.remove(at)),
                    None => {}
                }
            }
            left += shelf.connections.len() + shelf.shared.len();
            !shelf.is_empty()
        });
        self.0.count.set(left);
    }

    /// Sweeps from time to time, for ever.
    pub async fn sweep_every(&self) {
        loop {
            tokio::time::sleep(SWEEP).await;
            self.sweep();
        }
    }
}

impl<B> Default for Pool<B> {
    fn default() -> Self {
        Self::new()
    }
}

impl<B> Pool<B>
where
    B: Body<Data = Bytes> + Unpin + Default + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    /// Sends a request and waits for the head of the answer. A request that the upstream has not looked at goes out again
    /// on another connection; one that died on a reused connection before any byte of an answer does so once, if it is
    /// safe and has no body (ruling D19).
    /// `finish` is done to its fields each time. While there is no answer `patience` is asked how long that may go on.
    ///
    /// # Errors
    /// Why there is no answer.
    pub async fn send(
        &self,
        upstream: &Arc<Upstream>,
        mut request: Request<B>,
        mut finish: Option<Finish>,
        hints: Option<&Hints>,
        stats: &mut Stats,
        mut patience: impl FnMut(&mut Alarm, &mut Context<'_>) -> Poll<Error>,
    ) -> Result<(Response<Incoming>, Lease<B>), Error> {
        let mut versions = upstream.versions(request.headers().contains_key(UPGRADE))?;
        let mut unsent = 0;
        let mut died = false;
        loop {
            // Boxed, because every call's future would otherwise have to have room for a dial.
            let (held, reused) = match self.ready(upstream, versions) {
                Some(held) => held,
                None => Box::pin(self.held(upstream, versions, stats)).await?,
            };
            let mut lease = Lease { pool: self.clone(), upstream: upstream.clone(), held: Some(held) };
            if let Some(finish) = &mut finish {
                finish.apply(request.headers_mut());
            }
            let (copy, result) = match &mut lease.held {
                Some(Held::Whole(connection)) => {
                    multiplexed::undress(&mut request, upstream.origin.authority());
                    let copy = if reused { copy(&request) } else { None };
                    connection.exchange.begin(request.method(), request.headers());
                    let early = hints.map(|hints| Early { exchange: &connection.exchange, hints });
                    let sending = connection.sender.try_send_request(request);
                    (copy, answer(sending, early, &mut connection.alarm, &mut patience).await)
                }
                Some(Held::Place(place)) => {
                    multiplexed::dress(&mut request, &upstream.scheme, upstream.authority.as_ref());
                    // Whatever the method: an upstream says over HTTP/2 what it has not looked at.
                    let copy = copy(&request);
                    let sending = place.send(request);
                    (copy, answer(sending, None, &mut place.alarm, &mut patience).await)
                }
                None => return Err(Error::Internal("a lease without a connection".into())),
            };
            let mut failed = match result {
                Ok(Ok(response)) => {
                    stats.attempts += 1;
                    return Ok((response, lease));
                }
                Ok(Err(failed)) => failed,
                Err(error) => {
                    stats.attempts += 1;
                    return Err(error);
                }
            };
            drop(lease);
            if let Some(message) = failed.take_message() {
                unsent += 1;
                if unsent > UNSENT_MAX {
                    return Err(Error::Protocol(Breach::Closed));
                }
                request = message;
                continue;
            }
            stats.attempts += 1;
            let fate = failure::fate(failed.error());
            let again = match &fate {
                Fate::Untouched => {
                    unsent += 1;
                    unsent <= UNSENT_MAX
                }
                Fate::NeedsOne if upstream.config.versions == Versions::Both && versions == Versions::Both => {
                    versions = Versions::One;
                    true
                }
                Fate::Died(_) => reused && !std::mem::replace(&mut died, true) && copy.as_ref().is_some_and(|c| c.is_safe()),
                _ => false,
            };
            match copy.filter(|_| again) {
                Some(Copy(copy)) => {
                    request = copy;
                    if matches!(fate, Fate::Died(_)) {
                        // The next connection is a new one.
                        self.forget(upstream);
                    }
                }
                None => return Err(fate.into_error()),
            }
        }
    }

    /// Drops the idle connections of an upstream.
    fn forget(&self, upstream: &Upstream) {
        if let Some(shelf) = self.0.idle.borrow_mut().get_mut(&upstream.id) {
            self.0.count.set(self.0.count.get() - shelf.connections.len() - shelf.shared.len());
            shelf.connections.clear();
            shelf.shared.clear();
        }
    }

    /// What is ready at once, which most calls find: a place on a shared connection, or an idle one. Says whether it has
    /// carried calls before.
    fn ready(&self, upstream: &Upstream, versions: Versions) -> Option<(Held<B>, bool)> {
        if versions != Versions::One
            && let Some(place) = self.0.idle.borrow().get(&upstream.id).and_then(|shelf| shelf.place(self.0.swept.get()))
        {
            let reused = place.is_reused();
            return Some((Held::Place(place), reused));
        }
        if versions == Versions::Two {
            return None;
        }
        let connection = self.take(upstream)?;
        // Its age is looked at when it is put back, and by the sweep.
        if connection.sender.is_ready() && connection.exchange.reusable() {
            return Some((Held::Whole(connection), true));
        }
        if !connection.sender.is_closed() && connection.exchange.reusable() {
            // Not ready yet: whoever looks closer finds it where it was.
            self.give_back(upstream, connection);
        }
        None
    }

    /// A connection that is ready: one that others have made, a new one, or whichever comes first when the bound is
    /// reached.
    async fn held(&self, upstream: &Arc<Upstream>, versions: Versions, stats: &mut Stats) -> Result<(Held<B>, bool), Error> {
        loop {
            while let Some(mut connection) = if versions == Versions::Two { None } else { self.take(upstream) } {
                let ready = connection.sender.is_ready() || (!connection.sender.is_closed() && connection.sender.ready().await.is_ok());
                if ready && connection.exchange.reusable() && connection.born.elapsed() < upstream.config.max_age {
                    return Ok((Held::Whole(connection), true));
                }
            }
            let Some(opening) = self.opening(upstream, versions) else { break };
            let began = Instant::now();
            let opened = tokio::time::timeout(upstream.connect + upstream.queue, opening.ended()).await;
            stats.connect += began.elapsed();
            opened.unwrap_or(Err(Error::Timeout(crate::error::Stage::Connect)))?;
            if let Some(held) = self.ready(upstream, versions) {
                return Ok(held);
            }
        }
        let permit = match upstream.slots.clone().try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => match self.wait(upstream, versions, stats).await? {
                Waited::Held(held) => return Ok((held, true)),
                Waited::Slot(permit) => permit,
            },
        };
        let began = Instant::now();
        let held = self.open(upstream, versions, permit).await;
        stats.connect += began.elapsed();
        Ok((held?, false))
    }

    /// The connection that is being made, where it is worth waiting for: HTTP/1.1 ones carry nobody else's call.
    fn opening(&self, upstream: &Upstream, versions: Versions) -> Option<Rc<Opening>> {
        if versions == Versions::One || upstream.speaks_one.load(Ordering::Relaxed) {
            return None;
        }
        self.0.idle.borrow().get(&upstream.id)?.opening.clone()
    }

    async fn wait(&self, upstream: &Arc<Upstream>, versions: Versions, stats: &mut Stats) -> Result<Waited<B>, Error> {
        let began = Instant::now();
        let _waiting = Waiting::new(upstream);
        let waited = tokio::time::timeout(upstream.queue, async {
            loop {
                let freed = upstream.freed.notified();
                if let Some((held, _)) = self.ready(upstream, versions) {
                    return Waited::Held(held);
                }
                tokio::select! {
                    permit = upstream.slots.clone().acquire_owned() => if let Ok(permit) = permit { return Waited::Slot(permit) },
                    () = freed => {}
                }
            }
        });
        let result = waited.await;
        stats.queue += began.elapsed();
        result.map_err(|_| Error::Overloaded("http.max_connections of this resource".into()))
    }

    /// Dials in a task of its own: if the caller leaves meanwhile, the connection goes to the pool.
    async fn open(&self, upstream: &Arc<Upstream>, versions: Versions, permit: OwnedSemaphorePermit) -> Result<Held<B>, Error> {
        let (pool, upstream) = (self.clone(), upstream.clone());
        let opening = (versions != Versions::One).then(Rc::<Opening>::default);
        if let Some(opening) = &opening {
            self.0.idle.borrow_mut().entry(upstream.id).or_insert_with(|| Shelf::new(&upstream)).opening = Some(opening.clone());
        }
        let (give, given) = tokio::sync::oneshot::channel();
        tokio::task::spawn_local(async move {
            let opened = pool.connect(&upstream, versions, permit).await;
            let (opened, settling) = match opened {
                Ok((held, settling)) => (Ok(held), settling),
                Err(error) => (Err(error), None),
            };
            let failed = opened.as_ref().err().cloned();
            if let Err(Ok(Held::Whole(connection))) = give.send(opened) {
                pool.put(&upstream, connection);
            }
            let Some(opening) = opening else { return };
            if let Some(settling) = settling {
                let _ = tokio::time::timeout(upstream.connect, settling.settled()).await;
            }
            pool.opened(&upstream, &opening, failed);
        });
        given.await.unwrap_or(Err(Error::Protocol(Breach::Closed)))
    }

    fn opened(&self, upstream: &Upstream, opening: &Rc<Opening>, failed: Option<Error>) {
        if let Some(shelf) = self.0.idle.borrow_mut().get_mut(&upstream.id) {
            shelf.opening.take_if(|current| Rc::ptr_eq(current, opening));
        }
        opening.end(failed);
    }

    /// Dials and begins what the handshake came to. A shared connection is in the pool at once.
    async fn connect(
        &self,
        upstream: &Arc<Upstream>,
        versions: Versions,
        permit: OwnedSemaphorePermit,
    ) -> Result<(Held<B>, Option<Rc<Settling>>), Error> {
        if let Some(diversion) = upstream.diversion.as_ref().filter(|d| d.is_on()) {
            return Ok((Held::Whole(handshake(diversion.open()?, permit).await?), None));
        }
        let connected = dial::dial(&upstream.origin, upstream.terms(versions), upstream.connect).await?;
        let two = match &connected {
            Connected::Plain(_) => versions == Versions::Two,
            Connected::Tls(stream) => stream.get_ref().1.alpn_protocol() == Some(b"h2"),
        };
        if versions == Versions::Both {
            upstream.speaks_one.store(!two, Ordering::Relaxed);
        }
        if versions == Versions::Two && !two {
            return Err(Error::Tls(TlsFault::Handshake("the upstream does not speak HTTP/2 (http.versions)".into())));
        }
        if !two {
            let connection = match connected {
                Connected::Plain(stream) => handshake(stream, permit).await,
                Connected::Tls(stream) => handshake(stream, permit).await,
            };
            return Ok((Held::Whole(connection?), None));
        }
        let (shared, settling) = match connected {
            Connected::Plain(stream) => multiplexed::handshake(stream, permit).await?,
            Connected::Tls(stream) => multiplexed::handshake(stream, permit).await?,
        };
        // The caller's place is taken before anyone else looks.
        let place = shared.place().ok_or(Error::Protocol(Breach::Closed))?;
        self.0.idle.borrow_mut().entry(upstream.id).or_insert_with(|| Shelf::new(upstream)).shared.push(shared);
        self.0.count.set(self.0.count.get() + 1);
        Ok((Held::Place(place), Some(settling)))
    }
}

/// Who is told of what comes before the answer.
struct Early<'e> {
    exchange: &'e Exchange,
    hints: &'e Hints,
}

impl Early<'_> {
    fn pass(&self, cx: &Context<'_>) {
        let links = self.exchange.early(cx.waker());
        if !links.is_empty() {
            self.hints.pass(&links);
        }
    }
}

impl Drop for Early<'_> {
    fn drop(&mut self) {
        self.exchange.forget_early();
    }
}

/// Waits for an answer, as long as `patience` allows.
async fn answer<B>(
    sending: impl Future<Output = Result<Response<Incoming>, TrySendError<Request<B>>>>,
    early: Option<Early<'_>>,
    alarm: &mut Alarm,
    patience: &mut impl FnMut(&mut Alarm, &mut Context<'_>) -> Poll<Error>,
) -> Result<Result<Response<Incoming>, TrySendError<Request<B>>>, Error> {
    let mut sending = pin!(sending);
    poll_fn(|cx| {
        // First, as the answer may have come in the same moment.
        if let Some(early) = &early {
            early.pass(cx);
        }
        match sending.as_mut().poll(cx) {
            Poll::Ready(result) => Poll::Ready(Ok(result)),
            Poll::Pending => patience(alarm, cx).map(Err),
        }
    })
    .await
}

enum Waited<B> {
    Held(Held<B>),
    Slot(OwnedSemaphorePermit),
}

/// Counts who waits, however the wait ends.
struct Waiting<'u>(&'u Upstream);

impl<'u> Waiting<'u> {
    fn new(upstream: &'u Upstream) -> Self {
        upstream.waiting.fetch_add(1, Ordering::Relaxed);
        Self(upstream)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn handshake<I, B>(io: I, permit: OwnedSemaphorePermit) -> Result<Connection<B>, Error>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    B: Body<Data = Bytes> + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut builder = http1::Builder::new();
    builder.max_buf_size(HEAD_BYTES);
    let exchange = Arc::new(Exchange::default());
    let io = TokioIo::new(Strict::new(io, exchange.clone()));
    let (sender, connection) = builder.handshake(io).await.map_err(|error| failure::exchange(&error))?;
    let task = tokio::task::spawn_local(async move {
        let _permit = permit;
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!("an upstream connection ended: {error}");
        }
    });
    let now = Instant::now();
    Ok(Connection { sender, task: task.abort_handle(), exchange, born: now, rested: now, alarm: Alarm::default() })
}

/// A request once more, where nothing of its body is lost by sending it.
struct Copy<B>(Request<B>);

impl<B> Copy<B> {
    /// Whether it may be sent although the upstream may have acted on it (RFC 9110 section 9.2.1).
    fn is_safe(&self) -> bool {
        matches!(*self.0.method(), Method::GET | Method::HEAD | Method::OPTIONS)
    }
}

fn copy<B: Body + Default>(request: &Request<B>) -> Option<Copy<B>> {
    if !request.body().is_end_stream() {
        return None;
    }
    let mut copy = Request::new(B::default());
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    *copy.extensions_mut() = request.extensions().clone();
    Some(Copy(copy))
}
