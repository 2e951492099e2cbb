//! Browsers: pages of other sites, names that were made to point at this machine, CORS, and the admin listener.

use crate::support::{Gateway, Reply, Upstream, free_port};

fn gateway(upstream: &Upstream, server: &str, more: &str) -> Gateway {
    Gateway::start(&format!(
        "server: {{ listen: \"127.0.0.1:{{port}}\", name: under-test, workers: 1{server} }}\nresources:\n  up: {{ base_url: \"{}\"{more} }}\n",
        upstream.url()
    ))
}

fn ask(gateway: &Gateway, method: &str, host: &str, fields: &str) -> Reply {
    Reply::parse(&gateway.raw(format!("{method} /r/up/a HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{fields}\r\n").as_bytes()))
}

#[test]
fn a_page_of_another_site_cannot_make_its_browser_call() {
    let upstream = Upstream::ok();
    let gateway = gateway(&upstream, "", "");
    for fields in [
        "Sec-Fetch-Site: cross-site\r\n",
        "Sec-Fetch-Site: same-site\r\n",
        "Origin: https://evil.example\r\n",
        "Origin: null\r\n",
        "Origin: http://localhost:1\r\n",
        "Origin: file://\r\n",
        "Origin: http://localhost\r\nOrigin: http://evil.example\r\n",
        "Sec-Fetch-Site: none\r\nSec-Fetch-Site: cross-site\r\n",
        "Origin: https://evil.example\r\nAccess-Control-Request-Method: PUT\r\n",
    ] {
        for method in ["GET", "POST", "OPTIONS"] {
            let reply = ask(&gateway, method, "localhost", fields);
            assert_eq!((reply.status, reply.code().as_str()), (403, "cross-site"), "{fields}");
            assert_eq!(reply.field("access-control-allow-origin"), None);
        }
    }
    assert!(upstream.seen().is_empty());
    assert_eq!(ask(&gateway, "GET", "localhost", "Sec-Fetch-Site: none\r\n").status, 200);
    assert_eq!(ask(&gateway, "POST", "localhost", "Origin: http://localhost\r\nSec-Fetch-Site: same-origin\r\n").status, 200);
}

#[test]
fn a_name_that_was_made_to_point_at_this_machine_is_refused() {
    let upstream = Upstream::ok();
    let gateway = gateway(&upstream, ", public_url: \"https://gw.example\"", "");
    for host in [
        "evil.example",
        "evil.example:8080",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "10.0.0.1",
        "gw.example",
        "0.0.0.0",
        "[::]",
    ] {
        let reply = ask(&gateway, "GET", host, "");
        assert_eq!((reply.status, reply.code().as_str()), (403, "cross-site"), "{host}");
    }
    for host in ["localhost", "LOCALHOST.:1", "app.localhost", "127.0.0.2", "[::1]:8080"] {
        assert_eq!(ask(&gateway, "GET", host, "").status, 200, "{host}");
    }
}

const PAGE: &str = "Origin: https://app.example\r\nSec-Fetch-Site: cross-site\r\n";

#[test]
fn without_configured_origins_there_is_no_cors() {
    let upstream = Upstream::canned(
        "HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: *\r\nAccess-Control-Allow-Credentials: true\r\nContent-Length: 0\r\n\r\n",
    );
    let gateway = gateway(&upstream, "", "");
    assert_eq!(ask(&gateway, "GET", "localhost", PAGE).status, 403);
    let reply = ask(&gateway, "GET", "localhost", "");
    assert_eq!(
        (reply.status, reply.field("access-control-allow-origin"), reply.field("access-control-allow-credentials")),
        (200, None, None)
    );
}

#[test]
fn pages_of_configured_origins_may_call_and_read_and_bring_no_cookies() {
    let upstream = Upstream::canned(
        "HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: *\r\nAccess-Control-Allow-Credentials: true\r\nContent-Length: 2\r\n\r\nok",
    );
    let gateway = gateway(&upstream, ", cors: { origins: [\"https://app.example\"] }", ", browser: true");
    let preflight = ask(
        &gateway,
        "OPTIONS",
        "localhost",
        &format!("{PAGE}Access-Control-Request-Method: PUT\r\nAccess-Control-Request-Headers: x-a,x-b\r\n"),
    );
    assert_eq!(preflight.status, 204);
    assert_eq!(preflight.field("access-control-allow-origin"), Some("https://app.example"));
    assert_eq!(preflight.field("access-control-allow-headers"), Some("x-a,x-b"));
    assert!(preflight.field("access-control-allow-methods").unwrap().contains("PUT"));
    assert!(upstream.seen().is_empty(), "a preflight is the gateway's to answer");
    let reply = ask(&gateway, "PUT", "localhost", PAGE);
    assert_eq!((reply.status, reply.text().as_str()), (200, "ok"));
    assert_eq!(crate::support::fields(&reply.head, "access-control-allow-origin"), ["https://app.example"]);
    assert_eq!(reply.field("access-control-allow-credentials"), None);
    assert_eq!(reply.field("vary"), Some("Origin"));
    // Errors can be read too, and other origins get nothing.
    let missing =
        Reply::parse(&gateway.raw(format!("GET /r/none HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{PAGE}\r\n").as_bytes()));
    assert_eq!((missing.status, missing.field("access-control-allow-origin")), (404, Some("https://app.example")));
    assert_eq!(ask(&gateway, "PUT", "localhost", "Origin: https://app.example.evil\r\n").status, 403);
    assert_eq!(ask(&gateway, "PUT", "evil.example", PAGE).status, 403, "a foreign name stays foreign");
}

#[test]
fn what_an_upstream_answers_cannot_run_at_the_gateways_origin() {
    let upstream = Upstream::canned(
        "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Security-Policy: default-src *\r\nContent-Length: 0\r\n\r\n",
    );
    let reply = ask(&gateway(&upstream, "", ""), "GET", "localhost", "");
    assert_eq!(crate::support::fields(&reply.head, "content-security-policy"), ["sandbox"]);
    assert_eq!(reply.field("x-content-type-options"), Some("nosniff"));
    assert_eq!(reply.field("cross-origin-resource-policy"), Some("same-origin"));
}

#[test]
fn the_admin_listener_takes_foreign_hosts_and_origins_for_probes_only() {
    let upstream = Upstream::ok();
    let admin = free_port();
    let _gateway =
        Gateway::start(&format!("admin: {{ listen: \"127.0.0.1:{admin}\" }}\nresources:\n  up: {{ base_url: \"{}\" }}\n", upstream.url()));
    let ask = |method: &str, path: &str, fields: &str| {
        let stream = std::net::TcpStream::connect(("127.0.0.1", admin)).unwrap();
        let request = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n{fields}\r\n");
        Reply::parse(&crate::support::exchange(stream, request.as_bytes())).status
    };
    for path in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(ask("GET", path, "Host: 10.1.2.3:8081\r\n"), 200, "{path}");
    }
    for fields in [
        "Host: evil.example\r\n",
        "Host: localhost\r\nOrigin: https://evil.example\r\n",
        "Host: localhost\r\nSec-Fetch-Site: cross-site\r\n",
        "Host: localhost\r\nOrigin: null\r\n",
    ] {
        for (method, path) in [("GET", "/api/anything"), ("POST", "/api/reload"), ("GET", "/")] {
            assert_eq!(ask(method, path, fields), 403, "{method} {path} {fields}");
        }
    }
    assert_ne!(ask("GET", "/api/anything", "Host: localhost\r\n"), 403);
}
