//! AUTH line by line, against a policy that knows one account and one mechanism of every kind.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;

use super::LoginStep;
use crate::config::settings::{AuthRule, BareNewline};
use crate::mail::address::{ForwardPath, Mailbox, ReversePath};
use crate::mail::status::Status;
use crate::smtp::command::EtrnNode;
use crate::smtp::line::{MAX_COMMAND_LINE, MAX_LOGIN_LINE};
use crate::smtp::reply::{MAX_CHALLENGE, Reply};
use crate::smtp::sasl::Mechanism;
use crate::smtp::server::{Action, Limits, Policy, Session};

/// PLAIN takes `ann`, LOGIN asks once, CRAM-MD5 (which begins itself) asks as much as
/// `challenge` has, and EXTERNAL cannot tell.
struct Ann {
    challenge: usize,
    cancelled: usize,
    /// What came, decoded.
    initial: Option<Vec<u8>>,
    responses: Vec<Vec<u8>>,
}

fn check(response: &[u8]) -> LoginStep {
    match response {
        b"ann" => LoginStep::Accepted(Arc::from("ann")),
        _ => LoginStep::Refused(Reply::new(535, Status::new(5, 7, 8), "Wrong")),
    }
}

impl Policy for Ann {
    fn sender(&mut self, path: ReversePath, _: Option<u64>) -> Result<ReversePath, Reply> {
        Ok(path)
    }

    fn recipient(&mut self, forward_path: &ForwardPath) -> Result<Mailbox, Reply> {
        match forward_path {
            ForwardPath::Mailbox(mailbox) => Ok(mailbox.clone()),
            ForwardPath::Postmaster => Err(Reply::new(550, Status::new(5, 1, 1), "No")),
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
        vec![Mechanism::External, Mechanism::CramMd5, Mechanism::Plain, Mechanism::Login]
    }

    fn begin_login(&mut self, mechanism: Mechanism, initial: Option<&[u8]>) -> LoginStep {
        self.initial = initial.map(<[u8]>::to_vec);
        match (mechanism, initial) {
            (Mechanism::Plain, Some(response)) => check(response),
            (Mechanism::Plain, None) => LoginStep::Challenge(Vec::new()),
            (Mechanism::Login, _) => LoginStep::Challenge(b"Username:".to_vec()),
            (Mechanism::CramMd5, _) => LoginStep::Challenge(vec![b'?'; self.challenge]),
            _ => LoginStep::Refused(Reply::new(454, Status::new(4, 7, 0), "Not now")),
        }
    }

    fn continue_login(&mut self, response: &[u8]) -> LoginStep {
        self.responses.push(response.to_vec());
        check(response)
    }

    fn cancel_login(&mut self) {
        self.cancelled += 1;
    }
}

/// A session with the client's octets that are not used yet.
struct Played {
    session: Session,
    policy: Ann,
    input: Vec<u8>,
    is_closed: bool,
}

impl Played {
    fn new(auth: AuthRule, auth_without_tls: bool) -> Self {
        let limits = Limits {
            hostname: "mx.test".into(),
            max_message_size: 1000,
            max_recipients: 10,
            offers_expn: false,
            bare_newline: BareNewline::Reject,
            is_submission: false,
            origin: None,
            offers_start_tls: true,
            auth,
            auth_without_tls,
            max_login_failures: 3,
        };
        let policy = Ann { challenge: 8, cancelled: 0, initial: None, responses: Vec::new() };
        Self { session: Session::new(limits), policy, input: Vec::new(), is_closed: false }
    }

    /// One that has said EHLO and may log in.
    fn open() -> Self {
        let mut played = Self::new(AuthRule::Optional, true);
        assert_eq!(played.codes("EHLO c.test\r\n"), [250]);
        played
    }

    fn feed(&mut self, octets: &[u8]) -> Vec<Reply> {
        self.input.extend_from_slice(octets);
        let mut replies = Vec::new();
        while !self.is_closed {
            let (reply, used) = match self.session.next(&self.input, &mut self.policy) {
                Action::Read => break,
                Action::Reply(reply, used) => (reply, used),
                Action::StartTls(reply, used) => {
                    self.session.secured();
                    (reply, used)
                }
                Action::Close(reply) => {
                    self.is_closed = true;
                    (reply, 0)
                }
                Action::ReadData(..) => panic!("no data here"),
            };
            self.input.drain(..used);
            replies.push(reply);
        }
        replies
    }

    fn codes(&mut self, lines: &str) -> Vec<u16> {
        self.feed(lines.as_bytes()).iter().map(Reply::code).collect()
    }

    /// The reply to one line.
    fn say(&mut self, line: &str) -> String {
        let replies = self.feed(format!("{line}\r\n").as_bytes());
        assert_eq!(replies.len(), 1, "{line}");
        replies[0].to_string()
    }

    fn user(&self) -> Option<&str> {
        self.session.user().map(|user| &**user)
    }
}

#[test]
fn a_login_takes_one_line_or_several() {
    for lines in [
        &["AUTH PLAIN YW5u"][..],
        &["auth plain YW5u"],
        &["AUTH PLAIN", "YW5u"],
        &["AUTH LOGIN", "YW5u"],
        &["AUTH LOGIN YW5u", "YW5u"],
        &["AUTH CRAM-MD5", "YW5u"],
    ] {
        let mut played = Played::open();
        let (last, first) = lines.split_last().unwrap();
        for line in first {
            assert!(played.say(line).starts_with("334 "), "{line}");
            assert_eq!(played.user(), None);
        }
        assert_eq!(played.say(last), "235 2.7.0 Authentication succeeded", "{lines:?}");
        assert_eq!(played.user(), Some("ann"));
        // All in one piece is the same.
        let mut played = Played::open();
        played.feed(format!("{}\r\nNOOP\r\n", lines.join("\r\n")).as_bytes());
        assert_eq!(played.user(), Some("ann"), "{lines:?}");
    }
}

#[test]
fn a_challenge_is_base64_and_nothing_else() {
    let mut played = Played::open();
    let mut wire = Vec::new();
    played.feed(b"AUTH PLAIN\r\n")[0].write_to(&mut wire);
    assert_eq!(wire, b"334 \r\n");
    assert_eq!(played.say("*"), "501 5.7.0 Authentication cancelled");
    assert_eq!(played.say("AUTH LOGIN"), "334 VXNlcm5hbWU6");
}

#[test]
fn a_challenge_is_sent_whole_or_not_at_all() {
    let mut played = Played::open();
    for octets in [8, 512, MAX_CHALLENGE / 4 * 3] {
        played.policy.challenge = octets;
        let mut wire = Vec::new();
        played.feed(b"AUTH CRAM-MD5\r\n")[0].write_to(&mut wire);
        let expected = format!("334 {}\r\n", STANDARD.encode(vec![b'?'; octets]));
        assert_eq!(String::from_utf8(wire).unwrap(), expected, "{octets}");
        assert!(played.say("*").starts_with("501 "));
    }
    let cancelled = played.policy.cancelled;
    played.policy.challenge = MAX_CHALLENGE / 4 * 3 + 1;
    assert!(played.say("AUTH CRAM-MD5").starts_with("454 4.7.0 "));
    assert_eq!(played.policy.cancelled, cancelled + 1);
    assert!(played.say("NOOP").starts_with("250 "));
}

#[test]
fn an_initial_response_may_be_empty() {
    let mut played = Played::open();
    played.say("AUTH LOGIN =");
    assert_eq!(played.policy.initial.take(), Some(Vec::new()));
    played.say("*");
    played.say("AUTH LOGIN");
    assert_eq!(played.policy.initial, None);
    // As a later response it is an empty line, and `=` is no base64.
    assert!(played.say("").starts_with("535 "));
    assert_eq!(played.policy.responses, [b""]);
    played.say("AUTH LOGIN");
    assert!(played.say("=").starts_with("501 5.5.2 "));
}

#[test]
fn base64_is_taken_to_the_letter() {
    for bad in [
        "YW5u=", "YW5", "YW5u\t", " YW5u", "YW5u ", "=AAA", "AAA=BBB", "AA=A", "Y-5u", "YW5v\0",
        "YQ", "YR==", "YW5u\r", "\u{e9}", "**", "QUIT",
    ] {
        let mut played = Played::open();
        played.say("AUTH LOGIN");
        let expected = if bad == "QUIT" { "535 " } else { "501 5.5.2 This is no base64" };
        assert!(played.say(bad).starts_with(expected), "{bad:?}");
        assert_eq!(played.policy.cancelled, usize::from(bad != "QUIT"), "{bad:?}");
        assert!(played.say("NOOP").starts_with("250 "), "{bad:?}");
        assert_eq!(played.user(), None, "{bad:?}");
    }
    for bad in ["YW5u=", "YQ", "*", "==", "YW5u YW5u"] {
        let mut played = Played::open();
        assert!(played.say(&format!("AUTH PLAIN {bad}")).starts_with("501 "), "{bad}");
        assert_eq!(played.policy.initial, None, "{bad}");
    }
    let mut played = Played::open();
    assert!(played.say("AUTH PLAIN YW\x005u").starts_with("500 "));
    assert!(played.say("AUTH").starts_with("501 "));
}

#[test]
fn auth_has_its_time() {
    let mut played = Played::new(AuthRule::Optional, true);
    assert_eq!(played.say("AUTH PLAIN YW5u"), "503 5.5.1 Send EHLO or HELO first");
    // An old device says HELO.
    played.say("HELO c.test");
    played.say("MAIL FROM:<>");
    assert!(played.say("AUTH PLAIN YW5u").starts_with("503 5.5.1 Not within a transaction"));
    played.say("RSET");
    assert!(played.say("AUTH PLAIN YW5u").starts_with("235 "));
    assert_eq!(played.say("AUTH PLAIN YW5u"), "503 5.5.1 You are logged in already");
    // Neither RSET nor EHLO ends it.
    played.say("RSET");
    assert!(!played.say("EHLO c.test").contains("AUTH"));
    assert_eq!(played.user(), Some("ann"));
}

#[test]
fn a_mechanism_that_is_not_offered_is_504() {
    let mut played = Played::open();
    for mechanism in ["SCRAM-SHA-256", "XOAUTH2", "GSSAPI", "PLAINER"] {
        let expected = "504 5.5.4 This mechanism is not offered here";
        assert_eq!(played.say(&format!("AUTH {mechanism} YW5u")), expected);
    }
    assert_eq!(played.say("AUTH EXTERNAL ="), "454 4.7.0 Not now");
    assert_eq!(played.user(), None);
}

#[test]
fn auth_is_offered_where_it_can_be_used() {
    let line = "AUTH EXTERNAL CRAM-MD5 PLAIN LOGIN";
    for (rule, without_tls, is_offered) in [
        (AuthRule::None, true, [false, false]),
        (AuthRule::Optional, false, [false, true]),
        (AuthRule::Optional, true, [true, true]),
        (AuthRule::Required, false, [false, true]),
    ] {
        let mut played = Played::new(rule, without_tls);
        let case = format!("{rule:?} {without_tls}");
        assert_eq!(played.say("EHLO c.test").contains(line), is_offered[0], "{case}");
        let expected = match (rule, without_tls) {
            (AuthRule::None, _) => "502 5.5.1 ",
            (_, false) => "538 5.7.11 ",
            (_, true) => "235 ",
        };
        assert!(played.say("AUTH PLAIN YW5u").starts_with(expected), "{case}");
        assert!(played.say("STARTTLS").starts_with("220 "), "{case}");
        // What was learnt in the clear is forgotten.
        assert_eq!(played.user(), None, "{case}");
        assert!(played.say("AUTH PLAIN YW5u").starts_with("50"), "{case}");
        assert_eq!(played.say("EHLO c.test").contains(line), is_offered[1], "{case}");
    }
}

#[test]
fn where_a_login_is_required_nothing_goes_without() {
    let mut played = Played::new(AuthRule::Required, false);
    played.say("EHLO c.test");
    for command in ["MAIL FROM:<>", "VRFY ann", "EXPN staff", "ETRN far.test"] {
        assert_eq!(played.say(command), "530 5.7.0 Say STARTTLS and log in first", "{command}");
    }
    assert_eq!(played.codes("RCPT TO:<a@x>\r\nDATA\r\nNOOP\r\nHELP\r\n"), [503, 503, 250, 214]);
    played.say("STARTTLS");
    played.say("EHLO c.test");
    assert_eq!(played.say("MAIL FROM:<>"), "530 5.7.0 Authentication required");
    played.say("AUTH PLAIN Ym9i");
    assert_eq!(played.say("MAIL FROM:<>"), "530 5.7.0 Authentication required");
    played.say("AUTH PLAIN YW5u");
    assert_eq!(played.codes("MAIL FROM:<>\r\nRCPT TO:<a@x>\r\n"), [250, 250]);
}

#[test]
fn too_many_wrong_passwords_end_the_session() {
    let mut played = Played::open();
    // A cancelled one, nonsense and one that nobody could check are not wrong.
    let harmless = "AUTH LOGIN\r\n*\r\nAUTH PLAIN !\r\nAUTH EXTERNAL =\r\n";
    assert_eq!(played.codes(harmless), [334, 501, 501, 454]);
    assert_eq!(played.codes(harmless), [334, 501, 501, 454]);
    assert_eq!(played.codes("AUTH PLAIN Ym9i\r\nAUTH LOGIN\r\nYm9i\r\n"), [535, 334, 535]);
    // STARTTLS does not make them good.
    assert_eq!(played.codes("STARTTLS\r\n"), [220]);
    played.codes("EHLO c.test\r\n");
    assert!(!played.is_closed);
    assert_eq!(played.codes("AUTH PLAIN Ym9i\r\nAUTH PLAIN YW5u\r\n"), [535]);
    assert!(played.is_closed);
    assert_eq!(played.user(), None);
}

#[test]
fn nonsense_without_end_ends_the_session() {
    let mut played = Played::open();
    for _ in 0..130 {
        played.feed(b"AUTH LOGIN\r\n!\r\n");
    }
    assert!(played.is_closed);
}

/// RFC 4954 §4: 12288 octets are enough, one more is a reason to leave.
#[test]
fn a_response_has_an_end() {
    let longest = "A".repeat(MAX_LOGIN_LINE - 2);
    let mut played = Played::open();
    played.say("AUTH LOGIN");
    assert!(played.say(&longest).starts_with("535 "));
    assert_eq!(played.policy.responses[0].len(), 9216);
    played.say("AUTH LOGIN");
    assert_eq!(played.say(&format!("{longest}A")), "500 5.5.6 The response is too long");
    assert!(played.is_closed);

    // A mebibyte is not read to its end.
    let mut played = Played::open();
    played.say("AUTH LOGIN");
    for _ in 0..12 {
        assert_eq!(played.codes(&"A".repeat(1024)), [0; 0]);
    }
    assert_eq!(played.codes("AA"), [500]);
    // In the line of AUTH itself there is less room.
    let mut played = Played::open();
    let initial = "A".repeat(MAX_COMMAND_LINE);
    assert_eq!(played.say(&format!("AUTH LOGIN {initial}")), "500 5.5.2 Line too long");
    assert!(played.is_closed);
}

proptest! {
    #[test]
    fn no_octets_log_in_but_the_right_ones(
        lines in prop::collection::vec(
            prop_oneof![
                prop::collection::vec(any::<u8>(), 0..40),
                "(AUTH (PLAIN|LOGIN|CRAM-MD5)( [A-Za-z0-9+/=*]{0,9})?|[A-Za-z0-9+/=*]{0,9})"
                    .prop_map(String::into_bytes),
            ],
            1..20,
        ),
    ) {
        let mut played = Played::open();
        for line in lines {
            let said = [&line[..], b"\r\n"].concat();
            played.feed(&said);
            if said.windows(4).any(|octets| octets == b"YW5u") {
                break;
            }
            prop_assert_eq!(played.user(), None, "{:?}", line);
        }
    }
}
