//! Replies as a peer sends them (RFC 5321 §4.2), for the client's side.
//!
//! The peer is not trusted: a line, a reply and the number of its lines are bounded, and the
//! text is printable ASCII before anybody sees it, so that it can go into the log and into a
//! report as it stands. In two things the parser is lenient, since servers exist that do
//! them: a bare LF ends a line, and the last line's code counts where the lines differ.

use std::fmt;

use memchr::memchr;

use crate::mail::status::Status;

/// The longest line that is read, in octets, without its line end. RFC 5321 §4.5.3.1.5 wants
/// 512; servers that put a URL into each refusal need more.
pub const MAX_LINE: usize = 4096;
/// The most lines of one reply.
pub const MAX_LINES: usize = 128;
/// The most octets of one reply.
pub const MAX_REPLY: usize = 64 * 1024;
/// The most characters that `Display` prints of a reply.
const MAX_DISPLAY: usize = 512;

/// A whole reply of a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerReply {
    code: u16,
    status: Option<Status>,
    lines: Vec<String>,
}

impl PeerReply {
    /// The three digits, 200 to 599.
    pub fn code(&self) -> u16 {
        self.code
    }

    /// What stands behind the code on each line, the enhanced code included: at least one
    /// line of printable ASCII. Control and 8-bit octets are escaped as `\x1b`.
    pub fn lines(&self) -> &[String] {
        &self.lines
    }

    /// Whether the command went through (2yz).
    pub fn is_success(&self) -> bool {
        self.code / 100 == 2
    }

    /// Whether the peer awaits more (3yz).
    pub fn is_intermediate(&self) -> bool {
        self.code / 100 == 3
    }

    /// Whether the command failed for now or for good (4yz and 5yz).
    pub fn is_failure(&self) -> bool {
        self.code >= 400
    }

    /// The enhanced status code at the beginning of the text, if its class is that of the
    /// code (RFC 2034 §4).
    pub fn stated_status(&self) -> Option<Status> {
        self.status
    }

    /// The enhanced status code: the one stated, else the one that the three digits stand
    /// for. That is often only a class, since 550 can mean any of a dozen things.
    pub fn status(&self) -> Status {
        self.status.unwrap_or_else(|| derived_status(self.code))
    }
}

/// The reply on one line, as it is logged and reported: printable, at most 512 characters.
impl fmt::Display for PeerReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!("{} {}", self.code, self.lines.join(" "));
        match text.get(..MAX_DISPLAY) {
            Some(start) if text.len() > MAX_DISPLAY => write!(f, "{start}..."),
            _ => f.write_str(text.trim_end()),
        }
    }
}

/// What a code says by RFC 5321 §4.2.3, in the words of RFC 3463 and no more than that.
fn derived_status(code: u16) -> Status {
    match code {
        // 421: service not available.
        421 => Status::new(4, 3, 2),
        // 450: mailbox unavailable; 451: local error; 452: insufficient system storage.
        450 => Status::new(4, 2, 0),
        451 => Status::new(4, 3, 0),
        452 => Status::new(4, 3, 1),
        455 => Status::new(4, 5, 4),
        500 => Status::new(5, 5, 2),
        501 | 504 | 555 => Status::new(5, 5, 4),
        502 | 503 => Status::new(5, 5, 1),
        // 521 and 556 (RFC 7504 §5): there is no mail service at all.
        521 => Status::new(5, 3, 2),
        556 => Status::new(5, 1, 10),
        553 => Status::new(5, 1, 0),
        _ if code >= 500 => Status::new(5, 0, 0),
        _ if code >= 400 => Status::new(4, 0, 0),
        _ => Status::new(2, 0, 0),
    }
}

/// Why what a peer sends is no reply. The connection is of no use afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyError {
    /// A line does not begin with a code from 200 to 599.
    NoCode,
    /// A line is longer than [`MAX_LINE`].
    LineTooLong,
    /// A reply has more than [`MAX_LINES`] lines or [`MAX_REPLY`] octets.
    ReplyTooLong,
}

impl fmt::Display for ReplyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoCode => "the answer is no SMTP reply",
            Self::LineTooLong => "a line of the reply is too long",
            Self::ReplyTooLong => "the reply has too many lines",
        })
    }
}

impl std::error::Error for ReplyError {}

/// Cuts what a peer sends into replies. Holds at most what it was fed since the last whole
/// reply, so it is fed small pieces and asked for replies in between.
#[derive(Debug, Default)]
pub struct ReplyParser {
    unread: Vec<u8>,
    lines: Vec<String>,
    octets: usize,
}

impl ReplyParser {
    /// A parser at the beginning of a reply.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds what was read from the peer.
    pub fn feed(&mut self, octets: &[u8]) {
        self.unread.extend_from_slice(octets);
    }

    /// Whether nothing waits to be read, not even a part of a reply.
    pub fn is_empty(&self) -> bool {
        self.unread.is_empty() && self.lines.is_empty()
    }

    /// Takes the next whole reply out of what was fed, or `None` when more is needed.
    ///
    /// # Errors
    /// [`ReplyError`] when this is no reply or is over a bound; the caller then leaves.
    pub fn next_reply(&mut self) -> Result<Option<PeerReply>, ReplyError> {
        let mut read = 0;
        let result = loop {
            match self.next_line(&mut read) {
                Ok(Some(Line { code, is_last: true })) => break Ok(Some(self.reply(code))),
                Ok(Some(_)) => {}
                Ok(None) => break Ok(None),
                Err(error) => break Err(error),
            }
        };
        self.unread.drain(..read);
        result
    }

    fn next_line(&mut self, read: &mut usize) -> Result<Option<Line>, ReplyError> {
        let unread = &self.unread[*read..];
        let Some(end) = memchr(b'\n', unread) else {
            let is_too_long = unread.len() > MAX_LINE + 1;
            return if is_too_long { Err(ReplyError::LineTooLong) } else { Ok(None) };
        };
        let line = &unread[..end];
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.len() > MAX_LINE {
            return Err(ReplyError::LineTooLong);
        }
        self.octets += end + 1;
        if self.lines.len() == MAX_LINES || self.octets > MAX_REPLY {
            return Err(ReplyError::ReplyTooLong);
        }
        let (parsed, text) = parse_line(line).ok_or(ReplyError::NoCode)?;
        self.lines.push(printable(text));
        *read += end + 1;
        Ok(Some(parsed))
    }

    fn reply(&mut self, code: u16) -> PeerReply {
        self.octets = 0;
        let lines = std::mem::take(&mut self.lines);
        let status = lines.first().and_then(|line| stated_status(line, code));
        PeerReply { code, status, lines }
    }
}

struct Line {
    code: u16,
    is_last: bool,
}

/// `Reply-code [ SP / "-" text ]` (RFC 5321 §4.2). A code with nothing behind it is whole.
fn parse_line(line: &[u8]) -> Option<(Line, &[u8])> {
    let (digits, rest) = line.split_at_checked(3)?;
    let [first @ b'2'..=b'5', b'0'..=b'9', b'0'..=b'9'] = *digits else {
        return None;
    };
    let tens = u16::from(digits[1] - b'0') * 10 + u16::from(digits[2] - b'0');
    let code = u16::from(first - b'0') * 100 + tens;
    match rest.split_first() {
        None => Some((Line { code, is_last: true }, rest)),
        Some((b' ', text)) => Some((Line { code, is_last: true }, text)),
        Some((b'-', text)) => Some((Line { code, is_last: false }, text)),
        Some(_) => None,
    }
}

fn stated_status(line: &str, code: u16) -> Option<Status> {
    let word = line.split(' ').next()?;
    let status: Status = word.parse().ok()?;
    let is_same_class = match code / 100 {
        4 => status.is_temporary(),
        5 => status.is_permanent(),
        class => class == 2 && !status.is_temporary() && !status.is_permanent(),
    };
    is_same_class.then_some(status)
}

/// Octets beyond printable ASCII as `\x1b`, a tab as a blank.
fn printable(text: &[u8]) -> String {
    let mut printed = String::with_capacity(text.len());
    for &octet in text {
        match octet {
            b' '..=b'~' => printed.push(char::from(octet)),
            b'\t' => printed.push(' '),
            _ => printed.push_str(&format!("\\x{octet:02x}")),
        }
    }
    printed
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(wire: &[u8]) -> Result<Option<PeerReply>, ReplyError> {
        let mut parser = ReplyParser::new();
        parser.feed(wire);
        parser.next_reply()
    }

    fn reply(wire: &str) -> PeerReply {
        parse(wire.as_bytes()).unwrap().unwrap()
    }

    #[test]
    fn codes_and_lines() {
        for (wire, code, lines) in [
            ("220 mx.test ESMTP\r\n", 220, &["mx.test ESMTP"][..]),
            ("250\r\n", 250, &[""]),
            ("250 \r\n", 250, &[""]),
            (
                "250-mx.test\r\n250-SIZE 1000\r\n250 HELP\r\n",
                250,
                &["mx.test", "SIZE 1000", "HELP"],
            ),
            ("250 bare\n", 250, &["bare"]),
            ("250-one\n250 two\r\n", 250, &["one", "two"]),
            ("250-one\r\n550 two\r\n", 550, &["one", "two"]),
            ("550 a\rb\0c\u{1b}[2J\td\u{e9}\r\n", 550, &["a\\x0db\\x00c\\x1b[2J d\\xc3\\xa9"]),
        ] {
            let reply = reply(wire);
            assert_eq!(
                (reply.code(), reply.lines()),
                (code, &lines.iter().map(|l| l.to_string()).collect::<Vec<_>>()[..]),
                "{wire:?}"
            );
        }
    }

    #[test]
    fn what_is_no_reply() {
        for wire in [
            "\r\n",
            "hello\r\n",
            "25\r\n",
            "2500 a\r\n",
            "150 a\r\n",
            "600 a\r\n",
            "25a b\r\n",
            "250_a\r\n",
            " 250 a\r\n",
            "250-a\r\nb\r\n",
        ] {
            assert_eq!(parse(wire.as_bytes()), Err(ReplyError::NoCode), "{wire:?}");
        }
    }

    #[test]
    fn everything_is_bounded() {
        let long = "x".repeat(MAX_LINE - 4);
        assert_eq!(reply(&format!("250 {long}\r\n")).lines(), std::slice::from_ref(&long));
        assert_eq!(parse(format!("250 x{long}\r\n").as_bytes()), Err(ReplyError::LineTooLong));
        assert_eq!(parse(&[b'2'; MAX_LINE + 2]), Err(ReplyError::LineTooLong));
        assert_eq!(parse(&b"250-\r\n".repeat(MAX_LINES + 1)), Err(ReplyError::ReplyTooLong));
        let lines = format!("250-{long}\r\n").repeat(MAX_REPLY / MAX_LINE + 1);
        assert_eq!(parse(lines.as_bytes()), Err(ReplyError::ReplyTooLong));
    }

    #[test]
    fn an_endless_line_or_reply_ends() {
        for piece in [&b"250-x\r\n"[..], b"xxxx"] {
            let mut parser = ReplyParser::new();
            parser.feed(b"250-");
            let ended = (0..100_000).find(|_| {
                parser.feed(piece);
                parser.next_reply().is_err()
            });
            assert!(ended.is_some_and(|pieces| pieces <= MAX_LINE));
        }
    }

    #[test]
    fn every_partial_reply_waits_for_the_rest() {
        let wire = b"250-mx.test\r\n250 PIPELINING\r\n";
        let mut parser = ReplyParser::new();
        for octet in &wire[..wire.len() - 1] {
            parser.feed(&[*octet]);
            assert_eq!(parser.next_reply(), Ok(None));
            assert!(!parser.is_empty());
        }
        parser.feed(b"\n");
        assert_eq!(parser.next_reply().unwrap().unwrap().lines(), ["mx.test", "PIPELINING"]);
        assert!(parser.is_empty());
    }

    #[test]
    fn replies_in_one_piece_come_out_one_by_one() {
        let mut parser = ReplyParser::new();
        parser.feed(b"250 2.1.0 ok\r\n550 5.1.1 no\r\n354 go\r\n");
        let codes: Vec<u16> =
            std::iter::from_fn(|| parser.next_reply().unwrap()).map(|reply| reply.code()).collect();
        assert_eq!(codes, [250, 550, 354]);
    }

    #[test]
    fn a_status_counts_if_its_class_is_that_of_the_code() {
        for (wire, status) in [
            ("550 5.1.1 no such user\r\n", "5.1.1"),
            ("450 4.2.1 later\r\n", "4.2.1"),
            ("250 2.1.5 ok\r\n", "2.1.5"),
            ("550 4.2.1 what now\r\n", "5.0.0"),
            ("550 2.0.0 fine\r\n", "5.0.0"),
            ("354 2.0.0 go\r\n", "2.0.0"),
            ("550 5.1.1x\r\n", "5.0.0"),
            ("452 too many\r\n", "4.3.1"),
            ("421 bye\r\n", "4.3.2"),
            ("499\r\n", "4.0.0"),
        ] {
            assert_eq!(reply(wire).status().to_string(), status, "{wire:?}");
        }
    }

    #[test]
    fn a_long_reply_is_cut_where_it_is_printed() {
        assert_eq!(
            reply("550-5.1.1 no\r\n550 5.1.1 such\r\n").to_string(),
            "550 5.1.1 no 5.1.1 such"
        );
        assert_eq!(reply("250\r\n").to_string(), "250");
        let long = reply(&format!("550 {}\r\n", "x".repeat(4000))).to_string();
        assert_eq!(long.len(), MAX_DISPLAY + 3);
    }

    fn hostile() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            Just(b"250-".to_vec()),
            Just(b"550 5.1.1 ".to_vec()),
            Just(b"\r\n".to_vec()),
            Just(b"\n".to_vec()),
            prop::collection::vec(any::<u8>(), 0..6),
        ];
        prop::collection::vec(piece, 0..20).prop_map(|pieces| pieces.concat())
    }

    fn all_replies(pieces: &[&[u8]]) -> (Vec<PeerReply>, Option<ReplyError>) {
        let mut parser = ReplyParser::new();
        let mut replies = Vec::new();
        for piece in pieces {
            parser.feed(piece);
            loop {
                match parser.next_reply() {
                    Ok(Some(reply)) => replies.push(reply),
                    Ok(None) => break,
                    Err(error) => return (replies, Some(error)),
                }
            }
        }
        (replies, None)
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference_and_text_is_printable(wire in hostile()) {
            let whole = all_replies(&[&wire]);
            prop_assert_eq!(&whole, &all_replies(&wire.chunks(1).collect::<Vec<_>>()));
            for reply in whole.0 {
                prop_assert!((200..600).contains(&reply.code()));
                prop_assert!(reply.to_string().bytes().all(|b| (b' '..=b'~').contains(&b)));
            }
        }
    }
}
