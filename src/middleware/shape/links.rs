//! Leads an upstream's own URLs back to the gateway (ruling D7): inside the base they become `/r/<resource>/…`, on the
//! same origin outside of it they become absolute, elsewhere they stay as they are.

use crate::net::Origin;
use crate::uri::{has_scheme, is_dots, map_links, normal};

/// Where a resource's URLs begin, and where they lead back to.
#[derive(Clone, Debug)]
pub struct Links {
    origin: Origin,
    /// The base path without its trailing slash.
    base: String,
    /// `/r/<resource>`.
    prefix: String,
}

impl Links {
    /// For a resource of this name.
    pub fn new(resource: &str, origin: &Origin, base: &str) -> Self {
        Self { origin: origin.clone(), base: base.trim_end_matches('/').to_owned(), prefix: format!("/r/{resource}") }
    }

    /// For the same resource at another base.
    pub fn at(&self, origin: &Origin, base: &str) -> Self {
        Self { origin: origin.clone(), base: base.trim_end_matches('/').to_owned(), prefix: self.prefix.clone() }
    }

    /// `/r/<resource>`.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Maps a URI reference that stands in the answer to a request for `path`. `None` leaves it as it is.
    pub fn map(&self, reference: &str, path: &str) -> Option<String> {
        let (hierarchy, tail) = reference.split_at(reference.find(['?', '#']).unwrap_or(reference.len()));
        if let Some(authority_and_path) = self.without_scheme(hierarchy) {
            let (authority, path) = authority_and_path.split_at(authority_and_path.find('/').unwrap_or(authority_and_path.len()));
            if !self.is_own(authority) {
                return None;
            }
            let path = if path.is_empty() { "/" } else { path };
            return self.inside(&normal(path)).map(|mapped| mapped + tail);
        }
        if has_scheme(hierarchy) || hierarchy.is_empty() {
            return None;
        }
        if hierarchy.starts_with('/') {
            return Some(self.lead(&normal(hierarchy)) + tail);
        }
        // A relative reference means the same on both sides, unless it climbs or stands where the base itself ends.
        let climbs = hierarchy.split('/').any(is_dots);
        let below = path.len() > self.base.len() + 1;
        if !climbs && below {
            return None;
        }
        let folder = &path[..=path.rfind('/').unwrap_or(0)];
        Some(self.lead(&normal(&format!("{folder}{hierarchy}"))) + tail)
    }

    /// Below the gateway if it is inside the base, else absolute.
    fn lead(&self, path: &str) -> String {
        self.inside(path).unwrap_or_else(|| format!("{}{path}", self.origin))
    }

    /// Whether what [`Links::map`] made leads to the gateway.
    pub fn leads_in(&self, mapped: &str) -> bool {
        let rest = mapped.strip_prefix(self.prefix.as_str());
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?', '#']))
    }

    /// The gateway's path for an upstream's path inside the base.
    pub fn inside(&self, path: &str) -> Option<String> {
        let rest = path.strip_prefix(self.base.as_str())?;
        (rest.is_empty() || rest.starts_with('/')).then(|| format!("{}{rest}", self.prefix))
    }

    /// What follows `//`, where the reference names an authority over http or https of the same scheme.
    fn without_scheme<'r>(&self, reference: &'r str) -> Option<&'r str> {
        if let Some(rest) = reference.strip_prefix("//") {
            return Some(rest);
        }
        let (scheme, rest) = reference.split_once("://")?;
        let own = if self.origin.is_https() { "https" } else { "http" };
        scheme.eq_ignore_ascii_case(own).then_some(rest)
    }

    fn is_own(&self, authority: &str) -> bool {
        let scheme = if self.origin.is_https() { "https" } else { "http" };
        Origin::parse(scheme, authority).is_ok_and(|other| other.authority() == self.origin.authority())
    }

    /// Maps every reference of a `Link` field. `None` leaves the field as it is.
    pub fn map_link(&self, field: &str, path: &str) -> Option<String> {
        map_links(field, |reference| self.map(reference, path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn links() -> Links {
        Links::new("x", &Origin::parse("https", "api.example").unwrap(), "/v1/")
    }

    #[test]
    fn references_lead_back_or_stay() {
        for (reference, mapped) in [
            ("https://api.example/v1/a?b=c#d", "/r/x/a?b=c#d"),
            ("https://API.example:443/v1/a", "/r/x/a"),
            ("https://api.example/v1", "/r/x"),
            ("https://api.example/v1/", "/r/x/"),
            ("//api.example/v1/a", "/r/x/a"),
            ("/v1/a", "/r/x/a"),
            ("/v1", "/r/x"),
            ("/v1?a", "/r/x?a"),
            ("/v10/a", "https://api.example/v10/a"),
            ("/", "https://api.example/"),
            ("/other", "https://api.example/other"),
            ("/v1/../admin", "https://api.example/admin"),
            ("/v1/a/../b", "/r/x/b"),
            ("/v1/%2e%2e/admin", "https://api.example/admin"),
            ("../c", "/r/x/c"),
            ("../../../d", "https://api.example/d"),
            ("./e", "/r/x/a/e"),
        ] {
            assert_eq!(links().map(reference, "/v1/a/b").as_deref(), Some(mapped), "{reference}");
        }
        for reference in [
            "https://api.example/v10/a",
            "https://api.example/",
            "http://api.example/v1/a",
            "https://api.example:8443/v1/a",
            "https://evil.example/v1/a",
            "https://api.example@evil.example/v1",
            "https://api.example.evil/v1/a",
            "//evil.example/v1/a",
            "next",
            "next/c",
            "?page=2",
            "#top",
            "",
            "mailto:a@b",
            "urn:a:b",
            "data:,x",
        ] {
            assert_eq!(links().map(reference, "/v1/a/b"), None, "{reference}");
        }
        assert_eq!(links().map("next", "/v1").as_deref(), Some("https://api.example/next"));
        assert_eq!(links().map("next", "/v1/").as_deref(), Some("/r/x/next"));
    }

    #[test]
    fn every_target_of_a_link_field_is_mapped_and_quotes_are_respected() {
        let field = r#"<https://api.example/v1/p2>; rel="next"; title="a <b> \"c", </v1/p9>; rel=last,<https://e.example/>;rel=x"#;
        let mapped = r#"</r/x/p2>; rel="next"; title="a <b> \"c", </r/x/p9>; rel=last,<https://e.example/>;rel=x"#;
        assert_eq!(links().map_link(field, "/v1/a").as_deref(), Some(mapped));
        assert_eq!(links().map_link("<https://e.example/>; rel=x", "/v1/a"), None);
        assert_eq!(links().map_link("<unclosed", "/v1/a"), None);
    }
}
