//! Entity tags of single records and the conditions that name them (RFC 9110 sections 8.8.3 and 13). Dates are not
//! served, so `If-Modified-Since` and its kin are ignored, as the RFC wants it.

use http::HeaderMap;
use http::header::{AsHeaderName, IF_MATCH, IF_NONE_MATCH};

use super::answer::Problem;
use super::data::mix;

/// The strong tag of a representation: the same bytes have the same tag, in every process.
pub fn tag(text: &str) -> String {
    // A tag tells versions apart; it keeps no secret, so a cryptographic hash would be waste.
    let hash = text.as_bytes().chunks(8).fold(text.len() as u64, |hash, chunk| {
        let word = chunk.iter().fold(0, |word, byte| (word << 8) | u64::from(*byte));
        mix(hash.rotate_left(5) ^ word)
    });
    format!("\"{hash:016x}\"")
}

/// What a request demands of the record it names.
#[derive(Debug, Default)]
pub struct Conditions {
    equal: Option<Vec<String>>,
    other: Option<Vec<String>>,
}

impl Conditions {
    /// Reads `If-Match` and `If-None-Match`.
    pub fn new(headers: &HeaderMap) -> Self {
        Self { equal: tags(headers, IF_MATCH), other: tags(headers, IF_NONE_MATCH) }
    }

    /// Whether a read may answer with the record: `false` means 304. 412 if it is not the one asked for.
    pub fn fresh(&self, text: &str) -> Result<bool, Problem> {
        self.equal(text)?;
        Ok(!self.excluded(text))
    }

    /// 412 unless the record, which is there, may be changed.
    pub fn writable(&self, text: &str) -> Result<(), Problem> {
        self.equal(text)?;
        if self.excluded(text) { Err(Problem::precondition()) } else { Ok(()) }
    }

    fn equal(&self, text: &str) -> Result<(), Problem> {
        let Some(tags) = &self.equal else { return Ok(()) };
        // Strong comparison: a weak tag matches nothing (RFC 9110 section 8.8.3.2).
        let now = tag(text);
        if tags.iter().any(|tag| tag == "*" || *tag == now) { Ok(()) } else { Err(Problem::precondition()) }
    }

    fn excluded(&self, text: &str) -> bool {
        let Some(tags) = &self.other else { return false };
        let now = tag(text);
        tags.iter().any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == now)
    }
}

/// All tags of a header, however many lines it has. Our own tags hold no comma, so others may be cut at theirs.
fn tags(headers: &HeaderMap, name: impl AsHeaderName) -> Option<Vec<String>> {
    let mut lines = headers.get_all(name).iter().peekable();
    lines.peek()?;
    let text: Vec<String> = lines.map(|line| String::from_utf8_lossy(line.as_bytes()).into_owned()).collect();
    Some(text.iter().flat_map(|line| line.split(',')).map(|tag| tag.trim().to_owned()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conditions(name: &'static str, value: &str) -> Conditions {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().unwrap());
        Conditions::new(&headers)
    }

    #[test]
    fn texts_that_differ_in_one_byte_have_different_tags() {
        assert_ne!(tag("{\"id\":1}"), tag("{\"id\":2}"));
        assert_ne!(tag("a"), tag("\0a"));
    }

    #[test]
    fn a_tag_that_is_known_spares_the_answer_weak_or_strong() {
        let known = tag("x");
        assert_eq!(conditions("if-none-match", &format!("\"a\", W/{known}")).fresh("x"), Ok(false));
        assert_eq!(conditions("if-none-match", "*").fresh("x"), Ok(false));
        assert_eq!(conditions("if-none-match", "\"a\"").fresh("x"), Ok(true));
    }

    #[test]
    fn a_weak_tag_permits_no_write() {
        let known = tag("x");
        assert_eq!(conditions("if-match", &known).writable("x"), Ok(()));
        assert_eq!(conditions("if-match", "*").writable("x"), Ok(()));
        assert_eq!(conditions("if-match", &format!("W/{known}")).writable("x"), Err(Problem::precondition()));
    }

    #[test]
    fn nonsense_in_if_match_permits_no_write() {
        assert_eq!(conditions("if-match", ",,").writable("x"), Err(Problem::precondition()));
        assert_eq!(conditions("if-match", "").writable("x"), Err(Problem::precondition()));
    }
}
