//! `[rewrite]`: what becomes of the addresses of this host in mail that leaves it.
//!
//! The first that applies counts, and once: a line of the map, which may name any address; then,
//! for authors, the one address of `sender`; then the domain of `masquerade`; then a full domain
//! for a name that has none. All but the map is for addresses of this host only: those at a domain
//! of `[server] domains`, at a name that it has for itself, or at one of one label such as
//! `raspberrypi`, which nobody elsewhere could answer (RFC 6409 §8.8 warns of rules for more than
//! that). The domains with users of their own are not among them: their addresses are good
//! everywhere.
//!
//! What strangers wrote is never touched: to say that it is from here would be a lie.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::config::settings::{LocalDomains, Rewrite, Settings};
use crate::deliver::outcome::Failure;
use crate::mail::address::{Domain, DomainName, Mailbox, ReversePath};
use crate::mail::display_name::Template;
use crate::mail::rewriting::{Change, NewAuthor, Renaming};
use crate::mail::status::Status;
use crate::mail::text::{MAX_REMARK, one_line};
use crate::sys::process;
use crate::sys::watched::WatchedFile;

pub mod map;

use self::map::{AddressMap, MapError};

/// The map is wrong or away (RFC 3463: system incorrectly configured); mail waits until it is
/// mended.
const MAP_WRONG: Status = Status::new(4, 3, 5);

/// A version of the map. A broken one stands here only when none before it was good.
type Version = Result<AddressMap, MapError>;

/// Knows `[rewrite]`.
#[derive(Debug)]
pub struct Rewriter {
    rewrite: Rewrite,
    hostname: DomainName,
    /// What programs put behind the `@` that know of no configuration.
    own_names: Vec<DomainName>,
    domains: LocalDomains,
    networks: Vec<IpNet>,
    map: Option<WatchedFile<Version>>,
}

impl Rewriter {
    /// Rewrites as the settings say; `None` where they say nothing.
    pub fn new(settings: &Settings) -> Option<Self> {
        let rewrite = settings.rewrite.clone();
        let map = rewrite.map.clone().map(|path| WatchedFile::new(path, map::MAX_OCTETS));
        let is_of_use = rewrite.sender.is_some() || rewrite.masquerade.is_some() || map.is_some();
        is_of_use.then(|| Self {
            rewrite,
            hostname: settings.server.hostname.clone(),
            own_names: process::own_names(),
            domains: settings.server.domains.clone(),
            networks: settings.relay_networks.clone(),
            map,
        })
    }

    /// The rules as they are now. It takes a `stat` of the map.
    ///
    /// # Errors
    /// When there is no good version of the map; mail has to wait.
    pub fn rules(&self) -> Result<Rules<'_>, Failure> {
        let Some(file) = &self.map else { return Ok(Rules { rewriter: self, map: None }) };
        let path = file.path().display();
        let wrong = |text: String| Failure::new(MAP_WRONG, one_line(&text, MAX_REMARK));
        let map = file
            .load(|octets, before| read_version(&path, octets, before))
            .map_err(|error| wrong(format!("the [rewrite] map {path} cannot be read: {error}")))?;
        match &*map {
            Ok(_) => Ok(Rules { rewriter: self, map: Some(map) }),
            Err(error) => {
                let place = format!("{path}:{}", error.line);
                Err(wrong(format!("the [rewrite] map is wrong: {place}: {}", error.text)))
            }
        }
    }

    /// Whether a message from `client`, as the envelope says it, was written here: by an account of
    /// this host, by somebody who logged in or comes from a network that may relay, or by the
    /// server itself.
    pub fn is_ours(&self, client: &str) -> bool {
        let has_logged_in = client.contains(" as ");
        let is_stranger =
            |address: IpAddr| !self.networks.iter().any(|network| network.contains(&address));
        has_logged_in || !client.parse().is_ok_and(is_stranger)
    }

    fn is_local(&self, mailbox: &Mailbox) -> bool {
        mailbox.domain().name().is_some_and(|name| {
            !self.domains.others.contains(name)
                && (is_one_label(name) || self.is_own_name(name) || self.is_listed(name))
        })
    }

    fn is_own_name(&self, name: &DomainName) -> bool {
        *name == self.hostname || self.own_names.contains(name)
    }

    fn is_listed(&self, name: &DomainName) -> bool {
        self.domains.has(name)
    }

    /// What a local address becomes that neither the map nor `sender` knows.
    fn with_good_domain(&self, mailbox: &Mailbox) -> Option<Mailbox> {
        let name = mailbox.domain().name()?;
        let new = match &self.rewrite.masquerade {
            Some(domain) => domain,
            None if is_one_label(name) && self.is_listed(name) => self.domains.origin(),
            None => return None,
        };
        Some(Mailbox::new(mailbox.local_part().clone(), Domain::Name(new.clone())))
    }
}

fn is_one_label(name: &DomainName) -> bool {
    !name.as_str().contains('.')
}

/// Reads a new version of the map; where it is broken, the good one before it stays.
fn read_version(
    path: &std::path::Display<'_>,
    octets: &[u8],
    before: Option<Arc<Version>>,
) -> Arc<Version> {
    let version = AddressMap::parse(octets);
    let Err(error) = &version else { return Arc::new(version) };
    let kept = before.filter(|before| before.is_ok());
    let remark = if kept.is_some() { "the map before the change stays" } else { "mail waits" };
    log::error!("{path}:{}: {}; {remark}", error.line, one_line(&error.text, MAX_REMARK));
    kept.unwrap_or_else(|| Arc::new(version))
}

/// What `[rewrite]` and one version of its map say.
#[derive(Clone, Debug)]
pub struct Rules<'a> {
    rewriter: &'a Rewriter,
    map: Option<Arc<Version>>,
}

impl Rules<'_> {
    /// The sender of an envelope as it goes out. Reports go there, so the provider's come to the
    /// new address.
    pub fn reverse_path(&self, reverse_path: &ReversePath) -> ReversePath {
        let new = reverse_path.mailbox().and_then(|mailbox| self.author(mailbox));
        new.map_or_else(|| reverse_path.clone(), |new| ReversePath::Mailbox(new.mailbox))
    }

    /// What the map says; also that an address stays.
    fn mapped(&self, mailbox: &Mailbox) -> Option<Mailbox> {
        let map = self.map.as_ref()?.as_ref().as_ref().ok()?;
        map.find(mailbox, self.rewriter.is_local(mailbox))
    }
}

impl Renaming for Rules<'_> {
    fn origin(&self) -> &DomainName {
        self.rewriter.domains.origin()
    }

    fn author(&self, mailbox: &Mailbox) -> Option<NewAuthor> {
        let rewriter = self.rewriter;
        let with = |change| move |mailbox| NewAuthor { mailbox, change };
        let by_rule = || {
            if !rewriter.is_local(mailbox) {
                return None;
            }
            let sender = rewriter.rewrite.sender.clone().map(with(Change::OneForAll));
            sender.or_else(|| rewriter.with_good_domain(mailbox).map(with(Change::Domain)))
        };
        let mapped = self.mapped(mailbox).map(with(Change::Address));
        mapped.or_else(by_rule).filter(|new| new.mailbox != *mailbox)
    }

    fn recipient(&self, mailbox: &Mailbox) -> Option<Mailbox> {
        let by_rule = || {
            let is_local = self.rewriter.is_local(mailbox);
            is_local.then(|| self.rewriter.with_good_domain(mailbox)).flatten()
        };
        self.mapped(mailbox).or_else(by_rule).filter(|new| new != mailbox)
    }

    fn template(&self) -> Template<'_> {
        let Rewriter { rewrite, hostname, .. } = self.rewriter;
        Template { text: &rewrite.name, host: hostname.as_str() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use std::fs;

    fn settings(rewrite: &str) -> Settings {
        let text = format!(
            "[server]\nhostname = pi.home.test\ndomains = home.test, localhost\n\
             [relay]\nnetworks = 192.0.2.0/24\n[domain.far.test]\n[domain.one]\n[rewrite]\n{rewrite}\n"
        );
        config::parse("m.ini", text.as_bytes(), "pi.home.test").unwrap()
    }

    fn rewriter(rewrite: &str) -> Rewriter {
        Rewriter::new(&settings(rewrite)).unwrap()
    }

    /// What an author and a recipient of this address become.
    fn both(rules: &Rules<'_>, address: &str) -> [String; 2] {
        let mailbox: Mailbox = address.parse().unwrap();
        let author = rules.author(&mailbox).map(|new| new.mailbox);
        [author, rules.recipient(&mailbox)].map(|new| new.map_or("-".into(), |new| new.to_string()))
    }

    #[test]
    fn the_first_that_applies_counts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("map");
        fs::write(&path, "ann ann@isp.test\nbob@home.test bob@home.test\nzoe@x.test z@x.test\n")
            .unwrap();
        let map = format!("map = {}\n", path.display());
        let (sender, masquerade) = ("sender = me@isp.test\n", "masquerade = out.test\n");
        for (settings, address, expected) in [
            (sender.to_owned(), "root@home.test", ["me@isp.test", "-"]),
            (sender.to_owned(), "root@HOME.test", ["me@isp.test", "-"]),
            (sender.to_owned(), "root@pi.home.test", ["me@isp.test", "-"]),
            (sender.to_owned(), "root@raspberrypi", ["me@isp.test", "-"]),
            (sender.to_owned(), "root@localhost", ["me@isp.test", "root@home.test"]),
            (sender.to_owned(), "root@localhost.localdomain", ["me@isp.test", "-"]),
            (sender.to_owned(), "me@isp.test", ["-", "-"]),
            (sender.to_owned(), "root@nas.home.test", ["-", "-"]),
            (sender.to_owned(), "ann@far.test", ["-", "-"]),
            (sender.to_owned(), "ann@one", ["-", "-"]),
            (sender.to_owned(), "root@[192.0.2.1]", ["-", "-"]),
            (masquerade.to_owned(), "root@pi.home.test", ["root@out.test", "root@out.test"]),
            (masquerade.to_owned(), "root@out.test", ["-", "-"]),
            (masquerade.to_owned(), "ann@far.test", ["-", "-"]),
            (format!("{sender}{masquerade}"), "root@pi", ["me@isp.test", "root@out.test"]),
            (format!("{sender}{map}"), "ann@pi", ["ann@isp.test", "ann@isp.test"]),
            (format!("{sender}{map}"), "bob@home.test", ["-", "-"]),
            (format!("{sender}{map}"), "bob@pi", ["me@isp.test", "-"]),
            (format!("{sender}{map}"), "zoe@x.test", ["z@x.test", "z@x.test"]),
            (format!("{masquerade}{map}"), "carl@pi", ["carl@out.test", "carl@out.test"]),
            (map.clone(), "ann@far.test", ["-", "-"]),
            (map.clone(), "carl@localhost", ["carl@home.test", "carl@home.test"]),
        ] {
            let rewriter = rewriter(&settings);
            let found = both(&rewriter.rules().unwrap(), address);
            assert_eq!(found, expected, "{settings} {address}");
        }
        assert!(Rewriter::new(&settings("name = {user}")).is_none());
    }

    #[test]
    fn nobody_stays_nobody() {
        let rewriter = rewriter("sender = me@isp.test");
        let rules = rewriter.rules().unwrap();
        for (old, new) in
            [("<>", "<>"), ("<root@pi>", "<me@isp.test>"), ("<zoe@x.test>", "<zoe@x.test>")]
        {
            assert_eq!(rules.reverse_path(&old.parse().unwrap()).to_string(), new);
        }
    }

    #[test]
    fn strangers_are_known_by_their_address() {
        let rewriter = rewriter("sender = me@isp.test");
        for (client, is_ours) in [
            ("uid 0", true),
            ("local", true),
            ("local, for the postmaster", true),
            ("192.0.2.7", true),
            ("198.51.100.7", false),
            ("198.51.100.7 as ann", true),
            ("2001:db8::1", false),
        ] {
            assert_eq!(rewriter.is_ours(client), is_ours, "{client}");
        }
    }

    #[test]
    fn a_broken_map_changes_nothing_and_without_one_before_mail_waits() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("map");
        let rewriter = rewriter(&format!("map = {}", path.display()));
        let status = || rewriter.rules().map(drop).map_err(|failure| failure.status);
        let failure = rewriter.rules().unwrap_err();
        assert!(failure.text.contains("cannot be read"), "{}", failure.text);
        fs::write(&path, "root me@isp.test\nann\n").unwrap();
        let failure = rewriter.rules().unwrap_err();
        assert_eq!(failure.status, MAP_WRONG);
        assert!(failure.text.contains("map:2: give two addresses"), "{}", failure.text);
        fs::write(&path, "root me@isp.test\n").unwrap();
        assert_eq!(both(&rewriter.rules().unwrap(), "root@pi")[0], "me@isp.test");
        fs::write(&path, "root you@isp.test\nbroken again\n").unwrap();
        assert_eq!(both(&rewriter.rules().unwrap(), "root@pi")[0], "me@isp.test");
        fs::write(&path, "root you@isp.test\n").unwrap();
        assert_eq!(both(&rewriter.rules().unwrap(), "root@pi")[0], "you@isp.test");
        fs::remove_file(&path).unwrap();
        assert_eq!(status(), Err(MAP_WRONG));
    }
}
