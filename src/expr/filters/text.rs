//! `default string int float length join json parse_json` and the operator `~`: where the engine would say something
//! else about numbers, booleans, null, bytes or moments than the language does.

use minijinja::value::ValueKind;
use minijinja::{Environment, Error, ErrorKind, State, Value as Engine};

use super::args::{Given, bound, charge, text};
use super::{JOINED, NUMERIC, OR_NULL};
use crate::expr::bridge::{self, complain};
use crate::expr::value::{Moments, Value};

/// What building or reading JSON costs beside the bytes themselves.
const JSON_COST: usize = 8;

pub fn install(engine: &mut Environment<'static>) {
    engine.add_filter(NUMERIC, |value: Engine| bridge::numeric(value));
    engine.add_filter(OR_NULL, |value: Engine| if value.is_undefined() { Engine::from(()) } else { value });
    engine.add_filter(JOINED, |left: &Engine, right: &Engine| {
        let both_encoded = left.is_safe() && right.is_safe();
        let (left, right) = (text(left)?, text(right)?);
        let joined = [left, right].concat();
        Ok::<_, Error>(if both_encoded { Engine::from_safe_string(joined) } else { Engine::from(joined) })
    });
    for name in ["default", "d"] {
        engine.add_filter(name, |value: Engine, args: Given| {
            let [other] = bound(["value"], args)?;
            let other = other.ok_or_else(|| Error::from(ErrorKind::MissingArgument))?;
            Ok::<_, Error>(if unset(&value) { other } else { value })
        });
    }
    engine.add_filter("string", |value: &Engine| {
        let text = text(value)?.into_owned();
        Ok::<_, Error>(text)
    });
    engine.add_filter("int", |value: &Engine, args: Given| number(value, args, whole, "int"));
    engine.add_filter("float", |value: &Engine, args: Given| number(value, args, float, "float"));
    for name in ["length", "count"] {
        engine.add_filter(name, length);
    }
    engine.add_filter("join", join);
    engine.add_filter("json", |state: &State, value: &Engine| {
        let value = bridge::ours(value)?.ok_or_else(|| Error::from(ErrorKind::UndefinedError))?;
        let mut json = String::new();
        value.write_json(Moments::Refused, &mut json).map_err(|why| complain(why.to_string()))?;
        charge(state, JSON_COST * json.len())?;
        Ok::<_, Error>(json)
    });
    engine.add_filter("parse_json", |state: &State, value: &Engine| {
        let json = text(value)?;
        charge(state, JSON_COST * json.len())?;
        let value = Value::from_json(&json).map_err(|why| complain(format!("`parse_json`: {why}")))?;
        Ok::<_, Error>(bridge::engine(&value))
    });
}

/// Undefined, null or empty (ruling F8).
fn unset(value: &Engine) -> bool {
    match value.kind() {
        ValueKind::Undefined | ValueKind::None => true,
        ValueKind::String => value.as_str() == Some(""),
        ValueKind::Seq | ValueKind::Map => value.len() == Some(0),
        _ => bridge::as_bytes(value).is_some_and(|bytes| bytes.is_empty()),
    }
}

fn number(value: &Engine, args: Given, read: fn(&Engine) -> Option<Engine>, name: &str) -> Result<Engine, Error> {
    let [default] = bound(["default"], args)?;
    if let Some(number) = read(value) {
        return Ok(number);
    }
    match default {
        Some(default) => Ok(default),
        None if value.is_undefined() => Err(Error::from(ErrorKind::UndefinedError)),
        None => Err(complain(format!("`{name}` met what is no number"))),
    }
}

/// A whole number: what is behind the point goes; a moment is its Unix seconds (ruling B32).
fn whole(value: &Engine) -> Option<Engine> {
    if let Some(moment) = bridge::as_moment(value) {
        return Some(Engine::from(moment.seconds()));
    }
    let text = match value.kind() {
        ValueKind::Bool => return Some(Engine::from(i64::from(value.is_true()))),
        ValueKind::String => value.as_str()?.trim().to_owned(),
        _ => bridge::written(value)?.to_string(),
    };
    if let Ok(number) = text.parse::<i128>() {
        return Some(Engine::from(number));
    }
    let number: f64 = text.parse().ok()?;
    // Beyond 2^53 a float no longer says which whole number it is.
    (number.is_finite() && number.abs() < 9_007_199_254_740_992.0).then(|| Engine::from(number.trunc() as i64))
}

fn float(value: &Engine) -> Option<Engine> {
    if let Some(moment) = bridge::as_moment(value) {
        return Some(Engine::from(moment.millis() as f64 / 1000.0));
    }
    let number: f64 = match value.kind() {
        ValueKind::Bool => return Some(Engine::from(f64::from(u8::from(value.is_true())))),
        ValueKind::String => value.as_str()?.trim().parse().ok()?,
        _ => bridge::written(value)?.parse().ok()?,
    };
    number.is_finite().then(|| Engine::from(number))
}

fn length(value: &Engine) -> Result<usize, Error> {
    if value.is_undefined() {
        return Err(Error::from(ErrorKind::UndefinedError));
    }
    let bytes = bridge::as_bytes(value).map(|bytes| bytes.len());
    bytes.or_else(|| value.len()).ok_or_else(|| complain("`length` takes text, bytes, a list or a map"))
}

fn join(state: &State<'_, '_>, value: &Engine, args: Given) -> Result<String, Error> {
    let [separator] = bound(["separator"], args)?;
    let separator = separator.map_or(Ok(String::new()), |s| text(&s).map(|s| s.into_owned()))?;
    if value.is_undefined() {
        return Err(Error::from(ErrorKind::UndefinedError));
    }
    let mut joined = String::new();
    for (index, item) in value.try_iter()?.enumerate() {
        let item = text(&item)?;
        charge(state, item.len() + separator.len())?;
        if index > 0 {
            joined.push_str(&separator);
        }
        joined.push_str(&item);
    }
    Ok(joined)
}
