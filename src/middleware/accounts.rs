//! Which account a call is made for, where its resource has several (`connections`, product section 6): the one that the
//! client names by `Postern-Connection`, the one that bears the client's own name, or `default`. What a client may not use
//! is not there for it. Where there is none, or its issuer has refused it, the answer is 424 with the link that mends it.

use std::sync::Arc;

use http::{HeaderMap, HeaderName};

use super::{Answer, Next, Step};
use crate::auth::bond::Bond;
use crate::auth::connection::{Connection, Connections, DEFAULT, Owner, Shelf, is_name};
use crate::auth::token::State;
use crate::call::{Account, Call};
use crate::clock::Clock;
use crate::error::{Error, Missing};

/// Names the connection; never forwarded.
pub const POSTERN_CONNECTION: HeaderName = HeaderName::from_static("postern-connection");

/// What names the connection (`connections.by`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// The client says so in each request.
    Header,
    /// The client's own name is that of its connection.
    Client,
}

impl By {
    /// All of them by their words.
    pub const ALL: [(&'static str, Self); 2] = [("header", Self::Header), ("client", Self::Client)];
}

/// The step that finds the account.
#[derive(Debug)]
pub struct Accounts {
    owner: Owner,
    bond: Bond,
    shelf: Arc<Shelf>,
    connections: Connections,
    clock: Clock,
    /// `None`: the resource has one account, whoever calls.
    by: Option<By>,
    /// Whether nothing is sent, so that no account is needed.
    rehearses: bool,
}

impl Accounts {
    /// The accounts of one resource, as far as this ties them to it.
    pub fn new(owner: Owner, bond: Bond, by: Option<By>, tokens: &crate::auth::grant::Tokens) -> Self {
        let connections = tokens.connections().clone();
        let (shelf, clock) = (connections.shelf(&owner), tokens.clock().clone());
        Self { owner, bond, shelf, connections, clock, by, rehearses: tokens.rehearses() }
    }

    /// The name of the connection that a call is for.
    fn name(&self, call: &Call) -> Result<Arc<str>, Error> {
        let said = said(&call.headers)?;
        match (self.by, said) {
            (Some(By::Header), Some(name)) => Ok(name.into()),
            (Some(By::Header) | None, None) | (None, Some(DEFAULT)) => Ok(DEFAULT.into()),
            (Some(By::Client), None) => Ok(call.caller.name.clone()),
            (Some(By::Client), Some(name)) if *name == *call.caller.name => Ok(name.into()),
            (Some(By::Client), Some(_)) => {
                Err(refused("The connection of this resource is the client's own.", "Leave Postern-Connection out."))
            }
            (None, Some(_)) => Err(unconnected()),
        }
    }

    fn missing(&self, name: Arc<str>, caller: &Arc<str>, dead: bool) -> Error {
        let client = self.by.map(|_| caller);
        let link = self.connections.link(&self.owner, &name, client);
        Error::ConnectionMissing(Box::new(Missing { resource: self.owner.resource.clone(), connection: name, dead, link }))
    }

    /// Whether the client may use it. What belongs to nobody belongs to whoever may use the resource.
    fn is_open(&self, account: &Account, call: &Call) -> bool {
        account.client.as_ref().is_none_or(|client| *client == call.caller.name)
    }
}

impl Step for Accounts {
    async fn handle(&self, mut call: Call, next: &impl Next) -> Answer {
        let name = self.name(&call)?;
        call.record.borrow_mut().connection = Some(name.clone());
        if self.rehearses {
            return next.run(call).await;
        }
        let Some(account) = self.shelf.find(&name).filter(|account| self.is_open(account, &call)) else {
            return Err(self.missing(name, &call.caller.name, false));
        };
        // What one issuer gave for one place is shown to no other, whatever the configuration says by now.
        if !Connection::of(&account).is_some_and(|connection| connection.is_tied_by(&self.bond)) {
            return Err(self.missing(name, &call.caller.name, true));
        }
        call.account = Some(account.clone());
        let caller = call.caller.name.clone();
        match next.run(call).await {
            Err(Error::CredentialRefused(_)) if is_dead(&account, &self.clock) => Err(self.missing(name, &caller, true)),
            answer => answer,
        }
    }
}

/// Refuses a name where a resource has no connections: a client that believes it chose an account must not get another.
///
/// # Errors
/// [`Error::BadRequest`].
pub fn none_named(headers: &HeaderMap) -> Result<(), Error> {
    if headers.contains_key(POSTERN_CONNECTION) { Err(unconnected()) } else { Ok(()) }
}

fn is_dead(account: &Account, clock: &Clock) -> bool {
    Connection::of(account).and_then(Connection::begun).is_some_and(|grant| grant.state(clock.millis()) == State::Refused)
}

fn said(headers: &HeaderMap) -> Result<Option<&str>, Error> {
    let mut fields = headers.get_all(POSTERN_CONNECTION).iter();
    let Some(field) = fields.next() else { return Ok(None) };
    match field.to_str().ok().filter(|name| is_name(name) && fields.next().is_none()) {
        Some(name) => Ok(Some(name)),
        None => Err(refused("Postern-Connection does not name a connection.", "Send one name of up to 64 letters, digits and . _ - @ +.")),
    }
}

fn unconnected() -> Error {
    refused(
        "This resource has no connections to choose from.",
        "Leave Postern-Connection out, or give the resource `connections: { by: header }`.",
    )
}

fn refused(why: &'static str, hint: &'static str) -> Error {
    Error::BadRequest(why.into(), hint.into())
}
