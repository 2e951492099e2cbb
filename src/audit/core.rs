//! A core's part of the audit log: its buffer, and the room that is left.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};

use super::writer::{Chunk, Order};
use super::{Audit, OnFull, Sync, line};
use crate::clock::Stamp;
use crate::error::Error;
use crate::record::Record;

/// Lines are handed to the writer when there are so many bytes of them, or once a second.
const BUFFER: usize = 64 * 1024;
/// Bytes that one core may have reserved, buffered, and in the writer's hands.
const BUDGET: usize = 8 << 20;
/// How often a young buffer is handed over.
const FLUSH: Duration = Duration::from_secs(1);
/// How often the wait for room looks again, should a wake-up be missed.
const LOOK: Duration = Duration::from_millis(50);

/// A core's part of the log: a handle.
#[derive(Clone, Debug)]
pub struct CoreAudit(Rc<Inner>);

#[derive(Debug)]
struct Inner {
    audit: Arc<Audit>,
    buffer: RefCell<Vec<u8>>,
    stamp: RefCell<Stamp>,
    reserved: Cell<usize>,
    /// Bytes that the writer has not written yet; it counts down.
    away: Arc<AtomicUsize>,
    written: Arc<Notify>,
}

/// Room for one record, given back when it is dropped unused.
#[derive(Debug)]
pub struct Room {
    core: CoreAudit,
    size: usize,
    kept: bool,
}

impl Drop for Room {
    fn drop(&mut self) {
        let reserved = &self.core.0.reserved;
        reserved.set(reserved.get() - self.size);
    }
}

impl CoreAudit {
    pub(super) fn new(audit: Arc<Audit>) -> Self {
        Self(Rc::new(Inner {
            audit,
            buffer: RefCell::default(),
            stamp: RefCell::default(),
            reserved: Cell::new(0),
            away: Arc::default(),
            written: Arc::default(),
        }))
    }

    /// Whether a record must be on disk before the last byte of its answer leaves.
    pub fn durable(&self) -> bool {
        self.0.audit.config.sync == Sync::Always
    }

    /// Room for a record of at most `size` bytes; waits for it up to `patience` where the log blocks.
    ///
    /// # Errors
    /// [`Error::AuditUnavailable`].
    pub async fn reserve(&self, size: usize, patience: Duration) -> Result<Room, Error> {
        if let Some(room) = self.try_reserve(size) {
            return Ok(room);
        }
        if self.0.audit.config.on_full == OnFull::Drop {
            return Ok(Room { core: self.clone(), size: 0, kept: false });
        }
        Box::pin(self.wait(size, patience)).await
    }

    async fn wait(&self, size: usize, patience: Duration) -> Result<Room, Error> {
        // What is buffered goes out now: waiting for its second to end would only be slower.
        self.flush();
        let waited = tokio::time::timeout(patience, async {
            loop {
                let _ = tokio::time::timeout(LOOK, self.0.written.notified()).await;
                if let Some(room) = self.try_reserve(size) {
                    return room;
                }
            }
        });
        waited.await.map_err(|_| Error::AuditUnavailable)
    }

    fn try_reserve(&self, size: usize) -> Option<Room> {
        let inner = &self.0;
        let used = inner.reserved.get() + inner.buffer.borrow().len() + inner.away.load(Ordering::Acquire);
        if used + size > BUDGET {
            return None;
        }
        inner.reserved.set(inner.reserved.get() + size);
        Some(Room { core: self.clone(), size, kept: true })
    }

    /// Writes the record of a request that has ended.
    pub fn close(&self, record: &Record, room: Room) {
        if !room.kept {
            self.0.audit.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let full = {
            let mut buffer = self.0.buffer.borrow_mut();
            self.format(record, &mut buffer);
            buffer.len() >= BUFFER || self.0.audit.prompt
        };
        drop(room);
        if full {
            self.flush();
        }
    }

    /// Writes the record and resolves once it is on disk.
    pub fn close_durable(&self, record: &Record, room: Room) -> impl Future<Output = Result<(), Error>> + use<> {
        let (done, written) = oneshot::channel();
        if room.kept {
            let mut line = Vec::new();
            self.format(record, &mut line);
            self.send(line, Some(done));
        } else {
            self.0.audit.dropped.fetch_add(1, Ordering::Relaxed);
            let _ = done.send(());
        }
        async move {
            // The room is kept until the line is counted as the writer's.
            drop(room);
            written.await.map_err(|_| Error::AuditUnavailable)
        }
    }

    fn format(&self, record: &Record, into: &mut Vec<u8>) {
        let audit = &self.0.audit;
        line::write(record, &audit.config.redact, &audit.mask.load(), &mut self.0.stamp.borrow_mut(), into);
    }

    /// Hands what is buffered to the writer.
    pub fn flush(&self) {
        let full = {
            let mut buffer = self.0.buffer.borrow_mut();
            if buffer.is_empty() {
                return;
            }
            let next = Vec::with_capacity(buffer.len().max(256));
            std::mem::replace(&mut *buffer, next)
        };
        self.send(full, None);
    }

    fn send(&self, bytes: Vec<u8>, done: Option<oneshot::Sender<()>>) {
        self.0.away.fetch_add(bytes.len(), Ordering::AcqRel);
        let chunk = Chunk { bytes, away: self.0.away.clone(), written: self.0.written.clone(), done };
        if self.0.audit.orders.send(Order::Write(chunk)).is_err() {
            tracing::error!("the audit writer has ended");
        }
    }

    /// Hands the buffer over once a second, for ever.
    pub async fn flush_every(&self) {
        loop {
            tokio::time::sleep(FLUSH).await;
            self.flush();
        }
    }
}
