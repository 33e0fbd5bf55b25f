//! How far a message has come: the state of each recipient, and when to try again. Kept
//! beside the message once something did not go through at once.
//!
//! ```text
//! mailwren-state 1
//! attempts 3
//! next 1795003600
//! waited 3700 at 98765
//! held 1795000500 root
//! given-up root
//! warned
//! pending <bob@example.net> SUCCESS,FAILURE rfc822;bob@example.net
//! tried 1795000000 4.2.1 mx.example.net[192.0.2.7]:25 450 4.2.1 try later
//! done <ann@example.org>
//! pending <ann@example.org>
//! way |/usr/bin/procmail
//! sender <owner-list@example.org>
//! past 1795000000 bob@example.net: 4.2.1 450 4.2.1 try later
//! ```
//!
//! `held` stands there while somebody holds the message, `given-up` when somebody wants it returned
//! to its sender, `warned` once the sender knows that it is late, and with an address behind it
//! once the owner of a list does. Below a recipient stand `way` where it is a command, a file, or a
//! user or a mailbox by itself (see [`Way`]), `sender` where it is behind a list with an owner,
//! `tried` once it was tried in vain, `owed` where the sender is still to be told of its end,
//! `gathered` where it waits to go out with others; in this order. `past` is there for each earlier
//! try.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::iter::Peekable;
use std::str::Split;

use crate::mail::address::Mailbox;
use crate::mail::dsn_request::RecipientRequest;
use crate::mail::status::Status;
use crate::mail::text::{MAX_REMARK, one_line};
use crate::route::addressee::{Addressee, Way};
use crate::spool::envelope::{Envelope, Recipient};
use crate::spool::format::{bracketed, parse_request, request_text};

const FIRST_LINE: &str = "mailwren-state 1";
/// The most past tries that a record keeps; the oldest ones go first.
const MAX_PAST: usize = 50;

/// The state of one recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Not there yet: still to be tried.
    Pending,
    /// In a mailbox here, or taken by the next hop.
    Done,
    /// An alias; the recipients behind it in the list took its place.
    Expanded,
    /// Given up; the sender was told, or did not want to be.
    Failed,
}

impl State {
    const NAMES: [(Self, &str); 4] = [
        (Self::Pending, "pending"),
        (Self::Done, "done"),
        (Self::Expanded, "expanded"),
        (Self::Failed, "failed"),
    ];

    /// Its name in a record and for programs.
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(state, _)| *state == self).map_or("pending", |(_, name)| name)
    }

    fn from_name(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(_, known)| *known == name).map(|(state, _)| *state)
    }
}

/// A try in vain. Its texts are printable and on one line once they were in a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Try {
    /// When, in seconds since 1970 by the clock of that moment.
    pub at: u64,
    /// The enhanced status code.
    pub status: Status,
    /// The host that said so, `name[address]:port`, where one did.
    pub host: Option<String>,
    /// What it said; else what went wrong here.
    pub text: String,
}

/// A recipient and its state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecipientState {
    /// The address.
    pub mailbox: Mailbox,
    /// The way to it.
    pub way: Way,
    /// Who sends it to this one, where that is not the envelope's sender.
    pub sender: Option<Mailbox>,
    /// What was asked about it; for one that an alias added, what was asked about the alias.
    pub request: RecipientRequest,
    /// What became of it.
    pub state: State,
    /// Its last try in vain; for one that has ended well, what the report says of it.
    pub last_try: Option<Try>,
    /// Whether its end is decided and the report on it is not written yet. One that failed stays
    /// pending until then, though nobody tries it any more.
    pub is_report_owed: bool,
    /// Until when it waits to go out with others as one message, in seconds since 1970 by the
    /// clock of that moment, for people to read.
    pub gathered_until: Option<u64>,
}

impl RecipientState {
    /// What was said at the last try; empty where there was none.
    pub fn last_reply(&self) -> &str {
        self.last_try.as_ref().map_or("", |last| &last.text)
    }

    /// Somebody of whom nothing is known yet.
    pub fn pending(to: Addressee, sender: Option<Mailbox>, request: RecipientRequest) -> Self {
        let Addressee { mailbox, way } = to;
        Self {
            mailbox,
            way,
            sender,
            request,
            state: State::Pending,
            last_try: None,
            is_report_owed: false,
            gathered_until: None,
        }
    }

    /// Whether it is to be tried.
    pub fn is_open(&self) -> bool {
        self.state == State::Pending && !self.is_report_owed
    }
}

/// That somebody holds a message, so that it is not tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// Since when, in seconds since 1970.
    pub since: u64,
    /// Who: an account's name.
    pub by: String,
}

/// One of the tries so far, for a person to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PastTry {
    /// When, in seconds since 1970 by the clock of that moment.
    pub at: u64,
    /// Whom it was for and what came of it.
    pub text: String,
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
    /// Who holds it, if somebody does.
    pub held: Option<Hold>,
    /// Who wants it returned to its sender, if somebody does: nobody is tried any more.
    pub given_up_by: Option<String>,
    /// Whether the envelope's sender was told that it is late.
    pub is_delay_reported: bool,
    /// The owners of lists who were told so.
    pub warned_owners: Vec<Mailbox>,
    /// The states.
    pub recipients: Vec<RecipientState>,
    /// The last tries, oldest first.
    pub past: Vec<PastTry>,
}

/// The addresses in a list of recipients, so that it is not searched for each that an alias adds.
/// Case does not count.
#[derive(Debug)]
pub struct Known(HashSet<String>);

impl Known {
    /// Whether this address is in the list, with the same way to it.
    pub fn has(&self, mailbox: &Mailbox, way: &Way) -> bool {
        self.0.contains(&Self::key(mailbox, way))
    }

    fn key(mailbox: &Mailbox, way: &Way) -> String {
        format!("{} {way}", mailbox.to_string().to_ascii_lowercase())
    }
}

impl Progress {
    /// Nothing tried yet.
    pub fn new(envelope: &Envelope) -> Self {
        let pending = |to: &Recipient| {
            RecipientState::pending(to.mailbox.clone().into(), None, to.request.clone())
        };
        let recipients = envelope.recipients.iter().map(pending).collect();
        Self {
            attempts: 0,
            next_try: 0,
            waited: 0,
            noted: None,
            held: None,
            given_up_by: None,
            is_delay_reported: false,
            warned_owners: Vec::new(),
            recipients,
            past: Vec::new(),
        }
    }

    /// Whether every recipient has ended one way or the other, and all reports are written.
    pub fn is_settled(&self) -> bool {
        let is_pending = |it: &RecipientState| it.state == State::Pending || it.is_report_owed;
        !self.recipients.iter().any(is_pending)
    }

    /// Whether nobody is to be tried any more.
    pub fn is_over(&self) -> bool {
        !self.recipients.iter().any(RecipientState::is_open)
    }

    /// Whether losing this record would lose nothing but a try that comes early: nobody has
    /// ended yet, nobody has said anything, and the sender knows nothing.
    pub fn is_untouched(&self) -> bool {
        let is_free = self.held.is_none() && self.given_up_by.is_none();
        // One that has failed is pending until its report is written, but its end is decided.
        let is_open = RecipientState::is_open;
        let is_unknown = !self.is_delay_reported && self.warned_owners.is_empty();
        is_free && is_unknown && self.recipients.iter().all(is_open)
    }

    /// Whether who sends it to such a recipient was told that it is late.
    pub fn is_warned(&self, sender: Option<&Mailbox>) -> bool {
        match sender {
            None => self.is_delay_reported,
            Some(owner) => self.warned_owners.contains(owner),
        }
    }

    /// Notes that who sends it to such a recipient was told that it is late.
    pub fn note_warned(&mut self, sender: Option<&Mailbox>) {
        match sender {
            None => self.is_delay_reported = true,
            Some(owner) if !self.is_warned(sender) => self.warned_owners.push(owner.clone()),
            Some(_) => {}
        }
    }

    /// Takes over what people have said in `newer`, a later record that knows less of tries.
    pub fn obey(&mut self, newer: &Self) {
        self.held.clone_from(&newer.held);
        self.given_up_by.clone_from(&newer.given_up_by);
    }

    /// Whom the list names.
    pub fn known(&self) -> Known {
        Known(self.recipients.iter().map(|it| Known::key(&it.mailbox, &it.way)).collect())
    }

    /// Adds recipients that an alias stands for, unless they are in the list already, which
    /// `known` tells of: so nobody gets a message twice, and aliases that lead to each other come
    /// to an end.
    pub fn expand(&mut self, recipients: Vec<RecipientState>, known: &mut Known) {
        let new =
            recipients.into_iter().filter(|it| known.0.insert(Known::key(&it.mailbox, &it.way)));
        self.recipients.extend(new);
    }

    /// Notes a try in vain for the recipient at `index` of the list.
    pub fn note_try(&mut self, index: usize, tried: Try) {
        let Some(recipient) = self.recipients.get_mut(index) else { return };
        let host = tried.host.as_ref().map(|host| format!("{host} said: ")).unwrap_or_default();
        let text = format!("{}: {} {host}{}", recipient.mailbox, tried.status, tried.text);
        if self.past.len() >= MAX_PAST {
            self.past.remove(0);
        }
        self.past.push(PastTry { at: tried.at, text });
        recipient.last_try = Some(tried);
    }

    /// The record as text.
    pub fn to_text(&self) -> String {
        let mut text = format!(
            "{FIRST_LINE}\nattempts {}\nnext {}\nwaited {}",
            self.attempts, self.next_try, self.waited
        );
        // Writing to a String cannot fail.
        let _ = match self.noted {
            Some(noted) => writeln!(text, " at {noted}"),
            None => writeln!(text),
        };
        if let Some(Hold { since, by }) = &self.held {
            let _ = writeln!(text, "held {since} {}", one_line(by, MAX_REMARK));
        }
        if let Some(by) = &self.given_up_by {
            let _ = writeln!(text, "given-up {}", one_line(by, MAX_REMARK));
        }
        if self.is_delay_reported {
            text.push_str("warned\n");
        }
        for owner in &self.warned_owners {
            let _ = writeln!(text, "warned <{owner}>");
        }
        for recipient in &self.recipients {
            let RecipientState { mailbox, way, sender, request, state, .. } = recipient;
            let _ = writeln!(text, "{} <{mailbox}>{}", state.name(), request_text(request));
            if *way != Way::Routed {
                let _ = writeln!(text, "way {way}");
            }
            if let Some(sender) = sender {
                let _ = writeln!(text, "sender <{sender}>");
            }
            let RecipientState { last_try, is_report_owed, gathered_until, .. } = recipient;
            if let Some(Try { at, status, host, text: said }) = last_try {
                let host = one_word(host.as_deref().unwrap_or("-"));
                let said = one_line(said, MAX_REMARK);
                let _ = writeln!(text, "tried {at} {status} {host} {said}");
            }
            if *is_report_owed {
                text.push_str("owed\n");
            }
            if let Some(until) = gathered_until {
                let _ = writeln!(text, "gathered {until}");
            }
        }
        for PastTry { at, text: past } in &self.past {
            let _ = writeln!(text, "past {at} {}", one_line(past, MAX_REMARK));
        }
        text
    }

    /// Reads a record of the message with this envelope; `None` when it is none.
    pub fn parse(text: &str, envelope: &Envelope) -> Option<Self> {
        let mut lines = text.strip_suffix('\n')?.split('\n').peekable();
        if lines.next()? != FIRST_LINE {
            return None;
        }
        let attempts = lines.next()?.strip_prefix("attempts ")?.parse().ok()?;
        let next_try = lines.next()?.strip_prefix("next ")?.parse().ok()?;
        let (waited, noted) = parse_waited(lines.next()?)?;
        let held =
            behind("held ", &mut lines).map(parse_hold).map_or(Some(None), |it| it.map(Some))?;
        let given_up_by = behind("given-up ", &mut lines).map(str::to_owned);
        let is_delay_reported = lines.next_if_eq(&"warned").is_some();
        let mut warned_owners = Vec::new();
        while let Some(path) = behind("warned ", &mut lines) {
            warned_owners.push(bracketed(path)?);
        }
        let mut recipients = Vec::new();
        while lines.peek().is_some_and(|line| !line.starts_with("past ")) {
            recipients.push(parse_recipient(&mut lines)?);
        }
        let past = lines.map(parse_past).collect::<Option<Vec<_>>>()?;
        // Only aliases give a recipient a way or a sender of its own.
        let is_as_sent = |it: &RecipientState| it.way == Way::Routed && it.sender.is_none();
        let mut pairs = recipients.iter().zip(&envelope.recipients);
        let is_of_envelope = recipients.len() >= envelope.recipients.len()
            && pairs.all(|(ours, theirs)| ours.mailbox == theirs.mailbox && is_as_sent(ours));
        let record = Self {
            attempts,
            next_try,
            waited,
            noted,
            held,
            given_up_by,
            is_delay_reported,
            warned_owners,
            recipients,
            past,
        };
        is_of_envelope.then_some(record)
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

type Lines<'a> = Peekable<Split<'a, char>>;

/// The rest of the next line, if that begins with `mark`.
fn behind<'a>(mark: &str, lines: &mut Lines<'a>) -> Option<&'a str> {
    lines.next_if(|line| line.starts_with(mark))?.strip_prefix(mark)
}

fn parse_hold(text: &str) -> Option<Hold> {
    let (since, by) = text.split_once(' ')?;
    Some(Hold { since: since.parse().ok()?, by: by.to_owned() })
}

fn parse_recipient(lines: &mut Lines<'_>) -> Option<RecipientState> {
    let (name, rest) = lines.next()?.split_once(' ')?;
    let state = State::from_name(name)?;
    let (path, rest) = crate::mail::address::path_in(rest).ok()?;
    let request = match rest {
        "" => RecipientRequest::default(),
        rest => parse_request(rest.strip_prefix(' ')?)?,
    };
    let way = behind("way ", lines).map_or(Ok(Way::Routed), str::parse).ok()?;
    let sender = match behind("sender ", lines) {
        Some(path) => Some(bracketed(path)?),
        None => None,
    };
    let last_try = match behind("tried ", lines) {
        Some(text) => Some(parse_try(text)?),
        None => None,
    };
    let is_report_owed = lines.next_if_eq(&"owed").is_some();
    let gathered_until = match behind("gathered ", lines) {
        Some(until) => Some(until.parse().ok()?),
        None => None,
    };
    Some(RecipientState {
        mailbox: bracketed(path)?,
        way,
        sender,
        request,
        state,
        last_try,
        is_report_owed,
        gathered_until,
    })
}

fn parse_try(text: &str) -> Option<Try> {
    let mut words = text.splitn(4, ' ');
    let at = words.next()?.parse().ok()?;
    let status = words.next()?.parse().ok()?;
    let host = Some(words.next()?).filter(|host| *host != "-").map(str::to_owned);
    Some(Try { at, status, host, text: words.next()?.to_owned() })
}

fn parse_past(line: &str) -> Option<PastTry> {
    let (at, text) = line.strip_prefix("past ")?.split_once(' ')?;
    Some(PastTry { at: at.parse().ok()?, text: text.to_owned() })
}

fn one_word(text: &str) -> String {
    one_line(text, MAX_REMARK).replace(' ', "_")
}

#[cfg(test)]
mod tests;
