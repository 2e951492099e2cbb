//! What the stack costs: a step, and a resource's whole stack with an upstream on the loopback in the same thread, whose
//! own work is part of the figure.

#![allow(clippy::unwrap_used, reason = "a bench that cannot go on ends")]

mod support;

use std::net::SocketAddr;
use std::time::Instant;

use criterion::{Bencher, Criterion};
use http::{Method, Response};
use http_body_util::BodyExt as _;
use postern::body::Body;
use postern::call::Call;
use postern::error::Error;
use postern::middleware::{Answer, Next, Route, Step, always};
use postern::snapshot::Snapshot;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::runtime::LocalRuntime;
use tower::{Layer as _, Service, ServiceBuilder};

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 11\r\n\r\n{\"ok\":true}";

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default()).unwrap();
    criterion.bench_function("stack/one step", |bencher| measure(bencher, &runtime, &Route::new(always(Through).layer(end()))));
    criterion.bench_function("stack/twelve steps", |bencher| measure(bencher, &runtime, &twelve()));
    let address = runtime.block_on(upstream());
    for (name, more) in [
        ("plain", ""),
        ("bearer", ", auth: { bearer: { token: t0ken-for-the-bench } }"),
        (
            "everything",
            ", auth: { bearer: { token: t0ken-for-the-bench } }, headers: { X-Global-A: alpha, X-Global-B: beta }, params: { api_version: '2' },
             limits: { in_flight: 256, response_body: 1MiB }, timeouts: { total: 30s }, routes: [ { path: /other/**, auth: none } ]",
        ),
    ] {
        let yaml = format!("allow_literal_secrets: true\nresources: {{ up: {{ base_url: 'http://{address}/base'{more} }} }}");
        let plan = support::plan(&yaml);
        let snapshot = Snapshot::new(plan, postern::stack::resource);
        let route = snapshot.resources["up"].route(&Method::GET, "/customers").unwrap();
        criterion.bench_function(&format!("stack/exchange, {name}"), |bencher| measure(bencher, &runtime, route));
    }
    criterion.final_summary();
}

/// The time of calls and of reading their answers, one after the other.
fn measure(bencher: &mut Bencher<'_>, runtime: &LocalRuntime, route: &Route) {
    bencher.iter_custom(|times| {
        runtime.block_on(async {
            let began = Instant::now();
            for _ in 0..times {
                let answer = route.run(support::call("/customers?fields=name", &support::FIELDS)).await.unwrap();
                answer.into_body().collect().await.unwrap();
            }
            began.elapsed()
        })
    });
}

/// A step that does nothing.
struct Through;

impl Step for Through {
    async fn handle(&self, call: Call, next: &impl Next) -> Answer {
        next.run(call).await
    }
}

fn end() -> impl Next + Clone + Send + Sync + Service<Call, Response = Response<Body>, Error = Error> {
    tower::service_fn(|_: Call| async { Ok::<_, Error>(Response::new(Body::Full("{\"ok\":true}".into()))) })
}

/// As many steps as the finished stack has.
fn twelve() -> Route {
    Route::new(
        ServiceBuilder::new()
            .layer(always(Through))
            .layer(always(Through))
            .layer(always(Through))
            .layer(always(Through))
            .layer(always(Through))
            .layer(always(Through))
            .layer(always(Through))
            .layer(always(Through))
            .layer(always(Through))
            .layer(always(Through))
            .layer(always(Through))
            .layer(always(Through))
            .service(end()),
    )
}

/// An upstream that answers every head at once. It runs while the runtime does.
async fn upstream() -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::task::spawn_local(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            stream.set_nodelay(true).unwrap();
            tokio::task::spawn_local(async move {
                let mut head = Vec::new();
                while stream.read_buf(&mut head).await.is_ok_and(|read| read > 0) {
                    if head.ends_with(b"\r\n\r\n") {
                        head.clear();
                        stream.write_all(ANSWER).await.unwrap();
                    }
                }
            });
        }
    });
    address
}
