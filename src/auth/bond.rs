//! What ties a connection to those it was made with: who has issued what it holds, to which client, and where that is
//! presented. Where the configuration names others, they must not see any of it.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::auth::consent::Consent;
use crate::auth::grant::Material;
use crate::key::sha256;

/// A hash over all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bond(Arc<str>);

impl Bond {
    /// Of what this consent brings, and what is presented at `base`: an origin, or what makes one.
    pub fn of(consent: &dyn Consent, base: &str) -> Self {
        let all = Material::of([consent.parties().bytes(), base.as_bytes()]);
        Self(STANDARD.encode(sha256(all.bytes())).into())
    }

    /// One that was stored.
    pub fn stored(text: &str) -> Self {
        Self(text.into())
    }

    /// As it is stored.
    pub fn text(&self) -> &str {
        &self.0
    }
}
