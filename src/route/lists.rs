//! The lists that `:include:` names, each read again when it has changed.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use crate::deliver::outcome::Failure;
use crate::mail::text::{MAX_REMARK, one_line};
use crate::route::kept_file::{ALIASES_WRONG, KeptFile};
use crate::route::targets::{Target, read_list};

/// The largest list, in octets: some thirty thousand addresses.
pub const MAX_LIST: u64 = 1 << 20;
/// The most lists that are remembered. With more of them all are read anew.
const MAX_REMEMBERED: usize = 200;

/// What a list names, each with its line.
pub(super) type List = Vec<(usize, Target)>;

/// The lists that were read.
#[derive(Debug, Default)]
pub(super) struct Lists(Mutex<HashMap<Box<Path>, Arc<KeptFile<List>>>>);

impl Lists {
    /// What the list at `path` names now.
    ///
    /// # Errors
    /// A temporary failure when it is missing, no regular file, too large, or cannot be read and
    /// could not be before: nobody is left out because a disk is away.
    pub(super) fn load(&self, path: &Path) -> Result<Arc<List>, Failure> {
        let list = self.file(path).load(read_list)?;
        list.ok_or_else(|| {
            let text = format!("the list {} does not exist", path.display());
            Failure::new(ALIASES_WRONG, one_line(&text, MAX_REMARK))
        })
    }

    fn file(&self, path: &Path) -> Arc<KeptFile<List>> {
        // Nothing panics while it is locked.
        let mut files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = files.get(path) {
            return Arc::clone(file);
        }
        if files.len() >= MAX_REMEMBERED {
            files.clear();
        }
        let file = Arc::new(KeptFile::new(path.to_owned(), MAX_LIST, "list"));
        files.insert(path.into(), Arc::clone(&file));
        file
    }
}
