//! How a person connects an account: links, pages, the way to the provider and back, and what comes of it (product
//! section 6, ruling G6). A link is good for ten minutes and for one browser; what a person consents to stays pending until
//! the client that asked redeems a code, which only the browser that consented is given. Thus a link that was mailed to
//! somebody else connects nothing. How a provider is asked is the scheme's affair (`auth::consent`).

mod browser;
mod device;
mod order;
mod page;
mod session;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;

use crate::auth::connection::{Links, New, Owner};
use crate::auth::consent::{Ask, Back, Consent, Kept, Params, Refusal};
use crate::auth::token::{Failure, Minted};
use crate::error::Error;
use crate::net::{Background, Origin};
use crate::secret::Secret;
use crate::stack::Live;
pub use device::{Begun, Showing};
pub use order::{Opened, Order};
use page::Page;
use session::{Session, Sessions, Stop};

/// The variables of an account.
type Vars = std::collections::BTreeMap<String, String>;

/// The way back from a provider.
pub const CALLBACK: &str = "/connect/callback";
/// In front of a link's secret.
const START: &str = "/connect/start/";
/// Everything that is answered here begins so.
const ROOM: &str = "/connect/";
/// Largest form.
const FORM_MAX: usize = 32 * 1024;
/// How long a form may take to arrive.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a code is good at least, in milliseconds: whoever consents in the last minute has time to land.
const LANDING: u64 = 2 * 60 * 1000;
/// How often what has ended is taken away.
const SWEEP: Duration = Duration::from_secs(30);
/// Length of the part of a code that must not be guessed: five bits a character.
const CODE: usize = 20;

/// Where people connect accounts.
#[derive(Debug)]
pub struct Desk {
    live: Live,
    tokens: crate::auth::grant::Tokens,
    /// Where the pages are, where nobody says how others see that.
    listener: SocketAddr,
    sessions: Mutex<Sessions>,
    /// Codes that people type in elsewhere.
    devices: Arc<Mutex<device::Devices>>,
    /// Makes the proofs in forms.
    key: hmac::Key,
}

impl Desk {
    /// A desk whose pages are on this listener. `None` if the system gives no randomness.
    pub fn new(live: Live, tokens: crate::auth::grant::Tokens, listener: SocketAddr) -> Option<Arc<Self>> {
        let key = crate::digest::random_key()?;
        let desk = Arc::new(Self { live, tokens, listener, sessions: Mutex::default(), devices: Arc::default(), key });
        let links: Arc<dyn Links> = desk.clone();
        desk.tokens.connections().link_by(Arc::downgrade(&links));
        Some(desk)
    }

    /// Whether a path is for people who connect accounts.
    pub fn has(path: &str) -> bool {
        path.starts_with(ROOM)
    }

    /// Answers a browser, or a provider that delivers by itself.
    pub async fn answer(&self, request: Request<Incoming>) -> Page {
        let (head, body) = request.into_parts();
        let path = head.uri.path();
        match (&head.method, path.strip_prefix(START)) {
            (&Method::GET, Some(link)) => self.ask(&head.headers, link),
            (&Method::POST, Some(link)) => match form(&head.headers, body).await {
                Some(form) => self.go(&head.headers, link, &form).await,
                None => page::message(StatusCode::BAD_REQUEST, "Not connected", "This is no form, or too large a one."),
            },
            (&Method::GET, None) if path == CALLBACK => match Params::read(head.uri.query().unwrap_or_default()) {
                Some(params) => self.back(&head.headers, params).await,
                None => strange(),
            },
            (&Method::POST, None) if path == CALLBACK => match form(&head.headers, body).await {
                Some(form) => self.delivered(&head.headers, form),
                None => strange(),
            },
            (_, Some(_)) => page::not_allowed("GET, POST"),
            (_, None) if path == CALLBACK => page::not_allowed("GET, POST"),
            _ => page::message(StatusCode::NOT_FOUND, "Nothing here", "There is no such page."),
        }
    }

    /// Takes away what has ended, for ever.
    pub async fn sweep_every(self: Arc<Self>) {
        loop {
            tokio::time::sleep(SWEEP).await;
            let over = lock(&self.sessions).sweep(self.now().saturating_sub(LANDING));
            for session in over {
                let (connections, id) = (self.tokens.connections().clone(), session.id.clone());
                let Ok(Some(minted)) = blocking(move || connections.abandon(&id)).await else { continue };
                tracing::info!(resource = &*session.owner.resource, "a consent was never redeemed, and what came of it is gone");
                // Nobody will ever use it: its issuer need not honour it either.
                self.told(session.consent, minted).await;
            }
        }
    }

    /// The page behind a link. Looking at it changes nothing but how long it is kept, so that programs which look at links do no harm.
    fn ask(&self, headers: &HeaderMap, link: &str) -> Page {
        if !browser::navigates(headers) {
            return aside();
        }
        let mut sessions = lock(&self.sessions);
        let brought = sessions.behind(link, self.now()).and_then(|session| brought(headers, session));
        let session = match sessions.of_link(link, brought.as_ref(), self.now()) {
            Ok(session) => session,
            Err(stop) => return stopped(stop),
        };
        if let Err(refusal) = self.judge_name(headers, session) {
            return *refusal;
        }
        let session = match sessions.visit(link, brought.as_ref(), self.now()) {
            Ok(session) => session,
            Err(stop) => return stopped(stop),
        };
        let cookie = match brought.map_or_else(|| session::drawn(32), Ok) {
            Ok(cookie) => cookie,
            Err(error) => return failed(&error),
        };
        let proof = self.proof(&session.id, &cookie);
        let shelf = self.tokens.connections().shelf(&session.owner);
        let asked = page::question(&page::Question {
            client: session.client.as_deref(),
            resource: &session.owner.resource,
            connection: &session.name,
            replaces: shelf.find(&session.name).is_some(),
            provider: &session.consent.provider(),
            scopes: &session.consent.scopes(),
            action: &[START, link].concat(),
            proof: &proof,
        });
        page::with_cookie(asked, &browser::cookie(&session.id, &cookie, is_secure(&session.redirect_uri)))
    }

    /// The person has said yes, or no.
    async fn go(&self, headers: &HeaderMap, link: &str, form: &Params) -> Page {
        let (browser, consent, redirect_uri, vars, landing) = {
            let sessions = lock(&self.sessions);
            let brought = sessions.behind(link, self.now()).and_then(|session| brought(headers, session));
            let session = match sessions.of_link(link, brought.as_ref(), self.now()) {
                Ok(session) => session,
                Err(stop) => return stopped(stop),
            };
            if let Err(refusal) = self.judge_name(headers, session) {
                return *refusal;
            }
            let own = Origin::of(&session.redirect_uri).is_ok_and(|(origin, _)| browser::is_own(headers, &origin));
            let (Some(browser), true) = (brought, own) else { return aside() };
            if form.one("proof").ok().flatten() != Some(&self.proof(&session.id, &browser)) {
                return aside();
            }
            (browser, session.consent.clone(), session.redirect_uri.clone(), session.vars.clone(), Landing::of(session))
        };
        if form.one("answer").ok().flatten().is_none_or(|answer| answer.expose() != "connect") {
            lock(&self.sessions).end(&landing.id);
            return landing.without("cancelled", "Nothing was connected.");
        }
        let state = lock(&self.sessions).leave(link, &browser, self.now());
        let state = match state {
            Ok(state) => state,
            Err(stop) => return stopped(stop),
        };
        match self.begun(consent, redirect_uri, vars, state.clone()).await {
            Ok((url, kept)) => match lock(&self.sessions).keep(&state, kept) {
                true => page::redirect(&url),
                // Meanwhile the same browser has gone once more.
                false => stopped(Stop::Used),
            },
            Err(refusal) => told(&refusal),
        }
    }

    /// The browser is back from the provider.
    async fn back(&self, headers: &HeaderMap, params: Params) -> Page {
        if !browser::navigates(headers) {
            return aside();
        }
        let Ok(Some(state)) = params.one("state").map(|state| state.cloned()) else { return strange() };
        let (returned, landing, new, consent, redirect_uri) = {
            let mut sessions = lock(&self.sessions);
            let Some(session) = sessions.of_state(&state, self.now()) else { return stopped(Stop::Unknown) };
            if let Err(refusal) = self.judge_name(headers, session) {
                return *refusal;
            }
            let brought = brought(headers, session);
            let (landing, consent, redirect_uri) = (Landing::of(session), session.consent.clone(), session.redirect_uri.clone());
            let new = New {
                owner: session.owner.clone(),
                name: session.name.clone(),
                client: session.client.clone(),
                vars: session.vars.clone(),
                bond: session.bond.clone(),
            };
            match sessions.arrive(&state, brought.as_ref(), self.now()) {
                Ok(returned) => (returned, landing, new, consent, redirect_uri),
                Err(stop) => return stopped(stop),
            }
        };
        let params = match returned.delivered {
            Some(delivered) if params.is_bare() => delivered,
            _ => params,
        };
        let id = landing.id.clone();
        let done = self.finished(consent, params, returned.kept, redirect_uri, new.vars.clone()).await;
        match done {
            Ok(minted) => self.landed(landing, new, minted).await,
            Err(refusal) => {
                // Nothing is pending, so nothing is left of it.
                lock(&self.sessions).end(&id);
                tracing::warn!(resource = &*new.owner.resource, connection = &*new.name, "nothing was connected: {}", cause(&refusal));
                match &refusal {
                    // Who sends what is no answer may be anybody: no client hears of it.
                    Refusal::Wrong(_) => told(&refusal),
                    Refusal::Denied(code, _) => landing.with_error(code).unwrap_or_else(|| told(&refusal)),
                    Refusal::Failed(_) => landing.with_error("server_error").unwrap_or_else(|| told(&refusal)),
                }
            }
        }
    }

    /// The provider has brought the answer by itself (ruling F49). Nothing comes of it before the browser is back.
    fn delivered(&self, headers: &HeaderMap, params: Params) -> Page {
        let Ok(Some(state)) = params.one("state").map(|state| state.cloned()) else { return strange() };
        let mut sessions = lock(&self.sessions);
        let Some(session) = sessions.of_state(&state, self.now()) else { return stopped(Stop::Unknown) };
        if let Err(refusal) = self.judge_name(headers, session) {
            return *refusal;
        }
        match sessions.deliver(&state, params, self.now()) {
            Ok(()) => page::delivered(&format!("{CALLBACK}?state={}", crate::uri::encode_query(state.expose()))),
            Err(stop) => stopped(stop),
        }
    }

    /// What the issuer gave is sealed before anything else is done, and then the browser lands.
    async fn landed(&self, landing: Landing, new: New, minted: Minted) -> Page {
        let (resource, name) = (new.owner.resource.clone(), new.name.clone());
        let code = match session::drawn(CODE) {
            Ok(code) => code,
            Err(error) => return failed(&error),
        };
        let until = landing.until.max(self.now() + LANDING);
        let (connections, id, kept) = (self.tokens.connections().clone(), landing.id.clone(), code.clone());
        if let Err(error) = blocking(move || connections.pend(&id, &kept, until, new, &minted)).await {
            tracing::error!(resource = &*resource, "a consent could not be stored: {}", error.cause());
            return failed(&error);
        }
        tracing::info!(resource = &*resource, connection = &*name, "a person has consented; the connection is pending");
        let code = session::joined(&landing.id, &code);
        match landing.with("connect_code", &code) {
            Some(page) => page,
            None => page::code(&code, &resource),
        }
    }

    /// Tells the issuer that a grant is over. Whether it was told.
    async fn told(&self, consent: Arc<dyn Consent>, minted: Minted) -> bool {
        let clock = self.tokens.clock().clone();
        let Ok(background) = self.background() else { return false };
        match background.run(move || async move { Ok(consent.revoke(&minted, &clock).await) }).await {
            Ok(Ok(told)) => told,
            Ok(Err(refusal)) => {
                tracing::warn!("the issuer could not be told that a grant is over: {}", cause(&refusal));
                false
            }
            Err(_) => false,
        }
    }

    async fn begun(&self, consent: Arc<dyn Consent>, redirect_uri: String, vars: Vars, state: Secret) -> Result<(Secret, Kept), Refusal> {
        let clock = self.tokens.clock().clone();
        let work = move || async move {
            let begun = consent.begin(Ask { redirect_uri: &redirect_uri, state: &state, vars: &vars, clock: &clock }).await;
            Ok(begun.map(|begun| (begun.url, begun.kept)))
        };
        self.background()?.run(work).await.unwrap_or_else(|error| Err(Failure::Own(error).into()))
    }

    async fn finished(
        &self,
        consent: Arc<dyn Consent>,
        params: Params,
        kept: Kept,
        redirect_uri: String,
        vars: Vars,
    ) -> Result<Minted, Refusal> {
        let clock = self.tokens.clock().clone();
        let work = move || async move {
            Ok(consent.finish(Back { params: &params, kept: &kept, redirect_uri: &redirect_uri, vars: &vars, clock: &clock }).await)
        };
        self.background()?.run(work).await.unwrap_or_else(|error| Err(Failure::Own(error).into()))
    }

    fn background(&self) -> Result<&Background, Failure> {
        self.tokens.background().ok_or_else(|| Failure::Own(Error::Internal("there is no background".into())))
    }

    /// Refuses a name that was made to lead here.
    fn judge_name(&self, headers: &HeaderMap, session: &Session) -> Result<(), Box<Page>> {
        let mut names = vec![self.listener.to_string()];
        if let Ok((origin, _)) = Origin::of(&session.redirect_uri) {
            names.extend(origin.authority().to_str().ok().map(str::to_owned));
        }
        if browser::calls(headers, &names) {
            return Ok(());
        }
        Err(Box::new(page::message(
            StatusCode::FORBIDDEN,
            "Not like this",
            "Open the link as it was given to you: this is another address.",
        )))
    }

    /// Where the provider sends the browser back. The pages are at the same origin, as the cookie is that origin's.
    fn redirect_uri(&self, consent: &dyn Consent) -> Result<String, Error> {
        let own = match &self.live.load().common.public {
            Some(public) => public.clone(),
            None => format!("http://{}", reachable(self.listener)),
        };
        let redirect_uri = consent.redirect_uri().map_or_else(|| format!("{own}{CALLBACK}"), str::to_owned);
        let (origin, _) = Origin::of(&redirect_uri).map_err(|why| Error::Internal(format!("a redirect URI: {why}")))?;
        if !origin.is_https() && !origin.is_loopback() {
            let hint = "Give server.public_url with https, or redirect_uri on the scheme.";
            return Err(Error::BadRequest("People would come back over plain http.".into(), hint.into()));
        }
        Ok(redirect_uri)
    }

    /// Proves that a form comes from a page that this very browser was given.
    fn proof(&self, id: &str, browser: &Secret) -> Secret {
        let mut context = hmac::Context::with_key(&self.key);
        for part in [id, browser.expose()] {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part.as_bytes());
        }
        Secret::new(URL_SAFE_NO_PAD.encode(context.sign()))
    }

    fn now(&self) -> u64 {
        self.tokens.clock().millis()
    }
}

impl Links for Desk {
    fn link(&self, owner: &Owner, name: &Arc<str>, client: Option<&Arc<str>>) -> Option<String> {
        self.mend(owner, name, client)
    }
}

/// Where a browser lands, whatever came of it.
struct Landing {
    id: String,
    return_url: Option<String>,
    until: u64,
}

impl Landing {
    fn of(session: &Session) -> Self {
        Self { id: session.id.clone(), return_url: session.return_url.clone(), until: session.until }
    }

    /// At the client, with this; `None` where it has no place to land.
    fn with(&self, name: &str, value: &Secret) -> Option<Page> {
        let url = self.return_url.as_ref()?;
        let mark = if url.contains('?') { '&' } else { '?' };
        let to = format!("{url}{mark}connect_session={}&{name}={}", self.id, crate::uri::encode_query(value.expose()));
        Some(page::redirect(&Secret::new(to)))
    }

    fn with_error(&self, code: &str) -> Option<Page> {
        self.with("connect_error", &Secret::new(code.to_owned()))
    }

    fn without(&self, code: &str, text: &str) -> Page {
        self.with_error(code).unwrap_or_else(|| page::message(StatusCode::OK, "Not connected", text))
    }
}

/// The address by which this machine reaches its own listener.
pub fn reachable(listener: SocketAddr) -> SocketAddr {
    let ip = match listener.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listener.port())
}

/// What the browser was given for this session.
fn brought(headers: &HeaderMap, session: &Session) -> Option<Secret> {
    browser::brought(headers, &browser::cookie_name(&session.id, is_secure(&session.redirect_uri)))
}

fn is_secure(redirect_uri: &str) -> bool {
    redirect_uri.starts_with("https://")
}

/// A form, whole.
async fn form(headers: &HeaderMap, body: Incoming) -> Option<Params> {
    let kind = headers.get(CONTENT_TYPE)?.to_str().ok()?.split(';').next()?.trim();
    if !kind.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
        return None;
    }
    let reading = Limited::new(body, FORM_MAX).collect();
    let bytes = tokio::time::timeout(PATIENCE, reading).await.ok()?.ok()?.to_bytes();
    Params::read(std::str::from_utf8(&bytes).ok()?)
}

fn stopped(stop: Stop) -> Page {
    match stop {
        Stop::Unknown => {
            page::message(StatusCode::NOT_FOUND, "Nothing here", "This link is unknown or too old. Ask for a new one where you got it.")
        }
        Stop::Used => page::message(
            StatusCode::FORBIDDEN,
            "Not in this browser",
            "This link was used already, or in another browser. Ask for a new one.",
        ),
    }
}

fn aside() -> Page {
    page::message(StatusCode::FORBIDDEN, "Not like this", "This must come from the page itself, in the browser in which you opened it.")
}

fn strange() -> Page {
    page::message(StatusCode::BAD_REQUEST, "Not connected", "This is no answer to anything that was asked here.")
}

fn failed(error: &Error) -> Page {
    page::message(error.status(), "Not connected", &error.detail())
}

/// What a person is told of a refusal.
fn told(refusal: &Refusal) -> Page {
    match refusal {
        Refusal::Denied(code, said) => {
            let said = said.as_deref().map_or_else(String::new, |said| format!(" It adds: {said}"));
            page::message(StatusCode::OK, "Not connected", &format!("The provider says {code}.{said}"))
        }
        Refusal::Wrong(why) => page::message(StatusCode::BAD_REQUEST, "Not connected", &format!("Nothing was connected: {why}.")),
        Refusal::Failed(failure) => match &**failure {
            Failure::Own(error) => failed(error),
            other => page::message(StatusCode::BAD_GATEWAY, "Not connected", &other.detail()),
        },
    }
}

/// What happened, for the log. What a provider adds is left to the page: anybody can write it into an address.
fn cause(refusal: &Refusal) -> String {
    match refusal {
        Refusal::Denied(code, _) => format!("the provider says {code}"),
        Refusal::Wrong(why) => why.to_string(),
        Refusal::Failed(failure) => failure.cause(),
    }
}

/// The store waits for its disk, and this thread has other things to do.
pub async fn blocking<T: Send + 'static>(act: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    tokio::task::spawn_blocking(act).await.unwrap_or_else(|_| Err(Error::Internal("a job of the store panicked".into())))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
