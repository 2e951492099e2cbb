//! Reads what stands under `auth`: the registry of schemes, words and lists, and who may stand beside whom.
//!
//! What a scheme's own fields mean is the scheme's affair.

use std::sync::Arc;

use crate::auth::fingerprint::Fingerprint;
use crate::auth::{
    Auth, Context, Owned, Reading, Scheme, api_key, aws_sigv4, basic, bearer, digest, flow, google, hmac, http_signature, jwt, mtls, none,
    oauth, oauth1, passthrough, session,
};
use crate::tree::{Entry, Fields, Node, Place, Problems, Value, closest};

/// How many schemes one `auth` may list.
const MOST_SCHEMES: usize = 16;

type Build = fn(&Node, Reading<'_>) -> Option<Box<dyn Scheme>>;

/// A scheme of this build: its key, how to write it, and what reads it.
struct Kind {
    name: &'static str,
    example: &'static str,
    /// Whether its name alone says everything (ruling C10).
    bare: bool,
    build: Build,
}

const KINDS: [Kind; 23] = [
    Kind { name: "none", example: "none", bare: true, build: none::read },
    Kind { name: "passthrough", example: "passthrough", bare: true, build: passthrough::read },
    Kind {
        name: "basic",
        example: r#"{ basic: { username: "${env:USER}", password: "${env:PASSWORD}" } }"#,
        bare: false,
        build: basic::read,
    },
    Kind { name: "bearer", example: r#"{ bearer: "${env:TOKEN}" }"#, bare: false, build: bearer::read },
    Kind {
        name: "api_key",
        example: r#"{ api_key: { in: header, name: X-Api-Key, value: "${env:KEY}" } }"#,
        bare: false,
        build: api_key::read,
    },
    Kind { name: "digest", example: r#"{ digest: { username: user, password: "${env:PASSWORD}" } }"#, bare: false, build: digest::read },
    Kind {
        name: "aws_sigv4",
        example: r#"{ aws_sigv4: { service: s3, region: eu-west-1, access_key_id: "${env:ID}", secret_access_key: "${env:KEY}" } }"#,
        bare: false,
        build: aws_sigv4::read,
    },
    Kind {
        name: "oauth1",
        example: r#"{ oauth1: { consumer_key: key, consumer_secret: "${env:SECRET}" } }"#,
        bare: false,
        build: oauth1::read,
    },
    Kind {
        name: "jwt",
        example: r#"{ jwt: { private_key: "${file:key.pem}", claims: { iss: me, exp: "{{ now | plus('5m') }}" } } }"#,
        bare: false,
        build: jwt::read,
    },
    Kind {
        name: "hmac",
        example: r#"{ hmac: { key: "${env:KEY}", message: "{{ request.target }}", place: { header: X-Signature } } }"#,
        bare: false,
        build: hmac::read,
    },
    Kind {
        name: "http_signature",
        example: r#"{ http_signature: { key_id: k1, private_key: "${file:key.pem}", components: ["@method", "@target-uri"] } }"#,
        bare: false,
        build: http_signature::read,
    },
    Kind {
        name: "oauth2_client_credentials",
        example: r#"{ oauth2_client_credentials: { token_url: https://issuer.example/token, client_id: id, client_secret: "${env:SECRET}" } }"#,
        bare: false,
        build: |node, reading| oauth::read(node, reading, oauth::Kind::ClientCredentials),
    },
    Kind {
        name: "oauth2_password",
        example: r#"{ oauth2_password: { token_url: https://issuer.example/token, client_id: id, username: user, password: "${env:PASSWORD}" } }"#,
        bare: false,
        build: |node, reading| oauth::read(node, reading, oauth::Kind::Password),
    },
    Kind {
        name: "oauth2_jwt_bearer",
        example: r#"{ oauth2_jwt_bearer: { token_url: https://issuer.example/token, issuer: me, private_key: "${file:key.pem}" } }"#,
        bare: false,
        build: |node, reading| oauth::read(node, reading, oauth::Kind::JwtBearer),
    },
    Kind {
        name: "oauth2_saml_bearer",
        example: r#"{ oauth2_saml_bearer: { token_url: https://issuer.example/token, issuer: me, subject: user, audience: them, private_key: "${file:key.pem}" } }"#,
        bare: false,
        build: |node, reading| oauth::read(node, reading, oauth::Kind::SamlBearer),
    },
    Kind {
        name: "oauth2_token_exchange",
        example: r#"{ oauth2_token_exchange: { token_url: https://issuer.example/token, subject: "${file:token}" } }"#,
        bare: false,
        build: |node, reading| oauth::read(node, reading, oauth::Kind::TokenExchange),
    },
    Kind {
        name: "oauth2_authorization_code",
        example: r#"{ oauth2_authorization_code: { token_url: https://issuer.example/token, client_id: id, refresh_token: "${env:TOKEN}" } }"#,
        bare: false,
        build: |node, reading| oauth::read(node, reading, oauth::Kind::AuthorizationCode),
    },
    Kind {
        name: "oauth2_device",
        example: r#"{ oauth2_device: { device_url: https://issuer.example/device, token_url: https://issuer.example/token, client_id: id } }"#,
        bare: false,
        build: oauth::device,
    },
    Kind {
        name: "auth0",
        example: r#"{ auth0: { domain: tenant.eu.auth0.com, client_id: id, client_secret: "${env:SECRET}", audience: https://api.example } }"#,
        bare: false,
        build: |node, reading| oauth::read(node, reading, oauth::Kind::Auth0),
    },
    Kind {
        name: "session",
        example: r#"{ session: { login: { path: /login, form: { username: me, password: "${env:PASSWORD}" } } } }"#,
        bare: false,
        build: session::read,
    },
    Kind {
        name: "flow",
        example: r#"{ flow: { steps: [ { name: login, method: POST, url: "{{ base }}/login", json: { … }, capture: { token: json.token } } ], apply: { headers: { Authorization: "Bearer {{ captured.token }}" } } } }"#,
        bare: false,
        build: flow::read,
    },
    Kind {
        name: "google_service_account",
        example: r#"{ google_service_account: { key: "${file:sa.json}", scopes: ["https://www.googleapis.com/auth/cloud-platform"] } }"#,
        bare: false,
        build: google::read,
    },
    Kind { name: "mtls", example: r#"{ mtls: { cert: client.pem, key: "${file:client.key}" } }"#, bare: false, build: mtls::read },
];

/// All schemes, and whether this build has them.
pub fn schemes() -> impl Iterator<Item = (&'static str, bool)> {
    KINDS.iter().map(|k| (k.name, true))
}

/// Reads what stands under `auth`: a word, one scheme, or a list of several. `None` once something is wrong; the
/// problems say what.
pub fn read(node: &Node, context: &Context<'_>, problems: &Problems) -> Option<Auth> {
    let Some(fingerprint) = Fingerprint::keyed() else {
        problems.error(node.place, "the system gives no random bytes, and fingerprints of credentials need some", "");
        return None;
    };
    let reading = Reading { context, problems, fingerprint };
    let Value::List(members) = &node.value else {
        return one(node, reading).map(|scheme| Auth(Arc::new([scheme])));
    };
    let schemes = several(node.place, members, reading)?;
    Some(Auth(schemes.into()))
}

fn several(place: Place, members: &[Node], reading: Reading<'_>) -> Option<Vec<Box<dyn Scheme>>> {
    if members.is_empty() {
        reading.problems.error(place, "an empty list presents nothing", "write `auth: none`");
        return None;
    }
    if members.len() > MOST_SCHEMES {
        reading.problems.error(place, format!("more than {MOST_SCHEMES} schemes in one list"), "");
        return None;
    }
    // All members are read before any failure counts, so that every problem is reported.
    let read: Vec<Option<Box<dyn Scheme>>> = members.iter().map(|node| member(node, reading)).collect();
    let mut claims: Vec<Owned> = Vec::new();
    let mut clashes = false;
    for (node, scheme) in members.iter().zip(&read) {
        let Some(scheme) = scheme else { continue };
        let owned = scheme.owns();
        if let Some(what) = claims.iter().find_map(|earlier| owned.clash(earlier)) {
            let hint = "one request has room for one of them: remove the other, or select by route";
            reading.problems.error(node.place, format!("two members of this list set {what}"), hint);
            clashes = true;
        }
        claims.push(owned);
    }
    let schemes: Option<Vec<_>> = read.into_iter().collect();
    schemes.filter(|_| !clashes).map(|mut schemes| {
        // The sort is stable: what is written first still goes first among equals.
        schemes.sort_by_key(|scheme| scheme.seals());
        schemes
    })
}

fn member(node: &Node, reading: Reading<'_>) -> Option<Box<dyn Scheme>> {
    let says_none = node.word() == Some("none") || node.get("none").is_some();
    if says_none {
        reading.problems.error(node.place, "`none` in a list contradicts the others", "remove it, or write `auth: none` alone");
        return None;
    }
    one(node, reading)
}

/// Reads one scheme.
pub(super) fn one(node: &Node, reading: Reading<'_>) -> Option<Box<dyn Scheme>> {
    let problems = reading.problems;
    match &node.value {
        Value::Map(entries) => {
            let entry = key(node.place, entries, problems)?;
            let kind = known(&entry.key, entry.place, problems)?;
            (kind.build)(&entry.node, reading)
        }
        Value::Null => {
            problems.error(node.place, "no scheme is written here", "write `none`, or a scheme: { bearer: \"${env:TOKEN}\" }");
            None
        }
        Value::List(_) => {
            problems.error(node.place, "a list inside a list", "write the schemes in one list");
            None
        }
        Value::Unresolved(u) => {
            problems.error(node.place, u.message.clone(), u.hint.clone());
            None
        }
        _ => word(node, reading),
    }
}

fn word(node: &Node, reading: Reading<'_>) -> Option<Box<dyn Scheme>> {
    if node.is_off() {
        reading.problems.error(node.place, "`auth` is not a switch", "write `auth: none`");
        return None;
    }
    // What stands here may be a token put in the wrong place: it is shown only if it looks like the name of a scheme.
    let Some(word) = node.word().filter(|w| name_like(w)) else {
        reading.problems.error(node.place, "expected a scheme", "write which one: { bearer: \"${env:TOKEN}\" }");
        return None;
    };
    let kind = known(word, node.place, reading.problems)?;
    if !kind.bare {
        reading.problems.error(node.place, format!("`{word}` needs fields"), format!("write {}", kind.example));
        return None;
    }
    (kind.build)(&Node { place: node.place, value: Value::Null }, reading)
}

fn name_like(word: &str) -> bool {
    word.len() <= 26 && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-".contains(&b))
}

/// The one scheme key of a map.
fn key<'n>(place: Place, entries: &'n [Entry], problems: &Problems) -> Option<&'n Entry> {
    match entries {
        [only] => Some(only),
        [] => {
            problems.error(place, "no scheme is written here", "write `auth: none`, or a scheme: { bearer: \"${env:TOKEN}\" }");
            None
        }
        [first, ..] => {
            let schemes: Vec<&Entry> = entries.iter().filter(|e| is_scheme(&e.key)).collect();
            if let [one, other, ..] = schemes[..] {
                let hint = format!("if both are to apply, write a list: [{{ {}: … }}, {{ {}: … }}]", one.key, other.key);
                problems.error(other.place, format!("two schemes under one `auth`: `{}` and `{}`", one.key, other.key), hint);
            } else if let [one] = schemes[..] {
                for stray in entries.iter().filter(|e| e.key != one.key) {
                    let hint = format!("the fields of a scheme stand under it: {{ {}: {{ {}: … }} }}", one.key, stray.key);
                    problems.error(stray.place, format!("unknown key `{}` beside the scheme `{}`", stray.key, one.key), hint);
                }
            } else {
                let _ = known(&first.key, first.place, problems);
            }
            None
        }
    }
}

fn is_scheme(name: &str) -> bool {
    KINDS.iter().any(|k| k.name == name)
}

fn known(name: &str, place: Place, problems: &Problems) -> Option<&'static Kind> {
    let kind = KINDS.iter().find(|k| k.name == name);
    if kind.is_some() {
        return kind;
    }
    problems.error(place, format!("unknown scheme `{name}`"), near(name));
    None
}

/// What an unknown scheme was perhaps meant to be.
fn near(name: &str) -> String {
    match name {
        "type" | "scheme" | "kind" => "the scheme itself is the key: { bearer: { token: … } }".into(),
        "token" => "a token stands under its scheme: { bearer: { token: … } }".into(),
        "username" | "password" => "these stand under their scheme: { basic: { username: …, password: … } }".into(),
        _ => {
            let all: Vec<&str> = KINDS.iter().map(|k| k.name).collect();
            closest(name, &all)
        }
    }
}

/// Reads the map of a scheme. Unlike [`Fields::of`] it never shows what it found instead: that may be a secret which
/// somebody wrote into the file.
pub(super) fn fields<'n>(node: &'n Node, expected: &str, problems: &'n Problems) -> Option<Fields<'n>> {
    if let Value::Map(_) | Value::Unresolved(_) = node.value {
        return Fields::of(node, expected, problems);
    }
    problems.error(node.place, format!("expected {expected}, found {}", node.kind()), "");
    None
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::auth::support::{auth, call, complaints, signed};

    fn header(name: &str) -> Value {
        json!({ "api_key": { "in": "header", "name": name, "value": "${secret:hunter2hunter2}" } })
    }

    #[test]
    fn none_sends_nothing_and_has_no_identity() {
        for written in [json!("none"), json!({ "none": {} }), json!({ "none": null })] {
            let auth = auth(written);
            let call = signed(&auth, call("/a?b")).unwrap();
            assert!(call.headers.is_empty() && call.target.as_str() == "/a?b");
            assert_eq!(auth.identity(&call), None);
            assert!(!auth.needs_tls() && !auth.owns().passes_authorization);
        }
    }

    #[test]
    fn passthrough_is_a_word_or_an_empty_map() {
        for written in [json!("passthrough"), json!({ "passthrough": {} }), json!({ "passthrough": null })] {
            assert!(auth(written).owns().passes_authorization);
        }
        assert!(complaints(json!({ "passthrough": { "headers": [] } }))[0].contains("unknown key `headers`"));
        assert_eq!(complaints(json!({ "none": "x" })).len(), 1);
    }

    #[test]
    fn every_member_of_a_list_applies() {
        let all =
            json!([{ "bearer": "${secret:t}" }, header("X-Key"), { "api_key": { "in": "query", "name": "k", "value": "${secret:q}" } }]);
        let auth = auth(all);
        let call = signed(&auth, call("/a")).unwrap();
        assert_eq!(
            (call.headers["authorization"].as_bytes(), call.headers["x-key"].as_bytes()),
            (&b"Bearer t"[..], &b"hunter2hunter2"[..])
        );
        assert_eq!(call.target.as_str(), "/a?k=q");
        let owned = auth.owns();
        assert_eq!((owned.headers.len(), owned.params), (2, vec!["k".to_owned()]));
        assert_eq!(auth.identity(&call).unwrap().len(), 3 * 16 + 2);
    }

    #[test]
    fn two_members_that_set_the_same_thing_are_refused() {
        let bearer = json!({ "bearer": "${secret:t}" });
        let at = |to: &str, name: &str| json!({ "api_key": { "in": to, "name": name, "value": "${secret:k}" } });
        for (one, other) in [
            (bearer.clone(), json!({ "basic": { "username": "u", "password": "${secret:p}" } })),
            (bearer.clone(), header("AUTHORIZATION")),
            (json!("passthrough"), bearer.clone()),
            (json!("passthrough"), json!("passthrough")),
            (header("X-Key"), header("x_key")),
            (at("query", "k"), at("query", "k")),
            (at("cookie", "k"), at("cookie", "k")),
            (at("body", "k"), at("body", "k")),
            (at("path", "k"), at("path", "j")),
        ] {
            let found = complaints(json!([one, other]));
            assert!(found.len() == 1 && found[0].contains("two members of this list set"), "{found:?}");
        }
        for name in ["query", "cookie", "body", "path"] {
            assert_eq!(complaints(json!([bearer, at("header", "k"), at(name, "k")])), Vec::<String>::new());
        }
    }

    #[test]
    fn two_schemes_under_one_auth_are_refused_and_both_are_named() {
        let found = complaints(json!({ "bearer": "${secret:t}", "basic": {} }));
        assert_eq!(found.len(), 1);
        for part in ["`bearer`", "`basic`", "[{ bearer: … }, { basic: … }]"] {
            assert!(found[0].contains(part), "{found:?}");
        }
        assert!(complaints(json!({ "bearer": "${secret:t}", "mtls": {} }))[0].contains("two schemes"));
    }

    #[test]
    fn a_field_beside_its_scheme_is_told_where_it_belongs() {
        let found = complaints(json!({ "bearer": null, "token": "${secret:t}" }));
        assert!(found[0].contains("unknown key `token`") && found[0].contains("{ bearer: { token: … } }"), "{found:?}");
        assert!(complaints(json!({ "type": "bearer", "token": "x" }))[0].contains("the scheme itself is the key"));
        assert!(complaints(json!({ "token": "${secret:t}" }))[0].contains("{ bearer: { token: … } }"));
    }

    #[test]
    fn a_misspelt_scheme_is_met_with_the_right_one() {
        assert!(complaints(json!({ "bearr": "${secret:t}" }))[0].contains("did you mean `bearer`"));
        assert!(complaints(json!("non"))[0].contains("did you mean `none`"));
        assert!(complaints(json!({ "apikey": {} }))[0].contains("did you mean `api_key`"));
    }

    #[test]
    fn a_word_that_needs_fields_shows_how_to_write_them() {
        assert!(complaints(json!("bearer"))[0].contains("${env:TOKEN}"));
        assert!(complaints(json!("basic"))[0].contains("username"));
    }

    #[test]
    fn nothing_an_empty_list_and_nested_lists_are_refused() {
        for wrong in
            [json!(null), json!([]), json!({}), json!([[]]), json!([null]), json!(false), json!(5), json!("${unset}"), json!("${secret:x}")]
        {
            assert_eq!(complaints(wrong.clone()).len(), 1, "{wrong}");
        }
        assert!(complaints(json!([{ "bearer": "${secret:t}" }, "none"]))[0].contains("`none` in a list"));
        assert_eq!(complaints(json!(["none"])).len(), 1);
    }

    #[test]
    fn a_list_is_bounded() {
        let many = |n: usize| Value::Array((0..n).map(|i| header(&format!("X-{i}"))).collect());
        assert_eq!(complaints(many(MOST_SCHEMES)), Vec::<String>::new());
        assert_eq!(complaints(many(MOST_SCHEMES + 1)).len(), 1);
    }

    #[test]
    fn every_member_of_a_list_reports_its_own_problems() {
        assert_eq!(complaints(json!([{ "bearer": "" }, { "basic": 1 }, { "session": {} }])).len(), 3);
    }

    #[test]
    fn a_token_where_a_scheme_belongs_is_not_shown() {
        let found = complaints(json!("ghp_aBcDeF0123456789aBcDeF0123456789"));
        assert!(!found[0].contains("ghp_"), "{found:?}");
    }

    #[test]
    fn no_scheme_prints_its_secret() {
        let secret = "${secret:hunter2}";
        let schemes = json!([
            { "bearer": secret }, header("X-Key"),
            { "api_key": { "in": "query", "name": "k", "value": secret } },
            { "api_key": { "in": "cookie", "name": "k", "value": secret } },
            { "api_key": { "in": "path", "name": "k", "value": secret } },
            { "api_key": { "in": "body", "name": "k", "value": secret } },
        ]);
        for printed in [format!("{:?}", auth(schemes)), format!("{:?}", auth(json!({ "basic": { "username": secret } })))] {
            assert!(printed.contains("[redacted]"));
            assert!(!printed.contains("hunter2") && !printed.contains("aHVudGVyMj"), "{printed}");
        }
    }

    #[test]
    fn an_identity_names_the_credential_and_not_the_request() {
        let bearer = |secret: &str| auth(json!({ "bearer": format!("${{secret:{secret}}}") }));
        let identity = |auth: Auth, target: &str| auth.identity(&call(target)).unwrap();
        assert_eq!(identity(bearer("a"), "/1"), identity(bearer("a"), "/2"));
        assert_ne!(identity(bearer("a"), "/1"), identity(bearer("b"), "/1"));
        assert_ne!(identity(bearer("a"), "/1"), identity(auth(json!({ "basic": { "username": "${secret:a}" } })), "/1"));
    }
}
