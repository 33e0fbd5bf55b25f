//! Addresses as the envelope carries them (RFC 5321 §4.1.2 and §4.1.3).
//!
//! A value of these types can only be made by parsing, so whoever takes one never checks
//! again: a [`LocalPart`] holds no control character, a [`Domain`] only letters, digits,
//! hyphens and dots. Printing yields the shortest form that reads back as the same value.
//!
//! A path is `"<" [source-route ":"] mailbox ">"`; the source route is read and dropped
//! (RFC 5321 appendix C). [`path_in`] finds where a path ends in a command line.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// The longest local part, in octets, without its quotes. RFC 5321 §4.5.3.1.1 wants 64.
pub const MAX_LOCAL_PART: usize = 128;
/// The longest domain, in octets (RFC 5321 §4.5.3.1.2).
pub const MAX_DOMAIN: usize = 255;
/// The longest label of a domain, in octets (RFC 1035 §2.3.4).
const MAX_LABEL: usize = 63;
/// The longest path with its angle brackets and source route. RFC 5321 §4.5.3.1.3 wants 256.
const MAX_PATH: usize = 1024;

/// Why a text is no address. `Display` is one sentence that fits into a 501 or 553 reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressError {
    /// A path does not begin with `<` or does not end with `>`.
    NoBrackets,
    /// There is no `@` and no domain behind it.
    NoDomain,
    /// The local part is empty, has a character that must be quoted, or a quote is open.
    BadLocalPart,
    /// The domain is empty or has a character or label that no domain has.
    BadDomain,
    /// The text in `[…]` is no IPv4 or IPv6 address.
    BadLiteral,
    /// The source route is not of the form `@domain,@domain:`.
    BadSourceRoute,
    /// A part is longer than we take.
    TooLong,
    /// A character beyond printable ASCII, which only SMTPUTF8 could carry (RFC 6531).
    NotAscii,
}

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoBrackets => "an address stands in angle brackets: <user@domain>",
            Self::NoDomain => "the address has no domain",
            Self::BadLocalPart => "the part before the @ is malformed",
            Self::BadDomain => "the domain is malformed",
            Self::BadLiteral => "the address literal is no IPv4 or IPv6 address",
            Self::BadSourceRoute => "the source route is malformed",
            Self::TooLong => "the address is too long",
            Self::NotAscii => "the address has a character outside printable ASCII",
        })
    }
}

impl std::error::Error for AddressError {}

/// The part before the `@`, unquoted: 1 to [`MAX_LOCAL_PART`] printable ASCII characters,
/// blanks included. (RFC 5321 allows an empty `""`; no mailbox here has such a name.)
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LocalPart(Box<str>);

impl LocalPart {
    /// The local part without quotes or backslashes. It may hold any printable ASCII
    /// character, so it is no path, no shell word and no header as it stands.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Reads `text` as it stands, not as quoted: what a program, not a peer, gives.
    ///
    /// # Errors
    /// When it is empty, too long, or not printable ASCII.
    pub fn from_unquoted(text: &str) -> Result<Self, AddressError> {
        if !text.bytes().all(|b| (b' '..=b'~').contains(&b)) {
            return Err(AddressError::NotAscii);
        }
        match text.len() {
            0 => Err(AddressError::BadLocalPart),
            1..=MAX_LOCAL_PART => Ok(Self(text.into())),
            _ => Err(AddressError::TooLong),
        }
    }
}

/// With quotes only where RFC 5321 §4.1.2 needs them.
impl fmt::Display for LocalPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if is_dot_string(&self.0) {
            return f.write_str(&self.0);
        }
        f.write_str("\"")?;
        for c in self.0.chars() {
            if matches!(c, '"' | '\\') {
                f.write_str("\\")?;
            }
            write!(f, "{c}")?;
        }
        f.write_str("\"")
    }
}

/// `Dot-string` or `Quoted-string` (RFC 5321 §4.1.2).
impl FromStr for LocalPart {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let (local_part, rest) = local_part_in(text)?;
        if rest.is_empty() { Ok(local_part) } else { Err(AddressError::BadLocalPart) }
    }
}

/// A domain name: labels of letters, digits and inner hyphens, kept as it was written,
/// compared without regard to case.
#[derive(Clone, Debug)]
pub struct DomainName(Box<str>);

impl DomainName {
    /// The name as it was written, without a final dot.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name in lower case: a key to look it up with.
    pub fn to_lowercase(&self) -> String {
        self.0.to_ascii_lowercase()
    }
}

impl PartialEq for DomainName {
    fn eq(&self, other: &Self) -> bool {
        self.0.eq_ignore_ascii_case(&other.0)
    }
}

impl Eq for DomainName {}

impl std::hash::Hash for DomainName {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        for octet in self.0.bytes() {
            state.write_u8(octet.to_ascii_lowercase());
        }
    }
}

impl fmt::Display for DomainName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// `sub-domain *("." sub-domain)` (RFC 5321 §4.1.2). One final dot is dropped, since people
/// and DNS tools write it.
impl FromStr for DomainName {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let name = text.strip_suffix('.').unwrap_or(text);
        if !name.is_ascii() {
            return Err(AddressError::NotAscii);
        }
        if name.len() > MAX_DOMAIN {
            return Err(AddressError::TooLong);
        }
        if name.split('.').all(is_label) {
            Ok(Self(name.into()))
        } else {
            Err(AddressError::BadDomain)
        }
    }
}

fn is_label(label: &str) -> bool {
    (1..=MAX_LABEL).contains(&label.len())
        && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        && !label.starts_with('-')
        && !label.ends_with('-')
}

/// What stands behind the `@`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Domain {
    /// A name, to be looked up in the DNS.
    Name(DomainName),
    /// `[192.0.2.1]` or `[IPv6:2001:db8::1]` (RFC 5321 §4.1.3).
    Literal(IpAddr),
}

impl Domain {
    /// The name, unless it is an address literal.
    pub fn name(&self) -> Option<&DomainName> {
        match self {
            Self::Name(name) => Some(name),
            Self::Literal(_) => None,
        }
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => name.fmt(f),
            Self::Literal(IpAddr::V4(address)) => write!(f, "[{address}]"),
            Self::Literal(IpAddr::V6(address)) => write!(f, "[IPv6:{address}]"),
        }
    }
}

/// `Domain / address-literal` (RFC 5321 §4.1.2). A general address literal is refused: no
/// tag but IPv6 was ever registered.
impl FromStr for Domain {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if let Some(literal) = text.strip_prefix('[') {
            let literal = literal.strip_suffix(']').ok_or(AddressError::BadLiteral)?;
            return literal_address(literal).map(Self::Literal).ok_or(AddressError::BadLiteral);
        }
        text.parse().map(Self::Name)
    }
}

fn literal_address(literal: &str) -> Option<IpAddr> {
    const TAG: &str = "IPv6:";
    match literal.get(..TAG.len()) {
        Some(tag) if tag.eq_ignore_ascii_case(TAG) => {
            literal[TAG.len()..].parse::<Ipv6Addr>().ok().map(IpAddr::V6)
        }
        _ => literal.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
    }
}

/// `Local-part "@" ( Domain / address-literal )` (RFC 5321 §4.1.2).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Mailbox {
    local_part: LocalPart,
    domain: Domain,
}

impl Mailbox {
    /// The mailbox of `local_part` at `domain`.
    pub const fn new(local_part: LocalPart, domain: Domain) -> Self {
        Self { local_part, domain }
    }

    /// What stands before the `@`, unquoted.
    pub const fn local_part(&self) -> &LocalPart {
        &self.local_part
    }

    /// What stands behind the `@`.
    pub const fn domain(&self) -> &Domain {
        &self.domain
    }
}

impl fmt::Display for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.local_part, self.domain)
    }
}

impl FromStr for Mailbox {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let (local_part, rest) = local_part_in(text)?;
        let domain = rest.strip_prefix('@').ok_or(AddressError::NoDomain)?;
        if domain.is_empty() {
            return Err(AddressError::NoDomain);
        }
        Ok(Self { local_part, domain: domain.parse()? })
    }
}

/// Where delivery reports go: the argument of MAIL FROM (RFC 5321 §4.1.1.2).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ReversePath {
    /// `<>`, the sender of every DSN. Never answered with a DSN (RFC 5321 §4.5.5).
    Null,
    /// Somebody who wants to know.
    Mailbox(Mailbox),
}

impl ReversePath {
    /// The mailbox, unless it is the null path.
    pub const fn mailbox(&self) -> Option<&Mailbox> {
        match self {
            Self::Null => None,
            Self::Mailbox(mailbox) => Some(mailbox),
        }
    }
}

/// In angle brackets.
impl fmt::Display for ReversePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("<>"),
            Self::Mailbox(mailbox) => write!(f, "<{mailbox}>"),
        }
    }
}

/// A path in angle brackets, or `<>`.
impl FromStr for ReversePath {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        match inside_brackets(text)? {
            "" => Ok(Self::Null),
            path => Ok(Self::Mailbox(without_source_route(path)?.parse()?)),
        }
    }
}

/// Whom a message is for: the argument of RCPT TO (RFC 5321 §4.1.1.3).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ForwardPath {
    /// `<postmaster>` in any case and with no domain, which every server takes
    /// (RFC 5321 §4.5.1).
    Postmaster,
    /// A mailbox.
    Mailbox(Mailbox),
}

/// In angle brackets.
impl fmt::Display for ForwardPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Postmaster => f.write_str("<postmaster>"),
            Self::Mailbox(mailbox) => write!(f, "<{mailbox}>"),
        }
    }
}

/// A path in angle brackets, or `<postmaster>`.
impl FromStr for ForwardPath {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let path = inside_brackets(text)?;
        if path.eq_ignore_ascii_case("postmaster") {
            return Ok(Self::Postmaster);
        }
        Ok(Self::Mailbox(without_source_route(path)?.parse()?))
    }
}

/// Splits `text` behind the path that it begins with: the path with its angle brackets, and
/// what follows. Quoted strings may hold `>` and blanks, so a search for either would not do.
///
/// # Errors
/// [`AddressError::NoBrackets`] when it does not begin with `<` or the path never ends.
pub fn path_in(text: &str) -> Result<(&str, &str), AddressError> {
    if !text.starts_with('<') {
        return Err(AddressError::NoBrackets);
    }
    let mut is_quoted = false;
    let mut octets = text.bytes().enumerate();
    while let Some((at, octet)) = octets.next() {
        match octet {
            b'"' => is_quoted = !is_quoted,
            b'\\' if is_quoted => drop(octets.next()),
            b'>' if !is_quoted => return Ok(text.split_at(at + 1)),
            _ => {}
        }
    }
    Err(AddressError::NoBrackets)
}

fn inside_brackets(text: &str) -> Result<&str, AddressError> {
    if text.len() > MAX_PATH {
        return Err(AddressError::TooLong);
    }
    let inside = text.strip_prefix('<').and_then(|text| text.strip_suffix('>'));
    inside.ok_or(AddressError::NoBrackets)
}

/// Drops `"@" Domain *("," "@" Domain) ":"` (RFC 5321 §4.1.2 `A-d-l`).
fn without_source_route(path: &str) -> Result<&str, AddressError> {
    if !path.starts_with('@') {
        return Ok(path);
    }
    // A literal in a route may hold colons of its own, so the last `]` comes first.
    let hops_end = route_end(path).ok_or(AddressError::BadSourceRoute)?;
    for hop in path[..hops_end].split(',') {
        let domain = hop.strip_prefix('@').ok_or(AddressError::BadSourceRoute)?;
        domain.parse::<Domain>().map_err(|_| AddressError::BadSourceRoute)?;
    }
    Ok(&path[hops_end + 1..])
}

/// Where the colon stands that ends the source route, outside of `[…]`.
fn route_end(path: &str) -> Option<usize> {
    let mut in_literal = false;
    path.bytes().position(|octet| {
        match octet {
            b'[' => in_literal = true,
            b']' => in_literal = false,
            _ => {}
        }
        octet == b':' && !in_literal
    })
}

/// Splits `text` behind the local part that it begins with.
fn local_part_in(text: &str) -> Result<(LocalPart, &str), AddressError> {
    if text.bytes().any(|b| !(b' '..=b'~').contains(&b)) {
        return Err(AddressError::NotAscii);
    }
    if let Some(quoted) = text.strip_prefix('"') {
        return quoted_string_in(quoted);
    }
    let end = text.find('@').unwrap_or(text.len());
    let (dot_string, rest) = text.split_at(end);
    if !is_dot_string(dot_string) {
        return Err(AddressError::BadLocalPart);
    }
    Ok((LocalPart::from_unquoted(dot_string)?, rest))
}

/// Reads a `Quoted-string` behind its first quote.
fn quoted_string_in(quoted: &str) -> Result<(LocalPart, &str), AddressError> {
    let mut content = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((LocalPart::from_unquoted(&content)?, &quoted[at + 1..])),
            '\\' => content.push(chars.next().ok_or(AddressError::BadLocalPart)?.1),
            _ => content.push(c),
        }
    }
    Err(AddressError::BadLocalPart)
}

/// `Atom *("." Atom)` (RFC 5321 §4.1.2).
fn is_dot_string(text: &str) -> bool {
    text.split('.').all(|atom| !atom.is_empty() && atom.bytes().all(is_atext))
}

/// `atext` of RFC 5322 §3.2.3: what an atom may hold.
fn is_atext(octet: u8) -> bool {
    octet.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&octet)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn good_forward_paths_print_in_their_shortest_form() {
        for (text, printed) in [
            ("<ann@example.org>", "<ann@example.org>"),
            ("<Ann.B+tag@Example.ORG>", "<Ann.B+tag@Example.ORG>"),
            (r#"<"ann"@example.org>"#, "<ann@example.org>"),
            (r#"<"a\nn"@example.org>"#, "<ann@example.org>"),
            (r#"<"ann b"@example.org>"#, r#"<"ann b"@example.org>"#),
            (r#"<"a@b"@example.org>"#, r#"<"a@b"@example.org>"#),
            (r#"<"a\"b\\c"@example.org>"#, r#"<"a\"b\\c"@example.org>"#),
            (r#"<"a>b"@example.org>"#, r#"<"a>b"@example.org>"#),
            (r#"<"a..b"@example.org>"#, r#"<"a..b"@example.org>"#),
            ("<a@[192.0.2.1]>", "<a@[192.0.2.1]>"),
            ("<a@[IPv6:2001:db8::1]>", "<a@[IPv6:2001:db8::1]>"),
            ("<a@[ipv6:::1]>", "<a@[IPv6:::1]>"),
            ("<@relay.test:ann@example.org>", "<ann@example.org>"),
            ("<@a.test,@[IPv6:::1],@b.test:ann@example.org>", "<ann@example.org>"),
            ("<a@localhost>", "<a@localhost>"),
            ("<a@example.org.>", "<a@example.org>"),
            ("<PostMaster>", "<postmaster>"),
            ("<postmaster@x>", "<postmaster@x>"),
        ] {
            assert_eq!(text.parse::<ForwardPath>().unwrap().to_string(), printed);
        }
        assert_eq!("<>".parse::<ReversePath>(), Ok(ReversePath::Null));
    }

    #[test]
    fn bad_paths_are_refused_with_the_reason() {
        use AddressError::*;
        let long_label = format!("<a@{}.test>", "x".repeat(64));
        let long_domain = format!("<a@{}test>", "abcdefg.".repeat(32));
        let long_local = format!("<{}@x.test>", "a".repeat(129));
        for (text, error) in [
            ("", NoBrackets),
            ("ann@example.org", NoBrackets),
            ("<ann@example.org", NoBrackets),
            ("<>", BadLocalPart),
            ("<ann>", NoDomain),
            ("<ann@>", NoDomain),
            ("<@example.org>", BadSourceRoute),
            ("<@a.test:>", BadLocalPart),
            ("<@a.test;ann@b.test>", BadSourceRoute),
            ("<@a.test,b.test:ann@b.test>", BadSourceRoute),
            ("<.ann@example.org>", BadLocalPart),
            ("<ann.@example.org>", BadLocalPart),
            ("<a..b@example.org>", BadLocalPart),
            ("<a b@example.org>", BadLocalPart),
            ("<a\"b@example.org>", BadLocalPart),
            ("<\"ann@example.org>", BadLocalPart),
            ("<\"\"@example.org>", BadLocalPart),
            ("<\"ann\"x@example.org>", NoDomain),
            ("<ann@exa_mple.org>", BadDomain),
            ("<ann@-example.org>", BadDomain),
            ("<ann@example..org>", BadDomain),
            ("<ann@example.org..>", BadDomain),
            ("<ann@b@example.org>", BadDomain),
            ("<ann@[192.0.2.1>", BadLiteral),
            ("<ann@[192.0.2.256]>", BadLiteral),
            ("<ann@[2001:db8::1]>", BadLiteral),
            ("<ann@[x-tag:data]>", BadLiteral),
            ("<ann@[]>", BadLiteral),
            ("<\u{e4}@example.org>", NotAscii),
            ("<ann@ex\u{e4}mple.org>", NotAscii),
            ("<a\tb@example.org>", NotAscii),
            ("<\"a\0b\"@example.org>", NotAscii),
            (&long_label, BadDomain),
            (&long_domain, TooLong),
            (&long_local, TooLong),
        ] {
            assert_eq!(text.parse::<ForwardPath>(), Err(error), "{text:?}");
        }
    }

    #[test]
    fn the_minimum_sizes_of_the_standard_fit() {
        let local_part = "a".repeat(64);
        let domain =
            format!("{}.{}.{}.{}", "b".repeat(63), "c".repeat(63), "d".repeat(63), "e".repeat(61));
        assert_eq!(domain.len(), 253);
        let path = format!("<{local_part}@{domain}>");
        assert_eq!(path.parse::<ReversePath>().unwrap().to_string(), path);
    }

    #[test]
    fn a_path_ends_behind_its_closing_bracket() {
        assert_eq!(path_in("<a@b> SIZE=1"), Ok(("<a@b>", " SIZE=1")));
        assert_eq!(path_in(r#"<"a> \" b"@c>d"#), Ok((r#"<"a> \" b"@c>"#, "d")));
        assert_eq!(path_in("<a@b"), Err(AddressError::NoBrackets));
        assert_eq!(path_in("<\"a\\"), Err(AddressError::NoBrackets));
        assert_eq!(path_in("a@b>"), Err(AddressError::NoBrackets));
    }

    #[test]
    fn domains_are_equal_in_any_case() {
        let (a, b): (Domain, Domain) =
            ("Example.ORG".parse().unwrap(), "example.org".parse().unwrap());
        assert_eq!(a, b);
    }

    fn any_domain() -> impl Strategy<Value = Domain> {
        prop_oneof![
            "[a-zA-Z0-9]{1,8}(-[a-z0-9]{1,5})?(\\.[a-z0-9]{1,10}){0,4}"
                .prop_map(|name| name.parse().unwrap()),
            any::<[u8; 4]>().prop_map(|octets| Domain::Literal(IpAddr::V4(octets.into()))),
            any::<[u8; 16]>().prop_map(|octets| Domain::Literal(IpAddr::V6(octets.into()))),
        ]
    }

    proptest! {
        #[test]
        fn what_is_printed_reads_back(local_part in "[ -~]{1,128}", domain in any_domain()) {
            let mailbox = Mailbox::new(LocalPart::from_unquoted(&local_part).unwrap(), domain);
            let path = format!("<{mailbox}>");
            prop_assert_eq!(path_in(&path), Ok((path.as_str(), "")));
            prop_assert_eq!(path.parse(), Ok(ReversePath::Mailbox(mailbox.clone())));
            prop_assert_eq!(path.parse(), Ok(ForwardPath::Mailbox(mailbox)));
        }

        #[test]
        fn random_text_never_panics(text in any::<String>(), path in "<[@\"\\\\:,a-c.\\[\\]> ]{0,20}>?") {
            for text in [&text, &path] {
                let _ = path_in(text);
                let _ = text.parse::<ReversePath>();
                if let Ok(path) = text.parse::<ForwardPath>() {
                    prop_assert_eq!(path.to_string().parse(), Ok(path));
                }
            }
        }
    }
}
