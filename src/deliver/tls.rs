//! TLS towards a smarthost: the only module that knows native-tls.
//!
//! The peer's certificate must be valid, for the name that was configured, and lead to a root
//! of the system or of the `ca` file; nothing below TLS 1.2 is spoken. There is no way to
//! switch that off. A connector holds the roots and takes a tenth of a second to make, so it
//! is made when the first delivery needs it, and kept.

use std::collections::HashMap;
use std::error::Error;
use std::fmt;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use native_tls::{Certificate, HandshakeError, Protocol, TlsConnector, TlsStream};

use crate::deliver::storage::printable;
use crate::sys::watched::WatchedFile;

/// The largest `ca` file that is read, in octets: ten times what a system's whole bundle has.
const MAX_CA_FILE: u64 = 4 << 20;

/// The connectors that were needed so far: one for the system's roots, one for each `ca` file.
#[derive(Debug, Default)]
pub struct Connectors {
    system: OnceLock<Result<Connector, NoConnector>>,
    files: Mutex<HashMap<PathBuf, Arc<CaFile>>>,
}

type CaFile = WatchedFile<Result<Connector, NoConnector>>;

impl Connectors {
    /// The connector that trusts the certificates in `ca`, or the system's without one. A
    /// file that has changed is read again.
    ///
    /// # Errors
    /// [`NoConnector`]: the configuration is to blame, or the system; not the peer.
    pub fn get(&self, ca: Option<&Path>) -> Result<Connector, NoConnector> {
        let Some(path) = ca else {
            return self.system.get_or_init(|| Connector::new(None)).clone();
        };
        let useless = |why: &dyn fmt::Display| {
            NoConnector(format!("[smarthost] ca {}: {why}", printable(path)))
        };
        match self.file(path).load(|pem, _| Arc::new(Connector::new(Some(pem)))) {
            Ok(connector) => connector.as_ref().clone().map_err(|error| useless(&error)),
            Err(error) => Err(useless(&error)),
        }
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

impl fmt::Display for NoConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for NoConnector {}

/// How a connection to one host is encrypted.
#[derive(Debug)]
pub enum Security {
    /// Not at all.
    None,
    /// By STARTTLS (RFC 3207). Where that fails, nothing of the mail is sent.
    StartTls(TlsPeer),
    /// From its beginning (RFC 8314 §3).
    Implicit(TlsPeer),
}

/// Whom a handshake is with.
#[derive(Debug)]
pub struct TlsPeer {
    /// Says whose certificates are trusted.
    pub connector: Connector,
    /// Whose certificate it must be: a name or an address.
    pub host: String,
}

/// Whom to trust. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Connector(TlsConnector);

impl Connector {
    /// One that trusts these certificates, PEM, or the system's.
    fn new(ca: Option<&[u8]>) -> Result<Self, NoConnector> {
        let mut builder = TlsConnector::builder();
        builder.min_protocol_version(Some(Protocol::Tlsv12));
        if let Some(pem) = ca {
            let useless = |why: &str| NoConnector(why.to_owned());
            let certificates = Certificate::stack_from_pem(pem)
                .map_err(|_| useless("it has a certificate that cannot be read"))?;
            if certificates.is_empty() {
                return Err(useless("it has no certificate, PEM, in it"));
            }
            builder.disable_built_in_roots(true);
            for certificate in certificates {
                builder.add_root_certificate(certificate);
            }
        }
        builder.build().map(Self).map_err(|error| NoConnector(format!("there is no TLS: {error}")))
    }
}

impl TlsPeer {
    /// Runs the handshake over a stream that bounds its own time, and checks that the peer is
    /// the host.
    ///
    /// # Errors
    /// [`TlsError`]; the stream is closed.
    pub fn handshake<S: Read + Write>(&self, stream: S) -> Result<Secured<S>, TlsError> {
        match self.connector.0.connect(&self.host, stream) {
            Ok(stream) => Ok(Secured(stream)),
            Err(HandshakeError::Failure(error)) => Err(TlsError::of(&error)),
            // The stream waits for itself, until its time is up.
            Err(HandshakeError::WouldBlock(_)) => Err(TlsError::TooSlow),
        }
    }
}

/// Why a handshake failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TlsError {
    /// The peer took too long.
    TooSlow,
    /// The peer's certificate does not prove that it is the host: why not.
    Certificate(String),
    /// The peer closed the connection.
    Closed,
    /// The peer does not speak TLS, or none that we do.
    Failed(String),
}

impl TlsError {
    fn of(error: &native_tls::Error) -> Self {
        let mut sources = std::iter::successors(error.source(), |&source| source.source());
        let text = error.to_string();
        if let Some(error) = sources.find_map(|source| source.downcast_ref::<io::Error>()) {
            return match error.kind() {
                io::ErrorKind::TimedOut => Self::TooSlow,
                _ => Self::Failed(error.to_string()),
            };
        }
        // `error:0A000086:SSL routines:function:reason:file:line:`, the outermost error last,
        // and behind a certificate that was refused, in parentheses, why. There is no other
        // way to these two.
        let outermost = text.rsplit("error:").next().unwrap_or_default();
        let reason = outermost.split(':').nth(3).unwrap_or(&text);
        match outermost.rsplit_once('(') {
            Some((_, why)) if reason == "certificate verify failed" => {
                Self::Certificate(why.trim_end_matches(')').to_owned())
            }
            _ if reason.to_ascii_lowercase().starts_with("unexpected eof") => Self::Closed,
            _ => Self::Failed(reason.to_owned()),
        }
    }
}

/// A predicate behind the name of the host.
impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooSlow => f.write_str("took too long over the TLS handshake"),
            Self::Closed => f.write_str("closed the connection in the TLS handshake"),
            Self::Certificate(reason) => write!(f, "has no good certificate: {reason}"),
            Self::Failed(reason) => write!(f, "failed at the TLS handshake: {reason}"),
        }
    }
}

/// An encrypted stream.
#[derive(Debug)]
pub struct Secured<S>(TlsStream<S>);

impl<S: Read + Write> Secured<S> {
    /// The stream below.
    pub fn plain_mut(&mut self) -> &mut S {
        self.0.get_mut()
    }

    /// Tells the peer that nothing more comes (RFC 8446 §6.1); does not wait for its answer.
    ///
    /// # Errors
    /// As the stream's.
    pub fn say_end(&mut self) -> io::Result<()> {
        self.0.shutdown()
    }
}

impl<S: Read + Write> Read for Secured<S> {
    fn read(&mut self, octets: &mut [u8]) -> io::Result<usize> {
        self.0.read(octets)
    }
}

impl<S: Read + Write> Write for Secured<S> {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.0.write(octets)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}
