use http::HeaderValue;
use serde_json::{Value, json};

use crate::auth::support::{auth, body, call, call_with, complaints, signed};

fn with(more: Value) -> Value {
    let mut all = json!({ "key": "${secret:hunter2hunter2}", "message": "{{ request.target }}", "place": { "header": "X-Signature" } });
    more.as_object().unwrap().iter().for_each(|(key, value)| all[key] = value.clone());
    json!({ "hmac": all })
}

fn signature(more: Value) -> String {
    let call = signed(&auth(with(more)), call("/a?x=1")).unwrap();
    call.headers["x-signature"].to_str().unwrap().to_owned()
}

// RFC 2202 section 3 (test case 2 of SHA-1) and RFC 4231 section 4.3 (of the others).
#[test]
fn every_hash_signs_as_in_its_rfc() {
    let of = |algorithm: &str, encoding: &str| {
        let message = "what do ya want {{ 'for nothing?' }}";
        signature(
            json!({ "key": "${secret:4a656665}", "key_encoding": "hex", "algorithm": algorithm, "message": message, "encoding": encoding }),
        )
    };
    assert_eq!(of("sha1", "hex"), "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79");
    assert_eq!(of("sha256", "hex"), "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    assert_eq!(of("sha256", "base64"), "W9zBRr9gdU5qBCQmCJV1x1oAPwidJzmDnexYuWTsOEM=");
    assert_eq!(of("sha256", "base64url"), "W9zBRr9gdU5qBCQmCJV1x1oAPwidJzmDnexYuWTsOEM");
    assert_eq!(of("sha384", "hex"), "af45d2e376484031617f78d2b58a6b1b9c7ef464f5a01b47e42ec3736322445e8e2240ca5e69e2c78b3239ecfab21649");
    assert_eq!(
        of("sha512", "hex"),
        "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea2505549758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737"
    );
}

#[test]
fn fields_are_set_before_the_message_is_made_and_share_its_time_and_id() {
    let auth = auth(with(json!({
        "headers": { "X-Date": "{{ now | rfc3339 }}", "X-Id": "{{ uuid }}", "X-Both": "{{ request.headers['x-date'] }}/{{ request.headers['x-id'] }}" },
        "message": "{{ request.headers['x-both'] }}", "place": { "header": "X-Signature", "value": "{{ now | rfc3339 }} {{ uuid }} {{ signature }}" },
    })));
    let mut given = call("/a");
    given.headers.insert("x-date", HeaderValue::from_static("theirs"));
    let call = signed(&auth, given).unwrap();
    let text = |name: &str| call.headers[name].to_str().unwrap().to_owned();
    assert_eq!(text("x-both"), format!("{}/{}", text("x-date"), text("x-id")));
    let signature = text("x-signature");
    let parts: Vec<&str> = signature.split(' ').collect();
    assert_eq!((parts[0], parts[1]), (&*text("x-date"), &*text("x-id")));
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, b"hunter2hunter2");
    assert_eq!(parts[2], crate::hex::hex(aws_lc_rs::hmac::sign(&key, text("x-both").as_bytes()).as_ref()));
    let owned = auth.owns();
    assert_eq!(owned.headers, ["x-signature", "x-date", "x-id", "x-both"]);
}

#[test]
fn a_body_of_any_bytes_is_signed_as_it_is() {
    let auth = auth(with(json!({ "message": "{{ request.method }}\n{{ request.body }}" })));
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, b"hunter2hunter2");
    for bytes in [&b"abc"[..], b"\xff\x00\xfe", "\u{fc}{{ now }}".as_bytes(), b""] {
        let call = signed(&auth, call_with("x/y", bytes)).unwrap();
        let expected = crate::hex::hex(aws_lc_rs::hmac::sign(&key, &[b"POST\n", bytes].concat()).as_ref());
        assert_eq!(call.headers["x-signature"], expected.as_str());
    }
    assert_eq!(signed(&auth, call_with("x/y", &[b'x'; 2000])).unwrap_err().code(), "body-too-large");
    let unread = super::super::support::auth(with(json!({})));
    assert!(signed(&unread, call_with("x/y", &[b'x'; 2000])).is_ok());
}

#[test]
fn it_goes_wherever_a_token_can() {
    let at = |place: Value| signed(&auth(with(json!({ "place": place }))), call_with("application/json", b"{\"a\":1}")).unwrap();
    let bare = at(json!({ "header": "Authorization" })).headers["authorization"].to_str().unwrap().to_owned();
    assert_eq!(bare.len(), 64, "no word unless one is asked for");
    assert_eq!(at(json!({ "header": "Authorization", "scheme": "HMAC" })).headers["authorization"], format!("HMAC {bare}").as_str());
    let value = "Credential={{ secrets.id }}, Signature={{ signature }}";
    let placed = at(json!({ "header": "Authorization", "value": value })).headers["authorization"].clone();
    assert_eq!(placed, format!("Credential=the-id-of-it, Signature={bare}").as_str());
    assert_eq!(at(json!({ "query": "sig" })).target.as_str(), format!("/a?sig={bare}"));
    assert_eq!(body(&at(json!({ "body": "sig" }))), format!("{{\"a\":1,\"sig\":\"{bare}\"}}"));
}

#[test]
fn a_field_that_a_request_makes_illegal_is_the_requests_fault() {
    let auth = auth(with(json!({ "headers": { "X-Q": "{{ request.query.q }}" } })));
    assert_eq!(signed(&auth, call("/a?q=x")).unwrap().headers["x-q"], "x");
    assert_eq!(signed(&auth, call("/a?q=x%0d%0ay:z")).unwrap_err().code(), "bad-request");
    assert_eq!(signed(&auth, call("/a")).unwrap_err().code(), "bad-request");
}

#[test]
fn what_is_wrong_is_said_and_nothing_of_the_key() {
    for (more, expected) in [
        (json!({ "key": null }), "`key` is missing"),
        (json!({ "key": "hunter2" }), "must be a reference"),
        (json!({ "key_encoding": "base64", "key": "${secret:?hunter2}" }), "not base64"),
        (json!({ "message": null }), "`message` is missing"),
        (json!({ "message": "{{ request.body_sha256 }}" }), "bytes"),
        (json!({ "message": "{{ captured.x }}" }), "does not exist at this place"),
        (json!({ "message": "constant" }), "the same for every request"),
        (json!({ "place": null }), "`place` is missing"),
        (json!({ "place": { "header": "X", "value": "{{ token }}" } }), "does not exist at this place"),
        (json!({ "algorithm": "md5" }), "is one of"),
        (json!({ "encoding": "base32" }), "is one of"),
        (json!({ "headers": { "Host": "x" } }), "cannot be set"),
        (json!({ "headers": { "X-A": "1", "x-a": "2" } }), "twice"),
        (json!({ "headers": { "X-A": "{{ nope }}" } }), "nope"),
    ] {
        let found = complaints(with(more.clone()));
        assert!(found.len() == 1 && found[0].contains(expected), "{more}: {found:?}");
        assert!(!found[0].contains("hunter2"));
    }
    assert_eq!(complaints(with(json!({}))), Vec::<String>::new());
    assert!(!format!("{:?}", auth(with(json!({})))).contains("hunter2"));
}
