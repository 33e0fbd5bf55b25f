//! Whom a command of somebody's mail runs as, and what it finds around it when it begins.
//!
//! Unlike a write into a mailbox, for which a thread takes a filesystem identity, a command gets
//! the account's real one: user, group and groups for good, no capability, and nothing that the
//! server has open. All of that happens in the child, between fork and exec, where memory must not
//! be taken; what it needs is prepared before.

#![expect(
    unsafe_code,
    reason = "pre_exec, rt_sigaction, close_range and fcntl have no safe wrapper"
)]

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::process::{
    Gid, Pid, Resource, Rlimit, Signal, Uid, chdir, getegid, geteuid, getgid, getrlimit, getuid,
    kill_process_group, setrlimit, setsid, umask,
};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, set_capabilities, set_thread_groups,
    set_thread_res_gid, set_thread_res_uid,
};

use crate::sys::identity::{self, Identity};

/// How many files a command may have open unless it asks for more: the daemon itself has raised its
/// limit, and old programs look at each number below it.
const OPEN_FILES: u64 = 1024;
/// The first descriptor behind standard input, output and error.
const FIRST_OTHER: u32 = 3;
/// Up to where descriptors are looked for on a kernel that does not close them by itself.
const LAST_OTHER: i32 = 1024;
/// Beyond the number of every signal.
const SIGNALS: std::ops::Range<libc::c_int> = 1..65;
/// The size of the kernel's set of signals, in octets.
const SIGNAL_SET: usize = 8;

/// An account that commands run as. Never root, nor one that the server has for itself.
#[derive(Debug)]
pub struct RunAs {
    uid: Uid,
    gid: Gid,
    groups: Vec<Gid>,
    /// Whether the ids have to be changed. If not, they are the process's own.
    changes: bool,
    home: CString,
}

impl RunAs {
    /// The account with this identity, whose commands begin in `home`, or in `/` where they may not
    /// enter it.
    ///
    /// # Errors
    /// `InvalidInput` for root, and for the server's own account where there is any other: whoever
    /// has that one can read the spool and the passwords, and end the server. `PermissionDenied`
    /// where this process may not take identities and it is not its own; the text names the remedy.
    pub fn new(identity: &Identity, home: &Path) -> io::Result<Self> {
        if identity.uid == 0 {
            let text = "commands never run as root: name another account in [local] command_user";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let changes = identity::may_be_changed()?;
        if changes && identity.uid == geteuid().as_raw() {
            let text = "commands never run as the server's own account: name another one in [local] \
                        command_user";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        if !changes && identity.uid != geteuid().as_raw() {
            let text = format!(
                "cannot run commands as user id {}: start mailwren as root (it drops to [server] \
                 user itself)",
                identity.uid
            );
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
        }
        Ok(Self {
            uid: Uid::from_raw(identity.uid),
            gid: Gid::from_raw(identity.gid),
            groups: identity.groups.iter().map(|&gid| Gid::from_raw(gid)).collect(),
            changes,
            home: CString::new(home.as_os_str().as_bytes())?,
        })
    }

    /// The account's user id.
    pub(super) const fn uid(&self) -> u32 {
        self.uid.as_raw()
    }

    /// Has `command` become this account before it begins.
    pub(super) fn apply_to(self, command: &mut Command) {
        // SAFETY: `enter` makes system calls only; it takes no memory and no lock.
        unsafe { command.pre_exec(move || Ok(self.enter()?)) };
    }

    /// Becomes the account. Runs in the child.
    fn enter(&self) -> Result<(), Errno> {
        setsid()?;
        reset_signals();
        keep_descriptors_back();
        umask(Mode::RWXG | Mode::RWXO);
        bound_resources()?;
        if self.changes {
            set_thread_groups(&self.groups)?;
            set_thread_res_gid(self.gid, self.gid, self.gid)?;
            set_thread_res_uid(self.uid, self.uid, self.uid)?;
            if [getuid(), geteuid()] != [self.uid; 2] || [getgid(), getegid()] != [self.gid; 2] {
                return Err(Errno::PERM);
            }
        }
        let none = CapabilitySet::empty();
        let sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
        // What is not permitted is not ambient, either, and so not given to the command.
        set_capabilities(None, sets)?;
        if !capabilities(None)?.permitted.is_empty() {
            return Err(Errno::PERM);
        }
        chdir(self.home.as_c_str()).or_else(|_| chdir(c"/"))
    }
}

/// Ends a process group that runs as the user `uid`.
///
/// # Errors
/// When the kernel refuses.
pub(super) fn kill_group(group: Pid, uid: Option<u32>) -> io::Result<()> {
    let kill = || kill_process_group(group, Signal::KILL);
    match (kill(), uid) {
        // To send a signal takes the right user, or a capability that the daemon does not keep.
        (Err(Errno::PERM), Some(uid)) => Ok(identity::as_effective_user(uid, kill)??),
        (result, _) => Ok(result?),
    }
}

/// What is ignored stays so beyond exec. The mask of blocked signals is reset by the standard
/// library. Asked of the kernel itself, since the C library refuses the two signals that it keeps for
/// itself, and whoever started the server may have ignored these, too.
fn reset_signals() {
    // The kernel's `struct sigaction`, SIG_DFL and all: zeroes, in each architecture's order.
    let default = [0_u64; 8];
    for signal in SIGNALS {
        // SAFETY: the kernel reads fewer octets than `default` has, and writes none. The few signals
        // that cannot be changed are refused.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                default.as_ptr(),
                std::ptr::null_mut::<libc::c_void>(),
                SIGNAL_SET,
            )
        };
    }
}

/// Has exec close every descriptor but the first three. Ours are all made so; what the process was
/// started with may not be.
fn keep_descriptors_back() {
    // SAFETY: takes plain numbers, and closes nothing yet.
    let closed = unsafe {
        libc::syscall(libc::SYS_close_range, FIRST_OTHER, u32::MAX, libc::CLOSE_RANGE_CLOEXEC)
    };
    if closed != 0 {
        // Linux before 5.11.
        for descriptor in FIRST_OTHER.cast_signed()..LAST_OTHER {
            // SAFETY: the same; a number that is not open is refused.
            unsafe { libc::fcntl(descriptor, libc::F_SETFD, libc::FD_CLOEXEC) };
        }
    }
}

/// No core file with somebody's mail in it, and as many open files as programs expect.
fn bound_resources() -> Result<(), Errno> {
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    let mut files = getrlimit(Resource::Nofile);
    files.current = Some(files.maximum.map_or(OPEN_FILES, |most| most.min(OPEN_FILES)));
    setrlimit(Resource::Nofile, files)
}
