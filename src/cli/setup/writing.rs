//! Writing what was tried: the password, then the alias file, then the configuration that needs both,
//! each as a whole. So a crash leaves the old configuration, or the new one with all that it names.

use std::path::Path;

use super::Failure;
use super::plan::Plan;
use super::standing::{MAX_FILE, Standing, of_file};
use super::wish::Password;
use crate::cli::check::rights;
use crate::config::settings::Settings;
use crate::deliver::login::Secret;
use crate::deliver::secret::MAX_FILE as MAX_SECRET_FILE;
use crate::sys::process::exit;
use crate::sys::whole_file::{self, Found, Owner, Rights};
use crate::sys::{files, users};

/// Writes what the plan says and the files do not.
///
/// # Errors
/// When the account of the server is not there, or a file cannot be written.
pub(super) fn run(now: &Standing, plan: &Plan) -> Result<(), Failure> {
    let rights = rights(&plan.settings)?;
    files::make_public_folder(now.config.parent().unwrap_or(Path::new("")))
        .map_err(|error| of_file(&error))?;
    if let Some((path, password)) = &plan.password
        && !is_in_place(path, password, &plan.settings)?
    {
        let octets = format!("{}\n", password.0).into_bytes();
        whole_file::change(path, MAX_SECRET_FILE, rights, |_| Ok(Some(octets)))
            .map_err(|error| of_file(&error))?;
    }
    if let (Some(path), Some(octets)) = (&now.aliases, &plan.aliases) {
        replace(path, &now.alias_octets, octets.clone())?;
    }
    if let Some(text) = &plan.config {
        replace(&now.config, &now.config_octets, text.clone().into_bytes())?;
    }
    Ok(())
}

/// Removes the password that nobody needs any more.
///
/// # Errors
/// When it is there still.
pub(super) fn clean(plan: &Plan) -> Result<(), Failure> {
    match &plan.obsolete {
        Some(path) => whole_file::remove(path).map_err(|error| of_file(&error)),
        None => Ok(()),
    }
}

/// What an error of [`run`] has left.
pub(super) fn what_is_there(now: &Standing, plan: &Plan) -> String {
    let has = |path: &Path, wanted: &[u8]| {
        let found = whole_file::look(path, MAX_FILE);
        found.is_ok_and(|found| found.is_some_and(|found| found.octets == wanted))
    };
    let password = plan.password.as_ref().filter(|(path, password)| {
        !is_in_place(path, password, &plan.settings).is_ok_and(|is_there| is_there)
    });
    let aliases = now.aliases.as_ref().zip(plan.aliases.as_ref());
    let aliases = aliases.filter(|(path, wanted)| !has(path, wanted));
    let config = plan.config.as_ref().filter(|wanted| !has(&now.config, wanted.as_bytes()));
    let missing = [
        password.map(|(path, _)| path),
        aliases.map(|(path, _)| path),
        config.map(|_| &now.config),
    ];
    let missing: Vec<_> =
        missing.into_iter().flatten().map(|path| path.display().to_string()).collect();
    match missing.is_empty() {
        true => "All of it is written, but a power cut may undo the last of it".to_owned(),
        false => format!("Not written: {}", missing.join(", ")),
    }
}

/// Whether the file has the password already, and its rights are good.
///
/// # Errors
/// When it cannot be looked at.
pub(super) fn is_in_place(
    path: &Path,
    password: &Password,
    settings: &Settings,
) -> Result<bool, Failure> {
    let found = whole_file::look(path, MAX_SECRET_FILE).map_err(|error| of_file(&error))?;
    let Some(Found { octets, owner, mode }) = found else { return Ok(false) };
    let is_same = Secret::in_first_line(&octets) == Ok(Secret::from(password.0.as_str()));
    let Rights::Exactly(wanted, _) = rights(settings)? else { return Ok(is_same) };
    let is_of_server = match wanted.uid {
        // The group reads it.
        0 if wanted.gid != 0 => owner == wanted && mode & 0o047 == 0o040,
        uid => owner.uid == uid && mode & 0o077 == 0,
    };
    let is_root = rustix::process::geteuid().is_root();
    Ok(is_same && if is_root { is_of_server } else { mode & 0o007 == 0 })
}

/// Who may read the password: the server, and root. Where the account's group is its own the file
/// is root's, so that the server cannot change it.
fn rights(settings: &Settings) -> Result<Rights, Failure> {
    let name = &settings.server.user;
    let broken = |error: std::io::Error| (exit::OSERR, error.to_string());
    let Some(account) = users::by_name(name).map_err(broken)? else {
        if !rustix::process::geteuid().is_root() {
            return Ok(Rights::Private(None));
        }
        let text = format!(
            "there is no account {name}, as whom the server runs ([server] user); make it: useradd \
             --system --home-dir /var/lib/mailwren --shell /usr/sbin/nologin {name}"
        );
        return Err((exit::CONFIG, text));
    };
    let (uid, gid) = (account.uid, account.gid);
    let by_group = uid != 0 && users::has_private_group(&account).map_err(broken)?;
    Ok(match by_group {
        true => Rights::Exactly(Owner { uid: 0, gid }, 0o640),
        false => Rights::Exactly(Owner { uid, gid }, 0o600),
    })
}

/// That the password could be kept.
///
/// # Errors
/// As with [`run`].
pub(super) fn check_account(settings: &Settings) -> Result<(), Failure> {
    rights(settings).map(drop)
}

/// That the server will find the password where it is to be.
///
/// # Errors
/// When it may not enter a folder on the way there.
pub(super) fn check_reach(path: &Path, settings: &Settings) -> Result<(), Failure> {
    match rights::unreachable(path, settings) {
        Some(text) => Err((exit::CONFIG, format!("{}: {text}", path.display()))),
        None => Ok(()),
    }
}

/// Replaces a file that is `before`. What others have written since it was read, while somebody
/// thought about an answer or a server was tried, is not lost.
fn replace(path: &Path, before: &[u8], octets: Vec<u8>) -> Result<(), Failure> {
    let change = |found: &[u8]| match found == before {
        true => Ok(Some(octets)),
        false => {
            let text = format!("{}: somebody has changed it meanwhile", path.display());
            Err(std::io::Error::other(text))
        }
    };
    whole_file::change(path, MAX_FILE, Rights::Kept, change).map_err(|error| of_file(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_have_written_meanwhile_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ini");
        replace(&path, b"", b"one".to_vec()).unwrap();
        for before in ["", "another"] {
            let (code, text) = replace(&path, before.as_bytes(), b"two".to_vec()).unwrap_err();
            assert_eq!(code, exit::OSERR);
            assert!(text.ends_with("ini: somebody has changed it meanwhile"), "{text}");
        }
        assert_eq!(whole_file::look(&path, 99).unwrap().unwrap().octets, b"one");
        replace(&path, b"one", b"two".to_vec()).unwrap();
        assert_eq!(whole_file::look(&path, 99).unwrap().unwrap().octets, b"two");
    }
}
