//! One new connection: name, address, TCP, TLS. All of it within `timeouts.connect`.

use std::net::SocketAddr;
use std::time::Duration;

use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::guard::{self, Reach};
use super::settings::Versions;
use super::{failure, tls};
use crate::error::{Error, Stage, TlsFault, Unreachable};
use crate::net::Origin;

/// Most addresses of one name that are tried.
const ADDRESSES_MAX: usize = 6;
/// After so much silence the system asks whether the other end is still there.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// A connection, plain or TLS.
pub enum Connected {
    /// TCP.
    Plain(TcpStream),
    /// TLS over TCP.
    Tls(Box<TlsStream<TcpStream>>),
}

/// What a connection is made with, besides where it leads.
#[derive(Clone, Copy)]
pub struct Terms<'t> {
    /// The resource's own TLS settings.
    pub tls: Option<&'t tls::Config>,
    /// What is offered over TLS.
    pub versions: Versions,
    /// Which addresses may be dialled.
    pub reach: Reach,
}

/// Dials within `patience`.
///
/// # Errors
/// What went wrong, told apart; [`Stage::Connect`] when time ran out.
pub async fn dial(origin: &Origin, terms: Terms<'_>, patience: Duration) -> Result<Connected, Error> {
    match tokio::time::timeout(patience, connect(origin, terms, patience)).await {
        Ok(result) => result,
        Err(_) => Err(Error::Timeout(Stage::Connect)),
    }
}

async fn connect(origin: &Origin, terms: Terms<'_>, patience: Duration) -> Result<Connected, Error> {
    let addresses = resolve(origin, terms.reach).await?;
    let stream = tcp(&addresses, patience).await?;
    if !origin.is_https() {
        return Ok(Connected::Plain(stream));
    }
    Ok(Connected::Tls(Box::new(secure(origin, terms, stream).await?)))
}

/// TLS over a connection.
pub(super) async fn secure(origin: &Origin, terms: Terms<'_>, stream: TcpStream) -> Result<TlsStream<TcpStream>, Error> {
    let Terms { tls, versions, .. } = terms;
    let (config, name) = match tls {
        Some(tls) => (tls.clients.speaking(versions), tls.server_name.as_deref().unwrap_or(origin.host())),
        None => (tls::ordinary(versions).map_err(|error| Error::Internal(format!("TLS cannot be set up: {error}")))?, origin.host()),
    };
    let name = ServerName::try_from(name.to_owned()).map_err(|_| Error::Tls(TlsFault::WrongName))?;
    TlsConnector::from(config).connect(name, stream).await.map_err(|error| failure::handshake(&error))
}

/// The addresses of an origin that may be dialled.
pub(super) async fn resolve(origin: &Origin, reach: Reach) -> Result<Vec<SocketAddr>, Error> {
    if let Some(ip) = origin.ip() {
        return guard::allowed([SocketAddr::new(ip, origin.port())], reach);
    }
    let found = tokio::net::lookup_host((origin.host(), origin.port())).await;
    let found: Vec<SocketAddr> = found.map_err(|_| Error::Dns(origin.host().to_owned()))?.collect();
    if found.is_empty() {
        return Err(Error::Dns(origin.host().to_owned()));
    }
    let mut allowed = guard::allowed(interleave(found), reach)?;
    allowed.truncate(ADDRESSES_MAX);
    Ok(allowed)
}

/// Alternates families, so that a dead one costs one try (RFC 8305 section 4).
fn interleave(found: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_v6 = found.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) = found.into_iter().partition(|a| a.is_ipv6() == first_is_v6);
    let longest = first.len().max(second.len());
    (0..longest).flat_map(|i| [first.get(i).copied(), second.get(i).copied()]).flatten().collect()
}

/// A TCP connection to the first address that answers.
pub(super) async fn tcp(addresses: &[SocketAddr], patience: Duration) -> Result<TcpStream, Error> {
    let mut last = Error::Unreachable(Unreachable::Refused);
    for (tried, address) in addresses.iter().enumerate() {
        // Each gets its share of the time, so that the last one gets a chance.
        let share = patience / u32::try_from(addresses.len() - tried).unwrap_or(1);
        match tokio::time::timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                prepare(&stream);
                return Ok(stream);
            }
            Ok(Err(error)) => last = failure::connecting(&error),
            Err(_) => last = Error::Timeout(Stage::Connect),
        }
    }
    Err(last)
}

/// A connection works without these, only worse.
fn prepare(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
    let _ = SockRef::from(stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_take_turns() {
        let addresses = ["[::1]:1", "[::2]:1", "1.1.1.1:1"].map(|a| a.parse::<SocketAddr>().unwrap()).to_vec();
        let shown: Vec<String> = interleave(addresses).iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["[::1]:1", "1.1.1.1:1", "[::2]:1"]);
    }
}
