//! A body in signed chunks (`STREAMING-AWS4-HMAC-SHA256-PAYLOAD`): each is signed over the signature before it, so that a
//! body of any size is authenticated with the memory of one chunk.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use aws_lc_rs::digest;
use bytes::{Buf as _, Bytes, BytesMut};
use http_body::{Frame, SizeHint};

use super::payload::EMPTY;
use crate::aws::key::{Day, Moment};
use crate::body::Body;
use crate::error::Error;
use crate::hex::push_hex;

/// Bytes of a chunk, but the last. AWS wants at least 8 KiB.
const CHUNK: u64 = 64 * 1024;
/// `;chunk-signature=` with its 64 digits, and two line ends.
const FRAME: u64 = 17 + 64 + 4;

/// A body that signs itself chunk by chunk.
#[derive(Debug)]
pub struct Chunks {
    inner: Body,
    day: Arc<Day>,
    moment: Moment,
    signature: String,
    /// Bytes of the body that are still to come.
    left: u64,
    /// What is still to be sent of what is framed.
    framed: u64,
    gathered: BytesMut,
    ended: bool,
}

/// The length on the wire of a body of this length.
pub fn framed(length: u64) -> u64 {
    let of = |size: u64| hex_length(size) + FRAME + size;
    let rest = length % CHUNK;
    (length / CHUNK) * of(CHUNK) + if rest > 0 { of(rest) } else { 0 } + of(0)
}

fn hex_length(size: u64) -> u64 {
    u64::from((64 - size.leading_zeros()).div_ceil(4).max(1))
}

impl Chunks {
    /// Signs `length` bytes of `inner`; `seed` is the signature of the head.
    pub fn new(inner: Body, length: u64, day: Arc<Day>, moment: Moment, seed: String) -> Self {
        Self { inner, day, moment, signature: seed, left: length, framed: framed(length), gathered: BytesMut::new(), ended: false }
    }

    /// A chunk with its signature and line ends.
    fn frame(&mut self, data: &[u8]) -> Bytes {
        let mut text = String::with_capacity(320);
        for part in ["AWS4-HMAC-SHA256-PAYLOAD\n", self.moment.text(), "\n", &self.day.scope, "\n", &self.signature, "\n", EMPTY, "\n"] {
            text.push_str(part);
        }
        push_hex(digest::digest(&digest::SHA256, data).as_ref(), &mut text);
        self.signature = self.day.sign(&text);
        let mut out = BytesMut::with_capacity(data.len() + 96);
        out.extend_from_slice(format!("{:x};chunk-signature={}\r\n", data.len(), self.signature).as_bytes());
        out.extend_from_slice(data);
        out.extend_from_slice(b"\r\n");
        self.framed = self.framed.saturating_sub(out.len() as u64);
        out.freeze()
    }
}

impl http_body::Body for Chunks {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = self.get_mut();
        if this.ended {
            return Poll::Ready(None);
        }
        // What has been gathered belongs to the chunk that is being filled.
        let want = this.left.min(CHUNK);
        while (this.gathered.len() as u64) < want {
            let data = match ready!(Pin::new(&mut this.inner).poll_frame(cx)) {
                Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => Bytes::new(),
            };
            if data.is_empty() && http_body::Body::is_end_stream(&this.inner) {
                let why = "The body is shorter than its announced length.";
                return Poll::Ready(Some(Err(Error::BadRequest(why.into(), "Send as much as Content-Length says.".into()))));
            }
            this.gathered.extend_from_slice(&data);
        }
        // The chunk is at most as long as a usize, as it is in memory.
        let chunk = this.gathered.split_to(usize::try_from(want).unwrap_or(0));
        this.left -= chunk.len() as u64;
        this.ended = chunk.is_empty();
        Poll::Ready(Some(Ok(Frame::data(this.frame(&chunk)))))
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.framed)
    }
}

/// Takes a client's own `aws-chunked` framing off. Its signatures are by a key of its own, so they are not looked at, and
/// its trailers are dropped.
#[derive(Debug)]
pub struct Unchunked {
    inner: Body,
    /// Bytes that are announced and still to come.
    left: u64,
    state: State,
    pending: BytesMut,
}

#[derive(Debug)]
enum State {
    /// At a chunk's first line.
    Size,
    /// Inside a chunk, with so many bytes to come.
    Data(u64),
    /// Behind a chunk, before its line end.
    End,
    /// Behind the last chunk: trailers, which are dropped.
    Trailers,
    /// All is read.
    Done,
}

/// Longest line of the framing.
const LINE_MOST: usize = 1024;
/// Most lines behind the last chunk.
const TRAILERS_MOST: usize = 16;

impl Unchunked {
    /// Unframes `inner`, of which `length` bytes are data.
    pub fn new(inner: Body, length: u64) -> Self {
        Self { inner, left: length, state: State::Size, pending: BytesMut::new() }
    }

    /// The next line without its end, once it is there.
    fn line(&mut self) -> Result<Option<Bytes>, Error> {
        let Some(end) = memchr::memmem::find(&self.pending, b"\r\n") else {
            return if self.pending.len() > LINE_MOST { Err(broken()) } else { Ok(None) };
        };
        let line = self.pending.split_to(end).freeze();
        self.pending.advance(2);
        Ok(Some(line))
    }

    /// As much as can be said without reading on. `None` where more is needed.
    fn step(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            match self.state {
                State::Size => {
                    let Some(line) = self.line()? else { return Ok(None) };
                    let size = line.split(|b| *b == b';').next().and_then(|size| std::str::from_utf8(size).ok()).unwrap_or_default();
                    let legal = !size.is_empty() && size.len() <= 16 && size.bytes().all(|b| b.is_ascii_hexdigit());
                    let size = u64::from_str_radix(size, 16).ok().filter(|_| legal).ok_or_else(broken)?;
                    self.left = self.left.checked_sub(size).ok_or_else(broken)?;
                    self.state = if size > 0 { State::Data(size) } else { State::Trailers };
                }
                State::Data(left) => {
                    if self.pending.is_empty() {
                        return Ok(None);
                    }
                    let part = usize::try_from(left).unwrap_or(usize::MAX).min(self.pending.len());
                    self.state = if part as u64 == left { State::End } else { State::Data(left - part as u64) };
                    return Ok(Some(self.pending.split_to(part).freeze()));
                }
                State::End => {
                    if self.pending.len() < 2 {
                        return Ok(None);
                    }
                    if !self.pending.starts_with(b"\r\n") {
                        return Err(broken());
                    }
                    self.pending.advance(2);
                    self.state = State::Size;
                }
                State::Trailers | State::Done => return Ok(None),
            }
        }
    }

    /// The end of the client's body: everything that was announced must have come.
    fn finish(&mut self) -> Result<(), Error> {
        let lines = memchr::memchr_iter(b'\n', &self.pending).count();
        let whole = matches!(self.state, State::Trailers) && self.left == 0 && lines <= TRAILERS_MOST;
        self.state = State::Done;
        if whole { Ok(()) } else { Err(broken()) }
    }
}

fn broken() -> Error {
    Error::BadRequest(
        "The aws-chunked body is malformed.".into(),
        "Send x-amz-decoded-content-length bytes in chunks, or a plain body.".into(),
    )
}

impl http_body::Body for Unchunked {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = self.get_mut();
        loop {
            match this.step() {
                Ok(Some(data)) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Ok(None) if matches!(this.state, State::Done) => return Poll::Ready(None),
                Ok(None) => {}
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
            match ready!(Pin::new(&mut this.inner).poll_frame(cx)) {
                Some(Ok(frame)) => this.pending.extend_from_slice(&frame.into_data().unwrap_or_default()),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => {
                    if let Err(error) = this.finish() {
                        return Poll::Ready(Some(Err(error)));
                    }
                    return Poll::Ready(None);
                }
            }
            if matches!(this.state, State::Trailers) && this.pending.len() > LINE_MOST * TRAILERS_MOST {
                return Poll::Ready(Some(Err(broken())));
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.state, State::Done)
    }

    fn size_hint(&self) -> SizeHint {
        let coming = if let State::Data(left) = self.state { left } else { 0 };
        SizeHint::with_exact(self.left + coming)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::auth::support::now;
    use crate::aws::key::Keys;
    use crate::body::collect;
    use crate::secret::Secret;

    fn all(body: impl crate::body::Streamed + 'static) -> Result<Bytes, Error> {
        now(collect(Body::Stream(Box::pin(body)), u64::MAX, "test"))
    }

    /// AWS's example with chunks of 64 KiB ("Signature calculations: transferring payload in multiple chunks").
    #[test]
    fn the_example_of_aws_is_signed_as_printed_there() {
        let time = UNIX_EPOCH + Duration::from_secs(1_369_353_600);
        let moment = Moment::new(time);
        let secret = Secret::new("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".into());
        let keys = Keys::new("AKIAIOSFODNN7EXAMPLE".into(), secret, "us-east-1".into(), "s3".into());
        let seed = "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9".to_owned();
        let body = Body::Full(vec![b'a'; 66560].into());
        let sent = all(Chunks::new(body, 66560, keys.day(time, &moment), moment, seed)).unwrap();
        assert_eq!(sent.len(), 66824);
        assert_eq!(framed(66560), 66824);
        let text = String::from_utf8(sent.to_vec()).unwrap();
        for line in [
            "10000;chunk-signature=ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648\r\n",
            "400;chunk-signature=0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497\r\n",
            "0;chunk-signature=b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9\r\n\r\n",
        ] {
            assert!(text.contains(line), "{line}");
        }
    }

    #[test]
    fn what_is_framed_comes_out_again_whatever_the_pieces() {
        let time = UNIX_EPOCH;
        let keys = Keys::new("id".into(), Secret::new("secret".into()), "r".into(), "s3".into());
        for length in [0, 1, 15, 16, 65535, 65536, 65537, 200_000] {
            let data: Vec<u8> = (0..length).map(|n: usize| (n % 251) as u8).collect();
            let moment = Moment::new(time);
            let chunks = Chunks::new(Body::Full(data.clone().into()), length as u64, keys.day(time, &moment), moment, "seed".into());
            let sent = all(chunks).unwrap();
            assert_eq!(sent.len() as u64, framed(length as u64), "{length}");
            assert_eq!(all(Unchunked::new(Body::Full(sent.clone()), length as u64)).unwrap(), data, "{length}");
            assert!(all(Unchunked::new(Body::Full(sent.slice(..sent.len() - 5)), length as u64)).is_err() || length == 0);
            assert!(all(Unchunked::new(Body::Full(sent), length as u64 + 1)).is_err());
        }
    }

    #[test]
    fn a_clients_framing_with_trailers_is_read_and_a_broken_one_refused() {
        let read = |text: &'static str, length: u64| all(Unchunked::new(Body::Full(text.into()), length));
        assert_eq!(read("3\r\nabc\r\n0\r\nx-amz-checksum-crc32:AAAA\r\n\r\n", 3).unwrap(), "abc");
        assert_eq!(read("3;chunk-signature=00\r\nabc\r\n2\r\nde\r\n0;chunk-signature=00\r\n\r\n", 5).unwrap(), "abcde");
        for (text, length) in [
            ("", 0),
            ("3\r\nabc\r\n", 3),
            ("3\r\nabcd\r\n0\r\n\r\n", 3),
            ("4\r\nabcd\r\n0\r\n\r\n", 3),
            ("2\r\nab\r\n0\r\n\r\n", 3),
            ("-1\r\n\r\n", 0),
            ("+3\r\nabc\r\n0\r\n\r\n", 3),
            ("fffffffffffffffff\r\n", 3),
            ("x\r\n", 3),
        ] {
            assert!(read(text, length).is_err(), "{text:?}");
        }
        assert!(all(Unchunked::new(Body::Full("1".repeat(2 * LINE_MOST).into()), 3)).is_err());
    }
}
