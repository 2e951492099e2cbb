//! An upstream that speaks TLS, with certificates made for the test.

use std::io::Write as _;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, PublicKeyData as _, date_time_ymd};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::{Seen, Upstream};

/// An authority of the test's own.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate with its key.
pub struct Identity {
    certificate: rcgen::Certificate,
    key: KeyPair,
}

impl Authority {
    pub fn new() -> Self {
        Self::named("an authority of the test")
    }

    /// One of another name: two of the same name are taken for one with a bad signature.
    pub fn named(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate for `name`; one that ended long ago if `expired`.
    pub fn issue(&self, name: &str, expired: bool) -> Identity {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        if expired {
            params.not_before = date_time_ymd(2020, 1, 1);
            params.not_after = date_time_ymd(2021, 1, 1);
        }
        let key = KeyPair::generate().unwrap();
        Identity { certificate: params.signed_by(&key, &self.0).unwrap(), key }
    }
}

impl Identity {
    pub fn pem(&self) -> String {
        self.certificate.pem()
    }

    pub fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }

    /// The base64 of the SHA-256 of the public key.
    pub fn pin(&self) -> String {
        use base64::Engine as _;
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &self.key.subject_public_key_info());
        base64::engine::general_purpose::STANDARD.encode(digest)
    }

    /// What a server needs to show it and to offer these protocols.
    pub fn server(&self, alpn: &[&[u8]]) -> Arc<ServerConfig> {
        let mut config = Arc::unwrap_or_clone(self.config(&[&rustls::version::TLS13, &rustls::version::TLS12]));
        config.alpn_protocols = alpn.iter().map(|p| p.to_vec()).collect();
        Arc::new(config)
    }

    fn config(&self, versions: &[&'static rustls::SupportedProtocolVersion]) -> Arc<ServerConfig> {
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.serialize_der()));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap();
        Arc::new(builder.with_no_client_auth().with_single_cert(vec![self.certificate.der().clone()], key).unwrap())
    }
}

/// Answers 200 to every request, over TLS of these versions.
pub fn upstream(identity: &Identity, versions: &[&'static rustls::SupportedProtocolVersion]) -> Upstream {
    let config = identity.config(versions);
    Upstream::raw(move |stream, number, seen| {
        let mut stream = StreamOwned::new(ServerConnection::new(config.clone()).unwrap(), stream);
        while let Some(request) = Seen::read(&mut stream, number) {
            seen.lock().unwrap().push(request);
            if stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").is_err() {
                break;
            }
        }
    })
}
