//! A client that speaks SMTP in the clear, and under TLS when it is told to.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};

use openssl::ssl::{
    HandshakeError, SslConnector, SslMethod, SslOptions, SslStream, SslVerifyMode, SslVersion,
};
use openssl::x509::X509;

use crate::PATIENCE;

/// What a client does in handshakes.
#[derive(Clone)]
pub(crate) struct Manners {
    /// Whom it trusts; nobody's certificate is checked without.
    pub(crate) root: Option<X509>,
    pub(crate) versions: (Option<SslVersion>, Option<SslVersion>),
}

impl Manners {
    pub(crate) const fn trusting() -> Self {
        Self { root: None, versions: (None, None) }
    }

    pub(crate) const fn speaking(version: SslVersion) -> Self {
        Self { root: None, versions: (Some(version), Some(version)) }
    }

    pub(crate) const fn checking(root: X509) -> Self {
        Self { root: Some(root), versions: (None, None) }
    }

    fn connector(&self) -> SslConnector {
        let mut builder = SslConnector::builder(SslMethod::tls_client()).unwrap();
        match &self.root {
            Some(root) => builder.cert_store_mut().add_cert(root.clone()).unwrap(),
            None => builder.set_verify(SslVerifyMode::NONE),
        }
        builder.clear_options(SslOptions::NO_TLSV1 | SslOptions::NO_TLSV1_1);
        builder.set_security_level(0);
        builder.set_cipher_list("ALL:@SECLEVEL=0").unwrap();
        builder.set_min_proto_version(self.versions.0).unwrap();
        builder.set_max_proto_version(self.versions.1).unwrap();
        builder.build()
    }
}

/// A client on a stream in the clear or under TLS.
pub(crate) struct Client<S: Read + Write> {
    pub(crate) replies: BufReader<S>,
}

pub(crate) type Secured = Client<SslStream<TcpStream>>;

pub(crate) fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Shakes hands for `mx.test`.
pub(crate) fn handshake(
    stream: TcpStream,
    manners: &Manners,
) -> Result<SslStream<TcpStream>, HandshakeError<TcpStream>> {
    manners.connector().connect("mx.test", stream)
}

impl Client<TcpStream> {
    /// A client that was greeted in the clear.
    pub(crate) fn plain(address: SocketAddr) -> Self {
        let mut client = Self { replies: BufReader::new(connect(address)) };
        assert_eq!(client.reply(), "220 mx.test ESMTP mailwren");
        client
    }

    /// Says EHLO and STARTTLS, and returns the stream on which a handshake is due.
    pub(crate) fn ask_for_tls(mut self) -> TcpStream {
        self.expect("EHLO client.test", "250 ");
        self.expect("STARTTLS", "220 2.0.0 ");
        assert!(self.replies.buffer().is_empty());
        self.replies.into_inner()
    }
}

impl Secured {
    /// A client that has said STARTTLS and nothing since.
    pub(crate) fn by_start_tls(address: SocketAddr, manners: &Manners) -> Self {
        let stream = Client::plain(address).ask_for_tls();
        Self { replies: BufReader::new(handshake(stream, manners).unwrap()) }
    }

    /// A client that was greeted where TLS comes first.
    pub(crate) fn implicit(address: SocketAddr, manners: &Manners) -> Self {
        let stream = handshake(connect(address), manners).unwrap();
        let mut client = Self { replies: BufReader::new(stream) };
        assert_eq!(client.reply(), "220 mx.test ESMTP mailwren");
        client
    }

    /// The certificate that the server shows.
    pub(crate) fn shown(&self) -> Vec<u8> {
        let certificate = self.replies.get_ref().ssl().peer_certificate().unwrap();
        certificate.to_der().unwrap()
    }
}

impl<S: Read + Write> Client<S> {
    pub(crate) fn send(&mut self, octets: &[u8]) {
        self.replies.get_mut().write_all(octets).unwrap();
    }

    /// The lines of a reply.
    pub(crate) fn lines(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            self.replies.read_line(&mut line).unwrap();
            let line = line.strip_suffix("\r\n").unwrap_or_else(|| panic!("{line:?}")).to_owned();
            let is_last = line.as_bytes()[3] == b' ';
            lines.push(line);
            if is_last {
                return lines;
            }
        }
    }

    /// The last line of a reply.
    pub(crate) fn reply(&mut self) -> String {
        self.lines().pop().unwrap()
    }

    pub(crate) fn expect(&mut self, line: &str, reply: &str) {
        self.send(format!("{line}\r\n").as_bytes());
        let answer = self.reply();
        assert!(answer.starts_with(reply), "{line}: {answer}");
    }

    /// Sends a message for ann, dots stuffed already; returns the answer to its end.
    pub(crate) fn message(&mut self, content: &[u8]) -> String {
        self.expect("MAIL FROM:<zoe@far.test>", "250 2.1.0 ");
        self.expect("RCPT TO:<ann@mx.test>", "250 2.1.5 ");
        self.expect("DATA", "354 ");
        self.send(content);
        self.send(b"\r\n.\r\n");
        self.reply()
    }

    /// What else the server says until it closes; a reset is an end, too.
    pub(crate) fn rest(&mut self) -> String {
        let mut rest = Vec::new();
        let _ = self.replies.read_to_end(&mut rest);
        String::from_utf8_lossy(&rest).into_owned()
    }
}
