//! Listening sockets, and the thread of each that accepts sessions.

mod adoption;

use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixListener;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use socket2::{Domain, SockAddr, SockRef, Socket as RawSocket, Type};

use crate::config::settings::{
    AuthRule, BareNewline, ListenAddress, Listener, ListenerTls, Protocol, TlsVersion,
};
use crate::mail::status::Status;
use crate::receive::peer::Peer;
use crate::receive::refusal;
use crate::receive::session;
use crate::receive::slots::NoSlot;
use crate::receive::stream::Socket;
use crate::receive::terms::{Current, Terms};
use crate::smtp::reply::Reply;
use crate::sys::bell::{Bell, Wake};
use crate::sys::files::{make_public_folder, open_socket_to_all, with_path};

/// Connections that the kernel holds until they are accepted: a burst of a thousand is no
/// reason to lose a SYN.
const BACKLOG: i32 = 1024;
/// The pause after an `accept` that failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

// RFC 3463 §3.4: the system accepts no messages now.
const FULL: Reply = Reply::new(421, Status::new(4, 3, 2), "Too many sessions; try again later");
const FULL_OF_CLIENT: Reply =
    Reply::new(421, Status::new(4, 7, 0), "Too many sessions from your address; try again later");
const NOT_FOR_YOU: Reply =
    Reply::new(554, Status::new(5, 7, 1), "This service is not for your network");

/// A socket that listens.
#[derive(Debug)]
pub enum Bound {
    /// For hosts.
    Tcp(TcpListener),
    /// For accounts of this host.
    Unix(UnixListener),
}

/// Where a listening socket is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// It was bound by us.
    Own,
    /// It was bound by an earlier run of ours, and kept by systemd.
    Kept,
    /// It is of a socket unit.
    Systemd,
}

/// A socket that listens.
#[derive(Debug)]
pub struct BoundListener {
    socket: Bound,
    origin: Origin,
    /// Calls its thread away from waiting for clients.
    bell: Bell,
    /// Whether its thread was asked for a sign of life, and has not given one.
    is_asked: AtomicBool,
    /// Its address, where that is the one that clients connect to, and not all of the host's.
    local: Option<IpAddr>,
    is_closed: AtomicBool,
}

impl BoundListener {
    /// Binds the address of a `[listen.NAME]`, which is none of systemd's, for sessions whose clients
    /// must take something of what they are sent within `write_timeout`.
    ///
    /// # Errors
    /// When it cannot be bound; the text names the address and what to do.
    pub fn bind(listener: &Listener, write_timeout: Duration) -> io::Result<Self> {
        Self::bind_beside(listener, write_timeout, &[])
    }

    /// The same where others still listen that will be closed: one of them may have the same port,
    /// with or without an address of this host. Until then both accept. There is no other socket of
    /// systemd's than those that it handed over at the start, and one that was given up is closed.
    ///
    /// # Errors
    /// When it cannot be bound; the text names the address and what to do.
    pub fn bind_beside(
        listener: &Listener,
        write_timeout: Duration,
        leaving: &[&Self],
    ) -> io::Result<Self> {
        let socket = match &listener.address {
            ListenAddress::Tcp(address) => {
                Bound::Tcp(bind_tcp_beside(*address, write_timeout, leaving)?)
            }
            ListenAddress::Unix(path) => Bound::Unix(bind_unix(path)?),
            ListenAddress::Systemd(name) => return Err(adoption::not_at_hand(listener, name)),
        };
        Self::new(socket, Origin::Own)
    }

    fn new(socket: Bound, origin: Origin) -> io::Result<Self> {
        // Whoever has left before it was accepted must not make the thread wait where it does not
        // hear the bell.
        match &socket {
            Bound::Tcp(socket) => socket.set_nonblocking(true)?,
            Bound::Unix(socket) => socket.set_nonblocking(true)?,
        }
        Ok(Self {
            local: specific_address(&socket),
            socket,
            origin,
            bell: Bell::new()?,
            is_asked: AtomicBool::new(false),
            is_closed: AtomicBool::new(false),
        })
    }

    /// Has the clients of the next sessions take something of what they are sent within
    /// `write_timeout`.
    ///
    /// # Errors
    /// When the kernel refuses it, which it does for no socket that is open.
    pub fn set_write_timeout(&self, write_timeout: Duration) -> io::Result<()> {
        match &self.socket {
            Bound::Tcp(socket) => SockRef::from(socket).set_write_timeout(Some(write_timeout)),
            Bound::Unix(_) => Ok(()),
        }
    }

    /// Where its socket is from.
    pub const fn origin(&self) -> Origin {
        self.origin
    }

    /// The TCP address that was bound: the port that the system chose where 0 was asked for.
    pub fn local_address(&self) -> Option<SocketAddr> {
        match &self.socket {
            Bound::Tcp(socket) => socket.local_addr().ok(),
            Bound::Unix(_) => None,
        }
    }

    /// The address that is listened on, as a configuration writes it.
    pub fn address(&self) -> String {
        match &self.socket {
            Bound::Tcp(socket) => socket.local_addr().map(|it| it.to_string()).ok(),
            Bound::Unix(socket) => {
                let path =
                    |it: std::os::unix::net::SocketAddr| it.as_pathname().map(Path::to_owned);
                socket.local_addr().ok().and_then(path).map(|it| format!("unix:{}", it.display()))
            }
        }
        .unwrap_or_default()
    }

    /// Has [`run`](Self::run) look whether the server stops. Who has connected, but was not
    /// accepted, stays with the socket.
    pub fn ring(&self) {
        self.bell.ring();
    }

    /// Asks the thread for a sign of life.
    pub fn ask(&self) {
        self.is_asked.store(true, Ordering::Relaxed);
        self.bell.ring();
    }

    /// Whether the thread has given the sign that it was asked for, or has ended.
    pub fn has_answered(&self) -> bool {
        self.is_closed.load(Ordering::Relaxed) || !self.is_asked.load(Ordering::Relaxed)
    }

    /// Accepts sessions until the listener is closed or the server stops, each in a thread of its
    /// own, and by the terms of the moment.
    pub fn run(&self, terms: &Current<Terms>) {
        let is_over = || {
            self.is_closed.load(Ordering::Relaxed)
                || terms.get().reception.is_stopping.load(Ordering::Relaxed)
        };
        while !is_over() {
            match self.bell.wait_beside(self.socket.as_fd()) {
                Ok(Wake::Readable) => {}
                Ok(Wake::Rung) => {
                    self.is_asked.store(false, Ordering::Relaxed);
                    continue;
                }
                Err(error) => {
                    log::error!("cannot wait for connections: {error}");
                    thread::sleep(ACCEPT_PAUSE);
                    continue;
                }
            }
            match self.accept() {
                Ok((socket, peer)) => admit(terms.get(), socket, peer),
                Err(_) if self.is_closed.load(Ordering::Relaxed) => return,
                Err(error) if is_of_connection(&error) => {}
                Err(error) => {
                    log::error!("cannot accept connections: {error}");
                    thread::sleep(ACCEPT_PAUSE);
                }
            }
        }
    }

    /// Accepts who has connected already, and then nobody any more: [`run`](Self::run) returns.
    /// Sessions under way go on. A socket of systemd's stays as it is, and so does who waits there.
    ///
    /// # Errors
    /// When the kernel refuses it, which it does for no socket that is open.
    pub fn close(&self, terms: &Current<Terms>) -> io::Result<()> {
        self.is_closed.store(true, Ordering::Relaxed);
        self.bell.ring();
        if self.origin == Origin::Systemd {
            // It goes on listening for the unit that it belongs to.
            return Ok(());
        }
        // Whoever waits in the kernel's queue when it is shut down is sent away.
        for _ in 0..BACKLOG {
            match self.accept() {
                Ok((socket, peer)) => admit(terms.get(), socket, peer),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if is_of_connection(&error) => {}
                Err(_) => break,
            }
        }
        let both = std::net::Shutdown::Both;
        match &self.socket {
            Bound::Tcp(socket) => SockRef::from(socket).shutdown(both),
            Bound::Unix(socket) => SockRef::from(socket).shutdown(both),
        }
    }

    /// Removes the file of a Unix socket that nobody is to connect to any more.
    ///
    /// # Errors
    /// When it cannot be removed; it then refuses whoever connects.
    pub fn remove_file(&self) -> io::Result<()> {
        let Bound::Unix(socket) = &self.socket else { return Ok(()) };
        if self.origin == Origin::Systemd {
            return Ok(());
        }
        match socket.local_addr()?.as_pathname() {
            Some(path) => std::fs::remove_file(path).map_err(|error| with_path(error, path)),
            None => Ok(()),
        }
    }

    fn accept(&self) -> io::Result<(Socket, Peer)> {
        match &self.socket {
            Bound::Tcp(listener) => {
                let (socket, remote) = listener.accept()?;
                let local = match self.local {
                    Some(local) => local,
                    None => socket.local_addr()?.ip().to_canonical(),
                };
                let peer = Peer::Host { remote: remote.ip().to_canonical(), local };
                Ok((Socket::Tcp(socket), peer))
            }
            Bound::Unix(listener) => {
                let (socket, _) = listener.accept()?;
                let credentials = rustix::net::sockopt::socket_peercred(&socket)?;
                Ok((Socket::Unix(socket), Peer::Account { uid: credentials.uid.as_raw() }))
            }
        }
    }
}

/// Gives a client a session, or sends it away.
fn admit(terms: Terms, socket: Socket, peer: Peer) {
    let Terms { reception, listener } = terms;
    if let Peer::Host { remote, .. } = peer
        && !listener.networks.is_empty()
        && !listener.networks.iter().any(|network| network.contains(&remote))
    {
        refusal::note_turned_away(&peer, &listener, log::Level::Info, "networks");
        return turn_away(&listener, socket, &NOT_FOR_YOU);
    }
    let slot = match reception.slots.take(&peer) {
        Ok(slot) => slot,
        Err(limit) => {
            let (reply, reason) = match limit {
                NoSlot::TooMany => (FULL, "max_sessions"),
                NoSlot::TooManyOfClient => (FULL_OF_CLIENT, "max_sessions_per_client"),
            };
            refusal::note_turned_away(&peer, &listener, log::Level::Warn, reason);
            return turn_away(&listener, socket, &reply);
        }
    };
    let threads = reception.threads.clone();
    let work = move || {
        let session = || session::serve(&reception, socket, peer, &listener);
        if catch_unwind(AssertUnwindSafe(session)).is_err() {
            log::error!("{peer}: internal error; this session ended, nothing of it was accepted");
        }
        drop(slot);
    };
    if let Err(error) = threads.run(Box::new(work)) {
        // The socket went with the closure; the client sees a closed connection.
        log::error!("{peer}: no thread for the session: {error}");
    }
}

/// Says why and closes. Where TLS comes first nothing can be said without a handshake.
fn turn_away(listener: &Listener, socket: Socket, reply: &Reply) {
    if listener.tls != ListenerTls::Implicit {
        say_without_waiting(socket, reply);
    }
}

impl AsFd for Bound {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(socket) => socket.as_fd(),
            Self::Unix(socket) => socket.as_fd(),
        }
    }
}

impl AsFd for BoundListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// What goes for the accounts of this host at the socket `path`, and for what they leave in the
/// spool while nobody listens there.
pub fn submission_settings(path: &Path) -> Listener {
    Listener {
        name: "socket".to_owned(),
        address: ListenAddress::Unix(path.to_owned()),
        protocol: Protocol::Smtp,
        tls: ListenerTls::None,
        tls_minimum: TlsVersion::V1_2,
        // Whom the system vouches for may say so.
        auth: AuthRule::Optional,
        auth_without_tls: true,
        networks: Vec::new(),
        bare_newline: BareNewline::Reject,
    }
}

fn specific_address(socket: &Bound) -> Option<IpAddr> {
    let Bound::Tcp(socket) = socket else { return None };
    let address = socket.local_addr().ok()?.ip().to_canonical();
    (!address.is_unspecified()).then_some(address)
}

/// Whether the error concerns one connection that is gone already (accept(2)).
fn is_of_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::Interrupted
            | io::ErrorKind::NotConnected
            | io::ErrorKind::WouldBlock
    )
}

/// Says something without waiting for the client, and closes.
fn say_without_waiting(socket: Socket, reply: &Reply) {
    let mut wire = Vec::new();
    reply.write_to(&mut wire);
    // The reply fits into any socket's buffer; a client that is gone does not matter.
    let _ = match socket {
        Socket::Tcp(mut socket) => {
            socket.set_nonblocking(true).and_then(|()| socket.write_all(&wire))
        }
        Socket::Unix(mut socket) => {
            socket.set_nonblocking(true).and_then(|()| socket.write_all(&wire))
        }
    };
}

/// Binds an address whose port one of those may have that are `leaving`. For that moment the kernel
/// is told to let several sockets of ours have it (SO_REUSEPORT, socket(7)); at any other time no
/// second server is to share a port unnoticed.
fn bind_tcp_beside(
    address: SocketAddr,
    write_timeout: Duration,
    leaving: &[&BoundListener],
) -> io::Result<TcpListener> {
    let has_port = |it: &&&BoundListener| {
        it.local_address().is_some_and(|other| other.port() == address.port())
    };
    let in_the_way: Vec<_> = leaving.iter().filter(has_port).collect();
    let share = |is_shared: bool| {
        in_the_way.iter().try_for_each(|it| match &it.socket {
            Bound::Tcp(socket) => SockRef::from(socket).set_reuse_port(is_shared),
            Bound::Unix(_) => Ok(()),
        })
    };
    if in_the_way.is_empty() {
        return bind_tcp(address, write_timeout, false);
    }
    share(true)?;
    let bound = bind_tcp(address, write_timeout, true);
    share(false)?;
    bound
}

fn bind_tcp(
    address: SocketAddr,
    write_timeout: Duration,
    is_shared: bool,
) -> io::Result<TcpListener> {
    let bind = || {
        let socket = RawSocket::new(
            Domain::for_address(address),
            Type::STREAM,
            Some(socket2::Protocol::TCP),
        )?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(is_shared)?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        // Each accepted connection inherits the two.
        socket.set_tcp_nodelay(true)?;
        socket.set_write_timeout(Some(write_timeout))?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        socket.set_reuse_port(false)?;
        Ok(TcpListener::from(socket))
    };
    bind().map_err(|error: io::Error| {
        let remedy = match error.kind() {
            io::ErrorKind::AddrInUse => "; another server has this port, stop it or choose another",
            io::ErrorKind::PermissionDenied => "; ports below 1024 need root",
            io::ErrorKind::AddrNotAvailable => "; this host has no such address",
            _ => "",
        };
        io::Error::new(error.kind(), format!("cannot listen on {address}: {error}{remedy}"))
    })
}

/// Binds a Unix socket that every account may connect to. A socket that nobody answers any
/// more is replaced.
fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    if is_answered(path) {
        let text = format!("{}: another server listens here", path.display());
        return Err(io::Error::new(io::ErrorKind::AddrInUse, text));
    }
    let bind = || {
        if let Some(folder) = path.parent() {
            make_public_folder(folder)?;
        }
        // Only a socket is ever replaced; anything else makes `bind` fail, and stays.
        if std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket()) {
            std::fs::remove_file(path)?;
        }
        let listener = UnixListener::bind(path)?;
        open_socket_to_all(path)?;
        Ok(listener)
    };
    bind().map_err(|error| with_path(error, path))
}

/// Whether a server listens at this Unix socket, be it one that has been stopped, where as many as
/// may wait for it do (connect(2)).
fn is_answered(path: &Path) -> bool {
    let connect = || {
        let socket = RawSocket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        socket.connect(&SockAddr::unix(path)?)
    };
    match connect() {
        Ok(()) => true,
        Err(error) => error.kind() == io::ErrorKind::WouldBlock,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpStream;

    #[test]
    fn a_server_that_accepts_nobody_is_not_waited_for_and_keeps_its_socket() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let owner = RawSocket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        owner.bind(&SockAddr::unix(&path).unwrap()).unwrap();
        owner.listen(0).unwrap();
        let _waiting = std::os::unix::net::UnixStream::connect(&path).unwrap();
        let (told, tell) = std::sync::mpsc::channel();
        let bound = path.clone();
        thread::spawn(move || told.send(bind_unix(&bound).unwrap_err()));
        let error = tell.recv_timeout(Duration::from_secs(60)).unwrap();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert!(path.exists());
    }

    #[test]
    fn an_accepted_connection_inherits_what_was_set() {
        let timeout = Duration::from_secs(77);
        let listener = bind_tcp(([127, 0, 0, 1], 0).into(), timeout, false).unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (socket, _) = listener.accept().unwrap();
        assert!(socket.nodelay().unwrap());
        assert_eq!(socket.write_timeout().unwrap(), Some(timeout));
    }
}
