//! `postern token`: the life of every token of the running gateway, asked on its admin listener. It shows no token.

use http::Method;
use serde_json::Value;

use super::admin::Admin;
use super::list::columns;
use super::{Cli, FAILURE, plan, print};

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
    let answer = Admin::of(&plan).and_then(|admin| admin.ask(Method::GET, "/api/tokens", None));
    let mut body = match answer {
        Ok(answer) => answer,
        Err(why) => return failed(&why),
    };
    let Some(Value::Array(mut tokens)) = body.as_object_mut().and_then(|body| body.remove("tokens")) else {
        return failed("the answer holds no tokens");
    };
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
        let of = t["client"].as_str().map_or_else(String::new, |client| format!(" for {client}"));
        [
            text(&t["resource"]),
            text(&t["scheme"]) + &of,
            text(&t["state"]) + &next,
            age,
            text(&t["expires"]),
            text(&t["last_error"]["what"]),
        ]
    });
    print(&columns(["RESOURCE", "SCHEME", "STATE", "AGE", "EXPIRES", "LAST ERROR"], rows.collect()))
}

fn failed(why: &str) -> u8 {
    eprintln!("error: {why}");
    FAILURE
}
