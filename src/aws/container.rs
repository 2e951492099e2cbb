//! The role of an ECS task or of an EKS pod (Pod Identity): one GET at the address that the platform puts into the
//! environment, with the token that it puts there too.

use std::net::IpAddr;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION};
use http::{HeaderValue, Request, StatusCode};

use super::ambient::{self, Ambient};
use super::post::Endpoint;
use super::{BOUNDS, Credentials, Fault, of_json};
use crate::net::{self, Reach};

const ECS: &str = "http://169.254.170.2";
/// Where plain http may go: ECS, EKS Pod Identity (section "container credentials" of AWS's SDK reference).
const PLATFORM: [&str; 3] = ["169.254.170.2", "169.254.170.23", "fd00:ec2::23"];
const WHAT: &str = "the container's credentials endpoint";

/// Asks it; `None` where the environment names none.
pub async fn credentials(ambient: &Ambient) -> Result<Option<Credentials>, Fault> {
    let refused = |why: String| Fault::Refused(format!("{WHAT}: {why}"));
    let relative = ambient.get("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI").map(|path| [ECS, path].concat());
    let Some(url) = relative.or_else(|| ambient.get("AWS_CONTAINER_CREDENTIALS_FULL_URI").map(str::to_owned)) else { return Ok(None) };
    let reach = if platform(&url) { Reach::Machine } else { Reach::Written };
    let endpoint = Endpoint::new(&url, reach, None).map_err(refused)?;
    let mut request = Request::get(endpoint.path.as_str()).header(ACCEPT, HeaderValue::from_static("application/json"));
    if let Some(token) = token(ambient).await? {
        let mut value = HeaderValue::from_str(&token).map_err(|_| refused("its token holds what no header may".into()))?;
        value.set_sensitive(true);
        request = request.header(AUTHORIZATION, value);
    }
    let request = request.body(Bytes::new()).map_err(|_| refused("its path is none".into()))?;
    let answer = net::fetch(&endpoint.upstream, request, BOUNDS).await.map_err(|error| Fault::down(WHAT, &error))?;
    let json: serde_json::Value = serde_json::from_slice(answer.body()).unwrap_or_default();
    if answer.status() != StatusCode::OK {
        return Err(Fault::Down(match Fault::answered(WHAT, answer.status(), json["code"].as_str().unwrap_or_default()) {
            Fault::Down(text) | Fault::Refused(text) => text,
        }));
    }
    of_json(&json, "Token", "Expiration").map(Some).ok_or_else(|| Fault::Down(format!("{WHAT} answers without credentials")))
}

/// The token is read each time: the platform replaces it in its file.
async fn token(ambient: &Ambient) -> Result<Option<zeroize::Zeroizing<String>>, Fault> {
    let Some(file) = ambient.get("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE") else {
        return Ok(ambient.get("AWS_CONTAINER_AUTHORIZATION_TOKEN").map(|token| token.to_owned().into()));
    };
    match ambient::read(ambient.path(file)).await {
        Some(token) => Ok(Some(token.trim_end().to_owned().into())),
        None => Err(Fault::Down(format!("{WHAT}: the file with its token cannot be read"))),
    }
}

fn platform(url: &str) -> bool {
    let host = url.split("://").nth(1).unwrap_or_default().split('/').next().unwrap_or_default();
    let host = match host.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    host.parse::<IpAddr>().is_ok_and(|address| PLATFORM.iter().any(|known| known.parse() == Ok(address)))
}
