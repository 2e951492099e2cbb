//! Expressions on the wire: what they make of headers, parameters, cookies, URLs and credentials, whatever values hold.

use crate::support::{Gateway, Upstream};

/// What would be structure somewhere.
const HOSTILE: &str = "p\"a's{s}&<w>=?#/ {{ vars.x }} ${env:HOME} ]]> %41 \\ ü";

fn gateway(upstream: &Upstream, more: &str) -> Gateway {
    let config =
        format!("vars: {{ tenant: acme, none: ~, tags: [a, b] }}\nresources:\n  up:\n    base_url: {}/base\n{more}", upstream.url());
    Gateway::start_with(&config, &[("SECRET", HOSTILE), ("KEY", "0123456789abcdef")])
}

#[test]
fn headers_params_and_cookies_are_computed_when_the_configuration_is_loaded() {
    let upstream = Upstream::ok();
    let more = "    vars: { n: 5 }\n    secrets: { key: \"${env:KEY}\" }\n    headers:\n      X-Tenant: \"{{ vars.tenant | upper }}-{{ vars.n }}\"\n      \
                X-None: { value: \"{{ vars.none }}\", omit_if_unset: true }\n      X-Mixed: \"{{ vars.tenant }}:${var:n}\"\n      \
                X-Signed: \"{{ 'm' | hmac_sha256(secrets.key) | hex }}\"\n    params: { tag: \"{{ vars.tags }}\", q: \"{{ 'a b&c' }}\", r: \"{{ 'a b' | urlencode }}\" }\n    \
                cookies: { c: \"{{ vars.tenant }}\" }\n";
    let gateway = gateway(&upstream, more);
    let reply = gateway.get("/r/up/a");
    assert_eq!(reply.status, 200, "{} {}", reply.text(), gateway.stderr());
    let seen = upstream.last();
    assert_eq!(seen.target(), "/base/a?tag=a&tag=b&q=a%20b%26c&r=a%20b");
    assert_eq!((seen.field("x-tenant"), seen.field("x-none"), seen.field("x-mixed")), (Some("ACME-5"), None, Some("acme:5")));
    assert_eq!(seen.field("cookie"), Some("c=acme"));
    assert_eq!(seen.field("x-signed").map(str::len), Some(64));
}

#[test]
fn what_reads_secrets_is_owned() {
    let upstream = Upstream::ok();
    let more = "    secrets: { key: \"${env:KEY}\" }\n    headers: { X-Key: \"{{ secrets.key }}\", X-Free: \"{{ vars.tenant }}\" }\n    params: { k: \"{{ secrets.key }}\" }\n";
    let gateway = gateway(&upstream, more);
    gateway.send("GET", "/r/up/a?k=mine&x=1", "X-Key: mine\r\nX_Key: mine\r\nX-Free: mine\r\n", b"");
    let seen = upstream.last();
    assert_eq!((seen.fields("x-key"), seen.field("x_key"), seen.field("x-free")), (vec!["0123456789abcdef"], None, Some("mine")));
    assert_eq!(seen.target(), "/base/a?x=1&k=0123456789abcdef");
}

#[test]
fn no_value_becomes_structure() {
    let upstream = Upstream::ok();
    let more = "    secrets: { s: \"${env:SECRET}\" }\n    headers: { X-S: \"{{ secrets.s }}\", X-Both: \"{{ vars.tenant }} ${env:SECRET}\" }\n    \
                params: { s: \"{{ secrets.s }}\" }\n    auth: { basic: { username: \"{{ vars.tenant }}\", password: \"{{ secrets.s }}\" } }\n";
    let gateway = gateway(&upstream, more);
    let reply = gateway.get("/r/up/a");
    assert_eq!(reply.status, 200, "{} {}", reply.text(), gateway.stderr());
    let seen = upstream.last();
    let raw: String = HOSTILE.bytes().map(char::from).collect();
    let bytes = |text: &str| text.bytes().collect::<Vec<_>>();
    let value = seen.field("x-s").unwrap();
    assert!(bytes(value) == bytes(HOSTILE) || value == raw, "{value}");
    assert!(seen.field("x-both").unwrap().starts_with("acme p\"a's{s}"));
    assert_eq!(
        seen.target(),
        "/base/a?s=p%22a%27s%7Bs%7D%26%3Cw%3E%3D%3F%23%2F%20%7B%7B%20vars.x%20%7D%7D%20%24%7Benv%3AHOME%7D%20%5D%5D%3E%20%2541%20%5C%20%C3%BC"
    );
    let basic = seen.field("authorization").unwrap().strip_prefix("Basic ").unwrap().to_owned();
    use base64::Engine as _;
    let decoded = base64::engine::general_purpose::STANDARD.decode(basic).unwrap();
    assert_eq!(String::from_utf8(decoded).unwrap(), format!("acme:{HOSTILE}"));
    assert!(!gateway.stderr().contains("p\"a's"));
}

#[test]
fn credentials_are_computed_from_named_secrets() {
    let upstream = Upstream::ok();
    for (auth, field, value) in [
        ("bearer: \"{{ secrets.key }}\"", "authorization", "Bearer 0123456789abcdef"),
        ("bearer: { token: \"{{ secrets.key[:4] }}\", scheme: Token }", "authorization", "Token 0123"),
        ("api_key: { in: header, name: X-Key, value: \"{{ vars.tenant ~ '/' ~ secrets.key }}\" }", "x-key", "acme/0123456789abcdef"),
        ("basic: { username: \"{{ secrets.key }}\" }", "authorization", "Basic MDEyMzQ1Njc4OWFiY2RlZjo="),
    ] {
        let gateway = gateway(&upstream, &format!("    secrets: {{ key: \"${{env:KEY}}\" }}\n    auth: {{ {auth} }}\n"));
        assert_eq!(gateway.get("/r/up/a").status, 200, "{}", gateway.stderr());
        assert_eq!(upstream.last().field(field), Some(value), "{auth}");
    }
}

#[test]
fn a_base_url_is_made_of_what_people_paste() {
    let upstream = Upstream::ok();
    for pasted in ["127.0.0.1", "http://127.0.0.1", "http://127.0.0.1/"] {
        let config = format!(
            "resources:\n  up:\n    vars: {{ host: \"{pasted}\", path: \"/v 1/\" }}\n    base_url: \"http://{{{{ vars.host }}}}:{}/{{{{ vars.path }}}}\"\n    hosts: [\"127.0.0.1:{}\"]\n    allow_private: true\n    headers: {{ X-Base: \"{{{{ base }}}}\" }}\n",
            upstream.port, upstream.port
        );
        let gateway = Gateway::start(&config);
        assert_eq!(gateway.get("/r/up/a").status, 200, "{}", gateway.stderr());
        let seen = upstream.last();
        assert_eq!(seen.target(), "/v%201/a", "{pasted}");
        assert_eq!(seen.field("x-base").unwrap(), format!("http://127.0.0.1:{}/v%201", upstream.port));
    }
}

#[test]
fn what_the_request_gives_is_computed_for_each_request() {
    let upstream = Upstream::ok();
    let more = "    secrets: { key: \"${env:KEY}\" }\n    headers:\n      X-What: \"{{ request.method }} {{ request.path }} {{ request.query.q | default('-') }}\"\n      \
                X-Sum: \"{{ request.body_sha256 | hex }}\"\n      X-Sig: \"{{ (request.target ~ request.body) | hmac_sha256(secrets.key) | hex }}\"\n      \
                X-Opt: { value: \"{{ request.headers['x-in'] }}\", omit_if_unset: true }\n      X-Default: \"{{ client.name }}\"\n      User-Agent: \"up-{{ request.method | lower }}\"\n    \
                params: { p: \"{{ request.headers['x-in'] | default('a&b') }}\", list: [\"{{ request.method }}\", \"x y\"] }\n    cookies: { c: \"{{ request.method }}\" }\n";
    let gateway = gateway(&upstream, more);
    let reply = gateway.send("POST", "/r/up/a?q=1", "X-Default: mine\r\nX-Sig: mine\r\n", b"body");
    assert_eq!(reply.status, 200, "{} {}", reply.text(), gateway.stderr());
    let seen = upstream.last();
    assert_eq!(seen.target(), "/base/a?q=1&p=a%26b&list=POST&list=x%20y");
    assert_eq!(seen.field("x-what"), Some("POST /base/a 1"));
    assert_eq!(seen.field("x-sum"), Some("230d8358dc8e8890b4c58deeb62912ee2f20357ae92a5cc861b98e68fe31acb5"));
    let signed = aws_lc_rs::hmac::sign(
        &aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, b"0123456789abcdef"),
        b"/base/a?q=1&p=a%26b&list=POST&list=x%20ybody",
    );
    let hex: String = signed.as_ref().iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(seen.fields("x-sig"), [hex.as_str()], "what reads secrets is owned");
    assert_eq!((seen.field("x-opt"), seen.field("x-default")), (None, Some("mine")));
    assert_eq!((seen.field("user-agent"), seen.field("cookie")), (Some("up-post"), Some("c=POST")));
    assert_eq!(seen.body, b"body");
}

#[test]
fn one_time_and_one_uuid_serve_a_whole_attempt_and_the_next_has_its_own() {
    let upstream = Upstream::ok();
    let more = "    headers: { X-A: \"{{ uuid }} {{ now | epoch_ms }} {{ uuid7 }}\", X-B: \"{{ uuid }} {{ now | epoch_ms }} {{ uuid7 }}\" }\n    params: { n: \"{{ uuid }}\" }\n";
    let gateway = gateway(&upstream, more);
    gateway.get("/r/up/a");
    let first = upstream.last();
    gateway.get("/r/up/a");
    let second = upstream.last();
    assert_eq!(first.field("x-a"), first.field("x-b"));
    let uuid = first.field("x-a").unwrap().split(' ').next().unwrap();
    assert_eq!(first.target(), format!("/base/a?n={uuid}"));
    assert_eq!((uuid.len(), &uuid[14..15]), (36, "4"));
    assert_ne!(first.field("x-a"), second.field("x-a"));
}

#[test]
fn a_body_that_an_expression_reads_is_held_back_up_to_its_limit() {
    let upstream = Upstream::ok();
    let gateway = gateway(&upstream, "    limits: { buffer: 1KiB }\n    headers: { X-Sum: \"{{ request.body | length }}\" }\n");
    let body = vec![b'x'; 1024];
    let reply = gateway.send("POST", "/r/up/a", "", &body);
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!((upstream.last().field("x-sum"), upstream.last().body.len()), (Some("1024"), 1024));
    let chunked = b"POST /r/up/a HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n";
    assert!(gateway.raw(chunked).starts_with(b"HTTP/1.1 200"));
    assert_eq!((upstream.last().field("x-sum"), &*upstream.last().body), (Some("11"), &b"hello world"[..]));
    gateway.get("/r/up/a");
    assert_eq!(upstream.last().field("x-sum"), Some("0"));
    let before = upstream.seen().len();
    let reply = gateway.send("POST", "/r/up/a", "", &[b'x'; 1025]);
    assert_eq!((reply.status, reply.code().as_str()), (413, "body-too-large"));
    assert_eq!(upstream.seen().len(), before);
}

#[test]
fn what_a_request_cannot_give_is_its_own_fault_and_never_reaches_the_upstream() {
    let upstream = Upstream::ok();
    let more = "    headers: { X-In: \"{{ request.query.x }}\" }\n    cookies: { c: \"{{ request.query.c | default('ok') }}\" }\n";
    let gateway = gateway(&upstream, more);
    let reply = gateway.get("/r/up/a");
    assert_eq!((reply.status, reply.code().as_str()), (400, "bad-request"));
    assert!(reply.text().contains("`request.query.x` is undefined"), "{}", reply.text());
    for target in [
        "/r/up/a?x=a%0d%0aHost:%20evil",
        "/r/up/a?x=%20a",
        "/r/up/a?x=1&x=2",
        "/r/up/a?x=1&c=a;b",
        "/r/up/a?x=1&c=a%3b%20b=c",
        "/r/up/a?x=%01",
    ] {
        let reply = gateway.get(target);
        assert_eq!(reply.status, 400, "{target}: {}", reply.text());
    }
    assert!(upstream.seen().is_empty());
    assert_eq!(gateway.get("/r/up/a?x=1").status, 200);
}

#[test]
fn bodies_take_the_operators_values_and_keep_the_callers_tokens() {
    let upstream = Upstream::ok();
    let more = "    secrets: { s: \"${env:SECRET}\" }\n    headers: { X-Length: \"{{ request.body | length }}\" }\n    body:\n      json: { auth: { key: \"{{ secrets.s }}\", at: \"{{ now | epoch }}\" }, n: 5 }\n      \
                form: { key: \"{{ secrets.s }}\", job: { json: { k: \"{{ secrets.s }}\" } } }\n      xml: { /request/control: \"<key>{{ secrets.s }}</key>\" }\n";
    let gateway = gateway(&upstream, more);
    let send = |kind: &str, body: &str| gateway.send("POST", "/r/up/a", &format!("Content-Type: {kind}\r\n"), body.as_bytes());
    let text = || String::from_utf8(upstream.last().body).unwrap();

    let reply = send("application/json", r#"{"big": 12345678901234567890.10, "auth": {"key": "mine", "x": 1e9}}"#);
    assert_eq!(reply.status, 200, "{} {}", reply.text(), gateway.stderr());
    let json: serde_json::Value = serde_json::from_str(&text()).unwrap();
    assert!(text().starts_with(r#"{"big": 12345678901234567890.10, "auth":{"key":"#) && text().contains(r#""x": 1e9"#), "{}", text());
    assert_eq!((json["auth"]["key"].as_str(), json["n"].to_string()), (Some(HOSTILE), "5".to_owned()));
    assert!(json["auth"]["at"].is_number());
    assert_eq!(upstream.last().field("x-length").unwrap(), text().chars().count().to_string());

    assert_eq!(send("application/x-www-form-urlencoded", "a=1&key=mine").status, 200);
    let encoded = percent_encoding::utf8_percent_encode(HOSTILE, percent_encoding::NON_ALPHANUMERIC).to_string();
    let decode = |text: &str| percent_encoding::percent_decode_str(text).decode_utf8().unwrap().into_owned();
    let sent = text();
    let fields: Vec<(&str, String)> = sent.split('&').map(|pair| pair.split_once('=').unwrap()).map(|(k, v)| (k, decode(v))).collect();
    assert_eq!(fields.len(), 3, "{sent} {encoded}");
    assert_eq!((fields[1].0, &*fields[1].1), ("key", HOSTILE));
    assert_eq!(serde_json::from_str::<serde_json::Value>(&fields[2].1).unwrap()["k"], HOSTILE);

    assert_eq!(send("text/xml", "<request><control>x</control></request>").status, 200);
    let sent = text();
    assert_eq!(sent.matches('<').count(), 6, "{sent}");
    assert!(sent.contains("&lt;w&gt;") && sent.contains("]]&gt;") && !sent.contains("]]>"), "{sent}");

    assert_eq!(send("text/plain", "x").status, 400);
    assert_eq!(send("application/json", "[1]").status, 400);
    assert_eq!(gateway.get("/r/up/a").status, 200);
}
