//! `api_key`: a secret in a header, a query parameter, a cookie, the path or the body. The value is free text, so that
//! `Token token=…` and values somebody has encoded already are just values.

use std::sync::Arc;

use http::HeaderName;
use http::header;
use zeroize::Zeroizing;

use crate::auth::field::Field;
use crate::auth::insert::Insert;
use crate::auth::place::{self, Segment};
use crate::auth::read::fields;
use crate::auth::{Owned, Reading, Scheme, Signing};
use crate::call::Call;
use crate::secret::Secret;
use crate::tree::{Fields, Node, Problems};
use crate::uri::{encode_query, encode_segment};

/// Fields that frame the message or belong to one connection: a secret there would break the request.
const RESERVED: [HeaderName; 14] = [
    header::HOST,
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
    header::TE,
    header::TRAILER,
    header::UPGRADE,
    header::EXPECT,
    header::VIA,
    header::CONTENT_ENCODING,
    header::CONTENT_TYPE,
    header::DATE,
    header::SET_COOKIE,
    header::MAX_FORWARDS,
];

/// A key that does not change.
#[derive(Debug)]
pub struct ApiKey {
    place: Place,
    identity: Arc<str>,
}

/// Where it goes, and what goes there.
#[derive(Debug)]
enum Place {
    Header { name: HeaderName, value: Field },
    Query { name: String, encoded: String, value: Secret },
    Cookie { name: String, pair: Field },
    Path(Segment),
    Body(Insert),
}

#[derive(Clone, Copy)]
enum Where {
    Header,
    Query,
    Cookie,
    Path,
    Body,
}

const PLACES: [(&str, Where); 5] =
    [("header", Where::Header), ("query", Where::Query), ("cookie", Where::Cookie), ("path", Where::Path), ("body", Where::Body)];

/// Reads `{ in, name, value }`; `name` may be left out for `path` only.
pub(super) fn read(node: &Node, reading: Reading<'_>) -> Option<Box<dyn Scheme>> {
    let problems = reading.problems;
    let fields = fields(node, "a map with `in`, `name` and `value`", problems)?;
    let to = place(&fields);
    let name = match to {
        Some((Where::Path, _)) => fields.node("name").map(|n| named(n, problems)),
        _ => fields.need("name").map(|n| named(n, problems)),
    };
    let value = fields.need("value").and_then(|n| Some((n, n.secret(problems)?))).filter(|(node, value)| {
        if value.is_empty() {
            problems.error(node.place, "`value` is empty", "write `auth: none` if no credential is wanted");
        }
        !value.is_empty()
    });
    fields.finish();
    let ((to, word), (value_node, value)) = (to?, value?);
    let key = Key { name, value_node, value, reading };
    let place = match to {
        Where::Path => key.path()?,
        Where::Header => key.header()?,
        Where::Query => key.query()?,
        Where::Cookie => key.cookie()?,
        Where::Body => key.body()?,
    };
    let name = key.name.as_ref().and_then(|n| n.as_ref()).map_or("", |(_, name)| name.as_str());
    let identity = reading.fingerprint.of([b"api_key", word.as_bytes(), name.as_bytes(), key.value.expose().as_bytes()]);
    Some(Box::new(ApiKey { place, identity }))
}

fn place(fields: &Fields<'_>) -> Option<(Where, &'static str)> {
    fields.need("in")?;
    let words = PLACES.map(|(word, to)| (word, Some((to, word))));
    fields.choice("in", &words, None)
}

type Named<'n> = Option<(&'n Node, String)>;

fn named<'n>(node: &'n Node, problems: &Problems) -> Named<'n> {
    let name = node.text(problems)?;
    if name.is_empty() || name.contains(char::is_control) {
        problems.error(node.place, "`name` must be text without control characters", "");
        return None;
    }
    Some((node, name))
}

/// What was read, before it is known to fit its place. The outer `Option` of the name is whether there was one.
struct Key<'n> {
    name: Option<Named<'n>>,
    value_node: &'n Node,
    value: Secret,
    reading: Reading<'n>,
}

impl Key<'_> {
    fn name(&self) -> Option<(&Node, &str)> {
        self.name.as_ref()?.as_ref().map(|(node, name)| (*node, name.as_str()))
    }

    fn wrong_name<T>(&self, message: &str, hint: &str) -> Option<T> {
        let place = self.name().map_or(self.value_node.place, |(node, _)| node.place);
        self.reading.problems.error(place, message, hint);
        None
    }

    fn wrong_value<T>(&self, message: String) -> Option<T> {
        self.reading.problems.error(self.value_node.place, message, "check the file or variable that it comes from");
        None
    }

    fn header(&self) -> Option<Place> {
        let (_, name) = self.name()?;
        let Ok(name) = HeaderName::from_bytes(name.as_bytes()) else {
            return self.wrong_name("`name` is not the name of a header", "letters, digits and `-`, as X-Api-Key");
        };
        if name == header::COOKIE {
            return self.wrong_name("a cookie has a place of its own", "write `in: cookie` and the name of the cookie");
        }
        let proxy = name.as_str().starts_with("proxy-") || name == "keep-alive" || name == "http2-settings";
        if proxy || RESERVED.contains(&name) {
            return self.wrong_name("this header belongs to the connection or frames the message: no credential goes there", "");
        }
        match Field::new(self.value.expose()) {
            Ok(value) => Some(Place::Header { name, value }),
            Err(why) => self.wrong_value(format!("`value` cannot be sent in a header: {why}")),
        }
    }

    fn query(&self) -> Option<Place> {
        let (_, name) = self.name()?;
        self.printable("query")?;
        Some(Place::Query { name: name.to_owned(), encoded: encode_query(name), value: Secret::new(encode_query(self.value.expose())) })
    }

    fn cookie(&self) -> Option<Place> {
        let (_, name) = self.name()?;
        if !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b)) {
            return self.wrong_name("`name` is not the name of a cookie (RFC 6265 section 4.1.1)", "");
        }
        let value = self.value.expose();
        let inner = value.strip_prefix('"').and_then(|v| v.strip_suffix('"')).unwrap_or(value);
        // RFC 6265 section 4.1.1, cookie-octet.
        if !inner.bytes().all(|b| b.is_ascii_graphic() && !b"\",;\\".contains(&b)) {
            return self.wrong_value("`value` holds a character that no cookie can carry (RFC 6265 section 4.1.1)".into());
        }
        let pair = Field::new(&Zeroizing::new([name, "=", value].concat())).ok()?;
        Some(Place::Cookie { name: name.to_owned(), pair })
    }

    fn path(&self) -> Option<Place> {
        // A name that was there and did not read is reported already.
        let name = match &self.name {
            None => None,
            Some(named) => Some(named.as_ref().map(|(_, name)| name.as_str())?),
        };
        if name.is_some_and(|n| !n.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b))) {
            return self.wrong_name("a placeholder is made of letters, digits, `_`, `-` and `.`", "write it without the braces");
        }
        self.printable("path")?;
        if self.value.expose().bytes().all(|b| b == b'.') {
            return self.wrong_value("`value` would be a dot segment of the path".into());
        }
        match Segment::new(self.reading.context.base_path, name, Secret::new(encode_segment(self.value.expose()))) {
            Ok(segment) => Some(Place::Path(segment)),
            Err(why) => self.wrong_name(&why, "leave one of them"),
        }
    }

    fn body(&self) -> Option<Place> {
        let (_, name) = self.name()?;
        Insert::new(name.to_owned(), &self.value, self.reading.context.buffer).map(Place::Body)
    }

    /// A line break in a URL is a mistake in the file, however well it could be encoded.
    fn printable(&self, place: &str) -> Option<()> {
        if self.value.expose().contains(char::is_control) {
            return self.wrong_value(format!("`value` holds a line break or another control character, which has no place in a {place}"));
        }
        Some(())
    }
}

impl Scheme for ApiKey {
    fn owns(&self) -> Owned {
        let mut owned = Owned::default();
        match &self.place {
            Place::Header { name, .. } => owned.headers.push(name.clone()),
            Place::Query { name, .. } => owned.params.push(name.clone()),
            Place::Cookie { name, .. } => owned.cookies.push(name.clone()),
            Place::Path(segment) => owned.segments.push(segment.claim().to_owned()),
            Place::Body(insert) => owned.members.push(insert.name().to_owned()),
        }
        owned
    }

    fn identity(&self, _: &Call) -> Option<Arc<str>> {
        Some(self.identity.clone())
    }

    fn secret(&self) -> bool {
        true
    }

    fn fresh(&self) -> bool {
        false
    }

    fn sign<'a>(&'a self, call: &'a mut Call) -> Signing<'a> {
        Signing::Done(match &self.place {
            Place::Header { name, value } => {
                call.headers.insert(name, value.value());
                Ok(())
            }
            Place::Query { name, encoded, value } => {
                place::query(&mut call.target, name, encoded, value);
                Ok(())
            }
            Place::Cookie { name, pair } => place::cookie(&mut call.headers, name, pair),
            Place::Path(segment) => segment.put(&mut call.target),
            Place::Body(insert) => return Signing::Later(Box::pin(insert.put(call))),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::auth::support::{auth, auth_at, call, complaints, complaints_at, signed};
    use crate::call::Call;

    fn key(to: &str, name: &str, value: &str) -> Value {
        json!({ "api_key": { "in": to, "name": name, "value": format!("${{secret:{value}}}") } })
    }

    fn put(scheme: Value, call: Call) -> Call {
        signed(&auth(scheme), call).unwrap()
    }

    fn path(base: &str, scheme: Value, target: &str) -> String {
        signed(&auth_at(scheme, base), call(target)).unwrap().target.as_str().to_owned()
    }

    #[test]
    fn a_header_is_set_and_the_clients_are_gone() {
        let mut call = call("/a");
        call.headers.append("x-api-key", "theirs".parse().unwrap());
        call.headers.append("x-api-key", "more".parse().unwrap());
        let call = put(key("header", "X-Api-Key", "k"), call);
        assert_eq!(call.headers.get_all("x-api-key").iter().collect::<Vec<_>>(), ["k"]);
        assert!(call.headers["x-api-key"].is_sensitive());
    }

    #[test]
    fn a_vendors_own_form_of_authorization_is_just_a_value() {
        let call = put(key("header", "Authorization", "Token token=abc, x=\"y\""), call("/a"));
        assert_eq!(call.headers["authorization"], "Token token=abc, x=\"y\"");
    }

    #[test]
    fn headers_that_frame_the_message_or_name_the_host_are_refused() {
        for name in [
            "Host",
            "content-length",
            "Transfer-Encoding",
            "Connection",
            "TE",
            "Trailer",
            "Upgrade",
            "Keep-Alive",
            "Proxy-Authorization",
            "Proxy-Connection",
            "Expect",
            "Via",
            "Cookie",
            "Content-Type",
            "HTTP2-Settings",
        ] {
            assert_eq!(complaints(key("header", name, "k")).len(), 1, "{name}");
        }
    }

    #[test]
    fn an_illegal_header_name_or_value_is_refused() {
        for name in ["X Key", "X:Key", "Schlüssel", "X-Key\r\n"] {
            assert_eq!(complaints(key("header", name, "k")).len(), 1, "{name}");
        }
        let found = complaints(key("header", "X-Key", "hunter2\r\nHost: evil"));
        assert!(found[0].contains("line break") && !found[0].contains("hunter2"), "{found:?}");
    }

    #[test]
    fn a_parameter_is_appended_and_encoded() {
        assert_eq!(put(key("query", "key", "k"), call("/a")).target.as_str(), "/a?key=k");
        assert_eq!(put(key("query", "key", "k"), call("/a?")).target.as_str(), "/a?key=k");
        assert_eq!(put(key("query", "a&b", "x=1&y #+ü"), call("/a?q=%7e+")).target.as_str(), "/a?q=%7e+&a%26b=x%3D1%26y%20%23%2B%C3%BC");
    }

    #[test]
    fn a_parameter_that_is_there_already_goes_in_any_spelling() {
        let call = put(key("query", "api key", "k"), call("/a?api+key=x&q=1&%61pi%20key&api%20key=y&r"));
        assert_eq!(call.target.as_str(), "/a?q=1&r&api%20key=k");
        let call = put(key("query", "key", "k"), super::super::support::call("/a?key=x"));
        assert_eq!(call.target.as_str(), "/a?key=k");
    }

    #[test]
    fn a_cookie_joins_the_others_in_one_field_and_wins_by_name() {
        assert_eq!(put(key("cookie", "sid", "k"), call("/a")).headers["cookie"], "sid=k");
        let mut call = call("/a");
        call.headers.append("cookie", "theme=plain; sid=theirs;  sid = x; SID=other".parse().unwrap());
        call.headers.append("cookie", "sid=more; ; flag".parse().unwrap());
        let call = put(key("cookie", "sid", "k"), call);
        assert_eq!(call.headers.get_all("cookie").iter().collect::<Vec<_>>(), ["theme=plain; SID=other; flag; sid=k"]);
        assert!(call.headers["cookie"].is_sensitive());
    }

    #[test]
    fn a_cookie_carries_only_what_a_cookie_can() {
        for value in ["a b", "a;b", "a,b", "a\"b", "a\\b", "ä", "a\nb", "\""] {
            assert_eq!(complaints(key("cookie", "sid", value)).len(), 1, "{value:?}");
        }
        assert_eq!(complaints(key("cookie", "sid", "\"a/b==\"")), Vec::<String>::new());
        assert_eq!(complaints(key("cookie", "s=d", "k")).len(), 1);
    }

    #[test]
    fn a_placeholder_of_the_base_path_is_replaced_glued_or_alone() {
        assert_eq!(path("/bot{key}", key("path", "key", "1:A/b"), "/bot{key}/send?x={key}"), "/bot1:A%2Fb/send?x={key}");
        assert_eq!(path("/v1/{key}/x", key("path", "key", "k"), "/v1/{key}/x/y"), "/v1/k/x/y");
        assert_eq!(path("/bot%7Bkey%7D", key("path", "key", "k"), "/bot%7Bkey%7D/send"), "/botk/send");
    }

    #[test]
    fn a_client_cannot_move_the_secret_that_base_url_places() {
        assert_eq!(path("/bot{key}", key("path", "key", "k"), "/bot{key}/bio/{key}?q={key}"), "/botk/bio/{key}?q={key}");
    }

    #[test]
    fn without_a_placeholder_in_base_url_the_clients_first_one_counts_and_never_one_in_the_query() {
        assert_eq!(path("/v1", key("path", "key", "k"), "/v1/bot{key}/{key}?{key}"), "/v1/botk/{key}?{key}");
        assert_eq!(path("/v1", key("path", "key", "k"), "/v1/bot%7bkey%7d/a"), "/v1/botk/a");
        assert_eq!(path("/v1", key("path", "key", "k"), "/v1/a?x={key}"), "/v1/k/a?x={key}");
    }

    #[test]
    fn without_any_placeholder_it_is_a_segment_in_front_of_the_rest() {
        let unnamed = json!({ "api_key": { "in": "path", "value": "${secret:k/1}" } });
        for (base, target, expected) in [
            ("", "/a", "/k%2F1/a"),
            ("/", "/a?b", "/k%2F1/a?b"),
            ("/v1", "/v1/a", "/v1/k%2F1/a"),
            ("/v1/", "/v1/a", "/v1/k%2F1/a"),
            ("/v1", "/v1", "/v1/k%2F1"),
            ("/v1", "/v1//a", "/v1/k%2F1//a"),
        ] {
            assert_eq!(path(base, unnamed.clone(), target), expected, "{base} {target}");
        }
    }

    #[test]
    fn a_target_without_its_base_path_is_never_sent() {
        assert!(signed(&auth_at(key("path", "key", "k"), "/v1"), call("/v2/{key}")).is_err());
        assert!(signed(&auth_at(key("path", "key", "k"), "/v1"), call("/v11/{key}")).is_err());
        assert!(signed(&auth_at(key("path", "key", "k"), "/v1/{key}"), call("/a/{key}")).is_err());
        assert!(signed(&auth_at(key("path", "key", "k"), "/v1/{key}"), call("/v1/x")).is_err());
    }

    #[test]
    fn a_path_value_that_would_climb_or_a_name_that_is_no_placeholder_is_refused() {
        for value in [".", "..", "a\nb"] {
            assert_eq!(complaints(key("path", "key", value)).len(), 1, "{value:?}");
        }
        assert_eq!(complaints(key("path", "{key}", "k")).len(), 1);
        assert!(complaints_at(key("path", "key", "k"), "/{key}/{key}")[0].contains("twice"));
    }

    #[test]
    fn two_placeholders_of_the_base_path_take_two_secrets() {
        let both = json!([key("path", "b", "2"), key("path", "a", "{b}")]);
        assert_eq!(path("/o/{a}/bot{b}", both, "/o/{a}/bot{b}/x"), "/o/%7Bb%7D/bot2/x");
        let both = json!([key("path", "a", "1"), key("path", "b", "2")]);
        assert_eq!(path("/o/%7Ba%7D/bot%7Bb%7D", both.clone(), "/o/%7Ba%7D/bot%7Bb%7D/x"), "/o/1/bot2/x");
        assert_eq!(complaints_at(both, "/{a}").len(), 1);
    }

    #[test]
    fn everything_that_is_missing_or_empty_is_reported_at_once() {
        assert_eq!(complaints(json!({ "api_key": {} })).len(), 3);
        assert_eq!(complaints(json!({ "api_key": { "in": "heder", "name": "", "value": "" } })).len(), 3);
        assert!(
            complaints(json!({ "api_key": { "in": "heder", "name": "X", "value": "${secret:k}" } }))[0].contains("did you mean `header`")
        );
        assert_eq!(complaints(json!({ "api_key": "hunter2" })).len(), 1);
        assert!(!complaints(json!({ "api_key": "hunter2" }))[0].contains("hunter2"));
    }

    #[test]
    fn a_literal_value_is_refused() {
        assert!(complaints(json!({ "api_key": { "in": "query", "name": "k", "value": "abc" } }))[0].contains("must be a reference"));
    }
}
