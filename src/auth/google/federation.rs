//! How a token is had without a key: from the metadata server, with a user's refresh token, or in exchange for another
//! issuer's; and from there, perhaps, as another service account.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, USER_AGENT};
use http::{HeaderName, HeaderValue, Request};
use serde_json::Value;
use zeroize::Zeroizing;

use crate::auth::field::Field;
use crate::auth::grant::{Ask, Fetching, Source};
use crate::auth::oauth::Oauth;
use crate::auth::oauth::call::{Call, Endpoint, Written};
use crate::auth::oauth::form::Form;
use crate::auth::oauth::trouble::{self, Step};
use crate::auth::token::{Failure, Minted};
use crate::clock::Clock;
use crate::error::{Error, Trouble};
use crate::secret::Secret;

/// Largest subject token, wherever it comes from.
const SUBJECT_MAX: u64 = 64 * 1024;

/// An identity without a key.
#[derive(Debug)]
pub struct Ambient {
    /// Whose token comes first.
    pub base: Base,
    /// Who is to be presented instead.
    pub then: Option<Impersonation>,
    /// Where the identity was looked for, for the log.
    pub tried: Arc<str>,
}

/// Whose token comes first.
#[derive(Debug)]
pub enum Base {
    /// Of the machine: its metadata server.
    Machine(Box<Call>),
    /// Of a user.
    User(Box<Oauth>),
    /// Of another cloud, exchanged.
    External(Box<External>),
}

/// Another issuer's identity.
#[derive(Debug)]
pub struct External {
    /// Where its token is.
    pub subject: Subject,
    /// The exchange.
    pub call: Call,
    /// Its parameters but for the subject token.
    pub form: Form,
}

/// Where a subject token is; it is read at each exchange, as it changes.
#[derive(Debug)]
pub enum Subject {
    /// In a file, which somebody else renews.
    File(PathBuf, Format),
    /// At a URL of this machine.
    Url {
        /// Where.
        endpoint: Endpoint,
        /// What the request has.
        headers: Vec<(HeaderName, HeaderValue)>,
        /// What the answer is.
        format: Format,
        /// What bounds it.
        time: Duration,
    },
}

/// How a subject token is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Format {
    /// By itself.
    Text,
    /// Under this name in JSON.
    Json(String),
}

/// Becoming a service account.
#[derive(Debug)]
pub struct Impersonation {
    /// The call.
    pub call: Call,
    /// Its parameters.
    pub form: Form,
}

impl Source for Ambient {
    fn fetch<'a>(&'a self, ask: Ask<'a>) -> Fetching<'a> {
        Box::pin(async move {
            let first = match &self.base {
                Base::Machine(call) => call.send_alone(Step::Machine, Form::default(), ask.clock).await.map_err(|f| self.sought(f))?,
                // What was impersonated before is no user's token.
                Base::User(oauth) => oauth.fetch(Ask { before: None, ..ask }).await?,
                Base::External(external) => external.exchange(ask.clock).await?,
            };
            match &self.then {
                // The refresh token stands in the file, and nowhere else.
                None => Ok(Minted { refresh: None, ..first }),
                Some(then) => then.become_it(&first, ask.clock).await,
            }
        })
    }
}

impl Ambient {
    /// A failure that also says where an identity was looked for.
    fn sought(&self, failure: Failure) -> Failure {
        let told = |trouble: Trouble| Trouble {
            detail: format!("The configuration holds no key, and no identity of this machine was found. {}", trouble.detail).into(),
            hint: "Set GOOGLE_APPLICATION_CREDENTIALS, sign in with gcloud, or run where there is a metadata server.".into(),
            cause: format!("{} (the ambient identity: {})", trouble.cause, self.tried).into(),
        };
        match failure {
            Failure::Down(trouble, wait) => Failure::Down(told(trouble), wait),
            Failure::Unknown(trouble) => Failure::Unknown(told(trouble)),
            other => other,
        }
    }
}

impl External {
    async fn exchange(&self, clock: &Clock) -> Result<Minted, Failure> {
        let mut form = self.form.clone();
        form.set("subject_token", self.subject.token().await?);
        self.call.send_alone(Step::Token, form, clock).await
    }
}

impl Impersonation {
    async fn become_it(&self, first: &Minted, clock: &Clock) -> Result<Minted, Failure> {
        let token = first.access.as_ref().map_or("", Secret::expose);
        let field = Field::new(&Zeroizing::new(["Bearer ", token].concat()));
        let field = field.map_err(|why| Failure::Own(Error::Internal(why.into())))?;
        let mut call = self.call.clone();
        call.headers.push((AUTHORIZATION, Some(Written::Ready(field.value()))));
        call.send_alone(Step::Impersonation, self.form.clone(), clock).await
    }
}

impl Subject {
    /// The token as it is now.
    async fn token(&self) -> Result<Secret, Failure> {
        let (text, format) = match self {
            Self::File(path, format) => {
                let path = path.clone();
                let read = tokio::task::spawn_blocking(move || crate::file::read(&path, SUBJECT_MAX).1).await;
                match read {
                    Ok(Ok(bytes)) => (Bytes::from(bytes), format),
                    Ok(Err(error)) => return Err(absent(&format!("its file cannot be read: {error}"))),
                    Err(_) => return Err(Failure::Own(Error::Internal("a reading of a file panicked".into()))),
                }
            }
            Self::Url { endpoint, headers, format, time } => (fetched(endpoint, headers, *time).await?, format),
        };
        let found = match format {
            Format::Text => std::str::from_utf8(&text).ok().map(|text| text.trim().to_owned()),
            Format::Json(name) => serde_json::from_slice(&text).ok().and_then(|json: Value| Some(json.get(name)?.as_str()?.to_owned())),
        };
        let found = found.filter(|token| !token.is_empty() && token.chars().all(|c| !c.is_control()));
        found.map(Secret::new).ok_or_else(|| absent("there is none in what was read"))
    }
}

/// The answer of whoever hands out subject tokens on this machine.
async fn fetched(endpoint: &Endpoint, headers: &[(HeaderName, HeaderValue)], time: Duration) -> Result<Bytes, Failure> {
    let mut request = Request::new(Bytes::new());
    *request.uri_mut() = endpoint.target().map_err(Failure::Own)?;
    request.headers_mut().insert(ACCEPT, HeaderValue::from_static("*/*"));
    request.headers_mut().insert(USER_AGENT, HeaderValue::from_static(concat!("postern/", env!("CARGO_PKG_VERSION"))));
    request.headers_mut().extend(headers.iter().cloned());
    let answer = endpoint.ask(request, time, SUBJECT_MAX).await;
    let answer = answer.map_err(|error| trouble::unanswered(Step::Subject, &endpoint.origin().to_string(), &error))?;
    if !answer.status().is_success() {
        return Err(absent(&format!("who hands it out answers {}", answer.status().as_u16())));
    }
    Ok(answer.into_body())
}

/// There is no subject token.
fn absent(why: &str) -> Failure {
    let trouble = Trouble {
        detail: "There is no subject token to exchange for one of Google's.".into(),
        hint: "Check `credential_source` of the federated identity; the gateway's log has more.".into(),
        cause: format!("there is no subject token to exchange: {why}").into(),
    };
    Failure::Down(trouble, None)
}
