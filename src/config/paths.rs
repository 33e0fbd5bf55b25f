//! Paths in values: folders, sockets, and the template of `[local] path`.

use std::path::PathBuf;

use super::keys::{nearest, one_of};
use super::mistake::shown;
use super::settings::{MailboxFormat, Users};

/// The longest path that the system takes, in octets, without the final NUL.
const MAX_PATH: usize = 4095;
/// The longest path of a Unix socket, in octets: `sun_path` in unix(7), without the final NUL.
const MAX_SOCKET: usize = 107;
/// What a template may have in braces.
const PLACEHOLDERS: [&str; 3] = ["{user}", "{domain}", "{home}"];

/// An absolute path.
pub(super) fn path(text: &str) -> Result<PathBuf, String> {
    if !text.starts_with('/') {
        let text = shown(text);
        return Err(format!("{text} is no absolute path; give one that begins with /"));
    }
    check_parents(text)?;
    if text.len() > MAX_PATH {
        return Err(format!("the path is too long; give at most {MAX_PATH} octets"));
    }
    if text.bytes().all(|octet| octet == b'/') {
        return Err("`/` is the root of everything; give a path below it".to_owned());
    }
    Ok(PathBuf::from(text))
}

/// An absolute path, or nothing.
pub(super) fn optional(text: &str) -> Result<Option<PathBuf>, String> {
    if text.is_empty() { Ok(None) } else { path(text).map(Some) }
}

/// The absolute path of a Unix socket.
pub(super) fn socket(text: &str) -> Result<PathBuf, String> {
    if text.len() > MAX_SOCKET {
        let text = shown(text);
        return Err(format!("{text} is too long for a socket; give at most {MAX_SOCKET} octets"));
    }
    path(text)
}

/// `system`, `any`, or the absolute path of a file.
pub(super) fn users(text: &str) -> Result<Users, String> {
    match text {
        "system" => Ok(Users::System),
        "any" => Ok(Users::Any),
        _ if text.starts_with('/') => path(text).map(Users::File),
        _ => Err(format!("{} is not known; give system, any, or an absolute path", shown(text))),
    }
}

/// The template of a mailbox's path when the file gives none.
pub(super) const fn default_template(format: MailboxFormat) -> &'static str {
    match format {
        MailboxFormat::Mbox => "/var/mail/{user}",
        MailboxFormat::Maildir => "{home}/Maildir",
    }
}

/// An absolute path with `{user}` or `{home}` in it, without slashes at its end.
pub(super) fn template(text: &str, format: MailboxFormat, users: &Users) -> Result<String, String> {
    check_placeholders(text)?;
    check_parents(text)?;
    let below_home = text.strip_prefix("{home}");
    // `{home}x` would be a neighbour of the home and belong to somebody else.
    if below_home.is_some_and(|below| !below.starts_with('/')) || text.rfind("{home}") > Some(0) {
        return Err("{home} can only come first, with a / behind it: {home}/Maildir".to_owned());
    }
    path(below_home.unwrap_or(text))?;
    if below_home.is_some() && *users != Users::System {
        return Err("{home} needs `users = system`, since only accounts have one; write \
                    /var/mail/{user}"
            .to_owned());
    }
    if below_home.is_none() && !text.contains("{user}") {
        return Err(
            "everybody's mail would go to one place; put {user} or {home} into it".to_owned()
        );
    }
    if format == MailboxFormat::Mbox && text.ends_with('/') {
        return Err("a mbox is a file; take the / from the end".to_owned());
    }
    Ok(text.trim_end_matches('/').to_owned())
}

/// A path with `{user}` or `{home}` in it, for the users that have one; else, and for an empty
/// text, `None`.
pub(super) fn forward(text: &str, users: &Users) -> Result<Option<String>, String> {
    match users {
        _ if text.is_empty() => Ok(None),
        Users::System => template(text, MailboxFormat::Mbox, users).map(Some),
        Users::Any | Users::File(_) => {
            template(text, MailboxFormat::Mbox, &Users::System).map(|_| None)
        }
    }
}

fn check_placeholders(text: &str) -> Result<(), String> {
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        let found = &rest[at..];
        let end = found.find('}').map_or(found.len(), |end| end + 1);
        let placeholder = &found[..end];
        if !PLACEHOLDERS.contains(&placeholder) {
            let likely = nearest(placeholder, PLACEHOLDERS.into_iter());
            let remedy = match likely {
                Some(likely) => format!("did you mean {likely}?"),
                None => format!("give {}", one_of(&PLACEHOLDERS)),
            };
            return Err(format!("{} is not known; {remedy}", shown(placeholder)));
        }
        rest = &found[end..];
    }
    Ok(())
}

fn check_parents(text: &str) -> Result<(), String> {
    if text.split('/').any(|component| component == "..") {
        return Err(format!("{} has a `..` in it; write where it leads", shown(text)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn templates_name_a_place_for_each_user() {
        for (text, kept) in [
            ("/var/mail/{user}", "/var/mail/{user}"),
            ("{home}/Maildir/", "{home}/Maildir"),
            ("/mail/{domain}/{user}/new", "/mail/{domain}/{user}/new"),
            ("/mail/{user}@{domain}", "/mail/{user}@{domain}"),
            ("{home}/{user}", "{home}/{user}"),
        ] {
            let read = template(text, MailboxFormat::Maildir, &Users::System);
            assert_eq!(read.as_deref(), Ok(kept));
        }
        for text in [
            "",
            "/",
            "{user}",
            "mail/{user}",
            "/mail",
            "/mail/{domain}",
            "/mail/{usr}",
            "/mail/{user",
            "/mail/user}",
            "/mail/{{user}}",
            "/mail/{}",
            "/{user}/..",
            "{home}",
            "{home}/",
            "{home}x",
            "{home}/../x",
            "/x/{home}/{user}",
            "{home}/{home}",
            "//",
        ] {
            let read = template(text, MailboxFormat::Maildir, &Users::System);
            assert!(read.is_err(), "{text}: {read:?}");
        }
    }

    proptest! {
        #[test]
        fn a_template_that_is_taken_is_safe(text in "(\\{home\\}|/)?(\\{user\\}|\\{domain\\}|\\{home\\}|[a./{}]){0,8}") {
            for format in [MailboxFormat::Mbox, MailboxFormat::Maildir] {
                if let Ok(kept) = template(&text, format, &Users::System) {
                    let is_in_home = kept.starts_with("{home}/");
                    let is_of_a_user = is_in_home || kept.contains("{user}");
                    prop_assert!(is_in_home || kept.starts_with('/'));
                    prop_assert!(is_of_a_user && check_parents(&kept).is_ok() && !kept.ends_with('/'));
                }
                let _ = template(&text, format, &Users::Any);
            }
        }

        #[test]
        fn random_text_never_panics(text in any::<String>()) {
            let _ = (optional(&text), socket(&text), users(&text));
            let _ = template(&text, MailboxFormat::Mbox, &Users::System);
        }
    }
}
