//! The accounts of the system, as the C library finds them (files, LDAP, whatever NSS is
//! set up to ask).
//!
//! "There is no such account" and "nobody could be asked" are kept apart: the first bounces
//! mail, the second must only delay it.

#![expect(unsafe_code, reason = "getpwnam_r, getgrgid_r and getgrouplist have no safe wrapper")]

use std::ffi::{CStr, CString, OsStr, c_char, c_int};
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::ptr;
use std::time::Duration;

use crate::sys::remembered::Remembered;

/// The first try at a buffer for an account's texts, in octets.
const FIRST_BUFFER: usize = 1024;
/// No account has more text than this, in octets.
const MAX_BUFFER: usize = 1 << 20;
/// The most groups that Linux lets a process have (NGROUPS_MAX).
const MAX_GROUPS: usize = 65_536;

/// How long an account is believed to be as it was.
const ACCOUNT_AGE: Duration = Duration::from_secs(5);

/// An account of the system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Its name, as the system spells it.
    pub name: String,
    /// Its user id.
    pub uid: u32,
    /// Its primary group.
    pub gid: u32,
    /// Its home. It need not exist.
    pub home: PathBuf,
}

/// Remembers accounts for a few seconds, so that a message does not cost a look through all of
/// them at each of its recipients' steps. That there is no such account is never remembered: it
/// may be made at any moment.
#[derive(Debug)]
pub struct AccountCache(Remembered<Account>);

impl Default for AccountCache {
    fn default() -> Self {
        Self(Remembered::new(ACCOUNT_AGE))
    }
}

impl AccountCache {
    /// The account called `name`, or `None` where there is none.
    ///
    /// # Errors
    /// As with [`by_name`].
    pub fn by_name(&self, name: &str) -> io::Result<Option<Account>> {
        if let Some(account) = self.0.recall(name) {
            return Ok(Some(account));
        }
        let found = by_name(name)?;
        if let Some(account) = &found {
            self.0.remember(name, account.clone());
        }
        Ok(found)
    }
}

/// The account called `name`, or `None` where there is none.
///
/// # Errors
/// When the system could not say: the mail waits.
pub fn by_name(name: &str) -> io::Result<Option<Account>> {
    // No account has a NUL in its name.
    let Ok(name) = CString::new(name) else { return Ok(None) };
    find(|entry, buffer, length, found| {
        // SAFETY: `name` ends with NUL, `entry` and `found` are valid for a write, and
        // `buffer` for `length` octets, all of them until the call returns.
        unsafe { libc::getpwnam_r(name.as_ptr(), entry, buffer, length, found) }
    })
}

/// The account with this user id, or `None` where there is none.
///
/// # Errors
/// When the system could not say.
pub fn by_uid(uid: u32) -> io::Result<Option<Account>> {
    find(|entry, buffer, length, found| {
        // SAFETY: `entry` and `found` are valid for a write, and `buffer` for `length` octets,
        // all of them until the call returns.
        unsafe { libc::getpwuid_r(uid, entry, buffer, length, found) }
    })
}

/// The groups of an account, its primary one included.
///
/// # Errors
/// When it has more than Linux allows, or the name holds a NUL.
pub fn groups_of(account: &Account) -> io::Result<Vec<u32>> {
    let name = CString::new(account.name.as_str())?;
    let mut groups = vec![0; 64];
    loop {
        let mut count = c_int::try_from(groups.len()).map_err(io::Error::other)?;
        // SAFETY: `name` ends with NUL, and `groups` has room for `count` ids.
        let result = unsafe {
            libc::getgrouplist(name.as_ptr(), account.gid, groups.as_mut_ptr(), &raw mut count)
        };
        let count = usize::try_from(count).unwrap_or(0);
        if result >= 0 {
            groups.truncate(count);
            return Ok(groups);
        }
        if groups.len() >= MAX_GROUPS {
            return Err(io::Error::other(format!("{} is in too many groups", account.name)));
        }
        let wanted = count.max(groups.len() * 2).min(MAX_GROUPS);
        groups.resize(wanted, 0);
    }
}

/// Whether the primary group of `account` is its own and nobody else's: it has the account's name,
/// and no other members, as systems make one for each user.
///
/// # Errors
/// When the system could not say.
pub fn has_private_group(account: &Account) -> io::Result<bool> {
    let mut buffer = vec![0; FIRST_BUFFER];
    loop {
        let mut entry = MaybeUninit::<libc::group>::uninit();
        let (entry, mut found) = (entry.as_mut_ptr(), ptr::null_mut());
        let (texts, length) = (buffer.as_mut_ptr(), buffer.len());
        // SAFETY: `entry` and `found` are valid for a write, and `texts` for `length` octets, all of
        // them until the call returns.
        match unsafe { libc::getgrgid_r(account.gid, entry, texts, length, &raw mut found) } {
            0 if found.is_null() => return Ok(false),
            // SAFETY: 0 and a pointer that is not null say that `found` points to `entry`, filled in,
            // with texts and a list of them in `buffer`, and both are still there.
            0 => return Ok(unsafe { is_group_of(&*found, account.name.as_bytes()) }),
            libc::EINTR => {}
            libc::ERANGE if buffer.len() < MAX_BUFFER => buffer.resize(buffer.len() * 2, 0),
            error => return Err(io::Error::from_raw_os_error(error)),
        }
    }
}

/// Whether a group has this name, and no member with another one.
///
/// # Safety
/// The name of `entry` must be a valid C string or null, and its members null, or a list of such
/// strings with null at its end.
unsafe fn is_group_of(entry: &libc::group, name: &[u8]) -> bool {
    // SAFETY: the caller vouches for the string.
    if unsafe { octets(entry.gr_name) } != name {
        return false;
    }
    let mut member = entry.gr_mem;
    // SAFETY: the caller vouches for the list, which is read up to its end and not beyond.
    while !member.is_null() && unsafe { !(*member).is_null() } {
        // SAFETY: as above.
        if unsafe { octets(*member) } != name {
            return false;
        }
        // SAFETY: the list goes on behind an entry that is not null.
        member = unsafe { member.add(1) };
    }
    true
}

/// Calls a `getpw…_r` with a buffer that grows until the answer fits.
fn find(
    ask: impl Fn(*mut libc::passwd, *mut c_char, usize, *mut *mut libc::passwd) -> c_int,
) -> io::Result<Option<Account>> {
    let mut buffer = vec![0; FIRST_BUFFER];
    loop {
        let mut entry = MaybeUninit::<libc::passwd>::uninit();
        let mut found = ptr::null_mut();
        let error = ask(entry.as_mut_ptr(), buffer.as_mut_ptr(), buffer.len(), &raw mut found);
        match error {
            // The manual allows ENOENT and ESRCH for an account that is not there, but glibc
            // and musl give 0 then; those two come from a database that is away.
            0 if found.is_null() => return Ok(None),
            // SAFETY: 0 and a pointer that is not null say that `found` points to `entry`,
            // filled in, with texts in `buffer`, and both are still there.
            0 => return unsafe { account_of(&*found) }.map(Some),
            libc::EINTR => {}
            libc::ERANGE if buffer.len() < MAX_BUFFER => buffer.resize(buffer.len() * 2, 0),
            error => return Err(io::Error::from_raw_os_error(error)),
        }
    }
}

/// Copies what is wanted of an entry.
///
/// # Safety
/// The texts of `entry` must be valid C strings or null.
unsafe fn account_of(entry: &libc::passwd) -> io::Result<Account> {
    // SAFETY: the caller vouches for the strings.
    let (name, home) = unsafe { (octets(entry.pw_name), octets(entry.pw_dir)) };
    let name =
        str::from_utf8(name).map_err(|_| io::Error::other("an account name is not UTF-8"))?;
    Ok(Account {
        name: name.to_owned(),
        uid: entry.pw_uid,
        gid: entry.pw_gid,
        home: OsStr::from_bytes(home).into(),
    })
}

/// # Safety
/// `text` must be null or a C string that lives as long as the caller uses the result.
unsafe fn octets<'a>(text: *const c_char) -> &'a [u8] {
    if text.is_null() {
        return b"";
    }
    // SAFETY: it is not null, so it is a C string, as the caller vouches.
    unsafe { CStr::from_ptr(text) }.to_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_there_and_nonsense_is_not() {
        let root = by_name("root").unwrap().unwrap();
        assert_eq!((root.uid, root.name.as_str()), (0, "root"));
        assert_eq!(by_uid(0).unwrap(), Some(root.clone()));
        assert!(groups_of(&root).unwrap().contains(&root.gid));
        assert_eq!(by_name("no-such-account-here").unwrap(), None);
        assert_eq!(by_name("a\0b").unwrap(), None);
        assert_eq!(by_name("").unwrap(), None);
    }

    #[test]
    fn a_group_is_private_by_its_name() {
        let root = by_name("root").unwrap().unwrap();
        assert!(has_private_group(&root).unwrap());
        let other = Account { name: "ann".to_owned(), ..root.clone() };
        assert!(!has_private_group(&other).unwrap());
        let nowhere = Account { gid: 4_000_000_001, ..root };
        assert!(!has_private_group(&nowhere).unwrap());
    }

    #[test]
    fn a_group_with_other_members_is_not_private() {
        for (members, expected) in
            [(&[][..], true), (&[c"ann"], true), (&[c"ann", c"bob"], false), (&[c"bob"], false)]
        {
            let mut list: Vec<_> = members.iter().map(|name| name.as_ptr().cast_mut()).collect();
            list.push(ptr::null_mut());
            let entry = libc::group {
                gr_name: c"ann".as_ptr().cast_mut(),
                gr_passwd: ptr::null_mut(),
                gr_gid: 1,
                gr_mem: list.as_mut_ptr(),
            };
            // SAFETY: the strings are C strings, and the list ends with null.
            assert_eq!(unsafe { is_group_of(&entry, b"ann") }, expected, "{members:?}");
        }
    }
}
