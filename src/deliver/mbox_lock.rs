//! The locks of an mbox, which keep it to one program at a time: a dot-lock beside it, and the
//! locks of fcntl(2) and flock(2) on it. Which of them mail readers take, and in which order, is
//! a custom of the host; `[local] mbox_locks` says it.
//!
//! Each is tried without waiting. Where somebody else has one, all that were taken before are
//! given back, in reverse order, and the whole is tried again after a pause. So programs
//! that take them in another order never wait for each other.
//!
//! In a folder where the mbox's owner may not create files there are no dot-locks, neither ours nor
//! a reader's; then the other locks have to do. Where none is left the mail waits.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::config::settings::MboxLock;
use crate::deliver::dot_lock::{Attempt, DotLock};
use crate::deliver::outcome::Failure;
use crate::deliver::place::Target;
use crate::deliver::storage::{MAILBOX_UNUSABLE, failure, printable};
use crate::mail::text::{MAX_REMARK, one_line};
use crate::route::owner::account_name;
use crate::sys::disk::{DiskFile, Folder, Open, Status};

/// The first and the longest pause between two tries at a lock.
const PAUSES: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(200));

/// How an mbox is locked.
#[derive(Clone, Copy, Debug)]
pub struct Locking<'a> {
    /// The locks, in this order.
    pub order: &'a [MboxLock],
    /// How long to wait for other programs.
    pub patience: Duration,
}

impl<'a> Locking<'a> {
    /// Waits until no other thread is at work on the mbox at `path`.
    ///
    /// # Errors
    /// A temporary failure when that takes too long.
    pub fn wait_for_turn<'b>(&'b self, path: &'b Path) -> Result<Turn<'b>, Failure>
    where
        'a: 'b,
    {
        let deadline = Instant::now() + self.patience;
        let mut at_work = lock_at_work();
        while at_work.contains(path) {
            let left = deadline.checked_duration_since(Instant::now());
            let left = left.ok_or_else(|| busy(path))?;
            let waited = AT_WORK.1.wait_timeout(at_work, left);
            at_work = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        at_work.insert(path.to_owned());
        Ok(Turn { order: self.order, path, deadline })
    }
}

fn busy(path: &Path) -> Failure {
    Failure::new(MAILBOX_UNUSABLE, busy_text(path))
}

fn busy_text(path: &Path) -> String {
    format!("the mbox {} is locked by another program", printable(path))
}

/// The mboxes that threads of ours are at work on. Their locks would exclude each other too,
/// but only by trying again and again.
static AT_WORK: LazyLock<(Mutex<HashSet<PathBuf>>, Condvar)> = LazyLock::new(Default::default);

fn lock_at_work() -> MutexGuard<'static, HashSet<PathBuf>> {
    // A set stays a set whatever panics.
    AT_WORK.0.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The right of one thread to work on one mbox.
#[derive(Debug)]
pub struct Turn<'a> {
    order: &'a [MboxLock],
    path: &'a Path,
    deadline: Instant,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        lock_at_work().remove(self.path);
        AT_WORK.1.notify_all();
    }
}

/// An mbox with all locks taken. When this is dropped they end in the reverse order, those of
/// the file together when it is closed.
#[derive(Debug)]
pub struct Locked<'a> {
    _dot_lock_after_file: Option<DotLock<'a>>,
    /// The mbox, open to read and to append.
    pub file: DiskFile,
    _dot_lock_before_file: Option<DotLock<'a>>,
    /// What stood in its inode when they were taken.
    pub before: Status,
}

/// The locks that were taken so far. Fields are dropped in this order.
#[derive(Default)]
struct Taken<'a> {
    after_file: Option<DotLock<'a>>,
    file: Option<DiskFile>,
    before_file: Option<DotLock<'a>>,
}

impl Turn<'_> {
    /// Opens the mbox at `target`, which is in `folder`, makes it where it is missing, and
    /// takes its locks.
    ///
    /// # Errors
    /// A temporary failure when somebody else has a lock for too long, none can be taken, or
    /// it is not an mbox of its owner.
    pub fn lock<'a>(&self, folder: &'a Folder, target: &Target<'_>) -> Result<Locked<'a>, Failure> {
        let mut pause = PAUSES.0;
        loop {
            if let Some(locked) = self.try_lock(folder, target)? {
                return Ok(locked);
            }
            if Instant::now() + pause > self.deadline {
                return Err(self.locked_by_another(folder, &target.place.name));
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    /// Tries once to take all locks. `None` when somebody else has one, or put another file in
    /// the place of the one that was locked.
    fn try_lock<'a>(
        &self,
        folder: &'a Folder,
        target: &Target<'_>,
    ) -> Result<Option<Locked<'a>>, Failure> {
        let name = &target.place.name;
        let mut taken = Taken::default();
        for lock in self.order {
            let is_ours = match lock {
                MboxLock::DotLock => self.take_dot_lock(folder, name, &mut taken)?,
                MboxLock::Fcntl | MboxLock::Flock => {
                    self.take_file_lock(*lock, folder, target, &mut taken)?
                }
            };
            if !is_ours {
                return Ok(None);
            }
        }
        if taken.file.is_none() {
            // There are no locks but the dot-lock.
            if taken.before_file.is_none() {
                return Err(self.no_lock());
            }
            taken.file = self.open(folder, target)?;
        }
        let Some(file) = taken.file else { return Ok(None) };
        let status = file.status().map_err(|error| self.lock_failure(&error))?;
        if !folder.look_at(name).is_ok_and(|there| there.identity() == status.identity()) {
            return Ok(None);
        }
        Ok(Some(Locked {
            _dot_lock_after_file: taken.after_file,
            file,
            _dot_lock_before_file: taken.before_file,
            before: status,
        }))
    }

    /// Whether nobody else has the dot-lock.
    fn take_dot_lock<'a>(
        &self,
        folder: &'a Folder,
        name: &str,
        taken: &mut Taken<'a>,
    ) -> Result<bool, Failure> {
        match DotLock::try_take(folder, name).map_err(|error| self.lock_failure(&error))? {
            Attempt::Taken(lock) if taken.file.is_none() => taken.before_file = Some(lock),
            Attempt::Taken(lock) => taken.after_file = Some(lock),
            Attempt::Impossible => {}
            Attempt::Busy => return Ok(false),
        }
        Ok(true)
    }

    /// Whether nobody else has the lock on the file.
    fn take_file_lock(
        &self,
        lock: MboxLock,
        folder: &Folder,
        target: &Target<'_>,
        taken: &mut Taken<'_>,
    ) -> Result<bool, Failure> {
        if taken.file.is_none() {
            taken.file = self.open(folder, target)?;
        }
        let Some(file) = &taken.file else { return Ok(false) };
        let is_ours =
            if lock == MboxLock::Flock { file.try_lock() } else { file.try_lock_as_readers_do() };
        is_ours.map_err(|error| self.lock_failure(&error))
    }

    /// Opens the mbox without following a link, and makes it where it is missing. `None` when
    /// somebody else made it at that moment.
    fn open(&self, folder: &Folder, target: &Target<'_>) -> Result<Option<DiskFile>, Failure> {
        let name = &target.place.name;
        let opened = match folder.open(name, Open::Append) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                folder.open(name, Open::AppendToNew)
            }
            result => result,
        };
        match opened {
            Ok(file) => check(&file, target.owner, self.path).map(|()| Some(file)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(None),
            Err(error) => Err(failure(&error, "open the mbox", self.path)),
        }
    }

    fn lock_failure(&self, error: &io::Error) -> Failure {
        failure(error, "lock the mbox", self.path)
    }

    /// Where there is a dot-lock it may be one that nobody but a person can remove: in a sticky
    /// folder only its owner and the folder's may.
    fn locked_by_another(&self, folder: &Folder, name: &str) -> Failure {
        let there =
            DotLock::there(folder, name).filter(|_| self.order.contains(&MboxLock::DotLock));
        let Some((lock, uid)) = there else { return busy(self.path) };
        let lock = self.path.with_file_name(lock);
        let owner = account_name(uid).unwrap_or_else(|_| format!("uid{uid}"));
        let text = busy_text(self.path);
        let text = format!(
            "{text}: {} is there and belongs to {owner}; remove it if it was left behind",
            printable(&lock)
        );
        Failure::new(MAILBOX_UNUSABLE, one_line(&text, MAX_REMARK))
    }

    fn no_lock(&self) -> Failure {
        let text = format!(
            "cannot lock the mbox {}: its owner may not create a file beside it for the only one \
             of `mbox_locks`; add fcntl, if its readers take that, or let him",
            printable(self.path)
        );
        Failure::new(MAILBOX_UNUSABLE, text)
    }
}

/// Whether it is an ordinary file with one name that belongs to whom it should: anything else
/// was put there to have mail written, or read, elsewhere (CVE-2010-2023, CVE-2010-2024).
fn check(file: &DiskFile, owner: Option<u32>, path: &Path) -> Result<(), Failure> {
    let status = file.status().map_err(|error| failure(&error, "look at", path))?;
    let wrong = if !status.is_file() {
        "is no regular file".to_owned()
    } else if status.names() != 1 {
        format!("has {} names", status.names())
    } else if let Some(owner) = owner.filter(|&owner| owner != status.owner()) {
        format!("belongs to user id {} and not to its recipient, {owner}", status.owner())
    } else {
        return Ok(());
    };
    let text =
        format!("the mbox {} {wrong}: see who put it there, and move it away", printable(path));
    Err(Failure::new(MAILBOX_UNUSABLE, text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::settings::MboxLock::{DotLock as Dot, Fcntl, Flock};
    use crate::deliver::place::Place;
    use crate::sys::disk::{Disk, Kind, Operation, Verdict, Watcher};
    use crate::sys::filelock::{self, ends_within};
    use std::fs::{self, File};
    use std::sync::Arc;

    const PATIENCE: Duration = Duration::from_secs(30);
    const NO_PATIENCE: Duration = Duration::from_millis(5);
    const ORDERS: [&[MboxLock]; 9] = [
        &[Dot],
        &[Fcntl],
        &[Flock],
        &[Dot, Fcntl],
        &[Fcntl, Dot],
        &[Flock, Fcntl],
        &[Dot, Fcntl, Flock],
        &[Fcntl, Dot, Flock],
        &[Flock, Fcntl, Dot],
    ];

    fn place(base: &Path) -> Place {
        let (base, name) = (base.to_owned(), "ann".to_owned());
        Place { base, folders: Vec::new(), name, is_in_home: false }
    }

    /// Takes the locks on the mbox `ann`, and does something while it has them.
    fn locked<T>(
        disk: &Disk,
        base: &Path,
        locking: &Locking<'_>,
        act: impl FnOnce(&Locked<'_>) -> T,
    ) -> Result<T, Failure> {
        let place = place(base);
        let path = place.path();
        let turn = locking.wait_for_turn(&path)?;
        let folder = place.open_parent(disk)?;
        let locked = turn.lock(&folder, &Target { disk, place: &place, owner: None })?;
        Ok(act(&locked))
    }

    /// Which locks others cannot take now.
    fn held(base: &Path) -> Vec<MboxLock> {
        let file = File::options().write(true).open(base.join("ann")).unwrap();
        let mut held = Vec::new();
        held.extend(base.join("ann.lock").exists().then_some(Dot));
        held.extend((!filelock::try_lock(&file).unwrap()).then_some(Fcntl));
        held.extend(file.try_lock().is_err().then_some(Flock));
        held
    }

    #[test]
    fn the_locks_that_are_wanted_are_taken_and_no_other() {
        for order in ORDERS {
            let base = tempfile::tempdir().unwrap();
            let locking = Locking { order, patience: PATIENCE };
            let mut found = locked(&Disk::host(), base.path(), &locking, |_| held(base.path()));
            let found = found.as_mut().unwrap();
            let rank = |lock: &MboxLock| order.iter().position(|other| other == lock);
            found.sort_by_key(rank);
            assert_eq!(found, order);
            assert!(ends_within(PATIENCE, || !held(base.path()).is_empty()), "{order:?}");
        }
    }

    #[test]
    fn a_lock_of_another_is_waited_for_and_then_respected() {
        for order in ORDERS {
            for lock in order {
                let base = tempfile::tempdir().unwrap();
                let other = File::create(base.path().join("ann")).unwrap();
                let dot_lock = base.path().join("ann.lock");
                match lock {
                    Dot => fs::write(&dot_lock, "").unwrap(),
                    Fcntl => assert!(filelock::try_lock(&other).unwrap()),
                    Flock => other.lock().unwrap(),
                }
                let lock_it = |patience| {
                    locked(&Disk::host(), base.path(), &Locking { order, patience }, |_| ())
                };
                let failure = lock_it(NO_PATIENCE).unwrap_err();
                let names_dot_lock = failure.text.contains("ann.lock is there and belongs to ");
                assert!(failure.text.contains("locked by another"), "{}", failure.text);
                assert_eq!(names_dot_lock, *lock == Dot, "{}", failure.text);
                let has_more = || held(base.path()) != [*lock];
                assert!(ends_within(PATIENCE, has_more), "{order:?}: what was taken stays");
                std::thread::scope(|scope| {
                    let waiting = scope.spawn(|| lock_it(PATIENCE));
                    drop(other);
                    if *lock == Dot {
                        fs::remove_file(&dot_lock).unwrap();
                    }
                    waiting.join().unwrap().unwrap();
                });
                assert!(ends_within(PATIENCE, || !held(base.path()).is_empty()), "{order:?}");
            }
        }
    }

    #[test]
    fn locks_that_are_not_wanted_do_not_count() {
        let base = tempfile::tempdir().unwrap();
        fs::write(base.path().join("ann.lock"), "").unwrap();
        let other = File::create(base.path().join("ann")).unwrap();
        other.lock().unwrap();
        let locking = Locking { order: &[Fcntl], patience: NO_PATIENCE };
        locked(&Disk::host(), base.path(), &locking, |_| ()).unwrap();
        assert!(ends_within(PATIENCE, || held(base.path()) != [Dot, Flock]));
    }

    /// Notes whether the lock of fcntl is there still when the dot-lock goes.
    #[derive(Debug)]
    struct AtTheEnd(PathBuf, Mutex<Option<bool>>);

    impl Watcher for AtTheEnd {
        fn before(&self, operation: &Operation<'_>) -> Verdict {
            if operation.kind == Kind::Unlink {
                let is_held = || held(&self.0).contains(&Fcntl);
                let is_held = !ends_within(Duration::from_secs(1), is_held);
                *self.1.lock().unwrap() = Some(is_held);
            }
            Verdict::GoOn
        }
    }

    #[test]
    fn locks_end_in_the_reverse_order() {
        for (order, is_held) in
            [([Dot, Fcntl], false), ([Fcntl, Dot], true)] as [([MboxLock; 2], bool); 2]
        {
            let base = tempfile::tempdir().unwrap();
            let watcher = Arc::new(AtTheEnd(base.path().to_owned(), Mutex::default()));
            let disk = Disk::watched(watcher.clone());
            let locking = Locking { order: &order, patience: PATIENCE };
            locked(&disk, base.path(), &locking, |_| ()).unwrap();
            assert_eq!(*watcher.1.lock().unwrap(), Some(is_held), "{order:?}");
        }
    }

    /// A disk on which nobody may create files.
    #[derive(Debug)]
    struct NoNewFiles;

    impl Watcher for NoNewFiles {
        fn before(&self, operation: &Operation<'_>) -> Verdict {
            match operation.kind {
                Kind::CreateUnnamed | Kind::Create => {
                    Verdict::Fail(rustix::io::Errno::ACCESS.into())
                }
                _ => Verdict::GoOn,
            }
        }
    }

    #[test]
    fn without_the_right_to_a_dot_lock_the_others_do_or_the_mail_waits() {
        let disk = Disk::watched(Arc::new(NoNewFiles));
        for order in ORDERS {
            let base = tempfile::tempdir().unwrap();
            fs::write(base.path().join("ann"), "").unwrap();
            let locking = Locking { order, patience: NO_PATIENCE };
            let found = locked(&disk, base.path(), &locking, |_| held(base.path()));
            if order == [Dot] {
                let failure = found.unwrap_err();
                assert!(failure.text.contains("mbox_locks"), "{}", failure.text);
                continue;
            }
            assert_eq!(found.unwrap().len(), order.iter().filter(|lock| **lock != Dot).count());
        }
    }
}
