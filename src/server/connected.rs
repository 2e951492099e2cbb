//! The connections of one core, for what concerns all of them: the drain, and rest. Each says once how to wake it, so
//! that waiting for either costs a request nothing.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use tokio::sync::Notify;

use super::edge::Watch;
use super::memory;

/// How long a connection idles before it rests, and how often that is looked at.
const REST_AFTER: Duration = Duration::from_millis(150);

/// The connections of one core.
#[derive(Debug, Default)]
pub struct Connected {
    draining: Cell<bool>,
    all: RefCell<HashMap<u64, Entry>>,
    next: Cell<u64>,
    /// How many do not rest, and who waits for the first of them.
    awake: Cell<usize>,
    roused: Notify,
}

#[derive(Debug)]
struct Entry {
    /// None where there is no hyper to let go (HTTP/2).
    watch: Option<Arc<Watch>>,
    waker: Waker,
}

impl Connected {
    /// From now on every connection is closed as soon as it is idle.
    pub fn drain(&self) {
        self.draining.set(true);
        self.all.borrow().values().for_each(|entry| entry.waker.wake_by_ref());
    }

    /// Whether the drain has begun.
    pub fn draining(&self) -> bool {
        self.draining.get()
    }

    /// Takes a connection in, until the place is dropped.
    pub fn enter(&self, watch: Option<Arc<Watch>>, waker: Waker) -> Place<'_> {
        let number = self.next.get();
        self.next.set(number + 1);
        self.all.borrow_mut().insert(number, Entry { watch, waker });
        Place { connected: self, number }
    }

    /// Counts a connection among those that do not rest, until what this returns is dropped.
    pub fn rouse(&self) -> Awake<'_> {
        self.awake.set(self.awake.get() + 1);
        self.roused.notify_one();
        Awake(self)
    }

    /// Tells the connections that idle to rest, for ever.
    pub async fn rest_every(&self) {
        loop {
            while self.awake.get() == 0 {
                self.roused.notified().await;
            }
            tokio::time::sleep(REST_AFTER).await;
            let mut told = false;
            for Entry { watch, waker } in self.all.borrow().values() {
                if let Some(watch) = watch.as_ref().filter(|watch| watch.idles_for(REST_AFTER)) {
                    watch.rest();
                    waker.wake_by_ref();
                    told = true;
                }
            }
            if told {
                memory::give_back().await;
            }
        }
    }
}

/// A connection's place among the others.
#[derive(Debug)]
pub struct Place<'c> {
    connected: &'c Connected,
    number: u64,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.connected.all.borrow_mut().remove(&self.number);
    }
}

/// A connection that does not rest.
#[derive(Debug)]
pub struct Awake<'c>(&'c Connected);

impl Drop for Awake<'_> {
    fn drop(&mut self) {
        self.0.awake.set(self.0.awake.get() - 1);
    }
}
