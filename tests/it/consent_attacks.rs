//! An enemy with a browser, or with somebody else's: every way that is known to have another's account connected, or one's
//! own in another's place. None connects, and the honest way still works behind each.

use std::net::TcpStream;

use serde_json::json;

use crate::support::browser::{Browser, LANDING, Stand, given, landed, param, port_of, proof, target_of};
use crate::support::issuer::{Issuer, answer, json_answer};
use crate::support::{Reply, Upstream, eventually, exchange};

/// Nothing was connected, and the API was never called.
#[track_caller]
fn nothing_came_of_it(stand: &Stand) {
    assert!(stand.connections().is_empty(), "{:?}", stand.connections());
    assert_eq!(stand.gateway.get("/r/api/x").status, 424);
    assert!(stand.api.seen().is_empty());
}

/// The honest way still connects.
#[track_caller]
fn the_honest_way_is_open(stand: &Stand) {
    stand.connect(json!({ "resource": "api", "return_url": LANDING }));
    assert_eq!(stand.gateway.get("/r/api/x").status, 200);
}

#[test]
fn a_mailed_link_connects_nothing_as_the_code_lands_in_the_victims_browser() {
    let stand = Stand::new("", "");
    // The enemy asks for a link and mails it; the victim consents. The code is given to the victim's browser alone, at an
    // address of the victim's own machine: the enemy can only guess.
    let link = stand.usual_link();
    let reply = stand.consent(&mut Browser::new(), &link);
    let session = param(reply.field("location").unwrap(), "connect_session").unwrap();
    for guess in ["", "a", ".", &session, &format!("{session}."), &format!("{session}.{}", "a".repeat(20))] {
        assert!(!stand.redeem(guess), "{guess}");
    }
    nothing_came_of_it(&stand);
    the_honest_way_is_open(&stand);
}

#[test]
fn codes_are_not_guessed_at_length() {
    let stand = Stand::new("", "");
    let reply = stand.consent(&mut Browser::new(), &stand.usual_link());
    let code = landed(&reply);
    let session = code.split_once('.').unwrap().0;
    (0..5).for_each(|n| assert!(!stand.redeem(&format!("{session}.{}", n.to_string().repeat(20)))));
    assert!(!stand.redeem(&code), "the right code is good after five wrong ones");
    nothing_came_of_it(&stand);
}

#[test]
fn a_stolen_link_ends_in_the_browser_that_took_it_first() {
    let stand = Stand::new("", "");
    let link = stand.usual_link();
    let mut thief = Browser::new();
    let asked = thief.agree(&link);
    // Whom it was for finds it used, and knows.
    let mut owner = Browser::new();
    assert_eq!(owner.get(&link).status, 403);
    // The thief's consent leads the thief to the client's own place, where nobody waits for the thief.
    let reply = thief.come_back(&asked, "code=thiefs");
    assert!(reply.field("location").unwrap().starts_with(LANDING));
    nothing_came_of_it(&stand);
    the_honest_way_is_open(&stand);
}

#[test]
fn a_link_that_programs_look_at_is_still_good_and_they_learn_no_more_than_the_page() {
    let stand = Stand::new("", "");
    let link = stand.usual_link();
    for _ in 0..3 {
        assert_eq!(Browser::new().send("GET", &link, "", "").status, 200);
    }
    assert_eq!(Browser::new().send("HEAD", &link, "", "").status, 405);
    let code = landed(&stand.consent(&mut Browser::new(), &link));
    assert!(stand.redeem(&code));
}

#[test]
fn a_state_is_good_once() {
    let stand = Stand::new("", "");
    let mut browser = Browser::new();
    let asked = browser.agree(&stand.usual_link());
    let first = browser.come_back(&asked, "code=one");
    assert_eq!(first.status, 303);
    for code in ["one", "two"] {
        let again = browser.come_back(&asked, &format!("code={code}"));
        assert_eq!(again.status, 404, "{}", again.text());
    }
    assert_eq!(stand.issuer.requests(), 1);
    assert!(stand.redeem(&landed(&first)));
    assert!(!stand.redeem(&landed(&first)), "a code is good twice");
}

#[test]
fn an_answer_in_another_browser_connects_nothing() {
    let stand = Stand::new("", "");
    let mut victim = Browser::new();
    let asked = victim.agree(&stand.usual_link());
    // With no cookie, with one of another session, and with one that was made up.
    let mut other = Browser::new();
    other.agree(&stand.usual_link());
    let mut liar = Browser::new();
    let (authority, name, value) = victim.cookies[0].clone();
    liar.cookies.push((authority.clone(), name.clone(), "x".repeat(value.len())));
    let mut two = Browser::new();
    two.cookies.push((authority.clone(), name.clone(), "x".into()));
    two.cookies.push((authority, name, value));
    for mut browser in [Browser::new(), other, liar, two] {
        assert_eq!(browser.come_back(&asked, "code=stolen").status, 403);
    }
    assert_eq!(stand.issuer.requests(), 0, "a code was exchanged for a stranger");
    nothing_came_of_it(&stand);
    // The right browser has lost nothing by it.
    assert!(stand.redeem(&landed(&victim.come_back(&asked, "code=own"))));
}

#[test]
fn an_enemys_code_cannot_be_put_into_a_victims_session() {
    // The provider knows which verifier belongs to which code, as PKCE wants it.
    let issuer = Issuer::answering(|seen, number, stream| {
        let body = String::from_utf8_lossy(&seen.body).into_owned();
        let good = body.contains("code=of-the-victim");
        if good {
            json_answer(stream, &given(number))
        } else {
            answer(stream, "400 Bad Request", "Content-Type: application/json\r\n", r#"{"error":"invalid_grant"}"#)
        }
    });
    let stand = Stand::with("", "", "", issuer);
    let mut victim = Browser::new();
    let asked = victim.agree(&stand.usual_link());
    // The enemy's own answer, opened by the victim: its state is of another session, whose browser is the enemy's.
    let mut enemy = Browser::new();
    let enemys = enemy.agree(&stand.usual_link());
    assert_eq!(victim.come_back(&enemys, "code=of-the-enemy").status, 403);
    // And even with the victim's own state the verifier is not the one for the code.
    let reply = victim.come_back(&asked, "code=of-the-enemy");
    assert!(param(reply.field("location").unwrap(), "connect_code").is_none());
    nothing_came_of_it(&stand);
}

#[test]
fn two_sessions_of_one_browser_do_not_mix() {
    let stand = Stand::new("", "connections: { by: header }");
    let link = |name: &str| stand.link(json!({ "resource": "api", "connection": name, "return_url": LANDING }));
    let mut browser = Browser::new();
    let (one, two) = (browser.agree(&link("one")), browser.agree(&link("two")));
    // The state of one with the cookie of the other alone.
    let id = param(&two, "state").unwrap().split_once('.').unwrap().0.to_owned();
    let mut half = browser.clone();
    half.cookies.retain(|(_, name, _)| name.ends_with(&id));
    assert_eq!(half.cookies.len(), 1);
    assert_eq!(half.come_back(&one, "code=1").status, 403);
    // In any order, each answer belongs to its own.
    let second = landed(&browser.come_back(&two, "code=2"));
    let first = landed(&browser.come_back(&one, "code=1"));
    assert!(stand.redeem(&first) && stand.redeem(&second));
    let token = |name: &str| {
        stand.gateway.send("GET", "/r/api/x", &format!("Postern-Connection: {name}\r\n"), b"");
        stand.api.last().field("authorization").unwrap().to_owned()
    };
    assert_eq!((token("two"), token("one")), ("Bearer token-1".into(), "Bearer token-2".into()));
}

#[test]
fn going_twice_makes_the_first_way_void() {
    let stand = Stand::new("", "");
    let link = stand.usual_link();
    let mut browser = Browser::new();
    let (first, second) = (browser.agree(&link), browser.agree(&link));
    assert_eq!(browser.come_back(&first, "code=1").status, 404);
    assert!(stand.redeem(&landed(&browser.come_back(&second, "code=2"))));
}

#[test]
fn an_answer_of_another_issuer_is_refused_before_its_code_is_sent_anywhere() {
    for (issuer, iss) in [
        ("issuer: https://honest.example", "https://evil.example"),
        ("issuer: https://honest.example", "https://honest.example/"),
        ("issuer: https://honest.example", "https://honest.example.evil.example"),
        // The operator has not named it: it must live where the browser was sent to.
        ("", "https://evil.example"),
        ("", "nonsense"),
    ] {
        let stand = Stand::new(issuer, "");
        let mut browser = Browser::new();
        let asked = browser.agree(&stand.usual_link());
        let reply = browser.come_back(&asked, &format!("code=c&iss={iss}"));
        assert_eq!((reply.status, reply.field("location")), (400, None), "{}", reply.text());
        assert_eq!(stand.issuer.requests(), 0, "{iss}");
        assert_eq!(browser.come_back(&asked, "code=c&iss=https://honest.example").status, 404, "the state is good again");
        nothing_came_of_it(&stand);
    }
    let stand = Stand::new("issuer: https://honest.example", "");
    let mut browser = Browser::new();
    let asked = browser.agree(&stand.usual_link());
    assert!(stand.redeem(&landed(&browser.come_back(&asked, "code=c&iss=https%3A%2F%2Fhonest.example"))));
}

#[test]
fn nobody_is_sent_to_a_foreign_address() {
    let stand = Stand::new("", "");
    for url in [
        "https://evil.example/",
        "http://127.0.0.1.evil.example:9/",
        "http://127.0.0.1:9@evil.example/",
        "http://evil.example#@127.0.0.1:9/",
        "//evil.example/",
        "http://127.0.0.1:9\\@evil.example/",
        "http://localhost:9/",
        "http://127.0.0.1:9/\r\nSet-Cookie: a=b",
        "javascript:alert(1)",
        "http://[::ffff:127.0.0.1]:9/",
    ] {
        let reply = stand.api("POST", "/api/connect-sessions", &json!({ "resource": "api", "return_url": url }));
        assert_eq!(reply.status, 400, "{url}");
    }
    // Nor by what comes with the answer.
    let mut browser = Browser::new();
    let asked = browser.agree(&stand.usual_link());
    let reply = browser.come_back(&asked, "code=c&return_url=https://evil.example&redirect_uri=https://evil.example");
    assert!(reply.field("location").unwrap().starts_with(LANDING), "{}", reply.head);
    // The redirect URI is never the caller's either.
    let order = json!({ "resource": "api", "redirect_uri": "https://evil.example" });
    assert_eq!(stand.api("POST", "/api/connect-sessions", &order).status, 400);
}

#[test]
fn a_form_of_another_site_starts_nothing() {
    let stand = Stand::new("", "");
    let link = stand.usual_link();
    let mut victim = Browser::new();
    let page = victim.get(&link);
    let good = format!("proof={}&answer=connect", proof(&page));
    let form = "Content-Type: application/x-www-form-urlencoded\r\n";
    // With the victim's cookie, as a browser would send it, but from elsewhere; or without the proof, or with another's.
    let mut other = Browser::new();
    let theirs = format!("proof={}&answer=connect", proof(&other.get(&link)));
    for (fields, body) in [
        ("Origin: https://evil.example\r\nSec-Fetch-Site: cross-site\r\n", good.as_str()),
        ("Origin: https://evil.example\r\n", good.as_str()),
        ("Origin: null\r\nSec-Fetch-Site: cross-site\r\n", good.as_str()),
        ("Sec-Fetch-Site: same-site\r\n", good.as_str()),
        ("Origin: http://127.0.0.1:1\r\n", good.as_str()),
        ("", "answer=connect"),
        ("", "proof=&answer=connect"),
        ("", theirs.as_str()),
        ("", &format!("{good}&proof=x")),
    ] {
        let reply = victim.send("POST", &link, &format!("{form}{fields}"), body);
        assert_eq!((reply.status, reply.field("location")), (403, None), "{fields} {body}");
    }
    let json = victim.send("POST", &link, "Content-Type: text/plain\r\n", &good);
    assert_eq!(json.status, 400);
    let bare = Browser::new().send("POST", &link, form, &good);
    assert_eq!(bare.status, 403, "the proof is good without the cookie");
    nothing_came_of_it(&stand);
    assert_eq!(victim.post(&link, &good).status, 303);
}

#[test]
fn a_cookie_that_the_enemy_has_planted_is_of_no_use() {
    let stand = Stand::new("", "");
    let link = stand.usual_link();
    // The enemy opens the page and plants its own cookie in the victim's browser. What the victim then does runs in the
    // enemy's session, and so lands at the enemy's client, not with the enemy: in the victim's browser.
    let mut enemy = Browser::new();
    enemy.get(&link);
    let mut victim = Browser { cookies: enemy.cookies.clone() };
    let asked = enemy.agree(&link);
    let reply = victim.come_back(&asked, "code=victims");
    assert!(landed(&reply).contains('.'), "the code is in the victim's browser");
    assert_eq!(enemy.come_back(&asked, "code=x").status, 404, "the enemy takes it from there");
    nothing_came_of_it(&stand);
    // A value that the gateway has not given is none.
    let link = stand.usual_link();
    let id = target_of(&link).rsplit('/').next().unwrap().split('.').next().unwrap().to_owned();
    let mut planted = Browser { cookies: vec![(format!("127.0.0.1:{}", stand.admin), format!("postern-{id}"), "planted".into())] };
    let page = planted.get(&link);
    assert_eq!(page.status, 200);
    assert_eq!(Browser::new().post(&link, &format!("proof={}&answer=connect", proof(&page))).status, 403);
}

#[test]
fn names_and_words_of_strangers_are_text_on_every_page() {
    let stand = Stand::new("", "");
    let script = "%3Cscript%3Ealert(1)%3C/script%3E";
    let mut browser = Browser::new();
    let asked = browser.agree(&stand.link(json!({ "resource": "api" })));
    let page = browser.come_back(&asked, &format!("error={script}&error_description=%22%3E{script}&error_uri=javascript:alert(1)"));
    assert!(page.text().contains("&lt;script&gt;") && !page.text().contains("<script"), "{}", page.text());
    for path in [format!("/connect/start/{script}"), format!("/connect/callback?state={script}"), format!("/connect/{script}")] {
        let page = browser.get(&format!("http://127.0.0.1:{}{path}", stand.admin));
        assert!(!page.text().contains("<script") && page.status >= 400, "{}", page.text());
    }
    for order in [json!({ "connection": "<script>" }), json!({ "client": "\"><script>" }), json!({ "connection": "a\r\nSet-Cookie: b=c" })]
    {
        let mut order = order;
        order["resource"] = "api".into();
        assert_eq!(stand.api("POST", "/api/connect-sessions", &order).status, 400, "{order}");
    }
    nothing_came_of_it(&stand);
}

#[test]
fn no_field_of_an_answer_can_be_written_by_a_stranger() {
    let stand = Stand::new("", "");
    let mut browser = Browser::new();
    let asked = browser.agree(&stand.usual_link());
    let reply = browser.come_back(&asked, "error=x%0d%0aSet-Cookie:%20evil=1");
    assert_eq!(reply.status, 400, "a line break is no part of a parameter");
    assert!(!reply.head.to_lowercase().contains("evil"), "{}", reply.head);
    let reply = browser.come_back(&asked, "error=a%26b%3Dc%20d");
    let to = reply.field("location").unwrap();
    assert_eq!(param(to, "connect_error").as_deref(), Some("an error"), "{to}");
    nothing_came_of_it(&stand);
}

#[test]
fn what_came_twice_or_is_too_large_is_no_answer() {
    let stand = Stand::new("", "");
    let mut browser = Browser::new();
    for more in
        ["code=a&code=b".to_owned(), "code=a&iss=x&iss=y".into(), format!("code={}", "x".repeat(9000)), "a=b&".repeat(80) + "code=c"]
    {
        let asked = browser.agree(&stand.usual_link());
        let reply = browser.come_back(&asked, &more);
        assert_eq!((reply.status, reply.field("location")), (400, None), "{more:.40}");
    }
    let asked = browser.agree(&stand.usual_link());
    assert_eq!(browser.come_back(&asked, "state=again&code=c").status, 400);
    let back = param(&asked, "redirect_uri").unwrap();
    let head = format!("{back}?state={}&code=c&x={}", param(&asked, "state").unwrap(), "y".repeat(64 * 1024));
    let port = port_of(&head);
    let sent = format!("GET {} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n", target_of(&head));
    let answer = exchange(TcpStream::connect(("127.0.0.1", port)).unwrap(), sent.as_bytes());
    assert!(answer.is_empty() || Reply::parse(&answer).status >= 400);
    let form = "Content-Type: application/x-www-form-urlencoded\r\n";
    assert_eq!(browser.send("POST", &back, form, &format!("state=x&{}", "y".repeat(64 * 1024))).status, 400);
    assert_eq!(stand.issuer.requests(), 0);
    nothing_came_of_it(&stand);
}

#[test]
fn other_methods_do_nothing() {
    let stand = Stand::new("", "");
    let link = stand.usual_link();
    let mut browser = Browser::new();
    let asked = browser.agree(&link);
    let back = format!("{}?state={}&code=c", param(&asked, "redirect_uri").unwrap(), param(&asked, "state").unwrap());
    for method in ["HEAD", "OPTIONS", "PUT", "DELETE", "PATCH", "PROPFIND"] {
        for url in [&link, &back] {
            let reply = browser.send(method, url, "", "");
            assert_eq!((reply.status, reply.field("allow")), (405, Some("GET, POST")), "{method}");
        }
    }
    for (method, path) in [
        ("GET", "/api/connect-sessions"),
        ("GET", "/api/connect-sessions/redeem"),
        ("POST", "/api/connections"),
        ("GET", "/api/connections/api/default"),
    ] {
        assert_eq!(stand.api(method, path, &json!({})).status, 405, "{method} {path}");
    }
    assert_eq!(stand.issuer.requests(), 0);
    assert!(stand.redeem(&landed(&browser.get(&back))));
}

#[test]
fn a_name_that_was_made_to_lead_here_reaches_no_page_and_no_api() {
    let stand = Stand::new("", "");
    let link = stand.usual_link();
    let mut browser = Browser::new();
    for host in ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:8081"] {
        let fields = format!("Host: {host}\r\n");
        assert_eq!(browser.send("GET", &link, &fields, "").status, 403, "{host}");
        let page = browser.get(&link);
        let form = format!("{fields}Content-Type: application/x-www-form-urlencoded\r\n");
        assert_eq!(browser.send("POST", &link, &form, &format!("proof={}&answer=connect", proof(&page))).status, 403, "{host}");
        let token = stand.own_token();
        let api = format!("{fields}Content-Type: application/json\r\nAuthorization: Bearer {token}\r\n");
        assert_eq!(stand.api_with("POST", "/api/connect-sessions", &api, r#"{"resource":"api"}"#).status, 403, "{host}");
    }
    let asked = browser.agree(&link);
    let back = format!("{}?state={}&code=c", param(&asked, "redirect_uri").unwrap(), param(&asked, "state").unwrap());
    assert_eq!(browser.send("GET", &back, "Host: evil.example\r\n", "").status, 403);
    assert_eq!(stand.issuer.requests(), 0);
    nothing_came_of_it(&stand);
}

#[test]
fn pages_of_other_sites_neither_frame_nor_fetch_nor_ask_the_api() {
    let stand = Stand::new("", "");
    let link = stand.usual_link();
    let mut browser = Browser::new();
    let page = browser.get(&link);
    for (name, part) in [
        ("content-security-policy", "frame-ancestors 'none'"),
        ("content-security-policy", "default-src 'none'"),
        ("x-frame-options", "DENY"),
        ("cache-control", "no-store"),
        ("referrer-policy", "no-referrer"),
        ("x-content-type-options", "nosniff"),
        ("cross-origin-resource-policy", "same-origin"),
    ] {
        assert!(page.field(name).is_some_and(|value| value.contains(part)), "{name}: {}", page.head);
    }
    assert!(!page.text().contains("<script") && !page.field("content-security-policy").unwrap().contains("unsafe"));
    assert!(page.field("access-control-allow-origin").is_none());
    let cookie = page.field("set-cookie").unwrap();
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Lax") && !cookie.contains("Domain"), "{cookie}");
    let asked = browser.agree(&link);
    let back = format!("{}?state={}&code=c", param(&asked, "redirect_uri").unwrap(), param(&asked, "state").unwrap());
    for fields in [
        "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: iframe\r\n",
        "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: no-cors\r\nSec-Fetch-Dest: image\r\n",
        "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: cors\r\nSec-Fetch-Dest: empty\r\n",
        "Sec-Purpose: prefetch\r\n",
    ] {
        assert_eq!(browser.send("GET", &back, fields, "").status, 403, "{fields}");
        assert_eq!(browser.send("GET", &link, fields, "").status, 403, "{fields}");
    }
    // Even a page that knew the token could not use it.
    let token = stand.own_token();
    let fields = format!("Origin: https://evil.example\r\nContent-Type: application/json\r\nAuthorization: Bearer {token}\r\n");
    assert_eq!(stand.api_with("POST", "/api/connect-sessions", &fields, r#"{"resource":"api"}"#).status, 403);
    assert_eq!(stand.api_with("DELETE", "/api/connections/api/default", &fields, "").status, 403);
    assert_eq!(stand.issuer.requests(), 0);
    nothing_came_of_it(&stand);
}

#[test]
fn another_user_of_the_machine_connects_nothing() {
    let stand = Stand::new("", "");
    let json = "Content-Type: application/json\r\n";
    for (method, path, body) in [
        ("POST", "/api/connect-sessions", r#"{"resource":"api"}"#),
        ("POST", "/api/connect-sessions/redeem", r#"{"code":"a.b"}"#),
        ("DELETE", "/api/connections/api/default", ""),
    ] {
        let reply = stand.api_with(method, path, json, body);
        assert_eq!((reply.status, reply.field("www-authenticate").is_some()), (401, true), "{method} {path}");
    }
    use std::os::unix::fs::PermissionsExt as _;
    let file = stand.gateway.folder.path().join("data/admin.token");
    assert_eq!(std::fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
    nothing_came_of_it(&stand);
}

#[test]
fn a_name_in_a_request_is_never_a_way_to_another_connection() {
    let stand = Stand::new("", "connections: { by: header }");
    stand.connect(json!({ "resource": "api", "connection": "mine", "return_url": LANDING }));
    stand.connect(json!({ "resource": "api", "connection": "theirs", "client": "them", "return_url": LANDING }));
    for name in ["theirs", "api/theirs", "..%2ftheirs", "MINE", "mine%00", "mine theirs", "mine\ttheirs", "mine,theirs"] {
        let reply = stand.gateway.send("GET", "/r/api/x", &format!("Postern-Connection: {name}\r\n"), b"");
        assert!(matches!(reply.status, 400 | 424), "{name}: {}", reply.status);
    }
    // In the spellings that an upstream or a proxy might take for the field.
    for fields in
        ["Postern_Connection: theirs\r\n", "X-Postern-Connection: theirs\r\n", "Postern-Connection: mine\r\nPostern_Connection: theirs\r\n"]
    {
        let reply = stand.gateway.send("GET", "/r/api/x", fields, b"");
        assert!(matches!(reply.status, 200 | 424), "{fields}: {}", reply.status);
    }
    assert!(stand.api.seen().iter().all(|seen| seen.field("authorization") == Some("Bearer token-1")));
    assert!(stand.api.seen().iter().all(|seen| !seen.head.to_lowercase().replace('_', "-").contains("\r\npostern-connection")));
}

#[test]
fn a_code_of_one_gateway_is_nothing_to_another() {
    let (one, other) = (Stand::new("", ""), Stand::new("", ""));
    let code = landed(&one.consent(&mut Browser::new(), &one.usual_link()));
    assert!(!other.redeem(&code));
    assert_eq!(Browser::new().get(&one.usual_link().replace(&one.admin.to_string(), &other.admin.to_string())).status, 404);
    nothing_came_of_it(&other);
}

#[test]
fn what_one_provider_gave_is_shown_to_no_other_whatever_the_configuration_says_later() {
    let other = Issuer::answering(|_, number, stream| json_answer(stream, &given(number)));
    let elsewhere = Upstream::ok();
    for case in ["token_url", "client_id", "base_url"] {
        let mut stand = Stand::new("", "");
        stand.connect(json!({ "resource": "api", "return_url": LANDING }));
        assert_eq!(stand.gateway.get("/r/api/x").status, 200);
        let waiting = landed(&stand.consent(&mut Browser::new(), &stand.usual_link()));
        let (from, to) = match case {
            "token_url" => (format!("token_url: \"{}\"", stand.issuer.url()), format!("token_url: \"{}\"", other.url())),
            "client_id" => ("client_id: id\n".to_owned(), "client_id: other\n".to_owned()),
            _ => (format!("base_url: \"{}\"", stand.api.url()), format!("base_url: \"{}\"", elsewhere.url())),
        };
        stand.reconfigure(&from, &to);
        for start in [false, true] {
            if start {
                stand.gateway.stop();
                stand.gateway.again();
            }
            let reply = stand.gateway.get("/r/api/x");
            assert_eq!((reply.status, reply.code().as_str()), (424, "connection-missing"), "{case}: {}", reply.text());
            assert!(reply.json()["connect_url"].is_string(), "{case}");
            assert_eq!(stand.connections()[0]["state"], "changed", "{case}");
            // Nor is what was consented to before, and redeemed only now.
            assert!(!stand.redeem(&waiting), "{case}");
        }
        assert_eq!((other.requests(), elsewhere.seen().len(), stand.api.seen().len()), (0, 0, 1), "{case}");
        // What comes back is the same again.
        stand.reconfigure(&to, &from);
        assert_eq!(stand.gateway.get("/r/api/x").status, 200, "{case}");
    }
}

#[test]
fn a_connection_under_a_name_that_another_resource_has_got_is_revoked_nowhere_else() {
    let other = Issuer::answering(|_, number, stream| json_answer(stream, &given(number)));
    let issuer = Issuer::answering(|_, number, stream| json_answer(stream, &given(number)));
    let revoke = |issuer: &Issuer| format!("revoke_url: \"{}/revoke\"", issuer.server.url());
    let stand = Stand::with(&revoke(&issuer), "", "", issuer);
    stand.connect(json!({ "resource": "api", "return_url": LANDING }));
    stand.reconfigure(&format!("token_url: \"{}\"", stand.issuer.url()), &format!("token_url: \"{}\"", other.url()));
    stand.reconfigure(&revoke(&stand.issuer), &revoke(&other));
    let reply = stand.api("DELETE", "/api/connections/api/default", &json!({}));
    assert_eq!((reply.status, &reply.json()["revoked"]), (200, &json!(false)), "{}", reply.text());
    assert_eq!(other.requests(), 0, "the other issuer was shown a refresh token");
}

#[test]
fn a_code_of_another_session_than_the_one_that_was_begun_connects_nothing() {
    let stand = Stand::new("", "");
    let begun = stand.api("POST", "/api/connect-sessions", &json!({ "resource": "api", "return_url": LANDING })).json();
    let mine = begun["session"].as_str().unwrap();
    // The enemy consents in a session of its own, and has its code land where the victim's was to.
    let theirs = landed(&stand.consent(&mut Browser::new(), &stand.usual_link()));
    let redeem = |code: &str| stand.api("POST", "/api/connect-sessions/redeem", &json!({ "code": code, "session": mine })).status;
    assert_eq!(redeem(&theirs), 403);
    nothing_came_of_it(&stand);
    let look = |code: &str| stand.api("POST", "/api/connect-sessions/redeem", &json!({ "code": code, "look": true }));
    assert_eq!((look("a.b").status, look(&theirs).json()["resource"].clone()), (403, json!("api")));
    nothing_came_of_it(&stand);
    let code = landed(&stand.consent(&mut Browser::new(), begun["connect_url"].as_str().unwrap()));
    assert_eq!(redeem(&code), 200);
}

#[test]
fn what_nobody_redeems_is_no_connection_after_a_restart_either_but_may_be_redeemed_then() {
    let mut stand = Stand::new("", "");
    let code = landed(&stand.consent(&mut Browser::new(), &stand.usual_link()));
    stand.gateway.signal("KILL");
    stand.gateway.wait();
    stand.gateway.again();
    assert!(eventually(|| (stand.gateway.get("/r/api/x").status == 424).then_some(())).is_some());
    assert!(stand.connections().is_empty());
    assert!(stand.redeem(&code));
    assert_eq!(stand.gateway.get("/r/api/x").status, 200);
}

#[test]
fn nothing_of_a_consent_is_in_the_log_or_the_store_in_the_clear() {
    let stand = Stand::new("", "");
    let link = stand.usual_link();
    let mut browser = Browser::new();
    let asked = browser.agree(&link);
    let code = landed(&browser.come_back(&asked, "code=very-secret-code"));
    let kept = || {
        let store = std::fs::read(stand.gateway.folder.path().join("data/postern.redb")).unwrap();
        String::from_utf8_lossy(&store).into_owned() + &stand.gateway.stderr() + &stand.gateway.stdout()
    };
    let pending = kept();
    assert!(stand.redeem(&code));
    let connected = kept();
    let state = param(&asked, "state").unwrap();
    for secret in ["token-1", "refresh-1", "very-secret-code", &code, &state, link.rsplit('/').next().unwrap()] {
        assert!(!pending.contains(secret) && !connected.contains(secret), "{secret}");
    }
}
