//! Runs compiled expressions, and says what went wrong in words that hold no value. The engine's own messages may hold
//! some, so none of them is ever shown once there are inputs.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use minijinja::machinery::{eval, make_string_output};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, UndefinedBehavior, Value as Engine};

use super::bridge::{self, Complaint, Roots};
use super::code::Code;
use super::filters;
use super::value::Value;
use super::{Failure, Inputs, Names};

/// The work of one expression: about one unit a step, and one for each 64 bytes that are made or read.
pub const FUEL: u64 = 40_000;
/// How much of an expression an error shows.
const SHOWN_MAX: usize = 120;

static ENGINE: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut engine = Environment::new();
    engine.set_undefined_behavior(UndefinedBehavior::Strict);
    engine.set_auto_escape_callback(|_| AutoEscape::None);
    engine.set_debug(false);
    engine.set_fuel(Some(FUEL));
    for name in ["debug", "namespace"] {
        engine.remove_global(name);
    }
    filters::install(&mut engine);
    engine
});

/// What an expression resulted in.
pub struct Outcome {
    /// The value; `None` where it is undefined.
    pub value: Option<Value>,
    /// Whether a secret went into it. Then its texts are secrets already.
    pub secret: bool,
    /// Whether `urlencode` or `formencode` made it, so that it is not encoded again (ruling H16).
    pub encoded: bool,
}

/// The inputs of an evaluation, for the engine.
pub struct Prepared {
    root: Engine,
    /// Whether one of them is a secret as a whole.
    secret: bool,
}

/// Fetches the inputs that are used.
///
/// # Errors
/// Why one of them cannot be had.
pub fn prepare(names: Names, inputs: &dyn Inputs) -> Result<Prepared, &'static str> {
    let (root, seen) = bridge::watched(|| roots(names, inputs));
    // A number that came with a token is as secret as the token, although it does not say so itself.
    let secret = seen.secret || names.meets(Names::GRANTED);
    Ok(Prepared { root: root?, secret })
}

fn roots(names: Names, inputs: &dyn Inputs) -> Result<Engine, &'static str> {
    let mut roots: Vec<(&'static str, Engine)> = Vec::new();
    let mut parts: Vec<(&'static str, Roots)> = Vec::new();
    for name in names.iter() {
        let (root, part) = name.spelled();
        let value = inputs.input(name)?.as_ref().map(bridge::engine);
        if part.is_empty() {
            roots.extend(value.map(|value| (root, value)));
            continue;
        }
        let index = parts.iter().position(|(r, _)| *r == root).unwrap_or_else(|| {
            parts.push((root, Roots(Vec::new())));
            parts.len() - 1
        });
        parts[index].1.0.extend(value.map(|value| (part, value)));
    }
    roots.extend(parts.into_iter().map(|(root, parts)| (root, Engine::from_object(parts))));
    Ok(Engine::from_object(Roots(roots)))
}

/// Evaluates an expression over inputs that [`prepare`] has fetched.
///
/// # Errors
/// [`Failure`]; an undefined result is none, and left to the caller.
pub fn run(code: &Code, inputs: &Prepared) -> Result<Outcome, Failure> {
    let (result, seen) = bridge::watched(|| {
        let mut nowhere = String::new();
        let none = BTreeMap::new();
        let (value, _) =
            eval(&ENGINE, code.instructions(), inputs.root.clone(), &none, &mut make_string_output(&mut nowhere), AutoEscape::None)?;
        let value = value.unwrap_or_default();
        // Before the watch ends: what is made lazily is made here.
        Ok((bridge::ours(&value)?, value.is_safe()))
    });
    if let Some(printed) = seen.printed {
        return Err(failure(code, printed.to_string()));
    }
    let (value, encoded) = result.map_err(|error: Error| {
        let undefined = error.kind() == ErrorKind::UndefinedError;
        Failure { undefined, ..failure(code, words(&error, code, &inputs.root)) }
    })?;
    let secret = inputs.secret || seen.secret;
    let value = if secret { value.map(bridge::sealed) } else { value };
    Ok(Outcome { value, secret, encoded })
}

/// A failure of this expression.
pub fn failure(code: &Code, why: impl Into<String>) -> Failure {
    let source = code.source();
    let end = (0..=source.len().min(SHOWN_MAX)).rev().find(|at| source.is_char_boundary(*at)).unwrap_or(0);
    let shown = if end < source.len() { format!("{}…", &source[..end]) } else { source.to_owned() };
    Failure { expression: shown.into(), why: why.into(), undefined: false }
}

fn words(error: &Error, code: &Code, roots: &Engine) -> String {
    if let Some(complaint) = complaint(error) {
        return complaint.0.clone();
    }
    match error.kind() {
        ErrorKind::UndefinedError => undefined_words(code, roots),
        ErrorKind::OutOfFuel => format!("it takes more work than {FUEL} units, which is the most"),
        ErrorKind::MissingArgument | ErrorKind::TooManyArguments => "a filter is called with the wrong arguments".into(),
        ErrorKind::UnknownFilter | ErrorKind::UnknownTest => "it names a filter or a test that does not exist".into(),
        _ => match undefined_path(code, roots) {
            Some(path) => format!("`{path}` is undefined"),
            None => "something in it has the wrong type for what is done with it".into(),
        },
    }
}

fn complaint(error: &Error) -> Option<&Complaint> {
    let mut source: Option<&(dyn std::error::Error + 'static)> = std::error::Error::source(error);
    while let Some(error) = source {
        if let Some(complaint) = error.downcast_ref() {
            return Some(complaint);
        }
        source = error.source();
    }
    None
}

/// A failure because the result is undefined.
pub fn undefined(code: &Code, inputs: &Prepared) -> Failure {
    Failure { undefined: true, ..failure(code, undefined_words(code, &inputs.root)) }
}

fn undefined_words(code: &Code, roots: &Engine) -> String {
    match undefined_path(code, roots) {
        Some(path) => format!("`{path}` is undefined: set it, or give it a `default(…)`"),
        None => "something in it is undefined: give it a `default(…)`".into(),
    }
}

/// The shortest of the paths that it looks up which leads nowhere.
fn undefined_path(code: &Code, roots: &Engine) -> Option<String> {
    let missing = |path: &str| {
        let mut value = roots.clone();
        let mut seen = String::new();
        for step in path.split('.') {
            seen.push_str(if seen.is_empty() { "" } else { "." });
            seen.push_str(step);
            value = value.get_attr(step).unwrap_or_default();
            if value.is_undefined() {
                return Some(seen);
            }
        }
        None
    };
    bridge::watched(|| code.lookups.iter().find_map(|path| missing(path))).0
}
