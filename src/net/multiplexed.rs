//! An HTTP/2 connection to an upstream (RFC 9113), shared by the calls of one core. It takes as many at a time as the
//! upstream lets it, and never more: what hyper queues behind that limit would wait although another connection is free.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::rc::{Rc, Weak};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use http::header::{EXPECT, HOST};
use http::uri::{Authority, PathAndQuery, Scheme};
use http_body::Body;
use hyper::client::conn::http2::{self, SendRequest};
use hyper::rt::{Executor, Read, Write};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{Notify, OwnedSemaphorePermit};
use tokio::task::spawn_local;

use super::failure;
use super::wire::poll_write_pieces;
use crate::body::{Alarm, Gate};
use crate::error::Error;

/// Most calls at a time on one connection, whatever the upstream allows.
pub const STREAMS_MAX: usize = 128;
/// What an upstream may send of one answer before the client takes it.
pub const STREAM_WINDOW: u32 = 256 * 1024;
/// The same over all answers of a connection: room for every stream's window, so that slow clients hold up nobody else.
pub const CONNECTION_WINDOW: u32 = STREAM_WINDOW * STREAMS_MAX as u32;
/// What is kept of one request's body for an upstream that does not take it.
const SEND_BUFFER: usize = 256 * 1024;
/// Largest head of an answer.
const HEAD_BYTES: u32 = 256 * 1024;
/// After so much silence under a call the upstream is asked whether it is still there …
const PING_EVERY: Duration = Duration::from_secs(30);
/// … and has so long to answer.
const PONG_PATIENCE: Duration = Duration::from_secs(10);
/// How many calls hyper would take before the upstream's SETTINGS: a number that no upstream says, so that it tells
/// whether they have arrived. Until then there is one.
const UNSETTLED: usize = 3_000_017;
/// Alarms that are kept for later calls.
const ALARMS_MAX: usize = STREAMS_MAX;

/// A connection and the calls on it.
pub struct Shared<B> {
    sender: RefCell<SendRequest<B>>,
    streams: Cell<usize>,
    /// How many calls the upstream takes at a time, as it says now.
    limit: Box<dyn Fn() -> usize>,
    /// When it was made.
    pub born: Instant,
    /// When its last call ended.
    rested: Cell<Instant>,
    /// Kept, so that timers are made once and not for each call.
    alarms: RefCell<Vec<Alarm>>,
}

impl<B> std::fmt::Debug for Shared<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("streams", &self.streams.get()).finish_non_exhaustive()
    }
}

impl<B> Shared<B> {
    /// Whether it takes no more calls.
    pub fn is_closed(&self) -> bool {
        self.sender.borrow().is_closed()
    }

    /// Since when no call is on it; `None` while there is one.
    pub fn idle_since(&self) -> Option<Instant> {
        (self.streams.get() == 0).then(|| self.rested.get())
    }

    /// A place for one more call, if there is one.
    pub fn place(self: &Rc<Self>) -> Option<Place<B>> {
        let taken = self.streams.get();
        if taken >= STREAMS_MAX || self.is_closed() || taken >= (self.limit)() {
            return None;
        }
        self.streams.set(taken + 1);
        let alarm = self.alarms.borrow_mut().pop().unwrap_or_default();
        Some(Place { shared: self.clone(), alarm })
    }
}

/// A call's place on a shared connection, given back when it is dropped. What was not read of the answer by then is
/// cancelled on the wire.
#[derive(Debug)]
pub struct Place<B> {
    shared: Rc<Shared<B>>,
    /// For the wait until there is an answer.
    pub alarm: Alarm,
}

impl<B> Place<B> {
    /// Whether other calls have been on the connection before.
    pub fn is_reused(&self) -> bool {
        self.shared.rested.get() > self.shared.born
    }
}

impl<B: Body + 'static> Place<B> {
    /// Sends a request that [`dress`] has made ready.
    pub fn send(
        &self,
        request: Request<B>,
    ) -> impl Future<Output = Result<http::Response<hyper::body::Incoming>, hyper::client::conn::TrySendError<Request<B>>>> + use<B> {
        self.shared.sender.borrow_mut().try_send_request(request)
    }
}

impl<B> Drop for Place<B> {
    fn drop(&mut self) {
        let shared = &self.shared;
        shared.streams.set(shared.streams.get() - 1);
        shared.rested.set(Instant::now());
        let mut alarms = shared.alarms.borrow_mut();
        if alarms.len() < ALARMS_MAX {
            alarms.push(std::mem::take(&mut self.alarm));
        }
    }
}

/// The wait for the upstream's first SETTINGS, which say how many calls it takes.
#[derive(Debug, Default)]
pub struct Settling {
    settled: Cell<bool>,
    news: Notify,
}

impl Settling {
    /// Resolves once the upstream has said how many calls it takes, or the connection is over.
    pub async fn settled(&self) {
        while !self.settled.get() {
            self.news.notified().await;
        }
    }

    fn settle(&self) {
        if !self.settled.replace(true) {
            self.news.notify_waiters();
        }
    }
}

/// Begins HTTP/2 on a connection. `slot` is the connection's own, and goes when the socket goes.
///
/// # Errors
/// If not even the preface can be sent.
pub async fn handshake<I, B>(io: I, slot: OwnedSemaphorePermit) -> Result<(Rc<Shared<B>>, Rc<Settling>), Error>
where
    I: AsyncRead + AsyncWrite + Unpin + 'static,
    B: Body<Data = Bytes> + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let settling = Rc::<Settling>::default();
    let tasks = Tasks(Rc::default());
    let mut builder = http2::Builder::new(tasks.clone());
    builder
        .timer(TokioTimer::new())
        // One call goes out at once; the others wait until the upstream has said how many it takes.
        .initial_max_send_streams(UNSETTLED)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .max_header_list_size(HEAD_BYTES)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PONG_PATIENCE);
    let (sender, connection) =
        builder.handshake(TokioIo::new(Wire { io, _slot: slot })).await.map_err(|error| failure::exchange(&error))?;
    let connection = Rc::new(RefCell::new(connection));
    // What hyper runs besides sees the SETTINGS arrive; it must not keep alive what keeps it.
    let watched = (Rc::downgrade(&connection), settling.clone());
    *tasks.0.borrow_mut() = Some(Box::new(move || {
        let known = watched.0.upgrade().is_none_or(|c| c.try_borrow().is_ok_and(|c| c.current_max_send_streams() != UNSETTLED));
        if known {
            watched.1.settle();
        }
        known
    }));
    let (running, ended) = (connection.clone(), settling.clone());
    spawn_local(async move {
        let result = poll_fn(|cx| Pin::new(&mut *running.borrow_mut()).poll(cx)).await;
        ended.settle();
        if let Err(error) = result {
            tracing::debug!("an upstream's HTTP/2 connection ended: {error}");
        }
    });
    let now = Instant::now();
    let limit: Weak<RefCell<_>> = Rc::downgrade(&connection);
    let shared = Shared {
        sender: RefCell::new(sender),
        streams: Cell::new(0),
        limit: Box::new(move || limit_of(&limit)),
        born: now,
        rested: Cell::new(now),
        alarms: RefCell::default(),
    };
    Ok((Rc::new(shared), settling))
}

fn limit_of<T, B>(connection: &Weak<RefCell<http2::Connection<T, B, Tasks>>>) -> usize
where
    T: Read + Write + Unpin + 'static,
    B: Body<Data = Bytes> + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let limit = connection.upgrade().map_or(0, |c| c.try_borrow().map_or(1, |c| c.current_max_send_streams()));
    if limit == UNSETTLED { 1 } else { limit }
}

type Look = Box<dyn Fn() -> bool>;

/// Runs what belongs to a connection as tasks of this core, and looks after each step until the upstream's SETTINGS
/// have arrived.
#[derive(Clone)]
struct Tasks(Rc<RefCell<Option<Look>>>);

impl Tasks {
    fn look(&self) {
        let known = self.0.borrow().as_ref().is_some_and(|look| look());
        if known {
            *self.0.borrow_mut() = None;
        }
    }
}

impl<F: Future<Output = ()> + 'static> Executor<F> for Tasks {
    fn execute(&self, task: F) {
        let tasks = self.clone();
        spawn_local(async move {
            let mut task = pin!(task);
            poll_fn(|cx| {
                let polled = task.as_mut().poll(cx);
                tasks.look();
                polled
            })
            .await;
        });
    }
}

/// A socket with its slot under `http.max_connections`: hyper's tasks own it, and it counts until they let it go. Few
/// small pieces are written as one.
struct Wire<I> {
    io: I,
    _slot: OwnedSemaphorePermit,
}

impl<I: AsyncRead + Unpin> AsyncRead for Wire<I> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Wire<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, pieces: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        poll_write_pieces(&mut self.io, cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// Gives a request the form of HTTP/2: `:scheme` and `:authority` in place of `Host`. Nobody says 100 over HTTP/2
/// (ruling H10), so a body that waits for it goes out.
pub fn dress<B>(request: &mut Request<B>, scheme: &Scheme, authority: Option<&Authority>) {
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(scheme.clone());
    parts.authority = authority.cloned();
    parts.path_and_query = Some(target(request));
    if let Ok(uri) = http::Uri::from_parts(parts) {
        *request.uri_mut() = uri;
    }
    request.headers_mut().remove(HOST);
    if request.headers_mut().remove(EXPECT).is_some()
        && let Some(gate) = request.extensions().get::<Gate>()
    {
        gate.open();
    }
}

/// Takes the form of HTTP/2 off again, where a request goes out over HTTP/1.1 after all.
pub fn undress<B>(request: &mut Request<B>, authority: &http::HeaderValue) {
    if request.uri().scheme().is_none() {
        return;
    }
    *request.uri_mut() = target(request).into();
    request.headers_mut().insert(HOST, authority.clone());
}

fn target<B>(request: &Request<B>) -> PathAndQuery {
    request.uri().path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"))
}
