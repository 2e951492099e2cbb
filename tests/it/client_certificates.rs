//! The gateway's own certificate (`mtls`) before Apache httpd, which asks for one, and before npm `oidc-provider`, which
//! knows clients by it (RFC 8705).

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::counterparts::{Server, program, www};
use crate::support::oidc::Oidc;
use crate::support::tls::{Authority, Identity};
use crate::support::{Gateway, eventually, free_port};

/// Apache over TLS that verifies client certificates in this manner, and tells in `X-Client` whose it has seen.
fn apache(folder: &Path, authority: &Authority, manner: &str) -> Option<Server> {
    let (program, port) = (program("apache2")?, free_port());
    let shown = authority.issue("localhost", false);
    fs::write(folder.join("server.pem"), shown.pem()).unwrap();
    fs::write(folder.join("server.key"), shown.key_pem()).unwrap();
    fs::write(folder.join("ca.pem"), authority.pem()).unwrap();
    let modules = "/usr/lib/apache2/modules";
    let load: String = ["mpm_event", "authz_core", "ssl", "headers"]
        .iter()
        .map(|name| format!("LoadModule {name}_module {modules}/mod_{name}.so\n"))
        .collect();
    let at = folder.display();
    let config = format!(
        "ServerRoot {at}\nServerName localhost\nListen 127.0.0.1:{port}\nPidFile {at}/pid\nErrorLog {at}/error.log\nDefaultRuntimeDir {at}\n{load}\
         DocumentRoot {at}/www\nSSLEngine on\nSSLCertificateFile {at}/server.pem\nSSLCertificateKeyFile {at}/server.key\n\
         SSLCACertificateFile {at}/ca.pem\nSSLVerifyClient {manner}\nHeader set X-Client \"%{{SSL_CLIENT_SAN_DNS_0}}s\"\nSSLOptions +StdEnvVars\n"
    );
    fs::write(folder.join("httpd.conf"), config).unwrap();
    let mut command = Command::new(program);
    command.arg("-f").arg(folder.join("httpd.conf")).args(["-D", "FOREGROUND"]);
    Some(Server::start(command, port))
}

/// Writes a pair as `name.pem` and `name.key`.
fn write(folder: &Path, name: &str, identity: &Identity) {
    fs::write(folder.join(format!("{name}.key")), identity.key_pem()).unwrap();
    fs::write(folder.join(format!("{name}.pem")), identity.pem()).unwrap();
}

/// `auth` with the pair of this name.
fn shows(folder: &Path, name: &str) -> String {
    let at = folder.display();
    format!("{{ mtls: {{ cert: \"{at}/{name}.pem\", key: \"${{file:{at}/{name}.key}}\" }} }}")
}

fn resource(name: &str, folder: &Path, port: u16, more: &str) -> String {
    let at = folder.display();
    format!("  {name}: {{ base_url: \"https://localhost:{port}\", tls: {{ ca: \"{at}/ca.pem\" }}, {more} }}\n")
}

#[test]
fn apache_takes_the_right_certificate_and_no_other() {
    let folder = www(&[("a.txt", b"behind a certificate")]);
    let at = folder.path();
    let (authority, other) = (Authority::new(), Authority::new());
    let Some(apache) = apache(at, &authority, "require") else { return };
    write(at, "good", &authority.issue("gateway.test", false));
    write(at, "expired", &authority.issue("gateway.test", true));
    write(at, "foreign", &other.issue("gateway.test", false));
    let mut config = "resources:\n".to_owned();
    for name in ["good", "expired", "foreign"] {
        config.push_str(&resource(name, at, apache.port, &format!("auth: {}", shows(at, name))));
    }
    config.push_str(&resource("absent", at, apache.port, "auth: none"));
    let also = format!("auth: [ {}, {{ bearer: \"${{env:T}}\" }} ]", shows(at, "good"));
    config.push_str(&resource("both", at, apache.port, &also));
    let gateway = Gateway::start_with(&config, &[("T", "hunter2hunter2")]);
    for name in ["good", "both"] {
        let reply = gateway.get(&format!("/r/{name}/a.txt"));
        assert_eq!((reply.status, reply.text().as_str()), (200, "behind a certificate"), "{}", gateway.stderr());
        assert_eq!(reply.field("x-client"), Some("gateway.test"));
    }
    for name in ["expired", "foreign", "absent"] {
        let reply = gateway.get(&format!("/r/{name}/a.txt"));
        assert_eq!(reply.status, 502, "{name}: {}", reply.text());
        // A server that hangs up in the moment of its alert may be heard to hang up only.
        assert!(matches!(reply.code().as_str(), "upstream-tls" | "upstream-protocol"), "{name}: {}", reply.text());
    }
    // What is expired is said before anybody is refused.
    assert!(gateway.stderr().contains("the certificate has expired: upstreams will refuse it"), "{}", gateway.stderr());
    let told = eventually(|| Some(gateway.get("/r/absent/a.txt")).filter(|reply| reply.code() == "upstream-tls"));
    let detail = told.expect("the alert is never told").json()["detail"].clone();
    assert_eq!(detail, "The upstream does not take the gateway's client certificate, or wants one.");
}

#[test]
fn a_renewed_certificate_is_taken_over_while_the_gateway_runs() {
    let folder = www(&[("a.txt", b"a")]);
    let at = folder.path();
    let authority = Authority::new();
    let Some(apache) = apache(at, &authority, "require") else { return };
    write(at, "mine", &authority.issue("first.test", false));
    let gateway = Gateway::start(&format!("resources:\n{}", resource("up", at, apache.port, &format!("auth: {}", shows(at, "mine")))));
    assert_eq!(gateway.get("/r/up/a.txt").field("x-client"), Some("first.test"));
    // A key without its certificate is no pair: the old one stays until both are there.
    let next = authority.issue("second.test", false);
    fs::write(at.join("mine.key"), next.key_pem()).unwrap();
    assert!(eventually(|| gateway.stderr().contains("does not belong to the certificate").then_some(())).is_some());
    assert_eq!(gateway.get("/r/up/a.txt").field("x-client"), Some("first.test"));
    fs::write(at.join("mine.pem"), next.pem()).unwrap();
    let taken = eventually(|| (gateway.get("/r/up/a.txt").field("x-client") == Some("second.test")).then_some(()));
    assert!(taken.is_some(), "{}", gateway.stderr());
}

#[test]
fn neither_a_connection_nor_a_session_is_shared_by_two_certificates() {
    let folder = www(&[("a.txt", b"a")]);
    let at = folder.path();
    fs::create_dir(at.join("www/other")).unwrap();
    fs::create_dir(at.join("www/open")).unwrap();
    for name in ["other", "open"] {
        fs::write(at.join("www").join(name).join("a.txt"), "a").unwrap();
    }
    let authority = Authority::new();
    let Some(apache) = apache(at, &authority, "optional") else { return };
    for name in ["one", "two", "three"] {
        write(at, name, &authority.issue(&format!("{name}.test"), false));
    }
    let routes = format!(
        "auth: {}, routes: [ {{ path: \"/other/**\", auth: {} }}, {{ path: \"/open/**\", auth: none }} ]",
        shows(at, "one"),
        shows(at, "two")
    );
    let third = resource("third", at, apache.port, &format!("auth: {}", shows(at, "three")));
    let gateway = Gateway::start(&format!("resources:\n{}{third}", resource("up", at, apache.port, &routes)));
    let wanted =
        [("/r/up/a.txt", "one.test"), ("/r/up/other/a.txt", "two.test"), ("/r/up/open/a.txt", "(null)"), ("/r/third/a.txt", "three.test")];
    for _ in 0..5 {
        for (path, client) in wanted {
            assert_eq!(gateway.get(path).field("x-client"), Some(client), "{path}");
        }
    }
    // A reload that changes none of it keeps the connections where they are.
    let config = gateway.folder.path().join("postern.yaml");
    fs::write(&config, fs::read_to_string(&config).unwrap().replace("routes:", "headers: { X-New: \"1\" }, routes:")).unwrap();
    gateway.signal("HUP");
    assert!(eventually(|| gateway.stderr().contains("reload").then_some(())).is_some(), "{}", gateway.stderr());
    for (path, client) in wanted {
        assert_eq!(gateway.get(path).field("x-client"), Some(client), "{path}");
    }
}

#[test]
fn a_reload_that_takes_a_certificate_from_one_route_gives_it_to_no_other() {
    let folder = www(&[("a.txt", b"a")]);
    let at = folder.path();
    for name in ["public", "two"] {
        fs::create_dir(at.join("www").join(name)).unwrap();
        fs::write(at.join("www").join(name).join("a.txt"), "a").unwrap();
    }
    let authority = Authority::new();
    let Some(apache) = apache(at, &authority, "optional") else { return };
    for name in ["one", "two"] {
        write(at, name, &authority.issue(&format!("{name}.test"), false));
    }
    // By reference, so that the files that are read are the same before and after.
    let pair = |name: &str| {
        shows(at, name)
            .replace(&format!("cert: \"{}/{name}.pem\"", at.display()), &format!("cert: \"${{file:{}/{name}.pem}}\"", at.display()))
    };
    let routes = format!("auth: {}, routes: [ {{ path: \"/public/**\" }}, {{ path: \"/two/**\", auth: {} }} ]", pair("one"), pair("two"));
    let gateway = Gateway::start(&format!("resources:\n{}", resource("up", at, apache.port, &routes)));
    let client = |path: &str| gateway.get(path).field("x-client").map(str::to_owned);
    assert_eq!((client("/r/up/public/a.txt").as_deref(), client("/r/up/two/a.txt").as_deref()), (Some("one.test"), Some("two.test")));
    let config = gateway.folder.path().join("postern.yaml");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("{ path: \"/public/**\" }", "{ path: \"/public/**\", auth: none }")).unwrap();
    gateway.signal("HUP");
    assert!(eventually(|| (client("/r/up/public/a.txt").as_deref() == Some("(null)")).then_some(())).is_some(), "{}", gateway.stderr());
    assert_eq!((client("/r/up/a.txt").as_deref(), client("/r/up/two/a.txt").as_deref()), (Some("one.test"), Some("two.test")));
}

/// An issuer with a TLS listener that asks for certificates, and the pairs of its clients, of somebody else, and of nobody.
fn certified_issuer(at: &Path) -> Option<(Oidc, u16)> {
    // Node may end a connection over a bad signature before the provider has judged whose certificate it is.
    let (authority, other) = (Authority::new(), Authority::named("somebody else"));
    let (server, port) = (authority.issue("localhost", false), free_port());
    fs::write(at.join("ca.pem"), authority.pem()).unwrap();
    write(at, "mine", &authority.issue("gateway.test", false));
    write(at, "neighbour", &authority.issue("neighbour.test", false));
    write(at, "foreign", &other.issue("gateway.test", false));
    // Its own authority, as far as anybody can tell.
    let own = other.issue("own.test", false);
    write(at, "own", &own);
    let tls = json!({ "port": port, "cert": server.pem(), "key": server.key_pem(), "ca": authority.pem(), "subject": "gateway.test", "own": own.pem() });
    Some((Oidc::start_with(&json!({ "tls": tls }))?, port))
}

#[test]
fn oidc_provider_knows_a_client_by_its_certificate_and_refuses_every_other() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let Some((oidc, port)) = certified_issuer(at) else { return };
    let mut config = "resources:\n".to_owned();
    // The API is plain: the certificate is for the token calls of the list, which have their own trust.
    let mut add = |name: &str, client: &str, pair: Option<&str>, auth: &str| {
        let scheme = format!(
            "{{ oauth2_client_credentials: {{ token_url: \"https://localhost:{port}/token\", client_id: {client}, client_auth: {auth}, tls: {{ ca: \"{}/ca.pem\" }}, scopes: [read], resource: https://api.example/v1 }} }}",
            at.display()
        );
        let members = pair.map(|pair| format!("{}, ", shows(at, pair))).unwrap_or_default();
        config.push_str(&format!("  {name}: {{ base_url: \"{}/api\", auth: [ {members}{scheme} ] }}\n", oidc.url()));
    };
    add("mine", "by-tls", Some("mine"), "tls");
    add("own", "by-own-certificate", Some("own"), "tls");
    add("neighbour", "by-tls", Some("neighbour"), "tls");
    add("foreign", "by-tls", Some("foreign"), "tls");
    add("swapped", "by-own-certificate", Some("mine"), "tls");
    add("absent", "by-tls", None, "none");
    let gateway = Gateway::start(&config);
    for (name, client) in [("mine", "by-tls"), ("own", "by-own-certificate")] {
        let reply = gateway.get(&format!("/r/{name}/x"));
        assert_eq!(reply.status, 200, "{} {}", reply.text(), gateway.stderr());
        assert_eq!(reply.json()["client"], client);
    }
    for name in ["neighbour", "foreign", "swapped", "absent"] {
        let reply = gateway.get(&format!("/r/{name}/x"));
        assert_eq!((reply.status, reply.code().as_str()), (503, "issuer-unavailable"), "{name}: {}", reply.text());
        assert!(reply.json()["detail"].as_str().unwrap().contains("invalid_client"), "{name}: {} {}", reply.text(), gateway.stderr());
    }
}
