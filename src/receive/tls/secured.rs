//! An encrypted session's socket. OpenSSL never waits: where it wants to read or to write and
//! cannot, the wait is done here, by the deadline, however many octets make up a record and
//! however slowly they drip. It gives its buffers back meanwhile, 17 KiB a session.

use std::fmt;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use openssl::ssl::{Error, ErrorCode, Ssl, SslStream};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{SendFlags, send};

use super::Acceptor;
use super::handshake::{self, HandshakeFailure};
use crate::config::settings::TlsVersion;
use crate::receive::stream::Socket;
use crate::sys::bell::{Bell, Wake};

/// A socket under TLS.
pub struct Secured {
    stream: SslStream<Below>,
    /// The oldest version that is taken.
    minimum: TlsVersion,
    /// After an error of the protocol nothing more can be said, not even the end.
    is_broken: bool,
}

/// What protects a session: `Display` is `TLSv1.3 TLS_AES_256_GCM_SHA384`, the cipher suite as
/// IANA registers it (RFC 8314 §4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encryption {
    /// The version.
    pub version: &'static str,
    /// The cipher suite.
    pub cipher: &'static str,
}

impl fmt::Display for Encryption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.version, self.cipher)
    }
}

/// The socket as OpenSSL sees it: one that never waits.
struct Below {
    socket: Socket,
    /// When it stops to give anything, lest octets without a meaning come for ever.
    deadline: Instant,
    /// The first octet that came.
    first: Option<u8>,
    /// The peer has closed its side.
    is_at_end: bool,
}

impl fmt::Debug for Secured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secured").field("is_broken", &self.is_broken).finish()
    }
}

impl Secured {
    /// Puts a socket under TLS; nothing is said yet.
    ///
    /// # Errors
    /// When there is no memory; the socket is closed.
    pub fn new(acceptor: &Acceptor, socket: Socket) -> io::Result<Self> {
        let below = Below { socket, deadline: Instant::now(), first: None, is_at_end: false };
        let stream = SslStream::new(Ssl::new(&acceptor.context)?, below)?;
        Ok(Self { stream, minimum: acceptor.minimum, is_broken: false })
    }

    /// The server's part of the handshake, to be done by `deadline`.
    ///
    /// # Errors
    /// Why it failed. The client was told by an alert; the socket is still open.
    pub fn handshake(&mut self, deadline: Instant) -> Result<(), HandshakeFailure> {
        match self.pump(deadline, SslStream::accept) {
            Ok(()) => {
                // There is nothing to say to the last word of the handshake, and most clients
                // keep their next command until it is acknowledged (RFC 1122 §4.2.3.4).
                self.stream.get_ref().socket.acknowledge();
                Ok(())
            }
            Err(Stop::TooLate | Stop::Rung) => {
                self.is_broken = true;
                Err(HandshakeFailure::TooSlow)
            }
            Err(Stop::Failed(error)) => {
                let Below { first, is_at_end, .. } = *self.stream.get_ref();
                Err(HandshakeFailure::of(&error, first, is_at_end, self.minimum))
            }
        }
    }

    /// The version and the cipher, once the handshake is done.
    pub fn encryption(&self) -> Encryption {
        let ssl = self.stream.ssl();
        let cipher = ssl.current_cipher();
        let cipher = cipher.map_or("?", |cipher| cipher.standard_name().unwrap_or(cipher.name()));
        Encryption { version: ssl.version_str(), cipher }
    }

    /// Reads what is there, waiting for something until `deadline`; 0 octets at the end,
    /// whether the client said that it is the end or not: commands and messages have ends of
    /// their own.
    ///
    /// # Errors
    /// [`io::ErrorKind::TimedOut`] when the deadline has come; else what the client did wrong.
    pub fn read_until(&mut self, buffer: &mut [u8], deadline: Instant) -> io::Result<usize> {
        let result = self.pump(deadline, |stream| stream.ssl_read(buffer));
        self.read_or_end(result)
    }

    /// The same, but comes back with `None` as soon as the bell rings, be it in the middle of a
    /// record of the client's; one of ours is never left half said.
    ///
    /// # Errors
    /// As with [`Self::read_until`].
    pub fn read_beside(
        &mut self,
        bell: &Bell,
        buffer: &mut [u8],
        deadline: Instant,
    ) -> io::Result<Option<usize>> {
        let act = |stream: &mut SslStream<Below>| stream.ssl_read(buffer);
        match self.pump_beside(Some(bell), deadline, act) {
            Err(Stop::Rung) => Ok(None),
            result => self.read_or_end(result).map(Some),
        }
    }

    fn read_or_end(&self, result: Result<usize, Stop>) -> io::Result<usize> {
        match result {
            Err(Stop::Failed(error)) if error.code() == ErrorCode::ZERO_RETURN => Ok(0),
            Err(Stop::Failed(_)) if self.stream.get_ref().is_at_end => Ok(0),
            result => result.map_err(Stop::into_error),
        }
    }

    /// Writes all of `octets`, of which the client must take something within each `patience`.
    ///
    /// # Errors
    /// [`io::ErrorKind::TimedOut`] when it does not, or it is gone.
    pub fn write_all(&mut self, mut octets: &[u8], patience: Duration) -> io::Result<()> {
        while !octets.is_empty() {
            let deadline = Instant::now() + patience;
            match self.pump(deadline, |stream| stream.ssl_write(octets)) {
                Ok(count) => octets = octets.get(count..).unwrap_or_default(),
                Err(stop) => return Err(stop.into_error()),
            }
        }
        Ok(())
    }

    /// Says that nothing more comes (RFC 8446 §6.1), if the client takes it at once.
    pub fn say_end(&mut self) {
        if !self.is_broken {
            // The session is over; nothing depends on whether this arrives.
            let _ = self.stream.shutdown();
            self.is_broken = true;
        }
    }

    /// The socket below.
    pub fn socket(&self) -> &Socket {
        &self.stream.get_ref().socket
    }

    /// Reads what comes below the encryption, to be dropped.
    ///
    /// # Errors
    /// [`io::ErrorKind::TimedOut`] when the deadline has come; else the socket's own.
    pub fn read_below(&mut self, buffer: &mut [u8], deadline: Instant) -> io::Result<usize> {
        self.stream.get_mut().deadline = deadline;
        loop {
            wait(self.socket(), PollFlags::IN, deadline)?;
            match self.stream.get_mut().read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return result,
            }
        }
    }

    /// Has OpenSSL do something, waiting for the socket when it must.
    fn pump<T>(
        &mut self,
        deadline: Instant,
        act: impl FnMut(&mut SslStream<Below>) -> Result<T, Error>,
    ) -> Result<T, Stop> {
        self.pump_beside(None, deadline, act)
    }

    /// The same, until the bell rings while there is something to wait for from the peer.
    fn pump_beside<T>(
        &mut self,
        bell: Option<&Bell>,
        deadline: Instant,
        mut act: impl FnMut(&mut SslStream<Below>) -> Result<T, Error>,
    ) -> Result<T, Stop> {
        self.stream.get_mut().deadline = deadline;
        loop {
            let error = match act(&mut self.stream) {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            let awaited = match error.code() {
                ErrorCode::WANT_READ => PollFlags::IN,
                ErrorCode::WANT_WRITE => PollFlags::OUT,
                ErrorCode::ZERO_RETURN => return Err(Stop::Failed(error)),
                _ => {
                    self.is_broken = true;
                    return Err(Stop::Failed(error));
                }
            };
            let waited = match bell {
                Some(bell) if awaited == PollFlags::IN => {
                    bell.hear_beside(self.socket().as_fd(), deadline)
                }
                _ => wait(self.socket(), awaited, deadline).map(|()| Wake::Readable),
            };
            match waited {
                Ok(Wake::Readable) => {}
                Ok(Wake::Rung) => return Err(Stop::Rung),
                Err(error) if error.kind() == io::ErrorKind::TimedOut => return Err(Stop::TooLate),
                Err(error) => {
                    log::debug!("poll fails: {error}");
                    return Err(Stop::TooLate);
                }
            }
        }
    }
}

/// Why a call did not come to its end.
enum Stop {
    TooLate,
    Rung,
    Failed(Error),
}

impl Stop {
    fn into_error(self) -> io::Error {
        match self {
            Self::TooLate => io::ErrorKind::TimedOut.into(),
            Self::Rung => io::ErrorKind::Interrupted.into(),
            Self::Failed(error) => in_session(&error),
        }
    }
}

impl Read for Below {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if Instant::now() >= self.deadline {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let count = self.socket.read_now(buffer)?;
        self.is_at_end = count == 0;
        if self.first.is_none() {
            self.first = buffer.first().copied().filter(|_| count > 0);
        }
        Ok(count)
    }
}

impl Write for Below {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        Ok(rustix::io::retry_on_intr(|| send(&self.socket, octets, flags))?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Waits until the socket can be read or written, or its peer is gone.
fn wait(socket: &Socket, awaited: PollFlags, deadline: Instant) -> io::Result<()> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
        match poll(&mut [PollFd::new(socket, awaited)], Some(&timeout)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => {}
            Ok(_) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

/// What broke a session that was encrypted already.
fn in_session(error: &Error) -> io::Error {
    let failure = HandshakeFailure::of(error, None, false, TlsVersion::V1_2);
    match (failure, error.io_error()) {
        (HandshakeFailure::Alert(number), _) => {
            io::Error::other(format!("TLS: {} (alert {number})", handshake::alert(number)))
        }
        (_, Some(error)) => io::Error::new(error.kind(), error.to_string()),
        (failure, None) => io::Error::other(format!("TLS is broken: {failure}")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::certificate::Certificate;
    use super::super::self_signed;
    use super::*;
    use crate::receive::stream::DeadlineStream;
    use std::os::unix::net::UnixStream;

    #[test]
    fn what_comes_after_a_handshake_that_was_too_slow_is_dropped() {
        let made = self_signed::make(&"mx.test".parse().unwrap(), false).unwrap();
        let certificate = Certificate::from_pem(&made.certificate, &made.key).unwrap();
        let minimum = TlsVersion::V1_2;
        let acceptor = Acceptor { context: certificate.context(minimum).unwrap(), minimum };
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let patience = Duration::from_secs(10);
        let mut stream = DeadlineStream::new(Socket::Unix(ours), patience).unwrap();
        let failure = stream.secure(&acceptor, Instant::now()).unwrap_err();
        assert_eq!(failure, HandshakeFailure::TooSlow);
        theirs.write_all(&[22; 100]).unwrap();
        drop(theirs);
        // Its end is seen, long before the patience is over.
        stream.finish(1000, patience).unwrap();
    }
}
