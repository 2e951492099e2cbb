//! A fake issuer that counts what it is asked and answers as it is told, and an API that takes its tokens.

use std::io::Write;
use std::net::TcpStream;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::{Seen, Upstream};

/// What an issuer does with a request.
type Answer = dyn Fn(&Seen, u32, &mut TcpStream) -> bool + Send + Sync;

/// An issuer. Requests are numbered from 1.
pub struct Issuer {
    pub server: Upstream,
    answer: Arc<Mutex<Arc<Answer>>>,
    requests: Arc<AtomicU32>,
    /// Milliseconds that every answer takes.
    pub delay: Arc<AtomicU64>,
}

/// Writes an answer.
pub fn answer(stream: &mut TcpStream, status: &str, fields: &str, body: &str) -> bool {
    let text = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n{fields}\r\n{body}", body.len());
    stream.write_all(text.as_bytes()).is_ok()
}

/// Writes JSON with 200.
pub fn json_answer(stream: &mut TcpStream, body: &Value) -> bool {
    answer(stream, "200 OK", "Content-Type: application/json\r\n", &body.to_string())
}

impl Issuer {
    /// Mints `token-1`, `token-2` … that live so many seconds.
    pub fn minting(seconds: u64) -> Self {
        Self::answering(move |_, number, stream| json_answer(stream, &minted(number, seconds)))
    }

    /// Answers as told.
    pub fn answering(act: impl Fn(&Seen, u32, &mut TcpStream) -> bool + Send + Sync + 'static) -> Self {
        let answer: Arc<Mutex<Arc<Answer>>> = Arc::new(Mutex::new(Arc::new(act)));
        let (requests, delay) = (Arc::<AtomicU32>::default(), Arc::<AtomicU64>::default());
        let server = Upstream::answering({
            let (answer, requests, delay) = (answer.clone(), requests.clone(), delay.clone());
            move |seen, stream| {
                let number = requests.fetch_add(1, Ordering::SeqCst) + 1;
                std::thread::sleep(std::time::Duration::from_millis(delay.load(Ordering::SeqCst)));
                let act = answer.lock().unwrap().clone();
                act(seen, number, stream)
            }
        });
        Self { server, answer, requests, delay }
    }

    /// Answers otherwise from now on.
    pub fn now(&self, act: impl Fn(&Seen, u32, &mut TcpStream) -> bool + Send + Sync + 'static) {
        *self.answer.lock().unwrap() = Arc::new(act);
    }

    pub fn requests(&self) -> u32 {
        self.requests.load(Ordering::SeqCst)
    }

    /// The parameters of the last request's form, decoded.
    pub fn form(&self) -> Vec<(String, String)> {
        decoded(&String::from_utf8_lossy(&self.server.last().body))
    }

    pub fn url(&self) -> String {
        format!("{}/token", self.server.url())
    }
}

/// `token-N`.
pub fn minted(number: u32, seconds: u64) -> Value {
    json!({ "access_token": format!("token-{number}"), "token_type": "Bearer", "expires_in": seconds })
}

/// A form or query, decoded.
pub fn decoded(text: &str) -> Vec<(String, String)> {
    let plain = |part: &str| percent_encoding::percent_decode_str(&part.replace('+', " ")).decode_utf8().unwrap().into_owned();
    text.split('&').filter(|p| !p.is_empty()).map(|p| p.split_once('=').unwrap_or((p, ""))).map(|(n, v)| (plain(n), plain(v))).collect()
}

/// An API that takes some tokens and refuses all others with 401. It remembers what it was shown.
pub struct Api {
    pub server: Upstream,
    taken: Arc<Mutex<Vec<String>>>,
}

impl Api {
    /// Takes nothing yet.
    pub fn new() -> Self {
        let taken: Arc<Mutex<Vec<String>>> = Arc::default();
        let known = taken.clone();
        let server = Upstream::answering(move |seen, stream| {
            let shown = seen.field("authorization").unwrap_or_default();
            let good = shown.strip_prefix("Bearer ").is_some_and(|token| known.lock().unwrap().iter().any(|t| t == token));
            if good { answer(stream, "200 OK", "", "ok") } else { answer(stream, "401 Unauthorized", "WWW-Authenticate: Bearer\r\n", "no") }
        });
        Self { server, taken }
    }

    /// Takes exactly these from now on.
    pub fn takes(&self, tokens: &[&str]) {
        *self.taken.lock().unwrap() = tokens.iter().map(|t| (*t).to_owned()).collect();
    }

    /// Every `Authorization` that it was shown.
    pub fn shown(&self) -> Vec<String> {
        self.server.seen().iter().map(|s| s.field("authorization").unwrap_or_default().to_owned()).collect()
    }

    /// A handle by which others change what it takes.
    pub fn known(&self) -> Arc<Mutex<Vec<String>>> {
        self.taken.clone()
    }
}
