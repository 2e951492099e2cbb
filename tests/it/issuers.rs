//! Tokens against programs that no one here wrote: npm `oidc-provider`, a certified issuer, with tokens that live five
//! seconds; a simulator of Auth0; and Google's assertions under PyPI `google-auth` and `pyjwt`.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::signature::KeyPair as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::support::issuer::{Issuer, decoded, json_answer};
use crate::support::oidc::{Oidc, Person};
use crate::support::tls::Authority;
use crate::support::{Gateway, Upstream, provided, root};

/// A resource in front of the issuer's API.
fn resource(oidc: &Oidc, name: &str, scheme: &str, settings: &str) -> String {
    let url = oidc.url();
    format!("  {name}: {{ base_url: \"{url}/api\", auth: {{ {scheme}: {{ token_url: \"{url}/token\", {settings} }} }} }}\n")
}

#[test]
fn oidc_provider_takes_every_way_to_say_who_the_client_is_and_resource_indicators() {
    let Some(oidc) = Oidc::start() else { return };
    let clients = "oauth2_client_credentials";
    let secret = "client_secret: \"${env:SECRET}\"";
    let mut config = "resources:\n".to_owned();
    for (name, settings) in [
        ("by-basic", format!("client_id: by-basic, {secret}")),
        ("by-post", format!("client_id: by-post, {secret}, client_auth: post")),
        ("by-secret-jwt", format!("client_id: by-secret-jwt, {secret}, client_auth: client_secret_jwt")),
        ("by-key-jwt", "client_id: by-key-jwt, private_key: \"${env:KEY}\", key_id: k1".to_owned()),
        ("by-ps256", "client_id: by-ps256, private_key: \"${env:KEY}\", algorithm: PS256".to_owned()),
        ("by-es256", "client_id: by-es256, private_key: \"${env:EC_KEY}\"".to_owned()),
        ("by-eddsa", "client_id: by-eddsa, private_key: \"${env:ED_KEY}\"".to_owned()),
        // Another client's key, and the right key under an algorithm that the client is not known for.
        ("other-key", "client_id: by-es256, private_key: \"${env:KEY}\"".to_owned()),
        ("other-algorithm", "client_id: by-ps256, private_key: \"${env:KEY}\"".to_owned()),
        // The very secret unencoded is another one to a server that decodes it.
        ("raw", format!("client_id: by-basic, {secret}, client_auth: basic_raw")),
    ] {
        let indicated = format!("{settings}, scopes: [read], resource: https://api.example/v1");
        config.push_str(&resource(&oidc, name, clients, &indicated));
    }
    config.push_str(&resource(&oidc, "stranger", clients, &format!("client_id: by-basic, {secret}, resource: https://other.example")));
    let gateway = Gateway::start_with(&config, &oidc.variables());
    for client in ["by-basic", "by-post", "by-secret-jwt", "by-key-jwt", "by-ps256", "by-es256", "by-eddsa"] {
        let reply = gateway.get(&format!("/r/{client}/x"));
        assert_eq!(reply.status, 200, "{client}: {} {}", reply.text(), gateway.stderr());
        assert_eq!(reply.json(), json!({ "client": client, "scope": "read", "aud": "https://api.example/v1" }));
    }
    let wrong = [("raw", "invalid_client"), ("other-key", "invalid_client"), ("other-algorithm", "invalid_client")];
    for (name, code) in wrong.into_iter().chain([("stranger", "invalid_target")]) {
        let reply = gateway.get(&format!("/r/{name}/x"));
        assert_eq!((reply.status, reply.code().as_str()), (503, "issuer-unavailable"));
        assert!(reply.json()["detail"].as_str().unwrap().contains(code), "{}", reply.text());
    }
}

/// Calls for so long, each of which must succeed.
fn calls(gateway: &Gateway, path: &str, time: Duration) -> u32 {
    let (began, mut count) = (Instant::now(), 0);
    while began.elapsed() < time {
        let reply = gateway.get(path);
        assert_eq!(reply.status, 200, "{} {}", reply.text(), gateway.stderr());
        count += 1;
        std::thread::sleep(Duration::from_millis(20));
    }
    count
}

#[test]
fn five_second_tokens_of_oidc_provider_are_renewed_while_they_are_served() {
    let Some(oidc) = Oidc::start() else { return };
    let settings = "client_id: by-basic, client_secret: \"${env:SECRET}\", scopes: [read], resource: https://api.example/v1";
    let config = format!("resources:\n{}", resource(&oidc, "api", "oauth2_client_credentials", settings));
    let gateway = Gateway::start_with(&config, &oidc.variables());
    calls(&gateway, "/r/api/x", Duration::from_secs(9));
    let stats = oidc.stats();
    assert_eq!(stats["refused"], 0, "a dead token reached the API: {stats}");
    assert!((2..=6).contains(&stats["token"].as_u64().unwrap()), "{stats}");
}

#[test]
fn a_rotating_refresh_token_of_oidc_provider_lives_through_restarts_and_reuse_ends_it() {
    let Some(oidc) = Oidc::start() else { return };
    let settings = "client_id: rotating, client_secret: \"${env:SECRET}\", refresh_token: \"${env:REFRESH}\"";
    let config =
        format!("store: {{ file: {{ path: data }} }}\nresources:\n{}", resource(&oidc, "api", "oauth2_authorization_code", settings));
    let mut gateway = Gateway::start_with(&config, &oidc.variables());
    calls(&gateway, "/r/api/x", Duration::from_secs(6));
    gateway.stop();
    gateway.again();
    calls(&gateway, "/r/api/x", Duration::from_secs(6));
    let stats = oidc.stats();
    assert!(stats["token"].as_u64().unwrap() >= 3 && stats["refused"] == 0, "{stats}");

    // Somebody else with the first token, which is spent: the issuer takes it for theft and ends the grant.
    let thief = Gateway::start_with(&config, &oidc.variables());
    let reply = thief.get("/r/api/x");
    assert_eq!((reply.status, reply.code().as_str()), (502, "credential-refused"));
    let ended = crate::support::eventually(|| {
        let reply = gateway.get("/r/api/x");
        assert!(matches!(reply.status, 200 | 502), "{} {}", reply.status, reply.text());
        (reply.status == 502).then(|| reply.code())
    });
    assert_eq!(ended.as_deref(), Some("credential-refused"));
    let asked = oidc.stats()["token"].clone();
    (0..5).for_each(|_| assert_eq!(gateway.get("/r/api/x").status, 502));
    assert_eq!(oidc.stats()["token"], asked, "a refused grant is tried again");
}

#[test]
fn a_client_without_a_secret_is_its_id_to_oidc_provider_and_its_refresh_token_rotates() {
    let Some(oidc) = Oidc::start() else { return };
    let settings = "client_id: public, client_auth: none, refresh_token: \"${env:PUBLIC_REFRESH}\"";
    let config =
        format!("store: {{ file: {{ path: data }} }}\nresources:\n{}", resource(&oidc, "api", "oauth2_authorization_code", settings));
    let gateway = Gateway::start_with(&config, &oidc.variables());
    calls(&gateway, "/r/api/x", Duration::from_secs(6));
    let stats = oidc.stats();
    assert!(stats["token"].as_u64().unwrap() >= 2 && stats["refused"] == 0, "{stats}");
}

#[test]
fn a_token_that_was_revoked_at_oidc_provider_is_renewed_by_the_call_that_finds_out() {
    let Some(oidc) = Oidc::start() else { return };
    let settings = "client_id: by-basic, client_secret: \"${env:SECRET}\", scopes: [read], resource: https://api.example/v1";
    let config = format!("resources:\n{}", resource(&oidc, "api", "oauth2_client_credentials", settings));
    let gateway = Gateway::start_with(&config, &oidc.variables());
    let token = || gateway.get("/r/api/token").json()["token"].as_str().unwrap().to_owned();
    let ask = |path: &str, token: &str| {
        let encode = |text: &str| percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string();
        let more = format!(
            "Content-Type: application/x-www-form-urlencoded\r\nAuthorization: Basic {}\r\n",
            STANDARD.encode(format!("by-basic:{}", encode(oidc.fact("secret"))))
        );
        oidc.request("POST", path, &more, &format!("token={token}"))
    };
    let first = token();
    let active = |token: &str| ask("/token/introspection", token).json()["active"].clone();
    assert_eq!(active(&first), true);
    assert_eq!(ask("/token/revocation", &first).status, 200);
    assert_eq!(active(&first), false);
    let second = token();
    assert!(second != first && active(&second) == true);
    assert_eq!((oidc.stats()["refused"].clone(), oidc.stats()["token"].clone()), (json!(1), json!(2)));
}

#[test]
fn a_person_signs_in_and_consents_on_the_pages_of_oidc_provider() {
    let Some(oidc) = Oidc::start_with(&json!({ "redirect_uris": ["https://client.example/back"] })) else { return };
    let query = "client_id=web&response_type=code&scope=openid%20offline_access&prompt=consent&state=s&redirect_uri=https%3A%2F%2Fclient.example%2Fback&code_challenge=E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM&code_challenge_method=S256";
    let end = Person::default().consents(&format!("{}/auth?{query}", oidc.url()), "alice");
    let (to, query) = end.url.split_once('?').unwrap();
    assert_eq!((to, end.reply.is_none()), ("https://client.example/back", true));
    let pairs = decoded(query);
    assert!(pairs.iter().any(|(n, v)| n == "code" && !v.is_empty()), "{query}");
    assert!(pairs.contains(&("state".into(), "s".into())) && pairs.contains(&("iss".into(), oidc.url())), "{query}");
}

fn pem(label: &str, der: &[u8]) -> String {
    let body = STANDARD.encode(der);
    let lines: Vec<&str> = body.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

/// An RSA key: private and public, as PEM.
fn rsa() -> (String, String) {
    let pair = aws_lc_rs::rsa::KeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048).unwrap();
    let private: Pkcs8V1Der<'_> = pair.as_der().unwrap();
    let public: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
    (pem("PRIVATE KEY", private.as_ref()), pem("PUBLIC KEY", public.as_ref()))
}

/// Header and claims, by two libraries.
fn verified(python: &str, token: &str, public: &str, audience: &str) -> Value {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key.pem");
    std::fs::write(&file, public).unwrap();
    let output = Command::new(python).arg(root().join("tests/it/peers/assertion.py")).arg(token).arg(&file).arg(audience).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn googles_assertions_pass_google_auth_and_pyjwt_in_all_three_modes() {
    let Some(python) = provided("POSTERN_TEST_PYTHON") else { return };
    let (private, public) = rsa();
    let issuer = Issuer::answering(|_, _, stream| {
        json_answer(stream, &json!({ "access_token": "ya29.access", "id_token": "the-id-token", "expires_in": 3599 }))
    });
    let api = Upstream::ok();
    let key = json!({ "type": "service_account", "client_email": "robot@project.example", "private_key": private, "private_key_id": "kid-1", "token_uri": issuer.url(), "client_id": "1" });
    let start = |settings: &str| {
        let config = format!(
            "resources:\n  api: {{ base_url: \"{}\", auth: {{ google_service_account: {{ key: \"${{env:GOOGLE_KEY}}\", {settings} }} }} }}\n",
            api.url()
        );
        let gateway = Gateway::start_with(&config, &[("GOOGLE_KEY", &key.to_string())]);
        let reply = gateway.get("/r/api/x");
        assert_eq!(reply.status, 200, "{}", reply.text());
        gateway
    };
    let assertion = || {
        let form = decoded(&String::from_utf8_lossy(&issuer.server.last().body));
        assert!(form.contains(&("grant_type".into(), "urn:ietf:params:oauth:grant-type:jwt-bearer".into())), "{form:?}");
        form.into_iter().find(|(n, _)| n == "assertion").unwrap().1
    };

    start("scopes: [a, b], subject: alice@example.com");
    assert_eq!(api.last().field("authorization"), Some("Bearer ya29.access"));
    let found = verified(&python, &assertion(), &public, &issuer.url());
    assert_eq!((&found["header"]["kid"], &found["header"]["alg"]), (&json!("kid-1"), &json!("RS256")));
    let claims = &found["claims"];
    assert_eq!(
        (&claims["iss"], &claims["scope"], &claims["sub"]),
        (&json!("robot@project.example"), &json!("a b"), &json!("alice@example.com"))
    );
    assert!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap() <= 3600);

    start("mode: id_token, target_audience: https://service.example");
    assert_eq!(api.last().field("authorization"), Some("Bearer the-id-token"));
    let found = verified(&python, &assertion(), &public, &issuer.url());
    assert_eq!(found["claims"]["target_audience"], "https://service.example");
    assert_eq!(found["claims"].get("sub"), None);

    let asked = issuer.requests();
    for (settings, audience, scope) in
        [("mode: self_signed_jwt", format!("{}/", api.url()), None), ("mode: self_signed_jwt, scopes: [a, b]", String::new(), Some("a b"))]
    {
        let gateway = start(settings);
        let token = api.last().field("authorization").unwrap().strip_prefix("Bearer ").unwrap().to_owned();
        let found = verified(&python, &token, &public, &audience);
        let claims = &found["claims"];
        assert_eq!((&claims["iss"], &claims["sub"]), (&json!("robot@project.example"), &json!("robot@project.example")));
        assert_eq!(claims.get("scope").and_then(Value::as_str), scope);
        // It is made once, not for each call.
        assert_eq!(gateway.get("/r/api/x").status, 200);
        assert!(api.last().field("authorization").unwrap().ends_with(&token));
    }
    assert_eq!(issuer.requests(), asked);
}

#[test]
fn a_jwt_bearer_assertion_passes_pyjwt_and_is_never_the_same_twice() {
    let Some(python) = provided("POSTERN_TEST_PYTHON") else { return };
    let (private, public) = rsa();
    let issuer = Issuer::minting(2);
    let api = Upstream::ok();
    let config = format!(
        "resources:\n  api: {{ base_url: \"{}\", auth: {{ oauth2_jwt_bearer: {{ token_url: \"{}\", issuer: me, subject: them, audience: https://issuer.example, private_key: \"${{env:KEY}}\", claims: {{ team: [a, b], n: 5 }}, scopes: [read] }} }} }}\n",
        api.url(),
        issuer.url()
    );
    let gateway = Gateway::start_with(&config, &[("KEY", &private.replace('\n', "\\n"))]);
    let two = crate::support::eventually(|| {
        assert_eq!(gateway.get("/r/api/x").status, 200);
        Some(issuer.server.seen()).filter(|seen| seen.len() >= 2)
    })
    .unwrap();
    let assertions: Vec<String> = two
        .iter()
        .map(|seen| decoded(&String::from_utf8_lossy(&seen.body)).into_iter().find(|(n, _)| n == "assertion").unwrap().1)
        .collect();
    assert_ne!(assertions[0], assertions[1]);
    let found = verified(&python, &assertions[0], &public, "https://issuer.example");
    let claims = &found["claims"];
    assert_eq!(
        (&claims["iss"], &claims["sub"], &claims["team"], &claims["n"]),
        (&json!("me"), &json!("them"), &json!(["a", "b"]), &json!(5))
    );
}

#[test]
fn a_token_is_exchanged_as_rfc_8693_has_it() {
    let issuer = Issuer::minting(3600);
    let api = Upstream::ok();
    let config = format!(
        "resources:\n  api: {{ base_url: \"{}\", auth: {{ oauth2_token_exchange: {{ token_url: \"{}\", client_id: id, subject: \"${{env:SUBJECT}}\", audience: them }} }} }}\n",
        api.url(),
        issuer.url()
    );
    let gateway = Gateway::start_with(&config, &[("SUBJECT", "the-subjects-token")]);
    assert_eq!(gateway.get("/r/api/x").status, 200);
    let wanted = [
        ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
        ("subject_token", "the-subjects-token"),
        ("subject_token_type", "urn:ietf:params:oauth:token-type:access_token"),
        ("audience", "them"),
        ("client_id", "id"),
    ];
    let form: Vec<(String, String)> = issuer.form();
    assert_eq!(form, wanted.map(|(n, v)| (n.to_owned(), v.to_owned())));
}

/// A running simulator of Auth0; its port, and the folder with its certificate's authority.
struct Auth0 {
    child: std::process::Child,
    port: u16,
    folder: tempfile::TempDir,
}

impl Drop for Auth0 {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Auth0 {
    fn start(client: &str, secret: &str, audience: &str) -> Option<Self> {
        let modules = provided("POSTERN_TEST_NPM")?;
        let (folder, authority) = (tempfile::tempdir().unwrap(), Authority::new());
        let (shown, certificates) = (authority.issue("localhost", false), folder.path().join(".simulacrum/certs"));
        std::fs::create_dir_all(&certificates).unwrap();
        std::fs::write(certificates.join("localhost.pem"), shown.pem()).unwrap();
        std::fs::write(certificates.join("localhost-key.pem"), shown.key_pem()).unwrap();
        std::fs::write(folder.path().join("ca.pem"), authority.pem()).unwrap();
        let mut command = Command::new("node");
        command.arg(root().join("tests/it/peers/auth0.mjs")).args([client, secret, audience]);
        command.env("POSTERN_TEST_NPM", modules).env("HOME", folder.path()).current_dir(folder.path());
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("node is missing");
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let told: Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("auth0-simulator did not start: {e}: {line}"));
        Some(Self { child, port: u16::try_from(told["port"].as_u64().unwrap()).unwrap(), folder })
    }
}

#[test]
fn the_simulator_of_auth0_mints_for_the_right_secret_and_audience_alone() {
    let Some(auth0) = Auth0::start("the-client", "the secret of the client", "https://api.example") else { return };
    let ca = auth0.folder.path().join("ca.pem").display().to_string();
    let host = format!("localhost:{}", auth0.port);
    let resource = |name: &str, secret: &str, more: &str| {
        format!(
            "  {name}: {{ base_url: \"https://{host}/api\", tls: {{ ca: \"{ca}\" }}, auth: {{ auth0: {{ domain: \"{host}\", client_id: the-client, client_secret: \"${{env:{secret}}}\", {more} }} }} }}\n"
        )
    };
    let config = format!(
        "resources:\n{}{}{}{}",
        resource("form", "SECRET", "audience: https://api.example"),
        resource("json", "SECRET", "audience: https://api.example, body: json"),
        resource("stranger", "OTHER", "audience: https://api.example"),
        resource("elsewhere", "SECRET", "audience: https://other.example"),
    );
    let gateway = Gateway::start_with(&config, &[("SECRET", "the secret of the client"), ("OTHER", "another secret")]);
    for name in ["form", "json"] {
        let reply = gateway.get(&format!("/r/{name}/x"));
        assert_eq!(reply.status, 200, "{} {}", reply.text(), gateway.stderr());
        assert_eq!((&reply.json()["aud"], &reply.json()["gty"]), (&json!("https://api.example"), &json!("client_credentials")));
    }
    for (name, said) in [("stranger", "Unauthorized"), ("elsewhere", "Service not enabled within domain")] {
        let reply = gateway.get(&format!("/r/{name}/x"));
        assert_eq!((reply.status, reply.code().as_str()), (503, "issuer-unavailable"));
        assert!(reply.json()["detail"].as_str().unwrap().contains("access_denied"), "{}", reply.text());
        assert!(gateway.stderr().contains(said), "{}", gateway.stderr());
    }
}

#[test]
fn auth0_is_a_spelling_of_client_credentials() {
    let issuer = Issuer::minting(3600);
    let api = Upstream::ok();
    let config = format!(
        "resources:\n  api: {{ base_url: \"{}\", auth: {{ auth0: {{ domain: \"{}/\", client_id: id, client_secret: \"${{env:SECRET}}\", audience: https://api.example }} }} }}\n",
        api.url(),
        issuer.server.url()
    );
    let gateway = Gateway::start_with(&config, &[("SECRET", "hunter2hunter2")]);
    assert_eq!(gateway.get("/r/api/x").status, 200);
    assert_eq!(issuer.server.last().target(), "/oauth/token");
    let form = issuer.form();
    for pair in [("client_secret", "hunter2hunter2"), ("audience", "https://api.example"), ("grant_type", "client_credentials")] {
        assert!(form.contains(&(pair.0.to_owned(), pair.1.to_owned())), "{form:?}");
    }
}
