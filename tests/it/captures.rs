//! What comes with a token, on the built gateway: captured values and the token's own parts in headers, parameters, cookies
//! and bodies.

use serde_json::{Value, json};

use crate::support::issuer::{Issuer, answer, json_answer};
use crate::support::{Gateway, Upstream, eventually, postern};

/// The tests' client secret: long enough to be looked for.
const SECRET: &str = "s3cret/+ =&value";

fn gateway(text: &str) -> Gateway {
    Gateway::start_with(text, &[("CLIENT_SECRET", SECRET)])
}

/// A resource `api` at this base with client credentials of this issuer, and further settings of the scheme and the
/// resource.
fn config(base: &str, issuer: &Issuer, scheme: &str, resource: &str) -> String {
    let indented = |text: &str, by: usize| text.lines().map(|l| format!("{}{l}\n", " ".repeat(by))).collect::<String>();
    format!(
        "resources:\n  api:\n    base_url: \"{base}\"\n{}    auth:\n      oauth2_client_credentials:\n        token_url: \"{}\"\n        client_id: id\n        client_secret: \"${{env:CLIENT_SECRET}}\"\n{}",
        indented(resource, 4),
        issuer.url(),
        indented(scheme, 8),
    )
}

/// Mints tokens with a tenant, a number and a map beside them.
fn tenants() -> Issuer {
    Issuer::answering(|_, number, stream| {
        let text = format!(
            r#"{{"access_token":"token-{number}","expires_in":3600,"id_token":"e30.eyJ0aWQiOiI0MiJ9.c2ln","org":{{"id":"tenant-{number}","seats":12.50}}}}"#
        );
        answer(stream, "200 OK", "Content-Type: application/json\r\n", &text)
    })
}

const CAPTURE: &str = "capture: { tenant: json.org.id, seats: json.org.seats, org: json.org }";

#[test]
fn what_came_with_a_token_goes_where_it_is_read() {
    let (api, issuer) = (Upstream::ok(), tenants());
    let more = r#"headers: { X-Tenant: "{{ captured.tenant }}", X-Id: "{{ token.claims.tid }}/{{ captured.org.seats }}", X-Left: "{{ (token.expires_at | epoch) > (now | epoch) }}" }
params: { t: "{{ captured.tenant }} a&b", k: "{{ token.access }}" }
cookies: { org: "{{ captured.tenant }}" }
body: { json: { tenant: "{{ captured.tenant }}", seats: "{{ captured.seats }}", org: "{{ captured.org }}" }, form: { tenant: "{{ captured.tenant }}" } }"#;
    let gateway = gateway(&config(&api.url(), &issuer, CAPTURE, more));
    let fields = "Content-Type: application/json\r\nX-Tenant: mine\r\n";
    assert_eq!(gateway.send("POST", "/r/api/x?t=mine", fields, br#"{"a":1,"tenant":"mine"}"#).status, 200);
    let seen = api.last();
    assert_eq!(seen.fields("x-tenant"), ["tenant-1"]);
    assert_eq!(seen.field("x-id"), Some("42/12.50"));
    assert_eq!(seen.field("x-left"), Some("true"));
    assert_eq!(seen.field("cookie"), Some("org=tenant-1"));
    assert_eq!(seen.target(), "/x?t=tenant-1%20a%26b&k=token-1");
    assert_eq!(String::from_utf8_lossy(&seen.body), r#"{"a":1,"tenant":"tenant-1","seats":12.50,"org":{"id":"tenant-1","seats":12.50}}"#);
    let fields = "Content-Type: application/x-www-form-urlencoded\r\n";
    assert_eq!(gateway.send("POST", "/r/api/x", fields, b"a=1").status, 200);
    assert_eq!(api.last().body, b"a=1&tenant=tenant-1");
    assert_eq!(issuer.requests(), 1);
}

#[test]
fn a_second_attempt_is_filled_from_the_token_that_it_presents() {
    let issuer = tenants();
    let api = Upstream::answering(|seen, stream| {
        let good = seen.field("authorization") == Some("Bearer token-2");
        answer(stream, if good { "200 OK" } else { "401 Unauthorized" }, "", "")
    });
    let more = "headers: { X-Tenant: \"{{ captured.tenant }}\" }\nparams: { t: \"{{ captured.tenant }}\" }\nbody: { json: { t: \"{{ captured.tenant }}\" } }";
    let gateway = gateway(&config(&api.url(), &issuer, CAPTURE, more));
    assert_eq!(gateway.send("POST", "/r/api/x", "Content-Type: application/json\r\n", b"{}").status, 200);
    let shown = |seen: &crate::support::Seen| {
        let body = String::from_utf8_lossy(&seen.body).into_owned();
        [seen.field("authorization"), seen.field("x-tenant"), Some(seen.target()), Some(&body)].map(|v| v.unwrap_or_default().to_owned())
    };
    let seen: Vec<[String; 4]> = api.seen().iter().map(shown).collect();
    assert_eq!(
        seen,
        [
            ["Bearer token-1", "tenant-1", "/x?t=tenant-1", r#"{"t":"tenant-1"}"#].map(str::to_owned),
            ["Bearer token-2", "tenant-2", "/x?t=tenant-2", r#"{"t":"tenant-2"}"#].map(str::to_owned),
        ]
    );
}

#[test]
fn the_first_answer_must_have_what_is_captured_and_a_later_one_may_leave_it_out() {
    let issuer = Issuer::answering(|seen, number, stream| {
        let first = !String::from_utf8_lossy(&seen.body).contains("refresh_token=");
        let mut body = json!({ "access_token": format!("token-{number}"), "refresh_token": "r", "expires_in": 2 });
        if first {
            body["org"] = json!("acme");
        }
        json_answer(stream, &body)
    });
    let api = Upstream::ok();
    let gateway =
        gateway(&config(&api.url(), &issuer, "capture: { org: json.org }\nrefresh: {}", "headers: { X-Org: \"{{ captured.org }}\" }"));
    let renewed = eventually(|| {
        assert_eq!(gateway.get("/r/api/x").status, 200);
        (api.last().field("authorization") != Some("Bearer token-1")).then(|| api.last())
    });
    assert_eq!(renewed.expect("nothing was renewed").field("x-org"), Some("acme"));
    issuer.now(|_, _, stream| json_answer(stream, &json!({ "access_token": "t" })));
    let fresh = self::gateway(&config(&api.url(), &issuer, "capture: { org: json.org }", ""));
    let reply = fresh.get("/r/api/x");
    assert_eq!((reply.status, reply.code().as_str()), (503, "issuer-unavailable"));
    assert!(reply.text().contains("capture.org"), "{}", reply.text());
}

#[test]
fn what_did_not_come_or_cannot_stand_there_is_the_issuers_fault_and_nothing_is_sent() {
    let issuer = Issuer::answering(|_, _, stream| json_answer(stream, &json!({ "access_token": "opaque", "org": "a\r\nX-Evil: 1" })));
    for more in [r#"X-A: "{{ token.claims.tid }}""#, r#"X-A: "{{ token.refresh }}""#, r#"X-A: "{{ captured.org }}""#] {
        let api = Upstream::ok();
        let gateway = gateway(&config(&api.url(), &issuer, "capture: { org: json.org }", &format!("headers: {{ {more} }}")));
        let reply = gateway.get("/r/api/x");
        assert_eq!((reply.status, reply.code().as_str()), (502, "credential-refused"), "{more}");
        assert!(!reply.text().contains("Evil") && api.seen().is_empty(), "{}", reply.text());
    }
}

#[test]
fn an_upstream_that_sends_captured_values_back_does_not_show_them() {
    let issuer = Issuer::answering(|_, _, stream| json_answer(stream, &json!({ "access_token": "t", "org": "org-8d1f5a4c" })));
    let api = Upstream::answering(|seen, stream| {
        answer(stream, "200 OK", &format!("X-Echo: {}\r\n", seen.field("x-org").unwrap_or_default()), "")
    });
    let gateway = gateway(&config(&api.url(), &issuer, "capture: { org: json.org }", "headers: { X-Org: \"{{ captured.org }}\" }"));
    let reply = gateway.get("/r/api/x");
    assert_eq!(api.last().field("x-org"), Some("org-8d1f5a4c"));
    assert_eq!(reply.field("x-echo"), Some("************"));
}

#[test]
fn explain_says_that_what_comes_with_a_token_is_not_there_yet() {
    let (api, issuer) = (Upstream::ok(), tenants());
    let more = "headers: { X-Tenant: \"for {{ captured.tenant }}\" }\nparams: { t: \"{{ token.claims.tid }}\" }";
    let (status, text) = explain(&config(&api.url(), &issuer, CAPTURE, more), &["GET", "/r/api/x"]);
    assert_eq!(status, Some(0), "{text}");
    for found in ["x-tenant: [to be fetched]", "t=[to be fetched]", "Bearer [to be fetched]"] {
        assert!(text.to_lowercase().contains(&found.to_lowercase()), "{found}: {text}");
    }
    assert_eq!((issuer.requests(), api.seen().len()), (0, 0));
}

/// `postern explain` with this configuration: its status, and what it says.
fn explain(text: &str, more: &[&str]) -> (Option<i32>, String) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("postern.yaml");
    std::fs::write(&file, text).unwrap();
    let output = postern().arg("explain").args(more).arg("--config").arg(&file).env("CLIENT_SECRET", SECRET).output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

/// What `postern check` says to this configuration, which is wrong.
fn complaint(text: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("postern.yaml");
    std::fs::write(&file, text).unwrap();
    let output = postern().args(["check", "--json", "--config"]).arg(&file).env("CLIENT_SECRET", SECRET).output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(3), "{report}");
    let problems = report["problems"].as_array().unwrap();
    problems.iter().map(|p| format!("{} | {} | {}\n", p["line"], p["message"], p["hint"])).collect()
}

#[test]
fn what_nothing_can_supply_is_found_when_the_configuration_is_loaded() {
    let issuer = tenants();
    let api = "https://api.example";
    for (text, why, cure) in [
        (
            "resources:\n  api:\n    base_url: https://api.example\n    headers: { X-A: \"{{ captured.a }}\" }\n".to_owned(),
            "nothing under `auth` has a token",
            "oauth2_",
        ),
        (
            "resources:\n  api:\n    base_url: https://api.example\n    auth: { bearer: \"${env:CLIENT_SECRET}\" }\n    body: { json: { a: \"{{ token.access }}\" } }\n"
                .to_owned(),
            "`token.access` is read here, and nothing under `auth` has a token",
            "",
        ),
        (config(api, &issuer, CAPTURE, "headers: { X-A: \"{{ captured.tennant }}\" }"), "nothing captures `tennant`", "`tenant`"),
        (config(api, &issuer, "", "params: { a: \"{{ captured.a }}\" }"), "nothing captures `a`", "capture: { a: json"),
        (config(api, &issuer, CAPTURE, "headers: { X-A: \"{{ token.acess }}\" }"), "`token.acess`", "access"),
        (
            config(api, &issuer, CAPTURE, "headers: { X-A: \"{{ captured.tenant }}\" }\nroutes: [ { path: /public, auth: none } ]"),
            "nothing under `auth` has a token",
            "",
        ),
    ] {
        let said = complaint(&text);
        assert!(said.contains(why) && said.contains(cure), "{text}\n{said}");
    }
    // A route without a token that has a header of its own instead is none of these.
    let good = config(
        api,
        &issuer,
        CAPTURE,
        "headers: { X-A: \"{{ captured.tenant }}\" }\nroutes: [ { path: /public, auth: none, headers: { x-a: none } } ]",
    );
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("postern.yaml");
    std::fs::write(&file, good).unwrap();
    let output = postern().args(["check", "--config"]).arg(&file).env("CLIENT_SECRET", SECRET).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
}

/// An issuer whose answer names this base.
fn naming(base: impl Into<String>) -> Issuer {
    let base = base.into();
    Issuer::answering(move |_, number, stream| {
        json_answer(stream, &json!({ "access_token": format!("token-{number}"), "expires_in": 3600, "base": base }))
    })
}

const BASE: &str = "capture: { base: json.base }";

#[test]
fn a_base_that_only_the_token_brings_is_where_the_call_goes() {
    let api = Upstream::answering(|seen, stream| {
        let base = format!("http://{}", seen.field("host").unwrap());
        let fields = match seen.target().split('?').next().unwrap() {
            "/v1/inside" => format!("Location: {base}/v1/next?a=1\r\nLink: <{base}/v1/2>; rel=next\r\n"),
            "/v1/absolute" => "Location: /v1/next\r\n".to_owned(),
            "/v1/outside" => "Location: /other\r\n".to_owned(),
            _ => String::new(),
        };
        answer(stream, if fields.is_empty() { "200 OK" } else { "302 Found" }, &fields, "")
    });
    let host = api.url().strip_prefix("http://").unwrap().to_owned();
    let (name, port) = host.split_once(':').unwrap();
    for (base, brought) in [
        ("{{ captured.base }}", format!("http://{host}/v1")),
        ("{{ captured.base }}", format!(" http://{host}/v1/ ")),
        ("{{ captured.base }}/v1", format!("http://{host}")),
        ("http://{{ captured.base }}/v1", host.clone()),
        ("http://{{ captured.base }}/v1", format!("http://{host}/")),
        (&format!("http://{{{{ captured.base }}}}:{port}/v1"), name.to_owned()),
        (&format!("http://{{{{ captured.base }}}}.0.1:{port}/v1"), "127.0".to_owned()),
        (&format!("http://{host}/{{{{ captured.base }}}}"), "/v1/".to_owned()),
    ] {
        let issuer = naming(brought.clone());
        let more = format!(
            "hosts: [\"127.0.0.1:{port}\"]\nallow_private: true\nallow_http: true\nheaders: {{ X-Base: \"{{{{ base }}}}\", X-Path: \"{{{{ request.path }}}}\" }}\nparams: {{ d: \"1\" }}"
        );
        let gateway = gateway(&config(base, &issuer, BASE, &more));
        assert_eq!(gateway.get("/r/api/a%2Fb?c=d").status, 200, "{base} {brought}: {}", gateway.stderr());
        let seen = api.last();
        assert_eq!(seen.target(), "/v1/a%2Fb?c=d&d=1", "{base} {brought}");
        assert_eq!((seen.field("host"), seen.field("authorization")), (Some(host.as_str()), Some("Bearer token-1")));
        assert_eq!((seen.field("x-base"), seen.field("x-path")), (Some(&*format!("http://{host}/v1")), Some("/v1/a%2Fb")));
        // What the upstream says of itself leads back to the gateway.
        let field = |path: &str, name: &str| gateway.get(&format!("/r/api{path}")).field(name).unwrap_or_default().to_owned();
        assert_eq!(field("/inside", "location"), "/r/api/next?a=1");
        assert_eq!(field("/inside", "link"), "</r/api/2>; rel=next");
        assert_eq!(field("/absolute", "location"), "/r/api/next");
        assert_eq!(field("/outside", "location"), format!("http://{host}/other"));
        assert_eq!(issuer.requests(), 1);
    }
}

#[test]
fn a_token_leads_nowhere_where_the_gateway_may_not_go() {
    let api = Upstream::ok();
    let host = api.url().strip_prefix("http://").unwrap().to_owned();
    let port = host.split_once(':').unwrap().1.to_owned();
    let allowed = format!("hosts: [\"127.0.0.1:{port}\", \"*.ok.example\"]\nallow_private: true");
    for (base, brought, more, why) in [
        ("{{ captured.base }}", "http://127.0.0.2:1", &*allowed, "`hosts` does not allow it"),
        ("{{ captured.base }}", &format!("http://127.0.0.1:{}", crate::support::free_port()), &allowed, "`hosts` does not allow it"),
        ("{{ captured.base }}", "https://ok.example.evil.example", &allowed, "`hosts` does not allow it"),
        ("{{ captured.base }}", "https://x.ok.example:8443", &allowed, "`hosts` does not allow it"),
        ("{{ captured.base }}", &format!("http://x@127.0.0.1:{port}"), &allowed, "holds a user"),
        ("{{ captured.base }}", &format!("http://127.0.0.1:{port}/a/../b"), &allowed, "path of `base_url`"),
        ("{{ captured.base }}", &format!("http://127.0.0.1:{port}/a?b"), &allowed, "holds a query"),
        ("{{ captured.base }}", &format!("http://127.0.0.1:{port}/a#b"), &allowed, "holds a fragment"),
        ("{{ captured.base }}", &host, &allowed, "whole URL"),
        ("{{ captured.base }}", "ftp://x.ok.example", &allowed, "whole URL"),
        ("{{ captured.base }}", "http://x.ok.example", "hosts: [\"x.ok.example\"]", "plain http"),
        ("https://{{ captured.base }}/v1", "x.ok.example/../..", &allowed, "no part of a host name"),
        ("https://{{ captured.base }}/v1", "evil.example#.ok.example", &allowed, "no part of a host name"),
        ("https://{{ captured.base }}.ok.example", "evil.example/", &allowed, "`hosts`"),
        // Loopback, although `hosts` would have it, as nobody wrote that out.
        ("{{ captured.base }}", &api.url(), &format!("hosts: [\"127.0.0.1:{port}\"]"), "may not connect there"),
        (
            "{{ captured.base }}",
            "http://169.254.169.254",
            "hosts: [\"169.254.169.254\"]\nallow_private: true\nallow_http: true",
            "may not connect",
        ),
    ] {
        let issuer = naming(brought);
        let gateway = gateway(&config(base, &issuer, BASE, more));
        let reply = gateway.get("/r/api/x");
        let text = reply.text();
        if base.ends_with(".ok.example") {
            assert!(reply.status == 502, "{text}");
            continue;
        }
        assert_eq!((reply.status, reply.code().as_str()), (502, "upstream-unreachable"), "{base} {brought}: {text}");
        assert!(text.contains(why), "{base} {brought}: {text}");
        assert!(!text.contains("evil") && !text.contains("8443"), "what came is not shown: {text}");
        assert!(api.seen().is_empty(), "{base} {brought}");
    }
}

#[test]
fn a_base_that_cannot_be_is_found_when_the_configuration_is_loaded() {
    let issuer = tenants();
    let key = "capture: { base: json.base }";
    for (text, why, cure) in [
        (config("{{ captured.base }}", &issuer, key, ""), "there are no `hosts`", "hosts: ["),
        (config("https://{{ captured.base }}.example.com", &issuer, key, ""), "there are no `hosts`", "hosts: ["),
        (config("http://{{ captured.base }}", &issuer, key, "hosts: [\"*.example.com\"]"), "plain http", "allow_http"),
        (config("{{ captured.basis }}", &issuer, key, "hosts: [\"*.example.com\"]"), "nothing captures `basis`", "`base`"),
        (config("https://{{ request.headers.host }}", &issuer, key, "hosts: [\"*.example.com\"]"), "does not exist at this place", ""),
        (config("{{ captured.base }}{{ base }}", &issuer, key, "hosts: [\"*.example.com\"]"), "does not exist at this place", ""),
        (
            "resources:\n  api:\n    base_url: \"{{ captured.base }}\"\n    hosts: [\"*.example.com\"]\n    auth: { bearer: \"${env:CLIENT_SECRET}\" }\n".to_owned(),
            "nothing under `auth` has a token",
            "",
        ),
    ] {
        let said = complaint(&text);
        assert!(said.contains(why) && said.contains(cure), "{text}\n{said}");
    }
}

#[test]
fn the_gateway_is_ready_before_the_first_token_and_says_what_it_does_not_know() {
    let api = Upstream::ok();
    let port = api.url().rsplit_once(':').unwrap().1.to_owned();
    let issuer = naming(format!("{}/v1", api.url()));
    let text = config(
        "{{ captured.base }}",
        &issuer,
        BASE,
        &format!("hosts: [\"127.0.0.1:{port}\"]\nallow_private: true\nheaders: {{ X-Base: \"{{{{ base }}}}\" }}"),
    );
    let (status, said) = explain(&text, &["GET", "/r/api/x"]);
    assert_eq!(status, Some(0), "{said}");
    assert!(said.contains("GET {{ captured.base }}/x") && said.contains("host: [to be fetched]"), "{said}");
    assert_eq!((issuer.requests(), api.seen().len()), (0, 0));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("postern.yaml");
    std::fs::write(&file, &text).unwrap();
    let tested = postern().args(["test", "--config"]).arg(&file).env("CLIENT_SECRET", SECRET).output().unwrap();
    let said = String::from_utf8_lossy(&tested.stdout).into_owned();
    assert_eq!(tested.status.code(), Some(0), "{said}");
    assert!(said.contains("known once there is a token"), "{said}");
    assert_eq!(api.last().target(), "/v1");
    // The first request waits for the credential.
    let admin = crate::support::free_port();
    issuer.delay.store(200, std::sync::atomic::Ordering::SeqCst);
    let gateway = gateway(&format!("admin: {{ listen: \"127.0.0.1:{admin}\" }}\n{text}"));
    let stream = std::net::TcpStream::connect(("127.0.0.1", admin)).unwrap();
    let ready = crate::support::exchange(stream, b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    assert!(ready.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&ready));
    let before = issuer.requests();
    assert_eq!(gateway.get("/r/api/x").status, 200);
    assert_eq!(issuer.requests(), before + 1);
}

#[test]
fn each_of_many_bases_is_reached_by_its_own_connections_and_a_new_token_leads_anew() {
    let issuer = Issuer::answering(|_, _, _| false);
    let apis: Vec<Upstream> = (0..2)
        .map(|_| {
            Upstream::answering(|seen, stream| {
                let refused = seen.field("authorization") == Some("Bearer token-1");
                answer(stream, if refused { "401 Unauthorized" } else { "200 OK" }, "", "")
            })
        })
        .collect();
    let urls: Vec<String> = apis.iter().map(Upstream::url).collect();
    let ports: Vec<String> = urls.iter().map(|url| format!("\"127.0.0.1:{}\"", url.rsplit_once(':').unwrap().1)).collect();
    issuer.now(move |_, number, stream| {
        let base = &urls[(number as usize - 1) % 2];
        json_answer(stream, &json!({ "access_token": format!("token-{number}"), "expires_in": 3600, "base": base }))
    });
    let more = format!("hosts: [{}]\nallow_private: true", ports.join(", "));
    let gateway = gateway(&config("{{ captured.base }}/v1", &issuer, BASE, &more));
    // The first token is refused at its base; the second attempt goes to the base of the second.
    assert_eq!(gateway.get("/r/api/x").status, 200);
    assert_eq!((apis[0].seen().len(), apis[1].seen().len()), (1, 1));
    assert_eq!(apis[1].last().field("authorization"), Some("Bearer token-2"));
    assert_eq!(gateway.get("/r/api/x").status, 200);
    assert_eq!((apis[0].seen().len(), apis[1].seen().len()), (1, 2));
}
