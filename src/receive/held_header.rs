//! The header section of a submitted message: held back until it is whole, looked at and completed
//! (RFC 6409 §6.3 and §8). The body behind it streams on as it comes. So does what the programs of
//! this host's accounts give over the Unix socket or left in `drop/`, which is never refused for
//! its header: what cannot be read stays as it is.

use memchr::memmem;

use crate::config::settings::{Protocol, Settings};
use crate::mail::address::{Domain, LocalPart, Mailbox};
use crate::mail::completion::{HeaderFault, HeaderSection, Locals, Submitter};
use crate::mail::header;
use crate::mail::status::Status;
use crate::mail::submission::Surroundings;
use crate::receive::peer::Peer;
use crate::receive::policy::CANNOT_TELL;
use crate::receive::provenance::Provenance;
use crate::route::local::{LocalRouter, Resolution};
use crate::route::owner::Owner;
use crate::smtp::reply::Reply;
use crate::smtp::server::Transaction;
use crate::spool::envelope::Recipient;
use crate::spool::id::QueueId;
use crate::sys::clock;

/// The largest header section that is looked at, in octets: some three thousand recipients.
const MAX_HEADER: usize = 256 << 10;
/// The most names without a domain that are looked up, and completed, for one message.
const MAX_LOOKUPS: u32 = 100;

const BAD_CONTENT: Status = Status::new(5, 6, 0);
const TOO_LONG: Reply = Reply::new(
    554,
    BAD_CONTENT,
    "The header section is larger than 256 KiB, so that nobody can say who the sender is",
);
const NOT_A_FIELD: Reply = Reply::new(
    554,
    BAD_CONTENT,
    "The header section has a line that is no field; an empty line belongs before the text",
);
const NO_FROM: Reply =
    Reply::new(554, BAD_CONTENT, "The message has neither a From field nor a sender; add one");

/// A header section that is not whole yet.
#[derive(Debug)]
pub struct HeldHeader<'a> {
    settings: &'a Settings,
    router: &'a LocalRouter,
    provenance: Provenance<'a>,
    transaction: &'a Transaction,
    id: QueueId,
    octets: Vec<u8>,
}

impl<'a> HeldHeader<'a> {
    /// Begins a section; `None` where nobody has to look at it. `id` makes a missing Message-ID
    /// unique.
    pub fn begin(
        settings: &'a Settings,
        router: &'a LocalRouter,
        provenance: Provenance<'a>,
        transaction: &'a Transaction,
        id: QueueId,
    ) -> Option<Self> {
        let header = Self { settings, router, provenance, transaction, id, octets: Vec::new() };
        (header.submitter().is_some() || header.bound_user().is_some()).then_some(header)
    }

    /// Takes more of the message. As soon as the section is whole: all that was held, as it is to
    /// be kept, or why the message is refused.
    pub fn feed(&mut self, content: &[u8]) -> Option<Result<Vec<u8>, Reply>> {
        let seen = self.octets.len().saturating_sub(b"\r\n\r".len());
        self.octets.extend_from_slice(content);
        let end = match self.octets.starts_with(b"\r\n") {
            true => Some(0),
            false => memmem::find(&self.octets[seen..], b"\r\n\r\n").map(|end| seen + end),
        };
        let is_whole = end.is_some_and(|end| end <= MAX_HEADER);
        match is_whole || self.octets.len() > MAX_HEADER + b"\r\n\r\n".len() {
            true => Some(self.end(is_whole)),
            false => None,
        }
    }

    /// The same at the end of the message.
    pub fn finish(mut self) -> Result<Vec<u8>, Reply> {
        self.end(true)
    }

    fn end(&mut self, is_whole: bool) -> Result<Vec<u8>, Reply> {
        let octets = std::mem::take(&mut self.octets);
        if !is_whole && has_only_fields(&octets[..MAX_HEADER]) {
            return if self.bound_user().is_some() { Err(TOO_LONG) } else { Ok(octets) };
        }
        let submitter = self.submitter();
        let section = match HeaderSection::read(&octets) {
            Ok(section) => section,
            Err(_) if submitter == Some(Submitter::Account) => return Ok(octets),
            Err(fault) => return Err(fault_reply(fault)),
        };
        let submitter = submitter.filter(|_| !section.is_signed());
        // Without the empty line that completing puts there, readers find fields in the text.
        if submitter.is_none() && !section.ends_well() {
            return Err(NOT_A_FIELD);
        }
        self.check_authors(&section)?;
        let Some(submitter) = submitter else { return Ok(octets) };
        let surroundings = Surroundings {
            sender: self.transaction.reverse_path.mailbox(),
            full_name: None,
            date: &clock::date_field(clock::since_1970().as_secs()).to_string(),
            unique: &self.id.to_string(),
            origin: self.settings.server.domains.origin(),
        };
        let Self { settings, router, transaction, .. } = *self;
        let mut names = Names { settings, router, taken: &transaction.recipients, lookups: 0 };
        section.completed(submitter, &surroundings, &mut names).map_err(fault_reply)
    }

    /// Whether a user who may send only as himself is the author.
    fn check_authors(&self, section: &HeaderSection<'_>) -> Result<(), Reply> {
        let Some(user) = self.bound_user() else { return Ok(()) };
        let owner = Owner::new(self.settings, self.router, user);
        let authors =
            section.authors(self.settings.server.domains.origin()).map_err(fault_reply)?;
        for author in authors {
            match owner.owns(&author) {
                Ok(true) => {}
                Ok(false) => return Err(not_yours(&author, user)),
                Err(failure) => {
                    log::warn!("{}: From {author}: {}", self.id, failure.text);
                    return Err(CANNOT_TELL);
                }
            }
        }
        Ok(())
    }

    /// For whom the section is completed, if it is.
    fn submitter(&self) -> Option<Submitter> {
        let Provenance { peer, listener, .. } = self.provenance;
        match (peer, listener.protocol) {
            (Peer::Account { .. }, _) => Some(Submitter::Account),
            (Peer::Host { .. }, Protocol::Submission) => Some(Submitter::Client),
            (Peer::Host { .. }, _) => None,
        }
    }

    fn bound_user(&self) -> Option<&'a str> {
        self.provenance.bound_user(self.settings)
    }
}

/// Whether there are nothing but fields as far as whole lines go.
fn has_only_fields(octets: &[u8]) -> bool {
    let end = memchr::memrchr(b'\n', octets).map_or(0, |newline| newline + 1);
    let mut fields = header::fields(&octets[..end]);
    fields.by_ref().for_each(drop);
    fields.rest().is_empty()
}

/// The names of this host, each at the cost of a look-up, but for those who get the message.
struct Names<'a> {
    settings: &'a Settings,
    router: &'a LocalRouter,
    taken: &'a [Recipient],
    lookups: u32,
}

impl Locals for Names<'_> {
    fn is_ours(&self, domain: &Domain) -> bool {
        self.settings.server.domains.contains(domain)
    }

    fn is_known(&mut self, local_part: &LocalPart) -> bool {
        self.lookups += 1;
        if self.lookups > MAX_LOOKUPS {
            return false;
        }
        let origin = Domain::Name(self.settings.server.domains.origin().clone());
        let mailbox = Mailbox::new(local_part.clone(), origin);
        let is_unknown = || {
            let resolution = self.router.resolve(&mailbox);
            matches!(resolution, Resolution::Unknown | Resolution::Failed(_))
        };
        self.taken.iter().any(|to| to.mailbox == mailbox) || !is_unknown()
    }
}

fn fault_reply(fault: HeaderFault) -> Reply {
    let text = match fault {
        HeaderFault::NotAField => return NOT_A_FIELD,
        HeaderFault::NoFrom => return NO_FROM,
        HeaderFault::DoubtfulAuthor(field) => {
            format!("Who is meant in {field} is not certain; write it as \"Name\" <user@domain>")
        }
        HeaderFault::NotQualified(domain) => {
            format!("{domain} in the header section is no full domain name; write it out")
        }
    };
    Reply::with_text(554, BAD_CONTENT, text)
}

fn not_yours(author: &Mailbox, user: &str) -> Reply {
    let text = format!(
        "<{author}> in From or Sender is no address of {user}, who is logged in; write as your own, \
         or have an alias or `[auth] sender = any` set"
    );
    Reply::with_text(550, Status::new(5, 7, 1), text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use crate::mail::address::ReversePath;
    use crate::mail::dsn_request::{MessageRequest, RecipientRequest};
    use crate::spool::envelope::Body;
    use std::fs;
    use std::sync::Arc;

    /// A host with ann and bob, and the listeners `smtp` and `submission`.
    struct Host {
        settings: Settings,
        router: LocalRouter,
        _folder: tempfile::TempDir,
    }

    impl Host {
        fn new(sender_rule: &str) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let path = |name: &str| folder.path().join(name).display().to_string();
            fs::write(path("users"), "ann\nbob\n").unwrap();
            let text = format!(
                "[server]\nhostname = mx.home.test\ndomains = home.test, localhost\n\
                 [local]\nusers = {}\naliases =\n[auth]\nsender = {sender_rule}\n\
                 [listen.smtp]\naddress = 127.0.0.1:0\ntls = none\n\
                 [listen.submission]\naddress = 127.0.0.1:0\nprotocol = submission\n",
                path("users"),
            );
            fs::write(path("mailwren.ini"), text).unwrap();
            let settings = config::load(path("mailwren.ini").as_ref(), "mx.test").unwrap();
            let router = LocalRouter::new(&settings);
            Self { settings, router, _folder: folder }
        }

        /// What is kept of a message from ann, which must be the same however it is cut into
        /// pieces; `None` where nobody looks at it.
        fn take(&self, listener: &str, user: Option<&str>, message: &str) -> Option<Taken> {
            let local = [127, 0, 0, 1].into();
            self.take_from(Peer::Host { remote: local, local }, listener, user, message)
        }

        /// The same from a program of this host, by whichever listener.
        fn take_from_account(&self, message: &str) -> String {
            let [first, other] = ["smtp", "submission"].map(|listener| {
                let peer = Peer::Account { uid: 0 };
                self.take_from(peer, listener, None, message).unwrap().unwrap()
            });
            assert_eq!(first, other);
            first
        }

        fn take_from(
            &self,
            peer: Peer,
            listener: &str,
            user: Option<&str>,
            message: &str,
        ) -> Option<Taken> {
            let user: Option<Arc<str>> = user.map(Into::into);
            let mut listeners = self.settings.listeners.iter();
            let provenance = Provenance {
                peer,
                introduction: None,
                is_secured: false,
                encryption: None,
                user: user.as_ref(),
                listener: listeners.find(|found| found.name == listener).unwrap(),
            };
            let sender = ReversePath::Mailbox("ann@home.test".parse().unwrap());
            let to = Recipient {
                mailbox: "dan@home.test".parse().unwrap(),
                request: RecipientRequest::default(),
            };
            let transaction =
                Transaction::new(sender, [to], Body::SevenBit, MessageRequest::default());
            let id = QueueId::generate(0, 0);
            let mut taken = [1, 7, 1 << 20].into_iter().map(|size| {
                let (settings, router) = (&self.settings, &self.router);
                let header = HeldHeader::begin(settings, router, provenance, &transaction, id)?;
                let taken = play(header, message, size);
                Some(taken.map(|kept| kept.replace(&id.to_string(), "[id]")))
            });
            let first = taken.next().unwrap();
            for other in taken {
                assert!(other == first, "{:.300}\nis not\n{:.300}", said(&other), said(&first));
            }
            first
        }
    }

    fn said(taken: &Option<Taken>) -> String {
        format!("{taken:?}")
    }

    type Taken = Result<String, String>;

    fn play(header: HeldHeader<'_>, message: &str, size: usize) -> Taken {
        let (mut header, mut kept) = (Some(header), String::new());
        for piece in message.as_bytes().chunks(size) {
            let Some(held) = &mut header else {
                kept.push_str(str::from_utf8(piece).unwrap());
                continue;
            };
            let Some(whole) = held.feed(piece) else { continue };
            header = None;
            kept = String::from_utf8(whole.map_err(|reply| reply.to_string())?).unwrap();
        }
        if let Some(header) = header {
            kept = String::from_utf8(header.finish().map_err(|r| r.to_string())?).unwrap();
        }
        // What depends on the moment.
        let (fixed, date): (Vec<_>, Vec<_>) =
            kept.split_inclusive("\r\n").partition(|line| !line.ends_with(" +0000\r\n"));
        assert!(date.len() <= 1 && date.iter().all(|date| date.starts_with("Date: ")), "{kept}");
        Ok(format!("{}{}", if date.is_empty() { "" } else { "[date]" }, fixed.concat()))
    }

    const WHOLE: &str =
        "From: Bob <bob@home.test>\r\nDate: x\r\nMessage-ID: <y>\r\n\r\nbody\r\n\r\n";

    #[test]
    fn only_submissions_are_completed() {
        let host = Host::new("any");
        let bare = "From: bob\r\nTo: carl\r\n\r\nbody\r\n\r\nTo: bob\r\n";
        assert_eq!(host.take("smtp", None, bare), None);
        assert_eq!(host.take("smtp", Some("ann"), bare), None);
        let completed = host.take("submission", Some("ann"), bare).unwrap().unwrap();
        let expected = "[date]Message-ID: <[id]@home.test>\r\n\
             From: bob@home.test\r\nTo: carl\r\n\r\nbody\r\n\r\nTo: bob\r\n";
        assert_eq!(completed, expected);
        assert_eq!(host.take("submission", Some("ann"), WHOLE), Some(Ok(WHOLE.to_owned())));
        let signed = format!("DKIM-Signature: v=1\r\n{bare}");
        assert_eq!(host.take("submission", Some("ann"), &signed), Some(Ok(signed)));
        let empty = host.take("submission", Some("ann"), "").unwrap().unwrap();
        assert!(empty.starts_with("[date]From: <ann@home.test>\r\nMessage-ID: "), "{empty}");
    }

    #[test]
    fn what_programs_of_this_host_write_is_completed_and_never_refused() {
        let host = Host::new("own");
        // Dan gets the message, so nobody has to look for him.
        let bare = "From: carl (Cron Daemon)\r\nTo: bob, dan, eve\r\nMessage-ID: <y>\r\n\r\nbody";
        let expected = "[date]From: carl@home.test (Cron Daemon)\r\n\
             To: bob@home.test, dan@home.test, eve\r\nMessage-ID: <y>\r\n\r\nbody";
        assert_eq!(host.take_from_account(bare), expected);
        let empty = host.take_from_account("text");
        assert!(empty.starts_with("[date]From: <ann@home.test>\r\nMessage-ID: "), "{empty}");
        assert!(empty.ends_with("\r\n\r\ntext"), "{empty}");
        for message in [
            WHOLE.to_owned(),
            format!("DKIM-Signature: v=1\r\n{bare}"),
            format!("DKIM-Signature: v=1\r\nbad\r\n{bare}"),
            WHOLE.replace("Date", "bad line\r\nDate"),
            WHOLE.replace("bob@home.test", "bob@sales"),
            WHOLE.replace("Bob <bob@home.test>", "j\u{f6}rg"),
            format!("From ann Sun Nov\r\n{WHOLE}"),
            format!("From: bob\r\n{}\r\nbody", "X: y\r\n".repeat(MAX_HEADER / 6 + 1)),
            format!("From: bob\r\nbad\r\n{}\r\nbody", "X: y\r\n".repeat(MAX_HEADER / 6 + 1)),
        ] {
            let kept = host.take_from_account(&message);
            assert!(kept == message, "{kept:.300}\nis not\n{message:.300}");
        }
        let crowd = format!("To: {}\r\n{WHOLE}", "dan,".repeat(MAX_LOOKUPS as usize + 1));
        let kept = host.take_from_account(&crowd);
        assert_eq!(kept.matches("dan@home.test").count(), MAX_LOOKUPS as usize);
    }

    #[test]
    fn who_may_send_only_as_himself_is_the_author() {
        let host = Host::new("own");
        assert_eq!(host.take("smtp", None, WHOLE), None);
        for listener in ["smtp", "submission"] {
            let take = |message: &str| host.take(listener, Some("ann"), message).unwrap();
            let refused = "550 5.7.1 <bob@home.test> in From or Sender is no address of ann, who is \
                logged in; write as your own, or have an alias or `[auth] sender = any` set";
            assert_eq!(take(WHOLE), Err(refused.to_owned()));
            for (message, code) in [
                (WHOLE.replace("bob@", "ann+x@").as_str(), None),
                (WHOLE.replace("Bob <bob@home.test>", "ann").as_str(), None),
                (WHOLE.replace("From: Bob", "From: ann@home.test, Bob").as_str(), Some("550")),
                (WHOLE.replace("From", "From: ann@home.test\r\nSender").as_str(), Some("550")),
                (WHOLE.replace("From", "from: ann@home.test\r\nFROM ").as_str(), Some("550")),
                (&format!("DKIM-Signature: v=1\r\n{WHOLE}"), Some("550")),
                (WHOLE.replace("Bob <", "ann@home.test> <").as_str(), Some("554")),
                (WHOLE.replace("Date", "bad\r\nDate").as_str(), Some("554")),
                ("From: ann@home.test", None),
            ] {
                let found = take(message).err().map(|reply| reply[..3].to_owned());
                assert_eq!(found.as_deref(), code, "{listener}: {message}");
            }
        }
        // Only the submission server puts an empty line before a body without header section.
        let body = "Dear all,\r\nFrom: bob@home.test\r\n\r\n";
        let kept = host.take("submission", Some("ann"), body).unwrap().unwrap();
        assert!(kept.ends_with(&format!("\r\n\r\n{body}")), "{kept}");
        assert_eq!(host.take("smtp", Some("ann"), body).unwrap(), Err(NOT_A_FIELD.to_string()));
    }

    #[test]
    fn a_header_section_without_end_is_not_held_for_ever() {
        let endless = "From: ann@home.test\r\nX: \r\n".repeat(MAX_HEADER / 25 + 1);
        let message = format!("{endless}\r\nbody");
        let kept = Host::new("any").take("submission", Some("ann"), &message);
        assert_eq!(kept, Some(Ok(message.clone())));
        let refused = Host::new("own").take("submission", Some("ann"), &message);
        assert_eq!(refused, Some(Err(TOO_LONG.to_string())));
        // No field at all is something else.
        let body = "x".repeat(MAX_HEADER + 100) + "\r\n";
        let refused = Host::new("own").take("submission", Some("ann"), &body);
        assert_eq!(refused, Some(Err(TOO_LONG.to_string())));
        let body = "text\r\n".repeat(MAX_HEADER / 6 + 1);
        let kept = Host::new("own").take("submission", Some("ann"), &body).unwrap().unwrap();
        assert!(kept.ends_with(&format!("\r\n\r\n{body}")));
    }

    #[test]
    fn a_reply_names_what_to_mend() {
        let host = Host::new("any");
        for (field, expected) in [
            ("From: bob@sales", "554 5.6.0 sales in the header section is no full domain name"),
            ("bad", "554 5.6.0 The header section has a line that is no field"),
        ] {
            let message = format!("Subject: x\r\n{field}\r\n\r\n");
            let reply = host.take("submission", Some("ann"), &message).unwrap().unwrap_err();
            assert!(reply.starts_with(expected), "{reply}");
        }
    }
}
