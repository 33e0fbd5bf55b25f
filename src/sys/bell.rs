//! A bell for threads that wait for connections or for clients: somebody else can call them away
//! from there.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Instant;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::retry_on_intr;

/// The bell.
#[derive(Debug)]
pub struct Bell(OwnedFd);

/// What a wait came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// The bell was rung.
    Rung,
    /// There is something to read.
    Readable,
}

impl Bell {
    /// A silent one.
    ///
    /// # Errors
    /// When there are no descriptors left.
    pub fn new() -> io::Result<Self> {
        Ok(Self(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
    }

    /// Rings until somebody hears it.
    pub fn ring(&self) {
        // It fails only where it rings so loudly already that the kernel cannot count any more.
        let _ = rustix::io::write(&self.0, &1_u64.to_ne_bytes());
    }

    /// Waits until it is rung, which comes first and silences it, or something can be read from
    /// `other`.
    ///
    /// # Errors
    /// When the kernel has no memory for it.
    pub fn wait_beside(&self, other: BorrowedFd<'_>) -> io::Result<Wake> {
        let mut awaited =
            [PollFd::new(&self.0, PollFlags::IN), PollFd::from_borrowed_fd(other, PollFlags::IN)];
        retry_on_intr(|| poll(&mut awaited, None))?;
        if awaited[0].revents().is_empty() {
            return Ok(Wake::Readable);
        }
        let mut count = [0; 8];
        rustix::io::read(&self.0, &mut count)?;
        Ok(Wake::Rung)
    }

    /// The same until `deadline`, for a bell that many hear: it goes on ringing.
    ///
    /// # Errors
    /// [`io::ErrorKind::TimedOut`] when the deadline has come; else when the kernel has no memory for
    /// it.
    pub fn hear_beside(&self, other: BorrowedFd<'_>, deadline: Instant) -> io::Result<Wake> {
        let mut awaited =
            [PollFd::new(&self.0, PollFlags::IN), PollFd::from_borrowed_fd(other, PollFlags::IN)];
        let count = retry_on_intr(|| {
            let left = deadline.saturating_duration_since(Instant::now());
            // One that no clock can show never comes.
            poll(&mut awaited, Timespec::try_from(left).ok().as_ref())
        })?;
        match (count, awaited[0].revents().is_empty()) {
            (0, _) => Err(io::ErrorKind::TimedOut.into()),
            (_, true) => Ok(Wake::Readable),
            (_, false) => Ok(Wake::Rung),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    #[test]
    fn the_bell_is_heard_first_and_once() {
        let (mut there, here) = UnixStream::pair().unwrap();
        let bell = Bell::new().unwrap();
        there.write_all(b"x").unwrap();
        bell.ring();
        bell.ring();
        assert_eq!(bell.wait_beside(here.as_fd()).unwrap(), Wake::Rung);
        assert_eq!(bell.wait_beside(here.as_fd()).unwrap(), Wake::Readable);
    }

    #[test]
    fn a_bell_that_many_hear_rings_on() {
        let (mut there, here) = UnixStream::pair().unwrap();
        let bell = Bell::new().unwrap();
        let hear = |patience| bell.hear_beside(here.as_fd(), Instant::now() + patience);
        assert_eq!(hear(Duration::ZERO).unwrap_err().kind(), io::ErrorKind::TimedOut);
        there.write_all(b"x").unwrap();
        assert_eq!(hear(Duration::from_secs(60)).unwrap(), Wake::Readable);
        bell.ring();
        for _ in 0..2 {
            assert_eq!(hear(Duration::from_secs(60)).unwrap(), Wake::Rung);
        }
    }
}
