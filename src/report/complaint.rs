//! Complaints that would come with every message while something is out of order: a disk that
//! is full or read-only. The log has each kind at most once a minute, and the number of those
//! that were left out, so that a disk in trouble is not filled with complaints about itself.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The least time between two lines of one kind.
const PAUSE: Duration = Duration::from_secs(60);

/// One kind of complaint, to be shared by all that make it.
#[derive(Debug)]
pub struct Complaint(Mutex<Told>);

#[derive(Debug)]
struct Told {
    last: Option<Instant>,
    left_out: u64,
}

/// How many complaints were left out before this one; prints as the end of its line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct LeftOut(u64);

impl Complaint {
    /// A kind of which nothing was said yet.
    pub const fn new() -> Self {
        Self(Mutex::new(Told { last: None, left_out: 0 }))
    }

    /// Writes `text` to the log as an error, unless one of this kind was written in the last
    /// minute.
    pub fn error(&self, text: fmt::Arguments<'_>) {
        if let Some(left_out) = self.admit(Instant::now()) {
            log::error!("{text}{left_out}");
        }
    }

    /// Whether a line may be written at `now`.
    fn admit(&self, now: Instant) -> Option<LeftOut> {
        // Two plain values stay what they are whatever panics.
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if told.last.is_some_and(|last| now.saturating_duration_since(last) < PAUSE) {
            told.left_out += 1;
            return None;
        }
        told.last = Some(now);
        Some(LeftOut(std::mem::take(&mut told.left_out)))
    }
}

impl Default for Complaint {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Display for LeftOut {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => Ok(()),
            count => write!(formatter, " ({count} more of this kind since the last line)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_a_minute_with_the_number_of_the_others() {
        let (complaint, begin) = (Complaint::new(), Instant::now());
        let at = |milliseconds| complaint.admit(begin + Duration::from_millis(milliseconds));
        assert_eq!(at(0), Some(LeftOut(0)));
        assert_eq!([at(0), at(1), at(59_999)], [None; 3]);
        assert_eq!(at(60_000), Some(LeftOut(3)));
        assert_eq!(at(119_999), None);
        assert_eq!(at(500_000), Some(LeftOut(1)));
        assert_eq!(at(560_000), Some(LeftOut(0)));
    }

    #[test]
    fn kinds_do_not_silence_each_other() {
        let (one, other, now) = (Complaint::new(), Complaint::new(), Instant::now());
        assert_eq!((one.admit(now), one.admit(now)), (Some(LeftOut(0)), None));
        assert_eq!(other.admit(now), Some(LeftOut(0)));
    }

    #[test]
    fn the_line_tells_what_was_left_out() {
        assert_eq!(LeftOut(0).to_string(), "");
        assert_eq!(LeftOut(7).to_string(), " (7 more of this kind since the last line)");
    }
}
