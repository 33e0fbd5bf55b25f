//! The log lines about clients that are turned away, in a form that stays: the event, the client's
//! address, then the rest, of which what the client chose is in quotes. fail2ban and its like read
//! them (LOG in mailwren(8)).

use std::fmt;

use log::Level;

use crate::config::settings::Listener;
use crate::mail::status::Status;
use crate::receive::logins;
use crate::receive::peer::Peer;
use crate::receive::policy;
use crate::smtp::reply::Reply;

/// Why a client was refused something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    /// It wants to send to other places, and may not.
    Relay,
    /// A login failed, whose own line says more.
    Login,
    /// Too many logins of it have failed for another.
    LoginPause,
    /// It has not logged in, or has no TLS, where that is needed.
    LoginNeeded,
    /// It has had too many refusals.
    TooManyErrors,
    /// The command may not come now, as one before EHLO.
    Order,
    /// The line is none of SMTP, or no command of ours.
    Syntax,
    /// Nobody has this address.
    UnknownUser,
    /// It may not send under this address.
    Sender,
    /// It may try again later.
    Later,
    /// Anything else.
    Other,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Relay => "relay",
            Self::Login => "login",
            Self::LoginPause => "login-pause",
            Self::LoginNeeded => "login-needed",
            Self::TooManyErrors => "too-many-errors",
            Self::Order => "order",
            Self::Syntax => "syntax",
            Self::UnknownUser => "unknown-user",
            Self::Sender => "sender",
            Self::Later => "later",
            Self::Other => "other",
        })
    }
}

/// What a reply that refuses is for.
fn reason(reply: &Reply) -> Reason {
    // Other replies have their code, too.
    if [policy::NO_RELAY, policy::NO_RELAY_YET].contains(reply) {
        return Reason::Relay;
    }
    if *reply == logins::TOO_MANY_FAILURES {
        return Reason::LoginPause;
    }
    let is = |status| reply.status() == Some(status);
    match reply.code() {
        421 if is(Status::new(4, 7, 0)) => Reason::TooManyErrors,
        503 => Reason::Order,
        500..=504 | 555 => Reason::Syntax,
        530 | 538 => Reason::LoginNeeded,
        535 => Reason::Login,
        550 if is(Status::new(5, 1, 1)) => Reason::UnknownUser,
        550 | 553 if is(Status::new(5, 7, 1)) => Reason::Sender,
        code if code < 500 => Reason::Later,
        _ => Reason::Other,
    }
}

/// Notes a reply that refuses something.
pub(super) fn note(peer: &Peer, listener: &Listener, reply: &Reply) {
    if reply.is_positive() {
        return;
    }
    // What is wrong with this system itself is said where it is found; with a full disk not
    // of every message that is refused.
    let is_ours = |status: Status| status.is_temporary() && status.is_about_mail_system();
    let level = match reply.status().is_some_and(is_ours) {
        true => Level::Debug,
        false => Level::Info,
    };
    let (reason, text) = (reason(reply), reply.to_string());
    log::log!(
        level,
        "refused: client={peer} reason={reason} listener={} reply={text:?}",
        listener.name
    );
}

/// Notes a connection that does not become a session.
pub(super) fn note_turned_away(peer: &Peer, listener: &Listener, level: Level, reason: &str) {
    log::log!(level, "turned away: client={peer} reason={reason} listener={}", listener.name);
}

/// Notes that there is no TLS with the client.
pub(super) fn note_handshake(peer: &Peer, listener: &Listener, failure: &dyn fmt::Display) {
    let text = failure.to_string();
    log::info!("TLS handshake failed: client={peer} listener={} error={text:?}", listener.name);
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANUAL: &str = include_str!("../../etc/man/mailwren.8");

    #[test]
    fn each_reply_has_its_reason() {
        let reply = |code, (class, subject, detail)| {
            Reply::new(code, Status::new(class, subject, detail), "No")
        };
        for (reply, expected) in [
            (policy::NO_RELAY, "relay"),
            (policy::NO_RELAY_YET, "relay"),
            (logins::TOO_MANY_FAILURES, "login-pause"),
            (reply(535, (5, 7, 8)), "login"),
            (reply(530, (5, 7, 0)), "login-needed"),
            (reply(538, (5, 7, 11)), "login-needed"),
            (reply(421, (4, 7, 0)), "too-many-errors"),
            (reply(421, (4, 3, 2)), "later"),
            (reply(452, (4, 3, 1)), "later"),
            (reply(503, (5, 5, 1)), "order"),
            (reply(500, (5, 5, 2)), "syntax"),
            (reply(502, (5, 5, 1)), "syntax"),
            (reply(555, (5, 5, 4)), "syntax"),
            (reply(550, (5, 1, 1)), "unknown-user"),
            // The code of a refused relay, and yet none.
            (reply(550, (5, 7, 1)), "sender"),
            (reply(553, (5, 7, 1)), "sender"),
            (reply(554, (5, 6, 0)), "other"),
        ] {
            assert_eq!(reason(&reply).to_string(), expected, "{reply}");
            assert!(MANUAL.contains(&format!("\n.It Li {expected}\n")), "{expected}");
        }
    }
}
