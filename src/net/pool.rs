//! Connections to upstreams: a pool of its own on each core, last in first out, with one bound per upstream over all
//! cores. What it resends unseen is ruling D19 and no more.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::task::AbortHandle;

use super::dial::{self, Connected};
use super::strict::{Exchange, HEAD_BYTES, Strict};
use super::{failure, tls};
use crate::body::Alarm;
use crate::call::Finish;
use crate::error::{Breach, Error};
use crate::net::Origin;
use crate::tree::{Fields, Node, Problems, Value};

/// How often idle connections are looked through.
const SWEEP: Duration = Duration::from_secs(1);
/// How often a request that was handed back unsent is tried on another connection.
const UNSENT_MAX: u32 = 4;

/// What `http` of a resource says.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Most connections over all cores.
    pub max_connections: usize,
    /// Most idle connections on one core.
    pub max_idle: usize,
    /// Longest time that a connection idles.
    pub idle: Duration,
    /// Longest life of a connection.
    pub max_age: Duration,
}

impl Config {
    /// Reads `http` of a resource; without it the defaults hold. `https` says how the upstream is reached.
    pub fn read(node: Option<&Node>, https: bool, problems: &Problems) -> Option<Self> {
        let default = Self { max_connections: 128, max_idle: 64, idle: Duration::from_secs(60), max_age: Duration::from_secs(600) };
        let Some(node) = node else { return Some(default) };
        let fields = Fields::of(node, "a map of HTTP settings", problems)?;
        if let Some(node) = fields.node("versions") {
            versions(node, https, problems);
        }
        let count = |n: u64| usize::try_from(n).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        let config = Self {
            max_connections: count(fields.count("max_connections", 128, 1)),
            max_idle: count(fields.count("max_idle", 64, 0)),
            idle: fields.duration("idle", default.idle),
            max_age: fields.duration("max_age", default.max_age),
        };
        fields.finish();
        Some(config)
    }
}

/// HTTP/1.1 is all that this build speaks. With TLS a list that names 2 would be a promise that it cannot keep; without,
/// 1.1 is used whenever both are named (ruling C20).
fn versions(node: &Node, https: bool, problems: &Problems) {
    let words: Vec<&str> = node.items().iter().filter_map(Node::word).collect();
    if words.is_empty()
        || matches!(node.value, Value::Map(_))
        || words.len() != node.items().len()
        || words.iter().any(|w| !["1.1", "2"].contains(w))
    {
        problems.error(node.place, "`versions` is a list of 1.1 and 2", "versions: [1.1]");
    } else if !words.contains(&"1.1") || (https && words.contains(&"2")) {
        problems.error(node.place, "HTTP/2 to upstreams is not built into this version", "versions: [1.1]");
    }
}

/// An upstream as all cores see it.
#[derive(Debug)]
pub struct Upstream {
    id: u64,
    origin: Origin,
    tls: Option<tls::Config>,
    config: Config,
    connect: Duration,
    queue: Duration,
    slots: Arc<Semaphore>,
    /// Who waits for a slot, over all cores: while someone does, no connection idles.
    waiting: AtomicUsize,
    freed: Notify,
    /// No resource leads here any more: what is in use ends, and nothing idles.
    retired: AtomicBool,
}

impl Upstream {
    /// An upstream with its bounds. `connect` and `queue` are the resource's timeouts of these names.
    pub fn new(origin: Origin, tls: Option<tls::Config>, config: Config, connect: Duration, queue: Duration) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let slots = Arc::new(Semaphore::new(config.max_connections));
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        Self {
            id,
            origin,
            tls,
            config,
            connect,
            queue,
            slots,
            waiting: AtomicUsize::new(0),
            freed: Notify::new(),
            retired: AtomicBool::new(false),
        }
    }

    /// No resource leads here any more. Its idle connections are closed within a second; those in use serve their call to
    /// its end and are closed then.
    pub fn retire(&self) {
        self.retired.store(true, Ordering::Relaxed);
    }

    /// Where it is.
    pub fn origin(&self) -> &Origin {
        &self.origin
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
    idle: RefCell<HashMap<u64, Shelf<B>>>,
    /// How many idle connections there are, so that a sweep with nothing to do costs nothing.
    count: Cell<usize>,
    /// The time of the last sweep. Ages are told by it: to the second is enough, and asking the clock for each request is not free.
    swept: Cell<Instant>,
}

#[derive(Debug)]
struct Shelf<B> {
    upstream: Arc<Upstream>,
    connections: Vec<Connection<B>>,
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

/// A connection that is being used. Dropped without [`Lease::done`] it is cut, so that the upstream sees that nobody
/// wants its answer any more.
#[derive(Debug)]
pub struct Lease<B> {
    pool: Pool<B>,
    upstream: Arc<Upstream>,
    connection: Option<Connection<B>>,
}

impl<B> Lease<B> {
    /// The answer has been read to its end: the connection may serve another.
    pub fn done(mut self) {
        if let Some(connection) = self.connection.take() {
            self.pool.put(&self.upstream, connection);
        }
    }

    /// The connection has switched protocols, and ends with the tunnel.
    pub fn switched(mut self) {
        self.connection = None;
    }
}

impl<B> Drop for Lease<B> {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            connection.task.abort();
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
        let shelf = idle.entry(upstream.id).or_insert_with(|| Shelf { upstream: upstream.clone(), connections: Vec::new() });
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
            shelf.connections.retain(|c| {
                !retired
                    && !c.sender.is_closed()
                    && now.duration_since(c.rested) < config.idle
                    && now.duration_since(c.born) < config.max_age
            });
            if shelf.upstream.waiting.load(Ordering::Relaxed) > 0 && !shelf.connections.is_empty() {
                shelf.connections.remove(0);
            }
            left += shelf.connections.len();
            !shelf.connections.is_empty()
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
    /// Sends a request and waits for the head of the answer. A request that no byte of was sent goes out again on
    /// another connection; one that died on a reused connection before any byte of an answer does so once, if it is
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
        stats: &mut Stats,
        mut patience: impl FnMut(&mut Alarm, &mut Context<'_>) -> Poll<Error>,
    ) -> Result<(Response<Incoming>, Lease<B>), Error> {
        let mut unsent = 0;
        loop {
            // Boxed, because every call's future would otherwise have to have room for a dial.
            let (connection, reused) = match self.ready(upstream) {
                Some(connection) => (connection, true),
                None => Box::pin(self.connection(upstream, stats)).await?,
            };
            let mut lease = Lease { pool: self.clone(), upstream: upstream.clone(), connection: Some(connection) };
            if let Some(finish) = &mut finish {
                finish.apply(request.headers_mut());
            }
            let again = if reused { copy(&request) } else { None };
            let Some(connection) = &mut lease.connection else { return Err(Error::Internal("a lease without a connection".into())) };
            connection.exchange.begin(request.method(), request.headers());
            let mut sending = pin!(connection.sender.try_send_request(request));
            let alarm = &mut connection.alarm;
            let result = poll_fn(|cx| match sending.as_mut().poll(cx) {
                Poll::Ready(result) => Poll::Ready(Ok(result)),
                Poll::Pending => patience(alarm, cx).map(Err),
            });
            let result = match result.await {
                Ok(result) => result,
                Err(error) => {
                    stats.attempts += 1;
                    return Err(error);
                }
            };
            let mut failed = match result {
                Ok(response) => {
                    stats.attempts += 1;
                    return Ok((response, lease));
                }
                Err(failed) => failed,
            };
            match failed.take_message() {
                Some(message) if unsent < UNSENT_MAX => {
                    unsent += 1;
                    request = message;
                }
                Some(_) => return Err(Error::Protocol(Breach::Closed)),
                None => {
                    stats.attempts += 1;
                    let error = failure::exchange(failed.error());
                    match again.filter(|_| matches!(error, Error::Protocol(Breach::Closed | Breach::Reset))) {
                        // The next connection is a new one, so this happens once.
                        Some(copy) => {
                            request = copy;
                            self.0
                                .idle
                                .borrow_mut()
                                .remove(&upstream.id)
                                .into_iter()
                                .for_each(|s| self.0.count.set(self.0.count.get() - s.connections.len()));
                        }
                        None => return Err(error),
                    }
                }
            }
        }
    }

    /// An idle connection that is ready, of which most calls find one at once.
    fn ready(&self, upstream: &Upstream) -> Option<Connection<B>> {
        let connection = self.take(upstream)?;
        // Its age is looked at when it is put back, and by the sweep.
        if connection.sender.is_ready() && connection.exchange.reusable() {
            return Some(connection);
        }
        if !connection.sender.is_closed() && connection.exchange.reusable() {
            // Not ready yet: whoever looks closer finds it where it was.
            self.give_back(upstream, connection);
        }
        None
    }

    /// A connection that is ready: an idle one, a new one, or whichever comes first when the bound is reached.
    async fn connection(&self, upstream: &Arc<Upstream>, stats: &mut Stats) -> Result<(Connection<B>, bool), Error> {
        while let Some(mut connection) = self.take(upstream) {
            let ready = connection.sender.is_ready() || (!connection.sender.is_closed() && connection.sender.ready().await.is_ok());
            if ready && connection.exchange.reusable() && connection.born.elapsed() < upstream.config.max_age {
                return Ok((connection, true));
            }
        }
        let permit = match upstream.slots.clone().try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => match self.wait(upstream, stats).await? {
                Waited::Idle(connection) => return Ok((*connection, true)),
                Waited::Slot(permit) => permit,
            },
        };
        let began = Instant::now();
        let connection = self.open(upstream, permit).await;
        stats.connect += began.elapsed();
        Ok((connection?, false))
    }

    async fn wait(&self, upstream: &Arc<Upstream>, stats: &mut Stats) -> Result<Waited<B>, Error> {
        let began = Instant::now();
        let _waiting = Waiting::new(upstream);
        let waited = tokio::time::timeout(upstream.queue, async {
            loop {
                let freed = upstream.freed.notified();
                if let Some(connection) = self.take(upstream).filter(|c| !c.sender.is_closed()) {
                    return Waited::Idle(Box::new(connection));
                }
                tokio::select! {
                    permit = upstream.slots.clone().acquire_owned() => if let Ok(permit) = permit { return Waited::Slot(permit) },
                    () = freed => {}
                }
            }
        });
        let result = waited.await;
        stats.queue += began.elapsed();
        let mut waited = result.map_err(|_| Error::Overloaded("http.max_connections of this resource".into()))?;
        if let Waited::Idle(connection) = &mut waited
            && connection.sender.ready().await.is_err()
        {
            return Err(Error::Protocol(Breach::Closed));
        }
        Ok(waited)
    }

    /// Dials in a task of its own: if the caller leaves meanwhile, the connection goes to the pool.
    async fn open(&self, upstream: &Arc<Upstream>, permit: OwnedSemaphorePermit) -> Result<Connection<B>, Error> {
        let (pool, upstream) = (self.clone(), upstream.clone());
        let (give, given) = tokio::sync::oneshot::channel();
        tokio::task::spawn_local(async move {
            let opened = match dial::dial(&upstream.origin, upstream.tls.as_ref(), upstream.connect).await {
                Ok(Connected::Plain(stream)) => handshake(stream, permit).await,
                Ok(Connected::Tls(stream)) => handshake(stream, permit).await,
                Err(error) => Err(error),
            };
            if let Err(Ok(connection)) = give.send(opened) {
                pool.put(&upstream, connection);
            }
        });
        given.await.unwrap_or(Err(Error::Protocol(Breach::Closed)))
    }
}

enum Waited<B> {
    Idle(Box<Connection<B>>),
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

/// A copy of a request that may be sent twice: safe, and without a body.
fn copy<B: Body + Default>(request: &Request<B>) -> Option<Request<B>> {
    let safe = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    if !safe || !request.body().is_end_stream() {
        return None;
    }
    let mut copy = Request::new(B::default());
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    *copy.extensions_mut() = request.extensions().clone();
    Some(copy)
}
