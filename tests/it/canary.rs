//! Canaries: a secret in every field that takes one, and everything that the gateway ever says searched for them.

use std::fs;
use std::io::Write as _;
use std::net::TcpStream;

use crate::support::tls::Authority;
use crate::support::{Gateway, Upstream, exchange, free_port, postern};

/// Every reference of the configuration below, with the secret behind it. Quotes and the like make escapes differ.
const SECRETS: [(&str, &str); 12] = [
    ("BEARER", "canary-bearer-7d1f0c"),
    ("USERNAME", "canary-user-name-52aa"),
    ("PASSWORD", "canary-pass \"word\" & é-99b1"),
    ("KEY_HEADER", "canary-key-header-41c0"),
    ("KEY_QUERY", "canary key/query+&=8e2d"),
    ("KEY_COOKIE", "canary-key-cookie-f00d"),
    ("KEY_PATH", "canary-key-path-6b6b"),
    ("KEY_BODY", "canary\\key\"body-1a2b"),
    ("HEADER", "canary-plain-header-aa01"),
    ("PARAM", "canary-plain-param-bb02"),
    ("COOKIE", "canary-plain-cookie-cc03"),
    ("VAR", "canary-variable-dd04"),
];

/// Which of them each resource holds.
const OWN: [(&str, &[&str]); 7] = [
    ("bearer", &["BEARER"]),
    ("basic", &["USERNAME", "PASSWORD"]),
    ("header", &["KEY_HEADER"]),
    ("query", &["KEY_QUERY"]),
    ("cookie", &["KEY_COOKIE"]),
    ("path", &["KEY_PATH"]),
    ("plain", &["HEADER", "PARAM", "COOKIE", "VAR"]),
];

fn secret(name: &str) -> &'static str {
    SECRETS.iter().find(|(of, _)| *of == name).unwrap().1
}

fn config(upstream: &Upstream, admin: u16) -> String {
    let (url, dead) = (upstream.url(), free_port());
    format!(
        r#"
server: {{ listen: ["127.0.0.1:{{port}}", {{ address: "127.0.0.1:0", tls: {{ cert: "{{dir}}/certificate.pem", key: "${{file:{{dir}}/key.pem}}" }} }}] }}
admin: {{ listen: "127.0.0.1:{admin}" }}
telemetry: {{ log: {{ level: trace }} }}
audit: {{ sinks: [ {{ file: {{ path: audit.jsonl }} }}, {{ stdout: {{}} }} ] }}
vars: {{ shared: "${{env:VAR}}" }}
resources:
  bearer: {{ base_url: "{url}", auth: {{ bearer: "${{env:BEARER}}" }} }}
  basic: {{ base_url: "{url}", auth: {{ basic: {{ username: "${{env:USERNAME}}", password: "${{env:PASSWORD}}" }} }} }}
  header: {{ base_url: "{url}", auth: {{ api_key: {{ in: header, name: X-Key, value: "${{env:KEY_HEADER}}" }} }} }}
  query: {{ base_url: "{url}", auth: {{ api_key: {{ in: query, name: key, value: "${{env:KEY_QUERY}}" }} }} }}
  cookie: {{ base_url: "{url}", auth: {{ api_key: {{ in: cookie, name: key, value: "${{env:KEY_COOKIE}}" }} }} }}
  path: {{ base_url: "{url}", auth: {{ api_key: {{ in: path, value: "${{env:KEY_PATH}}" }} }} }}
  body: {{ base_url: "{url}", auth: {{ api_key: {{ in: body, name: key, value: "${{env:KEY_BODY}}" }} }} }}
  plain:
    base_url: "{url}"
    headers: {{ X-Plain: "${{env:HEADER}}", X-Var: "${{var:shared}}", X-File: "${{file:{{dir}}/secret.txt}}" }}
    params: {{ plain: {{ value: "${{env:PARAM}}", locked: true }} }}
    cookies: {{ plain: "${{env:COOKIE}}" }}
  dead: {{ base_url: "http://127.0.0.1:{dead}", auth: {{ bearer: "${{env:BEARER}}" }} }}
"#
    )
}

/// All spellings under which a secret could stand in a text.
fn spellings(secret: &str) -> Vec<String> {
    use base64::Engine as _;
    let json = serde_json::to_string(secret).unwrap();
    let percent = percent_encoding::utf8_percent_encode(secret, percent_encoding::NON_ALPHANUMERIC).to_string();
    let inside = base64::engine::general_purpose::STANDARD.encode(format!("user:{secret}"));
    vec![
        secret.to_owned(),
        json[1..json.len() - 1].to_owned(),
        percent,
        base64::engine::general_purpose::STANDARD.encode(secret),
        // The last characters depend on what follows.
        inside[8..inside.len() - 4].to_owned(),
        format!("{:?}", secret.as_bytes()),
    ]
}

fn search(what: &str, text: &str) {
    for (name, secret) in SECRETS.into_iter().chain([("the file", "canary-of-a-file-ee05"), ("the client", "canary-of-the-client")]) {
        for spelling in spellings(secret) {
            assert!(!text.contains(&spelling), "{name} stands in {what} as {spelling}:\n{text}");
        }
    }
    assert!(!text.contains("PRIVATE KEY"), "{what}");
}

#[test]
fn no_secret_stands_in_anything_that_the_gateway_says() {
    let upstream = Upstream::answering(|seen, stream| {
        if seen.target().contains("cut") {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort").unwrap();
            return false;
        }
        if seen.target().contains("garbage") {
            stream.write_all(b"garbage\r\n\r\n").unwrap();
            return false;
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").is_ok()
    });
    let folder = tempfile::tempdir().unwrap();
    let identity = Authority::new().issue("localhost", false);
    for (name, text) in
        [("certificate.pem", identity.pem()), ("key.pem", identity.key_pem()), ("secret.txt", "canary-of-a-file-ee05\n".into())]
    {
        fs::write(folder.path().join(name), text).unwrap();
    }
    let admin = free_port();
    let config = config(&upstream, admin).replace("{dir}", &folder.path().display().to_string());
    let mut gateway = Gateway::start_with(&config, &SECRETS);
    let mut said = String::new();
    let mut calls = 0;
    let mut call = |method: &str, path: &str, fields: &str, body: &[u8]| {
        calls += 1;
        let reply = gateway.send(method, path, fields, body);
        said.push_str(&format!("{}\n{}\n", reply.head, reply.text()));
        reply.status
    };
    let json = "Content-Type: application/json\r\n";
    for name in ["bearer", "basic", "header", "query", "cookie", "path", "plain"] {
        assert_eq!(call("GET", &format!("/r/{name}/a"), "", b""), 200, "{name}");
        call("GET", &format!("/r/{name}/cut"), "", b"");
        assert_eq!(call("GET", &format!("/r/{name}/garbage"), "", b""), 502);
        // A client that knows a secret, or guesses one, does not write it into the log by asking for it.
        for secret in OWN.iter().find(|(own, _)| *own == name).unwrap().1.iter().map(|of| secret(of)) {
            let spelt = percent_encoding::utf8_percent_encode(secret, percent_encoding::NON_ALPHANUMERIC);
            call("GET", &format!("/r/{name}/{spelt}?q={spelt}"), "", b"");
            call("GET", &format!("/r/{name}/{spelt}/..?q={spelt}"), "", b"");
        }
    }
    assert_eq!(call("POST", "/r/body/a", json, b"{}"), 200);
    assert_eq!(call("POST", "/r/body/a", json, b"{\"key\":"), 400);
    assert_eq!(call("GET", "/r/dead/a", "", b""), 502);
    let own = "Authorization: Bearer canary-of-the-client\r\nPostern-Key: canary-of-the-client\r\nCookie: a=canary-of-the-client\r\n";
    assert_eq!(call("GET", "/r/bearer/a", own, b""), 200);
    assert_eq!(call("GET", "/r/bearer/..", own, b""), 400);
    assert_eq!(call("GET", "/r/nope", own, b""), 404);

    // The upstream did get every one of them: the search below is worth something.
    let arrived: String = upstream.seen().iter().map(|s| format!("{}\n{}\n", s.head, String::from_utf8_lossy(&s.body))).collect();
    for (name, secret) in SECRETS.into_iter().filter(|(name, _)| !["USERNAME", "PASSWORD"].contains(name)) {
        assert!(spellings(secret).iter().any(|s| arrived.contains(s)), "{name} never reached the upstream");
    }

    let admin = |path: &str| {
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        String::from_utf8_lossy(&exchange(TcpStream::connect(("127.0.0.1", admin)).unwrap(), request.as_bytes())).into_owned()
    };
    said.push_str(&admin("/metrics"));
    said.push_str(&admin("/readyz"));
    search("an answer", &said);
    let records = gateway.records(calls);
    search("the audit log", &records.iter().map(|r| format!("{r}\n")).collect::<String>());
    assert!(records.iter().any(|r| r["path"].as_str().unwrap().contains("[redacted]")));
    gateway.stop();
    search("standard output", &gateway.stdout());
    assert!(gateway.stdout().lines().count() >= calls);
    search("the log", &gateway.stderr());
    assert!(!gateway.stderr().is_empty());
}

#[test]
fn no_secret_stands_in_a_report_about_the_configuration() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("secret.txt"), "canary-of-a-file-ee05\nsecond line").unwrap();
    // Values that are wrong, around mistakes that are shown with their line.
    for text in [
        "resources: { a: { base_url: http://localhost, auth: { bearer: \"${env:BROKEN}\" } } }",
        "resources: { a: { base_url: http://localhost, auth: { bearer: \"${file:secret.txt}\" } } }",
        "resources: { a: { base_url: http://localhost, auth: { basic: { username: u, password: canary-bearer-7d1f0c } } } }",
        "resources: { a: { base_url: http://localhost, auth: { bearer: canary-bearer-7d1f0c } } }",
        "resources: { a: { base_url: http://localhost, auth: { api_key: { in: path, value: canary-bearer-7d1f0c, nmae: x } } } }",
        "resources: { a: { base_url: \"http://user:canary-bearer-7d1f0c@localhost\" } }",
        "resources: { a: { base_url: \"${env:BEARER}\" } }",
        "resources: { a: { base_url: \"http://localhost/${env:BEARER}?a\" } }",
        "resources: { a: { base_url: http://localhost, timeouts: { head: \"${env:BEARER}\" } } }",
        "resources: { a: { base_url: http://localhost, websocket: \"${env:BEARER}\", redirects: \"${env:BEARER}\" } }",
        "resources: { a: { base_url: http://localhost, headers: { X: \"${env:BROKEN}\" }, params: { x: [\"${env:BEARER}\"] } } }",
        "resources: { a: { base_url: http://localhost, tls: { ca: \"${env:BEARER}\", server_name: \"${env:BROKEN}\", pin_sha256: [\"${env:BEARER}\"] } } }",
        "resources: { a: { base_url: http://localhost, routes: [ { path: \"${env:BEARER}\" } ] } }",
        "server: { listen: \"${env:BEARER}\", name: \"${env:BROKEN}\", public_url: \"${env:BEARER}\" }",
        "audit: { sinks: [ { file: { path: x, rotate: \"${env:BEARER}\" } } ] }",
        "resources: { a: { base_url: http://localhost, auth: { bearer: canary-bearer-7d1f0c\n",
        "vars: { a: canary-bearer-7d1f0c }\nresources: { a: { base_url: \"http://${var:b}\", auth: { bearer: \"${var:a}\" } } }\n  bad",
    ] {
        let file = folder.path().join("postern.yaml");
        fs::write(&file, text).unwrap();
        for more in [&[][..], &["--json"][..]] {
            let output = postern()
                .args(["check", "--config"])
                .arg(&file)
                .args(more)
                .envs(SECRETS)
                .env("BROKEN", "canary-bearer-7d1f0c\r\nX-Injected: 1")
                .output()
                .unwrap();
            let all = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            // A variable is no secret field, and a literal in a URL is shown as it stands in the file.
            let literal = text.starts_with("vars") || text.contains("user:canary");
            if !literal {
                search(text, &all);
            }
            assert_eq!(output.status.code(), Some(3), "{text}: {all}");
        }
    }
}
