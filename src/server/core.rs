//! One core: a current-thread runtime of its own, its listeners, its pool, its part of the audit log.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::spawn_local;

use super::connection::{self, Drain};
use super::edge::Limits;
use crate::clock::Clock;
use crate::middleware::audit::Book;
use crate::net;
use crate::stack::{Gateway, Peer, Shared};

/// Pause after the system has refused to accept (no descriptors left, for one).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Once draining, the listener is closed when nobody has connected for so long.
pub const DRAIN_QUIET: Duration = Duration::from_millis(500);

/// A listener as a core needs it.
#[derive(Clone)]
pub struct Door {
    /// TLS, where this listener speaks it.
    pub tls: Option<tokio_rustls::TlsAcceptor>,
    /// Whether it is bound to a loopback address.
    pub loopback: bool,
}

/// A connection that was accepted elsewhere and dealt to this core.
pub enum Dealt {
    /// TCP, with the number of its door.
    Tcp(std::net::TcpStream, usize, OwnedSemaphorePermit),
    /// Unix.
    Unix(std::os::unix::net::UnixStream, OwnedSemaphorePermit),
}

/// What a core is started with.
pub struct Setup {
    /// What all cores share.
    pub shared: Arc<Shared>,
    /// Times and sizes of the edge.
    pub limits: Limits,
    /// `server.limits.connections`, over all cores.
    pub connections: Arc<Semaphore>,
    /// The listeners' properties.
    pub doors: Vec<Door>,
    /// Sockets that this core accepts from by itself, with the number of their door.
    pub sockets: Vec<(std::net::TcpListener, usize)>,
    /// Connections dealt by others.
    pub dealt: mpsc::Receiver<Dealt>,
    /// Says when to drain.
    pub drain: watch::Receiver<bool>,
    /// Longest time that the listeners stay open once draining.
    pub patience: Duration,
    /// This core's part of the audit log is opened from here.
    pub audit: Arc<crate::audit::Audit>,
    /// The process's figures.
    pub metrics: Arc<crate::telemetry::Metrics>,
}

struct Core {
    gateway: Rc<Gateway>,
    limits: Limits,
    connections: Arc<Semaphore>,
    doors: Vec<Door>,
    drain: watch::Receiver<bool>,
    connected: Rc<Drain>,
    patience: Duration,
    live: Rc<tokio::sync::Notify>,
    count: std::cell::Cell<usize>,
}

/// Runs a core on the calling thread until it has drained.
///
/// # Errors
/// If the runtime cannot be made or a socket cannot be registered with it.
pub fn run(setup: Setup) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(tokio::runtime::LocalOptions::default())?;
    runtime.block_on(async move {
        let audit = setup.audit.core();
        let book = Book { audit: audit.clone(), metrics: setup.metrics };
        let core = Rc::new(Core {
            gateway: Rc::new(Gateway::new(setup.shared, book, Clock::system())),
            limits: setup.limits,
            connections: setup.connections,
            doors: setup.doors,
            drain: setup.drain,
            connected: Rc::default(),
            patience: setup.patience,
            live: Rc::default(),
            count: std::cell::Cell::new(0),
        });
        let flusher = spawn_local({
            let audit = audit.clone();
            async move { audit.flush_every().await }
        });
        let sweeper = spawn_local(async { net::here().sweep_every().await });
        let drainer = spawn_local({
            let core = core.clone();
            async move {
                let mut drain = core.drain.clone();
                let _ = drain.wait_for(|draining| *draining).await;
                core.connected.begin();
            }
        });
        let mut accepting = Vec::new();
        for (socket, door) in setup.sockets {
            let listener = TcpListener::from_std(socket)?;
            accepting.push(spawn_local(core.clone().accept(listener, door)));
        }
        accepting.push(spawn_local(core.clone().take(setup.dealt)));
        for task in accepting {
            let _ = task.await;
        }
        while core.count.get() > 0 {
            core.live.notified().await;
        }
        drainer.abort();
        flusher.abort();
        sweeper.abort();
        audit.flush();
        Ok(())
    })
}

impl Core {
    async fn accept(self: Rc<Self>, listener: TcpListener, door: usize) {
        let mut drain = self.drain.clone();
        let mut closing = None;
        loop {
            let Ok(permit) = self.connections.clone().acquire_owned().await else { return };
            let quiet = async {
                match closing {
                    None => std::future::pending().await,
                    Some(until) => {
                        tokio::time::sleep_until(
                            tokio::time::Instant::now().checked_add(DRAIN_QUIET).map_or(until, |quiet| until.min(quiet)),
                        )
                        .await
                    }
                }
            };
            tokio::select! {
                biased;
                accepted = listener.accept() => match accepted {
                    Ok((stream, peer)) => {
                        let _ = stream.set_nodelay(true);
                        self.clone().open_tcp(stream, peer.ip(), door, permit);
                        // A listener that never runs dry would keep the drain from its deadline.
                        if closing.is_some_and(|until| until <= tokio::time::Instant::now()) {
                            return;
                        }
                    }
                    Err(error) => {
                        tracing::warn!("accepting failed: {error}");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
                _ = drain.wait_for(|draining| *draining), if closing.is_none() => {
                    closing = Some(tokio::time::Instant::now() + self.patience);
                }
                () = quiet, if closing.is_some() => return,
            }
        }
    }

    /// Takes what others have accepted, until they stop.
    async fn take(self: Rc<Self>, mut dealt: mpsc::Receiver<Dealt>) {
        while let Some(connection) = dealt.recv().await {
            match connection {
                Dealt::Tcp(stream, door, permit) => {
                    let _ = stream.set_nodelay(true);
                    let peer = stream.peer_addr().map(|peer| peer.ip());
                    if let (Ok(stream), Ok(peer)) = (TcpStream::from_std(stream), peer) {
                        self.clone().open_tcp(stream, peer, door, permit);
                    }
                }
                Dealt::Unix(stream, permit) => {
                    if let Ok(stream) = UnixStream::from_std(stream) {
                        let peer = Peer { ip: None, tls: false, loopback: false };
                        let this = self.clone();
                        self.clone().track(permit, async move {
                            connection::serve(stream, peer, this.limits, this.gateway.clone(), this.connected.clone()).await
                        });
                    }
                }
            }
        }
    }

    fn open_tcp(self: Rc<Self>, stream: TcpStream, ip: std::net::IpAddr, door: usize, permit: OwnedSemaphorePermit) {
        let Some(Door { tls, loopback }) = self.doors.get(door).cloned() else { return };
        let peer = Peer { ip: Some(ip.to_canonical()), tls: tls.is_some(), loopback };
        let this = self.clone();
        let Some(tls) = tls else {
            let serving = async move { connection::serve(stream, peer, this.limits, this.gateway.clone(), this.connected.clone()).await };
            return self.track(permit, serving);
        };
        // Apart from the plain one, whose connections would otherwise have to have room for all of TLS.
        self.track(permit, async move {
            match tokio::time::timeout(this.limits.header, tls.accept(stream)).await {
                Ok(Ok(stream)) => {
                    Box::pin(connection::serve(stream, peer, this.limits, this.gateway.clone(), this.connected.clone())).await
                }
                Ok(Err(error)) => tracing::debug!("a client's TLS handshake failed: {error}"),
                Err(_) => tracing::debug!("a client's TLS handshake took too long"),
            }
        });
    }

    /// Spawns a connection and counts it until its end.
    fn track(self: Rc<Self>, permit: OwnedSemaphorePermit, serving: impl Future<Output = ()> + 'static) {
        self.count.set(self.count.get() + 1);
        spawn_local(async move {
            let _permit = permit;
            let _counted = Counted(self);
            serving.await;
        });
    }
}

/// Gives the place back even if the connection's task panics.
struct Counted(Rc<Core>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.count.set(self.0.count.get() - 1);
        self.0.live.notify_one();
    }
}
