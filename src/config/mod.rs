//! The INI file into typed settings, with the line in every error.

pub mod settings;
