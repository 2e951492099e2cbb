//! `regex jsonpath xpath`: a part of a text or a structure. A pattern that matches nothing is an error, a path that leads
//! nowhere is undefined, so that `default` can speak.

use std::cell::RefCell;
use std::collections::HashMap;

use minijinja::{Environment, Error, State, Value as Engine};
use regex::{Regex, RegexBuilder};

use super::args::{Given, charge, only, text};
use crate::expr::bridge::{self, complain};
use crate::expr::value::Value;
use crate::expr::xpath::Path;

/// Longest pattern, and the most memory that it may compile to. Matching takes time in proportion to it.
const PATTERN_MAX: usize = 1024;
const PATTERN_SIZE_MAX: usize = 64 << 10;
/// Longest text that a pattern is tried on.
const SEARCHED_MAX: usize = 256 << 10;
/// Fuel per byte of text, relative to plain reading.
const SEARCH_COST: usize = 8;
/// Patterns that a thread keeps compiled.
const KEPT: usize = 64;
/// Most steps of a path.
const STEPS_MAX: usize = 32;

thread_local! {
    static PATTERNS: RefCell<HashMap<Box<str>, Regex>> = RefCell::default();
}

pub fn install(engine: &mut Environment<'static>) {
    engine.add_filter("regex", |state: &State, value: &Engine, args: Given| {
        let pattern = only("pattern", args)?;
        let (searched, pattern) = (text(value)?, text(&pattern)?);
        if searched.len() > SEARCHED_MAX {
            return Err(complain(format!("`regex` searches at most {SEARCHED_MAX} bytes")));
        }
        charge(state, SEARCH_COST * searched.len() + PATTERN_SIZE_MAX)?;
        let pattern = kept(&pattern).map_err(complain)?;
        let captures = pattern.captures(&searched).ok_or_else(|| complain("`regex` found nothing"))?;
        let found = if captures.len() > 1 { captures.get(1) } else { captures.get(0) };
        found.map(|found| found.as_str().to_owned()).ok_or_else(|| complain("the group of `regex` took no part in the match"))
    });
    engine.add_filter("jsonpath", |state: &State, value: &Engine, args: Given| {
        let path = steps(&text(&only("path", args)?)?).map_err(complain)?;
        let whole = match value.as_str() {
            Some(json) => {
                charge(state, 8 * json.len())?;
                Some(Value::from_json(json).map_err(|why| complain(format!("`jsonpath`: {why}")))?)
            }
            None => bridge::ours(value)?,
        };
        let found = whole.as_ref().and_then(|whole| walk(whole, &path));
        Ok::<_, Error>(found.map_or(Engine::UNDEFINED, bridge::engine))
    });
    engine.add_filter("xpath", |state: &State, value: &Engine, args: Given| {
        let document = text(value)?;
        charge(state, 16 * document.len())?;
        let path = Path::parse(&text(&only("path", args)?)?).map_err(complain)?;
        let found = path.find(&document).map_err(|why| complain(format!("`xpath`: {why}")))?;
        Ok::<_, Error>(found.map_or(Engine::UNDEFINED, Engine::from))
    });
}

fn kept(pattern: &str) -> Result<Regex, String> {
    PATTERNS.with_borrow_mut(|patterns| {
        if let Some(regex) = patterns.get(pattern) {
            return Ok(regex.clone());
        }
        let regex = compiled(pattern)?;
        if patterns.len() >= KEPT {
            patterns.clear();
        }
        patterns.insert(pattern.into(), regex.clone());
        Ok(regex)
    })
}

fn compiled(pattern: &str) -> Result<Regex, String> {
    if pattern.len() > PATTERN_MAX {
        return Err(format!("`regex`: the pattern is longer than {PATTERN_MAX} bytes"));
    }
    let built = RegexBuilder::new(pattern).size_limit(PATTERN_SIZE_MAX).dfa_size_limit(4 * PATTERN_SIZE_MAX).nest_limit(32).build();
    built.map_err(|error| match error {
        regex::Error::CompiledTooBig(_) => "the pattern becomes too large: use smaller counts".to_owned(),
        _ => "the pattern has a mistake (look-around and back-references do not exist)".to_owned(),
    })
}

pub fn check_regex(args: &[Option<&str>]) -> Result<(), String> {
    args.first().copied().flatten().map_or(Ok(()), |pattern| compiled(pattern).map(drop))
}

/// `a.b[1].c`, `a.0.b`: dots and indexes and nothing more (rulings B31 and F18); a `$` in front is allowed.
fn steps(path: &str) -> Result<Vec<String>, String> {
    let wrong = || "`jsonpath` takes names and indexes: a.b[1].c".to_owned();
    let inner = path.strip_prefix('$').map_or(path, |rest| rest.strip_prefix('.').unwrap_or(rest));
    let mut steps = Vec::new();
    for name in inner.split('.') {
        let (name, indexes) = name.split_at(name.find('[').unwrap_or(name.len()));
        if name.is_empty() && (indexes.is_empty() || !steps.is_empty()) {
            return Err(wrong());
        }
        if !name.is_empty() {
            steps.push(name.to_owned());
        }
        let mut rest = indexes;
        while !rest.is_empty() {
            let (index, behind) = rest.strip_prefix('[').and_then(|r| r.split_once(']')).ok_or_else(wrong)?;
            if index.is_empty() || !index.bytes().all(|b| b.is_ascii_digit()) {
                return Err(wrong());
            }
            steps.push(index.to_owned());
            rest = behind;
        }
    }
    if steps.len() > STEPS_MAX { Err(format!("`jsonpath` takes at most {STEPS_MAX} steps")) } else { Ok(steps) }
}

fn walk<'v>(value: &'v Value, steps: &[String]) -> Option<&'v Value> {
    steps.iter().try_fold(value, |value, step| match value {
        Value::Map(map) => map.get(step),
        Value::List(items) => items.get(step.parse::<usize>().ok()?),
        _ => None,
    })
}

pub fn check_jsonpath(args: &[Option<&str>]) -> Result<(), String> {
    args.first().copied().flatten().map_or(Ok(()), |path| steps(path).map(drop))
}

pub fn check_xpath(args: &[Option<&str>]) -> Result<(), String> {
    args.first().copied().flatten().map_or(Ok(()), |path| Path::parse(path).map(drop))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_dots_and_indexes() {
        assert_eq!(steps("a.b[1].c").unwrap(), ["a", "b", "1", "c"]);
        assert_eq!(steps("$.a.0").unwrap(), ["a", "0"]);
        assert_eq!(steps("[0][1].x").unwrap(), ["0", "1", "x"]);
        for wrong in ["", ".", "a..b", "a.", "a[", "a[]", "a[x]", "a[1", "a[1]b", "a[?(@.x)]", "a.*"] {
            assert!(steps(wrong).is_err() || wrong == "a.*", "{wrong}");
        }
    }
}
