//! What stands in the spool beside the messages, and who may do what there: for those who look
//! whether it is so.

/// Something in the spool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its name.
    pub name: &'static str,
    /// Whether it is a folder, and not a file.
    pub is_folder: bool,
    /// The permissions that it must have, the sticky bit among them.
    pub least: u32,
    /// Those that it may have.
    pub most: u32,
}

/// `drop/`: everybody may put files there, only their owners and the server may remove them, and
/// only the server may see them all.
pub const DROP_MODE: u32 = 0o1733;
/// What lets everybody walk through the spool to `drop/`.
pub const WALK: u32 = 0o011;
/// The spool itself.
pub const SPOOL: Part = Part { name: "", is_folder: true, least: 0o700 | WALK, most: 0o755 };

/// What is in it. All of it belongs to the server's account, and the server makes what is missing.
pub const PARTS: [Part; 8] = [
    private("queue"),
    private("state"),
    private("corrupt"),
    private("failed"),
    private("wake"),
    Part { name: "drop", is_folder: true, least: DROP_MODE, most: DROP_MODE },
    file("lock"),
    file("clock"),
];

/// A folder of the server's own, which a group may be let look into.
const fn private(name: &'static str) -> Part {
    Part { name, is_folder: true, least: 0o700, most: 0o750 }
}

const fn file(name: &'static str) -> Part {
    Part { name, is_folder: false, least: 0o600, most: 0o644 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spool::dropped::DropFolder;
    use crate::spool::store::Spool;
    use crate::spool::wake::Listener;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn what_the_server_makes_is_as_it_must_be() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("spool");
        let _spool = Spool::open(&path).unwrap();
        let _drop = DropFolder::make(&path).unwrap();
        let _wake = Listener::open(&path).unwrap();
        let status = std::fs::metadata(&path).unwrap();
        assert_eq!(status.mode() & SPOOL.least, SPOOL.least);
        for entry in std::fs::read_dir(&path).unwrap() {
            let (name, status) = {
                let entry = entry.unwrap();
                (entry.file_name().into_string().unwrap(), entry.metadata().unwrap())
            };
            let part = PARTS.iter().find(|part| part.name == name).expect(&name);
            let mode = status.mode() & 0o7777;
            assert_eq!(part.is_folder, status.is_dir(), "{name}");
            assert_eq!((mode & part.least, mode & !part.most), (part.least, 0), "{name} {mode:o}");
        }
    }
}
