//! What may stand on the right side of aliases(5): in the alias file behind the colon, and as the
//! whole content of `.forward` files and of the lists that `:include:` names.
//!
//! Targets are separated by commas. One is a name of this host; an address, with a display name and
//! comments as in a header (RFC 5322 §3.4), which are dropped; `\user`; `|command`; `/file`; or
//! `:include:/file`. Quotes around the whole of a target, or around what follows the `|`, are no
//! part of it, and within them a backslash takes the next character as it is. A command or path
//! without quotes ends at a comma, and a path at a blank is a mistake.
//!
//! Nothing is looked up here, and nothing run or opened.

use std::fmt;
use std::path::PathBuf;

use crate::mail::address::{AddressError, LocalPart, Mailbox};
use crate::mail::text::one_line;
use crate::route::addressee::Text;

/// What names the file of a list.
const INCLUDE: &str = ":include:";
/// How much of a target a message about it shows, in characters.
const MAX_SHOWN: usize = 60;

/// One of those that an alias or a list names.
///
/// Printed, it reads back as the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// A name of this host.
    Name(LocalPart),
    /// An address with a domain.
    Address(Mailbox),
    /// `\user`: the mailbox of a user of this host, whatever its alias and its `.forward` say.
    Mailbox(LocalPart),
    /// `|command`.
    Command(Text),
    /// An absolute path: a file, or with a slash at its end a Maildir.
    File(Text),
    /// `:include:` and the absolute path of a list.
    Include(PathBuf),
}

/// A line of an alias file or a list that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AliasError {
    /// The line, counted from 1.
    pub line: usize,
    /// What is wrong, and what to write.
    pub text: String,
}

impl fmt::Display for AliasError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.text)
    }
}

impl std::error::Error for AliasError {}

/// Reads a file that is a list: any number of targets on each line, which is read by itself. Blank
/// lines and those that begin with `#` count for nothing, blanks before a target neither. Each
/// target comes with its line, counted from 1.
///
/// # Errors
/// The first line that cannot be read.
pub fn read_list(octets: &[u8]) -> Result<Vec<(usize, Target)>, AliasError> {
    let mut targets = Vec::new();
    for line in list_lines(octets) {
        let (line, read) = line?;
        targets.extend(read.into_iter().map(|target| (line, target)));
    }
    Ok(targets)
}

/// The same line by line, so that a check finds all that is wrong.
pub fn list_lines(octets: &[u8]) -> impl Iterator<Item = Result<(usize, Vec<Target>), AliasError>> {
    let lines = octets.split(|&octet| octet == b'\n').zip(1..);
    lines.map(|(octets, line)| {
        let read = line_text(octets).and_then(read_targets);
        read.map(|targets| (line, targets)).map_err(|text| AliasError { line, text })
    })
}

/// A line as text, without the blanks around it. Of a comment, in whatever encoding, there is none.
///
/// # Errors
/// When it is not UTF-8.
pub(super) fn line_text(octets: &[u8]) -> Result<&str, String> {
    if octets.trim_ascii_start().starts_with(b"#") {
        return Ok("");
    }
    str::from_utf8(octets).map(str::trim).map_err(|_| "it is not UTF-8 text".to_owned())
}

/// Reads what stands behind one colon, or on one line of a list. There may be nothing.
///
/// # Errors
/// What is wrong with the first target that cannot be read, and what to write.
pub(super) fn read_targets(text: &str) -> Result<Vec<Target>, String> {
    let pieces = pieces(text)?;
    let written = pieces.into_iter().map(str::trim).filter(|piece| !piece.is_empty());
    written.map(read_target).collect()
}

/// Splits at the commas that separate.
fn pieces(text: &str) -> Result<Vec<&str>, String> {
    let mut pieces = Vec::new();
    let mut start = 0;
    let mut scanner = Scanner::default();
    for (at, c) in text.char_indices() {
        if scanner.part_of(c) == Part::Plain && c == ',' {
            pieces.push(&text[start..at]);
            start = at + 1;
            scanner = Scanner::default();
        }
    }
    let last = &text[start..];
    if scanner.is_quoted || scanner.comments > 0 {
        let what = if scanner.is_quoted { "quote" } else { "bracket of a comment" };
        return Err(format!("the {what} in {} is never closed", shown(last)));
    }
    pieces.push(last);
    Ok(pieces)
}

fn read_target(text: &str) -> Result<Target, String> {
    let content = unquoted(text);
    let plain = content.as_deref().unwrap_or(text);
    if let Some(command) = plain.strip_prefix('|') {
        let inner = if content.is_none() { unquoted(command.trim()) } else { None };
        return read_command(inner.as_deref().unwrap_or(command), text);
    }
    if plain.starts_with('/') {
        return read_path(plain, text, content.is_some()).map(Target::File);
    }
    if plain.starts_with(':') {
        return read_include(plain, text, content.is_some());
    }
    if let Some(user) = plain.strip_prefix('\\') {
        let user = match content {
            Some(_) => LocalPart::from_unquoted(user),
            None => user.parse(),
        };
        return user.map(Target::Mailbox).map_err(|reason| {
            let text = shown(text);
            format!("{text} is no mailbox: {reason}; behind the backslash write a local user")
        });
    }
    if plain.starts_with("~/") {
        return Err(format!("{} begins with ~: write the whole path, from / on", shown(text)));
    }
    // Programs that write aliases quote addresses as a whole.
    match content.and_then(|content| content.parse().ok()) {
        Some(mailbox) => Ok(Target::Address(mailbox)),
        None => read_address(text).map_err(|reason| {
            let remedy = match text {
                _ if text.contains('#') => "a comment has a line of its own, with # at its start",
                _ if text.contains([' ', ';']) => "put a comma between two addresses",
                _ => "write a name or user@domain",
            };
            format!("{} is no address: {reason}; {remedy}", shown(text))
        }),
    }
}

fn read_command(command: &str, whole: &str) -> Result<Target, String> {
    // A tab separates as a blank does, and a command has no control character.
    command.trim().replace('\t', " ").parse().map(Target::Command).map_err(|_| {
        format!("{} is no command: it is empty, too long, or has a control character", shown(whole))
    })
}

fn read_path(path: &str, whole: &str, is_quoted: bool) -> Result<Text, String> {
    if !is_quoted && path.contains([' ', '\t', '"']) {
        return Err(format!(
            "{} has a blank or a quote: put quotes around the whole path, or a comma between two targets",
            shown(whole)
        ));
    }
    path.parse().map_err(|_| {
        format!("{} is no path: it is too long or has a control character", shown(whole))
    })
}

/// Reads `:include:/file`, the tag in any case.
fn read_include(text: &str, whole: &str, is_quoted: bool) -> Result<Target, String> {
    let is_include = text.get(..INCLUDE.len()).is_some_and(|tag| tag.eq_ignore_ascii_case(INCLUDE));
    if !is_include {
        return Err(format!("{} is not known here: there is only {INCLUDE}/path", shown(whole)));
    }
    let path = text[INCLUDE.len()..].trim_start();
    let content = if is_quoted { None } else { unquoted(path) };
    let is_quoted = is_quoted || content.is_some();
    let path = content.as_deref().unwrap_or(path);
    if !path.starts_with('/') {
        return Err(format!("{} needs the whole path, from / on", shown(whole)));
    }
    let path = read_path(path, whole, is_quoted)?;
    Ok(Target::Include(path.as_str().into()))
}

/// Reads `ann`, `ann@example.org`, `Ann <ann@example.org>` or `ann@example.org (Ann)`.
fn read_address(text: &str) -> Result<Target, AddressError> {
    let mut kept = String::new();
    let (mut opens, mut has_at) = (None, false);
    let mut scanner = Scanner::default();
    for c in text.chars() {
        let part = scanner.part_of(c);
        if part == Part::Plain && c == '<' && opens.is_none() {
            opens = Some(kept.len());
            has_at = false;
        }
        has_at |= part == Part::Plain && c == '@';
        if part != Part::Comment {
            kept.push(c);
        }
    }
    let kept = kept.trim();
    let address = match opens.and_then(|open| kept.get(open + 1..)) {
        Some(inside) => inside.strip_suffix('>').ok_or(AddressError::NoBrackets)?.trim(),
        None => kept,
    };
    if has_at { address.parse().map(Target::Address) } else { address.parse().map(Target::Name) }
}

/// The content of a text that is in quotes as a whole.
fn unquoted(text: &str) -> Option<String> {
    let inside = text.strip_prefix('"')?.strip_suffix('"')?;
    let mut content = String::new();
    let mut chars = inside.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => return None,
            '\\' => content.push(chars.next()?),
            _ => content.push(c),
        }
    }
    Some(content)
}

/// A target for a message about it.
fn shown(text: &str) -> String {
    let dots = if text.chars().nth(MAX_SHOWN).is_some() { "..." } else { "" };
    format!("`{}{dots}`", one_line(text, MAX_SHOWN))
}

/// What a character belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Plain,
    Quoted,
    Comment,
}

/// Where in a target the reader is.
#[derive(Debug, Default)]
struct Scanner {
    /// Whether it is a command, a path or an include, where brackets are no comments. Known from
    /// the first character on.
    is_literal: Option<bool>,
    is_quoted: bool,
    is_escaped: bool,
    comments: usize,
}

impl Scanner {
    /// Passes `c`, and says what it is part of. Quotes and brackets are part of what they enclose.
    fn part_of(&mut self, c: char) -> Part {
        if self.is_literal.is_none() && !c.is_whitespace() {
            self.is_literal = Some(matches!(c, '|' | '/' | ':'));
        }
        let part = match self {
            _ if self.comments > 0 => Part::Comment,
            _ if self.is_quoted => Part::Quoted,
            _ => Part::Plain,
        };
        if part != Part::Plain && std::mem::take(&mut self.is_escaped) {
            return part;
        }
        match (c, part) {
            ('\\', Part::Quoted | Part::Comment) => self.is_escaped = true,
            ('"', Part::Plain | Part::Quoted) => {
                self.is_quoted = !self.is_quoted;
                return Part::Quoted;
            }
            ('(', Part::Plain | Part::Comment) if self.is_literal != Some(true) => {
                self.comments += 1;
                return Part::Comment;
            }
            (')', Part::Comment) => self.comments -= 1,
            _ => {}
        }
        part
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => write_address(f, &name.to_string()),
            Self::Address(mailbox) => write_address(f, &mailbox.to_string()),
            Self::Mailbox(user) => write!(f, "\\{user}"),
            Self::Command(command) => write_quoted(f, '|', command.as_str()),
            Self::File(path) => write_quoted(f, "", path.as_str()),
            Self::Include(path) => write_quoted(f, INCLUDE, &path.to_string_lossy()),
        }
    }
}

/// In angle brackets where the bare address would be read as something else, as `/ann` would.
fn write_address(f: &mut fmt::Formatter<'_>, address: &str) -> fmt::Result {
    let is_bare = address.starts_with(|c: char| c.is_ascii_alphanumeric());
    if is_bare { f.write_str(address) } else { write!(f, "<{address}>") }
}

fn write_quoted(f: &mut fmt::Formatter<'_>, tag: impl fmt::Display, content: &str) -> fmt::Result {
    write!(f, "\"{tag}{}\"", content.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn printed(targets: &[Target]) -> Vec<String> {
        let print = |target: &Target| match target {
            Target::Name(name) => format!("name {}", name.as_str()),
            Target::Address(address) => format!("address {address}"),
            Target::Mailbox(user) => format!("mailbox {}", user.as_str()),
            Target::Command(command) => format!("command {command}"),
            Target::File(path) => format!("file {path}"),
            Target::Include(path) => format!("include {}", path.display()),
        };
        targets.iter().map(print).collect()
    }

    #[test]
    fn targets_are_read_as_people_and_programs_write_them() {
        for (text, expected) in [
            ("", &[][..]),
            (" , ,", &[]),
            ("ann", &["name ann"]),
            ("ann,bob ,", &["name ann", "name bob"]),
            ("\"odd user\", \"a, b\"", &["name odd user", "name a, b"]),
            ("<ann>", &["name ann"]),
            ("ann@x.test", &["address ann@x.test"]),
            ("\"ann@x.test\"", &["address ann@x.test"]),
            ("\"c, d\"@x.test", &["address \"c, d\"@x.test"]),
            ("Ann B. <ann@x.test>", &["address ann@x.test"]),
            ("J\u{f6}rg <j@x.test>", &["address j@x.test"]),
            ("\"B, Ann @ home\" < ann@x.test >, bob", &["address ann@x.test", "name bob"]),
            ("ann@x.test (Ann, \\) (the) one), bob", &["address ann@x.test", "name bob"]),
            ("(Ann) ann", &["name ann"]),
            ("a@[192.0.2.1]", &["address a@[192.0.2.1]"]),
            (
                "\\ann, \\\"odd user\", \"\\\\bob\"",
                &["mailbox ann", "mailbox odd user", "mailbox bob"],
            ),
            ("\"|cmd 'x, y' \\\"z\\\\\\\"\"", &["command cmd 'x, y' \"z\\\""]),
            ("|\"cmd args, more\" , ann", &["command cmd args, more", "name ann"]),
            ("| cmd", &["command cmd"]),
            ("|cmd \"a, b\" (c, ann", &["command cmd \"a, b\" (c", "name ann"]),
            (
                "\"|IFS=' ' && exec p || exit 75 #ann\"",
                &["command IFS=' ' && exec p || exit 75 #ann"],
            ),
            ("|a\tb", &["command a b"]),
            ("/var/mail/a(b, \"/dev/null\"", &["file /var/mail/a(b", "file /dev/null"]),
            ("\"/a b/\", ann", &["file /a b/", "name ann"]),
            (":include:/l, :Include: /m", &["include /l", "include /m"]),
            ("\":include:/a b\", :include:\"/a, b\"", &["include /a b", "include /a, b"]),
        ] {
            let read = read_targets(text).unwrap_or_else(|error| panic!("{text:?}: {error}"));
            assert_eq!(printed(&read), expected, "{text:?}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_told_with_what_to_write() {
        let long = format!("|{}", "x".repeat(2000));
        for (text, part) in [
            ("ann bob", "`ann bob` is no address"),
            ("ann bob", "put a comma between"),
            ("ann # the boss", "a comment has a line of its own"),
            ("ann # the boss", "no address"),
            ("ann;", "no address"),
            ("b@", "no address"),
            ("b@x_y", "no address"),
            ("<ann@x.test", "angle brackets"),
            ("<ann@x.test> bob", "angle brackets"),
            ("\u{e4}nn", "outside printable ASCII"),
            ("ann@\u{e4}.test", "outside printable ASCII"),
            ("bob, \"ann", "the quote in ` \"ann` is never closed"),
            ("ann (x", "never closed"),
            ("|", "no command"),
            ("\"| \"", "no command"),
            ("|\"\"", "no command"),
            ("|a\u{7}b", "control character"),
            (&long, "too long"),
            ("/a b", "quotes around the whole path"),
            ("\"/a\tb\"", "control character"),
            ("~/mail", "write the whole path"),
            (":include:list", "from / on"),
            (":include:", "from / on"),
            (":fail: gone", "not known here"),
            ("\\", "local user"),
            ("\\ann@x.test", "local user"),
            ("\\a b", "local user"),
        ] {
            let error = read_targets(text).unwrap_err();
            assert!(error.contains(part), "{text:?}: {error}");
            assert!(error.len() < 300 && !error.contains(char::is_control), "{text:?}: {error}");
        }
    }

    #[test]
    fn a_list_has_its_lines() {
        let list = b"# all of us\nann, bob\r\n\n  # not J\xf6rg\n  \\dan,\n\"|cmd\"";
        let read = read_list(list).unwrap();
        let lines: Vec<_> = read.iter().map(|(line, target)| (*line, target.to_string())).collect();
        let expected = [(2, "ann"), (2, "bob"), (5, "\\dan"), (6, "\"|cmd\"")];
        assert_eq!(lines, expected.map(|(line, text)| (line, text.to_owned())));
        assert_eq!(read_list(b"ann\n\xff\n").unwrap_err().line, 2);
        assert_eq!(read_list(b"ann\n\nbob carl\n").unwrap_err().line, 3);
        assert_eq!(read_list(b"\"ann\nbob\"\n").unwrap_err().line, 1);
        assert_eq!(read_list(b""), Ok(Vec::new()));
    }

    proptest! {
        #[test]
        fn random_text_never_panics_and_what_is_printed_reads_back(
            octets in prop::collection::vec(any::<u8>(), 0..200),
            near in "[ab:,\"\\\\<>@|/()#~ \t\n\u{e4}]{0,60}",
            name in "[ -~]{1,20}",
            path in "[^\\pC]{1,20}",
        ) {
            let mut targets: Vec<_> = [octets.as_slice(), near.as_bytes()]
                .into_iter()
                .filter_map(|octets| read_list(octets).ok())
                .flatten()
                .map(|(_, target)| target)
                .collect();
            let name = LocalPart::from_unquoted(&name).unwrap();
            targets.push(Target::Address(format!("{name}@x.test").parse().unwrap()));
            targets.push(Target::Mailbox(name.clone()));
            targets.push(Target::Name(name));
            targets.push(Target::File(format!("/{path}").parse().unwrap()));
            targets.push(Target::Include(format!("/{path}").into()));
            let list: Vec<_> = targets.iter().map(ToString::to_string).collect();
            let read = read_list(list.join(", ").as_bytes()).unwrap();
            let read: Vec<_> = read.into_iter().map(|(_, target)| target).collect();
            prop_assert_eq!(read, targets);
        }

        #[test]
        fn a_command_reads_back(command in "[^\\pC\\s][^\\pC]{0,20}[^\\pC\\s]") {
            let target = Target::Command(command.parse().unwrap());
            prop_assert_eq!(read_targets(&target.to_string()).unwrap(), [target]);
        }
    }
}
