//! Where each recipient goes.

pub mod aliases;
pub mod local;
pub mod mx;
pub mod next_hop;
pub mod users;

use crate::config::settings::Settings;
use crate::mail::address::Mailbox;
use crate::route::next_hop::NextHop;

/// The next hop of `mailbox`, from the configuration alone: decided anew at each try, so
/// that a corrected smarthost helps the mail that waits already.
pub fn next_hop(settings: &Settings, mailbox: &Mailbox) -> NextHop {
    if settings.server.domains.contains(mailbox.domain()) {
        return NextHop::Local;
    }
    match &settings.smarthost {
        Some(smarthost) => NextHop::Smarthost(smarthost.clone()),
        None => NextHop::Mx(mailbox.domain().clone()),
    }
}
