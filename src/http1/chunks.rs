//! Follows the chunks of a body to the end of the message (RFC 9112 section 7.1), without changing a byte.
//!
//! hyper decodes them a second time. The reader here has to know where the next head begins, and refuses what two
//! readers could place differently, and trailers that would frame, route or authorize if they were merged into the head.

use super::is_token;

/// Most bytes of chunk extensions in one message.
const EXTENSIONS_MAX: u16 = 4096;
/// Largest trailer section.
const TRAILERS_MAX: u16 = 16 * 1024;
/// Hex digits of a chunk size: more cannot be meant honestly, and 16 would overflow the arithmetic.
const SIZE_DIGITS_MAX: u8 = 15;
/// What no trailer may be (RFC 9110 section 6.5.1): it would frame the message, route it or speak for somebody.
const FORBIDDEN: [&[u8]; 22] = [
    b"authorization",
    b"connection",
    b"content-encoding",
    b"content-length",
    b"content-range",
    b"content-type",
    b"cookie",
    b"expect",
    b"host",
    b"http2-settings",
    b"keep-alive",
    b"max-forwards",
    b"proxy-authorization",
    b"proxy-connection",
    b"range",
    b"set-cookie",
    b"te",
    b"trailer",
    b"transfer-encoding",
    b"upgrade",
    b"via",
    b"www-authenticate",
];

/// Where in the chunks the reader stands. Kept small: every connection has room for one.
#[derive(Debug, Default)]
pub struct Chunks {
    size: u64,
    extensions: u16,
    trailers: u16,
    digits: u8,
    state: State,
    /// How much of the current trailer's name has been read.
    named: u8,
    /// Which of [`FORBIDDEN`] it may still become, a bit each.
    forbidden: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Size,
    /// Before the name of an extension.
    Extension,
    ExtensionName,
    /// Before its value.
    ExtensionEquals,
    ExtensionValue,
    Quoted,
    Escaped,
    /// Behind a quoted value.
    ExtensionEnd,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerLf,
    EndLf,
    Done,
    Broken,
}

/// The chunks are malformed.
#[derive(Debug, PartialEq, Eq)]
pub struct Malformed;

impl Chunks {
    /// Reads on. Returns how many of `bytes` belong to this message: fewer than all once it has ended, or in front of
    /// what is malformed.
    ///
    /// # Errors
    /// [`Malformed`] if `bytes` begin with what no chunks in the strict form go on with.
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
            match self.step(bytes[at]) {
                Ok(state) => self.state = state,
                Err(Malformed) if at == 0 => return Err(Malformed),
                Err(Malformed) => {
                    self.state = State::Broken;
                    break;
                }
            }
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
            (State::Size, b';') if self.digits > 0 => self.extension(State::Extension),
            (State::SizeLf, b'\n') => Ok(self.begin()),
            (State::DataCr, b'\r') => Ok(State::DataLf),
            (State::DataLf, b'\n') => Ok(State::Size),
            (State::TrailerStart, b'\r') => Ok(State::EndLf),
            // A trailer line that begins with white space would be folded into the one before by some readers.
            (State::TrailerStart, b) if is_token(b) => self.trailer_name(b),
            (State::TrailerName, b':') => self.trailer_named(),
            (State::TrailerName, b) if is_token(b) => self.trailer_name(b),
            (State::TrailerValue, b'\r') => Ok(State::TrailerLf),
            (State::TrailerValue, b) if is_text(b) => self.trailer(State::TrailerValue),
            (State::TrailerLf, b'\n') => Ok(State::TrailerStart),
            (State::EndLf, b'\n') => Ok(State::Done),
            _ => self.step_extension(b),
        }
    }

    /// Within a chunk extension, whose text is nobody's business, but whose form says where the line ends.
    fn step_extension(&mut self, b: u8) -> Result<State, Malformed> {
        let blank = b == b' ' || b == b'\t';
        let next = match (self.state, b) {
            (State::ExtensionName | State::ExtensionValue | State::ExtensionEnd, b'\r') => State::SizeLf,
            (State::ExtensionName | State::ExtensionValue | State::ExtensionEnd, b';') => State::Extension,
            (State::Extension | State::ExtensionEquals | State::ExtensionEnd, _) if blank => self.state,
            (State::Extension | State::ExtensionName, b) if is_token(b) => State::ExtensionName,
            (State::ExtensionName, _) if blank => State::ExtensionName,
            (State::ExtensionName, b'=') => State::ExtensionEquals,
            (State::ExtensionEquals, b'"') => State::Quoted,
            (State::ExtensionEquals | State::ExtensionValue, b) if is_token(b) => State::ExtensionValue,
            (State::ExtensionValue, _) if blank => State::ExtensionEnd,
            (State::Quoted, b'"') => State::ExtensionEnd,
            (State::Quoted, b'\\') => State::Escaped,
            (State::Quoted | State::Escaped, b) if is_text(b) => State::Quoted,
            _ => return Err(Malformed),
        };
        self.extension(next)
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

    fn extension(&mut self, next: State) -> Result<State, Malformed> {
        self.extensions += 1;
        if self.extensions > EXTENSIONS_MAX { Err(Malformed) } else { Ok(next) }
    }

    fn trailer(&mut self, next: State) -> Result<State, Malformed> {
        self.trailers += 1;
        if self.trailers > TRAILERS_MAX { Err(Malformed) } else { Ok(next) }
    }

    fn trailer_name(&mut self, b: u8) -> Result<State, Malformed> {
        if self.named == 0 {
            self.forbidden = (1 << FORBIDDEN.len()) - 1;
        }
        // As careless readers may see it.
        let seen = if b.is_ascii_alphanumeric() { b.to_ascii_lowercase() } else { b'-' };
        for (at, name) in FORBIDDEN.iter().enumerate() {
            if name.get(usize::from(self.named)) != Some(&seen) {
                self.forbidden &= !(1 << at);
            }
        }
        self.named = self.named.saturating_add(1);
        self.trailer(State::TrailerName)
    }

    fn trailer_named(&mut self) -> Result<State, Malformed> {
        let whole = |at: usize| self.forbidden & (1 << at) != 0 && FORBIDDEN[at].len() == usize::from(self.named);
        if (0..FORBIDDEN.len()).any(whole) {
            return Err(Malformed);
        }
        self.named = 0;
        self.trailer(State::TrailerValue)
    }

    /// The size line is over: data, or the trailers after the last chunk.
    fn begin(&mut self) -> State {
        self.digits = 0;
        if self.size == 0 { State::TrailerStart } else { State::Data }
    }
}

fn is_text(b: u8) -> bool {
    super::is_field_byte(b)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(text: &str) -> Result<(usize, bool), Malformed> {
        let mut chunks = Chunks::default();
        let read = chunks.read(text.as_bytes())?;
        if read < text.len() && !chunks.done() {
            assert_eq!(chunks.read(&text.as_bytes()[read..]), Err(Malformed));
            return Err(Malformed);
        }
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
        for message in [
            "5\r\nhello\r\n3;a=\"b\"\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n",
            "0\r\n\r\n",
            "0005\r\nhello\r\n00\r\n\r\n",
            "A;a;b = c ;d=\"x;\\\"y\"; e\r\n0123456789\r\n0;z\r\n\r\n",
            "0\r\nX:\r\ny-z: \t a\r\n\r\n",
        ] {
            assert_eq!(whole(&format!("{message}GET /")), Ok((message.len(), true)), "{message:?}");
        }
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
            "5 ;a\r\nhello\r\n",
            "5\nhello\r\n",
            "5\r\nhelloX\r\n",
            "5\r\nhello\n",
            "0x5\r\n",
            "-1\r\n",
            "+5\r\n",
            "5_0\r\n",
            "0\r\n\n",
            "0\r\n folded\r\n\r\n",
            "0\r\n: v\r\n\r\n",
            "0\r\nA: b\n\r\n",
            "0\r\nA : b\r\n\r\n",
            "0\r\nA\r\n\r\n",
            "0\r\nA: b\r\n c\r\n\r\n",
            "0\r\nA: b\0\r\n\r\n",
            "5;a\0\r\nhello\r\n",
            "5;\r\nhello\r\n",
            "5;=a\r\nhello\r\n",
            "5;a=\r\nhello\r\n",
            "5;a=\"b\r\nhello\r\n",
            "5;a\nhello\r\n",
            "5;a\rb\r\nhello\r\n",
            "1000000000000000\r\n",
            "ffffffffffffffffb\r\n",
            "5\r\r\nhello\r\n",
        ];
        for text in wrong {
            assert_eq!(whole(text), Err(Malformed), "{text:?}");
        }
    }

    #[test]
    fn trailers_that_would_mean_something_in_a_head_are_refused_in_every_spelling() {
        for name in FORBIDDEN {
            let name = String::from_utf8(name.to_vec()).unwrap();
            for spelling in [name.clone(), name.to_uppercase(), name.replace('-', "_")] {
                assert_eq!(whole(&format!("0\r\nX: 1\r\n{spelling}: 1\r\n\r\n")), Err(Malformed), "{spelling}");
            }
            assert!(whole(&format!("0\r\n{name}-x: 1\r\n\r\n")).is_ok());
        }
    }

    #[test]
    fn endless_extensions_and_trailers_are_refused() {
        assert_eq!(whole(&format!("5;{}", "a".repeat(usize::from(EXTENSIONS_MAX) + 1))), Err(Malformed));
        assert_eq!(whole(&"1;abc\r\nx\r\n".repeat(usize::from(EXTENSIONS_MAX) / 4 + 1)), Err(Malformed));
        assert_eq!(whole(&format!("0\r\n{}", "A: b\r\n".repeat(usize::from(TRAILERS_MAX)))), Err(Malformed));
    }
}
