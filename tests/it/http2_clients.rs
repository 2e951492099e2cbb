//! HTTP/2 towards clients: what passes, in which form it reaches the upstream, and what ends a connection in peace.

use std::io::Write as _;
use std::time::Duration;

use crate::forwarding::gateway;
use crate::support::frames::{CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, Http2, RST_STREAM, SETTINGS, block, frame, request};
use crate::support::{Gateway, PATIENCE, Upstream, eventually};

/// A gateway with settings of its own for `server`.
fn tuned(upstream: &Upstream, server: &str) -> Gateway {
    Gateway::start(&format!(
        "server: {{ listen: \"127.0.0.1:{{port}}\", name: under-test, workers: 2, {server} }}\nresources: {{ up: {{ base_url: \"{}/base\", forward: {{ cookies: true }} }} }}\n",
        upstream.url()
    ))
}

#[test]
fn a_request_reaches_the_upstream_in_the_form_of_http_1_1() {
    let upstream = Upstream::ok();
    let gateway = tuned(&upstream, "");
    let mut client = Http2::connect(gateway.port);
    let more = [("cookie", "a=1"), ("cookie", "b=2"), ("te", "trailers"), ("x-own", "v"), ("content-length", "5")];
    client.send(&frame(HEADERS, END_HEADERS, 1, &request("POST", "/r/up/a%2Fb?c=d", &more)));
    client.send(&frame(DATA, END_STREAM, 1, b"hello"));
    let answer = client.answer(1);
    assert_eq!((answer.status, answer.text().as_str()), (Some(200), "{\"ok\":true}"));
    let seen = upstream.last();
    assert_eq!(seen.line(), "POST /base/a%2Fb?c=d HTTP/1.1");
    assert_eq!(seen.fields("cookie"), ["a=1; b=2"]);
    assert_eq!(seen.fields("host"), [format!("127.0.0.1:{}", upstream.port)]);
    assert_eq!((seen.fields("te"), seen.field("x-own"), seen.fields("content-length")), (vec!["trailers"], Some("v"), vec!["5"]));
    assert_eq!(seen.body, b"hello");
    let record = &gateway.records(1)[0];
    assert_eq!(
        (record["path"].as_str(), record["status"].as_u64(), record["bytes_in"].as_u64()),
        (Some("/r/up/a%2Fb"), Some(200), Some(5))
    );
}

#[test]
fn a_hundred_requests_share_one_connection() {
    let upstream = Upstream::answering(|seen, stream| {
        let body = seen.target().to_owned();
        stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).as_bytes()).is_ok()
    });
    let gateway = gateway(&upstream, "");
    let mut client = Http2::connect(gateway.port);
    for n in 0..100 {
        client.get(1 + 2 * n, &format!("/r/up/{n}"));
    }
    for n in 0..100 {
        let answer = client.answer(1 + 2 * n);
        assert_eq!((answer.ended, answer.text()), (true, format!("/base/{n}")));
    }
    assert_eq!(gateway.records(100).len(), 100);
}

#[test]
fn a_preface_may_come_byte_by_byte_and_a_header_block_in_pieces() {
    let upstream = Upstream::ok();
    let gateway = gateway(&upstream, "");
    let mut client = Http2::silent(gateway.port);
    for byte in crate::support::frames::PREFACE {
        client.send(&[*byte]);
        std::thread::sleep(Duration::from_millis(1));
    }
    client.send(&frame(SETTINGS, 0, 0, &[]));
    let block = request("GET", "/r/up/a", &[("x-long", &"x".repeat(100))]);
    client.send(&frame(HEADERS, END_STREAM, 1, &block[..10]));
    client.send(&frame(CONTINUATION, 0, 1, &block[10..11]));
    client.send(&frame(CONTINUATION, END_HEADERS, 1, &block[11..]));
    assert_eq!(client.answer(1).status, Some(200));
}

#[test]
fn a_large_body_passes_both_ways_and_a_small_window_is_kept_to() {
    let upstream = Upstream::answering(|seen, stream| {
        stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", seen.body.len()).as_bytes()).is_ok()
            && stream.write_all(&seen.body).is_ok()
    });
    let gateway = gateway(&upstream, "");
    let mut client = Http2::connect(gateway.port);
    client.send(&frame(HEADERS, END_HEADERS, 1, &request("POST", "/r/up/echo", &[])));
    let body: Vec<u8> = (0..60_000u32).map(|n| (n % 251) as u8).collect();
    for part in body.chunks(10_000) {
        client.send(&frame(DATA, 0, 1, part));
    }
    client.send(&frame(DATA, END_STREAM, 1, b""));
    let answer = client.answer(1);
    assert!(answer.ended && answer.body == body, "{} bytes", answer.body.len());
}

#[test]
fn refusals_are_problems_with_a_record_as_over_http_1_1() {
    let upstream = Upstream::ok();
    let gateway = tuned(&upstream, "limits: { header_bytes: 4KiB, headers: 20 }");
    let long = "x".repeat(5000);
    let many: Vec<(String, &str)> = (0..30).map(|n| (format!("x-{n}"), "v")).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|(n, v)| (n.as_str(), *v)).collect();
    let cases = [
        ("TRACE", "/r/up/a", &[][..], 405, "method-not-allowed"),
        ("GET", "/r/none/a", &[], 404, "unknown-resource"),
        ("GET", "/r/up/../a", &[], 400, "bad-path"),
        ("GET", "/r/up/a", &[("host", "other")], 400, "bad-request"),
        ("GET", "/r/up/a", &[("x-long", &long)], 431, "headers-too-large"),
        ("GET", "/r/up/a", &many, 431, "headers-too-large"),
    ];
    let mut client = Http2::connect(gateway.port);
    for (n, (method, path, more, status, code)) in cases.into_iter().enumerate() {
        let stream = 1 + 2 * n as u32;
        client.send(&frame(HEADERS, END_STREAM | END_HEADERS, stream, &request(method, path, more)));
        let answer = client.answer(stream);
        let problem: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_else(|e| panic!("{e}: {answer:?}"));
        assert_eq!((problem["status"].as_u64(), problem["code"].as_str()), (Some(status), Some(code)));
    }
    let connect = block(&[(":method", "CONNECT"), (":authority", "localhost:443")]);
    client.send(&frame(HEADERS, END_HEADERS, 21, &connect));
    assert!(client.answer(21).text().contains("method-not-allowed"));
    let records = gateway.records(7);
    assert!(records.iter().all(|r| r["answered_by"] == "gateway" && r["error"].is_string()), "{records:?}");
    assert!(upstream.seen().is_empty());
}

#[test]
fn a_body_that_is_cut_looks_cut_to_the_upstream_whatever_the_reason() {
    // NO_ERROR is what hyper takes for a body that has ended in peace.
    for code in [0u32, 5, 8] {
        let upstream = Upstream::ok();
        let gateway = gateway(&upstream, "");
        let mut client = Http2::connect(gateway.port);
        client.send(&frame(HEADERS, END_HEADERS, 1, &request("POST", "/r/up/a", &[])));
        client.send(&frame(DATA, 0, 1, b"half of it"));
        assert!(eventually(|| (upstream.connections() == 1).then_some(())).is_some());
        client.send(&frame(RST_STREAM, 0, 1, &code.to_be_bytes()));
        // Had it looked whole, the upstream would have seen a request.
        assert!(eventually(|| (upstream.closed() == 1).then_some(())).is_some(), "{code}");
        assert!(upstream.seen().is_empty(), "{code}");
        assert_eq!(gateway.records(1)[0]["status"], 499);
    }
}

#[test]
fn an_answer_that_is_cut_looks_cut_to_the_client() {
    let upstream = Upstream::answering(|_, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nnot a hundred").unwrap();
        false
    });
    let gateway = gateway(&upstream, "");
    let mut client = Http2::connect(gateway.port);
    client.get(1, "/r/up/a");
    let answer = client.answer(1);
    assert!(answer.reset.is_some() && !answer.ended, "{answer:?}");
    assert_eq!(gateway.records(1)[0]["error"], "upstream-protocol");
    // Nobody else on the connection is harmed.
    client.get(3, "/r/none/a");
    assert!(client.answer(3).ended);
}

#[test]
fn a_client_that_resets_its_request_cancels_the_upstreams() {
    let upstream = Upstream::answering(|_, stream| {
        let mut byte = [0];
        // Ends when the gateway closes.
        let _ = std::io::Read::read(stream, &mut byte);
        false
    });
    let gateway = gateway(&upstream, "");
    let mut client = Http2::connect(gateway.port);
    client.get(1, "/r/up/slow");
    assert!(eventually(|| upstream.seen().pop()).is_some());
    client.send(&frame(RST_STREAM, 0, 1, &8u32.to_be_bytes()));
    assert!(eventually(|| (upstream.closed() == 1).then_some(())).is_some());
    assert_eq!(gateway.records(1)[0]["error"], "client-gone");
}

#[test]
fn a_client_that_opens_no_window_is_given_up_and_holds_up_nobody() {
    let upstream = Upstream::answering(|_, stream| {
        let body = vec![b'x'; 1 << 20];
        stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes()).is_ok()
            && stream.write_all(&body).is_ok()
    });
    let gateway = tuned(&upstream, "timeouts: { body_idle: 300ms }");
    let mut stuck = Http2::connect(gateway.port);
    stuck.polite = false;
    // An initial window of zero for every stream.
    stuck.send(&frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]));
    stuck.get(1, "/r/up/large");
    let mut other = Http2::connect(gateway.port);
    other.get(1, "/r/up/large");
    let answer = other.answer(1);
    assert_eq!((answer.ended, answer.body.len()), (true, 1 << 20));
    let ended = stuck.until(|h| h.answers.get(&1).is_some_and(|a| a.reset.is_some()) || h.goaway.is_some());
    assert!(ended, "the stream is held for ever");
    assert!(stuck.answers.get(&1).is_none_or(|a| a.body.is_empty()));
}

#[test]
fn an_idle_connection_is_told_goodbye_and_closed() {
    let upstream = Upstream::ok();
    let gateway = tuned(&upstream, "timeouts: { idle: 400ms, header: 5s }");
    let mut client = Http2::connect(gateway.port);
    client.get(1, "/r/up/a");
    assert_eq!(client.answer(1).status, Some(200));
    assert!(client.until(|_| false) && client.closed);
    assert_eq!(client.goaway.map(|(code, _)| code), Some(0));
}

#[test]
fn a_drain_says_goaway_and_finishes_what_is_under_way() {
    let upstream = Upstream::answering(|_, stream| {
        std::thread::sleep(Duration::from_millis(800));
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").is_ok()
    });
    let mut gateway = gateway(&upstream, "");
    let mut client = Http2::connect(gateway.port);
    let mut idle = Http2::connect(gateway.port);
    client.get(1, "/r/up/a");
    assert!(eventually(|| upstream.seen().pop()).is_some());
    gateway.signal("TERM");
    let answer = client.answer(1);
    assert_eq!((answer.status, answer.text().as_str()), (Some(200), "ok"));
    assert!(client.until(|_| false) && client.closed);
    assert_eq!(client.goaway.map(|(code, _)| code), Some(0));
    assert!(idle.until(|_| false) && idle.closed);
    assert_eq!(gateway.wait(), Some(0));
}

#[test]
fn what_the_library_answers_by_itself_is_counted() {
    let upstream = Upstream::ok();
    let health = crate::support::free_port();
    let gateway = Gateway::start(&format!(
        "server: {{ listen: \"127.0.0.1:{{port}}\" }}\nhealth: {{ listen: \"127.0.0.1:{health}\" }}\nresources: {{ up: {{ base_url: \"{}\" }} }}\n",
        upstream.url()
    ));
    let mut client = Http2::connect(gateway.port);
    client.send(&frame(HEADERS, END_STREAM | END_HEADERS, 1, &request("GET", "/r/up/a", &[("connection", "x")])));
    assert!(client.answer(1).reset.is_some());
    drop(client);
    let metrics = || {
        let bytes = crate::support::exchange(
            std::net::TcpStream::connect(("127.0.0.1", health)).unwrap(),
            b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        );
        String::from_utf8_lossy(&bytes).into_owned()
    };
    assert!(eventually(|| metrics().contains("postern_http2_unserved_total 1").then_some(())).is_some(), "{}", metrics());
}

#[test]
fn http_1_1_and_http_2_share_a_unix_socket() {
    use std::os::unix::net::UnixStream;
    let upstream = Upstream::ok();
    let gateway = Gateway::start(&format!(
        "server: {{ listen: [\"127.0.0.1:{{port}}\", \"unix:{{dir}}/p.sock\"] }}\nresources: {{ up: {{ base_url: \"{}\" }} }}\n",
        upstream.url()
    ));
    let path = gateway.folder.path().join("p.sock");
    let mut stream = UnixStream::connect(&path).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let sent = [
        crate::support::frames::PREFACE,
        &frame(SETTINGS, 0, 0, &[]),
        &frame(HEADERS, END_STREAM | END_HEADERS, 1, &request("GET", "/r/up/a", &[])),
    ]
    .concat();
    stream.write_all(&sent).unwrap();
    assert_eq!(upstream.last().line(), "GET /a HTTP/1.1");
    let mut stream = UnixStream::connect(&path).unwrap();
    stream.write_all(b"GET /r/up/b HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    assert!(eventually(|| upstream.seen().iter().any(|s| s.line() == "GET /b HTTP/1.1").then_some(())).is_some());
}

#[test]
fn an_upgrade_to_http_2_is_not_passed_on() {
    let upstream = Upstream::answering(|seen, stream| {
        let answer: &[u8] = match seen.field("upgrade") {
            Some(_) => b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
            None => b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        };
        stream.write_all(answer).is_ok()
    });
    let gateway = gateway(&upstream, "");
    for wish in ["h2c", "H2C", "websocket, h2c", "HTTP/2.0", "TLS/1.2"] {
        let fields = format!("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: {wish}\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n");
        let head = format!("GET /r/up/a HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n");
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", gateway.port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = [0; 12];
        std::io::Read::read_exact(&mut stream, &mut answer).unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200", "{wish}");
        let seen = upstream.last();
        assert!(seen.field("upgrade").is_none() && seen.field("http2-settings").is_none(), "{}", seen.head);
    }
}
