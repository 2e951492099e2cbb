//! What reaches the upstream, byte for byte.

use crate::support::{Gateway, Upstream};

/// A gateway with one resource `up` on the upstream's `/base`, and whatever else the resource is to have.
pub fn gateway(upstream: &Upstream, more: &str) -> Gateway {
    Gateway::start(&format!("resources:\n  up:\n    base_url: {}/base\n{more}", upstream.url()))
}

#[test]
fn path_and_query_arrive_as_they_were_sent() {
    let upstream = Upstream::ok();
    let gateway = gateway(&upstream, "");
    for (sent, arrived) in [
        ("/r/up", "/base"),
        ("/r/up/", "/base/"),
        ("/r/up/a%2Fb//c;d=e?x=%20&&y", "/base/a%2Fb//c;d=e?x=%20&&y"),
        ("/r/up/%7Ea/A%c3%a4?", "/base/%7Ea/A%c3%a4?"),
        ("/r/up/a:b@c!$&'()*+,=?a=b/c?d", "/base/a:b@c!$&'()*+,=?a=b/c?d"),
    ] {
        let reply = gateway.get(sent);
        assert_eq!(reply.status, 200, "{sent}: {}", reply.text());
        assert_eq!(upstream.last().target(), arrived);
    }
}

#[test]
fn host_via_and_request_id_are_the_gateways() {
    let upstream = Upstream::ok();
    let gateway = gateway(&upstream, "");
    let reply = gateway.send("GET", "/r/up/a", "X-Request-Id: abc-1\r\n", b"");
    let seen = upstream.last();
    assert_eq!(seen.field("host"), Some(format!("127.0.0.1:{}", upstream.port).as_str()));
    assert_eq!(seen.field("via"), Some("1.1 under-test"));
    assert_eq!(seen.field("x-request-id"), Some("abc-1"));
    assert_eq!(reply.field("x-request-id"), Some("abc-1"));
    let made = gateway.get("/r/up/a").field("x-request-id").unwrap().to_owned();
    assert_eq!((made.len(), &made[14..15]), (36, "7"), "{made}");
}

#[test]
fn a_clients_own_headers_win_over_defaults_unless_locked() {
    let upstream = Upstream::ok();
    let more = "    headers:\n      Accept: text/default\n      X-Plain: ours\n      X-Locked: { value: ours, locked: true }\n      X-Gone: null\n      X-Unset: { value: \"${env:NOT_THERE:-}\", omit_if_unset: true }\n";
    let gateway = gateway(&upstream, more);
    gateway.send("GET", "/r/up/a", "Accept: */*\r\n", b"");
    let seen = upstream.last();
    assert_eq!(
        (seen.field("accept"), seen.field("x-plain"), seen.field("x-locked"), seen.field("x-unset")),
        (Some("text/default"), Some("ours"), Some("ours"), None)
    );
    gateway.send("GET", "/r/up/a", "Accept: a/b\r\nX-Plain: mine\r\nX-Locked: mine\r\nX_Locked: mine\r\nX-Gone: mine\r\n", b"");
    let seen = upstream.last();
    assert_eq!(seen.field("accept"), Some("a/b"));
    assert_eq!(seen.fields("x-plain"), ["mine"]);
    assert_eq!(seen.fields("x-locked"), ["ours"]);
    assert_eq!((seen.field("x_locked"), seen.field("x-gone")), (None, None));
}

#[test]
fn params_are_defaults_and_locked_ones_win() {
    let upstream = Upstream::ok();
    let gateway = gateway(&upstream, "    params: { per_page: \"100\", v: { value: \"2\", locked: true }, gone: null }\n");
    gateway.get("/r/up/a?x=1");
    assert_eq!(upstream.last().target(), "/base/a?x=1&per_page=100&v=2");
    gateway.get("/r/up/a?per%5Fpage=5&v=9&%76=8&gone=1&z");
    assert_eq!(upstream.last().target(), "/base/a?per%5Fpage=5&z&v=2");
}

#[test]
fn what_concerns_the_client_alone_is_not_forwarded() {
    let upstream = Upstream::ok();
    let gateway = gateway(&upstream, "");
    let fields = "Authorization: Bearer mine\r\nCookie: a=b\r\nProxy-Authorization: Basic x\r\nPostern-Key: k\r\nConnection: x-nominated, host, authorization\r\nX-Nominated: 1\r\n\
                  Keep-Alive: 5\r\nTE: gzip, trailers\r\nX-Forwarded-For: 1.2.3.4\r\nForwarded: for=1.2.3.4\r\nX-Real-IP: 1.2.3.4\r\nX-Original-URL: /admin\r\nX-Rewrite-URL: /admin\r\n\
                  X-HTTP-Method-Override: DELETE\r\nX_HTTP_Method_Override: DELETE\r\nX-Amz-Security-Token: t\r\nX-Fine: yes\r\n";
    gateway.send("GET", "/r/up/a", fields, b"");
    let seen = upstream.last();
    for gone in [
        "authorization",
        "cookie",
        "proxy-authorization",
        "postern-key",
        "x-nominated",
        "keep-alive",
        "x-forwarded-for",
        "forwarded",
        "x-real-ip",
        "x-original-url",
        "x-rewrite-url",
        "x-http-method-override",
        "x_http_method_override",
        "x-amz-security-token",
        "connection",
    ] {
        assert_eq!(seen.field(gone), None, "{gone} in {}", seen.head);
    }
    assert_eq!(seen.field("x-fine"), Some("yes"));
    assert_eq!(seen.field("te"), Some("trailers"));
    assert_eq!(seen.fields("host").len(), 1);
}

#[test]
fn forward_lets_named_things_through() {
    let upstream = Upstream::ok();
    let gateway = gateway(
        &upstream,
        "    forward: { authorization: true, cookies: true, client_ip: x-forwarded-for, headers: [X-HTTP-Method-Override] }\n    cookies: { theme: plain }\n",
    );
    gateway.send(
        "GET",
        "/r/up/a",
        "Authorization: Bearer mine\r\nCookie: a=b; theme=dark\r\nX-HTTP-Method-Override: PATCH\r\nX-Forwarded-For: 9.9.9.9\r\n",
        b"",
    );
    let seen = upstream.last();
    assert_eq!(seen.field("authorization"), Some("Bearer mine"));
    assert_eq!(seen.fields("cookie"), ["a=b; theme=plain"]);
    assert_eq!(seen.field("x-http-method-override"), Some("PATCH"));
    assert_eq!(seen.field("x-forwarded-for"), Some("127.0.0.1"));
}

#[test]
fn traceparent_is_continued_and_nonsense_is_dropped() {
    let upstream = Upstream::ok();
    let gateway = gateway(&upstream, "");
    gateway.send("GET", "/r/up/a", "Traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\nTracestate: a=b\r\n", b"");
    let seen = upstream.last();
    let trace = seen.field("traceparent").unwrap();
    assert!(
        trace.starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-") && trace.ends_with("-01") && !trace.contains("00f067aa0ba902b7"),
        "{trace}"
    );
    assert_eq!(gateway.records(1)[0]["trace"], "4bf92f3577b34da6a3ce929d0e0e4736");
    gateway.send("GET", "/r/up/a", "Traceparent: 00-0-0-0\r\nTracestate: a=b\r\n", b"");
    let seen = upstream.last();
    assert_eq!((seen.field("traceparent"), seen.field("tracestate")), (None, None));
}

#[test]
fn locations_and_links_lead_back_to_the_gateway() {
    let upstream = Upstream::answering(|seen, stream| {
        use std::io::Write as _;
        let host = seen.field("host").unwrap();
        let answer = format!(
            "HTTP/1.1 302 Found\r\nLocation: http://{host}/base/next?x=1\r\nLink: <http://{host}/base/p2>; rel=\"next\", </base/p9>; rel=last, <https://else.example/z>; rel=help\r\nContent-Length: 0\r\n\r\n"
        );
        stream.write_all(answer.as_bytes()).is_ok()
    });
    let gateway = gateway(&upstream, "");
    let reply = gateway.get("/r/up/a");
    assert_eq!(reply.status, 302);
    assert_eq!(reply.field("location"), Some("/r/up/next?x=1"));
    assert_eq!(reply.field("link"), Some("</r/up/p2>; rel=\"next\", </r/up/p9>; rel=last, <https://else.example/z>; rel=help"));
}

/// Redirects what asks for `/base/from…` with this status to there, and answers all else.
fn redirecting(status: u16, to: impl Fn(&str) -> String + Send + Sync + 'static) -> Upstream {
    Upstream::answering(move |seen, stream| {
        use std::io::Write as _;
        let answer = match seen.target().strip_prefix("/base/from") {
            Some(rest) => format!("HTTP/1.1 {status} Moved\r\nLocation: {}\r\nContent-Length: 4\r\n\r\nmove", to(rest)),
            None => "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_owned(),
        };
        stream.write_all(answer.as_bytes()).is_ok()
    })
}

fn following(upstream: &Upstream, more: &str) -> Gateway {
    let config = format!("resources:\n  up:\n    base_url: \"{}/base\"\n    auth: {{ bearer: \"${{env:T}}\" }}\n{more}", upstream.url());
    Gateway::start_with(&config, &[("T", "the-token")])
}

#[test]
fn a_redirect_inside_the_base_is_followed_and_the_hop_is_signed_anew() {
    for (status, method) in [(301, "GET"), (302, "GET"), (303, "HEAD"), (307, "POST"), (308, "PUT"), (302, "POST"), (303, "DELETE")] {
        let upstream = redirecting(status, |rest| format!("/base/to{rest}"));
        let gateway = following(&upstream, "    redirects: { follow: 1 }\n");
        let body: &[u8] = if matches!(method, "POST" | "PUT") { b"the body" } else { b"" };
        let reply = gateway.send(method, "/r/up/from?x=1", "", body);
        let seen = upstream.seen();
        if status < 304 && matches!(method, "POST" | "DELETE") {
            assert_eq!((reply.status, reply.field("location"), seen.len()), (status, Some("/r/up/to?x=1"), 1), "{status} {method}");
            continue;
        }
        assert_eq!((reply.status, seen.len()), (200, 2), "{status} {method}");
        for (seen, target) in seen.iter().zip(["/base/from?x=1", "/base/to?x=1"]) {
            assert_eq!(
                (seen.target(), seen.fields("authorization"), &*seen.body),
                (target, vec!["Bearer the-token"], body),
                "{status} {method}"
            );
        }
    }
}

#[test]
fn a_credential_follows_to_a_host_that_is_named_and_to_no_other() {
    let files = Upstream::ok();
    let there = format!("127.0.0.1:{}", files.port);
    let to = format!("http://{there}/files");
    let upstream = redirecting(302, move |rest| format!("{to}{rest}"));
    let named = format!("    allow_private: true\n    forward: {{ cookies: true }}\n    redirects: {{ follow: 2, to: [\"{there}\"] }}\n");
    let gateway = following(&upstream, &named);
    let reply = gateway.send("GET", "/r/up/from/a", "Cookie: theirs=1\r\n", b"");
    assert_eq!(reply.status, 200);
    let seen = files.last();
    assert_eq!(
        (seen.target(), seen.field("host"), seen.field("authorization")),
        ("/files/a", Some(there.as_str()), Some("Bearer the-token"))
    );
    assert_eq!(seen.field("cookie"), None, "the client gave it to the resource alone");
    assert_eq!(upstream.last().field("cookie"), Some("theirs=1"));
    // Without the leave to go to private addresses the guard ends it, and without the name nobody goes there.
    let reply = following(&upstream, &named.replace("allow_private: true", "allow_private: false")).get("/r/up/from/a");
    assert_eq!((reply.status, reply.code().as_str()), (502, "upstream-unreachable"));
    for more in ["    redirects: { follow: 2 }\n", "    redirects: { follow: 2, to: [files.example] }\n", "", "    redirects: pass\n"] {
        let reply = following(&upstream, &format!("    allow_private: true\n{more}")).get("/r/up/from/a");
        assert_eq!((reply.status, reply.field("location")), (302, Some(format!("http://{there}/files/a").as_str())), "{more}");
    }
    assert_eq!(files.seen().len(), 1);
}

#[test]
fn what_another_host_says_of_its_own_paths_is_not_taken_for_the_resources() {
    let files = Upstream::answering(|seen, stream| {
        use std::io::Write as _;
        let (head, body) = ("Content-Type: application/json\r\nSet-Cookie: sid=files", r#"{"next":"/base/page2"}"#);
        let links = "</base/page2>; rel=next, <page3>; rel=last";
        let status = if seen.target() == "/files/end" { "302 Found\r\nLocation: /base/x#y" } else { "200 OK" };
        write!(stream, "HTTP/1.1 {status}\r\nLink: {links}\r\n{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).is_ok()
    });
    let there = format!("http://127.0.0.1:{}", files.port);
    let to = format!("{there}/files");
    let upstream = redirecting(302, move |rest| format!("{to}{rest}"));
    let more = format!(
        "    allow_private: true\n    forward: {{ cookies: true }}\n    rewrite_links: {{ json: $.next }}\n    redirects: {{ follow: 1, to: [\"127.0.0.1:{}\"] }}\n",
        files.port
    );
    let gateway = following(&upstream, &more);
    let reply = gateway.get("/r/up/from/a");
    assert_eq!((reply.status, reply.text().as_str(), reply.field("set-cookie")), (200, r#"{"next":"/base/page2"}"#, None));
    let links = format!("<{there}/base/page2>; rel=next, <{there}/files/page3>; rel=last");
    assert_eq!(reply.field("link"), Some(links.as_str()));
    assert_eq!(gateway.get("/r/up/from/end").field("location"), Some(format!("{there}/base/x#y").as_str()));
}

#[test]
fn redirects_without_end_are_followed_as_often_as_it_is_said_and_what_leads_out_of_the_base_is_not() {
    let upstream = redirecting(302, |rest| format!("from{rest}x"));
    let gateway = following(&upstream, "    redirects: { follow: 3 }\n");
    let reply = gateway.get("/r/up/from");
    assert_eq!((reply.status, reply.field("location"), upstream.seen().len()), (302, Some("/r/up/fromxxxx"), 4));
    for to in ["/admin", "../admin", "/base/../admin", "/base/%2e%2e/admin", "/base/a%2f..%2f..%2f..%2fadmin"] {
        let upstream = redirecting(307, move |_| to.to_owned());
        let gateway = following(&upstream, "    redirects: { follow: 3 }\n");
        assert_eq!((gateway.get("/r/up/from").status, upstream.seen().len()), (307, 1), "{to}");
    }
}

#[test]
fn a_body_that_cannot_be_sent_twice_is_not_redirected() {
    let upstream = redirecting(307, |_| "/base/to".to_owned());
    let gateway = following(&upstream, "    limits: { buffer: 1KiB }\n    redirects: { follow: 1 }\n");
    let reply = gateway.send("POST", "/r/up/from", "", &[b'x'; 4096]);
    assert_eq!((reply.status, upstream.seen().len()), (307, 1));
}

/// Answers with this JSON, in which `{host}` is its own.
fn paging(kind: &'static str, more: &'static str, body: &'static str) -> Upstream {
    Upstream::answering(move |seen, stream| {
        use std::io::Write as _;
        let body = body.replace("{host}", seen.field("host").unwrap());
        let head = format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\n{more}Content-Length: {}\r\n\r\n", body.len());
        stream.write_all(format!("{head}{}", if seen.line().starts_with("HEAD") { "" } else { &body }).as_bytes()).is_ok()
    })
}

#[test]
fn links_inside_of_json_answers_lead_back_where_they_are_named() {
    const BODY: &str = r#"{ "next" : "http:\/\/{host}/base/a?page=2#x", "size": 1.00, "other": "http://{host}/base/a",
        "d": {"__next": "/base/a?skip=10"}, "all": [{"url":"http://{host}/base/a/1"},{"url":"http://else.example/base/a"},{"url":"//{host}/base"},{"url":"http://{host}/elsewhere"},{"url":"a"}] }"#;
    const LED: &str = r#"{ "next" : "/r/up/a?page=2#x", "size": 1.00, "other": "http://{host}/base/a",
        "d": {"__next": "/r/up/a?skip=10"}, "all": [{"url":"/r/up/a/1"},{"url":"http://else.example/base/a"},{"url":"/r/up"},{"url":"http://{host}/elsewhere"},{"url":"a"}] }"#;
    let upstream = paging("application/vnd.api+json; charset=utf-8", "ETag: \"v1\"\r\nContent-Digest: sha-256=:AAAA:\r\n", BODY);
    let gateway = gateway(&upstream, "    rewrite_links: { json: [$.next, $.d.__next, \"$.all[*].url\"] }\n");
    let host = format!("127.0.0.1:{}", upstream.port);
    let reply = gateway.send("GET", "/r/up/a", "Accept-Encoding: gzip\r\nRange: bytes=0-9\r\n", b"");
    assert_eq!(reply.text(), LED.replace("{host}", &host));
    assert_eq!((reply.field("etag"), reply.field("content-digest")), (Some("W/\"v1\""), None));
    let seen = upstream.last();
    assert_eq!((seen.field("accept-encoding"), seen.field("range")), (Some("identity"), None));
    let head = gateway.send("HEAD", "/r/up/a", "", b"");
    assert_eq!((head.status, head.field("content-length"), head.field("etag")), (200, None, Some("W/\"v1\"")));
}

#[test]
fn an_answer_in_which_no_link_can_be_led_goes_on_as_it_is() {
    let long: &'static str = Box::leak(format!(r#"{{"next":"http://{{host}}/base/a","pad":"{}"}}"#, "x".repeat(4096)).into_boxed_str());
    for (kind, more, body) in [
        ("text/html", "", "{\"next\":\"http://{host}/base/a\"}"),
        ("application/json", "Content-Encoding: x-odd\r\n", "{\"next\":\"http://{host}/base/a\"}"),
        ("application/json", "", "{\"next\":\"http://{host}/base/a\""),
        ("application/json", "", "{\"next\":[\"http://{host}/base/a\"]}"),
        ("application/json", "", "{\"next\":\"ftp://{host}/base/a\"}"),
        ("application/json", "", "{\"next\":\"http://{host}.evil.example/base/a\"}"),
        ("application/json", "", "{\"next\":\"http://{host}/base/../a\"}"),
        ("application/json", "", ""),
        ("application/json", "", long),
    ] {
        let upstream = paging(kind, more, body);
        let gateway = gateway(&upstream, "    limits: { buffer: 1KiB }\n    rewrite_links: { json: $.next }\n");
        let reply = gateway.get("/r/up/a");
        assert_eq!(reply.text(), body.replace("{host}", &format!("127.0.0.1:{}", upstream.port)), "{kind} {body}");
    }
}

#[test]
fn locations_elsewhere_are_not_touched_and_those_outside_the_base_become_absolute() {
    for (sent, arrived) in [
        ("https://else.example/x", "https://else.example/x"),
        ("/other", "http://{host}/other"),
        ("/basement", "http://{host}/basement"),
        ("next", "next"),
    ] {
        let upstream = Upstream::answering(move |_, stream| {
            use std::io::Write as _;
            stream.write_all(format!("HTTP/1.1 201 Created\r\nLocation: {sent}\r\nContent-Length: 0\r\n\r\n").as_bytes()).is_ok()
        });
        let gateway = gateway(&upstream, "");
        let expected = arrived.replace("{host}", &format!("127.0.0.1:{}", upstream.port));
        assert_eq!(gateway.get("/r/up/a/b").field("location"), Some(expected.as_str()));
    }
}

#[test]
fn an_answer_carries_the_browser_fields_and_loses_what_an_upstream_may_not_say() {
    let upstream = Upstream::canned(
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nSet-Cookie: s=1; Domain=x; Path=/\r\nAccess-Control-Allow-Origin: *\r\nStrict-Transport-Security: max-age=1\r\nAlt-Svc: h3\r\nProxy-Status: x\r\n\
         Proxy-Authenticate: Basic\r\nConnection: x-secret\r\nX-Secret: 1\r\nX-Request-Id: theirs\r\nX-Fine: yes\r\n\r\n",
    );
    let gateway = gateway(&upstream, "");
    let reply = gateway.get("/r/up/a");
    for gone in [
        "set-cookie",
        "access-control-allow-origin",
        "strict-transport-security",
        "alt-svc",
        "proxy-status",
        "proxy-authenticate",
        "x-secret",
    ] {
        assert_eq!(reply.field(gone), None, "{gone}");
    }
    assert_eq!(reply.field("content-security-policy"), Some("sandbox"));
    assert_eq!(reply.field("x-content-type-options"), Some("nosniff"));
    assert_eq!(reply.field("cross-origin-resource-policy"), Some("same-origin"));
    assert_eq!(reply.field("x-fine"), Some("yes"));
    assert_ne!(reply.field("x-request-id"), Some("theirs"));
}

#[test]
fn forwarded_cookies_stay_with_their_resource() {
    let upstream =
        Upstream::canned("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nSet-Cookie: s=1; Domain=api.example; Path=/base/x; HttpOnly\r\n\r\n");
    let gateway = gateway(&upstream, "    forward: { cookies: true }\n");
    let cookie = gateway.get("/r/up/a").field("set-cookie").unwrap().to_owned();
    assert!(cookie.contains("Path=/r/up/x") && cookie.contains("HttpOnly") && !cookie.to_lowercase().contains("domain"), "{cookie}");
}

#[test]
fn a_request_that_comes_back_is_refused() {
    let upstream = Upstream::ok();
    let gateway = gateway(&upstream, "");
    let reply = gateway.send("GET", "/r/up/a", "Via: 1.0 other, 1.1 under-test\r\n", b"");
    assert_eq!((reply.status, reply.code().as_str()), (508, "loop"));
    assert_eq!(gateway.send("GET", "/r/up/a", "Via: 1.1 under-testing\r\n", b"").status, 200);
}

#[test]
fn routes_have_their_own_auth_and_the_first_match_wins() {
    let upstream = Upstream::ok();
    let more = "    allow_http: true\n    auth: { bearer: \"${env:T}\" }\n    routes:\n      - { path: \"/public/**\", methods: [GET], auth: none }\n      - { path: \"/keyed/*\", auth: { api_key: { in: header, name: X-Key, value: \"${env:K}\" } } }\n";
    let config = format!("resources:\n  up:\n    base_url: {}/base\n{more}", upstream.url());
    let gateway = Gateway::start_with(&config, &[("T", "token-of-the-resource"), ("K", "key-of-the-route")]);
    for (method, path, bearer, key) in [
        ("GET", "/r/up/a", true, false),
        ("GET", "/r/up/public", false, false),
        ("GET", "/r/up/public/a/b", false, false),
        ("HEAD", "/r/up/public/a/b", false, false),
        ("POST", "/r/up/public/a", true, false),
        ("GET", "/r/up/keyed/a", false, true),
        ("GET", "/r/up/keyed/a/b", true, false),
    ] {
        gateway.send(method, path, "", b"");
        let seen = upstream.last();
        assert_eq!((seen.field("authorization").is_some(), seen.field("x-key").is_some()), (bearer, key), "{method} {path}");
    }
    // A path that is public in one reading and not in another selects two routes: refused.
    for path in ["/r/up/publi%63/a", "/r/up/keyed%2Fa", "/r/up//public/a", "/r/up/public;x/a"] {
        let reply = gateway.get(path);
        assert_eq!((reply.status, reply.code().as_str()), (400, "bad-path"), "{path}");
    }
}
