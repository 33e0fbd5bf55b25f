//! Who may send what to whom: local domains for anybody, other domains only for those who
//! may relay (RFC 5321 §7.9 leaves the choice to us; RFC 2505 says why it is made so). Where mail
//! is submitted, only a login counts (RFC 6409 §4.3).

use std::io;
use std::sync::Arc;
use std::time::Instant;

use crate::config::settings::{AuthRule, Protocol, Settings, Vrfy};
use crate::deliver::outcome::Failure;
use crate::mail::address::{Domain, ForwardPath, LocalPart, Mailbox, ReversePath};
use crate::mail::status::Status;
use crate::receive::logins::{Exchange, Logins};
use crate::receive::peer::Peer;
use crate::receive::provenance::bound_user;
use crate::receive::queue_runs::QueueRuns;
use crate::report::complaint::Complaint;
use crate::route::addressee::{Addressee, Way};
use crate::route::local::{LocalRouter, Resolution};
use crate::route::owner::{self, Owner, at_origin, qualified};
use crate::smtp::command::EtrnNode;
use crate::smtp::reply::Reply;
use crate::smtp::sasl::Mechanism;
use crate::smtp::server::{LoginStep, Policy};
use crate::spool::intake::Intake;
use crate::spool::store::Spool;

/// What stands in for the size of a message whose client declared none, in octets: most are
/// smaller.
pub const USUAL_SIZE: u64 = 64 << 10;

static NO_SPACE_TOLD: Complaint = Complaint::new();
static SPOOL_AWAY_TOLD: Complaint = Complaint::new();

const NO_SPACE: Reply =
    Reply::new(452, Status::new(4, 3, 1), "Too little free space in the spool; try again later");
const SPOOL_AWAY: Reply =
    Reply::new(451, Status::new(4, 3, 0), "The spool cannot be used now; try again later");
pub(super) const NO_RELAY: Reply = Reply::new(
    550,
    Status::new(5, 7, 1),
    "Relaying denied; this host relays for its own networks only",
);
/// The same where whoever logs in may relay.
pub(super) const NO_RELAY_YET: Reply =
    Reply::new(550, Status::new(5, 7, 1), "Relaying denied; log in first");
const CANNOT_VERIFY: Reply =
    Reply::new(252, Status::new(2, 5, 0), "Addresses are not verified here; send the message");
const CANNOT_LOOK_UP: Reply =
    Reply::new(252, Status::new(2, 5, 0), "This user cannot be looked up now");
const NO_TURN: Reply =
    Reply::new(459, Status::new(4, 7, 1), "Only hosts that may relay can start the queue");
const NO_SUCH_QUEUE: Reply =
    Reply::new(458, Status::new(4, 3, 5), "There is no queue with a name; give a domain");
const JUST_STARTED: Reply =
    Reply::new(458, Status::new(4, 3, 2), "The queue was started a moment ago; try again later");
const NO_LOGIN: Reply =
    Reply::new(503, Status::new(5, 5, 1), "There is no login to go on with; say AUTH again");
/// The answer where a user cannot be looked up now.
pub(super) const CANNOT_TELL: Reply =
    Reply::new(451, Status::new(4, 3, 0), "Cannot look this user up now; try again later");
const NOT_AN_ADDRESS: Reply =
    Reply::new(553, Status::new(5, 1, 3), "This is no address or user name");

/// The policy of one session.
#[derive(Debug)]
pub struct SessionPolicy<'a> {
    /// The configuration.
    pub settings: &'a Settings,
    /// Where the message would go.
    pub spool: &'a Spool,
    /// Who has a mailbox.
    pub router: &'a LocalRouter,
    /// Where messages are handed over.
    pub intake: &'a Intake,
    /// Who has the queue tried.
    pub queue_runs: &'a QueueRuns,
    /// The client.
    pub peer: Peer,
    /// What is spoken with it.
    pub protocol: Protocol,
    /// Whether it can log in, or has to.
    pub auth: AuthRule,
    /// Who may log in.
    pub logins: &'a Logins,
    /// The login that is under way.
    pub exchange: &'a mut Option<Exchange>,
    /// Who logged in.
    pub user: Option<Arc<str>>,
}

impl SessionPolicy<'_> {
    /// Whether the client may send to domains that are not ours.
    fn may_relay(&self) -> bool {
        match self.peer {
            _ if self.user.is_some() => true,
            Peer::Account { .. } => true,
            Peer::Host { .. } if self.protocol == Protocol::Submission => false,
            Peer::Host { remote, .. } => {
                self.settings.relay_networks.iter().any(|network| network.contains(&remote))
            }
        }
    }

    /// The mailbox that a path means: one with a domain, which is a name of ours where the
    /// client wrote the address that it connected to (RFC 5321 §4.1.3).
    fn mailbox(&self, forward_path: &ForwardPath) -> Result<Mailbox, Reply> {
        let origin = || Domain::Name(self.settings.server.domains.origin().clone());
        match forward_path {
            ForwardPath::Postmaster => {
                let local_part =
                    LocalPart::from_unquoted("postmaster").map_err(|_| NOT_AN_ADDRESS)?;
                Ok(Mailbox::new(local_part, origin()))
            }
            ForwardPath::Mailbox(mailbox) => match (mailbox.domain(), self.peer) {
                (Domain::Literal(literal), Peer::Host { local, .. }) if *literal == local => {
                    Ok(Mailbox::new(mailbox.local_part().clone(), origin()))
                }
                _ if self.protocol == Protocol::Submission => {
                    let status = Status::new(5, 1, 2);
                    qualified(self.settings, mailbox.clone())
                        .map_err(|domain| not_qualified(status, &domain))
                }
                (_, Peer::Account { .. }) => Ok(at_origin(self.settings, mailbox.clone())),
                _ => Ok(mailbox.clone()),
            },
        }
    }

    /// Whether the client may send as `mailbox`.
    fn check_sender(&self, mailbox: &Mailbox) -> Result<(), Reply> {
        if let Peer::Account { uid } = self.peer {
            return self.check_account(uid, mailbox);
        }
        match bound_user(self.peer, self.user.as_ref(), self.settings) {
            Some(user) if !self.is_owner(user, mailbox)? => Err(not_yours(mailbox, user)),
            _ => Ok(()),
        }
    }

    /// Whether the account `uid`, or whoever has logged in by way of it, may send as `mailbox`.
    fn check_account(&self, uid: u32, mailbox: &Mailbox) -> Result<(), Reply> {
        let bound = owner::bound_account(self.settings, uid);
        let Some(name) = bound.map_err(|failure| cannot_tell(mailbox, &failure))? else {
            return Ok(());
        };
        if self.is_owner(&name, mailbox)? {
            return Ok(());
        }
        match &self.user {
            Some(user) if self.is_owner(user, mailbox)? => Ok(()),
            _ => Err(not_of_account(mailbox, &name, uid)),
        }
    }

    fn is_owner(&self, user: &str, mailbox: &Mailbox) -> Result<bool, Reply> {
        let owns = Owner::new(self.settings, self.router, user).owns(mailbox);
        owns.map_err(|failure| cannot_tell(mailbox, &failure))
    }

    /// Whose mailbox a VRFY or EXPN argument names, and what that means.
    ///
    /// # Errors
    /// What the client gets instead: it is told nothing, or the argument makes no sense.
    fn asked(&self, text: &str) -> Result<(Mailbox, Resolution), Reply> {
        match self.settings.server.vrfy {
            Vrfy::No => return Err(CANNOT_VERIFY),
            Vrfy::Local if !self.may_relay() => return Err(CANNOT_VERIFY),
            Vrfy::Local | Vrfy::Yes => {}
        }
        let path = match text.parse::<LocalPart>() {
            Ok(_) => format!("<{text}@{}>", self.settings.server.domains.origin()),
            Err(_) if text.starts_with('<') => text.to_owned(),
            Err(_) => format!("<{text}>"),
        };
        let path = path.parse().map_err(|_| NOT_AN_ADDRESS)?;
        let mailbox = self.mailbox(&path)?;
        if !self.settings.server.domains.contains(mailbox.domain()) {
            return Err(CANNOT_VERIFY);
        }
        let resolution = self.router.resolve(&mailbox);
        Ok((mailbox, resolution))
    }
}

impl Policy for SessionPolicy<'_> {
    fn sender(
        &mut self,
        reverse_path: ReversePath,
        size: Option<u64>,
    ) -> Result<ReversePath, Reply> {
        check_room(self.settings, self.spool, self.intake, size.unwrap_or(USUAL_SIZE)).map_err(
            |error| match error.kind() {
                io::ErrorKind::StorageFull => NO_SPACE,
                _ => SPOOL_AWAY,
            },
        )?;
        // RFC 6409 §3.2: the null path is good for anybody.
        let ReversePath::Mailbox(mailbox) = reverse_path else { return Ok(reverse_path) };
        let mailbox = match self.protocol {
            Protocol::Smtp if matches!(self.peer, Peer::Account { .. }) => {
                at_origin(self.settings, mailbox)
            }
            Protocol::Smtp => mailbox,
            Protocol::Submission => qualified(self.settings, mailbox)
                .map_err(|domain| not_qualified(Status::new(5, 1, 8), &domain))?,
        };
        self.check_sender(&mailbox)?;
        Ok(ReversePath::Mailbox(mailbox))
    }

    fn recipient(&mut self, forward_path: &ForwardPath) -> Result<Mailbox, Reply> {
        let mailbox = self.mailbox(forward_path)?;
        if !self.settings.server.domains.contains(mailbox.domain()) {
            return match self.auth {
                _ if self.may_relay() => Ok(mailbox),
                AuthRule::None => Err(NO_RELAY),
                AuthRule::Optional | AuthRule::Required => Err(NO_RELAY_YET),
            };
        }
        match self.router.resolve(&mailbox) {
            Resolution::Mailbox(_) | Resolution::Expanded(_) => Ok(mailbox),
            Resolution::Unknown => Err(no_such_user(&mailbox)),
            Resolution::Failed(failure) => {
                log::warn!("RCPT {mailbox}: {}", failure.text);
                Err(if failure.status.is_permanent() {
                    leads_nowhere(&mailbox)
                } else {
                    CANNOT_TELL
                })
            }
        }
    }

    fn verify(&mut self, text: &str) -> Reply {
        let (mailbox, resolution) = match self.asked(text) {
            Ok(found) => found,
            Err(reply) => return reply,
        };
        match resolution {
            // RFC 5321 §3.5.2: a positive answer names the mailbox with its domain.
            Resolution::Mailbox(_) | Resolution::Expanded(_) => found(&[mailbox]),
            Resolution::Unknown => Reply::new(550, Status::new(5, 1, 1), "No such user here"),
            Resolution::Failed(_) => CANNOT_LOOK_UP,
        }
    }

    fn start_queue(&mut self, node: &EtrnNode) -> Reply {
        match node {
            _ if !self.may_relay() => NO_TURN,
            // RFC 1985 §5.3: what queues have a name is a local matter, and here none has.
            EtrnNode::Queue(_) => NO_SUCH_QUEUE,
            // §6: the queues for all hosts may be started whichever is named.
            EtrnNode::Host(name) | EtrnNode::Subdomains(name) => {
                match self.queue_runs.start(Instant::now()) {
                    true => {
                        let text = format!("Ok: queuing for node {name} started");
                        Reply::with_text(250, Status::new(2, 0, 0), text)
                    }
                    false => JUST_STARTED,
                }
            }
        }
    }

    fn mechanisms(&mut self) -> Vec<Mechanism> {
        self.logins.mechanisms(&self.peer)
    }

    fn begin_login(&mut self, mechanism: Mechanism, initial: Option<&[u8]>) -> LoginStep {
        let (exchange, step) = self.logins.begin(&self.peer, mechanism, initial);
        *self.exchange = exchange;
        step
    }

    fn continue_login(&mut self, response: &[u8]) -> LoginStep {
        let Some(exchange) = self.exchange.take() else { return LoginStep::Refused(NO_LOGIN) };
        let (exchange, step) = self.logins.respond(&self.peer, exchange, response);
        *self.exchange = exchange;
        step
    }

    fn cancel_login(&mut self) {
        *self.exchange = None;
    }

    fn expand(&mut self, text: &str) -> Option<Reply> {
        if self.settings.server.vrfy == Vrfy::No {
            return None;
        }
        Some(match self.asked(text) {
            Err(reply) => reply,
            // What else an alias does is nobody's business outside.
            Ok((mailbox, Resolution::Expanded(expansion))) => {
                let is_address =
                    |to: &Addressee| matches!(to.way, Way::Routed | Way::User | Way::Mailbox);
                let into = expansion.into.into_iter().filter(is_address);
                let into: Vec<_> = into.map(|to| to.mailbox).collect();
                found(if into.is_empty() { std::slice::from_ref(&mailbox) } else { &into })
            }
            Ok((_, Resolution::Failed(_))) => CANNOT_LOOK_UP,
            Ok((_, Resolution::Mailbox(_) | Resolution::Unknown)) => {
                Reply::new(550, Status::new(5, 1, 1), "No such alias here")
            }
        })
    }
}

/// Whether the spool can be written and keeps `[server] min_free_space` free when `octets` more
/// are in it. What is wrong goes to the log at most once a minute.
///
/// # Errors
/// `StorageFull` where the space is short, something else where the spool cannot be used.
/// The client must be told to come again.
pub fn check_room(
    settings: &Settings,
    spool: &Spool,
    intake: &Intake,
    octets: u64,
) -> io::Result<()> {
    let free = spool.free_octets().or_else(|error| {
        // It went away. Perhaps it is back, or there is another one.
        if error.kind() == io::ErrorKind::NotFound {
            intake.announce_found(spool.reopen()?);
            return spool.free_octets();
        }
        Err(error)
    });
    let free = free.inspect_err(|error| {
        SPOOL_AWAY_TOLD
            .error(format_args!("spool: cannot be used, mail is refused with 451: {error}"));
    })?;
    let needed = settings.server.min_free_space.saturating_add(octets);
    if free < needed {
        NO_SPACE_TOLD.error(format_args!(
            "spool: {free} octets free, {needed} needed ([server] min_free_space); mail is refused with 452"
        ));
        return Err(io::ErrorKind::StorageFull.into());
    }
    Ok(())
}

/// The mailboxes that VRFY or EXPN found, one on each line (RFC 5321 §3.5.1).
fn found(mailboxes: &[Mailbox]) -> Reply {
    let lines: Vec<_> = mailboxes.iter().map(|mailbox| format!("<{mailbox}>")).collect();
    Reply::with_text(250, Status::new(2, 1, 5), lines.join("\n"))
}

/// RFC 6409 §4.2.
fn not_qualified(status: Status, domain: &Domain) -> Reply {
    let text =
        format!("{domain} is no full domain name; write it out, as in user@{domain}.example");
    Reply::with_text(554, status, text)
}

fn not_yours(mailbox: &Mailbox, user: &str) -> Reply {
    let text = format!(
        "<{mailbox}> is no address of {user}, who is logged in; send from your own, or have an \
         alias or `[auth] sender = any` set"
    );
    Reply::with_text(553, Status::new(5, 7, 1), text)
}

fn not_of_account(mailbox: &Mailbox, name: &str, uid: u32) -> Reply {
    let text = format!(
        "<{mailbox}> is no address of {name} (uid {uid}); send from your own, or have an alias, \
         `[auth] trusted_users` or `[auth] sender = any` set"
    );
    Reply::with_text(553, Status::new(5, 7, 1), text)
}

fn cannot_tell(mailbox: &Mailbox, failure: &Failure) -> Reply {
    log::warn!("MAIL {mailbox}: {}", failure.text);
    CANNOT_TELL
}

/// RFC 3463: a routing loop. Why, and in which file, is nobody's business outside.
fn leads_nowhere(mailbox: &Mailbox) -> Reply {
    let text = format!("<{mailbox}>: the alias leads nowhere; tell the postmaster");
    Reply::with_text(550, Status::new(5, 4, 6), text)
}

fn no_such_user(mailbox: &Mailbox) -> Reply {
    Reply::with_text(550, Status::new(5, 1, 1), format!("<{mailbox}>: no such user here"))
}
