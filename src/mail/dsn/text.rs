//! The part of a report that people read: what happened, and what they can do about it.

use super::{Action, Reader, Report, ReportedRecipient, Returned};
use crate::mail::dsn_request::OriginalRecipient;
use crate::mail::status::Status;
use crate::mail::text::{MAX_REMARK, one_line};

/// Where lines are broken; a longer word stands on a line of its own.
const WIDTH: usize = 72;

/// RFC 3463 §3.4: the message is too large for the system.
const TOO_LARGE: (u16, u16) = (3, 4);

/// The whole part, lines ended by CRLF.
pub(super) fn of(report: &Report<'_>) -> String {
    let mut text = Text(String::new());
    text.paragraph(0, &format!("This is the mail server {}.", report.reporting_host));
    match report.reader {
        Reader::Sender => {}
        Reader::Owner => text.paragraph(
            0,
            "The message below went on to the members of a list, and you are its owner. So what \
             became of it is told to you, and not to its sender.",
        ),
        Reader::Postmaster => text.paragraph(
            0,
            "The message below has no sender to whom it could be returned; most likely it is a \
             report itself. So it comes to you, the postmaster.",
        ),
    }
    for action in Action::ALL {
        let those = || report.recipients.iter().filter(|recipient| recipient.action == action);
        if those().next().is_some() {
            text.paragraph(0, &what_happened(action, report));
            those().for_each(|recipient| add_recipient(&mut text, recipient, report));
        }
    }
    text.paragraph(0, &what_follows(report));
    text.0
}

fn what_happened(action: Action, report: &Report<'_>) -> String {
    let message = match report.reader {
        Reader::Sender => "Your message",
        Reader::Owner | Reader::Postmaster => "The message",
    };
    match action {
        Action::Failed => format!(
            "{message} could not be delivered to the recipients below. It was given up; no \
             further attempt will be made."
        ),
        Action::Delayed => format!(
            "{message} could not yet be delivered to the recipients below, after {}. You need \
             not do anything: it goes on being tried until {}, and is given up only then.",
            duration(report.waited_seconds),
            report.will_retry_until
        ),
        Action::Delivered => format!(
            "{message} was delivered into the mailboxes of the recipients below. Whether it has \
             been read is not known."
        ),
        Action::Relayed => format!(
            "{message} was handed on for the recipients below to a host that does not report \
             deliveries. Whether it arrives there is not known."
        ),
        Action::Expanded => format!(
            "{message} was taken for the recipients below, each of which stands for several \
             addresses, and went on to those. Its deliveries to them are not reported."
        ),
    }
}

fn add_recipient(text: &mut Text, recipient: &ReportedRecipient<'_>, report: &Report<'_>) {
    let mailbox = recipient.mailbox.to_string();
    let original = recipient.original.map(OriginalRecipient::decoded);
    let original = original.as_deref().map(|it| it.split_once(';').map_or(it, |(_, it)| it));
    let original = original.filter(|address| *address != mailbox);
    let went_wrong = matches!(recipient.action, Action::Failed | Action::Delayed);
    let has_more = went_wrong || original.is_some() || recipient.remote.is_some();
    text.line(0, &format!("<{mailbox}>{}", if has_more { ":" } else { "" }));
    if let Some(address) = original {
        text.line(4, &format!("You wrote to {address}."));
    }
    if recipient.is_expired {
        let waited = duration(report.waited_seconds);
        text.line(4, &format!("It was not delivered within {waited}. The last try:"));
    }
    match recipient.remote {
        Some((host, reply)) => text.unbroken(4, &format!("{host} said: {reply}")),
        None if went_wrong => text.unbroken(4, recipient.text),
        None => {}
    }
    if went_wrong {
        text.line(4, &format!("(status {})", recipient.status));
    }
    if recipient.action == Action::Failed {
        let is_ours = recipient.remote.is_none() && matches!(recipient.status.topic(), (3 | 5, _));
        let ask_us = || format!("Ask the postmaster of {}.", report.reporting_host);
        match is_ours && recipient.status.topic() != TOO_LARGE {
            true => text.line(4, &ask_us()),
            false => text.line(4, advice(recipient.status)),
        }
    }
    text.end_paragraph();
}

fn what_follows(report: &Report<'_>) -> String {
    let returned = match report.returned {
        Returned::Message => "The message follows.",
        Returned::Headers => "The header of the message follows.",
        Returned::HeadersOfLarge => {
            "The message is too large to come back whole; its header follows."
        }
    };
    format!(
        "{returned} It came on {}; here it was known as {}.",
        report.arrival_date, report.original_id
    )
}

/// What a person can do about a failure (RFC 3463 §3, by subject and detail).
fn advice(status: Status) -> &'static str {
    match status.topic() {
        (1, 1) => {
            "There is no such mailbox. Check how the address is spelled; if it is right, ask the \
             recipient by other means for the present one."
        }
        (1, 2) => "There is no such mail domain. Check the part of the address behind the @.",
        (1, 3) => "The address has not the form of one. Check how it is spelled.",
        (1, 6) => "The mailbox has moved. Ask the recipient by other means for the new address.",
        (1, 7 | 8) => {
            "Mail from your address is not taken there. Show this to the postmaster of your own \
             domain."
        }
        (1, 10) => "The domain takes no mail at all. Check the part of the address behind the @.",
        (2, 1) => "The mailbox is out of use. Reach the recipient by other means.",
        (2, 2) => {
            "The mailbox is full. Ask the recipient by other means to make room, then send the \
             message again."
        }
        (2, 3) | TOO_LARGE => {
            "The message is too large. Send it in smaller parts, or put large files where the \
             recipient can fetch them."
        }
        (2, 4) => {
            "The address stands for others that cannot be reached through it. Tell the \
             postmaster of its domain."
        }
        (4, 4) => {
            "No way to a mail server of the domain was found. Check the part of the address \
             behind the @; if it is right, the fault is with that domain."
        }
        (4, 6) => {
            "The message goes round in a circle. Sending it again is of no use until the \
             postmaster of the recipient's domain has mended that."
        }
        (4, _) => {
            "Nobody there took the message all that time. Send it again later, and if that fails \
             too, reach the recipient by other means."
        }
        (5, 3) => "It has too many recipients. Send it to fewer at once.",
        (6, _) => {
            "The message has a form that cannot be taken there. Send it as plain text, or \
             with another kind of attachment."
        }
        (7, _) => {
            "It was refused by a rule of that host. What it said often names the rule; otherwise \
             the postmaster of the recipient's domain knows it."
        }
        (3 | 5, _) => {
            "The fault is with a mail system. Send the message again later, and if that fails \
             too, show this to the postmaster of the recipient's domain."
        }
        _ => {
            "No more is known than this. Check the address; if it is right, ask the recipient by \
             other means."
        }
    }
}

/// `5 days`, in the largest unit of which there are at least two.
fn duration(seconds: u64) -> String {
    let units = [(86_400, "days"), (3_600, "hours"), (60, "minutes"), (1, "seconds")];
    let fits = units.into_iter().find(|(length, _)| seconds >= 2 * length);
    match fits {
        Some((length, name)) => format!("{} {name}", seconds / length),
        None => "a moment".to_owned(),
    }
}

/// Lines of printable ASCII, broken at [`WIDTH`].
struct Text(String);

impl Text {
    fn paragraph(&mut self, indent: usize, text: &str) {
        self.line(indent, text);
        self.end_paragraph();
    }

    fn end_paragraph(&mut self) {
        self.0.push_str("\r\n");
    }

    /// What somebody else said, which people search for as it stands.
    fn unbroken(&mut self, indent: usize, text: &str) {
        self.0.extend(std::iter::repeat_n(' ', indent));
        self.0.push_str(&one_line(text, MAX_REMARK));
        self.end_paragraph();
    }

    fn line(&mut self, indent: usize, text: &str) {
        let text = one_line(text, 2 * MAX_REMARK);
        let mut width = 0;
        for word in text.split(' ').filter(|word| !word.is_empty()) {
            if width > 0 && indent + width + 1 + word.len() > WIDTH {
                self.end_paragraph();
                width = 0;
            }
            if width == 0 {
                self.0.extend(std::iter::repeat_n(' ', indent));
            } else {
                self.0.push(' ');
                width += 1;
            }
            // No line of a message may have more than 998 octets (RFC 5322 §2.1.1).
            let word = &word[..word.len().min(MAX_REMARK)];
            self.0.push_str(word);
            width += word.len();
        }
        self.end_paragraph();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_broken_between_words() {
        let mut text = Text(String::new());
        text.line(4, &format!("{} {}  b", "a ".repeat(40), "x".repeat(1000)));
        assert!(text.0.lines().all(|line| line.len() < 998 && line.starts_with("    ")));
        assert_eq!(text.0.lines().next().unwrap().len(), 71);
        assert!(text.0.ends_with("\r\n    b\r\n"), "{}", text.0);
    }

    #[test]
    fn each_status_has_advice() {
        for (status, word) in [
            ("5.1.1", "spelled"),
            ("5.2.2", "make room"),
            ("5.4.7", "again later"),
            ("5.4.6", "circle"),
            ("5.7.1", "rule"),
            ("5.9.9", "No more is known"),
        ] {
            assert!(advice(status.parse().unwrap()).contains(word), "{status}");
        }
    }

    #[test]
    fn durations_are_in_words() {
        for (seconds, words) in [
            (1, "a moment"),
            (119, "119 seconds"),
            (4 * 3600, "4 hours"),
            (47 * 3600, "47 hours"),
            (5 * 86_400 + 7, "5 days"),
        ] {
            assert_eq!(duration(seconds), words);
        }
    }
}
