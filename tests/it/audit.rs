//! The audit log: one record for every request, whatever becomes of it, and what a full or broken sink means.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::forwarding::gateway;
use crate::support::{Gateway, PATIENCE, Reply, Upstream, eventually, exchange, free_port, postern};

#[test]
fn a_record_says_who_asked_what_of_whom_and_how_it_went() {
    let upstream = Upstream::ok();
    let config =
        format!("resources:\n  up: {{ base_url: \"{}/base\", allow_http: true, auth: {{ bearer: \"${{env:T}}\" }} }}\n", upstream.url());
    let gateway = Gateway::start_with(&config, &[("T", "a-token-for-the-record")]);
    let fields = "X-Request-Id: my-id\r\nTraceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n";
    gateway.send("POST", "/r/up/a%20b?x=1", fields, b"hello");
    let record = gateway.records(1).remove(0);
    for (key, value) in [
        ("id", "my-id"),
        ("trace", "4bf92f3577b34da6a3ce929d0e0e4736"),
        ("client", "anonymous"),
        ("resource", "up"),
        ("method", "POST"),
        ("path", "/r/up/a%20b"),
        ("query", "x=1"),
        ("answered_by", "upstream"),
    ] {
        assert_eq!(record[key], value, "{key}: {record}");
    }
    for (key, value) in [("status", 200), ("attempts", 1), ("bytes_in", 5), ("bytes_out", 11)] {
        assert_eq!(record[key], value, "{key}: {record}");
    }
    let time = record["time"].as_str().unwrap();
    assert!(time.len() == 24 && time.ends_with('Z'), "{time}");
    assert!(record["timings"]["total"].as_u64().unwrap() >= record["timings"]["head"].as_u64().unwrap(), "{record}");
    assert_eq!(record["credential"].as_str().unwrap().len(), 16);
    assert_eq!(record["config"].as_str().unwrap().len(), 12);
    assert!(record.get("error").is_none());
    // The same credential has the same fingerprint, for as long as the process lives.
    gateway.get("/r/up/b");
    assert_eq!(gateway.records(2)[1]["credential"], record["credential"]);
}

/// hyper sends no body to HEAD, and never asks for one.
#[test]
fn a_refusal_of_head_is_recorded_as_what_it_is() {
    for sync in ["batch", "always"] {
        let upstream = Upstream::ok();
        let config = format!(
            "resources: {{ up: {{ base_url: \"{}\" }} }}\naudit: {{ sync: {sync}, sinks: [ {{ file: {{ path: audit.jsonl }} }} ] }}\n",
            upstream.url()
        );
        let gateway = Gateway::start(&config);
        let all = gateway.raw(b"HEAD /r/none/x HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        let text = String::from_utf8(all).unwrap();
        assert!(text.starts_with("HTTP/1.1 404 ") && text.ends_with("\r\n\r\n"), "{text}");
        let length: usize = crate::support::field(&text, "content-length").unwrap().parse().unwrap();
        assert!(length > 100, "{text}");
        let record = &gateway.records(1)[0];
        assert_eq!((record["status"].as_u64(), record["error"].as_str()), (Some(404), Some("unknown-resource")), "{sync}");
    }
}

#[test]
fn every_outcome_has_exactly_one_record() {
    let upstream = Upstream::ok();
    let gateway = gateway(&upstream, "");
    let host = "Host: localhost\r\n";
    let mut sent = 0;
    for (bytes, status, error) in [
        (format!("GET /r/up/a HTTP/1.1\r\n{host}\r\n"), 200, None),
        (format!("GET /r/nope HTTP/1.1\r\n{host}\r\n"), 404, Some("unknown-resource")),
        (format!("GET /r/up/../x HTTP/1.1\r\n{host}\r\n"), 400, Some("bad-path")),
        (format!("TRACE /r/up/a HTTP/1.1\r\n{host}\r\n"), 405, Some("method-not-allowed")),
        ("GET /r/up/a HTTP/1.1\r\n\r\n".to_owned(), 400, Some("bad-request")),
        ("GET /r/up/a HTTP/9.9\r\n\r\n".to_owned(), 400, Some("bad-request")),
        (format!("GET /r/up/a HTTP/1.1\r\n{host}X: {}\r\n\r\n", "a".repeat(70_000)), 431, Some("headers-too-large")),
        (format!("GET /r/up/a HTTP/1.1\r\n{host}Via: 1.1 under-test\r\n\r\n"), 508, Some("loop")),
    ] {
        sent += 1;
        let bytes = bytes.replacen("\r\n", "\r\nConnection: close\r\n", 1);
        let reply = Reply::parse(&gateway.raw(bytes.as_bytes()));
        assert_eq!(reply.status, status, "{}", &bytes[..60.min(bytes.len())]);
        let records = gateway.records(sent);
        assert_eq!(records.len(), sent);
        let record = records.last().unwrap();
        assert_eq!((&record["status"], record["error"].as_str()), (&status.into(), error), "{record}");
        assert_eq!(reply.field("x-request-id"), record["id"].as_str());
    }
}

#[test]
fn a_client_that_leaves_before_the_head_is_499_and_within_the_body_client_gone() {
    let upstream = Upstream::answering(|seen, stream| {
        if seen.target().ends_with("/body") {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nhello").unwrap();
        }
        std::thread::sleep(PATIENCE);
        false
    });
    let gateway = gateway(&upstream, "");
    for (n, (path, status)) in [("head", 499), ("body", 200)].into_iter().enumerate() {
        let mut stream = TcpStream::connect(("127.0.0.1", gateway.port)).unwrap();
        stream.write_all(format!("GET /r/up/{path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes()).unwrap();
        eventually(|| (upstream.seen().len() == n + 1).then_some(())).unwrap();
        if path == "body" {
            let _ = stream.read(&mut [0; 512]).unwrap();
        }
        drop(stream);
        let record = gateway.records(n + 1).pop().unwrap();
        assert_eq!((&record["status"], &record["error"]), (&status.into(), &"client-gone".into()), "{record}");
    }
}

#[test]
fn parameters_are_redacted_by_rule_in_any_spelling() {
    let upstream = Upstream::ok();
    let config = format!(
        "resources: {{ up: {{ base_url: \"{}\" }} }}\naudit: {{ redact: {{ params: [token, Sig] }}, sinks: [ {{ file: {{ path: audit.jsonl }} }} ] }}\n",
        upstream.url()
    );
    let gateway = Gateway::start(&config);
    gateway.get("/r/up/a?x=1&token=hidden-1&%74oken=hidden-2&SIG=hidden-3&y=token");
    let record = gateway.records(1).remove(0);
    assert_eq!(record["query"], "x=1&token=[redacted]&%74oken=[redacted]&SIG=[redacted]&y=token");
    // The upstream gets what the client sent.
    assert_eq!(upstream.last().target(), "/a?x=1&token=hidden-1&%74oken=hidden-2&SIG=hidden-3&y=token");
}

/// Sends requests with long queries until one is answered with another status, or `most` are through.
fn fill(gateway: &Gateway, most: usize) -> (usize, u16) {
    let mut stream = TcpStream::connect(("127.0.0.1", gateway.port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = format!("GET /r/up/a?{} HTTP/1.1\r\nHost: localhost\r\n\r\n", "q".repeat(8000));
    for sent in 0..most {
        stream.write_all(request.as_bytes()).unwrap();
        let mut part = [0; 4096];
        let read = stream.read(&mut part).unwrap();
        let status = String::from_utf8_lossy(&part[9..12.min(read)]).parse().unwrap();
        if status != 200 {
            return (sent, status);
        }
    }
    (most, 200)
}

fn full(on_full: &str, upstream: &Upstream, admin: u16) -> Gateway {
    Gateway::start(&format!(
        "server: {{ listen: \"127.0.0.1:{{port}}\", workers: 1 }}\nadmin: {{ listen: \"127.0.0.1:{admin}\" }}\n\
         resources: {{ up: {{ base_url: \"{}\" }} }}\naudit: {{ on_full: {on_full}, sinks: [ {{ file: {{ path: /dev/full }} }} ] }}\n",
        upstream.url()
    ))
}

fn admin(port: u16, path: &str) -> Reply {
    let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    Reply::parse(&exchange(TcpStream::connect(("127.0.0.1", port)).unwrap(), request.as_bytes()))
}

#[test]
fn a_full_disk_stops_calls_before_the_upstream_sees_them() {
    let upstream = Upstream::ok();
    let port = free_port();
    let gateway = full("block", &upstream, port);
    let (served, status) = fill(&gateway, 20_000);
    assert_eq!(status, 503, "after {served}");
    assert_eq!(upstream.seen().len(), served, "the upstream was called without room for a record");
    let began = Instant::now();
    let reply = gateway.get(&format!("/r/up/a?{}", "q".repeat(8000)));
    assert_eq!((reply.status, reply.code().as_str()), (503, "audit-unavailable"));
    assert!(reply.field("retry-after").is_some());
    assert!(began.elapsed() < PATIENCE / 2, "the wait is bounded");
    assert_eq!(admin(port, "/readyz").status, 503);
    assert_eq!(admin(port, "/healthz").status, 200);
    assert!(gateway.stderr().contains("audit log cannot be written"), "{}", gateway.stderr());
}

#[test]
fn a_full_disk_drops_records_where_that_was_chosen() {
    let upstream = Upstream::ok();
    let port = free_port();
    let gateway = full("drop", &upstream, port);
    let dropped = || {
        let page = admin(port, "/metrics").text();
        let line = page.lines().find(|l| l.starts_with("postern_audit_dropped_total")).unwrap().to_owned();
        line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()
    };
    assert_eq!(dropped(), 0);
    assert_eq!(fill(&gateway, 3000), (3000, 200));
    assert!(dropped() > 0);
}

#[test]
fn after_kill_9_every_answer_that_arrived_has_its_record_if_sync_is_always() {
    let upstream = Upstream::ok();
    for round in 0..5 {
        let gateway = Gateway::start(&format!(
            "resources: {{ up: {{ base_url: \"{}\" }} }}\naudit: {{ sync: always, sinks: [ {{ file: {{ path: audit.jsonl }} }} ] }}\n",
            upstream.url()
        ));
        let port = gateway.port;
        let clients: Vec<_> = (0..4)
            .map(|client| {
                std::thread::spawn(move || {
                    let mut answered = Vec::new();
                    for n in 0.. {
                        let id = format!("c{client}-{n}");
                        let Ok(stream) = TcpStream::connect(("127.0.0.1", port)) else { break };
                        let request = format!("GET /r/up/a HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: {id}\r\nConnection: close\r\n\r\n");
                        if !exchange(stream, request.as_bytes()).ends_with(b"{\"ok\":true}") {
                            break;
                        }
                        answered.push(id);
                    }
                    answered
                })
            })
            .collect();
        std::thread::sleep(Duration::from_millis(120 + round * 37));
        gateway.signal("KILL");
        let answered: Vec<String> = clients.into_iter().flat_map(|c| c.join().unwrap()).collect();
        assert!(!answered.is_empty());
        let text = fs::read_to_string(gateway.folder.path().join("audit.jsonl")).unwrap();
        for id in answered {
            assert!(text.contains(&format!("\"id\":\"{id}\"")), "{id} was answered and has no record");
        }
    }
}

#[test]
fn a_line_that_a_crash_tore_is_ended_and_the_log_goes_on() {
    let upstream = Upstream::ok();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.jsonl");
    fs::write(&path, "{\"time\":\"2026-01-01T00:00:00.000Z\",\"id\":\"torn").unwrap();
    let mut gateway = Gateway::start(&format!(
        "resources: {{ up: {{ base_url: \"{}\" }} }}\naudit: {{ sinks: [ {{ file: {{ path: \"{}\" }} }} ] }}\n",
        upstream.url(),
        path.display()
    ));
    gateway.get("/r/up/a");
    gateway.stop();
    let text = fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert!(serde_json::from_str::<serde_json::Value>(lines[1]).is_ok(), "{text}");
}

/// All lines of the log and of what was put aside.
fn lines(folder: &Path) -> Vec<String> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        if entry.file_name().to_string_lossy().starts_with("audit.jsonl") {
            let text = fs::read_to_string(entry.path()).unwrap();
            assert!(text.is_empty() || text.ends_with('\n'), "a torn line in {:?}", entry.path());
            all.extend(text.lines().map(str::to_owned));
        }
    }
    all
}

#[test]
fn rotation_loses_and_doubles_nothing() {
    let upstream = Upstream::ok();
    let mut gateway = Gateway::start(&format!(
        "resources: {{ up: {{ base_url: \"{}\" }} }}\naudit: {{ sinks: [ {{ file: {{ path: audit.jsonl, rotate: {{ size: 4KiB, keep: 1000 }} }} }} ] }}\n",
        upstream.url()
    ));
    const BATCHES: usize = 8;
    const EACH: usize = 25;
    for batch in 0..BATCHES {
        for n in 0..EACH {
            gateway.send("GET", "/r/up/a", &format!("X-Request-Id: b{batch}-{n}\r\n"), b"");
        }
        gateway.records(1);
        std::thread::sleep(Duration::from_millis(300));
    }
    gateway.stop();
    let files =
        fs::read_dir(gateway.folder.path()).unwrap().flatten().filter(|e| e.file_name().to_string_lossy().starts_with("audit")).count();
    assert!(files > 1, "nothing was rotated");
    let all = lines(gateway.folder.path());
    assert_eq!(all.len(), BATCHES * EACH);
    for batch in 0..BATCHES {
        for n in 0..EACH {
            let id = format!("\"id\":\"b{batch}-{n}\"");
            assert_eq!(all.iter().filter(|l| l.contains(&id)).count(), 1, "{id}");
        }
    }
}

#[test]
fn rotation_keeps_as_many_as_it_was_told() {
    let upstream = Upstream::ok();
    let mut gateway = Gateway::start(&format!(
        "resources: {{ up: {{ base_url: \"{}\" }} }}\naudit: {{ sync: always, sinks: [ {{ file: {{ path: audit.jsonl, rotate: {{ size: 1KiB, keep: 2 }} }} }} ] }}\n",
        upstream.url()
    ));
    for _ in 0..40 {
        gateway.get("/r/up/a");
    }
    gateway.stop();
    let files =
        fs::read_dir(gateway.folder.path()).unwrap().flatten().filter(|e| e.file_name().to_string_lossy().starts_with("audit")).count();
    assert_eq!(files, 3);
}

#[test]
fn a_file_that_others_rotate_is_opened_anew() {
    let upstream = Upstream::ok();
    let gateway = gateway(&upstream, "");
    gateway.get("/r/up/a");
    gateway.records(1);
    let path = gateway.folder.path().join("audit.jsonl");
    fs::rename(&path, gateway.folder.path().join("audit.jsonl.aside")).unwrap();
    std::thread::sleep(Duration::from_millis(1100));
    gateway.get("/r/up/b");
    let records = gateway.records(1);
    assert_eq!((records.len(), &records[0]["path"]), (1, &"/r/up/b".into()));
}

#[test]
fn only_the_owner_may_read_the_log() {
    use std::os::unix::fs::PermissionsExt as _;
    let upstream = Upstream::ok();
    let gateway = gateway(&upstream, "");
    gateway.get("/r/up/a");
    gateway.records(1);
    let mode = fs::metadata(gateway.folder.path().join("audit.jsonl")).unwrap().permissions().mode();
    assert_eq!(mode & 0o077, 0, "{mode:o}");
}

#[test]
fn lines_go_to_standard_output_and_to_files_at_once() {
    let upstream = Upstream::ok();
    let mut gateway = Gateway::start(&format!(
        "resources: {{ up: {{ base_url: \"{}\" }} }}\naudit: {{ sinks: [ {{ stdout: {{}} }}, {{ file: {{ path: audit.jsonl }} }} ] }}\n",
        upstream.url()
    ));
    gateway.get("/r/up/a");
    gateway.stop();
    assert_eq!(gateway.stdout(), fs::read_to_string(gateway.folder.path().join("audit.jsonl")).unwrap());
    assert_eq!(gateway.stdout().lines().count(), 1);
}

#[test]
fn nothing_starts_without_its_log() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("postern.yaml");
    fs::write(
        &file,
        "audit: { sinks: [ { file: { path: /proc/nope/audit.jsonl } } ] }\nresources: { a: { base_url: \"http://127.0.0.1:1\" } }\n",
    )
    .unwrap();
    let output = postern().args(["run", "--config"]).arg(&file).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("/proc/nope/audit.jsonl cannot be opened"), "{output:?}");
}
