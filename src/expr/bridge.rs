//! Between our values and the engine's: into its own types where they say the same, into objects where they do not, and
//! back. Keeps watch over an evaluation: whether it looked at a secret, and whether it printed what has no text.

use std::cell::Cell;
use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use minijinja::value::{DynObject, Enumerator, Object, ObjectRepr, ValueKind};
use minijinja::{Error, ErrorKind, Value as Engine};

use super::moment::Moment;
use super::value::{DEPTH_MAX, Map, Unprintable, Value, number};
use crate::secret::{REDACTED, Secret};

/// Most values that a result may consist of.
const RESULT_VALUES_MAX: usize = 20_000;

thread_local! {
    // An evaluation runs on one thread from start to end, and the engine has no room for a word of ours.
    static SECRET: Cell<bool> = const { Cell::new(false) };
    static PRINTED: Cell<Option<Unprintable>> = const { Cell::new(None) };
}

/// What was seen of an evaluation.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// It looked at a secret.
    pub secret: bool,
    /// It printed what has no text.
    pub printed: Option<Unprintable>,
}

/// Runs an evaluation under watch.
pub fn watched<R>(run: impl FnOnce() -> R) -> (R, Seen) {
    SECRET.set(false);
    PRINTED.set(None);
    let result = run();
    (result, Seen { secret: SECRET.take(), printed: PRINTED.take() })
}

/// What a filter of ours complains about: text that holds no values.
#[derive(Debug)]
pub struct Complaint(pub String);

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Complaint {}

/// An error of the engine's with our words in it.
pub fn complain(words: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, "").with_source(Complaint(words.into()))
}

/// Into the engine. A secret on its way in is noted.
pub fn engine(value: &Value) -> Engine {
    match value {
        Value::Null => Engine::from(()),
        Value::Bool(b) => Engine::from(*b),
        Value::Number(n) => engine_number(n),
        Value::Text(t) => Engine::from(t.clone()),
        Value::Secret(s) => {
            SECRET.set(true);
            Engine::from(s.expose())
        }
        Value::Bytes(b) => Engine::from_object(Bytes(b.clone())),
        Value::Moment(m) => Engine::from_object(*m),
        Value::List(items) => Engine::from_object(ListView(items.clone())),
        Value::Map(map) => Engine::from_object(MapView(map.clone())),
    }
}

/// Bytes, as a filter results in them.
pub fn bytes(bytes: impl Into<Arc<[u8]>>) -> Engine {
    Engine::from_object(Bytes(bytes.into()))
}

/// The engine's own number where it prints as it was written, else the text of it.
fn engine_number(text: &Arc<str>) -> Engine {
    let own = native(text);
    if own.to_string() == **text { own } else { Engine::from_object(Written(text.clone())) }
}

fn native(text: &str) -> Engine {
    if let Ok(number) = text.parse::<i128>() {
        return Engine::from(number);
    }
    Engine::from(text.parse::<f64>().unwrap_or(f64::NAN))
}

/// A number that can be computed with, whatever it was; lists of numbers too. Everything else as it is.
pub fn numeric(value: Engine) -> Engine {
    if let Some(written) = value.downcast_object_ref::<Written>() {
        return native(&written.0);
    }
    if let Some(list) = value.downcast_object_ref::<ListView>()
        && list.0.iter().any(|item| matches!(item, Value::Number(_)))
    {
        return list.0.iter().map(|item| numeric(engine(item))).collect();
    }
    value
}

/// Its number as written, where it is one.
pub fn written(value: &Engine) -> Option<Arc<str>> {
    if let Some(written) = value.downcast_object_ref::<Written>() {
        return Some(written.0.clone());
    }
    match value.kind() {
        ValueKind::Number if value.is_integer() => Some(value.to_string().into()),
        ValueKind::Number => number(&value.to_string()),
        _ => None,
    }
}

/// Its bytes, where it is bytes.
pub fn as_bytes(value: &Engine) -> Option<Arc<[u8]>> {
    value.downcast_object_ref::<Bytes>().map(|b| b.0.clone())
}

/// Its moment, where it is one.
pub fn as_moment(value: &Engine) -> Option<Moment> {
    value.downcast_object_ref::<Moment>().copied()
}

/// Back from the engine; `None` where it is undefined. A secret in it is noted.
///
/// # Errors
/// For what is no value of the language, and for what is too large or too deep.
pub fn ours(value: &Engine) -> Result<Option<Value>, Error> {
    if value.is_undefined() {
        return Ok(None);
    }
    let mut room = RESULT_VALUES_MAX;
    let value = back(value, 0, &mut room)?;
    // A map is taken over whole, without its values being looked up one by one.
    if value.holds_secret() {
        SECRET.set(true);
    }
    Ok(Some(value))
}

fn back(value: &Engine, depth: usize, room: &mut usize) -> Result<Value, Error> {
    *room = room.checked_sub(1).ok_or_else(|| complain(format!("its result has more than {RESULT_VALUES_MAX} values")))?;
    if depth > DEPTH_MAX {
        return Err(complain("its result is nested too deeply"));
    }
    if let Some(view) = value.downcast_object_ref::<MapView>() {
        return Ok(Value::Map(view.0.clone()));
    }
    if let Some(view) = value.downcast_object_ref::<ListView>() {
        return Ok(Value::List(view.0.clone()));
    }
    if let Some(moment) = as_moment(value) {
        return Ok(Value::Moment(moment));
    }
    if let Some(bytes) = as_bytes(value) {
        return Ok(Value::Bytes(bytes));
    }
    if let Some(number) = written(value) {
        return Ok(Value::Number(number));
    }
    match value.kind() {
        ValueKind::None => Ok(Value::Null),
        ValueKind::Bool => Ok(Value::Bool(value.is_true())),
        ValueKind::String => Ok(Value::text(value.as_str().unwrap_or_default())),
        ValueKind::Number => Err(complain("its result is no finite number")),
        ValueKind::Seq | ValueKind::Iterable => {
            let mut items = Vec::new();
            for item in value.try_iter()? {
                items.push(back(&item, depth + 1, room)?);
            }
            Ok(Value::List(items.into()))
        }
        ValueKind::Map => {
            let mut entries: Vec<(Arc<str>, Value)> = Vec::new();
            for key in value.try_iter()? {
                let name = key.as_str().map(Arc::from).or_else(|| written(&key));
                let name = name.ok_or_else(|| complain("a key of the resulting map is no text"))?;
                entries.push((name, back(&value.get_item(&key)?, depth + 1, room)?));
            }
            Ok(Value::Map(Arc::new(Map::new(entries))))
        }
        ValueKind::Undefined => Err(Error::from(ErrorKind::UndefinedError)),
        _ => Err(complain("its result is no value")),
    }
}

/// With everything that is text marked as secret.
pub fn sealed(value: Value) -> Value {
    match value {
        Value::Text(t) => Value::Secret(Secret::new(t.to_string())),
        Value::List(items) => Value::List(items.iter().cloned().map(sealed).collect()),
        Value::Map(map) => Value::Map(Arc::new(map.entries().iter().map(|(key, value)| (key.clone(), sealed(value.clone()))).collect())),
        other => other,
    }
}

struct Bytes(Arc<[u8]>);

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl Object for Bytes {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn is_true(self: &Arc<Self>) -> bool {
        !self.0.is_empty()
    }

    fn custom_cmp(self: &Arc<Self>, other: &DynObject) -> Option<Ordering> {
        Some(self.0.cmp(&other.downcast_ref::<Self>()?.0))
    }

    fn render(self: &Arc<Self>, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        PRINTED.set(Some(Unprintable::Bytes));
        Ok(())
    }
}

impl Object for Moment {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn custom_cmp(self: &Arc<Self>, other: &DynObject) -> Option<Ordering> {
        Some((**self).cmp(other.downcast_ref::<Self>()?))
    }

    fn render(self: &Arc<Self>, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        PRINTED.set(Some(Unprintable::Moment));
        Ok(())
    }
}

/// A number that the engine's own would print otherwise.
struct Written(Arc<str>);

impl fmt::Debug for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number")
    }
}

impl Object for Written {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn is_true(self: &Arc<Self>) -> bool {
        self.0.bytes().take_while(|b| !b"eE".contains(b)).any(|b| (b'1'..=b'9').contains(&b))
    }

    fn custom_cmp(self: &Arc<Self>, other: &DynObject) -> Option<Ordering> {
        Some(native(&self.0).cmp(&native(&other.downcast_ref::<Self>()?.0)))
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

struct ListView(Arc<[Value]>);

impl fmt::Debug for ListView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

impl Object for ListView {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Seq
    }

    fn get_value(self: &Arc<Self>, key: &Engine) -> Option<Engine> {
        self.0.get(key.as_usize()?).map(engine)
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Seq(self.0.len())
    }
}

struct MapView(Arc<Map>);

impl fmt::Debug for MapView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

impl Object for MapView {
    fn get_value(self: &Arc<Self>, key: &Engine) -> Option<Engine> {
        self.get_value_by_str(key.as_str()?)
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Engine> {
        self.0.get(key).map(engine)
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        let map = self.0.clone();
        let keys = (0..map.entries().len()).map(move |index| Engine::from(map.entries()[index].0.clone()));
        Enumerator::Iter(Box::new(keys))
    }
}

/// The words that an expression may begin with, and the parts of those that have some.
pub struct Roots(pub Vec<(&'static str, Engine)>);

impl fmt::Debug for Roots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

impl Object for Roots {
    fn get_value(self: &Arc<Self>, key: &Engine) -> Option<Engine> {
        self.get_value_by_str(key.as_str()?)
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Engine> {
        self.0.iter().find(|(name, _)| *name == key).map(|(_, value)| value.clone())
    }
}
