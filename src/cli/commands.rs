//! The table of commands: their names, options and what they do. The command line is read by it,
//! and [`super::help`] shows it; so it is what the man pages and the completions of shells are held
//! against, which `mailwren help --table` prints it for.

use super::invocation::Invocation;
use super::{
    Ran, aliases, check, demo, passwd, queue, route, sendmail, serve, setup, status, trace,
};

/// A command, what may follow its name, and what it does.
#[derive(Debug)]
pub(super) struct Command {
    /// The word that names it.
    pub(super) name: &'static str,
    /// What it is about, such as `ADDRESS...`. Empty where there is nothing to say.
    pub(super) operands: &'static str,
    /// In one line.
    pub(super) does: &'static str,
    /// Beside `--config` and `--help`, which every command has.
    pub(super) options: &'static [Opt],
    /// The words of which the first operand is one. Empty where there are none.
    pub(super) verbs: &'static [Verb],
    /// What the options do not say, in lines. Empty where there is nothing to say.
    pub(super) notes: &'static str,
    /// Does it.
    pub(super) run: fn(&mut Invocation) -> Ran,
}

/// An option with two dashes.
#[derive(Debug)]
pub(super) struct Opt {
    /// Without its dashes.
    pub(super) name: &'static str,
    /// What its value is, such as `HOST:PORT`; `None` where it has none.
    pub(super) value: Option<&'static str>,
    /// In one line.
    pub(super) does: &'static str,
}

/// What a command with several of them does.
#[derive(Debug)]
pub(super) struct Verb {
    /// The word that names it.
    pub(super) name: &'static str,
    /// What follows it.
    pub(super) operands: &'static str,
    /// In one line.
    pub(super) does: &'static str,
}

/// An option that stands for itself.
const fn flag(name: &'static str, does: &'static str) -> Opt {
    Opt { name, value: None, does }
}

/// An option with a value.
const fn option(name: &'static str, value: &'static str, does: &'static str) -> Opt {
    Opt { name, value: Some(value), does }
}

/// The options of every command.
pub(super) const EVERYWHERE: &[Opt] = &[
    option("config", "FILE", "the configuration, if it is not the usual one"),
    flag("help", "what the command does"),
];

/// All commands, in the order in which help names them.
pub(super) static COMMANDS: &[Command] = &[
    Command {
        name: "serve",
        operands: "",
        does: "run the server in the foreground",
        options: &[],
        verbs: &[],
        notes: "",
        run: serve::run,
    },
    Command {
        name: "demo",
        operands: "",
        does: "try it: no configuration, no privileges, mail for anybody into a folder",
        options: &[
            option("listen", "HOST:PORT", "where it listens; 127.0.0.1:2525 if not said"),
            option("dir", "DIR", "where everything goes; ./mailwren-demo if not said"),
        ],
        verbs: &[],
        notes: "",
        run: demo::run,
    },
    Command {
        name: "sendmail",
        operands: "[-t] [-i] [-f SENDER] [-F NAME] [-N NOTIFY] [-R RETURN] [-V ENVID] [RECIPIENT...]",
        does: "submit a message from standard input, as programs call sendmail",
        options: &[],
        verbs: &[],
        notes: sendmail::NOTES,
        run: sendmail::run,
    },
    Command {
        name: "check",
        operands: "",
        does: "look at the configuration and the host and say what is wrong, file:line: what, what to do",
        options: &[flag(
            "fix",
            "mend owners and modes, and make folders that are missing; say what was done",
        )],
        verbs: &[],
        notes: "",
        run: check::run,
    },
    Command {
        name: "setup",
        operands: "",
        does: "ask for the provider, the account and where root's mail goes; try it, then write it",
        options: &[
            option("smarthost", "HOST:PORT", "who takes mail; a provider's name, or none"),
            option("user", "NAME", "the account there; empty for no login"),
            flag("password-stdin", "the password is the first line of standard input"),
            option("root", "ADDRESS", "where root's mail goes"),
            option("sender", "ADDRESS", "the address that this host's mail comes from"),
            option(
                "tls",
                "HOW",
                "starttls, implicit, opportunistic or none, if not as the port says",
            ),
            option("ca", "FILE", "the certificates, PEM, to trust instead of the system's"),
            flag("yes", "ask nothing"),
            flag("no-test", "try nothing: for a host that has no network yet"),
            flag("dry-run", "say what would be written; try and write nothing"),
        ],
        verbs: &[],
        notes: setup::NOTES,
        run: setup::run,
    },
    Command {
        name: "route",
        operands: "ADDRESS...",
        does: "say where mail to each address would go, sending nothing",
        options: &[],
        verbs: &[],
        notes: "",
        run: route::run,
    },
    Command {
        name: "aliases",
        operands: "",
        does: "read the alias files and say what is wrong, file:line: what, what to do",
        options: &[],
        verbs: &[],
        notes: "",
        run: aliases::run,
    },
    Command {
        name: "passwd",
        operands: "NAME",
        does: "set the password of an account of the users file, or remove the account",
        options: &[flag("delete", "remove the account")],
        verbs: &[],
        notes: "",
        run: passwd::run,
    },
    Command {
        name: "queue",
        operands: "[SELECTION]",
        does: "what is in the queue, and what is to become of it",
        options: &[
            flag("json", "an array with an object for each message, for programs"),
            flag("envelope", "show: the envelope alone"),
            flag("headers", "show: the envelope and the header section"),
            flag("all", "every message"),
            option("to", "DOMAIN", "messages with a recipient there, or this one, still to get it"),
            option("from", "ADDRESS", "messages of this sender, or this domain; <> is reports"),
        ],
        verbs: queue::VERBS,
        notes: queue::NOTES,
        run: queue::run,
    },
    Command {
        name: "status",
        operands: "",
        does: "say how the server and its queue are, on one screen",
        options: &[flag("json", "as an object, for programs")],
        verbs: &[],
        notes: status::NOTES,
        run: status::run,
    },
    Command {
        name: "trace",
        operands: "ID|ADDRESS",
        does: "tell the story of a message, or of the last messages of somebody",
        options: &[flag("json", "as an object, for programs")],
        verbs: &[],
        notes: trace::NOTES,
        run: trace::run,
    },
];

impl Command {
    /// The option of that name.
    pub(super) fn option(&self, name: &str) -> Option<&'static Opt> {
        self.options.iter().find(|option| option.name == name)
    }
}

/// One line for each word of the table, in fields separated by tabs: the command, what the word is
/// (`command`, `verb` or `option`), the word, what its value or its operands are, what it does.
pub(super) fn table() -> String {
    let mut lines = Vec::new();
    let mut add = |command: &str, what: &str, word: &str, value: &str, does: &str| {
        lines.push([command, what, word, value, does].join("\t"));
    };
    let name = |option: &Opt| format!("--{}", option.name);
    for option in EVERYWHERE {
        add("", "option", &name(option), option.value.unwrap_or_default(), option.does);
    }
    for command in COMMANDS {
        add(command.name, "command", command.name, command.operands, command.does);
        for verb in command.verbs {
            add(command.name, "verb", verb.name, verb.operands, verb.does);
        }
        for option in command.options {
            let value = option.value.unwrap_or_default();
            add(command.name, "option", &name(option), value, option.does);
        }
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_word_stands_once_and_says_what_it_does() {
        for (at, command) in COMMANDS.iter().enumerate() {
            assert!(COMMANDS[..at].iter().all(|other| other.name != command.name));
            assert!(!command.does.is_empty());
            let options: Vec<_> = command.options.iter().chain(EVERYWHERE).collect();
            for (at, option) in options.iter().enumerate() {
                assert!(!option.does.is_empty(), "--{}", option.name);
                let is_other = |other: &&Opt| other.name != option.name;
                assert!(options[..at].iter().all(is_other), "--{} twice", option.name);
            }
        }
    }
}
