//! HTTP Message Signatures against a verifier that no one here wrote: http-message-signatures of PyPI.

use std::path::Path;

use crate::counterparts::Server;
use crate::support::keys::{pair, shared};
use crate::support::relay::{bent, changed, python, relay, send};
use crate::support::{Gateway, Seen, free_port, root};

const SHARED: &str = "a secret that both know";

fn verifier(algorithm: &str, key: &Path) -> Option<Server> {
    let (mut command, port) = (python("http_message_signatures")?, free_port());
    command.arg(root().join("tests/it/peers/http_signature_verifier.py")).args([&port.to_string(), algorithm]).arg(key);
    Some(Server::start(command, port))
}

/// The private key of an algorithm, and the file with what verifies it.
fn keys(folder: &Path, algorithm: &str) -> Option<(String, std::path::PathBuf)> {
    match algorithm {
        "hmac-sha256" => Some(shared(folder, SHARED)),
        "ed25519" => pair(folder, "ed25519"),
        "ecdsa-p256-sha256" => pair(folder, "prime256v1"),
        _ => pair(folder, "rsa"),
    }
}

fn gateway(url: &str, algorithm: &str, key: &str) -> Gateway {
    let place = if algorithm == "hmac-sha256" { "key" } else { "private_key" };
    let components = r#"["@method", "@target-uri", "@authority", "@path", "@query", "@scheme", "@request-target", '@query-param;name="y y"', content-type,
        content-digest, content-length, x-two, "x-two;bs", "priority;sf", 'priority;key="b"']"#;
    let auth = format!(
        "{{ http_signature: {{ key_id: k1, {place}: \"${{env:KEY}}\", algorithm: {algorithm}, components: {components}, expires: 5m, nonce: true, tag: test }} }}"
    );
    Gateway::start_with(&format!("resources:\n  up:\n    base_url: \"{url}/base\"\n    auth: {auth}\n"), &[("KEY", key)])
}

#[test]
fn the_verifier_accepts_every_algorithm_and_refuses_whatever_is_changed() {
    for algorithm in ["hmac-sha256", "ed25519", "ecdsa-p256-sha256", "rsa-pss-sha512", "rsa-v1_5-sha256"] {
        let folder = tempfile::tempdir().unwrap();
        let Some((key, public)) = keys(folder.path(), algorithm) else { return };
        let Some(server) = verifier(algorithm, &public) else { return };
        let relay = relay(server.port);
        let gateway = gateway(&relay.url(), algorithm, &key);
        for path in ["/", "/a%20b//(c)?x=1&y+y=%C3%BC+z~", "/a?"] {
            let reply = gateway.get(&format!("/r/up{path}"));
            assert_eq!(reply.status, 200, "{algorithm} {path}: {}", reply.text());
        }
        let fields = "Content-Type: text/plain\r\nX-Two: one\r\nX-Two:   two\r\nPriority: u=1,   b=2;q,c=(1   2)\r\nContent-Digest: sha-256=:mine:\r\nSignature: mine\r\n";
        let reply = gateway.send("POST", "/r/up/a?x=1&y%20y=2", fields, b"the body");
        assert_eq!(reply.status, 200, "{algorithm}: {}", reply.text());
        // All fifteen, and the parameters themselves.
        assert_eq!(reply.json()["covered"].as_array().unwrap().len(), 16, "{}", reply.text());
        let signed = relay.last();
        assert_eq!(send(server.port, &signed).status, 200, "the request as it was sent");
        for (what, tampered) in [
            ("the method", changed(&signed, "POST ", "PUT ")),
            ("the path", changed(&signed, "/base/a?", "/base/b?")),
            ("the query", changed(&signed, "x=1", "x=2")),
            ("the type", changed(&signed, "text/plain", "text/html")),
            ("a field", changed(&signed, "x-two: one", "x-two: six")),
            ("the digest", bent(&signed, "content-digest: sha-256=:", '=')),
            ("what is covered", changed(&signed, " \"x-two\"", "")),
            ("the time", bent(&signed, ";created=", ';')),
            ("a parameter", changed(&signed, "y%20y=2", "y%20y=3")),
            ("a member", changed(&signed, "b=2;q", "b=3;q")),
            ("another member", changed(&signed, "u=1", "u=2")),
            ("the tag", changed(&signed, "tag=\"test\"", "tag=\"tset\"")),
            ("the nonce", changed(&signed, "nonce=\"", "nonce=\"0")),
            ("the end", bent(&signed, ";expires=", ';')),
            ("the key", changed(&signed, "keyid=\"k1\"", "keyid=\"k2\"")),
            ("the body", Seen { raw_body: b"The body".to_vec(), ..signed.clone() }),
        ] {
            assert_eq!(send(server.port, &tampered).status, 401, "{algorithm}: {what} was changed");
        }
    }
}
