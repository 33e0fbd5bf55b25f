#![doc = include_str!("ARCHITECTURE.md")]

pub mod config;
pub mod deliver;
pub mod mail;
pub mod route;
pub mod smtp;
pub mod spool;
pub mod sys;
