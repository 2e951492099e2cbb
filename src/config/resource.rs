//! One resource: from its place in the tree to a plan that can run. Every block is read by the part of the house that
//! it concerns; this file knows which key goes to whom, and what must hold between them.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::Method;

use super::base::BaseUrl;
use super::credentials;
use super::granted::Readers;
use super::probe::{self, Probe};
use crate::auth::bond::Bond;
use crate::auth::connection::Owner;
use crate::auth::consent::Consent;
use crate::auth::grant::Tokens;
use crate::auth::merge::Merge;
use crate::auth::{self, Auth};
use crate::digest::{Digest, Digester};
use crate::expr::{self, Inputs as _, Name, Names, Settings};
use crate::file::Seen;
use crate::fill::Fills;
use crate::middleware::accounts::By;
use crate::middleware::follow::{self, Follow};
use crate::middleware::reflect;
use crate::middleware::shape::{self, Shape};
use crate::net::{self, Certificate, Hosts, Reach, Upstream};
use crate::path::Glob;
use crate::secret::{Mask, Secret};
use crate::tree::{Entry, Fields, Folders, Node, Place, Problems, Value};

/// Keys of a resource that this build lacks.
const UNBUILT: [&str; 12] =
    ["allow", "proxy", "tunnel", "rate_limits", "quota", "retry", "idempotency", "breaker", "fallback", "cache", "accept", "expect"];
/// Keys of a resource that its connections are built from, besides its origin.
const POOL_KEYS: [&str; 5] = ["tls", "http", "proxy", "tunnel", "allow_private"];
/// Keys of a route that this build lacks.
const UNBUILT_IN_ROUTES: [&str; 5] = ["cache", "retry", "rate_limits", "idempotency", "expect"];

/// A resource, checked.
#[derive(Debug)]
pub struct Plan {
    /// Its name.
    pub name: Arc<str>,
    /// What it is for, in the operator's words.
    pub description: Option<String>,
    /// Its base URL, for people.
    pub base_url: String,
    /// The preset that it stands on.
    pub preset: Option<String>,
    /// The names of the schemes under `auth`.
    pub schemes: Vec<String>,
    /// Whether the upstream's certificate is verified.
    pub verifies: bool,
    /// Where it leads.
    pub upstream: Arc<Upstream>,
    /// The same places for routes that show another client certificate there, or none: connections are not shared.
    pub apart: Vec<Arc<Upstream>>,
    /// Where it leads, where only a call knows that.
    pub late: Option<Arc<net::base::Base>>,
    /// What bounds it.
    pub limits: Limits,
    /// Whether connections may switch protocols.
    pub websocket: bool,
    /// What becomes of a credential that an answer holds.
    pub reflection: reflect::Mode,
    /// Its secrets, to be found by value.
    pub mask: Option<Arc<Mask>>,
    /// What holds where no route says otherwise.
    pub variant: Variant,
    /// Its routes, first match wins.
    pub branches: Vec<Branch>,
    /// How a person gives it an account, and which one a call is for; none where nobody is asked.
    pub consent: Option<Consenting>,
    /// The calls that show that it works.
    pub test: Arc<[Probe]>,
    /// The same resource at the places that these calls name with `url`, each under the name that [`aside`] gives it.
    pub aside: Vec<Plan>,
    /// All that it was built from. A resource with the same digest is the same.
    pub digest: Digest,
    /// What its connections were built from. With the same digest they serve on, whatever else has changed.
    pub pool: Digest,
}

/// The accounts of a resource.
#[derive(Clone, Debug)]
pub struct Consenting {
    /// The resource in its environment.
    pub owner: Owner,
    /// How a person gives one.
    pub consent: Arc<dyn Consent>,
    /// What ties them to this configuration.
    pub bond: Bond,
    /// Which one a call is for; `None`: there is one only.
    pub by: Option<By>,
    /// All grants.
    pub tokens: Tokens,
}

/// A route of a resource.
#[derive(Debug)]
pub struct Branch {
    /// Which paths.
    pub path: Glob,
    /// Which methods; empty means all.
    pub methods: Vec<Method>,
    /// What holds there.
    pub variant: Variant,
    /// Whether it has an `auth` of its own.
    pub authenticates: bool,
}

/// What may differ from route to route.
#[derive(Debug)]
pub struct Variant {
    /// What the upstream is to see.
    pub shape: Shape,
    /// Which redirects are followed.
    pub follow: Option<Follow>,
    /// What is computed for each attempt.
    pub fills: Option<Fills>,
    /// What is merged into bodies.
    pub merge: Option<Arc<Merge>>,
    /// What the gateway presents.
    pub auth: Option<Auth>,
    /// The times of the exchange.
    pub timeouts: Timeouts,
    /// The client certificate that its connections show.
    pub certificate: Option<Certificate>,
    /// Which of [`Plan::apart`] it leads to; none is the resource's own.
    pub apart: Option<usize>,
}

/// `limits` of a resource.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Calls under way; none is no bound.
    pub in_flight: Option<usize>,
    /// Largest request body.
    pub request_body: Option<u64>,
    /// Largest answer.
    pub response_body: Option<u64>,
    /// Largest body that is held whole where something needs that.
    pub buffer: u64,
}

/// `timeouts` of a resource or route.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// DNS, TCP and TLS.
    pub connect: Duration,
    /// Until the head of the answer.
    pub head: Duration,
    /// Between two pieces of a body.
    pub idle: Duration,
    /// Whether `idle` was written: only then it bounds event streams (ruling D12).
    pub idle_written: bool,
    /// The whole exchange.
    pub total: Option<Duration>,
    /// Waiting for a place.
    pub queue: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            head: Duration::from_secs(120),
            idle: Duration::from_secs(60),
            idle_written: false,
            total: None,
            queue: Duration::from_secs(5),
        }
    }
}

/// What resources need to know of the process.
pub struct Context<'c> {
    /// Where relative paths begin.
    pub folders: &'c Folders,
    /// The gateway as upstreams see it.
    pub gateway: Arc<shape::Gateway>,
    /// The top level's `vars`.
    pub vars: Option<&'c Node>,
    /// All that resources are built from besides their own keys.
    pub digest: Digest,
    /// Takes in the files that were read for resources.
    pub saw: &'c dyn Fn(Vec<Seen>),
    /// The environment that applies; empty where there is none.
    pub environment: Arc<str>,
    /// All grants.
    pub tokens: &'c Tokens,
    /// Whether the store outlives the process.
    pub durable: bool,
    /// The folder where commands run, if they may.
    pub commands: Option<PathBuf>,
}

/// Reads a resource. `None` after at least one error was reported.
pub fn read(name: &str, node: &Node, context: &Context<'_>, problems: &Problems) -> Option<Plan> {
    let plan = one(name, node, context, problems)?;
    let places = plan.test.iter().enumerate().filter_map(|(at, probe)| Some((at, probe.elsewhere.as_ref()?)));
    // The operator has written these places too: the resource's accounts are presented there as well.
    let consent = || plan.consent.clone();
    let moved = |url| one(name, &moved(node, url), context, problems);
    let aside = places.map(|(at, url)| Some(Plan { name: aside(name, at).into(), consent: consent(), ..moved(url)? }));
    let aside = aside.collect::<Option<Vec<Plan>>>()?;
    Some(Plan { aside, ..plan })
}

/// What a resource is called at the place that this call of its `test` names. No resource can have such a name.
pub fn aside(name: &str, probe: usize) -> String {
    format!("{name}!{probe}")
}

/// The same resource at another base URL, without what is about its paths.
fn moved(node: &Node, url: &Node) -> Node {
    const LEFT: [&str; 4] = ["base_url", "routes", "test", "redirects"];
    let mut entries: Vec<Entry> = node.entries().iter().filter(|e| !LEFT.contains(&&*e.key)).cloned().collect();
    entries.push(Entry { key: "base_url".into(), place: url.place, node: url.clone() });
    Node { place: node.place, value: Value::Map(entries) }
}

fn one(name: &str, node: &Node, context: &Context<'_>, problems: &Problems) -> Option<Plan> {
    let used = credentials::put_in(node, problems);
    let node = used.as_ref().unwrap_or(node);
    let settings = Settings::new(context.vars, node.get("vars"), node.get("secrets"));
    // Its accounts may have variables of their own (ruling C9).
    let settings = if node.get("connections").is_some() { settings.without(Names::of(&[Name::Vars])) } else { settings };
    let hosts = node.get("hosts").map(|n| Hosts::read(n, problems));
    let base = node.get("base_url").and_then(|n| BaseUrl::read(n, hosts.as_ref(), &settings, problems));
    // What a flow brings takes the place of the base URL; the flow itself is led by the one that is written there.
    let applied = applied(node);
    let login = base.clone().filter(|base| base.late.is_none() && applied.is_some());
    let login = login.map(|base| (base.made, Arc::new(settings.clone().with_base(&base.text))));
    let base = applied.map_or(base, |node| BaseUrl::read(node, hosts.as_ref(), &settings, problems));
    let settings = Arc::new(match &base {
        Some(base) if base.late.is_some() => settings.without(Names::of(&[Name::Base])),
        base => settings.with_base(base.as_ref().map_or("", |b| &b.text)),
    });
    let settled = node.entries().iter().any(|e| TEMPLATES.contains(&&*e.key) && holds_template(&e.node));
    let settled = settled.then(|| settle(node, &settings, hosts.as_ref(), problems));
    let node = settled.as_ref().unwrap_or(node);
    let fields = Fields::of(node, "a resource: a map with `base_url`", problems)?;
    let description = fields.node("description").and_then(|n| n.literal(problems));
    // Read already, because expressions name it.
    fields.need("base_url");
    fields.raw("hosts");
    fields.raw("credentials");
    secrets(&fields, problems);
    fields.unbuilt_all(&UNBUILT);
    let private = fields.flag("allow_private", false);
    // Read before anything else, by `config::preset` and `config::references`.
    let preset = fields.node("preset").and_then(Node::word).map(str::to_owned);
    fields.raw("vars");
    let allow_http = fields.flag("allow_http", false);
    if allow_http && let Some(node) = fields.node("allow_http") {
        problems.warn(node.place, "credentials may travel over plain http", "");
    }
    let tls = fields.node("tls").map(|n| net::tls::Config::read(n, context.folders, problems));
    let pool = net::pool::Config::read(fields.node("http"), base.as_ref().is_some_and(|b| b.origin.is_https()), problems);
    let limits = limits(&fields, problems);
    let timeouts = timeouts(&fields, Timeouts::default(), problems);
    let websocket = fields.flag("websocket", true);
    let shape = shape::Config::read(&fields, &settings, problems);
    let merge = fields.node("body").map(|n| Merge::read(n, &settings, limits.buffer, problems));
    let auth = fields.node("auth");
    let routes = fields.items("routes");
    let test = probe::read(&fields, &settings, problems);
    let redirects = fields.raw("redirects").filter(|n| matches!(n.value, Value::Map(_)));
    let follow = redirects.map(|n| follow::Config::read(n, problems));
    let reflections = [("off", reflect::Mode::Off), ("mask", reflect::Mode::Mask), ("block", reflect::Mode::Block)];
    let reflection = fields.choice("reflection", &reflections, reflect::Mode::Heads);
    let scanned = reflection.scans_bodies();
    let tls = tls.flatten();
    let by = fields.node("connections").map(|n| by(n, problems));
    let owner = Owner { environment: context.environment.clone(), resource: name.into() };
    let reader = Reader {
        name,
        node,
        owner: &owner,
        context,
        limits,
        allow_http,
        tls: tls.as_ref(),
        hosts: hosts.as_ref(),
        private,
        settings: &settings,
        login: login.as_ref(),
        scanned,
        merge: merge.flatten().map(Arc::new),
        follow: match follow {
            Some(follow) => Some(follow?),
            None => None,
        },
        problems,
    };
    // What is wrong with the URL must not hide what is wrong with the rest.
    let unknown = base.is_none();
    let base = base.or_else(|| BaseUrl::nowhere(node.place))?;
    if let (Some(redirects), Some(_)) = (redirects, &base.late) {
        problems.error(redirects.place, "redirects are not followed where only a token knows the base URL", "redirects: rewrite");
    }
    let variant = reader.variant(&base, shape.clone(), auth, timeouts, None);
    let mut branches: Vec<Branch> = routes.iter().filter_map(|n| reader.branch(n, &base, &shape, auth, timeouts)).collect();
    let consent = variant.as_ref().and_then(|variant| consenting(&fields, (&owner, &base), by, variant, &branches, context.tokens));
    fields.finish();
    let reach = if base.made { Reach::Made { private } } else { Reach::Written };
    let pool = pool?;
    let way = |certificate: Option<&Certificate>| {
        let tls = certified(tls.as_ref(), certificate, node.place, problems)?;
        let upstream = Upstream::new(base.origin.clone(), tls, pool, timeouts.connect, timeouts.queue);
        Some(Arc::new(upstream.reaching(reach).allowing_private(private)))
    };
    // Those that stand in secret fields, and whatever else a reference has touched.
    let mut secrets: Vec<Secret> = problems.take_secrets();
    node.secrets(&mut secrets);
    let variant = variant.filter(|_| !unknown)?;
    let upstream = way(variant.certificate.as_ref())?;
    let apart = part(&variant, &mut branches, way)?;
    let mask = (!secrets.is_empty()).then(|| Arc::new(Mask::new(&secrets)));
    let seen = problems.take_seen();
    let digest = digest(node, context, &seen);
    let shown = std::iter::once(&variant).chain(branches.iter().map(|branch| &branch.variant)).map(|v| v.certificate.as_ref());
    let pool = pool_digest(node, &base, timeouts, shown, &seen);
    let late = base
        .late
        .clone()
        .map(|template| Arc::new(net::base::Base { template, settings: settings.clone(), hosts: hosts.clone(), allow_http }));
    (context.saw)(seen);
    Some(Plan {
        name: name.into(),
        description,
        base_url: base.text,
        preset,
        schemes: auth.map(schemes).unwrap_or_default(),
        verifies: node.get("tls").and_then(|n| n.get("verify")).and_then(Node::word) != Some("false"),
        upstream,
        late,
        apart,
        limits,
        websocket,
        reflection,
        mask,
        variant,
        branches,
        consent,
        test: test.into(),
        aside: Vec::new(),
        digest,
        pool,
    })
}

/// Trust towards the upstream, with a client certificate where there is one.
fn certified(
    tls: Option<&net::tls::Config>,
    certificate: Option<&Certificate>,
    place: Place,
    problems: &Problems,
) -> Option<Option<net::tls::Config>> {
    let Some(certificate) = certificate else { return Some(tls.cloned()) };
    let shown = net::tls::Config::showing(tls, certificate);
    shown.map(Some).map_err(|error| problems.error(place, format!("TLS cannot be set up: {error}"), "")).ok()
}

/// Leads each route that shows another certificate than the resource to connections of its own.
fn part(own: &Variant, branches: &mut [Branch], way: impl Fn(Option<&Certificate>) -> Option<Arc<Upstream>>) -> Option<Vec<Arc<Upstream>>> {
    let name = |variant: &Variant| variant.certificate.as_ref().map(|c| c.fingerprint().to_vec());
    let (usual, mut known, mut apart) = (name(own), Vec::new(), Vec::new());
    for variant in branches.iter_mut().map(|branch| &mut branch.variant) {
        let name = name(variant);
        if name == usual {
            continue;
        }
        variant.apart = Some(match known.iter().position(|one| *one == name) {
            Some(at) => at,
            None => {
                apart.push(way(variant.certificate.as_ref())?);
                known.push(name);
                known.len() - 1
            }
        });
    }
    Some(apart)
}

/// `secrets`: each is one, so a literal is judged like everywhere.
fn secrets(fields: &Fields<'_>, problems: &Problems) {
    let Some(node) = fields.node("secrets") else { return };
    if Fields::of(node, "a map of secrets by name", problems).is_some() {
        node.entries().iter().for_each(|e| drop(e.node.secret(problems)));
    }
}

/// Keys whose texts may hold expressions (ruling C8), besides `base_url`; a route has some of them too.
const TEMPLATES: [&str; 6] = ["headers", "params", "cookies", "body", "auth", "routes"];

fn holds_template(node: &Node) -> bool {
    match &node.value {
        Value::List(items) => items.iter().any(holds_template),
        Value::Map(entries) => entries.iter().any(|e| holds_template(&e.node)),
        _ => node.is_template(),
    }
}

/// A resource or a route with everything evaluated that needs nothing but its settings.
fn settle(node: &Node, settings: &Settings, hosts: Option<&Hosts>, problems: &Problems) -> Node {
    let entry = |e: &Entry| {
        let node = match &*e.key {
            "headers" | "params" => settings.settle_defaults(&e.node, shape::SHAPING, problems),
            "cookies" => settings.settle(&e.node, shape::SHAPING, problems),
            "body" => settle_body(&e.node, settings, problems),
            "auth" => settle_auth(&e.node, settings, hosts, problems),
            "routes" => {
                let routes = e.node.items().iter().map(|route| settle(route, settings, hosts, problems)).collect();
                Node { place: e.node.place, value: Value::List(routes) }
            }
            _ => e.node.clone(),
        };
        Entry { key: e.key.clone(), place: e.place, node }
    };
    match &node.value {
        Value::Map(entries) => Node { place: node.place, value: Value::Map(entries.iter().map(entry).collect()) },
        other => Node { place: node.place, value: other.clone() },
    }
}

impl Plan {
    /// The index of the route that such a request takes; `None` where the resource itself answers, or where different
    /// readings of the path select differently. `path` is what follows the resource's name.
    pub fn branch(&self, method: &Method, path: &str) -> Option<usize> {
        let fits = |b: &Branch| b.methods.is_empty() || b.methods.contains(method);
        let globs = self.branches.iter().enumerate().filter(|(_, b)| fits(b)).map(|(at, b)| (&b.path, at));
        crate::path::select(path, globs).ok().flatten()
    }
}

/// `apply.base_url` of a flow (ruling F28).
fn applied(node: &Node) -> Option<&Node> {
    let schemes = node.get("auth")?.items();
    let base = schemes.iter().find_map(|scheme| scheme.get("flow")?.get("apply")?.get("base_url"));
    base.filter(|node| !node.is_null())
}

/// Schemes whose values are written into documents and URLs of their own: encoded where they are put in, by the scheme.
const TYPED: [&str; 2] = ["flow", "session"];

/// What a scheme offers, it knows itself. URLs are made as URLs: no value of theirs becomes structure or another host.
fn settle_auth(node: &Node, settings: &Settings, hosts: Option<&Hosts>, problems: &Problems) -> Node {
    let value = match &node.value {
        Value::List(items) => Value::List(items.iter().map(|item| settle_auth(item, settings, hosts, problems)).collect()),
        Value::Map(entries) if entries.iter().any(|e| TYPED.contains(&&*e.key)) => node.value.clone(),
        Value::Map(entries) => {
            let entry = |e: &Entry| {
                let node = if (&*e.key == "url" || e.key.ends_with("_url")) && e.node.is_template() {
                    settle_url(&e.node, settings, hosts, problems)
                } else {
                    settle_auth(&e.node, settings, hosts, problems)
                };
                Entry { key: e.key.clone(), place: e.place, node }
            };
            Value::Map(entries.iter().map(entry).collect())
        }
        _ => return settings.settle(node, Names::ALL, problems),
    };
    Node { place: node.place, value }
}

/// A URL of an issuer that needs nothing but settings (rulings C19, F26). What needs more, its scheme judges at each call.
fn settle_url(node: &Node, settings: &Settings, hosts: Option<&Hosts>, problems: &Problems) -> Node {
    let settled = || settings.settle(node, Names::ALL, problems);
    // What is wrong with it is told where it is read.
    let Some(template) = expr::read(node, &settings.scope(Names::ALL), &Problems::default()) else { return settled() };
    if !template.names().without(Names::FIXED.without(settings.unsettled())).is_empty() {
        return settled();
    }
    let base = match settings.input(Name::Base) {
        Ok(Some(expr::Value::Text(base))) => Some(base.to_string()),
        _ => None,
    };
    let refuse = |why: String, hint: &str| {
        problems.error(node.place, why, hint);
        Node { place: node.place, value: Value::Null }
    };
    let made = match expr::url(&template, settings, base.as_deref()) {
        Ok(made) => made,
        Err(expr::Unmade::Failed(_)) => return settled(),
        Err(expr::Unmade::Unfit(why)) => {
            return refuse(why.to_owned(), "a value under `vars` is a part of a URL, or a whole one at its beginning");
        }
    };
    let allowed = || net::Origin::of(&made.text).is_ok_and(|(origin, _)| hosts.is_some_and(|hosts| hosts.allow(&origin)));
    if made.host && !allowed() {
        let why = "an expression makes the host of this URL, and `hosts` does not allow it";
        return refuse(why.to_owned(), "name what it may become: hosts: [\"*.example.com\"] on the resource");
    }
    let value = if made.secret { Value::Secret(Secret::new(made.text.to_string())) } else { Value::Text(made.text.as_str().into()) };
    Node { place: node.place, value }
}

/// Fragments of XML are left: their values are escaped where they are put in.
fn settle_body(node: &Node, settings: &Settings, problems: &Problems) -> Node {
    let Value::Map(entries) = &node.value else { return node.clone() };
    let entry = |e: &Entry| {
        let node = if &*e.key == "xml" { e.node.clone() } else { settings.settle(&e.node, shape::SHAPING, problems) };
        Entry { key: e.key.clone(), place: e.place, node }
    };
    Node { place: node.place, value: Value::Map(entries.iter().map(entry).collect()) }
}

/// `connections`.
fn by(node: &Node, problems: &Problems) -> Option<By> {
    let fields = Fields::of(node, "a map with `by`", problems)?;
    let by = fields.choice("by", &By::ALL, By::Header);
    fields.finish();
    Some(by)
}

/// The accounts of a resource, which have one way to be had.
fn consenting(
    fields: &Fields<'_>,
    (owner, base): (&Owner, &BaseUrl),
    by: Option<Option<By>>,
    variant: &Variant,
    branches: &[Branch],
    tokens: &Tokens,
) -> Option<Consenting> {
    let problems = fields.problems();
    let own = branches.iter().filter(|branch| branch.authenticates).map(|branch| &branch.variant);
    let mut all = std::iter::once(variant).chain(own).filter_map(|variant| variant.auth.as_ref()).flat_map(Auth::consents);
    let Some(consent) = all.next() else {
        if by.is_some() {
            let hint = "connections belong to `oauth2_authorization_code` with `authorize_url`, and to `oauth1` with `consent`";
            problems.error(fields.key_place("connections"), "nothing here has accounts that a person could connect", hint);
        }
        return None;
    };
    if all.next().is_some() {
        problems.error(
            fields.place(),
            "two schemes of this resource ask a person for consent, and a connection is one account",
            "make two resources of it",
        );
        return None;
    }
    let by = match by {
        Some(by) => Some(by?),
        None => None,
    };
    let place = if base.late.is_some() { base.text.clone() } else { base.origin.to_string() };
    let bond = Bond::of(&*consent, &place);
    Some(Consenting { owner: owner.clone(), consent, bond, by, tokens: tokens.clone() })
}

/// The names of the schemes that stand under `auth`, for people.
fn schemes(node: &Node) -> Vec<String> {
    let name = |n: &Node| n.entries().first().map(|e| e.key.to_string()).or_else(|| n.word().map(str::to_owned));
    node.items().iter().filter_map(name).collect()
}

fn digest(node: &Node, context: &Context<'_>, seen: &[Seen]) -> Digest {
    let mut digester = Digester::new();
    digester.digest(context.digest);
    node.feed(&mut digester);
    feed_files(seen, &mut digester);
    digester.finish()
}

/// `shown` are the client certificates of the resource and its routes, in order: by it routes find their connections.
fn pool_digest<'c>(
    node: &Node,
    base: &BaseUrl,
    timeouts: Timeouts,
    shown: impl Iterator<Item = Option<&'c Certificate>>,
    seen: &[Seen],
) -> Digest {
    let mut digester = Digester::new();
    digester.bytes(base.origin.to_string().as_bytes());
    for key in POOL_KEYS {
        digester.bytes(key.as_bytes());
        node.get(key).into_iter().for_each(|n| n.feed(&mut digester));
    }
    for certificate in shown {
        digester.bytes(certificate.map_or(&[], Certificate::fingerprint));
    }
    for time in [timeouts.connect, timeouts.queue] {
        digester.bytes(&time.as_nanos().to_be_bytes());
    }
    feed_files(seen, &mut digester);
    digester.finish()
}

fn feed_files(seen: &[Seen], digester: &mut Digester) {
    for seen in seen {
        digester.bytes(seen.path.as_os_str().as_encoded_bytes());
        digester.mark(u8::from(seen.content.is_some()));
        seen.content.into_iter().for_each(|content| digester.digest(content));
    }
}

struct Reader<'r> {
    name: &'r str,
    /// The resource, settled.
    node: &'r Node,
    owner: &'r Owner,
    context: &'r Context<'r>,
    limits: Limits,
    allow_http: bool,
    settings: &'r Arc<Settings>,
    /// Whether a template has made the host of the base URL that a flow is led by, and what its expressions see, where the
    /// flow brings another one for the calls.
    login: Option<&'r (bool, Arc<Settings>)>,
    /// Whether answers are searched for the credential.
    scanned: bool,
    merge: Option<Arc<Merge>>,
    follow: Option<follow::Config>,
    tls: Option<&'r net::tls::Config>,
    hosts: Option<&'r Hosts>,
    /// `allow_private`.
    private: bool,
    problems: &'r Problems,
}

impl Reader<'_> {
    fn variant(
        &self,
        base: &BaseUrl,
        shape: Option<shape::Config>,
        node: Option<&Node>,
        timeouts: Timeouts,
        route: Option<&Node>,
    ) -> Option<Variant> {
        let certificate = match node {
            Some(node) => auth::mtls::certificate(node, &base.origin, self.context.folders, self.problems),
            None => Some(None),
        };
        let tls = certified(self.tls, certificate.as_ref().and_then(Option::as_ref), base.place, self.problems)?;
        let auth = match node {
            Some(node) => {
                let context = auth::Context {
                    base_path: &base.path,
                    buffer: self.limits.buffer,
                    largest: self.limits.request_body,
                    secure: base.origin.is_https(),
                    resource: self.name,
                    origin: &base.origin,
                    settings: self.login.map_or(self.settings, |login| &login.1),
                    hosts: self.hosts,
                    made: self.login.map_or(base.made, |login| login.0),
                    private: self.private,
                    tls: tls.as_ref(),
                    certificate: certificate.as_ref().and_then(Option::as_ref),
                    folders: self.context.folders,
                    allow_http: self.allow_http,
                    connect: timeouts.connect,
                    head: timeouts.head,
                    queue: timeouts.queue,
                    owner: self.owner,
                    ambient: super::references::variable,
                    tokens: self.context.tokens,
                    durable: self.context.durable,
                    commands: self.context.commands.as_deref(),
                };
                Some(auth::read(node, &context, self.problems)?)
            }
            None => None,
        };
        let place = node.map_or(self.node.place, |n| n.place);
        let readers = Readers::new(auth.as_ref(), place, self.settings, self.problems)?;
        let missing = match route {
            None => readers.of_resource(self.node),
            Some(route) => readers.of_route(self.node, route),
        };
        if missing > 0 {
            return None;
        }
        if base.late.is_some() && auth.as_ref().is_some_and(|auth| !auth.owns().segments.is_empty()) {
            let hint = "write the path out, or put the key elsewhere";
            self.problems.error(place, "a key in the path needs to know the path of `base_url`, which only the token brings", hint);
            return None;
        }
        // Ruling G1: a credential does not travel in the clear, unless the operator has said so.
        if !base.origin.is_safe(self.allow_http) && auth.as_ref().is_some_and(Auth::needs_tls) {
            let place = node.map_or(base.place, |n| n.place);
            self.problems.error(place, "a credential would travel over plain http", "use https in base_url, or set `allow_http: true`");
            return None;
        }
        let build = shape::Build {
            resource: self.name,
            base: shape::Base { origin: &base.origin, path: &base.path },
            late: base.late.is_some(),
            owned: auth.as_ref().map(Auth::owns).unwrap_or_default(),
            gateway: self.context.gateway.clone(),
            settings: self.settings.clone(),
            buffer: self.limits.buffer,
            scanned: self.scanned,
            merged: self.merge.is_some(),
        };
        let (shape, fills) = shape?.build(build, self.problems)?;
        let follow = self
            .follow
            .clone()
            .map(|follow| Follow::new(follow, &base.origin, &base.path, self.limits.buffer, (auth.clone(), self.allow_http)));
        Some(Variant { shape, follow, fills, merge: self.merge.clone(), auth, timeouts, certificate: certificate?, apart: None })
    }

    fn branch(
        &self,
        node: &Node,
        base: &BaseUrl,
        shape: &Option<shape::Config>,
        auth: Option<&Node>,
        timeouts: Timeouts,
    ) -> Option<Branch> {
        let fields = Fields::of(node, "a route: a map with `path`", self.problems)?;
        let path = fields.need("path").and_then(|n| n.text(self.problems).and_then(|text| glob(&text, n.place, self.problems)));
        if let Some(base) = applied(node) {
            let hint = "put the flow under the resource's own `auth`, or into a resource of its own";
            self.problems.error(base.place, "`apply.base_url` leads the whole resource elsewhere, and cannot stand in a route", hint);
        }
        let mut methods: Vec<Method> = fields.items("methods").iter().filter_map(|n| method(n, self.problems)).collect();
        // GET covers HEAD (ruling D32).
        if methods.contains(&Method::GET) {
            methods.push(Method::HEAD);
        }
        fields.unbuilt_all(&UNBUILT_IN_ROUTES);
        let timeouts = self::timeouts(&fields, timeouts, self.problems);
        let shape = shape.clone().and_then(|shape| shape.overlay(&fields, self.settings, self.problems));
        let variant = self.variant(base, shape, fields.node("auth").or(auth), timeouts, Some(node));
        let authenticates = fields.node("auth").is_some();
        fields.finish();
        Some(Branch { path: path?, methods, variant: variant?, authenticates })
    }
}

fn glob(text: &str, place: Place, problems: &Problems) -> Option<Glob> {
    Glob::parse(text).map_err(|why| problems.error(place, why, "a path below the resource: `/repos/**`")).ok()
}

/// A method, in capitals.
pub(super) fn method(node: &Node, problems: &Problems) -> Option<Method> {
    let text = node.text(problems)?;
    match Method::from_bytes(text.as_bytes()) {
        Ok(method) if text.bytes().all(|b| !b.is_ascii_lowercase()) => Some(method),
        _ => {
            problems.error(node.place, format!("{} is not a method", node.shown()), "methods are written in capitals: GET");
            None
        }
    }
}

fn limits(fields: &Fields<'_>, problems: &Problems) -> Limits {
    let default = Limits { in_flight: None, request_body: None, response_body: None, buffer: 1 << 20 };
    let Some(node) = fields.node("limits") else { return default };
    let Some(fields) = Fields::of(node, "a map of limits", problems) else { return default };
    let off = fields.node("in_flight").is_some_and(Node::is_off);
    let in_flight = if off { fields.raw("in_flight").and(None) } else { Some(fields.count("in_flight", 256, 1)) };
    let limits = Limits {
        in_flight: in_flight.map(|n| usize::try_from(n).unwrap_or(usize::MAX).min(tokio::sync::Semaphore::MAX_PERMITS)),
        request_body: fields.size_or_off("request_body", None),
        response_body: fields.size_or_off("response_body", None),
        buffer: fields.size("buffer", 1 << 20),
    };
    fields.finish();
    limits
}

fn timeouts(fields: &Fields<'_>, default: Timeouts, problems: &Problems) -> Timeouts {
    let Some(node) = fields.node("timeouts") else { return default };
    let Some(fields) = Fields::of(node, "a map of timeouts", problems) else { return default };
    let timeouts = Timeouts {
        connect: fields.duration("connect", default.connect),
        head: fields.duration("head", default.head),
        idle: fields.duration("idle", default.idle),
        idle_written: default.idle_written || fields.node("idle").is_some(),
        total: fields.duration_or_off("total", default.total),
        queue: fields.duration("queue", default.queue),
    };
    fields.finish();
    timeouts
}
