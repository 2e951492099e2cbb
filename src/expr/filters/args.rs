//! What filters of ours are given: text, bytes, keys and numbers out of the engine's values, or a complaint.

use std::borrow::Cow;

use minijinja::value::{Kwargs, Rest, ValueKind, ValueOrKwargs};
use minijinja::{Error, ErrorKind, State, Value as Engine};

use crate::expr::bridge::{self, complain};
use crate::expr::value::Unprintable;

/// Bytes that one unit of fuel pays for where a filter reads or makes them.
const BYTES_PER_FUEL: usize = 64;

/// Pays for work on bytes that are piped in. The engine itself counts text that goes into a filter and comes out of it,
/// and knows nothing of bytes.
pub fn charge_bytes(state: &State<'_, '_>, value: &Engine) -> Result<(), Error> {
    charge(state, bridge::as_bytes(value).map_or(0, |bytes| bytes.len()))
}

/// Pays for work on so many bytes, beside what the engine counts.
pub fn charge(state: &State<'_, '_>, bytes: usize) -> Result<(), Error> {
    state.consume_fuel(1 + (bytes / BYTES_PER_FUEL) as u64)
}

/// The text of a value: numbers as written, booleans as in JSON.
pub fn text(value: &Engine) -> Result<Cow<'_, str>, Error> {
    if let Some(text) = value.as_str() {
        return Ok(Cow::Borrowed(text));
    }
    if let Some(number) = bridge::written(value) {
        return Ok(Cow::Owned(number.to_string()));
    }
    let why = match value.kind() {
        ValueKind::Undefined => return Err(Error::from(ErrorKind::UndefinedError)),
        ValueKind::Bool => return Ok(Cow::Borrowed(if value.is_true() { "true" } else { "false" })),
        ValueKind::None => Unprintable::Null,
        ValueKind::Seq | ValueKind::Iterable => Unprintable::List,
        ValueKind::Map => Unprintable::Map,
        _ if bridge::as_bytes(value).is_some() => Unprintable::Bytes,
        _ if bridge::as_moment(value).is_some() => Unprintable::Moment,
        _ => return Err(complain("it puts what is no text into text")),
    };
    Err(complain(why.to_string()))
}

/// The bytes of a value: its own, or those of its text.
pub fn message(value: &Engine) -> Result<Cow<'_, [u8]>, Error> {
    if let Some(bytes) = bridge::as_bytes(value) {
        return Ok(Cow::Owned(bytes.to_vec()));
    }
    Ok(match text(value)? {
        Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
        Cow::Owned(text) => Cow::Owned(text.into_bytes()),
    })
}

/// What a filter is called with, behind what is piped into it.
pub type Given = Rest<ValueOrKwargs>;

/// Arguments by position or by name.
pub fn bound<const N: usize>(names: [&str; N], given: Given) -> Result<[Option<Engine>; N], Error> {
    let mut given = given.into_values();
    let mut slots = [const { None }; N];
    if given.last().is_some_and(Engine::is_kwargs)
        && let Some(last) = given.pop()
    {
        let keywords = Kwargs::try_from(last)?;
        for (slot, name) in slots.iter_mut().zip(names) {
            if keywords.has(name) {
                *slot = Some(keywords.get::<Engine>(name)?);
            }
        }
        keywords.assert_all_used()?;
    }
    if given.len() > N {
        return Err(Error::from(ErrorKind::TooManyArguments));
    }
    for (slot, value) in slots.iter_mut().zip(given) {
        *slot = Some(value);
    }
    Ok(slots)
}

/// The one argument of a filter that must have one.
pub fn only(name: &str, given: Given) -> Result<Engine, Error> {
    let [value] = bound([name], given)?;
    needed(value)
}

/// An argument that must be there.
pub fn needed(value: Option<Engine>) -> Result<Engine, Error> {
    match value {
        Some(value) if value.is_undefined() => Err(Error::from(ErrorKind::UndefinedError)),
        Some(value) => Ok(value),
        None => Err(Error::from(ErrorKind::MissingArgument)),
    }
}
