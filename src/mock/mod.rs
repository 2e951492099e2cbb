//! The embedded sample API: customers, orders and products, seeded, any number of them; to filter, page, sort, create,
//! replace, update and delete (ruling B17, `docs/mock.md`). It is an upstream to try Postern with, alone or beside the
//! gateway, and knows nothing of the gateway. It keeps nothing on disk and has no authentication: it belongs on loopback.

mod answer;
mod api;
mod body;
mod data;
mod query;
mod search;
mod shelf;
mod tag;
mod words;

use std::convert::Infallible;
use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use self::data::World;
use self::shelf::Store;

/// The most connections at a time; more wait in the system's own queue.
pub const CONNECTIONS: usize = 1024;

/// The most bytes of a request's head, and of a piece of its body.
const HEAD_BYTES: usize = 64 << 10;

/// How long to wait after the system refused a connection, for want of file descriptors say.
const PAUSE: Duration = Duration::from_millis(50);

/// What sample data there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// What the data follows from: the same seed, the same data.
    pub seed: u64,
    /// How many records each collection has at first. Any number, at most 2^52; it costs neither time nor memory.
    pub items: u64,
}

/// The contract's values.
impl Default for Settings {
    fn default() -> Self {
        Self { seed: 1, items: 100 }
    }
}

/// The sample API: its data and what was changed in it. One mock may serve several listeners.
pub struct Mock {
    store: Store,
    /// How many big searches run at a time.
    turns: Semaphore,
    /// How many bytes of bodies are in arrival.
    bodies: Semaphore,
}

impl fmt::Debug for Mock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mock").field("world", &self.store.world).finish_non_exhaustive()
    }
}

/// A fresh mock with this data.
pub fn service(settings: Settings) -> Mock {
    Mock {
        store: Store::new(World::new(settings.seed, settings.items)),
        turns: Semaphore::new(search::SEARCHES),
        bodies: Semaphore::new(body::BODIES),
    }
}

/// Serves HTTP/1.1 on a listener until told to stop, then lets requests in flight end, for five seconds at most. To drop
/// the future ends all connections at once. Runs on any tokio runtime with time and network enabled.
pub async fn serve(listener: TcpListener, mock: Arc<Mock>, until: impl Future<Output = ()>) {
    serve_within(BOUNDS, listener, mock, until).await;
}

/// What a listener grants.
#[derive(Clone, Copy)]
struct Bounds {
    connections: usize,
    /// For the head of a request, from the end of the one before: the idle wait and the arrival together.
    head: Duration,
    /// A connection's whole life, which bounds whatever no other wait does, such as a reader that stopped reading.
    life: Duration,
    /// For requests in flight, once their connection is to end.
    drain: Duration,
}

const BOUNDS: Bounds =
    Bounds { connections: CONNECTIONS, head: Duration::from_secs(30), life: Duration::from_secs(600), drain: Duration::from_secs(5) };

async fn serve_within(bounds: Bounds, listener: TcpListener, mock: Arc<Mock>, until: impl Future<Output = ()>) {
    let mut until = pin!(until);
    let places = Arc::new(Semaphore::new(bounds.connections));
    let (stop, stopped) = watch::channel(());
    let mut connections = JoinSet::new();
    loop {
        let (stream, place) = tokio::select! {
            () = &mut until => break,
            accepted = accept(&listener, &places) => accepted,
        };
        connections.spawn(connection(bounds, stream, place, mock.clone(), stopped.clone()));
        // Reaped here, so that the set holds no more than what lives.
        while connections.try_join_next().is_some() {}
    }
    drop((listener, stop));
    while connections.join_next().await.is_some() {}
}

async fn accept(listener: &TcpListener, places: &Arc<Semaphore>) -> (TcpStream, Option<OwnedSemaphorePermit>) {
    // The semaphore is never closed, so there is always a permit.
    let place = places.clone().acquire_owned().await.ok();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return (stream, place),
            Err(error) => {
                tracing::debug!(%error, "the mock could not accept a connection");
                sleep(PAUSE).await;
            }
        }
    }
}

/// Serves one connection; its place is free again when it ends.
async fn connection(
    bounds: Bounds,
    stream: TcpStream,
    _place: Option<OwnedSemaphorePermit>,
    mock: Arc<Mock>,
    mut stopped: watch::Receiver<()>,
) {
    // Answers are small and whole: waiting for more would only delay them.
    let _ = stream.set_nodelay(true);
    let service = service_fn(|request| {
        let mock = mock.clone();
        async move { Ok::<_, Infallible>(api::answer(&mock, request).await) }
    });
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(bounds.head)
            .max_buf_size(HEAD_BYTES)
            .serve_connection(TokioIo::new(stream), service)
    );
    tokio::select! {
        // How a connection ends is its client's affair.
        _ = &mut connection => return,
        // Nothing is ever sent: the sender is dropped.
        _ = stopped.changed() => {}
        () = sleep(bounds.life) => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = timeout(bounds.drain, connection).await;
}

#[cfg(test)]
mod tests;
