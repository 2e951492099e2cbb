//! Signed POSTs of the gateway's own (AWS Signature Version 4): STS, Secrets Manager.

use std::sync::Arc;
use std::time::SystemTime;

use aws_lc_rs::digest;
use bytes::Bytes;
use http::header::{AUTHORIZATION, HOST};
use http::{HeaderName, HeaderValue, Request};

use super::canonical::{self, Dialect};
use super::key::{Keys, Moment};
use super::{CONNECT, Credentials};
use crate::hex::hex;
use crate::net::{Origin, Reach, Upstream, pool, tls};
use crate::path::Target;
use crate::tree::Problems;

/// Where a service is.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Its origin.
    pub upstream: Arc<Upstream>,
    /// What follows the origin; at least `/`.
    pub path: String,
}

impl Endpoint {
    /// The endpoint of a URL.
    ///
    /// # Errors
    /// What is wrong with the URL. Plain http is for this machine and its platform's metadata services only.
    pub fn new(url: &str, reach: Reach, tls: Option<tls::Config>) -> Result<Self, String> {
        let (origin, path) = Origin::of(url)?;
        if !origin.is_https() && !origin.is_loopback() && reach != Reach::Machine {
            return Err("credentials would travel over plain http".into());
        }
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        if path.parse::<http::uri::PathAndQuery>().is_err() {
            return Err("its path holds a character that no URL may hold".into());
        }
        let pool = pool::Config::read(None, origin.is_https(), &Problems::default()).ok_or("there are no settings for it")?;
        let upstream = Upstream::new(origin, tls, pool, CONNECT, CONNECT).reaching(reach);
        Ok(Self { upstream: Arc::new(upstream), path })
    }
}

/// For whom and where a request is signed.
#[derive(Clone, Copy, Debug)]
pub struct Scope<'s> {
    /// The service's name in signatures.
    pub service: &'s str,
    /// The region.
    pub region: &'s str,
}

const AMZ_DATE: HeaderName = HeaderName::from_static("x-amz-date");
const AMZ_TOKEN: HeaderName = HeaderName::from_static("x-amz-security-token");

/// Signs a request whose URI is a path without a query. `host` is what the wire will say.
///
/// # Errors
/// Where credentials hold what no header may.
pub fn sign(
    request: &mut Request<Bytes>,
    host: &HeaderValue,
    scope: Scope<'_>,
    credentials: &Credentials,
    now: SystemTime,
) -> Result<(), &'static str> {
    const UNFIT: &str = "the credentials hold what no header may";
    let moment = Moment::new(now);
    let field = |text: &str| HeaderValue::from_str(text).map_err(|_| UNFIT);
    let target = Target::new(request.uri().path(), None);
    let payload = hex(digest::digest(&digest::SHA256, request.body()).as_ref());
    let method = request.method().clone();
    let headers = request.headers_mut();
    headers.insert(HOST, host.clone());
    headers.insert(AMZ_DATE, field(moment.text())?);
    if let Some(session) = &credentials.session {
        let mut value = field(session.expose())?;
        value.set_sensitive(true);
        headers.insert(AMZ_TOKEN, value);
    }
    let canonical = canonical::canonical(method.as_str(), &target, headers, &payload, Dialect::OTHER);
    let keys = Keys::new(credentials.id.clone(), credentials.secret.clone(), scope.region.to_owned(), scope.service.to_owned());
    let day = keys.day(now, &moment);
    let hash = hex(digest::digest(&digest::SHA256, canonical.text.as_bytes()).as_ref());
    let signature = day.sign(&format!("AWS4-HMAC-SHA256\n{}\n{}\n{hash}", moment.text(), day.scope));
    let (id, names) = (&credentials.id, &canonical.fields);
    let mut value = field(&format!("AWS4-HMAC-SHA256 Credential={id}/{}, SignedHeaders={names}, Signature={signature}", day.scope))?;
    value.set_sensitive(true);
    headers.insert(AUTHORIZATION, value);
    Ok(())
}
