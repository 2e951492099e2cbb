//! A client's request, for commands that take one through the gateway, and the answer taken apart.

use std::net::{IpAddr, Ipv4Addr};

use crate::config::Plan;
use crate::config::listen::Address;
use crate::stack::Peer;

/// A request of a client of the gateway.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// The method.
    pub method: String,
    /// How the gateway is called.
    pub host: String,
    /// Path and query.
    pub target: String,
    /// The fields, without those that frame the message.
    pub fields: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Request {
    /// As it goes over the wire.
    pub fn bytes(&self) -> Vec<u8> {
        let given = |name: &str| self.fields.iter().any(|(n, _)| n.eq_ignore_ascii_case(name));
        let mut head = format!("{} {} HTTP/1.1\r\n", self.method, self.target);
        if !given("host") {
            head.push_str(&format!("Host: {}\r\n", self.host));
        }
        for (name, value) in &self.fields {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if !self.body.is_empty() && !given("content-length") && !given("transfer-encoding") {
            head.push_str(&format!("Content-Length: {}\r\n", self.body.len()));
        }
        head.push_str("\r\n");
        [head.as_bytes(), &self.body].concat()
    }
}

/// How the gateway is called where nobody says.
pub fn own_host(plan: &Plan) -> String {
    match plan.listening.server.listen.first().map(|l| &l.address) {
        Some(Address::Tcp(address)) if !address.ip().is_unspecified() => address.to_string(),
        _ => "localhost".into(),
    }
}

/// The client as the first listener would see it: from this machine.
pub fn peer(plan: &Plan) -> Peer {
    let loopback = match plan.listening.server.listen.first().map(|l| &l.address) {
        Some(Address::Tcp(address)) => address.ip().to_canonical().is_loopback(),
        _ => false,
    };
    Peer { ip: Some(IpAddr::from(Ipv4Addr::LOCALHOST)), tls: false, loopback, certificate: None }
}

/// An answer, taken apart.
#[derive(Debug)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// The fields.
    pub fields: Vec<(String, String)>,
    /// The body, put together.
    pub body: Vec<u8>,
}

impl Reply {
    /// The last answer in these bytes that is not interim; `None` where there is none.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let end = memchr::memmem::find(bytes, b"\r\n\r\n")?;
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let rest = &bytes[end + 4..];
        let mut lines = head.split("\r\n");
        let status: u16 = lines.next()?.split(' ').nth(1)?.parse().ok()?;
        if (100..200).contains(&status) {
            return Self::parse(rest);
        }
        let fields: Vec<(String, String)> =
            lines.filter_map(|line| line.split_once(':')).map(|(n, v)| (n.trim().to_owned(), v.trim().to_owned())).collect();
        let chunked = fields.iter().any(|(n, v)| n.eq_ignore_ascii_case("transfer-encoding") && v.eq_ignore_ascii_case("chunked"));
        let body = if chunked { together(rest) } else { rest.to_vec() };
        Some(Self { status, fields, body })
    }

    /// The problem, where the gateway answered by itself because something failed or was refused.
    pub fn problem(&self) -> Option<serde_json::Value> {
        let field = |name: &str| self.fields.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map_or("", |(_, v)| v.as_str());
        let own = field("content-type").starts_with("application/problem+json") && field("proxy-status").starts_with("postern;");
        own.then(|| serde_json::from_slice(&self.body).ok())?
    }
}

/// Chunks put together; what is cut off ends the body.
fn together(mut bytes: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(line) = memchr::memmem::find(bytes, b"\r\n") {
        let size = String::from_utf8_lossy(&bytes[..line]);
        let Ok(size) = usize::from_str_radix(size.split(';').next().unwrap_or_default().trim(), 16) else { break };
        bytes = &bytes[line + 2..];
        body.extend_from_slice(&bytes[..size.min(bytes.len())]);
        if size == 0 || bytes.len() < size.saturating_add(2) {
            break;
        }
        bytes = &bytes[size + 2..];
    }
    body
}
