//! How far a message has come: the state of each recipient, and when to try again. Kept
//! beside the message once something did not go through at once.

use std::collections::HashSet;
use std::fmt::Write as _;

use crate::mail::address::Mailbox;
use crate::mail::text::{MAX_REMARK, one_line};
use crate::spool::envelope::Envelope;
use crate::spool::format::bracketed;

const FIRST_LINE: &str = "mailwren-state 1";

/// The state of one recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Not there yet: still to be tried.
    Pending,
    /// In a mailbox here, or taken by the next hop.
    Done,
    /// An alias; the recipients behind it in the list took its place.
    Expanded,
    /// Given up; the sender was told, or was null.
    Failed,
}

impl State {
    const NAMES: [(Self, &str); 4] = [
        (Self::Pending, "pending"),
        (Self::Done, "done"),
        (Self::Expanded, "expanded"),
        (Self::Failed, "failed"),
    ];

    fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(state, _)| *state == self).map_or("pending", |(_, name)| name)
    }

    fn from_name(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(_, known)| *known == name).map(|(state, _)| *state)
    }
}

/// A recipient and its state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecipientState {
    /// The address.
    pub mailbox: Mailbox,
    /// What became of it.
    pub state: State,
    /// What was said at the last try, on one printable line; may be empty.
    pub last_reply: String,
}

impl RecipientState {
    fn pending(mailbox: Mailbox) -> Self {
        Self { mailbox, state: State::Pending, last_reply: String::new() }
    }
}

/// The states of all recipients of a message: those of its envelope first, in their order,
/// then those that aliases added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Tries that ended with somebody deferred.
    pub attempts: u32,
    /// When the next try is due, in seconds since 1970, for people to read.
    pub next_try: u64,
    /// How old the message was in seconds (see [`crate::spool::age`]) when that was noted.
    pub waited: u64,
    /// When that was, in seconds of [`crate::spool::timekeeper`]; `None` where it is not known.
    pub noted: Option<u64>,
    /// The states.
    pub recipients: Vec<RecipientState>,
}

impl Progress {
    /// Nothing tried yet.
    pub fn new(envelope: &Envelope) -> Self {
        let recipients = envelope.recipients.iter().cloned().map(RecipientState::pending).collect();
        Self { attempts: 0, next_try: 0, waited: 0, noted: None, recipients }
    }

    /// Whether every recipient has ended one way or the other.
    pub fn is_settled(&self) -> bool {
        self.recipients.iter().all(|recipient| recipient.state != State::Pending)
    }

    /// Whether nobody has ended yet, so that losing this record would lose nothing.
    pub fn is_untouched(&self) -> bool {
        self.recipients.iter().all(|recipient| recipient.state == State::Pending)
    }

    /// Adds recipients that an alias stands for, unless they are in the list already: so
    /// nobody gets a message twice, and aliases that lead to each other come to an end. Case
    /// does not count.
    pub fn expand(&mut self, mailboxes: Vec<Mailbox>) {
        let key = |mailbox: &Mailbox| mailbox.to_string().to_ascii_lowercase();
        let mut known: HashSet<_> =
            self.recipients.iter().map(|recipient| key(&recipient.mailbox)).collect();
        let new = mailboxes.into_iter().filter(|mailbox| known.insert(key(mailbox)));
        self.recipients.extend(new.map(RecipientState::pending));
    }

    /// The record as text.
    pub fn to_text(&self) -> String {
        let mut text = format!(
            "{FIRST_LINE}\nattempts {}\nnext {}\nwaited {}",
            self.attempts, self.next_try, self.waited
        );
        let _ = match self.noted {
            Some(noted) => writeln!(text, " at {noted}"),
            None => writeln!(text),
        };
        for recipient in &self.recipients {
            let reply = one_line(&recipient.last_reply, MAX_REMARK);
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{} <{}> {reply}", recipient.state.name(), recipient.mailbox);
        }
        text
    }

    /// Reads a record of the message with this envelope; `None` when it is none.
    pub fn parse(text: &str, envelope: &Envelope) -> Option<Self> {
        let mut lines = text.strip_suffix('\n')?.split('\n');
        if lines.next()? != FIRST_LINE {
            return None;
        }
        let attempts = lines.next()?.strip_prefix("attempts ")?.parse().ok()?;
        let next_try = lines.next()?.strip_prefix("next ")?.parse().ok()?;
        let (waited, noted) = parse_waited(lines.next()?)?;
        let recipients = lines.map(parse_recipient).collect::<Option<Vec<_>>>()?;
        let names = recipients.iter().map(|recipient| &recipient.mailbox);
        let is_of_envelope = recipients.len() >= envelope.recipients.len()
            && names.zip(&envelope.recipients).all(|(ours, theirs)| ours == theirs);
        is_of_envelope.then_some(Self { attempts, next_try, waited, noted, recipients })
    }
}

/// `waited 3600 at 98765`, or without the moment.
fn parse_waited(line: &str) -> Option<(u64, Option<u64>)> {
    let text = line.strip_prefix("waited ")?;
    match text.split_once(" at ") {
        Some((waited, noted)) => Some((waited.parse().ok()?, Some(noted.parse().ok()?))),
        None => Some((text.parse().ok()?, None)),
    }
}

fn parse_recipient(line: &str) -> Option<RecipientState> {
    let (name, rest) = line.split_once(' ')?;
    let state = State::from_name(name)?;
    let (path, rest) = crate::mail::address::path_in(rest).ok()?;
    let last_reply = rest.strip_prefix(' ')?.to_owned();
    Some(RecipientState { mailbox: bracketed(path)?, state, last_reply })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::address::ReversePath;
    use crate::spool::envelope::Body;
    use crate::spool::id::QueueId;
    use proptest::prelude::*;

    fn envelope(recipients: &[&str]) -> Envelope {
        Envelope {
            id: QueueId::generate(0, 0),
            received_at: 0,
            client: "192.0.2.1".into(),
            reverse_path: ReversePath::Null,
            recipients: recipients.iter().map(|text| text.parse().unwrap()).collect(),
            body: Body::SevenBit,
        }
    }

    #[test]
    fn an_expansion_adds_nobody_twice() {
        let mut progress = Progress::new(&envelope(&["root@h", "ann@h"]));
        let into = ["Ann@h", "bob@h", "root@H", "bob@h"];
        progress.expand(into.iter().map(|text| text.parse().unwrap()).collect());
        let names: Vec<_> = progress.recipients.iter().map(|r| r.mailbox.to_string()).collect();
        assert_eq!(names, ["root@h", "ann@h", "bob@h"]);
    }

    #[test]
    fn a_record_of_another_message_is_none() {
        let ours = envelope(&["ann@h"]);
        let text = Progress::new(&envelope(&["bob@h"])).to_text();
        assert_eq!(Progress::parse(&text, &ours), None);
        for text in
            ["", "\n", "mailwren-state 1\n", "mailwren-state 1\nattempts 0\nnext 0\nwaited 0\n"]
        {
            assert_eq!(Progress::parse(text, &ours), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(
            attempts in any::<u32>(),
            (next_try, waited, noted) in any::<(u64, u64, Option<u64>)>(),
            replies in proptest::collection::vec(("[ -~]{0,30}", 0..4usize), 2),
        ) {
            let envelope = envelope(&["ann@h", "\"b> c\"@h"]);
            let mut progress = Progress { attempts, next_try, waited, noted, ..Progress::new(&envelope) };
            for (recipient, (reply, state)) in progress.recipients.iter_mut().zip(replies) {
                recipient.last_reply = reply;
                recipient.state = State::NAMES[state].0;
            }
            prop_assert_eq!(Progress::parse(&progress.to_text(), &envelope), Some(progress));
        }

        #[test]
        fn random_text_never_panics(text in any::<String>()) {
            let _ = Progress::parse(&text, &envelope(&["ann@h"]));
        }
    }
}
