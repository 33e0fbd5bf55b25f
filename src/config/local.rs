//! What a file says of people's mail on this host: `[local]`, `[domain.NAME]`, `[rewrite]` and
//! `[digest]`.

use super::ini::Document;
use super::login::yes_no;
use super::mistake::{Mistakes, shown};
use super::reader::Reader;
use super::settings::{
    Digest, Local, MailboxFormat, MboxLock, Rewrite, Server, Users, VirtualDomain,
};
use super::values::list;
use super::{addresses, load, paths};
use crate::mail::address::{DomainName, Mailbox};

/// The longest `[rewrite] name`, in octets.
const MAX_NAME: usize = 200;

/// Reads `[local]`; `origin` completes the name of a catch-all.
pub(super) fn local(section: &mut Reader<'_>, origin: Option<DomainName>) -> Option<Local> {
    let format = section
        .choice("format", &[("mbox", MailboxFormat::Mbox), ("maildir", MailboxFormat::Maildir)]);
    let users = section.value("users", paths::users);
    let path = match (format, &users) {
        (Some(format), Some(users)) => mailbox_path(section, format, users),
        _ => None,
    };
    let aliases = section.value("aliases", paths::optional);
    let subaddress = section.value("subaddress", subaddress);
    let catch_all = match origin {
        Some(origin) => unknown(section, &origin),
        None => None,
    };
    let forward = match &users {
        Some(users) => section.value("forward", |text| paths::forward(text, users)),
        None => None,
    };
    let command_user = section.value("command_user", load::user);
    let command_timeout = section.time("command_timeout");
    let mbox_locks = section.value("mbox_locks", mbox_locks);
    let quota = yes_no(section, "quota");
    let vacation = yes_no(section, "vacation");
    Some(Local {
        format: format?,
        path: path?,
        users: users?,
        aliases: aliases?,
        subaddress: subaddress?,
        catch_all: catch_all?,
        forward: forward?,
        command_user: command_user?,
        command_timeout: command_timeout?,
        mbox_locks: mbox_locks?,
        quota: quota?,
        vacation: vacation?,
    })
}

/// Who takes mail for those who are not known: two keys say the same.
fn unknown(section: &mut Reader<'_>, origin: &DomainName) -> Option<Option<Mailbox>> {
    let catch_all = section.value("catch_all", |text| addresses::catch_all(text, origin));
    let unknown = section.value("unknown", |text| match text {
        "reject" => Ok(None),
        _ => addresses::catch_all(text, origin),
    });
    if let (Some(Some(_)), Some(Some(_))) = (&catch_all, &unknown) {
        section.wrong("unknown", "catch_all says the same; remove one of the two lines");
    }
    Some(catch_all?.or(unknown?))
}

fn mbox_locks(text: &str) -> Result<Vec<MboxLock>, String> {
    const KNOWN: [(&str, MboxLock); 3] =
        [("dotlock", MboxLock::DotLock), ("fcntl", MboxLock::Fcntl), ("flock", MboxLock::Flock)];
    let locks = list(text, |item| match KNOWN.iter().find(|(word, _)| *word == item) {
        Some((_, lock)) => Ok(*lock),
        None => Err(format!("{} is not known; give dotlock, fcntl, flock", shown(item))),
    })?;
    let is_twice = |at: usize| locks[..at].contains(&locks[at]);
    if locks.is_empty() || (0..locks.len()).any(is_twice) {
        return Err("give each of dotlock, fcntl and flock at most once, and at least one".into());
    }
    Ok(locks)
}

fn mailbox_path(section: &mut Reader<'_>, format: MailboxFormat, users: &Users) -> Option<String> {
    if section.is_set("path") {
        return section.value("path", |text| paths::mailbox(text, format, users));
    }
    match paths::mailbox(paths::default_template(format), format, users) {
        Ok(path) => Some(path),
        Err(_) => {
            section.wrong(
                "users",
                "mailboxes in homes, the default of maildir, need `users = system`; add a line \
                 such as `path = /var/mail/{user}`",
            );
            None
        }
    }
}

fn subaddress(text: &str) -> Result<Option<char>, String> {
    let mut chars = text.chars();
    match (chars.next(), chars.next()) {
        (None, _) => Ok(None),
        // These four have a meaning of their own in an address or a path.
        (Some(c), None) if c.is_ascii_punctuation() && !"@/\"\\".contains(c) => Ok(Some(c)),
        _ => {
            let text = shown(text);
            Err(format!("{text} cannot separate; give one character such as + or -, or nothing"))
        }
    }
}

/// Each `[domain.NAME]`, beside `[local]` and the domains of the server.
pub(super) fn domains(
    document: &Document,
    server: Option<&Server>,
    local: Option<&Local>,
    mistakes: &mut Mistakes,
) -> Option<Vec<VirtualDomain>> {
    let mut domains = Some(Vec::new());
    let mut names = Vec::new();
    // Where whose mailboxes are.
    let mut taken: Vec<_> = match (server, local) {
        (Some(server), Some(local)) => {
            let names = server.domains.names.iter();
            names.map(|name| (place(&local.path, name), "[local]".to_owned())).collect()
        }
        _ => Vec::new(),
    };
    for section in &document.sections {
        let Some(name) = section.name.strip_prefix("domain.") else { continue };
        // Another name is a mistake that is known already.
        let Ok(name) = name.parse::<DomainName>() else { continue };
        let mut reader = Reader::new(document, &section.name, mistakes);
        if server.is_some_and(|server| server.domains.names.contains(&name)) {
            reader.wrong_section("is one of [server] domains; take it out of one of the two");
        }
        let domain = domain(&mut reader, name.clone());
        if names.contains(&name) {
            reader.wrong_section("stands there already, spelt otherwise; remove one of the two");
        } else if let Some(domain) = &domain {
            let place = place(&domain.path, &name);
            if let Some((_, whose)) = taken.iter().find(|(other, _)| *other == place) {
                let who = format!("users of {whose} with the same name");
                reader
                    .wrong("path", &format!("{who} would share a mailbox; put {{domain}} into it"));
            }
            taken.push((place, format!("[{}]", section.name)));
        }
        names.push(name);
        domains = domains.zip(domain).map(|(mut domains, domain)| {
            domains.push(domain);
            domains
        });
    }
    domains
}

/// The pattern of a mailbox at one domain: what two domains must not have in common.
fn place(path: &str, domain: &DomainName) -> String {
    let filled = path.replace("{domain}", &domain.to_lowercase());
    filled.split('/').filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/")
}

fn domain(section: &mut Reader<'_>, name: DomainName) -> Option<VirtualDomain> {
    let users = section.value("users", paths::optional);
    let aliases = section.value("aliases", paths::optional);
    let path = section.value("path", |text| match text {
        "" => Ok("/var/mail/{domain}/{user}".to_owned()),
        _ => paths::mailbox(text, MailboxFormat::Maildir, &Users::Any),
    });
    let catch_all = section.value("catch_all", |text| addresses::catch_all(text, &name));
    Some(VirtualDomain {
        users: users?,
        aliases: aliases?,
        path: path?,
        catch_all: catch_all?,
        name,
    })
}

/// Reads `[rewrite]`.
pub(super) fn rewrite(section: &mut Reader<'_>) -> Option<Rewrite> {
    let sender = section.value("sender", |text| match text {
        "" => Ok(None),
        _ => text.parse().map(Some).map_err(|error| {
            format!("{} is no address: {error}; give one such as ann@example.com", shown(text))
        }),
    });
    let masquerade = section.value("masquerade", |text| match text {
        "" => Ok(None),
        _ => addresses::domain_name(text).map(Some),
    });
    let map = section.value("map", paths::optional);
    let name = section.value("name", display_name);
    Some(Rewrite { sender: sender?, masquerade: masquerade?, map: map?, name: name? })
}

fn display_name(text: &str) -> Result<String, String> {
    let rest = ["{user}", "{host}", "{name}"]
        .iter()
        .fold(text.to_owned(), |rest, known| rest.replace(known, ""));
    if rest.contains(['{', '}']) {
        return Err(format!(
            "{} has something else in braces than {{user}}, {{host}} and {{name}}",
            shown(text)
        ));
    }
    if text.len() > MAX_NAME || text.chars().any(char::is_control) {
        return Err(format!("give at most {MAX_NAME} octets, none of them a control character"));
    }
    Ok(text.to_owned())
}

/// Reads `[digest]`.
pub(super) fn digest(section: &mut Reader<'_>) -> Option<Digest> {
    let (burst, window) = (section.count("burst"), section.time("window"));
    Some(Digest { burst: burst?, window: window? })
}
