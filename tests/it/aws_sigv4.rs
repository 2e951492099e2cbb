//! AWS Signature Version 4 against verifiers that no one here wrote: botocore over the bytes that arrived, moto with IAM
//! enforced, and the AWS command line in front of it all.

use std::fmt::Write as _;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;

use crate::counterparts::Server;
use crate::support::relay::{bent, changed, python, relay, send};
use crate::support::{Gateway, PATIENCE, Reply, Seen, Upstream, eventually, free_port, root, variable};

const ID: &str = "AKIDEXAMPLE";
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";

/// botocore as a judge; its clock is this many seconds ahead.
fn oracle(ahead: i64) -> Option<Server> {
    let (mut command, port) = (python("botocore")?, free_port());
    command.arg(root().join("tests/it/peers/sigv4_oracle.py")).args([&port.to_string(), ID, SECRET, &ahead.to_string()]);
    Some(Server::start(command, port))
}

fn gateway(url: &str, service: &str, keys: (&str, &str), more: &str) -> Gateway {
    let auth = format!(
        "{{ service: {service}, region: us-east-1, access_key_id: \"${{env:ID}}\", secret_access_key: \"${{env:SECRET}}\"{more} }}"
    );
    let config = format!(
        "resources:\n  up:\n    base_url: \"{url}\"\n    timeouts: {{ head: 10m }}\n    auth:\n      aws_sigv4: {auth}\n    limits: {{ buffer: 64KiB }}\n"
    );
    Gateway::start_with(&config, &[("ID", keys.0), ("SECRET", keys.1)])
}

/// Targets that libraries get wrong.
fn corpus() -> Vec<String> {
    let mut all: Vec<String> = [
        "/",
        "/key",
        "/a/b/c/",
        "/a//b///c",
        "/a%20b/c%20",
        "/100%25/%2525",
        "/a+b/c%2Bd",
        "/(a)!'*/$&,;:=@",
        "/%28a%29%21%27%2A",
        "/@connections/JBDvjfGEIAMCERw%3D",
        "/functions/arn:aws:lambda:us-east-1:1:function:f/invocations",
        "/%e1%88%b4/%C3%BC",
        "/a%2Fb%2fc",
        "/~tilde/-_.x",
        "/...",
        "/a%0Ab",
        "/key?acl",
        "/key?versionId=a%2Fb%3D%3D&partNumber=1",
        "/?list-type=2&prefix=photos%2F2006%2F&delimiter=/&max-keys=10",
        "/?b=2&a=2&a=1&A=3&B",
        "/?prefix=a+b%20c%2Bd",
        "/?x=%7e%7E~%2d-&y=!'()*",
        "/?x=a=b==&=y&z=",
        "/?&&a=1&",
        "/?x=%E1%88%B4&%C3%BC=1",
        "/?a-b=1&a=2&a.b=3&ab=4",
        "/?q=a/b?c:d@e,f;g",
        "/?x=%zz&y=%",
        "/?",
    ]
    .map(str::to_owned)
    .to_vec();
    // Every byte that a target may hold, by itself and encoded, in the path and in the query.
    let mut encoded = String::new();
    (1..=0xff).filter(|b| !b"/\\.;".contains(b)).for_each(|b: u8| write!(encoded, "%{b:02x}").unwrap());
    let plain: String = (0x21..0x7f_u8).map(char::from).filter(|c| !"\"#%<>?`\\/".contains(*c)).collect();
    all.push(format!("/x{plain}x"));
    all.push(format!("/?x{}x", plain.replace('&', "")));
    all.push(format!("/?x={plain}"));
    // Bytes beyond ASCII in UTF-8 only: botocore reads nothing else.
    let ascii = &encoded[..encoded.find("%80").unwrap()];
    all.push(format!("/x{ascii}x"));
    all.push(format!("/?{ascii}=1"));
    all.push(format!("/?x={ascii}"));
    all
}

#[test]
fn botocore_finds_the_signature_of_every_hard_target_right() {
    let Some(server) = oracle(0) else { return };
    for service in ["s3", "execute-api"] {
        let gateway = gateway(&format!("{}/base", server.url()), service, (ID, SECRET), "");
        for target in corpus() {
            for (method, body) in [("GET", &b""[..]), ("PUT", b"{\"a\": 1}")] {
                let fields = "Content-Type: text/plain; x=\"a  b\"\r\nx-amz-meta-a:   one   two \r\nX-Amz-Meta-A: three\r\n";
                let reply = gateway.send(method, &format!("/r/up{target}"), fields, body);
                assert_eq!(reply.status, 200, "{service} {method} {target}: {}", reply.text());
            }
        }
    }
}

#[test]
fn botocore_refuses_whatever_is_changed() {
    let Some(server) = oracle(0) else { return };
    for service in ["s3", "execute-api"] {
        let relay = relay(server.port);
        let gateway = gateway(&relay.url(), service, (ID, SECRET), ", session_token: \"${env:SECRET}\"");
        let reply = gateway.send("PUT", "/r/up/a?b=1", "Content-Type: text/plain\r\nX-Amz-Meta-A: one\r\n", b"the body");
        assert_eq!(reply.status, 200, "{}", reply.text());
        let signed = relay.last();
        assert_eq!(send(server.port, &signed).status, 200, "the request as it was sent");
        let body = Seen { raw_body: b"The body".to_vec(), ..signed.clone() };
        for (what, tampered) in [
            ("the signature", bent(&signed, "Signature=", '\r')),
            ("the method", changed(&signed, "PUT ", "POST ")),
            ("the path", changed(&signed, "/a?", "/b?")),
            ("the query", changed(&signed, "b=1", "b=2")),
            ("a parameter more", changed(&signed, "b=1", "b=1&c=1")),
            ("a signed field", changed(&signed, "x-amz-meta-a: one", "x-amz-meta-a: two")),
            ("the type", changed(&signed, "text/plain", "text/html")),
            ("a field more", changed(&signed, "x-amz-meta-a: one", "x-amz-meta-a: one\r\nx-amz-acl: public-read")),
            ("the date", bent(&signed, "x-amz-date: ", 'Z')),
            ("the key", changed(&signed, ID, "AKIDEXAMPLF")),
            ("the region", changed(&signed, "us-east-1", "us-east-2")),
            ("the token", changed(&signed, "x-amz-security-token: w", "x-amz-security-token: x")),
            ("the body", body),
        ] {
            assert_eq!(send(server.port, &tampered).status, 403, "{service}: {what} was changed");
        }
    }
}

#[test]
fn bodies_of_every_kind_are_signed_in_the_way_that_the_service_takes() {
    let Some(server) = oracle(0) else { return };
    let large = vec![b'x'; 200_000];
    for (service, more, body, kind) in [
        ("s3", "", &b"small"[..], "hash"),
        ("s3", "", &large, "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"),
        ("s3", ", payload: signed", &large, "hash"),
        ("s3", ", payload: unsigned", b"small", "UNSIGNED-PAYLOAD"),
        ("s3", ", payload: streaming", b"small", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"),
        ("glacier", "", &large, "hash"),
    ] {
        let gateway = gateway(&server.url(), service, (ID, SECRET), more);
        let plain = gateway.send("PUT", "/r/up/a", "Content-Encoding: identity\r\n", body);
        let chunked = chunked(&gateway, body);
        for (how, reply) in [("with a length", &plain), ("in chunks", &chunked)] {
            assert_eq!(reply.status, 200, "{service}{more} {how}: {}", reply.text());
            let answer = reply.json();
            assert_eq!(answer["length"], body.len(), "{service}{more} {how}");
            // Without a length nothing can be streamed, so it is read first.
            let content = answer["content"].as_str().unwrap();
            let hashed = content == answer["sha256"];
            assert!(
                if kind == "hash" || how == "in chunks" && more.is_empty() { hashed } else { content == kind },
                "{service}{more} {how}: {content}"
            );
        }
    }
}

/// A PUT whose client does not say how long its body is.
fn chunked(gateway: &Gateway, body: &[u8]) -> Reply {
    let mut bytes = b"PUT /r/up/a HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    for piece in body.chunks(10_000) {
        bytes.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
        bytes.extend_from_slice(piece);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"0\r\n\r\n");
    Reply::parse(&gateway.raw(&bytes))
}

#[test]
fn a_body_changed_within_a_signed_chunk_is_refused() {
    let Some(server) = oracle(0) else { return };
    let relay = relay(server.port);
    let gateway = gateway(&relay.url(), "s3", (ID, SECRET), "");
    assert_eq!(gateway.send("PUT", "/r/up/a", "", &[b'x'; 200_000]).status, 200);
    let signed = relay.last();
    assert_eq!(send(server.port, &signed).status, 200, "the request as it was sent");
    for at in [100, 100_000, 200_000] {
        let mut tampered = signed.clone();
        assert_eq!(tampered.raw_body[at], b'x');
        tampered.raw_body[at] = b'y';
        assert_eq!(send(server.port, &tampered).status, 403, "{at}");
    }
}

#[test]
fn a_clients_own_signed_framing_is_taken_off_and_signed_anew() {
    let Some(server) = oracle(0) else { return };
    let gateway = gateway(&server.url(), "s3", (ID, SECRET), "");
    let body = b"5;chunk-signature=0\r\nhello\r\n6;chunk-signature=0\r\n world\r\n0\r\nx-amz-checksum-crc32:DUoRhQ==\r\n\r\n";
    let fields = "Content-Encoding: aws-chunked\r\nX-Amz-Decoded-Content-Length: 11\r\nX-Amz-Trailer: x-amz-checksum-crc32\r\n\
                  X-Amz-Content-Sha256: STREAMING-UNSIGNED-PAYLOAD-TRAILER\r\nX-Amz-Date: 20000101T000000Z\r\nAuthorization: AWS4-HMAC-SHA256 mine\r\n";
    let reply = gateway.send("PUT", "/r/up/a", fields, body);
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(reply.json()["length"], 11);
    let reply = gateway.send("PUT", "/r/up/a", &fields.replace("Length: 11", "Length: 12"), body);
    assert_eq!((reply.status, reply.code().as_str()), (400, "bad-request"), "{}", reply.text());
}

#[test]
fn a_service_whose_clock_is_elsewhere_is_signed_for_by_its_clock() {
    let Some(server) = oracle(7200) else { return };
    let relay = relay(server.port);
    let gateway = gateway(&relay.url(), "s3", (ID, SECRET), "");
    for _ in 0..3 {
        let reply = gateway.send("PUT", "/r/up/a", "", b"body");
        assert_eq!(reply.status, 200, "{}", reply.text());
    }
    assert_eq!(relay.seen().len(), 4, "one refusal, and the clock is known");
}

#[test]
fn what_the_client_signed_or_presigned_is_dropped() {
    let upstream = Upstream::ok();
    let gateway = gateway(&upstream.url(), "s3", (ID, SECRET), "");
    let fields = "Authorization: AWS4-HMAC-SHA256 mine\r\nX-Amz-Date: mine\r\nX-Amz-Security-Token: mine\r\nX-Amz-Content-Sha256: mine\r\n";
    let reply = gateway.send("GET", "/r/up/a?X-Amz-Signature=mine&x=1&X-Amz-Credential=mine&X-Amz-Security-Token=mine", fields, b"");
    assert_eq!(reply.status, 200);
    let seen = upstream.last();
    assert!(!seen.head.contains("mine"), "{}", seen.head);
    assert_eq!(seen.target(), "/a?x=1");
    assert_eq!((seen.fields("authorization").len(), seen.fields("x-amz-date").len()), (1, 1));
}

/// Resident memory of a process in bytes.
fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

/// Reads what comes, and remembers only how much. Stops where the head says.
fn swallow(mut stream: TcpStream) -> Option<()> {
    let head = crate::support::relay::head(&mut stream)?;
    let mut left: u64 = head.field("content-length")?.parse().ok()?;
    let mut piece = vec![0; 1 << 20];
    while left > 0 {
        let read = stream.read(&mut piece).ok().filter(|read| *read > 0)?;
        left -= read as u64;
    }
    stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n").ok()
}

#[test]
fn a_gibibyte_passes_in_signed_chunks_and_from_disk_without_being_held() {
    let upstream = Upstream::raw(|stream, _, _| {
        swallow(stream);
    });
    const SIZE: u64 = 1 << 30;
    for (service, length) in [("s3", SIZE), ("glacier", SIZE / 8)] {
        let gateway = gateway(&upstream.url(), service, (ID, SECRET), "");
        assert_eq!(gateway.send("PUT", "/r/up/warm", "", &[b'x'; 300_000]).status, 200);
        let before = resident(gateway.pid());
        let mut stream = TcpStream::connect(("127.0.0.1", gateway.port)).unwrap();
        stream.set_write_timeout(Some(6 * PATIENCE)).unwrap();
        stream.set_read_timeout(Some(6 * PATIENCE)).unwrap();
        let head = format!("PUT /r/up/a HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        let piece = vec![b'x'; 1 << 20];
        let mut most = 0;
        for _ in 0..length >> 20 {
            stream.write_all(&piece).unwrap();
            most = most.max(resident(gateway.pid()));
        }
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        assert_eq!(Reply::parse(&bytes).status, 200, "{}", Reply::parse(&bytes).text());
        let grown = most.max(resident(gateway.pid())).saturating_sub(before);
        assert!(grown < 16 << 20, "{service}: {length} bytes cost {grown}");
    }
}

/// moto with IAM enforced, and the keys of its one user.
pub fn moto(folder: &Path) -> Option<(Server, String, String)> {
    let (mut command, port) = (python("moto.server")?, free_port());
    let file = folder.join("keys");
    command.arg(root().join("tests/it/peers/moto_iam.py")).args([port.to_string().as_ref(), file.as_os_str()]);
    let server = Server::start(command, port);
    // It imports for a while before it serves.
    let keys = (0..6).find_map(|_| eventually(|| fs::read(&file).ok())).expect("moto does not enforce");
    let keys: serde_json::Value = serde_json::from_slice(&keys).unwrap();
    Some((server, keys["id"].as_str().unwrap().to_owned(), keys["secret"].as_str().unwrap().to_owned()))
}

#[test]
fn moto_enforces_iam_and_lets_the_gateway_in() {
    let folder = tempfile::tempdir().unwrap();
    let Some((server, id, secret)) = moto(folder.path()) else { return };
    let relay = relay(server.port);
    let s3 = gateway(&relay.url(), "s3", (&id, &secret), "");
    let reply = s3.send("PUT", "/r/up/bucket/folder/a.txt", "Content-Type: text/plain\r\n", b"in moto");
    assert_eq!(reply.status, 200, "{}", reply.text());
    let signed = relay.last();
    assert_eq!(send(server.port, &signed).status, 200, "the request as it was sent");
    for (what, tampered) in [
        ("the signature", bent(&signed, "Signature=", '\r')),
        ("the path", changed(&signed, "/a.txt ", "/b.txt ")),
        ("the key", changed(&signed, &id, "AKIAIOSFODNN7EXAMPLE")),
    ] {
        assert_eq!(send(server.port, &tampered).status, 403, "{what} was changed");
    }
    let reply = s3.get("/r/up/bucket/folder/a.txt");
    assert_eq!((reply.status, reply.text().as_str()), (200, "in moto"), "{}", reply.text());
    let reply = s3.get("/r/up/bucket?list-type=2&prefix=folder%2F");
    assert!(reply.status == 200 && reply.text().contains("<Key>folder/a.txt</Key>"), "{}", reply.text());
    let wrong = gateway(&server.url(), "s3", (&id, "wrong"), "");
    assert_eq!(wrong.get("/r/up/bucket/folder/a.txt").status, 403);

    let dynamodb = gateway(&server.url(), "dynamodb", (&id, &secret), "");
    let fields = "Content-Type: application/x-amz-json-1.0\r\nX-Amz-Target: DynamoDB_20120810.ListTables\r\n";
    let reply = dynamodb.send("POST", "/r/up/", fields, b"{}");
    assert_eq!(reply.status, 200, "{}", reply.text());
    let wrong = gateway(&server.url(), "dynamodb", (&id, "wrong"), "");
    assert!(matches!(wrong.send("POST", "/r/up/", fields, b"{}").status, 400 | 403));
}

/// s3s-fs, an S3 that verifies signatures over a folder.
fn s3s(folder: &Path) -> Option<Server> {
    let Some(program) = variable("POSTERN_TEST_S3S") else {
        assert!(variable("CI").is_none(), "POSTERN_TEST_S3S is missing, and nothing is skipped in CI");
        eprintln!("skipped: crate s3s-fs is not installed; ./tests/run installs it");
        return None;
    };
    let (mut command, port) = (Command::new(program), free_port());
    fs::create_dir(folder.join("bucket")).unwrap();
    command.args(["--access-key", ID, "--secret-key", SECRET, "--host", "127.0.0.1", "--port", &port.to_string()]).arg(folder);
    Some(Server::start(command, port))
}

#[test]
fn s3s_takes_objects_in_every_way_of_signing_and_refuses_whatever_is_changed() {
    let folder = tempfile::tempdir().unwrap();
    let Some(server) = s3s(folder.path()) else { return };
    let relay = relay(server.port);
    let large: Vec<u8> = (0..300_000_u32).map(|n| (n % 251) as u8).collect();
    for (payload, body) in [("auto", &b"small"[..]), ("signed", &large), ("auto", &large), ("streaming", &large), ("unsigned", &large)] {
        let gateway = gateway(&relay.url(), "s3", (ID, SECRET), &format!(", payload: {payload}"));
        for key in ["plain", "a%20b/%C3%BC/(c)+d%2Be", "x=y&z"] {
            let path = format!("/r/up/bucket/{payload}-{}/{key}", body.len());
            let reply = gateway.send("PUT", &path, "Content-Type: text/plain\r\n", body);
            assert_eq!(reply.status, 200, "{payload} {key}: {}", reply.text());
            let signed = relay.last();
            let reply = gateway.get(&path);
            assert!(reply.status == 200 && reply.body == body, "{payload} {key}: {} {}", reply.status, reply.body.len());
            for (what, tampered) in [
                ("the signature", bent(&signed, "Signature=", '\r')),
                ("the path", changed(&signed, "/bucket/", "/bucket/other")),
                ("the type", changed(&signed, "text/plain", "text/html")),
                ("the key", changed(&signed, ID, "AKIAIOSFODNN7EXAMPLE")),
            ] {
                let status = send(server.port, &tampered).status;
                assert!(matches!(status, 400 | 403), "{payload} {key}: {what} was changed, and s3s says {status}");
            }
        }
    }
    let gateway = gateway(&server.url(), "s3", (ID, SECRET), "");
    let reply = gateway.get("/r/up/bucket?list-type=2&prefix=auto-5%2Fa%20b");
    assert!(reply.status == 200 && reply.text().contains("<Key>auto-5/a b/"), "{}", reply.text());
    assert_eq!(gateway.send("DELETE", "/r/up/bucket/auto-5/plain", "", b"").status, 204);
    assert_eq!(gateway.get("/r/up/bucket/auto-5/plain").status, 404);
}

#[test]
fn the_command_line_of_aws_works_through_the_gateway_without_keys_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let Some((server, id, secret)) = moto(folder.path()) else { return };
    if python("awscli").is_none() {
        return;
    }
    let gateway = gateway(&server.url(), "s3", (&id, &secret), "");
    let url = format!("http://127.0.0.1:{}/r/up", gateway.port);
    let aws = |arguments: &[&str]| {
        let mut command: Command = python("awscli").unwrap();
        command.env_clear().env("HOME", folder.path()).env("AWS_EC2_METADATA_DISABLED", "true");
        command.envs([("AWS_ACCESS_KEY_ID", "none"), ("AWS_SECRET_ACCESS_KEY", "none"), ("AWS_DEFAULT_REGION", "us-east-1")]);
        let output = command.args(["-m", "awscli", "--endpoint-url", &url]).args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let (small, large, back) = (folder.path().join("small"), folder.path().join("large"), folder.path().join("back"));
    fs::write(&small, "from the command line").unwrap();
    let bytes: Vec<u8> = (0..9_000_000_u32).map(|n| (n % 251) as u8).collect();
    fs::write(&large, &bytes).unwrap();
    aws(&["s3", "cp", small.to_str().unwrap(), "s3://bucket/a b/ü+(1).txt"]);
    let listed = aws(&["s3", "ls", "s3://bucket/a b/"]);
    assert!(listed.contains("+(1).txt"), "{listed}");
    aws(&["s3", "cp", "s3://bucket/a b/ü+(1).txt", back.to_str().unwrap()]);
    assert_eq!(fs::read_to_string(&back).unwrap(), "from the command line");
    // More than eight megabytes go in parts.
    aws(&["s3", "cp", large.to_str().unwrap(), "s3://bucket/large"]);
    aws(&["s3", "cp", "s3://bucket/large", back.to_str().unwrap()]);
    assert!(fs::read(&back).unwrap() == bytes, "the bytes differ");
    aws(&["s3", "rm", "s3://bucket/large"]);
}
