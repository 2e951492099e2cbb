//! `postern explain`: takes a request through the very stack that would serve it, and shows what the upstream would get,
//! redacted, with who said each part of it. Nothing is sent.

mod said;
mod wire;

use http::Method;
use serde_json::{Value, json};

use self::said::{From, Said};
use self::wire::{Known, Wire};
use super::client::{Reply, Request, own_host, peer};
use super::{Cli, fail, plan, print};
use crate::auth::{Auth, Owned};
use crate::config::Plan;
use crate::secret::Mask;
use crate::server::rehearsal::Inside;
use crate::tree::Node;

/// Largest body that `-d @FILE` reads.
const BODY_MAX: u64 = 64 << 20;
/// Who may call where no client is configured.
const ANYBODY: &str = "no clients and no policies are configured: whoever reaches the listener may call";

/// What `postern explain` takes.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The method: GET.
    method: String,
    /// What the client would call: `/r/<resource>/<path>`, or the gateway's whole URL.
    url: String,
    /// A field that the client sends, `Name: value`. May be given several times.
    #[arg(short = 'H', long = "header", value_name = "FIELD")]
    headers: Vec<String>,
    /// The body that the client sends; `@FILE` reads it, `@-` from standard input.
    #[arg(short, long, value_name = "BODY")]
    data: Option<String>,
    /// Who the client is.
    #[arg(long, value_name = "NAME")]
    client: Option<String>,
}

/// Explains, and returns the exit code.
pub fn run(cli: &Cli, args: &Args) -> u8 {
    if let Some(name) = args.client.as_deref().filter(|name| *name != "anonymous") {
        return fail(cli, &format!("there is no client `{name}`: clients are not built into this version"));
    }
    let (plan, outcome) = match plan(cli) {
        Ok(planned) => planned,
        Err(code) => return code,
    };
    let request = match request(args, &plan) {
        Ok(request) => request,
        Err(why) => return fail(cli, &why),
    };
    let (name, rest) = named(&request.target);
    let name = name.to_owned();
    let resource = plan.resources.iter().find(|r| *r.name == *name);
    let chosen = resource.and_then(|r| r.branch(&Method::from_bytes(request.method.as_bytes()).ok()?, rest));
    let variant = resource.map(|r| chosen.and_then(|at| r.branches.get(at)).map_or(&r.variant, |branch| &branch.variant));
    let owned = variant.and_then(|v| v.auth.as_ref()).map_or_else(Owned::default, Auth::owns);
    // One that only a token brings is shown as it is written.
    let whole = |r: &crate::config::resource::Plan| if r.late.is_some() { r.base_url.clone() } else { r.upstream.origin().to_string() };
    let origin = resource.map(whole).unwrap_or_default();
    let mask = resource.and_then(|r| r.mask.clone()).unwrap_or_default();
    let environment = plan.environment.clone();
    let node = outcome.tree.as_ref().and_then(|tree| tree.get("resources")?.get(&name));
    let route = chosen.and_then(|at| Some((at, node?.get("routes").map(Node::items)?.get(at)?)));
    let vars = [outcome.tree.as_ref().and_then(|tree| tree.get("vars")), node.and_then(|node| node.get("vars"))];
    let secret_vars = vars.into_iter().any(said::holds_secret);
    let said = Said { files: &outcome.files, resource: &name, node, secret_vars, route };
    let peer = peer(&plan);
    let rehearsal = match Inside::sealed(plan, peer).and_then(|inside| inside.rehearse(&request.bytes())) {
        Ok(rehearsal) => rehearsal,
        Err(error) => return fail(cli, &format!("the request cannot be tried: {error}")),
    };
    let query = request.target.split_once('?').map(|(_, query)| wire::pairs(query)).unwrap_or_default();
    let exact = Mask::exact(&said.secrets());
    let known = Known { said: &said, owned: &owned, client: &request.fields, query: &query, mask: &mask, exact: &exact };
    let wire = rehearsal.sent.first().and_then(|bytes| wire::dissect(bytes, &known));
    let explained = Explained {
        wire,
        origin,
        said: &said,
        resource: resource_name(&name, node),
        environment: environment.as_deref(),
        refusal: Reply::parse(&rehearsal.answer).and_then(|reply| reply.problem()),
    };
    print(&if cli.json { format!("{}\n", explained.json()) } else { explained.text() })
}

fn resource_name<'n>(name: &'n str, node: Option<&Node>) -> Option<&'n str> {
    node.map(|_| name)
}

/// The client's request, as the command line says it.
fn request(args: &Args, plan: &Plan) -> Result<Request, String> {
    let rest = args.url.split_once("://").map_or(args.url.as_str(), |(_, rest)| rest);
    let (host, target) = match rest.find('/') {
        Some(0) => (own_host(plan), rest.to_owned()),
        Some(at) => (rest[..at].to_owned(), rest[at..].to_owned()),
        None => return Err(format!("`{}` is no URL: /r/<resource>/<path>, or the gateway's whole URL", args.url)),
    };
    let mut fields = Vec::new();
    for field in &args.headers {
        let (name, value) = field.split_once(':').ok_or_else(|| format!("`{field}` is no field: -H 'Name: value'"))?;
        fields.push((name.trim().to_owned(), value.trim().to_owned()));
    }
    let body = match args.data.as_deref() {
        None => Vec::new(),
        Some(data) => match data.strip_prefix('@') {
            None => data.as_bytes().to_vec(),
            Some(file) => read(file).map_err(|error| format!("{file}: {error}"))?,
        },
    };
    // What could not stand in a request line or a field is for the gateway to refuse, but not to be taken for another.
    let whole = [args.method.as_str(), &host, &target].into_iter().chain(args.headers.iter().map(String::as_str));
    if whole.into_iter().any(|text| text.contains(['\r', '\n', '\0'])) || args.method.contains(' ') || target.contains(' ') {
        return Err("the method, the URL or a field holds what cannot be sent; percent-encode it".into());
    }
    Ok(Request { method: args.method.clone(), host, target, fields, body })
}

/// The name of the resource that the path asks for, and the path behind it.
fn named(target: &str) -> (&str, &str) {
    let path = target.split('?').next().unwrap_or_default();
    let rest = path.strip_prefix("/r/").unwrap_or_default();
    rest.split_at(rest.find('/').unwrap_or(rest.len()))
}

fn read(file: &str) -> std::io::Result<Vec<u8>> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    let read = match file {
        "-" => std::io::stdin().lock().take(BODY_MAX + 1).read_to_end(&mut bytes)?,
        file => std::fs::File::open(file)?.take(BODY_MAX + 1).read_to_end(&mut bytes)?,
    };
    if read as u64 > BODY_MAX { Err(std::io::ErrorKind::FileTooLarge.into()) } else { Ok(bytes) }
}

struct Explained<'e> {
    wire: Option<Wire>,
    origin: String,
    said: &'e Said<'e>,
    resource: Option<&'e str>,
    environment: Option<&'e str>,
    refusal: Option<Value>,
}

impl Explained<'_> {
    fn base(&self) -> From {
        self.said.find(&["base_url"]).map_or(From::Gateway, |found| found.from)
    }

    fn json(&self) -> Value {
        let parts = |parts: &[wire::Part]| -> Vec<Value> {
            parts.iter().map(|p| json!({ "name": p.name.trim_end_matches('='), "value": p.value, "from": p.from.json() })).collect()
        };
        let request = self.wire.as_ref().map(|w| {
            json!({
                "method": w.method,
                "url": format!("{}{}", self.origin, w.target),
                "target": w.target,
                "from": self.base().json(),
                "headers": parts(&w.fields),
                "params": parts(&w.params),
                "body": w.body,
            })
        });
        json!({
            "forwarded": self.wire.is_some(),
            "resource": self.resource,
            "route": self.said.route().map(|found| found.from.json()),
            "environment": self.environment,
            "client": "anonymous",
            "rule": ANYBODY,
            "request": request,
            "refused": self.refusal,
        })
    }

    fn text(&self) -> String {
        let mut rows: Vec<(String, String)> = Vec::new();
        let mut text = String::new();
        match &self.wire {
            Some(wire) => {
                rows.push((format!("{} {}{}", wire.method, self.origin, wire.target), self.base().text()));
                rows.extend(wire.params.iter().map(|p| (format!("  ?{} = {}", p.name.trim_end_matches('='), p.value), p.from.text())));
                rows.extend(wire.fields.iter().map(|p| (format!("{}: {}", p.name, p.value), p.from.text())));
            }
            None => {
                let word = |key: &str| self.refusal.as_ref().and_then(|r| r[key].as_str()).unwrap_or_default().to_owned();
                let status = self.refusal.as_ref().map(|r| r["status"].to_string()).unwrap_or_default();
                text.push_str(&format!("refused: {status} {}: {}\n", word("code"), word("detail")));
                if !word("hint").is_empty() {
                    text.push_str(&format!("hint: {}\n", word("hint")));
                }
            }
        }
        let width = rows.iter().map(|(left, _)| left.chars().count()).filter(|n| *n <= 72).max().unwrap_or(0);
        for (left, right) in rows {
            text.push_str(&format!("{left:<width$}  # {right}\n"));
        }
        if let Some(wire) = self.wire.as_ref().filter(|w| !w.body.is_empty()) {
            text.push_str(&format!("\n{}\n", wire.body));
        }
        text.push('\n');
        if self.resource.is_some() {
            text.push_str(&format!("route: {}\n", self.said.route().map_or("the resource itself".to_owned(), |found| found.from.text())));
        }
        if let Some(environment) = self.environment {
            text.push_str(&format!("environment: {environment}\n"));
        }
        text.push_str(&format!("client: anonymous\nrule: {ANYBODY}\nnothing was sent\n"));
        text
    }
}
