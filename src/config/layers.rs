//! One layer over another, on trees whose nodes keep their place: maps merge key by key, everything else is replaced
//! (rulings A1 and C17). Where a map holds one of several kinds of a thing, another kind replaces it whole.

use std::collections::HashMap;

use crate::tree::{Entry, Node, Value};

/// Maps up to this size are searched by comparing.
const SMALL: usize = 16;

/// Where a map holds one of several kinds, by its way from the root (`*` is any key), and the keys that tell them
/// apart; none means that every key does.
const ONE_OF: [(&[&str], &[&str]); 10] = [
    (&["store"], &[]),
    (&["clients", "*"], &["api_key", "jwt", "tls", "unix"]),
    (&["resources", "*", "auth"], &[]),
    (&["resources", "*", "tunnel"], &[]),
    (&["resources", "*", "credentials", "*"], &[]),
    (&["resources", "*", "auth", "*", "place"], PLACES),
    (&["defaults", "auth"], &[]),
    (&["defaults", "tunnel"], &[]),
    (&["defaults", "credentials", "*"], &[]),
    (&["defaults", "auth", "*", "place"], PLACES),
];
const PLACES: &[&str] = &["header", "query", "cookie", "body"];

/// Schemes whose one main field may be written in place of the map, and that field (ruling G10).
const SHORT: [(&str, &str); 1] = [("bearer", "token")];

/// Lays `over` on `base`, both the root of a configuration.
pub fn merge(base: &mut Node, over: Node) {
    Merge { way: Vec::new() }.node(base, over);
}

/// Lays `over` on `base`, both the body of a resource. What comes of it stands where `over` stood.
pub fn merge_resource(base: &mut Node, over: Node) {
    let place = over.place;
    Merge { way: vec!["resources".into(), "*".into()] }.node(base, over);
    base.place = place;
}

struct Merge {
    way: Vec<Box<str>>,
}

impl Merge {
    fn node(&mut self, base: &mut Node, over: Node) {
        let over = self.lengthen(base, over);
        if !matches!((&base.value, &over.value), (Value::Map(_), Value::Map(_))) || self.another_kind(base, &over) {
            *base = over;
            return;
        }
        let (Value::Map(base), Value::Map(over)) = (&mut base.value, over.value) else { return };
        let index: Option<HashMap<Box<str>, usize>> =
            (base.len() > SMALL && over.len() > 1).then(|| base.iter().enumerate().map(|(at, e)| (e.key.clone(), at)).collect());
        for entry in over {
            let at = match &index {
                Some(index) => index.get(&entry.key).copied(),
                None => base.iter().position(|e| e.key == entry.key),
            };
            match at {
                Some(at) => self.entry(&mut base[at], entry),
                None => base.push(entry),
            }
        }
    }

    fn entry(&mut self, base: &mut Entry, over: Entry) {
        // A key that now says something else stands where it was said last.
        let merged = matches!((&base.node.value, &over.node.value), (Value::Map(_), Value::Map(_)));
        if !merged {
            base.place = over.place;
        }
        self.way.push(over.key);
        self.node(&mut base.node, over.node);
        self.way.pop();
    }

    fn another_kind(&self, base: &Node, over: &Node) -> bool {
        let Some((_, kinds)) = ONE_OF.iter().find(|(way, _)| self.is_at(way)) else { return false };
        let tells = |e: &&Entry| kinds.is_empty() || kinds.contains(&&*e.key);
        let mut new = over.entries().iter().filter(tells).peekable();
        let has_old = base.entries().iter().any(|e| tells(&e));
        new.peek().is_some() && has_old && new.all(|e| base.get(&e.key).is_none())
    }

    fn is_at(&self, way: &[&str]) -> bool {
        way.len() == self.way.len() && way.iter().zip(&self.way).all(|(is, at)| *is == "*" || *is == &**at)
    }

    /// The short form of a scheme beside its long one is written out, so that the two can merge.
    fn lengthen(&self, base: &mut Node, over: Node) -> Node {
        let Some(scheme) = self.way.last() else { return over };
        let Some((_, field)) = SHORT.iter().find(|(name, _)| *name == &**scheme) else { return over };
        let in_auth = self.way.len() >= 2 && self.way[self.way.len() - 2].as_ref() == "auth";
        if !in_auth {
            return over;
        }
        let is_text = |node: &Node| matches!(node.value, Value::Text(_) | Value::Number(_) | Value::Secret(_));
        if is_text(base) && matches!(over.value, Value::Map(_)) {
            let whole = std::mem::replace(base, Node { place: base.place, value: Value::Null });
            *base = under(field, whole);
        } else if matches!(base.value, Value::Map(_)) && is_text(&over) {
            return under(field, over);
        }
        over
    }
}

/// A map with one key, which stands where its value stands.
fn under(key: &str, node: Node) -> Node {
    Node { place: node.place, value: Value::Map(vec![Entry { key: key.into(), place: node.place, node }]) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Problems;

    fn tree(text: &str, file: u16) -> Node {
        super::super::raw::parse(text, file, &Problems::default()).unwrap()
    }

    fn merged(base: &str, over: &str) -> Node {
        let mut node = tree(base, 0);
        merge(&mut node, tree(over, 1));
        node
    }

    fn shown(node: &Node) -> String {
        match &node.value {
            Value::Map(entries) => {
                let all: Vec<String> = entries.iter().map(|e| format!("{}:{}", e.key, shown(&e.node))).collect();
                format!("{{{}}}", all.join(","))
            }
            Value::List(items) => format!("[{}]", items.iter().map(shown).collect::<Vec<_>>().join(",")),
            Value::Null => "~".into(),
            _ => node.word().unwrap_or("?").to_owned(),
        }
    }

    #[test]
    fn maps_merge_key_by_key_and_all_else_is_replaced() {
        for (base, over, result) in [
            ("a: {b: 1, c: 2}", "a: {c: 3, d: 4}", "{a:{b:1,c:3,d:4}}"),
            ("a: [1, 2]", "a: [3]", "{a:[3]}"),
            ("a: {b: 1}", "a: x", "{a:x}"),
            ("a: x", "a: {b: 1}", "{a:{b:1}}"),
            ("a: {b: {c: 1}}", "a: {b: ~}", "{a:{b:~}}"),
            ("a: 1", "{}", "{a:1}"),
        ] {
            assert_eq!(shown(&merged(base, over)), result, "{base} + {over}");
        }
    }

    #[test]
    fn one_of_several_kinds_merges_with_its_own_and_is_replaced_by_another() {
        let r = |auth: &str| format!("resources: {{a: {{auth: {auth}}}}}");
        for (base, over, result) in [
            ("{basic: {username: u, password: p}}", "{basic: {password: q}}", "{basic:{username:u,password:q}}"),
            ("{basic: {username: u}}", "{bearer: t}", "{bearer:t}"),
            ("{basic: {username: u}}", "none", "none"),
            ("none", "{bearer: t}", "{bearer:t}"),
            ("{bearer: t}", "{bearer: u}", "{bearer:u}"),
            ("{bearer: {token: t, scheme: s}}", "{bearer: u}", "{bearer:{token:u,scheme:s}}"),
            ("{bearer: t}", "{bearer: {scheme: s}}", "{bearer:{token:t,scheme:s}}"),
            ("{jwt: {place: {header: A, scheme: B}}}", "{jwt: {place: {query: q}}}", "{jwt:{place:{query:q}}}"),
            ("{jwt: {place: {header: A, scheme: B}}}", "{jwt: {place: {scheme: C}}}", "{jwt:{place:{header:A,scheme:C}}}"),
        ] {
            let node = merged(&r(base), &r(over));
            assert_eq!(shown(node.get("resources").unwrap().get("a").unwrap().get("auth").unwrap()), result, "{base} + {over}");
        }
        assert_eq!(shown(&merged("store: {file: {path: a}}", "store: {redis: {url: b}}")), "{store:{redis:{url:b}}}");
        assert_eq!(
            shown(&merged("clients: {a: {tls: {san: x}, groups: [g]}}", "clients: {a: {groups: [h]}}")),
            "{clients:{a:{tls:{san:x},groups:[h]}}}"
        );
        // A header of that name is no scheme.
        let headers = "resources: {a: {headers: {auth: {value: x, locked: true}}}}";
        assert_eq!(
            shown(&merged(headers, "resources: {a: {headers: {auth: {omit_if_unset: true}}}}")),
            "{resources:{a:{headers:{auth:{value:x,locked:true,omit_if_unset:true}}}}}"
        );
    }

    #[test]
    fn every_value_keeps_the_place_where_it_was_said() {
        let node = merged("a: {b: 1, c: 2}\nd: 1", "a: {c: 3}\nd: {e: 1}");
        let a = node.get("a").unwrap();
        let files = |node: &Node| -> Vec<(u16, u16)> { node.entries().iter().map(|e| (e.place.file, e.node.place.file)).collect() };
        assert_eq!(files(a), [(0, 0), (1, 1)]);
        assert_eq!(files(&node), [(0, 0), (1, 1)]);
        let mut base = tree("b: 1", 0);
        merge_resource(&mut base, tree("c: 1", 1));
        assert_eq!((base.place.file, files(&base)), (1, vec![(0, 0), (1, 1)]));
    }

    #[test]
    fn thousands_of_keys_over_thousands_of_keys_merge_in_no_time() {
        let many = |value: u32| (0..20_000).map(|i| format!("k{i}: {value}\n")).collect::<String>();
        let node = merged(&many(1), &many(2));
        assert_eq!(node.entries().len(), 20_000);
        assert!(node.entries().iter().all(|e| e.node.word() == Some("2")));
    }
}
