//! What the gateway itself refuses, with its reason.

use crate::forwarding::gateway;
use crate::support::{Gateway, Upstream};

#[test]
fn an_unknown_resource_lists_those_that_there_are() {
    let upstream = Upstream::ok();
    let gateway = gateway(&upstream, "");
    for path in ["/", "/r", "/r/", "/r/nope", "/r/nope/a", "/R/up/a", "/up/a", "/r/UP/a", "/r//up/a", "/r/up%2Fa", "/healthz"] {
        let reply = gateway.get(path);
        assert_eq!((reply.status, reply.code().as_str()), (404, "unknown-resource"), "{path}");
        assert!(reply.json()["hint"].as_str().unwrap().contains("up"), "{path}");
    }
    assert!(upstream.seen().is_empty());
}

#[test]
fn a_path_that_could_lead_above_the_base_is_refused_in_every_spelling() {
    let upstream = Upstream::ok();
    let gateway = gateway(&upstream, "");
    for path in [
        "/r/up/..",
        "/r/up/../x",
        "/r/up/a/../../x",
        "/r/up/.",
        "/r/up/./a",
        "/r/up/%2e%2e/x",
        "/r/up/%2E%2e/x",
        "/r/up/.%2e/x",
        "/r/up/..;/x",
        "/r/up/..;a=b/x",
        "/r/up/%2e%2e;/x",
        "/r/up/..%3B/x",
        "/r/up/..\\x",
        "/r/up/a\\b",
        "/r/up/..%5cx",
        "/r/up/a%5Cb",
        "/r/up/..%2fx",
        "/r/up/x%2f..%2f..%2fadmin",
        "/r/up/%252e%252e/x",
        "/r/up/%252e%252e%252fx",
        "/r/up/a%00b",
        "/r/up/a%2500",
        "/r/up/a%",
        "/r/up/a%zz",
        "/r/up/a%2",
        "/r/../r/up/a",
        "/../r/up/a",
        "/r/up/%2e%2e%5cx",
        "/r/up//../x",
        "/r/up/a/%2e/b",
        "/r/up/..%255cx",
    ] {
        let reply = gateway.get(path);
        assert_eq!((reply.status, reply.code().as_str()), (400, "bad-path"), "{path}");
    }
    for path in [
        "/r/up/...",
        "/r/up/..a",
        "/r/up/a..",
        "/r/up/.well-known/x",
        "/r/up/a;b=..c",
        "/r/up/%2F",
        "/r/up/a%2Fb",
        "/r/up/a%0Ab",
        "/r/up/a?../..",
        "/r/up/a?b=%2e%2e/",
    ] {
        assert_eq!(gateway.get(path).status, 200, "{path}");
    }
}

#[test]
fn bytes_that_no_uri_may_hold_are_refused() {
    let upstream = Upstream::ok();
    let gateway = gateway(&upstream, "");
    for target in ["/r/up/\u{e4}", "/r/up/a?q=\u{e4}", "/r/up/a?q=<b>", "/r/up/a?q=\"b\"", "/r/up/\"", "/r/up/<a>", "/r/up/a\u{7f}"] {
        let reply = gateway.get(target);
        assert_eq!(reply.status, 400, "{target}");
        assert_eq!(reply.code(), "bad-path", "{target}");
    }
    assert!(upstream.seen().is_empty());
}

#[test]
fn trace_and_connect_are_405_with_allow() {
    let upstream = Upstream::ok();
    let gateway = gateway(&upstream, "");
    let reply = gateway.send("TRACE", "/r/up/a", "", b"");
    assert_eq!((reply.status, reply.code().as_str()), (405, "method-not-allowed"));
    assert!(reply.field("allow").unwrap().contains("GET"));
    let all = gateway.raw(b"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let status = String::from_utf8_lossy(&all).split(' ').nth(1).unwrap_or("").to_owned();
    assert!(["400", "405"].contains(&status.as_str()), "{}", String::from_utf8_lossy(&all));
    assert!(upstream.seen().is_empty());
}

#[test]
fn browsers_of_other_sites_are_refused() {
    let upstream = Upstream::ok();
    let gateway = gateway(&upstream, "");
    for fields in
        ["Sec-Fetch-Site: cross-site\r\n", "Sec-Fetch-Site: same-site\r\n", "Origin: https://evil.example\r\n", "Origin: null\r\n"]
    {
        let reply = gateway.send("GET", "/r/up/a", fields, b"");
        assert_eq!((reply.status, reply.code().as_str()), (403, "cross-site"), "{fields}");
    }
    let rebound = gateway.raw(b"GET /r/up/a HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n");
    assert!(rebound.starts_with(b"HTTP/1.1 403 "));
    assert!(upstream.seen().is_empty());
    assert_eq!(
        gateway
            .send("GET", "/r/up/a", &format!("Origin: http://127.0.0.1:{}\r\nSec-Fetch-Site: same-origin\r\n", gateway.port), b"")
            .status,
        200
    );
}

#[test]
fn a_body_over_the_limit_is_refused_announced_or_not() {
    let upstream = Upstream::ok();
    let gateway = gateway(&upstream, "    limits: { request_body: 1KiB }\n");
    let reply = gateway.send("POST", "/r/up/a", "", &[b'x'; 2000]);
    assert_eq!((reply.status, reply.code().as_str()), (413, "body-too-large"));
    assert!(reply.json()["detail"].as_str().unwrap().contains("limits.request_body"));
    let chunk = format!("400\r\n{}\r\n", "x".repeat(1024));
    let request = format!(
        "POST /r/up/a HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}{chunk}0\r\n\r\n"
    );
    let all = gateway.raw(request.as_bytes());
    assert!(all.starts_with(b"HTTP/1.1 413 "), "{}", String::from_utf8_lossy(&all));
    assert_eq!(gateway.send("POST", "/r/up/a", "", &[b'x'; 1024]).status, 200);
}

#[test]
fn a_resources_limit_replaces_the_servers() {
    let upstream = Upstream::ok();
    let gateway = Gateway::start(&format!(
        "server: {{ listen: \"127.0.0.1:{{port}}\", limits: {{ body: 10B }} }}\nresources:\n  small: {{ base_url: {url} }}\n  large: {{ base_url: {url}, limits: {{ request_body: 1MiB }} }}\n",
        url = upstream.url()
    ));
    assert_eq!(gateway.send("POST", "/r/small/a", "", &[b'x'; 100]).status, 413);
    assert_eq!(gateway.send("POST", "/r/large/a", "", &[b'x'; 100]).status, 200);
}

#[test]
fn a_full_in_flight_limit_waits_and_then_answers_503_with_retry_after() {
    let (release, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let upstream = Upstream::answering(move |_, stream| {
        use std::io::Write as _;
        let _ = wait.lock().unwrap().recv_timeout(crate::support::PATIENCE);
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").is_ok()
    });
    let gateway = gateway(&upstream, "    limits: { in_flight: 1 }\n    timeouts: { queue: 200ms }\n");
    std::thread::scope(|scope| {
        let first = scope.spawn(|| gateway.get("/r/up/first"));
        upstream.last();
        let second = gateway.get("/r/up/second");
        assert_eq!((second.status, second.code().as_str()), (503, "overloaded"));
        assert!(second.field("retry-after").is_some());
        release.send(()).unwrap();
        assert_eq!(first.join().unwrap().status, 200);
    });
    release.send(()).unwrap();
    assert_eq!(gateway.get("/r/up/third").status, 200);
}

#[test]
fn every_problem_has_all_members_and_a_code_that_is_stable() {
    let upstream = Upstream::ok();
    let gateway = gateway(&upstream, "");
    let reply = gateway.send("GET", "/r/up/..", "X-Request-Id: mine\r\n", b"");
    let problem = reply.json();
    for member in ["type", "title", "status", "detail", "code", "request_id", "fault", "retryable", "hint"] {
        assert!(problem.get(member).is_some(), "{member}");
    }
    assert_eq!(
        (problem["type"].as_str(), problem["request_id"].as_str(), problem["fault"].as_str()),
        (Some("urn:postern:error:bad-path"), Some("mine"), Some("client"))
    );
    assert_eq!(reply.field("proxy-status").map(|p| p.split(';').next().unwrap()), Some("postern"));
    assert_eq!(reply.field("x-request-id"), Some("mine"));
}
