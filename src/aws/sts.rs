//! Temporary credentials from AWS STS: `AssumeRole`, signed, and `AssumeRoleWithWebIdentity`, which needs no keys.

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderValue, Request, StatusCode};
use zeroize::Zeroizing;

use super::ambient::Ambient;
use super::post::{self, Endpoint, Scope};
use super::{BOUNDS, Credentials, Fault, moment};
use crate::clock::Clock;
use crate::net::{self, Reach, tls};
use crate::secret::Secret;
use crate::uri::encode_query;
use crate::xml::{self, Event, Scanner};

const VERSION: &str = "2011-06-15";
const FORM: HeaderValue = HeaderValue::from_static("application/x-www-form-urlencoded; charset=utf-8");
const XML: HeaderValue = HeaderValue::from_static("text/xml");

/// STS in one region.
#[derive(Clone, Debug)]
pub struct Sts {
    endpoint: Endpoint,
    region: String,
}

/// A role, and what its trust policy may ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Role {
    /// `RoleArn`.
    pub arn: String,
    /// `RoleSessionName`.
    pub session: String,
    /// `ExternalId`.
    pub external: Option<String>,
    /// `DurationSeconds`; the service's own default is an hour.
    pub seconds: Option<u64>,
}

impl Sts {
    /// STS of a region, or at `url`, or where `AWS_ENDPOINT_URL_STS` says (ruling E21).
    ///
    /// # Errors
    /// What is wrong with the address.
    pub fn new(region: &str, url: Option<&str>, ambient: &Ambient, tls: Option<tls::Config>) -> Result<Self, String> {
        if !is_region(region) {
            return Err("the region is none".into());
        }
        let ignored = ambient.get("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS") == Some("true");
        let set = || ambient.get("AWS_ENDPOINT_URL_STS").or_else(|| ambient.get("AWS_ENDPOINT_URL")).filter(|_| !ignored);
        let url = match url.or_else(set) {
            Some(url) => url.to_owned(),
            None => format!("https://sts.{region}.{}", domain(region)),
        };
        let endpoint = Endpoint::new(&url, Reach::Written, tls)?;
        Ok(Self { endpoint, region: region.to_owned() })
    }

    /// Assumes a role with these credentials.
    ///
    /// # Errors
    /// Why there are none.
    pub async fn assume(&self, role: &Role, with: &Credentials, clock: &Clock) -> Result<Credentials, Fault> {
        let body = self.form("AssumeRole", role, None);
        let mut request = self.request(body)?;
        let scope = Scope { service: "sts", region: &self.region };
        let host = self.endpoint.upstream.origin().authority().clone();
        post::sign(&mut request, &host, scope, with, clock.wall()).map_err(|why| Fault::Refused(why.into()))?;
        self.ask(request, "AssumeRole").await
    }

    /// Assumes a role with a token of an OpenID issuer.
    ///
    /// # Errors
    /// Why there are none.
    pub async fn assume_with_token(&self, role: &Role, token: &str) -> Result<Credentials, Fault> {
        let body = self.form("AssumeRoleWithWebIdentity", role, Some(token));
        self.ask(self.request(body)?, "AssumeRoleWithWebIdentity").await
    }

    fn form(&self, action: &str, role: &Role, token: Option<&str>) -> Zeroizing<String> {
        let mut form = Zeroizing::new(format!("Action={action}&Version={VERSION}"));
        let seconds = role.seconds.map(|seconds| seconds.to_string());
        let fields = [
            ("RoleArn", Some(role.arn.as_str())),
            ("RoleSessionName", Some(role.session.as_str())),
            ("ExternalId", role.external.as_deref()),
            ("DurationSeconds", seconds.as_deref()),
            ("WebIdentityToken", token),
        ];
        for (name, value) in fields {
            let Some(value) = value else { continue };
            form.push_str(&["&", name, "=", &encode_query(value)].concat());
        }
        form
    }

    fn request(&self, body: Zeroizing<String>) -> Result<Request<Bytes>, Fault> {
        let request = Request::post(self.endpoint.path.as_str()).header(CONTENT_TYPE, FORM).header(ACCEPT, XML);
        request.body(Bytes::from(body.as_bytes().to_vec())).map_err(|_| Fault::Refused("STS cannot be asked at this address".into()))
    }

    async fn ask(&self, request: Request<Bytes>, action: &str) -> Result<Credentials, Fault> {
        let what = format!("STS ({action})");
        let answer = net::fetch(&self.endpoint.upstream, request, BOUNDS).await.map_err(|error| Fault::down(&what, &error))?;
        let text = String::from_utf8_lossy(answer.body());
        if answer.status() != StatusCode::OK {
            return Err(Fault::answered(&what, answer.status(), &element(&text, "Code").unwrap_or_default()));
        }
        let part = |name: &str| element(&text, name).filter(|text| !text.is_empty());
        let read = || {
            Some(Credentials {
                id: part("AccessKeyId")?.to_string(),
                secret: Secret::new(part("SecretAccessKey")?.to_string()),
                session: Some(Secret::new(part("SessionToken")?.to_string())),
                expires: Some(moment(&part("Expiration")?)?),
            })
        };
        read().ok_or_else(|| Fault::Down(format!("{what} answers without credentials")))
    }
}

/// Whether this can be a region: it becomes a part of a host's name.
pub fn is_region(text: &str) -> bool {
    !text.is_empty() && text.len() <= 32 && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// The domain of a region's partition.
pub fn domain(region: &str) -> &'static str {
    match region.split('-').next() {
        Some("cn") => "amazonaws.com.cn",
        _ => "amazonaws.com",
    }
}

/// The text of the first element of this name; none where the document breaks off before its end.
fn element(document: &str, name: &str) -> Option<Zeroizing<String>> {
    let mut scanner = Scanner::new(document);
    let mut text: Option<Zeroizing<String>> = None;
    let mut done = false;
    while let Some(event) = scanner.event().ok()? {
        match event {
            Event::Start { name: tag, empty, .. } if text.is_none() && xml::local(tag) == name => {
                text = Some(Zeroizing::default());
                done = empty;
            }
            Event::Text(part) if !done => {
                let part = xml::unescaped(part).ok()?;
                if let Some(text) = &mut text {
                    text.push_str(&part);
                }
            }
            Event::End { .. } => done |= text.is_some(),
            _ => {}
        }
    }
    text
}
