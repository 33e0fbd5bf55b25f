//! Looks at the clock: by it mail is dated, and certificates are valid or not.

use std::path::Path;

use super::findings::Findings;
use crate::sys::clock;

/// What stands where others have a file.
const CLOCK: &str = "the clock";

/// Looks at what it shows, and whether anything keeps it right.
pub(super) fn look(findings: &mut Findings) {
    let now = clock::since_1970().as_secs();
    look_at(now, clock::is_synchronised(), findings);
}

fn look_at(now: u64, is_synchronised: bool, findings: &mut Findings) {
    let clock = Path::new(CLOCK);
    if clock::was_not_set(now) {
        let text = format!(
            "it was not set: it shows {}; mail is dated so, and what needs a certificate waits; set \
             it, as with `timedatectl set-ntp true`",
            clock::local_time(now)
        );
        findings.mistake(clock, None, text);
    } else if !is_synchronised {
        let text = "nothing keeps it right, as far as the kernel knows; have NTP do so, as with \
                    `timedatectl set-ntp true`";
        findings.note(clock, None, text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_was_not_set_is_a_mistake() {
        for (now, is_synchronised, is_mistake, count) in [
            (600, true, true, 1),
            (600, false, true, 1),
            (clock::PROGRAM_MADE, true, false, 0),
            (clock::PROGRAM_MADE, false, false, 1),
        ] {
            let mut findings = Findings::default();
            look_at(now, is_synchronised, &mut findings);
            assert_eq!((findings.has_mistake(), findings.iter().count()), (is_mistake, count));
        }
    }
}
