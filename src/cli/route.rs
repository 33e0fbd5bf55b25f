//! `mailwren route ADDRESS...`: where mail to each address would go, step by step.

use super::Ran;
use super::invocation::{Argument, Invocation};
use super::output::{say, warn};
use crate::config::settings::{Login, Rewrite, Settings};
use crate::deliver::encryption;
use crate::deliver::place::Place;
use crate::deliver::subaddress::MailboxPath;
use crate::mail::address::Mailbox;
use crate::mail::address_list;
use crate::route::addressee::{Addressee, Way};
use crate::route::forward::{Forwards, Unheard};
use crate::route::local::{LocalRouter, Resolution};
use crate::route::next_hop;
use crate::route::next_hop::NextHop;
use crate::route::users::User;
use crate::sys::process::exit;

/// Aliases followed for one address.
const MAX_STEPS: usize = 100;

/// One of those whom a message would go to.
#[derive(Clone)]
struct Step {
    to: Addressee,
    /// Who runs it or writes it, if it is a command or a file.
    account: String,
}

/// Explains each address; 67 when one of them is unknown.
pub(super) fn run(invocation: &mut Invocation) -> Ran {
    let mut addresses = Vec::new();
    while let Some(argument) = invocation.next_argument()? {
        match argument {
            Argument::Operand(value) => addresses.push(value.to_string_lossy().into_owned()),
            other => return Err(other.unexpected()),
        }
    }
    if addresses.is_empty() {
        return Err("name at least one address".into());
    }
    let settings = match invocation.settings() {
        Ok(settings) => settings,
        Err(code) => return Ok(code),
    };
    let router = LocalRouter::new(&settings);
    let forwards = Forwards::new(&settings);
    let mut code = exit::OK;
    for address in addresses {
        match address_list::complete(&address, settings.server.domains.origin()) {
            Ok(mailbox) => code = code.max(explain(&settings, &router, &forwards, mailbox)),
            Err(error) => {
                warn(format_args!("{address}: {error}"));
                code = exit::DATAERR;
            }
        }
    }
    Ok(code)
}

/// Prints a line for each step of `first` and all that it is expanded into.
fn explain(settings: &Settings, router: &LocalRouter, forwards: &Forwards, first: Mailbox) -> u8 {
    let mut code = exit::OK;
    let mut steps = Vec::new();
    add(&mut steps, vec![first.into()], &settings.local.command_user);
    let mut at = 0;
    while let Some(step) = steps.get(at).filter(|_| at < MAX_STEPS).cloned() {
        at += 1;
        let Addressee { mailbox, way } = &step.to;
        let next_hop = next_hop(settings, mailbox, way);
        let relayed_to = |whom: &str| {
            say(format_args!("{mailbox}: relayed to {whom}, {}", encryption::in_words(&next_hop)));
            if let Some(rules) = rewriting(&settings.rewrite) {
                say(format_args!("{mailbox}: from this host, {rules}"));
            }
        };
        let found = match &next_hop {
            NextHop::Local if *way == Way::User => router.resolve_user(mailbox),
            NextHop::Local | NextHop::Command if *way != Way::Routed => {
                code = code.max(explain_way(settings, router, &step));
                continue;
            }
            NextHop::Local | NextHop::Command => router.resolve(mailbox),
            NextHop::Smarthost(smarthost) => {
                let hosts: Vec<_> = smarthost.hosts.iter().map(ToString::to_string).collect();
                let hosts = hosts.join(", then ");
                let login = smarthost.login.as_ref().map(login).unwrap_or_default();
                relayed_to(&format!("the smarthost {hosts}{login}"));
                continue;
            }
            NextHop::Mx(domain) => {
                relayed_to(&format!("the mail exchangers of {domain}"));
                continue;
            }
        };
        match found {
            Resolution::Mailbox(user) => match forwards.expansion(&user, mailbox, router) {
                Ok(None) => say_mailbox(settings, router, mailbox, &user),
                Ok(Some(expansion)) => {
                    let into = expansion.into;
                    say(format_args!("{mailbox}: forwarded by {} to {}", user.name, list(&into)));
                    let account = match user.name.as_str() {
                        "root" => &settings.local.command_user,
                        name => name,
                    };
                    add(&mut steps, into, account);
                }
                Err(Unheard::Refused(what)) => {
                    say_mailbox(settings, router, mailbox, &user);
                    say(format_args!("{mailbox}: {what}"));
                }
                // Who asks may not be somebody who can see it.
                Err(Unheard::Away(_)) if !rustix::process::geteuid().is_root() => {
                    let name = &user.name;
                    say_mailbox(settings, router, mailbox, &user);
                    say(format_args!(
                        "{mailbox}: unless a .forward of {name} says else: ask as root"
                    ));
                }
                Err(Unheard::Away(failure)) => {
                    say(format_args!("{mailbox}: {} {}", failure.status, failure.text));
                    code = code.max(exit::TEMPFAIL);
                }
            },
            Resolution::Expanded(expansion) => {
                let into = list(&expansion.into);
                let place = alias_place(router, mailbox);
                let owner = expansion.owner.map(|owner| format!(", failures are for {owner}"));
                let owner = owner.unwrap_or_default();
                say(format_args!("{mailbox}: an alias for {into} ({place}){owner}"));
                add(&mut steps, expansion.into, &settings.local.command_user);
            }
            Resolution::Unknown => {
                say(format_args!("{mailbox}: unknown, refused with 550"));
                code = code.max(exit::NOUSER);
            }
            Resolution::Failed(failure) => {
                say(format_args!("{mailbox}: {} {}", failure.status, failure.text));
                let is_permanent = failure.status.is_permanent();
                code = code.max(if is_permanent { exit::UNAVAILABLE } else { exit::TEMPFAIL });
            }
        }
    }
    code
}

/// Adds those who are not there yet. What they name besides addresses is done as `account`.
fn add(steps: &mut Vec<Step>, into: Vec<Addressee>, account: &str) {
    for to in into {
        if !steps.iter().any(|step| step.to == to) {
            steps.push(Step { to, account: account.to_owned() });
        }
    }
}

/// What becomes of the senders of this host, in the order in which it is looked at.
fn rewriting(rewrite: &Rewrite) -> Option<String> {
    let Rewrite { sender, masquerade, map, .. } = rewrite;
    let mut rules = Vec::new();
    if let Some(map) = map {
        rules.push(format!("senders as {} says", map.display()));
    }
    match (sender, masquerade) {
        (Some(sender), _) => rules.push(format!("every sender as {sender}")),
        (None, Some(domain)) => rules.push(format!("every sender at {domain}")),
        (None, None) => {}
    }
    (!rules.is_empty()).then(|| format!("{} ([rewrite])", rules.join(", else ")))
}

/// Prints where an addressee gets its mail that is no address.
fn explain_way(settings: &Settings, router: &LocalRouter, step: &Step) -> u8 {
    let Step { to: Addressee { mailbox, way }, account } = step;
    match way {
        Way::Command(command) => {
            say(format_args!("{mailbox}: the command {:?}, run as {account}", command.as_str()));
        }
        Way::File(path) => {
            say(format_args!("{mailbox}: the file {:?}, written as {account}", path.as_str()));
        }
        Way::Routed | Way::User | Way::Mailbox => match router.user(mailbox) {
            Ok(Some(user)) => say_mailbox(settings, router, mailbox, &user),
            Ok(None) => {
                say(format_args!("{mailbox}: there is no such user, reported with 5.1.1"));
                return exit::NOUSER;
            }
            Err(failure) => {
                say(format_args!("{mailbox}: {} {}", failure.status, failure.text));
                return exit::TEMPFAIL;
            }
        },
    }
    exit::OK
}

/// Prints where the mailbox of a user is.
fn say_mailbox(settings: &Settings, router: &LocalRouter, mailbox: &Mailbox, user: &User) {
    let domain = mailbox.domain();
    let whose = match router.is_virtual(domain) {
        true => format!("{}, a user of {domain}", user.name),
        false => user.name.to_string(),
    };
    let path = MailboxPath::new(router.mailbox_path(domain), settings.local.format);
    match Place::of(&path.mailbox, user, domain) {
        Ok(place) => {
            say(format_args!("{mailbox}: the mailbox of {whose}, {}", place.path().display()));
        }
        Err(failure) => say(format_args!("{mailbox}: {} {}", failure.status, failure.text)),
    }
}

/// What makes an address stand for others: a line of an alias file, or who takes mail for those who
/// are not known.
fn alias_place(router: &LocalRouter, mailbox: &Mailbox) -> String {
    match router.spot_of(mailbox) {
        Ok(Some(spot)) => spot.to_string(),
        Ok(None) if mailbox.local_part().as_str().eq_ignore_ascii_case("postmaster") => {
            "the postmaster of this host".to_owned()
        }
        Ok(None) => "catch_all, since there is no such user".to_owned(),
        Err(failure) => failure.text,
    }
}

/// Who logs in and how; never the secret.
fn login(login: &Login) -> String {
    let mechanisms: Vec<_> = login.mechanisms.iter().map(|it| it.name()).collect();
    format!(", logged in as {:?} by {}", login.user, mechanisms.join(", "))
}

fn list(into: &[Addressee]) -> String {
    into.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
