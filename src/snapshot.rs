//! The live resources: what the configuration's plan becomes when it runs.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use tokio::sync::Semaphore;

use crate::auth::Auth;
use crate::auth::merge::Merge;
use crate::body::Pace;
use crate::config::resource::{Consenting, Plan};
use crate::config::{self, listen};
use crate::digest::Digest;
use crate::error::Error;
use crate::fill::Fills;
use crate::middleware::Route;
use crate::middleware::accounts::Accounts;
use crate::middleware::follow::Follow;
use crate::middleware::forward::{Forward, Timeouts};
use crate::middleware::in_flight::InFlight;
use crate::middleware::prepare::Prepare;
use crate::middleware::reflect::Reflect;
use crate::middleware::shape::Shape;
use crate::middleware::sign::Sign;
use crate::middleware::site::Site;
use crate::net::Upstream;
use crate::net::base::Base;
use crate::path::{self, Glob};
use crate::secret::{Mask, Secret};
use crate::telemetry::Counts;

/// All resources of one version of the configuration.
#[derive(Debug)]
pub struct Snapshot {
    /// The version, for the audit record.
    pub version: Arc<str>,
    /// The environment that applies, for the audit record.
    pub environment: Option<Arc<str>>,
    /// By name.
    pub resources: HashMap<Box<str>, Arc<Resource>>,
    /// The name of a caller who need not identify.
    pub anonymous: Arc<str>,
    /// What holds for all requests.
    pub common: Common,
}

/// What holds for all requests of one version of the configuration, whatever they name.
#[derive(Debug)]
pub struct Common {
    /// Limits of a client's body (`server.limits`, `server.timeouts`).
    pub pace: Pace,
    /// `server.limits.body`.
    pub body: Option<u64>,
    /// Which browsers' requests are refused.
    pub site: Site,
    /// The gateway's origin as others see it (`server.public_url`).
    pub public: Option<String>,
    /// `admin.token`.
    pub token: Option<Secret>,
    /// Finds the secrets that belong to no resource.
    pub mask: Arc<Mask>,
}

/// How a snapshot differs from the one before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// Resources that are new.
    pub added: usize,
    /// Resources that were built anew.
    pub changed: usize,
    /// Resources that are gone.
    pub removed: usize,
}

/// One resource as it runs.
#[derive(Debug)]
pub struct Resource {
    /// Its name.
    pub name: Arc<str>,
    /// Its figures.
    pub counts: Arc<Counts>,
    /// Finds its secrets by value; none where it has no secret.
    pub mask: Option<Arc<Mask>>,
    /// Its accounts, where a person gives them.
    pub consent: Option<Consenting>,
    /// `limits.request_body`.
    pub request_body: Option<u64>,
    /// `timeouts.total`.
    pub total: Option<Duration>,
    default: Route,
    branches: Vec<Branch>,
    /// What it was built from.
    digest: Digest,
    pool: Digest,
    upstream: Arc<Upstream>,
    /// For routes with another client certificate.
    apart: Vec<Arc<Upstream>>,
    slots: Option<(usize, Arc<Semaphore>)>,
}

/// The steps of one resource, outermost first. `None` passes straight through.
#[derive(Debug)]
pub struct Steps {
    /// Whose account it is.
    pub accounts: Option<Accounts>,
    /// What the upstream is to see.
    pub shape: Shape,
    /// What the signature demands of the request's shape.
    pub prepare: Option<Prepare>,
    /// How many calls may be under way.
    pub in_flight: Option<InFlight>,
    /// Which redirects are followed.
    pub follow: Option<Follow>,
    /// What the gateway presents.
    pub sign: Option<Sign>,
    /// Who looks whether it comes back.
    pub reflect: Option<Reflect>,
    /// The way there.
    pub forward: Forward,
}

/// Whatever is done for each attempt; none where there is nothing to do.
fn sign(auth: Option<Auth>, fills: Option<Fills>, merge: Option<Arc<Merge>>, base: Option<Arc<Base>>, buffer: u64) -> Option<Sign> {
    if auth.is_none() && fills.is_none() && merge.is_none() && base.is_none() {
        return None;
    }
    Some(Sign::new(auth.unwrap_or_else(Auth::nothing), buffer).filling(fills).merging(merge).leading(base))
}

#[derive(Debug)]
struct Branch {
    path: Glob,
    methods: Vec<Method>,
    route: Route,
}

impl Snapshot {
    /// Builds what the plan says. `compose` puts the steps of a resource in order.
    pub fn new(plan: config::Plan, compose: fn(Steps) -> Route) -> Self {
        let none = Self {
            version: "".into(),
            environment: None,
            resources: HashMap::new(),
            anonymous: "anonymous".into(),
            common: Common::new(&plan.listening.server, None, Arc::default()),
        };
        none.next(plan, compose).0
    }

    /// Builds what the plan says upon what there is: a resource that is built from the same is the same, with all that it
    /// has learnt and counted. One that has changed keeps its figures, its places under an unchanged `limits.in_flight`,
    /// and its connections if nothing about them has changed.
    pub fn next(&self, plan: config::Plan, compose: fn(Steps) -> Route) -> (Self, Difference) {
        let config::Plan { version, environment, listening, resources: plans, mask, .. } = plan;
        let mut difference = Difference::default();
        let mut kept = 0;
        let mut resources = HashMap::with_capacity(plans.len());
        for plan in plans {
            let before = self.resources.get(&*plan.name);
            let resource = match before {
                Some(before) if before.digest == plan.digest => {
                    kept += 1;
                    before.clone()
                }
                Some(before) => {
                    difference.changed += 1;
                    Arc::new(Resource::new(plan, Some(before), compose))
                }
                None => {
                    difference.added += 1;
                    Arc::new(Resource::new(plan, None, compose))
                }
            };
            resources.insert(resource.name.as_ref().into(), resource);
        }
        difference.removed = self.resources.len() - kept - difference.changed;
        let common = Common::new(&listening.server, listening.token, Arc::new(mask));
        (Self { version: version.into(), environment, resources, anonymous: self.anonymous.clone(), common }, difference)
    }

    /// Whether a resource was built anew since `before`.
    pub fn has_changed(&self, name: &str, before: &Self) -> bool {
        match (self.resources.get(name), before.resources.get(name)) {
            (Some(now), Some(then)) => !Arc::ptr_eq(now, then),
            _ => true,
        }
    }

    /// Closes gently what only `self` leads to, once `next` has taken its place.
    pub fn retire(&self, next: &Self) {
        for (name, before) in &self.resources {
            if next.resources.get(name).is_none_or(|after| !Arc::ptr_eq(&before.upstream, &after.upstream)) {
                before.upstream.retire();
                before.apart.iter().for_each(|upstream| upstream.retire());
            }
        }
    }

    /// Some of the names, for a hint.
    pub fn known(&self, most: usize) -> String {
        let mut names: Vec<&str> = self.resources.keys().map(AsRef::as_ref).collect();
        names.sort_unstable();
        let more = names.len() > most;
        names.truncate(most);
        let mut text = names.join(", ");
        if more {
            text.push_str(", …");
        }
        text
    }
}

impl Common {
    fn new(server: &listen::Server, token: Option<Secret>, mask: Arc<Mask>) -> Self {
        Self {
            pace: Pace { idle: server.timeouts.body_idle, rate: server.limits.min_body_rate, grace: server.limits.min_body_rate_grace },
            body: server.limits.body,
            site: Site::new(server.public_url.clone(), &server.origins),
            public: server.public_url.clone(),
            token,
            mask,
        }
    }
}

impl Resource {
    fn new(plan: Plan, before: Option<&Arc<Self>>, compose: fn(Steps) -> Route) -> Self {
        let kept = before.and_then(|b| b.slots.clone()).filter(|(n, _)| plan.limits.in_flight == Some(*n));
        let slots = kept.or_else(|| plan.limits.in_flight.map(|n| (n, Arc::new(Semaphore::new(n)))));
        let (upstream, apart) = match before.filter(|b| b.pool == plan.pool) {
            Some(before) => (before.upstream.clone(), before.apart.clone()),
            None => (plan.upstream, plan.apart),
        };
        let mask = plan.mask.clone();
        let consent = plan.consent;
        let build = |variant: crate::config::resource::Variant| {
            let timeouts =
                Timeouts { head: variant.timeouts.head, idle: variant.timeouts.idle, idle_written: variant.timeouts.idle_written };
            let upstream = variant.apart.and_then(|at| apart.get(at)).unwrap_or(&upstream);
            let consents = variant.auth.as_ref().is_some_and(|auth| auth.consents().next().is_some());
            compose(Steps {
                accounts: consent.as_ref().filter(|_| consents).map(|c| Accounts::new(c.owner.clone(), c.bond.clone(), c.by, &c.tokens)),
                shape: variant.shape,
                prepare: variant.auth.as_ref().and_then(Prepare::new),
                in_flight: slots.clone().map(|(_, slots)| InFlight::new(slots, variant.timeouts.queue)),
                follow: variant.follow,
                reflect: Reflect::new(plan.reflection, mask.clone(), variant.auth.as_ref())
                    .map(|reflect| reflect.seeing(variant.fills.as_ref())),
                sign: sign(variant.auth, variant.fills, variant.merge, plan.late.clone(), plan.limits.buffer),
                forward: Forward::new(upstream.clone(), timeouts, plan.limits.response_body, plan.websocket),
            })
        };
        let branches = plan.branches.into_iter().map(|b| Branch { path: b.path, methods: b.methods, route: build(b.variant) }).collect();
        Self {
            name: plan.name,
            counts: before.map(|b| b.counts.clone()).unwrap_or_default(),
            mask: plan.mask,
            consent: consent.clone(),
            request_body: plan.limits.request_body,
            total: plan.variant.timeouts.total,
            default: build(plan.variant),
            branches,
            digest: plan.digest,
            pool: plan.pool,
            upstream,
            apart,
            slots,
        }
    }

    /// The route for this request: the first whose path and methods match, else the resource's own (ruling G2).
    ///
    /// # Errors
    /// [`Error::BadPath`] where different readings of the path select different routes (ruling A6).
    pub fn route(&self, method: &Method, path: &str) -> Result<&Route, Error> {
        if self.branches.is_empty() {
            return Ok(&self.default);
        }
        let globs = self.branches.iter().filter(|b| b.methods.is_empty() || b.methods.contains(method)).map(|b| (&b.path, &b.route));
        let chosen = path::select(path, globs)?;
        Ok(chosen.unwrap_or(&self.default))
    }
}
