//! Google's ambient identity (ruling G13): metadata server, users, federated identities, impersonation; against fakes on
//! loopback, beside PyPI's `google-auth`, which has to be content with the same fakes and to ask them the same.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::Ordering;

use serde_json::{Value, json};

use crate::support::issuer::{Issuer, answer, decoded, json_answer};
use crate::support::{Gateway, Seen, Upstream, eventually, free_port, postern, provided, root};

/// A JWT that says when it ends: far away.
const ID_TOKEN: &str = "eyJhbGciOiJSUzI1NiJ9.eyJleHAiOjQxMDAwMDAwMDB9.c2lnbmF0dXJl";
const PLATFORM: &str = "https://www.googleapis.com/auth/cloud-platform";

/// All of Google that is needed, and the machine's metadata server.
fn google() -> Issuer {
    Issuer::answering(|seen, number, stream| {
        let flavor = "Metadata-Flavor: Google\r\nContent-Type: application/json\r\n";
        let (path, query) = seen.target().split_once('?').unwrap_or((seen.target(), ""));
        let account = "/computeMetadata/v1/instance/service-accounts/default";
        if path.starts_with("/computeMetadata/") && seen.field("metadata-flavor") != Some("Google") {
            return answer(stream, "403 Forbidden", "", "");
        }
        match path {
            "/" => answer(stream, "200 OK", flavor, ""),
            _ if path == format!("{account}/") => {
                answer(stream, "200 OK", flavor, &json!({ "email": "m@p.example", "scopes": [PLATFORM] }).to_string())
            }
            _ if path == format!("{account}/token") => {
                let token =
                    json!({ "access_token": format!("machine-{}", decoded(query)[0].1), "expires_in": 3599, "token_type": "Bearer" });
                answer(stream, "200 OK", flavor, &token.to_string())
            }
            _ if path == format!("{account}/identity") => {
                answer(stream, "200 OK", "Metadata-Flavor: Google\r\nContent-Type: text/html\r\n", ID_TOKEN)
            }
            "/token" => json_answer(stream, &json!({ "access_token": "users", "expires_in": 3599, "id_token": "not.for.you" })),
            "/sts" => json_answer(
                stream,
                &json!({ "access_token": format!("federated-{number}"), "expires_in": 3599, "issued_token_type": "x", "token_type": "Bearer" }),
            ),
            "/subject" => json_answer(stream, &json!({ "value": "subject-of-url" })),
            _ if path.ends_with(":generateAccessToken") => {
                json_answer(stream, &json!({ "accessToken": "impersonated", "expireTime": "2099-01-01T00:00:00Z" }))
            }
            _ if path.ends_with(":generateIdToken") => json_answer(stream, &json!({ "token": ID_TOKEN })),
            _ => answer(stream, "404 Not Found", flavor, ""),
        }
    })
}

fn config(api: &Upstream, settings: &str) -> String {
    format!("resources:\n  api: {{ base_url: \"{}\", auth: {{ google_service_account: {{ {settings} }} }} }}\n", api.url())
}

/// Starts a gateway with these variables, calls once, and returns what the API was shown.
fn shown(api: &Upstream, settings: &str, variables: &[(&str, &str)]) -> String {
    let gateway = Gateway::start_with(&config(api, settings), variables);
    let reply = gateway.get("/r/api/x");
    assert_eq!(reply.status, 200, "{} {}", reply.text(), gateway.stderr());
    api.last().field("authorization").unwrap().to_owned()
}

/// The token that `google-auth` has with these variables; `None` where Python has not been provided.
fn by_library(arguments: &[&str], variables: &[(&str, &str)]) -> Option<String> {
    let python = provided("POSTERN_TEST_PYTHON")?;
    let mut command = Command::new(python);
    command.arg(root().join("tests/it/peers/google_adc.py")).args(arguments).env_clear().env("GOOGLE_CLOUD_PROJECT", "p");
    // It looks whether there is a metadata server at an address of its own.
    command.envs(variables.iter().filter(|(name, _)| *name == "GCE_METADATA_HOST").map(|(_, host)| ("GCE_METADATA_IP", host)));
    let output = command.envs(variables.iter().copied()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).unwrap().trim().to_owned())
}

/// Requests to this path, newest last.
fn asked(google: &Issuer, path: &str) -> Vec<Seen> {
    google.server.seen().into_iter().filter(|seen| seen.target().split('?').next() == Some(path)).collect()
}

fn form(seen: &Seen) -> Vec<(String, String)> {
    let mut form = decoded(&String::from_utf8_lossy(&seen.body));
    form.sort();
    form
}

fn written(folder: &Path, name: &str, file: &Value) -> String {
    let path = folder.join(name);
    fs::write(&path, file.to_string()).unwrap();
    path.display().to_string()
}

#[test]
fn without_a_key_the_metadata_server_says_who_the_machine_is() {
    let (google, api) = (google(), Upstream::ok());
    let host = format!("127.0.0.1:{}", google.server.port);
    let variables = [("GCE_METADATA_HOST", host.as_str()), ("HOME", "/nonexistent")];
    assert_eq!(shown(&api, "scopes: [a, b]", &variables), "Bearer machine-a,b");
    assert_eq!(shown(&api, "mode: id_token, target_audience: \"https://service.example/x?y\"", &variables), format!("Bearer {ID_TOKEN}"));
    let identity = "/computeMetadata/v1/instance/service-accounts/default/identity";
    let ours = asked(&google, identity).pop().unwrap();
    let query = |seen: &Seen| decoded(seen.target().split_once('?').unwrap().1);
    assert!(query(&ours).contains(&("audience".into(), "https://service.example/x?y".into())), "{}", ours.head);
    let Some(token) = by_library(&["access", "a", "b"], &variables) else { return };
    assert_eq!(token, "machine-a,b");
    assert_eq!(by_library(&["id", "https://service.example/x?y"], &variables).unwrap(), ID_TOKEN);
    let theirs = asked(&google, identity).pop().unwrap();
    assert_eq!(query(&ours), query(&theirs));
}

#[test]
fn a_users_credentials_are_found_where_gcloud_leaves_them_and_where_the_variable_names_them() {
    let (google, api, folder) = (google(), Upstream::ok(), tempfile::tempdir().unwrap());
    let user = json!({ "type": "authorized_user", "client_id": "cid", "client_secret": "cs", "refresh_token": "the-refresh-token", "token_uri": google.url() });
    fs::create_dir_all(folder.path().join(".config/gcloud")).unwrap();
    written(&folder.path().join(".config/gcloud"), "application_default_credentials.json", &user);
    let named = written(folder.path(), "named.json", &user);
    let home = folder.path().display().to_string();
    let sdk = folder.path().join(".config/gcloud").display().to_string();
    for variables in [[("HOME", home.as_str())], [("CLOUDSDK_CONFIG", &sdk)], [("GOOGLE_APPLICATION_CREDENTIALS", &named)]] {
        assert_eq!(shown(&api, &format!("scopes: [\"{PLATFORM}\"]"), &variables), "Bearer users");
        let wanted =
            [("client_id", "cid"), ("client_secret", "cs"), ("grant_type", "refresh_token"), ("refresh_token", "the-refresh-token")];
        assert_eq!(form(&google.server.last()), wanted.map(|(n, v)| (n.to_owned(), v.to_owned())));
    }
}

#[test]
fn a_service_accounts_key_that_the_variable_names_is_used_like_one_that_is_written() {
    let (google, api, folder) = (google(), Upstream::ok(), tempfile::tempdir().unwrap());
    let key = rcgen::KeyPair::generate().unwrap().serialize_pem();
    let file = json!({ "type": "service_account", "client_email": "a@b.example", "private_key": key, "token_uri": google.url() });
    let named = written(folder.path(), "named.json", &file);
    let variables = [("GOOGLE_APPLICATION_CREDENTIALS", named.as_str())];
    assert_eq!(shown(&api, "scopes: [a]", &variables), "Bearer users");
    assert!(form(&google.server.last()).iter().any(|(n, v)| n == "grant_type" && v.ends_with(":jwt-bearer")));
    assert!(shown(&api, "mode: self_signed_jwt", &variables).starts_with("Bearer ey"));
}

/// A federated identity whose subject comes from `source`.
fn federated(google: &Issuer, source: &Value, more: &Value) -> Value {
    let mut file = json!({
        "type": "external_account", "audience": "//iam.googleapis.com/pools/pool/providers/provider",
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt", "token_url": format!("{}/sts", google.server.url()), "credential_source": source,
    });
    file.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
    file
}

#[test]
fn a_federated_identity_is_exchanged_as_google_auth_does_it() {
    let (google, api, folder) = (google(), Upstream::ok(), tempfile::tempdir().unwrap());
    let at = folder.path();
    fs::write(at.join("token"), "subject-of-file\n").unwrap();
    fs::write(at.join("token.json"), r#"{"access":{},"jwt":"subject-of-json"}"#).unwrap();
    let file = |name: &str| at.join(name).display().to_string();
    let url = format!("{}/subject", google.server.url());
    let sources = [
        (json!({ "file": file("token") }), json!({}), "subject-of-file\n"),
        (
            json!({ "file": file("token.json"), "format": { "type": "json", "subject_token_field_name": "jwt" } }),
            json!({}),
            "subject-of-json",
        ),
        (
            json!({ "url": url, "headers": { "Metadata": "true" }, "format": { "type": "json", "subject_token_field_name": "value" } }),
            json!({ "client_id": "cid", "client_secret": "c/s+" }),
            "subject-of-url",
        ),
    ];
    for (source, more, subject) in sources {
        let named = written(at, "named.json", &federated(&google, &source, &more));
        let variables = [("GOOGLE_APPLICATION_CREDENTIALS", named.as_str())];
        assert!(shown(&api, &format!("scopes: [\"{PLATFORM}\", b]"), &variables).starts_with("Bearer federated-"));
        let ours = google.server.last();
        assert!(form(&ours).contains(&("subject_token".into(), subject.trim().into())), "{:?}", form(&ours));
        if source.get("url").is_some() {
            assert_eq!(asked(&google, "/subject").pop().unwrap().field("metadata"), Some("true"));
        }
        let Some(token) = by_library(&["access", PLATFORM, "b"], &variables) else { continue };
        assert!(token.starts_with("federated-"));
        let theirs = asked(&google, "/sts").pop().unwrap();
        // It sends the line break of the file along, which no issuer wants; all else is the same.
        let trimmed = |seen: &Seen| form(seen).into_iter().map(|(n, v)| (n, v.trim().to_owned())).collect::<Vec<_>>();
        let known = |seen: &Seen| trimmed(seen).into_iter().filter(|(n, _)| n != "options").collect::<Vec<_>>();
        assert_eq!(known(&ours), known(&theirs));
        assert_eq!(ours.field("authorization"), theirs.field("authorization"));
    }
}

#[test]
fn a_subject_token_is_read_anew_for_each_exchange() {
    let (api, folder) = (Upstream::ok(), tempfile::tempdir().unwrap());
    let google =
        Issuer::answering(|_, number, stream| json_answer(stream, &json!({ "access_token": format!("t{number}"), "expires_in": 2 })));
    let subject = folder.path().join("token");
    fs::write(&subject, "first").unwrap();
    let named = written(folder.path(), "named.json", &federated(&google, &json!({ "file": subject }), &json!({})));
    let gateway = Gateway::start_with(&config(&api, "scopes: [a]"), &[("GOOGLE_APPLICATION_CREDENTIALS", &named)]);
    assert_eq!(gateway.get("/r/api/x").status, 200);
    // Kubernetes rotates it so: another file in the place of the old one.
    fs::write(folder.path().join("next"), "second").unwrap();
    fs::rename(folder.path().join("next"), &subject).unwrap();
    let second = eventually(|| {
        assert_eq!(gateway.get("/r/api/x").status, 200);
        google.server.seen().into_iter().find(|seen| form(seen).contains(&("subject_token".into(), "second".into())))
    });
    assert!(second.is_some(), "the new subject token is never sent");
    fs::remove_file(&subject).unwrap();
    let told = eventually(|| Some(gateway.get("/r/api/x")).filter(|reply| reply.status == 503)).unwrap();
    assert!(told.json()["detail"].as_str().unwrap().contains("no subject token"), "{}", told.text());
    fs::write(&subject, "third").unwrap();
    assert!(eventually(|| (gateway.get("/r/api/x").status == 200).then_some(())).is_some(), "it does not recover");
}

#[test]
fn a_token_that_may_becomes_another_service_account() {
    let (google, api, folder) = (google(), Upstream::ok(), tempfile::tempdir().unwrap());
    let at = folder.path();
    fs::write(at.join("token"), "subject").unwrap();
    let url = format!("{}/v1/projects/-/serviceAccounts/robot@p.example:generateAccessToken", google.server.url());
    let more = json!({ "service_account_impersonation_url": url, "service_account_impersonation": { "token_lifetime_seconds": 1800 } });
    let external = federated(&google, &json!({ "file": at.join("token") }), &more);
    let user =
        json!({ "type": "authorized_user", "client_id": "cid", "client_secret": "cs", "refresh_token": "r", "token_uri": google.url() });
    let impersonated = json!({ "type": "impersonated_service_account", "source_credentials": user, "service_account_impersonation_url": url, "delegates": ["d@p.example"] });
    for (file, first, lifetime) in [(&external, "federated-", "1800s"), (&impersonated, "users", "3600s")] {
        let named = written(at, "named.json", file);
        let variables = [("GOOGLE_APPLICATION_CREDENTIALS", named.as_str())];
        assert_eq!(shown(&api, "scopes: [a, b]", &variables), "Bearer impersonated");
        let ours = google.server.last();
        assert!(ours.field("authorization").unwrap().starts_with(&format!("Bearer {first}")), "{}", ours.head);
        let body: Value = serde_json::from_slice(&ours.body).unwrap();
        assert_eq!((&body["scope"], &body["lifetime"]), (&json!(["a", "b"]), &json!(lifetime)));
        assert_eq!(body.get("delegates"), file.get("delegates"));
        assert_eq!(shown(&api, "mode: id_token, target_audience: https://service.example", &variables), format!("Bearer {ID_TOKEN}"));
        let ours = google.server.last();
        assert!(ours.target().ends_with(":generateIdToken"), "{}", ours.line());
        let body: Value = serde_json::from_slice(&ours.body).unwrap();
        assert_eq!((&body["audience"], &body["includeEmail"]), (&json!("https://service.example"), &json!(true)));
    }
    // The library does the same with the federated one.
    let named = written(at, "named.json", &external);
    let variables = [("GOOGLE_APPLICATION_CREDENTIALS", named.as_str())];
    let Some(token) = by_library(&["access", "a", "b"], &variables) else { return };
    assert_eq!(token, "impersonated");
    let theirs: Value = serde_json::from_slice(&google.server.last().body).unwrap();
    assert_eq!((&theirs["scope"], &theirs["lifetime"]), (&json!(["a", "b"]), &json!("1800s")));
    let exchange = asked(&google, "/sts").pop().unwrap();
    let ours = asked(&google, "/sts").into_iter().next().unwrap();
    assert_eq!(form(&exchange), form(&ours));
}

#[test]
fn what_an_identity_cannot_do_and_what_is_wrong_with_it_is_said_at_check() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let user =
        json!({ "type": "authorized_user", "client_id": "cid", "client_secret": "hunter2hunter2", "refresh_token": "hunter3hunter3" });
    let issuer = Issuer::minting(1);
    let external = |source: Value| federated(&issuer, &source, &json!({}));
    let cases = [
        (json!("text"), "scopes: [a]", "is no JSON"),
        (json!({}), "scopes: [a]", "says no `type`"),
        (json!({ "type": "gdch_service_account" }), "scopes: [a]", "a `type` that is not known here"),
        (json!({ "type": "authorized_user" }), "scopes: [a]", "lacks `client_id`"),
        (user.clone(), "mode: self_signed_jwt", "a self-signed JWT needs one"),
        (user.clone(), "scopes: [a], subject: alice@example.com", "acting for a `subject` needs one"),
        (user, "mode: id_token, target_audience: https://s.example", "can have no ID token"),
        (external(json!({ "environment_id": "aws1" })), "scopes: [a]", "AWS's own metadata"),
        (external(json!({ "url": "http://token.example/x" })), "scopes: [a]", "over plain http"),
        (external(json!({ "executable": { "command": "x" } })), "scopes: [a]", "`file` or `url`"),
        (external(json!({ "file": "/t", "format": { "type": "xml" } })), "scopes: [a]", "neither text nor json"),
        (external(json!({ "file": "/t", "format": { "type": "json" } })), "scopes: [a]", "lacks `subject_token_field_name`"),
        (json!({ "type": "impersonated_service_account", "source_credentials": { "type": "x" } }), "scopes: [a]", "is not known here"),
    ];
    let check = |settings: &str, variables: &[(&str, &str)]| {
        let file = at.join("postern.yaml");
        fs::write(&file, config(&Upstream::ok(), settings)).unwrap();
        let output = postern().arg("check").arg("--config").arg(&file).envs(variables.iter().copied()).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    for (file, settings, part) in cases {
        let named = written(at, "named.json", &file);
        let (code, said) = check(settings, &[("GOOGLE_APPLICATION_CREDENTIALS", &named)]);
        assert!(code == Some(3) && said.contains(part), "{part}: {code:?} {said}");
        assert!(!said.contains("hunter"), "{said}");
    }
    let (code, said) = check("scopes: [a]", &[("GOOGLE_APPLICATION_CREDENTIALS", "/nonexistent/file.json")]);
    assert!(code == Some(3) && said.contains("/nonexistent/file.json cannot be read"), "{said}");
    let (code, said) = check("mode: self_signed_jwt", &[]);
    assert!(code == Some(3) && said.contains("a self-signed JWT needs one"), "{said}");
    // Where a metadata server will be is not known here.
    assert_eq!(check("scopes: [a]", &[]).0, Some(0));
}

#[test]
fn where_there_is_no_identity_the_error_names_what_was_tried() {
    let api = Upstream::ok();
    let host = format!("127.0.0.1:{}", free_port());
    let gateway = Gateway::start_with(&config(&api, "scopes: [a]"), &[("GCE_METADATA_HOST", &host), ("HOME", "/nonexistent")]);
    let reply = gateway.get("/r/api/x");
    assert_eq!((reply.status, reply.code().as_str()), (503, "issuer-unavailable"));
    let detail = reply.json()["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("holds no key") && detail.contains("cannot be reached (request to the metadata server)"), "{detail}");
    assert!(!detail.contains("/nonexistent"), "{detail}");
    for part in ["GOOGLE_APPLICATION_CREDENTIALS is not set", "/nonexistent/.config/gcloud/application_default_credentials.json", &host] {
        assert!(gateway.stderr().contains(part), "{part}: {}", gateway.stderr());
    }
    assert!(api.seen().is_empty());
}

#[test]
fn an_identity_that_is_laid_down_later_or_replaced_is_taken_over() {
    let (google, api, folder) = (google(), Upstream::ok(), tempfile::tempdir().unwrap());
    let gcloud = folder.path().join(".config/gcloud");
    fs::create_dir_all(&gcloud).unwrap();
    let host = format!("127.0.0.1:{}", google.server.port);
    let home = folder.path().display().to_string();
    let gateway = Gateway::start_with(&config(&api, "scopes: [a]"), &[("GCE_METADATA_HOST", &host), ("HOME", &home)]);
    let becomes = |token: &str| {
        eventually(|| {
            assert_eq!(gateway.get("/r/api/x").status, 200);
            (api.last().field("authorization") == Some(&format!("Bearer {token}"))).then_some(())
        })
    };
    assert!(becomes("machine-a").is_some());
    let user =
        json!({ "type": "authorized_user", "client_id": "c", "client_secret": "s", "refresh_token": "r", "token_uri": google.url() });
    written(&gcloud, "application_default_credentials.json", &user);
    assert!(becomes("users").is_some(), "{}", gateway.stderr());
    assert_eq!(google.delay.load(Ordering::SeqCst), 0);
}
