//! TLS towards upstreams: whom to trust, and for which name.

use std::sync::{Arc, OnceLock};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::version::{TLS12, TLS13};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, OtherError, RootCertStore, SignatureScheme, SupportedProtocolVersion};
use rustls_platform_verifier::Verifier;

use super::certificate::Certificate;
use super::settings::Versions;
use crate::tree::{Fields, Folders, Node, Problems};

static BOTH: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];
static NEWEST: [&SupportedProtocolVersion; 1] = [&TLS13];
/// Largest bundle of authorities.
const CA_BYTES_MAX: u64 = 4 << 20;

/// What `tls` of a resource says.
#[derive(Clone, Debug)]
pub struct Config {
    /// The name that the certificate must be for, where it is not the host's.
    pub server_name: Option<String>,
    /// The settings of the library.
    pub clients: Clients,
}

/// The settings of the library, once for each choice of versions that a handshake may offer.
#[derive(Clone, Debug)]
pub struct Clients([Arc<ClientConfig>; 3]);

const CHOICES: [Versions; 3] = [Versions::One, Versions::Two, Versions::Both];

impl Clients {
    fn new(config: &ClientConfig) -> Self {
        Self(CHOICES.map(|versions| {
            let mut config = config.clone();
            config.alpn_protocols = versions.alpn();
            Arc::new(config)
        }))
    }

    /// The same, but with this certificate where the other end asks for one. Sessions are not shared with others: one that
    /// is resumed is still its first client's.
    fn showing(&self, certificate: &Certificate) -> Self {
        let resumption = Resumption::default();
        Self(self.0.clone().map(|config| {
            let mut config = Arc::unwrap_or_clone(config);
            config.client_auth_cert_resolver = certificate.resolver();
            config.resumption = resumption.clone();
            Arc::new(config)
        }))
    }

    /// Those that offer these versions.
    pub fn speaking(&self, versions: Versions) -> Arc<ClientConfig> {
        let [one, two, both] = &self.0;
        match versions {
            Versions::One => one.clone(),
            Versions::Two => two.clone(),
            Versions::Both => both.clone(),
        }
    }
}

/// The settings of a resource that says nothing: the platform's trust, made once.
///
/// # Errors
/// If the library refuses its own defaults.
pub fn ordinary(versions: Versions) -> Result<Arc<ClientConfig>, rustls::Error> {
    usual().map(|clients| clients.speaking(versions))
}

fn usual() -> Result<&'static Clients, rustls::Error> {
    static ORDINARY: OnceLock<Result<Clients, rustls::Error>> = OnceLock::new();
    ORDINARY.get_or_init(|| Ok(client(&BOTH, platform()?))).as_ref().map_err(Clone::clone)
}

/// The one provider of cryptography.
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    PROVIDER.get_or_init(|| Arc::new(aws_lc_rs::default_provider())).clone()
}

fn client(versions: &[&'static SupportedProtocolVersion], verifier: Arc<dyn ServerCertVerifier>) -> Clients {
    let builder = ClientConfig::builder_with_provider(provider());
    // The provider has suites for both versions, so this cannot fail; should it, the provider's defaults hold.
    let builder = match builder.with_protocol_versions(versions) {
        Ok(builder) => builder,
        Err(_) => ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap_or_else(|_| ClientConfig::builder()),
    };
    Clients::new(&builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth())
}

/// The platform's authorities; Mozilla's where the platform has none.
fn platform() -> Result<Arc<dyn ServerCertVerifier>, rustls::Error> {
    match Verifier::new(provider()) {
        Ok(verifier) => Ok(Arc::new(verifier)),
        Err(error) => {
            tracing::info!("the platform has no certificate authorities ({error}); Mozilla's are used");
            let roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
            authorities(roots)
        }
    }
}

fn authorities(roots: RootCertStore) -> Result<Arc<dyn ServerCertVerifier>, rustls::Error> {
    let built = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider()).build();
    built.map(|v| v as Arc<dyn ServerCertVerifier>).map_err(|error| rustls::Error::General(error.to_string()))
}

impl Config {
    /// These settings, or the usual ones, and this certificate where the other end asks for one.
    ///
    /// # Errors
    /// If the library refuses its own defaults.
    pub fn showing(trust: Option<&Self>, certificate: &Certificate) -> Result<Self, rustls::Error> {
        match trust {
            Some(trust) => Ok(Self { server_name: trust.server_name.clone(), clients: trust.clients.showing(certificate) }),
            None => Ok(Self { server_name: None, clients: usual()?.showing(certificate) }),
        }
    }

    /// Reads `tls` of a resource.
    pub fn read(node: &Node, folders: &Folders, problems: &Problems) -> Option<Self> {
        let fields = Fields::of(node, "a map of TLS settings", problems)?;
        let roots = fields.node("ca").map(|n| roots(n, folders, problems));
        let verify = fields.flag("verify", true);
        if !verify {
            problems.warn(
                fields.key_place("verify"),
                "the upstream's certificate is not verified: anyone on the way can read the credential",
                "use `ca` for an authority of your own",
            );
        }
        let server_name = fields.node("server_name").and_then(|n| name(n, problems));
        let versions: &[_] = fields.choice("min_version", &[("1.2", &BOTH[..]), ("1.3", &NEWEST[..])], &BOTH);
        let pins: Vec<[u8; 32]> = fields.items("pin_sha256").iter().filter_map(|n| pin(n, problems)).collect();
        fields.finish();
        let inner = match roots {
            Some(roots) => authorities(roots?),
            None => platform(),
        };
        let inner = inner.map_err(|error| problems.error(node.place, format!("TLS cannot be set up: {error}"), "")).ok()?;
        let verifier: Arc<dyn ServerCertVerifier> =
            if verify && pins.is_empty() { inner } else { Arc::new(Checked { inner: verify.then_some(inner), pins }) };
        Some(Self { server_name, clients: client(versions, verifier) })
    }
}

fn name(node: &Node, problems: &Problems) -> Option<String> {
    let text = node.text(problems)?;
    if ServerName::try_from(text.as_str()).is_err() {
        problems.error(node.place, format!("{} is not a host name", node.shown()), "");
        return None;
    }
    Some(text)
}

/// A bundle by its path, or its PEM by a reference. What cannot be read is an error: there is no falling back to others.
fn roots(node: &Node, folders: &Folders, problems: &Problems) -> Option<RootCertStore> {
    let text = node.text(problems)?;
    let refuse = |why: String, hint: &str| {
        problems.error(node.place, why, hint);
        None
    };
    let pem = if text.contains("-----BEGIN") {
        text.into_bytes()
    } else {
        let path = folders.join(node.place, &text);
        let (seen, read) = crate::file::read(&path, CA_BYTES_MAX);
        problems.saw(seen);
        match read {
            Ok(pem) => pem,
            Err(error) => {
                return refuse(format!("{} cannot be read: {error}", node.shown()), "a PEM file, relative to the file that names it");
            }
        }
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let Ok(certificate) = certificate else {
            return refuse("this is not a PEM certificate".into(), "a file of `-----BEGIN CERTIFICATE-----` blocks");
        };
        if let Err(error) = roots.add(certificate) {
            return refuse(format!("a certificate of the bundle cannot be used: {error}"), "");
        }
    }
    if roots.is_empty() {
        return refuse("there is no certificate in it".into(), "a file of `-----BEGIN CERTIFICATE-----` blocks");
    }
    Some(roots)
}

fn pin(node: &Node, problems: &Problems) -> Option<[u8; 32]> {
    let text = node.text(problems)?;
    let bytes = STANDARD.decode(text.trim_start_matches("sha256/")).ok().and_then(|b| <[u8; 32]>::try_from(b).ok());
    if bytes.is_none() {
        problems.error(
            node.place,
            "a pin is the base64 of 32 bytes",
            "openssl x509 -in cert.pem -pubkey -noout | openssl pkey -pubin -outform der | openssl dgst -sha256 -binary | base64",
        );
    }
    bytes
}

/// The upstream's key is none of the pinned ones.
#[derive(Debug)]
pub struct PinMismatch;

impl std::fmt::Display for PinMismatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the key is not pinned")
    }
}

impl std::error::Error for PinMismatch {}

/// Verification with pins, or, where the operator has switched it off, pins alone.
#[derive(Debug)]
struct Checked {
    inner: Option<Arc<dyn ServerCertVerifier>>,
    pins: Vec<[u8; 32]>,
}

impl ServerCertVerifier for Checked {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if let Some(inner) = &self.inner {
            inner.verify_server_cert(leaf, chain, name, ocsp, now)?;
        }
        if !self.pins.is_empty() {
            let parsed =
                webpki::EndEntityCert::try_from(leaf).map_err(|_| rustls::Error::InvalidCertificate(CertificateError::BadEncoding))?;
            let key = parsed.subject_public_key_info();
            let digest = ::aws_lc_rs::digest::digest(&::aws_lc_rs::digest::SHA256, &key);
            if !self.pins.iter().any(|pin| pin == digest.as_ref()) {
                return Err(rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(PinMismatch)))));
            }
        }
        Ok(ServerCertVerified::assertion())
    }

    // The signature of the handshake is always verified: it proves that the peer holds the key that was pinned or shown.
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signed, &provider().signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signed, &provider().signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}
