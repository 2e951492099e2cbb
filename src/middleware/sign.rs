//! Signs each attempt: every scheme of the resource in turn, and the fingerprint of what was used into the record.
//! It stands inside retry, so that no attempt carries another's signature. How to sign is the schemes' own affair.

use crate::auth::Auth;
use crate::call::Call;
use crate::middleware::{Answer, Next, Step};

/// The step that presents the resource's credentials.
#[derive(Debug)]
pub struct Sign {
    auth: Auth,
}

impl Sign {
    /// Presents these.
    pub fn new(auth: Auth) -> Self {
        Self { auth }
    }
}

impl Step for Sign {
    async fn handle(&self, mut call: Call, next: &impl Next) -> Answer {
        // Before signing, because a scheme may replace what the identity is read from.
        let identity = self.auth.identity(&call);
        self.auth.sign(&mut call).await?;
        call.record.borrow_mut().credential = identity;
        next.run(call).await
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use http::Response;
    use serde_json::json;

    use super::*;
    use crate::auth::support::{auth, call, call_with, now};
    use crate::body::Body;

    /// Keeps the target and the record of what reached it.
    #[derive(Clone, Default)]
    struct Upstream(Rc<RefCell<Vec<Call>>>);

    impl Next for Upstream {
        async fn run(&self, call: Call) -> Answer {
            self.0.borrow_mut().push(call);
            Ok(Response::new(Body::Empty))
        }
    }

    #[test]
    fn the_upstream_gets_the_signed_call_and_the_record_the_fingerprint() {
        let upstream = Upstream::default();
        let sign = Sign::new(auth(json!({ "bearer": "${secret:t}" })));
        now(sign.handle(call("/a"), &upstream)).unwrap();
        let seen = upstream.0.borrow();
        assert_eq!(seen[0].headers["authorization"], "Bearer t");
        assert_eq!(seen[0].record.borrow().credential, sign.auth.identity(&seen[0]));
        assert!(seen[0].record.borrow().credential.is_some());
    }

    #[test]
    fn a_call_that_cannot_be_signed_never_reaches_the_upstream() {
        let upstream = Upstream::default();
        let sign = Sign::new(auth(json!({ "api_key": { "in": "body", "name": "k", "value": "${secret:t}" } })));
        let call = call_with("text/plain", b"a");
        let record = call.record.clone();
        assert!(now(sign.handle(call, &upstream)).is_err());
        assert!(upstream.0.borrow().is_empty());
        assert_eq!(record.borrow().credential, None);
    }

    #[test]
    fn without_a_credential_the_record_names_none() {
        let upstream = Upstream::default();
        now(Sign::new(auth(json!("none"))).handle(call("/a"), &upstream)).unwrap();
        assert_eq!(upstream.0.borrow()[0].record.borrow().credential, None);
    }
}
