//! AWS's own test suite, and the crate's `sign` over many more requests.

use std::time::{Duration, UNIX_EPOCH};

use aws_sigv4::http_request::{
    PayloadChecksumKind, PercentEncodingMode, SignableBody, SignableRequest, SigningSettings, UriPathNormalizationMode, sign,
};
use http::Method;
use http::header::HOST;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::auth::Auth;
use crate::auth::support::{auth, call, call_with, complaints, now};
use crate::aws::key::Keys;
use crate::path::Target;
use crate::secret::Secret;

const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";

fn live(service: &str) -> Arc<Live> {
    let keys = Keys::new("AKIDEXAMPLE".into(), Secret::new(SECRET.into()), "us-east-1".into(), service.into());
    Arc::new(Live { keys, token: None })
}

fn scheme(service: &str, clock: Clock) -> SigV4 {
    let like_s3 = LIKE_S3.contains(&service);
    SigV4 {
        held: Held::Written(live(service)),
        dialect: if like_s3 { Dialect::S3 } else { Dialect::OTHER },
        rules: Rules { mode: Mode::Auto, streams: like_s3, secure: true, buffer: 1 << 20, largest: None },
        identity: Some("x".into()),
        clock,
        ahead: AtomicI64::new(0),
    }
}

fn target(text: &str) -> Target {
    let (path, query) = text.split_once('?').map_or((text, None), |(path, query)| (path, Some(query)));
    Target::new(path, query)
}

/// The request of a case of the suite: method, target, fields, body. Folded lines are joined.
fn request(text: &str) -> (String, String, HeaderMap, String) {
    let (head, body) = text.split_once("\n\n").unwrap_or((text, ""));
    let head = head.replace("\n ", " ");
    let mut lines = head.lines();
    let (method, rest) = lines.next().unwrap().split_once(' ').unwrap();
    let mut headers = HeaderMap::new();
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        headers.append(HeaderName::try_from(name).unwrap(), HeaderValue::from_bytes(value.trim().as_bytes()).unwrap());
    }
    (method.into(), rest.strip_suffix(" HTTP/1.1").unwrap().into(), headers, body.into())
}

#[test]
fn every_case_of_the_suite_of_aws_has_its_canonical_request_and_its_signature() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/golden/aws-sigv4.json");
    let suite: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let cases = suite["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 38);
    for case in cases {
        let (name, context) = (case["name"].as_str().unwrap(), &case["context"]);
        let (method, sent, mut headers, body) = request(case["request"].as_str().unwrap());
        headers.insert(AMZ_DATE, HeaderValue::from_static("20150830T123600Z"));
        let token = context["credentials"]["token"].as_str().filter(|_| context["omit_session_token"] != true);
        if let Some(token) = token {
            headers.insert(AMZ_TOKEN, token.parse().unwrap());
        }
        let hash = super::payload::Rules::at_once(&scheme("s3", Clock::system()).rules, &call_with("", body.as_bytes())).unwrap();
        if context["sign_body"] == true {
            headers.insert(AMZ_CONTENT, hash.word().parse().unwrap());
        }
        // The suite signs every field, and takes paths as S3 does, normalized or not.
        let fields = std::mem::take(&mut headers);
        let dialect = Dialect { twice: false, normalizes: context["normalize"] == true };
        let sent = target(&sent);
        let sent = canonical::strict(&sent, Dialect::S3).unwrap_or(sent);
        let canonical = canonical::canonical_of(&method, &sent, &fields, hash.word(), dialect, |_| true);
        assert_eq!(canonical.text, case["canonical"].as_str().unwrap(), "{name}");
        let time = UNIX_EPOCH + Duration::from_secs(1_440_938_160);
        let keys = Keys::new("AKIDEXAMPLE".into(), Secret::new(SECRET.into()), "us-east-1".into(), "service".into());
        assert_eq!(keys.day(time, &Moment::new(time)).sign(case["string_to_sign"].as_str().unwrap()), case["signature"], "{name}");
    }
}

/// The oracle: what the crate makes of a request whose fields are those that we sign.
fn oracle(call: &Call, service: &str, time: SystemTime, body: SignableBody<'_>) -> String {
    let mut settings = SigningSettings::default();
    settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
    if service == "s3" {
        settings.percent_encoding_mode = PercentEncodingMode::Single;
        settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
    }
    let identity = aws_credential_types::Credentials::new("AKIDEXAMPLE", SECRET, None, None, "test").into();
    let params = aws_sigv4::sign::v4::SigningParams::builder()
        .identity(&identity)
        .region("us-east-1")
        .name(service)
        .time(time)
        .settings(settings)
        .build()
        .unwrap()
        .into();
    let fields: Vec<(String, String)> = call
        .headers
        .iter()
        .filter(|(name, _)| canonical::signs(name) && !name.as_str().starts_with("x-amz-date") && **name != AMZ_CONTENT)
        .map(|(name, value)| (name.as_str().to_owned(), value.to_str().unwrap().to_owned()))
        .collect();
    let uri = format!("https://example.amazonaws.com{}", call.target.as_str());
    let fields = fields.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let request = SignableRequest::new(call.method.as_str(), uri, fields, body).unwrap();
    let (instructions, _) = sign(request, &params).unwrap().into_parts();
    let found = instructions.headers().find(|(name, _)| *name == "authorization").map(|(_, value)| value.to_owned());
    found.unwrap()
}

fn hard(method: Method, text: &str, body: &[u8]) -> Call {
    let mut call = call_with("application/json", body);
    call.method = method;
    call.target = target(text);
    call.headers.insert(HOST, HeaderValue::from_static("example.amazonaws.com"));
    call.headers.insert("user-agent", HeaderValue::from_static("x"));
    call.headers.append("x-amz-meta-a", HeaderValue::from_static("  two   words  "));
    call.headers.append("x-amz-meta-a", HeaderValue::from_static("more"));
    call
}

fn agrees(service: &str, method: Method, text: &str, body: &[u8]) {
    let time = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    let scheme = scheme(service, Clock::manual(1_700_000_000_000));
    let mut call = hard(method, text, body);
    scheme.prepare(&mut call).unwrap();
    let Signing::Done(done) = scheme.sign(&mut call) else { panic!("a body at hand needs no waiting") };
    done.unwrap();
    let expected = oracle(&call, service, time, SignableBody::Bytes(body));
    assert_eq!(call.headers[AUTHORIZATION].to_str().unwrap(), expected, "{service} {text} as {}", call.target.as_str());
}

#[test]
fn hard_paths_and_queries_are_signed_as_the_crate_signs_them() {
    for service in ["s3", "execute-api", "dynamodb"] {
        for text in [
            "/",
            "/a b",
            "/%20/%2520",
            "/a//b///c/",
            "/a+b(c)!'*",
            "/@connections/JBDvjfGEIAMCERw%3D",
            "/functions/arn:aws:lambda:us-east-1:1:function:f/invocations",
            "/%E1%88%B4",
            "/~.-_",
            "/...",
            "/a?acl",
            "/a?acl&a=&b==",
            "/?list-type=2&prefix=a%2Fb+c&delimiter=%2f",
            "/?a=2&a=1&A=3&a-=x&a%2D=y&%c3%a4=1",
            "/?x=%zz&y=%",
            "/?a=1&&b",
            "/?",
        ] {
            for body in [&b""[..], b"{\"a\":1}"] {
                agrees(service, Method::PUT, text, body);
            }
        }
    }
}

proptest! {
    #[test]
    fn any_target_is_signed_as_the_crate_signs_it(
        text in "/([a-zA-Z0-9/._~ !$'()*+,;:@=-]|%[0-7][0-9A-Fa-f]){0,24}([?]([a-z0-9=&+/%~*. -]|%[0-7][0-9a-f]){0,24})?",
        s3 in any::<bool>(),
    ) {
        prop_assume!(crate::path::check(text.split('?').next().unwrap()).is_ok());
        // The crate reads queries as UTF-8 and replaces what is none; here bytes stay what they are.
        prop_assume!(percent_encoding::percent_decode_str(&text).decode_utf8().is_ok());
        agrees(if s3 { "s3" } else { "es" }, Method::GET, &text, b"");
    }
}

fn configured(more: Value) -> Value {
    let mut all = json!({ "service": "s3", "region": "eu-west-1", "access_key_id": "AKID", "secret_access_key": "${secret:hunter2}" });
    more.as_object().unwrap().iter().for_each(|(key, value)| all[key] = value.clone());
    json!({ "aws_sigv4": all })
}

fn signed(auth: &Auth, mut call: Call) -> Call {
    auth.prepare(&mut call).unwrap();
    now(auth.sign(&mut call)).unwrap();
    call
}

#[test]
fn a_call_gets_its_date_its_hash_its_token_and_its_signature() {
    let auth = auth(configured(json!({ "session_token": "${secret:tok}" })));
    let call = signed(&auth, hard(Method::GET, "/a b", b""));
    assert_eq!(call.target.as_str(), "/a%20b");
    assert_eq!((call.headers[AMZ_CONTENT].as_bytes(), call.headers[AMZ_TOKEN].as_bytes()), (payload::EMPTY.as_bytes(), &b"tok"[..]));
    assert!(call.headers[AMZ_TOKEN].is_sensitive() && call.headers[AUTHORIZATION].is_sensitive());
    let text = call.headers[AUTHORIZATION].to_str().unwrap();
    assert!(text.starts_with("AWS4-HMAC-SHA256 Credential=AKID/"), "{text}");
    let fields = "SignedHeaders=content-type;host;x-amz-content-sha256;x-amz-date;x-amz-meta-a;x-amz-security-token, ";
    assert!(text.contains("/eu-west-1/s3/aws4_request, ") && text.contains(fields), "{text}");
}

#[test]
fn what_others_put_into_the_query_is_signed_too() {
    let key = json!({ "api_key": { "in": "query", "name": "k e", "value": "${secret:v+ /}" } });
    let list = json!([configured(json!({})), key]);
    let call = signed(&auth(list), hard(Method::GET, "/a", b""));
    assert_eq!(call.target.as_str(), "/a?k%20e=v%2B%20%2F");
    let canonical = canonical::canonical("GET", &call.target, &call.headers, payload::EMPTY, Dialect::S3);
    assert!(canonical.text.starts_with("GET\n/a\nk%20e=v%2B%20%2F\n"), "{}", canonical.text);
}

#[test]
fn a_clock_that_is_elsewhere_is_learnt_from_the_refusal_and_nothing_else_is() {
    let ours = 1_700_000_000;
    let refused = |status: u16, date: &str| {
        let scheme = scheme("s3", Clock::manual(ours * 1000));
        let mut call = hard(Method::GET, "/", b"");
        let Signing::Done(Ok(())) = scheme.sign(&mut call) else { panic!() };
        let mut answer = http::Response::new(Body::Empty);
        *answer.status_mut() = StatusCode::from_u16(status).unwrap();
        answer.headers_mut().insert(DATE, date.parse().unwrap());
        let ticket = call.ticket.take();
        let attempt = Attempt { call: &call, ticket: ticket.as_ref(), again: true, second: false, answer: &mut answer };
        let Renewing::Done(Ok(renewal)) = scheme.renew(attempt) else { panic!() };
        let Signing::Done(Ok(())) = scheme.sign(&mut call) else { panic!() };
        (renewal, call.headers[AMZ_DATE].to_str().unwrap().to_owned())
    };
    // Our clock stands at 2023-11-14 22:13:20.
    let hour_ahead = "Tue, 14 Nov 2023 23:13:21 GMT";
    assert_eq!(refused(403, hour_ahead), (Renewal::Again, "20231114T231321Z".into()));
    assert_eq!(refused(400, "Mon, 13 Nov 2023 22:13:20 GMT"), (Renewal::Again, "20231113T221320Z".into()));
    for (status, date) in [(403, "Tue, 14 Nov 2023 22:16:00 GMT"), (403, "never"), (200, hour_ahead), (404, hour_ahead)] {
        assert_eq!(refused(status, date), (Renewal::Stands, "20231114T221320Z".into()), "{status} {date}");
    }
}

#[test]
fn it_owns_what_carries_a_signature() {
    let owned = auth(configured(json!({}))).owns();
    for name in ["authorization", "x-amz-date", "x-amz-content-sha256", "x-amz-security-token"] {
        assert!(owned.headers.contains(&HeaderName::from_static(name)));
    }
    assert!(owned.params.iter().any(|p| p == "X-Amz-Signature"));
}

#[test]
fn what_is_wrong_is_said() {
    assert_eq!(complaints(configured(json!({}))), Vec::<String>::new());
    for (more, expected) in [
        (json!({ "secret_access_key": null }), "`secret_access_key` is missing"),
        (json!({ "access_key_id": null }), "`access_key_id` is missing"),
        (json!({ "assume_role": { "role_arn": "arn:x" } }), "no ARN of a role"),
        (json!({ "assume_role": { "role_arn": "arn:aws:iam::1:role/x", "session_name": "a b" } }), "`session_name` is"),
        (json!({ "assume_role": { "role_arn": "arn:aws:iam::1:role/x", "sts_url": "http://sts.example" } }), "plain http"),
        (json!({ "assume_role": { "role_arn": "arn:aws:iam::1:role/x", "mfa": "x" } }), "unknown key `mfa`"),
        (json!({ "profile": "dev" }), "two ways to have credentials"),
        (json!({ "service": "S3" }), "small letters"),
        (json!({ "region": "" }), "small letters"),
        (json!({ "region": "eu/west" }), "small letters"),
        (json!({ "service": "sqs", "payload": "streaming" }), "takes no signed chunks"),
        (json!({ "payload": "sined" }), "did you mean `signed`"),
        (json!({ "access_key_id": "a/b" }), "no access key id"),
        (json!({ "secret_access_key": "literal" }), "must be a reference"),
        (json!({ "session_token": "${secret:a\nb}" }), "cannot be sent in a header"),
        (json!({ "tokn": "x" }), "unknown key"),
    ] {
        let found = complaints(configured(more.clone()));
        assert!(found.len() == 1 && found[0].contains(expected), "{more}: {found:?}");
        assert!(!found[0].contains("hunter2"));
    }
}

#[test]
fn nothing_of_it_prints() {
    let auth = auth(configured(json!({ "session_token": "${secret:tokentoken}" })));
    signed(&auth, call("/"));
    let text = format!("{auth:?}");
    assert!(!text.contains("hunter2") && !text.contains("tokentoken"), "{text}");
}
