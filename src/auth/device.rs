//! Consent on another device (RFC 8628): the gateway is given a code to show, a person types it in wherever they have a
//! browser, and the gateway asks until they have. Who may begin it, and what becomes of the token, is `connect`'s affair.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::auth::consent::Working;
use crate::auth::token::Minted;
use crate::clock::Clock;
use crate::secret::Secret;

/// The connection's own values of variables, for expressions.
pub type Vars = BTreeMap<String, String>;

/// What a person is shown, and what is asked with meanwhile.
#[derive(Clone, Debug)]
pub struct Shown {
    /// What they type in.
    pub user_code: String,
    /// Where.
    pub uri: String,
    /// The same with the code in it, where the issuer has such an address.
    pub complete: Option<String>,
    /// How often may be asked.
    pub interval: Duration,
    /// How long the code lives.
    pub life: Duration,
    /// What is asked with.
    pub device_code: Secret,
}

/// What the issuer says when it is asked.
#[derive(Debug)]
pub enum Said {
    /// The person has consented.
    Given(Box<Minted>),
    /// Not yet.
    Wait,
    /// Not yet, and it was asked too soon.
    SlowDown,
}

/// A way to have a grant by a person's consent on another device.
pub trait Device: std::fmt::Debug + Send + Sync {
    /// Has a code to show.
    fn show<'a>(&'a self, vars: &'a Vars, clock: &'a Clock) -> Working<'a, Shown>;

    /// Asks whether the person has consented.
    fn ask<'a>(&'a self, device_code: &'a Secret, vars: &'a Vars, clock: &'a Clock) -> Working<'a, Said>;
}
