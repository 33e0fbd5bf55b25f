//! The whole reference as a configuration file: what is installed, and what a person reads
//! to learn what can be said. Nothing in it is set, so that it says what an empty file says.

use super::keys::{Key, Kind, REFERENCE, Section, Standing};

/// The widest line of a comment, in characters.
const WIDTH: usize = 78;

const HEAD: &str = "\
# The configuration of mailwren.
#
# Lines that begin with # or ; are comments. A line `;key = value` shows a default: take the
# ; away and write a value of your own. What you leave out stays as it is shown here.
#
# Sizes take K, M or G (1024), times s, m, h or d. Lists are separated by commas or blanks.
# A value goes up to the end of its line and needs no quotes; a comment has a line of its own.
#
# `mailwren check` reads this file and says what is wrong with it, line by line.
#
# For a host that only keeps its own mail - from cron, smartd and the like - nothing needs to
# be changed. To hand everything for other places to a mail server in your network:
#
#     [smarthost]
#     host = mail.home.example:25
#     tls = none
#
# To hand it to your provider, where you have an account, under the address that it knows:
#
#     [smarthost]
#     host = smtp.example.com:587
#     user = me@example.com
#     password_file = /etc/mailwren/password
#
#     [rewrite]
#     sender = me@example.com
#
# with `root: me@example.com` in /etc/aliases, so that cron's mail finds you.
#
# To take mail from the machines of your LAN and to relay it for them:
#
#     [listen.smtp]
#     address = 0.0.0.0:25
#
#     [relay]
#     networks = 127.0.0.0/8, ::1, 192.168.1.0/24
#
# To take mail from people's programs, from anywhere, once they have logged in with an account
# that `mailwren passwd NAME` made:
#
#     [listen.submission]
#     address = 0.0.0.0:587
#     protocol = submission
#
#     [listen.submissions]
#     address = 0.0.0.0:465
#     protocol = submission
#
# To take mail from an old device that knows no TLS, or only that of its day, and ends its lines
# as it likes, without giving way to anybody else:
#
#     [listen.printer]
#     address = 192.168.1.2:2525
#     networks = 192.168.1.50
#     tls = none
#     auth = required
#     auth_without_tls = yes
#     bare_newline = accept
#
#     [listen.camera]
#     address = 192.168.1.2:2587
#     networks = 192.168.1.51
#     tls_minimum = 1.0
#     auth = required
";

const LATER: &str = "\
# ----------------------------------------------------------------------------------------
# Known, but not built yet. The names below are reserved and so are their meanings; today a
# line that uses one is a mistake which `mailwren check` reports, so that nobody believes it
# works. Behind each stands what the default will be.
# ----------------------------------------------------------------------------------------
";

/// The text of `etc/mailwren.ini`.
pub fn render() -> String {
    let mut text = HEAD.to_owned();
    for section in REFERENCE {
        render_section(&mut text, section, true);
    }
    text.push('\n');
    text.push_str(LATER);
    for section in REFERENCE {
        render_section(&mut text, section, false);
    }
    text
}

/// Adds the section with those of its keys that work, or with the others; nothing when
/// there are none.
fn render_section(text: &mut String, section: &Section, works: bool) {
    let keys: Vec<_> = section.keys().filter(|key| section.later(key).is_none() == works).collect();
    if keys.is_empty() {
        return;
    }
    text.push('\n');
    let heading = section.heading();
    if works || section.later.is_some() {
        comment(text, section.help);
        // Where being there means something, a smarthost or a mistake, it is a comment too.
        let means_something =
            section.later.is_some() || section.key("host").is_some() || section.name == "domain";
        let mark = if means_something { ";" } else { "" };
        text.extend([mark, &heading, "\n"]);
    } else {
        comment(text, &format!("In {heading}:"));
    }
    for key in keys {
        render_key(text, section, key);
    }
}

fn render_key(text: &mut String, section: &Section, key: &Key) {
    text.push('\n');
    comment(text, key.help);
    if let Some(remark) = remark(section, key) {
        comment(text, &remark);
    }
    let line = format!(";{} = {}", key.name, key.default);
    text.push_str(line.trim_end());
    text.push('\n');
}

/// What may stand there, unless the help says it or nothing may.
pub(super) fn remark(section: &Section, key: &Key) -> Option<String> {
    match (section.later(key), key.standing, key.kind) {
        (Some(_), ..) if section.later.is_some() => None,
        (Some((_, accepted)), ..) => {
            let value = accepted.iter().find(|value| !value.is_empty())?;
            Some(format!("For now it can only be `{value}`."))
        }
        (None, Standing::Partly, _) | (None, _, Kind::Words(_)) => None,
        (None, ..) => Some(format!("Allowed: {}.", key.kind)),
    }
}

/// Adds `words` as lines of a comment.
fn comment(text: &mut String, words: &str) {
    let mut width = 0;
    for word in words.split_whitespace() {
        let length = word.chars().count() + 1;
        if width == 0 || width + length > WIDTH {
            text.push_str(if width == 0 { "#" } else { "\n#" });
            width = 1;
        }
        text.push(' ');
        text.push_str(word);
        width += length;
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_are_wrapped() {
        let mut text = String::new();
        comment(&mut text, &"word ".repeat(40));
        assert!(text.lines().all(|line| line.starts_with("# w") && line.len() <= WIDTH));
        assert_eq!(text.matches("word").count(), 40);
    }

    #[test]
    fn every_key_stands_there_once() {
        let keys: usize = REFERENCE.iter().map(|section| section.keys().count()).sum();
        let text = render();
        let is_key = |line: &&str| line.starts_with(';') && line.contains(" =");
        assert_eq!(text.lines().filter(is_key).count(), keys);
    }
}
