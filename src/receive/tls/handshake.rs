//! Why a handshake failed, in words for the person who runs the server.

use std::fmt;

use openssl::ssl::{Error, ErrorCode};

use crate::config::settings::TlsVersion;

/// The first octet of a TLS record with a handshake (RFC 8446 §5.1).
const HANDSHAKE_RECORD: u8 = 22;
/// The first bit of a greeting as SSL 2 has it (RFC 5246 appendix E.2).
const SSL_2_HELLO: u8 = 0x80;
/// What OpenSSL adds to the number of an alert that the peer sent.
const ALERT: i32 = 1000;

// Reasons of OpenSSL, which have kept their numbers since its version 1.1.
const NO_SHARED_CIPHER: i32 = 193;
const UNSUPPORTED_PROTOCOL: i32 = 258;
const VERSION_TOO_LOW: i32 = 396;

/// Why a handshake failed. `Display` says what, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HandshakeFailure {
    /// The client did not finish it in time.
    TooSlow,
    /// The client closed the connection before it was done.
    Left,
    /// What came is no TLS.
    NoTls,
    /// The client knows no version that is new enough for the listener.
    TooOld(TlsVersion),
    /// The client and the certificate have no cipher in common.
    NoCipher(TlsVersion),
    /// The client ended it with this alert (RFC 8446 §6.2).
    Alert(u8),
    /// Something else, as OpenSSL names it.
    Other(String),
}

impl HandshakeFailure {
    /// What an error of OpenSSL means, where `first` is the first octet that came, and the
    /// client has closed its side or not.
    pub(super) fn of(
        error: &Error,
        first: Option<u8>,
        is_at_end: bool,
        minimum: TlsVersion,
    ) -> Self {
        let is_tls = |first| first == HANDSHAKE_RECORD || first & SSL_2_HELLO != 0;
        let reasons = error.ssl_error().map(|errors| errors.errors()).unwrap_or_default();
        let numbers = || reasons.iter().map(openssl::error::Error::reason_code);
        if first.is_some_and(|first| !is_tls(first)) {
            return Self::NoTls;
        }
        if let Some(alert) = numbers().find_map(|number| u8::try_from(number - ALERT).ok()) {
            return Self::Alert(alert);
        }
        if numbers().any(|number| [UNSUPPORTED_PROTOCOL, VERSION_TOO_LOW].contains(&number)) {
            return Self::TooOld(minimum);
        }
        if numbers().any(|number| number == NO_SHARED_CIPHER) {
            return Self::NoCipher(minimum);
        }
        if is_at_end || error.code() == ErrorCode::ZERO_RETURN {
            return Self::Left;
        }
        match (reasons.first().and_then(openssl::error::Error::reason), error.io_error()) {
            (Some(reason), _) => Self::Other(reason.to_owned()),
            (None, Some(error)) => Self::Other(error.to_string()),
            (None, None) => Self::Other("no reason given".to_owned()),
        }
    }
}

impl fmt::Display for HandshakeFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooSlow => f.write_str("the client did not finish it in time"),
            Self::Left => f.write_str("the client closed the connection in the middle of it"),
            Self::NoTls => f.write_str(
                "the client speaks no TLS here; have it use STARTTLS on ports 25 and 587, and TLS \
                 from the beginning on 465",
            ),
            Self::TooOld(minimum) => write!(
                f,
                "the client knows only versions older than {}; an old device wants a listener of \
                 its own with tls_minimum = 1.0",
                name(*minimum)
            ),
            Self::NoCipher(minimum) if *minimum < TlsVersion::V1_2 => f.write_str(
                "the client knows no cipher that goes with the certificate; an old device wants \
                 one with an RSA key",
            ),
            Self::NoCipher(_) => f.write_str(
                "the client knows no cipher that is good enough; an old device wants a listener \
                 of its own with tls_minimum = 1.0, and a certificate with an RSA key",
            ),
            Self::Alert(number) => write!(f, "{} (alert {number})", alert(*number)),
            Self::Other(reason) => write!(f, "OpenSSL says: {reason}"),
        }
    }
}

/// What an alert of a client says (RFC 8446 §6, RFC 5246 §7.2).
pub(super) fn alert(number: u8) -> &'static str {
    match number {
        42 | 43 | 46 | 48 => {
            "the client does not trust our certificate; have one of an authority that it knows, \
             or tell it to trust this one"
        }
        45 => "the client takes our certificate for expired; renew it, or set the client's clock",
        44 => "the client takes our certificate for revoked; get a new one",
        70 => "the client refuses the version; its TLS is too old, or too new a minimum is set",
        40 | 47 | 71 => "the client does not take what the server offers or refuses",
        90 | 0 => "the client gave it up",
        _ => "the client ended it",
    }
}

/// What people call a version.
pub fn name(version: TlsVersion) -> &'static str {
    match version {
        TlsVersion::V1_0 => "TLS 1.0",
        TlsVersion::V1_1 => "TLS 1.1",
        TlsVersion::V1_2 => "TLS 1.2",
        TlsVersion::V1_3 => "TLS 1.3",
    }
}
