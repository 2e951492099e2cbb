//! Where AWS credentials come from when none are written: moto's STS with IAM enforced, and on loopback the services that a
//! platform has: instance metadata, container credentials, STS, IAM Identity Center.

use std::fs;
use std::io::Write as _;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::aws_sigv4::moto;
use crate::support::relay::{bent, changed, relay, send};
use crate::support::{Gateway, Seen, Upstream, eventually};

const READER: &str = "arn:aws:iam::123456789012:role/reader";

/// A moment so many seconds from now, as AWS writes it.
fn from_now(seconds: i64) -> String {
    let moment = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(seconds);
    moment.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn reply(stream: &mut TcpStream, status: u16, kind: &str, body: &str) -> bool {
    let length = body.len();
    write!(stream, "HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n{body}").is_ok()
}

/// Credentials with this number.
fn credentials(number: u64, life: i64) -> String {
    let end = from_now(life);
    format!(
        r#"{{"Code":"Success","AccessKeyId":"AKID{number}","SecretAccessKey":"s3cret{number}","Token":"session-token-{number}","Expiration":"{end}"}}"#
    )
}

/// What STS answers.
pub fn assumed(number: u64, life: i64) -> String {
    format!(
        "<AssumeRoleResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><AssumeRoleResult><AssumedRoleUser><Arn>a</Arn></AssumedRoleUser><Credentials>\
         <AccessKeyId>AKID{number}</AccessKeyId><SecretAccessKey>s3cret{number}</SecretAccessKey><SessionToken>session-token-{number}</SessionToken>\
         <Expiration>{}</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>",
        from_now(life)
    )
}

/// A gateway for one upstream, with this environment and nothing else of ours.
fn gateway(upstream: &str, more: &str, variables: &[(&str, &str)], files: &[(&str, &str)]) -> (Gateway, tempfile::TempDir) {
    let home = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = home.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let home_text = home.path().display().to_string();
    let mut all = vec![("HOME", home_text.as_str())];
    all.extend_from_slice(variables);
    let top = if more.contains("allow_exec") { "allow_exec: true\n" } else { "" };
    let more = more.replace("allow_exec", "");
    let config = format!(
        "{top}resources:\n  up:\n    base_url: \"{upstream}\"\n    auth: {{ aws_sigv4: {{ service: s3, region: us-east-1{more} }} }}\n"
    );
    (Gateway::start_with(&config, &all), home)
}

/// Who signed a request, and with which session.
fn signer(seen: &Seen) -> (String, String) {
    let authorization = seen.field("authorization").unwrap();
    let id = authorization.split("Credential=").nth(1).unwrap().split('/').next().unwrap();
    (id.to_owned(), seen.field("x-amz-security-token").unwrap_or_default().to_owned())
}

#[test]
fn an_instances_role_is_asked_for_once_and_renewed_before_its_credentials_end() {
    let counts: Arc<[AtomicU64; 2]> = Arc::default();
    let counted = counts.clone();
    let metadata = Upstream::answering(move |seen, stream| {
        let tokened = seen.field("x-aws-ec2-metadata-token") == Some("the-token");
        match (seen.line().split(' ').next().unwrap(), seen.target()) {
            ("PUT", "/latest/api/token") if seen.field("x-aws-ec2-metadata-token-ttl-seconds").is_some() => {
                counted[0].fetch_add(1, Ordering::SeqCst);
                reply(stream, 200, "text/plain", "the-token")
            }
            ("GET", "/latest/meta-data/iam/security-credentials/") if tokened => reply(stream, 200, "text/plain", "my-role\n"),
            ("GET", "/latest/meta-data/iam/security-credentials/my-role") if tokened => {
                let number = counted[1].fetch_add(1, Ordering::SeqCst) + 1;
                reply(stream, 200, "application/json", &credentials(number, if number == 1 { 4 } else { 3600 }))
            }
            _ => reply(stream, 401, "text/plain", ""),
        }
    });
    let upstream = Upstream::ok();
    let (gateway, _home) = gateway(&upstream.url(), "", &[("AWS_EC2_METADATA_SERVICE_ENDPOINT", &metadata.url())], &[]);
    std::thread::scope(|scope| {
        for _ in 0..32 {
            scope.spawn(|| assert_eq!(gateway.get("/r/up/a").status, 200));
        }
    });
    assert_eq!(counts[0].load(Ordering::SeqCst), 1, "all who wait share one fetch");
    assert_eq!(signer(&upstream.last()), ("AKID1".into(), "session-token-1".into()));
    let renewed = eventually(|| {
        assert_eq!(gateway.get("/r/up/a").status, 200);
        Some(signer(&upstream.last())).filter(|(id, _)| id == "AKID2")
    });
    assert_eq!(renewed.unwrap().1, "session-token-2");
    assert_eq!(counts[1].load(Ordering::SeqCst), 2);
}

#[test]
fn a_containers_role_is_asked_for_with_the_token_that_its_file_holds_at_that_moment() {
    let count = Arc::new(AtomicU64::new(0));
    let counted = count.clone();
    let platform = Upstream::answering(move |seen, stream| {
        let expected = format!("token-{}", counted.load(Ordering::SeqCst));
        if seen.target() != "/v1/credentials?x=1" || seen.field("authorization") != Some(&expected) {
            return reply(stream, 400, "application/json", r#"{"code":"InvalidToken"}"#);
        }
        let number = counted.fetch_add(1, Ordering::SeqCst) + 1;
        reply(stream, 200, "application/json", &credentials(number, 2))
    });
    let upstream = Upstream::ok();
    let url = format!("{}/v1/credentials?x=1", platform.url());
    let variables = [("AWS_CONTAINER_CREDENTIALS_FULL_URI", url.as_str()), ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "~/token")];
    let (gateway, home) = gateway(&upstream.url(), "", &variables, &[("token", "token-0\n")]);
    assert_eq!(gateway.get("/r/up/a").status, 200);
    fs::write(home.path().join("token"), "token-1\n").unwrap();
    let renewed = eventually(|| {
        gateway.get("/r/up/a");
        Some(signer(&upstream.last()).0).filter(|id| id == "AKID2")
    });
    assert!(renewed.is_some());
    // Elsewhere than on this machine and at the platform's own addresses, plain http is not spoken.
    let abroad = [("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://192.0.2.1/credentials")];
    let (gateway, _home) = self::gateway(&upstream.url(), "", &abroad, &[]);
    assert_eq!(gateway.get("/r/up/a").code(), "credential-refused");
}

#[test]
fn a_web_identity_is_exchanged_at_sts_without_any_key() {
    let sts = Upstream::answering(|seen, stream| {
        let body = String::from_utf8_lossy(&seen.body).into_owned();
        let good = body.contains("Action=AssumeRoleWithWebIdentity&Version=2011-06-15")
            && body.contains("&RoleArn=arn%3Aaws%3Aiam%3A%3A1%3Arole%2Fpod&")
            && body.contains("&RoleSessionName=me")
            && body.ends_with("&WebIdentityToken=a.web.identity")
            && seen.field("authorization").is_none();
        if good {
            reply(stream, 200, "text/xml", &assumed(1, 3600))
        } else {
            reply(stream, 400, "text/xml", "<ErrorResponse><Error><Code>InvalidIdentityToken</Code></Error></ErrorResponse>")
        }
    });
    let upstream = Upstream::ok();
    let variables = [
        ("AWS_WEB_IDENTITY_TOKEN_FILE", "~/token"),
        ("AWS_ROLE_ARN", "arn:aws:iam::1:role/pod"),
        ("AWS_ROLE_SESSION_NAME", "me"),
        ("AWS_ENDPOINT_URL_STS", &sts.url()),
    ];
    let (gateway, home) = gateway(&upstream.url(), "", &variables, &[("token", "a.web.identity\n")]);
    assert_eq!(gateway.get("/r/up/a").status, 200);
    assert_eq!(signer(&upstream.last()), ("AKID1".into(), "session-token-1".into()));
    fs::write(home.path().join("token"), "another").unwrap();
    let (gateway, _home) = self::gateway(&upstream.url(), "", &variables, &[("token", "another")]);
    let seen = upstream.seen().len();
    // The platform replaces the file, so the next try may be better.
    let refused = gateway.get("/r/up/a");
    assert_eq!((refused.status, refused.code().as_str()), (503, "issuer-unavailable"));
    assert!(gateway.stderr().contains("InvalidIdentityToken") && !gateway.stderr().contains("another"), "{}", gateway.stderr());
    assert_eq!(upstream.seen().len(), seen, "the upstream was asked without credentials");
}

#[test]
fn a_role_is_assumed_by_a_signed_call_that_moto_checks_and_it_may_only_what_its_policy_says() {
    let folder = tempfile::tempdir().unwrap();
    let Some((server, id, secret)) = moto(folder.path()) else { return };
    let sts = relay(server.port);
    let role = format!(", assume_role: {{ role_arn: \"{READER}\", external_id: \"x/1\", session_name: gw, sts_url: \"{}\" }}", sts.url());
    let keys = format!(", access_key_id: \"${{env:ID}}\", secret_access_key: \"${{env:SECRET}}\"{role}");
    let (one, _home) = gateway(&server.url(), &keys, &[("ID", &id), ("SECRET", &secret)], &[]);
    let reply = one.get("/r/up/bucket/there");
    assert_eq!((reply.status, reply.text().as_str()), (200, "in moto"), "{}", one.stderr());
    assert_eq!(one.send("PUT", "/r/up/bucket/new", "", b"x").status, 403, "the role may only read");
    let call = sts.last();
    let body = String::from_utf8(call.body.clone()).unwrap();
    assert!(body.contains("&ExternalId=x%2F1") && body.contains("&RoleSessionName=gw"), "{body}");
    assert_eq!(send(server.port, &call).status, 200, "the call as it was sent");
    for (what, tampered) in [
        ("the signature", bent(&call, "Signature=", '\r')),
        ("the key", changed(&call, &id, "AKIAIOSFODNN7EXAMPLE")),
        ("the time", bent(&call, "x-amz-date: ", 'Z')),
    ] {
        assert_eq!(send(server.port, &tampered).status, 403, "{what} was changed");
    }
    // The same by the environment, and with a wrong key: nothing reaches the upstream.
    let variables = [("AWS_ACCESS_KEY_ID", id.as_str()), ("AWS_SECRET_ACCESS_KEY", secret.as_str())];
    let (two, _home) = gateway(&server.url(), &role, &variables, &[]);
    assert_eq!(two.get("/r/up/bucket/there").status, 200);
    let upstream = Upstream::ok();
    let (three, _home) =
        gateway(&upstream.url(), &role, &[("AWS_ACCESS_KEY_ID", id.as_str()), ("AWS_SECRET_ACCESS_KEY", "wrong-key-wrong-key")], &[]);
    let reply = three.get("/r/up/bucket/there");
    assert_eq!((reply.status, reply.code().as_str()), (502, "credential-refused"));
    assert_eq!(upstream.seen().len(), 0);
    assert!(!three.stderr().contains("wrong-key"), "{}", three.stderr());
}

#[test]
fn profiles_lead_to_keys_to_other_profiles_and_to_commands_where_these_are_allowed() {
    let sts = Upstream::answering(|seen, stream| {
        let body = String::from_utf8_lossy(&seen.body).into_owned();
        // The role of `leaf` is assumed with that of `middle`, which is assumed with the keys of `root`.
        let (id, _) = signer(seen);
        let number = match (id.as_str(), body.contains("role%2Fmiddle"), body.contains("role%2Fleaf")) {
            ("AKROOT", true, _) => 1,
            ("AKID1", _, true) => 2,
            _ => return reply(stream, 403, "text/xml", "<ErrorResponse><Error><Code>SignatureDoesNotMatch</Code></Error></ErrorResponse>"),
        };
        reply(stream, 200, "text/xml", &assumed(number, 3600))
    });
    let config = "[profile middle]\nrole_arn = arn:aws:iam::1:role/middle\nsource_profile = root\n[profile leaf]\nrole_arn = arn:aws:iam::1:role/leaf\n\
                  source_profile = middle\nregion = eu-west-1\n[profile circle]\nrole_arn = arn:aws:iam::1:role/leaf\nsource_profile = round\n\
                  [profile round]\nrole_arn = arn:aws:iam::1:role/leaf\nsource_profile = circle\n[profile said]\n\
                  credential_process = sh -c 'echo {\\\"Version\\\":1,\\\"AccessKeyId\\\":\\\"AKSAID\\\",\\\"SecretAccessKey\\\":\\\"x\\\"}'\n";
    let config = config.replace("\\\\\\\"", "\\\"");
    let keys = "[root]\naws_access_key_id = AKROOT\naws_secret_access_key = rootsecret\n[default]\naws_access_key_id = AKDEFAULT\naws_secret_access_key = x\n";
    let files = [(".aws/config", config.as_str()), (".aws/credentials", keys)];
    let upstream = Upstream::ok();
    let url = sts.url();
    for (more, variables, expected) in [
        ("", vec![], "AKDEFAULT"),
        (", profile: root", vec![], "AKROOT"),
        ("", vec![("AWS_PROFILE", "leaf")], "AKID2"),
        (", profile: leaf", vec![], "AKID2"),
        (", profile: said allow_exec", vec![], "AKSAID"),
    ] {
        let variables = [variables, vec![("AWS_ENDPOINT_URL_STS", url.as_str())]].concat();
        let (gateway, _home) = gateway(&upstream.url(), more, &variables, &files);
        let reply = gateway.get("/r/up/a");
        assert_eq!(reply.status, 200, "{more}: {} {}", reply.text(), gateway.stderr());
        assert_eq!(signer(&upstream.last()).0, expected, "{more}");
    }
    let seen = upstream.seen().len();
    for (profile, why) in [("circle", "lead from one to the other"), ("said", "commands are not allowed"), ("nope", "is in neither")] {
        let (gateway, _home) =
            gateway(&upstream.url(), &format!(", profile: {profile}"), &[("AWS_ENDPOINT_URL_STS", url.as_str())], &files);
        assert_eq!(gateway.get("/r/up/a").code(), "credential-refused", "{profile}");
        assert!(gateway.stderr().contains(why), "{profile}: {}", gateway.stderr());
    }
    assert_eq!(upstream.seen().len(), seen);
}

#[test]
fn identity_center_buys_credentials_with_the_session_of_its_cache_and_renews_it() {
    let portal = Upstream::answering(|seen, stream| match seen.target() {
        "/federation/credentials?role_name=Reader&account_id=123" if seen.field("x-amz-sso_bearer_token") == Some("renewed") => {
            let end = (jiff::Timestamp::now() + jiff::SignedDuration::from_secs(3600)).as_millisecond();
            let body = format!(
                r#"{{"roleCredentials":{{"accessKeyId":"AKSSO","secretAccessKey":"x","sessionToken":"sso-session-token","expiration":{end}}}}}"#
            );
            reply(stream, 200, "application/json", &body)
        }
        "/token" if String::from_utf8_lossy(&seen.body).contains(r#""refreshToken":"r3fresh""#) => {
            reply(stream, 200, "application/json", r#"{"accessToken":"renewed","expiresIn":3600}"#)
        }
        _ => reply(stream, 401, "application/json", "{}"),
    });
    let config = "[profile sso]\nsso_session = corp\nsso_account_id = 123\nsso_role_name = Reader\n[sso-session corp]\nsso_region = eu-west-1\nsso_start_url = https://x.example\n";
    // The cache's file is named by the SHA-1 of the session's name.
    let cache = ".aws/sso/cache/ad44a3dc6ef0c3ce5ab4a04d1fa94d1a1e0d6f7b.json";
    let name = {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY, b"corp");
        let hex: String = digest.as_ref().iter().map(|b| format!("{b:02x}")).collect();
        cache.replace("ad44a3dc6ef0c3ce5ab4a04d1fa94d1a1e0d6f7b", &hex)
    };
    let ended = from_now(-10);
    let session = |more: &str| format!(r#"{{"accessToken":"old","expiresAt":"{ended}"{more}}}"#);
    let renewable = session(r#","clientId":"c","clientSecret":"s","refreshToken":"r3fresh""#);
    let (upstream, url) = (Upstream::ok(), portal.url());
    let variables = [("AWS_PROFILE", "sso"), ("AWS_ENDPOINT_URL_SSO", url.as_str()), ("AWS_ENDPOINT_URL_SSO_OIDC", url.as_str())];
    let (gateway, _home) = gateway(&upstream.url(), "", &variables, &[(".aws/config", config), (&name, &renewable)]);
    let reply = gateway.get("/r/up/a");
    assert_eq!(reply.status, 200, "{} {}", reply.text(), gateway.stderr());
    assert_eq!(signer(&upstream.last()), ("AKSSO".into(), "sso-session-token".into()));
    let (gateway, _home) = self::gateway(&upstream.url(), "", &variables, &[(".aws/config", config), (&name, &session(""))]);
    assert_eq!(gateway.get("/r/up/a").code(), "credential-refused");
    assert!(gateway.stderr().contains("aws sso login"), "{}", gateway.stderr());
}

#[test]
fn a_refusal_of_ended_credentials_fetches_new_ones_once_and_one_of_a_permission_does_not() {
    let count = Arc::new(AtomicU64::new(0));
    let counted = count.clone();
    let platform = Upstream::answering(move |_, stream| {
        let number = counted.fetch_add(1, Ordering::SeqCst) + 1;
        reply(stream, 200, "application/json", &credentials(number, 3600))
    });
    let upstream = Upstream::answering(|seen, stream| match (signer(seen).0.as_str(), seen.target()) {
        ("AKID1", "/ended") => reply(stream, 403, "application/xml", "<Error><Code>ExpiredToken</Code></Error>"),
        (_, "/denied") => reply(stream, 403, "application/xml", "<Error><Code>AccessDenied</Code></Error>"),
        _ => reply(stream, 200, "text/plain", "good"),
    });
    let url = format!("{}/c", platform.url());
    let (gateway, _home) = gateway(&upstream.url(), "", &[("AWS_CONTAINER_CREDENTIALS_FULL_URI", url.as_str())], &[]);
    let denied = gateway.get("/r/up/denied");
    assert_eq!((denied.status, denied.text().as_str()), (403, "<Error><Code>AccessDenied</Code></Error>"));
    assert_eq!(count.load(Ordering::SeqCst), 1);
    let reply = gateway.send("POST", "/r/up/ended", "", b"the body");
    assert_eq!((reply.status, reply.text().as_str()), (200, "good"));
    assert_eq!((signer(&upstream.last()).0.as_str(), upstream.last().body.as_slice()), ("AKID2", &b"the body"[..]));
    assert_eq!(count.load(Ordering::SeqCst), 2);
}

#[test]
fn without_any_credentials_the_caller_is_told_and_the_upstream_is_left_alone() {
    let upstream = Upstream::ok();
    let (gateway, _home) = gateway(&upstream.url(), "", &[("AWS_EC2_METADATA_DISABLED", "true")], &[]);
    let reply = gateway.get("/r/up/a");
    assert_eq!((reply.status, reply.code().as_str()), (503, "issuer-unavailable"));
    assert!(reply.field("retry-after").is_some());
    assert_eq!(upstream.seen().len(), 0);
    let file = gateway.folder.path().join("postern.yaml");
    let mut explain = crate::support::postern();
    let output = explain.args(["explain", "GET", "/r/up/a", "--config"]).arg(file).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
