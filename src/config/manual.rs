//! The manual page mailwren.ini(5), in mdoc(7): what every section and key is for, from the one
//! table that the program itself goes by.

use super::keys::{Key, REFERENCE, Section};
use super::sample::remark;

/// The widest line of the source, in octets.
const WIDTH: usize = 78;

const HEAD: &str = "\
.\\\" Made from the table of keys: MAILWREN_WRITE_SAMPLE=1 cargo test --test documents
.Dd November 22, 2026
.Dt MAILWREN.INI 5
.Os
.Sh NAME
.Nm mailwren.ini
.Nd the configuration of mailwren
.Sh DESCRIPTION
.Xr mailwren 8
reads
.Pa /etc/mailwren/mailwren.ini ,
or the file that
.Fl \\-config
or
.Ev MAILWREN_CONFIG
names.
It need not say anything: what is left out is as shown here.
.Pp
A line is
.Li [section] ,
.Li key = value ,
a comment that begins with
.Li #
or
.Li \\&; ,
or empty.
A value goes up to the end of its line and needs no quotes; a comment has a line
of its own.
Sizes take
.Li K , M
and
.Li G
(1024), times
.Li s , m , h
and
.Li d .
Lists are separated by commas or blanks.
A section or a key that is not known is a mistake, which is told with its line
and the nearest known name; so is one that is not built yet.
.Ic mailwren check
finds all of them;
.Ic systemctl reload mailwren ,
or SIGHUP, has a running server read the file again.
.Sh SECTIONS
";

const TAIL: &str = "\
.Sh FILES
.Bl -tag -width Ds
.It Pa /etc/mailwren/mailwren.ini
The configuration.
It is read by everybody who sends mail from this host; passwords have files of
their own.
.It Pa /usr/share/doc/mailwren/recipes
Whole configurations for common cases, with what else is to be done.
.El
.Sh EXAMPLES
To hand everything for other places to a provider, under the address that it
knows:
.Bd -literal -offset indent
[smarthost]
host = smtp.example.com:587
user = me@example.com
password_file = /etc/mailwren/password

[rewrite]
sender = me@example.com
.Ed
.Pp
.Ic mailwren setup
asks for these, tries them, and writes them.
.Sh SEE ALSO
.Xr aliases 5 ,
.Xr mailwren-users 5 ,
.Xr mailwren 8
";

/// The text of `etc/man/mailwren.ini.5`.
pub fn render() -> String {
    let mut text = HEAD.to_owned();
    for section in REFERENCE {
        render_section(&mut text, section);
    }
    text + TAIL
}

fn render_section(text: &mut String, section: &Section) {
    text.push_str(&heading(section));
    prose(text, section.help);
    if section.later.is_some() {
        prose(text, "Not built yet.");
    }
    text.push_str(".Bl -tag -width Ds\n");
    for key in section.keys() {
        render_key(text, section, key);
    }
    text.push_str(".El\n");
}

/// Without the brackets, which mandoc takes for a slip at the end of a line.
fn heading(section: &Section) -> String {
    format!(".Ss {}\n", section.heading().trim_matches(['[', ']']))
}

fn render_key(text: &mut String, section: &Section, key: &Key) {
    let value = match key.default {
        "" => String::new(),
        default => format!(" = {}", escaped(default)),
    };
    text.push_str(&format!(".It Li {}{value}\n", key.name));
    prose(text, key.help);
    if let Some(remark) = remark(section, key) {
        prose(text, &remark);
    }
    if section.later.is_none() && section.later(key).is_some() {
        prose(text, "Not built yet.");
    }
}

/// Adds `words` as text, each sentence on lines of its own, as mdoc(7) wants it.
fn prose(text: &mut String, words: &str) {
    let mut width = 0;
    for word in words.split_whitespace() {
        let word = escaped(word);
        if width > 0 && width + 1 + word.len() > WIDTH {
            text.push('\n');
            width = 0;
        }
        if width > 0 {
            text.push(' ');
        } else if word.starts_with(['.', '\'']) {
            text.push_str("\\&");
        }
        text.push_str(&word);
        width += 1 + word.len();
        if word.trim_end_matches([')', '"', '`']).ends_with(['.', '?', '!']) {
            text.push('\n');
            width = 0;
        }
    }
    if width > 0 {
        text.push('\n');
    }
}

/// As text that steers nothing.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\e")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_begin_their_own_lines_and_steer_nothing() {
        let mut text = String::new();
        prose(&mut text, ".forward is read. A \\ stays (so). It goes on");
        assert_eq!(text, "\\&.forward is read.\nA \\e stays (so).\nIt goes on\n");
    }

    #[test]
    fn every_section_and_key_stands_there_with_its_default() {
        let page = render();
        for section in REFERENCE {
            let heading = heading(section);
            let part = page.split(&heading).nth(1).expect("the section is there");
            let part = part.split("\n.Ss ").next().expect("split gives one at least");
            for key in section.keys() {
                let line = format!(".It Li {} = {}", key.name, escaped(key.default));
                let line = line.trim_end_matches([' ', '=']);
                assert!(part.lines().any(|found| found == line), "{heading}: {line}");
            }
        }
    }
}
