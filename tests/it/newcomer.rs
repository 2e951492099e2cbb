//! What a newcomer does first: the default configuration, the sample API behind it, and `postern mock` alone.

use std::fs;
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use crate::support::{Gateway, Reply, eventually, exchange, free_port, postern, root, sample_variables};

/// The gateway on the configuration that the repository ships, with other ports.
fn start() -> Gateway {
    let text = fs::read_to_string(root().join("config/postern.yaml")).unwrap();
    let mock = free_port().to_string();
    Gateway::start(&text.replace("8080", "{port}").replace("8081", &free_port().to_string()).replace("8082", &mock))
}

#[test]
fn the_first_command_of_the_tour_answers() {
    let gateway = start();
    let reply = gateway.get("/r/demo/customers?_limit=5");
    assert_eq!(reply.status, 200, "{}", reply.text());
    let customers = reply.json();
    assert_eq!(customers.as_array().unwrap().len(), 5);
    assert!(customers[0]["email"].as_str().unwrap().contains('@'), "{customers}");
    assert_eq!(reply.field("x-total-count"), Some("100"));
    // The next page is reached through the gateway, by the link that the answer names.
    let link = reply.field("link").unwrap();
    let next = link.split(',').find(|l| l.contains("rel=\"next\"")).unwrap();
    let next = &next[next.find('<').unwrap() + 1..next.find('>').unwrap()];
    assert!(next.starts_with("/r/demo/customers?"), "{next}");
    let page = gateway.get(next).json();
    assert_eq!(page.as_array().unwrap().len(), 5);
    assert_ne!(page[0]["id"], customers[0]["id"]);
}

#[test]
fn records_are_made_changed_replaced_and_removed_through_the_gateway() {
    let gateway = start();
    let json = "Content-Type: application/json\r\n";
    let made = gateway.send("POST", "/r/demo/customers", json, br#"{"name":"Ada","city":"Ulm"}"#);
    assert_eq!(made.status, 201, "{}", made.text());
    let place = made.field("location").unwrap().to_owned();
    assert!(place.starts_with("/r/demo/customers/"), "{place}");
    assert_eq!(gateway.get(&place).json()["name"], "Ada");
    assert_eq!(gateway.send("PATCH", &place, json, br#"{"city":"Bonn"}"#).json()["city"], "Bonn");
    assert_eq!(gateway.send("PUT", &place, json, br#"{"name":"Grace"}"#).status, 200);
    assert_eq!(gateway.get(&place).json()["name"], "Grace");
    assert_eq!(gateway.get("/r/demo/customers?name=Grace").json().as_array().unwrap().len(), 1);
    assert_eq!(gateway.send("DELETE", &place, "", b"").status, 204);
    assert_eq!(gateway.get(&place).status, 404);
    assert_eq!(gateway.get("/r/demo/products?nonsense=1").status, 400);
}

/// What is quoted behind `curl` on lines of this page that read something of `demo`.
fn reads(page: &str) -> Vec<String> {
    let text = fs::read_to_string(root().join(page)).unwrap();
    let quoted = |line: &str| line.trim_start_matches("$ ").strip_prefix("curl '")?.split('\'').next().map(str::to_owned);
    text.lines().filter_map(quoted).filter_map(|url| url.strip_prefix("localhost:8080").map(str::to_owned)).collect()
}

#[test]
fn what_the_pages_tell_a_newcomer_to_read_is_there() {
    let gateway = start();
    let all = [reads("README.md"), reads("docs/mock.md")];
    assert!(all.iter().all(|page| !page.is_empty()), "{all:?}");
    for path in all.concat() {
        let reply = gateway.get(&path);
        assert_eq!(reply.status, 200, "{path}: {}", reply.text());
        assert!(reply.json().as_array().is_none_or(|found| !found.is_empty()), "nothing is at {path}");
    }
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn get(port: u16, path: &str) -> Option<Reply> {
    let stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    Some(Reply::parse(&exchange(stream, format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").as_bytes())))
}

#[test]
fn the_sample_api_serves_alone_and_the_same_seed_is_the_same_data() {
    let serve = |seed: &str| {
        let port = free_port();
        let child =
            postern().args(["mock", "--listen", &format!("127.0.0.1:{port}"), "--seed", seed, "--items", "1000000"]).spawn().unwrap();
        let mut running = Running(child);
        let body = eventually(|| get(port, "/orders?_limit=3&_page=300000")).unwrap().text();
        let sent = Command::new("kill").args(["-s", "TERM", &running.0.id().to_string()]).status().unwrap();
        assert!(sent.success());
        assert_eq!(running.0.wait().unwrap().code(), Some(0));
        body
    };
    let (one, again, other) = (serve("1"), serve("1"), serve("2"));
    assert_eq!(one, again);
    assert_ne!(one, other);
}

#[test]
fn with_no_file_at_all_the_embedded_configuration_runs() {
    let folder = tempfile::tempdir().unwrap();
    let output = postern().arg("check").current_dir(folder.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("ok: 1 resource in <embedded>"), "{output:?}");
}

#[test]
fn files_are_found_in_the_usual_places_and_a_named_one_that_is_missing_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let good = "resources: { a: { base_url: \"http://127.0.0.1:1\" } }\n";
    fs::write(folder.path().join("postern.yaml"), good).unwrap();
    let told = |command: &mut Command| String::from_utf8_lossy(&command.output().unwrap().stdout).into_owned();
    assert!(told(postern().arg("check").current_dir(folder.path())).contains("in postern.yaml"));
    fs::create_dir(folder.path().join("config")).unwrap();
    fs::write(folder.path().join("config/postern.yaml"), good).unwrap();
    assert!(told(postern().arg("check").current_dir(folder.path())).contains("in config/postern.yaml"));
    let other = folder.path().join("other.yaml");
    fs::write(&other, good).unwrap();
    assert!(told(postern().arg("check").env("POSTERN_CONFIG", &other).current_dir(folder.path())).contains("other.yaml"));
    let missing = postern().args(["check", "--config", "nope.yaml"]).current_dir(folder.path()).output().unwrap();
    assert_eq!(missing.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("nope.yaml cannot be read"), "{missing:?}");
}

#[test]
fn the_command_line_explains_itself_and_refuses_what_it_does_not_know() {
    let help = postern().arg("--help").stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8_lossy(&help.stdout).into_owned();
    assert!(help.status.success() && ["run", "check", "mock", "--config", "--json"].iter().all(|w| text.contains(w)), "{text}");
    for wrong in [&["--nope"][..], &["rnu"], &["mock", "--seed", "x"], &["check", "--config"]] {
        assert_eq!(postern().args(wrong).output().unwrap().status.code(), Some(2), "{wrong:?}");
    }
}

#[test]
fn every_example_is_accepted() {
    let mut count = 0;
    for entry in fs::read_dir(root().join("config/examples")).unwrap().flatten() {
        let path = entry.path();
        let text = fs::read_to_string(&path).unwrap();
        let output = postern().args(["check", "--config"]).arg(&path).envs(sample_variables(&text)).current_dir(root()).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}: {}", path.display(), String::from_utf8_lossy(&output.stderr));
        count += 1;
    }
    assert!(count >= 10);
}
