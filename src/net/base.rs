//! A base URL that only a call knows, because its token brings a part of it, or its account (rulings C19, F26 to F28, G1).
//! What is made of it is judged each time: nothing that an issuer says leads beyond `hosts`, or puts a credential on plain
//! http.

use std::sync::Arc;

use http::HeaderValue;
use http::header::HOST;

use super::Hosts;
use crate::call::{Call, STAND_IN};
use crate::error::{Error, Unreachable};
use crate::expr::{self, Names, Settings, Template, Unmade};
use crate::fill::{self, Facts};
use crate::origin::Origin;
use crate::path::{self, Target};

/// How a base URL is written.
pub const EXAMPLE: &str = "https://api.example.com/v1";

/// A base URL to be made.
#[derive(Debug)]
pub struct Base {
    /// What makes it.
    pub template: Arc<Template>,
    /// `vars` and `secrets`.
    pub settings: Arc<Settings>,
    /// Where a host that is made may be.
    pub hosts: Option<Hosts>,
    /// Whether a credential may travel over plain http.
    pub allow_http: bool,
}

impl Base {
    /// Whether a token brings a part of it.
    pub fn reads_granted(&self) -> bool {
        self.template.names().meets(Names::GRANTED)
    }

    /// Leads a call there: its origin, its `Host`, and its path below the base. Nothing is dialled.
    ///
    /// # Errors
    /// [`Error::Unreachable`] where the gateway may not go, [`Error::CredentialRefused`] where a part did not come.
    pub fn lead(&self, call: &mut Call) -> Result<(), Error> {
        if fill::stands_in(call, self.template.names()) {
            call.headers.insert(HOST, HeaderValue::from_static(STAND_IN));
            call.base = Some(STAND_IN.into());
            call.target = Target::below("", call.target.path(), call.target.query());
            return Ok(());
        }
        let made = expr::url(&self.template, &Facts { settings: &self.settings, call, body: None }, None);
        let made = made.map_err(|unmade| match unmade {
            Unmade::Failed(failure) => fill::refused(&failure, self.template.names()),
            Unmade::Unfit(why) => astray(why),
        })?;
        let (origin, path) = parts(&made.text).map_err(|wrong| astray(wrong.0))?;
        if made.host {
            if !self.hosts.as_ref().is_some_and(|hosts| hosts.allow(&origin)) {
                return Err(astray("`hosts` does not allow it"));
            }
            if !origin.is_safe(self.allow_http) {
                return Err(astray("a credential would travel over plain http"));
            }
            call.origin = Some(Box::new(origin.clone()));
        }
        call.target = Target::below(path, call.target.path(), call.target.query());
        call.headers.insert(HOST, origin.authority().clone());
        call.base = Some(made.text.trim_end_matches('/').into());
        call.record.borrow_mut().base = Some(Box::new((origin, path.into())));
        Ok(())
    }
}

fn astray(why: impl Into<crate::error::Text>) -> Error {
    Error::Unreachable(Unreachable::Astray(why.into()))
}

/// Takes a base URL apart: its origin, and its path as written, which may be empty.
///
/// # Errors
/// What is wrong, and what to do.
pub fn parts(url: &str) -> Result<(Origin, &str), (String, String)> {
    let wrong = |why: &str| (why.to_owned(), EXAMPLE.to_owned());
    let (scheme, rest) = url.split_once("://").ok_or_else(|| wrong("`base_url` needs a scheme and a host"))?;
    if let Some(mark) = rest.find(['?', '#', '@', '\\', ' ']) {
        return Err(wrong(match rest.as_bytes()[mark] {
            b'?' => "`base_url` holds a query; parameters go under `params`",
            b'#' => "`base_url` holds a fragment",
            b'@' => "`base_url` holds a user; credentials go under `auth`",
            _ => "`base_url` holds a character that no URL may hold",
        }));
    }
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let origin = Origin::parse(scheme, authority).map_err(wrong)?;
    path::check(path).map_err(|error| (format!("the path of `base_url` is refused: {}", error.detail()), error.hint().into_owned()))?;
    Ok((origin, path))
}
