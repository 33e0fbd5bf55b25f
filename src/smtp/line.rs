//! Where a command line ends (RFC 5321 §2.3.8): at CRLF and nowhere else. A bare CR or LF
//! ends nothing, so that what one program takes for one line is not two for another.

use crate::config::settings::BareNewline;

/// The longest command line with its CRLF, in octets. RFC 5321 §4.5.3.1.4 wants 512, and
/// the parameters of extensions come on top.
pub const MAX_COMMAND_LINE: usize = 4096;

/// The longest line of an AUTH exchange, in octets, with its CRLF (RFC 4954 §4).
pub const MAX_LOGIN_LINE: usize = 12_288 + 2;

/// What stands at the beginning of the octets received so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framed<'a> {
    /// No whole line yet: read on.
    Incomplete,
    /// A line without its end, and how many octets it took with it.
    Line {
        /// The text: no LF in it, and no CR but bare ones, which the parser refuses.
        text: &'a [u8],
        /// The octets to drop from the front.
        consumed: usize,
    },
    /// There is a bare LF. What follows cannot be trusted to be a new command.
    BareLf,
    /// The line is longer than the limit.
    TooLong,
}

/// Looks for a line of up to `limit` octets, its end included, at the beginning of `received`.
/// With [`BareNewline::Accept`] a bare LF ends a command line too.
pub fn first_line(received: &[u8], limit: usize, bare_newline: BareNewline) -> Framed<'_> {
    let Some(lf) = memchr::memchr(b'\n', received) else {
        let is_too_long = received.len() >= limit;
        return if is_too_long { Framed::TooLong } else { Framed::Incomplete };
    };
    if lf >= limit {
        return Framed::TooLong;
    }
    match received[..lf].strip_suffix(b"\r") {
        Some(text) => Framed::Line { text, consumed: lf + 1 },
        None if bare_newline == BareNewline::Accept => {
            Framed::Line { text: &received[..lf], consumed: lf + 1 }
        }
        None => Framed::BareLf,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use BareNewline::{Accept, Reject};

    #[test]
    fn only_crlf_ends_a_line() {
        for (received, framed) in [
            (&b""[..], Framed::Incomplete),
            (b"Q", Framed::Incomplete),
            (b"QUIT", Framed::Incomplete),
            (b"QUIT\r", Framed::Incomplete),
            (b"QUIT\r\n", Framed::Line { text: b"QUIT", consumed: 6 }),
            (b"\r\n", Framed::Line { text: b"", consumed: 2 }),
            (b"A\rB\r\nC", Framed::Line { text: b"A\rB", consumed: 5 }),
            (b"QUIT\nNOOP\r\n", Framed::BareLf),
            (b"\n", Framed::BareLf),
        ] {
            assert_eq!(first_line(received, MAX_COMMAND_LINE, Reject), framed);
        }
        assert_eq!(
            first_line(b"QUIT\n", MAX_COMMAND_LINE, Accept),
            Framed::Line { text: b"QUIT", consumed: 5 }
        );
    }

    #[test]
    fn a_line_has_an_end() {
        let mut longest = vec![b'a'; MAX_COMMAND_LINE - 2];
        longest.extend_from_slice(b"\r\n");
        let text = &longest[..MAX_COMMAND_LINE - 2];
        assert_eq!(
            first_line(&longest, MAX_COMMAND_LINE, Reject),
            Framed::Line { text, consumed: MAX_COMMAND_LINE }
        );
        longest.insert(0, b'a');
        assert_eq!(first_line(&longest, MAX_COMMAND_LINE, Reject), Framed::TooLong);
        assert_eq!(
            first_line(&longest[..MAX_COMMAND_LINE], MAX_COMMAND_LINE, Reject),
            Framed::TooLong
        );
    }
}
