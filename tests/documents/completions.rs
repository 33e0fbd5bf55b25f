//! What shells complete behind the word `mailwren`, made from its table.

use super::table::{Command, Opt, Table};

const MADE: &str =
    "# Made from the table of commands: MAILWREN_WRITE_SAMPLE=1 cargo test --test documents\n";

/// What a value is, as far as a shell can help with it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Value {
    None,
    File,
    Folder,
    Other,
}

fn value_of(option: &Opt) -> Value {
    match option.value.as_str() {
        "" => Value::None,
        "FILE" => Value::File,
        "DIR" => Value::Folder,
        _ => Value::Other,
    }
}

/// The names of all options with such a value, each once, `|` between them.
fn options_with(table: &Table, has: impl Fn(Value) -> bool) -> String {
    let all = table.everywhere.iter().chain(table.commands.iter().flat_map(|it| &it.options));
    let mut names: Vec<_> =
        all.filter(|option| has(value_of(option))).map(|option| option.name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    names.join("|")
}

fn joined<'a>(words: impl Iterator<Item = &'a String>) -> String {
    words.map(String::as_str).collect::<Vec<_>>().join(" ")
}

fn options_of<'a>(table: &'a Table, command: &'a Command) -> impl Iterator<Item = &'a Opt> {
    table.everywhere.iter().chain(&command.options)
}

/// The file for bash.
pub(crate) fn bash(table: &Table) -> String {
    let commands = joined(table.commands.iter().map(|command| &command.name));
    let everywhere = joined(table.everywhere.iter().map(|option| &option.name));
    let mut text = format!("# Completion of mailwren for bash.\n{MADE}");
    text += "\n_mailwren() {\n";
    text += "    local word=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]}\n";
    text += "    local command='' verb='' words='' at\n    COMPREPLY=()\n";
    // Readline takes `--option=value` for three words.
    text += "    [[ $previous == = ]] && previous=${COMP_WORDS[COMP_CWORD - 2]}\n";
    text += "    [[ $word == = ]] && word=''\n";
    text += "    case $previous in\n";
    for (value, flag) in [(Value::File, "-f"), (Value::Folder, "-d"), (Value::Other, "")] {
        let names = options_with(table, |it| it == value);
        if names.is_empty() {
            continue;
        }
        let reply = match flag {
            "" => String::new(),
            flag => format!(
                "mapfile -t COMPREPLY < <(compgen {flag} -- \"$word\")\n            \
                 compopt -o filenames 2>/dev/null; "
            ),
        };
        text += &format!("        {names}) {reply}return ;;\n");
    }
    text += "    esac\n    for ((at = 1; at < COMP_CWORD; at++)); do\n";
    text += "        case ${COMP_WORDS[at]} in\n";
    text += &format!("            {})\n", options_with(table, |it| it != Value::None));
    text += "                [[ ${COMP_WORDS[at + 1]} == = ]] && ((at++))\n";
    text += "                ((at++)) ;;\n";
    text += "            -*) ;;\n";
    text += "            *) if [[ -z $command ]]; then command=${COMP_WORDS[at]}\n";
    text += "               elif [[ -z $verb ]]; then verb=${COMP_WORDS[at]}; fi ;;\n";
    text += "        esac\n    done\n    case $command in\n";
    text += &format!("        '') words='{everywhere} --version help {commands}' ;;\n");
    text += &format!("        help) words='{commands}' ;;\n");
    for command in &table.commands {
        let options = joined(options_of(table, command).map(|option| &option.name));
        let verbs = joined(command.verbs.iter().map(|verb| &verb.name));
        text += &match verbs.as_str() {
            "" => format!("        {}) words='{options}' ;;\n", command.name),
            verbs => format!(
                "        {}) words='{options}'; [[ -n $verb ]] || words+=' {verbs}' ;;\n",
                command.name
            ),
        };
    }
    text += "    esac\n    mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$word\")\n}\n\n";
    text + "complete -F _mailwren mailwren\n"
}

/// As text between single quotes of a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// As the text of an item of zsh's `_arguments` and `_describe`.
fn zsh_text(text: &str) -> String {
    text.replace('\\', "\\\\").replace(':', "\\:").replace('[', "\\[").replace(']', "\\]")
}

fn zsh_option(option: &Opt) -> String {
    let action = match value_of(option) {
        Value::None => String::new(),
        Value::File => format!(":{}:_files", option.value),
        Value::Folder => format!(":{}:_files -/", option.value),
        Value::Other => format!(":{}: ", zsh_text(&option.value)),
    };
    quoted(&format!("{}[{}]{action}", option.name, zsh_text(&option.does)))
}

/// The file for zsh.
pub(crate) fn zsh(table: &Table) -> String {
    let mut text = format!("#compdef mailwren\n# Completion of mailwren for zsh.\n{MADE}");
    text += "\n_mailwren() {\n    local state line\n    local -a commands verbs\n    _arguments -C \\\n";
    for option in &table.everywhere {
        text += &format!("        {} \\\n", zsh_option(option));
    }
    text += "        '--version[the version]' '1: :->command' '*:: :->rest'\n    commands=(\n";
    for command in &table.commands {
        let item = format!("{}:{}", command.name, zsh_text(&command.does));
        text += &format!("        {}\n", quoted(&item));
    }
    text += "    )\n    case $state in\n    command)\n";
    text += "        commands+=('help:what there is')\n        _describe command commands ;;\n";
    text += "    rest)\n        case $words[1] in\n";
    text += "        help) (( CURRENT > 2 )) || _describe command commands ;;\n";
    for command in &table.commands {
        text += &format!("        {})\n", command.name);
        // A rest of no use, `*: : `, would have zsh show a message and insert nothing, options
        // included.
        let mut rest = "";
        if !command.verbs.is_empty() {
            rest = "                '1: :{_describe verb verbs}'";
            text += "            verbs=(\n";
            for verb in &command.verbs {
                let item = format!("{}:{}", verb.name, zsh_text(&verb.does));
                text += &format!("                {}\n", quoted(&item));
            }
            text += "            )\n";
        }
        let options = options_of(table, command);
        let mut words: Vec<_> =
            options.map(|option| format!("                {}", zsh_option(option))).collect();
        words.extend((!rest.is_empty()).then(|| rest.to_owned()));
        text += &format!("            _arguments \\\n{} ;;\n", words.join(" \\\n"));
    }
    text + "        esac ;;\n    esac\n}\n\n_mailwren \"$@\"\n"
}

/// The file for fish.
pub(crate) fn fish(table: &Table) -> String {
    let mut text = format!("# Completion of mailwren for fish.\n{MADE}\n");
    text += "# The words so far that are neither options nor their values.\n";
    text += "function __mailwren_words\n    set -l is_value no\n";
    text += "    for word in (commandline -opc)[2..-1]\n        if test $is_value = yes\n";
    text += "            set is_value no\n            continue\n        end\n";
    let names = options_with(table, |it| it != Value::None).replace('|', " ");
    text += &format!("        switch $word\n            case {names}\n");
    text += "                set is_value yes\n            case '-*'\n            case '*'\n";
    text += "                echo $word\n        end\n    end\nend\n\n";
    text += "# Whether they begin with these, of which the last may be empty: there is none yet.\n";
    text += "function __mailwren_is\n    set -l words (__mailwren_words)\n";
    text += "    set -l last (count $argv)\n";
    text += "    test \"$words[1..$last]\" = (string trim -- \"$argv\")\nend\n\n";
    text += "complete -c mailwren -f\n";
    for option in &table.everywhere {
        text += &fish_option("", option);
    }
    text += "complete -c mailwren -n '__mailwren_is \"\"' -l version -d 'the version'\n";
    text += "complete -c mailwren -n '__mailwren_is \"\"' -a help -d 'what there is'\n";
    for command in &table.commands {
        let does = quoted(&command.does);
        for before in ["\"\"", "help \"\""] {
            text += &format!(
                "complete -c mailwren -n '__mailwren_is {before}' -a {} -d {does}\n",
                command.name
            );
        }
    }
    for command in &table.commands {
        let is_there = format!("__mailwren_is {}", command.name);
        for option in &command.options {
            text += &fish_option(&format!(" -n '{is_there}'"), option);
        }
        for verb in &command.verbs {
            let does = quoted(&verb.does);
            text +=
                &format!("complete -c mailwren -n '{is_there} \"\"' -a {} -d {does}\n", verb.name);
        }
    }
    text
}

fn fish_option(condition: &str, option: &Opt) -> String {
    let value = match value_of(option) {
        Value::None => "",
        Value::File => " -r -F",
        Value::Folder => " -x -a '(__fish_complete_directories)'",
        Value::Other => " -x",
    };
    let name = option.name.trim_start_matches('-');
    format!("complete -c mailwren{condition} -l {name}{value} -d {}\n", quoted(&option.does))
}
