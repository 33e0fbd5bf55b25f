//! What an address of this host means: a mailbox, an alias, or nobody.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;

use crate::config::settings::{LocalDomains, Settings};
use crate::deliver::outcome::Failure;
use crate::mail::address::{Domain, LocalPart, Mailbox};
use crate::mail::status::Status;
use crate::mail::text::{MAX_REMARK, one_line};
use crate::route::addressee::{Addressee, Expansion, Way};
use crate::route::aliases::{Alias, AliasTable, Target};
use crate::route::targets::AliasError;
use crate::route::users::{User, UserTable, split_detail};
use crate::sys::watched::WatchedFile;

/// The largest alias file, in octets.
const MAX_ALIAS_FILE: u64 = 4 << 20;
/// Aliases within aliases.
const MAX_DEPTH: usize = 32;
/// Addresses that one alias may stand for.
const MAX_ADDRESSES: usize = 10_000;

/// The alias file is wrong (RFC 3463: system incorrectly configured); mail waits until it is
/// mended.
const ALIASES_WRONG: Status = Status::new(4, 3, 5);
/// The alias leads nowhere (RFC 3463: routing loop detected).
const ALIAS_LOOP: Status = Status::new(5, 4, 6);

/// What an address of this host means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// The mailbox of a user, unless a `.forward` sends it elsewhere.
    Mailbox(User),
    /// An alias. Where it names itself, as `root: root, ann`, its own mailbox is among them.
    Expanded(Expansion),
    /// There is no such user.
    Unknown,
    /// It cannot be said now, or the alias leads nowhere.
    Failed(Failure),
}

/// Resolves local addresses, at RCPT and again at each try to deliver.
#[derive(Debug)]
pub struct LocalRouter {
    domains: LocalDomains,
    users: UserTable,
    aliases: Option<WatchedFile<Version>>,
    catch_all: Option<Mailbox>,
    path: String,
}

/// A version of the alias file. A broken one stands here only when none before it was good.
type Version = Result<AliasTable, AliasError>;

impl LocalRouter {
    /// Routes by `[local]` and the domains of `[server]`.
    pub fn new(settings: &Settings) -> Self {
        let local = &settings.local;
        Self {
            domains: settings.server.domains.clone(),
            users: UserTable::new(local),
            aliases: local.aliases.clone().map(|path| WatchedFile::new(path, MAX_ALIAS_FILE)),
            catch_all: local.catch_all.clone(),
            path: local.path.clone(),
        }
    }

    /// Where the mailboxes of the users at a domain of ours are: a path with `{user}`, `{domain}`
    /// or `{home}` in it.
    pub fn mailbox_path(&self, _domain: &Domain) -> &str {
        &self.path
    }

    /// What `mailbox`, whose domain is one of ours, means. It takes a `stat` of the alias file
    /// and a look-up of the user.
    ///
    /// Expanding an address that an expansion gave may give the first one again: whoever
    /// queues them must drop those that the message has already.
    pub fn resolve(&self, mailbox: &Mailbox) -> Resolution {
        self.try_resolve(mailbox).unwrap_or_else(Resolution::Failed)
    }

    /// The user whose mailbox an address names, whatever aliases say.
    ///
    /// # Errors
    /// A temporary failure when nobody can say at the moment.
    pub fn user(&self, mailbox: &Mailbox) -> Result<Option<User>, Failure> {
        self.users.find(mailbox.local_part())
    }

    fn try_resolve(&self, mailbox: &Mailbox) -> Result<Resolution, Failure> {
        let version = self.aliases()?;
        let aliases = Aliases { router: self, version: version.as_deref() };
        if let Some(resolution) = self.resolve_alias(&aliases, mailbox)? {
            return Ok(resolution);
        }
        if let Some(user) = self.users.find(mailbox.local_part())? {
            return Ok(Resolution::Mailbox(user));
        }
        if mailbox.local_part().as_str().eq_ignore_ascii_case("postmaster") {
            return self.resolve_postmaster(&aliases);
        }
        Ok(self.resolve_unknown(&aliases, mailbox)?.unwrap_or(Resolution::Unknown))
    }

    fn resolve_alias(
        &self,
        aliases: &Aliases<'_>,
        mailbox: &Mailbox,
    ) -> Result<Option<Resolution>, Failure> {
        let Some((name, alias)) = aliases.find(mailbox.local_part()) else { return Ok(None) };
        let mut expansion = Expanding::new(name);
        expansion.add_targets(aliases, alias)?;
        let Expanding { has_itself, found, .. } = expansion;
        if !has_itself && !found.is_empty() {
            return Ok(Some(Resolution::Expanded(found.into())));
        }
        // `\root` or `root` within root's own entry is the mailbox behind the alias.
        let user = if has_itself { self.users.find(mailbox.local_part())? } else { None };
        match user {
            Some(user) if found.is_empty() => Ok(Some(Resolution::Mailbox(user))),
            Some(_) => {
                let itself = Addressee { mailbox: mailbox.clone(), way: Way::Mailbox };
                let mut expansion = Expansion::from(found);
                expansion.into.insert(0, itself);
                Ok(Some(Resolution::Expanded(expansion)))
            }
            None if found.is_empty() => {
                Err(aliases.failure(ALIAS_LOOP, alias, "leads only back to itself"))
            }
            None => Ok(Some(Resolution::Expanded(found.into()))),
        }
    }

    /// Mail for the postmaster is always taken (RFC 5321 §4.5.1), in the end by root.
    fn resolve_postmaster(&self, aliases: &Aliases<'_>) -> Result<Resolution, Failure> {
        let root = self.local_mailbox(LocalPart::from_unquoted("root").map_err(internal)?);
        match self.resolve_alias(aliases, &root)? {
            Some(resolution) => Ok(resolution),
            None => self.users.root().map(Resolution::Mailbox),
        }
    }

    fn resolve_unknown(
        &self,
        aliases: &Aliases<'_>,
        mailbox: &Mailbox,
    ) -> Result<Option<Resolution>, Failure> {
        let Some(catch_all) = &self.catch_all else { return Ok(None) };
        // The catch-all may be gone itself.
        let is_local = self.domains.contains(catch_all.domain());
        let is_known = !is_local
            || aliases.find(catch_all.local_part()).is_some()
            || self.users.find(catch_all.local_part())?.is_some();
        let is_other =
            !mailbox.local_part().as_str().eq_ignore_ascii_case(catch_all.local_part().as_str());
        let is_other = is_other || mailbox.domain() != catch_all.domain();
        Ok((is_known && is_other).then(|| Resolution::Expanded(vec![catch_all.clone()].into())))
    }

    /// The aliases as the file has them now; `None` where there is no file.
    fn aliases(&self) -> Result<Option<Arc<Version>>, Failure> {
        let Some(file) = &self.aliases else { return Ok(None) };
        let path = file.path().display();
        match file.load(|octets, before| read_version(&path, octets, before)) {
            Ok(version) => match &*version {
                Ok(_) => Ok(Some(version)),
                Err(error) => {
                    let text =
                        format!("the alias file is wrong: {path}:{}: {}", error.line, error.text);
                    Err(Failure::new(ALIASES_WRONG, one_line(&text, MAX_REMARK)))
                }
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => {
                let text = format!("the alias file {path} cannot be read: {error}");
                Err(Failure::new(ALIASES_WRONG, text))
            }
        }
    }

    fn local_mailbox(&self, local_part: LocalPart) -> Mailbox {
        Mailbox::new(local_part, Domain::Name(self.domains.origin().clone()))
    }
}

/// Reads a new version of the file; where it is broken, the good one before it stays.
fn read_version(
    path: &std::path::Display<'_>,
    octets: &[u8],
    before: Option<Arc<Version>>,
) -> Arc<Version> {
    let version = AliasTable::parse(octets);
    let Err(error) = &version else { return Arc::new(version) };
    let kept = before.filter(|before| before.is_ok());
    let remark = if kept.is_some() { "the aliases before the change stay" } else { "mail waits" };
    log::error!("{path}:{}: {}; {remark}", error.line, one_line(&error.text, MAX_REMARK));
    kept.unwrap_or_else(|| Arc::new(version))
}

/// A version of the alias file and whose it is.
struct Aliases<'a> {
    router: &'a LocalRouter,
    version: Option<&'a Version>,
}

impl<'a> Aliases<'a> {
    /// The alias for a local part as it stands, else without its detail, and its name.
    fn find(&self, local_part: &LocalPart) -> Option<(String, &'a Alias)> {
        let table = self.version?.as_ref().ok()?;
        let whole = local_part.as_str();
        let base = split_detail(whole, self.router.users.separator()).map(|(base, _)| base);
        [Some(whole), base]
            .into_iter()
            .flatten()
            .find_map(|name| Some((name.to_ascii_lowercase(), table.find(name)?)))
    }

    fn failure(&self, status: Status, alias: &Alias, what: &str) -> Failure {
        let path = self.router.aliases.as_ref().map(|file| file.path().display().to_string());
        let path = path.unwrap_or_default();
        Failure::new(
            status,
            one_line(&format!("the alias at {path}:{} {what}", alias.line), MAX_REMARK),
        )
    }
}

/// What an alias comes to, while it is being found out.
struct Expanding {
    /// The aliases that are being expanded, the first one first.
    open: Vec<String>,
    /// The aliases that were expanded already.
    done: HashSet<String>,
    /// Whether the first one came up again.
    has_itself: bool,
    /// The addresses, in their order, none twice.
    found: Vec<Mailbox>,
    seen: HashSet<(String, Domain)>,
}

impl Expanding {
    fn new(name: String) -> Self {
        Self {
            open: vec![name],
            done: HashSet::new(),
            has_itself: false,
            found: Vec::new(),
            seen: HashSet::new(),
        }
    }

    fn add_targets(&mut self, aliases: &Aliases<'_>, alias: &Alias) -> Result<(), Failure> {
        for target in &alias.targets {
            match target {
                Target::Name(name) => {
                    let mailbox = aliases.router.local_mailbox(name.clone());
                    self.add(aliases, alias, mailbox)?;
                }
                Target::Address(mailbox) => self.add(aliases, alias, mailbox.clone())?,
                Target::Unserved(text) => {
                    let what = format!(
                        "names {text:?}, and mailwren does not deliver to commands, files, \
                         included lists or \\names: name a user or an address instead"
                    );
                    return Err(aliases.failure(ALIASES_WRONG, alias, &what));
                }
            }
        }
        Ok(())
    }

    fn add(
        &mut self,
        aliases: &Aliases<'_>,
        parent: &Alias,
        mailbox: Mailbox,
    ) -> Result<(), Failure> {
        let is_local = aliases.router.domains.contains(mailbox.domain());
        let inner = if is_local { aliases.find(mailbox.local_part()) } else { None };
        let Some((name, alias)) = inner else { return self.add_address(aliases, parent, mailbox) };
        if self.open.first() == Some(&name) {
            self.has_itself = true;
            return Ok(());
        }
        // An alias that names itself has a mailbox, and one that is being expanded leads back
        // to itself: what they mean is found out in their own turn.
        if self.open.contains(&name) || names_itself(alias, &name) {
            return self.add_address(aliases, parent, mailbox);
        }
        if self.open.len() >= MAX_DEPTH {
            let what =
                format!("is more than {MAX_DEPTH} aliases deep: name the addresses directly");
            return Err(aliases.failure(ALIAS_LOOP, parent, &what));
        }
        if self.done.contains(&name) {
            return Ok(());
        }
        self.open.push(name);
        self.add_targets(aliases, alias)?;
        self.done.extend(self.open.pop());
        Ok(())
    }

    fn add_address(
        &mut self,
        aliases: &Aliases<'_>,
        parent: &Alias,
        mailbox: Mailbox,
    ) -> Result<(), Failure> {
        let is_local = aliases.router.domains.contains(mailbox.domain());
        let local_part = mailbox.local_part().as_str();
        // Elsewhere two spellings may be two people (RFC 5321 §2.4).
        let key = if is_local { local_part.to_ascii_lowercase() } else { local_part.to_owned() };
        if !self.seen.insert((key, mailbox.domain().clone())) {
            return Ok(());
        }
        if self.found.len() >= MAX_ADDRESSES {
            let what =
                format!("brings it to more than {MAX_ADDRESSES} addresses: use a mailing list");
            return Err(aliases.failure(ALIAS_LOOP, parent, &what));
        }
        self.found.push(mailbox);
        Ok(())
    }
}

fn names_itself(alias: &Alias, name: &str) -> bool {
    let is_name = |target: &Target| matches!(target, Target::Name(n) if n.as_str().eq_ignore_ascii_case(name));
    alias.targets.iter().any(is_name)
}

/// `root` is a local part; this cannot happen.
fn internal(error: impl std::fmt::Display) -> Failure {
    Failure::new(ALIASES_WRONG, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::settings::{Local, MailboxFormat, Users};
    use std::fs;
    use std::path::Path;

    fn router(folder: &Path, users: &str, catch_all: Option<&str>) -> LocalRouter {
        fs::write(folder.join("users"), users).unwrap();
        let local = Local {
            format: MailboxFormat::Maildir,
            path: String::new(),
            users: Users::File(folder.join("users")),
            aliases: Some(folder.join("aliases")),
            subaddress: Some('+'),
            catch_all: catch_all.map(|text| text.parse().unwrap()),
            ..Settings::default_with("mx.test").unwrap().local
        };
        LocalRouter {
            domains: LocalDomains {
                names: vec!["home.test".parse().unwrap(), "b.test".parse().unwrap()],
                all: false,
                others: Vec::new(),
            },
            users: UserTable::new(&local),
            aliases: local.aliases.map(|path| WatchedFile::new(path, MAX_ALIAS_FILE)),
            catch_all: local.catch_all,
            path: local.path,
        }
    }

    fn printed(resolution: &Resolution) -> String {
        let print = |to: &Addressee| match &to.way {
            Way::Routed => to.mailbox.to_string(),
            way => format!("{way}{}", to.mailbox),
        };
        match resolution {
            Resolution::Mailbox(user) => format!("user {}", user.name),
            Resolution::Expanded(expansion) => {
                expansion.into.iter().map(print).collect::<Vec<_>>().join(" ")
            }
            Resolution::Unknown => "unknown".to_owned(),
            Resolution::Failed(failure) => failure.status.to_string(),
        }
    }

    fn resolve(router: &LocalRouter, address: &str) -> String {
        printed(&router.resolve(&address.parse().unwrap()))
    }

    const USERS: &str = "ann\nbob\nroot\n";

    #[test]
    fn aliases_and_users() {
        let folder = tempfile::tempdir().unwrap();
        let router = router(folder.path(), USERS, None);
        for (aliases, address, expected) in [
            ("", "ann@home.test", "user ann"),
            ("", "ANN+x@b.test", "user ann"),
            ("", "carl@home.test", "unknown"),
            ("", "\"../x\"@home.test", "unknown"),
            ("", "Postmaster@home.test", "user root"),
            ("root: ann", "postmaster@home.test", "ann@home.test"),
            ("postmaster: bob", "POSTMASTER@home.test", "bob@home.test"),
            (
                "r: ann, c@x.test, ANN, s\ns: bob, c@x.test",
                "R+d@b.test",
                "ann@home.test c@x.test bob@home.test",
            ),
            ("r: s@b.test\ns: bob", "r@home.test", "bob@home.test"),
            ("r: s@x.test\ns: bob", "r@home.test", "s@x.test"),
            ("a+b: ann\na: bob", "a+b@home.test", "ann@home.test"),
            ("root: root, ann", "root@home.test", "\\root@home.test ann@home.test"),
            ("root: \\root", "root@home.test", "user root"),
            ("p: root, bob\nroot: root, ann", "p@home.test", "root@home.test bob@home.test"),
            ("ann: bob\nbob: ann", "ann@home.test", "user ann"),
            ("c: d\nd: c", "c@home.test", "5.4.6"),
            ("c: c", "c@home.test", "5.4.6"),
            ("c: c, ann", "c@home.test", "ann@home.test"),
            ("z: a\na: b\nb: a", "z@home.test", "a@home.test"),
            ("r: \"|cmd\"", "r@home.test", "4.3.5"),
            ("r: s\ns: ann, :include:/x", "r@home.test", "4.3.5"),
            ("r: s\ns: ann, :include:/x", "ann@home.test", "user ann"),
        ] {
            fs::write(folder.path().join("aliases"), aliases).unwrap();
            assert_eq!(resolve(&router, address), expected, "{aliases:?} {address}");
        }
    }

    #[test]
    fn depth_and_number_are_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let router = router(folder.path(), USERS, None);
        let chain: String = (0..10_000).map(|n| format!("a{n}: a{}\n", n + 1)).collect();
        fs::write(folder.path().join("aliases"), chain).unwrap();
        assert_eq!(resolve(&router, "a0@home.test"), "5.4.6");
        assert_eq!(resolve(&router, "a9990@home.test"), "a10000@home.test");
        let wide: Vec<_> = (0..=MAX_ADDRESSES).map(|n| format!("u{n}")).collect();
        fs::write(folder.path().join("aliases"), format!("w: {}", wide.join(", "))).unwrap();
        assert_eq!(resolve(&router, "w@home.test"), "5.4.6");
    }

    #[test]
    fn a_broken_file_changes_nothing_and_without_one_before_mail_waits() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("aliases");
        let router = router(folder.path(), USERS, None);
        fs::write(&path, "a: ann\nbroken\n").unwrap();
        assert_eq!(resolve(&router, "ann@home.test"), "4.3.5");
        let Resolution::Failed(failure) = router.resolve(&"a@home.test".parse().unwrap()) else {
            panic!("a broken file must not tell who is unknown");
        };
        assert!(failure.text.contains("aliases:2: "), "{}", failure.text);
        fs::write(&path, "a: ann\n").unwrap();
        assert_eq!(resolve(&router, "a@home.test"), "ann@home.test");
        fs::write(&path, "a: bob\nbroken again\n").unwrap();
        assert_eq!(resolve(&router, "a@home.test"), "ann@home.test");
        fs::remove_file(&path).unwrap();
        assert_eq!(resolve(&router, "a@home.test"), "unknown");
    }

    #[test]
    fn the_catch_all_takes_the_unknown() {
        let folder = tempfile::tempdir().unwrap();
        let known = router(folder.path(), USERS, Some("ann@home.test"));
        assert_eq!(resolve(&known, "carl@home.test"), "ann@home.test");
        assert_eq!(resolve(&known, "bob@home.test"), "user bob");
        let away = router(folder.path(), USERS, Some("x@other.test"));
        assert_eq!(resolve(&away, "carl@home.test"), "x@other.test");
        let gone = router(folder.path(), USERS, Some("dan@home.test"));
        assert_eq!(resolve(&gone, "carl@home.test"), "unknown");
        assert_eq!(resolve(&gone, "dan@home.test"), "unknown");
    }
}
