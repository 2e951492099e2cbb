//! Signatures of vendors' own, by `hmac` and by expressions, against node's crypto. Each is the example file that shows it.

use std::path::Path;

use crate::counterparts::Server;
use crate::support::keys::{pair, shared};
use crate::support::relay::{bent, changed, node, relay, send};
use crate::support::{Gateway, Seen, free_port, root};

const SECRET: &str = "a secret that both know";

fn verifier(kind: &str, key: &Path) -> Option<Server> {
    let (mut command, port) = (node(&[])?, free_port());
    command.arg(root().join("tests/it/peers/signature_verifier.mjs")).args([&port.to_string(), kind]).arg(key);
    Some(Server::start(command, port))
}

/// The example, with the address of its upstream and its listener replaced.
fn example(name: &str, url: &str, variables: &[(&str, &str)]) -> Gateway {
    let text = std::fs::read_to_string(root().join("config/examples").join(name)).unwrap();
    assert!(text.contains("https://api.example.com"));
    let text = text.replace("https://api.example.com", url).replace("listen: 127.0.0.1:8080", "listen: \"127.0.0.1:{port}\"");
    Gateway::start_with(&text, variables)
}

/// Sends through the gateway what the verifier must accept, and to the verifier what it must refuse.
fn prove(example_file: &str, server: &Server, variables: &[(&str, &str)], changes: impl Fn(&Seen) -> Vec<(&'static str, Seen)>) {
    let relay = relay(server.port);
    let gateway = example(example_file, &relay.url(), variables);
    // An expression can join a body to other text only where it is text.
    let bytes: &[u8] =
        if example_file == "signature-sha256.yaml" { "\u{fc} any {{ text }}\r\n".as_bytes() } else { b"\xff\x00 any {{ bytes }}\r\n" };
    for (method, path, body) in [("GET", "/", &b""[..]), ("GET", "/a%20b//(c)?x=1&y=%C3%BC%20z&a=2", b""), ("POST", "/a?b=2&a=1", bytes)] {
        let fields =
            "Content-Type: application/octet-stream\r\nX-Signature: mine\r\nX-Date: mine\r\nX-Wsse: mine\r\nAuthorization: mine\r\n";
        let reply = gateway.send(method, &format!("/r/api{path}"), fields, body);
        assert_eq!(reply.status, 200, "{example_file} {method} {path}: {}", reply.text());
    }
    let reply = gateway.send("POST", "/r/api/a?b=2&a=1", "Content-Type: text/plain\r\n", b"the body");
    assert_eq!(reply.status, 200, "{example_file}: {}", reply.text());
    let signed = relay.last();
    for (what, tampered) in changes(&signed) {
        assert_eq!(send(server.port, &tampered).status, 401, "{example_file}: {what} was changed");
    }
}

fn other_body(seen: &Seen) -> (&'static str, Seen) {
    ("the body", Seen { raw_body: b"The body".to_vec(), ..seen.clone() })
}

#[test]
fn an_hmac_covers_everything_that_its_message_names() {
    let folder = tempfile::tempdir().unwrap();
    let (key, file) = shared(folder.path(), SECRET);
    let Some(server) = verifier("hmac", &file) else { return };
    prove("hmac.yaml", &server, &[("API_KEY", &key), ("API_ID", "client-1")], |signed| {
        vec![
            ("the method", changed(signed, "POST ", "PUT ")),
            ("the path", changed(signed, "/a?", "/b?")),
            ("the query", changed(signed, "b=2", "b=3")),
            ("the host", changed(signed, "host: 127.0.0.1", "host: 127.0.0.2")),
            ("the nonce", bent(signed, "x-nonce: ", '\r')),
            ("the signature", changed(signed, "signature=", "signature=A")),
            ("the id", changed(signed, "client-1", "client-2")),
            other_body(signed),
        ]
    });
}

#[test]
fn a_digest_with_a_secret_in_it_is_an_expression() {
    let folder = tempfile::tempdir().unwrap();
    let (key, file) = shared(folder.path(), SECRET);
    let Some(server) = verifier("sha256", &file) else { return };
    prove("signature-sha256.yaml", &server, &[("API_KEY", &key)], |signed| {
        vec![
            ("the method", changed(signed, "POST ", "PUT ")),
            ("the path", changed(signed, "/a?", "/b?")),
            ("the time", bent(signed, "x-timestamp: ", '\r')),
            ("the signature", bent(signed, "x-signature: ", '\r')),
            other_body(signed),
        ]
    });
}

#[test]
fn an_hmac_over_the_sorted_query_is_an_expression() {
    let folder = tempfile::tempdir().unwrap();
    let (key, file) = shared(folder.path(), SECRET);
    let Some(server) = verifier("expression", &file) else { return };
    prove("signature-hmac.yaml", &server, &[("API_KEY", &key)], |signed| {
        vec![
            ("the method", changed(signed, "POST ", "PUT ")),
            ("the path", changed(signed, "/a?", "/b?")),
            ("the query", changed(signed, "b=2", "b=3")),
            ("the time", bent(signed, "x-date: ", 'Z')),
            ("the signature", changed(signed, "x-signature: ", "x-signature: A")),
            other_body(signed),
        ]
    });
}

#[test]
fn an_ed25519_signature_is_an_expression() {
    let folder = tempfile::tempdir().unwrap();
    let Some((key, public)) = pair(folder.path(), "ed25519") else { return };
    let Some(server) = verifier("ed25519", &public) else { return };
    prove("signature-ed25519.yaml", &server, &[("API_KEY", &key)], |signed| {
        vec![
            ("the method", changed(signed, "POST ", "PUT ")),
            ("the path", changed(signed, "/a?", "/b?")),
            ("the query", changed(signed, "b=2", "b=3")),
            ("the host", changed(signed, "host: 127.0.0.1", "host: 127.0.0.2")),
            ("the time", bent(signed, "x-timestamp: ", '\r')),
            other_body(signed),
        ]
    });
}

#[test]
fn a_wsse_username_token_is_an_expression_with_a_nonce_for_each_attempt() {
    let folder = tempfile::tempdir().unwrap();
    let (key, file) = shared(folder.path(), "a \"quoted\" secret\\");
    let Some(server) = verifier("wsse", &file) else { return };
    prove("wsse.yaml", &server, &[("API_USER", "user1"), ("API_PASSWORD", &key)], |signed| {
        vec![
            ("nothing: it comes a second time", signed.clone()),
            ("the user", changed(signed, "Username=\"user1\"", "Username=\"user2\"")),
            ("the nonce", changed(signed, "Nonce=\"", "Nonce=\"0")),
            ("the time", changed(signed, "Created=\"2", "Created=\"1")),
            ("the digest", changed(signed, "PasswordDigest=\"", "PasswordDigest=\"A")),
        ]
    });
}
