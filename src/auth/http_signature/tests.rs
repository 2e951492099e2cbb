use aws_lc_rs::signature;
use http::header::HOST;
use serde_json::{Value, json};

use super::*;
use crate::auth::support::{BUFFER, auth, call, call_with, complaints, signed};
use crate::path::Target;
use crate::tree::{Place, Value as Tree};

/// RFC 9421 section B.1.4.
const ED25519: &str =
    "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIJ+DYvh6SEqVTm50DFtMDoQikTmiCqirVv9mWG9qfSnF\n-----END PRIVATE KEY-----\n";
/// RFC 9421 section B.1.5.
const SHARED: &str = "uzvJfB4u3N0Jy4T7NZ75MDVcr8zSTInedJtkgcu46YW4XByzNJjxBdtjUkdJPBtbmHhIDi6pcl8jsasjlTMtDQ==";

/// The request of RFC 9421 section B.2.
fn test_request() -> Call {
    let mut call = call_with("application/json", b"{\"hello\": \"world\"}");
    call.target = Target::new("/foo", Some("param=Value&Pet=dog"));
    for (name, text) in [
        ("host", "example.com"),
        ("date", "Tue, 20 Apr 2021 02:07:55 GMT"),
        ("content-length", "18"),
        ("content-digest", "sha-512=:WZDPaVn/7XgHaAy8pmojAkGWoRx2UFChF41A2svX+TaPm+AbwAgBWnrIiYllu7BNNyealdVLvRwEmTHWXvJwew==:"),
    ] {
        call.headers.insert(name, HeaderValue::from_static(text));
    }
    call
}

fn scheme(key: Key, components: &[&str]) -> HttpSignature {
    let component = |text: &&str| {
        let written = Node { place: Place::default(), value: Tree::Text((*text).into()) };
        Component::read(&written, &Problems::default()).unwrap()
    };
    HttpSignature {
        algorithm: key.usual(),
        key,
        components: components.iter().map(component).collect(),
        suffix: String::new(),
        label: "sig".into(),
        expires: None,
        nonce: false,
        hash: Hash::Sha512,
        secure: true,
        buffer: BUFFER,
        identity: "x".into(),
    }
}

/// Whether a signature of the RFC's own is one over the base that is made here.
fn verify(
    algorithm: &'static dyn signature::VerificationAlgorithm,
    key: &str,
    (call, components): (&Call, &[&str]),
    params: &str,
    signature: &str,
) {
    let (base, _) = scheme(Key::private(ED25519).unwrap(), components).base(call, params).unwrap();
    let key = signature::UnparsedPublicKey::new(algorithm, STANDARD.decode(key).unwrap());
    key.verify(base.as_bytes(), &STANDARD.decode(signature).unwrap()).unwrap_or_else(|_| panic!("{base}"));
}

/// RFC 9421 section B.1.2, the public half.
const RSA_PSS: &str = "MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAr4tmm3r20Wd/PbqvP1s2+QEtvpuRaV8Yq40gjUR8y2Rjxa6dpG2GXHbPfvMs8ct+Lh1GH45x28Rw3Ry53mm+oAXjyQ86OnDkZ5N8lYbggD4O3w6M6pAvLkhk95AndTrifbIFPNU8PPMO7OyrFAHqgDsznjPFmTOtCEcN2Z1FpWgchwuYLPL+Wokqltd11nqqzi+bJ9cvSKADYdUAAN5WUtzdpiy6LbTgSxP7ociU4Tn0g5I6aDZJ7A8Lzo0KSyZYoA485mqcO0GVAdVw9lq4aOT9v6d+nb4bnNkQVklLQ3fVAvJm+xdDOp9LCNCN48V2pnDOkFV6+U9nV5oyc6XI2wIDAQAB";
/// RFC 9421 section B.1.3, the public half.
const ECC_P256: &str =
    "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEqIVYZVLCrPZHGHjP17CTW0/+D9Lfw0EkjqF7xB4FivAxzic30tMM4GF+hR6Dxh71Z50VGGdldkkDXZCnTNnoXQ==";

// RFC 9421 sections B.2.1 to B.2.3.
#[test]
fn the_rfcs_rsa_signatures_are_signatures_over_the_base_that_is_made_here() {
    let call = test_request();
    for (components, params, signature) in [
        (
            &[][..],
            ";created=1618884473;keyid=\"test-key-rsa-pss\";nonce=\"b3k2pp5k7z-50gnwp.yemd\"",
            "d2pmTvmbncD3xQm8E9ZV2828BjQWGgiwAaw5bAkgibUopemLJcWDy/lkbbHAve4cRAtx31Iq786U7it++wgGxbtRxf8Udx7zFZsckzXaJMkA7ChG52eSkFxykJeNqsrWH5S+oxNFlD4dzVuwe8DhTSja8xxbR/Z2cOGdCbzR72rgFWhzx2VjBqJzsPLMIQKhO4DGezXehhWwE56YCE+O6c0mKZsfxVrogUvA4HELjVKWmAvtl6UnCh8jYzuVG5WSb/QEVPnP5TmcAnLH1g+s++v6d4s8m0gCw1fV5/SITLq9mhho8K3+7EPYTU8IU1bLhdxO5Nyt8C8ssinQ98Xw9Q==",
        ),
        (
            &["@authority", "content-digest", "@query-param;name=\"Pet\""],
            ";created=1618884473;keyid=\"test-key-rsa-pss\";tag=\"header-example\"",
            "LjbtqUbfmvjj5C5kr1Ugj4PmLYvx9wVjZvD9GsTT4F7GrcQEdJzgI9qHxICagShLRiLMlAJjtq6N4CDfKtjvuJyE5qH7KT8UCMkSowOB4+ECxCmT8rtAmj/0PIXxi0A0nxKyB09RNrCQibbUjsLS/2YyFYXEu4TRJQzRw1rLEuEfY17SARYhpTlaqwZVtR8NV7+4UKkjqpcAoFqWFQh62s7Cl+H2fjBSpqfZUJcsIk4N6wiKYd4je2U/lankenQ99PZfB4jY3I5rSV2DSBVkSFsURIjYErOs0tFTQosMTAoxk//0RoKUqiYY8Bh0aaUEb0rQl3/XaVe4bXTugEjHSw==",
        ),
        (
            &["date", "@method", "@path", "@query", "@authority", "content-type", "content-digest", "content-length"],
            ";created=1618884473;keyid=\"test-key-rsa-pss\"",
            "bbN8oArOxYoyylQQUU6QYwrTuaxLwjAC9fbY2F6SVWvh0yBiMIRGOnMYwZ/5MR6fb0Kh1rIRASVxFkeGt683+qRpRRU5p2voTp768ZrCUb38K0fUxN0O0iC59DzYx8DFll5GmydPxSmme9v6ULbMFkl+V5B1TP/yPViV7KsLNmvKiLJH1pFkh/aYA2HXXZzNBXmIkoQoLd7YfW91kE9o/CCoC1xMy7JA1ipwvKvfrs65ldmlu9bpG6A9BmzhuzF8Eim5f8ui9eH8LZH896+QIF61ka39VBrohr9iyMUJpvRX2Zbhl5ZJzSRxpJyoEZAFL2FUo5fTIztsDZKEgM4cUA==",
        ),
    ] {
        verify(&signature::RSA_PSS_2048_8192_SHA512, RSA_PSS, (&call, components), params, signature);
    }
}

// RFC 9421 section B.3, over a field that is a structured one.
#[test]
fn the_rfcs_proxy_signs_over_the_same_base_whether_its_field_is_taken_as_it_is_or_not() {
    let mut call = test_request();
    call.headers.insert(HOST, HeaderValue::from_static("service.internal.example"));
    let certificate = ":MIIBqDCCAU6gAwIBAgIBBzAKBggqhkjOPQQDAjA6MRswGQYDVQQKDBJMZXQncyBBdXRoZW50aWNhdGUxGzAZBgNVBAMMEkxBIEludGVybWVkaWF0ZSBDQTAeFw0yMDAxMTQyMjU1MzNaFw0yMTAxMjMyMjU1MzNaMA0xCzAJBgNVBAMMAkJDMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE8YnXXfaUgmnMtOXU/IncWalRhebrXmckC8vdgJ1p5Be5F/3YC8OthxM4+k1M6aEAEFcGzkJiNy6J84y7uzo9M6NyMHAwCQYDVR0TBAIwADAfBgNVHSMEGDAWgBRm3WjLa38lbEYCuiCPct0ZaSED2DAOBgNVHQ8BAf8EBAMCBsAwEwYDVR0lBAwwCgYIKwYBBQUHAwIwHQYDVR0RAQH/BBMwEYEPYmRjQGV4YW1wbGUuY29tMAoGCCqGSM49BAMCA0gAMEUCIBHda/r1vaL6G3VliL4/Di6YK0Q6bMjeSkC3dFCOOB8TAiEAx/kHSB4urmiZ0NX5r5XarmPk0wmuydBVoU4hBVZ1yhk=:";
    call.headers.insert("client-cert", HeaderValue::from_static(certificate));
    let components = ["@path", "@query", "@method", "@authority", "client-cert"];
    verify(
        &signature::ECDSA_P256_SHA256_FIXED,
        ECC_P256,
        (&call, &components),
        ";created=1618884473;keyid=\"test-key-ecc-p256\"",
        "xVMHVpawaAC/0SbHrKRs9i8I3eOs5RtTMGCWXm/9nvZzoHsIg6Mce9315T6xoklyy0yzhD9ah4JHRwMLOgmizw==",
    );
    assert_eq!(structured::strict("client-cert", certificate).as_deref(), Some(certificate));
}

// RFC 9421 section B.4.
#[test]
fn a_signature_survives_the_transformations_of_the_rfc_and_no_others() {
    let call = |method: &'static str, host: &'static str, query: &str, accept: &[&'static str]| {
        let mut call = call("/");
        call.method = method.parse().unwrap();
        call.target = Target::new("/demo", Some(query));
        call.headers.insert(HOST, HeaderValue::from_static(host));
        for value in accept {
            call.headers.append("accept", HeaderValue::from_static(value));
        }
        call
    };
    let sign = |call: &Call| {
        let scheme = scheme(Key::private(ED25519).unwrap(), &["@method", "@path", "@authority", "accept"]);
        let (base, _) = scheme.base(call, ";created=1618884473;keyid=\"test-key-ed25519\"").unwrap();
        STANDARD.encode(scheme.key.sign(scheme.algorithm, base.as_bytes()).unwrap())
    };
    let expected = "ZT1kooQsEHpZ0I1IjCqtQppOmIqlJPeo7DHR3SoMn0s5JZ1eRGS0A+vyYP9t/LXlh5QMFFQ6cpLt2m0pmj3NDA==";
    let query = "name1=Value1&Name2=value2";
    assert_eq!(sign(&call("GET", "example.org", query, &["application/json", "*/*"])), expected);
    assert_eq!(sign(&call("GET", "example.org", "name1=Value1&Name2=value2&param=added", &["application/json", "*/*"])), expected);
    assert_eq!(sign(&call("GET", "example.org", query, &["application/json, */*"])), expected);
    assert_ne!(sign(&call("POST", "example.com", query, &["application/json", "*/*"])), expected);
    assert_ne!(sign(&call("GET", "example.org", query, &["*/*", "application/json"])), expected);
}

fn base_of(call: &Call, components: &[&str]) -> String {
    let (base, _) = scheme(Key::private(ED25519).unwrap(), components).base(call, "").unwrap();
    base.rsplit_once("\"@signature-params\"").unwrap().0.to_owned()
}

// RFC 9421 sections 2.1 to 2.1.3.
#[test]
fn fields_are_covered_as_they_are_as_bytes_as_structured_fields_and_by_their_members() {
    let mut call = call("/");
    for (name, text) in [
        ("example-header", "value, with, lots"),
        ("example-header", "of, commas"),
        ("example-dict", "  a=1,    b=2;x=1;y=2,   c=(a   b   c), d"),
        ("x-empty-header", ""),
    ] {
        call.headers.append(name, HeaderValue::from_static(text));
    }
    let components = [
        "example-header",
        "example-header;bs",
        "x-empty-header",
        "example-dict;sf",
        "example-dict;key=\"a\"",
        "example-dict;key=\"d\"",
        "example-dict;key=\"b\"",
        "\"example-dict\";key=\"c\"",
        "example-dict;key=\"e\"",
        "x-absent;sf",
    ];
    assert_eq!(
        base_of(&call, &components),
        "\"example-header\": value, with, lots, of, commas\n\"example-header\";bs: :dmFsdWUsIHdpdGgsIGxvdHM=:, :b2YsIGNvbW1hcw==:\n\"x-empty-header\": \n\
         \"example-dict\";sf: a=1, b=2;x=1;y=2, c=(a b c), d\n\"example-dict\";key=\"a\": 1\n\"example-dict\";key=\"d\": ?1\n\
         \"example-dict\";key=\"b\": 2;x=1;y=2\n\"example-dict\";key=\"c\": (a b c)\n"
    );
    let bad = scheme(Key::private(ED25519).unwrap(), &["example-header;sf"]);
    call.headers.insert("example-header", HeaderValue::from_static("no, structured=field="));
    assert_eq!(bad.base(&call, "").unwrap_err().code(), "bad-request");
}

// RFC 9421 section 2.2.8.
#[test]
fn parameters_of_the_query_are_covered_by_name_and_one_that_is_there_twice_is_refused() {
    let query = "var=this%20is%20a%20big%0Amultiline%20value&bar=with+plus+whitespace&fa%C3%A7ade%22%3A%20=something&empty&twice=1&twice=1";
    let mut call = call("/");
    call.target = Target::new("/parameters", Some(query));
    let names = ["var", "bar", "fa\u{e7}ade%22%3A%20", "empty", "absent"].map(|name| format!("@query-param;name=\"{name}\""));
    assert_eq!(
        base_of(&call, &names.iter().map(String::as_str).collect::<Vec<_>>()),
        "\"@query-param\";name=\"var\": this%20is%20a%20big%0Amultiline%20value\n\"@query-param\";name=\"bar\": with%20plus%20whitespace\n\
         \"@query-param\";name=\"fa%C3%A7ade%22%3A%20\": something\n\"@query-param\";name=\"empty\": \n"
    );
    let twice = scheme(Key::private(ED25519).unwrap(), &["@query-param;name=\"twice\""]);
    assert_eq!(twice.base(&call, "").unwrap_err().code(), "bad-request");
}

// RFC 9421 section B.2.5.
#[test]
fn hmac_signs_the_test_request_as_the_rfc_does() {
    let key = Key::hmac(Encoding::Base64.bytes(SHARED).unwrap());
    let scheme = scheme(key, &["date", "@authority", "content-type"]);
    let (base, _) = scheme.base(&test_request(), ";created=1618884473;keyid=\"test-shared-secret\"").unwrap();
    let expected = "\"date\": Tue, 20 Apr 2021 02:07:55 GMT\n\"@authority\": example.com\n\"content-type\": application/json\n\
                    \"@signature-params\": (\"date\" \"@authority\" \"content-type\");created=1618884473;keyid=\"test-shared-secret\"";
    assert_eq!(base, expected);
    let signature = scheme.key.sign(scheme.algorithm, base.as_bytes()).unwrap();
    assert_eq!(STANDARD.encode(signature), "pxcQw6G3AjtMBQjwo8XzkZf/bws5LelbaMk5rGIGtE8=");
}

// RFC 9421 section B.2.6.
#[test]
fn ed25519_signs_the_test_request_as_the_rfc_does() {
    let scheme = scheme(Key::private(ED25519).unwrap(), &["date", "@method", "@path", "@authority", "content-type", "content-length"]);
    let (base, _) = scheme.base(&test_request(), ";created=1618884473;keyid=\"test-key-ed25519\"").unwrap();
    let signature = STANDARD.encode(scheme.key.sign(scheme.algorithm, base.as_bytes()).unwrap());
    assert_eq!(signature, "wqcAqbmYJ2ji2glfAMaRy4gruYYnx2nEFN2HN6jrnDnQCK1u02Gb04v9EDgwUPiu4A0w6vuQv5lIp5WPpBKRCw==");
}

// RFC 9421 sections 2.2.1 to 2.2.7, and the digest of section B.2.
#[test]
fn every_derived_component_and_the_digest_are_those_of_the_rfc() {
    let names = ["@method", "@target-uri", "@authority", "@scheme", "@request-target", "@path", "@query", "content-digest", "x-absent"];
    let scheme = scheme(Key::private(ED25519).unwrap(), &names);
    let mut call = test_request();
    call.headers.remove("content-digest");
    scheme.digest(&mut call, b"{\"hello\": \"world\"}").unwrap();
    let (base, params) = scheme.base(&call, ";created=1").unwrap();
    assert_eq!(
        base,
        "\"@method\": POST\n\"@target-uri\": https://example.com/foo?param=Value&Pet=dog\n\"@authority\": example.com\n\"@scheme\": https\n\
         \"@request-target\": /foo?param=Value&Pet=dog\n\"@path\": /foo\n\"@query\": ?param=Value&Pet=dog\n\"content-digest\": \
         sha-512=:WZDPaVn/7XgHaAy8pmojAkGWoRx2UFChF41A2svX+TaPm+AbwAgBWnrIiYllu7BNNyealdVLvRwEmTHWXvJwew==:\n\"@signature-params\": \
         (\"@method\" \"@target-uri\" \"@authority\" \"@scheme\" \"@request-target\" \"@path\" \"@query\" \"content-digest\");created=1"
    );
    assert!(!params.contains("x-absent"));
}

fn configured(more: Value) -> Value {
    let mut all = json!({ "key_id": "k1", "key": "${secret:hunter2hunter2}", "components": ["@method", "@target-uri", "content-digest"] });
    more.as_object().unwrap().iter().for_each(|(key, value)| all[key] = value.clone());
    json!({ "http_signature": all })
}

#[test]
fn a_call_gets_its_digest_its_parameters_and_its_signature() {
    let mut call = call_with("text/plain", b"abc");
    call.headers.insert(HOST, HeaderValue::from_static("example.com"));
    call.headers.insert(CONTENT_DIGEST, HeaderValue::from_static("sha-256=:mine:"));
    let call = signed(&auth(configured(json!({ "expires": "5m" }))), call).unwrap();
    assert_eq!(call.headers[CONTENT_DIGEST], "sha-256=:ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=:");
    let input = call.headers[SIGNATURE_INPUT].to_str().unwrap();
    assert!(input.starts_with("sig1=(\"@method\" \"@target-uri\" \"content-digest\");created="), "{input}");
    assert!(input.ends_with(";keyid=\"k1\";alg=\"hmac-sha256\""), "{input}");
    let number = |name: &str| input.split(name).nth(1).unwrap().split(';').next().unwrap().parse::<u64>().unwrap();
    assert_eq!(number(";expires="), number(";created=") + 300);
    assert!(call.headers[SIGNATURE].to_str().unwrap().starts_with("sig1=:") && call.headers[SIGNATURE].is_sensitive());
}

#[test]
fn a_tag_and_a_nonce_are_there_where_they_are_asked_for() {
    let tagged = auth(configured(json!({ "nonce": true, "tag": "web-\"bot\"" })));
    let input = || signed(&tagged, call("/a")).unwrap().headers[SIGNATURE_INPUT].to_str().unwrap().to_owned();
    let (one, two) = (input(), input());
    let nonce = |input: &str| input.split(";nonce=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    assert!(one.ends_with(";keyid=\"k1\";alg=\"hmac-sha256\";tag=\"web-\\\"bot\\\"\""), "{one}");
    assert!(nonce(&one).len() == 36 && nonce(&one) != nonce(&two));
}

#[test]
fn a_body_is_read_only_where_its_digest_is_signed() {
    let long = vec![b'x'; BUFFER as usize + 1];
    let digesting = signed(&auth(configured(json!({}))), call_with("", &long));
    assert_eq!(digesting.unwrap_err(), Error::BodyTooLarge(BUFFER, "limits.buffer".into()));
    assert!(signed(&auth(configured(json!({ "components": ["@method"] }))), call_with("", &long)).is_ok());
    let empty = signed(&auth(configured(json!({ "digest": "sha-512" }))), call("/a")).unwrap();
    assert!(
        empty.headers[CONTENT_DIGEST]
            .to_str()
            .unwrap()
            .starts_with("sha-512=:z4PhNX7vuL3xVChQ1m2AB9Yg5AULVxXcg/SpIdNs6c5H0NE8XYXysP+DGNKHfuwvY7kxvUdBeoGlODJ6+SfaPg==")
    );
}

#[test]
fn what_is_wrong_or_unbuilt_is_said() {
    assert_eq!(complaints(configured(json!({}))), Vec::<String>::new());
    for (more, expected) in [
        (json!({ "algorithm": "ed25519" }), "do not belong together"),
        (json!({ "algorithm": "hmac-sha1" }), "is one of"),
        (json!({ "private_key": "${secret:x}" }), "both here"),
        (json!({ "key": null }), "`private_key` is missing"),
        (json!({ "key": null, "private_key": "${secret:hunter2}" }), "no private key"),
        (json!({ "key_id": null }), "`key_id` is missing"),
        (json!({ "key_id": "ü" }), "visible ASCII"),
        (json!({ "components": [] }), "1 to 64"),
        (json!({ "components": ["@methd"] }), "did you mean `@method`"),
        (json!({ "components": ["@query-param"] }), "names its parameter"),
        (json!({ "components": ["@query-param;sf"] }), "names its parameter"),
        (json!({ "components": ["@method;req"] }), "signature of an answer"),
        (json!({ "components": ["@status"] }), "signature of an answer"),
        (json!({ "components": ["date;tr"] }), "trailers"),
        (json!({ "components": ["@path;sf"] }), "takes no parameter"),
        (json!({ "components": ["date;sf;bs"] }), "one of the parameters"),
        (json!({ "components": ["date;key=\"A\""] }), "one of the parameters"),
        (json!({ "components": ["date;bs", "Date; bs"] }), "twice"),
        (json!({ "tag": "\u{fc}" }), "`tag` is made of visible ASCII"),
        (json!({ "components": ["content-length"] }), "cannot be signed alone"),
        (json!({ "components": ["te"] }), "cannot be signed"),
        (json!({ "components": ["date", "Date"] }), "twice"),
        (json!({ "label": "Sig" }), "small letters"),
        (json!({ "digest": "md5" }), "is one of"),
        (json!({ "key": "literal" }), "must be a reference"),
    ] {
        let found = complaints(configured(more.clone()));
        assert!(found.len() == 1 && found[0].contains(expected), "{more}: {found:?}");
        assert!(!found[0].contains("hunter2"));
    }
}

#[test]
fn nothing_of_it_prints() {
    let text = format!("{:?}", auth(configured(json!({}))));
    assert!(!text.contains("hunter2"), "{text}");
}
