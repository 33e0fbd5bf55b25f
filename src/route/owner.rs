//! Whose an address is: what `[auth] sender = own` asks about MAIL FROM, and about the From and
//! Sender fields of those who logged in over TCP (RFC 6409 §6.1 and §6.3), and an automatic reply
//! about those whom a message names (RFC 3834 §2).
//!
//! An address is a user's when the domain is one of ours and the local part is the name that was
//! logged in with, or it reaches the user's mailbox: with a detail, or by an alias, be it one of
//! several whom the alias names. A user whose name is a full address has that address; in a virtual
//! domain also its details and aliases, and never those of a namesake in another domain.
//!
//! The programs of this host's accounts come over the Unix socket or by way of `drop/`, and the
//! system vouches for the account. With `own` its envelope sender is bound in the same way, but
//! nobody looks at its From field: git send-email, mutt and mail(1) write there what their owner
//! has configured, which is mostly an address elsewhere, and a report of a failure still goes to
//! the account. The Received field tells its number.

use std::borrow::Cow;

use crate::config::settings::{SenderRule, Settings};
use crate::deliver::outcome::Failure;
use crate::mail::address::{Domain, Mailbox};
use crate::mail::status::Status;
use crate::route::addressee::{Addressee, Way};
use crate::route::local::{LocalRouter, Resolution};
use crate::route::users::split_detail;
use crate::sys::{process, users};

/// RFC 3463: the directory that knows the accounts is away.
const ASK_LATER: Status = Status::new(4, 4, 3);

/// A user, and what is the user's own.
#[derive(Debug)]
pub struct Owner<'a> {
    settings: &'a Settings,
    router: &'a LocalRouter,
    /// The name that was logged in with, without its domain.
    name: Cow<'a, str>,
    /// The domain, where it is not one of those that share their users: a virtual one, or elsewhere.
    domain: Option<Domain>,
}

impl<'a> Owner<'a> {
    /// The user who logged in as `login`: `ann`, or `ann@example.org`.
    pub fn new(settings: &'a Settings, router: &'a LocalRouter, login: &'a str) -> Self {
        let shares_users = |mailbox: &Mailbox| shares_users(settings, mailbox);
        let (name, domain) = match (login.parse::<Mailbox>(), login.rsplit_once('@')) {
            // All these domains have the same users, so it is one of them without its domain.
            (Ok(mailbox), Some((name, _))) if shares_users(&mailbox) => (name.into(), None),
            (Ok(mailbox), _) => {
                let name = mailbox.local_part().as_str().to_owned();
                (name.into(), Some(mailbox.domain().clone()))
            }
            (Err(_), _) => (login.into(), None),
        };
        Self { settings, router, name, domain }
    }

    /// Whether `mailbox` is one of the user's.
    ///
    /// # Errors
    /// A temporary failure when it cannot be said now.
    pub fn owns(&self, mailbox: &Mailbox) -> Result<bool, Failure> {
        if self.is_same(mailbox) {
            return Ok(true);
        }
        if !self.settings.server.domains.contains(mailbox.domain()) {
            return Ok(false);
        }
        Ok(match self.router.resolve(mailbox) {
            Resolution::Mailbox(user) => self.is_at(mailbox) && self.is_name(user.name.as_str()),
            Resolution::Expanded(expansion) => expansion.into.iter().any(|to| self.is_reached(to)),
            // Who can log in need not have a mailbox.
            Resolution::Unknown => self.has_as_detail(mailbox),
            Resolution::Failed(failure) => return Err(failure),
        })
    }

    /// Whether it is the very name or address.
    fn is_same(&self, mailbox: &Mailbox) -> bool {
        self.is_at(mailbox) && self.is_name(mailbox.local_part().as_str())
    }

    /// Whether what an alias gave, which is no alias itself, is the user.
    fn is_reached(&self, to: &Addressee) -> bool {
        // A command or a file is nobody's.
        let is_mailbox = matches!(to.way, Way::Routed | Way::User | Way::Mailbox);
        is_mailbox && (self.is_same(&to.mailbox) || self.has_as_detail(&to.mailbox))
    }

    /// Whether it is the user's name with a detail, at a domain of ours.
    fn has_as_detail(&self, mailbox: &Mailbox) -> bool {
        let separator = self.settings.local.subaddress;
        let base = split_detail(mailbox.local_part().as_str(), separator).map(|(base, _)| base);
        self.settings.server.domains.contains(mailbox.domain())
            && self.is_at(mailbox)
            && base.is_some_and(|base| self.is_name(base))
    }

    /// Whether its domain is where the user is.
    fn is_at(&self, mailbox: &Mailbox) -> bool {
        match &self.domain {
            Some(domain) => domain == mailbox.domain(),
            None => shares_users(self.settings, mailbox),
        }
    }

    fn is_name(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }
}

fn shares_users(settings: &Settings, mailbox: &Mailbox) -> bool {
    settings.server.domains.shares_users(mailbox.domain())
}

/// The name that the account `uid` of this host must send as, if it may not send as anybody:
/// those of `[auth] trusted_users` and the server's own account may. An account without a name
/// is called `uid1234`.
///
/// # Errors
/// A temporary failure when nobody can say at the moment.
pub fn bound_account(settings: &Settings, uid: u32) -> Result<Option<String>, Failure> {
    let is_own = || rustix::process::geteuid().as_raw() == uid;
    if settings.auth.sender == SenderRule::Any || is_own() {
        return Ok(None);
    }
    let name = account_name(uid)?;
    Ok((!settings.auth.trusted_users.contains(&name)).then_some(name))
}

/// The name of the account `uid` of this host; `uid1234` where it has none.
///
/// # Errors
/// A temporary failure when nobody can say at the moment.
pub fn account_name(uid: u32) -> Result<String, Failure> {
    let account = users::by_uid(uid).map_err(|error| {
        Failure::new(ASK_LATER, format!("the accounts cannot be looked up: {error}"))
    })?;
    Ok(account.map_or_else(|| format!("uid{uid}"), |account| account.name))
}

/// `mailbox` as an account of this host means it: names that the host has for itself stand for the
/// origin. A full name that is a domain of ours stays, for its users may be others.
pub fn at_origin(settings: &Settings, mailbox: Mailbox) -> Mailbox {
    let domains = &settings.server.domains;
    let Domain::Name(name) = mailbox.domain() else { return mailbox };
    let is_known = domains.names.contains(name) && name.as_str().contains('.');
    if is_known || domains.others.contains(name) || !process::own_names().contains(name) {
        return mailbox;
    }
    Mailbox::new(mailbox.local_part().clone(), Domain::Name(domains.origin().clone()))
}

/// `mailbox` with a fully qualified domain (RFC 6409 §4.2): a name of one label, such as
/// `localhost`, becomes the origin if it is ours.
///
/// # Errors
/// The domain, when it is such a name and not ours.
pub fn qualified(settings: &Settings, mailbox: Mailbox) -> Result<Mailbox, Domain> {
    let domains = &settings.server.domains;
    match mailbox.domain() {
        Domain::Name(name) if !name.as_str().contains('.') => {
            if !domains.contains(mailbox.domain()) {
                return Err(mailbox.domain().clone());
            }
            let origin = Domain::Name(domains.origin().clone());
            Ok(Mailbox::new(mailbox.local_part().clone(), origin))
        }
        _ => Ok(mailbox),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use std::fs;

    #[test]
    fn an_account_that_is_not_trusted_has_its_name() {
        let mut settings = config::load("/dev/null".as_ref(), "mx.home.test").unwrap();
        let bin = users::by_name("bin").unwrap().unwrap().uid;
        assert_eq!(bound_account(&settings, bin), Ok(Some("bin".to_owned())));
        assert_eq!(bound_account(&settings, 4_000_123), Ok(Some("uid4000123".to_owned())));
        let own = rustix::process::geteuid().as_raw();
        for trusted in [own, users::by_name("daemon").unwrap().unwrap().uid, 0] {
            assert_eq!(bound_account(&settings, trusted), Ok(None));
        }
        settings.auth.trusted_users = vec!["bin".to_owned()];
        assert_eq!(bound_account(&settings, bin), Ok(None));
        settings.auth.trusted_users.clear();
        settings.auth.sender = SenderRule::Any;
        assert_eq!(bound_account(&settings, bin), Ok(None));
    }

    #[test]
    fn the_names_of_the_host_stand_for_the_origin() {
        let mut settings = config::load("/dev/null".as_ref(), "home.test").unwrap();
        let host = process::host_name();
        let is_at = |settings: &Settings, domain: &str, expected: &str| {
            let mailbox = at_origin(settings, format!("ann@{domain}").parse().unwrap());
            assert_eq!(mailbox.to_string(), format!("ann@{expected}"));
        };
        let short = host.split('.').next().unwrap();
        for domain in ["localhost", "LocalHost.localdomain", "home.test", short, &host] {
            is_at(&settings, domain, "home.test");
        }
        for domain in ["far.test", "[127.0.0.1]"] {
            is_at(&settings, domain, domain);
        }
        settings.server.domains.others.push(short.parse().unwrap());
        is_at(&settings, short, short);
    }

    #[test]
    fn a_domain_with_users_of_its_own_has_others() {
        let mut settings = config::load("/dev/null".as_ref(), "home.test").unwrap();
        settings.server.domains.others.push("club.test".parse().unwrap());
        let router = LocalRouter::new(&settings);
        let is_own = |login: &str, address: &str| {
            Owner::new(&settings, &router, login).owns(&address.parse().unwrap()).unwrap()
        };
        assert!(is_own("root", "root@home.test") && is_own("root@home.test", "root@home.test"));
        assert!(is_own("root@club.test", "root@club.test"));
        assert!(!is_own("root", "root@club.test") && !is_own("root@club.test", "root@home.test"));
        assert!(!is_own("root", "root+x@club.test"));
    }

    const ALIASES: &str = "root: ann\nsales: root\nstaff: ann, bob\ncarl: carl, bob\n\
        far: zoe@far.test\nann+lists: bob\ntagged: bob+x\nscript: |run\nmax-run: |run, max\n\
        max-log: |run\nmax-lee-2: /f\nbroken: :include:/no/such/list\nv: ann@v.test\n";

    /// Asks for each address whether it is the login's.
    fn check(login: &str, expected: &[(&str, bool)]) {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        fs::write(path("users"), "ann\nbob\ncarl\nmax-lee\nmax\n").unwrap();
        fs::write(path("aliases"), ALIASES).unwrap();
        fs::write(path("aliases.v"), "sales: ann\nhost: ann@home.test\n").unwrap();
        let text = format!(
            "[server]\nhostname = mx.test\ndomains = home.test, localhost\n[local]\nusers = {}\naliases = {}\nsubaddress = {}\n\
             [domain.v.test]\nusers = {}\naliases = {}\n",
            path("users"),
            path("aliases"),
            if login.starts_with("max") { "-" } else { "+" },
            path("users"),
            path("aliases.v"),
        );
        fs::write(path("mailwren.ini"), text).unwrap();
        let settings = config::load(path("mailwren.ini").as_ref(), "mx.test").unwrap();
        let router = LocalRouter::new(&settings);
        let owner = Owner::new(&settings, &router, login);
        for (address, is_own) in expected {
            let found = owner.owns(&address.parse().unwrap()).unwrap();
            assert_eq!(found, *is_own, "{login}: {address}");
        }
        assert_eq!(owner.owns(&"script@far.test".parse().unwrap()), Ok(false));
        assert_eq!(owner.owns(&"script@home.test".parse().unwrap()), Ok(false));
        assert!(owner.owns(&"broken@home.test".parse().unwrap()).is_err());
    }

    #[test]
    fn a_user_has_the_name_the_details_and_the_aliases() {
        let own = [
            ("ann@home.test", true),
            ("ANN@Localhost", true),
            ("ann+shop@home.test", true),
            ("root@home.test", true),
            ("postmaster@home.test", true),
            ("sales@home.test", true),
            ("staff@home.test", true),
            ("bob@home.test", false),
            ("bob+ann@home.test", false),
            ("carl@home.test", false),
            // Whose the detail is, is what the mail for it says.
            ("ann+lists@home.test", false),
            ("nobody@home.test", false),
            ("ann@far.test", false),
            ("ann@[127.0.0.1]", false),
            ("annie@home.test", false),
        ];
        check("ann", &own);
        check("Ann", &own);
        check("ann@home.test", &own);
        check("ann@localhost", &own);
        let bobs = [
            ("staff@home.test", true),
            ("carl@home.test", true),
            ("ann+lists@home.test", true),
            ("tagged@home.test", true),
            ("ann+x@home.test", false),
        ];
        check("bob", &bobs);
    }

    #[test]
    fn a_device_without_mailbox_has_its_name() {
        check(
            "printer",
            &[
                ("printer@home.test", true),
                ("printer+2@home.test", true),
                ("printer@far.test", false),
                ("ann@home.test", false),
            ],
        );
    }

    #[test]
    fn somebody_elses_name_is_no_detail() {
        let own =
            [("max@home.test", true), ("max-x@home.test", true), ("max-lee@home.test", false)];
        check("max", &own);
        check("max-lee", &[("max-lee@home.test", true), ("max@home.test", false)]);
    }

    #[test]
    fn a_command_is_nobodys() {
        let own =
            [("max-run@home.test", true), ("max-log@home.test", false), ("max-x@home.test", true)];
        check("max", &own);
    }

    #[test]
    fn a_namesake_in_a_virtual_domain_is_somebody_else() {
        check(
            "ann@v.test",
            &[
                ("Ann@V.test", true),
                ("ann+x@v.test", true),
                ("sales@v.test", true),
                ("v@home.test", true),
                ("host@v.test", false),
                ("bob@v.test", false),
                ("ann@home.test", false),
                ("ann+x@home.test", false),
                ("sales@home.test", false),
            ],
        );
        check(
            "ann",
            &[
                ("ann@v.test", false),
                ("ann+x@v.test", false),
                ("sales@v.test", false),
                ("v@home.test", false),
                ("host@v.test", true),
            ],
        );
    }

    #[test]
    fn a_login_of_elsewhere_has_its_very_address() {
        check(
            "zoe@far.test",
            &[
                ("zoe@FAR.test", true),
                ("Zoe@far.test", true),
                ("zoe+x@far.test", false),
                ("zoe@home.test", false),
                ("zoe@far.test.test", false),
                // An alias leads there.
                ("far@home.test", true),
            ],
        );
    }

    #[test]
    fn a_name_of_one_label_is_completed_only_if_it_is_ours() {
        let settings = config::load("/dev/null".as_ref(), "mx.home.test").unwrap();
        let check = |address: &str| {
            let mailbox = qualified(&settings, address.parse().unwrap());
            mailbox.map(|mailbox| mailbox.to_string()).map_err(|domain| domain.to_string())
        };
        assert_eq!(check("ann@localhost"), Ok("ann@mx.home.test".into()));
        assert_eq!(check("ann@sales"), Err("sales".into()));
        assert_eq!(check("ann@far.test"), Ok("ann@far.test".into()));
        assert_eq!(check("ann@[192.0.2.1]"), Ok("ann@[192.0.2.1]".into()));
    }
}
