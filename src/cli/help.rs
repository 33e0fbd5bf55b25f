//! What `help` and `--help` say: the table of commands, in lines that a terminal of 80 columns shows
//! whole.

use super::commands::{COMMANDS, Command, EVERYWHERE, Opt};
use super::{CONFIG_VARIABLE, DEFAULT_CONFIG};

/// The widest line, in characters.
const WIDTH: usize = 79;

const HEAD: &str = "\
mailwren, a mail server for small hosts

mailwren [--config FILE] COMMAND
mailwren help [COMMAND]
mailwren --version

";

/// What there is: each command as it is typed, and what it does.
pub(super) fn overview() -> String {
    let mut help = HEAD.to_owned();
    for command in COMMANDS {
        help += &wrapped("  ", 10, &usage(command));
        help += &wrapped("      ", 6, command.does);
    }
    help += &format!(
        "\nmailwren COMMAND --help says what its options do.\n\
         The configuration is {DEFAULT_CONFIG}, or what --config or\n\
         {CONFIG_VARIABLE} names.\n\
         Called as sendmail, mailq or newaliases, mailwren behaves as those."
    );
    help
}

/// What a command, its verbs and its options do.
pub(super) fn of(command: &Command) -> String {
    let mut help = wrapped("mailwren ", 13, &usage(command));
    help += &wrapped("    ", 4, command.does);
    for verb in command.verbs {
        help += &wrapped(&format!("\nmailwren {} {} ", command.name, verb.name), 13, verb.operands);
        help += &wrapped("    ", 4, verb.does);
    }
    help.push('\n');
    let options = || command.options.iter().chain(EVERYWHERE);
    let widest = options().map(|option| with_value(option).len()).max().unwrap_or_default();
    for option in options() {
        let start = format!("  {:widest$}  ", with_value(option));
        help += &wrapped(&start, start.len(), option.does);
    }
    if !command.notes.is_empty() {
        help += &format!("\n{}\n", command.notes);
    }
    help.truncate(help.trim_end().len());
    help
}

/// What may follow the word `mailwren`.
fn usage(command: &Command) -> String {
    let mut usage = command.name.to_owned();
    let verbs: Vec<_> = command.verbs.iter().map(|verb| verb.name).collect();
    if !verbs.is_empty() {
        usage += &format!(" [{}]", verbs.join("|"));
    }
    for option in command.options {
        usage += &format!(" [{}]", with_value(option));
    }
    format!("{usage} {}", command.operands)
}

fn with_value(option: &Opt) -> String {
    match option.value {
        Some(value) => format!("--{} {value}", option.name),
        None => format!("--{}", option.name),
    }
}

/// The text behind `start`, with its end, in lines of which those behind the first begin with
/// `indent` blanks. None is broken between brackets.
fn wrapped(start: &str, indent: usize, text: &str) -> String {
    let mut lines = start.to_owned();
    let mut width = start.trim_start_matches('\n').len();
    let (mut part, mut is_first) = (String::new(), true);
    for word in text.split_whitespace() {
        part = if part.is_empty() { word.to_owned() } else { format!("{part} {word}") };
        if part.starts_with('[') && !part.contains(']') {
            continue;
        }
        let length = part.chars().count();
        if !is_first && width + 1 + length > WIDTH {
            lines += &format!("\n{:indent$}", "");
            width = indent;
        } else if !is_first {
            lines.push(' ');
            width += 1;
        }
        lines += &part;
        width += length;
        (part, is_first) = (String::new(), false);
    }
    lines + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verbs_options_and_values_are_named() {
        let queue = COMMANDS.iter().find(|command| command.name == "queue").expect("it is there");
        let help = of(queue);
        for word in ["queue hold [--json] SELECTION", "--to DOMAIN", "--config FILE"] {
            assert!(help.contains(word), "{word} is not in\n{help}");
        }
    }

    #[test]
    fn no_line_is_wider_than_a_terminal() {
        for help in COMMANDS.iter().map(of).chain([overview()]) {
            for line in help.lines() {
                assert!(line.chars().count() <= WIDTH, "{line}");
                assert_eq!(line, line.trim_end());
            }
        }
    }

    #[test]
    fn lines_break_between_words_and_never_between_brackets() {
        let word = "w".repeat(30);
        let text = format!("{word} {word} [--user {word}] {word}");
        let expected = format!("\n a {word} {word}\n   [--user {word}] {word}\n");
        assert_eq!(wrapped("\n a ", 3, &text), expected);
        assert_eq!(wrapped("    ", 4, "x"), "    x\n");
    }
}
