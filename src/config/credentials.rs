//! `credentials` of a resource (ruling E17): schemes by name, which `auth: { use: name }` puts to use in the resource and in
//! its routes. What is written once is one credential wherever it is used: its grant, its tokens and their renewal are shared.

use std::collections::BTreeSet;

use crate::tree::{Entry, Fields, Node, Problems, Value, closest};

const KEY: &str = "credentials";
const USE: &str = "use";

/// The resource with every `use` replaced by what it names; `None` where there is neither.
pub fn put_in(resource: &Node, problems: &Problems) -> Option<Node> {
    let known = resource.get(KEY);
    if known.is_none() && !uses(resource) {
        return None;
    }
    let mut user = User { known: known.map(Node::entries).unwrap_or_default(), used: BTreeSet::new(), problems };
    if let Some(known) = known {
        Fields::of(known, "a map of schemes by name", problems);
        for entry in user.known.iter().filter(|entry| names(&entry.node).is_some()) {
            problems.error(entry.node.place, "a credential cannot use another", "write its scheme");
        }
    }
    let put_in = user.holder(resource);
    for entry in user.known.iter().filter(|entry| !user.used.contains(&*entry.key)) {
        problems.warn(entry.place, format!("the credential `{}` is used nowhere", entry.key), format!("auth: {{ use: {} }}", entry.key));
    }
    Some(put_in)
}

/// Whether the resource or one of its routes uses a credential.
fn uses(resource: &Node) -> bool {
    let routes = resource.get("routes").map(Node::items).unwrap_or_default();
    let auths = std::iter::once(resource).chain(routes).filter_map(|node| node.get("auth"));
    auths.into_iter().any(|auth| auth.items().iter().any(|scheme| scheme.get(USE).is_some()))
}

/// What a scheme names instead of being one.
fn names(scheme: &Node) -> Option<&Node> {
    scheme.get(USE)
}

struct User<'u> {
    known: &'u [Entry],
    used: BTreeSet<&'u str>,
    problems: &'u Problems,
}

impl User<'_> {
    /// A resource or a route.
    fn holder(&mut self, node: &Node) -> Node {
        let Value::Map(entries) = &node.value else { return node.clone() };
        let entry = |e: &Entry, this: &mut Self| {
            let node = match &*e.key {
                "auth" => this.auth(&e.node),
                "routes" => match &e.node.value {
                    Value::List(routes) => {
                        Node { place: e.node.place, value: Value::List(routes.iter().map(|r| this.holder(r)).collect()) }
                    }
                    _ => e.node.clone(),
                },
                _ => e.node.clone(),
            };
            Entry { key: e.key.clone(), place: e.place, node }
        };
        Node { place: node.place, value: Value::Map(entries.iter().map(|e| entry(e, self)).collect()) }
    }

    fn auth(&mut self, node: &Node) -> Node {
        if let Value::List(schemes) = &node.value {
            // One that stands for several is several here too.
            let all = schemes.iter().flat_map(|scheme| {
                let put = self.scheme(scheme);
                if let (Value::List(several), true) = (&put.value, names(scheme).is_some()) { several.clone() } else { vec![put] }
            });
            return Node { place: node.place, value: Value::List(all.collect()) };
        }
        self.scheme(node)
    }

    fn scheme(&mut self, node: &Node) -> Node {
        let Some(name) = names(node) else { return node.clone() };
        if node.entries().len() > 1 {
            self.problems.error(node.place, "`use` stands alone: what it names says everything", "auth: { use: NAME }");
        }
        // What is wrong is reported once, and then stands for nothing.
        let nothing = Node { place: node.place, value: Value::Text("none".into()) };
        let Some(word) = name.text(self.problems) else { return nothing };
        match self.known.iter().find(|entry| *entry.key == *word) {
            Some(entry) => {
                self.used.insert(&entry.key);
                entry.node.clone()
            }
            None => {
                let all: Vec<&str> = self.known.iter().map(|entry| &*entry.key).collect();
                let hint = if all.is_empty() { format!("credentials: {{ {word}: {{ … }} }}") } else { closest(&word, &all) };
                self.problems.error(name.place, format!("there is no credential `{word}`"), hint);
                nothing
            }
        }
    }
}
