//! `apply`: where what a flow has captured goes. It owns these places: a client's value for any of them is dropped.

use std::sync::Arc;

use http::HeaderName;

use super::body::{Reader, text};
use super::facts::Facts;
use crate::auth::captured::Captured;
use crate::auth::field::Field;
use crate::auth::merge::Merge;
use crate::auth::whose::Whose;
use crate::auth::{Context, Owned};
use crate::call::{Call, Occasion};
use crate::clock::Clock;
use crate::error::Error;
use crate::expr::{Names, Settings, Template, Unset};
use crate::fill::{Fill, Fills, Spot};
use crate::tree::{Entry, Fields, Node, Problems};

/// What the values may read.
pub const INPUTS: Names = Names::FIXED.with(Names::CLIENT).with(Names::REQUEST).with(Names::ATTEMPT).with(Names::GRANTED);
/// Most values of one kind.
const ENTRIES_MAX: usize = 64;
/// What the framing of the upstream's request owns, or has a key of its own.
const UNPLACEABLE: [&str; 9] = ["host", "content-length", "transfer-encoding", "connection", "te", "upgrade", "expect", "cookie", "via"];

/// Where the results go.
#[derive(Debug)]
pub struct Apply {
    headers: Vec<(HeaderName, Arc<Template>)>,
    params: Vec<(String, Vec<Arc<Template>>)>,
    cookies: Vec<(String, Arc<Template>)>,
    members: Vec<String>,
    /// The names of captures that it shows, in their order.
    captures: Vec<String>,
    fills: Option<Fills>,
    merge: Option<Merge>,
    settings: Arc<Settings>,
}

impl Apply {
    /// Nothing goes anywhere: what is captured is read by the resource's own expressions.
    pub fn nothing(context: &Context<'_>) -> Self {
        Self {
            headers: Vec::new(),
            params: Vec::new(),
            cookies: Vec::new(),
            members: Vec::new(),
            captures: Vec::new(),
            fills: None,
            merge: None,
            settings: context.settings.clone(),
        }
    }

    /// Reads `{ headers, params, cookies, body }`.
    pub fn read(node: &Node, context: &Context<'_>, problems: &Problems) -> Option<Self> {
        let fields = Fields::of(node, "a map of `headers`, `params`, `cookies` and `body`", problems)?;
        let reader = Reader { settings: context.settings, names: INPUTS, problems };
        let headers = entries(fields.node("headers"), problems, |entry| {
            let name = HeaderName::from_bytes(entry.key.as_bytes()).ok().filter(|name| !UNPLACEABLE.contains(&name.as_str()));
            let Some(name) = name else {
                problems.error(
                    entry.place,
                    format!("`{}` cannot be set here", entry.key),
                    "a header of the API's own; cookies go under `cookies`",
                );
                return None;
            };
            Some((name, Arc::new(reader.template(&entry.node)?)))
        });
        let params = entries(fields.node("params"), problems, |entry| {
            let read: Vec<_> =
                entry.node.items().iter().map(|item| crate::expr::read(item, &reader.scope(), problems).map(Arc::new)).collect();
            Some((entry.key.to_string(), read.into_iter().collect::<Option<_>>()?))
        });
        let cookies = entries(fields.node("cookies"), problems, |entry| {
            let good = !entry.key.is_empty() && entry.key.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b));
            if !good {
                problems.error(entry.place, format!("`{}` is no name of a cookie", entry.key), "");
                return None;
            }
            Some((entry.key.to_string(), Arc::new(reader.template(&entry.node)?)))
        });
        let body = fields.node("body");
        let merge = body.map(|node| Merge::read(node, context.settings, context.buffer, problems));
        // Read by `config::resource`: it leads the whole resource.
        fields.raw("base_url");
        fields.finish();
        let (headers, params, cookies) = (headers?, params?, cookies?);
        let merge = match merge {
            Some(merge) => Some(merge?),
            None => None,
        };
        let mut captures = Vec::new();
        super::mentioned(node, &mut captures);
        let fills = fills(&headers, &params, &cookies);
        let fills = (!fills.is_empty()).then(|| Fills::all(fills, context.settings, context.buffer));
        Some(Self { headers, params, cookies, members: members(body), captures, fills, merge, settings: context.settings.clone() })
    }

    /// What it owns.
    pub fn owns(&self) -> Owned {
        Owned {
            headers: self.headers.iter().map(|(name, _)| name.clone()).collect(),
            params: self.params.iter().map(|(name, _)| name.clone()).collect(),
            cookies: self.cookies.iter().map(|(name, _)| name.clone()).collect(),
            members: self.members.clone(),
            ..Owned::default()
        }
    }

    /// The names of captures that it shows, in their order.
    pub fn captures(&self) -> impl Iterator<Item = &str> {
        self.captures.iter().map(String::as_str)
    }

    /// Whether everything that does not depend on a request can be presented: else nobody would ever get in with it.
    ///
    /// # Errors
    /// What cannot be, and nothing of its value.
    pub fn judge(&self, captured: &Captured, whose: &Whose, clock: &Clock) -> Result<(), String> {
        let occasion = Occasion::new(clock.clone());
        let captured = captured.value();
        let facts = Facts { settings: &self.settings, captured: &captured, occasion: &occasion, whose, answer: None };
        let steady = |template: &&Arc<Template>| template.names().without(super::facts::STEP).is_empty();
        for (name, template) in self.headers.iter().filter(|(_, template)| steady(&template)) {
            let value = text(template, &facts).map_err(|why| format!("`apply.headers.{name}`: {why}"))?;
            Field::new(&value).map_err(|why| format!("the value for `apply.headers.{name}` is no legal one: {why}"))?;
        }
        for (name, templates) in &self.params {
            for template in templates.iter().filter(steady) {
                let made = template.texts(&facts, Unset::Kept, |text| text.into());
                made.map_err(|failure| format!("`apply.params.{name}`: {failure}"))?;
            }
        }
        for (name, template) in self.cookies.iter().filter(|(_, template)| steady(&template)) {
            let value = text(template, &facts).map_err(|why| format!("`apply.cookies.{name}`: {why}"))?;
            if !value.bytes().all(|b| matches!(b, 0x21 | 0x23..=0x2b | 0x2d..=0x3a | 0x3c..=0x5b | 0x5d..=0x7e)) {
                return Err(format!("the value for `apply.cookies.{name}` holds a character that no cookie can hold"));
            }
        }
        Ok(())
    }

    /// Puts everything into a call that has been granted what this reads.
    ///
    /// # Errors
    /// What cannot be computed for this request, or has no place in it.
    pub async fn put(&self, call: &mut Call) -> Result<(), Error> {
        if let Some(merge) = &self.merge {
            merge.put(call).await?;
        }
        if let Some(fills) = &self.fills {
            fills.put(call).await?;
        }
        Ok(())
    }
}

/// Reads a map; `null` leaves an entry out.
fn entries<T>(node: Option<&Node>, problems: &Problems, read: impl Fn(&Entry) -> Option<T>) -> Option<Vec<T>> {
    let Some(node) = node else { return Some(Vec::new()) };
    Fields::of(node, "a map of names and values", problems)?;
    if node.entries().len() > ENTRIES_MAX {
        problems.error(node.place, format!("more than {ENTRIES_MAX} entries"), "");
        return None;
    }
    let read: Vec<Option<T>> = node.entries().iter().filter(|entry| !entry.node.is_null()).map(read).collect();
    read.into_iter().collect()
}

fn fills(
    headers: &[(HeaderName, Arc<Template>)],
    params: &[(String, Vec<Arc<Template>>)],
    cookies: &[(String, Arc<Template>)],
) -> Vec<Fill> {
    let fill = |spot, templates| Fill { spot, templates, unset: Unset::Kept };
    let headers = headers.iter().map(|(name, template)| fill(Spot::Header(name.clone()), vec![template.clone()]));
    let params = params.iter().map(|(name, templates)| fill(Spot::Param(name.clone()), templates.clone()));
    let cookies = cookies.iter().map(|(name, template)| fill(Spot::Cookie(name.clone()), vec![template.clone()]));
    params.chain(cookies).chain(headers).collect()
}

/// The members and fields of bodies that are set.
fn members(body: Option<&Node>) -> Vec<String> {
    let maps = ["json", "form"].into_iter().filter_map(|key| body?.get(key));
    maps.flat_map(Node::entries).map(|entry| entry.key.to_string()).collect()
}
