//! Reads JSON (RFC 8259) into values of the language. A reader of our own because every number must stay as it was
//! written, exponents included.

use std::sync::Arc;

use super::value::{DEPTH_MAX, Map, Value, number};

/// Reads one document.
///
/// # Errors
/// What is wrong and where, and nothing of what was read.
pub fn read(text: &str) -> Result<Value, String> {
    let mut reader = Reader { text, at: 0 };
    reader.space();
    let value = reader.value(0)?;
    reader.space();
    if reader.at == text.len() { Ok(value) } else { reader.wrong() }
}

struct Reader<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Reader<'t> {
    fn wrong<T>(&self) -> Result<T, String> {
        Err(format!("it is no JSON (byte {})", self.at))
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    fn takes(&mut self, word: &str) -> bool {
        let found = self.text.as_bytes()[self.at..].starts_with(word.as_bytes());
        self.at += if found { word.len() } else { 0 };
        found
    }

    fn value(&mut self, depth: usize) -> Result<Value, String> {
        if depth > DEPTH_MAX {
            return Err("its JSON is nested too deeply".into());
        }
        match self.peek() {
            Some(b'"') => self.string().map(Value::Text),
            Some(b'{') => self.map(depth),
            Some(b'[') => self.list(depth),
            Some(b't') if self.takes("true") => Ok(Value::Bool(true)),
            Some(b'f') if self.takes("false") => Ok(Value::Bool(false)),
            Some(b'n') if self.takes("null") => Ok(Value::Null),
            _ => self.number(),
        }
    }

    fn number(&mut self) -> Result<Value, String> {
        let rest = &self.text[self.at..];
        let end = rest.find(|c: char| !c.is_ascii_digit() && !"+-.eE".contains(c)).unwrap_or(rest.len());
        let Some(number) = number(&rest[..end]) else { return self.wrong() };
        self.at += end;
        Ok(Value::Number(number))
    }

    fn string(&mut self) -> Result<Arc<str>, String> {
        let from = self.at + 1;
        self.at = from;
        let mut escaped = false;
        loop {
            match self.peek() {
                Some(b'"') => break,
                Some(b'\\') => {
                    escaped = true;
                    self.at += 2;
                }
                Some(0x20..) => self.at += 1,
                _ => return self.wrong(),
            }
        }
        let end = self.at;
        self.at += 1;
        if !escaped {
            return Ok(self.text[from..end].into());
        }
        match serde_json::from_str::<String>(&self.text[from - 1..=end]) {
            Ok(text) => Ok(text.into()),
            Err(_) => self.wrong(),
        }
    }

    fn list(&mut self, depth: usize) -> Result<Value, String> {
        let mut items = Vec::new();
        self.many("]", |reader| {
            items.push(reader.value(depth + 1)?);
            Ok(())
        })?;
        Ok(Value::List(items.into()))
    }

    fn map(&mut self, depth: usize) -> Result<Value, String> {
        let mut entries = Vec::new();
        self.many("}", |reader| {
            if reader.peek() != Some(b'"') {
                return reader.wrong();
            }
            let key = reader.string()?;
            reader.space();
            if !reader.takes(":") {
                return reader.wrong();
            }
            reader.space();
            entries.push((key, reader.value(depth + 1)?));
            Ok(())
        })?;
        Ok(Value::Map(Arc::new(Map::new(entries))))
    }

    fn many(&mut self, close: &str, mut one: impl FnMut(&mut Self) -> Result<(), String>) -> Result<(), String> {
        self.at += 1;
        self.space();
        if self.takes(close) {
            return Ok(());
        }
        loop {
            one(self)?;
            self.space();
            if self.takes(close) {
                return Ok(());
            }
            if !self.takes(",") {
                return self.wrong();
            }
            self.space();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_no_json_is_refused_without_a_word_of_it() {
        for text in ["", "hunter2", "{hunter2}", "[1,]", "{\"a\":1,}", "\"a", "\"\\x\"", "\"\n\"", "01", "1.", "tru", "[1] x", "{\"a\" 1}"]
        {
            let error = read(text).unwrap_err();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn it_takes_what_serde_takes(text in "[\\[\\]{}\",:0-9eE.+\\-\\\\untrufalsx \n]{0,24}") {
            let serde = serde_json::from_str::<serde_json::Value>(&text);
            prop_assert_eq!(serde.is_ok(), read(&text).is_ok());
        }
    }
}
