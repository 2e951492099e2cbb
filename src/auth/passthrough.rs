//! `passthrough`: the client's own `Authorization` reaches the upstream as it was sent. Nothing is added where the
//! client sent none.

use std::sync::Arc;

use http::header::AUTHORIZATION;

use crate::auth::fingerprint::Fingerprint;
use crate::auth::read::fields;
use crate::auth::{Owned, Reading, Scheme, Signing};
use crate::call::Call;
use crate::tree::Node;

/// Lets the client's `Authorization` through.
#[derive(Debug)]
pub struct Passthrough {
    fingerprint: Fingerprint,
}

/// Reads `passthrough`, `{ passthrough: {} }` or `{ passthrough: null }`.
pub(super) fn read(node: &Node, reading: Reading<'_>) -> Option<Box<dyn Scheme>> {
    if !node.is_null() {
        fields(node, "nothing or `{}`", reading.problems)?.finish();
    }
    Some(Box::new(Passthrough { fingerprint: reading.fingerprint }))
}

impl Scheme for Passthrough {
    fn owns(&self) -> Owned {
        Owned { passes_authorization: true, ..Owned::default() }
    }

    /// Each client's own credential has its own fingerprint, so that no answer is shared between two of them.
    fn identity(&self, call: &Call) -> Option<Arc<str>> {
        if !call.headers.contains_key(AUTHORIZATION) {
            return None;
        }
        let values = call.headers.get_all(AUTHORIZATION).iter().map(|v| v.as_bytes());
        Some(self.fingerprint.of(std::iter::once(&b"passthrough"[..]).chain(values)))
    }

    /// The client's credential is as much a secret as the gateway's.
    fn secret(&self) -> bool {
        true
    }

    fn fresh(&self) -> bool {
        false
    }

    fn sign<'a>(&'a self, _: &'a mut Call) -> Signing<'a> {
        Signing::Done(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use crate::auth::support::{auth, call, signed};

    #[test]
    fn the_clients_own_authorization_passes_untouched() {
        let mut call = call("/a");
        call.headers.insert("authorization", HeaderValue::from_static("Bearer mine"));
        let call = signed(&auth("passthrough".into()), call).unwrap();
        assert_eq!(call.headers["authorization"], "Bearer mine");
    }

    #[test]
    fn two_clients_have_two_identities_and_a_client_without_a_credential_has_none() {
        let auth = auth("passthrough".into());
        let mut call = call("/a");
        assert_eq!(auth.identity(&call), None);
        call.headers.insert("authorization", HeaderValue::from_static("Bearer one"));
        let one = auth.identity(&call).unwrap();
        call.headers.insert("authorization", HeaderValue::from_static("Bearer two"));
        assert_ne!(Some(one), auth.identity(&call));
    }

    #[test]
    fn passthrough_lets_authorization_through_and_must_not_travel_in_the_clear() {
        let auth = auth("passthrough".into());
        assert!(auth.owns().passes_authorization);
        assert!(auth.needs_tls());
    }
}
