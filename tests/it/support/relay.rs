//! Hands requests on to a server and remembers them, so that a test can change what the gateway has signed and see the
//! server refuse it.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;

use super::{PATIENCE, Reply, Seen, Upstream, exchange, find, variable};

/// An upstream that hands every request on to the server on this port, each over a connection of its own.
pub fn relay(port: u16) -> Upstream {
    Upstream::answering(move |seen, stream| {
        let mut answer = exchange(TcpStream::connect(("127.0.0.1", port)).unwrap(), &bytes(seen));
        // The gateway must know that the connection ends, or it sends a request onto it that is lost.
        if let Some(at) = find(&answer, b"\r\n") {
            answer.splice(at..at, *b"\r\nConnection: close");
        }
        let _ = stream.write_all(&answer);
        false
    })
}

/// Sends a request as it was seen, or changed, to the server on this port.
pub fn send(port: u16, seen: &Seen) -> Reply {
    Reply::parse(&exchange(TcpStream::connect(("127.0.0.1", port)).unwrap(), &bytes(seen)))
}

/// A copy with this text of the head replaced, which must stand in it.
pub fn changed(seen: &Seen, from: &str, to: &str) -> Seen {
    assert!(seen.head.contains(from), "{from} stands nowhere in\n{}", seen.head);
    Seen { head: seen.head.replacen(from, to, 1), ..seen.clone() }
}

/// A copy with another last digit (hex or not) of the value behind `name`, up to `end`.
pub fn bent(seen: &Seen, name: &str, end: char) -> Seen {
    let at = seen.head.find(name).unwrap_or_else(|| panic!("{name} stands nowhere in\n{}", seen.head)) + name.len();
    let last = at + seen.head[at..].find(end).unwrap_or(seen.head.len() - at) - 1;
    let other = if &seen.head[last..=last] == "0" { "1" } else { "0" };
    let mut head = seen.head.clone();
    head.replace_range(last..=last, other);
    Seen { head, ..seen.clone() }
}

/// The request as bytes, with the connection closed behind it.
fn bytes(seen: &Seen) -> Vec<u8> {
    [seen.head.as_bytes(), b"\r\nConnection: close\r\n\r\n", &seen.raw_body].concat()
}

/// Python with the packages that `./tests/run` installs, if this one is there.
pub fn python(package: &str) -> Option<Command> {
    let found = variable("POSTERN_TEST_PYTHON").map(PathBuf::from).filter(|python| {
        Command::new(python).args(["-c", &format!("import {package}")]).output().is_ok_and(|output| output.status.success())
    });
    if found.is_none() {
        assert!(variable("CI").is_none(), "POSTERN_TEST_PYTHON with {package} is missing, and nothing is skipped in CI");
        eprintln!("skipped: PyPI {package} is not installed; ./tests/run installs it");
    }
    found.map(Command::new)
}

/// Node, with the npm packages that `./tests/run` installs where these are needed.
pub fn node(packages: &[&str]) -> Option<Command> {
    let mut command = Command::new(crate::counterparts::program("node")?);
    if !packages.is_empty() {
        let Some(modules) = variable("POSTERN_TEST_NPM") else {
            assert!(variable("CI").is_none(), "POSTERN_TEST_NPM is missing, and nothing is skipped in CI");
            eprintln!("skipped: npm {packages:?} is not installed; ./tests/run installs it");
            return None;
        };
        command.env("POSTERN_TEST_NPM", modules);
    }
    Some(command)
}

/// Reads the head of a request, and nothing behind it.
pub fn head(stream: &mut TcpStream) -> Option<Seen> {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut bytes = Vec::new();
    let mut byte = [0];
    while !bytes.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).ok()? == 0 {
            return None;
        }
        bytes.push(byte[0]);
    }
    Some(Seen { head: String::from_utf8_lossy(&bytes[..bytes.len() - 4]).into_owned(), ..Seen::default() })
}
