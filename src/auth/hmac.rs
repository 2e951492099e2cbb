//! `hmac`: a keyed hash of a text that the operator writes, over whatever of the request its API wants signed (RFC 2104).
//! Fields that belong to it are set first, so that the text may hold them. Other signatures are made by expressions.

use std::sync::Arc;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{HeaderName, HeaderValue};

use crate::auth::jwt::read_settings;
use crate::auth::placed::{Placed, Spot, settable};
use crate::auth::read::fields;
use crate::auth::whole::whole;
use crate::auth::{Owned, Reading, Scheme, Signing, oauth};
use crate::call::Call;
use crate::error::Error;
use crate::expr::{self, Name, Names, Settings, Template};
use crate::fill::{self, Facts};
use crate::hex::hex;
use crate::key;
use crate::tree::{Fields, Node};

/// Most fields that are set for one signature.
const HEADERS_MAX: usize = 32;
/// What the message and the fields may read.
const INPUTS: Names = Names::FIXED.with(Names::CLIENT).with(Names::ATTEMPT).with(Names::REQUEST);

static ALGORITHMS: [(&str, &hmac::Algorithm); 4] = [
    ("sha256", &hmac::HMAC_SHA256),
    ("sha1", &hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY),
    ("sha384", &hmac::HMAC_SHA384),
    ("sha512", &hmac::HMAC_SHA512),
];

/// How the signature is written.
#[derive(Clone, Copy, Debug)]
enum Spelling {
    Hex,
    Base64,
    Base64Url,
}

const SPELLINGS: [(&str, Spelling); 3] = [("hex", Spelling::Hex), ("base64", Spelling::Base64), ("base64url", Spelling::Base64Url)];

/// Signs a text by a shared secret.
pub struct Hmac {
    key: hmac::Key,
    message: Template,
    spelling: Spelling,
    headers: Vec<(HeaderName, Template)>,
    spots: Vec<Spot>,
    reads_body: bool,
    settings: Arc<Settings>,
    buffer: u64,
    identity: Arc<str>,
}

impl std::fmt::Debug for Hmac {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hmac").field("message", &self.message).field("spots", &self.spots).finish_non_exhaustive()
    }
}

/// Reads `{ algorithm, key, key_encoding, message, encoding, place, headers }`.
pub(super) fn read(node: &Node, reading: Reading<'_>) -> Option<Box<dyn Scheme>> {
    let (context, problems) = (reading.context, reading.problems);
    let fields = fields(node, "a map with `key`, `message` and `place`", problems)?;
    let algorithm = fields.choice("algorithm", &ALGORITHMS, &hmac::HMAC_SHA256);
    let key = key(&fields);
    let message = fields.need("message").and_then(|n| expr::read(n, &context.settings.scope(INPUTS), problems));
    let spelling = fields.choice("encoding", &SPELLINGS, Spelling::Hex);
    let headers = headers(&fields, reading);
    let spots = fields.need("place").and_then(|n| Spot::read(n, Name::Signature, reading));
    let place = fields.key_place("message");
    fields.finish();
    let (key, message, headers, spots) = (key?, message?, headers?, spots?);
    if message.is_constant() {
        problems.warn(place, "the message is the same for every request, and so is its signature", "as \"{{ request.target }}\"");
    }
    let names = headers.iter().fold(message.names(), |names, (_, template)| names.with(template.names()));
    let mut parts = vec![b"hmac".to_vec()];
    oauth::written(node, &["place"], &mut parts);
    parts.extend(read_settings(names, context.settings));
    let identity = reading.fingerprint.of(parts.iter().map(Vec::as_slice));
    Some(Box::new(Hmac {
        key: hmac::Key::new(*algorithm, &key),
        message,
        spelling,
        headers,
        spots,
        reads_body: names.reads_body(),
        settings: context.settings.clone(),
        buffer: context.buffer,
        identity,
    }))
}

fn key(fields: &Fields<'_>) -> Option<zeroize::Zeroizing<Vec<u8>>> {
    let problems = fields.problems();
    let encoding = fields.choice("key_encoding", &key::Encoding::ALL, key::Encoding::Text);
    let node = fields.need("key")?;
    let text = node.secret(problems)?;
    encoding.bytes(text.expose()).map_err(|why| problems.error(node.place, why.0, why.1)).ok()
}

fn headers(fields: &Fields<'_>, reading: Reading<'_>) -> Option<Vec<(HeaderName, Template)>> {
    let problems = fields.problems();
    let Some(node) = fields.node("headers") else { return Some(Vec::new()) };
    Fields::of(node, "a map of header fields", problems)?;
    if node.entries().len() > HEADERS_MAX {
        problems.error(node.place, format!("more than {HEADERS_MAX} fields"), "");
        return None;
    }
    let mut all: Vec<(HeaderName, Template)> = Vec::new();
    let mut good = true;
    for entry in node.entries() {
        let name = HeaderName::from_bytes(entry.key.as_bytes()).ok().filter(settable);
        if name.is_none() {
            problems.error(entry.place, format!("`{}` cannot be set", entry.key), "it is no name of a header, or frames the message");
        }
        let template = expr::read(&entry.node, &reading.context.settings.scope(INPUTS), problems);
        match (name, template) {
            (Some(name), Some(template)) if !all.iter().any(|(other, _)| *other == name) => all.push((name, template)),
            (Some(name), Some(_)) => {
                problems.error(entry.place, format!("`{name}` is there twice, in two spellings"), "header names have no case");
                good = false;
            }
            _ => good = false,
        }
    }
    good.then_some(all)
}

impl Scheme for Hmac {
    fn owns(&self) -> Owned {
        let mut owned = Spot::owned(&self.spots);
        owned.headers.extend(self.headers.iter().map(|(name, _)| name.clone()));
        owned
    }

    fn identity(&self, _: &Call) -> Option<Arc<str>> {
        Some(self.identity.clone())
    }

    /// The key does not travel, but whoever sees a signature can send it again.
    fn secret(&self) -> bool {
        true
    }

    fn fresh(&self) -> bool {
        false
    }

    fn seals(&self) -> bool {
        true
    }

    fn sign<'a>(&'a self, call: &'a mut Call) -> Signing<'a> {
        if !self.reads_body && !self.spots.iter().any(Spot::writes_body) {
            return Signing::Done(self.seal(call));
        }
        Signing::Later(Box::pin(async move {
            let body = if self.reads_body { Some(whole(call, self.buffer).await?) } else { None };
            let signature = self.signature(call, body.as_ref())?;
            for spot in &self.spots {
                spot.put_anywhere(call, self.placed(&signature), self.buffer).await?;
            }
            Ok(())
        }))
    }
}

impl Hmac {
    fn placed<'p>(&'p self, signature: &'p str) -> Placed<'p> {
        Placed { name: Name::Signature, text: signature, settings: &self.settings }
    }

    fn seal(&self, call: &mut Call) -> Result<(), Error> {
        let signature = self.signature(call, None)?;
        self.spots.iter().try_for_each(|spot| spot.put(call, self.placed(&signature)))
    }

    /// Sets the fields, and signs what is then there.
    fn signature(&self, call: &mut Call, body: Option<&Bytes>) -> Result<String, Error> {
        for (name, template) in &self.headers {
            let value = self.field(name, template, call, body)?;
            call.headers.insert(name, value);
        }
        let facts = Facts { settings: &self.settings, call, body };
        let message = self.message.bytes(&facts).map_err(|failure| fill::refused(&failure, self.message.names()))?;
        let tag = hmac::sign(&self.key, &message);
        Ok(match self.spelling {
            Spelling::Hex => hex(tag.as_ref()),
            Spelling::Base64 => STANDARD.encode(tag),
            Spelling::Base64Url => URL_SAFE_NO_PAD.encode(tag),
        })
    }

    fn field(&self, name: &HeaderName, template: &Template, call: &Call, body: Option<&Bytes>) -> Result<HeaderValue, Error> {
        let facts = Facts { settings: &self.settings, call, body };
        let rendered = template.render_text(&facts).map_err(|failure| fill::refused(&failure, template.names()))?;
        fill::header(name, &rendered, template.names())
    }
}

#[cfg(test)]
mod tests;
