//! Cookies that an upstream has set, and where they go back to (RFC 6265, and of its revision the rules for secure ones and
//! for the prefixes `__Host-` and `__Secure-`). Names are the server's; nobody but the gateway sees a value.

use http::HeaderMap;
use http::header::SET_COOKIE;
use serde_json::{Value, json};

use crate::net::Origin;
use crate::secret::Secret;

/// Most cookies of one jar; the oldest goes first.
const COOKIES_MAX: usize = 64;
/// Longest name and value together, in bytes (section 6.1).
const COOKIE_MAX: usize = 4096;

/// The cookies of one login.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Jar(Vec<Cookie>);

/// One cookie.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Cookie {
    name: String,
    value: Secret,
    /// A host, or where `below`, everything below it too.
    domain: String,
    below: bool,
    path: String,
    secure: bool,
    /// In milliseconds since 1970; none is as long as the session.
    expires: Option<u64>,
}

impl Jar {
    /// Takes in what an answer to a request for `path` at `origin` sets, replaces and removes. Returns the names of those
    /// that it set. `named` are the hosts that are written down: only they make a cookie one of a whole domain.
    pub fn take(&mut self, headers: &HeaderMap, origin: &Origin, path: &str, named: &[String], now: u64) -> Vec<String> {
        let mut set = Vec::new();
        for field in headers.get_all(SET_COOKIE) {
            let Some(cookie) = field.to_str().ok().and_then(|text| Cookie::read(text, origin, path, named, now)) else { continue };
            self.0.retain(|c| (&c.name, &c.domain, &c.path) != (&cookie.name, &cookie.domain, &cookie.path));
            if cookie.is_alive(now) {
                set.push(cookie.name.clone());
                self.0.push(cookie);
            }
        }
        let surplus = self.0.len().saturating_sub(COOKIES_MAX);
        self.0.drain(..surplus);
        set
    }

    /// The cookies for a request for `path` at `origin`, in their order on the wire (section 5.4).
    pub fn pairs(&self, origin: &Origin, path: &str, now: u64) -> Vec<(&str, &Secret)> {
        let mut fit: Vec<&Cookie> = self.0.iter().filter(|c| c.is_alive(now) && c.fits(origin, path)).collect();
        fit.sort_by_key(|c| std::cmp::Reverse(c.path.len()));
        fit.iter().map(|c| (c.name.as_str(), &c.value)).collect()
    }

    /// The value of the cookie of this name that goes there, of several that of the closest path, which stands first.
    pub fn value(&self, name: &str, origin: &Origin, path: &str, now: u64) -> Option<&Secret> {
        self.pairs(origin, path, now).into_iter().find(|(n, _)| *n == name).map(|(_, value)| value)
    }

    /// When the first of these ends, in milliseconds since 1970, where any says so.
    pub fn end_of(&self, names: &[String]) -> Option<u64> {
        self.0.iter().filter(|c| names.contains(&c.name)).filter_map(|c| c.expires).min()
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// As a sealed record has it.
    pub fn to_record(&self) -> Value {
        let one = |c: &Cookie| json!([c.name, c.value.expose(), c.domain, c.below, c.path, c.secure, c.expires]);
        Value::Array(self.0.iter().map(one).collect())
    }

    /// What a record has; what cannot be read is left out.
    pub fn of_record(record: &Value) -> Self {
        let one = |value: &Value| {
            let text = |at: usize| value.get(at).and_then(Value::as_str).map(str::to_owned);
            let flag = |at: usize| value.get(at).and_then(Value::as_bool);
            Some(Cookie {
                name: text(0)?,
                value: Secret::new(text(1)?),
                domain: text(2)?,
                below: flag(3)?,
                path: text(4)?,
                secure: flag(5)?,
                expires: value.get(6).and_then(Value::as_u64),
            })
        };
        Self(record.as_array().into_iter().flatten().filter_map(one).take(COOKIES_MAX).collect())
    }
}

impl Cookie {
    /// Reads a `Set-Cookie` field (section 5.2 and 5.3); `None` where it is to be ignored.
    fn read(text: &str, origin: &Origin, path: &str, named: &[String], now: u64) -> Option<Self> {
        let (pair, attributes) = text.split_once(';').unwrap_or((text, ""));
        let (name, value) = pair.split_once('=')?;
        let (name, value) = (name.trim(), value.trim());
        let good = |text: &str| text.bytes().all(|b| b != b';' && (b == b'\t' || (0x20..0x7f).contains(&b)));
        if name.is_empty() || name.len() + value.len() > COOKIE_MAX || !good(name) || !good(value) {
            return None;
        }
        let mut cookie = Self {
            name: name.to_owned(),
            value: Secret::new(value.to_owned()),
            domain: origin.host().to_owned(),
            below: false,
            path: directory(path).to_owned(),
            secure: false,
            expires: None,
        };
        // `Max-Age` wins over `Expires`, wherever they stand; of each the last one counts.
        let (mut age, mut date, mut rooted, mut claimed) = (None, None, false, false);
        for attribute in attributes.split(';') {
            let (name, value) = attribute.split_once('=').unwrap_or((attribute, ""));
            let value = value.trim();
            match name.trim().to_ascii_lowercase().as_str() {
                "max-age" => age = seconds(value).or(age),
                "expires" => date = moment(value).or(date),
                "path" if value.starts_with('/') => {
                    value.clone_into(&mut cookie.path);
                    rooted = value == "/";
                }
                "path" => directory(path).clone_into(&mut cookie.path),
                "domain" => {
                    cookie.claim(value.strip_prefix('.').unwrap_or(value), origin, named)?;
                    claimed |= !value.is_empty();
                }
                "secure" => cookie.secure = true,
                _ => {}
            }
        }
        cookie.expires = match (age, date) {
            (Some(age), _) => Some(if age <= 0 { 0 } else { now.saturating_add(age.unsigned_abs().saturating_mul(1000)) }),
            (None, date) => date,
        };
        let safe = trustworthy(origin);
        let lower = cookie.name.to_ascii_lowercase();
        let refused = (cookie.secure && !safe)
            || (lower.starts_with("__secure-") && !cookie.secure)
            || (lower.starts_with("__host-") && !(cookie.secure && rooted && !claimed));
        (!refused).then_some(cookie)
    }

    /// Widens it to a domain, if that is the host, or above it and above another host that is written down; `None` where it is
    /// not above it. Nothing tells a registry's domain (`co.uk`) from a site's, so alone it stays with its host.
    fn claim(&mut self, domain: &str, origin: &Origin, named: &[String]) -> Option<()> {
        let domain = domain.to_ascii_lowercase();
        if domain.is_empty() {
            return Some(());
        }
        if domain == origin.host() {
            self.below = origin.ip().is_none();
            return Some(());
        }
        let above = origin.ip().is_none() && domain.contains('.') && is_below(origin.host(), &domain);
        let shared = named.iter().any(|host| host != origin.host() && (*host == domain || is_below(host, &domain)));
        (self.domain, self.below) = if shared { (domain, true) } else { (origin.host().to_owned(), false) };
        above.then_some(())
    }

    fn is_alive(&self, now: u64) -> bool {
        self.expires.is_none_or(|end| end > now)
    }

    fn fits(&self, origin: &Origin, path: &str) -> bool {
        let host = origin.host() == self.domain || (self.below && is_below(origin.host(), &self.domain));
        let rest = path.strip_prefix(self.path.as_str());
        let below = rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || self.path.ends_with('/'));
        host && below && (!self.secure || trustworthy(origin))
    }
}

/// Whether secure cookies may travel there.
fn trustworthy(origin: &Origin) -> bool {
    origin.is_https() || origin.is_loopback()
}

fn is_below(host: &str, domain: &str) -> bool {
    host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'))
}

/// The default path (section 5.1.4).
fn directory(path: &str) -> &str {
    match path.rfind('/') {
        Some(at) if at > 0 && path.starts_with('/') => &path[..at],
        _ => "/",
    }
}

fn seconds(text: &str) -> Option<i64> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some(text.parse().unwrap_or(if text.starts_with('-') { i64::MIN } else { i64::MAX / 2000 }))
}

/// A date as cookies have it, in milliseconds since 1970: found word by word, as servers write it in many ways (section
/// 5.1.1). One before 1970 is 0.
fn moment(text: &str) -> Option<u64> {
    const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
    let (mut time, mut day, mut month, mut year) = (None, None, None, None);
    let delimiter = |c: char| !(c.is_ascii_alphanumeric() || c == ':');
    for word in text.split(delimiter).filter(|w| !w.is_empty()) {
        let number = || word.bytes().all(|b| b.is_ascii_digit()).then(|| word.parse::<i16>().ok()).flatten();
        let lower = word.to_ascii_lowercase();
        if time.is_none() && word.contains(':') {
            let mut parts = word.split(':').map(|p| p.parse::<i8>().ok());
            time = Some((parts.next()??, parts.next()??, parts.next()??));
        } else if day.is_none() && word.len() <= 2 && number().is_some() {
            day = i8::try_from(number()?).ok();
        } else if month.is_none() && lower.len() >= 3 && MONTHS.iter().any(|m| lower.starts_with(m)) {
            month = MONTHS.iter().position(|m| lower.starts_with(m)).and_then(|m| i8::try_from(m + 1).ok());
        } else if year.is_none() && (word.len() == 2 || word.len() == 4) {
            year = number().map(|y| {
                if (70..=99).contains(&y) {
                    y + 1900
                } else if (0..70).contains(&y) {
                    y + 2000
                } else {
                    y
                }
            });
        }
    }
    let (hour, minute, second) = time?;
    let civil = jiff::civil::DateTime::new(year?, month?, day?, hour, minute, second, 0).ok()?;
    let millis = jiff::tz::TimeZone::UTC.to_timestamp(civil).ok()?.as_millisecond();
    Some(u64::try_from(millis).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: u64 = 1_700_000_000_000;

    fn origin(url: &str) -> Origin {
        Origin::of(url).unwrap().0
    }

    fn jar(from: &str, path: &str, set: &[&str]) -> Jar {
        let mut jar = Jar::default();
        let mut headers = HeaderMap::new();
        for one in set {
            headers.append(SET_COOKIE, one.parse().unwrap());
        }
        jar.take(&headers, &origin(from), path, &[], NOW);
        jar
    }

    fn sent(jar: &Jar, to: &str, path: &str, now: u64) -> String {
        jar.pairs(&origin(to), path, now).iter().map(|(n, v)| format!("{n}={}", v.expose())).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn several_cookies_are_kept_replaced_and_removed() {
        let mut all = jar("https://api.example", "/login", &["sid=1; Path=/; HttpOnly", "csrf=x=y; Path=/", "sid=2; Path=/"]);
        assert_eq!(sent(&all, "https://api.example", "/a", NOW), "csrf=x=y; sid=2");
        let mut headers = HeaderMap::new();
        headers.append(SET_COOKIE, "sid=; Path=/; Max-Age=0".parse().unwrap());
        headers.append(SET_COOKIE, "csrf=new; Path=/".parse().unwrap());
        assert_eq!(all.take(&headers, &origin("https://api.example"), "/x", &[], NOW), ["csrf"]);
        assert_eq!(sent(&all, "https://api.example", "/a", NOW), "csrf=new");
    }

    #[test]
    fn each_goes_where_it_belongs_and_nowhere_else() {
        for (set, to, path, goes) in [
            ("a=1", "https://api.example", "/v1/login", true),
            ("a=1", "https://api.example", "/v1", true),
            ("a=1", "https://api.example", "/v1/x/y", true),
            ("a=1", "https://api.example", "/v10", false),
            ("a=1", "https://api.example", "/", false),
            ("a=1; Path=/", "https://other.example", "/", false),
            ("a=1; Path=/", "https://sub.api.example", "/", false),
            ("a=1; Path=/; Domain=api.example", "https://sub.api.example", "/", true),
            ("a=1; Path=/; Domain=.API.example", "https://api.example", "/", true),
            ("a=1; Path=/; Domain=other.example", "https://other.example", "/", false),
            ("a=1; Path=/; Domain=example", "https://other.example", "/", false),
            ("a=1; Path=/v1/", "https://api.example", "/v1/x", true),
            ("a=1; Path=/v1/", "https://api.example", "/v1", false),
            ("a=1; Path=/; Secure", "http://api.example", "/", false),
            ("a=1; Path=/; Secure", "https://api.example", "/", true),
            ("__Host-a=1; Path=/; Secure", "https://api.example", "/", true),
            ("__Host-a=1; Path=/v1; Secure", "https://api.example", "/v1", false),
            ("__Secure-a=1; Path=/", "https://api.example", "/", false),
        ] {
            let jar = jar("https://api.example", "/v1/login", &[set]);
            assert_eq!(!sent(&jar, to, path, NOW).is_empty(), goes, "{set} to {to}{path}");
        }
        assert!(jar("http://api.example", "/", &["a=1; Secure"]).is_empty(), "a secure cookie was set over plain http");
        assert!(!jar("http://127.0.0.1:8000", "/", &["a=1; Secure"]).is_empty());
    }

    #[test]
    fn a_domain_is_claimed_only_where_another_host_that_is_written_down_lies_below_it() {
        let named = ["login.a.co.uk", "api.a.co.uk"].map(str::to_owned);
        let sent = |set: &str, to: &str| {
            let (mut jar, mut headers) = (Jar::default(), HeaderMap::new());
            headers.append(SET_COOKIE, set.parse().unwrap());
            jar.take(&headers, &origin("https://login.a.co.uk"), "/", &named, NOW);
            !jar.pairs(&origin(to), "/", NOW).is_empty()
        };
        for (set, to, goes) in [
            ("a=1; Domain=a.co.uk", "https://api.a.co.uk", true),
            ("a=1; Domain=a.co.uk", "https://login.a.co.uk", true),
            ("a=1; Domain=login.a.co.uk", "https://login.a.co.uk", true),
            ("a=1; Domain=login.a.co.uk", "https://api.a.co.uk", false),
            ("a=1; Domain=uk", "https://login.a.co.uk", false),
            ("__Host-a=1; Secure; Path=/; Domain=a.co.uk", "https://login.a.co.uk", false),
        ] {
            assert_eq!(sent(set, to), goes, "{set} to {to}");
        }
        let jar = jar("https://shop.co.uk", "/", &["a=1; Domain=co.uk"]);
        let goes = |to: &str| !jar.pairs(&origin(to), "/", NOW).is_empty();
        assert!(goes("https://shop.co.uk") && !goes("https://other.co.uk") && !goes("https://x.shop.co.uk"));
    }

    #[test]
    fn a_value_is_that_of_the_cookie_that_goes_along() {
        let jar = jar("https://api.example", "/", &["t=deep; Path=/deep", "t=root; Path=/", "t=other; Path=/other"]);
        let value = |url: &str, path: &str| jar.value("t", &origin(url), path, NOW).map(|value| value.expose().to_owned());
        assert_eq!(value("https://api.example", "/x").as_deref(), Some("root"));
        assert_eq!(value("https://api.example", "/deep/x").as_deref(), Some("deep"));
        assert_eq!(value("https://elsewhere.example", "/x"), None);
    }

    #[test]
    fn their_end_is_read_in_every_form() {
        for (set, alive) in [
            ("a=1; Max-Age=10", true),
            ("a=1; Max-Age=0", false),
            ("a=1; Max-Age=-5", false),
            ("a=1; Max-Age=soon", true),
            ("a=1; Max-Age=99999999999999999999", true),
            ("a=1; Expires=Thu, 01-Jan-1970 00:00:00 GMT", false),
            ("a=1; Expires=Thu, 01 Jan 1970 00:00:00 GMT", false),
            ("a=1; Expires=Wed, 15 Nov 2023 00:00:00 GMT", true),
            ("a=1; Expires=Wednesday, 15-Nov-23 00:00:00 GMT", true),
            ("a=1; Expires=Wed Nov 15 00:00:00 2023", true),
            ("a=1; Expires=soon", true),
            ("a=1; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Max-Age=10", true),
            ("a=1; Max-Age=0; Expires=Wed, 15 Nov 2033 00:00:00 GMT", false),
        ] {
            assert_eq!(!jar("https://api.example", "/", &[set]).is_empty(), alive, "{set}");
        }
        let jar = jar("https://api.example", "/", &["a=1; Max-Age=10", "b=2"]);
        assert_eq!(sent(&jar, "https://api.example", "/", NOW + 9_999), "a=1; b=2");
        assert_eq!(sent(&jar, "https://api.example", "/", NOW + 10_000), "b=2");
        assert_eq!((jar.end_of(&["a".into()]), jar.end_of(&["b".into()])), (Some(NOW + 10_000), None));
        assert_eq!(moment("Wed, 15 Nov 2023 01:02:03 GMT"), Some(1_700_010_123_000));
    }

    #[test]
    fn a_jar_is_bounded_and_keeps_the_newest() {
        let many: Vec<String> = (0..100).map(|n| format!("c{n}=x")).collect();
        let jar = jar("https://api.example", "/", &many.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(jar.0.len(), COOKIES_MAX);
        let there = |name: &str| jar.value(name, &origin("https://api.example"), "/", NOW).is_some();
        assert!(there("c99") && !there("c0"));
        assert!(self::jar("https://api.example", "/", &[&format!("a={}", "x".repeat(COOKIE_MAX))]).is_empty());
    }

    #[test]
    fn a_record_is_read_as_it_was_written_and_nothing_prints() {
        let jar = jar("https://api.example", "/", &["sid=hunter2hunter2; Path=/; Max-Age=10; Secure", "b=2; Domain=api.example"]);
        assert_eq!(Jar::of_record(&jar.to_record()), jar);
        assert!(!format!("{jar:?}").contains("hunter2"));
        assert!(Jar::of_record(&json!([1, [], ["a"]])).is_empty());
    }

    proptest! {
        #[test]
        fn no_field_makes_it_panic(text in "[ -~]{0,60}") {
            let _ = Cookie::read(&text, &origin("https://api.example"), "/", &[], NOW);
            let _ = moment(&text);
        }
    }
}
