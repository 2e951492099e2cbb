//! The filter between a client's socket and hyper where HTTP/2 is spoken: what the edge is for HTTP/1.1.
//!
//! It reads frame heads only (RFC 9113 section 4.1) and changes no byte. It times what hyper does not: the first
//! SETTINGS, a frame or a header block that never ends, a client that does not read. And it keeps a budget for frames
//! that cost the gateway work and bring no request forward, which the answers that go out fill up again: floods of
//! PING, SETTINGS, PRIORITY, RST_STREAM, WINDOW_UPDATE and the like end the connection, and nothing else.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::body::Alarm;

/// Frames without use that a client may send at once.
pub const CALM_BURST: u32 = 2048;
/// How many more it may send each second, besides those that answers have earned.
pub const CALM_RATE: u32 = 100;
/// What each frame of an answer earns: a client acknowledges it with up to two WINDOW_UPDATEs, and may have asked with PING.
const EARNED: u32 = 4;
/// What a reset by the gateway costs that the client has provoked ("made you reset", CVE-2025-8671).
const PROVOKED: u32 = 16;
/// What takes the place of a frame that is over the budget: SETTINGS on a stream, for which hyper ends the connection
/// with GOAWAY.
const STAND_IN: [u8; 9] = [0, 0, 0, SETTINGS, 0, 0, 0, 0, 1];
/// Padded DATA up to this length may be padding alone, so it is without use until an answer has earned it.
const PADDING_MOST: usize = 256;
/// How much of a client's bytes is read and dropped at the end, so that it can read the GOAWAY before a reset.
const LINGER_BYTES: usize = 1 << 20;
/// How long that may take.
const LINGER_TIME: Duration = Duration::from_secs(1);

/// What a connection begins with (RFC 9113 section 3.4).
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Length of a frame's head.
const HEAD: usize = 9;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const PADDED: u8 = 8;

/// Times of the filter.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// For the first SETTINGS, and for any frame that is no DATA and any header block, from its first byte to its last.
    pub header: Duration,
    /// Longest time that the client may leave bytes unread.
    pub stall: Duration,
}

/// What the filter has seen, for whoever serves the connection.
#[derive(Debug, Default)]
pub struct Seen {
    /// Streams that the client has opened.
    pub opened: Cell<u64>,
    /// Why the filter ended the connection, if it did.
    pub broken: Cell<Option<&'static str>>,
}

/// A client's connection as hyper sees it.
#[derive(Debug)]
pub struct Frames<I> {
    io: I,
    /// What was read while the protocol was still to be told.
    begun: Vec<u8>,
    limits: Limits,
    seen: Rc<Seen>,
    inbound: Walker,
    outbound: Walker,
    last_stream: u32,
    /// A header block is open.
    block: bool,
    settled: bool,
    /// Since when a frame or a block is unfinished, or the first SETTINGS is waited for.
    pending_since: Option<Instant>,
    budget: Budget,
    /// The stand-in has been handed out; nothing more of the client's reaches hyper.
    refused: bool,
    alarm: Alarm,
    stalled: Option<Instant>,
    stall_alarm: Alarm,
    lingered: usize,
    linger_until: Option<Instant>,
}

impl<I> Frames<I> {
    /// Wraps a connection; `begun` are its first bytes, which have been read already.
    pub fn new(io: I, begun: Vec<u8>, limits: Limits, seen: Rc<Seen>) -> Self {
        Self {
            io,
            begun,
            limits,
            seen,
            inbound: Walker::behind(PREFACE.len()),
            outbound: Walker::behind(0),
            last_stream: 0,
            block: false,
            settled: false,
            pending_since: Some(Instant::now()),
            budget: Budget::default(),
            refused: false,
            alarm: Alarm::default(),
            stalled: None,
            stall_alarm: Alarm::default(),
            lingered: 0,
            linger_until: None,
        }
    }

    /// Follows what the client has sent. Returns how many of `bytes` may go on: fewer than all once the budget is spent.
    fn follow(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut at = 0;
        while at < bytes.len() {
            let began = at;
            let Some(head) = self.inbound.step(bytes, &mut at) else { continue };
            if let Err(why) = self.judge(head) {
                self.seen.broken.set(Some(why));
                // A head of which a part has gone on already cannot be replaced any more.
                return if at - began == HEAD { Ok(began) } else { Err(io::Error::new(io::ErrorKind::InvalidData, why)) };
            }
        }
        Ok(bytes.len())
    }

    fn judge(&mut self, head: Head) -> Result<(), &'static str> {
        if !self.settled {
            // Anything else is for hyper to refuse (RFC 9113 section 3.4).
            self.settled = head.kind == SETTINGS;
        }
        match head.kind {
            // Padding alone is no data, and a small padded frame may hold nothing else (RFC 9113 section 6.1).
            DATA if head.flags & PADDED != 0 && head.length <= PADDING_MOST && head.flags & END_STREAM == 0 => self.budget.spend(1),
            DATA if head.length > 0 || head.flags & END_STREAM != 0 => Ok(()),
            HEADERS => {
                if head.stream > self.last_stream {
                    self.last_stream = head.stream;
                    self.seen.opened.set(self.seen.opened.get() + 1);
                }
                self.block = head.flags & END_HEADERS == 0;
                Ok(())
            }
            CONTINUATION => {
                self.block = self.block && head.flags & END_HEADERS == 0;
                self.budget.spend(1)
            }
            SETTINGS if head.flags & ACK != 0 => Ok(()),
            _ => self.budget.spend(1),
        }
    }

    /// After each read: is something unfinished, and since when?
    fn note_pending(&mut self) {
        if self.settled && !self.block && !self.inbound.inside_frame() {
            self.pending_since = None;
        } else {
            self.pending_since.get_or_insert_with(Instant::now);
        }
    }

    /// Follows what hyper has written.
    fn follow_out(&mut self, bytes: &[u8]) {
        let mut at = 0;
        while at < bytes.len() {
            if let Some(head) = self.outbound.step(bytes, &mut at)
                && matches!(head.kind, DATA | HEADERS)
            {
                self.budget.earn(EARNED);
            }
            // What the client gets for its own mistakes is told by the code (RFC 9113 section 7).
            if matches!(self.outbound.ended_reset(), Some(1 | 3 | 5 | 6 | 9)) {
                let _ = self.budget.spend(PROVOKED);
            }
        }
    }

    fn poll_pending(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(since) = self.pending_since else { return Poll::Pending };
        ready!(self.alarm.poll(since + self.limits.header, cx));
        self.seen.broken.set(Some("a frame or a header block did not end in time"));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    /// Waits for a client that does not read, as long as it may take.
    fn poll_stall<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let since = *self.stalled.get_or_insert_with(Instant::now);
        ready!(self.stall_alarm.poll(since + self.limits.stall, cx));
        self.seen.broken.set(Some("the client does not read"));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<I: AsyncRead + Unpin> Frames<I> {
    /// Reads and drops what the client still sends, so that closing does not reset the GOAWAY away.
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

impl<I: AsyncRead + Unpin> AsyncRead for Frames<I> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.refused {
            return Poll::Pending;
        }
        let before = buf.filled().len();
        if this.begun.is_empty() {
            match Pin::new(&mut this.io).poll_read(cx, buf) {
                Poll::Ready(read) => read?,
                Poll::Pending => return this.poll_pending(cx),
            }
        } else {
            let part = this.begun.len().min(buf.remaining());
            buf.put_slice(&this.begun[..part]);
            this.begun.drain(..part);
        }
        let arrived = buf.filled().len() - before;
        let pass = this.follow(&buf.filled()[before..])?;
        this.note_pending();
        if pass < arrived {
            buf.set_filled(before + pass);
            if buf.remaining() < STAND_IN.len() {
                return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
            }
            buf.put_slice(&STAND_IN);
            this.refused = true;
        }
        Poll::Ready(Ok(()))
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Frames<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, bytes);
        if let Poll::Ready(Ok(written)) = written {
            self.follow_out(&bytes[..written]);
        }
        self.poll_stall(cx, written)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, parts: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let written = crate::net::poll_write_pieces(&mut self.io, cx, parts);
        if let Poll::Ready(Ok(mut written)) = written {
            for part in parts {
                let here = written.min(part.len());
                self.follow_out(&part[..here]);
                written -= here;
            }
        }
        self.poll_stall(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.io).poll_flush(cx);
        self.poll_stall(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.linger_until.is_none() {
            ready!(Pin::new(&mut self.io).poll_shutdown(cx))?;
        }
        self.poll_linger(cx)
    }
}

/// Head of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Head {
    length: usize,
    kind: u8,
    flags: u8,
    stream: u32,
}

/// Walks from frame head to frame head, however the bytes are cut.
#[derive(Debug)]
struct Walker {
    head: [u8; HEAD],
    have: usize,
    /// What is left of the payload.
    left: usize,
    kind: u8,
    /// The code of an RST_STREAM, as far as it has gone by.
    code: u32,
}

impl Walker {
    /// Begins behind so many bytes that are no frames.
    fn behind(bytes: usize) -> Self {
        Self { head: [0; HEAD], have: 0, left: bytes, kind: DATA, code: 0 }
    }

    /// Goes on from `at`, to the end of a payload or of a head. Returns the head once it is whole.
    fn step(&mut self, bytes: &[u8], at: &mut usize) -> Option<Head> {
        if self.left > 0 {
            let part = self.left.min(bytes.len() - *at);
            if self.kind == RST_STREAM {
                self.code = bytes[*at..*at + part].iter().fold(self.code, |code, b| code << 8 | u32::from(*b));
            }
            self.left -= part;
            *at += part;
            return None;
        }
        let part = (HEAD - self.have).min(bytes.len() - *at);
        self.head[self.have..self.have + part].copy_from_slice(&bytes[*at..*at + part]);
        self.have += part;
        *at += part;
        if self.have < HEAD {
            return None;
        }
        let [a, b, c, kind, flags, s @ ..] = self.head;
        let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        (self.have, self.left, self.kind, self.code) = (0, length, kind, 0);
        Some(Head { length, kind, flags, stream: u32::from_be_bytes(s) & 0x7fff_ffff })
    }

    /// Whether a frame other than DATA has begun and not ended: the body's own clock runs for DATA.
    fn inside_frame(&self) -> bool {
        self.have > 0 || (self.left > 0 && self.kind != DATA)
    }

    /// The code of an RST_STREAM that has just gone by.
    fn ended_reset(&mut self) -> Option<u32> {
        let ended = self.kind == RST_STREAM && self.left == 0 && self.have == 0;
        ended.then(|| {
            self.kind = DATA;
            self.code
        })
    }
}

/// What a client may still cost without bringing a request forward.
#[derive(Debug)]
struct Budget {
    left: u32,
    /// When it was last filled up by time. The clock is asked only when it runs out.
    filled: Instant,
}

impl Default for Budget {
    fn default() -> Self {
        Self { left: CALM_BURST, filled: Instant::now() }
    }
}

impl Budget {
    fn spend(&mut self, cost: u32) -> Result<(), &'static str> {
        if self.left < cost {
            let now = Instant::now();
            let millis = u32::try_from(now.duration_since(self.filled).as_millis()).unwrap_or(u32::MAX);
            self.left = self.left.saturating_add(millis.saturating_mul(CALM_RATE) / 1000).min(CALM_BURST);
            self.filled = now;
        }
        match self.left.checked_sub(cost) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => Err("a flood of frames that bring no request forward"),
        }
    }

    fn earn(&mut self, gain: u32) {
        self.left = self.left.saturating_add(gain).min(CALM_BURST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { header: Duration::from_secs(10), stall: Duration::from_secs(10) };

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
    }

    fn fresh() -> (Frames<tokio::io::Empty>, Rc<Seen>) {
        let seen = Rc::<Seen>::default();
        let mut frames = Frames::new(tokio::io::empty(), Vec::new(), LIMITS, seen.clone());
        assert_eq!(frames.follow(PREFACE).unwrap(), PREFACE.len());
        (frames, seen)
    }

    #[test]
    fn frames_are_told_apart_however_the_bytes_are_cut() {
        let all = [
            frame(SETTINGS, 0, 0, &[0; 6]),
            frame(HEADERS, 0, 1, b"abc"),
            frame(CONTINUATION, END_HEADERS, 1, b""),
            frame(DATA, 1, 1, b"12345"),
        ]
        .concat();
        for size in 1..all.len() {
            let (mut frames, seen) = fresh();
            for part in all.chunks(size) {
                assert_eq!(frames.follow(part).unwrap(), part.len());
                frames.note_pending();
            }
            assert_eq!((seen.opened.get(), frames.block, frames.settled, frames.pending_since), (1, false, true, None), "{size}");
        }
    }

    #[test]
    fn an_open_header_block_and_half_a_frame_are_waited_for_against_the_clock() {
        for part in [frame(HEADERS, 0, 1, b"abc"), vec![0, 0], frame(6, 0, 0, b"12345678")[..12].to_vec()] {
            let (mut frames, _) = fresh();
            frames.follow(&frame(SETTINGS, 0, 0, &[])).unwrap();
            frames.note_pending();
            assert_eq!(frames.pending_since, None);
            frames.follow(&part).unwrap();
            frames.note_pending();
            assert!(frames.pending_since.is_some(), "{part:?}");
        }
    }

    #[test]
    fn a_flood_ends_at_the_frame_that_is_over_the_budget() {
        for useless in
            [frame(6, 0, 0, &[0; 8]), frame(2, 0, 1, &[0; 5]), frame(3, 0, 1, &[0; 4]), frame(DATA, 0, 1, b""), frame(99, 0, 0, b"x")]
        {
            let (mut frames, seen) = fresh();
            frames.follow(&frame(SETTINGS, 0, 0, &[])).unwrap();
            let flood = useless.repeat(CALM_BURST as usize * 2);
            let passed = frames.follow(&flood).unwrap();
            assert!(passed < flood.len() && passed >= useless.len() * (CALM_BURST as usize - 1), "{passed}");
            assert_eq!(passed % useless.len(), 0);
            assert!(seen.broken.get().is_some());
        }
    }

    #[test]
    fn answers_fill_the_budget_up_and_provoked_resets_drain_it() {
        let (mut frames, _) = fresh();
        frames.budget.left = 0;
        frames.follow_out(&[frame(SETTINGS, 0, 0, &[]), frame(HEADERS, 4, 1, b"x"), frame(DATA, 1, 1, b"y")].concat());
        assert_eq!(frames.budget.left, 2 * EARNED);
        frames.budget.left = 2 * PROVOKED;
        frames.follow_out(&frame(RST_STREAM, 0, 1, &[0, 0, 0, 1]));
        frames.follow_out(&frame(RST_STREAM, 0, 3, &[0, 0, 0, 8]));
        assert_eq!(frames.budget.left, PROVOKED);
    }
}
