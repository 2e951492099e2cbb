//! The last step: sends the call over a pooled connection and streams the answer back, under `timeouts` and
//! `limits.response_body`. Retrying is not done here, save what the pool may resend unseen (ruling D19).

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, UPGRADE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use tower::Service;

use super::Answer;
use crate::body::{Alarm, Body};
use crate::call::{Call, Finish, Hints, Parts};
use crate::error::{Breach, Error, Stage};
use crate::net::{self, Lease, Upstream};
use crate::record::OpenRecord;
use crate::trailers;

/// How long a client that expects 100 is kept waiting for a word from the upstream (ruling D11).
const EXPECT_PATIENCE: Duration = Duration::from_secs(1);

/// The times of one resource that concern the exchange. Connecting and queueing are the pool's.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// Until the head of the answer, counted anew while the request's body moves.
    pub head: Duration,
    /// Between two pieces of the answer.
    pub idle: Duration,
    /// Whether `idle` was written for this resource: only then it bounds event streams and tunnels (ruling D12).
    pub idle_written: bool,
}

/// Sends calls of one resource.
#[derive(Clone, Debug)]
pub struct Forward(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    upstream: Arc<Upstream>,
    timeouts: Timeouts,
    response_body: Option<u64>,
    upgrades: bool,
}

/// Both ends of a switched connection, left in the answer's extensions for whoever closes the record.
#[derive(Clone, Debug)]
pub struct Switched(Arc<std::sync::Mutex<Option<Ends>>>);

/// The two ends of a tunnel, and how long it may be silent.
#[derive(Debug)]
pub struct Ends {
    /// Towards the client.
    pub client: hyper::upgrade::OnUpgrade,
    /// Towards the upstream.
    pub upstream: hyper::upgrade::OnUpgrade,
    /// Longest silence, where one is set.
    pub idle: Option<Duration>,
}

impl Switched {
    /// The ends; `None` the second time.
    pub fn take(&self) -> Option<Ends> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take()
    }
}

impl Forward {
    /// A sender for one upstream. `upgrades` is the resource's `websocket`.
    pub fn new(upstream: Arc<Upstream>, timeouts: Timeouts, response_body: Option<u64>, upgrades: bool) -> Self {
        Self(Arc::new(Inner { upstream, timeouts, response_body, upgrades }))
    }
}

impl Service<Call> for Forward {
    type Response = Response<Body>;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Answer>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, call: Call) -> Self::Future {
        let inner = self.0.clone();
        super::pinned(move || async move { inner.exchange(call).await })
    }
}

impl Inner {
    async fn exchange(&self, mut call: Call) -> Answer {
        let Parts { method, target, headers, body, deadline, expects_continue, upgrade, hints, origin, finish, record, .. } = &mut *call;
        if upgrade.is_some() && !self.upgrades {
            return Err(Error::Forbidden("This resource does not switch protocols.".into(), "Set websocket: true on the resource.".into()));
        }
        let head = *method == Method::HEAD;
        let asked = upgrade.as_ref().and_then(|_| headers.get(UPGRADE).cloned());
        if asked.is_some() {
            headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        }
        // With `Expect: 100-continue` the body waits until the upstream wants it.
        let gate = if *expects_continue { body.gate() } else { None };
        if gate.is_none() {
            headers.remove(EXPECT);
        }
        if matches!(body, Body::Empty) && matches!(*method, Method::POST | Method::PUT | Method::PATCH) {
            // Some servers demand a length where a body could be (RFC 9110 section 8.6).
            headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        let mut request = Request::new(std::mem::take(body));
        *request.method_mut() = std::mem::take(method);
        *request.uri_mut() = std::mem::take(target).into_uri()?;
        *request.headers_mut() = std::mem::take(headers);
        if let Some(gate) = gate {
            // Where the call goes out over HTTP/2, the pool opens it.
            request.extensions_mut().insert(gate.clone());
            let opener = gate.clone();
            hyper::ext::on_informational(&mut request, move |informational| {
                if informational.status() == StatusCode::CONTINUE {
                    opener.open();
                }
            });
            tokio::task::spawn_local(async move {
                tokio::time::sleep(EXPECT_PATIENCE).await;
                gate.open();
            });
        }
        let (mut response, lease) = match origin {
            None => self.send(&self.upstream, request, finish.take(), hints.as_ref(), record).await?,
            Some(origin) => self.send(&self.upstream.at(origin), request, finish.take(), hints.as_ref(), record).await?,
        };
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return self.switch(response, lease, asked, upgrade.take());
        }
        let endless = is_endless(response.headers());
        response.extensions_mut().clear();
        let http2 = response.version() == Version::HTTP_2;
        // What follows these in spite of RFC 9110 section 6.4.1 is not read; over HTTP/1.1 the filter has seen to it.
        let bodiless = http2 && matches!(response.status(), StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        let kind = Kind { head, endless, bodiless, strict_end: http2 };
        Ok(response.map(|incoming| self.stream(incoming, lease, kind, *deadline)))
    }

    /// Sends, and waits for the head of the answer.
    async fn send(
        &self,
        upstream: &Arc<Upstream>,
        request: Request<Body>,
        finish: Option<Finish>,
        hints: Option<&Hints>,
        record: &OpenRecord,
    ) -> Result<(Response<Incoming>, Lease<Body>), Error> {
        let sent = Instant::now();
        let mut limit = None;
        let mut moved = 0;
        let mut stats = net::Stats::default();
        let pool = net::here();
        let patience = |alarm: &mut Alarm, cx: &mut Context<'_>| {
            loop {
                let limit = limit.get_or_insert_with(|| Instant::now() + self.timeouts.head);
                ready!(alarm.poll(*limit, cx));
                // A body that still moves is no silence: only an upstream that neither reads nor answers is.
                let now = record.borrow().bytes_in;
                if now == moved {
                    return Poll::Ready(Error::Timeout(Stage::Head));
                }
                moved = now;
                *limit = Instant::now() + self.timeouts.head;
            }
        };
        let result = pool.send(upstream, request, finish, hints, &mut stats, patience).await;
        let mut record = record.borrow_mut();
        record.attempts += stats.attempts.max(1);
        record.timings.queue += micros(stats.queue);
        record.timings.connect += micros(stats.connect);
        record.timings.head = micros(sent.elapsed().saturating_sub(stats.queue).saturating_sub(stats.connect));
        result
    }

    fn switch(
        &self,
        response: Response<Incoming>,
        lease: Lease<Body>,
        asked: Option<HeaderValue>,
        client: Option<hyper::upgrade::OnUpgrade>,
    ) -> Answer {
        let offered = response.headers().get(UPGRADE).cloned();
        let (Some(asked), Some(client), Some(offered)) = (asked, client, offered) else {
            return Err(Error::Protocol(Breach::Unasked101));
        };
        if !offers(&asked, &offered) {
            return Err(Error::Protocol(Breach::Unasked101));
        }
        let (mut parts, incoming) = response.into_parts();
        let upstream = hyper::upgrade::on(Response::from_parts(parts.clone(), incoming));
        let idle = self.timeouts.idle_written.then_some(self.timeouts.idle);
        let ends = Ends { client, upstream, idle };
        // From here on the connection lives as long as its end of the tunnel.
        lease.switched();
        parts.extensions.clear();
        parts.extensions.insert(Switched(Arc::new(std::sync::Mutex::new(Some(ends)))));
        Ok(Response::from_parts(parts, Body::Empty))
    }

    fn stream(&self, incoming: Incoming, lease: Lease<Body>, kind: Kind, deadline: Option<Instant>) -> Body {
        if incoming.is_end_stream() || kind.bodiless {
            lease.done();
            return Body::Empty;
        }
        let Kind { head, endless, strict_end, .. } = kind;
        let idle = (!endless || self.timeouts.idle_written).then_some(self.timeouts.idle);
        let deadline = deadline.filter(|_| !endless);
        let limit = self.response_body.filter(|_| !head).unwrap_or(u64::MAX);
        Body::Stream(Box::pin(Outbound {
            incoming,
            lease: Some(lease),
            idle,
            deadline,
            limit,
            strict_end,
            read: 0,
            alarm: Alarm::default(),
            silent_since: None,
        }))
    }
}

/// What is to be known of an answer for its body.
#[derive(Clone, Copy)]
struct Kind {
    /// To HEAD.
    head: bool,
    /// An event stream or gRPC.
    endless: bool,
    /// Of a status that has no body.
    bodiless: bool,
    /// Over HTTP/2.
    strict_end: bool,
}

/// Whether the protocol that the upstream switched to is one that the client asked for (RFC 9110 section 7.8).
fn offers(asked: &HeaderValue, offered: &HeaderValue) -> bool {
    let (Ok(asked), Ok(offered)) = (asked.to_str(), offered.to_str()) else { return false };
    asked.split(',').any(|one| one.trim().eq_ignore_ascii_case(offered.trim()))
}

/// Event streams and gRPC: they last as long as both ends want (ruling D12).
fn is_endless(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(CONTENT_TYPE) else { return false };
    let value = value.as_bytes();
    let begins = |with: &[u8]| value.get(..with.len()).is_some_and(|v| v.eq_ignore_ascii_case(with));
    begins(b"text/event-stream") || begins(b"application/grpc")
}

fn micros(time: Duration) -> u32 {
    u32::try_from(time.as_micros()).unwrap_or(u32::MAX)
}

/// An upstream's body under its limits. Its connection goes back to the pool with the last byte, or is cut if the
/// client has had enough.
#[derive(Debug)]
struct Outbound {
    incoming: Incoming,
    lease: Option<Lease<Body>>,
    idle: Option<Duration>,
    deadline: Option<Instant>,
    limit: u64,
    /// Only END_STREAM ends it (HTTP/2): a reset without an error would look like an end.
    strict_end: bool,
    read: u64,
    alarm: Alarm,
    silent_since: Option<Instant>,
}

impl Outbound {
    fn poll_silence(&mut self, cx: &mut Context<'_>) -> Poll<Error> {
        let since = *self.silent_since.get_or_insert_with(Instant::now);
        let idle = self.idle.map(|idle| since + idle);
        let Some(limit) = idle.into_iter().chain(self.deadline).min() else { return Poll::Pending };
        ready!(self.alarm.poll(limit, cx));
        let total = self.deadline.is_some_and(|deadline| deadline <= limit);
        Poll::Ready(Error::Timeout(if total { Stage::Total } else { Stage::Idle }))
    }
}

impl http_body::Body for Outbound {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = &mut *self;
        let Poll::Ready(frame) = Pin::new(&mut this.incoming).poll_frame(cx) else {
            let error = ready!(this.poll_silence(cx));
            this.lease = None;
            return Poll::Ready(Some(Err(error)));
        };
        this.silent_since = None;
        match frame {
            Some(Ok(mut frame)) => {
                if let Some(trailers) = frame.trailers_mut() {
                    trailers::clean(trailers);
                }
                this.read += frame.data_ref().map_or(0, |data| data.len() as u64);
                if this.read > this.limit {
                    this.lease = None;
                    return Poll::Ready(Some(Err(Error::Protocol(Breach::TooLarge(this.limit)))));
                }
                if this.incoming.is_end_stream() {
                    this.lease.take().into_iter().for_each(Lease::done);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => {
                this.lease = None;
                Poll::Ready(Some(Err(net::broken_body(&error))))
            }
            None if this.strict_end && !this.incoming.is_end_stream() => {
                this.lease = None;
                Poll::Ready(Some(Err(Error::Protocol(Breach::Cut))))
            }
            None => {
                this.lease.take().into_iter().for_each(Lease::done);
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
