//! What speaks AWS: the canonical form of a request and the key of a day, signed POSTs of the gateway's own, and the default
//! chain of credentials, as AWS's SDKs have it. No SDK stands behind it (ruling H13). When credentials are asked for
//! anew is for the caller to know.

pub mod ambient;
pub mod canonical;
pub mod chain;
mod container;
mod instance;
pub mod key;
pub mod post;
mod profile;
mod sso;
pub mod sts;

use std::fmt;
use std::time::Duration;

use http::StatusCode;

use crate::error::Error;
use crate::net::Bounds;
use crate::secret::Secret;

/// What bounds every call of this room.
const BOUNDS: Bounds = Bounds { time: Duration::from_secs(10), bytes: 64 << 10 };
/// Connecting, and waiting for a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// Longest word of an error that is told.
const WORD_MAX: usize = 64;

/// Credentials, for good or until they end.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The access key id.
    pub id: String,
    /// The secret access key.
    pub secret: Secret,
    /// The session token.
    pub session: Option<Secret>,
    /// When they end, in milliseconds since 1970.
    pub expires: Option<u64>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("id", &self.id).field("expires", &self.expires).finish_non_exhaustive()
    }
}

/// Why there are no credentials. Holds nothing of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Whoever has them cannot be asked now, or gives what are none.
    Down(String),
    /// Whoever has them says no, and a person must act.
    Refused(String),
}

impl Fault {
    fn down(what: &str, error: &Error) -> Self {
        Self::Down(format!("{what}: {}", error.cause()))
    }

    /// An answer that is no good. Busy and failing services are asked again; so is whoever denies access, as a permission
    /// takes effect without a word to us.
    fn answered(what: &str, status: StatusCode, word: &str) -> Self {
        let word = if word.is_empty() { String::new() } else { format!(" ({})", shown(word)) };
        let text = format!("{what} answers {}{word}", status.as_u16());
        let later = status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS || status == StatusCode::REQUEST_TIMEOUT;
        // What heals by itself: a permission, a token file that is just being replaced, a clock.
        const HEALING: [&str; 6] =
            ["AccessDenied", "Throttl", "IDPCommunication", "InvalidIdentityToken", "ExpiredToken", "RequestExpired"];
        if later || HEALING.iter().any(|one| word.contains(one)) { Self::Down(text) } else { Self::Refused(text) }
    }
}

/// Only the kind of an error is told: a message may quote what was sent.
fn shown(word: &str) -> &str {
    let good = word.len() <= WORD_MAX && word.bytes().all(|b| b.is_ascii_alphanumeric() || b"._".contains(&b));
    if good { word } else { "an error that is not shown" }
}

/// A moment as AWS writes it, in milliseconds since 1970.
fn moment(text: &str) -> Option<u64> {
    let moment: jiff::Timestamp = text.parse().ok()?;
    u64::try_from(moment.as_millisecond()).ok()
}

/// The credentials in the JSON that metadata services and `credential_process` give.
fn of_json(json: &serde_json::Value, session: &str, expires: &str) -> Option<Credentials> {
    let text = |name: &str| json[name].as_str().filter(|text| !text.is_empty());
    Some(Credentials {
        id: text("AccessKeyId")?.to_owned(),
        secret: Secret::new(text("SecretAccessKey")?.to_owned()),
        session: text(session).map(|text| Secret::new(text.to_owned())),
        expires: match text(expires) {
            Some(end) => Some(moment(end)?),
            None => None,
        },
    })
}

#[cfg(test)]
mod tests;
