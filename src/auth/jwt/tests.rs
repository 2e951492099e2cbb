use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::{HeaderValue, Response};
use serde_json::{Value, json};

use crate::auth::Auth;
use crate::auth::support::{auth, auth_of_accounts, body, call, call_of_account, call_with, complaints, now, signed};
use crate::body::Body;
use crate::key::{Algorithm, Key};

/// RFC 8037 appendix A.1.
const ED25519: &str =
    r#"{"kty":"OKP","crv":"Ed25519","d":"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;

fn with(more: Value) -> Value {
    let mut all = json!({ "key": "${secret:hunter2hunter2}", "claims": { "iss": "me", "exp": "{{ now | plus('5m') }}" } });
    more.as_object().unwrap().iter().for_each(|(key, value)| all[key] = value.clone());
    json!({ "jwt": all })
}

fn part(jwt: &str, at: usize) -> Value {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(jwt.split('.').nth(at).unwrap()).unwrap()).unwrap()
}

fn bearer(auth: &Auth) -> String {
    let call = signed(auth, call("/a?x=1")).unwrap();
    assert!(call.headers["authorization"].is_sensitive());
    call.headers["authorization"].to_str().unwrap().strip_prefix("Bearer ").unwrap().to_owned()
}

fn claims(claims: Value) -> Value {
    part(&bearer(&auth(with(json!({ "claims": claims })))), 1)
}

// RFC 7515 appendix A.1 and RFC 7519 section 3.1: the JWS over these very bytes.
#[test]
fn an_hmac_signs_the_claims_of_rfc_7519() {
    let key = Key::private(r#"{"kty":"oct","k":"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"}"#)
        .unwrap();
    let claims = "{\"iss\":\"joe\",\r\n \"exp\":1300819380,\r\n \"http://example.com/is_root\":true}";
    let jwt = key.compact(Algorithm::HS256, "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9", claims).unwrap();
    assert_eq!(
        jwt,
        "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.\
         dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
    );
}

// RFC 8037 appendix A.4.
#[test]
fn ed25519_signs_the_jws_of_rfc_8037() {
    let jws = Key::private(ED25519).unwrap().compact(Algorithm::EdDSA, "eyJhbGciOiJFZERTQSJ9", "Example of Ed25519 signing").unwrap();
    assert_eq!(
        jws,
        "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg"
    );
}

#[test]
fn claims_keep_their_types_at_any_depth() {
    let got = claims(json!({
        "exp": "{{ now | plus('5m') }}", "nbf": "{{ now | epoch }}", "text": "{{ now | rfc3339 }}", "n": "{{ vars.count }}", "big": 12345678901234567890u64,
        "yes": true, "list": ["a", "{{ client.name }}", { "deep": ["{{ vars.count + 1 }}"] }], "map": { "who": "x-{{ request.method }}" },
    }));
    assert_eq!((got["n"].clone(), got["big"].to_string(), got["yes"].clone()), (json!(7), "12345678901234567890".to_owned(), json!(true)));
    assert_eq!((got["list"].clone(), got["map"].clone()), (json!(["a", "anonymous", { "deep": [8] }]), json!({ "who": "x-POST" })));
    assert_eq!(got["exp"].as_u64().unwrap(), got["nbf"].as_u64().unwrap() + 300);
    assert!(got["text"].as_str().unwrap().ends_with('Z'));
}

#[test]
fn what_is_unset_is_left_out_where_that_is_asked_for_and_an_error_where_not() {
    let optional = |value: &str| json!({ "exp": 1, "sub": { "value": value, "omit_if_unset": true } });
    for unset in ["{{ vars.nobody }}", "${unset}", "", "{{ request.headers['x-nobody'] }}", "{{ '' }}"] {
        assert_eq!(claims(optional(unset)), json!({ "exp": 1 }), "{unset}");
    }
    assert_eq!(claims(optional("{{ vars.tenant }}")), json!({ "exp": 1, "sub": "acme" }));
    assert_eq!(claims(json!({ "exp": 1, "sub": null })), json!({ "exp": 1 }));
    assert_eq!(complaints(with(json!({ "claims": { "exp": 1, "sub": "{{ vars.nobody }}" } }))).len(), 1);
    let strict = auth(with(json!({ "claims": { "exp": 1, "sub": "{{ request.headers['x-nobody'] }}" } })));
    assert_eq!(signed(&strict, call("/a")).unwrap_err().code(), "bad-request");
}

#[test]
fn no_text_of_a_request_becomes_structure() {
    let auth = auth(with(json!({ "claims": { "exp": 1, "path": "{{ request.target }}", "x": "-{{ request.headers['x-a'] }}-" } })));
    let mut call = call("/a%22,%22admin%22:true?b=\",\"c\":\"");
    call.headers.insert("x-a", HeaderValue::from_static("\",\"admin\":true,\"\\"));
    let call = signed(&auth, call).unwrap();
    let got = part(call.headers["authorization"].to_str().unwrap().strip_prefix("Bearer ").unwrap(), 1);
    assert_eq!(got["x"], "-\",\"admin\":true,\"\\-");
    assert_eq!(got.as_object().unwrap().len(), 3);
}

#[test]
fn the_header_holds_what_was_asked_for_and_each_attempt_has_a_uuid_of_its_own() {
    let auth = auth(with(json!({
        "key": null, "private_key": format!("${{secret:{ED25519}}}"), "key_id": "k1", "header": { "typ": "at+jwt", "x": 1 },
        "claims": { "jti": "{{ uuid }}", "exp": "{{ now | plus('5m') }}" },
    })));
    let (one, two) = (bearer(&auth), bearer(&auth));
    assert_eq!(part(&one, 0), json!({ "alg": "EdDSA", "typ": "at+jwt", "kid": "k1", "x": 1 }));
    assert_ne!(part(&one, 1)["jti"], part(&two, 1)["jti"]);
}

#[test]
fn the_body_is_read_where_a_claim_reads_it_and_goes_on() {
    let claims = json!({ "exp": 1, "hash": "{{ request.body_sha256 | hex }}", "text": "{{ request.body }}" });
    let auth = auth(with(json!({ "claims": claims })));
    let call = signed(&auth, call_with("text/plain", b"abc")).unwrap();
    let got = part(call.headers["authorization"].to_str().unwrap().strip_prefix("Bearer ").unwrap(), 1);
    assert_eq!(got["hash"], "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    assert_eq!((got["text"].as_str(), body(&call)), (Some("abc"), "abc"));
    let error = signed(&auth, call_with("text/plain", &[b'x'; 2000])).unwrap_err();
    assert_eq!(error.code(), "body-too-large");
}

#[test]
fn it_goes_wherever_a_token_can_and_as_its_value_says() {
    let at = |place: Value| signed(&auth(with(json!({ "place": place }))), call_with("application/json", b"{}")).unwrap();
    assert!(at(json!({ "header": "X-Jwt" })).headers["x-jwt"].to_str().unwrap().starts_with("ey"));
    assert!(at(json!({ "header": "Authorization", "scheme": "JWT" })).headers["authorization"].to_str().unwrap().starts_with("JWT ey"));
    assert!(at(json!({ "query": "assertion" })).target.as_str().starts_with("/a?assertion=ey"));
    assert!(at(json!({ "cookie": "jwt" })).headers["cookie"].to_str().unwrap().starts_with("jwt=ey"));
    assert!(body(&at(json!({ "body": "token" }))).starts_with(r#"{"token":"ey"#));
    let both = at(json!([{ "header": "X-One" }, { "header": "X-Two", "value": "t=\"{{ token }}\", for={{ vars.tenant }}" }]));
    let (one, two) = (both.headers["x-one"].to_str().unwrap(), both.headers["x-two"].to_str().unwrap());
    assert_eq!(two, format!("t=\"{one}\", for=acme"));
    assert!(both.headers["x-two"].is_sensitive());
    assert!(at(json!({ "query": "q", "value": "a b {{ token }}" })).target.as_str().starts_with("/a?q=a%20b%20ey"));
}

#[test]
fn what_tells_callers_apart_tells_their_credentials_apart() {
    let identity = |claims: Value, header: Option<&'static str>| {
        let mut call = call("/a");
        header.into_iter().for_each(|value| drop(call.headers.insert("x-user", HeaderValue::from_static(value))));
        auth(with(json!({ "claims": claims }))).identity(&call).unwrap()
    };
    let plain = json!({ "exp": "{{ now }}" });
    assert_eq!(identity(plain.clone(), Some("a")), identity(plain.clone(), Some("b")));
    let told = json!({ "exp": "{{ now }}", "sub": "{{ request.headers['x-user'] }}" });
    assert_eq!(identity(told.clone(), Some("a")), identity(told.clone(), Some("a")));
    assert_ne!(identity(told.clone(), Some("a")), identity(told, Some("b")));
    assert_ne!(identity(plain, None), identity(json!({ "exp": "{{ now }}", "iss": "x" }), None));
}

#[test]
fn one_secret_may_hold_the_id_and_the_key() {
    let half = |which: &str| format!("{{{{ secrets.pair | split(':') | {which} }}}}");
    let auth = auth(with(json!({ "key": half("last"), "key_encoding": "hex", "key_id": half("first"), "claims": { "exp": 1 } })));
    let jwt = bearer(&auth);
    assert_eq!(part(&jwt, 0)["kid"], "6f1e");
    let (message, signature) = jwt.rsplit_once('.').unwrap();
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, b"hunter2");
    aws_lc_rs::hmac::verify(&key, message.as_bytes(), &URL_SAFE_NO_PAD.decode(signature).unwrap()).unwrap();
}

#[test]
fn an_issuer_may_be_normalised_and_hold_the_keys_fingerprint() {
    let claims = json!({ "iss": "{{ 'org.acme' | upper | replace('.', '-') }}.SHA256:{{ secrets.pem | public_key_fingerprint | b64encode }}", "exp": 1 });
    let auth = auth(with(json!({ "key": null, "private_key": "{{ secrets.pem }}", "claims": claims })));
    let issuer = part(&bearer(&auth), 1)["iss"].as_str().unwrap().to_owned();
    let expected = STANDARD.encode(crate::key::sha256(&Key::private(ED25519).unwrap().public().unwrap()));
    assert_eq!(issuer, format!("ORG-ACME.SHA256:{expected}"));
}

fn rsa() -> String {
    use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
    use aws_lc_rs::rsa::{KeyPair, KeySize};

    let der: Pkcs8V1Der<'_> = KeyPair::generate(KeySize::Rsa2048).unwrap().as_der().unwrap();
    format!("${{secret:{}}}", STANDARD.encode(der.as_ref()))
}

#[test]
fn an_rsa_signature_over_the_time_alone_serves_again_until_it_is_refused() {
    let reused = |claims: Value| auth(with(json!({ "key": null, "private_key": rsa(), "claims": claims })));
    let steady = reused(json!({ "iss": "me", "exp": "{{ now | plus('5m') }}" }));
    assert!(steady.renews());
    let first = bearer(&steady);
    assert_eq!(first, bearer(&steady));
    let refused = |status: u16| {
        let mut call = call("/a");
        let tickets = now(steady.sign(&mut call)).unwrap();
        let mut answer = Response::builder().status(status).body(Body::Empty).unwrap();
        (call.headers["authorization"].clone(), now(steady.renew(&call, &tickets, true, &mut answer)).unwrap())
    };
    assert_eq!(refused(403).1, crate::auth::Renewal::Stands);
    assert_eq!(refused(401).1, crate::auth::Renewal::Again);
    // The next one is new, and its refusal is the upstream's word.
    assert_eq!(refused(401).1, crate::auth::Renewal::Stands);
    assert_eq!(refused(401).1, crate::auth::Renewal::Again);
    assert_eq!(refused(200).1, crate::auth::Renewal::Stands);
    assert_eq!(refused(401).1, crate::auth::Renewal::Again);
    // By now it is known that the upstream takes each one once.
    for _ in 0..3 {
        assert_eq!(refused(401).1, crate::auth::Renewal::Stands);
    }
    for claims in [
        json!({ "jti": "{{ uuid }}", "exp": "{{ now | plus('5m') }}" }),
        json!({ "iat": "{{ now }}" }),
        json!({ "exp": "{{ request.path }}" }),
    ] {
        assert!(!reused(claims.clone()).renews(), "{claims}");
    }
    assert!(!auth(with(json!({}))).renews(), "an HMAC costs next to nothing");
}

#[test]
fn what_is_wrong_is_said_and_nothing_of_the_key() {
    for (more, expected) in [
        (json!({ "claims": null }), "`claims` is missing"),
        (json!({ "claims": [] }), "map of claims"),
        (json!({ "key": null }), "`private_key` is missing"),
        (json!({ "private_key": "${secret:hunter2}" }), "contradict"),
        (json!({ "key": null, "private_key": "${secret:hunter2}" }), "no private key"),
        (json!({ "algorithm": "RS256" }), "cannot sign by RS256"),
        (json!({ "algorithm": "none" }), "no algorithm"),
        (json!({ "algorithm": "HS25" }), "did you mean `HS256`"),
        (json!({ "key_encoding": "hex" }), "not hexadecimal"),
        (json!({ "claims": { "exp": "{{ now | plus('5 minutes') }}" } }), "plus"),
        (json!({ "claims": { "exp": "{{ captured.x }}" } }), "does not exist at this place"),
        (json!({ "claims": { "exp": 1, "b": "{{ request.body_sha256 }}" } }), "bytes"),
        (json!({ "claims": { "exp": 1, "b": { "omit_if_unset": true } } }), "`value` is missing"),
        (json!({ "claims": { "iss": "me" } }), "without `exp`"),
        (json!({ "place": { "header": "Host" } }), "this header"),
        (json!({ "place": { "header": "X", "query": "y" } }), "one of"),
        (json!({ "place": { "header": "X", "value": "abc" } }), "does not hold `token`"),
        (json!({ "place": { "header": "X", "value": "{{ signature }}" } }), "does not exist at this place"),
        (json!({ "place": { "header": "X", "scheme": "A", "value": "{{ token }}" } }), "not with `value`"),
        (json!({ "place": [] }), "1 to 8"),
        (json!({ "kid": "x" }), "unknown key `kid`"),
    ] {
        let found = complaints(with(more.clone()));
        assert!(found.len() == 1 && found[0].contains(expected), "{more}: {found:?}");
        assert!(!found[0].contains("hunter2"));
    }
    assert_eq!(complaints(with(json!({}))), Vec::<String>::new());
    let deep = (0..20).fold(json!(1), |inner, _| json!({ "a": inner }));
    assert!(complaints(with(json!({ "claims": { "exp": 1, "deep": deep } })))[0].contains("nested deeper"));
}

#[test]
fn neither_the_key_nor_a_secret_claim_prints() {
    let auth = auth(with(json!({ "claims": { "exp": "{{ now }}", "s": "${secret:s3cr3tclaim}", "t": "{{ secrets.key }}" } })));
    let text = format!("{auth:?}");
    assert!(!text.contains("hunter2") && !text.contains("s3cr3t"), "{text}");
}

#[test]
fn one_accounts_jwt_never_serves_another() {
    let key = format!("${{secret:{}}}", rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap().serialize_pem());
    let claims = json!({ "tenant": "{{ vars.tenant }}", "exp": "{{ now | plus('5m') }}" });
    let auth = auth_of_accounts(with(json!({ "key": null, "private_key": key, "claims": claims })));
    let tenant = |name: &str| {
        let call = signed(&auth, call_of_account(name)).unwrap();
        let jwt = call.headers["authorization"].to_str().unwrap().strip_prefix("Bearer ").unwrap().to_owned();
        (part(&jwt, 1)["tenant"].clone(), auth.identity(&call_of_account(name)).unwrap())
    };
    let (alpha, beta) = (tenant("alpha"), tenant("beta"));
    assert_eq!((&alpha.0, &beta.0), (&json!("alpha"), &json!("beta")));
    assert_ne!(alpha.1, beta.1);
    assert_eq!(alpha, tenant("alpha"));
}
