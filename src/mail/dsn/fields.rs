//! The part of a report that programs read: message/delivery-status (RFC 3464 §2).

use std::fmt::Write as _;

use super::{Action, Report, ReportedRecipient};
use crate::mail::text::{MAX_REMARK, one_line};

/// The fields about the message (§2.2), then a group for each recipient (§2.3). An empty line
/// stands before each group.
pub(super) fn of(report: &Report<'_>) -> String {
    let mut fields = String::new();
    // Writing to a String cannot fail.
    if let Some(envelope_id) = report.envelope_id {
        let _ = write!(fields, "Original-Envelope-Id: {}\r\n", envelope_id.decoded());
    }
    let _ = write!(
        fields,
        "Reporting-MTA: {}\r\nArrival-Date: {}\r\n",
        reporting_mta(&report.reporting_host),
        report.arrival_date
    );
    for recipient in &report.recipients {
        fields.push_str("\r\n");
        add_recipient(&mut fields, recipient);
        if recipient.action == Action::Delayed {
            let _ = write!(fields, "Will-Retry-Until: {}\r\n", report.will_retry_until);
        }
    }
    fields
}

fn add_recipient(fields: &mut String, recipient: &ReportedRecipient<'_>) {
    let mut add = |name: &str, value: &str| {
        // Writing to a String cannot fail.
        let _ = write!(fields, "{name}: {}\r\n", one_line(value, MAX_REMARK));
    };
    // RFC 3461 §6.3 (d): never without ORCPT.
    if let Some(original) = recipient.original {
        add("Original-Recipient", &original.decoded());
    }
    add("Final-Recipient", &format!("rfc822; {}", recipient.mailbox));
    add("Action", &recipient.action.to_string());
    add("Status", &recipient.status.to_string());
    match recipient.remote {
        Some((host, reply)) => {
            add("Remote-MTA", &format!("dns; {}", mta_name(host)));
            add("Diagnostic-Code", &format!("smtp; {reply}"));
        }
        // RFC 3464 §2.3.6 has it for what went wrong only.
        None if matches!(recipient.action, Action::Failed | Action::Delayed) => {
            add("Diagnostic-Code", &format!("X-mailwren; {}", recipient.text));
        }
        None => {}
    }
    if let Some(date) = &recipient.last_attempt {
        add("Last-Attempt-Date", date);
    }
}

/// RFC 3461 §6.3 (b): `dns` is for a name that is fully qualified.
fn reporting_mta(host: &str) -> String {
    let name_type = if host.contains('.') { "dns" } else { "x-local-hostname" };
    format!("{name_type}; {host}")
}

/// `name[address]:port` as a field has it: the name, the address as a comment, or the address
/// alone where there is no name.
fn mta_name(host: &str) -> String {
    let Some((name, address)) =
        host.split_once('[').and_then(|(name, rest)| Some((name, rest.split_once(']')?.0)))
    else {
        return host.to_owned();
    };
    if name.is_empty() { format!("[{address}]") } else { format!("{name} ([{address}])") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_named_as_the_standards_want() {
        for (host, name) in [
            ("mx.far.test[192.0.2.1]:25", "mx.far.test ([192.0.2.1])"),
            ("mx.far.test[2001:db8::1]:25", "mx.far.test ([2001:db8::1])"),
            ("[192.0.2.1]:587", "[192.0.2.1]"),
            ("there", "there"),
            ("odd[", "odd["),
        ] {
            assert_eq!(mta_name(host), name);
        }
        assert_eq!(reporting_mta("mx.home.test"), "dns; mx.home.test");
        assert_eq!(reporting_mta("pi"), "x-local-hostname; pi");
    }
}
