//! Whose keys sign: those that are written, or temporary ones that a grant holds (the default chain, an assumed role), so
//! that they are renewed ahead, once for all who wait, and never sent dead.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use http::HeaderValue;
use serde_json::{Value, json};

use super::name;
use crate::auth::Reading;
use crate::auth::field::Field;
use crate::auth::grant::{Ask, Fetching, Material, NewSeat, Seat, Source};
use crate::auth::token::{Failure, Minted, STAND_IN, Token};
use crate::aws::ambient::Ambient;
use crate::aws::chain::Chain;
use crate::aws::key::Keys;
use crate::aws::sts::Role;
use crate::aws::{Credentials, Fault};
use crate::error::{Error, Trouble};
use crate::secret::Secret;
use crate::tree::{Fields, Node};

/// Session name where nothing says one.
const SESSION: &str = "postern";

/// Keys, ready to sign for one service in one region.
#[derive(Debug)]
pub struct Live {
    /// The keys.
    pub keys: Keys,
    /// The session token, as it is sent.
    pub token: Option<HeaderValue>,
}

impl Live {
    fn new(credentials: &Credentials, scope: &Scope) -> Result<Self, &'static str> {
        let token = credentials.session.as_ref().map(|token| Field::new(token.expose())).transpose()?;
        let keys = Keys::new(credentials.id.clone(), credentials.secret.clone(), scope.region.clone(), scope.service.clone());
        Ok(Self { keys, token: token.map(|field| field.value()) })
    }
}

/// For what is signed.
#[derive(Clone, Debug)]
pub struct Scope {
    /// The service.
    pub service: String,
    /// The region.
    pub region: String,
}

/// Whose keys.
#[derive(Debug)]
pub enum Held {
    /// They are written.
    Written(Arc<Live>),
    /// A grant has them.
    Granted(Box<Granted>),
}

/// Keys of a grant.
#[derive(Debug)]
pub struct Granted {
    /// Where the grant is.
    pub seat: Arc<Seat>,
    scope: Scope,
    /// What stands for them where nothing is sent.
    stand_in: Credentials,
    /// Those of the last token, by its serial number.
    live: ArcSwapOption<(u64, Arc<Live>)>,
}

impl Granted {
    /// The keys of a token.
    ///
    /// # Errors
    /// Where they cannot be sent.
    pub fn live(&self, token: &Token) -> Result<Arc<Live>, Error> {
        if let Some(live) = self.live.load().as_ref().filter(|live| live.0 == token.serial).map(|live| live.1.clone()) {
            return Ok(live);
        }
        let credentials = match token.is_real() {
            true => unpacked(token.access()).ok_or_else(|| Error::Internal("a token that holds no keys".into()))?,
            false => self.stand_in.clone(),
        };
        let live = Live::new(&credentials, &self.scope).map_err(|_| unfit())?;
        let live = Arc::new(live);
        self.live.store(Some(Arc::new((token.serial, live.clone()))));
        Ok(live)
    }
}

fn unfit() -> Error {
    let trouble = Trouble {
        detail: "The session token that AWS gave holds a character that a header cannot carry.".into(),
        hint: "Ask whoever issues it.".into(),
        cause: "a session token cannot be put into a header".into(),
    };
    Error::CredentialRefused(Box::new(trouble))
}

/// Credentials as the text of a token.
fn packed(credentials: &Credentials) -> Secret {
    let session = credentials.session.as_ref().map(Secret::expose);
    Secret::new(json!({ "id": credentials.id, "secret": credentials.secret.expose(), "session": session }).to_string())
}

fn unpacked(text: &str) -> Option<Credentials> {
    let json: Value = serde_json::from_str(text).ok()?;
    let part = |name: &str| json[name].as_str().map(str::to_owned);
    Some(Credentials { id: part("id")?, secret: Secret::new(part("secret")?), session: part("session").map(Secret::new), expires: None })
}

/// Reads keys, `profile` and `assume_role`. The second part is the fingerprint of written keys.
pub fn read(node: &Node, fields: &Fields<'_>, scope: Option<(String, String)>, reading: Reading<'_>) -> Option<(Held, Option<Arc<str>>)> {
    let problems = reading.problems;
    let written = written(fields);
    let role = fields.node("assume_role").map(|node| role(node, reading));
    let profile = fields.node("profile").map(|node| node.text(problems));
    let (service, region) = scope?;
    let scope = Scope { service, region };
    let role = match role {
        None => None,
        Some(role) => Some(role?),
    };
    let profile = match profile {
        None => None,
        Some(profile) => Some(profile?),
    };
    let keys = match written {
        None => None,
        Some(keys) => Some(keys?),
    };
    if keys.is_some() && profile.is_some() {
        problems.error(fields.key_place("profile"), "`profile` and keys are two ways to have credentials", "remove one of them");
        return None;
    }
    if let (Some(credentials), None) = (&keys, &role) {
        let session = credentials.session.as_ref().map(Secret::expose).unwrap_or_default();
        let parts = ["aws_sigv4", &credentials.id, credentials.secret.expose(), &scope.region, &scope.service, session];
        let identity = reading.fingerprint.of(parts.map(str::as_bytes));
        // What no header carries was reported when it was read.
        let live = Live::new(credentials, &scope).ok()?;
        return Some((Held::Written(Arc::new(live)), Some(identity)));
    }
    let ambient = Ambient::of_process();
    let (role, sts_url) = role.map_or((None, None), |(role, url)| (Some(role), url));
    let mut parts = vec![b"aws".to_vec(), scope.region.as_bytes().to_vec()];
    crate::auth::oauth::written(node, &["service", "payload"], &mut parts);
    if keys.is_none() {
        parts.extend(ambient.parts().map(<[u8]>::to_vec));
    }
    let context = reading.context;
    let chain = Chain {
        ambient,
        profile,
        region: scope.region.clone(),
        sts_url,
        tls: context.tls.cloned(),
        commands: context.commands.map(std::path::Path::to_owned),
    };
    if role.is_some()
        && let Err(Fault::Down(why) | Fault::Refused(why)) = chain.sts(&scope.region)
    {
        problems.error(fields.key_place("assume_role"), why, "sts_url: https://sts.eu-west-1.amazonaws.com");
        return None;
    }
    let material = Material::of(parts.iter().map(Vec::as_slice));
    // A role always comes with a session; what the chain will give is not known here.
    let session = role.as_ref().map(|_| Secret::new(STAND_IN.into()));
    let stand_in = Credentials { id: STAND_IN.into(), secret: Secret::new(String::new()), session, expires: None };
    let source = Assumed { chain, first: keys, role };
    let seat = context.tokens.seat(NewSeat {
        resource: context.resource.into(),
        scheme: "aws_sigv4",
        identity: reading.fingerprint.of([material.bytes()]),
        material,
        renew_before: None,
        source: Arc::new(source),
        shelf: None,
        reads: crate::auth::whose::Reads::default(),
    });
    Some((Held::Granted(Box::new(Granted { seat, scope, stand_in, live: ArcSwapOption::empty() })), None))
}

/// The keys that are written, if there are any; `Some(None)` after an error was reported.
fn written(fields: &Fields<'_>) -> Option<Option<Credentials>> {
    let problems = fields.problems();
    if ["access_key_id", "secret_access_key", "session_token"].iter().all(|key| fields.node(key).is_none()) {
        return None;
    }
    let id = fields.need("access_key_id").and_then(|n| n.text(problems).map(|text| (n, text))).and_then(|(node, id)| {
        let good = !id.is_empty() && id.bytes().all(|b| b.is_ascii_graphic() && !b"/,=".contains(&b));
        if !good {
            problems.error(node.place, "`access_key_id` is no access key id", "it is made of letters and digits, as AKIA…");
        }
        good.then_some(id)
    });
    let secret = fields.need("secret_access_key").and_then(|n| n.secret(problems).map(|secret| (n, secret))).and_then(|(node, secret)| {
        if secret.is_empty() {
            problems.error(node.place, "`secret_access_key` is empty", "");
        }
        (!secret.is_empty()).then_some(secret)
    });
    let session = match fields.node("session_token") {
        None => Some(None),
        Some(node) => node.secret_or_empty(problems).and_then(|token| match Field::new(token.expose()) {
            _ if token.is_empty() => Some(None),
            Ok(_) => Some(Some(token)),
            Err(why) => {
                problems.error(node.place, format!("`session_token` cannot be sent in a header: {why}"), "");
                None
            }
        }),
    };
    let whole = || Some(Credentials { id: id?, secret: secret?, session: session?, expires: None });
    Some(whole())
}

/// Reads `{ role_arn, external_id, session_name, sts_url }`.
fn role(node: &Node, reading: Reading<'_>) -> Option<(Role, Option<String>)> {
    let problems = reading.problems;
    let fields = Fields::of(node, "a map with `role_arn`", problems)?;
    let arn = fields.need("role_arn").and_then(|n| n.text(problems).map(|text| (n, text))).and_then(|(node, arn)| {
        let good = arn.starts_with("arn:") && arn.contains(":role/") && arn.bytes().all(|b| b.is_ascii_graphic());
        if !good {
            problems.error(node.place, "this is no ARN of a role", "arn:aws:iam::123456789012:role/name");
        }
        good.then_some(arn)
    });
    let external = fields.text("external_id");
    let session = match fields.node("session_name") {
        None => Some(SESSION.to_owned()),
        Some(node) => node.text(problems).and_then(|name| {
            let good = (2..=64).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"=,.@-_".contains(&b));
            if !good {
                problems.error(node.place, "`session_name` is 2 to 64 letters, digits and `=,.@-_`", "session_name: postern");
            }
            good.then_some(name)
        }),
    };
    let url = fields.text("sts_url");
    fields.finish();
    Some((Role { arn: arn?, session: session?, external, seconds: None }, url))
}

/// The chain's credentials or written ones, and the role that is assumed with them.
#[derive(Debug)]
struct Assumed {
    chain: Chain,
    first: Option<Credentials>,
    role: Option<Role>,
}

impl Source for Assumed {
    fn fetch<'a>(&'a self, ask: Ask<'a>) -> Fetching<'a> {
        let (clock, obtained) = (ask.clock, ask.clock.millis());
        Box::pin(async move {
            let first = match &self.first {
                Some(first) => Ok(first.clone()),
                None => self.chain.credentials(clock).await,
            };
            let credentials = match (&self.role, first) {
                (Some(role), Ok(first)) => match self.chain.sts(&self.chain.region) {
                    Ok(sts) => sts.assume(role, &first, clock).await,
                    Err(fault) => Err(fault),
                },
                (_, first) => first,
            };
            let credentials = credentials.map_err(failed)?;
            Ok(Minted { access: Some(packed(&credentials)), obtained, expires: credentials.expires, ..Minted::default() })
        })
    }

    /// They are this machine's, or had again at once: on another machine or after a restart they could be somebody else's.
    fn lasts(&self) -> bool {
        false
    }
}

fn failed(fault: Fault) -> Failure {
    let trouble =
        |detail: &'static str, hint: &'static str, why: String| Trouble { detail: detail.into(), hint: hint.into(), cause: why.into() };
    match fault {
        Fault::Down(why) => {
            let hint = "The gateway's log says what was asked; `postern test` shows it too.";
            Failure::Down(trouble("There are no AWS credentials now.", hint, why), None)
        }
        Fault::Refused(why) => {
            let hint = "Mend the role, the profile or the keys, and reload; the gateway's log has more.";
            Failure::Refused(trouble("AWS gives no credentials for this resource.", hint, why))
        }
    }
}

/// Reads `service` and `region`.
pub fn scope(fields: &Fields<'_>) -> Option<(String, String)> {
    let (service, region) = (name(fields, "service"), name(fields, "region"));
    Some((service?, region?))
}
