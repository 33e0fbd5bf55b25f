//! The versions and ciphers that a listener takes: those of RFC 9325 by Mozilla's "intermediate"
//! list, and for listeners of old devices what those know.

use openssl::error::ErrorStack;
use openssl::pkey::{PKeyRef, Private};
use openssl::ssl::{
    SslAcceptor, SslContext, SslMethod, SslOptions, SslSessionCacheMode, SslVersion,
};
use openssl::x509::X509;

use crate::config::settings::TlsVersion;

/// What devices of before TLS 1.2 know, the better first. At level 0 OpenSSL takes the SHA-1 that
/// TLS 1.0 and 1.1 are made of; nothing without encryption or authentication is in it.
const OLD_CIPHERS: &str = "ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM:ECDHE+AES:DHE+AES:RSA+AESGCM:\
                           RSA+AES:RSA+3DES:!aNULL:!eNULL:!PSK:!SRP:!DSS@SECLEVEL=0";

/// A context that takes no version older than `minimum` and shows the first of `chain`.
///
/// # Errors
/// When OpenSSL does not take the certificate.
pub(super) fn context(
    minimum: TlsVersion,
    chain: &[X509],
    key: &PKeyRef<Private>,
) -> Result<SslContext, ErrorStack> {
    let mut builder = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server())?;
    if minimum < TlsVersion::V1_2 {
        builder.clear_options(SslOptions::NO_TLSV1 | SslOptions::NO_TLSV1_1);
        builder.set_options(SslOptions::CIPHER_SERVER_PREFERENCE);
        builder.set_cipher_list(OLD_CIPHERS)?;
    }
    builder.set_min_proto_version(Some(match minimum {
        TlsVersion::V1_0 => SslVersion::TLS1,
        TlsVersion::V1_1 => SslVersion::TLS1_1,
        TlsVersion::V1_2 => SslVersion::TLS1_2,
        TlsVersion::V1_3 => SslVersion::TLS1_3,
    }))?;
    // RFC 9325 §3.5: no client needs it, and it has been a way in (CVE-2009-3555).
    builder.set_options(SslOptions::NO_RENEGOTIATION);
    // Nothing is resumed: mail comes in few, long sessions. A cache would grow, and the key of
    // tickets would have to change regularly (RFC 9325 §3.4).
    builder.set_options(SslOptions::NO_TICKET);
    builder.set_session_cache_mode(SslSessionCacheMode::OFF);
    builder.set_num_tickets(0)?;
    // A record in one call of the system, not two.
    builder.set_read_ahead(true);
    let mut certificates = chain.iter();
    if let Some(own) = certificates.next() {
        builder.set_certificate(own)?;
    }
    for above in certificates {
        builder.add_extra_chain_cert(above.clone())?;
    }
    builder.set_private_key(key)?;
    Ok(builder.build().into_context())
}
