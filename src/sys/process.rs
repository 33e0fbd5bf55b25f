//! The process itself: its limits, its memory, its name for the host, its exit codes.

#![expect(unsafe_code, reason = "mallopt, malloc_trim, madvise and fork have no safe wrapper")]

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

use rustix::process::{Pid, Resource, WaitOptions, getrlimit, setrlimit, waitpid};

use crate::mail::address::DomainName;
use crate::sys::dns;

/// sysexits(3): what a command's exit says to the program that called it.
pub mod exit {
    /// It went well.
    pub const OK: u8 = 0;
    /// The command line is wrong.
    pub const USAGE: u8 = 64;
    /// The input is wrong.
    pub const DATAERR: u8 = 65;
    /// What is to be worked on is not there.
    pub const NOINPUT: u8 = 66;
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
    /// The caller may not do this.
    pub const NOPERM: u8 = 77;
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

/// What is larger than this goes back to the system as soon as it is free, in octets.
#[cfg(target_env = "gnu")]
const LARGE: libc::c_int = 1 << 20;

/// Keeps the C library from reserving an arena for every thread, and from keeping what was large:
/// the memory of each hash of a password would stay, since it is aligned and fits no other. To be
/// called first.
pub fn bound_arenas() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes plain numbers; no other thread runs yet.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 2);
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE);
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

/// Does `work` in a child process and waits for its end, so that what it loads and keeps costs
/// this process nothing. All that is left of it is what it does to files and says in the log. To be
/// called while no other thread runs. Where there can be no child, this process does it.
pub fn apart(work: impl FnOnce()) {
    // SAFETY: no other thread runs, so that no lock is held in the child by somebody who is not
    // there.
    match unsafe { libc::fork() } {
        0 => {
            let _ = catch_unwind(AssertUnwindSafe(work));
            // SAFETY: ends the child, without what this process wants done at its end.
            unsafe { libc::_exit(0) }
        }
        child => match Pid::from_raw(child).filter(|_| child > 0) {
            Some(child) => {
                // Nothing hangs on how it ended.
                let _ = rustix::io::retry_on_intr(|| waitpid(Some(child), WaitOptions::empty()));
            }
            None => work(),
        },
    }
}

/// Unmaps what only the start has read: the tables by which the loader bound the libraries,
/// above all OpenSSL's, and the code around what ran once. It is on disk unchanged and comes
/// back when it is touched, page by page. To be called while no other thread runs.
pub fn release_start() {
    let Ok(maps) = std::fs::read_to_string("/proc/self/smaps") else { return };
    let this_code = release_start as fn() as usize;
    for range in unchanged_file_ranges(&maps, this_code) {
        // SAFETY: the range is a private mapping of a file, without write permission and
        // without a page of its own (Anonymous: 0), so that what is dropped reads back the
        // same. No other thread can be changing the mapping. The addresses are this
        // process's own, since its code is found at one of them.
        unsafe {
            libc::madvise(range.start as *mut libc::c_void, range.len(), libc::MADV_DONTNEED);
        }
    }
}

/// The address ranges in an smaps(5) text that show a file as it is on disk. None where the text
/// has no code at the address `this_code`: an emulator for another processor may show its own
/// memory (qemu-user 7.2 does), in which these addresses mean something else.
fn unchanged_file_ranges(maps: &str, this_code: usize) -> Vec<Range<usize>> {
    let mut unchanged = Vec::new();
    let mut read_only = None;
    let mut is_ours = false;
    for line in maps.lines() {
        let mut words = line.split_ascii_whitespace();
        match (words.next(), words.next()) {
            (Some("Anonymous:"), Some("0")) => unchanged.extend(read_only.take()),
            (Some(range), Some(access @ ("r--p" | "r-xp")))
                if words.nth(3).is_some_and(is_path) =>
            {
                read_only = address_range(range);
                let has_it = read_only.as_ref().is_some_and(|range| range.contains(&this_code));
                is_ours |= access == "r-xp" && has_it;
            }
            (Some(range), _) if address_range(range).is_some() => read_only = None,
            _ => {}
        }
    }
    if is_ours { unchanged } else { Vec::new() }
}

fn is_path(name: &str) -> bool {
    name.starts_with('/')
}

/// Reads `START-END` in hexadecimal digits.
fn address_range(text: &str) -> Option<Range<usize>> {
    let (start, end) = text.split_once('-')?;
    let number = |digits| usize::from_str_radix(digits, 16).ok();
    Some(number(start)?..number(end)?)
}

/// The host's own name, as it is set; `localhost` where it is none that mail can use.
pub fn host_name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let is_usable = name.parse::<DomainName>().is_ok();
    if is_usable { name } else { "localhost".to_owned() }
}

/// The names that the host has for itself, and that its programs put behind an `@`: those that every
/// host has, its own as it is set, that without its domain, and where it has none, the one with it
/// that `/etc/hosts` says.
pub fn own_names() -> Vec<DomainName> {
    let host = host_name();
    let short = host.split_once('.').map_or(&*host, |(short, _)| short);
    let known = ["localhost", "localhost.localdomain", &host, short];
    let known = known.into_iter().filter_map(|name| name.parse().ok());
    known.chain(dns::full_name(&host)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_shows_a_file_unchanged_is_released() {
        let maps = "\
1000-2000 r-xp 00000000 08:01 7                  /usr/lib/a.so
Rss:                   4 kB
Anonymous:             0 kB
2000-3000 r--p 00000000 08:01 7                  /usr/lib/a.so
Anonymous:             4 kB
3000-4000 rw-p 00000000 08:01 7                  /usr/lib/a.so
Anonymous:             0 kB
4000-5000 r--s 00000000 08:01 7                  /usr/lib/a.so
Anonymous:             0 kB
5000-6000 r--p 00000000 00:00 0
Anonymous:             0 kB
6000-7000 r-xp 00000000 00:00 0                  [vdso]
Anonymous:             0 kB
7000-a000 r--p 00000000 08:01 7                  /usr/lib/b c.so
Anonymous:             0 kB
";
        let released = [0x1000..0x2000, 0x7000..0xa000];
        assert_eq!(unchanged_file_ranges(maps, 0x1ffc), released);
        // Code at these addresses is not in that memory: it is somebody else's.
        for elsewhere in [0xffc, 0x2000, 0x2800, 0x8000, 0xb000] {
            assert_eq!(unchanged_file_ranges(maps, elsewhere), [], "{elsewhere:x}");
        }
    }
}
