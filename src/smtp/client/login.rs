//! The client's side of AUTH (RFC 4954 §4): which mechanism is tried, and how the lines are
//! framed. What they mean is the mechanism's business; whose name and password it is, and
//! whether they may go over this connection, is the driver's.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{Action, Awaited, Client, Ending, Phase};
use crate::smtp::reply_parser::PeerReply;
use crate::smtp::sasl::Mechanism;
use crate::smtp::sasl::client::{ClientError, ClientExchange, choose};

/// The most challenges of one login. SCRAM has two, and nothing has more than three.
const MAX_CHALLENGES: usize = 20;
/// The most characters that are told of what a server offers.
const MAX_OFFER: usize = 200;

/// Why a client that has to log in could not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoginError {
    /// The server does not offer AUTH.
    NotOffered,
    /// It offers none of the mechanisms that may be used.
    NoMechanism {
        /// What it offers, as it stands in its answer to EHLO; printable and bounded.
        offered: String,
    },
    /// The connection is not encrypted, and the password must not go over it.
    InTheClear,
    /// The server cannot tell now (4yz).
    NotNow(PeerReply),
    /// The server refuses it (5yz).
    Refused {
        /// Its last word.
        reply: PeerReply,
        /// What it said before in the words of the mechanism, as of a token (RFC 7628 §3.2.2);
        /// printable, often empty.
        words: String,
    },
    /// What the server said is none of the mechanism, or what we have cannot be said in it.
    Impossible(ClientError),
    /// A challenge that is no base64.
    NotBase64,
    /// There is no end to the challenges.
    Endless,
}

/// A predicate behind the name of the host.
impl fmt::Display for LoginError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotOffered => f.write_str("does not offer AUTH, and mail goes with a login only"),
            Self::NoMechanism { offered } => {
                write!(f, "offers no way to log in that may be used, but {offered}")
            }
            Self::InTheClear => {
                f.write_str("got no password, since the connection is not encrypted")
            }
            Self::NotNow(reply) => write!(f, "cannot tell now whether the login is good: {reply}"),
            Self::Refused { reply, words } if words.is_empty() => {
                write!(f, "refused the login: {reply}")
            }
            Self::Refused { reply, words } => write!(f, "refused the login: {reply} ({words})"),
            Self::Impossible(error) => write!(f, "could not be logged in to: {error}"),
            Self::NotBase64 => f.write_str("asked something in AUTH that is no base64"),
            Self::Endless => f.write_str("asked too much in AUTH"),
        }
    }
}

/// What a server offers behind AUTH in its answer to EHLO.
#[derive(Debug)]
pub(super) struct Offer(Vec<String>);

impl Offer {
    /// Reads `AUTH PLAIN LOGIN`, and `AUTH=PLAIN LOGIN` as old servers have it. `None` where
    /// there is no such line.
    pub(super) fn in_reply(reply: &PeerReply) -> Option<Self> {
        let mut names: Option<Vec<String>> = None;
        for line in reply.lines().iter().skip(1) {
            let Some((keyword, offered)) = line.split_at_checked(4) else { continue };
            let is_end = offered.is_empty() || offered.starts_with([' ', '=']);
            if keyword.eq_ignore_ascii_case("AUTH") && is_end {
                let names = names.get_or_insert_default();
                for name in offered.split([' ', '=']).filter(|name| !name.is_empty()) {
                    if !names.iter().any(|known| known.eq_ignore_ascii_case(name)) {
                        names.push(name.to_owned());
                    }
                }
            }
        }
        names.map(Self)
    }

    /// The mechanisms that we know.
    fn known(&self) -> Vec<Mechanism> {
        self.0.iter().filter_map(|name| Mechanism::named(name)).collect()
    }
}

impl fmt::Display for Offer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.0.join(" ");
        match names.get(..MAX_OFFER) {
            Some(start) => write!(f, "{start}..."),
            None if names.is_empty() => f.write_str("nothing"),
            None => f.write_str(&names),
        }
    }
}

/// A line of a login. `Debug` does not tell it.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Line(String);

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Line(..)")
    }
}

/// A login that has to come before any mail.
#[derive(Debug)]
pub(super) struct Login {
    /// What may be tried; what the server turned out not to know is taken out.
    allowed: Vec<Mechanism>,
    current: Option<Current>,
}

/// The exchange under way.
#[derive(Debug)]
struct Current {
    mechanism: Mechanism,
    exchange: ClientExchange,
    challenges: usize,
    /// Why we said `*`.
    given_up: Option<LoginError>,
}

impl Client {
    /// The same session, which logs in by the best of these mechanisms that the server offers,
    /// and sends no mail unless that went well.
    pub fn with_login(self, mechanisms: &[Mechanism]) -> Self {
        Self { login: Some(Login { allowed: mechanisms.to_vec(), current: None }), ..self }
    }

    /// Begins the login that [`Action::LogIn`] asked for, or ends the session where it must not
    /// be.
    pub fn log_in(&mut self, exchange: Result<ClientExchange, LoginError>) {
        let Phase::LogIn(mechanism) = self.phase else { return };
        let mut exchange = match exchange {
            Ok(exchange) => exchange,
            Err(error) => return self.close(Ending::Login(error)),
        };
        let mut line = format!("AUTH {mechanism}");
        if let Some(initial) = exchange.initial_response() {
            line.push(' ');
            // RFC 4954 §4: an empty initial response is an equals sign.
            line.push_str(if initial.is_empty() { "=" } else { "" });
            line.push_str(&STANDARD.encode(initial));
        }
        if let Some(login) = &mut self.login {
            login.current = Some(Current { mechanism, exchange, challenges: 0, given_up: None });
        }
        self.say(line);
    }

    /// Goes on after an answer to EHLO or HELO, where nothing else has to come first.
    pub(super) fn on_greeted(&mut self, offer: Option<Offer>) {
        self.offer = offer;
        match self.login {
            Some(_) => self.choose_mechanism(None),
            None => self.phase = Phase::Ready,
        }
    }

    /// Takes the best mechanism that is left. `refusal` is what the server said to the one
    /// before.
    fn choose_mechanism(&mut self, refusal: Option<LoginError>) {
        let Some(login) = &self.login else { return };
        let Some(offer) = &self.offer else {
            return self.close(Ending::Login(LoginError::NotOffered));
        };
        match choose(&offer.known(), &login.allowed) {
            Some(mechanism) => self.phase = Phase::LogIn(mechanism),
            None => {
                let offered = offer.to_string();
                let error = refusal.unwrap_or(LoginError::NoMechanism { offered });
                self.close(Ending::Login(error));
            }
        }
    }

    fn say(&mut self, mut line: String) {
        line.push_str("\r\n");
        self.phase = Phase::Say(Line(line));
    }

    /// Sends the next line of the login.
    pub(super) fn send_line(&mut self, line: &Line) -> Action {
        self.send(Awaited::Auth, &line.0)
    }

    /// Takes the reply to AUTH or to a response.
    pub(super) fn on_auth(&mut self, reply: PeerReply) {
        let Some(current) = self.login.as_mut().and_then(|login| login.current.as_mut()) else {
            return;
        };
        if let Some(error) = current.given_up.take() {
            // RFC 4954 §4 wants 501 here; whatever it is, the login is over.
            let error = match error {
                // RFC 5802 §7: with `e=` the server refuses name or password.
                LoginError::Impossible(ClientError::Refused(words)) => {
                    LoginError::Refused { reply, words }
                }
                error => error,
            };
            return self.close(Ending::Login(error));
        }
        match reply.code() {
            334 => self.on_challenge(&reply),
            300..=399 => self.close(Ending::OutOfStep(Awaited::Auth, reply)),
            200..=299 => match current.exchange.accept() {
                Ok(()) => {
                    (self.login, self.is_logged_in) = (None, true);
                    self.phase = Phase::Ready;
                }
                Err(error) => self.close(Ending::Login(LoginError::Impossible(error))),
            },
            400..=499 => self.close(Ending::Login(LoginError::NotNow(reply))),
            _ => self.on_refused_login(reply),
        }
    }

    fn on_refused_login(&mut self, reply: PeerReply) {
        let Some(login) = &mut self.login else { return };
        let Some(current) = login.current.take() else { return };
        // RFC 4954 §4 and §6: this mechanism is unknown, or too weak for that user. All else is
        // about the name and the password, and those are not tried again; so is a 534 where the
        // password itself was told, by which Gmail wants another one.
        let tells_password = matches!(current.mechanism, Mechanism::Plain | Mechanism::Login);
        let is_of_mechanism = match reply.code() {
            504 => true,
            534 => !tells_password,
            _ => false,
        };
        let words = current.exchange.token_error().to_owned();
        let refusal = LoginError::Refused { reply, words };
        match is_of_mechanism {
            true => {
                login.allowed.retain(|mechanism| *mechanism != current.mechanism);
                self.choose_mechanism(Some(refusal));
            }
            false => self.close(Ending::Login(refusal)),
        }
    }

    fn on_challenge(&mut self, reply: &PeerReply) {
        let Some(current) = self.login.as_mut().and_then(|login| login.current.as_mut()) else {
            return;
        };
        current.challenges += 1;
        let response = match reply.lines() {
            _ if current.challenges > MAX_CHALLENGES => Err(LoginError::Endless),
            [challenge] => match STANDARD.decode(challenge.trim()) {
                Ok(octets) => current.exchange.respond(&octets).map_err(LoginError::Impossible),
                Err(_) => Err(LoginError::NotBase64),
            },
            _ => Err(LoginError::NotBase64),
        };
        let line = match response {
            Ok(octets) => STANDARD.encode(octets),
            Err(error) => {
                current.given_up = Some(error);
                "*".to_owned()
            }
        };
        self.say(line);
    }
}

#[cfg(test)]
mod tests;
