//! TLS towards clients: the certificate and key that a listener shows, and whose certificates it asks for. Read and judged
//! when the configuration is loaded; a listener takes over what a reload has read without touching a connection.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, ServerConfig};
use zeroize::Zeroizing;

use super::certificate::{CERTIFICATE, Reader, chain, pem};
use super::tls::provider;
use crate::digest::{Digest, Digester};
use crate::secret::Secret;
use crate::tree::{Fields, Folders, Node, Problems};

/// Whether clients show a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientAuth {
    /// They are not asked.
    #[default]
    Off,
    /// They may; what they show must be good.
    Optional,
    /// They must.
    Required,
}

/// What a listener shows, and whom it believes. Clones share what is live.
#[derive(Clone, Debug)]
pub struct Identity {
    live: Arc<ArcSwap<Live>>,
    client_auth: ClientAuth,
}

#[derive(Debug)]
struct Live {
    server: Arc<ServerConfig>,
    /// Of everything that was read.
    digest: Digest,
}

impl Identity {
    /// Reads `tls` of a listener. `None` after at least one error was reported.
    pub fn read(node: &Node, folders: &Folders, problems: &Problems) -> Option<Self> {
        let fields = Fields::of(node, "a map with `cert` and `key`", problems)?;
        let modes = [("off", ClientAuth::Off), ("optional", ClientAuth::Optional), ("required", ClientAuth::Required)];
        // YAML 1.1 reads a bare `off` as false (ruling C12).
        let client_auth = match fields.node("client_auth") {
            Some(node) if node.is_off() => Some(ClientAuth::Off),
            Some(_) => Some(fields.choice("client_auth", &modes, ClientAuth::Off)),
            None => None,
        };
        let cert = fields.need("cert").and_then(|n| Some((n, pem(n, folders, problems)?)));
        let key = fields.need("key").and_then(|n| Some((n, n.secret(problems)?)));
        let ca = fields.node("client_ca").map(|n| pem(n, folders, problems).map(|pem| (n, pem)));
        match (client_auth, fields.node("client_ca")) {
            (None, Some(ca)) => {
                problems.error(ca.place, "`client_ca` without `client_auth` asks nobody", "client_auth: required, or optional")
            }
            (Some(ClientAuth::Optional | ClientAuth::Required), None) => {
                problems.error(fields.key_place("client_auth"), "whose certificates? `client_ca` is missing", "client_ca: clients-ca.pem");
            }
            _ => {}
        }
        fields.finish();
        let client_auth = client_auth.unwrap_or_default();
        let ((cert_node, cert), (key_node, key)) = (cert?, key?);
        let ca = match ca {
            Some(ca) => Some(ca?),
            None => None,
        };
        let mut digester = Digester::new();
        digester.bytes(&cert);
        digester.bytes(key.expose().as_bytes());
        digester.bytes(ca.as_ref().map_or(b"", |(_, pem)| pem));
        let verifier = match (client_auth, &ca) {
            (ClientAuth::Off, _) | (_, None) => WebPkiClientVerifier::no_client_auth(),
            (mode, Some((node, pem))) => verifier(node, pem, mode, problems)?,
        };
        let chain = chain(cert_node, &cert, Reader::Clients, problems)?;
        let server = server(&chain, &key, verifier).map_err(|wrong| match wrong {
            Wrong::Key(why) => problems.error(key_node.place, why, "the file that holds `-----BEGIN PRIVATE KEY-----`"),
            Wrong::Pair => {
                problems.error(key_node.place, "the key does not belong to the certificate", "name the pair that was issued together")
            }
            Wrong::Certificate(why) => problems.error(cert_node.place, why, CERTIFICATE),
        });
        let live = Live { server: Arc::new(server.ok()?), digest: digester.finish() };
        Some(Self { live: Arc::new(ArcSwap::from_pointee(live)), client_auth })
    }

    /// Whether clients show a certificate.
    pub fn client_auth(&self) -> ClientAuth {
        self.client_auth
    }

    /// The settings for the next handshake.
    pub fn server(&self) -> Arc<ServerConfig> {
        self.live.load().server.clone()
    }

    /// Takes over what `other` has read, from the next handshake on. Returns whether that is anything new.
    pub fn renew(&self, other: &Self) -> bool {
        let next = other.live.load_full();
        let new = self.live.load().digest != next.digest;
        if new {
            self.live.store(next);
        }
        new
    }
}

fn verifier(node: &Node, pem: &[u8], mode: ClientAuth, problems: &Problems) -> Option<Arc<dyn ClientCertVerifier>> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let added = certificate
            .map_err(|_| "this is not a PEM certificate".to_owned())
            .and_then(|certificate| roots.add(certificate).map_err(|error| format!("a certificate of the bundle cannot be used: {error}")));
        if let Err(why) = added {
            problems.error(node.place, why, CERTIFICATE);
            return None;
        }
    }
    if roots.is_empty() {
        problems.error(node.place, "there is no certificate in it", CERTIFICATE);
        return None;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
    let builder = if mode == ClientAuth::Optional { builder.allow_unauthenticated() } else { builder };
    builder.build().map_err(|error| problems.error(node.place, format!("these authorities cannot be used: {error}"), "")).ok()
}

enum Wrong {
    Key(&'static str),
    Pair,
    Certificate(String),
}

fn server(chain: &[CertificateDer<'static>], key: &Secret, verifier: Arc<dyn ClientCertVerifier>) -> Result<ServerConfig, Wrong> {
    let pem = Zeroizing::new(key.expose().as_bytes().to_vec());
    let key = PrivateKeyDer::from_pem_slice(&pem).map_err(|_| Wrong::Key("this is not a PEM private key"))?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(|error| Wrong::Certificate(error.to_string()))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain.to_vec(), key)
        .map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => Wrong::Pair,
            rustls::Error::General(_) => Wrong::Key("this kind of private key is not supported"),
            error => Wrong::Certificate(format!("the certificate cannot be used: {error}")),
        })?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// A certificate that a client has shown and that was found good: who it says the client is.
#[derive(Debug, PartialEq, Eq)]
pub struct Shown {
    /// Names of hosts in it.
    pub dns: Vec<String>,
    /// URIs in it, as SPIFFE has them.
    pub uris: Vec<String>,
    /// The SHA-256 of the whole, in hex.
    pub fingerprint: String,
}

impl Shown {
    /// What the first certificate of a chain says; `None` where there is none that can be read.
    pub fn read(chain: Option<&[CertificateDer<'_>]>) -> Option<Self> {
        let leaf = chain?.first()?;
        let parsed = webpki::EndEntityCert::try_from(leaf).ok()?;
        let digest = ::aws_lc_rs::digest::digest(&::aws_lc_rs::digest::SHA256, leaf);
        Some(Self {
            dns: parsed.valid_dns_names().map(str::to_owned).collect(),
            uris: parsed.valid_uri_names().map(str::to_owned).collect(),
            fingerprint: digest.as_ref().iter().map(|b| format!("{b:02x}")).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, date_time_ymd};

    use super::*;
    use crate::tree::{Place, Value};

    fn issued(change: impl FnOnce(&mut CertificateParams)) -> (String, String) {
        let mut params = CertificateParams::new(vec!["gateway.example".to_owned()]).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    }

    fn read(entries: &[(&str, Value)]) -> (Option<Identity>, Vec<String>) {
        let problems = Problems::default();
        let place = Place::default();
        let node = |value: &Value| Node { place, value: value.clone() };
        let entries = entries.iter().map(|(key, value)| crate::tree::Entry { key: (*key).into(), place, node: node(value) }).collect();
        let identity = Identity::read(&node(&Value::Map(entries)), &Folders::one("/conf"), &problems);
        (identity, problems.into_sorted().into_iter().map(|p| p.message).collect())
    }

    fn text(text: &str) -> Value {
        Value::Text(text.into())
    }

    fn secret(text: &str) -> Value {
        Value::Secret(Secret::new(text.to_owned()))
    }

    #[test]
    fn a_pair_that_belongs_together_is_taken_without_a_word() {
        let (cert, key) = issued(|_| {});
        let (identity, problems) = read(&[("cert", text(&cert)), ("key", secret(&key))]);
        assert!(identity.is_some() && problems.is_empty(), "{problems:?}");
    }

    #[test]
    fn what_is_wrong_is_told_apart() {
        let ((cert, key), (other, _)) = (issued(|_| {}), issued(|_| {}));
        let ca = issued(|p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)).0;
        let pair = [("cert", text(&cert)), ("key", secret(&key))];
        let with = |more: &[(&'static str, Value)]| read(&[&pair[..], more].concat()).1;
        for (problems, part) in [
            (read(&[("cert", text(&other)), ("key", secret(&key))]).1, "does not belong"),
            (read(&[("cert", text(&cert)), ("key", secret("nonsense"))]).1, "not a PEM private key"),
            (read(&[("cert", text("-----BEGIN X-----")), ("key", secret(&key))]).1, "not a PEM certificate"),
            (read(&[("cert", text(&key)), ("key", secret(&key))]).1, "no certificate in it"),
            (read(&[("cert", text("nowhere.pem")), ("key", secret(&key))]).1, "cannot be read"),
            (with(&[("client_ca", text(&ca))]), "asks nobody"),
            (with(&[("client_auth", text("required"))]), "`client_ca` is missing"),
            (with(&[("client_auth", text("required")), ("client_ca", text(&key))]), "no certificate in it"),
            (with(&[("client_auth", text("requird")), ("client_ca", text(&ca))]), "one of"),
        ] {
            assert!(problems.iter().any(|p| p.contains(part)), "{part}: {problems:?}");
            assert!(problems.iter().all(|p| !p.contains("BEGIN PRIVATE")), "{problems:?}");
        }
        assert!(with(&[("client_auth", text("optional")), ("client_ca", text(&ca))]).is_empty());
        assert!(with(&[("client_auth", Value::Bool(false)), ("client_ca", text(&ca))]).is_empty());
    }

    #[test]
    fn an_expired_certificate_and_one_that_soon_will_be_are_warned_about() {
        for (begin, end, part) in [
            (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1), "has expired"),
            (date_time_ymd(2070, 1, 1), date_time_ymd(2080, 1, 1), "not valid yet"),
        ] {
            let (cert, key) = issued(|p| (p.not_before, p.not_after) = (begin, end));
            let (identity, problems) = read(&[("cert", text(&cert)), ("key", secret(&key))]);
            assert!(identity.is_some() && problems[0].contains(part), "{problems:?}");
        }
    }

    #[test]
    fn a_renewal_counts_only_if_something_is_new() {
        let ((cert, key), (cert_2, key_2)) = (issued(|_| {}), issued(|_| {}));
        let one = read(&[("cert", text(&cert)), ("key", secret(&key))]).0.unwrap();
        let same = read(&[("cert", text(&cert)), ("key", secret(&key))]).0.unwrap();
        let other = read(&[("cert", text(&cert_2)), ("key", secret(&key_2))]).0.unwrap();
        let before = one.server();
        assert!(!one.renew(&same) && Arc::ptr_eq(&one.server(), &before));
        assert!(one.renew(&other) && Arc::ptr_eq(&one.server(), &other.server()));
    }
}
