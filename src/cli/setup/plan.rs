//! What becomes of the files: from what they say and what is wanted, the new text of each, and one
//! line for each change. Nothing is written here.

use std::path::PathBuf;

use super::standing::Standing;
use super::wish::{Exit, Password, SUBMISSIONS, TLS, Wish};
use super::{Failure, root_alias, wish};
use crate::cli::host_names;
use crate::config;
use crate::config::edit::Editor;
use crate::config::settings::{ClientTls, HostPort, SecretSource, Settings};
use crate::mail::address::Mailbox;
use crate::sys::process::exit;

const SECTION: &str = "smarthost";

/// The new texts. `None` where a file stays as it is.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) config: Option<String>,
    pub(super) aliases: Option<Vec<u8>>,
    /// The password and the file that it goes to.
    pub(super) password: Option<(PathBuf, Password)>,
    /// A file with a password that was made here, and that nothing names any more.
    pub(super) obsolete: Option<PathBuf>,
    /// What the new configuration says.
    pub(super) settings: Settings,
    /// Where root's mail goes.
    pub(super) root: Option<String>,
    /// What changes, in lines for a person.
    pub(super) changes: Vec<String>,
}

impl Plan {
    /// Works it out.
    ///
    /// # Errors
    /// When something is missing, with the flag for it, or the outcome would be a mistake.
    pub(super) fn new(now: &Standing, wish: &Wish) -> Result<Self, Failure> {
        let mut editor = Editor::new(&now.text);
        let mut changes = Vec::new();
        edit(&mut editor, now, wish, &mut changes).map_err(|why| (exit::USAGE, why))?;
        let text = editor.text();
        let name = now.config.to_string_lossy();
        let settings = config::parse(&name, text.as_bytes(), host_names())
            .map_err(|error| (exit::USAGE, format!("so it cannot be:\n{error}")))?;
        let root = wish.root.clone().filter(|root| Some(root) != now.root.as_ref());
        let aliases = match &root {
            Some(_) if now.aliases.is_none() => {
                let text = "[local] aliases is empty, so no alias file is read, and --root has no \
                            place; name a file there";
                return Err((exit::CONFIG, text.to_owned()));
            }
            Some(root) => root_alias::with_root(&now.alias_octets, root),
            None => None,
        };
        if let (Some(path), Some(root), Some(_)) = (&now.aliases, &root, &aliases) {
            changes.push(format!("{}: root: {root}", path.display()));
        }
        let file = || now.new_password_file(is_of_other_account(now, wish));
        let password = wish.password.clone().map(|password| (file(), password));
        let obsolete = obsolete(now, &settings);
        if let Some(path) = &obsolete {
            changes.push(format!("{}: removed", path.display()));
        }
        let is_new = text != now.text || !now.config.exists();
        Ok(Self {
            config: is_new.then_some(text),
            aliases,
            password,
            obsolete,
            settings,
            root: root.or_else(|| now.root.clone()),
            changes,
        })
    }

    /// Whom the test message is for: where root's mail goes, if that is another host's.
    pub(super) fn recipient(&self) -> Option<Mailbox> {
        let mailbox: Mailbox = self.root.as_ref()?.parse().ok()?;
        (!self.settings.server.domains.contains(mailbox.domain())).then_some(mailbox)
    }
}

/// Does what is wanted to the text, and says what in `changes`.
fn edit(
    editor: &mut Editor,
    now: &Standing,
    wish: &Wish,
    changes: &mut Vec<String>,
) -> Result<(), String> {
    let mut file = File { editor, changes, name: now.config.display().to_string() };
    if wish.exit == Some(Exit::None) {
        if now.settings.smarthost.is_some() {
            file.editor.remove_section(SECTION);
            file.changes.push(format!("{}: no [{SECTION}] any more", file.name));
        }
    } else {
        edit_smarthost(&mut file, now, wish)?;
    }
    if let Some(sender) = &wish.sender
        && now.settings.rewrite.sender.as_ref() != Some(sender)
    {
        file.set("rewrite", "sender", &sender.to_string())?;
    }
    Ok(())
}

fn edit_smarthost(file: &mut File<'_>, now: &Standing, wish: &Wish) -> Result<(), String> {
    let before = now.settings.smarthost.as_ref();
    let host = match (&wish.exit, before) {
        (Some(Exit::Smarthost(host)), _) => host.clone(),
        (_, Some(before)) => before.hosts[0].clone(),
        (_, None) => return nothing_without_host(wish),
    };
    let is_other = wish.exit.is_some() && before.is_none_or(|it| it.hosts != [host.clone()]);
    if is_other {
        file.set(SECTION, "host", &wish::written(&host))?;
    }
    edit_tls(file, &host, wish.tls, is_other)?;
    match wish.user.as_deref() {
        Some("") => {
            for key in ["user", "password", "password_file", "password_command"] {
                file.unset(SECTION, key);
            }
        }
        Some(user) => file.set(SECTION, "user", user)?,
        None => {}
    }
    if wish.password.is_some() && wish.user.as_deref() != Some("") {
        file.unset(SECTION, "password");
        file.unset(SECTION, "password_command");
        let path = now.new_password_file(is_of_other_account(now, wish));
        file.set(SECTION, "password_file", &path.to_string_lossy())?;
    }
    match &wish.ca {
        Some(path) if path.as_os_str().is_empty() => file.unset(SECTION, "ca"),
        Some(path) => {
            file.unset(SECTION, "fingerprint");
            file.set(SECTION, "ca", &path.to_string_lossy())?;
        }
        None => {}
    }
    check_login(now, wish, is_other)
}

/// Writes `tls` only where it is not what the port says anyway.
fn edit_tls(
    file: &mut File<'_>,
    host: &HostPort,
    wanted: Option<ClientTls>,
    is_other: bool,
) -> Result<(), String> {
    let usual = if host.port == SUBMISSIONS { ClientTls::Implicit } else { ClientTls::StartTls };
    let written = file.editor.value(SECTION, "tls").unwrap_or_default().to_owned();
    let Some(tls) = wanted.or_else(|| is_other.then_some(usual)) else { return Ok(()) };
    let word = TLS.iter().find(|(_, it)| *it == tls).map_or("", |(word, _)| word);
    match written.as_str() {
        "" if tls == usual => Ok(()),
        _ => file.set(SECTION, "tls", word),
    }
}

/// Without a smarthost there is nothing for the other words to be about.
fn nothing_without_host(wish: &Wish) -> Result<(), String> {
    let words = [
        ("--user", wish.user.is_some()),
        ("--password-stdin", wish.password.is_some()),
        ("--tls", wish.tls.is_some()),
        ("--ca", wish.ca.is_some()),
    ];
    match words.iter().find(|(_, is_there)| *is_there) {
        Some((flag, _)) => Err(format!("{flag} is about a smarthost; give --smarthost HOST:PORT")),
        None => Ok(()),
    }
}

/// A password is for one account at one provider, and goes to no other.
fn check_login(now: &Standing, wish: &Wish, is_other_host: bool) -> Result<(), String> {
    let login = now.settings.smarthost.as_ref().and_then(|it| it.login.as_ref());
    let user = wish.user.as_deref().or(login.map(|login| login.user.as_str())).unwrap_or_default();
    let is_other_user = login.is_none_or(|login| login.user != user);
    if !user.is_empty() && (is_other_host || is_other_user) && wish.password.is_none() {
        return Err(format!(
            "the password of {user:?} is missing; give --password-stdin and the password as a line \
             of standard input"
        ));
    }
    Ok(())
}

/// Whether the account is another one, as which the password that is there would be wrong.
fn is_of_other_account(now: &Standing, wish: &Wish) -> bool {
    let Some(smarthost) = &now.settings.smarthost else { return true };
    let is_other_host = match &wish.exit {
        Some(Exit::Smarthost(host)) => smarthost.hosts[0].host != host.host,
        Some(Exit::None) => true,
        None => false,
    };
    let login = smarthost.login.as_ref();
    let is_other_user = match &wish.user {
        Some(user) => login.is_none_or(|login| login.user != *user),
        None => login.is_none(),
    };
    is_other_host || is_other_user
}

/// The file of the password that the new configuration names no more, if it was made here.
fn obsolete(now: &Standing, new: &Settings) -> Option<PathBuf> {
    let before = now.password_file()?;
    let login = new.smarthost.as_ref().and_then(|it| it.login.as_ref());
    let is_named = login
        .is_some_and(|login| matches!(&login.secret, SecretSource::File(path) if path == before));
    let is_own = now.own_password_files().iter().any(|path| path == before);
    (is_own && !is_named).then(|| before.to_owned())
}

/// The password that is not in its file yet.
pub(super) fn secret_of(plan: &Plan) -> Option<SecretSource> {
    let (_, password) = plan.password.as_ref()?;
    Some(SecretSource::Inline(password.0.clone()))
}

/// The configuration while it is changed.
struct File<'a> {
    editor: &'a mut Editor,
    changes: &'a mut Vec<String>,
    name: String,
}

impl File<'_> {
    fn set(&mut self, section: &str, key: &str, value: &str) -> Result<(), String> {
        if self.editor.value(section, key) != Some(value) {
            self.editor.set(section, key, value)?;
            self.changes.push(format!("{}: [{section}] {key} = {value}", self.name));
        }
        Ok(())
    }

    fn unset(&mut self, section: &str, key: &str) {
        if self.editor.value(section, key).is_some() {
            self.editor.unset(section, key);
            self.changes.push(format!("{}: [{section}] no {key} any more", self.name));
        }
    }
}
