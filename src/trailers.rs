//! What may stand behind a body (RFC 9110 section 6.5.1): nothing that frames or routes a message, says who somebody is,
//! or belongs to one hop. A reader that merges trailers into the head would otherwise take it for the head's.

use std::fmt;
use std::sync::Arc;

use http::{HeaderMap, HeaderName};

/// Never in a trailer section, in either direction.
const NEVER: [&str; 37] = [
    "age",
    "alt-svc",
    "authorization",
    "cache-control",
    "clear-site-data",
    "connection",
    "content-encoding",
    "content-length",
    "content-range",
    "content-security-policy",
    "content-type",
    "cookie",
    "date",
    "expect",
    "expires",
    "forwarded",
    "host",
    "http2-settings",
    "keep-alive",
    "location",
    "max-forwards",
    "pragma",
    "proxy-status",
    "range",
    "refresh",
    "retry-after",
    "set-cookie",
    "strict-transport-security",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "vary",
    "via",
    "www-authenticate",
    "x-content-type-options",
    "x-request-id",
];
const NEVER_PREFIXES: [&str; 5] = ["proxy-", "postern-", "access-control-", "x-forwarded-", "if-"];

/// Takes out what may not stand there, in any spelling of `-`.
pub fn clean(trailers: &mut HeaderMap) {
    retain(trailers, |name| {
        let dashed = name.as_str().replace('_', "-");
        !NEVER.contains(&dashed.as_str()) && !NEVER_PREFIXES.iter().any(|prefix| dashed.starts_with(prefix))
    });
}

fn retain(trailers: &mut HeaderMap, keeps: impl Fn(&HeaderName) -> bool) {
    let gone: Vec<HeaderName> = trailers.keys().filter(|name| !keeps(name)).cloned().collect();
    for name in gone {
        trailers.remove(name);
    }
}

/// Which names a resource lets through besides, prepared when the configuration is loaded.
#[derive(Clone)]
pub struct Screen(Arc<dyn Fn(&HeaderName) -> bool + Send + Sync>);

impl Screen {
    /// Lets through what `keeps` keeps.
    pub fn new(keeps: impl Fn(&HeaderName) -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(keeps))
    }

    /// Takes out what it does not let through.
    pub fn apply(&self, trailers: &mut HeaderMap) {
        retain(trailers, |name| (self.0)(name));
    }
}

impl fmt::Debug for Screen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Screen")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_belongs_to_the_head_or_to_the_hop_is_taken_out() {
        let mut trailers = HeaderMap::new();
        for name in ["grpc-status", "grpc-message", "x-sum", "host", "Content_Length", "authorization", "proxy-x", "if-match", "set-cookie"]
        {
            trailers.insert(HeaderName::from_bytes(name.as_bytes()).unwrap(), "a".parse().unwrap());
        }
        clean(&mut trailers);
        let mut left: Vec<&str> = trailers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["grpc-message", "grpc-status", "x-sum"]);
        Screen::new(|name| name != "x-sum").apply(&mut trailers);
        assert_eq!(trailers.len(), 2);
    }
}
