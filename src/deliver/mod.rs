//! The fixed pool of threads that put mail into mailboxes and relay it.

pub mod connections;
pub mod conversation;
pub mod job;
pub mod outcome;
pub mod relay;
