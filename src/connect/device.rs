//! Consent on another device (RFC 8628): whoever may ask for a connection is told a code; a person types it in elsewhere,
//! and the issuer is asked until they have, in the background. No link leads to this: a code that anybody could have made
//! would let them show it to somebody else, whose account they would then use. So only the admin API and the command line
//! begin it, and a call that finds no connection says how.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use super::order::Made;
use super::{Desk, Order, blocking, cause, lock, session};
use crate::auth::connection::{New, Owner};
use crate::auth::consent::{Consent, Refusal};
use crate::auth::device::{Said, Shown, Vars};
use crate::auth::grant::Tokens;
use crate::auth::token::{Failure, Minted};
use crate::config::resource::Consenting;
use crate::error::Error;

/// Most codes that are shown at once.
const SHOWN_MAX: usize = 64;
/// How long it is told what became of one, in milliseconds.
const TOLD: u64 = 10 * 60 * 1000;
/// How much slower is asked after each word to slow down (RFC 8628 section 3.5).
const SLOWER: Duration = Duration::from_secs(5);
/// Longest wait between two questions.
const INTERVAL_MAX: Duration = Duration::from_secs(60);
/// Length of a name.
const NAME: usize = 12;

/// What has begun.
#[derive(Debug)]
pub enum Begun {
    /// A browser is to be sent to a link.
    Browser(super::Opened),
    /// A person is to be shown a code.
    Device(Showing),
}

/// A code that is shown.
#[derive(Debug)]
pub struct Showing {
    /// The name of the session.
    pub id: String,
    /// What is shown.
    pub shown: Shown,
    /// When it ends, in milliseconds since 1970.
    pub until: u64,
    /// The connection.
    pub connection: Arc<str>,
}

/// All codes that are shown, and what became of the last ones.
#[derive(Debug, Default)]
pub(super) struct Devices(HashMap<String, Device>);

#[derive(Debug)]
struct Device {
    owner: Owner,
    name: Arc<str>,
    /// When it is forgotten.
    until: u64,
    state: State,
}

/// What became of a code.
#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Pending,
    Connected,
    /// The word for it, and what there is to say.
    Over(&'static str, String),
}

impl Devices {
    /// Notes a code. One for the same connection that is still shown is not asked about any more.
    fn begin(&mut self, owner: Owner, name: Arc<str>, until: u64, now: u64) -> Result<String, Error> {
        self.0.retain(|_, device| now < device.until);
        for device in self.0.values_mut().filter(|d| d.owner == owner && d.name == name && d.state == State::Pending) {
            device.state = State::Over("replaced", "another code was asked for".into());
        }
        if self.0.values().filter(|device| device.state == State::Pending).count() >= SHOWN_MAX {
            return Err(Error::Overloaded("The room for people who connect accounts".into()));
        }
        let id = session::drawn(NAME)?.expose().to_owned();
        self.0.insert(id.clone(), Device { owner, name, until: until + TOLD, state: State::Pending });
        Ok(id)
    }

    fn is_pending(&self, id: &str) -> bool {
        self.0.get(id).is_some_and(|device| device.state == State::Pending)
    }

    fn end(&mut self, id: &str, state: State) {
        if let Some(device) = self.0.get_mut(id).filter(|device| device.state == State::Pending) {
            device.state = state;
        }
    }
}

impl Desk {
    /// Begins what is asked for, in the way that the resource has.
    ///
    /// # Errors
    /// Where there is nothing to connect, or not so, or the issuer gives no code.
    pub async fn begin(&self, order: Order) -> Result<Begun, Error> {
        let (consenting, made) = self.judged(order)?;
        if consenting.consent.device().is_none() {
            return self.make(&consenting, made).map(Begun::Browser);
        }
        // What can be kept nowhere is not begun.
        self.tokens.connections().store()?;
        let background = self.tokens.background().ok_or_else(|| Error::Internal("there is no background".into()))?;
        let (consent, vars, clock) = (consenting.consent.clone(), made.vars.clone(), self.tokens.clock().clone());
        let shown = background.run(move || async move { shown(&*consent, &vars, &clock).await }).await?;
        let now = self.now();
        let until = now + u64::try_from(shown.life.as_millis()).unwrap_or(u64::MAX);
        let id = lock(&self.devices).begin(consenting.owner.clone(), made.name.clone(), until, now)?;
        let connection = made.name.clone();
        let asking = Asking {
            id: id.clone(),
            consenting,
            made,
            shown: shown.clone(),
            until,
            devices: self.devices.clone(),
            tokens: self.tokens.clone(),
        };
        background.spawn(move || asking.run())?;
        Ok(Begun::Device(Showing { id, shown, until, connection }))
    }

    /// What became of a code; `None` where there is none of that name.
    pub fn session(&self, id: &str) -> Option<Value> {
        let devices = lock(&self.devices);
        let device = devices.0.get(id)?;
        let (state, detail) = match &device.state {
            State::Pending => ("pending", None),
            State::Connected => ("connected", None),
            State::Over(word, detail) => (*word, Some(detail)),
        };
        Some(json!({ "session": id, "resource": &*device.owner.resource, "connection": &*device.name, "state": state, "detail": detail }))
    }
}

async fn shown(consent: &dyn Consent, vars: &Vars, clock: &crate::clock::Clock) -> Result<Shown, Error> {
    let device = consent.device().ok_or_else(|| Error::Internal("a consent without a device".into()))?;
    device.show(vars, clock).await.map_err(|refusal| match refusal {
        Refusal::Failed(failure) => failure.error(failure.asked().unwrap_or(Duration::from_secs(1))),
        other => Error::BadRequest(cause(&other).into(), "Check the scheme's settings against the issuer's manual.".into()),
    })
}

/// Asks until the person has consented, or will not any more.
struct Asking {
    id: String,
    consenting: Consenting,
    made: Made,
    shown: Shown,
    until: u64,
    devices: Arc<Mutex<Devices>>,
    tokens: Tokens,
}

impl Asking {
    async fn run(self) {
        let (resource, connection) = (self.consenting.owner.resource.clone(), self.made.name.clone());
        let state = match self.ask().await {
            Some(state) => state,
            None => return,
        };
        match &state {
            State::Over(word, detail) => {
                tracing::warn!(resource = &*resource, connection = &*connection, "not connected: {word}: {detail}")
            }
            _ => tracing::info!(resource = &*resource, connection = &*connection, "connected"),
        }
        lock(&self.devices).end(&self.id, state);
    }

    /// `None` once another code has taken this one's place.
    async fn ask(&self) -> Option<State> {
        let device = self.consenting.consent.device()?;
        let clock = self.tokens.clock();
        let mut interval = self.shown.interval;
        loop {
            tokio::time::sleep(interval).await;
            if !lock(&self.devices).is_pending(&self.id) {
                return None;
            }
            if clock.millis() >= self.until {
                return Some(State::Over("expired", "nobody typed the code in".into()));
            }
            match device.ask(&self.shown.device_code, &self.made.vars, clock).await {
                Ok(Said::Given(minted)) => return Some(self.keep(*minted).await),
                Ok(Said::Wait) => {}
                Ok(Said::SlowDown) => interval = (interval + SLOWER).min(INTERVAL_MAX),
                Err(Refusal::Denied(code, said)) => {
                    let word = match &*code {
                        "access_denied" => "denied",
                        "expired_token" => "expired",
                        _ => "failed",
                    };
                    let said = said.map(|said| format!("{code}: {said}"));
                    return Some(State::Over(word, said.unwrap_or(code)));
                }
                // The person may still be on the way: the issuer is asked less often.
                Err(Refusal::Failed(failure)) if matches!(*failure, Failure::Down(..) | Failure::Unknown(_) | Failure::Own(_)) => {
                    tracing::warn!(
                        resource = &*self.consenting.owner.resource,
                        "the issuer cannot be asked about a code: {}",
                        failure.cause()
                    );
                    interval = (interval * 2).min(INTERVAL_MAX);
                }
                Err(refusal) => return Some(State::Over("failed", cause(&refusal))),
            }
        }
    }

    /// Stores what the issuer gave, and only then is there a connection.
    async fn keep(&self, minted: Minted) -> State {
        let (connections, now) = (self.tokens.connections().clone(), self.tokens.clock().millis());
        let new = New {
            owner: self.consenting.owner.clone(),
            name: self.made.name.clone(),
            client: self.made.client.clone(),
            vars: self.made.vars.clone(),
            bond: self.consenting.bond.clone(),
        };
        match blocking(move || connections.put(new, &minted, now)).await {
            Ok(_) => State::Connected,
            Err(error) => State::Over("failed", error.detail().into_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner() -> Owner {
        Owner { environment: "".into(), resource: "api".into() }
    }

    #[test]
    fn a_second_code_for_a_connection_takes_the_place_of_the_first() {
        let mut devices = Devices::default();
        let first = devices.begin(owner(), "default".into(), 1000, 0).unwrap();
        let other = devices.begin(owner(), "other".into(), 1000, 0).unwrap();
        let second = devices.begin(owner(), "default".into(), 1000, 0).unwrap();
        assert_eq!([&first, &other, &second].map(|id| devices.is_pending(id)), [false, true, true]);
        devices.end(&first, State::Connected);
        assert!(matches!(devices.0[&first].state, State::Over("replaced", _)));
    }

    #[test]
    fn codes_are_bounded_and_forgotten() {
        let mut devices = Devices::default();
        for n in 0..SHOWN_MAX {
            devices.begin(owner(), n.to_string().into(), 1000, 0).unwrap();
        }
        assert!(devices.begin(owner(), "more".into(), 1000, 0).is_err());
        // One for a connection that is shown already takes no room.
        assert!(devices.begin(owner(), "0".into(), 1000, 0).is_ok());
        assert!(devices.begin(owner(), "more".into(), 1000 + 2 * TOLD, 1000 + TOLD).is_ok());
        assert_eq!(devices.0.len(), 1);
    }
}
