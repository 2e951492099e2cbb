//! Signs each attempt: what schemes must acquire is acquired, what is computed for the attempt is put in, and then every
//! scheme signs in turn; the fingerprint of what was used goes into the record. The only place that sends a call again after a refusal, once, if a scheme says that it is worthwhile and the body can be
//! had again. It stands inside retry, so that no attempt carries another's signature. How to sign is the schemes' affair.

use std::sync::Arc;

use crate::auth::merge::Merge;
use crate::auth::{Auth, Renewal, Tickets};
use crate::body;
use crate::call::Call;
use crate::error::Error;
use crate::fill::{self, Fills};
use crate::middleware::{Answer, Next, Step};
use crate::net::base::Base;

/// The step that presents the resource's credentials.
#[derive(Debug)]
pub struct Sign {
    auth: Auth,
    renews: bool,
    /// Whether something waits for what the schemes acquire.
    acquires: bool,
    buffer: u64,
    fills: Option<Fills>,
    merge: Option<Arc<Merge>>,
    base: Option<Arc<Base>>,
}

impl Sign {
    /// Presents these. Of a body up to `buffer` bytes are kept for a second attempt, where there may be one.
    pub fn new(auth: Auth, buffer: u64) -> Self {
        Self { renews: auth.renews(), acquires: false, auth, buffer, fills: None, merge: None, base: None }
    }

    /// Puts these in before each attempt is signed (ruling H5).
    #[must_use]
    pub fn filling(self, fills: Option<Fills>) -> Self {
        let acquires = self.acquires || fills.as_ref().is_some_and(Fills::reads_granted);
        Self { fills, acquires, ..self }
    }

    /// Merges this into each attempt's body before anything else.
    #[must_use]
    pub fn merging(self, merge: Option<Arc<Merge>>) -> Self {
        let acquires = self.acquires || merge.as_ref().is_some_and(|merge| merge.reads_granted());
        Self { merge, acquires, ..self }
    }

    /// Leads each attempt to this base, where only the attempt knows it.
    #[must_use]
    pub fn leading(self, base: Option<Arc<Base>>) -> Self {
        let acquires = self.acquires || base.as_ref().is_some_and(|base| base.reads_granted());
        Self { base, acquires, ..self }
    }

    /// As [`Sign::handle`], for schemes that look at answers.
    async fn renewing(&self, mut call: Call, next: &impl Next) -> Answer {
        let spare = call.spare(self.buffer);
        let tickets = self.sign(&mut call).await?;
        let mut answer = next.run(call).await?;
        let renewal = self.auth.renew(spare.call(), &tickets, spare.is_whole(), &mut answer).await?;
        // Whoever waits for what this attempt was to learn waits no longer.
        drop(tickets);
        if renewal == Renewal::Stands || !spare.is_whole() {
            return Ok(answer);
        }
        // An exchange whose request is still under way is cut, as nobody will send the rest.
        if spare.is_read() {
            body::drain(answer.into_body()).await;
        } else {
            drop(answer);
        }
        let mut call = spare.take().ok_or_else(|| Error::Internal("a whole body was not at hand".into()))?;
        // Nothing is kept any more; the call is only remembered for the schemes' look at the second answer.
        let spare = call.spare(0);
        let tickets = self.sign(&mut call).await?.of_second();
        let mut answer = next.run(call).await?;
        self.auth.renew(spare.call(), &tickets, false, &mut answer).await?;
        Ok(answer)
    }

    /// Has the schemes acquire what they present, before anything is computed from it.
    async fn acquire(&self, call: &mut Call) -> Result<(), Error> {
        // A slow body comes first: a token must not grow old while it is waited for.
        if self.merge.is_some() || self.fills.as_ref().is_some_and(Fills::reads_body) {
            fill::held(call, self.buffer).await?;
        }
        self.auth.acquire(call).await
    }

    async fn sign(&self, call: &mut Call) -> Result<Tickets, Error> {
        // Before signing, because a scheme may replace what the identity is read from.
        let identity = self.auth.identity(call);
        if self.acquires {
            // Boxed, so that the calls of others need no room for it.
            Box::pin(self.acquire(call)).await?;
        }
        if let Some(base) = &self.base {
            base.lead(call)?;
        }
        if let Some(merge) = &self.merge {
            Box::pin(merge.put(call)).await?;
        }
        if let Some(fills) = &self.fills {
            // Boxed, so that the calls of others need no room for it.
            Box::pin(fills.put(call)).await?;
        }
        let tickets = self.auth.sign(call).await?;
        call.record.borrow_mut().credential = identity;
        Ok(tickets)
    }
}

impl Step for Sign {
    async fn handle(&self, mut call: Call, next: &impl Next) -> Answer {
        if self.renews {
            // Boxed, so that the calls of static schemes need no room for a second attempt.
            return Box::pin(self.renewing(call, next)).await;
        }
        self.sign(&mut call).await?;
        next.run(call).await
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicU64, Ordering};

    use http::{Response, StatusCode};
    use http_body_util::BodyExt as _;
    use serde_json::json;

    use super::*;
    use crate::auth::support::{auth, auth_of, call, call_with, now};
    use crate::auth::{Attempt, Owned, Renewing, Scheme, Signing};
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
        let sign = Sign::new(auth(json!({ "bearer": "${secret:t}" })), 0);
        now(sign.handle(call("/a"), &upstream)).unwrap();
        let seen = upstream.0.borrow();
        assert_eq!(seen[0].headers["authorization"], "Bearer t");
        assert_eq!(seen[0].record.borrow().credential, sign.auth.identity(&seen[0]));
        assert!(seen[0].record.borrow().credential.is_some());
    }

    #[test]
    fn a_call_that_cannot_be_signed_never_reaches_the_upstream() {
        let upstream = Upstream::default();
        let sign = Sign::new(auth(json!({ "api_key": { "in": "body", "name": "k", "value": "${secret:t}" } })), 0);
        let call = call_with("text/plain", b"a");
        let record = call.record.clone();
        assert!(now(sign.handle(call, &upstream)).is_err());
        assert!(upstream.0.borrow().is_empty());
        assert_eq!(record.borrow().credential, None);
    }

    #[test]
    fn without_a_credential_the_record_names_none() {
        let upstream = Upstream::default();
        now(Sign::new(auth(json!("none")), 0).handle(call("/a"), &upstream)).unwrap();
        assert_eq!(upstream.0.borrow()[0].record.borrow().credential, None);
    }

    /// Numbers its signatures, and wants another try on 401.
    #[derive(Debug, Default)]
    struct Numbered {
        signed: AtomicU64,
        /// The ticket, whether there could be another attempt, and the status of each answer it saw.
        seen: Mutex<Vec<(u64, bool, u16)>>,
    }

    #[derive(Clone, Debug, Default)]
    struct Shared(Arc<Numbered>);

    impl Scheme for Shared {
        fn owns(&self) -> Owned {
            Owned::default()
        }

        fn identity(&self, _: &Call) -> Option<Arc<str>> {
            None
        }

        fn secret(&self) -> bool {
            false
        }

        fn sign<'a>(&'a self, call: &'a mut Call) -> Signing<'a> {
            let number = self.0.signed.fetch_add(1, Ordering::Relaxed);
            call.headers.append("x-number", number.into());
            call.ticket = Some(Arc::new(number));
            Signing::Done(Ok(()))
        }

        fn renews(&self) -> bool {
            true
        }

        fn renew<'a>(&'a self, attempt: Attempt<'a>) -> Renewing<'a> {
            let ticket = attempt.ticket.unwrap().downcast_ref::<u64>().unwrap();
            let status = attempt.answer.status().as_u16();
            self.0.seen.lock().unwrap().push((*ticket, attempt.again, status));
            assert!(!attempt.call.headers.contains_key("x-number"), "the call is shown as it was before it was signed");
            Renewing::Done(Ok(if status == 401 { Renewal::Again } else { Renewal::Stands }))
        }
    }

    /// Reads this many frames of each body and answers with these statuses.
    #[derive(Clone, Default)]
    struct Refusing {
        statuses: Rc<RefCell<Vec<u16>>>,
        frames: usize,
        bodies: Rc<RefCell<Vec<Vec<u8>>>>,
        numbers: Rc<RefCell<Vec<String>>>,
    }

    impl Refusing {
        fn new(statuses: &[u16], frames: usize) -> Self {
            Self { statuses: Rc::new(RefCell::new(statuses.iter().rev().copied().collect())), frames, ..Self::default() }
        }
    }

    impl Next for Refusing {
        async fn run(&self, mut call: Call) -> Answer {
            let numbers = call.headers.get_all("x-number").iter().map(|n| n.to_str().unwrap().to_owned()).collect::<Vec<_>>();
            self.numbers.borrow_mut().push(numbers.join(","));
            let mut read = Vec::new();
            for _ in 0..self.frames {
                let Some(frame) = call.body.frame().await else { break };
                read.extend_from_slice(&frame.unwrap().into_data().unwrap());
            }
            self.bodies.borrow_mut().push(read);
            let mut answer = Response::new(Body::Full("refused".into()));
            *answer.status_mut() = StatusCode::from_u16(self.statuses.borrow_mut().pop().unwrap()).unwrap();
            Ok(answer)
        }
    }

    fn streaming(pieces: &[&'static str]) -> Call {
        let mut call = call("/a");
        let frames: Vec<Result<_, Error>> =
            pieces.iter().map(|p| Ok(http_body::Frame::data(bytes::Bytes::from_static(p.as_bytes())))).collect();
        call.body = Body::Stream(Box::pin(Frames(frames.into_iter())));
        call
    }

    #[derive(Debug)]
    struct Frames(std::vec::IntoIter<Result<http_body::Frame<bytes::Bytes>, Error>>);

    impl http_body::Body for Frames {
        type Data = bytes::Bytes;
        type Error = Error;

        fn poll_frame(
            mut self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<http_body::Frame<bytes::Bytes>, Error>>> {
            std::task::Poll::Ready(self.0.next())
        }
    }

    /// The status of the answer, and what the scheme saw.
    fn tried(buffer: u64, call: Call, upstream: &Refusing) -> (u16, Vec<(u64, bool, u16)>) {
        let scheme = Shared::default();
        let sign = Sign::new(auth_of(scheme.clone()), buffer);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let status = runtime.block_on(sign.handle(call, upstream)).unwrap().status().as_u16();
        let seen = scheme.0.seen.lock().unwrap().clone();
        (status, seen)
    }

    #[test]
    fn a_refusal_is_tried_once_more_with_a_fresh_signature_and_the_same_body() {
        for read in [0, 1, 3] {
            let upstream = Refusing::new(&[401, 200], read);
            assert_eq!(tried(100, streaming(&["a", "b"]), &upstream), (200, vec![(0, true, 401), (1, false, 200)]));
            assert_eq!(*upstream.numbers.borrow(), ["0", "1"]);
            let whole = &b"ab"[..read.min(2)];
            assert_eq!(*upstream.bodies.borrow(), [whole, whole]);
        }
    }

    #[test]
    fn a_second_refusal_is_the_answer() {
        let upstream = Refusing::new(&[401, 401], 3);
        assert_eq!(tried(100, streaming(&["a"]), &upstream), (401, vec![(0, true, 401), (1, false, 401)]));
    }

    #[test]
    fn a_body_beyond_the_buffer_is_not_sent_twice_and_the_refusal_is_the_answer() {
        let upstream = Refusing::new(&[401], 3);
        assert_eq!(tried(1, streaming(&["a", "b"]), &upstream), (401, vec![(0, false, 401)]));
    }

    #[test]
    fn a_body_beyond_the_buffer_that_the_upstream_never_read_is_sent_again() {
        let upstream = Refusing::new(&[401, 200], 0);
        assert_eq!(tried(1, streaming(&["a", "b"]), &upstream).0, 200);
    }

    #[test]
    fn an_answer_that_is_no_refusal_stands() {
        let upstream = Refusing::new(&[500], 3);
        assert_eq!(tried(100, call("/a"), &upstream), (500, vec![(0, true, 500)]));
    }
}
