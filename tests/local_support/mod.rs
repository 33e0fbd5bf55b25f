//! What the tests of local delivery share: settings, messages, and a folder to deliver into.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mailwren::config::settings::{Local, MailboxFormat, Settings, Users};
use mailwren::deliver::job::{Job, Recipient};
use mailwren::deliver::local::LocalDelivery;
use mailwren::deliver::outcome::{Failure, Outcome};
use mailwren::deliver::pool::Deliver;
use mailwren::mail::address::{Mailbox, ReversePath};
use mailwren::mail::dsn_request::{MessageRequest, RecipientRequest};
use mailwren::route::addressee::Way;
use mailwren::route::local::LocalRouter;
use mailwren::route::next_hop::NextHop;
use mailwren::spool::envelope::{Body, Envelope};
use mailwren::spool::id::QueueId;
use mailwren::spool::message::StoredMessage;

/// Settings that deliver for home.test, which is b.test, too.
pub(crate) fn settings(format: MailboxFormat, path: &str, users: Users) -> Settings {
    let mut settings = Settings::default_with("mx.home.test").unwrap();
    settings.server.domains.names =
        ["home.test", "b.test"].map(|name| name.parse().unwrap()).to_vec();
    let (path, aliases) = (path.to_owned(), None);
    settings.local = Local { format, path, users, aliases, ..settings.local };
    settings
}

/// A message from `<ann@x.test>` in a spool file, to be tried for these.
pub(crate) fn job(content: &[u8], recipients: &[&str]) -> Job {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(b"envelope\n").unwrap();
    file.write_all(content).unwrap();
    let mailboxes: Vec<Mailbox> = recipients.iter().map(|text| text.parse().unwrap()).collect();
    let envelope = Envelope {
        id: QueueId::generate(1, 1),
        received_at: 0,
        client: "local".to_owned(),
        reverse_path: "<ann@x.test>".parse::<ReversePath>().unwrap(),
        recipients: mailboxes.iter().cloned().map(Into::into).collect(),
        body: Body::EightBitMime,
        request: MessageRequest::default(),
    };
    let message = StoredMessage::new(file, 9..9 + content.len() as u64, envelope);
    let recipients = mailboxes.into_iter().enumerate();
    let request = RecipientRequest::default();
    let recipient =
        |(index, mailbox)| Recipient { index, mailbox, way: Way::Routed, request: request.clone() };
    Job {
        reverse_path: message.envelope().reverse_path.clone(),
        message: Arc::new(message),
        recipients: recipients.map(recipient).collect(),
        next_hop: NextHop::Local,
    }
}

/// A folder that anybody may put files into, as /var/mail on some hosts.
pub(crate) struct Folder(tempfile::TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o1777)).unwrap();
        Self(folder)
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Delivers to `FOLDER/{user}`.
    pub(crate) fn delivery(&self, format: MailboxFormat, users: Users) -> LocalDelivery {
        let pattern = format!("{}/{{user}}", self.path().display());
        delivery_by(&settings(format, &pattern, users)).with_lock_patience(Duration::from_secs(20))
    }
}

/// The one outcome of a delivery to one recipient.
pub(crate) fn deliver(delivery: &LocalDelivery, content: &[u8], recipient: &str) -> Outcome {
    let mut outcomes = delivery.deliver(&job(content, &[recipient]));
    assert_eq!(outcomes.len(), 1);
    outcomes.remove(0).1
}

/// The failure of an outcome that keeps the mail.
pub(crate) fn deferred(outcome: Outcome) -> Failure {
    match outcome {
        Outcome::Deferred(failure) => failure,
        outcome => panic!("should be deferred: {outcome:?}"),
    }
}

/// The files in a folder.
pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
}

/// Delivery by these settings.
pub(crate) fn delivery_by(settings: &Settings) -> LocalDelivery {
    LocalDelivery::new(settings, Arc::new(LocalRouter::new(settings)))
}
