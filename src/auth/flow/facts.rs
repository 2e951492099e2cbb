//! What the expressions of a login see: the resource's own words, what was captured so far, one time and one uuid for each
//! step, and, in conditions on an answer, that answer.

use std::sync::Arc;

use http::{HeaderMap, StatusCode};

use crate::auth::whose::Whose;
use crate::call::Occasion;
use crate::expr::{Inputs, Map, Moment, Name, Names, Settings, Value};

/// What a step's templates and its `when` may read.
pub const STEP: Names = Names::FIXED.with(Names::CLIENT).with(Names::ATTEMPT).with(Names::of(&[Name::Captured]));
/// What conditions on an answer may read.
pub const ANSWER: Names = STEP.with(Names::ANSWER);

/// The inputs of one step.
#[derive(Clone, Copy)]
pub struct Facts<'f> {
    /// `vars`, `secrets`, `base`.
    pub settings: &'f Settings,
    /// `captured`.
    pub captured: &'f Value,
    /// `now`, `uuid`, `uuid7`.
    pub occasion: &'f Occasion,
    /// Whose login it is.
    pub whose: &'f Whose,
    /// The answer, once there is one.
    pub answer: Option<Seen<'f>>,
}

/// An answer as conditions see it.
#[derive(Clone, Copy)]
pub struct Seen<'a> {
    /// Its status.
    pub status: StatusCode,
    /// Its fields.
    pub headers: &'a HeaderMap,
    /// Its body, where that is held.
    pub body: Option<&'a [u8]>,
}

impl Inputs for Facts<'_> {
    fn input(&self, name: Name) -> Result<Option<Value>, &'static str> {
        Ok(match name {
            Name::Captured => Some(self.captured.clone()),
            Name::Vars => Some(Value::Map(self.whose.vars(self.settings))),
            Name::Now => Some(Value::Moment(Moment::of(self.occasion.now()))),
            Name::Uuid => Some(Value::text(self.occasion.uuid().to_string())),
            Name::Uuid7 => Some(Value::text(self.occasion.uuid7().to_string())),
            Name::Status | Name::Headers | Name::Body => match &self.answer {
                Some(seen) => return seen.input(name),
                None => None,
            },
            _ if Names::of(&[name]).meets(Names::CLIENT) => return self.whose.input(name),
            _ => return self.settings.input(name),
        })
    }
}

impl Inputs for Seen<'_> {
    fn input(&self, name: Name) -> Result<Option<Value>, &'static str> {
        Ok(match name {
            Name::Status => Some(Value::whole(self.status.as_u16())),
            Name::Headers => {
                let text = |value: &http::HeaderValue| Value::text(String::from_utf8_lossy(value.as_bytes()).into_owned());
                let fields = self.headers.iter().map(|(name, value)| (Arc::from(name.as_str()), text(value)));
                Some(Value::Map(Arc::new(Map::of_fields(fields))))
            }
            Name::Body => {
                let text = String::from_utf8_lossy(self.body.ok_or("the body was not held back")?);
                Some(Value::from_json(&text).unwrap_or_else(|_| Value::text(&*text)))
            }
            _ => None,
        })
    }
}
