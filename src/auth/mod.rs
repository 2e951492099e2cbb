//! What the gateway presents to upstreams: one scheme is one file behind [`Scheme`], and `read.rs` is their registry.
//!
//! A scheme answers what it owns in a request, whose credential it presents, what must change before the cache key is
//! made, and how this attempt is signed. [`Auth`] asks all that stand under one `auth`. Nothing here sends anything.

mod api_key;
mod assertion;
mod aws_sigv4;
mod basic;
mod bearer;
pub mod bond;
mod capture;
pub mod captured;
mod claims;
pub mod connection;
pub mod consent;
pub mod device;
mod digest;
mod expiry;
pub mod family;
mod field;
mod fingerprint;
mod flow;
mod form;
mod google;
pub mod grant;
pub mod granted;
mod hmac;
mod http_signature;
mod insert;
mod jar;
pub(crate) mod json;
mod jwt;
pub mod merge;
pub mod mtls;
mod none;
mod oauth;
mod oauth1;
mod passthrough;
pub mod pending;
mod place;
mod placed;
mod presented;
mod read;
mod record;
mod said;
mod saml;
mod session;
#[cfg(test)]
pub(crate) mod support;
pub mod token;
mod whole;
pub mod whose;

use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, Response};

use crate::body::Body;
use crate::call::{Call, Ticket};
use crate::error::Error;
use crate::expr::Settings;
use crate::net::{Certificate, Hosts, Origin, tls};
use crate::tree::{Folders, Place, Problems};
use fingerprint::Fingerprint;
use granted::Gives;
pub use read::{read, schemes};
use token::Token;

/// What a scheme owns in a request: a client's value for any of it is dropped before the scheme signs.
#[derive(Clone, Debug, Default)]
pub struct Owned {
    /// Fields.
    pub headers: Vec<HeaderName>,
    /// Query parameters, by decoded name.
    pub params: Vec<String>,
    /// Cookies.
    pub cookies: Vec<String>,
    /// Fields of a JSON or form body. The scheme replaces them itself when it signs.
    pub members: Vec<String>,
    /// Placeholders of the base path, `{name}` with the braces; empty text is the place in front of the client's path.
    pub segments: Vec<String>,
    /// Whether the client's own `Authorization` is to reach the upstream (`passthrough`).
    pub passes_authorization: bool,
    /// Whether the cookies of the upstream are the scheme's: it takes them out of answers, and those that it sends are as
    /// secret as a token.
    pub every_cookie: bool,
}

/// The work of signing: most schemes are done at once, some must read the body or fetch a token.
pub enum Signing<'a> {
    /// Done.
    Done(Result<(), Error>),
    /// Under way.
    Later(Pin<Box<dyn Future<Output = Result<(), Error>> + 'a>>),
}

/// The work of acquiring: a token that is there, or one that is waited for.
pub enum Acquiring<'a> {
    /// Done.
    Done(Result<Arc<Token>, Error>),
    /// Under way.
    Later(Pin<Box<dyn Future<Output = Result<Arc<Token>, Error>> + 'a>>),
}

/// An attempt that the upstream has answered.
pub struct Attempt<'a> {
    /// The call as it was before it was signed, without its body.
    pub call: &'a Call,
    /// What the scheme left in the call when it signed.
    pub ticket: Option<&'a Ticket>,
    /// Whether there can be a second attempt. If not, what is learnt serves the next call.
    pub again: bool,
    /// Whether this is the second one, after what the first has learnt.
    pub second: bool,
    /// What the upstream says. The body may be read, if it is put back.
    pub answer: &'a mut Response<Body>,
}

/// What a scheme makes of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// It goes to the client.
    Stands,
    /// It is a refusal that a fresh signature may turn into a success.
    Again,
}

/// The work of renewing.
pub enum Renewing<'a> {
    /// Done.
    Done(Result<Renewal, Error>),
    /// Under way.
    Later(Pin<Box<dyn Future<Output = Result<Renewal, Error>> + 'a>>),
}

/// One way to authenticate to an upstream. `Debug` of a scheme shows no secret.
pub trait Scheme: std::fmt::Debug + Send + Sync {
    /// What it owns in the request.
    fn owns(&self) -> Owned;

    /// Whose credential this call would carry: a fingerprint for the cache key and the audit record, made without
    /// I/O, stable for the life of the process and meaningless outside it. `None` where nothing is presented. It
    /// takes the call because some credentials are the caller's own.
    fn identity(&self, call: &Call) -> Option<Arc<str>>;

    /// Whether it sends something that must not travel in the clear (ruling G1).
    fn secret(&self) -> bool;

    /// Whether what it sends may be a secret that the configuration does not hold: a token that it fetched, a session. Then
    /// what it has put where it [owns](Scheme::owns) something is looked for in answers, call by call. To be `false` for
    /// schemes that send the configuration's own secrets, which are looked for anyway, and for those that send
    /// signatures, which are worth nothing to whoever sees them.
    fn fresh(&self) -> bool {
        true
    }

    /// Whether anything must change before the cache key is made.
    fn prepares(&self) -> bool {
        false
    }

    /// What must change before the cache key is made. Nothing, for most.
    ///
    /// # Errors
    /// Where the request cannot be signed at all.
    fn prepare(&self, _call: &mut Call) -> Result<(), Error> {
        Ok(())
    }

    /// What it gives to the expressions of its resource; `None` where it has no token. Whoever gives something implements
    /// [`Scheme::acquire`].
    fn gives(&self) -> Option<Gives> {
        None
    }

    /// Acquires its token before anything is filled in, where something waits for that. What it acquires is in
    /// `call.ticket` when it signs, and it is to present that very token.
    fn acquire<'a>(&'a self, _call: &'a Call) -> Option<Acquiring<'a>> {
        None
    }

    /// Signs this attempt.
    fn sign<'a>(&'a self, call: &'a mut Call) -> Signing<'a>;

    /// Where its token is had, where it has one: a step of a flow hands it on (ruling E2).
    fn seat(&self) -> Option<&Arc<grant::Seat>> {
        None
    }

    /// Whether its signature covers what other schemes set, so that it must sign last.
    fn seals(&self) -> bool {
        false
    }

    /// How a person gives it an account, where that is how it has its grant.
    fn consent(&self) -> Option<Arc<dyn consent::Consent>> {
        None
    }

    /// Whether it looks at answers at all: only then calls are kept for a second attempt (ruling D36).
    fn renews(&self) -> bool {
        false
    }

    /// Looks at an upstream's answer, good or bad, to an attempt that this scheme signed: was it a refusal, and is a
    /// second attempt worthwhile? There is at most one; its answer is shown here too, with `again` false.
    fn renew<'a>(&'a self, _attempt: Attempt<'a>) -> Renewing<'a> {
        Renewing::Done(Ok(Renewal::Stands))
    }
}

/// What a scheme must know of its resource.
#[derive(Clone, Copy, Debug)]
pub struct Context<'c> {
    /// The path of `base_url` as written, placeholders included; `shape` puts these very bytes in front of the
    /// client's path, less a trailing slash where the client's path brings its own (ruling D1).
    pub base_path: &'c str,
    /// `limits.buffer`, in bytes: the largest body that is held whole.
    pub buffer: u64,
    /// `limits.request_body`, in bytes.
    pub largest: Option<u64>,
    /// Whether the upstream is reached by TLS.
    pub secure: bool,
    /// The resource's name.
    pub resource: &'c str,
    /// Where `base_url` leads.
    pub origin: &'c Origin,
    /// What its expressions read: `vars`, `secrets`, `base`.
    pub settings: &'c Arc<Settings>,
    /// `hosts` of the resource: where a host that a template or a capture has made may be.
    pub hosts: Option<&'c Hosts>,
    /// Whether a template has made the host of `base_url`.
    pub made: bool,
    /// `allow_private`.
    pub private: bool,
    /// `tls` of the resource, which holds for its issuers too (ruling B22).
    pub tls: Option<&'c tls::Config>,
    /// The certificate of the list's `mtls`, where there is one; `tls` shows it already.
    pub certificate: Option<&'c Certificate>,
    /// Where relative paths begin.
    pub folders: &'c Folders,
    /// Whether a credential may travel over plain http (ruling G1).
    pub allow_http: bool,
    /// `timeouts.connect`.
    pub connect: Duration,
    /// `timeouts.head`.
    pub head: Duration,
    /// `timeouts.queue`.
    pub queue: Duration,
    /// The resource in its environment.
    pub owner: &'c connection::Owner,
    /// A variable of the environment, for identities that the configuration does not hold.
    pub ambient: fn(&str) -> Option<String>,
    /// All grants.
    pub tokens: &'c grant::Tokens,
    /// Whether the store outlives the process.
    pub durable: bool,
    /// The folder where commands run, if they may (`allow_exec`).
    pub commands: Option<&'c Path>,
}

impl Context<'_> {
    /// A scheme's own trust, with the certificate of the list, if there is one.
    fn certified(&self, trust: tls::Config, place: Place, problems: &Problems) -> Option<tls::Config> {
        let Some(certificate) = self.certificate else { return Some(trust) };
        let shown = tls::Config::showing(Some(&trust), certificate);
        shown.map_err(|error| problems.error(place, format!("TLS cannot be set up: {error}"), "")).ok()
    }
}

/// Everything that stands under one `auth`: all of it applies, in order. Clones share it.
#[derive(Clone, Debug)]
pub struct Auth(Arc<[Box<dyn Scheme>]>);

impl Auth {
    /// Presents nothing at all.
    pub fn nothing() -> Self {
        Self(Arc::new([]))
    }

    /// What its schemes own, together.
    pub fn owns(&self) -> Owned {
        self.0.iter().fold(Owned::default(), |mut all, scheme| {
            let one = scheme.owns();
            all.headers.extend(one.headers);
            all.params.extend(one.params);
            all.cookies.extend(one.cookies);
            all.members.extend(one.members);
            all.segments.extend(one.segments);
            all.passes_authorization |= one.passes_authorization;
            all.every_cookie |= one.every_cookie;
            all
        })
    }

    /// Whose credentials this call would carry: the fingerprints of all schemes, joined by `+`; `None` where nothing
    /// is presented.
    pub fn identity(&self, call: &Call) -> Option<Arc<str>> {
        if let [only] = &*self.0 {
            return only.identity(call);
        }
        let all: Vec<Arc<str>> = self.0.iter().filter_map(|scheme| scheme.identity(call)).collect();
        (!all.is_empty()).then(|| all.join("+").into())
    }

    /// Whether plain HTTP would show a credential, so that the configuration must refuse it (ruling G1).
    pub fn needs_tls(&self) -> bool {
        self.0.iter().any(|scheme| scheme.secret())
    }

    /// Whether any scheme sends secrets that the configuration does not hold.
    pub fn fresh(&self) -> bool {
        self.0.iter().any(|scheme| scheme.fresh())
    }

    /// Whether any scheme changes something before the cache key is made.
    pub fn prepares(&self) -> bool {
        self.0.iter().any(|scheme| scheme.prepares())
    }

    /// Changes what must change before the cache key is made.
    ///
    /// # Errors
    /// Where the request cannot be signed at all.
    pub fn prepare(&self, call: &mut Call) -> Result<(), Error> {
        self.0.iter().try_for_each(|scheme| scheme.prepare(call))
    }

    /// What its schemes give to expressions, one by one; empty where none has a token.
    pub fn gives(&self) -> Vec<Gives> {
        self.0.iter().filter_map(|scheme| scheme.gives()).collect()
    }

    /// Acquires what the schemes present, so that expressions can read it. Nothing of the call changes but
    /// `call.granted`.
    ///
    /// # Errors
    /// Why there is no token now.
    pub async fn acquire(&self, call: &mut Call) -> Result<(), Error> {
        let mut tokens = Vec::new();
        for (index, scheme) in self.0.iter().enumerate() {
            let token = match scheme.acquire(call) {
                None => continue,
                Some(Acquiring::Done(done)) => done?,
                Some(Acquiring::Later(work)) => work.await?,
            };
            tokens.push((index, token));
        }
        call.granted = Some(Box::new(granted::granted(tokens)));
        Ok(())
    }

    /// Signs this attempt with every scheme in turn; the first that fails ends it. Returns what they left for
    /// [`Auth::renew`].
    ///
    /// # Errors
    /// What a scheme fails with; the call is then half signed and must not be sent.
    pub async fn sign(&self, call: &mut Call) -> Result<Tickets, Error> {
        let mut tickets = Tickets::default();
        for (index, scheme) in self.0.iter().enumerate() {
            if let Some(granted) = &call.granted {
                call.ticket = granted.ticket(index);
            }
            match scheme.sign(call) {
                Signing::Done(done) => done?,
                Signing::Later(work) => work.await?,
            }
            if let Some(ticket) = call.ticket.take() {
                tickets.0.push((index, ticket));
            }
        }
        Ok(tickets)
    }

    /// How a person gives an account, for each scheme that has its grant so.
    pub fn consents(&self) -> impl Iterator<Item = Arc<dyn consent::Consent>> {
        self.0.iter().filter_map(|scheme| scheme.consent())
    }

    /// Whether any scheme looks at answers.
    pub fn renews(&self) -> bool {
        self.0.iter().any(|scheme| scheme.renews())
    }

    /// Shows an answer to every scheme: one that wants a second attempt is enough. `call` is the call before it was
    /// signed; `again` says whether it could be sent once more.
    ///
    /// # Errors
    /// What a scheme fails with.
    pub async fn renew(&self, call: &Call, tickets: &Tickets, again: bool, answer: &mut Response<Body>) -> Result<Renewal, Error> {
        let mut all = Renewal::Stands;
        for (index, scheme) in self.0.iter().enumerate() {
            let ticket = tickets.0.iter().find(|(of, _)| *of == index).map(|(_, ticket)| ticket);
            let one = match scheme.renew(Attempt { call, ticket, again, second: tickets.1, answer: &mut *answer }) {
                Renewing::Done(done) => done?,
                Renewing::Later(work) => work.await?,
            };
            if one == Renewal::Again {
                all = one;
            }
        }
        Ok(all)
    }
}

/// Reads the challenges of an answer as `digest` does, for `crate::fuzz`.
pub(crate) fn read_challenges(headers: &HeaderMap) {
    digest::read_challenges(headers);
}

/// Puts a cookie as `api_key` does, for `crate::fuzz`.
pub(crate) fn put_cookie(headers: &mut HeaderMap, name: &str, pair: &str) -> Result<(), Error> {
    let pair = field::Field::new(pair).map_err(|why| Error::Internal(why.into()))?;
    place::cookie(headers, name, &pair)
}

/// What the schemes left when they signed, each under its number.
#[derive(Debug, Default)]
pub struct Tickets(Vec<(usize, Ticket)>, bool);

impl Tickets {
    /// Those of a second attempt.
    #[must_use]
    pub fn of_second(self) -> Self {
        Self(self.0, true)
    }
}

/// What a scheme reads itself with.
#[derive(Clone, Copy)]
struct Reading<'r> {
    context: &'r Context<'r>,
    problems: &'r Problems,
    fingerprint: Fingerprint,
}

impl Owned {
    /// What both set, in words (ruling F29).
    fn clash(&self, other: &Self) -> Option<String> {
        if let Some(name) = self.claimed_headers().find(|h| other.claimed_headers().any(|o| folded(h) == folded(o))) {
            return Some(format!("the header `{name}`"));
        }
        if let Some(name) = common(&self.params, &other.params) {
            return Some(format!("the parameter `{name}`"));
        }
        if let Some(name) = common(&self.cookies, &other.cookies) {
            return Some(format!("the cookie `{name}`"));
        }
        if self.every_cookie && other.every_cookie {
            return Some("all cookies".into());
        }
        if let Some(name) = common(&self.members, &other.members) {
            return Some(format!("the body field `{name}`"));
        }
        // What goes in front of the client's path must know where the base path ends, which another value would move.
        let both = !self.segments.is_empty() && !other.segments.is_empty();
        let front = self.segments.iter().chain(&other.segments).any(String::is_empty);
        if both && (front || common(&self.segments, &other.segments).is_some()) {
            return Some("the same place in the path".into());
        }
        None
    }

    fn claimed_headers(&self) -> impl Iterator<Item = &HeaderName> {
        self.headers.iter().chain(self.passes_authorization.then_some(&AUTHORIZATION))
    }
}

/// Some upstreams read `_` as `-`, so the two are one name (ruling A17).
fn folded(name: &HeaderName) -> String {
    name.as_str().replace('_', "-")
}

fn common<'a>(one: &'a [String], other: &[String]) -> Option<&'a String> {
    one.iter().find(|name| other.contains(name))
}
