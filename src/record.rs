//! The audit record that a request fills in on its way (ruling B3). One per request, closed exactly once: `audit`
//! writes it when the last byte of the answer has left, or the client has gone.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use http::Method;

/// Who made the answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AnsweredBy {
    /// This gateway, mostly because something was refused or failed.
    #[default]
    Gateway,
    /// The upstream.
    Upstream,
}

/// How long each stage took, in microseconds; zero where a stage did not happen.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timings {
    /// Waiting for room: in-flight limits, connection limits, the audit log.
    pub queue: u32,
    /// DNS, TCP and TLS, where a connection had to be made.
    pub connect: u32,
    /// From the request sent to the head of the answer.
    pub head: u32,
    /// From the arrival of the request to its end.
    pub total: u32,
}

/// One request, as the audit log will tell it.
#[derive(Debug)]
pub struct Record {
    /// The request id, as returned in `X-Request-Id`.
    pub id: Box<str>,
    /// When the head had arrived.
    pub received: Instant,
    /// The same moment on the wall.
    pub time: SystemTime,
    /// The trace id of `traceparent`, where there is one.
    pub trace: Option<Box<str>>,
    /// The identified client.
    pub client: Arc<str>,
    /// The resource, once routed.
    pub resource: Option<Arc<str>>,
    /// The connection that it names, where its resource has some.
    pub connection: Option<Arc<str>>,
    /// The active environment, where there is one.
    pub environment: Option<Arc<str>>,
    /// The method; absent where the head was refused before it was understood.
    pub method: Option<Method>,
    /// The path as the client sent it.
    pub path: Box<str>,
    /// The query as the client sent it, without `?`.
    pub query: Option<Box<str>>,
    /// The status as sent; 499 where the client left before there was one.
    pub status: u16,
    /// Who made the answer.
    pub answered_by: AnsweredBy,
    /// `allow` or `deny`, once decided.
    pub decision: Option<&'static str>,
    /// The rule that decided.
    pub rule: Option<Arc<str>>,
    /// How long each stage took.
    pub timings: Timings,
    /// How many times the upstream was called.
    pub attempts: u32,
    /// Bytes of the request's body.
    pub bytes_in: u64,
    /// Bytes of the answer's body.
    pub bytes_out: u64,
    /// Fingerprint of the credential that was used.
    pub credential: Option<Arc<str>>,
    /// Version of the configuration that served it.
    pub config: Arc<str>,
    /// What went wrong: an error code, or `client-gone`.
    pub error: Option<&'static str>,
    /// Where the upstream's answer held the credential just sent.
    pub reflected: Reflected,
    /// Finds the resource's secrets by value, so that none reaches the log.
    pub mask: Option<Arc<crate::secret::Mask>>,
    /// Where the call went below which path, where only the call knew its base URL. It is for mapping links, not for the log.
    pub base: Option<Box<(crate::origin::Origin, Box<str>)>>,
    /// The exchange's place under `server.limits.in_flight`, given back when it ends.
    pub admitted: Option<tokio::sync::OwnedSemaphorePermit>,
    /// Its place under the resource's `limits.in_flight`.
    pub slot: Option<tokio::sync::OwnedSemaphorePermit>,
}

/// A record while its request is under way. Shared by the stack and both bodies, on one core.
pub type OpenRecord = Rc<RefCell<Record>>;

impl Record {
    /// A record that has only begun. `time` is the moment on the wall.
    pub fn new(id: Box<str>, time: SystemTime, client: Arc<str>, config: Arc<str>) -> Self {
        Self {
            id,
            received: Instant::now(),
            time,
            trace: None,
            client,
            resource: None,
            connection: None,
            environment: None,
            method: None,
            path: "".into(),
            query: None,
            status: 0,
            answered_by: AnsweredBy::Gateway,
            decision: None,
            rule: None,
            timings: Timings::default(),
            attempts: 0,
            bytes_in: 0,
            bytes_out: 0,
            credential: None,
            config,
            error: None,
            reflected: Reflected::default(),
            mask: None,
            base: None,
            admitted: None,
            slot: None,
        }
    }
}

/// Where a credential was seen that an upstream sent back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reflected {
    /// In the head of the answer.
    pub head: bool,
    /// In its body, or behind it.
    pub body: bool,
}

impl Reflected {
    /// The word in the record; none where nothing was seen.
    pub fn word(self) -> Option<&'static str> {
        match (self.head, self.body) {
            (false, false) => None,
            (true, false) => Some("head"),
            (false, true) => Some("body"),
            (true, true) => Some("head and body"),
        }
    }
}

impl AnsweredBy {
    /// The word in the record.
    pub fn word(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Upstream => "upstream",
        }
    }
}
