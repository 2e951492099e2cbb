//! Presents a grant's token, and says what an upstream's refusal of it looks like (`refused`). Where a token goes is
//! `placed.rs`, where it comes from the grant's affair.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use http::HeaderValue;
use http::header::AUTHORIZATION;
use zeroize::Zeroizing;

use crate::auth::consent::Consent;
use crate::auth::field::Field;
use crate::auth::flow::{Ended, Reader, Redirects, STEP};
use crate::auth::grant::Seat;
use crate::auth::granted::{self, Gives};
use crate::auth::placed::{At, Placed, Spot, unfit};
use crate::auth::token::Token;
use crate::auth::{Acquiring, Attempt, Owned, Reading, Renewal, Renewing, Scheme, Signing};
use crate::call::Call;
use crate::error::Error;
use crate::expr::{Name, Settings, Template};
use crate::tree::{self, Fields, closest};

/// A scheme that presents a token.
#[derive(Debug)]
pub struct Presented {
    seat: Arc<Seat>,
    consent: Option<Arc<dyn Consent>>,
    places: Vec<Place>,
    refused: Ended,
    /// Whether a place reads what came with the token.
    captured: bool,
    gives: Gives,
    settings: Arc<Settings>,
    buffer: u64,
}

/// Where a token goes.
#[derive(Debug)]
struct Place {
    spot: Spot,
    /// The last value of a field that was made, by the token's serial number.
    made: ArcSwapOption<(u64, HeaderValue)>,
}

/// How a token is presented, as the operator writes it.
#[derive(Debug)]
pub struct Presence {
    consent: Option<Arc<dyn Consent>>,
    places: Vec<Place>,
    refused: Ended,
    /// Where `place` stands.
    at: tree::Place,
}

impl Presence {
    /// Reads `place` and `refused`.
    pub fn read(fields: &Fields<'_>, reading: Reading<'_>) -> Option<Self> {
        let spots = match fields.node("place") {
            None => vec![Spot::bearer()],
            Some(node) => Spot::read(node, Name::PlacedToken, reading)?,
        };
        let places = spots.into_iter().map(|spot| Place { spot, made: ArcSwapOption::empty() }).collect();
        let reader = Reader { settings: reading.context.settings, names: STEP, problems: reading.problems };
        let refused = match fields.node("refused") {
            None => Ended::usual(reading.context),
            Some(node) => Ended::read(node, Redirects::Untold, reading.context, reader)?,
        };
        Some(Self { consent: None, places, refused, at: fields.key_place("place") })
    }

    /// A person's consent is how its grants are had.
    #[must_use]
    pub fn consenting(self, consent: Option<Arc<dyn Consent>>) -> Self {
        Self { consent, ..self }
    }

    /// The scheme that presents this seat's token.
    pub fn of(self, seat: Arc<Seat>, gives: Gives, reading: Reading<'_>) -> Box<dyn Scheme> {
        let (settings, buffer) = (reading.context.settings.clone(), reading.context.buffer);
        let templates = self.places.iter().filter_map(|place| place.spot.value.as_ref());
        let read: Vec<&str> = templates.clone().flat_map(Template::captures).collect();
        if let Some(unknown) = read.iter().find(|name| !gives.captures.iter().any(|known| known == *name)) {
            let known: Vec<&str> = gives.captures.iter().map(String::as_str).collect();
            reading.problems.error(self.at, format!("nothing captures `{unknown}`"), closest(unknown, &known));
        }
        let captured = templates.clone().any(|template| template.names().has(Name::Captured));
        let (places, refused) = (self.places, self.refused);
        Box::new(Presented { seat, consent: self.consent, places, refused, captured, gives, settings, buffer })
    }
}

impl Place {
    fn put(&self, call: &mut Call, token: &Token, settings: &Arc<Settings>) -> Result<(), Error> {
        match &self.spot {
            Spot { at: At::Header(name), word, value: None } => {
                call.headers.insert(name, value(word, token, &self.made)?);
                Ok(())
            }
            spot => spot.put(call, placed(token, settings)),
        }
    }
}

fn placed<'p>(token: &'p Token, settings: &'p Arc<Settings>) -> Placed<'p> {
    Placed { name: Name::PlacedToken, text: token.access(), settings }
}

/// The value of the field; made once for each token.
fn value(word: &str, token: &Token, made: &ArcSwapOption<(u64, HeaderValue)>) -> Result<HeaderValue, Error> {
    if let Some(value) = made.load().as_ref().filter(|made| made.0 == token.serial).map(|made| made.1.clone()) {
        return Ok(value);
    }
    let space = if word.is_empty() { "" } else { " " };
    let field = Field::new(&Zeroizing::new([word, space, token.access()].concat())).map_err(|_| unfit("a header", None))?;
    made.store(Some(Arc::new((token.serial, field.value()))));
    Ok(field.value())
}

impl Presented {
    /// What comes of an answer that tells that the token is refused, or does not.
    fn renewed(&self, attempt: &Attempt<'_>, token: &Token, told: bool) -> Renewal {
        let status = attempt.answer.status();
        if !told {
            if status.is_success() || status.is_redirection() {
                token.accept();
            }
            return Renewal::Stands;
        }
        let worthwhile = self.seat.refuse(token, attempt.call);
        if worthwhile && attempt.again { Renewal::Again } else { Renewal::Stands }
    }

    /// What must be so before the token is put in its places.
    fn ready(&self, call: &mut Call, token: &Arc<Token>) {
        self.take_bearer(call);
        self.refused.prepare(&mut call.headers);
        if self.captured && call.granted.is_none() {
            call.granted = Some(Box::new(granted::granted(vec![(0, token.clone())])));
        }
    }

    fn put(&self, call: &mut Call, token: Arc<Token>) -> Result<(), Error> {
        self.ready(call, &token);
        self.places.iter().try_for_each(|place| place.put(call, &token, &self.settings))?;
        call.ticket = Some(token);
        Ok(())
    }

    /// What the client's own token was exchanged for is sent, and not that token.
    fn take_bearer(&self, call: &mut Call) {
        if self.seat.takes_bearer() {
            call.headers.remove(AUTHORIZATION);
        }
    }

    async fn put_everywhere(&self, call: &mut Call, token: Arc<Token>) -> Result<(), Error> {
        self.ready(call, &token);
        for place in &self.places {
            if place.spot.writes_body() {
                place.spot.put_anywhere(call, placed(&token, &self.settings), self.buffer).await?;
            } else {
                place.put(call, &token, &self.settings)?;
            }
        }
        call.ticket = Some(token);
        Ok(())
    }
}

impl Scheme for Presented {
    fn owns(&self) -> Owned {
        let mut owned = Spot::owned(self.places.iter().map(|place| &place.spot));
        if self.seat.takes_bearer() {
            // The client's own token comes this far, and no further: what is sent takes its place.
            owned.headers.retain(|name| name != AUTHORIZATION);
            owned.passes_authorization = true;
        }
        owned
    }

    fn identity(&self, call: &Call) -> Option<Arc<str>> {
        self.seat.identity(call)
    }

    fn secret(&self) -> bool {
        true
    }

    fn gives(&self) -> Option<Gives> {
        Some(self.gives.clone())
    }

    fn acquire<'a>(&'a self, call: &'a Call) -> Option<Acquiring<'a>> {
        Some(self.seat.acquire(call))
    }

    fn sign<'a>(&'a self, call: &'a mut Call) -> Signing<'a> {
        let writes_body = self.places.iter().any(|place| place.spot.writes_body());
        // What was filled in came with this token, so it is this one that is presented.
        let acquired = Token::of(call.ticket.take().as_ref());
        if let Some(token) = acquired {
            return match writes_body {
                false => Signing::Done(self.put(call, token)),
                true => Signing::Later(Box::pin(self.put_everywhere(call, token))),
            };
        }
        match self.seat.fresh(call) {
            Some(token) if !writes_body => Signing::Done(self.put(call, token)),
            _ => Signing::Later(Box::pin(async move {
                let token = self.seat.token(call).await?;
                self.put_everywhere(call, token).await
            })),
        }
    }

    fn consent(&self) -> Option<Arc<dyn Consent>> {
        self.consent.clone()
    }

    fn seat(&self) -> Option<&Arc<Seat>> {
        Some(&self.seat)
    }

    fn renews(&self) -> bool {
        true
    }

    fn renew<'a>(&'a self, attempt: Attempt<'a>) -> Renewing<'a> {
        let Some(token) = Token::of(attempt.ticket) else { return Renewing::Done(Ok(Renewal::Stands)) };
        if !self.refused.needs_more(attempt.answer.status()) {
            let told = self.refused.has(attempt.answer.status());
            return Renewing::Done(Ok(self.renewed(&attempt, &token, told)));
        }
        Renewing::Later(Box::pin(async move {
            let told = self.refused.told(attempt.call, attempt.answer).await?;
            Ok(self.renewed(&attempt, &token, told))
        }))
    }
}
