//! OAuth 1.0a against providers that no one here wrote: oauthlib and authlib.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::counterparts::{Server, program};
use crate::support::browser::{Browser, LANDING, Stand, landed, param};
use crate::support::issuer::Issuer;
use crate::support::relay::{bent, changed, python, send};
use crate::support::{Gateway, Reply, Seen, Upstream, free_port, root};

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

/// A gateway before oauthlib's three legs, and the provider.
fn three_legs(more: &str) -> Option<(Stand, Server)> {
    let (mut command, port, admin) = (python("oauthlib")?, free_port(), free_port());
    command.arg(root().join("tests/it/peers/oauth1_consent.py")).arg(port.to_string());
    let server = Server::start(command, port);
    let url = server.url();
    let config = format!(
        "admin: {{ listen: \"127.0.0.1:{admin}\" }}\nstore: {{ file: {{ path: data }} }}\nresources:\n  api:\n    base_url: \"{url}/api\"\n    connections: {{ by: header }}\n    auth:\n      oauth1:\n        consumer_key: consumer\n        consumer_secret: \"${{env:CS}}\"\n        consent: {{ request_url: \"{url}/request\", authorize_url: \"{url}/authorize\", access_url: \"{url}/access\"{more} }}\n"
    );
    let gateway = Gateway::start_with(&config, &[("CS", "c&s e/cret")]);
    Some((Stand { gateway, admin, issuer: Issuer::minting(1), api: Upstream::ok() }, server))
}

/// The way to the provider and back. `say` is added to the provider's address.
fn consented(stand: &Stand, name: &str, say: &str) -> Reply {
    let link = stand.link(json!({ "resource": "api", "connection": name, "return_url": LANDING }));
    let mut browser = Browser::new();
    let asked = browser.agree(&link);
    let back = browser.get(&format!("{asked}{say}"));
    browser.get(back.field("location").unwrap_or_else(|| panic!("{} {}", back.status, back.text())))
}

#[test]
fn a_person_gives_a_token_in_three_legs_and_calls_are_signed_with_it() {
    let Some((mut stand, server)) = three_legs(", params: { scope: \"r w\" }") else { return };
    let call =
        |stand: &Stand, name: &str| stand.gateway.send("GET", "/r/api/a?b=c%20d", &format!("Postern-Connection: {name}\r\n"), b"").status;
    assert_eq!(call(&stand, "one"), 424);
    for name in ["one", "two"] {
        assert!(stand.redeem(&landed(&consented(&stand, name, ""))));
    }
    for name in ["one", "two", "one"] {
        assert_eq!(call(&stand, name), 200, "{name}");
    }
    stand.gateway.stop();
    stand.gateway.again();
    assert_eq!(call(&stand, "two"), 200);
    let asked = Browser::new().get(&format!("{}/asked", server.url())).text();
    assert!(asked.contains("'scope': 'r w'"), "{asked}");
    let form = stand.gateway.send("POST", "/r/api/a", &format!("Postern-Connection: one\r\n{FORM}"), b"x=1&y=2");
    assert_eq!(form.status, 200);
    let identities: std::collections::BTreeSet<_> =
        stand.gateway.records(6).iter().filter_map(|record| record["credential"].as_str().map(str::to_owned)).collect();
    assert!(identities.len() >= 2, "two accounts have one fingerprint: {identities:?}");
}

#[test]
fn a_no_and_an_answer_about_another_credential_connect_nothing() {
    let Some((stand, _server)) = three_legs("") else { return };
    let reply = consented(&stand, "one", "&no=1");
    assert_eq!(param(reply.field("location").unwrap(), "connect_error").as_deref(), Some("access_denied"));
    // The yes of the enemy's own credential in the victim's session.
    let link = |name: &str| stand.link(json!({ "resource": "api", "connection": name, "return_url": LANDING }));
    let (mut victim, mut enemy) = (Browser::new(), Browser::new());
    let (asked, enemys) = (victim.agree(&link("two")), enemy.agree(&link("three")));
    let yes = |asked: &str| Browser::new().get(asked).field("location").unwrap().to_owned();
    let (own, foreign) = (yes(&asked), yes(&enemys));
    let state = param(&own, "state").unwrap();
    let (token, verifier) = (param(&foreign, "oauth_token").unwrap(), param(&foreign, "oauth_verifier").unwrap());
    let callback = own.split('?').next().unwrap();
    let reply = victim.get(&format!("{callback}?state={state}&oauth_token={token}&oauth_verifier={verifier}"));
    assert_eq!((reply.status, reply.field("location")), (400, None), "{}", reply.text());
    assert!(stand.connections().is_empty());
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
