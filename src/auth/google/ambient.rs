//! The ambient identity (ruling G13): what this machine or its user is known as to Google, where the configuration holds
//! no key. Application default credentials in their usual order: the file that `GOOGLE_APPLICATION_CREDENTIALS` names,
//! gcloud's file, the metadata server. Files are read when the configuration is; whoever answers is asked at each fetch.

use std::net::IpAddr;
use std::path::PathBuf;

use http::{HeaderName, HeaderValue, Method};
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use super::Mode;
use super::federation::{Ambient, Base, External, Format, Impersonation, Subject};
use crate::auth::Reading;
use crate::auth::capture::Path;
use crate::auth::oauth::call::{Call, Endpoint, Shape, Written};
use crate::auth::oauth::client::{Client, Usual};
use crate::auth::oauth::form::{Form, Value as FormValue};
use crate::auth::oauth::reply::Mapping;
use crate::auth::oauth::{Oauth, PATIENCE};
use crate::file::Seen;
use crate::secret::Secret;
use crate::tree::Place;

/// Names a file of credentials.
const NAMED: &str = "GOOGLE_APPLICATION_CREDENTIALS";
/// gcloud's file in its folder, and that folder in the home.
const KNOWN: &str = "application_default_credentials.json";
const GCLOUD: &str = ".config/gcloud";
/// Where the metadata server is, where nobody says otherwise.
const METADATA: &str = "metadata.google.internal";
/// What its requests and nobody else's have.
const FLAVOR: (&str, &str) = ("metadata-flavor", "Google");
/// Where users' credentials are renewed: their files do not say.
const USERS_TOKEN_URL: &str = "https://oauth2.googleapis.com/token";
/// What a federated identity may ask for, before it becomes somebody else.
const TO_IMPERSONATE: &str = "https://www.googleapis.com/auth/iam";
/// A JWT and nothing else.
const JWT: &str = r"^\s*([A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+)\s*$";
/// Largest file of credentials.
const FILE_MAX: u64 = 256 * 1024;
/// Most headers of a request for a subject token.
const HEADERS_MAX: usize = 16;
const HINT: &str = "gcloud auth application-default login writes such a file; `key` names one for this resource alone";

/// What the token is to be.
#[derive(Debug)]
pub struct Wanted {
    /// What is presented.
    pub mode: Mode,
    /// For access tokens.
    pub scopes: Vec<String>,
    /// A user to act for.
    pub subject: Option<String>,
    /// For ID tokens.
    pub audience: Option<String>,
    /// Where the scheme stands.
    pub place: Place,
}

/// What was found.
#[derive(Debug)]
pub enum Found {
    /// A service account's key file.
    Key(Secret),
    /// Anything else, with what names it.
    Other(Box<Ambient>, Secret),
}

/// Finds the ambient identity. `None` after an error was reported.
pub fn find(wanted: &Wanted, reading: Reading<'_>) -> Option<Found> {
    let ambient = reading.context.ambient;
    let set = |name: &str| ambient(name).filter(|value| !value.is_empty());
    let named = set(NAMED).map(PathBuf::from);
    let known = set("CLOUDSDK_CONFIG").map(PathBuf::from).or_else(|| Some(PathBuf::from(set("HOME")?).join(GCLOUD)));
    let known = known.map(|folder| folder.join(KNOWN));
    if let Some(path) = &named {
        return file(path, wanted, reading);
    }
    let mut tried = vec![format!("{NAMED} is not set")];
    if let Some(path) = &known {
        if path.is_file() {
            return file(path, wanted, reading);
        }
        reading.problems.saw(Seen::look(path));
        tried.push(format!("there is no file {}", path.display()));
    }
    let host = set("GCE_METADATA_HOST").unwrap_or_else(|| METADATA.to_owned());
    tried.push(format!("the metadata server is {host}"));
    let base = Base::Machine(Box::new(machine(&host, wanted, reading)?));
    Some(Found::Other(Box::new(Ambient { base, then: None, tried: tried.join(", ").into() }), Secret::new(host)))
}

fn file(path: &std::path::Path, wanted: &Wanted, reading: Reading<'_>) -> Option<Found> {
    let (seen, read) = crate::file::read(path, FILE_MAX);
    reading.problems.saw(seen);
    let shown = path.display();
    let wrong = |why: String| {
        reading.problems.error(wanted.place, format!("the ambient identity in {shown} {why}"), HINT);
        None
    };
    let bytes = match read {
        Ok(bytes) => Zeroizing::new(bytes),
        Err(error) => return wrong(format!("cannot be read: {error}")),
    };
    let Ok(Value::Object(file)) = serde_json::from_slice(&bytes) else { return wrong("is no JSON".into()) };
    let text = Secret::new(String::from_utf8_lossy(&bytes).into_owned());
    if kind(&file) == "service_account" {
        return Some(Found::Key(text));
    }
    match credentials(&file, wanted, reading) {
        Ok((base, then)) => Some(Found::Other(Box::new(Ambient { base, then, tried: format!("it stands in {shown}").into() }), text)),
        Err(why) => wrong(why),
    }
}

fn kind(file: &Map<String, Value>) -> &str {
    file.get("type").and_then(Value::as_str).unwrap_or_default()
}

/// Credentials that need no key here. What is wrong is a half sentence about the file.
fn credentials(file: &Map<String, Value>, wanted: &Wanted, reading: Reading<'_>) -> Result<(Base, Option<Impersonation>), String> {
    judge(wanted)?;
    let text = |name: &str| file.get(name).and_then(Value::as_str).filter(|v| !v.is_empty());
    let impersonated = text("service_account_impersonation_url");
    let then = impersonated.map(|url| impersonation(url, file, wanted, reading)).transpose()?;
    if wanted.mode == Mode::IdToken && then.is_none() {
        return Err("is of a kind that can have no ID token for an audience; one that impersonates a service account can".into());
    }
    let scopes = if then.is_some() { TO_IMPERSONATE.to_owned() } else { wanted.scopes.join(" ") };
    match kind(file) {
        "authorized_user" => Ok((Base::User(Box::new(user(file, reading, wanted.place)?)), then)),
        "external_account" => Ok((Base::External(Box::new(external(file, &scopes, reading, wanted.place)?)), then)),
        "impersonated_service_account" => match file.get("source_credentials") {
            Some(Value::Object(source)) if kind(source) == "authorized_user" && then.is_some() => {
                Ok((Base::User(Box::new(user(source, reading, wanted.place)?)), then))
            }
            Some(Value::Object(source)) if kind(source) == "external_account" && then.is_some() => {
                Ok((Base::External(Box::new(external(source, &scopes, reading, wanted.place)?)), then))
            }
            _ => Err("impersonates from something other than a user or a federated identity, which is not known here".into()),
        },
        "" => Err("says no `type`".into()),
        _ => {
            Err("is of a `type` that is not known here (service_account, authorized_user, external_account, impersonated_service_account)"
                .into())
        }
    }
}

/// What no identity without a key can do.
fn judge(wanted: &Wanted) -> Result<(), String> {
    if wanted.mode == Mode::SelfSignedJwt {
        return Err("has no key, and a self-signed JWT needs one".into());
    }
    if wanted.subject.is_some() {
        return Err("has no key, and acting for a `subject` needs one".into());
    }
    Ok(())
}

/// A call with what the calls of one reading share.
fn call(endpoint: Endpoint, method: Method, shape: Shape, mapping: Mapping, reading: Reading<'_>) -> Call {
    Call {
        endpoint,
        method,
        shape,
        headers: Vec::new(),
        params: Vec::new(),
        renames: Vec::new(),
        client: Client::nobody(),
        mapping,
        time: reading.context.head.min(PATIENCE),
        settings: reading.context.settings.clone(),
    }
}

fn endpoint(url: &str, reading: Reading<'_>, place: Place) -> Result<Endpoint, String> {
    // What is wrong with the URL itself is reported beside this.
    Endpoint::of(url, place, None, reading.context, reading.problems).ok_or_else(|| "holds a URL that cannot be used".to_owned())
}

/// A user who has signed in with gcloud.
fn user(file: &Map<String, Value>, reading: Reading<'_>, place: Place) -> Result<Oauth, String> {
    let text = |name: &str| {
        let text = file.get(name).and_then(Value::as_str).filter(|v| !v.is_empty());
        text.map(|t| Secret::new(t.to_owned())).ok_or_else(|| format!("lacks `{name}`"))
    };
    let url = file.get("token_uri").and_then(Value::as_str).unwrap_or(USERS_TOKEN_URL);
    let mut call = call(endpoint(url, reading, place)?, Method::POST, Shape::Form, Mapping::default(), reading);
    call.client = Client::given(text("client_id")?, text("client_secret")?, Usual::Post);
    Ok(Oauth::refreshing(call, text("refresh_token")?))
}

/// Another cloud's identity, exchanged at Google's security token service (RFC 8693).
fn external(file: &Map<String, Value>, scopes: &str, reading: Reading<'_>, place: Place) -> Result<External, String> {
    let text = |name: &str| file.get(name).and_then(Value::as_str).filter(|v| !v.is_empty());
    let need = |name: &str| text(name).ok_or_else(|| format!("lacks `{name}`"));
    let mut form = Form::default();
    form.set("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange");
    form.set("audience", need("audience")?);
    form.set("scope", scopes);
    form.set("requested_token_type", "urn:ietf:params:oauth:token-type:access_token");
    form.set("subject_token_type", need("subject_token_type")?);
    let mut call = call(endpoint(need("token_url")?, reading, place)?, Method::POST, Shape::Form, Mapping::default(), reading);
    match (text("client_id"), text("client_secret")) {
        (Some(id), Some(secret)) => {
            call.client = Client::given(Secret::new(id.to_owned()), Secret::new(secret.to_owned()), Usual::Basic);
        }
        _ => {
            if let Some(project) = text("workforce_pool_user_project") {
                form.set("options", json!({ "userProject": project }).to_string());
            }
        }
    }
    let source = file.get("credential_source").and_then(Value::as_object).ok_or("lacks `credential_source`")?;
    Ok(External { subject: subject(source, reading, place)?, call, form })
}

fn subject(source: &Map<String, Value>, reading: Reading<'_>, place: Place) -> Result<Subject, String> {
    let text = |name: &str| source.get(name).and_then(Value::as_str).filter(|v| !v.is_empty());
    let format = source.get("format").and_then(Value::as_object);
    let said = |name: &str| format.and_then(|f| f.get(name)).and_then(Value::as_str);
    let format = match said("type") {
        None | Some("text") => Format::Text,
        Some("json") => Format::Json(said("subject_token_field_name").ok_or("lacks `subject_token_field_name`")?.to_owned()),
        Some(_) => return Err("has a `format` that is neither text nor json".into()),
    };
    if text("environment_id").is_some() {
        return Err("takes its subject from AWS's own metadata, which is not built into this version; a file or a url serves".into());
    }
    if let Some(path) = text("file") {
        return Ok(Subject::File(PathBuf::from(path), format));
    }
    let Some(url) = text("url") else {
        return Err("has a `credential_source` that is not known here: `file` or `url`".into());
    };
    let endpoint = Endpoint::of_machine(url, place, reading.context, reading.problems).ok_or("holds a URL that cannot be used")?;
    let origin = endpoint.origin();
    let local = origin.is_loopback() || matches!(origin.ip(), Some(IpAddr::V4(v4)) if v4.is_link_local());
    if !origin.is_https() && !local && !reading.context.allow_http {
        return Err("takes its subject over plain http from a host that is not this machine's".into());
    }
    let headers = source.get("headers").and_then(Value::as_object).into_iter().flatten();
    let headers = headers.map(|(name, value)| {
        let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
        Some((name, HeaderValue::from_str(value.as_str()?).ok()?))
    });
    let headers: Option<Vec<_>> = headers.take(HEADERS_MAX + 1).collect();
    let headers = headers.filter(|h| h.len() <= HEADERS_MAX).ok_or("has `headers` that cannot be sent")?;
    Ok(Subject::Url { endpoint, headers, format, time: reading.context.head.min(PATIENCE) })
}

/// Becoming a service account, with a token that may.
fn impersonation(url: &str, file: &Map<String, Value>, wanted: &Wanted, reading: Reading<'_>) -> Result<Impersonation, String> {
    const ACCESS: &str = ":generateAccessToken";
    let json = |path: &str| Path::parse(path).map_err(|_| "cannot be mapped".to_owned());
    let mut form = Form::default();
    if let Some(delegates) = file.get("delegates").filter(|d| d.is_array()) {
        form.set("delegates", FormValue::Json(delegates.clone()));
    }
    let (url, mapping) = if wanted.mode == Mode::IdToken {
        let Some(account) = url.strip_suffix(ACCESS) else {
            return Err(format!("has an impersonation URL that does not end in `{ACCESS}`"));
        };
        form.set("audience", wanted.audience.clone().unwrap_or_default());
        form.set("includeEmail", FormValue::Json(Value::Bool(true)));
        (format!("{account}:generateIdToken"), Mapping::at(json("json.token")?, None))
    } else {
        let asked = file.get("service_account_impersonation").and_then(|i| i.get("token_lifetime_seconds")).and_then(Value::as_u64);
        form.set("scope", FormValue::Json(wanted.scopes.clone().into()));
        form.set("lifetime", format!("{}s", asked.unwrap_or(3600)));
        (url.to_owned(), Mapping::at(json("json.accessToken")?, Some(json("json.expireTime")?)))
    };
    let call = call(endpoint(&url, reading, wanted.place)?, Method::POST, Shape::Json, mapping, reading);
    Ok(Impersonation { call, form })
}

/// The metadata server of the machine.
fn machine(host: &str, wanted: &Wanted, reading: Reading<'_>) -> Option<Call> {
    if let Err(why) = judge(wanted) {
        reading.problems.error(wanted.place, format!("the ambient identity {why}"), "key: \"${file:service-account.json}\"");
        return None;
    }
    let account = format!("http://{host}/computeMetadata/v1/instance/service-accounts/default");
    let encoded = |text: &str| crate::uri::encode_query(text);
    let (url, mapping) = match &wanted.audience {
        Some(audience) if wanted.mode == Mode::IdToken => {
            let token = Path::parse(&format!("regex.body.{JWT}")).ok()?;
            (format!("{account}/identity?audience={}&format=full", encoded(audience)), Mapping::at(token, None))
        }
        _ => (format!("{account}/token?scopes={}", encoded(&wanted.scopes.join(","))), Mapping::default()),
    };
    let endpoint = Endpoint::of_machine(&url, wanted.place, reading.context, reading.problems)?;
    let mut call = call(endpoint, Method::GET, Shape::Query, mapping, reading);
    call.headers = vec![(HeaderName::from_static(FLAVOR.0), Some(Written::Ready(HeaderValue::from_static(FLAVOR.1))))];
    Some(call)
}
