//! An SMTP server for tests that speaks TLS, well or as badly as a test wants, and the
//! certificates that it shows. It records what it was told, apart for what came in the clear.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use openssl::asn1::Asn1Time;
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::ssl::{HandshakeError, SslAcceptor, SslMethod, SslVerifyMode, SslVersion};
use openssl::x509::extension::{BasicConstraints, SubjectAlternativeName};
use openssl::x509::{X509, X509Name, X509NameRef};

use crate::auth_desk::Desk;
use crate::sessions::{Record, Sessions, read_content};

/// A certificate and its key.
#[derive(Clone)]
pub(crate) struct Identity {
    certificate: X509,
    key: PKey<Private>,
    /// What is shown beside it.
    chain: Vec<X509>,
}

impl Identity {
    /// A certificate for `host`, a name or an address, that is valid from so many days from
    /// now to so many, signed by `issuer` or by itself.
    fn new(host: &str, days: (i64, i64), issuer: Option<&Self>, is_authority: bool) -> Self {
        let curve = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
        let key = PKey::from_ec_key(EcKey::generate(&curve).unwrap()).unwrap();
        let subject = name(host);
        let (issuer_name, issuer_key): (&X509NameRef, _) = match issuer {
            Some(issuer) => (issuer.certificate.subject_name(), &issuer.key),
            None => (&subject, &key),
        };
        let mut builder = X509::builder().unwrap();
        builder.set_version(2).unwrap();
        builder.set_subject_name(&subject).unwrap();
        builder.set_issuer_name(issuer_name).unwrap();
        builder.set_pubkey(&key).unwrap();
        builder.set_not_before(&in_days(days.0)).unwrap();
        builder.set_not_after(&in_days(days.1)).unwrap();
        let mut alternative = SubjectAlternativeName::new();
        match host.parse::<std::net::IpAddr>() {
            Ok(_) => alternative.ip(host),
            Err(_) => alternative.dns(host),
        };
        let alternative = alternative.build(&builder.x509v3_context(None, None)).unwrap();
        builder.append_extension(alternative).unwrap();
        if is_authority {
            let constraints = BasicConstraints::new().critical().ca().build().unwrap();
            builder.append_extension(constraints).unwrap();
        }
        builder.sign(issuer_key, MessageDigest::sha256()).unwrap();
        let chain = issuer.into_iter().flat_map(|issuer| issuer.chain.clone()).collect();
        Self { certificate: builder.build(), key, chain }
    }

    /// One that nobody else has signed.
    pub(crate) fn self_signed(host: &str) -> Self {
        Self::new(host, (-1, 1), None, true)
    }

    /// Its SHA-256, as the configuration has it.
    pub(crate) fn fingerprint(&self) -> [u8; 32] {
        let digest = self.certificate.digest(MessageDigest::sha256()).unwrap();
        digest.as_ref().try_into().unwrap()
    }

    /// The certificate.
    pub(crate) fn pem(&self) -> Vec<u8> {
        self.certificate.to_pem().unwrap()
    }
}

fn in_days(days: i64) -> Asn1Time {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    Asn1Time::from_unix(i64::try_from(now.as_secs()).unwrap() + days * 86_400).unwrap()
}

fn name(host: &str) -> X509Name {
    let mut name = X509Name::builder().unwrap();
    name.append_entry_by_nid(Nid::COMMONNAME, host).unwrap();
    name.build()
}

/// Who signs certificates, and the file that says whom to trust.
pub(crate) struct Authority {
    identity: Identity,
    folder: tempfile::TempDir,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let identity = Identity::self_signed("Authority of the tests");
        let folder = tempfile::tempdir().unwrap();
        let authority = Self { identity, folder };
        std::fs::write(authority.file(), authority.pem()).unwrap();
        authority
    }

    /// The file with its certificate.
    pub(crate) fn file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    pub(crate) fn pem(&self) -> Vec<u8> {
        self.identity.pem()
    }

    /// A certificate that is valid today.
    pub(crate) fn sign(&self, host: &str) -> Identity {
        self.sign_for(host, (-1, 1))
    }

    /// A certificate that is valid from and to so many days from now.
    pub(crate) fn sign_for(&self, host: &str, days: (i64, i64)) -> Identity {
        Identity::new(host, days, Some(&self.identity), false)
    }

    /// Another authority, whose certificate this one has signed and servers show with theirs.
    pub(crate) fn authority(&self) -> Self {
        let mut identity = Identity::new("Intermediate", (-1, 1), Some(&self.identity), true);
        identity.chain.push(identity.certificate.clone());
        Self { identity, folder: tempfile::tempdir().unwrap() }
    }
}

/// What the server does where a handshake is due.
#[derive(Clone, Copy)]
pub(crate) enum Handshake {
    /// It goes as it should.
    Good,
    /// Nothing, until the client has left.
    Silence,
    /// It sends these octets and closes.
    SayAndHangUp(&'static [u8]),
    /// It sends the octets of a record one at a time.
    Drip,
    /// It goes as it should; then the octets of a long encrypted greeting come one at a time.
    GoodThenDrip,
    /// It goes as it should; then EHLO is answered, and AUTH by a reset of the connection.
    GoodThenReset,
}

/// What the server is like.
#[derive(Clone)]
pub(crate) struct Manners {
    /// Whether TLS begins with the connection.
    pub(crate) is_implicit: bool,
    /// The answer to EHLO in the clear.
    pub(crate) ehlo: &'static str,
    /// The answer to STARTTLS.
    pub(crate) start_tls: &'static str,
    pub(crate) handshake: Handshake,
    pub(crate) version: SslVersion,
    /// Whether it insists on a certificate of the client.
    pub(crate) wants_client_certificate: bool,
    /// The answer to the first message; then the server closes, without a word of TLS.
    pub(crate) last_words: Option<&'static str>,
    /// Who answers encrypted lines first.
    pub(crate) desk: Option<Arc<Desk>>,
    /// The number of the session that ends so.
    pub(crate) last_words_in: usize,
}

impl Manners {
    /// Good ones, with STARTTLS.
    pub(crate) fn start_tls() -> Self {
        Self {
            is_implicit: false,
            ehlo: "250-peer.test\r\n250-PIPELINING\r\n250 STARTTLS\r\n",
            start_tls: "220 go\r\n",
            handshake: Handshake::Good,
            version: SslVersion::TLS1_3,
            wants_client_certificate: false,
            last_words: None,
            desk: None,
            last_words_in: 0,
        }
    }

    /// Good ones, with TLS from the beginning.
    pub(crate) fn implicit() -> Self {
        Self { is_implicit: true, ..Self::start_tls() }
    }
}

/// What one session was told.
#[derive(Clone, Debug, Default)]
pub(crate) struct Session {
    /// The lines that came in the clear.
    pub(crate) plain: Vec<String>,
    /// The commands that came encrypted.
    pub(crate) secured: Vec<String>,
    /// The content of each message, as it went over the wire up to the lone dot.
    pub(crate) contents: Vec<Vec<u8>>,
}

/// A server on an address of its own. Ends when dropped.
pub(crate) struct TlsPeer(Sessions<Session>);

impl TlsPeer {
    pub(crate) fn new(identity: &Identity, manners: Manners) -> Self {
        let mut acceptor = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server()).unwrap();
        acceptor.set_certificate(&identity.certificate).unwrap();
        acceptor.set_private_key(&identity.key).unwrap();
        for certificate in &identity.chain {
            acceptor.add_extra_chain_cert(certificate.clone()).unwrap();
        }
        acceptor.set_max_proto_version(Some(manners.version)).unwrap();
        if manners.wants_client_certificate {
            acceptor.set_verify(SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT);
        }
        let acceptor = acceptor.build();
        Self(Sessions::new("127.0.0.1:0", move |stream, record| {
            Server { record, manners: &manners, acceptor: &acceptor }.serve(stream)
        }))
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.0.address()
    }

    /// What the sessions were told so far.
    pub(crate) fn sessions(&self) -> Vec<Session> {
        self.0.told()
    }
}

struct Server<'a> {
    record: &'a Record<Session>,
    manners: &'a Manners,
    acceptor: &'a SslAcceptor,
}

impl Server<'_> {
    fn serve(&self, stream: TcpStream) -> std::io::Result<()> {
        let mut plain = BufReader::new(stream);
        if !self.manners.is_implicit {
            plain.get_mut().write_all(b"220 peer.test ESMTP\r\n")?;
            let wants_tls = self.converse(&mut plain, false)?;
            if !wants_tls {
                return Ok(());
            }
        }
        assert!(plain.buffer().is_empty(), "the client did not wait for the 220");
        let mut stream = plain.into_inner();
        match self.manners.handshake {
            Handshake::Good | Handshake::GoodThenDrip | Handshake::GoodThenReset => {}
            Handshake::Silence => {
                std::io::copy(&mut stream, &mut std::io::sink())?;
                return Ok(());
            }
            Handshake::SayAndHangUp(octets) => {
                // The client's first words are read, lest the kernel resets the connection.
                let _ = stream.read(&mut [0; 4096])?;
                return stream.write_all(octets);
            }
            Handshake::Drip => {
                stream.write_all(b"\x16\x03\x03\x40\x00\x02\x00\x3f\xfc")?;
                return Wire { stream, is_slow: true }.write_all(&[0; 10_000]);
            }
        }
        let wire = Wire { stream, is_slow: false };
        let mut secured = match self.acceptor.accept(wire) {
            Ok(secured) => secured,
            Err(HandshakeError::Failure(mut failed)) => {
                // Whatever the client has said since is read, lest the kernel resets the
                // connection before the client has read the alert.
                std::io::copy(&mut failed.get_mut().stream, &mut std::io::sink())?;
                return Ok(());
            }
            Err(error) => return Err(std::io::Error::other(error)),
        };
        if matches!(self.manners.handshake, Handshake::GoodThenDrip) {
            secured.get_mut().is_slow = true;
            return secured.write_all(&[b'2'; 10_000]);
        }
        if matches!(self.manners.handshake, Handshake::GoodThenReset) {
            let _ = secured.read(&mut [0; 1000])?;
            secured.write_all(b"250-peer.test\r\n250 AUTH PLAIN\r\n")?;
            // What is there and was not read makes the kernel reset the connection.
            let _ = secured.get_ref().stream.peek(&mut [0])?;
            return Ok(());
        }
        let mut secured = BufReader::new(secured);
        if self.manners.is_implicit {
            secured.get_mut().write_all(b"220 peer.test ESMTP\r\n")?;
        }
        self.converse(&mut secured, true).map(|_| ())
    }

    /// Whether STARTTLS was asked for and granted.
    fn converse<S: Read + Write>(
        &self,
        stream: &mut BufReader<S>,
        is_secured: bool,
    ) -> std::io::Result<bool> {
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line)? == 0 {
                return Ok(false);
            }
            line.truncate(line.trim_end().len());
            self.record.note(|session| match is_secured {
                true => session.secured.push(line.clone()),
                false => session.plain.push(line.clone()),
            });
            let verb = line.split([' ', ':']).next().unwrap_or_default();
            let reply = match verb {
                "EHLO" if is_secured => "250-peer.test\r\n250-PIPELINING\r\n250 SIZE\r\n",
                "EHLO" => self.manners.ehlo,
                "STARTTLS" => self.manners.start_tls,
                "DATA" => "354 go on\r\n",
                "QUIT" => "221 bye\r\n",
                _ => "250 ok\r\n",
            };
            let desk = self.manners.desk.as_ref().filter(|_| is_secured);
            if let Some(answer) = desk.and_then(|desk| desk.answer(self.record.number, &line)) {
                stream.get_mut().write_all(answer.as_bytes())?;
                continue;
            }
            stream.get_mut().write_all(reply.as_bytes())?;
            match verb {
                "QUIT" => return Ok(false),
                "STARTTLS" if reply.starts_with("220") => return Ok(true),
                "DATA" => {
                    let content = read_content(stream)?;
                    self.record.note(|session| session.contents.push(content));
                    let last_words = self
                        .manners
                        .last_words
                        .filter(|_| self.record.number == self.manners.last_words_in);
                    let reply = last_words.unwrap_or("250 2.0.0 taken\r\n");
                    stream.get_mut().write_all(reply.as_bytes())?;
                    if last_words.is_some() {
                        return Ok(false);
                    }
                }
                _ => {}
            }
        }
    }
}

/// A connection that can be slow: then it sends one octet a while.
#[derive(Debug)]
struct Wire {
    stream: TcpStream,
    is_slow: bool,
}

impl Read for Wire {
    fn read(&mut self, octets: &mut [u8]) -> std::io::Result<usize> {
        self.stream.read(octets)
    }
}

impl Write for Wire {
    fn write(&mut self, octets: &[u8]) -> std::io::Result<usize> {
        if !self.is_slow {
            return self.stream.write(octets);
        }
        thread::sleep(Duration::from_millis(20));
        self.stream.write(&octets[..1])
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.stream.flush()
    }
}
