//! Delivery into the mailboxes of this host, each with the identity of its owner.

use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;

use memchr::memmem;

use crate::config::settings::{Local, MailboxFormat, Settings, Users};
use crate::deliver::job::{Job, Recipient};
use crate::deliver::outcome::{Failure, Outcome};
use crate::deliver::place::{Place, Target};
use crate::deliver::pool::Deliver;
use crate::deliver::storage::{printable, spool_failure};
use crate::deliver::vacation::{Delivered, Vacation};
use crate::deliver::{maildir, mbox};
use crate::mail::address::{LocalPart, Mailbox, ReversePath};
use crate::mail::header;
use crate::mail::status::Status;
use crate::route::local::{LocalRouter, Resolution};
use crate::route::users::User;
use crate::spool::message::StoredMessage;
use crate::sys::clock;
use crate::sys::disk::Disk;
use crate::sys::identity::{Identity, IdentityCache};

/// How long to wait for the locks of an mbox: a mail reader that compacts a large one takes
/// seconds, and while a thread waits it delivers nothing else.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);
/// How much of a message is searched for `Delivered-To`, in octets.
const MAX_HEADER: usize = 256 * 1024;
/// How much of it is read at once.
const HEADER_CHUNK: usize = 16 * 1024;

/// RFC 3463: bad destination mailbox address.
const UNKNOWN_USER: Status = Status::new(5, 1, 1);
/// RFC 3463: routing loop detected.
const LOOP: Status = Status::new(5, 4, 6);

/// Delivers what is for this host. Any number of threads may use one.
#[derive(Debug)]
pub struct LocalDelivery {
    disk: Disk,
    router: Arc<LocalRouter>,
    local: Local,
    host: String,
    lock_patience: Duration,
    identities: IdentityCache,
    vacation: Option<Vacation>,
}

impl Deliver for LocalDelivery {
    /// An outcome may name addresses that the message has already; they must not be added
    /// twice, or an alias that leads back to itself would go round for ever.
    fn deliver(&self, job: &Job) -> Vec<(usize, Outcome)> {
        let head = Head::read(&job.message);
        let try_one = |recipient: &Recipient| match &head {
            Ok(head) => self.deliver_to(job, head, &recipient.mailbox),
            Err(error) => spool_failure(error).into_outcome(),
        };
        job.recipients.iter().map(|recipient| (recipient.index, try_one(recipient))).collect()
    }
}

impl LocalDelivery {
    /// Delivers as `[local]` says, to whom `router` knows.
    pub fn new(settings: &Settings, router: Arc<LocalRouter>) -> Self {
        Self {
            disk: Disk::host(),
            router,
            local: settings.local.clone(),
            host: settings.server.hostname.to_string(),
            lock_patience: LOCK_PATIENCE,
            identities: IdentityCache::default(),
            vacation: None,
        }
    }

    /// Answers for people who are away.
    pub fn with_vacation(mut self, vacation: Vacation) -> Self {
        self.vacation = Some(vacation);
        self
    }

    /// Waits for the locks of an mbox no longer than this, instead of 5 seconds.
    pub fn with_lock_patience(mut self, patience: Duration) -> Self {
        self.lock_patience = patience;
        self
    }

    /// Writes the mailboxes on a disk that a test may watch.
    pub fn with_disk(mut self, disk: Disk) -> Self {
        self.disk = disk;
        self
    }

    fn deliver_to(&self, job: &Job, head: &Head, mailbox: &Mailbox) -> Outcome {
        let write = |user: User| {
            let place = self.write(&job.message, head, mailbox, &user)?;
            self.answer(job, head, mailbox, &user);
            Ok::<_, Failure>(place)
        };
        match self.router.resolve(mailbox) {
            Resolution::Mailbox(user) => match write(user) {
                Ok(place) => Outcome::Delivered { place },
                Err(failure) => failure.into_outcome(),
            },
            Resolution::Expanded(expansion) => Outcome::Expanded(expansion),
            Resolution::Unknown => {
                Failure::new(UNKNOWN_USER, format!("there is no user {}", mailbox.local_part()))
                    .into_outcome()
            }
            Resolution::Failed(failure) => failure.into_outcome(),
        }
    }

    /// Puts the message into the mailbox of `user`. Gives its path.
    fn write(
        &self,
        message: &StoredMessage,
        head: &Head,
        mailbox: &Mailbox,
        user: &User,
    ) -> Result<String, Failure> {
        let delivered_to = delivered_to(user, mailbox);
        if head.was_delivered_to(&delivered_to) {
            let text = format!("the message was delivered to {delivered_to} before: a loop");
            return Err(Failure::new(LOOP, text));
        }
        let template = self.router.mailbox_path(mailbox.domain());
        let place = Place::of(template, user, mailbox.domain())?;
        let identity = self.identity_for(user, &place)?;
        let guard = identity.as_ref().map(Identity::assume).transpose();
        let _guard = guard.map_err(|error| identity_failure(user, &error))?;
        let owner = identity.as_ref().map(|identity| identity.uid);
        let target = Target { disk: &self.disk, place: &place, owner };
        let added = self.added_lines(&message.envelope().reverse_path, &delivered_to);
        let mut content: Box<dyn Read> = match head.whole() {
            Some(content) => Box::new(content),
            None => Box::new(message.reader()),
        };
        match self.local.format {
            MailboxFormat::Maildir => {
                maildir::deliver(&target, &self.host, added, &mut content)?;
            }
            MailboxFormat::Mbox => {
                mbox::deliver(&target, self.lock_patience, added, &mut content)?;
            }
        }
        Ok(printable(&place.path()))
    }

    /// Sends the user's automatic reply to what was just put into the mailbox, if there is one.
    fn answer(&self, job: &Job, head: &Head, mailbox: &Mailbox, user: &User) {
        let Some(vacation) = &self.vacation else { return };
        let delivered = Delivered {
            id: job.message.envelope().id,
            reverse_path: &job.reverse_path,
            head: &head.octets,
            is_whole: head.is_whole,
            user,
            address: &delivered_to(user, mailbox),
        };
        vacation.answer(&delivered, &self.identities);
    }

    /// What stands before the content: for an mbox the From_ line, then our trace fields.
    fn added_lines(&self, reverse_path: &ReversePath, delivered_to: &Mailbox) -> Vec<u8> {
        let from_line = match self.local.format {
            MailboxFormat::Mbox => from_line(reverse_path),
            MailboxFormat::Maildir => String::new(),
        };
        // RFC 5321 §4.4: final delivery puts the reverse-path in front.
        format!("{from_line}Return-Path: {reverse_path}\nDelivered-To: {delivered_to}\n")
            .into_bytes()
    }

    /// Whose files are written: those of the user's account. With users that are not the
    /// system's they are the daemon's own, and no identity is taken.
    fn identity_for(&self, user: &User, place: &Place) -> Result<Option<Identity>, Failure> {
        let Some(account) = user.account.as_ref().filter(|_| self.local.users == Users::System)
        else {
            return Ok(None);
        };
        let mut identity =
            self.identities.identity_of(account).map_err(|error| identity_failure(user, &error))?;
        if self.local.format == MailboxFormat::Mbox {
            identity.groups.extend(spool_group(&self.disk, place));
        }
        Ok(Some(identity))
    }
}

/// The group that may create files in the administrator's folder of mboxes, as `mail` in
/// /var/mail. A writer needs it for the dot-lock and for a new mbox. A folder that a
/// recipient could have put there, or links, does not count.
fn spool_group(disk: &Disk, place: &Place) -> Option<u32> {
    if place.is_in_home || !place.folders.is_empty() {
        return None;
    }
    let folder = disk.look_at(&place.base).ok()?;
    let is_shared = folder.is_group_writable() && folder.group() != 0;
    is_shared.then(|| folder.group())
}

fn identity_failure(user: &User, error: &io::Error) -> Failure {
    // RFC 3463: other or undefined mail system status, until somebody mends it.
    Failure::new(Status::new(4, 3, 0), format!("cannot write mail as {}: {error}", user.name))
}

/// The address that names a mailbox in its `Delivered-To`: the user without any detail.
fn delivered_to(user: &User, mailbox: &Mailbox) -> Mailbox {
    let name = LocalPart::from_unquoted(user.name.as_str());
    let name = name.unwrap_or_else(|_| mailbox.local_part().clone());
    Mailbox::new(name, mailbox.domain().clone())
}

/// The line that begins a message in an mbox (RFC 4155 appendix A).
fn from_line(reverse_path: &ReversePath) -> String {
    let sender = match reverse_path.mailbox() {
        // Readers split the line at blanks; Return-Path has the true address.
        Some(mailbox) => mailbox.to_string().replace(' ', "_"),
        None => "MAILER-DAEMON".to_owned(),
    };
    let now = clock::local_time(clock::since_1970().as_secs());
    format!("From {sender} {}\n", now.asctime())
}

/// The beginning of a message, with its header section.
struct Head {
    octets: Vec<u8>,
    is_whole: bool,
}

impl Head {
    fn read(message: &StoredMessage) -> io::Result<Self> {
        let size = usize::try_from(message.size_octets()).unwrap_or(usize::MAX);
        let wanted = size.min(MAX_HEADER);
        let mut octets = Vec::new();
        let mut reader = message.reader();
        loop {
            let known = octets.len();
            octets.resize(wanted.min(known + HEADER_CHUNK), 0);
            reader.read_exact(&mut octets[known..])?;
            let unsearched = &octets[known.saturating_sub(3)..];
            if octets.len() == wanted || memmem::find(unsearched, b"\r\n\r\n").is_some() {
                let is_whole = octets.len() == size;
                return Ok(Self { octets, is_whole });
            }
        }
    }

    /// The whole content, where that is not longer.
    fn whole(&self) -> Option<&[u8]> {
        self.is_whole.then_some(&self.octets)
    }

    /// Whether a `Delivered-To` names this mailbox.
    fn was_delivered_to(&self, mailbox: &Mailbox) -> bool {
        header::fields(&self.octets).filter(|field| field.is_named("Delivered-To")).any(|field| {
            let address =
                str::from_utf8(field.body).ok().map(|body| body.trim().parse::<Mailbox>());
            address.and_then(Result::ok).is_some_and(|address| {
                let (ours, theirs) = (mailbox.local_part().as_str(), address.local_part().as_str());
                ours.eq_ignore_ascii_case(theirs) && address.domain() == mailbox.domain()
            })
        })
    }
}
