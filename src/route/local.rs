//! What an address of this host means: a mailbox, an alias, or nobody.
//!
//! Aliases come first, then users, then the postmaster, then whoever takes the mail for unknown
//! users: the alias `@domain`, else the catch-all.

use std::sync::Arc;

use crate::config::settings::{LocalDomains, Settings};
use crate::deliver::outcome::Failure;
use crate::mail::address::{Domain, DomainName, LocalPart, Mailbox};
use crate::route::addressee::{Addressee, Expansion, Way};
use crate::route::aliases::{AliasTable, Key};
use crate::route::expanding::{ALIAS_LOOP, Expanding};
use crate::route::kept_file::ALIASES_WRONG;
use crate::route::lists::Lists;
use crate::route::lookup::{Found, Lookup, Seen, Spot, called, is_postmaster};
use crate::route::realm::Realm;
use crate::route::targets::{AliasError, Target};
use crate::route::users::User;

/// What an address of this host means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// The mailbox of a user, unless a `.forward` sends it elsewhere.
    Mailbox(User),
    /// An alias. Where it names itself, as `root: root, ann`, the user behind it is among them.
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
    /// That of `[local]`, then those of the virtual domains.
    realms: Vec<Realm>,
    lists: Lists,
    /// How an alias file is read.
    read: fn(&[u8]) -> Result<AliasTable, AliasError>,
}

impl LocalRouter {
    /// Routes by `[local]`, the domains of `[server]`, and each `[domain.NAME]`.
    pub fn new(settings: &Settings) -> Self {
        let separator = settings.local.subaddress;
        let others = settings.domains.iter().map(|domain| Realm::of_domain(domain, separator));
        Self {
            domains: settings.server.domains.clone(),
            realms: std::iter::once(Realm::local(settings)).chain(others).collect(),
            lists: Lists::default(),
            read: AliasTable::parse,
        }
    }

    /// The same by what can be read of alias files with mistakes in them, for those who look for
    /// more of them.
    pub fn in_spite_of_mistakes(settings: &Settings) -> Self {
        Self { read: |octets| Ok(AliasTable::read(octets).0), ..Self::new(settings) }
    }

    /// Where the mailboxes of the users at a domain of ours are: a path with `{user}`, `{domain}`
    /// or `{home}` in it.
    pub fn mailbox_path(&self, domain: &Domain) -> &str {
        &self.realm(domain).1.path
    }

    /// Whether a domain has users of its own.
    pub fn is_virtual(&self, domain: &Domain) -> bool {
        self.realm(domain).1.virtual_domain.is_some()
    }

    /// What `mailbox`, whose domain is one of ours, means. It takes a `stat` of the alias file
    /// and of each list in the alias, and a look-up of the user.
    ///
    /// Expanding an address that an expansion gave may give the first one again: whoever
    /// queues them must drop those that the message has already. It never gives that one alone.
    pub fn resolve(&self, mailbox: &Mailbox) -> Resolution {
        self.try_resolve(mailbox).unwrap_or_else(Resolution::Failed)
    }

    /// The user that `mailbox`, whose domain is one of ours, names, whatever the aliases say.
    ///
    /// # Errors
    /// A temporary failure when nobody can say at the moment.
    pub fn user(&self, mailbox: &Mailbox) -> Result<Option<User>, Failure> {
        self.realm(mailbox.domain()).1.users.find(mailbox.local_part())
    }

    /// The address of ours that means the same as `mailbox`: where several domains share their
    /// mailboxes, that of the first one. Any other stays as it is.
    ///
    /// # Errors
    /// A temporary failure when nobody can say at the moment.
    pub fn canonical(&self, mailbox: Mailbox) -> Result<Mailbox, Failure> {
        let lookup = Lookup::new(self);
        if lookup.is_ours(&mailbox) { lookup.at_origin(mailbox) } else { Ok(mailbox) }
    }

    /// The same for the user that `mailbox` names, whatever the aliases say.
    pub fn resolve_user(&self, mailbox: &Mailbox) -> Resolution {
        match self.user(mailbox) {
            Ok(Some(user)) => Resolution::Mailbox(user),
            Ok(None) => Resolution::Unknown,
            Err(failure) => Resolution::Failed(failure),
        }
    }

    /// The one spelling of all addresses that lead to the mailbox of a user with the same detail,
    /// so that nobody has a message twice who was named twice. `None` for any other address, and for
    /// one of which nobody can say at the moment: elsewhere two spellings may be two people
    /// (RFC 5321 §2.4), and an alias may have the very address by which another one is known here.
    pub fn spelling(&self, mailbox: &Mailbox) -> Option<Mailbox> {
        if !self.domains.contains(mailbox.domain()) {
            return None;
        }
        let Resolution::Mailbox(user) = self.resolve(mailbox) else { return None };
        let (_, realm) = self.realm(mailbox.domain());
        let name = match (&user.detail, realm.users.separator()) {
            (Some(detail), Some(separator)) => format!("{}{separator}{detail}", user.name),
            _ => user.name.to_string(),
        };
        let domain = match realm.keeps_domains_apart() {
            true => mailbox.domain().clone(),
            false => Domain::Name(self.domains.origin().clone()),
        };
        LocalPart::from_unquoted(&name).map(|name| Mailbox::new(name, domain)).ok()
    }

    /// Where the alias stands that [`resolve`](Self::resolve) goes by, if there is one.
    ///
    /// # Errors
    /// A temporary failure when an alias file cannot be read.
    pub fn spot_of(&self, mailbox: &Mailbox) -> Result<Option<Spot>, Failure> {
        let lookup = Lookup::new(self);
        if let Some(found) = lookup.alias(mailbox)? {
            return Ok(Some(found.spot()));
        }
        if lookup.has_user(mailbox)? {
            return Ok(None);
        }
        let found = match is_postmaster(mailbox.local_part()) {
            true => lookup.alias(&self.root(mailbox)?)?,
            false => lookup.domain_alias(mailbox.domain())?,
        };
        Ok(found.map(|found| found.spot()))
    }

    /// Who is meant by a target of the alias `key` in the alias file of `domain`, if it is an address
    /// or a name.
    ///
    /// # Errors
    /// A temporary failure when an alias file cannot be read.
    pub fn meant_by(
        &self,
        domain: &DomainName,
        key: &Key,
        target: &Target,
    ) -> Result<Option<Addressee>, Failure> {
        let lookup = Lookup::new(self);
        let (index, realm) = self.realm(&Domain::Name(domain.clone()));
        let (mailbox, way) = match target {
            Target::Name(name) => {
                let is_open = |found: &Found<'_>| found.index == index && found.key == *key;
                (lookup.named(realm, name, is_open)?, Way::Routed)
            }
            Target::Address(mailbox) => (mailbox.clone(), Way::Routed),
            Target::Mailbox(user) => (lookup.user_named(realm, user), Way::Mailbox),
            Target::Command(_) | Target::File(_) | Target::Include(_) => return Ok(None),
        };
        Ok(Some(Addressee { mailbox, way }))
    }

    pub(super) fn domains(&self) -> &LocalDomains {
        &self.domains
    }

    /// The aliases of a realm as its file has them now; `None` where there is no file.
    pub(super) fn aliases_of(&self, realm: &Realm) -> Result<Option<Arc<AliasTable>>, Failure> {
        realm.aliases.as_ref().map_or(Ok(None), |file| file.load(self.read))
    }

    pub(super) fn realms(&self) -> &[Realm] {
        &self.realms
    }

    pub(super) fn lists(&self) -> &Lists {
        &self.lists
    }

    /// The realm of the host itself.
    pub(super) fn local(&self) -> &Realm {
        &self.realms[0]
    }

    /// The realm of a domain of ours, and which one it is.
    pub(super) fn realm(&self, domain: &Domain) -> (usize, &Realm) {
        let is_it = |realm: &&Realm| realm.virtual_domain.as_ref() == domain.name();
        let found = domain.name().and_then(|_| self.realms.iter().position(|it| is_it(&it)));
        let index = found.unwrap_or(0);
        (index, &self.realms[index])
    }

    fn try_resolve(&self, mailbox: &Mailbox) -> Result<Resolution, Failure> {
        let lookup = Lookup::new(self);
        if let Some(found) = lookup.alias(mailbox)? {
            return self.resolve_alias(&lookup, &found, mailbox);
        }
        if let Some(user) = self.user(mailbox)? {
            return Ok(Resolution::Mailbox(user));
        }
        if is_postmaster(mailbox.local_part()) {
            return self.resolve_postmaster(&lookup, mailbox);
        }
        Ok(self.resolve_unknown(&lookup, mailbox)?.unwrap_or(Resolution::Unknown))
    }

    fn resolve_alias(
        &self,
        lookup: &Lookup<'_>,
        found: &Found<'_>,
        mailbox: &Mailbox,
    ) -> Result<Resolution, Failure> {
        let Expanding { has_itself, found: mut into, .. } =
            Expanding::expand(lookup, found, mailbox)?;
        // Whoever comes back to the alias means the user behind it.
        if let Some(user) = if has_itself { self.user(mailbox)? } else { None } {
            if into.is_empty() {
                return Ok(Resolution::Mailbox(user));
            }
            let itself = lookup.at_origin(mailbox.clone())?;
            into.insert(0, Addressee { mailbox: itself, way: Way::User });
        }
        match into.is_empty() {
            true => Err(found.spot().failure(
                ALIAS_LOOP,
                "leads only back to itself: name a user or an address elsewhere",
            )),
            false => Ok(Resolution::Expanded(Expansion { into, owner: lookup.owner(found)? })),
        }
    }

    /// Mail for the postmaster is always taken (RFC 5321 §4.5.1), in the end by root.
    fn resolve_postmaster(
        &self,
        lookup: &Lookup<'_>,
        mailbox: &Mailbox,
    ) -> Result<Resolution, Failure> {
        let mut seen = Seen::only(called(mailbox));
        if let Some(postmaster) = lookup.postmaster_of_the_host(mailbox) {
            let text = format!("mail for {postmaster} leads only back to {mailbox}");
            return match lookup.leads_somewhere(&postmaster, &mut seen, 0)? {
                true => Ok(Resolution::Expanded(vec![postmaster].into())),
                false => Err(Failure::new(ALIAS_LOOP, text)),
            };
        }
        let root = self.root(mailbox)?;
        match lookup.alias(&root)? {
            Some(found) if lookup.has_exit(&found, &mut seen, 0)? => {
                self.resolve_alias(lookup, &found, &root)
            }
            _ => self.local().users.root().map(Resolution::Mailbox),
        }
    }

    fn resolve_unknown(
        &self,
        lookup: &Lookup<'_>,
        mailbox: &Mailbox,
    ) -> Result<Option<Resolution>, Failure> {
        let mut seen = Seen::only(called(mailbox));
        if let Some(found) = lookup.domain_alias(mailbox.domain())? {
            return match lookup.has_exit(&found, &mut seen, 0)? {
                true => self.resolve_alias(lookup, &found, mailbox).map(Some),
                false => Ok(None),
            };
        }
        let (_, realm) = self.realm(mailbox.domain());
        // The catch-all may be gone itself.
        let Some(catch_all) = &realm.catch_all else { return Ok(None) };
        let leads = lookup.leads_somewhere(catch_all, &mut seen, 0)?;
        Ok(leads.then(|| Resolution::Expanded(vec![catch_all.clone()].into())))
    }

    /// Root, at the domain where the postmaster was asked for.
    fn root(&self, postmaster: &Mailbox) -> Result<Mailbox, Failure> {
        let internal = |error| Failure::new(ALIASES_WRONG, format!("root: {error}"));
        let name = LocalPart::from_unquoted("root").map_err(internal)?;
        Ok(Mailbox::new(name, postmaster.domain().clone()))
    }
}

#[cfg(test)]
mod tests;
