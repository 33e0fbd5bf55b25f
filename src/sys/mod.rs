//! The operating system: users and identities, signals, systemd, files, the network, the DNS, the
//! clock.

pub mod bell;
pub mod clock;
pub mod command;
pub mod disk;
pub mod dns;
pub mod file_system;
pub mod filelock;
pub mod files;
pub mod folder_events;
pub mod identity;
pub mod journal;
pub mod mending;
pub mod network;
pub mod process;
pub mod programs;
pub mod random;
pub mod remembered;
pub mod run_as;
pub mod running;
pub mod secret_file;
pub mod signals;
pub mod sockets;
pub mod syslog;
pub mod systemd;
pub mod terminal;
mod trail;
pub mod users;
pub mod watched;
pub mod whole_file;
