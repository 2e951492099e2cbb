//! `aws_sigv4`: AWS Signature Version 4 in header fields. The canonical form is built here, once; the key of a day comes
//! from the crate `aws-sigv4`, whose whole `sign` is the oracle in tests (ruling H13).
//!
//! What is signed is what is sent: targets are rewritten into their strict spelling before anything depends on them.
//! Presigned URLs and SigV4A are not made here.

mod chunks;
mod payload;
mod source;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest;
use http::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, DATE};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};

use self::chunks::Chunks;
use self::payload::{Mode, Payload, Rules};
use self::source::{Held, Live};
use crate::auth::read::fields;
use crate::auth::token::Token;
use crate::auth::{Attempt, Owned, Reading, Renewal, Renewing, Scheme, Signing};
use crate::aws::canonical::{self, Dialect};
use crate::aws::key::Moment;
use crate::body::{self, Begun, Body};
use crate::call::Call;
use crate::clock::Clock;
use crate::error::Error;
use crate::hex::push_hex;
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
/// What of a refusal is looked at.
const ERROR_MAX: u64 = 16 << 10;
/// How services say that credentials are good no more.
const ENDED: [&str; 6] = [
    "ExpiredToken",
    "InvalidAccessKeyId",
    "InvalidClientTokenId",
    "InvalidToken",
    "UnrecognizedClientException",
    "security token included in the request is expired",
];

/// Signs for one service in one region.
#[derive(Debug)]
pub struct SigV4 {
    held: Held,
    dialect: Dialect,
    rules: Rules,
    /// The fingerprint of written keys.
    identity: Option<Arc<str>>,
    clock: Clock,
    /// What the service's clock is ahead of ours, in seconds.
    ahead: AtomicI64,
}

/// What an attempt was signed with.
#[derive(Debug)]
struct Signed {
    /// When, by the service's clock, in seconds since 1970.
    at: i64,
    /// The grant's token.
    token: Option<Arc<Token>>,
}

/// Reads `{ service, region, access_key_id, secret_access_key, session_token, profile, assume_role, payload }`.
pub(super) fn read(node: &Node, reading: Reading<'_>) -> Option<Box<dyn Scheme>> {
    let problems = reading.problems;
    let fields = fields(node, "a map with `service` and `region`", problems)?;
    let scope = source::scope(&fields);
    let held = source::read(node, &fields, scope.clone(), reading);
    let words = [("auto", Mode::Auto), ("signed", Mode::Signed), ("unsigned", Mode::Unsigned), ("streaming", Mode::Streaming)];
    let mode = fields.choice("payload", &words, Mode::Auto);
    let payload = fields.node("payload").map(|node| node.place);
    fields.finish();
    let ((held, identity), (service, _)) = (held?, scope?);
    let like_s3 = LIKE_S3.contains(&service.as_str());
    if mode == Mode::Streaming && !like_s3 {
        let place = payload.unwrap_or(node.place);
        problems.error(place, format!("`{service}` takes no signed chunks: only S3 does"), "write `payload: auto`");
        return None;
    }
    let context = reading.context;
    Some(Box::new(SigV4 {
        held,
        dialect: if like_s3 { Dialect::S3 } else { Dialect::OTHER },
        rules: Rules { mode, streams: like_s3, secure: context.secure, buffer: context.buffer, largest: context.largest },
        identity,
        clock: Clock::system(),
        ahead: AtomicI64::new(0),
    }))
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

    fn identity(&self, call: &Call) -> Option<Arc<str>> {
        match &self.held {
            Held::Written(_) => self.identity.clone(),
            Held::Granted(granted) => granted.seat.identity(call),
        }
    }

    /// The key does not travel, but a session token does, and bodies may go unsigned.
    fn secret(&self) -> bool {
        true
    }

    fn seals(&self) -> bool {
        true
    }

    /// The session token of a grant is in no configuration.
    fn fresh(&self) -> bool {
        matches!(self.held, Held::Granted(_))
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
        let (live, token) = match &self.held {
            Held::Written(live) => (Some(live.clone()), None),
            Held::Granted(granted) => match granted.seat.fresh(call) {
                Some(token) => match granted.live(&token) {
                    Ok(live) => (Some(live), Some(token)),
                    Err(error) => return Signing::Done(Err(error)),
                },
                None => (None, None),
            },
        };
        if let (Some(live), Some(payload)) = (&live, self.rules.at_once(call)) {
            return Signing::Done(self.seal(call, &payload, live, token));
        }
        Signing::Later(Box::pin(async move {
            let (live, token) = match (live, &self.held) {
                (Some(live), _) => (live, token),
                (None, Held::Written(live)) => (live.clone(), None),
                (None, Held::Granted(granted)) => {
                    let token = granted.seat.token(call).await?;
                    (granted.live(&token)?, Some(token))
                }
            };
            let payload = self.rules.settle(call).await?;
            self.seal(call, &payload, &live, token)
        }))
    }

    fn renews(&self) -> bool {
        true
    }

    /// A refusal by a service whose clock is elsewhere is signed again by its clock; one of credentials that have ended, with
    /// new ones.
    fn renew<'a>(&'a self, attempt: Attempt<'a>) -> Renewing<'a> {
        let signed = attempt.ticket.and_then(|ticket| ticket.clone().downcast::<Signed>().ok());
        let Some(signed) = signed else { return Renewing::Done(Ok(Renewal::Stands)) };
        let status = attempt.answer.status();
        if !matches!(status, StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            if let Some(token) = signed.token.as_ref().filter(|_| status.is_success()) {
                token.accept();
            }
            return Renewing::Done(Ok(Renewal::Stands));
        }
        if let Some(theirs) = date(attempt.answer.headers()).filter(|theirs| theirs.abs_diff(signed.at) >= SKEW.as_secs()) {
            let ours = i64::try_from(self.clock.millis() / 1000).unwrap_or(i64::MAX);
            self.ahead.store(theirs.saturating_sub(ours), Ordering::Relaxed);
            return Renewing::Done(Ok(Renewal::Again));
        }
        let (Held::Granted(granted), Some(token)) = (&self.held, signed.token.clone()) else {
            return Renewing::Done(Ok(Renewal::Stands));
        };
        Renewing::Later(Box::pin(async move {
            if !says_ended(attempt.answer).await? {
                return Ok(Renewal::Stands);
            }
            let worthwhile = granted.seat.refuse(&token, attempt.call);
            Ok(if worthwhile && attempt.again { Renewal::Again } else { Renewal::Stands })
        }))
    }
}

/// Whether a refusal is one of credentials and not of what they may do. Services say so in a field, in JSON or in XML.
async fn says_ended(answer: &mut Response<Body>) -> Result<bool, Error> {
    let field = answer.headers().get("x-amzn-errortype").is_some_and(|kind| holds_ended(kind.as_bytes()));
    let body = body::begin(std::mem::take(answer.body_mut()), ERROR_MAX).await?;
    let (ended, body) = match body {
        Begun::Whole(bytes) => (holds_ended(&bytes), if bytes.is_empty() { Body::Empty } else { Body::Full(bytes) }),
        Begun::Longer(body) => (false, body),
    };
    *answer.body_mut() = body;
    Ok(field || ended)
}

fn holds_ended(text: &[u8]) -> bool {
    ENDED.iter().any(|word| memchr::memmem::find(text, word.as_bytes()).is_some())
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
    fn seal(&self, call: &mut Call, payload: &Payload, live: &Live, granted: Option<Arc<Token>>) -> Result<(), Error> {
        // What schemes that signed before have put in is not in its strict form yet.
        self.prepare(call)?;
        let time = self.now();
        let moment = Moment::new(time);
        let day = live.keys.day(time, &moment);
        call.headers.insert(AMZ_DATE, value(moment.text())?);
        call.headers.insert(AMZ_CONTENT, value(payload.word())?);
        if let Some(token) = &live.token {
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
        let (id, scope) = (&live.keys.id, &day.scope);
        let fields = canonical.fields;
        let mut authorization = value(&format!("AWS4-HMAC-SHA256 Credential={id}/{scope}, SignedHeaders={fields}, Signature={signature}"))?;
        authorization.set_sensitive(true);
        call.headers.insert(AUTHORIZATION, authorization);
        if let Payload::Chunks(length) = payload {
            let body = std::mem::take(&mut call.body);
            call.body = Body::Stream(Box::pin(Chunks::new(body, *length, day, moment, signature)));
        }
        let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        call.ticket = Some(Arc::new(Signed { at: i64::try_from(seconds).unwrap_or(i64::MAX), token: granted }));
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
