//! The role of an EC2 instance, from its metadata service in version 2: a token first, then the role's name, then its
//! credentials. Version 1, which gives them to whoever can make the machine send a GET, is not asked.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode};

use super::ambient::Ambient;
use super::post::Endpoint;
use super::{BOUNDS, Credentials, Fault, of_json};
use crate::net::{self, Bounds, Reach};

const USUAL: &str = "http://169.254.169.254";
const USUAL_V6: &str = "http://[fd00:ec2::254]";
const ROLES: &str = "/latest/meta-data/iam/security-credentials/";
const TOKEN: HeaderName = HeaderName::from_static("x-aws-ec2-metadata-token");
const TOKEN_LIFE: HeaderName = HeaderName::from_static("x-aws-ec2-metadata-token-ttl-seconds");
/// How long the service's own token is good for; it is used at once.
const SHORT: HeaderValue = HeaderValue::from_static("60");
/// Elsewhere than on EC2 nobody answers at that address, and nobody should wait long to learn that.
const FIRST: Bounds = Bounds { time: std::time::Duration::from_secs(2), bytes: 1024 };
/// Longest name of a role.
const NAME_MAX: usize = 128;

/// Asks it; `None` where there is no such service.
pub async fn credentials(ambient: &Ambient) -> Result<Option<Credentials>, Fault> {
    if ambient.get("AWS_EC2_METADATA_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
        return Ok(None);
    }
    let v6 = ambient.get("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE").is_some_and(|mode| mode.eq_ignore_ascii_case("ipv6"));
    let written = ambient.get("AWS_EC2_METADATA_SERVICE_ENDPOINT").map(|url| url.trim_end_matches('/'));
    let url = written.unwrap_or(if v6 { USUAL_V6 } else { USUAL });
    let endpoint =
        Endpoint::new(url, Reach::Machine, None).map_err(|why| Fault::Refused(format!("the instance's metadata service: {why}")))?;
    let ask = async |method: Method, path: &str, name: HeaderName, value: HeaderValue, bounds: Bounds| {
        let mut request = Request::new(Bytes::new());
        *request.method_mut() = method;
        *request.uri_mut() = path.parse().map_err(|_| Fault::Down("a role's name that no URL may hold".into()))?;
        request.headers_mut().insert(name, value);
        net::fetch(&endpoint.upstream, request, bounds).await.map_err(|error| Fault::down(WHAT, &error))
    };
    let token = match ask(Method::PUT, "/latest/api/token", TOKEN_LIFE, SHORT, FIRST).await {
        Ok(answer) if answer.status() == StatusCode::OK => answer.into_body(),
        Ok(answer) => return Err(told(&answer)),
        // Nobody is there: this is no EC2 instance, unless somebody says where to ask.
        Err(error) => return if written.is_some() { Err(error) } else { Ok(None) },
    };
    let mut token = HeaderValue::from_maybe_shared(token).map_err(|_| Fault::Down(format!("{WHAT} gives no token")))?;
    token.set_sensitive(true);
    let roles = ask(Method::GET, ROLES, TOKEN, token.clone(), BOUNDS).await?;
    match roles.status() {
        StatusCode::OK => {}
        // An instance without a role.
        StatusCode::NOT_FOUND => return Ok(None),
        _ => return Err(told(&roles)),
    }
    let role = std::str::from_utf8(roles.body()).ok().and_then(|text| text.lines().next()).map(str::trim).unwrap_or_default();
    let good = |b: u8| b.is_ascii_alphanumeric() || b"+=,.@-_".contains(&b);
    if role.is_empty() || role.len() > NAME_MAX || !role.bytes().all(good) {
        return Err(Fault::Down(format!("{WHAT} names no role")));
    }
    let answer = ask(Method::GET, &[ROLES, role].concat(), TOKEN, token, BOUNDS).await?;
    if answer.status() != StatusCode::OK {
        return Err(told(&answer));
    }
    let json: serde_json::Value = serde_json::from_slice(answer.body()).unwrap_or_default();
    let given = Some(&json).filter(|json| json["Code"].as_str().is_none_or(|code| code == "Success"));
    match given.and_then(|json| of_json(json, "Token", "Expiration")) {
        Some(credentials) => Ok(Some(credentials)),
        None => Err(Fault::Down(format!("{WHAT} answers without credentials"))),
    }
}

const WHAT: &str = "the instance's metadata service";

fn told(answer: &Response<Bytes>) -> Fault {
    Fault::Down(format!("{WHAT} answers {}", answer.status().as_u16()))
}
