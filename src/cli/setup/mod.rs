//! `mailwren setup`: from a provider's name to root's mail in somebody's inbox. It asks, or is told by
//! flags; tries what it was told for real; and only then writes the password, the alias for root
//! and the configuration, each in place.

mod advice;
mod dialogue;
mod plan;
mod providers;
mod reload;
mod root_alias;
mod standing;
mod trial;
mod wish;
mod writing;

use std::io;

use super::Ran;
use super::check::rights;
use super::invocation::Invocation;
use super::output::{say, warn};
use crate::config::settings::Users;
use crate::route::aliases::{AliasTable, Key};
use crate::route::targets::Target;
use crate::smtp::sasl::MAX_SECRET;
use crate::sys::process::exit;
use crate::sys::{terminal, users};

use dialogue::Person;
use plan::Plan;
use standing::Standing;
use wish::{Exit, Manner, Password, Wish};

/// What the options do not say, for `--help`.
pub(super) const NOTES: &str = "\
  What no option says is asked for, on a terminal or from a pipe; with --yes it stays as the files
  have it, or is an error. The password comes from standard input alone. Exit codes: 64 for what is
  missing or wrong on the command line, 69 refused or not there, 75 try again later, 77 the login was
  refused or you may not write the files, 78 a mistake in a file that is there.";

/// Why it came to nothing: the exit code, and what to say.
type Failure = (u8, String);

/// Sets the host up.
pub(super) fn run(invocation: &mut Invocation) -> Ran {
    let (wish, manner) = wish::read(invocation)?;
    Ok(match set_up(invocation, wish, manner) {
        Ok(()) => exit::OK,
        Err((code, text)) => {
            warn(format_args!("mailwren setup: {text}\nNothing was written."));
            code
        }
    })
}

fn set_up(invocation: &Invocation, mut wish: Wish, manner: Manner) -> Result<(), Failure> {
    let now = Standing::read(invocation)?;
    if let Some(root) = &wish.root {
        let target =
            root_target(&now, root).map_err(|why| (exit::USAGE, format!("--root: {why}")))?;
        wish.root = Some(target);
    }
    if manner.reads_password {
        wish.password = Some(Password(read_password()?));
    }
    let flags = wish.clone();
    loop {
        match manner.asks_nothing {
            true => complete(&now, &mut wish)?,
            false => {
                dialogue::ask(&now, &mut wish, &mut Person).map_err(|error| of_answer(&error))?
            }
        }
        let plan = Plan::new(&now, &wish)?;
        match finish(&now, &plan, manner) {
            Err((exit::USAGE | exit::OSERR | exit::CONFIG, text)) => {
                return Err((exit::CONFIG, text));
            }
            Err((_, text)) if !manner.asks_nothing && terminal::is_there() => {
                warn(format_args!(
                    "{text}\nOnce more, then; Ctrl-C ends it, and nothing is written."
                ));
                wish = flags.clone();
            }
            result => return result,
        }
    }
}

/// Tries what is planned, and writes it.
fn finish(now: &Standing, plan: &Plan, manner: Manner) -> Result<(), Failure> {
    writing::check_account(&plan.settings)?;
    check_ca(plan)?;
    let password = match &plan.password {
        Some((path, password)) if !writing::is_in_place(path, password, &plan.settings)? => {
            Some(format!("{}: the password", path.display()))
        }
        _ => None,
    };
    let changes: Vec<_> = password.iter().chain(&plan.changes).collect();
    let is_new = plan.config.is_some() && !now.config.exists();
    if changes.is_empty() && !is_new && manner.asks_nothing {
        say("nothing to change: the files say all of this already");
        return Ok(());
    }
    if !manner.is_dry && !manner.is_untried {
        trial::run(plan)?;
    }
    if changes.is_empty() && !is_new {
        say("nothing to change: the files say all of this already");
        return Ok(());
    }
    if !manner.is_dry {
        writing::run(now, plan)?;
    }
    say(if manner.is_dry { "this would be written:" } else { "written:" });
    if is_new {
        say(format_args!("  {}: a new configuration", now.config.display()));
    }
    for change in changes {
        say(format_args!("  {change}"));
    }
    if !manner.is_dry {
        say(reload::tell(&plan.settings));
    }
    Ok(())
}

/// Without questions: what follows from what was said, and what is missing.
fn complete(now: &Standing, wish: &mut Wish) -> Result<(), Failure> {
    let missing =
        |what: &str| Err((exit::USAGE, format!("{what}; or leave --yes out to be asked")));
    let before = now.settings.smarthost.as_ref();
    let is_relayed = match &wish.exit {
        Some(exit) => *exit != Exit::None,
        None if before.is_some() => true,
        None if *wish == (Wish { root: wish.root.clone(), ..Wish::default() })
            && wish.root.is_some() =>
        {
            false
        }
        None => return missing("where mail goes is missing: give --smarthost HOST:PORT, or none"),
    };
    let has_login = before.is_some_and(|it| it.login.is_some());
    if is_relayed && wish.user.is_none() && !has_login && wish.exit.is_some() && before.is_none() {
        return missing("the account is missing: give --user NAME, or --user '' for no login");
    }
    let is_new = wish.exit.is_some() || wish.user.is_some();
    if is_relayed && wish.sender.is_none() && now.settings.rewrite.sender.is_none() && is_new {
        match wish.user.as_deref() {
            // A relay without a login takes any sender.
            Some("") | None => {}
            Some(user) => match wish::sender(user) {
                Ok(sender) => wish.sender = Some(sender),
                Err(_) => return missing("the sender is missing: give --sender ADDRESS"),
            },
        }
    }
    if wish.root.is_none() && now.root.is_none() {
        return missing("where root's mail goes is missing: give --root ADDRESS");
    }
    Ok(())
}

/// An address, or a name of this host, as the alias file has it.
fn root_target(now: &Standing, text: &str) -> Result<String, String> {
    let bad =
        || format!("{text:?} is no address, such as me@example.com, and no user of this host");
    let table = AliasTable::parse(format!("root: {text}\n").as_bytes()).map_err(|_| bad())?;
    let alias = table.find(&Key::name("root")).ok_or_else(bad)?;
    let [target] = alias.targets.as_slice() else { return Err(bad()) };
    match target {
        Target::Address(_) => {}
        Target::Name(name) if name.as_str().eq_ignore_ascii_case("root") => {
            return Err("root's mail would go round in a circle; name somebody else".to_owned());
        }
        Target::Name(name) if now.settings.local.users == Users::System => {
            if users::by_name(name.as_str()).ok().flatten().is_none() {
                return Err(bad());
            }
        }
        Target::Name(_) => {}
        _ => return Err(bad()),
    }
    Ok(target.to_string())
}

/// The server reads the certificates as its own account.
fn check_ca(plan: &Plan) -> Result<(), Failure> {
    let ca = plan.settings.smarthost.as_ref().and_then(|it| it.ca.as_ref());
    match ca.and_then(|ca| rights::unreadable(ca, &plan.settings, "chmod o+r")) {
        Some(text) => Err((exit::CONFIG, format!("--ca: {text}"))),
        None => Ok(()),
    }
}

fn read_password() -> Result<String, Failure> {
    let password =
        terminal::read_secret("Password: ", MAX_SECRET).map_err(|error| of_answer(&error))?;
    match password.is_empty() {
        true => Err((exit::USAGE, "--password-stdin: the line is empty".to_owned())),
        false => Ok(password),
    }
}

fn of_answer(error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => {
            (exit::USAGE, "the answers have ended too early".to_owned())
        }
        io::ErrorKind::Interrupted => (exit::USAGE, "stopped".to_owned()),
        _ => (exit::USAGE, error.to_string()),
    }
}

#[cfg(test)]
mod tests;
