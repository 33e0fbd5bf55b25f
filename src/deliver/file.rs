//! Delivery into a file that an alias or a `.forward` names by its path: an mbox, or with a slash
//! at the end a Maildir.

use std::path::Path;

use crate::config::settings::MailboxFormat;
use crate::deliver::outcome::Failure;
use crate::deliver::place::Place;
use crate::deliver::storage::printable;
use crate::mail::status::Status;

/// Where people send what nobody wants to have.
const NOWHERE: &str = "/dev/null";

/// The path is none; mail waits until it is mended.
const MISCONFIGURED: Status = Status::new(4, 3, 5);

/// What a path stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// `/dev/null`: the mail is thrown away, as its owner wants it.
    Nowhere,
    /// A mailbox of this form.
    Mailbox(Place, MailboxFormat),
}

impl Destination {
    /// What `path` stands for. What is before its last name may be reached through links, with the
    /// rights of its owner; it must be there.
    ///
    /// # Errors
    /// A temporary failure when it names no file.
    pub fn of(path: &str) -> Result<Self, Failure> {
        if path == NOWHERE {
            return Ok(Self::Nowhere);
        }
        let format = if path.ends_with('/') { MailboxFormat::Maildir } else { MailboxFormat::Mbox };
        let trimmed = Path::new(path.trim_end_matches('/'));
        // The last component can be `..`, which is no name.
        let name = trimmed.file_name().and_then(|name| name.to_str());
        let (Some(base), Some(name)) = (trimmed.parent(), name) else {
            let path = printable(Path::new(path));
            let text =
                format!("{path} is the path of no mailbox: write that of a file or a Maildir");
            return Err(Failure::new(MISCONFIGURED, text));
        };
        let (base, name) = (base.to_owned(), name.to_owned());
        let place = Place { base, folders: Vec::new(), name, is_in_home: true };
        Ok(Self::Mailbox(place, format))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_an_mbox_or_a_maildir() {
        for (path, base, name, format) in [
            ("/var/log/alarms", "/var/log", "alarms", MailboxFormat::Mbox),
            ("/srv/x/../Maildir/", "/srv/x/..", "Maildir", MailboxFormat::Maildir),
            ("/mbox", "/", "mbox", MailboxFormat::Mbox),
            ("/dev/null/", "/dev", "null", MailboxFormat::Maildir),
            ("/dev/full", "/dev", "full", MailboxFormat::Mbox),
        ] {
            let Destination::Mailbox(place, found) = Destination::of(path).unwrap() else {
                panic!("{path}")
            };
            assert_eq!((place.base.to_str(), place.name.as_str()), (Some(base), name));
            assert_eq!(found, format);
        }
        assert_eq!(Destination::of("/dev/null").unwrap(), Destination::Nowhere);
        for path in ["/", "//", "/x/.."] {
            assert_eq!(Destination::of(path).unwrap_err().status, MISCONFIGURED, "{path}");
        }
    }
}
