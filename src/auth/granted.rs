//! What the schemes of one call have acquired, as expressions see it: `token` and `captured`.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::auth::token::{Minted, Token};
use crate::call::Granted;
use crate::expr::{Inputs, Map, Moment, Name, Value};
use crate::secret::Secret;

/// What a scheme gives to the expressions of its resource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gives {
    /// The names under `captured`.
    pub captures: Vec<String>,
}

/// Tokens, each under the number of its scheme.
#[derive(Debug)]
struct Tokens(Vec<Arc<Token>>);

/// What a call has been granted.
pub(super) fn granted(tokens: Vec<(usize, Arc<Token>)>) -> Granted {
    let stands_in = tokens.iter().any(|(_, token)| !token.is_real());
    let inputs = Tokens(tokens.iter().map(|(_, token)| token.clone()).collect());
    let tickets = tokens.into_iter().map(|(index, token)| (index, token as crate::call::Ticket)).collect();
    Granted::new(Box::new(inputs), tickets, stands_in)
}

impl Inputs for Tokens {
    fn input(&self, name: Name) -> Result<Option<Value>, &'static str> {
        if name == Name::Captured {
            let all = self.0.iter().filter_map(|token| match token.minted.captured.value() {
                Value::Map(map) => Some(map),
                _ => None,
            });
            return Ok(Some(Value::Map(all.fold(Arc::default(), |one, other| Arc::new(Map::overlaid(&one, &other))))));
        }
        Ok(self.0.first().and_then(|token| part(&token.minted, name)))
    }
}

/// A part of `token`.
pub fn part(minted: &Minted, name: Name) -> Option<Value> {
    let secret = |secret: &Option<Secret>| secret.clone().map(Value::Secret);
    match name {
        Name::TokenAccess => secret(&minted.access),
        Name::TokenRefresh => secret(&minted.refresh),
        Name::TokenId => secret(&minted.id),
        Name::TokenExpiresAt => minted.expires.and_then(|at| Moment::from_millis(at.into())).map(Value::Moment),
        // An access token that is none is opaque to everybody but its issuer; then the ID token has claims.
        Name::TokenClaims => minted.access.as_ref().and_then(claims).or_else(|| minted.id.as_ref().and_then(claims)),
        _ => None,
    }
}

/// The claims of a JWT, which nobody has verified: it came from its issuer over TLS.
fn claims(token: &Secret) -> Option<Value> {
    let mut parts = token.expose().split('.');
    let (_, claims, _, None) = (parts.next()?, parts.next()?, parts.next()?, parts.next()) else { return None };
    let bytes = zeroize::Zeroizing::new(URL_SAFE_NO_PAD.decode(claims.trim_end_matches('=')).ok()?);
    let claims = Value::from_json(std::str::from_utf8(&bytes).ok()?).ok()?;
    matches!(claims, Value::Map(_)).then(|| crate::expr::sealed(claims))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::auth::captured::{Captured, Held};
    use crate::auth::token::{Life, Turn};

    fn token(minted: Minted) -> Arc<Token> {
        let mut life = Life::new(None);
        life.done(1, Ok(minted));
        let Turn::Serve(token) = life.turn(1) else { panic!() };
        token
    }

    fn jwt(claims: &serde_json::Value) -> Secret {
        Secret::new(format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims.to_string())))
    }

    #[test]
    fn a_token_gives_its_parts_and_the_claims_of_whichever_part_is_a_jwt() {
        let opaque = Minted { access: Some(Secret::new("a".into())), id: Some(jwt(&json!({ "tid": "7" }))), ..Minted::default() };
        let both = Minted { access: Some(jwt(&json!({ "tid": "8" }))), ..opaque.clone() };
        for (minted, tid) in [(opaque, "7"), (both, "8")] {
            let Some(Value::Map(claims)) = part(&minted, Name::TokenClaims) else { panic!() };
            assert_eq!(claims.get("tid"), Some(&Value::Secret(Secret::new(tid.into()))));
        }
        let bare = Minted { access: Some(Secret::new("a.b".into())), ..Minted::default() };
        assert_eq!(part(&bare, Name::TokenClaims), None);
        assert_eq!(part(&bare, Name::TokenRefresh), None);
        assert!(part(&bare, Name::TokenAccess).is_some());
    }

    #[test]
    fn several_schemes_give_what_each_has_captured() {
        let with = |name: &str, value: &str| {
            let mut captured = Captured::default();
            captured.insert(name, Held::text(value)).unwrap();
            token(Minted { access: Some(Secret::new("a".into())), captured, ..Minted::default() })
        };
        let granted = granted(vec![(0, with("one", "1")), (2, with("two", "2"))]);
        let Some(Value::Map(captured)) = granted.input(Name::Captured).unwrap() else { panic!() };
        assert!(captured.get("one").is_some() && captured.get("two").is_some());
        assert!(granted.ticket(0).is_some() && granted.ticket(1).is_none() && granted.ticket(2).is_some());
    }
}
