//! Where the answers come from: keys on a terminal that can show a list and move its cursor, and
//! lines of standard input everywhere else, be it a pipe or a terminal that cannot.

use std::io;

use dialoguer::console::Term;
use dialoguer::{Confirm, Input, Select};

use super::dialogue::{Answers, Choice, Question};
use crate::cli::output::warn;
use crate::smtp::sasl::MAX_SECRET;
use crate::sys::terminal::{self, Keyboard};

/// The longest answer, in octets.
const MAX_ANSWER: usize = 1024;
/// How often a question is asked again where nobody may be there to give up.
const MAX_TRIES: usize = 5;

/// What is there.
///
/// # Errors
/// When a terminal cannot be prepared for keys.
pub(super) fn find() -> io::Result<Box<dyn Answers>> {
    Ok(match Keyboard::find()? {
        Some(keyboard) => Box::new(Keys(keyboard)),
        None => Box::new(Lines),
    })
}

/// Lines of standard input; questions go to standard error.
struct Lines;

impl Answers for Lines {
    fn text(&mut self, question: &Question<'_>) -> io::Result<String> {
        let shown = question.default.map(|it| format!(" [{it}]")).unwrap_or_default();
        let mut last = String::new();
        for _ in 0..MAX_TRIES {
            let line = terminal::read_line(&format!("{}{shown}: ", question.text), MAX_ANSWER)?;
            match question.answer(&line) {
                Ok(answer) => return Ok(answer),
                Err(why) => last = why,
            }
            self.say(&format!("  {last}"));
        }
        Err(io::Error::new(io::ErrorKind::InvalidData, last))
    }

    fn secret(&mut self, question: &str) -> io::Result<String> {
        terminal::read_secret(question, MAX_SECRET)
    }

    fn confirm(&mut self, question: &str) -> io::Result<bool> {
        let check = |text: &str| match text.to_ascii_lowercase().as_str() {
            "y" | "yes" | "n" | "no" => Ok(()),
            _ => Err("answer yes or no".to_owned()),
        };
        let answer =
            self.text(&Question { text: question, default: Some("yes"), check: &check })?;
        Ok(answer.to_ascii_lowercase().starts_with('y'))
    }

    fn say(&mut self, text: &str) {
        warn(text);
    }
}

/// Keys of a terminal.
struct Keys(Keyboard);

impl Keys {
    fn ask<T>(&self, ask: impl FnOnce(&Term) -> dialoguer::Result<T>) -> io::Result<T> {
        let screen = Term::stderr();
        let answer = self.0.with(|| Ok(ask(&screen)?));
        if answer.is_err() {
            // A list hides the cursor, and has not shown it again.
            screen.show_cursor()?;
            screen.write_line("")?;
        }
        answer
    }
}

impl Answers for Keys {
    fn text(&mut self, question: &Question<'_>) -> io::Result<String> {
        let check = |text: &String| question.answer(text).map(drop);
        let mut input = Input::new().with_prompt(question.text).validate_with(check);
        if let Some(default) = question.default {
            input = input.default(default.to_owned());
        }
        let text = self.ask(|screen| input.interact_text_on(screen))?;
        question.answer(&text).map_err(|why| io::Error::new(io::ErrorKind::InvalidData, why))
    }

    fn pick(
        &mut self,
        question: &Question<'_>,
        _hint: &str,
        choices: &[Choice],
    ) -> io::Result<String> {
        let at = choices.iter().position(|choice| choice.answer.as_deref() == question.default);
        let list = Select::new()
            .with_prompt("Who takes mail for other hosts? (Ctrl-C ends)")
            .items(choices.iter().map(|choice| &choice.label))
            .default(at.unwrap_or(0))
            .report(false);
        let taken = self.ask(|screen| list.interact_on(screen))?;
        match choices.get(taken).and_then(|choice| choice.answer.as_ref()) {
            Some(answer) => {
                self.say(&format!("{}: {answer}", question.text));
                Ok(answer.clone())
            }
            None => {
                self.text(&Question { text: "Server, as HOST:PORT", default: None, ..*question })
            }
        }
    }

    /// Not the library's: where Ctrl-C ends that one the terminal stays mute.
    fn secret(&mut self, question: &str) -> io::Result<String> {
        terminal::read_secret(question, MAX_SECRET)
    }

    fn confirm(&mut self, question: &str) -> io::Result<bool> {
        let confirm = Confirm::new().with_prompt(question).default(true);
        self.ask(|screen| confirm.interact_on(screen))
    }

    fn say(&mut self, text: &str) {
        warn(text);
    }
}

impl Question<'_> {
    /// What an answer says, without the blanks around it.
    fn answer(&self, text: &str) -> Result<String, String> {
        let text = text.trim();
        let text = if text.is_empty() { self.default.unwrap_or_default() } else { text };
        if text.is_empty() {
            return Err("an answer is needed".to_owned());
        }
        if text.len() > MAX_ANSWER {
            return Err(format!("it is longer than {MAX_ANSWER} octets"));
        }
        (self.check)(text).map(|()| text.to_owned())
    }
}
