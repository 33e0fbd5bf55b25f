//! A message as files on Unix hold it: lines end with LF, and in an mbox no line looks like
//! the beginning of the next message.

use std::io::{self, Read, Write};

use memchr::memchr;

/// Octets read and written at once.
const CHUNK: usize = 64 * 1024;
/// What begins a message in an mbox (RFC 4155 appendix A).
const FROM: &[u8] = b"From ";

/// Which side of a copy failed.
#[derive(Debug)]
pub enum CopyError {
    /// The content could not be read.
    Read(io::Error),
    /// The copy could not be written.
    Write(io::Error),
}

/// Writes `head` as it is, then the content with each CRLF turned into LF.
///
/// # Errors
/// The first error of either side. What was written until then stays.
pub fn copy(head: Vec<u8>, content: &mut dyn Read, to: &mut dyn Write) -> Result<(), CopyError> {
    copy_through(Converter::new(false), head, content, to)
}

/// The same for an mbox: each line of the content that is `From ` behind any number of `>`
/// gets one more, so that a reader can take it off again; an end of line is added where the
/// content lacks one, and an empty line ends it.
///
/// # Errors
/// As above.
pub fn copy_quoted(
    head: Vec<u8>,
    content: &mut dyn Read,
    to: &mut dyn Write,
) -> Result<(), CopyError> {
    copy_through(Converter::new(true), head, content, to)
}

fn copy_through(
    mut converter: Converter,
    head: Vec<u8>,
    content: &mut dyn Read,
    to: &mut dyn Write,
) -> Result<(), CopyError> {
    let mut output = head;
    let mut input = vec![0; CHUNK];
    loop {
        match content.read(&mut input) {
            Ok(0) => break,
            Ok(count) => converter.convert(&input[..count], &mut output),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(CopyError::Read(error)),
        }
        if output.len() >= CHUNK {
            to.write_all(&output).map_err(CopyError::Write)?;
            output.clear();
        }
    }
    converter.finish(&mut output);
    to.write_all(&output).map_err(CopyError::Write)
}

/// Converts a message piece by piece, the same however it is cut.
#[derive(Debug)]
struct Converter {
    quotes: bool,
    at: At,
    /// A CR ended the last piece; an LF may follow.
    has_cr: bool,
}

/// Where in a line the converter stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// At the beginning of a line.
    Start,
    /// Behind nothing but `>`.
    Quoted,
    /// Behind those and this many octets of `From `, not yet put out.
    From(usize),
    /// Anywhere else.
    Inside,
}

impl Converter {
    fn new(quotes: bool) -> Self {
        Self { quotes, at: At::Start, has_cr: false }
    }

    fn convert(&mut self, mut input: &[u8], output: &mut Vec<u8>) {
        while !input.is_empty() {
            if self.quotes && self.at != At::Inside && !self.has_cr {
                input = self.look_for_from(input, output);
                continue;
            }
            input = self.copy_line(input, output);
        }
    }

    /// Takes what belongs to the beginning of a line. Stops before a CR or LF, which
    /// [`Self::copy_line`] knows about.
    fn look_for_from<'a>(&mut self, input: &'a [u8], output: &mut Vec<u8>) -> &'a [u8] {
        let Some((&octet, rest)) = input.split_first() else { return input };
        let matched = if let At::From(matched) = self.at { matched } else { 0 };
        if matched == 0 && octet == b'>' {
            self.at = At::Quoted;
            output.push(octet);
            return rest;
        }
        if octet != FROM[matched] {
            self.flush_from(output);
            self.at = At::Inside;
            return input;
        }
        if matched + 1 == FROM.len() {
            output.push(b'>');
            output.extend_from_slice(FROM);
            self.at = At::Inside;
        } else {
            self.at = At::From(matched + 1);
        }
        rest
    }

    /// Copies up to the end of the line or of the input.
    fn copy_line<'a>(&mut self, input: &'a [u8], output: &mut Vec<u8>) -> &'a [u8] {
        let newline = memchr(b'\n', input);
        let line = &input[..newline.unwrap_or(input.len())];
        if !line.is_empty() && std::mem::take(&mut self.has_cr) {
            output.push(b'\r');
        }
        let (line, ends_with_cr) = match line.strip_suffix(b"\r") {
            Some(line) => (line, true),
            None => (line, false),
        };
        output.extend_from_slice(line);
        let Some(newline) = newline else {
            self.at = At::Inside;
            self.has_cr = ends_with_cr;
            return b"";
        };
        self.has_cr = false;
        self.at = At::Start;
        output.push(b'\n');
        &input[newline + 1..]
    }

    fn flush_from(&mut self, output: &mut Vec<u8>) {
        if let At::From(matched) = self.at {
            output.extend_from_slice(&FROM[..matched]);
        }
    }

    fn finish(mut self, output: &mut Vec<u8>) {
        self.flush_from(output);
        if std::mem::take(&mut self.has_cr) {
            output.push(b'\r');
            self.at = At::Inside;
        }
        if !self.quotes {
            return;
        }
        if self.at != At::Start {
            output.push(b'\n');
        }
        output.push(b'\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn converted(quotes: bool, pieces: &[&[u8]]) -> Vec<u8> {
        let mut converter = Converter::new(quotes);
        let mut output = Vec::new();
        for piece in pieces {
            converter.convert(piece, &mut output);
        }
        converter.finish(&mut output);
        output
    }

    fn check(quotes: bool, content: &[u8], expected: &[u8]) {
        assert_eq!(
            converted(quotes, &[content]).escape_ascii().to_string(),
            expected.escape_ascii().to_string()
        );
        let octets: Vec<_> = content.chunks(1).collect();
        assert_eq!(converted(quotes, &octets), expected);
    }

    #[test]
    fn crlf_becomes_lf_and_nothing_else_changes() {
        check(false, b"", b"");
        check(false, b"a\r\n\r\nb\r\n", b"a\n\nb\n");
        check(false, b"a\rb\r\r\nc\nd\r", b"a\rb\r\nc\nd\r");
        check(false, b"From x\r\n\r", b"From x\n\r");
        check(false, b"\r\n\r\n", b"\n\n");
    }

    #[test]
    fn from_lines_get_one_more_quote() {
        check(true, b"", b"\n");
        check(true, b"From x\r\n", b">From x\n\n");
        check(true, b">>From \r\nFrom\r\nFro", b">>>From \nFrom\nFro\n\n");
        check(true, b"a From x\r\n> From x\r\n\r\nFrom x", b"a From x\n> From x\n\n>From x\n\n");
        check(true, b"F>From \r\nFFrom \r\n", b"F>From \nFFrom \n\n");
        check(true, b"Fr\rom \r", b"Fr\rom \r\n\n");
        check(true, b"\rFrom x\r\n", b"\rFrom x\n\n");
        check(true, b"from x\r\nFROM x\r\n", b"from x\nFROM x\n\n");
    }

    /// What a reader of such an mbox does.
    fn unquoted(text: &str) -> String {
        let lines = text.split('\n').map(|line| match line.strip_prefix('>') {
            Some(rest) if rest.trim_start_matches('>').starts_with("From ") => rest,
            _ => line,
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    proptest! {
        #[test]
        fn the_result_is_the_same_however_the_content_is_cut(
            pieces in prop::collection::vec("[a>From \r\n]{0,8}|From |\r\n|>", 0..20),
            quotes in any::<bool>(),
        ) {
            let whole = pieces.concat();
            let pieces: Vec<_> = pieces.iter().map(|piece| piece.as_bytes()).collect();
            let expected = converted(quotes, &[whole.as_bytes()]);
            prop_assert_eq!(converted(quotes, &pieces), expected);
        }

        #[test]
        fn quoting_can_be_undone(lines in prop::collection::vec("(>{0,3}From |>|F|a){0,4}", 0..9)) {
            let content: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
            let quoted = String::from_utf8(converted(true, &[content.as_bytes()])).unwrap();
            prop_assert!(!quoted.split('\n').any(|line| line.starts_with("From ")));
            let original = content.replace("\r\n", "\n");
            prop_assert_eq!(unquoted(&quoted), format!("{original}\n"));
        }

        #[test]
        fn plain_conversion_replaces_each_crlf(content in "[a\r\n]{0,40}") {
            let expected = content.replace("\r\n", "\n");
            prop_assert_eq!(converted(false, &[content.as_bytes()]), expected.as_bytes());
        }
    }
}
