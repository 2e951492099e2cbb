//! A client that an issuer registers (RFC 7591): what is asked for, and what it gives.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::{Response, StatusCode};
use serde_json::{Map, Value, json};

use super::call::Endpoint;
use super::client::Client;
use super::trouble::unfit as down;
use crate::auth::token::Failure;
use crate::auth::{Context, assertion};
use crate::expr::Names;
use crate::net;
use crate::secret::Secret;
use crate::tree::{Fields, Node, Problems};

/// Longest name and secret that an issuer gives a client.
const CREDENTIAL_MAX: usize = 4096;
/// What of an answer is kept.
const KEPT: [&str; 3] = ["client_id", "client_secret", "token_endpoint_auth_method"];

/// `registration`.
#[derive(Debug)]
pub struct Registration {
    /// Where, if the operator says so.
    pub url: Option<Endpoint>,
    metadata: Map<String, Value>,
}

/// A client that the issuer has registered.
#[derive(Clone, Debug)]
pub struct Registered {
    /// The client.
    pub client: Client,
    /// For which redirect URI.
    redirect_uri: String,
    /// When its secret ends, in milliseconds since 1970.
    until: Option<u64>,
    /// As the issuer gave it, to be kept.
    given: BTreeMap<&'static str, Secret>,
}

impl Registration {
    /// Reads it. `discovers`: whether an issuer could say where.
    pub fn read(
        node: &Node,
        scheme: &Fields<'_>,
        discovers: bool,
        tls: Option<&net::tls::Config>,
        context: &Context<'_>,
        problems: &Problems,
    ) -> Option<Self> {
        let fields = Fields::of(node, "a map with `url` and `metadata`", problems)?;
        let url = match fields.node("url") {
            Some(node) => Some(Endpoint::read(node, Names::NONE, tls, context, problems)?),
            None => None,
        };
        let metadata = match fields.node("metadata") {
            Some(node) => assertion::json_map(node, problems)?,
            None => Map::new(),
        };
        let place = fields.place();
        fields.finish();
        for key in ["client_id", "client_secret", "client_auth", "client_assertion"] {
            if scheme.node(key).is_some() {
                problems.error(
                    scheme.key_place(key),
                    format!("`{key}` says nothing where the issuer registers the client"),
                    "remove one of them",
                );
                return None;
            }
        }
        if url.is_none() && !discovers {
            problems.error(
                place,
                "nobody says where clients are registered",
                "registration: { url: https://issuer.example/register }, or discover: true",
            );
            return None;
        }
        Some(Self { url, metadata })
    }

    /// What is asked for.
    pub fn asked(&self, redirect_uri: &str, scopes: Option<String>) -> Value {
        let mut metadata = Map::new();
        metadata.insert("client_name".into(), "Postern".into());
        metadata.insert("redirect_uris".into(), json!([redirect_uri]));
        metadata.insert("grant_types".into(), json!(["authorization_code", "refresh_token"]));
        metadata.insert("response_types".into(), json!(["code"]));
        metadata.insert("token_endpoint_auth_method".into(), "client_secret_basic".into());
        if let Some(scopes) = scopes {
            metadata.insert("scope".into(), scopes.into());
        }
        for (name, value) in &self.metadata {
            if value.is_null() {
                metadata.remove(name);
            } else {
                metadata.insert(name.clone(), value.clone());
            }
        }
        Value::Object(metadata)
    }

    /// What the operator adds.
    pub fn metadata(&self) -> &Map<String, Value> {
        &self.metadata
    }
}

impl Registered {
    fn of(given: BTreeMap<&'static str, Secret>, redirect_uri: String, until: Option<u64>) -> Result<Self, Failure> {
        let id = given.get("client_id").ok_or_else(|| down("The issuer's answer to the registration holds no client_id."))?;
        let method = given.get("token_endpoint_auth_method").map(Secret::expose);
        let client = Client::registered(id.clone(), given.get("client_secret").cloned(), method);
        let client =
            client.ok_or_else(|| down("The issuer has registered a client that says who it is in a way that is not known here."))?;
        Ok(Self { client, redirect_uri, until, given })
    }

    /// Reads what the issuer answers (RFC 7591 section 3.2).
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(response: &Response<Bytes>, redirect_uri: &str) -> Result<Self, Failure> {
        if !matches!(response.status(), StatusCode::OK | StatusCode::CREATED) {
            return Err(down("The issuer registers no client for these metadata."));
        }
        let given: Map<String, Value> = serde_json::from_slice(response.body()).unwrap_or_default();
        let text = |name: &str| given.get(name).and_then(Value::as_str).filter(|text| !text.is_empty() && text.len() <= CREDENTIAL_MAX);
        let kept = KEPT.into_iter().filter_map(|name| Some((name, Secret::new(text(name)?.to_owned())))).collect();
        // Zero means that it does not end (RFC 7591 section 3.2.1).
        let until = given.get("client_secret_expires_at").and_then(Value::as_u64).filter(|at| *at > 0).map(|at| at.saturating_mul(1000));
        Self::of(kept, redirect_uri.to_owned(), until)
    }

    /// Whether it may come back to this address, now.
    pub fn is_for(&self, redirect_uri: &str, now: u64) -> bool {
        self.redirect_uri == redirect_uri && self.until.is_none_or(|until| now < until)
    }

    /// As it is kept.
    pub fn to_record(&self) -> Map<String, Value> {
        let mut kept: Map<String, Value> = self.given.iter().map(|(name, value)| ((*name).to_owned(), value.expose().into())).collect();
        kept.insert("redirect_uri".into(), self.redirect_uri.as_str().into());
        kept.insert("until".into(), self.until.into());
        kept
    }

    /// As it was kept.
    pub fn of_record(record: &Value) -> Option<Self> {
        let part = |name: &'static str| Some((name, Secret::new(record.get(name)?.as_str()?.to_owned())));
        let given = KEPT.into_iter().filter_map(part).collect();
        let until = record.get("until").and_then(Value::as_u64);
        Self::of(given, record.get("redirect_uri")?.as_str()?.to_owned(), until).ok()
    }
}
