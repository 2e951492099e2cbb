//! The static schemes on the wire: what the upstream gets, and what a client cannot do about it.

use crate::support::{Gateway, Reply, Seen, Upstream};

const VARIABLES: [(&str, &str); 4] = [("T", "token-1"), ("U", "Aladdin"), ("P", "open sesame"), ("K", "k/e y+&=%")];

/// A gateway with one resource `up` and this `auth`.
fn with(upstream: &Upstream, base: &str, auth: &str) -> Gateway {
    let config = format!("resources:\n  up:\n    base_url: \"{}{base}\"\n    auth: {auth}\n", upstream.url());
    Gateway::start_with(&config, &VARIABLES)
}

/// One GET with these fields through this `auth`.
fn seen(auth: &str, path: &str, fields: &str) -> Seen {
    let upstream = Upstream::ok();
    let reply = with(&upstream, "", auth).send("GET", path, fields, b"");
    assert_eq!(reply.status, 200, "{}", reply.text());
    upstream.last()
}

const OWN: &str = "Authorization: Bearer mine\r\n";

#[test]
fn none_presents_nothing_and_drops_the_clients() {
    assert_eq!(seen("none", "/r/up/a", OWN).field("authorization"), None);
}

#[test]
fn passthrough_hands_on_what_the_client_presents() {
    assert_eq!(seen("passthrough", "/r/up/a", OWN).fields("authorization"), ["Bearer mine"]);
    assert_eq!(seen("passthrough", "/r/up/a", "").field("authorization"), None);
}

#[test]
fn basic_is_that_of_rfc_7617() {
    // The example of RFC 7617 section 2.
    let auth = "{ basic: { username: \"${env:U}\", password: \"${env:P}\" } }";
    assert_eq!(seen(auth, "/r/up/a", OWN).fields("authorization"), ["Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="]);
    assert_eq!(seen("{ basic: { username: \"${env:U}\" } }", "/r/up/a", "").fields("authorization"), ["Basic QWxhZGRpbjo="]);
}

#[test]
fn bearer_takes_any_word_or_none() {
    for (auth, field) in [
        ("{ bearer: \"${env:T}\" }", "Bearer token-1"),
        ("{ bearer: { token: \"${env:T}\", scheme: SSWS } }", "SSWS token-1"),
        ("{ bearer: { token: \"${env:T}\", scheme: none } }", "token-1"),
    ] {
        assert_eq!(seen(auth, "/r/up/a", OWN).fields("authorization"), [field]);
    }
}

#[test]
fn an_api_key_in_a_header_is_the_gateways_alone() {
    let auth = "{ api_key: { in: header, name: X-Api-Key, value: \"key=${env:T}\" } }";
    let fields = "x-api-key: mine\r\nX_Api_Key: mine\r\nX-Api_Key: mine\r\nConnection: X-Api-Key\r\n";
    let seen = seen(auth, "/r/up/a", fields);
    assert_eq!(seen.fields("x-api-key"), ["key=token-1"]);
    assert!(!seen.head.contains("mine"), "{}", seen.head);
}

#[test]
fn an_api_key_in_the_query_is_encoded_and_replaces_the_clients() {
    let auth = "{ api_key: { in: query, name: key, value: \"${env:K}\" } }";
    assert_eq!(seen(auth, "/r/up/a", "").target(), "/a?key=k%2Fe%20y%2B%26%3D%25");
    assert_eq!(seen(auth, "/r/up/a?x=%7e&key=mine&%6bey=mine&k%65y&y", "").target(), "/a?x=%7e&y&key=k%2Fe%20y%2B%26%3D%25");
}

#[test]
fn an_api_key_in_a_cookie_joins_the_others() {
    let upstream = Upstream::ok();
    let config = format!(
        "resources:\n  up:\n    base_url: \"{}\"\n    forward: {{ cookies: true }}\n    auth: {{ api_key: {{ in: cookie, name: sid, value: \"${{env:T}}\" }} }}\n",
        upstream.url()
    );
    let gateway = Gateway::start_with(&config, &VARIABLES);
    gateway.send("GET", "/r/up/a", "Cookie: a=b; sid=mine\r\nCookie: sid=mine; c=d\r\n", b"");
    assert_eq!(upstream.last().fields("cookie"), ["a=b; c=d; sid=token-1"]);
}

#[test]
fn an_api_key_in_the_path_goes_where_the_operator_or_else_the_client_says() {
    let named = "{ api_key: { in: path, name: token, value: \"${env:K}\" } }";
    for (base, auth, sent, arrived) in [
        ("/bot{token}/v1", named, "/r/up/me/%7Btoken%7D", "/botk%2Fe%20y+&=%25/v1/me/%7Btoken%7D"),
        ("/v1", named, "/r/up/x/%7Btoken%7D/y?%7Btoken%7D", "/v1/x/k%2Fe%20y+&=%25/y?%7Btoken%7D"),
        ("/v1", "{ api_key: { in: path, value: \"${env:T}\" } }", "/r/up/me", "/v1/token-1/me"),
    ] {
        let upstream = Upstream::ok();
        let gateway = with(&upstream, base, auth);
        let reply = gateway.get(sent);
        assert_eq!(reply.status, 200, "{}", reply.text());
        assert_eq!(upstream.last().target(), arrived, "{sent}");
    }
}

#[test]
fn an_api_key_in_the_body_leaves_every_other_byte_alone() {
    let upstream = Upstream::ok();
    let gateway = with(&upstream, "", "{ api_key: { in: body, name: key, value: \"${env:K}\" } }");
    let json = "Content-Type: application/json; charset=utf-8\r\n";
    let form = "Content-Type: application/x-www-form-urlencoded\r\n";
    for (kind, sent, arrived) in [
        (json, "{}", "{\"key\":\"k/e y+&=%\"}"),
        (
            json,
            "{ \"n\": 1.50e+3 , \"k\\u0065y\":[\"mine\"],\"z\":{\"key\":1}}",
            "{ \"n\": 1.50e+3 , \"key\":\"k/e y+&=%\",\"z\":{\"key\":1}}",
        ),
        (form, "a=b&k%65y=mine&c", "a=b&key=k%2Fe%20y%2B%26%3D%25&c"),
    ] {
        let reply = gateway.send("POST", "/r/up/a", kind, sent.as_bytes());
        assert_eq!(reply.status, 200, "{}", reply.text());
        let seen = upstream.last();
        assert_eq!(String::from_utf8_lossy(&seen.body), arrived);
        assert_eq!(seen.field("content-length"), Some(arrived.len().to_string().as_str()));
    }
    let chunked = format!(
        "POST /r/up/a HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{json}Transfer-Encoding: chunked\r\n\r\n1\r\n{{\r\n1\r\n}}\r\n0\r\n\r\n"
    );
    assert_eq!(Reply::parse(&gateway.raw(chunked.as_bytes())).status, 200);
    let seen = upstream.last();
    assert_eq!((seen.body.as_slice(), seen.field("transfer-encoding")), (&b"{\"key\":\"k/e y+&=%\"}"[..], None));
}

#[test]
fn a_body_that_cannot_take_the_key_is_refused_and_nothing_is_sent() {
    let upstream = Upstream::ok();
    let gateway = with(&upstream, "", "{ api_key: { in: body, name: key, value: \"${env:K}\" } }");
    for (fields, body) in [
        ("", &b""[..]),
        ("", b"{}"),
        ("Content-Type: text/xml\r\n", b"<a/>"),
        ("Content-Type: application/json\r\n", b"[]"),
        ("Content-Type: application/json\r\n", b"{\"a\":}"),
        ("Content-Type: application/json\r\n", b"{} {}"),
        ("Content-Type: application/json\r\n", b"{\"a\":\"\xff\"}"),
        ("Content-Type: application/json\r\nContent-Type: text/plain\r\n", b"{}"),
        ("Content-Type: application/json\r\nContent-Encoding: gzip\r\n", b"{}"),
    ] {
        let reply = gateway.send("POST", "/r/up/a", fields, body);
        assert_eq!((reply.status, reply.code().as_str()), (400, "bad-request"), "{fields} {}", String::from_utf8_lossy(body));
    }
    let huge = format!("{{\"a\":\"{}\"}}", "x".repeat(11 << 20));
    let reply = gateway.send("POST", "/r/up/a", "Content-Type: application/json\r\n", huge.as_bytes());
    assert_eq!((reply.status, reply.code().as_str()), (413, "body-too-large"));
    assert!(upstream.seen().is_empty());
}

#[test]
fn several_schemes_apply_together() {
    let auth = "[ { bearer: \"${env:T}\" }, { api_key: { in: header, name: X-Id, value: \"${env:U}\" } }, { api_key: { in: query, name: k, value: \"${env:T}\" } } ]";
    let seen = seen(auth, "/r/up/a?k=mine", &format!("{OWN}X-Id: mine\r\n"));
    assert_eq!(
        (seen.fields("authorization"), seen.fields("x-id"), seen.target()),
        (vec!["Bearer token-1"], vec!["Aladdin"], "/a?k=token-1")
    );
}

#[test]
fn a_secret_that_changes_its_caller_changes_no_other_one() {
    // Parallel calls to two resources over the same kind of scheme never see each other's credential.
    let upstream = Upstream::ok();
    let config = format!(
        "resources:\n  a: {{ base_url: \"{0}/a\", auth: {{ bearer: \"${{env:T}}\" }} }}\n  b: {{ base_url: \"{0}/b\", auth: {{ bearer: \"${{env:U}}\" }} }}\n",
        upstream.url()
    );
    let gateway = Gateway::start_with(&config, &VARIABLES);
    std::thread::scope(|scope| {
        for name in ["a", "b", "a", "b"] {
            let gateway = &gateway;
            scope.spawn(move || (0..25).for_each(|_| assert_eq!(gateway.get(&format!("/r/{name}/x")).status, 200)));
        }
    });
    let all = upstream.seen();
    assert_eq!(all.len(), 100);
    for seen in all {
        let expected = if seen.target() == "/a/x" { "Bearer token-1" } else { "Bearer Aladdin" };
        assert_eq!(seen.fields("authorization"), [expected]);
    }
}
