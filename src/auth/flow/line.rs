//! The way of the calls that a login is made of: where each may lead, judged for each anew (rulings C19, F26, G1), and the
//! connections there. A redirect is an answer and not an order.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use zeroize::Zeroizing;

use crate::auth::Context;
use crate::error::{Error, Unreachable};
use crate::expr::Made;
use crate::net::{self, Bounds, Hosts, Origin, Reach, Upstream, tls};
use crate::tree::Problems;

/// Longest time that a server has for its answer, where `timeouts.head` does not say less.
const PATIENCE: Duration = Duration::from_secs(30);
/// Most servers whose connections are kept.
const KNOWN_MAX: usize = 16;

/// Most hosts that are written down.
const NAMED_MAX: usize = 32;

/// Where calls may lead, and how they get there.
#[derive(Debug)]
pub struct Line {
    base: Arc<str>,
    /// Whether a template has made the host of the base.
    made: bool,
    hosts: Option<Hosts>,
    private: bool,
    allow_http: bool,
    tls: Option<tls::Config>,
    connect: Duration,
    queue: Duration,
    time: Duration,
    known: Mutex<Vec<(String, Arc<Upstream>)>>,
    /// The hosts that are written down.
    named: Mutex<Vec<String>>,
}

/// A place where a call may go.
#[derive(Debug)]
pub struct Spot {
    upstream: Arc<Upstream>,
    /// Path and query.
    pub target: Zeroizing<String>,
}

impl Line {
    /// That of a resource.
    pub fn of(context: &Context<'_>) -> Self {
        Self {
            base: context.settings.base().unwrap_or_default(),
            made: context.made,
            hosts: context.hosts.cloned(),
            private: context.private,
            allow_http: context.allow_http,
            tls: context.tls.cloned(),
            connect: context.connect,
            queue: context.queue,
            time: context.head.min(PATIENCE),
            known: Mutex::default(),
            named: Mutex::new(vec![context.origin.host().to_owned()]),
        }
    }

    /// The base URL without a trailing slash.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// Notes the host of a URL that is written down, but for its path.
    pub fn name(&self, url: &str) {
        let rest = url.find("://").map_or(url.len(), |at| at + 3);
        let end = url[rest..].find(['/', '?', '#']).map_or(url.len(), |at| rest + at);
        if let Ok((origin, _)) = Origin::of(&url[..end]) {
            let mut named = self.named.lock().unwrap_or_else(PoisonError::into_inner);
            if named.len() < NAMED_MAX {
                named.push(origin.host().to_owned());
            }
        }
    }

    /// The hosts that are written down: the resource's own and those of URLs.
    pub fn named(&self) -> Vec<String> {
        self.named.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Judges where a URL leads. A host that a template or a capture has made is under `hosts`, and its address is public
    /// unless `allow_private` says otherwise; one that is written out is allowed by being there.
    ///
    /// # Errors
    /// [`Unreachable::Forbidden`] with the reason.
    pub fn lead(&self, made: &Made) -> Result<Spot, Error> {
        let (origin, rest) = Origin::of(&made.text).map_err(|why| forbidden(&format!("it is no URL: {why}")))?;
        if !origin.is_safe(self.allow_http) {
            return Err(forbidden("a credential would travel over plain http, and `allow_http` is not set"));
        }
        if made.host && !self.hosts.as_ref().is_some_and(|hosts| hosts.allow(&origin)) {
            return Err(forbidden("`hosts` of the resource does not allow that host"));
        }
        let path = rest.split('?').next().unwrap_or_default();
        if crate::path::check(path).is_err() || rest.parse::<http::uri::PathAndQuery>().is_err() && !rest.is_empty() {
            return Err(forbidden("its path could be read in two ways"));
        }
        let from_base = self.made && made.text.starts_with(&*self.base);
        let reach = if made.host || from_base { Reach::Made { private: self.private } } else { Reach::Written };
        let target = if rest.starts_with('/') { rest.to_owned() } else { format!("/{rest}") };
        Ok(Spot { upstream: self.upstream(origin, reach)?, target: Zeroizing::new(target) })
    }

    /// The connections to a server; those of the one that was met first go where there are too many.
    fn upstream(&self, origin: Origin, reach: Reach) -> Result<Arc<Upstream>, Error> {
        let name = format!("{origin} {reach:?}");
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, upstream)) = known.iter().find(|(n, _)| *n == name) {
            return Ok(upstream.clone());
        }
        let pool = net::pool::Config::read(None, origin.is_https(), &Problems::default());
        let pool = pool.ok_or_else(|| Error::Internal("no connections can be had".into()))?;
        let upstream = Arc::new(Upstream::new(origin, self.tls.clone(), pool, self.connect, self.queue).reaching(reach));
        if known.len() == KNOWN_MAX {
            known.remove(0).1.retire();
        }
        known.push((name, upstream.clone()));
        Ok(upstream)
    }

    /// Sends a request and reads the answer, of which at most `bytes`.
    ///
    /// # Errors
    /// Why there is no answer.
    pub async fn send(&self, spot: &Spot, request: Request<Bytes>, bytes: u64) -> Result<Response<Bytes>, Error> {
        net::fetch(&spot.upstream, request, Bounds { time: self.time, bytes }).await
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let known = self.known.get_mut().unwrap_or_else(PoisonError::into_inner);
        known.iter().for_each(|(_, upstream)| upstream.retire());
    }
}

impl Spot {
    /// The server.
    pub fn origin(&self) -> &Origin {
        self.upstream.origin()
    }

    /// The path without the query.
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or("/")
    }

    /// Appends encoded pairs to the query.
    pub fn append(&mut self, pairs: &str) {
        if !pairs.is_empty() {
            let mark = if self.target.contains('?') { '&' } else { '?' };
            self.target.push(mark);
            self.target.push_str(pairs);
        }
    }
}

fn forbidden(why: &str) -> Error {
    Error::Unreachable(Unreachable::Forbidden(why.to_owned()))
}
