//! The live resources: what the configuration's plan becomes when it runs.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use tokio::sync::Semaphore;

use crate::config::resource::Plan;
use crate::error::Error;
use crate::middleware::Route;
use crate::middleware::forward::{Forward, Timeouts};
use crate::middleware::in_flight::InFlight;
use crate::middleware::shape::Shape;
use crate::middleware::sign::Sign;
use crate::path::{self, Glob};
use crate::secret::Mask;
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
    /// `limits.request_body`.
    pub request_body: Option<u64>,
    /// `timeouts.total`.
    pub total: Option<Duration>,
    default: Route,
    branches: Vec<Branch>,
}

/// The steps of one resource, outermost first. `None` passes straight through.
#[derive(Debug)]
pub struct Steps {
    /// What the upstream is to see.
    pub shape: Shape,
    /// How many calls may be under way.
    pub in_flight: Option<InFlight>,
    /// What the gateway presents.
    pub sign: Option<Sign>,
    /// The way there.
    pub forward: Forward,
}

#[derive(Debug)]
struct Branch {
    path: Glob,
    methods: Vec<Method>,
    route: Route,
}

impl Snapshot {
    /// Builds what the plans say. `compose` puts the steps of a resource in order.
    pub fn new(version: &str, environment: Option<Arc<str>>, plans: Vec<Plan>, compose: fn(Steps) -> Route) -> Self {
        let resources = plans.into_iter().map(|plan| (plan.name.as_ref().into(), Arc::new(Resource::new(plan, compose)))).collect();
        Self { version: version.into(), environment, resources, anonymous: "anonymous".into() }
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

impl Resource {
    fn new(plan: Plan, compose: fn(Steps) -> Route) -> Self {
        let slots = plan.limits.in_flight.map(|n| Arc::new(Semaphore::new(n)));
        let build = |variant: crate::config::resource::Variant| {
            let timeouts =
                Timeouts { head: variant.timeouts.head, idle: variant.timeouts.idle, idle_written: variant.timeouts.idle_written };
            compose(Steps {
                shape: variant.shape,
                in_flight: slots.clone().map(|slots| InFlight::new(slots, variant.timeouts.queue)),
                sign: variant.auth.map(|auth| Sign::new(auth, plan.limits.buffer)),
                forward: Forward::new(plan.upstream.clone(), timeouts, plan.limits.response_body, plan.websocket),
            })
        };
        let branches = plan.branches.into_iter().map(|b| Branch { path: b.path, methods: b.methods, route: build(b.variant) }).collect();
        Self {
            name: plan.name,
            counts: Arc::default(),
            mask: plan.mask,
            request_body: plan.limits.request_body,
            total: plan.variant.timeouts.total,
            default: build(plan.variant),
            branches,
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
