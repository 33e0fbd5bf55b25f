//! Where each recipient goes.

pub mod mx;
pub mod next_hop;
