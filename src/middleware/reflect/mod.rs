//! An upstream that sends the credential back does not show it to the client (rulings A19, F48, H15): response heads are
//! searched for it, and textual bodies where the operator says so. What is found becomes as many `*`, or a 502.
//!
//! It stands inside `sign`, because it must know what was sent: the secrets of the configuration, and where a scheme
//! fetches its own, the fields that it has just signed. It does not decode: compressed bodies are not asked for
//! (`shape`), and refused where bodies are searched.

mod scan;

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use http::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, COOKIE, ORIGIN, REFERER, SET_COOKIE};
use http::{HeaderMap, HeaderName, HeaderValue, Response};
use zeroize::Zeroizing;

use self::scan::Scanned;
use crate::auth::{Auth, Owned};
use crate::body::{self, Body};
use crate::call::{Call, HintScreen};
use crate::error::{Breach, Error};
use crate::fill::{Fills, Spot};
use crate::middleware::{Answer, Next, Step};
use crate::record::OpenRecord;
use crate::secret::{Mask, Secret};

/// A body up to this size whose length is known is looked through before its head goes out, so that `block` can still
/// answer 502.
const WHOLE_BYTES: u64 = 64 * 1024;
/// Most fields, cookies and parameters of a signed call that are looked for.
const SENT_MAX: usize = 8;
/// Shortest cookie of a session that is looked for: session ids are longer, and shorter ones may be words.
const COOKIE_LEAST: usize = 16;

/// What becomes of a credential that comes back (`reflection`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Nobody looks.
    Off,
    /// Heads are masked.
    #[default]
    Heads,
    /// Heads and textual bodies are masked.
    Mask,
    /// An answer that holds it is refused, or cut where that is too late.
    Block,
}

impl Mode {
    /// Whether bodies are searched.
    pub fn scans_bodies(self) -> bool {
        matches!(self, Self::Mask | Self::Block)
    }
}

/// Looks for what was just sent.
#[derive(Debug)]
pub struct Reflect {
    mode: Mode,
    fixed: Option<Arc<Mask>>,
    fresh: Option<Fresh>,
}

/// The places of credentials that no configuration holds, and what stood there last.
#[derive(Debug)]
struct Fresh {
    headers: Vec<HeaderName>,
    params: Vec<String>,
    cookies: Vec<String>,
    /// Whether the cookies are a session's: all of them are looked for, but not where an upstream sets them again, as the
    /// scheme takes those out.
    every_cookie: bool,
    last: ArcSwapOption<Sent>,
}

struct Sent {
    values: Zeroizing<Vec<u8>>,
    mask: Arc<Mask>,
}

impl std::fmt::Debug for Sent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sent")
    }
}

impl Reflect {
    /// Looks for the configuration's secrets, `fixed`, and for what the schemes fetch by themselves. `None` where there
    /// is nothing to look for, or nobody wants it.
    pub fn new(mode: Mode, fixed: Option<Arc<Mask>>, auth: Option<&Auth>) -> Option<Self> {
        let fresh = auth.filter(|auth| auth.fresh()).map(|auth| {
            let Owned { mut headers, params, cookies, every_cookie, passes_authorization, .. } = auth.owns();
            // These name the upstream, and are no secrets.
            headers.retain(|name| *name != ORIGIN && *name != REFERER);
            // What takes the place of the client's own.
            headers.extend(passes_authorization.then_some(AUTHORIZATION));
            Fresh { headers, params, cookies, every_cookie, last: ArcSwapOption::empty() }
        });
        let fixed = fixed.filter(|mask| !mask.is_empty());
        let wanted = mode != Mode::Off && (fixed.is_some() || fresh.is_some());
        wanted.then_some(Self { mode, fixed, fresh })
    }

    /// Looks for what is computed from tokens too.
    #[must_use]
    pub fn seeing(mut self, fills: Option<&Fills>) -> Self {
        for spot in fills.into_iter().flat_map(Fills::granted) {
            let Some(fresh) = &mut self.fresh else { continue };
            match spot {
                Spot::Header(name) => fresh.headers.push(name.clone()),
                Spot::Param(name) => fresh.params.push(name.clone()),
                Spot::Cookie(name) => fresh.cookies.push(name.clone()),
            }
        }
        self
    }

    /// A field that no client gets to see, so that it must stay as it is for the scheme that takes it out.
    fn taken(&self) -> Option<HeaderName> {
        self.fresh.as_ref().filter(|fresh| fresh.every_cookie).map(|_| SET_COOKIE)
    }

    async fn search(&self, mut answer: Response<Body>, masks: Masks, record: &OpenRecord) -> Answer {
        if masks.star_fields(answer.headers_mut(), self.taken()) {
            record.borrow_mut().reflected.head = true;
            warn(record, "head");
            if self.mode == Mode::Block {
                return Err(Error::Protocol(Breach::Reflected));
            }
        }
        if !self.mode.scans_bodies() || !is_textual(answer.headers()) || http_body::Body::is_end_stream(answer.body()) {
            return Ok(answer);
        }
        if is_compressed(answer.headers()) {
            return Err(Error::Protocol(Breach::Sealed));
        }
        let block = self.mode == Mode::Block;
        if block && http_body::Body::size_hint(answer.body()).exact().is_some_and(|size| size <= WHOLE_BYTES) {
            let (head, body) = answer.into_parts();
            let whole = body::collect(body, WHOLE_BYTES, "reflection").await?;
            if masks.star(&mut whole.to_vec()) {
                record.borrow_mut().reflected.body = true;
                warn(record, "body");
                return Err(Error::Protocol(Breach::Reflected));
            }
            return Ok(Response::from_parts(head, Body::Full(whole)));
        }
        let record = record.clone();
        Ok(answer.map(|body| Body::Stream(Box::pin(Scanned::new(body, masks, block, record)))))
    }
}

impl Step for Reflect {
    async fn handle(&self, mut call: Call, next: &impl Next) -> Answer {
        let masks = Masks([self.fixed.clone(), self.fresh.as_ref().and_then(|fresh| fresh.mask(&call))]);
        let record = call.record.clone();
        if let Some(hints) = &mut call.hints {
            hints.screened(HintScreen { masks: masks.0.clone(), drops: self.mode == Mode::Block, record: record.clone() });
        }
        let mut answer = next.run(call).await?;
        if self.mode == Mode::Heads {
            // The common case, without the room that a body needs.
            if masks.star_fields(answer.headers_mut(), self.taken()) {
                record.borrow_mut().reflected.head = true;
                warn(&record, "head");
            }
            return Ok(answer);
        }
        Box::pin(self.search(answer, masks, &record)).await
    }
}

/// What to look for: what the configuration holds, and what was fetched.
#[derive(Debug)]
struct Masks([Option<Arc<Mask>>; 2]);

impl Masks {
    fn star(&self, bytes: &mut [u8]) -> bool {
        self.0.iter().flatten().fold(false, |found, mask| mask.star(bytes) | found)
    }

    fn open_end(&self, bytes: &[u8]) -> usize {
        self.0.iter().flatten().map(|mask| mask.open_end(bytes)).max().unwrap_or(0)
    }

    fn star_fields(&self, fields: &mut HeaderMap, but: Option<HeaderName>) -> bool {
        let mut found = false;
        for (name, value) in fields.iter_mut() {
            if but.as_ref() == Some(name) || !self.0.iter().flatten().any(|mask| mask.finds_in(value.as_bytes())) {
                continue;
            }
            let mut bytes = value.as_bytes().to_vec();
            self.star(&mut bytes);
            // Stars are as legal as what they take the place of.
            *value = HeaderValue::from_bytes(&bytes).unwrap_or_else(|_| HeaderValue::from_static("*"));
            found = true;
        }
        found
    }
}

impl Fresh {
    /// What finds the credentials of this signed call. They mostly are those of the call before.
    fn mask(&self, call: &Call) -> Option<Arc<Mask>> {
        let mut values = Zeroizing::new(Vec::with_capacity(256));
        let mut add = |value: &[u8]| {
            values.extend_from_slice(value);
            values.push(b'\n');
        };
        for name in self.headers.iter().take(SENT_MAX) {
            call.headers.get_all(name).iter().take(SENT_MAX).for_each(|value| add(value.as_bytes()));
        }
        for cookie in call.headers.get_all(COOKIE).iter().filter(|_| self.every_cookie || !self.cookies.is_empty()) {
            for pair in cookie.as_bytes().split(|b| *b == b';').map(<[u8]>::trim_ascii) {
                let end = memchr::memchr(b'=', pair).unwrap_or(pair.len());
                let value = pair.get(end + 1..).unwrap_or_default();
                let ours = self.cookies.iter().any(|name| name.as_bytes() == &pair[..end]);
                if ours || (self.every_cookie && value.len() >= COOKIE_LEAST) {
                    add(value);
                }
            }
        }
        for part in call.target.query().filter(|_| !self.params.is_empty()).into_iter().flat_map(|query| query.split('&')) {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            if self.params.iter().any(|own| percent_encoding::percent_decode_str(name).eq(own.bytes())) {
                add(&Zeroizing::new(percent_encoding::percent_decode_str(value).collect::<Vec<u8>>()));
            }
        }
        if values.is_empty() {
            return None;
        }
        if let Some(last) = &*self.last.load()
            && last.values == values
        {
            return Some(last.mask.clone());
        }
        let mask = Arc::new(Mask::new(&secrets(&values)));
        self.last.store(Some(Arc::new(Sent { values, mask: mask.clone() })));
        Some(mask)
    }
}

/// Each value, and without the word in front of it: `Bearer x` is sent, and `x` comes back.
fn secrets(values: &[u8]) -> Vec<Secret> {
    let texts = values.split(|b| *b == b'\n').filter_map(|value| std::str::from_utf8(value).ok());
    texts
        .flat_map(|text| [Some(text), text.split_once(' ').map(|(_, rest)| rest)])
        .flatten()
        .map(|text| Secret::new(text.to_owned()))
        .collect()
}

fn warn(record: &OpenRecord, place: &str) {
    let record = record.borrow();
    let resource = record.resource.as_deref().unwrap_or("-");
    tracing::warn!(id = &*record.id, resource, "the {place} of the upstream's answer held the credential that was sent to it");
}

fn is_textual(headers: &HeaderMap) -> bool {
    let Some(kind) = headers.get(CONTENT_TYPE) else { return true };
    let kind = kind.as_bytes().to_ascii_lowercase();
    let kind = kind.split(|b| *b == b';').next().unwrap_or_default().trim_ascii();
    let words: [&[u8]; 7] = [b"json", b"xml", b"javascript", b"ecmascript", b"yaml", b"graphql", b"x-www-form-urlencoded"];
    kind.is_empty()
        || kind.starts_with(b"text/")
        || kind.starts_with(b"multipart/")
        || words.iter().any(|word| memchr::memmem::find(kind, word).is_some())
}

fn is_compressed(headers: &HeaderMap) -> bool {
    headers.get_all(CONTENT_ENCODING).iter().any(|coding| !coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"identity"))
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use serde_json::json;

    use super::*;
    use crate::auth::support::{auth, call, now};

    fn fixed(secret: &str) -> Option<Arc<Mask>> {
        Some(Arc::new(Mask::new([&Secret::new(secret.into())])))
    }

    /// An upstream that answers with these fields and this body.
    #[derive(Clone)]
    struct Upstream(&'static [(&'static str, &'static str)], &'static str);

    impl Next for Upstream {
        async fn run(&self, _: Call) -> Answer {
            let mut answer = Response::new(if self.1.is_empty() { Body::Empty } else { Body::Full(self.1.into()) });
            for (name, value) in self.0 {
                answer.headers_mut().append(*name, HeaderValue::from_static(value));
            }
            Ok(answer)
        }
    }

    fn answer(mode: Mode, upstream: &Upstream) -> Answer {
        let reflect = Reflect::new(mode, fixed("hunter2hunter2"), None).unwrap();
        now(reflect.handle(call("/a"), upstream))
    }

    fn text(answer: Answer) -> String {
        String::from_utf8(now(answer.unwrap().into_body().collect()).unwrap().to_bytes().to_vec()).unwrap()
    }

    #[test]
    fn heads_are_masked_by_default_and_bodies_are_not() {
        let upstream = Upstream(
            &[("x-echo", "Bearer hunter2hunter2"), ("x-basic", "dTpodW50ZXIyaHVudGVyMg=="), ("x-fine", "hunter")],
            "hunter2hunter2",
        );
        let answer = answer(Mode::Heads, &upstream);
        let headers = answer.as_ref().unwrap().headers();
        assert_eq!(headers["x-echo"], "Bearer **************");
        assert!(!headers["x-basic"].to_str().unwrap().contains("aHVudGVyMmh1bnRlcj"));
        assert_eq!(headers["x-fine"], "hunter");
        assert_eq!(text(answer), "hunter2hunter2");
    }

    #[test]
    fn textual_bodies_are_masked_on_request_and_others_are_not() {
        for kind in [
            "application/json",
            "TEXT/plain; charset=utf-8",
            "application/problem+json",
            "image/svg+xml",
            "application/x-www-form-urlencoded",
            "",
        ] {
            let upstream = Upstream(Box::leak(Box::new([("content-type", kind)])), "a hunter2hunter2 b");
            assert_eq!(text(answer(Mode::Mask, &upstream)), "a ************** b", "{kind}");
        }
        let upstream = Upstream(&[("content-type", "application/octet-stream")], "hunter2hunter2");
        assert_eq!(text(answer(Mode::Mask, &upstream)), "hunter2hunter2");
    }

    #[test]
    fn block_answers_502_for_heads_and_for_small_bodies() {
        for upstream in [Upstream(&[("x-echo", "hunter2hunter2")], ""), Upstream(&[], "hunter2hunter2")] {
            assert_eq!(answer(Mode::Block, &upstream).err(), Some(Error::Protocol(Breach::Reflected)));
        }
        assert_eq!(text(answer(Mode::Block, &Upstream(&[], "fine"))), "fine");
    }

    #[test]
    fn a_body_that_nobody_can_search_is_refused_where_bodies_are_searched() {
        let upstream = Upstream(&[("content-encoding", "gzip")], "x");
        assert_eq!(answer(Mode::Mask, &upstream).err(), Some(Error::Protocol(Breach::Sealed)));
        assert!(answer(Mode::Heads, &upstream).is_ok());
    }

    #[test]
    fn nobody_looks_where_there_is_nothing_to_look_for() {
        assert!(Reflect::new(Mode::Off, fixed("hunter2hunter2"), None).is_none());
        assert!(Reflect::new(Mode::Mask, fixed("short"), None).is_none());
        assert!(Reflect::new(Mode::Heads, None, Some(&auth(json!({ "bearer": "${secret:hunter2hunter2}" })))).is_none());
    }

    #[test]
    fn what_a_scheme_has_fetched_is_found_by_where_it_was_put() {
        let fresh = Fresh {
            headers: vec![http::header::AUTHORIZATION],
            params: vec!["api key".into()],
            cookies: vec!["sid".into()],
            every_cookie: false,
            last: ArcSwapOption::empty(),
        };
        let mut signed = call("/a?x=1&api%20key=param%2Dsecret");
        signed.headers.insert("authorization", HeaderValue::from_static("Bearer fetched-token"));
        signed.headers.insert("cookie", HeaderValue::from_static("a=ordinary-cookie; sid=session-secret"));
        let mask = fresh.mask(&signed).unwrap();
        for (text, found) in [("fetched-token", true), ("param-secret", true), ("session-secret", true), ("ordinary-cookie", false)] {
            assert_eq!(mask.finds(text), found, "{text}");
        }
        assert!(Arc::ptr_eq(&mask, &fresh.mask(&signed).unwrap()));
        signed.headers.insert("authorization", HeaderValue::from_static("Bearer another-token"));
        assert!(fresh.mask(&signed).unwrap().finds("another-token"));
        assert!(fresh.mask(&call("/a")).is_none());
    }
}
