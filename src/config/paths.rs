//! Paths in values: files, folders, sockets, and those with variables in them: of mailboxes and
//! of `[local] forward`.

use std::path::PathBuf;

use super::keys::{nearest, one_of};
use super::mistake::shown;
use super::settings::{MailboxFormat, Users};

/// The longest path that the system takes, in octets, without the final NUL.
const MAX_PATH: usize = 4095;
/// The longest path of a Unix socket, in octets: `sun_path` in unix(7), without the final NUL.
const MAX_SOCKET: usize = 107;
/// What a template may have in braces.
const PLACEHOLDERS: [&str; 4] = ["{user}", "{domain}", "{home}", "{detail}"];

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

/// The path of a mailbox: an absolute one with `{user}` or `{home}` in it, and perhaps `{detail}`
/// at its end, without slashes there.
pub(super) fn mailbox(text: &str, format: MailboxFormat, users: &Users) -> Result<String, String> {
    let Some((above, last)) = text.trim_end_matches('/').rsplit_once('/') else {
        return template(text, format, users);
    };
    if !matches!(last, "{detail}" | ".{detail}") {
        return template(text, format, users);
    }
    // What is left must be a mailbox by itself, or the folder of many: a stranger who writes to
    // user+detail must not choose among all files of a home.
    let above = template(above, MailboxFormat::Maildir, users)?;
    if format == MailboxFormat::Mbox && text.ends_with('/') {
        return Err(NO_FOLDER.to_owned());
    }
    Ok(format!("{above}/{last}"))
}

/// What is wrong with a path of an mbox that ends with a slash.
const NO_FOLDER: &str = "a mbox is a file; take the / from the end";

/// An absolute path with `{user}` or `{home}` in it, without slashes at its end.
fn template(text: &str, format: MailboxFormat, users: &Users) -> Result<String, String> {
    check_placeholders(text)?;
    if text.contains("{detail}") {
        return Err(
            "{detail} can only be the last part of a mailbox's path, alone or behind a dot, \
                    below one with {user} or a folder in {home}: {home}/Maildir/.{detail}"
                .to_owned(),
        );
    }
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
        return Err(NO_FOLDER.to_owned());
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
    fn a_detail_comes_last_and_below_what_is_a_users_own() {
        for (text, kept) in [
            ("{home}/Maildir/.{detail}", Some("{home}/Maildir/.{detail}")),
            ("/mail/{user}/{detail}/", Some("/mail/{user}/{detail}")),
            ("/mail/{domain}/{user}//.{detail}", Some("/mail/{domain}/{user}/.{detail}")),
            ("{home}/{detail}", None),
            ("{home}/.{detail}", None),
            ("/mail/{detail}", None),
            ("/mail/{detail}/{user}", None),
            ("/mail/{domain}/{detail}", None),
            ("/mail/{user}/x{detail}", None),
            ("/mail/{user}-{detail}", None),
            ("/mail/{user}/{detail}/{detail}", None),
            ("/mail/{user}/{detail}/Maildir", None),
            ("{detail}", None),
            ("/{detail}", None),
        ] {
            let read = mailbox(text, MailboxFormat::Maildir, &Users::System);
            assert_eq!(read.as_deref().ok(), kept, "{text}: {read:?}");
        }
        assert!(mailbox("/mail/{user}/{detail}/", MailboxFormat::Mbox, &Users::Any).is_err());
        assert!(forward("{home}/forward/{detail}", &Users::System).is_err());
    }

    #[test]
    fn templates_name_a_place_for_each_user() {
        for (text, kept) in [
            ("/var/mail/{user}", "/var/mail/{user}"),
            ("{home}/Maildir/", "{home}/Maildir"),
            ("/mail/{domain}/{user}/new", "/mail/{domain}/{user}/new"),
            ("/mail/{user}@{domain}", "/mail/{user}@{domain}"),
            ("{home}/{user}", "{home}/{user}"),
        ] {
            let read = mailbox(text, MailboxFormat::Maildir, &Users::System);
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
            let read = mailbox(text, MailboxFormat::Maildir, &Users::System);
            assert!(read.is_err(), "{text}: {read:?}");
        }
    }

    proptest! {
        #[test]
        fn a_template_that_is_taken_is_safe(
            text in "(\\{home\\}|/)?(\\{user\\}|\\{domain\\}|\\{home\\}|/\\{detail\\}|[a./{}]){0,8}"
        ) {
            for format in [MailboxFormat::Mbox, MailboxFormat::Maildir] {
                if let Ok(kept) = mailbox(&text, format, &Users::System) {
                    let is_in_home = kept.starts_with("{home}/");
                    let is_of_a_user = is_in_home || kept.contains("{user}");
                    prop_assert!(is_in_home || kept.starts_with('/'));
                    prop_assert!(is_of_a_user && check_parents(&kept).is_ok() && !kept.ends_with('/'));
                    let details = kept.matches("{detail}").count();
                    let is_last = details == 1 && kept.ends_with("{detail}");
                    prop_assert!(details == 0 || is_last);
                }
                let _ = mailbox(&text, format, &Users::Any);
            }
        }

        #[test]
        fn random_text_never_panics(text in any::<String>()) {
            let _ = (optional(&text), socket(&text), users(&text));
            let _ = mailbox(&text, MailboxFormat::Mbox, &Users::System);
        }
    }
}
