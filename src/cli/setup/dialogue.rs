//! The questions, for what no flag has answered. Each shows what the files say now, or what was
//! answered before; an empty answer leaves that as it is.

use std::io;

use super::providers::{self, PROVIDERS};
use super::standing::Standing;
use super::wish::{self, Exit, Password, Wish};

/// How often a secret is asked for again.
const MAX_TRIES: usize = 5;

/// A question that a text answers.
pub(super) struct Question<'a> {
    pub(super) text: &'a str,
    /// What an empty answer stands for.
    pub(super) default: Option<&'a str>,
    /// Why an answer, without blanks around it, is none.
    pub(super) check: &'a dyn Fn(&str) -> Result<(), String>,
}

/// A usual answer.
pub(super) struct Choice {
    /// How a list shows it.
    pub(super) label: String,
    /// `None` where a text is asked for.
    pub(super) answer: Option<String>,
}

/// Where answers come from.
pub(super) trait Answers {
    /// A text that passes the check, or the default.
    ///
    /// # Errors
    /// When there is none: the answers have ended, or are wrong again and again, or Ctrl-C came.
    fn text(&mut self, question: &Question<'_>) -> io::Result<String>;

    /// The same, where these are the usual ones and `hint` says so to who sees no list.
    ///
    /// # Errors
    /// As with [`Self::text`].
    fn pick(
        &mut self,
        question: &Question<'_>,
        hint: &str,
        _choices: &[Choice],
    ) -> io::Result<String> {
        self.say(hint);
        self.text(question)
    }

    /// A text that is not shown.
    ///
    /// # Errors
    /// As with [`Self::text`].
    fn secret(&mut self, question: &str) -> io::Result<String>;

    /// Yes, or no.
    ///
    /// # Errors
    /// As with [`Self::text`].
    fn confirm(&mut self, question: &str) -> io::Result<bool>;

    /// Says something between two questions.
    fn say(&mut self, text: &str);
}

/// Asks for what `wish` does not say. `last` is what came of asking before, if it did.
///
/// # Errors
/// As with [`Answers::text`].
pub(super) fn ask(
    now: &Standing,
    wish: &mut Wish,
    last: &Wish,
    answers: &mut dyn Answers,
) -> io::Result<()> {
    let smarthost = now.settings.smarthost.as_ref();
    if wish.exit.is_none() {
        wish.exit = ask_exit(now, wish, last, answers)?;
    }
    let exit =
        wish.exit.clone().or_else(|| smarthost.map(|it| Exit::Smarthost(it.hosts[0].clone())));
    let is_relayed = matches!(exit, Some(Exit::Smarthost(_)));
    if is_relayed {
        ask_login(now, wish, last, answers, exit.as_ref())?;
    }
    if wish.sender.is_none() && is_relayed {
        let user = wish.user.clone().filter(|user| wish::sender(user).is_ok());
        let open = Open {
            text: "Address that this host's mail comes from",
            written: now.settings.rewrite.sender.as_ref().map(ToString::to_string),
            proposed: last.sender.as_ref().map(ToString::to_string),
            otherwise: user,
        };
        wish.sender = open.ask(answers, wish::sender)?;
    }
    if wish.root.is_none() {
        let open = Open {
            text: "Where root's mail goes",
            written: now.root.clone(),
            proposed: last.root.clone(),
            otherwise: None,
        };
        wish.root = open.ask(answers, |text| super::root_target(now, text))?;
    }
    Ok(())
}

fn ask_exit(
    now: &Standing,
    wish: &Wish,
    last: &Wish,
    answers: &mut dyn Answers,
) -> io::Result<Option<Exit>> {
    let smarthost = now.settings.smarthost.as_ref();
    let written = smarthost.map_or("none".to_owned(), |it| wish::written(&it.hosts[0]));
    let proposed = last.exit.as_ref().map(|exit| match exit {
        Exit::Smarthost(host) => wish::written(host),
        Exit::None => "none".to_owned(),
    });
    let default = proposed.unwrap_or_else(|| written.clone());
    let hint = format!(
        "Who takes your mail for other hosts? A provider ({}), a server as HOST:PORT, or none \
         for no smarthost.",
        providers::names()
    );
    let read = |text: &str| wish::read_exit(text, wish.tls);
    let check = checked(Some(&default), read);
    let question = Question { text: "Provider or server", default: Some(&default), check: &check };
    let answer = answers.pick(&question, &hint, &exits(&default))?;
    kept_or_read(&answer, Some(&written), &read)
}

/// What a list of them shows.
fn exits(default: &str) -> Vec<Choice> {
    let provider = |it: &providers::Provider| Choice {
        label: format!("{:12} {}:{}", it.name, it.host, it.port),
        answer: Some(format!("{}:{}", it.host, it.port)),
    };
    let mut choices: Vec<_> = PROVIDERS.iter().map(provider).collect();
    let is_known =
        |choices: &[Choice]| choices.iter().any(|choice| choice.answer.as_deref() == Some(default));
    choices.push(Choice { label: "another server".to_owned(), answer: None });
    let label = "none: mail goes straight to each host".to_owned();
    choices.push(Choice { label, answer: Some("none".to_owned()) });
    if !is_known(&choices) {
        choices.insert(0, Choice { label: default.to_owned(), answer: Some(default.to_owned()) });
    }
    choices
}

fn ask_login(
    now: &Standing,
    wish: &mut Wish,
    last: &Wish,
    answers: &mut dyn Answers,
    exit: Option<&Exit>,
) -> io::Result<()> {
    let login = now.settings.smarthost.as_ref().and_then(|it| it.login.as_ref());
    let named = |user: &str| if user.is_empty() { "none".to_owned() } else { user.to_owned() };
    if wish.user.is_none() {
        let open = Open {
            text: "Account there, or none",
            written: Some(named(login.map_or("", |login| login.user.as_str()))),
            proposed: last.user.as_deref().map(named),
            otherwise: None,
        };
        let user = open.ask(answers, |text| Ok(text.to_owned()))?;
        wish.user = user.map(|user| if user == "none" { String::new() } else { user });
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
    let is_written = login.is_some_and(|login| login.user == user) && wish.exit.is_none();
    let before = last.password.clone().filter(|_| last.exit == wish.exit && last.user == wish.user);
    let keep = match (&before, is_written) {
        (Some(_), _) => " (empty: the one of before)",
        (None, true) => " (empty: the one that is there)",
        (None, false) => "",
    };
    for _ in 0..MAX_TRIES {
        let password = answers.secret(&format!("Password of {user}{keep}: "))?;
        if !password.is_empty() {
            wish.password = Some(Password(password));
            return Ok(());
        }
        if before.is_some() || is_written {
            wish.password = before;
            return Ok(());
        }
        answers.say("It is empty.");
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, "there was no password"))
}

/// A question that any text may answer.
struct Open<'a> {
    text: &'a str,
    /// What the files say.
    written: Option<String>,
    /// What was answered before.
    proposed: Option<String>,
    /// What it is where there is neither.
    otherwise: Option<String>,
}

impl Open<'_> {
    /// Asks it; `None` for what the files say.
    fn ask<T>(
        &self,
        answers: &mut dyn Answers,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> io::Result<Option<T>> {
        let default = self.proposed.as_ref().or(self.written.as_ref()).or(self.otherwise.as_ref());
        let default = default.map(String::as_str);
        let check = checked(default, &read);
        let answer = answers.text(&Question { text: self.text, default, check: &check })?;
        kept_or_read(&answer, self.written.as_deref(), &read)
    }
}

/// What is wrong with an answer that is not the default.
fn checked<T>(
    default: Option<&str>,
    read: impl Fn(&str) -> Result<T, String>,
) -> impl Fn(&str) -> Result<(), String> {
    move |text| if Some(text) == default { Ok(()) } else { read(text).map(drop) }
}

fn kept_or_read<T>(
    answer: &str,
    written: Option<&str>,
    read: &dyn Fn(&str) -> Result<T, String>,
) -> io::Result<Option<T>> {
    if Some(answer) == written {
        return Ok(None);
    }
    let wrong = |why| io::Error::new(io::ErrorKind::InvalidData, why);
    read(answer).map(Some).map_err(wrong)
}
