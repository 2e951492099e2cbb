//! Where a token or a signature goes: `place` (rulings F4 and F47), read once for all who have one, and how what was made
//! for one attempt is put there. Where it comes from is the schemes' affair.

use std::sync::Arc;

use http::HeaderName;
use http::header::AUTHORIZATION;
use zeroize::Zeroizing;

use crate::auth::field::Field;
use crate::auth::insert::Insert;
use crate::auth::token::{STAND_IN, UNSIGNED};
use crate::auth::{Owned, Reading, place};
use crate::call::Call;
use crate::error::{Error, Trouble};
use crate::expr::{self, Inputs, Name, Names, Rendered, Settings, Template, Value};
use crate::fill::{self, Facts};
use crate::secret::Secret;
use crate::tree::{Fields, Node, Problems, Value as Tree};
use crate::uri::encode_query;

/// Most places of one credential.
const PLACES_MAX: usize = 8;
/// What frames the message, belongs to the connection, or has a way of its own.
const UNPLACEABLE: [&str; 13] = [
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "keep-alive",
    "te",
    "trailer",
    "upgrade",
    "expect",
    "via",
    "cookie",
    "max-forwards",
    "http2-settings",
];
/// What `place.value` may read besides what it places.
const INPUTS: Names = Names::FIXED
    .with(Names::CLIENT)
    .with(Names::ATTEMPT)
    .with(Names::REQUEST)
    .without(Names::of(&[Name::RequestBody, Name::RequestBodySha256]));

/// Where something goes.
#[derive(Debug)]
pub enum At {
    /// Into a field.
    Header(HeaderName),
    /// Into the query.
    Query(String),
    /// Into a cookie.
    Cookie(String),
    /// Into the JSON or form body.
    Body(String),
}

/// One place, and how the value is written there.
#[derive(Debug)]
pub struct Spot {
    /// Where.
    pub at: At,
    /// The word in front, in a field; empty for none.
    pub word: String,
    /// What is written instead of the bare value (`value`).
    pub value: Option<Template>,
}

/// Whether an operator may have a credential or a signed value in this field.
pub fn settable(name: &HeaderName) -> bool {
    !UNPLACEABLE.contains(&name.as_str()) && !name.as_str().starts_with("proxy-")
}

impl Spot {
    /// `Authorization: Bearer …`.
    pub fn bearer() -> Self {
        Self { at: At::Header(AUTHORIZATION), word: "Bearer".into(), value: None }
    }

    /// Reads `place`, one or a list. `what` is the name by which `value` sees what is placed.
    pub fn read(node: &Node, what: Name, reading: Reading<'_>) -> Option<Vec<Self>> {
        let nodes = if let Tree::List(items) = &node.value { items.as_slice() } else { std::slice::from_ref(node) };
        if nodes.is_empty() || nodes.len() > PLACES_MAX {
            let hint = "place: { header: Authorization, scheme: Bearer }";
            reading.problems.error(node.place, format!("there are 1 to {PLACES_MAX} places"), hint);
            return None;
        }
        // All are read before any failure counts, so that every problem is reported.
        nodes.iter().map(|node| spot(node, what, reading)).collect::<Vec<_>>().into_iter().collect()
    }

    /// Whether it writes into the request's body.
    pub fn writes_body(&self) -> bool {
        matches!(self.at, At::Body(_))
    }

    /// What these own.
    pub fn owned<'s>(spots: impl IntoIterator<Item = &'s Self>) -> Owned {
        let mut owned = Owned::default();
        for spot in spots {
            match &spot.at {
                At::Header(name) => owned.headers.push(name.clone()),
                At::Query(name) => owned.params.push(name.clone()),
                At::Cookie(name) => owned.cookies.push(name.clone()),
                At::Body(name) => owned.members.push(name.clone()),
            }
        }
        owned
    }

    /// Puts it in, anywhere but into the body.
    ///
    /// # Errors
    /// Where `value` cannot be computed, or the place cannot carry what it becomes.
    pub fn put(&self, call: &mut Call, placed: Placed<'_>) -> Result<(), Error> {
        let text = self.text(call, placed)?;
        match &self.at {
            At::Header(name) => {
                let field = Field::new(&text).map_err(|_| unfit("a header", self.value.as_ref()))?;
                call.headers.insert(name, field.value());
                Ok(())
            }
            At::Query(name) => {
                place::query(&mut call.target, name, &encode_query(name), &Secret::new(text.to_string()));
                Ok(())
            }
            At::Cookie(name) => {
                // What stands for a token where nothing is sent is only shown.
                let stands_in = [STAND_IN, UNSIGNED].contains(&text.as_str());
                if !stands_in && text.contains([';', ',', ' ', '"', '\\']) {
                    return Err(unfit("a cookie", self.value.as_ref()));
                }
                let pair = Zeroizing::new([name, "=", &text].concat());
                place::cookie(&mut call.headers, name, &Field::new(&pair).map_err(|_| unfit("a cookie", self.value.as_ref()))?)
            }
            At::Body(_) => Err(Error::Internal("a body is written by its own way".into())),
        }
    }

    /// Puts it in, wherever that is. Of a body at most `limit` bytes are held.
    ///
    /// # Errors
    /// As [`Spot::put`], and what the body is refused for.
    pub async fn put_anywhere(&self, call: &mut Call, placed: Placed<'_>, limit: u64) -> Result<(), Error> {
        let At::Body(name) = &self.at else { return self.put(call, placed) };
        let text = self.text(call, placed)?;
        let insert = Insert::new(name.clone(), &Secret::new(text.to_string()), limit);
        insert.ok_or_else(|| Error::Internal("a value that JSON cannot spell".into()))?.put(call).await
    }

    /// What is written there, encoded where it is a query.
    fn text(&self, call: &Call, placed: Placed<'_>) -> Result<Zeroizing<String>, Error> {
        let query = matches!(self.at, At::Query(_));
        let Some(template) = &self.value else {
            let space = if self.word.is_empty() { "" } else { " " };
            let text = Zeroizing::new([&self.word, space, placed.text].concat());
            return Ok(if query { Zeroizing::new(encode_query(&text)) } else { text });
        };
        if fill::stands_in(call, template.names()) {
            return Ok(Zeroizing::new(STAND_IN.to_owned()));
        }
        let inputs = With { facts: Facts { settings: placed.settings, call, body: None }, placed };
        let rendered = if query { template.render_placed(&inputs, expr::place::query) } else { template.render_text(&inputs) };
        let Rendered { value, .. } = rendered.map_err(|failure| fill::refused(&failure, template.names()))?;
        let mut text = Zeroizing::new(String::new());
        value.write_text(&mut text).map_err(|why| Error::Internal(format!("`{template:?}`: {why}")))?;
        Ok(text)
    }
}

/// What is placed.
#[derive(Clone, Copy, Debug)]
pub struct Placed<'p> {
    /// The name by which `value` sees it.
    pub name: Name,
    /// Its text.
    pub text: &'p str,
    /// `vars`, `secrets`, `base`.
    pub settings: &'p Arc<Settings>,
}

struct With<'w> {
    facts: Facts<'w>,
    placed: Placed<'w>,
}

impl Inputs for With<'_> {
    fn input(&self, name: Name) -> Result<Option<Value>, &'static str> {
        if name == self.placed.name {
            return Ok(Some(Value::Secret(Secret::new(self.placed.text.to_owned()))));
        }
        self.facts.input(name)
    }
}

/// What no place of this kind can carry. `value` is the template that made it; without one it is a token as its issuer
/// gave it.
pub fn unfit(place: &str, value: Option<&Template>) -> Error {
    let Some(template) = value else {
        let trouble = Trouble {
            detail: format!("The issuer's token holds a character that {place} cannot carry.").into(),
            hint: "Choose another `place`.".into(),
            cause: format!("a token cannot be put into {place}").into(),
        };
        return Error::CredentialRefused(Box::new(trouble));
    };
    if template.names().meets(Names::REQUEST.with(Names::CLIENT)) {
        let why = format!("This resource computes a value for {place} that cannot stand there.");
        return Error::BadRequest(why.into(), "It holds a line break or another character that is not allowed.".into());
    }
    Error::Internal(format!("`{template:?}` makes what {place} cannot carry"))
}

fn spot(node: &Node, what: Name, reading: Reading<'_>) -> Option<Spot> {
    let problems = reading.problems;
    let fields = Fields::of(node, "a place: { header: … }, { query: … }, { cookie: … } or { body: … }", problems)?;
    let (header, query, cookie, body) = (fields.text("header"), fields.text("query"), fields.text("cookie"), fields.text("body"));
    let word = fields.node("scheme").map(|n| n.text(problems));
    let value = fields.node("value").map(|n| value(n, what, reading));
    let place = fields.place();
    fields.finish();
    let value = match value {
        None => None,
        Some(value) => Some(value?),
    };
    let wrong = |why: &str, hint: &str| {
        problems.error(place, why, hint);
        None
    };
    if word.is_some() && (header.is_none() || value.is_some()) {
        return wrong("`scheme` goes with `header`, and not with `value`", "place: { header: Authorization, scheme: Bearer }");
    }
    let spot = |at: At, word: &str| Some(Spot { at, word: word.to_owned(), value });
    match (header, query, cookie, body) {
        (Some(name), None, None, None) => {
            let Some(name) = HeaderName::from_bytes(name.as_bytes()).ok().filter(settable) else {
                return wrong("no token or signature can go into this header", "Authorization, or a header of the API's own");
            };
            // `Bearer` is the default only where the field is the usual one (ruling F4).
            let usual = if name == AUTHORIZATION && what == Name::PlacedToken { "Bearer" } else { "" };
            let word = match word {
                None => usual.to_owned(),
                Some(word) => word.filter(|w| Field::new(w).is_ok())?,
            };
            spot(At::Header(name), if word == "none" { "" } else { &word })
        }
        (None, Some(name), None, None) if !name.is_empty() => spot(At::Query(name), ""),
        (None, None, Some(name), None) if is_cookie_name(&name) => spot(At::Cookie(name), ""),
        (None, None, None, Some(name)) if !name.is_empty() => spot(At::Body(name), ""),
        (None, None, Some(_), None) => wrong("this is no name of a cookie", ""),
        _ => wrong("a place is one of `header`, `query`, `cookie` and `body`", "for several, write a list of places"),
    }
}

/// `value`: a template that must hold what is placed, or the credential would not travel.
fn value(node: &Node, what: Name, reading: Reading<'_>) -> Option<Template> {
    let problems: &Problems = reading.problems;
    // What came with a token is as good as the token.
    let offered = if what == Name::PlacedToken { Names::of(&[what, Name::Captured]) } else { Names::of(&[what]) };
    let scope = reading.context.settings.scope(INPUTS.with(offered));
    let template = expr::read(node, &scope, problems)?;
    if let Err(mistake) = template.text_only() {
        problems.error(node.place, mistake.message, mistake.hint);
        return None;
    }
    if !template.names().meets(offered) {
        problems.error(node.place, format!("`value` does not hold `{what}`"), format!("as \"Key {{{{ {what} }}}}\""));
        return None;
    }
    Some(template)
}

fn is_cookie_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}
