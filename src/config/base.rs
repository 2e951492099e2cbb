//! `base_url` and `hosts` of a resource. What expressions put into the URL is judged and encoded for its place, and a
//! host that they made must be one that `hosts` allows (rulings C19, H16).

use std::borrow::Cow;

use crate::expr::{self, Names, Settings, Value, place};
use crate::net;
use crate::tree::{Node, Place, Problems, Value as Tree};

const EXAMPLE: &str = "https://api.example.com/v1";

/// A base URL, taken apart.
#[derive(Clone, Debug)]
pub struct BaseUrl {
    /// Scheme, host and port.
    pub origin: net::Origin,
    /// The path as written, or empty.
    pub path: String,
    /// The whole URL.
    pub text: String,
    /// Where it stands.
    pub place: Place,
    /// Whether an expression had a say in the host.
    pub made: bool,
}

impl BaseUrl {
    /// Stands for one that could not be read.
    pub fn nowhere(place: Place) -> Option<Self> {
        let origin = net::Origin::parse("https", "nowhere.invalid").ok()?;
        Some(Self { origin, path: String::new(), text: String::new(), place, made: false })
    }

    /// Reads it. `None` after an error was reported.
    pub fn read(node: &Node, hosts: Option<&Node>, settings: &Settings, problems: &Problems) -> Option<Self> {
        if matches!(node.value, Tree::List(_)) {
            problems.error(node.place, "a list of base URLs (failover) is not built into this version", "write one URL");
            return None;
        }
        let hosts = hosts.map(|node| Hosts::read(node, problems));
        let (text, computed) = if node.is_template() { computed(node, settings, problems)? } else { (node.text(problems)?, false) };
        let base = Self::parse(text, node.place, problems)?;
        if computed {
            base.allowed(hosts.as_ref(), problems)?;
        }
        Some(Self { made: computed, ..base })
    }

    fn parse(text: String, place: Place, problems: &Problems) -> Option<Self> {
        let refuse = |why: String, hint: &str| {
            problems.error(place, why, hint);
            None
        };
        let Some((scheme, rest)) = text.split_once("://") else {
            return refuse("`base_url` needs a scheme and a host".into(), EXAMPLE);
        };
        if let Some(mark) = rest.find(['?', '#', '@', '\\', ' ']) {
            let why = match rest.as_bytes()[mark] {
                b'?' => "`base_url` holds a query; parameters go under `params`",
                b'#' => "`base_url` holds a fragment",
                b'@' => "`base_url` holds a user; credentials go under `auth`",
                _ => "`base_url` holds a character that no URL may hold",
            };
            return refuse(why.into(), EXAMPLE);
        }
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let origin = match net::Origin::parse(scheme, authority) {
            Ok(origin) => origin,
            Err(why) => return refuse(why.to_string(), EXAMPLE),
        };
        if let Err(error) = crate::path::check(path) {
            return refuse(format!("the path of `base_url` is refused: {}", error.detail()), &error.hint());
        }
        let path = path.to_owned();
        Some(Self { origin, path, text, place, made: false })
    }

    fn allowed(&self, hosts: Option<&Hosts>, problems: &Problems) -> Option<()> {
        let Some(hosts) = hosts else {
            let hint = "name what it may become: hosts: [\"*.example.com\"]";
            problems.error(self.place, "an expression makes the host of `base_url`, and there are no `hosts`", hint);
            return None;
        };
        if !hosts.allow(&self.origin) {
            problems.error(
                self.place,
                "an expression makes a host of `base_url` that `hosts` does not allow",
                "check the variable, or add the host",
            );
            return None;
        }
        Some(())
    }
}

/// The URL with its expressions evaluated, and whether one of them had a say in the host.
fn computed(node: &Node, settings: &Settings, problems: &Problems) -> Option<(String, bool)> {
    let template = expr::read(node, &settings.scope(Names::FIXED.without(Names::of(&[expr::Name::Base]))), problems)?;
    let pieces = match template.pieces(settings) {
        Ok(pieces) => pieces,
        Err(failure) => {
            let hint = if failure.undefined { "set it under `vars`, or give it a `default(…)`" } else { "" };
            problems.error(node.place, failure.to_string(), hint);
            return None;
        }
    };
    let mut url = String::new();
    let mut host = false;
    for (index, (value, computed)) in pieces.iter().enumerate() {
        let Some(text) = as_text(value) else {
            problems.error(node.place, "an expression in `base_url` makes no text", "");
            return None;
        };
        if !computed {
            url.push_str(text);
            continue;
        }
        let behind = pieces.get(index + 1).and_then(|(value, _)| as_text(value)).unwrap_or_default();
        let (put, part) = match put(&url, text, behind) {
            Ok(put) => put,
            Err(why) => {
                problems.error(node.place, why, "a value under `vars` that goes into a host is made of letters, digits, `-` and `.`");
                return None;
            }
        };
        host |= part;
        url.push_str(&put);
    }
    Some((url, host))
}

fn as_text(value: &Value) -> Option<&str> {
    match value {
        Value::Text(text) | Value::Number(text) => Some(text),
        Value::Secret(secret) => Some(secret.expose()),
        _ => None,
    }
}

/// What a value becomes behind what there is of a URL, and whether it is part of the origin. Tenants paste whole URLs,
/// with trailing slashes, and with the suffix that the template brings: all of it is taken off.
fn put<'v>(url: &str, value: &'v str, behind: &str) -> Result<(Cow<'v, str>, bool), &'static str> {
    let value = value.trim();
    let Some((_, rest)) = url.split_once("://") else {
        if !url.is_empty() {
            return Err("an expression in `base_url` makes a part of the scheme");
        }
        let whole = value.starts_with("https://") || value.starts_with("http://");
        return if whole {
            Ok((value.trim_end_matches('/').into(), true))
        } else {
            Err("a value that begins `base_url` must be a whole URL")
        };
    };
    if rest.contains('/') {
        return Ok((Cow::Owned(place::segment(value.trim_matches('/')).into_owned()), false));
    }
    let host = value.strip_prefix("https://").or_else(|| value.strip_prefix("http://")).unwrap_or(value).trim_end_matches('/');
    let suffix = behind.split('/').next().unwrap_or_default();
    let host = Some(suffix).filter(|s| s.starts_with('.')).and_then(|s| host.strip_suffix(s)).unwrap_or(host);
    let (name, port) = host.split_once(':').map_or((host, ""), |(name, port)| (name, port));
    let good = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.".contains(&b)) && !name.contains("..");
    if !good || name.starts_with('.') || !port.bytes().all(|b| b.is_ascii_digit()) || host.ends_with(':') {
        return Err("a value that goes into the host of `base_url` is no part of a host name");
    }
    Ok((host.into(), true))
}

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
    fn read(node: &Node, problems: &Problems) -> Self {
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
    fn allow(&self, origin: &net::Origin) -> bool {
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
    fn what_a_tenant_pastes_is_cut_down_to_what_is_missing() {
        for (url, value, behind, expected) in [
            ("https://", "acme", ".example.com/v1", "acme"),
            ("https://", "acme.example.com", ".example.com/v1", "acme"),
            ("https://", "https://acme.example.com/", ".example.com", "acme"),
            ("https://", "https://acme.example.com/", "/v1", "acme.example.com"),
            ("https://", "acme.example.com:8443", "", "acme.example.com:8443"),
            ("https://api.", " acme ", ".com", "acme"),
            ("", "https://acme.example.com/v1/", "/x", "https://acme.example.com/v1"),
            ("https://x/", "/a b/c/", "/y", "a%20b%2Fc"),
            ("https://x/v1/", "a:b", "", "a:b"),
        ] {
            assert_eq!(put(url, value, behind).unwrap().0, expected, "{value}");
        }
    }

    #[test]
    fn what_is_no_part_of_a_host_is_refused() {
        for (url, value) in [
            ("https://", ""),
            ("https://", "evil.com/"),
            ("https://", "evil.com/x"),
            ("https://", "user@evil.com"),
            ("https://", "evil.com?x"),
            ("https://", "evil.com#x"),
            ("https://", "a b"),
            ("https://", "a..b"),
            ("https://", ".b"),
            ("https://", "a:b"),
            ("https://", "a:"),
            ("https://", "a%2eb"),
            ("https://", "ä"),
            ("", "acme"),
            ("", "ftp://x"),
            ("https:", "x"),
        ] {
            let allowed = value == "evil.com/";
            assert_eq!(put(url, value, "").is_err(), !allowed, "{value}");
        }
    }

    #[test]
    fn hosts_are_matched_by_name_below_a_suffix_and_with_their_port() {
        let hosts =
            Hosts(["api.example.com", "*.tenant.example", "*.other.example:8443"].iter().map(|p| Pattern::parse(p).unwrap()).collect());
        let allows = |scheme, authority| hosts.allow(&net::Origin::parse(scheme, authority).unwrap());
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
