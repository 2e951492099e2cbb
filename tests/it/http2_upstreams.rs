//! HTTP/2 to upstreams: versions by configuration and handshake, shared connections, what is sent again, what is cut.

use std::sync::Arc;
use std::time::Duration;

use crate::support::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, Http2, PING, PUSH_PROMISE, RST_STREAM, SETTINGS, block, frame, request,
};
use crate::support::http2::{Behaviour, Hyper, framed, ok};
use crate::support::tls::Authority;
use crate::support::{Gateway, Upstream, eventually};

fn gateway(port: u16, more: &str) -> Gateway {
    Gateway::start(&format!(
        "server: {{ listen: \"127.0.0.1:{{port}}\", name: under-test, workers: 1 }}\nresources:\n  up:\n    base_url: \"http://127.0.0.1:{port}/base\"\n{more}"
    ))
}

const TWO: &str = "    http: { versions: [2] }\n";

#[test]
fn a_request_goes_out_over_http_2_in_its_form() {
    let upstream = Hyper::start(Behaviour::default());
    let gateway = Gateway::start_with(
        &format!(
            "server: {{ listen: \"127.0.0.1:{{port}}\", name: under-test, workers: 1 }}\nresources:\n  up: {{ base_url: \"http://127.0.0.1:{}/base\", http: {{ versions: [2] }}, auth: {{ bearer: \"${{env:T}}\" }} }}\n",
            upstream.port
        ),
        &[("T", "the-token-itself")],
    );
    let reply = gateway.send(
        "POST",
        "/r/up/a%2Fb?c=d",
        "X-Own: v\r\nTE: trailers\r\nConnection: x-drop\r\nX-Drop: 1\r\nExpect: 100-continue\r\n",
        b"hello",
    );
    assert_eq!((reply.status, reply.text().as_str()), (200, "ok"), "{}", reply.head);
    let seen = upstream.last();
    assert_eq!((seen.method.as_str(), seen.version), ("POST", http::Version::HTTP_2));
    assert_eq!(seen.uri, format!("http://127.0.0.1:{}/base/a%2Fb?c=d", upstream.port));
    assert_eq!((seen.body.as_slice(), seen.whole), (&b"hello"[..], true));
    assert_eq!(seen.headers["authorization"], "Bearer the-token-itself");
    assert_eq!(seen.headers["x-own"], "v");
    for gone in ["host", "connection", "x-drop", "expect", "transfer-encoding", "upgrade"] {
        assert!(!seen.headers.contains_key(gone), "{gone}");
    }
}

#[test]
fn trailers_pass_both_ways_without_what_never_stands_there() {
    let upstream = Hyper::start(Behaviour::default());
    let gateway = gateway(
        upstream.port,
        "    http: { versions: [2] }\n    auth: { api_key: { in: header, name: x-api-key, value: \"a-literal-secret\" } }\nallow_literal_secrets: true\n",
    );
    let mut client = Http2::connect(gateway.port);
    client.send(&frame(HEADERS, END_HEADERS, 1, &request("POST", "/r/up/a", &[("te", "trailers")])));
    client.send(&frame(DATA, 0, 1, b"hello"));
    client.send(&frame(
        HEADERS,
        END_STREAM | END_HEADERS,
        1,
        &block(&[("x-check", "2"), ("x-api-key", "forged"), ("authorization", "forged"), ("host", "forged")]),
    ));
    let answer = client.answer(1);
    assert_eq!((answer.status, answer.text().as_str(), answer.blocks, answer.ended), (Some(200), "ok", 2, true));
    let seen = upstream.last();
    let trailers = seen.trailers.unwrap();
    assert_eq!((trailers.len(), trailers["x-check"].to_str().unwrap()), (1, "2"), "{trailers:?}");
    assert_eq!(seen.headers["x-api-key"], "a-literal-secret");
}

#[test]
fn calls_share_connections_up_to_what_the_upstream_allows() {
    let upstream = Hyper::start(Behaviour { streams: Some(4), delay: Duration::from_millis(100), ..Behaviour::default() });
    let gateway = gateway(upstream.port, "    http: { versions: [2], max_connections: 5 }\n");
    // The first call learns what the upstream allows.
    assert_eq!(gateway.get("/r/up/first").status, 200);
    let mut client = Http2::connect(gateway.port);
    for n in 0..60 {
        client.get(1 + 2 * n, "/r/up/a");
    }
    for n in 0..60 {
        let answer = client.answer(1 + 2 * n);
        assert_eq!((answer.ended, answer.text().as_str()), (true, "ok"), "{n}: {answer:?}");
    }
    assert!(upstream.most_at_a_time() <= 4, "{} at a time", upstream.most_at_a_time());
    assert!((2..=5).contains(&upstream.connections()), "{} connections", upstream.connections());
    assert_eq!(upstream.received().len(), 61);
}

#[test]
fn a_burst_on_a_new_upstream_waits_for_one_connection() {
    let upstream = Hyper::start(Behaviour::default());
    let gateway = gateway(upstream.port, TWO);
    let mut client = Http2::connect(gateway.port);
    for n in 0..50 {
        client.get(1 + 2 * n, "/r/up/a");
    }
    for n in 0..50 {
        assert_eq!(client.answer(1 + 2 * n).text(), "ok");
    }
    assert_eq!(upstream.connections(), 1);
}

fn over_tls(alpn: &[&[u8]], more: &str) -> (Hyper, Gateway) {
    let authority = Authority::new();
    let upstream = Hyper::start(Behaviour { tls: Some(authority.issue("localhost", false).server(alpn)), ..Behaviour::default() });
    let ca = authority.pem().replace('\n', "\n        ");
    let gateway = Gateway::start(&format!(
        "server: {{ listen: \"127.0.0.1:{{port}}\", workers: 1 }}\nresources:\n  up:\n    base_url: \"https://localhost:{}\"\n    tls:\n      ca: |\n        {ca}\n{more}",
        upstream.port
    ));
    (upstream, gateway)
}

#[test]
fn the_handshake_chooses_the_version_and_the_configuration_bounds_it() {
    let (both, one): (&[&[u8]], &[&[u8]]) = (&[b"h2", b"http/1.1"], &[b"http/1.1"]);
    for (alpn, more, version) in [
        (both, "", http::Version::HTTP_2),
        (both, "    http: { versions: [1.1] }\n", http::Version::HTTP_11),
        (both, "    http: { versions: [2] }\n", http::Version::HTTP_2),
        (one, "", http::Version::HTTP_11),
        (&[], "", http::Version::HTTP_11),
    ] {
        let (upstream, gateway) = over_tls(alpn, more);
        for _ in 0..3 {
            assert_eq!(gateway.get("/r/up/a").text(), "ok", "{}", gateway.stderr());
        }
        assert!(upstream.received().iter().all(|r| r.version == version), "{alpn:?} {more}");
        assert_eq!(upstream.connections(), 1, "{alpn:?} {more}");
    }
}

#[test]
fn an_upstream_that_lacks_the_only_version_is_told_apart() {
    let (upstream, gateway) = over_tls(&[b"http/1.1"], "    http: { versions: [2] }\n");
    let reply = gateway.get("/r/up/a");
    assert_eq!((reply.status, reply.code().as_str()), (502, "upstream-tls"));
    assert!(upstream.received().is_empty());
}

#[test]
fn a_switch_of_protocols_needs_http_1_1() {
    let upstream = Hyper::start(Behaviour::default());
    let gateway = gateway(upstream.port, TWO);
    let reply = gateway.send("GET", "/r/up/chat", "Connection: Upgrade\r\nUpgrade: websocket\r\n", b"");
    assert_eq!((reply.status, reply.code().as_str()), (403, "forbidden"));
}

#[test]
fn what_the_upstream_has_not_looked_at_goes_out_again_whatever_the_method() {
    for refusal in [
        frame(RST_STREAM, 0, 1, &7u32.to_be_bytes()),
        frame(GOAWAY, 0, 0, &[0; 8]),
        frame(GOAWAY, 0, 0, &[&0u32.to_be_bytes()[..], &11u32.to_be_bytes()].concat()),
    ] {
        let first = refusal.clone();
        let upstream = framed(move |stream, connection| if connection == 0 && stream == 1 { first.clone() } else { ok(stream) });
        let gateway = gateway(upstream.port, TWO);
        let reply = gateway.send("DELETE", "/r/up/a", "", b"");
        assert_eq!((reply.status, reply.text().as_str()), (200, "ok"), "{refusal:?}");
        assert_eq!(upstream.seen().len(), 2);
        assert_eq!(gateway.records(1)[0]["attempts"], 2);
    }
}

#[test]
fn an_upstream_that_refuses_for_ever_is_given_up() {
    let upstream = framed(|stream, _| frame(RST_STREAM, 0, stream, &7u32.to_be_bytes()));
    let gateway = gateway(upstream.port, TWO);
    let reply = gateway.get("/r/up/a");
    assert_eq!((reply.status, reply.code().as_str()), (502, "upstream-protocol"));
    assert_eq!(reply.json()["retryable"], true);
    assert!(upstream.seen().len() <= 6, "{}", upstream.seen().len());
}

#[test]
fn what_the_upstream_may_have_acted_on_is_not_sent_again() {
    let upstream = framed(|stream, _| frame(RST_STREAM, 0, stream, &2u32.to_be_bytes()));
    let gateway = gateway(upstream.port, TWO);
    let reply = gateway.send("POST", "/r/up/a", "", b"");
    assert_eq!((reply.status, reply.code().as_str()), (502, "upstream-protocol"));
    assert_eq!(upstream.seen().len(), 1);
}

#[test]
fn an_answer_that_is_cut_looks_cut_whatever_the_reason() {
    // NO_ERROR is what hyper takes for an answer that has ended in peace.
    for code in [0u32, 2, 8] {
        let upstream = framed(move |stream, _| {
            let half = [frame(HEADERS, END_HEADERS, stream, &[0x88]), frame(DATA, 0, stream, b"half")].concat();
            [half, frame(RST_STREAM, 0, stream, &code.to_be_bytes())].concat()
        });
        let gateway = gateway(upstream.port, TWO);
        let mut client = Http2::connect(gateway.port);
        client.get(1, "/r/up/a");
        let answer = client.answer(1);
        assert!(answer.reset.is_some_and(|code| code != 0) && !answer.ended, "{code}: {answer:?}");
        // Over HTTP/1.1 the last chunk is missing.
        let all = gateway.raw(b"GET /r/up/a HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let text = String::from_utf8_lossy(&all);
        assert!(!text.contains("0\r\n\r\n"), "{code}: {text}");
        assert!(gateway.records(2).iter().all(|r| r["error"] == "upstream-protocol"), "{code}");
    }
}

#[test]
fn hostile_answers_are_502_and_spoil_nothing_else() {
    let head = |fields: &[(&str, &str)]| frame(HEADERS, END_HEADERS, 1, &block(fields));
    let status = (":status", "200");
    let hostile: Vec<(&str, Vec<u8>)> = vec![
        ("no :status", frame(HEADERS, END_STREAM | END_HEADERS, 1, &block(&[("a", "b")]))),
        ("two :status", head(&[status, status])),
        ("a :status that is no number", head(&[(":status", "2x0")])),
        (":status of 99", head(&[(":status", "99")])),
        ("a pseudo-field behind a field", head(&[("a", "b"), status])),
        ("a name in capitals", head(&[status, ("X-A", "b")])),
        ("Connection", head(&[status, ("connection", "close")])),
        ("Transfer-Encoding", head(&[status, ("transfer-encoding", "chunked")])),
        ("a line in a value", head(&[status, ("a", "b\r\nset-cookie: x=1")])),
        ("a NUL in a value", head(&[status, ("a", "b\0")])),
        ("two lengths", [head(&[status, ("content-length", "1"), ("content-length", "2")]), frame(DATA, END_STREAM, 1, b"x")].concat()),
        ("a length that is no number", [head(&[status, ("content-length", "+1")]), frame(DATA, END_STREAM, 1, b"x")].concat()),
        ("DATA before HEADERS", frame(DATA, END_STREAM, 1, b"x")),
        ("PUSH_PROMISE", frame(PUSH_PROMISE, END_HEADERS, 1, &[&[0, 0, 0, 2][..], &request("GET", "/pushed", &[])].concat())),
        ("HEADERS on a stream of its own", frame(HEADERS, END_STREAM | END_HEADERS, 2, &[0x88])),
        ("HEADERS on the connection", frame(HEADERS, END_STREAM | END_HEADERS, 0, &[0x88])),
        ("CONTINUATION alone", frame(CONTINUATION, END_HEADERS, 1, &[0x88])),
        (
            "a header block without end",
            [frame(HEADERS, 0, 1, &[0x88]), frame(CONTINUATION, 0, 1, &block(&[("a", "b")])).repeat(2000)].concat(),
        ),
        (
            "a header block that unfolds",
            frame(
                HEADERS,
                END_HEADERS,
                1,
                &[
                    &[0x88, 0x40][..],
                    &crate::support::frames::string(b"x-bomb"),
                    &crate::support::frames::string(&[b'x'; 3900]),
                    &[0xbe; 12_000],
                ]
                .concat(),
            ),
        ),
        ("broken HPACK", frame(HEADERS, END_STREAM | END_HEADERS, 1, &[0x80])),
        ("SETTINGS that are wrong", frame(SETTINGS, 0, 0, &[0, 4, 0xff, 0xff, 0xff, 0xff])),
        ("PING of seven bytes", frame(PING, 0, 0, &[0; 7])),
        (
            "GOAWAY that has looked at it",
            [frame(GOAWAY, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 2]), frame(RST_STREAM, 0, 1, &2u32.to_be_bytes())].concat(),
        ),
        ("a frame over the bound", frame(99, 0, 0, &vec![0; 17_000])),
        ("HTTP/1.1", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec()),
    ];
    for (name, answer) in hostile {
        let answer = Arc::new(answer);
        // The second call of a resource may be its retry on another connection, which is as hostile.
        let upstream = framed({
            let answer = answer.clone();
            move |stream, _| if stream == 1 { answer.to_vec() } else { ok(stream) }
        });
        let healthy = Upstream::ok();
        let gateway = Gateway::start(&format!(
            "server: {{ listen: \"127.0.0.1:{{port}}\", workers: 1 }}\nresources:\n  up: {{ base_url: \"http://127.0.0.1:{}\", http: {{ versions: [2] }}, timeouts: {{ head: 5s, idle: 5s }} }}\n  other: {{ base_url: \"{}\" }}\n",
            upstream.port,
            healthy.url()
        ));
        let reply = gateway.get("/r/up/a");
        assert_eq!(reply.status, 502, "{name}: {}", reply.text());
        assert_eq!(reply.code(), "upstream-protocol", "{name}");
        assert!(!reply.head.contains("set-cookie"), "{name}");
        assert_eq!(gateway.get("/r/other/a").status, 200, "{name}");
    }
}

#[test]
fn bodies_that_do_not_fit_their_length_look_cut() {
    for (length, sent) in [("5", "no"), ("1", "more than one")] {
        let upstream = framed(move |stream, _| {
            [
                frame(HEADERS, END_HEADERS, stream, &block(&[(":status", "200"), ("content-length", length)])),
                frame(DATA, END_STREAM, stream, sent.as_bytes()),
            ]
            .concat()
        });
        let gateway = gateway(upstream.port, TWO);
        let mut client = Http2::connect(gateway.port);
        client.get(1, "/r/up/a");
        let answer = client.answer(1);
        let refused = answer.text().contains("upstream-protocol");
        assert!(refused || (answer.reset.is_some() && !answer.ended), "{length}: {answer:?}");
        assert!(refused || answer.body.len() <= length.parse().unwrap());
    }
}

#[test]
fn a_connection_that_says_goaway_finishes_its_calls_and_takes_no_more() {
    let upstream = framed(|stream, connection| {
        // The first call on the first connection is answered after the GOAWAY that names it.
        if connection == 0 { [frame(GOAWAY, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 0]), ok(stream)].concat() } else { ok(stream) }
    });
    let gateway = gateway(upstream.port, TWO);
    for _ in 0..3 {
        assert_eq!(gateway.get("/r/up/a").text(), "ok");
    }
    let connections: Vec<usize> = upstream.seen().iter().map(|s| s.connection).collect();
    assert_eq!(connections, [0, 1, 1]);
}

#[test]
fn an_idle_connection_is_closed_in_time() {
    let upstream = framed(|stream, _| ok(stream));
    let gateway = gateway(upstream.port, "    http: { versions: [2], idle: 1s }\n");
    assert_eq!(gateway.get("/r/up/a").text(), "ok");
    assert!(eventually(|| (upstream.closed() == 1).then_some(())).is_some());
    assert_eq!(gateway.get("/r/up/a").text(), "ok");
    assert_eq!(upstream.connections(), 2);
}
