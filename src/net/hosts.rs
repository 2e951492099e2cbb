//! `hosts` of a resource: where a host that a template or a capture has made may be (ruling C19). Which addresses may be
//! dialled there is the affair of `guard.rs`.

use super::Origin;
use crate::tree::{Node, Problems};

/// `hosts`: what a template or a capture may make of the host.
#[derive(Clone, Debug)]
pub struct Hosts(Vec<Pattern>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Pattern {
    /// In lower case; with a leading dot it stands for everything below.
    host: String,
    /// None is the scheme's own.
    port: Option<u16>,
}

impl Hosts {
    /// Reads a pattern or a list of them.
    pub fn read(node: &Node, problems: &Problems) -> Self {
        let pattern = |node: &Node| {
            let text = node.text(problems)?;
            let read = Pattern::parse(&text);
            if read.is_none() {
                problems.error(
                    node.place,
                    format!("{} is no pattern for hosts", node.shown()),
                    "api.example.com, *.example.com, *.example.com:8443",
                );
            }
            read
        };
        Self(node.items().iter().filter_map(pattern).collect())
    }

    /// Whether the gateway may go there.
    pub fn allow(&self, origin: &Origin) -> bool {
        let host = origin.host().to_ascii_lowercase();
        let port = origin.port();
        let usual = if origin.is_https() { 443 } else { 80 };
        self.0.iter().any(|pattern| {
            let named = if pattern.host.starts_with('.') { host.ends_with(&pattern.host) } else { host == pattern.host };
            named && port == pattern.port.unwrap_or(usual)
        })
    }
}

impl Pattern {
    fn parse(text: &str) -> Option<Self> {
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, Some(port.parse().ok()?)),
            _ => (text, None),
        };
        let host = host.to_ascii_lowercase();
        let name = host.strip_prefix('*').unwrap_or(&host);
        let labels = name.strip_prefix('.').unwrap_or(name);
        let address = labels.starts_with('[') && labels.ends_with(']');
        let good = !labels.is_empty() && (address || labels.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.".contains(&b)));
        // `*` alone would be no list, and `*example.com` would take in `badexample.com`.
        (good && (host.starts_with("*.") || !host.contains('*')) && !(host.starts_with('.'))).then(|| Self { host: name.to_owned(), port })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_matched_by_name_below_a_suffix_and_with_their_port() {
        let hosts =
            Hosts(["api.example.com", "*.tenant.example", "*.other.example:8443"].iter().map(|p| Pattern::parse(p).unwrap()).collect());
        let allows = |scheme, authority| hosts.allow(&Origin::parse(scheme, authority).unwrap());
        for (scheme, authority) in [
            ("https", "api.example.com"),
            ("http", "api.example.com"),
            ("https", "API.example.com:443"),
            ("https", "a.tenant.example"),
            ("https", "a.b.tenant.example"),
            ("https", "a.other.example:8443"),
        ] {
            assert!(allows(scheme, authority), "{authority}");
        }
        for (scheme, authority) in [
            ("https", "example.com"),
            ("https", "x.api.example.com"),
            ("https", "api.example.com.evil"),
            ("https", "api.example.com:8443"),
            ("https", "tenant.example"),
            ("https", "eviltenant.example"),
            ("https", "a.other.example"),
        ] {
            assert!(!allows(scheme, authority), "{authority}");
        }
        for wrong in ["", "*", "*.", "*example.com", "a*.b", "a/b", "https://a", ".a", "a:x"] {
            assert_eq!(Pattern::parse(wrong), None, "{wrong}");
        }
    }
}
