//! `digest`: HTTP Digest (RFC 7616, RFC 2617 and, where a server knows no better, RFC 2069). The challenge is remembered,
//! so that only the first call pays a round trip; all others answer it under counts of their own (ruling H12).
//!
//! Parsing is `digest/challenge.rs`, the arithmetic `digest/session.rs`. `rspauth`, by which a server may prove itself,
//! is not looked at: the origin is authenticated by TLS.

mod challenge;
mod hash;
mod session;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use http::header::{AUTHORIZATION, EXPECT};
use http::{HeaderMap, HeaderValue, StatusCode};
use http_body::Body as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use self::challenge::Quality;
use self::session::{Session, User};
use crate::auth::read::fields;
use crate::auth::{Attempt, Owned, Reading, Renewal, Renewing, Scheme, Signing};
use crate::body::{self, Body};
use crate::call::{Call, Finish};
use crate::error::Error;
use crate::secret::Secret;
use crate::tree::{Node, Problems, Value};

/// How long a call waits while another one asks for the first challenge. Then it asks by itself.
const PATIENCE: Duration = Duration::from_secs(10);

/// HTTP Digest.
#[derive(Debug)]
pub struct Digest {
    inner: Arc<Inner>,
    identity: Arc<str>,
    buffer: u64,
}

struct Inner {
    user: User,
    known: ArcSwap<Known>,
    /// Whose turn it is to ask for the first challenge.
    turn: Arc<Semaphore>,
}

/// What is known of the server.
#[derive(Debug)]
enum Known {
    /// Nothing yet.
    Nothing,
    /// It has answered without a challenge: calls go out bare until it sends one.
    Unasked,
    /// Its challenge.
    Challenge(Arc<Session>),
}

/// What an attempt was signed with.
enum Used {
    /// Nothing: it asks for a challenge, while others may wait for it.
    Turn(#[expect(dead_code, reason = "held until the answer is there")] OwnedSemaphorePermit),
    /// This.
    Session(Arc<Session>),
}

/// Reads what `digest` reads of an answer, and forgets it.
pub(super) fn read_challenges(headers: &HeaderMap) {
    let _ = (challenge::strongest(headers), challenge::next_nonce(headers));
}

/// Reads `{ username, password }`.
pub(super) fn read(node: &Node, reading: Reading<'_>) -> Option<Box<dyn Scheme>> {
    let problems = reading.problems;
    let fields = fields(node, "a map with `username` and `password`", problems)?;
    let name = fields.need("username").and_then(|n| username(n, problems));
    let password = match fields.raw("password") {
        Some(node) => node.secret_or_empty(problems).filter(|p| clean(node, "password", p.expose(), problems)),
        None => Some(Secret::new(String::new())),
    };
    fields.finish();
    let (name, password) = (name?, password?);
    let identity = reading.fingerprint.of([b"digest", name.expose().as_bytes(), password.expose().as_bytes()]);
    let inner = Inner { user: User { name, password }, known: ArcSwap::from_pointee(Known::Nothing), turn: Arc::new(Semaphore::new(1)) };
    Some(Box::new(Digest { inner: Arc::new(inner), identity, buffer: reading.context.buffer }))
}

fn username(node: &Node, problems: &Problems) -> Option<Secret> {
    let name = match &node.value {
        Value::Secret(secret) => secret.clone(),
        _ => Secret::new(node.text(problems)?),
    };
    if name.expose().contains(':') {
        problems.error(node.place, "a user name cannot hold `:`", "the server would take what follows for the realm");
        return None;
    }
    clean(node, "username", name.expose(), problems).then_some(name)
}

fn clean(node: &Node, key: &str, text: &str, problems: &Problems) -> bool {
    let clean = !text.contains(char::is_control);
    if !clean {
        problems.error(node.place, format!("`{key}` holds a line break or another control character"), "");
    }
    clean
}

impl Scheme for Digest {
    fn owns(&self) -> Owned {
        Owned { headers: vec![AUTHORIZATION], ..Owned::default() }
    }

    fn identity(&self, _: &Call) -> Option<Arc<str>> {
        Some(self.identity.clone())
    }

    /// The password does not travel, but whoever sees a response can try passwords on it.
    fn secret(&self) -> bool {
        true
    }

    fn seals(&self) -> bool {
        true
    }

    fn fresh(&self) -> bool {
        false
    }

    fn sign<'a>(&'a self, call: &'a mut Call) -> Signing<'a> {
        call.headers.remove(AUTHORIZATION);
        match &**self.inner.known.load() {
            Known::Unasked => {
                wait_for_word(call, self.buffer);
                Signing::Done(Ok(()))
            }
            Known::Challenge(session) if session.lasts() => self.answer(session.clone(), call),
            _ => Signing::Later(Box::pin(self.first(call))),
        }
    }

    fn renews(&self) -> bool {
        true
    }

    fn renew<'a>(&'a self, attempt: Attempt<'a>) -> Renewing<'a> {
        let used = match attempt.ticket.and_then(|ticket| ticket.downcast_ref::<Used>()) {
            Some(Used::Session(session)) => Some(session),
            _ => None,
        };
        let headers = attempt.answer.headers();
        Renewing::Done(Ok(if attempt.answer.status() == StatusCode::UNAUTHORIZED {
            self.inner.refused(used, headers)
        } else {
            self.inner.accepted(used, headers);
            Renewal::Stands
        }))
    }
}

impl Digest {
    /// The first call asks for the challenge; those that come meanwhile wait until it is there.
    async fn first(&self, call: &mut Call) -> Result<(), Error> {
        let turn = match self.inner.turn.clone().try_acquire_owned() {
            Ok(turn) => Some(turn),
            // Nobody closes the semaphore; and whoever has waited long enough asks as well.
            Err(_) => tokio::time::timeout(PATIENCE, self.inner.turn.clone().acquire_owned()).await.ok().and_then(Result::ok),
        };
        let known = self.inner.known.load_full();
        match &*known {
            Known::Challenge(session) if session.lasts() => {
                drop(turn);
                return match self.answer(session.clone(), call) {
                    Signing::Done(done) => done,
                    Signing::Later(work) => work.await,
                };
            }
            Known::Unasked => {}
            _ => call.ticket = turn.map(|turn| Arc::new(Used::Turn(turn)) as Arc<_>),
        }
        wait_for_word(call, self.buffer);
        Ok(())
    }

    /// Answers the challenge in every attempt to send this call.
    fn answer<'a>(&'a self, session: Arc<Session>, call: &'a mut Call) -> Signing<'a> {
        let quality = session.challenge().quality;
        let protects = match quality {
            Quality::Integrity => true,
            Quality::Both => fits(&call.body, self.buffer),
            Quality::Auth | Quality::Legacy => false,
        };
        if !protects {
            seal(session, call, None);
            return Signing::Done(Ok(()));
        }
        Signing::Later(Box::pin(async move {
            let bytes = body::collect(std::mem::take(&mut call.body), self.buffer, "limits.buffer").await?;
            seal(session, call, Some(&bytes));
            if !bytes.is_empty() {
                call.body = Body::Full(bytes);
            }
            Ok(())
        }))
    }
}

/// The response is put in when the connection is known: counts rise within it, and no attempt repeats another's.
fn seal(session: Arc<Session>, call: &mut Call, body: Option<&[u8]>) {
    let request = session.request(&call.method, call.target.as_str(), body);
    call.ticket = Some(Arc::new(Used::Session(session.clone())));
    call.finish = Some(Finish::new(move |headers: &mut HeaderMap| {
        if let Some(value) = session.authorization(&request) {
            headers.insert(AUTHORIZATION, value);
        }
    }));
}

/// Whether a body is at hand, or known to be no longer than the buffer.
fn fits(body: &Body, buffer: u64) -> bool {
    body.size_hint().upper().is_some_and(|upper| upper <= buffer)
}

/// A call that goes out bare is probably refused. Where its body could not be sent twice it is held back for a moment,
/// as the server may refuse without it (RFC 9110 section 10.1.1).
fn wait_for_word(call: &mut Call, buffer: u64) {
    if !fits(&call.body, buffer) {
        call.headers.insert(EXPECT, HeaderValue::from_static("100-continue"));
        call.expects_continue = true;
    }
}

impl Inner {
    /// An answer that is no refusal.
    fn accepted(&self, used: Option<&Arc<Session>>, headers: &HeaderMap) {
        let known = self.known.load_full();
        let Some(session) = used else {
            if matches!(*known, Known::Nothing) {
                self.replace(&known, Known::Unasked);
            }
            return;
        };
        session.prove();
        // Only the newest session is followed: an answer that was long on its way brings an old nonce.
        let newest = matches!(&*known, Known::Challenge(newest) if Arc::ptr_eq(newest, session));
        if let Some(nonce) = challenge::next_nonce(headers).filter(|nonce| newest && *nonce != session.challenge().nonce) {
            self.replace(&known, Known::Challenge(Arc::new(session.followed_by(nonce))));
        }
    }

    /// A 401. A challenge that is new is remembered and met; a second no to the same is no.
    fn refused(&self, used: Option<&Arc<Session>>, headers: &HeaderMap) -> Renewal {
        let known = self.known.load_full();
        let Some(challenge) = challenge::strongest(headers) else {
            if matches!(*known, Known::Nothing) {
                self.replace(&known, Known::Unasked);
            }
            return Renewal::Stands;
        };
        if let Some(session) = used {
            let same_realm = challenge.realm == session.challenge().realm;
            let newer =
                matches!(&*known, Known::Challenge(newer) if !Arc::ptr_eq(newer, session) && newer.challenge().realm == challenge.realm);
            if newer {
                return Renewal::Again;
            }
            // A user that was right before is not wrong now, so it must be the nonce, even if the server does not say so.
            let aged = challenge.stale || (session.is_proven() && challenge.nonce != session.challenge().nonce);
            if same_realm && !aged {
                return Renewal::Stands;
            }
        } else if let Known::Challenge(newer) = &*known
            && newer.challenge().realm == challenge.realm
        {
            return Renewal::Again;
        }
        let Some(session) = Session::new(challenge, &self.user) else { return Renewal::Stands };
        if used.is_some_and(|used| used.is_proven() && used.challenge().realm == session.challenge().realm) {
            session.prove();
        }
        self.replace(&known, Known::Challenge(Arc::new(session)));
        Renewal::Again
    }

    /// Replaces what was known, unless somebody was faster: then theirs is as good.
    fn replace(&self, known: &Arc<Known>, by: Known) {
        self.known.compare_and_swap(known, Arc::new(by));
    }
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner").field("known", &self.known).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use http::Response;
    use http::header::WWW_AUTHENTICATE;
    use serde_json::json;

    use super::*;
    use crate::auth::support::{BUFFER, auth, call, call_with, complaints, now, signed};
    use crate::auth::{Auth, Tickets};

    fn digest() -> Auth {
        auth(json!({ "digest": { "username": "u", "password": "${secret:p}" } }))
    }

    /// Signs, and does what the pool does.
    fn sent(auth: &Auth, mut call: Call) -> (String, Call, Tickets) {
        let tickets = now(auth.sign(&mut call)).unwrap();
        (written(&mut call), call, tickets)
    }

    fn written(call: &mut Call) -> String {
        let mut headers = call.headers.clone();
        if let Some(finish) = &mut call.finish {
            finish.apply(&mut headers);
        }
        headers.get(AUTHORIZATION).map(|v| v.to_str().unwrap().to_owned()).unwrap_or_default()
    }

    fn answer(auth: &Auth, call: &Call, tickets: &Tickets, status: u16, fields: &[(&'static str, &str)]) -> Renewal {
        let mut answer = Response::new(Body::Empty);
        *answer.status_mut() = StatusCode::from_u16(status).unwrap();
        for (name, value) in fields {
            answer.headers_mut().append(*name, value.parse().unwrap());
        }
        now(auth.renew(call, tickets, true, &mut answer)).unwrap()
    }

    fn challenge(nonce: &str, more: &str) -> (&'static str, String) {
        (WWW_AUTHENTICATE.as_str(), format!("Digest realm=\"r\", nonce=\"{nonce}\", qop=\"auth\"{more}"))
    }

    /// A scheme that has met the challenge `n1`.
    fn met(more: &str) -> Auth {
        let auth = digest();
        let (bare, call, tickets) = sent(&auth, call("/a"));
        assert_eq!(bare, "");
        let (name, value) = challenge("n1", more);
        assert_eq!(answer(&auth, &call, &tickets, 401, &[(name, &value)]), Renewal::Again);
        auth
    }

    #[test]
    fn the_first_call_goes_out_bare_and_all_others_answer_the_challenge() {
        let auth = met("");
        for count in 1..=3 {
            let (text, ..) = sent(&auth, call("/a?b=c"));
            assert!(text.contains(&format!("nonce=\"n1\", uri=\"/a?b=c\", nc=0000000{count}")), "{text}");
        }
    }

    #[test]
    fn the_same_call_put_onto_the_wire_again_has_another_count() {
        let auth = met("");
        let (one, mut call, _) = sent(&auth, call("/a"));
        let other = written(&mut call);
        assert!(one.contains("nc=00000001") && other.contains("nc=00000002"), "{one} {other}");
    }

    #[test]
    fn no_count_comes_twice_from_many_threads() {
        let auth = met("");
        let all: Vec<String> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| (0..250).map(|_| sent(&auth, call("/a")).0).collect::<Vec<_>>())).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        let counts: HashSet<&str> = all.iter().map(|text| &text.split("nc=").nth(1).unwrap()[..8]).collect();
        assert_eq!(counts.len(), 1000);
    }

    #[test]
    fn while_one_call_asks_the_others_wait_and_then_answer() {
        let auth = digest();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let mut first = call("/a");
            let tickets = auth.sign(&mut first).await.unwrap();
            let mut second = call("/a");
            let mut waiting = Box::pin(auth.sign(&mut second));
            assert!(tokio::time::timeout(PATIENCE / 2, &mut waiting).await.is_err());
            let (name, value) = challenge("n1", "");
            assert_eq!(answer(&auth, &first, &tickets, 401, &[(name, &value)]), Renewal::Again);
            drop(tickets);
            waiting.await.unwrap();
            assert!(written(&mut second).contains("nonce=\"n1\""));
        });
    }

    #[test]
    fn a_call_that_asked_and_left_leaves_its_turn_to_the_next_and_nobody_waits_for_ever() {
        let auth = digest();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let tickets = auth.sign(&mut call("/a")).await.unwrap();
            // One that holds on keeps the others only so long.
            let began = tokio::time::Instant::now();
            auth.sign(&mut call("/a")).await.unwrap();
            assert_eq!(began.elapsed(), PATIENCE);
            drop(tickets);
            let began = tokio::time::Instant::now();
            auth.sign(&mut call("/a")).await.unwrap();
            assert_eq!(began.elapsed(), Duration::ZERO);
        });
    }

    #[test]
    fn a_server_that_asks_for_nothing_gets_nothing_until_it_does() {
        let auth = digest();
        let (_, one, tickets) = sent(&auth, call("/a"));
        assert_eq!(answer(&auth, &one, &tickets, 200, &[]), Renewal::Stands);
        let ((_, one, first), (_, _, _second)) = (sent(&auth, call("/a")), sent(&auth, call("/a")));
        let (name, value) = challenge("n1", "");
        assert_eq!(answer(&auth, &one, &first, 401, &[(name, &value)]), Renewal::Again);
        assert!(sent(&auth, call("/a")).0.contains("n1"));
    }

    #[test]
    fn a_stale_nonce_is_replaced_once_for_all_that_used_it() {
        let auth = met("");
        let ((_, one, first), (_, other, second)) = (sent(&auth, call("/a")), sent(&auth, call("/b")));
        let (name, value) = challenge("n2", ", stale=true");
        assert_eq!(answer(&auth, &one, &first, 401, &[(name, &value)]), Renewal::Again);
        let (_, value) = challenge("n3", ", stale=true");
        assert_eq!(answer(&auth, &other, &second, 401, &[(name, &value)]), Renewal::Again);
        assert!(sent(&auth, call("/a")).0.contains("nonce=\"n2\", uri=\"/a\", nc=00000001"));
    }

    #[test]
    fn a_wrong_password_is_not_tried_twice() {
        let auth = met("");
        let (_, call, tickets) = sent(&auth, call("/a"));
        let (name, value) = challenge("n2", "");
        assert_eq!(answer(&auth, &call, &tickets, 401, &[(name, &value)]), Renewal::Stands);
        assert_eq!(answer(&auth, &call, &tickets, 401, &[("www-authenticate", "Basic realm=\"r\"")]), Renewal::Stands);
    }

    #[test]
    fn a_password_that_was_right_before_meets_a_new_nonce_even_if_nobody_says_stale() {
        let auth = met("");
        let (_, call, tickets) = sent(&auth, call("/a"));
        assert_eq!(answer(&auth, &call, &tickets, 200, &[]), Renewal::Stands);
        let (name, value) = challenge("n2", "");
        assert_eq!(answer(&auth, &call, &tickets, 401, &[(name, &value)]), Renewal::Again);
        let (name, value) = challenge("n2", "");
        let (_, call, tickets) = sent(&auth, super::super::support::call("/a"));
        assert_eq!(answer(&auth, &call, &tickets, 401, &[(name, &value)]), Renewal::Stands, "the very same nonce again");
    }

    #[test]
    fn another_realm_is_another_chance() {
        let auth = met("");
        let (_, call, tickets) = sent(&auth, call("/a"));
        let other = "Digest realm=\"other\", nonce=\"n2\", qop=\"auth\"";
        assert_eq!(answer(&auth, &call, &tickets, 401, &[("www-authenticate", other)]), Renewal::Again);
        assert!(sent(&auth, super::super::support::call("/a")).0.contains("realm=\"other\""));
    }

    #[test]
    fn the_nonce_that_the_server_names_for_the_next_call_is_used_for_it() {
        let auth = met("");
        let ((_, one, first), (_, other, second)) = (sent(&auth, call("/a")), sent(&auth, call("/b")));
        assert_eq!(answer(&auth, &one, &first, 200, &[("authentication-info", "nextnonce=\"n2\"")]), Renewal::Stands);
        assert_eq!(answer(&auth, &other, &second, 200, &[("authentication-info", "nextnonce=\"n3\"")]), Renewal::Stands);
        assert!(sent(&auth, call("/a")).0.contains("nonce=\"n2\", uri=\"/a\", nc=00000001"));
    }

    #[test]
    fn a_body_is_protected_where_the_server_offers_it_and_the_buffer_holds_it() {
        let offering = |quality: &str| {
            let auth = digest();
            let (_, call, tickets) = sent(&auth, call("/a"));
            let value = format!("Digest realm=\"r\", nonce=\"n\", qop=\"{quality}\"");
            answer(&auth, &call, &tickets, 401, &[("www-authenticate", &value)]);
            auth
        };
        let long = vec![b'x'; BUFFER as usize + 1];
        for (quality, body, sent_quality) in [
            ("auth,auth-int", &b"abc"[..], "auth-int"),
            ("auth-int", b"abc", "auth-int"),
            ("auth-int", b"", "auth-int"),
            ("auth", b"abc", "auth"),
            ("auth,auth-int", &long, "auth"),
        ] {
            let (text, mut call, _) = sent(&offering(quality), call_with("", body));
            assert!(text.contains(&format!("qop={sent_quality},")), "{quality}: {text}");
            assert_eq!(now(body::collect(std::mem::take(&mut call.body), u64::MAX, "")).unwrap(), body);
        }
        let error = signed(&offering("auth-int"), call_with("", &long)).unwrap_err();
        assert_eq!(error, Error::BodyTooLarge(BUFFER, "limits.buffer".into()));
    }

    #[test]
    fn a_bare_call_whose_body_could_not_be_sent_twice_waits_for_a_word() {
        let (_, small, _) = sent(&digest(), call_with("", b"abc"));
        assert!(!small.expects_continue);
        let (_, large, _) = sent(&digest(), call_with("", &vec![b'x'; BUFFER as usize + 1]));
        assert!(large.expects_continue && large.headers["expect"] == "100-continue");
    }

    #[test]
    fn what_is_wrong_in_the_configuration_is_said_without_the_password() {
        assert_eq!(complaints(json!({ "digest": { "username": "u", "password": "${secret:p}" } })), Vec::<String>::new());
        assert_eq!(complaints(json!({ "digest": {} })).len(), 1);
        for (name, password) in
            [("a:b", "${secret:hunter2}"), ("a\nb", "${secret:hunter2}"), ("u", "${secret:hunter2\n}"), ("u", "hunter2")]
        {
            let found = complaints(json!({ "digest": { "username": name, "password": password } }));
            assert!(found.len() == 1 && !found[0].contains("hunter2"), "{found:?}");
        }
    }

    #[test]
    fn nothing_of_it_prints() {
        let text = format!("{:?}", met(""));
        assert!(!text.contains("n1") && !text.contains("\"p\""), "{text}");
    }
}
