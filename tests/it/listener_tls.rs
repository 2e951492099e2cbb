//! Listeners with TLS: which protocols, whose certificates, and certificates that change while the gateway runs.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::support::tls::{Authority, Identity};
use crate::support::{Gateway, PATIENCE, Upstream, eventually, free_port};

type Tls = StreamOwned<ClientConnection, TcpStream>;

/// Connects to a listener. `shown` is the client's own certificate.
fn connect(port: u16, authority: &Authority, shown: Option<&Identity>, alpn: &[&[u8]]) -> std::io::Result<Tls> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.pem().as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap().with_root_certificates(roots);
    let mut config = match shown {
        None => builder.with_no_client_auth(),
        Some(identity) => builder
            .with_client_auth_cert(
                vec![CertificateDer::from_pem_slice(identity.pem().as_bytes()).unwrap()],
                PrivateKeyDer::from_pem_slice(identity.key_pem().as_bytes()).unwrap(),
            )
            .unwrap(),
    };
    config.alpn_protocols = alpn.iter().map(|p| p.to_vec()).collect();
    let connection = ClientConnection::new(Arc::new(config), ServerName::try_from("localhost").unwrap()).unwrap();
    let stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut tls = StreamOwned::new(connection, stream);
    tls.conn.complete_io(&mut tls.sock)?;
    Ok(tls)
}

/// Sends a request over HTTP/1.1 and returns the head of the answer.
fn get(tls: &mut Tls) -> std::io::Result<String> {
    tls.write_all(b"GET /r/up/a HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
    let mut all = Vec::new();
    let mut part = [0; 4096];
    while !all.ends_with(b"{\"ok\":true}") {
        let read = tls.read(&mut part)?;
        if read == 0 {
            break;
        }
        all.extend_from_slice(&part[..read]);
    }
    Ok(String::from_utf8_lossy(&all).into_owned())
}

/// The certificate that the listener shows.
fn certificate(tls: &Tls) -> CertificateDer<'static> {
    tls.conn.peer_certificates().unwrap()[0].clone().into_owned()
}

fn write(folder: &Path, identity: &Identity) {
    fs::write(folder.join("tls.key"), identity.key_pem()).unwrap();
    fs::write(folder.join("tls.crt"), identity.pem()).unwrap();
}

/// A gateway with a TLS listener on the returned port; the files stand in the returned folder.
fn gateway(upstream: &Upstream, identity: &Identity, more: &str) -> (Gateway, u16, tempfile::TempDir) {
    let (folder, port) = (tempfile::tempdir().unwrap(), free_port());
    write(folder.path(), identity);
    let at = folder.path().display();
    let gateway = Gateway::start(&format!(
        "server:\n  listen:\n    - \"127.0.0.1:{{port}}\"\n    - address: \"127.0.0.1:{port}\"\n      tls:\n        cert: \"{at}/tls.crt\"\n        key: \"${{file:{at}/tls.key}}\"\n{more}\nresources: {{ up: {{ base_url: \"{}\" }} }}\n",
        upstream.url()
    ));
    (gateway, port, folder)
}

#[test]
fn the_handshake_offers_both_versions() {
    let (upstream, authority) = (Upstream::ok(), Authority::new());
    let (_gateway, port, _folder) = gateway(&upstream, &authority.issue("localhost", false), "");
    for (offered, chosen) in [
        (&[&b"h2"[..], b"http/1.1"][..], Some(&b"h2"[..])),
        (&[b"http/1.1"], Some(b"http/1.1")),
        (&[b"http/1.1", b"h2"], Some(b"h2")),
        (&[], None),
    ] {
        let tls = connect(port, &authority, None, offered).unwrap();
        assert_eq!(tls.conn.alpn_protocol(), chosen, "{offered:?}");
    }
    // What speaks nothing of ours is refused within the handshake (RFC 7301).
    assert!(connect(port, &authority, None, &[b"spdy/3"]).is_err());
}

#[test]
fn prior_knowledge_does_not_go_round_the_handshake() {
    let (upstream, authority) = (Upstream::ok(), Authority::new());
    let (_gateway, port, _folder) = gateway(&upstream, &authority.issue("localhost", false), "");
    let mut tls = connect(port, &authority, None, &[b"http/1.1"]).unwrap();
    tls.write_all(crate::support::frames::PREFACE).unwrap();
    let mut answer = Vec::new();
    let _ = tls.read_to_end(&mut answer);
    assert!(answer.starts_with(b"HTTP/1.1 400 "), "{}", String::from_utf8_lossy(&answer));
}

#[test]
fn required_certificates_are_required_and_bad_ones_refused() {
    let (upstream, authority, clients) = (Upstream::ok(), Authority::new(), Authority::new());
    let ca = clients.pem().trim_end().replace('\n', "\n          ");
    let more = |mode: &str| format!("        client_auth: {mode}\n        client_ca: |\n          {ca}\n");
    let (good, foreign) = (clients.issue("billing", false), Authority::new().issue("billing", false));
    let (expired, own) = (clients.issue("billing", true), authority.issue("localhost", false));
    for (mode, shown, served) in [
        ("required", Some(&good), true),
        ("required", None, false),
        ("required", Some(&foreign), false),
        ("required", Some(&expired), false),
        ("required", Some(&own), false),
        ("optional", Some(&good), true),
        ("optional", None, true),
        ("optional", Some(&foreign), false),
        ("optional", Some(&expired), false),
        ("off", Some(&foreign), true),
    ] {
        let (_gateway, port, _folder) = gateway(&upstream, &own, &more(mode));
        // With TLS 1.3 a client hears of it when it reads.
        let answer = connect(port, &authority, shown, &[b"http/1.1"]).and_then(|mut tls| get(&mut tls));
        let answered = answer.as_ref().is_ok_and(|head| head.starts_with("HTTP/1.1 200"));
        assert_eq!(answered, served, "{mode}: {answer:?}");
    }
}

#[test]
fn a_renewed_certificate_is_taken_over_and_no_connection_notices() {
    let (upstream, authority) = (Upstream::ok(), Authority::new());
    let (gateway, port, folder) = gateway(&upstream, &authority.issue("localhost", false), "");
    let mut old = connect(port, &authority, None, &[]).unwrap();
    let first = certificate(&old);
    assert!(get(&mut old).unwrap().starts_with("HTTP/1.1 200"));
    write(folder.path(), &authority.issue("localhost", false));
    let renewed = || connect(port, &authority, None, &[]).ok().filter(|tls| certificate(tls) != first);
    let mut new = eventually(renewed).unwrap_or_else(|| panic!("{}", gateway.stderr()));
    assert!(get(&mut new).unwrap().starts_with("HTTP/1.1 200"));
    assert!(get(&mut old).unwrap().starts_with("HTTP/1.1 200"), "the old connection was dropped");
}

#[test]
fn a_pair_that_does_not_belong_together_changes_nothing_and_is_said_loudly() {
    let (upstream, authority) = (Upstream::ok(), Authority::new());
    let (gateway, port, folder) = gateway(&upstream, &authority.issue("localhost", false), "");
    let first = certificate(&connect(port, &authority, None, &[]).unwrap());
    fs::write(folder.path().join("tls.crt"), authority.issue("localhost", false).pem()).unwrap();
    assert!(eventually(|| gateway.stderr().contains("does not belong to the certificate").then_some(())).is_some(), "{}", gateway.stderr());
    assert!(!gateway.stderr().contains("PRIVATE KEY--"), "{}", gateway.stderr());
    assert_eq!(certificate(&connect(port, &authority, None, &[]).unwrap()), first);
    // Whole again, it is taken over.
    write(folder.path(), &authority.issue("localhost", false));
    assert!(
        eventually(|| connect(port, &authority, None, &[]).ok().filter(|tls| certificate(tls) != first)).is_some(),
        "{}",
        gateway.stderr()
    );
}

#[test]
fn a_handshake_that_never_ends_is_ended() {
    let (upstream, authority) = (Upstream::ok(), Authority::new());
    let (folder, port) = (tempfile::tempdir().unwrap(), free_port());
    write(folder.path(), &authority.issue("localhost", false));
    let at = folder.path().display();
    let _gateway = Gateway::start(&format!(
        "server: {{ listen: [\"127.0.0.1:{{port}}\", {{ address: \"127.0.0.1:{port}\", tls: {{ cert: \"{at}/tls.crt\", key: \"${{file:{at}/tls.key}}\" }} }}], timeouts: {{ header: 300ms }} }}\nresources: {{ up: {{ base_url: \"{}\" }} }}\n",
        upstream.url()
    ));
    let mut half: Vec<TcpStream> = (0..20)
        .map(|_| {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.write_all(&[0x16, 0x03, 0x01]).unwrap();
            stream
        })
        .collect();
    // On a machine under load an honest handshake may take too long as well.
    let served = eventually(|| get(&mut connect(port, &authority, None, &[]).ok()?).ok().filter(|head| head.starts_with("HTTP/1.1 200")));
    assert!(served.is_some());
    for stream in &mut half {
        let mut rest = Vec::new();
        // Closed or reset, but over.
        let end = stream.read_to_end(&mut rest);
        assert!(end.as_ref().map_or_else(|e| e.kind() == std::io::ErrorKind::ConnectionReset, |_| true), "{end:?}");
    }
}
