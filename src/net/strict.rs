//! The strict filter between an upstream's socket and hyper's client: the twin of the server's edge (ruling H2).
//!
//! It judges each head of an answer, follows the body to its end, and lets hyper see nothing that two readers could
//! read in two ways, nothing that nobody asked for, and not one byte behind an answer. What it passes it does not
//! change. How long an upstream may take is timed elsewhere.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use http::{HeaderMap, HeaderValue, Method, header};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::wire::poll_write_pieces;
use crate::error::{Breach, Error};
use crate::http1::{Chunks, Fault, Framed, Lines, Version, field};

/// Largest head of an answer.
pub const HEAD_BYTES: usize = 256 * 1024;
/// Most fields of an answer: hyper reads no more.
const FIELDS_MAX: usize = 100;
/// Most interim answers before the final one (RFC 9110 section 15.2). Honest servers send one or two.
const INTERIM_MAX: u32 = 16;

/// The status of early hints (RFC 8297).
const EARLY_HINTS: u16 = 103;

/// A request is under way, and its answer is not over.
const OPEN: u8 = 1;
/// It is a HEAD: its answer has no body, whatever it says.
const HEAD: u8 = 2;
/// It asks to switch protocols.
const SWITCH: u8 = 4;
/// The connection is of no more use.
const SPOILT: u8 = 8;

/// What the filter must know of the request whose answer it reads, and the pool of the connection.
#[derive(Debug, Default)]
pub struct Exchange {
    flags: AtomicU8,
    early: Mutex<Early>,
}

/// What has come early, and who waits for it.
#[derive(Debug, Default)]
struct Early {
    links: Vec<HeaderValue>,
    waker: Option<Waker>,
}

impl Exchange {
    /// A request is about to be sent.
    pub fn begin(&self, method: &Method, headers: &HeaderMap) {
        let head = if *method == Method::HEAD { HEAD } else { 0 };
        let switch = if headers.contains_key(header::UPGRADE) { SWITCH } else { 0 };
        self.flags.fetch_or(OPEN | head | switch, Ordering::Release);
    }

    /// Whether another request may be sent: the last answer is over, and nothing came behind it.
    pub fn reusable(&self) -> bool {
        self.flags.load(Ordering::Acquire) & (OPEN | SPOILT) == 0
    }

    /// The links of hints that came since the last call. Whoever asks is woken when there are more.
    pub fn early(&self, waker: &Waker) -> Vec<HeaderValue> {
        let mut early = self.early.lock().unwrap_or_else(PoisonError::into_inner);
        if !early.waker.as_ref().is_some_and(|known| known.will_wake(waker)) {
            early.waker = Some(waker.clone());
        }
        std::mem::take(&mut early.links)
    }

    /// Nobody asks any more.
    pub fn forget_early(&self) {
        *self.early.lock().unwrap_or_else(PoisonError::into_inner) = Early::default();
    }

    /// Keeps the links of a head of hints, if anybody asks for them.
    fn hint(&self, head: &[u8]) {
        let mut early = self.early.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(waker) = early.waker.clone() else { return };
        let fields = head.split(|b| *b == b'\n').filter_map(|line| {
            let colon = memchr::memchr(b':', line)?;
            line[..colon].eq_ignore_ascii_case(b"link").then(|| line[colon + 1..].trim_ascii())
        });
        early.links.extend(fields.filter_map(|value| HeaderValue::from_bytes(value).ok()));
        drop(early);
        waker.wake();
    }

    fn has(&self, flag: u8) -> bool {
        self.flags.load(Ordering::Acquire) & flag != 0
    }

    fn end(&self) {
        self.flags.fetch_and(!(OPEN | HEAD | SWITCH), Ordering::Release);
    }

    fn spoil(&self) {
        self.flags.fetch_or(SPOILT, Ordering::Release);
    }
}

/// An upstream's connection as hyper sees it.
#[derive(Debug)]
pub struct Strict<I> {
    io: I,
    exchange: Arc<Exchange>,
    state: State,
    /// Half a head, and behind `cleared` what nobody has looked at.
    held: Vec<u8>,
    /// How much of `held` may go to hyper.
    cleared: usize,
    /// Whether a byte of the request that is under way has been written: nothing can be its answer before.
    asked: bool,
    interim: u32,
    fault: Option<Error>,
}

#[derive(Debug)]
enum State {
    /// Between two exchanges.
    Rest,
    Head(Reader),
    Length(u64),
    Chunked(Chunks),
    /// A body that ends with the connection.
    Close,
    /// After 101: not HTTP any more.
    Tunnel,
}

impl<I> Strict<I> {
    /// Filters what comes from `io`. Whoever sends tells `exchange` first.
    pub fn new(io: I, exchange: Arc<Exchange>) -> Self {
        Self { io, exchange, state: State::Rest, held: Vec::new(), cleared: 0, asked: false, interim: 0, fault: None }
    }

    /// How many of `bytes`, from the front, may go to hyper. What is left is half a head, or follows a fault.
    fn clear(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        while at < bytes.len() && self.fault.is_none() {
            let step = match self.step(&bytes[at..]) {
                Ok(0) => break,
                Ok(step) => step,
                Err(error) => {
                    self.exchange.spoil();
                    self.fault = Some(error);
                    break;
                }
            };
            at += step;
        }
        at
    }

    fn step(&mut self, bytes: &[u8]) -> Result<usize, Error> {
        match &mut self.state {
            State::Tunnel | State::Close => Ok(bytes.len()),
            // Bytes that answer nothing would be taken for the answer to the next request, which is somebody else's.
            State::Rest if !self.asked || !self.exchange.has(OPEN) => Err(breach("bytes that answer no request")),
            State::Rest => {
                self.state = State::Head(Reader::default());
                self.interim = 0;
                self.step(bytes)
            }
            State::Head(reader) => match reader.read(bytes)? {
                None => Ok(0),
                Some(head) => {
                    let length = head.length;
                    if head.status == EARLY_HINTS {
                        self.exchange.hint(&bytes[..length]);
                    }
                    self.enter(head)?;
                    Ok(length)
                }
            },
            State::Length(left) => {
                let part = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                *left -= part as u64;
                if *left == 0 {
                    self.rest();
                }
                Ok(part)
            }
            State::Chunked(chunks) => {
                let part = chunks.read(bytes).map_err(|_| breach("bad chunks"))?;
                if chunks.done() {
                    self.rest();
                }
                Ok(part)
            }
        }
    }

    /// What follows a head (RFC 9112 section 6.3).
    fn enter(&mut self, head: Head) -> Result<(), Error> {
        let Head { status, framed, .. } = head;
        let framed_bodiless = framed.chunked || framed.length.is_some_and(|n| n > 0);
        match status {
            101 if self.exchange.has(SWITCH) => {
                self.state = State::Tunnel;
                return Ok(());
            }
            101 => return Err(Error::Protocol(Breach::Unasked101)),
            100..=199 => {
                self.interim += 1;
                if self.interim > INTERIM_MAX {
                    return Err(breach("interim answers without end"));
                }
                if framed_bodiless {
                    return Err(breach("an interim answer that announces a body"));
                }
                self.state = State::Head(Reader::default());
                return Ok(());
            }
            204 if framed.chunked => return Err(breach("204 with chunks")),
            204 | 304 => self.rest(),
            _ if self.exchange.has(HEAD) => self.rest(),
            _ => match framed {
                Framed { chunked: true, .. } => self.state = State::Chunked(Chunks::default()),
                Framed { length: Some(0), .. } => self.rest(),
                Framed { length: Some(length), .. } => self.state = State::Length(length),
                Framed { length: None, .. } => self.state = State::Close,
            },
        }
        Ok(())
    }

    fn rest(&mut self) {
        self.state = State::Rest;
        self.asked = false;
        self.exchange.end();
    }

    fn release(&mut self, buf: &mut ReadBuf<'_>) {
        let part = self.cleared.min(buf.remaining());
        buf.put_slice(&self.held[..part]);
        self.held.drain(..part);
        self.cleared -= part;
        if self.held.is_empty() {
            // A large head came once; a resting connection need not keep its room.
            self.held = Vec::new();
        }
    }

    fn write_begins(&mut self) {
        self.asked |= matches!(self.state, State::Rest) && self.exchange.has(OPEN);
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Strict<I> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if matches!(this.state, State::Tunnel) && this.cleared == 0 && this.held.is_empty() {
            return Pin::new(&mut this.io).poll_read(cx, buf);
        }
        loop {
            if this.cleared > 0 {
                this.release(buf);
                return Poll::Ready(Ok(()));
            }
            if let Some(error) = &this.fault {
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, error.clone())));
            }
            let before = buf.filled().len();
            ready!(Pin::new(&mut this.io).poll_read(cx, buf))?;
            let arrived = buf.filled().len() - before;
            if arrived == 0 {
                return Poll::Ready(Ok(()));
            }
            if this.held.is_empty() {
                let clear = this.clear(&buf.filled()[before..]);
                if this.fault.is_none() {
                    this.held.extend_from_slice(&buf.filled()[before + clear..]);
                }
                buf.set_filled(before + clear);
                if clear > 0 {
                    return Poll::Ready(Ok(()));
                }
            } else {
                this.held.extend_from_slice(&buf.filled()[before..]);
                buf.set_filled(before);
                let held = std::mem::take(&mut this.held);
                this.cleared = this.clear(&held);
                this.held = held;
            }
        }
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Strict<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.write_begins();
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, pieces: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        self.write_begins();
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

/// What would reach hyper of an answer to GET that arrives in pieces of this size, and whether the connection could be
/// used again.
pub fn passed(answer: &[u8], piece: usize) -> (Vec<u8>, bool) {
    let exchange = Arc::new(Exchange::default());
    exchange.begin(&Method::GET, &HeaderMap::new());
    let mut strict = Strict::new((), exchange.clone());
    strict.write_begins();
    let (mut all, mut held) = (Vec::new(), Vec::new());
    for part in answer.chunks(piece) {
        held.extend_from_slice(part);
        let clear = strict.clear(&held);
        all.extend(held.drain(..clear));
        if strict.fault.is_some() {
            break;
        }
    }
    (all, exchange.reusable())
}

/// A head that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Head {
    status: u16,
    framed: Framed,
    /// Its bytes.
    length: usize,
}

/// Reads the head of an answer that arrives in pieces.
#[derive(Debug, Default)]
struct Reader {
    lines: Lines,
    line: Option<(Version, u16)>,
    framed: Framed,
    fields: usize,
}

impl Reader {
    /// Reads `bytes`: those of before, and what has arrived since. `None` if the head is not whole yet.
    fn read(&mut self, bytes: &[u8]) -> Result<Option<Head>, Error> {
        while let Some(line) = self.lines.next(bytes).map_err(faulty)? {
            let Some((version, status)) = self.line else {
                self.line = Some(status_line(line).ok_or_else(|| breach("no status line of HTTP/1.1"))?);
                continue;
            };
            if line.is_empty() {
                let framed = self.framed.judge(version).map_err(faulty)?;
                return Ok(Some(Head { status, framed, length: self.lines.at() }));
            }
            self.fields += 1;
            if self.fields > FIELDS_MAX {
                return Err(breach("more than 100 fields in the head"));
            }
            let (name, value) = field(line).map_err(faulty)?;
            self.framed.field(name, value).map_err(faulty)?;
        }
        if bytes.len() > HEAD_BYTES { Err(breach("a head of more than 256 KiB")) } else { Ok(None) }
    }
}

/// Version and status (RFC 9112 section 4). The space in front of an empty reason may be missing: many leave it out, and
/// nobody reads on behind it.
fn status_line(line: &[u8]) -> Option<(Version, u16)> {
    let version = Version::read(line.get(..8)?)?;
    let rest = line[8..].strip_prefix(b" ")?;
    let digits = rest.get(..3)?;
    let reason = &rest[3..];
    let fine = digits.iter().all(u8::is_ascii_digit)
        && digits[0] != b'0'
        && (reason.is_empty() || reason[0] == b' ')
        && reason.iter().all(|b| crate::http1::is_field_byte(*b));
    let status = digits.iter().fold(0, |n, d| n * 10 + u16::from(d.wrapping_sub(b'0')));
    fine.then_some((version, status))
}

fn faulty(fault: Fault) -> Error {
    breach(fault.why)
}

fn breach(why: &str) -> Error {
    Error::Protocol(Breach::Framing(why.to_owned()))
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;

    use super::*;

    /// What hyper would get of an answer that arrives in pieces of this size, and how it ends.
    fn passed(method: Method, upgrade: bool, answer: &[u8], piece: usize) -> (Vec<u8>, Option<Error>, bool) {
        let exchange = Arc::new(Exchange::default());
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut mock = tokio_test_pieces(answer, piece);
            let mut strict = Strict::new(&mut mock, exchange.clone());
            let mut headers = HeaderMap::new();
            if upgrade {
                headers.insert(header::UPGRADE, header::HeaderValue::from_static("websocket"));
            }
            exchange.begin(&method, &headers);
            strict.write_begins();
            let mut all = Vec::new();
            let error = loop {
                match strict.read_buf(&mut all).await {
                    Ok(0) => break None,
                    Ok(_) => {}
                    Err(error) => break error.get_ref().and_then(|e| e.downcast_ref::<Error>()).cloned(),
                }
            };
            (all, error, exchange.reusable())
        })
    }

    fn tokio_test_pieces(bytes: &[u8], piece: usize) -> Pieces {
        Pieces(bytes.chunks(piece).map(<[u8]>::to_vec).collect())
    }

    struct Pieces(std::collections::VecDeque<Vec<u8>>);

    impl AsyncRead for Pieces {
        fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            if let Some(mut piece) = self.0.pop_front() {
                let rest = piece.split_off(piece.len().min(buf.remaining()));
                buf.put_slice(&piece);
                if !rest.is_empty() {
                    self.0.push_front(rest);
                }
            }
            Poll::Ready(Ok(()))
        }
    }

    fn judged(method: Method, answer: &str) -> (Vec<u8>, Option<Error>, bool) {
        let whole = passed(method.clone(), false, answer.as_bytes(), usize::MAX);
        for piece in [1, 2, 7, 64] {
            let slow = passed(method.clone(), false, answer.as_bytes(), piece);
            // Which of two faults is seen first may differ; that there is one may not.
            assert_eq!((&slow.0, slow.1.is_some(), slow.2), (&whole.0, whole.1.is_some(), whole.2), "{answer:?} in pieces of {piece}");
        }
        whole
    }

    #[test]
    fn good_answers_pass_byte_for_byte_and_leave_the_connection_usable() {
        for (method, answer) in [
            (Method::GET, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
            (Method::GET, "HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n"),
            (Method::GET, "HTTP/1.1 200 \r\ncontent-length:2\r\n\r\nok"),
            (Method::GET, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nok\r\n0\r\nX-T: 1\r\n\r\n"),
            (
                Method::GET,
                "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            ),
            (Method::HEAD, "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n"),
            (Method::HEAD, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
            (Method::GET, "HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n"),
            (Method::GET, "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n"),
            (Method::GET, "HTTP/1.1 999 Whatever \u{e4}\r\nContent-Length: 0\r\n\r\n"),
        ] {
            assert_eq!(judged(method, answer), (answer.as_bytes().to_vec(), None, true), "{answer:?}");
        }
    }

    #[test]
    fn a_body_that_ends_with_the_connection_passes_and_the_connection_is_not_used_again() {
        let answer = "HTTP/1.0 200 OK\r\n\r\nall of it\r\nHTTP/1.1 200 OK\r\n\r\n";
        assert_eq!(judged(Method::GET, answer), (answer.as_bytes().to_vec(), None, false));
    }

    #[test]
    fn bytes_behind_an_answer_never_reach_hyper_and_spoil_the_connection() {
        let stolen = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nstolen";
        for (method, answer) in [
            (Method::GET, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
            (Method::GET, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
            (Method::GET, "HTTP/1.1 204 No Content\r\n\r\n"),
            (Method::GET, "HTTP/1.1 304 Not Modified\r\n\r\n"),
            (Method::HEAD, "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n"),
        ] {
            let (passed, error, reusable) = judged(method, &format!("{answer}{stolen}"));
            assert_eq!((passed, reusable), (answer.as_bytes().to_vec(), false), "{answer:?}");
            assert!(error.is_some());
        }
    }

    #[test]
    fn what_could_be_read_two_ways_is_a_breach() {
        let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "A: b\r\n".repeat(FIELDS_MAX + 1));
        let flood = "HTTP/1.1 100 Continue\r\n\r\n".repeat(INTERIM_MAX as usize + 1);
        for answer in [
            "HTTP/1.1 200 OK\nContent-Length: 0\n\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\n",
            "HTTP/1.1 200 OK\r\nA: b\rContent-Length: 5\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n",
            "HTTP/1.1 200 OK\r\n A: b\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA : b\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA: \0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\n",
            "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na",
            "HTTP/1.1 200 OK\r\nContent-Length: 1,1\r\n\r\na",
            "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
            "HTTP/2.0 200 OK\r\n\r\n",
            "http/1.1 200 OK\r\n\r\n",
            "HTTP/1.1  200 OK\r\n\r\n",
            "HTTP/1.1 2000 OK\r\n\r\n",
            "HTTP/1.1 20 OK\r\n\r\n",
            "HTTP/1.1 099 OK\r\n\r\n",
            "HTTP/1.1 200OK\r\n\r\n",
            "\r\nHTTP/1.1 200 OK\r\n\r\n",
            "ICY 200 OK\r\n\r\n",
            "<html>",
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
            "HTTP/1.1 100 Continue\r\nContent-Length: 5\r\n\r\n",
            "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            &many,
            &flood,
        ] {
            let (_, error, reusable) = judged(Method::GET, answer);
            assert!(matches!(error, Some(Error::Protocol(_))) || answer.starts_with('<'), "{answer:?}: {error:?}");
            assert!(!reusable, "{answer:?}");
        }
    }

    #[test]
    fn a_head_without_end_is_a_breach() {
        let long = format!("HTTP/1.1 200 OK\r\nA: {}", "b".repeat(HEAD_BYTES));
        assert!(passed(Method::GET, false, long.as_bytes(), 4096).1.is_some());
    }

    #[test]
    fn after_a_switch_that_was_asked_for_everything_passes() {
        let answer = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n\x00\xff\n\r";
        for piece in [1, usize::MAX] {
            assert_eq!(passed(Method::GET, true, answer, piece), (answer.to_vec(), None, false));
        }
    }

    #[test]
    fn nothing_is_an_answer_before_something_was_asked() {
        let exchange = Arc::new(Exchange::default());
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut early = Strict::new(tokio_test_pieces(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 10), exchange.clone());
        exchange.begin(&Method::GET, &HeaderMap::new());
        let mut all = Vec::new();
        assert!(runtime.block_on(early.read_buf(&mut all)).is_err());
        assert!(all.is_empty() && !exchange.reusable());
    }
}
