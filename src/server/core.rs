//! One core: a current-thread runtime of its own, its listeners, its pool, its part of the audit log.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::spawn_local;
use tokio_rustls::TlsAcceptor;

use super::connected::Connected;
use super::connection::{self, Serving};
use super::edge::Limits;
use super::http2;
use super::leave::{End, Leaving, Step, reached};
use super::listen;
use crate::audit::CoreAudit;
use crate::clock::Clock;
use crate::middleware::audit::Book;
use crate::net::{self, Identity, Shown};
use crate::stack::{Gateway, Peer, Shared};

/// Pause after the system has refused to accept (no descriptors left, for one).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// TLS handshakes at a time on one core: each costs a hundred times what a request costs.
const HANDSHAKES_MAX: usize = 256;

/// A listener as a core needs it.
#[derive(Clone)]
pub struct Door {
    /// TLS, where this listener speaks it.
    pub tls: Option<Identity>,
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
    /// Says when to drain, and when to stop.
    pub end: watch::Receiver<End>,
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
    end: watch::Receiver<End>,
    connected: Rc<Connected>,
    patience: Duration,
    metrics: Arc<crate::telemetry::Metrics>,
    handshakes: Semaphore,
    live: Rc<tokio::sync::Notify>,
    count: std::cell::Cell<usize>,
}

/// Runs a core on the calling thread until it has drained, or is told to stop.
///
/// # Errors
/// If the runtime cannot be made or a socket cannot be registered with it.
pub fn run(setup: Setup) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(tokio::runtime::LocalOptions::default())?;
    let audit = setup.audit.core();
    let book = Book::new(audit.clone(), setup.metrics.clone());
    let core = Rc::new(Core {
        gateway: Rc::new(Gateway::new(setup.shared, book.clone(), Clock::system())),
        limits: setup.limits,
        connections: setup.connections,
        doors: setup.doors,
        end: setup.end,
        connected: Rc::default(),
        patience: setup.patience,
        metrics: setup.metrics,
        handshakes: Semaphore::new(HANDSHAKES_MAX),
        live: Rc::default(),
        count: std::cell::Cell::new(0),
    });
    let result = runtime.block_on(async {
        let mut end = core.end.clone();
        tokio::select! {
            result = core.clone().serve(setup.sockets, setup.dealt, audit.clone()) => result,
            () = reached(End::Cut, &mut end) => Ok(()),
        }
    });
    // What is still under way ends here, each with its record.
    book.cut();
    drop(core);
    drop(runtime);
    audit.flush();
    result
}

impl Core {
    async fn serve(
        self: Rc<Self>,
        sockets: Vec<(std::net::TcpListener, usize)>,
        dealt: mpsc::Receiver<Dealt>,
        audit: CoreAudit,
    ) -> std::io::Result<()> {
        spawn_local(async move { audit.flush_every().await });
        spawn_local(async { net::here().sweep_every().await });
        let connected = self.connected.clone();
        spawn_local(async move { connected.rest_every().await });
        spawn_local(self.gateway.clone().look_every());
        let core = self.clone();
        spawn_local(async move {
            reached(End::Drain, &mut core.end.clone()).await;
            core.connected.drain();
        });
        let mut accepting = Vec::new();
        for (socket, door) in sockets {
            let listener = TcpListener::from_std(socket)?;
            accepting.push(spawn_local(self.clone().accept(listener, door)));
        }
        accepting.push(spawn_local(self.clone().take(dealt)));
        for task in accepting {
            let _ = task.await;
        }
        while self.count.get() > 0 {
            self.live.notified().await;
        }
        Ok(())
    }

    async fn accept(self: Rc<Self>, listener: TcpListener, door: usize) {
        let mut leaving = Leaving::new(self.end.clone(), self.patience);
        loop {
            let Ok(permit) = self.connections.clone().acquire_owned().await else { return };
            let step = tokio::select! {
                biased;
                accepted = listener.accept() => match accepted {
                    Ok((stream, peer)) => {
                        let _ = stream.set_nodelay(true);
                        self.clone().open_tcp(stream, peer.ip(), door, permit);
                        leaving.accepted()
                    }
                    Err(error) => {
                        tracing::warn!("accepting failed: {error}");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                        leaving.accepted()
                    }
                },
                () = leaving.due() => leaving.advance(),
            };
            match step {
                Step::Accept => {}
                Step::Shut => listen::shut(&listener),
                Step::Close => return,
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
                        let peer = Peer { ip: None, tls: false, loopback: false, certificate: None };
                        let this = self.clone();
                        self.clone().track(permit, async move { connection::serve(stream, this.serving(peer)).await });
                    }
                }
            }
        }
    }

    fn open_tcp(self: Rc<Self>, stream: TcpStream, ip: std::net::IpAddr, door: usize, permit: OwnedSemaphorePermit) {
        let Some(Door { tls, loopback }) = self.doors.get(door).cloned() else { return };
        let peer = Peer { ip: Some(ip.to_canonical()), tls: tls.is_some(), loopback, certificate: None };
        let this = self.clone();
        let Some(tls) = tls else {
            return self.track(permit, async move { connection::serve(stream, this.serving(peer)).await });
        };
        // Apart from the plain one, whose connections would otherwise have to have room for all of TLS.
        self.track(permit, async move {
            let handshake = async {
                let _turn = this.handshakes.acquire().await;
                TlsAcceptor::from(tls.server()).accept(stream).await
            };
            match tokio::time::timeout(this.limits.header, handshake).await {
                Ok(Ok(stream)) => {
                    let session = stream.get_ref().1;
                    let certificate = Shown::read(session.peer_certificates()).map(Arc::new);
                    let serving = this.serving(Peer { certificate, ..peer });
                    match session.alpn_protocol() {
                        Some(b"h2") => Box::pin(http2::serve(stream, Vec::new(), serving)).await,
                        _ => Box::pin(connection::serve(stream, serving)).await,
                    }
                }
                Ok(Err(error)) => tracing::debug!("a client's TLS handshake failed: {error}"),
                Err(_) => tracing::debug!("a client's TLS handshake took too long"),
            }
        });
    }

    fn serving(&self, peer: Peer) -> Serving {
        Serving {
            peer,
            limits: self.limits,
            gateway: self.gateway.clone(),
            connected: self.connected.clone(),
            metrics: self.metrics.clone(),
        }
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
