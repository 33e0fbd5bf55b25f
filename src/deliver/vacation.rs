//! Automatic replies for people who are away: `[local] vacation` and `~/.vacation.msg` (RFC 3834).
//!
//! A reply comes after the delivery and never concerns it: whatever goes wrong here is said in the
//! log, and the mail is in the mailbox. Who was answered is noted on disk before the reply is put
//! into the spool, so a crash in between costs the reply, and never makes a second one.
//!
//! What a message has to be like to get a reply, and what the reply looks like, is
//! [`crate::mail::auto_reply`]'s business.

mod memory;

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use crate::config::settings::Settings;
use crate::deliver::outcome::Failure;
use crate::deliver::storage::printable;
use crate::mail::address::{Mailbox, ReversePath};
use crate::mail::auto_reply::{self, Reply, Template};
use crate::mail::dsn_request::{Notify, RecipientRequest};
use crate::report::complaint::Complaint;
use crate::report::station;
use crate::route::local::LocalRouter;
use crate::route::owner::Owner;
use crate::route::users::User;
use crate::spool::envelope::{Body, Recipient};
use crate::spool::id::QueueId;
use crate::spool::post::{self, OwnMessage, Post};
use crate::sys::clock;
use crate::sys::disk::{Disk, Open, Status};
use crate::sys::identity::IdentityCache;
use crate::sys::users::Account;

use memory::{Memory, Turn, Version};

/// What a user wrote to be sent, in the home.
const FILE: &str = ".vacation.msg";
/// The most octets of it.
const MAX_FILE: u64 = 64 << 10;
/// The most addresses of one message that are looked up.
const MAX_LOOKUPS: usize = 100;

static UNUSABLE_TOLD: Complaint = Complaint::new();
static MEMORY_FAILS_TOLD: Complaint = Complaint::new();
static FLOOD_TOLD: Complaint = Complaint::new();
static SPOOL_FAILS_TOLD: Complaint = Complaint::new();

/// Answers for people who are away.
#[derive(Debug)]
pub struct Vacation {
    settings: Arc<Settings>,
    router: Arc<LocalRouter>,
    post: Post,
    memory: Memory,
}

/// A message that was just put into somebody's own mailbox.
#[derive(Clone, Copy, Debug)]
pub struct Delivered<'a> {
    /// The message.
    pub id: QueueId,
    /// Who sent it to this recipient.
    pub reverse_path: &'a ReversePath,
    /// Its beginning, with the header section.
    pub head: &'a [u8],
    /// Whether that is all of it.
    pub is_whole: bool,
    /// Whose mailbox it is.
    pub user: &'a User,
    /// The user's address, without any detail.
    pub address: &'a Mailbox,
}

/// Why there is no reply.
#[derive(Debug)]
enum Silence {
    /// That is as it should be.
    Right(String),
    /// Something is out of order, which is said once a minute.
    Wrong(&'static Complaint, String),
}

impl Vacation {
    /// For the users that `router` knows; replies go to `post`.
    pub fn new(settings: Arc<Settings>, router: Arc<LocalRouter>, post: Post) -> Self {
        let memory = Memory::new(Disk::host(), &settings.server.state);
        Self { settings, router, post, memory }
    }

    /// Answers a message if its recipient is away and its sender has not been told. `identities`
    /// has whose file is read.
    pub fn answer(&self, delivered: &Delivered<'_>, identities: &IdentityCache) {
        let Delivered { id, user, .. } = delivered;
        let try_it = || self.try_answer(delivered, identities, clock::since_1970());
        // The message is delivered whatever happens here.
        let Ok(result) = catch_unwind(AssertUnwindSafe(try_it)) else {
            log::error!("{id}: internal error in the automatic reply for {}", user.name);
            return;
        };
        match result {
            Ok(()) => {}
            Err(Silence::Right(why)) => log::debug!("{id}: no reply for {}: {why}", user.name),
            Err(Silence::Wrong(complaint, why)) => {
                complaint.error(format_args!("{id}: no automatic reply for {}: {why}", user.name));
            }
        }
    }

    fn try_answer(
        &self,
        delivered: &Delivered<'_>,
        identities: &IdentityCache,
        now: Duration,
    ) -> Result<(), Silence> {
        let Delivered { id, user, .. } = *delivered;
        let Some(account) = &user.account else {
            return Err(Silence::Right("the user has no account of the system".into()));
        };
        let sender = auto_reply::addressee(delivered.reverse_path)?;
        auto_reply::check_header(delivered.head, delivered.is_whole)?;
        let (template, version) = self.template(account, identities)?;
        self.check_addresses(delivered, sender)?;
        // What is noted under a wrong time would be forgotten, and the reply repeated, when it is
        // set; and who gets it would wonder at the date.
        if clock::was_not_set(now.as_secs()) {
            return Err(Silence::Right("the clock is not set".into()));
        }
        match self.memory.take_turn(&user.name, sender, version, now.as_secs()) {
            Ok(Turn::Granted) => {}
            Ok(Turn::HadOne) => return Err(Silence::Right("the sender had one".into())),
            Ok(Turn::TooMany) => {
                let why = "too many were sent in the last hour".into();
                return Err(Silence::Wrong(&FLOOD_TOLD, why));
            }
            Err(error) => {
                let why = format!(
                    "who had one cannot be noted: {error}; see that the server can write there"
                );
                return Err(Silence::Wrong(&MEMORY_FAILS_TOLD, why));
            }
        }
        let reply = self.send(delivered, sender, &template, now).map_err(|error| {
            Silence::Wrong(&SPOOL_FAILS_TOLD, format!("it cannot be put into the spool: {error}"))
        })?;
        station::replied(id, sender, user.name.as_str(), reply);
        Ok(())
    }

    /// What the user wrote, read with the user's rights.
    fn template(
        &self,
        account: &Account,
        identities: &IdentityCache,
    ) -> Result<(Template, Version), Silence> {
        let path = account.home.join(FILE);
        let unusable = |why: String| {
            Silence::Wrong(&UNUSABLE_TOLD, format!("{} is not sent: {why}", printable(&path)))
        };
        let (octets, version) = match read(account, identities) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Silence::Right("there is no ~/.vacation.msg".into()));
            }
            Err(error) => return Err(unusable(error.to_string())),
        };
        let template = Template::parse(&octets, self.settings.server.domains.origin());
        Ok((template.map_err(|error| unusable(error.to_string()))?, version))
    }

    /// RFC 3834 §2: the message must name the user, and nobody answers himself.
    fn check_addresses(&self, delivered: &Delivered<'_>, sender: &Mailbox) -> Result<(), Silence> {
        let domains = &self.settings.server.domains;
        let owner = Owner::new(&self.settings, &self.router, delivered.user.name.as_str());
        if owner.owns(sender)? {
            return Err(Silence::Right("the user sent it".into()));
        }
        let named = auto_reply::recipients(delivered.head, domains.origin());
        let named = named.filter(|to| domains.contains(to.domain()));
        for mailbox in named.take(MAX_LOOKUPS) {
            if owner.owns(&mailbox)? {
                return Ok(());
            }
        }
        Err(Silence::Right("it does not name the user as a recipient".into()))
    }

    fn send(
        &self,
        delivered: &Delivered<'_>,
        sender: &Mailbox,
        template: &Template,
        now: Duration,
    ) -> io::Result<QueueId> {
        // RFC 3834 §3.3: nobody is told what becomes of it.
        let request =
            RecipientRequest { notify: Some(Notify::default()), ..RecipientRequest::default() };
        let own = OwnMessage {
            client: post::LOCAL,
            to: Recipient { mailbox: sender.clone(), request },
            body: Body::SevenBit,
        };
        let write = |id: QueueId| {
            let reply = Reply {
                template,
                from: delivered.address,
                to: sender,
                id: &id.to_string(),
                host: self.settings.server.hostname.as_str(),
                date: &clock::date_field(now.as_secs()).to_string(),
                original: delivered.head,
            };
            reply.message()
        };
        self.post.send(own, now, write)
    }
}

/// The octets of the file and which version it is.
fn read(account: &Account, identities: &IdentityCache) -> io::Result<(Vec<u8>, Version)> {
    let identity = identities.identity_of(account)?;
    let _guard = identity.assume()?;
    let home = Disk::host().walk_to(&account.home)?;
    let file = home.open(FILE, Open::Read)?;
    // Who can write there could put another file of the user's in its place.
    check(&home.status()?, account, "its folder")?;
    let status = file.status()?;
    if !status.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    check(&status, account, "it")?;
    let octets = file.read_up_to(MAX_FILE + 1)?;
    if octets.len() as u64 > MAX_FILE {
        return Err(io::Error::other(format!("it has more than {MAX_FILE} octets")));
    }
    let version = Version { modified: status.modified_seconds(), size: octets.len() as u64 };
    Ok((octets, version))
}

fn check(status: &Status, account: &Account, what: &str) -> io::Result<()> {
    if ![account.uid, 0].contains(&status.owner()) {
        return Err(io::Error::other(format!("{what} belongs to another user")));
    }
    if status.is_writable_for_others() {
        return Err(io::Error::other(format!("others can write to {what}; run chmod go-w")));
    }
    Ok(())
}

impl From<auto_reply::Objection> for Silence {
    fn from(objection: auto_reply::Objection) -> Self {
        Self::Right(objection.to_string())
    }
}

/// Whose an address is cannot be said now. Mail waits for such things; a reply does not.
impl From<Failure> for Silence {
    fn from(failure: Failure) -> Self {
        Self::Right(failure.text)
    }
}
