//! A session in memory: the protocol's own machines, fed octets, with no socket and no thread.

use std::sync::Arc;

use mailwren::mail::address::Mailbox;
use mailwren::mail::dsn_request::MessageRequest;
use mailwren::smtp::data::{DataDecoder, Progress};
use mailwren::smtp::reply::Reply;
use mailwren::smtp::server::{Action, DataError, Limits, Policy, Session};
use mailwren::spool::envelope::{Body, Envelope};
use mailwren::spool::id::QueueId;
use mailwren::spool::store::{Receipt, Spool};

/// A session, and what it has answered so far.
pub(crate) struct MemorySession<P> {
    pub(crate) session: Session,
    limits: Limits,
    policy: P,
    receipt: Receipt,
    input: Vec<u8>,
    data: Option<(DataDecoder, u64)>,
    replies: Vec<Reply>,
    is_closed: bool,
}

/// A policy that is told who logged in.
pub(crate) trait KnowsUser {
    fn log_in(&mut self, user: Option<&Arc<str>>);
}

impl<P: Policy + KnowsUser> MemorySession<P> {
    /// A session that has greeted.
    pub(crate) fn new(limits: Limits, policy: P, receipt: Receipt) -> Self {
        let session = Session::new(limits.clone());
        let replies = vec![session.greeting()];
        assert_eq!((replies[0].code(), replies[0].status()), (220, None));
        let (input, data, is_closed) = (Vec::new(), None, false);
        Self { session, limits, policy, receipt, input, data, replies, is_closed }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// The replies since the last call.
    pub(crate) fn take_replies(&mut self) -> Vec<Reply> {
        std::mem::take(&mut self.replies)
    }

    /// Takes the next octets from the client.
    pub(crate) fn feed(&mut self, octets: &[u8]) {
        self.input.extend_from_slice(octets);
        while !self.is_closed {
            if self.data.is_some() {
                if !self.feed_data() {
                    return;
                }
                continue;
            }
            self.policy.log_in(self.session.user());
            match self.session.next(&self.input, &mut self.policy) {
                Action::Read => return,
                Action::Reply(reply, used) => self.answer(reply, used),
                Action::ReadData(reply, used) => {
                    self.answer(reply, used);
                    self.data = Some((DataDecoder::new(self.limits.bare_newline), 0));
                }
                Action::StartTls(..) => panic!("a session in memory has no TLS"),
                Action::Close(reply) => {
                    self.is_closed = true;
                    self.answer(reply, 0);
                }
            }
        }
    }

    /// Takes the input as data; `true` when the data have ended.
    fn feed_data(&mut self) -> bool {
        let Some((decoder, octets)) = &mut self.data else { return true };
        let progress = decoder.decode(&self.input, |content| *octets += content.len() as u64);
        let Progress::Ended(used) = progress else {
            self.input.clear();
            return false;
        };
        let result = match decoder.fault() {
            Some(fault) => Err(DataError::Fault(fault)),
            None if *octets > self.limits.max_message_size => Err(DataError::TooLarge),
            None => Ok(self.receipt),
        };
        self.data = None;
        let reply = self.session.end_of_data(result);
        self.answer(reply, used);
        true
    }

    fn answer(&mut self, reply: Reply, used: usize) {
        let command = String::from_utf8_lossy(&self.input[..used]).to_ascii_uppercase();
        let is_introduction = command.starts_with("HELO") || command.starts_with("EHLO");
        check_status(&reply, is_introduction);
        self.input.drain(..used);
        self.replies.push(reply);
    }
}

/// Every reply has an enhanced code of its own class, but for the answers to HELO and EHLO and
/// the challenges and go-aheads of 3yz (RFC 2034 §3 and §4).
fn check_status(reply: &Reply, is_introduction: bool) {
    match (reply.code(), reply.status()) {
        (250, None) => assert!(is_introduction, "{reply}: no enhanced code"),
        (334 | 354, None) => {}
        (_, None) => panic!("{reply}: no enhanced code"),
        (334 | 354, Some(_)) => panic!("{reply}: 3yz has no enhanced code"),
        (code, Some(status)) => {
            let class = status.to_string();
            assert!(class.starts_with(&(code / 100).to_string()), "{reply}: the classes differ");
        }
    }
}

/// A receipt for some message: only a spool makes one.
pub(crate) fn receipt() -> Receipt {
    let folder = tempfile::tempdir().unwrap();
    let spool = Spool::open(folder.path()).unwrap();
    let envelope = Envelope {
        id: QueueId::generate(0, 0),
        received_at: 0,
        client: "127.0.0.1".into(),
        reverse_path: "<>".parse().unwrap(),
        recipients: vec!["ann@mx.test".parse::<Mailbox>().unwrap().into()],
        body: Body::SevenBit,
        request: MessageRequest::default(),
    };
    spool.draft(envelope).commit().unwrap().0
}
