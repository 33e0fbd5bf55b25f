//! The log daemon of a host without journald: lines in the classic form (RFC 3164 §4.1, as
//! syslog(3) writes them) to the socket `/dev/log`, a datagram each or, where the daemon wants
//! that, in a stream. A daemon that restarts is found again; one that hangs or is gone costs the
//! program no more than a fifth of a second, and the caller learns that the line is still to be told.

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, send, socket_with,
};

use crate::sys::clock;

/// Where log daemons listen.
pub const PATH: &str = "/dev/log";
/// The most octets of a line, with what stands before the text (RFC 3164 §4.1).
const MAX_OCTETS: usize = 1024;
/// What the end of a text becomes that is cut.
const CUT: &str = "...";
/// The facility `mail` (RFC 3164 §4.1.1).
const FACILITY: u8 = 2 << 3;
/// How long a line waits for a daemon that has let its socket fill up. Once it was in vain, no
/// other line waits until one was taken.
const PATIENCE: Duration = Duration::from_millis(200);

/// The connection to a log daemon.
#[derive(Debug)]
pub struct Syslog {
    path: PathBuf,
    line: Mutex<Line>,
}

/// The daemon has not taken a line.
#[derive(Debug)]
pub struct Unheard {
    /// Why; only where it has taken the line before.
    pub news: Option<io::Error>,
}

#[derive(Debug)]
struct Line {
    socket: Option<Socket>,
    /// Lines since the last that was taken.
    unheard: u64,
}

#[derive(Debug)]
struct Socket {
    descriptor: OwnedFd,
    is_stream: bool,
}

impl Syslog {
    /// The daemon that listens at `path`. It need not be there yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), line: Mutex::new(Line { socket: None, unheard: 0 }) }
    }

    /// Sends a line of a severity from 0 to 7 (RFC 3164 §4.1.1). Its text must not have control
    /// characters in it, and is cut where it is too long.
    ///
    /// # Errors
    /// The daemon is not there or does not read; the line is for somebody else.
    pub fn send(&self, severity: u8, text: &str) -> Result<(), Unheard> {
        // What a panic leaves is a socket, or none.
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        let said = line.told_of_gap(&self.path).and_then(|()| {
            let record = record(severity, text);
            line.send(&self.path, &record)
        });
        said.map_err(|error| {
            line.unheard += 1;
            Unheard { news: (line.unheard == 1).then_some(error) }
        })
    }
}

impl Line {
    /// Says how many lines the daemon has missed, once it listens again.
    fn told_of_gap(&mut self, path: &std::path::Path) -> io::Result<()> {
        if self.unheard > 0 {
            let text = format!(
                "{} lines went to standard error while no log daemon took them",
                self.unheard
            );
            self.send(path, &record(4, &text))?;
            self.unheard = 0;
        }
        Ok(())
    }

    fn send(&mut self, path: &std::path::Path, record: &str) -> io::Result<()> {
        let patience = if self.unheard == 0 { PATIENCE } else { Duration::ZERO };
        if let Some(socket) = &self.socket {
            match socket.send(record, patience) {
                // It is there, and behind with its work.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(error),
                // It was restarted, or has ended.
                Err(_) => self.socket = None,
                Ok(()) => return Ok(()),
            }
        }
        let socket = Socket::open(path)?;
        socket.send(record, patience)?;
        self.socket = Some(socket);
        Ok(())
    }
}

impl Socket {
    fn open(path: &std::path::Path) -> io::Result<Self> {
        let address = SocketAddrUnix::new(path)?;
        let open = |kind| {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let descriptor = socket_with(AddressFamily::UNIX, kind, flags, None)?;
            connect(&descriptor, &address)?;
            Ok(Self { descriptor, is_stream: kind == SocketType::STREAM })
        };
        match open(SocketType::DGRAM) {
            Err(Errno::PROTOTYPE) => open(SocketType::STREAM),
            opened => opened,
        }
        .map_err(io::Error::from)
    }

    /// Sends a whole line, or breaks the connection. `WouldBlock` where nothing of it was sent.
    fn send(&self, record: &str, patience: Duration) -> io::Result<()> {
        let mut octets = record.as_bytes().to_vec();
        if self.is_stream {
            // The end of a record, as syslog(3) writes it.
            octets.push(0);
        }
        let mut sent = 0;
        loop {
            match send(&self.descriptor, &octets[sent..], SendFlags::NOSIGNAL) {
                Ok(count) => sent += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) if self.waits(patience)? => {}
                Err(Errno::AGAIN) if sent == 0 => return Err(Errno::AGAIN.into()),
                Err(Errno::AGAIN) => return Err(io::ErrorKind::BrokenPipe.into()),
                Err(error) => return Err(error.into()),
            }
            if sent >= octets.len() {
                return Ok(());
            }
        }
    }

    /// Waits for room; `false` when there was none in time.
    fn waits(&self, patience: Duration) -> io::Result<bool> {
        let Ok(patience) = patience.try_into() else { return Ok(false) };
        match poll(&mut [PollFd::new(&self.descriptor, PollFlags::OUT)], Some(&patience)) {
            Ok(ready) => Ok(ready > 0),
            Err(Errno::INTR) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }
}

/// `<22>Nov 22 03:46:52 mailwren[512]: text`.
fn record(severity: u8, text: &str) -> String {
    let now = clock::local_time(clock::since_1970().as_secs());
    let priority = FACILITY | severity;
    let mut record = format!("<{priority}>{} mailwren[{}]: ", now.stamp(), std::process::id());
    record.push_str(&cut(text, MAX_OCTETS - record.len()));
    record
}

/// The text in no more than `octets` octets; where something is missing it ends with dots.
pub fn cut(text: &str, octets: usize) -> std::borrow::Cow<'_, str> {
    if text.len() <= octets {
        return text.into();
    }
    let end = text.floor_char_boundary(octets.saturating_sub(CUT.len()));
    format!("{}{CUT}", &text[..end]).into()
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::{UnixDatagram, UnixListener};
    use std::time::Instant;

    use super::*;

    /// What stands behind the time and the process id of a line.
    fn text(record: &[u8]) -> String {
        let record = String::from_utf8(record.to_vec()).unwrap();
        let (_, text) = record.split_once(&format!(" mailwren[{}]: ", std::process::id())).unwrap();
        text.to_owned()
    }

    fn next(daemon: &UnixDatagram) -> String {
        let mut buffer = [0; 4096];
        let count = daemon.recv(&mut buffer).unwrap();
        text(&buffer[..count])
    }

    #[test]
    fn the_form_is_that_of_syslog() {
        let record = record(6, "hello");
        let (head, rest) = record.split_at("<22>Nov 22 03:46:52 ".len());
        assert!(head.starts_with("<22>"), "{record}");
        let (month, time) = (&head[4..7], &head[11..]);
        assert!("JanFebMarAprMayJunJulAugSepOctNovDec".contains(month), "{record}");
        assert_eq!(time.matches(':').count(), 2, "{record}");
        assert_eq!(rest, format!("mailwren[{}]: hello", std::process::id()));
    }

    #[test]
    fn long_lines_are_cut_between_characters() {
        assert_eq!(cut("abcdef", 6), "abcdef");
        assert_eq!(cut("abcdefg", 6), "abc...");
        assert_eq!(cut("ab\u{20ac}defg", 6), "ab...");
        let long = record(6, &"\u{e4}".repeat(1000));
        assert!((MAX_OCTETS - 1..=MAX_OCTETS).contains(&long.len()), "{}", long.len());
        assert!(long.ends_with("\u{e4}..."));
    }

    #[test]
    fn a_daemon_that_comes_late_and_one_that_restarts() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("log");
        let syslog = Syslog::new(&path);
        assert!(syslog.send(6, "one").unwrap_err().news.is_some());
        assert!(syslog.send(6, "two").unwrap_err().news.is_none());
        let daemon = UnixDatagram::bind(&path).unwrap();
        syslog.send(6, "three").unwrap();
        assert_eq!(next(&daemon), "2 lines went to standard error while no log daemon took them");
        assert_eq!(next(&daemon), "three");
        // Another one takes its place: nothing is missed.
        std::fs::remove_file(&path).unwrap();
        let successor = UnixDatagram::bind(&path).unwrap();
        drop(daemon);
        syslog.send(6, "four").unwrap();
        assert_eq!(next(&successor), "four");
        drop(successor);
        assert!(syslog.send(6, "five").unwrap_err().news.is_some());
    }

    #[test]
    fn a_daemon_that_hangs_is_waited_for_once() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("log");
        let daemon = UnixDatagram::bind(&path).unwrap();
        let syslog = Syslog::new(&path);
        let mut taken = 0;
        let news = loop {
            match syslog.send(6, "much") {
                Ok(()) => taken += 1,
                Err(unheard) => break unheard.news.unwrap(),
            }
        };
        assert_eq!(news.kind(), io::ErrorKind::WouldBlock);
        let began = Instant::now();
        for _ in 0..1000 {
            assert!(syslog.send(6, "more").unwrap_err().news.is_none());
        }
        assert!(began.elapsed() < 100 * PATIENCE, "each line waits");
        for _ in 0..taken {
            assert_eq!(next(&daemon), "much");
        }
        syslog.send(6, "last").unwrap();
        assert_eq!(
            next(&daemon),
            "1001 lines went to standard error while no log daemon took them"
        );
        assert_eq!(next(&daemon), "last");
    }

    #[test]
    fn a_daemon_with_a_stream() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("log");
        let daemon = UnixListener::bind(&path).unwrap();
        let syslog = Syslog::new(&path);
        syslog.send(6, "one").unwrap();
        syslog.send(6, "two").unwrap();
        drop(syslog);
        let mut octets = Vec::new();
        daemon.accept().unwrap().0.read_to_end(&mut octets).unwrap();
        let records: Vec<_> = octets.split_inclusive(|octet| *octet == 0).collect();
        assert_eq!(records.len(), 2);
        assert_eq!([text(records[0]), text(records[1])], ["one\0", "two\0"]);
    }
}
