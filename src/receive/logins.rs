//! Who may log in: the accounts behind AUTH (RFC 4954), and the mechanisms that they allow.

use crate::config::settings::Settings;
use crate::mail::status::Status;
use crate::receive::peer::Peer;
use crate::smtp::reply::Reply;
use crate::smtp::sasl::Mechanism;
use crate::smtp::server::LoginStep;

/// The accounts that sessions log in to.
#[derive(Debug)]
pub struct Logins;

/// A login that is under way.
#[derive(Debug)]
pub struct Exchange;

impl Logins {
    /// The accounts that the settings name.
    pub fn new(_: &Settings) -> Self {
        Self
    }

    /// The mechanisms by which `peer` can log in now.
    pub fn mechanisms(&self, _: &Peer) -> Vec<Mechanism> {
        Vec::new()
    }

    /// Begins a login. The exchange is there where it goes on.
    pub fn begin(&self, _: &Peer, _: Mechanism, _: Option<&[u8]>) -> (Option<Exchange>, LoginStep) {
        (None, unavailable())
    }

    /// Goes on with a response.
    pub fn respond(&self, _: &Peer, _: Exchange, _: &[u8]) -> (Option<Exchange>, LoginStep) {
        (None, unavailable())
    }
}

fn unavailable() -> LoginStep {
    LoginStep::Refused(Reply::new(
        454,
        Status::new(4, 7, 0),
        "Accounts cannot be looked up now; try again later",
    ))
}
