//! What came of it: the log line at each station of a message, the journal of events, and reports
//! to senders.

pub mod complaint;
pub mod event;
pub mod events;
pub mod log_format;
pub mod notification;
pub mod station;
