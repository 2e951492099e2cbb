//! `postern test`: each stage as it happens, through the stack that serves requests, and where it ends.

use std::fs;
use std::process::Output;

use rustls::version::{TLS12, TLS13};
use serde_json::Value;

use crate::support::tls::{Authority, upstream as tls_upstream};
use crate::support::{Seen, Upstream, free_port, postern};

const STAGES: [&str; 6] = ["secret", "dns", "tcp", "tls", "credential", "call"];
const TOKEN: &str = "hunter2-hunter2";

/// `postern test` on this configuration, in JSON.
fn test(config: &str, args: &[&str]) -> (Option<i32>, Vec<Value>, Output) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("postern.yaml");
    fs::write(&file, config.replace("{dir}", &folder.path().display().to_string())).unwrap();
    let output = postern().args(["test", "--json", "--config"]).arg(&file).args(args).env("TOKEN", TOKEN).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(!text.contains(TOKEN) && !String::from_utf8_lossy(&output.stderr).contains(TOKEN), "{text}");
    let rows = text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect();
    (output.status.code(), rows, output)
}

/// The stages of a resource that went well, and the detail of the one that did not.
fn way(rows: &[Value], resource: &str) -> (Vec<String>, Option<(String, String)>) {
    let own: Vec<&Value> = rows.iter().filter(|r| r["resource"] == resource).collect();
    let good = own.iter().filter(|r| r["ok"] == true).map(|r| r["stage"].as_str().unwrap().to_owned()).collect();
    let bad: Vec<_> = own.iter().filter(|r| r["ok"] == false).collect();
    assert!(bad.len() <= 1 && own.iter().all(|r| r["ms"].is_u64()), "{own:#?}");
    (good, bad.first().map(|r| (r["stage"].as_str().unwrap().to_owned(), r["detail"].as_str().unwrap().to_owned())))
}

fn resource(url: &str, more: &str) -> String {
    format!("resources: {{ a: {{ base_url: \"{url}\", auth: {{ bearer: \"${{env:TOKEN}}\" }}{more} }} }}\n")
}

#[test]
fn all_stages_are_told_in_order_and_one_call_is_made() {
    let upstream = Upstream::ok();
    let (code, rows, _) = test(&resource(&upstream.url(), ""), &["a"]);
    assert_eq!((code, way(&rows, "a")), (Some(0), (STAGES.map(str::to_owned).to_vec(), None)), "{rows:#?}");
    let details: Vec<&str> = rows.iter().map(|r| r["detail"].as_str().unwrap()).collect();
    assert!(
        details[1].contains("127.0.0.1") && details[3].contains("plain http") && details[4] == "bearer" && details[5].ends_with(": 200"),
        "{details:?}"
    );
    let seen: Vec<Seen> = upstream.seen();
    assert_eq!((seen.len(), seen[0].field("authorization")), (1, Some("Bearer hunter2-hunter2")));
}

#[test]
fn the_call_is_what_the_resource_says_and_its_answer_is_judged() {
    let upstream = Upstream::ok();
    let good = ", vars: { area: eu }, test: { method: POST, path: \"/status/{{ vars.area }}?full=1\", json: { a: [1, \"x\"], t: \"{{ vars.area }}\" }, headers: { X-Probe: \"1\" }, statuses: [200, 201], when: \"body.ok and status == 200 and headers['content-type'] == 'application/json'\" }";
    let (code, rows, _) = test(&resource(&upstream.url(), good), &[]);
    assert_eq!(code, Some(0), "{rows:#?}");
    let seen = upstream.last();
    assert_eq!(
        (seen.line(), seen.field("x-probe"), seen.field("content-type")),
        ("POST /status/eu?full=1 HTTP/1.1", Some("1"), Some("application/json"))
    );
    assert_eq!(String::from_utf8_lossy(&seen.body), "{\"a\":[1,\"x\"],\"t\":\"eu\"}");
    let form = ", test: { method: PUT, path: /f, form: { \"a b\": \"c&d\" } }";
    assert_eq!(test(&resource(&upstream.url(), form), &[]).0, Some(0));
    assert_eq!(String::from_utf8_lossy(&upstream.seen().pop().unwrap().body), "a%20b=c%26d");
    for (test_key, why) in [
        ("{ path: /x, statuses: [204] }", "GET /x: 200, expected 204"),
        ("{ path: /x, when: \"not body.ok\" }", "`when` does not hold: not body.ok"),
        ("{ path: /x, when: \"body.nothing.at.all == 1\" }", "body.nothing.at.all"),
    ] {
        let (code, rows, _) = test(&resource(&upstream.url(), &format!(", test: {test_key}")), &[]);
        let (good, bad) = way(&rows, "a");
        let (stage, detail) = bad.unwrap();
        assert!(code == Some(4) && good.len() == 5 && stage == "call" && detail.contains(why), "{test_key}: {detail}");
    }
}

#[test]
fn of_several_calls_the_first_success_counts() {
    use std::io::Write as _;
    let upstream = Upstream::answering(|seen, stream| {
        let status = if seen.target() == "/two" { "200 OK" } else { "404 Not Found" };
        write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").is_ok()
    });
    let (code, rows, _) = test(&resource(&upstream.url(), ", test: [ { path: /one }, { path: /two }, { path: /three } ]"), &[]);
    assert_eq!((code, rows[5]["detail"].as_str()), (Some(0), Some("GET /two: 200")));
    assert_eq!(upstream.seen().iter().map(|s| s.target().to_owned()).collect::<Vec<_>>(), ["/one", "/two"]);
    let (code, rows, _) = test(&resource(&upstream.url(), ", test: [ { path: /one }, { path: /three } ]"), &[]);
    assert_eq!((code, rows[5]["detail"].as_str()), (Some(4), Some("GET /one: 404, expected 2xx; GET /three: 404, expected 2xx")));
}

#[test]
fn a_call_may_go_to_another_host_with_the_same_credential() {
    let (upstream, status) = (Upstream::ok(), Upstream::ok());
    let url = format!("{}/v2", status.url());
    let other = format!(", headers: {{ X-Own: \"1\" }}, test: {{ url: \"{url}\", path: \"/health?full=1\" }}");
    let (code, rows, _) = test(&resource(&upstream.url(), &other), &[]);
    assert_eq!((code, rows[5]["detail"].as_str()), (Some(0), Some(format!("GET {url}/health?full=1: 200").as_str())), "{rows:#?}");
    let seen = status.last();
    assert_eq!((seen.target(), seen.field("host")), ("/v2/health?full=1", Some(format!("127.0.0.1:{}", status.port).as_str())));
    assert_eq!((seen.field("authorization"), seen.field("x-own")), (Some("Bearer hunter2-hunter2"), Some("1")));
    assert!(upstream.seen().is_empty());
    // Of several only one may be elsewhere, and one that is not there is told by its own address.
    let gone = free_port();
    let one = format!(", test: {{ url: \"http://127.0.0.1:{gone}\", path: /x }}");
    let two = format!(", test: [ {{ url: \"http://127.0.0.1:{gone}\", path: /x }}, {{ path: /y }} ]");
    assert_eq!((test(&resource(&upstream.url(), &two), &[]).0, upstream.last().target()), (Some(0), "/y"));
    let (code, rows, _) = test(&resource(&upstream.url(), &one), &[]);
    let (stage, detail) = way(&rows, "a").1.unwrap();
    assert!(code == Some(4) && stage == "tcp" && detail.contains(&gone.to_string()), "{rows:#?}");
    let two = format!(", test: [ {{ path: /x, statuses: [404] }}, {{ url: \"{url}\" }} ]");
    assert_eq!(test(&resource(&upstream.url(), &two), &[]).0, Some(0));
    assert_eq!(status.last().target(), "/v2");
}

#[test]
fn each_stage_can_be_the_one_that_fails() {
    let plain = Upstream::ok();
    let refusing = Upstream::canned("HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n");
    let dead = Upstream::answering(|_, _| false);
    let body = ", limits: { buffer: 1KiB }, auth: { api_key: { in: body, name: key, value: \"${env:TOKEN}\" } }, test: { method: POST, json: { a: \"BIG\" } }";
    let body = body.replace("BIG", &"x".repeat(2000));
    for (url, more, stage, why) in [
        ("http://no-such-host.invalid".to_owned(), ", allow_http: true", "dns", "no-such-host.invalid"),
        (format!("http://127.0.0.1:{}", free_port()), "", "tcp", "refused"),
        (plain.url().replace("http:", "https:"), "", "tls", ""),
        (plain.url(), body.as_str(), "credential", "body-too-large"),
        (refusing.url(), "", "call", "401, expected 2xx"),
        (dead.url(), "", "call", "upstream-protocol"),
    ] {
        let config = resource(&url, more);
        // A second `auth` replaces the first.
        let config = if more.contains("api_key") { config.replace("auth: { bearer: \"${env:TOKEN}\" }, ", "") } else { config };
        let (code, rows, output) = test(&config, &[]);
        assert_eq!(code, Some(4), "{config} {output:?}");
        let (good, bad) = way(&rows, "a");
        let (at, detail) = bad.unwrap();
        assert!(at == stage && detail.contains(why), "{stage}: {at} {detail}");
        assert_eq!(good, STAGES[..good.len()], "{rows:#?}");
        assert_eq!(STAGES[good.len()], stage);
    }
}

#[test]
fn tls_is_told_with_what_was_agreed_and_an_unknown_authority_is_the_reason() {
    let authority = Authority::new();
    let upstream = tls_upstream(&authority.issue("localhost", false), &[&TLS13, &TLS12]);
    let url = format!("https://localhost:{}", upstream.port);
    let trusted = format!(", tls: {{ ca: \"{}\" }}", authority.pem().replace('\n', "\\n"));
    let (_, rows, _) = test(&resource(&url, &trusted), &[]);
    let tls = rows.iter().find(|r| r["stage"] == "tls").unwrap();
    assert!(tls["ok"] == true && tls["detail"].as_str().unwrap().contains("TLSv1.3"), "{rows:#?}");
    let other = format!(", tls: {{ ca: \"{}\" }}", Authority::new().pem().replace('\n', "\\n"));
    let (code, rows, _) = test(&resource(&url, &other), &[]);
    assert_eq!((code, way(&rows, "a").1.unwrap().0.as_str()), (Some(4), "tls"), "{rows:#?}");
}

#[test]
fn all_resources_are_tested_or_those_that_are_named() {
    let upstream = Upstream::ok();
    let dead = free_port();
    let config = format!(
        "resources:\n  bad: {{ base_url: \"http://127.0.0.1:{dead}\" }}\n  good: {{ base_url: \"{}\", auth: {{ bearer: \"${{env:TOKEN}}\" }} }}\n",
        upstream.url()
    );
    let (code, rows, _) = test(&config, &[]);
    assert_eq!((code, way(&rows, "good").1, way(&rows, "bad").1.unwrap().0.as_str()), (Some(4), None, "tcp"));
    let (code, rows, _) = test(&config, &["good"]);
    assert!(code == Some(0) && rows.iter().all(|r| r["resource"] == "good"), "{rows:#?}");
    assert_eq!(test(&config, &["god"]).0, Some(2));
    assert_eq!(test("resources: { a: { base_url: \"http://localhost\", auth: { bearer: \"${env:NOT_SET}\" } } }", &[]).0, Some(3));
}

#[test]
fn wrong_tests_are_told_when_the_configuration_is_checked() {
    for (wrong, message) in [
        ("{ path: x }", "follows /r/<resource>"),
        ("{ path: /x, statuses: [20] }", "no status"),
        ("{ path: /x, method: get }", "capitals"),
        ("{ path: /x, json: {}, form: {} }", "one body"),
        ("{ path: /x, url: b.example }", "a scheme and a host"),
        ("{ path: /x, url: \"http://b.example\" }", "over plain http"),
        ("{ url: \"https://b.example/x?y\" }", "holds a query"),
        ("{ url: \"https://{{ 'b.example' }}\" }", "no `hosts`"),
        ("{ path: /x, when: \"{{ body.ok }}\" }", "bare expression"),
        ("{ path: /x, when: \"nothing.there\" }", "nothing"),
        ("{ pth: /x }", "did you mean `path`"),
        ("[]", "one call, or a list"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.yaml");
        fs::write(&file, resource("http://localhost:1", &format!(", test: {wrong}"))).unwrap();
        let output = postern().args(["check", "--config"]).arg(&file).env("TOKEN", TOKEN).output().unwrap();
        let report = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(3) && report.contains(message), "{wrong}: {report}");
    }
}

/// A resource with a token of an issuer.
fn with_issuer(upstream: &Upstream, issuer: &str) -> String {
    format!(
        "resources: {{ a: {{ base_url: \"{}\", auth: {{ oauth2_client_credentials: {{ token_url: \"{issuer}/token\", client_id: me, client_secret: \"${{env:TOKEN}}\" }} }} }} }}\n",
        upstream.url()
    )
}

#[test]
fn a_token_is_fetched_in_its_own_stage_and_once() {
    let upstream = Upstream::ok();
    let issuer_of = |body: &str| -> &'static str {
        format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len()).leak()
    };
    let issuer = Upstream::canned(issuer_of("{\"access_token\":\"fetched-1\",\"token_type\":\"Bearer\",\"expires_in\":3600}"));
    let (code, rows, _) = test(&with_issuer(&upstream, &issuer.url()), &[]);
    assert_eq!((code, way(&rows, "a").1), (Some(0), None), "{rows:#?}");
    assert_eq!((issuer.seen().len(), upstream.last().field("authorization")), (1, Some("Bearer fetched-1")));
    // An issuer that is not there is the credential's failure, and the upstream hears nothing of it.
    let before = upstream.seen().len();
    let (code, rows, _) = test(&with_issuer(&upstream, &format!("http://127.0.0.1:{}", free_port())), &[]);
    let (good, bad) = way(&rows, "a");
    assert!(code == Some(4) && good.len() == 4 && bad.as_ref().unwrap().0 == "credential", "{rows:#?}");
    assert!(bad.unwrap().1.contains("issuer"), "{rows:#?}");
    assert_eq!(upstream.seen().len(), before);
}
