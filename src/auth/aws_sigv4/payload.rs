//! What a signature says of the body, in constant memory (ruling D42): the hash of one that fits the buffer, else
//! `UNSIGNED-PAYLOAD` or signed chunks where the service takes them, else the hash of one that was kept on disk.

use aws_lc_rs::digest;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, EXPECT, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::Body as _;

use super::chunks::Unchunked;
use crate::body::{self, Begun, Body};
use crate::call::Call;
use crate::error::Error;
use crate::hex::hex;

/// The hash of nothing.
pub const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
/// Largest body that is kept on disk where no limit is set: what S3 takes at once.
const SPOOL_MOST: u64 = 5 << 30;

/// Of the client's own signature.
pub const DECODED_LENGTH: HeaderName = HeaderName::from_static("x-amz-decoded-content-length");

/// `payload`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// As the service, the size and the connection demand.
    Auto,
    /// Always the hash.
    Signed,
    /// Never.
    Unsigned,
    /// Always signed chunks.
    Streaming,
}

/// What becomes of a body.
#[derive(Debug, PartialEq, Eq)]
pub enum Payload {
    /// Its hash is signed.
    Hash(String),
    /// It is not signed.
    Unsigned,
    /// It goes out in signed chunks; so many bytes are data.
    Chunks(u64),
}

impl Payload {
    /// What stands in the signature and in `x-amz-content-sha256`.
    pub fn word(&self) -> &str {
        match self {
            Self::Hash(hash) => hash,
            Self::Unsigned => "UNSIGNED-PAYLOAD",
            Self::Chunks(_) => "STREAMING-AWS4-HMAC-SHA256-PAYLOAD",
        }
    }
}

/// How bodies of a resource are signed.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// What the operator wants.
    pub mode: Mode,
    /// Whether the service takes bodies that are not signed, or signed in chunks.
    pub streams: bool,
    /// Whether TLS protects the body.
    pub secure: bool,
    /// Largest body that is held whole.
    pub buffer: u64,
    /// `limits.request_body`.
    pub largest: Option<u64>,
}

impl Rules {
    /// What needs no waiting; `None` where the body must be read.
    pub fn at_once(&self, call: &Call) -> Option<Payload> {
        if call.headers.contains_key(DECODED_LENGTH) {
            return None;
        }
        match (&call.body, self.mode) {
            (_, Mode::Unsigned) => Some(Payload::Unsigned),
            (Body::Empty, _) => Some(Payload::Hash(EMPTY.into())),
            (Body::Full(bytes), Mode::Auto | Mode::Signed) => Some(Payload::Hash(hash(bytes))),
            _ => None,
        }
    }

    /// Settles the body of a call, and the fields that frame it.
    ///
    /// # Errors
    /// [`Error::BodyTooLarge`] for one that can neither be held nor streamed, [`Error::BadRequest`] for framing that
    /// does not hold, or what the body itself fails with.
    pub async fn settle(&self, call: &mut Call) -> Result<Payload, Error> {
        unchunk(call)?;
        if let Some(payload) = self.at_once(call) {
            return Ok(payload);
        }
        let length = call.body.size_hint().exact();
        let body = std::mem::take(&mut call.body);
        if let (Mode::Streaming, Some(length)) = (self.mode, length) {
            call.body = body;
            return Ok(Payload::Chunks(length));
        }
        let body = match body::begin(body, self.buffer).await? {
            Begun::Whole(bytes) => {
                let payload = if self.mode == Mode::Streaming { Payload::Chunks(bytes.len() as u64) } else { Payload::Hash(hash(&bytes)) };
                reframe(call, bytes.len() as u64);
                call.body = Body::Full(bytes);
                return Ok(payload);
            }
            Begun::Longer(body) => body,
        };
        if let Some(length) = length.filter(|_| self.streams && self.mode == Mode::Auto) {
            call.body = body;
            return Ok(if self.secure { Payload::Unsigned } else { Payload::Chunks(length) });
        }
        let mut context = digest::Context::new(&digest::SHA256);
        let (largest, name) =
            self.largest.map_or((SPOOL_MOST, "what is kept on disk to be signed"), |limit| (limit, "limits.request_body"));
        let (body, length) = body::spool(body, &std::env::temp_dir(), largest, name, |piece| context.update(piece)).await?;
        reframe(call, length);
        call.body = body;
        Ok(if self.mode == Mode::Streaming { Payload::Chunks(length) } else { Payload::Hash(hex(context.finish().as_ref())) })
    }
}

fn hash(bytes: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, bytes).as_ref())
}

/// The whole body has come, and so long it is.
fn reframe(call: &mut Call, length: u64) {
    call.headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    call.headers.remove(TRANSFER_ENCODING);
    call.headers.remove(EXPECT);
    call.expects_continue = false;
}

/// Takes a client's own signed framing off (ruling G8), whose signatures are of no use to the service. What the client
/// says of the checksum behind its body goes, as there is nothing behind it any more.
fn unchunk(call: &mut Call) -> Result<(), Error> {
    let Some(length) = call.headers.remove(DECODED_LENGTH) else { return Ok(()) };
    let wrong = || Error::BadRequest("X-Amz-Decoded-Content-Length is no length.".into(), "Send the length of the body.".into());
    let text = length.to_str().ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit())).ok_or_else(wrong)?;
    let length: u64 = text.parse().map_err(|_| wrong())?;
    for name in ["x-amz-trailer", "x-amz-sdk-checksum-algorithm", "trailer"] {
        call.headers.remove(name);
    }
    strip_encoding(&mut call.headers);
    call.headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    call.headers.remove(TRANSFER_ENCODING);
    let body = std::mem::take(&mut call.body);
    call.body = Body::Stream(Box::pin(Unchunked::new(body, length)));
    Ok(())
}

/// `Content-Encoding` without `aws-chunked`, which only frames.
fn strip_encoding(headers: &mut HeaderMap) {
    let all: Vec<String> = headers
        .get_all(CONTENT_ENCODING)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|one| one.trim().to_owned())
        .filter(|one| !one.is_empty() && !one.eq_ignore_ascii_case("aws-chunked"))
        .collect();
    headers.remove(CONTENT_ENCODING);
    if let Ok(value) = HeaderValue::try_from(all.join(","))
        && !all.is_empty()
    {
        headers.insert(CONTENT_ENCODING, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::support::call_with;

    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn rules(mode: Mode, streams: bool, secure: bool) -> Rules {
        Rules { mode, streams, secure, buffer: 10, largest: Some(1000) }
    }

    /// A body that arrives as this many bytes of `x`, with a known length or without.
    fn arriving(length: usize, known: bool) -> Call {
        let mut call = call_with("", b"");
        let bytes = bytes::Bytes::from(vec![b'x'; length]);
        call.headers.insert("expect", HeaderValue::from_static("100-continue"));
        call.body = Body::Stream(Box::pin(Arriving { bytes, known }));
        call
    }

    #[derive(Debug)]
    struct Arriving {
        bytes: bytes::Bytes,
        known: bool,
    }

    impl http_body::Body for Arriving {
        type Data = bytes::Bytes;
        type Error = Error;

        fn poll_frame(
            mut self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<http_body::Frame<bytes::Bytes>, Error>>> {
            let part = self.bytes.len().min(4);
            std::task::Poll::Ready((part > 0).then(|| Ok(http_body::Frame::data(self.bytes.split_to(part)))))
        }

        fn size_hint(&self) -> http_body::SizeHint {
            if self.known { http_body::SizeHint::with_exact(self.bytes.len() as u64) } else { http_body::SizeHint::default() }
        }
    }

    fn settled(rules: Rules, mut call: Call) -> (Result<Payload, Error>, Vec<u8>, Call) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let payload = rules.settle(&mut call).await;
            let body = body::collect(std::mem::take(&mut call.body), u64::MAX, "test").await.unwrap();
            (payload, body.to_vec(), call)
        })
    }

    fn hash_of(length: usize) -> Payload {
        Payload::Hash(hash(&vec![b'x'; length]))
    }

    #[test]
    fn a_body_that_fits_the_buffer_is_hashed_and_a_larger_one_goes_as_the_service_takes_it() {
        let auto = |streams, secure| rules(Mode::Auto, streams, secure);
        for (rules, length, known, expected) in [
            (auto(true, true), 10, true, hash_of(10)),
            (auto(true, true), 10, false, hash_of(10)),
            (auto(true, true), 11, true, Payload::Unsigned),
            (auto(true, false), 11, true, Payload::Chunks(11)),
            (auto(true, true), 11, false, hash_of(11)),
            (auto(false, true), 11, true, hash_of(11)),
            (rules(Mode::Signed, true, true), 11, true, hash_of(11)),
            (rules(Mode::Streaming, true, true), 5, true, Payload::Chunks(5)),
            (rules(Mode::Streaming, true, true), 5, false, Payload::Chunks(5)),
            (rules(Mode::Streaming, true, true), 11, false, Payload::Chunks(11)),
            (rules(Mode::Unsigned, true, true), 5, true, Payload::Unsigned),
        ] {
            let (payload, body, call) = settled(rules, arriving(length, known));
            assert_eq!((payload.unwrap(), body), (expected, vec![b'x'; length]), "{rules:?} {length} {known}");
            // What was read has told the client to send it, and has a length.
            if !known {
                assert_eq!(call.headers["content-length"], length.to_string().as_str());
                assert!(!call.headers.contains_key("expect"));
            }
        }
    }

    #[test]
    fn a_body_beyond_the_limit_is_refused_where_it_would_have_to_be_kept() {
        let (payload, ..) = settled(rules(Mode::Auto, false, true), arriving(1001, false));
        assert_eq!(payload.unwrap_err(), Error::BodyTooLarge(1000, "limits.request_body".into()));
    }

    #[test]
    fn a_body_at_hand_or_none_needs_no_waiting() {
        let rules = rules(Mode::Auto, false, false);
        assert_eq!(rules.at_once(&call_with("", b"")), Some(Payload::Hash(EMPTY.into())));
        assert_eq!(rules.at_once(&call_with("", b"abc")), Some(Payload::Hash(ABC.into())));
        assert_eq!(rules.at_once(&arriving(1, true)), None);
    }

    #[test]
    fn a_clients_own_chunks_are_taken_apart_with_all_that_is_said_of_them() {
        let mut call = call_with("", b"3;chunk-signature=0\r\nabc\r\n0;chunk-signature=0\r\n\r\n");
        for (name, value) in [
            ("x-amz-decoded-content-length", "3"),
            ("content-encoding", "aws-chunked, gzip"),
            ("x-amz-trailer", "x-amz-checksum-crc32"),
            ("x-amz-sdk-checksum-algorithm", "CRC32"),
        ] {
            call.headers.insert(HeaderName::from_static(name), value.parse().unwrap());
        }
        let (payload, body, call) = settled(rules(Mode::Auto, true, true), call);
        assert_eq!((payload.unwrap(), body.as_slice()), (Payload::Hash(ABC.into()), &b"abc"[..]));
        assert_eq!((call.headers["content-length"].as_bytes(), call.headers["content-encoding"].as_bytes()), (&b"3"[..], &b"gzip"[..]));
        assert_eq!(call.headers.len(), 2, "{:?}", call.headers);
    }

    #[test]
    fn a_decoded_length_that_is_none_is_refused() {
        for wrong in ["", "-1", "+1", "1,1", "x", "99999999999999999999"] {
            let mut call = call_with("", b"0\r\n\r\n");
            call.headers.insert(DECODED_LENGTH, wrong.parse().unwrap());
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            assert!(runtime.block_on(rules(Mode::Auto, true, true).settle(&mut call)).is_err(), "{wrong}");
        }
    }
}
