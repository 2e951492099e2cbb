//! Consent on another device (`oauth2_device`, RFC 8628): with npm `oidc-provider` and a person on its pages, and with an
//! issuer that answers as it is told.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::issuer::{Issuer, answer, decoded, json_answer};
use crate::support::oidc::{Oidc, Person};
use crate::support::{Gateway, Upstream, eventually, free_port, postern};

const JSON: &str = "Content-Type: application/json\r\n";

/// A gateway with one resource, `api`, whose account is connected by a code.
fn gateway(api: &str, settings: &str, variables: &[(&str, &str)]) -> Gateway {
    let admin = free_port();
    let config = format!(
        "admin: {{ listen: \"127.0.0.1:{admin}\" }}\nstore: {{ file: {{ path: data }} }}\nresources:\n  api:\n    base_url: \"{api}\"\n    timeouts: {{ head: 2s }}\n    auth: {{ oauth2_device: {{ {settings} }} }}\n"
    );
    Gateway::start_with(&config, variables)
}

/// A running `postern connect api`.
struct Connect {
    child: Child,
    /// What it was told first.
    begun: Value,
    rest: BufReader<std::process::ChildStdout>,
}

fn command(gateway: &Gateway, variables: &[(&str, &str)], arguments: &[&str]) -> Command {
    let mut command = postern();
    command.args(["connect", "api", "--json", "--config"]).arg(gateway.folder.path().join("postern.yaml")).args(arguments);
    command.envs(variables.iter().copied()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

impl Connect {
    fn begin(gateway: &Gateway, variables: &[(&str, &str)]) -> Self {
        let mut child = command(gateway, variables, &["--no-browser"]).spawn().unwrap();
        let mut rest = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        rest.read_line(&mut line).unwrap();
        let begun = serde_json::from_str(&line).unwrap_or_else(|e| {
            let mut said = String::new();
            child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
            panic!("{e}: {line} {said} {}", gateway.stderr())
        });
        Self { child, begun, rest }
    }

    fn text(&self, name: &str) -> &str {
        self.begun[name].as_str().unwrap_or_else(|| panic!("{name}: {}", self.begun))
    }

    /// Its exit code, and what it says at the end.
    fn end(mut self) -> (Option<i32>, String) {
        let code = self.child.wait().unwrap().code();
        let mut said = String::new();
        self.rest.read_to_string(&mut said).unwrap();
        self.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        (code, said)
    }
}

#[test]
fn a_person_types_the_code_in_at_oidc_provider_and_the_grant_rotates_and_outlives_restarts() {
    let Some(oidc) = Oidc::start() else { return };
    let url = oidc.url();
    for (client, more) in [("device", ""), ("device-with-secret", ", client_secret: \"${env:SECRET}\"")] {
        let settings = format!(
            "device_url: \"{url}/device/auth\", token_url: \"{url}/token\", revoke_url: \"{url}/token/revocation\", client_id: {client}, scopes: [openid, offline_access]{more}"
        );
        let variables = oidc.variables();
        let mut gateway = gateway(&format!("{url}/api"), &settings, &variables);
        let missing = gateway.get("/r/api/x");
        assert_eq!((missing.status, missing.code().as_str()), (424, "connection-missing"));
        // A link that any caller could have would let them show it to somebody else.
        assert!(missing.json().get("connect_url").is_none(), "{}", missing.text());
        assert!(missing.json()["hint"].as_str().unwrap().contains("postern connect api"), "{}", missing.text());

        let connect = Connect::begin(&gateway, &variables);
        let mut person = Person::default();
        let page = person.visits(connect.text("verification_uri"));
        let page = person.submits(&page, &[("user_code", connect.text("user_code"))]);
        let end = person.goes_on(page, "alice");
        assert!(end.reply.unwrap().text().contains("Sign-in Success"));
        let (code, said) = connect.end();
        assert_eq!(code, Some(0), "{said} {}", gateway.stderr());
        assert_eq!(gateway.get("/r/api/x").json()["account"], "alice");

        // Five-second tokens: the refresh token that is used next is the one that came last.
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(6) {
            assert_eq!(gateway.get("/r/api/x").status, 200, "{}", gateway.stderr());
            std::thread::sleep(Duration::from_millis(50));
        }
        gateway.stop();
        gateway.again();
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(6) {
            assert_eq!(gateway.get("/r/api/x").status, 200, "{}", gateway.stderr());
            std::thread::sleep(Duration::from_millis(50));
        }
        assert_eq!(oidc.stats()["refused"], 0);
        let deleted = command(&gateway, &variables, &["--delete"]).output().unwrap();
        let told: Value = serde_json::from_slice(&deleted.stdout).unwrap();
        assert_eq!(told["revoked"], true, "{}", gateway.stderr());
        assert_eq!(gateway.get("/r/api/x").status, 424);
    }
}

#[test]
fn a_person_who_says_no_at_oidc_provider_connects_nothing() {
    let Some(oidc) = Oidc::start() else { return };
    let url = oidc.url();
    let settings =
        format!("device_url: \"{url}/device/auth\", token_url: \"{url}/token\", client_id: device, scopes: [openid, offline_access]");
    let gateway = gateway(&format!("{url}/api"), &settings, &[]);
    let connect = Connect::begin(&gateway, &[]);
    let mut person = Person::default();
    // The address with the code in it sends a form by itself, and then asks.
    let page = person.visits(connect.text("verification_uri_complete"));
    let page = person.submits(&page, &[]);
    person.submits(&page, &[("abort", "yes")]);
    let (code, said) = connect.end();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("denied: access_denied"), "{said}");
    assert_eq!(gateway.get("/r/api/x").status, 424);
}

/// What a device endpoint says, with a second between two questions.
fn shown() -> Value {
    json!({ "device_code": "the-device-code", "user_code": "WDJB-MJHT", "verification_uri": "https://issuer.example/device", "expires_in": 600, "interval": 1 })
}

/// An issuer whose answers to the questions are these, the last one for ever.
fn issuer(answers: &'static [(&'static str, &'static str)]) -> Issuer {
    let asked = Arc::<AtomicU32>::default();
    Issuer::answering(move |seen, _, stream| {
        if seen.target() == "/device" {
            return json_answer(stream, &shown());
        }
        let number = asked.fetch_add(1, Ordering::SeqCst) as usize;
        match answers[number.min(answers.len() - 1)] {
            ("hang up", _) => false,
            (status, body) => answer(stream, status, JSON, body),
        }
    })
}

fn settings(issuer: &Issuer) -> String {
    format!("device_url: \"{}/device\", token_url: \"{}\", client_id: id", issuer.server.url(), issuer.url())
}

const PENDING: (&str, &str) = ("400 Bad Request", r#"{"error":"authorization_pending"}"#);
const GIVEN: (&str, &str) = ("200 OK", r#"{"access_token":"the-token","refresh_token":"the-refresh-token","expires_in":3600}"#);

#[test]
fn the_issuer_is_asked_as_often_as_it_says_and_less_often_when_it_says_so() {
    let issuer = issuer(&[PENDING, ("400 Bad Request", r#"{"error":"slow_down"}"#), GIVEN]);
    let moments: Arc<std::sync::Mutex<Vec<Instant>>> = Arc::default();
    let api = Upstream::ok();
    let gateway = gateway(&api.url(), &format!("{}, scopes: [a, b], audience: them, params: {{ vendor: x }}", settings(&issuer)), &[]);
    let connect = Connect::begin(&gateway, &[]);
    assert_eq!((connect.text("user_code"), connect.text("verification_uri")), ("WDJB-MJHT", "https://issuer.example/device"));
    let form = |seen: &crate::support::Seen| decoded(&String::from_utf8_lossy(&seen.body));
    let first = issuer.server.seen().into_iter().find(|seen| seen.target() == "/device").unwrap();
    let mut wanted =
        [("scope", "a b"), ("audience", "them"), ("client_id", "id"), ("vendor", "x")].map(|(n, v)| (n.to_owned(), v.to_owned()));
    let mut sent = form(&first);
    sent.sort();
    wanted.sort();
    assert_eq!(sent, wanted);
    for number in 2..=4 {
        assert!(eventually(|| (issuer.requests() >= number).then_some(())).is_some(), "asked {} times", issuer.requests());
        moments.lock().unwrap().push(Instant::now());
    }
    let (code, said) = connect.end();
    assert_eq!(code, Some(0), "{said}");
    let moments = moments.lock().unwrap();
    assert!(moments[2].duration_since(moments[1]) >= Duration::from_millis(5500), "{:?}", moments[2].duration_since(moments[1]));
    let last = form(&issuer.server.last());
    for pair in [("grant_type", "urn:ietf:params:oauth:grant-type:device_code"), ("device_code", "the-device-code"), ("client_id", "id")] {
        assert!(last.contains(&(pair.0.into(), pair.1.into())), "{last:?}");
    }
    assert_eq!(gateway.get("/r/api/x").status, 200);
    assert_eq!(api.last().field("authorization"), Some("Bearer the-token"));
    let asked = issuer.requests();
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(issuer.requests(), asked, "it is asked on and on");
    let everything = format!("{}{said}", gateway.stderr());
    assert!(!everything.contains("the-device-code") && !everything.contains("the-token") && !everything.contains("the-refresh"));
}

#[test]
fn an_issuer_in_trouble_is_asked_again_while_the_code_lives() {
    let issuer = issuer(&[("500 Oops", ""), ("hang up", ""), PENDING, GIVEN]);
    let api = Upstream::ok();
    let gateway = gateway(&api.url(), &settings(&issuer), &[]);
    let connect = Connect::begin(&gateway, &[]);
    let (code, said) = connect.end();
    assert_eq!(code, Some(0), "{said} {}", gateway.stderr());
    assert_eq!(gateway.get("/r/api/x").status, 200);
}

#[test]
fn the_last_word_of_an_issuer_ends_it_and_nothing_is_connected() {
    for (answers, word) in [
        (
            &[PENDING, ("400 Bad Request", r#"{"error":"access_denied","error_description":"the person said no"}"#)][..],
            "denied: access_denied: the person said no",
        ),
        (&[("400 Bad Request", r#"{"error":"expired_token"}"#)], "expired: expired_token"),
        (&[("401 Unauthorized", r#"{"error":"invalid_client"}"#)], "failed: invalid_client"),
    ] {
        let issuer = issuer(Box::leak(answers.to_vec().into_boxed_slice()));
        let api = Upstream::ok();
        let gateway = gateway(&api.url(), &settings(&issuer), &[]);
        let (code, said) = Connect::begin(&gateway, &[]).end();
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains(word), "{said}");
        let asked = issuer.requests();
        assert_eq!(gateway.get("/r/api/x").status, 424);
        std::thread::sleep(Duration::from_millis(1200));
        assert_eq!(issuer.requests(), asked, "{word}: it is asked on");
        assert!(api.seen().is_empty());
    }
}

#[test]
fn a_code_that_nobody_types_in_ends_and_another_takes_its_place() {
    let issuer = Issuer::answering(|seen, number, stream| {
        if seen.target() != "/device" {
            return answer(stream, PENDING.0, JSON, PENDING.1);
        }
        let mut said = shown();
        said["expires_in"] = if number == 1 { json!(600) } else { json!("2") };
        json_answer(stream, &said)
    });
    let gateway = gateway(&Upstream::ok().url(), &settings(&issuer), &[]);
    let first = Connect::begin(&gateway, &[]);
    let second = Connect::begin(&gateway, &[]);
    let (code, said) = first.end();
    assert!(code == Some(1) && said.contains("replaced"), "{said}");
    let (code, said) = second.end();
    assert!(code == Some(1) && said.contains("expired"), "{said}");
}

#[test]
fn a_device_endpoint_that_says_something_else_is_told_apart_and_nobody_is_sent_anywhere() {
    let with = |name: &str, value: Value| {
        let mut said = shown();
        said[name] = value;
        said.to_string()
    };
    for (status, body, part) in [
        ("200 OK", "<html>hunter2hunter2</html>".to_owned(), "is no JSON"),
        ("200 OK", String::new(), "is no JSON"),
        ("500 Oops", String::new(), "is no success"),
        ("400 Bad Request", json!({ "error": "unauthorized_client" }).to_string(), "says unauthorized_client"),
        ("200 OK", json!({ "error": "invalid_scope" }).to_string(), "says invalid_scope"),
        ("200 OK", with("user_code", json!("")), "holds no `user_code`"),
        ("200 OK", with("user_code", json!("A\u{1b}[2J")), "holds no `user_code`"),
        ("200 OK", with("device_code", Value::Null), "holds no `device_code`"),
        ("200 OK", with("verification_uri", Value::Null), "holds no `verification_uri`"),
        ("200 OK", with("verification_uri", json!("http://issuer.example/device")), "not https"),
        ("200 OK", with("verification_uri", json!("javascript:alert(1)")), "not https"),
        ("200 OK", with("verification_uri_complete", json!("file:///etc/passwd")), "not https"),
        ("302 Found", String::new(), "is no success"),
    ] {
        let issuer = Issuer::answering(move |_, _, stream| answer(stream, status, JSON, &body));
        let gateway = gateway(&Upstream::ok().url(), &settings(&issuer), &[]);
        let output = command(&gateway, &[], &["--no-browser"]).output().unwrap();
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(part), "{part}: {said}");
        let everything = format!("{said}{}", gateway.stderr());
        assert!(!everything.contains("hunter2") && !everything.contains("the-device-code") && !everything.contains("WDJB"), "{everything}");
        assert_eq!(issuer.requests(), 1, "{part}");
    }
}
