//! The server's side of AUTH (RFC 4954 §4): when it may come, and how its lines are framed. What
//! they mean is the mechanism's business, and who may log in the policy's.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{BAD_SEQUENCE, IN_TRANSACTION, Policy, SEND_HELO, Session};
use crate::config::settings::AuthRule;
use crate::mail::status::Status;
use crate::smtp::command::CommandError;
use crate::smtp::reply::{MAX_CHALLENGE, Reply};
use crate::smtp::sasl::Mechanism;
use crate::smtp::sasl::server::Refusal;

const ACCEPTED: Reply = Reply::new(235, Status::new(2, 7, 0), "Authentication succeeded");
const LOGGED_IN_ALREADY: Reply = Reply::new(503, BAD_SEQUENCE, "You are logged in already");
const UNKNOWN_MECHANISM: Reply =
    Reply::new(504, Status::new(5, 5, 4), "This mechanism is not offered here");
const NOT_IN_THE_CLEAR: Reply =
    Reply::new(538, Status::new(5, 7, 11), "Encryption required; say STARTTLS first");
const NOT_BASE64: Reply = Reply::new(501, Status::new(5, 5, 2), "This is no base64");
const CANCELLED: Reply = Reply::new(501, Status::new(5, 7, 0), "Authentication cancelled");
const WRONG: Reply = Reply::new(535, Status::new(5, 7, 8), "User name or password is wrong");
const NONSENSE: Reply =
    Reply::new(501, Status::new(5, 5, 2), "This response is none of the mechanism");
const SERVER_FIRST: Reply =
    Reply::new(501, Status::new(5, 7, 0), "This mechanism has no initial response");
const UNAVAILABLE: Reply =
    Reply::new(454, Status::new(4, 7, 0), "Accounts cannot be looked up now; try again later");
const CHALLENGE_TOO_LONG: Reply = Reply::new(
    454,
    Status::new(4, 7, 0),
    "The challenge is longer than a line may be; try another mechanism",
);
const AUTH_REQUIRED: Reply = Reply::new(530, Status::new(5, 7, 0), "Authentication required");
const TLS_REQUIRED: Reply = Reply::new(530, Status::new(5, 7, 0), "Say STARTTLS and log in first");
/// The answer to a response that has no end.
pub(super) const RESPONSE_TOO_LONG: Reply =
    Reply::new(500, Status::new(5, 5, 6), "The response is too long");

/// What comes of a step of a login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoginStep {
    /// Send this, and go on with the client's response.
    Challenge(Vec<u8>),
    /// It is this user.
    Accepted(Arc<str>),
    /// The reply that refuses it: 535 for a wrong name or password, which counts against the
    /// client, 454 where nobody can tell now, 501 for a response that makes no sense.
    Refused(Reply),
}

/// The reply by which a login is refused (RFC 4954 §6).
impl From<Refusal> for Reply {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Credentials => WRONG,
            Refusal::Malformed => NONSENSE,
            Refusal::ServerFirst => SERVER_FIRST,
            Refusal::NotOffered => UNKNOWN_MECHANISM,
            Refusal::Unavailable => UNAVAILABLE,
        }
    }
}

impl Session {
    /// The line of EHLO that offers AUTH, where it can be used.
    pub(super) fn auth_keyword(&self, policy: &mut dyn Policy) -> String {
        if self.limits.auth == AuthRule::None || self.user.is_some() || !self.takes_passwords() {
            return String::new();
        }
        let names: Vec<_> = policy.mechanisms().into_iter().map(Mechanism::name).collect();
        if names.is_empty() { String::new() } else { format!("\nAUTH {}", names.join(" ")) }
    }

    /// Whether AUTH can be used on this connection, or was: MAIL may have `AUTH=` then, from
    /// whomever (RFC 4954 §5).
    pub(super) fn offers_auth(&self, policy: &mut dyn Policy) -> bool {
        self.user.is_some() || !self.auth_keyword(policy).is_empty()
    }

    /// The answer to AUTH.
    pub(super) fn auth(
        &mut self,
        mechanism: &str,
        initial: Option<&str>,
        policy: &mut dyn Policy,
    ) -> Reply {
        if let Err(refusal) = self.may_log_in() {
            return refusal;
        }
        let known = Mechanism::named(mechanism);
        let Some(mechanism) = known.filter(|known| policy.mechanisms().contains(known)) else {
            return UNKNOWN_MECHANISM;
        };
        // RFC 4954 §4: `=` is an initial response without octets.
        let initial = match initial {
            Some("=") => Some(Vec::new()),
            Some(text) => match STANDARD.decode(text) {
                Ok(octets) => Some(octets),
                Err(_) => return NOT_BASE64,
            },
            None => None,
        };
        let step = policy.begin_login(mechanism, initial.as_deref());
        self.take(step, policy)
    }

    /// The answer to a response.
    pub(super) fn respond(&mut self, line: &[u8], policy: &mut dyn Policy) -> Reply {
        self.is_in_login = false;
        let response = match line {
            b"*" => Err(CANCELLED),
            _ => STANDARD.decode(line).map_err(|_| NOT_BASE64),
        };
        match response {
            Ok(response) => {
                let step = policy.continue_login(&response);
                self.take(step, policy)
            }
            Err(refusal) => {
                policy.cancel_login();
                refusal
            }
        }
    }

    /// The answer to what needs a login that was not there.
    pub(super) fn log_in_first(&self) -> Reply {
        if self.takes_passwords() { AUTH_REQUIRED } else { TLS_REQUIRED }
    }

    fn may_log_in(&self) -> Result<(), Reply> {
        match self {
            _ if self.limits.auth == AuthRule::None => Err(CommandError::NotImplemented.reply()),
            Self { introduction: None, .. } => Err(SEND_HELO),
            Self { user: Some(_), .. } => Err(LOGGED_IN_ALREADY),
            Self { transaction: Some(_), .. } => Err(IN_TRANSACTION),
            _ if !self.takes_passwords() => Err(NOT_IN_THE_CLEAR),
            _ => Ok(()),
        }
    }

    const fn takes_passwords(&self) -> bool {
        self.is_secured || self.limits.auth_without_tls
    }

    fn take(&mut self, step: LoginStep, policy: &mut dyn Policy) -> Reply {
        match step {
            LoginStep::Challenge(challenge) => {
                let challenge = STANDARD.encode(challenge);
                // Half a challenge would be another one.
                if challenge.len() > MAX_CHALLENGE {
                    policy.cancel_login();
                    return CHALLENGE_TOO_LONG;
                }
                self.is_in_login = true;
                Reply::challenge(challenge)
            }
            LoginStep::Accepted(user) => {
                self.user = Some(user);
                ACCEPTED
            }
            LoginStep::Refused(reply) => {
                if reply.code() == 535 {
                    self.login_failures += 1;
                }
                reply
            }
        }
    }
}

#[cfg(test)]
mod tests;
