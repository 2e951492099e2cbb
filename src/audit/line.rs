//! One record as one line of JSON, written by hand: this runs for every request. Long texts are cut, so that a line has
//! a largest size and the room that was reserved for it suffices.

use std::io::Write as _;

use crate::clock::Stamp;
use crate::record::{Record, Timings};
use crate::secret::{Mask, REDACTED};

/// Most bytes of a path, a query, and of any other text, before escaping.
const LONG_MAX: usize = 4096;
const SHORT_MAX: usize = 256;
/// What stands behind a text that was cut.
const CUT: &str = "…";
/// Escaping turns one byte into six at worst.
const ESCAPED: usize = 6;
/// Names, numbers, punctuation, and short texts that need no escape.
const FIXED: usize = 2048;

/// No line of this record will be longer.
pub fn estimate(record: &Record) -> usize {
    let long = record.path.len().min(LONG_MAX) + record.query.as_deref().map_or(0, |q| q.len().min(LONG_MAX));
    // Masking may lengthen a text: eight bytes become `[redacted]`.
    FIXED + ESCAPED * (2 * long + CUT.len() * 2) + 4 * SHORT_MAX
}

/// What is hidden by rule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Redact {
    /// Names of query parameters, in lower case.
    pub params: Vec<String>,
}

/// The name of a field with its punctuation, in one piece.
macro_rules! key {
    ($name:literal) => {
        concat!(",\"", $name, "\":")
    };
}

/// Appends the line of a record.
pub fn write(record: &Record, redact: &Redact, everywhere: &Mask, stamp: &mut Stamp, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"time\":\"");
    stamp.write(record.time, out);
    out.push(b'"');
    let mut line = Line { out, masks: [Some(everywhere), record.mask.as_deref()] };
    line.text(key!("id"), &record.id, SHORT_MAX);
    line.maybe(key!("trace"), record.trace.as_deref());
    line.plain(key!("client"), &record.client);
    line.maybe(key!("resource"), record.resource.as_deref());
    line.maybe(key!("connection"), record.connection.as_deref());
    line.maybe(key!("environment"), record.environment.as_deref());
    if let Some(method) = &record.method {
        line.text(key!("method"), method.as_str(), SHORT_MAX);
        line.text(key!("path"), &record.path, LONG_MAX);
    }
    if let Some(query) = &record.query {
        match hide(query, &redact.params) {
            Some(hidden) => line.text(key!("query"), &hidden, LONG_MAX),
            None => line.text(key!("query"), query, LONG_MAX),
        }
    }
    line.number(key!("status"), u64::from(record.status));
    line.plain(key!("answered_by"), record.answered_by.word());
    line.maybe(key!("decision"), record.decision);
    line.maybe(key!("rule"), record.rule.as_deref());
    line.timings(&record.timings);
    line.number(key!("attempts"), u64::from(record.attempts));
    line.number(key!("bytes_in"), record.bytes_in);
    line.number(key!("bytes_out"), record.bytes_out);
    line.maybe(key!("credential"), record.credential.as_deref());
    line.plain(key!("config"), &record.config);
    line.maybe(key!("reflection"), record.reflected.word());
    line.maybe(key!("error"), record.error);
    out.extend_from_slice(b"}\n");
}

struct Line<'l> {
    out: &'l mut Vec<u8>,
    masks: [Option<&'l Mask>; 2],
}

impl Line<'_> {
    fn number(&mut self, key: &'static str, value: u64) {
        self.out.extend_from_slice(key.as_bytes());
        decimal(value, self.out);
    }

    fn maybe(&mut self, key: &'static str, value: Option<&str>) {
        if let Some(value) = value {
            self.plain(key, value);
        }
    }

    /// A text of the gateway's own making: a name, a word, a fingerprint. No secret can stand in it.
    fn plain(&mut self, key: &'static str, value: &str) {
        self.out.extend_from_slice(key.as_bytes());
        self.out.push(b'"');
        escape(&value[..value.floor_char_boundary(SHORT_MAX)], self.out);
        self.out.push(b'"');
    }

    fn text(&mut self, key: &'static str, value: &str, most: usize) {
        self.out.extend_from_slice(key.as_bytes());
        self.out.push(b'"');
        let mut masked = None;
        for mask in self.masks.into_iter().flatten() {
            masked = mask.apply(masked.as_deref().unwrap_or(value)).or(masked);
        }
        // Masked first and cut then, or half a secret could be left at the cut.
        let value = masked.as_deref().unwrap_or(value);
        let end = value.floor_char_boundary(most);
        escape(&value[..end], self.out);
        if end < value.len() {
            self.out.extend_from_slice(CUT.as_bytes());
        }
        self.out.push(b'"');
    }

    fn timings(&mut self, timings: &Timings) {
        self.out.extend_from_slice(b",\"timings\":{");
        for (key, micros) in [("\"queue\":", timings.queue), ("\"connect\":", timings.connect), ("\"head\":", timings.head)] {
            if micros > 0 {
                self.out.extend_from_slice(key.as_bytes());
                decimal(u64::from(micros), self.out);
                self.out.push(b',');
            }
        }
        self.out.extend_from_slice(b"\"total\":");
        decimal(u64::from(timings.total), self.out);
        self.out.push(b'}');
    }
}

/// A number without the machinery of `write!`, which costs more than all the rest of the line.
fn decimal(mut value: u64, out: &mut Vec<u8>) {
    let mut digits = [b'0'; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 || at == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// Whether JSON takes these bytes as they are. Every byte is looked at without a branch, so that many are at once.
fn is_plain(bytes: &[u8]) -> bool {
    !bytes.iter().fold(false, |odd, b| odd | (*b < 0x20) | (*b == b'"') | (*b == b'\\') | (*b == 0x7f))
}

/// JSON's escapes (RFC 8259 section 7). Runs of plain bytes are copied whole.
fn escape(text: &str, out: &mut Vec<u8>) {
    let bytes = text.as_bytes();
    if is_plain(bytes) {
        return out.extend_from_slice(bytes);
    }
    let mut from = 0;
    for (at, b) in bytes.iter().enumerate() {
        let escaped: &[u8] = match b {
            b'"' => b"\\\"",
            b'\\' => b"\\\\",
            b'\n' => b"\\n",
            b'\r' => b"\\r",
            b'\t' => b"\\t",
            0..0x20 | 0x7f => b"",
            _ => continue,
        };
        out.extend_from_slice(&bytes[from..at]);
        if escaped.is_empty() {
            let _ = write!(out, "\\u{b:04x}");
        } else {
            out.extend_from_slice(escaped);
        }
        from = at + 1;
    }
    out.extend_from_slice(&bytes[from..]);
}

/// The query with the values of these parameters hidden; `None` where there is none of them.
fn hide(query: &str, params: &[String]) -> Option<String> {
    if params.is_empty() {
        return None;
    }
    let listed = |name: &str| {
        let name = percent_encoding::percent_decode_str(name).decode_utf8_lossy().replace('+', " ").to_ascii_lowercase();
        params.contains(&name)
    };
    let parts: Vec<&str> = query.split('&').collect();
    if !parts.iter().any(|part| listed(part.split('=').next().unwrap_or(""))) {
        return None;
    }
    let hidden = parts.iter().map(|part| match part.split_once('=') {
        Some((name, _)) if listed(name) => format!("{name}={REDACTED}"),
        _ => (*part).to_owned(),
    });
    Some(hidden.collect::<Vec<_>>().join("&"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::secret::Secret;

    fn record() -> Record {
        let mut record = Record::new("id-1".into(), UNIX_EPOCH + Duration::from_millis(1_700_000_000_007), "anonymous".into(), "v1".into());
        record.method = Some(http::Method::GET);
        record.path = "/r/demo/a".into();
        record.status = 200;
        record
    }

    fn line(record: &Record, params: &[&str]) -> String {
        let mut out = Vec::new();
        let redact = Redact { params: params.iter().map(ToString::to_string).collect() };
        write(record, &redact, &Mask::default(), &mut Stamp::default(), &mut out);
        assert!(out.len() <= estimate(record));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn fields_stand_in_their_order_and_absent_ones_are_left_out() {
        let expected = r#"{"time":"2023-11-14T22:13:20.007Z","id":"id-1","client":"anonymous","method":"GET","path":"/r/demo/a","status":200,"answered_by":"gateway","timings":{"total":0},"attempts":0,"bytes_in":0,"bytes_out":0,"config":"v1"}"#;
        assert_eq!(line(&record(), &[]), format!("{expected}\n"));
    }

    #[test]
    fn numbers_of_any_size_are_written_out() {
        for value in [0, 7, 10, 999, 18_446_744_073_709_551_615] {
            let mut out = Vec::new();
            decimal(value, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), value.to_string());
        }
    }

    #[test]
    fn any_text_stays_one_line_of_json() {
        let mut record = record();
        record.path = "/a\"b\\c\n\r\t\u{1}\u{7f}ä€\u{2028}".into();
        let line = line(&record, &[]);
        assert_eq!(line.matches('\n').count(), 1);
        let parsed: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(parsed["path"], *record.path);
    }

    #[test]
    fn long_texts_are_cut_and_fit_the_estimate() {
        let mut record = record();
        record.path = "\u{1}".repeat(70_000).into();
        record.query = Some("ä".repeat(70_000).into());
        let line = line(&record, &[]);
        let parsed: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert!(parsed["query"].as_str().unwrap().ends_with("ä…"));
    }

    #[test]
    fn listed_parameters_are_hidden_in_any_spelling() {
        let mut record = record();
        record.query = Some("a=1&%74oken=x&TOKEN=y&token&b=token".into());
        assert!(line(&record, &["token"]).contains(r#""query":"a=1&%74oken=[redacted]&TOKEN=[redacted]&token&b=token""#));
    }

    #[test]
    fn secrets_are_hidden_by_value_even_at_the_cut() {
        let mut record = record();
        let secret = Secret::new("s3cr3t-value-0123456789".into());
        record.mask = Some(Arc::new(Mask::new([&secret])));
        record.path = format!("{}{}", "a".repeat(LONG_MAX - 5), secret.expose()).into();
        record.query = Some("q=s3cr3t-value-0123456789&x".into());
        let line = line(&record, &[]);
        assert!(!line.contains("s3cr3"), "{line}");
        assert!(line.contains(r#""query":"q=[redacted]&x""#));
    }
}
