//! The life of a token on the built gateway: single flight, refusals, an issuer in trouble, odd answers, and what a
//! restart or a reload keeps.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::issuer::{Api, Issuer, answer, decoded, json_answer, minted};
use crate::support::{Gateway, Reply, Upstream, eventually, free_port};

/// The tests' client secret: long enough to be looked for.
const SECRET: &str = "s3cret/+ =&value";

fn gateway(text: &str) -> Gateway {
    Gateway::start_with(text, &[("CLIENT_SECRET", SECRET), ("REFRESH", "refresh-0")])
}

/// A resource `api` with client credentials at this issuer, and further settings of the scheme.
fn client_credentials(api: &str, issuer: &Issuer, more: &str) -> String {
    format!(
        "resources:\n  api:\n    base_url: \"{api}\"\n    timeouts: {{ head: 2s }}\n    auth:\n      oauth2_client_credentials:\n        token_url: \"{}\"\n        client_id: id\n        client_secret: \"${{env:CLIENT_SECRET}}\"\n{}",
        issuer.url(),
        more.lines().map(|l| format!("        {l}\n")).collect::<String>()
    )
}

/// Sixty-four calls at once.
fn crowd(gateway: &Gateway, path: &str) -> Vec<Reply> {
    std::thread::scope(|scope| {
        let calls: Vec<_> = (0..64).map(|_| scope.spawn(|| gateway.get(path))).collect();
        calls.into_iter().map(|call| call.join().unwrap()).collect()
    })
}

fn statuses(replies: &[Reply]) -> BTreeSet<u16> {
    replies.iter().map(|r| r.status).collect()
}

#[test]
fn sixty_four_first_calls_make_one_token_request() {
    let (api, issuer) = (Api::new(), Issuer::minting(3600));
    api.takes(&["token-1"]);
    issuer.delay.store(100, Ordering::SeqCst);
    let gateway = gateway(&client_credentials(&api.server.url(), &issuer, ""));
    assert_eq!(statuses(&crowd(&gateway, "/r/api/x")), [200].into());
    assert_eq!(issuer.requests(), 1);
    assert_eq!(api.shown().len(), 64);
}

#[test]
fn sixty_four_calls_on_a_refused_token_renew_once() {
    let (api, issuer) = (Api::new(), Issuer::minting(3600));
    api.takes(&["token-1"]);
    let gateway = gateway(&client_credentials(&api.server.url(), &issuer, ""));
    assert_eq!(gateway.get("/r/api/x").status, 200);
    api.takes(&["token-2"]);
    issuer.delay.store(100, Ordering::SeqCst);
    assert_eq!(statuses(&crowd(&gateway, "/r/api/x")), [200].into());
    assert_eq!(issuer.requests(), 2);
}

#[test]
fn an_issuer_that_voids_the_older_token_never_sees_a_second_request_from_a_crowd() {
    let api = Api::new();
    let known = api.known();
    // Each mint voids what was minted before.
    let issuer = Issuer::answering(move |_, number, stream| {
        *known.lock().unwrap() = vec![format!("token-{number}")];
        json_answer(stream, &minted(number, 3600))
    });
    issuer.delay.store(50, Ordering::SeqCst);
    let gateway = gateway(&client_credentials(&api.server.url(), &issuer, ""));
    for _ in 0..4 {
        assert_eq!(statuses(&crowd(&gateway, "/r/api/x")), [200].into());
    }
    assert_eq!(issuer.requests(), 1);
}

#[test]
fn a_leader_who_hangs_up_changes_nothing() {
    let (api, issuer) = (Api::new(), Issuer::minting(3600));
    api.takes(&["token-1"]);
    issuer.delay.store(300, Ordering::SeqCst);
    let gateway = gateway(&client_credentials(&api.server.url(), &issuer, ""));
    let mut leader = TcpStream::connect(("127.0.0.1", gateway.port)).unwrap();
    leader.write_all(b"GET /r/api/leader HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    assert!(eventually(|| (!issuer.server.seen().is_empty()).then_some(())).is_some());
    drop(leader);
    assert_eq!(gateway.get("/r/api/follower").status, 200);
    assert_eq!(issuer.requests(), 1);
    assert!(api.server.seen().iter().all(|s| s.target() != "/leader"), "a call without a caller was sent on");
}

#[test]
fn a_refusal_is_replayed_once_and_then_is_the_upstreams_own() {
    let (api, issuer) = (Api::new(), Issuer::minting(3600));
    let gateway = gateway(&client_credentials(&api.server.url(), &issuer, ""));
    let reply = gateway.get("/r/api/x");
    assert_eq!((reply.status, reply.field("proxy-status"), reply.text().as_str()), (401, None, "no"));
    assert_eq!(api.shown(), ["Bearer token-1", "Bearer token-2"]);
    // The upstream refuses every token: the issuer is not asked again for each call.
    for _ in 0..20 {
        assert_eq!(gateway.get("/r/api/x").status, 401);
    }
    assert!(issuer.requests() <= 4, "{}", issuer.requests());
}

#[test]
fn a_body_that_is_too_large_to_keep_renews_for_the_next_call() {
    let (api, issuer) = (Api::new(), Issuer::minting(3600));
    api.takes(&["token-1"]);
    let config = client_credentials(&api.server.url(), &issuer, "").replace("    timeouts:", "    limits: { buffer: 1KiB }\n    timeouts:");
    let gateway = gateway(&config);
    assert_eq!(gateway.get("/r/api/x").status, 200);
    api.takes(&["token-2"]);
    let body = vec![b'x'; 64 * 1024];
    assert_eq!(gateway.send("POST", "/r/api/x", "", &body).status, 401);
    assert_eq!(gateway.send("POST", "/r/api/x", "", &body).status, 200);
    assert_eq!(issuer.requests(), 2);
}

#[test]
fn what_counts_as_a_refusal_is_the_operators_word() {
    let issuer = Issuer::minting(3600);
    let api = Upstream::answering(|seen, stream| {
        let status = if seen.field("authorization") == Some("Bearer token-1") { "403 Forbidden" } else { "200 OK" };
        answer(stream, status, "", "")
    });
    let gateway = gateway(&client_credentials(&api.url(), &issuer, "refused: { statuses: [401, 403] }"));
    assert_eq!(gateway.get("/r/api/x").status, 200);
    assert_eq!(issuer.requests(), 2);
}

#[test]
fn a_token_is_renewed_while_it_is_served_and_never_sent_dead() {
    // Tokens live two seconds; the API refuses those that are older, and counts.
    let born: Arc<std::sync::Mutex<std::collections::HashMap<String, Instant>>> = Arc::default();
    let (births, dead) = (born.clone(), Arc::new(AtomicBool::new(false)));
    let issuer = Issuer::answering(move |_, number, stream| {
        births.lock().unwrap().insert(format!("Bearer token-{number}"), Instant::now());
        json_answer(stream, &minted(number, 2))
    });
    let seen_dead = dead.clone();
    let api = Upstream::answering(move |seen, stream| {
        let token = seen.field("authorization").unwrap_or_default().to_owned();
        // Well over its life, so that no pause of the machine is taken for a mistake.
        if born.lock().unwrap().get(&token).is_none_or(|b| b.elapsed() > Duration::from_millis(2900)) {
            seen_dead.store(true, Ordering::SeqCst);
        }
        answer(stream, "200 OK", "", "")
    });
    let gateway = gateway(&client_credentials(&api.url(), &issuer, ""));
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(5) {
        assert_eq!(gateway.get("/r/api/x").status, 200);
    }
    assert!(!dead.load(Ordering::SeqCst), "a dead token reached the upstream");
    assert!((3..=12).contains(&issuer.requests()), "{}", issuer.requests());
}

#[test]
fn an_issuer_in_trouble_is_503_with_the_time_to_come_back_and_left_alone_until_then() {
    let (api, issuer) = (Api::new(), Issuer::answering(|_, _, stream| answer(stream, "500 Oops", "", "")));
    api.takes(&["token-1", "token-2", "token-3", "token-4", "token-5"]);
    let gateway = gateway(&client_credentials(&api.server.url(), &issuer, ""));
    let began = Instant::now();
    let mut replies = 0;
    while began.elapsed() < Duration::from_secs(3) {
        let reply = gateway.get("/r/api/x");
        assert_eq!((reply.status, reply.code().as_str()), (503, "issuer-unavailable"));
        let problem = reply.json();
        assert_eq!((&problem["fault"], &problem["retryable"]), (&json!("issuer"), &json!(true)));
        let wait: u64 = reply.field("retry-after").unwrap().parse().unwrap();
        assert!((1..=60).contains(&wait), "{wait}");
        replies += 1;
    }
    // At least a second lies between two attempts.
    assert!(replies > 10 && issuer.requests() <= 4, "{replies} {}", issuer.requests());
    assert!(api.server.seen().is_empty(), "something was sent upstream without a token");
    issuer.now(|_, number, stream| json_answer(stream, &minted(number, 3600)));
    assert!(eventually(|| (gateway.get("/r/api/x").status == 200).then_some(())).is_some(), "it does not recover");
}

#[test]
fn an_issuer_that_cannot_be_reached_is_503_and_comes_back_without_a_restart() {
    let api = Api::new();
    api.takes(&["token-1"]);
    let port = free_port();
    let config = format!(
        "resources:\n  api:\n    base_url: \"{}\"\n    auth: {{ oauth2_client_credentials: {{ token_url: \"http://127.0.0.1:{port}/t\", client_id: id, client_secret: \"${{env:CLIENT_SECRET}}\" }} }}\n",
        api.server.url()
    );
    let gateway = gateway(&config);
    let reply = gateway.get("/r/api/x");
    assert_eq!((reply.status, reply.code().as_str()), (503, "issuer-unavailable"));
    assert!(reply.json()["detail"].as_str().unwrap().contains("cannot be reached"), "{}", reply.text());
    let listener = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            while crate::support::Seen::read(&mut stream, 0).is_some() {
                if !json_answer(&mut stream, &minted(1, 3600)) {
                    break;
                }
            }
        }
    });
    assert!(eventually(|| (gateway.get("/r/api/x").status == 200).then_some(())).is_some(), "it does not recover");
}

#[test]
fn a_slow_issuer_is_given_up_and_a_flapping_one_survived() {
    let (api, issuer) = (Api::new(), Issuer::minting(3600));
    let names: Vec<String> = (1..100).map(|n| format!("token-{n}")).collect();
    api.takes(&names.iter().map(String::as_str).collect::<Vec<_>>());
    issuer.now(|_, _, _| {
        std::thread::sleep(Duration::from_secs(4));
        false
    });
    let gateway = gateway(&client_credentials(&api.server.url(), &issuer, ""));
    let reply = gateway.get("/r/api/x");
    assert_eq!(reply.code(), "issuer-unavailable");
    assert!(reply.json()["detail"].as_str().unwrap().contains("did not answer in time"), "{}", reply.text());
    // Every other request fails; each token lives two seconds.
    issuer.now(
        |_, number, stream| {
            if number % 2 == 0 { answer(stream, "503 No", "", "") } else { json_answer(stream, &minted(number, 2)) }
        },
    );
    let (mut good, began) = (0, Instant::now());
    while began.elapsed() < Duration::from_secs(6) {
        let reply = gateway.get("/r/api/x");
        assert!(matches!(reply.status, 200 | 503), "{} {}", reply.status, reply.text());
        good += u32::from(reply.status == 200);
    }
    assert!(good > 10, "{good}");
    assert!(issuer.requests() <= 14, "{}", issuer.requests());
    assert!(api.shown().iter().all(|shown| shown.starts_with("Bearer token-")));
}

#[test]
fn a_refused_grant_is_502_and_never_tried_again() {
    let body = json!({ "error": "invalid_grant", "error_description": "the account is locked" });
    let (api, issuer) = (
        Api::new(),
        Issuer::answering(move |_, _, stream| answer(stream, "400 Bad Request", "Content-Type: application/json\r\n", &body.to_string())),
    );
    let config = format!(
        "resources:\n  api:\n    base_url: \"{}\"\n    auth: {{ oauth2_password: {{ token_url: \"{}\", username: u, password: \"${{env:CLIENT_SECRET}}\" }} }}\n",
        api.server.url(),
        issuer.url()
    );
    let gateway = gateway(&config);
    for _ in 0..5 {
        let reply = gateway.get("/r/api/x");
        assert_eq!((reply.status, reply.code().as_str()), (502, "credential-refused"));
        assert_eq!((&reply.json()["retryable"], reply.field("retry-after")), (&json!(false), None));
    }
    assert_eq!(issuer.requests(), 1);
    assert!(gateway.stderr().contains("the account is locked"), "{}", gateway.stderr());
    assert!(api.server.seen().is_empty());
}

#[test]
fn odd_answers_are_told_apart_and_nothing_of_them_is_shown_or_sent() {
    let megabyte = "x".repeat(1 << 20);
    let html = "Content-Type: text/html\r\n";
    let kind = "Content-Type: application/json\r\n";
    let cases: Vec<(&str, &str, String, &str)> = vec![
        (
            "200 OK",
            kind,
            json!({ "error": "invalid_client", "error_description": SECRET }).to_string(),
            "200 with 65 bytes of application/json) says invalid_client",
        ),
        ("200 OK", html, "<html>Please log in: hunter2hunter2</html>".into(), "200 with 42 bytes of text/html) holds no token"),
        ("200 OK", "", String::new(), "200 with nothing in it) holds no token"),
        ("200 OK", kind, megabyte, "too large for a token"),
        ("200 OK", kind, json!({ "access_token": "hunter2hunter2\r\nX-Evil: y" }).to_string(), "a line break"),
        ("200 OK", kind, json!({ "access_token": "hunter2hunter2", "expires_in": "soon" }).to_string(), "(expires_in)"),
        (
            "302 Found",
            "Location: http://127.0.0.1:9/steal\r\n",
            String::new(),
            "is a redirect to http://127.0.0.1:9, which is not followed",
        ),
        ("401 Unauthorized", kind, json!({ "error": "invalid_client" }).to_string(), "401 with"),
        ("200 OK", kind, "[".repeat(100_000), "holds no token"),
    ];
    for (status, fields, body, part) in cases {
        let issuer = Issuer::answering(move |_, _, stream| answer(stream, status, fields, &body));
        let api = Upstream::ok();
        let gateway = gateway(&client_credentials(&api.url(), &issuer, ""));
        let reply = gateway.get("/r/api/x");
        assert_eq!((reply.status, reply.code().as_str()), (503, "issuer-unavailable"), "{part}");
        let detail = reply.json()["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains(part), "{detail}");
        let everything = format!("{}{}{}", reply.head, reply.text(), gateway.stderr());
        assert!(!everything.contains("hunter2") && !everything.contains(SECRET), "{everything}");
        assert!(api.seen().is_empty(), "{part}");
        gateway.get("/r/api/x");
        assert_eq!(issuer.requests(), 1, "{part}");
    }
}

#[test]
fn every_way_to_say_who_the_client_is_arrives_as_written() {
    use base64::Engine as _;
    let basic = |text: &str| format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(text));
    for (more, header, in_form) in [
        ("client_auth: basic", Some(basic("id:s3cret%2F%2B%20%3D%26value")), None),
        ("client_auth: basic_raw", Some(basic(&format!("id:{SECRET}"))), None),
        ("", Some(basic("id:s3cret%2F%2B%20%3D%26value")), None),
        ("client_auth: post", None, Some(SECRET)),
    ] {
        let issuer = Issuer::minting(3600);
        let api = Upstream::ok();
        let gateway = gateway(&client_credentials(&api.url(), &issuer, more));
        assert_eq!(gateway.get("/r/api/x").status, 200);
        let form = issuer.form();
        let value = |name: &str| form.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
        assert_eq!(issuer.server.last().field("authorization"), header.as_deref(), "{more}");
        assert_eq!((value("client_secret"), value("grant_type")), (in_form, Some("client_credentials")), "{more}");
    }
}

#[test]
fn dialects_of_the_request_arrive_as_written() {
    let cases = [
        ("scopes: [a, b]\nscope_separator: \",\"\nclient_auth: post", "scope=a%2Cb"),
        ("scopes: [a, b]\nscope_separator: \"+\"\nclient_auth: post", "scope=a+b"),
        (
            "audience: https://a\nresource: [https://b, https://c]",
            "audience=https%3A%2F%2Fa&resource=https%3A%2F%2Fb&resource=https%3A%2F%2Fc",
        ),
        ("params: { grant_type: null, vendor: x }\nclient_auth: post", "client_id=id&client_secret=s3cret%2F%2B%20%3D%26value&vendor=x"),
        ("fields: { client_id: client_key, client_secret: null }\nclient_auth: post", "grant_type=client_credentials&client_key=id"),
        ("params: { grant_type: \"urn:vendor\" }", "grant_type=urn%3Avendor"),
    ];
    for (more, part) in cases {
        let issuer = Issuer::minting(3600);
        let api = Upstream::ok();
        let gateway = gateway(&client_credentials(&api.url(), &issuer, more));
        assert_eq!(gateway.get("/r/api/x").status, 200, "{more}");
        let sent = String::from_utf8(issuer.server.last().body).unwrap();
        assert!(sent.contains(part), "{more}: {sent}");
    }
}

#[test]
fn parameters_travel_as_json_in_the_query_or_with_get() {
    let issuer = Issuer::minting(3600);
    let api = Upstream::ok();
    let start = |more: &str| gateway(&client_credentials(&api.url(), &issuer, more));
    let json = "body: json\nclient_auth: post\nscopes: [a, b]\nparams: { n: 5, on: true, deep: { list: [1, two] } }\nheaders: { X-Extra: \"1\", Accept: null }";
    assert_eq!(start(json).get("/r/api/x").status, 200);
    let seen = issuer.server.last();
    let body: Value = serde_json::from_slice(&seen.body).unwrap();
    let wanted = json!({ "grant_type": "client_credentials", "scope": "a b", "client_id": "id", "client_secret": SECRET, "n": 5, "on": true, "deep": { "list": [1, "two"] } });
    assert_eq!(body, wanted);
    assert_eq!((seen.field("content-type"), seen.field("x-extra"), seen.field("accept")), (Some("application/json"), Some("1"), None));

    assert_eq!(start("method: GET\nclient_auth: post").get("/r/api/x").status, 200);
    let seen = issuer.server.last();
    let (path, query) = seen.target().split_once('?').unwrap();
    assert_eq!((seen.line().split(' ').next(), path, seen.body.len()), (Some("GET"), "/token", 0));
    assert!(decoded(query).contains(&("client_secret".into(), SECRET.into())));

    assert_eq!(start("body: query\nclient_auth: post").get("/r/api/x").status, 200);
    let seen = issuer.server.last();
    assert!(seen.line().starts_with("POST /token?grant_type=") && seen.field("content-length") == Some("0"), "{}", seen.head);
}

#[test]
fn a_token_goes_where_it_is_wanted_and_nowhere_else() {
    for (place, found) in [
        ("{ header: X-Token }", "x-token: token-1"),
        ("{ header: X-Token, scheme: Tok }", "x-token: Tok token-1"),
        ("{ header: Authorization }", "authorization: Bearer token-1"),
        ("{ header: Authorization, scheme: bearer }", "authorization: bearer token-1"),
        ("{ header: Authorization, scheme: \"\" }", "authorization: token-1"),
        ("{ query: t }", "/x?a=b&t=token-1 "),
        ("{ cookie: sid }", "cookie: sid=token-1"),
        ("{ header: X-Token, value: 'Tok token=\"{{ token }}\", {{ request.method }}' }", "x-token: Tok token=\"token-1\", GET"),
        ("{ query: t, value: 'a b {{ token }}' }", "/x?a=b&t=a%20b%20token-1 "),
        ("{ cookie: sid, value: 'v1.{{ token }}' }", "cookie: sid=v1.token-1"),
    ] {
        let issuer = Issuer::minting(3600);
        let api = Upstream::ok();
        let gateway = gateway(&client_credentials(&api.url(), &issuer, &format!("place: {place}")));
        assert_eq!(gateway.send("GET", "/r/api/x?a=b&t=mine", "X-Token: mine\r\nAuthorization: mine\r\n", b"").status, 200);
        let head = api.last().head;
        assert!(head.contains(found), "{place}: {head}");
        assert_eq!(head.matches("token-1").count(), 1, "{head}");
        assert!(!head.contains("authorization: mine"), "{head}");
    }
    let issuer = Issuer::minting(3600);
    let api = Upstream::ok();
    let gateway = gateway(&client_credentials(&api.url(), &issuer, "place: [ { body: t }, { header: X-Token } ]"));
    assert_eq!(gateway.send("POST", "/r/api/x", "Content-Type: application/json\r\n", br#"{"a":1,"t":"mine"}"#).status, 200);
    assert_eq!(String::from_utf8_lossy(&api.last().body), r#"{"a":1,"t":"token-1"}"#);
    assert_eq!(api.last().field("x-token"), Some("token-1"));
}

#[test]
fn odd_replies_are_mapped() {
    let body = json!({ "ok": true, "data": { "session": { "key": "from-data", "end": "2999-01-01T00:00:00Z" } } });
    let issuer = Issuer::answering(move |_, _, stream| answer(stream, "201 Created", "Content-Type: text/plain\r\n", &body.to_string()));
    let api = Upstream::ok();
    let more = "response: { token: json.data.session.key, expires_at: json.data.session.end, error: { path: json.ok, ok: true } }\ncapture: { end: json.data.session.end }";
    let gateway = gateway(&client_credentials(&api.url(), &issuer, more));
    assert_eq!(gateway.get("/r/api/x").status, 200);
    assert_eq!(api.last().field("authorization"), Some("Bearer from-data"));
}

#[test]
fn a_login_that_brings_a_refresh_token_is_renewed_by_it_in_its_own_way() {
    let issuer = Issuer::answering(|seen, number, stream| {
        let body = String::from_utf8_lossy(&seen.body).into_owned();
        if seen.target() == "/refresh" {
            return json_answer(stream, &json!({ "token": format!("token-{number}"), "expires_in": 2, "sent": body }));
        }
        json_answer(stream, &json!({ "access_token": format!("token-{number}"), "refresh_token": "r1", "expires_in": 2 }))
    });
    let api = Upstream::ok();
    let config = format!(
        "resources:\n  api:\n    base_url: \"{}\"\n    auth:\n      oauth2_password:\n        token_url: \"{}\"\n        username: u\n        password: \"${{env:CLIENT_SECRET}}\"\n        refresh: {{ url: \"{}/refresh\", method: PUT, body: json, params: {{ grant_type: null, device: d }}, response: {{ token: json.token }} }}\n",
        api.url(),
        issuer.url(),
        issuer.server.url()
    );
    let gateway = gateway(&config);
    let refreshed = eventually(|| {
        assert_eq!(gateway.get("/r/api/x").status, 200);
        issuer.server.seen().into_iter().filter(|s| s.target() == "/refresh").nth(1)
    });
    let refresh = refreshed.expect("nothing was refreshed");
    assert!(refresh.line().starts_with("PUT "), "{}", refresh.line());
    // An answer without a refresh token keeps the old one.
    assert_eq!(serde_json::from_slice::<Value>(&refresh.body).unwrap(), json!({ "refresh_token": "r1", "device": "d" }));
    assert_eq!(issuer.server.seen().iter().filter(|s| s.target() == "/token").count(), 1);
}

#[test]
fn a_spent_refresh_token_of_a_login_leads_to_a_new_login() {
    let issuer = Issuer::answering(|seen, number, stream| {
        if String::from_utf8_lossy(&seen.body).contains("grant_type=refresh_token") {
            return answer(stream, "400 Bad Request", "", &json!({ "error": "invalid_grant" }).to_string());
        }
        json_answer(stream, &json!({ "access_token": format!("token-{number}"), "refresh_token": "r1", "expires_in": 2 }))
    });
    let api = Upstream::ok();
    let config = format!(
        "resources:\n  api:\n    base_url: \"{}\"\n    auth: {{ oauth2_password: {{ token_url: \"{}\", username: u, password: \"${{env:CLIENT_SECRET}}\" }} }}\n",
        api.url(),
        issuer.url()
    );
    let gateway = gateway(&config);
    let again = eventually(|| {
        assert_eq!(gateway.get("/r/api/x").status, 200);
        (issuer.requests() >= 3).then_some(())
    });
    assert!(again.is_some());
    let kinds: Vec<bool> =
        issuer.server.seen().iter().take(3).map(|s| String::from_utf8_lossy(&s.body).contains("grant_type=password")).collect();
    assert_eq!(kinds, [true, false, true]);
}

#[test]
fn state_age_and_last_error_are_on_the_admin_api_and_no_token_is() {
    let (api, issuer) = (Upstream::ok(), Issuer::answering(|_, _, stream| answer(stream, "500 Oops", "", "")));
    let admin = free_port();
    let config = format!("admin: {{ listen: \"127.0.0.1:{admin}\" }}\n{}", client_credentials(&api.url(), &issuer, ""));
    let gateway = gateway(&config);
    let ask = |path: &str| {
        let stream = TcpStream::connect(("127.0.0.1", admin)).unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        Reply::parse(&crate::support::exchange(stream, request.as_bytes()))
    };
    let view = || ask("/api/tokens").json()["tokens"][0].clone();
    let first = view();
    assert_eq!(
        (&first["resource"], &first["scheme"], &first["state"]),
        (&json!("api"), &json!("oauth2_client_credentials"), &json!("none"))
    );
    assert_eq!(gateway.get("/r/api/x").status, 503);
    let failed = view();
    assert_eq!(failed["state"], "backing off");
    assert!(failed["last_error"]["what"].as_str().unwrap().contains("500 with nothing in it"), "{failed}");
    issuer.now(|_, number, stream| json_answer(stream, &minted(number, 3600)));
    assert!(eventually(|| (gateway.get("/r/api/x").status == 200).then_some(())).is_some());
    let fresh = view();
    assert_eq!((&fresh["state"], fresh.get("last_error")), (&json!("fresh"), None));
    assert!(fresh["expires"].as_str().unwrap().ends_with('Z') && fresh["age"].as_u64().is_some(), "{fresh}");
    let served = eventually(|| gateway.records(1).into_iter().find(|r| r["status"] == 200)).unwrap();
    assert_eq!(served["credential"], fresh["credential"]);
    assert!(!ask("/api/tokens").text().contains("token-"), "{}", ask("/api/tokens").text());
    let shown = crate::support::postern()
        .args(["token", "--config"])
        .arg(gateway.folder.path().join("postern.yaml"))
        .env("CLIENT_SECRET", SECRET)
        .output()
        .unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.contains("oauth2_client_credentials") && shown.contains("fresh") && !shown.contains("token-"), "{shown}");
    let figures = ask("/metrics").text();
    assert!(figures.contains("postern_token_requests_total{resource=\"api\",result=\"ok\"} 1"), "{figures}");
    assert!(figures.contains("postern_token_requests_total{resource=\"api\",result=\"failed\"}"), "{figures}");
}

#[test]
fn a_reload_keeps_the_token_of_a_grant_that_has_not_changed() {
    let (api, issuer) = (Upstream::ok(), Issuer::minting(3600));
    let config = client_credentials(&api.url(), &issuer, "");
    let gateway = gateway(&config);
    assert_eq!(gateway.get("/r/api/x").status, 200);
    let file = gateway.folder.path().join("postern.yaml");
    let text = std::fs::read_to_string(&file).unwrap();
    let changed = text.replace("    timeouts:", "    headers: { X-New: \"1\" }\n    timeouts:");
    assert_ne!(text, changed);
    std::fs::write(&file, changed).unwrap();
    gateway.signal("HUP");
    let taken = eventually(|| {
        assert_eq!(gateway.get("/r/api/x").status, 200);
        (api.last().field("x-new") == Some("1")).then_some(())
    });
    assert!(taken.is_some(), "the reload did not take over");
    assert_eq!(issuer.requests(), 1);
}

#[test]
fn explain_shows_where_a_token_would_go_and_fetches_none() {
    let (api, issuer) = (Upstream::ok(), Issuer::minting(3600));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("postern.yaml");
    for (place, found) in [
        ("{ header: Authorization }", "Bearer [to be fetched]"),
        ("{ cookie: sid }", "sid=[to be fetched]"),
        ("{ query: t }", "t=[to be fetched]"),
    ] {
        std::fs::write(&file, client_credentials(&api.url(), &issuer, &format!("place: {place}"))).unwrap();
        let mut command = crate::support::postern();
        command.args(["explain", "GET", "/r/api/x", "--config"]).arg(&file).env("CLIENT_SECRET", SECRET);
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains(found), "{text} {}", String::from_utf8_lossy(&output.stderr));
    }
    assert_eq!((issuer.requests(), api.seen().len()), (0, 0));
}

/// A resource whose grant is a refresh token that is replaced at each use; the issuer refuses a spent one.
fn rotating(api: &str, issuer: &Issuer) -> String {
    format!(
        "store: {{ file: {{ path: data }} }}\nresources:\n  api:\n    base_url: \"{api}\"\n    auth:\n      oauth2_authorization_code:\n        token_url: \"{}\"\n        client_id: id\n        client_secret: \"${{env:CLIENT_SECRET}}\"\n        refresh_token: \"${{env:REFRESH}}\"\n",
        issuer.url()
    )
}

/// An issuer of refresh tokens that are good once: `refresh-0`, `refresh-1` …
fn rotation(life: u64) -> Issuer {
    let next = std::sync::Mutex::new(0u32);
    Issuer::answering(move |seen, _, stream| {
        let form = decoded(&String::from_utf8_lossy(&seen.body));
        let shown = form.iter().find(|(n, _)| n == "refresh_token").map(|(_, v)| v.clone()).unwrap_or_default();
        let mut next = next.lock().unwrap();
        if shown != format!("refresh-{next}") {
            return answer(stream, "400 Bad Request", "Content-Type: application/json\r\n", r#"{"error":"invalid_grant"}"#);
        }
        *next += 1;
        json_answer(
            stream,
            &json!({ "access_token": format!("token-{next}"), "expires_in": life, "refresh_token": format!("refresh-{next}") }),
        )
    })
}

#[test]
fn a_rotated_refresh_token_survives_restarts_and_a_living_token_needs_no_request() {
    let (api, issuer) = (Upstream::ok(), rotation(3600));
    let mut gateway = gateway(&rotating(&api.url(), &issuer));
    assert_eq!(gateway.get("/r/api/x").status, 200);
    gateway.stop();
    gateway.again();
    assert_eq!(gateway.get("/r/api/x").status, 200);
    assert_eq!((issuer.requests(), api.last().field("authorization")), (1, Some("Bearer token-1")));
    let folder = gateway.folder.path().join("data");
    let mode = |name: &str| {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::metadata(folder.join(name)).unwrap().permissions().mode() & 0o777
    };
    assert_eq!((mode("master.key"), mode("postern.redb")), (0o600, 0o600));
    let raw = std::fs::read(folder.join("postern.redb")).unwrap();
    for secret in ["refresh-", "token-1"] {
        assert!(crate::support::find(&raw, secret.as_bytes()).is_none(), "{secret} lies open in the store");
    }
    assert!(gateway.stderr().contains("there is no master_key"), "{}", gateway.stderr());
}

#[test]
fn a_new_configured_refresh_token_wins_over_the_stored_one() {
    let (api, issuer) = (
        Upstream::ok(),
        Issuer::answering(|seen, _, stream| {
            let form = decoded(&String::from_utf8_lossy(&seen.body));
            let shown = form.into_iter().find(|(n, _)| n == "refresh_token").unwrap().1;
            json_answer(stream, &json!({ "access_token": format!("for-{shown}"), "expires_in": 3600, "refresh_token": "rotated" }))
        }),
    );
    let mut gateway = gateway(&rotating(&api.url(), &issuer));
    assert_eq!(gateway.get("/r/api/x").status, 200);
    assert_eq!(api.last().field("authorization"), Some("Bearer for-refresh-0"));
    gateway.stop();
    gateway.again_with("REFRESH", "refresh-new");
    assert_eq!(gateway.get("/r/api/x").status, 200);
    assert_eq!(api.last().field("authorization"), Some("Bearer for-refresh-new"));
}

#[test]
fn only_who_looks_at_a_resource_has_its_refused_credential_tried_again() {
    let issuer = Upstream::answering(|_, stream| {
        let body = r#"{"error":"invalid_grant"}"#;
        write!(stream, "HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len()).is_ok()
    });
    let upstream = Upstream::ok();
    let config = format!(
        "resources:\n  up:\n    base_url: \"{}\"\n    auth: {{ oauth2_password: {{ token_url: \"{}/t\", client_id: i, client_auth: none, username: u, password: \"${{env:P}}\" }} }}\n  other: {{ base_url: \"http://127.0.0.1:1\" }}\n",
        upstream.url(),
        issuer.url()
    );
    let gateway = Gateway::start_with(&config, &[("P", "wrong-password")]);
    let asked = || {
        assert_eq!(gateway.get("/r/up/a").status, 502);
        issuer.seen().len()
    };
    assert_eq!((asked(), asked()), (1, 1));
    let file = gateway.folder.path().join("postern.yaml");
    let text = std::fs::read_to_string(&file).unwrap();
    // A file that is wrong takes nothing over, and neither does one that changes something else look at this resource.
    std::fs::write(&file, text.replace("client_auth: none", "client_auth: nonsense")).unwrap();
    eventually(|| gateway.stderr().contains("nothing was changed").then_some(())).expect("the file is refused");
    assert_eq!(asked(), 1);
    std::fs::write(&file, text.replace("http://127.0.0.1:1", "http://127.0.0.1:2")).unwrap();
    eventually(|| gateway.stderr().contains("reloaded (").then_some(())).expect("another resource was changed");
    assert_eq!(asked(), 1);
    gateway.signal("HUP");
    eventually(|| (asked() == 2).then_some(())).expect("a person has asked for it");
}
