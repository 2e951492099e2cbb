//! One client connection: the edge, hyper, and the gateway behind it.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use super::edge::{Edge, Limits, Watch};
use crate::middleware::audit::Ending;
use crate::middleware::pinned;
use crate::stack::{Arrival, Gateway, Peer};

/// Where hyper's writes switch from copying small pieces to writing them as they are.
const WRITE_BUFFER: usize = 64 * 1024;

impl Ending for Watch {
    fn ended(&self) {
        self.end();
    }
}

/// Tells the connections of one core that it drains. Each says once how to wake it, so that waiting for the drain
/// costs a request nothing.
#[derive(Debug, Default)]
pub struct Drain {
    begun: Cell<bool>,
    connections: RefCell<HashMap<u64, Waker>>,
    next: Cell<u64>,
}

impl Drain {
    /// From now on every connection is closed as soon as it is idle.
    pub fn begin(&self) {
        self.begun.set(true);
        self.connections.borrow().values().for_each(Waker::wake_by_ref);
    }

    fn enter(&self, waker: Waker) -> u64 {
        let number = self.next.get();
        self.next.set(number + 1);
        self.connections.borrow_mut().insert(number, waker);
        number
    }
}

/// Leaves the drain's list however a connection ends.
struct Entered<'d>(&'d Drain, u64);

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.0.connections.borrow_mut().remove(&self.1);
    }
}

/// Serves one connection to its end. Once `drain` has begun it is closed as soon as it is idle.
pub async fn serve<I>(io: I, peer: Peer, limits: Limits, gateway: Rc<Gateway>, drain: Rc<Drain>)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let watch = Arc::new(Watch::default());
    let edge = Edge::new(io, limits, watch.clone());
    let service = {
        let watch = watch.clone();
        service_fn(move |request| {
            let refusal = watch.begin();
            let arrival = Arrival { request, peer, refusal, ending: watch.clone() };
            let (gateway, watch) = (gateway.clone(), watch.clone());
            // Boxed, so that an idle connection does not keep the room of a whole request.
            pinned(move || async move {
                let response = gateway.answer(arrival).await;
                if response.status() == http::StatusCode::SWITCHING_PROTOCOLS {
                    watch.switch();
                }
                Ok::<_, Infallible>(response)
            })
        })
    };
    let mut builder = http1::Builder::new();
    // The edge times heads and idleness (ruling H3), and bounds heads before hyper sees them.
    builder.header_read_timeout(None::<Duration>).max_buf_size(WRITE_BUFFER.max(limits.bounds.bytes + 8192));
    let mut connection = pin!(builder.serve_connection(TokioIo::new(edge), service).with_upgrades());
    let mut entered = None;
    let ended = poll_fn(|cx| {
        entered.get_or_insert_with(|| Entered(&drain, drain.enter(cx.waker().clone())));
        if drain.begun.get() {
            watch.drain();
        }
        connection.as_mut().poll(cx)
    });
    if let Err(error) = ended.await {
        tracing::debug!("a client connection ended: {error}");
    }
}
