//! What strictness costs a request: its head, its path, its browser check, the head of the answer, and the search for the
//! credential in it.

use std::hint::black_box;

use criterion::Criterion;
use http::{HeaderMap, HeaderValue, header};
use postern::http1::Chunks;
use postern::middleware::site::Site;
use postern::secret::{Mask, Secret};
use postern::server::head::{Bounds, judge};

const REQUEST: &[u8] = b"GET /r/api/v1/customers/17?fields=name HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nUser-Agent: app/1.0 (linux)\r\nAccept: application/json\r\n\
    Accept-Encoding: gzip, br\r\nContent-Type: application/json\r\nX-Request-Id: 01a20e67-d8e3-7f61-90d6-b30548d183cd\r\nIdempotency-Key: 4d1f\r\n\r\n";
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nDate: Tue, 24 Nov 2026 16:33:36 GMT\r\nServer: api\r\nContent-Type: application/json; charset=utf-8\r\nETag: W/\"1234\"\r\n\
    Cache-Control: private, max-age=60\r\nX-RateLimit-Limit: 5000\r\nX-RateLimit-Remaining: 4999\r\nVary: Accept, Authorization\r\nContent-Length: 2\r\n\r\n{}";

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let bounds = Bounds { bytes: 64 * 1024, fields: 100 };
    criterion.bench_function("strict/request head", |b| b.iter(|| judge(black_box(REQUEST), bounds)));
    criterion.bench_function("strict/target", |b| b.iter(|| postern::path::carriable(black_box(b"/r/api/v1/customers/17?fields=name"))));
    criterion.bench_function("strict/path", |b| b.iter(|| postern::path::check(black_box("/r/api/v1/customers/17"))));
    criterion.bench_function("strict/path with escapes", |b| b.iter(|| postern::path::check(black_box("/r/api/group%2Fname/a%20b.txt"))));
    criterion.bench_function("strict/answer", |b| b.iter(|| postern::net::passed(black_box(ANSWER), usize::MAX)));
    criterion.bench_function("strict/chunks of 4 KiB", |b| {
        let body = format!("1000\r\n{}\r\n0\r\n\r\n", "x".repeat(4096));
        b.iter(|| Chunks::default().read(black_box(body.as_bytes())));
    });
    let mut headers = HeaderMap::new();
    headers.insert(header::HOST, HeaderValue::from_static("127.0.0.1:8080"));
    let site = Site::default();
    criterion.bench_function("strict/browser check", |b| b.iter(|| site.judge(black_box(&headers), true)));
    let mask = Mask::new([&Secret::new("ghp_0123456789abcdefghijklmnopqrstuvwxyz".into())]);
    let lines: Vec<&[u8]> = ANSWER.split(|b| *b == b'\n').skip(1).collect();
    criterion.bench_function("strict/search of an answer's head", |b| b.iter(|| lines.iter().any(|line| mask.finds_in(black_box(line)))));
    criterion.final_summary();
}
