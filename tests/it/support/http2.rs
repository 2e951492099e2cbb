//! Upstreams that speak HTTP/2: one by hyper's server, which shows what it received, and one frame by frame.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::Frame;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::frames::{ACK, DATA, HEADERS, SETTINGS, frame};
use super::{Seen, Upstream};

/// A request as an HTTP/2 upstream received it.
#[derive(Debug, Clone)]
pub struct Received {
    pub version: http::Version,
    pub method: String,
    pub uri: String,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
    pub trailers: Option<HeaderMap>,
    /// Whether the body ended as it should.
    pub whole: bool,
}

/// An upstream by hyper, over plain TCP or TLS.
pub struct Hyper {
    pub port: u16,
    received: Arc<Mutex<Vec<Received>>>,
    connections: Arc<AtomicUsize>,
    /// Most calls that were under way at a time on one connection.
    most: Arc<AtomicUsize>,
    _stop: tokio::sync::oneshot::Sender<()>,
}

/// How an upstream by hyper behaves.
#[derive(Clone, Default)]
pub struct Behaviour {
    /// Most calls at a time on one connection.
    pub streams: Option<u32>,
    /// How long each answer takes.
    pub delay: Duration,
    /// TLS with this.
    pub tls: Option<Arc<rustls::ServerConfig>>,
}

impl Hyper {
    /// Answers everything with `ok`, and with the trailer `x-sum: 1`.
    pub fn start(behaviour: Behaviour) -> Self {
        let (received, connections, most) =
            (Arc::<Mutex<Vec<Received>>>::default(), Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let (give, port) = std::sync::mpsc::channel();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let (r, c, m) = (received.clone(), connections.clone(), most.clone());
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                give.send(listener.local_addr().unwrap().port()).unwrap();
                let accepting = async {
                    loop {
                        let (stream, _) = listener.accept().await.unwrap();
                        stream.set_nodelay(true).unwrap();
                        c.fetch_add(1, Ordering::SeqCst);
                        tokio::spawn(serve(stream, behaviour.clone(), r.clone(), m.clone()));
                    }
                };
                tokio::select! { () = accepting => {}, _ = stopped => {} }
            });
        });
        Self { port: port.recv().unwrap(), received, connections, most, _stop: stop }
    }

    pub fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }

    pub fn last(&self) -> Received {
        super::eventually(|| self.received().pop()).expect("nothing reached the upstream")
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    pub fn most_at_a_time(&self) -> usize {
        self.most.load(Ordering::SeqCst)
    }
}

async fn serve(stream: tokio::net::TcpStream, behaviour: Behaviour, received: Arc<Mutex<Vec<Received>>>, most: Arc<AtomicUsize>) {
    let now = Arc::<AtomicUsize>::default();
    let delay = behaviour.delay;
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let (received, most, now) = (received.clone(), most.clone(), now.clone());
        async move {
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            received_of(request, &received).await;
            tokio::time::sleep(delay).await;
            now.fetch_sub(1, Ordering::SeqCst);
            Ok::<_, Infallible>(Response::new(Answer::new()))
        }
    });
    let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    builder.max_concurrent_streams(behaviour.streams);
    let Some(tls) = behaviour.tls else {
        let _ = builder.serve_connection(TokioIo::new(stream), service).await;
        return;
    };
    let Ok(stream) = TlsAcceptor::from(tls).accept(stream).await else { return };
    if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
        let _ = builder.serve_connection(TokioIo::new(stream), service).await;
    } else {
        let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
    }
}

async fn received_of(request: Request<Incoming>, all: &Mutex<Vec<Received>>) {
    let (head, mut body) = request.into_parts();
    let mut one = Received {
        version: head.version,
        method: head.method.to_string(),
        uri: head.uri.to_string(),
        headers: head.headers,
        body: Vec::new(),
        trailers: None,
        whole: true,
    };
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) if frame.is_data() => one.body.extend_from_slice(&frame.into_data().unwrap()),
            Ok(frame) => one.trailers = frame.into_trailers().ok(),
            Err(_) => {
                one.whole = false;
                break;
            }
        }
    }
    all.lock().unwrap().push(one);
}

/// `ok`, then trailers.
struct Answer(VecDeque<Frame<Bytes>>);

impl Answer {
    fn new() -> Self {
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", "1".parse().unwrap());
        trailers.insert("set-cookie", "stolen=1".parse().unwrap());
        Self([Frame::data(Bytes::from_static(b"ok")), Frame::trailers(trailers)].into())
    }
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        std::task::Poll::Ready(self.0.pop_front().map(Ok))
    }
}

/// An upstream that greets with SETTINGS and answers each HEADERS with the bytes that `answer` makes of its stream and of
/// the number of its connection. It reads until the other end closes.
pub fn framed(answer: impl Fn(u32, usize) -> Vec<u8> + Send + Sync + 'static) -> Upstream {
    Upstream::raw(move |mut stream, number, seen| {
        let mut preface = [0; 24];
        if stream.read_exact(&mut preface).is_err() || stream.write_all(&frame(SETTINGS, 0, 0, &[])).is_err() {
            return;
        }
        while let Some((kind, flags, id, _)) = read_frame(&mut stream) {
            let reply = match kind {
                SETTINGS if flags & ACK == 0 => frame(SETTINGS, ACK, 0, &[]),
                HEADERS => {
                    seen.lock().unwrap().push(Seen { head: format!("stream {id}"), connection: number, ..Seen::default() });
                    answer(id, number)
                }
                _ => Vec::new(),
            };
            let _ = stream.write_all(&reply);
        }
    })
}

fn read_frame(stream: &mut TcpStream) -> Option<(u8, u8, u32, Vec<u8>)> {
    let mut head = [0; 9];
    stream.read_exact(&mut head).ok()?;
    let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
    let mut payload = vec![0; length];
    stream.read_exact(&mut payload).ok()?;
    Some((head[3], head[4], u32::from_be_bytes(head[5..9].try_into().unwrap()) & 0x7fff_ffff, payload))
}

/// A whole answer: 200 and `ok`.
pub fn ok(stream: u32) -> Vec<u8> {
    [frame(HEADERS, 4, stream, &[0x88]), frame(DATA, 1, stream, b"ok")].concat()
}
