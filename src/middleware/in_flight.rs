//! Bounds how many calls of one resource are under way (`limits.in_flight`). A call that finds it full waits for
//! `timeouts.queue`, then gives up (ruling D14).

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError};

use super::{Answer, Next, Step};
use crate::call::Call;
use crate::error::Error;

/// So many requests may wait for a place however few there are.
const WAITING_LEAST: usize = 1024;

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

/// Places for the requests of the whole gateway, and for as many again that wait for one: a client that multiplexes could
/// else queue up more than memory holds.
#[derive(Debug)]
pub struct Places {
    slots: Arc<Semaphore>,
    waiting: Semaphore,
}

impl Places {
    /// So many, and as many that wait, or a few more.
    pub fn new(count: usize) -> Self {
        Self { slots: Arc::new(Semaphore::new(count)), waiting: Semaphore::new(count.max(WAITING_LEAST)) }
    }

    /// A place, at once or within `patience`.
    ///
    /// # Errors
    /// [`Error::Overloaded`] naming `what`: at once where too many wait already.
    pub async fn acquire(&self, patience: Duration, what: &'static str) -> Result<OwnedSemaphorePermit, Error> {
        if let Ok(permit) = self.slots.clone().try_acquire_owned() {
            return Ok(permit);
        }
        let _waits = self.waiting.try_acquire().map_err(|_| Error::Overloaded(what.into()))?;
        acquire(&self.slots, patience, what).await
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

    #[tokio::test(start_paused = true)]
    async fn no_more_wait_than_may() {
        let places = Places { slots: Arc::new(Semaphore::new(1)), waiting: Semaphore::new(1) };
        let held = places.acquire(Duration::from_secs(5), "x").await.unwrap();
        let began = tokio::time::Instant::now();
        let (first, second) = tokio::join!(places.acquire(Duration::from_secs(5), "x"), async {
            let refused = places.acquire(Duration::from_secs(5), "x").await;
            let at = began.elapsed();
            drop(held);
            (refused, at)
        });
        assert!(first.is_ok());
        assert_eq!((second.0.unwrap_err(), second.1), (Error::Overloaded("x".into()), Duration::ZERO));
    }
}
