//! Whose token it is (ruling G4): one token for each value that an acquisition reads of its caller, and what expressions in
//! token calls make.

use serde_json::{Value, json};

use crate::support::issuer::{Api, Issuer, answer, decoded, json_answer, minted};
use crate::support::{Gateway, Upstream, eventually, exchange, free_port, postern};

const SECRET: &str = "s3cret/+ =&value";

fn gateway(text: &str) -> Gateway {
    Gateway::start_with(text, &[("CLIENT_SECRET", SECRET)])
}

/// A resource of this name at this base with a scheme of this kind at the issuer.
fn resource(name: &str, base: &str, kind: &str, issuer: &Issuer, more: &str) -> String {
    let more: String = more.lines().map(|l| format!("        {l}\n")).collect();
    format!("  {name}:\n    base_url: \"{base}\"\n    auth:\n      {kind}:\n        token_url: \"{}\"\n{more}", issuer.url())
}

fn exchanging(base: &str, issuer: &Issuer, more: &str) -> String {
    let more = format!("subject: client\nclient_id: id\nclient_secret: \"${{env:CLIENT_SECRET}}\"\n{more}");
    format!("resources:\n{}", resource("api", base, "oauth2_token_exchange", issuer, &more))
}

/// An issuer that exchanges `X` for `for-X`, and `refused-…` not at all.
fn exchanger(life: u64) -> Issuer {
    Issuer::answering(move |seen, _, stream| {
        let form = decoded(&String::from_utf8_lossy(&seen.body));
        let subject = form.iter().find(|(n, _)| n == "subject_token").map(|(_, v)| v.clone()).unwrap_or_default();
        if subject.starts_with("refused") {
            return answer(stream, "400 Bad Request", "Content-Type: application/json\r\n", r#"{"error":"invalid_grant"}"#);
        }
        json_answer(stream, &json!({ "access_token": format!("for-{subject}"), "expires_in": life }))
    })
}

fn bearer(gateway: &Gateway, token: &str) -> crate::support::Reply {
    gateway.send("GET", "/r/api/x", &format!("Authorization: Bearer {token}\r\n"), b"")
}

#[test]
fn each_caller_is_presented_by_what_its_own_token_was_exchanged_for() {
    let (api, issuer) = (Upstream::ok(), exchanger(3600));
    issuer.delay.store(50, std::sync::atomic::Ordering::SeqCst);
    let gateway = gateway(&exchanging(&api.url(), &issuer, "audience: them"));
    std::thread::scope(|scope| {
        for caller in ["ann", "bob", "cid"] {
            for _ in 0..12 {
                let gateway = &gateway;
                scope.spawn(move || assert_eq!(bearer(gateway, caller).status, 200));
            }
        }
    });
    // One exchange for each, however many calls there were at once.
    assert_eq!(issuer.requests(), 3);
    let mut shown: Vec<String> = api.seen().iter().map(|s| s.field("authorization").unwrap().to_owned()).collect();
    shown.sort();
    for caller in ["ann", "bob", "cid"] {
        assert_eq!(shown.iter().filter(|s| **s == format!("Bearer for-{caller}")).count(), 12, "{shown:?}");
    }
    let records = gateway.records(36);
    let mut credentials: Vec<&str> = records.iter().map(|r| r["credential"].as_str().unwrap()).collect();
    credentials.sort_unstable();
    credentials.dedup();
    assert_eq!(credentials.len(), 3, "each has a fingerprint of its own");
    let text = records.iter().map(Value::to_string).collect::<String>();
    assert!(!text.contains("for-ann") && !text.contains("Bearer"), "{text}");
    let form = issuer.form();
    let of = |name: &str| form.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
    assert_eq!(of("subject_token_type"), Some("urn:ietf:params:oauth:token-type:access_token"));
    assert_eq!(of("audience"), Some("them"));
}

#[test]
fn a_caller_without_a_token_gets_401_and_nobody_elses() {
    let (api, issuer) = (Upstream::ok(), exchanger(3600));
    let gateway = gateway(&exchanging(&api.url(), &issuer, "place: { header: X-Token }"));
    assert_eq!(bearer(&gateway, "ann").status, 200);
    // The client's own token goes no further.
    assert_eq!((api.last().field("x-token"), api.last().field("authorization")), (Some("for-ann"), None));
    for fields in [
        "",
        "Authorization: Basic dTpw\r\n",
        "Authorization: Bearer\r\n",
        "Authorization: Bearer a b\r\n",
        "Authorization: Bearer ann\r\nAuthorization: Bearer bob\r\n",
    ] {
        let reply = gateway.send("GET", "/r/api/x", fields, b"");
        assert_eq!((reply.status, reply.code().as_str()), (401, "unauthenticated"), "{fields}");
        assert!(reply.field("www-authenticate").is_some_and(|v| v.starts_with("Bearer")), "{fields}");
    }
    // A header of the token's own name serves nobody.
    assert_eq!(gateway.send("GET", "/r/api/x", "X-Token: for-ann\r\n", b"").status, 401);
    assert_eq!((api.seen().len(), issuer.requests()), (1, 1));
}

#[test]
fn one_callers_refusal_is_no_other_callers() {
    let (api, issuer) = (Upstream::ok(), exchanger(3600));
    let gateway = gateway(&exchanging(&api.url(), &issuer, ""));
    let reply = bearer(&gateway, "refused-1");
    assert_eq!((reply.status, reply.code().as_str()), (502, "credential-refused"));
    assert!(reply.text().contains("Send a token of yours"), "{}", reply.text());
    assert_eq!(bearer(&gateway, "refused-1").status, 502);
    // It is not asked again for the same token, and another's is had all the same.
    assert_eq!(issuer.requests(), 1);
    assert_eq!(bearer(&gateway, "ann").status, 200);
}

#[test]
fn an_upstreams_refusal_renews_the_callers_token_alone() {
    let api = Api::new();
    let issuer = Issuer::answering(|seen, number, stream| {
        let form = decoded(&String::from_utf8_lossy(&seen.body));
        let subject = form.iter().find(|(n, _)| n == "subject_token").map(|(_, v)| v.clone()).unwrap();
        json_answer(stream, &json!({ "access_token": format!("{subject}-{number}"), "expires_in": 3600 }))
    });
    let gateway = gateway(&exchanging(&api.server.url(), &issuer, ""));
    api.takes(&["ann-1", "bob-2"]);
    assert_eq!((bearer(&gateway, "ann").status, bearer(&gateway, "bob").status), (200, 200));
    api.takes(&["ann-3", "bob-2"]);
    assert_eq!((bearer(&gateway, "ann").status, bearer(&gateway, "bob").status), (200, 200));
    assert_eq!(api.shown(), ["Bearer ann-1", "Bearer bob-2", "Bearer ann-1", "Bearer ann-3", "Bearer bob-2"]);
}

#[test]
fn what_was_had_for_a_callers_token_ends_with_it() {
    let (api, issuer) = (Upstream::ok(), exchanger(3600));
    let gateway = gateway(&exchanging(&api.url(), &issuer, ""));
    // It ended long ago, so what the issuer gives for it is dead on arrival.
    let ended = "e30.eyJleHAiOjEwMDB9.c2ln";
    let reply = bearer(&gateway, ended);
    assert_eq!(reply.status, 503, "{}", reply.text());
    assert!(api.seen().is_empty());
}

#[test]
fn a_token_that_reads_the_caller_is_not_shared_with_another_and_is_shown_with_its_name() {
    let issuer = Issuer::answering(|seen, _, stream| {
        let form = decoded(&String::from_utf8_lossy(&seen.body));
        let user = form.iter().find(|(n, _)| n == "user").map(|(_, v)| v.clone()).unwrap_or_default();
        json_answer(stream, &json!({ "access_token": format!("for-{user}"), "expires_in": 3600 }))
    });
    let api = Upstream::ok();
    let admin = free_port();
    let more = "client_id: id\nparams: { user: \"{{ client.name }}/{{ client.ip }}\" }";
    let text = format!(
        "admin: {{ listen: \"127.0.0.1:{admin}\" }}\nresources:\n{}",
        resource("api", &api.url(), "oauth2_client_credentials", &issuer, more)
    );
    let gateway = gateway(&text);
    for _ in 0..2 {
        assert_eq!(gateway.get("/r/api/x").status, 200);
    }
    assert_eq!(api.last().field("authorization"), Some("Bearer for-anonymous/127.0.0.1"));
    assert_eq!(issuer.requests(), 1);
    let stream = std::net::TcpStream::connect(("127.0.0.1", admin)).unwrap();
    let reply =
        crate::support::Reply::parse(&exchange(stream, b"GET /api/tokens HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"));
    let tokens = &reply.json()["tokens"];
    assert_eq!((tokens[0]["client"].as_str(), tokens[0]["state"].as_str()), (Some("anonymous"), Some("fresh")), "{tokens}");
    assert_eq!(tokens.as_array().unwrap().len(), 1);
}

#[test]
fn two_resources_that_differ_only_in_what_expressions_read_share_no_token() {
    let issuer = Issuer::answering(|seen, number, stream| {
        let form = decoded(&String::from_utf8_lossy(&seen.body));
        let tenant = form.iter().find(|(n, _)| n == "tenant").map(|(_, v)| v.clone()).unwrap_or_default();
        json_answer(stream, &json!({ "access_token": format!("{tenant}-{number}"), "expires_in": 3600 }))
    });
    let api = Upstream::ok();
    let with = |name: &str, tenant: &str| {
        let more = "client_id: id\nparams: { tenant: \"{{ vars.tenant }}-{{ client.name }}\" }";
        resource(name, &api.url(), "oauth2_client_credentials", &issuer, more)
            .replace("    auth:", &format!("    vars: {{ tenant: {tenant} }}\n    auth:"))
    };
    let gateway = gateway(&format!("resources:\n{}{}", with("one", "acme"), with("two", "umbrella")));
    for (name, token) in [("one", "acme-anonymous-1"), ("two", "umbrella-anonymous-2"), ("one", "acme-anonymous-1")] {
        assert_eq!(gateway.get(&format!("/r/{name}/x")).status, 200);
        assert_eq!(api.last().field("authorization"), Some(&*format!("Bearer {token}")));
    }
}

#[test]
fn expressions_of_a_token_call_are_typed_by_their_place() {
    let issuer = Issuer::minting(3600);
    let api = Upstream::ok();
    let more = r#"client_id: id
headers: { X-When: "at {{ now | epoch }}", X-Once: "{{ uuid }}" }
body: json
params: { n: "{{ 7 + 1 }}", list: ["{{ client.name }}", "a"], deep: { who: "{{ client.name }}\"x", none: "{{ none if client.name else 1 }}" }, gone: "{{ none if client.name else 1 }}" }
audience: "for {{ client.name }}""#;
    let gateway = gateway(&format!("resources:\n{}", resource("api", &api.url(), "oauth2_client_credentials", &issuer, more)));
    assert_eq!(gateway.get("/r/api/x").status, 200);
    let seen = issuer.server.last();
    let body: Value = serde_json::from_slice(&seen.body).unwrap();
    assert_eq!(
        body,
        json!({ "grant_type": "client_credentials", "audience": "for anonymous", "client_id": "id", "n": 8, "list": ["anonymous", "a"], "deep": { "who": "anonymous\"x", "none": null } })
    );
    assert!(seen.field("x-when").is_some_and(|v| v.strip_prefix("at ").is_some_and(|n| n.parse::<u64>().is_ok())));
    assert_eq!(seen.field("x-once").map(str::len), Some(36));
    // In a form and in a URL no value becomes structure.
    let issuer = Issuer::minting(3600);
    let more = "client_id: id\nparams: { who: \"{{ client.name }}&a=b\" }";
    let text = format!("resources:\n{}", resource("api", &api.url(), "oauth2_client_credentials", &issuer, more))
        .replace("/token\"", "/{{ client.name }}%2F/token?a={{ client.kind }}\"");
    let gateway = self::gateway(&text);
    assert_eq!(gateway.get("/r/api/x").status, 200);
    assert_eq!(issuer.server.last().target(), "/anonymous%2F/token?a=anonymous");
    assert!(issuer.form().contains(&("who".to_owned(), "anonymous&a=b".to_owned())));
}

#[test]
fn a_refresh_reads_the_token_that_it_renews() {
    let issuer = Issuer::answering(|seen, number, stream| {
        let refreshes = seen.target().starts_with("/renew");
        let mut body = minted(number, 2);
        if !refreshes {
            body["refresh_token"] = json!("r-1");
            body["org"] = json!("acme");
        }
        json_answer(stream, &body)
    });
    let api = Upstream::ok();
    let more = format!(
        "client_id: id\ncapture: {{ org: json.org }}\nrefresh: {{ url: \"{}/renew/{{{{ captured.org }}}}\", headers: {{ Authorization: \"Bearer {{{{ token.access }}}}\" }}, body: json, params: {{ grant_type: null, refresh_token: null, old: \"{{{{ token.refresh }}}}\" }} }}",
        issuer.server.url()
    );
    let gateway = gateway(&format!("resources:\n{}", resource("api", &api.url(), "oauth2_client_credentials", &issuer, &more)));
    let renewed = eventually(|| {
        assert_eq!(gateway.get("/r/api/x").status, 200);
        issuer.server.seen().into_iter().find(|s| s.target().starts_with("/renew"))
    });
    let renewed = renewed.expect("nothing was renewed");
    assert_eq!(renewed.target(), "/renew/acme");
    assert_eq!(renewed.field("authorization"), Some("Bearer token-1"));
    assert_eq!(serde_json::from_slice::<Value>(&renewed.body).unwrap(), json!({ "old": "r-1", "client_id": "id" }));
}

#[test]
fn an_issuer_that_a_template_makes_is_one_of_hosts() {
    let issuer = Issuer::minting(3600);
    let api = Upstream::ok();
    let port = issuer.server.url().rsplit_once(':').unwrap().1.to_owned();
    let text = |hosts: &str| {
        format!("resources:\n{}", resource("api", &api.url(), "oauth2_client_credentials", &issuer, "client_id: id"))
            .replace(&issuer.url(), &format!("http://{{{{ '127.0.0.1' if client.name == 'anonymous' else 'x' }}}}:{port}/token"))
            .replace("    auth:", &format!("    hosts: [\"{hosts}\"]\n    allow_private: true\n    auth:"))
    };
    let outside = gateway(&text("127.0.0.2"));
    let reply = outside.get("/r/api/x");
    assert_eq!((reply.status, reply.code().as_str()), (502, "upstream-unreachable"), "{}", reply.text());
    assert_eq!(issuer.requests(), 0);
    let inside = gateway(&text(&format!("127.0.0.1:{port}")));
    assert_eq!(inside.get("/r/api/x").status, 200, "{}", inside.stderr());
    assert_eq!(issuer.requests(), 1);
}

#[test]
fn no_acquisition_reads_a_request() {
    let issuer = Issuer::minting(3600);
    let base = "https://api.example";
    let of = |more: &str| format!("resources:\n{}", resource("api", base, "oauth2_client_credentials", &issuer, more));
    for text in [
        of("client_id: id\nparams: { a: \"{{ request.headers.x }}\" }"),
        of("client_id: id\nheaders: { X-A: \"{{ request.path }}\" }"),
        of("client_id: id\naudience: \"{{ request.query.a }}\""),
        of("client_id: id\nrefresh: { params: { a: \"{{ request.body }}\" } }"),
        of("client_id: id").replace("/token\"", "/{{ request.host }}\""),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("postern.yaml");
        std::fs::write(&file, &text).unwrap();
        let output = postern().args(["check", "--config"]).arg(&file).env("CLIENT_SECRET", SECRET).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(3), "{text}\n{said}");
        assert!(said.contains("one token serves many requests"), "{said}");
    }
}

#[test]
fn an_issuer_that_repeats_what_it_was_sent_puts_no_secret_into_the_log() {
    let issuer = Issuer::answering(|seen, _, stream| {
        let said = format!("bad: {} {}", seen.field("x-key").unwrap_or_default(), String::from_utf8_lossy(&seen.body));
        answer(
            stream,
            "400 Bad Request",
            "Content-Type: application/json\r\n",
            &json!({ "error": "invalid_client", "error_description": said }).to_string(),
        )
    });
    let api = Upstream::ok();
    let more =
        "client_id: id\nheaders: { X-Key: \"Key ${env:CLIENT_SECRET}\" }\nbody: json\nparams: { deep: { key: \"${env:CLIENT_SECRET}\" } }";
    let gateway = gateway(&format!("resources:\n{}", resource("api", &api.url(), "oauth2_client_credentials", &issuer, more)));
    assert_eq!(gateway.get("/r/api/x").status, 503);
    let log = gateway.stderr();
    assert!(log.contains("bad: ") && !log.contains("s3cret"), "{log}");
}

/// Two parts of one API, each with a token of its own that comes with the other's.
const TWO_TOKENS: &str = r#"    credentials:
      user:
        oauth2_client_credentials:
          token_url: "{issuer}"
          client_id: id
          client_secret: "${env:CLIENT_SECRET}"
          response: { token: json.user.token }
          capture: { bot: json.bot.token }
      bot:
        oauth2_client_credentials:
          token_url: "{issuer}"
          client_id: id
          client_secret: "${env:CLIENT_SECRET}"
          response: { token: json.user.token }
          capture: { bot: json.bot.token }
          place: { header: Authorization, value: "Bot {{ captured.bot }}" }
    auth: { use: user }
    routes:
      - { path: "/bot/**", auth: { use: bot } }
      - { path: "/again/**", auth: [ { use: user } ] }
"#;

#[test]
fn named_credentials_that_are_the_same_are_one_grant_wherever_they_are_used() {
    let issuer = Issuer::answering(|_, number, stream| {
        json_answer(
            stream,
            &json!({ "user": { "token": format!("u-{number}") }, "bot": { "token": format!("b-{number}") }, "expires_in": 3600 }),
        )
    });
    let api = Upstream::answering(|seen, stream| {
        let old = seen.field("authorization").is_some_and(|shown| shown.ends_with("-1")) && seen.target().ends_with("/renew");
        answer(stream, if old { "401 Unauthorized" } else { "200 OK" }, "", "")
    });
    let text = format!("resources:\n  api:\n    base_url: \"{}\"\n{}", api.url(), TWO_TOKENS.replace("{issuer}", &issuer.url()));
    let gateway = gateway(&text);
    let shown = |path: &str| {
        assert_eq!(gateway.get(&format!("/r/api{path}")).status, 200, "{path}: {}", gateway.stderr());
        api.last().field("authorization").unwrap().to_owned()
    };
    assert_eq!([shown("/x"), shown("/bot/x"), shown("/again/x")], ["Bearer u-1", "Bot b-1", "Bearer u-1"]);
    assert_eq!(issuer.requests(), 1);
    // A refusal of one renews both, once.
    assert_eq!([shown("/bot/renew"), shown("/x")], ["Bot b-2", "Bearer u-2"]);
    assert_eq!(issuer.requests(), 2);
}

#[test]
fn credentials_by_name_are_checked() {
    for (text, why, cure) in [
        ("auth: { use: usr }, credentials: { user: { bearer: \"${env:CLIENT_SECRET}\" } }", "no credential `usr`", "`user`"),
        ("auth: { use: user }", "no credential `user`", "credentials: { user:"),
        ("auth: { use: a }, credentials: { a: { use: b }, b: none }", "cannot use another", "its scheme"),
        ("auth: { use: a, bearer: x }, credentials: { a: none }", "`use` stands alone", "auth: { use:"),
        ("auth: { use: a }, credentials: { a: { bearr: x } }", "unknown scheme `bearr`", "bearer"),
        ("auth: { use: a }, credentials: [a]", "expected a map of schemes by name", ""),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("postern.yaml");
        std::fs::write(&file, format!("resources: {{ api: {{ base_url: \"https://api.example\", {text} }} }}\n")).unwrap();
        let output = postern().args(["check", "--config"]).arg(&file).env("CLIENT_SECRET", SECRET).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(3), "{text}\n{said}");
        assert!(said.contains(why) && said.contains(cure), "{text}\n{said}");
    }
}

#[test]
fn what_an_answer_says_may_tell_a_refusal_and_goes_on_as_it_came() {
    let issuer = Issuer::minting(3600);
    let api = Upstream::answering(|seen, stream| {
        let old = seen.field("authorization") == Some("Bearer token-1");
        let body = if old { r#"{"error":"expired"}"# } else { r#"{ "ok" : 1.50 }"# };
        answer(stream, "200 OK", "Content-Type: application/json\r\n", body)
    });
    let with = |when: &str, issuer: &Issuer| {
        let more = format!("client_id: id\nrefused: {{ when: \"{when}\" }}");
        format!("resources:\n{}", resource("api", &api.url(), "oauth2_client_credentials", issuer, &more))
    };
    let gateway = gateway(&with("body.error == 'expired'", &issuer));
    let reply = gateway.get("/r/api/x");
    assert_eq!((reply.status, reply.text().as_str()), (200, r#"{ "ok" : 1.50 }"#));
    assert_eq!(issuer.requests(), 2);
    // A condition that does not hold lets the answer through, byte for byte; so does one that cannot be judged.
    for when in ["body.error == 'other'", "status == 418", "body.error.deep.er == 1", "headers['x-a'] == 'b'"] {
        let issuer = Issuer::minting(3600);
        let gateway = self::gateway(&with(when, &issuer));
        assert_eq!(gateway.get("/r/api/x").text(), r#"{"error":"expired"}"#, "{when}");
        assert_eq!(issuer.requests(), 1, "{when}");
    }
}
