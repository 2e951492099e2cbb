//! `/healthz`, `/readyz` and `/metrics`, on a listener apart from the data port. They need neither a token nor a known
//! `Host`: probes call the address of a pod (ruling B16). What does is `api.rs`.

mod api;
mod connections;
mod peers;

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use peers::Peers;

use crate::auth::grant::Tokens;
use crate::connect::Desk;
use crate::reload::Handle;
use crate::secret::Secret;
use crate::stack::Live;
use crate::telemetry::{Exposition, Metrics};

/// Most connections at a time: probes and scrapers are few.
const CONNECTIONS: usize = 128;
/// Longest life of a connection of somebody who connects an account: one request and its answer.
const VISIT: Duration = Duration::from_secs(60);
/// Longest wait for a head, and for the next one.
const PATIENCE: Duration = Duration::from_secs(30);
/// Largest head.
const HEAD_BYTES: usize = 16 * 1024;
/// Pause after the system has refused to accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What needs neither a token nor a known `Host` (ruling B16).
const PROBES: [&str; 3] = ["/healthz", "/readyz", "/metrics"];

/// What the listener tells about.
pub struct Admin {
    registry: Registry,
    draining: Arc<AtomicBool>,
    audit: Arc<crate::audit::Audit>,
    live: Live,
    reload: Handle,
    tokens: Tokens,
    desk: Option<Arc<Desk>>,
    /// Proves a program of this user where the operator has configured no token.
    own_token: Option<Secret>,
}

/// What a listener answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Everything: `admin.listen`; people who connect accounts too, where they have no address of their own.
    Admin(People),
    /// Only probes and figures: `health.listen`.
    Health,
    /// Only people who connect accounts: `connect.listen`.
    Connect,
}

/// Whether people connect accounts here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum People {
    /// They do.
    Here,
    /// They have an address of their own.
    Elsewhere,
}

impl std::fmt::Debug for Admin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Admin")
    }
}

impl Admin {
    /// Tells about these.
    pub fn new(
        live: Live,
        metrics: Arc<Metrics>,
        draining: Arc<AtomicBool>,
        audit: Arc<crate::audit::Audit>,
        reload: Handle,
        tokens: Tokens,
    ) -> Self {
        let mut registry = Registry::default();
        let shown = live.clone();
        let resources = move |each: &mut dyn FnMut(&str, &crate::telemetry::Counts)| {
            for resource in shown.load_full().resources.values() {
                each(&resource.name, &resource.counts);
            }
        };
        registry.register_collector(Box::new(Exposition { metrics, resources }));
        Self { registry, draining, audit, live, reload, tokens, desk: None, own_token: None }
    }

    /// Has people connect accounts at this desk, and takes this token where the operator has configured none.
    #[must_use]
    pub fn with(self, desk: Option<Arc<Desk>>, own_token: Option<Secret>) -> Self {
        Self { desk, own_token, ..self }
    }

    async fn answer(&self, request: Request<Incoming>, side: Side, caller: api::Caller) -> Response<Full<Bytes>> {
        let path = request.uri().path();
        let admin = matches!(side, Side::Admin(_));
        if let (Side::Connect | Side::Admin(People::Here), Some(desk), true) = (side, &self.desk, Desk::has(path)) {
            return desk.answer(request).await;
        }
        if side == Side::Connect {
            return text(StatusCode::NOT_FOUND, "people come here by links, to connect accounts\n");
        }
        if admin && connections::has(path) {
            let live = self.live.load_full();
            return match api::admit(request.headers(), caller, &live.common, connections::need(&request, self.own_token.as_ref())) {
                Ok(()) => connections::answer(request, self.desk.as_deref()).await,
                Err(refusal) => *refusal,
            };
        }
        if admin && (path == "/api" || path.starts_with("/api/")) {
            let live = self.live.load_full();
            return api::answer(request.method(), path, request.headers(), caller, &live.common, &self.reload, &self.tokens).await;
        }
        // Whatever is no probe is no page's business, by whatever name it calls this machine (ruling B16).
        if !PROBES.contains(&path) && self.live.load().common.site.judge(request.headers(), caller.loopback).is_err() {
            return text(StatusCode::FORBIDDEN, "pages of other sites and foreign names are refused\n");
        }
        self.probe(&request, admin)
    }

    fn probe(&self, request: &Request<Incoming>, admin: bool) -> Response<Full<Bytes>> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        match request.uri().path() {
            "/healthz" => text(StatusCode::OK, "ok\n"),
            "/readyz" if self.draining.load(Ordering::Relaxed) => text(StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
            "/readyz" if !self.audit.healthy() => text(StatusCode::SERVICE_UNAVAILABLE, "the audit log cannot be written\n"),
            "/readyz" => text(StatusCode::OK, "ready\n"),
            "/metrics" => self.metrics(),
            _ if admin => text(StatusCode::NOT_FOUND, "here are /healthz, /readyz, /metrics, and /api, which tells what it has\n"),
            _ => text(StatusCode::NOT_FOUND, "here are /healthz, /readyz and /metrics\n"),
        }
    }

    fn metrics(&self) -> Response<Full<Bytes>> {
        let mut page = String::new();
        if let Err(error) = prometheus_client::encoding::text::encode(&mut page, &self.registry) {
            tracing::error!("metrics cannot be rendered: {error}");
            return text(StatusCode::INTERNAL_SERVER_ERROR, "metrics cannot be rendered\n");
        }
        let mut response = text(StatusCode::OK, page);
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8"));
        response
    }
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    response
}

/// Serves until the runtime ends: an instance that drains must still be able to say so.
pub async fn serve(listener: TcpListener, admin: Arc<Admin>, side: Side) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    // Where people come may be open to all: one address does not take every place, nobody stays, and there is no second
    // request on a connection whose end somebody else might see elsewhere.
    let public = side == Side::Connect;
    let peers = Peers::default();
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!("accepting on the admin listener failed: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let guest = peers.enter(peer.ip());
        if public && guest.is_none() {
            continue;
        }
        let admin = admin.clone();
        // By the address that was called: a listener that is open to all may be reached over this machine's own too.
        let loopback = stream.local_addr().is_ok_and(|address| address.ip().to_canonical().is_loopback());
        tokio::spawn(async move {
            let (_place, _guest) = (place, guest);
            let caller = api::Caller { ip: peer.ip(), loopback };
            let service = service_fn(|request| {
                let admin = &admin;
                async move { Ok::<_, Infallible>(admin.answer(request, side, caller).await) }
            });
            let mut builder = http1::Builder::new();
            builder.timer(TokioTimer::new()).header_read_timeout(PATIENCE).max_buf_size(HEAD_BYTES).keep_alive(!public);
            let served = builder.serve_connection(TokioIo::new(stream), service);
            let served = if public { tokio::time::timeout(VISIT, served).await.unwrap_or(Ok(())) } else { served.await };
            if let Err(error) = served {
                tracing::debug!("an admin connection ended: {error}");
            }
        });
    }
}
