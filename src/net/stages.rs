//! The way to an upstream one stage at a time, for whoever wants to see where it ends. Each is what a call goes through.

use std::net::SocketAddr;

use tokio::net::TcpStream;

use super::dial;
use crate::error::{Error, Stage};
use crate::net::Upstream;

impl Upstream {
    /// The addresses that would be dialled.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn addresses(&self) -> Result<Vec<SocketAddr>, Error> {
        let resolving = dial::resolve(self.origin(), self.reach());
        tokio::time::timeout(self.patience(), resolving).await.unwrap_or(Err(Error::Timeout(Stage::Connect)))
    }

    /// A TCP connection to one of these.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn connected(&self, addresses: &[SocketAddr]) -> Result<TcpStream, Error> {
        let connecting = dial::tcp(addresses, self.patience());
        tokio::time::timeout(self.patience(), connecting).await.unwrap_or(Err(Error::Timeout(Stage::Connect)))
    }

    /// TLS over it, and what both sides agreed on: `TLSv1.3, h2`. `None` where the upstream is spoken to without.
    ///
    /// # Errors
    /// Why they do not agree, or why the other side is not trusted.
    pub async fn secured(&self, stream: TcpStream) -> Result<Option<String>, Error> {
        if !self.origin().is_https() {
            return Ok(None);
        }
        let securing = dial::secure(self.origin(), self.terms(self.versions(false)?), stream);
        let stream = tokio::time::timeout(self.patience(), securing).await.unwrap_or(Err(Error::Timeout(Stage::Connect)))?;
        let session = stream.get_ref().1;
        let version = session.protocol_version().map_or_else(String::new, |v| format!("{v:?}").replace('_', "."));
        let alpn = session.alpn_protocol().map(|p| String::from_utf8_lossy(p).into_owned());
        Ok(Some([version].into_iter().chain(alpn).collect::<Vec<_>>().join(", ")))
    }
}
