//! The wall clock: what time it is, and what the clock on the wall of this host shows.

#![expect(unsafe_code, reason = "localtime_r has no safe wrapper")]

use std::mem::MaybeUninit;
use std::time::{Duration, SystemTime};

use crate::mail::date::CivilTime;

/// The time since the beginning of 1970 UTC; zero where the clock stands before that.
pub fn since_1970() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

/// The moment `seconds` after 1970 as the clocks of this host show it.
pub fn local_time(seconds: u64) -> CivilTime {
    CivilTime::new(seconds, utc_offset_seconds(seconds))
}

/// How far the local clock is ahead of UTC at that moment. 0 where the C library cannot say,
/// as beyond 2038 on a host with 32-bit times: the date is then given in UTC, and is right.
fn utc_offset_seconds(seconds: u64) -> i32 {
    let Ok(time) = seconds.try_into() else { return 0 };
    let time: libc::time_t = time;
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
}
