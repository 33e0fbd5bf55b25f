//! `mailwren route ADDRESS...`: where mail to each address would go, step by step.

use lexopt::Arg;

use super::Invocation;
use super::output::{say, warn};
use crate::config::settings::{Login, Rewrite, Settings};
use crate::deliver::encryption;
use crate::mail::address::Mailbox;
use crate::mail::address_list;
use crate::route::addressee::{Addressee, Way};
use crate::route::forward::{Forwards, Unheard};
use crate::route::local::{LocalRouter, Resolution};
use crate::route::next_hop;
use crate::route::next_hop::NextHop;
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
    let mut steps = vec![Addressee::from(first)];
    let mut at = 0;
    while let Some(Addressee { mailbox, way }) = steps.get(at).filter(|_| at < MAX_STEPS).cloned() {
        at += 1;
        let next_hop = next_hop(settings, &mailbox, &way);
        let relayed_to = |whom: &str| {
            say(format_args!("{mailbox}: relayed to {whom}, {}", encryption::in_words(&next_hop)));
            if let Some(rules) = rewriting(&settings.rewrite) {
                say(format_args!("{mailbox}: from this host, {rules}"));
            }
        };
        let found = match &next_hop {
            NextHop::Local | NextHop::Command if way != Way::Routed => continue,
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
            Resolution::Mailbox(user) => match forwards.expansion(&user, &mailbox, router) {
                Ok(None) => say(format_args!("{mailbox}: the mailbox of {}", user.name)),
                Ok(Some(expansion)) => {
                    let into = expansion.into;
                    say(format_args!("{mailbox}: forwarded by {} to {}", user.name, list(&into)));
                    add(&mut steps, into);
                }
                Err(Unheard::Refused(what)) => {
                    say(format_args!("{mailbox}: the mailbox of {}; {what}", user.name));
                }
                // Who asks may not be somebody who can see it.
                Err(Unheard::Away(_)) if !rustix::process::geteuid().is_root() => {
                    let name = &user.name;
                    let unless = format!("unless a .forward of {name} says else: ask as root");
                    say(format_args!("{mailbox}: the mailbox of {name}, {unless}"));
                }
                Err(Unheard::Away(failure)) => {
                    say(format_args!("{mailbox}: {} {}", failure.status, failure.text));
                    code = exit::TEMPFAIL;
                }
            },
            Resolution::Expanded(expansion) => {
                say(format_args!("{mailbox}: an alias for {}", list(&expansion.into)));
                add(&mut steps, expansion.into);
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

fn add(steps: &mut Vec<Addressee>, into: Vec<Addressee>) {
    for to in into {
        if !steps.contains(&to) {
            steps.push(to);
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

/// Who logs in and how; never the secret.
fn login(login: &Login) -> String {
    let mechanisms: Vec<_> = login.mechanisms.iter().map(|it| it.name()).collect();
    format!(", logged in as {:?} by {}", login.user, mechanisms.join(", "))
}

fn list(into: &[Addressee]) -> String {
    into.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
