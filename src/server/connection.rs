//! One client connection: the edge, hyper, and the gateway behind it.

use std::convert::Infallible;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;

use super::edge::{Edge, Limits, Watch};
use crate::middleware::audit::Ending;
use crate::stack::{Arrival, Gateway, Peer};

/// Where hyper's writes switch from copying small pieces to writing them as they are.
const WRITE_BUFFER: usize = 64 * 1024;

impl Ending for Watch {
    fn ended(&self) {
        self.end();
    }
}

/// Serves one connection to its end. Once `drain` says so it is closed as soon as it is idle.
pub async fn serve<I>(io: I, peer: Peer, limits: Limits, gateway: Rc<Gateway>, mut drain: watch::Receiver<bool>)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let watch = Arc::new(Watch::default());
    if *drain.borrow_and_update() {
        watch.drain();
    }
    let edge = Edge::new(io, limits, watch.clone());
    let service = {
        let watch = watch.clone();
        service_fn(move |request| {
            let refusal = watch.begin();
            let arrival = Arrival { request, peer, refusal, ending: watch.clone() };
            let (gateway, watch) = (gateway.clone(), watch.clone());
            async move {
                let response = gateway.answer(arrival).await;
                if response.status() == http::StatusCode::SWITCHING_PROTOCOLS {
                    watch.switch();
                }
                Ok::<_, Infallible>(response)
            }
        })
    };
    let mut builder = http1::Builder::new();
    // The edge times heads and idleness (ruling H3), and bounds heads before hyper sees them.
    builder.header_read_timeout(None::<Duration>).max_buf_size(WRITE_BUFFER.max(limits.bounds.bytes + 8192));
    let mut connection = pin!(builder.serve_connection(TokioIo::new(edge), service).with_upgrades());
    loop {
        tokio::select! {
            biased;
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!("a client connection ended: {error}");
                }
                return;
            }
            changed = drain.changed() => {
                if changed.is_err() {
                    let _ = connection.as_mut().await;
                    return;
                }
                watch.drain();
            }
        }
    }
}
