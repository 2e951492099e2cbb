//! A body that can be sent a second time: what has been read of it is kept, up to a limit, and what has not been read
//! waits where it is. Nothing is read ahead, so keeping costs no time.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http_body::{Body as _, Frame, SizeHint};

use super::{Body, Gate};
use crate::error::Error;

/// The body that is sent first.
#[derive(Debug)]
pub struct Kept(Rc<RefCell<Shared>>);

/// The way to send it again.
#[derive(Debug)]
pub enum Spare {
    /// It was at hand, or there was none.
    Whole(Option<Bytes>),
    /// It is being read.
    Shared(Rc<RefCell<Shared>>),
}

/// Pieces smaller than this are put together: a piece that is kept costs more than its bytes, and keeps the whole of the
/// buffer that it came in.
const SMALL: usize = 8 * 1024;
/// How large what was put together becomes.
const TOGETHER: usize = 64 * 1024;

/// What was read of a body, piece by piece. However it comes, it takes little more room than its bytes.
#[derive(Debug, Default)]
pub struct Pieces {
    done: VecDeque<Bytes>,
    small: BytesMut,
}

impl Pieces {
    /// Adds a piece.
    pub fn push(&mut self, piece: Bytes) {
        if piece.len() < SMALL {
            self.small.extend_from_slice(&piece);
            if self.small.len() < TOGETHER {
                return;
            }
            self.settle();
        } else {
            self.settle();
            self.done.push_back(piece);
        }
    }

    /// All of them, in order. None is empty.
    pub fn into_queue(mut self) -> VecDeque<Bytes> {
        self.settle();
        self.done
    }

    fn settle(&mut self) {
        if !self.small.is_empty() {
            self.done.push_back(std::mem::take(&mut self.small).freeze());
        }
    }
}

/// What both ends hold.
#[derive(Debug)]
pub struct Shared {
    /// `None` once it was taken back.
    inner: Option<Body>,
    read: Pieces,
    size: u64,
    limit: u64,
    /// More was read than is kept.
    lost: bool,
}

impl Body {
    /// Keeps up to `limit` bytes of what will be read, for a second attempt.
    pub fn spare(&mut self, limit: u64) -> Spare {
        match self {
            Self::Empty => Spare::Whole(None),
            Self::Full(bytes) => Spare::Whole(Some(bytes.clone())),
            _ => {
                let shared = Shared { inner: Some(std::mem::take(self)), read: Pieces::default(), size: 0, limit, lost: false };
                let shared = Rc::new(RefCell::new(shared));
                *self = Self::Kept(Kept(shared.clone()));
                Spare::Shared(shared)
            }
        }
    }
}

impl Spare {
    /// Whether the whole body could be sent again.
    pub fn is_whole(&self) -> bool {
        match self {
            Self::Whole(_) => true,
            Self::Shared(shared) => !shared.borrow().lost,
        }
    }

    /// Whether the first attempt has read the body to its end.
    pub fn is_read(&self) -> bool {
        match self {
            Self::Whole(_) => true,
            Self::Shared(shared) => shared.borrow().inner.as_ref().is_none_or(|body| body.is_end_stream()),
        }
    }

    /// The body for the second attempt; `None` where not all of it was kept. The first attempt can read no further.
    pub fn take(self) -> Option<Body> {
        let shared = match self {
            Self::Whole(bytes) => return Some(bytes.map_or(Body::Empty, Body::Full)),
            Self::Shared(shared) => shared,
        };
        let mut shared = shared.borrow_mut();
        let rest = shared.inner.take().filter(|_| !shared.lost)?;
        let read = std::mem::take(&mut shared.read).into_queue();
        Some(if read.is_empty() { rest } else { again(read, rest) })
    }
}

impl Kept {
    /// Holds the body back until the gate opens.
    pub fn gate(&mut self) -> Option<Gate> {
        self.0.borrow_mut().inner.as_mut()?.gate()
    }
}

impl http_body::Body for Kept {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let mut shared = self.0.borrow_mut();
        let Some(inner) = &mut shared.inner else {
            return Poll::Ready(Some(Err(Error::Internal("the body has gone to a second attempt".into()))));
        };
        let polled = Pin::new(inner).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            shared.keep(frame);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.0.borrow().inner.as_ref().is_none_or(http_body::Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.0.borrow().inner.as_ref().map(http_body::Body::size_hint).unwrap_or_default()
    }
}

impl Shared {
    fn keep(&mut self, frame: &Frame<Bytes>) {
        let Some(data) = frame.data_ref() else {
            // Trailers end a body, and whoever sends some sends no body that anyone would repeat.
            return self.lose();
        };
        self.size += data.len() as u64;
        if self.size > self.limit {
            return self.lose();
        }
        if !self.lost {
            self.read.push(data.clone());
        }
    }

    fn lose(&mut self) {
        self.lost = true;
        self.read = Pieces::default();
    }
}

/// A body that begins with what was read of it.
pub fn again(read: VecDeque<Bytes>, rest: Body) -> Body {
    Body::Stream(Box::pin(Again { read, rest }))
}

/// What was read, then the rest.
#[derive(Debug)]
struct Again {
    read: VecDeque<Bytes>,
    rest: Body,
}

impl http_body::Body for Again {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match self.read.pop_front() {
            Some(data) => Poll::Ready(Some(Ok(Frame::data(data)))),
            None => Pin::new(&mut self.rest).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.read.is_empty() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let read: u64 = self.read.iter().map(|data| data.len() as u64).sum();
        let rest = self.rest.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower() + read);
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper + read);
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;
    use crate::body::collect;

    /// Pieces as they would arrive.
    #[derive(Debug)]
    struct Pieces(VecDeque<&'static [u8]>);

    impl http_body::Body for Pieces {
        type Data = Bytes;
        type Error = Error;

        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
            Poll::Ready(self.0.pop_front().map(|piece| Ok(Frame::data(Bytes::from_static(piece)))))
        }

        fn is_end_stream(&self) -> bool {
            self.0.is_empty()
        }
    }

    fn pieces() -> Body {
        Body::Stream(Box::pin(Pieces([&b"one "[..], b"two ", b"three"].into())))
    }

    fn now<T>(future: impl Future<Output = T>) -> T {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let Poll::Ready(done) = std::pin::pin!(future).poll(&mut cx) else { panic!("the body waits") };
        done
    }

    fn all(body: Body) -> Bytes {
        now(collect(body, 100, "test")).unwrap()
    }

    #[test]
    fn what_was_read_comes_again_in_front_of_the_rest() {
        for read in 0..=3 {
            let mut body = pieces();
            let spare = body.spare(100);
            (0..read).for_each(|_| drop(now(body.frame()).unwrap().unwrap()));
            assert_eq!((spare.is_whole(), spare.is_read()), (true, read == 3));
            assert_eq!(all(spare.take().unwrap()), "one two three");
            assert!(now(body.frame()).unwrap().is_err(), "the first attempt reads on");
        }
    }

    #[test]
    fn what_is_longer_than_the_limit_is_gone_only_once_it_was_read() {
        let mut body = pieces();
        let spare = body.spare(7);
        now(body.frame()).unwrap().unwrap();
        assert!(spare.is_whole());
        now(body.frame()).unwrap().unwrap();
        assert!(!spare.is_whole());
        assert_eq!(all(body), "three");
        assert!(spare.take().is_none());
    }

    #[test]
    fn a_body_at_hand_is_simply_sent_twice() {
        let mut body = Body::Full(Bytes::from_static(b"abc"));
        let spare = body.spare(0);
        assert_eq!((all(body), all(spare.take().unwrap())), ("abc".into(), "abc".into()));
        assert!(matches!(Body::Empty.spare(0).take(), Some(Body::Empty)));
    }
}
