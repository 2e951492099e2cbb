//! THE order: what every request passes through, first to last. [`Gateway::answer`] is the part for all requests,
//! [`resource`] the part that each resource has for itself.

use std::cell::RefCell;
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HOST, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Version};
use http_body::Body as _;
use hyper::body::Incoming;
use tower::{Layer as _, ServiceBuilder};

use crate::body::{Body, Inbound};
use crate::call::{Call, Caller, Hinted, Hints, Parts};
use crate::clock::Clock;
use crate::error::Error;
use crate::middleware::accounts;
use crate::middleware::audit::{Book, Closing, Ending, Open};
use crate::middleware::forward::Switched;
use crate::middleware::in_flight;
use crate::middleware::site;
use crate::middleware::{Answer, Route, always, layer, respond};
use crate::path::{self, Target};
use crate::record::{OpenRecord, Record};
use crate::snapshot::{Resource, Snapshot, Steps};

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Longest `X-Request-Id` of a client's that is kept.
const REQUEST_ID_MAX: usize = 128;
/// In front of a resource's name (ruling D1).
const PREFIX: &str = "/r/";
/// How often a core without requests looks for a new snapshot.
const LOOK: Duration = Duration::from_secs(1);
/// How many names the hint of a 404 lists.
const KNOWN_MAX: usize = 20;

/// Everything a call to one resource passes through, first to last (ruling H8).
pub fn resource(steps: Steps) -> Route {
    let inner = ServiceBuilder::new()
        // permit: who may call this resource; before anything that costs.
        // limit: its rate limits, for permitted callers only.
        // idempotency: an answer kept for this key is replayed before any work is done.
        .layer(always(steps.shape)) // before cache and sign: both depend on the final request
        .layer(layer(steps.prepare)) // before cache: what is signed is what is kept and sent
        // fallback: around all that can fail behind it.
        // cache: outside retry, so that a hit never waits.
        .layer(layer(steps.in_flight)) // inside cache: a hit takes no place
        .layer(layer(steps.follow)) // outside sign: each hop is signed for where it goes
        // expect, retry, breaker, quota: retry outside sign, so that every attempt signs afresh.
        .layer(layer(steps.sign))
        .layer(layer(steps.reflect)) // looks for the credential just sent, so it must know it
        .service(steps.forward);
    match steps.accounts {
        // Outermost: limits, what is replayed, expressions, cache and signature all depend on whose account it is.
        Some(accounts) => Route::new(always(accounts).layer(inner)),
        None => Route::new(inner),
    }
}

/// A request as the server hands it over.
pub struct Arrival {
    /// The request. Its target and framing have passed the edge.
    pub request: Request<Incoming>,
    /// Where it came from.
    pub peer: Peer,
    /// Why the edge refused it, if it did. Then the request is a stand-in.
    pub refusal: Option<Error>,
    /// Told when the exchange is over.
    pub ending: Arc<dyn Ending>,
    /// Takes early hints, where the client's protocol has a way for them (ruling H10).
    pub hints: Option<Arc<dyn Hinted>>,
}

/// The other end of a client's connection.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its address; none on a Unix socket.
    pub ip: Option<IpAddr>,
    /// Whether the connection is TLS.
    pub tls: bool,
    /// Whether the listener is bound to a loopback address.
    pub loopback: bool,
    /// The certificate that it has shown, which is good where it is there.
    pub certificate: Option<Arc<crate::net::Shown>>,
}

/// Where the live snapshot is swapped.
pub type Live = Arc<ArcSwap<Snapshot>>;

/// This core's look at the live snapshot. While it is the same, a request costs one atomic load: the counter that all
/// cores would share is touched once for each new snapshot, and not by each request.
struct Look {
    cache: arc_swap::Cache<Live, Arc<Snapshot>>,
    held: Rc<Held>,
}

/// One version, counted on this core alone.
#[derive(Debug)]
pub struct Held(Arc<Snapshot>);

impl std::ops::Deref for Held {
    type Target = Snapshot;

    fn deref(&self) -> &Snapshot {
        &self.0
    }
}

impl std::fmt::Debug for Look {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Look")
    }
}

/// What is the same for all requests of the process.
#[derive(Debug)]
pub struct Shared {
    /// The live resources, replaced whole when the configuration is.
    pub live: Live,
    /// `server.limits.in_flight`.
    pub in_flight: in_flight::Places,
    /// How long a request waits for a place or for room in the audit log, where no resource says otherwise.
    pub queue: Duration,
    /// Set once the gateway drains.
    pub draining: Arc<std::sync::atomic::AtomicBool>,
}

/// One core's way through the gateway.
#[derive(Debug)]
pub struct Gateway {
    shared: Arc<Shared>,
    book: Rc<Book>,
    clock: Clock,
    look: RefCell<Look>,
}

impl Gateway {
    /// A gateway for this core.
    pub fn new(shared: Arc<Shared>, book: Book, clock: Clock) -> Self {
        let mut cache = arc_swap::Cache::new(shared.live.clone());
        let held = Rc::new(Held(cache.load().clone()));
        Self { shared, book: Rc::new(book), clock, look: RefCell::new(Look { cache, held }) }
    }

    /// The live snapshot. Whoever keeps it works with one version of the configuration, whatever happens meanwhile.
    pub fn snapshot(&self) -> Rc<Held> {
        let Look { cache, held } = &mut *self.look.borrow_mut();
        let live = cache.load();
        if !Arc::ptr_eq(live, &held.0) {
            *held = Rc::new(Held(live.clone()));
        }
        held.clone()
    }

    /// Looks at the live snapshot now and then, so that a core without requests keeps no old one. For ever.
    pub async fn look_every(self: Rc<Self>) {
        loop {
            tokio::time::sleep(LOOK).await;
            drop(self.snapshot());
        }
    }

    /// Everything that every request passes through: audit outermost, so that refusals for load are recorded too;
    /// then respond, so that each error and each panic becomes a reply; then admit, and the resource's own stack.
    pub async fn answer(self: Rc<Self>, arrival: Arrival) -> Response<Closing> {
        let Arrival { request, peer, refusal, ending, hints } = arrival;
        // One version for the whole request: what is recorded, what is allowed, and which secrets are sent.
        let snapshot = self.snapshot();
        let record = self.open(&request, refusal.is_some(), &snapshot);
        let page = snapshot.common.site.page(request.headers());
        let mut open = Open::new(record.clone(), self.book.clone(), ending);
        let head = *request.method() == Method::HEAD;
        let answer = match self.room(&mut open).await {
            Ok(()) => caught(pin!(self.admit(request, peer, refusal, hints, snapshot, &mut open))).await,
            Err(error) => Err(error),
        };
        let mut response = self.respond(answer, &record);
        if let Some(page) = page {
            site::share(page, response.headers_mut());
        }
        if head {
            leave_out(&mut response);
        }
        if let Some(switched) = response.extensions().get::<Switched>().cloned() {
            return tunnel(response, switched, open);
        }
        match open.answer(response).await {
            Ok(response) => response,
            Err(error) => {
                let mut response = self.respond(Err(error), &record);
                if head {
                    leave_out(&mut response);
                }
                response.map(Closing::bare)
            }
        }
    }

    fn open(&self, request: &Request<Incoming>, refused: bool, snapshot: &Snapshot) -> OpenRecord {
        let id = request_id(request.headers(), &self.clock);
        let mut record = Record::new(id, self.clock.wall(), snapshot.anonymous.clone(), snapshot.version.clone());
        record.environment = snapshot.environment.clone();
        if !refused {
            record.method = Some(request.method().clone());
            record.path = request.uri().path().into();
            record.query = request.uri().query().map(Into::into);
        }
        Rc::new(std::cell::RefCell::new(record))
    }

    /// Reserves room for the record before anything else is done (ruling A4).
    async fn room(&self, open: &mut Open) -> Result<(), Error> {
        let size = crate::audit::estimate(&open.record.borrow());
        let room = self.book.audit.reserve(size, self.shared.queue).await?;
        open.keep(room);
        Ok(())
    }

    async fn admit(
        &self,
        request: Request<Incoming>,
        peer: Peer,
        refusal: Option<Error>,
        hints: Option<Arc<dyn Hinted>>,
        snapshot: Rc<Held>,
        open: &mut Open,
    ) -> Answer {
        if let Some(refusal) = refusal {
            return Err(refusal);
        }
        judge_method(request.method())?;
        let permit = self.shared.in_flight.acquire(self.shared.queue, "server.limits.in_flight").await?;
        open.record.borrow_mut().admitted = Some(permit);
        snapshot.common.site.judge(request.headers(), peer.loopback)?;
        if let Some(allowed) = snapshot.common.site.preflight(request.method(), request.headers()) {
            return Ok(allowed);
        }
        let host = request.headers().get(HOST).and_then(|h| h.to_str().ok());
        let target = path::parse(request.uri(), host).inspect_err(|_| {
            // The record of a refused path is masked like any other of its resource.
            open.record.borrow_mut().mask = named(&snapshot, request.uri().path()).and_then(|resource| resource.mask.clone());
        })?;
        let (resource, rest) = find(&snapshot, &target)?;
        {
            let mut record = open.record.borrow_mut();
            record.resource = Some(resource.name.clone());
            record.mask = resource.mask.clone();
        }
        open.count_for(resource.counts.clone());
        let route = resource.route(request.method(), rest.path())?;
        if resource.consent.is_none() {
            accounts::none_named(request.headers())?;
        }
        let grpc = is_grpc(request.headers());
        let mut call = self.call(request, rest, peer, &resource, &snapshot, &open.record)?;
        call.hints = hints.map(Hints::new);
        // From here on the request has its resource. A call that waits long must not keep all the others of its version.
        drop(snapshot);
        // gRPC streams last as long as both ends want (ruling D12).
        let total = resource.total.filter(|_| !grpc);
        let answer = match total {
            // The bodies keep the deadline themselves; here it bounds the time until there is a head.
            Some(total) => {
                Box::pin(tokio::time::timeout(total, route.run(call))).await.unwrap_or(Err(Error::Timeout(crate::error::Stage::Total)))
            }
            None => route.run(call).await,
        };
        if answer.is_ok() {
            open.record.borrow_mut().answered_by = crate::record::AnsweredBy::Upstream;
        }
        answer
    }

    fn call(
        &self,
        mut request: Request<Incoming>,
        target: Target,
        peer: Peer,
        resource: &Resource,
        snapshot: &Snapshot,
        record: &OpenRecord,
    ) -> Result<Call, Error> {
        let upgrade = asks_to_switch(&request).then(|| hyper::upgrade::on(&mut request));
        let (head, incoming) = request.into_parts();
        let grpc = is_grpc(&head.headers);
        // An expectation in HTTP/1.0 is none (RFC 9110 section 10.1.1).
        let expects_continue = head.version != Version::HTTP_10
            && head.headers.get(EXPECT).is_some_and(|e| e.as_bytes().eq_ignore_ascii_case(b"100-continue"));
        let body = if incoming.is_end_stream() {
            Body::Empty
        } else {
            let mut inbound = Inbound::new(incoming, record.clone(), snapshot.common.pace);
            if head.version == Version::HTTP_2 {
                inbound.until_end_stream();
            }
            if grpc {
                inbound.unhurried();
            }
            match (resource.request_body, snapshot.common.body) {
                (Some(limit), _) => inbound.limit(limit, "limits.request_body")?,
                (None, Some(limit)) => inbound.limit(limit, "server.limits.body")?,
                (None, None) => {}
            }
            Body::Inbound(Box::new(inbound))
        };
        let caller = Caller { name: snapshot.anonymous.clone(), ip: peer.ip, tls: peer.tls };
        let deadline = resource.total.filter(|_| !grpc).map(|total| record.borrow().received + total);
        let parts = Parts::new(head.method, target, head.headers, caller, record.clone());
        Ok(Call::new(Parts { body, deadline, expects_continue, upgrade, ..parts }))
    }

    fn respond(&self, answer: Answer, record: &OpenRecord) -> Response<Body> {
        let mut response = answer.unwrap_or_else(|error| {
            let mut record = record.borrow_mut();
            record.error = Some(error.code());
            respond::reply(&error, &record.id, record.resource.as_deref())
        });
        if self.shared.draining.load(std::sync::atomic::Ordering::Relaxed) && response.extensions().get::<Switched>().is_none() {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

/// `/r/<resource>/<rest>`: the resource, and the target behind it (ruling D1).
fn find(snapshot: &Snapshot, target: &Target) -> Result<(Arc<Resource>, Target), Error> {
    let resource = named(snapshot, target.path()).ok_or_else(|| Error::UnknownResource(snapshot.known(KNOWN_MAX)))?;
    let rest = &target.path()[PREFIX.len() + resource.name.len()..];
    Ok((resource.clone(), Target::new(rest, target.query())))
}

fn named<'s>(snapshot: &'s Snapshot, path: &str) -> Option<&'s Arc<Resource>> {
    let behind = path.strip_prefix(PREFIX)?;
    snapshot.resources.get(&behind[..behind.find('/').unwrap_or(behind.len())])
}

/// The gateway's own answer to HEAD: its length and no body (RFC 9110 section 9.3.2), and so over with its head.
fn leave_out(response: &mut Response<Body>) {
    if let Body::Full(body) = response.body() {
        let length = HeaderValue::from(body.len());
        response.headers_mut().insert(CONTENT_LENGTH, length);
        *response.body_mut() = Body::Empty;
    }
}

/// A panic in the stack is a defect, but it ends one request, not the core. Pinned by the caller, so that a future that
/// has room for all of a request is made where it stays.
async fn caught(mut serving: Pin<&mut impl Future<Output = Answer>>) -> Answer {
    std::future::poll_fn(|cx| match std::panic::catch_unwind(AssertUnwindSafe(|| serving.as_mut().poll(cx))) {
        Ok(poll) => poll,
        Err(_) => std::task::Poll::Ready(Err(Error::Internal("a step panicked".into()))),
    })
    .await
}

/// TRACE would show the upstream's view of the request, credential and all, to the client; TRACK is its twin. Methods
/// are case-sensitive, but not to every upstream, and all that are registered are in capitals (RFC 9110 section 16.1).
fn judge_method(method: &Method) -> Result<(), Error> {
    let name = method.as_str();
    if matches!(name, "TRACE" | "CONNECT" | "TRACK") {
        return Err(Error::MethodNotAllowed(name.to_owned().into()));
    }
    if name.bytes().any(|b| b.is_ascii_lowercase()) {
        return Err(Error::BadRequest("The method is not in capital letters.".into(), "Methods are case-sensitive: send GET.".into()));
    }
    Ok(())
}

/// Whether the client asks to switch protocols (RFC 9110 section 7.8): `Connection` must nominate `Upgrade`, and HTTP/1.0
/// knows no switch. A wish is ignored, as everybody may, beside a body, whose bytes could be taken for the other
/// protocol's, and where it is for HTTP or TLS itself: behind such a switch no request would be judged.
fn asks_to_switch(request: &Request<Incoming>) -> bool {
    let headers = request.headers();
    let words = |name| headers.get_all(name).iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(',')).map(str::trim);
    headers.contains_key(UPGRADE)
        && request.version() == Version::HTTP_11
        && request.body().is_end_stream()
        && words(CONNECTION).any(|one| one.eq_ignore_ascii_case("upgrade"))
        && words(UPGRADE).all(|one| !is_http(one))
}

/// Whether an `Upgrade` names HTTP or TLS, of any version.
fn is_http(protocol: &str) -> bool {
    let name = protocol.split('/').next().unwrap_or_default();
    ["h2", "h2c", "h3", "http", "https", "tls"].iter().any(|known| name.eq_ignore_ascii_case(known))
}

/// Whether the body is a stream of gRPC messages, which may be silent for as long as it wants (ruling D12).
fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|v| v.as_bytes().get(..16).is_some_and(|v| v.eq_ignore_ascii_case(b"application/grpc")))
}

/// Hands both ends of a switched connection to a task that copies until one of them ends. The record stays open as long.
fn tunnel(mut response: Response<Body>, switched: Switched, open: Open) -> Response<Closing> {
    response.extensions_mut().clear();
    open.record.borrow_mut().status = response.status().as_u16();
    if let Some(ends) = switched.take() {
        tokio::task::spawn_local(async move {
            let (client, upstream) = (ends.client.await, ends.upstream.await);
            if let (Ok(client), Ok(upstream)) = (client, upstream) {
                let bytes = crate::net::tunnel(client, upstream, ends.idle).await;
                let mut record = open.record.borrow_mut();
                record.bytes_in = bytes.up;
                record.bytes_out = bytes.down;
            }
            open.close();
        });
    }
    response.map(Closing::bare)
}

/// The client's own request id if it is sane, else a new UUIDv7 (RFC 9562 section 5.7).
fn request_id(headers: &HeaderMap, clock: &Clock) -> Box<str> {
    let sane =
        |v: &&str| !v.is_empty() && v.len() <= REQUEST_ID_MAX && v.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~+/=:@".contains(&b));
    if let Some(id) = headers.get(X_REQUEST_ID).and_then(|v| v.to_str().ok()).filter(sane) {
        return id.into();
    }
    let mut random = [0; 10];
    fastrand::fill(&mut random);
    let id = uuid::Builder::from_unix_timestamp_millis(clock.millis(), &random).into_uuid();
    let mut text = [0; 36];
    (&*id.hyphenated().encode_lower(&mut text)).into()
}
