//! `mailwren setup`: from a provider's name to root's mail in somebody's inbox. It asks, or is told by
//! flags; tries what it was told for real; and only then writes the password, the alias for root
//! and the configuration, each in place.

mod advice;
mod dialogue;
mod plan;
mod prompts;
mod providers;
mod reload;
mod root_alias;
mod standing;
mod trial;
mod wish;
mod writing;

use std::io;
use std::path::Path;

use super::Ran;
use super::check::rights;
use super::invocation::Invocation;
use super::output::{say, warn};
use crate::config::settings::Settings;
use crate::deliver::login::Secret;
use crate::mail::address::{Domain, Mailbox};
use crate::route::aliases::{AliasTable, Key};
use crate::route::local::LocalRouter;
use crate::route::targets::Target;
use crate::smtp::sasl::MAX_SECRET;
use crate::sys::process::exit;
use crate::sys::terminal;

use plan::Plan;
use standing::Standing;
use wish::{Exit, Manner, Password, Wish};

/// What the options do not say, for `--help`.
pub(super) const NOTES: &str = "\
What no option says is asked for, on a terminal or from a pipe; with --yes it
stays as the files have it, or is an error. The password comes from standard
input alone. Exit codes: 64 for what is missing or wrong on the command line,
69 refused or not there, 75 try again later, 77 the login was refused or you
may not write the files, 78 a mistake in a file that is there.";

/// Why it came to nothing: the exit code, and what to say.
type Failure = (u8, String);

/// Sets the host up.
pub(super) fn run(invocation: &mut Invocation) -> Ran {
    let (wish, manner) = wish::read(invocation)?;
    let (now, plan) = match prepare(invocation, wish, manner) {
        Ok(Some(prepared)) => prepared,
        Ok(None) => return Ok(exit::OK),
        Err((code, text)) => {
            warn(format_args!("mailwren setup: {text}\nNothing was written."));
            return Ok(code);
        }
    };
    Ok(match writing::run(&now, &plan) {
        Ok(()) => {
            tell("written:", &plan);
            finish(&now, &plan)
        }
        Err((code, text)) => {
            let what = writing::what_is_there(&now, &plan);
            warn(format_args!("mailwren setup: {text}\n{what}. Run it again when that is mended."));
            code
        }
    })
}

/// What comes when all is written: the server hears of it, and a person what is left to do.
fn finish(now: &Standing, plan: &Plan) -> u8 {
    say(reload::tell(&plan.settings));
    if let Some(text) = reload::hindrance(&plan.settings) {
        warn(text);
    }
    for path in [Some(&now.config), now.aliases.as_ref()].into_iter().flatten() {
        let unreadable = rights::unreachable(path, &plan.settings)
            .or_else(|| rights::unreadable(path, &plan.settings, "chmod o+r"));
        if let Some(text) = unreadable {
            warn(format_args!("{}: {text}", path.display()));
        }
    }
    // Last, since until it has read the new configuration the server uses it.
    match writing::clean(plan) {
        Ok(()) => exit::OK,
        Err((code, text)) => {
            warn(format_args!("mailwren setup: {text}; remove it"));
            code
        }
    }
}

/// All that comes before the first file is written; `None` where none is to be.
fn prepare(
    invocation: &Invocation,
    mut wish: Wish,
    manner: Manner,
) -> Result<Option<(Standing, Plan)>, Failure> {
    let now = Standing::read(invocation)?;
    if let Some(root) = &wish.root {
        let target =
            root_target(&now, root).map_err(|why| (exit::USAGE, format!("--root: {why}")))?;
        wish.root = Some(target);
    }
    if manner.reads_password {
        wish.password = Some(Password(read_password()?));
    }
    writing::check_account(&now.settings)?;
    if let Some(ca) = &wish.ca {
        check_ca(ca, &now.settings)?;
    }
    if manner.asks_nothing {
        complete(&now, &mut wish)?;
        let plan = plan(&now, &wish)?;
        return Ok(is_to_be_written(&plan, manner)?.then_some((now, plan)));
    }
    let mut answers = prompts::find().map_err(|error| of_answer(&error))?;
    let flags = wish;
    let mut last = Wish::default();
    loop {
        let mut wish = flags.clone();
        dialogue::ask(&now, &mut wish, &last, &mut *answers).map_err(|error| of_answer(&error))?;
        let tried = plan(&now, &wish).and_then(|plan| {
            is_to_be_written(&plan, manner).map(|is_wanted| is_wanted.then_some(plan))
        });
        match tried {
            Ok(plan) => return Ok(plan.map(|plan| (now, plan))),
            Err(failure) if !may_answers_mend(&failure) => return Err(failure),
            Err((_, text)) => answers.say(&text),
        }
        let question = "Answer again, beginning with what you said?";
        if !answers.confirm(question).map_err(|error| of_answer(&error))? {
            return Err((exit::USAGE, "stopped".to_owned()));
        }
        last = wish;
    }
}

/// Whether somebody is there who could answer otherwise, and whether that is of use.
fn may_answers_mend((code, _): &Failure) -> bool {
    let is_of_answers =
        matches!(*code, exit::USAGE | exit::UNAVAILABLE | exit::TEMPFAIL | exit::NOPERM);
    is_of_answers && terminal::is_there()
}

/// What is to be written, with everything that it needs on this host.
fn plan(now: &Standing, wish: &Wish) -> Result<Plan, Failure> {
    let mut plan = Plan::new(now, wish)?;
    if let Some(ca) = plan.settings.smarthost.as_ref().and_then(|it| it.ca.as_ref()) {
        check_ca(ca, &plan.settings)?;
    }
    if let Some((path, password)) = &plan.password {
        writing::check_reach(path, &plan.settings)?;
        if Secret::from(password.0.as_str()).is_odd() {
            warn("the password begins or ends with a blank or what cannot be seen; that is kept");
        }
    }
    let root: Option<Mailbox> = wish.root.as_deref().and_then(|root| root.parse().ok());
    for mailbox in [root.as_ref(), wish.sender.as_ref()].into_iter().flatten() {
        if !mailbox.domain().to_string().contains('.') {
            warn(format_args!("{mailbox} has no dot behind the @; if that is right, so be it"));
        }
    }
    if let Some((path, password)) = &plan.password
        && !writing::is_in_place(path, password, &plan.settings)?
    {
        plan.changes.insert(0, format!("{}: the password", path.display()));
    }
    if !now.config.exists() {
        plan.changes.push(format!("{}: all else as it is shipped", now.config.display()));
    }
    Ok(plan)
}

/// Tries what is planned, unless that is not wanted; whether there is anything to write then.
/// Without questions and changes nobody wants to know whether it works.
fn is_to_be_written(plan: &Plan, manner: Manner) -> Result<bool, Failure> {
    let is_same = plan.changes.is_empty();
    let is_idle = is_same && manner.asks_nothing;
    if !(manner.is_dry || manner.is_untried || is_idle) {
        trial::run(plan)?;
    }
    if is_same {
        say("nothing to change: the files say all of this already");
    } else if manner.is_dry {
        tell("this would be written:", plan);
    }
    Ok(!is_same && !manner.is_dry)
}

fn tell(head: &str, plan: &Plan) {
    say(head);
    for change in &plan.changes {
        say(format_args!("  {change}"));
    }
}

/// Without questions: what follows from what was said, and what is missing.
fn complete(now: &Standing, wish: &mut Wish) -> Result<(), Failure> {
    let mut missing = Vec::new();
    let before = now.settings.smarthost.as_ref();
    // On a host without a smarthost root's mail may go elsewhere, too.
    let is_about_root = Wish { root: None, ..wish.clone() } == Wish::default();
    let is_relayed = match &wish.exit {
        Some(exit) => *exit != Exit::None,
        None if before.is_none()
            && !(is_about_root && wish.root.is_some() && now.config.exists()) =>
        {
            missing.push("where mail goes: give --smarthost HOST:PORT, or none");
            false
        }
        None => before.is_some(),
    };
    if is_relayed && wish.user.is_none() && before.is_none() {
        missing.push("the account: give --user NAME, or --user '' for no login");
    }
    let has_user = wish.user.as_ref().is_some_and(|user| !user.is_empty());
    if is_relayed && has_user && wish.password.is_none() && before.is_none() {
        missing.push("the password: give --password-stdin, and it as a line of standard input");
    }
    let is_new = wish.exit.is_some() || wish.user.is_some();
    if is_relayed && is_new && wish.sender.is_none() && now.settings.rewrite.sender.is_none() {
        match wish.user.as_deref().map(|user| (user, wish::sender(user))) {
            // A relay without a login takes any sender.
            None | Some(("", _)) => {}
            Some((_, Ok(sender))) => wish.sender = Some(sender),
            Some((_, Err(_))) => missing.push("the sender: give --sender ADDRESS"),
        }
    }
    if wish.root.is_none() && now.root.is_none() {
        missing.push("where root's mail goes: give --root ADDRESS");
    }
    if missing.is_empty() {
        return Ok(());
    }
    let text = missing.join("\n  ");
    Err((
        exit::USAGE,
        format!("what is missing, unless you leave --yes out to be asked:\n  {text}"),
    ))
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
        Target::Name(name) => {
            let origin = now.settings.server.domains.origin().clone();
            let mailbox = Mailbox::new(name.clone(), Domain::Name(origin));
            let user = LocalRouter::new(&now.settings).user(&mailbox);
            user.map_err(|failure| failure.text)?.ok_or_else(bad)?;
        }
        _ => return Err(bad()),
    }
    Ok(target.to_string())
}

/// The server reads the certificates as its own account.
fn check_ca(ca: &Path, settings: &Settings) -> Result<(), Failure> {
    let unreachable = rights::unreachable(ca, settings);
    match unreachable.or_else(|| rights::unreadable(ca, settings, "chmod o+r")) {
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
