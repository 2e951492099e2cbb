//! Finds elements of a login page by a part of CSS selectors: `element`, `#id`, `.class`, `[attribute]`, `[attribute=value]`,
//! and descendants of such. Tags are read by the HTML standard, so that what stands in a comment or a script is not found;
//! what is open is told from the tags alone, without the repairs of a browser.

use html5gum::emitters::default::DefaultEmitter;
use html5gum::{Token, Tokenizer};

/// Most parts of a selector.
const PARTS_MAX: usize = 16;
/// Most elements that are open at once; what is nested more deeply is passed over.
const DEPTH_MAX: usize = 256;
/// Elements that have no end tag (HTML, section 13.1.2).
const VOID: [&str; 13] = ["area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"];

/// Which element.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selector(Vec<Compound>);

/// What one element must be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Compound {
    element: Option<String>,
    /// Attributes and, where it matters, their values.
    attributes: Vec<(String, Option<String>)>,
    classes: Vec<String>,
}

/// An element as its start tag has it.
#[derive(Debug, Default)]
struct Element {
    name: String,
    attributes: Vec<(String, String)>,
}

impl Selector {
    /// Reads a selector.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        const KNOWN: &str = "a selector is made of element, #id, .class, [attribute=value], and spaces for what lies within";
        let mut parts = Vec::new();
        let mut rest = text.trim();
        while !rest.is_empty() {
            let (compound, behind) = Compound::read(rest)?;
            if compound == Compound::default() || parts.len() == PARTS_MAX {
                return Err(KNOWN);
            }
            parts.push(compound);
            rest = behind.trim_start();
            if !behind.is_empty() && rest.len() == behind.len() {
                return Err(KNOWN);
            }
        }
        if parts.is_empty() { Err(KNOWN) } else { Ok(Self(parts)) }
    }

    /// The value of an attribute of the first element of the page that fits and has it.
    pub fn find(&self, page: &str, attribute: &str) -> Option<String> {
        let mut found = None;
        walk(page, |open, element| {
            if self.fits(open, element) {
                found = element.attribute(attribute).filter(|value| !value.is_empty()).map(str::to_owned);
            }
            found.is_some()
        });
        found
    }

    /// Whether the last part fits the element, and the others, from the inside out, some of what is open around it.
    fn fits(&self, open: &[Element], element: &Element) -> bool {
        let Some((last, around)) = self.0.split_last() else { return false };
        let mut outer = open.iter().rev();
        last.fits(element) && around.iter().rev().all(|part| outer.any(|element| part.fits(element)))
    }
}

/// Whether the page has an input for each of these names: the form in which they are to be written.
pub fn has_inputs(page: &str, names: &[&str]) -> bool {
    let mut missing: Vec<&str> = names.to_vec();
    walk(page, |_, element| {
        if matches!(element.name.as_str(), "input" | "select" | "textarea") {
            missing.retain(|name| element.attribute("name") != Some(name));
        }
        missing.is_empty()
    });
    !names.is_empty() && missing.is_empty()
}

/// Shows each element with those that are open around it, until `done`.
fn walk(page: &str, mut done: impl FnMut(&[Element], &Element) -> bool) {
    let mut emitter = DefaultEmitter::default();
    // The text of scripts and their like is none of our tags.
    emitter.naively_switch_states(true);
    let mut open: Vec<Element> = Vec::new();
    for token in Tokenizer::new_with_emitter(page, emitter) {
        let Ok(token) = token;
        match token {
            Token::StartTag(tag) => {
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                let attributes = tag.attributes.iter().map(|(name, value)| (text(name), text(value)));
                let element = Element { name: text(&tag.name), attributes: attributes.collect() };
                if done(&open, &element) {
                    return;
                }
                if !VOID.contains(&element.name.as_str()) && !tag.self_closing && open.len() < DEPTH_MAX {
                    open.push(element);
                }
            }
            Token::EndTag(tag) => {
                if let Some(at) = open.iter().rposition(|element| element.name.as_bytes() == &tag.name[..]) {
                    open.truncate(at);
                }
            }
            _ => {}
        }
    }
}

impl Element {
    fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }
}

impl Compound {
    /// Reads up to a space, and returns what stands behind.
    fn read(text: &str) -> Result<(Self, &str), &'static str> {
        let mut compound = Self::default();
        let (name, mut rest) = word(text);
        if !name.is_empty() {
            compound.element = Some(name.to_ascii_lowercase());
        }
        loop {
            let (kind, behind) = match rest.chars().next() {
                Some(kind @ ('#' | '.')) => (kind, &rest[1..]),
                Some('[') => {
                    let (attribute, behind) = attribute(&rest[1..])?;
                    compound.attributes.push(attribute);
                    rest = behind;
                    continue;
                }
                Some('*') if compound == Self::default() => return Err("a selector must say more than `*`"),
                _ => return Ok((compound, rest)),
            };
            let (name, behind) = word(behind);
            if name.is_empty() {
                return Err("a name is missing behind `#` or `.`");
            }
            match kind {
                '#' => compound.attributes.push(("id".into(), Some(name.to_owned()))),
                _ => compound.classes.push(name.to_owned()),
            }
            rest = behind;
        }
    }

    fn fits(&self, element: &Element) -> bool {
        let value = |(name, wanted): &(String, Option<String>)| match (element.attribute(name), wanted) {
            (Some(found), Some(wanted)) => found == wanted,
            (found, _) => found.is_some(),
        };
        let classes = element.attribute("class").unwrap_or_default();
        self.element.as_ref().is_none_or(|name| *name == element.name)
            && self.attributes.iter().all(value)
            && self.classes.iter().all(|class| classes.split_ascii_whitespace().any(|c| c == class))
    }
}

/// The name at the beginning, and what stands behind it.
fn word(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !(c.is_alphanumeric() || c == '-' || c == '_')).unwrap_or(text.len()))
}

/// `name]`, `name=value]`, `name="value"]`.
fn attribute(text: &str) -> Result<((String, Option<String>), &str), &'static str> {
    const WRONG: &str = "an attribute is [name], [name=value] or [name=\"value\"]";
    let (name, rest) = text.split_at(text.find(|c: char| !(c.is_alphanumeric() || "-_:.".contains(c))).unwrap_or(text.len()));
    if name.is_empty() {
        return Err(WRONG);
    }
    let name = name.to_ascii_lowercase();
    if let Some(rest) = rest.strip_prefix(']') {
        return Ok(((name, None), rest));
    }
    let rest = rest.strip_prefix('=').ok_or(WRONG)?;
    let (value, rest) = match rest.chars().next().filter(|c| "\"'".contains(*c)) {
        Some(quote) => rest[1..].split_once(quote).ok_or(WRONG)?,
        None => rest.split_at(rest.find(']').unwrap_or(rest.len())),
    };
    Ok(((name, Some(value.to_owned())), rest.strip_prefix(']').ok_or(WRONG)?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PAGE: &str = r#"<!DOCTYPE html><html><head><title>Log in <input name=csrf value=title></title>
        <meta name="csrf-token" content="from&amp;meta"><script>var x = '<input name="csrf" value="script">';</script></head>
        <body><!-- <input name="csrf" value="comment"> --><form id="search" class="small form"><input name=q></form>
        <form id="login" class="big form" action="/login"><p>Hello<INPUT type="hidden" NAME="csrf" VALUE='form "one" &#x26; &lt;'>
        <input name="user"><input name="password" type="password"><input name=empty value=""></form>
        <div class="other"><input name="csrf" value="last"></div></body></html>"#;

    fn found(selector: &str, attribute: &str) -> Option<String> {
        Selector::parse(selector).unwrap().find(PAGE, attribute)
    }

    #[test]
    fn elements_are_found_by_every_part_of_a_selector() {
        for (selector, attribute, value) in [
            ("input[name=csrf]", "value", Some("form \"one\" & <")),
            ("input[name=\"csrf\"]", "value", Some("form \"one\" & <")),
            ("#login input[name='csrf']", "value", Some("form \"one\" & <")),
            ("form.big.form input", "value", Some("form \"one\" & <")),
            (".other input", "value", Some("last")),
            ("body .other [name=csrf]", "value", Some("last")),
            ("meta[name=csrf-token]", "content", Some("from&meta")),
            ("form#login", "action", Some("/login")),
            ("[action]", "action", Some("/login")),
            ("#search input[name=csrf]", "value", None),
            ("#login .other input", "value", None),
            ("input[name=empty]", "value", None),
            ("title input", "value", None),
        ] {
            assert_eq!(found(selector, attribute).as_deref(), value, "{selector}");
        }
    }

    #[test]
    fn what_is_no_selector_is_refused() {
        for wrong in ["", " ", "#", ".", "a >b", "a, b", "[", "[a", "[a=", "[=b]", "[a=\"b]", "a:first-child", "*", "a[b~=c]", "[a=b]]"] {
            assert!(Selector::parse(wrong).is_err(), "{wrong}");
        }
        assert!(Selector::parse(&"a ".repeat(PARTS_MAX + 1)).is_err());
    }

    #[test]
    fn a_form_is_known_by_its_inputs() {
        assert!(has_inputs(PAGE, &["user", "password"]));
        assert!(!has_inputs(PAGE, &["user", "otp"]) && !has_inputs(PAGE, &[]) && !has_inputs("", &["user"]));
    }

    #[test]
    fn a_page_that_never_closes_anything_costs_little() {
        let page = format!("{}<input name=csrf value=x>", "<div>".repeat(200_000));
        assert_eq!(Selector::parse("input[name=csrf]").unwrap().find(&page, "value").as_deref(), Some("x"));
    }

    proptest! {
        #[test]
        fn no_page_and_no_selector_makes_it_panic(page in "[ -~ü]{0,80}", selector in "[a-c#.\\[\\]= \"']{0,12}") {
            if let Ok(selector) = Selector::parse(&selector) {
                let _ = selector.find(&page, "a");
            }
        }
    }
}
