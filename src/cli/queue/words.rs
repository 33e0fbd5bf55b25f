//! Spans of time and sizes as people read them.

use std::fmt;

const UNITS: [(u64, &str); 4] = [(86_400, "d"), (3600, "h"), (60, "m"), (1, "s")];

/// A span of time in its two largest units: `3h 12m`, `45s`.
pub(in crate::cli) struct Span(pub(in crate::cli) u64);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let largest = UNITS.iter().position(|(unit, _)| self.0 >= *unit).unwrap_or(3);
        let mut rest = self.0;
        let mut parts = Vec::new();
        for (unit, name) in UNITS.iter().skip(largest).take(2) {
            if parts.is_empty() || rest >= *unit {
                parts.push(format!("{}{name}", rest / unit));
            }
            rest %= unit;
        }
        f.pad(&parts.join(" "))
    }
}

/// A size in the largest unit that it fills: `812 B`, `1.2 KiB`.
pub(in crate::cli) struct Size(pub(in crate::cli) u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut unit, mut scale) = ("B", 1);
        for name in ["KiB", "MiB", "GiB"] {
            if self.0 / scale >= 1024 {
                (unit, scale) = (name, scale * 1024);
            }
        }
        let (whole, tenths) = (self.0 / scale, self.0 % scale * 10 / scale);
        match scale {
            1 => f.pad(&format!("{whole} {unit}")),
            _ => f.pad(&format!("{whole}.{tenths} {unit}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans() {
        for (seconds, text) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1m"),
            (61, "1m 1s"),
            (11_520, "3h 12m"),
            (3601, "1h"),
            (86_400 * 5 + 3700, "5d 1h"),
        ] {
            assert_eq!(Span(seconds).to_string(), text);
        }
        assert_eq!(format!("{:>4}|{:<4}|", Span(1), Span(2)), "  1s|2s  |");
        assert!(!Span(u64::MAX).to_string().is_empty());
    }

    #[test]
    fn sizes() {
        for (octets, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1_258_291, "1.1 MiB"),
            (35 << 20, "35.0 MiB"),
            (3 << 40, "3072.0 GiB"),
        ] {
            assert_eq!(Size(octets).to_string(), text);
        }
        assert!(!Size(u64::MAX).to_string().is_empty());
    }
}
