//! `aws_sigv4`: AWS Signature Version 4 in header fields. The canonical form is built here, once; the key of a day comes
//! from the crate `aws-sigv4`, whose whole `sign` is the oracle in tests (ruling H13).
//!
//! What is signed is what is sent: targets are rewritten into their strict spelling before anything depends on them.
//! Presigned URLs and SigV4A are not made here.

mod canonical;
mod chunks;
mod key;
mod payload;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest;
use http::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, DATE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use self::canonical::Dialect;
use self::chunks::Chunks;
use self::key::{Keys, Moment};
use self::payload::{Mode, Payload, Rules};
use crate::auth::hex::push_hex;
use crate::auth::read::fields;
use crate::auth::{Attempt, Owned, Reading, Renewal, Renewing, Scheme, Signing};
use crate::body::Body;
use crate::call::Call;
use crate::clock::Clock;
use crate::error::Error;
use crate::tree::{Fields, Node};

const AMZ_DATE: HeaderName = HeaderName::from_static("x-amz-date");
const AMZ_CONTENT: HeaderName = HeaderName::from_static("x-amz-content-sha256");
const AMZ_TOKEN: HeaderName = HeaderName::from_static("x-amz-security-token");

/// Parameters of presigned URLs, which would be a second signature (ruling G8).
const PRESIGN: [&str; 9] = [
    "X-Amz-Algorithm",
    "X-Amz-Credential",
    "X-Amz-Date",
    "X-Amz-Expires",
    "X-Amz-SignedHeaders",
    "X-Amz-Signature",
    "X-Amz-Security-Token",
    "X-Amz-Content-Sha256",
    "X-Amz-S3session-Token",
];

/// Services that speak like S3.
const LIKE_S3: [&str; 3] = ["s3", "s3-object-lambda", "s3-outposts"];

/// Clocks that differ by less are no reason to refuse: AWS allows 5 minutes at least.
const SKEW: Duration = Duration::from_secs(240);

/// Signs for one service in one region.
#[derive(Debug)]
pub struct SigV4 {
    keys: Keys,
    token: Option<HeaderValue>,
    dialect: Dialect,
    rules: Rules,
    identity: Arc<str>,
    clock: Clock,
    /// What the service's clock is ahead of ours, in seconds.
    ahead: AtomicI64,
}

/// Reads `{ service, region, access_key_id, secret_access_key, session_token, payload }`.
pub(super) fn read(node: &Node, reading: Reading<'_>) -> Option<Box<dyn Scheme>> {
    let problems = reading.problems;
    let fields = fields(node, "a map with `service`, `region` and keys", problems)?;
    let service = name(&fields, "service");
    let region = name(&fields, "region");
    fields.unbuilt_all(&["assume_role", "profile"]);
    if fields.node("access_key_id").is_none() && fields.node("secret_access_key").is_none() {
        problems.error(
            fields.place(),
            "without keys the AWS default chain would serve, and it is not built into this version",
            "write `access_key_id` and `secret_access_key`",
        );
    } else {
        fields.need("access_key_id");
        fields.need("secret_access_key");
    }
    let id = fields.node("access_key_id").and_then(|n| Some((n.place, n.text(problems)?)));
    let secret = fields.node("secret_access_key").and_then(|n| n.secret(problems).filter(|s| present(n, s.is_empty(), &fields)));
    let token = match fields.node("session_token") {
        None => Some(None),
        Some(node) => node.secret_or_empty(problems).and_then(|token| {
            if token.is_empty() {
                return Some(None);
            }
            let value = crate::auth::field::Field::new(token.expose()).map(|field| field.value());
            match value {
                Ok(value) => Some(Some((token, value))),
                Err(why) => {
                    problems.error(node.place, format!("`session_token` cannot be sent in a header: {why}"), "");
                    None
                }
            }
        }),
    };
    let words = [("auto", Mode::Auto), ("signed", Mode::Signed), ("unsigned", Mode::Unsigned), ("streaming", Mode::Streaming)];
    let mode = fields.choice("payload", &words, Mode::Auto);
    let payload = fields.node("payload").map(|node| node.place);
    fields.finish();
    let (service, region, (place, id), secret, token) = (service?, region?, id?, secret?, token?);
    if id.is_empty() || !id.bytes().all(|b| b.is_ascii_graphic() && !b"/,=".contains(&b)) {
        problems.error(place, "`access_key_id` is no access key id", "it is made of letters and digits, as AKIA…");
        return None;
    }
    let like_s3 = LIKE_S3.contains(&service.as_str());
    if mode == Mode::Streaming && !like_s3 {
        let place = payload.unwrap_or(node.place);
        problems.error(place, format!("`{service}` takes no signed chunks: only S3 does"), "write `payload: auto`");
        return None;
    }
    let parts = [&b"aws_sigv4"[..], id.as_bytes(), secret.expose().as_bytes(), region.as_bytes(), service.as_bytes()];
    let session = token.as_ref().map(|(token, _)| token.expose().as_bytes()).unwrap_or_default();
    let identity = reading.fingerprint.of(parts.into_iter().chain([session]));
    let context = reading.context;
    Some(Box::new(SigV4 {
        keys: Keys::new(id, secret, region, service),
        token: token.map(|(_, value)| value),
        dialect: if like_s3 { Dialect::S3 } else { Dialect::OTHER },
        rules: Rules { mode, streams: like_s3, secure: context.secure, buffer: context.buffer, largest: context.largest },
        identity,
        clock: Clock::system(),
        ahead: AtomicI64::new(0),
    }))
}

fn present(node: &Node, empty: bool, fields: &Fields<'_>) -> bool {
    if empty {
        fields.problems().error(node.place, "`secret_access_key` is empty", "");
    }
    !empty
}

/// A part of the scope: a word without a slash.
fn name(fields: &Fields<'_>, key: &'static str) -> Option<String> {
    let node = fields.need(key)?;
    let text = node.text(fields.problems())?;
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b)) {
        fields.problems().error(
            node.place,
            format!("`{key}` is made of small letters, digits and `-`"),
            if key == "region" { "as eu-west-1" } else { "as s3, execute-api, dynamodb: the name in the service's signatures" },
        );
        return None;
    }
    Some(text)
}

impl Scheme for SigV4 {
    fn owns(&self) -> Owned {
        Owned {
            headers: vec![AUTHORIZATION, AMZ_DATE, AMZ_CONTENT, AMZ_TOKEN],
            params: PRESIGN.map(str::to_owned).to_vec(),
            ..Owned::default()
        }
    }

    fn identity(&self, _: &Call) -> Option<Arc<str>> {
        Some(self.identity.clone())
    }

    /// The key does not travel, but a session token does, and bodies may go unsigned.
    fn secret(&self) -> bool {
        true
    }

    fn seals(&self) -> bool {
        true
    }

    fn fresh(&self) -> bool {
        false
    }

    fn prepares(&self) -> bool {
        true
    }

    fn prepare(&self, call: &mut Call) -> Result<(), Error> {
        if let Some(target) = canonical::strict(&call.target, self.dialect) {
            call.target = target;
        }
        Ok(())
    }

    fn sign<'a>(&'a self, call: &'a mut Call) -> Signing<'a> {
        match self.rules.at_once(call) {
            Some(payload) => Signing::Done(self.seal(call, &payload)),
            None => Signing::Later(Box::pin(async move {
                let payload = self.rules.settle(call).await?;
                self.seal(call, &payload)
            })),
        }
    }

    fn renews(&self) -> bool {
        true
    }

    /// A refusal by a service whose clock is elsewhere is signed again by its clock.
    fn renew<'a>(&'a self, attempt: Attempt<'a>) -> Renewing<'a> {
        let signed = attempt.ticket.and_then(|ticket| ticket.downcast_ref::<i64>()).copied();
        let refusal = matches!(attempt.answer.status(), StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
        let theirs = refusal.then(|| date(attempt.answer.headers())).flatten();
        let renewal = match (signed, theirs) {
            (Some(signed), Some(theirs)) if theirs.abs_diff(signed) >= SKEW.as_secs() => {
                let ours = i64::try_from(self.clock.millis() / 1000).unwrap_or(i64::MAX);
                self.ahead.store(theirs.saturating_sub(ours), Ordering::Relaxed);
                Renewal::Again
            }
            _ => Renewal::Stands,
        };
        Renewing::Done(Ok(renewal))
    }
}

/// The `Date` of an answer, in seconds since 1970.
fn date(headers: &HeaderMap) -> Option<i64> {
    let text = headers.get(DATE)?.to_str().ok()?;
    jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok().map(jiff::Timestamp::as_second)
}

impl SigV4 {
    /// The moment by the service's clock.
    fn now(&self) -> SystemTime {
        let ahead = self.ahead.load(Ordering::Relaxed);
        let by = Duration::from_secs(ahead.unsigned_abs());
        let ours = self.clock.wall();
        if ahead < 0 { ours.checked_sub(by) } else { ours.checked_add(by) }.unwrap_or(ours)
    }

    /// Signs a call whose body is settled.
    fn seal(&self, call: &mut Call, payload: &Payload) -> Result<(), Error> {
        // What schemes that signed before have put in is not in its strict form yet.
        self.prepare(call)?;
        let time = self.now();
        let moment = Moment::new(time);
        let day = self.keys.day(time, &moment);
        call.headers.insert(AMZ_DATE, value(moment.text())?);
        call.headers.insert(AMZ_CONTENT, value(payload.word())?);
        if let Some(token) = &self.token {
            call.headers.insert(AMZ_TOKEN, token.clone());
        }
        if let Payload::Chunks(length) = payload {
            frame(&mut call.headers, *length)?;
        }
        let canonical = canonical::canonical(call.method.as_str(), &call.target, &call.headers, payload.word(), self.dialect);
        let mut text = String::with_capacity(192);
        for part in ["AWS4-HMAC-SHA256\n", moment.text(), "\n", &day.scope, "\n"] {
            text.push_str(part);
        }
        push_hex(digest::digest(&digest::SHA256, canonical.text.as_bytes()).as_ref(), &mut text);
        let signature = day.sign(&text);
        let (id, scope) = (&self.keys.id, &day.scope);
        let fields = canonical.fields;
        let mut authorization = value(&format!("AWS4-HMAC-SHA256 Credential={id}/{scope}, SignedHeaders={fields}, Signature={signature}"))?;
        authorization.set_sensitive(true);
        call.headers.insert(AUTHORIZATION, authorization);
        if let Payload::Chunks(length) = payload {
            let body = std::mem::take(&mut call.body);
            call.body = Body::Stream(Box::pin(Chunks::new(body, *length, day, moment, signature)));
        }
        let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        call.ticket = Some(Arc::new(i64::try_from(seconds).unwrap_or(i64::MAX)));
        Ok(())
    }
}

/// The fields that announce signed chunks.
fn frame(headers: &mut HeaderMap, length: u64) -> Result<(), Error> {
    let inner = headers.get_all(CONTENT_ENCODING).iter().filter_map(|v| v.to_str().ok()).collect::<Vec<_>>().join(",");
    let encoding = if inner.is_empty() { "aws-chunked".to_owned() } else { format!("aws-chunked,{inner}") };
    headers.insert(CONTENT_ENCODING, value(&encoding)?);
    headers.insert(payload::DECODED_LENGTH, HeaderValue::from(length));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(chunks::framed(length)));
    Ok(())
}

fn value(text: &str) -> Result<HeaderValue, Error> {
    HeaderValue::from_str(text).map_err(|_| Error::Internal("a signature that no field can carry".into()))
}

#[cfg(test)]
mod tests;
