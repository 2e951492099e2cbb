//! `epoch epoch_ms rfc3339 http_date date_format plus minus parse_time`: between moments and text or numbers.

use std::time::Duration;

use minijinja::value::ValueKind;
use minijinja::{Environment, Error, ErrorKind, State, Value as Engine};

use super::args::{Given, charge, only, text};
use crate::expr::bridge::{self, complain};
use crate::expr::moment::Moment;
use crate::tree;

const DURATION: &str = "a duration is an integer and a unit, 250ms 10s 5m 1h 7d, or a number of seconds";

pub fn install(engine: &mut Environment<'static>) {
    engine.add_filter("epoch", |value: &Engine| moment(value).map(Moment::seconds));
    engine.add_filter("epoch_ms", |value: &Engine| moment(value).map(Moment::millis));
    engine.add_filter("rfc3339", |value: &Engine| moment(value).map(Moment::rfc3339));
    engine.add_filter("http_date", |value: &Engine| moment(value).map(Moment::http_date));
    engine.add_filter("date_format", |state: &State, value: &Engine, args: Given| {
        let format = only("format", args)?;
        let format = text(&format)?;
        charge(state, 16 * format.len())?;
        moment(value)?.format(&format).map_err(|why| complain(format!("`date_format`: {why}")))
    });
    engine.add_filter("plus", |value: &Engine, args: Given| moved(value, &only("duration", args)?, Moment::plus));
    engine.add_filter("minus", |value: &Engine, args: Given| moved(value, &only("duration", args)?, Moment::minus));
    engine.add_filter("parse_time", |value: &Engine| {
        if bridge::as_moment(value).is_some() {
            return Ok(value.clone());
        }
        let parsed = Moment::parse(&text(value)?);
        parsed.map(Engine::from_object).ok_or_else(|| complain("`parse_time` met what is no moment"))
    });
}

fn moment(value: &Engine) -> Result<Moment, Error> {
    if value.is_undefined() {
        return Err(Error::from(ErrorKind::UndefinedError));
    }
    bridge::as_moment(value).ok_or_else(|| complain("it takes a moment: `now`, or text or a number through `parse_time`"))
}

fn moved(value: &Engine, by: &Engine, step: fn(Moment, Duration) -> Option<Moment>) -> Result<Engine, Error> {
    let moment = moment(value)?;
    let by = duration(by)?;
    step(moment, by).map(Engine::from_object).ok_or_else(|| complain("the moment leaves the calendar"))
}

fn duration(value: &Engine) -> Result<Duration, Error> {
    let text = text(value)?;
    if let Some(duration) = tree::duration(&text) {
        return Ok(duration);
    }
    // Seconds as a number or in text, as token replies have them.
    let seconds = if value.kind() == ValueKind::String || bridge::written(value).is_some() { text.parse::<f64>().ok() } else { None };
    seconds.and_then(|s| Duration::try_from_secs_f64(s).ok()).ok_or_else(|| complain(DURATION))
}

pub fn check_duration(args: &[Option<&str>]) -> Result<(), String> {
    match args.first().copied().flatten() {
        Some(text) if tree::duration(text).is_none() && text.parse::<u64>().is_err() => Err(DURATION.into()),
        _ => Ok(()),
    }
}

pub fn check_format(args: &[Option<&str>]) -> Result<(), String> {
    args.first().copied().flatten().map_or(Ok(()), |format| Moment::check_format(format).map_err(str::to_owned))
}
