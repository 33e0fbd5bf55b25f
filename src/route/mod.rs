//! Where each recipient goes.

pub mod aliases;
pub mod local;
pub mod mx;
pub mod next_hop;
pub mod users;
