//! The listening side of the configuration: `server`, `admin`, `health`, `connect`, `mock`, and how logs look.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use crate::net::{Cidr, Identity};
use crate::secret::Secret;
use crate::tree::{Fields, Folders, Node, Problems, Value};

/// hyper reads at most so many fields; its setter costs an allocation for each request (ruling H3).
const FIELDS_MAX: u64 = 100;
/// Head sizes beyond this have no use and cost memory for each connection.
const HEADER_BYTES_MAX: u64 = 256 << 10;
/// Most cores.
const WORKERS_MAX: u64 = 1024;

/// All of it.
#[derive(Clone, Debug)]
pub struct Root {
    /// `server`.
    pub server: Server,
    /// `admin.listen`, where there is one.
    pub admin: Option<SocketAddr>,
    /// `admin.token`, where there is one.
    pub token: Option<Secret>,
    /// `health.listen`, where there is one.
    pub health: Option<SocketAddr>,
    /// `connect.listen`, where there is one.
    pub connect: Option<SocketAddr>,
    /// `mock`, where there is one.
    pub mock: Option<Mock>,
    /// `telemetry.log`.
    pub log: Log,
}

/// `server`.
#[derive(Clone, Debug)]
pub struct Server {
    /// Where clients connect.
    pub listen: Vec<Listener>,
    /// Cores to use; none is all.
    pub workers: Option<usize>,
    /// The name in `Via`.
    pub name: String,
    /// The gateway's origin as others see it.
    pub public_url: Option<String>,
    /// Other origins whose pages may call (`cors.origins`).
    pub origins: Vec<String>,
    /// Whose word about a client's address is believed.
    pub trusted_proxies: Vec<Cidr>,
    /// `limits`.
    pub limits: Limits,
    /// How connections reach the cores.
    pub accept: Accept,
    /// `timeouts`.
    pub timeouts: Timeouts,
}

/// One listener.
#[derive(Clone, Debug)]
pub struct Listener {
    /// Its address.
    pub address: Address,
    /// TLS, where it speaks it.
    pub tls: Option<Identity>,
}

/// Where a listener listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// TCP.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix {
        /// Its path.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// Its group.
        group: Option<u32>,
    },
}

/// How connections reach the cores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accept {
    /// Each core accepts by itself (`SO_REUSEPORT`).
    Shared,
    /// One accepts and deals them in turn: for few, long-lived connections.
    RoundRobin,
}

/// `server.limits`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest head.
    pub header_bytes: usize,
    /// Most fields.
    pub headers: usize,
    /// Largest body.
    pub body: Option<u64>,
    /// Most connections.
    pub connections: usize,
    /// Most requests under way.
    pub in_flight: usize,
    /// Least bytes a second of a body; zero is off.
    pub min_body_rate: u64,
    /// Waiting that is free before the rate counts.
    pub min_body_rate_grace: Duration,
}

/// `server.timeouts`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// From the first byte of a head to its last.
    pub header: Duration,
    /// Silence within a body, and an answer left unread.
    pub body_idle: Duration,
    /// Until the first byte of the next head.
    pub idle: Duration,
    /// From TERM to the end.
    pub drain: Duration,
}

/// `mock`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mock {
    /// Where it listens.
    pub listen: SocketAddr,
    /// What its data grows from.
    pub seed: u64,
    /// Records in each collection.
    pub items: u64,
}

/// `telemetry.log`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Log {
    /// The least severe level that is shown.
    pub level: tracing::Level,
    /// Whether lines are JSON.
    pub json: bool,
}

impl std::fmt::Display for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.address {
            Address::Tcp(address) => write!(f, "{}://{address}", if self.tls.is_some() { "https" } else { "http" }),
            Address::Unix { path, .. } => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Reads all of it. `folders` says where relative paths begin.
pub fn read(fields: &Fields<'_>, folders: &Folders, problems: &Problems) -> Root {
    let server = server(fields.node("server"), folders, problems);
    let mut token = None;
    let mut one = |key: &'static str| {
        let fields = Fields::of(fields.node(key)?, "a map with `listen`", problems)?;
        if key == "admin" {
            token = fields.secret("token");
            if token.as_ref().is_some_and(Secret::is_empty) {
                problems.error(
                    fields.key_place("token"),
                    "the token is empty: anyone could present it",
                    "token: \"${env:POSTERN_ADMIN_TOKEN}\"",
                );
            }
        }
        let address = fields.need("listen").and_then(|n| socket(n, problems));
        fields.finish();
        address
    };
    let (admin, health, connect) = (one("admin"), one("health"), one("connect"));
    let mock = fields.node("mock").and_then(|n| mock(n, problems));
    let log = log(fields.node("telemetry"), problems);
    let root = Root { server, admin, token, health, connect, mock, log };
    clashes(&root, fields, problems);
    root
}

fn clashes(root: &Root, fields: &Fields<'_>, problems: &Problems) {
    let others = [("admin", root.admin), ("health", root.health), ("connect", root.connect), ("mock", root.mock.map(|m| m.listen))];
    let mut taken: Vec<SocketAddr> =
        root.server.listen.iter().filter_map(|l| if let Address::Tcp(a) = l.address { Some(a) } else { None }).collect();
    for (at, address) in taken.iter().enumerate() {
        if taken[..at].contains(address) && address.port() != 0 {
            problems.error(fields.key_place("server"), format!("{address} is listed twice"), "");
        }
    }
    for (key, address) in others {
        let Some(address) = address else { continue };
        if taken.contains(&address) && address.port() != 0 {
            problems.error(
                fields.key_place(key),
                format!("`{key}` listens on {address}, which is taken already"),
                "give it a port of its own",
            );
        }
        taken.push(address);
    }
}

fn server(node: Option<&Node>, folders: &Folders, problems: &Problems) -> Server {
    let empty = Node { place: node.map(|n| n.place).unwrap_or_default(), value: Value::Map(Vec::new()) };
    let node = node.unwrap_or(&empty);
    let fields = Fields::of(node, "a map of server settings", problems).unwrap_or_else(|| Fields::none(&empty, problems));
    let anonymous = fields.flag("allow_anonymous", false);
    let mut listen: Vec<Listener> = fields.items("listen").iter().filter_map(|n| listener(n, anonymous, folders, problems)).collect();
    if fields.node("listen").is_none() {
        listen.push(Listener { address: Address::Tcp(SocketAddr::from(([127, 0, 0, 1], 8080))), tls: None });
    } else if fields.items("listen").is_empty() {
        problems.error(fields.key_place("listen"), "`listen` is empty", "listen: \"127.0.0.1:8080\"");
    }
    let workers = match fields.node("workers") {
        None => None,
        Some(n) if n.word() == Some("auto") => None,
        Some(n) => n.count(problems).and_then(|count| {
            if (1..=WORKERS_MAX).contains(&count) {
                return usize::try_from(count).ok();
            }
            problems.error(n.place, format!("`workers` is `auto` or a number from 1 to {WORKERS_MAX}"), "");
            None
        }),
    };
    let server = Server {
        listen,
        workers,
        name: fields.node("name").and_then(|n| name(n, problems)).unwrap_or_else(|| own_name().to_owned()),
        public_url: fields.node("public_url").and_then(|n| origin(n, problems)),
        origins: fields.node("cors").map(|n| origins(n, problems)).unwrap_or_default(),
        trusted_proxies: fields.items("trusted_proxies").iter().filter_map(|n| cidr(n, problems)).collect(),
        limits: limits(fields.node("limits"), problems),
        accept: fields.choice("accept", &[("shared", Accept::Shared), ("round_robin", Accept::RoundRobin)], Accept::Shared),
        timeouts: timeouts(fields.node("timeouts"), problems),
    };
    fields.finish();
    server
}

fn listener(node: &Node, anonymous: bool, folders: &Folders, problems: &Problems) -> Option<Listener> {
    let Value::Map(_) = node.value else {
        let address = address(node, anonymous, None, folders, problems)?;
        return Some(Listener { address, tls: None });
    };
    let fields = Fields::of(node, "an address, or a map with `address`", problems)?;
    let rights = Rights { mode: fields.node("mode"), group: fields.node("group") };
    let address = fields.need("address").and_then(|n| address(n, anonymous, Some(&rights), folders, problems));
    let tls = fields.node("tls").map(|n| Identity::read(n, folders, problems));
    fields.finish();
    let address = address?;
    if tls.is_some() && matches!(address, Address::Unix { .. }) {
        problems.error(node.place, "a Unix socket speaks no TLS", "remove `tls`");
    }
    match tls {
        Some(tls) => Some(Listener { address, tls: Some(tls?) }),
        None => Some(Listener { address, tls: None }),
    }
}

struct Rights<'n> {
    mode: Option<&'n Node>,
    group: Option<&'n Node>,
}

fn address(node: &Node, anonymous: bool, rights: Option<&Rights<'_>>, folders: &Folders, problems: &Problems) -> Option<Address> {
    let text = node.text(problems)?;
    if let Some(path) = text.strip_prefix("unix:") {
        if path.is_empty() {
            problems.error(node.place, "the socket has no path", "unix:/run/postern/postern.sock");
            return None;
        }
        let mode = rights.and_then(|r| r.mode).map_or(Some(0o600), |n| mode(n, problems))?;
        let group = match rights.and_then(|r| r.group) {
            Some(n) => Some(group(n, problems)?),
            None => None,
        };
        return Some(Address::Unix { path: folders.join(node.place, path), mode, group });
    }
    if let Some(n) = rights.and_then(|r| r.mode.or(r.group)) {
        problems.error(n.place, "`mode` and `group` belong to Unix sockets", "");
    }
    let address = socket(node, problems)?;
    if !address.ip().to_canonical().is_loopback() && !anonymous {
        problems.error(
            node.place,
            format!("anyone who reaches {address} could use every resource: clients are not built into this version"),
            "listen on 127.0.0.1, or say `allow_anonymous: true` under `server`",
        );
    }
    Some(Address::Tcp(address))
}

fn socket(node: &Node, problems: &Problems) -> Option<SocketAddr> {
    let text = node.text(problems)?;
    let read = match text.strip_prefix("localhost:") {
        Some(port) => port.parse().ok().map(|port: u16| SocketAddr::from(([127, 0, 0, 1], port))),
        None => text.parse().ok(),
    };
    if read.is_none() {
        let hint = if text.parse::<u16>().is_ok() || text.starts_with(':') {
            format!("did you mean \"127.0.0.1:{}\"?", text.trim_start_matches(':'))
        } else {
            "127.0.0.1:8080, [::1]:8080, or unix:/path".to_owned()
        };
        problems.error(node.place, format!("{} is no address with a port", node.shown()), hint);
    }
    read
}

fn mode(node: &Node, problems: &Problems) -> Option<u32> {
    let read = node.word().and_then(|w| u32::from_str_radix(w, 8).ok()).filter(|m| *m <= 0o777 && matches!(node.value, Value::Text(_)));
    if read.is_none() {
        problems.error(node.place, "`mode` is octal permission bits, in quotes", "mode: \"0660\"");
    }
    read
}

fn group(node: &Node, problems: &Problems) -> Option<u32> {
    let text = node.text(problems)?;
    if let Ok(id) = text.parse() {
        return Some(id);
    }
    match nix::unistd::Group::from_name(&text) {
        Ok(Some(group)) => Some(group.gid.as_raw()),
        _ => {
            problems.error(node.place, format!("there is no group {} on this machine", node.shown()), "");
            None
        }
    }
}

/// The name of a gateway that was given none. It is one for the life of the process, or a reload would hide a loop.
fn own_name() -> &'static str {
    static NAME: OnceLock<String> = OnceLock::new();
    NAME.get_or_init(|| format!("postern-{:08x}", fastrand::u32(..)))
}

/// A pseudonym in `Via` is a token (RFC 9110 section 7.6.3).
fn name(node: &Node, problems: &Problems) -> Option<String> {
    let text = node.text(problems)?;
    if text.is_empty() || text.len() > 64 || !text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)) {
        problems.error(node.place, "`name` is up to 64 letters, digits, `-`, `.` and `_`", "");
        return None;
    }
    Some(text)
}

fn origins(node: &Node, problems: &Problems) -> Vec<String> {
    let Some(fields) = Fields::of(node, "a map with `origins`", problems) else { return Vec::new() };
    let read = |node: &Node| {
        if node.word() == Some("*") {
            problems.error(node.place, "`*` would let every page of the world in", "name the origins: https://app.example");
            return None;
        }
        origin(node, problems)
    };
    let origins = fields.items("origins").iter().filter_map(read).collect();
    fields.finish();
    origins
}

fn origin(node: &Node, problems: &Problems) -> Option<String> {
    let text = node.text(problems)?;
    let origin = text.trim_end_matches('/');
    let good = origin.split_once("://").is_some_and(|(scheme, authority)| crate::net::Origin::parse(scheme, authority).is_ok());
    if !good {
        problems.error(node.place, format!("{} is no origin", node.shown()), "https://name.example, without a path");
        return None;
    }
    Some(origin.to_owned())
}

fn cidr(node: &Node, problems: &Problems) -> Option<Cidr> {
    let text = node.text(problems)?;
    let read = Cidr::parse(&text);
    if read.is_none() {
        problems.error(node.place, format!("{} is no block of addresses", node.shown()), "10.0.0.0/8");
    }
    read
}

fn limits(node: Option<&Node>, problems: &Problems) -> Limits {
    let default = Limits {
        header_bytes: 64 << 10,
        headers: FIELDS_MAX as usize,
        body: None,
        connections: 10_000,
        in_flight: 10_000,
        min_body_rate: 240,
        min_body_rate_grace: Duration::from_secs(5),
    };
    let Some(fields) = node.and_then(|n| Fields::of(n, "a map of limits", problems)) else { return default };
    let header_bytes = fields.size("header_bytes", 64 << 10);
    if !(1024..=HEADER_BYTES_MAX).contains(&header_bytes) {
        problems.error(fields.key_place("header_bytes"), "`header_bytes` lies between 1KiB and 256KiB", "");
    }
    let headers = fields.count("headers", FIELDS_MAX, 1);
    if headers > FIELDS_MAX {
        problems.error(
            fields.key_place("headers"),
            format!("`headers` cannot exceed {FIELDS_MAX} in this version: the parser reads no more"),
            format!("headers: {FIELDS_MAX}"),
        );
    }
    let permits = |n: u64| usize::try_from(n).unwrap_or(usize::MAX).min(tokio::sync::Semaphore::MAX_PERMITS);
    let limits = Limits {
        header_bytes: usize::try_from(header_bytes).unwrap_or(default.header_bytes),
        headers: usize::try_from(headers).unwrap_or(default.headers),
        body: fields.size_or_off("body", None),
        connections: permits(fields.count("connections", 10_000, 1)),
        in_flight: permits(fields.count("in_flight", 10_000, 1)),
        min_body_rate: fields.size_or_off("min_body_rate", Some(240)).unwrap_or(0),
        min_body_rate_grace: fields.duration("min_body_rate_grace", default.min_body_rate_grace),
    };
    fields.finish();
    limits
}

fn timeouts(node: Option<&Node>, problems: &Problems) -> Timeouts {
    let default = Timeouts {
        header: Duration::from_secs(10),
        body_idle: Duration::from_secs(30),
        idle: Duration::from_secs(75),
        drain: Duration::from_secs(30),
    };
    let Some(fields) = node.and_then(|n| Fields::of(n, "a map of timeouts", problems)) else { return default };
    let timeouts = Timeouts {
        header: fields.duration("header", default.header),
        body_idle: fields.duration("body_idle", default.body_idle),
        idle: fields.duration("idle", default.idle),
        drain: fields.duration("drain", default.drain),
    };
    fields.finish();
    timeouts
}

fn mock(node: &Node, problems: &Problems) -> Option<Mock> {
    let fields = Fields::of(node, "a map with `listen`", problems)?;
    let listen = fields.need("listen").and_then(|n| socket(n, problems));
    let (seed, items) = (fields.count("seed", 1, 0), fields.count("items", 100, 0));
    fields.finish();
    Some(Mock { listen: listen?, seed, items })
}

fn log(node: Option<&Node>, problems: &Problems) -> Log {
    let default = Log { level: tracing::Level::INFO, json: false };
    let Some(fields) = node.and_then(|n| Fields::of(n, "a map with `log`", problems)) else { return default };
    fields.unbuilt("traces", |_| false);
    let log = fields.node("log");
    fields.finish();
    let Some(fields) = log.and_then(|n| Fields::of(n, "a map of `level` and `format`", problems)) else { return default };
    let levels = [
        ("error", tracing::Level::ERROR),
        ("warn", tracing::Level::WARN),
        ("info", tracing::Level::INFO),
        ("debug", tracing::Level::DEBUG),
        ("trace", tracing::Level::TRACE),
    ];
    let log = Log {
        level: fields.choice("level", &levels, tracing::Level::INFO),
        json: fields.choice("format", &[("text", false), ("json", true)], false),
    };
    fields.finish();
    log
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str) -> Vec<String> {
        let problems = Problems::default();
        let tree = super::super::raw::parse(text, 0, &problems).unwrap();
        let fields = Fields::of(&tree, "a map", &problems).unwrap();
        read(&fields, &Folders::one("/conf"), &problems);
        problems.into_sorted().into_iter().map(|p| format!("{} ({})", p.message, p.hint)).collect()
    }

    #[test]
    fn the_samples_numbers_are_the_defaults() {
        let problems = Problems::default();
        let tree = super::super::raw::parse("{}", 0, &problems).unwrap();
        let root = read(&Fields::of(&tree, "", &problems).unwrap(), &Folders::one("/"), &problems);
        assert_eq!(root.server.listen[0].to_string(), "http://127.0.0.1:8080");
        assert_eq!(
            (root.server.limits.header_bytes, root.server.limits.connections, root.server.limits.in_flight),
            (65_536, 10_000, 10_000)
        );
        assert_eq!(root.server.timeouts.idle, Duration::from_secs(75));
        assert!(root.server.name.starts_with("postern-"));
        assert!(root.admin.is_none() && root.mock.is_none());
    }

    #[test]
    fn good_settings_pass() {
        let good = "server:\n  listen: [\"127.0.0.1:0\", \"localhost:1\", \"[::1]:2\", \"unix:a.sock\", { address: \"unix:/b.sock\", mode: \"0660\", group: root }]\n  workers: auto\n  name: a-b\n  public_url: https://gw.example\n  trusted_proxies: [\"10.0.0.0/8\", \"::1\"]\n  cors: { origins: [\"https://app.example\"] }\n  accept: round_robin\nadmin: { listen: \"127.0.0.1:8081\" }\nhealth: { listen: \"0.0.0.0:8083\" }\nmock: { listen: \"127.0.0.1:8082\", seed: 3 }\ntelemetry: { log: { level: debug, format: json } }\n";
        assert_eq!(problems(good), Vec::<String>::new());
    }

    #[test]
    fn wrong_settings_say_what_to_write() {
        for (text, part) in [
            ("server: { listen: 8080 }", "did you mean \"127.0.0.1:8080\"?"),
            ("server: { listen: \"0.0.0.0:8080\" }", "allow_anonymous: true"),
            ("server: { listen: [] }", "`listen` is empty"),
            ("server: { listen: \"unix:\" }", "no path"),
            ("server: { listen: { address: \"unix:a\", mode: 660 } }", "mode: \"0660\""),
            ("server: { listen: { address: \"unix:a\", group: nobody-has-this } }", "no group"),
            ("server: { listen: { address: \"127.0.0.1:1\", mode: \"0600\" } }", "belong to Unix sockets"),
            ("server: { listen: [\"127.0.0.1:1\", \"127.0.0.1:1\"] }", "listed twice"),
            ("server: { listen: \"127.0.0.1:1\" }\nadmin: { listen: \"127.0.0.1:1\" }", "taken already"),
            ("server: { workers: 0 }", "1 to 1024"),
            ("server: { name: \"a b\" }", "letters"),
            ("server: { public_url: gw.example }", "no origin"),
            ("server: { trusted_proxies: [\"10.0.0.0/33\"] }", "no block"),
            ("server: { limits: { headers: 128 } }", "headers: 100"),
            ("server: { limits: { header_bytes: 1MiB } }", "256KiB"),
            ("server: { limits: { header_bytes: 64KB } }", "did you mean `64KiB`?"),
            ("server: { timeouts: { idle: 75 } }", "did you mean `75s`?"),
            ("server: { timeouts: { idel: 75s } }", "did you mean `idle`?"),
            ("server: { accept: shred }", "did you mean `shared`?"),
            ("server: { cors: { origins: [a] } }", "no origin"),
            ("server: { cors: { origins: [\"https://a/b\"] } }", "no origin"),
            ("server: { cors: { origins: \"*\" } }", "name the origins"),
            ("admin: { listen: \"127.0.0.1:1\", token: x }", "not a literal"),
            ("mock: { seed: 1 }", "`listen` is missing"),
            ("telemetry: { log: { level: loud } }", "one of"),
            ("telemetry: { traces: {} }", "not built"),
            ("server: []", "expected a map"),
        ] {
            let all = problems(text);
            assert!(all.iter().any(|p| p.contains(part)), "{text}: {all:?}");
        }
    }
}
