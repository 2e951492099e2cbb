//! Bodies in both directions: empty, buffered, or streaming under limits. Nothing here holds a body whole, except
//! [`collect`], [`begin`] and [`Kept`], which are bounded; [`spool()`] holds it on disk.

mod kept;
mod spool;

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use crate::error::Error;
use crate::record::OpenRecord;
use crate::trailers::{self, Screen};
pub use kept::{Kept, Spare};
pub use spool::spool;

/// What of a body that nobody wants is read, so that its connection can be used again.
const DRAIN_BYTES: usize = 64 * 1024;
/// How long that may take.
const DRAIN_TIME: Duration = Duration::from_secs(1);

/// A body of either direction.
#[derive(Debug, Default)]
pub enum Body {
    /// No body.
    #[default]
    Empty,
    /// All of it at hand.
    Full(Bytes),
    /// A client's body as it arrives, under the limits of the request.
    Inbound(Box<Inbound>),
    /// One that may be sent a second time.
    Kept(Kept),
    /// An upstream's body as it arrives; the box is whatever the sender wraps it in.
    Stream(Pin<Box<dyn Streamed>>),
}

impl Body {
    /// Holds a client's body back until the gate opens; `None` where it is no client's, or at hand already.
    pub fn gate(&mut self) -> Option<Gate> {
        match self {
            Self::Inbound(inbound) => Some(inbound.gate()),
            Self::Kept(kept) => kept.gate(),
            _ => None,
        }
    }
}

/// Any other body: an upstream's under its limits, a step's wrapping.
pub trait Streamed: http_body::Body<Data = Bytes, Error = Error> + std::fmt::Debug {}

impl<B: http_body::Body<Data = Bytes, Error = Error> + std::fmt::Debug> Streamed for B {}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Full(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Full(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Inbound(inbound) => Pin::new(&mut **inbound).poll_frame(cx),
            Self::Kept(kept) => Pin::new(kept).poll_frame(cx),
            Self::Stream(stream) => stream.as_mut().poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Full(bytes) => bytes.is_empty(),
            Self::Inbound(inbound) => inbound.is_end_stream(),
            Self::Kept(kept) => kept.is_end_stream(),
            Self::Stream(stream) => stream.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Inbound(inbound) => inbound.size_hint(),
            Self::Kept(kept) => kept.size_hint(),
            Self::Stream(stream) => stream.size_hint(),
        }
    }
}

/// Reads a body whole.
///
/// # Errors
/// [`Error::BodyTooLarge`] beyond `limit` bytes, or what the body itself fails with. Trailers are dropped.
pub async fn collect(mut body: Body, limit: u64, name: &'static str) -> Result<Bytes, Error> {
    let too_large = || Error::BodyTooLarge(limit, name.into());
    if let Body::Full(bytes) = body {
        return if bytes.len() as u64 > limit { Err(too_large()) } else { Ok(bytes) };
    }
    if http_body::Body::size_hint(&body).lower() > limit {
        return Err(too_large());
    }
    let mut all = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        if all.len() as u64 + data.len() as u64 > limit {
            return Err(too_large());
        }
        all.extend_from_slice(&data);
    }
    Ok(all.freeze())
}

/// The beginning of a body.
#[derive(Debug)]
pub enum Begun {
    /// All of it.
    Whole(Bytes),
    /// It is longer than the limit, or slower than whoever waits for it: what was read stands in front again.
    Longer(Body),
}

/// Reads a body to its end, or until more than `limit` bytes have come.
///
/// # Errors
/// What the body itself fails with. Trailers are dropped.
pub async fn begin(body: Body, limit: u64) -> Result<Begun, Error> {
    begin_by(body, limit, None).await
}

/// The same, which waits no longer than `patience`: an answer without an end is not held back.
///
/// # Errors
/// As [`begin`].
pub async fn begin_within(body: Body, limit: u64, patience: Duration) -> Result<Begun, Error> {
    begin_by(body, limit, Some(tokio::time::Instant::now() + patience)).await
}

async fn begin_by(mut body: Body, limit: u64, deadline: Option<tokio::time::Instant>) -> Result<Begun, Error> {
    if let Body::Full(bytes) = &body
        && bytes.len() as u64 <= limit
    {
        return Ok(Begun::Whole(bytes.clone()));
    }
    if http_body::Body::size_hint(&body).lower() > limit {
        return Ok(Begun::Longer(body));
    }
    let (mut read, mut size) = (kept::Pieces::default(), 0u64);
    loop {
        let frame = match deadline {
            None => body.frame().await,
            Some(deadline) => match tokio::time::timeout_at(deadline, body.frame()).await {
                Ok(frame) => frame,
                Err(_) => return Ok(Begun::Longer(kept::again(read.into_queue(), body))),
            },
        };
        let Some(frame) = frame else { break };
        let Ok(data) = frame?.into_data() else { continue };
        size += data.len() as u64;
        read.push(data);
        if size > limit {
            return Ok(Begun::Longer(kept::again(read.into_queue(), body)));
        }
    }
    let mut read = read.into_queue();
    if let [_] = read.make_contiguous() {
        return Ok(Begun::Whole(read.pop_front().unwrap_or_default()));
    }
    let mut all = BytesMut::with_capacity(usize::try_from(size).unwrap_or(0));
    read.iter().for_each(|piece| all.extend_from_slice(piece));
    Ok(Begun::Whole(all.freeze()))
}

/// Reads a body to its end, within bounds, so that its connection can be used again; more is cut off.
pub async fn drain(mut body: Body) {
    let reading = async {
        let mut left = DRAIN_BYTES;
        while let Some(Ok(frame)) = body.frame().await {
            left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
            if left == 0 {
                break;
            }
        }
    };
    let _ = tokio::time::timeout(DRAIN_TIME, reading).await;
}

/// A deadline that costs a timer only once somebody really waits for it.
#[derive(Debug, Default)]
pub struct Alarm {
    sleep: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl Alarm {
    /// Ready once `deadline` has passed. A timer set for an earlier deadline is left to fire and set again, so that
    /// moving the deadline with every piece of a body is free.
    pub fn poll(&mut self, deadline: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let deadline = tokio::time::Instant::from_std(deadline);
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if sleep.deadline() > deadline {
            sleep.as_mut().reset(deadline);
        }
        loop {
            ready!(sleep.as_mut().poll(cx));
            if sleep.deadline() >= deadline {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(deadline);
        }
    }
}

/// How fast and how large a client's body must and may be.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Longest silence (`server.timeouts.body_idle`).
    pub idle: Duration,
    /// Least bytes a second on average, counted while the gateway waits for the client (`min_body_rate`); zero is off.
    pub rate: u64,
    /// Waiting that is free before the rate counts (`min_body_rate_grace`).
    pub grace: Duration,
}

/// What holds a client's body back until the upstream wants it (`Expect: 100-continue`, ruling D11).
#[derive(Clone, Debug, Default)]
pub struct Gate(Arc<Mutex<Gated>>);

#[derive(Debug, Default)]
struct Gated {
    open: bool,
    waiter: Option<std::task::Waker>,
}

impl Gate {
    /// Lets the body through.
    pub fn open(&self) {
        let mut gated = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        gated.open = true;
        if let Some(waiter) = gated.waiter.take() {
            waiter.wake();
        }
    }

    fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut gated = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if gated.open {
            return Poll::Ready(());
        }
        gated.waiter = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// A client's body under its limits. Counts into the audit record.
#[derive(Debug)]
pub struct Inbound {
    incoming: Incoming,
    record: OpenRecord,
    pace: Pace,
    /// Largest size and the key that set it.
    limit: Option<(u64, &'static str)>,
    gate: Option<Gate>,
    /// Only END_STREAM ends it (HTTP/2).
    strict_end: bool,
    unhurried: bool,
    screen: Option<Screen>,
    read: u64,
    waited: Duration,
    waiting_since: Option<Instant>,
    alarm: Alarm,
}

impl Inbound {
    /// Wraps what hyper hands out.
    pub fn new(incoming: Incoming, record: OpenRecord, pace: Pace) -> Self {
        Self {
            incoming,
            record,
            pace,
            limit: None,
            gate: None,
            strict_end: false,
            unhurried: false,
            screen: None,
            read: 0,
            waited: Duration::ZERO,
            waiting_since: None,
            alarm: Alarm::default(),
        }
    }

    /// Sets the largest size. The last word wins: the resource's limit replaces the server's (ruling C2).
    ///
    /// # Errors
    /// [`Error::BodyTooLarge`] if the announced length is over it already.
    pub fn limit(&mut self, limit: u64, name: &'static str) -> Result<(), Error> {
        if http_body::Body::size_hint(&self.incoming).lower() > limit {
            return Err(Error::BodyTooLarge(limit, name.into()));
        }
        self.limit = Some((limit, name));
        Ok(())
    }

    /// Holds the body back until the gate opens.
    pub fn gate(&mut self) -> Gate {
        let gate = Gate::default();
        self.gate = Some(gate.clone());
        gate
    }

    /// For HTTP/2, where a body that is reset without an error looks as if it had ended (RFC 9113 section 8.1): only
    /// END_STREAM ends it, so that a cut body looks cut to the upstream.
    pub fn until_end_stream(&mut self) {
        self.strict_end = true;
    }

    /// For gRPC, whose streams may be silent: no pace is demanded (ruling D12).
    pub fn unhurried(&mut self) {
        self.unhurried = true;
    }

    /// Which trailers go on besides what never does.
    pub fn screen(&mut self, screen: Screen) {
        self.screen = Some(screen);
    }

    /// When the client is too slow, if nothing more arrives.
    fn patience(&self, since: Instant) -> Instant {
        let idle = since + self.pace.idle;
        if self.pace.rate == 0 {
            return idle;
        }
        let earned = Duration::from_millis(self.read.saturating_mul(1000) / self.pace.rate).max(self.pace.grace);
        idle.min(since + earned.saturating_sub(self.waited))
    }
}

impl http_body::Body for Inbound {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = &mut *self;
        if let Some(gate) = &this.gate {
            ready!(gate.poll(cx));
            this.gate = None;
        }
        let Poll::Ready(frame) = Pin::new(&mut this.incoming).poll_frame(cx) else {
            if this.unhurried {
                return Poll::Pending;
            }
            let since = *this.waiting_since.get_or_insert_with(Instant::now);
            let deadline = this.patience(since);
            ready!(this.alarm.poll(deadline, cx));
            return Poll::Ready(Some(Err(Error::SlowBody)));
        };
        if let Some(since) = this.waiting_since.take() {
            this.waited += since.elapsed();
        }
        let mut frame = match frame {
            Some(Ok(frame)) => frame,
            None if !this.strict_end || this.incoming.is_end_stream() => return Poll::Ready(None),
            None | Some(Err(_)) => {
                return Poll::Ready(Some(Err(Error::BadRequest(
                    "The body of the request was cut off.".into(),
                    "Send the whole body.".into(),
                ))));
            }
        };
        if let Some(trailers) = frame.trailers_mut() {
            trailers::clean(trailers);
            if let Some(screen) = &this.screen {
                screen.apply(trailers);
            }
        }
        if let Some(data) = frame.data_ref() {
            this.read += data.len() as u64;
            this.record.borrow_mut().bytes_in = this.read;
            if let Some((limit, name)) = this.limit.filter(|(limit, _)| this.read > *limit) {
                return Poll::Ready(Some(Err(Error::BodyTooLarge(limit, name.into()))));
            }
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
