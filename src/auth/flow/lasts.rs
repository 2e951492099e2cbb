//! `lasts`: how long what a flow has captured holds (rulings F21 to F23, E16).

use std::time::Duration;

use serde_json::Value as Json;

use super::body::Reader;
use crate::auth::expiry::{self, Unit};
use crate::expr::{Inputs, Template, Unset, Value};
use crate::tree::{Fields, Node};

/// How long it holds. Nothing said is not the same as unknown.
#[derive(Debug, Default)]
pub struct Lasts {
    within: Option<Template>,
    at: Option<Template>,
    ttl: Option<Duration>,
    /// How long before its end it is renewed.
    pub renew_before: Option<Duration>,
}

impl Lasts {
    /// Reads `{ in, at, ttl, renew_before }`.
    pub fn read(node: &Node, reader: Reader<'_>) -> Option<Self> {
        let problems = reader.problems;
        let fields = Fields::of(node, "a map of `in`, `at` and `ttl`", problems)?;
        let one = |key: &'static str, judge: fn(&Json) -> bool, hint: &str| {
            let Some(node) = fields.node(key) else { return Some(None) };
            let template = reader.template(node)?;
            // What is written out can be judged at once.
            if template.is_constant() && !node.literal(problems).is_some_and(|text| judge(&text.into())) {
                problems.error(node.place, format!("`lasts.{key}` cannot be read: {}", node.shown()), hint);
                return None;
            }
            Some(Some(template))
        };
        let within =
            one("in", |value| expiry::life(value, Unit::Seconds).is_ok(), "seconds, mostly captured: \"{{ captured.expires_in }}\"");
        let at = one("at", |value| expiry::moment(value).is_ok(), "a moment, mostly captured: \"{{ captured.valid_until }}\"");
        let ttl = fields.node("ttl").map(|node| node.duration(problems));
        let renew_before = fields.node("renew_before").map(|node| node.duration(problems));
        fields.finish();
        Some(Self { within: within?, at: at?, ttl: flat(ttl)?, renew_before: flat(renew_before)? })
    }

    /// When it ends, in milliseconds since 1970: `None` where nothing is said here, `Some(None)` where it is said that nobody
    /// knows. `here` tells a moment of the server's by our clock.
    ///
    /// # Errors
    /// What cannot be read; nothing of its value.
    pub fn end(&self, inputs: &dyn Inputs, asked: u64, here: impl Fn(u64) -> u64) -> Result<Option<Option<u64>>, String> {
        if let Some(life) = value(self.within.as_ref(), inputs, "in")? {
            let life = expiry::life(&life, Unit::Seconds).map_err(|()| unreadable("in", "no number of seconds"))?;
            if let Some(life) = life {
                return Ok(Some(Some(asked.saturating_add(life))));
            }
        }
        if let Some(moment) = value(self.at.as_ref(), inputs, "at")? {
            let moment = expiry::moment(&moment).map_err(|()| unreadable("at", "no moment in a form that is known here"))?;
            if let Some(moment) = moment {
                return Ok(Some(Some(here(moment))));
            }
        }
        if let Some(ttl) = self.ttl {
            return Ok(Some(Some(asked.saturating_add(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX)))));
        }
        Ok(if self.within.is_some() || self.at.is_some() { Some(None) } else { None })
    }
}

fn unreadable(key: &str, why: &str) -> String {
    format!("what was captured for `lasts.{key}` is {why}")
}

/// What a template gives, as JSON has it; `None` where it is unset.
fn value(template: Option<&Template>, inputs: &dyn Inputs, key: &str) -> Result<Option<Json>, String> {
    let Some(template) = template else { return Ok(None) };
    let rendered = template.render_set(inputs, Unset::Omitted).map_err(|failure| format!("`lasts.{key}`: {failure}"))?;
    Ok(rendered.map(|rendered| match rendered.value {
        Value::Moment(moment) => moment.rfc3339().into(),
        other => {
            let mut text = String::new();
            // What has no text is nothing that can be read.
            let _ = other.write_text(&mut text);
            text.into()
        }
    }))
}

/// Something that is there must have been read.
fn flat<T>(read: Option<Option<T>>) -> Option<Option<T>> {
    match read {
        None => Some(None),
        Some(None) => None,
        Some(value) => Some(value),
    }
}
