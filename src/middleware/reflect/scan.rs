//! Searches a body as it streams. Held back is only what may be the beginning of a secret, so that events are not
//! delayed.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http_body::{Frame, SizeHint};

use super::{Masks, warn};
use crate::body::Body;
use crate::error::{Breach, Error};
use crate::record::OpenRecord;

/// A body without what was sent.
#[derive(Debug)]
pub struct Scanned {
    body: Body,
    masks: Masks,
    /// Whether a find ends the answer.
    block: bool,
    record: OpenRecord,
    /// Shorter than the longest spelling of the secrets.
    held: BytesMut,
    /// What comes behind `held`.
    last: Option<Frame<Bytes>>,
}

impl Scanned {
    /// Searches `body` for what `masks` find.
    pub fn new(body: Body, masks: Masks, block: bool, record: OpenRecord) -> Self {
        Self { body, masks, block, record, held: BytesMut::new(), last: None }
    }

    fn found(&mut self) -> Result<(), Error> {
        if !std::mem::replace(&mut self.record.borrow_mut().reflected.body, true) {
            warn(&self.record, "body");
        }
        if self.block { Err(Error::Protocol(Breach::Reflected)) } else { Ok(()) }
    }

    /// What may go out of what has come.
    fn take(&mut self, data: &Bytes) -> Result<Bytes, Error> {
        self.held.extend_from_slice(data);
        if self.masks.star(&mut self.held) {
            self.found()?;
        }
        let keep = self.masks.open_end(&self.held);
        Ok(self.held.split_to(self.held.len() - keep).freeze())
    }
}

impl http_body::Body for Scanned {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = &mut *self;
        loop {
            if let Some(last) = this.last.take() {
                return Poll::Ready(Some(Ok(last)));
            }
            let frame = match ready!(Pin::new(&mut this.body).poll_frame(cx)) {
                Some(Ok(frame)) => frame,
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None if this.held.is_empty() => return Poll::Ready(None),
                None => return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut this.held).freeze())))),
            };
            let mut trailers = match frame.into_data() {
                Ok(data) => match this.take(&data) {
                    Ok(data) if data.is_empty() => continue,
                    Ok(data) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                    Err(error) => return Poll::Ready(Some(Err(error))),
                },
                Err(frame) => match frame.into_trailers() {
                    Ok(trailers) => trailers,
                    Err(_) => continue,
                },
            };
            if this.masks.star_fields(&mut trailers, None)
                && let Err(error) = this.found()
            {
                return Poll::Ready(Some(Err(error)));
            }
            this.last = Some(Frame::trailers(trailers));
            if !this.held.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut this.held).freeze()))));
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.held.is_empty() && self.last.is_none() && http_body::Body::is_end_stream(&self.body)
    }

    fn size_hint(&self) -> SizeHint {
        let inner = http_body::Body::size_hint(&self.body);
        let held = self.held.len() as u64;
        let mut hint = SizeHint::new();
        hint.set_lower(inner.lower() + held);
        if let Some(upper) = inner.upper() {
            hint.set_upper(upper + held);
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::Arc;

    use http_body_util::BodyExt as _;

    use super::*;
    use crate::auth::support::{call, now};
    use crate::secret::{Mask, Secret};

    #[derive(Debug)]
    struct Pieces(VecDeque<Bytes>);

    impl http_body::Body for Pieces {
        type Data = Bytes;
        type Error = Error;

        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
            Poll::Ready(self.0.pop_front().map(|piece| Ok(Frame::data(piece))))
        }
    }

    fn scanned(text: &str, size: usize, block: bool) -> Scanned {
        let pieces = text.as_bytes().chunks(size).map(Bytes::copy_from_slice).collect();
        let mask = Arc::new(Mask::new([&Secret::new("hunter2hunter2".into())]));
        Scanned::new(Body::Stream(Box::pin(Pieces(pieces))), Masks([Some(mask), None]), block, call("/a").record.clone())
    }

    #[test]
    fn a_secret_is_found_across_any_border() {
        let text = "a hunter2hunter2 b dTpodW50ZXIyaHVudGVyMg== c hunter2hunte";
        for size in 1..=text.len() {
            let body = now(scanned(text, size, false).collect()).unwrap().to_bytes();
            let body = std::str::from_utf8(&body).unwrap();
            assert_eq!(body.len(), text.len());
            assert!(
                !body.contains("hunter2hunter2") && !body.contains("aHVudGVyMmh1bnRlcj") && !body.contains("odW50ZXIyaHVudGVyM"),
                "{size}: {body}"
            );
            assert!(body.starts_with("a ************** b ") && body.ends_with(" c hunter2hunte"), "{size}: {body}");
        }
    }

    #[test]
    fn with_block_the_answer_ends_before_the_secret() {
        let text = "0123456789 hunter2hunter2 x";
        for size in 1..text.len() {
            let mut body = scanned(text, size, true);
            let mut seen = Vec::new();
            let error = loop {
                match now(body.frame()) {
                    Some(Ok(frame)) => seen.extend_from_slice(&frame.into_data().unwrap()),
                    Some(Err(error)) => break Some(error),
                    None => break None,
                }
            };
            assert_eq!(error, Some(Error::Protocol(Breach::Reflected)), "{size}");
            assert!(text.as_bytes()[..11].starts_with(&seen), "{size}");
        }
    }

    #[test]
    fn what_is_no_beginning_of_a_secret_is_not_held_back() {
        let mut body = scanned("data: one\n\ndata: two\n\n", 11, false);
        for event in ["data: one\n\n", "data: two\n\n"] {
            assert_eq!(now(body.frame()).unwrap().unwrap().into_data().unwrap(), event);
        }
        assert!(now(body.frame()).is_none());
    }
}
