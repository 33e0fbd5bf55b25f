//! What passes between this process and systemd, or whoever else keeps to its protocol: we say by
//! datagrams how we are (sd_notify(3)) and are handed listening sockets (sd_listen_fds(3)). Without
//! it nothing of this does anything.
//!
//! Both are told of by variables, which are read once, before any other thread starts, and removed,
//! so that no command of ours takes them for its own. A crate for it would be longer than this, and
//! could not have a socket kept.

#![expect(unsafe_code, reason = "remove_var has no safe wrapper")]

pub mod sockets;

use std::env;
use std::ffi::{OsStr, OsString};
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, connect, sendmsg,
};
use rustix::time::{ClockId, clock_gettime};

use self::sockets::{Handed, Inherited};

/// What systemd passes on is in these.
const VARIABLES: [&str; 6] = [
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "LISTEN_PID",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
];
/// How long a word to systemd may take: it may be busy, and nobody here may hang on it.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);

/// What this process was told by the one that started it.
#[derive(Debug)]
pub struct Beginnings {
    /// Whom to tell how we are.
    pub service: ServiceManager,
    /// The sockets that were handed over.
    pub inherited: Inherited,
}

impl Beginnings {
    /// Reads the variables, and removes them. To be called before anything is opened and before any
    /// other thread starts.
    pub fn take() -> Self {
        let [notify, usec, watchdog_pid, listen_pid, count, names] = VARIABLES.map(env::var_os);
        // SAFETY: no other thread runs that could read the environment meanwhile.
        VARIABLES.iter().for_each(|name| unsafe { env::remove_var(name) });
        let watchdog = watchdog(usec, watchdog_pid, std::process::id());
        let handed = Handed::read(listen_pid, count, names, std::process::id());
        // First of all: whatever is opened before could have a number that was said to be handed over.
        let inherited = Inherited::take(handed);
        Self { service: ServiceManager::new(notify, watchdog), inherited }
    }
}

/// The one that wants to know how we are, if there is one.
#[derive(Debug)]
pub struct ServiceManager {
    socket: Option<UnixDatagram>,
    watchdog: Option<Duration>,
}

impl ServiceManager {
    fn new(notify: Option<OsString>, watchdog: Option<Duration>) -> Self {
        let socket = notify.and_then(|name| {
            let open = || -> io::Result<_> {
                let address = notify_address(&name)?;
                let socket = UnixDatagram::unbound()?;
                socket.set_write_timeout(Some(SEND_TIMEOUT))?;
                // Now, since start-stop-daemon(8) has it in a folder that is root's alone.
                connect(&socket, &address)?;
                Ok(socket)
            };
            open()
                .inspect_err(|error| log::warn!("NOTIFY_SOCKET {name:?} cannot be used: {error}"))
                .ok()
        });
        Self { socket, watchdog }
    }

    /// How often it wants to hear of us at the least, before it starts us anew.
    pub fn watchdog(&self) -> Option<Duration> {
        self.watchdog.filter(|_| self.socket.is_some())
    }

    /// Whether anybody listens.
    pub const fn is_there(&self) -> bool {
        self.socket.is_some()
    }

    /// Says that sessions are accepted, at the start and after a reload; `status` is for people.
    pub fn ready(&self, status: &str) {
        self.say(&format!("READY=1\nSTATUS={}", on_one_line(status)), &[]);
    }

    /// Says that the configuration is being read; [`ServiceManager::ready`] says when it was.
    pub fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let microseconds = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1000;
        let text = "STATUS=Reading the configuration again";
        self.say(&format!("RELOADING=1\nMONOTONIC_USEC={microseconds}\n{text}"), &[]);
    }

    /// Says that the end has begun, which takes no longer than `most`.
    pub fn stopping(&self, most: Duration) {
        let text = "STATUS=Ending what is under way";
        let microseconds = most.as_micros();
        self.say(&format!("STOPPING=1\nEXTEND_TIMEOUT_USEC={microseconds}\n{text}"), &[]);
    }

    /// Says that everything here answers.
    pub fn alive(&self) {
        self.say("WATCHDOG=1", &[]);
    }

    /// Has a listening socket kept beyond our end, to be handed over at the next start as `name`,
    /// which has no colon.
    pub fn keep(&self, name: &str, socket: BorrowedFd<'_>) {
        self.say(&format!("FDSTORE=1\nFDNAME={name}"), &[socket]);
    }

    /// Has a socket no longer kept.
    pub fn forget(&self, name: &str) {
        self.say(&format!("FDSTOREREMOVE=1\nFDNAME={name}"), &[]);
    }

    fn say(&self, text: &str, sockets: &[BorrowedFd<'_>]) {
        let Some(socket) = &self.socket else { return };
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut rights = SendAncillaryBuffer::new(&mut space);
        // There is room for one, and nobody gives more.
        let fits = sockets.is_empty() || rights.push(SendAncillaryMessage::ScmRights(sockets));
        debug_assert!(fits, "one socket at a time");
        let text = [IoSlice::new(text.as_bytes())];
        let sent =
            rustix::io::retry_on_intr(|| sendmsg(socket, &text, &mut rights, SendFlags::NOSIGNAL));
        match sent {
            Ok(_) => {}
            // start-stop-daemon(8) has gone as soon as it has heard that we are ready.
            Err(Errno::CONNREFUSED | Errno::NOTCONN) => {
                log::debug!("nobody hears how this server is")
            }
            Err(error) => log::warn!("systemd cannot be told how this server is: {error}"),
        }
    }
}

/// The address in NOTIFY_SOCKET: a path, or behind an `@` a name in the abstract namespace.
fn notify_address(name: &OsStr) -> io::Result<SocketAddrUnix> {
    match name.as_bytes() {
        [b'@', name @ ..] if !name.is_empty() => Ok(SocketAddrUnix::new_abstract_name(name)?),
        [b'/', ..] => Ok(SocketAddrUnix::new(name)?),
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "it is neither a path nor @NAME")),
    }
}

/// The interval of the watchdog, where it is meant for the process `own`.
fn watchdog(usec: Option<OsString>, pid: Option<OsString>, own: u32) -> Option<Duration> {
    if pid.is_some_and(|pid| number(&pid) != Some(u64::from(own))) {
        return None;
    }
    number(&usec?).filter(|&usec| usec > 0).map(Duration::from_micros)
}

/// A decimal number of digits alone.
fn number(text: &OsStr) -> Option<u64> {
    let text = text.to_str()?;
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?
}

fn on_one_line(text: &str) -> String {
    text.replace(char::is_control, " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Option<OsString> {
        Some(text.into())
    }

    #[test]
    fn the_watchdog_counts_only_for_the_process_that_it_is_meant_for() {
        let minute = Some(Duration::from_secs(60));
        assert_eq!(watchdog(text("60000000"), None, 7), minute);
        assert_eq!(watchdog(text("60000000"), text("7"), 7), minute);
        for (usec, pid) in [
            (text("60000000"), text("8")),
            (text("60000000"), text("")),
            (text("0"), None),
            (text("-1"), None),
            (text("+1"), None),
            (text(""), None),
            (text("99999999999999999999"), None),
            (None, None),
        ] {
            assert_eq!(watchdog(usec.clone(), pid, 7), None, "{usec:?}");
        }
    }

    #[test]
    fn a_socket_is_a_path_or_an_abstract_name() {
        let path = notify_address(OsStr::new("/run/x")).unwrap();
        assert_eq!(path.path_bytes(), Some(&b"/run/x"[..]));
        let name = notify_address(OsStr::new("@x/y")).unwrap();
        assert_eq!(name.abstract_name(), Some(&b"x/y"[..]));
        for bad in ["", "@", "x", "vsock:2:1", &"/x".repeat(100)] {
            assert!(notify_address(OsStr::new(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_status_cannot_say_more_than_a_status() {
        assert_eq!(on_one_line("a\nMAINPID=1\0"), "a MAINPID=1 ");
    }

    #[test]
    fn each_word_arrives_as_it_is_documented() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        let service = ServiceManager::new(Some(path.into()), Some(Duration::from_secs(2)));
        let heard = || {
            let mut text = [0; 500];
            let length = manager.recv(&mut text).unwrap();
            String::from_utf8(text[..length].to_vec()).unwrap()
        };
        service.ready("Taking mail\nat 2 addresses");
        assert_eq!(heard(), "READY=1\nSTATUS=Taking mail at 2 addresses");
        service.alive();
        assert_eq!(heard(), "WATCHDOG=1");
        service.stopping(Duration::from_millis(1500));
        assert!(heard().starts_with("STOPPING=1\nEXTEND_TIMEOUT_USEC=1500000\nSTATUS="));
        service.reloading();
        let reloading = heard();
        let time = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
        let time: u128 = time.lines().next().unwrap().parse().unwrap();
        let now = clock_gettime(ClockId::Monotonic);
        let now = u128::try_from(now.tv_sec).unwrap() * 1_000_000;
        assert!(time <= now + 1_000_000 && time + 60_000_000 > now, "{time} at {now}");
        // Nobody reads any more, and nobody here minds.
        drop(manager);
        service.alive();
    }
}
