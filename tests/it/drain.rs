//! The end of the process: a drain that breaks nothing that was accepted.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::forwarding::gateway;
use crate::support::{Gateway, PATIENCE, Upstream, eventually, exchange, field, find, free_port};

/// How often the gateway is told to end under load.
/// One round in so many has clients that do not heed `Connection: close`.
const STUBBORN_EVERY: usize = 10;
const ROUNDS: usize = 50;
/// How many rounds run at a time.
const AT_A_TIME: usize = 4;
/// Connections that carry requests in each round.
const CLIENTS: usize = 6;

/// Answers after up to 20 ms, half of the bodies in two pieces.
fn unhurried() -> Upstream {
    let turn = AtomicUsize::new(0);
    Upstream::answering(move |_, stream| {
        let turn = turn.fetch_add(1, Ordering::Relaxed) as u64;
        std::thread::sleep(Duration::from_millis(turn * 7 % 20));
        if turn.is_multiple_of(2) {
            return stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone").is_ok();
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\ndo\r\n").unwrap();
        std::thread::sleep(Duration::from_millis(turn * 3 % 10));
        stream.write_all(b"2\r\nne\r\n0\r\n\r\n").is_ok()
    })
}

/// Sends requests over kept connections until nobody accepts any more. Returns how many were answered; what broke, otherwise.
fn load(port: u16, stop_at_close: bool) -> Result<usize, String> {
    let mut answered = 0;
    while let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        loop {
            let sent = stream.write_all(b"POST /r/up/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc");
            let mut all = Vec::new();
            let mut part = [0; 1024];
            while find(&all, b"done").is_none() && !all.ends_with(b"0\r\n\r\n") {
                match stream.read(&mut part) {
                    Ok(read) if read > 0 => all.extend_from_slice(&part[..read]),
                    end => {
                        let got = String::from_utf8_lossy(&all);
                        return Err(format!("after {answered} answers: sent {sent:?}, then {end:?} after {got:?}"));
                    }
                }
            }
            let head = String::from_utf8_lossy(&all).into_owned();
            if !head.starts_with("HTTP/1.1 200 OK") {
                return Err(head);
            }
            answered += 1;
            if field(&head, "connection") == Some("close") {
                if stop_at_close {
                    return Ok(answered);
                }
                break;
            }
        }
    }
    Ok(answered)
}

/// One round: load, TERM after `moment`, and nothing may break. Returns how many requests were answered. With `stubborn`
/// half of the clients come back until they are refused, which keeps the listeners open as long as they may be; else all
/// heed `Connection: close` as the sign to go elsewhere, and the drain ends with the last of them.
fn round(upstream: &Upstream, moment: Duration, stubborn: bool) -> usize {
    let drain = if stubborn { "10s" } else { "60s" };
    let config = format!(
        "resources:\n  up: {{ base_url: \"{}\" }}\nserver: {{ listen: \"127.0.0.1:{{port}}\", workers: 2, timeouts: {{ drain: {drain} }} }}\n",
        upstream.url()
    );
    let mut gateway = Gateway::start(&config);
    let port = gateway.port;
    let clients: Vec<_> = (0..CLIENTS).map(|n| std::thread::spawn(move || load(port, !stubborn || n % 2 == 0))).collect();
    std::thread::sleep(moment);
    gateway.signal("TERM");
    let answered = clients.into_iter().map(|c| c.join().unwrap().unwrap_or_else(|broken| panic!("{broken}\n{}", gateway.stderr()))).sum();
    assert_eq!(gateway.wait(), Some(0), "{}", gateway.stderr());
    assert_eq!(gateway.records(answered).len(), answered);
    answered
}

#[test]
fn term_at_any_moment_under_load_breaks_no_accepted_request() {
    let upstream = Arc::new(unhurried());
    let next = Arc::new(AtomicUsize::new(0));
    let threads: Vec<_> = (0..AT_A_TIME)
        .map(|_| {
            let (upstream, next) = (upstream.clone(), next.clone());
            std::thread::spawn(move || {
                let mut answered = 0;
                loop {
                    let turn = next.fetch_add(1, Ordering::Relaxed);
                    if turn >= ROUNDS {
                        return answered;
                    }
                    answered += round(&upstream, Duration::from_micros(turn as u64 * 1700), turn % STUBBORN_EVERY == 0);
                }
            })
        })
        .collect();
    let answered: usize = threads.into_iter().map(|t| t.join().unwrap()).sum();
    assert!(answered > ROUNDS * CLIENTS, "{answered}");
}

#[test]
fn while_it_drains_probes_say_so_and_answers_close() {
    let release = Arc::new(AtomicBool::new(false));
    let held = release.clone();
    let upstream = Upstream::answering(move |_, stream| {
        let until = Instant::now() + PATIENCE;
        while !held.load(Ordering::Relaxed) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").is_ok()
    });
    let admin = free_port();
    let mut gateway = gateway(&upstream, &format!("admin: {{ listen: \"127.0.0.1:{admin}\" }}\n"));
    let probe = || {
        let stream = TcpStream::connect(("127.0.0.1", admin)).unwrap();
        exchange(stream, b"GET /readyz HTTP/1.1\r\nHost: probe\r\nConnection: close\r\n\r\n")
    };
    assert!(probe().starts_with(b"HTTP/1.1 200"));
    let mut waiting = TcpStream::connect(("127.0.0.1", gateway.port)).unwrap();
    waiting.write_all(b"GET /r/up/a HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    eventually(|| (upstream.seen().len() == 1).then_some(())).unwrap();
    gateway.signal("INT");
    eventually(|| probe().starts_with(b"HTTP/1.1 503").then_some(())).expect("not ready once it drains");
    // Health is not readiness: an instance that drains is not to be restarted.
    let health =
        exchange(TcpStream::connect(("127.0.0.1", admin)).unwrap(), b"GET /healthz HTTP/1.1\r\nHost: p\r\nConnection: close\r\n\r\n");
    assert!(health.starts_with(b"HTTP/1.1 200"));
    // The listener closes once it is quiet; what is under way goes on.
    // Each look is a connection that keeps it open, so they are far apart.
    let closed = || {
        std::thread::sleep(Duration::from_millis(1200));
        TcpStream::connect(("127.0.0.1", gateway.port)).is_err().then_some(())
    };
    eventually(closed).expect("the listener closes");
    release.store(true, Ordering::Relaxed);
    let mut answer = Vec::new();
    waiting.read_to_end(&mut answer).unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200") && answer.ends_with(b"ok"));
    assert_eq!(field(&String::from_utf8_lossy(&answer), "connection"), Some("close"));
    assert_eq!(gateway.wait(), Some(0));
}

#[test]
fn a_second_signal_ends_at_once_and_the_record_is_kept() {
    let upstream = Upstream::answering(|_, _| {
        std::thread::sleep(PATIENCE);
        false
    });
    for (first, second) in [("TERM", "TERM"), ("INT", "INT"), ("TERM", "INT")] {
        let mut gateway = gateway(&upstream, "");
        let mut waiting = TcpStream::connect(("127.0.0.1", gateway.port)).unwrap();
        let before = upstream.seen().len();
        waiting.write_all(b"GET /r/up/a HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        eventually(|| (upstream.seen().len() > before).then_some(())).unwrap();
        gateway.signal(first);
        eventually(|| gateway.stderr().contains("draining").then_some(())).expect("it says that it drains");
        let began = Instant::now();
        gateway.signal(second);
        assert_eq!(gateway.wait(), Some(0));
        assert!(began.elapsed() < PATIENCE / 2);
        assert!(gateway.stderr().contains("second time"), "{}", gateway.stderr());
        let record = gateway.records(1).pop().unwrap();
        assert_eq!((&record["status"], &record["error"]), (&499.into(), &"draining".into()), "{record}");
    }
}

#[test]
fn a_drain_ends_at_its_deadline() {
    let upstream = Upstream::answering(|_, _| {
        std::thread::sleep(PATIENCE);
        false
    });
    let config = format!(
        "resources:\n  up: {{ base_url: \"{}\" }}\nserver: {{ listen: \"127.0.0.1:{{port}}\", workers: 1, timeouts: {{ drain: 300ms }} }}\n",
        upstream.url()
    );
    let mut gateway = Gateway::start(&config);
    let mut waiting = TcpStream::connect(("127.0.0.1", gateway.port)).unwrap();
    waiting.write_all(b"GET /r/up/a HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    eventually(|| (upstream.seen().len() == 1).then_some(())).unwrap();
    assert_eq!(gateway.stop(), Some(0));
    assert!(gateway.stderr().contains("drain is over"), "{}", gateway.stderr());
}

#[test]
fn an_idle_gateway_ends_soon_and_leaves_no_socket_file() {
    let upstream = Upstream::ok();
    let config = format!(
        "resources:\n  up: {{ base_url: \"{}\" }}\nserver: {{ listen: [\"127.0.0.1:{{port}}\", \"unix:{{dir}}/s\"] }}\n",
        upstream.url()
    );
    let mut gateway = Gateway::start(&config);
    let socket = gateway.folder.path().join("s");
    assert!(socket.exists());
    let _idle = TcpStream::connect(("127.0.0.1", gateway.port)).unwrap();
    assert_eq!(gateway.stop(), Some(0));
    assert!(!socket.exists());
}

#[test]
fn an_address_in_use_is_an_error_and_not_a_shared_port() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("postern.yaml");
    std::fs::write(
        &file,
        format!("server: {{ listen: \"127.0.0.1:{port}\" }}\nresources: {{ a: {{ base_url: \"http://127.0.0.1:1\" }} }}\n"),
    )
    .unwrap();
    let output = crate::support::postern().args(["run", "--config"]).arg(&file).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("in use"), "{output:?}");
    // And a second gateway does not share the port with the first.
    let upstream = Upstream::ok();
    let first = gateway(&upstream, "");
    std::fs::write(
        &file,
        format!("server: {{ listen: \"127.0.0.1:{}\" }}\nresources: {{ a: {{ base_url: \"http://127.0.0.1:1\" }} }}\n", first.port),
    )
    .unwrap();
    let output = crate::support::postern().args(["run", "--config"]).arg(&file).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
}
