//! `urlencode formencode canonical_query`: text for URLs and forms. What they make is marked, so that it is not encoded
//! once more where it is put (ruling H16).

use std::borrow::Cow;

use minijinja::{Environment, Error, State, Value as Engine};

use super::args::{charge, text};
use crate::expr::place;

pub fn install(engine: &mut Environment<'static>) {
    engine.add_filter("urlencode", |value: &Engine| {
        let text = text(value)?;
        Ok::<_, Error>(Engine::from_safe_string(place::query(&text).into_owned()))
    });
    engine.add_filter("formencode", |value: &Engine| {
        let text = text(value)?;
        Ok::<_, Error>(Engine::from_safe_string(place::form(&text).into_owned()))
    });
    engine.add_filter("canonical_query", |state: &State, value: &Engine| {
        let query = text(value)?;
        charge(state, 8 * query.len())?;
        Ok::<_, Error>(Engine::from_safe_string(canonical(&query)))
    });
}

/// A raw query with its pairs decoded, encoded strictly and sorted, by name and then by value (ruling E25). A `+` is a
/// space, as in forms; a name without `=` gets one.
pub fn canonical(query: &str) -> String {
    let query = query.strip_prefix('?').unwrap_or(query);
    let strict = |text: &str| {
        let spaced: Cow<'_, str> = if text.contains('+') { text.replace('+', " ").into() } else { text.into() };
        percent_encoding::percent_encode(&Cow::from(percent_encoding::percent_decode_str(&spaced)), place::STRICT).to_string()
    };
    let mut pairs: Vec<(String, String)> = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (strict(name), strict(value)))
        .collect();
    pairs.sort();
    pairs.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&")
}
