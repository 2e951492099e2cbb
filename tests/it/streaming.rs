//! Streaming both ways: memory, back-pressure, interim answers, events, tunnels, and clients that leave.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::forwarding::gateway;
use crate::support::{Gateway, PATIENCE, Reply, Seen, Upstream, eventually, find};

/// Resident memory of a process in KiB: now, and at its highest.
fn memory(pid: u32) -> (u64, u64) {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let value = |key: &str| status.lines().find(|l| l.starts_with(key)).unwrap().split_whitespace().nth(1).unwrap().parse().unwrap();
    (value("VmRSS:"), value("VmHWM:"))
}

pub fn connect(gateway: &Gateway) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", gateway.port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Reads to the end of `end` and no further.
pub fn read_one(stream: &mut TcpStream, end: &[u8]) -> Vec<u8> {
    let mut all = Vec::new();
    while !all.ends_with(end) {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&all)));
        all.extend(byte);
    }
    all
}

/// Reads until `end` has arrived.
pub fn read_until(stream: &mut TcpStream, end: &[u8]) -> Vec<u8> {
    let mut all = Vec::new();
    let mut part = [0; 4096];
    while find(&all, end).is_none() {
        let read = stream.read(&mut part).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&all)));
        assert!(read > 0, "closed: {}", String::from_utf8_lossy(&all));
        all.extend_from_slice(&part[..read]);
    }
    all
}

/// Of two records the one of `/r/up/a`: their order in the file says nothing, and both may be of one millisecond.
fn record_of_a(gateway: &Gateway) -> serde_json::Value {
    gateway.records(2).into_iter().find(|record| record["path"] == "/r/up/a").unwrap()
}

const GIB: u64 = 1 << 30;
const GROWTH_MAX: u64 = 16 * 1024;

#[test]
fn a_gibibyte_upload_takes_no_memory() {
    let upstream = Upstream::raw(|mut stream, _, _| {
        let arrived = read_until(&mut stream, b"\r\n\r\n");
        let mut left = GIB - (arrived.len() - find(&arrived, b"\r\n\r\n").unwrap() - 4) as u64;
        let mut part = vec![0; 1 << 18];
        while left > 0 {
            let read = stream.read(&mut part).unwrap() as u64;
            assert!(read > 0);
            left -= read.min(left);
        }
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    });
    let gateway = gateway(&upstream, "");
    assert_eq!(gateway.get("/r/nope").status, 404);
    let before = memory(gateway.pid()).0;
    let mut stream = connect(&gateway);
    stream
        .write_all(format!("PUT /r/up/a HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {GIB}\r\n\r\n").as_bytes())
        .unwrap();
    let part = vec![b'x'; 1 << 20];
    for _ in 0..1024 {
        stream.write_all(&part).unwrap();
    }
    let mut all = Vec::new();
    stream.read_to_end(&mut all).unwrap();
    assert_eq!(Reply::parse(&all).status, 200);
    let grown = memory(gateway.pid()).1.saturating_sub(before);
    assert!(grown < GROWTH_MAX, "{grown} KiB");
    assert_eq!(record_of_a(&gateway)["bytes_in"], GIB);
}

#[test]
fn a_gibibyte_download_takes_no_memory_even_if_the_client_pauses() {
    let upstream = Upstream::answering(|_, stream| {
        stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {GIB}\r\n\r\n").as_bytes()).unwrap();
        let part = vec![b'x'; 1 << 20];
        (0..1024).all(|_| stream.write_all(&part).is_ok())
    });
    let gateway = gateway(&upstream, "");
    assert_eq!(gateway.get("/r/nope").status, 404);
    let before = memory(gateway.pid()).0;
    let mut stream = connect(&gateway);
    stream.write_all(b"GET /r/up/a HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut left = GIB;
    read_until(&mut stream, b"\r\n\r\n");
    // A pause: what the upstream sends meanwhile must wait in the kernels.
    std::thread::sleep(Duration::from_millis(300));
    let mut part = vec![0; 1 << 18];
    loop {
        let read = stream.read(&mut part).unwrap() as u64;
        if read == 0 {
            break;
        }
        left = left.saturating_sub(read);
    }
    assert!(left < 1 << 16, "{left} bytes are missing");
    let grown = memory(gateway.pid()).1.saturating_sub(before);
    assert!(grown < GROWTH_MAX, "{grown} KiB");
    assert_eq!(record_of_a(&gateway)["bytes_out"], GIB);
}

#[test]
fn a_thousand_idle_connections_take_under_25_mib() {
    let upstream = Upstream::ok();
    let gateway = gateway(&upstream, "");
    gateway.get("/r/up/a");
    let before = memory(gateway.pid()).0;
    let mut streams: Vec<TcpStream> = (0..1000).map(|_| connect(&gateway)).collect();
    for stream in &mut streams {
        stream.write_all(b"GET /r/up/a HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        read_until(stream, b"{\"ok\":true}");
    }
    let mut grown = 0;
    let small = eventually(|| {
        grown = memory(gateway.pid()).0.saturating_sub(before);
        (grown < 25 * 1024).then_some(())
    });
    assert!(small.is_some(), "{grown} KiB");
}

#[test]
fn connections_that_rest_keep_no_room_for_a_request() {
    let upstream = Upstream::ok();
    let gateway = gateway(&upstream, "");
    gateway.get("/r/up/a");
    let before = memory(gateway.pid()).0;
    let mut streams: Vec<TcpStream> = (0..1000).map(|_| connect(&gateway)).collect();
    for stream in &mut streams {
        stream.write_all(b"GET /r/up/a HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        read_until(stream, b"{\"ok\":true}");
    }
    // The allocator gives back what it has had no use for when it is used again.
    let mut grown = 0;
    let small = eventually(|| {
        gateway.get("/r/up/a");
        grown = memory(gateway.pid()).0.saturating_sub(before);
        (grown < 10 * 1024).then_some(())
    });
    assert!(small.is_some(), "{grown} KiB");
    for stream in &mut streams {
        stream.write_all(b"GET /r/up/a HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        read_until(stream, b"{\"ok\":true}");
    }
}

#[test]
fn bodies_keep_their_framing_and_their_bytes() {
    let upstream = Upstream::ok();
    let gateway = gateway(&upstream, "");
    gateway.send("POST", "/r/up/a", "", b"hello");
    let seen = upstream.last();
    assert_eq!((seen.field("content-length"), seen.field("transfer-encoding"), seen.body.as_slice()), (Some("5"), None, &b"hello"[..]));
    gateway.raw(b"POST /r/up/a HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\n\r\n");
    let seen = upstream.last();
    assert_eq!(
        (seen.field("content-length"), seen.field("transfer-encoding"), seen.body.as_slice()),
        (None, Some("chunked"), &b"hello"[..])
    );
    gateway.send("POST", "/r/up/a", "Content-Length: 0\r\n", b"");
    assert_eq!(upstream.last().field("content-length"), Some("0"));
    gateway.get("/r/up/a");
    assert_eq!((upstream.last().field("content-length"), upstream.last().field("transfer-encoding")), (None, None));
}

#[test]
fn trailers_pass_to_a_client_that_takes_them() {
    let upstream =
        Upstream::canned("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 42\r\n\r\n");
    let gateway = gateway(&upstream, "");
    let all = gateway.raw(b"GET /r/up/a HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nTE: trailers\r\n\r\n");
    let text = String::from_utf8_lossy(&all).to_lowercase();
    assert!(text.contains("0\r\nx-sum: 42\r\n\r\n"), "{text}");
}

#[test]
fn head_has_the_length_and_no_body_and_the_connection_is_kept() {
    let upstream = Upstream::canned("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n");
    let gateway = Gateway::start(&format!(
        "server: {{ listen: \"127.0.0.1:{{port}}\", workers: 1 }}\nresources: {{ up: {{ base_url: {} }} }}\n",
        upstream.url()
    ));
    for _ in 0..3 {
        let reply = gateway.send("HEAD", "/r/up/a", "", b"");
        assert_eq!((reply.status, reply.field("content-length"), reply.body.len()), (200, Some("1000"), 0));
    }
    assert_eq!(upstream.connections(), 1);
}

#[test]
fn ranges_and_bodiless_statuses_pass() {
    for (answer, status, body) in [
        ("HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-1/10\r\nContent-Length: 2\r\n\r\nab", 206, "ab"),
        ("HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\n\r\n", 304, ""),
        ("HTTP/1.1 204 No Content\r\n\r\n", 204, ""),
    ] {
        let upstream = Upstream::canned(answer);
        let gateway = gateway(&upstream, "");
        let reply = gateway.send("GET", "/r/up/a", "Range: bytes=0-1\r\nIf-None-Match: \"x\"\r\n", b"");
        assert_eq!((reply.status, reply.text().as_str()), (status, body));
        assert_eq!(upstream.last().field("range"), Some("bytes=0-1"));
    }
}

#[test]
fn upstream_connections_are_used_again() {
    let upstream = Upstream::ok();
    let gateway = Gateway::start(&format!(
        "server: {{ listen: \"127.0.0.1:{{port}}\", workers: 1 }}\nresources: {{ up: {{ base_url: {} }} }}\n",
        upstream.url()
    ));
    for _ in 0..20 {
        assert_eq!(gateway.get("/r/up/a").status, 200);
    }
    assert_eq!(upstream.connections(), 1);
}

#[test]
fn a_continue_of_the_upstreams_is_passed_on_before_the_body() {
    let upstream = Upstream::raw(|mut stream, _, _| {
        let head = read_until(&mut stream, b"\r\n\r\n");
        assert!(find(&head.to_ascii_lowercase(), b"expect: 100-continue").is_some());
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").unwrap();
        read_until(&mut stream, b"hello");
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
    });
    let gateway = gateway(&upstream, "");
    let mut stream = connect(&gateway);
    stream
        .write_all(b"POST /r/up/a HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
        .unwrap();
    let interim = read_until(&mut stream, b"\r\n\r\n");
    assert!(interim.starts_with(b"HTTP/1.1 100 "), "{}", String::from_utf8_lossy(&interim));
    stream.write_all(b"hello").unwrap();
    assert!(read_until(&mut stream, b"\r\n\r\n").starts_with(b"HTTP/1.1 200 "));
}

#[test]
fn early_hints_reach_a_client_of_http_1_1_before_the_answer_with_their_links_led_back() {
    let (go, gone) = std::sync::mpsc::channel::<()>();
    let gone = std::sync::Mutex::new(gone);
    let upstream = Upstream::raw(move |mut stream, _, _| {
        read_until(&mut stream, b"\r\n\r\n");
        stream.write_all(b"HTTP/1.1 103 Early Hints\r\nLink: </app/style.css>; rel=preload\r\nX-Internal: 1\r\n\r\n").unwrap();
        gone.lock().unwrap().recv_timeout(PATIENCE).unwrap();
        // Two more in one piece with the answer.
        let hints = "HTTP/1.1 103 Early Hints\r\nLink: <https://cdn.example/x.js>\r\nLink: </app/y.js>\r\n\r\n";
        stream
            .write_all(format!("{hints}HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").as_bytes())
            .unwrap();
        read_until(&mut stream, b"\r\n\r\n");
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnext").unwrap();
    });
    let config = format!(
        "server: {{ listen: \"127.0.0.1:{{port}}\", workers: 1 }}\nresources: {{ up: {{ base_url: \"{}/app\" }} }}\n",
        upstream.url()
    );
    let gateway = Gateway::start(&config);
    let mut stream = connect(&gateway);
    stream.write_all(b"GET /r/up/a HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let first = read_until(&mut stream, b"\r\n\r\n");
    assert_eq!(String::from_utf8_lossy(&first), "HTTP/1.1 103 Early Hints\r\nlink: </r/up/style.css>; rel=preload\r\n\r\n");
    go.send(()).unwrap();
    let rest = String::from_utf8(read_until(&mut stream, b"\r\n\r\nok")).unwrap();
    let second = "HTTP/1.1 103 Early Hints\r\nlink: <https://cdn.example/x.js>\r\nlink: </r/up/y.js>\r\n\r\nHTTP/1.1 200 OK\r\n";
    assert!(rest.starts_with(second), "{rest}");
    stream.write_all(b"GET /r/up/b HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let next = String::from_utf8(read_until(&mut stream, b"\r\n\r\nnext")).unwrap();
    assert!(next.starts_with("HTTP/1.1 200 OK\r\n"), "{next}");
}

/// Early hints are part of the answer for everyone who looks for the credential in it.
#[test]
fn early_hints_tell_no_credential() {
    let upstream = Upstream::answering(|seen, stream| {
        let told = seen.head.to_owned();
        let token = if told.contains("hunter2hunter2") { "hunter2hunter2" } else { "" };
        let hints = format!("HTTP/1.1 103 Early Hints\r\nLink: </x.js?t={token}>\r\nLink: <./y.js>\r\n\r\n");
        stream.write_all(format!("{hints}HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").as_bytes()).is_ok()
    });
    for (auth, reflection, link) in [
        ("bearer: \"${env:TOKEN}\"", "", "/x.js?t=**************>"),
        ("bearer: \"${env:TOKEN}\"", "reflection: block", "link: <"),
        ("api_key: { in: path, value: \"${env:TOKEN}\" }", "", "/y.js>"),
    ] {
        let config = format!("resources: {{ up: {{ base_url: \"{}/v1\", auth: {{ {auth} }}, {reflection} }} }}\n", upstream.url());
        let gateway = Gateway::start_with(&config, &[("TOKEN", "hunter2hunter2")]);
        let all = gateway.raw(b"GET /r/up/a/b HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        let all = String::from_utf8_lossy(&all);
        assert!(all.starts_with("HTTP/1.1 103 ") && all.contains("HTTP/1.1 200 ") && all.contains(link), "{all}");
        assert!(!all.contains("hunter2hunter2"), "{all}");
        assert!(reflection.is_empty() || !all.contains("x.js"), "{all}");
        assert_eq!(gateway.records(1)[0]["reflection"], "head");
    }
}

#[test]
fn a_client_of_http_1_0_gets_no_early_hints() {
    let upstream = Upstream::canned("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let gateway = gateway(&upstream, "");
    let all = gateway.raw(b"GET /r/up/a HTTP/1.0\r\nHost: localhost\r\n\r\n");
    assert!(all.starts_with(b"HTTP/1.0 200 ") || all.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&all));
    assert!(find(&all, b"103").is_none(), "{}", String::from_utf8_lossy(&all));
}

#[test]
fn an_upstream_that_says_nothing_to_expect_gets_the_body_after_a_while() {
    let upstream = Upstream::ok();
    let gateway = gateway(&upstream, "");
    let mut stream = connect(&gateway);
    stream
        .write_all(b"POST /r/up/a HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
        .unwrap();
    assert!(read_until(&mut stream, b"\r\n\r\n").starts_with(b"HTTP/1.1 100 "));
    stream.write_all(b"hello").unwrap();
    assert!(read_until(&mut stream, b"\r\n\r\n").starts_with(b"HTTP/1.1 200 "));
    assert_eq!(upstream.last().body, b"hello");
}

#[test]
fn a_refusal_to_expect_needs_no_body() {
    let upstream = Upstream::raw(|mut stream, _, _| {
        read_until(&mut stream, b"\r\n\r\n");
        stream.write_all(b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic\r\nContent-Length: 0\r\n\r\n").unwrap();
        let _ = stream.read(&mut [0; 16]);
    });
    let gateway = gateway(&upstream, "    limits: { request_body: 10B }\n");
    let mut stream = connect(&gateway);
    stream.write_all(b"POST /r/up/a HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n").unwrap();
    let answer = read_until(&mut stream, b"\r\n\r\n");
    assert!(answer.starts_with(b"HTTP/1.1 401 "), "{}", String::from_utf8_lossy(&answer));
    // The gateway's own refusal comes without 100 too.
    let mut stream = connect(&gateway);
    stream.write_all(b"POST /r/up/a HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 500\r\n\r\n").unwrap();
    assert!(read_until(&mut stream, b"\r\n\r\n").starts_with(b"HTTP/1.1 413 "));
}

#[test]
fn events_arrive_one_by_one_and_silence_does_not_end_them() {
    let (tell, told) = std::sync::mpsc::channel::<()>();
    let told = std::sync::Mutex::new(told);
    let upstream = Upstream::answering(move |_, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap();
        for event in ["data: 1\n\n", "data: 2\n\n"] {
            stream.write_all(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes()).unwrap();
            told.lock().unwrap().recv_timeout(PATIENCE).unwrap();
        }
        stream.write_all(b"0\r\n\r\n").is_ok()
    });
    let gateway = gateway(&upstream, "    timeouts: { total: 400ms }\n");
    let mut stream = connect(&gateway);
    stream.write_all(b"GET /r/up/a HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    read_until(&mut stream, b"data: 1\n\n");
    std::thread::sleep(Duration::from_millis(600));
    tell.send(()).unwrap();
    read_until(&mut stream, b"data: 2\n\n");
    tell.send(()).unwrap();
    read_until(&mut stream, b"0\r\n\r\n");
}

/// Switches protocols and echoes.
fn echo() -> Upstream {
    Upstream::raw(|mut stream, number, seen| {
        let request = Seen::read(&mut stream, number).unwrap();
        seen.lock().unwrap().push(request);
        stream
            .write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\n")
            .unwrap();
        let mut part = [0; 1024];
        while let Ok(read @ 1..) = stream.read(&mut part) {
            stream.write_all(&part[..read]).unwrap();
        }
    })
}

const SWITCH: &[u8] = b"GET /r/up/ws HTTP/1.1\r\nHost: localhost\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13\r\n\r\n";

#[test]
fn a_switched_connection_carries_bytes_both_ways() {
    let upstream = echo();
    let gateway = gateway(&upstream, "");
    let mut stream = connect(&gateway);
    // What is sent right behind the head belongs to the new protocol.
    stream.write_all(&[SWITCH, b"\x00early"].concat()).unwrap();
    let answer = read_until(&mut stream, b"\x00early");
    let head = String::from_utf8_lossy(&answer).to_lowercase();
    assert!(
        head.starts_with("http/1.1 101 ")
            && head.contains("upgrade: websocket")
            && head.contains("connection: upgrade")
            && head.contains("sec-websocket-accept: x"),
        "{head}"
    );
    stream.write_all(b"more").unwrap();
    read_until(&mut stream, b"more");
    drop(stream);
    let record = &gateway.records(1)[0];
    assert_eq!((record["status"].as_u64(), record["bytes_in"].as_u64(), record["bytes_out"].as_u64()), (Some(101), Some(10), Some(10)));
    let seen = upstream.last();
    assert_eq!((seen.field("upgrade"), seen.field("sec-websocket-key")), (Some("websocket"), Some("x")));
    eventually(|| (upstream.closed() == 1).then_some(())).expect("the upstream's side stays open");
}

#[test]
fn a_switch_that_is_not_wanted_or_not_asked_for_is_refused() {
    let upstream = echo();
    let gateway = gateway(&upstream, "    websocket: false\n");
    let reply = Reply::parse(&gateway.raw(&[SWITCH].concat().replace(b"keep-alive, ", b"close, ")));
    assert_eq!((reply.status, reply.code().as_str()), (403, "forbidden"));
    let upstream = echo();
    let gateway = crate::forwarding::gateway(&upstream, "");
    let reply = gateway.get("/r/up/a");
    assert_eq!((reply.status, reply.code().as_str()), (502, "upstream-protocol"));
}

trait Replace {
    fn replace(&self, what: &[u8], with: &[u8]) -> Vec<u8>;
}

impl Replace for Vec<u8> {
    fn replace(&self, what: &[u8], with: &[u8]) -> Vec<u8> {
        let at = find(self, what).unwrap();
        [&self[..at], with, &self[at + what.len()..]].concat()
    }
}

#[test]
fn a_client_that_leaves_cancels_its_upstream_request() {
    let upstream = Upstream::raw(|mut stream, number, seen| {
        let Some(request) = Seen::read(&mut stream, number) else { return };
        let events = request.target().ends_with("events");
        seen.lock().unwrap().push(request);
        if events {
            stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n")
                .unwrap();
        }
        // Returns when the other end has gone, and fails the test if it never does.
        assert_eq!(stream.read(&mut [0; 16]).unwrap_or(0), 0);
    });
    let gateway = gateway(&upstream, "");
    for (count, path) in ["silent", "events"].into_iter().enumerate() {
        let mut stream = connect(&gateway);
        stream.write_all(format!("GET /r/up/{path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes()).unwrap();
        eventually(|| (upstream.seen().len() == count + 1).then_some(())).unwrap();
        if path == "events" {
            read_until(&mut stream, b"1\r\nx\r\n");
        }
        let left = Instant::now();
        drop(stream);
        eventually(|| (upstream.closed() == count + 1).then_some(())).expect("the upstream still waits");
        assert!(left.elapsed() < Duration::from_secs(10));
        let record = gateway.records(count + 1).pop().unwrap();
        assert_eq!(
            (record["error"].as_str(), record["status"].as_u64()),
            (Some("client-gone"), Some(if path == "events" { 200 } else { 499 }))
        );
    }
}

#[test]
fn an_early_answer_is_passed_while_the_body_is_still_being_sent() {
    let upstream = Upstream::raw(|mut stream, _, _| {
        read_until(&mut stream, b"\r\n\r\n");
        stream.write_all(b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 4\r\nConnection: close\r\n\r\nslow").unwrap();
        let _ = stream.read(&mut [0; 1024]);
    });
    let gateway = gateway(&upstream, "");
    let mut stream = connect(&gateway);
    stream.write_all(b"POST /r/up/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\nsome").unwrap();
    assert!(read_until(&mut stream, b"slow").starts_with(b"HTTP/1.1 429 "));
}

#[test]
fn a_body_that_stalls_or_crawls_is_answered_408() {
    let upstream = Upstream::ok();
    let gateway = Gateway::start(&format!(
        "server: {{ listen: \"127.0.0.1:{{port}}\", timeouts: {{ body_idle: 400ms }}, limits: {{ min_body_rate: 1KiB, min_body_rate_grace: 300ms }} }}\nresources: {{ up: {{ base_url: {} }} }}\n",
        upstream.url()
    ));
    let mut stream = connect(&gateway);
    stream.write_all(b"POST /r/up/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nsome").unwrap();
    let answer = read_until(&mut stream, b"\r\n\r\n");
    assert!(answer.starts_with(b"HTTP/1.1 408 "), "{}", String::from_utf8_lossy(&answer));
    let mut crawling = connect(&gateway);
    crawling.write_all(b"POST /r/up/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n").unwrap();
    for _ in 0..20 {
        if crawling.write_all(b"x").is_err() {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(read_until(&mut crawling, b"\r\n\r\n").starts_with(b"HTTP/1.1 408 "));
}

#[test]
fn a_unix_socket_serves_with_its_mode() {
    use std::os::unix::fs::PermissionsExt as _;
    use std::os::unix::net::UnixStream;
    let upstream = Upstream::ok();
    let mut gateway = Gateway::start(&format!(
        "server: {{ listen: [\"127.0.0.1:{{port}}\", {{ address: \"unix:gw.sock\", mode: \"0600\" }}] }}\nresources: {{ up: {{ base_url: {} }} }}\n",
        upstream.url()
    ));
    let path = gateway.folder.path().join("gw.sock");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let mut stream = UnixStream::connect(&path).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"GET /r/up/a HTTP/1.1\r\nHost: whatever\r\nConnection: close\r\n\r\n").unwrap();
    let mut all = Vec::new();
    stream.read_to_end(&mut all).unwrap();
    assert_eq!(Reply::parse(&all).status, 200);
    assert_eq!(gateway.stop(), Some(0));
    assert!(!path.exists());
}

#[test]
fn an_answer_over_its_limit_looks_cut_off() {
    let upstream = Upstream::answering(|_, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap();
        let chunk = format!("400\r\n{}\r\n", "x".repeat(1024));
        (0..100).all(|_| stream.write_all(chunk.as_bytes()).is_ok()) && stream.write_all(b"0\r\n\r\n").is_ok()
    });
    let gateway = gateway(&upstream, "    limits: { response_body: 10KiB }\n");
    let all = gateway.raw(b"GET /r/up/a HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    assert!(all.starts_with(b"HTTP/1.1 200 ") && !all.ends_with(b"0\r\n\r\n"));
    assert_eq!(gateway.records(1)[0]["error"], "upstream-protocol");
}
