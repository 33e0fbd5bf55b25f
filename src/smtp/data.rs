//! The content of a message on its way in (RFC 5321 §4.1.1.4 and §4.5.2): finds the end of
//! the data and takes away the dots that were put in front for transparency.
//!
//! The data end at CRLF `.` CRLF and nowhere else. A bare CR or LF makes the message one to
//! be refused (RFC 5321 §2.3.8), since servers that disagree about where a line ends can be
//! made to see two messages where there is one (CVE-2023-51764 and its kind). A listener
//! for old devices turns a bare LF into CRLF; even there it never helps to end the data.

use crate::config::settings::BareNewline;

/// Why the content must be refused once its end has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataFault {
    /// An LF without a CR before it.
    BareLf,
    /// A CR without an LF behind it.
    BareCr,
}

/// How far one call of [`DataDecoder::decode`] came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// All of the input was used; the data go on.
    More,
    /// The data ended behind this many octets of the input; the rest are commands.
    Ended(usize),
}

/// Decodes the content of one message from pieces of any size.
#[derive(Debug)]
pub struct DataDecoder {
    place: Place,
    bare_newline: BareNewline,
    fault: Option<DataFault>,
}

/// Where in the data the next octet stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Behind CRLF, or at the very beginning.
    LineStart,
    /// Behind a bare LF that was accepted as the end of a line.
    BareLineStart,
    /// Within a line.
    Line,
    /// Behind a CR, which has not been passed on yet.
    Cr,
    /// Behind the dot that begins a line, not passed on yet.
    Dot,
    /// Behind such a dot and a CR.
    DotCr,
    /// Behind a dot that begins a line behind an accepted bare LF.
    BareDot,
}

impl DataDecoder {
    /// A decoder at the beginning of the data.
    pub const fn new(bare_newline: BareNewline) -> Self {
        Self { place: Place::LineStart, bare_newline, fault: None }
    }

    /// The first reason to refuse the message, if there is one so far.
    pub const fn fault(&self) -> Option<DataFault> {
        self.fault
    }

    /// Decodes the next piece and hands the content to `sink`, in as few slices as it can.
    /// After [`Progress::Ended`] the decoder must not be used again.
    pub fn decode(&mut self, input: &[u8], mut sink: impl FnMut(&[u8])) -> Progress {
        let mut at = 0;
        while at < input.len() {
            if self.place == Place::Line {
                at += self.pass_line(&input[at..], &mut sink);
                continue;
            }
            let octet = input[at];
            at += 1;
            if self.step(octet, &mut sink) {
                return Progress::Ended(at);
            }
        }
        Progress::More
    }

    /// Within a line: passes on whole lines as long as nothing needs a closer look, and
    /// returns how many octets that took.
    fn pass_line(&mut self, input: &[u8], sink: &mut impl FnMut(&[u8])) -> usize {
        let mut end = 0;
        while let Some(found) = memchr::memchr2(b'\r', b'\n', &input[end..]) {
            let at = end + found;
            // A CRLF with an ordinary octet behind it needs no look of its own.
            match input[at..] {
                [b'\r', b'\n', next, ..] if !matches!(next, b'.' | b'\r' | b'\n') => end = at + 2,
                _ => {
                    sink(&input[..at]);
                    self.step(input[at], sink);
                    return at + 1;
                }
            }
        }
        sink(input);
        input.len()
    }

    /// Takes one octet at a place where it matters, and says whether the data end with it.
    fn step(&mut self, octet: u8, sink: &mut impl FnMut(&[u8])) -> bool {
        match (self.place, octet) {
            (Place::DotCr, b'\n') => return true,
            (Place::Cr, b'\n') => {
                sink(b"\r\n");
                self.place = Place::LineStart;
            }
            (Place::Cr | Place::DotCr, _) => {
                self.refuse(DataFault::BareCr);
                self.place = if octet == b'\r' { Place::Cr } else { Place::Line };
            }
            (Place::Dot, b'\r') => self.place = Place::DotCr,
            (Place::BareDot, b'\r') => {
                sink(b".");
                self.place = Place::Cr;
            }
            (Place::LineStart, b'.') => self.place = Place::Dot,
            (Place::BareLineStart, b'.') => self.place = Place::BareDot,
            (_, b'\r') => self.place = Place::Cr,
            (place, b'\n') => self.bare_lf(place, sink),
            _ => {
                // RFC 5321 §4.5.2: a first dot with more behind it is taken away.
                sink(&[octet]);
                self.place = Place::Line;
            }
        }
        false
    }

    fn bare_lf(&mut self, place: Place, sink: &mut impl FnMut(&[u8])) {
        if self.bare_newline == BareNewline::Reject {
            self.refuse(DataFault::BareLf);
            self.place = Place::Line;
            return;
        }
        // A dot alone on a line that a bare LF ends is content: it never ends the data.
        let is_lone_dot = matches!(place, Place::Dot | Place::BareDot);
        sink(if is_lone_dot { b".\r\n" } else { b"\r\n" });
        self.place = Place::BareLineStart;
    }

    fn refuse(&mut self, fault: DataFault) {
        self.fault.get_or_insert(fault);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use BareNewline::{Accept, Reject};
    use proptest::prelude::*;

    /// The content, the fault, and what was left behind the end (`None`: no end).
    type Decoded = (Vec<u8>, Option<DataFault>, Option<Vec<u8>>);

    fn decode(input: &[u8], bare_newline: BareNewline, cuts: &[usize]) -> Decoded {
        let mut decoder = DataDecoder::new(bare_newline);
        let mut content = Vec::new();
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut % (input.len() + 1)).collect();
        cuts.extend([0, input.len()]);
        cuts.sort_unstable();
        for pair in cuts.windows(2) {
            let piece = &input[pair[0]..pair[1]];
            let sink = |part: &[u8]| content.extend_from_slice(part);
            if let Progress::Ended(used) = decoder.decode(piece, sink) {
                return (content, decoder.fault(), Some(input[pair[0] + used..].to_vec()));
            }
        }
        (content, decoder.fault(), None)
    }

    fn check(
        input: &str,
        bare_newline: BareNewline,
        expected: (&str, Option<DataFault>, Option<&str>),
    ) {
        let expected = (
            expected.0.as_bytes().to_vec(),
            expected.1,
            expected.2.map(|rest| rest.as_bytes().to_vec()),
        );
        let bytewise: Vec<_> = (0..input.len()).collect();
        for cuts in [&[][..], &bytewise] {
            let decoded = decode(input.as_bytes(), bare_newline, cuts);
            if expected.1.is_some() {
                // What a refused message held is of no interest.
                assert_eq!((decoded.1, decoded.2), (expected.1, expected.2.clone()), "{input:?}");
            } else {
                assert_eq!(decoded, expected, "{input:?}");
            }
        }
    }

    #[test]
    fn dots_are_taken_away_and_the_lone_one_ends() {
        for (input, content) in [
            (".\r\n", ""),
            ("a\r\n.\r\n", "a\r\n"),
            ("a\r\n\r\n.\r\n", "a\r\n\r\n"),
            ("..\r\n.\r\n", ".\r\n"),
            ("..a\r\n...\r\n.\r\n", ".a\r\n..\r\n"),
            (".a\r\n.\r\n", "a\r\n"),
            ("a.\r\nb\r\n.\r\n", "a.\r\nb\r\n"),
            ("a\0\u{e9}\r\n\0.\r\n.\r\n", "a\0\u{e9}\r\n\0.\r\n"),
        ] {
            check(&format!("{input}QUIT\r\n"), Reject, (content, None, Some("QUIT\r\n")));
            check(&format!("{input}QUIT\r\n"), Accept, (content, None, Some("QUIT\r\n")));
        }
    }

    #[test]
    fn nothing_but_crlf_dot_crlf_ends_the_data() {
        use DataFault::*;
        for (end, fault) in [
            ("\n.\n", BareLf),
            ("\n.\r\n", BareLf),
            ("\r\n.\n", BareLf),
            ("\r.\r", BareCr),
            ("\r\n.\r", BareCr),
            ("\r.\r\n", BareCr),
            ("\r\n.\rx\r\n", BareCr),
            ("\n\r\n.\n\r\n", BareLf),
        ] {
            let input = format!("a{end}MAIL FROM:<x@y>\r\n");
            check(&input, Reject, ("", Some(fault), None));
            let input = format!("a{end}b\r\n.\r\nNOOP\r\n");
            check(&input, Reject, ("", Some(fault), Some("NOOP\r\n")));
        }
        check("a\r\n\0.\r\nMAIL\r\n", Reject, ("a\r\n\0.\r\nMAIL\r\n", None, None));
    }

    #[test]
    fn an_old_device_may_send_bare_lf_but_not_end_with_it() {
        for (input, content) in [
            ("a\nb\r\n", "a\r\nb\r\n"),
            ("\n\n\r\n", "\r\n\r\n\r\n"),
            ("a\n.\nb\r\n", "a\r\n.\r\nb\r\n"),
            ("a\n.\r\nb\r\n", "a\r\n.\r\nb\r\n"),
            ("a\r\n.\nb\r\n", "a\r\n.\r\nb\r\n"),
            ("a\n..b\r\n", "a\r\n.b\r\n"),
        ] {
            check(&format!("{input}.\r\nQUIT\r\n"), Accept, (content, None, Some("QUIT\r\n")));
        }
        check("a\rb\r\n.\r\n", Accept, ("", Some(DataFault::BareCr), Some("")));
    }

    proptest! {
        #[test]
        fn decoding_does_not_depend_on_the_pieces(
            input in "[a.\r\n]{0,40}",
            cuts in proptest::collection::vec(any::<usize>(), 0..6),
            accept in any::<bool>(),
        ) {
            let bare_newline = if accept { Accept } else { Reject };
            let input = input.as_bytes();
            prop_assert_eq!(decode(input, bare_newline, &cuts), decode(input, bare_newline, &[]));
        }

        #[test]
        fn the_end_is_the_first_crlf_dot_crlf(input in "[a.\r\n]{0,40}") {
            let data = format!("\r\n{input}");
            let end = data.find("\r\n.\r\n").map(|at| data.as_bytes()[at + 5..].to_vec());
            let (content, fault, rest) = decode(input.as_bytes(), Reject, &[]);
            prop_assert_eq!(rest, end);
            let has_bare = |text: &str| {
                let text = text.replace("\r\n", "");
                text.contains('\r') || text.contains('\n')
            };
            if fault.is_none() {
                prop_assert!(!has_bare(std::str::from_utf8(&content).unwrap()));
            }
        }
    }
}
