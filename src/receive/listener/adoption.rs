//! Listening sockets that were bound by somebody else: by systemd, from the beginning, or by an
//! earlier run of ours, kept by systemd since. Clients that connect while no server runs wait there.

use std::io;
use std::time::Duration;

use socket2::SockRef;

use super::{Bound, BoundListener, Origin};
use crate::config::settings::{ListenAddress, Listener, ListenerTls};
use crate::sys::systemd::sockets::{Inherited, Listening};

/// The port on which TLS comes first (RFC 8314 §7.3).
const SUBMISSIONS_PORT: u16 = 465;

impl BoundListener {
    /// What a section that names this socket says of its sessions: of a socket of systemd's only the
    /// socket itself tells whether it is for hosts, or for accounts of this host, without TLS.
    pub fn suited(&self, listener: Listener) -> Listener {
        match &self.socket {
            Bound::Tcp(_) => listener,
            Bound::Unix(_) => Listener { tls: ListenerTls::None, ..listener },
        }
    }

    /// Takes the sockets of a `[listen.NAME]` that were `inherited`, and binds its address if there
    /// are none. There is more than one only where a socket unit has several addresses.
    ///
    /// # Errors
    /// As for [`BoundListener::bind`], and when systemd hands over no socket of the name that the
    /// section says.
    pub fn take_or_bind(
        listener: &Listener,
        write_timeout: Duration,
        inherited: &mut Inherited,
    ) -> io::Result<Vec<Self>> {
        let found = match &listener.address {
            ListenAddress::Tcp(address) => inherited.at(*address),
            ListenAddress::Unix(path) => inherited.at_path(path),
            ListenAddress::Systemd(name) => {
                let others = inherited.names().collect::<Vec<_>>().join(", ");
                let sockets = inherited.named(name);
                if sockets.is_empty() {
                    return Err(not_handed(listener, name, &others));
                }
                let adopt = |socket| adopt(socket, Origin::Systemd, listener, write_timeout);
                return sockets.into_iter().map(adopt).collect();
            }
        };
        let listener = match found {
            Some((socket, is_kept)) => adopt(socket, origin(is_kept), listener, write_timeout)?,
            None => Self::bind(listener, write_timeout)?,
        };
        Ok(vec![listener])
    }
}

const fn origin(is_kept: bool) -> Origin {
    if is_kept { Origin::Kept } else { Origin::Systemd }
}

fn adopt(
    socket: Listening,
    origin: Origin,
    listener: &Listener,
    write_timeout: Duration,
) -> io::Result<BoundListener> {
    let socket = match socket {
        Listening::Tcp(socket, address) => {
            // Each accepted connection inherits the two.
            let options = SockRef::from(&socket);
            options.set_tcp_nodelay(true)?;
            options.set_write_timeout(Some(write_timeout))?;
            if address.port() == SUBMISSIONS_PORT && listener.tls != ListenerTls::Implicit {
                log::warn!(
                    "[listen.{}] has port {SUBMISSIONS_PORT}, where clients begin with TLS: write \
                     `tls = implicit` there",
                    listener.name
                );
            }
            Bound::Tcp(socket)
        }
        Listening::Unix(socket, _) => Bound::Unix(socket),
    };
    BoundListener::new(socket, origin)
}

/// The error of a section that a server which runs already is to take a socket of systemd's for.
pub(super) fn not_at_hand(listener: &Listener, name: &str) -> io::Error {
    missing(listener, name, "hands sockets over when it starts the server")
}

/// The error of a section whose socket is not there; `others` are the names of those that are.
fn not_handed(listener: &Listener, name: &str, others: &str) -> io::Error {
    let found = match others {
        "" => "none that is free".to_owned(),
        others => format!("only {others}"),
    };
    missing(listener, name, &format!("has handed over {found}"))
}

/// The error of a section whose socket is not there, with what systemd does or did. It starts no
/// socket unit of a service that runs.
fn missing(listener: &Listener, name: &str, what: &str) -> io::Error {
    let text = format!(
        "[listen.{}] address = systemd:{name}: systemd {what}; stop the server, start the socket unit \
         that says FileDescriptorName={name}, and then the server's unit, or give ADDRESS:PORT",
        listener.name
    );
    io::Error::new(io::ErrorKind::NotFound, text)
}
