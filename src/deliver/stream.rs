//! A connection whose every call ends by a deadline, encrypted or not.
//!
//! The deadline lies below the encryption: one TLS record may take many reads, and a peer that
//! sends it an octet a minute, or never finishes a handshake, is cut off like any other.

use std::io::{self, Read, Write};
use std::mem;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::net::RecvFlags;
use rustix::net::sockopt::{self, Timeout};

use crate::deliver::tls::hello::{self, ServerHello};
use crate::deliver::tls::{Protection, Secured, TlsError, TlsPeer};

/// A connected socket, in the clear or encrypted.
#[derive(Debug)]
pub enum Stream<S> {
    /// In the clear.
    Plain(TimedStream<S>),
    /// Encrypted.
    Tls {
        /// What is said.
        secured: Secured<TimedStream<S>>,
        /// What was agreed upon, where that could be read.
        hello: Option<ServerHello>,
    },
    /// A handshake failed.
    Closed,
}

impl<S: Read + Write + AsFd> Stream<S> {
    /// A plain stream. `tick` is how long the kernel may wait at most before the clock is
    /// looked at.
    pub fn new(stream: S, tick: Duration) -> Self {
        Self::Plain(TimedStream {
            stream,
            deadline: None,
            tick,
            kernel_timeouts: [Duration::ZERO; 2],
            is_at_end: false,
            first_words: None,
        })
    }

    /// What protects the stream.
    pub const fn protection(&self) -> Protection {
        match self {
            Self::Tls { secured, .. } => secured.protection(),
            Self::Plain(_) | Self::Closed => Protection::None,
        }
    }

    /// What was agreed upon in the handshake, where there was one and it could be read.
    pub const fn hello(&self) -> Option<ServerHello> {
        match self {
            Self::Tls { hello, .. } => *hello,
            Self::Plain(_) | Self::Closed => None,
        }
    }

    /// Reading and writing may take until then, and are [`io::ErrorKind::TimedOut`] afterwards.
    pub fn set_deadline(&mut self, deadline: Instant) {
        self.wait_until(Some(deadline));
    }

    /// Encrypts the stream, by the deadline.
    ///
    /// # Errors
    /// [`TlsError`]; the stream is closed.
    pub fn secure(&mut self, peer: &TlsPeer) -> Result<(), TlsError> {
        let Self::Plain(mut plain) = mem::replace(self, Self::Closed) else {
            return Err(TlsError::Closed);
        };
        plain.first_words = Some(Vec::new());
        let mut secured = peer.handshake(plain)?;
        let hello = secured.plain_mut().first_words.take();
        *self = Self::Tls { secured, hello: hello.and_then(|words| ServerHello::read(&words)) };
        Ok(())
    }

    /// Whether the peer has neither closed the connection nor said anything. It may well have
    /// sent something below the encryption, such as session tickets (RFC 8446 §4.6.1).
    ///
    /// What it said is lost: where this is false, the stream is of no more use.
    pub fn is_quiet(&mut self) -> bool {
        self.wait_until(None);
        let read = self.read(&mut [0]);
        matches!(read, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Ends the encryption in good order, so that the peer knows that nothing was cut off.
    pub fn say_end(&mut self) {
        if let Self::Tls { secured, .. } = self {
            // The session is over; nothing depends on whether this arrives.
            let _ = secured.say_end();
        }
    }

    fn wait_until(&mut self, deadline: Option<Instant>) {
        match self {
            Self::Plain(stream) => stream.deadline = deadline,
            Self::Tls { secured, .. } => secured.plain_mut().deadline = deadline,
            Self::Closed => {}
        }
    }
}

impl<S: Read + Write + AsFd> Read for Stream<S> {
    fn read(&mut self, octets: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(octets),
            Self::Tls { secured, .. } => match secured.read(octets) {
                // Many a server closes without the alert that TLS wants. Nothing is lost by
                // it: SMTP's replies have ends of their own.
                Err(_) if secured.plain_mut().is_at_end => Ok(0),
                result => result,
            },
            Self::Closed => Ok(0),
        }
    }
}

impl<S: Read + Write + AsFd> Write for Stream<S> {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(octets),
            Self::Tls { secured, .. } => secured.write(octets),
            Self::Closed => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A socket whose calls end by a deadline.
///
/// The kernel's time-out bounds each call, and the clock is looked at between the calls.
#[derive(Debug)]
pub struct TimedStream<S> {
    stream: S,
    /// `None`: nothing waits at all.
    deadline: Option<Instant>,
    tick: Duration,
    /// What the kernel's time-outs are set to, for reading and for writing.
    kernel_timeouts: [Duration; 2],
    /// The peer has closed its side.
    is_at_end: bool,
    /// What the peer said first in a handshake, while there is one.
    first_words: Option<Vec<u8>>,
}

impl<S: AsFd> TimedStream<S> {
    fn note(&mut self, octets: &[u8]) {
        if let Some(words) = &mut self.first_words {
            let room = hello::MAX_OCTETS - words.len();
            words.extend_from_slice(&octets[..octets.len().min(room)]);
        }
    }

    /// Makes sure that the next call returns by the deadline. Far from it the kernel's
    /// time-out stays as it is, and the caller looks again after a tick.
    fn await_at_most(&mut self, direction: Timeout) -> io::Result<()> {
        let now = Instant::now();
        let left = self.deadline.unwrap_or(now).saturating_duration_since(now);
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let wanted = left.min(self.tick);
        let current = &mut self.kernel_timeouts[usize::from(direction == Timeout::Send)];
        if *current != wanted {
            // The kernel counts in microseconds, and takes zero for never.
            let timeout = wanted.max(Duration::from_micros(1));
            sockopt::set_socket_timeout(&self.stream, direction, Some(timeout))?;
            *current = wanted;
        }
        Ok(())
    }
}

impl<S: Read + AsFd> Read for TimedStream<S> {
    fn read(&mut self, octets: &mut [u8]) -> io::Result<usize> {
        if self.deadline.is_none() {
            let (count, _) = rustix::net::recv(&self.stream, octets, RecvFlags::DONTWAIT)?;
            self.is_at_end = count == 0;
            return Ok(count);
        }
        loop {
            self.await_at_most(Timeout::Recv)?;
            match self.stream.read(octets) {
                Err(error) if is_worth_a_retry(&error) => {}
                result => {
                    self.is_at_end = matches!(result, Ok(0));
                    self.note(&octets[..*result.as_ref().unwrap_or(&0)]);
                    return result;
                }
            }
        }
    }
}

impl<S: Write + AsFd> Write for TimedStream<S> {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        loop {
            self.await_at_most(Timeout::Send)?;
            match self.stream.write(octets) {
                Err(error) if is_worth_a_retry(&error) => {}
                result => return result,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Nothing came in the kernel's time, or a signal did.
fn is_worth_a_retry(error: &io::Error) -> bool {
    use io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
    matches!(error.kind(), Interrupted | TimedOut | WouldBlock)
}
