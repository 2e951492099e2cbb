//! URLs that templates make. What an expression gives is encoded for its place and can be no structure: not another host,
//! no further segment, no further parameter (ruling H16). Tenants paste whole URLs: what the template brings is taken off.

use std::borrow::Cow;
use std::fmt;

use zeroize::Zeroizing;

use super::template::Fragment;
use super::{Failure, Inputs, Template, Value, place};

/// A URL as it was made. It is not judged: whoever goes there does that.
pub struct Made {
    /// The URL.
    pub text: Zeroizing<String>,
    /// Whether an expression had a say in its scheme, host or port.
    pub host: bool,
    /// Whether a secret went into it.
    pub secret: bool,
}

/// Why there is no URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unmade {
    /// An expression failed.
    Failed(Failure),
    /// What an expression gives cannot stand where it is put.
    Unfit(&'static str),
}

impl fmt::Display for Unmade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(failure) => failure.fmt(f),
            Self::Unfit(why) => f.write_str(why),
        }
    }
}

/// Makes the URL. A value at its beginning that is this `base` has no say in the host: that is where the resource leads
/// anyway.
///
/// # Errors
/// [`Unmade`].
pub fn url(template: &Template, inputs: &dyn Inputs, base: Option<&str>) -> Result<Made, Unmade> {
    let fragments = template.fragments(inputs).map_err(Unmade::Failed)?;
    let mut made = Made { text: Zeroizing::new(String::new()), host: false, secret: false };
    for (index, fragment) in fragments.iter().enumerate() {
        let text = text(&fragment.value)?;
        made.secret |= fragment.secret;
        if !fragment.computed || fragment.encoded {
            made.text.push_str(text);
            made.host |= fragment.computed && !made.text.split_once("://").is_some_and(|(_, rest)| rest.contains('/'));
        } else if made.text.is_empty() && base == Some(text) {
            made.text.push_str(text);
        } else {
            let behind = fragments.get(index + 1).map_or(Ok(""), |next: &Fragment| self::text(&next.value))?;
            let (put, host) = put(&made.text, text, behind).map_err(Unmade::Unfit)?;
            made.text.push_str(&put);
            made.host |= host;
        }
    }
    Ok(made)
}

fn text(value: &Value) -> Result<&str, Unmade> {
    match value {
        Value::Text(text) | Value::Number(text) => Ok(text),
        Value::Secret(secret) => Ok(secret.expose()),
        Value::Bool(flag) => Ok(if *flag { "true" } else { "false" }),
        _ => Err(Unmade::Unfit("an expression in the URL makes no text")),
    }
}

/// What a value becomes behind what there is of a URL, and whether it is part of the origin.
fn put<'v>(url: &str, value: &'v str, behind: &str) -> Result<(Cow<'v, str>, bool), &'static str> {
    if url.contains('?') {
        return Ok((place::query(value), false));
    }
    let value = value.trim();
    let Some((_, rest)) = url.split_once("://") else {
        if !url.is_empty() {
            return Err("an expression makes a part of the URL's scheme");
        }
        let whole = value.starts_with("https://") || value.starts_with("http://");
        return if whole { Ok((value.trim_end_matches('/').into(), true)) } else { Err("a value that begins a URL must be a whole URL") };
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
        return Err("a value that goes into the host of a URL is no part of a host name");
    }
    Ok((host.into(), true))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expr::{Given, Map, Name, Names, Scope};

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
    fn no_value_can_leave_its_place() {
        let made = |template: &str, value: &str| {
            let template = Template::compile(template, &Scope::of(Names::ALL)).unwrap();
            let vars = Value::Map(std::sync::Arc::new(Map::new([("x".into(), Value::text(value))])));
            let inputs = Given::default().with(Name::Vars, vars).with(Name::Base, Value::text("https://api.example/v1"));
            url(&template, &inputs, Some("https://api.example/v1")).map(|made| (made.text.to_string(), made.host))
        };
        for (template, value, text, host) in [
            ("{{ base }}/a/{{ vars.x }}", "b/../c?d#e", "https://api.example/v1/a/b%2F..%2Fc%3Fd%23e", false),
            ("{{ base }}/a?b={{ vars.x }}&c=1", "x&y=z/ ", "https://api.example/v1/a?b=x%26y%3Dz%2F%20&c=1", false),
            ("{{ base }}/a?b={{ vars.x | urlencode }}", "x&y", "https://api.example/v1/a?b=x%26y", false),
            ("https://{{ vars.x }}.example.com/a", "t", "https://t.example.com/a", true),
            ("{{ vars.x }}", "https://other.example/next?page=2", "https://other.example/next?page=2", true),
            ("{{ vars.x }}/y", "https://api.example/v1", "https://api.example/v1/y", false),
        ] {
            assert_eq!(made(template, value), Ok((text.to_owned(), host)), "{template}");
        }
        for (template, value) in [("https://{{ vars.x }}/", "a/b"), ("https://{{ vars.x }}/", "user@evil.com"), ("{{ vars.x }}", "ftp://x")]
        {
            assert!(made(template, value).is_err(), "{value}");
        }
    }
}
