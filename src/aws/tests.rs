use super::*;

#[test]
fn an_answer_that_may_be_better_later_is_told_from_one_that_a_person_must_mend() {
    let fault = |status: u16, word: &str| Fault::answered("STS", StatusCode::from_u16(status).unwrap(), word);
    for (status, word) in [
        (500, ""),
        (503, "x"),
        (429, ""),
        (403, "AccessDenied"),
        (400, "Throttling"),
        (400, "IDPCommunicationError"),
        (400, "InvalidIdentityToken"),
        (400, "ExpiredTokenException"),
    ] {
        assert!(matches!(fault(status, word), Fault::Down(_)), "{status} {word}");
    }
    for (status, word) in [(403, "InvalidClientTokenId"), (403, "SignatureDoesNotMatch"), (400, "ValidationError"), (400, "")] {
        assert!(matches!(fault(status, word), Fault::Refused(_)), "{status} {word}");
    }
    let Fault::Refused(text) = fault(400, "a secret that is quoted") else { panic!() };
    assert!(!text.contains("quoted"), "{text}");
}

#[test]
fn a_region_never_becomes_another_host() {
    let sts = |region: &str| sts::Sts::new(region, None, &ambient::Ambient::default(), None);
    assert!(sts("eu-west-1").is_ok() && sts("cn-north-1").is_ok());
    for wrong in ["", "x.evil.example/", "a/b", "a#", "A", "a.b", "a@b"] {
        assert!(sts(wrong).is_err(), "{wrong}");
    }
    assert_eq!((sts::domain("cn-north-1"), sts::domain("us-gov-west-1")), ("amazonaws.com.cn", "amazonaws.com"));
}

#[test]
fn credentials_are_read_whole_or_not_at_all_and_never_print() {
    let read = |text: &str| of_json(&serde_json::from_str(text).unwrap(), "Token", "Expiration");
    let whole = read(r#"{"AccessKeyId":"A","SecretAccessKey":"hunter2","Token":"t0ken","Expiration":"2011-07-15T23:28:33.359Z"}"#).unwrap();
    assert_eq!((whole.id.as_str(), whole.expires), ("A", Some(1_310_772_513_359)));
    assert!(!format!("{whole:?}").contains("hunter2") && !format!("{whole:?}").contains("t0ken"));
    for wrong in [
        r#"{"AccessKeyId":"A"}"#,
        r#"{"AccessKeyId":"","SecretAccessKey":"s"}"#,
        r#"{"AccessKeyId":"A","SecretAccessKey":"s","Expiration":"soon"}"#,
        "[]",
    ] {
        assert!(read(wrong).is_none(), "{wrong}");
    }
}
