//! `.forward`: where a user's mail goes by the user's own word, in the grammar of aliases(5).
//!
//! The file is the user's, and so may be anything: a link to what only root can read, a FIFO that
//! never ends, a file that somebody else wrote. It is looked at with the user's own identity, never
//! through a link at its end, and read only if it is a regular file of at most 64 KiB that belongs
//! to the user or to root, and if nobody else can write to it or to its folder. One that is refused
//! counts for nothing: the mail goes into the mailbox, and the log says what to mend. Where the
//! home itself is away, perhaps with a `.forward` in it, the mail waits.
//!
//! For `user+detail` there may be a `.forward+detail`, which comes first.

mod reader;

use std::collections::HashSet;
use std::fmt;
use std::io;

use crate::config::settings::{LocalDomains, Settings};
use crate::deliver::outcome::Failure;
use crate::deliver::place::Place;
use crate::deliver::storage::failure;
use crate::mail::address::{Domain, LocalPart, Mailbox};
use crate::mail::status::Status;
use crate::route::addressee::{Addressee, Expansion, Way};
use crate::route::local::{LocalRouter, Resolution};
use crate::route::targets::Target;
use crate::route::users::User;
use crate::sys::disk::Disk;
use crate::sys::identity::{Guard, IdentityCache};
use crate::sys::users::Account;

use reader::{Reader, is_missing, is_never_there};

/// The longest name that a file can have on Linux, in octets.
const MAX_NAME: usize = 255;
/// How many names of this host are followed to see whether they come to an end.
const MAX_STEPS: usize = 100;
/// RFC 3463: other or undefined mail system status, until somebody mends it.
const UNREADABLE: Status = Status::new(4, 3, 0);

/// The `.forward` files of this host. Each is looked at anew for each message.
#[derive(Debug)]
pub struct Forwards {
    template: Option<String>,
    separator: Option<char>,
    domains: LocalDomains,
    disk: Disk,
    identities: IdentityCache,
}

/// Why a `.forward` says nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unheard {
    /// It counts for nothing: what is wrong with which file, and what to do.
    Refused(String),
    /// It cannot be said what it says, or whether there is one; the mail waits.
    Away(Failure),
}

impl fmt::Display for Unheard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(text) => f.write_str(text),
            Self::Away(failure) => f.write_str(&failure.text),
        }
    }
}

impl std::error::Error for Unheard {}

impl Forwards {
    /// Those that `[local] forward` names.
    pub fn new(settings: &Settings) -> Self {
        Self {
            template: settings.local.forward.clone(),
            separator: settings.local.subaddress,
            domains: settings.server.domains.clone(),
            disk: Disk::host(),
            identities: IdentityCache::default(),
        }
    }

    /// Reads them from a disk that a test may watch.
    pub fn with_disk(mut self, disk: Disk) -> Self {
        self.disk = disk;
        self
    }

    /// Whether there is anything called `.forward` for mail to `user` at `domain`. To be asked with
    /// the identity of the user; two system calls where there is none.
    ///
    /// # Errors
    /// A temporary failure when the home is away.
    pub fn is_there(&self, user: &User, domain: &Domain) -> Result<bool, Failure> {
        let Some((account, template)) = user.account.as_ref().zip(self.template.as_ref()) else {
            return Ok(false);
        };
        let place = Place::of(template, user, domain)?;
        for name in self.names(&place, user) {
            let path = place.path().with_file_name(name);
            match self.disk.look_at_no_link(&path) {
                Ok(_) => return Ok(true),
                Err(error) if is_missing(&error) => {}
                Err(error) => return Err(failure(&error, "look for", &path)),
            }
        }
        // With the dot, a file in the place of the home is no home.
        match self.disk.look_at(&place.base.join(".")) {
            Err(error) if !is_never_there(account, &place, &error) => {
                Err(failure(&error, "look for a .forward in", &place.base))
            }
            _ => Ok(false),
        }
    }

    /// What the `.forward` of `user` makes of `mailbox`; `None` where there is none, or an empty
    /// one. A name that is the user's own means the mailbox behind the `.forward`. Where all names
    /// lead round in a circle of aliases and `.forward` files, that mailbox is added to them:
    /// otherwise nobody would get the message.
    ///
    /// The calling thread must have its own identity.
    ///
    /// # Errors
    /// [`Unheard`].
    pub fn expansion(
        &self,
        user: &User,
        mailbox: &Mailbox,
        router: &LocalRouter,
    ) -> Result<Option<Expansion>, Unheard> {
        let mut into = self.addressees(user, mailbox)?;
        if into.is_empty() {
            return Ok(None);
        }
        if self.comes_to_nobody(&into, router) {
            let name = &user.name;
            log::error!(
                "the .forward of {name} leads only in a circle: {name}'s mailbox gets the mail"
            );
            into.push(Addressee { mailbox: mailbox.clone(), way: Way::Mailbox });
        }
        let into = each_once(into, router).map_err(Unheard::Away)?;
        Ok(Some(Expansion { into, owner: None }))
    }

    /// Those whom the `.forward` of `user` names.
    fn addressees(&self, user: &User, mailbox: &Mailbox) -> Result<Vec<Addressee>, Unheard> {
        let Some((account, template)) = user.account.as_ref().zip(self.template.as_ref()) else {
            return Ok(Vec::new());
        };
        let place = Place::of(template, user, mailbox.domain()).map_err(Unheard::Away)?;
        let _guard = self.assume(account).map_err(|error| {
            let text = format!("cannot read a .forward as {}: {error}", user.name);
            Unheard::Away(Failure::new(UNREADABLE, text))
        })?;
        let reader = Reader { disk: &self.disk, account };
        let targets = reader.targets(&place, &self.names(&place, user))?;
        let targets = targets.into_iter();
        Ok(targets.filter_map(|target| self.addressee(target, user, mailbox)).collect())
    }

    fn assume(&self, account: &Account) -> io::Result<Guard> {
        self.identities.identity_of(account)?.assume()
    }

    /// The names that the file may have: the first one that is there counts.
    fn names(&self, place: &Place, user: &User) -> Vec<String> {
        let mut names = Vec::new();
        let detail = user.detail.as_deref().filter(|detail| is_fit(detail));
        if let Some((detail, separator)) = detail.zip(self.separator) {
            names.push(format!("{}{separator}{detail}", place.name));
            names.push(format!("{}{separator}{}", place.name, detail.to_ascii_lowercase()));
            names.retain(|name| name.len() <= MAX_NAME);
            names.dedup();
        }
        names.push(place.name.clone());
        names
    }

    /// Who is meant by what the `.forward` of `user`, which was asked about `mailbox`, names. A
    /// command or a file belongs to that address, and what it is, is found there again.
    fn addressee(&self, target: Target, user: &User, mailbox: &Mailbox) -> Option<Addressee> {
        let local = |name| Mailbox::new(name, Domain::Name(self.domains.origin().clone()));
        let is_user = |name: &LocalPart| {
            let is = |whose: &str| whose.eq_ignore_ascii_case(name.as_str());
            is(user.name.as_str()) || is(mailbox.local_part().as_str())
        };
        let is_ours = |domain: &Domain| {
            self.domains.all || domain.name().is_some_and(|it| self.domains.has(it))
        };
        let itself = || mailbox.clone();
        Some(match target {
            Target::Name(name) | Target::Mailbox(name) if is_user(&name) => {
                Addressee { mailbox: itself(), way: Way::Mailbox }
            }
            Target::Address(to) if is_ours(to.domain()) && is_user(to.local_part()) => {
                Addressee { mailbox: itself(), way: Way::Mailbox }
            }
            Target::Name(name) => local(name).into(),
            Target::Address(to) => to.into(),
            Target::Mailbox(name) => Addressee { mailbox: local(name), way: Way::Mailbox },
            Target::Command(text) => Addressee { mailbox: itself(), way: Way::Command(text) },
            Target::File(text) => Addressee { mailbox: itself(), way: Way::File(text) },
            // The reader has put the list in its place.
            Target::Include(_) => return None,
        })
    }

    /// Whether all of these are names of this host that stand for each other only. Each name gets a
    /// message once, so that it would end with nobody.
    fn comes_to_nobody(&self, into: &[Addressee], router: &LocalRouter) -> bool {
        let mut ahead = into.to_vec();
        let mut seen = HashSet::new();
        while let Some(Addressee { mailbox, way }) = ahead.pop() {
            let resolve = match way {
                Way::Routed if self.domains.contains(mailbox.domain()) => LocalRouter::resolve,
                Way::User => LocalRouter::resolve_user,
                _ => return false,
            };
            let name = mailbox.local_part().as_str().to_ascii_lowercase();
            if !seen.insert((name, mailbox.domain().clone(), way)) {
                continue;
            }
            if seen.len() > MAX_STEPS {
                return true;
            }
            match resolve(router, &mailbox) {
                Resolution::Expanded(expansion) => ahead.extend(expansion.into),
                Resolution::Mailbox(user) => match self.addressees(&user, &mailbox) {
                    Ok(behind) if !behind.is_empty() => ahead.extend(behind),
                    _ => return false,
                },
                Resolution::Unknown | Resolution::Failed(_) => return false,
            }
        }
        true
    }
}

/// The same, none twice. What the domains of this host have in common goes by the name of the first
/// one, by which the queue knows that somebody has the message already.
fn each_once(into: Vec<Addressee>, router: &LocalRouter) -> Result<Vec<Addressee>, Failure> {
    let mut seen = HashSet::new();
    let mut each = Vec::new();
    for mut to in into {
        if matches!(to.way, Way::Routed | Way::Mailbox) {
            to.mailbox = router.canonical(to.mailbox)?;
        }
        if seen.insert(to.clone()) {
            each.push(to);
        }
    }
    Ok(each)
}

/// Whether a detail, which a stranger chose, can be part of a file's name.
fn is_fit(detail: &str) -> bool {
    let is_name = |octet: u8| octet.is_ascii_graphic() && octet != b'/';
    !detail.is_empty() && !detail.starts_with('.') && detail.bytes().all(is_name)
}
