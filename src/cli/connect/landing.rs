//! A place on this machine where a browser lands (RFC 8252 section 7.3): a port that was free, a path that nobody can
//! guess, and one visit.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// How long a person has.
const PATIENCE: Duration = Duration::from_secs(10 * 60);
/// How long one visitor has for its request.
const REQUEST_TIME: Duration = Duration::from_secs(5);
/// Largest head of a request.
const HEAD_MAX: usize = 16 * 1024;
/// How often it is looked whether anybody has come.
const LOOK: Duration = Duration::from_millis(20);
/// Characters of the path that nobody can guess.
const PATH: usize = 16;

/// What came of it.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The browser has brought the code.
    Code(String),
    /// Nothing was connected: why, in a word.
    Error(String),
    /// Nobody came.
    Nobody,
}

/// The place.
#[derive(Debug)]
pub struct Landing {
    listener: TcpListener,
    path: String,
    url: String,
}

impl Landing {
    /// Begins to listen.
    ///
    /// # Errors
    /// If there is no port, or no randomness.
    pub fn begin() -> io::Result<Self> {
        let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        listener.set_nonblocking(true)?;
        let mut bytes = [0; PATH];
        aws_lc_rs::rand::fill(&mut bytes).map_err(|_| io::Error::other("the system gives no random bytes"))?;
        let path: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        let url = format!("http://{}/{path}", listener.local_addr()?);
        Ok(Self { listener, path, url })
    }

    /// Its address.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Waits for the browser of this session. Whoever else comes is told that there is nothing.
    pub fn wait(self, session: &str) -> Outcome {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            match self.listener.accept() {
                Ok((stream, _)) => {
                    if let Some(outcome) = self.visit(stream, session) {
                        return outcome;
                    }
                }
                Err(_) => std::thread::sleep(LOOK),
            }
        }
        Outcome::Nobody
    }

    fn visit(&self, mut stream: TcpStream, session: &str) -> Option<Outcome> {
        stream.set_nonblocking(false).ok()?;
        stream.set_write_timeout(Some(REQUEST_TIME)).ok()?;
        let outcome = head(&mut stream).and_then(|head| self.judge(&head, session));
        let (status, text) = match &outcome {
            Some(Outcome::Code(_)) => ("200 OK", "The account is being connected. You can close this page."),
            Some(_) => ("200 OK", "Nothing was connected. You can close this page."),
            None => ("404 Not Found", "Nothing here."),
        };
        let answer = format!(
            "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\nCache-Control: no-store\r\n\
             Referrer-Policy: no-referrer\r\nX-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n{text}",
            text.len()
        );
        let _ = stream.write_all(answer.as_bytes());
        outcome
    }

    /// What a request's head brings; `None` where it is not the one that is waited for.
    fn judge(&self, head: &str, session: &str) -> Option<Outcome> {
        let target = head.lines().next()?.strip_prefix("GET /")?.split(' ').next()?;
        let (path, query) = target.split_once('?')?;
        let value = |name: &str| {
            let mut found = query.split('&').filter_map(|pair| pair.split_once('=')).filter(|(n, _)| *n == name).map(|(_, value)| value);
            found.next().filter(|_| found.next().is_none())
        };
        if path != self.path || value("connect_session")? != session {
            return None;
        }
        let plain = |text: &str| percent_encoding::percent_decode_str(text).decode_utf8().ok().map(std::borrow::Cow::into_owned);
        match (value("connect_code"), value("connect_error")) {
            (Some(code), None) => Some(Outcome::Code(plain(code)?)),
            (None, Some(error)) => Some(Outcome::Error(plain(error)?.chars().filter(|c| !c.is_control()).collect())),
            _ => None,
        }
    }
}

/// The head of a request, in time and within bounds.
fn head(stream: &mut TcpStream) -> Option<String> {
    let until = Instant::now() + REQUEST_TIME;
    let mut all = Vec::new();
    let mut part = [0; 2048];
    while !all.windows(4).any(|four| four == b"\r\n\r\n") {
        let left = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())?;
        stream.set_read_timeout(Some(left)).ok()?;
        let read = stream.read(&mut part).ok().filter(|read| *read > 0)?;
        all.extend_from_slice(&part[..read]);
        if all.len() > HEAD_MAX {
            return None;
        }
    }
    String::from_utf8(all).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_browser_of_this_session_lands() {
        let landing = Landing::begin().unwrap();
        let path = landing.path.clone();
        let judge = |target: &str| landing.judge(&format!("GET {target} HTTP/1.1\r\n\r\n"), "s");
        assert_eq!(judge(&format!("/{path}?connect_session=s&connect_code=a.b")), Some(Outcome::Code("a.b".into())));
        assert_eq!(judge(&format!("/{path}?connect_session=s&connect_error=access_denied")), Some(Outcome::Error("access_denied".into())));
        for wrong in [
            "/favicon.ico".to_owned(),
            "/?connect_session=s&connect_code=a.b".to_owned(),
            format!("/{path}"),
            format!("/{path}?connect_session=t&connect_code=a.b"),
            format!("/{path}?connect_session=s"),
            format!("/{path}?connect_session=s&connect_code=a&connect_code=b"),
            format!("/{path}x?connect_session=s&connect_code=a.b"),
        ] {
            assert_eq!(judge(&wrong), None, "{wrong}");
        }
    }
}
