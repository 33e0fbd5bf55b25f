//! The way to a server that runs.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use crate::config::settings::Server;
use crate::deliver::conversation::Timeouts;

/// How long a server with many connections waiting may take to accept one more.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long it may take to greet, and to answer a command: longer than a look-up of a user.
const GREETING_TIMEOUT: Duration = Duration::from_secs(30);
const COMMAND_TIMEOUT: Duration = Duration::from_secs(60);

/// Connects to the server.
///
/// # Errors
/// When no server listens, or it has no time.
pub(super) fn open(server: &Server) -> io::Result<UnixStream> {
    let path = server.socket.as_deref().ok_or_else(|| {
        io::Error::new(io::ErrorKind::NotFound, "[server] socket is switched off")
    })?;
    open_at(path)
}

fn open_at(path: &Path) -> io::Result<UnixStream> {
    let (family, kind) = (AddressFamily::UNIX, SocketType::STREAM);
    let socket = socket_with(family, kind, SocketFlags::CLOEXEC, None)?;
    // It bounds the connecting as well.
    set_socket_timeout(&socket, Timeout::Send, Some(CONNECT_TIMEOUT))?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    set_socket_timeout(&socket, Timeout::Send, None)?;
    Ok(socket.into())
}

/// How long each step of a session with it may take. Whoever waits for the end of a message for
/// less time than the server takes would have it twice.
pub(super) fn timeouts() -> Timeouts {
    let usual = Timeouts::default();
    Timeouts {
        greeting: GREETING_TIMEOUT,
        content: usual.content,
        ..usual.at_most(COMMAND_TIMEOUT)
    }
}

/// What the log and standard error say of a server that cannot be reached.
pub(super) fn unreachable(server: &Server, error: &io::Error) -> String {
    let path = server.socket.as_deref().unwrap_or(Path::new("the server"));
    format!("{}: {error}; is the server running (mailwren serve)?", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn only_who_listens_is_reached() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        assert_eq!(open_at(&path).unwrap_err().kind(), io::ErrorKind::NotFound);
        let listener = UnixListener::bind(&path).unwrap();
        open_at(&path).unwrap();
        drop(listener);
        assert_eq!(open_at(&path).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }
}
