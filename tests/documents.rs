//! Documents say what the program's own tables say: manual pages, completions of shells.
#![expect(clippy::unwrap_used, reason = "a test ends where it panics")]

#[path = "documents/completions.rs"]
mod completions;
#[path = "documents/table.rs"]
mod table;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command as Process, Stdio};

use mailwren::config::manual;
use table::Table;

fn project(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn text_of(name: &str) -> String {
    let path = project(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Compares a file that is made from a table with what it should be, or writes it.
fn is_current(name: &str, wanted: &str) {
    if std::env::var_os("MAILWREN_WRITE_SAMPLE").is_some() {
        fs::create_dir_all(project(name).parent().unwrap()).unwrap();
        fs::write(project(name), wanted).unwrap();
    }
    let hint = "MAILWREN_WRITE_SAMPLE=1 cargo test --test documents writes it anew";
    assert!(text_of(name) == wanted, "{name}: {hint}");
}

/// The long options that stand in a manual page, as `--name`.
fn options_in(page: &str) -> Vec<String> {
    let words = page.lines().filter(|line| line.starts_with('.')).flat_map(str::split_whitespace);
    let options = words.filter_map(|word| word.strip_prefix("\\-"));
    let options = options.map(|word| word.trim_start_matches("\\-"));
    options
        .filter(|name| !name.is_empty())
        .map(|name| format!("--{}", name.replace("\\-", "-")))
        .collect()
}

#[test]
fn mailwren_ini_5_is_the_reference() {
    is_current("etc/man/mailwren.ini.5", &manual::render());
}

#[test]
fn completions_are_those_of_the_table() {
    let table = Table::of_program();
    is_current("etc/completions/mailwren.bash", &completions::bash(&table));
    is_current("etc/completions/mailwren.zsh", &completions::zsh(&table));
    is_current("etc/completions/mailwren.fish", &completions::fish(&table));
}

#[test]
fn mailwren_8_has_every_command_and_option_and_no_other() {
    let table = Table::of_program();
    let (page, of_queue) = (text_of("etc/man/mailwren.8"), text_of("etc/man/mailwren-queue.8"));
    let (said, said_of_queue) = (options_in(&page), options_in(&of_queue));
    let everywhere = &table.everywhere;
    for command in &table.commands {
        let is_there = |line: &str| line == format!(".It Cm {}", command.name);
        assert!(page.lines().any(is_there), "mailwren.8 has no {}", command.name);
        let (name, said) = match command.name.as_str() {
            "queue" => ("mailwren-queue.8", &said_of_queue),
            _ => ("mailwren.8", &said),
        };
        for option in &command.options {
            assert!(said.contains(&option.name), "{name}: {} {}", command.name, option.name);
        }
        for verb in &command.verbs {
            let is_there = |line: &str| line == format!(".It Cm {}", verb.name);
            assert!(of_queue.lines().any(is_there), "{name} has no {}", verb.name);
        }
    }
    let options = table.commands.iter().flat_map(|command| &command.options).chain(everywhere);
    let known: Vec<_> = options.map(|option| &option.name).collect();
    for option in said.iter().chain(&said_of_queue) {
        // What the program itself takes instead of a command.
        let is_own = ["--version", "--help"].contains(&option.as_str());
        assert!(is_own || known.contains(&option), "there is no {option}");
    }
}

/// The letters of the options that stand in sendmail(1).
fn letters_in(page: &str) -> BTreeSet<char> {
    let mut letters = BTreeSet::new();
    for line in page.lines().filter(|line| line.starts_with('.')) {
        let words: Vec<_> = line.split_whitespace().collect();
        let Some(at) = words.iter().position(|word| word.ends_with("Fl")) else { continue };
        let is_list = words[at..].contains(&",");
        // `.Fl A , D , d` lists letters; anything else names one option at a time.
        let named = words.iter().skip(1).zip(&words).filter(|(_, before)| {
            **before == "Fl" || **before == ".Fl" || (is_list && **before == ",")
        });
        let named = named.filter(|(word, _)| **word != "Fl");
        letters.extend(named.filter_map(|(word, _)| word.chars().next()));
    }
    letters.retain(char::is_ascii_alphabetic);
    letters
}

#[test]
fn sendmail_1_has_every_letter_that_is_known_and_no_other() {
    let home = tempfile::tempdir().unwrap();
    let config = home.path().join("mailwren.ini");
    let spool = home.path().join("spool");
    let text = format!(
        "[server]\nhostname = mx.test\nsocket =\nspool = {}\n[local]\naliases =\n",
        spool.display()
    );
    fs::write(&config, text).unwrap();
    let is_known = |letter: &char| {
        let mut program = Process::new(env!("CARGO_BIN_EXE_mailwren"));
        // What it takes for a value hangs at it; with -bi nothing is sent.
        program.args(["sendmail", &format!("-{letter}v"), "-bi"]).stdin(Stdio::null());
        let output = program.env("MAILWREN_CONFIG", &config).output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        !told.contains(&format!("option \"-{letter}\" is unknown"))
    };
    let known: BTreeSet<_> = ('a'..='z').chain('A'..='Z').filter(is_known).collect();
    assert!(!known.contains(&'z') && known.contains(&'t'));
    assert_eq!(letters_in(&text_of("etc/man/sendmail.1")), known);
}
