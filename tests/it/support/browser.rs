//! A browser, as far as consent needs one: it keeps cookies by host, says where its requests come from, and goes where a
//! page's form or a redirect leads. And a gateway whose resource is connected by it.

use std::net::TcpStream;

use serde_json::{Value, json};

use super::issuer::{Issuer, decoded, json_answer};
use super::{Gateway, Reply, Upstream, exchange, free_port};

/// A browser of its own person.
#[derive(Clone, Default)]
pub struct Browser {
    /// What it keeps: authority, name, value.
    pub cookies: Vec<(String, String, String)>,
}

/// The port of a loopback address.
pub fn port_of(url: &str) -> u16 {
    let authority = url.split_once("://").unwrap().1.split('/').next().unwrap();
    authority.rsplit(':').next().unwrap().parse().unwrap()
}

/// Path and query.
pub fn target_of(url: &str) -> &str {
    let behind = url.split_once("://").unwrap().1;
    &behind[behind.find('/').unwrap_or(behind.len())..]
}

/// The parameters of an address, decoded.
pub fn params_of(url: &str) -> Vec<(String, String)> {
    decoded(url.split_once('?').map_or("", |(_, query)| query))
}

/// One of them.
pub fn param(url: &str, name: &str) -> Option<String> {
    params_of(url).into_iter().find(|(n, _)| n == name).map(|(_, value)| value)
}

impl Browser {
    /// One that has been nowhere.
    pub fn new() -> Self {
        Self::default()
    }

    /// Goes to an address, as a person does who clicks a link on another site.
    pub fn get(&mut self, url: &str) -> Reply {
        self.send("GET", url, "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\n", "")
    }

    /// Sends a form, as a page of that very origin does.
    pub fn post(&mut self, url: &str, form: &str) -> Reply {
        let fields = "Content-Type: application/x-www-form-urlencoded\r\nOrigin: null\r\nSec-Fetch-Site: same-origin\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\n";
        self.send("POST", url, fields, form)
    }

    /// Sends anything.
    pub fn send(&mut self, method: &str, url: &str, fields: &str, body: &str) -> Reply {
        let port = port_of(url);
        let authority = format!("127.0.0.1:{port}");
        let kept: Vec<String> = self.cookies.iter().filter(|(a, ..)| *a == authority).map(|(_, n, v)| format!("{n}={v}")).collect();
        let cookie = if kept.is_empty() { String::new() } else { format!("Cookie: {}\r\n", kept.join("; ")) };
        let host = if fields.contains("Host:") { String::new() } else { format!("Host: {authority}\r\n") };
        let head = format!(
            "{method} {} HTTP/1.1\r\n{host}Connection: close\r\n{fields}{cookie}Content-Length: {}\r\n\r\n{body}",
            target_of(url),
            body.len()
        );
        let reply = Reply::parse(&exchange(TcpStream::connect(("127.0.0.1", port)).unwrap(), head.as_bytes()));
        for line in reply.head.lines().filter_map(|l| l.split_once(':')).filter(|(n, _)| n.eq_ignore_ascii_case("set-cookie")) {
            let (name, value) = line.1.trim().split(';').next().unwrap().split_once('=').unwrap();
            self.cookies.retain(|(a, n, _)| !(*a == authority && n == name));
            self.cookies.push((authority.clone(), name.to_owned(), value.to_owned()));
        }
        reply
    }

    /// Opens a link and says yes on its page. Returns the address at the provider to which it is sent.
    pub fn agree(&mut self, link: &str) -> String {
        let page = self.get(link);
        assert_eq!(page.status, 200, "{}", page.text());
        let reply = self.post(link, &format!("proof={}&answer=connect", proof(&page)));
        assert_eq!(reply.status, 303, "{}", reply.text());
        reply.field("location").unwrap().to_owned()
    }

    /// Comes back from the provider, which has been asked by this address, with these parameters beside the state.
    pub fn come_back(&mut self, asked: &str, more: &str) -> Reply {
        let back = param(asked, "redirect_uri").unwrap();
        let state = param(asked, "state").unwrap();
        self.get(&format!("{back}?state={state}&{more}"))
    }
}

/// The hidden proof in a page's form.
pub fn proof(page: &Reply) -> String {
    let text = page.text();
    let (_, behind) = text.split_once("name=\"proof\" value=\"").unwrap_or_else(|| panic!("{text}"));
    behind.split('"').next().unwrap().to_owned()
}

/// A gateway whose resource `api` is connected by consent at a provider.
pub struct Stand {
    pub gateway: Gateway,
    pub admin: u16,
    pub issuer: Issuer,
    pub api: Upstream,
}

/// The address of a place to land where nobody listens: the tests look where they are sent.
pub const LANDING: &str = "http://127.0.0.1:9/landed?mine=1";

impl Stand {
    /// One whose provider gives `token-N` and `refresh-N`. `scheme` and `resource` are further lines of settings.
    pub fn new(scheme: &str, resource: &str) -> Self {
        Self::with(scheme, resource, "", Issuer::answering(|_, number, stream| json_answer(stream, &given(number))))
    }

    /// The same with this provider and further lines at the top.
    pub fn with(scheme: &str, resource: &str, top: &str, issuer: Issuer) -> Self {
        let own = format!(
            "authorize_url: \"{}/authorize\"\ntoken_url: \"{}\"\nclient_id: id\nclient_secret: \"${{env:CLIENT_SECRET}}\"\n{scheme}",
            issuer.server.url(),
            issuer.url()
        );
        Self::whole(&own, resource, top, issuer, free_port())
    }

    /// The same with the whole of the scheme's settings, and this port for the admin listener.
    pub fn whole(scheme: &str, resource: &str, top: &str, issuer: Issuer, admin: u16) -> Self {
        let api = Upstream::ok();
        let lines = |text: &str, indent: usize| text.lines().map(|l| format!("{}{l}\n", " ".repeat(indent))).collect::<String>();
        let config = format!(
            "admin: {{ listen: \"127.0.0.1:{admin}\" }}\nstore: {{ file: {{ path: data }} }}\n{}resources:\n  api:\n    base_url: \"{}\"\n{}    auth:\n      oauth2_authorization_code:\n{}",
            lines(top, 0),
            api.url(),
            lines(resource, 4),
            lines(scheme, 8)
        );
        let gateway = Gateway::start_with(&config, &[("CLIENT_SECRET", "s3cret-of-the-client")]);
        Self { gateway, admin, issuer, api }
    }

    /// Writes something else into the configuration, and has the gateway read it.
    #[track_caller]
    pub fn reconfigure(&self, from: &str, to: &str) {
        let file = self.gateway.folder.path().join("postern.yaml");
        let text = std::fs::read_to_string(&file).unwrap();
        assert_eq!(text.matches(from).count(), 1, "{from}: {text}");
        std::fs::write(&file, text.replace(from, to)).unwrap();
        let reply = self.api("POST", "/api/reload", &json!({}));
        assert_eq!(reply.status, 200, "{}", reply.text());
    }

    /// The token in the file that only its owner reads.
    pub fn own_token(&self) -> String {
        std::fs::read_to_string(self.gateway.folder.path().join("data/admin.token")).unwrap().trim().to_owned()
    }

    /// Asks the admin API, with that token.
    pub fn api(&self, method: &str, path: &str, body: &Value) -> Reply {
        let token = self.own_token();
        self.api_with(method, path, &format!("Authorization: Bearer {token}\r\nContent-Type: application/json\r\n"), &body.to_string())
    }

    /// The same with these fields.
    pub fn api_with(&self, method: &str, path: &str, fields: &str, body: &str) -> Reply {
        let host = if fields.contains("Host:") { String::new() } else { format!("Host: 127.0.0.1:{}\r\n", self.admin) };
        let head = format!("{method} {path} HTTP/1.1\r\n{host}Connection: close\r\n{fields}Content-Length: {}\r\n\r\n{body}", body.len());
        Reply::parse(&exchange(TcpStream::connect(("127.0.0.1", self.admin)).unwrap(), head.as_bytes()))
    }

    /// Begins a session, and returns its link.
    pub fn link(&self, order: Value) -> String {
        let reply = self.api("POST", "/api/connect-sessions", &order);
        assert_eq!(reply.status, 201, "{}", reply.text());
        reply.json()["connect_url"].as_str().unwrap().to_owned()
    }

    /// A session that lands at [`LANDING`].
    pub fn usual_link(&self) -> String {
        self.link(json!({ "resource": "api", "return_url": LANDING }))
    }

    /// Redeems a code. Whether something was connected.
    pub fn redeem(&self, code: &str) -> bool {
        self.api("POST", "/api/connect-sessions/redeem", &json!({ "code": code })).status == 200
    }

    /// All connections.
    pub fn connections(&self) -> Vec<Value> {
        let reply = self.api_with("GET", "/api/connections", "", "");
        reply.json()["connections"].as_array().unwrap().clone()
    }

    /// The whole way for one person and one connection.
    pub fn connect(&self, order: Value) {
        let link = self.link(order);
        let code = landed(&self.consent(&mut Browser::new(), &link));
        assert!(self.redeem(&code), "nothing was connected");
    }

    /// Goes the way to the provider and back.
    pub fn consent(&self, browser: &mut Browser, link: &str) -> Reply {
        let asked = browser.agree(link);
        browser.come_back(&asked, "code=the-code")
    }
}

/// The code with which a browser has landed.
pub fn landed(reply: &Reply) -> String {
    let to = reply.field("location").unwrap_or_else(|| panic!("it has not landed: {} {}", reply.status, reply.text()));
    param(to, "connect_code").unwrap_or_else(|| panic!("{to}"))
}

/// What the provider gives: a token for an hour.
pub fn given(number: u32) -> Value {
    json!({ "access_token": format!("token-{number}"), "refresh_token": format!("refresh-{number}"), "expires_in": 3600 })
}
