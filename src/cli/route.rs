//! `mailwren route ADDRESS...`: where mail to each address would go, step by step.

use lexopt::Arg;

use super::Invocation;
use super::output::{say, warn};
use crate::config::settings::{Login, Settings};
use crate::deliver::encryption;
use crate::deliver::place::Place;
use crate::mail::address::Mailbox;
use crate::mail::address_list;
use crate::route::addressee::{Addressee, Way};
use crate::route::local::{LocalRouter, Resolution};
use crate::route::next_hop;
use crate::route::next_hop::NextHop;
use crate::route::users::User;
use crate::sys::process::exit;

/// Aliases followed for one address.
const MAX_STEPS: usize = 100;

/// Explains each address; 67 when one of them is unknown.
pub(super) fn run(invocation: &mut Invocation) -> Result<u8, lexopt::Error> {
    let mut addresses = Vec::new();
    while let Some(argument) = invocation.next_argument()? {
        match argument {
            Arg::Value(value) => addresses.push(value.to_string_lossy().into_owned()),
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
    let mut code = exit::OK;
    for address in addresses {
        match address_list::complete(&address, settings.server.domains.origin()) {
            Ok(mailbox) => code = code.max(explain(&settings, &router, mailbox)),
            Err(error) => {
                warn(format_args!("{address}: {error}"));
                code = exit::DATAERR;
            }
        }
    }
    Ok(code)
}

/// Prints a line for each step of `first` and all that it is expanded into.
fn explain(settings: &Settings, router: &LocalRouter, first: Mailbox) -> u8 {
    let mut code = exit::OK;
    let mut steps = vec![Addressee::from(first)];
    let mut at = 0;
    while let Some(Addressee { mailbox, way }) = steps.get(at).filter(|_| at < MAX_STEPS).cloned() {
        at += 1;
        let next_hop = next_hop(settings, &mailbox, &way);
        let relayed_to = |whom: &str| {
            say(format_args!("{mailbox}: relayed to {whom}, {}", encryption::in_words(&next_hop)));
        };
        let found = match &next_hop {
            NextHop::Local | NextHop::Command if way != Way::Routed => {
                code = code.max(explain_way(settings, router, &mailbox, &way));
                continue;
            }
            NextHop::Local | NextHop::Command => router.resolve(&mailbox),
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
            Resolution::Mailbox(user) => say_mailbox(router, &mailbox, &user),
            Resolution::Expanded(expansion) => {
                let into = list(&expansion.into);
                let place = alias_place(router, &mailbox);
                let owner = expansion.owner.map(|owner| format!(", failures are for {owner}"));
                let owner = owner.unwrap_or_default();
                say(format_args!("{mailbox}: an alias for {into} ({place}){owner}"));
                for to in expansion.into {
                    if !steps.contains(&to) {
                        steps.push(to);
                    }
                }
            }
            Resolution::Unknown => {
                say(format_args!("{mailbox}: unknown, refused with 550"));
                code = exit::NOUSER;
            }
            Resolution::Failed(failure) => {
                say(format_args!("{mailbox}: {} {}", failure.status, failure.text));
                code = exit::TEMPFAIL;
            }
        }
    }
    code
}

/// Prints where an addressee gets its mail that is no address.
fn explain_way(settings: &Settings, router: &LocalRouter, mailbox: &Mailbox, way: &Way) -> u8 {
    let account = &settings.local.command_user;
    match way {
        Way::Command(command) => {
            say(format_args!("{mailbox}: the command {:?}, run as {account}", command.as_str()));
        }
        Way::File(path) => {
            say(format_args!("{mailbox}: the file {:?}, written as {account}", path.as_str()));
        }
        Way::Routed | Way::Mailbox => match router.user(mailbox) {
            Ok(Some(user)) => say_mailbox(router, mailbox, &user),
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
fn say_mailbox(router: &LocalRouter, mailbox: &Mailbox, user: &User) {
    let domain = mailbox.domain();
    let whose = match router.is_virtual(domain) {
        true => format!("{}, a user of {domain}", user.name),
        false => user.name.to_string(),
    };
    match Place::of(router.mailbox_path(domain), user, domain) {
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
