//! `bearer`: a token in `Authorization` behind a scheme word, any word or none (RFC 6750 section 2.1).

use std::sync::Arc;

use http::header::AUTHORIZATION;
use zeroize::Zeroizing;

use crate::auth::field::Field;
use crate::auth::read::fields;
use crate::auth::{Owned, Reading, Scheme, Signing};
use crate::call::Call;
use crate::secret::Secret;
use crate::tree::{Node, Place, Problems, Value};

/// A token that does not change.
#[derive(Debug)]
pub struct Bearer {
    value: Field,
    identity: Arc<str>,
}

/// Reads `{ token, scheme }`, or the token alone (ruling G10).
pub(super) fn read(node: &Node, reading: Reading<'_>) -> Option<Box<dyn Scheme>> {
    let problems = reading.problems;
    let (place, token, word) = match &node.value {
        Value::Map(_) => {
            let fields = fields(node, "a token", problems)?;
            let token = fields.need("token").and_then(|n| Some((n.place, n.secret(problems)?)));
            let word = fields.node("scheme").map_or_else(|| Some("Bearer".to_owned()), |n| scheme(n, problems));
            fields.finish();
            let (place, token) = token?;
            (place, token, word?)
        }
        Value::Null | Value::List(_) => {
            problems.error(node.place, format!("expected a token, found {}", node.kind()), "write { bearer: \"${env:TOKEN}\" }");
            return None;
        }
        _ => (node.place, node.secret(problems)?, "Bearer".to_owned()),
    };
    let value = judged(place, &word, &token, problems)?;
    let identity = reading.fingerprint.of([b"bearer", word.as_bytes(), token.expose().as_bytes()]);
    Some(Box::new(Bearer { value, identity }))
}

/// The scheme word: a token (RFC 9110 section 5.6.2); empty or `none` leaves it out.
fn scheme(node: &Node, problems: &Problems) -> Option<String> {
    let word = node.text(problems)?;
    if word.is_empty() || word == "none" {
        return Some(String::new());
    }
    let legal = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if !word.bytes().all(legal) {
        let hint =
            "for anything freer, as `Token token=…`, use api_key: { in: header, name: Authorization, value: \"Token token=${env:T}\" }";
        problems.error(node.place, "`scheme` is one word, or \"\" for none", hint);
        return None;
    }
    Some(word)
}

fn judged(place: Place, word: &str, token: &Secret, problems: &Problems) -> Option<Field> {
    let token = token.expose();
    if token.is_empty() {
        problems.error(place, "the token is empty", "write `auth: none` if no credential is wanted");
        return None;
    }
    // The token is judged by itself: white space in front of it would hide behind the scheme word.
    if let Err(why) = Field::new(token) {
        problems.error(place, format!("the token cannot be sent in a header: {why}"), "check the file or variable that it comes from");
        return None;
    }
    if word.is_empty() {
        return Field::new(token).ok();
    }
    if token.get(..word.len()).is_some_and(|t| t.eq_ignore_ascii_case(word)) && token[word.len()..].starts_with(' ') {
        let hint = "take it out of the token, or set `scheme: \"\"`";
        problems.warn(place, format!("the token begins with `{word}` already, so the word is sent twice"), hint);
    }
    Field::new(&Zeroizing::new([word, " ", token].concat())).ok()
}

impl Scheme for Bearer {
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
        let call = signed(&auth(json!({ "bearer": scheme })), call("/a")).unwrap();
        assert!(call.headers["authorization"].is_sensitive());
        call.headers["authorization"].to_str().unwrap().to_owned()
    }

    #[test]
    fn a_token_alone_is_sent_as_bearer() {
        assert_eq!(sent(json!("${secret:t0k}")), "Bearer t0k");
        assert_eq!(sent(json!({ "token": "${secret:t0k}" })), "Bearer t0k");
    }

    #[test]
    fn the_scheme_word_is_sent_letter_by_letter() {
        assert_eq!(sent(json!({ "token": "${secret:t}", "scheme": "SSWS" })), "SSWS t");
        assert_eq!(sent(json!({ "token": "${secret:t}", "scheme": "bearer" })), "bearer t");
    }

    #[test]
    fn an_empty_scheme_word_or_none_sends_the_bare_token() {
        assert_eq!(sent(json!({ "token": "${secret:t}", "scheme": "" })), "t");
        assert_eq!(sent(json!({ "token": "${secret:t}", "scheme": "none" })), "t");
    }

    #[test]
    fn a_scheme_of_two_words_is_refused_with_the_way_to_write_it() {
        assert!(complaints(json!({ "bearer": { "token": "${secret:t}", "scheme": "Token token=" } }))[0].contains("one word"));
    }

    #[test]
    fn a_token_that_no_field_can_carry_is_refused_without_showing_it() {
        for wrong in ["${secret:hunter2\n}", "${secret: hunter2}", "${secret:hunter2\t}", "${secret:a\r\nhunter2: y}"] {
            let found = complaints(json!({ "bearer": wrong }));
            assert!(found[0].contains("cannot be sent") && !found[0].contains("hunter2"), "{found:?}");
        }
    }

    #[test]
    fn an_empty_token_is_never_sent() {
        assert!(complaints(json!({ "bearer": "" }))[0].contains("is empty"));
        assert!(complaints(json!({ "bearer": "${unset}" }))[0].contains("not set"));
    }

    #[test]
    fn a_token_that_brings_its_own_word_is_warned_about() {
        assert!(complaints(json!({ "bearer": "${secret:bearer abc}" }))[0].contains("sent twice"));
        assert_eq!(complaints(json!({ "bearer": "${secret:bearers}" })), Vec::<String>::new());
        assert_eq!(complaints(json!({ "bearer": "${secret:éééé}" })), Vec::<String>::new());
    }

    #[test]
    fn a_literal_token_is_refused() {
        assert!(complaints(json!({ "bearer": "abc" }))[0].contains("must be a reference"));
        assert!(complaints(json!({ "bearer": 12345 }))[0].contains("must be a reference"));
    }

    #[test]
    fn a_missing_token_and_a_misspelt_key_are_both_reported() {
        assert_eq!(complaints(json!({ "bearer": { "tokn": "${secret:t}" } })).len(), 2);
        assert_eq!(complaints(json!({ "bearer": null })).len(), 1);
        assert_eq!(complaints(json!({ "bearer": ["${secret:t}"] })).len(), 1);
    }
}
