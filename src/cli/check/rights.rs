//! Who may read a file: whoever checks it, and the server, which may be somebody else.

use std::io;
use std::path::Path;

use crate::config::settings::Settings;
use crate::sys::disk::Disk;
use crate::sys::users::{self, Account};

/// Whether a file could not be read for the want of rights that root has, as whom the server may
/// start.
pub(super) fn is_for_root(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied && !rustix::process::geteuid().is_root()
}

/// What is wrong with the rights of a file that the server cannot read once it has given up being
/// root, and the command that `mend`s them. Only root can tell as whom the server will run.
pub(in crate::cli) fn unreadable(path: &Path, settings: &Settings, mend: &str) -> Option<String> {
    let (account, groups) = account(settings)?;
    let status = Disk::host().look_at(path).ok()?;
    if status.is_readable_for(account.uid, &groups) {
        return None;
    }
    Some(format!(
        "the server runs as {:?}, which may not read it; run: {mend} {}",
        account.name,
        path.display()
    ))
}

/// The same of a folder above it, which the server may not enter. The file need not be there yet.
pub(in crate::cli) fn unreachable(path: &Path, settings: &Settings) -> Option<String> {
    let (account, groups) = account(settings)?;
    let path = std::path::absolute(path).ok()?;
    let above: Vec<_> = path.ancestors().skip(1).collect();
    let is_closed = |folder: &&&Path| {
        let status = Disk::host().look_at(folder);
        status.is_ok_and(|status| !status.is_searchable_for(account.uid, &groups))
    };
    let closed = above.iter().rev().find(is_closed)?;
    Some(format!(
        "the server runs as {:?}, which may not enter {}; put the file elsewhere, or run: chmod \
         o+x {}",
        account.name,
        closed.display(),
        closed.display()
    ))
}

/// As whom the server will run, and with which groups.
fn account(settings: &Settings) -> Option<(Account, Vec<u32>)> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let account = users::by_name(&settings.server.user).ok()??;
    let groups = users::groups_of(&account).ok()?;
    Some((account, groups))
}
