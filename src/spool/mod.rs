//! The durable queue: one file per message, its recipients' states, its schedule.

pub mod age;
mod claim;
mod digest;
pub mod draft;
pub mod drop;
pub mod dropped;
pub mod envelope;
mod expansion;
mod folders;
pub mod format;
pub mod hands;
pub mod id;
pub mod intake;
pub mod lanes;
pub mod layout;
pub mod manager;
pub mod message;
pub mod post;
pub mod progress;
pub mod reader;
mod round;
pub mod schedule;
pub mod store;
pub mod timekeeper;
pub mod wake;
