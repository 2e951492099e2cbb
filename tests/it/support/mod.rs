//! What the tests stand on: the built gateway as a process, an upstream that shows every byte it received, and a client
//! that sends bytes as they are.

pub mod browser;
pub mod frames;
pub mod http2;
pub mod issuer;
pub mod keys;
pub mod oidc;
pub mod relay;
pub mod tls;

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Longest wait of any test for anything.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// Ports that tests listen on where they must name one beforehand.
const PORTS: std::ops::Range<u16> = 12_000..32_000;

/// A loopback port that was free a moment ago. It lies below those that the system gives to connections, where nobody
/// takes it by chance, and no two calls of a run get the same.
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let first = std::process::id().wrapping_mul(509);
    loop {
        let number = first.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % PORTS.len() as u32;
        let port = PORTS.start + number as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// A variable of the test run's own environment.
#[expect(clippy::disallowed_methods, reason = "the test run is configured by its environment")]
pub fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// The built program.
pub fn postern() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_postern"));
    command.env_clear().env("PATH", variable("PATH").unwrap_or_default());
    command
}

/// The gateway as a process, with a folder of its own.
pub struct Gateway {
    pub port: u16,
    pub folder: tempfile::TempDir,
    variables: Vec<(String, String)>,
    child: Child,
}

impl Gateway {
    /// Starts it on `config`, in which `{port}` is its port and `{dir}` its folder. Auditing goes to `audit.jsonl`
    /// unless the configuration says otherwise.
    pub fn start(config: &str) -> Self {
        Self::start_with(config, &[])
    }

    /// The same with variables in its environment.
    pub fn start_with(config: &str, variables: &[(&str, &str)]) -> Self {
        // The port may be taken between the choice and the bind: then another is chosen.
        for _ in 0..5 {
            let port = free_port();
            let folder = tempfile::tempdir().unwrap();
            let mut text = config.replace("{port}", &port.to_string()).replace("{dir}", &folder.path().display().to_string());
            if !text.contains("audit:") {
                text.push_str("\naudit: { sinks: [ { file: { path: audit.jsonl } } ] }\n");
            }
            if !text.contains("server:") {
                text.push_str(&format!("\nserver: {{ listen: \"127.0.0.1:{port}\", name: under-test, workers: 2 }}\n"));
            }
            let file = folder.path().join("postern.yaml");
            fs::write(&file, text).unwrap();
            let variables: Vec<(String, String)> = variables.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
            let child = spawn(folder.path(), &variables);
            let mut gateway = Self { port, folder, variables, child };
            if gateway.wait_until_up() {
                return gateway;
            }
            let stderr = gateway.stderr();
            assert!(stderr.contains("in use"), "the gateway did not start:\n{stderr}");
        }
        panic!("no free port was found");
    }

    /// Starts it again on the same folder, once it has ended.
    pub fn again(&mut self) {
        self.child = spawn(self.folder.path(), &self.variables);
        assert!(self.wait_until_up(), "the gateway did not start again:\n{}", self.stderr());
    }

    /// The same with another value of a variable.
    pub fn again_with(&mut self, name: &str, value: &str) {
        self.variables.retain(|(n, _)| n != name);
        self.variables.push((name.to_owned(), value.to_owned()));
        self.again();
    }

    fn wait_until_up(&mut self) -> bool {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            if self.child.try_wait().unwrap().is_some() {
                return false;
            }
            // It says so itself: whoever answers on the port may be another test's.
            if self.stderr().contains(" behind ") && TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("the gateway does not listen:\n{}", self.stderr());
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn stderr(&self) -> String {
        fs::read_to_string(self.folder.path().join("stderr")).unwrap_or_default()
    }

    pub fn stdout(&self) -> String {
        fs::read_to_string(self.folder.path().join("stdout")).unwrap_or_default()
    }

    /// Sends a signal by its name.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args(["-s", name, &self.pid().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// Ends it by TERM and waits. Returns the exit code.
    pub fn stop(&mut self) -> Option<i32> {
        if self.child.try_wait().unwrap().is_none() {
            self.signal("TERM");
        }
        self.wait()
    }

    /// Waits for its end. Returns the exit code.
    pub fn wait(&mut self) -> Option<i32> {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("the gateway does not end:\n{}", self.stderr());
    }

    /// The audit records, once there are at least `count`.
    pub fn records(&self, count: usize) -> Vec<serde_json::Value> {
        let path = self.folder.path().join("audit.jsonl");
        let read = || -> Vec<serde_json::Value> {
            let text = fs::read_to_string(&path).unwrap_or_default();
            let mut records: Vec<serde_json::Value> =
                text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect();
            // Each core writes its lines when its buffer is a second old, so the file is not in the order of time.
            records.sort_by_key(|record| record["time"].as_str().unwrap_or_default().to_owned());
            records
        };
        eventually(|| Some(read()).filter(|records| records.len() >= count))
            .unwrap_or_else(|| panic!("{} of {count} records", read().len()))
    }

    /// Sends bytes, and reads until the gateway closes.
    pub fn raw(&self, bytes: &[u8]) -> Vec<u8> {
        exchange(TcpStream::connect(("127.0.0.1", self.port)).unwrap(), bytes)
    }

    /// A request with further fields (each ending in CR LF), answered and closed.
    pub fn send(&self, method: &str, path: &str, fields: &str, body: &[u8]) -> Reply {
        let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
        let head = format!("{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nConnection: close\r\n{fields}{length}\r\n", self.port);
        Reply::parse(&self.raw(&[head.as_bytes(), body].concat()))
    }

    /// A plain GET.
    pub fn get(&self, path: &str) -> Reply {
        self.send("GET", path, "", b"")
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(folder: &std::path::Path, variables: &[(String, String)]) -> Child {
    let file = |name: &str| fs::File::create(folder.join(name)).unwrap();
    let mut command = postern();
    command.args(["run", "--config"]).arg(folder.join("postern.yaml")).envs(variables.iter().cloned());
    command.stdin(Stdio::null()).stdout(file("stdout")).stderr(file("stderr")).spawn().unwrap()
}

/// Sends bytes over a connection and reads to its end.
pub fn exchange(mut stream: TcpStream, bytes: &[u8]) -> Vec<u8> {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    let _ = stream.write_all(bytes);
    let mut all = Vec::new();
    let _ = stream.read_to_end(&mut all);
    all
}

/// Polls until there is something, or patience ends.
pub fn eventually<T>(mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if Instant::now() > until {
            return None;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// An answer, taken apart.
#[derive(Debug, Clone)]
pub struct Reply {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Reply {
    /// The last answer in `bytes` that is not interim. Chunks are put together.
    pub fn parse(bytes: &[u8]) -> Self {
        let Some(end) = find(bytes, b"\r\n\r\n") else { panic!("no answer: {:?}", String::from_utf8_lossy(bytes)) };
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or_else(|| panic!("{head}"));
        let rest = &bytes[end + 4..];
        if (100..200).contains(&status) && status != 101 {
            return Self::parse(rest);
        }
        let mut reply = Self { status, head, body: rest.to_vec() };
        if reply.field("transfer-encoding").is_some() {
            reply.body = dechunk(rest);
        }
        reply
    }

    /// A field's value; the first of several.
    pub fn field(&self, name: &str) -> Option<&str> {
        field(&self.head, name)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {} {}", self.head, self.text()))
    }

    /// The code of a problem of the gateway's own.
    pub fn code(&self) -> String {
        assert_eq!(self.field("content-type"), Some("application/problem+json"), "{} {}", self.head, self.text());
        assert!(self.field("proxy-status").is_some_and(|p| p.starts_with("postern; error=")), "{}", self.head);
        self.json()["code"].as_str().unwrap().to_owned()
    }
}

/// A field in a head; the first of several.
pub fn field<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    fields(head, name).into_iter().next()
}

/// All values of a field in a head.
pub fn fields<'h>(head: &'h str, name: &str) -> Vec<&'h str> {
    head.lines().skip(1).filter_map(|l| l.split_once(':')).filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.trim()).collect()
}

pub fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|w| w == what)
}

/// Puts chunks together; what is cut off ends the body.
pub fn dechunk(mut bytes: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(line) = find(bytes, b"\r\n") {
        let size = String::from_utf8_lossy(&bytes[..line]);
        let Ok(size) = usize::from_str_radix(size.split(';').next().unwrap().trim(), 16) else { break };
        bytes = &bytes[line + 2..];
        let part = size.min(bytes.len());
        body.extend_from_slice(&bytes[..part]);
        if size == 0 || bytes.len() < size + 2 {
            break;
        }
        bytes = &bytes[size + 2..];
    }
    body
}

/// What an upstream received: one request.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// The head without its empty line.
    pub head: String,
    /// The body as it was framed.
    pub raw_body: Vec<u8>,
    /// The body, put together.
    pub body: Vec<u8>,
    /// The number of the connection it came on, from 0.
    pub connection: usize,
}

impl Seen {
    pub fn line(&self) -> &str {
        self.head.lines().next().unwrap_or("")
    }

    pub fn target(&self) -> &str {
        self.line().split(' ').nth(1).unwrap_or("")
    }

    pub fn field(&self, name: &str) -> Option<&str> {
        field(&self.head, name)
    }

    pub fn fields(&self, name: &str) -> Vec<&str> {
        fields(&self.head, name)
    }

    /// Reads one request; `None` at the end of the connection.
    pub fn read(stream: &mut impl Read, connection: usize) -> Option<Self> {
        let mut bytes = Vec::new();
        let mut byte = [0];
        while !bytes.ends_with(b"\r\n\r\n") {
            if stream.read(&mut byte).ok()? == 0 {
                return None;
            }
            bytes.push(byte[0]);
        }
        let head = String::from_utf8_lossy(&bytes[..bytes.len() - 4]).into_owned();
        let mut seen = Self { head, connection, ..Self::default() };
        if let Some(length) = seen.field("content-length").map(|l| l.parse::<usize>().unwrap()) {
            seen.raw_body = vec![0; length];
            stream.read_exact(&mut seen.raw_body).ok()?;
            seen.body = seen.raw_body.clone();
        } else if seen.field("transfer-encoding").is_some() {
            seen.raw_body = read_chunks(stream)?;
            seen.body = dechunk(&seen.raw_body);
        }
        Some(seen)
    }
}

/// Reads chunks and trailers as they are, to the end of the message; `None` if they break off.
fn read_chunks(stream: &mut impl Read) -> Option<Vec<u8>> {
    let mut all = Vec::new();
    loop {
        let line = read_line(stream, &mut all)?;
        let size = usize::from_str_radix(line.split(';').next()?.trim(), 16).ok()?;
        if size == 0 {
            while !read_line(stream, &mut all)?.is_empty() {}
            return Some(all);
        }
        let mut data = vec![0; size + 2];
        stream.read_exact(&mut data).ok()?;
        all.extend_from_slice(&data);
    }
}

fn read_line(stream: &mut impl Read, all: &mut Vec<u8>) -> Option<String> {
    let from = all.len();
    let mut byte = [0];
    while !all[from..].ends_with(b"\r\n") {
        stream.read_exact(&mut byte).ok()?;
        all.push(byte[0]);
    }
    Some(String::from_utf8_lossy(&all[from..all.len() - 2]).into_owned())
}

type Answering = dyn Fn(&Seen, &mut TcpStream) -> bool + Send + Sync;

/// An upstream on a thread of its own that shows every byte it received.
pub struct Upstream {
    pub port: u16,
    seen: Arc<Mutex<Vec<Seen>>>,
    connections: Arc<AtomicUsize>,
    /// Connections whose other end has gone.
    closed: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
}

impl Upstream {
    /// Answers everything with the same bytes.
    pub fn canned(answer: &'static str) -> Self {
        Self::answering(move |_, stream| stream.write_all(answer.as_bytes()).is_ok())
    }

    /// 200 with a small JSON body.
    pub fn ok() -> Self {
        Self::canned("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 11\r\n\r\n{\"ok\":true}")
    }

    /// Answers as `answer` does; `false` closes the connection.
    pub fn answering(answer: impl Fn(&Seen, &mut TcpStream) -> bool + Send + Sync + 'static) -> Self {
        let answer: Arc<Answering> = Arc::new(answer);
        Self::raw(move |mut stream, number, seen| {
            while let Some(request) = Seen::read(&mut stream, number) {
                seen.lock().unwrap().push(request.clone());
                if !answer(&request, &mut stream) {
                    break;
                }
            }
        })
    }

    /// Hands out whole connections.
    pub fn raw(serve: impl Fn(TcpStream, usize, &Mutex<Vec<Seen>>) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let (connections, closed, stop) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
        let serve = Arc::new(serve);
        std::thread::spawn({
            let (seen, connections, closed, stop) = (seen.clone(), connections.clone(), closed.clone(), stop.clone());
            move || {
                for stream in listener.incoming().flatten() {
                    if stop.load(Ordering::SeqCst) {
                        return;
                    }
                    let number = connections.fetch_add(1, Ordering::SeqCst);
                    let (seen, closed, serve) = (seen.clone(), closed.clone(), serve.clone());
                    stream.set_read_timeout(Some(PATIENCE)).unwrap();
                    stream.set_nodelay(true).unwrap();
                    std::thread::spawn(move || {
                        serve(stream, number, &seen);
                        closed.fetch_add(1, Ordering::SeqCst);
                    });
                }
            }
        });
        Self { port, seen, connections, closed, stop }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// The last request, once there is one.
    pub fn last(&self) -> Seen {
        eventually(|| self.seen().pop()).expect("nothing reached the upstream")
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Connections that have ended.
    pub fn closed(&self) -> usize {
        self.closed.load(Ordering::SeqCst)
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

/// A program or folder that `./tests/run` provides, or `None` with the reason said. In CI nothing is skipped.
pub fn provided(name: &str) -> Option<String> {
    let found = variable(name);
    if found.is_none() {
        assert!(variable("CI").is_none(), "{name} is not set, and nothing is skipped in CI");
        eprintln!("skipped: {name} is not set; ./tests/run sets it");
    }
    found
}

/// Values for the variables that a sample configuration names.
pub fn sample_variables(text: &str) -> Vec<(String, String)> {
    let names = text.match_indices("${env:").map(|(at, _)| text[at + 6..].split(['}', ':']).next().unwrap().to_owned());
    let value = |name: &str| match name {
        "TLS_KEY" => include_str!("../../fixtures/listener.key").to_owned(),
        "MASTER_KEY" => "07".repeat(32),
        "PRIVATE_KEY" => rcgen::KeyPair::generate().unwrap().serialize_pem(),
        "GOOGLE_KEY" => {
            let key = rcgen::KeyPair::generate().unwrap().serialize_pem();
            let url = "https://issuer.example/token";
            serde_json::json!({ "client_email": "a@b.example", "private_key": key, "token_uri": url }).to_string()
        }
        _ => "a-value-for-the-example".to_owned(),
    };
    names.map(|name| (name.clone(), value(&name))).collect()
}

/// A folder of the repository.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}
