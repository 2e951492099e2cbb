//! Puts a secret into the JSON or form body of a request, and touches nothing else in it (rulings F10 and F11).
//!
//! The name is literal and stands at the top level. A body that cannot take the secret in exactly one reading is
//! refused. Nested places, XML and multipart are not served here.

use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, TRAILER, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue};
use zeroize::Zeroizing;

use crate::auth::form;
use crate::auth::json::{self, Wrong};
use crate::body::{self, Body};
use crate::call::Call;
use crate::error::Error;
use crate::secret::Secret;
use crate::uri::encode_query;

/// What names the limit on the body in errors.
const LIMIT: &str = "limits.buffer";

/// Digests of the body as the client sent it, which is not the body that goes on (RFC 9530, and its forerunners).
const DIGESTS: [&str; 4] = ["content-digest", "repr-digest", "digest", "content-md5"];

/// Character sets in which ASCII stands for itself, so that an inserted text means what it says.
const CHARSETS: [&str; 6] = ["utf-8", "utf8", "us-ascii", "ascii", "iso-8859-1", "windows-1252"];

/// A field of the body with its secret, ready in both spellings.
#[derive(Debug)]
pub struct Insert {
    name: String,
    json: Secret,
    form: Secret,
    limit: u64,
}

pub(super) enum Kind {
    Json,
    Form,
    Xml,
}

impl Insert {
    /// A field `name` with this value, for bodies of at most `limit` bytes. `None` where JSON cannot spell it, which
    /// no text causes.
    pub fn new(name: String, value: &Secret, limit: u64) -> Option<Self> {
        let text = Zeroizing::new(serde_json::to_string(value.expose()).ok()?);
        let json = Secret::new([serde_json::to_string(&name).ok()?.as_str(), ":", text.as_str()].concat());
        let text = Zeroizing::new(encode_query(value.expose()));
        let form = Secret::new([encode_query(&name).as_str(), "=", text.as_str()].concat());
        Some(Self { name, json, form, limit })
    }

    /// The name of the field.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Reads the body whole and puts the field in.
    ///
    /// # Errors
    /// [`Error::BadRequest`] for a body that has no room for it, [`Error::BodyTooLarge`] for one over the limit.
    pub async fn put(&self, call: &mut Call) -> Result<(), Error> {
        let kind = kind(&call.headers, http_body::Body::is_end_stream(&call.body))?;
        let text = body::collect(std::mem::take(&mut call.body), self.limit, LIMIT).await?;
        let text = match kind {
            Kind::Json => json::set(&text, &self.name, self.json.expose()).map_err(refusal)?,
            Kind::Form => form::set(&text, &self.name, self.form.expose()),
            Kind::Xml => return Err(refused("This resource's credential goes into the body, and the body is XML.", WANTED)),
        };
        reframe(&mut call.headers, text.len());
        call.expects_continue = false;
        call.body = Body::Full(text.into());
        Ok(())
    }
}

/// The fields that spoke of the client's body speak of the new one, or go.
pub(super) fn reframe(headers: &mut HeaderMap, length: usize) {
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    headers.remove(TRANSFER_ENCODING);
    headers.remove(TRAILER);
    // Whoever waited for 100 has sent the body by now.
    headers.remove(EXPECT);
    for name in DIGESTS {
        headers.remove(HeaderName::from_static(name));
    }
}

fn refused(why: &'static str, hint: &'static str) -> Error {
    Error::BadRequest(why.into(), hint.into())
}

const WANTED: &str = "Send a JSON object (Content-Type: application/json) or a form (application/x-www-form-urlencoded).";

pub(super) fn kind(headers: &HeaderMap, empty: bool) -> Result<Kind, Error> {
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    let (first, second) = (types.next(), types.next());
    if second.is_some() {
        return Err(refused("The request has more than one Content-Type.", "Send one."));
    }
    if headers.contains_key(CONTENT_ENCODING) {
        return Err(refused(
            "This resource's credential goes into the body, and the body is compressed.",
            "Send the body without Content-Encoding.",
        ));
    }
    let Some(first) = first else {
        let why = if empty {
            "This resource's credential goes into the body, and the request has none."
        } else {
            "This resource's credential goes into the body, and the body's Content-Type is missing."
        };
        return Err(refused(why, WANTED));
    };
    let kind = first.to_str().ok().and_then(media).ok_or_else(|| {
        refused("This resource's credential goes into the body, and the body is neither JSON nor a form in UTF-8.", WANTED)
    })?;
    // A form without fields is a form; nothing at all is no JSON.
    if empty && matches!(kind, Kind::Json) {
        return Err(refused("This resource's credential goes into the body, and the request has none.", "Send at least {}."));
    }
    Ok(kind)
}

/// The kind of body that a `Content-Type` names, parameters aside; a character set must be a harmless one.
fn media(written: &str) -> Option<Kind> {
    let mut parts = written.split(';').map(|part| part.trim().to_ascii_lowercase());
    let essence = parts.next()?;
    let charset = parts.find_map(|p| p.strip_prefix("charset=").map(|c| c.trim_matches('"').to_owned()));
    if charset.is_some_and(|c| !CHARSETS.contains(&c.as_str())) {
        return None;
    }
    match essence.as_str() {
        "application/json" => Some(Kind::Json),
        "application/x-www-form-urlencoded" => Some(Kind::Form),
        "application/xml" | "text/xml" => Some(Kind::Xml),
        other if other.starts_with("application/") && other.ends_with("+xml") => Some(Kind::Xml),
        other => (other.starts_with("application/") && other.ends_with("+json")).then_some(Kind::Json),
    }
}

pub(super) fn refusal(wrong: Wrong) -> Error {
    match wrong {
        Wrong::Encoding => refused("The JSON body is not UTF-8.", "Send it in UTF-8."),
        Wrong::Mark => refused("The JSON body begins with a byte order mark.", "Send it without."),
        Wrong::NotObject => {
            refused("This resource's credential goes into the JSON body, and the body is not an object.", "Send an object: { … }.")
        }
        Wrong::TooDeep => {
            Error::BadRequest(format!("The JSON body is nested deeper than {} levels.", json::DEEPEST).into(), "Send a flatter one.".into())
        }
        Wrong::Syntax(at) => {
            Error::BadRequest(format!("The body is not valid JSON from byte {at} on.").into(), "Send valid JSON (RFC 8259).".into())
        }
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;
    use serde_json::json;

    use super::*;
    use crate::auth::Auth;
    use crate::auth::support::{BUFFER, auth, body, call, call_with, signed};

    fn key(secret: &str) -> Auth {
        auth(json!({ "api_key": { "in": "body", "name": "api_key", "value": format!("${{secret:{secret}}}") } }))
    }

    fn sent(content_type: &str, body_text: &str) -> Result<String, Error> {
        signed(&key("S"), call_with(content_type, body_text.as_bytes())).map(|call| body(&call).to_owned())
    }

    #[test]
    fn json_under_any_of_its_names_takes_the_secret() {
        for content_type in
            ["application/json", "Application/JSON; charset=utf-8", "application/vnd.api+json;v=1", "application/json;charset=\"UTF-8\""]
        {
            assert_eq!(sent(content_type, r#"{"a":1}"#).unwrap(), r#"{"a":1,"api_key":"S"}"#, "{content_type}");
        }
    }

    #[test]
    fn a_form_takes_the_secret_even_when_it_is_empty() {
        assert_eq!(sent("application/x-www-form-urlencoded; charset=UTF-8", "a=1&api%5Fkey=x").unwrap(), "a=1&api_key=S");
        assert_eq!(sent("application/x-www-form-urlencoded", "").unwrap(), "api_key=S");
    }

    #[test]
    fn any_other_body_is_refused_with_the_way_out() {
        let wrong = [
            ("text/plain", "a"),
            ("multipart/form-data; boundary=x", "--x--"),
            ("application/xml", "<a/>"),
            ("image/svg+json", "{}"),
            ("application/json; charset=utf-16", "{}"),
            ("application/jsonp", "{}"),
            ("", "{}"),
            ("", ""),
            ("application/json", ""),
            ("application/json", "[1]"),
            ("application/json", "{"),
        ];
        for (content_type, text) in wrong {
            let error = sent(content_type, text).unwrap_err();
            assert_eq!(error.status(), StatusCode::BAD_REQUEST, "{content_type} {text}");
            assert!(!error.hint().is_empty());
        }
    }

    #[test]
    fn a_compressed_body_is_refused() {
        let mut call = call_with("application/json", b"{}");
        call.headers.insert("content-encoding", "gzip".parse().unwrap());
        assert!(matches!(signed(&key("S"), call), Err(Error::BadRequest(..))));
    }

    #[test]
    fn two_content_types_are_refused() {
        let mut call = call_with("application/json", b"{}");
        call.headers.append("content-type", "text/plain".parse().unwrap());
        assert!(matches!(signed(&key("S"), call), Err(Error::BadRequest(..))));
    }

    #[test]
    fn a_body_over_the_buffer_is_413_and_names_the_limit() {
        let text = |length: usize| format!("{{\"a\":\"{}\"}}", "x".repeat(length - 8));
        assert!(sent("application/json", &text(BUFFER as usize)).is_ok());
        let error = sent("application/json", &text(BUFFER as usize + 1)).unwrap_err();
        assert_eq!(error, Error::BodyTooLarge(BUFFER, "limits.buffer".into()));
    }

    #[test]
    fn a_secret_never_changes_the_structure() {
        for secret in ["\"", "\\", "a\",\"admin\":true,\"b\":\"", "\n\r\t\0", "\u{2028}</script>", "&x=1", "%26+ =", "😀"] {
            let json = signed(&key(secret), call_with("application/json", br#"{"a":1}"#)).unwrap();
            let read: serde_json::Value = serde_json::from_str(body(&json)).unwrap();
            assert_eq!(read, json!({ "a": 1, "api_key": secret }));
            let form = signed(&key(secret), call_with("application/x-www-form-urlencoded", b"a=1")).unwrap();
            let pairs: Vec<&str> = body(&form).split('&').collect();
            assert_eq!(pairs.len(), 2);
            let value = percent_encoding::percent_decode_str(pairs[1].strip_prefix("api_key=").unwrap()).decode_utf8().unwrap();
            assert_eq!(value, secret);
            assert!(!pairs[1].contains('+'));
        }
    }

    #[test]
    fn the_length_is_the_new_one_and_what_vouched_for_the_old_body_goes() {
        let mut call = call_with("application/json", b"{}");
        call.expects_continue = true;
        for (name, value) in [
            ("content-length", "2"),
            ("transfer-encoding", "chunked"),
            ("content-digest", "x"),
            ("content-md5", "x"),
            ("trailer", "x"),
            ("expect", "100-continue"),
        ] {
            call.headers.insert(HeaderName::from_static(name), value.parse().unwrap());
        }
        let call = signed(&key("S"), call).unwrap();
        assert_eq!(call.headers["content-length"], body(&call).len().to_string().as_str());
        assert_eq!(call.headers.len(), 2, "{:?}", call.headers);
        assert!(!call.expects_continue);
    }

    #[test]
    fn a_dotted_name_is_one_literal_name() {
        let auth = auth(json!({ "api_key": { "in": "body", "name": "auth.key", "value": "${secret:S}" } }));
        let call = signed(&auth, call_with("application/json", br#"{"auth":{"key":1}}"#)).unwrap();
        assert_eq!(body(&call), r#"{"auth":{"key":1},"auth.key":"S"}"#);
    }

    #[test]
    fn two_secrets_go_into_one_body() {
        let one = |name: &str| json!({ "api_key": { "in": "body", "name": name, "value": "${secret:S}" } });
        let call = signed(&auth(json!([one("a"), one("b")])), call_with("application/json", b"{}")).unwrap();
        assert_eq!(body(&call), r#"{"a":"S","b":"S"}"#);
    }

    #[test]
    fn a_request_without_a_body_says_what_to_send() {
        let error = signed(&key("S"), call("/a")).unwrap_err();
        assert!(error.detail().contains("has none") && error.hint().contains("application/json"));
    }
}
