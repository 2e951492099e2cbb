//! The listening side: sockets, cores, and the end of the process. One thread with a runtime of its own per core; the
//! main thread's runtime does everything that is no request: signals, the admin listener, the mock, and dealing out
//! connections that no core accepts by itself.

mod connected;
mod connection;
mod core;
pub mod edge;
mod frames;
pub mod head;
mod http2;
mod leave;
mod listen;
mod memory;
pub mod rehearsal;
mod request;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Semaphore, mpsc, watch};

use self::core::{Dealt, Door, Setup};
use self::edge::Limits;
use self::head::Bounds;
use self::leave::{End, Leaving, Step};
use self::listen::Unix;
use crate::admin::{self, Admin, People, Side};
use crate::audit::Audit;
use crate::config::listen::{Accept, Address, Root as Listening, Server};
use crate::connect::Desk;
use crate::middleware::in_flight::Places;
use crate::reload;
use crate::secret::Secret;
use crate::snapshot::Snapshot;
use crate::stack::{Live, Shared};
use crate::telemetry::Metrics;

/// Connections that are dealt to a core and not yet taken.
const DEALT: usize = 1024;
/// Part of `server.timeouts.drain` during which listeners may stay open; the rest is for what is under way.
const LISTEN_SHARE: f64 = 0.75;
/// How long a request waits for a place where no resource says otherwise (`timeouts.queue`).
const QUEUE: Duration = Duration::from_secs(5);
/// How long the cores may take to cut off what is under way.
const CUT: Duration = Duration::from_secs(2);
/// How long the audit log may take for its last lines.
const AUDIT_END: Duration = Duration::from_secs(5);
/// Pause after the system has refused to accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why the gateway did not start.
#[derive(Debug)]
pub struct StartError {
    /// What it was about: an address, a file.
    pub what: String,
    /// The system's word.
    pub why: io::Error,
}

impl std::fmt::Display for StartError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.why.kind() {
            io::ErrorKind::AddrInUse => write!(f, "{}: the address is in use; is another gateway running?", self.what),
            io::ErrorKind::PermissionDenied => write!(f, "{}: permission denied", self.what),
            _ => write!(f, "{}: {}", self.what, self.why),
        }
    }
}

impl std::error::Error for StartError {}

fn failed(what: impl Into<String>) -> impl FnOnce(io::Error) -> StartError {
    let what = what.into();
    move |why| StartError { what, why }
}

/// What a gateway runs for: begun once it listens. When it is done, the gateway drains. Signals are its affair.
pub type Errand = Box<dyn FnOnce() -> Pin<Box<dyn Future<Output = ()>>>>;

/// Runs the gateway until it is told to end, or until its errand is done.
///
/// # Errors
/// [`StartError`] if something that the configuration names is not to be had: an address, a file.
pub fn run(
    listening: Listening,
    snapshot: Snapshot,
    audit: Arc<Audit>,
    source: reload::Source,
    own_token: Option<Secret>,
    errand: Option<Errand>,
) -> Result<(), StartError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed("the runtime"))?;
    runtime.block_on(serve(listening, Arc::new(ArcSwap::from_pointee(snapshot)), audit, source, own_token, errand))
}

async fn serve(
    listening: Listening,
    live: Live,
    audit: Arc<Audit>,
    source: reload::Source,
    own_token: Option<Secret>,
    errand: Option<Errand>,
) -> Result<(), StartError> {
    let server = listening.server;
    // Before anything listens: a signal that comes early is a drain, not an end.
    let mut signals = Signals::new().map_err(failed("signals"))?;
    let tokens = source.fixed.tokens().clone();
    let metrics = Arc::new(Metrics::new(audit.dropped(), tokens.counts()));
    let draining = Arc::new(AtomicBool::new(false));
    let (end, told) = watch::channel(End::No);
    let (running, mut ended) = mpsc::channel::<()>(1);

    let workers = server.workers.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let bound = bind(&server, workers)?;
    let reload = reload::start(source, live.clone(), audit.clone(), metrics.clone()).map_err(failed("a thread"))?;
    let people = if listening.connect.is_some() { People::Elsewhere } else { People::Here };
    let sides = [(listening.connect, Side::Connect), (listening.admin, Side::Admin(people)), (listening.health, Side::Health)];
    let mut others = Vec::new();
    for (address, side) in sides.into_iter().filter_map(|(address, side)| Some((address?, side))) {
        others.push((TcpListener::bind(address).await.map_err(failed(address.to_string()))?, side));
    }
    // The first of them that has a place for people is theirs.
    let desk = others.iter().find(|(_, side)| matches!(side, Side::Connect | Side::Admin(_)));
    let desk = desk.and_then(|(listener, _)| Desk::new(live.clone(), tokens.clone(), listener.local_addr().ok()?));
    desk.iter().for_each(|desk| drop(tokio::spawn(desk.clone().sweep_every())));
    let admin = Admin::new(live.clone(), metrics.clone(), draining.clone(), audit.clone(), reload.clone(), tokens);
    let admin = Arc::new(admin.with(desk, own_token));
    for (listener, side) in others {
        tokio::spawn(admin::serve(listener, admin.clone(), side));
    }
    if let Some(mock) = listening.mock {
        let listener = TcpListener::bind(mock.listen).await.map_err(failed(mock.listen.to_string()))?;
        let mock = crate::mock::service(crate::mock::Settings { seed: mock.seed, items: mock.items });
        tokio::spawn(crate::mock::serve(listener, Arc::new(mock), std::future::pending::<()>()));
    }

    let shared =
        Arc::new(Shared { live: live.clone(), in_flight: Places::new(server.limits.in_flight), queue: QUEUE, draining: draining.clone() });
    let limits = Limits {
        bounds: Bounds { bytes: server.limits.header_bytes, fields: server.limits.headers },
        idle: server.timeouts.idle,
        header: server.timeouts.header,
        stall: server.timeouts.body_idle,
    };
    let patience = server.timeouts.drain.mul_f64(LISTEN_SHARE);
    let connections = Arc::new(Semaphore::new(server.limits.connections));
    let mut senders = Vec::new();
    let mut sockets = bound.sockets.into_iter();
    for index in 0..workers {
        let (sender, dealt) = mpsc::channel(DEALT);
        senders.push(sender);
        let setup = Setup {
            shared: shared.clone(),
            limits,
            connections: connections.clone(),
            doors: bound.doors.clone(),
            sockets: sockets.next().unwrap_or_default(),
            dealt,
            end: told.clone(),
            patience,
            audit: audit.clone(),
            metrics: metrics.clone(),
        };
        let running = running.clone();
        let core = move || {
            if let Err(error) = self::core::run(setup) {
                tracing::error!("a core has ended: {error}");
            }
            drop(running);
        };
        std::thread::Builder::new().name(format!("core-{index}")).spawn(core).map_err(failed("a thread"))?;
    }
    drop(running);
    for dealer in bound.dealers {
        let leaving = Leaving::new(told.clone(), patience);
        tokio::spawn(deal(dealer, senders.clone(), connections.clone(), leaving));
    }
    // The dealers hold the only senders: once they are done, the cores know that nothing more will come.
    drop(senders);
    announce(&bound.names, live.load().resources.len());

    match errand {
        None => {
            while signals.next().await == Signal::Hangup {
                reload.hangup();
            }
        }
        Some(errand) => {
            errand().await;
            // Those that were for the errand have been heard by it.
            signals = Signals::new().map_err(failed("signals"))?;
        }
    }
    tracing::info!("draining: the listeners stay open while requests arrive");
    draining.store(true, Ordering::Relaxed);
    let _ = end.send(End::Drain);
    tokio::select! {
        _ = ended.recv() => tracing::info!("drained"),
        () = tokio::time::sleep(server.timeouts.drain) => tracing::warn!("server.timeouts.drain is over; what is still under way is cut off"),
        () = signals.any() => tracing::warn!("told to end a second time: what is still under way is cut off"),
    }
    let _ = end.send(End::Cut);
    if tokio::time::timeout(CUT, ended.recv()).await.is_err() {
        tracing::error!("a core does not end");
    }
    audit.close(AUDIT_END);
    Ok(())
}

fn announce(names: &[String], resources: usize) {
    tracing::info!("{resources} {} behind {}", if resources == 1 { "resource" } else { "resources" }, names.join(", "));
}

/// Who accepts on the main thread and deals to the cores.
enum Dealer {
    Tcp(std::net::TcpListener, usize),
    Unix(Unix),
}

struct Bound {
    /// Per core, the sockets that it accepts from by itself.
    sockets: Vec<Vec<(std::net::TcpListener, usize)>>,
    doors: Vec<Door>,
    dealers: Vec<Dealer>,
    names: Vec<String>,
}

fn bind(server: &Server, workers: usize) -> Result<Bound, StartError> {
    let mut bound =
        Bound { sockets: (0..workers).map(|_| Vec::new()).collect(), doors: Vec::new(), dealers: Vec::new(), names: Vec::new() };
    for listener in &server.listen {
        bound.names.push(listener.to_string());
        match &listener.address {
            Address::Tcp(address) => {
                let door = bound.doors.len();
                bound.doors.push(Door { tls: listener.tls.clone(), loopback: address.ip().is_loopback() });
                bind_tcp(&mut bound, *address, door, server.accept).map_err(failed(address.to_string()))?;
            }
            Address::Unix { path, mode, group } => {
                bound.dealers.push(Dealer::Unix(Unix::bind(path, *mode, *group).map_err(failed(path.display().to_string()))?));
            }
        }
    }
    Ok(bound)
}

fn bind_tcp(bound: &mut Bound, address: SocketAddr, door: usize, accept: Accept) -> io::Result<()> {
    if accept == Accept::RoundRobin {
        bound.dealers.push(Dealer::Tcp(listen::tcp(address, false)?, door));
        return Ok(());
    }
    listen::probe(address)?;
    for sockets in &mut bound.sockets {
        sockets.push((listen::tcp(address, true)?, door));
    }
    Ok(())
}

/// Accepts and deals round robin, until draining and nobody has connected for a while.
async fn deal(dealer: Dealer, cores: Vec<mpsc::Sender<Dealt>>, connections: Arc<Semaphore>, mut leaving: Leaving) {
    let mut listener = match register(dealer) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!("a listener cannot be used: {error}"),
    };
    let mut turn = 0;
    loop {
        let Ok(permit) = connections.clone().acquire_owned().await else { return };
        let step = tokio::select! {
            biased;
            accepted = listener.accept(permit) => match accepted {
                Ok(connection) => {
                    turn = (turn + 1) % cores.len();
                    // A core that is gone or has a full queue drops the connection: the client sees it closed.
                    if cores[turn].try_send(connection).is_err() {
                        tracing::warn!("a core takes no more connections");
                    }
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
            Step::Shut => listener.shut(),
            Step::Close => return,
        }
    }
}

enum Registered {
    Tcp(TcpListener, usize),
    /// The listener, and its file, which is removed when the listener is shut.
    Unix(UnixListener, Option<listen::File>),
}

fn register(dealer: Dealer) -> io::Result<Registered> {
    Ok(match dealer {
        Dealer::Tcp(listener, door) => Registered::Tcp(TcpListener::from_std(listener)?, door),
        Dealer::Unix(Unix { listener, file }) => Registered::Unix(UnixListener::from_std(listener)?, Some(file)),
    })
}

impl Registered {
    async fn accept(&self, permit: tokio::sync::OwnedSemaphorePermit) -> io::Result<Dealt> {
        Ok(match self {
            Self::Tcp(listener, door) => Dealt::Tcp(listener.accept().await?.0.into_std()?, *door, permit),
            Self::Unix(listener, _) => Dealt::Unix(listener.accept().await?.0.into_std()?, permit),
        })
    }

    /// Lets no new connection begin.
    fn shut(&mut self) {
        match self {
            Self::Tcp(listener, _) => listen::shut(listener),
            Self::Unix(_, file) => drop(file.take()),
        }
    }
}

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Signal {
    End,
    Hangup,
}

/// TERM and INT, and HUP.
struct Signals {
    term: tokio::signal::unix::Signal,
    int: tokio::signal::unix::Signal,
    hup: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { term: signal(SignalKind::terminate())?, int: signal(SignalKind::interrupt())?, hup: signal(SignalKind::hangup())? })
    }

    /// The next signal that ends.
    async fn any(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.int.recv() => {}
        }
    }

    async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.term.recv() => Signal::End,
            _ = self.int.recv() => Signal::End,
            _ = self.hup.recv() => Signal::Hangup,
        }
    }
}
