//! OAuth 1.0a against providers that no one here wrote: oauthlib and authlib.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::counterparts::{Server, program};
use crate::support::relay::{bent, changed, python, send};
use crate::support::{Gateway, Seen, Upstream, free_port, root};

/// A provider on this library, which knows one consumer and one token.
fn provider(library: &str, public_key: Option<&Path>) -> Option<Server> {
    let (mut command, port) = (python(library)?, free_port());
    command.arg(root().join("tests/it/peers/oauth1_provider.py")).args([&port.to_string(), library]).args(public_key);
    Some(Server::start(command, port))
}

fn gateway(url: &str, more: &str) -> Gateway {
    let auth = format!("{{ oauth1: {{ consumer_key: consumer, consumer_secret: \"${{env:CS}}\"{more} }} }}");
    let config = format!("resources:\n  up:\n    base_url: \"{url}\"\n    auth: {auth}\n");
    Gateway::start_with(&config, &[("CS", "c&s e/cret"), ("TS", "t+s%cret")])
}

const TOKEN: &str = ", token: token, token_secret: \"${env:TS}\"";
const FORM: &str = "Content-Type: application/x-www-form-urlencoded\r\n";
const JSON: &str = "Content-Type: application/json\r\n";

/// Requests that libraries get wrong: targets and bodies.
const HARD: [(&str, &str, &str); 9] = [
    ("/", "", ""),
    ("/a%20b/c%2Fd/(e)", "", ""),
    ("/a?b5=%3D%253D&a3=a&c%40=&a2=r%20b", FORM, "c2&a3=2+q"),
    ("/a?b=2&a=2&a=1&A=3", FORM, "x=1&x=2&%C3%BC=%E1%88%B4&p=a%2Bb+c&q=%26%3D"),
    ("/a?q=~-._%21%2A%27%28%29", "", ""),
    ("/a?empty=&x=%C3%BC", FORM, "a=&b=~*"),
    ("/a", JSON, "{\"a\":\"b=c&d\"}"),
    ("/a//b", FORM, "a=b"),
    ("/A/b?X=y", "", ""),
];

fn asked(gateway: &Gateway, (path, fields, body): (&str, &str, &str)) -> u16 {
    let method = if body.is_empty() { "GET" } else { "POST" };
    gateway.send(method, &format!("/r/up{path}"), fields, body.as_bytes()).status
}

#[test]
fn oauthlib_accepts_every_signature_with_and_without_a_token() {
    let Some(server) = provider("oauthlib", None) else { return };
    for method in ["HMAC-SHA1", "HMAC-SHA256", "HMAC-SHA512", "PLAINTEXT"] {
        for more in ["", TOKEN, ", realm: photos, token: token, token_secret: \"${env:TS}\""] {
            let gateway = gateway(&server.url(), &format!(", signature: {method}{more}"));
            for request in HARD {
                assert_eq!(asked(&gateway, request), 200, "{method}{more}: {request:?}");
            }
        }
    }
}

#[test]
fn oauthlib_refuses_whatever_is_changed() {
    // Here the gateway speaks to nobody, so that the provider sees each nonce for the first time.
    let Some(server) = provider("oauthlib", None) else { return };
    let upstream = Upstream::ok();
    let config = format!(", signature: HMAC-SHA1{TOKEN}");
    let gateway = gateway(&upstream.url(), &config);
    let signed = || {
        gateway.send("POST", "/r/up/a?x=1", FORM, b"y=2");
        upstream.last()
    };
    assert_eq!(send(server.port, &signed()).status, 200, "the request as it was signed");
    for (what, tampered) in [
        ("the method", changed(&signed(), "POST ", "PUT ")),
        ("the path", changed(&signed(), "/a?", "/b?")),
        ("the query", changed(&signed(), "x=1", "x=2")),
        ("a parameter more", changed(&signed(), "x=1", "x=1&z=1")),
        ("the form", Seen { raw_body: b"y=3".to_vec(), ..signed() }),
        ("the timestamp", bent(&signed(), "oauth_timestamp=\"", '"')),
        ("the consumer", changed(&signed(), "\"consumer\"", "\"consumes\"")),
    ] {
        assert_eq!(send(server.port, &tampered).status, 401, "{what} was changed");
    }
    let spent = signed();
    assert_eq!((send(server.port, &spent).status, send(server.port, &spent).status), (200, 401), "the same nonce twice");
}

#[test]
fn the_hash_of_a_body_protects_what_is_no_form() {
    let Some(server) = provider("oauthlib", None) else { return };
    let upstream = Upstream::ok();
    for method in ["HMAC-SHA1", "HMAC-SHA256", "HMAC-SHA512"] {
        let gateway = gateway(&upstream.url(), &format!(", signature: {method}, body_hash: true{TOKEN}"));
        let signed = || {
            gateway.send("POST", "/r/up/a", JSON, b"{\"a\":1}");
            upstream.last()
        };
        let reply = send(server.port, &signed());
        assert!(reply.status == 200 && reply.json()["hash"].is_string(), "{}", reply.text());
        assert_eq!(send(server.port, &Seen { raw_body: b"{\"a\":2}".to_vec(), ..signed() }).status, 401);
        assert_eq!(send(server.port, &bent(&signed(), "oauth_body_hash=\"", '%')).status, 401);
    }
}

#[test]
fn oauthlib_accepts_rsa_signatures() {
    let Some(openssl) = program("openssl") else { return };
    let folder = tempfile::tempdir().unwrap();
    let (key, public) = (folder.path().join("key.pem"), folder.path().join("public.pem"));
    let made = Command::new(&openssl).args(["genrsa", "-out"]).arg(&key).arg("2048").output().unwrap();
    assert!(made.status.success());
    assert!(Command::new(&openssl).args(["rsa", "-pubout", "-in"]).arg(&key).arg("-out").arg(&public).output().unwrap().status.success());
    let Some(server) = provider("oauthlib", Some(&public)) else { return };
    let config = |url: &str| {
        format!(
            "resources:\n  up:\n    base_url: \"{url}\"\n    auth: {{ oauth1: {{ consumer_key: consumer, signature: RSA-SHA256, private_key: \"${{env:KEY}}\" }} }}\n"
        )
    };
    let pem = fs::read_to_string(&key).unwrap();
    let gateway = Gateway::start_with(&config(&server.url()), &[("KEY", &pem)]);
    for request in HARD {
        assert_eq!(asked(&gateway, request), 200, "{request:?}");
    }
    let upstream = Upstream::ok();
    let gateway = Gateway::start_with(&config(&upstream.url()), &[("KEY", &pem)]);
    gateway.get("/r/up/a?x=1");
    assert_eq!(send(server.port, &changed(&upstream.last(), "x=1", "x=2")).status, 401);
}

#[test]
fn authlib_accepts_what_it_knows() {
    let Some(server) = provider("authlib", None) else { return };
    for method in ["HMAC-SHA1", "PLAINTEXT"] {
        let gateway = gateway(&server.url(), &format!(", signature: {method}{TOKEN}"));
        for request in HARD {
            assert_eq!(asked(&gateway, request), 200, "{method}: {request:?}");
        }
    }
    let upstream = Upstream::ok();
    let gateway = gateway(&upstream.url(), TOKEN);
    let signed = || {
        gateway.send("POST", "/r/up/a?x=1", FORM, b"y=2");
        upstream.last()
    };
    assert_eq!(send(server.port, &signed()).status, 200, "the request as it was signed");
    for (what, tampered) in [
        ("the method", changed(&signed(), "POST ", "PUT ")),
        ("the query", changed(&signed(), "x=1", "x=2")),
        ("the form", Seen { raw_body: b"y=3".to_vec(), ..signed() }),
        ("the token", changed(&signed(), "oauth_token=\"token\"", "oauth_token=\"other\"")),
    ] {
        assert_eq!(send(server.port, &tampered).status, 401, "{what} was changed");
    }
}
