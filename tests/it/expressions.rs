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
    assert_eq!(seen.target(), "/base/a?tag=a&tag=b&q=a%20b%26c&r=a%2520b");
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
            "resources:\n  up:\n    vars: {{ host: \"{pasted}\", path: \"/v 1/\" }}\n    base_url: \"http://{{{{ vars.host }}}}:{}/{{{{ vars.path }}}}\"\n    hosts: [\"127.0.0.1:{}\"]\n    headers: {{ X-Base: \"{{{{ base }}}}\" }}\n",
            upstream.port, upstream.port
        );
        let gateway = Gateway::start(&config);
        assert_eq!(gateway.get("/r/up/a").status, 200, "{}", gateway.stderr());
        let seen = upstream.last();
        assert_eq!(seen.target(), "/v%201/a", "{pasted}");
        assert_eq!(seen.field("x-base").unwrap(), format!("http://127.0.0.1:{}/v%201", upstream.port));
    }
}
