//! What `sendmail` has left in `drop/` while no server took it: taken up at the start, and when a
//! file comes. It goes the way of a message that comes over the Unix socket from the owner of the
//! file, with the same policy and the same limits, but nobody is there who could be told of a
//! refusal. So a sender that the account may not use becomes its own address, with a warning in the
//! log; recipients stay even if they are refused, and the sender gets an ordinary report of those
//! that cannot be delivered. What is no message at all is kept in `corrupt/`, told of in the log.
//!
//! A file is removed when its message lasts in the queue or in the mailboxes. After a crash between
//! the two it is taken once more: a duplicate, never a loss.

use std::collections::HashSet;
use std::io::{self, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::config::settings::Listener;
use crate::mail::address::{Domain, ForwardPath, LocalPart, Mailbox, ReversePath};
use crate::receive::Reception;
use crate::receive::listener::submission_settings;
use crate::receive::message::IncomingMessage;
use crate::receive::peer::Peer;
use crate::receive::policy::SessionPolicy;
use crate::receive::provenance::Provenance;
use crate::receive::session;
use crate::receive::terms::Current;
use crate::report::complaint::Complaint;
use crate::route::owner::{account_name, at_origin};
use crate::smtp::data::DataFault;
use crate::smtp::dot_stuffing::DotStuffing;
use crate::smtp::reply::Reply;
use crate::smtp::server::{DataError, Policy, Transaction};
use crate::spool::dropped::{DropFolder, Dropped, Unfit};
use crate::spool::envelope::Recipient;
use crate::spool::store::Receipt;
use crate::sys::disk::Disk;
use crate::sys::folder_events::FolderEvents;

/// How much of a message is read at once.
const BLOCK: usize = 32 << 10;
/// The most names, and the most accounts, that are remembered because nothing can be done.
const MAX_REMEMBERED: usize = 1000;
/// Lines about bad files that the log gets in a minute; whoever makes them may make many.
const MAX_LINES: u32 = 20;

static POSTPONED_TOLD: Complaint = Complaint::new();
static NOT_READ_TOLD: Complaint = Complaint::new();
static MORE_BAD_TOLD: Complaint = Complaint::new();

/// The one who looks into `drop/`.
#[derive(Debug)]
pub struct Pickup {
    /// What goes for the next round, and for this one.
    current: Arc<Current<Arc<Reception>>>,
    reception: Arc<Reception>,
    listener: Listener,
    folder: DropFolder,
    events: FolderEvents,
    /// What was taken, or is none, and cannot be removed.
    stuck: HashSet<String>,
    has_told_of_folder: bool,
    /// The accounts whose files cannot be read since the server was not started as root.
    foreign: HashSet<u32>,
    lines: Lines,
}

/// What became of a file.
enum End {
    /// Nothing is left of it to be done.
    Done,
    /// It stays for now.
    Later(String),
}

/// Why a message was not taken.
enum Refused {
    /// It may be taken another time.
    Later(String),
    /// It never will be, as it is.
    ForGood(String),
}

impl Pickup {
    /// Looks into the spool's `drop/`, which is made where it is missing.
    ///
    /// # Errors
    /// When it can be neither opened nor made; the text names it.
    pub fn new(current: Arc<Current<Arc<Reception>>>) -> io::Result<Self> {
        let reception = current.get();
        let server = &reception.settings.server;
        let folder = DropFolder::make(&server.spool)?;
        let listener = submission_settings(server.socket.as_deref().unwrap_or(Path::new("")));
        Ok(Self {
            events: folder.events(),
            current,
            reception,
            listener,
            folder,
            stuck: HashSet::new(),
            has_told_of_folder: false,
            foreign: HashSet::new(),
            lines: Lines::default(),
        })
    }

    /// Takes what lies there and what comes, until the server stops.
    pub fn run(mut self) {
        while !self.is_stopping() {
            self.reception = self.current.get();
            if !self.folder.is_there() {
                self.open_again();
            }
            if !self.round() {
                self.events.wait();
            }
        }
    }

    fn is_stopping(&self) -> bool {
        self.reception.is_stopping.load(Ordering::Relaxed)
    }

    /// Takes the folder of a spool that took the place of the last one. Only where a spool is: an
    /// empty mount point must stay one.
    fn open_again(&mut self) {
        let spool = &self.reception.settings.server.spool;
        let made = Disk::host().look_at(&spool.join("queue")).and_then(|_| DropFolder::make(spool));
        if let Ok(folder) = made {
            (self.events, self.folder) = (folder.events(), folder);
            self.stuck.clear();
        }
    }

    /// Takes what lies there; `true` where there is more.
    fn round(&mut self) -> bool {
        let (stuck, foreign) = (&self.stuck, &self.foreign);
        let is_known = |name: &str, owner: u32| stuck.contains(name) || foreign.contains(&owner);
        let found = match self.folder.found(&is_known) {
            Ok(found) => found,
            Err(error) => {
                let path = self.folder.path().display();
                NOT_READ_TOLD.error(format_args!("{path}: cannot be read: {error}"));
                return false;
            }
        };
        if let Some(name) = found.a_folder.filter(|_| !self.has_told_of_folder) {
            self.has_told_of_folder = true;
            log::error!("drop/{name:?} is a folder, where only messages belong; remove it");
        }
        let mut has_taken = false;
        for name in &found.names {
            // Something is wrong with the disk, and would be taken twice.
            if self.is_stopping() || self.stuck.len() >= MAX_REMEMBERED {
                return false;
            }
            match catch_unwind(AssertUnwindSafe(|| self.take(name))) {
                Ok(End::Done) => has_taken = true,
                Ok(End::Later(why)) => {
                    POSTPONED_TOLD.error(format_args!("drop/{name:?}: waits: {why}"));
                }
                Err(_) => {
                    log::error!("drop/{name}: internal error; it stays until the next start");
                    self.stuck.insert(name.clone());
                }
            }
        }
        found.is_cut && has_taken
    }

    fn take(&mut self, name: &str) -> End {
        let max_octets = self.reception.settings.server.max_message_size;
        let dropped = match self.folder.open(name, max_octets) {
            Ok(dropped) => dropped,
            Err(Unfit::Gone) => return End::Done,
            Err(Unfit::Hostile { owner, why }) => return self.set_aside(name, owner, &why),
            Err(Unfit::Foreign { owner }) => return self.leave_alone(name, owner),
            Err(Unfit::Trouble(error)) => return End::Later(error.to_string()),
        };
        let reception = Arc::clone(&self.reception);
        let Some(_work) = reception.at_work.begin() else {
            return End::Later("the server is stopping".to_owned());
        };
        match self.submit(name, &dropped) {
            Ok(receipt) => {
                log::debug!("drop/{name}: taken as {}", receipt.id());
                if let Err(error) = self.folder.remove(name) {
                    log::error!("drop/{name}: was taken and cannot be removed: {error}");
                    self.stuck.insert(name.to_owned());
                }
                End::Done
            }
            Err(Refused::Later(why)) => End::Later(why),
            Err(Refused::ForGood(why)) => self.set_aside(name, dropped.owner, &why),
        }
    }

    /// Gives the message to the spool, as the owner of its file.
    fn submit(&self, name: &str, dropped: &Dropped) -> Result<Receipt, Refused> {
        let reception = &*self.reception;
        let envelope = dropped.message.envelope();
        let most = reception.settings.server.max_recipients;
        if envelope.recipients.len() > most {
            return Err(Refused::ForGood(format!(
                "has more than {most} recipients ([server] max_recipients)"
            )));
        }
        let peer = Peer::Account { uid: dropped.owner };
        let mut exchange = None;
        let mut policy = session::policy(reception, &self.listener, peer, &mut exchange, None);
        let reverse_path = self.reverse_path(name, dropped, &mut policy)?;
        let recipients = envelope.recipients.iter().map(|recipient| {
            // Whom the policy refuses the sender will hear of.
            let mailbox = at_origin(&reception.settings, recipient.mailbox.clone());
            let taken = policy.recipient(&ForwardPath::Mailbox(mailbox.clone()));
            Recipient { mailbox: taken.unwrap_or(mailbox), request: recipient.request.clone() }
        });
        let recipients: Vec<_> = recipients.collect();
        let (body, request) = (envelope.body, envelope.request.clone());
        let transaction = Transaction::new(reverse_path, recipients, body, request);
        let provenance = Provenance {
            peer,
            introduction: None,
            is_secured: false,
            encryption: None,
            user: None,
            listener: &self.listener,
        };
        let mut message = IncomingMessage::begin(reception, &provenance, &transaction);
        let mut reader = dropped.message.reader();
        let (mut block, mut wire) = (vec![0; BLOCK], Vec::new());
        let mut stuffing = DotStuffing::new();
        loop {
            match reader.read(&mut block) {
                Ok(0) => break,
                Ok(count) => stuffing.encode(&block[..count], &mut wire),
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return Err(Refused::ForGood("has shrunk while it was read".to_owned()));
                }
                Err(error) => return Err(Refused::Later(error.to_string())),
            }
            message.feed(&wire);
            wire.clear();
        }
        stuffing.finish(&mut wire);
        message.feed(&wire);
        message.finish().map_err(|error| data_refusal(&error, most_octets(reception)))
    }

    /// The sender that the message has from here on.
    fn reverse_path(
        &self,
        name: &str,
        dropped: &Dropped,
        policy: &mut SessionPolicy<'_>,
    ) -> Result<ReversePath, Refused> {
        let wanted = dropped.message.envelope().reverse_path.clone();
        let refusal = match policy.sender(wanted, Some(dropped.message.size_octets())) {
            Ok(reverse_path) => return Ok(reverse_path),
            Err(refusal) if is_temporary(&refusal) => {
                return Err(Refused::Later(refusal.to_string()));
            }
            Err(refusal) => refusal,
        };
        let own = account_name(dropped.owner).map_err(|failure| Refused::Later(failure.text))?;
        let origin = Domain::Name(policy.settings.server.domains.origin().clone());
        let reverse_path = match LocalPart::from_unquoted(&own) {
            Ok(local_part) => ReversePath::Mailbox(Mailbox::new(local_part, origin)),
            Err(_) => ReversePath::Null,
        };
        log::warn!("drop/{name} of uid {}: {refusal}; sent as {reverse_path}", dropped.owner);
        Ok(reverse_path)
    }

    /// Moves away what is no message, and says so.
    fn set_aside(&mut self, name: &str, owner: u32, why: &str) -> End {
        let what = match self.folder.set_aside(&self.reception.spool, name) {
            Ok(Some(kept)) => format!("kept as {kept}"),
            Ok(None) => "removed".to_owned(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return End::Done,
            Err(error) => {
                self.stuck.insert(name.to_owned());
                format!("left there, since it cannot be moved away: {error}")
            }
        };
        self.lines.error(&format!("drop/{name:?} of uid {owner} {why}; {what}"));
        End::Done
    }

    fn leave_alone(&mut self, name: &str, owner: u32) -> End {
        if self.foreign.len() < MAX_REMEMBERED && self.foreign.insert(owner) {
            log::error!(
                "drop/{name} is of uid {owner}, whose files this server cannot read: start it as \
                 root, it drops to [server] user itself"
            );
        }
        End::Done
    }
}

fn most_octets(reception: &Reception) -> u64 {
    reception.settings.server.max_message_size
}

fn is_temporary(reply: &Reply) -> bool {
    reply.status().is_some_and(|status| status.is_temporary())
}

fn data_refusal(error: &DataError, most_octets: u64) -> Refused {
    match error {
        DataError::Refused(reply) if is_temporary(reply) => Refused::Later(reply.to_string()),
        DataError::Refused(reply) => Refused::ForGood(format!("is refused: {reply}")),
        DataError::TooLarge => Refused::ForGood(format!(
            "has more than {most_octets} octets ([server] max_message_size)"
        )),
        DataError::Fault(DataFault::BareLf | DataFault::BareCr) => {
            Refused::ForGood("has lines that do not end with CRLF".to_owned())
        }
    }
}

/// The lines about bad files, so many a minute.
#[derive(Debug, Default)]
struct Lines {
    since: Option<Instant>,
    count: u32,
}

impl Lines {
    fn error(&mut self, text: &str) {
        if self.since.is_none_or(|since| since.elapsed() > Duration::from_secs(60)) {
            (self.since, self.count) = (Some(Instant::now()), 0);
        }
        self.count += 1;
        if self.count <= MAX_LINES {
            log::error!("{text}");
        } else {
            MORE_BAD_TOLD.error(format_args!("{text}; and there are more of that kind"));
        }
    }
}
