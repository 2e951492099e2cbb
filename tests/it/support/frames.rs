//! HTTP/2 by hand: frames over a socket, header blocks in HPACK's plain literals, and what came back.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::PATIENCE;

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PUSH_PROMISE: u8 = 5;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;
pub const PADDED: u8 = 8;

/// One frame, whatever it says.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A string without Huffman coding (RFC 7541 section 5.2).
pub fn string(text: &[u8]) -> Vec<u8> {
    let mut out = integer(text.len());
    out.extend_from_slice(text);
    out
}

/// An integer with a prefix of seven bits whose first bit is zero.
fn integer(mut n: usize) -> Vec<u8> {
    if n < 127 {
        return vec![n as u8];
    }
    let mut out = vec![127];
    n -= 127;
    while n >= 128 {
        out.push((n % 128) as u8 | 128);
        n /= 128;
    }
    out.push(n as u8);
    out
}

/// A header block of literals that are never indexed.
pub fn block<N: AsRef<[u8]>, V: AsRef<[u8]>>(fields: &[(N, V)]) -> Vec<u8> {
    fields.iter().flat_map(|(name, value)| [vec![0x10], string(name.as_ref()), string(value.as_ref())].concat()).collect()
}

/// The pseudo-fields of a request, and more.
pub fn request(method: &str, path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let pseudo = [(":method", method), (":scheme", "http"), (":authority", "localhost"), (":path", path)];
    block(&[&pseudo[..], more].concat())
}

/// What came back on one stream.
#[derive(Debug, Default, Clone)]
pub struct Answer {
    pub status: Option<u16>,
    pub body: Vec<u8>,
    /// Header blocks: the head, and trailers.
    pub blocks: usize,
    pub ended: bool,
    /// The code of an RST_STREAM.
    pub reset: Option<u32>,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn over(&self) -> bool {
        self.ended || self.reset.is_some()
    }
}

/// A connection that speaks HTTP/2 frame by frame.
pub struct Http2 {
    pub stream: TcpStream,
    held: Vec<u8>,
    pub answers: BTreeMap<u32, Answer>,
    /// The code of a GOAWAY, and the last stream that it names.
    pub goaway: Option<(u32, u32)>,
    pub closed: bool,
    pub pongs: usize,
    /// Whether the peer's frames are acknowledged and windows opened again.
    pub polite: bool,
}

impl Http2 {
    /// Connects, and sends nothing.
    pub fn silent(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self { stream, held: Vec::new(), answers: BTreeMap::new(), goaway: None, closed: false, pongs: 0, polite: true }
    }

    /// Connects, and sends the preface with empty SETTINGS.
    pub fn connect(port: u16) -> Self {
        let mut this = Self::silent(port);
        this.send(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat());
        this
    }

    /// Sends bytes; a peer that has gone is found when reading.
    pub fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// Sends a whole request without a body on a stream.
    pub fn get(&mut self, stream: u32, path: &str) {
        self.send(&frame(HEADERS, END_STREAM | END_HEADERS, stream, &request("GET", path, &[])));
    }

    /// Reads until `done` says so, or the peer closes. False when patience ends first.
    pub fn until(&mut self, done: impl Fn(&Self) -> bool) -> bool {
        self.until_within(PATIENCE, done)
    }

    pub fn until_within(&mut self, patience: Duration, done: impl Fn(&Self) -> bool) -> bool {
        let until = Instant::now() + patience;
        self.stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let mut part = [0; 16 * 1024];
        while !done(self) && !self.closed {
            if Instant::now() > until {
                return false;
            }
            match self.stream.read(&mut part) {
                Ok(0) => self.closed = true,
                Ok(read) => self.take(&part[..read]),
                Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {}
                Err(_) => self.closed = true,
            }
        }
        true
    }

    /// Waits for a stream to be over, one way or another.
    pub fn answer(&mut self, stream: u32) -> Answer {
        let waited = self.until(|h| h.answers.get(&stream).is_some_and(Answer::over) || h.goaway.is_some_and(|(code, _)| code != 0));
        assert!(waited, "the stream hangs: {:?}", self.answers.get(&stream));
        self.answers.get(&stream).cloned().unwrap_or_default()
    }

    fn take(&mut self, bytes: &[u8]) {
        self.held.extend_from_slice(bytes);
        while self.held.len() >= 9 {
            let length = usize::from(self.held[0]) << 16 | usize::from(self.held[1]) << 8 | usize::from(self.held[2]);
            if self.held.len() < 9 + length {
                return;
            }
            let whole: Vec<u8> = self.held.drain(..9 + length).collect();
            let stream = u32::from_be_bytes(whole[5..9].try_into().unwrap()) & 0x7fff_ffff;
            self.see(whole[3], whole[4], stream, &whole[9..]);
        }
    }

    fn see(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let word = |at: usize| u32::from_be_bytes(payload[at..at + 4].try_into().unwrap());
        match kind {
            SETTINGS if flags & ACK == 0 && self.polite => self.send(&frame(SETTINGS, ACK, 0, &[])),
            PING if flags & ACK != 0 => self.pongs += 1,
            PING if self.polite => self.send(&frame(PING, ACK, 0, payload)),
            GOAWAY => self.goaway = Some((word(4), word(0))),
            RST_STREAM => self.answers.entry(stream).or_default().reset = Some(word(0)),
            HEADERS => {
                let answer = self.answers.entry(stream).or_default();
                answer.status = answer.status.or(Some(status(payload)));
                answer.blocks += 1;
                answer.ended |= flags & END_STREAM != 0;
            }
            DATA => {
                let answer = self.answers.entry(stream).or_default();
                answer.body.extend_from_slice(payload);
                answer.ended |= flags & END_STREAM != 0;
                if self.polite && !payload.is_empty() {
                    let grow = u32::try_from(payload.len()).unwrap().to_be_bytes();
                    self.send(&frame(WINDOW_UPDATE, 0, 0, &grow));
                    self.send(&frame(WINDOW_UPDATE, 0, stream, &grow));
                }
            }
            _ => {}
        }
    }
}

/// The status at the front of a header block: from the static table, or three digits.
fn status(block: &[u8]) -> u16 {
    // Size updates of the dynamic table may come first.
    let at = block.iter().position(|b| b & 0xe0 != 0x20).unwrap();
    match block[at] {
        b @ 0x88..=0x8e => [200, 204, 206, 304, 400, 404, 500][usize::from(b - 0x88)],
        // Beyond the static table: an earlier answer of this connection.
        b if b & 0x80 != 0 => 0,
        _ if block[at + 1] & 0x80 == 0 => std::str::from_utf8(&block[at + 2..at + 5]).unwrap().parse().unwrap(),
        _ => digits(&block[at + 2..at + 2 + usize::from(block[at + 1] & 0x7f)]),
    }
}

/// Digits in Huffman coding (RFC 7541 appendix B): five bits for 0 to 2, six for the others.
fn digits(coded: &[u8]) -> u16 {
    let bits: Vec<u16> = coded.iter().flat_map(|b| (0..8).rev().map(move |i| u16::from(b >> i & 1))).collect();
    let take = |at: usize, n: usize| bits.get(at..at + n).map(|b| b.iter().fold(0, |v, b| v << 1 | b));
    let (mut at, mut value) = (0, 0);
    while let Some(five) = take(at, 5) {
        if five <= 2 {
            value = value * 10 + five;
            at += 5;
        } else if let Some(six) = take(at, 6).filter(|six| (0b01_1001..=0b01_1111).contains(six)) {
            value = value * 10 + six - 0b01_1001 + 3;
            at += 6;
        } else {
            break;
        }
    }
    value
}
