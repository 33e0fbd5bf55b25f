//! The operating system: users and identities, signals, files, the DNS, the clock.

pub mod dns;
