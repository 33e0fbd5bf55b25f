//! Delivery on this host: into mailboxes and their folders, into the files and commands that
//! aliases and `.forward` name, each with the identity of its owner. Who is meant is found out anew
//! at each try, in `resolving`; a mailbox may answer by itself ([`crate::deliver::vacation`]).

mod resolving;

use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;

use memchr::memmem;

use crate::config::settings::{Local, MailboxFormat, Settings, Users};
use crate::deliver::job::Job;
use crate::deliver::mbox_lock::Locking;
use crate::deliver::outcome::{Failure, Outcome};
use crate::deliver::place::{Place, Target};
use crate::deliver::pool::Deliver;
use crate::deliver::storage::{printable, spool_failure};
use crate::deliver::subaddress::MailboxPath;
use crate::deliver::vacation::{Delivered, Vacation};
use crate::deliver::{maildir, mbox};
use crate::mail::address::{LocalPart, Mailbox, ReversePath};
use crate::mail::header;
use crate::mail::status::Status;
use crate::route::forward::Forwards;
use crate::route::local::LocalRouter;
use crate::route::users::User;
use crate::spool::message::StoredMessage;
use crate::sys::clock;
use crate::sys::disk::Disk;
use crate::sys::identity::{Guard, Identity, IdentityCache};
use crate::sys::users::AccountCache;

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
    forwards: Forwards,
    local: Local,
    host: String,
    lock_patience: Duration,
    identities: IdentityCache,
    accounts: AccountCache,
    vacation: Option<Vacation>,
}

/// A message that is being delivered.
struct Mail<'a> {
    message: &'a StoredMessage,
    /// Who sends it to the recipients at hand.
    reverse_path: &'a ReversePath,
    head: Head,
}

/// The mailbox of a user. While this lives, the calling thread has the identity of its owner.
struct Opened<'a> {
    /// Where the mailboxes of its domain are.
    path: MailboxPath<'a>,
    /// The mailbox itself, where no folder is meant.
    inbox: Place,
    /// Who must own it, where that matters.
    owner: Option<u32>,
    _guard: Option<Guard>,
}

impl Deliver for LocalDelivery {
    /// An outcome may name addresses that the message has already; they must not be added
    /// twice, or an alias that leads back to itself would go round for ever.
    fn deliver(&self, job: &Job) -> Vec<(usize, Outcome)> {
        let head = match Head::read(&job.message) {
            Ok(head) => head,
            Err(error) => {
                let outcome = spool_failure(&error).into_outcome();
                return job.recipients.iter().map(|it| (it.index, outcome.clone())).collect();
            }
        };
        let mail = Mail { message: &job.message, reverse_path: &job.reverse_path, head };
        job.recipients.iter().map(|it| (it.index, self.deliver_to(&mail, it))).collect()
    }
}

impl LocalDelivery {
    /// Delivers as `[local]` says, to whom `router` knows.
    pub fn new(settings: &Settings, router: Arc<LocalRouter>) -> Self {
        Self {
            disk: Disk::host(),
            router,
            forwards: Forwards::new(settings),
            local: settings.local.clone(),
            host: settings.server.hostname.to_string(),
            lock_patience: LOCK_PATIENCE,
            identities: IdentityCache::default(),
            accounts: AccountCache::default(),
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
        self.forwards = self.forwards.with_disk(disk.clone());
        self.disk = disk;
        self
    }

    /// Finds the mailbox of `user`, and takes the identity of its owner.
    fn open(&self, mailbox: &Mailbox, user: &User) -> Result<Opened<'_>, Failure> {
        let domain = mailbox.domain();
        let path = MailboxPath::new(self.router.mailbox_path(domain), self.local.format);
        let inbox = Place::of(&path.mailbox, user, domain)?;
        let identity = self.identity_for(user, &inbox)?;
        let guard = identity.as_ref().map(Identity::assume).transpose();
        let guard = guard.map_err(|error| identity_failure(user.name.as_str(), &error))?;
        let owner = identity.as_ref().map(|identity| identity.uid);
        Ok(Opened { path, inbox, owner, _guard: guard })
    }

    /// Puts the message into the mailbox of `user`. Gives its path.
    fn write(
        &self,
        mail: &Mail<'_>,
        mailbox: &Mailbox,
        user: &User,
        opened: &Opened<'_>,
    ) -> Result<String, Failure> {
        let delivered_to = delivered_to(user, mailbox);
        mail.check_loop(&delivered_to)?;
        let Opened { path, inbox, owner, .. } = opened;
        let folder = path.folder(&self.disk, inbox, user.detail.as_deref());
        let place = folder.as_ref().unwrap_or(inbox);
        let target = Target { disk: &self.disk, place, owner: *owner };
        let root = if path.is_maildir_plus_plus() { inbox } else { place };
        let quota = self.local.quota.then_some(root);
        self.put(&target, self.local.format, quota, mail, &delivered_to)?;
        Ok(printable(&place.path()))
    }

    /// Sends the user's automatic reply to what was just put into the mailbox, if there is one.
    fn answer(&self, mail: &Mail<'_>, mailbox: &Mailbox, user: &User) {
        let Some(vacation) = &self.vacation else { return };
        let delivered = Delivered {
            id: mail.message.envelope().id,
            reverse_path: mail.reverse_path,
            head: &mail.head.octets,
            is_whole: mail.head.is_whole,
            user,
            address: &delivered_to(user, mailbox),
        };
        vacation.answer(&delivered, &self.identities);
    }

    /// Writes the message for the address `delivered_to` into a mailbox of this form. `quota` is
    /// the Maildir whose quota counts.
    fn put(
        &self,
        target: &Target<'_>,
        format: MailboxFormat,
        quota: Option<&Place>,
        mail: &Mail<'_>,
        delivered_to: &Mailbox,
    ) -> Result<(), Failure> {
        let added = mail.added_lines(format, delivered_to);
        let mut content = mail.content();
        match format {
            MailboxFormat::Maildir => {
                maildir::deliver(target, &self.host, quota, added, &mut *content)
            }
            MailboxFormat::Mbox => {
                let order = &self.local.mbox_locks;
                let locking = Locking { order, patience: self.lock_patience };
                mbox::deliver(target, &locking, added, &mut *content)
            }
        }
    }

    /// Whose files are written: those of the user's account. With users that are not the
    /// system's they are the daemon's own, and no identity is taken.
    fn identity_for(&self, user: &User, place: &Place) -> Result<Option<Identity>, Failure> {
        let Some(account) = user.account.as_ref().filter(|_| self.local.users == Users::System)
        else {
            return Ok(None);
        };
        let mut identity = self
            .identities
            .identity_of(account)
            .map_err(|error| identity_failure(user.name.as_str(), &error))?;
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

impl Mail<'_> {
    /// Sees that the message was not delivered to this address before.
    fn check_loop(&self, delivered_to: &Mailbox) -> Result<(), Failure> {
        if !self.head.was_delivered_to(delivered_to) {
            return Ok(());
        }
        let text = format!("the message was delivered to {delivered_to} before: a loop");
        Err(Failure::new(LOOP, text))
    }

    /// What stands before the content: for an mbox the From_ line, then our trace fields.
    fn added_lines(&self, format: MailboxFormat, delivered_to: &Mailbox) -> Vec<u8> {
        let reverse_path = self.reverse_path;
        let from_line = match format {
            MailboxFormat::Mbox => from_line(reverse_path),
            MailboxFormat::Maildir => String::new(),
        };
        // RFC 5321 §4.4: final delivery puts the reverse-path in front.
        format!("{from_line}Return-Path: {reverse_path}\nDelivered-To: {delivered_to}\n")
            .into_bytes()
    }

    fn content(&self) -> Box<dyn Read + '_> {
        match self.head.whole() {
            Some(content) => Box::new(content),
            None => Box::new(self.message.reader()),
        }
    }
}

fn identity_failure(user: &str, error: &io::Error) -> Failure {
    // RFC 3463: other or undefined mail system status, until somebody mends it.
    Failure::new(Status::new(4, 3, 0), format!("cannot write mail as {user}: {error}"))
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
