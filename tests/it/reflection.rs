//! Upstreams that send the credential back: what the client sees of it, and what the audit log says.

use std::io::Write as _;

use crate::support::{Gateway, Reply, Seen, Upstream};

const TOKEN: &str = "t0ken/of+some=length";

/// An upstream that shows what it got: in the head, in the body, and behind it, in pieces.
fn echo() -> Upstream {
    Upstream::answering(|seen, stream| {
        let sent = seen.field("authorization").or(seen.field("x-api-key")).unwrap_or("nothing").to_owned();
        match seen.target().split('?').next().unwrap() {
            "/head" => stream
                .write_all(
                    format!("HTTP/1.1 200 OK\r\nX-Echo: {sent}\r\nLocation: /next?token={}\r\nContent-Length: 2\r\n\r\nok", escaped(&sent))
                        .as_bytes(),
                )
                .is_ok(),
            "/body" => answer(stream, "application/json", &format!("{{\"you sent\":\"{sent}\"}}")),
            "/binary" => answer(stream, "application/octet-stream", &sent),
            "/gzip" => stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\nxx")
                .is_ok(),
            "/pieces" => {
                let mut good = stream
                    .write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nbefore\r\n")
                    .is_ok();
                for b in sent.bytes() {
                    good = good && stream.write_all(format!("1\r\n{}\r\n", b as char).as_bytes()).is_ok();
                }
                good && stream.write_all(b"5\r\nafter\r\n0\r\n\r\n").is_ok()
            }
            _ => answer(stream, "text/plain", "fine"),
        }
    })
}

fn escaped(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

fn answer(stream: &mut std::net::TcpStream, kind: &str, body: &str) -> bool {
    stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).as_bytes()).is_ok()
}

fn gateway(upstream: &Upstream, auth: &str, more: &str) -> Gateway {
    let config = format!("resources:\n  up:\n    base_url: \"{}\"\n    auth: {auth}\n{more}", upstream.url());
    Gateway::start_with(&config, &[("T", TOKEN), ("U", "somebody")])
}

const BEARER: &str = "{ bearer: \"${env:T}\" }";
const BASIC: &str = "{ basic: { username: \"${env:U}\", password: \"${env:T}\" } }";
const KEY: &str = "{ api_key: { in: header, name: X-Api-Key, value: \"${env:T}\" } }";

/// Whether any spelling of the token is in it.
fn shows(reply: &Reply) -> bool {
    use base64::Engine as _;
    let text = format!("{}\n{}", reply.head, reply.text());
    let inside = base64::engine::general_purpose::STANDARD.encode(format!("somebody:{TOKEN}"));
    text.contains(TOKEN) || text.to_ascii_lowercase().contains(&escaped(TOKEN).to_ascii_lowercase()) || text.contains(&inside)
}

#[test]
fn a_credential_in_a_head_is_masked_by_default_in_every_spelling_and_the_audit_log_says_so() {
    for auth in [BEARER, BASIC, KEY] {
        let upstream = echo();
        let gateway = gateway(&upstream, auth, "");
        let reply = gateway.get("/r/up/head");
        assert_eq!((reply.status, reply.text().as_str()), (200, "ok"), "{auth}");
        assert!(!shows(&reply), "{auth}: {}", reply.head);
        assert!(reply.field("x-echo").unwrap().contains("**********"), "{}", reply.head);
        let record = &gateway.records(1)[0];
        assert_eq!((&record["reflection"], record.get("error")), (&"head".into(), None), "{record}");
        assert!(gateway.stderr().contains("held the credential"), "{}", gateway.stderr());
        assert!(!gateway.stderr().contains(TOKEN));
        assert_eq!(gateway.get("/r/up/fine").status, 200);
        assert_eq!(gateway.records(2)[1].get("reflection"), None);
    }
}

#[test]
fn bodies_are_masked_on_request_across_any_border() {
    let upstream = echo();
    let plain = gateway(&upstream, BEARER, "");
    assert!(shows(&plain.get("/r/up/body")), "bodies are not searched unless asked for");
    let gateway = gateway(&upstream, BEARER, "    reflection: mask\n");
    let stars = "*".repeat(TOKEN.len());
    assert_eq!(gateway.get("/r/up/body").text(), format!("{{\"you sent\":\"Bearer {stars}\"}}"));
    assert_eq!(gateway.get("/r/up/pieces").text(), format!("beforeBearer {stars}after"));
    assert!(shows(&gateway.get("/r/up/binary")), "what is no text is not searched");
    let records = gateway.records(3);
    assert_eq!(
        (&records[0]["reflection"], &records[1]["reflection"], records[2].get("reflection")),
        (&"body".into(), &"body".into(), None)
    );
}

#[test]
fn where_bodies_are_searched_they_come_uncompressed_and_whole() {
    let upstream = echo();
    let gateway = gateway(&upstream, BEARER, "    reflection: mask\n");
    gateway.send("GET", "/r/up/fine", "Accept-Encoding: gzip, br\r\nRange: bytes=0-3\r\nIf-Range: \"x\"\r\n", b"");
    let seen: Seen = upstream.last();
    assert_eq!((seen.fields("accept-encoding"), seen.field("range"), seen.field("if-range")), (vec!["identity"], None, None));
    let reply = gateway.get("/r/up/gzip");
    assert_eq!((reply.status, reply.code().as_str()), (502, "upstream-protocol"));
}

#[test]
fn block_refuses_the_answer_or_cuts_it() {
    let upstream = echo();
    let gateway = gateway(&upstream, BEARER, "    reflection: block\n");
    for path in ["/head", "/body"] {
        let reply = gateway.get(&format!("/r/up{path}"));
        assert_eq!((reply.status, reply.code().as_str()), (502, "upstream-protocol"), "{path}");
        assert!(!shows(&reply));
    }
    let all = gateway.raw(b"GET /r/up/pieces HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    let text = String::from_utf8_lossy(&all);
    assert!(text.contains("before") && !text.contains("after") && !text.contains("\r\n0\r\n"), "{text}");
    assert_eq!(gateway.get("/r/up/fine").text(), "fine");
    let records = gateway.records(4);
    assert_eq!((&records[0]["reflection"], &records[0]["error"]), (&"head".into(), &"upstream-protocol".into()));
    assert_eq!((&records[2]["reflection"], &records[2]["error"]), (&"body".into(), &"upstream-protocol".into()));
}

#[test]
fn off_is_off() {
    let upstream = echo();
    for off in ["off", "false"] {
        let gateway = gateway(&upstream, BEARER, &format!("    reflection: {off}\n"));
        assert_eq!(gateway.get("/r/up/head").field("x-echo"), Some(format!("Bearer {TOKEN}").as_str()));
    }
}
