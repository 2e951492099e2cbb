//! Whose token it is (ruling G4): what an acquisition reads of the caller. Which inputs those are is known when the
//! configuration is loaded; their values are in the name of the grant and in its fingerprint, so that one caller's token never
//! serves another.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::header::AUTHORIZATION;

use crate::auth::grant::{Ask, Material};
use crate::auth::granted;
use crate::call::{Account, Call, Occasion};
use crate::error::Error;
use crate::expr::{Inputs, Map, Moment, Moments, Name, Names, Settings, Value};
use crate::fill::Facts;
use crate::key::sha256;
use crate::secret::Secret;

/// Longest credential of a client that is exchanged for a token, in bytes.
const BEARER_MAX: usize = 16 * 1024;

/// What an acquisition reads of its caller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reads {
    /// Inputs under `client`.
    pub client: Names,
    /// Whether the client's own bearer token is what is exchanged (`subject: client`).
    pub bearer: bool,
    /// Whether the variables of the call's account.
    pub account: bool,
}

impl Reads {
    /// Whether there is nothing, so that one token serves everybody.
    pub fn is_nothing(self) -> bool {
        self.client.is_empty() && !self.bearer && !self.account
    }
}

/// The values that one grant's acquisition reads of its caller.
#[derive(Clone, Default)]
pub struct Whose {
    client: Vec<(Name, Value)>,
    bearer: Option<Secret>,
    account: Option<Arc<str>>,
    vars: BTreeMap<String, String>,
}

impl Whose {
    /// Nobody's in particular: everybody's who may use the resource.
    pub fn anybody() -> Self {
        Self::default()
    }

    /// This account's.
    pub fn account(account: &Account) -> Self {
        Self { account: Some(account.name.clone()), ..Self::with(&account.vars) }
    }

    /// That of an account to be, which has these variables.
    pub fn with(vars: &BTreeMap<String, String>) -> Self {
        Self { vars: vars.clone(), ..Self::default() }
    }

    /// The caller's, as far as that is read.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] where the caller's own token is read, and there is none.
    pub fn of(call: &Call, reads: Reads) -> Result<Self, Error> {
        let facts = Facts { settings: &Settings::default(), call, body: None };
        let value = |name: Name| facts.input(name).ok().flatten().map(|value| (name, value));
        let bearer = if reads.bearer { Some(bearer(call)?) } else { None };
        let own = call.account.as_deref().filter(|_| reads.account).map(Self::account).unwrap_or_default();
        Ok(Self { client: reads.client.iter().filter_map(value).collect(), bearer, ..own })
    }

    /// The client's own token, where that is exchanged.
    pub fn bearer(&self) -> Option<&Secret> {
        self.bearer.as_ref()
    }

    /// `vars`: those of the account, where one is read, lie over the resource's (ruling C9).
    pub fn vars(&self, settings: &Settings) -> Arc<Map> {
        if self.vars.is_empty() {
            return settings.vars().clone();
        }
        let own: Map = self.vars.iter().map(|(name, value)| (name.as_str(), Value::text(value.as_str()))).collect();
        Arc::new(settings.vars().overlaid(&own))
    }

    /// What distinguishes it from others who present the same scheme; the client's token by its hash.
    pub fn material(&self) -> Material {
        let mut parts: Vec<Vec<u8>> = Vec::new();
        for (name, value) in &self.client {
            let mut text = String::new();
            // What has no JSON is no value of a client.
            let _ = value.write_json(Moments::Seconds, &mut text);
            parts.extend([name.to_string().into_bytes(), text.into_bytes()]);
        }
        if let Some(account) = &self.account {
            parts.extend([b"account".to_vec(), account.as_bytes().to_vec()]);
            parts.extend(self.vars.iter().flat_map(|(name, value)| [name.clone().into_bytes(), value.clone().into_bytes()]));
        }
        if let Some(bearer) = &self.bearer {
            parts.extend([b"bearer".to_vec(), sha256(bearer.expose().as_bytes()).to_vec()]);
        }
        Material::of(parts.iter().map(Vec::as_slice))
    }

    /// The client's name, where that is what is read.
    pub fn name(&self) -> Option<&str> {
        self.client.iter().find_map(|(name, value)| match (name, value) {
            (Name::ClientName, Value::Text(text)) => Some(&**text),
            _ => None,
        })
    }
}

impl Inputs for Whose {
    fn input(&self, name: Name) -> Result<Option<Value>, &'static str> {
        Ok(self.client.iter().find(|(n, _)| *n == name).map(|(_, value)| value.clone()))
    }
}

impl std::fmt::Debug for Whose {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.client.iter().map(|(name, _)| name.to_string())).finish()
    }
}

/// The client's own bearer token (RFC 6750 section 2.1).
fn bearer(call: &Call) -> Result<Secret, Error> {
    let wrong = |why: &'static str| Error::Unauthenticated(why.into(), "Send `Authorization: Bearer …` with a token of yours.".into());
    let mut all = call.headers.get_all(AUTHORIZATION).iter();
    let (Some(one), None) = (all.next(), all.next()) else {
        return Err(wrong("This resource exchanges the caller's own bearer token, and the request has none, or several."));
    };
    let token = one.to_str().ok().and_then(|text| text.split_once(' ')).filter(|(word, _)| word.eq_ignore_ascii_case("bearer"));
    let token = token.map(|(_, token)| token.trim()).filter(|token| !token.is_empty() && token.len() <= BEARER_MAX);
    let token = token.filter(|token| token.bytes().all(|b| b.is_ascii_graphic()));
    token.map(|token| Secret::new(token.to_owned())).ok_or_else(|| wrong("The request's `Authorization` is no bearer token."))
}

/// What the expressions of an acquisition read.
pub struct Asking<'a> {
    settings: &'a Settings,
    ask: Ask<'a>,
    occasion: Occasion,
}

impl<'a> Asking<'a> {
    /// For one call to an issuer: one moment, and ids of its own.
    pub fn new(settings: &'a Settings, ask: Ask<'a>) -> Self {
        Self { settings, ask, occasion: Occasion::new(ask.clock.clone()) }
    }

    /// What was asked.
    pub fn ask(&self) -> Ask<'a> {
        self.ask
    }
}

impl Inputs for Asking<'_> {
    fn input(&self, name: Name) -> Result<Option<Value>, &'static str> {
        let whose = self.ask.whose;
        Ok(match name {
            Name::Vars => Some(Value::Map(whose.vars(self.settings))),
            Name::Now => Some(Value::Moment(Moment::of(self.occasion.now()))),
            Name::Uuid => Some(Value::text(self.occasion.uuid().to_string())),
            Name::Uuid7 => Some(Value::text(self.occasion.uuid7().to_string())),
            Name::Captured => self.ask.before.map(|before| before.captured.value()),
            name if Names::TOKEN.has(name) => self.ask.before.and_then(|before| granted::part(before, name)),
            name if Names::CLIENT.has(name) => return whose.input(name),
            other => return self.settings.input(other),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::support::call;

    fn with(field: Option<&str>) -> Result<Whose, Error> {
        let mut call = call("/a");
        field.into_iter().for_each(|field| drop(call.headers.insert(AUTHORIZATION, field.parse().unwrap())));
        Whose::of(&call, Reads { bearer: true, ..Reads::default() })
    }

    #[test]
    fn a_clients_token_is_known_by_its_hash_and_each_has_its_own() {
        let (one, other) = (with(Some("Bearer one-token")).unwrap(), with(Some("bearer  other-token")).unwrap());
        assert_eq!(other.bearer(), Some(&Secret::new("other-token".into())));
        assert_ne!(one.material().bytes(), other.material().bytes());
        assert_eq!(one.material().bytes(), with(Some("Bearer one-token")).unwrap().material().bytes());
        assert!(!String::from_utf8_lossy(one.material().bytes()).contains("one-token"));
        assert!(!format!("{one:?}").contains("one-token"));
    }

    #[test]
    fn a_caller_without_a_bearer_token_is_nobody() {
        for field in [None, Some("Basic dTpw"), Some("Bearer"), Some("Bearer "), Some("Bearer a b"), Some("Bearer a,b\u{7f}")] {
            if field.is_none_or(|field| field.is_ascii() && !field.contains('\u{7f}')) {
                assert!(matches!(with(field), Err(Error::Unauthenticated(..))), "{field:?}");
            }
        }
        let mut twice = call("/a");
        for field in ["Bearer a", "Bearer b"] {
            twice.headers.append(AUTHORIZATION, field.parse().unwrap());
        }
        assert!(Whose::of(&twice, Reads { bearer: true, ..Reads::default() }).is_err());
    }

    #[test]
    fn what_is_read_of_a_client_tells_one_from_another() {
        let reads = Reads { client: Names::of(&[Name::ClientName, Name::ClientIp]), ..Reads::default() };
        let of = |name: &str, ip: Option<&str>| {
            let mut call = call("/a");
            call.caller.name = name.into();
            call.caller.ip = ip.map(|ip| ip.parse().unwrap());
            Whose::of(&call, reads).unwrap()
        };
        let all = [of("a", None), of("b", None), of("a", Some("192.0.2.1")), of("a", Some("192.0.2.2")), of("ab", Some("192.0.2.1"))];
        for (at, one) in all.iter().enumerate() {
            assert!(all.iter().skip(at + 1).all(|other| one.material().bytes() != other.material().bytes()), "{at}");
        }
        assert_eq!(all[1].name(), Some("b"));
    }
}
