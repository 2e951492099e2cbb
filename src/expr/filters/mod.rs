//! The filters: which there are, what they take and give, and where each is defined. What is not in this table does not
//! exist, whatever the engine has.

mod args;
mod encode;
mod find;
mod hash;
mod jwt;
mod sign;
mod text;
mod time;
mod url;

use minijinja::Environment;

use super::kind::Kind;

/// The operator `~`, as a call under a name that is no name.
pub const JOINED: &str = "~";
/// A number for the engine to compute with, likewise.
pub const NUMERIC: &str = "#";

/// Undefined as null, likewise.
pub const OR_NULL: &str = "=";

/// Judges those arguments that are written out as text, by position.
type Check = fn(&[Option<&str>]) -> Result<(), String>;

/// A filter, as far as an expression that uses it is concerned.
#[derive(Clone, Copy, Debug)]
pub struct Signature {
    /// Its name.
    pub name: &'static str,
    /// What it takes; nothing in it means anything.
    input: &'static [Kind],
    /// What it gives; `None` is what it took.
    pub output: Option<Kind>,
    /// Its arguments, the ones that it must have first.
    pub params: &'static [&'static str],
    /// How many it must have.
    pub required: usize,
    /// Whether it takes more arguments than these.
    pub open: bool,
    /// Whether its arguments may be given by name.
    pub named: bool,
    /// Whether its arguments may be bytes or moments.
    pub bytes: bool,
    /// Whether it compares or computes, so that it needs numbers of the engine's.
    pub counts: bool,
    /// Judges constant arguments.
    pub check: Option<Check>,
}

impl Signature {
    /// Whether a value of this type may be piped into it.
    pub fn takes(&self, kind: Kind) -> bool {
        kind == Kind::Any || self.input.is_empty() || self.input.contains(&kind)
    }

    /// What may be piped into it, in words.
    pub fn wants(&self) -> String {
        let kinds: Vec<String> = self.input.iter().filter(|k| !matches!(k, Kind::Bool)).map(ToString::to_string).collect();
        kinds.join(" or ")
    }

    /// How it is called.
    pub fn usage(&self) -> String {
        if self.params.is_empty() {
            return format!("write VALUE | {}", self.name);
        }
        let named = |(index, param): (usize, &&str)| if index < self.required { (*param).to_owned() } else { format!("[{param}]") };
        let params: Vec<String> = self.params.iter().enumerate().map(named).collect();
        format!("write VALUE | {}({})", self.name, params.join(", "))
    }
}

const ANY: &[Kind] = &[];
/// What prints by itself.
const TEXT: &[Kind] = &[Kind::Text, Kind::Number, Kind::Bool];
/// What can be hashed and encoded.
const MESSAGE: &[Kind] = &[Kind::Text, Kind::Bytes, Kind::Number, Kind::Bool];
const BYTES: &[Kind] = &[Kind::Bytes, Kind::Text];
const SEQUENCE: &[Kind] = &[Kind::List, Kind::Map, Kind::Text];
const COUNTED: &[Kind] = &[Kind::List, Kind::Map, Kind::Text, Kind::Bytes];
const MOMENT: &[Kind] = &[Kind::Moment];
const NUMBER: &[Kind] = &[Kind::Number, Kind::Text, Kind::Bool, Kind::Moment];
const MAP: &[Kind] = &[Kind::Map];
const DATA: &[Kind] = &[Kind::Map, Kind::List, Kind::Text];

const fn filter(name: &'static str, input: &'static [Kind], output: Kind) -> Signature {
    Signature {
        name,
        input,
        output: Some(output),
        params: &[],
        required: 0,
        open: false,
        named: true,
        bytes: false,
        counts: false,
        check: None,
    }
}

impl Signature {
    const fn with(mut self, params: &'static [&'static str], required: usize) -> Self {
        self.params = params;
        self.required = required;
        self
    }

    /// A filter of the engine's, whose arguments go by position.
    const fn placed(mut self, params: &'static [&'static str], required: usize) -> Self {
        self.params = params;
        self.required = required;
        self.named = false;
        self
    }

    const fn open(mut self) -> Self {
        self.open = true;
        self
    }

    const fn keyed(mut self) -> Self {
        self.params = &["key"];
        self.required = 1;
        self.bytes = true;
        self
    }

    const fn counting(mut self) -> Self {
        self.counts = true;
        self
    }

    const fn same(mut self) -> Self {
        self.output = None;
        self
    }

    const fn checked(mut self, check: Check) -> Self {
        self.check = Some(check);
        self
    }
}

const TABLE: &[Signature] = &[
    // hash.rs
    filter("md5", MESSAGE, Kind::Bytes),
    filter("sha1", MESSAGE, Kind::Bytes),
    filter("sha256", MESSAGE, Kind::Bytes),
    filter("sha512", MESSAGE, Kind::Bytes),
    filter("hmac_sha1", MESSAGE, Kind::Bytes).keyed(),
    filter("hmac_sha256", MESSAGE, Kind::Bytes).keyed(),
    filter("hmac_sha512", MESSAGE, Kind::Bytes).keyed(),
    // sign.rs
    filter("ed25519", MESSAGE, Kind::Bytes).keyed(),
    filter("rsa_sha256", MESSAGE, Kind::Bytes).keyed(),
    filter("ecdsa_sha256", MESSAGE, Kind::Bytes).keyed().with(&["key", "form"], 1).checked(sign::check_form),
    filter("public_key_fingerprint", BYTES, Kind::Bytes),
    // jwt.rs
    filter("jwt", MAP, Kind::Text).keyed().with(&["algorithm", "key", "key_encoding", "header"], 2).checked(jwt::check),
    filter("claims", TEXT, Kind::Map),
    // encode.rs
    filter("hex", MESSAGE, Kind::Text),
    filter("unhex", TEXT, Kind::Bytes),
    filter("b64encode", MESSAGE, Kind::Text),
    filter("b64decode", TEXT, Kind::Bytes),
    filter("b64url", MESSAGE, Kind::Text),
    filter("b64url_decode", TEXT, Kind::Bytes),
    filter("text", MESSAGE, Kind::Text),
    filter("xml_escape", TEXT, Kind::Text),
    // url.rs
    filter("urlencode", TEXT, Kind::Text),
    filter("formencode", TEXT, Kind::Text),
    filter("canonical_query", TEXT, Kind::Text),
    // text.rs
    filter("json", ANY, Kind::Text),
    filter("parse_json", TEXT, Kind::Any),
    filter("default", ANY, Kind::Any).with(&["value"], 1),
    filter("d", ANY, Kind::Any).with(&["value"], 1),
    filter("string", TEXT, Kind::Text),
    filter("int", NUMBER, Kind::Number).with(&["default"], 0),
    filter("float", NUMBER, Kind::Number).with(&["default"], 0),
    filter("length", COUNTED, Kind::Number),
    filter("count", COUNTED, Kind::Number),
    filter("join", SEQUENCE, Kind::Text).with(&["separator"], 0),
    // find.rs
    filter("regex", TEXT, Kind::Text).with(&["pattern"], 1).checked(find::check_regex),
    filter("jsonpath", DATA, Kind::Any).with(&["path"], 1).checked(find::check_jsonpath),
    filter("xpath", TEXT, Kind::Text).with(&["path"], 1).checked(find::check_xpath),
    // time.rs
    filter("epoch", MOMENT, Kind::Number),
    filter("epoch_ms", MOMENT, Kind::Number),
    filter("rfc3339", MOMENT, Kind::Text),
    filter("http_date", MOMENT, Kind::Text),
    filter("date_format", MOMENT, Kind::Text).with(&["format"], 1).checked(time::check_format),
    filter("plus", MOMENT, Kind::Moment).with(&["duration"], 1).checked(time::check_duration),
    filter("minus", MOMENT, Kind::Moment).with(&["duration"], 1).checked(time::check_duration),
    filter("parse_time", TEXT, Kind::Moment),
    // The engine's own.
    filter("upper", TEXT, Kind::Text),
    filter("lower", TEXT, Kind::Text),
    filter("title", TEXT, Kind::Text),
    filter("capitalize", TEXT, Kind::Text),
    filter("trim", TEXT, Kind::Text).placed(&["characters"], 0),
    filter("replace", TEXT, Kind::Text).placed(&["from", "to"], 2),
    filter("split", TEXT, Kind::List).placed(&["separator", "most"], 0),
    filter("lines", TEXT, Kind::List),
    filter("indent", TEXT, Kind::Text).placed(&["width", "first", "blank"], 0),
    filter("format", TEXT, Kind::Text).open(),
    filter("bool", ANY, Kind::Bool),
    filter("abs", NUMBER, Kind::Number).counting(),
    filter("round", NUMBER, Kind::Number).placed(&["precision"], 0).counting(),
    filter("first", SEQUENCE, Kind::Any),
    filter("last", SEQUENCE, Kind::Any),
    filter("min", SEQUENCE, Kind::Any).counting(),
    filter("max", SEQUENCE, Kind::Any).counting(),
    filter("sum", SEQUENCE, Kind::Number).open().counting(),
    filter("sort", SEQUENCE, Kind::List).open().counting(),
    filter("unique", SEQUENCE, Kind::List).open().counting(),
    filter("reverse", SEQUENCE, Kind::Any).same(),
    filter("list", SEQUENCE, Kind::List),
    filter("items", MAP, Kind::List),
    filter("dictsort", MAP, Kind::List).open(),
    filter("map", SEQUENCE, Kind::List).open(),
    filter("select", SEQUENCE, Kind::List).open(),
    filter("reject", SEQUENCE, Kind::List).open(),
    filter("selectattr", SEQUENCE, Kind::List).open(),
    filter("rejectattr", SEQUENCE, Kind::List).open(),
    filter("groupby", SEQUENCE, Kind::List).open(),
    filter("batch", SEQUENCE, Kind::List).placed(&["count", "fill"], 1),
    filter("slice", SEQUENCE, Kind::List).placed(&["count", "fill"], 1),
    filter("chain", SEQUENCE, Kind::List).open(),
    filter("zip", SEQUENCE, Kind::List).open(),
];

/// Filters of the engine that are not part of the language: for HTML, for people, or with another meaning here.
const LEFT_OUT: [&str; 6] = ["safe", "escape", "e", "pprint", "attr", "tojson"];

/// The filter of this name.
pub fn find(name: &str) -> Option<&'static Signature> {
    TABLE.iter().find(|signature| signature.name == name)
}

/// Every name.
pub fn names() -> impl Iterator<Item = &'static str> {
    TABLE.iter().map(|signature| signature.name)
}

/// Puts ours into the engine, over its own of the same name.
pub fn install(engine: &mut Environment<'static>) {
    LEFT_OUT.iter().for_each(|name| engine.remove_filter(name));
    encode::install(engine);
    hash::install(engine);
    sign::install(engine);
    jwt::install(engine);
    url::install(engine);
    text::install(engine);
    find::install(engine);
    time::install(engine);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_filter_stands_in_the_table_once() {
        let mut all: Vec<&str> = names().collect();
        all.sort_unstable();
        let count = all.len();
        all.dedup();
        assert_eq!(all.len(), count);
        assert!(TABLE.iter().all(|s| s.required <= s.params.len()));
    }
}
