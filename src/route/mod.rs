//! Where each recipient goes.

pub mod next_hop;
