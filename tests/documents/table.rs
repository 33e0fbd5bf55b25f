//! The table of commands and options, as the program prints it.

use std::process::Command as Process;

/// All of it.
pub(crate) struct Table {
    /// The options of every command.
    pub(crate) everywhere: Vec<Opt>,
    /// In the order of the program's help.
    pub(crate) commands: Vec<Command>,
}

/// A command.
pub(crate) struct Command {
    /// The word for it.
    pub(crate) name: String,
    /// In one line.
    pub(crate) does: String,
    /// The words that may come first.
    pub(crate) verbs: Vec<Verb>,
    /// Its own options.
    pub(crate) options: Vec<Opt>,
}

/// What a command with several of them does.
pub(crate) struct Verb {
    /// The word for it.
    pub(crate) name: String,
    /// In one line.
    pub(crate) does: String,
}

/// An option.
pub(crate) struct Opt {
    /// With its dashes.
    pub(crate) name: String,
    /// What its value is, or nothing.
    pub(crate) value: String,
    /// In one line.
    pub(crate) does: String,
}

impl Table {
    /// What `mailwren help --table` prints.
    pub(crate) fn of_program() -> Self {
        let mut program = Process::new(env!("CARGO_BIN_EXE_mailwren"));
        let output = program.args(["help", "--table"]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let mut table = Self { everywhere: Vec::new(), commands: Vec::new() };
        for line in String::from_utf8(output.stdout).unwrap().lines() {
            let [command, what, word, value, does] =
                line.split('\t').map(str::to_owned).collect::<Vec<_>>().try_into().unwrap();
            let last = table.commands.last_mut();
            match (what.as_str(), last) {
                ("option", None) => table.everywhere.push(Opt { name: word, value, does }),
                ("command", _) => table.commands.push(Command {
                    name: command,
                    does,
                    verbs: Vec::new(),
                    options: Vec::new(),
                }),
                ("verb", Some(last)) => last.verbs.push(Verb { name: word, does }),
                ("option", Some(last)) => last.options.push(Opt { name: word, value, does }),
                _ => panic!("{line}"),
            }
        }
        assert!(table.commands.len() > 5 && !table.everywhere.is_empty());
        table
    }
}
