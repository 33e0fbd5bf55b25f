//! What an alias comes to: aliases and lists within it are followed to their ends, where nobody
//! stands twice.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use crate::deliver::outcome::Failure;
use crate::mail::address::Mailbox;
use crate::mail::status::Status;
use crate::route::addressee::{Addressee, Way};
use crate::route::aliases::Key;
use crate::route::kept_file::ALIASES_WRONG;
use crate::route::lookup::{Called, Found, Lookup, MAX_DEPTH, Seen, Spot, called};
use crate::route::realm::Realm;
use crate::route::targets::Target;

/// Addressees that one alias may stand for.
pub(super) const MAX_ADDRESSEES: usize = 10_000;

/// The alias leads nowhere (RFC 3463: routing loop detected).
pub(super) const ALIAS_LOOP: Status = Status::new(5, 4, 6);

/// An alias or a list, so that it is known again.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Step {
    Alias(usize, Key),
    List(usize, PathBuf),
}

impl Step {
    fn of(found: &Found<'_>) -> Self {
        Self::Alias(found.index, found.key.clone())
    }
}

/// An alias, while it is being found out what it comes to.
pub(super) struct Expanding<'l, 'r> {
    lookup: &'l Lookup<'r>,
    /// Whose mail it is about.
    first: Called,
    /// What is being expanded, the first one first.
    open: Vec<Step>,
    /// What was expanded already.
    done: HashSet<Step>,
    /// Whether the first one came up again.
    pub(super) has_itself: bool,
    /// The addressees, in their order, none twice.
    pub(super) found: Vec<Addressee>,
    seen: HashSet<(Called, Way)>,
}

/// Where a target stands.
struct Source<'l, 's> {
    realm: &'l Realm,
    index: usize,
    /// Whose alias it is in.
    holder: &'s Mailbox,
    spot: Spot,
    is_in_list: bool,
}

impl<'l, 'r> Expanding<'l, 'r> {
    /// Follows the alias that was found for `mailbox`.
    ///
    /// # Errors
    /// A temporary failure when a file cannot be read or has what it must not have, a permanent one
    /// when the alias is too deep or too large.
    pub(super) fn expand(
        lookup: &'l Lookup<'r>,
        found: &Found<'l>,
        mailbox: &Mailbox,
    ) -> Result<Self, Failure> {
        let mut expanding = Self {
            lookup,
            first: called(mailbox),
            open: vec![Step::of(found)],
            done: HashSet::new(),
            has_itself: false,
            found: Vec::new(),
            seen: HashSet::new(),
        };
        expanding.add_alias(found, mailbox)?;
        expanding.have_mailboxes_once()?;
        Ok(expanding)
    }

    fn add_alias(&mut self, found: &Found<'l>, holder: &Mailbox) -> Result<(), Failure> {
        let Found { realm, index, .. } = *found;
        let source = Source { realm, index, holder, spot: found.spot(), is_in_list: false };
        found.alias.targets.iter().try_for_each(|target| self.add_target(&source, target))
    }

    fn add_target(&mut self, source: &Source<'l, '_>, target: &Target) -> Result<(), Failure> {
        let way = match target {
            Target::Name(name) => {
                let is_open = |it: &Found<'_>| self.open.contains(&Step::of(it));
                let mailbox = self.lookup.named(source.realm, name, is_open)?;
                return self.add_mailbox(source, mailbox);
            }
            Target::Address(mailbox) => return self.add_mailbox(source, mailbox.clone()),
            Target::Include(path) => return self.add_list(source, path),
            Target::Mailbox(user) => {
                let mailbox = self.lookup.user_named(source.realm, user);
                return self.push(source, Addressee { mailbox, way: Way::Mailbox });
            }
            Target::Command(command) => Way::Command(command.clone()),
            Target::File(path) => Way::File(path.clone()),
        };
        if source.is_in_list {
            // Whoever may write to a list of addresses need not be trusted with more.
            let what = "is in a list and names a command or a file: in a list there are only \
                        names, addresses and lists; put it into the alias file";
            return Err(source.spot.failure(ALIASES_WRONG, what));
        }
        self.push(source, Addressee { mailbox: source.holder.clone(), way })
    }

    fn add_list(&mut self, source: &Source<'l, '_>, path: &Path) -> Result<(), Failure> {
        let step = Step::List(source.index, path.to_owned());
        if self.done.contains(&step) || self.open.contains(&step) {
            return Ok(());
        }
        self.enter(source, step)?;
        let list = self.lookup.list(path).map_err(|failure| {
            source.spot.failure(failure.status, &format!("cannot be used now: {}", failure.text))
        })?;
        for (line, target) in list.iter() {
            let spot = Spot { file: path.to_owned(), line: *line };
            self.add_target(&Source { spot, is_in_list: true, ..*source }, target)?;
        }
        self.leave();
        Ok(())
    }

    fn add_mailbox(&mut self, source: &Source<'l, '_>, mailbox: Mailbox) -> Result<(), Failure> {
        let lookup = self.lookup;
        let inner = if lookup.is_ours(&mailbox) { lookup.alias(&mailbox)? } else { None };
        let Some(inner) = inner else { return self.push(source, mailbox.into()) };
        let step = Step::of(&inner);
        if self.open.first() == Some(&step) {
            self.has_itself = true;
            return Ok(());
        }
        if self.done.contains(&step) {
            return Ok(());
        }
        if self.is_left_for_later(&inner, &step, &mailbox)? {
            return self.push(source, mailbox.into());
        }
        if self.open.contains(&step) {
            return Ok(());
        }
        self.enter(source, step)?;
        self.add_alias(&inner, &mailbox)?;
        self.leave();
        Ok(())
    }

    /// Whether an alias within the alias stays as it is, and is resolved in its own turn: it names
    /// itself and so has a mailbox, or it is a list with an owner of its own. Never one that would
    /// lead back to nothing but where we are.
    fn is_left_for_later(
        &self,
        inner: &Found<'l>,
        step: &Step,
        mailbox: &Mailbox,
    ) -> Result<bool, Failure> {
        let names_itself = inner.alias.targets.iter().any(|target| match target {
            Target::Name(name) => inner.key.local_part() == Some(&name.as_str().to_lowercase()),
            _ => false,
        });
        if names_itself || self.open.contains(step) {
            return self.lookup.has_user(mailbox);
        }
        if self.lookup.owner(inner)?.is_none() {
            return Ok(false);
        }
        let mut seen = Seen::only(self.first.clone());
        self.lookup.leads_somewhere(mailbox, &mut seen, 0)
    }

    fn enter(&mut self, source: &Source<'l, '_>, step: Step) -> Result<(), Failure> {
        if self.open.len() >= MAX_DEPTH {
            let what =
                format!("is more than {MAX_DEPTH} aliases deep: name the addresses directly");
            return Err(source.spot.failure(ALIAS_LOOP, &what));
        }
        self.open.push(step);
        Ok(())
    }

    fn leave(&mut self) {
        self.done.extend(self.open.pop());
    }

    /// Has a user beside the mailbox of that user come to a `.forward` or to the same mailbox, and
    /// not to a second copy in it.
    fn have_mailboxes_once(&mut self) -> Result<(), Failure> {
        for to in self.found.iter_mut().filter(|to| to.way == Way::Routed) {
            let is_twice = self.seen.contains(&(called(&to.mailbox), Way::Mailbox));
            if is_twice
                && self.lookup.alias(&to.mailbox)?.is_none()
                && self.lookup.has_user(&to.mailbox)?
            {
                to.way = Way::User;
            }
        }
        Ok(())
    }

    fn push(&mut self, source: &Source<'l, '_>, mut to: Addressee) -> Result<(), Failure> {
        // Elsewhere two spellings may be two people (RFC 5321 §2.4).
        let called = match self.lookup.is_ours(&to.mailbox) {
            true => {
                if matches!(to.way, Way::Routed | Way::Mailbox) {
                    to.mailbox = self.lookup.at_origin(to.mailbox)?;
                }
                called(&to.mailbox)
            }
            false => (to.mailbox.local_part().as_str().to_owned(), to.mailbox.domain().clone()),
        };
        if !self.seen.insert((called, to.way.clone())) {
            return Ok(());
        }
        if self.found.len() >= MAX_ADDRESSEES {
            let what =
                format!("brings it to more than {MAX_ADDRESSEES} addresses: use a mailing list");
            return Err(source.spot.failure(ALIAS_LOOP, &what));
        }
        self.found.push(to);
        Ok(())
    }
}
