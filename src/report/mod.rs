//! What came of it: the log line at each station of a message, and reports to senders.

pub mod complaint;
pub mod log_format;
pub mod notification;
pub mod station;
