//! A name server for tests: answers over UDP and TCP what a function says.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use trust_dns_resolver::proto::op::{Message, MessageType, ResponseCode};
use trust_dns_resolver::proto::rr::rdata::{CNAME, MX};
use trust_dns_resolver::proto::rr::{Name, RData, Record, RecordType};

/// What the server answers to a question.
pub(crate) enum Answer {
    /// These records of the name asked for.
    Records(Vec<RData>),
    /// The name has none.
    Nothing,
    /// There is no such name.
    NoSuchDomain,
    /// The server is in trouble.
    Failure,
    /// Nothing at all comes back.
    Silence,
}

pub(crate) fn mx(preference: u16, exchange: &str) -> RData {
    RData::MX(MX::new(preference, name(exchange)))
}

pub(crate) fn address(text: &str) -> RData {
    match text.parse().unwrap() {
        IpAddr::V4(address) => RData::A(address.into()),
        IpAddr::V6(address) => RData::AAAA(address.into()),
    }
}

pub(crate) fn cname(target: &str) -> RData {
    RData::CNAME(CNAME(name(target)))
}

fn name(text: &str) -> Name {
    let mut name = Name::from_ascii(text).unwrap();
    name.set_fqdn(true);
    name
}

type Zone = dyn Fn(&str, RecordType) -> Answer + Send + Sync;

/// A server on a port of its own. Ends when dropped.
pub(crate) struct DnsServer {
    address: SocketAddr,
    is_over: Arc<AtomicBool>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl DnsServer {
    /// A server of `zone`, which is asked with names in lower case and without final dot.
    /// More than 20 records come over TCP only.
    pub(crate) fn new(zone: impl Fn(&str, RecordType) -> Answer + Send + Sync + 'static) -> Self {
        let (udp, tcp) = sockets();
        let address = udp.local_addr().unwrap();
        let is_over = Arc::new(AtomicBool::new(false));
        let zone: Arc<Zone> = Arc::new(zone);
        let (over, asked) = (Arc::clone(&is_over), Arc::clone(&zone));
        let datagrams = thread::spawn(move || serve_udp(&udp, &over, &*asked));
        let over = Arc::clone(&is_over);
        let streams = thread::spawn(move || {
            for stream in tcp.incoming() {
                if over.load(Ordering::SeqCst) {
                    break;
                }
                let zone = Arc::clone(&zone);
                thread::spawn(move || serve_tcp(stream.unwrap(), &*zone).ok());
            }
        });
        Self { address, is_over, threads: vec![datagrams, streams] }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for DnsServer {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        let _ = UdpSocket::bind("127.0.0.1:0").and_then(|udp| udp.send_to(b"", self.address));
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// A port that is free for both.
fn sockets() -> (UdpSocket, TcpListener) {
    loop {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        if let Ok(udp) = UdpSocket::bind(tcp.local_addr().unwrap()) {
            return (udp, tcp);
        }
    }
}

fn serve_udp(udp: &UdpSocket, is_over: &AtomicBool, zone: &Zone) {
    let mut packet = [0; 4096];
    loop {
        let received = udp.recv_from(&mut packet);
        if is_over.load(Ordering::SeqCst) {
            return;
        }
        let (length, from) = received.unwrap();
        let Some(mut response) = respond(&packet[..length], zone) else { continue };
        if response.answers.len() > 20 {
            response.answers.clear();
            response.metadata.truncation = true;
        }
        udp.send_to(&response.to_vec().unwrap(), from).unwrap();
    }
}

fn serve_tcp(mut stream: TcpStream, zone: &Zone) -> std::io::Result<()> {
    loop {
        let mut length = [0; 2];
        stream.read_exact(&mut length)?;
        let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut query)?;
        let Some(response) = respond(&query, zone) else { continue };
        let response = response.to_vec().unwrap();
        stream.write_all(&(response.len() as u16).to_be_bytes())?;
        stream.write_all(&response)?;
    }
}

fn respond(query: &[u8], zone: &Zone) -> Option<Message> {
    let mut message = Message::from_vec(query).ok()?;
    let question = message.queries.first()?.clone();
    let asked = question.name().to_ascii().to_ascii_lowercase();
    message.metadata.message_type = MessageType::Response;
    message.metadata.recursion_available = true;
    match zone(asked.trim_end_matches('.'), question.query_type()) {
        Answer::Records(records) => {
            let record = |data| Record::from_rdata(question.name().clone(), 60, data);
            message.answers = records.into_iter().map(record).collect();
        }
        Answer::Nothing => {}
        Answer::NoSuchDomain => message.metadata.response_code = ResponseCode::NXDomain,
        Answer::Failure => message.metadata.response_code = ResponseCode::ServFail,
        Answer::Silence => return None,
    }
    Some(message)
}
