//! Dates as mail writes them: the `Date` and `Received` form (RFC 5322 §3.3), and the
//! asctime form of an mbox's From_ line (RFC 4155 appendix A).

use std::fmt;

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const DAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
const SECONDS_PER_DAY: u64 = 86_400;
/// The end of the year 9999, since RFC 5322 and readers know years of four digits.
const LAST_SECOND: u64 = 253_402_300_799;
/// No time zone is further from UTC.
const MAX_OFFSET: i32 = 86_399;

/// A moment as a calendar and a clock with a known distance from UTC show it. `Display` is
/// the form of RFC 5322, `Sun, 22 Nov 2026 03:46:52 +0100`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CivilTime {
    year: u64,
    month: u64,
    day: u64,
    weekday: u64,
    second_of_day: u64,
    offset_minutes: i32,
}

impl CivilTime {
    /// The moment `seconds` after 1970, shown by a clock that is `utc_offset_seconds` ahead
    /// of UTC. Moments after the year 9999 are shown as its last second.
    pub fn new(seconds: u64, utc_offset_seconds: i32) -> Self {
        // RFC 5322 writes whole minutes; the offsets of before 1970 alone have seconds.
        let offset_minutes = utc_offset_seconds.clamp(-MAX_OFFSET, MAX_OFFSET) / 60;
        let shown = seconds.saturating_add_signed(i64::from(offset_minutes) * 60).min(LAST_SECOND);
        let days = shown / SECONDS_PER_DAY;
        let (year, month, day) = date_of(days);
        let second_of_day = shown % SECONDS_PER_DAY;
        // 1970 began on a Thursday.
        Self { year, month, day, weekday: (days + 4) % 7, second_of_day, offset_minutes }
    }

    /// In the form `Sun Nov 22 03:46:52 2026`, without the offset.
    pub fn asctime(&self) -> impl fmt::Display {
        let Self { year, day, .. } = *self;
        format!("{} {} {day:2} {} {year:04}", self.day_name(), self.month_name(), self.time())
    }

    /// In the form `Nov 22 03:46:52`, as log daemons want it (RFC 3164 §4.1.2).
    pub fn stamp(&self) -> impl fmt::Display {
        format!("{} {:2} {}", self.month_name(), self.day, self.time())
    }

    /// In the form `2026-11-22T03:46:52+01:00` (RFC 3339).
    pub fn rfc3339(&self) -> impl fmt::Display {
        let Self { year, month, day, offset_minutes, .. } = *self;
        let sign = if offset_minutes < 0 { '-' } else { '+' };
        let (hours, minutes) = (offset_minutes.abs() / 60, offset_minutes.abs() % 60);
        let time = self.time();
        format!("{year:04}-{:02}-{day:02}T{time}{sign}{hours:02}:{minutes:02}", month + 1)
    }

    fn day_name(&self) -> &'static str {
        DAYS[self.weekday as usize % DAYS.len()]
    }

    fn month_name(&self) -> &'static str {
        MONTHS[self.month as usize % MONTHS.len()]
    }

    fn time(&self) -> String {
        let seconds = self.second_of_day;
        format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
    }
}

impl fmt::Display for CivilTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { year, day, .. } = *self;
        write!(f, "{}, {day} {} {year:04} {} ", self.day_name(), self.month_name(), self.time())?;
        let sign = if self.offset_minutes < 0 { '-' } else { '+' };
        let minutes = self.offset_minutes.unsigned_abs();
        write!(f, "{sign}{:02}{:02}", minutes / 60, minutes % 60)
    }
}

/// The year, the month from 0 and the day from 1 of a day counted from the start of 1970.
///
/// Counted in years that begin in March, a leap day is the last of its year, and the months
/// before it repeat with 153 days in each five. 719 468 days lie between the March that began
/// year 0 and 1970.
fn date_of(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12;
    let year = era * 400 + year_of_era + u64::from(month < 2);
    (year, month, day)
}

/// The seconds since 1970 of a moment as [`CivilTime::rfc3339`] writes it; `None` for anything
/// else, and for moments before 1970.
pub fn seconds_of_rfc3339(text: &str) -> Option<u64> {
    let octets = text.as_bytes();
    let is_at =
        |place: usize, allowed: &[u8]| octets.get(place).is_some_and(|o| allowed.contains(o));
    let separators: [(usize, &[u8]); 7] =
        [(4, b"-"), (7, b"-"), (10, b"T"), (13, b":"), (16, b":"), (19, b"+-"), (22, b":")];
    if octets.len() != 25 || !separators.iter().all(|(place, allowed)| is_at(*place, allowed)) {
        return None;
    }
    let number = |from: usize, to: usize, most: u64| {
        let digits = text.get(from..to).filter(|text| text.bytes().all(|o| o.is_ascii_digit()))?;
        digits.parse::<u64>().ok().filter(|number| *number <= most)
    };
    let (year, month, day) = (number(0, 4, 9999)?, number(5, 7, 12)?, number(8, 10, 31)?);
    let days = days_until(year, month.checked_sub(1)?, day)?;
    let (hour, minute, second) = (number(11, 13, 23)?, number(14, 16, 59)?, number(17, 19, 59)?);
    let shown = days * SECONDS_PER_DAY + hour * 3600 + minute * 60 + second;
    let offset = number(20, 22, 23)? * 3600 + number(23, 25, 59)? * 60;
    if octets[19] == b'-' { shown.checked_add(offset) } else { shown.checked_sub(offset) }
}

/// The days from the start of 1970 to a day, its month from 0: the other way round than
/// [`date_of`]. `None` where there is no such day, or it was before.
fn days_until(year: u64, month: u64, day: u64) -> Option<u64> {
    let (year_from_march, month_from_march) = match month {
        0 | 1 => (year.checked_sub(1)?, month + 10),
        _ => (year, month - 2),
    };
    let (era, year_of_era) = (year_from_march / 400, year_from_march % 400);
    let day_of_year = (153 * month_from_march + 2) / 5 + day.checked_sub(1)?;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    let days = (era * 146_097 + day_of_era).checked_sub(719_468)?;
    (date_of(days) == (year, month, day)).then_some(days)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_moments() {
        for (seconds, offset, date, asctime) in [
            (0, 0, "Thu, 1 Jan 1970 00:00:00 +0000", "Thu Jan  1 00:00:00 1970"),
            (951_782_400, 0, "Tue, 29 Feb 2000 00:00:00 +0000", "Tue Feb 29 00:00:00 2000"),
            (951_868_799, 3600, "Wed, 1 Mar 2000 00:59:59 +0100", "Wed Mar  1 00:59:59 2000"),
            (1_795_319_212, -16_200, "Sat, 21 Nov 2026 23:16:52 -0430", "Sat Nov 21 23:16:52 2026"),
            (4_107_542_400, 0, "Mon, 1 Mar 2100 00:00:00 +0000", "Mon Mar  1 00:00:00 2100"),
            (1_795_319_212, -59, "Sun, 22 Nov 2026 03:46:52 +0000", "Sun Nov 22 03:46:52 2026"),
            (LAST_SECOND, 0, "Fri, 31 Dec 9999 23:59:59 +0000", "Fri Dec 31 23:59:59 9999"),
            (u64::MAX, 3600, "Fri, 31 Dec 9999 23:59:59 +0100", "Fri Dec 31 23:59:59 9999"),
        ] {
            let time = CivilTime::new(seconds, offset);
            assert_eq!(time.to_string(), date);
            assert_eq!(time.asctime().to_string(), asctime);
        }
    }

    #[test]
    fn each_day_follows_the_one_before() {
        let mut before = date_of(0);
        for days in 1..200_000 {
            let date = date_of(days);
            let next_day = date.2 == before.2 + 1 && (date.0, date.1) == (before.0, before.1);
            let next_month = date.2 == 1 && before.2 >= 28 && (before.1 + 1) % 12 == date.1;
            assert!(next_day || next_month, "{before:?} {date:?}");
            before = date;
        }
    }

    #[test]
    fn an_rfc3339_time_reads_back() {
        for seconds in (0..LAST_SECOND).step_by(86_400 * 97 + 12_345) {
            for offset in [0, 3600, -16_200, 50_400] {
                let text = CivilTime::new(seconds, offset).rfc3339().to_string();
                let shown_since_1970 = seconds.checked_add_signed(i64::from(offset)).is_some();
                if shown_since_1970 && seconds < LAST_SECOND - 86_400 {
                    assert_eq!(seconds_of_rfc3339(&text), Some(seconds), "{text}");
                }
            }
        }
        for text in [
            "",
            "2026-11-22",
            "2026-11-22T03:46:52Z",
            "2026-11-22T03:46:52+0100",
            "2026-11-22 03:46:52+01:00",
            "2026-02-29T03:46:52+01:00",
            "2026-00-22T03:46:52+01:00",
            "2026-11-00T03:46:52+01:00",
            "2026-11-22T24:46:52+01:00",
            "2026-11-22T03:46:+2+01:00",
            "1969-12-31T23:59:59+00:00",
            "1970-01-01T00:00:00+01:00",
            "\u{661}26-11-22T03:46:52+01:00",
        ] {
            assert_eq!(seconds_of_rfc3339(text), None, "{text}");
        }
    }
}
