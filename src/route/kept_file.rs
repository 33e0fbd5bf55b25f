//! A file that people edit while it is in use: of a version that cannot be read the log tells, and
//! the last good one stays, also while the file is missing for a moment as it is saved. It may be a
//! user's, and is read with no more rights than that user has.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::deliver::outcome::Failure;
use crate::mail::status::Status;
use crate::mail::text::{MAX_REMARK, one_line};
use crate::report::complaint::Complaint;
use crate::route::targets::AliasError;
use crate::sys::watched::WatchedFile;

/// The alias file is wrong (RFC 3463: system incorrectly configured); mail waits until it is
/// mended.
pub(super) const ALIASES_WRONG: Status = Status::new(4, 3, 5);

/// What a version means. A broken one stands here only when none before it was good.
type Version<T> = Result<Arc<T>, AliasError>;

/// An alias file or a list.
#[derive(Debug)]
pub(super) struct KeptFile<T> {
    file: WatchedFile<Version<T>>,
    /// What it is, for people.
    what: &'static str,
    unreadable: Complaint,
}

impl<T> KeptFile<T> {
    /// The file at `path`, which is `what`. One with more than `max_octets` is not read.
    pub(super) fn new(path: PathBuf, max_octets: u64, what: &'static str) -> Self {
        let file = WatchedFile::of_users(path, max_octets).patient();
        Self { file, what, unreadable: Complaint::new() }
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        self.file.path()
    }

    /// What the file means now; `None` where there is none, and was none a minute ago. `read` is
    /// asked about what has changed.
    ///
    /// # Errors
    /// A temporary failure when it cannot be read, or makes no sense, and no version before did.
    pub(super) fn load(
        &self,
        read: fn(&[u8]) -> Result<T, AliasError>,
    ) -> Result<Option<Arc<T>>, Failure> {
        let path = self.path().display();
        let version = self.file.load(|octets, before| self.version(read(octets), before));
        match version {
            Ok(version) => match &*version {
                Ok(good) => Ok(Some(Arc::clone(good))),
                // What the file says is for its owner, who finds it in the log.
                Err(error) => Err(self.wrong(&format!(
                    "is wrong: {path}:{}: this line cannot be read; run `mailwren aliases`",
                    error.line
                ))),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => self.kept(&error).map(Some),
        }
    }

    /// What a file meant that cannot be read any more.
    fn kept(&self, error: &io::Error) -> Result<Arc<T>, Failure> {
        let path = self.path().display();
        let Some(good) = self.file.latest().and_then(|it| it.as_ref().as_ref().ok().cloned())
        else {
            return Err(self.wrong(&format!("{path} cannot be read: {error}")));
        };
        let what = self.what;
        self.unreadable.error(format_args!(
            "the {what} {path} cannot be read: {error}; what stood there before stays"
        ));
        Ok(good)
    }

    fn wrong(&self, text: &str) -> Failure {
        Failure::new(ALIASES_WRONG, one_line(&format!("the {} {text}", self.what), MAX_REMARK))
    }

    /// Takes a new version; where it is broken, the good one before it stays.
    fn version(
        &self,
        read: Result<T, AliasError>,
        before: Option<Arc<Version<T>>>,
    ) -> Arc<Version<T>> {
        let error = match read {
            Ok(good) => return Arc::new(Ok(Arc::new(good))),
            Err(error) => error,
        };
        let kept = before.filter(|before| before.is_ok());
        let remark = match kept {
            Some(_) => "what stood there before the change stays",
            None => "mail waits",
        };
        let text = one_line(&error.text, MAX_REMARK);
        log::error!("{}:{}: {text}; {remark}", self.path().display(), error.line);
        kept.unwrap_or_else(|| Arc::new(Err(error)))
    }
}
