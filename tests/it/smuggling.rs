//! Raw HTTP/1.1 messages, good and hostile, judged by what the upstream received byte for byte. The messages are data:
//! `corpus/http1.txt`. What arrives must mean the same to every reader of `readers.rs`.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::readers::{READERS, Understood};
use crate::support::{Gateway, PATIENCE, Reply, Upstream, eventually};

const TOKEN: &str = "corpus-credential-1234";
/// Longest time that a message may take until the gateway has closed, save those that wait for its own limit.
const HANG: Duration = Duration::from_secs(8);
/// How many clients send at a time.
const CLIENTS: usize = 8;

struct Case {
    section: String,
    expectation: String,
    name: String,
    bytes: Vec<u8>,
    /// Requests that should arrive where all is well.
    requests: usize,
}

fn corpus() -> Vec<Case> {
    let text = include_str!("corpus/http1.txt");
    let cases = text.lines().filter(|l| !l.starts_with('#') && !l.is_empty()).enumerate().map(|(number, line)| {
        let parts: Vec<&str> = line.splitn(4, " | ").collect();
        let [section, expectation, name, bytes] = parts[..] else { panic!("{line}") };
        let requests = 1 + bytes.matches("{get2}").count();
        let case = |text: &str| unescape(&fill(text, number));
        Case {
            section: section.into(),
            expectation: String::from_utf8_lossy(&case(expectation)).into_owned(),
            name: name.into(),
            bytes: case(bytes),
            requests,
        }
    });
    cases.collect()
}

fn fill(text: &str, number: usize) -> String {
    text.replace("{next}", "GET /r/up/smuggled-{n} HTTP/1.1¶Host: localhost¶¶")
        .replace("{get2}", "GET /r/up/{n}-2 HTTP/1.1¶Host: localhost¶Connection: close¶")
        .replace("{get}", "GET /r/up/{n} HTTP/1.1¶Host: localhost¶")
        .replace("{post}", "POST /r/up/{n} HTTP/1.1¶Host: localhost¶")
        .replace("{n}", &format!("case-{number:03}"))
        .replace("{field}", &"f".repeat(20 << 10))
        .replace("{long}", &"l".repeat(62 << 10))
        .replace('¶', "\\r\\n")
}

fn unescape(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(b) = bytes.next() {
        if b != b'\\' {
            out.push(b);
            continue;
        }
        out.push(match bytes.next().unwrap() {
            b'r' => b'\r',
            b'n' => b'\n',
            b't' => b'\t',
            b'0' => 0,
            b'x' => {
                let digits = [bytes.next().unwrap(), bytes.next().unwrap()];
                u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap()
            }
            other => other,
        });
    }
    out
}

/// An upstream that keeps every byte, by connection, and answers each whole request.
struct Recorder {
    upstream: Upstream,
    connections: Arc<Mutex<BTreeMap<usize, Vec<u8>>>>,
}

impl Recorder {
    fn new() -> Self {
        let connections: Arc<Mutex<BTreeMap<usize, Vec<u8>>>> = Arc::default();
        let kept = connections.clone();
        let upstream = Upstream::raw(move |mut stream, number, _| {
            let mut answered = 0;
            let mut part = vec![0; 64 << 10];
            while let Ok(read) = stream.read(&mut part) {
                if read == 0 {
                    break;
                }
                let whole = {
                    let mut all = kept.lock().unwrap();
                    let bytes = all.entry(number).or_default();
                    bytes.extend_from_slice(&part[..read]);
                    READERS[0].read(bytes).0
                };
                for request in &whole[answered..] {
                    let answer: &[u8] = match request.method.as_str() {
                        "HEAD" => b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n",
                        _ => b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
                    };
                    let _ = stream.write_all(answer);
                }
                answered = whole.len();
            }
        });
        Self { upstream, connections }
    }

    fn gateway(&self) -> Gateway {
        let config = format!(
            "server: {{ listen: \"127.0.0.1:{{port}}\", name: under-test, workers: 2, timeouts: {{ idle: 500ms, header: 3s, body_idle: 3s }} }}\n\
             resources:\n  up:\n    base_url: {}/base\n    auth: [ {{ bearer: \"${{env:T}}\" }}, {{ api_key: {{ in: header, name: X-Api-Key, value: \"${{env:T}}\" }} }} ]\n",
            self.upstream.url()
        );
        Gateway::start_with(&config, &[("T", TOKEN)])
    }

    /// Every connection's requests, as all readers understand them, and whether bytes of an unfinished one are left.
    fn understood(&self) -> Vec<(Vec<Understood>, Vec<u8>)> {
        let all = self.connections.lock().unwrap();
        all.values()
            .map(|bytes| {
                let (strict, left) = READERS[0].read(bytes);
                let whole = &bytes[..bytes.len() - left];
                for reader in &READERS[1..] {
                    let (other, rest) = reader.read(whole);
                    assert_eq!((&other, rest), (&strict, 0), "{} reads otherwise: {}", reader.name, String::from_utf8_lossy(whole));
                }
                (strict, bytes[bytes.len() - left..].to_vec())
            })
            .collect()
    }

    /// What no request may be or hold, whatever was sent.
    fn judge_all(&self) -> Vec<Understood> {
        let mut all = Vec::new();
        for (requests, unfinished) in self.understood() {
            let first = String::from_utf8_lossy(&unfinished).lines().next().unwrap_or("").to_owned();
            assert!(first.is_empty() || first.contains(" /base/"), "half a request to {first}");
            for request in requests {
                assert!(request.target.starts_with("/base/"), "outside the base path: {request:?}");
                assert_eq!(request.host, Some(format!("127.0.0.1:{}", self.upstream.port)), "{request:?}");
                assert_eq!(request.authorization, Some(format!("Bearer {TOKEN}")), "{request:?}");
                all.push(request);
            }
        }
        for bytes in self.connections.lock().unwrap().values() {
            judge_heads(bytes);
        }
        all
    }
}

/// Looks at the fields of each head as they are on the wire.
fn judge_heads(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    for head in text.split("\r\n\r\n").filter(|part| part.contains(" /base/") && part.contains(" HTTP/1.1\r\n")) {
        let mut names: Vec<String> = head.lines().skip(1).filter_map(|l| Some(l.split_once(':')?.0.to_ascii_lowercase())).collect();
        names.sort();
        let once = ["authorization", "host", "x-api-key", "content-length", "transfer-encoding", "connection", "upgrade"];
        for name in once {
            let count = names.iter().filter(|n| *n == name).count();
            assert!(count <= 1, "{count} of {name}: {head}");
        }
        assert!(!(names.iter().any(|n| n == "content-length") && names.iter().any(|n| n == "transfer-encoding")), "{head}");
        for name in &names {
            let folded: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
            let own = ["authorization", "x-api-key", "host", "content-length", "transfer-encoding", "cookie"];
            assert!(*name == folded || !own.contains(&folded.as_str()), "an alias: {head}");
            let steers = [
                "forwarded",
                "x-original-",
                "x-rewrite-",
                "x-http-method",
                "x-method-",
                "x-forwarded",
                "x-middleware-",
                "x-envoy-",
                "proxy",
                "x-host",
                "destination",
                "postern-",
                "x-remote-",
            ];
            assert!(!steers.iter().any(|s| folded.starts_with(s)), "steering: {head}");
            assert!(!["cookie", "keep-alive", "http2-settings"].contains(&folded.as_str()), "not to be forwarded: {head}");
        }
        let value =
            |name: &str| head.lines().find_map(|l| l.split_once(':').filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.trim()));
        assert_eq!(value("x-api-key"), Some(TOKEN), "{head}");
        assert!(value("upgrade").is_none_or(|u| u == "websocket"), "{head}");
        assert!(value("expect").is_none_or(|e| e.eq_ignore_ascii_case("100-continue")), "{head}");
        assert!(value("te").is_none_or(|te| te == "trailers"), "{head}");
        let trailer = value("trailer").unwrap_or("");
        assert!(!trailer.to_ascii_lowercase().contains("original") && !trailer.to_ascii_lowercase().contains("api"), "{head}");
    }
}

/// Sends bytes and reads until the gateway closes; how long that took.
fn exchange(port: u16, bytes: &[u8]) -> (Vec<u8>, Duration) {
    let began = Instant::now();
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    let _ = stream.write_all(bytes);
    let mut all = Vec::new();
    let _ = stream.read_to_end(&mut all);
    (all, began.elapsed())
}

#[test]
fn no_message_of_the_corpus_is_unsafe() {
    let recorder = Recorder::new();
    let gateway = recorder.gateway();
    let cases = corpus();
    assert!(cases.len() >= 250, "{}", cases.len());
    let answers: Mutex<BTreeMap<usize, (Vec<u8>, Duration)>> = Mutex::default();
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::SeqCst);
                    let Some(case) = cases.get(number) else { return };
                    let answer = exchange(gateway.port, &case.bytes);
                    answers.lock().unwrap().insert(number, answer);
                }
            });
        }
    });
    // What was cut has been closed towards the upstream too before it is judged.
    let arrived = recorder.judge_all();
    let mut wrong = Vec::new();
    for (number, case) in cases.iter().enumerate() {
        let (answer, took) = &answers.lock().unwrap()[&number];
        let whole: Vec<&Understood> = arrived
            .iter()
            .filter(|r| r.target.split(['/', '?']).any(|part| part == format!("case-{number:03}") || part == format!("case-{number:03}-2")))
            .collect();
        let smuggled = arrived.iter().any(|r| r.target.contains(&format!("smuggled-case-{number:03}")));
        let judged = if smuggled { Err("SMUGGLED".to_owned()) } else { judge(case, answer, *took, &whole) };
        if let Err(why) = judged {
            wrong.push(format!(
                "{number} [{}] {}: {why}\n   {:?}\n",
                case.section,
                case.name,
                String::from_utf8_lossy(&answer[..answer.len().min(200)])
            ));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.concat());
}

fn judge(case: &Case, answer: &[u8], took: Duration, whole: &[&Understood]) -> Result<(), String> {
    if took > HANG {
        return Err(format!("it took {took:?}"));
    }
    let status = if answer.starts_with(b"HTTP/1.") { Reply::parse(answer).status } else { 0 };
    let expect =
        |good: bool, what: &str| if good { Ok(()) } else { Err(format!("{what}: status {status}, {} arrived {whole:?}", whole.len())) };
    match case.expectation.split_once('=') {
        None if case.expectation == "refuse" => {
            expect(whole.is_empty(), "it should be refused")?;
            let code = Reply::parse(answer).code();
            expect((400..500).contains(&status) && status != 408, &format!("it should be refused at once, not {code}"))
        }
        None if case.expectation == "refuse2" => {
            expect(whole.len() == 1 && status == 200, "the first of two should arrive")?;
            expect(String::from_utf8_lossy(answer).contains("HTTP/1.1 400 "), "the second should be refused")
        }
        None if case.expectation == "cut" => {
            expect(whole.is_empty(), "it should not arrive whole")?;
            expect(status == 0 || (400..500).contains(&status), "it should not be answered")
        }
        None if case.expectation == "wait" => expect(whole.is_empty() && matches!(status, 0 | 408), "it should run out of time"),
        None if case.expectation == "forward" => expect(whole.len() == case.requests && status == 200, "it should arrive"),
        Some(("forward", body)) => {
            let same = whole.len() == 1 && whole[0].body == body.as_bytes();
            expect(same && status == 200, "it should arrive with its body")
        }
        _ => Err("unknown expectation".into()),
    }
}

/// Pieces that random messages are made of.
const PIECES: [&str; 64] = [
    "GET /r/up/a HTTP/1.1\r\n",
    "POST /r/up/a HTTP/1.1\r\n",
    "HEAD /r/up/b HTTP/1.1\r\n",
    "DELETE /r/up/c?x=1 HTTP/1.0\r\n",
    "OPTIONS /r/up/d HTTP/1.1\r\n",
    "Host: localhost\r\n",
    "Host: localhost\r\n",
    "Host: localhost\r\n",
    "Host: evil.example\r\n",
    "Host : localhost\r\n",
    "\r\n",
    "\r\n",
    "\r\n",
    "\n",
    "\r",
    "\r\n ",
    "Content-Length: 5\r\n",
    "Content-Length: 0\r\n",
    "Content-Length: 48\r\n",
    "content-length:5\r\n",
    "Content_Length: 5\r\n",
    "Content-Length: 5, 5\r\n",
    "Transfer-Encoding: chunked\r\n",
    "transfer-encoding:chunked\r\n",
    "Transfer-Encoding: gzip, chunked\r\n",
    "Transfer_Encoding: chunked\r\n",
    "Transfer-Encoding : chunked\r\n",
    "hello",
    "5\r\nhello\r\n",
    "0\r\n\r\n",
    "0\r\nX-Sum: 1\r\n\r\n",
    "5;a=b\r\nhello\r\n",
    "30\r\n",
    "GET /r/up/smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "Connection: close\r\n",
    "Connection: keep-alive\r\n",
    "Connection: authorization, host\r\n",
    "Connection: upgrade\r\n",
    "Upgrade: websocket\r\n",
    "Upgrade: h2c\r\n",
    "Expect: 100-continue\r\n",
    "Expect: x\r\n",
    "Trailer: X-Sum\r\n",
    "TE: trailers\r\n",
    "Authorization: Bearer mine\r\n",
    "X_Api_Key: mine\r\n",
    "X-Original-URL: /admin\r\n",
    "A: b\r\n",
    "A: b\0c\r\n",
    "A:\r\n",
    ": b\r\n",
    "A b: c\r\n",
    " c\r\n",
    "\t",
    "\0",
    "\x0b",
    "%2e%2e/",
    "//",
    "#",
    "/../",
    "GET http://localhost/r/up/e HTTP/1.1\r\n",
    "GET http://evil.example/ HTTP/1.1\r\n",
    "PRI * HTTP/2.0\r\n",
    "http/1.1\r\n",
];

#[test]
fn whatever_random_messages_come_to_all_readers_understand_the_same() {
    const MESSAGES: usize = 400;
    let recorder = Recorder::new();
    let gateway = recorder.gateway();
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::SeqCst);
                    if number >= MESSAGES {
                        return;
                    }
                    let mut random = fastrand::Rng::with_seed(number as u64);
                    let mut message = String::new();
                    // Half of them begin well, so that much gets through.
                    if random.bool() {
                        message.push_str(PIECES[random.usize(..5)]);
                        message.push_str("Host: localhost\r\n");
                    }
                    for _ in 0..random.usize(1..12) {
                        message.push_str(PIECES[random.usize(..PIECES.len())]);
                    }
                    message.push_str("\r\n\r\n");
                    let mut stream = TcpStream::connect(("127.0.0.1", gateway.port)).unwrap();
                    stream.set_read_timeout(Some(PATIENCE)).unwrap();
                    let _ = stream.write_all(message.as_bytes());
                    // Some are left open for the gateway to close, some are cut here.
                    if random.bool() {
                        let mut all = Vec::new();
                        let _ = stream.read_to_end(&mut all);
                    } else {
                        let _ = stream.read(&mut [0; 1024]);
                    }
                }
            });
        }
    });
    // The gateway still serves, and what it has sent can be judged.
    assert_eq!(eventually(|| Some(gateway.get("/r/up/end").status)), Some(200));
    let arrived: Vec<String> = recorder
        .understood()
        .into_iter()
        .flat_map(|(requests, _)| requests)
        .map(|r| {
            assert!(r.target.starts_with("/base"), "{r:?}");
            assert_eq!(r.authorization, Some(format!("Bearer {TOKEN}")), "{r:?}");
            r.target
        })
        .collect();
    assert!(arrived.len() > MESSAGES / 20, "only {} of {MESSAGES} got through", arrived.len());
}
