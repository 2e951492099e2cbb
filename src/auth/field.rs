//! Field values that hold a secret: judged and made at load, so that signing is one insert (RFC 9110 section 5.5).

use std::fmt;

use http::HeaderValue;

use crate::secret::REDACTED;

/// A field value with a secret in it. `Debug` does not show it, and it is marked so that nobody else's does.
#[derive(Clone)]
pub struct Field(HeaderValue);

impl Field {
    /// Takes the text, if it is legal: no control characters but inner tabs, no white space at either end.
    ///
    /// # Errors
    /// What is wrong, in words that hold nothing of the text.
    pub fn new(text: &str) -> Result<Self, &'static str> {
        if text.starts_with([' ', '\t']) || text.ends_with([' ', '\t']) {
            return Err("it begins or ends with white space, which no recipient would see");
        }
        let mut value = HeaderValue::from_bytes(text.as_bytes()).map_err(|_| "it holds a line break or another control character")?;
        value.set_sensitive(true);
        Ok(Self(value))
    }

    /// The value, for the wire. Costs one reference count.
    pub fn value(&self) -> HeaderValue {
        self.0.clone()
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_marked_sensitive_and_never_prints() {
        let field = Field::new("hunter2").unwrap();
        assert!(field.value().is_sensitive());
        assert_eq!(format!("{field:?}"), REDACTED);
    }

    #[test]
    fn control_characters_and_outer_white_space_are_refused() {
        for wrong in ["a\nb", "a\r\nX: y", "a\0", "a\u{7f}", " a", "a ", "\ta", "a\t"] {
            assert!(Field::new(wrong).is_err(), "{wrong:?}");
        }
        for right in ["a", "a b", "a\tb", "pässwörd"] {
            assert!(Field::new(right).is_ok(), "{right:?}");
        }
    }
}
