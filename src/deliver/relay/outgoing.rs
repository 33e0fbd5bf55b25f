//! A message as it leaves this host: its sender, and its content with other addresses in the
//! header section where `[rewrite]` says so. The spool keeps what came in, so a corrected
//! `[rewrite]` counts for what waits already.

use std::io::{self, Cursor, Read};

use crate::deliver::job::Job;
use crate::deliver::outcome::Failure;
use crate::mail::address::ReversePath;
use crate::mail::rewriting::{self, Renaming, Rewritten};
use crate::mail::status::Status;
use crate::route::rewrite::{Rewriter, Rules};
use crate::spool::message::StoredMessage;

/// The largest header section that is looked at, in octets. What stands behind is left alone.
const MAX_HEADER: usize = 256 << 10;
/// How much of a message is read at once to find the end of its header section, in octets.
const BLOCK: usize = 16 << 10;

/// A message on its way out.
#[derive(Debug)]
pub(super) struct Outgoing<'a> {
    /// Whose message it is, and where it goes.
    pub(super) job: &'a Job,
    /// Who sends it.
    pub(super) reverse_path: ReversePath,
    /// What stands in the place of the first `replaced` octets of the content.
    beginning: Vec<u8>,
    replaced: usize,
}

impl<'a> Outgoing<'a> {
    /// The message as it is.
    pub(super) fn unchanged(job: &'a Job) -> Self {
        let reverse_path = job.reverse_path.clone();
        Self { job, reverse_path, beginning: Vec::new(), replaced: 0 }
    }

    /// The message as `rewriter` would have it.
    ///
    /// # Errors
    /// When that cannot be said now, or the message cannot be read.
    pub(super) fn rewritten(job: &'a Job, rewriter: &Rewriter) -> Result<Self, Failure> {
        let (rules, envelope) = (rewriter.rules()?, job.message.envelope());
        let is_ours = rewriter.is_ours(&envelope.client);
        let mut outgoing = Self::unchanged(job);
        // The owner of a list is ours, whoever wrote to it.
        if is_ours || job.reverse_path != envelope.reverse_path {
            outgoing.reverse_path = rules.reverse_path(&job.reverse_path);
        }
        if is_ours {
            outgoing.rewrite_fields(&rules, &envelope.reverse_path).map_err(|error| {
                // RFC 3463 §3.4: other mail system status.
                Failure::new(Status::new(4, 3, 0), format!("the message cannot be read: {error}"))
            })?;
        }
        Ok(outgoing)
    }

    /// The octets of the content, lines ended by CRLF, without dot-stuffing.
    pub(super) fn size_octets(&self) -> u64 {
        self.job.message.size_octets() - self.replaced as u64 + self.beginning.len() as u64
    }

    /// Reads the content from its beginning.
    pub(super) fn reader(&self) -> impl Read + '_ {
        let rest = self.job.message.reader_behind(self.replaced as u64);
        Cursor::new(&self.beginning).chain(rest)
    }

    fn rewrite_fields(&mut self, rules: &Rules<'_>, sender: &ReversePath) -> io::Result<()> {
        let mut read = read_beginning(&self.job.message)?;
        // What others signed and somebody here only passes on keeps every octet. The mail of this
        // host gets the addresses that its owner asked for, signed or not.
        let is_passed_on = sender.mailbox().is_some_and(|sender| rules.author(sender).is_none());
        if is_passed_on && rewriting::is_signed(&read) {
            return Ok(());
        }
        let is_whole = self.job.message.size_octets() == read.len() as u64;
        let rewritten = rewriting::rewrite(&read, is_whole, rules, sender.mailbox());
        if let Some(Rewritten { fields, replaced }) = rewritten {
            self.replaced = read.len();
            self.beginning = fields;
            self.beginning.extend(read.drain(replaced..));
        }
        Ok(())
    }
}

/// Reads at least the header section, unless it is too large.
fn read_beginning(message: &StoredMessage) -> io::Result<Vec<u8>> {
    let (mut reader, mut read) = (message.reader(), Vec::new());
    loop {
        let seen = read.len();
        read.resize((seen + BLOCK).min(MAX_HEADER), 0);
        let count = reader.read(&mut read[seen..])?;
        read.truncate(seen + count);
        // The empty line may have begun in the block before.
        let fresh = &read[seen.saturating_sub(b"\r\n\r".len())..];
        let is_found = memchr::memmem::find(fresh, b"\r\n\r\n").is_some();
        if count == 0 || is_found || read.starts_with(b"\r\n") {
            return Ok(read);
        }
    }
}
