//! What the admin API tells about the configuration that runs.

use serde_json::{Value, json};

use super::Answer;
use crate::clock::{Clock, Stamp};

/// The last reload, and since when what runs has run.
#[derive(Debug)]
pub struct Status {
    since: String,
    last: Value,
}

impl Status {
    /// Nothing has been reloaded yet.
    pub fn new() -> Self {
        Self { since: now(), last: Value::Null }
    }

    /// Notes what became of a reload.
    pub fn note(&mut self, cause: &str, answer: &Answer) {
        let time = now();
        self.last = match answer {
            Answer::Applied(version, difference) => {
                self.since = time.clone();
                json!({ "time": time, "cause": cause, "result": "applied", "version": &**version,
                    "added": difference.added, "changed": difference.changed, "removed": difference.removed })
            }
            Answer::Refused(report) => {
                json!({ "time": time, "cause": cause, "result": "refused", "problems": report["problems"] })
            }
        };
    }

    /// All of it. `stale` are the references that serve on with their last good value, and why.
    pub fn json(&self, version: &str, resources: usize, stale: &[(String, String)]) -> Value {
        let stale: Vec<Value> = stale.iter().map(|(reference, why)| json!({ "reference": reference, "why": why })).collect();
        json!({ "version": version, "since": self.since, "resources": resources, "last_reload": self.last, "stale_secrets": stale })
    }
}

fn now() -> String {
    let mut text = Vec::new();
    Stamp::default().write(Clock::system().wall(), &mut text);
    String::from_utf8(text).unwrap_or_default()
}
