//! The query of a list, read strictly: which records (filters, full text), in which order, which page of them. An
//! unknown word or field is an error that names the known ones, since a filter that is ignored answers a question
//! nobody asked. The search itself is in `search`.

use std::cmp::Ordering;

use percent_encoding::percent_decode_str;

use crate::uri::encode_query;

use super::answer::Problem;
use super::data::{Cell, Collection, Kind};

/// Records on a page unless `_limit` says otherwise.
pub const DEFAULT_LIMIT: u64 = 10;

/// The most records on a page.
pub const MAX_LIMIT: u64 = 1000;

/// The most words of a query.
pub const MAX_WORDS: usize = 64;

/// The words that are no fields, and what they mean.
pub const WORDS: [(&str, &str); 12] = [
    ("_page", "which page, from 1"),
    ("_limit", "records on a page: 1 to 1000, default 10"),
    ("_start", "skip so many records, instead of _page"),
    ("_sort", "fields to sort by, joined by comma; -field descends"),
    ("_order", "asc or desc, one for each field of _sort"),
    ("q", "text that occurs in any field"),
    ("<field>", "equals; repeated: any of these"),
    ("<field>_ne", "differs"),
    ("<field>_gt, <field>_gte", "greater; greater or equal"),
    ("<field>_lt, <field>_lte", "less; less or equal"),
    ("<field>_like", "contains, in upper or lower case; repeated: any of these"),
    ("fields", "numbers compare as numbers, text by code points, times as RFC 3339 text"),
];

/// How a field is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Test {
    /// Is it one of these?
    Equal,
    /// Is it none of these?
    Differs,
    /// Is it greater than all of these?
    Greater,
    /// Is it greater than or equal to all of these?
    AtLeast,
    /// Is it less than all of these?
    Less,
    /// Is it less than or equal to all of these?
    AtMost,
    /// Does it contain one of these?
    Like,
}

/// Suffixes of field names, and what they ask.
const SUFFIXES: [(&str, Test); 6] = [
    ("_ne", Test::Differs),
    ("_gt", Test::Greater),
    ("_gte", Test::AtLeast),
    ("_lt", Test::Less),
    ("_lte", Test::AtMost),
    ("_like", Test::Like),
];

/// One filter.
#[derive(Debug)]
pub struct Filter {
    /// Index of the field.
    pub field: usize,
    /// How it is compared.
    pub test: Test,
    /// With what: numbers for a numeric field, except that `Like` always has text, in lower case.
    pub values: Vec<Cell<'static>>,
}

impl Filter {
    /// Whether a value passes.
    pub fn admits(&self, cell: &Cell<'_>) -> bool {
        let holds = |value: &Cell<'static>| match self.test {
            Test::Like => *cell != Cell::Missing && cell.text().to_lowercase().contains(value.text().as_ref()),
            test => test.holds(compare(cell, value)),
        };
        match self.test {
            Test::Equal | Test::Like => self.values.iter().any(holds),
            _ => self.values.iter().all(holds),
        }
    }
}

impl Test {
    fn holds(self, order: Option<Ordering>) -> bool {
        match self {
            Self::Equal | Self::Like => order == Some(Ordering::Equal),
            Self::Differs => order != Some(Ordering::Equal),
            Self::Greater => order == Some(Ordering::Greater),
            Self::AtLeast => order.is_some_and(Ordering::is_ge),
            Self::Less => order == Some(Ordering::Less),
            Self::AtMost => order.is_some_and(Ordering::is_le),
        }
    }
}

/// `None` for values that have no order: what is missing, and a number beside text that is none.
fn compare(cell: &Cell<'_>, value: &Cell<'_>) -> Option<Ordering> {
    match (cell, value) {
        (Cell::Missing, _) | (_, Cell::Missing) => None,
        (Cell::Number(a), Cell::Number(b)) => a.partial_cmp(b),
        (Cell::Text(_), Cell::Number(_)) => None,
        (cell, value) => Some(cell.text().cmp(&value.text())),
    }
}

/// Which way a field is sorted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The least first.
    Up,
    /// The greatest first.
    Down,
}

/// Which page is asked for.
#[derive(Debug, PartialEq, Eq)]
pub struct Page {
    /// How many records come before it.
    pub start: u64,
    /// The most records on it.
    pub limit: u64,
    by: By,
}

/// How pages are named in links.
#[derive(Debug, PartialEq, Eq)]
enum By {
    Page,
    Start,
}

/// A query as understood.
#[derive(Debug)]
pub struct Query {
    /// All of them must admit a record.
    pub filters: Vec<Filter>,
    /// Lower-case text that must occur in some field.
    pub text: Option<String>,
    /// Indexes of fields, the weightiest first. None means by id.
    pub sort: Vec<(usize, Direction)>,
    /// Which page.
    pub page: Page,
    /// What links to other pages repeat, encoded.
    kept: String,
}

/// Words as they are met, before they make a query.
#[derive(Default)]
struct Words {
    page: Option<u64>,
    limit: Option<u64>,
    start: Option<u64>,
    sort: Option<String>,
    order: Option<String>,
    text: Option<String>,
    filters: Vec<Filter>,
}

impl Query {
    /// Reads the query of a list of this collection: what follows the `?`. 400 with a hint for whatever is not understood.
    pub fn new(collection: Collection, raw: &str) -> Result<Self, Problem> {
        let mut words = Words::default();
        let mut kept = String::new();
        for (word, value) in pairs(raw)? {
            words.read(collection, &word, &value)?;
            if !matches!(word.as_str(), "_page" | "_start") {
                kept.push_str(&format!("{}={}&", encode_query(&word), encode_query(&value)));
            }
        }
        let sort = order(collection, words.sort.as_deref(), words.order.as_deref())?;
        let limit = words.limit.unwrap_or(DEFAULT_LIMIT);
        let page = match (words.page, words.start) {
            (Some(_), Some(_)) => return Err(Problem::query("Both _page and _start are given.", "Use one of them.")),
            (page, None) => Page { start: (page.unwrap_or(1) - 1).saturating_mul(limit), limit, by: By::Page },
            (None, Some(start)) => Page { start, limit, by: By::Start },
        };
        Ok(Self { filters: words.filters, text: words.text, sort, page, kept })
    }

    /// The `Link` header of a list of so many records at this path (RFC 8288): first, prev, next and last, as far as they are.
    pub fn links(&self, path: &str, total: u64) -> String {
        let Page { start, limit, ref by } = self.page;
        let last = total.saturating_sub(1) / limit * limit;
        let mut links = vec![("first", 0)];
        if start > 0 {
            links.push(("prev", start.saturating_sub(limit).min(last)));
        }
        if start.saturating_add(limit) < total {
            links.push(("next", start + limit));
        }
        links.push(("last", last));
        let link = |(rel, start): (&str, u64)| {
            let (word, number) = match by {
                By::Page => ("_page", start / limit + 1),
                By::Start => ("_start", start),
            };
            format!("<{path}?{}{word}={number}>; rel=\"{rel}\"", self.kept)
        };
        links.into_iter().map(link).collect::<Vec<_>>().join(", ")
    }
}

impl Words {
    fn read(&mut self, collection: Collection, word: &str, value: &str) -> Result<(), Problem> {
        match word {
            "_page" => once(&mut self.page, word, whole(word, value, 1, u64::MAX)?),
            "_limit" => once(&mut self.limit, word, whole(word, value, 1, MAX_LIMIT)?),
            "_start" => once(&mut self.start, word, whole(word, value, 0, u64::MAX)?),
            "_sort" => once(&mut self.sort, word, value.to_owned()),
            "_order" => once(&mut self.order, word, value.to_owned()),
            "q" => once(&mut self.text, word, value.to_lowercase()),
            _ => self.filter(collection, word, value),
        }
    }

    fn filter(&mut self, collection: Collection, word: &str, value: &str) -> Result<(), Problem> {
        let (field, test) = field(collection, word).ok_or_else(|| unknown(collection, word))?;
        let value = match (test, collection.fields()[field].kind) {
            (Test::Like, _) => Cell::Text(value.to_lowercase().into()),
            (_, Kind::Text) => Cell::Text(value.to_owned().into()),
            (_, Kind::Number) => Cell::Number(number(word, value)?),
        };
        match self.filters.iter_mut().find(|filter| filter.field == field && filter.test == test) {
            Some(filter) => filter.values.push(value),
            None => self.filters.push(Filter { field, test, values: vec![value] }),
        }
        Ok(())
    }
}

/// A field, or a field with a suffix. Names contain underscores, so the whole word is tried first.
fn field(collection: Collection, word: &str) -> Option<(usize, Test)> {
    let whole = collection.field(word).map(|field| (field, Test::Equal));
    whole.or_else(|| SUFFIXES.iter().find_map(|(suffix, test)| Some((collection.field(word.strip_suffix(suffix)?)?, *test))))
}

fn unknown(collection: Collection, word: &str) -> Problem {
    let detail = if word.starts_with('_') {
        format!("There is no query word `{}`.", cut(word))
    } else {
        format!("{} have no field `{}`.", collection.name(), cut(word))
    };
    Problem::query(detail, known(collection))
}

/// Everything that a query of this collection may say, in a sentence.
pub fn known(collection: Collection) -> String {
    let fields: Vec<&str> = collection.fields().iter().map(|field| field.name).collect();
    format!("Words: _page _limit _start _sort _order q. Fields: {}; each alone or with _ne _gt _gte _lt _lte _like.", fields.join(" "))
}

fn order(collection: Collection, sort: Option<&str>, order: Option<&str>) -> Result<Vec<(usize, Direction)>, Problem> {
    let sort = sort.or(order.map(|_| "id")).unwrap_or("");
    let mut keys: Vec<(usize, Direction)> = Vec::new();
    for name in sort.split(',').filter(|_| !sort.is_empty()) {
        let (name, direction) = name.strip_prefix('-').map_or((name, Direction::Up), |name| (name, Direction::Down));
        let field = collection
            .field(name)
            .ok_or_else(|| Problem::query(format!("_sort: {} have no field `{}`.", collection.name(), cut(name)), known(collection)))?;
        if keys.iter().any(|(known, _)| *known == field) {
            return Err(Problem::query(format!("_sort names `{name}` twice."), "Once is enough."));
        }
        keys.push((field, direction));
    }
    let Some(order) = order else { return Ok(keys) };
    let hint = "Say asc or desc once for each field of _sort, and no minus there: _sort=city,name&_order=asc,desc";
    if keys.iter().any(|(_, direction)| *direction == Direction::Down) || order.split(',').count() != keys.len() {
        return Err(Problem::query("_order does not fit _sort.", hint));
    }
    for (word, key) in order.split(',').zip(&mut keys) {
        key.1 = match word {
            "asc" => Direction::Up,
            "desc" => Direction::Down,
            _ => return Err(Problem::query(format!("_order: `{}` is neither asc nor desc.", cut(word)), hint)),
        };
    }
    Ok(keys)
}

/// The words of a query with their values, decoded: `+` is a space, and bad percent-encoding is an error.
fn pairs(raw: &str) -> Result<Vec<(String, String)>, Problem> {
    let pieces = raw.split('&').filter(|piece| !piece.is_empty());
    if pieces.clone().count() > MAX_WORDS {
        return Err(Problem::query(format!("The query has more than {MAX_WORDS} words."), "Ask for less at a time."));
    }
    pieces
        .map(|piece| {
            let (word, value) = piece.split_once('=').unwrap_or((piece, ""));
            Ok((decode(&word.replace('+', " "))?, decode(&value.replace('+', " "))?))
        })
        .collect()
}

/// Percent-decoding that accepts no bad escape and nothing but UTF-8 (RFC 3986 section 2.1).
pub fn decode(text: &str) -> Result<String, Problem> {
    let hint = "An escape is `%` and two hexadecimal digits; a percent sign itself is %25; text is UTF-8.";
    let mut escapes = text.split('%').skip(1);
    if escapes.any(|rest| !rest.as_bytes().get(..2).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))) {
        return Err(Problem::query(format!("`{}` is not percent-encoded.", cut(text)), hint));
    }
    let decoded = percent_decode_str(text).decode_utf8();
    decoded.map(Into::into).map_err(|_| Problem::query(format!("`{}` is not UTF-8 when decoded.", cut(text)), hint))
}

fn once<T>(slot: &mut Option<T>, word: &str, value: T) -> Result<(), Problem> {
    match slot.replace(value) {
        Some(_) => Err(Problem::query(format!("{word} is given twice."), "Once is enough.")),
        None => Ok(()),
    }
}

fn whole(word: &str, value: &str, least: u64, most: u64) -> Result<u64, Problem> {
    let digits = value.bytes().all(|byte| byte.is_ascii_digit());
    value.parse().ok().filter(|number| digits && (least..=most).contains(number)).ok_or_else(|| {
        let range = if most == u64::MAX { format!("from {least}") } else { format!("from {least} to {most}") };
        Problem::query(format!("{word}: `{}` will not do.", cut(value)), format!("Give a whole number {range}."))
    })
}

fn number(word: &str, value: &str) -> Result<f64, Problem> {
    // Rust reads "inf" and "nan" too.
    let plain = value.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E'));
    value
        .parse()
        .ok()
        .filter(|number: &f64| plain && number.is_finite())
        .ok_or_else(|| Problem::query(format!("{word}: `{}` is not a number.", cut(value)), "This field holds numbers; write 12 or 9.90."))
}

/// So much of a caller's text as an error repeats.
fn cut(text: &str) -> &str {
    const MOST: usize = 60;
    text.char_indices().nth(MOST).map_or(text, |(end, _)| &text[..end])
}

#[cfg(test)]
#[path = "query_tests.rs"]
mod tests;
