//! Which process is the server, for commands: it leaves a record in `[server] state`/server, which
//! everybody may read, and who looks holds that against what the kernel says. So everybody may walk
//! through that folder, though not list it; what else is in it has modes of its own. So a record that a
//! kill or a power cut has left, or whose number another process has now, is no server.
//!
//! The record names the process, when it was started and in which boot of the host; the process must
//! also run as the account that the record belongs to, so that nobody has another's process taken
//! for the server, which root may be about to send a signal.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use rustix::thread::CapabilitySet;

use crate::sys::clock;
use crate::sys::disk::{Disk, Open};

const FIRST_LINE: &str = "mailwren-server 1";
const NAME: &str = "server";
const NEW_NAME: &str = "server.new";
/// Everybody may see who serves.
const MODE: u32 = 0o644;
/// What lets everybody walk through the folder to the record.
pub const WALK: u32 = 0o011;
/// The most octets of a record.
const MAX_RECORD: u64 = 64 << 10;

/// A server that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Running {
    /// Its process.
    pub pid: i32,
    /// How long it has run, sleep of the host included.
    pub up: Duration,
    /// Its version.
    pub version: String,
    /// Where it takes mail, in words of its own.
    pub listeners: Vec<String>,
}

/// The record of this process, which goes when this is dropped.
#[derive(Debug)]
pub struct Record(PathBuf);

impl Record {
    /// Says in the folder `state`, made where it is missing, that this process is the server. One
    /// that is there is replaced.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(state: &Path, version: &str, listeners: &[String]) -> io::Result<Self> {
        let record = Self(state.to_owned());
        record.renew(version, listeners)?;
        Ok(record)
    }

    /// Says it again, with what has changed.
    ///
    /// # Errors
    /// When it cannot be written; the old one is there still.
    pub fn renew(&self, version: &str, listeners: &[String]) -> io::Result<()> {
        let pid = std::process::id();
        let mut text = format!("{FIRST_LINE}\npid {pid}\n");
        let start = start_of(i32::try_from(pid).unwrap_or(0))?;
        text += &format!("start {start}\nboot {}\n", clock::boot_id().unwrap_or_default());
        text += &format!("version {version}\n");
        for listener in listeners.iter().filter(|text| !text.chars().any(char::is_control)) {
            text += &format!("listen {listener}\n");
        }
        let folder = Disk::host().make_private_folder(&self.0)?;
        let mode = folder.status()?.mode();
        if mode & WALK != WALK {
            // A folder of another account's, or one that is not to be written, stays as it is; then
            // status knows less.
            let _ = folder.set_mode(mode | WALK);
        }
        let mut file = folder.open(NEW_NAME, Open::Anew)?;
        file.write_all(text.as_bytes())?;
        file.set_mode(MODE)?;
        folder.rename(NEW_NAME, &folder, NAME)
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        // One that stays is seen to be stale.
        let _ = Disk::host().walk_to(&self.0).and_then(|folder| folder.unlink(NAME));
    }
}

impl Running {
    /// The server whose `[server] state` is this folder, if it runs.
    ///
    /// # Errors
    /// When it cannot be told: `PermissionDenied` where only root or the server's account can.
    pub fn look(state: &Path) -> io::Result<Option<Self>> {
        let file = Disk::host().walk_to(state).and_then(|folder| folder.open(NAME, Open::Read));
        let file = match file {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let owner = file.status()?.owner();
        let text = String::from_utf8_lossy(&file.read_up_to(MAX_RECORD)?).into_owned();
        let Some((mut running, start, boot)) = parse(&text) else { return Ok(None) };
        if clock::boot_id().unwrap_or_default() != boot || !is_there(running.pid) {
            return Ok(None);
        }
        let is_it = start_of(running.pid)
            .and_then(|started| Ok(started == start && effective_uid(running.pid)? == owner));
        match is_it {
            Ok(true) => {}
            Ok(false) => return Ok(None),
            // It has ended meanwhile.
            Err(_) if !is_there(running.pid) => return Ok(None),
            // A system that hides other accounts' processes.
            Err(_) => return Err(io::ErrorKind::PermissionDenied.into()),
        }
        let ticks = rustix::param::clock_ticks_per_second().max(1);
        let begin = Duration::from_millis(start.saturating_mul(1000) / ticks);
        running.up = clock::since_boot().saturating_sub(begin);
        Ok(Some(running))
    }

    /// Tells it to read its configuration again (SIGHUP).
    ///
    /// # Errors
    /// When it has ended, or the caller may not.
    pub fn reload(&self) -> io::Result<()> {
        let pid = Pid::from_raw(self.pid).ok_or(io::ErrorKind::NotFound)?;
        Ok(kill_process(pid, Signal::HUP)?)
    }

    /// Whether it may act as root, whose files it then reads: by CAP_SETUID, which the server keeps
    /// where root or its unit starts it. `None` where the kernel does not tell.
    pub fn may_read_as_root(&self) -> Option<bool> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).ok()?;
        let permitted = status.lines().find_map(|line| line.strip_prefix("CapPrm:"))?;
        let permitted = u64::from_str_radix(permitted.trim(), 16).ok()?;
        Some(CapabilitySet::from_bits_retain(permitted).contains(CapabilitySet::SETUID))
    }

    /// What it has had the system write to disks since its start, in octets; `None` where only root
    /// is told, or the kernel does not count.
    pub fn written_octets(&self) -> Option<u64> {
        let counts = fs::read_to_string(format!("/proc/{}/io", self.pid)).ok()?;
        counts.lines().find_map(|line| line.strip_prefix("write_bytes: "))?.parse().ok()
    }
}

/// A record, with the moment at which its process was started, in ticks since the boot, and the
/// boot.
fn parse(text: &str) -> Option<(Running, u64, String)> {
    let mut lines = text.strip_prefix(FIRST_LINE)?.strip_prefix('\n')?.lines();
    let mut value = |key: &str| lines.next()?.strip_prefix(key)?.strip_prefix(' ');
    let pid = value("pid")?.parse().ok().filter(|pid| *pid > 0)?;
    let start = value("start")?.parse().ok()?;
    let boot = value("boot")?.to_owned();
    let version = value("version")?.to_owned();
    let shown = |text: &str| text.escape_debug().to_string();
    let listeners = lines.filter_map(|line| line.strip_prefix("listen ")).map(shown).collect();
    let running = Running { pid, up: Duration::ZERO, version: shown(&version), listeners };
    Some((running, start, boot))
}

/// Whether there is a process of that number.
fn is_there(pid: i32) -> bool {
    let answer = Pid::from_raw(pid).map(test_kill_process);
    matches!(answer, Some(Ok(()) | Err(Errno::PERM)))
}

/// When a process was started, in ticks since the boot (proc_pid_stat(5), field 22).
fn start_of(pid: i32) -> io::Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The second field is a name in brackets, which may hold anything.
    let field = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(19));
    field.and_then(|field| field.parse().ok()).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// As whom a process runs (proc_pid_status(5)).
fn effective_uid(pid: i32) -> io::Result<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    let uid = line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
    uid.ok_or_else(|| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, chown};

    #[test]
    fn this_process_is_found_as_long_as_its_record_is_there() {
        let base = tempfile::tempdir().unwrap();
        let state = base.path().join("state");
        assert_eq!(Running::look(&state).unwrap(), None);
        let record = Record::write(&state, "1.2.3", &["127.0.0.1:25 [listen.a]".into()]).unwrap();
        let mode = fs::metadata(state.join(NAME)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, MODE);
        let mode = fs::metadata(&state).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700 | WALK);
        let running = Running::look(&state).unwrap().unwrap();
        assert_eq!(u32::try_from(running.pid).unwrap(), std::process::id());
        assert!(running.up > Duration::ZERO && running.up < clock::since_boot());
        assert_eq!(running.version, "1.2.3");
        assert_eq!(running.listeners, ["127.0.0.1:25 [listen.a]"]);
        assert_eq!(running.may_read_as_root(), Some(true), "run this test as root");
        drop(record);
        assert_eq!(Running::look(&state).unwrap(), None);
    }

    #[test]
    fn a_record_that_the_kernel_does_not_bear_out_is_no_server() {
        let base = tempfile::tempdir().unwrap();
        let (state, path) = (base.path(), base.path().join(NAME));
        let _record = Record::write(state, "1", &[]).unwrap();
        let good = fs::read_to_string(&path).unwrap();
        let pid = std::process::id();
        let start = start_of(i32::try_from(pid).unwrap()).unwrap();
        for (from, to) in [
            (format!("start {start}"), format!("start {}", start + 1)),
            (format!("pid {pid}"), "pid 1".to_owned()),
            (format!("pid {pid}"), "pid 0".to_owned()),
            (format!("pid {pid}"), format!("pid {}", i32::MAX)),
            (format!("boot {}", clock::boot_id().unwrap_or_default()), "boot x".to_owned()),
            ("server 1".to_owned(), "server 2".to_owned()),
        ] {
            assert!(good.contains(&from));
            fs::write(&path, good.replace(&from, &to)).unwrap();
            assert_eq!(Running::look(state).unwrap(), None, "{to}");
        }
        for end in 0..good.find("version").unwrap() {
            fs::write(&path, &good[..end]).unwrap();
            assert_eq!(Running::look(state).unwrap(), None, "{end}");
        }
        fs::write(&path, &good).unwrap();
        assert!(Running::look(state).unwrap().is_some());
        // Somebody else's record, who would like root to signal this process.
        assert!(rustix::process::geteuid().is_root(), "run this test as root");
        chown(&path, Some(1), Some(1)).unwrap();
        assert_eq!(Running::look(state).unwrap(), None);
    }
}
