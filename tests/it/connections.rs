//! Connections: a person connects an account by consent, calls name it, and nobody uses another's.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

use crate::support::browser::{Browser, LANDING, Stand, given, landed, param};
use crate::support::issuer::{Issuer, answer, decoded, json_answer};
use crate::support::{Gateway, eventually, postern, variable};

const BY_HEADER: &str = "connections: { by: header }";

#[test]
fn a_person_connects_an_account_and_calls_are_made_with_it() {
    let stand = Stand::new("scopes: [read, write]", "");
    let reply = stand.gateway.get("/r/api/x");
    assert_eq!((reply.status, reply.code().as_str()), (424, "connection-missing"));
    let problem = reply.json();
    assert_eq!((&problem["fault"], &problem["retryable"], &problem["connection"]), (&json!("client"), &json!(false), &json!("default")));
    assert!(problem["hint"].as_str().unwrap().contains("postern connect api"), "{problem}");

    let mut browser = Browser::new();
    let asked = browser.agree(&stand.usual_link());
    assert!(asked.starts_with(&format!("{}/authorize?", stand.issuer.server.url())), "{asked}");
    let callback = format!("http://127.0.0.1:{}/connect/callback", stand.admin);
    let value = |name: &str| param(&asked, name).unwrap_or_default();
    assert_eq!(
        (value("response_type"), value("client_id"), value("redirect_uri"), value("scope"), value("code_challenge_method")),
        ("code".into(), "id".into(), callback.clone(), "read write".into(), "S256".into())
    );

    let reply = browser.come_back(&asked, "code=the%20code%26");
    let to = reply.field("location").unwrap();
    assert!(to.starts_with(&format!("{LANDING}&connect_session=")), "{to}");
    assert_eq!(stand.gateway.get("/r/api/x").status, 424, "what nobody has redeemed is used");
    assert!(stand.redeem(&landed(&reply)));

    let form = stand.issuer.form();
    let sent = |name: &str| form.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str()).unwrap_or_default().to_owned();
    assert_eq!((sent("grant_type"), sent("code"), sent("redirect_uri")), ("authorization_code".into(), "the code&".into(), callback));
    let challenge = URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, sent("code_verifier").as_bytes()));
    assert_eq!(value("code_challenge"), challenge);
    assert!(stand.issuer.server.last().field("authorization").unwrap().starts_with("Basic "));

    assert_eq!(stand.gateway.get("/r/api/x").status, 200);
    assert_eq!(stand.api.last().field("authorization"), Some("Bearer token-1"));
    let records = stand.gateway.records(3);
    assert!(records.iter().all(|record| record["connection"] == "default"), "{records:?}");
    assert_eq!(records[0]["error"], "connection-missing");
    let everything = format!("{records:?}{}{:?}", stand.gateway.stderr(), stand.connections());
    assert!(!everything.contains("token-1") && !everything.contains("refresh-1"), "{everything}");
}

#[test]
fn a_connection_survives_a_restart_and_is_renewed_with_the_refresh_token_that_came_last() {
    let issuer = Issuer::answering(|_, number, stream| {
        let mut given = given(number);
        // The first two end at once, so that the next call renews.
        given["expires_in"] = if number < 3 { 1.into() } else { 3600.into() };
        json_answer(stream, &given)
    });
    let mut stand = Stand::with("", "", "", issuer);
    stand.connect(json!({ "resource": "api", "return_url": LANDING }));
    std::thread::sleep(std::time::Duration::from_millis(1100));
    assert_eq!(stand.gateway.get("/r/api/x").status, 200);
    assert_eq!(stand.issuer.form().iter().find(|(n, _)| n == "refresh_token").map(|(_, v)| v.as_str()), Some("refresh-1"));
    std::thread::sleep(std::time::Duration::from_millis(1100));
    stand.gateway.stop();
    stand.gateway.again();
    assert_eq!(stand.gateway.get("/r/api/x").status, 200);
    assert_eq!(stand.issuer.form().iter().find(|(n, _)| n == "refresh_token").map(|(_, v)| v.as_str()), Some("refresh-2"));
    assert_eq!(stand.api.last().field("authorization"), Some("Bearer token-3"));
}

#[test]
fn a_connection_that_its_issuer_refuses_is_424_with_a_link_that_mends_it() {
    let refusing = Arc::new(AtomicBool::new(false));
    let refuses = refusing.clone();
    let issuer = Issuer::answering(move |seen, number, stream| {
        let refreshes = String::from_utf8_lossy(&seen.body).contains("refresh_token");
        if refreshes && refuses.load(Ordering::SeqCst) {
            return answer(stream, "400 Bad Request", "Content-Type: application/json\r\n", r#"{"error":"invalid_grant"}"#);
        }
        let mut given = given(number);
        given["expires_in"] = 1.into();
        json_answer(stream, &given)
    });
    let stand = Stand::with("", "", "", issuer);
    stand.connect(json!({ "resource": "api", "return_url": LANDING }));
    refusing.store(true, Ordering::SeqCst);
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let reply = stand.gateway.get("/r/api/x");
    assert_eq!((reply.status, reply.code().as_str()), (424, "connection-missing"), "{}", reply.text());
    let problem = reply.json();
    assert_eq!((&problem["fault"], &problem["retryable"]), (&json!("issuer"), &json!(false)));
    assert_eq!(stand.connections()[0]["state"], "refused");

    // The link in the answer is enough, together with the code that its last page shows.
    let link = problem["connect_url"].as_str().unwrap().to_owned();
    assert_eq!(stand.gateway.get("/r/api/x").json()["connect_url"], link, "each call makes a link of its own");
    let page = stand.consent(&mut Browser::new(), &link);
    let code = page.text().split("<code>").nth(1).unwrap().split('<').next().unwrap().to_owned();
    assert!(stand.redeem(&code));
    refusing.store(false, Ordering::SeqCst);
    assert_eq!(stand.gateway.get("/r/api/x").status, 200);
    assert_eq!(stand.connections().len(), 1);
}

#[test]
fn a_connection_that_is_made_anew_keeps_its_variables() {
    let resource = "connections: { by: header }\nvars: { tenant: nobodys }\nheaders: { X-Tenant: \"{{ vars.tenant }}\" }";
    let stand = Stand::new("", resource);
    let tenant = || {
        let reply = stand.gateway.send("GET", "/r/api/x", "Postern-Connection: a\r\n", b"");
        assert_eq!(reply.status, 200, "{}", reply.text());
        let seen = stand.api.last();
        (seen.field("x-tenant").unwrap().to_owned(), seen.field("authorization").unwrap().to_owned())
    };
    let order = |vars: serde_json::Value| json!({ "resource": "api", "connection": "a", "return_url": LANDING, "vars": vars });
    stand.connect(order(json!({ "tenant": "acme" })));
    assert_eq!(tenant(), ("acme".into(), "Bearer token-1".into()));
    // By an order that says nothing about them.
    stand.connect(order(json!(null)));
    assert_eq!(tenant(), ("acme".into(), "Bearer token-2".into()));
    // By the link in the answer to a call: the client has become another one to the provider.
    stand.reconfigure("client_id: id\n", "client_id: another\n");
    let reply = stand.gateway.send("GET", "/r/api/x", "Postern-Connection: a\r\n", b"");
    assert_eq!(reply.status, 424);
    let page = stand.consent(&mut Browser::new(), reply.json()["connect_url"].as_str().unwrap());
    let code = page.text().split("<code>").nth(1).unwrap().split('<').next().unwrap().to_owned();
    assert!(stand.redeem(&code));
    assert_eq!(tenant(), ("acme".into(), "Bearer token-3".into()));
    // What is said is what holds.
    stand.connect(order(json!({ "tenant": "other" })));
    assert_eq!(tenant(), ("other".into(), "Bearer token-4".into()));
    stand.connect(order(json!({})));
    assert_eq!(tenant(), ("nobodys".into(), "Bearer token-5".into()));
}

#[test]
fn a_call_names_its_connection_and_gets_no_other() {
    let stand = Stand::new("", BY_HEADER);
    for name in ["one", "two", "default"] {
        stand.connect(json!({ "resource": "api", "connection": name, "return_url": LANDING }));
    }
    // Tokens are numbered as they were given.
    for (name, token) in [("one", "token-1"), ("two", "token-2"), ("one", "token-1"), ("default", "token-3")] {
        let reply = stand.gateway.send("GET", "/r/api/x", &format!("Postern-Connection: {name}\r\n"), b"");
        assert_eq!(reply.status, 200, "{}", reply.text());
        let seen = stand.api.last();
        assert_eq!(seen.field("authorization"), Some(format!("Bearer {token}").as_str()));
        assert!(!seen.head.to_lowercase().contains("postern-connection"), "{}", seen.head);
    }
    stand.gateway.get("/r/api/x");
    assert_eq!(stand.api.last().field("authorization"), Some("Bearer token-3"), "without a name it is `default`");
    let reply = stand.gateway.send("GET", "/r/api/x", "Postern-Connection: three\r\n", b"");
    assert_eq!((reply.status, &reply.json()["connection"]), (424, &json!("three")));
    let before = stand.api.seen().len();
    for wrong in ["a b", "../x", "<b>", "", "a,b", "x".repeat(65).as_str()] {
        let reply = stand.gateway.send("GET", "/r/api/x", &format!("Postern-Connection: {wrong}\r\n"), b"");
        assert_eq!((reply.status, reply.code().as_str()), (400, "bad-request"), "{wrong}");
    }
    let reply = stand.gateway.send("GET", "/r/api/x", "Postern-Connection: one\r\nPostern-Connection: two\r\n", b"");
    assert_eq!(reply.status, 400);
    assert_eq!(stand.api.seen().len(), before);
}

#[test]
fn sixty_four_calls_over_two_connections_never_carry_the_others_token() {
    let stand = Stand::new("", BY_HEADER);
    for name in ["one", "two"] {
        stand.connect(json!({ "resource": "api", "connection": name, "return_url": LANDING }));
    }
    std::thread::scope(|scope| {
        for number in 0..64 {
            let (name, stand) = (if number % 2 == 0 { "one" } else { "two" }, &stand);
            scope.spawn(move || stand.gateway.send("GET", &format!("/r/api/{name}"), &format!("Postern-Connection: {name}\r\n"), b""));
        }
    });
    let seen = stand.api.seen();
    assert_eq!(seen.len(), 64);
    for one in seen {
        let token = if one.target() == "/one" { "Bearer token-1" } else { "Bearer token-2" };
        assert_eq!(one.field("authorization"), Some(token));
    }
}

#[test]
fn what_is_another_clients_is_not_there() {
    let stand = Stand::new("", BY_HEADER);
    stand.connect(json!({ "resource": "api", "connection": "books", "client": "billing", "return_url": LANDING }));
    let theirs = stand.gateway.send("GET", "/r/api/x", "Postern-Connection: books\r\n", b"");
    let nobodys = stand.gateway.send("GET", "/r/api/x", "Postern-Connection: nothing\r\n", b"");
    assert_eq!((theirs.status, nobodys.status), (424, 424));
    assert_eq!(theirs.json()["detail"].as_str().unwrap().replace("books", "nothing"), nobodys.json()["detail"].as_str().unwrap());
    assert!(stand.api.seen().is_empty());
    // Nor can it be taken over by asking for the same name.
    let order = json!({ "resource": "api", "connection": "books", "return_url": LANDING });
    assert_eq!(stand.api("POST", "/api/connect-sessions", &order).status, 403);
}

#[test]
fn a_connection_by_client_bears_the_clients_name() {
    let stand = Stand::new("", "connections: { by: client }");
    stand.connect(json!({ "resource": "api", "return_url": LANDING }));
    assert_eq!(stand.connections()[0]["connection"], "anonymous");
    assert_eq!(stand.gateway.get("/r/api/x").status, 200);
    let reply = stand.gateway.send("GET", "/r/api/x", "Postern-Connection: other\r\n", b"");
    assert_eq!(reply.status, 400);
}

#[test]
fn a_name_where_there_is_nothing_to_choose_is_refused() {
    let stand = Stand::new("", "");
    let reply = stand.gateway.send("GET", "/r/api/x", "Postern-Connection: other\r\n", b"");
    assert_eq!((reply.status, reply.code().as_str()), (400, "bad-request"));
    let gateway = Gateway::start(&format!("resources: {{ plain: {{ base_url: \"{}\" }} }}", stand.api.url()));
    assert_eq!(gateway.send("GET", "/r/plain/x", "Postern-Connection: default\r\n", b"").status, 400);
    assert_eq!(gateway.get("/r/plain/x").status, 200);
}

#[test]
fn connections_are_listed_and_deleted_and_the_issuer_is_told() {
    let issuer =
        Issuer::answering(
            |seen, number, stream| {
                if seen.target() == "/revoke" { answer(stream, "200 OK", "", "") } else { json_answer(stream, &given(number)) }
            },
        );
    let revoke = format!("revoke_url: \"{}/revoke\"", issuer.server.url());
    let stand = Stand::with(&revoke, BY_HEADER, "", issuer);
    stand.connect(json!({ "resource": "api", "connection": "a@b", "return_url": LANDING, "vars": { "tenant": "acme" } }));
    let listed = stand.connections();
    assert_eq!(
        (&listed[0]["resource"], &listed[0]["connection"], &listed[0]["client"]),
        (&json!("api"), &json!("a@b"), &json!("anonymous"))
    );
    let reply = stand.api("DELETE", "/api/connections/api/a%40b", &json!({}));
    assert_eq!((reply.status, &reply.json()["revoked"]), (200, &json!(true)), "{}", reply.text());
    let told = decoded(&String::from_utf8_lossy(&stand.issuer.server.last().body));
    assert!(told.contains(&("token".into(), "refresh-1".into())), "{told:?}");
    assert!(stand.connections().is_empty());
    assert_eq!(stand.gateway.send("GET", "/r/api/x", "Postern-Connection: a@b\r\n", b"").status, 424);
    assert_eq!(stand.api("DELETE", "/api/connections/api/a%40b", &json!({})).status, 400);
}

#[test]
fn a_deletion_waits_for_the_renewal_that_is_under_way_and_revokes_what_came_of_it() {
    let go = Arc::new(AtomicBool::new(false));
    let waits = go.clone();
    let issuer = Issuer::answering(move |seen, number, stream| {
        if seen.target() == "/revoke" {
            return answer(stream, "200 OK", "", "");
        }
        if String::from_utf8_lossy(&seen.body).contains("grant_type=refresh_token") {
            eventually(|| waits.load(Ordering::SeqCst).then_some(()));
        }
        let mut given = given(number);
        given["expires_in"] = 1.into();
        json_answer(stream, &given)
    });
    let revoke = format!("revoke_url: \"{}/revoke\"", issuer.server.url());
    let stand = Stand::with(&revoke, "", "", issuer);
    stand.connect(json!({ "resource": "api", "return_url": LANDING }));
    std::thread::sleep(std::time::Duration::from_millis(1100));
    std::thread::scope(|scope| {
        scope.spawn(|| stand.gateway.get("/r/api/x"));
        assert!(eventually(|| (stand.issuer.requests() == 2).then_some(())).is_some());
        let deleted = scope.spawn(|| stand.api("DELETE", "/api/connections/api/default", &json!({})));
        assert!(eventually(|| stand.connections().is_empty().then_some(())).is_some());
        assert_eq!(stand.issuer.requests(), 2, "something was revoked before it was known what");
        go.store(true, Ordering::SeqCst);
        assert_eq!(deleted.join().unwrap().json()["revoked"], true);
    });
    let told = decoded(&String::from_utf8_lossy(&stand.issuer.server.last().body));
    assert!(told.contains(&("token".into(), "refresh-2".into())), "{told:?}");
}

#[test]
fn a_reload_gives_a_connection_that_was_refused_one_more_try() {
    let refusing = Arc::new(AtomicBool::new(true));
    let refuses = refusing.clone();
    let issuer = Issuer::answering(move |seen, number, stream| {
        if String::from_utf8_lossy(&seen.body).contains("grant_type=refresh_token") && refuses.load(Ordering::SeqCst) {
            return answer(stream, "400 Bad Request", "Content-Type: application/json\r\n", r#"{"error":"invalid_grant"}"#);
        }
        let mut given = given(number);
        given["expires_in"] = if number == 1 { 1.into() } else { 3600.into() };
        json_answer(stream, &given)
    });
    let stand = Stand::with("", "", "", issuer);
    stand.connect(json!({ "resource": "api", "return_url": LANDING }));
    std::thread::sleep(std::time::Duration::from_millis(1100));
    assert!(eventually(|| (stand.gateway.get("/r/api/x").status == 424).then_some(())).is_some());
    refusing.store(false, Ordering::SeqCst);
    assert_eq!(stand.gateway.get("/r/api/x").status, 424, "nobody has mended anything yet");
    stand.reconfigure("client_id: id\n", "client_id: id\n        client_auth: post\n");
    assert_eq!(stand.gateway.get("/r/api/x").status, 200);
}

/// Runs a command beside the gateway. Its browser writes the link that it is to open into a file.
fn command(stand: &Stand, arguments: &[&str], input: &str) -> std::process::Child {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = stand.gateway.folder.path().join("bin");
    std::fs::create_dir_all(&folder).unwrap();
    let script = folder.join("xdg-open");
    // The page that it is to open, for whose eyes that is, and the link on it.
    let looks = "cat \"$1\" > page && stat -c '%a %n' \"$1\" \"$(dirname \"$1\")\" > modes && sed -n 's/.*href=\"\\([^\"]*\\)\".*/\\1/p' page > link.new && mv link.new link";
    std::fs::write(&script, format!("#!/bin/sh\ncd {} && {looks}\n", folder.display())).unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::write(folder.join("input"), input).unwrap();
    let path = format!("{}:{}", folder.display(), variable("PATH").unwrap_or_default());
    let mut command = postern();
    command.args(["--config"]).arg(stand.gateway.folder.path().join("postern.yaml")).args(arguments);
    command.env("PATH", path).env("CLIENT_SECRET", "s3cret-of-the-client");
    let piped = std::process::Stdio::piped;
    command.stdin(std::fs::File::open(folder.join("input")).unwrap()).stdout(piped()).stderr(piped()).spawn().unwrap()
}

#[test]
fn the_command_opens_a_browser_which_lands_at_it() {
    let stand = Stand::new("", "");
    let child = command(&stand, &["connect", "api"], "");
    let file = stand.gateway.folder.path().join("bin/link");
    let link = eventually(|| std::fs::read_to_string(&file).ok()).expect("no browser was opened").trim().to_owned();
    // What stands in a command line is seen by every user of the machine: there only is a file, which others cannot read.
    let modes = std::fs::read_to_string(stand.gateway.folder.path().join("bin/modes")).unwrap();
    let modes: Vec<(&str, &str)> = modes.lines().filter_map(|line| line.split_once(' ')).collect();
    assert_eq!([modes[0].0, modes[1].0], ["600", "700"], "{modes:?}");
    let mut browser = Browser::new();
    let reply = stand.consent(&mut browser, &link);
    let place = reply.field("location").unwrap().to_owned();
    assert!(place.starts_with("http://127.0.0.1:"), "{place}");
    // Who does not know the place is told nothing, and the right one still lands.
    assert_eq!(browser.get(&format!("http://127.0.0.1:{}/favicon.ico", crate::support::browser::port_of(&place))).status, 404);
    let page = browser.get(&place);
    assert!(page.text().contains("close this page"), "{}", page.text());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stdout).trim()), (Some(0), "connected: api default"));
    assert!(!std::path::Path::new(modes[1].1).exists(), "the file is left behind");
    assert_eq!(stand.gateway.get("/r/api/x").status, 200);
    let listed = command(&stand, &["connect", "--list", "--json"], "").wait_with_output().unwrap();
    let listed: serde_json::Value = serde_json::from_slice(&listed.stdout).unwrap();
    assert_eq!((&listed[0]["connection"], &listed[0]["state"]), (&json!("default"), &json!("fresh")));
    let deleted = command(&stand, &["connect", "api", "--delete"], "").wait_with_output().unwrap();
    assert!(String::from_utf8_lossy(&deleted.stdout).starts_with("deleted: api default"), "{deleted:?}");
    assert_eq!(stand.gateway.get("/r/api/x").status, 424);
}

#[test]
fn without_a_browser_the_code_is_typed() {
    let stand = Stand::new("", "");
    let link = stand.link(json!({ "resource": "api" }));
    let page = stand.consent(&mut Browser::new(), &link);
    assert_eq!(page.status, 200);
    let code = page.text().split("<code>").nth(1).unwrap().split('<').next().unwrap().to_owned();
    let wrong = command(&stand, &["connect", "--code", "a.b"], "").wait_with_output().unwrap();
    assert_eq!(wrong.status.code(), Some(1));
    // Who carries it over sees what it would connect, and must mean it.
    let unasked = command(&stand, &["connect", "--code", &code], "y\n").wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&unasked.stderr).into_owned();
    assert!(unasked.status.code() == Some(1) && said.contains("connects api default for every client") && said.contains("--yes"), "{said}");
    assert_eq!(stand.gateway.get("/r/api/x").status, 424);
    let output = command(&stand, &["connect", "--code", &code, "--yes", "--json"], "").wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(stand.gateway.get("/r/api/x").status, 200);
    // The command reads the code from its input where it has opened no browser.
    let child = command(&stand, &["connect", "api", "--no-browser", "--json"], "nonsense\n");
    let output = child.wait_with_output().unwrap();
    let first: serde_json::Value = serde_json::from_slice(output.stdout.split(|b| *b == b'\n').next().unwrap()).unwrap();
    assert!(first["connect_url"].as_str().unwrap().contains("/connect/start/"), "{first}");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn a_provider_that_says_no_sends_the_client_its_word() {
    let stand = Stand::new("", "");
    let mut browser = Browser::new();
    let asked = browser.agree(&stand.usual_link());
    let reply = browser.come_back(&asked, "error=access_denied&error_description=no");
    assert_eq!(param(reply.field("location").unwrap(), "connect_error").as_deref(), Some("access_denied"));
    assert_eq!(stand.issuer.requests(), 0);
    let page = browser.get(&stand.link(json!({ "resource": "api" })));
    assert_eq!(page.status, 200);
    let link = stand.usual_link();
    let page = browser.get(&link);
    let reply = browser.post(&link, &format!("proof={}&answer=cancel", crate::support::browser::proof(&page)));
    assert_eq!(param(reply.field("location").unwrap(), "connect_error").as_deref(), Some("cancelled"));
    assert_eq!(browser.get(&link).status, 404, "a link that was declined is good no more");
}

#[test]
fn an_issuer_that_gives_no_token_for_the_code_connects_nothing() {
    let issuer =
        Issuer::answering(|_, _, stream| answer(stream, "200 OK", "Content-Type: application/json\r\n", r#"{"error":"invalid_grant"}"#));
    let stand = Stand::with("", "", "", issuer);
    let reply = stand.consent(&mut Browser::new(), &stand.usual_link());
    assert_eq!(param(reply.field("location").unwrap(), "connect_error").as_deref(), Some("server_error"));
    let page = stand.consent(&mut Browser::new(), &stand.link(json!({ "resource": "api" })));
    assert_eq!(page.status, 502);
    assert!(page.text().contains("invalid_grant"), "{}", page.text());
    assert!(stand.connections().is_empty());
}

#[test]
fn dialects_of_the_authorize_url_arrive_as_written() {
    let cases = [
        ("pkce: false", "client_id=id&redirect_uri=CALLBACK&state=STATE"),
        (
            "pkce: false\nparams: { prompt: consent, empty: \"\", response_type: null }",
            "client_id=id&redirect_uri=CALLBACK&state=STATE&prompt=consent",
        ),
        (
            "pkce: false\nauthorize: { rename: { client_id: app_id }, params: { v: \"2\" } }",
            "response_type=code&app_id=id&redirect_uri=CALLBACK&state=STATE&v=2",
        ),
        ("pkce: false\nscopes: [\"a/b\", c]\nscope_separator: \",\"\nauthorize: { encode: raw }", "scope=a/b,c&state=STATE"),
        ("pkce: false\nscopes: [a, c]\nscope_separator: \"+\"", "scope=a+c&state=STATE"),
        ("pkce: false\nresource: [\"https://a\", \"https://b\"]", "state=STATE&resource=https%3A%2F%2Fa&resource=https%3A%2F%2Fb"),
        ("pkce: false\naudience: https://a", "state=STATE&audience=https%3A%2F%2Fa"),
    ];
    for (scheme, part) in cases {
        let stand = Stand::new(scheme, "");
        let asked = Browser::new().agree(&stand.usual_link());
        let state = param(&asked, "state").unwrap();
        let callback = format!("http://127.0.0.1:{}/connect/callback", stand.admin).replace(':', "%3A").replace('/', "%2F");
        let found = asked.replace(&state, "STATE").replace(&callback, "CALLBACK");
        assert!(found.contains(part), "{scheme}: {found}");
        assert!(!found.contains("code_challenge") && !found.contains("empty"), "{found}");
    }
}

#[test]
fn parameters_behind_a_fragment_stand_there() {
    let issuer = Issuer::answering(|_, number, stream| json_answer(stream, &given(number)));
    let stand = Stand::with("authorize: { fragment: true }", "", "", issuer);
    let asked = Browser::new().agree(&stand.usual_link());
    assert!(asked.starts_with(&format!("{}/authorize#response_type=code", stand.issuer.server.url())), "{asked}");
}

#[test]
fn a_callback_brings_the_code_under_another_name_and_further_values() {
    let scheme = "callback: { code: auth_code, capture: { realm: query.realmId, region: query.region }, optional: [region] }";
    let stand = Stand::new(scheme, "");
    let mut browser = Browser::new();
    let asked = browser.agree(&stand.usual_link());
    let reply = browser.come_back(&asked, "auth_code=c");
    assert_eq!((reply.status, reply.text().contains("realmId")), (400, true), "{}", reply.text());
    assert_eq!(stand.issuer.requests(), 0);
    let asked = browser.agree(&stand.usual_link());
    let reply = browser.come_back(&asked, "auth_code=c&realmId=77");
    assert!(stand.redeem(&landed(&reply)));
    assert!(stand.issuer.form().contains(&("code".into(), "c".into())));
}

#[test]
fn a_redirect_without_a_code_is_the_success_where_the_scheme_says_so() {
    let stand = Stand::new("callback: { code: null, capture: { tenant: query.tenant } }\nscopes: [s]", "");
    let mut browser = Browser::new();
    let asked = browser.agree(&stand.usual_link());
    let reply = browser.come_back(&asked, "tenant=t&admin_consent=True");
    assert!(stand.redeem(&landed(&reply)));
    let form = stand.issuer.form();
    assert!(form.contains(&("grant_type".into(), "client_credentials".into())) && form.contains(&("scope".into(), "s".into())), "{form:?}");
    assert_eq!(stand.gateway.get("/r/api/x").status, 200);
}

#[test]
fn a_provider_may_deliver_the_code_by_itself_and_the_browser_finishes() {
    let stand = Stand::new("", "");
    let mut browser = Browser::new();
    let asked = browser.agree(&stand.usual_link());
    let (back, state) = (param(&asked, "redirect_uri").unwrap(), param(&asked, "state").unwrap());
    let form = "Content-Type: application/x-www-form-urlencoded\r\n";
    let reply = Browser::new().send("POST", &back, form, &format!("state={state}&code=delivered"));
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(stand.issuer.requests(), 0, "nothing happens before the browser is back");
    let again = Browser::new().send("POST", &back, form, &format!("state={state}&code=another"));
    assert_eq!(again.status, 403);
    assert_eq!(Browser::new().get(&format!("{back}?state={state}")).status, 403, "another browser finishes");
    let reply = browser.get(&format!("{back}?state={state}"));
    assert!(stand.redeem(&landed(&reply)));
    assert!(stand.issuer.form().contains(&("code".into(), "delivered".into())));
}

#[test]
fn people_have_a_listener_of_their_own_where_the_operator_gives_one() {
    let port = crate::support::free_port();
    let issuer = Issuer::answering(|_, number, stream| json_answer(stream, &given(number)));
    let stand = Stand::with("", "", &format!("connect: {{ listen: \"127.0.0.1:{port}\" }}"), issuer);
    let link = stand.usual_link();
    assert!(link.starts_with(&format!("http://127.0.0.1:{port}/connect/start/")), "{link}");
    let mut browser = Browser::new();
    let asked = browser.agree(&link);
    assert_eq!(param(&asked, "redirect_uri").unwrap(), format!("http://127.0.0.1:{port}/connect/callback"));
    assert!(stand.redeem(&landed(&browser.come_back(&asked, "code=c"))));
    for path in ["/api/connections", "/healthz", "/metrics"] {
        assert_eq!(browser.get(&format!("http://127.0.0.1:{port}{path}")).status, 404, "{path}");
    }
    assert_eq!(browser.get(&format!("http://127.0.0.1:{}/connect/callback?state=x", stand.admin)).status, 403);
}

#[test]
fn where_people_come_one_address_takes_no_place_of_others_and_a_connection_has_one_request() {
    use std::io::Read as _;
    let port = crate::support::free_port();
    let issuer = Issuer::answering(|_, number, stream| json_answer(stream, &given(number)));
    let stand = Stand::with("", "", &format!("connect: {{ listen: \"127.0.0.1:{port}\" }}"), issuer);
    let connect = || std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    let request = format!("GET /x HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n");
    let answer = crate::support::exchange(connect(), request.repeat(2).as_bytes());
    let answer = String::from_utf8_lossy(&answer).to_lowercase();
    assert_eq!((answer.matches("http/1.1 404").count(), answer.contains("connection: close")), (1, true), "{answer}");
    let silent: Vec<_> = (0..32).map(|_| connect()).collect();
    let mut more = connect();
    more.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
    let read = more.read(&mut [0; 16]);
    let closed = |error: &std::io::Error| error.kind() == std::io::ErrorKind::ConnectionReset;
    assert!(read.as_ref().is_ok_and(|read| *read == 0) || read.as_ref().is_err_and(closed), "{read:?}");
    drop(silent);
    let link = stand.usual_link();
    assert!(eventually(|| (crate::support::exchange(connect(), request.as_bytes()).len() > 12).then_some(())).is_some());
    assert_eq!(Browser::new().get(&link).status, 200);
}

#[test]
fn behind_a_public_address_pages_and_cookies_are_that_addresss() {
    let issuer = Issuer::answering(|_, number, stream| json_answer(stream, &given(number)));
    let stand = Stand::with("", "", "", issuer);
    let file = stand.gateway.folder.path().join("postern.yaml");
    let text = std::fs::read_to_string(&file).unwrap().replace("server: {", "server: { public_url: \"https://gw.example\",");
    std::fs::write(&file, text).unwrap();
    assert_eq!(stand.api("POST", "/api/reload", &json!({})).status, 200);
    let reply = stand.api("POST", "/api/connect-sessions", &json!({ "resource": "api", "return_url": LANDING }));
    let link = reply.json()["connect_url"].as_str().unwrap().to_owned();
    assert!(link.starts_with("https://gw.example/connect/start/"), "{link}");
    assert_eq!(reply.json()["redirect_uri"], "https://gw.example/connect/callback");
    // As a proxy with TLS hands it on.
    let path = link.strip_prefix("https://gw.example").unwrap();
    let page = stand.api_with("GET", path, "Host: gw.example\r\n", "");
    assert_eq!(page.status, 200, "{}", page.text());
    let cookie = page.field("set-cookie").unwrap();
    assert!(cookie.starts_with("__Host-postern-") && cookie.contains("; Path=/; Secure; HttpOnly; SameSite=Lax"), "{cookie}");
}

#[test]
fn a_token_that_a_refresh_token_of_the_configuration_brings_needs_no_consent() {
    let stand = Stand::new("refresh_token: \"${env:CLIENT_SECRET}\"", "");
    assert_eq!(stand.gateway.get("/r/api/x").status, 200);
    assert!(stand.issuer.form().contains(&("grant_type".into(), "refresh_token".into())));
    assert_eq!(stand.api("POST", "/api/connect-sessions", &json!({ "resource": "api" })).status, 400);
}

#[test]
fn a_session_needs_a_token_and_what_it_is_for() {
    let stand = Stand::new("", BY_HEADER);
    let json = "Content-Type: application/json\r\n";
    let good = json!({ "resource": "api" }).to_string();
    for (fields, status) in [
        (json.to_owned(), 401),
        (format!("{json}Authorization: Bearer wrong-wrong-wrong-wrong-wrong-wrong\r\n"), 401),
        (format!("Authorization: Bearer {}\r\n", stand.own_token()), 400),
        (format!("Content-Type: text/plain\r\nAuthorization: Bearer {}\r\n", stand.own_token()), 400),
        (format!("{json}Origin: http://evil.example\r\nAuthorization: Bearer {}\r\n", stand.own_token()), 403),
        (format!("{json}Host: evil.example\r\nAuthorization: Bearer {}\r\n", stand.own_token()), 403),
    ] {
        assert_eq!(stand.api_with("POST", "/api/connect-sessions", &fields, &good).status, status, "{fields}");
    }
    for (wrong, status) in [
        (json!({ "resource": "nothing" }), 404),
        (json!({}), 400),
        (json!([]), 400),
        (json!({ "resource": 5 }), 400),
        (json!({ "resource": "api", "evil": 1 }), 400),
        (json!({ "resource": "api", "connection": "<script>" }), 400),
        (json!({ "resource": "api", "connection": "a/../b" }), 400),
        (json!({ "resource": "api", "client": "a b" }), 400),
        (json!({ "resource": "api", "return_url": "https://evil.example/" }), 400),
        (json!({ "resource": "api", "return_url": "http://127.0.0.1.evil.example:1/" }), 400),
        (json!({ "resource": "api", "vars": { "a b": "c" } }), 400),
        (json!({ "resource": "api", "vars": { "a": 5 } }), 400),
        (json!({ "resource": "api", "vars": { "a": "x".repeat(2000) } }), 400),
    ] {
        let reply = stand.api("POST", "/api/connect-sessions", &wrong);
        assert_eq!(reply.status, status, "{wrong}: {}", reply.text());
    }
    let huge = json!({ "resource": "api", "vars": { "a": "x".repeat(100_000) } });
    assert_eq!(stand.api("POST", "/api/connect-sessions", &huge).status, 413);
    assert_eq!(stand.api_with("GET", "/api/connect-sessions", "", "").status, 405);
}
