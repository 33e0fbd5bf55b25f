//! Where each recipient goes.

pub mod addressee;
pub mod aliases;
mod expanding;
pub mod forward;
mod kept_file;
pub mod lists;
pub mod local;
pub mod lookup;
pub mod mx;
pub mod next_hop;
pub mod owner;
pub mod realm;
pub mod rewrite;
pub mod targets;
pub mod users;

use crate::config::settings::Settings;
use crate::mail::address::Mailbox;
use crate::route::addressee::Way;
use crate::route::next_hop::NextHop;

/// The next hop of `mailbox` on that way, from the configuration alone: decided anew at each try,
/// so that a corrected smarthost helps the mail that waits already.
pub fn next_hop(settings: &Settings, mailbox: &Mailbox, way: &Way) -> NextHop {
    match way {
        Way::Command(_) => return NextHop::Command,
        Way::User | Way::Mailbox | Way::File(_) => return NextHop::Local,
        Way::Routed if settings.server.domains.contains(mailbox.domain()) => {
            return NextHop::Local;
        }
        Way::Routed => {}
    }
    match &settings.smarthost {
        Some(smarthost) => NextHop::Smarthost(smarthost.clone()),
        None => NextHop::Mx(mailbox.domain().clone()),
    }
}
