//! The addresses in a header field such as To (RFC 5322 §3.4): display names, comments,
//! groups, quoted strings and folds, read leniently, since people and scripts write them.

use crate::mail::address::{AddressError, Domain, DomainName, LocalPart, Mailbox};

/// The address specs of a field body, in their order, without names and comments: `ann` or
/// `ann@example.org`, neither checked nor completed. Octets that are not UTF-8 stand as `?`.
pub fn specs(body: &[u8]) -> Vec<String> {
    let mut scanner = Scanner::default();
    String::from_utf8_lossy(body).chars().for_each(|c| scanner.take(c));
    scanner.end_of_address();
    scanner.specs
}

/// The mailbox that a spec means; `origin` is the domain of one that has none.
///
/// # Errors
/// Why it is no address.
pub fn complete(spec: &str, origin: &DomainName) -> Result<Mailbox, AddressError> {
    match spec.parse() {
        Err(AddressError::NoDomain) => {
            let local_part = spec.parse::<LocalPart>()?;
            Ok(Mailbox::new(local_part, Domain::Name(origin.clone())))
        }
        mailbox => mailbox,
    }
}

/// Where in a field body the scanner is.
#[derive(Debug, Default)]
struct Scanner {
    specs: Vec<String>,
    /// What stands outside of angle brackets and comments.
    plain: String,
    /// What stands in angle brackets, if there were any.
    angle: Option<String>,
    in_angle: bool,
    in_quotes: bool,
    is_escaped: bool,
    comments: u32,
}

impl Scanner {
    fn take(&mut self, c: char) {
        if self.is_escaped {
            self.is_escaped = false;
            return self.keep(c);
        }
        match c {
            '\\' if self.in_quotes || self.comments > 0 => {
                self.is_escaped = true;
                self.keep(c);
            }
            '"' if self.comments == 0 => {
                self.in_quotes = !self.in_quotes;
                self.keep(c);
            }
            _ if self.in_quotes => {
                // A fold within quotes is no part of them (RFC 5322 §3.2.4).
                if !matches!(c, '\r' | '\n') {
                    self.keep(c);
                }
            }
            '(' => self.comments = self.comments.saturating_add(1),
            ')' => self.comments = self.comments.saturating_sub(1),
            _ if self.comments > 0 => {}
            '<' => {
                self.in_angle = true;
                self.angle = Some(String::new());
            }
            '>' => self.in_angle = false,
            ',' | ';' if !self.in_angle => self.end_of_address(),
            // `group: ann, bob;` begins anew behind its name, a source route behind itself.
            ':' if !is_in_literal(&self.plain) && !self.in_angle => self.plain.clear(),
            ':' if self.angle.as_ref().is_some_and(|path| ends_route(path)) => {
                self.angle = Some(String::new());
            }
            _ if c.is_whitespace() => {}
            _ => self.keep(c),
        }
    }

    fn keep(&mut self, c: char) {
        if self.comments > 0 {
            return;
        }
        match &mut self.angle {
            Some(path) if self.in_angle => path.push(c),
            _ => self.plain.push(c),
        }
    }

    fn end_of_address(&mut self) {
        let plain = std::mem::take(&mut self.plain);
        let spec = self.angle.take().unwrap_or(plain);
        if !spec.is_empty() {
            self.specs.push(spec);
        }
        self.in_angle = false;
    }
}

/// Whether `text` ends within the brackets of an address literal.
fn is_in_literal(text: &str) -> bool {
    text.rfind('[') > text.rfind(']')
}

/// Whether a colon behind this part of a path ends its source route.
fn ends_route(path: &str) -> bool {
    path.starts_with('@') && !is_in_literal(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn addresses_are_found_in_what_people_write() {
        for (body, expected) in [
            ("", &[][..]),
            (" ann@a.test\r\n", &["ann@a.test"]),
            ("ann", &["ann"]),
            ("ann, bob@b.test ,\r\n carl", &["ann", "bob@b.test", "carl"]),
            ("Ann B. <ann@a.test>, <bob>", &["ann@a.test", "bob"]),
            ("\"B, Ann\" <ann@a.test>", &["ann@a.test"]),
            ("\"Ann <x@y>\" <ann@a.test>", &["ann@a.test"]),
            ("ann@a.test (Ann, the (other) one)", &["ann@a.test"]),
            ("ann(c)@(d)a.test", &["ann@a.test"]),
            ("staff: ann@a.test, Bob <bob@b.test>; carl", &["ann@a.test", "bob@b.test", "carl"]),
            ("undisclosed-recipients:;", &[]),
            ("\"a b\"@c.test", &["\"a b\"@c.test"]),
            ("\"a\\\"b\"@c.test", &["\"a\\\"b\"@c.test"]),
            ("<@r.test,@s.test:ann@a.test>", &["ann@a.test"]),
            ("=?utf-8?q?=C3=84nn?= <ann@a.test>", &["ann@a.test"]),
            ("ann @ a . test", &["ann@a.test"]),
            ("a@[IPv6:::1], <b@[IPv6:::1]>", &["a@[IPv6:::1]", "b@[IPv6:::1]"]),
            ("<@[IPv6:::1],@r.test:a@b.test>", &["a@b.test"]),
            (",,;", &[]),
        ] {
            assert_eq!(specs(body.as_bytes()), expected, "{body:?}");
        }
    }

    #[test]
    fn a_name_without_domain_is_completed() {
        let origin = "home.test".parse().unwrap();
        assert_eq!(complete("root", &origin).unwrap().to_string(), "root@home.test");
        assert_eq!(complete("a@b.test", &origin).unwrap().to_string(), "a@b.test");
        assert_eq!(complete("a b", &origin), Err(AddressError::BadLocalPart));
        assert_eq!(complete("a@", &origin), Err(AddressError::BadLocalPart));
    }

    proptest! {
        #[test]
        fn random_bodies_never_panic(body in any::<Vec<u8>>(), near in "[a@,;:<>()\"\\\\\\[\\] ]{0,30}") {
            specs(&body);
            specs(near.as_bytes());
        }
    }
}
