//! An SMTP server for tests that behaves well, but for what a test tells it to do instead.
//! It records what it was told.

use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

/// What the peer does in answer to a line.
pub(crate) enum Answer {
    /// Sends these octets.
    Say(Vec<u8>),
    /// Sends these octets and closes.
    SayAndHangUp(Vec<u8>),
    /// Sends these octets again and again, until the client has left.
    Endless(&'static [u8]),
    /// Sends one octet a while, forever.
    Drip,
    /// Says nothing until the client has left.
    Silence,
    /// Closes without reading the rest.
    HangUp,
}

/// Sends these octets.
pub(crate) fn say(octets: impl AsRef<[u8]>) -> Option<Answer> {
    Some(Answer::Say(octets.as_ref().to_vec()))
}

/// What one session was told.
#[derive(Clone, Debug, Default)]
pub(crate) struct Session {
    /// The command lines, without CRLF.
    pub(crate) commands: Vec<String>,
    /// The content of each message, as it went over the wire up to the lone dot.
    pub(crate) contents: Vec<Vec<u8>>,
}

type Manners = dyn Fn(usize, &str) -> Option<Answer> + Send + Sync;

/// A server on an address of its own. Ends when dropped.
pub(crate) struct Peer {
    address: SocketAddr,
    sessions: Arc<Mutex<Vec<Session>>>,
    is_over: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Peer {
    /// A server that always behaves well.
    pub(crate) fn polite() -> Self {
        Self::new(|_, _| None)
    }

    /// A server on a port of its own. `manners` is asked with the number of the session, from
    /// 0, and the line: `connect`, a command, or `.` behind the content. Its `None` is what a
    /// good server does.
    pub(crate) fn new(
        manners: impl Fn(usize, &str) -> Option<Answer> + Send + Sync + 'static,
    ) -> Self {
        Self::at("127.0.0.1:0", manners)
    }

    /// The same at a given address.
    pub(crate) fn at(
        address: &str,
        manners: impl Fn(usize, &str) -> Option<Answer> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let sessions = Arc::new(Mutex::new(Vec::new()));
        let is_over = Arc::new(AtomicBool::new(false));
        let (record, over) = (Arc::clone(&sessions), Arc::clone(&is_over));
        let manners: Arc<Manners> = Arc::new(manners);
        let thread = thread::spawn(move || {
            for stream in listener.incoming() {
                if over.load(Ordering::SeqCst) {
                    break;
                }
                let number = {
                    let mut sessions = record.lock().unwrap();
                    sessions.push(Session::default());
                    sessions.len() - 1
                };
                let (record, manners) = (Arc::clone(&record), Arc::clone(&manners));
                let stream = stream.unwrap();
                // A client that leaves early is what many tests are about.
                thread::spawn(move || serve(&stream, number, &record, &*manners).ok());
            }
        });
        Self { address, sessions, is_over, thread: Some(thread) }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// What the sessions were told so far.
    pub(crate) fn sessions(&self) -> Vec<Session> {
        self.sessions.lock().unwrap().clone()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(
    stream: &TcpStream,
    number: usize,
    record: &Mutex<Vec<Session>>,
    manners: &Manners,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut line = "connect".to_owned();
    loop {
        let answer = manners(number, &line).unwrap_or_else(|| good_answer(&line));
        let Some(said) = give(stream, answer)? else { return Ok(()) };
        if line == "DATA" && said.starts_with(b"354") {
            let content = read_content(&mut reader)?;
            record.lock().unwrap()[number].contents.push(content);
            line = ".".to_owned();
            continue;
        }
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        line.truncate(line.trim_end().len());
        record.lock().unwrap()[number].commands.push(line.clone());
    }
}

fn good_answer(line: &str) -> Answer {
    let verb = line.split([' ', ':']).next().unwrap_or_default();
    let say = |text: &str| Answer::Say(text.as_bytes().to_vec());
    match verb {
        "connect" => say("220 peer.test ESMTP\r\n"),
        "EHLO" => say("250-peer.test\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SIZE\r\n"),
        "DATA" => say("354 go on\r\n"),
        "." => say("250 2.0.0 taken\r\n"),
        "QUIT" => Answer::SayAndHangUp(b"221 bye\r\n".to_vec()),
        _ => say("250 ok\r\n"),
    }
}

/// What was said, or `None` when the session is over.
fn give(mut stream: &TcpStream, answer: Answer) -> std::io::Result<Option<Vec<u8>>> {
    match answer {
        Answer::Say(octets) => {
            stream.write_all(&octets)?;
            return Ok(Some(octets));
        }
        Answer::SayAndHangUp(octets) => stream.write_all(&octets)?,
        Answer::Endless(octets) => loop {
            stream.write_all(octets)?;
        },
        Answer::Drip => loop {
            stream.write_all(b"2")?;
            thread::sleep(std::time::Duration::from_millis(20));
        },
        Answer::Silence => {
            std::io::copy(&mut stream, &mut std::io::sink())?;
        }
        Answer::HangUp => {}
    }
    stream.shutdown(Shutdown::Both)?;
    Ok(None)
}

fn read_content(reader: &mut impl BufRead) -> std::io::Result<Vec<u8>> {
    let mut content = Vec::new();
    while !(content == b".\r\n" || content.ends_with(b"\r\n.\r\n")) {
        if reader.read_until(b'\n', &mut content)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(content)
}
