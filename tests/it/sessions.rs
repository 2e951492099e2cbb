//! Sessions: a login as a browser does it and the cookies that it brings, before a real Django site and before servers that
//! misbehave.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::net::TcpStream;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use serde_json::Value;

use crate::counterparts::Server;
use crate::support::issuer::{answer, decoded};
use crate::support::{Gateway, Reply, Seen, Upstream, eventually, exchange, free_port, provided, root};

const PASSWORD: &str = "p\"a&s'<w>=o%r d";

fn gateway(text: &str) -> Gateway {
    Gateway::start_with(text, &[("PASS", PASSWORD)])
}

/// A login by form with a CSRF token from its page, and what tells the end.
fn config(base: &str, more: &str, expired: &str) -> String {
    format!(
        r##"resources:
  site:
    base_url: "{base}"
    timeouts: {{ head: 5s }}
{more}    auth:
      session:
        login:
          page: /login/
          csrf: {{ selector: "#login-form input[name=csrfmiddlewaretoken]", attribute: value, field: csrfmiddlewaretoken }}
          path: /login/
          form: {{ username: robot, password: "${{env:PASS}}" }}
        csrf_header: {{ name: X-CSRFToken, cookie: csrftoken }}
        expired: {{ {expired} }}
"##
    )
}

const EXPIRED: &str = "statuses: [401], redirect_to: /login/, when: \"'login-form' in body\"";

fn crowd(gateway: &Gateway, path: &str) -> BTreeSet<u16> {
    std::thread::scope(|scope| {
        let calls: Vec<_> = (0..64).map(|_| scope.spawn(|| gateway.get(path))).collect();
        calls.into_iter().map(|call| call.join().unwrap().status).collect()
    })
}

/// A Django site whose sessions live so many seconds.
fn django(seconds: u32) -> Option<Server> {
    let python = provided("POSTERN_TEST_PYTHON")?;
    let port = free_port();
    let mut command = Command::new(python);
    command.arg(root().join("tests/it/peers/django_site.py")).arg(port.to_string()).arg(seconds.to_string());
    Some(Server::start(command, port))
}

fn ask(server: &Server, path: &str) -> Reply {
    let stream = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nConnection: close\r\n\r\n", server.port);
    Reply::parse(&exchange(stream, request.as_bytes()))
}

fn count(server: &Server, name: &str) -> u64 {
    ask(server, "/stats").json()[name].as_u64().unwrap()
}

#[test]
fn django_lets_the_gateway_in_once_for_sixty_four_and_again_once_when_the_session_ends_in_any_way() {
    let Some(site) = django(3600) else { return };
    let gateway = gateway(&config(&site.url(), "", EXPIRED));
    assert_eq!(crowd(&gateway, "/r/site/redirect/whoami"), [200].into());
    assert_eq!((count(&site, "logins"), count(&site, "served")), (1, 64));
    let mut logins = 1;
    for way in ["redirect", "status", "page"] {
        ask(&site, "/expire");
        assert_eq!(crowd(&gateway, &format!("/r/site/{way}/whoami")), [200].into(), "{way}");
        logins += 1;
        assert_eq!(count(&site, "logins"), logins, "{way}");
        let reply = gateway.get(&format!("/r/site/{way}/whoami"));
        assert_eq!((reply.json()["user"].as_str(), reply.field("set-cookie")), (Some("robot"), None));
    }
}

#[test]
fn django_takes_changes_with_the_csrf_token_of_the_session() {
    let Some(site) = django(3600) else { return };
    let gateway = gateway(&config(&site.url(), "    forward: { cookies: true }\n", EXPIRED));
    // The client's own cookies, token and origin are not the session's.
    let fields = "Content-Type: text/plain\r\nX-CSRFToken: mine\r\nCookie: sessionid=mine; mine=1\r\nReferer: https://mine.example/\r\n";
    let reply = gateway.send("POST", "/r/site/status/whoami", fields, b"a change");
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(reply.json(), serde_json::json!({ "user": "robot", "body": "a change", "cookies": ["csrftoken", "mine", "sessionid"] }));
    assert_eq!(reply.field("set-cookie"), None);
    ask(&site, "/expire");
    assert_eq!(gateway.send("POST", "/r/site/redirect/whoami", fields, b"another").json()["body"], "another");
    assert_eq!(count(&site, "logins"), 2);
}

#[test]
fn django_refuses_a_change_without_the_csrf_token_and_that_does_not_loop() {
    let Some(site) = django(3600) else { return };
    let text = config(&site.url(), "", "statuses: [401, 403], redirect_to: /login/")
        .lines()
        .filter(|l| !l.contains("csrf_header"))
        .collect::<Vec<_>>()
        .join("\n");
    let gateway = gateway(&(text + "\n"));
    for _ in 0..10 {
        assert_eq!(gateway.get("/r/site/status/whoami").status, 200);
        assert_eq!(gateway.send("POST", "/r/site/status/whoami", "Content-Type: text/plain\r\n", b"x").status, 403);
    }
    assert!(count(&site, "logins") <= 5, "{} logins for ten changes", count(&site, "logins"));
}

#[test]
fn a_locked_account_is_tried_three_times_at_most() {
    let Some(site) = django(3600) else { return };
    ask(&site, "/account/lock");
    let gateway = gateway(&config(&site.url(), "", EXPIRED));
    let reply = gateway.get("/r/site/status/whoami");
    assert_eq!((reply.status, reply.code().as_str()), (503, "issuer-unavailable"));
    assert!(reply.json()["detail"].as_str().unwrap().starts_with("The login got 200 with"), "{}", reply.text());
    let refused = eventually(|| Some(gateway.get("/r/site/status/whoami")).filter(|reply| reply.status == 502)).unwrap();
    assert_eq!(refused.code(), "credential-refused");
    for _ in 0..5 {
        assert_eq!(gateway.get("/r/site/status/whoami").status, 502);
    }
    assert_eq!((count(&site, "failures"), count(&site, "served")), (3, 0));
}

#[test]
fn short_sessions_of_django_are_renewed_under_load_and_every_call_is_served() {
    let Some(site) = django(2) else { return };
    let gateway = gateway(&config(&site.url(), "", EXPIRED));
    let mut calls = 0;
    let done = eventually(|| {
        let reply = gateway.get(if calls % 2 == 0 { "/r/site/redirect/whoami" } else { "/r/site/page/whoami" });
        assert_eq!((reply.status, reply.json()["user"].as_str()), (200, Some("robot")));
        calls += 1;
        (count(&site, "logins") >= 3).then_some(())
    });
    assert!(done.is_some() && calls > 3, "{calls}");
}

#[test]
fn a_session_survives_a_restart_with_a_durable_store_and_is_sealed_there() {
    let Some(site) = django(3600) else { return };
    let text = format!("{}store: {{ file: {{ path: ./data }} }}\n", config(&site.url(), "", EXPIRED));
    let mut gateway = gateway(&text);
    assert_eq!(gateway.get("/r/site/status/whoami").status, 200);
    gateway.signal("KILL");
    gateway.wait();
    gateway.again();
    assert_eq!(gateway.get("/r/site/status/whoami").status, 200);
    assert_eq!(count(&site, "logins"), 1);
    for file in std::fs::read_dir(gateway.folder.path().join("data")).unwrap().flatten() {
        let bytes = std::fs::read(file.path()).unwrap();
        assert!(crate::support::find(&bytes, b"sessionid").is_none(), "{:?} holds cookies as they are", file.path());
    }
}

/// A site of the test's own: `/login/` by `login`, all else by `page`. Its login page is a form.
struct Site {
    server: Upstream,
    posts: Arc<AtomicU32>,
}

const PAGE: &str = "<form id=\"login-form\"><input type=hidden name=csrfmiddlewaretoken value=\"c&amp;1\"><input name=username><input name=password></form>";

impl Site {
    fn new(
        login: impl Fn(&Seen, u32, &mut TcpStream) -> bool + Send + Sync + 'static,
        page: impl Fn(&Seen, &mut TcpStream) -> bool + Send + Sync + 'static,
    ) -> Self {
        let posts = Arc::<AtomicU32>::default();
        let count = posts.clone();
        let server = Upstream::answering(move |seen, stream| match (seen.line().split(' ').next().unwrap(), seen.target()) {
            ("GET", "/login/") => answer(stream, "200 OK", "Content-Type: text/html\r\nSet-Cookie: csrftoken=t-1; Path=/\r\n", PAGE),
            ("POST", "/login/") => login(seen, count.fetch_add(1, Ordering::SeqCst) + 1, stream),
            _ => page(seen, stream),
        });
        Self { server, posts }
    }

    fn posts(&self) -> u32 {
        self.posts.load(Ordering::SeqCst)
    }

    fn calls(&self) -> Vec<Seen> {
        self.server.seen().into_iter().filter(|seen| !seen.target().starts_with("/login/")).collect()
    }
}

fn let_in(number: u32, stream: &mut TcpStream) -> bool {
    answer(
        stream,
        "302 Found",
        &format!("Location: /home\r\nSet-Cookie: sid=s-{number}; Path=/; HttpOnly\r\nSet-Cookie: csrftoken=t-2; Path=/\r\n"),
        "",
    )
}

#[test]
fn the_form_is_sent_as_a_browser_sends_it() {
    let site = Site::new(|_, number, stream| let_in(number, stream), |_, stream| answer(stream, "200 OK", "", "ok"));
    let gateway = gateway(&config(&site.server.url(), "    cookies: { theme: dark }\n", EXPIRED));
    assert_eq!(gateway.get("/r/site/a").status, 200);
    let post = site.server.seen().into_iter().find(|seen| seen.line().starts_with("POST")).unwrap();
    let form = decoded(&String::from_utf8_lossy(&post.body));
    let expected = [("username", "robot"), ("password", PASSWORD), ("csrfmiddlewaretoken", "c&1")];
    assert_eq!(form, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    assert_eq!((post.field("cookie"), post.field("x-csrftoken")), (Some("csrftoken=t-1"), Some("t-1")));
    assert_eq!(post.field("referer"), Some(format!("{}/login/", site.server.url()).as_str()));
    assert_eq!(post.field("origin"), Some(site.server.url().as_str()));
    let call = &site.calls()[0];
    let cookies: BTreeSet<&str> = call.field("cookie").unwrap().split("; ").collect();
    assert_eq!(cookies, ["theme=dark", "sid=s-1", "csrftoken=t-2"].into());
    assert_eq!((call.field("x-csrftoken"), call.field("referer")), (Some("t-2"), None));
}

#[test]
fn later_answers_replace_and_remove_cookies_and_no_caller_sees_any() {
    let site = Site::new(
        |_, number, stream| let_in(number, stream),
        |seen, stream| {
            let fields = match seen.target() {
                "/slide" => {
                    "Set-Cookie: sid=s-slid; Path=/\r\nSet-Cookie: csrftoken=t-3; Path=/\r\nSet-Cookie: extra=1; Path=/deep\r\nSet-Cookie: csrftoken=t-deep; Path=/deep\r\n"
                }
                "/drop" => "Set-Cookie: extra=; Path=/deep; Max-Age=0\r\n",
                _ => "",
            };
            answer(stream, "200 OK", fields, "ok")
        },
    );
    let gateway = gateway(&config(&site.server.url(), "    forward: { cookies: true }\n", EXPIRED));
    for path in ["/a", "/slide", "/deep/a", "/drop", "/deep/b"] {
        let reply = gateway.get(&format!("/r/site{path}"));
        assert_eq!((reply.status, reply.field("set-cookie")), (200, None));
    }
    let cookies = |path: &str| -> BTreeSet<String> {
        let calls = site.calls();
        let call = calls.iter().find(|seen| seen.target() == path).unwrap();
        call.field("cookie").unwrap().split("; ").map(str::to_owned).collect()
    };
    let set = |all: &[&str]| all.iter().map(|one| (*one).to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(cookies("/a"), set(&["sid=s-1", "csrftoken=t-2"]));
    assert_eq!(cookies("/deep/a"), set(&["sid=s-slid", "csrftoken=t-deep", "csrftoken=t-3", "extra=1"]));
    // The header repeats the cookie that goes along, and of two that of the closest path, which stands first.
    let token = |path: &str| site.calls().iter().find(|seen| seen.target() == path).unwrap().field("x-csrftoken").map(str::to_owned);
    assert_eq!((token("/deep/a").as_deref(), token("/drop").as_deref()), (Some("t-deep"), Some("t-3")));
    assert_eq!(cookies("/drop"), set(&["sid=s-slid", "csrftoken=t-3"]));
    assert_eq!(cookies("/deep/b"), set(&["sid=s-slid", "csrftoken=t-deep", "csrftoken=t-3"]));
    assert_eq!(site.posts(), 1);
}

#[test]
fn cookies_that_end_are_a_session_that_ends() {
    let site = Site::new(
        |_, number, stream| answer(stream, "200 OK", &format!("Set-Cookie: sid=s-{number}; Path=/; Max-Age=2\r\n"), "in"),
        |_, stream| answer(stream, "200 OK", "", "ok"),
    );
    let gateway = gateway(&config(&site.server.url(), "", EXPIRED));
    let renewed = eventually(|| {
        assert_eq!(gateway.get("/r/site/a").status, 200);
        (site.posts() >= 3).then_some(())
    });
    assert!(renewed.is_some());
    assert!(
        site.calls().iter().all(|seen| seen.field("cookie").is_some_and(|cookie| cookie.contains("sid=s-"))),
        "a call without its session"
    );
}

#[test]
fn every_way_in_which_a_login_fails_is_tried_three_times_and_no_more() {
    let ways: [(&str, &str, &str, &str); 6] = [
        ("200 OK", "Content-Type: text/html\r\nSet-Cookie: sid=anonymous; Path=/\r\n", PAGE, "is the login page again"),
        ("401 Unauthorized", "", "no", "is no success"),
        ("403 Forbidden", "", "no", "is no success"),
        ("302 Found", "Location: /login/?failed=1\r\n", "", "leads back to the login page"),
        ("302 Found", "Location: login\r\nX: 1\r\n", "", "leads back to the login page"),
        ("422 Unprocessable Content", "", "no", "is no success"),
    ];
    for (at, (status, fields, body, words)) in ways.into_iter().enumerate() {
        let site = Site::new(move |_, _, stream| answer(stream, status, fields, body), |_, stream| answer(stream, "200 OK", "", "ok"));
        // `login` beside /login/ is /login/login: that way the path must be told.
        let expired = if at == 4 { "redirect_to: /login/login" } else { "statuses: [401]" };
        let gateway = gateway(&config(&site.server.url(), "", expired));
        let reply = gateway.get("/r/site/a");
        assert_eq!(reply.code(), "issuer-unavailable", "{words}: {}", reply.text());
        let detail = reply.json()["detail"].as_str().unwrap().to_owned();
        assert!(detail.starts_with("The login got") && detail.contains(words), "{detail}");
        let refused = eventually(|| Some(gateway.get("/r/site/a")).filter(|reply| reply.status == 502)).unwrap();
        assert_eq!(refused.code(), "credential-refused");
        assert_eq!((site.posts(), site.calls().len()), (3, 0), "{words}");
    }
}

#[test]
fn a_page_that_lacks_what_is_picked_from_it_is_told_and_no_password_is_sent() {
    for (page, words) in [
        ("<form id=\"login-form\"></form>", "The login page got 200 with 29 bytes of text/html, which holds nothing for `login.csrf`"),
        ("", "The login page got 200 with nothing in it"),
    ] {
        let server = Upstream::answering(move |_, stream| answer(stream, "200 OK", "Content-Type: text/html\r\n", page));
        let gateway = gateway(&config(&server.url(), "", EXPIRED));
        let reply = gateway.get("/r/site/a");
        assert_eq!((reply.status, reply.code().as_str()), (503, "issuer-unavailable"));
        assert!(reply.json()["detail"].as_str().unwrap().contains(words), "{}", reply.text());
        assert!(server.seen().iter().all(|seen| seen.line().starts_with("GET /login/")));
    }
}

#[test]
fn a_login_in_json_needs_no_page() {
    let server = Upstream::answering(|seen, stream| match seen.target() {
        "/v1/auth" => answer(stream, "200 OK", "Content-Type: application/json\r\nSet-Cookie: sid=s-1; Path=/v1\r\n", "{\"ok\":true}"),
        _ => answer(stream, "200 OK", "", "ok"),
    });
    let text = format!(
        "resources:\n  site:\n    base_url: \"{}/v1\"\n    auth:\n      session:\n        login: {{ path: /auth, json: {{ user: {{ name: robot, password: \"${{env:PASS}}\" }} }}, expect: {{ when: \"body.ok\" }} }}\n        expired: {{ statuses: [419] }}\n",
        server.url()
    );
    let gateway = gateway(&text);
    assert_eq!(gateway.get("/r/site/a").status, 200);
    let seen = server.seen();
    assert_eq!(serde_json::from_slice::<Value>(&seen[0].body).unwrap()["user"]["password"], PASSWORD);
    assert_eq!((seen[0].field("content-type"), seen[0].field("origin")), (Some("application/json"), None));
    assert_eq!((seen[1].target(), seen[1].field("cookie")), ("/v1/a", Some("sid=s-1")));
}

#[test]
fn a_login_without_a_cookie_is_none() {
    let site = Site::new(|_, _, stream| answer(stream, "204 No Content", "", ""), |_, stream| answer(stream, "200 OK", "", "ok"));
    let server = Upstream::answering(|_, stream| answer(stream, "204 No Content", "", ""));
    let text = format!(
        "resources:\n  site: {{ base_url: \"{}\", auth: {{ session: {{ login: {{ path: /l, form: {{ p: \"${{env:PASS}}\" }} }} }} }} }}\n",
        server.url()
    );
    let gateway = gateway(&text);
    let reply = gateway.get("/r/site/a");
    assert!(reply.json()["detail"].as_str().unwrap().contains("sets no cookie"), "{}", reply.text());
    assert_eq!((server.seen().len(), site.posts()), (1, 0));
}

#[test]
fn a_session_that_an_upstream_never_takes_is_no_login_and_is_refused_after_three() {
    // A failed login that looks like a success, after a page that has set a cookie.
    let site = Site::new(
        |_, _, stream| answer(stream, "200 OK", "Content-Type: application/json\r\n", "{\"ok\":false}"),
        |_, stream| answer(stream, "401 Unauthorized", "", "no"),
    );
    let gateway = gateway(&config(&site.server.url(), "", EXPIRED));
    // Until it is refused, the refusal is the upstream's own.
    let refused = eventually(|| {
        let reply = gateway.get("/r/site/a");
        if reply.status != 502 {
            assert_eq!((reply.status, reply.text().as_str()), (401, "no"));
        }
        (reply.status == 502).then_some(reply)
    });
    assert_eq!(refused.unwrap().code(), "credential-refused");
    assert_eq!(site.posts(), 3, "a wrong password is tried as often as an account survives");
    let shown = gateway.get("/r/site/a").json()["detail"].as_str().unwrap().to_owned();
    assert!(shown.contains("sessions that the login brought") && gateway.stderr().contains("a person must mend it"), "{shown}");
}

#[test]
fn a_caller_without_rights_keeps_no_dead_session_alive_for_others() {
    let valid = Arc::<AtomicU32>::default();
    let (given, current) = (valid.clone(), valid.clone());
    let site = Site::new(
        move |_, number, stream| {
            given.store(number, Ordering::SeqCst);
            let_in(number, stream)
        },
        move |seen, stream| {
            let sid = format!("sid=s-{}", current.load(Ordering::SeqCst));
            let good = seen.field("cookie").unwrap_or_default().split("; ").any(|cookie| cookie == sid) && !seen.target().contains("admin");
            answer(stream, if good { "200 OK" } else { "401 Unauthorized" }, "", "")
        },
    );
    let gateway = gateway(&config(&site.server.url(), "", EXPIRED));
    assert_eq!(gateway.get("/r/site/data").status, 200);
    for path in ["/data", "/never/asked", "/api/v1/data"] {
        // The note of the renewal in vain is fresh, whatever the machine's load, as its time doubles.
        assert_eq!(gateway.get("/r/site/admin").status, 401);
        assert_eq!(gateway.get("/r/site/api/v1/admin").status, 401);
        assert_eq!(gateway.get("/r/site/api/v1/data").status, 200);
        valid.store(0, Ordering::SeqCst);
        assert_eq!(gateway.get("/r/site/admin").status, 401);
        assert_eq!(gateway.get(&format!("/r/site{path}")).status, 200, "{path}");
    }
    let before = site.posts();
    for _ in 0..20 {
        assert_eq!(gateway.get("/r/site/admin").status, 401);
        assert_eq!(gateway.get("/r/site/api/v1/admin").status, 401);
        assert_eq!(gateway.get("/r/site/data").status, 200);
    }
    assert!(site.posts() - before <= 10, "{} logins for forty calls without rights", site.posts() - before);
}

#[test]
fn a_session_id_that_an_answer_repeats_is_masked_in_heads() {
    let site = Site::new(
        |_, _, stream| answer(stream, "302 Found", "Location: /home\r\nSet-Cookie: sid=a-long-session-id-of-the-upstream; Path=/\r\n", ""),
        |seen, stream| {
            let sid = seen.field("cookie").unwrap_or_default().split("sid=").nth(1).unwrap_or_default().to_owned();
            answer(stream, "200 OK", &format!("X-Debug: you are {sid}\r\nSet-Cookie: sid={sid}; Path=/\r\n"), "ok")
        },
    );
    let gateway = gateway(&config(&site.server.url(), "", EXPIRED));
    for _ in 0..2 {
        let reply = gateway.get("/r/site/a");
        assert_eq!(reply.status, 200);
        assert!(!reply.head.contains("a-long-session-id"), "{}", reply.head);
    }
    // What the upstream set again was taken as it was, not as it is shown.
    assert!(site.calls()[1].field("cookie").unwrap().contains("sid=a-long-session-id-of-the-upstream"));
    assert_eq!(site.posts(), 1);
}

#[test]
fn a_caller_who_leaves_during_the_login_changes_nothing() {
    let slow = Arc::new(AtomicBool::new(true));
    let delay = slow.clone();
    let site = Site::new(
        move |_, number, stream| {
            if delay.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(300));
            }
            let_in(number, stream)
        },
        |_, stream| answer(stream, "200 OK", "", "ok"),
    );
    let gateway = gateway(&config(&site.server.url(), "", EXPIRED));
    let mut leader = TcpStream::connect(("127.0.0.1", gateway.port)).unwrap();
    leader.write_all(b"GET /r/site/leader HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    assert!(eventually(|| (site.posts() > 0).then_some(())).is_some());
    drop(leader);
    assert_eq!(gateway.get("/r/site/follower").status, 200);
    assert_eq!(site.posts(), 1);
}
