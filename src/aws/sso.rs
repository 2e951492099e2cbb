//! IAM Identity Center: the token that `aws sso login` left in its cache, renewed where it can be, and the credentials that
//! it buys. Logging in takes a person, and is not done here.

use aws_lc_rs::digest;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderName, HeaderValue, Request, StatusCode};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::ambient::{self, Ambient};
use super::post::Endpoint;
use super::profile::Sso;
use super::{BOUNDS, Credentials, Fault, moment};
use crate::clock::Clock;
use crate::hex::hex;
use crate::net::{self, Reach};
use crate::secret::Secret;
use crate::uri::encode_query;

const BEARER: HeaderName = HeaderName::from_static("x-amz-sso_bearer_token");
const WHAT: &str = "IAM Identity Center";
/// A token that ends this soon is renewed first, in milliseconds.
const SOON: u64 = 5 * 60 * 1000;
const LOGIN: &str = "a person must run `aws sso login`";

/// Buys credentials.
pub async fn credentials(sso: &Sso, ambient: &Ambient, clock: &Clock) -> Result<Credentials, Fault> {
    let token = token(sso, ambient, clock).await?;
    let endpoint = endpoint(ambient, "AWS_ENDPOINT_URL_SSO", &format!("portal.sso.{}", sso.region), &sso.region)?;
    let (role, account) = (encode_query(&sso.role), encode_query(&sso.account));
    let path = format!("{}/federation/credentials?role_name={role}&account_id={account}", endpoint.path.trim_end_matches('/'));
    let mut bearer = HeaderValue::from_str(&token).map_err(|_| Fault::Refused(format!("{WHAT}: its token holds what no header may")))?;
    bearer.set_sensitive(true);
    let request = Request::get(path).header(BEARER, bearer).body(Bytes::new());
    let request = request.map_err(|_| Fault::Refused(format!("{WHAT} cannot be asked like this")))?;
    let answer = net::fetch(&endpoint.upstream, request, BOUNDS).await.map_err(|error| Fault::down(WHAT, &error))?;
    let body: Value = serde_json::from_slice(answer.body()).unwrap_or_default();
    match answer.status() {
        StatusCode::OK => {}
        StatusCode::UNAUTHORIZED => return Err(Fault::Refused(format!("{WHAT} does not take the session any more: {LOGIN}"))),
        status => return Err(Fault::answered(WHAT, status, body["__type"].as_str().unwrap_or_default())),
    }
    let given = &body["roleCredentials"];
    let text = |name: &str| given[name].as_str().filter(|text| !text.is_empty()).map(str::to_owned);
    let read = || {
        Some(Credentials {
            id: text("accessKeyId")?,
            secret: Secret::new(text("secretAccessKey")?),
            session: Some(Secret::new(text("sessionToken")?)),
            // Milliseconds already.
            expires: Some(given["expiration"].as_u64()?),
        })
    };
    read().ok_or_else(|| Fault::Down(format!("{WHAT} answers without credentials")))
}

fn endpoint(ambient: &Ambient, variable: &str, host: &str, region: &str) -> Result<Endpoint, Fault> {
    if !super::sts::is_region(region) {
        return Err(Fault::Refused(format!("{WHAT}: `sso_region` is no region")));
    }
    let url = ambient.get(variable).map_or_else(|| format!("https://{host}.{}", super::sts::domain(region)), str::to_owned);
    Endpoint::new(&url, Reach::Written, None).map_err(|why| Fault::Refused(format!("{WHAT}: {why}")))
}

/// The token in the cache, renewed if it ends soon. What a renewal gives is not written back: the file is the tool's own,
/// and its refresh token stays good.
async fn token(sso: &Sso, ambient: &Ambient, clock: &Clock) -> Result<Zeroizing<String>, Fault> {
    let gone = || Fault::Refused(format!("{WHAT}: there is no session in the cache: {LOGIN}"));
    let name = hex(digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, sso.cache.as_bytes()).as_ref());
    let path = ambient.path(&format!("~/.aws/sso/cache/{name}.json"));
    let text = ambient::read(path).await.ok_or_else(gone)?;
    let cached: Value = serde_json::from_str(&text).map_err(|_| gone())?;
    let part = |name: &str| cached[name].as_str().filter(|text| !text.is_empty());
    let (Some(token), Some(ends)) = (part("accessToken"), part("expiresAt").and_then(moment)) else { return Err(gone()) };
    let now = clock.millis();
    let token = Zeroizing::new(token.to_owned());
    if now + SOON < ends {
        return Ok(token);
    }
    let (Some(client), Some(secret), Some(refresh)) = (part("clientId"), part("clientSecret"), part("refreshToken")) else {
        return if now < ends { Ok(token) } else { Err(Fault::Refused(format!("{WHAT}: the session has ended: {LOGIN}"))) };
    };
    let endpoint = endpoint(ambient, "AWS_ENDPOINT_URL_SSO_OIDC", &format!("oidc.{}", sso.region), &sso.region)?;
    let body = json!({ "clientId": client, "clientSecret": secret, "grantType": "refresh_token", "refreshToken": refresh }).to_string();
    let request = Request::post(format!("{}/token", endpoint.path.trim_end_matches('/'))).header(CONTENT_TYPE, "application/json");
    let request = request.body(Bytes::from(body)).map_err(|_| gone())?;
    match net::fetch(&endpoint.upstream, request, BOUNDS).await {
        Ok(answer) if answer.status() == StatusCode::OK => {
            let body: Value = serde_json::from_slice(answer.body()).unwrap_or_default();
            let fresh = body["accessToken"].as_str().filter(|token| !token.is_empty()).map(|token| Zeroizing::new(token.to_owned()));
            fresh.ok_or_else(|| Fault::Down(format!("{WHAT} renews the session without a token")))
        }
        // The old one is good for a little while.
        _ if now < ends => Ok(token),
        Ok(answer) if answer.status().is_client_error() => Err(Fault::Refused(format!("{WHAT} does not renew the session: {LOGIN}"))),
        Ok(answer) => Err(Fault::answered(WHAT, answer.status(), "")),
        Err(error) => Err(Fault::down(WHAT, &error)),
    }
}
