//! What a file may say: the form of the reference, and how to look something up in it.
//!
//! [`REFERENCE`] is the one table of every section and key. Names, defaults, ranges, help
//! and the shipped file come from it, so they cannot disagree.

pub use super::reference::REFERENCE;
use super::values::{size_text, time_text};

/// A section of the reference.
#[derive(Debug)]
pub struct Section {
    /// The name in the brackets, without the `.NAME` of a section that there may be many of.
    pub name: &'static str,
    /// The NAME that the examples use, for a section that there may be many of.
    pub example: Option<&'static str>,
    /// What it is for, in a sentence or two.
    pub help: &'static str,
    /// Why nothing of it works yet; `None` when something does.
    pub later: Option<&'static str>,
    /// Its own keys, in the order of the manual.
    pub own: &'static [Key],
    /// The keys that it shares with another section.
    pub shared: &'static [Key],
}

impl Section {
    /// All its keys.
    pub fn keys(&self) -> impl Iterator<Item = &'static Key> {
        self.own.iter().chain(self.shared)
    }

    /// The key of that very name.
    pub fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys().find(|key| key.name == name)
    }

    /// The name as it stands in a file, with a NAME where one is needed.
    pub fn heading(&self) -> String {
        match self.example {
            Some(example) => format!("[{}.{example}]", self.name),
            None => format!("[{}]", self.name),
        }
    }

    /// Why `key` does nothing yet, and with which values it may stand there all the same;
    /// `None` when it works.
    pub fn later(&self, key: &Key) -> Option<(&'static str, &'static [&'static str])> {
        match (self.later, key.standing) {
            (Some(why), _) => Some((why, UNSET)),
            (None, Standing::Later { why, accepted }) => Some((why, accepted)),
            (None, Standing::Works | Standing::Partly) => None,
        }
    }
}

/// A key of a section.
#[derive(Debug)]
pub struct Key {
    /// What stands before the `=`.
    pub name: &'static str,
    /// What may stand behind it.
    pub kind: Kind,
    /// What holds when the key is not there, written as a value. Empty: unset, or worked
    /// out as the help says.
    pub default: &'static str,
    /// What it does, in a sentence or two.
    pub help: &'static str,
    /// Whether it works.
    pub standing: Standing,
}

/// A key that works.
pub(super) const fn key(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    help: &'static str,
) -> Key {
    Key { name, kind, default, help, standing: Standing::Works }
}

impl Key {
    /// The same key, which does nothing yet.
    pub(super) const fn later(
        mut self,
        why: &'static str,
        accepted: &'static [&'static str],
    ) -> Self {
        self.standing = Standing::Later { why, accepted };
        self
    }

    /// The same key, of which the section's reader refuses some values.
    pub(super) const fn partly(mut self) -> Self {
        self.standing = Standing::Partly;
        self
    }
}

/// Whether a key does what its help says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It does.
    Works,
    /// It does for some values; the reader of its section refuses the others.
    Partly,
    /// It does not yet.
    Later {
        /// A clause that says what is missing.
        why: &'static str,
        /// The values that say what happens anyway, which are therefore no mistake.
        accepted: &'static [&'static str],
    },
}

/// The [`Standing::Later::accepted`] of a key that may be there without a value.
pub(super) const UNSET: &[&str] = &[""];

/// What a value looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A number from the first to the second.
    Count(u64, u64),
    /// A size from the first to the second, in octets.
    Size(u64, u64),
    /// A time from the first to the second, in seconds.
    Time(u64, u64),
    /// A list of times, each from the first to the second, in seconds.
    Times(u64, u64),
    /// Something else, which these words describe.
    Words(&'static str),
}

/// What is allowed, in words that follow on "give".
impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match *self {
            Self::Choice(choices) => f.write_str(&one_of(choices)),
            Self::Count(least, most) => write!(f, "a number from {least} to {most}"),
            Self::Size(least, most) => {
                write!(f, "a size from {} to {}", size_text(least), size_text(most))
            }
            Self::Time(least, most) => {
                write!(f, "a time from {} to {}", time_text(least), time_text(most))
            }
            Self::Times(least, most) => {
                write!(f, "times from {} to {} each", time_text(least), time_text(most))
            }
            Self::Words(words) => f.write_str(words),
        }
    }
}

/// `a, b or c`.
pub(super) fn one_of(choices: &[&str]) -> String {
    match choices {
        [rest @ .., last] if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => choices.concat(),
    }
}

/// The section of that name, without its NAME.
pub fn section(name: &str) -> Option<&'static Section> {
    REFERENCE.iter().find(|section| section.name == name)
}

/// The section that `[name]` or `[name.NAME]` in a file belongs to, and the NAME.
pub fn section_in_file(name: &str) -> Option<(&'static Section, Option<&str>)> {
    match name.split_once('.') {
        Some((kind, own_name)) => Some((section(kind)?, Some(own_name))),
        None => Some((section(name)?, None)),
    }
}

/// The one of `known` that a person who wrote `name` probably meant.
pub(super) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    /// Longer names are not mistyped, they are something else.
    const MAX_NAME: usize = 40;
    if name.len() > MAX_NAME {
        return None;
    }
    let name = name.to_ascii_lowercase().replace('-', "_");
    let distance = |known| strsim::damerau_levenshtein(&name, known);
    let (nearest, distance) = known.map(|known| (known, distance(known))).min_by_key(|n| n.1)?;
    (distance <= (name.len() / 3).max(1)).then_some(nearest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_in_the_reference_once() {
        for (at, section) in REFERENCE.iter().enumerate() {
            assert!(REFERENCE[..at].iter().all(|other| other.name != section.name));
            let mut names: Vec<_> = section.keys().map(|key| key.name).collect();
            names.sort_unstable();
            assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "[{}]", section.name);
        }
    }

    #[test]
    fn everything_is_explained_in_sentences() {
        for section in REFERENCE {
            let texts = section.keys().map(|key| key.help).chain([section.help]);
            for help in texts {
                assert!(help.len() > 15 && help.ends_with('.'), "{help}");
            }
            for key in section.keys() {
                assert!(!key.kind.to_string().is_empty());
                if let Some((why, _)) = section.later(key) {
                    assert!(why.contains("yet") && !why.ends_with('.'), "{why}");
                }
            }
        }
    }

    #[test]
    fn the_nearest_name_is_found() {
        let known = || ["hostname", "domains", "max_sessions", "tls"].into_iter();
        for (name, expected) in [
            ("hostnmae", Some("hostname")),
            ("Hostname", Some("hostname")),
            ("max-sessions", Some("max_sessions")),
            ("domain", Some("domains")),
            ("tsl", Some("tls")),
            ("relay", None),
            ("", None),
        ] {
            assert_eq!(nearest(name, known()), expected, "{name}");
        }
        assert_eq!(nearest(&"x".repeat(5000), known()), None);
    }
}
