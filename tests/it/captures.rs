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
