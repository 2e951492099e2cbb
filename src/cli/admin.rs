//! The running gateway's admin API, for commands that ask it something. It is found, and its token known, by the same
//! configuration that the gateway runs on.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, Uri};
use serde_json::Value;
use zeroize::Zeroizing;

use crate::config::Plan;
use crate::connect::reachable;
use crate::error::Error;
use crate::net::{self, Background, Bounds, Origin, Upstream};
use crate::secret::Secret;
use crate::store::{self, Make};
use crate::tree::Problems;

/// How long the running gateway has for its answer.
const PATIENCE: Duration = Duration::from_secs(40);
/// Largest answer: some thousand grants.
const ANSWER_MAX: u64 = 4 << 20;

/// The admin API of the gateway that runs on a configuration.
#[derive(Debug)]
pub struct Admin {
    address: SocketAddr,
    token: Option<Secret>,
}

impl Admin {
    /// That of this plan.
    ///
    /// # Errors
    /// Why there is none, for people.
    pub fn of(plan: &Plan) -> Result<Self, String> {
        let address = plan.listening.admin.ok_or("the gateway has no admin listener; add admin: { listen: 127.0.0.1:8081 }")?;
        let token = match &plan.listening.token {
            Some(token) => Some(token.clone()),
            // Whoever may not read the gateway's own token may still look.
            None => store::own_token(&plan.store, Make::Never).unwrap_or(None),
        };
        // Nobody listens on "any address": it is this machine that is meant.
        Ok(Self { address: reachable(address), token })
    }

    /// Asks and returns the answer, which must be a good one.
    ///
    /// # Errors
    /// Why there is none, for people.
    pub fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, String> {
        let answer = self.send(method, path, body).map_err(|error| format!("{}: {}", self.address, error.cause()))?;
        let status = answer.status();
        let value: Option<Value> = serde_json::from_slice(answer.body()).ok();
        match value {
            Some(value) if status.is_success() => Ok(value),
            Some(problem) if problem["code"].is_string() => {
                let part = |name: &str| problem[name].as_str().unwrap_or_default().to_owned();
                Err(format!("{} {}", part("detail"), part("hint")).trim_end().to_owned())
            }
            _ => Err(format!("{} answered {status}: is it this gateway, and admin.token the same?", self.address)),
        }
    }

    fn send(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Response<Bytes>, Error> {
        let internal = |error: std::io::Error| Error::Internal(error.to_string());
        let origin = Origin::parse("http", &self.address.to_string()).map_err(|why| Error::Internal(why.into()))?;
        let config = net::pool::Config::read(None, false, &Problems::default()).ok_or_else(|| Error::Internal("no connection".into()))?;
        let mut request = Request::new(body.map_or_else(Bytes::new, |body| body.to_string().into()));
        *request.method_mut() = method;
        *request.uri_mut() = path.parse::<Uri>().map_err(|_| Error::Internal("the path cannot be written".into()))?;
        if body.is_some() {
            request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        if let Some(token) = &self.token {
            let text = Zeroizing::new(["Bearer ", token.expose()].concat());
            let value = HeaderValue::from_str(&text).map_err(|_| Error::Internal("admin.token cannot be sent in a header".into()))?;
            request.headers_mut().insert(AUTHORIZATION, value);
        }
        let background = Background::start().map_err(internal)?;
        let runtime = tokio::runtime::Builder::new_current_thread().build().map_err(internal)?;
        runtime.block_on(background.run(move || async move {
            let upstream = Arc::new(Upstream::new(origin, None, config, PATIENCE, PATIENCE));
            net::fetch(&upstream, request, Bounds { time: PATIENCE, bytes: ANSWER_MAX }).await
        }))
    }
}
