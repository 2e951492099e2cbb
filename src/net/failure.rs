//! Tells failures apart, by type and never by text.

use std::error::Error as StdError;
use std::io;

use rustls::{AlertDescription, CertificateError, Error as TlsError};

use crate::error::{Breach, Error, TlsFault, Unreachable};
use crate::net::tls::PinMismatch;

/// The first error of a type along the chain of causes. `io::Error` hides what it wraps from `source`.
fn find<'e, E: StdError + 'static>(error: &'e (dyn StdError + 'static)) -> Option<&'e E> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<E>() {
            return Some(found);
        }
        let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = wrapped.map(|e| e as &(dyn StdError + 'static)).or_else(|| error.source());
    }
    None
}

/// Why a TCP connection could not be made.
pub fn connecting(error: &io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Error::Unreachable(Unreachable::Refused),
        io::ErrorKind::TimedOut => Error::Timeout(crate::error::Stage::Connect),
        io::ErrorKind::ConnectionReset => Error::Protocol(Breach::Reset),
        kind => Error::Unreachable(Unreachable::Network(kind.to_string())),
    }
}

/// Why a TLS handshake failed.
pub fn handshake(error: &io::Error) -> Error {
    let Some(tls) = find::<TlsError>(error) else {
        return Error::Tls(TlsFault::Handshake(match error.kind() {
            io::ErrorKind::UnexpectedEof => "the connection ended within it".into(),
            kind => kind.to_string(),
        }));
    };
    Error::Tls(match tls {
        TlsError::InvalidCertificate(why) => certificate(why),
        TlsError::AlertReceived(alert) if is_about_ours(*alert) => TlsFault::Certificate(format!("{alert:?}")),
        TlsError::InvalidMessage(_) | TlsError::InappropriateMessage { .. } => {
            TlsFault::Handshake("what answers there does not speak TLS".into())
        }
        other => TlsFault::Handshake(other.to_string()),
    })
}

/// Whether an alert is about the certificate that the gateway has shown, or should have (RFC 8446 section 6.2).
fn is_about_ours(alert: AlertDescription) -> bool {
    use AlertDescription as Alert;
    matches!(
        alert,
        Alert::CertificateRequired
            | Alert::NoCertificate
            | Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::UnknownCA
            | Alert::AccessDenied
    )
}

fn certificate(why: &CertificateError) -> TlsFault {
    match why {
        CertificateError::Expired
        | CertificateError::ExpiredContext { .. }
        | CertificateError::NotValidYet
        | CertificateError::NotValidYetContext { .. } => TlsFault::Expired,
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => TlsFault::WrongName,
        // An authority of the same name with another key shows as a bad signature.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => TlsFault::UnknownIssuer,
        CertificateError::Revoked => TlsFault::Revoked,
        CertificateError::Other(other) if other.0.downcast_ref::<PinMismatch>().is_some() => TlsFault::Pin,
        other => TlsFault::Handshake(format!("{other:?}")),
    }
}

/// What became of a request that got no answer.
#[derive(Debug)]
pub enum Fate {
    /// The upstream has not looked at it, and says so (RFC 9113 section 8.7).
    Untouched,
    /// The upstream wants it over HTTP/1.1.
    NeedsOne,
    /// The connection ended under it.
    Died(Error),
    /// Anything else.
    Lost(Error),
}

impl Fate {
    /// The error that the client is told of, where it is not sent again.
    pub fn into_error(self) -> Error {
        match self {
            Self::Untouched | Self::NeedsOne => Error::Protocol(Breach::Refused),
            Self::Died(error) | Self::Lost(error) => error,
        }
    }
}

/// What became of a request that got no answer.
pub fn fate(error: &hyper::Error) -> Fate {
    if let Some(stream) = find::<h2::Error>(error).filter(|e| e.is_remote()) {
        match stream.reason() {
            Some(h2::Reason::HTTP_1_1_REQUIRED) => return Fate::NeedsOne,
            Some(h2::Reason::REFUSED_STREAM) => return Fate::Untouched,
            // Only streams behind the last one that the upstream has looked at end with its GOAWAY.
            _ if stream.is_go_away() => return Fate::Untouched,
            _ => return Fate::Lost(exchange(error)),
        }
    }
    match exchange(error) {
        error @ Error::Protocol(Breach::Closed | Breach::Reset) => Fate::Died(error),
        error => Fate::Lost(error),
    }
}

/// Why a request got no answer.
pub fn exchange(error: &hyper::Error) -> Error {
    // What the client's body failed with comes back through hyper.
    if let Some(own) = find::<Error>(error) {
        return own.clone();
    }
    // In TLS 1.3 a client has shaken hands before the other end has judged its certificate.
    if let Some(TlsError::AlertReceived(alert)) = find::<TlsError>(error)
        && is_about_ours(*alert)
    {
        return Error::Tls(TlsFault::Certificate(format!("{alert:?}")));
    }
    if error.is_parse() {
        return Error::Protocol(Breach::Framing(error.to_string()));
    }
    if let Some(error) = find::<h2::Error>(error).filter(|e| !e.is_io()) {
        return Error::Protocol(if error.is_reset() && error.is_remote() { Breach::Reset } else { Breach::Framing(error.to_string()) });
    }
    if error.is_timeout() || error.is_incomplete_message() || error.is_canceled() || error.is_closed() {
        return Error::Protocol(Breach::Closed);
    }
    match find::<io::Error>(error).map(io::Error::kind) {
        Some(io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionAborted) => {
            Error::Protocol(Breach::Reset)
        }
        Some(io::ErrorKind::UnexpectedEof) => Error::Protocol(Breach::Closed),
        _ => Error::Protocol(Breach::Framing(error.to_string())),
    }
}

/// Why an answer's body broke off.
pub fn broken_body(error: &hyper::Error) -> Error {
    if let Some(own) = find::<Error>(error) {
        return own.clone();
    }
    if find::<h2::Error>(error).is_some_and(|e| !e.is_io() && !e.is_remote()) {
        return Error::Protocol(Breach::Framing("the answer's frames do not fit together".into()));
    }
    match find::<io::Error>(error).map(io::Error::kind) {
        Some(io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData) => Error::Protocol(Breach::Framing("bad chunks".into())),
        Some(io::ErrorKind::ConnectionReset) => Error::Protocol(Breach::Reset),
        _ => Error::Protocol(Breach::Cut),
    }
}
