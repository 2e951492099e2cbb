//! HTTP Digest against servers that no one here wrote: Apache httpd (MD5, nonces that age), lighttpd (SHA-256, two
//! challenges, hashed user names) and httpbin (protected bodies, SHA-512).

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;

use md5::Digest as _;

use crate::counterparts::{Server, program, www};
use crate::support::relay::{bent, changed, head, python, relay, send};
use crate::support::{Gateway, PATIENCE, Reply, Upstream, eventually, free_port};

const USER: &str = "acme";
const PASSWORD: &str = "open \"sesame\" wörd";

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn md5_of(text: &str) -> String {
    hex(&md5::Md5::digest(text.as_bytes()))
}

fn sha256_of(text: &str) -> String {
    hex(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes()).as_ref())
}

/// Apache httpd with its files behind Digest. `lines` go into the protected directory.
fn apache(folder: &Path, lines: &str) -> Option<Server> {
    let (program, port) = (program("apache2")?, free_port());
    fs::write(folder.join("users"), format!("{USER}:postern:{}\n", md5_of(&format!("{USER}:postern:{PASSWORD}")))).unwrap();
    let modules = "/usr/lib/apache2/modules";
    let load: String = ["mpm_event", "authn_core", "authn_file", "authz_core", "authz_user", "auth_digest"]
        .iter()
        .map(|name| format!("LoadModule {name}_module {modules}/mod_{name}.so\n"))
        .collect();
    let at = folder.display();
    let config = format!(
        "ServerRoot {at}\nServerName localhost\nListen 127.0.0.1:{port}\nPidFile {at}/pid\nErrorLog {at}/error.log\nDefaultRuntimeDir {at}\n{load}\
         LogFormat \"%{{remote}}p %k %>s %{{Authorization}}i\" count\nCustomLog {at}/access.log count\nMaxKeepAliveRequests 0\n\
         DocumentRoot {at}/www\n<Directory {at}/www>\nAuthType Digest\nAuthName postern\nAuthDigestProvider file\nAuthUserFile {at}/users\n\
         Require valid-user\n{lines}\n</Directory>\n"
    );
    fs::write(folder.join("httpd.conf"), config).unwrap();
    let mut command = Command::new(program);
    command.arg("-f").arg(folder.join("httpd.conf")).args(["-D", "FOREGROUND"]);
    Some(Server::start(command, port))
}

fn gateway(url: &str, more: &str) -> Gateway {
    let auth = format!("    auth: {{ digest: {{ username: {USER}, password: \"${{env:P}}\" }} }}\n");
    Gateway::start_with(&format!("resources:\n  up:\n    base_url: \"{url}\"\n{auth}{more}"), &[("P", PASSWORD)])
}

#[test]
fn apache_asks_once_and_refuses_whatever_is_changed() {
    let folder = www(&[("a.txt", b"behind digest"), ("b.txt", b"other")]);
    let Some(server) = apache(folder.path(), "") else { return };
    let relay = relay(server.port);
    let gateway = gateway(&relay.url(), "");
    for _ in 0..4 {
        let reply = gateway.get("/r/up/a.txt?x=1&y=%7e");
        assert_eq!((reply.status, reply.text().as_str()), (200, "behind digest"), "{}", reply.text());
    }
    // Five round trips for four calls, and the record says where.
    assert_eq!(relay.seen().len(), 5);
    let attempts: Vec<u64> = gateway.records(4).iter().map(|record| record["attempts"].as_u64().unwrap()).collect();
    assert_eq!(attempts, [2, 1, 1, 1]);
    let signed = relay.last();
    assert_eq!(send(server.port, &signed).status, 200, "the request as it was sent");
    for (what, tampered) in [
        ("the response", bent(&signed, "response=\"", '"')),
        ("the nonce", bent(&signed, "nonce=\"", '"')),
        ("the count", bent(&signed, "nc=", ',')),
        ("the client's nonce", bent(&signed, "cnonce=\"", '"')),
        ("the method", changed(&signed, "GET ", "POST ")),
        ("the path and what is said of it", changed(&changed(&signed, "GET /a.txt", "GET /b.txt"), "uri=\"/a.txt", "uri=\"/b.txt")),
        ("the path", changed(&signed, "GET /a.txt", "GET /b.txt")),
        ("the user", changed(&signed, "username=\"acme\"", "username=\"root\"")),
    ] {
        let status = send(server.port, &tampered).status;
        assert!(matches!(status, 400 | 401), "{what} was changed, and the answer is {status}");
    }
}

#[test]
fn a_wrong_password_is_tried_once_and_the_refusal_is_apaches_own() {
    let folder = www(&[("a.txt", b"behind digest")]);
    let Some(server) = apache(folder.path(), "") else { return };
    let relay = relay(server.port);
    let auth = format!("    auth: {{ digest: {{ username: {USER}, password: \"${{env:P}}\" }} }}\n");
    let config = format!("resources:\n  up:\n    base_url: \"{}\"\n{auth}", relay.url());
    let gateway = Gateway::start_with(&config, &[("P", "wrong")]);
    let reply = gateway.get("/r/up/a.txt");
    assert_eq!(reply.status, 401);
    assert!(reply.field("www-authenticate").is_some() && reply.field("proxy-status").is_none(), "{}", reply.head);
    assert_eq!(gateway.get("/r/up/a.txt").status, 401);
    assert_eq!(relay.seen().len(), 3, "one question, and one try for each call");
}

#[test]
fn apache_says_stale_and_nobody_notices() {
    let folder = www(&[("a.txt", b"behind digest")]);
    let Some(server) = apache(folder.path(), "AuthDigestNonceLifetime 1") else { return };
    let relay = relay(server.port);
    let gateway = gateway(&relay.url(), "");
    // Until the nonce has aged at least twice.
    let aged = eventually(|| {
        let reply = gateway.get("/r/up/a.txt");
        assert_eq!((reply.status, reply.text().as_str()), (200, "behind digest"), "{}", reply.head);
        let nonces: HashSet<String> = relay.seen().iter().filter_map(|seen| nonce(seen.field("authorization")?)).collect();
        (nonces.len() > 2).then_some(())
    });
    assert!(aged.is_some());
}

fn nonce(authorization: &str) -> Option<String> {
    authorization.split(" nonce=\"").nth(1)?.split('"').next().map(str::to_owned)
}

#[test]
fn a_thousand_calls_at_once_cost_a_handful_of_round_trips_and_no_count_comes_twice() {
    let folder = www(&[("a.txt", b"behind digest")]);
    let Some(server) = apache(folder.path(), "") else { return };
    let gateway = gateway(&server.url(), "    timeouts: { queue: 1m }\n");
    std::thread::scope(|scope| {
        for _ in 0..50 {
            scope.spawn(|| {
                let request = format!("GET /r/up/a.txt HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nConnection: close\r\n\r\n", gateway.port);
                let mut streams: Vec<TcpStream> = (0..20).map(|_| TcpStream::connect(("127.0.0.1", gateway.port)).unwrap()).collect();
                streams.iter_mut().for_each(|stream| stream.write_all(request.as_bytes()).unwrap());
                for mut stream in streams {
                    stream.set_read_timeout(Some(3 * PATIENCE)).unwrap();
                    let mut bytes = Vec::new();
                    let _ = stream.read_to_end(&mut bytes);
                    let reply = Reply::parse(&bytes);
                    assert_eq!((reply.status, reply.text().as_str()), (200, "behind digest"), "{}", reply.text());
                }
            });
        }
    });
    let log = eventually(|| fs::read_to_string(folder.path().join("access.log")).ok().filter(|log| log.lines().count() >= 1001)).unwrap();
    // The log escapes quotes.
    let log = log.replace("\\\"", "\"");
    let bare = log.lines().filter(|line| line.ends_with(" 401 -")).count();
    assert!((1..=8).contains(&bare), "{bare} calls went out bare");
    let mut counts = HashSet::new();
    let mut connections: BTreeMap<&str, BTreeMap<u32, u32>> = BTreeMap::new();
    for line in log.lines().filter(|line| line.contains("nc=")) {
        let (nonce, count) = (nonce(line).unwrap(), u32::from_str_radix(&line.split("nc=").nth(1).unwrap()[..8], 16).unwrap());
        assert!(counts.insert((nonce, count)), "{count} came twice");
        let mut words = line.split(' ');
        let (port, number) = (words.next().unwrap(), words.next().unwrap().parse().unwrap());
        assert_eq!(connections.entry(port).or_default().insert(number, count), None);
    }
    assert!(counts.len() >= 1000);
    for (port, counts) in connections {
        let counts: Vec<u32> = counts.into_values().collect();
        assert!(counts.is_sorted(), "on {port}: {counts:?}");
    }
}

/// lighttpd with its files behind Digest.
fn lighttpd(folder: &Path, algorithms: &str) -> Option<Server> {
    let (program, port) = (program("lighttpd")?, free_port());
    let secret = format!("{USER}:postern:{PASSWORD}");
    let name = format!("{USER}:postern");
    let users = format!("{name}:{}:{}\n{name}:{}:{}\n", md5_of(&secret), md5_of(&name), sha256_of(&secret), sha256_of(&name));
    fs::write(folder.join("users"), users).unwrap();
    let at = folder.display();
    let config = format!(
        "server.modules = (\"mod_auth\", \"mod_authn_file\")\nserver.document-root = \"{at}/www\"\nserver.bind = \"127.0.0.1\"\nserver.port = {port}\n\
         server.errorlog = \"{at}/error.log\"\nauth.backend = \"htdigest\"\nauth.backend.htdigest.userfile = \"{at}/users\"\n\
         auth.require = (\"\" => (\"method\" => \"digest\", \"algorithm\" => \"{algorithms}\", \"realm\" => \"postern\", \
         \"require\" => \"valid-user\", \"userhash\" => \"enable\"))\n"
    );
    fs::write(folder.join("lighttpd.conf"), config).unwrap();
    let mut command = Command::new(program);
    command.arg("-D").arg("-f").arg(folder.join("lighttpd.conf"));
    Some(Server::start(command, port))
}

#[test]
fn lighttpd_offers_two_challenges_and_gets_the_stronger_with_a_hashed_user_name() {
    let folder = www(&[("a.txt", b"behind digest"), ("b.txt", b"other")]);
    let Some(server) = lighttpd(folder.path(), "MD5|SHA-256") else { return };
    let relay = relay(server.port);
    let gateway = gateway(&relay.url(), "");
    for _ in 0..3 {
        let reply = gateway.get("/r/up/a.txt?q");
        assert_eq!((reply.status, reply.text().as_str()), (200, "behind digest"), "{}", reply.head);
    }
    assert_eq!(relay.seen().len(), 4);
    let signed = relay.last();
    let authorization = signed.field("authorization").unwrap();
    assert!(authorization.contains("algorithm=SHA-256") && authorization.contains("userhash=true"), "{authorization}");
    assert!(authorization.contains(&sha256_of(&format!("{USER}:postern"))) && !authorization.contains(USER), "{authorization}");
    assert_eq!(send(server.port, &signed).status, 200, "the request as it was sent");
    for (what, tampered) in [
        ("the response", bent(&signed, "response=\"", '"')),
        ("the nonce", bent(&signed, " nonce=\"", '"')),
        ("the count", bent(&signed, "nc=", ',')),
        ("the path", changed(&signed, "GET /a.txt", "GET /b.txt")),
        ("the user", bent(&signed, "username=\"", '"')),
        ("the algorithm", changed(&signed, "algorithm=SHA-256", "algorithm=MD5")),
    ] {
        let status = send(server.port, &tampered).status;
        assert!(matches!(status, 400 | 401), "{what} was changed, and the answer is {status}");
    }
}

/// httpbin, which tells nothing apart by its users: its paths say them.
fn httpbin() -> Option<Server> {
    let (mut command, port) = (python("httpbin")?, free_port());
    command.args(["-c", &format!("from httpbin import app\napp.run(host='127.0.0.1', port={port}, threaded=True)")]);
    Some(Server::start(command, port))
}

#[test]
fn httpbin_accepts_protected_bodies_in_every_algorithm_and_refuses_another_body() {
    let Some(server) = httpbin() else { return };
    let relay = relay(server.port);
    for algorithm in ["MD5", "SHA-256", "SHA-512"] {
        for quality in ["auth", "auth-int", "any"] {
            let auth = "    auth: { digest: { username: acme, password: \"${env:P}\" } }\n";
            let config = format!("resources:\n  up:\n    base_url: \"{}\"\n{auth}", relay.url());
            let gateway = Gateway::start_with(&config, &[("P", "sesame")]);
            let path = format!("/r/up/digest-auth/{quality}/acme/sesame/{algorithm}");
            for body in [&b""[..], b"the body"] {
                let reply = gateway.send("GET", &path, "Content-Type: text/plain\r\n", body);
                assert_eq!(reply.status, 200, "{algorithm} {quality}: {}", reply.text());
                assert_eq!(reply.json()["authenticated"], true);
            }
            let signed = relay.last();
            let authorization = signed.field("authorization").unwrap();
            let wanted = if quality == "auth" { "qop=auth," } else { "qop=auth-int," };
            assert!(authorization.contains(wanted) && authorization.contains(&format!("algorithm={algorithm}")), "{authorization}");
            assert_eq!(send(server.port, &signed).status, 200, "the request as it was sent");
            assert_eq!(send(server.port, &bent(&signed, "response=\"", '"')).status, 401);
            assert_eq!(send(server.port, &bent(&signed, "cnonce=\"", '"')).status, 401);
            assert_eq!(send(server.port, &bent(&signed, "nc=", ',')).status, 401);
            let mut other = signed.clone();
            other.raw_body = b"The body".to_vec();
            assert_eq!(send(server.port, &other).status, if quality == "auth" { 200 } else { 401 }, "{quality}");
        }
    }
}

#[test]
fn a_body_larger_than_the_buffer_is_sent_once_the_server_has_asked_for_digest_without_reading_it() {
    let body = vec![b'x'; 3 << 20];
    // Refuses on the head alone, as RFC 9110 section 10.1.1 wants it, and reads the body of the second attempt.
    let upstream = Upstream::raw(|mut stream, _, seen| {
        while let Some(mut request) = head(&mut stream) {
            let mut answer = "HTTP/1.1 401 Unauthorized\r\nConnection: close\r\nContent-Length: 0\r\n\
                              WWW-Authenticate: Digest realm=\"r\", nonce=\"n\", qop=\"auth\"\r\n\r\n";
            let bare = request.field("authorization").is_none();
            if !bare {
                if request.field("expect").is_some() {
                    stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").unwrap();
                }
                request.body = vec![0; request.field("content-length").unwrap().parse().unwrap()];
                stream.read_exact(&mut request.body).unwrap();
                answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
            }
            seen.lock().unwrap().push(request);
            stream.write_all(answer.as_bytes()).unwrap();
            if bare {
                return;
            }
        }
    });
    let gateway = gateway(&upstream.url(), "");
    let reply = gateway.send("PUT", "/r/up/a", "", &body);
    assert_eq!((reply.status, reply.text().as_str()), (200, "ok"), "{}", reply.text());
    let seen = upstream.seen();
    assert_eq!(seen.len(), 2);
    assert_eq!(seen[0].field("expect"), Some("100-continue"));
    assert!(seen[1].body == body, "the body of the second attempt differs");
}

#[test]
fn a_nonce_that_the_server_names_for_the_next_call_saves_the_round_trip() {
    let upstream = Upstream::answering(|seen, stream| {
        let number: u32 = seen.field("authorization").and_then(nonce).map_or(0, |nonce| nonce[1..].parse().unwrap());
        let answer = match number {
            0 => {
                "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nWWW-Authenticate: Digest realm=\"r\", nonce=\"n1\", qop=\"auth\"\r\n\r\n"
                    .into()
            }
            number => format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nAuthentication-Info: nextnonce=\"n{}\"\r\n\r\n", number + 1),
        };
        stream.write_all(answer.as_bytes()).is_ok()
    });
    let gateway = gateway(&upstream.url(), "");
    for _ in 0..3 {
        assert_eq!(gateway.get("/r/up/a").status, 200);
    }
    let nonces: Vec<String> = upstream.seen().iter().filter_map(|seen| nonce(seen.field("authorization")?)).collect();
    assert_eq!(nonces, ["n1", "n2", "n3"]);
    assert!(upstream.seen().iter().skip(1).all(|seen| seen.field("authorization").unwrap().contains("nc=00000001")));
}

#[test]
fn a_request_that_dies_on_an_old_connection_goes_out_again_under_another_count() {
    // Answers one request on each connection, takes the next one in, and closes without a word.
    let upstream = Upstream::raw(|mut stream, _, seen| {
        let Some(request) = head(&mut stream) else { return };
        let challenge =
            "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nWWW-Authenticate: Digest realm=\"r\", nonce=\"n\", qop=\"auth\"\r\n\r\n";
        let answer = if request.field("authorization").is_some() { "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n" } else { challenge };
        seen.lock().unwrap().push(request);
        stream.write_all(answer.as_bytes()).unwrap();
        if let Some(request) = head(&mut stream) {
            seen.lock().unwrap().push(request);
        }
    });
    let gateway = gateway(&upstream.url(), "");
    for _ in 0..3 {
        assert_eq!(gateway.get("/r/up/a").status, 200);
    }
    let counts: Vec<String> =
        upstream.seen().iter().filter_map(|seen| Some(seen.field("authorization")?.split("nc=").nth(1)?[..8].to_owned())).collect();
    let different: HashSet<&String> = counts.iter().collect();
    assert!(counts.len() > 3, "nothing was sent again: {counts:?}");
    assert_eq!(different.len(), counts.len(), "{counts:?}");
}
