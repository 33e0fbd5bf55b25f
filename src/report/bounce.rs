//! Bounces: when a recipient has failed for good, its sender gets a report (RFC 5321 §6.1),
//! which goes into the spool like any other message.

use std::io::{self, Read};
use std::sync::Arc;

use crate::config::settings::Settings;
use crate::deliver::outcome::Failure;
use crate::mail::address::{Mailbox, ReversePath};
use crate::mail::dsn::{DeliveryReport, FailedRecipient};
use crate::mail::dsn_request::MessageRequest;
use crate::report::station;
use crate::spool::envelope::{Body, Envelope};
use crate::spool::message::StoredMessage;
use crate::spool::store::Spool;
use crate::sys::clock;

/// The most octets of the original's header that go back.
const MAX_HEADER: u64 = 64 << 10;

/// Writes a report on `failures` to the sender of `original` into the spool. `None` when the
/// sender is null: a report about a report would never end (RFC 5321 §6.1).
///
/// # Errors
/// When the report cannot be written; the recipients must stay in the queue then.
pub fn keep(
    settings: &Settings,
    spool: &Arc<Spool>,
    original: &StoredMessage,
    failures: &[(&Mailbox, &Failure)],
) -> io::Result<Option<StoredMessage>> {
    let envelope = original.envelope();
    let ReversePath::Mailbox(sender) = &envelope.reverse_path else {
        log::warn!("{}: no bounce, since its sender is <>", envelope.id);
        return Ok(None);
    };
    let now = clock::since_1970();
    let id = spool.new_id(now);
    let mut header = Vec::new();
    if let Err(error) = original.reader().take(MAX_HEADER).read_to_end(&mut header) {
        // The sender must hear of it all the same.
        log::error!("{}: its header cannot be read for the bounce: {error}", envelope.id);
    }
    let report = DeliveryReport {
        id: id.to_string(),
        original_id: envelope.id.to_string(),
        reporting_host: settings.server.hostname.to_string(),
        sender,
        date: clock::date_field(now.as_secs()).to_string(),
        arrival_date: clock::date_field(envelope.received_at).to_string(),
        failed: failures
            .iter()
            .map(|(mailbox, failure)| failed_recipient(mailbox, failure))
            .collect(),
        original: &header,
    };
    let mut draft = spool.draft(Envelope {
        id,
        received_at: now.as_secs(),
        client: "local".into(),
        reverse_path: ReversePath::Null,
        recipients: vec![sender.clone().into()],
        body: if header.is_ascii() { Body::SevenBit } else { Body::EightBitMime },
        request: MessageRequest::default(),
    });
    draft.write(&report.to_message())?;
    let (_, message) = draft.commit()?;
    log::info!("{}: bounce is {id}", envelope.id);
    station::received(&message, std::time::Duration::ZERO);
    Ok(Some(message))
}

fn failed_recipient<'a>(mailbox: &'a Mailbox, failure: &'a Failure) -> FailedRecipient<'a> {
    FailedRecipient {
        mailbox,
        status: failure.status,
        text: &failure.text,
        remote: failure.remote.as_ref().map(|remote| (remote.host.as_str(), remote.reply.as_str())),
    }
}
