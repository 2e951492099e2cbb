//! HTTP/2 and gRPC with programs that no one here wrote: curl, nghttp2's client, load generator and server, and gRPC's own
//! library for Python. `./tests/run` installs them.

use std::fs;
use std::process::Command;

use crate::counterparts::{Server, curl, program, text, www};
use crate::support::tls::Authority;
use crate::support::{Gateway, Upstream, free_port, variable};

/// A gateway with a plain and a TLS listener; `resources` are its resources.
fn gateway(folder: &std::path::Path, tls: u16, resources: &str) -> Gateway {
    let at = folder.display();
    Gateway::start(&format!(
        "server: {{ listen: [\"127.0.0.1:{{port}}\", {{ address: \"127.0.0.1:{tls}\", tls: {{ cert: \"{at}/cert.pem\", key: \"${{file:{at}/key.pem}}\" }} }}], workers: 2 }}\nresources:\n{resources}"
    ))
}

fn certified(files: &[(&str, &[u8])]) -> (tempfile::TempDir, Authority) {
    let folder = www(files);
    let authority = Authority::new();
    let identity = authority.issue("localhost", false);
    for (name, text) in [("ca.pem", authority.pem()), ("cert.pem", identity.pem()), ("key.pem", identity.key_pem())] {
        fs::write(folder.path().join(name), text).unwrap();
    }
    (folder, authority)
}

fn large() -> Vec<u8> {
    (0..3_000_000u32).map(|n| (n % 251) as u8).collect()
}

#[test]
fn curl_speaks_http_2_by_handshake_and_by_prior_knowledge() {
    let large = large();
    let (folder, _authority) = certified(&[]);
    let upstream = Upstream::answering(move |seen, stream| {
        use std::io::Write as _;
        let body = if seen.body.is_empty() { &large } else { &seen.body };
        stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes()).is_ok()
            && stream.write_all(body).is_ok()
    });
    let tls = free_port();
    let gateway = gateway(folder.path(), tls, &format!("  up: {{ base_url: \"{}\" }}\n", upstream.url()));
    let (ca, sent, got) = (folder.path().join("ca.pem"), folder.path().join("sent"), folder.path().join("got"));
    fs::write(&sent, self::large()).unwrap();
    let (ca, sent, got_path) = (ca.display().to_string(), format!("@{}", sent.display()), got.display().to_string());
    for (flag, url) in [
        ("--http2", format!("https://localhost:{tls}/r/up/a")),
        ("--http2-prior-knowledge", format!("http://localhost:{}/r/up/a", gateway.port)),
        ("--http1.1", format!("https://localhost:{tls}/r/up/a")),
    ] {
        let version = if flag == "--http1.1" { "1.1" } else { "2" };
        for body in [&[][..], &["--data-binary", &sent]] {
            let arguments = [&[flag, "--cacert", &ca, "-o", &got_path, "-w", "%{http_version} %{http_code}"][..], body, &[&url]].concat();
            let Some(output) = curl(&arguments) else { return };
            assert_eq!(text(&output.stdout), format!("{version} 200"), "{flag}: {}", text(&output.stderr));
            assert!(fs::read(&got).unwrap() == self::large(), "{flag}: another body came back");
        }
    }
}

#[test]
fn nghttp_and_h2load_are_served_and_nghttpd_serves() {
    let large = large();
    let (folder, _authority) = certified(&[("a.txt", b"by nghttpd"), ("large", &large)]);
    let (Some(server), Some(client), Some(load)) = (program("nghttpd"), program("nghttp"), program("h2load")) else { return };
    let (plain, secure, tls) = (free_port(), free_port(), free_port());
    let root = folder.path().join("www");
    let mut command = Command::new(&server);
    command.args(["--no-tls", "-d"]).arg(&root).arg(plain.to_string());
    let _plain = Server::start(command, plain);
    let mut command = Command::new(&server);
    command.arg("-d").arg(&root).arg(secure.to_string()).arg(folder.path().join("key.pem")).arg(folder.path().join("cert.pem"));
    let _secure = Server::start(command, secure);
    let at = folder.path().display();
    let resources = format!(
        "  plain: {{ base_url: \"http://127.0.0.1:{plain}\", http: {{ versions: [2] }} }}\n  secure: {{ base_url: \"https://localhost:{secure}\", tls: {{ ca: \"{at}/ca.pem\" }} }}\n"
    );
    let gateway = gateway(folder.path(), tls, &resources);
    for resource in ["plain", "secure"] {
        assert_eq!(gateway.get(&format!("/r/{resource}/a.txt")).text(), "by nghttpd", "{}", gateway.stderr());
        assert!(gateway.get(&format!("/r/{resource}/large")).body == large, "{resource}");
        let url = format!("http://127.0.0.1:{}/r/{resource}/a.txt", gateway.port);
        let output = Command::new(&client).args(["-v", "--no-dep", &url]).output().unwrap();
        let said = text(&output.stdout);
        assert!(said.contains(":status: 200") && said.contains("by nghttpd"), "{said}");
        for (url, requests) in [(url, "400"), (format!("https://127.0.0.1:{tls}/r/{resource}/large"), "40")] {
            let output = Command::new(&load).args(["-n", requests, "-c", "4", "-m", "20", "-T", "20", &url]).output().unwrap();
            let said = text(&output.stdout);
            assert!(said.contains(&format!("{requests} succeeded, 0 failed, 0 errored, 0 timeout")), "{said}");
        }
    }
}

/// One service of raw bytes with all four shapes of calls, and a client that tries each.
const GRPC: &str = r#"
import sys, time, grpc
from concurrent import futures

def unary(request, context):
    if request == b"fail":
        context.set_trailing_metadata((("x-why", "asked"),))
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "as asked")
    context.set_trailing_metadata((("x-trailer", "t"),))
    return b"got " + request

def many(request, context):
    for n in range(int(request)):
        yield b"%d" % n

def count(requests, context):
    return b"%d" % sum(len(r) for r in requests)

def echo(requests, context):
    for request in requests:
        yield request

class Service(grpc.GenericRpcHandler):
    def service(self, details):
        shapes = {"unary": grpc.unary_unary_rpc_method_handler(unary), "many": grpc.unary_stream_rpc_method_handler(many),
                  "count": grpc.stream_unary_rpc_method_handler(count), "echo": grpc.stream_stream_rpc_method_handler(echo)}
        return shapes.get(details.method.rsplit("/", 1)[1])

def serve(port):
    server = grpc.server(futures.ThreadPoolExecutor(32))
    server.add_generic_rpc_handlers((Service(),))
    assert server.add_insecure_port("127.0.0.1:%d" % port) == port
    server.start()
    server.wait_for_termination()

def call(channel, prefix):
    method = prefix + "/test.Service/"
    answer, context = channel.unary_unary(method + "unary").with_call(b"hello", timeout=20, metadata=(("x-own", "v"),))
    assert answer == b"got hello", answer
    assert dict(context.trailing_metadata())["x-trailer"] == "t", context.trailing_metadata()
    try:
        channel.unary_unary(method + "unary")(b"fail", timeout=20)
        raise SystemExit("no error came back")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.FAILED_PRECONDITION and error.details() == "as asked", error
        assert dict(error.trailing_metadata())["x-why"] == "asked"
    assert [int(m) for m in channel.unary_stream(method + "many")(b"500", timeout=20)] == list(range(500))
    assert channel.stream_unary(method + "count")((b"x" * 10000 for _ in range(50)), timeout=20) == b"500000"
    def slowly():
        for n in range(5):
            time.sleep(0.3)
            yield b"%d" % n
    # Each message comes back before the next is sent: nothing is held back on the way.
    for n, message in enumerate(channel.stream_stream(method + "echo")(slowly(), timeout=20)):
        assert message == b"%d" % n, message
    large = b"x" * 3_000_000
    assert channel.unary_unary(method + "unary")(large, timeout=20) == b"got " + large
    calls = [channel.unary_unary(method + "unary").future(b"%d" % n, timeout=20) for n in range(200)]
    assert [c.result() for c in calls] == [b"got %d" % n for n in range(200)]
    print("all well")

if sys.argv[1] == "serve":
    serve(int(sys.argv[2]))
options = (("grpc.default_authority", "localhost"), ("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))
if sys.argv[1] == "plain":
    call(grpc.insecure_channel(sys.argv[2], options), "/r/up")
else:
    roots = open(sys.argv[3], "rb").read()
    call(grpc.secure_channel(sys.argv[2], grpc.ssl_channel_credentials(roots), options), "/r/up")
"#;

#[test]
fn grpc_of_pypi_calls_through_the_gateway_in_all_four_shapes() {
    let Some(python) = variable("POSTERN_TEST_PYTHON") else {
        assert!(variable("CI").is_none(), "POSTERN_TEST_PYTHON is not set, and nothing is skipped in CI");
        return eprintln!("skipped: POSTERN_TEST_PYTHON is not set; ./tests/run sets it");
    };
    if !Command::new(&python).args(["-c", "import grpc"]).output().unwrap().status.success() {
        assert!(variable("CI").is_none(), "grpcio is missing, and nothing is skipped in CI");
        return eprintln!("skipped: grpcio is not installed; ./tests/run installs it");
    }
    let (folder, _authority) = certified(&[]);
    let script = folder.path().join("service.py");
    fs::write(&script, GRPC).unwrap();
    let (port, tls) = (free_port(), free_port());
    let mut command = Command::new(&python);
    command.arg(&script).args(["serve", &port.to_string()]);
    let server = Server::start(command, port);
    // Limits that ordinary calls would run into: streams do not.
    let gateway = Gateway::start(&format!(
        "server:\n  listen: [\"127.0.0.1:{{port}}\", {{ address: \"127.0.0.1:{tls}\", tls: {{ cert: \"{at}/cert.pem\", key: \"${{file:{at}/key.pem}}\" }} }}]\n  workers: 2\n  timeouts: {{ body_idle: 200ms }}\nresources: {{ up: {{ base_url: \"{}\", http: {{ versions: [2] }}, timeouts: {{ total: 1s }} }} }}\n",
        server.url(),
        at = folder.path().display(),
    ));
    let ca = folder.path().join("ca.pem").display().to_string();
    for arguments in
        [vec!["plain".to_owned(), format!("127.0.0.1:{}", gateway.port)], vec!["tls".to_owned(), format!("localhost:{tls}"), ca]]
    {
        let output = Command::new(&python).arg(&script).args(&arguments).output().unwrap();
        assert_eq!(text(&output.stdout).trim(), "all well", "{arguments:?} {}\n{}", text(&output.stderr), gateway.stderr());
    }
    let records = gateway.records(200);
    assert!(records.iter().all(|r| r["status"] == 200 && r["method"] == "POST"), "{records:?}");
}
