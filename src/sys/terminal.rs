//! The terminal of a person who answers questions, some of them with a secret.
//!
//! Whatever ends a question, the terminal is then as it was: SIGTERM and SIGHUP put it back before they
//! end the process.

#![expect(unsafe_code, reason = "a signal handler puts the terminal back")]

use std::io::{self, BufRead, IsTerminal, Read, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::termios::{
    LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcgetwinsize, tcsetattr,
};

use crate::sys::signals::{self, Interrupts};

/// What Ctrl-C types where it interrupts nothing.
const INTERRUPT: u8 = 3;

/// Shows the cursor, which a list hides.
const SHOW_CURSOR: &[u8] = b"\x1b[?25h";

/// The terminal as it was before the first question.
static BEFORE: OnceLock<Termios> = OnceLock::new();
/// Whether it behaves otherwise now.
static IS_CHANGED: AtomicBool = AtomicBool::new(false);
/// Whether its cursor may be hidden now.
static HAS_KEYS: AtomicBool = AtomicBool::new(false);

/// Whether standard input is a terminal.
pub fn is_there() -> bool {
    io::stdin().is_terminal()
}

/// Reads a line of at most `max_octets` from standard input, without its end. From a terminal it
/// is read after `prompt`, and not shown.
///
/// # Errors
/// `Interrupted` after Ctrl-C, `UnexpectedEof` where there is no line, `InvalidData` for one that
/// is longer or no text.
pub fn read_secret(prompt: &str, max_octets: usize) -> io::Result<String> {
    if !is_there() {
        return line_of(io::stdin().lock(), max_octets);
    }
    let stderr = io::stderr();
    let line = {
        // Ctrl-C ends the line instead of the process, which would leave the terminal mute.
        let _silence = Changed::begin(OptionalActions::Flush, |it| {
            it.local_modes -= LocalModes::ECHO | LocalModes::ISIG;
            it.special_codes[SpecialCodeIndex::VEOL] = INTERRUPT;
        })?;
        write!(stderr.lock(), "{prompt}")?;
        line_of(io::stdin().lock(), max_octets)
    };
    // The end of the line was not shown either.
    writeln!(stderr.lock())?;
    line
}

/// Reads a line of at most `max_octets` from standard input, without its end, after `prompt`, which
/// is shown whether or not a terminal is there.
///
/// # Errors
/// As with [`read_secret`].
pub fn read_line(prompt: &str, max_octets: usize) -> io::Result<String> {
    let stderr = io::stderr();
    write!(stderr.lock(), "{prompt}")?;
    let line = line_of(io::stdin().lock(), max_octets);
    // What is not typed is not shown, nor is the end of a line that did not come.
    if !is_there() || line.is_err() {
        writeln!(stderr.lock())?;
    }
    line
}

fn line_of(input: impl BufRead, max_octets: usize) -> io::Result<String> {
    let error = |kind, text: &str| io::Error::new(kind, text.to_owned());
    let mut line = Vec::new();
    for octet in input.take(max_octets as u64 + 2).bytes() {
        match octet? {
            b'\n' => return finished(line, max_octets),
            INTERRUPT if is_there() => {
                return Err(error(io::ErrorKind::Interrupted, "interrupted"));
            }
            octet => line.push(octet),
        }
    }
    if line.is_empty() {
        return Err(error(io::ErrorKind::UnexpectedEof, "there was no line to read"));
    }
    finished(line, max_octets)
}

fn finished(mut line: Vec<u8>, max_octets: usize) -> io::Result<String> {
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    let error = |text: String| io::Error::new(io::ErrorKind::InvalidData, text);
    if line.len() > max_octets {
        return Err(error(format!("the line has more than {max_octets} octets")));
    }
    String::from_utf8(line).map_err(|_| error("the line is no UTF-8 text".to_owned()))
}

/// A terminal on which programs may move the cursor and wait for single keys.
#[derive(Debug)]
pub struct Keyboard(Interrupts);

impl Keyboard {
    /// The smallest screen that holds a question and a list, in columns and rows.
    const LEAST: (u16, u16) = (60, 8);

    /// The one of standard input, with its screen at standard error. `None` where only lines are
    /// sure to work: no terminal, one that `TERM` calls dumb or nothing at all, or one that does
    /// not say how large it is, as most serial consoles.
    ///
    /// # Errors
    /// When SIGINT cannot be taken.
    pub fn find() -> io::Result<Option<Self>> {
        let stderr = io::stderr();
        let term = std::env::var("TERM").unwrap_or_default();
        if !is_there() || !stderr.is_terminal() || ["", "dumb", "unknown"].contains(&&*term) {
            return Ok(None);
        }
        let is_large = tcgetwinsize(&stderr)
            .is_ok_and(|it| it.ws_col >= Self::LEAST.0 && it.ws_row >= Self::LEAST.1);
        is_large.then(|| Interrupts::take().map(Self)).transpose()
    }

    /// Has `ask` read keys: they are not shown, and Ctrl-C ends a wait instead of the process. Then
    /// the terminal is as before.
    ///
    /// # Errors
    /// What `ask` returns, which is `Interrupted` after Ctrl-C; when the terminal went away.
    pub fn with<T>(&self, ask: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let _keys = Changed::begin(OptionalActions::Drain, |it| {
            it.local_modes -= LocalModes::ECHO | LocalModes::ISIG | LocalModes::ICANON;
            it.special_codes[SpecialCodeIndex::VMIN] = 1;
            it.special_codes[SpecialCodeIndex::VTIME] = 0;
        })?;
        HAS_KEYS.store(true, Ordering::SeqCst);
        let answer = self.0.hold(ask);
        HAS_KEYS.store(false, Ordering::SeqCst);
        answer
    }
}

/// A terminal that behaves otherwise until this is dropped.
struct Changed(Termios);

impl Changed {
    fn begin(when: OptionalActions, change: impl FnOnce(&mut Termios)) -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let _ = BEFORE.set(before.clone());
        // SAFETY: it reads atomics and makes system calls.
        unsafe { signals::before_the_end(put_back) }?;
        let mut changed = before.clone();
        change(&mut changed);
        IS_CHANGED.store(true, Ordering::SeqCst);
        tcsetattr(io::stdin(), when, &changed)?;
        Ok(Self(before))
    }
}

impl Drop for Changed {
    fn drop(&mut self) {
        // There is nothing left to do if the terminal went away.
        let _ = tcsetattr(io::stdin(), OptionalActions::Drain, &self.0);
        IS_CHANGED.store(false, Ordering::SeqCst);
    }
}

/// Puts the terminal back in the midst of a question. A signal handler may do it.
fn put_back() {
    let before = BEFORE.get().filter(|_| IS_CHANGED.load(Ordering::SeqCst));
    let Some(before) = before else { return };
    // Neither of the two streams takes a lock for that. Nobody is left to hear of an error.
    let _ = tcsetattr(io::stdin(), OptionalActions::Now, before);
    if HAS_KEYS.load(Ordering::SeqCst) {
        let _ = rustix::io::write(io::stderr(), SHOW_CURSOR);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_is_read_and_no_more() {
        let line = |text: &[u8]| line_of(text, 5).map_err(|error| error.kind());
        assert_eq!(line(b"abc\ndef\n").unwrap(), "abc");
        assert_eq!(line(b"abc\r\n").unwrap(), "abc");
        assert_eq!(line(b"abc").unwrap(), "abc");
        assert_eq!(line(b"\n").unwrap(), "");
        assert_eq!(line(b"abcde\n").unwrap(), "abcde");
        assert_eq!(line(b" a \n").unwrap(), " a ");
        assert_eq!(line(b""), Err(io::ErrorKind::UnexpectedEof));
        for bad in [&b"abcdef\n"[..], b"abcdef", b"abcdefghijkl", b"\xff\n"] {
            assert_eq!(line(bad), Err(io::ErrorKind::InvalidData), "{bad:?}");
        }
    }
}
