//! Numbers, sizes, times and lists as a person writes them. Each reader gives the value or a
//! clause that says what is wrong and what to write instead.

use std::time::Duration;

use super::keys::Kind;
use super::mistake::shown;

/// The units of sizes, largest first, with the octets in each.
const SIZES: [(char, u64); 3] = [('G', 1 << 30), ('M', 1 << 20), ('K', 1 << 10)];
/// The units of times, largest first, with the seconds in each.
const TIMES: [(char, u64); 4] = [('d', 86_400), ('h', 3_600), ('m', 60), ('s', 1)];
/// The most entries of a list.
const MAX_LIST: usize = 64;

/// The items of a list, which commas or blanks separate.
pub(super) fn items(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| c == ',' || c.is_whitespace()).filter(|item| !item.is_empty())
}

/// Each item of a list, read by `read`; at most [`MAX_LIST`].
pub(super) fn list<T>(
    text: &str,
    read: impl Fn(&str) -> Result<T, String>,
) -> Result<Vec<T>, String> {
    if items(text).count() > MAX_LIST {
        return Err(format!("the list is too long; give at most {MAX_LIST} entries"));
    }
    items(text).map(read).collect()
}

/// A whole number from `least` to `most`.
pub(super) fn count(text: &str, least: u64, most: u64) -> Result<u64, String> {
    let allowed = Kind::Count(least, most);
    let number =
        digits(text).ok_or_else(|| format!("{} is no number; give {allowed}", shown(text)))?;
    in_range(text, number, (least, most), allowed)
}

/// A size in octets, `35M`, from `least` to `most`.
pub(super) fn size(text: &str, least: u64, most: u64) -> Result<u64, String> {
    let allowed = Kind::Size(least, most);
    let (number, factor) = match split_unit(text) {
        (number, None) => (number, Some(1)),
        (number, Some(unit)) => (number, factor_of(unit.to_ascii_uppercase(), &SIZES)),
    };
    let (Some(number), Some(factor)) = (digits(number), factor) else {
        return Err(format!(
            "{} is no size; give {allowed}, in octets or with K, M or G behind the number",
            shown(text)
        ));
    };
    in_range(text, number.saturating_mul(factor), (least, most), allowed)
}

/// A time, `5m`, from `least` to `most` seconds. No time at all needs no unit.
pub(super) fn time(text: &str, least: u64, most: u64) -> Result<Duration, String> {
    let allowed = Kind::Time(least, most);
    if least == 0 && text == "0" {
        return Ok(Duration::ZERO);
    }
    if digits(text).is_some() {
        let text = shown(text);
        return Err(format!("{text} has no unit; put s, m, h or d behind it, {allowed}"));
    }
    let (number, unit) = split_unit(text);
    let factor = unit.and_then(|unit| factor_of(unit, &TIMES));
    let (Some(number), Some(factor)) = (digits(number), factor) else {
        return Err(format!(
            "{} is no time; give {allowed}, with s, m, h or d behind the number",
            shown(text)
        ));
    };
    in_range(text, number.saturating_mul(factor), (least, most), allowed).map(Duration::from_secs)
}

/// A list of at least one time.
pub(super) fn times(text: &str, least: u64, most: u64) -> Result<Vec<Duration>, String> {
    let times = list(text, |item| time(item, least, most))?;
    if times.is_empty() {
        return Err(format!("it names no time; give {}", Kind::Times(least, most)));
    }
    Ok(times)
}

/// `octets` with the largest unit that leaves no rest.
pub(super) fn size_text(octets: u64) -> String {
    with_unit(octets, &SIZES)
}

/// `seconds` with the largest unit that leaves no rest.
pub(super) fn time_text(seconds: u64) -> String {
    with_unit(seconds, &TIMES)
}

fn with_unit(number: u64, units: &[(char, u64)]) -> String {
    let fits = |&&(_, factor): &&(char, u64)| number >= factor && number.is_multiple_of(factor);
    match units.iter().find(fits) {
        Some((unit, factor)) => format!("{}{unit}", number / factor),
        None => number.to_string(),
    }
}

/// Only digits, at least one. What does not fit is as large as can be, and out of range.
fn digits(text: &str) -> Option<u64> {
    let is_number = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    is_number.then(|| text.parse().unwrap_or(u64::MAX))
}

fn split_unit(text: &str) -> (&str, Option<char>) {
    match text.chars().next_back() {
        Some(unit) if !unit.is_ascii_digit() => (&text[..text.len() - unit.len_utf8()], Some(unit)),
        _ => (text, None),
    }
}

fn factor_of(unit: char, units: &[(char, u64)]) -> Option<u64> {
    units.iter().find(|(known, _)| *known == unit).map(|(_, factor)| *factor)
}

fn in_range(
    text: &str,
    value: u64,
    (least, most): (u64, u64),
    allowed: Kind,
) -> Result<u64, String> {
    if (least..=most).contains(&value) {
        Ok(value)
    } else {
        Err(format!("{} is out of range; give {allowed}", shown(text)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_have_units_of_1024() {
        for (text, octets) in
            [("0", 0), ("1", 1), ("1K", 1024), ("2k", 2048), ("35M", 35 << 20), ("1024G", 1 << 40)]
        {
            assert_eq!(size(text, 0, 1 << 40), Ok(octets), "{text}");
        }
        for text in
            ["", "K", "1T", "1KB", "1 K", "-1", "+1", "1.5M", "0x10", "\u{661}", "1\u{212a}"]
        {
            assert!(size(text, 0, 1 << 40).is_err_and(|e| e.contains("is no size")), "{text}");
        }
        for text in ["1025G", "18446744073709551615G", "99999999999999999999999"] {
            assert!(size(text, 0, 1 << 40).is_err_and(|e| e.contains("out of range")), "{text}");
        }
    }

    #[test]
    fn times_have_a_unit() {
        for (text, seconds) in [("1s", 1), ("5m", 300), ("2h", 7200), ("5d", 432_000)] {
            assert_eq!(time(text, 0, 1 << 40), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "s", "5M", "5 m", "1h30m", "-1s", "5w", "5ms"] {
            assert!(time(text, 0, 1 << 40).is_err_and(|e| e.contains("is no time")), "{text}");
        }
        assert!(time("300", 0, 1000).is_err_and(|e| e.contains("has no unit")));
    }

    #[test]
    fn lists_take_commas_and_blanks() {
        for text in ["a,b", "a b", " a ,\tb, ", ",a,,b"] {
            assert_eq!(items(text).collect::<Vec<_>>(), ["a", "b"], "{text}");
        }
        assert_eq!(items(" , ").count(), 0);
        let long = "1s ".repeat(65);
        assert!(times(&long, 1, 9).is_err_and(|e| e.contains("at most 64")));
        assert_eq!(times(&long[3..], 1, 9).map(|times| times.len()), Ok(64));
    }

    proptest! {
        #[test]
        fn what_is_printed_reads_back(value in 0..=1u64 << 40) {
            prop_assert_eq!(size(&size_text(value), 0, 1 << 40), Ok(value));
            if value > 0 {
                let time = time(&time_text(value), 0, 1 << 40);
                prop_assert_eq!(time, Ok(Duration::from_secs(value)));
            }
        }

        #[test]
        fn random_text_never_panics(text in any::<String>()) {
            let _ = (count(&text, 0, 9), size(&text, 0, 9), times(&text, 0, 9));
        }
    }
}
