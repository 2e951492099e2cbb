//! Against programs that no one here wrote: curl, nginx, Apache httpd and the websockets package of PyPI.
//! `./tests/run` installs them. In CI a missing one is a failure; elsewhere its tests say that they were skipped.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use crate::support::{Gateway, Upstream, eventually, free_port, variable};

/// A program's path, or `None` with a word about it.
pub fn program(name: &str) -> Option<PathBuf> {
    let places = variable("PATH").unwrap_or_default();
    let found = places.split(':').chain(["/usr/sbin"]).map(|folder| Path::new(folder).join(name)).find(|path| path.is_file());
    if found.is_none() {
        assert!(variable("CI").is_none(), "{name} is missing, and nothing is skipped in CI");
        eprintln!("skipped: {name} is not installed");
    }
    found
}

/// A server in the background, ended with the test.
pub struct Server {
    child: Child,
    pub port: u16,
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both servers end with their children on TERM.
        let _ = Command::new("kill").args(["-s", "TERM", &self.child.id().to_string()]).status();
        let _ = self.child.wait();
    }
}

impl Server {
    pub fn start(mut command: Command, port: u16) -> Self {
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let mut server = Self { child, port };
        let up = eventually(|| {
            assert!(server.child.try_wait().unwrap().is_none(), "{command:?} has ended");
            std::net::TcpStream::connect(("127.0.0.1", port)).ok()
        });
        assert!(up.is_some(), "{command:?} does not listen");
        server
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

/// nginx with these lines in its server block.
fn nginx(folder: &Path, lines: &str) -> Option<Server> {
    let (program, port) = (program("nginx")?, free_port());
    let at = folder.display();
    let temporary: String =
        ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].iter().map(|n| format!("{n}_temp_path {at}/{n};\n")).collect();
    let config = format!(
        "daemon off;\nworker_processes 1;\npid {at}/nginx.pid;\nerror_log {at}/error.log;\nevents {{ worker_connections 256; }}\n\
         http {{\naccess_log off;\n{temporary}server {{ listen 127.0.0.1:{port}; root {at}/www;\n{lines}\n}} }}\n"
    );
    fs::write(folder.join("nginx.conf"), config).unwrap();
    let mut command = Command::new(program);
    command.args(["-e"]).arg(folder.join("error.log")).arg("-c").arg(folder.join("nginx.conf"));
    Some(Server::start(command, port))
}

/// Apache httpd with HTTP basic authentication in front of its files.
fn apache(folder: &Path, user: &str, password: &str) -> Option<Server> {
    let (program, port) = (program("apache2")?, free_port());
    let openssl = Command::new(self::program("openssl")?).args(["passwd", "-apr1", password]).output().unwrap();
    fs::write(folder.join("users"), format!("{user}:{}", String::from_utf8(openssl.stdout).unwrap())).unwrap();
    let modules = "/usr/lib/apache2/modules";
    let load: String = ["mpm_event", "authn_core", "authn_file", "authz_core", "authz_user", "auth_basic"]
        .iter()
        .map(|name| format!("LoadModule {name}_module {modules}/mod_{name}.so\n"))
        .collect();
    let at = folder.display();
    let config = format!(
        "ServerRoot {at}\nServerName localhost\nListen 127.0.0.1:{port}\nPidFile {at}/pid\nErrorLog {at}/error.log\nDefaultRuntimeDir {at}\n{load}\
         DocumentRoot {at}/www\n<Directory {at}/www>\nAuthType Basic\nAuthName postern\nAuthUserFile {at}/users\nRequire valid-user\n</Directory>\n"
    );
    fs::write(folder.join("httpd.conf"), config).unwrap();
    let mut command = Command::new(program);
    command.arg("-f").arg(folder.join("httpd.conf")).args(["-D", "FOREGROUND"]);
    Some(Server::start(command, port))
}

pub fn www(files: &[(&str, &[u8])]) -> tempfile::TempDir {
    let folder = tempfile::Builder::new().prefix("postern-").tempdir().unwrap();
    // Workers of a server that root started run as somebody else.
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::create_dir(folder.path().join("www")).unwrap();
    for (name, bytes) in files {
        fs::write(folder.path().join("www").join(name), bytes).unwrap();
    }
    folder
}

fn resource(url: &str, more: &str, variables: &[(&str, &str)]) -> Gateway {
    Gateway::start_with(&format!("resources:\n  up:\n    base_url: \"{url}\"\n{more}"), variables)
}

pub fn curl(arguments: &[&str]) -> Option<Output> {
    let output = Command::new(program("curl")?).args(["-sS", "--max-time", "20", "--path-as-is"]).args(arguments).output().unwrap();
    Some(output)
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn apache_accepts_the_basic_credentials_that_the_client_never_sees() {
    let folder = www(&[("a.txt", b"behind basic")]);
    // A colon and letters beyond ASCII in the password, which RFC 7617 wants in UTF-8.
    let Some(server) = apache(folder.path(), "acme", "pa:ss wörd") else { return };
    let auth = "    auth: { basic: { username: acme, password: \"${env:P}\" } }\n";
    let gateway = resource(&server.url(), auth, &[("P", "pa:ss wörd")]);
    let reply = gateway.get("/r/up/a.txt");
    assert_eq!((reply.status, reply.text().as_str()), (200, "behind basic"), "{}", reply.text());
    let wrong = resource(&server.url(), auth, &[("P", "wrong")]);
    let reply = wrong.get("/r/up/a.txt");
    assert_eq!(reply.status, 401);
    assert!(reply.field("www-authenticate").is_some() && reply.field("proxy-status").is_none(), "{}", reply.head);
}

#[test]
fn nginx_serves_ranges_conditions_and_large_files_through_the_gateway() {
    let large: Vec<u8> = (0..8_000_000u32).map(|n| (n % 251) as u8).collect();
    let folder = www(&[("a.txt", b"0123456789"), ("large", &large)]);
    let Some(server) = nginx(folder.path(), "") else { return };
    let gateway = resource(&server.url(), "", &[]);
    let reply = gateway.get("/r/up/a.txt");
    let tag = reply.field("etag").unwrap().to_owned();
    assert_eq!(gateway.send("GET", "/r/up/a.txt", &format!("If-None-Match: {tag}\r\n"), b"").status, 304);
    let part = gateway.send("GET", "/r/up/a.txt", "Range: bytes=2-4\r\n", b"");
    assert_eq!((part.status, part.text().as_str(), part.field("content-range")), (206, "234", Some("bytes 2-4/10")));
    let head = gateway.send("HEAD", "/r/up/large", "", b"");
    assert_eq!((head.status, head.field("content-length"), head.body.len()), (200, Some("8000000"), 0));
    assert!(gateway.get("/r/up/large").body == large, "the bytes differ");
    assert_eq!(gateway.get("/r/up/nope").status, 404);
}

#[test]
fn nginx_sees_what_the_configuration_says() {
    let folder = www(&[]);
    let lines = "location / { return 200 \"$request_method $request_uri|$http_authorization|$http_x_team|$http_via|$http_cookie\"; }";
    let Some(server) = nginx(folder.path(), lines) else { return };
    let more = "    headers: { X-Team: { value: payments, locked: true } }\n    params: { v: \"2\" }\n    auth: { bearer: \"${env:T}\" }\n";
    let gateway = resource(&server.url(), more, &[("T", "t0ken")]);
    let reply = gateway.send("GET", "/r/up/a%2Fb//c?x=%20", "X-Team: mine\r\nAuthorization: Bearer mine\r\nCookie: a=b\r\n", b"");
    assert_eq!(reply.text(), "GET /a%2Fb//c?x=%20&v=2|Bearer t0ken|payments|1.1 under-test|");
}

#[test]
fn nginx_redirects_lead_back_to_the_gateway() {
    let folder = www(&[]);
    let Some(server) = nginx(folder.path(), "location = /old { return 301 /new?x=1; }\nlocation = /new { return 200 arrived; }") else {
        return;
    };
    let gateway = resource(&server.url(), "", &[]);
    let Some(output) = curl(&["-L", &format!("http://127.0.0.1:{}/r/up/old", gateway.port)]) else { return };
    assert_eq!(text(&output.stdout), "arrived", "{output:?}");
}

#[test]
fn curl_uploads_expects_and_reads_errors() {
    let upstream = Upstream::ok();
    let gateway = resource(&upstream.url(), "    limits: { request_body: 1MiB }\n", &[]);
    let url = |path: &str| format!("http://127.0.0.1:{}{path}", gateway.port);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("body");
    fs::write(&file, vec![b'x'; 300_000]).unwrap();
    let data = format!("@{}", file.display());
    for more in [&["-H", "Expect: 100-continue"][..], &["-H", "Expect:"], &["-H", "Transfer-Encoding: chunked"], &["--http1.0"]] {
        let Some(output) = curl(&[&["--data-binary", &data, &url("/r/up/a")], more].concat()) else { return };
        assert_eq!(text(&output.stdout), "{\"ok\":true}", "{more:?} {output:?}");
        assert_eq!(upstream.last().body.len(), 300_000, "{more:?}");
    }
    fs::write(&file, vec![b'x'; 2_000_000]).unwrap();
    let before = upstream.seen().len();
    let output = curl(&["--data-binary", &data, "-w", "%{http_code} %{content_type}", &url("/r/up/a")]).unwrap();
    assert!(text(&output.stdout).ends_with("413 application/problem+json"), "{output:?}");
    let output = curl(&["-w", "%{http_code}", &url("/r/up/../../etc/passwd")]).unwrap();
    assert!(text(&output.stdout).contains("bad-path") && text(&output.stdout).ends_with("400"), "{output:?}");
    assert_eq!(upstream.seen().len(), before);
    // One connection carries many requests.
    let output = curl(&["-w", "%{num_connects} ", &url("/r/up/a"), &url("/r/up/b"), &url("/r/up/c")]).unwrap();
    assert_eq!(text(&output.stdout).matches("1 ").count(), 1, "{output:?}");
}

#[test]
fn curl_calls_over_a_unix_socket() {
    let upstream = Upstream::ok();
    let config = format!(
        "server: {{ listen: [\"127.0.0.1:{{port}}\", {{ address: \"unix:{{dir}}/postern.sock\", mode: \"0600\" }}] }}\nresources: {{ up: {{ base_url: \"{}\" }} }}\n",
        upstream.url()
    );
    let gateway = Gateway::start(&config);
    let socket = gateway.folder.path().join("postern.sock").display().to_string();
    let Some(output) = curl(&["--unix-socket", &socket, "http://localhost/r/up/a"]) else { return };
    assert_eq!(text(&output.stdout), "{\"ok\":true}", "{output:?}");
}

#[test]
fn curl_speaks_tls_to_the_gateway_and_the_gateway_to_nginx() {
    let folder = www(&[("a.txt", b"twice over tls")]);
    let authority = crate::support::tls::Authority::new();
    let identity = authority.issue("localhost", false);
    for (name, text) in [("ca.pem", authority.pem()), ("cert.pem", identity.pem()), ("key.pem", identity.key_pem())] {
        fs::write(folder.path().join(name), text).unwrap();
    }
    let at = folder.path().display().to_string();
    let port = free_port();
    let lines =
        format!("listen 127.0.0.1:{port} ssl; ssl_protocols TLSv1.3; ssl_certificate {at}/cert.pem; ssl_certificate_key {at}/key.pem;");
    let Some(_server) = nginx(folder.path(), &lines) else { return };
    let tls = free_port();
    let gateway = Gateway::start(&format!(
        "server: {{ listen: [\"127.0.0.1:{{port}}\", {{ address: \"127.0.0.1:{tls}\", tls: {{ cert: \"{at}/cert.pem\", key: \"${{file:{at}/key.pem}}\" }} }}] }}\n\
         resources:\n  up:\n    base_url: \"https://localhost:{port}\"\n    tls: {{ ca: \"{at}/ca.pem\", min_version: \"1.3\" }}\n"
    ));
    let url = format!("https://localhost:{tls}/r/up/a.txt");
    let Some(output) = curl(&["--cacert", &format!("{at}/ca.pem"), &url]) else { return };
    assert_eq!(text(&output.stdout), "twice over tls", "{output:?} {}", gateway.stderr());
    let plain = curl(&[&format!("http://localhost:{tls}/r/up/a.txt")]).unwrap();
    assert!(!plain.status.success() || !text(&plain.stdout).contains("twice"), "{plain:?}");
}

const WEBSOCKETS: &str = r#"
import asyncio, sys
from websockets.asyncio.client import connect
from websockets.asyncio.server import serve

async def echo(connection):
    async for message in connection:
        await connection.send(message)

async def main():
    if sys.argv[1] == "serve":
        async with serve(echo, "127.0.0.1", int(sys.argv[2]), max_size=None, compression=None) as server:
            await server.serve_forever()
    async with connect(sys.argv[2], max_size=None, compression=None, open_timeout=15, close_timeout=15) as connection:
        for message in ["hello", b"\x00\xff" * 50, "ä" * 200_000, ""]:
            await connection.send(message)
            assert await asyncio.wait_for(connection.recv(), 15) == message, "another message came back"
        pong = await connection.ping()
        await asyncio.wait_for(pong, 15)
    print(connection.close_code)

asyncio.run(main())
"#;

#[test]
fn websockets_of_pypi_talk_through_the_gateway() {
    let Some(python) = variable("POSTERN_TEST_PYTHON") else {
        assert!(variable("CI").is_none(), "POSTERN_TEST_PYTHON is not set, and nothing is skipped in CI");
        return eprintln!("skipped: POSTERN_TEST_PYTHON is not set; ./tests/run sets it");
    };
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("ws.py");
    fs::write(&script, WEBSOCKETS).unwrap();
    let port = free_port();
    let mut command = Command::new(&python);
    command.arg(&script).args(["serve", &port.to_string()]);
    let server = Server::start(command, port);
    let gateway = resource(&server.url(), "", &[]);
    let url = format!("ws://127.0.0.1:{}/r/up/chat", gateway.port);
    let output = Command::new(&python).arg(&script).args(["call", &url]).output().unwrap();
    assert_eq!(text(&output.stdout).trim(), "1000", "{}", text(&output.stderr));
    let record = gateway.records(1).remove(0);
    assert_eq!(record["status"], 101);
    assert!(record["bytes_in"].as_u64().unwrap() > 400_000 && record["bytes_out"].as_u64().unwrap() > 400_000, "{record}");
    // Where a resource says so, nothing switches.
    let closed = resource(&server.url(), "    websocket: false\n", &[]);
    let url = format!("ws://127.0.0.1:{}/r/up/chat", closed.port);
    let output = Command::new(&python).arg(&script).args(["call", &url]).output().unwrap();
    assert!(!output.status.success() && text(&output.stderr).contains("403"), "{}", text(&output.stderr));
}
