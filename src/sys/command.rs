//! A command of the configuration, run by the shell for what it prints.
//!
//! It has no input, its own process group, and bounds: on its time, after which the whole group
//! is killed, and on what it may print.

use std::fmt;
use std::io::{self, ErrorKind, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

/// What a command may do at most.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// How long it may run.
    pub time: Duration,
    /// What it may print on its standard output, and again on its standard error, in octets.
    pub octets: usize,
}

/// How a command ended. `Debug` does not tell what it printed.
pub struct Ended {
    /// What it printed on its standard output; perhaps a secret.
    pub output: Vec<u8>,
    /// What it printed on its standard error.
    pub complaints: Vec<u8>,
    /// Its exit.
    pub status: ExitStatus,
}

impl fmt::Debug for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ended").field("status", &self.status).finish_non_exhaustive()
    }
}

/// Runs `command` by `/bin/sh -c` as the account of this process and waits for its end. What it
/// leaves running behind it is left alone.
///
/// # Errors
/// When it cannot be started; [`ErrorKind::TimedOut`] and [`ErrorKind::FileTooLarge`] where it was
/// killed for going over its bounds.
pub fn run(command: &str, bounds: Bounds) -> io::Result<Ended> {
    let mut child = Command::new("/bin/sh")
        .args(["-c", command])
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()?;
    let gathered = gather(&mut child, bounds);
    if gathered.is_err() {
        kill_group(&child);
    }
    // Ended, or killed just now.
    let status = child.wait()?;
    let (output, complaints) = gathered?;
    Ok(Ended { output, complaints, status })
}

/// Reads what the command prints until it has ended.
fn gather(child: &mut Child, bounds: Bounds) -> io::Result<(Vec<u8>, Vec<u8>)> {
    let end = Instant::now() + bounds.time;
    let pid = Pid::from_child(child);
    let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
    let mut output = Pipe::new(child.stdout.take().map(OwnedFd::from))?;
    let mut complaints = Pipe::new(child.stderr.take().map(OwnedFd::from))?;
    loop {
        let has_ended = wait(&pidfd, [&output, &complaints], end)?;
        // What it printed last is there before its end is.
        output.read(bounds.octets)?;
        complaints.read(bounds.octets)?;
        if has_ended {
            return Ok((output.octets, complaints.octets));
        }
    }
}

/// Waits until there is something to read or the command has ended; whether it has.
fn wait(pidfd: &OwnedFd, pipes: [&Pipe; 2], end: Instant) -> io::Result<bool> {
    let left = end.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(io::Error::new(ErrorKind::TimedOut, "it took too long"));
    }
    let mut awaited = vec![PollFd::new(pidfd, PollFlags::IN)];
    let open = pipes.iter().filter_map(|pipe| pipe.file.as_ref());
    awaited.extend(open.map(|file| PollFd::new(file, PollFlags::IN)));
    let left = Timespec::try_from(left).map_err(io::Error::other)?;
    match poll(&mut awaited, Some(&left)) {
        Ok(_) => Ok(!awaited[0].revents().is_empty()),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// One of the two ways in which a command speaks.
struct Pipe {
    /// `None` once it is closed at the other end.
    file: Option<std::fs::File>,
    octets: Vec<u8>,
}

impl Pipe {
    fn new(end: Option<OwnedFd>) -> io::Result<Self> {
        if let Some(end) = &end {
            fcntl_setfl(end.as_fd(), OFlags::NONBLOCK)?;
        }
        Ok(Self { file: end.map(Into::into), octets: Vec::new() })
    }

    /// Takes what is there now.
    fn read(&mut self, most: usize) -> io::Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        let room = (most + 1).saturating_sub(self.octets.len()) as u64;
        match file.take(room).read_to_end(&mut self.octets) {
            Ok(_) if self.octets.len() > most => {
                let text = format!("it printed more than {most} octets");
                Err(io::Error::new(ErrorKind::FileTooLarge, text))
            }
            Ok(_) => {
                self.file = None;
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// Ends the command and all that it has started in its group.
fn kill_group(child: &Child) {
    // The child was not waited for, so the number is still its own.
    if let Err(error) = kill_process_group(Pid::from_child(child), Signal::KILL) {
        log::warn!("a command that has to end cannot be killed: {error}");
    }
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;
    use std::os::unix::fs::OpenOptionsExt;

    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;

    const BOUNDS: Bounds = Bounds { time: Duration::from_secs(60), octets: 1000 };

    #[test]
    fn what_a_command_prints_is_kept_apart() {
        let ended = run("echo out; echo err >&2; cat; pwd; exit 3", BOUNDS).unwrap();
        assert_eq!((&ended.output[..], &ended.complaints[..]), (&b"out\n/\n"[..], &b"err\n"[..]));
        assert_eq!(ended.status.code(), Some(3));
        assert!(!format!("{ended:?}").contains("out"));
    }

    #[test]
    fn a_command_that_is_slow_is_killed() {
        let bounds = Bounds { time: Duration::from_millis(100), ..BOUNDS };
        let error = run("exec sleep 3600", bounds).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
    }

    #[test]
    fn what_a_killed_command_has_started_is_killed_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let fifo = folder.path().join("fifo");
        mknodat(CWD, &fifo, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        let flags = OFlags::NONBLOCK.bits().cast_signed();
        let mut reader = OpenOptions::new().read(true).custom_flags(flags).open(&fifo).unwrap();
        let command = format!("exec 3>{}; echo begun >&3; sleep 3600 & yes", fifo.display());
        run(&command, BOUNDS).unwrap_err();
        // The fifo ends when the last of them is gone.
        let mut told = Vec::new();
        while let Err(error) = reader.read_to_end(&mut told) {
            assert_eq!(error.kind(), ErrorKind::WouldBlock);
            std::thread::yield_now();
        }
        assert_eq!(told, b"begun\n");
    }

    #[test]
    fn a_command_that_never_stops_talking_is_killed() {
        for command in ["yes", "yes >&2"] {
            let error = run(command, BOUNDS).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::FileTooLarge, "{command}");
        }
        let whole = run("head -c 1000 /dev/zero", BOUNDS).unwrap();
        assert_eq!(whole.output.len(), 1000);
    }

    #[test]
    fn what_is_left_running_holds_nobody_up() {
        let began = Instant::now();
        let ended = run("sleep 20 & echo out", BOUNDS).unwrap();
        assert_eq!(ended.output, b"out\n");
        assert!(began.elapsed() < Duration::from_secs(15));
    }
}
