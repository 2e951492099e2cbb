//! Tokens by OAuth 2: client credentials, password, JWT and SAML bearer (RFC 7523, 7522), token exchange (RFC 8693), and refresh tokens
//! (RFC 6749). All grants share one call with every dialect as a key; a grant is a row of [`Kind`]'s methods.
//!
//! The `oauth2` crate is not used: it writes forms only, knows two of the seven ways in which clients say who they are,
//! and reads answers of one shape. What it would do is the small part of what issuers ask for.

pub(super) mod call;
pub(super) mod client;
mod consent;
mod device;
mod discovery;
pub(super) mod form;
mod read;
mod registration;
pub(super) mod reply;
pub(super) mod trouble;

use crate::auth::assertion::{self, Signer};
use crate::auth::expiry;
use crate::auth::grant::{Ask, Fetching, Source};
use crate::auth::said::Said;
use crate::auth::saml::Saml;
use crate::auth::token::{Failure, Minted};
use crate::auth::whose::{Asking, Reads};
use crate::clock::Clock;
use crate::error::{Error, Trouble};
use crate::expr::{Moments, Name, Names};
use crate::secret::Secret;
use call::Call;
pub use device::read as device;
use form::Form;
pub use read::{Kind, PATIENCE, asserted, read, written};
use serde_json::Value as Json;
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
    /// Those that hold expressions.
    pub said: Vec<(&'static str, Said)>,
    /// Whether the client's own token is what is exchanged (`subject: client`).
    pub bearer: bool,
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
        issuer: Said,
        /// Further claims, and standard ones that are replaced or removed.
        claims: Said,
    },
    /// Made by somebody else (ruling F46).
    Made(Secret),
    /// SAML, likewise anew for each attempt (RFC 7522).
    Saml(Box<Saml>),
}

impl First {
    /// What its expressions read.
    fn names(&self) -> Names {
        let assertion = match &self.assertion {
            Some(Assertion::Signed { issuer, claims, .. }) => issuer.names().with(claims.names()),
            _ => Names::NONE,
        };
        self.said.iter().fold(assertion, |names, (_, said)| names.with(said.names()))
    }

    /// A refusal, told to whoever can mend it.
    fn told(&self, failure: Failure) -> Failure {
        match failure {
            Failure::Refused(trouble) if self.bearer => {
                Failure::Refused(Trouble { hint: "Send a token of yours that the issuer takes.".into(), ..trouble })
            }
            other => other,
        }
    }

    /// `url` is where it goes, for the audience of an assertion that names none.
    fn form(&self, url: &str, asking: &Asking<'_>) -> Result<Form, Failure> {
        let mut form = self.form.clone();
        for (name, said) in &self.said {
            match call::Argument::Said(said.clone()).make(asking)? {
                Some(value) => form.set(name, value),
                None => form.remove(name),
            }
        }
        if self.bearer {
            let bearer = asking.ask().whose.bearer().cloned();
            form.set("subject_token", bearer.ok_or_else(|| Failure::Own(Error::Internal("a token for nobody".into())))?);
        }
        match &self.assertion {
            None => {}
            Some(Assertion::Made(made)) => form.set("assertion", made.clone()),
            Some(Assertion::Saml(saml)) => form.set("assertion", saml.parameter(asking.ask().clock.millis()).map_err(Failure::Own)?),
            Some(Assertion::Signed { signer, issuer, claims }) => {
                let issuer = issuer.make(asking, Moments::Refused)?.json;
                let mut all = assertion::claims(issuer.as_str().unwrap_or_default(), asking.ask().clock.millis());
                if !issuer.is_string() {
                    all.insert("iss".into(), issuer);
                }
                all.insert("aud".into(), url.into());
                if let Json::Object(claims) = claims.make(asking, Moments::Seconds)?.json {
                    all.extend(claims);
                }
                form.set("assertion", Secret::new(signer.sign(&all)?));
            }
        }
        Ok(form)
    }
}

impl Oauth {
    /// A grant that begins with a person's consent, and goes on with the refresh token that it brought.
    pub fn consented(call: Call, refresh: Call) -> Self {
        Self { first: None, refresh: Some(refresh), call, refresh_token: None, consent: None, finder: None, must_keep: true }
    }

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

    /// What acquisitions read of the caller (ruling G4).
    pub fn reads(&self) -> Reads {
        let bearer = self.first.as_ref().is_some_and(|first| first.bearer);
        let account = self.names().has(Name::Vars) && self.call.settings.unsettled().has(Name::Vars);
        Reads { client: self.names().and(Names::CLIENT), bearer, account }
    }

    /// All that its expressions read.
    pub fn names(&self) -> Names {
        let first = self.first.as_ref().map_or(Names::NONE, First::names);
        let refresh = self.refresh.as_ref().map_or(Names::NONE, Call::names);
        first.with(refresh).with(self.call.names())
    }

    /// A refresh, where there is something to refresh with.
    async fn refreshed(&self, ask: Ask<'_>) -> Option<Result<Minted, Failure>> {
        let call = self.refresh.as_ref()?;
        let token = ask.before.and_then(|b| b.refresh.as_ref()).or(self.refresh_token.as_ref())?;
        let mut form = Form::default();
        form.set("grant_type", "refresh_token");
        form.set("refresh_token", token.clone());
        let call = match self.ready(call, ask.clock).await {
            Ok(call) => call,
            Err(failure) => return Some(Err(failure)),
        };
        let sent = call.send(Step::Refresh, form, &Asking::new(&call.settings, ask)).await;
        // An answer without a refresh token keeps the one that was sent, also if it is the configured one.
        Some(sent.map(|minted| {
            let rotates = minted.rotates || minted.refresh.as_ref().is_some_and(|new| new != token);
            Minted { refresh: minted.refresh.or_else(|| Some(token.clone())), rotates, ..minted }
        }))
    }

    async fn begun(&self, ask: Ask<'_>) -> Result<Minted, Failure> {
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
        let call = self.ready(&self.call, ask.clock).await?;
        // What a redirect has brought once is the account's for good; all else begins anew.
        let kept = ask.before.filter(|_| self.consent.is_some());
        let kept = kept.map(|before| Minted { captured: before.captured.clone(), ..Minted::default() });
        let asking = Asking::new(&call.settings, Ask { before: kept.as_ref(), ..ask });
        let form = first.form(call.endpoint.at(&asking)?.url(), &asking)?;
        let mut minted = call.send(Step::Token, form, &asking).await.map_err(|failure| first.told(failure))?;
        if let Some(before) = ask.before.filter(|_| self.consent.is_some()) {
            // What a callback brought belongs to the grant, and no later answer has it.
            for (name, held) in before.captured.iter() {
                if minted.captured.get(name).is_none() {
                    minted.captured.insert(name, held.clone()).map_err(|why| Failure::Own(Error::Internal(why.0.into())))?;
                }
            }
        }
        // What was had for a client's token ends with that, whatever the issuer says.
        let end = ask.whose.bearer().and_then(|bearer| expiry::of_jwt(bearer.expose()));
        minted.expires = minted.expires.into_iter().chain(end).min();
        Ok(minted)
    }
}

impl Source for Oauth {
    fn fetch<'a>(&'a self, ask: Ask<'a>) -> Fetching<'a> {
        Box::pin(async move {
            match self.refreshed(ask).await {
                // A refresh token that is spent is no reason to give up where the grant can begin anew.
                Some(Err(Failure::Refused(_) | Failure::Denied(..))) if self.first.is_some() => self.begun(ask).await,
                Some(done) => done,
                None => self.begun(ask).await,
            }
        })
    }

    fn must_keep(&self) -> bool {
        self.must_keep
    }

    fn renews(&self, minted: &Minted) -> bool {
        let refreshes = self.refresh.is_some() && (self.refresh_token.is_some() || minted.refresh.is_some());
        refreshes || self.first.is_some()
    }
}
