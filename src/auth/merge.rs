//! `body`: values that the operator merges into JSON, form and XML bodies (rulings F10 to F12, E12, E13). The caller's own
//! tokens keep their bytes; what the operator names wins. No value can become structure.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use percent_encoding::percent_decode;
use zeroize::Zeroizing;

use crate::auth::insert::{Kind, kind, reframe, refusal};
use crate::auth::{form, json};
use crate::body::{self, Body};
use crate::call::{Call, STAND_IN};
use crate::error::Error;
use crate::expr::{self, Failure, Moments, Name, Names, Settings, Template, Value, place};
use crate::fill::{self, Facts};
use crate::secret::Secret;
use crate::tree::{Fields, Node, Problems, Value as Tree};
use crate::uri::encode_query;
use crate::xml::{Event, Scanner};

/// What names the limit on the body in errors.
const LIMIT: &str = "limits.buffer";
/// What values in a body may read: not the body itself.
const INPUTS: Names = Names::FIXED
    .with(Names::CLIENT)
    .with(Names::REQUEST)
    .with(Names::ATTEMPT)
    .with(Names::GRANTED)
    .without(Names::of(&[Name::RequestBody, Name::RequestBodySha256]));

/// What is merged into the bodies of a resource.
#[derive(Debug)]
pub struct Merge {
    json: Vec<Member>,
    form: Vec<(String, Field)>,
    xml: Vec<(Vec<String>, Template)>,
    settings: Arc<Settings>,
    limit: u64,
}

/// A member of a JSON object, by the names that lead to it.
#[derive(Debug)]
struct Member {
    path: Vec<String>,
    leaf: Leaf,
}

#[derive(Debug)]
enum Leaf {
    /// Its JSON.
    Ready(Secret),
    Computed(Template),
}

#[derive(Debug)]
enum Field {
    Text(Leaf),
    /// The field holds JSON, which is merged and written back.
    Json(Vec<Member>),
}

impl Merge {
    /// Reads `{ json, form, xml }`. `None` after an error was reported.
    pub fn read(node: &Node, settings: &Arc<Settings>, limit: u64, problems: &Problems) -> Option<Self> {
        let fields = Fields::of(node, "a map of `json`, `form` and `xml`", problems)?;
        let reading = Reading { settings, problems };
        let json = fields.node("json").map_or(Some(Vec::new()), |n| reading.object(n));
        let form = fields.node("form").map_or(Some(Vec::new()), |n| reading.form(n));
        let xml = fields.node("xml").map_or(Some(Vec::new()), |n| reading.xml(n));
        fields.finish();
        Some(Self { json: json?, form: form?, xml: xml?, settings: settings.clone(), limit })
    }

    /// Whether any of it reads a token, or what came with one.
    pub fn reads_granted(&self) -> bool {
        let leaf = |leaf: &Leaf| matches!(leaf, Leaf::Computed(template) if template.names().meets(Names::GRANTED));
        let members = |all: &[Member]| all.iter().any(|member| leaf(&member.leaf));
        let field = |field: &Field| match field {
            Field::Text(text) => leaf(text),
            Field::Json(all) => members(all),
        };
        members(&self.json) || self.form.iter().any(|(_, f)| field(f)) || self.xml.iter().any(|(_, t)| t.names().meets(Names::GRANTED))
    }

    /// Merges them into the call's body. A call without one is left alone.
    ///
    /// # Errors
    /// [`Error::BadRequest`] for a body that has no room for them, [`Error::BodyTooLarge`] for one over the limit.
    pub async fn put(&self, call: &mut Call) -> Result<(), Error> {
        let empty = http_body::Body::is_end_stream(&call.body);
        if empty && !call.headers.contains_key(CONTENT_TYPE) {
            return Ok(());
        }
        let kind = kind(&call.headers, empty)?;
        let text = body::collect(std::mem::take(&mut call.body), self.limit, LIMIT).await?;
        let text = self.merged(kind, text, call)?;
        reframe(&mut call.headers, text.len());
        call.expects_continue = false;
        call.body = Body::Full(text);
        Ok(())
    }

    fn merged(&self, kind: Kind, text: Bytes, call: &Call) -> Result<Bytes, Error> {
        let inputs = Facts { settings: &self.settings, call, body: None };
        match kind {
            Kind::Json if !self.json.is_empty() => merge_json(text.to_vec(), &self.json, &inputs).map(Bytes::from),
            Kind::Form if !self.form.is_empty() => {
                let mut form = text.to_vec();
                for (name, field) in &self.form {
                    let value = match field {
                        Field::Text(leaf) => leaf.text(&inputs)?,
                        Field::Json(members) => {
                            let before = value_of(&form, name).unwrap_or_else(|| b"{}".to_vec());
                            let merged = Zeroizing::new(merge_json(before, members, &inputs)?);
                            Zeroizing::new(String::from_utf8_lossy(&merged).into_owned())
                        }
                    };
                    let pair = Zeroizing::new([encode_query(name).as_str(), "=", &encode_query(&value)].concat());
                    form = form::set(&form, name, &pair);
                }
                Ok(form.into())
            }
            Kind::Xml if !self.xml.is_empty() => {
                let mut document = String::from_utf8(text.to_vec()).map_err(|_| refuse("The XML body is not UTF-8."))?;
                for (path, template) in &self.xml {
                    let fragment = fragment(template, &inputs)?;
                    document = insert(&document, path, &fragment)?;
                }
                Ok(document.into())
            }
            _ => Err(refuse("This resource puts values into the body, and not into bodies of this kind.")),
        }
    }
}

fn refuse(why: &'static str) -> Error {
    Error::BadRequest(why.into(), "Send what the resource's `body` names: JSON, a form, or XML.".into())
}

fn failed(failure: &Failure, template: &Template) -> Error {
    fill::refused(failure, template.names())
}

impl Leaf {
    fn json(&self, inputs: &Facts<'_>) -> Result<Zeroizing<String>, Error> {
        match self {
            Self::Ready(json) => Ok(Zeroizing::new(json.expose().to_owned())),
            Self::Computed(template) if fill::stands_in(inputs.call, template.names()) => {
                Ok(Zeroizing::new(serde_json::Value::from(STAND_IN).to_string()))
            }
            Self::Computed(template) => {
                let rendered = template.render(inputs).map_err(|failure| failed(&failure, template))?;
                let mut json = Zeroizing::new(String::new());
                rendered.value.write_json(Moments::Refused, &mut json).map_err(|why| Error::Internal(format!("`{template:?}`: {why}")))?;
                Ok(json)
            }
        }
    }

    /// As in a form: the text of a value, numbers and booleans as in JSON (ruling F15).
    fn text(&self, inputs: &Facts<'_>) -> Result<Zeroizing<String>, Error> {
        let json = self.json(inputs)?;
        let text = serde_json::from_str::<String>(&json).ok();
        Ok(text.map_or(json, Zeroizing::new))
    }
}

fn merge_json(mut text: Vec<u8>, members: &[Member], inputs: &Facts<'_>) -> Result<Vec<u8>, Error> {
    for member in members {
        let json = member.leaf.json(inputs)?;
        text = json::set_deep(&text, &member.path, &json).map_err(refusal)?;
    }
    Ok(text)
}

/// The decoded value of the last field of this name.
fn value_of(form: &[u8], name: &str) -> Option<Vec<u8>> {
    let piece = form.split(|b| *b == b'&').rfind(|piece| form::is_named(piece, name))?;
    let value = piece.splitn(2, |b| *b == b'=').nth(1)?;
    let spaced: Vec<u8> = value.iter().map(|b| if *b == b'+' { b' ' } else { *b }).collect();
    let decoded: Cow<'_, [u8]> = percent_decode(&spaced).into();
    (!decoded.is_empty()).then(|| decoded.into_owned())
}

/// The operator's XML with every value escaped.
fn fragment(template: &Template, inputs: &Facts<'_>) -> Result<Zeroizing<String>, Error> {
    let mut out = Zeroizing::new(String::new());
    if fill::stands_in(inputs.call, template.names()) {
        out.push_str(STAND_IN);
        return Ok(out);
    }
    for (value, computed) in template.pieces(inputs).map_err(|failure| failed(&failure, template))? {
        let mut text = Zeroizing::new(String::new());
        value.write_text(&mut text).map_err(|why| Error::Internal(format!("`{template:?}`: {why}")))?;
        if computed {
            place::append_xml(&mut out, &text).map_err(|why| Error::Internal(format!("`{template:?}`: {why}")))?;
        } else {
            out.push_str(&text);
        }
    }
    Ok(out)
}

/// The document with a fragment as the first child of the first element that the path leads to.
fn insert(document: &str, path: &[String], fragment: &str) -> Result<String, Error> {
    let wrong =
        |at: usize| Error::BadRequest(format!("The body is not well-formed XML from byte {at} on.").into(), "Send valid XML.".into());
    let mut scanner = Scanner::new(document);
    let mut found = None;
    loop {
        let open = scanner.open().len();
        let fits = open + 1 == path.len() && scanner.open().iter().zip(path).all(|(name, step)| crate::xml::local(name) == step);
        match scanner.event().map_err(|w| wrong(w.at))? {
            None => break,
            Some(Event::Start { name, tag, empty, .. })
                if found.is_none() && fits && path.last().is_some_and(|p| p == crate::xml::local(name)) =>
            {
                found = Some((name, tag, empty));
            }
            Some(_) => {}
        }
    }
    let Some((name, tag, empty)) = found else {
        return Err(refuse("The XML body lacks the element that this resource puts a value into."));
    };
    let (before, behind) = document.split_at(tag.end);
    Ok(if empty {
        let open = before.strip_suffix("/>").unwrap_or(before);
        [open, ">", fragment, "</", name, ">", behind].concat()
    } else {
        [before, fragment, behind].concat()
    })
}

struct Reading<'r> {
    settings: &'r Settings,
    problems: &'r Problems,
}

impl Reading<'_> {
    fn object(&self, node: &Node) -> Option<Vec<Member>> {
        Fields::of(node, "a map of members", self.problems)?;
        let mut members = Vec::new();
        self.members(node, &mut Vec::new(), &mut members)?;
        Some(members)
    }

    fn members(&self, node: &Node, path: &mut Vec<String>, into: &mut Vec<Member>) -> Option<()> {
        if path.len() > json::DEEPEST / 4 {
            self.problems.error(node.place, "the members are nested too deeply", "");
            return None;
        }
        for entry in node.entries() {
            path.push(entry.key.to_string());
            if entry.node.entries().is_empty() {
                into.push(Member { path: path.clone(), leaf: self.leaf(&entry.node)? });
            } else {
                self.members(&entry.node, path, into)?;
            }
            path.pop();
        }
        Some(())
    }

    fn leaf(&self, node: &Node) -> Option<Leaf> {
        if node.is_template() {
            return expr::read(node, &self.settings.scope(INPUTS), self.problems).map(Leaf::Computed);
        }
        if holds_template(node) {
            self.problems.error(
                node.place,
                "an expression inside a list of `body` cannot wait for a request",
                "make the whole list one expression",
            );
            return None;
        }
        let Some(value) = Value::of_node(node) else {
            node.literal(self.problems);
            return None;
        };
        let mut json = String::new();
        if let Err(why) = value.write_json(Moments::Refused, &mut json) {
            self.problems.error(node.place, why.to_string(), "");
            return None;
        }
        Some(Leaf::Ready(Secret::new(json)))
    }

    fn form(&self, node: &Node) -> Option<Vec<(String, Field)>> {
        Fields::of(node, "a map of fields", self.problems)?;
        let field = |e: &crate::tree::Entry| {
            let field = match (&e.node.value, e.node.get("json")) {
                (Tree::Map(_), Some(json)) if e.node.entries().len() == 1 => Field::Json(self.object(json)?),
                (Tree::Map(_) | Tree::List(_) | Tree::Null, _) => {
                    self.problems.error(e.node.place, "a field of a form is text, or { json: { … } }", "");
                    return None;
                }
                _ => Field::Text(self.leaf(&e.node)?),
            };
            Some((e.key.to_string(), field))
        };
        node.entries().iter().map(field).collect()
    }

    fn xml(&self, node: &Node) -> Option<Vec<(Vec<String>, Template)>> {
        Fields::of(node, "a map of paths and fragments", self.problems)?;
        let one = |e: &crate::tree::Entry| {
            let path: Vec<String> = e.key.strip_prefix('/').unwrap_or(&e.key).split('/').map(|s| crate::xml::local(s).to_owned()).collect();
            if path.iter().any(|step| step.is_empty() || step.contains(['[', '*', '@', '('])) {
                self.problems.error(e.place, format!("`{}` is no path of elements", e.key), "names and slashes: /request/control");
                return None;
            }
            // What a reference brings would be pasted as it is, and could be structure.
            if !matches!(e.node.value, Tree::Text(_)) {
                let hint = "name the secret under `secrets` and write {{ secrets.NAME }}, the value under `vars` and {{ vars.NAME }}";
                self.problems.error(e.node.place, "a fragment of XML is text without references", hint);
                return None;
            }
            let template = expr::read(&e.node, &self.settings.scope(INPUTS), self.problems)?;
            Some((path, template))
        };
        node.entries().iter().map(one).collect()
    }
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
    use crate::auth::support::{body, call_with, node, now};

    fn merged(config: serde_json::Value, content_type: &str, text: &str) -> Result<String, Error> {
        let problems = Problems::default();
        let merge = Merge::read(&node(&config), &Arc::default(), 1024, &problems);
        let merge = merge.unwrap_or_else(|| panic!("{:?}", problems.into_sorted()));
        let mut call = call_with(content_type, text.as_bytes());
        now(merge.put(&mut call))?;
        Ok(body(&call).to_owned())
    }

    const JSON: &str = "application/json";
    const FORM: &str = "application/x-www-form-urlencoded";

    #[test]
    fn members_are_merged_deeply_and_the_callers_tokens_keep_their_bytes() {
        let config = json!({ "json": { "auth": { "key": "${secret:S}", "n": 1.5 }, "top": [1, true, null] } });
        for (text, expected) in [
            (r#"{ "n" : 12345678901234567890.10 }"#, r#"{ "n" : 12345678901234567890.10,"auth":{"key":"S","n":1.5},"top":[1,true,null] }"#),
            (r#"{"auth":{"x":1e9,"key":"mine"},"top":5}"#, r#"{"auth":{"x":1e9,"key":"S","n":1.5},"top":[1,true,null]}"#),
            (r#"{"auth":"mine"}"#, r#"{"auth":{"key":"S","n":1.5},"top":[1,true,null]}"#),
            (r#"{"auth":{"key":1},"auth":{"x":2}}"#, r#"{"auth":{"x":2,"key":"S","n":1.5},"top":[1,true,null]}"#),
            ("{}", r#"{"auth":{"key":"S","n":1.5},"top":[1,true,null]}"#),
        ] {
            assert_eq!(merged(config.clone(), JSON, text).unwrap(), expected, "{text}");
        }
        for text in ["[]", "1", "{", "null"] {
            assert!(merged(config.clone(), JSON, text).is_err(), "{text}");
        }
        assert!(merged(config.clone(), FORM, "a=1").is_err());
        assert!(merged(config, "text/plain", "a").is_err());
    }

    #[test]
    fn fields_of_a_form_are_set_and_json_inside_one_is_merged() {
        let config = json!({ "form": { "key": "${secret:a&b=c}", "job": { "json": { "credentials": { "k": "${secret:S\"}" } } } } });
        assert_eq!(
            merged(config.clone(), FORM, "x=%zz&key=mine&job=%7B%22a%22%3A1%7D&key=2").unwrap(),
            "x=%zz&key=a%26b%3Dc&job=%7B%22a%22%3A1%2C%22credentials%22%3A%7B%22k%22%3A%22S%5C%22%22%7D%7D"
        );
        assert_eq!(merged(config, FORM, "x=1").unwrap(), "x=1&key=a%26b%3Dc&job=%7B%22credentials%22%3A%7B%22k%22%3A%22S%5C%22%22%7D%7D");
    }

    #[test]
    fn a_fragment_becomes_the_first_child_and_its_values_are_escaped() {
        let config = json!({ "xml": { "/request/control": "<id>{{ '<&]]>' }}</id>" } });
        let put = |text: &str| merged(config.clone(), "text/xml", text);
        assert_eq!(
            put("<request><control><a/></control></request>").unwrap(),
            "<request><control><id>&lt;&amp;]]&gt;</id><a/></control></request>"
        );
        assert_eq!(
            put("<s:request xmlns:s='u'><s:control/></s:request>").unwrap(),
            "<s:request xmlns:s='u'><s:control><id>&lt;&amp;]]&gt;</id></s:control></s:request>"
        );
        let config = json!({ "xml": { "/r": "<id><![CDATA[{{ ']]' }}{{ '><x/>' }}]]></id>" } });
        assert_eq!(merged(config, "text/xml", "<r/>").unwrap(), "<r><id><![CDATA[]]>]]<![CDATA[]]>&gt;&lt;x/&gt;<![CDATA[]]></id></r>");
        for text in ["<request/>", "<control/>", "<request><control></request>", "<!DOCTYPE x><request><control/></request>"] {
            assert!(put(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_reference_cannot_stand_in_a_fragment_as_it_could_become_structure() {
        let problems = Problems::default();
        let config = json!({ "xml": { "/a": "${secret:<x>}" } });
        assert!(Merge::read(&node(&config), &Arc::default(), 1024, &problems).is_none());
        assert!(problems.any_error());
    }

    #[test]
    fn a_call_without_a_body_is_left_alone() {
        let merge = Merge::read(&node(&json!({ "json": { "a": 1 } })), &Arc::default(), 1024, &Problems::default()).unwrap();
        let mut call = call_with("", b"");
        now(merge.put(&mut call)).unwrap();
        assert!(matches!(call.body, Body::Empty));
    }
}
