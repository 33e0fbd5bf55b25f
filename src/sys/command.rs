//! A command of the configuration, of an alias or of a `.forward`, run by the shell.
//!
//! It has its own process group, and bounds: on its time, after which the whole group is killed,
//! and on what it may print.

use std::fmt;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::io::retry_on_intr;
use rustix::process::{Pid, PidfdFlags, WaitOptions, pidfd_open, waitpid};

use crate::sys::run_as::{RunAs, kill_group};

/// What runs commands.
const SHELL: &str = "/bin/sh";
/// Read at once from what a command prints, in octets.
const CHUNK: usize = 8 << 10;
/// How often that is read before the clock is looked at again: more than a pipe holds.
const CHUNKS: usize = 16;
/// How long a command may take to die. One that has become another user cannot be killed.
const DEATH_PATIENCE: Duration = Duration::from_secs(5);

/// The commands that have not ended.
static GROUPS: Mutex<Groups> = Mutex::new(Groups { open: Vec::new(), are_closed: false });

struct Groups {
    /// The group of each, and the account that it runs as.
    open: Vec<(Pid, Option<u32>)>,
    /// Whether none may begin any more.
    are_closed: bool,
}

/// Kills all commands, and lets none begin any more. To be called before this process ends: a
/// command that has read half of its input would take what it has for the whole.
pub fn end_all() {
    let mut groups = groups();
    groups.are_closed = true;
    groups.open.iter().for_each(|(group, uid)| kill(*group, *uid));
}

/// What is in it is whole whoever panics.
fn groups() -> MutexGuard<'static, Groups> {
    GROUPS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a command may do at most.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// How long it may run.
    pub time: Duration,
    /// What it may print on its standard output, and again on its standard error, in octets.
    pub octets: usize,
    /// What becomes of it when it prints more.
    pub beyond: Beyond,
}

/// What becomes of a command that prints more than it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beyond {
    /// It is killed.
    Killed,
    /// It goes on, and what it prints is thrown away.
    Ignored,
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

/// Runs `command` by `/bin/sh -c`, without any input, as the account of this process, and waits for
/// its end. What it leaves running behind it is left alone.
///
/// # Errors
/// When it cannot be started; [`ErrorKind::TimedOut`] and [`ErrorKind::FileTooLarge`] where it was
/// killed for going over its bounds.
pub fn run(command: &str, bounds: Bounds) -> io::Result<Ended> {
    let mut shell = shell(command);
    shell.current_dir("/").stdin(Stdio::null()).process_group(0);
    Running::start(shell, None, bounds)?.finish()
}

/// Runs `command` by `/bin/sh -c` as the account `run_as`, with nothing but `environment` around it
/// and what `feed` writes as its input, and waits for its end. That it does not read all of it is
/// no error. What it leaves running behind it is left alone.
///
/// # Errors
/// When it cannot be started; what `feed` returns, after which the command is killed;
/// [`ErrorKind::TimedOut`] and [`ErrorKind::FileTooLarge`] as above.
pub fn run_with_input(
    command: &str,
    environment: &[(&str, String)],
    run_as: RunAs,
    bounds: Bounds,
    feed: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<Ended> {
    let uid = run_as.uid();
    let mut shell = shell(command);
    shell.env_clear().envs(environment.iter().map(|(name, value)| (name, value)));
    shell.stdin(Stdio::piped());
    run_as.apply_to(&mut shell);
    let mut running = Running::start(shell, Some(uid), bounds)?;
    match feed(&mut running) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => return Err(error),
        _ => running.input = None,
    }
    running.finish()
}

fn shell(command: &str) -> Command {
    let mut shell = Command::new(SHELL);
    shell.args(["-c", command]).stdout(Stdio::piped()).stderr(Stdio::piped());
    shell
}

/// A command that has not ended yet. When dropped it is killed with its group.
struct Running {
    child: Child,
    /// Becomes readable at its end.
    pidfd: OwnedFd,
    /// Another account that it runs as.
    uid: Option<u32>,
    input: Option<File>,
    output: Pipe,
    complaints: Pipe,
    bounds: Bounds,
    deadline: Instant,
    was_waited_for: bool,
}

impl Running {
    fn start(mut shell: Command, uid: Option<u32>, bounds: Bounds) -> io::Result<Self> {
        let mut child = shell.spawn()?;
        let opened = Self::opened(&mut child);
        let (pidfd, [input, output, complaints]) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                kill(Pid::from_child(&child), uid);
                child.wait()?;
                return Err(error);
            }
        };
        let running = Self {
            child,
            pidfd,
            uid,
            input,
            output: Pipe::new(output),
            complaints: Pipe::new(complaints),
            bounds,
            deadline: Instant::now() + bounds.time,
            was_waited_for: false,
        };
        let mut groups = groups();
        if groups.are_closed {
            drop(groups);
            return Err(io::Error::other("the server is stopping"));
        }
        groups.open.push((running.group(), uid));
        drop(groups);
        Ok(running)
    }

    /// Its process group, whose number is its own until it was waited for.
    fn group(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Takes it out of those that run. To be called before it is waited for.
    fn forget(&self) {
        let group = self.group();
        groups().open.retain(|(open, _)| *open != group);
    }

    /// What there is to know of its end, and our ends of its pipes: input, output, complaints.
    fn opened(child: &mut Child) -> io::Result<(OwnedFd, [Option<File>; 3])> {
        let pidfd = pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
        let pipes = [
            child.stdin.take().map(OwnedFd::from),
            child.stdout.take().map(OwnedFd::from),
            child.stderr.take().map(OwnedFd::from),
        ];
        for pipe in pipes.iter().flatten() {
            fcntl_setfl(pipe.as_fd(), OFlags::NONBLOCK)?;
        }
        Ok((pidfd, pipes.map(|pipe| pipe.map(File::from))))
    }

    /// Reads what the command prints until it has ended.
    fn finish(mut self) -> io::Result<Ended> {
        while !self.progress(false)? {}
        self.was_waited_for = true;
        self.forget();
        let status = self.child.wait()?;
        let (output, complaints) = (&mut self.output.octets, &mut self.complaints.octets);
        Ok(Ended { output: std::mem::take(output), complaints: std::mem::take(complaints), status })
    }

    /// Waits until the command has ended, has printed something or, if `feeds`, takes more input.
    /// Whether it has ended; all that it printed is read then.
    fn progress(&mut self, feeds: bool) -> io::Result<bool> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::Error::new(ErrorKind::TimedOut, "it took too long"));
        }
        let mut awaited = vec![PollFd::new(&self.pidfd, PollFlags::IN)];
        let open = [&self.output, &self.complaints].into_iter().filter_map(|it| it.file.as_ref());
        awaited.extend(open.map(|file| PollFd::new(file, PollFlags::IN)));
        let input = self.input.as_ref().filter(|_| feeds);
        awaited.extend(input.map(|file| PollFd::new(file, PollFlags::OUT)));
        let has_ended = wait(&mut awaited, left)? && !awaited[0].revents().is_empty();
        // What it printed last is there before its end is.
        self.output.read(self.bounds)?;
        self.complaints.read(self.bounds)?;
        Ok(has_ended)
    }
}

/// Feeds it. `BrokenPipe` says that it reads no more, or has ended.
impl Write for Running {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        loop {
            let Some(input) = &mut self.input else { return Err(ErrorKind::BrokenPipe.into()) };
            match input.write(octets) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                result => return result,
            }
            // Something that it left running may have the other end, and never read from it.
            if self.progress(true)? {
                self.input = None;
            }
        }
    }

    /// Does nothing: nothing is held back.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.was_waited_for {
            return;
        }
        let child = self.group();
        kill(child, self.uid);
        self.forget();
        let mut end = [PollFd::new(&self.pidfd, PollFlags::IN)];
        if matches!(wait(&mut end, DEATH_PATIENCE), Ok(true)) {
            let _ = self.child.wait();
            return;
        }
        let id = self.child.id();
        log::error!("the command with process id {id} does not die: see what it waits for");
        // Nothing of it may stay when it does.
        let reap = move || {
            let _ = retry_on_intr(|| waitpid(Some(child), WaitOptions::empty()));
        };
        if let Err(error) = thread::Builder::new().name("reaper".into()).spawn(reap) {
            log::warn!("nobody waits for the end of process {id}: {error}");
        }
    }
}

/// Waits so long for one of these; whether there is any.
fn wait(awaited: &mut [PollFd<'_>], most: Duration) -> io::Result<bool> {
    let most = Timespec::try_from(most).map_err(io::Error::other)?;
    match poll(awaited, Some(&most)) {
        Ok(found) => Ok(found > 0),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// One of the two ways in which a command speaks.
struct Pipe {
    /// `None` once it is closed at the other end.
    file: Option<File>,
    octets: Vec<u8>,
}

impl Pipe {
    const fn new(file: Option<File>) -> Self {
        Self { file, octets: Vec::new() }
    }

    /// Takes what is there now.
    fn read(&mut self, bounds: Bounds) -> io::Result<()> {
        let mut chunk = [0; CHUNK];
        for _ in 0..CHUNKS {
            let Some(file) = &mut self.file else { return Ok(()) };
            match file.read(&mut chunk) {
                Ok(0) => self.file = None,
                Ok(count) => self.take(&chunk[..count], bounds)?,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn take(&mut self, printed: &[u8], bounds: Bounds) -> io::Result<()> {
        let room = bounds.octets - self.octets.len();
        if printed.len() > room && bounds.beyond == Beyond::Killed {
            let text = format!("it printed more than {} octets", bounds.octets);
            return Err(io::Error::new(ErrorKind::FileTooLarge, text));
        }
        self.octets.extend_from_slice(&printed[..printed.len().min(room)]);
        Ok(())
    }
}

/// Ends a command that was not waited for, and all that it has started in its group.
fn kill(group: Pid, uid: Option<u32>) {
    if let Err(error) = kill_group(group, uid) {
        log::warn!("a command that has to end cannot be killed: {error}");
    }
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;
    use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};

    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;
    use crate::sys::identity::Identity;
    use crate::sys::users;

    /// Who runs the tests, or in root's place somebody else.
    fn somebody() -> RunAs {
        let uid = rustix::process::geteuid();
        let account = match uid.is_root() {
            true => users::by_name("nobody"),
            false => users::by_uid(uid.as_raw()),
        };
        let identity = Identity::of(&account.unwrap().unwrap()).unwrap();
        RunAs::new(&identity, "/".as_ref()).unwrap()
    }

    fn feed(command: &str, bounds: Bounds, input: &[u8]) -> io::Result<Ended> {
        let environment = [("A", "$(b)".to_owned()), ("PATH", "/usr/bin:/bin".to_owned())];
        run_with_input(command, &environment, somebody(), bounds, |to| to.write_all(input))
    }

    const BOUNDS: Bounds =
        Bounds { time: Duration::from_secs(60), octets: 1000, beyond: Beyond::Killed };

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
            thread::yield_now();
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

    #[test]
    fn input_is_fed_while_output_is_read() {
        let input = b"0123456789abcdef".repeat(100_000);
        let bounds = Bounds { octets: 2_000_000, ..BOUNDS };
        let ended = feed("cat; echo \"$A\" >&2", bounds, &input).unwrap();
        assert!(ended.output == input);
        assert_eq!(ended.complaints, b"$(b)\n");
        assert!(ended.status.success());
    }

    #[test]
    fn whoever_does_not_read_is_not_waited_for() {
        let input = [0; 1_000_000];
        for command in ["exec <&-; echo out", "head -c 1 >/dev/null; echo out", "echo out"] {
            let ended = feed(command, BOUNDS, &input).unwrap();
            assert_eq!((&ended.output[..], ended.status.code()), (&b"out\n"[..], Some(0)));
        }
        // What stays behind has the input open and never reads it.
        let began = Instant::now();
        let ended = feed("sleep 20 <&0 & exit 3", BOUNDS, &input).unwrap();
        assert_eq!(ended.status.code(), Some(3));
        assert!(began.elapsed() < Duration::from_secs(15));
    }

    #[test]
    fn what_is_too_much_is_thrown_away() {
        let bounds = Bounds { octets: 5, beyond: Beyond::Ignored, ..BOUNDS };
        let ended = feed("cat; cat >&2 /dev/null; exit 4", bounds, &[b'x'; 300_000]).unwrap();
        assert_eq!((&ended.output[..], ended.status.code()), (&b"xxxxx"[..], Some(4)));
    }

    #[test]
    fn a_broken_feeder_ends_the_command() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o777)).unwrap();
        let mark = folder.path().join("mark");
        let command = format!("cat; touch {}", mark.display());
        let broken = |to: &mut dyn Write| {
            to.write_all(b"half")?;
            Err(io::Error::other("unreadable"))
        };
        let error = run_with_input(&command, &[], somebody(), BOUNDS, broken).unwrap_err();
        assert_eq!(error.to_string(), "unreadable");
        assert!(!mark.exists());
        let bounds = Bounds { time: Duration::from_millis(100), ..BOUNDS };
        let error = feed("exec sleep 3600", bounds, &[0; 1_000_000]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
    }
}
