//! Cuts a template into text and `{{ … }}`. It knows quotes and brackets, so that `}}` inside a string or at the end of
//! nested maps does not end an expression; what stands between is judged by the compiler.

use std::ops::Range;

use super::Mistake;

/// A piece of a template, as byte ranges of its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Text.
    Text(Range<usize>),
    /// What stands between `{{` and `}}`.
    Expression(Range<usize>),
}

/// Cuts it. The pieces are in order; text is never empty.
pub fn split(text: &str) -> Result<Vec<Cut>, Mistake> {
    let bytes = text.as_bytes();
    let mut cuts = Vec::new();
    let mut from = 0;
    let mut at = 0;
    while let Some(found) = memchr::memchr(b'{', &bytes[at..]) {
        let open = at + found;
        match bytes.get(open + 1) {
            Some(b'{') => {
                if from < open {
                    cuts.push(Cut::Text(from..open));
                }
                let inner = expression(bytes, open)?;
                at = inner.end + 2;
                from = at;
                cuts.push(Cut::Expression(inner));
            }
            Some(b'%') => {
                return Err(Mistake::new(open, "`{%` begins a statement, and there are none", "a literal one is written {{ '{%' }}"));
            }
            Some(b'#') => {
                return Err(Mistake::new(open, "`{#` begins a comment, and there are none", "a literal one is written {{ '{#' }}"));
            }
            _ => at = open + 1,
        }
    }
    if from < bytes.len() {
        cuts.push(Cut::Text(from..bytes.len()));
    }
    Ok(cuts)
}

/// The inside of the expression that opens at `open`.
fn expression(bytes: &[u8], open: usize) -> Result<Range<usize>, Mistake> {
    let start = open + 2;
    if let Some(b'-' | b'+') = bytes.get(start) {
        return Err(Mistake::new(
            start,
            "white space is never trimmed: there is no `{{-`",
            "for a negative number put a space between: {{ -1 }}",
        ));
    }
    let mut at = start;
    let mut depth = 0_usize;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' | b'\'' => {
                at = closing(bytes, at).ok_or_else(|| {
                    Mistake::new(at, "a string lacks its closing quote", "inside `{{ … }}` strings end with the quote that they begin with")
                })?;
            }
            b'(' | b'[' => depth += 1,
            b'{' => depth += 1,
            b')' | b']' => depth = depth.saturating_sub(1),
            b'}' if depth > 0 => depth -= 1,
            b'}' if bytes.get(at + 1) == Some(&b'}') => return Ok(start..at),
            b'}' => return Err(Mistake::new(at, "a single `}` inside `{{ … }}`", "an expression ends with `}}`")),
            _ => {}
        }
        at += 1;
    }
    Err(Mistake::new(open, "`{{` lacks its `}}`", "a literal `{{` is written {{ '{{' }}"))
}

/// Where the string that begins at `at` ends.
fn closing(bytes: &[u8], at: usize) -> Option<usize> {
    let quote = bytes[at];
    let mut end = at + 1;
    loop {
        match bytes.get(end)? {
            b'\\' => end += 2,
            b if *b == quote => return Some(end),
            _ => end += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(text: &str) -> Vec<String> {
        let cuts = split(text).unwrap();
        cuts.into_iter()
            .map(|cut| match cut {
                Cut::Text(range) => format!("t:{}", &text[range]),
                Cut::Expression(range) => format!("e:{}", text[range].trim()),
            })
            .collect()
    }

    #[test]
    fn text_and_expressions_are_told_apart() {
        assert_eq!(shown("a {{ b }} c{{d}}"), ["t:a ", "e:b", "t: c", "e:d"]);
        assert_eq!(shown("{ } }} {a} {\"x\":{\"y\":1}}"), ["t:{ } }} {a} {\"x\":{\"y\":1}}"]);
        assert_eq!(shown(""), Vec::<String>::new());
    }

    #[test]
    fn quotes_and_brackets_hide_an_end() {
        assert_eq!(shown("{{ '}}' }}x"), ["e:'}}'", "t:x"]);
        assert_eq!(shown(r#"{{ "\"}}" }}"#), [r#"e:"\"}}""#]);
        assert_eq!(shown("{{ {'a': {'b': 1}} }}"), ["e:{'a': {'b': 1}}"]);
        assert_eq!(shown("{{ {'a': {'b': 1}}}}"), ["e:{'a': {'b': 1}}"]);
        assert_eq!(shown("{{ '{{' }}"), ["e:'{{'"]);
    }

    #[test]
    fn what_does_not_end_is_a_mistake_with_its_place() {
        for (text, at) in
            [("ab{{ c", 2), ("{{ 'x }}", 3), ("{{ a } }}", 5), ("x{% if %}", 1), ("{# c #}", 0), ("{{ {'a': 1 }}", 12), ("{{- a }}", 2)]
        {
            assert_eq!(split(text).unwrap_err().at, at, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic_and_nothing_is_lost(text in "[{}'\"a\\\\ ()\\[\\]ü|]{0,40}") {
            if let Ok(cuts) = split(&text) {
                let length: usize = cuts.iter().map(|cut| match cut { Cut::Text(r) => r.len(), Cut::Expression(r) => r.len() + 4 }).sum();
                prop_assert_eq!(length, text.len());
            }
        }
    }
}
