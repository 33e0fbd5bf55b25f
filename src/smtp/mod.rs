//! The protocol with no socket in it: bytes in, events and replies out.

pub mod reply;
