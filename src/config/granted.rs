//! What expressions read of tokens must be there: whatever reads `captured` or `token` needs a scheme under `auth` that
//! gives it, in the resource and in each of its routes.

use crate::auth::Auth;
use crate::auth::granted::Gives;
use crate::expr::{self, Name, Names, Settings};
use crate::middleware::shape;
use crate::tree::{Entry, Node, Place, Problems, Value, closest};

/// Keys whose texts may read it; those that a route may lay over the resource's come first.
const KEYS: [&str; 5] = ["headers", "params", "cookies", "body", "base_url"];
const OVERLAID: usize = 2;

/// Who reads, and what there is to read.
pub struct Readers<'r> {
    settings: &'r Settings,
    gives: Vec<Gives>,
    problems: &'r Problems,
}

impl<'r> Readers<'r> {
    /// Readers of what these schemes give. `place` is where they stand.
    pub fn new(auth: Option<&Auth>, place: Place, settings: &'r Settings, problems: &'r Problems) -> Option<Self> {
        let gives = auth.map(Auth::gives).unwrap_or_default();
        let mut all: Vec<&str> = gives.iter().flat_map(|gives| gives.captures.iter().map(String::as_str)).collect();
        all.sort_unstable();
        if let Some(twice) = all.windows(2).find(|pair| pair[0] == pair[1]) {
            problems.error(place, format!("two schemes capture `{}`", twice[0]), "give one of them another name");
            return None;
        }
        Some(Self { settings, gives, problems })
    }

    /// How much of what a resource reads is not there.
    pub fn of_resource(&self, resource: &Node) -> usize {
        KEYS.iter().filter_map(|key| resource.get(key)).map(|node| self.subtree(node)).sum()
    }

    /// The same for a route. Where it has an `auth` of its own, the resource's headers and parameters must hold under that
    /// too, unless the route replaces them.
    pub fn of_route(&self, resource: &Node, route: &Node) -> usize {
        let own: usize = KEYS.iter().filter_map(|key| route.get(key)).map(|node| self.subtree(node)).sum();
        if route.get("auth").is_none() {
            return own;
        }
        let inherited = |(at, key): (usize, &&str)| -> usize {
            let own = route.get(key).filter(|_| at < OVERLAID).map(Node::entries).unwrap_or_default();
            let replaced = |entry: &Entry| own.iter().any(|own| own.key.eq_ignore_ascii_case(&entry.key));
            let entries = resource.get(key).map(Node::entries).unwrap_or_default();
            entries.iter().filter(|entry| !replaced(entry)).map(|entry| self.subtree(&entry.node)).sum()
        };
        own + KEYS.iter().enumerate().map(inherited).sum::<usize>()
    }

    fn subtree(&self, node: &Node) -> usize {
        match &node.value {
            Value::List(items) => items.iter().map(|item| self.subtree(item)).sum(),
            Value::Map(entries) => entries.iter().map(|entry| self.subtree(&entry.node)).sum(),
            _ if node.is_template() => usize::from(!self.template(node)),
            _ => 0,
        }
    }

    /// Whether all that a template reads is there. What cannot be compiled is reported by whoever reads the key.
    pub fn template(&self, node: &Node) -> bool {
        let Some(template) = expr::read(node, &self.settings.scope(shape::SHAPING), &Problems::default()) else { return true };
        let names = template.names().and(Names::GRANTED);
        let wrong = |what: String, hint: String| {
            self.problems.error(node.place, what, hint);
            false
        };
        let Some(first) = names.iter().next() else { return true };
        if self.gives.is_empty() {
            let hint = "it comes with a token: of an `oauth2_…` scheme, `flow` and their like";
            return wrong(format!("`{first}` is read here, and nothing under `auth` has a token"), hint.into());
        }
        if self.gives.len() > 1 && names.meets(Names::TOKEN) {
            return wrong(format!("`{first}` could be of several schemes"), "capture what is needed, and read it by its name".into());
        }
        let known: Vec<&str> = self.gives.iter().flat_map(|gives| gives.captures.iter().map(String::as_str)).collect();
        if names.has(Name::Captured)
            && let Some(unknown) = template.captures().into_iter().find(|name| !known.contains(name))
        {
            let hint = if known.is_empty() { format!("capture: {{ {unknown}: json.… }}") } else { closest(unknown, &known) };
            return wrong(format!("nothing captures `{unknown}`"), hint);
        }
        true
    }
}
