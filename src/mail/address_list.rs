//! The addresses in a header field such as To (RFC 5322 §3.4): display names, comments,
//! groups, quoted strings and folds, read leniently, since people and scripts write them.

use std::ops::Range;

use crate::mail::address::{AddressError, Domain, DomainName, LocalPart, Mailbox};
use crate::mail::encoded_word::is_encoded_word;

/// An address in a field body, neither checked nor completed: `ann` or `ann@example.org`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// The address without name, comments, blanks and folds. Where some of these stand within a
    /// word (RFC 5322 §4.4 lets them stand around dots and the `@`) there is one blank, which makes
    /// it no address. Octets that are not UTF-8 stand as U+FFFD.
    pub text: String,
    /// From its first octet in the body up to behind its last one.
    pub span: Range<usize>,
    /// All that belongs to it, names and comments included: what stands between the separators
    /// before and behind it.
    pub element: Range<usize>,
}

/// The addresses of a field body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressList {
    /// In their order.
    pub specs: Vec<Spec>,
    /// Whether every reader must find the same ones: nothing is open at the end, nothing stands
    /// behind an angle bracket, no address is torn apart or told as a name for another, and no
    /// name has what belongs into quotes.
    pub is_certain: bool,
}

/// Reads a field body.
pub fn read(body: &[u8]) -> AddressList {
    let mut scanner = Scanner::default();
    let mut at = 0;
    for chunk in body.utf8_chunks() {
        for c in chunk.valid().chars() {
            let start = at;
            at += c.len_utf8();
            scanner.take(c, start..at);
        }
        let start = at;
        at += chunk.invalid().len();
        if at > start {
            scanner.take(char::REPLACEMENT_CHARACTER, start..at);
        }
    }
    let is_open = scanner.in_quotes || scanner.in_angle || scanner.comments > 0;
    scanner.end_of_address(at..at);
    let Scanner { specs, is_doubtful, .. } = scanner;
    let is_whole = |spec: &Spec| body.get(spec.span.clone()) == Some(spec.text.as_bytes());
    let is_certain = !is_open && !is_doubtful && specs.iter().all(is_whole);
    AddressList { specs, is_certain }
}

/// The address specs of a field body, in their order, without names and comments: `ann` or
/// `ann@example.org`, neither checked nor completed.
pub fn specs(body: &[u8]) -> Vec<String> {
    read(body).specs.into_iter().map(|spec| spec.text).collect()
}

/// The mailbox that a spec means; `origin` is the domain of one that has none. An encoded word is
/// a display name, though a local part has the same characters (RFC 2047 §5).
///
/// # Errors
/// Why it is no address.
pub fn complete(spec: &str, origin: &DomainName) -> Result<Mailbox, AddressError> {
    match spec.parse() {
        Err(AddressError::NoDomain) if is_encoded_word(spec) => Err(AddressError::BadLocalPart),
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
    specs: Vec<Spec>,
    /// What stands outside of angle brackets and comments.
    plain: Kept,
    /// What stands in angle brackets, if there were any.
    angle: Option<Kept>,
    in_angle: bool,
    in_quotes: bool,
    is_escaped: bool,
    comments: u32,
    /// Where what belongs to the address at hand begins.
    begin: usize,
    /// Readers may disagree about what was read so far.
    is_doubtful: bool,
}

/// Characters that belong together, and where the first and the last one stood.
#[derive(Debug, Default)]
struct Kept {
    text: String,
    span: Range<usize>,
    /// Whether there is an `@` outside of quotes.
    has_at: bool,
    /// Whether there is what no name has outside of quotes (RFC 5322 §3.2.3), and where some
    /// readers think that an address ended.
    has_stray: bool,
    /// Whether blanks or comments stand behind its last character.
    is_apart: bool,
    /// Whether they stand where none may be, so that it is torn apart.
    is_torn: bool,
    /// Whether it ends within the brackets of an address literal, where blanks mean nothing.
    in_literal: bool,
}

impl Kept {
    fn push(&mut self, c: char, at: Range<usize>) {
        if self.text.is_empty() {
            self.span.start = at.start;
        }
        let is_joint = |c| matches!(c, '.' | '@');
        let is_apart = std::mem::take(&mut self.is_apart) && !self.in_literal && !is_joint(c);
        if is_apart && self.text.chars().next_back().is_some_and(|last| !is_joint(last)) {
            self.text.push(' ');
            self.is_torn = true;
        }
        self.text.push(c);
        self.span.end = at.end;
    }
}

impl Scanner {
    fn take(&mut self, c: char, at: Range<usize>) {
        // To some readers it is the end of everything.
        self.is_doubtful |= c == '\0';
        if self.is_escaped {
            self.is_escaped = false;
            return self.keep(c, at);
        }
        match c {
            '\\' if self.in_quotes || self.comments > 0 => {
                self.is_escaped = true;
                self.keep(c, at);
            }
            '"' if self.comments == 0 => {
                self.in_quotes = !self.in_quotes;
                self.keep(c, at);
            }
            _ if self.in_quotes => {
                // A fold within quotes is no part of them (RFC 5322 §3.2.4).
                if !matches!(c, '\r' | '\n') {
                    self.keep(c, at);
                }
            }
            '(' => {
                self.comments = self.comments.saturating_add(1);
                self.at_hand().is_apart = true;
            }
            ')' => {
                self.is_doubtful |= self.comments == 0;
                self.comments = self.comments.saturating_sub(1);
            }
            _ if self.comments > 0 => {}
            '<' => {
                self.is_doubtful |= self.angle.is_some();
                self.in_angle = true;
                self.angle = Some(Kept::default());
            }
            '>' => {
                self.is_doubtful |= !self.in_angle;
                self.in_angle = false;
            }
            ',' | ';' if !self.in_angle => self.end_of_address(at),
            // `group: ann, bob;` begins anew behind its name, a source route behind itself.
            ':' if !is_in_literal(&self.plain.text) && !self.in_angle => {
                self.is_doubtful |=
                    self.plain.has_at || self.plain.has_stray || self.angle.is_some();
                self.plain = Kept::default();
                if self.angle.is_none() {
                    self.begin = at.end;
                }
            }
            ':' if self.angle.as_ref().is_some_and(|path| ends_route(&path.text)) => {
                self.angle = Some(Kept::default());
            }
            _ if c.is_whitespace() => {
                self.is_doubtful |= matches!(c, '\u{b}' | '\u{c}');
                self.at_hand().is_apart = true;
            }
            _ => self.keep(c, at),
        }
    }

    fn keep(&mut self, c: char, at: Range<usize>) {
        if self.comments > 0 {
            return;
        }
        let is_behind = self.angle.is_some() && !self.in_angle;
        self.is_doubtful |= is_behind;
        let in_quotes = self.in_quotes;
        let kept = self.at_hand();
        kept.push(c, at);
        if !in_quotes {
            kept.has_at |= c == '@';
            kept.has_stray |= matches!(c, '[' | ']' | '\\') || c.is_control();
            kept.in_literal = c == '[' || kept.in_literal && c != ']';
        }
    }

    /// What the next character belongs to.
    const fn at_hand(&mut self) -> &mut Kept {
        match &mut self.angle {
            Some(path) if self.in_angle => path,
            _ => &mut self.plain,
        }
    }

    fn end_of_address(&mut self, separator: Range<usize>) {
        let plain = std::mem::take(&mut self.plain);
        let spec = match self.angle.take() {
            Some(angle) => {
                // `ann@example.org <ann@example.org>` is common, and says nothing false.
                let is_same = plain.text.eq_ignore_ascii_case(&angle.text);
                self.is_doubtful |= (plain.has_at || plain.has_stray) && !is_same;
                angle
            }
            None => plain,
        };
        self.is_doubtful |= spec.is_torn;
        if !spec.text.is_empty() {
            let element = self.begin..separator.start;
            self.specs.push(Spec { text: spec.text, span: spec.span, element });
        }
        self.begin = separator.end;
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
            ("a@[ 192.0.2.1 ], <a@[IPv6:\r\n ::1] >", &["a@[192.0.2.1]", "a@[IPv6:::1]"]),
            ("a@[IPv6:::1], <b@[IPv6:::1]>", &["a@[IPv6:::1]", "b@[IPv6:::1]"]),
            ("<@[IPv6:::1],@r.test:a@b.test>", &["a@b.test"]),
            (",,;", &[]),
            // What is torn apart is not put together.
            ("ann bob, Ann e", &["ann bob", "Ann e"]),
            ("ann(x)e", &["ann e"]),
            ("<ann\t (x)\r\n e@a.test>", &["ann e@a.test"]),
            ("ann@a.test bob@b.test", &["ann@a.test bob@b.test"]),
            ("ann@a.te st", &["ann@a.te st"]),
            ("\"ann\" e@a.test", &["\"ann\" e@a.test"]),
            ("my staff: ann ;", &["ann"]),
        ] {
            assert_eq!(specs(body.as_bytes()), expected, "{body:?}");
        }
    }

    #[test]
    fn an_address_stands_where_it_is_said_to_stand() {
        let body = " ann, \u{c4}nn <bob> , Carl (c) <\"d e\"> (x)\r\n\t,f(g)".as_bytes();
        let list = read(body);
        assert!(list.is_certain);
        let found: Vec<_> = list.specs.iter().map(|spec| &body[spec.span.clone()]).collect();
        assert_eq!(found, [&b"ann"[..], b"bob", b"\"d e\"", b"f"]);
        let latin = b"J\xf6rg <ann>, J\xf6rg Ann";
        assert_eq!(read(latin).specs[0].span, 6..9);
        assert!(!read(latin).is_certain);
    }

    #[test]
    fn a_name_and_comments_belong_to_their_address() {
        let body = b" Ann <a>,(x) b (y) ;, g: , c,d (z): e";
        let elements: Vec<_> =
            read(body).specs.into_iter().map(|spec| &body[spec.element]).collect();
        assert_eq!(elements, [&b" Ann <a>"[..], b"(x) b (y) ", b" c", b" e"]);
    }

    #[test]
    fn what_readers_may_understand_in_two_ways_is_doubtful() {
        for (body, is_certain) in [
            ("", true),
            ("Ann B. <ann@a.test>, (x) bob@b.test (Bob)", true),
            ("\"ann@a.test, x\" <bob@b.test>", true),
            ("ANN@a.test <ann@a.test>", true),
            ("staff: ann@a.test, Bob <bob@b.test>;", true),
            ("<@r.test:ann@a.test>", true),
            ("a@[IPv6:::1]", true),
            ("bob@b.test <ann@a.test>", false),
            ("<bob@b.test> <ann@a.test>", false),
            ("<ann@a.test> bob@b.test", false),
            ("<ann@a.test> \"x\"", false),
            ("bob@b.test: ann@a.test", false),
            ("<bob@b.test>: ann@a.test", false),
            ("a nn@a.test", false),
            ("Bob ann@a.test", false),
            ("ann@a.test (x, bob@b.test", false),
            ("ann@a.test) bob", false),
            ("ann@a.test>", false),
            ("<ann@a.test", false),
            ("\"ann@a.test", false),
            ("ann\u{a0}@a.test", false),
            // To some readers the address ends before what is not allowed in a name.
            ("Bob[ <ann@a.test>", false),
            ("Bob ] <ann@a.test>", false),
            ("Bob \\ <ann@a.test>", false),
            ("Bob[: ann@a.test;", false),
            ("Bob\u{b} <ann@a.test>", false),
            ("\"bob@b.test\0\" <ann@a.test>", false),
            ("\"Bob [x]\" <ann@a.test> (\\[)", true),
        ] {
            assert_eq!(read(body.as_bytes()).is_certain, is_certain, "{body:?}");
        }
    }

    #[test]
    fn a_name_without_domain_is_completed() {
        let origin = "home.test".parse().unwrap();
        assert_eq!(complete("root", &origin).unwrap().to_string(), "root@home.test");
        assert_eq!(complete("a@b.test", &origin).unwrap().to_string(), "a@b.test");
        assert_eq!(complete("a b", &origin), Err(AddressError::BadLocalPart));
        assert_eq!(complete("=?utf-8?q?J=C3=B6?=", &origin), Err(AddressError::BadLocalPart));
        assert_eq!(complete("a@", &origin), Err(AddressError::BadLocalPart));
    }

    proptest! {
        #[test]
        fn blanks_and_comments_stand_around_dots_and_the_at_only(
            words in prop::collection::vec("[a-z0-9]{1,5}|\"[a-z .@]{1,3}\"", 2..5),
            joints in prop::collection::vec("[.@ ]", 4),
            gaps in prop::collection::vec("( |\t|\\(x\\)|\r\n ){0,2}", 8),
        ) {
            let (mut body, mut whole, mut is_torn) = (words[0].clone(), words[0].clone(), false);
            for (at, word) in words[1..].iter().enumerate() {
                let joint = joints[at].trim();
                is_torn |= joint.is_empty();
                let (before, behind) = (&gaps[2 * at], &gaps[2 * at + 1]);
                let blank = if joint.is_empty() { " " } else { "" };
                body.push_str(&format!("{before}{blank}{joint}{behind}{word}"));
                whole.push_str(&format!("{joint}{word}"));
            }
            let origin = "home.test".parse().unwrap();
            let found = specs(body.as_bytes());
            prop_assert_eq!(found.len(), 1);
            if is_torn {
                prop_assert!(complete(&found[0], &origin).is_err(), "{:?}", body);
                prop_assert!(!read(body.as_bytes()).is_certain);
            } else {
                prop_assert_eq!(&found[0], &whole);
            }
        }

        #[test]
        fn random_bodies_never_panic(body in any::<Vec<u8>>(), near in "[a@,;:<>()\"\\\\\\[\\] ]{0,30}") {
            for body in [body.as_slice(), near.as_bytes()] {
                for spec in read(body).specs {
                    prop_assert!(spec.element.start <= spec.span.start);
                    prop_assert!(spec.span.end <= spec.element.end);
                    prop_assert!(body.get(spec.span).is_some_and(|octets| !octets.is_empty()));
                }
            }
        }
    }
}
