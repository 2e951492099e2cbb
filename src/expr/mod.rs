//! Expressions and templates: compiled once when the configuration is loaded, pure, strict about what is undefined, and
//! bounded in work, size and depth. `docs/expressions.md` is the language; its every example is run by a test.
//!
//! The engine is minijinja without statements. What an expression uses is read from its syntax tree. Numbers stay as
//! written, bytes and moments never print by themselves, and what has touched a secret is one.

mod bridge;
mod code;
mod engine;
mod filters;
mod json;
mod kind;
mod moment;
mod names;
pub mod place;
mod settle;
mod split;
mod template;
mod url;
mod value;
mod xpath;

use std::fmt;

pub use bridge::sealed;
pub use moment::Moment;
pub use names::{Name, Names};
pub use settle::{Settings, read};
pub use split::{Cut, split};
pub use template::{Condition, Fragment, Part, Rendered, Template, Unset, captures};
pub use url::{Made, Unmade, url};
pub use value::{DEPTH_MAX, Map, Moments, Unprintable, Value, number};

/// What the place of an expression offers.
#[derive(Clone, Copy, Debug)]
pub struct Scope<'s> {
    /// The inputs that there are.
    pub names: Names,
    /// The names under `secrets`, where they are known: any other is a mistake.
    pub secrets: Option<&'s [Box<str>]>,
}

impl Scope<'_> {
    /// A place that offers these inputs.
    pub const fn of(names: Names) -> Self {
        Self { names, secrets: None }
    }
}

/// Where an expression finds its inputs. Only what it uses is asked for, and only once per evaluation.
pub trait Inputs {
    /// The value of an input; `None` where it is undefined.
    ///
    /// # Errors
    /// Why it cannot be had, as a body that was not buffered.
    fn input(&self, name: Name) -> Result<Option<Value>, &'static str>;
}

/// Inputs that are all at hand.
#[derive(Clone, Debug, Default)]
pub struct Given(Vec<(Name, Value)>);

impl Given {
    /// With this input too.
    #[must_use]
    pub fn with(mut self, name: Name, value: Value) -> Self {
        self.0.retain(|(n, _)| *n != name);
        self.0.push((name, value));
        self
    }
}

impl Inputs for Given {
    fn input(&self, name: Name) -> Result<Option<Value>, &'static str> {
        Ok(self.0.iter().find(|(n, _)| *n == name).map(|(_, value)| value.clone()))
    }
}

/// Something wrong with a template, found when it is compiled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The byte of the text that it is about.
    pub at: usize,
    /// What is wrong.
    pub message: String,
    /// What to do; empty where the message says it.
    pub hint: String,
}

impl Mistake {
    fn new(at: usize, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { at, message: message.into(), hint: hint.into() }
    }
}

/// An evaluation that failed. Names the expression as the configuration has it, never what went into it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The expression, shortened if it is long.
    pub expression: Box<str>,
    /// What went wrong.
    pub why: String,
    /// Whether it went wrong because something is undefined.
    pub undefined: bool,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`: {}", self.expression, self.why)
    }
}

impl std::error::Error for Failure {}

#[cfg(test)]
mod hostile;
#[cfg(test)]
mod page;
#[cfg(test)]
mod tests;
