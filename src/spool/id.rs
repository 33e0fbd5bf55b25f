//! Queue ids: what names a message from the moment that it is received.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};

/// The digits of an id: 32 of them, without those that look alike, in ASCII order so that
/// ids sort by age.
const DIGITS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
/// Digits in an id: thirteen times five bits hold a `u64`.
const LENGTH: usize = 13;
/// Bits below the microseconds, random.
const RANDOM_BITS: u32 = 12;

/// The name of a message in the queue: 13 lower-case letters and digits. Ids of one process
/// never repeat, and they sort by the time at which they were made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct QueueId(u64);

impl QueueId {
    /// A new id for a message received `microseconds` after 1970. `random` makes it unlike
    /// the ids of other runs at a time when the clock was wrong.
    pub fn generate(microseconds: u64, random: u64) -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        let wanted = (microseconds << RANDOM_BITS) | (random & ((1 << RANDOM_BITS) - 1));
        let next = |last: u64| Some(wanted.max(last.wrapping_add(1)));
        // The closure never gives None, so both arms hold the last id.
        let last = match LAST.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next) {
            Ok(last) | Err(last) => last,
        };
        Self(wanted.max(last.wrapping_add(1)))
    }

    /// The id with that number.
    #[cfg(test)]
    pub(crate) const fn with_number(number: u64) -> Self {
        Self(number)
    }

    /// When it was made, in seconds since 1970 by the clock of that moment.
    pub const fn made_at(self) -> u64 {
        (self.0 >> RANDOM_BITS) / 1_000_000
    }

    /// The id as a number, which tells it from others.
    pub const fn number(self) -> u64 {
        self.0
    }
}

impl fmt::Display for QueueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0; LENGTH];
        for (place, digit) in text.iter_mut().rev().enumerate() {
            *digit = DIGITS[(self.0 >> (5 * place)) as usize & 31];
        }
        f.write_str(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
    }
}

/// The text is no queue id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAQueueId;

impl fmt::Display for NotAQueueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a queue id: 13 lower-case letters and digits")
    }
}

impl std::error::Error for NotAQueueId {}

impl FromStr for QueueId {
    type Err = NotAQueueId;

    fn from_str(text: &str) -> Result<Self, NotAQueueId> {
        if text.len() != LENGTH {
            return Err(NotAQueueId);
        }
        let id = text.bytes().try_fold(0u64, |id, octet| {
            let digit = DIGITS.iter().position(|&digit| digit == octet).ok_or(NotAQueueId)?;
            id.checked_mul(32).map(|id| id | digit as u64).ok_or(NotAQueueId)
        })?;
        Ok(Self(id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ids_never_repeat_and_sort_by_age() {
        let ids: Vec<_> = (0..1000).map(|_| QueueId::generate(1_800_000_000_000_000, 7)).collect();
        assert!(ids.windows(2).all(|pair| pair[0] < pair[1]));
        assert!(ids.windows(2).all(|pair| pair[0].to_string() < pair[1].to_string()));
    }

    #[test]
    fn an_id_tells_when_it_was_made() {
        let made = 3_000_000_000;
        assert_eq!(QueueId::generate(made * 1_000_000 + 5, 4095).made_at(), made);
    }

    #[test]
    fn what_is_no_id_is_refused() {
        for text in [
            "",
            "0",
            "0000000000000/",
            "000000000000i",
            "00000000000000",
            "../../../etc/",
            "zzzzzzzzzzzzz",
            "000000000000A",
        ] {
            assert_eq!(text.parse::<QueueId>(), Err(NotAQueueId), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_reads_back(id in any::<u64>()) {
            let id = QueueId(id);
            prop_assert_eq!(id.to_string().parse(), Ok(id));
        }
    }
}
