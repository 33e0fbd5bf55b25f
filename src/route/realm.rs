//! Domains that have their users and aliases in common: those of `[server] domains`, or one
//! virtual domain by itself.

use std::path::Path;

use crate::config::settings::{Settings, VirtualDomain};
use crate::mail::address::{Domain, DomainName, LocalPart, Mailbox};
use crate::route::aliases::AliasTable;
use crate::route::kept_file::KeptFile;
use crate::route::users::UserTable;

/// The largest alias file, in octets.
pub const MAX_ALIAS_FILE: u64 = 4 << 20;

/// Users, aliases, and who takes what is for neither.
#[derive(Debug)]
pub(super) struct Realm {
    /// The virtual domain. `None` for all those of `[server] domains`.
    pub(super) virtual_domain: Option<DomainName>,
    pub(super) users: UserTable,
    pub(super) aliases: Option<KeptFile<AliasTable>>,
    pub(super) catch_all: Option<Mailbox>,
    /// Where the mailboxes are.
    pub(super) path: String,
}

impl Realm {
    /// The realm of `[local]`.
    pub(super) fn local(settings: &Settings) -> Self {
        let local = &settings.local;
        Self {
            virtual_domain: None,
            users: UserTable::new(local),
            aliases: local.aliases.as_deref().map(alias_file),
            catch_all: local.catch_all.clone(),
            path: local.path.clone(),
        }
    }

    /// The realm of a virtual domain. `separator` is what separates a detail in its addresses.
    pub(super) fn of_domain(domain: &VirtualDomain, separator: Option<char>) -> Self {
        Self {
            virtual_domain: Some(domain.name.clone()),
            users: UserTable::of_domain(domain.users.as_deref(), separator),
            aliases: domain.aliases.as_deref().map(alias_file),
            catch_all: domain.catch_all.clone(),
            path: domain.path.clone(),
        }
    }

    /// Whether each domain has mailboxes of its own, where others may have users of the same names.
    pub(super) fn keeps_domains_apart(&self) -> bool {
        self.virtual_domain.is_some() || self.path.contains("{domain}")
    }

    /// `name` at this realm; `origin` is the domain of those that have several.
    pub(super) fn mailbox(&self, name: &LocalPart, origin: &DomainName) -> Mailbox {
        let domain = self.virtual_domain.as_ref().unwrap_or(origin);
        Mailbox::new(name.clone(), Domain::Name(domain.clone()))
    }
}

fn alias_file(path: &Path) -> KeptFile<AliasTable> {
    KeptFile::new(path.to_owned(), MAX_ALIAS_FILE, "alias file")
}
