//! What signing costs: the steps that prepare and sign a call, with nothing behind them. A figure of a scheme is the
//! difference to `bearer`.

#![allow(clippy::unwrap_used, reason = "a bench that cannot go on ends")]

mod support;

use std::time::Instant;

use criterion::Criterion;
use http::Response;
use postern::body::Body;
use postern::call::Call;
use postern::error::Error;
use postern::middleware::prepare::Prepare;
use postern::middleware::sign::Sign;
use postern::middleware::{Route, always, layer};
use tower::ServiceBuilder;

const TARGET: &str = "/bucket/folder/file.json?list-type=2&prefix=photos%2F";

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default()).unwrap();
    for (name, auth) in [
        ("bearer", "{ bearer: t0ken-for-the-bench }"),
        ("hmac", "{ hmac: { key: s3cret, message: '{{ request.method }} {{ request.target }}', place: { header: X-Signature } } }"),
        ("jwt", "{ jwt: { key: s3cret, claims: { iss: me, jti: '{{ uuid }}', exp: \"{{ now | plus('5m') }}\" } } }"),
        ("aws_sigv4", "{ aws_sigv4: { service: s3, region: eu-west-1, access_key_id: AKID, secret_access_key: s3cret } }"),
    ] {
        let yaml = format!("allow_literal_secrets: true\nresources: {{ up: {{ base_url: 'http://127.0.0.1:1', auth: {auth} }} }}");
        let plan = support::plan(&yaml).resources.remove(0);
        let auth = plan.variant.auth.unwrap();
        let end = tower::service_fn(|_: Call| async { Ok::<_, Error>(Response::new(Body::Empty)) });
        let route = ServiceBuilder::new().layer(layer(Prepare::new(&auth))).layer(always(Sign::new(auth, 1 << 20))).service(end);
        // A step outermost, as a route demands one.
        let route = Route::new(ServiceBuilder::new().layer(always(Outermost)).service(route));
        criterion.bench_function(&format!("sign/{name}"), |bencher| {
            bencher.iter_custom(|times| {
                runtime.block_on(async {
                    let began = Instant::now();
                    for _ in 0..times {
                        route.run(support::call(TARGET, &support::FIELDS)).await.unwrap();
                    }
                    began.elapsed()
                })
            });
        });
    }
    criterion.final_summary();
}

struct Outermost;

impl postern::middleware::Step for Outermost {
    async fn handle(&self, call: Call, next: &impl postern::middleware::Next) -> postern::middleware::Answer {
        next.run(call).await
    }
}
