//! Other addresses in a header section that leaves this host (RFC 6409 §8.8): those of its authors,
//! and those of its recipients that mean nothing elsewhere. Which become what is said by a
//! [`Renaming`]; here they are found and replaced. Everything else keeps its octets, and what is no
//! address stays as it is, but for a From without any: who sent the message stands there then.

use std::ops::Range;

use crate::mail::address::{Domain, DomainName, Mailbox};
use crate::mail::address_list::{self, Spec};
use crate::mail::display_name::{Template, has_comment, phrase, plain_text};
use crate::mail::encoded_word;
use crate::mail::header::{self, Field};

/// The fields with addresses of who wrote or sent the message, or wants an answer (RFC 5322
/// §3.6.2 and §3.6.6, RFC 8098 §2.1).
const AUTHOR_FIELDS: [&str; 8] = [
    "From",
    "Sender",
    "Reply-To",
    "Resent-From",
    "Resent-Sender",
    "Resent-Reply-To",
    "Disposition-Notification-To",
    "Return-Receipt-To",
];
/// Those of the authors, whose names readers show.
const NAMED_FIELDS: [&str; 2] = ["From", "Resent-From"];
/// The fields that a reply to all goes to.
const RECIPIENT_FIELDS: [&str; 4] = ["To", "Cc", "Resent-To", "Resent-Cc"];
/// What From said before its address was replaced.
const TRACE: &str = "X-Original-From";

/// The longest line, in octets, its end included not (RFC 5322 §2.1.1).
const MAX_LINE: usize = 998;
/// The longest From, in octets, that is kept as a trace.
const MAX_TRACE: usize = 4 << 10;
/// A line's end within a field (RFC 5322 §2.2.3).
const FOLD: &str = "\r\n ";
/// How much a header section may grow, in octets. What would make it larger stays as it is.
const MAX_GROWTH: usize = 1 << 20;

/// What an author's address becomes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewAuthor {
    /// The address.
    pub mailbox: Mailbox,
    /// How it came about.
    pub change: Change,
}

/// How an address came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It has another domain, and means the same person.
    Domain,
    /// It is another one.
    Address,
    /// It is one for all: only a name can tell whose it was.
    OneForAll,
}

/// Says what becomes of addresses.
pub trait Renaming {
    /// The domain of an address without one.
    fn origin(&self) -> &DomainName;

    /// What the address of an author becomes; `None` where it stays.
    fn author(&self, mailbox: &Mailbox) -> Option<NewAuthor>;

    /// What the address of a recipient becomes; `None` where it stays.
    fn recipient(&self, mailbox: &Mailbox) -> Option<Mailbox>;

    /// The names of authors whose address is one for all.
    fn template(&self) -> Template<'_>;
}

/// The fields that a message begins with, under other addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rewritten {
    /// The fields as they go out.
    pub fields: Vec<u8>,
    /// How many octets of the message these take the place of.
    pub replaced: usize,
}

/// Rewrites the fields at the beginning of a message, whose lines end with CRLF. Where the
/// message goes on behind `beginning`, as `is_whole` tells, its last field may go on there and
/// stays as it is. A From in which nobody can read an address gets what `sender` becomes. `None`
/// where nothing changes.
pub fn rewrite(
    beginning: &[u8],
    is_whole: bool,
    renaming: &dyn Renaming,
    sender: Option<&Mailbox>,
) -> Option<Rewritten> {
    // What was sent before is somebody else's.
    let is_resent = header::fields(beginning).any(|field| field.is_named("Resent-From"));
    let sender = sender.filter(|_| !is_resent);
    let (mut fields, mut traces, mut has_changed) = (Vec::new(), Vec::new(), false);
    let (mut rest, mut growth) = (beginning, 0);
    let mut iterator = header::fields(beginning);
    while let Some(field) = iterator.next() {
        let behind = iterator.rest();
        if behind.is_empty() && !is_whole {
            break;
        }
        let whole = &rest[..rest.len() - behind.len()];
        rest = behind;
        let body_at = whole.len() - field.body.len();
        let mut edits = edits(&field, renaming, MAX_GROWTH - growth);
        if let Some(sender) = sender.filter(|_| edits.is_empty() && field.is_named("From")) {
            edits.extend(stand_in(field.body, renaming, sender));
        }
        if edits.is_empty() {
            fields.extend_from_slice(whole);
            continue;
        }
        has_changed = true;
        if edits.iter().any(|edit| edit.is_traced) && field.is_named("From") {
            add_trace(&mut traces, field.body);
        }
        let begin = fields.len();
        apply(whole, body_at, &edits, &mut fields);
        growth += (fields.len() - begin).saturating_sub(whole.len());
        growth = growth.min(MAX_GROWTH);
    }
    traces.append(&mut fields);
    has_changed.then(|| Rewritten { fields: traces, replaced: beginning.len() - rest.len() })
}

/// Whether there is a signature among the fields, which a change may break (RFC 6376 §5.4).
pub fn is_signed(beginning: &[u8]) -> bool {
    header::fields(beginning).any(|field| field.is_named("DKIM-Signature"))
}

/// Something else in the place of a part of a field.
#[derive(Debug)]
struct Edit {
    /// In the field's body.
    place: Range<usize>,
    /// A display name to stand before the address.
    name: Option<String>,
    /// The address, in angle brackets where they belong to it.
    address: String,
    /// Whether nobody could tell from the address what stood there.
    is_traced: bool,
}

impl Edit {
    /// An address for the one that stands in that place.
    fn plain(place: Range<usize>, mailbox: &Mailbox) -> Self {
        Self { place, name: None, address: mailbox.to_string(), is_traced: false }
    }

    fn text(&self, separator: &str) -> String {
        match &self.name {
            Some(name) => format!("{name}{separator}{}", self.address),
            None => self.address.clone(),
        }
    }
}

/// What is to change in a field that may become `room` octets longer.
fn edits(field: &Field<'_>, renaming: &dyn Renaming, room: usize) -> Vec<Edit> {
    let is_one_of = |names: &[&str]| names.iter().any(|name| field.is_named(name));
    let (is_author, is_recipient) = (is_one_of(&AUTHOR_FIELDS), is_one_of(&RECIPIENT_FIELDS));
    let (mut edits, mut added) = (Vec::new(), 0);
    if !is_author && !is_recipient {
        return edits;
    }
    let is_named = is_one_of(&NAMED_FIELDS);
    for spec in address_list::read(field.body).specs {
        let Some(found) = Found::of(field.body, &spec, renaming.origin()) else { continue };
        let edit = match is_author {
            true => found.author_edit(renaming, is_named),
            false => found.recipient_edit(renaming),
        };
        let Some(edit) = edit else { continue };
        added += edit.text(FOLD).len() + 2 * FOLD.len();
        if added > room {
            break;
        }
        edits.push(edit);
    }
    edits
}

/// `sender` in the place of a From in which there is no address that can be read, such as `Cron
/// Daemon` or `root@`: providers refuse that. What stood there becomes the name.
fn stand_in(body: &[u8], renaming: &dyn Renaming, sender: &Mailbox) -> Option<Edit> {
    let is_of_use = |spec: &Spec| {
        Found::of(body, spec, renaming.origin()).is_some() || is_elsewhere(spec, renaming, sender)
    };
    if address_list::read(body).specs.iter().any(is_of_use) {
        return None;
    }
    let NewAuthor { mailbox, change } = renaming.author(sender)?;
    let written = String::from_utf8_lossy(body);
    let text = plain_text(written.as_bytes()).unwrap_or_else(|| encoded_word::decode(&written));
    let text = text.trim_end_matches("<>").trim();
    let former = (!text.is_empty()).then(|| phrase(text));
    let by_template = match change {
        Change::OneForAll => {
            let user = sender.local_part().as_str();
            renaming.template().phrase(user, former.as_deref().map(str::as_bytes))
        }
        Change::Domain | Change::Address => None,
    };
    let start = body.len() - body.trim_ascii_start().len();
    let end = body.trim_ascii_end().len();
    let place = if start < end { start..end } else { 0..0 };
    let is_traced = !place.is_empty();
    Some(Edit { place, name: by_template.or(former), address: format!("<{mailbox}>"), is_traced })
}

/// Whether what is not read as an address may be somebody's at another host all the same, as one
/// beyond ASCII is (RFC 6532).
fn is_elsewhere(spec: &Spec, renaming: &dyn Renaming, sender: &Mailbox) -> bool {
    let domain = spec.text.rsplit_once('@').map_or("", |(_, domain)| domain);
    let is_ours = |domain: Domain| {
        renaming.author(&Mailbox::new(sender.local_part().clone(), domain)).is_some()
    };
    domain.contains('.') && !domain.parse().is_ok_and(is_ours)
}

/// An address in the body of a field.
#[derive(Debug)]
struct Found<'a> {
    body: &'a [u8],
    spec: &'a Spec,
    mailbox: Mailbox,
    has_domain: bool,
}

impl<'a> Found<'a> {
    /// The address that a spec is. One with blanks or comments within is none: what it means is
    /// not certain.
    fn of(body: &'a [u8], spec: &'a Spec, origin: &DomainName) -> Option<Self> {
        if body[spec.span.clone()] != *spec.text.as_bytes() {
            return None;
        }
        let has_domain = spec.text.parse::<Mailbox>().is_ok();
        let mailbox = address_list::complete(&spec.text, origin).ok()?;
        Some(Self { body, spec, mailbox, has_domain })
    }

    fn recipient_edit(&self, renaming: &dyn Renaming) -> Option<Edit> {
        let new = renaming.recipient(&self.mailbox).or_else(|| self.completed())?;
        Some(Edit::plain(self.spec.span.clone(), &new))
    }

    fn author_edit(&self, renaming: &dyn Renaming, is_named: bool) -> Option<Edit> {
        let completed = || {
            let mailbox = self.completed()?;
            Some(NewAuthor { mailbox, change: Change::Domain })
        };
        let NewAuthor { mailbox, change } = renaming.author(&self.mailbox).or_else(completed)?;
        let edit = match is_named && change == Change::OneForAll {
            true => self.named_edit(&mailbox, renaming.template()),
            false => None,
        };
        let edit = edit.unwrap_or_else(|| Edit::plain(self.spec.span.clone(), &mailbox));
        Some(Edit { is_traced: change != Change::Domain, ..edit })
    }

    fn completed(&self) -> Option<Mailbox> {
        (!self.has_domain).then(|| self.mailbox.clone())
    }

    /// Another address with a name that says whose it was; `None` where the name that is there
    /// says enough, or what stands around the address is out of the ordinary.
    fn named_edit(&self, new: &Mailbox, template: Template<'_>) -> Option<Edit> {
        let Frame { address, before, behind } = self.frame()?;
        let octets = |part: &Range<usize>| &self.body[part.clone()];
        let (former, place) = match (before.is_empty(), behind.is_empty()) {
            (true, true) => (None, address),
            (false, true) if !has_comment(octets(&before)) => {
                (Some(octets(&before).to_vec()), before.start..address.end)
            }
            (true, false) => {
                // A comment is no display name (RFC 5322 §3.4): it need not stay one.
                let text = comment(octets(&behind))?;
                (template.wants_name().then_some(text), address.start..behind.end)
            }
            _ => return None,
        };
        let user = self.mailbox.local_part().as_str();
        // `root <root@pi>` names nobody.
        let says_more = |former: &Vec<u8>| {
            plain_text(former).is_none_or(|name| !name.eq_ignore_ascii_case(user))
        };
        let name = template.phrase(user, former.filter(says_more).as_deref())?;
        Some(Edit { place, name: Some(name), address: format!("<{new}>"), is_traced: false })
    }

    /// What stands around the address; `None` where that is not just a name or a comment.
    fn frame(&self) -> Option<Frame> {
        let Spec { span, element, .. } = self.spec;
        let before = trimmed(self.body, element.start..span.start);
        if !self.body[before.clone()].ends_with(b"<") {
            let behind = trimmed(self.body, span.end..element.end);
            let is_bare = before.is_empty();
            return is_bare.then(|| Frame { address: span.clone(), before, behind });
        }
        let open = before.end - 1;
        let inside = trimmed(self.body, span.end..element.end);
        if self.body.get(inside.start) != Some(&b'>') {
            return None;
        }
        Some(Frame {
            address: open..inside.start + 1,
            before: trimmed(self.body, element.start..open),
            behind: trimmed(self.body, inside.start + 1..inside.end),
        })
    }
}

/// The parts of what belongs to an address, without blanks around them.
#[derive(Debug)]
struct Frame {
    /// The address, and its angle brackets where it has some.
    address: Range<usize>,
    before: Range<usize>,
    behind: Range<usize>,
}

/// The text in a comment as a phrase, where it is one plain comment: the name in
/// `root (Cron Daemon)`.
fn comment(octets: &[u8]) -> Option<Vec<u8>> {
    let inside = octets.strip_prefix(b"(")?.strip_suffix(b")")?;
    let is_plain = !inside.iter().any(|octet| b"()\\".contains(octet));
    let text = str::from_utf8(inside).ok().filter(|text| is_plain && !text.contains("=?"))?;
    Some(phrase(&text.split_ascii_whitespace().collect::<Vec<_>>().join(" ")).into_bytes())
}

fn trimmed(body: &[u8], part: Range<usize>) -> Range<usize> {
    let octets = &body[part.clone()];
    let start = part.end - octets.trim_ascii_start().len();
    start..(part.start + octets.trim_ascii_end().len()).max(start)
}

/// Adds what From said, as it was folded.
fn add_trace(traces: &mut Vec<u8>, body: &[u8]) {
    if body.len() > MAX_TRACE {
        return;
    }
    traces.extend_from_slice(TRACE.as_bytes());
    traces.push(b':');
    if TRACE.len() + 2 + line_lengths(body).next().unwrap_or_default() > MAX_LINE {
        traces.extend_from_slice(b"\r\n");
    }
    if !body.first().is_some_and(u8::is_ascii_whitespace) {
        traces.push(b' ');
    }
    traces.extend_from_slice(body);
    if !body.ends_with(b"\n") {
        traces.extend_from_slice(b"\r\n");
    }
}

/// Copies a field with other addresses in its body, which begins at `body_at`. It is folded at
/// each of them where a line would be too long otherwise.
fn apply(field: &[u8], body_at: usize, edits: &[Edit], copy: &mut Vec<u8>) {
    let begin = copy.len();
    let longest = |octets: &[u8]| line_lengths(octets).max().unwrap_or_default();
    add_edited(field, body_at, edits, false, copy);
    if longest(&copy[begin..]) > longest(field).max(MAX_LINE) {
        copy.truncate(begin);
        add_edited(field, body_at, edits, true, copy);
    }
}

fn add_edited(field: &[u8], body_at: usize, edits: &[Edit], folds: bool, copy: &mut Vec<u8>) {
    let separator = if folds { FOLD } else { " " };
    let mut copied = 0;
    for edit in edits {
        let place = body_at + edit.place.start..body_at + edit.place.end;
        copy.extend_from_slice(&field[copied..place.start]);
        // A line of blanks alone could be taken for the end of the section.
        if folds && !is_blank(copy.rsplit(|&octet| octet == b'\n').next()) {
            copy.extend_from_slice(FOLD.as_bytes());
        }
        copy.extend_from_slice(edit.text(separator).as_bytes());
        if folds && !is_blank(field[place.end..].split(|&octet| octet == b'\n').next()) {
            copy.extend_from_slice(FOLD.as_bytes());
        }
        copied = place.end;
    }
    copy.extend_from_slice(&field[copied..]);
}

fn is_blank(line: Option<&[u8]>) -> bool {
    line.unwrap_or_default().trim_ascii().is_empty()
}

/// The lengths of the lines, their ends not included.
fn line_lengths(octets: &[u8]) -> impl Iterator<Item = usize> {
    octets.split(|&octet| octet == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line).len())
}

#[cfg(test)]
mod tests;
