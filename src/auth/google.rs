//! `google_service_account`: the key file that Google hands out, in three modes. An access token by a signed assertion
//! (RFC 7523), a JWT that is itself the token, or an ID token for an audience. Which host is Google's stands in the key
//! file, and nowhere here. Without a key it is the ambient identity, which has files of its own.

mod ambient;
mod federation;

use std::sync::Arc;

use ambient::{Found, Wanted};
use serde_json::{Map, Value, json};

use crate::auth::assertion::Signer;
use crate::auth::grant::{Ask, Fetching, Material, NewSeat, Source};
use crate::auth::granted::Gives;
use crate::auth::oauth;
use crate::auth::presented::Presence;
use crate::auth::read::fields;
use crate::auth::token::Minted;
use crate::auth::whose::Reads;
use crate::auth::{Reading, Scheme};
use crate::key::Key;
use crate::secret::Secret;
use crate::tree::{Node, Place};

/// How long a self-signed token lives, in seconds: the most that Google takes.
const SELF_SIGNED_LIFE: u64 = 3600;

/// What is presented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    AccessToken,
    SelfSignedJwt,
    IdToken,
}

const MODES: [(&str, Mode); 3] =
    [("access_token", Mode::AccessToken), ("self_signed_jwt", Mode::SelfSignedJwt), ("id_token", Mode::IdToken)];

/// A key file, taken apart.
struct Account {
    email: String,
    token_url: Option<String>,
    signer: Signer,
}

/// Reads `{ key, scopes, subject, mode, target_audience }`.
pub(super) fn read(node: &Node, reading: Reading<'_>) -> Option<Box<dyn Scheme>> {
    let problems = reading.problems;
    let fields = fields(node, "a map with `key`", problems)?;
    let presence = Presence::read(&fields, reading);
    let mode = fields.choice("mode", &MODES, Mode::AccessToken);
    let scopes = fields.texts("scopes");
    let subject = fields.node("subject").and_then(|n| n.text_or_unset(problems)).filter(|s| !s.is_empty());
    let audience = fields.text("target_audience");
    let renew_before = match fields.node("renew_before") {
        Some(node) => Some(node.duration(problems)?),
        None => None,
    };
    if mode == Mode::IdToken && audience.is_none() {
        problems.error(
            fields.place(),
            "an ID token is for somebody: `target_audience` is missing",
            "target_audience: https://service.example",
        );
        return None;
    }
    if mode == Mode::AccessToken && scopes.is_empty() {
        problems.error(fields.place(), "`scopes` is missing", "scopes: [\"https://www.googleapis.com/auth/cloud-platform\"]");
        return None;
    }
    let wanted = Wanted { mode, scopes, subject, audience, place: fields.place() };
    let mut parts = vec![b"google".to_vec(), reading.context.origin.to_string().into_bytes()];
    oauth::written(node, &["place", "refused", "renew_before"], &mut parts);
    let source: Arc<dyn Source> = match fields.node("key") {
        Some(node) => keyed(&node.secret(problems)?, node.place, wanted, reading)?,
        None => match ambient::find(&wanted, reading)? {
            Found::Key(text) => {
                parts.push(text.expose().as_bytes().to_vec());
                keyed(&text, fields.place(), wanted, reading)?
            }
            Found::Other(source, named) => {
                parts.push(named.expose().as_bytes().to_vec());
                Arc::new(*source)
            }
        },
    };
    fields.finish();
    let material = Material::of(parts.iter().map(Vec::as_slice));
    let seat = reading.context.tokens.seat(NewSeat {
        resource: reading.context.resource.into(),
        scheme: "google_service_account",
        identity: reading.fingerprint.of([material.bytes()]),
        material,
        renew_before,
        source,
        shelf: None,
        reads: Reads::default(),
    });
    Some(presence?.of(seat, Gives::default(), reading))
}

/// How a token is had with a key.
fn keyed(text: &Secret, place: Place, wanted: Wanted, reading: Reading<'_>) -> Option<Arc<dyn Source>> {
    let account = account(text, place, reading)?;
    let scopes = wanted.scopes.join(" ");
    if wanted.mode != Mode::SelfSignedJwt {
        return Some(Arc::new(exchange(account, &scopes, wanted, place, reading)?));
    }
    let audience = wanted.audience.unwrap_or_else(|| format!("{}/", reading.context.origin));
    let subject = wanted.subject.unwrap_or_else(|| account.email.clone());
    let mut claims = json!({ "iss": account.email, "sub": subject });
    // With scopes an audience would contradict them.
    let (name, value) = if scopes.is_empty() { ("aud", audience) } else { ("scope", scopes) };
    claims[name] = value.into();
    Some(Arc::new(SelfSigned { signer: account.signer, claims: claims.as_object().cloned().unwrap_or_default() }))
}

/// The parts of a key file that are needed; the rest is for other programs.
fn account(text: &Secret, place: Place, reading: Reading<'_>) -> Option<Account> {
    let problems = reading.problems;
    let wrong = |why: &str, hint: &str| {
        problems.error(place, why, hint);
        None
    };
    let Ok(Value::Object(file)) = serde_json::from_str(text.expose()) else {
        return wrong("this is not the JSON key file of a service account", "key: \"${file:service-account.json}\"");
    };
    let field = |name: &str| file.get(name).and_then(Value::as_str).filter(|v| !v.is_empty());
    if field("type").is_some_and(|kind| kind != "service_account") {
        return wrong(
            "this JSON file is of another type than `service_account`",
            "create a key for a service account and download it as JSON; for other kinds leave `key` out and set GOOGLE_APPLICATION_CREDENTIALS",
        );
    }
    let (Some(email), Some(key)) = (field("client_email"), field("private_key")) else {
        return wrong("the key file lacks `client_email` or `private_key`", "download it anew: it is shown once");
    };
    let key = Key::private(key).map_err(|error| problems.error(place, format!("`private_key` of the key file: {error}"), error.1)).ok()?;
    Some(Account {
        email: email.to_owned(),
        token_url: field("token_uri").map(str::to_owned),
        signer: Signer::new(key, field("private_key_id")),
    })
}

/// A token by an assertion. The endpoint is the key file's own, so that keys of test servers work as they are.
fn exchange(account: Account, scopes: &str, wanted: Wanted, place: Place, reading: Reading<'_>) -> Option<oauth::Oauth> {
    let Some(url) = account.token_url else {
        reading.problems.error(place, "the key file lacks `token_uri`", "download it anew");
        return None;
    };
    let mut claims = Map::new();
    claims.insert("aud".into(), url.clone().into());
    let token = if wanted.mode == Mode::IdToken {
        claims.insert("target_audience".into(), wanted.audience.into());
        "id_token"
    } else {
        claims.insert("scope".into(), scopes.into());
        "access_token"
    };
    claims.insert("sub".into(), wanted.subject.into());
    oauth::asserted(&url, place, account.signer, account.email, claims, token, reading)
}

/// A JWT that is the token.
#[derive(Debug)]
struct SelfSigned {
    signer: Signer,
    claims: Map<String, Value>,
}

impl Source for SelfSigned {
    fn fetch<'a>(&'a self, ask: Ask<'a>) -> Fetching<'a> {
        let now = ask.clock.millis();
        let mut claims = self.claims.clone();
        claims.insert("iat".into(), (now / 1000).into());
        claims.insert("exp".into(), (now / 1000 + SELF_SIGNED_LIFE).into());
        let token = self.signer.sign(&claims);
        Box::pin(async move {
            let expires = Some((now / 1000 + SELF_SIGNED_LIFE) * 1000);
            Ok(Minted { access: Some(Secret::new(token?)), obtained: now, expires, ..Minted::default() })
        })
    }

    fn asks(&self) -> bool {
        false
    }
}
