//! Whose an address is: what `[auth] sender = own` asks about MAIL FROM and about the From and
//! Sender fields of those who logged in (RFC 6409 §6.1 and §6.3), and an automatic reply about those
//! whom a message names (RFC 3834 §2).
//!
//! An address is a user's when the domain is one of ours and the local part is the name that was
//! logged in with, or it reaches the user's mailbox: with a detail, or by an alias, be it one of
//! several whom the alias names. A user whose name is a full address has that address.

use crate::config::settings::Settings;
use crate::deliver::outcome::Failure;
use crate::mail::address::{Domain, LocalPart, Mailbox};
use crate::route::local::{LocalRouter, Resolution};
use crate::route::users::split_detail;

/// A user, and what is the user's own.
#[derive(Debug)]
pub struct Owner<'a> {
    settings: &'a Settings,
    router: &'a LocalRouter,
    /// The name as it was logged in with, without a domain of ours.
    name: &'a str,
    /// The same where it has another domain.
    address: Option<Mailbox>,
}

impl<'a> Owner<'a> {
    /// The user who logged in as `login`: `ann`, or `ann@example.org`.
    pub fn new(settings: &'a Settings, router: &'a LocalRouter, login: &'a str) -> Self {
        let address = login.parse::<Mailbox>().ok();
        let is_ours = |mailbox: &Mailbox| settings.server.domains.contains(mailbox.domain());
        // All of our domains have the same users, so it is one of them without its domain.
        let name = match (&address, login.rsplit_once('@')) {
            (Some(mailbox), Some((name, _))) if is_ours(mailbox) => name,
            _ => login,
        };
        let address = address.filter(|mailbox| !is_ours(mailbox));
        Self { settings, router, name, address }
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
            Resolution::Mailbox(user) => self.is_name(user.name.as_str()),
            Resolution::Expanded(expansion) => {
                expansion.into.iter().any(|to| self.is_reached(&to.mailbox))
            }
            // Who can log in need not have a mailbox.
            Resolution::Unknown => self.is_base_of(mailbox.local_part()),
            Resolution::Failed(failure) => return Err(failure),
        })
    }

    /// Whether it is the very name or address.
    fn is_same(&self, mailbox: &Mailbox) -> bool {
        let local_part = mailbox.local_part().as_str();
        match &self.address {
            Some(own) => {
                own.domain() == mailbox.domain()
                    && own.local_part().as_str().eq_ignore_ascii_case(local_part)
            }
            None => {
                self.settings.server.domains.contains(mailbox.domain()) && self.is_name(local_part)
            }
        }
    }

    /// Whether what an alias gave, which is no alias itself, is the user.
    fn is_reached(&self, mailbox: &Mailbox) -> bool {
        let is_ours = self.settings.server.domains.contains(mailbox.domain());
        self.is_same(mailbox) || is_ours && self.is_base_of(mailbox.local_part())
    }

    fn is_base_of(&self, local_part: &LocalPart) -> bool {
        let separator = self.settings.local.subaddress;
        let base = split_detail(local_part.as_str(), separator).map(|(base, _)| base);
        self.address.is_none() && base.is_some_and(|base| self.is_name(base))
    }

    fn is_name(&self, name: &str) -> bool {
        self.address.is_none() && self.name.eq_ignore_ascii_case(name)
    }
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

    const ALIASES: &str = "root: ann\nsales: root\nstaff: ann, bob\ncarl: carl, bob\n\
        far: zoe@far.test\nann+lists: bob\ntagged: bob+x\nscript: |run\nbroken: |run\n";

    /// Asks for each address whether it is the login's.
    fn check(login: &str, expected: &[(&str, bool)]) {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        fs::write(path("users"), "ann\nbob\ncarl\nmax-lee\nmax\n").unwrap();
        fs::write(path("aliases"), ALIASES).unwrap();
        let text = format!(
            "[server]\nhostname = mx.test\ndomains = home.test, localhost\n[local]\nusers = {}\naliases = {}\nsubaddress = {}\n",
            path("users"),
            path("aliases"),
            if login.starts_with("max") { "-" } else { "+" },
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
        assert!(owner.owns(&"script@home.test".parse().unwrap()).is_err());
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
