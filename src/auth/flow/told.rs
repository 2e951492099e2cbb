//! What went wrong with a step, told with its name and with what arrived, but not with anything that was in it.

use std::fmt::Display;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, LOCATION, RETRY_AFTER};
use http::{Response, StatusCode};

use crate::auth::token::Failure;
use crate::error::{Breach, Error, Stage, Trouble, Unreachable};
use crate::net::Origin;

/// Why a step, and with it the whole login, brought nothing.
#[derive(Debug)]
pub struct Fault {
    /// For the life of the token.
    pub failure: Failure,
    /// Whether a server has answered: then another way to log in may bring more.
    pub answered: bool,
}

/// Whoever tells it: a step by its name.
#[derive(Clone, Copy, Debug)]
pub struct Teller<'n> {
    name: &'n str,
    /// Whether it sends a credential: then what is no success may be a denial, and count against the account.
    risky: bool,
}

impl<'n> Teller<'n> {
    /// One that sends nothing secret.
    pub const fn new(name: &'n str) -> Self {
        Self { name, risky: false }
    }

    /// The same, which sends a credential or not.
    #[must_use]
    pub const fn sending(self, credential: bool) -> Self {
        Self { risky: credential, ..self }
    }

    fn trouble(self, what: impl Display, hint: &'static str) -> Trouble {
        let detail = format!("{} {what}.", self.name);
        Trouble { detail: detail.clone().into(), hint: hint.into(), cause: detail.into() }
    }

    /// It could not even be sent.
    pub fn unsendable(self, what: impl Display) -> Fault {
        const HINT: &str = "Check the expressions of the step, and what the steps before it capture.";
        Fault { failure: Failure::Down(self.trouble(format_args!("could not be sent: {what}"), HINT), None), answered: true }
    }

    /// It leads where the gateway does not go.
    pub fn strayed(self, error: Error) -> Fault {
        let error = match error {
            Error::Unreachable(Unreachable::Forbidden(why)) => {
                Error::Unreachable(Unreachable::Forbidden(format!("{} was not sent, as {why}", lowered(self.name))))
            }
            other => other,
        };
        Fault { failure: Failure::Own(error), answered: true }
    }

    /// A success that is not usable. Many servers deny a login in that way, so after a credential it counts as a denial.
    pub fn unfit(self, response: &Response<Bytes>, what: impl Display) -> Fault {
        if self.risky { self.denied(response, what) } else { self.useless(response, what) }
    }

    /// What arrived is not usable.
    pub fn useless(self, response: &Response<Bytes>, what: impl Display) -> Fault {
        const HINT: &str = "Check the step against the API's manual; `capture`, `optional` and `expect` say what must arrive.";
        let trouble = self.trouble(format_args!("got {}, which {what}", described(response)), HINT);
        Fault { failure: Failure::Down(trouble, None), answered: true }
    }

    /// The server turns it down: after some tries that locks accounts.
    pub fn denied(self, response: &Response<Bytes>, what: impl Display) -> Fault {
        const HINT: &str = "Check user name, password and the step; a locked account is not tried again and again.";
        let trouble = self.trouble(format_args!("got {}, which {what}", described(response)), HINT);
        Fault { failure: Failure::TurnedDown(trouble), answered: true }
    }

    /// Its status is none of those that are expected.
    pub fn unexpected(self, response: &Response<Bytes>) -> Fault {
        let status = response.status();
        match status {
            StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => self.denied(response, "is no success"),
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY => self.useless(response, "is no success"),
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                let asked = response.headers().get(RETRY_AFTER).and_then(|r| r.to_str().ok()).and_then(|r| r.trim().parse().ok());
                let trouble = self.trouble(format_args!("got {}, which asks for patience", described(response)), "Try again later.");
                Fault { failure: Failure::Down(trouble, asked.map(Duration::from_secs)), answered: true }
            }
            _ if status.is_redirection() => {
                let to = response.headers().get(LOCATION).and_then(|l| l.to_str().ok()).and_then(|l| Origin::of(l).ok());
                let to = to.map_or_else(String::new, |(origin, _)| format!(" to {origin}"));
                let hint = "Redirects are not followed; where one is the answer: expect: { statuses: [302] }.";
                let trouble = self.trouble(format_args!("got {}, a redirect{to}, which is not followed", described(response)), hint);
                let failure = if self.risky { Failure::TurnedDown(trouble) } else { Failure::Down(trouble, None) };
                Fault { failure, answered: true }
            }
            // 422 and 423 are as usual as 401.
            _ if status.is_client_error() => self.unfit(response, "is no success"),
            _ => self.useless(response, "is no success"),
        }
    }

    /// There was no answer.
    pub fn unanswered(self, origin: &Origin, error: Error) -> Fault {
        let what = match &error {
            Error::Unreachable(Unreachable::Forbidden(_)) => return self.strayed(error),
            Error::Unreachable(_) => "cannot be reached",
            Error::Dns(_) => "has a name that does not resolve",
            Error::Tls(_) => "is not trusted over TLS",
            Error::Timeout(Stage::Connect) => "took too long to connect to",
            Error::Timeout(_) => "did not answer in time",
            Error::Protocol(Breach::TooLarge(_)) => "sent an answer that is too large for a login",
            Error::Protocol(_) => "broke off or does not speak HTTP",
            _ => return Fault { failure: Failure::Own(error), answered: false },
        };
        let mut trouble =
            self.trouble(format_args!("got no answer: the server {what}"), "Check the URL of the step, and that the server runs.");
        trouble.cause = format!("{} ({origin}) {}", trouble.cause, error.cause()).into();
        let failure = match error {
            Error::Timeout(Stage::Head | Stage::Idle | Stage::Total) | Error::Protocol(_) => Failure::Unknown(trouble),
            _ => Failure::Down(trouble, None),
        };
        Fault { failure, answered: false }
    }

    /// All of it took too long.
    pub fn endless(self, time: Duration) -> Failure {
        Failure::Unknown(self.trouble(format_args!("took longer than {} s as a whole", time.as_secs()), "Check which step is slow."))
    }
}

/// As the beginning of a clause.
fn lowered(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}

/// What arrived, without its content: `200 with 57 bytes of text/html`.
fn described(response: &Response<Bytes>) -> String {
    let kind = response.headers().get(CONTENT_TYPE).and_then(|t| t.to_str().ok()).and_then(|t| t.split(';').next());
    let kind = kind.map(str::trim).filter(|t| t.len() <= 60 && t.bytes().all(|b| b.is_ascii_alphanumeric() || b"/+.-".contains(&b)));
    let status = response.status().as_u16();
    match (response.body().len(), kind) {
        (0, _) => format!("{status} with nothing in it"),
        (size, Some(kind)) => format!("{status} with {size} bytes of {kind}"),
        (size, None) => format!("{status} with {size} bytes"),
    }
}
