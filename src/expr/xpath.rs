//! A small part of XPath 1.0, which leads from a document to the text of its first match: `/a/b`, `//b`, `*`, `@id`,
//! `text()`, and the predicates `[2]`, `[@id='x']`, `[name='x']`, `[local-name()='x']`. Prefixes do not count: names are
//! compared without them.

use crate::xml::{self, Event, Scanner};

/// Most steps of a path.
const STEPS_MAX: usize = 16;
/// Most elements of a document.
const ELEMENTS_MAX: usize = 20_000;

/// A path, read.
#[derive(Debug, PartialEq, Eq)]
pub struct Path {
    steps: Vec<Step>,
    end: End,
}

#[derive(Debug, PartialEq, Eq)]
struct Step {
    /// Whether it may be any number of levels below.
    deep: bool,
    /// No name is any name.
    name: Option<String>,
    predicates: Vec<Predicate>,
}

#[derive(Debug, PartialEq, Eq)]
enum Predicate {
    /// The so manyth of its kind, from 1.
    Index(usize),
    /// An attribute has this value.
    Attribute(String, String),
    /// A child has this text.
    Child(String, String),
    /// Its name.
    Local(String),
}

/// What of the element is wanted.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// All text in it.
    Whole,
    /// The text directly in it.
    Text,
    /// An attribute.
    Attribute(String),
}

const WRONG: &str = "`xpath` takes /a/b, //b, *, @attribute and text(), with [1], [@a='x'], [name='x'] or [local-name()='x']";

impl Path {
    /// Reads it.
    pub fn parse(path: &str) -> Result<Self, String> {
        let mut steps = Vec::new();
        let mut end = End::Whole;
        let mut rest = path.trim();
        let mut deep = false;
        if let Some(behind) = rest.strip_prefix("//") {
            (rest, deep) = (behind, true);
        } else {
            rest = rest.strip_prefix('/').unwrap_or(rest);
        }
        loop {
            let (step, behind) = rest.split_at(boundary(rest));
            if end != End::Whole || steps.len() >= STEPS_MAX {
                return Err(WRONG.into());
            }
            match step {
                "text()" if !deep => end = End::Text,
                _ if step.starts_with('@') && !deep => end = End::Attribute(named(&step[1..])?.to_owned()),
                _ => steps.push(Step::parse(step, deep)?),
            }
            if behind.is_empty() {
                break;
            }
            (rest, deep) = behind.strip_prefix("//").map_or((&behind[1..], false), |r| (r, true));
        }
        if steps.is_empty() { Err(WRONG.into()) } else { Ok(Self { steps, end }) }
    }

    /// The text of the first match in document order; `None` where there is none.
    pub fn find(&self, document: &str) -> Result<Option<String>, String> {
        let tree = Tree::read(document)?;
        Ok(tree.matches(&self.steps).into_iter().find_map(|element| tree.text(element, &self.end)))
    }
}

/// Where a step ends: at a slash that is in no predicate.
fn boundary(text: &str) -> usize {
    let mut quote = None;
    let mut depth = 0_usize;
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(c),
            (None, '[') => depth += 1,
            (None, ']') => depth = depth.saturating_sub(1),
            (None, '/') if depth == 0 => return at,
            _ => {}
        }
    }
    text.len()
}

fn named(name: &str) -> Result<&str, String> {
    let local = xml::local(name);
    let good = !local.is_empty() && local.chars().all(|c| c.is_alphanumeric() || "_.-".contains(c));
    if good && !local.starts_with(|c: char| c.is_ascii_digit() || c == '.' || c == '-') { Ok(local) } else { Err(WRONG.into()) }
}

impl Step {
    fn parse(step: &str, deep: bool) -> Result<Self, String> {
        let (name, mut rest) = step.split_at(step.find('[').unwrap_or(step.len()));
        let name = if name == "*" { None } else { Some(named(name)?.to_owned()) };
        let mut predicates = Vec::new();
        while let Some(inner) = rest.strip_prefix('[') {
            let end = closing(inner).ok_or(WRONG)?;
            predicates.push(Predicate::parse(inner[..end].trim())?);
            rest = &inner[end + 1..];
        }
        if rest.is_empty() { Ok(Self { deep, name, predicates }) } else { Err(WRONG.into()) }
    }
}

/// Where the `]` stands that closes a predicate.
fn closing(text: &str) -> Option<usize> {
    let mut quote = None;
    text.char_indices().find_map(|(at, c)| {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '"' | '\'') => quote = Some(c),
            (None, ']') => return Some(at),
            _ => {}
        }
        None
    })
}

impl Predicate {
    fn parse(text: &str) -> Result<Self, String> {
        if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
            return text.parse().ok().filter(|n| *n > 0).map(Self::Index).ok_or_else(|| WRONG.into());
        }
        let (left, right) = text.split_once('=').ok_or(WRONG)?;
        let (left, right) = (left.trim(), right.trim());
        let quoted = |q: char| right.strip_prefix(q).and_then(|r| r.strip_suffix(q)).filter(|r| !r.contains(q));
        let value = quoted('\'').or_else(|| quoted('"')).ok_or(WRONG)?.to_owned();
        Ok(match left.strip_prefix('@') {
            Some(name) => Self::Attribute(named(name)?.to_owned(), value),
            None if left == "local-name()" => Self::Local(value),
            None => Self::Child(named(left)?.to_owned(), value),
        })
    }
}

struct Tree<'x> {
    elements: Vec<Element<'x>>,
}

struct Element<'x> {
    name: &'x str,
    attributes: Vec<(&'x str, std::borrow::Cow<'x, str>)>,
    content: Vec<Content<'x>>,
}

enum Content<'x> {
    Element(usize),
    Text(std::borrow::Cow<'x, str>),
}

impl<'x> Tree<'x> {
    fn read(document: &'x str) -> Result<Self, String> {
        let mut scanner = Scanner::new(document);
        // Above the root stands one that holds it, so that the first step is a child like any other.
        let mut elements = vec![Element { name: "", attributes: Vec::new(), content: Vec::new() }];
        let mut open = vec![0];
        while let Some(event) = scanner.event().map_err(|wrong| format!("{} (byte {})", wrong.why, wrong.at))? {
            let parent = *open.last().unwrap_or(&0);
            match event {
                Event::Start { name, attributes, empty, .. } => {
                    if elements.len() > ELEMENTS_MAX {
                        return Err(format!("the document has more than {ELEMENTS_MAX} elements"));
                    }
                    let attributes = xml::attributes(&document[attributes])?;
                    let attributes = attributes.into_iter().map(|(name, value)| (xml::local(name), value)).collect();
                    elements.push(Element { name: xml::local(name), attributes, content: Vec::new() });
                    let index = elements.len() - 1;
                    elements[parent].content.push(Content::Element(index));
                    if !empty {
                        open.push(index);
                    }
                }
                Event::End { .. } => {
                    open.pop();
                }
                Event::Text(text) => elements[parent].content.push(Content::Text(xml::unescaped(text)?)),
                Event::Literal(text) => elements[parent].content.push(Content::Text(text.into())),
            }
        }
        Ok(Self { elements })
    }

    fn children(&self, of: usize) -> impl Iterator<Item = usize> {
        self.elements[of].content.iter().filter_map(|content| match content {
            Content::Element(index) => Some(*index),
            Content::Text(_) => None,
        })
    }

    /// The elements that all steps lead to, in document order. As indexes grow in that order, sets stay sorted.
    fn matches(&self, steps: &[Step]) -> Vec<usize> {
        steps.iter().fold(vec![0], |from, step| {
            let mut parents = from;
            if step.deep {
                parents = self.with_all_below(&parents);
            }
            let mut found: Vec<usize> = parents.iter().flat_map(|parent| self.step(*parent, step)).collect();
            found.sort_unstable();
            found.dedup();
            found
        })
    }

    fn with_all_below(&self, from: &[usize]) -> Vec<usize> {
        let mut marked = vec![false; self.elements.len()];
        from.iter().for_each(|index| marked[*index] = true);
        // A parent always stands before its children.
        for index in 0..marked.len() {
            if marked[index] {
                self.children(index).for_each(|child| marked[child] = true);
            }
        }
        (0..marked.len()).filter(|index| marked[*index]).collect()
    }

    fn step(&self, parent: usize, step: &Step) -> Vec<usize> {
        let named = |index: &usize| step.name.as_deref().is_none_or(|name| self.elements[*index].name == name);
        let mut found: Vec<usize> = self.children(parent).filter(named).collect();
        for predicate in &step.predicates {
            found = match predicate {
                Predicate::Index(index) => found.get(index - 1).copied().into_iter().collect(),
                _ => found.into_iter().filter(|index| self.holds(*index, predicate)).collect(),
            };
        }
        found
    }

    fn holds(&self, index: usize, predicate: &Predicate) -> bool {
        let element = &self.elements[index];
        match predicate {
            Predicate::Index(_) => false,
            Predicate::Attribute(name, value) => element.attributes.iter().any(|(n, v)| n == name && v == value),
            Predicate::Local(name) => element.name == name,
            Predicate::Child(name, value) => self
                .children(index)
                .any(|child| self.elements[child].name == name && self.text(child, &End::Whole).is_some_and(|text| text == *value)),
        }
    }

    fn text(&self, index: usize, end: &End) -> Option<String> {
        match end {
            End::Attribute(name) => self.elements[index].attributes.iter().find(|(n, _)| n == name).map(|(_, value)| value.to_string()),
            End::Text => {
                let mut direct = self.elements[index].content.iter().filter_map(|content| match content {
                    Content::Text(text) => Some(&**text),
                    Content::Element(_) => None,
                });
                let first = direct.next()?.to_owned();
                Some(direct.fold(first, |all, text| all + text))
            }
            End::Whole => {
                let mut text = String::new();
                self.collect(index, &mut text);
                Some(text)
            }
        }
    }

    /// Nesting is bounded by the reader, and so is this.
    fn collect(&self, index: usize, into: &mut String) {
        for content in &self.elements[index].content {
            match content {
                Content::Text(text) => into.push_str(text),
                Content::Element(child) => self.collect(*child, into),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &str = "<?xml version='1.0'?><soap:Envelope xmlns:soap='urn:s'><soap:Body><r:login xmlns:r='urn:r' status='ok'>\
        <r:id n='1'>a&amp;b</r:id><r:id n='2'><![CDATA[<c>]]></r:id><user><name>Ann</name><key>k1</key></user>\
        <user><name>Bob</name><key>k2</key></user>x</r:login></soap:Body></soap:Envelope>";

    fn found(path: &str) -> Option<String> {
        Path::parse(path).unwrap().find(ANSWER).unwrap()
    }

    #[test]
    fn a_path_leads_to_the_text_of_its_first_match() {
        for (path, text) in [
            ("/Envelope/Body/login/id", "a&b"),
            ("/soap:Envelope/soap:Body/x:login/id[2]", "<c>"),
            ("//id[@n='2']", "<c>"),
            ("//login/@status", "ok"),
            ("//user[name='Bob']/key", "k2"),
            ("//user[2]/name", "Bob"),
            ("//*[local-name()='key']", "k1"),
            ("//login/text()", "x"),
            ("/Envelope//name", "Ann"),
            ("Envelope/*/login/user", "Annk1"),
        ] {
            assert_eq!(found(path).as_deref(), Some(text), "{path}");
        }
    }

    #[test]
    fn a_path_that_leads_nowhere_finds_nothing() {
        for path in ["/login", "//id[3]", "//user[name='Eve']/key", "//login/@nope", "//id/x"] {
            assert_eq!(found(path), None, "{path}");
        }
    }

    #[test]
    fn what_is_not_in_the_part_is_refused() {
        for path in [
            "",
            "/",
            "//",
            "a/",
            "a//",
            "@a",
            "text()",
            "a[",
            "a[]",
            "a[0]",
            "a[b]",
            "a[@b=c]",
            "a['x']",
            "../a",
            "a|b",
            "count(a)",
            "a/@b/c",
            "//@a",
            "a[last()]",
            "a[1]x",
        ] {
            assert!(Path::parse(path).is_err(), "{path}");
        }
        assert!(Path::parse(&"/a".repeat(STEPS_MAX + 1)).is_err());
    }

    #[test]
    fn a_document_that_is_none_is_an_error() {
        assert!(Path::parse("/a").unwrap().find("<a>").is_err());
        assert!(Path::parse("/a").unwrap().find("<!DOCTYPE a><a/>").is_err());
    }
}
