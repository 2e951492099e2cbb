//! `session`: a login by a form or JSON as a browser does it, and the cookies that it brings. They are kept as the upstream
//! sets, replaces and removes them, go back where they belong, and never reach a caller. A session that has ended, by its
//! cookies or by what the upstream answers, is begun anew, once for all who wait.

mod futile;
mod login;
mod page;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::header::{COOKIE, ORIGIN, REFERER, SET_COOKIE};
use http::{HeaderName, HeaderValue, Method, Response};
use zeroize::Zeroizing;

use crate::auth::field::Field;
use crate::auth::flow::{self, Ended, Line, Reader, Redirects, condition, material_of};
use crate::auth::grant::{NewSeat, Seat};
use crate::auth::granted::Gives;
use crate::auth::jar::Jar;
use crate::auth::read::fields;
use crate::auth::token::{STAND_IN, Token};
use crate::auth::{Acquiring, Attempt, Owned, Reading, Renewal, Renewing, Scheme, Signing, place};
use crate::body::Body;
use crate::call::Call;
use crate::clock::Clock;
use crate::error::Error;
use crate::expr::Condition;
use crate::net::Origin;
use crate::tree::{Fields, Node, Problems};
use futile::{Futile, Place, Served};
use login::Login;

/// The scheme.
#[derive(Debug)]
struct Session {
    seat: Arc<Seat>,
    ended: Arc<Ended>,
    csrf: Option<CsrfHeader>,
    /// Whether the upstream looks where a changing request comes from.
    guarded: bool,
    origin: Origin,
    /// The base path without its trailing slash.
    base_path: String,
    /// The hosts that share cookies.
    named: Vec<String>,
    clock: Clock,
    futile: Mutex<Futile>,
}

/// `csrf_header`: a header that repeats a cookie (ruling B26).
#[derive(Clone, Debug)]
pub struct CsrfHeader {
    name: HeaderName,
    cookie: String,
}

/// Reads `{ login, csrf_header, expired }`.
pub(super) fn read(node: &Node, reading: Reading<'_>) -> Option<Box<dyn Scheme>> {
    let (context, problems) = (reading.context, reading.problems);
    let fields = fields(node, "a map with `login`", problems)?;
    let reader = flow::reader(reading);
    let csrf = fields.node("csrf_header").map(|node| csrf_header(node, problems));
    let ended = match fields.node("expired") {
        None => Some(Ended::usual(context)),
        Some(node) => Ended::read(node, Redirects::Told, context, reader),
    };
    // A condition that holds for the login's own answer tells that the login failed.
    let failed: Option<Option<Condition>> = condition(
        fields.node("expired").and_then(|node| node.get("when")),
        Reader { problems: &Problems::default(), ..reader },
        flow::ANSWER,
    );
    let csrf = match csrf {
        Some(read) => Some(read?),
        None => None,
    };
    let login = fields.need("login").and_then(|node| Login::read(node, Line::of(context), csrf.clone(), reading, reader));
    let renew_before = fields.node("renew_before").map(|node| node.duration(problems));
    fields.finish();
    let (mut login, ended) = (login?, Arc::new(ended?));
    let renew_before = match renew_before {
        Some(read) => Some(read?),
        None => None,
    };
    login.judging(ended.clone(), failed.flatten());
    let guarded = csrf.is_some() || login.has_csrf();
    let named = login.named();
    let material = material_of("session", node, &["renew_before"], reading);
    let seat = context.tokens.seat(NewSeat {
        resource: context.resource.into(),
        scheme: "session",
        identity: reading.fingerprint.of([material.bytes()]),
        material,
        renew_before,
        source: Arc::new(login),
        shelf: None,
        reads: flow::reads(node, &["expired"], reader),
    });
    let (origin, clock) = (context.origin.clone(), context.tokens.clock().clone());
    let base_path = context.base_path.trim_end_matches('/').to_owned();
    Some(Box::new(Session { seat, ended, csrf, guarded, origin, base_path, named, clock, futile: Mutex::default() }))
}

fn csrf_header(node: &Node, problems: &Problems) -> Option<CsrfHeader> {
    let fields = Fields::of(node, "a map of `name` and `cookie`", problems)?;
    let name = fields.need("name").and_then(|node| {
        let text = node.text(problems)?;
        let wrong = |_| problems.error(node.place, "this is no name of a header", "name: X-CSRFToken");
        HeaderName::from_bytes(text.as_bytes()).map_err(wrong).ok()
    });
    let cookie = fields.need("cookie").and_then(|node| node.text(problems));
    fields.finish();
    Some(CsrfHeader { name: name?, cookie: cookie? })
}

/// A session as it stands: it lives with its token, and every seat of the grant sees the same.
#[derive(Debug)]
struct Live {
    jar: Mutex<Jar>,
    served: Mutex<Served>,
}

fn live(token: &Token) -> Arc<Live> {
    token.beside(|minted| Live { jar: Mutex::new(login::jar_of(minted)), served: Mutex::default() })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether a request with this method is to change something (RFC 9110 section 9.2.1).
fn changes(method: &Method) -> bool {
    !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE)
}

impl Session {
    fn put(&self, call: &mut Call, token: Arc<Token>) -> Result<(), Error> {
        self.ended.prepare(&mut call.headers);
        if token.is_real() {
            self.put_cookies(call, &token)?;
        } else {
            let shown = HeaderValue::from_static(STAND_IN);
            call.headers.insert(COOKIE, shown.clone());
            if let Some(csrf) = &self.csrf {
                call.headers.insert(&csrf.name, shown);
            }
        }
        if self.guarded && call.origin.is_none() && changes(&call.method) {
            // Whoever guards against forgery wants to see that a change comes from its own pages.
            let own = HeaderValue::try_from(self.origin.to_string());
            let own = own.map_err(|_| Error::Internal("an origin that is no field value".into()))?;
            let page = HeaderValue::try_from(format!("{}/", self.origin));
            call.headers.insert(REFERER, page.map_err(|_| Error::Internal("an origin that is no field value".into()))?);
            call.headers.insert(ORIGIN, own);
        }
        call.ticket = Some(token);
        Ok(())
    }

    /// The cookies of the session that belong to this place, and the header that repeats one.
    fn put_cookies(&self, call: &mut Call, token: &Token) -> Result<(), Error> {
        let now = self.clock.millis();
        let live = live(token);
        let cookies = lock(&live.jar);
        // Where a redirect was followed to, cookies go by their own rules.
        let origin = call.origin.as_deref().unwrap_or(&self.origin).clone();
        let mut lines: Vec<(&str, Zeroizing<String>)> = Vec::new();
        for (name, value) in cookies.pairs(&origin, call.target.path(), now) {
            // Two of one name, as of two paths, go together: that of the closest path first.
            match lines.iter_mut().find(|(n, _)| *n == name) {
                Some((_, line)) => line.extend(["; ", name, "=", value.expose()]),
                None => lines.push((name, Zeroizing::new([name, "=", value.expose()].concat()))),
            }
        }
        for (name, line) in &lines {
            let pair = Field::new(line).map_err(|_| Error::Internal("a cookie that was taken in cannot be sent".into()))?;
            place::cookie(&mut call.headers, name, &pair)?;
        }
        if call.origin.is_none()
            && let Some(csrf) = &self.csrf
            && let Some(value) = cookies.value(&csrf.cookie, &origin, call.target.path(), now)
            && let Ok(field) = Field::new(value.expose())
        {
            call.headers.insert(&csrf.name, field.value());
        }
        Ok(())
    }

    /// Takes the cookies out of an answer.
    fn take(&self, call: &Call, token: &Token, answer: &mut Response<Body>) {
        if answer.headers().contains_key(SET_COOKIE) {
            let origin = call.origin.as_deref().unwrap_or(&self.origin);
            lock(&live(token).jar).take(answer.headers(), origin, call.target.path(), &self.named, self.clock.millis());
            answer.headers_mut().remove(SET_COOKIE);
        }
    }

    /// What a request asks for, told from its path below the base URL.
    fn place(&self, call: &Call) -> Place {
        let path = call.target.path();
        Place::of(path.strip_prefix(self.base_path.as_str()).unwrap_or(path), changes(&call.method))
    }
}

impl Scheme for Session {
    fn owns(&self) -> Owned {
        let mut headers: Vec<HeaderName> = self.csrf.iter().map(|csrf| csrf.name.clone()).collect();
        if self.guarded {
            headers.extend([REFERER, ORIGIN]);
        }
        Owned { headers, every_cookie: true, ..Owned::default() }
    }

    fn identity(&self, call: &Call) -> Option<Arc<str>> {
        self.seat.identity(call)
    }

    fn secret(&self) -> bool {
        true
    }

    fn gives(&self) -> Option<Gives> {
        None
    }

    fn acquire<'a>(&'a self, _: &'a Call) -> Option<Acquiring<'a>> {
        None
    }

    fn sign<'a>(&'a self, call: &'a mut Call) -> Signing<'a> {
        match self.seat.fresh(call) {
            Some(token) => Signing::Done(self.put(call, token)),
            None => Signing::Later(Box::pin(async move {
                let token = self.seat.token(call).await?;
                self.put(call, token)
            })),
        }
    }

    fn renews(&self) -> bool {
        true
    }

    fn renew<'a>(&'a self, attempt: Attempt<'a>) -> Renewing<'a> {
        let Some(token) = Token::of(attempt.ticket) else {
            return Renewing::Done(Ok(Renewal::Stands));
        };
        Renewing::Later(Box::pin(async move {
            self.take(attempt.call, &token, attempt.answer);
            let status = attempt.answer.status();
            if !self.ended.told(attempt.call, attempt.answer).await? {
                if status.is_success() || status.is_redirection() {
                    token.accept();
                }
                if status.is_success() {
                    lock(&live(&token).served).note(self.place(attempt.call));
                }
                return Ok(Renewal::Stands);
            }
            let (place, now) = (self.place(attempt.call), self.clock.millis());
            if attempt.second {
                lock(&self.futile).note(status, place, token.generation, now);
                return Ok(Renewal::Stands);
            }
            let served = lock(&live(&token).served).has(place);
            if lock(&self.futile).stands(status, place, served, token.generation, now) {
                return Ok(Renewal::Stands);
            }
            let worthwhile = self.seat.end(&token, attempt.call);
            if worthwhile && !attempt.again {
                // Nobody will learn whether the new session makes a difference: until it is let in there, it does not.
                lock(&self.futile).note(status, place, token.generation + 1, now);
            }
            Ok(if worthwhile && attempt.again { Renewal::Again } else { Renewal::Stands })
        }))
    }
}
