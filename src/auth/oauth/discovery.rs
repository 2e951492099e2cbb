//! What is found out about an issuer instead of being written: its endpoints (RFC 8414, OpenID Connect Discovery), whether
//! the resource trusts it (RFC 9728). It is kept sealed, so that a grant lives on
//! when the issuer cannot be asked. An answer leads no further than the issuer itself and `hosts`.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, USER_AGENT};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use serde_json::{Map, Value, json};

use super::call::{Call, Endpoint, Way};
use super::client::Client;
use super::registration::{Registered, Registration};
use super::trouble::{self, Step, unfit as down};
use crate::auth::Reading;
use crate::auth::connection::Connections;
use crate::auth::grant::Material;
use crate::auth::token::Failure;
use crate::expr::Names;
use crate::net::{self, Hosts, Origin, Reach};
use crate::tree::{Fields, Node, Problems};

/// Largest document about an issuer.
const DOCUMENT_MAX: u64 = 256 * 1024;
/// Longest address in one.
const URL_MAX: usize = 2048;
/// A person who consents is sent where the issuer is by what was found in the last hour, in milliseconds.
const FRESH: u64 = 3_600_000;
/// What records are about.
const PROVIDER: &str = "provider";

/// Finds out about one issuer.
#[derive(Debug)]
pub struct Finder {
    issuer: Option<Endpoint>,
    /// Where the resource would say whom it trusts.
    resource: Option<Endpoint>,
    registration: Option<Registration>,
    ways: Ways,
    time: Duration,
    connections: Connections,
    /// What names the record.
    material: Material,
    found: Mutex<Option<Arc<Found>>>,
    /// Held by whoever asks: it is asked once for all who wait.
    asking: tokio::sync::Mutex<()>,
}

/// How what was found may be reached.
#[derive(Debug)]
struct Ways {
    way: Way,
    hosts: Option<Hosts>,
    private: bool,
    allow_http: bool,
}

/// What was found.
#[derive(Debug)]
pub struct Found {
    /// Where a person consents.
    pub authorize: Option<String>,
    /// Whether answers name the issuer, so that one without a name is none (RFC 9207 section 2.4).
    pub names_itself: bool,
    /// What the resource calls itself (RFC 9728), for resource indicators.
    pub resource: Option<String>,
    token: Option<Endpoint>,
    revoke: Option<Endpoint>,
    register: Option<Endpoint>,
    at: u64,
    client: Option<Registered>,
}

impl Finder {
    /// Reads `discover`, `issuer` and `registration`; `None` inside where nothing is to be found out.
    pub fn read(fields: &Fields<'_>, tls: Option<&net::tls::Config>, reading: Reading<'_>) -> Option<Option<Arc<Self>>> {
        let (context, problems) = (reading.context, reading.problems);
        let discover = fields.node("discover").filter(|node| !node.is_off());
        let registration = fields.node("registration");
        if discover.is_none() && registration.is_none() {
            return Some(None);
        }
        let issuer = match discover {
            Some(node) => Some(issuer(node, fields, problems)?),
            None => None,
        };
        let endpoint = match issuer {
            Some(node) => Some(Endpoint::read(node, Names::NONE, tls, context, problems)?),
            None => None,
        };
        let registration = match registration {
            Some(node) => Some(Registration::read(node, fields, endpoint.is_some(), tls, context, problems)?),
            None => None,
        };
        let named = endpoint.as_ref().map(|e| e.url().to_owned()).unwrap_or_default();
        let metadata =
            registration.as_ref().map(|r| json!({ "url": r.url.as_ref().map(Endpoint::url), "metadata": r.metadata() }).to_string());
        let owner = context.owner;
        let parts = [&*owner.environment, &*owner.resource, &named, &metadata.unwrap_or_default()];
        let ways =
            Ways { way: Way::new(tls, context), hosts: context.hosts.cloned(), private: context.private, allow_http: context.allow_http };
        // Where the base URL is only made by a token, there is nobody to ask yet.
        let base = format!("{}{}", context.origin, context.base_path);
        let resource = if discover.is_some() && !context.made { ways.way.to(&base, Reach::Written).ok() } else { None };
        Some(Some(Arc::new(Self {
            issuer: endpoint,
            resource,
            registration,
            ways,
            time: context.head.min(super::read::PATIENCE),
            connections: context.tokens.connections().clone(),
            material: Material::of(parts.map(str::as_bytes)),
            found: Mutex::default(),
            asking: tokio::sync::Mutex::default(),
        })))
    }

    /// The issuer that was named.
    pub fn issuer(&self) -> Option<&str> {
        self.issuer.as_ref().map(Endpoint::url)
    }

    /// Whether the issuer registers the client.
    pub fn registers(&self) -> bool {
        self.registration.is_some()
    }

    /// What stands where an endpoint will be found.
    pub fn stand_in(&self) -> Option<Endpoint> {
        self.issuer.as_ref().map(Endpoint::as_stand_in)
    }

    /// A call with what has been found put in, from the store where the issuer need not be asked.
    ///
    /// # Errors
    /// Why it is not known.
    pub async fn complete(&self, call: &Call, now: u64) -> Result<Call, Failure> {
        let found = self.known(now, u64::MAX).await?;
        let mut call = call.clone();
        if call.endpoint.is_stand_in() {
            call.endpoint = found.token.clone().ok_or_else(|| down("The issuer's metadata names no token endpoint."))?;
        }
        if self.registration.is_some() {
            call.client =
                found.client.as_ref().map(|c| c.client.clone()).ok_or_else(|| down("The issuer has registered no client yet."))?;
        }
        Ok(call)
    }

    /// Where the end of a grant is told, where that was found.
    pub async fn revocation(&self, now: u64) -> Option<Endpoint> {
        self.known(now, u64::MAX).await.ok()?.revoke.clone()
    }

    /// What a person's consent begins with: fresh metadata, and a client that may come back to this address.
    ///
    /// # Errors
    /// Why it is not known.
    pub async fn ready(&self, redirect_uri: &str, scopes: Option<String>, now: u64) -> Result<(Arc<Found>, Option<Client>), Failure> {
        let found = self.known(now, FRESH).await?;
        if self.registration.is_none() {
            return Ok((found, None));
        }
        let _one = self.asking.lock().await;
        let found = self.held().unwrap_or(found);
        let fits = |client: &&Registered| client.is_for(redirect_uri, now);
        if let Some(registered) = found.client.as_ref().filter(fits) {
            return Ok((found.clone(), Some(registered.client.clone())));
        }
        let registered = self.register(&found, redirect_uri, scopes).await?;
        let client = registered.client.clone();
        let found = Arc::new(Found { client: Some(registered), ..found.again() });
        self.keep(&found).await?;
        Ok((found, Some(client)))
    }

    /// What is known and not older than so many milliseconds.
    async fn known(&self, now: u64, age: u64) -> Result<Arc<Found>, Failure> {
        let young = |found: &Arc<Found>| now.saturating_sub(found.at) < age;
        if let Some(found) = self.held().filter(young) {
            return Ok(found);
        }
        let _one = self.asking.lock().await;
        let before = match self.held() {
            Some(found) => Some(found),
            None => self.stored().await?,
        };
        if let Some(found) = before.clone().filter(young) {
            return Ok(found);
        }
        let mut found = self.discovered(now).await?;
        found.client = before.and_then(|before| before.client.clone());
        let found = Arc::new(found);
        self.keep(&found).await?;
        Ok(found)
    }

    async fn discovered(&self, now: u64) -> Result<Found, Failure> {
        let mut found = Found {
            authorize: None,
            names_itself: false,
            resource: None,
            token: None,
            revoke: None,
            register: None,
            at: now,
            client: None,
        };
        let Some(issuer) = &self.issuer else { return Ok(found) };
        found.resource = self.trusted(issuer).await?;
        let document = self.metadata(issuer).await?;
        let text = |name: &str| document.get(name).and_then(Value::as_str).filter(|text| text.len() <= URL_MAX);
        let endpoint = |name: &str| text(name).map(|url| self.ways.to(url, issuer, name)).transpose();
        found.authorize = endpoint("authorization_endpoint")?.map(|endpoint| endpoint.url().to_owned());
        found.token = endpoint("token_endpoint")?;
        found.revoke = endpoint("revocation_endpoint")?;
        found.register = endpoint("registration_endpoint")?;
        found.names_itself = document.get("authorization_response_iss_parameter_supported") == Some(&Value::Bool(true));
        Ok(found)
    }

    /// The issuer's own document (RFC 8414 section 3, OpenID Connect Discovery 1.0 section 4).
    async fn metadata(&self, issuer: &Endpoint) -> Result<Map<String, Value>, Failure> {
        let (host, path) = (issuer.origin().to_string(), issuer.path().trim_end_matches('/'));
        let places =
            [format!("{host}/.well-known/oauth-authorization-server{path}"), format!("{host}{path}/.well-known/openid-configuration")];
        for place in places {
            let Some(document) = self.document(&place).await? else { continue };
            let named = document.get("issuer").and_then(Value::as_str);
            // One issuer's document must not speak for another (RFC 8414 section 3.3).
            if named != Some(issuer.url()) {
                return Err(down(
                    "The issuer's metadata names another issuer than `issuer` does; both must be the same, to the last slash.",
                ));
            }
            return Ok(document);
        }
        Err(down("The issuer publishes no metadata where RFC 8414 and OpenID Connect Discovery look for it."))
    }

    /// What the resource calls itself, where it says whom it trusts: it must trust this issuer (RFC 9728 section 3).
    async fn trusted(&self, issuer: &Endpoint) -> Result<Option<String>, Failure> {
        let Some(resource) = &self.resource else { return Ok(None) };
        let (host, path) = (resource.origin().to_string(), resource.path().trim_end_matches('/'));
        let Ok(Some(document)) = self.document(&format!("{host}/.well-known/oauth-protected-resource{path}")).await else {
            return Ok(None);
        };
        // Many APIs answer anything with some JSON: without this member it is no such document.
        let Some(named) = document.get("resource").and_then(Value::as_str).filter(|named| named.len() <= URL_MAX) else {
            return Ok(None);
        };
        let servers = document.get("authorization_servers").and_then(Value::as_array);
        if !servers.is_none_or(|servers| servers.iter().any(|server| server.as_str() == Some(issuer.url()))) {
            return Err(down("The resource's metadata (RFC 9728) does not list this issuer among its authorization servers."));
        }
        // A token must not be asked for in the name of another resource (RFC 9728 section 3.3).
        if Origin::of(named).is_ok_and(|(origin, _)| origin.to_string() == host) {
            return Ok(Some(named.to_owned()));
        }
        Err(down("The resource's metadata (RFC 9728) is about another resource."))
    }

    /// A document at a place that was built of what the operator wrote; none where there is none.
    async fn document(&self, url: &str) -> Result<Option<Map<String, Value>>, Failure> {
        let endpoint = self.ways.way.to(url, Reach::Written).map_err(down)?;
        let response = self.fetch(&endpoint, Method::GET, Bytes::new(), Step::Discovery).await?;
        if response.status() != StatusCode::OK {
            if response.status().is_server_error() {
                return Err(down("The issuer fails when it is asked for its metadata."));
            }
            return Ok(None);
        }
        Ok(serde_json::from_slice(response.body()).ok())
    }

    async fn register(&self, found: &Found, redirect_uri: &str, scopes: Option<String>) -> Result<Registered, Failure> {
        let registration = self.registration.as_ref().ok_or_else(|| down("nothing is to be registered"))?;
        let endpoint = registration.url.as_ref().or(found.register.as_ref());
        let endpoint = endpoint.ok_or_else(|| down("The issuer's metadata names no registration endpoint."))?;
        let asked = registration.asked(redirect_uri, scopes).to_string().into();
        let response = self.fetch(endpoint, Method::POST, asked, Step::Registration).await?;
        Registered::read(&response, redirect_uri)
    }

    async fn fetch(&self, endpoint: &Endpoint, method: Method, body: Bytes, step: Step) -> Result<Response<Bytes>, Failure> {
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() = endpoint.target().map_err(Failure::Own)?;
        let headers = request.headers_mut();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("postern/", env!("CARGO_PKG_VERSION"))));
        if step == Step::Registration {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        let sent = endpoint.ask(request, self.time, DOCUMENT_MAX).await;
        sent.map_err(|error| trouble::unanswered(step, &endpoint.origin().to_string(), &error))
    }

    fn held(&self) -> Option<Arc<Found>> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn stored(&self) -> Result<Option<Arc<Found>>, Failure> {
        let store = self.connections.store().map_err(Failure::Own)?;
        let name = store.name(PROVIDER, [self.material.bytes()]);
        let record = crate::auth::grant::blocking(move || store.read(&name)).await.map_err(Failure::Own)?;
        let found = record.and_then(|record| self.read_record(&record)).map(Arc::new);
        if let Some(found) = &found {
            *self.found.lock().unwrap_or_else(PoisonError::into_inner) = Some(found.clone());
        }
        Ok(found)
    }

    /// Sealed before it is used: a client is not registered a second time for want of a disk.
    async fn keep(&self, found: &Arc<Found>) -> Result<(), Failure> {
        let store = self.connections.store().map_err(Failure::Own)?;
        let (name, record) = (store.name(PROVIDER, [self.material.bytes()]), written(found));
        crate::auth::grant::blocking(move || store.write(&name, &record)).await.map_err(Failure::Own)?;
        *self.found.lock().unwrap_or_else(PoisonError::into_inner) = Some(found.clone());
        Ok(())
    }

    /// What was kept, judged anew: what `hosts` allowed then it need not allow now.
    fn read_record(&self, bytes: &[u8]) -> Option<Found> {
        let record: Value = serde_json::from_slice(bytes).ok()?;
        let text = |name: &str| record.get(name).and_then(Value::as_str);
        let endpoint = |name: &'static str| match (text(name), &self.issuer) {
            (Some(url), Some(issuer)) => self.ways.to(url, issuer, name).map(Some),
            _ => Ok(None),
        };
        let client = record.get("client").and_then(Registered::of_record);
        Some(Found {
            authorize: endpoint("authorization_endpoint").ok()?.map(|endpoint| endpoint.url().to_owned()),
            names_itself: record.get("names_itself").and_then(Value::as_bool)?,
            resource: text("resource").map(str::to_owned),
            token: endpoint("token_endpoint").ok()?,
            revoke: endpoint("revocation_endpoint").ok()?,
            register: endpoint("registration_endpoint").ok()?,
            at: record.get("at").and_then(Value::as_u64)?,
            client,
        })
    }
}

impl Found {
    fn again(&self) -> Self {
        Self {
            authorize: self.authorize.clone(),
            names_itself: self.names_itself,
            resource: self.resource.clone(),
            token: self.token.clone(),
            revoke: self.revoke.clone(),
            register: self.register.clone(),
            at: self.at,
            client: self.client.clone(),
        }
    }
}

impl Ways {
    /// The way to an address that an issuer has named: its own origin, or where `hosts` allows.
    fn to(&self, url: &str, issuer: &Endpoint, what: &str) -> Result<Endpoint, Failure> {
        let (origin, _) = Origin::of(url).map_err(|_| down(format!("The issuer's `{what}` is no URL.")))?;
        let own = origin.to_string() == issuer.origin().to_string();
        if !own && !self.hosts.as_ref().is_some_and(|hosts| hosts.allow(&origin)) {
            return Err(down(format!("The issuer's `{what}` is at {origin}, which is neither the issuer's own origin nor in `hosts`.")));
        }
        if !(origin.is_https() || own || self.allow_http) {
            return Err(down(format!("The issuer's `{what}` would be called over plain http.")));
        }
        let reach = if own { Reach::Written } else { Reach::Made { private: self.private } };
        self.way.to(url, reach).map_err(down)
    }
}

/// `discover: true` needs `issuer`; an address is the issuer itself.
fn issuer<'n>(node: &'n Node, fields: &Fields<'n>, problems: &Problems) -> Option<&'n Node> {
    let named = fields.node("issuer");
    match (node.word(), named) {
        (Some("true"), Some(issuer)) => Some(issuer),
        (Some("true"), None) => {
            problems.error(node.place, "whom to trust is not found out: `discover` needs `issuer`", "issuer: https://issuer.example");
            None
        }
        (word, Some(issuer)) if word != issuer.word() => {
            problems.error(node.place, "`discover` and `issuer` name two issuers", "write `discover: true`");
            None
        }
        _ => Some(node),
    }
}

fn written(found: &Found) -> zeroize::Zeroizing<Vec<u8>> {
    let url = |endpoint: &Option<Endpoint>| endpoint.as_ref().map(|endpoint| endpoint.url().to_owned());
    let client = found.client.as_ref().map(Registered::to_record);
    let record = json!({
        "version": 1,
        "authorization_endpoint": found.authorize,
        "token_endpoint": url(&found.token),
        "revocation_endpoint": url(&found.revoke),
        "registration_endpoint": url(&found.register),
        "names_itself": found.names_itself,
        "resource": found.resource,
        "at": found.at,
        "client": client,
    });
    zeroize::Zeroizing::new(record.to_string().into_bytes())
}
