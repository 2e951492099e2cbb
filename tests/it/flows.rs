//! Logins in steps of one's own, on the built gateway: what is sent, what is captured, where it goes, how long it holds, and
//! what a server in trouble, or a hostile one, can do.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use base64::Engine as _;
use serde_json::{Value, json};

use crate::support::issuer::{Issuer, answer, decoded, json_answer, minted};
use crate::support::{Gateway, Reply, Seen, Upstream, eventually, postern};

/// The tests' password: it has something of every kind of structure in it, and is long enough to be looked for.
const PASSWORD: &str = "p\"a&s'<w>=o%r d]]>{{ x }}";

/// A server whose `/login` counts, and whose every other path shows what it gets.
struct Site {
    server: Upstream,
    logins: Arc<AtomicU32>,
}

impl Site {
    /// `login` answers what begins with `/login`, by the number of the request; `api` all else.
    fn new(
        login: impl Fn(&Seen, u32, &mut TcpStream) -> bool + Send + Sync + 'static,
        api: impl Fn(&Seen, &mut TcpStream) -> bool + Send + Sync + 'static,
    ) -> Self {
        let logins = Arc::<AtomicU32>::default();
        let count = logins.clone();
        let server = Upstream::answering(move |seen, stream| {
            if seen.target().starts_with("/login") || seen.target() == "/base/login" {
                return login(seen, count.fetch_add(1, Ordering::SeqCst) + 1, stream);
            }
            api(seen, stream)
        });
        Self { server, logins }
    }

    /// One that takes every token.
    fn open(login: impl Fn(&Seen, u32, &mut TcpStream) -> bool + Send + Sync + 'static) -> Self {
        Self::new(login, |_, stream| answer(stream, "200 OK", "", "ok"))
    }

    fn logins(&self) -> u32 {
        self.logins.load(Ordering::SeqCst)
    }

    /// What reached the API and not the login.
    fn calls(&self) -> Vec<Seen> {
        self.server.seen().into_iter().filter(|seen| !seen.target().starts_with("/login")).collect()
    }

    /// The requests of the login.
    fn asked(&self) -> Vec<Seen> {
        self.server.seen().into_iter().filter(|seen| seen.target().starts_with("/login")).collect()
    }
}

fn indented(text: &str, by: usize) -> String {
    text.lines().map(|line| format!("{}{line}\n", " ".repeat(by))).collect()
}

/// A resource `api` with these settings of the scheme `flow` and of its own.
fn config(base: &str, flow: &str, more: &str) -> String {
    format!(
        "resources:\n  api:\n    base_url: \"{base}\"\n    timeouts: {{ head: 2s }}\n    secrets: {{ pass: \"${{env:PASS}}\" }}\n{}    auth:\n      flow:\n{}",
        indented(more, 4),
        indented(flow, 8)
    )
}

fn gateway(text: &str) -> Gateway {
    Gateway::start_with(text, &[("PASS", PASSWORD), ("CLIENT_SECRET", "s3cret-of-the-client")])
}

/// One step that captures `token`, and where it goes.
const LOGIN: &str = r#"steps:
  - name: login
    method: POST
    url: "{{ base }}/login"
    json: { user: me, password: "{{ secrets.pass }}" }
    capture: { token: json.token }
apply: { headers: { Authorization: "Session {{ captured.token }}" } }"#;

fn token(stream: &mut TcpStream, number: u32) -> bool {
    json_answer(stream, &json!({ "token": format!("session-{number}"), "user": { "id": 7 } }))
}

fn crowd(gateway: &Gateway, path: &str) -> BTreeSet<u16> {
    std::thread::scope(|scope| {
        let calls: Vec<_> = (0..64).map(|_| scope.spawn(|| gateway.get(path))).collect();
        calls.into_iter().map(|call| call.join().unwrap().status).collect()
    })
}

/// A call that brings nothing: its problem names what went wrong, and nothing of the password is in it.
fn trouble(gateway: &Gateway, status: u16, code: &str, words: &[&str]) -> Reply {
    let reply = gateway.get("/r/api/x");
    assert_eq!((reply.status, reply.code().as_str()), (status, code), "{}", reply.text());
    let detail = reply.json()["detail"].as_str().unwrap().to_owned();
    words.iter().for_each(|word| assert!(detail.contains(word), "{word}: {detail}"));
    assert!(!reply.text().contains("s'<w>"), "{}", reply.text());
    reply
}

#[test]
fn a_login_in_json_brings_what_apply_puts_where_it_belongs() {
    let site = Site::open(|_, number, stream| token(stream, number));
    let flow = r#"steps:
  - name: login
    method: POST
    url: "{{ base }}/login?v=1"
    headers: { X-Device: "{{ vars.device }}", Accept: application/json }
    params: { tenant: "a&b", tag: ["1", "{{ vars.device }}"] }
    json: { user: me, password: "{{ secrets.pass }}", remember: true, nested: [ { at: "{{ now | epoch }}" } ] }
    capture: { token: json.token, id: json.user.id }
apply:
  headers: { Authorization: "Session {{ captured.token }}:{{ captured.id }}" }
  params: { t: "{{ captured.token }} &" }
  cookies: { sid: "{{ captured.token }}" }
  body: { json: { auth: { token: "{{ captured.token }}", id: "{{ captured.id }}" } } }"#;
    let gateway = gateway(&config(&site.server.url(), flow, "vars: { device: d 1 }"));
    let fields = "Content-Type: application/json\r\nAuthorization: mine\r\nCookie: sid=mine\r\n";
    assert_eq!(gateway.send("POST", "/r/api/x?t=mine", fields, br#"{"a":1}"#).status, 200);
    let asked = &site.asked()[0];
    assert_eq!(asked.line(), "POST /login?v=1&tenant=a%26b&tag=1&tag=d%201 HTTP/1.1");
    assert_eq!((asked.field("x-device"), asked.field("accept")), (Some("d 1"), Some("application/json")));
    let sent: Value = serde_json::from_slice(&asked.body).unwrap();
    assert_eq!((&sent["password"], &sent["remember"]), (&json!(PASSWORD), &json!(true)));
    assert!(sent["nested"][0]["at"].as_u64().unwrap() > 1_700_000_000);
    let call = &site.calls()[0];
    assert_eq!(call.fields("authorization"), ["Session session-1:7"]);
    assert_eq!((call.target(), call.field("cookie")), ("/x?t=session-1%20%26", Some("sid=session-1")));
    assert_eq!(String::from_utf8_lossy(&call.body), r#"{"a":1,"auth":{"token":"session-1","id":7}}"#);
    // The resource's own fields never go to a login, and no secret into the log.
    assert!(asked.field("cookie").is_none() && !gateway.stderr().contains("session-1"));
    assert!(!serde_json::to_string(&gateway.records(1)).unwrap().contains("session-1"));
}

#[test]
fn sixty_four_first_calls_log_in_once_and_so_do_sixty_four_that_are_refused() {
    let valid = Arc::new(AtomicU32::new(1));
    let current = valid.clone();
    let site = Site::new(
        |_, number, stream| {
            std::thread::sleep(Duration::from_millis(100));
            token(stream, number)
        },
        move |seen, stream| {
            let shown = seen.field("authorization").unwrap_or_default().to_owned();
            let good = shown == format!("Session session-{}", current.load(Ordering::SeqCst));
            answer(stream, if good { "200 OK" } else { "401 Unauthorized" }, "", "")
        },
    );
    let gateway = gateway(&config(&site.server.url(), LOGIN, ""));
    assert_eq!(crowd(&gateway, "/r/api/x"), [200].into());
    assert_eq!(site.logins(), 1);
    valid.store(2, Ordering::SeqCst);
    assert_eq!(crowd(&gateway, "/r/api/x"), [200].into());
    assert_eq!(site.logins(), 2);
}

/// Texts that try to be structure, each in every place of a login.
#[test]
fn no_value_changes_a_document_a_query_or_a_template() {
    let folder = tempfile::tempdir().unwrap();
    let mut values: Vec<String> = [
        "plain",
        "quote\" 'single' \\back",
        "a&b=c;d#e?f/../g",
        "line\nbreak\ttab",
        "{{ secrets.other }} {% if %} ${env:PASS}",
        "]]><evil/><!--",
        "<x>&amp;</x>",
        "%41%zz+ ",
        "ü\u{1f600}",
        "\",\"admin\":true,\"x\":\"",
        "nul\0byte",
    ]
    .map(str::to_owned)
    .to_vec();
    values.push("x".repeat(64 * 1024));
    let site = Site::open(|_, number, stream| token(stream, number));
    let mut text = "resources:\n".to_owned();
    for (at, value) in values.iter().enumerate() {
        std::fs::write(folder.path().join(at.to_string()), value).unwrap();
        let step = |name: &str, rest: &str| {
            format!("          - {{ name: {name}, method: POST, url: \"{{{{ base }}}}/login/{at}/{name}\", {rest} }}\n")
        };
        text += &format!(
            "  r{at}:\n    base_url: \"{}\"\n    secrets: {{ v: \"${{file:{}/{at}}}\" }}\n    auth:\n      flow:\n        steps:\n",
            site.server.url(),
            folder.path().display()
        );
        text += &step("json", "json: { v: \"{{ secrets.v }}\", w: [ \"-{{ secrets.v }}\" ] }");
        text += &step("form", "form: { v: \"{{ secrets.v }}\", j: { json: { w: \"{{ secrets.v }}\" } } }");
        text += &step("raw", "body: \"v={{ secrets.v }}\", content_type: text/plain");
        if !value.contains('\0') {
            text += &step("xml", "xml: \"<l a=\\\"{{ secrets.v }}\\\"><p>{{ secrets.v }}</p></l>\"");
        }
        if value.len() < 1024 {
            text += &step("query", "params: { v: \"{{ secrets.v }}\" }");
            text += &format!(
                "          - {{ name: url, method: POST, url: \"{{{{ base }}}}/login/{at}/url/{{{{ secrets.v }}}}/end?v={{{{ secrets.v }}}}&w=1\" }}\n"
            );
        }
        text += "        apply: { headers: { X: fixed } }\n";
    }
    let gateway = Gateway::start(&text);
    let plain = |text: &str| percent_encoding::percent_decode_str(text).decode_utf8().unwrap().into_owned();
    for (at, value) in values.iter().enumerate() {
        let reply = gateway.get(&format!("/r/r{at}/x"));
        // What some server could read as another path has no place in one.
        if value.contains(['\0', '\\']) || value.contains("/../") {
            assert_eq!((reply.status, reply.code().as_str()), (502, "upstream-unreachable"), "{}", reply.text());
            assert!(reply.text().contains("step `url`"), "{}", reply.text());
        } else {
            assert_eq!(reply.status, 200, "{at} {}", reply.text());
        }
        let of = |name: &str| site.asked().into_iter().find(|seen| seen.target().starts_with(&format!("/login/{at}/{name}")));
        let sent: Value = serde_json::from_slice(&of("json").unwrap().body).unwrap();
        assert_eq!(sent, json!({ "v": value, "w": [format!("-{value}")] }));
        let form = decoded(&String::from_utf8(of("form").unwrap().body).unwrap());
        assert_eq!(form.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["v", "j"]);
        assert_eq!((&form[0].1, serde_json::from_str::<Value>(&form[1].1).unwrap()), (value, json!({ "w": value })));
        assert_eq!(of("raw").unwrap().body, format!("v={value}").into_bytes());
        if let Some(seen) = of("xml") {
            let text = String::from_utf8(seen.body).unwrap();
            let unescaped = |text: &str| {
                let pairs = [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&apos;", "'"), ("&#13;", "\r"), ("&amp;", "&")];
                pairs.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
            };
            let (attribute, rest) = text.strip_prefix("<l a=\"").unwrap().split_once("\"><p>").unwrap();
            let inner = rest.strip_suffix("</p></l>").unwrap();
            assert!(!attribute.contains(['<', '>', '"']) && !inner.contains(['<', '>']), "{text}");
            assert_eq!((unescaped(attribute), unescaped(inner)), (value.clone(), value.clone()));
        }
        if let Some(seen) = of("query") {
            assert_eq!(decoded(seen.target().split_once('?').unwrap().1), [("v".to_owned(), value.clone())]);
        }
        if let Some(seen) = of("url") {
            let (path, query) = seen.target().split_once('?').map(|(p, q)| (p.to_owned(), q.to_owned())).unwrap();
            let segments: Vec<&str> = path.split('/').collect();
            assert_eq!((segments.len(), segments[5]), (6, "end"), "{path}");
            assert_eq!(plain(segments[4]), value.trim());
            assert_eq!(decoded(&query), [("v".to_owned(), value.clone()), ("w".to_owned(), "1".to_owned())]);
        }
    }
}

#[test]
fn steps_capture_from_every_place_and_feed_the_next() {
    let site = Site::open(|seen, _, stream| match seen.target().split('?').next().unwrap() {
        "/login" => answer(
            stream,
            "200 OK",
            "Content-Type: application/xml\r\nX-Key: key-1\r\nSet-Cookie: sid=cookie-1; Path=/\r\nSet-Cookie: other=x; Path=/\r\n",
            "<r xmlns=\"urn:x\"><session id=\"s-1\"><token>x &amp; y</token></session></r>",
        ),
        "/login/code" => answer(stream, "302 Found", "Location: https://app.example/cb?state=1&code=c%2F1\r\n", ""),
        "/login/accounts" => {
            json_answer(stream, &json!({ "accounts": [{ "id": 41 }, { "id": 42 }], "big": 12_345_678_901_234_567_890_u64 }))
        }
        "/login/text" => answer(stream, "200 OK", "Content-Type: text/plain\r\n", "a nonce=n-1.\n"),
        path => answer(stream, "200 OK", "", &format!("at {path}")),
    });
    let flow = r#"steps:
  - { name: login, method: POST, url: "{{ base }}/login", xml: "<login><p>{{ secrets.pass }}</p></login>", capture: { token: xml.r.session.token, session: xml.r.session.@id, key: header.X-Key, sid: cookie.sid } }
  - { name: code, url: "{{ base }}/login/code", expect: { statuses: [302] }, capture: { code: query.code } }
  - { name: accounts, url: "{{ base }}/login/accounts", headers: { X-Code: "{{ captured.code }}" }, capture: { id: "json.accounts[1].id", first: json.accounts.0.id, big: json.big, none: json.none }, optional: none }
  - { name: text, url: "{{ base }}/login/text", capture: { nonce: "regex.body.nonce=(\\S+)\\.", all: body } }
  - { name: next, url: "{{ base }}/login/{{ captured.id }}/{{ captured.token }}", capture: { last: body } }
  - { name: skipped, url: "{{ base }}/login/skipped", when: "captured.none is defined", capture: { never: body } }
apply:
  headers:
    X-All: "{{ captured.session }} {{ captured.key }} {{ captured.sid }} {{ captured.code }} {{ captured.id }} {{ captured.first }} {{ captured.big }} {{ captured.nonce }} {{ captured.last }} {{ captured.never | default('no') }}""#;
    let gateway = gateway(&config(&site.server.url(), flow, ""));
    let reply = gateway.get("/r/api/x");
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(site.calls()[0].field("x-all"), Some("s-1 key-1 cookie-1 c/1 42 41 12345678901234567890 n-1 at /login/42/x%20&%20y no"));
    let asked = site.asked();
    assert_eq!(
        asked.iter().map(|seen| seen.target().to_owned()).collect::<Vec<_>>(),
        ["/login", "/login/code", "/login/accounts", "/login/text", "/login/42/x%20&%20y",]
    );
    // Cookies go from step to step, and not to the API.
    assert_eq!(asked[0].field("cookie"), None);
    assert_eq!((asked[1].field("cookie"), asked[2].field("x-code")), (Some("sid=cookie-1; other=x"), Some("c/1")));
    assert_eq!(site.calls()[0].field("cookie"), None);
    let expected = "<login><p>p&quot;a&amp;s&apos;&lt;w&gt;=o%r d]]&gt;{{ x }}</p></login>";
    assert_eq!(String::from_utf8_lossy(&asked[0].body), expected);
}

#[test]
fn a_graphql_login_is_json() {
    let site =
        Site::open(|_, number, stream| json_answer(stream, &json!({ "data": { "login": { "token": format!("session-{number}") } } })));
    let flow = r#"steps:
  - name: login
    method: POST
    url: "{{ base }}/login"
    json: { query: "mutation L($p: String!) { login(password: $p) { token } }", variables: { p: "{{ secrets.pass }}" } }
    capture: { token: json.data.login.token }
    expect: { when: "body.errors is undefined" }
apply: { headers: { Authorization: "Bearer {{ captured.token }}" } }"#;
    let gateway = gateway(&config(&site.server.url(), flow, ""));
    assert_eq!(gateway.get("/r/api/x").status, 200);
    let sent: Value = serde_json::from_slice(&site.asked()[0].body).unwrap();
    assert_eq!(sent["variables"], json!({ "p": PASSWORD }));
    assert_eq!(sent["query"], "mutation L($p: String!) { login(password: $p) { token } }");
}

#[test]
fn a_login_may_be_signed_by_an_expression() {
    let site = Site::open(|_, number, stream| token(stream, number));
    let flow = LOGIN
        .replace("json: {", "headers: { X-Signature: \"{{ ('POST /login ' ~ (now | epoch)) | hmac_sha256(secrets.pass) | hex }}\" }\n    json: { at: \"{{ now | epoch }}\",");
    let gateway = gateway(&config(&site.server.url(), &flow, ""));
    assert_eq!(gateway.get("/r/api/x").status, 200);
    let asked = &site.asked()[0];
    let at = serde_json::from_slice::<Value>(&asked.body).unwrap()["at"].as_u64().unwrap();
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, PASSWORD.as_bytes());
    let tag = aws_lc_rs::hmac::sign(&key, format!("POST /login {at}").as_bytes());
    let hex: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(asked.field("x-signature"), Some(hex.as_str()));
}

#[test]
fn a_renewal_begins_where_it_is_told_and_falls_back_to_all_steps_once() {
    let valid = Arc::new(AtomicU32::new(0));
    let (issue, check) = (valid.clone(), valid.clone());
    let refuse_refresh = Arc::new(AtomicBool::new(false));
    let refusing = refuse_refresh.clone();
    let site = Site::new(
        move |seen, number, stream| {
            if seen.target() == "/login/refresh" && refusing.load(Ordering::SeqCst) {
                return answer(stream, "401 Unauthorized", "", "");
            }
            issue.store(number, Ordering::SeqCst);
            json_answer(stream, &json!({ "token": format!("session-{number}"), "refresh": format!("refresh-{number}"), "tenant": "t" }))
        },
        move |seen, stream| {
            let good = seen.field("authorization") == Some(&format!("t session-{}", check.load(Ordering::SeqCst)));
            answer(stream, if good { "200 OK" } else { "401 Unauthorized" }, "", "")
        },
    );
    let flow = r#"steps:
  - { name: login, method: POST, url: "{{ base }}/login", json: { p: "{{ secrets.pass }}" }, capture: { token: json.token, refresh: json.refresh, tenant: json.tenant } }
  - { name: refresh, method: POST, url: "{{ base }}/login/refresh", form: { r: "{{ captured.refresh }}" }, capture: { token: json.token, refresh: json.refresh } }
refresh: { from: refresh }
apply: { headers: { Authorization: "{{ captured.tenant }} {{ captured.token }}" } }"#;
    let gateway = gateway(&config(&site.server.url(), flow, ""));
    let targets =
        || site.asked().iter().map(|seen| format!("{} {}", seen.target(), String::from_utf8_lossy(&seen.body))).collect::<Vec<_>>();
    assert_eq!(gateway.get("/r/api/x").status, 200);
    assert_eq!(targets()[1..], ["/login/refresh r=refresh-1"]);
    valid.store(99, Ordering::SeqCst);
    assert_eq!(gateway.get("/r/api/x").status, 200);
    assert_eq!(targets()[2..], ["/login/refresh r=refresh-2"]);
    // The refresh is refused: all steps run once, of which the second is refused again.
    refuse_refresh.store(true, Ordering::SeqCst);
    valid.store(99, Ordering::SeqCst);
    // Renewals for refusals keep some distance: until then the refusal is the upstream's own.
    let reply = eventually(|| Some(gateway.get("/r/api/x")).filter(|reply| reply.status != 401)).unwrap();
    assert_eq!((reply.status, reply.code().as_str()), (503, "issuer-unavailable"), "{}", reply.text());
    let login = format!("/login {}", json!({ "p": PASSWORD }));
    assert_eq!(targets()[3..], ["/login/refresh r=refresh-3".to_owned(), login, "/login/refresh r=refresh-5".to_owned()]);
}

#[test]
fn a_rotated_refresh_token_outlives_the_steps_that_fail_behind_it_and_a_restart() {
    // `lacking`: the renewal itself answers without its token; else the step behind it fails.
    for (lacking, restart) in [(false, false), (true, false), (false, true)] {
        let (failing, spent, valid) = (Arc::<AtomicBool>::default(), Arc::<AtomicU32>::default(), Arc::<AtomicU32>::default());
        let (fails, replayed, current) = (failing.clone(), spent.clone(), valid.clone());
        let site = Site::new(
            move |seen, number, stream| match seen.target() {
                // One code, one login.
                "/login" if number > 1 => answer(stream, "500 Oops", "", ""),
                "/login" => {
                    current.store(1, Ordering::SeqCst);
                    json_answer(stream, &json!({ "refresh": 1, "tenant": "t" }))
                }
                "/login/renew" => {
                    if seen.body != format!("r={}", current.load(Ordering::SeqCst)).into_bytes() {
                        replayed.fetch_add(1, Ordering::SeqCst);
                        return answer(stream, "401 Unauthorized", "", "");
                    }
                    let next = current.fetch_add(1, Ordering::SeqCst) + 1;
                    let lacks = lacking && fails.load(Ordering::SeqCst);
                    json_answer(stream, &if lacks { json!({ "refresh": next }) } else { json!({ "token": "k", "refresh": next }) })
                }
                _ if fails.load(Ordering::SeqCst) => answer(stream, "503 Service Unavailable", "", ""),
                _ => json_answer(stream, &json!({ "session": format!("s-{number}") })),
            },
            |seen, stream| {
                let good = seen.target() != "/dead";
                answer(stream, if good { "200 OK" } else { "401 Unauthorized" }, "", "")
            },
        );
        let flow = r#"steps:
  - { name: login, method: POST, url: "{{ base }}/login", json: { p: "{{ secrets.pass }}" }, capture: { refresh: json.refresh, tenant: json.tenant } }
  - { name: renew, method: POST, url: "{{ base }}/login/renew", form: { r: "{{ captured.refresh }}" }, capture: { token: json.token, refresh: json.refresh } }
  - { name: session, method: POST, url: "{{ base }}/login/session", form: { k: "{{ captured.token }}" }, capture: { session: json.session } }
refresh: { from: renew }
apply: { headers: { Authorization: "{{ captured.tenant }} {{ captured.session }}" } }"#;
        let mut gateway = gateway(&format!("{}store: {{ file: {{ path: ./data }} }}\n", config(&site.server.url(), flow, "")));
        assert_eq!(gateway.get("/r/api/x").status, 200);
        failing.store(true, Ordering::SeqCst);
        let reply = gateway.get("/r/api/dead");
        assert!([401, 503].contains(&reply.status), "{}", reply.text());
        // The renewal, what failed of it, and the login that is not to be had again.
        assert!(eventually(|| (valid.load(Ordering::SeqCst) == 3 && site.logins() >= 5).then_some(())).is_some());
        if restart {
            gateway.signal("KILL");
            gateway.wait();
            gateway.again();
        }
        failing.store(false, Ordering::SeqCst);
        let served = eventually(|| Some(gateway.get("/r/api/x")).filter(|reply| reply.status == 200));
        assert!(served.is_some(), "{lacking} {restart}");
        assert_eq!(spent.load(Ordering::SeqCst), 0, "a spent token was sent again ({lacking}, {restart})");
        assert!(site.calls().last().unwrap().field("authorization").unwrap().starts_with("t s-"));
    }
}

#[test]
fn what_was_captured_survives_a_restart_sealed() {
    let site = Site::open(|_, number, stream| token(stream, number));
    let config = format!("{}store: {{ file: {{ path: ./data }} }}\n", config(&site.server.url(), LOGIN, ""));
    let mut gateway = gateway(&config);
    assert_eq!(gateway.get("/r/api/x").status, 200);
    gateway.signal("KILL");
    gateway.wait();
    gateway.again();
    assert_eq!(gateway.get("/r/api/x").status, 200);
    assert_eq!(site.logins(), 1);
    assert_eq!(site.calls().iter().map(|seen| seen.field("authorization").unwrap().to_owned()).collect::<BTreeSet<_>>().len(), 1);
    for file in std::fs::read_dir(gateway.folder.path().join("data")).unwrap().flatten() {
        let bytes = std::fs::read(file.path()).unwrap();
        assert!(crate::support::find(&bytes, b"session-1").is_none(), "{:?} holds the session as it is", file.path());
    }
}

#[test]
fn a_login_that_is_turned_down_is_tried_three_times_and_then_left_alone() {
    let expecting = "    expect: { when: \"body.ok\" }\n";
    for (status, when) in [
        ("401 Unauthorized", ""),
        ("403 Forbidden", ""),
        ("400 Bad Request", ""),
        ("422 Unprocessable Content", ""),
        ("423 Locked", ""),
        ("200 OK", expecting),
        ("200 OK", "    # a success without its token\n"),
    ] {
        let site = Site::open(move |_, _, stream| answer(stream, status, "Content-Type: application/json\r\n", "{\"ok\":false}"));
        let flow = LOGIN.replace("    capture:", &format!("{when}    capture:"));
        let gateway = gateway(&config(&site.server.url(), &flow, ""));
        let words = match when {
            "" => "is no success",
            _ if when == expecting => "does not hold",
            _ => "holds nothing for `capture.token`",
        };
        trouble(&gateway, 503, "issuer-unavailable", &["Step `login` got", "12 bytes of application/json", words]);
        let refused = eventually(|| Some(gateway.get("/r/api/x")).filter(|reply| reply.status == 502));
        assert_eq!(refused.unwrap().code(), "credential-refused");
        assert_eq!(site.logins(), 3, "{status}");
        trouble(&gateway, 502, "credential-refused", &["Step `login`", "until a reload"]);
        assert_eq!((site.logins(), site.calls().len()), (3, 0));
    }
}

#[test]
fn an_answer_that_is_no_good_is_told_with_its_step_and_sends_nothing_upstream() {
    const HTML: &str = "Content-Type: text/html\r\n";
    const JSON: &str = "Content-Type: application/json\r\n";
    let large = "x".repeat(1 << 20);
    let answers: [(&str, &str, String, &str); 8] = [
        ("200 OK", HTML, "<html>secret-page</html>".into(), "200 with 24 bytes of text/html, which holds nothing for `capture.token`"),
        ("204 No Content", "", String::new(), "204 with nothing in it, which holds nothing for `capture.token`"),
        ("200 OK", JSON, large, "too large"),
        (
            "302 Found",
            "Location: https://elsewhere.example/x?y\r\n",
            String::new(),
            "a redirect to https://elsewhere.example, which is not followed",
        ),
        ("200 OK", JSON, r#"{"token":{"value":"x"}}"#.into(), "holds more than one value for `capture.token`"),
        ("200 OK", JSON, r#"{"token":""}"#.into(), "holds nothing for `capture.token`"),
        ("200 OK", JSON, r#"{"token":"a\nX-Evil: 1"}"#.into(), "`apply.headers.authorization` is no legal one"),
        ("500 Oops", JSON, r#"{"token":"x"}"#.into(), "500 with 13 bytes of application/json, which is no success"),
    ];
    for (status, fields, body, words) in answers {
        let site = Site::open(move |_, _, stream| answer(stream, status, fields, &body));
        let gateway = gateway(&config(&site.server.url(), LOGIN, ""));
        let step = if words.contains("apply") { "The login" } else { "Step `login`" };
        let reply = trouble(&gateway, 503, "issuer-unavailable", &[step, words]);
        assert!(!reply.text().contains("secret-page") && !gateway.stderr().contains("secret-page"));
        assert_eq!((site.logins(), site.calls().len()), (1, 0), "{words}");
    }
}

#[test]
fn a_server_that_never_answers_is_given_up_and_left_alone() {
    let site = Site::open(|_, _, _| {
        std::thread::sleep(Duration::from_secs(4));
        false
    });
    let gateway = gateway(&config(&site.server.url(), LOGIN, ""));
    let reply = trouble(&gateway, 503, "issuer-unavailable", &["Step `login`", "did not answer in time"]);
    assert!(reply.field("retry-after").is_some());
    assert_eq!(site.calls().len(), 0);
}

#[test]
fn how_long_it_lasts_is_read_in_every_form_and_nonsense_is_an_error() {
    let flow = |lasts: &str| {
        LOGIN.replace("capture: { token: json.token }", "capture: { token: json.token, end: json.end }") + &format!("\nlasts: {lasts}")
    };
    for (lasts, end, good) in [
        ("{ in: \"{{ captured.end }}\" }", json!(3600), true),
        ("{ in: \"{{ captured.end }}\" }", json!("3600"), true),
        ("{ in: \"{{ captured.end }}\" }", json!(0), true),
        ("{ at: \"{{ captured.end }}\" }", json!("2999-01-01T00:00:00"), true),
        ("{ in: \"{{ captured.end }}\" }", json!("soon"), false),
        ("{ at: \"{{ captured.end }}\" }", json!("tomorrow"), false),
    ] {
        let reply = end.clone();
        let site = Site::open(move |_, _, stream| json_answer(stream, &json!({ "token": "t", "end": reply })));
        let gateway = gateway(&config(&site.server.url(), &flow(lasts), ""));
        if good {
            assert_eq!(gateway.get("/r/api/x").status, 200, "{lasts} {end}");
        } else {
            trouble(&gateway, 503, "issuer-unavailable", &["The login", "`lasts."]);
            assert_eq!((site.logins(), site.calls().len()), (1, 0));
        }
    }
}

#[test]
fn a_session_is_renewed_while_it_is_served_and_never_sent_dead() {
    let born: Arc<std::sync::Mutex<std::collections::HashMap<String, Instant>>> = Arc::default();
    let births = born.clone();
    let dead = Arc::<AtomicU32>::default();
    let seen_dead = dead.clone();
    let site = Site::new(
        move |_, number, stream| {
            births.lock().unwrap().insert(format!("Session session-{number}"), Instant::now());
            json_answer(stream, &json!({ "token": format!("session-{number}"), "end": 2 }))
        },
        move |seen, stream| {
            let shown = seen.field("authorization").unwrap_or_default().to_owned();
            // Well over its life, so that no pause of the machine is taken for a mistake.
            if born.lock().unwrap().get(&shown).is_none_or(|b| b.elapsed() > Duration::from_millis(2900)) {
                seen_dead.fetch_add(1, Ordering::SeqCst);
            }
            answer(stream, "200 OK", "", "")
        },
    );
    let flow = LOGIN.replace("capture: { token: json.token }", "capture: { token: json.token, end: json.end }")
        + "\nlasts: { in: \"{{ captured.end }}\" }";
    let gateway = gateway(&config(&site.server.url(), &flow, ""));
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(5) {
        assert_eq!(gateway.get("/r/api/x").status, 200);
    }
    assert_eq!(dead.load(Ordering::SeqCst), 0, "a dead session reached the upstream");
    assert!((3..=12).contains(&site.logins()), "{}", site.logins());
}

#[test]
fn a_jwt_that_is_presented_says_itself_when_it_ends() {
    let site = Site::open(|_, _, stream| {
        let claims = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(r#"{"exp":32503680000}"#);
        json_answer(stream, &json!({ "token": format!("e30.{claims}.c2ln") }))
    });
    let text = format!("{}admin: {{ listen: \"127.0.0.1:{{port}}\" }}\n", config(&site.server.url(), LOGIN, ""));
    let admin = crate::support::free_port();
    let gateway = gateway(&text.replace("{port}", &admin.to_string()));
    assert_eq!(gateway.get("/r/api/x").status, 200);
    let shown = crate::support::exchange(
        TcpStream::connect(("127.0.0.1", admin)).unwrap(),
        b"GET /api/tokens HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    );
    let tokens = Reply::parse(&shown).json();
    assert_eq!(tokens["tokens"][0]["scheme"], "flow");
    assert_eq!(tokens["tokens"][0]["state"], "fresh");
    assert!(tokens["tokens"][0]["expires"].as_str().is_some_and(|end| end.starts_with("3000-01-01")), "{tokens}");
}

#[test]
fn a_refusal_inside_a_success_is_one_and_the_body_goes_on_as_it_came() {
    let valid = Arc::new(AtomicU32::new(1));
    let current = valid.clone();
    let site = Site::new(
        |_, number, stream| token(stream, number),
        move |seen, stream| {
            assert_eq!(seen.field("accept-encoding"), Some("identity"));
            let good = seen.field("authorization") == Some(&format!("Session session-{}", current.load(Ordering::SeqCst)));
            let body = if good { json!({ "data": "x".repeat(5000) }) } else { json!({ "error": "expired" }) };
            json_answer(stream, &body)
        },
    );
    let flow = format!("{LOGIN}\nrefused: {{ statuses: [401], when: \"body.error is defined and body.error == 'expired'\" }}");
    let gateway = gateway(&config(&site.server.url(), &flow, ""));
    for expected in [1, 2] {
        valid.store(expected, Ordering::SeqCst);
        let reply = gateway.send("GET", "/r/api/x", "Accept-Encoding: gzip\r\n", b"");
        assert_eq!((reply.status, reply.json()), (200, json!({ "data": "x".repeat(5000) })));
        assert_eq!(site.logins(), expected);
    }
}

#[test]
fn an_answer_that_does_not_end_is_not_held_back_for_a_condition() {
    let (over, ended) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
    let (stop, told) = (over.clone(), ended.clone());
    let site = Site::new(
        |_, number, stream| token(stream, number),
        move |_, stream| {
            let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
            stream.write_all(format!("{head}8\r\n{{\"n\": 1}}\r\n").as_bytes()).unwrap();
            let stopped = eventually(|| stop.load(Ordering::SeqCst).then_some(()));
            told.store(stopped.is_none(), Ordering::SeqCst);
            stream.write_all(b"8\r\n{\"n\": 2}\r\n0\r\n\r\n").is_ok()
        },
    );
    let flow = format!("{LOGIN}\nrefused: {{ when: \"body.error is defined\" }}");
    let gateway = gateway(&config(&site.server.url(), &flow, ""));
    let mut stream = TcpStream::connect(("127.0.0.1", gateway.port)).unwrap();
    stream.set_read_timeout(Some(crate::support::PATIENCE)).unwrap();
    stream.write_all(b"GET /r/api/watch HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let (mut seen, mut piece) = (Vec::new(), [0; 4096]);
    while crate::support::find(&seen, b"{\"n\": 1}").is_none() {
        let read = stream.read(&mut piece).expect("the first piece was held back");
        assert!(read > 0, "{}", String::from_utf8_lossy(&seen));
        seen.extend_from_slice(&piece[..read]);
    }
    assert!(!ended.load(Ordering::SeqCst) && crate::support::find(&seen, b"{\"n\": 2}").is_none(), "it came with its end");
    over.store(true, Ordering::SeqCst);
    stream.read_to_end(&mut seen).unwrap();
    assert!(crate::support::find(&seen, b"{\"n\": 2}").is_some(), "the rest is missing");
}

#[test]
fn a_host_that_a_capture_made_is_under_hosts_and_the_guard() {
    let (other, inner) = (Upstream::ok(), Upstream::ok());
    let places = [format!("{}/next", other.url()), format!("{}/next", inner.url())];
    let (allowed, named) = (other.port, inner.port);
    let flow = r#"steps:
  - { name: find, url: "{{ base }}/login", capture: { next: json.next } }
  - { name: follow, url: "{{ captured.next }}", capture: { ok: json.ok } }
apply: { headers: { X-Ok: "{{ captured.ok }}" } }"#;
    for (place, more, status, words) in [
        (places[0].clone(), format!("hosts: [\"127.0.0.1:{allowed}\"]\nallow_private: true"), 200, ""),
        (places[0].clone(), format!("hosts: [\"127.0.0.1:{allowed}\"]"), 502, "not public"),
        (
            places[1].clone(),
            format!("hosts: [\"127.0.0.1:{allowed}\"]\nallow_private: true"),
            502,
            "step `follow` was not sent, as `hosts`",
        ),
        (format!("http://user@127.0.0.1:{named}/"), format!("hosts: [\"127.0.0.1:{named}\"]\nallow_private: true"), 502, "it is no URL"),
        ("/relative".into(), format!("hosts: [\"127.0.0.1:{named}\"]\nallow_private: true"), 503, "Step `follow` could not be sent"),
    ] {
        let to = place.clone();
        let site = Site::open(move |_, _, stream| json_answer(stream, &json!({ "next": to })));
        let gateway = gateway(&config(&site.server.url(), flow, &more));
        let reply = gateway.get("/r/api/x");
        assert_eq!(reply.status, status, "{place} {}", reply.text());
        if status != 200 {
            assert_eq!(reply.code(), if status == 502 { "upstream-unreachable" } else { "issuer-unavailable" });
            assert!(reply.json()["detail"].as_str().unwrap().contains(words), "{words}: {}", reply.text());
            assert!(site.calls().is_empty());
        }
    }
    assert_eq!((other.seen().len(), inner.connections()), (1, 0), "a host outside `hosts` was dialled");
}

#[test]
fn calls_go_where_the_login_has_said() {
    let api = Upstream::ok();
    let (port, url) = (api.port, api.url());
    let places = [format!("{url}/v2/"), url.clone(), "http://127.0.0.1:1".into(), "nonsense".into()];
    for (at, place) in places.into_iter().enumerate() {
        let to = place.clone();
        let site = Site::open(move |_, number, stream| json_answer(stream, &json!({ "token": format!("s-{number}"), "url": to })));
        let flow = LOGIN
            .replace("capture: { token: json.token }", "capture: { token: json.token, url: json.url }")
            .replace("apply: {", "apply: { base_url: \"{{ captured.url }}\",");
        let more = format!("hosts: [\"127.0.0.1:{port}\"]\nallow_private: true\nheaders: {{ X-Base: \"{{{{ base }}}}\" }}");
        let gateway = gateway(&config(&format!("{}/base", site.server.url()), &flow, &more));
        let reply = gateway.get("/r/api/x?q=1");
        if at < 2 {
            assert_eq!(reply.status, 200, "{}", reply.text());
            let seen = api.last();
            assert_eq!(seen.target(), ["/v2/x?q=1", "/x?q=1"][at]);
            assert_eq!(seen.field("host"), Some(format!("127.0.0.1:{port}").as_str()));
            assert_eq!((seen.field("authorization"), seen.field("x-base")), (Some("Session s-1"), Some(place.trim_end_matches('/'))));
        } else {
            assert_eq!((reply.status, reply.code().as_str()), (502, "upstream-unreachable"), "{place}: {}", reply.text());
        }
        // The login went to the base that is written, and nothing else did.
        assert_eq!(site.server.seen().iter().map(|seen| seen.target().to_owned()).collect::<Vec<_>>(), ["/base/login"]);
    }
}

#[test]
fn a_grant_can_be_a_step_and_the_later_ones_run_again_when_it_renews() {
    let issuer = Issuer::answering(|_, number, stream| json_answer(stream, &minted(number, if number == 1 { 3 } else { 3600 })));
    let site = Site::open(|seen, number, stream| {
        let shown = seen.field("authorization").unwrap_or_default().to_owned();
        json_answer(stream, &json!({ "session": format!("{number}-for-{}", shown.strip_prefix("Bearer ").unwrap_or("nobody")) }))
    });
    let flow = format!(
        r#"steps:
  - name: grant
    auth: {{ oauth2_client_credentials: {{ token_url: "{}", client_id: id, client_secret: "${{env:CLIENT_SECRET}}" }} }}
  - name: exchange
    method: POST
    url: "{{{{ base }}}}/login"
    headers: {{ Authorization: "Bearer {{{{ captured.grant.access_token }}}}" }}
    capture: {{ session: json.session }}
apply: {{ headers: {{ X-Session: "{{{{ captured.session }}}}" }} }}"#,
        issuer.url()
    );
    let gateway = gateway(&config(&site.server.url(), &flow, ""));
    assert_eq!(gateway.get("/r/api/x").status, 200);
    assert_eq!(site.calls()[0].field("x-session"), Some("1-for-token-1"));
    // The grant's token ends after three seconds; the session says nothing of an end.
    let renewed = eventually(|| {
        assert_eq!(gateway.get("/r/api/x").status, 200);
        site.calls().last().and_then(|seen| seen.field("x-session").map(str::to_owned)).filter(|session| session == "2-for-token-2")
    });
    assert!(renewed.is_some(), "the later steps did not run again");
    for _ in 0..10 {
        assert_eq!(gateway.get("/r/api/x").status, 200);
    }
    assert_eq!((issuer.requests(), site.logins()), (2, 2));
}

#[test]
fn a_step_that_finds_the_grants_token_voided_has_it_renewed_once() {
    let issuer = Issuer::minting(3600);
    let site = Site::open(|seen, number, stream| {
        if seen.field("authorization") == Some("Bearer token-1") {
            return answer(stream, "401 Unauthorized", "", "");
        }
        json_answer(stream, &json!({ "session": format!("s-{number}") }))
    });
    let flow = format!(
        "steps:\n  - {{ name: grant, auth: {{ oauth2_client_credentials: {{ token_url: \"{}\", client_id: id, client_secret: \"${{env:CLIENT_SECRET}}\" }} }} }}\n  - {{ name: exchange, url: \"{{{{ base }}}}/login\", headers: {{ Authorization: \"Bearer {{{{ captured.grant.access_token }}}}\" }}, capture: {{ session: json.session }} }}\napply: {{ headers: {{ X-Session: \"{{{{ captured.session }}}}\" }} }}",
        issuer.url()
    );
    let gateway = gateway(&config(&site.server.url(), &flow, ""));
    assert_eq!(gateway.get("/r/api/x").status, 200);
    assert_eq!((issuer.requests(), site.logins()), (2, 2));
    assert_eq!(site.calls()[0].field("x-session"), Some("s-2"));
}

#[test]
fn the_resources_own_expressions_read_what_a_flow_captures() {
    let site = Site::open(|_, number, stream| token(stream, number));
    let gateway = gateway(
        &config(&site.server.url(), LOGIN, "headers: { X-User: \"{{ captured.id }}\" }")
            .replace("token: json.token }", "token: json.token, id: json.user.id }"),
    );
    assert_eq!(gateway.get("/r/api/x").status, 200);
    assert_eq!(site.calls()[0].field("x-user"), Some("7"));
}

#[test]
fn explain_shows_where_the_results_would_go_and_logs_in_nowhere() {
    let site = Site::open(|_, number, stream| token(stream, number));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("postern.yaml");
    std::fs::write(&file, config(&site.server.url(), LOGIN, "")).unwrap();
    let output = postern().args(["explain", "GET", "/r/api/x", "--config"]).arg(&file).env("PASS", PASSWORD).output().unwrap();
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success() && shown.to_lowercase().contains("authorization: [to be fetched]"),
        "{shown} {}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(site.server.seen().is_empty());
}

#[test]
fn a_leader_who_hangs_up_does_not_end_the_login() {
    let site = Site::open(|_, number, stream| {
        std::thread::sleep(Duration::from_millis(300));
        token(stream, number)
    });
    let gateway = gateway(&config(&site.server.url(), LOGIN, ""));
    let mut leader = TcpStream::connect(("127.0.0.1", gateway.port)).unwrap();
    leader.write_all(b"GET /r/api/leader HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    assert!(eventually(|| (site.logins() > 0).then_some(())).is_some());
    drop(leader);
    assert_eq!(gateway.get("/r/api/follower").status, 200);
    assert_eq!(site.logins(), 1);
}

#[test]
fn two_resources_with_one_login_share_it_and_another_password_is_another_login() {
    let site = Site::open(|_, number, stream| token(stream, number));
    let one = config(&site.server.url(), LOGIN, "");
    let body = one.strip_prefix("resources:\n  api:\n").unwrap();
    let other = body.replace("${env:PASS}", "${env:CLIENT_SECRET}");
    let gateway = gateway(&format!("resources:\n  api:\n{body}  same:\n{body}  other:\n{other}"));
    for name in ["api", "same", "other"] {
        assert_eq!(gateway.get(&format!("/r/{name}/x")).status, 200);
    }
    assert_eq!(site.logins(), 2);
}

#[test]
fn each_caller_whose_values_a_login_reads_has_a_login_of_its_own() {
    let site = Site::open(|_, number, stream| token(stream, number));
    let flow = LOGIN.replace("json: {", "json: { as: \"{{ client.ip }}\",");
    let text = config(&site.server.url(), &flow, "")
        + "server: { listen: [\"127.0.0.1:{port}\", \"[::1]:{port}\"], name: under-test, workers: 2 }\n";
    let gateway = gateway(&text);
    let ask = |address: &str| {
        let stream = TcpStream::connect(format!("{address}:{}", gateway.port)).unwrap();
        let request = format!("GET /r/api/x HTTP/1.1\r\nHost: localhost:{}\r\nConnection: close\r\n\r\n", gateway.port);
        Reply::parse(&crate::support::exchange(stream, request.as_bytes())).status
    };
    for address in ["127.0.0.1", "[::1]", "127.0.0.1", "[::1]"] {
        assert_eq!(ask(address), 200);
    }
    let shown: Vec<String> = site.calls().iter().map(|seen| seen.field("authorization").unwrap().to_owned()).collect();
    assert_eq!(shown, ["Session session-1", "Session session-2", "Session session-1", "Session session-2"]);
    let asked: Vec<Value> = site.asked().iter().map(|seen| serde_json::from_slice::<Value>(&seen.body).unwrap()["as"].clone()).collect();
    assert_eq!(asked, [json!("127.0.0.1"), json!("::1")]);
}

#[test]
fn mistakes_in_a_flow_are_told_with_their_place_and_their_cure() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("postern.yaml");
    for (flow, words, hint) in [
        ("steps: []", "1 to 16 steps", "name: login"),
        ("steps: [ { url: \"{{ base }}/l\" } ]", "`name` is missing", ""),
        ("steps: [ { name: a, url: /login } ]", "a relative URL leads nowhere", "{{ base }}/login"),
        ("steps: [ { name: a, url: \"{{ base }}login\" } ]", "a path begins with `/`", "{{ base }}/login"),
        ("steps: [ { name: a, url: \"{{ vars.x }}/login\" } ]", "the resource has no `hosts`", "*.example.com"),
        ("steps: [ { name: a, url: \"http://far.example/l\" } ]", "plain http", ""),
        ("steps: [ { name: a, url: \"{{ base }}/l\", json: {} } ]", "a GET has no body", "method: POST"),
        ("steps: [ { name: a, url: \"{{ base }}/l\", capture: { t: jsn.x } } ]", "a path is", "json.data.token"),
        ("steps: [ { name: a, url: \"{{ base }}/l\", capture: { a-b: json.x } } ]", "cannot be named", "letters"),
        (
            "steps: [ { name: a, url: \"{{ base }}/l\", capture: { tok: json.x } } ]\napply: { headers: { X: \"{{ captured.tokn }}\" } }",
            "no step captures `tokn`",
            "did you mean `tok`",
        ),
        ("steps: [ { name: a, url: \"{{ base }}/l\", optional: x } ]", "`x` is optional", "capture"),
        ("steps: [ { name: a, url: \"{{ base }}/{{ request.path }}\" } ]", "does not exist at this place", ""),
        ("steps: [ { name: a, url: \"{{ base }}/l\" }, { name: a, url: \"{{ base }}/l\" } ]", "two steps are called `a`", "its own name"),
        ("steps: [ { name: a, url: \"{{ base }}/l\" } ]\nrefresh: { from: b }", "there is no step `b`", ""),
        ("steps: [ { name: a, url: \"{{ base }}/l\" } ]\nlasts: { in: soon }", "`lasts.in` cannot be read", "captured.expires_in"),
        ("steps: [ { name: a, url: \"{{ base }}/l\" } ]\nrefusd: {}", "unknown key `refusd`", "`refused`"),
        ("steps: [ { name: a, auth: { bearer: \"${env:PASS}\" } } ]", "has no token that a step could hand on", "oauth2_"),
        (
            "steps: [ { name: a, method: POST, url: \"{{ base }}/l\", body: \"{\\\"p\\\":\\\"{{ secrets.pass }}\\\"}\", content_type: application/json } ]",
            "pasted",
            "`json`",
        ),
        (
            "steps: [ { name: a, method: POST, url: \"{{ base }}/l\", xml: \"<p>${env:PASS}</p>\" } ]",
            "would not be escaped",
            "{{ secrets.name }}",
        ),
    ] {
        std::fs::write(&file, config("http://localhost:1", flow, "")).unwrap();
        let output = postern().args(["check", "--config"]).arg(&file).env("PASS", PASSWORD).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(3), "{flow}: {said}");
        assert!(said.contains(words) && said.contains(hint), "{flow}: {said}");
        assert!(!said.contains("s'<w>"), "{said}");
    }
}

/// An example file, led to a site of the test's own.
fn example(name: &str, site: &Upstream) -> Gateway {
    let text = std::fs::read_to_string(crate::support::root().join("config/examples").join(name)).unwrap();
    let key = "07".repeat(32);
    let variables =
        [("API_PASSWORD", PASSWORD), ("API_USER", "me&you"), ("CLIENT_SECRET", "s3cret-of-the-client"), ("MASTER_KEY", key.as_str())];
    // Its first line is the editor's.
    let text = text.split_once('\n').unwrap().1.replace("https://api.example.com", &site.url());
    Gateway::start_with(&text, &variables)
}

#[test]
fn every_example_of_a_flow_does_what_it_says() {
    const XML: &str = "Content-Type: text/xml\r\n";
    let site = Upstream::answering(|seen, stream| match (seen.line().split(' ').next().unwrap(), seen.target()) {
        ("POST", "/login") if seen.field("content-type") == Some("application/xml") => {
            answer(stream, "200 OK", XML, "<response><session region=\"eu&amp;1\"><id>a&lt;b</id></session></response>")
        }
        ("POST", "/login") if seen.field("content-type") == Some("application/json") => {
            json_answer(stream, &json!({ "ok": true, "code": "c&1", "accounts": [{ "id": 42 }], "refresh_token": "r-1" }))
        }
        ("POST", "/login") => answer(stream, "302 Found", "Location: /\r\nX-Key: k-1\r\nSet-Cookie: JSESSIONID=j-1; Path=/\r\n", ""),
        ("POST", "/accounts/42/token") => json_answer(stream, &json!({ "token": "t-1", "expires_in": "600" })),
        ("POST", "/token") => json_answer(stream, &json!({ "token": "t-2" })),
        ("POST", "/graphql") => json_answer(stream, &json!({ "data": { "login": { "token": "g-1" } } })),
        ("POST", "/oauth/token") => json_answer(stream, &minted(1, 3600)),
        ("POST", "/session") => json_answer(stream, &json!({ "session": "s-1", "tenant": { "id": 7 } })),
        _ => json_answer(stream, &json!({ "ok": true })),
    });
    for (name, path, fields) in [
        ("flow-two-calls.yaml", "/x?account=42", vec![("authorization", "Session t-1")]),
        ("flow-refresh.yaml", "/x", vec![("x-session", "t-2")]),
        ("flow-cookie.yaml", "/x", vec![("cookie", "SESSION=j-1"), ("x-key", "k-1")]),
        ("flow-graphql.yaml", "/x", vec![("authorization", "Bearer g-1")]),
        ("flow-grant.yaml", "/x", vec![("x-session", "s-1"), ("x-tenant", "7")]),
    ] {
        let gateway = example(name, &site);
        let reply = gateway.get("/r/api/x");
        assert_eq!(reply.status, 200, "{name}: {}", reply.text());
        let seen = site.last();
        assert_eq!(seen.target(), path, "{name}");
        fields.iter().for_each(|(field, value)| assert_eq!(seen.field(field), Some(*value), "{name}"));
    }
    let gateway = example("flow-xml.yaml", &site);
    let body = b"<request><control><a/></control></request>";
    assert_eq!(gateway.send("POST", "/r/api/x", XML, body).status, 200);
    let seen = site.last();
    assert_eq!(String::from_utf8_lossy(&seen.body), "<request><control><session>a&lt;b</session><a/></control></request>");
    assert_eq!(seen.field("x-region"), Some("eu&1"));
    let login = site.seen().into_iter().rfind(|seen| seen.field("content-type") == Some("application/xml")).unwrap();
    assert!(String::from_utf8_lossy(&login.body).contains("<password>p&quot;a&amp;s&apos;&lt;w&gt;=o%r d]]&gt;{{ x }}</password>"));
}

#[test]
fn credentials_go_into_bodies_as_the_example_says() {
    let site = Upstream::ok();
    let gateway = example("body-credentials.yaml", &site);
    let send = |resource: &str, kind: &str, body: &str| {
        let reply = gateway.send("POST", &format!("/r/{resource}/x"), &format!("Content-Type: {kind}\r\n"), body.as_bytes());
        assert_eq!(reply.status, 200, "{}", reply.text());
        String::from_utf8(site.last().body).unwrap()
    };
    let nested: Value =
        serde_json::from_str(&send("nested", "application/json", r#"{"n": 1.0e2, "auth": {"user": "evil", "x": 1}}"#)).unwrap();
    assert_eq!(nested["auth"], json!({ "user": "me", "x": 1, "password": PASSWORD }));
    let form = send("form", "application/x-www-form-urlencoded", "a=1&requestJobDescription=%7B%22type%22%3A%22file%22%7D");
    let fields = decoded(&form);
    assert_eq!((fields.len(), fields[0].clone()), (2, ("a".into(), "1".into())));
    let inner: Value = serde_json::from_str(&fields[1].1).unwrap();
    assert_eq!(inner, json!({ "type": "file", "credentials": { "partnerUserID": "me&you", "partnerUserSecret": PASSWORD } }));
    let xml = send("xml", "application/xml", "<request><control/></request>");
    assert_eq!(
        xml,
        "<request><control><sender><id>me</id><password>p&quot;a&amp;s&apos;&lt;w&gt;=o%r d]]&gt;{{ x }}</password></sender></control></request>"
    );
}
