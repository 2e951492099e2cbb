//! How the gateway says who it is to an issuer: `client_auth` (RFC 6749 section 2.3, RFC 7523, rulings B20, B21, F31-F35).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use serde_json::Value as Json;
use zeroize::Zeroizing;

use super::form::Form;
use crate::auth::Context;
use crate::auth::assertion::{self, Signer};
use crate::auth::field::Field;
use crate::auth::token::Failure;
use crate::error::Error;
use crate::key::Key;
use crate::secret::Secret;
use crate::tree::{Fields, Node, Problems, Value};
use crate::uri::encode_query;

const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// The gateway as a client of an issuer.
#[derive(Clone, Debug)]
pub struct Client {
    id: Option<Secret>,
    secret: Option<Secret>,
    auth: Auth,
    /// `assertion_audience`; the token URL where it is not said.
    audience: Option<Json>,
}

#[derive(Clone, Debug)]
enum Auth {
    /// RFC 6749 section 2.3.1: both halves are form-encoded first.
    Basic,
    /// Most servers want them as they are.
    BasicRaw,
    Post,
    /// `client_secret_jwt` and `private_key_jwt`.
    Signed(std::sync::Arc<Signer>),
    /// An assertion that somebody else has made (ruling F46).
    Made(Secret),
    /// By the certificate of `mtls` (RFC 8705 section 2); the id says whose it should be.
    Certificate,
    None,
}

/// `client_auth` by its words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    Basic,
    BasicRaw,
    Post,
    SecretJwt,
    KeyJwt,
    Tls,
    None,
}

const WORDS: [(&str, Word); 7] = [
    ("basic", Word::Basic),
    ("basic_raw", Word::BasicRaw),
    ("post", Word::Post),
    ("client_secret_jwt", Word::SecretJwt),
    ("private_key_jwt", Word::KeyJwt),
    ("tls", Word::Tls),
    ("none", Word::None),
];

/// What a scheme makes of a client that says nothing about `client_auth`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usual {
    /// `basic` where there is a secret.
    Basic,
    /// `post` where there is a secret.
    Post,
}

impl Client {
    /// Reads `client_id`, `client_secret`, `client_auth`, `client_assertion`, `assertion_audience` and the key. `shared`:
    /// whether the key is the grant's own in the first place, so that it does not say how the client is known.
    pub fn read(fields: &Fields<'_>, usual: Usual, shared: bool, context: &Context<'_>, problems: &Problems) -> Option<Self> {
        let id = fields.node("client_id").map(|node| secret_or_text(node, problems));
        let secret = fields.raw("client_secret").map(|node| node.secret_or_empty(problems));
        let made = fields.secret("client_assertion");
        let audience = fields.node("assertion_audience").and_then(|node| assertion::json(node, problems));
        let has_key = !shared && (fields.node("private_key").is_some() || fields.node("key").is_some());
        let guess = match (made.is_some() || has_key, &secret, usual) {
            (true, ..) => Word::KeyJwt,
            (false, Some(_), Usual::Basic) => Word::Basic,
            (false, Some(_), Usual::Post) => Word::Post,
            (false, None, _) => Word::None,
        };
        let word = fields.choice("client_auth", &WORDS, guess);
        let word = if fields.node("client_auth").is_some_and(Node::is_off) { Word::None } else { word };
        let (id, secret) = (flat(id)?, flat(secret)?);
        let needs = |what: &str| {
            problems.error(fields.key_place("client_auth"), format!("this way of saying who the client is needs `{what}`"), "")
        };
        if id.is_none() && word != Word::None {
            needs("client_id");
            return None;
        }
        if secret.is_none() && matches!(word, Word::Basic | Word::BasicRaw | Word::Post | Word::SecretJwt) {
            needs("client_secret");
            return None;
        }
        let auth = match word {
            Word::Basic => Auth::Basic,
            Word::BasicRaw => Auth::BasicRaw,
            Word::Post => Auth::Post,
            Word::None => Auth::None,
            Word::Tls if context.certificate.is_some() => Auth::Certificate,
            Word::Tls => {
                let hint = "auth: [{ mtls: { cert: client.pem, key: \"${file:client.key}\" } }, { oauth2_…: … }]";
                problems.error(
                    fields.key_place("client_auth"),
                    "`client_auth: tls` shows the certificate of `mtls`, which is not in this list",
                    hint,
                );
                return None;
            }
            Word::SecretJwt => {
                let bytes = Zeroizing::new(secret.as_ref()?.expose().as_bytes().to_vec());
                Auth::Signed(Signer::read(fields, Some(Key::hmac(bytes)), context.folders, problems)?.into())
            }
            Word::KeyJwt => match made {
                Some(made) => Auth::Made(made),
                None => Auth::Signed(Signer::read(fields, None, context.folders, problems)?.into()),
            },
        };
        if !shared && !matches!(auth, Auth::Signed(_)) {
            unused(fields, problems)?;
        }
        Some(Self { id, secret, auth, audience })
    }

    /// Whether the handshake says who it is.
    pub fn is_known_by_certificate(&self) -> bool {
        matches!(self.auth, Auth::Certificate)
    }

    /// The same client, saying who it is in the way that `refresh.client_auth` names. A way that needs a key needs the
    /// scheme's own.
    pub fn otherwise(&self, fields: &Fields<'_>, problems: &Problems) -> Option<Self> {
        let word = fields.choice("client_auth", &WORDS, Word::None);
        let word = if fields.node("client_auth").is_some_and(Node::is_off) { Word::None } else { word };
        let auth = match word {
            Word::Basic if self.secret.is_some() => Auth::Basic,
            Word::BasicRaw if self.secret.is_some() => Auth::BasicRaw,
            Word::Post if self.secret.is_some() => Auth::Post,
            Word::None => Auth::None,
            Word::Tls if matches!(self.auth, Auth::Certificate) => Auth::Certificate,
            Word::KeyJwt | Word::SecretJwt if matches!(self.auth, Auth::Signed(_) | Auth::Made(_)) => self.auth.clone(),
            _ => {
                let hint = "one of basic, basic_raw, post and none, with `client_secret` on the scheme, or the scheme's own";
                problems.error(fields.key_place("client_auth"), "the refresh cannot say who the client is in this way", hint);
                return None;
            }
        };
        Some(Self { auth, ..self.clone() })
    }

    /// A client that an issuer has registered, which says who it is by this method (RFC 7591 section 2); `None` where the
    /// method is not known, or needs a secret that is not there.
    pub fn registered(id: Secret, secret: Option<Secret>, method: Option<&str>) -> Option<Self> {
        let auth = match (method, &secret) {
            (Some("none"), _) | (None, None) => Auth::None,
            (Some("client_secret_basic") | None, Some(_)) => Auth::Basic,
            (Some("client_secret_post"), Some(_)) => Auth::Post,
            _ => return None,
        };
        Some(Self { id: Some(id), secret, auth, audience: None })
    }

    /// A client that is nobody.
    pub fn nobody() -> Self {
        Self { id: None, secret: None, auth: Auth::None, audience: None }
    }

    /// A client whose id and secret come in a file with more: the secret as it is, in the header or in the body.
    pub fn given(id: Secret, secret: Secret, usual: Usual) -> Self {
        let auth = match usual {
            Usual::Basic => Auth::BasicRaw,
            Usual::Post => Auth::Post,
        };
        Self { id: Some(id), secret: Some(secret), auth, audience: None }
    }

    /// Its name.
    pub fn id(&self) -> Option<&Secret> {
        self.id.as_ref()
    }

    /// What must not be shown of it.
    pub fn secrets(&self) -> impl Iterator<Item = &Secret> {
        self.secret.iter().chain(if let Auth::Made(made) = &self.auth { Some(made) } else { None })
    }

    /// Says who the client is, in the parameters or the header.
    pub fn present(&self, form: &mut Form, headers: &mut HeaderMap, url: &str, now: u64) -> Result<(), Failure> {
        let text = |secret: &Option<Secret>| secret.as_ref().map(Secret::expose).unwrap_or_default().to_owned();
        match &self.auth {
            Auth::Basic | Auth::BasicRaw => {
                let encode = |text: String| if matches!(self.auth, Auth::Basic) { encode_query(&text) } else { text };
                let pair = Zeroizing::new([encode(text(&self.id)), encode(text(&self.secret))].join(":"));
                let value = Zeroizing::new(["Basic ", &STANDARD.encode(pair.as_bytes())].concat());
                let field = Field::new(&value).map_err(|why| Failure::Own(Error::Internal(why.into())))?;
                headers.insert(AUTHORIZATION, field.value());
            }
            Auth::Post => {
                self.id.iter().for_each(|id| form.set("client_id", id.clone()));
                self.secret.iter().for_each(|secret| form.set("client_secret", secret.clone()));
            }
            Auth::Certificate | Auth::None => {
                if let Some(id) = &self.id {
                    form.set("client_id", id.clone());
                }
            }
            Auth::Made(made) => self.assert(form, made.clone()),
            Auth::Signed(signer) => {
                let id = text(&self.id);
                let mut claims = assertion::claims(&id, now);
                claims.insert("sub".into(), id.into());
                claims.insert("aud".into(), self.audience.clone().unwrap_or_else(|| url.into()));
                self.assert(form, Secret::new(signer.sign(&claims)?));
            }
        }
        Ok(())
    }

    fn assert(&self, form: &mut Form, assertion: Secret) {
        if let Some(id) = &self.id {
            form.set("client_id", id.clone());
        }
        form.set("client_assertion_type", ASSERTION_TYPE);
        form.set("client_assertion", assertion);
    }
}

/// Settings of a signature where nothing is signed: a mistake that would otherwise show at the issuer only.
fn unused(fields: &Fields<'_>, problems: &Problems) -> Option<()> {
    const KEYS: [&str; 7] = ["private_key", "key", "key_encoding", "algorithm", "key_id", "certificate", "header"];
    let found: Vec<&str> = KEYS.into_iter().filter(|key| fields.node(key).is_some()).collect();
    for key in &found {
        let hint = "remove it, or set `client_auth: private_key_jwt`";
        problems.error(fields.key_place(key), format!("`{key}` says nothing here: nothing is signed"), hint);
    }
    found.is_empty().then_some(())
}

/// A value that may be written out, and may be a reference.
pub fn secret_or_text(node: &Node, problems: &Problems) -> Option<Secret> {
    match &node.value {
        Value::Secret(secret) => Some(secret.clone()),
        _ => node.text(problems).map(Secret::new),
    }
}

/// Something that is there must have been read.
fn flat<T>(read: Option<Option<T>>) -> Option<Option<T>> {
    match read {
        None => Some(None),
        Some(None) => None,
        Some(value) => Some(value),
    }
}
