//! A changed configuration takes over while requests are under way: nothing fails, nothing is mixed, and what did not
//! change is not touched. A wrong one changes nothing and says why.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::Value;

use crate::support::{Gateway, PATIENCE, Reply, Seen, Upstream, eventually, exchange, free_port};

/// A gateway with an admin listener, whose configuration can be written anew.
struct Running {
    gateway: Gateway,
    admin: u16,
    head: String,
}

impl Running {
    fn start(body: &str, more: &str) -> Self {
        let admin = free_port();
        let head = format!("admin: {{ listen: \"127.0.0.1:{admin}\"{more} }}\n");
        let gateway = Gateway::start_with(&format!("{head}{body}"), &[("ADMIN", "the-admin-token")]);
        Self { gateway, admin, head }
    }

    /// Replaces the configuration in one step.
    fn write(&self, body: &str) {
        self.write_raw(&format!(
            "{}{body}\naudit: {{ sinks: [ {{ file: {{ path: audit.jsonl }} }} ] }}\n\nserver: {{ listen: \"127.0.0.1:{}\", name: under-test, workers: 2 }}\n",
            self.head, self.gateway.port
        ));
    }

    fn write_raw(&self, text: &str) {
        replace(&self.path("postern.yaml"), text);
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.gateway.folder.path().join(name)
    }

    fn call(&self, method: &str, path: &str, fields: &str) -> Reply {
        let head =
            format!("{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nConnection: close\r\nContent-Length: 0\r\n{fields}\r\n", self.admin);
        Reply::parse(&exchange(TcpStream::connect(("127.0.0.1", self.admin)).unwrap(), head.as_bytes()))
    }

    fn state(&self) -> Value {
        self.call("GET", "/api/config", "").json()
    }

    fn reload(&self) -> Reply {
        self.call("POST", "/api/reload", "")
    }

    fn metric(&self, line: &str) -> u64 {
        let page = self.call("GET", "/metrics", "").text();
        page.lines().find_map(|l| l.strip_prefix(line)).map_or(0, |n| n.trim().parse().unwrap())
    }

    /// How many resources all reloads so far have added, changed and removed. A file that is written is noticed by itself,
    /// so that whoever then asks for a reload may find the work done.
    fn moved(&self) -> [u64; 3] {
        let log = self.gateway.stderr();
        let lines = log.lines().filter(|line| line.contains("reloaded ("));
        lines.fold([0; 3], |all, line| {
            let number = |key| line.split(key).nth(1).and_then(|n| n.split_whitespace().next()).map_or(0, |n| n.parse::<u64>().unwrap());
            let one = ["added=", "changed=", "removed="].map(number);
            std::array::from_fn(|at| all[at] + one[at])
        })
    }

    /// Waits until the gateway has this many reloads of a kind.
    fn wait_for(&self, result: &str, count: u64) {
        let line = format!("postern_config_reloads_total{{result=\"{result}\"}}");
        eventually(|| (self.metric(&line) >= count).then_some(()))
            .unwrap_or_else(|| panic!("no {result} reload: {}", self.gateway.stderr()));
    }
}

fn replace(path: &Path, text: &str) {
    let next = path.with_extension("next");
    fs::write(&next, text).unwrap();
    fs::rename(&next, path).unwrap();
}

fn resource(upstream: &Upstream, more: &str) -> String {
    format!("resources: {{ a: {{ base_url: \"{}\"{more} }} }}", upstream.url())
}

#[test]
fn a_changed_file_takes_over_by_itself_and_a_broken_one_changes_nothing_until_it_is_mended() {
    let upstream = Upstream::ok();
    let running = Running::start(&resource(&upstream, ", headers: { X-V: one }"), "");
    let sent = || {
        assert_eq!(running.gateway.get("/r/a").status, 200);
        upstream.last().field("x-v").unwrap().to_owned()
    };
    assert_eq!(sent(), "one");
    running.write(&resource(&upstream, ", headers: { X-V: two }"));
    eventually(|| (sent() == "two").then_some(())).expect("the change took over");
    let good = running.state();

    running.write(&resource(&upstream, ", headers: { X-V: three }, timeuots: {}"));
    running.wait_for("refused", 1);
    assert_eq!(sent(), "two");
    let state = running.state();
    assert_eq!(state["version"], good["version"]);
    assert_eq!(state["last_reload"]["result"], "refused");
    assert_eq!(state["last_reload"]["problems"][0]["hint"], "did you mean `timeouts`?", "{state}");
    for part in ["what runs goes on", "unknown key `timeuots`", "did you mean `timeouts`?", "postern.yaml:2:"] {
        assert!(running.gateway.stderr().contains(part), "{part} in {}", running.gateway.stderr());
    }
    // The same broken file is not judged again and again.
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(running.metric("postern_config_reloads_total{result=\"refused\"}"), 1);

    running.write(&resource(&upstream, ", headers: { X-V: three }"));
    eventually(|| (sent() == "three").then_some(())).expect("the mended file took over");
    let versions: Vec<String> = running.gateway.records(4).iter().map(|r| r["config"].as_str().unwrap().to_owned()).collect();
    assert!(versions.first() != versions.last(), "{versions:?}");
}

#[test]
fn an_emptied_or_vanished_configuration_takes_nothing_away() {
    let upstream = Upstream::ok();
    let body = resource(&upstream, "");
    let running = Running::start(&body, "");
    running.write_raw("");
    running.wait_for("refused", 1);
    assert!(running.gateway.stderr().contains("the file is empty"), "{}", running.gateway.stderr());
    fs::remove_file(running.path("postern.yaml")).unwrap();
    running.wait_for("refused", 2);
    assert_eq!(running.gateway.get("/r/a").status, 200);
    running.write(&body);
    running.wait_for("applied", 1);
}

#[test]
fn hup_and_the_api_reload_at_once_and_the_api_tells_what_became_of_it() {
    let upstream = Upstream::ok();
    let running = Running::start(&resource(&upstream, ""), "");
    let reply = running.reload();
    assert_eq!((reply.status, reply.json()["changed"].clone()), (200, 0.into()));
    assert_eq!(reply.json()["version"], running.state()["version"]);
    assert!(reply.json()["version"].as_str().is_some_and(|v| v.len() == 12));

    running.write(&format!("{}\n  b: 1", resource(&upstream, "")));
    let reply = running.reload();
    assert_eq!(reply.status, 422);
    assert_eq!(reply.json()["ok"], false);
    assert!(reply.json()["problems"][0]["line"].is_u64() && reply.json()["problems"][0]["message"].is_string(), "{}", reply.text());

    running.write(&resource(&upstream, ", headers: { X-V: two }"));
    running.gateway.signal("HUP");
    eventually(|| (running.moved() == [0, 1, 0]).then_some(())).expect("the change took over");
    assert!(running.gateway.stderr().contains("reloaded ("));
    assert_eq!(running.gateway.get("/r/a").status, 200);
    assert_eq!(upstream.last().field("x-v"), Some("two"));
}

#[test]
fn what_a_running_gateway_cannot_change_is_refused_whole() {
    let upstream = Upstream::ok();
    let running = Running::start(&resource(&upstream, ", headers: { X-V: one }"), "");
    let port = running.gateway.port;
    let other = free_port();
    let server = format!("server: {{ listen: \"127.0.0.1:{port}\", name: under-test, workers: 2 }}");
    let admin = format!("admin: {{ listen: \"127.0.0.1:{}\" }}", running.admin);
    let audit = "audit: { sinks: [ { file: { path: audit.jsonl } } ] }".to_owned();
    for (key, changed) in [
        (
            "server.listen",
            [format!("server: {{ listen: \"127.0.0.1:{other}\", name: under-test, workers: 2 }}"), admin.clone(), audit.clone()],
        ),
        (
            "server.listen",
            [format!("server: {{ listen: [\"127.0.0.1:{port}\", \"127.0.0.1:{other}\"], workers: 2 }}"), admin.clone(), audit.clone()],
        ),
        ("server.workers", [format!("server: {{ listen: \"127.0.0.1:{port}\", workers: 1 }}"), admin.clone(), audit.clone()]),
        ("admin.listen", [server.clone(), format!("admin: {{ listen: \"127.0.0.1:{other}\" }}"), audit.clone()]),
        ("health", [server.clone(), format!("{admin}\nhealth: {{ listen: \"127.0.0.1:{other}\" }}"), audit.clone()]),
        ("audit", [server.clone(), admin.clone(), "audit: { sinks: [ stdout: {} ] }".into()]),
    ] {
        running.write_raw(&format!("{}\n{}\n", resource(&upstream, ", headers: { X-V: two }"), changed.join("\n")));
        let reply = running.reload();
        assert_eq!(reply.status, 422, "{}", reply.text());
        let problem = reply.json()["problems"][0].clone();
        assert_eq!(problem["message"], format!("`{key}` has changed, which needs a restart"), "{}", reply.text());
        assert!(
            problem["line"].as_u64().unwrap() >= 1 && problem["path"].as_str().unwrap().starts_with(key.split('.').next().unwrap()),
            "{problem}"
        );
        assert_eq!(running.gateway.get("/r/a").status, 200);
        assert_eq!(upstream.last().field("x-v"), Some("one"));
    }
    // What belongs to each request follows.
    let server = format!("server: {{ listen: \"127.0.0.1:{port}\", name: another, workers: 2, limits: {{ body: 4B }} }}");
    running.write_raw(&format!("{}\n{server}\n{admin}\n{audit}\n", resource(&upstream, "")));
    assert_eq!(running.reload().status, 200);
    assert_eq!(running.gateway.send("POST", "/r/a", "", b"12345").status, 413);
    assert_eq!(running.gateway.send("POST", "/r/a", "", b"1234").status, 200);
    assert!(upstream.last().field("via").unwrap().contains("another"));
}

#[test]
fn the_admin_api_needs_its_token_and_refuses_other_sites() {
    let upstream = Upstream::ok();
    let running = Running::start(&resource(&upstream, ""), ", token: \"${env:ADMIN}\"");
    for (fields, status) in [
        ("", 401),
        ("Authorization: Bearer wrong\r\n", 401),
        ("Authorization: Bearer the-admin-token\r\n", 200),
        ("Authorization: Bearer the-admin-token\r\nOrigin: https://evil.example\r\n", 403),
        ("Authorization: Bearer the-admin-token\r\nSec-Fetch-Site: cross-site\r\n", 403),
    ] {
        assert_eq!(running.call("POST", "/api/reload", fields).status, status, "{fields}");
        assert_eq!(running.call("GET", "/api/config", fields).status, status, "{fields}");
    }
    assert_eq!(running.call("GET", "/readyz", "").status, 200);
    let raw = format!(
        "POST /api/reload HTTP/1.1\r\nHost: evil.example:{}\r\nAuthorization: Bearer the-admin-token\r\nConnection: close\r\n\r\n",
        running.admin
    );
    let reply = Reply::parse(&exchange(TcpStream::connect(("127.0.0.1", running.admin)).unwrap(), raw.as_bytes()));
    assert_eq!(reply.status, 403);
    assert_eq!(running.call("GET", "/api/reload", "Authorization: Bearer the-admin-token\r\n").field("allow"), Some("POST"));
    assert_eq!(running.call("GET", "/api/nothing", "Authorization: Bearer the-admin-token\r\n").status, 404);
    assert!(!running.gateway.stderr().contains("the-admin-token"));
}

#[test]
fn a_secret_follows_its_file_and_an_emptied_or_vanished_one_keeps_its_last_good_value_loudly() {
    let upstream = Upstream::ok();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    fs::write(&file, "the-first-token\n").unwrap();
    let body = resource(&upstream, &format!(", auth: {{ bearer: \"${{file:{}}}\" }}", file.display()));
    let running = Running::start(&body, "");
    let sent = || {
        assert_eq!(running.gateway.get("/r/a").status, 200);
        upstream.last().field("authorization").unwrap().to_owned()
    };
    assert_eq!(sent(), "Bearer the-first-token");
    fs::write(&file, "the-second-token\n").unwrap();
    eventually(|| (sent() == "Bearer the-second-token").then_some(())).expect("the new value was taken");

    for emptied in [true, false] {
        if emptied {
            fs::write(&file, "").unwrap()
        } else {
            fs::remove_file(&file).unwrap()
        }
        eventually(|| (running.state()["stale_secrets"].as_array().unwrap().len() == 1).then_some(())).expect("it is said");
        assert_eq!(sent(), "Bearer the-second-token");
        assert_eq!(running.metric("postern_secrets_stale"), 1);
    }
    let log = running.gateway.stderr();
    assert!(log.contains("has no value any more (the file is empty); its last good one is used"), "{log}");
    // Another change meanwhile keeps it too.
    running.write(&format!("{body}\nvars: {{ a: b }}"));
    assert_eq!(running.reload().status, 200);
    assert_eq!(sent(), "Bearer the-second-token");
    // What never had a value is refused.
    running.write(&body.replace("/token}", "/never}"));
    assert_eq!(running.reload().status, 422);
    running.write(&body);
    fs::write(&file, "the-third-token").unwrap();
    eventually(|| (sent() == "Bearer the-third-token").then_some(())).expect("the new value was taken");
    assert!(running.state()["stale_secrets"].as_array().unwrap().is_empty());
    for token in ["the-first-token", "the-second-token", "the-third-token"] {
        assert!(!running.gateway.stderr().contains(token));
    }
}

#[test]
fn the_admin_token_and_what_the_audit_log_hides_follow_their_files() {
    let upstream = Upstream::ok();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    fs::write(&file, "the-old-admin-token").unwrap();
    let running = Running::start(&resource(&upstream, ""), &format!(", token: \"${{file:{}}}\"", file.display()));
    let status = |token: &str| running.call("GET", "/api/config", &format!("Authorization: Bearer {token}\r\n")).status;
    assert_eq!((status("the-old-admin-token"), status("the-new-admin-token")), (200, 401));
    fs::write(&file, "the-new-admin-token").unwrap();
    eventually(|| (status("the-new-admin-token") == 200).then_some(())).expect("the new token was taken");
    assert_eq!(status("the-old-admin-token"), 401);
    running.gateway.get("/r/a/the-new-admin-token");
    let record = running.gateway.records(1).pop().unwrap();
    assert_eq!(record["path"], "/r/a/[redacted]");
}

#[test]
fn what_did_not_change_keeps_its_connections_and_what_is_gone_gives_them_up() {
    let (kept, gone) = (Upstream::ok(), Upstream::ok());
    let config =
        |header: &str, more: &str| format!("resources: {{ a: {{ base_url: \"{}\", headers: {{ X-V: {header} }} }}{more} }}", kept.url());
    let running = Running::start(&config("one", &format!(", b: {{ base_url: \"{}\" }}", gone.url())), "");
    let mut client = TcpStream::connect(("127.0.0.1", running.gateway.port)).unwrap();
    let mut call = |path: &str| keep_alive(&mut client, path);
    assert_eq!((call("/r/a").status, call("/r/b").status), (200, 200));
    // Only a header of `a` has changed, and `b` is gone.
    running.write(&config("two", ""));
    assert_eq!(running.reload().status, 200);
    assert_eq!(running.moved(), [0, 1, 1]);
    assert_eq!((call("/r/a").status, call("/r/b").status), (200, 404));
    assert_eq!(kept.last().field("x-v"), Some("two"));
    assert_eq!(kept.connections(), 1);
    eventually(|| (gone.closed() == 1).then_some(())).expect("the idle connection was closed");
    // Another way of connecting is another pool.
    running.write(&config("two, X-W: w", "").replace("headers", "http: { max_connections: 7 }, headers"));
    assert_eq!(running.reload().status, 200);
    assert_eq!(running.moved(), [0, 2, 1]);
    assert_eq!(call("/r/a").status, 200);
    assert_eq!(kept.connections(), 2);
    eventually(|| (kept.closed() == 1).then_some(())).expect("the old pool was closed");
    assert_eq!(running.metric("postern_requests_total{resource=\"a\",code=\"200\"}"), 3);
}

#[test]
fn a_request_under_way_ends_with_the_version_that_it_began_with() {
    let (entered, leave) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let (count, gate) = (entered.clone(), leave.clone());
    let upstream = Upstream::answering(move |_, stream| {
        count.fetch_add(1, Ordering::SeqCst);
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\na").unwrap();
        eventually(|| gate.load(Ordering::SeqCst).then_some(())).unwrap();
        stream.write_all(b"b").is_ok()
    });
    let running = Running::start(&resource(&upstream, ""), "");
    let port = running.gateway.port;
    let old = running.state()["version"].clone();
    let waiting = std::thread::spawn(move || {
        let head = format!("GET /r/a HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n");
        Reply::parse(&exchange(TcpStream::connect(("127.0.0.1", port)).unwrap(), head.as_bytes()))
    });
    eventually(|| (entered.load(Ordering::SeqCst) == 1).then_some(())).unwrap();
    running.write("resources: {}");
    assert_eq!(running.reload().status, 200);
    assert_eq!(running.moved(), [0, 0, 1]);
    assert_eq!(running.gateway.get("/r/a").status, 404);
    leave.store(true, Ordering::SeqCst);
    let reply = waiting.join().unwrap();
    assert_eq!((reply.status, reply.text().as_str()), (200, "ab"));
    let records = running.gateway.records(2);
    let served = records.iter().find(|r| r["status"] == 200).unwrap();
    assert_eq!(served["config"], old);
    eventually(|| (upstream.closed() == 1).then_some(())).expect("its connection was not kept");
}

#[test]
fn a_changed_authority_makes_new_connections_trust_it() {
    use crate::support::tls::{Authority, upstream};
    let (first, second) = (Authority::new(), Authority::new());
    let server = upstream(&second.issue("localhost", false), &[&rustls::version::TLS13]);
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    fs::write(&ca, first.pem()).unwrap();
    let running = Running::start(
        &format!("resources: {{ a: {{ base_url: \"https://localhost:{}\", tls: {{ ca: \"{}\" }} }} }}", server.port, ca.display()),
        "",
    );
    assert_eq!(running.gateway.get("/r/a").code(), "upstream-tls");
    replace(&ca, &second.pem());
    eventually(|| (running.gateway.get("/r/a").status == 200).then_some(())).expect("the new authority was taken");
    replace(&ca, "no certificate");
    running.wait_for("refused", 1);
    assert_eq!(running.gateway.get("/r/a").status, 200);
}

/// One request over a connection that stays open.
fn keep_alive(client: &mut TcpStream, path: &str) -> Reply {
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.write_all(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes()).unwrap();
    let mut bytes = Vec::new();
    let mut part = [0; 4096];
    loop {
        let read = client.read(&mut part).unwrap();
        assert!(read > 0, "closed: {}", String::from_utf8_lossy(&bytes));
        bytes.extend_from_slice(&part[..read]);
        let Some(end) = crate::support::find(&bytes, b"\r\n\r\n") else { continue };
        let reply = Reply::parse(&bytes);
        if bytes.len() - end - 4 >= reply.field("content-length").map_or(0, |l| l.parse().unwrap()) {
            return reply;
        }
    }
}

/// Swaps a folder of secrets as Kubernetes does: a new folder, and one link that is renamed over the old one.
fn swap(folder: &Path, version: usize, secret: &str) {
    let name = format!("..v{version}");
    fs::create_dir(folder.join(&name)).unwrap();
    fs::write(folder.join(&name).join("token"), secret).unwrap();
    symlink(&name, folder.join("..data_tmp")).unwrap();
    let old = fs::read_link(folder.join("..data")).ok();
    fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
    if let Some(old) = old {
        fs::remove_dir_all(folder.join(old)).unwrap();
    }
}

const CLIENTS: usize = 64;
const RELOADS: usize = 200;
const SWAPS: usize = 50;

#[test]
fn under_load_two_hundred_reloads_and_fifty_swapped_secrets_fail_no_request_and_mix_no_credential() {
    // The upstream answers 200 only where both places carry the same secret.
    let (mixed, served) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (bad, good) = (mixed.clone(), served.clone());
    let upstream = Upstream::raw(move |mut stream, number, seen| {
        while let Some(request) = Seen::read(&mut stream, number) {
            let header = request.field("authorization").unwrap_or("").strip_prefix("Bearer ").unwrap_or("").to_owned();
            let query = request.target().split("key=").nth(1).unwrap_or("").to_owned();
            let same = !header.is_empty() && header == query && header == request.field("x-key").unwrap_or("");
            if same {
                good.fetch_add(1, Ordering::Relaxed);
                let mut all = seen.lock().unwrap();
                if all.last().is_none_or(|last: &Seen| last.field("authorization") != request.field("authorization")) {
                    all.push(request);
                }
            } else {
                bad.fetch_add(1, Ordering::Relaxed);
            }
            let answer = if same { "HTTP/1.1 200 OK" } else { "HTTP/1.1 418 Mixed" };
            if stream.write_all(format!("{answer}\r\nContent-Length: 2\r\n\r\nok").as_bytes()).is_err() {
                break;
            }
        }
    });
    let secrets = tempfile::tempdir().unwrap();
    swap(secrets.path(), 0, "secret-number-0");
    symlink("..data/token", secrets.path().join("token")).unwrap();
    let reference = format!("${{file:{}}}", secrets.path().join("token").display());
    let config = |turn: usize| {
        let auth = format!(
            "[ {{ bearer: \"{reference}\" }}, {{ api_key: {{ in: query, name: key, value: \"{reference}\" }} }}, {{ api_key: {{ in: header, name: X-Key, value: \"{reference}\" }} }} ]"
        );
        format!("resources: {{ a: {{ base_url: \"{}\", headers: {{ X-Turn: \"{turn}\" }}, auth: {auth} }} }}", upstream.url())
    };
    let running = Running::start(&config(0), "");
    let (done, failures) = (Arc::new(AtomicBool::new(false)), Arc::new(std::sync::Mutex::new(Vec::new())));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let (done, failures, port) = (done.clone(), failures.clone(), running.gateway.port);
            std::thread::spawn(move || {
                let mut client = TcpStream::connect(("127.0.0.1", port)).unwrap();
                while !done.load(Ordering::Relaxed) {
                    let reply = keep_alive(&mut client, "/r/a/x");
                    if reply.status != 200 {
                        failures.lock().unwrap().push(format!("{}\n{}", reply.head, reply.text()));
                        return;
                    }
                }
            })
        })
        .collect();
    let (mut applied, mut refused) = (0, 0);
    for turn in 1..=RELOADS {
        if turn % (RELOADS / SWAPS) == 0 {
            let version = turn / (RELOADS / SWAPS);
            swap(secrets.path(), version, &format!("secret-number-{version}"));
        }
        // Every other configuration is broken, each in one of several ways.
        let broken = turn % 2 == 0;
        match turn % 8 {
            2 => running.write(&format!("{}\n  b: [", config(turn))),
            4 => running.write(&config(turn).replace("base_url", "base_ulr")),
            6 => running.write(&config(turn).replace("/token}", "/nothing}")),
            0 => running.write_raw(""),
            _ => running.write(&config(turn)),
        }
        let status = running.reload().status;
        assert_eq!(status, if broken { 422 } else { 200 }, "turn {turn}");
        if broken { refused += 1 } else { applied += 1 }
    }
    running.write(&config(RELOADS + 1));
    assert_eq!(running.reload().status, 200);
    let last = format!("Bearer secret-number-{SWAPS}");
    eventually(|| upstream.seen().last().is_some_and(|s| s.field("authorization") == Some(&last)).then_some(()))
        .expect("the last secret is in use");
    done.store(true, Ordering::Relaxed);
    clients.into_iter().for_each(|c| c.join().unwrap());
    assert_eq!((applied, refused), (RELOADS / 2, RELOADS / 2));
    assert!(failures.lock().unwrap().is_empty(), "{:?}", failures.lock().unwrap().first());
    assert_eq!(mixed.load(Ordering::Relaxed), 0);
    assert!(served.load(Ordering::Relaxed) > CLIENTS * 10, "{}", served.load(Ordering::Relaxed));
    let used: std::collections::HashSet<String> = upstream.seen().iter().map(|s| s.field("authorization").unwrap().to_owned()).collect();
    // Most of the values were in use for a while; not each need have met a request.
    assert!(used.len() > SWAPS / 2, "{used:?}");
    assert!(!running.gateway.stderr().contains("secret-number"));
}

#[test]
fn of_ten_thousand_resources_of_which_one_changed_one_is_touched() {
    const RESOURCES: usize = 10_000;
    const TURNS: usize = 8;
    let upstream = Upstream::canned("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let config = |turn: usize| {
        let one = |n: usize| {
            let changed = if n == 7 { turn } else { 0 };
            format!(
                "  r{n}: {{ base_url: \"{}/base{n}\", headers: {{ X-Turn: \"{changed}\", X-Common: yes }}, auth: {{ bearer: \"${{env:ADMIN}}\" }} }}\n",
                upstream.url()
            )
        };
        format!("resources:\n{}", (0..RESOURCES).map(one).collect::<String>())
    };
    let running = Running::start(&config(0), "");
    let (done, worst) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let clients: Vec<_> = (0..2)
        .map(|number| {
            let (done, worst, port) = (done.clone(), worst.clone(), running.gateway.port);
            std::thread::spawn(move || {
                let mut client = TcpStream::connect(("127.0.0.1", port)).unwrap();
                let mut calls = 0;
                while !done.load(Ordering::Relaxed) {
                    let began = std::time::Instant::now();
                    let reply = keep_alive(&mut client, &format!("/r/r{}/x", number * 100 + calls % 50));
                    assert_eq!(reply.status, 200, "{}", reply.text());
                    worst.fetch_max(usize::try_from(began.elapsed().as_micros()).unwrap(), Ordering::Relaxed);
                    calls += 1;
                }
                calls
            })
        })
        .collect();
    for turn in 1..=TURNS {
        running.write(&config(turn));
        assert_eq!(running.reload().status, 200);
        assert_eq!(running.moved(), [0, turn as u64, 0]);
    }
    assert_eq!(running.gateway.get("/r/r7").status, 200);
    done.store(true, Ordering::Relaxed);
    let calls: usize = clients.into_iter().map(|c| c.join().unwrap()).sum();
    assert!(upstream.seen().iter().any(|s| s.field("x-turn") == Some(&TURNS.to_string())));
    // Two clients, and the last call: nobody else dialled, so no connection was given up by a reload.
    assert!(upstream.connections() <= 60 * 2, "{}", upstream.connections());
    let log = running.gateway.stderr();
    let took: Vec<&str> = log.lines().filter_map(|l| l.split("took_ms=").nth(1)).collect();
    eprintln!("{calls} calls, the slowest {} us; reloads took (ms): {took:?}", worst.load(Ordering::Relaxed));
}
