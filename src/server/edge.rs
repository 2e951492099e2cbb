//! The strict filter between a client's socket and hyper (ruling H2).
//!
//! It holds each request head back until it is whole and judged, follows the body to where the next head begins, and
//! times what hyper cannot: the wait for a head, the head itself, and a client that does not read. A head that is
//! refused never reaches hyper: a bare request takes its place, and [`Watch::refusal`] tells the service why, so that
//! refusals are rendered, audited and put in order like every other answer. It changes no byte of what passes.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use http::HeaderValue;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};

use super::frames::PREFACE;
use super::head::{Bounds, Framing, Judged, Reader, judge};
use crate::body::Alarm;
use crate::error::Error;
use crate::http1::Chunks;

/// What stands in for a refused head. The service never looks at it.
const STAND_IN: &[u8] = b"GET / HTTP/1.1\r\nhost: refused\r\nconnection: close\r\n\r\n";
/// How much of a refused client's bytes is read and dropped, so that it can read the answer before a reset.
const LINGER_BYTES: usize = 1 << 20;
/// How long that may take.
const LINGER_TIME: Duration = Duration::from_secs(1);
/// What a client may send ahead while its request is being served; beyond that it waits in the kernel.
const AHEAD_BYTES: usize = 64 * 1024;
/// How much of a head is read at once where a connection rests; what is longer is read by hyper.
const ARRIVAL_BYTES: usize = 2048;
/// Most bytes of interim answers that wait to be sent.
const HINTS_BYTES: usize = 16 * 1024;
/// How long an idle connection is kept once the gateway drains: long enough for a request that is on its way.
pub const DRAIN_QUIET: Duration = Duration::from_millis(500);

/// Times and sizes of the edge.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Of the head.
    pub bounds: Bounds,
    /// Wait for the first byte of a head (`server.timeouts.idle`).
    pub idle: Duration,
    /// From the first byte of a head to its last (`server.timeouts.header`).
    pub header: Duration,
    /// Longest time that the client may leave an answer unread (`server.timeouts.body_idle`).
    pub stall: Duration,
}

/// What the service knows of its connection, and the connection of its service.
#[derive(Debug)]
pub struct Watch {
    born: Instant,
    busy: AtomicBool,
    /// When the last answer ended, in microseconds since `born`.
    ended: AtomicU64,
    /// Who waits for the answer to end, because the client has sent ahead.
    ahead: AtomicBool,
    waker: Mutex<Option<Waker>>,
    /// When the drain began, in microseconds since `born`, and one more; zero before it.
    draining: AtomicU64,
    tunnel: AtomicBool,
    /// hyper waits for the next head, and has been given all that arrived.
    quiet: AtomicBool,
    /// The client has not taken all that hyper has written.
    unsent: AtomicBool,
    /// hyper is to be let go once it has nothing to do.
    rest: AtomicBool,
    /// How many heads hyper was given, and which of them is a stand-in.
    heads: AtomicU64,
    served: AtomicU64,
    refused: AtomicU64,
    refusal: Mutex<Option<Error>>,
    /// Whether the answer of the request that is being served is still to begin.
    hintable: AtomicBool,
    /// Whether there is anything in `hints`.
    hinted: AtomicBool,
    /// Interim answers that wait for the next write.
    hints: Mutex<Vec<u8>>,
}

impl Default for Watch {
    fn default() -> Self {
        Self {
            born: Instant::now(),
            busy: AtomicBool::new(false),
            ended: AtomicU64::new(0),
            ahead: AtomicBool::new(false),
            waker: Mutex::new(None),
            draining: AtomicU64::new(0),
            tunnel: AtomicBool::new(false),
            quiet: AtomicBool::new(false),
            unsent: AtomicBool::new(false),
            rest: AtomicBool::new(false),
            heads: AtomicU64::new(0),
            served: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            refusal: Mutex::new(None),
            hintable: AtomicBool::new(false),
            hinted: AtomicBool::new(false),
            hints: Mutex::new(Vec::new()),
        }
    }
}

impl Watch {
    /// The service begins a request. Returns why it was refused, if the edge refused it.
    pub fn begin(&self) -> Option<Error> {
        self.busy.store(true, Ordering::Relaxed);
        self.hintable.store(true, Ordering::Relaxed);
        let served = self.served.fetch_add(1, Ordering::Relaxed) + 1;
        if self.refused.load(Ordering::Acquire) != served {
            return None;
        }
        self.refusal.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The answer begins: no hint may follow it.
    pub fn answering(&self) {
        self.hintable.store(false, Ordering::Relaxed);
    }

    /// Puts early hints in front of the answer that is being waited for (RFC 8297). They are dropped where anything else
    /// could come before them: an answer that has begun, or an earlier one of which the client has not taken all.
    pub fn hint(&self, links: &[HeaderValue]) {
        if links.is_empty() || !self.hintable.load(Ordering::Relaxed) || self.unsent.load(Ordering::Relaxed) {
            return;
        }
        let mut hints = self.hints.lock().unwrap_or_else(PoisonError::into_inner);
        let length: usize = links.iter().map(|link| link.len() + 8).sum();
        if hints.len() + length > HINTS_BYTES {
            return;
        }
        hints.extend_from_slice(b"HTTP/1.1 103 Early Hints\r\n");
        for link in links {
            hints.extend_from_slice(b"link: ");
            hints.extend_from_slice(link.as_bytes());
            hints.extend_from_slice(b"\r\n");
        }
        hints.extend_from_slice(b"\r\n");
        self.hinted.store(true, Ordering::Relaxed);
    }

    /// The answer has been handed to hyper to its last byte, or given up.
    pub fn end(&self) {
        self.ended.store(self.age(), Ordering::Relaxed);
        self.busy.store(false, Ordering::Release);
        if self.ahead.swap(false, Ordering::AcqRel)
            && let Some(waker) = self.waker.lock().unwrap_or_else(PoisonError::into_inner).take()
        {
            waker.wake();
        }
    }

    fn wake_at_end(&self, cx: &Context<'_>) {
        *self.waker.lock().unwrap_or_else(PoisonError::into_inner) = Some(cx.waker().clone());
        self.ahead.store(true, Ordering::Release);
    }

    fn age(&self) -> u64 {
        u64::try_from(self.born.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn last_end(&self) -> Instant {
        self.born + Duration::from_micros(self.ended.load(Ordering::Relaxed))
    }

    /// From here on the connection is closed once it has been idle for a moment.
    pub fn drain(&self) {
        if self.draining.load(Ordering::Relaxed) == 0 {
            self.draining.store(self.age().saturating_add(1), Ordering::Relaxed);
        }
    }

    /// When a connection that rests since `quiet` is to be closed.
    fn closing(&self, quiet: Instant, idle: Duration) -> Instant {
        let quiet = quiet.max(self.last_end());
        match self.draining.load(Ordering::Relaxed) {
            0 => quiet + idle,
            // A request may be on its way when the drain begins, however long the connection has been idle.
            began => quiet.max(self.born + Duration::from_micros(began)) + DRAIN_QUIET,
        }
    }

    /// The request that is being served has switched protocols: what follows is not HTTP.
    pub fn switch(&self) {
        self.tunnel.store(true, Ordering::Release);
    }

    /// Tells the connection to let hyper go if it still idles when it is polled.
    pub fn rest(&self) {
        self.rest.store(true, Ordering::Relaxed);
    }

    /// Whether hyper may be let go. To be asked once it has been polled.
    pub fn rests(&self) -> bool {
        self.rest.load(Ordering::Relaxed) && self.idles()
    }

    /// Whether hyper has had nothing to do for some time.
    pub fn idles_for(&self, time: Duration) -> bool {
        self.idles() && self.last_end().elapsed() >= time
    }

    /// Whether hyper has nothing to read, to write or to remember.
    fn idles(&self) -> bool {
        self.quiet.load(Ordering::Relaxed)
            && !self.unsent.load(Ordering::Relaxed)
            && !self.busy.load(Ordering::Acquire)
            && self.heads.load(Ordering::Relaxed) == self.served.load(Ordering::Relaxed)
    }

    fn refuse(&self, error: Error) {
        *self.refusal.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        self.refused.store(self.heads.load(Ordering::Relaxed) + 1, Ordering::Release);
    }
}

#[derive(Debug)]
enum State {
    /// Before or inside a head; `since` is when its first byte came.
    Head { since: Option<Instant> },
    /// Inside a body of known length.
    Length(u64),
    /// Inside a chunked body.
    Chunked(Chunks),
    /// The stand-in is on its way; nothing more of the client's reaches hyper.
    Refused { sent: usize },
    /// The framing of a body broke; the connection is of no more use.
    Broken,
}

/// A client's connection as hyper sees it.
#[derive(Debug)]
pub struct Edge<I> {
    io: I,
    state: State,
    /// Bytes that arrived too early: half a head, or what was pipelined behind a body.
    held: Vec<u8>,
    /// How many bytes at the front of `held` are the rest of a head that has been judged.
    carry: usize,
    /// How far the head in `held` has been judged. Heads mostly come whole, so there is none then.
    reader: Option<Box<Reader>>,
    limits: Limits,
    watch: Arc<Watch>,
    alarm: Alarm,
    quiet_since: Instant,
    stalled: Option<Instant>,
    stall_alarm: Alarm,
    lingered: usize,
    linger_until: Option<Instant>,
}

impl<I: AsyncRead + AsyncWrite + Unpin> Edge<I> {
    /// Wraps an accepted connection.
    pub fn new(io: I, limits: Limits, watch: Arc<Watch>) -> Self {
        Self {
            io,
            state: State::Head { since: None },
            held: Vec::new(),
            carry: 0,
            reader: None,
            limits,
            watch,
            alarm: Alarm::default(),
            quiet_since: Instant::now(),
            stalled: None,
            stall_alarm: Alarm::default(),
            lingered: 0,
            linger_until: None,
        }
    }

    /// Whether what has arrived on a new connection may be the preface of HTTP/2 (RFC 9113 section 3.4).
    pub fn may_be_http2(&self) -> bool {
        self.held.first() == Some(&PREFACE[0])
            && self.watch.heads.load(Ordering::Relaxed) == 0
            && (self.held.starts_with(PREFACE) || PREFACE.starts_with(&self.held))
    }

    /// Whether the connection begins with the preface of HTTP/2. Reads until that is decided, or until nothing more is to
    /// be waited for; what was read is kept.
    pub fn poll_preface(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        let mut space = [const { MaybeUninit::uninit() }; ARRIVAL_BYTES];
        while let State::Head { since } = &mut self.state {
            if self.held.starts_with(PREFACE) {
                return Poll::Ready(true);
            }
            if !PREFACE.starts_with(&self.held) {
                break;
            }
            if !self.held.is_empty() {
                since.get_or_insert_with(Instant::now);
            }
            let mut buf = ReadBuf::uninit(&mut space);
            match Pin::new(&mut self.io).poll_read(cx, &mut buf) {
                Poll::Pending => {
                    let _ = ready!(self.poll_patience(cx));
                    break;
                }
                Poll::Ready(Ok(())) if !buf.filled().is_empty() => self.held.extend_from_slice(buf.filled()),
                // Its end is for hyper to find.
                Poll::Ready(_) => break,
            }
        }
        Poll::Ready(false)
    }

    /// The socket, and what was read from it.
    pub fn into_parts(self) -> (I, Vec<u8>) {
        (self.io, self.held)
    }

    /// Reads up to one whole head into `buf`. Whatever is not a judged head stays in `held`.
    fn poll_head(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.watch.quiet.store(false, Ordering::Relaxed);
        if self.watch.busy.load(Ordering::Acquire) {
            return self.poll_busy(cx, buf);
        }
        let before = buf.filled().len();
        loop {
            if !self.held.is_empty() && self.release_held(buf) {
                return Poll::Ready(Ok(()));
            }
            match Pin::new(&mut self.io).poll_read(cx, buf) {
                Poll::Pending => return self.poll_patience(cx),
                Poll::Ready(result) => result?,
            }
            let arrived = &buf.filled()[before..];
            if arrived.is_empty() {
                return Poll::Ready(Ok(()));
            }
            if self.held.is_empty() && self.pass_in_place(before, buf) {
                return Poll::Ready(Ok(()));
            }
            self.held.extend_from_slice(&buf.filled()[before..]);
            buf.set_filled(before);
        }
    }

    /// While a request is being served hyper reads only to learn whether the client has left. What arrives is held
    /// unjudged: it may be the next head, or the first bytes of a protocol that is about to be switched to.
    fn poll_busy(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        while self.held.len() < AHEAD_BYTES {
            let Poll::Ready(result) = Pin::new(&mut self.io).poll_read(cx, buf) else { break };
            result?;
            if buf.filled().len() == before {
                return Poll::Ready(Ok(()));
            }
            self.held.extend_from_slice(&buf.filled()[before..]);
            buf.set_filled(before);
        }
        if self.held.is_empty() {
            self.watch.quiet.store(true, Ordering::Relaxed);
        } else {
            self.watch.wake_at_end(cx);
        }
        Poll::Pending
    }

    /// The common case: what arrived is exactly one head with the beginning of its body. Nothing is copied.
    fn pass_in_place(&mut self, before: usize, buf: &mut ReadBuf<'_>) -> bool {
        let arrived = &buf.filled()[before..];
        let Judged::Head { start: 0, end, framing } = judge(arrived, self.limits.bounds) else { return false };
        self.enter(framing);
        let Ok(body) = self.body_part(&arrived[end..]) else {
            // hyper may find sense in what is none.
            buf.set_filled(before + end);
            return true;
        };
        if end + body < arrived.len() {
            self.held.extend_from_slice(&arrived[end + body..]);
            buf.set_filled(before + end + body);
        }
        true
    }

    /// Gives hyper the head at the front of `held`, if it is whole and fits.
    fn release_held(&mut self, buf: &mut ReadBuf<'_>) -> bool {
        let State::Head { since } = &mut self.state else { return self.release_body(buf) };
        since.get_or_insert_with(Instant::now);
        match self.reader.get_or_insert_default().judge(&self.held, self.limits.bounds) {
            Judged::Partial => false,
            Judged::Refused(error) => {
                self.refuse(error);
                self.send_stand_in(buf);
                true
            }
            Judged::Head { start, end, framing } => {
                self.held.drain(..start);
                let end = end - start;
                // hyper offers 8 KiB at first. A larger head goes in pieces, as bytes that are known to be fine.
                let fits = end.min(buf.remaining());
                buf.put_slice(&self.held[..fits]);
                self.held.drain(..fits);
                self.enter(framing);
                self.carry = end - fits;
                true
            }
        }
    }

    fn release_body(&mut self, buf: &mut ReadBuf<'_>) -> bool {
        let fits = self.held.len().min(buf.remaining());
        let part = std::mem::take(&mut self.held);
        let Ok(body) = self.body_part(&part[..fits]) else { return true };
        buf.put_slice(&part[..body]);
        self.held = part;
        self.held.drain(..body);
        body > 0
    }

    fn enter(&mut self, framing: Framing) {
        self.reader = None;
        self.watch.heads.fetch_add(1, Ordering::Relaxed);
        self.state = match framing {
            Framing::Length(0) => State::Head { since: None },
            Framing::Length(n) => State::Length(n),
            Framing::Chunked => State::Chunked(Chunks::default()),
        };
    }

    /// How much of `bytes` belongs to the body that is under way; moves on past it.
    fn body_part(&mut self, bytes: &[u8]) -> Result<usize, ()> {
        let (part, over) = match &mut self.state {
            State::Length(left) => {
                let part = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                *left -= part as u64;
                (part, *left == 0)
            }
            State::Chunked(chunks) => match chunks.read(bytes) {
                Ok(part) => (part, chunks.done()),
                Err(_) => {
                    self.state = State::Broken;
                    return Err(());
                }
            },
            _ => (0, false),
        };
        if over {
            self.state = State::Head { since: None };
            self.quiet_since = Instant::now();
        }
        Ok(part)
    }

    fn refuse(&mut self, error: Error) {
        self.watch.refuse(error);
        self.held = Vec::new();
        self.state = State::Refused { sent: 0 };
    }

    fn send_stand_in(&mut self, buf: &mut ReadBuf<'_>) {
        let State::Refused { sent } = &mut self.state else { return };
        let part = (STAND_IN.len() - *sent).min(buf.remaining());
        buf.put_slice(&STAND_IN[*sent..*sent + part]);
        *sent += part;
    }

    /// Nothing has arrived: how long may that go on?
    fn poll_patience(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let State::Head { since } = self.state else { return Poll::Pending };
        if let Some(since) = since {
            ready!(self.alarm.poll(since + self.limits.header, cx));
            self.refuse(Error::SlowHead);
            // Read on at once: the stand-in is waiting.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.watch.quiet.store(true, Ordering::Relaxed);
        ready!(self.alarm.poll(self.closing(), cx));
        // As if the client had closed: hyper ends the connection without a word, as HTTP wants it.
        Poll::Ready(Ok(()))
    }

    fn closing(&self) -> Instant {
        self.watch.closing(self.quiet_since, self.limits.idle)
    }

    /// Waits for the next head to begin, where there is no hyper to read it. Returns false if the connection is over:
    /// the client has left, or has been idle for too long.
    pub fn poll_arrival(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        self.watch.quiet.store(false, Ordering::Relaxed);
        self.watch.rest.store(false, Ordering::Relaxed);
        let mut space = [const { MaybeUninit::uninit() }; ARRIVAL_BYTES];
        let mut buf = ReadBuf::uninit(&mut space);
        match Pin::new(&mut self.io).poll_read(cx, &mut buf) {
            Poll::Ready(Ok(())) => {
                self.held = buf.filled().to_vec();
                Poll::Ready(!self.held.is_empty())
            }
            Poll::Ready(Err(_)) => Poll::Ready(false),
            Poll::Pending => {
                self.held = Vec::new();
                ready!(self.alarm.poll(self.closing(), cx));
                Poll::Ready(false)
            }
        }
    }

    fn poll_body(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.held.is_empty() && self.release_body(buf) {
            return Poll::Ready(self.intact());
        }
        if let State::Length(left) = &mut self.state {
            let before = buf.filled().len();
            ready!(Pin::new(&mut (&mut self.io).take(*left)).poll_read(cx, buf))?;
            let read = buf.filled().len() - before;
            *left -= read as u64;
            if *left == 0 {
                self.state = State::Head { since: None };
                self.quiet_since = Instant::now();
            }
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        let arrived = &buf.filled()[before..];
        let Ok(part) = self.body_part(arrived) else {
            buf.set_filled(before);
            return Poll::Ready(self.intact());
        };
        self.held.extend_from_slice(&arrived[part..]);
        buf.set_filled(before + part);
        Poll::Ready(Ok(()))
    }

    fn intact(&self) -> io::Result<()> {
        match self.state {
            State::Broken => Err(io::Error::new(io::ErrorKind::InvalidData, "the chunks of the request body are malformed")),
            _ => Ok(()),
        }
    }

    /// Writes the hints that wait. hyper has written all of earlier answers when there are any, and whatever it writes next
    /// belongs to the answer that they are hints of.
    fn poll_hints(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.watch.hinted.load(Ordering::Relaxed) {
            return Poll::Ready(Ok(()));
        }
        let watch = self.watch.clone();
        let mut hints = watch.hints.lock().unwrap_or_else(PoisonError::into_inner);
        while !hints.is_empty() {
            let written = Pin::new(&mut self.io).poll_write(cx, &hints);
            let written = ready!(self.poll_stall(cx, written))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            hints.drain(..written);
        }
        *hints = Vec::new();
        watch.hinted.store(false, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }

    /// Waits for a client that does not read, as long as it may take.
    fn poll_stall<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            if self.stalled.take().is_some() {
                self.watch.unsent.store(false, Ordering::Relaxed);
            }
            return written;
        }
        self.watch.unsent.store(true, Ordering::Relaxed);
        let since = *self.stalled.get_or_insert_with(Instant::now);
        ready!(self.stall_alarm.poll(since + self.limits.stall, cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not read its answer")))
    }

    /// Reads and drops what the client still sends, so that closing does not reset the answer away.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let until = *self.linger_until.get_or_insert_with(|| Instant::now() + LINGER_TIME);
        let mut space = [0u8; 4096];
        loop {
            let mut buf = ReadBuf::new(&mut space);
            match Pin::new(&mut self.io).poll_read(cx, &mut buf) {
                Poll::Ready(Ok(())) if !buf.filled().is_empty() && self.lingered < LINGER_BYTES => self.lingered += buf.filled().len(),
                Poll::Ready(_) => return Poll::Ready(Ok(())),
                Poll::Pending => {
                    ready!(self.alarm.poll(until, cx));
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> AsyncRead for Edge<I> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.watch.tunnel.load(Ordering::Acquire) {
            if this.held.is_empty() {
                return Pin::new(&mut this.io).poll_read(cx, buf);
            }
            let part = this.held.len().min(buf.remaining());
            buf.put_slice(&this.held[..part]);
            this.held.drain(..part);
            return Poll::Ready(Ok(()));
        }
        if this.carry > 0 {
            let part = this.carry.min(buf.remaining());
            buf.put_slice(&this.held[..part]);
            this.held.drain(..part);
            this.carry -= part;
            return Poll::Ready(Ok(()));
        }
        match this.state {
            State::Head { .. } => this.poll_head(cx, buf),
            State::Length(_) | State::Chunked(_) => this.poll_body(cx, buf),
            State::Refused { sent } if sent < STAND_IN.len() => {
                this.send_stand_in(buf);
                Poll::Ready(Ok(()))
            }
            State::Refused { .. } => Poll::Pending,
            State::Broken => Poll::Ready(this.intact()),
        }
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Edge<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_hints(cx))?;
        let written = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.poll_stall(cx, written)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, parts: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        ready!(self.poll_hints(cx))?;
        let written = crate::net::poll_write_pieces(&mut self.io, cx, parts);
        self.poll_stall(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_hints(cx))?;
        let flushed = Pin::new(&mut self.io).poll_flush(cx);
        self.poll_stall(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.linger_until.is_none() {
            ready!(Pin::new(&mut self.io).poll_shutdown(cx))?;
        }
        let at_rest = matches!(self.state, State::Head { since: None }) && self.held.is_empty();
        if at_rest || self.watch.tunnel.load(Ordering::Acquire) {
            return Poll::Ready(Ok(()));
        }
        self.poll_linger(cx)
    }
}
