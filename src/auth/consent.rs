//! Consent: how a person lets the gateway use an account. A scheme that can have its grant so says where the browser goes
//! and what comes of it when it is back. Who may ask for it, and whose browser that is, is the affair of `connect`.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;

use crate::auth::grant::Material;
use crate::auth::token::{Failure, Minted};
use crate::clock::Clock;
use crate::error::Text;
use crate::secret::Secret;

/// Most parameters of a callback, and the longest name and value of one.
const PARAMS_MAX: usize = 64;
const NAME_MAX: usize = 128;
const VALUE_MAX: usize = 8 * 1024;

/// What a consent begins with.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// Where the browser comes back to.
    pub redirect_uri: &'a str,
    /// What it must bring back.
    pub state: &'a Secret,
    /// The variables that the account is to have.
    pub vars: &'a BTreeMap<String, String>,
    /// The time of day.
    pub clock: &'a Clock,
}

/// A consent that has begun.
#[derive(Debug)]
pub struct Begun {
    /// Where the browser goes.
    pub url: Secret,
    /// What is needed when it is back.
    pub kept: Kept,
}

/// What a scheme keeps while the browser is away. It does not leave the process.
#[derive(Clone, Debug, Default)]
pub struct Kept {
    /// The verifier of PKCE (RFC 7636), or the secret of a request token (RFC 5849).
    pub verifier: Option<Secret>,
    /// The temporary credential (RFC 5849 section 2.1).
    pub token: Option<Secret>,
    /// Whether the issuer's answers always name it (RFC 9207).
    pub names_itself: bool,
    /// What the token will be for (RFC 8707).
    pub resource: Option<serde_json::Value>,
}

/// What a consent ends with.
#[derive(Clone, Copy, Debug)]
pub struct Back<'a> {
    /// What the browser, or the provider itself, has brought.
    pub params: &'a Params,
    /// What was kept meanwhile.
    pub kept: &'a Kept,
    /// Where the browser came back to.
    pub redirect_uri: &'a str,
    /// The variables that the account is to have.
    pub vars: &'a BTreeMap<String, String>,
    /// The time of day.
    pub clock: &'a Clock,
}

/// Why nothing comes of a consent.
#[derive(Clone, Debug)]
pub enum Refusal {
    /// The provider or the person says no: its code, and what it adds.
    Denied(String, Option<String>),
    /// What came back is no answer to what was asked: why, for people.
    Wrong(Text),
    /// The issuer gave no token.
    Failed(Box<Failure>),
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        Self::Failed(Box::new(failure))
    }
}

/// Work on a consent, in the background.
pub type Working<'a, T> = Pin<Box<dyn Future<Output = Result<T, Refusal>> + 'a>>;

/// A way to have a grant by a person's consent.
pub trait Consent: std::fmt::Debug + Send + Sync {
    /// Who is asked, for people: the origin of the page where they consent.
    fn provider(&self) -> String;

    /// Who issues what it brings, and to which client: with other parties, what it has brought is worth nothing.
    fn parties(&self) -> Material;

    /// What is asked for, for people.
    fn scopes(&self) -> Vec<String>;

    /// `redirect_uri`, where the operator has said it.
    fn redirect_uri(&self) -> Option<&str>;

    /// How it is had on another device, where that is the way; then no browser comes here.
    fn device(&self) -> Option<&dyn super::device::Device> {
        None
    }

    /// Prepares the browser's way.
    fn begin<'a>(&'a self, ask: Ask<'a>) -> Working<'a, Begun>;

    /// Has a token by what came back. A second time nothing can come of it.
    fn finish<'a>(&'a self, back: Back<'a>) -> Working<'a, Minted>;

    /// Tells the issuer that the grant is over (RFC 7009). Whether it was told: not every issuer can be.
    fn revoke<'a>(&'a self, minted: &'a Minted, clock: &'a Clock) -> Working<'a, bool>;
}

/// The parameters of a callback, decoded, in order.
#[derive(Clone, Debug, Default)]
pub struct Params(Vec<(String, Secret)>);

impl Params {
    /// Reads a query or a form; `None` where it is none, or too large.
    pub fn read(text: &str) -> Option<Self> {
        let mut params = Vec::new();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, value) = (plain(name)?, plain(value)?);
            if params.len() == PARAMS_MAX || name.len() > NAME_MAX || value.len() > VALUE_MAX {
                return None;
            }
            params.push((name, Secret::new(value)));
        }
        Some(Self(params))
    }

    /// The one value of this name; empty is none. `Err` where it is there twice (RFC 6749 section 3.1).
    ///
    /// # Errors
    /// What is wrong, for people.
    pub fn one(&self, name: &str) -> Result<Option<&Secret>, Text> {
        let mut all = self.0.iter().filter(|(n, _)| n == name).map(|(_, value)| value);
        let first = all.next().filter(|value| !value.is_empty());
        match all.next() {
            None => Ok(first),
            Some(_) => Err(format!("`{name}` came more than once").into()),
        }
    }

    /// Whether there is nothing but the state in it.
    pub fn is_bare(&self) -> bool {
        self.0.iter().all(|(name, _)| name == "state")
    }
}

/// A part of a form, decoded.
fn plain(part: &str) -> Option<String> {
    let spaced = part.replace('+', " ");
    let text = percent_encoding::percent_decode_str(&spaced).decode_utf8().ok()?.into_owned();
    Some(text).filter(|text| !text.chars().any(char::is_control))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_that_came_twice_is_none_at_all() {
        let params = Params::read("code=a%20b+c&state=s&code=d&empty=").unwrap();
        assert!(params.one("code").is_err());
        assert_eq!(params.one("state").unwrap().unwrap().expose(), "s");
        assert_eq!((params.one("empty").unwrap(), params.one("absent").unwrap()), (None, None));
        assert!(!params.is_bare() && Params::read("state=x").unwrap().is_bare());
    }

    #[test]
    fn what_is_no_form_or_too_large_a_one_is_refused() {
        for wrong in
            ["a=%ff", "a=%00", "a=b%0d%0aSet-Cookie: x", &format!("a={}", "x".repeat(VALUE_MAX + 1)), &"a=b&".repeat(PARAMS_MAX + 1)]
        {
            assert!(Params::read(wrong).is_none(), "{wrong:.40}");
        }
        assert!(Params::read(&format!("a={}", "x".repeat(VALUE_MAX))).is_some());
    }
}
