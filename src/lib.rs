#![doc = include_str!("ARCHITECTURE.md")]

pub mod cli;
pub mod config;
pub mod deliver;
pub mod mail;
pub mod receive;
pub mod report;
pub mod route;
pub mod smtp;
pub mod spool;
pub mod sys;
