//! What is asked for before anybody opens a link: by the admin API and the command line, and by calls that find no
//! connection. Here is judged for whom a connection may be, and where its browser may land.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::session::New;
use super::{Desk, START, blocking, lock};
use crate::auth::connection::{self, Connection, DEFAULT, Gone, Owner, are_vars, is_name};
use crate::auth::pending::Redeemed;
use crate::call::Account;
use crate::config::resource::Consenting;
use crate::error::Error;
use crate::middleware::accounts::By;
use crate::net::Origin;
use crate::secret::Secret;

/// Longest address at which a browser lands.
const RETURN_MAX: usize = 2048;
/// How long a renewal may take that is under way for a connection which is taken away.
const SETTLE: Duration = Duration::from_secs(20);
/// Longest code that is looked at.
const CODE_MAX: usize = 128;

/// A connection that somebody wants.
#[derive(Debug, Default)]
pub struct Order {
    /// The resource.
    pub resource: String,
    /// The connection; `default` where it is not said.
    pub connection: Option<String>,
    /// The client whose it will be.
    pub client: Option<String>,
    /// Where the browser lands.
    pub return_url: Option<String>,
    /// Its own values of variables; `None`: those that it has, where it is there already.
    pub vars: Option<BTreeMap<String, String>>,
}

/// A session that has begun.
#[derive(Debug)]
pub struct Opened {
    /// Its name.
    pub id: String,
    /// Where the person goes.
    pub link: Secret,
    /// Where the provider sends the browser, as it must be registered there.
    pub redirect_uri: String,
    /// When it ends, in milliseconds since 1970.
    pub until: u64,
    /// The connection.
    pub connection: Arc<str>,
}

impl Desk {
    /// What an order comes to.
    ///
    /// # Errors
    /// Where there is nothing to connect, or not so.
    pub(super) fn judged(&self, order: Order) -> Result<(Consenting, Made), Error> {
        let snapshot = self.live.load_full();
        let resource = snapshot.resources.get(&*order.resource).ok_or_else(|| Error::UnknownResource(snapshot.known(20)))?;
        let hint = "Give its `oauth2_authorization_code` an `authorize_url`, its `oauth1` a `consent`, or use `oauth2_device`.";
        let consenting = resource.consent.as_ref();
        let consenting = consenting.ok_or_else(|| refused("Nobody can be asked for an account of this resource.", hint))?;
        let client = match &order.client {
            Some(client) if !is_name(client) => return Err(refused("This is no name of a client.", "")),
            Some(client) => Arc::from(client.as_str()),
            None => snapshot.anonymous.clone(),
        };
        let (name, client) = whose(consenting.by, order.connection.as_deref(), client)?;
        if order.vars.as_ref().is_some_and(|vars| !are_vars(vars)) {
            return Err(refused("These are no variables.", "vars: up to 32 names of letters, digits and _, with texts of up to 1 KiB"));
        }
        let return_url = order.return_url.map(|url| landing(&url)).transpose()?;
        let there = self.tokens.connections().shelf(&consenting.owner).find(&name);
        if there.as_ref().is_some_and(|there| there.client != client) {
            return Err(Error::Forbidden("The connection is another client's.".into(), "Choose another name for it.".into()));
        }
        // Who connects it anew means the same account: its variables say which tenant its calls are for.
        let vars = order.vars.or_else(|| there.map(|there| there.vars.clone())).unwrap_or_default();
        Ok((consenting.clone(), Made { name, client, vars, return_url, mending: false }))
    }

    /// The link for a call that found no connection.
    pub(super) fn mend(&self, owner: &Owner, name: &Arc<str>, client: Option<&Arc<str>>) -> Option<String> {
        let snapshot = self.live.load_full();
        let consenting = snapshot.resources.get(&*owner.resource)?.consent.as_ref().filter(|consenting| consenting.owner == *owner)?;
        // What is another client's cannot be mended, and is not told either: only another name can be had.
        let there = self.tokens.connections().shelf(owner).find(name);
        if there.as_ref().is_some_and(|there| there.client.as_ref() != client) {
            return None;
        }
        // What is mended stays the account that it was.
        let vars = there.map(|there| there.vars.clone()).unwrap_or_default();
        if let Some((session, link)) = lock(&self.sessions).mending(owner, name, client, (&consenting.bond, &vars), self.now()) {
            return Some(address(&session.redirect_uri, &link));
        }
        if consenting.consent.device().is_some() {
            return None;
        }
        let made = Made { name: name.clone(), client: client.cloned(), vars, return_url: None, mending: true };
        self.make(consenting, made).ok().map(|opened| opened.link.expose().to_owned())
    }

    /// Makes a connection of what a person consented to, for whoever brings the code. Where they say which session they have
    /// begun, it must be the code of that one.
    ///
    /// # Errors
    /// [`Error::Forbidden`] where nothing comes of the code.
    pub async fn redeem(&self, code: &str, session: Option<&str>) -> Result<(Owner, Arc<Account>), Error> {
        let (id, secret) = parts(code, session)?;
        let (connections, live, asked, now) = (self.tokens.connections().clone(), self.live.clone(), id.clone(), self.now());
        let fits = move |new: &connection::New| {
            let snapshot = live.load();
            let consent = snapshot.resources.get(&*new.owner.resource).and_then(|resource| resource.consent.as_ref());
            consent.is_some_and(|consent| consent.owner == new.owner && consent.bond == new.bond)
        };
        match blocking(move || connections.redeem(&asked, &secret, now, fits)).await? {
            Redeemed::Connected(owner, account) => {
                lock(&self.sessions).end(&id);
                let client = account.client.as_deref().unwrap_or("-");
                tracing::info!(resource = &*owner.resource, connection = &*account.name, client, "connected");
                Ok((owner, account))
            }
            Redeemed::Changed => {
                let why = "Since this was asked for, the resource has got another provider, client or address.";
                Err(Error::Forbidden(why.into(), "Connect again.".into()))
            }
            Redeemed::Nothing => Err(nothing()),
        }
    }

    /// What a code would connect: nothing is done with it.
    ///
    /// # Errors
    /// As [`Desk::redeem`].
    pub async fn shown(&self, code: &str, session: Option<&str>) -> Result<connection::New, Error> {
        let (id, secret) = parts(code, session)?;
        let (connections, now) = (self.tokens.connections().clone(), self.now());
        blocking(move || connections.shown(&id, &secret, now)).await?.ok_or_else(nothing)
    }

    /// Takes a connection away, and tells the issuer where it can be told. Returns whether it was told.
    ///
    /// # Errors
    /// Where there is no such connection, or the store fails.
    pub async fn disconnect(&self, resource: &str, name: &str) -> Result<bool, Error> {
        let snapshot = self.live.load_full();
        let environment = snapshot.environment.clone().unwrap_or_default();
        let owner = Owner { environment, resource: resource.into() };
        let (connections, name, asked) = (self.tokens.connections().clone(), name.to_owned(), owner.clone());
        let gone = blocking(move || connections.remove(&asked, &name)).await?;
        let Some(Gone { account, minted }) = gone else {
            return Err(Error::BadPath("There is no such connection.".into(), "GET /api/connections lists them.".into()));
        };
        tracing::info!(resource, connection = &*account.name, "disconnected");
        let consent = snapshot.resources.get(resource).and_then(|resource| resource.consent.clone());
        // What is under way for it may void what was stored: it is what comes of that which must be revoked.
        let begun = Connection::of(&account).and_then(Connection::begun);
        let (quiet, minted) = match begun {
            Some(grant) => (grant.quiet(SETTLE).await, grant.last().or(minted)),
            None => (true, minted),
        };
        // Another issuer than the one that gave it must not see it.
        let tied = |bond| Connection::of(&account).is_some_and(|connection| connection.is_tied_by(bond));
        match (consent, minted) {
            (Some(consenting), Some(minted)) if tied(&consenting.bond) => Ok(self.told(consenting.consent, minted).await && quiet),
            _ => Ok(false),
        }
    }

    /// All connections as people may see them.
    pub fn connections(&self) -> serde_json::Value {
        let moment = |millis: u64| jiff::Timestamp::from_millisecond(i64::try_from(millis).unwrap_or(i64::MAX)).map(|t| t.to_string()).ok();
        let views = self.tokens.connections().views(&self.tokens);
        let snapshot = self.live.load_full();
        let shown = views.into_iter().map(|view| {
            let connection = Connection::of(&view.account);
            let credential = connection.map(|connection| connection.identity().clone());
            let consent = snapshot.resources.get(&*view.owner.resource).and_then(|resource| resource.consent.as_ref());
            let consent = consent.filter(|consent| consent.owner == view.owner);
            let changed = consent.zip(connection).is_some_and(|(consent, connection)| !connection.is_tied_by(&consent.bond));
            let mut shown = serde_json::json!({
                "resource": &*view.owner.resource,
                "connection": &*view.account.name,
                "since": moment(view.since),
                "state": if changed { "changed" } else { view.state.unwrap_or("none") },
                "credential": credential.as_deref(),
            });
            if !view.owner.environment.is_empty() {
                shown["environment"] = (*view.owner.environment).into();
            }
            if let Some(client) = &view.account.client {
                shown["client"] = (**client).into();
            }
            if !view.account.vars.is_empty() {
                shown["vars"] = serde_json::json!(view.account.vars.keys().collect::<Vec<_>>());
            }
            shown
        });
        serde_json::json!({ "connections": shown.collect::<Vec<_>>() })
    }

    /// Begins a session for a browser.
    pub(super) fn make(&self, consenting: &Consenting, made: Made) -> Result<Opened, Error> {
        let redirect_uri = self.redirect_uri(&*consenting.consent)?;
        let now = self.now();
        let new = New {
            owner: consenting.owner.clone(),
            name: made.name.clone(),
            client: made.client,
            vars: made.vars,
            bond: consenting.bond.clone(),
            return_url: made.return_url,
            consent: consenting.consent.clone(),
            redirect_uri: redirect_uri.clone(),
            mending: made.mending,
        };
        // What can be kept nowhere is not begun.
        self.tokens.connections().store()?;
        let (id, link) = lock(&self.sessions).begin(new, now)?;
        let link = Secret::new(address(&redirect_uri, &link));
        Ok(Opened { id, link, redirect_uri, until: now + super::session::LIFE, connection: made.name })
    }
}

/// An order that was found good.
pub(super) struct Made {
    pub name: Arc<str>,
    pub client: Option<Arc<str>>,
    pub vars: BTreeMap<String, String>,
    return_url: Option<String>,
    mending: bool,
}

/// The session of a code, and what proves it.
fn parts(code: &str, session: Option<&str>) -> Result<(String, Secret), Error> {
    let (id, secret) = code.trim().split_once('.').filter(|_| code.len() <= CODE_MAX).ok_or_else(nothing)?;
    if session.is_some_and(|session| session != id) {
        return Err(Error::Forbidden("This code is of another session than the one that was begun.".into(), "Connect again.".into()));
    }
    Ok((id.to_owned(), Secret::new(secret.to_owned())))
}

fn nothing() -> Error {
    Error::Forbidden("Nothing comes of this code: it is wrong, was used, or is too old.".into(), "Connect again.".into())
}

/// A link's whole address: at the origin to which the provider sends the browser back, as the cookie is that origin's.
fn address(redirect_uri: &str, link: &Secret) -> String {
    let origin = Origin::of(redirect_uri).map_or_else(|_| String::new(), |(origin, _)| origin.to_string());
    [&origin, START, link.expose()].concat()
}

/// What a connection is called, and whose it is.
fn whose(by: Option<By>, name: Option<&str>, client: Arc<str>) -> Result<(Arc<str>, Option<Arc<str>>), Error> {
    if name.is_some_and(|name| !is_name(name)) {
        return Err(refused(
            "This is no name of a connection.",
            "Up to 64 letters, digits and . _ - @ +, beginning with a letter or digit.",
        ));
    }
    match (by, name) {
        (None, None | Some(DEFAULT)) => Ok((DEFAULT.into(), None)),
        (None, Some(_)) => {
            Err(refused("This resource has one account, which is called `default`.", "Give it `connections: { by: header }`."))
        }
        (Some(By::Header), name) => Ok((name.unwrap_or(DEFAULT).into(), Some(client))),
        (Some(By::Client), None) if is_name(&client) => Ok((client.clone(), Some(client))),
        (Some(By::Client), Some(name)) if *name == *client => Ok((name.into(), Some(client))),
        (Some(By::Client), _) => Err(refused("The connections of this resource are called as their clients are.", "Leave the name out.")),
    }
}

/// An address at which a browser may land: a program on this very machine that has asked for it (RFC 8252 section 7.3).
/// Any other would make of the gateway a way to send people, and codes, anywhere.
fn landing(url: &str) -> Result<String, Error> {
    let hint = "return_url: http://127.0.0.1:PORT/path";
    let wrong = || refused("Browsers land on loopback addresses, or where a client is registered to have them land.", hint);
    if url.len() > RETURN_MAX {
        return Err(wrong());
    }
    let (origin, _) = Origin::of(url).map_err(|_| wrong())?;
    let local = matches!(origin.ip(), Some(IpAddr::V4(ip)) if ip.octets() == [127, 0, 0, 1])
        || matches!(origin.ip(), Some(IpAddr::V6(ip)) if ip.is_loopback());
    if origin.is_https() || !local || origin.port() == 80 {
        return Err(wrong());
    }
    Ok(url.to_owned())
}

fn refused(why: &'static str, hint: &'static str) -> Error {
    Error::BadRequest(why.into(), hint.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn browsers_land_on_this_machine_only() {
        for good in ["http://127.0.0.1:4000/", "http://127.0.0.1:4000/a?b=c", "http://[::1]:4000/x"] {
            assert!(landing(good).is_ok(), "{good}");
        }
        for wrong in [
            "https://evil.example/",
            "http://evil.example:4000/",
            "http://localhost:4000/",
            "http://127.0.0.1/",
            "http://127.0.0.1:80/",
            "http://127.0.0.1.evil.example:4000/",
            "http://127.0.0.1:4000@evil.example/",
            "http://evil.example:4000/http://127.0.0.1:4000/",
            "//127.0.0.1:4000/",
            "http://127.0.0.1:4000\\@evil.example/",
            "http://127.0.0.1:4000/\r\nLocation: x",
            "http://127.0.0.1:4000/#f",
            "http://0.0.0.0:4000/",
            "http://10.0.0.1:4000/",
            "http://127.0.0.2:4000/",
            "http://0x7f000001:4000/",
            "http://2130706433:4000/",
            "https://127.0.0.1:4000/",
            "javascript:alert(1)",
            "",
        ] {
            assert!(landing(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn whose_a_connection_is_follows_from_the_resource() {
        let of = |by, name| whose(by, name, "app".into()).map(|(name, client)| (name.to_string(), client.map(|c| c.to_string())));
        assert_eq!(of(None, None).unwrap(), ("default".into(), None));
        assert_eq!(of(Some(By::Header), Some("a")).unwrap(), ("a".into(), Some("app".into())));
        assert_eq!(of(Some(By::Client), None).unwrap(), ("app".into(), Some("app".into())));
        for wrong in [of(None, Some("a")), of(Some(By::Client), Some("a")), of(Some(By::Header), Some("a b"))] {
            assert!(wrong.is_err());
        }
    }
}
