//! SAML bearer assertions against a token endpoint that verifies them with PyPI signxml.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE, URL_SAFE_NO_PAD};

use crate::counterparts::Server;
use crate::support::keys::{openssl, pair};
use crate::support::relay::{python, relay, send};
use crate::support::{Gateway, Seen, Upstream, free_port, root};

/// A key, and the file with a certificate for it.
fn keys(folder: &std::path::Path, kind: &str) -> Option<(String, std::path::PathBuf)> {
    let (key, _) = pair(folder, kind)?;
    let file = |name: &str| folder.join(name).display().to_string();
    let request = ["req", "-x509", "-new", "-subj", "/CN=postern", "-days", "2"];
    openssl(&[&request[..], &["-key", &file("key.pem"), "-out", &file("cert.pem")]].concat()).then(|| (key, folder.join("cert.pem")))
}

fn issuer(certificate: &std::path::Path, spelling: &str) -> Option<Server> {
    let (mut command, port) = (python("signxml")?, free_port());
    command.arg(root().join("tests/it/peers/saml_issuer.py")).arg(port.to_string()).arg(certificate).arg(spelling);
    Some(Server::start(command, port))
}

fn gateway(upstream: &str, token: (&str, &str), key: &str, certificate: &std::path::Path, more: &str) -> Gateway {
    let (url, recipient) = token;
    let auth = format!(
        "{{ oauth2_saml_bearer: {{ token_url: \"{url}/token\", recipient: \"{recipient}/token\", client_id: app, client_secret: \"${{env:SECRET}}\", \
         issuer: me, subject: \"</saml:NameID>& \\\"ü\\\" ]]>\\t\", audience: them, session_index: \"s&1\", private_key: \"${{env:KEY}}\", \
         certificate: \"{}\", attributes: {{ \"gr<o>ups\": [a, \"b & c\"], mail: \"x@y\" }}{more} }} }}",
        certificate.display()
    );
    let config = format!("resources:\n  up:\n    base_url: \"{upstream}\"\n    auth: {auth}\n");
    Gateway::start_with(&config, &[("KEY", key), ("SECRET", "s3cret")])
}

/// The form with another assertion: what `change` makes of its document.
fn tampered(seen: &Seen, change: impl Fn(String) -> String) -> Seen {
    let form = String::from_utf8(seen.body.clone()).unwrap();
    let assertion = form.split('&').find_map(|pair| pair.strip_prefix("assertion=")).unwrap();
    let document = String::from_utf8(URL_SAFE_NO_PAD.decode(assertion).unwrap()).unwrap();
    let other = change(document.clone());
    assert_ne!(document, other);
    let body = form.replace(assertion, &URL_SAFE_NO_PAD.encode(other)).into_bytes();
    let head = seen.head.replace(&format!("content-length: {}", seen.body.len()), &format!("content-length: {}", body.len()));
    Seen { head, raw_body: body.clone(), body, ..seen.clone() }
}

#[test]
fn signxml_verifies_the_assertion_and_whatever_is_changed_is_refused() {
    for (kind, spelling, more) in
        [("rsa", "base64url", ""), ("prime256v1", "base64url", ""), ("rsa", "base64", ", assertion_encoding: base64")]
    {
        let folder = tempfile::tempdir().unwrap();
        let Some((key, certificate)) = keys(folder.path(), kind) else { return };
        let Some(server) = issuer(&certificate, spelling) else { return };
        let (upstream, relay) = (Upstream::ok(), relay(server.port));
        let gateway = gateway(&upstream.url(), (&relay.url(), &server.url()), &key, &certificate, more);
        let reply = gateway.get("/r/up/a");
        assert_eq!(reply.status, 200, "{kind}: {} {}", reply.text(), gateway.stderr());
        let seen = upstream.last();
        let token = seen.field("authorization").unwrap().strip_prefix("Bearer ").unwrap().to_owned();
        let told: serde_json::Value = serde_json::from_slice(&URL_SAFE.decode(token).unwrap()).unwrap();
        assert_eq!(told["subject"][0], "</saml:NameID>& \"ü\" ]]>\t");
        assert_eq!((told["session"][0].as_str(), told["attributes"]["gr<o>ups"][1].as_str()), (Some("s&1"), Some("b & c")));
        if spelling == "base64" {
            continue;
        }
        let signed = relay.last();
        assert_eq!(send(server.port, &signed).status, 400, "the same assertion a second time");
        // With another ID it would be a new one: so only the signature stands in the way of these.
        for (what, other) in [
            ("the subject", tampered(&signed, |d| d.replace("]]&gt;", "]]"))),
            ("the audience", tampered(&signed, |d| d.replace(">them<", ">they<"))),
            ("the ID", tampered(&signed, |d| d.replacen("ID=\"_", "ID=\"_0", 1))),
            ("the ID everywhere", tampered(&signed, |d| d.replace("\"_", "\"_0").replace("\"#_", "\"#_0"))),
            ("an attribute", tampered(&signed, |d| d.replace("x@y", "y@x"))),
            ("the end", tampered(&signed, |d| d.replace("NotOnOrAfter=\"2", "NotOnOrAfter=\"3"))),
            ("the digest", tampered(&signed, |d| d.replacen("<ds:DigestValue>", "<ds:DigestValue>AA", 1))),
            ("the signature", tampered(&signed, |d| d.replacen("<ds:SignatureValue>", "<ds:SignatureValue>AA", 1))),
            (
                "all of it: there is no signature",
                tampered(&signed, |d| {
                    let (head, rest) = d.split_once("<ds:Signature ").unwrap();
                    [head, rest.split_once("</ds:Signature>").unwrap().1].concat()
                }),
            ),
        ] {
            assert_eq!(send(server.port, &other).status, 400, "{kind}: {what} was changed");
        }
        let certificate = std::fs::read_to_string(&certificate).unwrap();
        let body: String = certificate.lines().filter(|line| !line.starts_with("---")).collect();
        let form = String::from_utf8(signed.body.clone()).unwrap();
        let assertion = form.split('&').find_map(|pair| pair.strip_prefix("assertion=")).unwrap();
        let document = String::from_utf8(URL_SAFE_NO_PAD.decode(assertion).unwrap()).unwrap();
        assert!(document.contains(&STANDARD.encode(STANDARD.decode(body).unwrap())), "the certificate is shown");
    }
}

#[test]
fn a_token_url_that_holds_a_reference_is_the_recipient_too() {
    let folder = tempfile::tempdir().unwrap();
    let Some((key, certificate)) = keys(folder.path(), "rsa") else { return };
    let (upstream, token) = (Upstream::ok(), Upstream::ok());
    let auth = format!(
        "{{ oauth2_saml_bearer: {{ token_url: \"{}/${{env:TENANT}}/token\", client_id: app, client_secret: \"${{env:SECRET}}\", issuer: me, subject: s, \
         audience: them, private_key: \"${{env:KEY}}\", certificate: \"{}\" }} }}",
        token.url(),
        certificate.display()
    );
    let config = format!("resources:\n  up:\n    base_url: \"{}\"\n    auth: {auth}\n", upstream.url());
    let gateway = Gateway::start_with(&config, &[("KEY", &key), ("SECRET", "s3cret"), ("TENANT", "acme")]);
    // The answer is no token; what counts is what was sent for one.
    gateway.get("/r/up/a");
    let seen = token.last();
    let form = String::from_utf8(seen.body.clone()).unwrap();
    let assertion = form.split('&').find_map(|pair| pair.strip_prefix("assertion=")).unwrap();
    let document = String::from_utf8(URL_SAFE_NO_PAD.decode(assertion).unwrap()).unwrap();
    assert!(seen.target() == "/acme/token" && document.contains(&format!("Recipient=\"{}/acme/token\"", token.url())), "{document}");
}
