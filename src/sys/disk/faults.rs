//! For unit tests: a disk of which one operation fails.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::watcher::{Kind, Operation, Verdict, Watcher};

/// Lets the operations of a disk through but for the n-th, which fails with EIO.
#[derive(Debug)]
pub(crate) struct FailNth {
    left: AtomicUsize,
    tear_at: Option<usize>,
    failed: Mutex<Option<String>>,
    has_unnamed_files: bool,
    orders_data_first: Option<bool>,
}

impl FailNth {
    /// Fails the `n`-th operation, from 1.
    pub(crate) fn new(n: usize) -> Self {
        Self {
            left: AtomicUsize::new(n),
            tear_at: None,
            failed: Mutex::new(None),
            has_unnamed_files: true,
            orders_data_first: None,
        }
    }

    /// The same; a write is torn after `tear_at` octets.
    pub(crate) fn tearing(n: usize, tear_at: usize) -> Self {
        Self { tear_at: Some(tear_at), ..Self::new(n) }
    }

    /// On a file system that has or has not unnamed files, and orders data first or not.
    pub(crate) fn on(self, has_unnamed_files: bool, orders_data_first: bool) -> Self {
        Self { has_unnamed_files, orders_data_first: Some(orders_data_first), ..self }
    }

    /// The kind of the operation that has failed, without its octets.
    pub(crate) fn failed(&self) -> Option<String> {
        self.failed.lock().unwrap().clone()
    }
}

impl Watcher for FailNth {
    fn before(&self, operation: &Operation<'_>) -> Verdict {
        if operation.kind == Kind::CreateUnnamed && !self.has_unnamed_files {
            return Verdict::Fail(rustix::io::Errno::OPNOTSUPP.into());
        }
        let left = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
        if left != Ok(1) {
            return Verdict::GoOn;
        }
        let kind = format!("{:?}", operation.kind);
        let kind = kind.split('(').next().unwrap().to_owned();
        *self.failed.lock().unwrap() = Some(kind);
        let error = io::Error::from(rustix::io::Errno::IO);
        match self.tear_at {
            Some(tear_at) => Verdict::Tear(tear_at, error),
            None => Verdict::Fail(error),
        }
    }

    fn orders_data_first(&self) -> Option<bool> {
        self.orders_data_first
    }
}

/// Runs `test` with the first operation failing, then the second, and so on until all of them
/// were let through. `disk` makes the disk of which the n-th fails. `test` says whether what
/// it tried was done all the same.
pub(crate) fn each_fault(
    disk: impl Fn(usize) -> FailNth,
    mut test: impl FnMut(&Arc<FailNth>) -> bool,
) {
    for n in 1..1000 {
        let watcher = Arc::new(disk(n));
        let is_done = test(&watcher);
        if watcher.failed().is_none() {
            assert!(is_done, "it fails without a fault");
            assert!(n > 1, "no operation was watched");
            return;
        }
    }
    panic!("it never ends");
}
