//! `postern explain`: takes a request through the very stack that would serve it, and shows what the upstream would get,
//! redacted, with who said each part of it. Nothing is sent.

mod said;
mod wire;

use std::net::{IpAddr, Ipv4Addr};

use http::Method;
use serde_json::{Value, json};

use self::said::{From, Said};
use self::wire::{Known, Wire};
use super::{Cli, fail, plan, print};
use crate::auth::{Auth, Owned};
use crate::config::Plan;
use crate::config::listen::Address;
use crate::secret::Mask;
use crate::server::rehearsal::rehearse;
use crate::stack::Peer;
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

/// The client's request.
struct Request {
    method: String,
    host: String,
    target: String,
    fields: Vec<(String, String)>,
    body: Vec<u8>,
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
    let request = match Request::of(args, &plan) {
        Ok(request) => request,
        Err(why) => return fail(cli, &why),
    };
    let name = request.resource().to_owned();
    let resource = plan.resources.iter().find(|r| *r.name == *name);
    let chosen = resource.and_then(|r| r.branch(&Method::from_bytes(request.method.as_bytes()).ok()?, request.rest(&name)));
    let variant = resource.map(|r| chosen.and_then(|at| r.branches.get(at)).map_or(&r.variant, |branch| &branch.variant));
    let owned = variant.and_then(|v| v.auth.as_ref()).map_or_else(Owned::default, Auth::owns);
    let origin = resource.map(|r| r.upstream.origin().to_string()).unwrap_or_default();
    let mask = resource.and_then(|r| r.mask.clone()).unwrap_or_default();
    let environment = plan.environment.clone();
    let node = outcome.tree.as_ref().and_then(|tree| tree.get("resources")?.get(&name));
    let route = chosen.and_then(|at| Some((at, node?.get("routes").map(Node::items)?.get(at)?)));
    let vars = [outcome.tree.as_ref().and_then(|tree| tree.get("vars")), node.and_then(|node| node.get("vars"))];
    let secret_vars = vars.into_iter().any(said::holds_secret);
    let said = Said { files: &outcome.files, resource: &name, node, secret_vars, route };
    let peer = peer(&plan);
    let rehearsal = match rehearse(plan, peer, request.bytes()) {
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
        refusal: refusal(&rehearsal.answer),
    };
    print(&if cli.json { format!("{}\n", explained.json()) } else { explained.text() })
}

fn resource_name<'n>(name: &'n str, node: Option<&Node>) -> Option<&'n str> {
    node.map(|_| name)
}

/// The client as the first listener would see it: from this machine.
fn peer(plan: &Plan) -> Peer {
    let loopback = match plan.listening.server.listen.first().map(|l| &l.address) {
        Some(Address::Tcp(address)) => address.ip().to_canonical().is_loopback(),
        _ => false,
    };
    Peer { ip: Some(IpAddr::from(Ipv4Addr::LOCALHOST)), tls: false, loopback, certificate: None }
}

impl Request {
    fn of(args: &Args, plan: &Plan) -> Result<Self, String> {
        let rest = args.url.split_once("://").map_or(args.url.as_str(), |(_, rest)| rest);
        let (host, target) = match rest.find('/') {
            Some(0) => (String::new(), rest.to_owned()),
            Some(at) => (rest[..at].to_owned(), rest[at..].to_owned()),
            None => return Err(format!("`{}` is no URL: /r/<resource>/<path>, or the gateway's whole URL", args.url)),
        };
        let host = if host.is_empty() { own_host(plan) } else { host };
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
        Ok(Self { method: args.method.clone(), host, target, fields, body })
    }

    /// The name of the resource that the path asks for.
    fn resource(&self) -> &str {
        let path = self.target.split('?').next().unwrap_or_default();
        path.strip_prefix("/r/").map_or("", |rest| rest.split('/').next().unwrap_or_default())
    }

    /// The path behind the resource.
    fn rest(&self, resource: &str) -> &str {
        let path = self.target.split('?').next().unwrap_or_default();
        path.strip_prefix("/r/").and_then(|rest| rest.strip_prefix(resource)).unwrap_or_default()
    }

    /// As it goes over the wire.
    fn bytes(&self) -> Vec<u8> {
        let given = |name: &str| self.fields.iter().any(|(n, _)| n.eq_ignore_ascii_case(name));
        let mut head = format!("{} {} HTTP/1.1\r\n", self.method, self.target);
        if !given("host") {
            head.push_str(&format!("Host: {}\r\n", self.host));
        }
        for (name, value) in &self.fields {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if !self.body.is_empty() && !given("content-length") && !given("transfer-encoding") {
            head.push_str(&format!("Content-Length: {}\r\n", self.body.len()));
        }
        head.push_str("\r\n");
        [head.as_bytes(), &self.body].concat()
    }
}

/// How the gateway is called where the URL does not say.
fn own_host(plan: &Plan) -> String {
    match plan.listening.server.listen.first().map(|l| &l.address) {
        Some(Address::Tcp(address)) if !address.ip().is_unspecified() => address.to_string(),
        _ => "localhost".into(),
    }
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

/// Why the gateway answers by itself.
fn refusal(answer: &[u8]) -> Option<Value> {
    let text = String::from_utf8_lossy(answer);
    let (head, body) = text.split_once("\r\n\r\n")?;
    let is_problem = head.to_ascii_lowercase().contains("application/problem+json");
    // Of chunks only the one with the problem is of interest.
    let body = &body[body.find('{')?..=body.rfind('}')?];
    is_problem.then(|| serde_json::from_str(body).ok())?
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
