//! Values of token calls as the operator writes them: JSON in which every text may be an expression, made for each call
//! (rulings C8, E7). What the place offers is said by whoever reads one; nothing of a request is ever offered, as one token
//! serves many of them (ruling G4).

use std::sync::Arc;

use serde_json::{Map, Value as Json};
use zeroize::Zeroizing;

use crate::auth::assertion::json;
use crate::auth::token::Failure;
use crate::error::Error;
use crate::expr::{self, Inputs, Moments, Names, Rendered, Settings, Template, Unset};
use crate::fill;
use crate::tree::{Node, Problems, Value as Tree};

/// What the first call of a grant may read.
pub const FIRST: Names = Names::FIXED.with(Names::CLIENT).with(Names::ATTEMPT);
/// What a refresh may read: the token that it renews, too.
pub const REFRESH: Names = FIRST.with(Names::GRANTED);
/// Deepest nesting.
const DEPTH_MAX: usize = 16;

/// A value.
#[derive(Clone, Debug)]
pub enum Said {
    /// As written.
    Ready(Json),
    /// Made for each call.
    Computed(Arc<Template>),
    /// A list that holds something to be made.
    List(Vec<Said>),
    /// A map that does.
    Map(Vec<(String, Said)>),
}

/// A value that was made, and whether a secret went into it.
pub struct Made {
    /// The value.
    pub json: Json,
    /// Whether it is secret.
    pub secret: bool,
}

impl Said {
    /// Reads one. `None` after an error was reported.
    pub fn read(node: &Node, offered: Names, settings: &Settings, problems: &Problems) -> Option<Self> {
        Self::at(0, node, offered, settings, problems)
    }

    fn at(depth: usize, node: &Node, offered: Names, settings: &Settings, problems: &Problems) -> Option<Self> {
        if depth > DEPTH_MAX {
            problems.error(node.place, "this is nested too deeply", "");
            return None;
        }
        let below = |node: &Node| Self::at(depth + 1, node, offered, settings, problems);
        Some(match &node.value {
            Tree::List(items) if items.iter().any(holds_template) => {
                Self::List(items.iter().map(below).collect::<Vec<_>>().into_iter().collect::<Option<_>>()?)
            }
            Tree::Map(entries) if entries.iter().any(|e| holds_template(&e.node)) => {
                let all: Vec<Option<_>> = entries.iter().map(|e| Some((e.key.to_string(), below(&e.node)?))).collect();
                Self::Map(all.into_iter().collect::<Option<_>>()?)
            }
            _ if node.is_template() => Self::Computed(Arc::new(template(node, offered, settings, problems)?)),
            _ => Self::Ready(json(node, problems)?),
        })
    }

    /// What its expressions read.
    pub fn names(&self) -> Names {
        match self {
            Self::Ready(_) => Names::NONE,
            Self::Computed(template) => template.names(),
            Self::List(items) => items.iter().fold(Names::NONE, |names, item| names.with(item.names())),
            Self::Map(entries) => entries.iter().fold(Names::NONE, |names, (_, value)| names.with(value.names())),
        }
    }

    /// The names of captures that its expressions read.
    pub fn captures(&self) -> Vec<&str> {
        match self {
            Self::Ready(_) => Vec::new(),
            Self::Computed(template) => template.captures(),
            Self::List(items) => items.iter().flat_map(Self::captures).collect(),
            Self::Map(entries) => entries.iter().flat_map(|(_, value)| value.captures()).collect(),
        }
    }

    /// The value, now. `moments`: how one is written.
    ///
    /// # Errors
    /// Where an expression fails.
    pub fn make(&self, inputs: &dyn Inputs, moments: Moments) -> Result<Made, Failure> {
        Ok(match self {
            Self::Ready(json) => Made { json: json.clone(), secret: false },
            Self::Computed(template) => {
                let rendered = rendered(template, inputs)?;
                let mut text = Zeroizing::new(String::new());
                let unwritable = |why: String| Failure::Own(Error::Internal(format!("`{template:?}`: {why}")));
                rendered.value.write_json(moments, &mut text).map_err(|why| unwritable(why.to_string()))?;
                let json = serde_json::from_str(&text).map_err(|_| unwritable("it is no JSON".into()))?;
                Made { json, secret: rendered.secret }
            }
            Self::List(items) => {
                let made: Vec<Made> = items.iter().map(|item| item.make(inputs, moments)).collect::<Result<_, _>>()?;
                let secret = made.iter().any(|made| made.secret);
                Made { json: made.into_iter().map(|made| made.json).collect(), secret }
            }
            Self::Map(entries) => {
                let mut map = Map::new();
                let mut secret = false;
                for (name, value) in entries {
                    let made = value.make(inputs, moments)?;
                    secret |= made.secret;
                    map.insert(name.clone(), made.json);
                }
                Made { json: map.into(), secret }
            }
        })
    }
}

/// Compiles a text of a token call. `None` after an error was reported.
pub fn template(node: &Node, offered: Names, settings: &Settings, problems: &Problems) -> Option<Template> {
    // Offered only to say why not.
    let template = expr::read(node, &settings.scope(offered.with(Names::REQUEST)), problems)?;
    if let Some(name) = template.names().and(Names::REQUEST).iter().next() {
        let hint = "what a caller brings is read under `headers`, `params` and `body` of the resource";
        problems.error(node.place, format!("`{name}` has no meaning in a token call: one token serves many requests"), hint);
        return None;
    }
    Some(template)
}

/// The text of a template, with whether it is secret.
///
/// # Errors
/// Where an expression fails, or has no text.
pub fn text(template: &Template, inputs: &dyn Inputs) -> Result<(Zeroizing<String>, bool), Failure> {
    let rendered = template.text_set(inputs, Unset::Kept, |text| text.into()).map_err(|failure| failed(&failure, template))?;
    let Some(Rendered { value, secret }) = rendered else { return Ok((Zeroizing::default(), false)) };
    let mut text = Zeroizing::new(String::new());
    // A rendered text has one.
    let _ = value.write_text(&mut text);
    Ok((text, secret))
}

fn rendered(template: &Template, inputs: &dyn Inputs) -> Result<Rendered, Failure> {
    template.render(inputs).map_err(|failure| failed(&failure, template))
}

/// What a failed expression means for the token.
pub fn failed(failure: &expr::Failure, template: &Template) -> Failure {
    Failure::Own(fill::refused(failure, template.names()))
}

fn holds_template(node: &Node) -> bool {
    match &node.value {
        Tree::List(items) => items.iter().any(holds_template),
        Tree::Map(entries) => entries.iter().any(|e| holds_template(&e.node)),
        _ => node.is_template(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::auth::support::node;
    use crate::expr::{Given, Name, Value};

    fn made(written: Json) -> Result<Made, String> {
        let problems = Problems::default();
        let said = Said::read(&node(&written), FIRST, &Settings::default(), &problems);
        let Some(said) = said else { return Err(problems.into_sorted().into_iter().map(|p| p.message).collect()) };
        let inputs = Given::default()
            .with(Name::ClientName, Value::text("ann"))
            .with(Name::Now, Value::Moment(expr::Moment::from_millis(5000).unwrap()));
        said.make(&inputs, Moments::Seconds).map_err(|failure| failure.cause())
    }

    #[test]
    fn an_expression_keeps_its_type_wherever_it_stands() {
        let written = json!({ "a": "{{ client.name }}", "b": ["x", "{{ now }}", { "c": "u-{{ client.name }}" }], "d": 1.50, "e": "{{ 7 }}", "f": null });
        assert_eq!(made(written).unwrap().json, json!({ "a": "ann", "b": ["x", 5, { "c": "u-ann" }], "d": 1.50, "e": 7, "f": null }));
    }

    #[test]
    fn nothing_of_a_request_and_no_token_is_offered_to_a_first_call() {
        for wrong in ["{{ request.headers.x }}", "a{{ request.body }}", "{{ token.access }}", "{{ captured.x }}", "{{ status }}"] {
            assert!(made(json!({ "a": [wrong] })).is_err(), "{wrong}");
        }
        assert!(made(json!("{{ request.path }}")).err().unwrap().contains("one token serves many requests"));
    }

    #[test]
    fn what_fails_says_which_expression() {
        assert!(made(json!("{{ client.claims.sub }}")).err().unwrap().contains("client.claims"));
    }
}
