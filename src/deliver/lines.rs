//! A message as files on Unix hold it: lines end with LF. In an mbox no line looks like the
//! beginning of the next message, and no field of a stranger tells mail readers what only they
//! may note there.

use std::io::{self, Read, Write};

use memchr::memchr;

/// Octets read and written at once.
const CHUNK: usize = 64 * 1024;
/// What begins a message in an mbox (RFC 4155 appendix A).
const FROM: &[u8] = b"From ";
/// The fields in which readers of an mbox note what they know of a message, and which they
/// trust. A message that comes with them could count as read or deleted, take the number of
/// another one, or hide those behind it in its own length.
const NOTES: [&str; 7] =
    ["Content-Length", "Status", "X-IMAP", "X-IMAPbase", "X-Keywords", "X-Status", "X-UID"];
/// What is put before such a name, so that it says what it said and means nothing.
const DISARMED: &[u8] = b"X-Original-";

/// Which side of a copy failed.
#[derive(Debug)]
pub enum CopyError {
    /// The content could not be read.
    Read(io::Error),
    /// The copy could not be written.
    Write(io::Error),
}

/// Writes `head` as it is, then the content with each CRLF turned into LF. Gives the octets
/// written.
///
/// # Errors
/// The first error of either side. What was written until then stays.
pub fn copy(head: Vec<u8>, content: &mut dyn Read, to: &mut dyn Write) -> Result<u64, CopyError> {
    copy_through(Converter::new(false), head, content, to)
}

/// The same for an mbox: each line of the content that is `From ` behind any number of `>`
/// gets one more, so that a reader can take it off again; in the header section the names of
/// fields that belong to mail readers get `X-Original-` in front; an end of line is added where
/// the content lacks one, and an empty line ends it.
///
/// # Errors
/// As above.
pub fn copy_quoted(
    head: Vec<u8>,
    content: &mut dyn Read,
    to: &mut dyn Write,
) -> Result<u64, CopyError> {
    copy_through(Converter::new(true), head, content, to)
}

fn copy_through(
    mut converter: Converter,
    head: Vec<u8>,
    content: &mut dyn Read,
    to: &mut dyn Write,
) -> Result<u64, CopyError> {
    let mut output = head;
    let mut input = vec![0; CHUNK];
    let mut octets = 0;
    loop {
        match content.read(&mut input) {
            Ok(0) => break,
            Ok(count) => converter.convert(&input[..count], &mut output),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(CopyError::Read(error)),
        }
        if output.len() >= CHUNK {
            to.write_all(&output).map_err(CopyError::Write)?;
            octets += output.len() as u64;
            output.clear();
        }
    }
    converter.finish(&mut output);
    to.write_all(&output).map_err(CopyError::Write)?;
    Ok(octets + output.len() as u64)
}

/// Converts a message piece by piece, the same however it is cut.
#[derive(Debug)]
struct Converter {
    quotes: bool,
    at: At,
    /// A CR ended the last piece; an LF may follow.
    has_cr: bool,
    /// No empty line was there yet.
    in_header: bool,
    /// The beginning of a line that may become the name of one of [`NOTES`], not yet put out.
    name: Vec<u8>,
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
    /// Behind what is held back as the name of a field.
    Name,
    /// Anywhere else.
    Inside,
}

impl Converter {
    fn new(quotes: bool) -> Self {
        Self { quotes, at: At::Start, has_cr: false, in_header: true, name: Vec::new() }
    }

    fn convert(&mut self, mut input: &[u8], output: &mut Vec<u8>) {
        while let Some(&octet) = input.first() {
            input = match self.at {
                _ if !self.quotes || self.has_cr => self.copy_line(input, output),
                At::Inside => self.copy_line(input, output),
                // An empty line so far.
                At::Start if matches!(octet, b'\r' | b'\n') => self.copy_line(input, output),
                At::Name => self.look_for_note(input, output),
                At::Start if self.in_header && begins_a_note(&[octet]) => {
                    self.look_for_note(input, output)
                }
                At::Start | At::Quoted | At::From(_) => self.look_for_from(input, output),
            };
        }
    }

    /// Takes what may be the name of a field that mail readers trust, in any case and with
    /// blanks behind it or not.
    fn look_for_note<'a>(&mut self, input: &'a [u8], output: &mut Vec<u8>) -> &'a [u8] {
        let Some((&octet, rest)) = input.split_first() else { return input };
        self.name.push(octet);
        if begins_a_note(&self.name) {
            self.at = At::Name;
            return rest;
        }
        self.name.pop();
        if matches!(octet, b':' | b' ' | b'\t') && is_note(&self.name) {
            output.extend_from_slice(DISARMED);
        }
        self.put_out_held(output);
        self.at = At::Inside;
        input
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
            self.put_out_held(output);
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
            self.at = At::Inside;
        }
        let (line, ends_with_cr) = match line.strip_suffix(b"\r") {
            Some(line) => (line, true),
            None => (line, false),
        };
        output.extend_from_slice(line);
        if !line.is_empty() {
            self.at = At::Inside;
        }
        let Some(newline) = newline else {
            self.has_cr = ends_with_cr;
            return b"";
        };
        if self.at == At::Start {
            self.in_header = false;
        }
        self.has_cr = false;
        self.at = At::Start;
        output.push(b'\n');
        &input[newline + 1..]
    }

    fn put_out_held(&mut self, output: &mut Vec<u8>) {
        if let At::From(matched) = self.at {
            output.extend_from_slice(&FROM[..matched]);
        }
        output.append(&mut self.name);
    }

    fn finish(mut self, output: &mut Vec<u8>) {
        self.put_out_held(output);
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

/// Whether one of [`NOTES`] begins so.
fn begins_a_note(text: &[u8]) -> bool {
    NOTES.iter().any(|note| {
        let beginning = note.as_bytes().get(..text.len());
        beginning.is_some_and(|beginning| beginning.eq_ignore_ascii_case(text))
    })
}

fn is_note(name: &[u8]) -> bool {
    NOTES.iter().any(|note| note.as_bytes().eq_ignore_ascii_case(name))
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

    #[test]
    fn what_mail_readers_note_is_disarmed_in_the_header_section_alone() {
        for note in NOTES {
            let (upper, lower) = (note.to_ascii_uppercase(), note.to_ascii_lowercase());
            let content =
                format!("{upper}: 1\r\nA: b\r\n{lower} \t:2\r\n{note}\t:3\r\n\r\n{note}: 4\r\n");
            let expected = format!(
                "X-Original-{upper}: 1\nA: b\nX-Original-{lower} \t:2\nX-Original-{note}\t:3\n\n{note}: 4\n\n"
            );
            check(true, content.as_bytes(), expected.as_bytes());
            check(false, content.as_bytes(), content.replace("\r\n", "\n").as_bytes());
        }
    }

    #[test]
    fn other_fields_stay_as_they_are() {
        for content in [
            "Statu: a\r\nStatus-x: b\r\nXStatus: c\r\n X-UID: d\r\n>Status: e\r\n",
            "X-IMAPb: a\r\nX-: b\r\nX\r\nStatus\r\nContent-Length\r\r\n",
            "\r\nStatus: RO\r\n",
            "A: b\r\n\nX-UID: 1\r\nStatus",
        ] {
            let end = if content.ends_with("\r\n") { "\n" } else { "\n\n" };
            let expected = format!("{}{end}", content.replace("\r\n", "\n"));
            check(true, content.as_bytes(), expected.as_bytes());
        }
        check(true, b"Status", b"Status\n\n");
        // A line with a CR in it is not empty.
        check(true, b"\r\r\nStatus: D\r\n", b"\r\nX-Original-Status: D\n\n");
        check(true, b">\r\nStatus: D", b">\nX-Original-Status: D\n\n");
        check(true, b"From \r\nX-IMAP: D", b">From \nX-Original-X-IMAP: D\n\n");
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
            pieces in prop::collection::vec(
                "[a>From \r\n]{0,8}|From |\r\n|>|X-IMAP|base|Status|[ :]", 0..20
            ),
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
