//! Upstreams that fail: each way is told apart, in the answer, in `Proxy-Status` and in the audit record.

use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use rustls::version::{TLS12, TLS13};

use crate::forwarding::gateway;
use crate::support::tls::{Authority, upstream as tls_upstream};
use crate::support::{Gateway, PATIENCE, Upstream, eventually, find, free_port};

/// Calls `/r/up/a` and checks what the failure is called, everywhere.
fn fails(gateway: &Gateway, status: u16, code: &str, proxy_status: &str) {
    let records = gateway.records(0).len();
    let reply = gateway.get("/r/up/a");
    assert_eq!((reply.status, reply.code().as_str()), (status, code), "{}", reply.text());
    let told = reply.field("proxy-status").unwrap();
    assert!(told.contains(&format!("error={proxy_status}")), "{told}");
    let problem = reply.json();
    assert_eq!(problem["fault"], "upstream", "{problem}");
    assert!(problem["hint"].as_str().is_some_and(|h| !h.is_empty()), "{problem}");
    let record = gateway.records(records + 1).pop().unwrap();
    assert_eq!((&record["error"], &record["status"]), (&code.into(), &status.into()), "{record}");
    assert_eq!(record["answered_by"], "gateway");
}

fn detail(gateway: &Gateway) -> String {
    gateway.get("/r/up/a").json()["detail"].as_str().unwrap().to_owned()
}

fn resource(base_url: &str, more: &str) -> Gateway {
    Gateway::start(&format!("resources:\n  up:\n    base_url: {base_url}\n{more}"))
}

#[test]
fn nobody_listens() {
    let gateway = resource(&format!("http://127.0.0.1:{}", free_port()), "");
    fails(&gateway, 502, "upstream-unreachable", "connection_refused");
}

#[test]
fn the_name_does_not_resolve() {
    // RFC 6761 section 6.4: `invalid` never resolves.
    let gateway = resource("http://upstream.invalid", "");
    fails(&gateway, 502, "upstream-dns", "dns_error");
}

#[test]
fn a_metadata_service_is_never_dialled() {
    for address in ["169.254.169.254", "[fd00:ec2::254]", "[::ffff:169.254.169.254]", "0.0.0.0"] {
        let gateway = resource(&format!("http://{address}"), "");
        fails(&gateway, 502, "upstream-unreachable", "destination_ip_prohibited");
        assert!(!gateway.get("/r/up/a").json()["retryable"].as_bool().unwrap());
    }
}

#[test]
fn connections_that_end_before_an_answer() {
    let upstream = Upstream::answering(|_, _| false);
    fails(&gateway(&upstream, ""), 502, "upstream-protocol", "connection_terminated");
    let upstream = Upstream::answering(|_, stream| {
        socket2::SockRef::from(&*stream).set_linger(Some(Duration::ZERO)).unwrap();
        false
    });
    let gateway = gateway(&upstream, "");
    fails(&gateway, 502, "upstream-protocol", "connection_terminated");
    assert!(detail(&gateway).contains("reset"), "{}", detail(&gateway));
}

#[test]
fn answers_that_are_not_http() {
    for garbage in [
        "SSH-2.0-OpenSSH_9.6\r\n\r\n",
        "HTTP/1.1 20 OK\r\n\r\n",
        "HTTP/9.1 200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        "HTTP/1.1 200 OK\r\nContent-Length: two\r\n\r\nab",
        "HTTP/1.1 200 OK\r\nX Y: 1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: a\0b\r\n\r\n",
    ] {
        let upstream = Upstream::answering(move |_, stream| {
            stream.write_all(garbage.as_bytes()).unwrap();
            false
        });
        fails(&gateway(&upstream, ""), 502, "upstream-protocol", "http_protocol_error");
    }
}

#[test]
fn a_head_without_end_is_cut_off() {
    let upstream = Upstream::answering(|_, stream| {
        let mut sent = stream.write_all(b"HTTP/1.1 200 OK\r\n").is_ok();
        let field = format!("X-Long: {}\r\n", "a".repeat(8000));
        for _ in 0..1000 {
            sent = sent && stream.write_all(field.as_bytes()).is_ok();
        }
        sent
    });
    fails(&gateway(&upstream, ""), 502, "upstream-protocol", "http_protocol_error");
}

#[test]
fn a_switch_that_nobody_asked_for() {
    let upstream = Upstream::canned("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: smuggled\r\n\r\n");
    fails(&gateway(&upstream, ""), 502, "upstream-protocol", "http_upgrade_failed");
}

#[test]
fn a_cut_body_looks_cut_to_the_client() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n",
    ] {
        let upstream = Upstream::answering(move |_, stream| {
            stream.write_all(answer.as_bytes()).unwrap();
            // The head is with the client before the end comes.
            std::thread::sleep(Duration::from_millis(30));
            false
        });
        let gateway = gateway(&upstream, "");
        let all = gateway.raw(b"GET /r/up/a HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        assert!(find(&all, b"HTTP/1.1 200 OK").is_some() && find(&all, b"hello").is_some(), "{}", String::from_utf8_lossy(&all));
        assert!(!all.ends_with(b"0\r\n\r\n"), "the end of the chunks was made up");
        let record = gateway.records(1).pop().unwrap();
        assert_eq!((&record["error"], &record["status"]), (&"upstream-protocol".into(), &200.into()), "{record}");
    }
}

#[test]
fn a_body_over_its_limit_is_cut() {
    let upstream = Upstream::ok();
    let gateway = gateway(&upstream, "    limits: { response_body: 10B }\n");
    let all = gateway.raw(b"GET /r/up/a HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    assert!(find(&all, b"{\"ok\":true}").is_none());
    assert_eq!(gateway.records(1)[0]["error"], "upstream-protocol");
}

/// An upstream that takes the request and says nothing, or `first` and then nothing.
fn silent(first: &'static str) -> Upstream {
    Upstream::answering(move |_, stream| {
        stream.write_all(first.as_bytes()).unwrap();
        std::thread::sleep(PATIENCE);
        false
    })
}

#[test]
fn silence_ends_by_stage() {
    let upstream = silent("");
    let began = Instant::now();
    fails(&gateway(&upstream, "    timeouts: { head: 200ms }\n"), 504, "upstream-timeout", "http_response_timeout");
    assert!(began.elapsed() >= Duration::from_millis(200));
    fails(&gateway(&upstream, "    timeouts: { total: 200ms }\n"), 504, "upstream-timeout", "http_response_timeout");
    // TLS towards a server that says nothing: the handshake is part of connecting.
    let upstream = Upstream::raw(|_stream, _, _| std::thread::sleep(PATIENCE));
    let gateway = resource(&format!("https://127.0.0.1:{}", upstream.port), "    timeouts: { connect: 200ms }\n");
    fails(&gateway, 504, "upstream-timeout", "connection_timeout");
}

#[test]
fn silence_within_a_body_cuts_it() {
    for timeouts in ["idle: 200ms", "total: 300ms"] {
        let upstream = silent("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello");
        let gateway = gateway(&upstream, &format!("    timeouts: {{ {timeouts} }}\n"));
        let all = gateway.raw(b"GET /r/up/a HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert!(all.ends_with(b"hello"), "{}", String::from_utf8_lossy(&all));
        assert_eq!(gateway.records(1)[0]["error"], "upstream-timeout");
    }
}

#[test]
fn a_full_pool_waits_its_queue_and_says_so() {
    let upstream = silent("");
    let gateway = gateway(&upstream, "    http: { max_connections: 1 }\n    timeouts: { queue: 200ms }\n");
    let mut first = TcpStream::connect(("127.0.0.1", gateway.port)).unwrap();
    first.write_all(b"GET /r/up/a HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    eventually(|| (upstream.connections() == 1).then_some(())).unwrap();
    let reply = gateway.get("/r/up/b");
    assert_eq!((reply.status, reply.code().as_str()), (503, "overloaded"));
    assert!(reply.field("retry-after").is_some());
    assert_eq!(upstream.connections(), 1);
}

#[test]
fn a_connection_that_died_while_it_idled_is_noticed_by_no_client() {
    // Each connection serves one request, and closes without a word when the second comes.
    let upstream = Upstream::raw(|mut stream, number, seen| {
        let request = crate::support::Seen::read(&mut stream, number).unwrap();
        seen.lock().unwrap().push(request);
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").unwrap();
        if let Some(request) = crate::support::Seen::read(&mut stream, number) {
            seen.lock().unwrap().push(request);
        }
    });
    let config =
        format!("resources:\n  up: {{ base_url: \"{}\" }}\nserver: {{ listen: \"127.0.0.1:{{port}}\", workers: 1 }}\n", upstream.url());
    let gateway = Gateway::start(&config);
    assert_eq!(gateway.get("/r/up/1").status, 200);
    assert_eq!(gateway.get("/r/up/2").status, 200);
    let paths: Vec<String> = upstream.seen().iter().map(|s| format!("{} {}", s.connection, s.target())).collect();
    assert_eq!(paths, ["0 /1", "0 /2", "1 /2"]);
    // What is not safe, or has a body, is not sent twice: nobody knows whether it was done.
    let reply = gateway.send("POST", "/r/up/3", "", b"pay");
    assert_eq!((reply.status, reply.code().as_str()), (502, "upstream-protocol"));
    assert_eq!(upstream.seen().iter().filter(|s| s.target() == "/3").count(), 1);
    let records = gateway.records(3);
    assert_eq!((&records[1]["attempts"], &records[2]["attempts"]), (&2.into(), &1.into()), "{records:?}");
}

#[test]
fn tls_is_verified_and_its_failures_are_told_apart() {
    let authority = Authority::new();
    let other = Authority::new();
    for (name, expired, ca, code) in [
        ("localhost", false, &authority, None),
        ("localhost", true, &authority, Some("expired")),
        ("elsewhere.example", false, &authority, Some("another name")),
        ("localhost", false, &other, Some("not signed by")),
    ] {
        let upstream = tls_upstream(&authority.issue(name, expired), &[&TLS13, &TLS12]);
        let gateway = resource(
            &format!("https://localhost:{}", upstream.port),
            &format!("    tls: {{ ca: {} }}\n", serde_json::to_string(&ca.pem()).unwrap()),
        );
        let Some(code) = code else {
            assert_eq!(gateway.get("/r/up/a").status, 200, "{}", gateway.stderr());
            continue;
        };
        fails(&gateway, 502, "upstream-tls", "tls_certificate_error");
        assert!(detail(&gateway).contains(code), "{}", detail(&gateway));
        assert!(upstream.seen().is_empty());
    }
}

#[test]
fn an_authority_that_only_we_know_is_not_trusted_by_default() {
    let upstream = tls_upstream(&Authority::new().issue("localhost", false), &[&TLS13]);
    let gateway = resource(&format!("https://localhost:{}", upstream.port), "");
    fails(&gateway, 502, "upstream-tls", "tls_certificate_error");
    assert!(detail(&gateway).contains("not signed by"));
}

#[test]
fn server_name_pins_and_min_version_hold() {
    let authority = Authority::new();
    let identity = authority.issue("api.example", false);
    let another = authority.issue("api.example", false);
    let ca = serde_json::to_string(&authority.pem()).unwrap();
    for (more, versions, told) in [
        ("server_name: api.example".to_owned(), vec![&TLS13], None),
        (format!("server_name: api.example, pin_sha256: [\"{}\", \"{}\"]", another.pin(), identity.pin()), vec![&TLS12], None),
        (format!("server_name: api.example, pin_sha256: [\"{}\"]", another.pin()), vec![&TLS13], Some(("tls_certificate_error", "pinned"))),
        (format!("verify: false, pin_sha256: [\"{}\"]", another.pin()), vec![&TLS13], Some(("tls_certificate_error", "pinned"))),
        (format!("verify: false, pin_sha256: [\"{}\"]", identity.pin()), vec![&TLS13], None),
        ("server_name: api.example, min_version: \"1.3\"".to_owned(), vec![&TLS12], Some(("tls_protocol_error", "handshake"))),
    ] {
        let upstream = tls_upstream(&identity, &versions);
        let gateway = resource(&format!("https://localhost:{}", upstream.port), &format!("    tls: {{ ca: {ca}, {more} }}\n"));
        match told {
            None => assert_eq!(gateway.get("/r/up/a").status, 200, "{more}: {}", gateway.stderr()),
            Some((proxy_status, text)) => {
                fails(&gateway, 502, "upstream-tls", proxy_status);
                assert!(detail(&gateway).contains(text), "{more}: {}", detail(&gateway));
                assert!(upstream.seen().is_empty());
            }
        }
    }
}

#[test]
fn a_server_without_tls_behind_https_is_named() {
    let upstream = Upstream::raw(|mut stream, _, _| {
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
    });
    let gateway = resource(&format!("https://127.0.0.1:{}", upstream.port), "");
    fails(&gateway, 502, "upstream-tls", "tls_protocol_error");
}

#[test]
fn an_upstreams_own_error_passes_as_it_is() {
    let upstream =
        Upstream::canned("HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain\r\nRetry-After: 7\r\nContent-Length: 4\r\n\r\nbusy");
    let gateway = gateway(&upstream, "");
    let reply = gateway.get("/r/up/a");
    assert_eq!((reply.status, reply.text().as_str(), reply.field("retry-after")), (503, "busy", Some("7")));
    assert_eq!(reply.field("proxy-status"), None);
    let record = &gateway.records(1)[0];
    assert_eq!((&record["answered_by"], record.get("error")), (&"upstream".into(), None));
}

#[test]
fn a_backlog_that_nobody_accepts_is_a_connect_timeout() {
    // Two connections fill a backlog of one; the kernel ignores further ones.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&"127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
    socket.listen(0).unwrap();
    let listener: TcpListener = socket.into();
    let address = listener.local_addr().unwrap();
    let _filling: Vec<_> = (0..4).map(|_| TcpStream::connect_timeout(&address, Duration::from_millis(50))).collect();
    let gateway = resource(&format!("http://{address}"), "    timeouts: { connect: 200ms }\n");
    fails(&gateway, 504, "upstream-timeout", "connection_timeout");
}

#[test]
fn a_host_that_an_expression_made_is_dialled_only_where_it_is_public() {
    let upstream = Upstream::ok();
    // `localhost` resolves to this machine: a name is judged by its address, at each dial.
    for host in ["127.0.0.1", "localhost"] {
        for (private, status) in [(false, 502), (true, 200)] {
            let gateway = Gateway::start(&format!(
                "vars: {{ host: {host} }}\nresources:\n  up:\n    base_url: \"http://{{{{ vars.host }}}}:{}\"\n    hosts: [\"{host}:{}\"]\n    allow_private: {private}\n",
                upstream.port, upstream.port
            ));
            let reply = gateway.get("/r/up/a");
            assert_eq!(reply.status, status, "{host} {private}: {}", reply.text());
            if status == 502 {
                assert_eq!(reply.code(), "upstream-unreachable");
                assert!(reply.field("proxy-status").unwrap().contains("destination_ip_prohibited"), "{}", reply.head);
            }
        }
    }
    assert_eq!(upstream.seen().len(), 2);
}
