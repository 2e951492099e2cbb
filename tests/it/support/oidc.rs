//! npm `oidc-provider` as an issuer (`tests/it/peers/oidc.mjs` lists its clients), and a person who signs in and consents
//! on its pages by plain HTTP, where a browser would be.

use std::io::{BufRead as _, BufReader};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use super::{Reply, exchange, fields, free_port, provided, root};

/// A running `oidc-provider`, and what its clients need.
pub struct Oidc {
    child: Child,
    pub port: u16,
    facts: Value,
}

impl Drop for Oidc {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Oidc {
    /// With the clients of the script; `None` where npm has not been provided, with the reason said.
    pub fn start() -> Option<Self> {
        Self::start_with(&json!({}))
    }

    /// The same with what the test adds; the script says what that may be.
    pub fn start_with(more: &Value) -> Option<Self> {
        let modules = provided("POSTERN_TEST_NPM")?;
        let port = free_port();
        let mut command = Command::new("node");
        command.arg(root().join("tests/it/peers/oidc.mjs")).arg(port.to_string()).arg(more.to_string()).env("POSTERN_TEST_NPM", modules);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("node is missing");
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let facts = serde_json::from_str(&line).unwrap_or_else(|e| panic!("oidc-provider did not start: {e}: {line}"));
        Some(Self { child, port, facts })
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// What the script told: `secret`, `private_key`, `refresh_token` …
    pub fn fact(&self, name: &str) -> &str {
        self.facts[name].as_str().unwrap_or_else(|| panic!("{name}: {}", self.facts))
    }

    /// What it has counted: `token` requests, API calls `served` and `refused`.
    pub fn stats(&self) -> Value {
        self.request("GET", "/stats", "", "").json()
    }

    /// A request of a test's own, with further fields (each ending in CR LF).
    pub fn request(&self, method: &str, path: &str, more: &str, body: &str) -> Reply {
        request(self.port, method, path, more, body)
    }

    /// What a gateway's configuration names.
    pub fn variables(&self) -> [(&str, &str); 6] {
        [
            ("SECRET", self.fact("secret")),
            ("KEY", self.fact("private_key")),
            ("EC_KEY", self.fact("ec_key")),
            ("ED_KEY", self.fact("ed_key")),
            ("REFRESH", self.fact("refresh_token")),
            ("PUBLIC_REFRESH", self.fact("public_refresh_token")),
        ]
    }
}

fn request(port: u16, method: &str, path: &str, more: &str, body: &str) -> Reply {
    let length = if method == "GET" { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    let text = format!("{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n{more}{length}\r\n{body}");
    Reply::parse(&exchange(TcpStream::connect(("127.0.0.1", port)).unwrap(), text.as_bytes()))
}

/// A person with a browser of their own: it keeps cookies, follows redirects, and sends forms.
#[derive(Default)]
pub struct Person {
    /// Origin, path, name, value.
    cookies: Vec<(String, String, String, String)>,
}

/// Where a browser has come to.
#[derive(Debug)]
pub struct Page {
    /// `http://127.0.0.1:1234/path?query`; of the page itself, or of the place that [`Person::consents`] would not follow to.
    pub url: String,
    pub reply: Option<Reply>,
}

/// How many redirects a browser follows.
const REDIRECTS: u32 = 20;

impl Person {
    /// Goes to a URL on loopback and follows redirects as long as they stay on its origin. A page without a reply is one on
    /// another origin, which was not asked for.
    pub fn visits(&mut self, url: &str) -> Page {
        self.goes("GET", url, "", "")
    }

    /// Sends the page's only form, with its hidden inputs and what else is filled in.
    pub fn submits(&mut self, page: &Page, filled: &[(&str, &str)]) -> Page {
        let text = page.reply.as_ref().map(Reply::text).unwrap_or_default();
        let form = &text[text.find("<form").unwrap_or_else(|| panic!("no form: {text}"))..];
        let action = attribute(form, "action").unwrap_or_else(|| page.url.clone());
        let mut pairs: Vec<(String, String)> = form
            .split("<input")
            .skip(1)
            .map(|input| input.split('>').next().unwrap_or_default())
            .filter_map(|input| Some((attribute(input, "name")?, attribute(input, "value").unwrap_or_default())))
            .filter(|(name, _)| filled.iter().all(|(n, _)| n != name))
            .collect();
        pairs.extend(filled.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())));
        let encode = |text: &str| percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string();
        let body: Vec<String> = pairs.iter().map(|(n, v)| format!("{}={}", encode(n), encode(v))).collect();
        let action = absolute(&page.url, &action);
        self.goes("POST", &action, "Content-Type: application/x-www-form-urlencoded\r\n", &body.join("&"))
    }

    /// Signs in as `account` and consents, on whatever pages `oidc-provider` shows. Ends where the issuer sends the browser
    /// away, or where there is nothing to fill in any more.
    pub fn consents(&mut self, url: &str, account: &str) -> Page {
        let page = self.visits(url);
        self.goes_on(page, account)
    }

    /// The same from a page on.
    pub fn goes_on(&mut self, mut page: Page, account: &str) -> Page {
        for _ in 0..6 {
            let text = page.reply.as_ref().map(Reply::text).unwrap_or_default();
            page = match () {
                () if text.contains("value=\"login\"") => self.submits(&page, &[("login", account), ("password", "any")]),
                () if text.contains("<form") => self.submits(&page, &[]),
                () => break,
            };
        }
        page
    }

    fn goes(&mut self, method: &str, url: &str, more: &str, body: &str) -> Page {
        let mut at = (method.to_owned(), url.to_owned(), more.to_owned(), body.to_owned());
        let home = origin(url).to_owned();
        for _ in 0..REDIRECTS {
            let (method, url, more, body) = &at;
            if origin(url) != home {
                return Page { url: url.clone(), reply: None };
            }
            let path = &url[home.len()..];
            let port = home.rsplit(':').next().and_then(|p| p.parse().ok()).unwrap();
            let more = format!("{}{more}", self.cookies(&home, path));
            let reply = request(port, method, if path.is_empty() { "/" } else { path }, &more, body);
            self.keep(&home, &reply);
            match reply.field("location").filter(|_| (300..400).contains(&reply.status)) {
                Some(to) => at = ("GET".to_owned(), absolute(url, to), String::new(), String::new()),
                None => return Page { url: url.clone(), reply: Some(reply) },
            }
        }
        panic!("{url} redirects without end");
    }

    fn cookies(&self, home: &str, path: &str) -> String {
        let pairs: Vec<String> = self
            .cookies
            .iter()
            .filter(|(at, under, ..)| at == home && path.starts_with(under.as_str()))
            .map(|(.., name, value)| format!("{name}={value}"))
            .collect();
        if pairs.is_empty() { String::new() } else { format!("Cookie: {}\r\n", pairs.join("; ")) }
    }

    fn keep(&mut self, home: &str, reply: &Reply) {
        for cookie in fields(&reply.head, "set-cookie") {
            let mut parts = cookie.split(';').map(str::trim);
            let Some((name, value)) = parts.next().and_then(|pair| pair.split_once('=')) else { continue };
            let path = parts.find_map(|part| part.to_ascii_lowercase().starts_with("path=").then(|| part[5..].to_owned()));
            let path = path.unwrap_or_else(|| "/".into());
            self.cookies.retain(|(at, under, n, _)| (at.as_str(), under, n.as_str()) != (home, &path, name));
            if !value.is_empty() {
                self.cookies.push((home.to_owned(), path, name.to_owned(), value.to_owned()));
            }
        }
    }
}

/// Scheme, host and port of a URL.
fn origin(url: &str) -> &str {
    let host = url.find("://").map_or(0, |at| at + 3);
    &url[..url[host..].find(['/', '?']).map_or(url.len(), |at| host + at)]
}

fn absolute(base: &str, to: &str) -> String {
    if to.contains("://") { to.to_owned() } else { format!("{}{to}", origin(base)) }
}

/// An attribute of an element's text.
fn attribute(element: &str, name: &str) -> Option<String> {
    let from = element.find(&format!("{name}=\""))? + name.len() + 2;
    let value = element[from..].split('"').next()?;
    Some(value.replace("&amp;", "&"))
}
