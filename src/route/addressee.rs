//! What aliases and `.forward` files send mail to: addresses, and what is to be done with it on
//! this host instead.

use std::fmt;
use std::str::FromStr;

use crate::mail::address::Mailbox;

/// The most octets of a command or a path in an alias.
const MAX_TEXT: usize = 1000;

/// One of those who are to have a message.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Addressee {
    /// The address. For a command or a file it is the one whose alias or `.forward` names that.
    pub mailbox: Mailbox,
    /// The way to it.
    pub way: Way,
}

/// How an addressee gets its mail.
///
/// Its text is empty for [`Way::Routed`], `=` for [`Way::User`], `\` for [`Way::Mailbox`], and for
/// the other two what aliases(5) has: `|command` and `/file`. In the spool it is a name only: what
/// is run or written is read out of the alias file again, at each try.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Way {
    /// As its address says.
    #[default]
    Routed,
    /// As the `.forward` of the user that the address names says, else into the mailbox, whatever
    /// aliases say: so do those whose own alias names them.
    User,
    /// Into the mailbox of the user that the address names, whatever aliases and `.forward` say.
    Mailbox,
    /// By a command.
    Command(Text),
    /// Into a file, or with a slash at its end into a Maildir.
    File(Text),
}

/// The text of a command or a path: 1 to 1000 octets, no control character among them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Text(Box<str>);

/// What an alias comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expansion {
    /// Those who take its place, none of them twice. Some may be of this host and aliases again.
    pub into: Vec<Addressee>,
    /// Who is told of failures instead of the sender: the `owner-` alias of a list
    /// (RFC 5321 §3.9.2).
    pub owner: Option<Mailbox>,
}

/// The text is no [`Way`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAWay;

impl Text {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Text {
    type Err = NotAWay;

    fn from_str(text: &str) -> Result<Self, NotAWay> {
        let is_text = (1..=MAX_TEXT).contains(&text.len()) && !text.chars().any(char::is_control);
        if is_text { Ok(Self(text.into())) } else { Err(NotAWay) }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Routed => Ok(()),
            Self::User => f.write_str("="),
            Self::Mailbox => f.write_str("\\"),
            Self::Command(command) => write!(f, "|{command}"),
            Self::File(path) => path.fmt(f),
        }
    }
}

impl FromStr for Way {
    type Err = NotAWay;

    fn from_str(text: &str) -> Result<Self, NotAWay> {
        match text {
            "" => Ok(Self::Routed),
            "=" => Ok(Self::User),
            "\\" => Ok(Self::Mailbox),
            _ if text.starts_with('/') => text.parse().map(Self::File),
            _ => text.strip_prefix('|').ok_or(NotAWay)?.parse().map(Self::Command),
        }
    }
}

impl From<Mailbox> for Addressee {
    fn from(mailbox: Mailbox) -> Self {
        Self { mailbox, way: Way::Routed }
    }
}

impl fmt::Display for Addressee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.way {
            Way::User => write!(f, "<{}>", self.mailbox),
            Way::Routed | Way::Mailbox => write!(f, "{}<{}>", self.way, self.mailbox),
            Way::Command(_) | Way::File(_) => write!(f, "{:?}", self.way.to_string()),
        }
    }
}

impl From<Vec<Mailbox>> for Expansion {
    /// An alias for addresses, without an owner.
    fn from(mailboxes: Vec<Mailbox>) -> Self {
        Self { into: mailboxes.into_iter().map(Addressee::from).collect(), owner: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_way_reads_back() {
        for text in ["", "=", "\\", "|cmd 'a b' ", "/var/log/mail", "/home/ann/Maildir/"] {
            assert_eq!(text.parse::<Way>().unwrap().to_string(), text);
        }
        let long = format!("|{}", "x".repeat(MAX_TEXT + 1));
        for text in ["x", "|", "|a\nb", "/a\0", "\\ann", "|a\u{85}b", &long] {
            assert_eq!(text.parse::<Way>(), Err(NotAWay), "{text:?}");
        }
    }
}
