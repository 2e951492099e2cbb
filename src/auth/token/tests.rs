//! Every arrow of the machine, by hand: the time is a number and the dice are loaded.

use super::*;

const SECOND: u64 = 1000;
const HOUR: u64 = 3600 * SECOND;
/// The moment at which these tests begin.
const T: u64 = 1_700_000_000_000;

fn life() -> Life {
    Life { dice: || 0.0, ..Life::new(None) }
}

fn minted(now: u64, seconds: u64) -> Minted {
    Minted { access: Some(Secret::new("t".into())), obtained: now, expires: Some(now + seconds * SECOND), ..Minted::default() }
}

fn trouble() -> Trouble {
    Trouble { detail: "it is down".into(), hint: "wait".into(), cause: "it is down, says the log".into() }
}

fn down() -> Failure {
    Failure::Down(trouble(), None)
}

/// A life with a token that was fetched at `T`.
fn with(seconds: u64) -> Life {
    let mut life = life();
    assert!(matches!(life.turn(T), Turn::Fetch));
    life.done(T, Ok(minted(T, seconds)));
    life
}

fn served(life: &mut Life, now: u64) -> Arc<Token> {
    match life.turn(now) {
        Turn::Serve(token) => token,
        other => panic!("{other:?}"),
    }
}

#[test]
fn none_becomes_fetching_by_the_first_who_asks_and_all_others_wait() {
    let mut life = life();
    assert_eq!(life.state(T), State::None);
    assert!(matches!(life.turn(T), Turn::Fetch));
    assert_eq!(life.state(T), State::Fetching);
    assert!(matches!(life.turn(T), Turn::Wait));
    assert!(matches!(life.turn(T + HOUR), Turn::Wait));
}

#[test]
fn fetching_becomes_fresh_by_a_token() {
    let mut life = with(3600);
    assert_eq!(life.state(T), State::Fresh);
    assert_eq!(served(&mut life, T).generation, 1);
}

#[test]
fn fresh_becomes_ageing_a_fifth_before_the_end_and_one_renews_while_all_are_served() {
    let mut life = with(1000);
    assert_eq!(life.state(T + 799 * SECOND), State::Fresh);
    assert_eq!(life.state(T + 800 * SECOND), State::Ageing);
    assert!(matches!(life.turn(T + 800 * SECOND), Turn::Renew(_)));
    assert_eq!(life.state(T + 800 * SECOND), State::Ageing);
    served(&mut life, T + 801 * SECOND);
}

#[test]
fn ageing_becomes_fresh_by_a_new_token() {
    let mut life = with(1000);
    life.turn(T + 800 * SECOND);
    life.done(T + 802 * SECOND, Ok(minted(T + 801 * SECOND, 1000)));
    assert_eq!(life.state(T + 802 * SECOND), State::Fresh);
    assert_eq!(served(&mut life, T + 1100 * SECOND).generation, 2);
}

#[test]
fn ageing_stays_ageing_when_the_renewal_fails_and_the_issuer_is_left_alone_for_a_while() {
    let mut life = with(1000);
    life.turn(T + 800 * SECOND);
    life.done(T + 800 * SECOND, Err(down()));
    assert_eq!(life.state(T + 800 * SECOND), State::Ageing);
    served(&mut life, T + 800 * SECOND);
    assert!(matches!(life.turn(T + 801 * SECOND), Turn::Renew(_)));
}

#[test]
fn ageing_becomes_expired_and_a_dead_token_is_never_served() {
    let mut life = with(1000);
    let last = T + 999 * SECOND - 1;
    assert!(matches!(life.turn(last), Turn::Renew(_)));
    life.done(last, Err(down()));
    served(&mut life, last);
    // One second before its end it would be dead on arrival.
    assert!(matches!(life.turn(last + 1), Turn::Fail(_)));
    assert_eq!(life.state(last + HOUR), State::Expired);
}

#[test]
fn a_fetch_that_was_begun_while_ageing_is_waited_for_once_the_token_is_dead() {
    let mut life = with(1000);
    assert!(matches!(life.turn(T + 900 * SECOND), Turn::Renew(_)));
    assert_eq!(life.state(T + 2000 * SECOND), State::Fetching);
    assert!(matches!(life.turn(T + 2000 * SECOND), Turn::Wait));
}

#[test]
fn expired_becomes_fetching_by_the_next_who_asks() {
    let mut life = with(10);
    assert_eq!(life.state(T + HOUR), State::Expired);
    assert!(matches!(life.turn(T + HOUR), Turn::Fetch));
    assert_eq!(life.state(T + HOUR), State::Fetching);
}

#[test]
fn fetching_becomes_backing_off_by_a_failure_and_says_when_to_come_back() {
    let mut life = life();
    life.turn(T);
    life.done(T, Err(down()));
    assert_eq!(life.state(T), State::BackingOff);
    let Turn::Fail(error) = life.turn(T + 400) else { panic!("it is not left alone") };
    assert_eq!(error, Error::IssuerUnavailable(Box::new(trouble()), Duration::from_millis(600)));
    assert_eq!((error.status().as_u16(), error.retry_after()), (503, Some(Duration::from_secs(1))));
}

#[test]
fn backing_off_becomes_fetching_by_the_first_who_asks_once_it_is_due() {
    let mut life = life();
    life.turn(T);
    life.done(T, Err(down()));
    assert!(matches!(life.turn(T + 999), Turn::Fail(_)));
    assert!(matches!(life.turn(T + 1000), Turn::Fetch));
    life.done(T + 1000, Ok(minted(T + 1000, 60)));
    assert_eq!((life.state(T + 1000), life.failure().is_none()), (State::Fresh, true));
}

#[test]
fn the_wait_is_drawn_between_one_second_and_a_ceiling_that_doubles_up_to_a_minute() {
    for (dice, ceilings) in [((|| 0.0) as fn() -> f64, [1, 1, 1, 1, 1, 1, 1, 1]), ((|| 1.0) as fn() -> f64, [2, 4, 8, 16, 32, 60, 60, 60])]
    {
        let mut life = Life { dice, ..life() };
        let mut now = T;
        for ceiling in ceilings {
            assert!(matches!(life.turn(now), Turn::Fetch));
            life.done(now, Err(down()));
            assert_eq!(life.due(now), Some(now + ceiling * SECOND));
            now += ceiling * SECOND;
        }
    }
    let mut life = Life { failures: u32::MAX, ..life() };
    life.done(T, Err(down()));
    assert!(life.due(T).is_some());
}

#[test]
fn an_issuer_may_ask_for_more_patience_within_a_bound() {
    for (asked, waited) in [(30, 30), (0, 1), (86_400, 900)] {
        let mut life = life();
        life.turn(T);
        life.done(T, Err(Failure::Down(trouble(), Some(Duration::from_secs(asked)))));
        assert_eq!(life.due(T), Some(T + waited * SECOND));
    }
}

#[test]
fn fetching_becomes_refused_and_stays_so_until_a_person_acts() {
    let mut life = life();
    life.turn(T);
    life.done(T, Err(Failure::Refused(trouble())));
    for now in [T, T + HOUR, T + 1000 * HOUR] {
        assert_eq!(life.state(now), State::Refused);
        let Turn::Fail(error) = life.turn(now) else { panic!("a refused grant is used again") };
        assert_eq!((error.status().as_u16(), error.code(), error.retryable()), (502, "credential-refused", false));
    }
    life.forgive();
    assert_eq!(life.state(T), State::None);
    assert!(matches!(life.turn(T), Turn::Fetch));
}

#[test]
fn ageing_becomes_refused_but_a_living_token_is_served_to_its_end() {
    let mut life = with(1000);
    life.turn(T + 900 * SECOND);
    life.done(T + 900 * SECOND, Err(Failure::Refused(trouble())));
    assert_eq!(life.state(T + 900 * SECOND), State::Refused);
    served(&mut life, T + 950 * SECOND);
    assert!(matches!(life.turn(T + 1000 * SECOND), Turn::Fail(Error::CredentialRefused(_))));
}

#[test]
fn fresh_becomes_expired_by_a_refusal_and_all_who_used_that_token_share_one_renewal() {
    let mut life = with(3600);
    let used = served(&mut life, T);
    for _ in 0..64 {
        assert!(life.refuse(T + 1, &used));
    }
    assert_eq!(life.state(T + 1), State::Expired);
    assert!(matches!(life.turn(T + 1), Turn::Fetch));
    assert!(life.refuse(T + 2, &used));
    assert!(matches!(life.turn(T + 2), Turn::Wait));
    life.done(T + 3, Ok(minted(T + 3, 3600)));
    // One who hears of the refusal only now has the new token to try.
    assert!(life.refuse(T + 4, &used));
    assert_eq!(served(&mut life, T + 4).generation, 2);
}

#[test]
fn an_upstream_that_refuses_every_token_does_not_make_the_issuer_mint_without_end() {
    let mut life = Life { dice: || 1.0, ..with(3600) };
    let (mut minted_tokens, mut now) = (1, T);
    while now < T + HOUR {
        let used = served(&mut life, now);
        if life.refuse(now, &used) {
            assert!(matches!(life.turn(now), Turn::Fetch));
            life.done(now, Ok(minted(now, 3600)));
            minted_tokens += 1;
        }
        now += 100;
    }
    // 2, 4, 8, 16, 32 seconds apart, then a minute.
    assert!((60..70).contains(&minted_tokens), "{minted_tokens}");
}

#[test]
fn a_token_that_was_taken_before_is_renewed_at_once_when_it_is_refused() {
    let mut life = Life { dice: || 1.0, ..with(36_000) };
    for round in 1..10 {
        // The pause after a renewal does not grow, as it does where no token is ever taken.
        let now = T + round * 3 * SECOND;
        let used = served(&mut life, now);
        used.accept();
        assert!(life.refuse(now, &used), "round {round}");
        assert!(matches!(life.turn(now), Turn::Fetch));
        life.done(now, Ok(minted(now, 36_000)));
    }
}

#[test]
fn a_path_without_rights_does_not_make_the_issuer_mint_with_every_call() {
    let mut life = with(36_000);
    let mut renewed = 0;
    for call in 0..100 {
        let used = served(&mut life, T + call);
        used.accept();
        if life.refuse(T + call, &used) {
            life.turn(T + call);
            life.done(T + call, Ok(minted(T + call, 36_000)));
            renewed += 1;
        }
    }
    assert_eq!(renewed, 1);
}

#[test]
fn a_refusal_while_the_issuer_is_down_does_not_go_round_the_back_off() {
    let mut life = with(1000);
    life.turn(T + 900 * SECOND);
    life.done(T + 900 * SECOND, Err(down()));
    let used = served(&mut life, T + 900 * SECOND);
    assert!(life.refuse(T + 900 * SECOND, &used));
    assert!(matches!(life.turn(T + 900 * SECOND), Turn::Fail(Error::IssuerUnavailable(..))));
    assert_eq!(life.state(T + 900 * SECOND), State::BackingOff);
}

#[test]
fn a_refusal_of_a_refused_grants_token_is_final() {
    let mut life = with(1000);
    life.turn(T + 900 * SECOND);
    life.done(T + 900 * SECOND, Err(Failure::Refused(trouble())));
    let used = served(&mut life, T + 900 * SECOND);
    assert!(!life.refuse(T + 900 * SECOND, &used));
    assert!(matches!(life.turn(T + 901 * SECOND), Turn::Fail(Error::CredentialRefused(_))));
}

#[test]
fn a_token_without_an_end_is_served_until_it_is_refused() {
    let mut life = life();
    life.turn(T);
    life.done(T, Ok(Minted { expires: None, ..minted(T, 1) }));
    let used = served(&mut life, T + 100_000 * HOUR);
    assert_eq!(life.state(T + 100_000 * HOUR), State::Fresh);
    assert!(life.refuse(T, &used));
    assert_eq!(life.state(T), State::Expired);
}

#[test]
fn the_lead_is_that_of_the_ruling() {
    // Life, lead: a fifth, at most five minutes, at least ten seconds, never more than half (ruling F24).
    for (seconds, lead) in [(2, 1_000), (5, 2_500), (10, 5_000), (30, 10_000), (100, 20_000), (3600, 300_000), (86_400, 300_000)] {
        let mut life = with(seconds);
        assert_eq!(served(&mut life, T).ages, T + seconds * SECOND - lead, "{seconds}");
    }
}

#[test]
fn the_operators_lead_wins_and_jitter_only_shortens_it() {
    let mut life = Life { dice: || 1.0, ..Life::new(Some(Duration::from_secs(30))) };
    life.turn(T);
    life.done(T, Ok(minted(T, 600)));
    assert_eq!(served(&mut life, T).ages, T + 600 * SECOND - 30 * SECOND + 7_500);
    // A lead of more than half the life would renew without end.
    life.done(T, Ok(minted(T, 40)));
    assert_eq!(served(&mut life, T).ages, T + 40 * SECOND - 20 * SECOND + 5_000);
}

#[test]
fn a_life_of_nothing_is_dead_at_once() {
    let mut life = with(0);
    assert_eq!(life.state(T), State::Expired);
    assert!(matches!(life.turn(T), Turn::Fetch));
}

#[test]
fn the_gateways_own_trouble_is_reported_as_what_it_is() {
    let mut life = life();
    life.turn(T);
    life.done(T, Err(Failure::Own(Error::StoreUnavailable("disk full".into()))));
    assert!(matches!(life.turn(T), Turn::Fail(Error::StoreUnavailable(_))));
}

#[test]
fn a_login_that_is_turned_down_three_times_is_refused_and_a_person_gives_it_one_more_try() {
    let mut life = life();
    let mut now = T;
    for turn in 1..=3 {
        assert!(matches!(life.turn(now), Turn::Fetch), "{turn}");
        life.done(now, Err(Failure::TurnedDown(trouble())));
        assert_eq!(life.state(now), if turn < 3 { State::BackingOff } else { State::Refused });
        // What comes between is no success, and forgets nothing.
        now += HOUR;
        if turn == 1 {
            assert!(matches!(life.turn(now), Turn::Fetch));
            life.done(now, Err(down()));
            now += HOUR;
        }
    }
    assert!(matches!(life.turn(now), Turn::Fail(Error::CredentialRefused(_))));
    life.forgive();
    assert!(matches!(life.turn(now), Turn::Fetch));
    life.done(now, Err(Failure::TurnedDown(trouble())));
    assert_eq!(life.state(now), State::Refused);
    life.forgive();
    assert!(matches!(life.turn(now), Turn::Fetch));
    life.done(now, Ok(minted(now, 3600)));
    let token = served(&mut life, now);
    life.refuse(now, &token);
    assert!(matches!(life.turn(now), Turn::Fetch));
    life.done(now, Err(Failure::TurnedDown(trouble())));
    assert_eq!(life.state(now), State::BackingOff, "a good login wipes the slate");
}

#[test]
fn a_token_whose_ground_has_changed_serves_until_there_is_another() {
    let mut life = with(3600);
    let token = served(&mut life, T);
    life.outdate(&token);
    assert!(matches!(life.turn(T), Turn::Renew(_)));
    served(&mut life, T);
    life.done(T, Ok(minted(T, 3600)));
    assert_eq!(served(&mut life, T).generation, 2);
    life.outdate(&token);
    assert_eq!(served(&mut life, T).generation, 2, "that was another token's ground");
}

#[test]
fn a_session_that_was_taken_ends_however_short_it_lived_and_one_that_never_was_keeps_its_distance() {
    let mut life = with(3600);
    for _ in 0..3 {
        let token = served(&mut life, T);
        token.accept();
        assert!(life.end(T, &token));
        assert!(matches!(life.turn(T), Turn::Fetch));
        life.done(T, Ok(minted(T, 3600)));
    }
    let token = served(&mut life, T);
    assert!(!life.end(T, &token), "nobody has ever taken it");
}

#[test]
fn a_token_that_nothing_renews_is_given_up_only_when_it_is_refused_again_and_again() {
    let mut life = with(24 * 3600);
    let token = served(&mut life, T);
    // A path without rights, asked for as often as one likes within a minute, is one refusal.
    (0..100).for_each(|n| assert!(!life.wear(T + n, &token)));
    assert_eq!(life.state(T), State::Fresh);
    // One success between, and nothing was said against it.
    token.accept();
    for n in 1..WORN_OUT {
        assert!(!life.wear(T + u64::from(n) * WORN_APART, &token));
        assert_eq!(life.state(T + HOUR), State::Fresh, "{n}");
    }
    let last = T + u64::from(WORN_OUT) * WORN_APART;
    assert!(!life.wear(last, &token));
    assert_eq!(life.state(last), State::Refused);
    assert!(matches!(life.turn(last), Turn::Fail(Error::CredentialRefused(_))));
    // A person who has looked at the configuration gives it another chance.
    life.forgive();
    assert_eq!(served(&mut life, last).generation, 1);
}

#[test]
fn sessions_that_nobody_ever_takes_are_denials_of_the_login() {
    let mut life = with(3600);
    let mut now = T;
    for turn in 1..=3 {
        let token = served(&mut life, now);
        // However many meet its end, it is one.
        assert_eq!((life.end(now, &token), life.end(now, &token)), (turn < 3, turn < 3), "{turn}");
        if turn < 3 {
            assert!(matches!(life.turn(now), Turn::Fetch));
            life.done(now, Ok(minted(now, 3600)));
        }
        now += 2 * MOST_WAIT.as_millis() as u64;
    }
    assert_eq!(life.state(now), State::Refused);
    assert!(matches!(life.turn(now), Turn::Fail(Error::CredentialRefused(_))));
    life.forgive();
    assert!(matches!(life.turn(now), Turn::Fetch));
    life.done(now, Ok(minted(now, 3600)));
    let token = served(&mut life, now);
    token.accept();
    // It is renewed by its age, and its successor's end is the first again.
    now += 3590 * SECOND;
    assert!(matches!(life.turn(now), Turn::Renew(_)));
    life.done(now, Ok(minted(now, 3600)));
    let token = served(&mut life, now);
    assert!(life.end(now, &token));
    assert!(matches!(life.turn(now), Turn::Fetch));
}
