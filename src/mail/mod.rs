//! What the protocol carries: addresses, headers, dates and reports. Pure: no socket, file,
//! thread or clock.

pub mod address;
pub mod address_list;
pub mod auto_reply;
pub mod completion;
pub mod date;
pub mod digest;
pub mod display_name;
pub mod dsn;
pub mod dsn_request;
pub mod encoded_word;
pub mod header;
pub mod hops;
pub mod quoted_printable;
pub mod rewriting;
pub mod status;
pub mod submission;
pub mod text;
