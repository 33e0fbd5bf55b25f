//! The quota of a Maildir, as the file `maildirsize` in it has it (Maildir++). Its first line is
//! the limits, such as `10000000S,1000C`: octets and messages. Each further line is what came or
//! went, such as `2200 1` or `-2200 -1`; their sum is what the mailbox holds. Every program that
//! delivers or deletes appends such a line.
//!
//! The file is a cache: who doubts it counts the messages and writes it anew. We do where it has
//! become long, where a line of it is not to be understood, and where a message would not fit by a
//! file older than 15 minutes, since readers such as mutt delete without a word in it. So nothing
//! of it is flushed. A line that a power cut takes away, and one that another program appends while
//! we count, only makes the mailbox count as emptier than it is, until it is counted again; octets
//! that a power cut leaves in place of a line have it counted at once.
//!
//! As Maildir++ says, a message counts as large as `,S=` in its name says, and the folder
//! `.Trash` does not count. Messages with the flag T do, as with Dovecot.
//!
//! A quota stops mail for a while (4.2.2), never for good: a person can make room. A file that
//! says nothing sensible, or is none, stops nothing and is logged.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::deliver::outcome::Failure;
use crate::deliver::storage::{MAILBOX_FULL, printable};
use crate::sys::clock;
use crate::sys::disk::{DiskFile, Folder, Open};

/// The file with the quota.
const NAME: &str = "maildirsize";
/// A longer file is written anew, in octets (Maildir++).
const MAX_FILE: u64 = 5120;
/// The longest first line, in octets.
const MAX_DEFINITION: usize = 256;
/// From this age on a file is not believed that a mailbox is full (Maildir++).
const STALE_SECONDS: u64 = 15 * 60;
/// The folder that does not count.
const TRASH: &str = ".Trash";
/// The most folders and the most messages that are counted. Larger mailboxes have no quota.
const MAX_FOLDERS: usize = 10_000;
const MAX_MESSAGES: u64 = 1_000_000;

/// The quota of one Maildir.
#[derive(Debug)]
pub struct Quota<'a> {
    maildir: &'a Folder,
    path: PathBuf,
    file: DiskFile,
    modified_seconds: i64,
    sheet: Sheet,
}

/// What the file says.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Sheet {
    /// Its first line as it stands there.
    definition: String,
    limits: Size,
    /// What the mailbox holds; `None` where it has to be counted.
    used: Option<Size>,
}

/// Octets and messages. As limits, 0 is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Size {
    octets: u64,
    messages: u64,
}

impl<'a> Quota<'a> {
    /// The quota of the Maildir `maildir` at `path`. `None` where it has none: no file, or
    /// one that is not fit for it, which is logged. `owner` is who must own the file, where
    /// that matters.
    pub fn of(maildir: &'a Folder, path: &Path, owner: Option<u32>) -> Option<Self> {
        let path = path.join(NAME);
        match Self::open(maildir, &path, owner) {
            Ok(quota) => quota,
            Err(reason) => {
                log::warn!("the quota {} does not count: {reason}", printable(&path));
                None
            }
        }
    }

    fn open(maildir: &'a Folder, path: &Path, owner: Option<u32>) -> Result<Option<Self>, String> {
        let file = match maildir.open(NAME, Open::Append) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file.map_err(|error| error.to_string())?,
        };
        let status = file.status().map_err(|error| error.to_string())?;
        if !status.is_file() || status.names() != 1 {
            return Err("it is no file, or has two names; move it away".to_owned());
        }
        if owner.is_some_and(|owner| owner != status.owner()) {
            return Err("it does not belong to the mailbox's owner; give it to him".to_owned());
        }
        let text = file.read_up_to(MAX_FILE + 1).map_err(|error| error.to_string())?;
        let sheet = Sheet::parse(&text).ok_or(
            "its first line is not like 10000000S,1000C, octets and messages; mend or remove it",
        )?;
        let path = path.to_owned();
        let modified_seconds = status.modified_seconds();
        Ok(Some(Self { maildir, path, file, modified_seconds, sheet }))
    }

    /// Whether a message of so many octets may come in.
    ///
    /// # Errors
    /// A temporary failure where it may not.
    pub fn admit(&mut self, octets: u64) -> Result<(), Failure> {
        let is_believed = match self.sheet.used {
            Some(used) => self.has_room(used, octets) || !self.is_stale(),
            None => false,
        };
        if !is_believed && let Err(error) = self.count_anew() {
            let path = printable(&self.path);
            log::warn!("the quota {path} does not count, since the mailbox cannot be: {error}");
            return Ok(());
        }
        if self.sheet.used.is_none_or(|used| self.has_room(used, octets)) {
            return Ok(());
        }
        let text = format!(
            "the mailbox is full: a message of {octets} octets is more than {} leaves of {}; make \
             room in the mailbox or raise the quota",
            printable(&self.path),
            self.sheet.definition
        );
        Err(Failure::new(MAILBOX_FULL, text))
    }

    /// Notes that a message of so many octets has come in.
    pub fn add(mut self, octets: u64) {
        // One call, so that lines of several programs do not mix.
        if let Err(error) = self.file.write_all(format!("{octets} 1\n").as_bytes()) {
            log::warn!("cannot note a message in {}: {error}", printable(&self.path));
        }
    }

    fn has_room(&self, used: Size, octets: u64) -> bool {
        let fits = |limit, used: u64, more| limit == 0 || used.saturating_add(more) <= limit;
        let limits = self.sheet.limits;
        fits(limits.octets, used.octets, octets) && fits(limits.messages, used.messages, 1)
    }

    fn is_stale(&self) -> bool {
        let now = clock::since_1970().as_secs();
        // A time to come is a clock that was wrong.
        u64::try_from(self.modified_seconds)
            .is_ok_and(|modified| now.checked_sub(modified).is_none_or(|age| age >= STALE_SECONDS))
    }

    /// Counts the messages, and puts a file with the sum in the place of the old one.
    fn count_anew(&mut self) -> io::Result<()> {
        let used = count(self.maildir)?;
        self.sheet.used = Some(used);
        match self.write_anew(used) {
            Ok(file) => self.file = file,
            Err(error) => log::warn!("cannot write {} anew: {error}", printable(&self.path)),
        }
        Ok(())
    }

    fn write_anew(&self, used: Size) -> io::Result<DiskFile> {
        let text = format!("{}\n{} {}\n", self.sheet.definition, used.octets, used.messages);
        let folder = self.maildir.walk_to("tmp")?;
        let name = format!("{NAME}.{}.{}", std::process::id(), clock::since_1970().as_nanos());
        let mut file = folder.open(&name, Open::AppendToNew)?;
        let written =
            file.write_all(text.as_bytes()).and_then(|()| folder.rename(&name, self.maildir, NAME));
        if written.is_err() {
            let _ = folder.unlink(&name);
        }
        written.map(|()| file)
    }
}

impl Sheet {
    /// Reads a file, which is cut behind [`MAX_FILE`] octets. `None` where its limits cannot be
    /// read.
    fn parse(text: &[u8]) -> Option<Self> {
        let end = text.iter().position(|&octet| octet == b'\n').unwrap_or(text.len());
        let is_long = text.len() as u64 > MAX_FILE;
        let definition = str::from_utf8(&text[..end]).ok()?.trim();
        let limits = Size::parse_limits(definition).filter(|_| end <= MAX_DEFINITION)?;
        let used = if is_long { None } else { sum(text.get(end + 1..).unwrap_or_default()) };
        Some(Self { definition: definition.to_owned(), limits, used })
    }
}

impl Size {
    /// Reads `10000000S,1000C`; either may be missing. Limits of another kind are passed over.
    fn parse_limits(text: &str) -> Option<Self> {
        let mut limits = Self::default();
        for part in text.split(',') {
            let digits = part.trim_end_matches(|c: char| c.is_ascii_alphabetic());
            let number = digits.parse::<u64>().ok().filter(|_| !digits.starts_with('+'))?;
            match &part[digits.len()..] {
                "S" => limits.octets = number,
                "C" => limits.messages = number,
                kind if kind.len() == 1 => {}
                _ => return None,
            }
        }
        Some(limits)
    }

    fn add(&mut self, octets: u64) {
        self.octets = self.octets.saturating_add(octets);
        self.messages += 1;
    }
}

/// The sum of lines such as `2200 1`. `None` where one is not to be understood or the last one is
/// not whole, or the sum is negative: then something was lost.
fn sum(lines: &[u8]) -> Option<Size> {
    let text = str::from_utf8(lines).ok()?;
    if !text.is_empty() && !text.ends_with('\n') {
        return None;
    }
    let (mut octets, mut messages) = (0_i64, 0_i64);
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace().map(str::parse::<i64>);
        let (Some(Ok(more_octets)), Some(Ok(more_messages)), None) =
            (words.next(), words.next(), words.next())
        else {
            return None;
        };
        octets = octets.checked_add(more_octets)?;
        messages = messages.checked_add(more_messages)?;
    }
    Some(Size { octets: octets.try_into().ok()?, messages: messages.try_into().ok()? })
}

/// Counts the messages of a Maildir and of its folders.
fn count(maildir: &Folder) -> io::Result<Size> {
    let mut folders = Vec::new();
    maildir.open_folder(".")?.each_name(|name| {
        if name.starts_with('.') && name != TRASH && folders.len() <= MAX_FOLDERS {
            folders.push(name.to_owned());
        }
    })?;
    if folders.len() > MAX_FOLDERS {
        return Err(io::Error::other("it has too many folders"));
    }
    let mut used = Size::default();
    count_folder(maildir, &mut used)?;
    for name in folders {
        match maildir.walk_to(&name) {
            Ok(folder) => count_folder(&folder, &mut used)?,
            // A file, a link, or a folder that a reader has removed just now.
            Err(error) if is_none(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(used)
}

fn count_folder(folder: &Folder, used: &mut Size) -> io::Result<()> {
    for name in ["new", "cur"] {
        let messages = match folder.open_folder(name) {
            Err(error) if is_none(&error) => continue,
            messages => messages?,
        };
        let mut has_too_many = false;
        messages.each_name(|name| {
            has_too_many |= used.messages >= MAX_MESSAGES;
            if has_too_many || name.starts_with('.') {
                return;
            }
            let look = || messages.look_at(name).map(|status| status.size_octets()).ok();
            // One that is gone by now was moved or deleted by a reader.
            if let Some(octets) = size_in_name(name).or_else(look) {
                used.add(octets);
            }
        })?;
        if has_too_many {
            return Err(io::Error::other("it has too many messages"));
        }
    }
    Ok(())
}

/// Whether an error says that there is no such folder.
fn is_none(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// The size of a message in octets that the name of its file tells.
fn size_in_name(name: &str) -> Option<u64> {
    // A colon begins the flags.
    let mut parts = name.split(':').next()?.split(',').skip(1);
    let digits = parts.find_map(|part| part.strip_prefix("S="))?;
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::disk::Disk;
    use proptest::prelude::*;
    use std::fs::{self, File};
    use std::os::unix::fs::symlink;
    use std::time::{Duration, SystemTime};

    /// A Maildir with messages of 10, 20 and 30 octets in it, one of them in a folder; one of
    /// 1000 in the trash.
    struct Maildir(tempfile::TempDir);

    impl Maildir {
        fn new() -> Self {
            let base = tempfile::tempdir().unwrap();
            for folder in ["", ".sent", ".Trash"] {
                for part in ["cur", "new", "tmp"] {
                    fs::create_dir_all(base.path().join(folder).join(part)).unwrap();
                }
            }
            let maildir = Self(base);
            maildir.write("new/1.a.host,S=10", "");
            maildir.write("cur/2.b.host:2,S", &"x".repeat(20));
            maildir.write("cur/.hidden", "xxx");
            maildir.write(".sent/cur/3.c.host,S=30,W=31:2,ST", "");
            maildir.write(".Trash/cur/4.d.host,S=1000", "");
            maildir.write("tmp/5.e.host,S=1000", "");
            maildir.write(".a-file", "");
            symlink("/tmp", maildir.0.path().join(".a-link")).unwrap();
            maildir
        }

        fn write(&self, name: &str, text: &str) {
            fs::write(self.0.path().join(name), text).unwrap();
        }

        fn sheet(&self) -> String {
            fs::read_to_string(self.0.path().join(NAME)).unwrap()
        }

        fn make_old(&self, seconds: u64) {
            let file = File::options().append(true).open(self.0.path().join(NAME)).unwrap();
            file.set_modified(SystemTime::now() - Duration::from_secs(seconds)).unwrap();
        }

        /// What becomes of a message of so many octets: `None` without a quota.
        fn deliver(&self, octets: u64) -> Option<Result<(), Failure>> {
            let folder = Disk::host().walk_to(self.0.path()).unwrap();
            let mut quota = Quota::of(&folder, self.0.path(), None)?;
            Some(quota.admit(octets).map(|()| quota.add(octets)))
        }
    }

    fn size(octets: u64, messages: u64) -> Size {
        Size { octets, messages }
    }

    #[test]
    fn a_first_line_is_read() {
        for (text, limits) in [
            ("1000S,5C", Some(size(1000, 5))),
            ("5C,1000S", Some(size(1000, 5))),
            ("1000S", Some(size(1000, 0))),
            ("5C", Some(size(0, 5))),
            ("0S", Some(size(0, 0))),
            ("1000S,3X", Some(size(1000, 0))),
            ("18446744073709551615S", Some(size(u64::MAX, 0))),
            ("18446744073709551616S", None),
            ("", None),
            ("S", None),
            ("1000", None),
            ("-1S", None),
            ("+1S", None),
            ("1000S,", None),
            ("1000SC", None),
            ("1000s5", None),
            ("1000 S", None),
        ] {
            assert_eq!(Size::parse_limits(text), limits, "{text}");
        }
        let long = format!("{}1S\n", "0".repeat(MAX_DEFINITION));
        assert_eq!(Sheet::parse(long.as_bytes()), None);
        assert_eq!(Sheet::parse(&[b'1'; 9000]), None);
    }

    #[test]
    fn lines_are_summed_up_and_doubtful_ones_are_not_believed() {
        for (text, used) in [
            ("", Some(size(0, 0))),
            ("100 1\n", Some(size(100, 1))),
            ("  100          1 \n200 2\n-50 -1\n", Some(size(250, 2))),
            ("100 1", None),
            ("100 1\n\0\0\0\0", None),
            ("100 1\n-200 0\n", None),
            ("100 -1\n", None),
            ("100\n", None),
            ("100 1 1\n", None),
            ("100 1\n\n", None),
            ("x 1\n", None),
            ("9223372036854775807 1\n1 1\n", None),
        ] {
            assert_eq!(sum(text.as_bytes()), used, "{text:?}");
            let sheet = Sheet::parse(format!("9S\n{text}").as_bytes()).unwrap();
            assert_eq!(sheet.used, used, "{text:?}");
        }
        let sheet = Sheet::parse(b"9S,1C").unwrap();
        assert_eq!((sheet.definition.as_str(), sheet.used), ("9S,1C", Some(size(0, 0))));
        let long = format!("9S\n{}", "100 1\n".repeat(1000));
        assert_eq!(Sheet::parse(long.as_bytes()).unwrap().used, None);
    }

    #[test]
    fn a_size_is_read_from_a_name() {
        for (name, octets) in [
            ("1.a.host,S=10", Some(10)),
            ("1.a.host,W=11,S=10:2,S", Some(10)),
            ("1.a.host,S=10,W=11", Some(10)),
            ("1.a.host:2,S=10", None),
            ("1.a.host,S=", None),
            ("1.a.host,S=-1", None),
            ("S=10", None),
        ] {
            assert_eq!(size_in_name(name), octets, "{name}");
        }
    }

    #[test]
    fn what_fits_comes_in_and_is_noted_and_what_does_not_waits() {
        let maildir = Maildir::new();
        assert!(maildir.deliver(1).is_none(), "without a file there is no quota");
        maildir.write(NAME, "1000S,10C\n100 1\n");
        assert!(maildir.deliver(900).unwrap().is_ok());
        assert_eq!(maildir.sheet(), "1000S,10C\n100 1\n900 1\n");
        let failure = maildir.deliver(1).unwrap().unwrap_err();
        assert_eq!(failure.status, MAILBOX_FULL);
        assert!(failure.text.contains("maildirsize") && failure.text.contains("1000S,10C"));
        assert_eq!(maildir.sheet(), "1000S,10C\n100 1\n900 1\n");
        maildir.write(NAME, "0S,3C\n100 2\n");
        assert!(maildir.deliver(u64::MAX).unwrap().is_ok());
        maildir.write(NAME, "3C\n100 3\n");
        assert!(maildir.deliver(0).unwrap().is_err());
    }

    #[test]
    fn the_mailbox_is_counted_where_the_file_is_in_doubt() {
        let long = format!("1000S\n{}", "0 0\n".repeat(1280));
        for (text, age, written) in [
            // Full, but by a file that is old.
            ("1000S\n1000 1\n", 901, Some("1000S\n60 3\n5 1\n")),
            ("1000S\n1000 1\n", 840, None),
            // A file from the future was written by a wrong clock.
            ("1000S\n1000 1\n", -900, Some("1000S\n60 3\n5 1\n")),
            // Old, but there is room.
            ("1000S\n900 1\n", 9000, Some("1000S\n900 1\n5 1\n")),
            (&long, 0, Some("1000S\n60 3\n5 1\n")),
            ("1000S\n100 1\n99", 0, Some("1000S\n60 3\n5 1\n")),
            ("1000S\n-100 1\n", 0, Some("1000S\n60 3\n5 1\n")),
            // Full by what is there.
            ("64S\nx\n", 0, None),
        ] {
            let maildir = Maildir::new();
            maildir.write(NAME, text);
            let age: i64 = age;
            maildir.make_old(age.unsigned_abs() * u64::from(age >= 0));
            if age < 0 {
                let file = File::options().append(true).open(maildir.0.path().join(NAME)).unwrap();
                file.set_modified(SystemTime::now() + Duration::from_secs(900)).unwrap();
            }
            let result = maildir.deliver(5).unwrap();
            assert_eq!(result.is_ok(), written.is_some(), "{text} {age}");
            if let Some(written) = written {
                assert_eq!(maildir.sheet(), written);
            }
            assert_eq!(fs::read_dir(maildir.0.path().join("tmp")).unwrap().count(), 1);
        }
    }

    #[test]
    fn a_file_that_cannot_be_written_anew_still_counts() {
        let maildir = Maildir::new();
        fs::remove_dir_all(maildir.0.path().join("tmp")).unwrap();
        maildir.write(NAME, "64S\nx\n");
        assert!(maildir.deliver(5).unwrap().is_err());
        assert!(maildir.deliver(4).unwrap().is_ok());
        assert_eq!(maildir.sheet(), "64S\nx\n4 1\n");
    }

    #[test]
    fn a_file_that_is_none_never_stops_or_holds_up_mail() {
        let maildir = Maildir::new();
        let path = maildir.0.path().join(NAME);
        let secret = tempfile::NamedTempFile::new().unwrap();
        fs::write(secret.path(), "1S\n").unwrap();
        type Plant<'a> = &'a dyn Fn();
        let plants: [(&str, Plant<'_>); 6] = [
            ("link", &|| symlink(secret.path(), &path).unwrap()),
            ("hard link", &|| fs::hard_link(secret.path(), &path).unwrap()),
            ("folder", &|| fs::create_dir(&path).unwrap()),
            ("FIFO", &|| rustix::fs::mkfifoat(rustix::fs::CWD, &path, 0o600.into()).unwrap()),
            ("garbage", &|| fs::write(&path, [0xff; 9000]).unwrap()),
            ("empty", &|| fs::write(&path, "").unwrap()),
        ];
        for (what, plant) in plants {
            plant();
            assert!(maildir.deliver(5).is_none(), "{what}");
            let _ = fs::remove_file(&path);
            let _ = fs::remove_dir(&path);
        }
        assert_eq!(fs::read_to_string(secret.path()).unwrap(), "1S\n");
        let file = File::create(&path).unwrap();
        file.set_len(1 << 40).unwrap();
        assert!(maildir.deliver(5).is_none());
        fs::write(&path, "9S\n").unwrap();
        let folder = Disk::host().walk_to(maildir.0.path()).unwrap();
        let stranger = rustix::process::geteuid().as_raw() + 1;
        assert!(Quota::of(&folder, maildir.0.path(), Some(stranger)).is_none());
    }

    proptest! {
        #[test]
        fn no_file_makes_it_panic(text in prop::collection::vec(any::<u8>(), 0..40), tail in "[0-9SC, \n-]{0,40}") {
            let _ = Sheet::parse(&text);
            let _ = Sheet::parse(tail.as_bytes());
            let _ = Sheet::parse(format!("9S\n{tail}").as_bytes());
            let _ = size_in_name(&tail);
        }
    }
}
