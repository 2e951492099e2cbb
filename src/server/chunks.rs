//! Follows the chunks of a request body to the end of the message (RFC 9112 section 7.1), without changing a byte.
//!
//! hyper decodes them a second time. The edge has to know where the next head begins, and refuses what two readers
//! could place differently.

/// Longest chunk-size line, extensions included.
const SIZE_LINE_MAX: usize = 4096;
/// Largest trailer section.
const TRAILERS_MAX: usize = 16 * 1024;
/// Hex digits of a chunk size: more cannot be meant honestly, and 16 would overflow the arithmetic.
const SIZE_DIGITS_MAX: usize = 15;

/// Where in the chunks the reader stands.
#[derive(Debug, Default)]
pub struct Chunks {
    state: State,
    size: u64,
    digits: usize,
    /// Bytes of the current size line or of the trailer section.
    spent: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Size,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    TrailerStart,
    Trailer,
    TrailerLf,
    EndLf,
    Done,
}

/// The chunks are malformed.
#[derive(Debug, PartialEq, Eq)]
pub struct Malformed;

impl Chunks {
    /// Reads on. Returns how many of `bytes` belong to this message: fewer than all only once it has ended.
    ///
    /// # Errors
    /// [`Malformed`] if they are not chunks in the strict form.
    pub fn read(&mut self, bytes: &[u8]) -> Result<usize, Malformed> {
        let mut at = 0;
        while at < bytes.len() && self.state != State::Done {
            if self.state == State::Data {
                let step = usize::try_from(self.size).unwrap_or(usize::MAX).min(bytes.len() - at);
                at += step;
                self.size -= step as u64;
                if self.size == 0 {
                    self.state = State::DataCr;
                }
                continue;
            }
            self.state = self.step(bytes[at])?;
            at += 1;
        }
        Ok(at)
    }

    /// Whether the last chunk and the trailers are over.
    pub fn done(&self) -> bool {
        self.state == State::Done
    }

    fn step(&mut self, b: u8) -> Result<State, Malformed> {
        match (self.state, b) {
            (State::Size, b) if b.is_ascii_hexdigit() => self.digit(b),
            (State::Size, b'\r') if self.digits > 0 => Ok(State::SizeLf),
            (State::Size, b';') if self.digits > 0 => self.line(SIZE_LINE_MAX, State::Extension),
            (State::Extension, b'\r') => Ok(State::SizeLf),
            (State::Extension, b) if is_text(b) => self.line(SIZE_LINE_MAX, State::Extension),
            (State::SizeLf, b'\n') => Ok(self.begin()),
            (State::DataCr, b'\r') => Ok(State::DataLf),
            (State::DataLf, b'\n') => Ok(State::Size),
            (State::TrailerStart, b'\r') => Ok(State::EndLf),
            // A trailer line that begins with white space would be folded into the one before by some readers.
            (State::TrailerStart, b) if is_text(b) && b != b' ' && b != b'\t' && b != b':' => self.line(TRAILERS_MAX, State::Trailer),
            (State::Trailer, b'\r') => Ok(State::TrailerLf),
            (State::Trailer, b) if is_text(b) => self.line(TRAILERS_MAX, State::Trailer),
            (State::TrailerLf, b'\n') => Ok(State::TrailerStart),
            (State::EndLf, b'\n') => Ok(State::Done),
            _ => Err(Malformed),
        }
    }

    fn digit(&mut self, b: u8) -> Result<State, Malformed> {
        self.digits += 1;
        if self.digits > SIZE_DIGITS_MAX {
            return Err(Malformed);
        }
        let value = (b as char).to_digit(16).ok_or(Malformed)?;
        self.size = self.size * 16 + u64::from(value);
        Ok(State::Size)
    }

    fn line(&mut self, max: usize, next: State) -> Result<State, Malformed> {
        self.spent += 1;
        if self.spent > max { Err(Malformed) } else { Ok(next) }
    }

    /// The size line is over: data, or the trailers after the last chunk.
    fn begin(&mut self) -> State {
        self.digits = 0;
        self.spent = 0;
        if self.size == 0 { State::TrailerStart } else { State::Data }
    }
}

fn is_text(b: u8) -> bool {
    b == b'\t' || (b >= b' ' && b != 0x7f)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(text: &str) -> Result<(usize, bool), Malformed> {
        let mut chunks = Chunks::default();
        let read = chunks.read(text.as_bytes())?;
        // Byte by byte must give the same.
        let mut slow = Chunks::default();
        let mut count = 0;
        for b in text.as_bytes() {
            count += slow.read(std::slice::from_ref(b))?;
        }
        assert_eq!((count, slow.done()), (read, chunks.done()));
        Ok((read, chunks.done()))
    }

    #[test]
    fn the_end_of_the_message_is_found() {
        let message = "5\r\nhello\r\n3;a=\"b\"\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n";
        assert_eq!(whole(&format!("{message}GET /")), Ok((message.len(), true)));
        assert_eq!(whole("5\r\nhel"), Ok((6, false)));
    }

    #[test]
    fn malformed_chunks_are_refused() {
        let wrong = [
            "\r\n",
            ";a\r\n",
            "g\r\n",
            " 5\r\nhello\r\n",
            "5 \r\nhello\r\n",
            "5\nhello\r\n",
            "5\r\nhelloX\r\n",
            "5\r\nhello\n",
            "0x5\r\n",
            "-1\r\n",
            "0\r\n\n",
            "0\r\n folded\r\n\r\n",
            "0\r\n: v\r\n\r\n",
            "0\r\nA: b\n\r\n",
            "5;a\0\r\nhello\r\n",
            "1000000000000000\r\n",
            "5\r\r\nhello\r\n",
        ];
        for text in wrong {
            assert_eq!(whole(text), Err(Malformed), "{text:?}");
        }
    }

    #[test]
    fn endless_extensions_and_trailers_are_refused() {
        assert_eq!(whole(&format!("5;{}", "a".repeat(SIZE_LINE_MAX + 1))), Err(Malformed));
        assert_eq!(whole(&format!("0\r\n{}", "A: b\r\n".repeat(TRAILERS_MAX))), Err(Malformed));
    }
}
