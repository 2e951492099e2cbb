//! A gateway whose client is in memory: a request goes through all of it, from the edge to the last step. Either what would
//! go to the upstream is kept and nothing is sent, or it is called. No record is written.

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::runtime::LocalRuntime;
use tokio::task::spawn_local;

use super::QUEUE;
use super::connected::Connected;
use super::connection::{self, Serving};
use super::edge::Limits;
use super::head::Bounds;
use crate::audit::{self, Audit};
use crate::clock::Clock;
use crate::config::Plan;
use crate::middleware::audit::Book;
use crate::middleware::in_flight::Places;
use crate::net::Diversion;
use crate::secret::Mask;
use crate::snapshot::Snapshot;
use crate::stack::{self, Gateway, Peer, Shared};
use crate::telemetry::Metrics;

/// Bytes under way between the rehearsal's client and the gateway.
const BUFFER: usize = 64 * 1024;
/// Longest time for the whole of it: nothing in it waits for anybody else.
const PATIENCE: Duration = Duration::from_secs(30);
/// Most bytes of one request that are kept.
const KEPT_MAX: usize = 128 << 20;
/// Most bytes of an answer that are kept.
const ANSWER_MAX: usize = 16 << 20;
/// What the upstream's stand-in says. Its connections serve once: none is left when upstreams are dialled again.
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// What came of a rehearsal.
#[derive(Debug, Default)]
pub struct Rehearsal {
    /// The requests that an upstream would have got, byte for byte as HTTP/1.1.
    pub sent: Vec<Vec<u8>>,
    /// The gateway's answer, which says why where nothing was sent.
    pub answer: Vec<u8>,
}

/// A gateway whose one client is in memory.
pub struct Inside {
    runtime: LocalRuntime,
    gateway: Rc<Gateway>,
    audit: Arc<Audit>,
    metrics: Arc<Metrics>,
    limits: Limits,
    peer: Peer,
    diversion: Diversion,
    sent: Rc<RefCell<Vec<Vec<u8>>>>,
}

impl Inside {
    /// A gateway with this plan, as this client sees it, that sends nothing: no token is fetched either.
    ///
    /// # Errors
    /// If the system gives no thread or no runtime.
    pub fn sealed(plan: Plan, peer: Peer) -> io::Result<Self> {
        plan.tokens.rehearse();
        Self::new(plan, peer)
    }

    /// A gateway with this plan, as this client sees it. Tokens are fetched as its plan's have been started to be.
    ///
    /// # Errors
    /// If the system gives no thread or no runtime.
    pub fn new(mut plan: Plan, peer: Peer) -> io::Result<Self> {
        let audit = Audit::open(audit::Config::nowhere(), Arc::<Mask>::default()).map_err(io::Error::other)?;
        let (diversion, mut arriving) = Diversion::new();
        let aside: Vec<_> = plan.resources.iter_mut().flat_map(|resource| std::mem::take(&mut resource.aside)).collect();
        plan.resources.extend(aside);
        for resource in &mut plan.resources {
            for upstream in resource.apart.iter_mut().chain([&mut resource.upstream]) {
                *upstream = Arc::new(upstream.diverted(diversion.clone()));
            }
        }
        let server = plan.listening.server.clone();
        let metrics = Arc::new(Metrics::new(audit.dropped(), plan.tokens.counts()));
        let shared = Arc::new(Shared {
            live: Arc::new(ArcSwap::from_pointee(Snapshot::new(plan, stack::resource))),
            in_flight: Places::new(1),
            queue: QUEUE,
            draining: Arc::new(AtomicBool::new(false)),
        });
        let limits = Limits {
            bounds: Bounds { bytes: server.limits.header_bytes, fields: server.limits.headers },
            idle: PATIENCE,
            header: PATIENCE,
            stall: PATIENCE,
        };
        let options = tokio::runtime::LocalOptions::default();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(options)?;
        let sent: Rc<RefCell<Vec<Vec<u8>>>> = Rc::default();
        let kept = sent.clone();
        runtime.spawn_local(async move {
            while let Some(stream) = arriving.recv().await {
                spawn_local(receive(stream, kept.clone()));
            }
        });
        let book = Book::new(audit.core(), metrics.clone());
        let gateway = Rc::new(Gateway::new(shared, book, Clock::system()));
        Ok(Self { runtime, gateway, audit, metrics, limits, peer, diversion, sent })
    }

    /// Takes these bytes, one request, through the gateway, and sends nothing to its upstream.
    ///
    /// # Errors
    /// If it takes too long.
    pub fn rehearse(&self, request: &[u8]) -> io::Result<Rehearsal> {
        self.diversion.switch(true);
        let answer = self.ask(request, PATIENCE)?;
        Ok(Rehearsal { sent: self.sent.take(), answer })
    }

    /// Takes these bytes, one request, through the gateway and to its upstream.
    ///
    /// # Errors
    /// If there is no answer within `patience`.
    pub fn call(&self, request: &[u8], patience: Duration) -> io::Result<Vec<u8>> {
        self.diversion.switch(false);
        self.ask(request, patience)
    }

    /// Does this where the gateway is.
    pub fn run<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    fn ask(&self, request: &[u8], patience: Duration) -> io::Result<Vec<u8>> {
        let (client, far) = tokio::io::duplex(BUFFER);
        let serving = Serving {
            peer: self.peer.clone(),
            limits: self.limits,
            gateway: self.gateway.clone(),
            connected: Rc::<Connected>::default(),
            metrics: self.metrics.clone(),
        };
        let asked = self.runtime.block_on(async {
            spawn_local(connection::serve(far, serving));
            tokio::time::timeout(patience, ask(client, request)).await
        });
        asked.map_err(|_| io::ErrorKind::TimedOut.into())
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        self.audit.close(PATIENCE);
    }
}

/// Sends while it reads, as a gateway that refuses early does not take the rest.
async fn ask(client: DuplexStream, request: &[u8]) -> Vec<u8> {
    let (mut reader, mut writer) = tokio::io::split(client);
    let mut answer = Vec::new();
    let write = async {
        let _ = writer.write_all(request).await;
    };
    let read = async {
        // A client may keep the connection; what counts is one answer.
        while !answered(&answer, request) && answer.len() < ANSWER_MAX && matches!(reader.read_buf(&mut answer).await, Ok(1..)) {}
    };
    // An early answer ends it, whatever of the request is still to be taken.
    tokio::select! {
        () = read => {}
        () = async { write.await; std::future::pending().await } => {}
    }
    answer
}

/// Whether the last of the answers is there to its end. An answer to HEAD has no body.
fn answered(answer: &[u8], request: &[u8]) -> bool {
    let Some(end) = memchr::memmem::find(answer, b"\r\n\r\n") else { return false };
    if answer.starts_with(b"HTTP/1.1 1") {
        return answered(&answer[end + 4..], request);
    }
    request.starts_with(b"HEAD ") || whole(answer) == Some(true)
}

/// Keeps the request of a connection and answers it.
async fn receive(mut stream: DuplexStream, kept: Rc<RefCell<Vec<Vec<u8>>>>) {
    let mut bytes = Vec::new();
    let mut continued = false;
    loop {
        match whole(&bytes) {
            Some(true) => {
                kept.borrow_mut().push(std::mem::take(&mut bytes));
                let _ = stream.write_all(ANSWER).await;
                return;
            }
            Some(false) if !continued && expects_continue(&bytes) => {
                continued = true;
                let _ = stream.write_all(CONTINUE).await;
            }
            _ => {}
        }
        if bytes.len() > KEPT_MAX || !matches!(stream.read_buf(&mut bytes).await, Ok(1..)) {
            return;
        }
    }
}

/// Whether a request is there to its last byte; `None` while its head is not.
fn whole(bytes: &[u8]) -> Option<bool> {
    let end = memchr::memmem::find(bytes, b"\r\n\r\n")? + 4;
    let (head, body) = bytes.split_at(end);
    let head = String::from_utf8_lossy(head).to_ascii_lowercase();
    let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    Some(match (field("content-length:").and_then(|n| n.parse::<usize>().ok()), field("transfer-encoding:")) {
        (Some(length), _) => body.len() >= length,
        (None, Some(_)) => body.ends_with(b"0\r\n\r\n") || (last_chunk(body) && body.ends_with(b"\r\n\r\n")),
        (None, None) => true,
    })
}

fn last_chunk(body: &[u8]) -> bool {
    memchr::memmem::find(body, b"\r\n0\r\n").is_some()
}

fn expects_continue(bytes: &[u8]) -> bool {
    let end = memchr::memmem::find(bytes, b"\r\n\r\n").unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase().contains("\r\nexpect:")
}
