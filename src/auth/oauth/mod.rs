//! Tokens by OAuth 2: client credentials, password, JWT and SAML bearer (RFC 7523, 7522), token exchange (RFC 8693), and refresh tokens
//! (RFC 6749). All grants share one call with every dialect as a key; a grant is a row of [`Kind`]'s methods.
//!
//! The `oauth2` crate is not used: it writes forms only, knows two of the seven ways in which clients say who they are,
//! and reads answers of one shape. What it would do is the small part of what issuers ask for.

pub(super) mod call;
pub(super) mod client;
mod consent;
mod discovery;
pub(super) mod form;
mod read;
mod registration;
pub(super) mod reply;
pub(super) mod trouble;

use crate::auth::assertion::{self, Signer};
use crate::auth::grant::{Ask, Fetching, Source};
use crate::auth::saml::Saml;
use crate::auth::token::{Failure, Minted};
use crate::clock::Clock;
use crate::error::Trouble;
use crate::secret::Secret;
use call::Call;
use form::Form;
pub use read::{Kind, PATIENCE, asserted, read, written};
use serde_json::{Map, Value as Json};
use trouble::Step;

/// A grant of OAuth 2, as the configuration has it.
#[derive(Debug)]
pub struct Oauth {
    /// The first call; none where only a person can begin (`oauth2_authorization_code`).
    pub first: Option<First>,
    /// How it is made.
    pub call: Call,
    /// How a refresh is made; none where a grant is simply begun anew.
    pub refresh: Option<Call>,
    /// `refresh_token` as configured.
    pub refresh_token: Option<Secret>,
    /// How a person gives it, where nobody has given a refresh token.
    pub consent: Option<std::sync::Arc<consent::ByCode>>,
    /// Finds out what is not written.
    pub finder: Option<std::sync::Arc<discovery::Finder>>,
    /// Whether a refresh token that is lost loses the grant.
    pub must_keep: bool,
}

/// What is special in the first call.
#[derive(Debug)]
pub struct First {
    /// Standard parameters.
    pub form: Form,
    /// The assertion, where there is one.
    pub assertion: Option<Assertion>,
}

/// The assertion of a JWT bearer grant.
#[derive(Debug)]
pub enum Assertion {
    /// Signed anew for each attempt (ruling F33).
    Signed {
        /// The key.
        signer: Box<Signer>,
        /// `iss`.
        issuer: String,
        /// Further claims, and standard ones that are replaced or removed.
        claims: Map<String, Json>,
    },
    /// Made by somebody else (ruling F46).
    Made(Secret),
    /// SAML, likewise anew for each attempt (RFC 7522).
    Saml(Box<Saml>),
}

impl First {
    fn form(&self, clock: &Clock) -> Result<Form, Failure> {
        let mut form = self.form.clone();
        match &self.assertion {
            None => {}
            Some(Assertion::Made(made)) => form.set("assertion", made.clone()),
            Some(Assertion::Saml(saml)) => form.set("assertion", saml.parameter(clock.millis()).map_err(Failure::Own)?),
            Some(Assertion::Signed { signer, issuer, claims }) => {
                let mut all = assertion::claims(issuer, clock.millis());
                all.extend(claims.iter().map(|(name, value)| (name.clone(), value.clone())));
                form.set("assertion", Secret::new(signer.sign(&all)?));
            }
        }
        Ok(form)
    }
}

impl Oauth {
    /// A grant that is a refresh token which nobody replaces.
    pub fn refreshing(call: Call, token: Secret) -> Self {
        Self { first: None, refresh: Some(call.clone()), call, refresh_token: Some(token), consent: None, finder: None, must_keep: false }
    }

    /// A call with what was found out put in.
    async fn ready<'c>(&self, call: &'c Call, clock: &Clock) -> Result<std::borrow::Cow<'c, Call>, Failure> {
        use std::borrow::Cow;
        match &self.finder {
            None => Ok(Cow::Borrowed(call)),
            Some(finder) => finder.complete(call, clock.millis()).await.map(Cow::Owned),
        }
    }

    /// A refresh, where there is something to refresh with.
    async fn refreshed(&self, before: Option<&Minted>, clock: &Clock) -> Option<Result<Minted, Failure>> {
        let call = self.refresh.as_ref()?;
        let token = before.and_then(|b| b.refresh.as_ref()).or(self.refresh_token.as_ref())?;
        let mut form = Form::default();
        form.set("grant_type", "refresh_token");
        form.set("refresh_token", token.clone());
        let call = match self.ready(call, clock).await {
            Ok(call) => call,
            Err(failure) => return Some(Err(failure)),
        };
        let sent = call.send(Step::Refresh, form, before, clock).await;
        // An answer without a refresh token keeps the one that was sent, also if it is the configured one.
        Some(sent.map(|minted| {
            let rotates = minted.rotates || minted.refresh.as_ref().is_some_and(|new| new != token);
            Minted { refresh: minted.refresh.or_else(|| Some(token.clone())), rotates, ..minted }
        }))
    }

    async fn begun(&self, clock: &Clock) -> Result<Minted, Failure> {
        let Some(first) = &self.first else {
            let hint = if self.consent.is_some() {
                "Connect the account again."
            } else {
                "Put a refresh token into the configuration and reload."
            };
            return Err(Failure::Refused(Trouble {
                detail: "There is no refresh token to have a token with.".into(),
                hint: hint.into(),
                cause: "a grant has neither a refresh token nor a way to begin without a person".into(),
            }));
        };
        self.ready(&self.call, clock).await?.send(Step::Token, first.form(clock)?, None, clock).await
    }
}

impl Source for Oauth {
    fn fetch<'a>(&'a self, ask: Ask<'a>) -> Fetching<'a> {
        Box::pin(async move {
            match self.refreshed(ask.before, ask.clock).await {
                // A refresh token that is spent is no reason to give up where the grant can begin anew.
                Some(Err(Failure::Refused(_) | Failure::Denied(..))) if self.first.is_some() => self.begun(ask.clock).await,
                Some(done) => done,
                None => self.begun(ask.clock).await,
            }
        })
    }

    fn must_keep(&self) -> bool {
        self.must_keep
    }
}
