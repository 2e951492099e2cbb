//! Tokens when all goes wrong: `kill -9` at two hundred moments around rotation, and an issuer that is down, slow and
//! flapping for a minute under load.

use std::collections::HashMap;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::issuer::{Issuer, answer, decoded, json_answer, minted};
use crate::support::{self, Gateway, Upstream, eventually};

/// How often the gateway is killed (the issue's number), and on how many threads.
const KILLS: u32 = 200;
const HANDS: u32 = 4;

/// An issuer of refresh tokens that are good once, `refresh-0`, `refresh-1` …, as far as it has come.
fn rotation() -> (Issuer, Arc<AtomicU32>) {
    let last = Arc::<AtomicU32>::default();
    let next = last.clone();
    let issuer = Issuer::answering(move |seen, _, stream| {
        let form = decoded(&String::from_utf8_lossy(&seen.body));
        let shown = form.iter().find(|(n, _)| n == "refresh_token").map(|(_, v)| v.clone()).unwrap_or_default();
        let number = next.load(Ordering::SeqCst);
        if shown != format!("refresh-{number}") {
            return answer(stream, "400 Bad Request", "Content-Type: application/json\r\n", r#"{"error":"invalid_grant"}"#);
        }
        let number = number + 1;
        next.store(number, Ordering::SeqCst);
        let access = format!("token-{number}");
        json_answer(stream, &json!({ "access_token": access, "expires_in": 3600, "refresh_token": format!("refresh-{number}") }))
    });
    (issuer, last)
}

/// An API that takes each token once, so that every other call must renew; it tells the number of the newest it has seen.
fn once_each() -> (Upstream, Arc<AtomicU32>) {
    let newest = Arc::<AtomicU32>::default();
    let (seen_newest, uses) = (newest.clone(), Mutex::new(HashMap::<u32, u32>::new()));
    let api = Upstream::answering(move |seen, stream| {
        let shown = seen.field("authorization").and_then(|a| a.strip_prefix("Bearer token-")).and_then(|n| n.parse().ok());
        let number: u32 = shown.expect("a call without a token reached the API");
        seen_newest.fetch_max(number, Ordering::SeqCst);
        let mut uses = uses.lock().unwrap();
        let used = uses.entry(number).or_default();
        *used += 1;
        if *used == 1 { answer(stream, "200 OK", "", "ok") } else { answer(stream, "401 Unauthorized", "", "no") }
    });
    (api, newest)
}

/// What became of one kill.
struct Fate {
    /// The newest token was minted and not seen at the API when the kill came.
    within: bool,
    lives: bool,
}

/// Kills a gateway whose token rotates all the time, starts it again, and follows the grant to its next rotation.
fn killed(pause: Duration, delay: u64) -> Fate {
    let ((issuer, minted), (api, seen)) = (rotation(), once_each());
    issuer.delay.store(delay, Ordering::SeqCst);
    let config = format!(
        "store: {{ file: {{ path: data }} }}\nresources:\n  api:\n    base_url: \"{}\"\n    auth:\n      oauth2_authorization_code:\n        token_url: \"{}\"\n        client_id: id\n        refresh_token: \"${{env:REFRESH}}\"\n",
        api.url(),
        issuer.url()
    );
    let mut gateway = Gateway::start_with(&config, &[("REFRESH", "refresh-0")]);
    assert_eq!(gateway.get("/r/api/x").status, 200, "{}", gateway.stderr());
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (port, stop) = (gateway.port, &stop);
        scope.spawn(move || {
            while !stop.load(Ordering::SeqCst) {
                if let Ok(stream) = TcpStream::connect(("127.0.0.1", port)) {
                    crate::support::exchange(stream, b"GET /r/api/x HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
                }
            }
        });
        assert!(eventually(|| (minted.load(Ordering::SeqCst) >= 2).then_some(())).is_some(), "nothing rotates: {}", gateway.stderr());
        std::thread::sleep(pause);
        gateway.signal("KILL");
        stop.store(true, Ordering::SeqCst);
    });
    gateway.wait();
    // Let the issuer end what it was asked before the kill.
    let settled = || {
        let before = minted.load(Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(delay + 3));
        (minted.load(Ordering::SeqCst) == before).then_some(before)
    };
    let reached = eventually(settled).unwrap();
    let within = seen.load(Ordering::SeqCst) < reached;
    gateway.again();
    let lives = eventually(|| {
        let reply = gateway.get("/r/api/x");
        match reply.status {
            200 => (minted.load(Ordering::SeqCst) > reached).then_some(true),
            502 => {
                assert_eq!(reply.code(), "credential-refused");
                Some(false)
            }
            other => panic!("{other} {}", reply.text()),
        }
    });
    let lives = lives.expect("neither renewed nor refused");
    if !lives {
        // Refused once and for all: no loop.
        let asked = issuer.requests();
        (0..3).for_each(|_| assert_eq!(gateway.get("/r/api/x").status, 502));
        assert_eq!(issuer.requests(), asked, "a refused grant is tried again");
    }
    Fate { within, lives }
}

#[test]
fn two_hundred_kills_around_rotation_lose_a_grant_only_between_the_answer_and_the_store() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let fates: Vec<Fate> = std::thread::scope(|scope| {
        let hands: Vec<_> = (0..HANDS)
            .map(|hand| {
                scope.spawn(move || {
                    let mut dice = fastrand::Rng::with_seed(seed ^ u64::from(hand));
                    let mut kill = || killed(Duration::from_micros(dice.u64(0..12_000)), dice.u64(0..4));
                    (0..KILLS / HANDS).map(|_| kill()).collect::<Vec<_>>()
                })
            })
            .collect();
        hands.into_iter().flat_map(|hand| hand.join().unwrap()).collect()
    });
    let within = fates.iter().filter(|fate| fate.within).count();
    let lost = fates.iter().filter(|fate| !fate.lives).count();
    println!("{} kills, {within} with a token under way, {lost} lost the grant", fates.len());
    assert_eq!(fates.len() as u32, KILLS);
    // A token that an upstream has seen was stored before: a grant that was lost never got so far.
    assert!(fates.iter().all(|fate| fate.lives || fate.within), "a grant was lost whose newest token had been used");
    // And a kill while one is under way is not lost as such: only the time between the answer and the disk is.
    assert!(lost < fates.len() / 2, "{lost} of {}", fates.len());
}

/// What the issuer does in a part of the minute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mood {
    Well,
    Failing,
    HangingUp,
    Slow,
    Flapping,
}

const DAY: [(Mood, u64); 6] =
    [(Mood::Well, 8), (Mood::Failing, 12), (Mood::HangingUp, 10), (Mood::Slow, 14), (Mood::Flapping, 14), (Mood::Well, 2)];
/// The life of a token, in seconds, and how much older than that one may look to an API on a machine under load.
const LIFE: u64 = 2;
const SLACK: Duration = Duration::from_millis(1500);
/// The gateway's patience with the issuer, in seconds.
const PATIENCE: u64 = 2;
/// Longest time for which an issuer is left alone.
const BACK_OFF_MOST: Duration = Duration::from_secs(60);

#[test]
fn a_minute_of_trouble_with_the_issuer_under_load_shows_no_dead_token_no_401_and_no_storm() {
    let began = Instant::now();
    let mood = Arc::new(Mutex::new(Mood::Well));
    // When each request came, and when and how its answer went; one that was never answered went when patience ended.
    let asked: Arc<Mutex<Vec<(Instant, Instant, bool)>>> = Arc::default();
    let born: Arc<Mutex<HashMap<String, Instant>>> = Arc::default();
    let issuer = {
        let (mood, asked, born) = (mood.clone(), asked.clone(), born.clone());
        Issuer::answering(move |_, number, stream| {
            let came = Instant::now();
            let mood = *mood.lock().unwrap();
            let good = mood == Mood::Well || (mood == Mood::Flapping && number % 2 == 0);
            let ended = if mood == Mood::Slow { came + Duration::from_secs(PATIENCE) } else { came };
            asked.lock().unwrap().push((came, ended, good));
            match mood {
                _ if good => {
                    born.lock().unwrap().insert(format!("Bearer token-{number}"), Instant::now());
                    json_answer(stream, &minted(number, LIFE))
                }
                Mood::HangingUp => false,
                Mood::Slow => {
                    std::thread::sleep(Duration::from_secs(PATIENCE + 1));
                    false
                }
                _ => answer(stream, "500 Oops", "", ""),
            }
        })
    };
    let dead = Arc::<AtomicU32>::default();
    let api = {
        let (born, dead) = (born.clone(), dead.clone());
        Upstream::answering(move |seen, stream| {
            let token = seen.field("authorization").unwrap_or_default().to_owned();
            let living = born.lock().unwrap().get(&token).is_some_and(|b| b.elapsed() < Duration::from_secs(LIFE) + SLACK);
            dead.fetch_add(u32::from(!living), Ordering::SeqCst);
            answer(stream, "200 OK", "", "ok")
        })
    };
    let config = format!(
        "resources:\n  api:\n    base_url: \"{}\"\n    timeouts: {{ head: {PATIENCE}s }}\n    auth: {{ oauth2_client_credentials: {{ token_url: \"{}\", client_id: id, client_secret: \"${{env:SECRET}}\" }} }}\n",
        api.url(),
        issuer.url()
    );
    let gateway = Gateway::start_with(&config, &[("SECRET", "hunter2hunter2")]);
    let (stop, counts) = (AtomicBool::new(false), Mutex::new(HashMap::<u16, u32>::new()));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                while !stop.load(Ordering::SeqCst) {
                    let reply = gateway.get("/r/api/x");
                    *counts.lock().unwrap().entry(reply.status).or_default() += 1;
                    if reply.status == 503 {
                        assert_eq!(reply.code(), "issuer-unavailable");
                        assert!(reply.field("retry-after").is_some(), "{}", reply.head);
                    }
                    std::thread::sleep(Duration::from_millis(20));
                }
            });
        }
        for (next, seconds) in DAY {
            *mood.lock().unwrap() = next;
            std::thread::sleep(Duration::from_secs(seconds));
        }
        stop.store(true, Ordering::SeqCst);
    });
    assert!(began.elapsed() >= Duration::from_secs(60));
    // The issuer is left alone for a minute at most: then the next caller has a token.
    let patience = Instant::now() + BACK_OFF_MOST + support::PATIENCE;
    while gateway.get("/r/api/x").status != 200 {
        assert!(Instant::now() < patience, "it does not recover: {}", gateway.stderr());
        std::thread::sleep(Duration::from_millis(200));
    }
    let counts = counts.into_inner().unwrap();
    println!("{counts:?}, {} token requests", issuer.requests());
    assert!(counts.keys().all(|status| matches!(status, 200 | 503)), "{counts:?}");
    assert!(counts[&200] > 100 && counts[&503] > 100, "{counts:?}");
    assert_eq!(dead.load(Ordering::SeqCst), 0, "dead tokens reached the upstream");
    // At least a second of rest lies between a failure and the next request, however many callers wait.
    for pair in asked.lock().unwrap().windows(2) {
        let ((_, ended, good), (next, ..)) = (pair[0], pair[1]);
        assert!(good || next.duration_since(ended) >= Duration::from_millis(990), "{:?} after a failure", next.duration_since(ended));
    }
}
