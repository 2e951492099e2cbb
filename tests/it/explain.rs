//! `explain` says what the wire says: over every example, part by part, with nothing sent and no secret shown.

use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::issuer::{Issuer, answer, json_answer, minted};
use crate::support::{Gateway, Seen, Upstream, postern, root, sample_variables};

/// Every variable that an example reads, and its value.
fn variables(text: &str) -> Vec<(String, String)> {
    let names = text.match_indices("${env:").map(|(at, _)| &text[at + 6..]);
    let mut names: Vec<&str> =
        names.filter(|rest| !rest.split('}').next().unwrap().contains(":-")).map(|rest| rest.split(['}', ':']).next().unwrap()).collect();
    names.sort_unstable();
    names.dedup();
    let mut all: Vec<(String, String)> =
        names.into_iter().filter(|n| *n != "NAME").map(|name| (name.to_owned(), format!("secret-of-{}", name.to_lowercase()))).collect();
    // Keys must be keys.
    let keys = sample_variables(text).into_iter().filter(|(name, _)| name.ends_with("_KEY") && !name.starts_with("API"));
    for (name, key) in keys.filter(|(_, value)| value.len() > 60) {
        all.iter_mut().filter(|(n, _)| *n == name).for_each(|(_, value)| value.clone_from(&key));
    }
    all
}

fn explain(config: &Path, variables: &[(String, String)], args: &[&str]) -> (Value, String) {
    let mut command = postern();
    command.args(["explain", "--config"]).arg(config).args(args).envs(variables.iter().map(|(n, v)| (n, v)));
    let text = command.output().unwrap();
    let json = command.arg("--json").output().unwrap();
    let said = String::from_utf8_lossy(&text.stdout).into_owned();
    assert_eq!(json.status.code(), Some(0), "{}", String::from_utf8_lossy(&json.stderr));
    for (_, value) in variables.iter().filter(|(name, _)| !name.starts_with("POSTERN_")) {
        assert!(!said.contains(value.as_str()) && !String::from_utf8_lossy(&json.stdout).contains(value.as_str()), "{said}");
    }
    (serde_json::from_slice(&json.stdout).unwrap(), said)
}

/// Whether `real` is `shown` with something in every place that was redacted, or where a token would stand.
fn agrees(shown: &str, real: &str) -> bool {
    let shown = shown.replace("[to be fetched]", "[redacted]");
    let mut pieces = shown.split("[redacted]");
    let Some(mut rest) = real.strip_prefix(pieces.next().unwrap()) else { return false };
    let pieces: Vec<&str> = pieces.collect();
    for (at, piece) in pieces.iter().enumerate() {
        if at + 1 == pieces.len() {
            return rest.ends_with(piece);
        }
        let Some(found) = rest.find(piece) else { return false };
        rest = &rest[found + piece.len()..];
    }
    rest.is_empty()
}

/// Compares what was explained with what an upstream got, part by part and in order.
fn compare(explained: &Value, seen: &Seen, volatile: &[String], what: &str) {
    let request = &explained["request"];
    assert_eq!(explained["forwarded"], true, "{what}: {explained}");
    let line = format!("{} {} HTTP/1.1", request["method"].as_str().unwrap(), request["target"].as_str().unwrap());
    assert!(agrees(&line, seen.line()), "{what}\n{line}\n{}", seen.line());
    let shown: Vec<String> = request["headers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|h| format!("{}: {}", h["name"].as_str().unwrap(), h["value"].as_str().unwrap()))
        .collect();
    let real: Vec<&str> = seen.head.lines().skip(1).collect();
    assert_eq!(shown.len(), real.len(), "{what}\n{shown:#?}\n{real:#?}");
    for (shown, real) in shown.iter().zip(real) {
        let name = |line: &str| line.split(':').next().unwrap().to_owned();
        let same = if volatile.contains(&name(shown)) {
            // Its value is another one each time, and a time's fraction has as many digits as it needs; or it is not shown.
            name(shown) == name(real) && (shown.len().abs_diff(real.len()) < 10 || shown.ends_with(": [redacted]"))
        } else {
            agrees(shown, real)
        };
        assert!(same, "{what}\n{shown}\n{real}");
    }
    let body = String::from_utf8_lossy(&seen.raw_body).into_owned();
    assert!(agrees(request["body"].as_str().unwrap(), &body), "{what}\n{}\n{body}", request["body"]);
}

const CALLS: [(&str, &str, &[&str], &str); 3] = [
    ("GET", "/public/news?page=2&x=%7e&flag&empty=", &["Accept: text/plain", "X-Own: 1", "Cookie: mine=1"], ""),
    ("POST", "/reports/7/export", &["Content-Type: application/json"], "{\"q\": [1, 2]}"),
    ("GET", "", &["Accept: */*", "Authorization: Bearer mine", "User-Agent: curl/8"], ""),
];

/// An upstream that answers every call, those of logins included, with what any example captures.
fn lets_in(seen: &Seen, stream: &mut TcpStream) -> bool {
    if seen.target() == "/login/" && seen.line().starts_with("GET") {
        let page = "<form id=\"login-form\"><input name=csrfmiddlewaretoken value=c></form>";
        return answer(stream, "200 OK", "Content-Type: text/html\r\nSet-Cookie: csrftoken=t; Path=/\r\n", page);
    }
    if seen.field("content-type") == Some("application/xml") && seen.target() == "/login" {
        let xml = "<response><session region=\"eu\"><id>s</id></session></response>";
        return answer(stream, "200 OK", "Content-Type: application/xml\r\n", xml);
    }
    let all = json!({
        "ok": true, "code": "c", "accounts": [{ "id": 42 }], "token": "t", "expires_in": 3600, "refresh_token": "r",
        "data": { "login": { "token": "g" } }, "session": "s", "tenant": { "id": 7 }, "url": format!("http://{}", seen.field("host").unwrap_or_default())
    });
    let fields = "Content-Type: application/json\r\nX-Key: k\r\nSet-Cookie: JSESSIONID=j; Path=/\r\n";
    answer(stream, "200 OK", fields, &all.to_string())
}

#[test]
fn explain_and_the_wire_agree_over_every_example() {
    let mut files: Vec<_> = fs::read_dir(root().join("config/examples")).unwrap().flatten().map(|e| e.path()).collect();
    files.retain(|p| p.extension().is_some_and(|e| e == "yaml"));
    files.push(root().join("config/postern.yaml"));
    assert!(files.len() > 15);
    let mut compared = 0;
    for file in files {
        let upstream = Upstream::answering(lets_in);
        let text = fs::read_to_string(&file).unwrap();
        let issuer = Issuer::answering(|seen, number, stream| {
            if String::from_utf8_lossy(&seen.body).starts_with("Action=AssumeRole") {
                return crate::support::issuer::answer(stream, "200 OK", "", &crate::aws_chain::assumed(1, 3600));
            }
            if seen.target().contains("/identity?") {
                return crate::support::issuer::answer(stream, "200 OK", "", "e30.e30.c2ln");
            }
            let mut answer = minted(number, 3600);
            answer["organisation"] = json!({ "id": "acme" });
            answer["bot"] = json!({ "access_token": "of-a-bot" });
            answer["instance_url"] = json!("https://acme.my.crm.example");
            // Of the realm `acme`.
            answer["id_token"] = json!("e30.eyJyZWFsbSI6ImFjbWUifQ.c2ln");
            answer["data"] = json!({ "session": "of-a-login", "valid_until": "2999-01-01T00:00:00Z" });
            json_answer(stream, &answer)
        });
        let mut variables = variables(&text);
        variables.iter_mut().for_each(|(_, value)| *value = value.replace("https://issuer.example/token", &issuer.url()));
        // Fields whose expressions read the attempt's own time or identifier.
        let per_attempt = |line: &&str| line.contains("{{") && ["uuid", "now"].iter().any(|word| line.contains(word));
        let volatile: Vec<String> =
            text.lines().filter(per_attempt).map(|line| line.trim().split(':').next().unwrap().to_lowercase()).collect();
        // The same file, but its upstreams are the test's, and nothing of it listens where another test may.
        let moved = moved(&text, &upstream.url(), &issuer);
        let mut pairs: Vec<(&str, &str)> = variables.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        // Where a machine would say who it is.
        let machine = issuer.server.url().replace("http://", "");
        pairs.push(("GCE_METADATA_HOST", &machine));
        let sts = issuer.server.url();
        pairs.extend([("AWS_ACCESS_KEY_ID", "AKID0"), ("AWS_SECRET_ACCESS_KEY", "s3cret0"), ("AWS_ENDPOINT_URL_STS", &sts)]);
        let gateway = Gateway::start_with(&moved, &pairs);
        let config = gateway.folder.path().join("postern.yaml");
        let listed = Command::new(env!("CARGO_BIN_EXE_postern"))
            .env_clear()
            .envs(pairs.iter().copied())
            .args(["list", "--json", "--config"])
            .arg(&config)
            .output()
            .unwrap();
        let resources: Vec<Value> = serde_json::from_slice(&listed.stdout).unwrap();
        for resource in resources.iter().map(|r| r["name"].as_str().unwrap()) {
            for (method, rest, fields, body) in CALLS {
                let id = format!("X-Request-Id: call-{compared}");
                let path = format!("/r/{resource}{rest}");
                let all: Vec<&str> = fields.iter().copied().chain([id.as_str()]).collect();
                let what = format!("{} {method} {path}", file.display());
                let mut args = vec![method, path.as_str()];
                // The very request that the test's client sends.
                args.extend(["-H", "Connection: close"]);
                all.iter().for_each(|f| args.extend(["-H", f]));
                if !body.is_empty() {
                    args.extend(["-d", body]);
                }
                let before = upstream.seen().len();
                let (explained, _) = explain(&config, &variables, &args);
                assert_eq!(upstream.seen().len(), before, "{what}: explaining sends nothing");
                let sent: String = all.iter().map(|f| format!("{f}\r\n")).collect();
                let reply = gateway.send(method, &path, &sent, body.as_bytes());
                if reply.status == 424 {
                    // Explaining shows where a token would go, whoever's it would be.
                    assert_eq!(explained["refused"], Value::Null, "{what}");
                    continue;
                }
                if reply.status >= 400 && upstream.seen().len() == before {
                    assert_eq!(explained["refused"]["code"], reply.json()["code"], "{what}");
                    continue;
                }
                compare(&explained, &upstream.seen().pop().unwrap(), &volatile, &what);
                compared += 1;
            }
        }
    }
    assert!(compared > 40, "{compared}");
}

/// An example with its upstreams and issuers replaced, and its own listeners and logs taken away.
fn moved(text: &str, url: &str, issuer: &Issuer) -> String {
    let mut out = "server: { listen: \"127.0.0.1:{port}\", name: under-test, workers: 2 }\n".to_owned();
    let mut skipping = false;
    for line in text.lines() {
        if !line.starts_with([' ', '#']) && !line.is_empty() {
            skipping = ["server:", "admin:", "health:", "mock:", "audit:", "telemetry:"].iter().any(|key| line.starts_with(key));
        }
        if skipping {
            continue;
        }
        if let Some((before, _)) = line.split_once("token_url: ") {
            out.push_str(&format!("{before}token_url: \"{}\"\n", issuer.url()));
            continue;
        }
        if let Some((before, _)) = line.split_once("domain: ") {
            out.push_str(&format!("{before}domain: \"{}\"\n", issuer.server.url()));
            continue;
        }
        match line.find("base_url: ") {
            Some(at) if !line.trim_start().starts_with('#') => {
                let value = line[at + 10..].split(" #").next().unwrap().trim().trim_matches('"');
                let behind = value.split_once("://").map_or(value, |(_, rest)| rest);
                let path = behind.split_once('/').map_or(String::new(), |(_, path)| format!("/{path}"));
                out.push_str(&format!("{}base_url: \"{url}{path}\"\n", &line[..at]));
            }
            // The test's upstream shows HTTP/1.1, as `explain` does.
            _ if line.trim() == "versions: [2]" => out.push_str(&line.replace("[2]", "[1.1]\n")),
            _ => {
                out.push_str(line);
                out.push('\n');
            }
        }
    }
    out
}

const LAYERED: &str = "
environment: prod
vars: { tenant: acme }
defaults: { headers: { X-Default: d } }
environments:
  prod:
    resources: { api: { headers: { X-Stage: prod } } }
resources:
  api:
    base_url: https://api.example.com/v1
    auth: { bearer: \"${env:TOKEN}\" }
    headers: { Accept: application/json, X-Tenant: \"${var:tenant}\", X-Short: \"${env:SHORT}\", User-Agent: { value: acme/1, locked: true } }
    params: { per_page: \"100\", key: \"${env:SHORT}\" }
    routes:
      - { path: /open/**, auth: none, headers: { Accept: text/csv } }
";

fn layered() -> (tempfile::TempDir, Vec<(String, String)>) {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("postern.yaml"), LAYERED).unwrap();
    (folder, vec![("TOKEN".into(), "hunter2hunter2".into()), ("SHORT".into(), "s3x".into())])
}

#[test]
fn each_part_names_who_said_it() {
    let (folder, mut variables) = layered();
    // The value of this one is no secret, and is shown.
    variables.push(("POSTERN_RESOURCES__API__HEADERS__X_TENANT".into(), "tenant-by-variable".into()));
    let config = folder.path().join("postern.yaml");
    let args = ["GET", "/r/api/users?page=2", "-H", "X-Own: 1", "-H", "User-Agent: mine", "--set", "resources.api.params.per_page=5"];
    let (explained, text) = explain(&config, &variables, &args);
    let from = |name: &str| -> (String, String) {
        let all = explained["request"]["headers"].as_array().unwrap().iter().chain(explained["request"]["params"].as_array().unwrap());
        let part = all
            .into_iter()
            .find(|p| p["name"].as_str().unwrap().eq_ignore_ascii_case(name))
            .unwrap_or_else(|| panic!("{name}: {explained}"));
        (part["value"].as_str().unwrap().to_owned(), format!("{}:{}", part["from"]["layer"].as_str().unwrap(), part["from"]["line"]))
    };
    let file = config.display().to_string();
    let at = |line: u32| format!("{file}:{line}");
    for (name, value, said) in [
        ("authorization", "Bearer [redacted]", at(11)),
        ("accept", "application/json", at(12)),
        ("x-short", "[redacted]", at(12)),
        ("user-agent", "acme/1", at(12)),
        ("x-default", "d", at(4)),
        ("x-stage", "prod", at(7)),
        ("x-tenant", "tenant-by-variable", "environment variable POSTERN_RESOURCES__API__HEADERS__X_TENANT:1".into()),
        ("per_page", "5", "--set:1".into()),
        ("key", "[redacted]", at(13)),
        ("x-own", "1", "client:null".into()),
        ("page", "2", "client:null".into()),
        ("host", "api.example.com", "gateway:null".into()),
    ] {
        assert_eq!(from(name), (value.to_owned(), said), "{name}");
    }
    assert_eq!(explained["request"]["url"], "https://api.example.com/v1/users?page=2&per_page=5&key=[redacted]");
    assert_eq!((&explained["environment"], &explained["route"]), (&"prod".into(), &Value::Null));
    for part in
        ["GET https://api.example.com/v1/users", "resources.api.auth (", "postern.yaml:11)", "--set:1)", "nothing was sent", "rule: "]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn the_route_that_decides_is_named_and_a_refusal_is_explained() {
    let (folder, variables) = layered();
    let config = folder.path().join("postern.yaml");
    let (explained, text) = explain(&config, &variables, &["GET", "http://127.0.0.1:8080/r/api/open/x"]);
    assert_eq!(explained["route"]["path"], "resources.api.routes[0]");
    assert!(
        !text.contains("authorization") && text.contains("accept: text/csv") && text.contains("resources.api.routes[0].headers.accept"),
        "{text}"
    );
    for (args, code) in [
        (&["GET", "/r/nope/x"][..], "unknown-resource"),
        (&["GET", "/r/api/../x"], "bad-path"),
        (&["TRACE", "/r/api/x"], "method-not-allowed"),
        (&["GET", "http://evil.example/r/api/x"], "cross-site"),
        (&["GET", "/r/api/x", "-H", "Origin: https://evil.example"], "cross-site"),
        (&["POST", "/r/api/x", "-d", "a", "-H", "Transfer-Encoding: chunked", "-H", "Content-Length: 1"], "bad-request"),
    ] {
        let (explained, text) = explain(&config, &variables, args);
        assert_eq!((&explained["forwarded"], &explained["refused"]["code"]), (&false.into(), &code.into()), "{args:?}: {explained}");
        assert!(text.contains(&format!("{code}: ")) && text.contains("nothing was sent"), "{text}");
    }
}

#[test]
fn what_cannot_be_explained_is_an_error() {
    let (folder, variables) = layered();
    let run = |args: &[&str]| {
        let mut command = postern();
        command.arg("explain").args(args).current_dir(folder.path()).envs(variables.iter().map(|(n, v)| (n, v)));
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for (args, code, part) in [
        (&["GET"][..], 2, "URL"),
        (&["GET", "r/api/x y"], 1, "percent-encode"),
        (&["GET", "/r/api/x", "-H", "nonsense"], 1, "no field"),
        (&["GET", "/r/api/x", "--client", "billing"], 1, "no client `billing`"),
        (&["GET", "/r/api/x", "-d", "@nope"], 1, "nope"),
        (&["GET", "/r/api/x", "--set", "server.lisen=1"], 3, "unknown key"),
    ] {
        let (exit, said) = run(args);
        assert!(exit == Some(code) && said.contains(part), "{args:?}: {exit:?} {said}");
    }
}
