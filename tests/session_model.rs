//! Random sessions agree with a small model: which reply each command gets, what is left of a
//! transaction behind it, and who is logged in. However the octets are cut into pieces, the replies
//! are the same.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::sync::{Arc, OnceLock};

use mailwren::config::settings::{AuthRule, BareNewline};
use mailwren::mail::address::{Domain, ForwardPath, LocalPart, Mailbox, ReversePath};
use mailwren::mail::status::Status;
use mailwren::smtp::command::EtrnNode;
use mailwren::smtp::reply::Reply;
use mailwren::smtp::sasl::Mechanism;
use mailwren::smtp::server::{Limits, LoginStep, Policy};
use mailwren::spool::store::Receipt;
use proptest::prelude::*;

#[path = "support/memory.rs"]
mod memory;

use memory::{KnowsUser, MemorySession};

const MAX_RECIPIENTS: usize = 3;
const MAX_SIZE: usize = 64;
/// Refused commands that are too many, by RFC 5321 §4.5.3.1.8 and some.
const MAX_REFUSALS: u32 = 120;

const MAX_LOGIN_FAILURES: u32 = 5;

/// What a client may say. `Data` is the command, and the content where it gets a 354.
#[derive(Clone, Debug)]
enum Say {
    Helo,
    Ehlo,
    BadHello,
    Mail(&'static str),
    MailTooLarge,
    MailMalformed,
    MailRefused,
    Rcpt(&'static str),
    RcptRefused,
    RcptMalformed,
    RcptParameter,
    Data(&'static str),
    BadData,
    Rset,
    BadRset,
    Etrn,
    Login(Attempt),
    Harmless(&'static str),
    Refused(u16, &'static str),
    Quit,
}

/// A login: AUTH, what follows where it gets a 334, and the code of the last reply.
#[derive(Clone, Copy, Debug)]
struct Attempt {
    line: &'static str,
    response: Option<&'static str>,
    code: u16,
}

/// `YW5u` is `ann`, who may log in; `Ym9i` is `bob`, who may not.
const ATTEMPTS: [Attempt; 9] = [
    Attempt { line: "AUTH PLAIN YW5u", response: None, code: 235 },
    Attempt { line: "AUTH LOGIN", response: Some("YW5u"), code: 235 },
    Attempt { line: "AUTH PLAIN Ym9i", response: None, code: 535 },
    Attempt { line: "AUTH LOGIN", response: Some("Ym9i"), code: 535 },
    Attempt { line: "AUTH LOGIN", response: Some("*"), code: 501 },
    Attempt { line: "AUTH LOGIN", response: Some("RSET"), code: 535 },
    Attempt { line: "AUTH LOGIN", response: Some("MAIL FROM:<>"), code: 501 },
    Attempt { line: "AUTH PLAIN !", response: None, code: 501 },
    Attempt { line: "AUTH X", response: None, code: 504 },
];

const GOOD: &str = "Subject: x\r\n\r\n..dot\r\n.\r\n";
const EMPTY: &str = ".\r\n";
const BARE_LF: &str = "a\n.\nMAIL FROM:<evil@far.test>\r\n.\r\n";
const BARE_CR: &str = "a\r.\rRSET\r\n.\r\n";
const LARGE: &str =
    "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\r\n.\r\n";

fn say() -> impl Strategy<Value = Say> {
    let sender = prop::sample::select(vec!["", "zoe@far.test", "yan@far.test"]);
    let recipient = prop::sample::select(vec!["a@x", "b@x", "c@x", "d@x", "e@x"]);
    let content = prop::sample::select(vec![GOOD, EMPTY, BARE_LF, BARE_CR, LARGE]);
    let harmless = prop::sample::select(vec!["NOOP", "NOOP RSET", "HELP", "help data", "VRFY a"]);
    let refused = prop::sample::select(vec![
        (500, "BOGUS"),
        (500, ""),
        (500, "NOOP \0"),
        (500, "RSET\rRSET"),
        (500, "VRFY \u{fc}"),
        (501, "VRFY"),
        (501, "QUIT now"),
        (502, "EXPN a"),
        (502, "STARTTLS"),
        (501, "AUTH"),
        (502, "BDAT 5 LAST"),
        (504, "HELP me"),
    ]);
    prop_oneof![
        2 => Just(Say::Helo),
        2 => Just(Say::Ehlo),
        1 => Just(Say::BadHello),
        6 => sender.prop_map(Say::Mail),
        1 => Just(Say::MailTooLarge),
        1 => Just(Say::MailMalformed),
        1 => Just(Say::MailRefused),
        8 => recipient.prop_map(Say::Rcpt),
        2 => Just(Say::RcptRefused),
        1 => Just(Say::RcptMalformed),
        1 => Just(Say::RcptParameter),
        6 => content.prop_map(Say::Data),
        1 => Just(Say::BadData),
        2 => Just(Say::Rset),
        1 => Just(Say::BadRset),
        1 => Just(Say::Etrn),
        2 => prop::sample::select(ATTEMPTS.to_vec()).prop_map(Say::Login),
        2 => harmless.prop_map(Say::Harmless),
        4 => refused.prop_map(|(code, line)| Say::Refused(code, line)),
        1 => Just(Say::Quit),
    ]
}

/// What a session is, said anew: RFC 5321 §4.1.4 and §4.3.2 as a few fields.
#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    has_greeted: bool,
    sender: Option<&'static str>,
    recipients: Vec<&'static str>,
    is_logged_in: bool,
    login_failures: u32,
    refusals: u32,
    is_over: bool,
}

impl Model {
    /// Adds what the client sends to `wire`, and returns the codes of the replies.
    fn play(&mut self, say: &Say, wire: &mut String) -> Vec<u16> {
        let line = match say {
            Say::Helo => "HELO c.test".to_owned(),
            Say::Ehlo => "EHLO c.test".to_owned(),
            Say::BadHello => "EHLO not a name".to_owned(),
            Say::Mail(sender) => format!("MAIL FROM:<{sender}>"),
            Say::MailTooLarge => format!("MAIL FROM:<> SIZE={}", MAX_SIZE + 1),
            Say::MailMalformed => "MAIL FROM:<nowhere>".to_owned(),
            Say::MailRefused => "MAIL FROM:<no@far.test>".to_owned(),
            Say::Rcpt(recipient) => format!("RCPT TO:<{recipient}>"),
            Say::RcptRefused => "RCPT TO:<no@x>".to_owned(),
            Say::RcptMalformed => "RCPT TO:<a@x@y>".to_owned(),
            Say::RcptParameter => "RCPT TO:<a@x> FOO=NEVER".to_owned(),
            Say::Data(_) => "DATA".to_owned(),
            Say::BadData => "DATA x".to_owned(),
            Say::Rset => "RSET".to_owned(),
            Say::BadRset => "RSET x".to_owned(),
            Say::Etrn => "ETRN far.test".to_owned(),
            Say::Login(attempt) => attempt.line.to_owned(),
            Say::Harmless(line) | Say::Refused(_, line) => (*line).to_owned(),
            Say::Quit => "QUIT".to_owned(),
        };
        wire.push_str(&line);
        wire.push_str("\r\n");
        let code = self.code(say);
        let code = self.count(code);
        match say {
            Say::Login(Attempt { response: Some(response), code: last, .. }) if code == 334 => {
                wire.push_str(response);
                wire.push_str("\r\n");
                self.end_of_login(*last);
                vec![code, self.count(*last)]
            }
            Say::Data(content) if code == 354 => {
                wire.push_str(content);
                vec![code, self.end_of_data(content)]
            }
            _ => vec![code],
        }
    }

    /// The code that is sent: after too many refusals, another one.
    fn count(&mut self, code: u16) -> u16 {
        if code < 400 {
            return code;
        }
        if self.login_failures >= MAX_LOGIN_FAILURES {
            self.is_over = true;
            return code;
        }
        self.refusals += 1;
        if self.refusals > MAX_REFUSALS {
            self.is_over = true;
            return 421;
        }
        code
    }

    fn code(&mut self, say: &Say) -> u16 {
        match say {
            Say::Helo | Say::Ehlo => {
                self.has_greeted = true;
                self.reset();
                250
            }
            Say::Rset => {
                self.reset();
                250
            }
            Say::Quit => {
                self.is_over = true;
                221
            }
            Say::BadHello | Say::BadData | Say::BadRset => 501,
            Say::MailMalformed | Say::RcptMalformed => 553,
            Say::RcptParameter => 555,
            Say::Mail(_) | Say::MailTooLarge | Say::MailRefused => self.mail(say),
            Say::Rcpt(_) | Say::RcptRefused => self.rcpt(say),
            Say::Data(_) => match (self.sender, self.recipients.len()) {
                (None, _) => 503,
                (Some(_), 0) => 554,
                _ => 354,
            },
            Say::Etrn if !self.has_greeted || self.sender.is_some() => 503,
            Say::Etrn => 250,
            Say::Login(_) if !self.has_greeted || self.is_logged_in || self.sender.is_some() => 503,
            Say::Login(Attempt { response: Some(_), .. }) => 334,
            Say::Login(Attempt { code, .. }) => {
                self.end_of_login(*code);
                *code
            }
            Say::Harmless(line) if line.starts_with("HELP") || line.starts_with("help") => 214,
            Say::Harmless(line) if line.starts_with("VRFY") => 252,
            Say::Harmless(_) => 250,
            Say::Refused(code, _) => *code,
        }
    }

    fn mail(&mut self, say: &Say) -> u16 {
        if !self.has_greeted || self.sender.is_some() {
            return 503;
        }
        match say {
            Say::Mail(sender) => {
                self.sender = Some(sender);
                250
            }
            Say::MailTooLarge => 552,
            _ => 550,
        }
    }

    fn rcpt(&mut self, say: &Say) -> u16 {
        match say {
            _ if self.sender.is_none() => 503,
            _ if self.recipients.len() == MAX_RECIPIENTS => 452,
            Say::Rcpt(recipient) => {
                if !self.recipients.contains(recipient) {
                    self.recipients.push(recipient);
                }
                250
            }
            _ => 550,
        }
    }

    fn end_of_login(&mut self, code: u16) {
        match code {
            235 => self.is_logged_in = true,
            535 => self.login_failures += 1,
            _ => {}
        }
    }

    /// Good or bad, a transaction ends with its data.
    fn end_of_data(&mut self, content: &str) -> u16 {
        self.reset();
        match content {
            BARE_LF | BARE_CR => 550,
            LARGE => 552,
            _ => {
                self.refusals = 0;
                250
            }
        }
    }

    fn reset(&mut self) {
        self.sender = None;
        self.recipients.clear();
    }
}

/// Refuses `no`, takes everybody else. Only `ann` can log in.
struct Picky;

fn refusal() -> Reply {
    Reply::new(550, Status::new(5, 7, 1), "No")
}

impl Policy for Picky {
    fn sender(&mut self, reverse_path: ReversePath, _: Option<u64>) -> Result<ReversePath, Reply> {
        let is_refused = reverse_path.mailbox().is_some_and(|m| m.local_part().as_str() == "no");
        if is_refused { Err(refusal()) } else { Ok(reverse_path) }
    }

    fn recipient(&mut self, forward_path: &ForwardPath) -> Result<Mailbox, Reply> {
        match forward_path {
            ForwardPath::Mailbox(mailbox) if mailbox.local_part().as_str() != "no" => {
                Ok(mailbox.clone())
            }
            ForwardPath::Mailbox(_) => Err(refusal()),
            ForwardPath::Postmaster => {
                let local_part = LocalPart::from_unquoted("postmaster").unwrap();
                Ok(Mailbox::new(local_part, Domain::Name("x".parse().unwrap())))
            }
        }
    }

    fn verify(&mut self, _: &str) -> Reply {
        Reply::new(252, Status::new(2, 5, 0), "Perhaps")
    }

    fn start_queue(&mut self, _: &EtrnNode) -> Reply {
        Reply::new(250, Status::new(2, 0, 0), "Started")
    }

    fn expand(&mut self, _: &str) -> Option<Reply> {
        None
    }

    fn mechanisms(&mut self) -> Vec<Mechanism> {
        vec![Mechanism::Plain, Mechanism::Login]
    }

    fn begin_login(&mut self, _: Mechanism, initial: Option<&[u8]>) -> LoginStep {
        match initial {
            Some(response) => self.continue_login(response),
            None => LoginStep::Challenge(b"Username:".to_vec()),
        }
    }

    fn continue_login(&mut self, response: &[u8]) -> LoginStep {
        match response {
            b"ann" => LoginStep::Accepted("ann".into()),
            _ => LoginStep::Refused(Reply::new(535, Status::new(5, 7, 8), "Wrong")),
        }
    }

    fn cancel_login(&mut self) {}
}

/// Only Ann can log in, and may no more than others.
impl KnowsUser for Picky {
    fn log_in(&mut self, user: Option<&Arc<str>>) {
        assert!(user.is_none_or(|user| **user == *"ann"));
    }
}

fn session() -> MemorySession<Picky> {
    static RECEIPT: OnceLock<Receipt> = OnceLock::new();
    let limits = Limits {
        hostname: "mx.test".into(),
        max_message_size: MAX_SIZE as u64,
        max_recipients: MAX_RECIPIENTS,
        offers_expn: false,
        bare_newline: BareNewline::Reject,
        is_submission: false,
        origin: None,
        offers_start_tls: false,
        auth: AuthRule::Optional,
        auth_without_tls: true,
        max_login_failures: MAX_LOGIN_FAILURES,
    };
    let mut session = MemorySession::new(limits, Picky, *RECEIPT.get_or_init(memory::receipt));
    session.take_replies();
    session
}

/// What the session has of the model's state.
fn check_state(session: &MemorySession<Picky>, model: &Model) {
    let (is_over, session) = (session.is_closed(), &session.session);
    assert_eq!(is_over, model.is_over);
    assert_eq!(session.introduction().is_some(), model.has_greeted);
    let transaction = session.transaction();
    let sender = transaction.map(|transaction| transaction.reverse_path.to_string());
    assert_eq!(sender, model.sender.map(|sender| format!("<{sender}>")));
    let recipients = transaction.map(|transaction| transaction.recipients.as_slice());
    let recipients = recipients.unwrap_or_default().iter().map(|to| to.mailbox.to_string());
    assert_eq!(recipients.collect::<Vec<_>>(), model.recipients);
    assert_eq!(session.user().is_some(), model.is_logged_in);
}

proptest! {
    #[test]
    fn a_random_session_agrees_with_the_model(
        says in prop::collection::vec(say(), 1..250),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..40),
    ) {
        let (mut model, mut stepwise) = (Model::default(), session());
        let (mut wire, mut replies) = (String::new(), Vec::new());
        for say in &says {
            let before = wire.len();
            let codes = model.play(say, &mut wire);
            stepwise.feed(&wire.as_bytes()[before..]);
            let answered = stepwise.take_replies();
            let answered_codes: Vec<_> = answered.iter().map(Reply::code).collect();
            prop_assert_eq!(answered_codes, codes, "{:?}", say);
            check_state(&stepwise, &model);
            replies.extend(answered);
            if model.is_over {
                break;
            }
        }

        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(wire.len())).collect();
        cuts.extend([0, wire.len()]);
        cuts.sort_unstable();
        let mut cut_up = session();
        for cut in cuts.windows(2) {
            cut_up.feed(&wire.as_bytes()[cut[0]..cut[1]]);
        }
        prop_assert_eq!(cut_up.take_replies(), replies);
        check_state(&cut_up, &model);
    }
}

/// Each way in which a transaction ends, tried with recipients in it: none of them survives.
#[test]
fn no_recipient_outlives_its_transaction() {
    let open = "HELO c.test\r\nMAIL FROM:<>\r\nRCPT TO:<a@x>\r\nRCPT TO:<b@x>\r\n";
    for (end, last_code) in [
        ("RSET\r\n".to_owned(), 250),
        ("HELO c.test\r\n".to_owned(), 250),
        ("EHLO c.test\r\n".to_owned(), 250),
        (format!("DATA\r\n{GOOD}"), 250),
        (format!("DATA\r\n{BARE_LF}"), 550),
        (format!("DATA\r\n{BARE_CR}"), 550),
        (format!("DATA\r\n{LARGE}"), 552),
    ] {
        let mut session = session();
        session.feed(open.as_bytes());
        session.feed(end.as_bytes());
        assert_eq!(session.take_replies().last().unwrap().code(), last_code, "{end:?}");
        assert_eq!(session.session.transaction(), None, "{end:?}");
        session.feed(b"DATA\r\nMAIL FROM:<zoe@far.test>\r\nDATA\r\n");
        let codes: Vec<_> = session.take_replies().iter().map(Reply::code).collect();
        assert_eq!(codes, [503, 250, 554], "{end:?}");
    }
}
