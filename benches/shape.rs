//! What shaping costs: from the client's request to the upstream's and back, without sending anything.

#![allow(clippy::unwrap_used, reason = "a bench that cannot go on ends")]

mod support;

use criterion::{BatchSize, Criterion};
use http::{HeaderValue, Response};
use postern::body::Body;
use postern::call::Call;
use postern::error::Error;
use postern::middleware::Step as _;
use postern::middleware::shape::Shape;

const PLAIN: &str = "resources: { up: { base_url: 'http://127.0.0.1:9/base' } }";
const FULL: &str = "
resources:
  up:
    base_url: http://127.0.0.1:9/base
    headers: { Accept: application/json, X-Global-A: alpha, X-Global-B: { value: beta, locked: true }, X-Unwanted: null }
    params: { api_version: '2', per_page: '100' }
    cookies: { theme: plain }
    forward: { cookies: true, client_ip: x-forwarded-for }
";

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let clients = support::FIELDS;
    let cases: [(&str, &str, &str, &[_]); 5] = [
        ("plain, no fields", PLAIN, "/customers/17", &[]),
        ("plain", PLAIN, "/customers/17?fields=name", &clients),
        ("everything", FULL, "/customers/17?fields=name", &clients),
        ("everything, overridden by the client", FULL, "/customers/17?per_page=5&%61pi_version=3", &clients),
        ("a path with escapes", FULL, "/projects/group%2Fname/files/a%20b.txt", &clients),
    ];
    for (name, yaml, target, fields) in cases {
        one(&mut criterion, name, yaml, target, fields);
    }
    criterion.final_summary();
}

fn one(criterion: &mut Criterion, name: &str, yaml: &str, target: &str, fields: &[(&'static str, &'static str)]) {
    let shape = shape(yaml);
    let upstream = tower::service_fn(|_: Call| async { Ok::<_, Error>(answer()) });
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    criterion.bench_function(&format!("shape/{name}"), |bencher| {
        bencher.iter_batched(
            || support::call(target, fields),
            |call| runtime.block_on(shape.handle(call, &upstream)).unwrap(),
            BatchSize::SmallInput,
        );
    });
}

fn shape(yaml: &str) -> Shape {
    support::plan(yaml).resources.remove(0).variant.shape
}

/// What an API answers: some fields of its own, some that are cleaned.
fn answer() -> Response<Body> {
    let mut response = Response::new(Body::Full("{}".into()));
    for (name, value) in [
        ("content-type", "application/json"),
        ("date", "Tue, 14 Nov 2023 22:13:20 GMT"),
        ("server", "nginx"),
        ("cache-control", "max-age=0, private"),
        ("link", "</base/customers?page=2>; rel=\"next\""),
        ("set-cookie", "a=b; Path=/"),
        ("strict-transport-security", "max-age=31536000"),
    ] {
        response.headers_mut().append(name, HeaderValue::from_static(value));
    }
    response
}
