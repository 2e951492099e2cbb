//! Keys as people have them, and signatures with them: PEM in its many spellings, DER in base64, JWK (RFC 7517), secrets
//! for HMAC; and the compact form of JWS (RFC 7515). What a key is for is not known here, and no key ever prints.

use aws_lc_rs::encoding::{AsDer as _, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{self, KeyPair as RsaKeyPair, PublicKeyComponents};
use aws_lc_rs::signature::{self, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair as _, RsaEncoding};
use aws_lc_rs::{digest, hmac};
use base64::Engine as _;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, URL_SAFE_NO_PAD};
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use crate::secret::REDACTED;

/// Largest key that is looked at, in bytes of its text.
const TEXT_MAX: usize = 64 * 1024;
/// How often a key may be wrapped in base64 once more.
const WRAPPINGS: u32 = 2;

/// Base64 with or without its padding.
const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&base64::alphabet::STANDARD, LENIENT);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&base64::alphabet::URL_SAFE, LENIENT);

/// A signature algorithm by its JOSE name (RFC 7518 section 3.1, RFC 8037).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are those of the RFCs")]
pub enum Algorithm {
    HS256,
    HS384,
    HS512,
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    ES256,
    ES384,
    ES512,
    EdDSA,
}

impl Algorithm {
    /// All of them by name, for a choice in the configuration.
    pub const ALL: [(&'static str, Self); 13] = [
        ("HS256", Self::HS256),
        ("HS384", Self::HS384),
        ("HS512", Self::HS512),
        ("RS256", Self::RS256),
        ("RS384", Self::RS384),
        ("RS512", Self::RS512),
        ("PS256", Self::PS256),
        ("PS384", Self::PS384),
        ("PS512", Self::PS512),
        ("ES256", Self::ES256),
        ("ES384", Self::ES384),
        ("ES512", Self::ES512),
        ("EdDSA", Self::EdDSA),
    ];

    /// Its name in `alg`.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, a)| *a == self).map_or("", |(name, _)| name)
    }

    /// Whether its key is a shared secret.
    pub fn is_hmac(self) -> bool {
        matches!(self, Self::HS256 | Self::HS384 | Self::HS512)
    }
}

/// How the text of an HMAC key is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encoding {
    /// Its bytes are the key.
    #[default]
    Text,
    /// Hexadecimal.
    Hex,
    /// Base64 of either alphabet, padded or not.
    Base64,
}

impl Encoding {
    /// All of them by name, for a choice in the configuration.
    pub const ALL: [(&'static str, Self); 3] = [("text", Self::Text), ("hex", Self::Hex), ("base64", Self::Base64)];

    /// The bytes that the text stands for.
    ///
    /// # Errors
    /// What is wrong with the text; nothing of it is shown.
    pub fn bytes(self, text: &str) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        let decoded = match self {
            Self::Text => Some(text.as_bytes().to_vec()),
            Self::Hex => unhex(text.trim()),
            Self::Base64 => unbase64(text),
        };
        let wrong = match self {
            Self::Hex => KeyError("the key is not hexadecimal", "two digits of 0-9 and a-f for each byte"),
            _ => KeyError("the key is not base64", "of either alphabet; or say `key_encoding: text`"),
        };
        match decoded.map(Zeroizing::new) {
            Some(key) if key.is_empty() => Err(EMPTY),
            Some(key) => Ok(key),
            None => Err(wrong),
        }
    }
}

/// Why a key cannot be used: what is wrong, and what to do. Neither holds anything of the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyError(pub &'static str, pub &'static str);

impl std::fmt::Display for KeyError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for KeyError {}

const EMPTY: KeyError = KeyError("the key is empty", "check the file or variable that it comes from");
const UNKNOWN: KeyError = KeyError("this is no private key of a known form", "PEM (PKCS#8, PKCS#1, SEC 1), its base64, or a JWK");
const DAMAGED: KeyError =
    KeyError("the key is damaged, or of a kind that is not served", "RSA of 2048 to 8192 bits, P-256, P-384, P-521 or Ed25519");
const UNFIT: KeyError =
    KeyError("the algorithm and the key do not belong together", "RS and PS need RSA, ES256 P-256, EdDSA Ed25519, HS a secret");

/// A key to sign with.
pub struct Key {
    kind: Kind,
    id: Option<String>,
}

enum Kind {
    Rsa(Box<RsaKeyPair>),
    Ec(Box<EcdsaKeyPair>, Algorithm),
    Ed25519(Box<Ed25519KeyPair>),
    Secret(Zeroizing<Vec<u8>>),
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(REDACTED)
    }
}

static CURVES: [(&EcdsaSigningAlgorithm, Algorithm, &str); 3] = [
    (&signature::ECDSA_P256_SHA256_FIXED_SIGNING, Algorithm::ES256, "P-256"),
    (&signature::ECDSA_P384_SHA384_FIXED_SIGNING, Algorithm::ES384, "P-384"),
    (&signature::ECDSA_P521_SHA512_FIXED_SIGNING, Algorithm::ES512, "P-521"),
];

impl Key {
    /// A private key from its text: PEM as it is, with `\n` written out, without line breaks, wrapped in base64 once or
    /// twice; PKCS#8, PKCS#1 or SEC 1; DER in base64; a JWK as JSON or in base64.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn private(text: &str) -> Result<Self, KeyError> {
        if text.len() > TEXT_MAX {
            return Err(KeyError("the key is larger than 64 KiB", "give the key alone, without the certificates"));
        }
        unwrap(text, WRAPPINGS)
    }

    /// A secret for HMAC, as its bytes.
    pub fn hmac(bytes: Zeroizing<Vec<u8>>) -> Self {
        Self { kind: Kind::Secret(bytes), id: None }
    }

    /// The `kid` of a JWK.
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// The algorithm that is meant where none is named.
    pub fn usual(&self) -> Algorithm {
        match &self.kind {
            Kind::Rsa(_) => Algorithm::RS256,
            Kind::Ec(_, algorithm) => *algorithm,
            Kind::Ed25519(_) => Algorithm::EdDSA,
            Kind::Secret(_) => Algorithm::HS256,
        }
    }

    /// Whether it signs by this algorithm.
    pub fn fits(&self, algorithm: Algorithm) -> bool {
        match &self.kind {
            Kind::Rsa(_) => rsa_encoding(algorithm).is_some(),
            Kind::Secret(_) => algorithm.is_hmac(),
            _ => self.usual() == algorithm,
        }
    }

    /// Signs a message; for ECDSA the signature is the pair of numbers that JWS wants (RFC 7518 section 3.4).
    ///
    /// # Errors
    /// If the algorithm is not for this key.
    pub fn sign(&self, algorithm: Algorithm, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        if !self.fits(algorithm) {
            return Err(UNFIT);
        }
        match &self.kind {
            Kind::Rsa(pair) => {
                let mut signed = vec![0; pair.public_modulus_len()];
                let encoding = rsa_encoding(algorithm).ok_or(UNFIT)?;
                pair.sign(encoding, &SystemRandom::new(), message, &mut signed).map_err(|_| DAMAGED)?;
                Ok(signed)
            }
            Kind::Ec(pair, _) => Ok(pair.sign(&SystemRandom::new(), message).map_err(|_| DAMAGED)?.as_ref().to_vec()),
            Kind::Ed25519(pair) => Ok(pair.sign(message).as_ref().to_vec()),
            Kind::Secret(secret) => {
                let hash = match algorithm {
                    Algorithm::HS384 => hmac::HMAC_SHA384,
                    Algorithm::HS512 => hmac::HMAC_SHA512,
                    _ => hmac::HMAC_SHA256,
                };
                Ok(hmac::sign(&hmac::Key::new(hash, secret), message).as_ref().to_vec())
            }
        }
    }

    /// The public half as a `SubjectPublicKeyInfo` in DER (RFC 5280 section 4.1.2.7); none for a secret.
    pub fn public(&self) -> Option<Vec<u8>> {
        let der: PublicKeyX509Der<'_> = match &self.kind {
            Kind::Rsa(pair) => pair.public_key().as_der().ok()?,
            Kind::Ec(pair, _) => pair.public_key().as_der().ok()?,
            Kind::Ed25519(pair) => pair.public_key().as_der().ok()?,
            Kind::Secret(_) => return None,
        };
        Some(der.as_ref().to_vec())
    }

    /// A signed JWT in compact form (RFC 7519, RFC 7515 section 3.1).
    ///
    /// # Errors
    /// If the algorithm is not for this key.
    pub fn jwt(&self, algorithm: Algorithm, header: &Map<String, Value>, claims: &Map<String, Value>) -> Result<String, KeyError> {
        let claims = serde_json::to_string(claims).map_err(|_| UNFIT)?;
        self.compact(algorithm, &self.header(algorithm, header)?, &claims)
    }

    /// The encoded header of a JWT. `alg` is put into it, and `typ` and `kid` where `header` does not speak of them;
    /// `null` removes a field.
    ///
    /// # Errors
    /// If the header cannot be written, which no map causes.
    pub fn header(&self, algorithm: Algorithm, header: &Map<String, Value>) -> Result<String, KeyError> {
        let mut all = Map::new();
        all.insert("alg".into(), algorithm.name().into());
        all.insert("typ".into(), "JWT".into());
        if let Some(id) = self.id() {
            all.insert("kid".into(), id.into());
        }
        all.extend(header.iter().map(|(name, value)| (name.clone(), value.clone())));
        all.retain(|_, value| !value.is_null());
        all.insert("alg".into(), algorithm.name().into());
        serde_json::to_vec(&all).map(|json| URL_SAFE_NO_PAD.encode(json)).map_err(|_| UNFIT)
    }

    /// Signs a payload under an encoded header, in compact form (RFC 7515 section 3.1).
    ///
    /// # Errors
    /// If the algorithm is not for this key.
    pub fn compact(&self, algorithm: Algorithm, header: &str, payload: &str) -> Result<String, KeyError> {
        let mut text = String::with_capacity(header.len() + payload.len() * 4 / 3 + 512);
        text.push_str(header);
        text.push('.');
        URL_SAFE_NO_PAD.encode_string(payload, &mut text);
        let signature = self.sign(algorithm, text.as_bytes())?;
        text.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut text);
        Ok(text)
    }

    /// Whether a signature costs hundreds of microseconds rather than tens.
    pub fn is_slow(&self) -> bool {
        matches!(self.kind, Kind::Rsa(_))
    }
}

/// SHA-256, for fingerprints of keys and certificates (`x5t#S256`, RFC 7515 section 4.1.8).
pub fn sha256(bytes: &[u8]) -> Vec<u8> {
    digest::digest(&digest::SHA256, bytes).as_ref().to_vec()
}

fn rsa_encoding(algorithm: Algorithm) -> Option<&'static dyn RsaEncoding> {
    Some(match algorithm {
        Algorithm::RS256 => &signature::RSA_PKCS1_SHA256,
        Algorithm::RS384 => &signature::RSA_PKCS1_SHA384,
        Algorithm::RS512 => &signature::RSA_PKCS1_SHA512,
        Algorithm::PS256 => &signature::RSA_PSS_SHA256,
        Algorithm::PS384 => &signature::RSA_PSS_SHA384,
        Algorithm::PS512 => &signature::RSA_PSS_SHA512,
        _ => return None,
    })
}

fn unwrap(text: &str, wrappings: u32) -> Result<Key, KeyError> {
    let text = text.trim();
    if text.is_empty() {
        return Err(EMPTY);
    }
    if text.starts_with('{') {
        return jwk(text);
    }
    if text.contains("-----BEGIN") {
        return pem(text);
    }
    let Some(bytes) = unbase64(text).map(Zeroizing::new) else { return Err(UNKNOWN) };
    match std::str::from_utf8(&bytes) {
        Ok(inner) if wrappings > 0 => unwrap(inner, wrappings - 1),
        Ok(_) => Err(UNKNOWN),
        Err(_) => der(&bytes),
    }
}

fn pem(text: &str) -> Result<Key, KeyError> {
    // Environment variables and JSON carry line breaks as two characters.
    let text = Zeroizing::new(text.replace("\\r", "").replace("\\n", "\n"));
    let blocks = || text.match_indices("-----BEGIN ").filter_map(|(at, mark)| text[at + mark.len()..].split_once("-----"));
    let Some((label, rest)) = blocks().find(|(label, _)| label.ends_with("PRIVATE KEY")) else {
        return Err(KeyError("this is a public key or a certificate", "the private key that belongs to it is needed"));
    };
    match label {
        "ENCRYPTED PRIVATE KEY" => {
            return Err(KeyError("the key is encrypted", "take the passphrase off: openssl pkey -in key.pem -out plain.pem"));
        }
        "OPENSSH PRIVATE KEY" => {
            return Err(KeyError("this is a key in OpenSSH's own form", "turn it into PEM: ssh-keygen -p -m PKCS8 -f key"));
        }
        _ => {}
    }
    let Some((body, _)) = rest.split_once("-----END") else {
        return Err(KeyError("the key has no `-----END … PRIVATE KEY-----`", "give the whole file"));
    };
    if body.contains("DEK-Info") {
        return Err(KeyError("the key is encrypted", "take the passphrase off: openssl pkey -in key.pem -out plain.pem"));
    }
    let bytes =
        unbase64(body).map(Zeroizing::new).ok_or(KeyError("what stands between BEGIN and END is not base64", "give the file as it is"))?;
    der(&bytes)
}

/// PKCS#8, PKCS#1 or SEC 1, told apart by trying.
fn der(bytes: &[u8]) -> Result<Key, KeyError> {
    let key = |kind| Ok(Key { kind, id: None });
    if let Ok(pair) = RsaKeyPair::from_pkcs8(bytes).or_else(|_| RsaKeyPair::from_der(bytes)) {
        return key(Kind::Rsa(Box::new(pair)));
    }
    for (curve, algorithm, _) in &CURVES {
        if let Ok(pair) = EcdsaKeyPair::from_private_key_der(curve, bytes) {
            return key(Kind::Ec(Box::new(pair), *algorithm));
        }
    }
    if let Ok(pair) = Ed25519KeyPair::from_pkcs8(bytes) {
        return key(Kind::Ed25519(Box::new(pair)));
    }
    Err(DAMAGED)
}

fn jwk(text: &str) -> Result<Key, KeyError> {
    let map: Map<String, Value> = serde_json::from_str(text).map_err(|_| KeyError("the JWK is not JSON", "RFC 7517"))?;
    let text = |name: &str| map.get(name).and_then(Value::as_str);
    let part = |name: &str| {
        let decoded = text(name).and_then(|v| URL_SAFE.decode(v).ok()).filter(|v| !v.is_empty());
        decoded
            .map(Zeroizing::new)
            .ok_or(KeyError("a part of the private key is missing from the JWK, or is not base64url", "RFC 7518 section 6"))
    };
    let kind = match text("kty") {
        Some("RSA") => rsa_jwk(part)?,
        Some("EC") => {
            let name = text("crv").unwrap_or_default();
            let (curve, algorithm, _) = CURVES.iter().find(|(.., curve)| *curve == name).ok_or(DAMAGED)?;
            let point = [&[4][..], &part("x")?, &part("y")?].concat();
            let pair = EcdsaKeyPair::from_private_key_and_public_key(curve, &part("d")?, &point).map_err(|_| DAMAGED)?;
            Kind::Ec(Box::new(pair), *algorithm)
        }
        Some("OKP") if text("crv") == Some("Ed25519") => {
            let pair = Ed25519KeyPair::from_seed_and_public_key(&part("d")?, &part("x")?).map_err(|_| DAMAGED)?;
            Kind::Ed25519(Box::new(pair))
        }
        Some("oct") => Kind::Secret(part("k")?),
        _ => return Err(KeyError("the JWK is of no known type", "`kty` is RSA, EC, OKP or oct")),
    };
    Ok(Key { kind, id: text("kid").map(str::to_owned) })
}

type Part = Result<Zeroizing<Vec<u8>>, KeyError>;

fn rsa_jwk(part: impl Fn(&str) -> Part) -> Result<Kind, KeyError> {
    let bare = |bytes: Zeroizing<Vec<u8>>| bytes.iter().copied().skip_while(|b| *b == 0).collect::<Vec<u8>>();
    let components = rsa::KeyPairComponents {
        public_key: PublicKeyComponents { n: bare(part("n")?), e: bare(part("e")?) },
        d: part("d")?.as_slice().to_vec(),
        p: part("p")?.as_slice().to_vec(),
        q: part("q")?.as_slice().to_vec(),
        dP: part("dp")?.as_slice().to_vec(),
        dQ: part("dq")?.as_slice().to_vec(),
        qInv: part("qi")?.as_slice().to_vec(),
    };
    Ok(Kind::Rsa(Box::new(RsaKeyPair::from_components(&components).map_err(|_| DAMAGED)?)))
}

fn unbase64(text: &str) -> Option<Vec<u8>> {
    let bare = Zeroizing::new(text.split_ascii_whitespace().collect::<String>());
    STANDARD.decode(bare.as_bytes()).or_else(|_| URL_SAFE.decode(bare.as_bytes())).ok()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |b: u8| (b as char).to_digit(16).and_then(|d| u8::try_from(d).ok());
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|pair| if let [a, b] = pair { Some(digit(*a)? << 4 | digit(*b)?) } else { None }).collect()
}

#[cfg(test)]
mod tests;
