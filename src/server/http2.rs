//! One HTTP/2 connection of a client: the filter, hyper, and the gateway behind it. What hyper's library bounds by itself
//! is set here; what it does not bound is bounded by the filter (`frames.rs`), by [`watched`] and by the clocks below.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};

use super::connection::Serving;
use super::edge::{DRAIN_QUIET, Limits};
use super::frames::{self, Frames, Seen};
use super::request;
use crate::body::Alarm;
use crate::error::Error;
use crate::middleware::audit::{Closing, Ending};
use crate::middleware::pinned;
use crate::stack::Arrival;

/// Most requests at a time on one connection.
pub const STREAMS_MAX: u32 = 256;
/// What a client may send of one body before the upstream takes it.
pub const STREAM_WINDOW: u32 = 256 * 1024;
/// The same over all bodies of a connection.
pub const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// What is kept of one answer for a client that does not take it.
pub const SEND_BUFFER: usize = 64 * 1024;
/// Streams that may be reset before they were looked at (rapid reset, CVE-2023-44487).
pub const RESET_UNSEEN_MAX: usize = 64;
/// Streams that the library may reset for the client's mistakes in the life of a connection.
pub const RESET_ERRORS_MAX: usize = 1024;
/// How long a client may leave a PING unanswered.
const PONG_PATIENCE: Duration = Duration::from_secs(20);
/// How fast a client takes an answer at the very least, on top of the time that it may not take anything.
const LEAST_RATE: u64 = 1024;

/// Serves one connection to its end; `begun` are its first bytes, where they have been read already.
pub async fn serve<I>(io: I, begun: Vec<u8>, serving: Serving)
where
    I: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let Serving { peer, limits, gateway, connected, metrics } = serving;
    let seen = Rc::<Seen>::default();
    let live = Arc::<Live>::default();
    let streams = Streams { stall: limits.stall, next: Rc::default() };
    let io = Frames::new(io, begun, frames::Limits { header: limits.header, stall: limits.stall }, seen.clone());
    let service = {
        let (live, next) = (live.clone(), streams.next.clone());
        service_fn(move |mut request: http::Request<Incoming>| {
            let refusal = request::judge(&mut request, limits.bounds).err();
            let arrival = Arrival { request, peer: peer.clone(), refusal, ending: live.clone(), hints: None };
            let gateway = gateway.clone();
            let sent = Rc::<Sent>::default();
            next.replace(Some(sent.clone()));
            let live = live.clone();
            pinned(move || async move {
                live.begin();
                let response = gateway.answer(arrival).await;
                Ok::<_, Infallible>(response.map(|body| Told { body, sent }))
            })
        })
    };
    let mut connection = pin!(builder(&limits, streams).serve_connection(TokioIo::new(io), service));
    let mut clock = Clock::new(&live, limits.idle);
    let mut place = None;
    let ended = poll_fn(|cx| {
        place.get_or_insert_with(|| connected.enter(None, cx.waker().clone()));
        loop {
            if connected.draining() {
                clock.leave();
            }
            if clock.leaving.is_some() {
                connection.as_mut().graceful_shutdown();
            }
            if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
                return Poll::Ready(ended);
            }
            match ready!(clock.poll(cx)) {
                Step::Leave => clock.leave(),
                Step::Cut => return Poll::Ready(Ok(())),
            }
        }
    });
    let ended = ended.await;
    // What the library has answered by itself, or was left by the client before anyone looked at it (ruling B6).
    metrics.http2_unserved(seen.opened.get().saturating_sub(live.served.load(Ordering::Relaxed)));
    if let Some(why) = seen.broken.get() {
        metrics.http2_broken();
        tracing::debug!("an HTTP/2 connection was ended: {why}");
    } else if let Err(error) = ended {
        metrics.http2_broken();
        tracing::debug!("an HTTP/2 connection ended: {error}");
    }
}

fn builder(limits: &Limits, streams: Streams) -> http2::Builder<Streams> {
    let mut builder = http2::Builder::new(streams);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .max_pending_accept_reset_streams(RESET_UNSEEN_MAX)
        .max_local_error_reset_streams(RESET_ERRORS_MAX)
        // Twice what is accepted: so much is still answered like over HTTP/1.1, by `request.rs`; the library's own 431
        // has neither a body nor a record.
        .max_header_list_size(u32::try_from(limits.bounds.bytes * 2).unwrap_or(u32::MAX))
        .keep_alive_interval(limits.stall)
        .keep_alive_timeout(PONG_PATIENCE);
    builder
}

/// What is under way on a connection.
#[derive(Debug)]
struct Live {
    born: Instant,
    open: AtomicUsize,
    served: AtomicU64,
    /// When the last exchange ended, in microseconds since `born`.
    ended: AtomicU64,
}

impl Default for Live {
    fn default() -> Self {
        Self { born: Instant::now(), open: AtomicUsize::new(0), served: AtomicU64::new(0), ended: AtomicU64::new(0) }
    }
}

impl Live {
    fn begin(&self) {
        self.open.fetch_add(1, Ordering::Relaxed);
        self.served.fetch_add(1, Ordering::Relaxed);
    }

    fn is_quiet(&self) -> bool {
        self.open.load(Ordering::Relaxed) == 0
    }

    fn quiet_since(&self) -> Instant {
        self.born + Duration::from_micros(self.ended.load(Ordering::Relaxed))
    }
}

impl Ending for Live {
    fn ended(&self) {
        if self.open.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.ended.store(u64::try_from(self.born.elapsed().as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
    }
}

/// How long a connection may rest. It says goodbye first, and is cut a moment later.
struct Clock<'l> {
    live: &'l Live,
    idle: Duration,
    /// Since when no new request is wanted.
    leaving: Option<Instant>,
    alarm: Alarm,
}

enum Step {
    Leave,
    Cut,
}

impl<'l> Clock<'l> {
    fn new(live: &'l Live, idle: Duration) -> Self {
        Self { live, idle, leaving: None, alarm: Alarm::default() }
    }

    fn leave(&mut self) {
        self.leaving.get_or_insert_with(Instant::now);
    }

    /// While requests are under way their own clocks run.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Step> {
        if !self.live.is_quiet() {
            return Poll::Pending;
        }
        let quiet = self.live.quiet_since();
        match self.leaving {
            None => self.alarm.poll(quiet + self.idle, cx).map(|()| Step::Leave),
            Some(since) => self.alarm.poll(quiet.max(since) + DRAIN_QUIET, cx).map(|()| Step::Cut),
        }
    }
}

/// What has been handed to hyper of one answer, and whether it has come back for more.
#[derive(Debug, Default)]
struct Sent {
    pieces: Cell<u64>,
    /// Size of the piece that hyper has and the client has not taken.
    held: Cell<Option<usize>>,
}

/// The answer's body, which tells how far it has gone.
struct Told {
    body: Closing,
    sent: Rc<Sent>,
}

impl Body for Told {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        self.sent.held.set(None);
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            self.sent.pieces.set(self.sent.pieces.get() + 1);
            self.sent.held.set(Some(data.len()));
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Runs the streams of one connection as tasks of this core.
#[derive(Clone)]
struct Streams {
    stall: Duration,
    /// What the service has just made, for the task that hyper spawns next.
    next: Rc<RefCell<Option<Rc<Sent>>>>,
}

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for Streams {
    fn execute(&self, stream: F) {
        tokio::task::spawn_local(watched(stream, self.next.take().unwrap_or_default(), self.stall));
    }
}

/// Runs a stream, and gives it up once its client does not take the answer: a window that stays shut would hold it for
/// ever. Dropped, it is reset.
async fn watched(stream: impl Future<Output = ()>, sent: Rc<Sent>, stall: Duration) {
    let mut stream = pin!(stream);
    let mut alarm = Alarm::default();
    let (mut piece, mut since) = (0, None);
    poll_fn(|cx| {
        if stream.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let Some(held) = sent.held.get() else { return Poll::Pending };
        if piece != sent.pieces.get() {
            (piece, since) = (sent.pieces.get(), None);
        }
        let since: Instant = *since.get_or_insert_with(Instant::now);
        let slow = Duration::from_millis((held as u64).saturating_mul(1000) / LEAST_RATE);
        alarm.poll(since + stall + slow, cx)
    })
    .await;
}
