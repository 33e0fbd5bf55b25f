//! A session's socket, with a deadline on every read and write, in the clear or encrypted.

use std::io::{self, Read, Write};
use std::mem;
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::net::{RecvFlags, recv};

use crate::receive::tls::Acceptor;
use crate::receive::tls::handshake::HandshakeFailure;
use crate::receive::tls::secured::{Encryption, Secured};
use crate::sys::bell::{Bell, Wake};

/// The longest that one read waits before the deadline is looked at again. The usual
/// deadlines are all further away, so that most reads need no system call but their own.
const TICK: Duration = Duration::from_secs(180);

/// The socket of a session.
#[derive(Debug)]
pub enum Socket {
    /// From a host.
    Tcp(TcpStream),
    /// From an account of this host.
    Unix(UnixStream),
}

impl Socket {
    /// Acknowledges at once what came, where the system would wait up to 40 ms for something to
    /// say along with it.
    pub fn acknowledge(&self) {
        if let Self::Tcp(socket) = self {
            // Where it does not work the client waits a little longer.
            let _ = rustix::net::sockopt::set_tcp_quickack(socket, true);
        }
    }

    /// Reads what has come.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] when nothing has; else the socket's own.
    pub fn read_now(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let receive = || recv(self, &mut *buffer, RecvFlags::DONTWAIT);
        Ok(rustix::io::retry_on_intr(receive)?.0)
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(socket) => socket.as_fd(),
            Self::Unix(socket) => socket.as_fd(),
        }
    }
}

/// A socket whose reads end at a deadline, however slowly octets drip in.
#[derive(Debug)]
pub struct DeadlineStream {
    wire: Wire,
    /// How long a write may make no progress.
    timeout: Duration,
}

#[derive(Debug)]
enum Wire {
    Plain(PlainSocket),
    Tls(Box<Secured>),
    /// There was no memory for the encryption.
    Closed,
}

#[derive(Debug)]
struct PlainSocket {
    socket: Socket,
    /// What the socket has; zero before the first read.
    read_timeout: Duration,
}

impl DeadlineStream {
    /// Wraps a socket that was accepted. A write that makes no progress fails after `timeout`,
    /// which a TCP socket has from its listener.
    ///
    /// # Errors
    /// When the socket does not take its options.
    pub fn new(socket: Socket, timeout: Duration) -> io::Result<Self> {
        match &socket {
            // Its listener's (see receive/listener.rs).
            Socket::Tcp(_) => {}
            Socket::Unix(socket) => socket.set_write_timeout(Some(timeout))?,
        }
        let plain = PlainSocket { socket, read_timeout: Duration::ZERO };
        Ok(Self { wire: Wire::Plain(plain), timeout })
    }

    /// Encrypts the stream: the server's part of a handshake, which ends by `deadline`.
    ///
    /// # Errors
    /// Why it failed; then only [`Self::finish`] is of use.
    pub fn secure(
        &mut self,
        acceptor: &Acceptor,
        deadline: Instant,
    ) -> Result<Encryption, HandshakeFailure> {
        let Wire::Plain(plain) = mem::replace(&mut self.wire, Wire::Closed) else {
            return Err(HandshakeFailure::Other("the stream is encrypted already".to_owned()));
        };
        let secured = Secured::new(acceptor, plain.socket)
            .map_err(|error| HandshakeFailure::Other(error.to_string()))?;
        let mut secured = Box::new(secured);
        let result = secured.handshake(deadline).map(|()| secured.encryption());
        self.wire = Wire::Tls(secured);
        result
    }

    /// What protects the stream; `None` in the clear.
    pub fn encryption(&self) -> Option<Encryption> {
        match &self.wire {
            Wire::Tls(secured) => Some(secured.encryption()),
            Wire::Plain(_) | Wire::Closed => None,
        }
    }

    /// Reads what is there, waiting for something until `deadline`.
    ///
    /// # Errors
    /// [`io::ErrorKind::TimedOut`] when the deadline has come; else the socket's own.
    pub fn read_until(&mut self, buffer: &mut [u8], deadline: Instant) -> io::Result<usize> {
        match &mut self.wire {
            Wire::Plain(plain) => plain.read_until(buffer, deadline),
            Wire::Tls(secured) => secured.read_until(buffer, deadline),
            Wire::Closed => Ok(0),
        }
    }

    /// The same, but comes back with `None` as soon as the bell rings.
    ///
    /// # Errors
    /// As with [`Self::read_until`].
    pub fn read_beside(
        &mut self,
        bell: &Bell,
        buffer: &mut [u8],
        deadline: Instant,
    ) -> io::Result<Option<usize>> {
        match &mut self.wire {
            Wire::Plain(plain) => plain.read_beside(bell, buffer, deadline),
            Wire::Tls(secured) => secured.read_beside(bell, buffer, deadline),
            Wire::Closed => Ok(Some(0)),
        }
    }

    /// Writes all of `octets`.
    ///
    /// # Errors
    /// When the peer takes nothing for the time given to [`DeadlineStream::new`], or is gone.
    pub fn write_all(&mut self, octets: &[u8]) -> io::Result<()> {
        match &mut self.wire {
            Wire::Plain(plain) => match &mut plain.socket {
                Socket::Tcp(socket) => socket.write_all(octets),
                Socket::Unix(socket) => socket.write_all(octets),
            },
            Wire::Tls(secured) => secured.write_all(octets, self.timeout),
            Wire::Closed => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    /// Ends our side, then drops what the peer still sends until it closes, `octets` came or
    /// `patience` is over. A socket closed with input unread makes the system reset the
    /// connection, and the last reply may be lost with it.
    ///
    /// # Errors
    /// When the peer is gone or does not close.
    pub fn finish(&mut self, octets: usize, patience: Duration) -> io::Result<()> {
        let socket = match &mut self.wire {
            Wire::Plain(plain) => &plain.socket,
            Wire::Tls(secured) => {
                secured.say_end();
                secured.socket()
            }
            Wire::Closed => return Ok(()),
        };
        match socket {
            Socket::Tcp(socket) => socket.shutdown(Shutdown::Write)?,
            Socket::Unix(socket) => socket.shutdown(Shutdown::Write)?,
        }
        let deadline = Instant::now() + patience;
        let mut left = octets;
        // Not on the stack, which every session would pay for.
        let mut buffer = vec![0; 4096];
        while left > 0 {
            let count = match &mut self.wire {
                Wire::Plain(plain) => plain.read_until(&mut buffer, deadline)?,
                Wire::Tls(secured) => secured.read_below(&mut buffer, deadline)?,
                Wire::Closed => 0,
            };
            match count {
                0 => return Ok(()),
                count => left = left.saturating_sub(count),
            }
        }
        Ok(())
    }
}

impl PlainSocket {
    fn read_beside(
        &self,
        bell: &Bell,
        buffer: &mut [u8],
        deadline: Instant,
    ) -> io::Result<Option<usize>> {
        loop {
            if bell.hear_beside(self.socket.as_fd(), deadline)? == Wake::Rung {
                return Ok(None);
            }
            match self.socket.read_now(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return result.map(Some),
            }
        }
    }

    fn read_until(&mut self, buffer: &mut [u8], deadline: Instant) -> io::Result<usize> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.limit_read(left)?;
            let result = match &mut self.socket {
                Socket::Tcp(socket) => socket.read(buffer),
                Socket::Unix(socket) => socket.read(buffer),
            };
            match result.as_ref().map_err(io::Error::kind) {
                Err(io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                _ => return result,
            }
        }
    }

    /// Makes sure that the next read returns when `left` is over, or soon after.
    fn limit_read(&mut self, left: Duration) -> io::Result<()> {
        let wanted = left.min(TICK);
        // An eighth more or less is made good by the look at the clock after the read.
        if self.read_timeout.abs_diff(wanted) <= wanted / 8 {
            return Ok(());
        }
        self.read_timeout = wanted;
        match &self.socket {
            Socket::Tcp(socket) => socket.set_read_timeout(Some(wanted)),
            Socket::Unix(socket) => socket.set_read_timeout(Some(wanted)),
        }
    }
}
