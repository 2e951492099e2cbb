//! Slow and silent peers, on both sides: each wait ends by a named limit, others are served meanwhile, and memory stays.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::support::{Gateway, PATIENCE, Reply, Upstream, eventually, find};

/// How many of a kind there are at a time.
const PEERS: usize = 200;
/// How long an honest client waits at most meanwhile.
const MEANWHILE: Duration = Duration::from_secs(2);
/// What memory may grow by, in KiB.
const GROWTH_MAX: u64 = 48 * 1024;

fn memory(gateway: &Gateway) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.pid())).unwrap();
    status.lines().find(|l| l.starts_with("VmRSS:")).unwrap().split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn gateway(upstream: &Upstream, server: &str, more: &str) -> Gateway {
    Gateway::start(&format!(
        "server: {{ listen: \"127.0.0.1:{{port}}\", name: under-test, workers: 2, {server} }}\nresources:\n  up: {{ base_url: \"{}\"{more} }}\n",
        upstream.url()
    ))
}

fn connect(gateway: &Gateway) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", gateway.port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// An honest client is served. The bound is the promise; a machine under load is given one more try.
fn serves(gateway: &Gateway) {
    let served = || {
        let began = Instant::now();
        gateway.get("/r/up/honest").status == 200 && began.elapsed() < MEANWHILE
    };
    assert!(served() || served(), "an honest client waits");
}

fn closed(stream: &mut TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    let _ = stream.read_to_end(&mut all);
    all
}

#[test]
fn heads_that_drip_end_by_the_header_timeout_while_others_are_served() {
    let upstream = Upstream::ok();
    let gateway = gateway(&upstream, "timeouts: { header: 2s }", "");
    serves(&gateway);
    let before = memory(&gateway);
    let mut dripping: Vec<TcpStream> = (0..PEERS).map(|_| connect(&gateway)).collect();
    for piece in ["GET /r/up/a HT", "TP/1.1\r\nHo", "st: localhost\r\n", "X: "] {
        dripping.iter_mut().for_each(|s| s.write_all(piece.as_bytes()).unwrap());
        serves(&gateway);
    }
    let began = Instant::now();
    for stream in &mut dripping {
        // A byte every now and then does not lengthen it.
        let _ = stream.write_all(b"x");
        let reply = Reply::parse(&closed(stream));
        assert_eq!((reply.status, reply.code().as_str()), (408, "bad-request"));
    }
    assert!(began.elapsed() < PATIENCE);
    assert!(memory(&gateway).saturating_sub(before) < GROWTH_MAX, "{} KiB", memory(&gateway).saturating_sub(before));
}

#[test]
fn a_body_of_a_byte_a_second_ends_by_its_rate_and_a_silent_one_by_its_silence() {
    let upstream = Upstream::ok();
    let gateway = gateway(&upstream, "limits: { min_body_rate: 100B, min_body_rate_grace: 1s }, timeouts: { body_idle: 3s }", "");
    let head = b"POST /r/up/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n";
    let mut dripping: Vec<TcpStream> = (0..PEERS / 4).map(|_| connect(&gateway)).collect();
    dripping.iter_mut().for_each(|s| s.write_all(head).unwrap());
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(2) {
        dripping.iter_mut().for_each(|s| drop(s.write_all(b"x")));
        std::thread::sleep(Duration::from_millis(200));
        serves(&gateway);
    }
    for stream in &mut dripping {
        assert_eq!(Reply::parse(&closed(stream)).status, 408);
    }
    // What was begun towards the upstream is cut there too.
    assert!(upstream.seen().iter().all(|s| s.target() != "/a"), "half a body became a request");
    let mut silent = connect(&gateway);
    silent.write_all(head).unwrap();
    assert_eq!(Reply::parse(&closed(&mut silent)).status, 408);
}

#[test]
fn a_client_that_does_not_read_its_answer_is_left_after_body_idle() {
    let upstream = Upstream::answering(|seen, stream| {
        if seen.target() == "/honest" {
            return stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").is_ok();
        }
        let part = vec![b'x'; 1 << 20];
        stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 1u64 << 30).as_bytes()).is_ok()
            && (0..1024).all(|_| stream.write_all(&part).is_ok())
    });
    let gateway = gateway(&upstream, "timeouts: { body_idle: 1s }", "");
    serves(&gateway);
    let before = memory(&gateway);
    let mut deaf: Vec<TcpStream> = (0..20).map(|_| connect(&gateway)).collect();
    deaf.iter_mut().for_each(|s| s.write_all(b"GET /r/up/big HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap());
    serves(&gateway);
    // Every one is given up, and its upstream with it; nothing was kept for it.
    eventually(|| (upstream.closed() >= 20).then_some(())).expect("upstream connections stay open");
    assert!(memory(&gateway).saturating_sub(before) < GROWTH_MAX, "{} KiB", memory(&gateway).saturating_sub(before));
    serves(&gateway);
    // One that reads a little now and then is no better than one that does not read.
    let mut sipping = connect(&gateway);
    sipping.write_all(b"GET /r/up/big HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut byte = [0];
    let ended = eventually(|| {
        std::thread::sleep(Duration::from_millis(50));
        let read = sipping.read(&mut byte);
        (upstream.closed() >= 21 || read.is_err()).then_some(())
    });
    ended.expect("a sipping client keeps the gateway busy");
}

#[test]
fn connections_that_say_nothing_end_by_idle_and_tunnels_by_their_own() {
    let upstream = Upstream::answering(|seen, stream| {
        if seen.field("upgrade").is_some() {
            let switched = stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n").is_ok();
            let _ = stream.read(&mut [0; 16]);
            return !switched;
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").is_ok()
    });
    let gateway = gateway(&upstream, "timeouts: { idle: 1s }", ", timeouts: { idle: 1s }");
    let mut silent: Vec<TcpStream> = (0..PEERS).map(|_| connect(&gateway)).collect();
    let mut tunnels: Vec<TcpStream> = (0..20).map(|_| connect(&gateway)).collect();
    for tunnel in &mut tunnels {
        tunnel.write_all(b"GET /r/up/t HTTP/1.1\r\nHost: localhost\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n").unwrap();
    }
    serves(&gateway);
    for stream in &mut silent {
        assert!(closed(stream).is_empty());
    }
    for tunnel in &mut tunnels {
        assert!(find(&closed(tunnel), b"101 Switching Protocols").is_some());
    }
    eventually(|| (upstream.closed() >= 20).then_some(())).expect("tunnels stay open towards the upstream");
    serves(&gateway);
}

#[test]
fn slow_and_silent_upstreams_end_by_head_and_idle_while_others_are_served() {
    let upstream = Upstream::answering(|seen, stream| match seen.target() {
        "/honest" => stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").is_ok(),
        "/silent" => {
            std::thread::sleep(PATIENCE);
            false
        }
        "/drip" => b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX: ".iter().chain([b'x'; 200].iter()).all(|b| {
            std::thread::sleep(Duration::from_millis(100));
            stream.write_all(&[*b]).is_ok()
        }),
        _ => {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhel");
            std::thread::sleep(PATIENCE);
            false
        }
    });
    let gateway = gateway(&upstream, "limits: { in_flight: 1000 }", ", timeouts: { head: 2s, idle: 1s }, http: { max_connections: 500 }");
    serves(&gateway);
    let before = memory(&gateway);
    let mut waiting: Vec<(&str, TcpStream)> = Vec::new();
    for path in ["/silent", "/drip", "/half"] {
        for _ in 0..40 {
            let mut stream = connect(&gateway);
            stream.write_all(format!("GET /r/up{path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").as_bytes()).unwrap();
            waiting.push((path, stream));
        }
        serves(&gateway);
    }
    for (path, mut stream) in waiting {
        let all = closed(&mut stream);
        if path == "/half" {
            assert!(all.ends_with(b"hel"), "{}", String::from_utf8_lossy(&all));
        } else {
            let reply = Reply::parse(&all);
            assert_eq!((reply.status, reply.code().as_str()), (504, "upstream-timeout"), "{path}");
        }
    }
    assert!(memory(&gateway).saturating_sub(before) < GROWTH_MAX, "{} KiB", memory(&gateway).saturating_sub(before));
}

#[test]
fn an_upstream_that_does_not_read_a_body_ends_by_head() {
    let upstream = Upstream::raw(|mut stream, number, seen| {
        // It takes the head, and leaves the body where it is.
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or(0) == 1 {
            head.push(byte[0]);
        }
        if head.starts_with(b"GET") {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
            return;
        }
        seen.lock().unwrap().push(crate::support::Seen { connection: number, ..Default::default() });
        std::thread::sleep(PATIENCE);
    });
    let gateway = gateway(&upstream, "timeouts: { body_idle: 20s }", ", timeouts: { head: 1s }");
    let before = memory(&gateway);
    let mut uploads: Vec<TcpStream> = (0..10).map(|_| connect(&gateway)).collect();
    for stream in &mut uploads {
        stream.set_nonblocking(true).unwrap();
        let _ = stream.write(b"PUT /r/up/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000000\r\n\r\n");
        let part = vec![b'x'; 1 << 20];
        while stream.write(&part).is_ok() {}
        stream.set_nonblocking(false).unwrap();
    }
    serves(&gateway);
    for stream in &mut uploads {
        assert_eq!(Reply::parse(&closed(stream)).status, 504);
    }
    assert!(memory(&gateway).saturating_sub(before) < GROWTH_MAX, "{} KiB", memory(&gateway).saturating_sub(before));
}
