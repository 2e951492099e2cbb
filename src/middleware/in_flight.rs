//! Bounds how many calls of one resource are under way (`limits.in_flight`). A call that finds it full waits for
//! `timeouts.queue`, then gives up (ruling D14).

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError};

use super::{Answer, Next, Step};
use crate::call::Call;
use crate::error::Error;

/// The bound of one resource, shared by its routes and all cores.
#[derive(Debug)]
pub struct InFlight {
    slots: Arc<Semaphore>,
    patience: Duration,
}

impl InFlight {
    /// A step that lets as many calls through as `slots` has permits; `patience` is `timeouts.queue`.
    pub fn new(slots: Arc<Semaphore>, patience: Duration) -> Self {
        Self { slots, patience }
    }
}

impl Step for InFlight {
    async fn handle(&self, call: Call, next: &impl Next) -> Answer {
        let asked = Instant::now();
        let permit = acquire(&self.slots, self.patience, "limits.in_flight of this resource").await?;
        {
            let mut record = call.record.borrow_mut();
            record.timings.queue += u32::try_from(asked.elapsed().as_micros()).unwrap_or(u32::MAX);
            record.slot = Some(permit);
        }
        next.run(call).await
    }
}

/// A permit, at once or within `patience`.
///
/// # Errors
/// [`Error::Overloaded`] naming `what`.
pub async fn acquire(slots: &Arc<Semaphore>, patience: Duration, what: &'static str) -> Result<OwnedSemaphorePermit, Error> {
    match slots.clone().try_acquire_owned() {
        Ok(permit) => Ok(permit),
        Err(TryAcquireError::Closed) => Err(Error::Draining),
        // Boxed, because every call's future would otherwise have to have room for a wait that hardly ever happens.
        Err(TryAcquireError::NoPermits) => match Box::pin(tokio::time::timeout(patience, slots.clone().acquire_owned())).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) => Err(Error::Draining),
            Err(_) => Err(Error::Overloaded(what.into())),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_full_limit_is_waited_for_and_then_refused() {
        let slots = Arc::new(Semaphore::new(1));
        let held = acquire(&slots, Duration::from_secs(5), "x").await.unwrap();
        let began = tokio::time::Instant::now();
        assert_eq!(acquire(&slots, Duration::from_secs(5), "x").await.unwrap_err(), Error::Overloaded("x".into()));
        assert_eq!(began.elapsed(), Duration::from_secs(5));
        drop(held);
        assert!(acquire(&slots, Duration::from_secs(5), "x").await.is_ok());
    }
}
