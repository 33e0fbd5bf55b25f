//! `mailwren passwd`: gives an account of the users file a password, or removes the account.
//!
//! What is written is what `[auth] mechanisms` needs, and never the password. All other lines,
//! comments among them, stay as they are.

use std::io;

use super::invocation::{Argument, Invocation, Stop};
use super::output::{say, warn};
use super::{Ran, check};
use crate::config::settings::Settings;
use crate::receive::logins::accounts::random;
use crate::receive::logins::hash::PasswordHash;
use crate::receive::logins::users_file::{self, Account, MAX_OCTETS};
use crate::smtp::sasl::keys::{CramMd5Keys, KeyError, ScramHash, ScramKeys};
use crate::smtp::sasl::prepare::prepared;
use crate::smtp::sasl::{MAX_SECRET, Mechanism};
use crate::sys::process::exit;
use crate::sys::secret_file::{self, Owner};
use crate::sys::{terminal, users};

/// Four times the least that RFC 7677 allows, which old phones and small hosts still compute at
/// once.
const ITERATIONS: u32 = 16_384;

/// What the command line asks for.
struct Wish {
    name: String,
    is_delete: bool,
}

/// Why nothing was done: the exit code, and what to say.
type Failure = (u8, String);

/// Sets a password or removes an account.
pub(super) fn run(invocation: &mut Invocation) -> Ran {
    let wish = wish(invocation)?;
    let settings = match invocation.settings() {
        Ok(settings) => settings,
        Err(code) => return Ok(code),
    };
    let done =
        if wish.is_delete { delete(&settings, &wish.name) } else { set(&settings, &wish.name) };
    Ok(match done {
        Ok(text) => {
            say(text);
            exit::OK
        }
        Err((code, text)) => {
            warn(format_args!("mailwren passwd: {text}"));
            code
        }
    })
}

fn wish(invocation: &mut Invocation) -> Result<Wish, Stop> {
    let (mut name, mut is_delete) = (None, false);
    while let Some(argument) = invocation.next_argument()? {
        match argument {
            Argument::Flag("delete") => is_delete = true,
            Argument::Operand(value) if name.is_none() => {
                name = Some(value.into_string().map_err(|_| "the name is no UTF-8 text")?);
            }
            argument => return Err(argument.unexpected()),
        }
    }
    let name = name.ok_or("whose? give the NAME of an account")?;
    users_file::check_name(&name)?;
    Ok(Wish { name, is_delete })
}

fn set(settings: &Settings, name: &str) -> Result<String, Failure> {
    let password = ask(name)?;
    let account =
        account(name, &password, &settings.auth.mechanisms).map_err(|text| (exit::OSERR, text))?;
    let mut is_new = true;
    change(settings, |text| {
        let (text, found) = replaced(text, name, Some(&account.to_string()));
        is_new = !found;
        Ok(Some(text))
    })?;
    let what = if is_new { "is a new account" } else { "has a new password" };
    Ok(format!("{name} {what} in {}", settings.auth.users.display()))
}

fn delete(settings: &Settings, name: &str) -> Result<String, Failure> {
    let mut is_found = false;
    change(settings, |text| {
        let (text, found) = replaced(text, name, None);
        is_found = found;
        Ok(found.then_some(text))
    })?;
    let path = settings.auth.users.display();
    if is_found {
        return Ok(format!("{name} is no longer in {path}"));
    }
    Err((exit::NOUSER, format!("there is no account {name} in {path}")))
}

/// Has the users file changed.
fn change(
    settings: &Settings,
    change: impl FnOnce(&str) -> io::Result<Option<String>>,
) -> Result<(), Failure> {
    if settings.auth.dovecot.is_some() {
        warn("[auth] dovecot is set: the server asks Dovecot, and does not read the users file");
    }
    let path = &settings.auth.users;
    let owner = server_account(settings);
    let result = secret_file::change(path, MAX_OCTETS, owner, |octets| {
        let text = str::from_utf8(octets).map_err(|_| {
            io::Error::other(format!("{}: it is no UTF-8 text; nothing changed", path.display()))
        })?;
        Ok(change(text)?.map(String::into_bytes))
    });
    if let (Ok(()), Some(text)) = (&result, check::users::unreadable(settings)) {
        warn(format_args!("{}: {text}", path.display()));
    }
    result.map_err(|error| {
        let code = match error.kind() {
            io::ErrorKind::PermissionDenied => exit::NOPERM,
            _ => exit::OSERR,
        };
        (code, error.to_string())
    })
}

/// The account that the server runs as, to which a new file belongs: so it can read it after it
/// has given up being root.
fn server_account(settings: &Settings) -> Option<Owner> {
    let account = users::by_name(&settings.server.user).ok().flatten()?;
    Some(Owner { uid: account.uid, gid: account.gid })
}

/// Asks for the password: twice, unless it comes from no terminal.
fn ask(name: &str) -> Result<String, Failure> {
    let read = |prompt: &str| {
        terminal::read_secret(prompt, MAX_SECRET)
            .map_err(|error| (exit::DATAERR, format!("{error}; nothing changed")))
    };
    let password = read(&format!("New password of {name}: "))?;
    // An empty one is told apart, since it may well be a script that went wrong.
    if password.is_empty() {
        return Err((exit::DATAERR, "the password is empty; nothing changed".to_owned()));
    }
    let usable = prepared(password.as_bytes()).map_err(|_| {
        let text = "a password cannot have control characters or what RFC 4013 forbids; \
                    nothing changed";
        (exit::DATAERR, text.to_owned())
    })?;
    if terminal::is_there() && read("Once more: ")? != password {
        let text = "the two are not the same; nothing changed";
        return Err((exit::DATAERR, text.to_owned()));
    }
    Ok(usable)
}

/// The account with all that `mechanisms` need.
fn account(name: &str, password: &str, mechanisms: &[Mechanism]) -> Result<Account, String> {
    let password = password.as_bytes();
    let has = |mechanism| mechanisms.contains(&mechanism);
    let scram = |mechanism, hash| {
        has(mechanism).then(|| scram_keys(hash, password)).transpose().map_err(unusable)
    };
    let cram_md5 = has(Mechanism::CramMd5).then(|| CramMd5Keys::from_password(password));
    Ok(Account {
        name: name.into(),
        line: 0,
        hash: Some(PasswordHash::new(password)?),
        is_locked: false,
        scram_sha_256: scram(Mechanism::ScramSha256, ScramHash::Sha256)?,
        scram_sha_1: scram(Mechanism::ScramSha1, ScramHash::Sha1)?,
        cram_md5: cram_md5.transpose().map_err(unusable)?,
    })
}

fn scram_keys(hash: ScramHash, password: &[u8]) -> Result<ScramKeys, KeyError> {
    let salt: [u8; 16] = random().map_err(|_| KeyError::Unavailable)?;
    ScramKeys::from_password(hash, password, &salt, ITERATIONS)
}

fn unusable(error: KeyError) -> String {
    format!("no keys can be made of this password ({error:?}); nothing changed")
}

/// The file with the account's line replaced, added, or with `None` left out, and whether there
/// was one. Should it stand there twice, the first one is what counts and what remains.
fn replaced(text: &str, name: &str, account: Option<&str>) -> (String, bool) {
    let mut result = String::with_capacity(text.len() + 512);
    let mut is_found = false;
    let mut add = |line: &str| {
        result.push_str(line);
        result.push('\n');
    };
    for line in text.lines() {
        let is_his = users_file::name_of(line).is_some_and(|his| his.eq_ignore_ascii_case(name));
        match account {
            _ if !is_his => add(line),
            Some(account) if !is_found => add(account),
            _ => {}
        }
        is_found |= is_his;
    }
    if let Some(account) = account
        && !is_found
    {
        add(account);
    }
    (result, is_found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::receive::logins::users_file::UsersFile;

    #[test]
    fn only_the_line_of_the_account_changes() {
        let text = "# people\n\n ann:old:x \nbob:b\r\n#ann:c\nANN:second";
        for (name, account, expected, found) in [
            ("Ann", Some("ann:new"), "# people\n\nann:new\nbob:b\n#ann:c\n", true),
            ("ann", None, "# people\n\nbob:b\n#ann:c\n", true),
            ("bob", None, "# people\n\n ann:old:x \n#ann:c\nANN:second\n", true),
            (
                "eve",
                Some("eve:e"),
                "# people\n\n ann:old:x \nbob:b\n#ann:c\nANN:second\neve:e\n",
                false,
            ),
        ] {
            assert_eq!(replaced(text, name, account), (expected.to_owned(), found), "{name}");
        }
        assert_eq!(replaced("", "ann", Some("ann:a")), ("ann:a\n".to_owned(), false));
        assert_eq!(replaced("", "ann", None), (String::new(), false));
    }

    #[test]
    fn an_account_has_what_the_mechanisms_need_and_no_more() {
        let allowed = |mechanisms: &[Mechanism]| {
            let line = account("ann", "secret", mechanisms).unwrap().to_string();
            assert!(!line.contains("secret"));
            let file = UsersFile::parse(line.as_bytes());
            assert_eq!(file.bad_lines(), []);
            let all = Mechanism::OF_LISTENERS.into_iter();
            all.filter(|mechanism| file.allows(*mechanism)).collect::<Vec<_>>()
        };
        use Mechanism::{CramMd5, Login, Plain, ScramSha1, ScramSha256};
        assert_eq!(allowed(&[Plain]), [Plain, Login]);
        assert_eq!(allowed(&[ScramSha256, Plain, Login]), [ScramSha256, Plain, Login]);
        assert_eq!(
            allowed(&Mechanism::OF_LISTENERS),
            [ScramSha256, ScramSha1, CramMd5, Plain, Login]
        );
    }
}
