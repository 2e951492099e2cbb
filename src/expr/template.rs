//! Templates and conditions: text with expressions in it, and the bare expression of `when`.

use std::borrow::Cow;
use std::fmt;

use zeroize::Zeroizing;

use super::code::Code;
use super::engine::{self, Outcome, Prepared};
use super::kind::Kind;
use super::value::{Unprintable, Value};
use super::{Cut, Failure, Inputs, Mistake, Names, Scope, split};
use crate::secret::{REDACTED, Secret};

/// Longest template, in bytes.
pub const TEMPLATE_MAX: usize = 64 << 10;
/// Most expressions of a template.
pub const EXPRESSIONS_MAX: usize = 64;
/// Longest text that a template may result in, in bytes.
pub const OUTPUT_MAX: usize = 1 << 20;

/// A part of a template's text as the configuration has it.
#[derive(Clone, Debug)]
pub enum Part<'p> {
    /// As written: text and `{{ … }}`.
    Written(&'p str),
    /// What a reference was resolved to. It is put in as it is, whatever it looks like.
    Put(&'p str),
    /// The same, and secret.
    Secret(&'p Secret),
}

/// A compiled template.
pub struct Template {
    pieces: Box<[Piece]>,
    names: Names,
    /// Whether a secret reference stands in it.
    holds_secret: bool,
}

enum Piece {
    Text(Box<str>),
    Secret(Secret),
    Code(Box<Code>),
}

/// What a template resulted in.
#[derive(Clone, PartialEq)]
pub struct Rendered {
    /// The value. Where a secret went into it, its texts are [`Value::Secret`].
    pub value: Value,
    /// Whether a secret went into it.
    pub secret: bool,
}

impl Template {
    /// Compiles text. Every mistake is found, each with its byte in the text.
    ///
    /// # Errors
    /// The mistakes, at least one.
    pub fn compile(text: &str, scope: &Scope<'_>) -> Result<Self, Vec<Mistake>> {
        Self::of_parts(&[Part::Written(text)], scope)
    }

    /// Compiles text into which references were put. A byte of a mistake counts in the written parts, one behind the
    /// other.
    ///
    /// # Errors
    /// The mistakes, at least one.
    pub fn of_parts(parts: &[Part<'_>], scope: &Scope<'_>) -> Result<Self, Vec<Mistake>> {
        let mut reader = Reader { scope, pieces: Vec::new(), mistakes: Vec::new(), offset: 0, expressions: 0 };
        let mut holds_secret = false;
        for part in parts {
            match part {
                Part::Written(text) => reader.written(text),
                Part::Put(text) => reader.text(text),
                Part::Secret(secret) => {
                    holds_secret = true;
                    reader.pieces.push(Piece::Secret((*secret).clone()));
                }
            }
        }
        if !reader.mistakes.is_empty() {
            return Err(reader.mistakes);
        }
        let names = reader.pieces.iter().fold(Names::NONE, |names, piece| match piece {
            Piece::Code(code) => names.with(code.names),
            _ => names,
        });
        let template = Self { pieces: reader.pieces.into(), names, holds_secret };
        template.judge_bytes().map(|()| template)
    }

    /// Bytes print nowhere, alone or inside text.
    fn judge_bytes(&self) -> Result<(), Vec<Mistake>> {
        let whole = self.whole().is_some();
        let wrong = |code: &Code| match code.kind {
            Kind::Bytes => Some(Unprintable::Bytes),
            Kind::Moment if !whole => Some(Unprintable::Moment),
            Kind::List if !whole => Some(Unprintable::List),
            Kind::Map if !whole => Some(Unprintable::Map),
            _ => None,
        };
        let mistakes: Vec<Mistake> = self
            .pieces
            .iter()
            .filter_map(|piece| match piece {
                Piece::Code(code) => wrong(code).map(|why| Mistake::new(code.at, format!("`{}`: {why}", code.source()), "")),
                _ => None,
            })
            .collect();
        if mistakes.is_empty() { Ok(()) } else { Err(mistakes) }
    }

    /// Reports what can be seen to have no text, for places that take nothing but text.
    ///
    /// # Errors
    /// The mistake.
    pub fn text_only(&self) -> Result<(), Mistake> {
        let Some(code) = self.whole() else { return Ok(()) };
        let why = match code.kind {
            Kind::Moment => Unprintable::Moment,
            Kind::List => Unprintable::List,
            Kind::Map => Unprintable::Map,
            Kind::Null => Unprintable::Null,
            _ => return Ok(()),
        };
        Err(Mistake::new(code.at, format!("`{}`: {why}", code.source()), ""))
    }

    /// The expression, where the template is exactly one (ruling C8).
    fn whole(&self) -> Option<&Code> {
        match &*self.pieces {
            [Piece::Code(code)] => Some(code),
            _ => None,
        }
    }

    /// What its expressions use.
    pub fn names(&self) -> Names {
        self.names
    }

    /// The text in front of the first expression.
    pub fn beginning(&self) -> &str {
        if let Some(Piece::Text(text)) = self.pieces.first() { text } else { "" }
    }

    /// Whether there is no expression in it.
    pub fn is_constant(&self) -> bool {
        !self.pieces.iter().any(|piece| matches!(piece, Piece::Code(_)))
    }

    /// Whether a secret reference stands in it, or it reads `secrets`, a token or what came with one.
    pub fn holds_secret(&self) -> bool {
        self.holds_secret || self.names.has(super::Name::Secrets) || self.names.meets(Names::GRANTED)
    }

    /// Whether something in it is encoded for a URL or a form already, so that its place must be told (ruling H16).
    pub fn encodes(&self) -> bool {
        let encodes = |source: &str| ["urlencode", "formencode", "canonical_query"].iter().any(|name| source.contains(name));
        self.pieces.iter().any(|piece| matches!(piece, Piece::Code(code) if encodes(code.source())))
    }

    /// Evaluates it. A template that is exactly one expression keeps that one's type, any other makes text.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn render(&self, inputs: &dyn Inputs) -> Result<Rendered, Failure> {
        self.render_set(inputs, Unset::Kept).and_then(|rendered| rendered.ok_or_else(nothing))
    }

    /// As [`Template::render`]; `None` where it is unset and that is to be omitted.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn render_set(&self, inputs: &dyn Inputs, unset: Unset) -> Result<Option<Rendered>, Failure> {
        let Some(code) = self.whole() else { return self.text_set(inputs, unset, |text| Cow::Borrowed(text)) };
        let inputs = self.prepare(inputs)?;
        let Some((value, outcome)) = evaluate(code, &inputs, unset)? else { return Ok(None) };
        if value.holds_bytes() {
            return Err(engine::failure(code, Unprintable::Bytes.to_string()));
        }
        Ok(Some(Rendered { value, secret: outcome.secret }))
    }

    /// Evaluates it to text.
    ///
    /// # Errors
    /// [`Failure`], also where an expression has no text.
    pub fn render_text(&self, inputs: &dyn Inputs) -> Result<Rendered, Failure> {
        self.render_placed(inputs, |text| Cow::Borrowed(text))
    }

    /// Evaluates it to text of which everything but what `urlencode` and `formencode` made is encoded for its place.
    ///
    /// # Errors
    /// [`Failure`], also where an expression has no text.
    pub fn render_placed(&self, inputs: &dyn Inputs, encode: impl Fn(&str) -> Cow<'_, str>) -> Result<Rendered, Failure> {
        self.text_set(inputs, Unset::Kept, encode).and_then(|rendered| rendered.ok_or_else(nothing))
    }

    /// As [`Template::render_placed`]; `None` where one of its expressions is unset and that is to be omitted.
    ///
    /// # Errors
    /// [`Failure`], also where an expression has no text.
    pub fn text_set(&self, inputs: &dyn Inputs, unset: Unset, encode: impl Fn(&str) -> Cow<'_, str>) -> Result<Option<Rendered>, Failure> {
        let inputs = self.prepare(inputs)?;
        let mut out = Zeroizing::new(String::new());
        let mut secret = self.holds_secret;
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => out.push_str(&encode(text)),
                Piece::Secret(text) => out.push_str(&encode(text.expose())),
                Piece::Code(code) => {
                    let Some((value, outcome)) = evaluate(code, &inputs, unset)? else { return Ok(None) };
                    secret |= outcome.secret;
                    let mut text = Zeroizing::new(String::new());
                    value.write_text(&mut text).map_err(|why| engine::failure(code, why.to_string()))?;
                    out.push_str(&if outcome.encoded { Cow::Borrowed(text.as_str()) } else { encode(&text) });
                    if out.len() > OUTPUT_MAX {
                        return Err(engine::failure(code, format!("the text becomes longer than {OUTPUT_MAX} bytes")));
                    }
                }
            }
        }
        let text = std::mem::take(&mut *out);
        let value = if secret { Value::Secret(Secret::new(text)) } else { Value::text(text) };
        Ok(Some(Rendered { value, secret }))
    }

    /// Its texts, encoded for their place: one, or as many as a list has items where the template is exactly one
    /// expression. `None` where it is unset and that is to be omitted.
    ///
    /// # Errors
    /// [`Failure`], also where something in it has no text.
    pub fn texts(
        &self,
        inputs: &dyn Inputs,
        unset: Unset,
        encode: impl Fn(&str) -> Cow<'_, str>,
    ) -> Result<Option<Vec<Rendered>>, Failure> {
        let Some(code) = self.whole() else { return Ok(self.text_set(inputs, unset, encode)?.map(|one| vec![one])) };
        let inputs = self.prepare(inputs)?;
        let Some((value, outcome)) = evaluate(code, &inputs, unset)? else { return Ok(None) };
        let items = match &value {
            Value::List(items) => &items[..],
            one => std::slice::from_ref(one),
        };
        let one = |item: &Value| {
            let mut text = Zeroizing::new(String::new());
            item.write_text(&mut text).map_err(|why| engine::failure(code, why.to_string()))?;
            let text = if outcome.encoded { std::mem::take(&mut *text) } else { encode(&text).into_owned() };
            let value = if outcome.secret { Value::Secret(Secret::new(text)) } else { Value::text(text) };
            Ok(Rendered { value, secret: outcome.secret })
        };
        items.iter().map(one).collect::<Result<Vec<_>, Failure>>().map(Some)
    }

    /// The value of each piece, and whether an expression made it; for places that judge what was computed apart from
    /// what was written.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn pieces(&self, inputs: &dyn Inputs) -> Result<Vec<(Value, bool)>, Failure> {
        let inputs = self.prepare(inputs)?;
        let piece = |piece: &Piece| match piece {
            Piece::Text(text) => Ok((Value::text(&**text), false)),
            Piece::Secret(secret) => Ok((Value::Secret(secret.clone()), false)),
            Piece::Code(code) => {
                let value = evaluate(code, &inputs, Unset::Kept)?;
                value.map(|(value, _)| (value, true)).ok_or_else(nothing)
            }
        };
        self.pieces.iter().map(piece).collect()
    }

    /// As [`Template::pieces`], with what is to be known of each.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn fragments(&self, inputs: &dyn Inputs) -> Result<Vec<Fragment>, Failure> {
        let inputs = self.prepare(inputs)?;
        let fragment = |piece: &Piece| match piece {
            Piece::Text(text) => Ok(Fragment { value: Value::text(&**text), computed: false, encoded: false, secret: false }),
            Piece::Secret(secret) => Ok(Fragment { value: Value::Secret(secret.clone()), computed: false, encoded: false, secret: true }),
            Piece::Code(code) => {
                let (value, outcome) = evaluate(code, &inputs, Unset::Kept)?.ok_or_else(nothing)?;
                Ok(Fragment { value, computed: true, encoded: outcome.encoded, secret: outcome.secret })
            }
        };
        self.pieces.iter().map(fragment).collect()
    }

    /// The names behind `captured.` in its expressions, in their order.
    pub fn captures(&self) -> Vec<&str> {
        let codes = self.pieces.iter().filter_map(|piece| if let Piece::Code(code) = piece { Some(code.source()) } else { None });
        codes.flat_map(captures).collect()
    }

    /// Evaluates it to the bytes that are signed: text as it is, and a body that is no text as it came. Other bytes must say
    /// how they are written, as everywhere (ruling F5).
    ///
    /// # Errors
    /// [`Failure`], also where an expression has no text.
    pub fn bytes(&self, inputs: &dyn Inputs) -> Result<Zeroizing<Vec<u8>>, Failure> {
        let inputs = self.prepare(inputs)?;
        let mut out = Zeroizing::new(Vec::new());
        // A body has a bound of its own.
        let mut written = 0;
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => out.extend_from_slice(text.as_bytes()),
                Piece::Secret(text) => out.extend_from_slice(text.expose().as_bytes()),
                Piece::Code(code) => {
                    let Some((value, _)) = evaluate(code, &inputs, Unset::Kept)? else { return Err(nothing()) };
                    let is_body = code.source().trim() == "request.body";
                    if let Value::Bytes(bytes) = &value
                        && is_body
                    {
                        out.extend_from_slice(bytes);
                        continue;
                    }
                    let mut text = Zeroizing::new(String::new());
                    value.write_text(&mut text).map_err(|why| engine::failure(code, why.to_string()))?;
                    out.extend_from_slice(text.as_bytes());
                    written += if is_body { 0 } else { text.len() };
                    if written > OUTPUT_MAX {
                        return Err(engine::failure(code, format!("the text becomes longer than {OUTPUT_MAX} bytes")));
                    }
                }
            }
        }
        Ok(out)
    }

    fn prepare(&self, inputs: &dyn Inputs) -> Result<Prepared, Failure> {
        engine::prepare(self.names, inputs).map_err(|why| {
            let code = self.pieces.iter().find_map(|piece| match piece {
                Piece::Code(code) => Some(code),
                _ => None,
            });
            code.map_or_else(nothing, |code| engine::failure(code, why))
        })
    }
}

/// A part of what a template results in.
#[derive(Clone, Debug)]
pub struct Fragment {
    /// What it is.
    pub value: Value,
    /// Whether an expression made it.
    pub computed: bool,
    /// Whether that one has encoded it for a URL or a form (ruling H16).
    pub encoded: bool,
    /// Whether a secret went into it.
    pub secret: bool,
}

/// The names that stand behind `captured.` in an expression, outside its texts, in their order.
pub fn captures(source: &str) -> impl Iterator<Item = &str> {
    const ROOT: &str = "captured.";
    let word = |c: char| c.is_alphanumeric() || c == '_';
    source.match_indices(ROOT).filter_map(move |(at, _)| {
        let before = &source[..at];
        // Inside a text the quotes before it do not pair up.
        let quoted = before.matches('\'').count() % 2 == 1 || before.matches('"').count() % 2 == 1;
        let whole = !before.ends_with(|c: char| word(c) || c == '.');
        let rest = &source[at + ROOT.len()..];
        let name = &rest[..rest.find(|c: char| !word(c)).unwrap_or(rest.len())];
        (whole && !quoted && !name.is_empty()).then_some(name)
    })
}

/// What becomes of a template that is unset: undefined, null or empty (ruling F8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unset {
    /// It fails where it is undefined, and stays what it is where it is empty.
    Kept,
    /// It is left out (`omit_if_unset`).
    Omitted,
}

fn evaluate(code: &Code, inputs: &Prepared, unset: Unset) -> Result<Option<(Value, Outcome)>, Failure> {
    let mut outcome = match engine::run(code, inputs) {
        Err(failure) if failure.undefined && unset == Unset::Omitted => return Ok(None),
        outcome => outcome?,
    };
    match outcome.value.take() {
        None if unset == Unset::Omitted => Ok(None),
        None => Err(engine::undefined(code, inputs)),
        Some(value) if unset == Unset::Omitted && value.is_unset() => Ok(None),
        Some(value) => Ok(Some((value, outcome))),
    }
}

/// What is kept although unset is never left out: this does not happen.
fn nothing() -> Failure {
    Failure { expression: "".into(), why: "it resulted in nothing".into(), undefined: true }
}

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => f.write_str(text)?,
                Piece::Secret(_) => f.write_str(REDACTED)?,
                Piece::Code(code) => write!(f, "{{{{ {} }}}}", code.source())?,
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Rendered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.secret { f.write_str(REDACTED) } else { self.value.fmt(f) }
    }
}

struct Reader<'r> {
    scope: &'r Scope<'r>,
    pieces: Vec<Piece>,
    mistakes: Vec<Mistake>,
    offset: usize,
    expressions: usize,
}

impl Reader<'_> {
    fn text(&mut self, text: &str) {
        if let Some(Piece::Text(before)) = self.pieces.last_mut() {
            *before = [before, text].concat().into();
        } else if !text.is_empty() {
            self.pieces.push(Piece::Text(text.into()));
        }
    }

    fn written(&mut self, text: &str) {
        let offset = self.offset;
        self.offset += text.len();
        if self.offset > TEMPLATE_MAX {
            return self.mistakes.push(Mistake::new(0, format!("the template is longer than {TEMPLATE_MAX} bytes"), ""));
        }
        let cuts = match split(text) {
            Ok(cuts) => cuts,
            Err(mut mistake) => {
                mistake.at += offset;
                return self.mistakes.push(mistake);
            }
        };
        for cut in cuts {
            match cut {
                Cut::Text(range) => self.text(&text[range]),
                Cut::Expression(range) => self.expression(&text[range.clone()], offset + range.start),
            }
        }
    }

    fn expression(&mut self, source: &str, at: usize) {
        self.expressions += 1;
        if self.expressions > EXPRESSIONS_MAX {
            if self.expressions == EXPRESSIONS_MAX + 1 {
                self.mistakes.push(Mistake::new(at, format!("the template holds more than {EXPRESSIONS_MAX} expressions"), ""));
            }
            return;
        }
        match Code::compile(source, at, self.scope) {
            Ok(code) => self.pieces.push(Piece::Code(Box::new(code))),
            Err(mistakes) => self.mistakes.extend(mistakes),
        }
    }
}

/// The bare expression of a `when`. It must be true or false; anything else is a failure, for which the caller decides
/// (ruling A7: no match for an allow, a match for a deny).
pub struct Condition(Box<Code>);

impl Condition {
    /// Compiles it.
    ///
    /// # Errors
    /// The mistakes, at least one.
    pub fn compile(text: &str, scope: &Scope<'_>) -> Result<Self, Vec<Mistake>> {
        let trimmed = text.trim();
        if trimmed.starts_with("{{") && trimmed.ends_with("}}") {
            return Err(vec![Mistake::new(0, "`when` holds a bare expression", "write it without `{{` and `}}`")]);
        }
        let code = Code::compile(text, 0, scope)?;
        match code.kind {
            Kind::Bool | Kind::Any => Ok(Self(Box::new(code))),
            kind => {
                let message = format!("a condition must be true or false, and this is {kind}");
                Err(vec![Mistake::new(0, message, "compare it: `x == 'y'`, `x is defined`, `x | length > 0`")])
            }
        }
    }

    /// What it uses.
    pub fn names(&self) -> Names {
        self.0.names
    }

    /// Whether it holds.
    ///
    /// # Errors
    /// [`Failure`], also where it is neither true nor false.
    pub fn holds(&self, inputs: &dyn Inputs) -> Result<bool, Failure> {
        let inputs = engine::prepare(self.0.names, inputs).map_err(|why| engine::failure(&self.0, why))?;
        match engine::run(&self.0, &inputs)?.value {
            Some(Value::Bool(holds)) => Ok(holds),
            Some(_) => Err(engine::failure(&self.0, "it is neither true nor false: compare it with something")),
            None => Err(engine::undefined(&self.0, &inputs)),
        }
    }
}

impl fmt::Debug for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.source())
    }
}
