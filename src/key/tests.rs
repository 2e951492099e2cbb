use aws_lc_rs::encoding::{AsDer, EcPrivateKeyRfc5915Der, Pkcs8V1Der};
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::UnparsedPublicKey;
use base64::engine::general_purpose::STANDARD as PADDED;
use serde_json::json;

use super::*;

/// How far into a PKCS#8 document of a 2048-bit RSA key its PKCS#1 form begins.
const PKCS1_AT: usize = 26;

fn pem_of(label: &str, der: &[u8], width: usize) -> String {
    let body = PADDED.encode(der);
    let lines: Vec<&str> = body.as_bytes().chunks(width).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

fn rsa_pkcs8() -> Vec<u8> {
    let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let der: Pkcs8V1Der<'_> = pair.as_der().unwrap();
    der.as_ref().to_vec()
}

fn verified(key: &Key, algorithm: Algorithm) {
    let message = b"a message";
    let signed = key.sign(algorithm, message).unwrap();
    let spki = key.public().unwrap();
    let how: &dyn signature::VerificationAlgorithm = match algorithm {
        Algorithm::RS256 => &signature::RSA_PKCS1_2048_8192_SHA256,
        Algorithm::RS384 => &signature::RSA_PKCS1_2048_8192_SHA384,
        Algorithm::RS512 => &signature::RSA_PKCS1_2048_8192_SHA512,
        Algorithm::PS256 => &signature::RSA_PSS_2048_8192_SHA256,
        Algorithm::PS384 => &signature::RSA_PSS_2048_8192_SHA384,
        Algorithm::PS512 => &signature::RSA_PSS_2048_8192_SHA512,
        Algorithm::ES256 => &signature::ECDSA_P256_SHA256_FIXED,
        Algorithm::ES384 => &signature::ECDSA_P384_SHA384_FIXED,
        Algorithm::ES512 => &signature::ECDSA_P521_SHA512_FIXED,
        _ => &signature::ED25519,
    };
    UnparsedPublicKey::new(how, spki).verify(message, &signed).unwrap();
}

// RFC 7515 appendix A.1.
#[test]
fn an_hmac_signs_as_in_rfc_7515() {
    let jwk = r#"{"kty":"oct","k":"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"}"#;
    let message = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
    let signed = Key::private(jwk).unwrap().sign(Algorithm::HS256, message.as_bytes()).unwrap();
    assert_eq!(URL_SAFE_NO_PAD.encode(signed), "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk");
}

// RFC 8037 appendix A.4.
#[test]
fn ed25519_signs_as_in_rfc_8037() {
    let jwk = r#"{"kty":"OKP","crv":"Ed25519","d":"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
    let message = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc";
    let key = Key::private(jwk).unwrap();
    let signed = URL_SAFE_NO_PAD.encode(key.sign(Algorithm::EdDSA, message.as_bytes()).unwrap());
    assert_eq!(signed, "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg");
    verified(&key, Algorithm::EdDSA);
}

// RFC 7515 appendix A.3.1 has the key; its signatures are never twice the same.
#[test]
fn a_jwk_on_p256_signs_and_brings_its_id() {
    let jwk = json!({ "kty": "EC", "crv": "P-256", "kid": "k1",
        "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
        "d": "jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI" });
    let key = Key::private(&jwk.to_string()).unwrap();
    assert_eq!((key.id(), key.usual()), (Some("k1"), Algorithm::ES256));
    verified(&key, Algorithm::ES256);
    verified(&Key::private(&PADDED.encode(jwk.to_string())).unwrap(), Algorithm::ES256);
}

#[test]
fn an_rsa_key_is_read_in_every_spelling() {
    let pkcs8 = rsa_pkcs8();
    let plain = pem_of("PRIVATE KEY", &pkcs8, 64);
    let one_line = plain.replace('\n', " ");
    let spellings = [
        plain.clone(),
        plain.replace('\n', "\r\n"),
        plain.replace('\n', "\\n"),
        plain.replace('\n', "\\r\\n"),
        plain.replace('\n', ""),
        one_line,
        pem_of("PRIVATE KEY", &pkcs8, 10_000),
        pem_of("RSA PRIVATE KEY", &pkcs8[PKCS1_AT..], 64),
        PADDED.encode(&plain),
        PADDED.encode(PADDED.encode(&plain)),
        PADDED.encode(&pkcs8),
        URL_SAFE_NO_PAD.encode(&pkcs8),
        format!("Bag Attributes\n{plain}-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n"),
    ];
    let public = Key::private(&plain).unwrap().public();
    for spelling in spellings {
        assert_eq!(Key::private(&spelling).unwrap().public(), public, "{spelling}");
    }
}

#[test]
fn an_rsa_key_signs_by_all_of_its_algorithms() {
    let key = Key::private(&pem_of("PRIVATE KEY", &rsa_pkcs8(), 64)).unwrap();
    for (_, algorithm) in Algorithm::ALL.iter().filter(|(name, _)| name.starts_with("RS") || name.starts_with("PS")) {
        verified(&key, *algorithm);
    }
    assert_eq!(key.sign(Algorithm::ES256, b"").unwrap_err(), UNFIT);
    assert_eq!(key.sign(Algorithm::HS256, b"").unwrap_err(), UNFIT);
}

#[test]
fn an_elliptic_key_is_read_in_both_of_its_forms() {
    for (curve, algorithm, _) in &CURVES {
        let pair = EcdsaKeyPair::generate(curve).unwrap();
        let pkcs8 = pair.to_pkcs8v1().unwrap();
        let sec1: EcPrivateKeyRfc5915Der<'_> = pair.private_key().as_der().unwrap();
        let parameters = "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n";
        for text in [
            pem_of("PRIVATE KEY", pkcs8.as_ref(), 64),
            pem_of("EC PRIVATE KEY", sec1.as_ref(), 64),
            format!("{parameters}{}", pem_of("EC PRIVATE KEY", sec1.as_ref(), 64)),
        ] {
            let key = Key::private(&text).unwrap();
            assert_eq!(key.usual(), *algorithm);
            verified(&key, *algorithm);
        }
    }
}

#[test]
fn what_is_no_private_key_is_told_apart_and_never_shown() {
    let pkcs8 = pem_of("PRIVATE KEY", &rsa_pkcs8(), 64);
    for (text, part) in [
        (String::new(), "empty"),
        ("  \n".into(), "empty"),
        ("hunter2 hunter2!".into(), "no private key"),
        (PADDED.encode("hunter2"), "no private key"),
        (pem_of("PUBLIC KEY", b"hunter2", 64), "public key"),
        (pem_of("CERTIFICATE", b"hunter2", 64), "public key"),
        (pem_of("ENCRYPTED PRIVATE KEY", b"hunter2", 64), "encrypted"),
        (pem_of("OPENSSH PRIVATE KEY", b"hunter2", 64), "OpenSSH"),
        (pem_of("PRIVATE KEY", b"hunter2", 64), "damaged"),
        ("-----BEGIN PRIVATE KEY-----\nhunter2".into(), "END"),
        ("-----BEGIN PRIVATE KEY-----\nhunter2!\n-----END PRIVATE KEY-----".into(), "not base64"),
        (pkcs8[..pkcs8.len() / 2].to_owned(), "END"),
        ("{hunter2".into(), "not JSON"),
        (json!({ "kty": "RSA", "n": "AA", "e": "AQAB" }).to_string(), "missing"),
        (json!({ "kty": "EC", "crv": "P-999", "d": "AA" }).to_string(), "damaged"),
        (json!({ "kty": "hunter2" }).to_string(), "no known type"),
        ("x".repeat(TEXT_MAX + 1), "larger"),
    ] {
        let error = Key::private(&text).unwrap_err();
        assert!(error.0.contains(part), "{text}: {error}");
        assert!(!error.to_string().contains("hunter2"));
    }
}

#[test]
fn a_secret_is_text_hex_or_base64() {
    for (encoding, text, bytes) in [
        (Encoding::Text, "a b", &b"a b"[..]),
        (Encoding::Hex, "00fF ", &[0, 255]),
        (Encoding::Base64, "_-8", &[255, 239]),
        (Encoding::Base64, "/+8=\n", &[255, 239]),
    ] {
        assert_eq!(encoding.bytes(text).unwrap().as_slice(), bytes);
    }
    for (encoding, text) in
        [(Encoding::Text, ""), (Encoding::Hex, "0"), (Encoding::Hex, "zz"), (Encoding::Hex, "+1"), (Encoding::Base64, "!")]
    {
        assert!(encoding.bytes(text).is_err(), "{text}");
    }
}

#[test]
fn a_jwt_has_the_header_that_was_asked_for_and_can_be_verified_elsewhere() {
    use jsonwebtoken::{DecodingKey, Validation, decode};

    let key = Key::hmac(Zeroizing::new(b"secret".to_vec()));
    let header = json!({ "kid": "k", "typ": null, "alg": "none", "x5t#S256": "t" });
    let claims = json!({ "iss": "me", "exp": 4_000_000_000u64 });
    let jwt = key.jwt(Algorithm::HS512, header.as_object().unwrap(), claims.as_object().unwrap()).unwrap();
    let header: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(jwt.split('.').next().unwrap()).unwrap()).unwrap();
    assert_eq!(header, json!({ "alg": "HS512", "kid": "k", "x5t#S256": "t" }));
    let decoded = decode::<Value>(&jwt, &DecodingKey::from_secret(b"secret"), &Validation::new(jsonwebtoken::Algorithm::HS512)).unwrap();
    assert_eq!(decoded.claims["iss"], "me");
}

#[test]
fn a_key_never_prints() {
    assert_eq!(format!("{:?}", Key::hmac(Zeroizing::new(b"hunter2".to_vec()))), REDACTED);
}
