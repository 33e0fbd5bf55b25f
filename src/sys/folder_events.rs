//! Waiting for new files in a folder (inotify(7)), without looking again and again.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};

/// The longest wait: where the system does not tell of new files, that often is looked.
const LONGEST_WAIT: Timespec = Timespec { tv_sec: 60, tv_nsec: 0 };

/// The files that come into a folder.
#[derive(Debug)]
pub struct FolderEvents {
    /// None where the system does not tell.
    events: Option<OwnedFd>,
}

impl FolderEvents {
    /// Watches the folder at `path`. Where that cannot be done the log says so.
    pub fn watch(path: &Path) -> Self {
        let events = watch(path)
            .inspect_err(|error| log::warn!("{}: cannot be watched: {error}", path.display()));
        Self { events: events.ok() }
    }

    /// Waits until a file has come, for a minute at most.
    pub fn wait(&self) {
        let Some(events) = &self.events else {
            let _ = poll(&mut [], Some(&LONGEST_WAIT));
            return;
        };
        let _ = poll(&mut [PollFd::new(events, PollFlags::IN)], Some(&LONGEST_WAIT));
        let mut buffer = [0; 4096];
        // What has happened shows in the folder. The descriptor never blocks.
        while rustix::io::read(events, &mut buffer).is_ok_and(|count| count > 0) {}
    }
}

fn watch(path: &Path) -> io::Result<OwnedFd> {
    let events = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
    inotify::add_watch(&events, path, WatchFlags::CREATE | WatchFlags::MOVED_TO)?;
    Ok(events)
}
