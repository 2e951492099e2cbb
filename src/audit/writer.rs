//! The one thread that writes: takes chunks of whole lines from all cores, and gives their room back when they are with
//! the system. A sink that fails keeps its place in the stream and is tried again: nothing is lost, torn or doubled.

use std::io::{self, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};

use super::Sync;
use super::file::{File, Rotate};

/// Pauses before a failed sink is tried again.
const RETRY: [Duration; 4] = [Duration::from_millis(100), Duration::from_millis(250), Duration::from_millis(500), Duration::from_secs(1)];
/// Most chunks that are written together.
const BATCH: usize = 256;

/// Lines of one core.
pub struct Chunk {
    /// Whole lines.
    pub bytes: Vec<u8>,
    /// The core's bytes in our hands.
    pub away: Arc<AtomicUsize>,
    /// Told when there is room again.
    pub written: Arc<Notify>,
    /// Told when these lines are on disk.
    pub done: Option<oneshot::Sender<()>>,
}

/// What the writer is told.
pub enum Order {
    /// Write this.
    Write(Chunk),
    /// Write what is left and end.
    End(Sender<()>),
}

/// Where lines go.
pub enum Sink {
    /// Standard output.
    Stdout,
    /// A file.
    File(Box<File>),
}

impl Sink {
    /// Standard output.
    pub fn stdout() -> Self {
        Self::Stdout
    }

    /// A file.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub fn file(path: &Path, rotate: Rotate) -> io::Result<Self> {
        Ok(Self::File(Box::new(File::open(path, rotate)?)))
    }

    /// Writes some of `bytes` and says how many. Lines are whole only when all of them are written.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Stdout => io::stdout().lock().write(bytes),
            Self::File(file) => file.write(bytes),
        }
    }

    fn sync(&mut self, sync: Sync) -> io::Result<()> {
        match self {
            Self::Stdout => io::stdout().lock().flush(),
            Self::File(file) if sync == Sync::Always => file.sync(),
            Self::File(_) => Ok(()),
        }
    }
}

/// The writer.
pub struct Writer {
    /// What to do.
    pub orders: Receiver<Order>,
    /// Where to.
    pub sinks: Vec<Sink>,
    /// When a record is safe.
    pub sync: Sync,
    /// Whether all sinks could be written the last time.
    pub healthy: Arc<AtomicBool>,
}

impl Writer {
    /// Writes until told to end.
    pub fn run(mut self) {
        let mut end = None;
        while end.is_none() {
            let Ok(first) = self.orders.recv() else { return };
            let mut chunks = Vec::new();
            self.gather(first, &mut chunks, &mut end);
            self.write(chunks);
        }
        if let Some(end) = end {
            let _ = end.send(());
        }
    }

    /// What has come in meanwhile is written, and synced, together.
    fn gather(&self, first: Order, chunks: &mut Vec<Chunk>, end: &mut Option<Sender<()>>) {
        let mut next = Some(first);
        while let Some(order) = next.take() {
            match order {
                Order::Write(chunk) => chunks.push(chunk),
                Order::End(done) => *end = Some(done),
            }
            if end.is_none() && chunks.len() < BATCH {
                next = self.orders.try_recv().ok();
            }
        }
    }

    fn write(&mut self, chunks: Vec<Chunk>) {
        let bytes: Vec<u8> = match chunks.as_slice() {
            [] => return,
            [one] if one.done.is_none() => Vec::new(),
            many => many.iter().flat_map(|c| c.bytes.iter().copied()).collect(),
        };
        let bytes = if bytes.is_empty() { &chunks[0].bytes } else { &bytes };
        for at in 0..self.sinks.len() {
            self.persist(at, bytes);
        }
        for chunk in chunks {
            chunk.away.fetch_sub(chunk.bytes.len(), Ordering::AcqRel);
            chunk.written.notify_one();
            if let Some(done) = chunk.done {
                let _ = done.send(());
            }
        }
    }

    /// Writes all of it to one sink, however long that takes. Room runs out meanwhile, which is what `on_full` is about.
    fn persist(&mut self, at: usize, bytes: &[u8]) {
        let (mut written, mut failures, mut synced) = (0, 0, false);
        while written < bytes.len() || !synced {
            let sink = &mut self.sinks[at];
            let result = if written < bytes.len() {
                sink.write(&bytes[written..]).and_then(|n| if n == 0 { Err(io::ErrorKind::WriteZero.into()) } else { Ok(n) })
            } else {
                sink.sync(self.sync).map(|()| {
                    synced = true;
                    0
                })
            };
            match result {
                Ok(n) => {
                    written += n;
                    if failures > 0 && written == bytes.len() {
                        failures = 0;
                        self.healthy.store(true, Ordering::Relaxed);
                        tracing::info!("the audit log can be written again");
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    if failures == 0 {
                        tracing::error!("the audit log cannot be written, and is tried again: {error}");
                    }
                    self.healthy.store(false, Ordering::Relaxed);
                    std::thread::sleep(RETRY[failures.min(RETRY.len() - 1)]);
                    failures += 1;
                }
            }
        }
    }
}
