//! What went wrong with a token call, told for the client, for the operator and for the log. None of it holds what was
//! sent or what a token could be.

use std::time::Duration;

use http::StatusCode;

use crate::auth::token::Failure;
use crate::error::{Breach, Error, Stage, TlsFault, Trouble};

/// Which call it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The first one of a grant.
    Token,
    /// The one with the code of a consent.
    Code,
    /// The one for what the issuer publishes about itself.
    Discovery,
    /// The one that makes a client.
    Registration,
    /// The one for a code that a person types in elsewhere.
    Device,
    /// The one that ends a grant.
    Revocation,
    /// The one with a refresh token, or with the token itself.
    Refresh,
    /// The one to the machine's own metadata server.
    Machine,
    /// The one for a token of somebody else's, to be exchanged.
    Subject,
    /// The one that makes another identity of a token.
    Impersonation,
}

impl Step {
    fn word(self) -> &'static str {
        match self {
            Self::Token => "token request",
            Self::Device => "device authorization request",
            Self::Revocation => "revocation",
            Self::Discovery => "request for its metadata",
            Self::Registration => "registration",
            Self::Code => "request with the code",
            Self::Refresh => "refresh request",
            Self::Machine => "request to the metadata server",
            Self::Subject => "request for the subject token",
            Self::Impersonation => "impersonation request",
        }
    }
}

/// An answer that is no good.
#[derive(Debug)]
pub struct Story {
    step: Step,
    arrived: String,
}

impl Story {
    /// `arrived` describes the answer without its content.
    pub fn new(step: Step, arrived: String) -> Self {
        Self { step, arrived }
    }

    /// It is not usable, because it `what`.
    pub fn down(&self, what: &str, wait: Option<Duration>) -> Failure {
        self.down_with(what, wait, None)
    }

    /// The same with the issuer's own words, for the log.
    pub fn down_with(&self, what: &str, wait: Option<Duration>, said: Option<String>) -> Failure {
        Failure::Down(self.told(what, "Check the scheme's settings against the issuer's manual; the gateway's log has more.", said), wait)
    }

    /// The issuer has looked at the request and says no, for another reason than the grant. A refresh that ends so leaves
    /// the way to begin anew; issuers have many words for a refresh token that is spent.
    pub fn denied(&self, status: StatusCode, what: &str, wait: Option<Duration>, said: Option<String>) -> Failure {
        let busy = matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS);
        match self.down_with(what, wait, said) {
            Failure::Down(trouble, wait) if self.step == Step::Refresh && !status.is_server_error() && !busy => {
                Failure::Denied(trouble, wait)
            }
            other => other,
        }
    }

    /// The issuer refuses the grant.
    pub fn refused(&self, code: &str, said: Option<String>) -> Failure {
        Failure::Refused(self.told(&format!("says {code}"), "Put a new credential into the configuration and reload.", said))
    }

    fn told(&self, what: &str, hint: &'static str, said: Option<String>) -> Trouble {
        let detail = format!("The issuer's answer to the {} ({}) {what}.", self.step.word(), self.arrived);
        let cause = match said {
            Some(said) => format!("{detail} It adds: {said}"),
            None => detail.clone(),
        };
        Trouble { detail: detail.into(), hint: hint.into(), cause: cause.into() }
    }
}

/// What is wrong with what an issuer says of itself.
pub fn unfit(what: impl Into<String>) -> Failure {
    let what = what.into();
    let hint = "Check `issuer`, `hosts` and `registration` against what the issuer publishes, or write its endpoints out.";
    Failure::Down(Trouble { detail: what.clone().into(), hint: hint.into(), cause: what.into() }, None)
}

/// There was no answer at all. Whether the issuer has acted on the request is known only where it never arrived.
pub fn unanswered(step: Step, issuer: &str, error: &Error) -> Failure {
    let what = match error {
        Error::Unreachable(_) => "cannot be reached",
        Error::Dns(_) => "has a name that does not resolve",
        Error::Tls(TlsFault::Certificate(_)) => "does not take the gateway's client certificate, or wants one",
        Error::Tls(_) => "is not trusted over TLS",
        Error::Timeout(Stage::Connect) => "took too long to connect to",
        Error::Timeout(_) => "did not answer in time",
        Error::Protocol(Breach::TooLarge(_)) => "sent an answer that is too large for a token",
        Error::Protocol(_) => "broke off or does not speak HTTP",
        other => return Failure::Own(other.clone()),
    };
    let trouble = Trouble {
        detail: format!("The issuer {what} ({}).", step.word()).into(),
        hint: "Check the token URL, `tls`, and that the issuer runs; the gateway's log has more.".into(),
        cause: format!("{issuer} {what} ({}): {}", step.word(), error.cause()).into(),
    };
    match error {
        Error::Timeout(Stage::Head | Stage::Idle | Stage::Total) | Error::Protocol(_) => Failure::Unknown(trouble),
        _ => Failure::Down(trouble, None),
    }
}
