//! How much time is known to have passed since the spool was made, over all runs of the
//! daemon. Each run begins where the last one has noted that it was.
//!
//! Within one boot the kernel's clock tells what passed between two runs, sleep included. From
//! one boot to the next only the wall clock could tell; it is believed where it was
//! synchronised at both ends, for a day at most. So a clock that jumps by years ages nothing,
//! and neither does a host without a clock that was off for a month.
//!
//! The note is a file of a few lines in the spool. It is a hint, written without a flush and
//! read as if anybody had written it: where it makes no sense, less time has passed.

use std::time::{Duration, Instant};

use crate::spool::progress::Progress;
use crate::spool::store::Spool;
use crate::sys::clock;

/// How often the note is written.
const NOTE_PERIOD: Duration = Duration::from_secs(3600);
/// The most that is believed to have passed between two boots, in seconds.
const MAX_BETWEEN_BOOTS: u64 = 86_400;
/// More than has ever passed, in seconds: a century.
const MAX_PASSED: u64 = 100 * 365 * 86_400;

const FIRST_LINE: &str = "mailwren-clock 1";

/// Knows how much time has passed.
#[derive(Debug)]
pub struct Timekeeper {
    /// What had passed at the start of this process, in seconds.
    passed_before: u64,
    /// The kernel's clock at the start of this process.
    started: Duration,
    note_due: Instant,
}

/// The clocks of one moment, in seconds.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Moment {
    /// Which boot; empty where the kernel does not say.
    boot: String,
    since_boot: u64,
    wall: u64,
    is_synchronised: bool,
}

/// What had passed at a moment, as the spool keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Note {
    moment: Moment,
    passed: u64,
}

impl Timekeeper {
    /// Goes on from the note in the spool, or begins at 0.
    pub fn start(spool: &Spool) -> Self {
        let now = Moment::now();
        let note = spool.clock_note().and_then(|text| Note::parse(&text));
        let passed_before = note.map_or(0, |note| note.passed + since(&note.moment, &now));
        Self { passed_before, started: clock::since_boot(), note_due: Instant::now() }
    }

    /// What has passed, in seconds.
    pub fn now(&self) -> u64 {
        self.passed_before + clock::since_boot().saturating_sub(self.started).as_secs()
    }

    /// How old a message is by what was noted of it. A note from the future is of another
    /// reckoning: it is taken away, and only what it says to have passed before counts.
    pub fn age(&self, progress: &mut Progress) -> Duration {
        let now = self.now();
        progress.noted = progress.noted.filter(|noted| *noted <= now);
        let since = progress.noted.map_or(0, |noted| now - noted);
        Duration::from_secs(progress.waited.saturating_add(since))
    }

    /// Writes the note if the last one is old.
    pub fn note_when_due(&mut self, spool: &Spool) {
        if Instant::now() >= self.note_due {
            self.note(spool);
        }
    }

    /// Writes the note. Where that fails, the next start believes that less time has passed.
    pub fn note(&mut self, spool: &Spool) {
        self.note_due = Instant::now() + NOTE_PERIOD;
        let note = Note { moment: Moment::now(), passed: self.now() };
        if let Err(error) = spool.note_clock(&note.to_text()) {
            log::debug!("spool: the time cannot be noted: {error}");
        }
    }
}

impl Moment {
    fn now() -> Self {
        Self {
            boot: clock::boot_id().unwrap_or_default(),
            since_boot: clock::since_boot().as_secs(),
            wall: clock::since_1970().as_secs(),
            is_synchronised: clock::is_synchronised(),
        }
    }
}

/// The seconds that are known to have passed from one moment to a later one.
fn since(then: &Moment, now: &Moment) -> u64 {
    if then.boot == now.boot && !now.boot.is_empty() {
        return now.since_boot.saturating_sub(then.since_boot).min(MAX_PASSED);
    }
    let by_wall = match then.is_synchronised && now.is_synchronised {
        true => now.wall.saturating_sub(then.wall).min(MAX_BETWEEN_BOOTS),
        false => 0,
    };
    // The host has been up for so long at least; the kernel's clock is not one that jumps.
    let by_boot = if then.boot.is_empty() || now.boot.is_empty() { 0 } else { now.since_boot };
    by_wall.max(by_boot.min(MAX_PASSED))
}

impl Note {
    fn to_text(&self) -> String {
        let Moment { boot, since_boot, wall, is_synchronised } = &self.moment;
        let synchronised = if *is_synchronised { "yes" } else { "no" };
        format!(
            "{FIRST_LINE}\npassed {}\nboot {boot}\nuptime {since_boot}\nwall {wall}\nsynchronised {synchronised}\n",
            self.passed
        )
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.strip_suffix('\n')?.split('\n');
        if lines.next()? != FIRST_LINE {
            return None;
        }
        let mut value = |name: &str| lines.next()?.strip_prefix(name)?.strip_prefix(' ');
        let passed = value("passed")?.parse().ok().filter(|passed| *passed <= MAX_PASSED)?;
        let boot = value("boot")?.to_owned();
        let since_boot = value("uptime")?.parse().ok()?;
        let wall = value("wall")?.parse().ok()?;
        let is_synchronised = match value("synchronised")? {
            "yes" => true,
            "no" => false,
            _ => return None,
        };
        let moment = Moment { boot, since_boot, wall, is_synchronised };
        lines.next().is_none().then_some(Self { moment, passed })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::address::Mailbox;
    use crate::mail::dsn_request::MessageRequest;
    use crate::spool::envelope::{Body, Envelope};
    use crate::spool::id::QueueId;
    use proptest::prelude::*;
    use std::fs;

    const DAY: u64 = 86_400;
    const YEAR: u64 = 365 * DAY;

    fn moment(boot: &str, since_boot: u64, wall: u64, is_synchronised: bool) -> Moment {
        Moment { boot: boot.into(), since_boot, wall, is_synchronised }
    }

    #[test]
    fn what_is_known_to_have_passed() {
        let then = moment("a", 1000, 56 * YEAR, true);
        for (now, expected) in [
            // One boot: the kernel's clock, wherever the wall clock has gone.
            (moment("a", 1500, 56 * YEAR + 500, true), 500),
            (moment("a", 1500, 0, false), 500),
            (moment("a", 1000 + 9 * DAY, 90 * YEAR, false), 9 * DAY),
            (moment("a", 900, 57 * YEAR, true), 0),
            // Another boot: a wall clock that is synchronised, for a day at most.
            (moment("b", 10, 56 * YEAR + 500, true), 500),
            (moment("b", 10, 56 * YEAR + 3 * DAY, true), DAY),
            (moment("b", 10, 100 * YEAR, true), DAY),
            (moment("b", 10, 100 * YEAR, false), 10),
            (moment("b", 10, 46 * YEAR, true), 10),
            (moment("b", 7 * DAY, 0, false), 7 * DAY),
            // Nobody knows which boot this is.
            (moment("", 1500, 56 * YEAR, false), 0),
            (moment("", u64::MAX, u64::MAX, true), DAY),
        ] {
            assert_eq!(since(&then, &now), expected, "{now:?}");
        }
        let unsynchronised = Moment { is_synchronised: false, ..then };
        assert_eq!(since(&unsynchronised, &moment("b", 10, 56 * YEAR + 500, true)), 10);
        let nameless = moment("", 1000, 0, false);
        assert_eq!(since(&nameless, &moment("", 5000, 0, false)), 0);
    }

    fn progress(waited: u64, noted: Option<u64>) -> Progress {
        let envelope = Envelope {
            id: QueueId::generate(0, 0),
            received_at: 0,
            client: "local".into(),
            reverse_path: "<>".parse().unwrap(),
            recipients: vec!["ann@h".parse::<Mailbox>().unwrap().into()],
            body: Body::SevenBit,
            request: MessageRequest::default(),
        };
        Progress { waited, noted, ..Progress::new(&envelope) }
    }

    #[test]
    fn an_age_counts_on_from_its_note_and_not_from_the_future() {
        let started = clock::since_boot() + Duration::from_secs(3600);
        let keeper = Timekeeper { passed_before: 1000, started, note_due: Instant::now() };
        for (waited, noted, expected, is_kept) in [
            (50, None, 50, false),
            (50, Some(900), 150, true),
            (50, Some(1000), 50, true),
            (50, Some(1001), 50, false),
            (50, Some(u64::MAX), 50, false),
            (u64::MAX, Some(0), u64::MAX, true),
        ] {
            let mut progress = progress(waited, noted);
            assert_eq!(keeper.age(&mut progress), Duration::from_secs(expected), "{noted:?}");
            assert_eq!(progress.noted.is_some(), is_kept, "{noted:?}");
        }
    }

    #[test]
    fn each_run_goes_on_where_the_last_one_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("spool");
        let spool = Spool::open(&path).unwrap();
        assert!(Timekeeper::start(&spool).now() < 60);
        let note = Note { moment: Moment::now(), passed: 12_345 };
        spool.note_clock(&note.to_text()).unwrap();
        let mut keeper = Timekeeper::start(&spool);
        keeper.note(&spool);
        if clock::boot_id().is_some() {
            assert!((12_345..12_400).contains(&Timekeeper::start(&spool).now()));
        }
        for nonsense in ["", "mailwren-clock 1\n", "mailwren-clock 1\npassed 9\nboot \n", "\0\n"] {
            fs::write(path.join("clock"), nonsense).unwrap();
            assert!(Timekeeper::start(&spool).now() < 60, "{nonsense:?}");
        }
        fs::write(path.join("clock"), b"\xff\n".repeat(9000)).unwrap();
        assert!(Timekeeper::start(&spool).now() < 60);
    }

    proptest! {
        #[test]
        fn what_is_noted_reads_back(
            (since_boot, wall, is_synchronised) in any::<(u64, u64, bool)>(),
            passed in 0..=MAX_PASSED,
            boot in "[-0-9a-f]{0,36}",
        ) {
            let note = Note { moment: moment(&boot, since_boot, wall, is_synchronised), passed };
            prop_assert_eq!(Note::parse(&note.to_text()), Some(note));
        }

        #[test]
        fn nobody_can_note_more_than_a_century(text in any::<String>(), passed in any::<u64>()) {
            let _ = Note::parse(&text);
            let text = format!("{FIRST_LINE}\npassed {passed}\nboot x\nuptime 1\nwall 1\nsynchronised no\n");
            prop_assert_eq!(Note::parse(&text).is_some(), passed <= MAX_PASSED);
        }
    }
}
