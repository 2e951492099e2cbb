//! `postern token`: the life of every token of the running gateway, asked on its admin listener. It shows no token.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{HeaderValue, Request, Response, StatusCode};
use serde_json::Value;
use zeroize::Zeroizing;

use super::list::columns;
use super::{Cli, FAILURE, plan, print};
use crate::error::Error;
use crate::net::{self, Background, Bounds, Origin, Upstream};
use crate::secret::Secret;
use crate::tree::Problems;

/// How long the running gateway has for its answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Largest answer: some thousand grants.
const ANSWER_MAX: u64 = 4 << 20;

/// What `postern token` takes.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only the grants of this resource.
    resource: Option<String>,
}

/// Asks and prints, and returns the exit code.
pub fn run(cli: &Cli, args: &Args) -> u8 {
    let plan = match plan(cli) {
        Ok((plan, _)) => plan,
        Err(code) => return code,
    };
    let Some(address) = plan.listening.admin else {
        return failed("the gateway has no admin listener; add admin: { listen: 127.0.0.1:8081 }");
    };
    let answer = match ask(address, plan.listening.token) {
        Ok(answer) => answer,
        Err(error) => return failed(&format!("{address}: {}", error.cause())),
    };
    if answer.status() != StatusCode::OK {
        return failed(&format!("{address} answered {}: is it this gateway, and admin.token the same?", answer.status()));
    }
    let Ok(Value::Object(mut body)) = serde_json::from_slice(answer.body()) else { return failed("the answer is not JSON") };
    let Some(Value::Array(mut tokens)) = body.remove("tokens") else { return failed("the answer holds no tokens") };
    if let Some(resource) = &args.resource {
        tokens.retain(|token| token["resource"] == resource.as_str());
    }
    if cli.json {
        return print(&format!("{}\n", Value::Array(tokens)));
    }
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    };
    let rows = tokens.iter().map(|t| {
        let age = t["age"].as_u64().map_or_else(String::new, |age| format!("{age}s"));
        let next = t["next_attempt"].as_str().map_or_else(String::new, |at| format!(" (next attempt {at})"));
        [text(&t["resource"]), text(&t["scheme"]), text(&t["state"]) + &next, age, text(&t["expires"]), text(&t["last_error"]["what"])]
    });
    print(&columns(["RESOURCE", "SCHEME", "STATE", "AGE", "EXPIRES", "LAST ERROR"], rows.collect()))
}

fn failed(why: &str) -> u8 {
    eprintln!("error: {why}");
    FAILURE
}

fn ask(address: SocketAddr, token: Option<Secret>) -> Result<Response<Bytes>, Error> {
    let internal = |error: std::io::Error| Error::Internal(error.to_string());
    // Nobody listens on "any address": it is this machine that is meant.
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    let origin = Origin::parse("http", &SocketAddr::new(ip, address.port()).to_string()).map_err(|why| Error::Internal(why.into()))?;
    let config = net::pool::Config::read(None, false, &Problems::default()).ok_or_else(|| Error::Internal("no connection".into()))?;
    let mut request = Request::new(Bytes::new());
    *request.uri_mut() = http::Uri::from_static("/api/tokens");
    if let Some(token) = token {
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
