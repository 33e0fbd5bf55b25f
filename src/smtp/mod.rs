//! The protocol with no socket in it: bytes in, events and replies out.

pub mod client;
pub mod command;
pub mod data;
pub mod dot_stuffing;
pub mod line;
pub mod parameters;
pub mod reply;
pub mod reply_parser;
pub mod sasl;
pub mod server;
