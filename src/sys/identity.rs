//! Whom the process runs as, and whose files a thread writes.
//!
//! Started as root, the daemon binds its ports and then calls [`drop_privileges`]: it becomes
//! an ordinary account that keeps nothing but the right to change identities, and to bind such ports
//! again when the configuration is read again. A thread that writes into somebody's mailbox
//! [assumes](Identity::assume) that person's filesystem identity for just that write, so that the
//! kernel decides what a planted link leads to.
//!
//! Filesystem ids and groups belong to a thread in Linux. The C library's `setgroups` would
//! change all threads at once, so the system calls are made directly.

#![expect(unsafe_code, reason = "setfsuid, setfsgid and setres[ug]id have no safe wrapper")]

use std::cell::OnceCell;
use std::io;
use std::marker::PhantomData;
use std::time::Duration;

use rustix::process::{Uid, getegid, geteuid, getgid, getgroups, getuid};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, set_capabilities, set_keep_capabilities,
    set_thread_groups, set_thread_res_uid,
};

use crate::sys::remembered::Remembered;
use crate::sys::users::{self, Account};

/// What is kept to bind ports below 1024 that a later configuration names: without it, a change that
/// is common at the beginning, such as one more listener for submission, would take a restart. Whoever
/// could misuse it could misuse [`KEPT`] for much more.
const PORTS: CapabilitySet = CapabilitySet::NET_BIND_SERVICE;

/// What is kept for local delivery: to take the identity of a recipient.
const KEPT: CapabilitySet = CapabilitySet::SETUID.union(CapabilitySet::SETGID);

/// How long the groups of an account are believed. Asking for them reads the whole list of
/// groups, and may ask other hosts.
const GROUPS_AGE: Duration = Duration::from_secs(60);

/// What [`drop_privileges`] came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Privileges {
    /// The process was not started as root, and can do nothing that its account cannot.
    Ordinary,
    /// The process was not started as root, but was given what local delivery needs, as by
    /// AmbientCapabilities= of its unit.
    Lent,
    /// `user = root`: root was kept.
    Root,
    /// It runs as this account now.
    Dropped(Account),
}

/// Becomes `user` for good, where the process runs as root, keeping only CAP_SETUID, CAP_SETGID and
/// CAP_NET_BIND_SERVICE. A process of another account keeps no more than these three of what it was
/// given. To be called before any other thread starts: one that is there already loses them as well.
///
/// # Errors
/// When there is no such account, or the kernel refuses. The process must not go on then.
pub fn drop_privileges(user: &str) -> io::Result<Privileges> {
    if !geteuid().is_root() {
        return keep_what_is_lent();
    }
    let account = users::by_name(user)?.ok_or_else(|| {
        let text = format!("there is no account {user:?}: create it or set [server] user");
        io::Error::new(io::ErrorKind::NotFound, text)
    })?;
    if account.uid == 0 {
        return Ok(Privileges::Root);
    }
    // A container may have taken them away already; without them only the mailboxes of
    // `users = any` or of a file can be written.
    let kept = capabilities(None)?.permitted & KEPT.union(PORTS);
    set_keep_capabilities(true)?;
    become_account(&account)?;
    let sets =
        CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    set_capabilities(None, sets)?;
    set_keep_capabilities(false)?;
    let is_account = [getuid().as_raw(), geteuid().as_raw()] == [account.uid; 2]
        && [getgid().as_raw(), getegid().as_raw()] == [account.gid; 2];
    if !is_account || capabilities(None)?.permitted != kept {
        return Err(io::Error::other("the kernel did not drop the privileges of root"));
    }
    Ok(Privileges::Dropped(account))
}

/// Lets go of every capability but [`KEPT`] and [`PORTS`], and lets no other program inherit those.
fn keep_what_is_lent() -> io::Result<Privileges> {
    let given = capabilities(None)?;
    if given.permitted.is_empty() {
        return Ok(Privileges::Ordinary);
    }
    let kept = given.permitted & KEPT.union(PORTS);
    // What cannot be inherited is not ambient, either (capabilities(7)).
    let inheritable = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: kept, permitted: kept, inheritable })?;
    Ok(if kept.contains(KEPT) { Privileges::Lent } else { Privileges::Ordinary })
}

/// Sets groups, group and user, for all threads.
fn become_account(account: &Account) -> io::Result<()> {
    let groups = users::groups_of(account)?;
    let (uid, gid) = (account.uid, account.gid);
    // SAFETY: `groups` holds as many ids as it says.
    check(unsafe { libc::setgroups(groups.len(), groups.as_ptr()) })?;
    // SAFETY: takes plain numbers.
    check(unsafe { libc::setresgid(gid, gid, gid) })?;
    // SAFETY: takes plain numbers.
    check(unsafe { libc::setresuid(uid, uid, uid) })
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A filesystem identity: what decides whether a file may be opened, and who owns a new one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The user id.
    pub uid: u32,
    /// The primary group.
    pub gid: u32,
    /// The supplementary groups.
    pub groups: Vec<u32>,
}

impl Identity {
    /// The identity of an account, with all its groups.
    ///
    /// # Errors
    /// When the groups cannot be found out.
    pub fn of(account: &Account) -> io::Result<Self> {
        let groups = users::groups_of(account)?;
        Ok(Self { uid: account.uid, gid: account.gid, groups })
    }

    /// That of root, who owns what nobody else may read.
    pub const fn root() -> Self {
        Self { uid: 0, gid: 0, groups: Vec::new() }
    }

    /// Takes this identity for the files that the calling thread touches, until the guard is
    /// dropped. A process that may not change identities keeps its own, if that is the one.
    ///
    /// # Errors
    /// `PermissionDenied` when the process may not; the text names the remedy. The thread's
    /// identity is what it was.
    pub fn assume(&self) -> io::Result<Guard> {
        let own = own()?;
        if !own.may_change {
            return self.assume_own();
        }
        let (uid, gid) = (swap_fsuid(self.uid), swap_fsgid(self.gid));
        let before = Self { uid, gid, groups: own.groups };
        // From here on the guard gives back whatever was taken, also when the rest fails.
        let guard = Guard { before: Some(before), on_this_thread: PhantomData };
        set_groups(&self.groups)?;
        if (swap_fsuid(self.uid), swap_fsgid(self.gid)) != (self.uid, self.gid) {
            return Err(io::Error::other(format!("the kernel refused the user id {}", self.uid)));
        }
        Ok(guard)
    }

    fn assume_own(&self) -> io::Result<Guard> {
        if self.uid == geteuid().as_raw() {
            return Ok(Guard { before: None, on_this_thread: PhantomData });
        }
        let text = format!(
            "cannot write files as user id {}: start mailwren as root (it drops to [server] user \
             itself), or set [local] users = any",
            self.uid
        );
        Err(io::Error::new(io::ErrorKind::PermissionDenied, text))
    }
}

/// What a thread has of its own, and keeps as long as it lives: privileges are dropped before
/// the threads that write into mailboxes are started.
#[derive(Clone, Debug)]
struct Own {
    /// Whether it may take other identities.
    may_change: bool,
    groups: Vec<u32>,
}

/// What the calling thread has. Asked once for each thread; not while it has another identity.
fn own() -> io::Result<Own> {
    thread_local! {
        static OWN: OnceCell<Own> = const { OnceCell::new() };
    }
    OWN.with(|known| {
        if let Some(own) = known.get() {
            return Ok(own.clone());
        }
        let may_change = capabilities(None)?.effective.contains(KEPT);
        let groups = getgroups()?.into_iter().map(rustix::fs::Gid::as_raw).collect();
        Ok(known.get_or_init(|| Own { may_change, groups }).clone())
    })
}

/// Whether the calling thread may take other identities than its own.
///
/// # Errors
/// When the kernel does not say.
pub(super) fn may_be_changed() -> io::Result<bool> {
    Ok(own()?.may_change)
}

/// Does `act` with `uid` as the calling thread's effective user, whom kill(2) looks at. To be
/// called while the thread has no other identity.
///
/// # Errors
/// When the process may not; nothing was done then.
pub(super) fn as_effective_user<T>(uid: u32, act: impl FnOnce() -> T) -> io::Result<T> {
    let (real, effective) = (getuid(), geteuid());
    // The saved one is what it comes back to.
    set_thread_res_uid(real, Uid::from_raw(uid), effective)?;
    let done = act();
    if set_thread_res_uid(real, effective, effective).is_err() || geteuid() != effective {
        log::error!("cannot give back the identity of a user: ending the process");
        std::process::abort();
    }
    Ok(done)
}

/// Remembers the identities of accounts for a minute, so that not each message costs a look
/// through all groups.
#[derive(Debug)]
pub struct IdentityCache(Remembered<Identity>);

impl Default for IdentityCache {
    fn default() -> Self {
        Self(Remembered::new(GROUPS_AGE))
    }
}

impl IdentityCache {
    /// The identity of an account, with all its groups.
    ///
    /// # Errors
    /// When the groups cannot be found out.
    pub fn identity_of(&self, account: &Account) -> io::Result<Identity> {
        let is_its = |it: &Identity| (it.uid, it.gid) == (account.uid, account.gid);
        if let Some(identity) = self.0.recall(&account.name).filter(is_its) {
            return Ok(identity);
        }
        let identity = Identity::of(account)?;
        self.0.remember(&account.name, identity.clone());
        Ok(identity)
    }
}

/// The calling thread has another filesystem identity while this lives. It cannot be sent to
/// another thread.
#[derive(Debug)]
#[must_use = "the identity is given back as soon as this is dropped"]
pub struct Guard {
    before: Option<Identity>,
    on_this_thread: PhantomData<*const ()>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        let Some(before) = self.before.take() else { return };
        let groups = set_groups(&before.groups);
        swap_fsuid(before.uid);
        swap_fsgid(before.gid);
        let ids = (swap_fsuid(before.uid), swap_fsgid(before.gid));
        if groups.is_err() || ids != (before.uid, before.gid) {
            // Going on would write the next person's mail as the last one.
            log::error!("cannot give back the identity of a recipient: ending the process");
            std::process::abort();
        }
    }
}

fn set_groups(groups: &[u32]) -> io::Result<()> {
    let groups: Vec<_> = groups.iter().map(|&gid| rustix::fs::Gid::from_raw(gid)).collect();
    Ok(set_thread_groups(&groups)?)
}

/// Sets the thread's filesystem user and gives the one before. It reports no errors: whether
/// it worked shows the next call.
fn swap_fsuid(uid: u32) -> u32 {
    // SAFETY: takes a plain number and touches no memory.
    unsafe { libc::setfsuid(uid) }.cast_unsigned()
}

/// The same for the group.
fn swap_fsgid(gid: u32) -> u32 {
    // SAFETY: takes a plain number and touches no memory.
    unsafe { libc::setfsgid(gid) }.cast_unsigned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_identity_can_always_be_taken() {
        let groups = getgroups().unwrap().into_iter().map(rustix::fs::Gid::as_raw).collect();
        let own = Identity { uid: geteuid().as_raw(), gid: getegid().as_raw(), groups };
        drop(own.assume().unwrap());
    }

    #[test]
    fn an_account_that_changed_is_asked_for_again() {
        let cache = IdentityCache::default();
        let mut root = users::by_name("root").unwrap().unwrap();
        let identity = cache.identity_of(&root).unwrap();
        assert_eq!(identity, Identity::of(&root).unwrap());
        assert_eq!(cache.identity_of(&root).unwrap(), identity);
        root.gid = 4711;
        assert_eq!(cache.identity_of(&root).unwrap().gid, 4711);
    }
}
