//! The listening sockets that systemd hands over, each with the name that its unit gives it
//! (FileDescriptorName=). They are from outside: what is no listening stream socket is not taken.

#![expect(unsafe_code, reason = "a descriptor that is known by its number alone becomes ours")]

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};
use rustix::net::{AddressFamily, SocketType, sockopt};

use super::number;

/// The first descriptor that is handed over (SD_LISTEN_FDS_START).
const FIRST: RawFd = 3;
/// The most that are taken: more than there can be listeners.
const MOST: u64 = 256;
/// What systemd calls a socket without a name.
const NAMELESS: &str = "unknown";
/// What the names begin with under which we have sockets of our own kept.
const KEPT: &str = "kept-";

/// The descriptors that are said to be ours.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Handed {
    names: Vec<String>,
}

impl Handed {
    /// What LISTEN_PID, LISTEN_FDS and LISTEN_FDNAMES say to the process `own`: nothing, where they
    /// are meant for another one.
    pub(super) fn read(
        pid: Option<OsString>,
        count: Option<OsString>,
        names: Option<OsString>,
        own: u32,
    ) -> Self {
        let (Some(pid), Some(count)) = (pid, count) else { return Self::default() };
        if number(&pid) != Some(u64::from(own)) {
            return Self::default();
        }
        let Some(count) = number(&count).filter(|&count| count <= MOST) else {
            log::warn!("LISTEN_FDS={} counts no sockets", count.display());
            return Self::default();
        };
        let names = names.unwrap_or_default().to_string_lossy().into_owned();
        let mut names = names.split(':').filter(|name| !name.is_empty());
        let name = |_| names.next().unwrap_or(NAMELESS).to_owned();
        Self { names: (0..count).map(name).collect() }
    }
}

/// A listening socket.
#[derive(Debug)]
pub enum Listening {
    /// For hosts, with its address.
    Tcp(TcpListener, SocketAddr),
    /// For accounts of this host; one without a path is in the abstract namespace.
    Unix(UnixListener, Option<PathBuf>),
}

impl fmt::Display for Listening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(_, address) => write!(f, "{address}"),
            Self::Unix(_, Some(path)) => write!(f, "unix:{}", path.display()),
            Self::Unix(_, None) => f.write_str("an abstract Unix socket"),
        }
    }
}

impl AsFd for Listening {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(socket, _) => socket.as_fd(),
            Self::Unix(socket, _) => socket.as_fd(),
        }
    }
}

/// The sockets that nobody has taken yet.
#[derive(Debug, Default)]
pub struct Inherited {
    sockets: Vec<(String, Listening)>,
}

impl Inherited {
    /// Takes over what was handed over, and closes what cannot be used.
    pub(super) fn take(handed: Handed) -> Self {
        // Told of when all are taken, since the log may open something, too.
        let (mut sockets, mut complaints) = (Vec::new(), Vec::new());
        for (name, number) in handed.names.into_iter().zip(FIRST..) {
            // SAFETY: only asked whether it is open; nobody closes it meanwhile, since no other
            // thread runs.
            if fcntl_getfd(unsafe { BorrowedFd::borrow_raw(number) }).is_err() {
                complaints.push(format!("{number}, which systemd calls {name}, is not open"));
                continue;
            }
            // SAFETY: it is open, whoever started us gave it to us for good, and nothing else was
            // opened here yet.
            let socket = unsafe { OwnedFd::from_raw_fd(number) };
            match listening(socket) {
                Ok(socket) => sockets.push((name, socket)),
                Err(error) => complaints.push(format!(
                    "{number}, which systemd calls {name}, is of no use and closed: {error}"
                )),
            }
        }
        complaints.iter().for_each(|complaint| log::warn!("descriptor {complaint}"));
        Self { sockets }
    }

    /// The sockets of this name, which are the caller's now; perhaps none.
    pub fn named(&mut self, name: &str) -> Vec<Listening> {
        self.sockets.extract_if(.., |(its, _)| its == name).map(|(_, socket)| socket).collect()
    }

    /// The socket that is bound to this address, and whether we have had it kept ourselves.
    pub fn at(&mut self, address: SocketAddr) -> Option<(Listening, bool)> {
        self.first(|socket| matches!(socket, Listening::Tcp(_, its) if *its == address))
    }

    /// The same for a path, as long as a socket is there: one whose name was removed is of no use
    /// to anybody.
    pub fn at_path(&mut self, path: &Path) -> Option<(Listening, bool)> {
        if !std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket()) {
            return None;
        }
        self.first(|socket| matches!(socket, Listening::Unix(_, Some(its)) if its == path))
    }

    /// The names of all sockets that nobody has taken.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.sockets.iter().map(|(name, _)| name.as_str())
    }

    /// Closes those that nobody has taken, calling `unused` with each and its name, if it is a name
    /// of systemd's, and `unkept`, if it is one of ours.
    pub fn close(self, unused: impl Fn(&str, &Listening), unkept: impl Fn(&str)) {
        for (name, socket) in &self.sockets {
            if name.starts_with(KEPT) { unkept(name) } else { unused(name, socket) }
        }
    }

    fn first(&mut self, is_meant: impl Fn(&Listening) -> bool) -> Option<(Listening, bool)> {
        let at = self.sockets.iter().position(|(_, socket)| is_meant(socket))?;
        let (name, socket) = self.sockets.remove(at);
        Some((socket, name.starts_with(KEPT)))
    }
}

/// The name under which a socket of our own is kept, which is another one for each address. A name
/// has at most 255 octets, no colon and nothing but printable ASCII (sd_notify(3)).
pub fn name_to_keep(address: &str) -> Option<String> {
    let name = format!("{KEPT}{}", address.replace(':', "-"));
    let is_allowed = name.len() <= 255 && name.bytes().all(|b| (b' '..=b'~').contains(&b));
    is_allowed.then_some(name)
}

fn listening(socket: OwnedFd) -> io::Result<Listening> {
    fcntl_setfd(&socket, FdFlags::CLOEXEC)?;
    let unusable = |text: &str| Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    // What is no socket at all fails here.
    if sockopt::socket_type(&socket)? != SocketType::STREAM {
        return unusable("it carries no stream; write ListenStream=");
    }
    if !sockopt::socket_acceptconn(&socket)? {
        return unusable("it does not listen; write Accept=no");
    }
    match sockopt::socket_domain(&socket)? {
        AddressFamily::INET | AddressFamily::INET6 => {
            let socket = TcpListener::from(socket);
            let address = socket.local_addr()?;
            Ok(Listening::Tcp(socket, address))
        }
        AddressFamily::UNIX => {
            let socket = UnixListener::from(socket);
            let path = socket.local_addr()?.as_pathname().map(Path::to_path_buf);
            Ok(Listening::Unix(socket, path))
        }
        family => unusable(&format!("its address family {} is unknown here", family.as_raw())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;
    use std::os::unix::net::UnixStream;

    #[test]
    fn only_what_is_meant_for_this_process_is_taken() {
        let read = |pid: &str, count: &str, names: Option<&str>| {
            Handed::read(Some(pid.into()), Some(count.into()), names.map(Into::into), 7).names
        };
        assert_eq!(read("7", "2", Some("smtp:submission")), ["smtp", "submission"]);
        assert_eq!(read("7", "2", Some("smtp")), ["smtp", NAMELESS]);
        assert_eq!(read("7", "1", None), [NAMELESS]);
        assert_eq!(read("7", "1", Some("a:b")), ["a"]);
        for (pid, count) in
            [("8", "1"), ("", "1"), ("7", "x"), ("7", "-1"), ("7", "257"), ("7", "")]
        {
            assert_eq!(read(pid, count, None), Vec::<String>::new(), "{pid} {count}");
        }
        assert_eq!(Handed::read(None, Some("1".into()), None, 7), Handed::default());
        assert_eq!(Handed::read(Some("7".into()), None, None, 7), Handed::default());
    }

    #[test]
    fn only_listening_stream_sockets_are_taken() {
        let folder = tempfile::tempdir().unwrap();
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = tcp.local_addr().unwrap();
        fcntl_setfd(&tcp, FdFlags::empty()).unwrap();
        let socket = listening(tcp.into()).unwrap();
        assert!(matches!(&socket, Listening::Tcp(_, its) if *its == address));
        assert_eq!(fcntl_getfd(&socket).unwrap(), FdFlags::CLOEXEC);

        let path = folder.path().join("x");
        let unix = listening(UnixListener::bind(&path).unwrap().into()).unwrap();
        assert_eq!(unix.to_string(), format!("unix:{}", path.display()));

        let connected = std::net::TcpStream::connect(address).unwrap();
        let pair = UnixStream::pair().unwrap().0;
        let file = std::fs::File::open("/dev/null").unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        for other in [OwnedFd::from(connected), pair.into(), file.into(), udp.into()] {
            assert!(listening(other).is_err());
        }
    }

    #[test]
    fn a_socket_is_found_by_its_name_or_by_its_address_and_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        let tcp = || listening(TcpListener::bind("127.0.0.1:0").unwrap().into()).unwrap();
        let (first, second, third) = (tcp(), tcp(), tcp());
        let Listening::Tcp(_, address) = &second else { unreachable!() };
        let address = *address;
        let unix = listening(UnixListener::bind(&path).unwrap().into()).unwrap();
        let sockets = [("a", first), ("b", second), ("kept-x", unix), ("a", third)];
        let sockets = sockets.map(|(name, socket)| (name.to_owned(), socket));
        let mut inherited = Inherited { sockets: sockets.into() };

        assert_eq!(inherited.named("a").len(), 2);
        assert_eq!(inherited.named("a").len(), 0);
        assert!(matches!(inherited.at(address), Some((Listening::Tcp(..), false))));
        assert!(inherited.at(address).is_none());
        assert_eq!(inherited.names().collect::<Vec<_>>(), ["kept-x"]);
        assert!(matches!(inherited.at_path(&path), Some((Listening::Unix(..), true))));
    }

    #[test]
    fn a_socket_whose_name_was_removed_is_no_use() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        let unix = listening(UnixListener::bind(&path).unwrap().into()).unwrap();
        let mut inherited = Inherited { sockets: vec![("x".to_owned(), unix)] };
        std::fs::remove_file(&path).unwrap();
        assert!(inherited.at_path(&path).is_none());
        std::fs::write(&path, "").unwrap();
        assert!(inherited.at_path(&path).is_none());
    }

    #[test]
    fn what_is_kept_has_a_name_that_systemd_takes() {
        assert_eq!(name_to_keep("[::1]:25").as_deref(), Some("kept-[--1]-25"));
        assert_eq!(name_to_keep("unix:/x").as_deref(), Some("kept-unix-/x"));
        assert_eq!(name_to_keep("unix:/\u{e4}"), None);
        assert_eq!(name_to_keep(&"x".repeat(251)), None);
    }
}
