//! The questions, for what no flag has answered. Each shows what the files say now; an empty answer
//! leaves that as it is. Answers are lines of standard input, be it a terminal or a pipe.

use std::io;

use super::providers;
use super::standing::Standing;
use super::wish::{self, Exit, Password, Wish};
use crate::smtp::sasl::MAX_SECRET;
use crate::sys::terminal;

/// The longest answer, in octets.
const MAX_ANSWER: usize = 1024;
/// How often a question is asked again.
const MAX_TRIES: usize = 5;

/// Where answers come from.
pub(super) trait Answers {
    /// The next line, after this question.
    ///
    /// # Errors
    /// When there is none, or it is too long or no text.
    fn line(&mut self, question: &str) -> io::Result<String>;
    /// The same for a secret, which is not shown.
    ///
    /// # Errors
    /// As with [`Self::line`].
    fn secret(&mut self, question: &str) -> io::Result<String>;
    /// Says something between two questions.
    fn say(&mut self, text: &str);
}

/// Standard input; questions go to standard error.
pub(super) struct Person;

impl Answers for Person {
    fn line(&mut self, question: &str) -> io::Result<String> {
        terminal::read_line(question, MAX_ANSWER)
    }

    fn secret(&mut self, question: &str) -> io::Result<String> {
        terminal::read_secret(question, MAX_SECRET)
    }

    fn say(&mut self, text: &str) {
        crate::cli::output::warn(text);
    }
}

/// Asks for what `wish` does not say.
///
/// # Errors
/// When the answers end, or one is wrong again and again.
pub(super) fn ask(now: &Standing, wish: &mut Wish, answers: &mut dyn Answers) -> io::Result<()> {
    let smarthost = now.settings.smarthost.as_ref();
    if wish.exit.is_none() {
        let names: Vec<_> = providers::PROVIDERS.iter().map(|it| it.name).collect();
        answers.say(&format!(
            "Who takes your mail for other hosts? A provider ({}), a server as HOST:PORT, or none \
             for no smarthost.",
            names.join(", ")
        ));
        let default = smarthost.map(|it| wish::written(&it.hosts[0]));
        let tls = wish.tls;
        wish.exit =
            question(answers, "Provider or server", default.or(Some("none".into())), |text| {
                wish::read_exit(text, tls)
            })?;
    }
    let exit =
        wish.exit.clone().or_else(|| smarthost.map(|it| Exit::Smarthost(it.hosts[0].clone())));
    let is_relayed = matches!(exit, Some(Exit::Smarthost(_)));
    if is_relayed {
        ask_login(now, wish, answers, exit.as_ref())?;
    }
    if wish.sender.is_none() && is_relayed {
        let user = wish.user.clone().filter(|user| wish::sender(user).is_ok());
        let written = now.settings.rewrite.sender.as_ref().map(ToString::to_string);
        let is_written = written.is_some();
        let default = written.or(user);
        let asked = question(
            answers,
            "Address that this host's mail comes from",
            default.clone(),
            wish::sender,
        )?;
        let unsaid = default.filter(|_| !is_written).and_then(|text| wish::sender(&text).ok());
        wish.sender = asked.or(unsaid);
    }
    if wish.root.is_none() {
        wish.root = question(answers, "Where root's mail goes", now.root.clone(), |text| {
            super::root_target(now, text)
        })?;
    }
    Ok(())
}

fn ask_login(
    now: &Standing,
    wish: &mut Wish,
    answers: &mut dyn Answers,
    exit: Option<&Exit>,
) -> io::Result<()> {
    let login = now.settings.smarthost.as_ref().and_then(|it| it.login.as_ref());
    if wish.user.is_none() {
        let user = login.map(|login| login.user.clone());
        let default = user.or(Some("none".to_owned()));
        wish.user =
            question(answers, "Account there, as a rule your address, or none", default, |text| {
                Ok(text.to_owned())
            })?
            .map(|user| if user == "none" { String::new() } else { user });
    }
    let user = wish.user.clone().or(login.map(|login| login.user.clone())).unwrap_or_default();
    if user.is_empty() || wish.password.is_some() {
        return Ok(());
    }
    if let Some(Exit::Smarthost(host)) = exit
        && let Some(provider) = providers::by_host(&host.host.to_string())
        && !provider.hint.is_empty()
    {
        answers.say(&format!("{}: {}", provider.name, provider.hint));
    }
    let is_kept = login.is_some_and(|login| login.user == user) && wish.exit.is_none();
    let keep = if is_kept { " (empty: the one that is there)" } else { "" };
    for _ in 0..MAX_TRIES {
        let password = answers.secret(&format!("Password of {user}{keep}: "))?;
        if !password.is_empty() {
            wish.password = Some(Password(password));
            return Ok(());
        }
        if is_kept {
            return Ok(());
        }
        answers.say("It is empty.");
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, "there was no password"))
}

/// Asks until the answer can be read; `None` for the default.
fn question<T>(
    answers: &mut dyn Answers,
    text: &str,
    default: Option<String>,
    read: impl Fn(&str) -> Result<T, String>,
) -> io::Result<Option<T>> {
    let shown = default.as_ref().map(|it| format!(" [{it}]")).unwrap_or_default();
    let mut last = String::new();
    for _ in 0..MAX_TRIES {
        let answer = answers.line(&format!("{text}{shown}: "))?;
        let answer = answer.trim();
        if answer.is_empty() || Some(answer) == default.as_deref() {
            if default.is_some() {
                return Ok(None);
            }
            last = "an answer is needed".to_owned();
        } else {
            match read(answer) {
                Ok(value) => return Ok(Some(value)),
                Err(why) => last = why,
            }
        }
        answers.say(&format!("  {last}"));
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, last))
}
