//! `mailwren route ADDRESS...`: where mail to each address would go, step by step.

use super::Ran;
use super::invocation::{Argument, Invocation};
use super::output::{say, warn};
use crate::config::settings::{Login, Rewrite, Settings};
use crate::deliver::encryption;
use crate::deliver::outcome::Failure;
use crate::deliver::place::Place;
use crate::deliver::subaddress::MailboxPath;
use crate::mail::address::Mailbox;
use crate::mail::address_list;
use crate::route::addressee::{Addressee, Way};
use crate::route::forward::{Forwards, Unheard};
use crate::route::local::{LocalRouter, Resolution};
use crate::route::next_hop;
use crate::route::next_hop::NextHop;
use crate::route::owner::at_origin;
use crate::route::users::User;
use crate::sys::process::exit;

/// Aliases followed for one address.
const MAX_STEPS: usize = 100;

/// What shows the way of a message.
struct Trace<'a> {
    settings: &'a Settings,
    router: &'a LocalRouter,
    forwards: &'a Forwards,
}

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
            Ok(mailbox) => {
                let trace = Trace { settings: &settings, router: &router, forwards: &forwards };
                code = code.max(trace.explain(mailbox));
            }
            Err(error) => {
                warn(format_args!("{address}: {error}"));
                code = exit::DATAERR;
            }
        }
    }
    Ok(code)
}

impl Trace<'_> {
    /// Prints a line for each step of `first` and all that it is expanded into.
    fn explain(&self, first: Mailbox) -> u8 {
        let mut code = exit::OK;
        let mut steps = Vec::new();
        let (mut begin, local) = (vec![first.clone().into()], self.at_origin(&first));
        if let Some(local) = local {
            say_both(&first, &local);
            begin.push(local.into());
        }
        add(&mut steps, begin, &self.settings.local.command_user);
        let mut at = 0;
        while let Some(step) = steps.get(at).filter(|_| at < MAX_STEPS).cloned() {
            at += 1;
            code = code.max(self.explain_step(&step, &mut steps));
        }
        code
    }

    /// What an address means to `sendmail` alone: a name that the host has for itself stands for the
    /// origin there, also where no domain of ours has it.
    fn at_origin(&self, mailbox: &Mailbox) -> Option<Mailbox> {
        let is_ours = self.settings.server.domains.contains(mailbox.domain());
        let local = at_origin(self.settings, mailbox.clone());
        (!is_ours && local != *mailbox).then_some(local)
    }

    /// Prints where this one gets the mail, or adds those who get it instead.
    fn explain_step(&self, step: &Step, steps: &mut Vec<Step>) -> u8 {
        let Addressee { mailbox, way } = &step.to;
        let next_hop = next_hop(self.settings, mailbox, way);
        let found = match &next_hop {
            NextHop::Local if *way == Way::User => self.router.resolve_user(mailbox),
            NextHop::Local | NextHop::Command if *way != Way::Routed => {
                return explain_way(self.settings, self.router, step);
            }
            NextHop::Local | NextHop::Command => self.router.resolve(mailbox),
            NextHop::Smarthost(_) | NextHop::Mx(_) => {
                self.say_relayed(mailbox, &next_hop);
                return exit::OK;
            }
        };
        match found {
            Resolution::Mailbox(user) => self.explain_user(mailbox, &user, steps),
            Resolution::Expanded(expansion) => {
                let into = list(&expansion.into);
                let place = alias_place(self.router, mailbox);
                let owner = expansion.owner.map(|owner| format!(", failures are for {owner}"));
                let owner = owner.unwrap_or_default();
                say(format_args!("{mailbox}: an alias for {into} ({place}){owner}"));
                add(steps, expansion.into, &self.settings.local.command_user);
                exit::OK
            }
            Resolution::Unknown => {
                say(format_args!("{mailbox}: unknown, refused with 550"));
                exit::NOUSER
            }
            Resolution::Failed(failure) => {
                say_failure(mailbox, &failure);
                if failure.status.is_permanent() { exit::UNAVAILABLE } else { exit::TEMPFAIL }
            }
        }
    }

    /// Prints to whom it is relayed, and under which other names.
    fn say_relayed(&self, mailbox: &Mailbox, next_hop: &NextHop) {
        let whom = match next_hop {
            NextHop::Smarthost(smarthost) => {
                let hosts: Vec<_> = smarthost.hosts.iter().map(ToString::to_string).collect();
                let login = smarthost.login.as_ref().map(login).unwrap_or_default();
                format!("the smarthost {}{login}", hosts.join(", then "))
            }
            NextHop::Mx(domain) => format!("the mail exchangers of {domain}"),
            NextHop::Local | NextHop::Command => return,
        };
        say(format_args!("{mailbox}: relayed to {whom}, {}", encryption::in_words(next_hop)));
        if let Some(rules) = rewriting(&self.settings.rewrite) {
            say(format_args!("{mailbox}: from this host, {rules}"));
        }
    }

    /// Prints where a user's mail is put, or adds those to whom the user has it forwarded.
    fn explain_user(&self, mailbox: &Mailbox, user: &User, steps: &mut Vec<Step>) -> u8 {
        let say_mailbox = || say_mailbox(self.settings, self.router, mailbox, user);
        match self.forwards.expansion(user, mailbox, self.router) {
            Ok(None) => say_mailbox(),
            Ok(Some(expansion)) => {
                let into = expansion.into;
                say(format_args!("{mailbox}: forwarded by {} to {}", user.name, list(&into)));
                let account = match user.name.as_str() {
                    "root" => &self.settings.local.command_user,
                    name => name,
                };
                add(steps, into, account);
            }
            Err(Unheard::Refused(what)) => {
                say_mailbox();
                say(format_args!("{mailbox}: {what}"));
            }
            // Who asks may not be somebody who can see it.
            Err(Unheard::Away(_)) if !rustix::process::geteuid().is_root() => {
                let name = &user.name;
                say_mailbox();
                say(format_args!("{mailbox}: unless a .forward of {name} says else: ask as root"));
            }
            Err(Unheard::Away(failure)) => {
                say_failure(mailbox, &failure);
                return exit::TEMPFAIL;
            }
        }
        exit::OK
    }
}

/// Prints that an address means one thing to `sendmail` and another over SMTP.
fn say_both(mailbox: &Mailbox, local: &Mailbox) {
    let domain = mailbox.domain();
    say(format_args!(
        "{mailbox}: given to sendmail it is {local}, since {domain} is a name of this host; over \
         SMTP it stays, since {domain} is not in [server] domains"
    ));
}

/// Prints why nobody can say where the mail goes.
fn say_failure(mailbox: &Mailbox, failure: &Failure) {
    say(format_args!("{mailbox}: {} {}", failure.status, failure.text));
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
                say_failure(mailbox, &failure);
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
        Err(failure) => say_failure(mailbox, &failure),
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
