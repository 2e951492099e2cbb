//! A way that leads nowhere: what would go to an upstream goes to whoever holds the other end, as HTTP/1.1 and without
//! TLS. Nothing is resolved or dialled.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::DuplexStream;
use tokio::sync::mpsc;

use crate::error::{Breach, Error};

/// Bytes under way between the two ends.
const BUFFER: usize = 64 * 1024;

/// The near end. Clones lead to the same far end, and are switched together.
#[derive(Clone, Debug)]
pub struct Diversion {
    far: mpsc::UnboundedSender<DuplexStream>,
    on: Arc<AtomicBool>,
}

impl Diversion {
    /// A new one, which is on, and where its connections arrive: one for each that would have been dialled.
    pub fn new() -> (Self, mpsc::UnboundedReceiver<DuplexStream>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self { far: sender, on: Arc::new(AtomicBool::new(true)) }, receiver)
    }

    /// Switches it: while it is off, upstreams are dialled.
    pub fn switch(&self, on: bool) {
        self.on.store(on, Ordering::Relaxed);
    }

    /// Whether it is on.
    pub fn is_on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    /// A connection.
    ///
    /// # Errors
    /// [`Breach::Closed`] when nobody takes connections any more.
    pub fn open(&self) -> Result<DuplexStream, Error> {
        let (near, far) = tokio::io::duplex(BUFFER);
        self.far.send(far).map_err(|_| Error::Protocol(Breach::Closed))?;
        Ok(near)
    }
}
