//! Who has a mailbox here: the accounts of the system, the names in a file, or anybody.

use std::collections::HashSet;
use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use crate::config::settings::{Local, Users};
use crate::deliver::outcome::Failure;
use crate::mail::address::LocalPart;
use crate::mail::status::Status;
use crate::sys::users::{Account, AccountCache};
use crate::sys::watched::WatchedFile;

/// The longest name of a user, in octets. It becomes part of a path.
const MAX_USER_NAME: usize = 64;
/// The largest file of names, in octets.
const MAX_USERS_FILE: u64 = 4 << 20;

/// The name of a user: safe as one component of a path and as an argument. It has 1 to 64
/// visible ASCII characters and no slash, does not begin with a dot or a dash, and does not
/// end like the lock of somebody's mbox.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UserName(Box<str>);

impl UserName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The text is no name of a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAUserName;

impl FromStr for UserName {
    type Err = NotAUserName;

    fn from_str(text: &str) -> Result<Self, NotAUserName> {
        let is_name = (1..=MAX_USER_NAME).contains(&text.len())
            && text.bytes().all(|octet| octet.is_ascii_graphic() && octet != b'/')
            && !text.starts_with(['.', '-'])
            && !text.to_ascii_lowercase().ends_with(".lock");
        if is_name { Ok(Self(text.into())) } else { Err(NotAUserName) }
    }
}

/// Somebody with a mailbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The name.
    pub name: UserName,
    /// What stood behind the separator in `user+detail` (RFC 5233).
    pub detail: Option<String>,
    /// The account that owns the mailbox; without one it is the daemon's own.
    pub account: Option<Account>,
}

/// Knows who has a mailbox.
#[derive(Debug)]
pub struct UserTable {
    source: Source,
    separator: Option<char>,
}

#[derive(Debug)]
enum Source {
    System(AccountCache),
    Any,
    File(WatchedFile<HashSet<String>>),
    Nobody,
}

impl UserTable {
    /// The table that `[local]` describes.
    pub fn new(local: &Local) -> Self {
        let source = match &local.users {
            Users::System => Source::System(AccountCache::default()),
            Users::Any => Source::Any,
            Users::File(path) => Source::File(users_file(path)),
        };
        Self { source, separator: local.subaddress }
    }

    /// The table of a virtual domain: the names in a file, or nobody.
    pub fn of_domain(users: Option<&Path>, separator: Option<char>) -> Self {
        let source = users.map_or(Source::Nobody, |path| Source::File(users_file(path)));
        Self { source, separator }
    }

    /// Whether there could be any user at all.
    pub fn may_have_users(&self) -> bool {
        !matches!(self.source, Source::Nobody)
    }

    /// What separates a user from the detail.
    pub fn separator(&self) -> Option<char> {
        self.separator
    }

    /// The user that a local part names: as it stands, else in lower case, else either
    /// without its detail. With `users = any`, where each spelling would be somebody else,
    /// it is always lower case without the detail.
    ///
    /// # Errors
    /// A temporary failure when nobody can say at the moment.
    pub fn find(&self, local_part: &LocalPart) -> Result<Option<User>, Failure> {
        let whole = local_part.as_str();
        let split = split_detail(whole, self.separator);
        if let Source::Any = self.source {
            let (base, detail) = split.map_or((whole, None), |(base, detail)| (base, Some(detail)));
            return self.find_name(&base.to_ascii_lowercase(), detail);
        }
        if let Some(user) = self.find_in_any_case(whole, None)? {
            return Ok(Some(user));
        }
        let Some((base, detail)) = split else { return Ok(None) };
        self.find_in_any_case(base, Some(detail))
    }

    /// The user `root`, where mail for the postmaster goes in the end. With users from a file
    /// root need not be listed.
    ///
    /// # Errors
    /// A temporary failure when nobody can say at the moment, or the system has no root.
    pub fn root(&self) -> Result<User, Failure> {
        let failure =
            || Failure::new(ASK_LATER, "there is no user root: add an alias for postmaster");
        let name = "root".parse().map_err(|NotAUserName| failure())?;
        match self.source {
            Source::System(_) => self.find_name("root", None)?.ok_or_else(failure),
            Source::Any | Source::File(_) | Source::Nobody => {
                Ok(User { name, detail: None, account: None })
            }
        }
    }

    fn find_in_any_case(&self, name: &str, detail: Option<&str>) -> Result<Option<User>, Failure> {
        if let Some(user) = self.find_name(name, detail)? {
            return Ok(Some(user));
        }
        let folded = name.to_ascii_lowercase();
        if folded == name { Ok(None) } else { self.find_name(&folded, detail) }
    }

    fn find_name(&self, text: &str, detail: Option<&str>) -> Result<Option<User>, Failure> {
        let Ok(name) = text.parse::<UserName>() else { return Ok(None) };
        let detail = detail.map(str::to_owned);
        match &self.source {
            Source::Nobody => Ok(None),
            Source::Any => Ok(Some(User { name, detail, account: None })),
            Source::File(file) => {
                let is_listed = names_in(file)?.contains(text);
                Ok(is_listed.then_some(User { name, detail, account: None }))
            }
            Source::System(accounts) => {
                let account = accounts.by_name(text).map_err(|error| {
                    Failure::new(ASK_LATER, format!("the accounts cannot be looked up: {error}"))
                })?;
                // A directory that ignores case gives the name as it should be spelt.
                Ok(account.map(|account| User {
                    name: account.name.parse().unwrap_or(name),
                    detail,
                    account: Some(account),
                }))
            }
        }
    }
}

/// RFC 3463: the directory that knows the users is away.
const ASK_LATER: Status = Status::new(4, 4, 3);

/// Splits `user+detail` at the first separator that has something before it. A dash does not
/// separate in `owner-list`, `list-request` and `mailer-daemon`, which are whole names everywhere.
pub fn split_detail(local_part: &str, separator: Option<char>) -> Option<(&str, &str)> {
    let separator = separator?;
    if separator == '-' && is_whole_name(&local_part.to_ascii_lowercase()) {
        return None;
    }
    local_part.split_once(separator).filter(|(base, _)| !base.is_empty())
}

fn is_whole_name(name: &str) -> bool {
    name.starts_with("owner-") || name.ends_with("-request") || name == "mailer-daemon"
}

fn users_file(path: &Path) -> WatchedFile<HashSet<String>> {
    WatchedFile::new(path.to_owned(), MAX_USERS_FILE).patient()
}

fn names_in(file: &WatchedFile<HashSet<String>>) -> Result<Arc<HashSet<String>>, Failure> {
    file.load(|octets, _| Arc::new(parse_names(octets))).map_err(|error| {
        let path = file.path().display();
        Failure::new(ASK_LATER, format!("the list of users {path} cannot be read: {error}"))
    })
}

/// One name a line; blank lines and those that begin with `#` are skipped.
fn parse_names(octets: &[u8]) -> HashSet<String> {
    let text = String::from_utf8_lossy(octets);
    // Some editors begin a file with a mark of its encoding.
    text.strip_prefix('\u{feff}')
        .unwrap_or(&text)
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::settings::{MailboxFormat, Settings};
    use proptest::prelude::*;
    use std::fs;

    fn table(users: Users) -> UserTable {
        UserTable::new(&Local {
            format: MailboxFormat::Maildir,
            path: String::new(),
            users,
            aliases: None,
            subaddress: Some('+'),
            catch_all: None,
            ..Settings::default_with("mx.test").unwrap().local
        })
    }

    fn check(table: &UserTable, local_part: &str, expected: Option<(&str, Option<&str>)>) {
        let found = table.find(&LocalPart::from_unquoted(local_part).unwrap()).unwrap();
        let found = found.as_ref().map(|user| (user.name.as_str(), user.detail.as_deref()));
        assert_eq!(found, expected, "{local_part}");
    }

    #[test]
    fn what_could_leave_its_folder_is_no_name() {
        for text in
            ["", ".", "..", ".ann", "-ann", "a/b", "../x", "a b", "a\0", "ann.lock", "\u{e4}"]
        {
            assert_eq!(text.parse::<UserName>(), Err(NotAUserName), "{text:?}");
        }
        assert!("x".repeat(65).parse::<UserName>().is_err());
        for text in ["ann", "Ann.B", "a+b", "a@b", "x$", "~root"] {
            assert_eq!(text.parse::<UserName>().unwrap().as_str(), text);
        }
    }

    #[test]
    fn anybody_has_one_mailbox_in_lower_case() {
        let table = table(Users::Any);
        check(&table, "ann", Some(("ann", None)));
        check(&table, "Ann+Lists+x", Some(("ann", Some("Lists+x"))));
        check(&table, "+x", Some(("+x", None)));
        check(&table, "../x", None);
        check(&table, "a/b", None);
    }

    #[test]
    fn a_file_lists_names_and_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users");
        let table = table(Users::File(path.clone()));
        let failure = table.find(&"ann".parse().unwrap()).unwrap_err();
        assert!(failure.status.is_temporary() && failure.text.contains("cannot be read"));
        fs::write(&path, "# people\n ann \n\nBob\na+b\n").unwrap();
        check(&table, "ann", Some(("ann", None)));
        check(&table, "ANN+x", Some(("ann", Some("x"))));
        check(&table, "Bob", Some(("Bob", None)));
        check(&table, "bob", None);
        check(&table, "a+b", Some(("a+b", None)));
        check(&table, "a", None);
        check(&table, "# people", None);
        assert_eq!(table.root().unwrap().name.as_str(), "root");
        fs::write(&path, "\u{feff}ann\r\nBob\r\n").unwrap();
        check(&table, "ann", Some(("ann", None)));
        check(&table, "Bob", Some(("Bob", None)));
        fs::write(&path, "carl").unwrap();
        check(&table, "ann", None);
        check(&table, "carl", Some(("carl", None)));
    }

    #[test]
    fn a_dash_separates_but_not_in_the_names_of_lists() {
        for (text, expected) in [
            ("ann-shop", Some(("ann", "shop"))),
            ("-x", None),
            ("owner-list", None),
            ("List-Request", None),
            ("MAILER-DAEMON", None),
        ] {
            assert_eq!(split_detail(text, Some('-')), expected, "{text}");
        }
        assert_eq!(split_detail("owner-list+x", Some('+')), Some(("owner-list", "x")));
    }

    #[test]
    fn a_domain_has_the_users_of_its_file_or_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users");
        fs::write(&path, "ann\nroot\n").unwrap();
        let listed = UserTable::of_domain(Some(&path), Some('+'));
        check(&listed, "Ann+x", Some(("ann", Some("x"))));
        let nobody = UserTable::of_domain(None, Some('+'));
        check(&nobody, "root", None);
        assert!(listed.may_have_users() && !nobody.may_have_users());
    }

    #[test]
    fn the_system_knows_root() {
        let table = table(Users::System);
        check(&table, "root", Some(("root", None)));
        check(&table, "Root+x", Some(("root", Some("x"))));
        check(&table, "no-such-account-here", None);
        assert_eq!(table.root().unwrap().account.unwrap().uid, 0);
    }

    proptest! {
        #[test]
        fn a_name_is_one_component_of_a_path(text in any::<String>(), ascii in "[ -~]{0,70}") {
            for text in [text, ascii] {
                if let Ok(name) = text.parse::<UserName>() {
                    let path = Path::new("/base").join(name.as_str());
                    prop_assert_eq!(path.parent().unwrap(), Path::new("/base"));
                    prop_assert_eq!(path.file_name().unwrap().to_str().unwrap(), name.as_str());
                }
            }
        }
    }
}
