//! `sendmail -q`: has the queue, or the part of it that is named, tried now. Who may write in the
//! spool does so as `mailwren queue retry` does. Everybody else may ask the server for the whole
//! queue (ETRN, RFC 1985), which it does not do again within seconds.

use std::io;

use super::Failure;
use super::options::Queued;
use super::verify::Dialog;
use crate::cli::output::warn;
use crate::config::settings::Server;
use crate::mail::address::Mailbox;
use crate::spool::envelope::Envelope;
use crate::spool::hands::{Change, Hands, Refusal};
use crate::spool::progress::{Progress, State};
use crate::sys::process::exit;

/// The reply for what was done a moment ago.
const JUST_STARTED: u16 = 458;

/// Has messages tried now.
///
/// # Errors
/// When the caller may not, or there is nobody to do it.
pub(super) fn run(queued: &Queued, server: &Server) -> Result<u8, Failure> {
    let hands = match Hands::open(&server.spool) {
        Ok(hands) => hands,
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            return ask(queued, server);
        }
        Err(error) => {
            let text = format!("{}: {error}", server.spool.display());
            return Err(Failure::new(exit::OSERR, text));
        }
    };
    let trouble = |error: io::Error| Failure::new(exit::OSERR, error.to_string());
    if *queued == Queued::All {
        hands.retry_all().map_err(trouble)?;
        return Ok(exit::OK);
    }
    let mut ids = hands.reader().ids().map_err(trouble)?;
    if let Queued::Id(part) = queued {
        ids.retain(|id| id.to_string().contains(part.as_str()));
    }
    let wanted = |envelope: &Envelope, progress: &Progress| is_meant(queued, envelope, progress);
    let mut code = exit::OK;
    hands.change_each(ids, Some(&wanted), &Change::Retry, |id, result| {
        // What is held, gone or under way already needs no telling.
        if let Err(Refusal::Trouble(text)) = result {
            warn(format_args!("sendmail: {id}: {text}"));
            code = exit::OSERR;
        }
    });
    Ok(code)
}

/// Whether a message is meant, whatever the case of the letters.
fn is_meant(queued: &Queued, envelope: &Envelope, progress: &Progress) -> bool {
    let has = |mailbox: &Mailbox, part: &str| {
        mailbox.to_string().to_ascii_lowercase().contains(&part.to_ascii_lowercase())
    };
    match queued {
        Queued::All | Queued::Id(_) => true,
        Queued::Sender(part) => envelope.reverse_path.mailbox().is_some_and(|it| has(it, part)),
        Queued::Recipient(part) => progress
            .recipients
            .iter()
            .any(|it| it.state == State::Pending && has(&it.mailbox, part)),
    }
}

/// Asks the server.
fn ask(queued: &Queued, server: &Server) -> Result<u8, Failure> {
    if *queued != Queued::All {
        let text = "a part of the queue is for root to try; -q alone is for everybody";
        return Err(Failure::new(exit::NOPERM, text));
    }
    let mut dialog = Dialog::open(server)?;
    let reply = dialog.ask(&format!("ETRN {}", server.domains.origin()))?;
    // Nothing hangs on the end of the session.
    let _ = dialog.ask("QUIT");
    match reply.is_success() || reply.code() == JUST_STARTED {
        true => Ok(exit::OK),
        false => Err(Failure::new(exit::NOPERM, format!("the server said {reply}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::dsn_request::MessageRequest;
    use crate::spool::envelope::Body;
    use crate::spool::id::QueueId;

    #[test]
    fn a_part_of_the_queue_goes_by_a_part_of_an_address() {
        let recipient: Mailbox = "Bob@far.test".parse().unwrap();
        let envelope = Envelope {
            id: QueueId::generate(0, 0),
            received_at: 0,
            client: String::new(),
            reverse_path: "<ann@home.test>".parse().unwrap(),
            recipients: vec![recipient.into()],
            body: Body::SevenBit,
            request: MessageRequest::default(),
        };
        let mut progress = Progress::new(&envelope);
        let meant = |queued: Queued, progress: &Progress| is_meant(&queued, &envelope, progress);
        for (part, is_recipient, is_sender) in [
            ("@FAR.", true, false),
            ("bob", true, false),
            ("ann@", false, true),
            ("x", false, false),
        ] {
            assert_eq!(
                meant(Queued::Recipient(part.to_owned()), &progress),
                is_recipient,
                "{part}"
            );
            assert_eq!(meant(Queued::Sender(part.to_owned()), &progress), is_sender, "{part}");
        }
        assert!(meant(Queued::All, &progress));
        progress.recipients[0].state = State::Done;
        assert!(!meant(Queued::Recipient("bob".to_owned()), &progress));
    }
}
