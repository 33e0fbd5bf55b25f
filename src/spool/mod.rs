//! The durable queue: one file per message, its recipients' states, its schedule.

pub mod envelope;
pub mod format;
pub mod id;
pub mod manager;
pub mod message;
pub mod progress;
pub mod schedule;
pub mod store;
