//! The protocol with no socket in it: bytes in, events and replies out.

pub mod client;
pub mod dot_stuffing;
pub mod reply;
pub mod reply_parser;
