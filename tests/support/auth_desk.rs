//! The part of a test's SMTP server that lets clients log in: it knows one account, answers AUTH
//! by the server's side of each mechanism, and takes no mail from anybody else.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mailwren::smtp::sasl::keys::{CramMd5Keys, ScramHash, ScramKeys};
use mailwren::smtp::sasl::server::{Account, Accounts, Exchange, Progress, Start, Unavailable};
use mailwren::smtp::sasl::{Mechanism, Nonce};

/// The only user.
pub(crate) const USER: &str = "ann@home.test";

/// Lets [`USER`] in. To be shared by the sessions of a server, and asked for each line.
pub(crate) struct Desk {
    /// What stands behind 250 in the answer to EHLO, beside PIPELINING.
    offer: String,
    password: Mutex<String>,
    pending: Mutex<HashMap<usize, Pending>>,
    logged_in: Mutex<HashSet<usize>>,
    /// How many logins were refused.
    refusals: AtomicUsize,
    /// Whether SCRAM's last word is a wrong signature.
    lies: AtomicBool,
}

enum Pending {
    Sasl(Exchange),
    /// The token was wrong, and the client is told why.
    TokenError,
    /// The first line of a mechanism with a token.
    Token(Mechanism),
}

struct One(String);

impl Accounts for One {
    fn check_password(&self, user: &str, password: &[u8]) -> Result<Option<Arc<str>>, Unavailable> {
        Ok((user == USER && password == self.0.as_bytes()).then(|| USER.into()))
    }

    fn scram_keys(&self, _: &str, hash: ScramHash) -> Result<Account<ScramKeys>, Unavailable> {
        let keys = ScramKeys::from_password(hash, self.0.as_bytes(), b"salt and salt", 4096);
        Ok(Account { name: USER.into(), keys: keys.unwrap() })
    }

    fn cram_md5_keys(&self, _: &str) -> Result<Option<Account<CramMd5Keys>>, Unavailable> {
        let keys = CramMd5Keys::from_password(self.0.as_bytes()).unwrap();
        Ok(Some(Account { name: USER.into(), keys }))
    }
}

impl Desk {
    /// A desk that offers this and wants this password or token.
    pub(crate) fn new(offer: &str, password: &str) -> Arc<Self> {
        Arc::new(Self {
            offer: offer.to_owned(),
            password: Mutex::new(password.to_owned()),
            pending: Mutex::default(),
            logged_in: Mutex::default(),
            refusals: AtomicUsize::new(0),
            lies: AtomicBool::new(false),
        })
    }

    /// From now on another password or token is wanted.
    pub(crate) fn change_password(&self, password: &str) {
        *self.password.lock().unwrap() = password.to_owned();
    }

    /// From now on it does not know the password, and claims so.
    pub(crate) fn lie(&self) {
        self.lies.store(true, Ordering::SeqCst);
    }

    /// How many logins were refused so far.
    pub(crate) fn refusals(&self) -> usize {
        self.refusals.load(Ordering::SeqCst)
    }

    /// What is said to a line of a session, if it is the desk's to say.
    pub(crate) fn answer(&self, session: usize, line: &str) -> Option<String> {
        let pending = self.pending.lock().unwrap().remove(&session);
        if let Some(pending) = pending {
            return Some(match line {
                "*" => "501 5.7.0 cancelled\r\n".to_owned(),
                _ => self.go_on(session, pending, line),
            });
        }
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["EHLO", _] => {
                Some(format!("250-peer.test\r\n250-PIPELINING\r\n250 {}\r\n", self.offer))
            }
            ["AUTH", name] => Some(self.begin(session, name, None)),
            ["AUTH", name, initial] => Some(self.begin(session, name, Some(initial))),
            ["MAIL", ..] if !self.logged_in.lock().unwrap().contains(&session) => {
                Some("530 5.7.0 log in first\r\n".to_owned())
            }
            _ => None,
        }
    }

    fn begin(&self, session: usize, name: &str, initial: Option<&str>) -> String {
        let mechanism = Mechanism::named(name).unwrap();
        let initial = initial.map(decode);
        if matches!(mechanism, Mechanism::OauthBearer | Mechanism::Xoauth2) {
            return match initial {
                Some(initial) => self.check_token(session, mechanism, &initial),
                None => self.ask(session, Pending::Token(mechanism), b""),
            };
        }
        let accounts = One(self.password.lock().unwrap().clone());
        let start = Start {
            mechanism,
            initial: initial.as_deref(),
            nonce: &Nonce::new(&[b'n'; 18]),
            hostname: "peer.test",
            external: None,
        };
        self.proceed(session, Exchange::begin(start, &accounts))
    }

    fn go_on(&self, session: usize, pending: Pending, line: &str) -> String {
        let response = decode(line);
        match pending {
            Pending::Token(mechanism) => self.check_token(session, mechanism, &response),
            Pending::TokenError => {
                assert!(matches!(&response[..], b"" | b"\x01"), "{response:?}");
                self.refuse()
            }
            Pending::Sasl(exchange) => {
                let accounts = One(self.password.lock().unwrap().clone());
                self.proceed(session, exchange.respond(&response, &accounts))
            }
        }
    }

    fn proceed(&self, session: usize, progress: Progress) -> String {
        match progress {
            Progress::Challenge(challenge, exchange) => {
                let is_last = challenge.starts_with(b"v=");
                match is_last && self.lies.load(Ordering::SeqCst) {
                    true => self.ask(session, Pending::Sasl(exchange), b"v=AAAA"),
                    false => self.ask(session, Pending::Sasl(exchange), &challenge),
                }
            }
            Progress::Accepted(name) => {
                assert_eq!(&*name, USER);
                self.accept(session)
            }
            Progress::Refused { .. } => self.refuse(),
        }
    }

    fn check_token(&self, session: usize, mechanism: Mechanism, response: &[u8]) -> String {
        let token = self.password.lock().unwrap().clone();
        let response = String::from_utf8(response.to_vec()).unwrap();
        let (head, tail) = response.split_once('\x01').unwrap();
        match mechanism {
            Mechanism::Xoauth2 => assert_eq!(head, format!("user={USER}")),
            _ => assert_eq!(head, format!("n,a={USER},")),
        }
        if tail.ends_with(&format!("auth=Bearer {token}\x01\x01")) {
            return self.accept(session);
        }
        self.ask(session, Pending::TokenError, br#"{"status":"invalid_token"}"#)
    }

    fn ask(&self, session: usize, pending: Pending, challenge: &[u8]) -> String {
        self.pending.lock().unwrap().insert(session, pending);
        format!("334 {}\r\n", STANDARD.encode(challenge))
    }

    fn accept(&self, session: usize) -> String {
        self.logged_in.lock().unwrap().insert(session);
        "235 2.7.0 welcome\r\n".to_owned()
    }

    fn refuse(&self) -> String {
        let number = self.refusals.fetch_add(1, Ordering::SeqCst);
        format!("535 5.7.8 wrong {number}\r\n")
    }
}

fn decode(text: &str) -> Vec<u8> {
    match text {
        "=" => Vec::new(),
        _ => STANDARD.decode(text).unwrap(),
    }
}
