//! Finding aliases, within one look at the alias files: what is found in the course of one
//! resolution belongs to one version of each.

use std::cell::OnceCell;
use std::collections::HashSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::deliver::outcome::Failure;
use crate::mail::address::{Domain, LocalPart, Mailbox};
use crate::mail::status::Status;
use crate::mail::text::{MAX_REMARK, one_line};
use crate::route::aliases::{Alias, AliasTable, Key};
use crate::route::lists::List;
use crate::route::local::LocalRouter;
use crate::route::realm::Realm;
use crate::route::targets::Target;
use crate::route::users::split_detail;

/// Aliases and lists within each other.
pub(super) const MAX_DEPTH: usize = 32;
/// The most addresses, and the most lists, that are looked at to find out whether a catch-all leads
/// anywhere.
const MAX_SEEN: usize = 1000;

/// A place in an alias file or a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spot {
    /// The file.
    pub file: PathBuf,
    /// The line, counted from 1.
    pub line: usize,
}

impl Spot {
    /// What is wrong here, as a failure.
    pub(super) fn failure(&self, status: Status, what: &str) -> Failure {
        Failure::new(status, one_line(&format!("the alias at {self} {what}"), MAX_REMARK))
    }
}

/// `/etc/aliases:3`
impl fmt::Display for Spot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}

/// Who is called the same.
pub(super) type Called = (String, Domain);

/// What a mailbox of this host is called in any case.
pub(super) fn called(mailbox: &Mailbox) -> Called {
    (mailbox.local_part().as_str().to_ascii_lowercase(), mailbox.domain().clone())
}

/// What was looked at already to find out whether mail comes to an end.
pub(super) struct Seen {
    mailboxes: HashSet<Called>,
    lists: HashSet<(usize, PathBuf)>,
}

impl Seen {
    /// Only `mailbox`, whose mail it is about.
    pub(super) fn only(mailbox: Called) -> Self {
        Self { mailboxes: HashSet::from([mailbox]), lists: HashSet::new() }
    }

    /// Notes a mailbox. False where it was seen before, or nobody looks any further.
    fn insert(&mut self, mailbox: &Mailbox) -> bool {
        self.mailboxes.len() < MAX_SEEN && self.mailboxes.insert(called(mailbox))
    }

    /// The same for a list in an alias file of the realm with this index.
    fn insert_list(&mut self, index: usize, path: &Path) -> bool {
        self.lists.len() < MAX_SEEN && self.lists.insert((index, path.to_owned()))
    }
}

/// One look at the alias files.
pub(super) struct Lookup<'r> {
    pub(super) router: &'r LocalRouter,
    tables: Vec<OnceCell<Option<Arc<AliasTable>>>>,
}

/// An alias that was found.
#[derive(Clone)]
pub(super) struct Found<'l> {
    /// Whose alias it is.
    pub(super) realm: &'l Realm,
    /// Where it stands among the realms: with the key, which alias it is.
    pub(super) index: usize,
    pub(super) key: Key,
    pub(super) alias: &'l Alias,
}

impl Found<'_> {
    /// Whether the other one is the same alias.
    pub(super) fn is(&self, other: &Found<'_>) -> bool {
        self.index == other.index && self.key == other.key
    }

    /// Where it stands.
    pub(super) fn spot(&self) -> Spot {
        let file = self.realm.aliases.as_ref().map(|file| file.path().to_owned());
        Spot { file: file.unwrap_or_default(), line: self.alias.line }
    }
}

impl<'r> Lookup<'r> {
    pub(super) fn new(router: &'r LocalRouter) -> Self {
        let tables = router.realms().iter().map(|_| OnceCell::new()).collect();
        Self { router, tables }
    }

    /// Whether the domain of `mailbox` is one of ours.
    pub(super) fn is_ours(&self, mailbox: &Mailbox) -> bool {
        self.router.domains().contains(mailbox.domain())
    }

    /// The alias for an address: for the address as it stands, without its detail, then the same
    /// for the name alone.
    pub(super) fn alias(&self, mailbox: &Mailbox) -> Result<Option<Found<'_>>, Failure> {
        let (index, realm) = self.router.realm(mailbox.domain());
        let whole = mailbox.local_part().as_str();
        let base = split_detail(whole, realm.users.separator()).map(|(base, _)| base);
        let names = || [Some(whole), base].into_iter().flatten();
        let domain = mailbox.domain().name();
        let addresses =
            domain.into_iter().flat_map(|domain| names().map(|name| Key::address(name, domain)));
        self.first(index, realm, addresses.chain(names().map(Key::name)))
    }

    /// The alias for whoever a domain does not know.
    pub(super) fn domain_alias(&self, domain: &Domain) -> Result<Option<Found<'_>>, Failure> {
        let (index, realm) = self.router.realm(domain);
        self.first(index, realm, domain.name().map(Key::domain).into_iter())
    }

    /// The address of those who are told when mail to the list `found` fails: there is an alias
    /// `owner-list` beside `list`. For the owners themselves it is `owner-owner`.
    pub(super) fn owner(&self, found: &Found<'_>) -> Result<Option<Mailbox>, Failure> {
        const PREFIX: &str = "owner-";
        let Some(list) = found.key.local_part() else { return Ok(None) };
        let owner = match list.starts_with(PREFIX) {
            true => "owner-owner".to_owned(),
            false => format!("{PREFIX}{list}"),
        };
        // A longer name than any can have has no alias.
        let Ok(name) = LocalPart::from_unquoted(&owner) else { return Ok(None) };
        let mailbox = found.realm.mailbox(&name, self.router.domains().origin());
        let is_there = owner != list
            && self.alias(&mailbox)?.is_some_and(|it| it.key.local_part() == Some(owner.as_str()));
        Ok(is_there.then_some(mailbox))
    }

    /// What the list at `path` names.
    pub(super) fn list(&self, path: &Path) -> Result<Arc<List>, Failure> {
        self.router.lists().load(path)
    }

    /// Who is meant by a name in the alias file of `realm`. A virtual domain with users of its own
    /// means its own names. One without means its aliases, unless `is_open` says that we come from
    /// that alias, and else the names of the host.
    pub(super) fn named(
        &self,
        realm: &Realm,
        name: &LocalPart,
        is_open: impl Fn(&Found<'_>) -> bool,
    ) -> Result<Mailbox, Failure> {
        let own = realm.mailbox(name, self.router.domains().origin());
        if realm.virtual_domain.is_none() || realm.users.may_have_users() {
            return Ok(own);
        }
        let is_own = self.alias(&own)?.is_some_and(|found| !is_open(&found));
        Ok(if is_own { own } else { self.user_named(realm, name) })
    }

    /// The same for `\name`, which passes all aliases.
    pub(super) fn user_named(&self, realm: &Realm, name: &LocalPart) -> Mailbox {
        let realm = if realm.users.may_have_users() { realm } else { self.router.local() };
        realm.mailbox(name, self.router.domains().origin())
    }

    /// Whether mail for `mailbox` comes to a mailbox, a command, a file or another host in the end,
    /// without one of those in `seen`. Only what is no loop may stand in for unknown users or be
    /// left for later: whoever has the message already does not get it again, so that in a loop
    /// it would vanish.
    pub(super) fn leads_somewhere(
        &self,
        mailbox: &Mailbox,
        seen: &mut Seen,
        depth: usize,
    ) -> Result<bool, Failure> {
        if !self.is_ours(mailbox) {
            return Ok(true);
        }
        if depth >= MAX_DEPTH || !seen.insert(mailbox) {
            return Ok(false);
        }
        if let Some(found) = self.alias(mailbox)? {
            return self.has_exit(&found, seen, depth);
        }
        if self.has_user(mailbox)? {
            return Ok(true);
        }
        if is_postmaster(mailbox.local_part()) {
            return match self.postmaster_of_the_host(mailbox) {
                Some(postmaster) => self.leads_somewhere(&postmaster, seen, depth + 1),
                None => Ok(true),
            };
        }
        if let Some(found) = self.domain_alias(mailbox.domain())? {
            return self.has_exit(&found, seen, depth);
        }
        match &self.router.realm(mailbox.domain()).1.catch_all {
            Some(catch_all) => self.leads_somewhere(catch_all, seen, depth + 1),
            None => Ok(false),
        }
    }

    /// The same for an alias.
    pub(super) fn has_exit(
        &self,
        found: &Found<'_>,
        seen: &mut Seen,
        depth: usize,
    ) -> Result<bool, Failure> {
        self.have_exit(found.alias.targets.iter(), found, seen, depth)
    }

    fn have_exit<'t>(
        &self,
        targets: impl Iterator<Item = &'t Target>,
        found: &Found<'_>,
        seen: &mut Seen,
        depth: usize,
    ) -> Result<bool, Failure> {
        for target in targets {
            let mailbox = match target {
                Target::Name(name) => self.named(found.realm, name, |it| it.is(found))?,
                Target::Address(mailbox) => mailbox.clone(),
                Target::Mailbox(_) | Target::Command(_) | Target::File(_) => return Ok(true),
                Target::Include(path) => {
                    if depth >= MAX_DEPTH || !seen.insert_list(found.index, path) {
                        continue;
                    }
                    let list = self.list(path)?;
                    let targets = &mut list.iter().map(|(_, target)| target);
                    let targets: &mut dyn Iterator<Item = &Target> = targets;
                    if self.have_exit(targets, found, seen, depth + 1)? {
                        return Ok(true);
                    }
                    continue;
                }
            };
            let is_itself = self.is_ours(&mailbox)
                && self.alias(&mailbox)?.is_some_and(|inner| inner.is(found));
            let has_exit = match is_itself {
                // It has the mailbox of its name.
                true => self.has_user(&mailbox)?,
                false => self.leads_somewhere(&mailbox, seen, depth + 1)?,
            };
            if has_exit {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether a user has this address, at a domain of ours.
    pub(super) fn has_user(&self, mailbox: &Mailbox) -> Result<bool, Failure> {
        let (_, realm) = self.router.realm(mailbox.domain());
        realm.users.find(mailbox.local_part()).map(|user| user.is_some())
    }

    /// The address of ours that means the same as `mailbox`: of the domains whose names lead to the
    /// same mailboxes, the first one has it.
    pub(super) fn at_origin(&self, mailbox: Mailbox) -> Result<Mailbox, Failure> {
        let (_, realm) = self.router.realm(mailbox.domain());
        let origin = self.router.domains().origin();
        if realm.keeps_domains_apart() || mailbox.domain().name() == Some(origin) {
            return Ok(mailbox);
        }
        let there = realm.mailbox(mailbox.local_part(), origin);
        let is_same = match (self.alias(&mailbox)?, self.alias(&there)?) {
            (Some(here), Some(there)) => here.is(&there),
            (None, None) => self.has_user(&mailbox)?,
            _ => false,
        };
        Ok(if is_same { there } else { mailbox })
    }

    /// Who is the postmaster of a virtual domain that names none. `None` for other domains.
    pub(super) fn postmaster_of_the_host(&self, mailbox: &Mailbox) -> Option<Mailbox> {
        let (_, realm) = self.router.realm(mailbox.domain());
        realm.virtual_domain.as_ref()?;
        let origin = self.router.domains().origin();
        Some(self.router.local().mailbox(mailbox.local_part(), origin))
    }

    fn first<'l>(
        &'l self,
        index: usize,
        realm: &'l Realm,
        mut keys: impl Iterator<Item = Key>,
    ) -> Result<Option<Found<'l>>, Failure> {
        let Some(table) = self.table(index, realm)? else { return Ok(None) };
        Ok(keys.find_map(|key| {
            let alias = table.find(&key)?;
            Some(Found { realm, index, key, alias })
        }))
    }

    fn table(&self, index: usize, realm: &Realm) -> Result<Option<&AliasTable>, Failure> {
        let cell = &self.tables[index];
        if cell.get().is_none() {
            let table = self.router.aliases_of(realm)?;
            return Ok(cell.get_or_init(|| table).as_deref());
        }
        Ok(cell.get().and_then(Option::as_deref))
    }
}

/// Whether it is the name that every domain takes mail for (RFC 5321 §4.5.1).
pub(super) fn is_postmaster(name: &LocalPart) -> bool {
    name.as_str().eq_ignore_ascii_case("postmaster")
}
