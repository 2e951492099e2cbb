//! What went wrong, as facts. Whose fault it is, the status, the code and whether a retry can help follow from the
//! variant alone, here and nowhere else (RFC 9457 for the reply, RFC 9209 for `Proxy-Status`, rulings B1, B2 and B8).
//!
//! The text for the client ([`Error::detail`], [`Error::hint`]) and the text for the log ([`Error::cause`]) are apart;
//! neither holds a secret. `docs/errors.md` has a section for each code, and a test holds the two together.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

/// Short text, mostly fixed.
pub type Text = Cow<'static, str>;

/// Whose fault an error is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The caller sent something wrong.
    Client,
    /// The gateway cannot serve it, by load or by its own trouble.
    Gateway,
    /// The party that hands out tokens.
    Issuer,
    /// The server behind the resource.
    Upstream,
}

/// Which wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// TCP and TLS handshakes (`timeouts.connect`).
    Connect,
    /// Until the head of the answer (`timeouts.head`).
    Head,
    /// Between two pieces of a body (`timeouts.idle`).
    Idle,
    /// The whole exchange (`timeouts.total`).
    Total,
}

/// Why an upstream's TLS was not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TlsFault {
    /// The certificate is past its end, or not valid yet.
    Expired,
    /// The certificate is for another name.
    WrongName,
    /// Nobody we trust has signed it.
    UnknownIssuer,
    /// The certificate was revoked.
    Revoked,
    /// The public key is not one of `tls.pin_sha256`.
    Pin,
    /// The other end wants a certificate of the gateway's, or another one than it was shown: its alert.
    Certificate(String),
    /// No common version or cipher, or an alert: what the library says.
    Handshake(String),
}

/// Why an upstream could not be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unreachable {
    /// Nothing listens there.
    Refused,
    /// No route, network down, and the like: the operating system's word.
    Network(String),
    /// The gateway may not connect there.
    Forbidden(String),
    /// What a token or an account brings leads to no place where the gateway may go: why.
    Astray(Text),
}

/// How an upstream broke the protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Breach {
    /// The connection ended before the head of an answer.
    Closed,
    /// The connection was reset.
    Reset,
    /// The upstream has refused the request unseen, again and again.
    Refused,
    /// The head or the framing of the answer is not HTTP.
    Framing(String),
    /// The body ended before its announced end.
    Cut,
    /// 101 that nobody asked for (ruling D43).
    Unasked101,
    /// The body is larger than `limits.response_body`.
    TooLarge(u64),
    /// It holds the credential that was sent, and `reflection: block` forbids that.
    Reflected,
    /// It is compressed although that was not asked for, so that nobody can search it for the credential.
    Sealed,
}

/// What is wrong with a token, told three ways. None holds a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// What happened, for the client.
    pub detail: Text,
    /// What to change.
    pub hint: Text,
    /// What happened, for the log.
    pub cause: Text,
}

/// An account that is not there, or that its issuer has refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// The resource.
    pub resource: Arc<str>,
    /// The name of the connection.
    pub connection: Arc<str>,
    /// Whether there was one.
    pub dead: bool,
    /// Where a person mends it.
    pub link: Option<String>,
}

/// Everything that can end a request before an upstream's answer does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// No such resource. Holds the names that there are, for the hint.
    UnknownResource(String),
    /// A path that is refused: why, and what to change.
    BadPath(Text, Text),
    /// A request that is refused: why, and what to change.
    BadRequest(Text, Text),
    /// The head took longer than `server.timeouts.header`.
    SlowHead,
    /// The body stalled for `server.timeouts.body_idle`, or came slower than `server.limits.min_body_rate`.
    SlowBody,
    /// A caller who does not say who they are, where the resource needs that: why, and what to send.
    Unauthenticated(Text, Text),
    /// A browser on another site's behalf (ruling D27).
    CrossSite(Text),
    /// The resource does not allow this (`websocket: false` and the like).
    Forbidden(Text, Text),
    /// TRACE, CONNECT.
    MethodNotAllowed(Text),
    /// A body over a limit of so many bytes; the text names the limit.
    BodyTooLarge(u64, Text),
    /// A head over a limit; the text names the limit.
    HeadersTooLarge(Text),
    /// A named limit is full.
    Overloaded(Text),
    /// The request came back to this very gateway.
    Loop(String),
    /// The gateway is shutting down.
    Draining,
    /// No room for the audit record within `timeouts.queue`.
    AuditUnavailable,
    /// What must be kept cannot be: the text is for the log.
    StoreUnavailable(String),
    /// The issuer of a token cannot be had, or answers with what is none: what happened, for the client and for the log,
    /// and when the next attempt is due.
    IssuerUnavailable(Box<Trouble>, Duration),
    /// The issuer has refused the grant, which only a person can mend: what happened, and the cure.
    CredentialRefused(Box<Trouble>),
    /// A person must consent first, or again.
    ConnectionMissing(Box<Missing>),
    /// No connection.
    Unreachable(Unreachable),
    /// The name of the upstream does not resolve.
    Dns(String),
    /// TLS to the upstream failed.
    Tls(TlsFault),
    /// The upstream was silent.
    Timeout(Stage),
    /// The upstream does not speak HTTP as it must.
    Protocol(Breach),
    /// A defect of the gateway itself; the text is for the log.
    Internal(String),
}

impl Error {
    /// The stable code (ruling B1).
    pub fn code(&self) -> &'static str {
        match self {
            Self::UnknownResource(_) => "unknown-resource",
            Self::BadPath(..) => "bad-path",
            Self::BadRequest(..) | Self::SlowHead | Self::SlowBody => "bad-request",
            Self::Unauthenticated(..) => "unauthenticated",
            Self::CrossSite(_) => "cross-site",
            Self::Forbidden(..) => "forbidden",
            Self::MethodNotAllowed(_) => "method-not-allowed",
            Self::BodyTooLarge(..) => "body-too-large",
            Self::HeadersTooLarge(_) => "headers-too-large",
            Self::Overloaded(_) => "overloaded",
            Self::Loop(_) => "loop",
            Self::Draining => "draining",
            Self::AuditUnavailable => "audit-unavailable",
            Self::StoreUnavailable(_) => "store-unavailable",
            Self::IssuerUnavailable(..) => "issuer-unavailable",
            Self::CredentialRefused(_) => "credential-refused",
            Self::ConnectionMissing(_) => "connection-missing",
            Self::Unreachable(_) => "upstream-unreachable",
            Self::Dns(_) => "upstream-dns",
            Self::Tls(_) => "upstream-tls",
            Self::Timeout(_) => "upstream-timeout",
            Self::Protocol(_) => "upstream-protocol",
            Self::Internal(_) => "internal",
        }
    }

    /// The status of the reply (ruling B2).
    pub fn status(&self) -> StatusCode {
        match self {
            Self::UnknownResource(_) => StatusCode::NOT_FOUND,
            Self::BadPath(..) | Self::BadRequest(..) => StatusCode::BAD_REQUEST,
            Self::SlowHead | Self::SlowBody => StatusCode::REQUEST_TIMEOUT,
            Self::Unauthenticated(..) => StatusCode::UNAUTHORIZED,
            Self::CrossSite(_) | Self::Forbidden(..) => StatusCode::FORBIDDEN,
            Self::MethodNotAllowed(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::BodyTooLarge(..) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::HeadersTooLarge(_) => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::Overloaded(_) | Self::Draining | Self::AuditUnavailable | Self::StoreUnavailable(_) | Self::IssuerUnavailable(..) => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::CredentialRefused(_) => StatusCode::BAD_GATEWAY,
            Self::ConnectionMissing(_) => StatusCode::FAILED_DEPENDENCY,
            Self::Loop(_) => StatusCode::LOOP_DETECTED,
            Self::Unreachable(_) | Self::Dns(_) | Self::Tls(_) | Self::Protocol(_) => StatusCode::BAD_GATEWAY,
            Self::Timeout(_) => StatusCode::GATEWAY_TIMEOUT,
            Self::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// Whose fault it is.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Overloaded(_) | Self::Draining | Self::AuditUnavailable | Self::StoreUnavailable(_) | Self::Internal(_) => Fault::Gateway,
            Self::IssuerUnavailable(..) | Self::CredentialRefused(_) => Fault::Issuer,
            Self::ConnectionMissing(missing) if missing.dead => Fault::Issuer,
            Self::Unreachable(_) | Self::Dns(_) | Self::Tls(_) | Self::Timeout(_) | Self::Protocol(_) => Fault::Upstream,
            _ => Fault::Client,
        }
    }

    /// Whether the same request may succeed later without anyone changing anything.
    pub fn retryable(&self) -> bool {
        match self {
            Self::Overloaded(_) | Self::Draining | Self::AuditUnavailable | Self::StoreUnavailable(_) | Self::IssuerUnavailable(..) => true,
            Self::Unreachable(why) => !matches!(why, Unreachable::Forbidden(_) | Unreachable::Astray(_)),
            Self::Dns(_) | Self::Timeout(_) => true,
            Self::Protocol(breach) => matches!(breach, Breach::Closed | Breach::Reset | Breach::Refused | Breach::Cut),
            _ => false,
        }
    }

    /// Where a person mends it, where there is such a place.
    pub fn link(&self) -> Option<&str> {
        if let Self::ConnectionMissing(missing) = self { missing.link.as_deref() } else { None }
    }

    /// The connection that it is about, where it is about one.
    pub fn connection(&self) -> Option<&str> {
        if let Self::ConnectionMissing(missing) = self { Some(&missing.connection) } else { None }
    }

    /// When to come back, where the gateway knows.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Overloaded(_) | Self::AuditUnavailable | Self::StoreUnavailable(_) | Self::Draining => Some(Duration::from_secs(1)),
            // Whole seconds, rounded up: whoever comes back then finds the attempt due.
            Self::IssuerUnavailable(_, wait) => Some(Duration::from_secs(wait.as_millis().div_ceil(1000).try_into().unwrap_or(u64::MAX))),
            _ => None,
        }
    }

    /// A short name for the kind of error, the same for every occurrence (RFC 9457 section 3.1.3).
    pub fn title(&self) -> &'static str {
        match self {
            Self::UnknownResource(_) => "Unknown resource",
            Self::BadPath(..) => "Path refused",
            Self::BadRequest(..) => "Request refused",
            Self::SlowHead | Self::SlowBody => "Request too slow",
            Self::Unauthenticated(..) => "Who is calling?",
            Self::CrossSite(_) => "Cross-site request refused",
            Self::Forbidden(..) => "Not allowed",
            Self::MethodNotAllowed(_) => "Method not allowed",
            Self::BodyTooLarge(..) => "Body too large",
            Self::HeadersTooLarge(_) => "Request head too large",
            Self::Overloaded(_) => "Overloaded",
            Self::Loop(_) => "Loop detected",
            Self::Draining => "Shutting down",
            Self::AuditUnavailable => "Audit unavailable",
            Self::StoreUnavailable(_) => "Store unavailable",
            Self::IssuerUnavailable(..) => "Issuer unavailable",
            Self::CredentialRefused(_) => "Credential refused",
            Self::ConnectionMissing(_) => "Connection missing",
            Self::Unreachable(_) => "Upstream unreachable",
            Self::Dns(_) => "Upstream name not found",
            Self::Tls(_) => "Upstream TLS failed",
            Self::Timeout(_) => "Upstream timed out",
            Self::Protocol(_) => "Upstream broke the protocol",
            Self::Internal(_) => "Internal error",
        }
    }

    /// What happened, for the client. Names nothing internal.
    pub fn detail(&self) -> Text {
        match self {
            Self::UnknownResource(_) => "There is no such resource behind this gateway.".into(),
            Self::BadPath(why, _) | Self::BadRequest(why, _) | Self::Unauthenticated(why, _) | Self::Forbidden(why, _) => why.clone(),
            Self::SlowHead => "The head of the request did not arrive in time.".into(),
            Self::SlowBody => "The body of the request arrived too slowly.".into(),
            Self::CrossSite(why) => why.clone(),
            Self::MethodNotAllowed(method) => format!("{method} is not forwarded.").into(),
            Self::BodyTooLarge(limit, name) => format!("The body is larger than {limit} bytes ({name}).").into(),
            Self::HeadersTooLarge(what) => what.clone(),
            Self::Overloaded(what) => format!("{what} is full.").into(),
            Self::Loop(name) => format!("The request has already passed this gateway ({name}).").into(),
            Self::Draining => "The gateway is shutting down.".into(),
            Self::AuditUnavailable => "The audit log cannot take a record now, so nothing was sent upstream.".into(),
            Self::StoreUnavailable(_) => "What the gateway must keep cannot be stored now, so nothing was sent upstream.".into(),
            Self::IssuerUnavailable(trouble, _) | Self::CredentialRefused(trouble) => trouble.detail.clone(),
            Self::ConnectionMissing(missing) => {
                let what =
                    if missing.dead { "is no longer accepted by its issuer, or was made with another one" } else { "is not connected" };
                format!("The connection `{}` of {} {what}.", missing.connection, missing.resource).into()
            }
            Self::Unreachable(Unreachable::Refused) => "The upstream refused the connection.".into(),
            Self::Unreachable(Unreachable::Network(_)) => "The upstream cannot be reached over the network.".into(),
            Self::Unreachable(Unreachable::Forbidden(why)) => format!("The gateway may not connect there: {why}.").into(),
            Self::Unreachable(Unreachable::Astray(why)) => {
                format!("What comes with the credential leads to no place where the gateway may go: {why}.").into()
            }
            Self::Dns(_) => "The upstream's name does not resolve.".into(),
            Self::Tls(TlsFault::Expired) => "The upstream's certificate has expired or is not valid yet.".into(),
            Self::Tls(TlsFault::WrongName) => "The upstream's certificate is for another name.".into(),
            Self::Tls(TlsFault::UnknownIssuer) => "The upstream's certificate is not signed by an authority that is trusted here.".into(),
            Self::Tls(TlsFault::Revoked) => "The upstream's certificate is revoked.".into(),
            Self::Tls(TlsFault::Pin) => "The upstream's public key is none of the pinned ones.".into(),
            Self::Tls(TlsFault::Certificate(_)) => "The upstream does not take the gateway's client certificate, or wants one.".into(),
            Self::Tls(TlsFault::Handshake(_)) => "The TLS handshake with the upstream failed.".into(),
            Self::Timeout(Stage::Connect) => "Connecting to the upstream took too long.".into(),
            Self::Timeout(Stage::Head) => "The upstream did not answer in time.".into(),
            Self::Timeout(Stage::Idle) => "The upstream fell silent.".into(),
            Self::Timeout(Stage::Total) => "The exchange took too long as a whole.".into(),
            Self::Protocol(Breach::Closed) => "The upstream closed the connection without an answer.".into(),
            Self::Protocol(Breach::Reset) => "The upstream reset the connection.".into(),
            Self::Protocol(Breach::Refused) => "The upstream takes no requests now.".into(),
            Self::Protocol(Breach::Framing(_)) => "The upstream's answer is not valid HTTP.".into(),
            Self::Protocol(Breach::Cut) => "The upstream's answer was cut off.".into(),
            Self::Protocol(Breach::Unasked101) => "The upstream switched protocols without being asked.".into(),
            Self::Protocol(Breach::Reflected) => "The upstream's answer holds the credential that was sent to it.".into(),
            Self::Protocol(Breach::Sealed) => {
                "The upstream's answer is compressed unasked and cannot be searched for the credential.".into()
            }
            Self::Protocol(Breach::TooLarge(limit)) => {
                format!("The upstream's answer is larger than {limit} bytes (limits.response_body).").into()
            }
            Self::Internal(_) => "The gateway failed; the log has the reason under this request id.".into(),
        }
    }

    /// What to change.
    pub fn hint(&self) -> Text {
        match self {
            Self::UnknownResource(known) if known.is_empty() => "No resource is configured: add one under `resources`.".into(),
            Self::UnknownResource(known) => format!("Call /r/<resource>/<path>. Known: {known}").into(),
            Self::BadPath(_, hint) | Self::BadRequest(_, hint) | Self::Unauthenticated(_, hint) | Self::Forbidden(_, hint) => hint.clone(),
            Self::SlowHead => "Send the whole head at once; server.timeouts.header sets the limit.".into(),
            Self::SlowBody => "Send faster; server.timeouts.body_idle and server.limits.min_body_rate set the limits.".into(),
            Self::CrossSite(_) => {
                "Call from a program, from the gateway's own origin, or by a loopback name; pages of other sites are refused.".into()
            }
            Self::MethodNotAllowed(_) => "TRACE and CONNECT are never forwarded.".into(),
            Self::BodyTooLarge(_, name) => format!("Send less, or raise {name}.").into(),
            Self::HeadersTooLarge(_) => "Send fewer or shorter fields, or raise server.limits.".into(),
            Self::Overloaded(_) => "Try again shortly; limits and timeouts.queue set how many wait how long.".into(),
            Self::Loop(_) => "A resource's base_url points back at this gateway.".into(),
            Self::Draining => "Try again: another instance, or this one once restarted.".into(),
            Self::AuditUnavailable => "Make room where the audit sinks write; audit.on_full: drop serves without a record.".into(),
            Self::StoreUnavailable(_) => "Make room where `store` writes; the log has the reason.".into(),
            Self::IssuerUnavailable(trouble, _) | Self::CredentialRefused(trouble) => trouble.hint.clone(),
            Self::ConnectionMissing(missing) => missing.hint(),
            Self::Unreachable(Unreachable::Forbidden(_)) => "Point base_url elsewhere.".into(),
            Self::Unreachable(Unreachable::Astray(_)) => "Check what `base_url` reads of the token, and `hosts`.".into(),
            Self::Unreachable(_) => "Check that the upstream runs and that base_url has its host and port.".into(),
            Self::Dns(_) => "Check the host in base_url, and the gateway's resolver.".into(),
            Self::Tls(TlsFault::Expired) => "Renew the upstream's certificate; check the gateway's clock.".into(),
            Self::Tls(TlsFault::WrongName) => "Use the certificate's name in base_url, or set tls.server_name.".into(),
            Self::Tls(TlsFault::UnknownIssuer) => "Set tls.ca to the authority's certificate.".into(),
            Self::Tls(TlsFault::Revoked) => "The upstream needs a new certificate.".into(),
            Self::Tls(TlsFault::Pin) => "Check who answers there; after a planned key change, update tls.pin_sha256.".into(),
            Self::Tls(TlsFault::Certificate(_)) => {
                "Check `mtls` of the resource: whose certificate it is, who has signed it, and its dates.".into()
            }
            Self::Tls(TlsFault::Handshake(_)) => "Check that the port speaks TLS and offers tls.min_version.".into(),
            Self::Timeout(stage) => format!("Try again, or raise timeouts.{}.", stage.key()).into(),
            Self::Protocol(Breach::TooLarge(_)) => "Ask for less, or raise limits.response_body.".into(),
            Self::Protocol(Breach::Reflected | Breach::Sealed) => {
                "`reflection` of the resource says what becomes of such an answer.".into()
            }
            Self::Protocol(_) => "The upstream or something before it is at fault; the gateway's log says more.".into(),
            Self::Internal(_) => "Report it with the request id.".into(),
        }
    }

    /// What happened, for the log: more than the client is told, still no secret.
    pub fn cause(&self) -> Text {
        match self {
            Self::Unreachable(Unreachable::Network(why)) => why.clone().into(),
            Self::Dns(host) => format!("{host} does not resolve").into(),
            Self::Tls(TlsFault::Certificate(alert)) => format!("the upstream refuses the client certificate by the alert {alert}").into(),
            Self::Tls(TlsFault::Handshake(why)) => format!("TLS handshake: {why}").into(),
            Self::Protocol(Breach::Framing(why)) => format!("bad answer: {why}").into(),
            Self::Internal(why) | Self::StoreUnavailable(why) => why.clone().into(),
            Self::IssuerUnavailable(trouble, _) | Self::CredentialRefused(trouble) => trouble.cause.clone(),
            other => other.detail(),
        }
    }

    /// The error type of `Proxy-Status` (RFC 9209 section 2.3).
    pub fn proxy_status(&self) -> &'static str {
        match self {
            Self::UnknownResource(_) => "destination_not_found",
            Self::BadPath(..) | Self::BadRequest(..) | Self::SlowHead | Self::SlowBody => "http_request_error",
            Self::BodyTooLarge(..) | Self::HeadersTooLarge(_) | Self::MethodNotAllowed(_) => "http_request_error",
            Self::Unauthenticated(..) | Self::CrossSite(_) | Self::Forbidden(..) => "http_request_denied",
            Self::Overloaded(_) => "connection_limit_reached",
            Self::Loop(_) => "proxy_loop_detected",
            Self::Draining | Self::AuditUnavailable | Self::StoreUnavailable(_) | Self::IssuerUnavailable(..) => "destination_unavailable",
            Self::CredentialRefused(_) | Self::ConnectionMissing(_) => "proxy_configuration_error",
            Self::Unreachable(Unreachable::Refused) => "connection_refused",
            Self::Unreachable(Unreachable::Network(_)) => "destination_ip_unroutable",
            Self::Unreachable(Unreachable::Forbidden(_) | Unreachable::Astray(_)) => "destination_ip_prohibited",
            Self::Dns(_) => "dns_error",
            Self::Tls(TlsFault::Certificate(_)) => "tls_alert_received",
            Self::Tls(TlsFault::Handshake(_)) => "tls_protocol_error",
            Self::Tls(_) => "tls_certificate_error",
            Self::Timeout(Stage::Connect) => "connection_timeout",
            Self::Timeout(Stage::Head | Stage::Total) => "http_response_timeout",
            Self::Timeout(Stage::Idle) => "connection_read_timeout",
            Self::Protocol(Breach::Closed | Breach::Reset | Breach::Refused) => "connection_terminated",
            Self::Protocol(Breach::Framing(_)) => "http_protocol_error",
            Self::Protocol(Breach::Cut) => "http_response_incomplete",
            Self::Protocol(Breach::Unasked101) => "http_upgrade_failed",
            Self::Protocol(Breach::TooLarge(_)) => "http_response_body_size",
            Self::Protocol(Breach::Reflected | Breach::Sealed) => "http_protocol_error",
            Self::Internal(_) => "proxy_internal_error",
        }
    }
}

impl Missing {
    fn hint(&self) -> Text {
        let Self { resource, connection, link, .. } = self;
        let command = if **connection == *"default" {
            format!("postern connect {resource}")
        } else {
            format!("postern connect {resource} --connection {connection}")
        };
        match link {
            Some(link) => format!("Open {link} in a browser, or run `{command}`.").into(),
            None => format!("Run `{command}` where the gateway runs.").into(),
        }
    }
}

impl Stage {
    /// The key under `timeouts` that sets it.
    pub fn key(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Head => "head",
            Self::Idle => "idle",
            Self::Total => "total",
        }
    }
}

impl Fault {
    /// The word in problem bodies.
    pub fn word(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Gateway => "gateway",
            Self::Issuer => "issuer",
            Self::Upstream => "upstream",
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code(), self.cause())
    }
}

impl std::error::Error for Error {}
