//! What an answer must be to count as a success (ruling E27), and the conditions that judge answers.

use bytes::Bytes;
use http::Response;

use super::body::Reader;
use super::facts::{self, Facts, Seen};
use super::told::{Fault, Teller};
use crate::expr::{Condition, Names};
use crate::tree::{Fields, Node, Problems};

/// What makes an answer a success: any 2xx, where nothing else is said.
#[derive(Debug, Default)]
pub struct Expect {
    statuses: Vec<u16>,
    when: Option<Condition>,
}

impl Expect {
    /// Reads `{ statuses, when }`.
    pub fn read(node: &Node, reader: Reader<'_>) -> Option<Self> {
        let fields = Fields::of(node, "a map of `statuses` and `when`", reader.problems)?;
        let statuses: Vec<Option<u16>> = fields.items("statuses").iter().map(|node| status(node, reader.problems)).collect();
        let when = condition(fields.node("when"), reader, facts::ANSWER);
        fields.finish();
        Some(Self { statuses: statuses.into_iter().collect::<Option<_>>()?, when: when? })
    }

    /// Judges an answer.
    ///
    /// # Errors
    /// What it lacks, told by `teller`.
    pub fn judge(&self, teller: Teller<'_>, response: &Response<Bytes>, facts: Facts<'_>) -> Result<(), Fault> {
        let status = response.status();
        let good = if self.statuses.is_empty() { status.is_success() } else { self.statuses.contains(&status.as_u16()) };
        if !good {
            return Err(teller.unexpected(response));
        }
        let Some(when) = &self.when else { return Ok(()) };
        let seen = Seen { status, headers: response.headers(), body: Some(response.body()) };
        match when.holds(&Facts { answer: Some(seen), ..facts }) {
            Ok(true) => Ok(()),
            // A failed login inside a success is one, and counts as one.
            Ok(false) => Err(teller.denied(response, "`expect.when` does not hold for")),
            Err(failure) => Err(teller.unfit(response, format_args!("`expect.when` cannot judge: {failure}"))),
        }
    }

    /// Any success, and any redirect: what a login page answers.
    pub fn of_login() -> Self {
        let all = (200..400).filter(|status| *status != 304).collect();
        Self { statuses: all, when: None }
    }

    /// The same, where it does not say otherwise.
    #[must_use]
    pub fn or_of_login(self) -> Self {
        if !self.statuses.is_empty() { self } else { Self { when: self.when, ..Self::of_login() } }
    }
}

/// A status that an answer may have.
pub fn status(node: &Node, problems: &Problems) -> Option<u16> {
    let status = node.word().and_then(|word| word.parse::<u16>().ok()).filter(|status| (200..=599).contains(status));
    if status.is_none() {
        problems.error(node.place, format!("{} is no status of an answer", node.shown()), "statuses: [200, 201]");
    }
    status
}

/// A bare condition; none is none.
pub fn condition(node: Option<&Node>, reader: Reader<'_>, names: Names) -> Option<Option<Condition>> {
    let Some(node) = node else { return Some(None) };
    let text = node.literal(reader.problems)?;
    let compiled = Condition::compile(&text, &reader.settings.scope(names));
    let mistakes = match compiled {
        Ok(condition) => return Some(Some(condition)),
        Err(mistakes) => mistakes,
    };
    mistakes.into_iter().for_each(|mistake| reader.problems.error(node.place, mistake.message, mistake.hint));
    None
}
