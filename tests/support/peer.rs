//! An SMTP server for tests that behaves well, but for what a test tells it to do instead.
//! It records what it was told.

use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread;

use crate::sessions::{Record, Sessions, read_content};

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
pub(crate) struct Peer(Sessions<Session>);

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
        Self(Sessions::new(address, move |stream, record| serve(&stream, record, &manners)))
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.0.address()
    }

    /// What the sessions were told so far.
    pub(crate) fn sessions(&self) -> Vec<Session> {
        self.0.told()
    }
}

fn serve(stream: &TcpStream, record: &Record<Session>, manners: &Manners) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut line = "connect".to_owned();
    loop {
        let answer = manners(record.number, &line).unwrap_or_else(|| good_answer(&line));
        let Some(said) = give(stream, answer)? else { return Ok(()) };
        if line == "DATA" && said.starts_with(b"354") {
            let content = read_content(&mut reader)?;
            record.note(|session| session.contents.push(content));
            line = ".".to_owned();
            continue;
        }
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        line.truncate(line.trim_end().len());
        record.note(|session| session.commands.push(line.clone()));
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
