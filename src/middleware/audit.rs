//! Closes the audit record: when the last byte of the answer has left, or the client has gone. With `sync: always` the
//! last byte waits until the record is on disk (ruling A3).

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body::{Body as _, Frame, SizeHint};

use crate::audit::{CoreAudit, Room};
use crate::body::Body;
use crate::error::Error;
use crate::record::OpenRecord;
use crate::telemetry::{Counts, Metrics};

/// Status of the record where the client left before there was one (ruling B5).
const CLIENT_GONE: u16 = 499;

/// What a closing needs besides the record.
#[derive(Clone)]
pub struct Book {
    /// This core's part of the audit log.
    pub audit: CoreAudit,
    /// The process's figures.
    pub metrics: Arc<Metrics>,
    cut: Rc<Cell<bool>>,
}

impl Book {
    /// A core's book.
    pub fn new(audit: CoreAudit, metrics: Arc<Metrics>) -> Self {
        Self { audit, metrics, cut: Rc::default() }
    }

    /// From here on what ends unfinished was cut off by the gateway, and not left by its client.
    pub fn cut(&self) {
        self.cut.set(true);
    }
}

impl std::fmt::Debug for Book {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Book")
    }
}

/// Whoever wants to know that an exchange is over, however it ended.
pub trait Ending {
    /// It is over.
    fn ended(&self);
}

/// A record that is still open, with the room that is kept for it. Dropped unclosed, it says that the client left.
pub struct Open {
    /// The record.
    pub record: OpenRecord,
    room: Option<Room>,
    book: Rc<Book>,
    counts: Option<Arc<Counts>>,
    ending: Arc<dyn Ending>,
    closed: bool,
}

impl std::fmt::Debug for Open {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Open")
    }
}

impl Open {
    /// Opens the book for one request.
    pub fn new(record: OpenRecord, book: Rc<Book>, ending: Arc<dyn Ending>) -> Self {
        Self { record, room: None, book, counts: None, ending, closed: false }
    }

    /// Keeps room for the record. Without it nothing is written.
    pub fn keep(&mut self, room: Room) {
        self.room = Some(room);
    }

    /// Counts the answer for this resource.
    pub fn count_for(&mut self, counts: Arc<Counts>) {
        self.counts = Some(counts);
    }

    /// Gives the answer its closing body.
    ///
    /// # Errors
    /// [`Error::AuditUnavailable`] where the record had to be on disk first and could not be written.
    pub async fn answer(mut self, response: Response<Body>) -> Result<Response<Closing>, Error> {
        self.record.borrow_mut().status = response.status().as_u16();
        let durable = self.book.audit.durable() && self.room.is_some();
        let empty = response.body().is_end_stream() || bodiless(response.status());
        if durable && empty {
            Box::pin(self.close_durable()).await?;
        }
        Ok(response.map(|body| Closing::new(body, Some(self), durable && !empty)))
    }

    /// Closes after the bytes of a tunnel have been counted.
    pub fn close(mut self) {
        self.finish(None);
    }

    fn finish(&mut self, error: Option<&'static str>) {
        if std::mem::replace(&mut self.closed, true) {
            return;
        }
        self.fill(error);
        if let Some(room) = self.room.take() {
            self.book.audit.close(&self.record.borrow(), room);
        }
    }

    async fn close_durable(&mut self) -> Result<(), Error> {
        self.closed = true;
        self.fill(None);
        let Some(room) = self.room.take() else { return Ok(()) };
        let written = self.book.audit.close_durable(&self.record.borrow(), room);
        written.await
    }

    fn fill(&self, error: Option<&'static str>) {
        let mut record = self.record.borrow_mut();
        let took = record.received.elapsed();
        record.timings.total = u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
        if error.is_some() {
            record.error = error;
        }
        if record.status == 0 {
            record.status = CLIENT_GONE;
        }
        self.book.metrics.took(took);
        let counts = self.counts.as_deref().unwrap_or(&self.book.metrics.other);
        counts.answered(record.status);
        counts.sent(record.attempts);
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.finish(Some(if self.book.cut.get() { "draining" } else { "client-gone" }));
        let mut record = self.record.borrow_mut();
        (record.admitted, record.slot) = (None, None);
        drop(record);
        self.ending.ended();
    }
}

/// Whether an answer of this status never has a body (RFC 9110 section 6.4.1).
fn bodiless(status: StatusCode) -> bool {
    status.is_informational() || status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED
}

type Writing = Pin<Box<dyn Future<Output = (Open, Result<(), Error>)>>>;

/// The answer's body as hyper sends it.
pub struct Closing {
    body: Body,
    open: Option<Open>,
    sent: u64,
    /// What the body will come to, where it says so.
    length: Option<u64>,
    /// With `sync: always`: the last piece waits here for its record.
    durable: bool,
    writing: Option<(Writing, Option<Frame<Bytes>>)>,
}

impl std::fmt::Debug for Closing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Closing").field("body", &self.body).finish_non_exhaustive()
    }
}

impl Closing {
    /// A body whose record is not to be had.
    pub fn bare(body: Body) -> Self {
        Self::new(body, None, false)
    }

    fn new(body: Body, open: Option<Open>, durable: bool) -> Self {
        let length = body.size_hint().exact();
        Self { body, open, sent: 0, length, durable, writing: None }
    }

    fn over(&self) -> bool {
        self.body.is_end_stream() || self.length.is_some_and(|length| self.sent >= length)
    }

    fn finish(&mut self, error: Option<&'static str>) {
        if let Some(mut open) = self.open.take() {
            open.finish(error);
        }
    }

    /// Starts to write the record, and holds `last` back until it is written.
    fn write(&mut self, last: Option<Frame<Bytes>>) {
        let Some(mut open) = self.open.take() else { return };
        self.writing = Some((
            Box::pin(async move {
                let written = open.close_durable().await;
                (open, written)
            }),
            last,
        ));
    }

    fn poll_writing(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let Some((writing, last)) = &mut self.writing else { return Poll::Ready(None) };
        let (_, written) = ready!(writing.as_mut().poll(cx));
        let last = last.take();
        self.writing = None;
        match written {
            Ok(()) => Poll::Ready(last.map(Ok)),
            Err(error) => Poll::Ready(Some(Err(error))),
        }
    }
}

impl http_body::Body for Closing {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = &mut *self;
        if this.writing.is_some() {
            return this.poll_writing(cx);
        }
        let frame = ready!(Pin::new(&mut this.body).poll_frame(cx));
        match frame {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    this.sent += data.len() as u64;
                    if let Some(open) = &this.open {
                        open.record.borrow_mut().bytes_out = this.sent;
                    }
                }
                if this.durable && this.open.is_some() && this.over() {
                    this.write(Some(frame));
                    return this.poll_writing(cx);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => {
                tracing::warn!(code = error.code(), "the answer was cut off: {}", error.cause());
                this.finish(Some(error.code()));
                Poll::Ready(Some(Err(error)))
            }
            None if this.durable && this.open.is_some() => {
                this.write(None);
                this.poll_writing(cx)
            }
            None => {
                this.finish(None);
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.writing.is_none() && !(self.durable && self.open.is_some()) && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Closing {
    fn drop(&mut self) {
        // hyper drops a body as soon as it has all of it, without asking for the end.
        if self.over() {
            self.finish(None);
        }
    }
}
