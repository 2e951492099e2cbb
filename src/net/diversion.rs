//! A way that leads nowhere: what would go to an upstream goes to whoever holds the other end, as HTTP/1.1 and without
//! TLS. Nothing is resolved or dialled.

use tokio::io::DuplexStream;
use tokio::sync::mpsc;

use crate::error::{Breach, Error};

/// Bytes under way between the two ends.
const BUFFER: usize = 64 * 1024;

/// The near end. Clones lead to the same far end.
#[derive(Clone, Debug)]
pub struct Diversion(mpsc::UnboundedSender<DuplexStream>);

impl Diversion {
    /// A new one, and where its connections arrive: one for each that would have been dialled.
    pub fn new() -> (Self, mpsc::UnboundedReceiver<DuplexStream>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self(sender), receiver)
    }

    /// A connection.
    ///
    /// # Errors
    /// [`Breach::Closed`] when nobody takes connections any more.
    pub fn open(&self) -> Result<DuplexStream, Error> {
        let (near, far) = tokio::io::duplex(BUFFER);
        self.0.send(far).map_err(|_| Error::Protocol(Breach::Closed))?;
        Ok(near)
    }
}
