//! Hostile upstreams, judged by what the client received: never an answer in two readings, never another's answer, and
//! a body that was cut looks cut.

use std::io::Write as _;
use std::time::{Duration, Instant};

use crate::support::{Gateway, PATIENCE, Reply, Upstream, eventually, find};

/// What the client is to get.
#[derive(Clone, Copy, Debug)]
enum Gets {
    /// The gateway's own 502.
    Refusal,
    /// The answer as it is, with this status and body.
    Whole(u16, &'static str),
    /// A beginning that does not look like an end.
    Cut,
}
use Gets::{Cut, Refusal, Whole};

struct Behaviour {
    name: &'static str,
    method: &'static str,
    answer: Vec<u8>,
    gets: Gets,
}

fn behaves(name: &'static str, gets: Gets, answer: impl Into<Vec<u8>>) -> Behaviour {
    Behaviour { name, method: "GET", answer: answer.into(), gets }
}

const STOLEN: &str = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nstolen";

fn head(fields: &str) -> String {
    format!("HTTP/1.1 200 OK\r\n{fields}\r\n")
}

fn framing() -> Vec<Behaviour> {
    vec![
        behaves("length and chunks", Refusal, head("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n") + "0\r\n\r\n"),
        behaves("chunks and length", Refusal, head("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n") + "5\r\nhello\r\n0\r\n\r\n"),
        behaves("two equal lengths", Refusal, head("Content-Length: 5\r\nContent-Length: 5\r\n") + "hello"),
        behaves("two lengths", Refusal, head("Content-Length: 5\r\nContent-Length: 6\r\n") + "hello!"),
        behaves("a list of lengths", Refusal, head("Content-Length: 5, 5\r\n") + "hello"),
        behaves("a negative length", Refusal, head("Content-Length: -5\r\n") + "hello"),
        behaves("a length with a plus", Refusal, head("Content-Length: +5\r\n") + "hello"),
        behaves("a hexadecimal length", Refusal, head("Content-Length: 0x5\r\n") + "hello"),
        behaves("an empty length", Refusal, head("Content-Length:\r\n")),
        behaves("a length beyond 64 bits", Refusal, head("Content-Length: 18446744073709551621\r\n") + "hello"),
        behaves("gzip, chunked", Refusal, head("Transfer-Encoding: gzip, chunked\r\n") + "0\r\n\r\n"),
        behaves("identity", Refusal, head("Transfer-Encoding: identity\r\n") + "hello"),
        behaves("chunked twice", Refusal, head("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n") + "0\r\n\r\n"),
        behaves("xchunked", Refusal, head("Transfer-Encoding: xchunked\r\n") + "0\r\n\r\n"),
        behaves("chunks in HTTP/1.0", Refusal, "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        behaves("a bad chunk size", Cut, head("Transfer-Encoding: chunked\r\n") + "zz\r\nhello\r\n0\r\n\r\n"),
        behaves("a chunk size with 0x", Cut, head("Transfer-Encoding: chunked\r\n") + "0x5\r\nhello\r\n0\r\n\r\n"),
        behaves("a chunk size that overflows", Cut, head("Transfer-Encoding: chunked\r\n") + "10000000000000005\r\nhello\r\n0\r\n\r\n"),
        behaves("a chunk that is too long", Cut, head("Transfer-Encoding: chunked\r\n") + "5\r\nhello!\r\n0\r\n\r\n"),
        behaves("a bare LF behind a chunk size", Cut, head("Transfer-Encoding: chunked\r\n") + "5\nhello\r\n0\r\n\r\n"),
        behaves("a bare LF at the end of the chunks", Cut, head("Transfer-Encoding: chunked\r\n") + "5\r\nhello\r\n0\r\n\n"),
        behaves("a chunk extension without end", Cut, head("Transfer-Encoding: chunked\r\n") + "5;" + &"a".repeat(100_000)),
        behaves("trailers without end", Cut, head("Transfer-Encoding: chunked\r\n") + "0\r\n" + &"A: b\r\n".repeat(100_000)),
        behaves(
            "a length among the trailers",
            Cut,
            head("Transfer-Encoding: chunked\r\n") + "5\r\nhello\r\n0\r\nContent-Length: 99\r\n\r\n",
        ),
        behaves(
            "a cookie among the trailers",
            Cut,
            head("Transfer-Encoding: chunked\r\nTrailer: Set-Cookie\r\n") + "5\r\nhello\r\n0\r\nSet-Cookie: a=b\r\n\r\n",
        ),
        behaves("a body shorter than its length", Cut, head("Content-Length: 10\r\n") + "hello"),
        behaves("chunks without an end", Cut, head("Transfer-Encoding: chunked\r\n") + "5\r\nhello\r\n"),
    ]
}

fn surplus() -> Vec<Behaviour> {
    let with = |name, method, gets, answer: String| Behaviour { name, method, answer: (answer + STOLEN).into(), gets };
    vec![
        with("an answer behind a length", "GET", Whole(200, "hello"), head("Content-Length: 5\r\n") + "hello"),
        with("an answer behind a length of zero", "GET", Whole(200, ""), head("Content-Length: 0\r\n")),
        with("an answer behind chunks", "GET", Whole(200, "hello"), head("Transfer-Encoding: chunked\r\n") + "5\r\nhello\r\n0\r\n\r\n"),
        with("an answer behind 204", "GET", Whole(204, ""), "HTTP/1.1 204 No Content\r\n\r\n".into()),
        with("a body on 204", "GET", Whole(204, ""), "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello".into()),
        with("an answer behind 304", "GET", Whole(304, ""), "HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\n\r\n".into()),
        with("a body on 304", "GET", Whole(304, ""), "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\nhello".into()),
        with("a body on HEAD", "HEAD", Whole(200, ""), head("Content-Length: 5\r\n") + "hello"),
        with("chunks on HEAD", "HEAD", Whole(200, ""), head("Transfer-Encoding: chunked\r\n") + "5\r\nhello\r\n0\r\n\r\n"),
        behaves("garbage behind an answer", Whole(200, "hello"), head("Content-Length: 5\r\n") + "hello\r\n\r\n\0\0"),
        behaves("chunks on 204", Refusal, "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
    ]
}

fn heads() -> Vec<Behaviour> {
    vec![
        behaves("bare LF", Refusal, "HTTP/1.1 200 OK\nContent-Length: 5\n\nhello"),
        behaves("a bare LF between fields", Refusal, head("A: b\nContent-Length: 5\r\n") + "hello"),
        behaves("a bare CR that splits the head", Refusal, head("A: b\rSet-Cookie: c=d\r\nContent-Length: 0\r\n")),
        behaves("a folded field", Refusal, head("A: b\r\n c\r\nContent-Length: 0\r\n")),
        behaves("a folded first field", Refusal, head(" A: b\r\nContent-Length: 0\r\n")),
        behaves("a space before the colon", Refusal, head("Content-Length : 5\r\n") + "hello"),
        behaves("a NUL in a value", Refusal, head("A: b\0c\r\nContent-Length: 0\r\n")),
        behaves("a control character in a value", Refusal, head("A: \x1b[2J\r\nContent-Length: 0\r\n")),
        behaves("a NUL in a name", Refusal, head("A\0: b\r\nContent-Length: 0\r\n")),
        behaves("a field without a colon", Refusal, head("A\r\nContent-Length: 0\r\n")),
        behaves("a field without a name", Refusal, head(": b\r\nContent-Length: 0\r\n")),
        behaves("a control character in the reason", Refusal, "HTTP/1.1 200 O\x07K\r\nContent-Length: 0\r\n\r\n"),
        behaves("a status of two digits", Refusal, "HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n"),
        behaves("a status of four digits", Refusal, "HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n"),
        behaves("a status below 100", Refusal, "HTTP/1.1 099 OK\r\nContent-Length: 0\r\n\r\n"),
        behaves("two spaces before the status", Refusal, "HTTP/1.1  200 OK\r\nContent-Length: 0\r\n\r\n"),
        behaves("HTTP/2.0", Refusal, "HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n"),
        behaves("HTTP/1.2", Refusal, "HTTP/1.2 200 OK\r\nContent-Length: 0\r\n\r\n"),
        behaves("a lower-case version", Refusal, "http/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
        behaves("HTTP/0.9", Refusal, "<html>hello</html>\r\n"),
        behaves("another protocol", Refusal, "ICY 200 OK\r\n\r\n"),
        behaves("an empty line in front", Refusal, format!("\r\n{}", head("Content-Length: 0\r\n"))),
        behaves("101 fields", Refusal, head(&("A: b\r\n".repeat(101) + "Content-Length: 0\r\n"))),
        behaves("a head of 300 KiB", Refusal, head(&format!("A: {}\r\n", "b".repeat(300 << 10)))),
        behaves("a name of 300 KiB", Refusal, head(&format!("{}: b\r\n", "A".repeat(300 << 10)))),
        behaves(
            "a switch nobody asked for",
            Refusal,
            format!("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n{STOLEN}"),
        ),
        behaves("interim answers without end", Refusal, "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n".repeat(10_000)),
        behaves("an interim answer with a body", Refusal, format!("HTTP/1.1 103 Early Hints\r\nContent-Length: 5\r\n\r\nhello{STOLEN}")),
        behaves(
            "an interim answer with chunks",
            Refusal,
            format!("HTTP/1.1 100 Continue\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{STOLEN}"),
        ),
        behaves(
            "a few interim answers",
            Whole(200, "hello"),
            "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n".repeat(3) + &head("Content-Length: 5\r\n") + "hello",
        ),
        behaves(
            "the gateway's own fields",
            Whole(200, ""),
            head(
                "X-Request-Id: theirs\r\nProxy-Status: postern; error=x\r\nPostern-Key: k\r\nProxy-Authenticate: Basic\r\nContent-Length: 0\r\n",
            ),
        ),
        behaves(
            "orders to a server in front",
            Whole(200, ""),
            head("X-Accel-Redirect: /secret\r\nX-Sendfile: /etc/passwd\r\nContent-Length: 0\r\n"),
        ),
        behaves(
            "what speaks for a whole origin",
            Whole(200, ""),
            head(
                "Set-Cookie: a=b; Domain=localhost\r\nClear-Site-Data: \"*\"\r\nAccess-Control-Allow-Origin: *\r\nService-Worker-Allowed: /\r\nStrict-Transport-Security: max-age=1\r\nContent-Length: 0\r\n",
            ),
        ),
        behaves(
            "Connection nominates what the gateway adds",
            Whole(200, ""),
            head("Connection: x-request-id, content-security-policy, content-length\r\nContent-Length: 0\r\n"),
        ),
    ]
}

/// No answer has one of these from an upstream.
const NEVER: [&str; 14] = [
    "theirs",
    "error=x",
    "postern-key",
    "proxy-authenticate",
    "x-accel-redirect",
    "x-sendfile",
    "set-cookie",
    "clear-site-data",
    "access-control-allow-origin",
    "service-worker-allowed",
    "strict-transport-security",
    "stolen",
    "transfer-encoding: identity",
    "content-length: 99",
];

fn gateway(upstream: &Upstream) -> Gateway {
    Gateway::start(&format!(
        "server: {{ listen: \"127.0.0.1:{{port}}\", name: under-test, workers: 1 }}\nresources:\n  up: {{ base_url: \"{}\", timeouts: {{ head: 5s, idle: 1s }} }}\n",
        upstream.url()
    ))
}

/// An upstream that answers `/evil` as told and everything else with its own path.
fn upstream(answer: Vec<u8>) -> Upstream {
    Upstream::answering(move |seen, stream| {
        if seen.target() == "/evil" {
            return stream.write_all(&answer).is_ok();
        }
        let body = seen.target().to_owned();
        stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).as_bytes()).is_ok()
    })
}

fn judge(behaviour: &Behaviour) -> Result<(), String> {
    let upstream = upstream(behaviour.answer.clone());
    let gateway = gateway(&upstream);
    let request = format!("{} /r/up/evil HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", behaviour.method);
    let began = Instant::now();
    let all = gateway.raw(request.as_bytes());
    if began.elapsed() > Duration::from_secs(8) {
        return Err("it hung".into());
    }
    let text = String::from_utf8_lossy(&all).to_ascii_lowercase();
    if let Some(found) = NEVER.iter().find(|n| text.contains(**n)) {
        return Err(format!("the client got `{found}`: {text}"));
    }
    let reply = (!all.is_empty()).then(|| Reply::parse(&all));
    let good = match (behaviour.gets, &reply) {
        (Refusal, Some(reply)) => reply.status == 502 && reply.code() == "upstream-protocol",
        (Whole(status, body), Some(reply)) => reply.status == status && reply.text() == body,
        (Cut, Some(reply)) => {
            let length = reply.field("content-length").map(|l| l.parse::<usize>().unwrap());
            reply.status == 502 || length.is_some_and(|l| l > reply.body.len()) || (length.is_none() && !all.ends_with(b"0\r\n\r\n"))
        }
        (Cut, None) => true,
        _ => false,
    };
    if !good {
        return Err(format!("the client got {:?}", String::from_utf8_lossy(&all[..all.len().min(600)])));
    }
    for path in ["/one", "/two", "/three"] {
        let next = gateway.get(&format!("/r/up{path}"));
        if (next.status, next.text().as_str()) != (200, path) {
            return Err(format!("then {path} was answered with {} {}", next.status, next.text()));
        }
    }
    Ok(())
}

#[test]
fn no_behaviour_of_an_upstream_is_unsafe() {
    let all: Vec<Behaviour> = framing().into_iter().chain(surplus()).chain(heads()).collect();
    assert!(all.len() >= 45, "{}", all.len());
    let queue = std::sync::Mutex::new(all);
    let wrong = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Some(behaviour) = { queue.lock().unwrap().pop() } {
                    if let Err(why) = judge(&behaviour) {
                        wrong.lock().unwrap().push(format!("{}: {why}\n", behaviour.name));
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{}", wrong.concat());
}

#[test]
fn an_answer_that_comes_while_nobody_asks_is_nobodys() {
    let upstream = Upstream::answering(|seen, stream| {
        let body = seen.target().to_owned();
        stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).as_bytes()).unwrap();
        if body == "/evil" {
            std::thread::sleep(Duration::from_millis(50));
            let _ = stream.write_all(STOLEN.as_bytes());
        }
        true
    });
    let gateway = gateway(&upstream);
    assert_eq!(gateway.get("/r/up/evil").text(), "/evil");
    // The gateway closes a connection on which something comes unasked.
    eventually(|| (upstream.closed() == 1).then_some(())).expect("the poisoned connection stays open");
    for path in ["/one", "/two"] {
        assert_eq!(gateway.get(&format!("/r/up{path}")).text(), path);
    }
}

#[test]
fn a_thousand_tiny_chunks_a_dripping_head_and_an_early_answer_are_fine() {
    let upstream = Upstream::answering(|seen, stream| match seen.target() {
        "/chunks" => {
            let chunks = "1\r\nx\r\n".repeat(1000);
            stream.write_all(format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}0\r\n\r\n").as_bytes()).is_ok()
        }
        _ => b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".iter().all(|b| {
            std::thread::sleep(Duration::from_millis(1));
            stream.write_all(&[*b]).is_ok()
        }),
    });
    let gateway = gateway(&upstream);
    assert_eq!(gateway.get("/r/up/chunks").body.len(), 1000);
    assert_eq!(gateway.get("/r/up/drip").text(), "ok");
    assert_eq!(upstream.connections(), 1, "good answers leave the connection usable");
}

#[test]
fn an_upstream_that_never_ends_its_head_or_its_interim_answers_is_given_up() {
    for piece in ["HTTP/1.1 100 Continue\r\n\r\n", "A: b\r\n"] {
        let upstream = Upstream::answering(move |_, stream| {
            let mut sent = piece.starts_with("HTTP") || stream.write_all(b"HTTP/1.1 200 OK\r\n").is_ok();
            let until = Instant::now() + PATIENCE;
            while sent && Instant::now() < until {
                sent = stream.write_all(piece.repeat(100).as_bytes()).is_ok();
            }
            false
        });
        let gateway = gateway(&upstream);
        let reply = gateway.get("/r/up/a");
        assert_eq!((reply.status, reply.code().as_str()), (502, "upstream-protocol"));
        eventually(|| (upstream.closed() == 1).then_some(())).expect("the connection stays open");
    }
}

#[test]
fn a_compressed_bomb_goes_through_as_it_is_and_takes_no_memory() {
    // The gateway decodes nothing: 1 KiB that would become 1 MiB stays 1 KiB.
    let bomb = "\u{1f}".repeat(1024);
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 1024\r\n\r\n{bomb}");
    let upstream = upstream(answer.into());
    let gateway = gateway(&upstream);
    let all = gateway.raw(b"GET /r/up/evil HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    assert_eq!(Reply::parse(&all).body, bomb.as_bytes());
    assert!(find(&all, b"content-encoding: gzip").is_some());
}
