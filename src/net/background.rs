//! Work that belongs to no request: fetching secrets and tokens, tests of connections. It has a thread with a runtime of
//! its own and, as every thread has its own pool, connections of its own. What a caller has begun here goes on when the
//! caller leaves.

use std::future::Future;
use std::io;
use std::pin::Pin;

use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_local;

use crate::error::Error;

/// Jobs that are handed over and not yet begun.
const JOBS: usize = 1024;

type Job = Box<dyn FnOnce() -> Pin<Box<dyn Future<Output = ()>>> + Send>;

/// The way to the background. Clones lead to the same thread, which ends when the last one is gone and its work is done.
#[derive(Clone, Debug)]
pub struct Background(mpsc::Sender<Job>);

impl Background {
    /// Starts the thread.
    ///
    /// # Errors
    /// If the system gives no thread or no runtime.
    pub fn start() -> io::Result<Self> {
        let (sender, jobs) = mpsc::channel(JOBS);
        let (started, has_started) = std::sync::mpsc::channel();
        std::thread::Builder::new().name("background".into()).spawn(move || {
            let options = tokio::runtime::LocalOptions::default();
            match tokio::runtime::Builder::new_current_thread().enable_all().build_local(options) {
                Ok(runtime) => {
                    let _ = started.send(Ok(()));
                    runtime.block_on(work_off(jobs));
                }
                Err(error) => drop(started.send(Err(error))),
            }
        })?;
        has_started.recv().unwrap_or_else(|_| Err(io::Error::other("the background ended at once")))?;
        Ok(Self(sender))
    }

    /// Does this in the background and waits for the result. A caller that leaves changes nothing.
    ///
    /// # Errors
    /// What the work fails with; [`Error::Internal`] if it ended without a result.
    pub async fn run<T, F, W>(&self, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce() -> W + Send + 'static,
        W: Future<Output = Result<T, Error>> + 'static,
    {
        let (give, given) = oneshot::channel();
        let job: Job = Box::new(move || {
            Box::pin(async move {
                // Nobody waits any more: the work was done all the same.
                let _ = give.send(work().await);
            })
        });
        self.0.send(job).await.map_err(|_| gone())?;
        given.await.unwrap_or_else(|_| Err(gone()))
    }

    /// Does this in the background; nobody waits.
    ///
    /// # Errors
    /// [`Error::Overloaded`] if too much work waits already.
    pub fn spawn<F, W>(&self, work: F) -> Result<(), Error>
    where
        F: FnOnce() -> W + Send + 'static,
        W: Future<Output = ()> + 'static,
    {
        let job: Job = Box::new(move || Box::pin(work()));
        self.0.try_send(job).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Error::Overloaded("The background".into()),
            mpsc::error::TrySendError::Closed(_) => gone(),
        })
    }
}

/// Begins every job as it comes, until nobody can send one any more and all have ended.
async fn work_off(mut jobs: mpsc::Receiver<Job>) {
    let sweep = spawn_local(async { super::here().sweep_every().await });
    let mut running = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            job = jobs.recv() => match job {
                Some(job) => drop(running.spawn_local(job())),
                None => break,
            },
            Some(_) = running.join_next(), if !running.is_empty() => {}
        }
    }
    while running.join_next().await.is_some() {}
    sweep.abort();
}

fn gone() -> Error {
    Error::Internal("the background has ended, or a job of it panicked".into())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use super::*;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
    }

    #[test]
    fn work_is_done_elsewhere_and_its_result_comes_back() {
        let background = Background::start().unwrap();
        let here = std::thread::current().id();
        let there = runtime().block_on(background.run(async || Ok(std::thread::current().id()))).unwrap();
        assert_ne!(here, there);
    }

    #[test]
    fn a_caller_that_leaves_does_not_stop_the_work() {
        let background = Background::start().unwrap();
        let done = Arc::new(AtomicU32::new(0));
        let (begin, begun) = oneshot::channel::<()>();
        let count = done.clone();
        runtime().block_on(async {
            let work = background.run(async move || {
                let _ = begun.await;
                count.fetch_add(1, Ordering::Relaxed);
                Ok(())
            });
            assert!(tokio::time::timeout(Duration::from_millis(10), work).await.is_err());
            begin.send(()).unwrap();
            // The next job runs behind it, on the same thread.
            while done.load(Ordering::Relaxed) == 0 {
                background.run(async || Ok(())).await.unwrap();
            }
        });
    }

    #[test]
    fn a_job_that_panics_is_an_error_and_ends_nothing_else() {
        let background = Background::start().unwrap();
        let runtime = runtime();
        let result = runtime.block_on(background.run(async || -> Result<(), Error> { panic!("on purpose") }));
        assert!(matches!(result, Err(Error::Internal(_))));
        assert_eq!(runtime.block_on(background.run(async || Ok(7))), Ok(7));
    }
}
