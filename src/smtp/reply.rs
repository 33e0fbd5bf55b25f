//! Replies (RFC 5321 §4.2): three digits, an enhanced status code (RFC 2034) and text, on
//! one line or several. The replies that the server can give are all here, with their
//! number in their name, so that none can be sent without its enhanced code.

use std::borrow::Cow;
use std::fmt;

use crate::mail::status::Status;
use crate::smtp::line::MAX_LOGIN_LINE;

/// The longest line that a reply may take, with its CRLF (RFC 5321 §4.5.3.1.5).
pub const MAX_REPLY_LINE: usize = 512;

/// The longest challenge of a login in base64 (RFC 4954 §4): as long as a response may be.
pub const MAX_CHALLENGE: usize = MAX_LOGIN_LINE - "334 \r\n".len();

/// What a challenge is sent with.
const CHALLENGE: u16 = 334;

/// A reply that the server sends: a code, its enhanced code where one belongs, and at least
/// one line of printable text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    code: u16,
    status: Option<Status>,
    text: Cow<'static, str>,
}

impl Reply {
    /// A reply with a text known when the program was built. `text` may have several lines,
    /// separated by `\n`; each is sent as a line of its own.
    pub const fn new(code: u16, status: Status, text: &'static str) -> Self {
        Self { code, status: Some(status), text: Cow::Borrowed(text) }
    }

    /// A reply whose text names something. Whatever is not printable ASCII becomes `?`.
    pub fn with_text(code: u16, status: Status, text: impl Into<String>) -> Self {
        Self { code, status: Some(status), text: Cow::Owned(printable(text.into())) }
    }

    /// A reply that carries no enhanced code: the greeting, the answers to HELO and EHLO,
    /// and the intermediate 354 (RFC 2034 §3). Challenges are made by [`Reply::challenge`].
    pub fn without_status(code: u16, text: impl Into<String>) -> Self {
        Self { code, status: None, text: Cow::Owned(printable(text.into())) }
    }

    /// A challenge of a login: base64 of up to [`MAX_CHALLENGE`] octets, which other than
    /// text is never cut.
    pub fn challenge(base64: String) -> Self {
        Self { code: CHALLENGE, status: None, text: Cow::Owned(printable(base64)) }
    }

    /// The three digits.
    pub fn code(&self) -> u16 {
        self.code
    }

    /// The enhanced code, where the reply has one.
    pub fn status(&self) -> Option<Status> {
        self.status
    }

    /// The text without codes, its lines separated by `\n`.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether the command went through, or may go on (2yz and 3yz).
    pub fn is_positive(&self) -> bool {
        self.code < 400
    }

    /// Appends the reply as it goes over the wire. Lines over [`MAX_REPLY_LINE`] are cut, but
    /// for challenges.
    pub fn write_to(&self, wire: &mut Vec<u8>) {
        let max_line = if self.code == CHALLENGE { MAX_LOGIN_LINE } else { MAX_REPLY_LINE };
        let mut lines = self.text.split('\n').peekable();
        while let Some(line) = lines.next() {
            let start = wire.len();
            let separator = if lines.peek().is_some() { '-' } else { ' ' };
            wire.extend_from_slice(format!("{}{separator}", self.code).as_bytes());
            if let Some(status) = self.status {
                wire.extend_from_slice(format!("{status} ").as_bytes());
            }
            wire.extend_from_slice(line.as_bytes());
            wire.truncate(start + max_line - 2);
            wire.extend_from_slice(b"\r\n");
        }
    }
}

/// The reply on one line, for the log.
impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.code)?;
        if let Some(status) = self.status {
            write!(f, "{status} ")?;
        }
        f.write_str(&self.text.replace('\n', " "))
    }
}

fn printable(text: String) -> String {
    let fits = |c: char| c == '\n' || c == ' ' || c.is_ascii_graphic();
    if text.chars().all(fits) {
        return text;
    }
    text.chars().map(|c| if fits(c) { c } else { '?' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire(reply: &Reply) -> String {
        let mut wire = Vec::new();
        reply.write_to(&mut wire);
        String::from_utf8(wire).unwrap()
    }

    #[test]
    fn each_line_has_both_codes() {
        let reply = Reply::new(214, Status::new(2, 0, 0), "one\ntwo");
        assert_eq!(wire(&reply), "214-2.0.0 one\r\n214 2.0.0 two\r\n");
        assert_eq!(reply.to_string(), "214 2.0.0 one two");
    }

    #[test]
    fn the_greeting_has_no_enhanced_code() {
        assert_eq!(wire(&Reply::without_status(220, "mx.test ESMTP")), "220 mx.test ESMTP\r\n");
    }

    #[test]
    fn control_characters_never_reach_the_wire() {
        let reply = Reply::with_text(550, Status::new(5, 1, 1), "no <a\r\0\u{e9}> here");
        assert_eq!(wire(&reply), "550 5.1.1 no <a???> here\r\n");
    }

    #[test]
    fn a_line_is_cut_at_512_octets() {
        let reply = Reply::with_text(550, Status::new(5, 1, 1), "x".repeat(2000));
        assert_eq!(wire(&reply).len(), MAX_REPLY_LINE);
    }

    #[test]
    fn a_challenge_is_not_cut() {
        let longest = "x".repeat(MAX_CHALLENGE);
        assert_eq!(wire(&Reply::challenge(longest.clone())), format!("334 {longest}\r\n"));
        assert_eq!(wire(&Reply::challenge(String::new())), "334 \r\n");
    }
}
