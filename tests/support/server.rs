//! The built program as a server in a folder of its own, and its log.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::home::Home;

/// How long a test waits for an answer before it fails. Far more than any takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// `mailwren serve`, killed with the value.
pub(crate) struct TestServer {
    child: Child,
    pub(crate) address: SocketAddr,
    reader: Option<JoinHandle<()>>,
    pub(crate) log: Arc<Log>,
}

/// What the server has logged so far.
#[derive(Default)]
pub(crate) struct Log {
    pub(crate) text: Mutex<String>,
    /// Notified for each line.
    pub(crate) grown: Condvar,
}

impl TestServer {
    /// Starts the server and waits until it listens.
    pub(crate) fn start(home: &Home) -> Self {
        let mut child = command(home).stderr(Stdio::piped()).spawn().unwrap();
        let (found, address) = mpsc::channel();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let log = Arc::new(Log::default());
        let growing = Arc::clone(&log);
        let reader = thread::spawn(move || {
            for line in stderr.lines() {
                let line = line.unwrap();
                if let Some((_, rest)) = line.split_once("listening on ") {
                    let address = rest.split(' ').next().unwrap();
                    let _ = found.send(address.parse().unwrap());
                }
                let mut text = growing.text.lock().unwrap();
                text.push_str(&line);
                text.push('\n');
                growing.grown.notify_all();
            }
        });
        match address.recv() {
            Ok(address) => Self { child, address, reader: Some(reader), log },
            Err(_) => panic!("the server did not start:\n{}", log.text.lock().unwrap()),
        }
    }

    /// Its process.
    pub(crate) fn pid(&self) -> rustix::process::Pid {
        rustix::process::Pid::from_child(&self.child)
    }

    /// A connection on which nothing has been read yet.
    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Tells the server to stop; it must do so in order. Returns its log.
    pub(crate) fn stop(mut self) -> String {
        rustix::process::kill_process(self.pid(), rustix::process::Signal::TERM).unwrap();
        let status = self.child.wait().unwrap();
        self.reader.take().unwrap().join().unwrap();
        let log = std::mem::take(&mut *self.log.text.lock().unwrap());
        assert_eq!(status.code(), Some(0), "{log}");
        assert!(!log.contains("internal error") && !log.contains("panicked"), "{log}");
        log
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `mailwren serve` with the configuration of `home`.
pub(crate) fn command(home: &Home) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mailwren"));
    command.arg("--config").arg(home.config()).arg("serve");
    command.env_remove("RUST_LOG").env_remove("JOURNAL_STREAM").env_remove("MAILWREN_CONFIG");
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command
}
