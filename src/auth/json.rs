//! Sets one member of a JSON object in its text (RFC 8259), or replaces texts in it. Every other byte stays: numbers as written, white space,
//! order, even duplicate keys of others. The text is judged whole and strictly, so that what goes on has one reading.

/// How deep arrays and objects may nest; the outermost object is the first level.
pub const DEEPEST: usize = 128;

/// Why a text is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// Not UTF-8.
    Encoding,
    /// A byte order mark in front (RFC 8259 section 8.1).
    Mark,
    /// JSON, but no object.
    NotObject,
    /// Nested deeper than [`DEEPEST`].
    TooDeep,
    /// Not JSON, from this byte on.
    Syntax(usize),
}

/// The text with `member` (a whole `"name":value`) in place of the first member called `name`, and without the
/// others of that name; behind the last member where there was none.
///
/// # Errors
/// What is wrong with the text.
pub fn set(text: &[u8], name: &str, member: &str) -> Result<Vec<u8>, Wrong> {
    if text.starts_with(b"\xEF\xBB\xBF") {
        return Err(Wrong::Mark);
    }
    std::str::from_utf8(text).map_err(|_| Wrong::Encoding)?;
    let mut scan = Scan { text, at: 0 };
    scan.space();
    if scan.peek() != Some(b'{') {
        scan.value(1)?;
        scan.end()?;
        return Err(Wrong::NotObject);
    }
    let mut edit = Edit { text, out: Vec::with_capacity(text.len() + member.len() + 1), copied: 0, placed: false };
    let mut last = None;
    scan.at += 1;
    let open = scan.at;
    scan.space();
    let mut more = !scan.takes(b'}');
    while more {
        let (key, end) = scan.member(2)?;
        if is_named(&text[key.clone()], name) {
            edit.take(key.start, last, end, member);
        }
        last = Some(end);
        scan.space();
        more = scan.takes(b',');
        if more {
            scan.space();
        } else {
            scan.need(b'}')?;
        }
    }
    scan.end()?;
    if !edit.placed {
        edit.copy(last.unwrap_or(open));
        edit.out.extend_from_slice(if last.is_some() { b"," } else { b"" });
        edit.out.extend_from_slice(member.as_bytes());
    }
    edit.copy(text.len());
    Ok(edit.out)
}

/// The text with `value` (whole JSON) under the names of `path`. Objects on the way keep what else they hold; what is no
/// object, or is not there, becomes one.
///
/// # Errors
/// What is wrong with the text.
pub fn set_deep(text: &[u8], path: &[String], value: &str) -> Result<Vec<u8>, Wrong> {
    let Some((name, rest)) = path.split_first() else { return Ok(value.as_bytes().to_vec()) };
    let inner = if rest.is_empty() {
        value.to_owned()
    } else {
        let before = value_of(text, name)?.filter(|range| text[range.start] == b'{');
        let inner = set_deep(before.map_or(b"{}", |range| &text[range]), rest, value)?;
        String::from_utf8(inner).map_err(|_| Wrong::Encoding)?
    };
    let key = serde_json::to_string(name).map_err(|_| Wrong::Encoding)?;
    set(text, name, &[key.as_str(), ":", &inner].concat())
}

/// One step of a way into a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The members of an object that have this name.
    Name(String),
    /// The element of an array at this index.
    Index(usize),
    /// All elements of an array, or all members of an object.
    Each,
}

/// The text with each string that one of `ways` leads to replaced by what `edit` makes of it; `None` where it leaves all.
///
/// # Errors
/// What is wrong with the text.
pub fn replace(text: &[u8], ways: &[Vec<Step>], edit: &mut dyn FnMut(&str) -> Option<String>) -> Result<Option<Vec<u8>>, Wrong> {
    std::str::from_utf8(text).map_err(|_| Wrong::Encoding)?;
    let mut scan = Scan { text, at: 0 };
    scan.space();
    let mut walk = Walk { edits: Vec::new(), edit };
    let ways: Vec<&[Step]> = ways.iter().map(Vec::as_slice).collect();
    walk.value(&mut scan, &ways, 1)?;
    scan.end()?;
    if walk.edits.is_empty() {
        return Ok(None);
    }
    let mut out = Vec::with_capacity(text.len());
    let mut copied = 0;
    for (range, new) in walk.edits {
        out.extend_from_slice(&text[copied..range.start]);
        out.extend_from_slice(new.as_bytes());
        copied = range.end;
    }
    out.extend_from_slice(&text[copied..]);
    Ok(Some(out))
}

/// A walk along ways: what it has found to replace, in order.
struct Walk<'e> {
    edits: Vec<(std::ops::Range<usize>, String)>,
    edit: &'e mut dyn FnMut(&str) -> Option<String>,
}

impl Walk<'_> {
    fn value(&mut self, scan: &mut Scan<'_>, ways: &[&[Step]], depth: usize) -> Result<(), Wrong> {
        match scan.peek() {
            Some(b'"') if ways.iter().any(|way| way.is_empty()) => self.string(scan),
            Some(b'{' | b'[') if depth > DEEPEST => Err(Wrong::TooDeep),
            Some(b'{') if !ways.is_empty() => scan.many(b'}', |scan| {
                let start = scan.at;
                scan.string()?;
                let key = start..scan.at;
                scan.space();
                scan.need(b':')?;
                scan.space();
                let inner = along(ways, |step| match step {
                    Step::Name(name) => is_named(&scan.text[key.clone()], name),
                    Step::Index(_) => false,
                    Step::Each => true,
                });
                self.value(scan, &inner, depth + 1)
            }),
            Some(b'[') if !ways.is_empty() => {
                let mut index = 0;
                scan.many(b']', |scan| {
                    let inner = along(ways, |step| *step == Step::Each || *step == Step::Index(index));
                    index += 1;
                    self.value(scan, &inner, depth + 1)
                })
            }
            _ => scan.value(depth),
        }
    }

    fn string(&mut self, scan: &mut Scan<'_>) -> Result<(), Wrong> {
        let start = scan.at;
        scan.string()?;
        // Half a surrogate pair is no text, and so nothing to replace.
        let Ok(text) = serde_json::from_slice::<String>(&scan.text[start..scan.at]) else { return Ok(()) };
        if let Some(new) = (self.edit)(&text) {
            self.edits.push((start..scan.at, serde_json::Value::String(new).to_string()));
        }
        Ok(())
    }
}

/// What is left of the ways whose next step is taken.
fn along<'w>(ways: &[&'w [Step]], mut takes: impl FnMut(&Step) -> bool) -> Vec<&'w [Step]> {
    ways.iter().filter_map(|way| way.split_first()).filter(|(step, _)| takes(step)).map(|(_, rest)| rest).collect()
}

/// Where the value of the last member called `name` stands.
fn value_of(text: &[u8], name: &str) -> Result<Option<std::ops::Range<usize>>, Wrong> {
    let mut scan = Scan { text, at: 0 };
    scan.space();
    if !scan.takes(b'{') {
        return Ok(None);
    }
    let mut found = None;
    scan.space();
    let mut more = !scan.takes(b'}');
    while more {
        let (key, end) = scan.member(2)?;
        if is_named(&text[key.clone()], name) {
            let mut value = Scan { text, at: key.end };
            value.space();
            value.need(b':')?;
            value.space();
            found = Some(value.at..end);
        }
        scan.space();
        more = scan.takes(b',');
        if more {
            scan.space();
        } else {
            scan.need(b'}')?;
        }
    }
    Ok(found)
}

/// Whether a key, quotes included, says `name` once its escapes are read.
fn is_named(key: &[u8], name: &str) -> bool {
    if memchr::memchr(b'\\', key).is_none() {
        return &key[1..key.len() - 1] == name.as_bytes();
    }
    // A key with half a surrogate pair is no text at all, so it is not this one either.
    serde_json::from_slice::<String>(key).is_ok_and(|key| key == name)
}

/// The text as it is written anew.
struct Edit<'t> {
    text: &'t [u8],
    out: Vec<u8>,
    copied: usize,
    placed: bool,
}

impl Edit<'_> {
    fn copy(&mut self, until: usize) {
        self.out.extend_from_slice(&self.text[self.copied..until]);
        self.copied = until;
    }

    /// Replaces the first member; a later one goes with the comma and the space before it, from where the one before
    /// it ended.
    fn take(&mut self, start: usize, before: Option<usize>, end: usize, member: &str) {
        if self.placed {
            // Where the member before went as well, it is behind us already.
            self.copy(before.unwrap_or(start).max(self.copied));
        } else {
            self.copy(start);
            self.out.extend_from_slice(member.as_bytes());
            self.placed = true;
        }
        self.copied = end;
    }
}

/// A strict reader that keeps nothing but its place.
struct Scan<'t> {
    text: &'t [u8],
    at: usize,
}

impl Scan<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn wrong<T>(&self) -> Result<T, Wrong> {
        Err(Wrong::Syntax(self.at))
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    fn takes(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn need(&mut self, byte: u8) -> Result<(), Wrong> {
        if self.takes(byte) { Ok(()) } else { self.wrong() }
    }

    fn end(&mut self) -> Result<(), Wrong> {
        self.space();
        if self.at == self.text.len() { Ok(()) } else { self.wrong() }
    }

    /// A key, a colon and a value: where the key stands, quotes included, and where the value ends.
    fn member(&mut self, depth: usize) -> Result<(std::ops::Range<usize>, usize), Wrong> {
        let start = self.at;
        self.string()?;
        let key = start..self.at;
        self.space();
        self.need(b':')?;
        self.space();
        self.value(depth)?;
        Ok((key, self.at))
    }

    fn value(&mut self, depth: usize) -> Result<(), Wrong> {
        match self.peek() {
            Some(b'"') => self.string(),
            Some(b'{' | b'[') if depth > DEEPEST => Err(Wrong::TooDeep),
            Some(b'{') => self.many(b'}', |scan| scan.member(depth + 1).map(drop)),
            Some(b'[') => self.many(b']', |scan| scan.value(depth + 1)),
            Some(b't') => self.word(b"true"),
            Some(b'f') => self.word(b"false"),
            Some(b'n') => self.word(b"null"),
            _ => self.number(),
        }
    }

    fn many(&mut self, close: u8, mut one: impl FnMut(&mut Self) -> Result<(), Wrong>) -> Result<(), Wrong> {
        self.at += 1;
        self.space();
        if self.takes(close) {
            return Ok(());
        }
        loop {
            one(self)?;
            self.space();
            if !self.takes(b',') {
                return self.need(close);
            }
            self.space();
        }
    }

    fn word(&mut self, word: &[u8]) -> Result<(), Wrong> {
        if !self.text[self.at..].starts_with(word) {
            return self.wrong();
        }
        self.at += word.len();
        Ok(())
    }

    fn string(&mut self) -> Result<(), Wrong> {
        self.need(b'"')?;
        loop {
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b'\\') => self.escape()?,
                Some(0x20..) => self.at += 1,
                _ => return self.wrong(),
            }
        }
    }

    fn escape(&mut self) -> Result<(), Wrong> {
        self.at += 1;
        match self.peek() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 1,
            Some(b'u') if self.text.get(self.at + 1..self.at + 5).is_some_and(|h| h.iter().all(u8::is_ascii_hexdigit)) => {
                self.at += 5;
            }
            _ => return self.wrong(),
        }
        Ok(())
    }

    fn number(&mut self) -> Result<(), Wrong> {
        self.takes(b'-');
        if !self.takes(b'0') {
            self.digits()?;
        }
        if self.takes(b'.') {
            self.digits()?;
        }
        if self.takes(b'e') || self.takes(b'E') {
            let _ = self.takes(b'+') || self.takes(b'-');
            self.digits()?;
        }
        Ok(())
    }

    fn digits(&mut self) -> Result<(), Wrong> {
        let start = self.at;
        while self.peek().is_some_and(|b| b.is_ascii_digit()) {
            self.at += 1;
        }
        if self.at == start { self.wrong() } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn put(text: &str) -> Result<String, Wrong> {
        set(text.as_bytes(), "api_key", r#""api_key":"S""#).map(|out| String::from_utf8(out).unwrap())
    }

    #[test]
    fn a_new_member_goes_behind_the_last_one() {
        assert_eq!(put(r#"{"a":1}"#).unwrap(), r#"{"a":1,"api_key":"S"}"#);
        assert_eq!(put(" { \"a\" : 1 \n} \n").unwrap(), " { \"a\" : 1,\"api_key\":\"S\" \n} \n");
    }

    #[test]
    fn an_empty_object_gets_its_first_member() {
        assert_eq!(put("{}").unwrap(), r#"{"api_key":"S"}"#);
        assert_eq!(put(" {\n} ").unwrap(), " {\"api_key\":\"S\"\n} ");
    }

    #[test]
    fn the_callers_member_is_replaced_where_it_stands() {
        assert_eq!(put(r#"{"a":1, "api_key" : {"x":[1,2]} , "b":2}"#).unwrap(), r#"{"a":1, "api_key":"S" , "b":2}"#);
    }

    #[test]
    fn all_duplicates_go_and_one_stays() {
        assert_eq!(put(r#"{"api_key":1,"api_key":2,"b":2}"#).unwrap(), r#"{"api_key":"S","b":2}"#);
        assert_eq!(put(r#"{"api_key":1,"b":2 , "api_key":2 }"#).unwrap(), r#"{"api_key":"S","b":2 }"#);
        assert_eq!(put(r#"{"a":0,"api_key":1,"api_key":2,"api_key":3}"#).unwrap(), r#"{"a":0,"api_key":"S"}"#);
    }

    fn replaced(text: &str, ways: &[&[Step]]) -> Result<Option<String>, Wrong> {
        let ways: Vec<Vec<Step>> = ways.iter().map(|way| way.to_vec()).collect();
        let mut edit = |text: &str| text.strip_prefix('u').map(|rest| format!("\"{rest}"));
        Ok(replace(text.as_bytes(), &ways, &mut edit)?.map(|out| String::from_utf8(out).unwrap()))
    }

    #[test]
    fn texts_that_a_way_leads_to_are_replaced_and_every_other_byte_stays() {
        let name = |name: &str| Step::Name(name.into());
        let ways: [&[Step]; 4] =
            [&[name("next")], &[name("d"), name("__next")], &[name("all"), Step::Each, name("url")], &[name("list"), Step::Index(1)]];
        for (text, out) in [
            (r#" { "next" : "u1" , "n": 1.00e5 } "#, Some(r#" { "next" : "\"1" , "n": 1.00e5 } "#)),
            (r#"{"\u006eext":"u1","next":"u2","other":"u3"}"#, Some(r#"{"\u006eext":"\"1","next":"\"2","other":"u3"}"#)),
            (r#"{"d":{"next":"u0","__next":"\u0075x"}}"#, Some(r#"{"d":{"next":"u0","__next":"\"x"}}"#)),
            (
                r#"{"all":[{"url":"u1"},{"url":"v"},{"url":7},"u",{"url":"u2"}]}"#,
                Some(r#"{"all":[{"url":"\"1"},{"url":"v"},{"url":7},"u",{"url":"\"2"}]}"#),
            ),
            (r#"{"list":["u1","u2","u3"]}"#, Some(r#"{"list":["u1","\"2","u3"]}"#)),
            (r#"{"next":null,"d":"u","all":{"url":"x"}}"#, None),
            (r#""u""#, None),
            ("[]", None),
        ] {
            assert_eq!(replaced(text, &ways).unwrap().as_deref(), out, "{text}");
        }
    }

    #[test]
    fn what_is_no_json_is_not_touched() {
        let next: &[Step] = &[Step::Name("next".into())];
        for text in ["", "{", r#"{"next":"u"} x"#, r#"{"next":"u",}"#, "{\"next\":\"u\n\"}", "<next>u</next>"] {
            assert!(replaced(text, &[next]).is_err(), "{text}");
        }
        let deep = format!("{}\"u\"{}", "[".repeat(DEEPEST + 1), "]".repeat(DEEPEST + 1));
        assert_eq!(replaced(&deep, &[&vec![Step::Each; DEEPEST + 1]]), Err(Wrong::TooDeep));
        assert_eq!(replace(b"\"\xff\"", &[], &mut |_| None), Err(Wrong::Encoding));
    }

    #[test]
    fn a_key_is_compared_with_its_escapes_read() {
        assert_eq!(put(r#"{"\u0061pi_key":1,"api\u005Fkey":2}"#).unwrap(), r#"{"api_key":"S"}"#);
        assert_eq!(put(r#"{"api_key\u0000":1}"#).unwrap(), r#"{"api_key\u0000":1,"api_key":"S"}"#);
        assert_eq!(put(r#"{"\ud800":1}"#).unwrap(), r#"{"\ud800":1,"api_key":"S"}"#);
    }

    #[test]
    fn only_the_top_level_counts() {
        assert_eq!(put(r#"{"x":{"api_key":1}}"#).unwrap(), r#"{"x":{"api_key":1},"api_key":"S"}"#);
    }

    #[test]
    fn numbers_and_other_duplicates_stay_as_written() {
        let text = r#"{"n":12345678901234567890.10e+0,"n":-0,"m":1E400,"ü":"😀\u00fc"}"#;
        let expected = format!(r#"{},"api_key":"S"}}"#, &text[..text.len() - 1]);
        assert_eq!(put(text).unwrap(), expected);
    }

    #[test]
    fn arrays_and_scalars_have_no_room() {
        for text in ["[]", "[{}]", "1", "\"api_key\"", "null", " true "] {
            assert_eq!(put(text), Err(Wrong::NotObject), "{text}");
        }
    }

    #[test]
    fn what_is_not_json_is_refused() {
        let wrong = [
            "",
            " ",
            "{",
            "}",
            "{}}",
            "{} x",
            "{}{}",
            "{a:1}",
            "{'a':1}",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "{,}",
            "{\"a\":1 \"b\":2}",
            "{\"a\":01}",
            "{\"a\":+1}",
            "{\"a\":1.}",
            "{\"a\":.5}",
            "{\"a\":1e}",
            "{\"a\":-}",
            "{\"a\":NaN}",
            "{\"a\":tru}",
            "{\"a\":True}",
            "{\"a\":\"\n\"}",
            "{\"a\":\"\\x\"}",
            "{\"a\":\"\\u12g4\"}",
            "{\"a\":\"\\u12\"}",
            "{\"a\":\"x}",
            "{\"a\":[1,]}",
            "{\"a\":[1}",
            "{/**/}",
            "[1,",
            "{\"a\":1}\0",
            "\u{feff}{}",
        ];
        for text in wrong {
            assert!(matches!(put(text), Err(Wrong::Syntax(_) | Wrong::Mark)), "{text:?} gave {:?}", put(text));
        }
        assert_eq!(set(b"{\"a\":\"\xff\"}", "k", ""), Err(Wrong::Encoding));
        assert_eq!(put("\u{feff}{}"), Err(Wrong::Mark));
    }

    #[test]
    fn nesting_is_bounded() {
        let nested = |levels: usize| format!("{{\"a\":{}{}}}", "[".repeat(levels - 1), "]".repeat(levels - 1));
        assert!(put(&nested(DEEPEST)).is_ok());
        assert_eq!(put(&nested(DEEPEST + 1)), Err(Wrong::TooDeep));
        assert_eq!(put(&"[".repeat(1_000_000)), Err(Wrong::TooDeep));
        assert_eq!(put(&"{\"a\":".repeat(1_000_000)), Err(Wrong::TooDeep));
    }

    /// A member as written: the space before it, key to value, the space behind it.
    type Written = (String, String, String);

    fn member() -> impl Strategy<Value = Written> {
        let space = prop::sample::select(vec!["", " ", "\n\t", "  \r\n"]);
        let key = prop_oneof![
            Just("\"api_key\"".to_owned()),
            Just("\"\\u0061pi_key\"".to_owned()),
            any::<String>().prop_map(|s| serde_json::to_string(&s).unwrap()),
        ];
        let value = prop_oneof![
            any::<String>().prop_map(|s| serde_json::to_string(&s).unwrap()),
            "-?(0|[1-9][0-9]{0,30})(\\.[0-9]{1,5})?([eE][+-]?[0-9]{1,3})?",
            prop::sample::select(vec!["true", "false", "null", "[]", "{}", "[ 1 , {\"api_key\":\"x\"} ]"]).prop_map(str::to_owned),
        ];
        (space.clone(), key, space.clone(), space.clone(), value, space)
            .prop_map(|(before, k, a, b, v, behind)| (before.to_owned(), format!("{k}{a}:{b}{v}"), behind.to_owned()))
    }

    fn object(members: &[Written]) -> String {
        let members: Vec<String> = members.iter().map(|(before, member, behind)| format!("{before}{member}{behind}")).collect();
        format!(" {{{}}}\n", members.join(","))
    }

    fn ours(member: &Written) -> bool {
        let key = serde_json::Deserializer::from_str(&member.1).into_iter::<String>().next().unwrap().unwrap();
        key == "api_key"
    }

    proptest! {
        #[test]
        fn every_other_member_keeps_its_bytes_and_the_name_stands_once(members in prop::collection::vec(member(), 0..6)) {
            let ready = "\"api_key\":\"S\"".to_owned();
            let mut expected: Vec<Written> = Vec::new();
            let mut placed = false;
            for member in members.clone() {
                match (ours(&member), placed, expected.last_mut()) {
                    (true, true, Some(last)) => last.2 = member.2,
                    (true, ..) => {
                        expected.push((member.0, ready.clone(), member.2));
                        placed = true;
                    }
                    _ => expected.push(member),
                }
            }
            if !placed {
                let behind = expected.last_mut().map(|last| std::mem::take(&mut last.2)).unwrap_or_default();
                expected.push((String::new(), ready, behind));
            }
            prop_assert_eq!(put(&object(&members)).unwrap(), object(&expected));
        }

        #[test]
        fn setting_twice_changes_nothing_more(members in prop::collection::vec(member(), 0..6)) {
            let once = put(&object(&members)).unwrap();
            prop_assert_eq!(put(&once).unwrap(), once);
        }

        #[test]
        fn what_serde_refuses_is_refused_and_what_it_takes_is_taken(text in "[\\[\\]{}\",:0-9eE.+\\-\\\\ntrufalsx \n]{0,24}") {
            let strict = serde_json::from_str::<serde_json::Value>(&text).is_ok();
            let ours = put(&text);
            prop_assert_eq!(strict, matches!(ours, Ok(_) | Err(Wrong::NotObject)), "{:?}", ours);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = set(&bytes, "api_key", "\"api_key\":1");
        }
    }
}
