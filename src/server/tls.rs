//! TLS towards clients: a certificate and its key, HTTP/2 or HTTP/1.1 by ALPN.

use std::io;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use crate::config::listen::Tls;

/// An acceptor for what the configuration names.
///
/// # Errors
/// If the certificate or the key cannot be read, or do not belong together. The text holds nothing of the key.
pub fn acceptor(tls: &Tls) -> io::Result<TlsAcceptor> {
    let wrong = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
    let pem = std::fs::read(&tls.cert).map_err(|error| wrong(format!("{}: {error}", tls.cert.display())))?;
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(|_| wrong(format!("{} is not a PEM certificate chain", tls.cert.display())))?;
    if chain.is_empty() {
        return Err(wrong(format!("{} holds no certificate", tls.cert.display())));
    }
    let key = PrivateKeyDer::from_pem_slice(tls.key.expose().as_bytes())
        .map_err(|_| wrong("the listener's key is not a PEM private key".into()))?;
    let mut config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| wrong(format!("{}: {error}", tls.cert.display())))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
