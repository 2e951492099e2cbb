//! What can be seen of a value before it is there: its type, as far as an expression's text tells.

use std::fmt;

/// The type of a value, as far as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It depends on the inputs.
    Any,
    /// `null`.
    Null,
    /// True or false.
    Bool,
    /// A number.
    Number,
    /// Text.
    Text,
    /// Bytes, or at least in some cases.
    Bytes,
    /// A moment.
    Moment,
    /// A list.
    List,
    /// A map.
    Map,
}

impl Kind {
    /// The type of a value that is one or the other. Bytes win: wherever they may appear they must be dealt with.
    pub fn or(self, other: Self) -> Self {
        match (self, other) {
            (a, b) if a == b => a,
            (Self::Bytes, _) | (_, Self::Bytes) => Self::Bytes,
            (Self::Moment, _) | (_, Self::Moment) => Self::Moment,
            _ => Self::Any,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Any => "anything",
            Self::Null => "null",
            Self::Bool => "true or false",
            Self::Number => "a number",
            Self::Text => "text",
            Self::Bytes => "bytes",
            Self::Moment => "a moment",
            Self::List => "a list",
            Self::Map => "a map",
        })
    }
}
