//! The body of a write, as the fields of a JSON object: bounded in size and time, all bodies together as well as each.
//! Nothing is parsed before it is whole.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, EXPECT};
use http::{HeaderMap, Request};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use memchr::memmem;
use serde_json::Value;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

use super::answer::Problem;
use super::shelf::{Fields, MAX_RECORD};

/// How long a body may take, from its first byte to its last.
pub const BODY_WAIT: Duration = Duration::from_secs(30);

/// The most bytes that bodies in arrival hold, all together.
pub const BODIES: usize = 32 << 20;

/// How much of a body that is too large is read and dropped, so that its sender gets to read the answer.
const DRAIN: usize = 8 << 20;

/// Reads the body of a request. 400, 408, 413, 415, or 503 where other bodies leave no room.
pub async fn object(request: Request<Incoming>, room: &Semaphore) -> Result<Fields, Problem> {
    let (head, body) = request.into_parts();
    media(&head.headers)?;
    let bytes = timeout(BODY_WAIT, async {
        if length(&head.headers).is_some_and(|length| length > MAX_RECORD as u64) {
            // Who asked for leave to send waits for the answer, and has sent nothing that could be dropped.
            if !head.headers.contains_key(EXPECT) {
                drain(body).await;
            }
            return Err(Problem::large(MAX_RECORD));
        }
        collect(body, room).await
    });
    let bytes = bytes.await.map_err(|_| Problem::slow())??;
    parse(&bytes)
}

async fn collect(mut body: Incoming, room: &Semaphore) -> Result<Bytes, Problem> {
    let mut held: Option<SemaphorePermit<'_>> = None;
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Problem::body("The body broke off, or its framing is wrong.", "Send it whole."))?;
        let Ok(data) = frame.into_data() else { continue };
        if bytes.len() + data.len() > MAX_RECORD {
            drain(body).await;
            return Err(Problem::large(MAX_RECORD));
        }
        let permits = u32::try_from(data.len()).map_err(|_| Problem::busy())?;
        let permit = room.try_acquire_many(permits).map_err(|_| Problem::busy())?;
        match &mut held {
            Some(held) => held.merge(permit),
            None => held = Some(permit),
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes.into())
}

async fn drain(mut body: Incoming) {
    let mut seen = 0;
    while let Some(Ok(frame)) = body.frame().await {
        seen += frame.data_ref().map_or(0, Bytes::len);
        if seen > DRAIN {
            return;
        }
    }
}

fn length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// 415 for what is said not to be JSON. What says nothing is read as JSON.
fn media(headers: &HeaderMap) -> Result<(), Problem> {
    if headers.get(CONTENT_ENCODING).is_some_and(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return Err(Problem::media("The body is compressed, which the mock does not undo."));
    }
    let Some(kind) = headers.get(CONTENT_TYPE) else { return Ok(()) };
    let kind = String::from_utf8_lossy(kind.as_bytes()).to_ascii_lowercase();
    let kind = kind.split(';').next().unwrap_or("").trim();
    match kind {
        "application/json" => Ok(()),
        // A list of operations (RFC 6902) is another language.
        "application/json-patch+json" => Err(Problem::media("JSON Patch is not understood; PATCH merges an object (RFC 7396).")),
        _ if kind.starts_with("application/") && kind.ends_with("+json") => Ok(()),
        _ => Err(Problem::media(format!("The body is of type `{}`, which is not JSON.", kind.chars().take(60).collect::<String>()))),
    }
}

fn parse(bytes: &[u8]) -> Result<Fields, Problem> {
    let hint = "Send one JSON object: {\"name\":\"Ada\"}";
    if bytes.is_empty() {
        return Err(Problem::body("The body is empty.", hint));
    }
    if reserved(bytes) {
        return Err(Problem::body("The body has a name that begins with `$serde_json::private::`.", "Choose another name."));
    }
    let found = match serde_json::from_slice(bytes) {
        Ok(Value::Object(fields)) => return Ok(fields),
        Ok(Value::Array(_)) => "an array",
        Ok(Value::String(_)) => "a string",
        Ok(Value::Number(_)) => "a number",
        Ok(Value::Bool(_)) => "true or false",
        Ok(Value::Null) => "null",
        Err(error) => return Err(Problem::body(format!("The body is not JSON: {error}."), hint)),
    };
    Err(Problem::body(format!("The body is {found}, not an object."), hint))
}

/// Whether the names that serde_json keeps to itself could occur. `Value` takes the text under `…RawValue` for JSON and hands
/// it to a parser that counts depth anew, so that a small body could exhaust the stack. Escapes may spell a name as well;
/// where one only seems to, in text that holds a backslash, the refusal does no harm.
fn reserved(bytes: &[u8]) -> bool {
    const NAMES: &[u8] = b"$serde_json::private::";
    if memmem::find(bytes, b"\\u").is_none() {
        return memmem::find(bytes, NAMES).is_some();
    }
    let mut plain = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((first, behind)) = rest.split_first() {
        let escaped = rest.strip_prefix(b"\\u").and_then(|digits| ascii(digits.get(..4)?));
        plain.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { &rest[6..] } else { behind };
    }
    memmem::find(&plain, NAMES).is_some()
}

fn ascii(digits: &[u8]) -> Option<u8> {
    u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok().filter(u8::is_ascii)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_names_are_found_however_they_are_spelt() {
        for body in
            [r#"{"$serde_json::private::Number":1}"#, r#"{"\u0024serde\u005Fjson::private::X":1}"#, r#"["\\u0024serde_json::private::"]"#]
        {
            assert!(reserved(body.as_bytes()), "{body}");
        }
    }

    #[test]
    fn other_names_are_not_taken_for_reserved_ones() {
        for body in [r#"{"$serde":"json"}"#, r#"{"a":"\u00e9\u0024serde \u"}"#, "\\u", ""] {
            assert!(!reserved(body.as_bytes()), "{body}");
        }
    }
}
