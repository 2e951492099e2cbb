//! `basic`: user name and password in `Authorization`, as UTF-8 (RFC 7617). Either half may be empty; the colon stays.
//!
//! A value that somebody has encoded already belongs into `api_key` with `in: header`.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::AUTHORIZATION;
use zeroize::Zeroizing;

use crate::auth::field::Field;
use crate::auth::read::fields;
use crate::auth::{Owned, Reading, Scheme, Signing};
use crate::call::Call;
use crate::secret::Secret;
use crate::tree::{Node, Problems, Value};

/// HTTP Basic.
#[derive(Debug)]
pub struct Basic {
    value: Field,
    identity: Arc<str>,
}

/// Reads `{ username, password }`; the password defaults to empty (ruling G10).
pub(super) fn read(node: &Node, reading: Reading<'_>) -> Option<Box<dyn Scheme>> {
    let problems = reading.problems;
    let fields = fields(node, "a map with `username` and `password`", problems)?;
    let password = match fields.raw("password") {
        Some(node) => node.secret_or_empty(problems).filter(|p| clean(node, "password", p, problems)),
        None => Some(Secret::new(String::new())),
    };
    let username = match fields.raw("username") {
        // Where the password did not read, nobody can say whether the user name is the secret.
        Some(node) => username(node, password.as_ref().is_some_and(Secret::is_empty), problems),
        None => {
            problems.error(fields.place(), "`username` is missing", "add `username: …`; `\"\"` sends an empty one");
            None
        }
    };
    fields.finish();
    let (username, password) = (username?, password?);
    if username.is_empty() && password.is_empty() {
        problems.warn(node.place, "user name and password are both empty", "write `auth: none` if no credential is wanted");
    }
    let pair = Zeroizing::new([username.expose(), ":", password.expose()].concat());
    let encoded = Zeroizing::new(STANDARD.encode(pair.as_bytes()));
    let value = Field::new(&Zeroizing::new(["Basic ", encoded.as_str()].concat())).ok()?;
    let identity = reading.fingerprint.of([b"basic", username.expose().as_bytes(), password.expose().as_bytes()]);
    Some(Box::new(Basic { value, identity }))
}

/// The user name: a secret where the password is empty (ruling A23), and never with a colon, which would end it.
fn username(node: &Node, secret: bool, problems: &Problems) -> Option<Secret> {
    let username = match &node.value {
        Value::Secret(s) => s.clone(),
        _ if secret => node.secret_or_empty(problems)?,
        _ => Secret::new(node.text_or_unset(problems)?),
    };
    if username.expose().contains(':') {
        problems.error(node.place, "a user name cannot hold `:` (RFC 7617 section 2)", "what follows the first `:` is the password");
        return None;
    }
    clean(node, "username", &username, problems).then_some(username)
}

fn clean(node: &Node, key: &str, text: &Secret, problems: &Problems) -> bool {
    let clean = !text.expose().contains(char::is_control);
    if !clean {
        problems.error(node.place, format!("`{key}` holds a line break or another control character (RFC 7617 section 2)"), "");
    }
    clean
}

impl Scheme for Basic {
    fn owns(&self) -> Owned {
        Owned { headers: vec![AUTHORIZATION], ..Owned::default() }
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
        call.headers.insert(AUTHORIZATION, self.value.value());
        Signing::Done(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::auth::support::{auth, call, complaints, signed};

    fn sent(scheme: Value) -> String {
        let call = signed(&auth(json!({ "basic": scheme })), call("/a")).unwrap();
        call.headers["authorization"].to_str().unwrap().to_owned()
    }

    // RFC 7617 section 2.
    #[test]
    fn aladdin_opens_the_cave() {
        let aladdin = json!({ "username": "Aladdin", "password": "${secret:open sesame}" });
        assert_eq!(sent(aladdin), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
    }

    // RFC 7617 section 2.1.
    #[test]
    fn user_name_and_password_are_utf_8() {
        assert_eq!(sent(json!({ "username": "test", "password": "${secret:123£}" })), "Basic dGVzdDoxMjPCow==");
    }

    #[test]
    fn an_empty_half_keeps_the_colon() {
        assert_eq!(sent(json!({ "username": "${secret:key}" })), "Basic a2V5Og==");
        assert_eq!(sent(json!({ "username": "${secret:key}", "password": "${unset}" })), "Basic a2V5Og==");
        assert_eq!(sent(json!({ "username": "", "password": "${secret:key}" })), "Basic OmtleQ==");
        assert_eq!(sent(json!({ "username": "${unset}", "password": "${secret:key}" })), "Basic OmtleQ==");
    }

    #[test]
    fn a_password_may_hold_colons() {
        assert_eq!(sent(json!({ "username": "u", "password": "${secret:a:b}" })), "Basic dTphOmI=");
    }

    #[test]
    fn a_plain_user_name_is_a_secret_only_without_a_password() {
        assert_eq!(complaints(json!({ "basic": { "username": "u", "password": "${secret:p}" } })), Vec::<String>::new());
        assert!(complaints(json!({ "basic": { "username": "sk_live_1" } }))[0].contains("must be a reference"));
    }

    #[test]
    fn two_empty_halves_are_warned_about() {
        assert!(complaints(json!({ "basic": { "username": "", "password": "" } }))[0].contains("both empty"));
    }

    #[test]
    fn a_colon_in_the_user_name_is_refused() {
        assert!(complaints(json!({ "basic": { "username": "a:b", "password": "${secret:p}" } }))[0].contains("cannot hold `:`"));
    }

    #[test]
    fn control_characters_are_refused_in_both_halves_at_once() {
        let found = complaints(json!({ "basic": { "username": "a\nb", "password": "${secret:p\u{7f}}" } }));
        assert_eq!(found.len(), 2, "{found:?}");
    }

    #[test]
    fn a_missing_user_name_and_an_unknown_key_are_both_reported() {
        let found = complaints(json!({ "basic": { "user": "u", "password": "${secret:p}" } }));
        assert_eq!(found.len(), 2, "{found:?}");
    }

    #[test]
    fn a_scalar_is_refused_without_showing_it() {
        let found = complaints(json!({ "basic": "user:hunter2" }));
        assert!(found[0].contains("expected a map") && !found[0].contains("hunter2"), "{found:?}");
    }

    #[test]
    fn a_literal_password_is_refused() {
        assert!(complaints(json!({ "basic": { "username": "u", "password": "p" } }))[0].contains("must be a reference"));
    }

    #[test]
    fn the_clients_authorization_is_replaced() {
        let mut call = call("/a");
        call.headers.append("authorization", "Bearer theirs".parse().unwrap());
        call.headers.append("authorization", "Bearer other".parse().unwrap());
        let call = signed(&auth(json!({ "basic": { "username": "u", "password": "${secret:p}" } })), call).unwrap();
        assert_eq!(call.headers.get_all("authorization").iter().count(), 1);
    }
}
