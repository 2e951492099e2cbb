//! SAML 2.0 assertions of the gateway's own (RFC 7522, SAML core section 2), signed as XML Signature has it: enveloped, over
//! exclusive canonical XML. A document that is written here is written in its canonical form from the start, so nothing
//! that somebody else wrote is ever canonicalised.

use std::fmt::Write as _;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

use crate::auth::Reading;
use crate::auth::assertion::{self, LIFE, Signer};
use crate::error::Error;
use crate::key::Algorithm;
use crate::secret::Secret;
use crate::tree::{Fields, Node, Problems};

const EXCLUSIVE: &str = "http://www.w3.org/2001/10/xml-exc-c14n#";
const ENVELOPED: &str = "http://www.w3.org/2000/09/xmldsig#enveloped-signature";
const SHA256: &str = "http://www.w3.org/2001/04/xmlenc#sha256";
const XMLDSIG: &str = "http://www.w3.org/2000/09/xmldsig#";
const SAML: &str = "urn:oasis:names:tc:SAML:2.0:assertion";
const BEARER: &str = "urn:oasis:names:tc:SAML:2.0:cm:bearer";
const CLASS: &str = "urn:oasis:names:tc:SAML:2.0:ac:classes:unspecified";
const UNSPECIFIED: &str = "urn:oasis:names:tc:SAML:1.1:nameid-format:unspecified";

/// What clocks may differ by, in seconds: an assertion is good a little before it is made.
const SKEW: u64 = 60;
/// Most attributes, and most values of one.
const ATTRIBUTES_MAX: usize = 64;

/// Signature algorithms and their names (RFC 9231).
const ALGORITHMS: [(Algorithm, &str); 6] = [
    (Algorithm::RS256, "http://www.w3.org/2001/04/xmldsig-more#rsa-sha256"),
    (Algorithm::RS384, "http://www.w3.org/2001/04/xmldsig-more#rsa-sha384"),
    (Algorithm::RS512, "http://www.w3.org/2001/04/xmldsig-more#rsa-sha512"),
    (Algorithm::ES256, "http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha256"),
    (Algorithm::ES384, "http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha384"),
    (Algorithm::ES512, "http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha512"),
];

/// How the assertion is written as a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spelling {
    /// As RFC 7522 wants it.
    Base64Url,
    /// As some servers want it.
    Base64,
}

/// Makes assertions.
pub struct Saml {
    signer: Signer,
    method: &'static str,
    /// The certificate in base64, for `KeyInfo`.
    certificate: Option<String>,
    issuer: String,
    subject: String,
    format: String,
    audience: String,
    recipient: String,
    session: Option<String>,
    attributes: Vec<(String, Vec<String>)>,
    spelling: Spelling,
}

impl std::fmt::Debug for Saml {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Saml").field("method", &self.method).finish_non_exhaustive()
    }
}

impl Saml {
    /// Reads `{ issuer, subject, audience, recipient, attributes, session_index, name_id_format, assertion_encoding,
    /// private_key, algorithm, certificate }`. `token_url` is the usual recipient.
    pub fn read(fields: &Fields<'_>, token_url: Option<&str>, reading: Reading<'_>) -> Option<Self> {
        let problems = reading.problems;
        let signer = Signer::read(fields, None, reading.context.folders, problems);
        let certificate = fields.node("certificate").map(|node| assertion::certificate(node, reading.context.folders, problems));
        let need = |key| fields.need(key).and_then(|node| text(node, problems));
        let (issuer, subject, audience) = (need("issuer"), need("subject"), need("audience"));
        let or = |key, usual: Option<&str>| match fields.node(key) {
            Some(node) => text(node, problems),
            None => usual.map(str::to_owned),
        };
        let recipient = or("recipient", token_url);
        let format = or("name_id_format", Some(UNSPECIFIED));
        let session = fields.node("session_index").map(|node| text(node, problems));
        let attributes = fields.node("attributes").map_or_else(|| Some(Vec::new()), |node| attributes(node, problems));
        let words = [("base64url", Spelling::Base64Url), ("base64", Spelling::Base64)];
        let spelling = fields.choice("assertion_encoding", &words, Spelling::Base64Url);
        let signer = signer?;
        let Some((_, method)) = ALGORITHMS.iter().find(|(algorithm, _)| *algorithm == signer.algorithm()) else {
            let hint = "RS256, RS384, RS512, ES256, ES384 or ES512, by the key";
            problems.error(fields.place(), "XML signatures are not made by this algorithm", hint);
            return None;
        };
        let certificate = match certificate {
            None => None,
            Some(der) => Some(STANDARD.encode(der?)),
        };
        let session = match session {
            None => None,
            Some(session) => Some(session?),
        };
        Some(Self {
            signer,
            method,
            certificate,
            issuer: issuer?,
            subject: subject?,
            format: format?,
            audience: audience?,
            recipient: recipient?,
            session,
            attributes: attributes?,
            spelling,
        })
    }

    /// A new assertion as a parameter; it may be good for one use. `now` is in milliseconds since 1970.
    ///
    /// # Errors
    /// If the key fails, which a key that was read does not.
    pub fn parameter(&self, now: u64) -> Result<Secret, Error> {
        let document = self.document(now, &format!("_{}", assertion::once()))?;
        Ok(Secret::new(match self.spelling {
            Spelling::Base64Url => URL_SAFE_NO_PAD.encode(document),
            Spelling::Base64 => STANDARD.encode(document),
        }))
    }

    fn document(&self, now: u64, id: &str) -> Result<String, Error> {
        let (head, rest) = self.halves(now / 1000, id);
        // Without its signature, which is taken out before the digest is made.
        let hash = STANDARD.encode(digest::digest(&digest::SHA256, [head.as_str(), &rest].concat().as_bytes()));
        let info = |space: &str| {
            format!(
                "<ds:SignedInfo{space}><ds:CanonicalizationMethod Algorithm=\"{EXCLUSIVE}\"></ds:CanonicalizationMethod>\
                 <ds:SignatureMethod Algorithm=\"{}\"></ds:SignatureMethod><ds:Reference URI=\"#{id}\"><ds:Transforms>\
                 <ds:Transform Algorithm=\"{ENVELOPED}\"></ds:Transform><ds:Transform Algorithm=\"{EXCLUSIVE}\"></ds:Transform></ds:Transforms>\
                 <ds:DigestMethod Algorithm=\"{SHA256}\"></ds:DigestMethod><ds:DigestValue>{hash}</ds:DigestValue></ds:Reference></ds:SignedInfo>",
                self.method
            )
        };
        // By itself it has to say what its prefix means; inside of the signature that is said already.
        let signature = self.signer.sign_bytes(info(&format!(" xmlns:ds=\"{XMLDSIG}\"")).as_bytes())?;
        let key = self.certificate.as_ref().map_or_else(String::new, |certificate| {
            format!("<ds:KeyInfo><ds:X509Data><ds:X509Certificate>{certificate}</ds:X509Certificate></ds:X509Data></ds:KeyInfo>")
        });
        let (info, value) = (info(""), STANDARD.encode(signature));
        Ok(format!(
            "{head}<ds:Signature xmlns:ds=\"{XMLDSIG}\">{info}<ds:SignatureValue>{value}</ds:SignatureValue>{key}</ds:Signature>{rest}"
        ))
    }

    /// The canonical document in two halves: the signature goes between them, behind the issuer. Attributes stand in the
    /// order of their names, no element is its own end.
    fn halves(&self, now: u64, id: &str) -> (String, String) {
        let (made, from, until) = (instant(now), instant(now.saturating_sub(SKEW)), instant(now + LIFE));
        let head = format!(
            "<saml:Assertion xmlns:saml=\"{SAML}\" ID=\"{id}\" IssueInstant=\"{made}\" Version=\"2.0\"><saml:Issuer>{}</saml:Issuer>",
            content(&self.issuer)
        );
        let mut rest = String::with_capacity(1024);
        // Writing to a string cannot fail.
        let _ = write!(
            rest,
            "<saml:Subject><saml:NameID Format=\"{}\">{}</saml:NameID><saml:SubjectConfirmation Method=\"{BEARER}\">\
             <saml:SubjectConfirmationData NotOnOrAfter=\"{until}\" Recipient=\"{}\"></saml:SubjectConfirmationData></saml:SubjectConfirmation></saml:Subject>\
             <saml:Conditions NotBefore=\"{from}\" NotOnOrAfter=\"{until}\"><saml:AudienceRestriction><saml:Audience>{}</saml:Audience>\
             </saml:AudienceRestriction></saml:Conditions><saml:AuthnStatement AuthnInstant=\"{made}\"",
            value(&self.format),
            content(&self.subject),
            value(&self.recipient),
            content(&self.audience),
        );
        if let Some(session) = &self.session {
            let _ = write!(rest, " SessionIndex=\"{}\"", value(session));
        }
        let _ = write!(
            rest,
            "><saml:AuthnContext><saml:AuthnContextClassRef>{CLASS}</saml:AuthnContextClassRef></saml:AuthnContext></saml:AuthnStatement>"
        );
        if !self.attributes.is_empty() {
            rest.push_str("<saml:AttributeStatement>");
            for (name, values) in &self.attributes {
                let _ = write!(rest, "<saml:Attribute Name=\"{}\">", value(name));
                for one in values {
                    let _ = write!(rest, "<saml:AttributeValue>{}</saml:AttributeValue>", content(one));
                }
                rest.push_str("</saml:Attribute>");
            }
            rest.push_str("</saml:AttributeStatement>");
        }
        rest.push_str("</saml:Assertion>");
        (head, rest)
    }
}

/// `2026-01-02T03:04:05Z`.
fn instant(seconds: u64) -> String {
    jiff::Timestamp::from_second(i64::try_from(seconds).unwrap_or(0)).unwrap_or_default().to_string()
}

/// Character data in canonical XML.
fn content(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('\r', "&#xD;")
}

/// The value of an attribute in canonical XML.
fn value(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;");
    text.replace('\t', "&#x9;").replace('\n', "&#xA;").replace('\r', "&#xD;")
}

/// Text that an XML document can hold (XML 1.0 section 2.2), and not nothing.
fn text(node: &Node, problems: &Problems) -> Option<String> {
    let text = node.text(problems)?;
    let illegal = |c: char| (c < ' ' && !"\t\n\r".contains(c)) || c == '\u{fffe}' || c == '\u{ffff}';
    if text.is_empty() || text.contains(illegal) {
        problems.error(node.place, "this is empty, or holds a control character, which no XML document can hold", "");
        return None;
    }
    Some(text)
}

fn attributes(node: &Node, problems: &Problems) -> Option<Vec<(String, Vec<String>)>> {
    Fields::of(node, "a map of attributes", problems)?;
    if node.entries().len() > ATTRIBUTES_MAX || node.entries().iter().any(|entry| entry.node.items().len() > ATTRIBUTES_MAX) {
        problems.error(node.place, format!("more than {ATTRIBUTES_MAX} attributes, or values of one"), "");
        return None;
    }
    let one = |entry: &crate::tree::Entry| {
        if entry.key.contains(|c: char| c < ' ') {
            problems.error(entry.place, "the name of an attribute holds a control character", "");
            return None;
        }
        let values: Option<Vec<String>> = entry.node.items().iter().map(|node| text(node, problems)).collect();
        Some((entry.key.to_string(), values?))
    };
    node.entries().iter().map(one).collect::<Vec<_>>().into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn saml(subject: &str) -> Saml {
        let pem = rcgen::KeyPair::generate().unwrap().serialize_pem();
        Saml {
            signer: Signer::new(crate::key::Key::private(&pem).unwrap(), None),
            method: ALGORITHMS[3].1,
            certificate: None,
            issuer: "me".into(),
            subject: subject.into(),
            format: UNSPECIFIED.into(),
            audience: "them".into(),
            recipient: "https://issuer.example/token?a=1&b=\"2\"".into(),
            session: Some("s1".into()),
            attributes: vec![("groups".into(), vec!["a".into(), "b & c".into()])],
            spelling: Spelling::Base64Url,
        }
    }

    #[test]
    fn no_text_becomes_structure_and_the_document_is_well_formed() {
        for subject in ["</saml:NameID>", "a & b", "]]>", "\"'", "&amp;", "\r\n\tx", "<!--", "<?x?>", "ü😀"] {
            let document = saml(subject).document(1_700_000_000_000, "_1").unwrap();
            let mut scanner = crate::xml::Scanner::new(&document);
            let (mut texts, mut elements) = (Vec::new(), 0);
            while let Some(event) = scanner.event().unwrap() {
                match event {
                    crate::xml::Event::Text(text) => texts.push(crate::xml::unescaped(text).unwrap().into_owned()),
                    crate::xml::Event::Start { empty, .. } => {
                        assert!(!empty, "canonical XML has no element that is its own end");
                        elements += 1;
                    }
                    crate::xml::Event::End { .. } => {}
                    other => panic!("{other:?}"),
                }
            }
            assert!(texts.contains(&subject.to_owned()), "{document}");
            assert_eq!(elements, 27, "{document}");
        }
    }

    #[test]
    fn an_assertion_says_from_when_until_when_it_is_good_and_for_whom() {
        let document = saml("u").document(1_700_000_000_000, "_1").unwrap();
        for part in [
            "ID=\"_1\" IssueInstant=\"2023-11-14T22:13:20Z\" Version=\"2.0\"",
            "NotBefore=\"2023-11-14T22:12:20Z\" NotOnOrAfter=\"2023-11-14T22:16:20Z\"",
            "Recipient=\"https://issuer.example/token?a=1&amp;b=&quot;2&quot;\"",
            "<saml:Audience>them</saml:Audience>",
            "<saml:AuthnStatement AuthnInstant=\"2023-11-14T22:13:20Z\" SessionIndex=\"s1\">",
            "<saml:Attribute Name=\"groups\"><saml:AttributeValue>a</saml:AttributeValue><saml:AttributeValue>b &amp; c</saml:AttributeValue>",
            "<ds:Reference URI=\"#_1\">",
        ] {
            assert!(document.contains(part), "{part} is not in {document}");
        }
        let (one, two) = (saml("u").parameter(0).unwrap(), saml("u").parameter(0).unwrap());
        assert!(one != two, "each has an ID of its own");
    }
}
