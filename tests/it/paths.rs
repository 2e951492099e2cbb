//! Tricks with paths and routes: whatever spelling reaches the upstream, no reading of it leaves the base path or the
//! route whose credential it carries.

use crate::support::{Gateway, Upstream};

/// A resource with a base path, and a route of its own credential for `/private/**`.
fn gateway(upstream: &Upstream) -> Gateway {
    let config = format!(
        "resources:\n  up:\n    base_url: {}/base/v1\n    auth: {{ bearer: \"${{env:PUBLIC}}\" }}\n    routes:\n      - {{ path: \"/private/**\", auth: {{ bearer: \"${{env:PRIVATE}}\" }} }}\n      - {{ path: \"/open/*\", methods: [GET], auth: none }}\n  other: {{ base_url: \"{}/other\", auth: {{ bearer: \"${{env:OTHER}}\" }} }}\n",
        upstream.url(),
        upstream.url()
    );
    Gateway::start_with(&config, &[("PUBLIC", "public-credential"), ("PRIVATE", "private-credential"), ("OTHER", "other-credential")])
}

/// How servers may read a path; what is compared is where it ends.
fn readings(path: &str) -> Vec<String> {
    let decode = |text: &str| percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned();
    let once = decode(path);
    let twice = decode(&once);
    let thrice = decode(&twice);
    let mut all = Vec::new();
    for reading in [path.to_owned(), once, twice, thrice] {
        for slashed in [reading.clone(), reading.replace('\\', "/")] {
            let cut: Vec<&str> = slashed.split('/').map(|s| s.split(';').next().unwrap()).collect();
            let queried = slashed.split(['?', '#']).next().unwrap().to_owned();
            for form in [slashed.clone(), cut.join("/"), queried] {
                all.push(normal(&form));
                let mut merged = form.clone();
                while merged.contains("//") {
                    merged = merged.replace("//", "/");
                }
                all.push(normal(&merged));
            }
        }
    }
    all
}

/// Without dot segments, as RFC 3986 section 5.2.4 has it, trailing controls and spaces trimmed as some do.
fn normal(path: &str) -> String {
    let mut out: Vec<&str> = Vec::new();
    for segment in path.split('/').skip(1) {
        match segment.trim_matches(|c: char| c.is_control() || c == ' ') {
            "." => {}
            ".." => {
                out.pop();
            }
            _ => out.push(segment),
        }
    }
    format!("/{}", out.join("/"))
}

/// Behind `/r/`.
const TRICKS: [&str; 97] = [
    "up/../admin",
    "up/..",
    "up/.",
    "up/./admin",
    "up/a/../../admin",
    "up/a/b/../../../admin",
    "up/%2e%2e/admin",
    "up/%2E%2e/admin",
    "up/.%2e/admin",
    "up/%2e./admin",
    "up/%2e/admin",
    "up/%252e%252e/admin",
    "up/%25252e%25252e/admin",
    "up/..%2fadmin",
    "up/..%2Fadmin",
    "up/a%2f..%2f..%2fadmin",
    "up/%2e%2e%2fadmin",
    "up/..%252fadmin",
    "up/..%255cadmin",
    "up/..\\admin",
    "up/..%5cadmin",
    "up/%2e%2e%5cadmin",
    "up/a\\..\\..\\admin",
    "up/a%5c..%5c..%5cadmin",
    "up/..;/admin",
    "up/..;x=y/admin",
    "up/%2e%2e;/admin",
    "up/..%3b/admin",
    "up/..%3B/admin",
    "up/..%253b/admin",
    "up/.;/admin",
    "up/;/../admin",
    "up/a;/../../admin",
    "up/..%00/admin",
    "up/%00/admin",
    "up/..%20/admin",
    "up/..%09/admin",
    "up/..%0d/admin",
    "up/..%0a/admin",
    "up/%20../admin",
    "up/.%0d./admin",
    "up/..%3fx/admin",
    "up/..%23x/admin",
    "up/..%3f",
    "up/a/..%3f/admin",
    "up/%c0%ae%c0%ae/admin",
    "up/%c0%ae%c0%ae%c0%afadmin",
    "up/%e0%80%ae%e0%80%ae/admin",
    "up/%c1%9c..",
    "up/%ef%bc%8e%ef%bc%8e/admin",
    "up/%e2%80%a5/admin",
    "up/%u002e%u002e/admin",
    "up/%zz/admin",
    "up/%/admin",
    "up/%2",
    "up//../admin",
    "up//..//admin",
    "up///../../admin",
    "up/%2f../admin",
    "up/%2f%2e%2e/admin",
    "up%2f..%2fother/a",
    "up%2fa",
    "up;/../other/a",
    "up;x/a",
    "up%00/a",
    "up/..%2f..%2fother",
    "up\\a",
    "UP/a",
    "Up/a",
    "u%70/a",
    "/up/a",
    "./up/a",
    "../r/up/a",
    "up/../../r/other/a",
    "other/../up/private/x",
    "up/%2570rivate/x",
    "up/%70rivate/x",
    "up/privat%65/x",
    "up//private/x",
    "up/private%2fx",
    "up/open/..%2fprivate%2fx",
    "up/open;/../private/x",
    "up/private;a=b/x",
    "up/x//private/../a",
    "up//evil.example/private/x",
    "up/open%2fx",
    "up/a%2fb",
    "up/a;b=c/d",
    "up//a",
    "up/a%252eb/c..d",
    "up/.../a",
    "up/open/x%2fy",
    "up/open/x/..",
    "up/%6fpen/x",
    "up/open/%2e%2e/private/x",
    "up/open//x",
    "up/;a/private/x",
];

#[test]
fn no_spelling_of_a_path_leaves_its_base_or_its_route() {
    let upstream = Upstream::ok();
    let gateway = gateway(&upstream);
    let (mut refused, mut passed) = (0, 0);
    for trick in TRICKS {
        for form in ["", "http://localhost"] {
            let before = upstream.seen().len();
            let all = gateway.raw(format!("GET {form}/r/{trick} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").as_bytes());
            let status = crate::support::Reply::parse(&all).status;
            let seen = upstream.seen();
            if status != 200 {
                assert!(matches!(status, 400 | 404), "{trick}: {status}");
                assert_eq!(seen.len(), before, "{trick} was refused and sent");
                refused += 1;
                continue;
            }
            passed += 1;
            let request = seen.last().unwrap();
            let path = request.target().split('?').next().unwrap();
            let credential = request.field("authorization");
            for reading in readings(path) {
                assert!(reading.starts_with("/base/v1/") || reading == "/base/v1", "{trick}: {path} may be read as {reading}");
                let private = reading.starts_with("/base/v1/private/") || reading == "/base/v1/private";
                let own = if private { Some("Bearer private-credential") } else { credential };
                assert_eq!(credential, own, "{trick}: {path} may be read as {reading}");
                assert_ne!(credential.filter(|_| !private), Some("Bearer private-credential"), "{trick}: {path} may be read as {reading}");
            }
        }
    }
    assert!(refused > 150 && passed > 0, "{refused} refused, {passed} passed");
}

#[test]
fn honest_paths_with_every_legal_byte_pass_unchanged() {
    let upstream = Upstream::ok();
    let gateway = gateway(&upstream);
    for path in [
        "/a%2Fb",
        "//a",
        "/a//b",
        "/a;v=1",
        "/...",
        "/.well-known/x",
        "/a..b",
        "/~a",
        "/a%20b",
        "/%E2%82%AC",
        "/caf%E9",
        "/a%0Ab",
        "/a:b@c!$&'()*+,=",
        "/a%3Fb%23c",
        "/100%25",
        "/%7Bid%7D",
        "/a%252Fb",
        "/private/%2F",
        "/open/x",
    ] {
        assert_eq!(gateway.get(&format!("/r/up{path}")).status, 200, "{path}");
        assert_eq!(upstream.last().target(), format!("/base/v1{path}"));
    }
}

#[test]
fn a_parameter_that_the_gateway_owns_is_replaced_in_every_spelling_or_refused() {
    let upstream = Upstream::ok();
    let config = format!(
        "resources:\n  up:\n    base_url: {}\n    params: {{ tenant: {{ value: ours, locked: true }} }}\n    auth: {{ api_key: {{ in: query, name: api_key, value: \"${{env:K}}\" }} }}\n",
        upstream.url()
    );
    let gateway = Gateway::start_with(&config, &[("K", "query-credential")]);
    for query in [
        "api_key=mine",
        "API_KEY=mine",
        "api%5fkey=mine",
        "api.key=mine",
        "api+key=mine",
        "%20api_key=mine",
        "api_key[]=mine",
        "api_key%5B0%5D=mine",
        "api_key%00=mine",
        "tenant=mine",
        "Tenant=mine",
        "tenant[]=mine",
        "tenant=mine&tenant=mine",
        "a=1&&tenant=mine",
        "?tenant=mine",
        "tenant",
    ] {
        assert_eq!(gateway.get(&format!("/r/up/a?x=1&{query}")).status, 200, "{query}");
        let target = upstream.last().target().to_owned();
        assert!(!target.contains("mine") && target.ends_with("tenant=ours&api_key=query-credential"), "{query}: {target}");
    }
    for query in ["a=1;api_key=mine", "a;tenant=mine", "a=1&b=2;c;Tenant=mine"] {
        let reply = gateway.get(&format!("/r/up/a?{query}"));
        assert_eq!((reply.status, reply.code().as_str()), (400, "bad-path"), "{query}");
    }
    assert_eq!(gateway.get("/r/up/a?x=1;y=2").status, 200);
}
