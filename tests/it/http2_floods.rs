//! Floods over HTTP/2 and connections that never get anywhere: bounded by named limits, others still served, memory flat.

use std::fs;
use std::time::{Duration, Instant};

use crate::support::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, Http2, PING, PREFACE, PRIORITY, RST_STREAM, SETTINGS, WINDOW_UPDATE, block,
    frame, request, string,
};
use crate::support::{Gateway, Upstream};

/// How long anybody else may wait for an answer meanwhile.
const OTHERS: Duration = Duration::from_secs(2);
/// What a flood may leave in memory: far less than what was sent.
const GROWTH_KIB: u64 = 24 * 1024;

fn gateway(upstream: &Upstream) -> Gateway {
    Gateway::start(&format!(
        "server: {{ listen: \"127.0.0.1:{{port}}\", workers: 2, timeouts: {{ header: 700ms, body_idle: 700ms, idle: 2s }} }}\nresources: {{ up: {{ base_url: \"{}\" }} }}\n",
        upstream.url()
    ))
}

fn memory_kib(gateway: &Gateway) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", gateway.pid())).unwrap();
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Others are served while `attack` goes on: over HTTP/1.1 and over HTTP/2, on both cores.
fn others_are_served(gateway: &Gateway) {
    for _ in 0..4 {
        let began = Instant::now();
        assert_eq!(gateway.get("/r/up/other").status, 200);
        let mut client = Http2::connect(gateway.port);
        client.get(1, "/r/up/other");
        assert_eq!(client.answer(1).status, Some(200));
        assert!(began.elapsed() < OTHERS * 2, "others waited for {:?}", began.elapsed());
    }
}

/// Sends `flood` again and again; the gateway must end the connection before `most` bytes have gone.
fn ends(gateway: &Gateway, flood: &[u8], most: usize) {
    let mut client = Http2::connect(gateway.port);
    client.polite = false;
    client.stream.set_write_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut sent = 0;
    while sent < most && !client.closed && client.goaway.is_none() {
        client.send(flood);
        sent += flood.len();
        client.until_within(Duration::from_millis(1), |h| h.goaway.is_some());
    }
    assert!(client.until(|h| h.goaway.is_some() || h.closed), "the flood goes on for ever");
    assert!(sent < most, "{sent} bytes were taken");
}

/// A flood of frames that bring no request forward, one test for each kind.
fn useless(one: &[u8]) {
    let upstream = Upstream::ok();
    let gateway = gateway(&upstream);
    others_are_served(&gateway);
    let before = memory_kib(&gateway);
    for _ in 0..4 {
        ends(&gateway, &one.repeat(500), one.len() * 200_000);
    }
    others_are_served(&gateway);
    let grown = memory_kib(&gateway).saturating_sub(before);
    assert!(grown < GROWTH_KIB, "memory grew by {grown} KiB");
    assert!(upstream.seen().iter().all(|s| s.target() == "/other"));
}

#[test]
fn a_flood_of_pings_ends_its_connection() {
    useless(&frame(PING, 0, 0, &[7; 8]));
}

#[test]
fn a_flood_of_settings_ends_its_connection() {
    useless(&frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100]));
}

#[test]
fn a_flood_of_priorities_ends_its_connection() {
    useless(&frame(PRIORITY, 0, 5, &[0, 0, 0, 0, 1]));
}

#[test]
fn a_flood_of_window_updates_ends_its_connection() {
    // Small enough that the window itself never overflows.
    useless(&frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]));
}

#[test]
fn a_flood_of_unknown_frames_ends_its_connection() {
    useless(&frame(200, 0, 0, b""));
}

#[test]
fn empty_data_without_end_ends_its_connection() {
    let upstream = Upstream::ok();
    let gateway = gateway(&upstream);
    let mut client = Http2::connect(gateway.port);
    client.send(&frame(HEADERS, END_HEADERS, 1, &request("POST", "/r/up/a", &[])));
    client.send(&frame(DATA, 0, 1, b"").repeat(100_000));
    assert!(client.until(|h| h.goaway.is_some() || h.closed));
    others_are_served(&gateway);
}

/// Streams that are opened and reset at once (CVE-2023-44487).
#[test]
fn rapid_resets_end_their_connection() {
    let upstream = Upstream::ok();
    let gateway = gateway(&upstream);
    others_are_served(&gateway);
    let before = memory_kib(&gateway);
    for _ in 0..4 {
        let mut client = Http2::connect(gateway.port);
        let mut sent = 0;
        'flood: for round in 0..200 {
            let mut burst = Vec::new();
            for n in 0..100 {
                let stream = 1 + 2 * (round * 100 + n);
                burst.extend(frame(HEADERS, END_STREAM | END_HEADERS, stream, &request("GET", "/r/up/reset", &[])));
                burst.extend(frame(RST_STREAM, 0, stream, &8u32.to_be_bytes()));
            }
            client.send(&burst);
            sent += 100;
            client.until_within(Duration::from_millis(1), |h| h.goaway.is_some());
            if client.closed || client.goaway.is_some() {
                break 'flood;
            }
        }
        assert!(client.until(|h| h.goaway.is_some() || h.closed));
        assert!(sent < 20_000, "{sent} streams were taken");
    }
    others_are_served(&gateway);
    let grown = memory_kib(&gateway).saturating_sub(before);
    assert!(grown < GROWTH_KIB, "memory grew by {grown} KiB");
}

/// Streams that the gateway is made to reset (CVE-2025-8671): by windows that overflow, by bodies that do not fit.
#[test]
fn resets_that_a_client_provokes_end_its_connection() {
    let upstream = Upstream::ok();
    let gateway = gateway(&upstream);
    let provoking: [&dyn Fn(u32) -> Vec<u8>; 2] =
        [&|stream| frame(WINDOW_UPDATE, 0, stream, &[0, 0, 0, 0]), &|stream| frame(DATA, END_STREAM, stream, b"more than nothing")];
    for provoke in provoking {
        let mut client = Http2::connect(gateway.port);
        for n in 0..20_000u32 {
            let stream = 1 + 2 * n;
            client.send(&frame(HEADERS, END_HEADERS, stream, &request("POST", "/r/up/made", &[("content-length", "1")])));
            client.send(&provoke(stream));
            if n % 50 == 0 {
                client.until_within(Duration::from_millis(1), |h| h.goaway.is_some());
                if client.closed || client.goaway.is_some() {
                    break;
                }
            }
        }
        assert!(client.until(|h| h.goaway.is_some() || h.closed));
        others_are_served(&gateway);
    }
}

#[test]
fn continuations_without_end_end_their_connection() {
    let upstream = Upstream::ok();
    let gateway = gateway(&upstream);
    let before = memory_kib(&gateway);
    for part in [Vec::new(), block(&[("a", "b")]), block(&[("a", "x".repeat(8000).as_str())])] {
        let mut client = Http2::connect(gateway.port);
        client.send(&frame(HEADERS, END_STREAM, 1, &request("GET", "/r/up/a", &[])));
        client.send(&frame(CONTINUATION, 0, 1, &part).repeat(2000));
        assert!(client.until(|h| h.goaway.is_some() || h.closed));
    }
    others_are_served(&gateway);
    assert!(memory_kib(&gateway).saturating_sub(before) < GROWTH_KIB);
}

/// A few bytes on the wire that unfold into many: an entry of the table, named again and again.
#[test]
fn a_header_block_that_unfolds_without_end_is_refused() {
    let upstream = Upstream::ok();
    let gateway = gateway(&upstream);
    let before = memory_kib(&gateway);
    let mut bomb = request("GET", "/r/up/bomb", &[]);
    // Into the table: index 62 from here on.
    bomb.extend([&[0x40][..], &string(b"x-bomb"), &string(&[b'x'; 3900])].concat());
    bomb.extend(vec![0xbe; 12_000]);
    for _ in 0..8 {
        let mut client = Http2::connect(gateway.port);
        client.send(&frame(HEADERS, END_STREAM | END_HEADERS, 1, &bomb));
        assert!(client.until(|h| h.goaway.is_some() || h.closed || h.answers.values().any(crate::support::frames::Answer::over)));
        assert!(client.answers.values().all(|a| a.status != Some(200)));
    }
    others_are_served(&gateway);
    assert!(memory_kib(&gateway).saturating_sub(before) < GROWTH_KIB);
    assert!(upstream.seen().iter().all(|s| s.target() != "/bomb"));
}

#[test]
fn two_thousand_streams_at_once_are_bounded_and_others_are_served() {
    let upstream = Upstream::answering(|seen, stream| {
        if seen.target() != "/other" {
            std::thread::sleep(Duration::from_millis(300));
        }
        std::io::Write::write_all(stream, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").is_ok()
    });
    let gateway = Gateway::start(&format!(
        "server: {{ listen: \"127.0.0.1:{{port}}\", workers: 2 }}\nresources:\n  up: {{ base_url: \"{0}\" }}\n  slow: {{ base_url: \"{0}\", limits: {{ in_flight: 64 }} }}\n",
        upstream.url()
    ));
    others_are_served(&gateway);
    let before = memory_kib(&gateway);
    let mut client = Http2::connect(gateway.port);
    for n in 0..2000 {
        client.get(1 + 2 * n, "/r/slow/slow");
    }
    others_are_served(&gateway);
    let refused = |h: &Http2| h.answers.values().filter(|a| a.reset == Some(7)).count();
    assert!(client.until(|h| h.goaway.is_some() || h.closed || refused(h) >= 1000));
    others_are_served(&gateway);
    assert!(memory_kib(&gateway).saturating_sub(before) < 2 * GROWTH_KIB);
}

#[test]
fn what_never_becomes_a_request_is_closed_in_time() {
    let upstream = Upstream::ok();
    let gateway = gateway(&upstream);
    let beginnings: [Vec<u8>; 6] = [
        PREFACE[..10].to_vec(),
        PREFACE.to_vec(),
        [PREFACE, &[0, 0, 0]].concat(),
        [PREFACE, &frame(SETTINGS, 0, 0, &[]), &frame(HEADERS, END_STREAM, 1, &request("GET", "/r/up/a", &[]))].concat(),
        [PREFACE, &frame(SETTINGS, 0, 0, &[]), &frame(HEADERS, END_STREAM | END_HEADERS, 1, &request("GET", "/r/up/a", &[]))[..30]]
            .concat(),
        [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat(),
    ];
    let mut clients: Vec<Http2> = beginnings
        .iter()
        .cycle()
        .take(60)
        .map(|bytes| {
            let mut client = Http2::silent(gateway.port);
            client.send(bytes);
            client
        })
        .collect();
    others_are_served(&gateway);
    for client in &mut clients {
        assert!(client.until(|_| false) && client.closed);
    }
    assert!(upstream.seen().iter().all(|s| s.target() == "/other"));
}

#[test]
fn a_body_that_dribbles_is_given_up() {
    let upstream = Upstream::ok();
    let gateway = Gateway::start(&format!(
        "server: {{ listen: \"127.0.0.1:{{port}}\", limits: {{ min_body_rate: 1KiB, min_body_rate_grace: 300ms }} }}\nresources: {{ up: {{ base_url: \"{}\" }} }}\n",
        upstream.url()
    ));
    let mut client = Http2::connect(gateway.port);
    client.send(&frame(HEADERS, END_HEADERS, 1, &request("POST", "/r/up/a", &[])));
    let over = |h: &Http2| h.answers.get(&1).is_some_and(crate::support::frames::Answer::over);
    let until = Instant::now() + crate::support::PATIENCE;
    while !over(&client) {
        assert!(Instant::now() < until);
        client.send(&frame(DATA, 0, 1, b"x"));
        client.until_within(Duration::from_millis(20), over);
    }
    assert_eq!(client.answers[&1].status, Some(408));
    others_are_served(&gateway);
}
