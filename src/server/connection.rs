//! One client connection: the edge, hyper, and the gateway behind it. What begins with HTTP/2's preface goes on in
//! `http2.rs`.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use http::{HeaderValue, Version};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};

use super::connected::Connected;
use super::edge::{Edge, Limits, Watch};
use crate::call::Hinted;
use crate::middleware::audit::Ending;
use crate::middleware::pinned;
use crate::stack::{Arrival, Gateway, Peer};
use crate::telemetry::Metrics;

/// Where hyper's writes switch from copying small pieces to writing them as they are.
const WRITE_BUFFER: usize = 64 * 1024;
/// How long the end of a connection at rest may take, where TLS says goodbye.
const GOODBYE: Duration = Duration::from_secs(1);

impl Ending for Watch {
    fn ended(&self) {
        self.end();
    }
}

impl Hinted for Watch {
    fn hint(&self, links: &[HeaderValue]) {
        Self::hint(self, links);
    }
}

/// What a connection is served with besides its socket.
pub struct Serving {
    /// The other end.
    pub peer: Peer,
    /// Times and sizes.
    pub limits: Limits,
    /// The way through the gateway.
    pub gateway: Rc<Gateway>,
    /// The connections of the core.
    pub connected: Rc<Connected>,
    /// The process's figures.
    pub metrics: Arc<Metrics>,
}

/// Serves one connection to its end.
///
/// hyper, its buffers and the room for a call are there only while something happens: a connection that rests is a
/// socket and an edge.
pub async fn serve<I>(io: I, serving: Serving)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let watch = Arc::new(Watch::default());
    let mut edge = Box::new(Edge::new(io, serving.limits, watch.clone()));
    let mut place = None;
    let mut look = |cx: &mut Context<'_>| {
        place.get_or_insert_with(|| serving.connected.enter(Some(watch.clone()), cx.waker().clone()));
        if serving.connected.draining() {
            watch.drain();
        }
    };
    loop {
        let arrived = poll_fn(|cx| {
            look(cx);
            edge.poll_arrival(cx)
        });
        if !arrived.await {
            let _ = tokio::time::timeout(GOODBYE, edge.shutdown()).await;
            return;
        }
        // Over TLS the handshake has told the protocol already (RFC 9113 section 3.2).
        if !serving.peer.tls && edge.may_be_http2() {
            let preface = poll_fn(|cx| {
                look(cx);
                edge.poll_preface(cx)
            });
            if preface.await {
                drop(place);
                let (io, begun) = edge.into_parts();
                // Boxed, so that HTTP/1.1 connections need not have room for it.
                return Box::pin(super::http2::serve(io, begun, serving)).await;
            }
        }
        let _awake = serving.connected.rouse();
        let home = Arc::default();
        let lent = Lent { edge: Some(edge), home: Arc::clone(&home) };
        let mut exchanges = pinned(|| exchanges(lent, &serving, &watch));
        let over = poll_fn(|cx| {
            look(cx);
            match exchanges.as_mut().poll(cx) {
                Poll::Pending if watch.rests() => Poll::Ready(false),
                poll => poll.map(|()| true),
            }
        });
        let over = over.await;
        drop(exchanges);
        match home.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(back) if !over => edge = back,
            _ => return,
        }
    }
}

/// Requests and answers by hyper, until the connection is over.
async fn exchanges<I>(io: Lent<I>, serving: &Serving, watch: &Arc<Watch>)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Serving { peer, limits, gateway, .. } = serving;
    let service = service_fn(move |request| {
        let refusal = watch.begin();
        // HTTP/1.0 has no interim answers (RFC 9110 section 15.2).
        let hints = (request.version() == Version::HTTP_11).then(|| -> Arc<dyn Hinted> { watch.clone() });
        let arrival = Arrival { request, peer: peer.clone(), refusal, ending: watch.clone(), hints };
        let (gateway, watch) = (gateway.clone(), watch.clone());
        // Boxed, so that a connection between two requests does not keep the room of a whole one.
        pinned(move || async move {
            let response = gateway.answer(arrival).await;
            watch.answering();
            if response.status() == http::StatusCode::SWITCHING_PROTOCOLS {
                watch.switch();
            }
            Ok::<_, Infallible>(response)
        })
    });
    let mut builder = http1::Builder::new();
    // The edge times heads and idleness (ruling H3), and bounds heads before hyper sees them.
    builder.header_read_timeout(None::<Duration>).max_buf_size(WRITE_BUFFER.max(limits.bounds.bytes + 8192));
    if let Err(error) = builder.serve_connection(TokioIo::new(io), service).with_upgrades().await {
        tracing::debug!("a client connection ended: {error}");
    }
}

/// An edge that hyper has for as long as something happens. It comes home when hyper is let go.
struct Lent<I> {
    edge: Option<Box<Edge<I>>>,
    home: Arc<Mutex<Option<Box<Edge<I>>>>>,
}

impl<I> Drop for Lent<I> {
    fn drop(&mut self) {
        *self.home.lock().unwrap_or_else(PoisonError::into_inner) = self.edge.take();
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> Lent<I> {
    /// The edge, which is there until the drop.
    fn edge(&mut self) -> io::Result<Pin<&mut Edge<I>>> {
        self.edge.as_deref_mut().map(Pin::new).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> AsyncRead for Lent<I> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.edge()?.poll_read(cx, buf)
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Lent<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.edge()?.poll_write(cx, bytes)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, parts: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        self.edge()?.poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.edge()?.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.edge()?.poll_shutdown(cx)
    }
}
