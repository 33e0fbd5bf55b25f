//! The alias file, in the form of aliases(5): `name: target, target`.
//!
//! A line that begins with a blank continues the one before, `#` begins a comment line, names
//! and targets may be quoted, names match in any case. Targets are names of this host and
//! addresses. Commands, files and `:include:` are read and remembered as what they are, so
//! that mail for them waits instead of going astray.

use std::collections::HashMap;

use crate::mail::address::{AddressError, LocalPart, Mailbox};
use crate::route::targets::AliasError;

/// The aliases of one version of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AliasTable {
    entries: HashMap<String, Alias>,
}

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alias {
    /// Where the name stands in the file, counted from 1.
    pub line: usize,
    /// The targets, in their order, at least one.
    pub targets: Vec<Target>,
}

/// One of the things that a name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A name of this host.
    Name(LocalPart),
    /// An address with a domain.
    Address(Mailbox),
    /// `|command`, `/file`, `:include:file` or `\name`, which are not served.
    Unserved(String),
}

impl AliasTable {
    /// Reads an alias file. Of a name that stands there twice the first entry counts.
    ///
    /// # Errors
    /// The first line that cannot be read.
    pub fn parse(octets: &[u8]) -> Result<Self, AliasError> {
        let mut entries = HashMap::new();
        for (line, text) in logical_lines(octets)? {
            let (name, alias) =
                parse_entry(line, &text).map_err(|text| AliasError { line, text })?;
            entries.entry(name).or_insert(alias);
        }
        Ok(Self { entries })
    }

    /// What `name`, in any case, stands for.
    pub fn find(&self, name: &str) -> Option<&Alias> {
        self.entries.get(&name.to_ascii_lowercase())
    }
}

/// Joins the lines that belong together, each with the number of its first one.
fn logical_lines(octets: &[u8]) -> Result<Vec<(usize, String)>, AliasError> {
    let mut lines: Vec<(usize, String)> = Vec::new();
    for (index, octets) in octets.split(|&octet| octet == b'\n').enumerate() {
        let line = index + 1;
        let error = |text: &str| AliasError { line, text: text.to_owned() };
        let text = str::from_utf8(octets).map_err(|_| error("it is not UTF-8 text"))?;
        let trimmed = text.trim();
        if trimmed.is_empty() || trimmed.starts_with('#') {
            continue;
        }
        if !text.starts_with([' ', '\t']) {
            lines.push((line, trimmed.to_owned()));
            continue;
        }
        let Some((_, before)) = lines.last_mut() else {
            return Err(error("it begins with a blank, but there is no line to continue"));
        };
        before.push(' ');
        before.push_str(trimmed);
    }
    Ok(lines)
}

fn parse_entry(line: usize, text: &str) -> Result<(String, Alias), String> {
    let colon = find_unquoted(text, ':').ok_or("there is no colon: write `name: target`")?;
    let name = unquoted(text[..colon].trim());
    if name.contains('@') {
        return Err(format!("{name:?} has a domain: before the colon stands a name of this host"));
    }
    let local_part = LocalPart::from_unquoted(&name)
        .map_err(|_| format!("{name:?} is no name: it is empty, too long or not ASCII"))?;
    let mut targets = Vec::new();
    let mut rest = text[colon + 1..].trim();
    while !rest.is_empty() {
        let comma = find_unquoted(rest, ',').unwrap_or(rest.len());
        let target = rest[..comma].trim();
        rest = rest.get(comma + 1..).unwrap_or("").trim();
        if !target.is_empty() {
            targets.push(parse_target(target, &local_part)?);
        }
    }
    if targets.is_empty() {
        return Err(format!(
            "{name:?} stands for nothing: write a name or address behind the colon"
        ));
    }
    Ok((name.to_ascii_lowercase(), Alias { line, targets }))
}

/// Reads one target of the alias `name`.
fn parse_target(text: &str, name: &LocalPart) -> Result<Target, String> {
    let plain = unquoted(text);
    if let Some(itself) = plain.strip_prefix('\\') {
        // `\root` in the entry of root is what `root` is: the mailbox behind the alias.
        let is_itself = itself.eq_ignore_ascii_case(name.as_str());
        return Ok(if is_itself { Target::Name(name.clone()) } else { Target::Unserved(plain) });
    }
    if plain.starts_with(['|', '/']) || starts_with_include(&plain) {
        return Ok(Target::Unserved(plain));
    }
    // `Ann <ann@example.org>` is what people paste.
    let address = match text.rsplit_once('<') {
        Some((_, inside)) => inside.strip_suffix('>').unwrap_or(text).trim(),
        None => text,
    };
    let error = |reason: AddressError| format!("{text:?} is no address: {reason}");
    if find_unquoted(address, '@').is_some() {
        return address.parse().map(Target::Address).map_err(error);
    }
    let local_part = match address.strip_prefix('"') {
        Some(_) => address.parse(),
        None if address.contains([' ', '"']) => Err(AddressError::BadLocalPart),
        None => LocalPart::from_unquoted(address),
    };
    local_part.map(Target::Name).map_err(error)
}

fn starts_with_include(target: &str) -> bool {
    const TAG: &str = ":include:";
    target.get(..TAG.len()).is_some_and(|tag| tag.eq_ignore_ascii_case(TAG))
}

/// Where `wanted` stands first outside of quotes.
fn find_unquoted(text: &str, wanted: char) -> Option<usize> {
    let mut is_quoted = false;
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => is_quoted = !is_quoted,
            '\\' if is_quoted => drop(chars.next()),
            c if c == wanted && !is_quoted => return Some(at),
            _ => {}
        }
    }
    None
}

/// The content of a text that is quoted as a whole; any other text as it is.
fn unquoted(text: &str) -> String {
    let Some(inside) = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')) else {
        return text.to_owned();
    };
    let mut content = String::new();
    let mut chars = inside.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => return text.to_owned(),
            '\\' => content.extend(chars.next()),
            _ => content.push(c),
        }
    }
    content
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn printed(targets: &[Target]) -> Vec<String> {
        let print = |target: &Target| match target {
            Target::Name(name) => format!("name {name}"),
            Target::Address(address) => format!("address {address}"),
            Target::Unserved(text) => format!("unserved {text}"),
        };
        targets.iter().map(print).collect()
    }

    fn check(file: &str, name: &str, line: usize, expected: &[&str]) {
        let table = AliasTable::parse(file.as_bytes()).unwrap();
        let alias = table.find(name).unwrap();
        assert_eq!((alias.line, printed(&alias.targets)), (line, texts(expected)), "{file:?}");
    }

    fn texts(expected: &[&str]) -> Vec<String> {
        expected.iter().map(|&text| text.to_owned()).collect()
    }

    #[test]
    fn entries_are_read() {
        check("root: ann", "ROOT", 1, &["name ann"]);
        check(
            "# c\n\nRoot :ann,bob ,\n# c\n\n  carl@x.test\n",
            "root",
            3,
            &["name ann", "name bob", "address carl@x.test"],
        );
        check("\"a:b\": \"c, d\", e", "a:b", 1, &["name \"c, d\"", "name e"]);
        check("a: \"c, d\"@x.test", "a", 1, &["address \"c, d\"@x.test"]);
        check("a: Ann B. <ann@x.test>", "a", 1, &["address ann@x.test"]);
        check(
            "a: \"|cmd 'x, y'\", |c, /f, :Include:/l",
            "a",
            1,
            &["unserved |cmd 'x, y'", "unserved |c", "unserved /f", "unserved :Include:/l"],
        );
        check("a: \\A, \\b", "a", 1, &["name a", "unserved \\b"]);
        check("a: b\r\nc: d\r\n", "c", 2, &["name d"]);
        check("a: b\na: c", "a", 1, &["name b"]);
    }

    #[test]
    fn a_bad_line_is_named() {
        for (file, line, part) in [
            ("a: b\nroot", 2, "no colon"),
            ("  a: b", 1, "no line to continue"),
            ("a:", 1, "stands for nothing"),
            ("a: ,\n ,", 1, "stands for nothing"),
            (": b", 1, "no name"),
            ("a@x.test: b", 1, "has a domain"),
            ("a: b c", 1, "no address"),
            ("a: b@", 1, "no address"),
            ("a: b@x_y", 1, "no address"),
            ("\n\na: \u{e4}", 3, "no address"),
        ] {
            let error = AliasTable::parse(file.as_bytes()).unwrap_err();
            assert_eq!(error.line, line, "{file:?}");
            assert!(error.text.contains(part), "{file:?}: {error}");
        }
        assert_eq!(AliasTable::parse(b"a: b\n\xff: c").unwrap_err().line, 2);
    }

    proptest! {
        #[test]
        fn random_text_never_panics(
            octets in prop::collection::vec(any::<u8>(), 0..200),
            text in "[ab:,\"\\\\<>@|/# \n]{0,60}",
        ) {
            let _ = AliasTable::parse(&octets);
            let _ = AliasTable::parse(text.as_bytes());
        }

        #[test]
        fn what_is_printed_reads_back(names in prop::collection::vec("[a-z][ -~]{0,20}", 1..5)) {
            let names: Vec<_> =
                names.iter().map(|name| LocalPart::from_unquoted(name).unwrap()).collect();
            let list: Vec<_> = names.iter().map(|name| format!("{name}@x.test")).collect();
            let table = AliasTable::parse(format!("a: {}", list.join(", ")).as_bytes()).unwrap();
            let expected: Vec<_> = list.iter().map(|text| format!("address {text}")).collect();
            prop_assert_eq!(printed(&table.find("a").unwrap().targets), expected);
        }
    }
}
