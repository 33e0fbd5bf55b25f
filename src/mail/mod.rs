//! What the protocol carries: addresses, headers, dates and reports. Pure: no socket, file,
//! thread or clock.

pub mod address;
pub mod date;
pub mod header;
pub mod status;
