//! Bodies and pairs of a login's calls, each value typed by its place: in JSON a value is a value, in forms and queries it
//! is encoded, in XML escaped (product: no text can become structure). A body of any other type takes text as it is.

use zeroize::Zeroizing;

use crate::expr::{self, Fragment, Moments, Scope, Template, Unset, Value, place};
use crate::expr::{Inputs, Names, Settings};
use crate::secret::Secret;
use crate::tree::{Fields, Node, Problems, Value as Tree};
use crate::uri::encode_query;
use crate::xml::Scanner;

/// Most entries of a map, at each level.
const ENTRIES_MAX: usize = 256;
/// Deepest nesting of a JSON body.
const DEPTH_MAX: usize = 32;
/// Types whose text cannot be put together by hand, and the key that writes them.
const TYPED: [(&str, &str); 3] = [("json", "json"), ("x-www-form-urlencoded", "form"), ("xml", "xml")];

/// What reads the parts of a step.
#[derive(Clone, Copy)]
pub struct Reader<'r> {
    /// The resource's words.
    pub settings: &'r Settings,
    /// What the place offers.
    pub names: Names,
    /// Where problems go.
    pub problems: &'r Problems,
}

/// A body.
#[derive(Debug)]
pub enum Payload {
    /// JSON.
    Json(Json),
    /// A form.
    Form(Pairs),
    /// XML.
    Xml(Template),
    /// Text as it is.
    Text(Template),
}

/// A JSON value with expressions in it.
#[derive(Debug)]
pub enum Json {
    /// Its JSON.
    Ready(Secret),
    /// One value that an expression makes, or text around some.
    Computed(Template),
    /// A list.
    List(Vec<Json>),
    /// An object.
    Map(Vec<(String, Json)>),
}

/// Pairs of a query or a form, in their order.
#[derive(Debug, Default)]
pub struct Pairs(Vec<(String, Pair)>);

#[derive(Debug)]
enum Pair {
    /// One value, or as many as a list has items.
    Text(Template),
    /// JSON inside the value.
    Json(Json),
}

impl<'r> Reader<'r> {
    /// What the place offers.
    pub fn scope(&self) -> Scope<'r> {
        self.settings.scope(self.names)
    }

    /// A text with expressions.
    pub fn template(&self, node: &Node) -> Option<Template> {
        let template = expr::read(node, &self.scope(), self.problems)?;
        template.text_only().map_err(|mistake| self.problems.error(node.place, mistake.message, mistake.hint)).ok()?;
        Some(template)
    }

    /// The body of a step: one of `json`, `form`, `xml` and `body` with `content_type`. The second value is its type.
    pub fn payload(&self, fields: &Fields<'_>) -> Option<Option<(Payload, String)>> {
        let kinds = ["json", "form", "xml", "body"].map(|key| fields.raw(key).filter(|node| !node.is_null()).map(|node| (key, node)));
        let mut found = kinds.into_iter().flatten();
        let written = fields.text("content_type");
        let Some((key, node)) = found.next() else {
            if written.is_some() {
                self.problems.error(fields.key_place("content_type"), "there is no body whose type this could be", "add `body: …`");
                return None;
            }
            return Some(None);
        };
        if let Some((other, node)) = found.next() {
            self.problems.error(node.place, format!("a call has one body: `{key}` or `{other}`"), "remove one of them");
            return None;
        }
        let (payload, usual) = match key {
            "json" => (Payload::Json(self.json(node, 0)?), "application/json"),
            "form" => (Payload::Form(self.pairs(node)?), "application/x-www-form-urlencoded"),
            "xml" => (Payload::Xml(self.xml(node)?), "application/xml"),
            _ => (Payload::Text(self.text(node, written.as_deref())?), "text/plain; charset=utf-8"),
        };
        Some(Some((payload, written.unwrap_or_else(|| usual.to_owned()))))
    }

    /// A JSON value.
    pub fn json(&self, node: &Node, depth: usize) -> Option<Json> {
        if depth > DEPTH_MAX || node.items().len() > ENTRIES_MAX || node.entries().len() > ENTRIES_MAX {
            self.problems.error(node.place, format!("JSON of more than {DEPTH_MAX} levels or {ENTRIES_MAX} entries"), "");
            return None;
        }
        match &node.value {
            Tree::Map(entries) => {
                // All are read before any failure counts, so that every problem is reported.
                let read: Vec<_> = entries.iter().map(|e| Some((e.key.to_string(), self.json(&e.node, depth + 1)?))).collect();
                read.into_iter().collect::<Option<_>>().map(Json::Map)
            }
            Tree::List(items) => {
                let read: Vec<_> = items.iter().map(|item| self.json(item, depth + 1)).collect();
                read.into_iter().collect::<Option<_>>().map(Json::List)
            }
            _ if node.is_template() => expr::read(node, &self.scope(), self.problems).map(Json::Computed),
            _ => {
                let mut json = String::new();
                let Some(value) = Value::of_node(node) else {
                    node.literal(self.problems);
                    return None;
                };
                value.write_json(Moments::Refused, &mut json).map_err(|why| self.problems.error(node.place, why.to_string(), "")).ok()?;
                Some(Json::Ready(Secret::new(json)))
            }
        }
    }

    /// Pairs of a query or form: text, lists of text, or `{ json: … }`; `null` leaves one out.
    pub fn pairs(&self, node: &Node) -> Option<Pairs> {
        Fields::of(node, "a map of names and values", self.problems)?;
        if node.entries().len() > ENTRIES_MAX {
            self.problems.error(node.place, format!("more than {ENTRIES_MAX} entries"), "");
            return None;
        }
        let mut pairs = Vec::new();
        let mut whole = true;
        for entry in node.entries().iter().filter(|e| !e.node.is_null()) {
            let name = || entry.key.to_string();
            match (&entry.node.value, entry.node.get("json")) {
                (Tree::Map(members), Some(json)) if members.len() == 1 => match self.json(json, 0) {
                    Some(json) => pairs.push((name(), Pair::Json(json))),
                    None => whole = false,
                },
                (Tree::Map(_), _) => {
                    self.problems.error(
                        entry.node.place,
                        "a map has no place in a query or a form",
                        "{ json: … } puts JSON into the field",
                    );
                    whole = false;
                }
                _ => {
                    for item in entry.node.items() {
                        match expr::read(item, &self.scope(), self.problems) {
                            Some(template) => pairs.push((name(), Pair::Text(template))),
                            None => whole = false,
                        }
                    }
                }
            }
        }
        whole.then_some(Pairs(pairs))
    }

    fn xml(&self, node: &Node) -> Option<Template> {
        if matches!(node.value, Tree::Secret(_)) {
            let hint = "put it under `secrets`, and write {{ secrets.name }}: that is escaped";
            self.problems.error(node.place, "a reference inside an XML document would not be escaped", hint);
            return None;
        }
        let template = self.template(node)?;
        if template.is_constant()
            && let Some(text) = node.literal(self.problems)
            && let Err(at) = well_formed(&text)
        {
            self.problems.error(node.place, format!("this is no well-formed XML from byte {at} on"), "");
            return None;
        }
        Some(template)
    }

    /// A body as it is. Where its type has structure, an expression inside would be pasted and not encoded.
    fn text(&self, node: &Node, kind: Option<&str>) -> Option<Template> {
        let template = self.template(node)?;
        let kind = kind.unwrap_or_default().to_ascii_lowercase();
        let typed = TYPED.iter().find(|(word, _)| kind.split(';').next().is_some_and(|kind| kind.contains(word)));
        match typed.filter(|_| !template.is_constant()) {
            Some((_, key)) => {
                let message = format!("an expression in a `body` of this type would be pasted into it, not encoded; `{key}` encodes it");
                self.problems.error(node.place, message, format!("write the body under `{key}`"));
                None
            }
            None => Some(template),
        }
    }
}

/// Where a document stops being well-formed.
fn well_formed(text: &str) -> Result<(), usize> {
    let mut scanner = Scanner::new(text);
    loop {
        match scanner.event() {
            Ok(Some(_)) => {}
            Ok(None) => return Ok(()),
            Err(wrong) => return Err(wrong.at),
        }
    }
}

impl Payload {
    /// Its bytes.
    ///
    /// # Errors
    /// Which value cannot be had or has no place there; nothing of it is said.
    pub fn write(&self, inputs: &dyn Inputs) -> Result<Zeroizing<String>, String> {
        match self {
            Self::Json(json) => {
                let mut out = Zeroizing::new(String::new());
                json.write(inputs, &mut out)?;
                Ok(out)
            }
            Self::Form(pairs) => pairs.write(inputs),
            Self::Xml(template) => document(template, inputs),
            Self::Text(template) => text(template, inputs),
        }
    }
}

impl Payload {
    /// The body that [`Payload::write`] has made, with one field more: a pair of a form, a member of a JSON object.
    pub fn with(&self, body: &Zeroizing<String>, name: &str, value: &Secret) -> Zeroizing<String> {
        let json = |text: &str| Zeroizing::new(serde_json::Value::from(text).to_string());
        let parts = match self {
            Self::Form(_) => {
                let mark = if body.is_empty() { "" } else { "&" };
                [body.as_str(), mark, &encode_query(name), "=", &Zeroizing::new(encode_query(value.expose()))].concat()
            }
            Self::Json(_) if body.starts_with('{') => {
                let comma = if &**body == "{}" { "" } else { "," };
                ["{", &json(name), ":", &json(value.expose()), comma, &body[1..]].concat()
            }
            _ => body.to_string(),
        };
        Zeroizing::new(parts)
    }
}

/// The text of a template, as it is.
///
/// # Errors
/// Why there is none.
pub fn text(template: &Template, inputs: &dyn Inputs) -> Result<Zeroizing<String>, String> {
    let rendered = template.render_text(inputs).map_err(|failure| failure.to_string())?;
    written(&rendered.value, template)
}

fn written(value: &Value, template: &Template) -> Result<Zeroizing<String>, String> {
    let mut out = Zeroizing::new(String::new());
    value.write_text(&mut out).map_err(|why| format!("`{template:?}`: {why}"))?;
    Ok(out)
}

impl Json {
    /// Appends it.
    ///
    /// # Errors
    /// Which value cannot be had.
    pub fn write(&self, inputs: &dyn Inputs, out: &mut Zeroizing<String>) -> Result<(), String> {
        match self {
            Self::Ready(json) => out.push_str(json.expose()),
            Self::Computed(template) => {
                let rendered = template.render(inputs).map_err(|failure| failure.to_string())?;
                rendered.value.write_json(Moments::Refused, out).map_err(|why| format!("`{template:?}`: {why}"))?;
            }
            Self::List(items) => {
                out.push('[');
                for (index, item) in items.iter().enumerate() {
                    if index > 0 {
                        out.push(',');
                    }
                    item.write(inputs, out)?;
                }
                out.push(']');
            }
            Self::Map(entries) => {
                out.push('{');
                for (index, (name, value)) in entries.iter().enumerate() {
                    if index > 0 {
                        out.push(',');
                    }
                    out.push_str(&serde_json::Value::from(name.as_str()).to_string());
                    out.push(':');
                    value.write(inputs, out)?;
                }
                out.push('}');
            }
        }
        Ok(())
    }
}

impl Pairs {
    /// All of them, encoded: everything but RFC 3986 unreserved, which every server reads alike.
    ///
    /// # Errors
    /// Which value cannot be had.
    pub fn write(&self, inputs: &dyn Inputs) -> Result<Zeroizing<String>, String> {
        let mut out = Zeroizing::new(String::new());
        let mut put = |name: &str, value: &str| {
            if !out.is_empty() {
                out.push('&');
            }
            out.push_str(&encode_query(name));
            out.push('=');
            out.push_str(value);
        };
        for (name, pair) in &self.0 {
            match pair {
                Pair::Text(template) => {
                    let texts = template.texts(inputs, Unset::Kept, place::query).map_err(|failure| failure.to_string())?;
                    for one in texts.into_iter().flatten() {
                        put(name, &written(&one.value, template)?);
                    }
                }
                Pair::Json(json) => {
                    let mut text = Zeroizing::new(String::new());
                    json.write(inputs, &mut text)?;
                    put(name, &Zeroizing::new(encode_query(&text)));
                }
            }
        }
        Ok(out)
    }

    /// Whether anything secret is in them. What stands in JSON counts as such.
    pub fn hold_secret(&self) -> bool {
        self.0.iter().any(|(_, pair)| match pair {
            Pair::Text(template) => template.holds_secret(),
            Pair::Json(_) => true,
        })
    }

    /// The names, in their order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }
}

/// A document in which every value, whether a secret reference or an expression gives it, is character data.
fn document(template: &Template, inputs: &dyn Inputs) -> Result<Zeroizing<String>, String> {
    let mut out = Zeroizing::new(String::new());
    for Fragment { value, computed, secret, .. } in template.fragments(inputs).map_err(|failure| failure.to_string())? {
        let text = written(&value, template)?;
        if computed || secret {
            place::append_xml(&mut out, &text).map_err(|why| format!("`{template:?}`: {why}"))?;
        } else {
            out.push_str(&text);
        }
    }
    match well_formed(&out) {
        Ok(()) => Ok(out),
        Err(at) => Err(format!("it is no well-formed XML from byte {at} on")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::auth::support::node;
    use crate::expr::{Given, Map, Name};

    /// What no value may do to the document it is put into.
    pub fn hostile() -> Vec<String> {
        let mut all: Vec<String> = [
            "plain",
            "quote\" 'single' \\back",
            "a&b=c;d#e?f",
            "line\nbreak\r\n",
            "{{ secrets.other }} {% if %} {# #}",
            "]]><evil/>",
            "]]",
            "]",
            "><evil/><![CDATA[",
            "<x>&amp;</x>",
            "%41%zz+ ",
            "ü\u{1f600}",
            "\",\"admin\":true,\"x\":\"",
        ]
        .map(str::to_owned)
        .to_vec();
        all.push("x".repeat(64 * 1024));
        all
    }

    fn payload(body: serde_json::Value) -> Result<Payload, Vec<String>> {
        let problems = Problems::default();
        let settings = Settings::default();
        let node = node(&body);
        let fields = Fields::of(&node, "a step", &problems).unwrap();
        let read = Reader { settings: &settings, names: Names::ALL, problems: &problems }.payload(&fields);
        let texts = |problems: Problems| problems.into_sorted().into_iter().map(|p| format!("{} | {}", p.message, p.hint)).collect();
        match read {
            Some(Some((payload, _))) => Ok(payload),
            _ => Err(texts(problems)),
        }
    }

    /// A second value, which ends a section where the first one has begun to.
    const BEHIND: &str = "><evil/><![CDATA[";

    fn given(value: &str) -> Given {
        let secret = Value::Secret(Secret::new(value.to_owned()));
        let list = Value::List([Value::text("1"), Value::text("2")].into());
        let number = Value::Number("12345678901234567890".into());
        let entries: [(std::sync::Arc<str>, Value); 4] =
            [("p".into(), secret), ("q".into(), Value::text(BEHIND)), ("n".into(), number), ("l".into(), list)];
        Given::default().with(Name::Vars, Value::Map(Map::new(entries).into()))
    }

    fn body(written: serde_json::Value, value: &str) -> String {
        payload(written).unwrap().write(&given(value)).unwrap().to_string()
    }

    #[test]
    fn in_json_a_value_is_a_value() {
        let written = json!({ "json": { "u": "me", "p": "{{ vars.p }}", "deep": [{ "s": "pre-{{ vars.p }}" }], "n": "{{ vars.n }}", "t": true, "z": null } });
        for value in hostile().into_iter().chain(["nul\0".into()]) {
            let text = body(written.clone(), &value);
            let read: serde_json::Value = serde_json::from_str(&text).unwrap();
            assert_eq!((&read["p"], &read["deep"][0]["s"]), (&json!(value), &json!(format!("pre-{value}"))));
            assert_eq!(read.as_object().unwrap().len(), 6);
            assert!(text.contains("\"n\":12345678901234567890,\"t\":true,\"z\":null"), "{text}");
        }
        assert_eq!(body(json!({ "json": "{{ vars.l }}" }), ""), r#"["1","2"]"#);
    }

    #[test]
    fn in_a_form_a_value_is_encoded() {
        let written = json!({ "form": { "u": "me", "p": "{{ vars.p }}", "j": { "json": { "k": "{{ vars.p }}" } }, "l": "{{ vars.l }}", "t": true, "gone": null } });
        for value in hostile().into_iter().chain(["nul\0".into()]) {
            let text = body(written.clone(), &value);
            let decode = |text: &str| percent_encoding::percent_decode_str(text).decode_utf8().unwrap().into_owned();
            let pairs: Vec<(String, String)> =
                text.split('&').map(|p| p.split_once('=').unwrap()).map(|(n, v)| (decode(n), decode(v))).collect();
            assert_eq!(pairs.iter().map(|(n, _)| n.as_str()).collect::<Vec<_>>(), ["u", "p", "j", "l", "l", "t"]);
            assert_eq!(pairs[1].1, value);
            assert_eq!(serde_json::from_str::<serde_json::Value>(&pairs[2].1).unwrap(), json!({ "k": value }));
            assert!(!text.contains('+') && pairs[5].1 == "true");
        }
    }

    #[test]
    fn in_xml_a_value_is_character_data() {
        let written = json!({ "xml": "<l a=\"{{ vars.p }}\"><p>{{ vars.p }}</p><c><![CDATA[{{ vars.p }}]]></c><d><![CDATA[{{ vars.p }}{{ vars.q }}]]{{ vars.p }}>]]></d></l>" });
        for value in hostile() {
            let text = body(written.clone(), &value);
            let mut scanner = Scanner::new(&text);
            let (mut tags, mut data) = (Vec::new(), std::collections::BTreeMap::<String, String>::new());
            while let Some(event) = scanner.event().unwrap() {
                let within = scanner.open().last().map(|s| (*s).to_owned()).unwrap_or_default();
                match event {
                    crate::xml::Event::Start { name, attributes, .. } => {
                        let attributes = crate::xml::attributes(&text[attributes]).unwrap();
                        assert!(name != "l" || attributes[0].1 == value);
                        tags.push(name.to_owned());
                    }
                    crate::xml::Event::Text(text) => data.entry(within).or_default().push_str(&crate::xml::unescaped(text).unwrap()),
                    crate::xml::Event::Literal(text) => data.entry(within).or_default().push_str(text),
                    crate::xml::Event::End { .. } => {}
                }
            }
            assert_eq!((tags, &data["p"], &data["c"]), (["l", "p", "c", "d"].map(str::to_owned).to_vec(), &value, &value));
            assert_eq!(data["d"], format!("{value}{BEHIND}]]{value}>"));
        }
        let failed = payload(written).unwrap().write(&given("nul\0")).unwrap_err();
        assert!(failed.contains("control character") && !failed.contains("nul"), "{failed}");
    }

    #[test]
    fn what_would_be_pasted_and_not_encoded_is_refused_when_it_is_read() {
        for (wrong, why) in [
            (json!({ "body": "{\"p\":\"{{ vars.p }}\"}", "content_type": "application/json" }), "`json` encodes it"),
            (json!({ "body": "p={{ vars.p }}", "content_type": "application/x-www-form-urlencoded" }), "`form` encodes it"),
            (json!({ "body": "<p>{{ vars.p }}</p>", "content_type": "text/xml; charset=utf-8" }), "`xml` encodes it"),
            (json!({ "xml": "${secret:<p>x</p>}" }), "would not be escaped"),
            (json!({ "xml": "<p>" }), "well-formed"),
            (json!({ "json": {}, "form": {} }), "one body"),
            (json!({ "content_type": "text/plain" }), "no body"),
            (json!({ "form": { "a": { "b": 1 } } }), "a map has no place"),
            (json!({ "form": [] }), "a map of names"),
        ] {
            let said = payload(wrong.clone()).unwrap_err();
            assert!(said.iter().any(|text| text.contains(why)), "{wrong}: {said:?}");
        }
        assert_eq!(body(json!({ "body": "as it is {{ vars.p }}" }), "\"&<"), "as it is \"&<");
    }
}
