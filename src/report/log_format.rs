//! How log lines look: `env_logger` with a line of our own. Where journald listens, each
//! begins with the priority that it knows (sd-daemon(3)); elsewhere with the time.

use std::io::Write;

use log::{Level, LevelFilter};

use crate::sys::clock;

/// Overrides the level of the configuration.
const LEVEL_VARIABLE: &str = "RUST_LOG";

/// Starts logging to standard error at `level`, which the variable RUST_LOG overrides.
pub fn start(level: LevelFilter) {
    // Set by systemd where standard error goes to the journal.
    let is_journal = std::env::var_os("JOURNAL_STREAM").is_some();
    let mut builder = env_logger::Builder::new();
    builder.filter_level(LevelFilter::Trace).parse_default_env();
    builder.format(move |line, record| {
        // Whatever comes from outside was escaped before; this is the last line of defence.
        let text = without_controls(record.args().to_string());
        if is_journal {
            writeln!(line, "<{}>{text}", priority(record.level()))
        } else {
            let now = clock::local_time(clock::since_1970().as_secs());
            writeln!(line, "{} {:5} {text}", now.rfc3339(), record.level())
        }
    });
    // A second start, as in a test, keeps the first.
    let _ = builder.try_init();
    set_level(level);
}

/// Has only lines of this level or a graver one written from now on, unless RUST_LOG says what is.
pub fn set_level(level: LevelFilter) {
    if std::env::var_os(LEVEL_VARIABLE).is_none() {
        log::set_max_level(level);
    }
}

/// The syslog priority of a level.
fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

/// The text, escaped if it holds anything that could end a line or steer a terminal.
fn without_controls(text: String) -> String {
    if text.chars().any(char::is_control) { text.escape_debug().to_string() } else { text }
}
