//! The durable queue: one file per message, its recipients' states, its schedule.

pub mod envelope;
pub mod id;
pub mod message;
