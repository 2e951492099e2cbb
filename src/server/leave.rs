//! How a listener closes once the gateway drains, so that nobody who was let in is turned away: it stays open while
//! connections arrive, then lets no new one begin, takes in what the kernel has already promised, and only then closes.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// The end of the process, step by step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    /// Not yet.
    #[default]
    No,
    /// What has been accepted is finished.
    Drain,
    /// What is still under way is cut off.
    Cut,
}

/// Once draining, a listener is shut when nobody has connected for so long.
const QUIET: Duration = Duration::from_millis(500);
/// How long a shut listener still takes in connections whose handshake had begun.
const LAST: Duration = Duration::from_millis(250);

/// Resolves once the gateway has come to `end`.
pub async fn reached(end: End, told: &mut watch::Receiver<End>) {
    // A sender that is gone means that the process is at its end.
    let _ = told.wait_for(|now| *now >= end).await;
}

/// Where one listener is on its way out.
#[derive(Debug)]
pub struct Leaving {
    told: watch::Receiver<End>,
    patience: Duration,
    phase: Phase,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    Open,
    /// Draining; open at most until then.
    Waiting(Instant),
    /// No new connection begins; closed then.
    Shut(Instant),
}

/// What a listener has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Go on accepting.
    Accept,
    /// Let no new connection begin, and go on accepting.
    Shut,
    /// Close.
    Close,
}

impl Leaving {
    /// A listener that stays open for at most `patience` once the drain begins.
    pub fn new(told: watch::Receiver<End>, patience: Duration) -> Self {
        Self { told, patience, phase: Phase::Open }
    }

    /// Resolves when there is a step to take, counted from now; [`Leaving::advance`] takes it.
    pub async fn due(&mut self) {
        match self.phase {
            Phase::Open => reached(End::Drain, &mut self.told).await,
            Phase::Waiting(until) => sleep_until(until.min(Instant::now() + QUIET)).await,
            Phase::Shut(until) => sleep_until(until).await,
        }
    }

    /// Takes the step that was due.
    pub fn advance(&mut self) -> Step {
        let now = Instant::now();
        match self.phase {
            Phase::Open => {
                self.phase = Phase::Waiting(now + self.patience);
                Step::Accept
            }
            Phase::Waiting(_) => {
                self.phase = Phase::Shut(now + LAST);
                Step::Shut
            }
            Phase::Shut(_) => Step::Close,
        }
    }

    /// The same after a connection was accepted: a listener that never runs dry would keep the drain from its deadline.
    pub fn accepted(&mut self) -> Step {
        match self.phase {
            Phase::Waiting(until) | Phase::Shut(until) if until <= Instant::now() => self.advance(),
            _ => Step::Accept,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_quiet_listener_is_shut_and_then_closed() {
        let (tell, told) = watch::channel(End::No);
        let mut leaving = Leaving::new(told, Duration::from_secs(10));
        assert!(tokio::time::timeout(Duration::from_secs(60), leaving.due()).await.is_err());
        assert_eq!(leaving.accepted(), Step::Accept);
        tell.send(End::Drain).unwrap();
        leaving.due().await;
        assert_eq!(leaving.advance(), Step::Accept);
        let began = Instant::now();
        leaving.due().await;
        assert_eq!((leaving.advance(), began.elapsed()), (Step::Shut, QUIET));
        leaving.due().await;
        assert_eq!((leaving.advance(), began.elapsed()), (Step::Close, QUIET + LAST));
    }

    #[tokio::test(start_paused = true)]
    async fn a_listener_that_never_runs_dry_closes_too() {
        let (_tell, told) = watch::channel(End::Drain);
        let mut leaving = Leaving::new(told, Duration::from_secs(1));
        leaving.due().await;
        leaving.advance();
        let mut steps = Vec::new();
        for _ in 0..200 {
            tokio::time::advance(Duration::from_millis(10)).await;
            steps.push(leaving.accepted());
        }
        steps.dedup();
        assert_eq!(steps[..3], [Step::Accept, Step::Shut, Step::Accept]);
        assert!(steps.contains(&Step::Close));
    }
}
