//! `vault`, `aws_sm`, `exec` and `allow_exec`: how the sources that are not at hand are reached. What is not written is
//! taken from the variables that the tools of these sources use.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;

use super::ask::{Kind, Trouble};
use super::{aws, exec, vault};
use crate::digest::{Digest, Digester};
use crate::net::{Origin, Upstream, pool, tls};
use crate::secret::Secret;
use crate::tree::{Fields, Folders, Node, Place, Problems, Value};

/// The keys of the root that are read here.
pub const KEYS: [&str; 4] = ["vault", "aws_sm", "exec", "allow_exec"];
/// How often secrets are fetched again where nothing says otherwise.
const REFRESH: Duration = Duration::from_secs(300);
/// Nobody is asked more often than this.
const REFRESH_MIN: Duration = Duration::from_secs(1);
/// How long a command may take where nothing says otherwise.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Connecting, and waiting for a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// Where a pod finds the token of its service account.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";
/// What of our environment every command gets.
const ENVIRONMENT: [&str; 3] = ["PATH", "HOME", "LANG"];
/// Most variables beyond these.
const ENVIRONMENT_MAX: usize = 64;

/// How the sources are reached. One that is not set up says why it gives nothing.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Commands.
    pub exec: exec::Settings,
    /// A Vault.
    pub vault: Result<vault::Settings, Trouble>,
    /// AWS Secrets Manager.
    pub aws: Result<aws::Settings, Trouble>,
    digests: [Digest; 3],
}

/// What the blocks are read with.
pub struct Reader<'r> {
    /// Where relative paths begin.
    pub folders: &'r Folders,
    /// The variables of the environment.
    pub env: &'r dyn Fn(&str) -> Option<String>,
    /// The text of a file.
    pub file: &'r dyn Fn(&str) -> Option<Secret>,
    /// Where problems go.
    pub problems: &'r Problems,
}

impl Settings {
    /// How often things of this kind are fetched again.
    pub fn refresh(&self, kind: Kind) -> Duration {
        match kind {
            Kind::Exec => self.exec.refresh,
            Kind::Vault => self.vault.as_ref().map_or(REFRESH, |v| v.refresh),
            Kind::AwsSm => self.aws.as_ref().map_or(REFRESH, |a| a.refresh),
        }
    }

    /// Tells settings of a source from others of it. A service account's token, which moves by itself, is no part of it.
    pub fn digest(&self, kind: Kind) -> Option<Digest> {
        self.digests.get(kind as usize).copied()
    }
}

impl Reader<'_> {
    /// Reads the blocks of the root. References to variables and files in them have been resolved.
    pub fn read(&self, tree: &Node) -> Settings {
        let block = |key: &str| tree.get(key).filter(|n| !n.is_null());
        let (exec, vault, aws) = (self.exec(tree, block("exec")), self.vault(block("vault")), self.aws(block("aws_sm")));
        let mut digests = [Digester::new(), Digester::new(), Digester::new()];
        digests[0].mark(u8::from(exec.allowed));
        for (digester, key) in digests.iter_mut().zip(["exec", "vault", "aws_sm"]) {
            block(key).into_iter().for_each(|node| feed(node, digester));
        }
        for (name, value) in &exec.environment {
            digests[0].bytes(name.as_bytes());
            digests[0].bytes(value.expose().as_bytes());
        }
        // What is trusted may change while its name does not.
        for seen in self.problems.take_seen() {
            for digester in &mut digests[1..] {
                seen.content.into_iter().for_each(|content| digester.digest(content));
            }
            self.problems.saw(seen);
        }
        let mut named = |digester: usize, names: &[&str]| {
            for name in names {
                digests[digester].bytes((self.env)(name).unwrap_or_default().as_bytes());
            }
        };
        named(1, &["VAULT_ADDR", "VAULT_TOKEN", "VAULT_NAMESPACE"]);
        named(2, &["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_DEFAULT_REGION"]);
        Settings { exec, vault, aws, digests: digests.map(Digester::finish) }
    }

    /// A variable that is set and not empty.
    fn set(&self, name: &str) -> Option<String> {
        (self.env)(name).filter(|value| !value.is_empty())
    }

    fn exec(&self, tree: &Node, block: Option<&Node>) -> exec::Settings {
        let mut settings = exec::Settings {
            allowed: self.allowed(tree),
            timeout: TIMEOUT,
            refresh: REFRESH,
            folder: self.folders.join(Place::default(), ""),
            environment: Vec::new(),
        };
        if settings.folder.as_os_str().is_empty() {
            settings.folder = PathBuf::from(".");
        }
        let mut names: Vec<String> = ENVIRONMENT.map(str::to_owned).into();
        if let Some(fields) = block.and_then(|n| Fields::of(n, "a map of settings for commands", self.problems)) {
            settings.timeout = fields.duration("timeout", TIMEOUT);
            settings.refresh = refresh(&fields);
            names.extend(fields.texts("env").into_iter().take(ENVIRONMENT_MAX));
            fields.finish();
        }
        settings.environment = names.into_iter().filter_map(|name| Some((name.clone(), Secret::new((self.env)(&name)?)))).collect();
        settings
    }

    /// Ruling G7: only the main file may allow commands; a layer that someone else writes may not.
    fn allowed(&self, tree: &Node) -> bool {
        let Some(entry) = tree.entries().iter().find(|e| &*e.key == "allow_exec" && !e.node.is_null()) else { return false };
        let allowed = entry.node.flag(self.problems).unwrap_or(false);
        if allowed && entry.node.place.file != 0 {
            self.problems.error(entry.node.place, "only the main file may allow commands", "move `allow_exec: true` into the main file");
            return false;
        }
        allowed
    }

    fn vault(&self, block: Option<&Node>) -> Result<vault::Settings, Trouble> {
        let empty = Node { place: Place::default(), value: Value::Map(Vec::new()) };
        let node = block.unwrap_or(&empty);
        let wrong = || Trouble::new("`vault` is not set up rightly", "");
        let fields = Fields::of(node, "a map with `address`", self.problems).ok_or_else(wrong)?;
        let reach = Reach { block, fields: &fields, reader: self };
        let upstream = reach.upstream("address", || self.set("VAULT_ADDR"));
        let namespace = fields.text("namespace").or_else(|| self.set("VAULT_NAMESPACE"));
        let namespace = namespace.map(|text| HeaderValue::from_str(&text)).transpose();
        if namespace.is_err() {
            self.problems.error(fields.key_place("namespace"), "the namespace holds what no header may", "");
        }
        let login = self.login(&fields);
        let refresh = refresh(&fields);
        fields.finish();
        let missing = |what: &str, hint: &str| Trouble::new(format!("no Vault is set up: {what}"), hint);
        let (upstream, path) =
            upstream.map_err(|Wrong| wrong())?.ok_or_else(|| missing("it has no address", "`vault: { address: … }`, or VAULT_ADDR"))?;
        let login = login
            .map_err(|Wrong| wrong())?
            .ok_or_else(|| missing("there is no token", "`vault: { token: … }`, `vault: { kubernetes: { role: … } }`, or VAULT_TOKEN"))?;
        Ok(vault::Settings { upstream, path, namespace: namespace.map_err(|_| wrong())?, login, refresh })
    }

    fn login(&self, fields: &Fields<'_>) -> Result<Option<vault::Login>, Wrong> {
        let (token, kubernetes) = (fields.node("token"), fields.node("kubernetes"));
        if let (Some(_), Some(node)) = (token, kubernetes) {
            self.problems.error(node.place, "`token` and `kubernetes` are two ways to log in", "remove one of them");
            return Err(Wrong);
        }
        if let Some(node) = token {
            return node.secret(self.problems).map(vault::Login::Token).ok_or(Wrong).map(Some);
        }
        let Some(node) = kubernetes else { return Ok(self.set("VAULT_TOKEN").map(|token| vault::Login::Token(Secret::new(token)))) };
        let fields = Fields::of(node, "a map with `role`", self.problems).ok_or(Wrong)?;
        let role = fields.need("role").and_then(|n| n.text(self.problems));
        let mount = fields.text("mount").unwrap_or_else(|| "kubernetes".into());
        let jwt = match fields.node("jwt") {
            Some(node) => node.secret(self.problems),
            None => {
                let found = (self.file)(SERVICE_ACCOUNT);
                if found.is_none() {
                    let hint = "outside a pod, name the token: `jwt: \"${file:…}\"`";
                    self.problems.error(node.place, format!("{SERVICE_ACCOUNT} cannot be read"), hint);
                }
                found
            }
        };
        fields.finish();
        match (role, jwt) {
            (Some(role), Some(jwt)) => Ok(Some(vault::Login::Kubernetes { role, mount, jwt })),
            _ => Err(Wrong),
        }
    }

    fn aws(&self, block: Option<&Node>) -> Result<aws::Settings, Trouble> {
        let empty = Node { place: Place::default(), value: Value::Map(Vec::new()) };
        let node = block.unwrap_or(&empty);
        let wrong = || Trouble::new("`aws_sm` is not set up rightly", "");
        let fields = Fields::of(node, "a map with `region`", self.problems).ok_or_else(wrong)?;
        let region = fields.text("region").or_else(|| self.set("AWS_REGION")).or_else(|| self.set("AWS_DEFAULT_REGION"));
        let sane = |region: &String| !region.is_empty() && region.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        if region.as_ref().is_some_and(|r| !sane(r)) {
            self.problems.error(fields.key_place("region"), "this is no region", "region: eu-west-1");
        }
        let region = region.filter(sane);
        let own = region.as_deref().map(|region| {
            let suffix = if region.starts_with("cn-") { ".cn" } else { "" };
            format!("https://secretsmanager.{region}.amazonaws.com{suffix}")
        });
        let reach = Reach { block, fields: &fields, reader: self };
        let endpoint = || self.set("AWS_ENDPOINT_URL_SECRETS_MANAGER").or_else(|| self.set("AWS_ENDPOINT_URL")).or_else(|| own.clone());
        let upstream = reach.upstream("endpoint", endpoint);
        // Keys are taken together or not at all: a session token fits one key only.
        let written = ["access_key_id", "secret_access_key", "session_token"].iter().any(|key| node.get(key).is_some());
        let (key_id, key, session) = if written {
            let key_id = fields.need("access_key_id").and_then(|n| n.text(self.problems));
            let key = fields.need("secret_access_key").and_then(|n| n.secret(self.problems));
            (key_id, key, fields.secret("session_token"))
        } else {
            let secret = |name| self.set(name).map(Secret::new);
            (self.set("AWS_ACCESS_KEY_ID"), secret("AWS_SECRET_ACCESS_KEY"), secret("AWS_SESSION_TOKEN"))
        };
        let refresh = refresh(&fields);
        fields.finish();
        let missing = |what: &str, hint: &str| Trouble::new(format!("AWS Secrets Manager is not set up: {what}"), hint);
        let region = region.ok_or_else(|| missing("there is no region", "`aws_sm: { region: … }`, or AWS_REGION"))?;
        let (upstream, path) = upstream.map_err(|Wrong| wrong())?.ok_or_else(wrong)?;
        let (Some(key_id), Some(key)) = (key_id, key) else {
            return Err(missing(
                "there is no key",
                "`aws_sm: { access_key_id, secret_access_key }`, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
            ));
        };
        let path = if path.is_empty() { "/".to_owned() } else { path };
        Ok(aws::Settings { upstream, path, region, key_id, key, session, refresh })
    }
}

/// An error has been reported.
struct Wrong;

/// Where a source is, and how it is trusted.
struct Reach<'r> {
    block: Option<&'r Node>,
    fields: &'r Fields<'r>,
    reader: &'r Reader<'r>,
}

impl Reach<'_> {
    /// The upstream of a URL under `key`, or else of `default`, with what follows the origin.
    fn upstream(&self, key: &'static str, default: impl FnOnce() -> Option<String>) -> Result<Option<(Arc<Upstream>, String)>, Wrong> {
        let problems = self.reader.problems;
        let allow_http = self.fields.flag("allow_http", false);
        let tls = self.fields.node("tls").map(|n| tls::Config::read(n, self.reader.folders, problems));
        let written = self.fields.text(key);
        let Some(url) = written.or_else(default) else { return Ok(None) };
        let place = if self.block.is_some() { self.fields.key_place(key) } else { Place::default() };
        let (origin, path) = match Origin::of(url.trim_end_matches('/')) {
            Ok(found) => found,
            Err(why) => {
                problems.error(place, format!("`{key}` is no address: {why}"), "https://vault.example:8200");
                return Err(Wrong);
            }
        };
        // Ruling G1: what opens all secrets does not travel in the clear.
        if !origin.is_safe(allow_http) {
            let message = format!("`{key}` is plain http: the token and every secret would travel in the clear");
            problems.error(place, message, "use https, or set `allow_http: true` beside it");
            return Err(Wrong);
        }
        let pool = pool::Config::read(None, origin.is_https(), problems).ok_or(Wrong)?;
        let tls = match tls {
            Some(tls) => Some(tls.ok_or(Wrong)?),
            None => None,
        };
        let path = path.to_owned();
        Ok(Some((Arc::new(Upstream::new(origin, tls, pool, CONNECT, CONNECT)), path)))
    }
}

fn refresh(fields: &Fields<'_>) -> Duration {
    let refresh = fields.duration("refresh", REFRESH);
    if refresh < REFRESH_MIN {
        fields.problems().error(fields.key_place("refresh"), "`refresh` is at least a second", "refresh: 5m");
    }
    refresh.max(REFRESH_MIN)
}

/// Takes a block in, but for the token of a service account.
fn feed(node: &Node, digester: &mut Digester) {
    match &node.value {
        Value::Map(entries) => {
            for entry in entries.iter().filter(|e| &*e.key != "jwt") {
                digester.bytes(entry.key.as_bytes());
                feed(&entry.node, digester);
            }
        }
        _ => node.feed(digester),
    }
}
