//! What issuers answer, good and bad.

use http::HeaderValue;
use serde_json::json;

use super::*;
use crate::auth::captured::Held;
use crate::auth::support::node;
use crate::error::Trouble;

const T: u64 = 1_700_000_000_000;

fn mapping(response: Value) -> Mapping {
    let problems = Problems::default();
    let mapping = Mapping::read(Some(&node(&response)), &Mapping::default(), false, &problems);
    mapping.unwrap_or_else(|| panic!("{:?}", problems.into_sorted()))
}

fn answer(status: u16, kind: &'static str, body: impl Into<Vec<u8>>) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(body.into()));
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    if !kind.is_empty() {
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    }
    response
}

fn json_answer(body: Value) -> Response<Bytes> {
    answer(200, "application/json", body.to_string())
}

fn mask() -> Mask {
    Mask::new([&Secret::new("hunter2hunter2".into())])
}

fn read_by(mapping: &Mapping, response: &Response<Bytes>, before: Option<&Minted>) -> Result<Minted, Failure> {
    mapping.understand(response, Step::Token, T, before, &mask())
}

fn read(response: &Response<Bytes>) -> Result<Minted, Failure> {
    read_by(&Mapping::default(), response, None)
}

fn trouble(failure: Failure) -> Trouble {
    match failure {
        Failure::Down(trouble, _)
        | Failure::Denied(trouble, _)
        | Failure::Unknown(trouble)
        | Failure::TurnedDown(trouble)
        | Failure::Refused(trouble) => trouble,
        Failure::Own(error) => panic!("{error}"),
    }
}

fn access(minted: &Minted) -> &str {
    minted.access.as_ref().unwrap().expose()
}

#[test]
fn a_plain_answer_of_rfc_6749_is_understood() {
    let minted =
        read(&json_answer(json!({ "access_token": "a", "token_type": "bearer", "expires_in": 60, "refresh_token": "r" }))).unwrap();
    assert_eq!((access(&minted), minted.refresh.as_ref().unwrap().expose(), minted.expires), ("a", "r", Some(T + 60_000)));
}

#[test]
fn success_may_be_any_2xx_and_its_type_is_not_believed() {
    let body = r#"{"access_token":"a","expires_in":60}"#;
    for (status, kind) in [(200, "text/html"), (201, "application/json"), (202, "")] {
        assert_eq!(access(&read(&answer(status, kind, body)).unwrap()), "a");
    }
}

#[test]
fn the_token_may_be_anywhere_and_at_several_places() {
    let body = json!({ "data": { "session": { "key": "nested" } }, "list": [{ "t": 5 }] });
    for (path, token) in [
        (json!("json.data.session.key"), "nested"),
        (json!("json.list[0].t"), "5"),
        (json!(["json.none", "json.data.session.key"]), "nested"),
        (json!("header.X-Token"), "from-header"),
        (json!("cookie.sid"), "from-cookie"),
    ] {
        let mut response = json_answer(body.clone());
        response.headers_mut().insert("x-token", HeaderValue::from_static("from-header"));
        response.headers_mut().insert("set-cookie", HeaderValue::from_static("sid=from-cookie; Path=/"));
        assert_eq!(access(&read_by(&mapping(json!({ "token": path })), &response, None).unwrap()), token);
    }
    let plain = answer(200, "text/plain", "the-token\n");
    assert_eq!(access(&read_by(&mapping(json!({ "token": "body" })), &plain, None).unwrap()), "the-token");
}

#[test]
fn the_end_is_where_the_operator_says() {
    for (response, body, expires) in [
        (json!({ "expires_in": "json.ttl", "unit": "ms" }), json!({ "ttl": 5000 }), Some(T + 5_000)),
        (json!({ "expires_in": "json.ttl" }), json!({ "ttl": "1:00:00" }), Some(T + 86_400_000)),
        (json!({ "expires_at": "json.at" }), json!({ "at": "2023-11-14T22:14:20Z" }), Some(T + 60_000)),
        (json!({ "expires_at": "json.at" }), json!({ "at": T / 1000 + 60 }), Some(T + 60_000)),
        (json!({ "expires_at": "json.at" }), json!({ "at": T + 60_000 }), Some(T + 60_000)),
        (json!({ "expires_at": "json.at" }), json!({ "at": "Tue, 14 Nov 2023 22:14:20 GMT" }), Some(T + 60_000)),
        (json!({ "ttl": "50m" }), json!({}), Some(T + 3_000_000)),
        (json!({ "ttl": "50m" }), json!({ "expires_in": 60 }), Some(T + 60_000)),
        (json!({ "expires_in": null, "ttl": "50m" }), json!({ "expires_in": 60 }), Some(T + 3_000_000)),
        (json!({ "ttl": "50m" }), json!({ "expires_in": 0 }), Some(T + 3_000_000)),
    ] {
        let mut body = body;
        body["access_token"] = "a".into();
        assert_eq!(read_by(&mapping(response.clone()), &json_answer(body.clone()), None).unwrap().expires, expires, "{response} {body}");
    }
}

#[test]
fn silence_is_an_hour_and_zero_is_until_refused() {
    let silent = read(&json_answer(json!({ "access_token": "a" }))).unwrap();
    assert_eq!((silent.expires, silent.supposed), (Some(T + UNSAID), true));
    assert!(!read(&json_answer(json!({ "access_token": "a", "expires_in": 60 }))).unwrap().supposed);
    for nothing in [json!(0), json!("0"), json!(-1)] {
        assert_eq!(read(&json_answer(json!({ "access_token": "a", "expires_in": nothing }))).unwrap().expires, None);
    }
}

#[test]
fn a_jwts_own_end_holds_where_the_issuer_says_nothing() {
    use base64::Engine as _;
    let claims = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(json!({ "exp": T / 1000 + 90 }).to_string());
    let jwt = format!("e30.{claims}.c2ln");
    assert_eq!(read(&json_answer(json!({ "access_token": jwt }))).unwrap().expires, Some(T + 90_000));
    assert_eq!(read(&json_answer(json!({ "access_token": jwt, "expires_in": 0 }))).unwrap().expires, Some(T + 90_000));
    assert_eq!(read(&json_answer(json!({ "access_token": jwt, "expires_in": 30 }))).unwrap().expires, Some(T + 30_000));
}

#[test]
fn a_moment_is_one_of_the_issuers_clock() {
    let mapping = mapping(json!({ "expires_at": "json.at" }));
    for (date, expires) in [
        // Their clock is an hour behind, an hour ahead, and as good as ours.
        ("Tue, 14 Nov 2023 21:13:20 GMT", T + 60_000 + 3_600_000),
        ("Tue, 14 Nov 2023 23:13:20 GMT", T + 7_260_000 - 3_600_000),
        ("Tue, 14 Nov 2023 22:13:18 GMT", T + 60_000),
    ] {
        let at = if expires == T + 3_660_000 && date.contains("23:13") { T + 7_260_000 } else { T + 60_000 };
        let mut response = json_answer(json!({ "access_token": "a", "at": at }));
        response.headers_mut().insert(DATE, HeaderValue::from_static(date));
        assert_eq!(read_by(&mapping, &response, None).unwrap().expires, Some(expires), "{date}");
    }
}

#[test]
fn a_moment_that_is_past_ends_the_token_and_is_not_taken_for_silence() {
    let mapping = mapping(json!({ "expires_at": "json.at" }));
    for at in [1, T - 60_000, T - 1] {
        let answer = json_answer(json!({ "access_token": "a", "at": at }));
        assert_eq!(read_by(&mapping, &answer, None).unwrap().expires, Some(T), "{at}");
    }
}

#[test]
fn a_refresh_answer_without_a_refresh_token_keeps_the_old_one() {
    let before = Minted { refresh: Some(Secret::new("old".into())), ..Minted::default() };
    let kept = read_by(&Mapping::default(), &json_answer(json!({ "access_token": "a" })), Some(&before)).unwrap();
    assert_eq!(kept.refresh.unwrap().expose(), "old");
    let new = read_by(&Mapping::default(), &json_answer(json!({ "access_token": "a", "refresh_token": "new" })), Some(&before)).unwrap();
    assert_eq!(new.refresh.unwrap().expose(), "new");
}

#[test]
fn a_refresh_that_extends_the_same_token_needs_none_in_its_answer() {
    let problems = Problems::default();
    let mapping = Mapping::read(Some(&node(&json!({ "token": null }))), &Mapping::default(), true, &problems).unwrap();
    let before = Minted { access: Some(Secret::new("same".into())), ..Minted::default() };
    let minted = read_by(&mapping, &json_answer(json!({ "expires_in": 60 })), Some(&before)).unwrap();
    assert_eq!((access(&minted), minted.expires), ("same", Some(T + 60_000)));
    assert!(read_by(&mapping, &json_answer(json!({})), None).is_err());
}

#[test]
fn other_values_are_kept_and_a_refresh_may_leave_them_out() {
    let problems = Problems::default();
    let capture = node(&json!({ "instance": "json.instance_url", "realm": "header.X-Realm" }));
    let mapping = Mapping::default().capturing(Some(&capture), &problems).unwrap();
    let mut response = json_answer(json!({ "access_token": "a", "instance_url": "https://x" }));
    assert!(trouble(read_by(&mapping, &response, None).unwrap_err()).detail.contains("capture.realm"));
    response.headers_mut().insert("x-realm", HeaderValue::from_static("7"));
    let first = read_by(&mapping, &response, None).unwrap();
    assert_eq!((first.captured.get("instance"), first.captured.get("realm")), (Some(&Held::text("https://x")), Some(&Held::text("7"))));
    let second = read_by(&mapping, &json_answer(json!({ "access_token": "b" })), Some(&first)).unwrap();
    assert_eq!(second.captured, first.captured);
}

#[test]
fn an_answer_that_is_no_good_says_what_arrived_and_nothing_of_it() {
    let long = "x".repeat(TOKEN_MAX + 1);
    for (response, part) in [
        (answer(200, "text/html", "<html>hunter2hunter2</html>"), "200 with 27 bytes of text/html"),
        (answer(200, "", ""), "200 with nothing in it"),
        (answer(204, "", ""), "204 with nothing in it"),
        (json_answer(json!({ "token": "hunter2hunter2" })), "holds no token where `response.token` says"),
        (json_answer(json!({ "access_token": "" })), "holds no token"),
        (json_answer(json!({ "access_token": null })), "holds no token"),
        (json_answer(json!({ "access_token": { "a": 1 } })), "holds no token"),
        (json_answer(json!({ "access_token": "hunter2hunter2\nX: y" })), "line break"),
        (json_answer(json!({ "access_token": " hunter2hunter2" })), "line break or another character"),
        (json_answer(json!({ "access_token": "hunter2\u{7f}" })), "line break or another character"),
        (json_answer(json!({ "access_token": long })), "more than 32 KiB"),
        (json_answer(json!({ "access_token": "hunter2hunter2", "expires_in": "soon" })), "(expires_in)"),
        (json_answer(json!({ "error": "invalid_client" })), "says invalid_client"),
        (json_answer(json!({ "error": "<script>hunter2hunter2" })), "holds no token"),
        (answer(401, "application/json", r#"{"error":"invalid_client"}"#), "401 with 26 bytes of application/json) says invalid_client"),
        (answer(500, "text/plain", "hunter2hunter2"), "500 with 14 bytes of text/plain) is no success"),
        (answer(400, "x y; hunter2hunter2", "{}"), "400 with 2 bytes of JSON) is no success"),
    ] {
        let trouble = trouble(read(&response).unwrap_err());
        assert!(trouble.detail.contains(part), "{}", trouble.detail);
        assert!(!format!("{trouble:?}").contains("hunter2hunter2"), "{trouble:?}");
    }
}

#[test]
fn a_redirect_is_not_followed_and_only_its_origin_is_told() {
    let mut response = answer(302, "", "");
    response.headers_mut().insert(LOCATION, HeaderValue::from_static("https://elsewhere.example/steal?hunter2hunter2"));
    let trouble = trouble(read(&response).unwrap_err());
    assert!(trouble.detail.contains("is a redirect to https://elsewhere.example, which is not followed"), "{}", trouble.detail);
    assert!(!trouble.cause.contains("hunter2"));
}

#[test]
fn invalid_grant_is_a_refusal_and_nothing_else_is() {
    let body = |code: &str| json!({ "error": code, "error_description": "no" }).to_string();
    for status in [200, 400, 401, 403] {
        assert!(matches!(read(&answer(status, "application/json", body("invalid_grant"))), Err(Failure::Refused(_))), "{status}");
    }
    for (status, code) in
        [(500, "invalid_grant"), (400, "invalid_client"), (400, "invalid_scope"), (429, "slow_down"), (400, "server_error")]
    {
        assert!(matches!(read(&answer(status, "application/json", body(code))), Err(Failure::Down(..))), "{status} {code}");
    }
}

#[test]
fn an_error_inside_a_good_status_is_where_the_operator_says() {
    let plain = mapping(json!({ "token": "json.t", "error": "json.err" }));
    let ok = mapping(json!({ "token": "json.t", "error": { "path": "json.ok", "ok": true } }));
    for (mapping, body, good) in [
        (&plain, json!({ "t": "a" }), true),
        (&plain, json!({ "t": "a", "err": "" }), true),
        (&plain, json!({ "t": "a", "err": 0 }), true),
        (&plain, json!({ "t": "a", "err": false }), true),
        (&plain, json!({ "t": "a", "err": "bad_login" }), false),
        (&plain, json!({ "t": "a", "err": { "code": 1 } }), false),
        (&ok, json!({ "t": "a", "ok": true }), true),
        (&ok, json!({ "t": "a", "ok": false }), false),
        (&ok, json!({ "t": "a" }), false),
    ] {
        assert_eq!(read_by(mapping, &json_answer(body.clone()), None).is_ok(), good, "{body}");
    }
    let refused = read_by(&plain, &json_answer(json!({ "err": "invalid_grant" })), None);
    assert!(matches!(refused, Err(Failure::Refused(_))));
}

#[test]
fn the_issuers_own_words_reach_the_log_without_what_was_sent_to_it() {
    let body = json!({ "error": "invalid_client", "error_description": format!("secret hunter2hunter2 is wrong\r\n{}", "x".repeat(500)) });
    let trouble = trouble(read(&answer(401, "application/json", body.to_string())).unwrap_err());
    assert!(
        trouble.cause.contains("[redacted] is wrong") && !trouble.cause.contains('\n') && trouble.cause.len() < 400,
        "{}",
        trouble.cause
    );
    assert!(!trouble.detail.contains("is wrong"));
}

#[test]
fn an_issuer_that_is_busy_is_given_the_time_it_asks_for() {
    for (status, asked) in [(429, Some(30)), (503, Some(30)), (500, None)] {
        let mut response = answer(status, "", "");
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("30"));
        let Err(Failure::Down(_, wait)) = read(&response) else { panic!("{status}") };
        assert_eq!(wait, asked.map(Duration::from_secs));
    }
}

#[test]
fn patience_may_be_a_date_of_the_issuers_clock() {
    let mut response = answer(503, "", "");
    let headers = response.headers_mut();
    headers.insert(DATE, HeaderValue::from_static("Tue, 14 Nov 2023 21:13:20 GMT"));
    headers.insert(RETRY_AFTER, HeaderValue::from_static("Tue, 14 Nov 2023 21:14:00 GMT"));
    let Err(Failure::Down(_, wait)) = read(&response) else { panic!() };
    assert_eq!(wait, Some(Duration::from_secs(40)));
}

#[test]
fn a_renewal_that_is_denied_is_told_from_an_issuer_that_is_down() {
    let refreshed = |status: u16, body: &str| {
        let response = answer(status, "application/json", body.to_owned());
        Mapping::default().understand(&response, Step::Refresh, T, None, &mask()).unwrap_err()
    };
    for (status, body) in [(400, r#"{"error":"invalid_request"}"#), (401, "{}"), (403, "")] {
        assert!(matches!(refreshed(status, body), Failure::Denied(..)), "{status} {body}");
    }
    for (status, body) in [(500, "{}"), (503, ""), (429, r#"{"error":"slow_down"}"#)] {
        assert!(matches!(refreshed(status, body), Failure::Down(..)), "{status} {body}");
    }
}

#[test]
fn wrong_settings_are_refused_with_their_place() {
    for wrong in [
        json!({ "token": "access_token" }),
        json!({ "token": [] }),
        json!({ "token": null }),
        json!({ "expires_in": "xml." }),
        json!({ "unit": "weeks" }),
        json!({ "ttl": 50 }),
        json!({ "error": {} }),
        json!({ "tokn": "json.a" }),
        json!("json.a"),
    ] {
        let problems = Problems::default();
        let _ = Mapping::read(Some(&node(&wrong)), &Mapping::default(), false, &problems);
        assert!(problems.any_error(), "{wrong}");
    }
}
