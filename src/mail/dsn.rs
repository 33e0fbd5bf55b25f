//! Delivery status notifications: a message that tells people in plain words, and programs
//! in fields, what became of a recipient (RFC 3464, in the multipart/report of RFC 6522).

use crate::mail::address::Mailbox;
use crate::mail::status::Status;
use crate::mail::text::{MAX_REMARK, one_line};

/// A report on recipients that failed for good.
#[derive(Clone, Debug)]
pub struct DeliveryReport<'a> {
    /// The report's own queue id; makes its Message-ID and its boundary.
    pub id: String,
    /// The queue id of the message that failed.
    pub original_id: String,
    /// The host that gives up: ours.
    pub reporting_host: String,
    /// Whom the report is for.
    pub sender: &'a Mailbox,
    /// Now, as RFC 5322 §3.3 writes it.
    pub date: String,
    /// When the message came, in the same form.
    pub arrival_date: String,
    /// Who failed. Never empty.
    pub failed: Vec<FailedRecipient<'a>>,
    /// The beginning of the message; only its header section is used.
    pub original: &'a [u8],
}

/// A recipient that failed, and why. All texts are printable ASCII on one line, or made so.
#[derive(Clone, Debug)]
pub struct FailedRecipient<'a> {
    /// The address.
    pub mailbox: &'a Mailbox,
    /// The enhanced status code.
    pub status: Status,
    /// One sentence for a person.
    pub text: &'a str,
    /// The host that refused it, and its reply.
    pub remote: Option<(&'a str, &'a str)>,
}

impl DeliveryReport<'_> {
    /// The whole message, lines ended by CRLF.
    pub fn to_message(&self) -> Vec<u8> {
        let host = &self.reporting_host;
        let boundary = format!("=_{}_{host}", self.id);
        let original = header_section(self.original);
        let encoding = if original.is_ascii() { "7bit" } else { "8bit" };
        let mut message = format!(
            "From: Mail Delivery System <MAILER-DAEMON@{host}>\r\n\
             To: <{sender}>\r\n\
             Subject: Undelivered mail: returned to sender\r\n\
             Date: {date}\r\n\
             Message-ID: <{id}@{host}>\r\n\
             Auto-Submitted: auto-replied\r\n\
             MIME-Version: 1.0\r\n\
             Content-Type: multipart/report; report-type=delivery-status;\r\n\
             \tboundary=\"{boundary}\"\r\n\
             \r\n\
             This is a MIME message, a report from the mail server {host}.\r\n\
             \r\n\
             --{boundary}\r\n\
             Content-Type: text/plain; charset=us-ascii\r\n\
             \r\n\
             {text}\
             --{boundary}\r\n\
             Content-Type: message/delivery-status\r\n\
             \r\n\
             {status}\
             --{boundary}\r\n\
             Content-Type: text/rfc822-headers\r\n\
             Content-Transfer-Encoding: {encoding}\r\n\
             \r\n",
            sender = self.sender,
            date = self.date,
            id = self.id,
            text = self.text(),
            status = self.status(),
        )
        .into_bytes();
        message.extend_from_slice(original);
        message.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
        message
    }

    fn text(&self) -> String {
        let mut text = format!(
            "This is the mail server {host}.\r\n\r\n\
             Your message could not be delivered to the recipients below. It was\r\n\
             given up; no further attempt will be made.\r\n\r\n",
            host = self.reporting_host,
        );
        for failed in &self.failed {
            text.push_str(&format!(
                "<{}>:\r\n    {} ({})\r\n",
                failed.mailbox,
                one_line(failed.text, MAX_REMARK),
                failed.status
            ));
            if let Some((host, reply)) = failed.remote {
                text.push_str(&format!(
                    "    {} said: {}\r\n",
                    one_line(host, MAX_REMARK),
                    one_line(reply, MAX_REMARK)
                ));
            }
            text.push_str("\r\n");
        }
        text.push_str(&format!(
            "The header of your message follows. Here it was known as {}.\r\n\r\n",
            self.original_id,
        ));
        text
    }

    /// The fields of RFC 3464 §2.2 and, for each recipient, §2.3.
    fn status(&self) -> String {
        let mut status = format!(
            "Reporting-MTA: dns; {}\r\nArrival-Date: {}\r\n\r\n",
            self.reporting_host, self.arrival_date,
        );
        for failed in &self.failed {
            status.push_str(&format!(
                "Final-Recipient: rfc822; {}\r\nAction: failed\r\nStatus: {}\r\n",
                failed.mailbox, failed.status,
            ));
            match failed.remote {
                Some((host, reply)) => status.push_str(&format!(
                    "Remote-MTA: dns; {}\r\nDiagnostic-Code: smtp; {}\r\n",
                    one_line(host, MAX_REMARK),
                    one_line(reply, MAX_REMARK),
                )),
                None => {
                    status.push_str(&format!(
                        "Diagnostic-Code: X-mailwren; {}\r\n",
                        one_line(failed.text, MAX_REMARK)
                    ));
                }
            }
            status.push_str(&format!("Last-Attempt-Date: {}\r\n\r\n", self.date));
        }
        status
    }
}

/// What stands before the first empty line, with the end of its last line.
fn header_section(message: &[u8]) -> &[u8] {
    match memchr::memmem::find(message, b"\r\n\r\n") {
        Some(at) => &message[..at + 2],
        None if message.starts_with(b"\r\n") => &[],
        // Cut off: leave out the line that is not whole.
        None => &message[..memchr::memrchr(b'\n', message).map_or(0, |at| at + 1)],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(original: &[u8], text: &str) -> String {
        let (sender, failed) = ("ann@home.test".parse().unwrap(), "bob@far.test".parse().unwrap());
        let report = DeliveryReport {
            id: "1jt5w0k3q8z4b".into(),
            original_id: "1jt5w0k3q8z4a".into(),
            reporting_host: "mx.home.test".into(),
            sender: &sender,
            date: "Sun, 22 Nov 2026 03:46:52 +0000".into(),
            arrival_date: "Sun, 22 Nov 2026 03:46:50 +0000".into(),
            failed: vec![
                FailedRecipient {
                    mailbox: &failed,
                    status: Status::new(5, 1, 1),
                    text,
                    remote: None,
                },
                FailedRecipient {
                    mailbox: &failed,
                    status: Status::new(5, 7, 1),
                    text: "refused",
                    remote: Some(("far.test", "550 5.7.1 no")),
                },
            ],
            original,
        };
        String::from_utf8(report.to_message()).unwrap()
    }

    #[test]
    fn it_has_the_three_parts_and_the_fields_of_the_standard() {
        let message = report(b"Subject: x\r\nTo: y\r\n\r\nbody\r\n", "no such user");
        let boundary = "--=_1jt5w0k3q8z4b_mx.home.test";
        assert_eq!(message.matches(&format!("{boundary}\r\n")).count(), 3);
        assert!(
            message.ends_with(&format!("Subject: x\r\nTo: y\r\n\r\n{boundary}--\r\n")),
            "{message}"
        );
        for line in [
            "To: <ann@home.test>",
            "Auto-Submitted: auto-replied",
            "Reporting-MTA: dns; mx.home.test",
            "Arrival-Date: Sun, 22 Nov 2026 03:46:50 +0000",
            "Final-Recipient: rfc822; bob@far.test",
            "Action: failed",
            "Status: 5.1.1",
            "Diagnostic-Code: X-mailwren; no such user",
            "Remote-MTA: dns; far.test",
            "Diagnostic-Code: smtp; 550 5.7.1 no",
        ] {
            assert!(message.contains(&format!("{line}\r\n")), "{line}: {message}");
        }
        assert!(!message.contains("body"));
    }

    #[test]
    fn a_text_cannot_add_fields() {
        let message = report(b"", "x\r\nAction: delivered\r\n\r\n");
        assert!(!message.contains("\nAction: delivered"));
    }

    #[test]
    fn the_header_section_is_found_or_cut_at_a_line() {
        for (message, header) in [
            (&b""[..], &b""[..]),
            (b"\r\nbody", b""),
            (b"A: b\r\n\r\nbody", b"A: b\r\n"),
            (b"A: b\r\nC: cut off", b"A: b\r\n"),
            (b"no line end", b""),
        ] {
            assert_eq!(header_section(message), header);
        }
    }
}
