//! Claims of a JWT as the operator writes them: JSON in which every text may be an expression. A claim that is exactly one
//! expression keeps that one's type, a moment is a `NumericDate` (RFC 7519 section 2), and what is null is left out.

use std::sync::Arc;

use zeroize::Zeroizing;

use crate::auth::assertion::json;
use crate::error::Error;
use crate::expr::{self, Failure, Inputs, Moments, Names, Settings, Template, Unset};
use crate::fill;
use crate::secret::Secret;
use crate::tree::{Fields, Node, Problems, Value as Tree};

/// Most claims, with those inside of others.
const CLAIMS_MAX: usize = 256;
/// Deepest nesting.
const DEPTH_MAX: usize = 16;

/// A map of claims.
#[derive(Debug)]
pub struct Claims {
    members: Vec<(String, Claim)>,
    names: Names,
}

#[derive(Debug)]
enum Claim {
    /// Its JSON.
    Ready(Secret),
    Computed(Template, Unset),
    List(Vec<Claim>),
    Map(Vec<(String, Claim)>),
}

impl Claims {
    /// Reads a map of claims; expressions may read `names`. `None` after an error was reported.
    pub fn read(node: &Node, names: Names, settings: &Arc<Settings>, problems: &Problems) -> Option<Self> {
        Fields::of(node, "a map of claims", problems)?;
        let mut reader = Reader { settings, offered: names, problems, used: Names::NONE, left: CLAIMS_MAX };
        let members = reader.map(node, 0)?;
        Some(Self { members, names: reader.used })
    }

    /// What the expressions read.
    pub fn names(&self) -> Names {
        self.names
    }

    /// Whether there is such a claim.
    pub fn has(&self, name: &str) -> bool {
        self.members.iter().any(|(member, _)| member == name)
    }

    /// The claims as a JSON object.
    ///
    /// # Errors
    /// Where an expression fails, with the request's fault or the configuration's.
    pub fn json(&self, inputs: &dyn Inputs) -> Result<Zeroizing<String>, Error> {
        let mut out = Zeroizing::new(String::with_capacity(256));
        write_map(&self.members, inputs, &mut out)?;
        Ok(out)
    }
}

fn write_map(members: &[(String, Claim)], inputs: &dyn Inputs, out: &mut String) -> Result<(), Error> {
    out.push('{');
    let mut first = true;
    for (name, claim) in members {
        let mut value = Zeroizing::new(String::new());
        write(claim, inputs, &mut value)?;
        if value.is_empty() || *value == "null" {
            continue;
        }
        if !std::mem::replace(&mut first, false) {
            out.push(',');
        }
        out.push_str(&serde_json::to_string(name).map_err(|_| Error::Internal("a claim's name that JSON cannot spell".into()))?);
        out.push(':');
        out.push_str(&value);
    }
    out.push('}');
    Ok(())
}

/// Appends a claim's JSON; nothing where it is unset and to be left out.
fn write(claim: &Claim, inputs: &dyn Inputs, out: &mut String) -> Result<(), Error> {
    match claim {
        Claim::Ready(json) => out.push_str(json.expose()),
        Claim::Computed(template, unset) => {
            let failed = |failure: Failure| fill::refused(&failure, template.names());
            if let Some(rendered) = template.render_set(inputs, *unset).map_err(failed)? {
                rendered.value.write_json(Moments::Seconds, out).map_err(|why| Error::Internal(format!("`{template:?}`: {why}")))?;
            }
        }
        Claim::List(items) => {
            out.push('[');
            let mut first = true;
            for item in items {
                let mut value = Zeroizing::new(String::new());
                write(item, inputs, &mut value)?;
                if value.is_empty() {
                    continue;
                }
                if !std::mem::replace(&mut first, false) {
                    out.push(',');
                }
                out.push_str(&value);
            }
            out.push(']');
        }
        Claim::Map(members) => write_map(members, inputs, out)?,
    }
    Ok(())
}

struct Reader<'r> {
    settings: &'r Settings,
    offered: Names,
    problems: &'r Problems,
    used: Names,
    left: usize,
}

impl Reader<'_> {
    fn map(&mut self, node: &Node, depth: usize) -> Option<Vec<(String, Claim)>> {
        let mut members = Vec::new();
        let mut good = true;
        for entry in node.entries() {
            match self.claim(&entry.node, depth + 1) {
                Ok(claim) => members.extend(claim.map(|claim| (entry.key.to_string(), claim))),
                Err(()) => good = false,
            }
        }
        good.then_some(members)
    }

    /// `Ok(None)` for a claim that is left out.
    fn claim(&mut self, node: &Node, depth: usize) -> Result<Option<Claim>, ()> {
        if self.left == 0 || depth > DEPTH_MAX {
            self.problems.error(node.place, format!("these are more than {CLAIMS_MAX} claims, or nested deeper than {DEPTH_MAX}"), "");
            return Err(());
        }
        self.left -= 1;
        match &node.value {
            Tree::Null => Ok(None),
            Tree::Map(_) if node.get("omit_if_unset").is_some() => self.switched(node),
            Tree::Map(_) => self.map(node, depth).map(|members| Some(Claim::Map(members))).ok_or(()),
            Tree::List(items) => {
                let claims: Vec<_> = items.iter().map(|item| self.claim(item, depth + 1)).collect();
                Ok(Some(Claim::List(claims.into_iter().collect::<Result<Vec<_>, ()>>()?.into_iter().flatten().collect())))
            }
            _ => self.scalar(node, Unset::Kept).map(Some),
        }
    }

    /// `{ value, omit_if_unset }`.
    fn switched(&mut self, node: &Node) -> Result<Option<Claim>, ()> {
        let omit = node.get("omit_if_unset").and_then(|flag| flag.flag(self.problems)).ok_or(())?;
        if let Some(stray) = node.entries().iter().find(|e| !["value", "omit_if_unset"].contains(&&*e.key)) {
            self.problems.error(
                stray.place,
                format!("unknown key `{}` beside `omit_if_unset`", stray.key),
                "{ value: …, omit_if_unset: true }",
            );
            return Err(());
        }
        let Some(value) = node.get("value") else {
            self.problems.error(node.place, "`value` is missing", "{ value: …, omit_if_unset: true }");
            return Err(());
        };
        let unset = match &value.value {
            Tree::Null => true,
            Tree::Unresolved(unresolved) => unresolved.unset,
            Tree::Text(text) => text.is_empty(),
            _ => false,
        };
        if omit && unset {
            return Ok(None);
        }
        self.scalar(value, if omit { Unset::Omitted } else { Unset::Kept }).map(Some)
    }

    fn scalar(&mut self, node: &Node, unset: Unset) -> Result<Claim, ()> {
        if node.is_template() {
            let template = expr::read(node, &self.settings.scope(self.offered), self.problems).ok_or(())?;
            self.used = self.used.with(template.names());
            return Ok(Claim::Computed(template, unset));
        }
        let value = json(node, self.problems).ok_or(())?;
        Ok(Claim::Ready(Secret::new(value.to_string())))
    }
}
