//! `mailwren`: dispatch on the name it was called by and the first word; nothing else.

use std::process::ExitCode;

fn main() -> ExitCode {
    mailwren::cli::run(std::env::args_os())
}
