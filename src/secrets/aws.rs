//! `${aws-sm:ID#FIELD}`: AWS Secrets Manager by one signed POST, `GetSecretValue`.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Request, StatusCode};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::ask::{Document, Trouble};
use crate::aws::Credentials;
use crate::aws::post::{self, Scope};
use crate::clock::Clock;
use crate::net::{self, Bounds, Upstream};
use crate::secret::Secret;

/// What bounds the call.
const BOUNDS: Bounds = Bounds { time: Duration::from_secs(10), bytes: 1 << 20 };
const SERVICE: &str = "secretsmanager";
const TARGET: &str = "secretsmanager.GetSecretValue";
/// Longest name of a kind of error.
const KIND_MAX: usize = 64;
const JSON: &str = "application/x-amz-json-1.1";

/// `aws_sm`.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `endpoint`, or the region's own.
    pub upstream: Arc<Upstream>,
    /// What follows the origin in `endpoint`; at least `/`.
    pub path: String,
    /// `region`.
    pub region: String,
    /// `access_key_id`.
    pub key_id: String,
    /// `secret_access_key`.
    pub key: Secret,
    /// `session_token`.
    pub session: Option<Secret>,
    /// How often secrets are read anew.
    pub refresh: Duration,
}

/// Reads a secret.
///
/// # Errors
/// Why there is no value.
pub async fn fetch(id: &str, settings: &Settings) -> Result<Document, Trouble> {
    let body = json!({ "SecretId": id }).to_string();
    let request = signed(&body, settings, Clock::system().wall())?;
    let answer = net::fetch(&settings.upstream, request, BOUNDS).await;
    let answer = answer.map_err(|error| Trouble::new(format!("AWS does not answer: {}", error.cause()), "is `aws_sm.region` right?"))?;
    let status = answer.status();
    let body: Value = serde_json::from_slice(answer.body()).unwrap_or_default();
    if status != StatusCode::OK {
        return Err(refused(status, kind(answer.headers(), answer.body(), &body)));
    }
    if let Some(text) = body["SecretString"].as_str() {
        return Ok(Document::Text(Secret::new(text.to_owned())));
    }
    let bytes = body["SecretBinary"].as_str().and_then(|b| STANDARD.decode(b).ok()).map(Zeroizing::new);
    match bytes.as_deref().map(|b| std::str::from_utf8(b)) {
        Some(Ok(text)) => Ok(Document::Text(Secret::new(text.to_owned()))),
        Some(Err(_)) => Err(Trouble::new("the secret is binary and no UTF-8", "store it as text, encoded in base64 if need be")),
        None => Err(Trouble::new("AWS's answer holds no secret", "")),
    }
}

/// The kind of error: in the JSON, in a field of the head, or in the XML that gateways of AWS answer with.
fn kind<'a>(head: &'a http::HeaderMap, text: &'a Bytes, body: &'a Value) -> &'a str {
    let field = || head.get("x-amzn-errortype").and_then(|v| v.to_str().ok()).map(|v| v.split(':').next().unwrap_or(v));
    let xml = || std::str::from_utf8(text).ok()?.split("<Code>").nth(1)?.split('<').next();
    let kind = body["__type"].as_str().map(|v| v.rsplit('#').next().unwrap_or(v)).or_else(field).or_else(xml).unwrap_or_default();
    if kind.len() <= KIND_MAX && kind.bytes().all(|b| b.is_ascii_alphanumeric()) { kind } else { "" }
}

/// Only the kind of error is told: the message may quote what was sent.
fn refused(status: StatusCode, kind: &str) -> Trouble {
    match kind {
        "ResourceNotFoundException" => Trouble::new("AWS has no such secret in this region", "the name or the ARN of a secret"),
        "AccessDeniedException" | "AccessDenied" => Trouble::new(
            "AWS refuses: access denied",
            "the key needs secretsmanager:GetSecretValue on this secret, and kms:Decrypt on its key",
        ),
        "UnrecognizedClientException"
        | "InvalidSignatureException"
        | "InvalidClientTokenId"
        | "ExpiredTokenException"
        | "SignatureDoesNotMatch" => {
            Trouble::new(format!("AWS refuses the key: {kind}"), "is it right, of this account, and not expired? Is the clock right?")
        }
        "" => Trouble::new(format!("AWS answers {}", status.as_u16()), ""),
        _ => Trouble::new(format!("AWS answers {}: {kind}", status.as_u16()), ""),
    }
}

/// The call with its signature (AWS Signature Version 4).
fn signed(body: &str, settings: &Settings, now: SystemTime) -> Result<Request<Bytes>, Trouble> {
    let credentials =
        Credentials { id: settings.key_id.clone(), secret: settings.key.clone(), session: settings.session.clone(), expires: None };
    let request = Request::post(settings.path.as_str()).header(CONTENT_TYPE, JSON).header("x-amz-target", TARGET);
    let request = request.body(Bytes::from(body.to_owned()));
    let mut request = request.map_err(|error| Trouble::new(format!("this cannot be asked: {error}"), ""))?;
    let host = settings.upstream.origin().authority();
    let scope = Scope { service: SERVICE, region: &settings.region };
    post::sign(&mut request, host, scope, &credentials, now).map_err(|why| Trouble::new(why, ""))?;
    Ok(request)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use aws_credential_types::Credentials;
    use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
    use aws_sigv4::sign::v4;

    use super::*;
    use crate::net::{Origin, pool};
    use crate::tree::Problems;

    #[test]
    fn the_signature_is_the_one_of_awss_own_crate() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_440_938_160);
        let origin = Origin::parse("https", "secretsmanager.eu-west-1.amazonaws.com").unwrap();
        let pool = pool::Config::read(None, true, &Problems::default()).unwrap();
        for session in [None, Some("a/session+token==")] {
            let settings = Settings {
                upstream: Arc::new(Upstream::new(origin.clone(), None, pool, Duration::from_secs(1), Duration::from_secs(1))),
                path: "/".into(),
                region: "eu-west-1".into(),
                key_id: "AKIDEXAMPLE".into(),
                key: Secret::new("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".into()),
                session: session.map(|s| Secret::new(s.into())),
                refresh: Duration::from_secs(300),
            };
            let body = r#"{"SecretId":"app/x"}"#;
            let request = signed(body, &settings, now).unwrap();
            let identity = Credentials::new("AKIDEXAMPLE", settings.key.expose(), session.map(str::to_owned), None, "test").into();
            let params = v4::SigningParams::builder()
                .identity(&identity)
                .region("eu-west-1")
                .name(SERVICE)
                .time(now)
                .settings(SigningSettings::default())
                .build()
                .unwrap()
                .into();
            let fields = [("content-type", JSON), ("x-amz-target", TARGET)];
            let url = "https://secretsmanager.eu-west-1.amazonaws.com/";
            let signable = SignableRequest::new("POST", url, fields.into_iter(), SignableBody::Bytes(body.as_bytes())).unwrap();
            let (instructions, _) = sign(signable, &params).unwrap().into_parts();
            let mut theirs = Request::post(url).body(()).unwrap();
            instructions.apply_to_request_http1x(&mut theirs);
            assert_eq!(request.headers()["authorization"], theirs.headers()["authorization"]);
            assert_eq!(request.headers()["x-amz-date"], theirs.headers()["x-amz-date"]);
        }
    }
}
