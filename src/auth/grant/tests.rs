//! Grants with a real background thread, a manual clock and an issuer made of a closure.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::oneshot;

use super::*;
use crate::auth::support::call;
use crate::secret::Secret;
use crate::store::{MasterKey, Memory as InMemory, Records};

const T: u64 = 1_700_000_000_000;

/// An issuer: counts the requests, and answers when it is let.
#[derive(Default)]
struct Issuer {
    requests: AtomicU32,
    answers: Mutex<VecDeque<Answer>>,
    seen: Mutex<Vec<Option<String>>>,
    must_keep: bool,
}

enum Answer {
    Mint(Option<&'static str>),
    Fail(Failure),
    Held(oneshot::Receiver<()>),
    Panic,
}

impl std::fmt::Debug for Issuer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Issuer")
    }
}

/// The token that everybody shares.
async fn shared(seat: &Seat) -> Result<Arc<Token>, Error> {
    seat.grant.token(seat, &seat.whose).await
}

impl Source for Issuer {
    fn fetch<'a>(&'a self, ask: Ask<'a>) -> Fetching<'a> {
        let number = self.requests.fetch_add(1, Ordering::SeqCst) + 1;
        lock(&self.seen).push(ask.before.and_then(|b| b.refresh.as_ref()).map(|r| r.expose().to_owned()));
        let answer = lock(&self.answers).pop_front().unwrap_or(Answer::Mint(None));
        let now = ask.clock.millis();
        Box::pin(async move {
            let mint = |refresh: Option<&str>| {
                Ok(Minted {
                    access: Some(Secret::new(format!("token-{number}"))),
                    refresh: refresh.map(|r| Secret::new(r.to_owned())),
                    obtained: now,
                    expires: Some(now + 3_600_000),
                    ..Minted::default()
                })
            };
            match answer {
                Answer::Mint(refresh) => mint(refresh),
                Answer::Fail(failure) => Err(failure),
                Answer::Held(until) => {
                    let _ = until.await;
                    mint(None)
                }
                Answer::Panic => panic!("on purpose"),
            }
        })
    }

    fn must_keep(&self) -> bool {
        self.must_keep
    }
}

fn trouble() -> Trouble {
    Trouble { detail: "d".into(), hint: "h".into(), cause: "c".into() }
}

/// A house of its own for one grant.
struct Stand {
    tokens: Tokens,
    clock: Clock,
    issuer: Arc<Issuer>,
    runtime: tokio::runtime::Runtime,
}

impl Stand {
    fn new(issuer: Issuer, store: Option<Arc<Sealed>>) -> Self {
        let clock = Clock::manual(T);
        let tokens = Tokens::new(clock.clone());
        tokens.start(Background::start().unwrap(), store).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap();
        Self { tokens, clock, issuer: Arc::new(issuer), runtime }
    }

    fn seat(&self) -> Arc<Seat> {
        let material = Material::of([&b"one"[..]]);
        self.tokens.seat(NewSeat {
            resource: "api".into(),
            scheme: "test",
            material,
            identity: "f1".into(),
            renew_before: None,
            source: self.issuer.clone(),
            shelf: None,
            reads: Reads::default(),
        })
    }

    fn token(&self, seat: &Seat) -> Result<String, Error> {
        self.runtime.block_on(shared(seat)).map(|token| token.access().to_owned())
    }

    fn requests(&self) -> u32 {
        self.issuer.requests.load(Ordering::SeqCst)
    }
}

fn answering(answers: impl IntoIterator<Item = Answer>) -> Issuer {
    Issuer { answers: Mutex::new(answers.into_iter().collect()), ..Issuer::default() }
}

#[test]
fn sixty_four_first_callers_on_many_threads_share_one_fetch() {
    let stand = Stand::new(Issuer::default(), None);
    let seat = stand.seat();
    let callers: Vec<_> = (0..64)
        .map(|_| {
            let seat = seat.clone();
            stand.runtime.spawn(async move { shared(&seat).await.unwrap().access().to_owned() })
        })
        .collect();
    for caller in callers {
        assert_eq!(stand.runtime.block_on(caller).unwrap(), "token-1");
    }
    assert_eq!(stand.requests(), 1);
    assert_eq!(seat.fresh(&call("/a")).unwrap().access(), "token-1");
}

#[test]
fn a_leader_who_leaves_changes_nothing_for_those_who_wait() {
    let (let_go, held) = oneshot::channel();
    let stand = Stand::new(answering([Answer::Held(held)]), None);
    let seat = stand.seat();
    let leader = tokio::time::Duration::from_millis(20);
    assert!(stand.runtime.block_on(async { tokio::time::timeout(leader, shared(&seat)).await }).is_err());
    let waiter = stand.runtime.spawn({
        let seat = seat.clone();
        async move { shared(&seat).await.unwrap().access().to_owned() }
    });
    let_go.send(()).unwrap();
    assert_eq!(stand.runtime.block_on(waiter).unwrap(), "token-1");
    assert_eq!(stand.requests(), 1);
}

#[test]
fn sixty_four_refused_callers_share_one_renewal() {
    let stand = Stand::new(Issuer::default(), None);
    let seat = stand.seat();
    let used = stand.runtime.block_on(shared(&seat)).unwrap();
    let callers: Vec<_> = (0..64)
        .map(|_| {
            let (seat, used) = (seat.clone(), used.clone());
            stand.runtime.spawn(async move {
                assert!(seat.grant.refuse(&used, &seat, &seat.whose, Life::refuse));
                shared(&seat).await.unwrap().access().to_owned()
            })
        })
        .collect();
    for caller in callers {
        assert_eq!(stand.runtime.block_on(caller).unwrap(), "token-2");
    }
    assert_eq!(stand.requests(), 2);
}

#[test]
fn a_refused_token_is_not_served_even_before_anyone_asks() {
    let (let_go, held) = oneshot::channel();
    let stand = Stand::new(answering([Answer::Mint(None), Answer::Held(held)]), None);
    let seat = stand.seat();
    let used = stand.runtime.block_on(shared(&seat)).unwrap();
    assert!(seat.grant.refuse(&used, &seat, &seat.whose, Life::refuse));
    assert!(seat.fresh(&call("/a")).is_none());
    let_go.send(()).unwrap();
    assert_eq!(stand.token(&seat).unwrap(), "token-2");
}

#[test]
fn a_failed_fetch_fails_all_who_waited_and_nobody_asks_again_before_it_is_due() {
    let stand = Stand::new(answering([Answer::Fail(Failure::Down(trouble(), Some(Duration::from_secs(30))))]), None);
    let seat = stand.seat();
    for _ in 0..100 {
        assert!(matches!(stand.token(&seat), Err(Error::IssuerUnavailable(..))));
    }
    assert_eq!(stand.requests(), 1);
    stand.clock.advance(Duration::from_secs(31));
    assert_eq!(stand.token(&seat).unwrap(), "token-2");
}

#[test]
fn a_fetch_that_panics_is_a_failure_and_not_the_end() {
    let stand = Stand::new(answering([Answer::Panic]), None);
    let seat = stand.seat();
    assert!(matches!(stand.token(&seat), Err(Error::Internal(_))));
    stand.clock.advance(Duration::from_secs(61));
    assert_eq!(stand.token(&seat).unwrap(), "token-2");
}

#[test]
fn without_a_background_a_fetch_fails_and_nobody_hangs() {
    let tokens = Tokens::new(Clock::manual(T));
    let stand = Stand { tokens, ..Stand::new(Issuer::default(), None) };
    assert!(matches!(stand.token(&stand.seat()), Err(Error::Internal(_))));
    assert_eq!(stand.requests(), 0);
}

#[test]
fn a_grant_keeps_its_token_over_a_reload_and_goes_with_its_last_seat() {
    let stand = Stand::new(Issuer::default(), None);
    let old = stand.seat();
    assert_eq!(stand.token(&old).unwrap(), "token-1");
    let new = stand.seat();
    drop(old);
    assert_eq!(stand.token(&new).unwrap(), "token-1");
    let grant = Arc::downgrade(&new.grant);
    drop(new);
    // The job that has ended may hold it for a moment longer.
    while grant.upgrade().is_some() {
        std::thread::yield_now();
    }
    assert_eq!(stand.token(&stand.seat()).unwrap(), "token-2");
    assert!(stand.tokens.views().is_empty());
}

#[test]
fn a_refused_grant_is_tried_again_once_somebody_has_looked_at_its_resource() {
    let stand = Stand::new(answering([Answer::Fail(Failure::Refused(trouble()))]), None);
    let seat = stand.seat();
    for _ in 0..3 {
        stand.clock.advance(Duration::from_secs(3600));
        assert!(matches!(stand.token(&seat), Err(Error::CredentialRefused(_))));
    }
    assert_eq!(stand.requests(), 1);
    // A configuration that is read, and one that takes over elsewhere, are no such look.
    let again = stand.seat();
    stand.tokens.forgive(|resource| resource != &*again.resource);
    assert!(matches!(stand.token(&again), Err(Error::CredentialRefused(_))));
    stand.tokens.forgive(|resource| resource == &*again.resource);
    assert_eq!(stand.token(&again).unwrap(), "token-2");
}

#[test]
fn people_see_state_age_and_last_error_and_no_token() {
    let stand = Stand::new(answering([Answer::Fail(Failure::Down(trouble(), None))]), None);
    let (seat, _route) = (stand.seat(), stand.seat());
    assert_eq!(stand.tokens.views()[0].state, State::None);
    assert!(stand.token(&seat).is_err());
    let views = stand.tokens.views();
    assert_eq!((views.len(), views[0].state, views[0].failure.clone()), (1, State::BackingOff, Some(("c".into(), T))));
    stand.clock.advance(Duration::from_secs(61));
    stand.token(&seat).unwrap();
    let view = stand.tokens.views().remove(0);
    assert_eq!((view.state, view.obtained, view.failure.clone()), (State::Fresh, Some(T + 61_000), None));
    assert!(!format!("{view:?}{seat:?}").contains("token-"), "{view:?}{seat:?}");
}

/// Records that outlive the process as far as these tests can tell, and fail when they are told to.
#[derive(Clone, Debug, Default)]
struct Disk(Arc<InMemory>, Arc<std::sync::atomic::AtomicBool>);

impl Disk {
    fn sealed(&self) -> Arc<Sealed> {
        Arc::new(Sealed::open(Box::new(self.clone()), vec![MasterKey::new(&[7; 32]).unwrap()]).unwrap())
    }

    fn full(&self, full: bool) {
        self.1.store(full, Ordering::SeqCst);
    }
}

impl Records for Disk {
    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, crate::store::Failure> {
        self.0.read(name)
    }
    fn write(&self, name: &str, record: &[u8]) -> Result<(), crate::store::Failure> {
        if self.1.load(Ordering::SeqCst) {
            return Err(crate::store::Failure("no space left".into()));
        }
        self.0.write(name, record)
    }
    fn remove(&self, name: &str) -> Result<(), crate::store::Failure> {
        self.0.remove(name)
    }
    fn names(&self) -> Result<Vec<String>, crate::store::Failure> {
        self.0.names()
    }
    fn is_durable(&self) -> bool {
        true
    }
}

fn keeping(answers: impl IntoIterator<Item = Answer>) -> Issuer {
    Issuer { must_keep: true, ..answering(answers) }
}

#[test]
fn a_living_token_survives_a_restart_without_a_request() {
    let disk = Disk::default();
    let stand = Stand::new(Issuer::default(), Some(disk.sealed()));
    assert_eq!(stand.token(&stand.seat()).unwrap(), "token-1");
    let stand = Stand::new(Issuer::default(), Some(disk.sealed()));
    assert_eq!(stand.token(&stand.seat()).unwrap(), "token-1");
    assert_eq!(stand.requests(), 0);
}

#[test]
fn a_dead_token_in_the_store_is_renewed_by_its_refresh_token() {
    let disk = Disk::default();
    let stand = Stand::new(keeping([Answer::Mint(Some("r1"))]), Some(disk.sealed()));
    stand.token(&stand.seat()).unwrap();
    let stand = Stand::new(keeping([Answer::Mint(Some("r2"))]), Some(disk.sealed()));
    stand.clock.advance(Duration::from_secs(7200));
    let seat = stand.seat();
    stand.token(&seat).unwrap();
    assert_eq!(*lock(&stand.issuer.seen), [Some("r1".to_owned())]);
    stand.clock.advance(Duration::from_secs(7200));
    stand.token(&seat).unwrap();
    assert_eq!(lock(&stand.issuer.seen)[1], Some("r2".to_owned()));
}

#[test]
fn a_connection_that_is_gone_has_nothing_fetched_and_nothing_stored_any_more() {
    let disk = Disk::default();
    let (release, held) = oneshot::channel();
    let store = disk.sealed();
    let stand = Stand::new(keeping([Answer::Held(held)]), Some(store.clone()));
    let owner = crate::auth::connection::Owner { environment: "".into(), resource: "api".into() };
    let shelf = stand.tokens.connections().shelf(&owner);
    let seat = stand.tokens.seat(NewSeat {
        resource: "api".into(),
        scheme: "test",
        material: Material::of([&b"one"[..]]),
        identity: "f1".into(),
        renew_before: None,
        source: stand.issuer.clone(),
        shelf: Some(shelf),
        reads: Reads::default(),
    });
    let account = |name: &str| {
        let bond = crate::auth::bond::Bond::stored("b");
        let new = crate::auth::connection::New { owner: owner.clone(), name: name.into(), client: None, vars: Default::default(), bond };
        let dead = Minted { refresh: Some(Secret::new("r1".into())), ..Minted::default() };
        stand.tokens.connections().put(new, &dead, T).unwrap()
    };
    // One whose renewal is under way, and one that a call has found and not yet asked for.
    let (under_way, found) = (account("a"), account("b"));
    let ask = |account: &Arc<crate::call::Account>| {
        let mut call = call("/");
        call.account = Some(account.clone());
        stand.runtime.block_on(async { seat.token(&call).await.map(|token| token.access().to_owned()) })
    };
    std::thread::scope(|scope| {
        let first = scope.spawn(|| ask(&under_way));
        while stand.requests() == 0 {
            std::thread::yield_now();
        }
        for name in ["a", "b"] {
            assert!(stand.tokens.connections().remove(&owner, name).unwrap().is_some());
        }
        release.send(()).unwrap();
        assert_eq!(first.join().unwrap().unwrap(), "token-1");
    });
    let grant = Connection::of(&under_way).unwrap().begun().unwrap();
    assert!(stand.runtime.block_on(grant.quiet(Duration::from_secs(60))));
    assert_eq!(grant.last().unwrap().access.unwrap().expose(), "token-1", "what is to be revoked is what came last");
    assert!(matches!(ask(&found), Err(Error::CredentialRefused(_))));
    assert_eq!((stand.requests(), store.names().unwrap()), (1, Vec::new()));
}

#[test]
fn the_issuer_is_not_asked_while_the_intent_cannot_be_journalled() {
    let disk = Disk::default();
    let stand = Stand::new(keeping([Answer::Mint(Some("r1"))]), Some(disk.sealed()));
    disk.full(true);
    let seat = stand.seat();
    assert!(matches!(stand.token(&seat), Err(Error::StoreUnavailable(_))));
    assert_eq!(stand.requests(), 0);
    disk.full(false);
    stand.clock.advance(Duration::from_secs(61));
    assert_eq!(stand.token(&seat).unwrap(), "token-1");
}

#[test]
fn what_the_issuer_gave_and_the_disk_refused_is_stored_later_and_never_asked_for_twice() {
    let disk = Disk::default();
    let (let_go, held) = oneshot::channel();
    let stand = Stand::new(keeping([Answer::Held(held)]), Some(disk.sealed()));
    let seat = stand.seat();
    let asking = stand.runtime.spawn({
        let seat = seat.clone();
        async move { shared(&seat).await.map(|token| token.access().to_owned()) }
    });
    // The intent is written by the time that the issuer is asked.
    while stand.requests() == 0 {
        std::thread::yield_now();
    }
    disk.full(true);
    let_go.send(()).unwrap();
    assert!(matches!(stand.runtime.block_on(asking).unwrap(), Err(Error::StoreUnavailable(_))));
    disk.full(false);
    stand.clock.advance(Duration::from_secs(61));
    assert_eq!(stand.token(&seat).unwrap(), "token-1");
    assert_eq!(stand.requests(), 1);
}

#[test]
fn a_full_disk_does_not_stop_a_grant_that_can_be_had_again() {
    let disk = Disk::default();
    let stand = Stand::new(Issuer::default(), Some(disk.sealed()));
    disk.full(true);
    assert_eq!(stand.token(&stand.seat()).unwrap(), "token-1");
}

#[test]
fn a_rotating_refresh_token_without_an_answer_is_tried_once_more_and_then_refused() {
    let unknown = || Answer::Fail(Failure::Unknown(trouble()));
    let disk = Disk::default();
    let answers = [Answer::Mint(Some("r1")), Answer::Mint(Some("r2")), unknown(), unknown()];
    let stand = Stand::new(keeping(answers), Some(disk.sealed()));
    let seat = stand.seat();
    let later = || {
        stand.clock.advance(Duration::from_secs(7200));
        stand.token(&seat)
    };
    later().unwrap();
    later().unwrap();
    assert!(matches!(later(), Err(Error::IssuerUnavailable(..))));
    assert!(matches!(later(), Err(Error::CredentialRefused(_))));
    assert!(matches!(later(), Err(Error::CredentialRefused(_))));
    assert_eq!(stand.requests(), 4);
    assert_eq!(lock(&stand.issuer.seen)[2..], [Some("r2".to_owned()), Some("r2".to_owned())]);
}

#[test]
fn a_refresh_token_that_has_never_changed_backs_off_for_as_long_as_it_takes() {
    let unknown = || Answer::Fail(Failure::Unknown(trouble()));
    let disk = Disk::default();
    let answers = [Answer::Mint(Some("r1")), unknown(), unknown(), unknown(), unknown(), Answer::Mint(Some("r1"))];
    let stand = Stand::new(keeping(answers), Some(disk.sealed()));
    let seat = stand.seat();
    for good in [true, false, false, false, false, true] {
        stand.clock.advance(Duration::from_secs(7200));
        assert_eq!(stand.token(&seat).is_ok(), good);
    }
}
