//! The process itself: its limits, its memory, its name for the host, its exit codes.

#![expect(unsafe_code, reason = "mallopt and malloc_trim have no safe wrapper")]

use rustix::process::{Resource, getrlimit, setrlimit};

/// sysexits(3): what a command's exit says to the program that called it.
pub mod exit {
    /// It went well.
    pub const OK: u8 = 0;
    /// The command line is wrong.
    pub const USAGE: u8 = 64;
    /// The input is wrong.
    pub const DATAERR: u8 = 65;
    /// A recipient is unknown.
    pub const NOUSER: u8 = 67;
    /// The server refused it for good.
    pub const UNAVAILABLE: u8 = 69;
    /// An error in the program itself.
    pub const SOFTWARE: u8 = 70;
    /// An error of the operating system.
    pub const OSERR: u8 = 71;
    /// It can be tried again later.
    pub const TEMPFAIL: u8 = 75;
    /// The configuration is wrong.
    pub const CONFIG: u8 = 78;
}

/// Raises the soft limit of open files to the hard one: each session and each message at
/// work takes one.
pub fn raise_file_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        log::debug!("the limit of open files stays as it is: {error}");
    }
}

/// Keeps the C library from reserving an arena for every thread. To be called first.
pub fn bound_arenas() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes plain numbers; no other thread runs yet.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 2);
    }
}

/// Gives memory that was freed back to the system.
pub fn trim_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: may be called by any thread at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// The host's own name, as it is set; `localhost` where it is none that mail can use.
pub fn host_name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let is_usable = name.parse::<crate::mail::address::DomainName>().is_ok();
    if is_usable { name } else { "localhost".to_owned() }
}
