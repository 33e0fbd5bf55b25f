//! The clocks: what time it is, what the clock on the wall of this host shows, and how much
//! time has passed whatever that clock says.

#![expect(unsafe_code, reason = "localtime_r and adjtimex have no safe wrapper")]

use std::fmt;
use std::fs;
use std::mem::MaybeUninit;
use std::time::{Duration, SystemTime};

use rustix::time::{ClockId, clock_gettime};

use crate::mail::date::CivilTime;

/// 1 November 2026, in seconds since 1970: this program was not made before. A clock that
/// shows an earlier time was never set, or lost its time with the power.
pub const PROGRAM_MADE: u64 = 1_793_491_200;
/// Where the kernel says which boot this is.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// The file that is there as soon as systemd-timesyncd has set the clock
/// (systemd-time-wait-sync.service(8)).
const TIMESYNCD_SAYS: &str = "/run/systemd/timesync/synchronized";
/// How far the clocks that compare a sleep may differ without one.
const SLEEP_TOLERANCE: Duration = Duration::from_secs(5);

/// The time since the beginning of 1970 UTC; zero where the clock stands before that.
pub fn since_1970() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

/// The moment `seconds` after 1970 as the clocks of this host show it.
pub fn local_time(seconds: u64) -> CivilTime {
    CivilTime::new(seconds, utc_offset_seconds(seconds))
}

/// A moment as a header field gives it; see [`date_field`].
#[derive(Clone, Copy, Debug)]
pub struct DateField {
    time: CivilTime,
    is_plainly_wrong: bool,
}

/// The moment `seconds` after 1970 as a header field gives it, in the form of RFC 5322 §3.3.
/// Where the clock that told it was plainly wrong, a comment says so; the grammar has room for
/// one behind the zone.
pub fn date_field(seconds: u64) -> DateField {
    DateField { time: local_time(seconds), is_plainly_wrong: was_not_set(seconds) }
}

impl fmt::Display for DateField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.time.fmt(f)?;
        if self.is_plainly_wrong { f.write_str(" (clock not set)") } else { Ok(()) }
    }
}

/// Whether the clock shows a time at which this program was not made.
pub fn is_plainly_wrong() -> bool {
    was_not_set(since_1970().as_secs())
}

/// Whether a clock that told this moment, in seconds since 1970, had not been set.
pub const fn was_not_set(seconds: u64) -> bool {
    seconds < PROGRAM_MADE
}

/// The time since the host was started, sleep included. No clock that is set changes it.
pub fn since_boot() -> Duration {
    elapsed(ClockId::Boottime)
}

/// What the kernel calls this boot; `None` where it does not say.
pub fn boot_id() -> Option<String> {
    let id = fs::read_to_string(BOOT_ID).ok()?.trim().to_owned();
    (!id.is_empty() && id.len() <= 64 && id.is_ascii()).then_some(id)
}

/// Whether the kernel holds the wall clock for synchronised, as with NTP (adjtimex(2)). Where it may
/// not be asked, as under ProtectClock= of systemd, its timesyncd may have said so.
pub fn is_synchronised() -> bool {
    // SAFETY: all of it is plain numbers, for which zero is a value; no mode asks for a change.
    let mut state = unsafe { MaybeUninit::<libc::timex>::zeroed().assume_init() };
    // SAFETY: the pointer is valid until the call returns.
    let result = unsafe { libc::adjtimex(&raw mut state) };
    match result {
        -1 => fs::exists(TIMESYNCD_SAYS).unwrap_or(false),
        _ => state.status & libc::STA_UNSYNC == 0,
    }
}

/// Notices when the host has slept, during which the monotonic clock stands still.
#[derive(Debug)]
pub struct Suspension {
    /// How long it had slept since it was started, at the last look.
    slept: Duration,
}

impl Default for Suspension {
    fn default() -> Self {
        Self { slept: slept_since_boot() }
    }
}

impl Suspension {
    /// How long the host has slept since the last look, if it did.
    pub fn since_last_look(&mut self) -> Option<Duration> {
        let slept = slept_since_boot();
        let more = slept.saturating_sub(self.slept);
        if more < SLEEP_TOLERANCE {
            return None;
        }
        self.slept = slept;
        Some(more)
    }
}

/// Says in the log when the clock is plainly wrong, and when that is over.
#[derive(Debug, Default)]
pub struct ClockWatch {
    was_wrong: bool,
}

impl ClockWatch {
    /// Looks at the clock.
    pub fn look(&mut self) {
        let is_wrong = is_plainly_wrong();
        match (self.was_wrong, is_wrong) {
            (false, true) => log::warn!(
                "the clock of this host is not set: it shows {}; mail that comes now is dated so, and the date says that",
                local_time(since_1970().as_secs())
            ),
            (true, false) => log::info!("the clock of this host is set now"),
            _ => {}
        }
        self.was_wrong = is_wrong;
    }
}

fn slept_since_boot() -> Duration {
    since_boot().saturating_sub(elapsed(ClockId::Monotonic))
}

fn elapsed(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::from_secs(seconds) + Duration::from_nanos(u64::try_from(time.tv_nsec).unwrap_or(0))
}

/// How far the local clock is ahead of UTC at that moment. 0 where the C library cannot say,
/// as beyond 2038 on a host with 32-bit times: the date is then given in UTC, and is right.
fn utc_offset_seconds(seconds: u64) -> i32 {
    let Ok(time) = seconds.try_into() else { return 0 };
    let mut broken_down = MaybeUninit::<libc::tm>::uninit();
    // SAFETY: both pointers are valid until the call returns.
    let result = unsafe { libc::localtime_r(&raw const time, broken_down.as_mut_ptr()) };
    if result.is_null() {
        return 0;
    }
    // SAFETY: a result that is not null says that it was filled in.
    let broken_down = unsafe { broken_down.assume_init() };
    i32::try_from(broken_down.tm_gmtoff).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn now_is_after_this_was_written() {
        assert!(since_1970().as_secs() > 1_700_000_000);
        assert!(local_time(since_1970().as_secs()).to_string().len() >= 30);
    }

    #[test]
    fn no_moment_is_too_far_away() {
        assert!(local_time(u64::MAX).asctime().to_string().len() >= 24);
    }

    #[test]
    fn a_date_of_before_this_program_says_so() {
        let wrong = date_field(10).to_string();
        assert!(wrong.contains("1970 ") && wrong.ends_with(" (clock not set)"), "{wrong}");
        assert!(date_field(PROGRAM_MADE - 1).to_string().ends_with(" (clock not set)"));
        assert_eq!(
            date_field(PROGRAM_MADE).to_string(),
            local_time(PROGRAM_MADE).to_string(),
            "a clock that may be right is not doubted"
        );
        let made = CivilTime::new(PROGRAM_MADE, 0).to_string();
        assert_eq!(made, "Sun, 1 Nov 2026 00:00:00 +0000");
    }

    #[test]
    fn the_time_since_boot_goes_on() {
        let before = since_boot();
        assert!(before > Duration::ZERO && since_boot() >= before);
        assert_eq!(boot_id(), boot_id());
        assert_eq!(Suspension::default().since_last_look(), None);
    }

    #[test]
    fn a_sleep_is_noticed_once() {
        let slept = slept_since_boot();
        let mut suspension = Suspension { slept: slept.saturating_sub(SLEEP_TOLERANCE * 2) };
        if slept >= SLEEP_TOLERANCE * 2 {
            assert!(suspension.since_last_look().is_some());
        }
        assert_eq!(suspension.since_last_look(), None);
    }
}
