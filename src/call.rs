//! A request on its way through one resource: what the router makes of an arrival, and what every step changes.
//!
//! [`Call`] is a thin handle, so that passing it through a dozen steps costs nothing. Headers and target are the
//! client's until `shape` has run; from there on they are the upstream's.

use std::any::Any;
use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use http::{HeaderMap, HeaderValue, Method};

use uuid::Uuid;

use crate::body::{self, Body};
use crate::clock::Clock;
use crate::expr::{Inputs, Name, Value};
use crate::origin::Origin;
use crate::path::Target;
use crate::record::OpenRecord;
use crate::secret::Mask;

/// By what a scheme will know what it signed an attempt with: a token, a challenge, its turn to ask for one. It lives as
/// long as the attempt and goes with it, also when the client leaves.
pub type Ticket = Arc<dyn Any + Send + Sync>;

/// What stands for a token that has not been fetched, and for what comes with one, where nothing is sent (ruling B13).
pub const STAND_IN: &str = "[to be fetched]";

/// What was acquired for an attempt before it is filled in and signed. It shows nothing of itself.
pub struct Granted {
    inputs: Box<dyn Inputs>,
    /// By which each scheme will find its own again, under its number.
    tickets: Vec<(usize, Ticket)>,
    stands_in: bool,
}

impl Granted {
    /// `inputs` are `token` and `captured`; with `stands_in` they are not there, and [`STAND_IN`] stands for whatever is
    /// computed from them.
    pub fn new(inputs: Box<dyn Inputs>, tickets: Vec<(usize, Ticket)>, stands_in: bool) -> Self {
        Self { inputs, tickets, stands_in }
    }

    /// What this scheme has acquired.
    pub fn ticket(&self, scheme: usize) -> Option<Ticket> {
        self.tickets.iter().find(|(of, _)| *of == scheme).map(|(_, ticket)| ticket.clone())
    }

    /// Whether nothing was fetched, because nothing is sent.
    pub fn stands_in(&self) -> bool {
        self.stands_in
    }
}

impl Inputs for Granted {
    fn input(&self, name: Name) -> Result<Option<Value>, &'static str> {
        self.inputs.input(name)
    }
}

impl std::fmt::Debug for Granted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Granted")
    }
}

/// What is left to do to the fields of a request once its connection is chosen, each time it is put onto one: numbers
/// that must rise within a connection and never come twice (ruling H12).
pub struct Finish(Box<dyn FnMut(&mut HeaderMap)>);

impl Finish {
    /// Does this.
    pub fn new(finish: impl FnMut(&mut HeaderMap) + 'static) -> Self {
        Self(Box::new(finish))
    }

    /// Does it to these fields.
    pub fn apply(&mut self, headers: &mut HeaderMap) {
        (self.0)(headers);
    }
}

impl std::fmt::Debug for Finish {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Finish")
    }
}

/// The one time and the random ids of an attempt: the same wherever the attempt uses them, fresh in the next. They are
/// drawn when they are first asked for, as most attempts need none.
#[derive(Debug, Default)]
pub struct Occasion {
    clock: Clock,
    drawn: OnceCell<Box<(SystemTime, Uuid, Uuid)>>,
}

impl Occasion {
    /// One that takes its time from this clock.
    pub fn new(clock: Clock) -> Self {
        Self { clock, drawn: OnceCell::new() }
    }

    /// The time.
    pub fn now(&self) -> SystemTime {
        self.drawn().0
    }

    /// A random id (RFC 9562 section 5.4).
    pub fn uuid(&self) -> Uuid {
        self.drawn().1
    }

    /// An id that begins with the time (RFC 9562 section 5.7).
    pub fn uuid7(&self) -> Uuid {
        self.drawn().2
    }

    fn drawn(&self) -> &(SystemTime, Uuid, Uuid) {
        self.drawn.get_or_init(|| {
            let mut random = [0; 26];
            // Where the system has no randomness, ids are still unlike one another.
            if aws_lc_rs::rand::fill(&mut random).is_err() {
                fastrand::fill(&mut random);
            }
            let (mut four, mut seven) = ([0; 16], [0; 10]);
            four.copy_from_slice(&random[..16]);
            seven.copy_from_slice(&random[16..]);
            let uuid = uuid::Builder::from_random_bytes(four).into_uuid();
            let uuid7 = uuid::Builder::from_unix_timestamp_millis(self.clock.millis(), &seven).into_uuid();
            Box::new((self.clock.wall(), uuid, uuid7))
        })
    }
}

/// Who is calling.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The client's name; `anonymous` where nobody had to say.
    pub name: Arc<str>,
    /// The address of the peer; none on a Unix socket.
    pub ip: Option<IpAddr>,
    /// Whether the client's connection is TLS.
    pub tls: bool,
}

/// The account that a call is made for, where its resource serves several (product, section 6).
#[derive(Debug)]
pub struct Account {
    /// The name of the connection.
    pub name: Arc<str>,
    /// Whose it is; `None`: whoever may use the resource.
    pub client: Option<Arc<str>>,
    /// Its own values of variables (ruling C9).
    pub vars: BTreeMap<String, String>,
    /// What leads to its credential, for the schemes that know such things.
    pub held: Box<dyn Any + Send + Sync>,
}

/// Whoever takes an upstream's early hints to a client (RFC 8297).
pub trait Hinted: std::fmt::Debug + Send + Sync {
    /// Sends them, unless the answer has begun or the client is behind with reading: hints may get lost.
    fn hint(&self, links: &[HeaderValue]);
}

/// Whoever leads the links of an upstream back to the gateway.
pub trait Led: std::fmt::Debug + Send + Sync {
    /// The `Link` for the client, of an answer to a request for `path`.
    fn lead(&self, link: &HeaderValue, path: &str) -> HeaderValue;
}

/// The way of early hints: `Link` fields and nothing else, searched and led like those of an answer.
#[derive(Clone, Debug)]
pub struct Hints {
    to: Arc<dyn Hinted>,
    /// Who leads them, and the path that was asked for as the client may know it: no credential stands in it.
    by: Option<(Arc<dyn Led>, Arc<str>)>,
    screen: Option<HintScreen>,
}

/// What no hint may tell: credentials that were just sent.
#[derive(Clone, Debug)]
pub struct HintScreen {
    /// What finds them.
    pub masks: [Option<Arc<Mask>>; 2],
    /// Whether a link that holds one is dropped, and not only masked.
    pub drops: bool,
    /// Where it is noted.
    pub record: OpenRecord,
}

impl HintScreen {
    /// The link without credentials; nothing where it is not to be sent.
    fn pass(&self, link: &HeaderValue) -> Option<HeaderValue> {
        if !self.masks.iter().flatten().any(|mask| mask.finds_in(link.as_bytes())) {
            return Some(link.clone());
        }
        self.record.borrow_mut().reflected.head = true;
        let mut bytes = link.as_bytes().to_vec();
        for mask in self.masks.iter().flatten() {
            mask.star(&mut bytes);
        }
        HeaderValue::from_bytes(&bytes).ok().filter(|_| !self.drops)
    }
}

impl Hints {
    /// To this client.
    pub fn new(to: Arc<dyn Hinted>) -> Self {
        Self { to, by: None, screen: None }
    }

    /// From here on links are led by this, as those of an answer to a request for `path`.
    pub fn led(&mut self, by: Arc<dyn Led>, path: Arc<str>) {
        self.by = Some((by, path));
    }

    /// From here on links are searched for credentials.
    pub fn screened(&mut self, screen: HintScreen) {
        self.screen = Some(screen);
    }

    /// Passes on the links of a 103.
    pub fn pass(&self, links: &[HeaderValue]) {
        let screened = links.iter().filter_map(|link| self.screen.as_ref().map_or_else(|| Some(link.clone()), |screen| screen.pass(link)));
        let led = screened.map(|link| self.by.as_ref().map_or_else(|| link.clone(), |(by, path)| by.lead(&link, path)));
        self.to.hint(&led.collect::<Vec<_>>());
    }
}

/// What one call is made of.
#[derive(Debug)]
pub struct Parts {
    /// The method.
    pub method: Method,
    /// Path and query as they stand: behind `/r/<resource>` as the client sent them, then with the base path and
    /// the resource's parameters.
    pub target: Target,
    /// The fields as they stand.
    pub headers: HeaderMap,
    /// The body.
    pub body: Body,
    /// Who is calling.
    pub caller: Caller,
    /// The account that it is for, where the resource has several.
    pub account: Option<Arc<Account>>,
    /// When the exchange must be over, where `timeouts.total` is set.
    pub deadline: Option<Instant>,
    /// Whether the client waits for 100 before it sends its body.
    pub expects_continue: bool,
    /// The client's side of a protocol switch, where it asks for one.
    pub upgrade: Option<hyper::upgrade::OnUpgrade>,
    /// The way of early hints, where the client's protocol has one (ruling H10).
    pub hints: Option<Hints>,
    /// Where it goes, if not to the origin of the resource: what a template, a capture or a redirect made of it, and
    /// whoever put it here has found allowed.
    pub origin: Option<Box<Origin>>,
    /// The base URL without its trailing slash, where only the call knows it.
    pub base: Option<Box<str>>,
    /// What was acquired for this attempt, where something waits for that.
    pub granted: Option<Box<Granted>>,
    /// Left by the scheme that has just signed, for itself.
    pub ticket: Option<Ticket>,
    /// What must wait for the connection. At most one scheme of a list needs it, as it concerns `Authorization`.
    pub finish: Option<Finish>,
    /// What this attempt is given for expressions.
    pub occasion: Occasion,
    /// The audit record.
    pub record: OpenRecord,
}

impl Parts {
    /// A call without a body, a deadline, or anything that was asked for beside an answer.
    pub fn new(method: Method, target: Target, headers: HeaderMap, caller: Caller, record: OpenRecord) -> Self {
        Self {
            method,
            target,
            headers,
            body: Body::Empty,
            caller,
            account: None,
            deadline: None,
            expects_continue: false,
            upgrade: None,
            hints: None,
            origin: None,
            base: None,
            granted: None,
            ticket: None,
            finish: None,
            occasion: Occasion::default(),
            record,
        }
    }
}

impl Parts {
    /// Whether it goes over TLS, where `usual` says so of the resource.
    pub fn is_secure(&self, usual: bool) -> bool {
        self.origin.as_ref().map_or(usual, |origin| origin.is_https())
    }
}

/// A request on its way: a handle to its [`Parts`].
#[derive(Debug)]
pub struct Call(Box<Parts>);

impl Call {
    /// Boxes the parts.
    pub fn new(parts: Parts) -> Self {
        Self(Box::new(parts))
    }

    /// Keeps the call as it stands for a second attempt, and up to `limit` bytes of its body as they are read.
    pub fn spare(&mut self, limit: u64) -> Spare {
        let body = self.body.spare(limit);
        let (target, headers) = (self.target.clone(), self.headers.clone());
        let parts = Parts::new(self.method.clone(), target, headers, self.caller.clone(), self.record.clone());
        let call = Self::new(Parts {
            account: self.account.clone(),
            origin: self.origin.clone(),
            deadline: self.deadline,
            expects_continue: self.expects_continue,
            upgrade: self.upgrade.clone(),
            ..parts
        });
        Spare { call, body }
    }
}

/// A call that may be sent again.
#[derive(Debug)]
pub struct Spare {
    call: Call,
    body: body::Spare,
}

impl Spare {
    /// The call as it was kept, without its body.
    pub fn call(&self) -> &Call {
        &self.call
    }

    /// Whether it can be sent again: its whole body is at hand or still to be read.
    pub fn is_whole(&self) -> bool {
        self.body.is_whole()
    }

    /// Whether the first attempt has read the body to its end.
    pub fn is_read(&self) -> bool {
        self.body.is_read()
    }

    /// The call for the second attempt; `None` where its body is gone.
    pub fn take(self) -> Option<Call> {
        let Self { mut call, body } = self;
        call.body = body.take()?;
        Some(call)
    }
}

impl Deref for Call {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

impl DerefMut for Call {
    fn deref_mut(&mut self) -> &mut Parts {
        &mut self.0
    }
}
