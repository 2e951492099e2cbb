//! Scheme, host and port of an upstream (RFC 6454).

use std::net::{IpAddr, Ipv6Addr};

use http::HeaderValue;

/// Where an upstream is.
#[derive(Clone, Debug)]
pub struct Origin {
    https: bool,
    host: String,
    port: u16,
    authority: HeaderValue,
}

impl Origin {
    /// Reads a scheme and an authority, which hold neither user nor path.
    ///
    /// # Errors
    /// What is wrong, in a sentence without a full stop.
    pub fn parse(scheme: &str, authority: &str) -> Result<Self, &'static str> {
        let https = match scheme {
            "https" => true,
            "http" => false,
            _ => return Err("the scheme is neither http nor https"),
        };
        let (host, port) = split(authority)?;
        let default = if https { 443 } else { 80 };
        let port = match port {
            None => default,
            Some(digits) if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) => {
                digits.parse().map_err(|_| "the port is over 65535")?
            }
            Some(_) => return Err("the port is not a number"),
        };
        if port == 0 {
            return Err("the port is 0");
        }
        let host = host.to_ascii_lowercase();
        let written = if port == default { host.clone() } else { format!("{host}:{port}") };
        let authority = HeaderValue::try_from(written).map_err(|_| "the host holds a character that none may hold")?;
        Ok(Self { https, host, port, authority })
    }

    /// Whether a credential may travel there: over TLS, to this machine, or where the operator says so with `allow_http`
    /// (ruling G1).
    pub fn is_safe(&self, allow_http: bool) -> bool {
        self.https || self.is_loopback() || allow_http
    }

    /// Whether both are the same.
    pub fn is(&self, other: &Self) -> bool {
        (self.https, self.port) == (other.https, other.port) && self.host == other.host
    }

    /// Takes an absolute URL apart: the origin, and what follows it (a path with its query, or nothing).
    ///
    /// # Errors
    /// What is wrong, in a sentence without a full stop.
    pub fn of(url: &str) -> Result<(Self, &str), &'static str> {
        let (scheme, rest) = url.split_once("://").ok_or("a URL needs a scheme and a host")?;
        let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        if authority.contains('@') {
            return Err("a URL holds no user here; credentials go under `auth`");
        }
        if path.contains('#') || path.bytes().any(|b| !(0x21..=0x7e).contains(&b) || b == b'\\') {
            return Err("the URL holds a fragment or a character that no URL may hold");
        }
        Ok((Self::parse(scheme, authority)?, path))
    }

    /// Whether TLS is spoken.
    pub fn is_https(&self) -> bool {
        self.https
    }

    /// The host in lower case; an IPv6 address without its brackets.
    pub fn host(&self) -> &str {
        self.host.trim_matches(['[', ']'])
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Host and port for the `Host` field; the port is left out where it is the scheme's own.
    pub fn authority(&self) -> &HeaderValue {
        &self.authority
    }

    /// The address, where the host is one.
    pub fn ip(&self) -> Option<IpAddr> {
        self.host().parse().ok()
    }

    /// Whether the host is this machine by its very name.
    pub fn is_loopback(&self) -> bool {
        self.host == "localhost" || self.host.ends_with(".localhost") || self.ip().is_some_and(|ip| ip.to_canonical().is_loopback())
    }
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}://{}", if self.https { "https" } else { "http" }, self.authority.to_str().unwrap_or("?"))
    }
}

/// Host and port of an authority. An IPv6 address keeps its brackets.
fn split(authority: &str) -> Result<(&str, Option<&str>), &'static str> {
    if authority.starts_with('[') {
        let end = authority.find(']').ok_or("an IPv6 address lacks its closing bracket")?;
        let (host, rest) = authority.split_at(end + 1);
        host[1..end].parse::<Ipv6Addr>().map_err(|_| "what stands in brackets is no IPv6 address")?;
        return match rest.strip_prefix(':') {
            Some(port) => Ok((host, Some(port))),
            None if rest.is_empty() => Ok((host, None)),
            None => Err("something stands behind the closing bracket"),
        };
    }
    let (host, port) = match authority.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (authority, None),
    };
    if host.is_empty() {
        return Err("there is no host");
    }
    if !host.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.' || b == b'_') {
        return Err("the host holds a character that no host may hold; write international names as `xn--…`");
    }
    Ok((host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_authority_leaves_the_schemes_own_port_out() {
        for (scheme, authority, shown) in
            [("https", "API.example:443", "https://api.example"), ("http", "a:8080", "http://a:8080"), ("http", "[::1]:80", "http://[::1]")]
        {
            assert_eq!(Origin::parse(scheme, authority).unwrap().to_string(), shown);
        }
        assert_eq!(Origin::parse("http", "[::1]:81").unwrap().ip(), Some("::1".parse().unwrap()));
    }

    #[test]
    fn a_url_is_an_origin_and_what_follows() {
        for (url, origin, rest) in [
            ("https://a.example/t?x=1", "https://a.example", "/t?x=1"),
            ("http://a:81", "http://a:81", ""),
            ("https://a?x", "https://a", "?x"),
        ] {
            let (found, path) = Origin::of(url).unwrap();
            assert_eq!((found.to_string().as_str(), path), (origin, rest));
        }
        for wrong in ["a.example/t", "https://u:p@a/", "https://a/#f", "https://a/ b", "https://a/\\b", "https:///a", "https://a/\u{e4}"] {
            assert!(Origin::of(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_no_authority_is_refused() {
        for (scheme, authority) in [
            ("ftp", "a"),
            ("http", ""),
            ("http", ":80"),
            ("http", "a:"),
            ("http", "a:b"),
            ("http", "a:65536"),
            ("http", "a:0"),
            ("http", "[::1"),
            ("http", "[::1]x"),
            ("http", "[a]"),
            ("http", "a b"),
            ("http", "ä"),
            ("http", "a:80:80"),
            ("http", "{x}"),
        ] {
            assert!(Origin::parse(scheme, authority).is_err(), "{scheme} {authority}");
        }
    }

    #[test]
    fn loopback_is_told_by_name_and_address() {
        for (authority, loopback) in [
            ("localhost", true),
            ("a.localhost:1", true),
            ("127.9.9.9", true),
            ("[::1]", true),
            ("[::ffff:127.0.0.1]", true),
            ("localhost.a", false),
            ("10.0.0.1", false),
        ] {
            assert_eq!(Origin::parse("http", authority).unwrap().is_loopback(), loopback, "{authority}");
        }
    }
}
