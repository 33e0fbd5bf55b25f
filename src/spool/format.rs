//! A spool file's text: the envelope, an empty line, the message's content, and a last line
//! that says how long the content is. A file without that line was never finished.
//!
//! ```text
//! mailwren 1
//! id 1jt5w0k3q8z4a
//! received 1795000000
//! client 192.0.2.7
//! from <ann@example.org>
//! body 8bitmime
//! ret HDRS
//! envid QQ314159
//! to <bob@example.net> SUCCESS,FAILURE rfc822;bob@example.net
//!
//! Received: …
//! mailwren-end 00000000000001a4
//! ```
//!
//! `ret` and `envid` stand there when they were given; behind a recipient stand NOTIFY and
//! ORCPT, a dash for what was not given. No value can hold a line end: each is a type that was
//! parsed (see `mail/address.rs`), or is checked here.

use std::fmt::Write as _;
use std::io;

use crate::mail::address::{Mailbox, ReversePath, path_in};
use crate::mail::dsn_request::{MessageRequest, RecipientRequest};
use crate::mail::text::{MAX_REMARK, one_line};
use crate::spool::envelope::{Body, Envelope, Recipient};
use crate::spool::message::StoredMessage;
use crate::sys::disk::DiskFile;

const FIRST_LINE: &str = "mailwren 1";
const END_MARK: &str = "mailwren-end ";
/// The octets of the last line: mark, sixteen digits, LF.
const END_LENGTH: u64 = END_MARK.len() as u64 + 17;
/// The most octets of an envelope: room for 100 000 recipients.
const MAX_ENVELOPE: usize = 64 << 20;
/// How much of a file is read at a time while its envelope is looked for.
const READ_STEP: usize = 4096;

/// Why a spool file is not a message.
#[derive(Debug)]
pub enum ReadError {
    /// It could not be read.
    Io(io::Error),
    /// It has no last line: it was never finished, and so never promised.
    Incomplete,
    /// It is finished, but its envelope makes no sense.
    Malformed,
    /// Somebody else is at work on it.
    Locked,
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl std::fmt::Display for ReadError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::Incomplete => f.write_str("the file was never finished"),
            Self::Malformed => f.write_str("the envelope is malformed"),
            Self::Locked => f.write_str("somebody else is at work on it"),
        }
    }
}

/// The text that stands before the content.
pub fn envelope_text(envelope: &Envelope) -> String {
    let body = match envelope.body {
        Body::SevenBit => "7bit",
        Body::EightBitMime => "8bitmime",
    };
    let mut text = format!(
        "{FIRST_LINE}\nid {}\nreceived {}\nclient {}\nfrom {}\nbody {body}\n",
        envelope.id,
        envelope.received_at,
        one_line(&envelope.client, MAX_REMARK),
        envelope.reverse_path,
    );
    // Writing to a String cannot fail.
    if let Some(ret) = envelope.request.ret {
        let _ = writeln!(text, "ret {ret}");
    }
    if let Some(envelope_id) = &envelope.request.envelope_id {
        let _ = writeln!(text, "envid {envelope_id}");
    }
    for Recipient { mailbox, request } in &envelope.recipients {
        let _ = writeln!(text, "to <{mailbox}>{}", request_text(request));
    }
    text.push('\n');
    text
}

/// What was asked about a recipient, behind its address: two words, or nothing at all.
pub(super) fn request_text(request: &RecipientRequest) -> String {
    fn word<T: ToString>(value: Option<&T>) -> String {
        value.map_or_else(|| "-".to_owned(), T::to_string)
    }
    match request {
        RecipientRequest { notify: None, original: None } => String::new(),
        RecipientRequest { notify, original } => {
            format!(" {} {}", word(notify.as_ref()), word(original.as_ref()))
        }
    }
}

/// The line that stands behind `content_octets` of content.
pub fn end_line(content_octets: u64) -> String {
    format!("{END_MARK}{content_octets:016x}\n")
}

/// Reads the envelope and finds the content.
///
/// # Errors
/// Why the file is no message.
pub fn read(file: DiskFile) -> Result<StoredMessage, ReadError> {
    read_within(file, MAX_ENVELOPE)
}

/// The same where an envelope of more than `max_envelope` octets is none.
///
/// # Errors
/// As above.
pub(super) fn read_within(file: DiskFile, max_envelope: usize) -> Result<StoredMessage, ReadError> {
    let content_octets = content_octets(&file)?.ok_or(ReadError::Incomplete)?;
    let end = file.size_octets()? - END_LENGTH;
    let start = end.checked_sub(content_octets).ok_or(ReadError::Malformed)?;
    let length = usize::try_from(start).ok().filter(|&length| length <= max_envelope);
    let mut text = vec![0; length.ok_or(ReadError::Malformed)?];
    for (step, part) in text.chunks_mut(READ_STEP).enumerate() {
        file.read_exact_at(part, (step * READ_STEP) as u64)?;
    }
    let text = String::from_utf8(text).map_err(|_| ReadError::Malformed)?;
    let envelope = parse_envelope(&text).ok_or(ReadError::Malformed)?;
    Ok(StoredMessage::new(file, start..end, envelope))
}

fn content_octets(file: &DiskFile) -> io::Result<Option<u64>> {
    let Some(start) = file.size_octets()?.checked_sub(END_LENGTH) else {
        return Ok(None);
    };
    let mut line = [0; END_LENGTH as usize];
    file.read_exact_at(&mut line, start)?;
    let digits = std::str::from_utf8(&line)
        .ok()
        .and_then(|line| line.strip_prefix(END_MARK))
        .and_then(|line| line.strip_suffix('\n'));
    Ok(digits
        .and_then(|digits| u64::from_str_radix(digits, 16).ok())
        .filter(|&octets| octets <= start))
}

fn parse_envelope(text: &str) -> Option<Envelope> {
    let mut lines = text.strip_suffix("\n\n")?.split('\n').peekable();
    if lines.next()? != FIRST_LINE {
        return None;
    }
    let mut field = |name: &str| lines.next()?.strip_prefix(name)?.strip_prefix(' ');
    let id = field("id")?.parse().ok()?;
    let received_at = field("received")?.parse().ok()?;
    let client = field("client")?.to_owned();
    let reverse_path: ReversePath = field("from")?.parse().ok()?;
    let body = match field("body")? {
        "7bit" => Body::SevenBit,
        "8bitmime" => Body::EightBitMime,
        _ => return None,
    };
    let mut optional = |name: &str| {
        let is_named = |line: &&str| line.split(' ').next() == Some(name);
        lines.next_if(is_named)?.split_once(' ').map(|(_, value)| value)
    };
    let ret = optional("ret").map(str::parse).transpose().ok()?;
    let envelope_id = optional("envid").map(str::parse).transpose().ok()?;
    let request = MessageRequest { ret, envelope_id };
    let recipients = lines
        .map(|line| line.strip_prefix("to ").and_then(recipient))
        .collect::<Option<Vec<_>>>()?;
    let envelope = Envelope { id, received_at, client, reverse_path, recipients, body, request };
    (!envelope.recipients.is_empty()).then_some(envelope)
}

/// Reads `<mailbox>`, or that and what was asked about it.
fn recipient(text: &str) -> Option<Recipient> {
    let (path, rest) = path_in(text).ok()?;
    let request = match rest {
        "" => RecipientRequest::default(),
        rest => parse_request(rest.strip_prefix(' ')?)?,
    };
    Some(Recipient { mailbox: bracketed(path)?, request })
}

/// Reads two words: NOTIFY and ORCPT, or dashes.
pub(super) fn parse_request(text: &str) -> Option<RecipientRequest> {
    fn word<T: std::str::FromStr>(text: &str) -> Option<Option<T>> {
        if text == "-" { Some(None) } else { text.parse().ok().map(Some) }
    }
    let (notify, original) = text.split_once(' ')?;
    Some(RecipientRequest { notify: word(notify)?, original: word(original)? })
}

/// Reads `<mailbox>`.
pub(super) fn bracketed(text: &str) -> Option<Mailbox> {
    text.strip_prefix('<')?.strip_suffix('>')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spool::id::QueueId;
    use proptest::prelude::*;
    use std::io::{Read, Write};

    fn file_with(bytes: &[u8]) -> DiskFile {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file.into()
    }

    fn envelope(client: &str, from: &str, to: &[&str]) -> Envelope {
        Envelope {
            id: QueueId::generate(1_795_000_000_000_000, 0),
            received_at: 1_795_000_000,
            client: client.into(),
            reverse_path: from.parse().unwrap(),
            recipients: to.iter().map(|to| recipient(to).unwrap()).collect(),
            body: Body::EightBitMime,
            request: MessageRequest::default(),
        }
    }

    fn whole(envelope: &Envelope, content: &[u8]) -> Vec<u8> {
        let mut bytes = envelope_text(envelope).into_bytes();
        bytes.extend_from_slice(content);
        bytes.extend_from_slice(end_line(content.len() as u64).as_bytes());
        bytes
    }

    #[test]
    fn a_finished_file_reads_back() {
        let to = ["<ann@example.org>", "<\"b> c\"@[IPv6:::1]> NEVER -", "<c@d> DELAY rfc822;x"];
        let mut envelope = envelope("uid 1000", "<>", &to);
        envelope.request.ret = "HDRS".parse().ok();
        envelope.request.envelope_id = "a+20b".parse().ok();
        let content = b"Subject: x\r\n\r\nmailwren-end 0000000000000001\n\n\r\n";
        let message = read(file_with(&whole(&envelope, content))).unwrap();
        assert_eq!(*message.envelope(), envelope);
        let mut read_back = Vec::new();
        message.reader().read_to_end(&mut read_back).unwrap();
        assert_eq!(read_back, content);
        assert_eq!(message.size_octets(), content.len() as u64);
    }

    #[test]
    fn a_file_cut_anywhere_is_incomplete() {
        let bytes = whole(&envelope("192.0.2.1", "<a@b>", &["<c@d>"]), b"x\r\n");
        for end in 0..bytes.len() {
            let result = read(file_with(&bytes[..end]));
            assert!(matches!(result, Err(ReadError::Incomplete)), "cut at {end}: {result:?}");
        }
    }

    #[test]
    fn nonsense_is_malformed_not_a_message() {
        for text in ["", "\n\n", "mailwren 2\n\n", "mailwren 1\nid x\n\n"] {
            let bytes = format!("{text}{}", end_line(0));
            assert!(
                matches!(read(file_with(bytes.as_bytes())), Err(ReadError::Malformed)),
                "{text:?}"
            );
        }
        let none = whole(&envelope("x", "<a@b>", &["<c@d>"]), b"");
        let none = String::from_utf8(none).unwrap().replace("to <c@d>\n", "");
        assert!(matches!(read(file_with(none.as_bytes())), Err(ReadError::Malformed)));
    }

    proptest! {
        #[test]
        fn any_client_and_content_read_back(client in "[ -~\n\r]{0,20}", content in any::<Vec<u8>>()) {
            let envelope = envelope(&client, "<a@b>", &["<c@d>"]);
            let message = read(file_with(&whole(&envelope, &content))).unwrap();
            let mut read_back = Vec::new();
            message.reader().read_to_end(&mut read_back).unwrap();
            prop_assert_eq!(read_back, content);
            prop_assert_eq!(&message.envelope().recipients, &envelope.recipients);
        }

        #[test]
        fn random_files_never_panic(bytes in any::<Vec<u8>>(), octets in any::<u64>()) {
            let _ = read(file_with(&bytes));
            let mut bytes = bytes;
            bytes.extend_from_slice(end_line(octets).as_bytes());
            let _ = read(file_with(&bytes));
        }
    }
}
