//! Presents a grant's token: where it goes (`place`, rulings F4 and F47), and what an upstream's refusal of it looks like
//! (`refused`). Where the token comes from is the grant's affair.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use http::header::AUTHORIZATION;
use http::{HeaderName, HeaderValue, StatusCode};
use zeroize::Zeroizing;

use crate::auth::field::Field;
use crate::auth::grant::Seat;
use crate::auth::insert::Insert;
use crate::auth::token::Token;
use crate::auth::{Attempt, Owned, Reading, Renewal, Renewing, Scheme, Signing, place};
use crate::call::Call;
use crate::error::{Error, Trouble};
use crate::tree::{Fields, Node, Problems, Value};
use crate::uri::encode_query;

/// Most places of one token.
const PLACES_MAX: usize = 8;
/// What a header or the framing of the upstream's request owns.
const UNPLACEABLE: [&str; 8] = ["host", "content-length", "transfer-encoding", "connection", "te", "upgrade", "expect", "cookie"];

/// A scheme that presents a token.
#[derive(Debug)]
pub struct Presented {
    seat: Arc<Seat>,
    places: Vec<Spot>,
    refused: Vec<StatusCode>,
    buffer: u64,
}

/// Where a token goes.
#[derive(Debug)]
pub enum Spot {
    /// Into a field, behind a word.
    Header {
        /// The field.
        name: HeaderName,
        /// The word in front; empty for none.
        word: String,
        /// The last value that was made, by the token's serial number.
        made: ArcSwapOption<(u64, HeaderValue)>,
    },
    /// Into the query.
    Query(String),
    /// Into a cookie.
    Cookie(String),
    /// Into the JSON or form body.
    Body(String),
}

/// How a token is presented, as the operator writes it.
#[derive(Debug)]
pub struct Presence {
    places: Vec<Spot>,
    refused: Vec<StatusCode>,
}

impl Presence {
    /// Reads `place` and `refused`.
    pub fn read(fields: &Fields<'_>, problems: &Problems) -> Option<Self> {
        let places = match fields.node("place") {
            None => vec![Spot::header(AUTHORIZATION, "Bearer")],
            Some(node) => places(node, problems)?,
        };
        let refused = match fields.node("refused") {
            None => vec![StatusCode::UNAUTHORIZED],
            Some(node) => {
                let fields = Fields::of(node, "a map with `statuses`", problems)?;
                fields.unbuilt("when", |_| false);
                let statuses: Vec<Option<StatusCode>> = fields.items("statuses").iter().map(|n| status(n, problems)).collect();
                fields.finish();
                statuses.into_iter().collect::<Option<Vec<_>>>()?
            }
        };
        Some(Self { places, refused })
    }

    /// The scheme that presents this seat's token.
    pub fn of(self, seat: Arc<Seat>, reading: Reading<'_>) -> Box<dyn Scheme> {
        Box::new(Presented { seat, places: self.places, refused: self.refused, buffer: reading.context.buffer })
    }
}

fn places(node: &Node, problems: &Problems) -> Option<Vec<Spot>> {
    let nodes = if let Value::List(items) = &node.value { items.as_slice() } else { std::slice::from_ref(node) };
    if nodes.is_empty() || nodes.len() > PLACES_MAX {
        problems.error(node.place, format!("a token goes to 1 to {PLACES_MAX} places"), "place: { header: Authorization, scheme: Bearer }");
        return None;
    }
    let spots: Vec<Option<Spot>> = nodes.iter().map(|n| spot(n, problems)).collect();
    spots.into_iter().collect()
}

fn spot(node: &Node, problems: &Problems) -> Option<Spot> {
    let fields = Fields::of(node, "a place: { header: … }, { query: … }, { cookie: … } or { body: … }", problems)?;
    let (header, query, cookie, body) = (fields.text("header"), fields.text("query"), fields.text("cookie"), fields.text("body"));
    let word = fields.node("scheme").map(|n| n.text(problems));
    fields.unbuilt("value", |_| false);
    let place = fields.place();
    fields.finish();
    let wrong = |why: &str, hint: &str| {
        problems.error(place, why, hint);
        None
    };
    if word.is_some() && header.is_none() {
        return wrong("`scheme` goes with `header`", "place: { header: Authorization, scheme: Bearer }");
    }
    match (header, query, cookie, body) {
        (Some(name), None, None, None) => {
            let Some(name) = HeaderName::from_bytes(name.as_bytes()).ok().filter(|n| !UNPLACEABLE.contains(&n.as_str())) else {
                return wrong("a token cannot go into this header", "Authorization, or a header of the API's own");
            };
            // `Bearer` is the default only where the field is the usual one (ruling F4).
            let usual = if name == AUTHORIZATION { "Bearer" } else { "" };
            let word = match word {
                None => usual.to_owned(),
                Some(word) => word.filter(|w| Field::new(w).is_ok())?,
            };
            Some(Spot::header(name, if word == "none" { "" } else { &word }))
        }
        (None, Some(name), None, None) if !name.is_empty() => Some(Spot::Query(name)),
        (None, None, Some(name), None) if is_cookie_name(&name) => Some(Spot::Cookie(name)),
        (None, None, None, Some(name)) if !name.is_empty() => Some(Spot::Body(name)),
        (None, None, Some(_), None) => wrong("this is no name of a cookie", ""),
        _ => wrong("a place is one of `header`, `query`, `cookie` and `body`", "for several, write a list of places"),
    }
}

fn is_cookie_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

fn status(node: &Node, problems: &Problems) -> Option<StatusCode> {
    let status =
        node.word().and_then(|w| w.parse::<u16>().ok()).filter(|s| (200..=599).contains(s)).and_then(|s| StatusCode::from_u16(s).ok());
    if status.is_none() {
        problems.error(node.place, format!("{} is no status of a refusal", node.shown()), "refused: { statuses: [401, 403] }");
    }
    status
}

impl Spot {
    fn header(name: HeaderName, word: &str) -> Self {
        Self::Header { name, word: word.to_owned(), made: ArcSwapOption::empty() }
    }

    /// Whether it must read the request's body.
    fn reads_body(&self) -> bool {
        matches!(self, Self::Body(_))
    }

    fn put(&self, call: &mut Call, token: &Token) -> Result<(), Error> {
        match self {
            Self::Header { name, word, made } => {
                call.headers.insert(name, value(word, token, made)?);
                Ok(())
            }
            Self::Query(name) => {
                let secret = crate::secret::Secret::new(encode_query(token.access()));
                place::query(&mut call.target, name, &encode_query(name), &secret);
                Ok(())
            }
            Self::Cookie(name) => {
                if token.is_real() && token.access().contains([';', ',', ' ', '"', '\\']) {
                    return Err(unfit("a cookie"));
                }
                let pair = Field::new(&Zeroizing::new([name, "=", token.access()].concat())).map_err(|_| unfit("a cookie"))?;
                place::cookie(&mut call.headers, name, &pair)
            }
            Self::Body(_) => Err(Error::Internal("a body is written by its own way".into())),
        }
    }
}

/// The value of the field; made once for each token.
fn value(word: &str, token: &Token, made: &ArcSwapOption<(u64, HeaderValue)>) -> Result<HeaderValue, Error> {
    if let Some(value) = made.load().as_ref().filter(|made| made.0 == token.serial).map(|made| made.1.clone()) {
        return Ok(value);
    }
    let space = if word.is_empty() { "" } else { " " };
    let field = Field::new(&Zeroizing::new([word, space, token.access()].concat())).map_err(|_| unfit("a header"))?;
    made.store(Some(Arc::new((token.serial, field.value()))));
    Ok(field.value())
}

/// What an issuer gave was judged already, for a header; other places are narrower.
fn unfit(place: &str) -> Error {
    let trouble = Trouble {
        detail: format!("The issuer's token holds a character that {place} cannot carry.").into(),
        hint: "Choose another `place`.".into(),
        cause: format!("a token cannot be put into {place}").into(),
    };
    Error::CredentialRefused(Box::new(trouble))
}

impl Presented {
    fn put(&self, call: &mut Call, token: Arc<Token>) -> Result<(), Error> {
        self.places.iter().try_for_each(|place| place.put(call, &token))?;
        call.ticket = Some(token);
        Ok(())
    }

    async fn put_everywhere(&self, call: &mut Call, token: Arc<Token>) -> Result<(), Error> {
        for place in &self.places {
            match place {
                Spot::Body(name) => {
                    let secret = token.minted.access.as_ref().ok_or_else(|| Error::Internal("a token without text".into()))?;
                    let insert = Insert::new(name.clone(), secret, self.buffer);
                    insert.ok_or_else(|| Error::Internal("a token that JSON cannot spell".into()))?.put(call).await?;
                }
                place => place.put(call, &token)?,
            }
        }
        call.ticket = Some(token);
        Ok(())
    }
}

impl Scheme for Presented {
    fn owns(&self) -> Owned {
        let mut owned = Owned::default();
        for place in &self.places {
            match place {
                Spot::Header { name, .. } => owned.headers.push(name.clone()),
                Spot::Query(name) => owned.params.push(name.clone()),
                Spot::Cookie(name) => owned.cookies.push(name.clone()),
                Spot::Body(name) => owned.members.push(name.clone()),
            }
        }
        owned
    }

    fn identity(&self, call: &Call) -> Option<Arc<str>> {
        self.seat.identity(call.account.as_deref())
    }

    fn secret(&self) -> bool {
        true
    }

    fn sign<'a>(&'a self, call: &'a mut Call) -> Signing<'a> {
        let reads_body = self.places.iter().any(Spot::reads_body);
        match self.seat.fresh(call.account.as_deref()) {
            Some(token) if !reads_body => Signing::Done(self.put(call, token)),
            _ => Signing::Later(Box::pin(async move {
                let token = self.seat.token(call.account.as_deref()).await?;
                self.put_everywhere(call, token).await
            })),
        }
    }

    fn renews(&self) -> bool {
        true
    }

    fn renew<'a>(&'a self, attempt: Attempt<'a>) -> Renewing<'a> {
        let token = attempt.ticket.and_then(|ticket| ticket.clone().downcast::<Token>().ok());
        let Some(token) = token else { return Renewing::Done(Ok(Renewal::Stands)) };
        let status = attempt.answer.status();
        if !self.refused.contains(&status) {
            if status.is_success() || status.is_redirection() {
                token.accept();
            }
            return Renewing::Done(Ok(Renewal::Stands));
        }
        let worthwhile = self.seat.refuse(&token, attempt.call.account.as_deref());
        Renewing::Done(Ok(if worthwhile && attempt.again { Renewal::Again } else { Renewal::Stands }))
    }
}
