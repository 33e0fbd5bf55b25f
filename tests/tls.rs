//! TLS on listeners as clients see it, good ones and bad ones, and the certificate's life: made,
//! read, renewed, broken.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use openssl::ssl::SslVersion;

#[path = "tls/bad_input.rs"]
mod bad_input;
#[path = "tls/certificates.rs"]
mod certificates;
#[path = "tls/check.rs"]
mod check;
#[path = "tls/client.rs"]
mod client;
#[path = "support/home.rs"]
mod home;
#[path = "support/server.rs"]
mod server;

use certificates::{Authority, Identity, Kind, Wish};
use client::{Client, Manners, Secured, connect, handshake};
use home::Home;
use server::{PATIENCE, TestServer};

/// Two listeners: `smtp` with STARTTLS and `tls` with TLS from the beginning.
const LISTENERS: [(&str, &str); 4] = [
    ("listen.smtp.tls", "starttls"),
    ("listen.tls.address", "127.0.0.1:0"),
    ("listen.tls.tls", "implicit"),
    ("tls.key", "HOME/key.pem"),
];

/// A folder with [`LISTENERS`] and these changes; the last one for a name counts.
fn home(changes: &[(&str, &str)]) -> Home {
    let mut settings: Vec<(String, String)> = Vec::new();
    for (name, value) in LISTENERS.iter().chain(changes) {
        settings.retain(|(known, _)| known != name);
        settings.push(((*name).to_owned(), (*value).to_owned()));
    }
    Home::new(&settings)
}

/// A folder as above, in which the server has to make its certificate itself.
fn home_without_certificate(changes: &[(&str, &str)]) -> Home {
    let home = home(changes);
    let text = fs::read_to_string(home.config()).unwrap();
    let lines = text
        .lines()
        .filter(|line| !line.starts_with("certificate =") && !line.starts_with("key ="));
    fs::write(home.config(), lines.collect::<Vec<_>>().join("\n")).unwrap();
    home
}

fn server(identity: &Identity, changes: &[(&str, &str)]) -> (Home, TestServer) {
    let home = home(changes);
    identity.write(home.path());
    let server = TestServer::start(&home);
    (home, server)
}

fn ordinary() -> Identity {
    Wish::new("mx.test").alone()
}

/// Waits until the log says `text` so many times.
fn wait_for_log(server: &TestServer, text: &str, count: usize) {
    let log = server.log.text.lock().unwrap();
    let is_short = |log: &mut String| log.matches(text).count() < count;
    let (log, result) = server.log.grown.wait_timeout_while(log, PATIENCE, is_short).unwrap();
    assert!(!result.timed_out(), "{text} is not there {count} times: {log}");
}

/// Where the listener of this name is.
fn address(server: &TestServer, name: &str) -> SocketAddr {
    let end = format!(" [listen.{name}]");
    wait_for_log(server, &end, 1);
    let log = server.log.text.lock().unwrap();
    let line = log.lines().find(|line| line.ends_with(&end)).unwrap();
    let (_, address) = line.strip_suffix(&end).unwrap().rsplit_once(' ').unwrap();
    address.parse().unwrap()
}

/// A client on each of the two listeners.
fn both(server: &TestServer, manners: &Manners) -> [Secured; 2] {
    [
        Secured::by_start_tls(address(server, "smtp"), manners),
        Secured::implicit(address(server, "tls"), manners),
    ]
}

/// The certificate that the server shows now.
fn shown(server: &TestServer) -> Vec<u8> {
    let [one, other] = both(server, &Manners::trusting());
    assert_eq!(one.shown(), other.shown());
    one.shown()
}

fn tell(server: &TestServer, signal: rustix::process::Signal) {
    rustix::process::kill_process(server.pid(), signal).unwrap();
}

/// The messages that ann got, in no order.
fn mailbox(home: &Home) -> Vec<Vec<u8>> {
    let Ok(entries) = fs::read_dir(home.path().join("mail/ann/new")) else { return Vec::new() };
    entries.map(|entry| fs::read(entry.unwrap().path()).unwrap()).collect()
}

#[test]
fn a_client_that_checks_is_served_by_either_way_and_either_key() {
    let authority = Authority::new();
    for kind in [Kind::Ec, Kind::Rsa] {
        let identity = authority.sign(&Wish::new("mx.test").of(kind));
        let (home, server) = server(&identity, &[("log.level", "debug")]);
        // It knows the root only: the certificate between comes with the handshake.
        let manners = Manners::checking(authority.root.certificate.clone());
        for (number, mut client) in both(&server, &manners).into_iter().enumerate() {
            client.send(b"EHLO client.test\r\n");
            let offer = client.lines();
            assert!(offer.len() > 1 && !offer.iter().any(|line| line.contains("STARTTLS")));
            let answer = client.message(format!("Subject: {number}\r\n\r\nhello").as_bytes());
            assert!(answer.starts_with("250 2.0.0 "), "{answer}");
            client.expect("QUIT", "221 ");
            assert_eq!(client.rest(), "");
            let state = client.replies.get_mut().get_shutdown();
            assert!(state.contains(openssl::ssl::ShutdownState::RECEIVED), "no close_notify");
        }
        wait_for_log(&server, ": delivered ", 2);
        assert_eq!(mailbox(&home).len(), 2);
        let log = server.stop();
        assert_eq!(log.matches("127.0.0.1: TLSv1.3 TLS_AES_").count(), 2, "{log}");
    }
}

#[test]
fn what_was_learnt_in_the_clear_is_forgotten() {
    let (_home, server) = server(&ordinary(), &[]);
    let mut client = Client { replies: std::io::BufReader::new(server.connect()) };
    assert_eq!(client.reply(), "220 mx.test ESMTP mailwren");
    client.expect("STARTTLS", "503 5.5.1 Send EHLO");
    client.expect("EHLO before.test", "250 ");
    client.expect("MAIL FROM:<zoe@far.test>", "250 ");
    client.expect("STARTTLS", "220 2.0.0 ");
    let stream = handshake(client.replies.into_inner(), &Manners::trusting()).unwrap();
    let mut client = Client { replies: std::io::BufReader::new(stream) };
    client.expect("RCPT TO:<ann@mx.test>", "503 5.5.1 Send MAIL");
    client.expect("MAIL FROM:<zoe@far.test>", "503 5.5.1 Send EHLO");
    client.expect("STARTTLS", "503 5.5.1 The connection is encrypted already");
    client.expect("EHLO after.test", "250 ");
    client.expect("STARTTLS", "503 5.5.1 The connection is encrypted already");
    assert!(client.message(b"hello").starts_with("250 2.0.0 "));
    server.stop();
}

#[test]
fn versions_below_the_minimum_are_refused_and_taken_where_they_are_wanted() {
    let rsa = Wish::new("mx.test").of(Kind::Rsa).alone();
    let changes = [
        ("listen.old.address", "127.0.0.1:0"),
        ("listen.old.tls", "starttls"),
        ("listen.old.tls_minimum", "1.0"),
        ("listen.middle.address", "127.0.0.1:0"),
        ("listen.middle.tls", "starttls"),
        ("listen.middle.tls_minimum", "1.1"),
        ("listen.new.address", "127.0.0.1:0"),
        ("listen.new.tls", "starttls"),
        ("listen.new.tls_minimum", "1.3"),
    ];
    let (_home, server) = server(&rsa, &changes);
    let versions = [SslVersion::TLS1, SslVersion::TLS1_1, SslVersion::TLS1_2, SslVersion::TLS1_3];
    let mut refused = 0;
    for (name, oldest) in [("old", 0), ("smtp", 2), ("middle", 1), ("new", 3), ("smtp", 2)] {
        for (at, version) in versions.into_iter().enumerate() {
            let stream = Client::plain(address(&server, name)).ask_for_tls();
            let result = handshake(stream, &Manners::speaking(version));
            assert_eq!(result.is_ok(), at >= oldest, "{name} {version:?}");
            if let Ok(stream) = result {
                assert_eq!(stream.ssl().version2(), Some(version));
                let mut client = Client { replies: std::io::BufReader::new(stream) };
                client.expect("EHLO client.test", "250 ");
            } else {
                refused += 1;
                wait_for_log(&server, "error=\"the client knows only versions", refused);
            }
        }
    }
    let log = server.stop();
    assert!(log.contains("older than TLS 1.2; an old device wants a listener of its own"), "{log}");
    assert!(log.contains("older than TLS 1.3; "), "{log}");
}

#[test]
fn a_renewed_certificate_is_shown_and_a_broken_one_is_not() {
    let (first, second) = (ordinary(), ordinary());
    let (home, server) = server(&first, &[]);
    let der = |identity: &Identity| identity.certificate.to_der().unwrap();
    assert_eq!(shown(&server), der(&first));
    // A session goes on with the one that it has.
    let [mut old, _] = both(&server, &Manners::trusting());
    // The two files are written one after the other.
    second.write_certificate(home.path());
    assert_eq!(shown(&server), der(&first));
    assert_eq!(shown(&server), der(&first));
    second.write_key(home.path());
    assert_eq!(shown(&server), der(&second));
    old.expect("EHLO client.test", "250 ");
    for broken in [&b"no certificate"[..], b"", b"-----BEGIN CERTIFICATE-----\nAAAA\n"] {
        fs::write(home.path().join("cert.pem"), broken).unwrap();
        assert_eq!(shown(&server), der(&second));
    }
    fs::remove_file(home.path().join("key.pem")).unwrap();
    assert_eq!(shown(&server), der(&second));
    first.write(home.path());
    assert_eq!(shown(&server), der(&first));
    let log = server.stop();
    let count = |text: &str| log.matches(text).count();
    assert_eq!(count("key.pem: it does not match the certificate"), 1, "{log}");
    assert_eq!(count("cert.pem: there is no certificate in it"), 1, "{log}");
    assert_eq!(count("key.pem: No such file"), 1, "{log}");
    assert!(count("until then the certificate of before is shown") >= 3, "{log}");
    assert!(!log.contains("STARTTLS gets 454"), "{log}");
}

#[test]
fn a_hangup_has_the_certificate_read_again() {
    let (first, second) = (ordinary(), ordinary());
    let (home, server) = server(&first, &[]);
    second.write_certificate(home.path());
    tell(&server, rustix::process::Signal::HUP);
    wait_for_log(&server, "it does not match the certificate", 1);
    second.write_key(home.path());
    let before = server.log.text.lock().unwrap().matches(", SHA-256 ").count();
    tell(&server, rustix::process::Signal::HUP);
    wait_for_log(&server, ", SHA-256 ", before + 1);
    assert_eq!(shown(&server), second.certificate.to_der().unwrap());
    server.stop();
}

#[test]
fn files_of_root_alone_are_read_again_by_a_server_that_is_not_root() {
    assert!(rustix::process::geteuid().is_root(), "run this test as root: privileges are dropped");
    let home = home(&[
        ("server.user", "nobody"),
        ("tls.certificate", "HOME/root/cert.pem"),
        ("tls.key", "HOME/root/key.pem"),
    ]);
    fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let folder = home.path().join("root");
    fs::create_dir(&folder).unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
    let (first, second) = (ordinary(), ordinary());
    first.write(&folder);
    let server = TestServer::start(&home);
    assert_eq!(shown(&server), first.certificate.to_der().unwrap());
    let status = fs::read_to_string(format!("/proc/{}/status", server.pid().as_raw_pid())).unwrap();
    assert!(!status.contains("Uid:\t0"), "{status}");
    second.write(&folder);
    assert_eq!(shown(&server), second.certificate.to_der().unwrap());
    server.stop();
}

/// The server's account can put anything into its own folder, but must not have it read as root.
#[test]
fn a_link_in_the_servers_own_folder_leads_nowhere_but_where_its_account_may_go() {
    assert!(rustix::process::geteuid().is_root(), "run this test as root: privileges are dropped");
    let home = home_without_certificate(&[("server.user", "nobody")]);
    fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let folder = home.path().join("root");
    fs::create_dir(&folder).unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
    ordinary().write(&folder);
    let server = TestServer::start(&home);
    let own = shown(&server);
    // Root without its capabilities cannot enter them otherwise.
    for private in ["state", "state/tls"] {
        let open = fs::Permissions::from_mode(0o755);
        fs::set_permissions(home.path().join(private), open).unwrap();
    }
    for name in ["cert.pem", "key.pem"] {
        let link = home.path().join("state/tls").join(name);
        fs::remove_file(&link).unwrap();
        std::os::unix::fs::symlink(folder.join(name), link).unwrap();
    }
    assert_eq!(shown(&server), own);
    wait_for_log(&server, "Permission denied", 1);
    server.stop();
}

#[test]
fn the_state_folder_is_the_servers_or_mail_goes_on_without_it() {
    assert!(rustix::process::geteuid().is_root(), "run this test as root: privileges are dropped");
    let start = |state: &str| {
        let home = home_without_certificate(&[("server.user", "nobody"), ("server.state", state)]);
        fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755)).unwrap();
        // As systemd makes it for StateDirectory=, for root.
        fs::create_dir(home.path().join("empty")).unwrap();
        fs::create_dir_all(home.path().join("full/of/roots")).unwrap();
        fs::set_permissions(home.path().join("empty"), fs::Permissions::from_mode(0o750)).unwrap();
        let server = TestServer::start(&home);
        let mut client = Client::plain(address(&server, "smtp"));
        client.expect("EHLO client.test", "250 ");
        client.send(b"STARTTLS\r\n");
        let answer = client.reply();
        (answer, server.stop())
    };
    for folder in ["HOME/empty", "HOME/new/state"] {
        let (answer, log) = start(folder);
        assert!(answer.starts_with("220 ") && log.contains("the server has made one"), "{log}");
    }
    // It cannot be made below a file, and nobody may write what is root's.
    for (folder, complaint) in
        [("HOME/users/x", " [server] state that nobody "), ("HOME/full", "/full/tls: ")]
    {
        let (answer, log) = start(folder);
        assert!(answer.starts_with("454 4.7.0 ") && log.contains(complaint), "{log}");
        assert!(log.contains("no certificate could be made there"), "{log}");
    }
}

#[test]
fn a_certificate_that_cannot_be_used_keeps_mail_going() {
    let home = home(&[]);
    let server = TestServer::start(&home);
    let mut client = Client::plain(address(&server, "smtp"));
    client.expect("EHLO client.test", "250 ");
    client.expect("STARTTLS", "454 4.7.0 ");
    assert!(client.message(b"in the clear").starts_with("250 2.0.0 "));
    let mut gone = Client { replies: std::io::BufReader::new(connect(address(&server, "tls"))) };
    assert_eq!(gone.rest(), "");
    wait_for_log(&server, "closed, there is no certificate for TLS to show", 1);
    let identity = ordinary();
    identity.write(home.path());
    client.expect("STARTTLS", "220 2.0.0 ");
    handshake(client.replies.into_inner(), &Manners::trusting()).unwrap();
    assert_eq!(shown(&server), identity.certificate.to_der().unwrap());
    let log = server.stop();
    assert!(log.contains("cert.pem: No such file") && log.contains("name another one in [tls]"));
}

#[test]
fn the_servers_own_certificate_is_made_once_and_made_anew_where_it_is_broken() {
    let home = home_without_certificate(&[]);
    let folder = home.path().join("state/tls");
    let start = || {
        let server = TestServer::start(&home);
        let shown = shown(&server);
        (shown, server.stop())
    };
    let (first, log) = start();
    assert!(log.contains("the server has made one"), "{log}");
    let fingerprint = openssl::sha::sha256(&first).map(|octet| format!("{octet:02x}")).join(":");
    assert!(log.contains(&format!("SHA-256 {fingerprint}")), "{log}");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&folder), mode(&folder.join("key.pem"))), (0o700, 0o600));
    let (second, log) = start();
    assert_eq!(second, first);
    assert!(!log.contains("has made one"), "{log}");
    let key = fs::read(folder.join("key.pem")).unwrap();
    // Cut off; empty; whole by its looks; not there.
    let mut last = first;
    for broken in [&key[..100], b"", b"-----BEGIN X-----\n-----END X-----\n"] {
        fs::write(folder.join("key.pem"), broken).unwrap();
        let (next, log) = start();
        assert_ne!(next, last);
        assert_eq!(log.matches("has made one").count(), 1, "{log}");
        last = next;
    }
    fs::remove_file(folder.join("cert.pem")).unwrap();
    assert_ne!(start().0, last);
    assert!(!fs::exists(folder.join("key.pem.new")).unwrap());
}

#[test]
fn a_listener_for_old_devices_gets_a_certificate_that_they_know() {
    let home = home_without_certificate(&[("listen.smtp.tls_minimum", "1.0")]);
    let server = TestServer::start(&home);
    let manners = Manners::speaking(SslVersion::TLS1);
    let client = Secured::by_start_tls(address(&server, "smtp"), &manners);
    let certificate = client.replies.get_ref().ssl().peer_certificate().unwrap();
    assert_eq!(certificate.public_key().unwrap().id(), openssl::pkey::Id::RSA);
    server.stop();
}

#[test]
fn a_client_that_does_not_trust_us_is_in_the_log() {
    let (_home, server) = server(&ordinary(), &[]);
    for version in [SslVersion::TLS1_2, SslVersion::TLS1_3] {
        let stranger = Authority::new().root.certificate;
        let versions = (Some(version), Some(version));
        let manners = Manners { root: Some(stranger), versions };
        let stream = Client::plain(address(&server, "smtp")).ask_for_tls();
        assert!(handshake(stream, &manners).is_err());
    }
    wait_for_log(&server, "error=\"the client does not trust our certificate", 2);
    server.stop();
}

#[test]
fn a_message_of_some_mebibytes_arrives_as_it_is() {
    let (home, server) = server(&ordinary(), &[("server.max_message_size", "8M")]);
    let line: Vec<u8> = (0..76).map(|n| b'a' + n % 26).chain(*b"\r\n").collect();
    let content = [b"Subject: large\r\n\r\n".to_vec(), line.repeat(60_000)].concat();
    for mut client in both(&server, &Manners::trusting()) {
        client.expect("EHLO client.test", "250 ");
        assert!(client.message(&content).starts_with("250 2.0.0 "));
        client.expect("QUIT", "221 ");
    }
    wait_for_log(&server, ": delivered ", 2);
    let lines = String::from_utf8(content).unwrap().replace("\r\n", "\n");
    for message in mailbox(&home) {
        assert!(String::from_utf8(message).unwrap().trim_end().ends_with(lines.trim_end()));
    }
    server.stop();
}

#[test]
fn nothing_is_smuggled_under_tls() {
    let ends = ["\n.\n", "\n.\r\n", "\r\n.\n", "\r.\r", "\r\n.\r", "\r.\r\n", "\r\n\0.\r\n"];
    let (home, server) = server(&ordinary(), &[]);
    for end in ends {
        let mut client = Secured::implicit(address(&server, "tls"), &Manners::trusting());
        client.expect("EHLO client.test", "250 ");
        let smuggled =
            "MAIL FROM:<eve@far.test>\r\nRCPT TO:<ann@mx.test>\r\nDATA\r\nsmuggled\r\n.\r\n";
        let content = format!("Subject: one\r\n\r\nbody{end}{smuggled}");
        client.expect("MAIL FROM:<zoe@far.test>", "250 ");
        client.expect("RCPT TO:<ann@mx.test>", "250 ");
        client.expect("DATA", "354 ");
        client.send(content.as_bytes());
        client.send(b"QUIT\r\n");
        let rest = client.rest();
        assert_eq!(rest.matches("354").count(), 0, "{end:?}: {rest}");
        assert!(rest.matches("250 2.0.0 Ok: queued").count() <= 1, "{end:?}: {rest}");
    }
    let log = server.stop();
    assert!(!log.contains("eve@far.test"), "{log}");
    assert!(mailbox(&home).len() <= ends.len());
}

#[test]
fn a_handshake_that_drips_is_ended_by_the_deadline() {
    let (_home, server) = server(&ordinary(), &[("server.session_timeout", "1s")]);
    for name in ["smtp", "tls"] {
        let mut stream = match name {
            "smtp" => Client::plain(address(&server, name)).ask_for_tls(),
            _ => connect(address(&server, name)),
        };
        let began = Instant::now();
        // The beginning of a long record, and then an octet now and then.
        stream.write_all(b"\x16\x03\x01\x20\x00\x01\x00\x1f\xfc\x03\x03").unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        while stream.read(&mut [0; 64]).is_err_and(|error| {
            matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut)
        }) {
            assert!(began.elapsed() < PATIENCE, "it never ends");
            let _ = stream.write_all(b"x");
        }
    }
    wait_for_log(&server, "error=\"the client did not finish it in time", 2);
    server.stop();
}

#[test]
fn a_silent_client_hears_of_the_timeout_under_tls_too() {
    let (_home, server) = server(&ordinary(), &[("server.session_timeout", "1s")]);
    for mut client in both(&server, &Manners::trusting()) {
        assert_eq!(client.rest(), "421 4.4.2 Timeout; closing the connection\r\n");
    }
    server.stop();
}

#[test]
fn a_stop_says_so_under_tls_too_and_ends_the_session_in_order() {
    let (_home, server) = server(&ordinary(), &[]);
    let clients = both(&server, &Manners::trusting());
    server.stop();
    let rests = clients.map(|mut client| client.rest());
    assert_eq!(rests, ["421 4.3.2 The server is stopping; try again later\r\n"; 2]);
}
