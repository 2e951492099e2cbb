//! `jwt`: a JWT that the gateway signs and that is itself the credential (RFC 7519). Keys and header are read by
//! `assertion.rs`, claims by `claims.rs`, places by `placed.rs`. Exchanging a JWT for a token is `oauth2_jwt_bearer`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use http::StatusCode;

use crate::auth::assertion::Signer;
use crate::auth::claims::Claims;
use crate::auth::fingerprint::Fingerprint;
use crate::auth::grant::Tokens;
use crate::auth::oauth;
use crate::auth::placed::{Placed, Spot};
use crate::auth::read::fields;
use crate::auth::token::UNSIGNED;
use crate::auth::whole::whole;
use crate::auth::{Attempt, Owned, Reading, Renewal, Renewing, Scheme, Signing};
use crate::call::Call;
use crate::clock::Clock;
use crate::error::Error;
use crate::expr::{Inputs as _, Moments, Name, Names, Settings, Value};
use crate::fill::Facts;
use crate::secret::Secret;
use crate::tree::Node;

/// What claims may read.
const INPUTS: Names = Names::FIXED.with(Names::CLIENT).with(Names::ATTEMPT).with(Names::REQUEST);
/// What does not make a JWT another one from request to request.
const STEADY: Names = Names::FIXED.with(Names::of(&[Name::Now]));
/// What tells one caller's JWT from another's, besides the request itself, which every cache key holds (ruling G4).
const TELLING: Names = Names::CLIENT.with(Names::of(&[Name::RequestHeaders]));
/// A JWT that may be used again is, for this share of its life …
const REUSE_SHARE: u64 = 10;
/// … and for no longer than this many milliseconds.
const REUSE_MOST: u64 = 30_000;
/// Once this many that were used again were refused, each attempt gets its own: the upstream takes one only once.
const REFUSALS_MOST: u32 = 3;

/// Mints a JWT for each attempt.
#[derive(Debug)]
pub struct Jwt {
    signer: Signer,
    claims: Claims,
    spots: Vec<Spot>,
    settings: Arc<Settings>,
    buffer: u64,
    /// What was made last, where it may be used again.
    reuse: Option<Reuse>,
    tokens: Tokens,
    clock: Clock,
    fingerprint: Fingerprint,
    material: Arc<str>,
}

#[derive(Debug, Default)]
struct Reuse {
    made: ArcSwapOption<Made>,
    refusals: AtomicU32,
}

/// A JWT, and until when it is used, in milliseconds since 1970.
#[derive(Debug)]
struct Made {
    jwt: Secret,
    until: u64,
}

/// Reads `{ algorithm, private_key | key, key_encoding, key_id, certificate, header, claims, place }`.
pub(super) fn read(node: &Node, reading: Reading<'_>) -> Option<Box<dyn Scheme>> {
    let (context, problems) = (reading.context, reading.problems);
    let fields = fields(node, "a map with `private_key` or `key`, and `claims`", problems)?;
    let signer = Signer::read(&fields, None, context.folders, problems);
    let claims = fields.need("claims").and_then(|n| Claims::read(n, INPUTS, context.settings, problems));
    let spots = fields.node("place").map_or_else(|| Some(vec![Spot::bearer()]), |n| Spot::read(n, Name::PlacedToken, reading));
    let claims_place = fields.key_place("claims");
    fields.finish();
    let (signer, claims, spots) = (signer?, claims?, spots?);
    if !claims.has("exp") {
        problems.warn(claims_place, "a JWT without `exp` never ends", "exp: \"{{ now | plus('5m') }}\"");
    }
    let reuse = (signer.is_slow() && claims.has("exp") && claims.names().without(STEADY.without(context.settings.unsettled())).is_empty())
        .then(Reuse::default);
    let mut parts = vec![b"jwt".to_vec()];
    oauth::written(node, &["place"], &mut parts);
    parts.extend(read_settings(claims.names(), context.settings));
    let material = reading.fingerprint.of(parts.iter().map(Vec::as_slice));
    let (settings, buffer, fingerprint) = (context.settings.clone(), context.buffer, reading.fingerprint);
    let (tokens, clock) = (context.tokens.clone(), Clock::system());
    Some(Box::new(Jwt { signer, claims, spots, settings, buffer, reuse, tokens, clock, fingerprint, material }))
}

/// What expressions read of the settings, for a fingerprint.
pub(super) fn read_settings(names: Names, settings: &Arc<Settings>) -> Vec<Vec<u8>> {
    let value = |name: Name| settings.input(name).ok().flatten();
    names.and(Names::FIXED).iter().map(|name| json(value(name))).collect()
}

fn json(value: Option<Value>) -> Vec<u8> {
    let mut json = String::new();
    // What JSON cannot hold is the same each time, and tells nothing apart.
    if let Some(value) = value {
        let _ = value.write_json(Moments::Seconds, &mut json);
    }
    json.into_bytes()
}

impl Scheme for Jwt {
    fn owns(&self) -> Owned {
        Spot::owned(&self.spots)
    }

    fn identity(&self, call: &Call) -> Option<Arc<str>> {
        let unsettled = self.settings.unsettled();
        let mut telling = self.claims.names().and(TELLING.with(unsettled));
        if telling.meets(Names::of(&[Name::Base])) {
            // It is not known yet, but what makes it is.
            telling = telling.with(Names::CLIENT).with(unsettled);
        }
        if telling.is_empty() {
            return Some(self.material.clone());
        }
        let facts = Facts { settings: &self.settings, call, body: None };
        let read: Vec<Vec<u8>> = telling.iter().map(|name| json(facts.input(name).ok().flatten())).collect();
        Some(self.fingerprint.of(std::iter::once(self.material.as_bytes()).chain(read.iter().map(Vec::as_slice))))
    }

    fn secret(&self) -> bool {
        true
    }

    /// Where claims say what the request is, it must be what is sent.
    fn seals(&self) -> bool {
        self.claims.names().meets(Names::REQUEST)
    }

    fn sign<'a>(&'a self, call: &'a mut Call) -> Signing<'a> {
        let writes_body = self.spots.iter().any(Spot::writes_body);
        if !writes_body && !self.claims.names().reads_body() {
            return Signing::Done(self.seal(call));
        }
        Signing::Later(Box::pin(async move {
            let body = if self.claims.names().reads_body() { Some(whole(call, self.buffer).await?) } else { None };
            let jwt = self.jwt(call, body.as_ref())?;
            for spot in &self.spots {
                spot.put_anywhere(call, self.placed(&jwt), self.buffer).await?;
            }
            Ok(())
        }))
    }

    fn renews(&self) -> bool {
        self.reuse.is_some()
    }

    /// One that was used again is worth another attempt with a fresh one: the upstream may take each only once.
    fn renew<'a>(&'a self, attempt: Attempt<'a>) -> Renewing<'a> {
        let used = attempt.ticket.and_then(|ticket| ticket.clone().downcast::<Made>().ok());
        let (Some(reuse), Some(used), StatusCode::UNAUTHORIZED) = (&self.reuse, used, attempt.answer.status()) else {
            return Renewing::Done(Ok(Renewal::Stands));
        };
        reuse.refusals.fetch_add(1, Ordering::Relaxed);
        if reuse.made.load().as_ref().is_some_and(|made| Arc::ptr_eq(made, &used)) {
            reuse.made.store(None);
        }
        Renewing::Done(Ok(if attempt.again { Renewal::Again } else { Renewal::Stands }))
    }
}

impl Jwt {
    fn placed<'p>(&'p self, jwt: &'p Secret) -> Placed<'p> {
        Placed { name: Name::PlacedToken, text: jwt.expose(), settings: &self.settings }
    }

    fn seal(&self, call: &mut Call) -> Result<(), Error> {
        let jwt = self.jwt(call, None)?;
        self.spots.iter().try_for_each(|spot| spot.put(call, self.placed(&jwt)))
    }

    /// The JWT for this attempt: a new one, or one that may be used again.
    fn jwt(&self, call: &mut Call, body: Option<&Bytes>) -> Result<Secret, Error> {
        let Some(reuse) = &self.reuse else { return Ok(self.mint(call, body)?.0) };
        let now = self.clock.millis();
        if let Some(made) = reuse.made.load_full().filter(|made| now < made.until) {
            let jwt = made.jwt.clone();
            call.ticket = Some(made);
            return Ok(jwt);
        }
        let (jwt, expires) = self.mint(call, body)?;
        let life = expires.unwrap_or_default().saturating_sub(now);
        if life > 0 && reuse.refusals.load(Ordering::Relaxed) < REFUSALS_MOST {
            let until = now + (life / REUSE_SHARE).min(REUSE_MOST);
            reuse.made.store(Some(Arc::new(Made { jwt: jwt.clone(), until })));
        }
        Ok(jwt)
    }

    /// A new JWT and its `exp`, in milliseconds since 1970.
    fn mint(&self, call: &Call, body: Option<&Bytes>) -> Result<(Secret, Option<u64>), Error> {
        let claims = self.claims.json(&Facts { settings: &self.settings, call, body })?;
        if self.tokens.rehearses() {
            return Ok((Secret::new(UNSIGNED.into()), None));
        }
        let jwt = Secret::new(self.signer.sign_json(&claims)?);
        let expires = self.reuse.as_ref().and_then(|_| {
            let claims: serde_json::Value = serde_json::from_str(&claims).ok()?;
            claims["exp"].as_f64().map(|seconds| (seconds * 1000.0) as u64)
        });
        Ok((jwt, expires))
    }
}

#[cfg(test)]
mod tests;
