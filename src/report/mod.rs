//! What came of it: the log line at each station of a message, and bounces.

pub mod bounce;
pub mod complaint;
pub mod log_format;
pub mod station;
