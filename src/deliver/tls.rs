//! TLS towards other hosts: the only module that knows native-tls.
//!
//! Where the peer has to prove that it is the host that was configured, native-tls makes the
//! connection: the certificate must be valid, for that name, and lead to a root of the system or
//! of the `ca` file; nothing below TLS 1.2 is spoken. A connector holds the roots and takes a
//! tenth of a second to make, so it is made when the first delivery needs it, and kept.
//!
//! Where one certificate is pinned, or nobody's is looked at, no roots are needed, and OpenSSL
//! itself does it, which native-tls is made of here: that context costs nothing.
//!
//! native-tls does not say what the certificate was that it refused. A handshake with
//! [`Trust::Nobody`] looks at it, and goes no further.

use std::collections::HashMap;
use std::fmt;
use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use native_tls::{Certificate as Root, Protocol, TlsConnector};
use openssl::error::ErrorStack;
use openssl::memcmp;
use openssl::ssl::{Ssl, SslContext, SslMethod, SslMode, SslStream, SslVerifyMode, SslVersion};

pub use self::error::{Doubt, Refused, TlsError};
use crate::deliver::storage::printable;
use crate::sys::watched::WatchedFile;
use certificate::{Certificate, Fingerprint};

pub mod certificate;
mod error;
pub mod hello;

/// The largest `ca` file that is read, in octets: ten times what a system's whole bundle has.
const MAX_CA_FILE: u64 = 4 << 20;

/// What the handshakes need that were run so far: a connector for the system's roots, one for
/// each `ca` file, and a context without any.
#[derive(Debug, Default)]
pub struct Connectors {
    system: OnceLock<Result<Connector, NoConnector>>,
    files: Mutex<HashMap<PathBuf, Arc<CaFile>>>,
    bare: OnceLock<Result<BareContext, NoConnector>>,
}

type CaFile = WatchedFile<Result<Connector, NoConnector>>;

impl Connectors {
    /// The connector that trusts the certificates in `ca`, or the system's without one. A
    /// file that has changed is read again.
    ///
    /// # Errors
    /// [`NoConnector`]: the configuration is to blame, or the system; not the peer.
    pub fn checked(&self, ca: Option<&Path>) -> Result<Trust, NoConnector> {
        let Some(path) = ca else {
            return self.system.get_or_init(|| Connector::new(None)).clone().map(Trust::Checked);
        };
        let useless =
            |why: &dyn fmt::Display| NoConnector(format!("ca {}: {why}", printable(path)));
        match self.file(path).load(|pem, _| Arc::new(Connector::new(Some(pem)))) {
            Ok(connector) => {
                connector.as_ref().clone().map(Trust::Checked).map_err(|error| useless(&error))
            }
            Err(error) => Err(useless(&error)),
        }
    }

    /// Trusts the one certificate with that SHA-256, whatever it says.
    ///
    /// # Errors
    /// [`NoConnector`], where OpenSSL is not fit for use.
    pub fn pinned(&self, fingerprint: [u8; 32]) -> Result<Trust, NoConnector> {
        Ok(Trust::Pinned(Fingerprint(fingerprint), self.bare()?))
    }

    /// Trusts anybody: then nobody can listen who only listens (RFC 7435).
    ///
    /// # Errors
    /// As [`Self::pinned`].
    pub fn anybody(&self) -> Result<Trust, NoConnector> {
        Ok(Trust::Anybody(self.bare()?))
    }

    /// Trusts nobody: the handshake ends with what the certificate says of itself, beside the
    /// doubt that somebody else had.
    ///
    /// # Errors
    /// As [`Self::pinned`].
    pub fn nobody(&self, doubt: Doubt) -> Result<Trust, NoConnector> {
        Ok(Trust::Nobody(doubt, self.bare()?))
    }

    fn bare(&self) -> Result<BareContext, NoConnector> {
        self.bare.get_or_init(|| BareContext::new().map_err(NoConnector::of)).clone()
    }

    fn file(&self, path: &Path) -> Arc<CaFile> {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Arc::new(WatchedFile::new(path.to_owned(), MAX_CA_FILE));
        Arc::clone(files.entry(path.to_owned()).or_insert_with(new))
    }
}

/// Why there is no connector, in words for a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoConnector(String);

impl NoConnector {
    fn of(error: impl fmt::Display) -> Self {
        Self(format!("there is no TLS: {error}"))
    }

    /// The same, with the section of the configuration that it is about.
    pub fn in_section(&self, section: &str) -> Self {
        Self(format!("[{section}] {self}"))
    }
}

impl fmt::Display for NoConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NoConnector {}

/// How a connection to one host is encrypted.
#[derive(Debug)]
pub enum Security {
    /// Not at all.
    None,
    /// By STARTTLS where the host offers it, else not at all (RFC 7435).
    IfOffered(TlsPeer),
    /// By STARTTLS (RFC 3207). Where that fails, nothing of the mail is sent.
    StartTls(TlsPeer),
    /// From its beginning (RFC 8314 §3).
    Implicit(TlsPeer),
}

/// Whom a handshake is with.
#[derive(Debug)]
pub struct TlsPeer {
    /// Says whose certificates are trusted.
    pub trust: Trust,
    /// Who it is: a name or an address.
    pub host: String,
}

/// Whom to trust. Cheap to clone.
#[derive(Clone, Debug)]
pub enum Trust {
    /// Who proves to be the host.
    Checked(Connector),
    /// Who shows this certificate.
    Pinned(Fingerprint, BareContext),
    /// Anybody.
    Anybody(BareContext),
    /// Nobody: the certificate is looked at, which somebody else refused for this.
    Nobody(Doubt, BareContext),
}

/// Trusts certificates that lead to a root.
#[derive(Clone, Debug)]
pub struct Connector(TlsConnector);

impl Connector {
    /// One that trusts these certificates, PEM, or the system's.
    fn new(ca: Option<&[u8]>) -> Result<Self, NoConnector> {
        let mut builder = TlsConnector::builder();
        builder.min_protocol_version(Some(Protocol::Tlsv12));
        if let Some(pem) = ca {
            let useless = |why: &str| NoConnector(why.to_owned());
            let certificates = Root::stack_from_pem(pem)
                .map_err(|_| useless("it has a certificate that cannot be read"))?;
            if certificates.is_empty() {
                return Err(useless("it has no certificate, PEM, in it"));
            }
            builder.disable_built_in_roots(true);
            for certificate in certificates {
                builder.add_root_certificate(certificate);
            }
        }
        builder.build().map(Self).map_err(NoConnector::of)
    }
}

/// Knows no roots and takes every certificate. The versions are those that the system allows.
#[derive(Clone)]
pub struct BareContext(SslContext);

impl fmt::Debug for BareContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BareContext")
    }
}

impl BareContext {
    fn new() -> Result<Self, ErrorStack> {
        let mut builder = SslContext::builder(SslMethod::tls_client())?;
        builder.set_verify(SslVerifyMode::NONE);
        builder.set_mode(SslMode::AUTO_RETRY | SslMode::RELEASE_BUFFERS);
        Ok(Self(builder.build()))
    }

    fn session(&self, host: &str, minimum: Option<SslVersion>) -> Result<Ssl, ErrorStack> {
        let mut session = Ssl::new(&self.0)?;
        if minimum.is_some() {
            session.set_min_proto_version(minimum)?;
        }
        // RFC 6066 §3: an address is no server name.
        if host.parse::<IpAddr>().is_err() {
            session.set_hostname(host)?;
        }
        Ok(session)
    }

    fn handshake<S: Read + Write>(
        &self,
        host: &str,
        minimum: Option<SslVersion>,
        stream: S,
    ) -> Result<SslStream<S>, TlsError> {
        use openssl::ssl::HandshakeError;
        let session = self.session(host, minimum).map_err(|error| TlsError::of(&error))?;
        session.connect(stream).map_err(|error| match error {
            HandshakeError::SetupFailure(error) => TlsError::of(&error),
            HandshakeError::Failure(stream) => TlsError::of(stream.error()),
            // The stream waits for itself, until its time is up.
            HandshakeError::WouldBlock(_) => TlsError::TooSlow,
        })
    }
}

impl TlsPeer {
    /// Runs the handshake over a stream that bounds its own time, and checks that the peer is
    /// to be trusted.
    ///
    /// # Errors
    /// [`TlsError`]; the stream is closed.
    pub fn handshake<S: Read + Write>(&self, stream: S) -> Result<Secured<S>, TlsError> {
        match &self.trust {
            Trust::Checked(connector) => self.checked_handshake(connector, stream),
            Trust::Anybody(context) => {
                context.handshake(&self.host, None, stream).map(Secured::Unchecked)
            }
            Trust::Pinned(pinned, context) => {
                let stream = context.handshake(&self.host, Some(SslVersion::TLS1_2), stream)?;
                let seen = seen(&stream);
                let shown = seen.as_ref().map(|seen| seen.fingerprint.0);
                // Nothing was said yet but the handshake.
                match shown.is_some_and(|shown| memcmp::eq(&shown, &pinned.0)) {
                    true => Ok(Secured::Pinned(stream)),
                    false => Err(TlsError::refused(Doubt::NotPinned, &self.host, seen)),
                }
            }
            Trust::Nobody(doubt, context) => {
                let stream = context.handshake(&self.host, None, stream)?;
                Err(TlsError::refused(doubt.clone(), &self.host, seen(&stream)))
            }
        }
    }

    fn checked_handshake<S: Read + Write>(
        &self,
        connector: &Connector,
        stream: S,
    ) -> Result<Secured<S>, TlsError> {
        use native_tls::HandshakeError;
        connector.0.connect(&self.host, stream).map(Secured::Checked).map_err(|error| match error {
            HandshakeError::Failure(error) => TlsError::of_checked(&error, &self.host),
            HandshakeError::WouldBlock(_) => TlsError::TooSlow,
        })
    }
}

fn seen<S>(stream: &SslStream<S>) -> Option<Certificate> {
    Certificate::read(&*stream.ssl().peer_certificate()?)
}

/// What protects a session, for whoever decides what may be said in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protection {
    /// Nothing: it is in the clear.
    None,
    /// It is encrypted, but the peer may be anybody.
    Encrypted,
    /// It is encrypted, and the peer has proved to be the host.
    Checked,
}

/// An encrypted stream.
#[derive(Debug)]
pub enum Secured<S> {
    /// The peer has proved its name.
    Checked(native_tls::TlsStream<S>),
    /// The peer has shown the certificate that was pinned.
    Pinned(SslStream<S>),
    /// The peer may be anybody.
    Unchecked(SslStream<S>),
}

impl<S: Read + Write> Secured<S> {
    /// What it protects from.
    pub const fn protection(&self) -> Protection {
        match self {
            Self::Checked(_) | Self::Pinned(_) => Protection::Checked,
            Self::Unchecked(_) => Protection::Encrypted,
        }
    }

    /// The stream below.
    pub fn plain_mut(&mut self) -> &mut S {
        match self {
            Self::Checked(stream) => stream.get_mut(),
            Self::Pinned(stream) | Self::Unchecked(stream) => stream.get_mut(),
        }
    }

    /// Tells the peer that nothing more comes (RFC 8446 §6.1); does not wait for its answer.
    ///
    /// # Errors
    /// As the stream's.
    pub fn say_end(&mut self) -> io::Result<()> {
        match self {
            Self::Checked(stream) => stream.shutdown(),
            Self::Pinned(stream) | Self::Unchecked(stream) => stream
                .shutdown()
                .map(|_| ())
                .map_err(|error| error.into_io_error().unwrap_or_else(io::Error::other)),
        }
    }
}

impl<S: Read + Write> Read for Secured<S> {
    fn read(&mut self, octets: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Checked(stream) => stream.read(octets),
            Self::Pinned(stream) | Self::Unchecked(stream) => stream.read(octets),
        }
    }
}

impl<S: Read + Write> Write for Secured<S> {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        match self {
            Self::Checked(stream) => stream.write(octets),
            Self::Pinned(stream) | Self::Unchecked(stream) => stream.write(octets),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Checked(stream) => stream.flush(),
            Self::Pinned(stream) | Self::Unchecked(stream) => stream.flush(),
        }
    }
}
