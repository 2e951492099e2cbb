//! JWTs that the gateway mints, against verifiers that no one here wrote: PyPI PyJWT and authlib, npm jose.

use std::io::Write as _;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::counterparts::Server;
use crate::support::keys::{openssl, pair, shared};
use crate::support::relay::{node, python, relay, send};
use crate::support::{Gateway, Seen, Upstream, free_port, root};

const SHARED: &str = "a secret of more than thirty-two bytes, as HS256 demands it, and of sixty-four for HS512";

fn verifier(library: &str, algorithm: &str, key: &Path) -> Option<Server> {
    let port = free_port();
    let command = match library {
        "jose" => {
            let mut command = node(&["jose"])?;
            command.arg(root().join("tests/it/peers/signature_verifier.mjs")).args([&port.to_string(), "jose"]).arg(key).arg(algorithm);
            command
        }
        _ => {
            let mut command = python(if library == "pyjwt" { "jwt" } else { "authlib" })?;
            command.arg(root().join("tests/it/peers/jwt_verifier.py")).args([&port.to_string(), algorithm]).arg(key).arg(library);
            command
        }
    };
    Some(Server::start(command, port))
}

fn keys(folder: &Path, algorithm: &str) -> Option<(String, std::path::PathBuf)> {
    match &algorithm[..2] {
        "HS" => Some(shared(folder, SHARED)),
        "ES" => pair(folder, if algorithm == "ES256" { "prime256v1" } else { "secp384r1" }),
        "Ed" => pair(folder, "ed25519"),
        _ => pair(folder, "rsa"),
    }
}

fn gateway(url: &str, algorithm: &str, key: &str) -> Gateway {
    let place = if algorithm.starts_with("HS") { "key" } else { "private_key" };
    let claims = "{ iss: me, aud: [them, others], sub: { value: \"${env:NOBODY:-}\", omit_if_unset: true }, jti: \"{{ uuid }}\", \
                  iat: \"{{ now }}\", exp: \"{{ now | plus('5m') }}\", path: \"{{ request.path }}\", n: \"{{ vars.n }}\" }";
    let auth = format!("{{ jwt: {{ algorithm: {algorithm}, {place}: \"${{env:KEY}}\", key_id: k1, claims: {claims} }} }}");
    let config = format!("resources:\n  up:\n    base_url: \"{url}/base\"\n    vars: {{ n: 7 }}\n    auth: {auth}\n");
    Gateway::start_with(&config, &[("KEY", key)])
}

/// The request with another token in its parts: what `change` makes of them.
fn tampered(seen: &Seen, change: impl Fn(&mut Vec<String>)) -> Seen {
    let token = seen.field("authorization").unwrap().strip_prefix("Bearer ").unwrap();
    let mut parts: Vec<String> = token.split('.').map(str::to_owned).collect();
    change(&mut parts);
    let other = parts.join(".");
    assert_ne!(token, other);
    Seen { head: seen.head.replace(token, &other), ..seen.clone() }
}

fn recoded(part: &mut String, from: &str, to: &str) {
    let text = String::from_utf8(URL_SAFE_NO_PAD.decode(&*part).unwrap()).unwrap();
    assert!(text.contains(from), "{text}");
    *part = URL_SAFE_NO_PAD.encode(text.replacen(from, to, 1));
}

#[test]
fn every_algorithm_is_accepted_and_whatever_is_changed_is_refused() {
    for (library, algorithms) in [
        ("pyjwt", &["HS256", "HS512", "RS256", "PS256", "ES256", "ES384", "EdDSA"][..]),
        ("authlib", &["HS256", "RS256", "PS256", "ES256", "EdDSA"]),
        ("jose", &["HS256", "RS512", "PS384", "ES256", "ES384", "EdDSA"]),
    ] {
        for algorithm in algorithms {
            let folder = tempfile::tempdir().unwrap();
            let Some((key, public)) = keys(folder.path(), algorithm) else { return };
            let Some(server) = verifier(library, algorithm, &public) else { break };
            let relay = relay(server.port);
            let gateway = gateway(&relay.url(), algorithm, &key);
            // Each attempt has a `jti` of its own: the verifier takes none twice.
            for path in ["/", "/a%20b//(c)?x=1"] {
                let reply = gateway.send("GET", &format!("/r/up{path}"), "Authorization: Bearer mine\r\n", b"");
                assert_eq!(reply.status, 200, "{library} {algorithm}: {}", reply.text());
                let (claims, header) = (reply.json()["claims"].clone(), reply.json()["header"].clone());
                assert_eq!((claims["n"].as_u64(), claims["sub"].as_str()), (Some(7), None));
                assert_eq!(claims["exp"].as_u64().unwrap(), claims["iat"].as_u64().unwrap() + 300);
                assert_eq!(claims["path"].as_str().unwrap(), format!("/base{}", path.split('?').next().unwrap()));
                assert_eq!(
                    (header["kid"].as_str(), header["alg"].as_str(), header["typ"].as_str()),
                    (Some("k1"), Some(*algorithm), Some("JWT"))
                );
            }
            let signed = relay.last();
            for (what, other) in [
                ("a claim", tampered(&signed, |parts| recoded(&mut parts[1], "\"n\":7", "\"n\":8"))),
                ("the end", tampered(&signed, |parts| recoded(&mut parts[1], "\"exp\":1", "\"exp\":2"))),
                ("the key's id", tampered(&signed, |parts| recoded(&mut parts[0], "k1", "k2"))),
                ("the algorithm", tampered(&signed, |parts| recoded(&mut parts[0], algorithm, "none"))),
                ("the signature", tampered(&signed, |parts| parts[2] = URL_SAFE_NO_PAD.encode([7; 64]))),
                ("nothing: it is there no more", tampered(&signed, |parts| parts[2].clear())),
            ] {
                assert_eq!(send(server.port, &other).status, 401, "{library} {algorithm}: {what} was changed");
            }
        }
    }
}

#[test]
fn a_certificate_gives_the_thumbprints_that_openssl_computes() {
    let folder = tempfile::tempdir().unwrap();
    let Some((key, _)) = pair(folder.path(), "prime256v1") else { return };
    let file = |name: &str| folder.path().join(name).display().to_string();
    let subject = ["req", "-x509", "-new", "-subj", "/CN=postern", "-days", "2", "-key"];
    openssl(&[&subject[..], &[&file("key.pem"), "-out", &file("cert.pem")]].concat());
    openssl(&["x509", "-in", &file("cert.pem"), "-outform", "DER", "-out", &file("cert.der")]);
    openssl(&["dgst", "-sha256", "-binary", "-out", &file("sha256"), &file("cert.der")]);
    openssl(&["dgst", "-sha1", "-binary", "-out", &file("sha1"), &file("cert.der")]);
    let upstream = Upstream::ok();
    let auth = format!(
        "{{ jwt: {{ private_key: \"${{env:KEY}}\", certificate: \"{}\", claims: {{ exp: \"{{{{ now | plus('1m') }}}}\" }} }} }}",
        file("cert.pem")
    );
    let config = format!("resources:\n  up:\n    base_url: \"{}\"\n    auth: {auth}\n", upstream.url());
    assert_eq!(Gateway::start_with(&config, &[("KEY", &key)]).get("/r/up/a").status, 200);
    let seen = upstream.last();
    let header = seen.field("authorization").unwrap().strip_prefix("Bearer ").unwrap().split('.').next().unwrap().to_owned();
    let header: serde_json::Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header).unwrap()).unwrap();
    let print = |name: &str| URL_SAFE_NO_PAD.encode(std::fs::read(file(name)).unwrap());
    assert_eq!((header["x5t#S256"].as_str().unwrap(), header["x5t"].as_str().unwrap()), (&*print("sha256"), &*print("sha1")));
}

#[test]
fn an_upstream_that_sends_a_jwt_back_does_not_hand_it_to_the_client() {
    let upstream = Upstream::answering(|seen, stream| {
        let sent = seen.field("authorization").unwrap().to_owned();
        write!(stream, "HTTP/1.1 200 OK\r\nX-Echo: {sent}\r\nContent-Length: 0\r\n\r\n").is_ok()
    });
    let gateway = gateway(&upstream.url(), "HS256", SHARED);
    let reply = gateway.get("/r/up/a");
    assert_eq!(reply.status, 200);
    assert!(reply.field("x-echo").unwrap().contains("***") && !reply.head.contains("eyJ"), "{}", reply.head);
}

#[test]
fn explain_shows_no_jwt_wherever_it_goes() {
    for place in ["{ header: X-Jwt }", "{ query: assertion }", "{ body: token }", "{ cookie: jwt }"] {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("postern.yaml");
        let auth = format!("{{ jwt: {{ key: \"${{env:KEY}}\", claims: {{ exp: \"{{{{ now }}}}\" }}, place: {place} }} }}");
        std::fs::write(&file, format!("resources:\n  up:\n    base_url: \"http://127.0.0.1:1\"\n    auth: {auth}\n")).unwrap();
        let mut command = crate::support::postern();
        command.args(["explain", "POST", "/r/up/a", "-H", "Content-Type: application/json", "-d", "{}", "--config"]).arg(&file);
        let output = command.env("KEY", "hunter2hunter2").output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && !text.is_empty(), "{text} {}", String::from_utf8_lossy(&output.stderr));
        assert!(!text.contains("eyJ") && !text.contains("hunter2"), "{place}: {text}");
    }
}
