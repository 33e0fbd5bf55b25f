//! How log lines look and where they go: `env_logger` with a line of our own. Where journald
//! listens on standard error, each begins with the priority that it knows (sd-daemon(3)); elsewhere
//! with the time. A log daemon gets them in its own form.

use std::io::{self, Write};

use env_logger::fmt::Formatter;
use log::{Level, LevelFilter};

use crate::config::settings::LogReceiver;
use crate::sys::syslog::{self, Syslog, Unheard, cut};
use crate::sys::{clock, journal};

/// Overrides the level of the configuration.
const LEVEL_VARIABLE: &str = "RUST_LOG";
/// The most octets of a line on standard error. What journald gets more of in one line (48 KiB,
/// journald.conf(5), LineMax) it takes for two.
const MAX_OCTETS: usize = 16 << 10;

enum Receiver {
    StandardError,
    Journal,
    Syslog(Syslog),
}

/// Starts logging to `receiver` at `level`, which the variable RUST_LOG overrides.
pub fn start(level: LevelFilter, receiver: LogReceiver) {
    let receiver = match receiver {
        LogReceiver::Auto if journal::takes_standard_error() => Receiver::Journal,
        LogReceiver::Auto | LogReceiver::StandardError => Receiver::StandardError,
        LogReceiver::Syslog => Receiver::Syslog(Syslog::new(syslog::PATH)),
    };
    let mut builder = env_logger::Builder::new();
    builder.filter_level(LevelFilter::Trace).parse_default_env();
    builder.format(move |line, record| {
        // Whatever comes from outside was escaped before; this is the last line of defence.
        let text = without_controls(record.args().to_string());
        receiver.take(line, record.level(), &text)
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

impl Receiver {
    /// Takes one line. What stands in `line` in the end goes to standard error.
    fn take(&self, line: &mut Formatter, level: Level, text: &str) -> io::Result<()> {
        match self {
            Self::StandardError => write_line(line, level, text),
            Self::Journal => writeln!(line, "<{}>{}", priority(level), cut(text, MAX_OCTETS)),
            Self::Syslog(syslog) => {
                let Err(Unheard { news }) = syslog.send(priority(level), text) else {
                    return Ok(());
                };
                if let Some(error) = news {
                    let news = format!(
                        "{}: no log daemon takes lines, which come here for now: {error}",
                        syslog::PATH
                    );
                    write_line(line, Level::Warn, &news)?;
                }
                write_line(line, level, text)
            }
        }
    }
}

fn write_line(line: &mut Formatter, level: Level, text: &str) -> io::Result<()> {
    let now = clock::local_time(clock::since_1970().as_secs());
    writeln!(line, "{} {level:5} {}", now.rfc3339(), cut(text, MAX_OCTETS))
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
