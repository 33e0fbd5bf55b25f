//! The dialogue by a script, and what comes of answers and flags.

use std::collections::VecDeque;
use std::path::PathBuf;

use super::dialogue::{Answers, Question};
use super::*;
use crate::config;

/// Answers, and what was asked and said.
struct Script {
    answers: VecDeque<&'static str>,
    asked: Vec<String>,
}

impl Script {
    fn new(answers: &[&'static str]) -> Self {
        Self { answers: answers.iter().copied().collect(), asked: Vec::new() }
    }
}

impl Answers for Script {
    fn text(&mut self, question: &Question<'_>) -> io::Result<String> {
        loop {
            let default = question.default.map(|it| format!(" [{it}]")).unwrap_or_default();
            let answer = self.secret(&format!("{}{default}", question.text))?;
            let answer = match question.default {
                Some(default) if answer.is_empty() => default.to_owned(),
                _ => answer,
            };
            match (question.check)(&answer) {
                Ok(()) => return Ok(answer),
                Err(why) => self.say(&why),
            }
        }
    }

    fn secret(&mut self, question: &str) -> io::Result<String> {
        self.asked.push(question.to_owned());
        let answer = self.answers.pop_front().map(str::to_owned);
        answer.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    fn confirm(&mut self, question: &str) -> io::Result<bool> {
        self.secret(question).map(|answer| answer == "yes")
    }

    fn say(&mut self, text: &str) {
        self.asked.push(text.to_owned());
    }
}

fn standing(text: &str, aliases: &str) -> Standing {
    let text = format!("[server]\nhostname = pi.home.example\nuser = root\n{text}");
    Standing {
        config: PathBuf::from("/nowhere/mailwren.ini"),
        settings: config::parse("x", text.as_bytes(), "pi").unwrap(),
        config_octets: text.clone().into_bytes(),
        text,
        aliases: Some(PathBuf::from("/nowhere/aliases")),
        alias_octets: aliases.into(),
        root: root_alias::targets(aliases.as_bytes()).unwrap(),
    }
}

const SET: &str = "[smarthost]\nhost = mx.test:587\nuser = me@x.test\npassword_file = /p\n\
                   [rewrite]\nsender = me@x.test\n";

fn asked(now: &Standing, answers: &[&'static str]) -> io::Result<(Wish, Vec<String>)> {
    asked_again(now, &Wish::default(), answers)
}

fn asked_again(
    now: &Standing,
    last: &Wish,
    answers: &[&'static str],
) -> io::Result<(Wish, Vec<String>)> {
    let (mut wish, mut script) = (Wish::default(), Script::new(answers));
    dialogue::ask(now, &mut wish, last, &mut script)?;
    assert!(script.answers.is_empty(), "not all answers were wanted: {:?}", script.asked);
    Ok((wish, script.asked))
}

#[test]
fn a_new_host_is_asked_for_everything() {
    let now = standing("", "");
    let answers = ["gmail", "me@gmail.com", "", "sesame", "", "nonsense@", "me@x.test"];
    let (wish, asked) = asked(&now, &answers).unwrap();
    let asked = asked.join("\n");
    for words in ["app password", "It is empty.", "[me@gmail.com]", "\"nonsense@\" is no address"] {
        assert!(asked.contains(words), "{words} is not in {asked}");
    }
    assert!(!asked.contains("sesame"));
    let plan = Plan::new(&now, &wish).unwrap();
    assert_eq!(plan.recipient().unwrap().to_string(), "me@x.test");
    let text = plan.config.unwrap();
    assert!(
        text.ends_with(
            "\n[smarthost]\nhost = smtp.gmail.com:587\nuser = me@gmail.com\n\
         password_file = /nowhere/password\n\n[rewrite]\nsender = me@gmail.com\n"
        ),
        "{text}"
    );
    assert_eq!(plan.aliases.unwrap(), b"root: me@x.test\n");
    assert!(!text.contains("sesame") && !format!("{wish:?}").contains("sesame"));
}

#[test]
fn empty_answers_leave_everything_as_it_is() {
    let now = standing(SET, "root: me@x.test\n");
    let (wish, asked) = asked(&now, &["", "", "", "", ""]).unwrap();
    assert_eq!(wish, Wish::default());
    for default in ["[mx.test:587]", "[me@x.test]", "the one that is there"] {
        assert!(asked.iter().any(|it| it.contains(default)), "{default}: {asked:?}");
    }
    let plan = Plan::new(&now, &wish).unwrap();
    assert!(plan.changes.is_empty() && plan.aliases.is_none() && plan.password.is_none());
}

#[test]
fn the_end_of_answers_is_an_end() {
    let now = standing("", "");
    for answers in [&[][..], &["mx.test"], &["mx.test", "me@x.test"], &["none"]] {
        assert_eq!(asked(&now, answers).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}

#[test]
fn what_was_said_before_is_proposed_again() {
    let now = standing(SET, "root: me@x.test\n");
    let said = ["gmail", "you@gmail.com", "sesame", "you@gmail.com", "you@x.test"];
    let (last, _) = asked(&now, &said).unwrap();
    let (wish, asked) = asked_again(&now, &last, &["", "", "", "", ""]).unwrap();
    assert_eq!(wish, last, "{asked:?}");
    // The password is not offered to anybody else.
    let (wish, _) = asked_again(&now, &last, &["", "me@gmail.com", "", "open", "", ""]).unwrap();
    assert_eq!(wish.password, Some(Password("open".into())));
    // What the files say is no wish, even where it was otherwise before.
    let (wish, _) =
        asked_again(&now, &last, &["mx.test:587", "me@x.test", "", "me@x.test", "me@x.test"])
            .unwrap();
    assert_eq!(wish, Wish::default());
}

fn completed(now: &Standing, wish: Wish) -> Result<Plan, String> {
    let mut wish = wish;
    complete(now, &mut wish).and_then(|()| Plan::new(now, &wish)).map_err(|(code, text)| {
        assert_eq!(code, exit::USAGE);
        text
    })
}

fn exit_to(text: &str) -> Option<Exit> {
    Some(wish::read_exit(text, None).unwrap())
}

#[test]
fn what_is_missing_is_named_with_its_flag() {
    let now = standing("", "");
    let all = Wish {
        exit: exit_to("mx.test"),
        user: Some("me".into()),
        password: Some(Password("sesame".into())),
        root: Some("me@x.test".into()),
        sender: Some("me@x.test".parse().unwrap()),
        ..Wish::default()
    };
    assert_eq!(completed(&now, all.clone()).unwrap().changes.len(), 5);
    for (wish, flag) in [
        (Wish { exit: None, ..all.clone() }, "--smarthost"),
        (Wish { user: None, ..all.clone() }, "--user"),
        (Wish { password: None, ..all.clone() }, "--password-stdin"),
        (Wish { root: None, ..all.clone() }, "--root"),
        (Wish { sender: None, ..all.clone() }, "--sender"),
    ] {
        let text = completed(&now, wish).unwrap_err();
        assert!(text.contains(flag), "{flag}: {text}");
    }
    let little = Wish { exit: exit_to("mx.test"), user: Some("me".into()), ..Wish::default() };
    let text = completed(&now, little).unwrap_err();
    let flags = ["--password-stdin", "--sender", "--root"];
    assert!(flags.iter().all(|flag| text.contains(&format!("give {flag}"))), "{text}");
}

#[test]
fn only_what_is_asked_changes() {
    let now = standing(SET, "root: me@x.test\n");
    let changes = |wish| completed(&now, wish).map(|plan| plan.changes.join("; "));
    let file = "/nowhere/mailwren.ini:";
    for (wish, expected) in [
        (
            Wish { root: Some("you@x.test".into()), ..Wish::default() },
            "/nowhere/aliases: root: you@x.test".to_owned(),
        ),
        (
            Wish { ca: Some("/ca.pem".into()), ..Wish::default() },
            format!("{file} [smarthost] ca = /ca.pem"),
        ),
        (
            Wish { user: Some("me@x.test".into()), exit: exit_to("mx.test"), ..Wish::default() },
            String::new(),
        ),
        (
            Wish { exit: Some(Exit::None), ..Wish::default() },
            format!("{file} no [smarthost] any more"),
        ),
        (
            Wish { user: Some(String::new()), ..Wish::default() },
            format!(
                "{file} [smarthost] no user any more; {file} [smarthost] no password_file any more"
            ),
        ),
    ] {
        assert_eq!(changes(wish).unwrap(), expected);
    }
    // A password goes to no other host and is no other account's.
    for wish in [
        Wish { exit: exit_to("other.test"), ..Wish::default() },
        Wish { user: Some("you@x.test".into()), ..Wish::default() },
    ] {
        assert!(changes(wish).unwrap_err().contains("--password-stdin"));
    }
}

#[test]
fn root_goes_to_an_address_or_to_somebody_here() {
    let now = standing("", "");
    assert_eq!(root_target(&now, "me@x.test").unwrap(), "me@x.test");
    assert_eq!(root_target(&now, "daemon").unwrap(), "daemon");
    for bad in ["root", "Root", "no-such-user", "|cmd", "/dev/null", "a@x.test, b", "", "a\nb: c"] {
        assert!(root_target(&now, bad).is_err(), "{bad:?}");
    }
}

#[test]
fn the_password_of_another_account_gets_a_file_of_its_own() {
    let at = |path: &str| SET.replace("/p\n", &format!("{path}\n"));
    let planned = |path: &str, user: &str, host: &str| {
        let wish = Wish {
            exit: exit_to(host),
            user: Some(user.into()),
            password: Some(Password("sesame".into())),
            ..Wish::default()
        };
        let plan = completed(&standing(&at(path), "root: me@x.test\n"), wish).unwrap();
        let shown = |path: PathBuf| path.display().to_string();
        (shown(plan.password.unwrap().0), plan.obsolete.map(shown).unwrap_or_default())
    };
    let (me, here) = ("me@x.test", "mx.test:587");
    for path in ["/p", "/nowhere/password", "/nowhere/password2"] {
        let same = (path.to_owned(), String::new());
        assert_eq!(planned(path, me, here), same);
        assert_eq!(planned(path, me, "mx.test:465"), same);
    }
    for (user, host) in [("you@x.test", here), (me, "other.test")] {
        for (before, after, removed) in [
            ("/p", "/nowhere/password", ""),
            ("/nowhere/password", "/nowhere/password2", "/nowhere/password"),
            ("/nowhere/password2", "/nowhere/password", "/nowhere/password2"),
        ] {
            assert_eq!(planned(before, user, host), (after.to_owned(), removed.to_owned()));
        }
    }
    // Without an account there is no password, and nobody else's file is touched.
    for (before, removed) in [("/p", None), ("/nowhere/password", Some("/nowhere/password"))] {
        let wish = Wish { exit: Some(Exit::None), ..Wish::default() };
        let plan = completed(&standing(&at(before), "root: me@x.test\n"), wish).unwrap();
        assert_eq!(plan.obsolete, removed.map(PathBuf::from));
    }
}
