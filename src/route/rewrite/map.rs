//! The file of `[rewrite] map`: an address and what it becomes on each line.
//!
//! ```text
//! # old                 new
//! root                  me@example.com
//! ann@home.example      ann@example.com
//! "a b"@home.example    ab@example.com
//! @old.example          @new.example
//! ```
//!
//! Lines that begin with `#` are comments; a name that does stands in quotes. Addresses match in
//! any case.

use std::collections::HashMap;
use std::fmt;

use crate::mail::address::{AddressError, Domain, DomainName, LocalPart, Mailbox};

/// The largest such file, in octets.
pub const MAX_OCTETS: u64 = 1 << 20;

/// One version of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressMap {
    /// By the whole address, in lower case.
    mailboxes: HashMap<String, Mailbox>,
    /// By the local part of an address of this host, in lower case.
    names: HashMap<String, Mailbox>,
    domains: HashMap<Domain, NewDomain>,
}

/// What all addresses of a domain become.
#[derive(Clone, Debug, PartialEq, Eq)]
enum NewDomain {
    /// They keep their local parts.
    Domain(DomainName),
    /// One for all.
    Mailbox(Mailbox),
}

/// A line that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapError {
    /// The line, counted from 1.
    pub line: usize,
    /// What is wrong, and what to write.
    pub text: String,
}

impl fmt::Display for MapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.text)
    }
}

impl std::error::Error for MapError {}

impl AddressMap {
    /// Reads the file. Of an address that stands there twice the first line counts.
    ///
    /// # Errors
    /// The first line that cannot be read.
    pub fn parse(octets: &[u8]) -> Result<Self, MapError> {
        let mut map = Self::default();
        for (index, octets) in octets.split(|&octet| octet == b'\n').enumerate() {
            let error = |text: String| MapError { line: index + 1, text };
            let line = str::from_utf8(octets).map_err(|_| error("it is not UTF-8 text".into()))?;
            let line = line.trim();
            if !line.is_empty() && !line.starts_with('#') {
                map.add(line).map_err(error)?;
            }
        }
        Ok(map)
    }

    /// What `mailbox` becomes, if the file says so; `is_local` whether the name alone counts.
    pub fn find(&self, mailbox: &Mailbox, is_local: bool) -> Option<Mailbox> {
        let by_address = || self.mailboxes.get(&mailbox.to_string().to_ascii_lowercase());
        let by_name = || {
            let name = mailbox.local_part().as_str().to_ascii_lowercase();
            is_local.then(|| self.names.get(&name)).flatten()
        };
        if let Some(new) = by_address().or_else(by_name) {
            return Some(new.clone());
        }
        self.domains.get(mailbox.domain()).map(|new| match new {
            NewDomain::Domain(domain) => {
                Mailbox::new(mailbox.local_part().clone(), Domain::Name(domain.clone()))
            }
            NewDomain::Mailbox(new) => new.clone(),
        })
    }

    fn add(&mut self, line: &str) -> Result<(), String> {
        let words = words(line);
        let [old, new] = words[..] else {
            return Err("give two addresses, the old and the new one, with a blank between them; \
                        a comment has a line of its own"
                .to_owned());
        };
        if let Some(domain) = old.strip_prefix('@') {
            let domain = domain.parse().map_err(|error| no_address(old, error))?;
            let new = match new.strip_prefix('@') {
                Some(name) => name.parse().map(NewDomain::Domain),
                None => new.parse().map(NewDomain::Mailbox),
            };
            let new = new.map_err(|error| no_address(words[1], error))?;
            self.domains.entry(domain).or_insert(new);
            return Ok(());
        }
        let new = new.parse::<Mailbox>().map_err(|error| no_address(new, error))?;
        match old.parse::<Mailbox>() {
            Ok(mailbox) => {
                self.mailboxes.entry(mailbox.to_string().to_ascii_lowercase()).or_insert(new);
            }
            Err(AddressError::NoDomain) => {
                let name = old.parse::<LocalPart>().map_err(|error| no_address(old, error))?;
                self.names.entry(name.as_str().to_ascii_lowercase()).or_insert(new);
            }
            Err(error) => return Err(no_address(old, error)),
        }
        Ok(())
    }
}

fn no_address(text: &str, error: AddressError) -> String {
    format!("{text:?} is no address: {error}; write one such as ann@example.com")
}

/// What blanks outside of quotes separate.
fn words(line: &str) -> Vec<&str> {
    let (mut words, mut start) = (Vec::new(), 0);
    let (mut in_quotes, mut is_escaped) = (false, false);
    for (at, c) in line.char_indices() {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' if in_quotes => is_escaped = true,
            '"' => in_quotes = !in_quotes,
            c if c.is_whitespace() && !in_quotes => {
                words.push(&line[start..at]);
                start = at + c.len_utf8();
            }
            _ => {}
        }
    }
    words.push(&line[start..]);
    words.retain(|word| !word.is_empty());
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MAP: &str = "# people\n\nroot me@isp.test\r\nANN@home.test\tann@isp.test\n\
        \"a b\" ab@isp.test\n\"c \\\" d\"@x.test cd@isp.test\n@old.test @new.test\n\
        @lan.test lan@isp.test\n  root\u{a0}other@isp.test\n@[192.0.2.1] @new.test\n\"#1\" no1@isp.test\n";

    #[test]
    fn the_most_particular_line_counts() {
        let map = AddressMap::parse(MAP.as_bytes()).unwrap();
        for (address, is_local, expected) in [
            ("root@pi", true, Some("me@isp.test")),
            ("ROOT@old.test", true, Some("me@isp.test")),
            ("root@old.test", false, Some("root@new.test")),
            ("root@x.test", false, None),
            ("Ann@HOME.test", true, Some("ann@isp.test")),
            ("ann@pi", true, None),
            ("\"A b\"@pi", true, Some("ab@isp.test")),
            ("\"c \\\" d\"@x.test", false, Some("cd@isp.test")),
            ("#1@pi", true, Some("no1@isp.test")),
            ("\"e f\"@OLD.test", false, Some("\"e f\"@new.test")),
            ("printer@lan.test", false, Some("lan@isp.test")),
            ("root@[192.0.2.1]", false, Some("root@new.test")),
        ] {
            let found = map.find(&address.parse().unwrap(), is_local);
            assert_eq!(found.map(|new| new.to_string()).as_deref(), expected, "{address}");
        }
    }

    #[test]
    fn a_bad_line_is_named() {
        for (file, line, part) in [
            ("root", 1, "give two addresses"),
            ("root a@b c@d", 1, "give two addresses"),
            ("a@b c@d # why", 1, "a comment has a line of its own"),
            ("# x\n\nroot me", 3, "\"me\" is no address: the address has no domain"),
            ("root: me@isp.test", 1, "\"root:\" is no address"),
            ("root @isp.test", 1, "\"@isp.test\" is no address"),
            ("@old @", 1, "\"@\" is no address"),
            ("@ @new.test", 1, "\"@\" is no address"),
            ("a@b@c d@e", 1, "\"a@b@c\" is no address"),
            ("\"a b c@d", 1, "give two addresses"),
            ("r\u{f6}t me@isp.test", 1, "outside printable ASCII"),
        ] {
            let error = AddressMap::parse(file.as_bytes()).unwrap_err();
            assert!(error.line == line && error.text.contains(part), "{file:?}: {error}");
        }
        assert_eq!(AddressMap::parse(b"a b@c\n\xff").unwrap_err().line, 2);
    }

    proptest! {
        #[test]
        fn random_text_never_panics(octets in any::<Vec<u8>>(), text in "[a@.\"\\\\# \n]{0,40}") {
            let _ = (AddressMap::parse(&octets), AddressMap::parse(text.as_bytes()));
        }

        #[test]
        fn what_is_printed_reads_back(old in "[a-z][ -~]{0,20}", new in "[ -~]{1,20}") {
            let at = |name: &str, domain: &str| {
                let name = LocalPart::from_unquoted(name).unwrap();
                Mailbox::new(name, domain.parse().unwrap())
            };
            let (old, new) = (at(&old, "a.test"), at(&new, "b.test"));
            let map = AddressMap::parse(format!("{old} {new}").as_bytes()).unwrap();
            prop_assert_eq!(map.find(&old, false), Some(new));
        }
    }
}
