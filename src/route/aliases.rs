//! The alias file, in the form of aliases(5): `name: target, target`.
//!
//! A line that begins with a blank continues the one before, `#` begins a comment line, names match
//! in any case and may be quoted. Before the colon stands a name, an address `name@domain`, or
//! `@domain` for everybody whom the domain does not know. What may stand behind it is the business
//! of [`targets`](super::targets).

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;

use crate::mail::address::{AddressError, DomainName, LocalPart, Mailbox};
use crate::mail::text::one_line;
use crate::route::targets::{AliasError, Target, line_text, read_targets};

/// How much of a name a message about it shows, in characters.
const MAX_SHOWN: usize = 60;

/// What stands before the colon, in lower case.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Key {
    /// `name`: at every domain that the file is for.
    Name(String),
    /// `name@domain`: at this one.
    Address(String, String),
    /// `@domain`: whoever is not known there.
    Domain(String),
}

impl Key {
    /// The key of a name.
    pub fn name(name: &str) -> Self {
        Self::Name(name.to_ascii_lowercase())
    }

    /// The key of a name at a domain.
    pub fn address(name: &str, domain: &DomainName) -> Self {
        Self::Address(name.to_ascii_lowercase(), domain.to_lowercase())
    }

    /// The key of whoever a domain does not know.
    pub fn domain(domain: &DomainName) -> Self {
        Self::Domain(domain.to_lowercase())
    }

    /// The name, if it is about one.
    pub fn local_part(&self) -> Option<&str> {
        match self {
            Self::Name(name) | Self::Address(name, _) => Some(name),
            Self::Domain(_) => None,
        }
    }
}

/// As it stands in the file.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(name, domain) => write!(f, "{name}@{domain}"),
            Self::Domain(domain) => write!(f, "@{domain}"),
        }
    }
}

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alias {
    /// Where the name stands in the file, counted from 1.
    pub line: usize,
    /// The targets, in their order, at least one.
    pub targets: Vec<Target>,
}

/// The aliases of one version of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AliasTable {
    entries: HashMap<Key, Alias>,
    repeated: Vec<(usize, Key)>,
}

impl AliasTable {
    /// Reads an alias file. Of a name that stands there twice the first entry counts.
    ///
    /// # Errors
    /// The first line that cannot be read.
    pub fn parse(octets: &[u8]) -> Result<Self, AliasError> {
        let (table, errors) = Self::read(octets);
        errors.into_iter().next().map_or(Ok(table), Err)
    }

    /// Reads what can be read of an alias file, and says which lines cannot.
    pub fn read(octets: &[u8]) -> (Self, Vec<AliasError>) {
        let mut table = Self::default();
        let (lines, mut errors) = logical_lines(octets);
        for (line, text) in lines {
            match parse_entry(&text) {
                Ok((key, targets)) => table.add(key, Alias { line, targets }),
                Err(text) => errors.push(AliasError { line, text }),
            }
        }
        errors.sort_by_key(|error| error.line);
        (table, errors)
    }

    /// What a key stands for.
    pub fn find(&self, key: &Key) -> Option<&Alias> {
        self.entries.get(key)
    }

    /// All of it, in the order of the file.
    pub fn entries(&self) -> Vec<(&Key, &Alias)> {
        let mut entries: Vec<_> = self.entries.iter().collect();
        entries.sort_unstable_by_key(|(_, alias)| alias.line);
        entries
    }

    /// The lines that do not count, since their key stands further up.
    pub fn repeated(&self) -> &[(usize, Key)] {
        &self.repeated
    }

    fn add(&mut self, key: Key, alias: Alias) {
        match self.entries.entry(key) {
            Entry::Vacant(entry) => drop(entry.insert(alias)),
            Entry::Occupied(entry) => self.repeated.push((alias.line, entry.key().clone())),
        }
    }
}

/// Joins the lines that belong together, each with the number of its first one.
fn logical_lines(octets: &[u8]) -> (Vec<(usize, String)>, Vec<AliasError>) {
    let mut lines: Vec<(usize, String)> = Vec::new();
    let mut errors = Vec::new();
    for (index, octets) in octets.split(|&octet| octet == b'\n').enumerate() {
        let line = index + 1;
        let text = match line_text(octets) {
            Ok(text) => text,
            Err(text) => {
                errors.push(AliasError { line, text });
                continue;
            }
        };
        if text.is_empty() {
            continue;
        }
        if !octets.starts_with(b" ") && !octets.starts_with(b"\t") {
            lines.push((line, text.to_owned()));
        } else if let Some((_, before)) = lines.last_mut() {
            before.push(' ');
            before.push_str(text);
        } else {
            let text = "it begins with a blank, but there is no line to continue".to_owned();
            errors.push(AliasError { line, text });
        }
    }
    (lines, errors)
}

fn parse_entry(text: &str) -> Result<(Key, Vec<Target>), String> {
    let colon = find_colon(text).ok_or("there is no colon: write `name: target`")?;
    let name = text[..colon].trim();
    let shown = one_line(name, MAX_SHOWN);
    let key = parse_key(name)
        .map_err(|reason| format!("`{shown}` cannot stand before the colon: {reason}"))?;
    let targets = read_targets(&text[colon + 1..])?;
    if targets.is_empty() {
        return Err(format!(
            "`{shown}` stands for nothing: write a name or address behind the colon"
        ));
    }
    Ok((key, targets))
}

fn parse_key(text: &str) -> Result<Key, AddressError> {
    let quoted = || text.parse::<LocalPart>().ok();
    let is_quoted = text.starts_with('"');
    // Quotes around the whole are no part of it.
    let plain = if is_quoted { quoted() } else { None };
    let plain = plain.as_ref().map_or(text, LocalPart::as_str);
    if let Some(domain) = plain.strip_prefix('@') {
        return domain.parse().map(|domain| Key::domain(&domain));
    }
    if let Ok(mailbox) = plain.parse::<Mailbox>() {
        let domain = mailbox.domain().name().ok_or(AddressError::BadDomain)?;
        return Ok(Key::address(mailbox.local_part().as_str(), domain));
    }
    match is_quoted {
        true => text.parse(),
        false if plain.contains([' ', '\t', '"']) => Err(AddressError::BadLocalPart),
        false if plain.contains('@') => Err(AddressError::BadDomain),
        false => LocalPart::from_unquoted(plain),
    }
    .map(|name| Key::name(name.as_str()))
}

/// Where the first colon outside of quotes is.
fn find_colon(text: &str) -> Option<usize> {
    let mut is_quoted = false;
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' if is_quoted => drop(chars.next()),
            '"' => is_quoted = !is_quoted,
            ':' if !is_quoted => return Some(at),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(file: &str, key: &str, line: usize, expected: &[&str]) {
        let table = AliasTable::parse(file.as_bytes()).unwrap_or_else(|error| panic!("{error}"));
        let alias = table.find(&parse_key(key).unwrap()).unwrap_or_else(|| panic!("{file:?}"));
        let found: Vec<_> = alias.targets.iter().map(ToString::to_string).collect();
        assert_eq!((alias.line, found), (line, texts(expected)), "{file:?}");
    }

    fn texts(expected: &[&str]) -> Vec<String> {
        expected.iter().map(|&text| text.to_owned()).collect()
    }

    #[test]
    fn entries_are_read() {
        check("root: ann", "ROOT", 1, &["ann"]);
        check(
            "# c\n\nRoot :ann,bob ,\n# c\n\n  carl@x.test\n",
            "root",
            3,
            &["ann", "bob", "carl@x.test"],
        );
        check("\"a:b\": \"c, d\", e", "\"a:b\"", 1, &["<\"c, d\">", "e"]);
        check("a: \"c, d\"@x.test", "a", 1, &["<\"c, d\"@x.test>"]);
        check("a: Ann B. <ann@x.test>", "a", 1, &["ann@x.test"]);
        check(
            "a: \"|cmd 'x, y'\", |c, /f,\n\t:Include:/l",
            "a",
            1,
            &["\"|cmd 'x, y'\"", "\"|c\"", "\"/f\"", "\":include:/l\""],
        );
        check("a: \"|cmd x,\n  y\"", "a", 1, &["\"|cmd x, y\""]);
        check("a: \\A, \\b", "a", 1, &["\\A", "\\b"]);
        check("a: b\r\nc: d\r\n", "c", 2, &["d"]);
        check("a: b\na: c", "a", 1, &["b"]);
        check("Ann@X.test: b", "ann@x.TEST", 1, &["b"]);
        check("\"ann@x.test\": b", "ann@x.test", 1, &["b"]);
        check("\"a b\"@x.test: b", "\"a b\"@x.test", 1, &["b"]);
        check("@X.test: b", "\"@x.test\"", 1, &["b"]);
    }

    #[test]
    fn an_address_is_no_name_that_looks_like_it() {
        let table = AliasTable::parse(b"ann@x.test: b").unwrap();
        assert_eq!(table.find(&Key::name("ann@x.test")), None);
    }

    #[test]
    fn a_bad_line_is_named() {
        for (file, line, part) in [
            ("a: b\nroot", 2, "no colon"),
            ("  a: b", 1, "no line to continue"),
            ("a:", 1, "stands for nothing"),
            ("a: ,\n ,", 1, "stands for nothing"),
            (": b", 1, "before the colon"),
            ("a b: c", 1, "before the colon"),
            ("\"a: b", 1, "no colon"),
            ("a@: b", 1, "domain is malformed"),
            ("@: b", 1, "domain is malformed"),
            ("a@x_y: b", 1, "domain is malformed"),
            ("a@[192.0.2.1]: b", 1, "domain is malformed"),
            ("J\u{f6}rg: b", 1, "outside printable ASCII"),
            ("a: b c", 1, "no address"),
            ("a: b@", 1, "no address"),
            ("a: b@x_y", 1, "no address"),
            ("a: @x.test", 1, "no address"),
            ("\n\na: \u{e4}", 3, "no address"),
            ("a: \"|cmd\nb: c\"", 1, "never closed"),
        ] {
            let error = AliasTable::parse(file.as_bytes()).unwrap_err();
            assert_eq!(error.line, line, "{file:?}");
            assert!(error.text.contains(part), "{file:?}: {error}");
        }
        assert_eq!(AliasTable::parse(b"a: b\n\xff: c").unwrap_err().line, 2);
    }

    #[test]
    fn a_check_finds_all_that_is_wrong() {
        let (table, errors) = AliasTable::read(b"a: b c\nb: c\nB: d\n\xff\nc\nb : e\n@x.test: f");
        let lines: Vec<_> = errors.iter().map(|error| error.line).collect();
        assert_eq!(lines, [1, 4, 5]);
        let keys: Vec<_> =
            table.entries().iter().map(|(key, alias)| format!("{} {key}", alias.line)).collect();
        assert_eq!(keys, ["2 b", "7 @x.test"]);
        let repeated: Vec<_> =
            table.repeated().iter().map(|(line, key)| format!("{line} {key}")).collect();
        assert_eq!(repeated, ["3 b", "6 b"]);
    }

    proptest! {
        #[test]
        fn random_text_never_panics(
            octets in prop::collection::vec(any::<u8>(), 0..200),
            text in "[ab:,\"\\\\<>@|/# \n]{0,60}",
        ) {
            for octets in [octets.as_slice(), text.as_bytes()] {
                let (table, errors) = AliasTable::read(octets);
                prop_assert_eq!(AliasTable::parse(octets).is_ok(), errors.is_empty());
                prop_assert!(table.entries().iter().all(|(_, alias)| !alias.targets.is_empty()));
            }
        }

        #[test]
        fn what_is_printed_reads_back(names in prop::collection::vec("[ -~]{1,20}", 1..5)) {
            let names: Vec<_> =
                names.iter().map(|name| LocalPart::from_unquoted(name).unwrap()).collect();
            let targets: Vec<_> = names
                .into_iter()
                .flat_map(|name| {
                    let mailbox = format!("{name}@x.test").parse().unwrap();
                    [Target::Address(mailbox), Target::Mailbox(name.clone()), Target::Name(name)]
                })
                .collect();
            let list: Vec<_> = targets.iter().map(ToString::to_string).collect();
            let table = AliasTable::parse(format!("a: {}", list.join(",\n  ")).as_bytes()).unwrap();
            prop_assert_eq!(&table.find(&Key::name("a")).unwrap().targets, &targets);
        }
    }
}
