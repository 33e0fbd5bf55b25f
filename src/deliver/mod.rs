//! The fixed pool of threads that put mail into mailboxes and relay it.

pub mod connections;
pub mod conversation;
pub mod dispatch;
pub mod dot_lock;
pub mod encryption;
pub mod job;
pub mod lines;
pub mod local;
pub mod login;
pub mod logins;
pub mod maildir;
pub mod mbox;
pub mod outcome;
pub mod place;
pub mod pool;
pub mod relay;
pub mod remedy;
pub mod secret;
pub mod storage;
pub mod stream;
pub mod tls;
pub mod vacation;
