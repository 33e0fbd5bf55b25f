//! The fixed pool of threads that put mail into mailboxes and relay it.

pub mod job;
pub mod outcome;
