//! Dot-stuffing for the wire (RFC 5321 §4.5.2): a message's content goes in, in pieces of any
//! size, and what follows the 354 comes out, up to and with the lone dot.
//!
//! Whatever the content holds, only CRLF ends a line on the wire: a bare CR or LF, which an
//! old spool file might have, becomes CRLF. So no server, however leniently it reads line
//! ends, can find the end of the message anywhere but at our dot (the "SMTP smuggling" of
//! 2023), and nothing that a sender wrote is taken for a command.

use memchr::memchr2;

const CRLF: &[u8] = b"\r\n";

/// Encodes one message's content. Made new for each message.
#[derive(Debug, Default)]
pub struct DotStuffing {
    position: Position,
}

/// What the encoder remembers between two pieces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Position {
    /// The next octet begins a line.
    #[default]
    LineStart,
    /// Within a line.
    Line,
    /// Behind a CR that is not on the wire yet, since a LF may follow.
    AfterCr,
}

impl DotStuffing {
    /// An encoder at the beginning of a message.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends the wire form of the next piece of the content: at most twice its octets, and
    /// two more.
    pub fn encode(&mut self, piece: &[u8], wire: &mut Vec<u8>) {
        let mut content = piece;
        if content.is_empty() {
            return;
        }
        if self.position == Position::AfterCr {
            wire.extend_from_slice(CRLF);
            content = content.strip_prefix(b"\n").unwrap_or(content);
            self.position = Position::LineStart;
        }
        self.position = encode_lines(content, self.position, wire);
    }

    /// Appends what ends the message: the CRLF of its last line where that lacks one, and the
    /// lone dot.
    pub fn finish(self, wire: &mut Vec<u8>) {
        if self.position != Position::LineStart {
            wire.extend_from_slice(CRLF);
        }
        wire.extend_from_slice(b".\r\n");
    }
}

/// Encodes `content` and says where it ends. Well-formed lines are copied many at a time: only
/// a leading dot or a bare CR or LF breaks the run.
fn encode_lines(content: &[u8], position: Position, wire: &mut Vec<u8>) -> Position {
    let mut copied = 0;
    let mut line = 0;
    let mut is_line_start = position == Position::LineStart;
    loop {
        if is_line_start && content.get(line) == Some(&b'.') {
            wire.extend_from_slice(&content[copied..line]);
            wire.push(b'.');
            copied = line;
        }
        let Some(end) = memchr2(b'\r', b'\n', &content[line..]).map(|at| line + at) else {
            wire.extend_from_slice(&content[copied..]);
            let is_empty = line == content.len();
            return if is_line_start && is_empty { Position::LineStart } else { Position::Line };
        };
        match (content[end], content.get(end + 1)) {
            (b'\r', Some(b'\n')) => line = end + 2,
            (b'\r', None) => {
                wire.extend_from_slice(&content[copied..end]);
                return Position::AfterCr;
            }
            _ => {
                wire.extend_from_slice(&content[copied..end]);
                wire.extend_from_slice(CRLF);
                line = end + 1;
                copied = line;
            }
        }
        is_line_start = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encoded(pieces: &[&[u8]]) -> Vec<u8> {
        let mut stuffing = DotStuffing::new();
        let mut wire = Vec::new();
        for piece in pieces {
            stuffing.encode(piece, &mut wire);
        }
        stuffing.finish(&mut wire);
        wire
    }

    /// The content as a server understands it, or `None` if the wire is not one message.
    fn decoded(wire: &[u8]) -> Option<Vec<u8>> {
        let mut content = Vec::new();
        let mut rest = wire;
        loop {
            let end = rest.windows(2).position(|pair| pair == CRLF)?;
            let line = &rest[..end];
            rest = &rest[end + 2..];
            if line.contains(&b'\r') || line.contains(&b'\n') {
                return None;
            }
            if line == b"." {
                return rest.is_empty().then_some(content);
            }
            content.extend_from_slice(line.strip_prefix(b".").unwrap_or(line));
            content.extend_from_slice(CRLF);
        }
    }

    /// Every CRLF, bare CR and bare LF is one line end, and the last line has one.
    fn normalised(content: &[u8]) -> Vec<u8> {
        let mut normal = Vec::new();
        let mut octets = content.iter().peekable();
        while let Some(&octet) = octets.next() {
            match octet {
                b'\r' => {
                    octets.next_if_eq(&&b'\n');
                    normal.extend_from_slice(CRLF);
                }
                b'\n' => normal.extend_from_slice(CRLF),
                _ => normal.push(octet),
            }
        }
        if !normal.is_empty() && !normal.ends_with(CRLF) {
            normal.extend_from_slice(CRLF);
        }
        normal
    }

    #[test]
    fn table() {
        for (content, wire) in [
            ("", ".\r\n"),
            ("a\r\n", "a\r\n.\r\n"),
            ("a", "a\r\n.\r\n"),
            (".\r\n", "..\r\n.\r\n"),
            (".", "..\r\n.\r\n"),
            ("..a\r\n.b\r\n", "...a\r\n..b\r\n.\r\n"),
            ("\r\n", "\r\n.\r\n"),
            ("a.b\r\n", "a.b\r\n.\r\n"),
        ] {
            assert_eq!(encoded(&[content.as_bytes()]), wire.as_bytes(), "{content:?}");
        }
    }

    #[test]
    fn no_false_end_of_data_reaches_the_wire() {
        for end in [
            "\n.\n",
            "\n.\r\n",
            "\r\n.\n",
            "\r.\r",
            "\r\n.\r",
            "\r.\r\n",
            "\r\n\0.\r\n",
            "\n.\r",
            "\r\n.\r\n",
        ] {
            let content = format!("a{end}MAIL FROM:<b@c.test>\r\n");
            let wire = encoded(&[content.as_bytes()]);
            assert_eq!(decoded(&wire), Some(normalised(content.as_bytes())), "{end:?}");
            for at in 0..=content.len() {
                let (left, right) = content.as_bytes().split_at(at);
                assert_eq!(encoded(&[left, right]), wire, "{end:?} split at {at}");
            }
        }
    }

    fn content() -> impl Strategy<Value = Vec<u8>> {
        let octet = prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'.'), Just(b'a'), any::<u8>()];
        prop::collection::vec(octet, 0..200)
    }

    proptest! {
        #[test]
        fn what_is_sent_reads_back(content in content()) {
            let wire = encoded(&[&content]);
            prop_assert_eq!(decoded(&wire), Some(normalised(&content)));
        }

        #[test]
        fn pieces_make_no_difference(content in content(), cuts in prop::collection::vec(0usize..200, 0..8)) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(content.len())).collect();
            cuts.sort_unstable();
            let mut pieces = Vec::new();
            let mut start = 0;
            for cut in cuts {
                pieces.push(&content[start..cut]);
                start = cut;
            }
            pieces.push(&content[start..]);
            prop_assert_eq!(encoded(&pieces), encoded(&[&content]));
        }
    }
}
