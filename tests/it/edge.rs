//! The edge: heads that could be read two ways, framing, timing, pipelining. Judged by what the upstream received.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::forwarding::gateway;
use crate::streaming::{connect, read_one, read_until};
use crate::support::{Gateway, PATIENCE, Reply, Upstream, find};

#[test]
fn a_head_that_could_be_read_two_ways_is_refused_and_closed() {
    let upstream = Upstream::ok();
    let gateway = gateway(&upstream, "");
    let heads: &[&str] = &[
        "GET /r/up/a HTTP/1.1\nHost: x\n\n",
        "GET /r/up/a HTTP/1.1\r\n\r\n",
        "GET /r/up/a HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n",
        "GET /r/up/a HTTP/1.1\r\nHost : localhost\r\n\r\n",
        "GET /r/up/a HTTP/1.1\r\nHost: localhost\r\nA: b\r\n c\r\n\r\n",
        "GET /r/up/a#b HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET  /r/up/a HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET /r/up/a HTTP/2.0\r\nHost: localhost\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
        "POST /r/up/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST /r/up/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
        "POST /r/up/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5, 6\r\n\r\nhello",
        "POST /r/up/a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\n",
        "POST /r/up/a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "GET /r/up/a HTTP/1.1\r\nHost: localhost\r\nA: \0\r\n\r\n",
        "GET http://u:p@localhost/r/up/a HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET ftp://localhost/r/up/a HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET http://other/r/up/a HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET r/up/a HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "\x16\x03\x01\x02\x00\x01\x00",
    ];
    for head in heads {
        let reply = Reply::parse(&gateway.raw(&[head.as_bytes(), b"GET /r/up/smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"].concat()));
        assert!((400..500).contains(&reply.status), "{head:?}: {}", reply.head);
        assert!(["bad-request", "bad-path"].contains(&reply.code().as_str()), "{head:?}");
    }
    let seen = upstream.seen();
    assert!(seen.is_empty(), "{:?}", seen.iter().map(|s| s.line().to_owned()).collect::<Vec<_>>());
}

#[test]
fn a_refusal_has_an_audit_record_without_method_and_path() {
    let upstream = Upstream::ok();
    let gateway = gateway(&upstream, "");
    gateway.raw(b"GET / HTTP/1.1\nHost: x\n\n");
    let record = &gateway.records(1)[0];
    assert_eq!(
        (record["status"].as_u64(), record["error"].as_str(), record["answered_by"].as_str()),
        (Some(400), Some("bad-request"), Some("gateway"))
    );
    assert!(record.get("method").is_none() && record.get("path").is_none(), "{record}");
}

#[test]
fn a_head_may_come_byte_by_byte() {
    let upstream = Upstream::ok();
    let gateway = gateway(&upstream, "");
    let mut stream = TcpStream::connect(("127.0.0.1", gateway.port)).unwrap();
    stream.set_nodelay(true).unwrap();
    for byte in
        b"POST /r/up/a HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
    {
        stream.write_all(&[*byte]).unwrap();
    }
    let mut all = Vec::new();
    stream.read_to_end(&mut all).unwrap();
    assert_eq!(Reply::parse(&all).status, 200);
    assert_eq!(upstream.last().body, b"hello");
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let upstream = Upstream::answering(|seen, stream| {
        let body = seen.target().to_owned();
        stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).as_bytes()).is_ok()
    });
    let gateway = gateway(&upstream, "");
    let mut requests = String::new();
    for i in 0..5 {
        requests.push_str(&format!("POST /r/up/{i} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc"));
        requests
            .push_str(&format!("POST /r/up/{i}c HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"));
    }
    requests.push_str("GET /r/up/last HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    let all = String::from_utf8(gateway.raw(requests.as_bytes())).unwrap();
    let targets: Vec<&str> = all.match_indices("/base/").map(|(at, _)| all[at + 6..].split("HTTP").next().unwrap()).collect();
    assert_eq!(targets, ["0", "0c", "1", "1c", "2", "2c", "3", "3c", "4", "4c", "last"]);
    assert!(upstream.seen()[..10].iter().all(|s| s.body == b"abc"));
}

/// hyper reads 8 KiB at first, and a connection at rest less.
#[test]
fn a_head_of_many_kibibytes_arrives_whole_whatever_follows_it() {
    let upstream = Upstream::ok();
    let gateway = gateway(&upstream, "");
    for size in [1_900, 2_100, 8_100, 8_200, 9_000, 20_000, 60_000] {
        for (framing, body, arrives) in [
            ("Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n0\r\n\r\n", "hello"),
            ("Content-Length: 5\r\n", "hello", "hello"),
            ("", "", ""),
        ] {
            for first in [false, true] {
                let big = format!("X-Big: {}\r\n", "a".repeat(size));
                let (one, other) = if first { (framing, big.as_str()) } else { (big.as_str(), framing) };
                let head = format!("POST /r/up/a HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{one}{other}X-Last: z\r\n\r\n");
                for pieces in [1, 3] {
                    let bytes = format!("{head}{body}");
                    let mut stream = connect(&gateway);
                    for piece in bytes.as_bytes().chunks(bytes.len().div_ceil(pieces)) {
                        stream.write_all(piece).unwrap();
                        std::thread::sleep(Duration::from_millis(if pieces == 1 { 0 } else { 5 }));
                    }
                    let mut all = Vec::new();
                    stream.read_to_end(&mut all).unwrap();
                    assert_eq!(Reply::parse(&all).status, 200, "{size} {framing} {pieces}");
                    let seen = upstream.last();
                    assert_eq!((seen.field("x-big").map(str::len), seen.field("x-last")), (Some(size), Some("z")), "{size} {framing}");
                    assert_eq!(seen.body, arrives.as_bytes(), "{size} {framing} {pieces}");
                }
            }
        }
    }
}

#[test]
fn a_bad_request_behind_a_good_one_does_not_spoil_its_answer() {
    let upstream = Upstream::ok();
    let gateway = gateway(&upstream, "");
    let all = gateway.raw(b"GET /r/up/a HTTP/1.1\r\nHost: localhost\r\n\r\nGET /r/up/b HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n");
    let text = String::from_utf8_lossy(&all);
    assert!(text.starts_with("HTTP/1.1 200 "), "{text}");
    assert!(text.contains("HTTP/1.1 400 ") && text.contains("bad-request"), "{text}");
    assert_eq!(upstream.seen().len(), 1);
}

#[test]
fn malformed_chunks_end_the_request_and_the_connection() {
    let upstream = Upstream::ok();
    let gateway = gateway(&upstream, "");
    for body in ["5\nhello\r\n0\r\n\r\n", "5\r\nhelloX0\r\n\r\n", "zz\r\n", "5;\nhello\r\n0\r\n\r\n", "0\r\n folded\r\n\r\n"] {
        let all = gateway.raw(format!("POST /r/up/a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n{body}GET /r/up/smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes());
        let text = String::from_utf8_lossy(&all);
        assert!(text.is_empty() || text.starts_with("HTTP/1.1 400 "), "{body:?}: {text}");
    }
    assert!(upstream.seen().iter().all(|s| !s.line().contains("smuggled")));
}

#[test]
fn a_large_head_is_refused_with_431() {
    let upstream = Upstream::ok();
    let gateway = Gateway::start(&format!(
        "server: {{ listen: \"127.0.0.1:{{port}}\", limits: {{ header_bytes: 8KiB, headers: 20 }} }}\nresources: {{ up: {{ base_url: {} }} }}\n",
        upstream.url()
    ));
    let reply = gateway.send("GET", "/r/up/a", &format!("X: {}\r\n", "a".repeat(9000)), b"");
    assert_eq!((reply.status, reply.code().as_str()), (431, "headers-too-large"));
    let reply = gateway.send("GET", "/r/up/a", &"X: a\r\n".repeat(30), b"");
    assert_eq!((reply.status, reply.code().as_str()), (431, "headers-too-large"));
    assert_eq!(gateway.send("GET", "/r/up/a", &format!("X: {}\r\n", "a".repeat(7000)), b"").status, 200);
}

#[test]
fn a_slow_head_is_answered_408_and_an_idle_connection_is_closed_without_a_word() {
    let upstream = Upstream::ok();
    let gateway = Gateway::start(&format!(
        "server: {{ listen: \"127.0.0.1:{{port}}\", timeouts: {{ header: 300ms, idle: 600ms }} }}\nresources: {{ up: {{ base_url: {} }} }}\n",
        upstream.url()
    ));
    let reply = Reply::parse(&gateway.raw(b"GET /r/up/a HTTP/1.1\r\nHost: loc"));
    assert_eq!((reply.status, reply.code().as_str()), (408, "bad-request"));
    let began = Instant::now();
    assert!(gateway.raw(b"").is_empty());
    assert!(began.elapsed() >= Duration::from_millis(500));
    // Idle time counts from the end of the last answer.
    let all = gateway.raw(b"GET /r/up/a HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert!(all.starts_with(b"HTTP/1.1 200 "));
}

#[test]
fn a_connection_that_idles_after_an_answer_is_closed_without_a_word() {
    let upstream = Upstream::ok();
    let gateway = Gateway::start(&format!(
        "server: {{ listen: \"127.0.0.1:{{port}}\", timeouts: {{ idle: 400ms }} }}\nresources: {{ up: {{ base_url: {} }} }}\n",
        upstream.url()
    ));
    let mut stream = connect(&gateway);
    stream.write_all(b"GET /r/up/a HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut all = Vec::new();
    stream.read_to_end(&mut all).unwrap();
    assert!(String::from_utf8_lossy(&all).ends_with("{\"ok\":true}"));
}

#[test]
fn a_connection_that_has_rested_goes_on_where_it_was() {
    let upstream = Upstream::ok();
    let gateway = gateway(&upstream, "");
    let mut stream = connect(&gateway);
    let rest = || std::thread::sleep(Duration::from_millis(700));
    rest();
    for parts in [
        &["GET /r/up/whole HTTP/1.1\r\nHost: localhost\r\n\r\n"][..],
        &["GET /r/up/halves HTTP/1.1\r\nHo", "st: localhost\r\n\r\n"],
        &["POST /r/up/length HTTP/1.1\r\nHost: localhost\r\nContent-Length: 6\r\n\r\nab", "cdef"],
        &["POST /r/up/chunks HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nabc", "def\r\n0\r\n\r\n"],
        &[&format!("GET /r/up/long HTTP/1.1\r\nHost: localhost\r\nA: {}\r\n\r\n", "a".repeat(20_000))],
        // A pause between the parts of a head is no rest.
        &["GET /r/up/slow HTTP/1.1\r\nHo", "", "st: localhost\r\n\r\n"],
    ] {
        for part in parts {
            stream.write_all(part.as_bytes()).unwrap();
            std::thread::sleep(Duration::from_millis(if part.is_empty() { 700 } else { 20 }));
        }
        read_until(&mut stream, b"{\"ok\":true}");
        rest();
    }
    // What is sent ahead is answered too, and a head that is refused after a rest ends the connection.
    stream.write_all("GET /r/up/ahead HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(3).as_bytes()).unwrap();
    (0..3).for_each(|_| _ = read_one(&mut stream, b"{\"ok\":true}"));
    rest();
    stream.write_all(b"GET /r/up/bad HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n").unwrap();
    let mut all = Vec::new();
    stream.read_to_end(&mut all).unwrap();
    assert_eq!(Reply::parse(&all).code(), "bad-request");
    let seen = upstream.seen();
    assert_eq!(seen.len(), 9);
    assert!(seen[2..4].iter().all(|s| s.body == b"abcdef"));
}

#[test]
fn a_request_that_takes_longer_than_idle_is_still_answered() {
    let upstream = Upstream::answering(|_, stream| {
        std::thread::sleep(Duration::from_millis(900));
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").is_ok()
    });
    let gateway = Gateway::start(&format!(
        "server: {{ listen: \"127.0.0.1:{{port}}\", timeouts: {{ header: 200ms, idle: 300ms }} }}\nresources: {{ up: {{ base_url: {} }} }}\n",
        upstream.url()
    ));
    let mut stream = TcpStream::connect(("127.0.0.1", gateway.port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut all = Vec::new();
    for _ in 0..2 {
        stream.write_all(b"GET /r/up/a HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        let mut part = [0; 4096];
        let read = stream.read(&mut part).unwrap();
        all.extend_from_slice(&part[..read]);
    }
    assert_eq!(String::from_utf8_lossy(&all).matches("200 OK").count(), 2, "{}", String::from_utf8_lossy(&all));
}

#[test]
fn http_1_0_is_served_without_a_host() {
    let upstream = Upstream::canned("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n");
    let gateway = gateway(&upstream, "");
    let all = gateway.raw(b"GET /r/up/a HTTP/1.0\r\n\r\n");
    assert!(all.ends_with(b"\r\n\r\nok"), "{}", String::from_utf8_lossy(&all));
    assert!(find(&all, b"chunked").is_none());
}

#[test]
fn absolute_form_for_our_own_authority_is_served() {
    let upstream = Upstream::ok();
    let gateway = gateway(&upstream, "");
    let all = gateway.raw(b"GET http://LOCALHOST:80/r/up/a?b HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    assert_eq!(Reply::parse(&all).status, 200, "{}", String::from_utf8_lossy(&all));
    assert_eq!(upstream.last().target(), "/base/a?b");
}
