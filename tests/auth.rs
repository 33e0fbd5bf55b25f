//! Logging in to the built program, and `mailwren passwd`, which makes the accounts.
#![expect(clippy::unwrap_used, reason = "a test ends where it panics")]

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::thread;

#[path = "support/home.rs"]
mod home;
#[path = "support/server.rs"]
mod server;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use home::Home;
use server::TestServer;
use socket2::{Domain, Socket, Type};

/// A home whose listener lets people log in, with these changes.
fn home(changes: &[(&str, &str)]) -> Home {
    let mut all = vec![("listen.smtp.auth", "optional"), ("listen.smtp.auth_without_tls", "yes")];
    all.extend_from_slice(changes);
    let all: Vec<_> = all.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
    Home::new(&all)
}

fn accounts(home: &Home) -> PathBuf {
    home.path().join("accounts")
}

/// A client that has said EHLO.
struct Client<S = TcpStream> {
    stream: S,
    replies: BufReader<S>,
    /// What EHLO was answered with.
    offer: String,
}

impl Client {
    fn new(server: &TestServer) -> Self {
        let stream = server.connect();
        Self::over(stream.try_clone().unwrap(), stream)
    }
}

impl<S: Read + Write> Client<S> {
    fn over(stream: S, replies: S) -> Self {
        let mut client = Self { stream, replies: BufReader::new(replies), offer: String::new() };
        client.reply();
        client.offer = client.say("EHLO client.test");
        client
    }

    fn reply(&mut self) -> String {
        let mut reply = String::new();
        loop {
            let start = reply.len();
            assert_ne!(self.replies.read_line(&mut reply).unwrap(), 0, "closed after {reply:?}");
            if reply.as_bytes().get(start + 3) == Some(&b' ') {
                return reply.trim_end().to_owned();
            }
        }
    }

    fn say(&mut self, line: &str) -> String {
        self.stream.write_all(format!("{line}\r\n").as_bytes()).unwrap();
        self.reply()
    }

    fn plain(&mut self, user: &str, password: &str) -> String {
        let response = STANDARD.encode(format!("\0{user}\0{password}"));
        self.say(&format!("AUTH PLAIN {response}"))
    }
}

/// A connection from another address of this host.
fn connect_from(address: Ipv4Addr, to: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((address, 0)).into()).unwrap();
    socket.connect(&to.into()).unwrap();
    socket.into()
}

/// Runs `mailwren passwd` with this on standard input.
fn passwd(home: &Home, arguments: &[&str], input: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mailwren"));
    command.arg("--config").arg(home.config()).arg("passwd").args(arguments);
    command.env_remove("MAILWREN_CONFIG").stdin(Stdio::piped());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // One that fails before it reads does not take the password.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn text(octets: &[u8]) -> &str {
    str::from_utf8(octets).unwrap()
}

#[test]
fn an_account_is_made_used_changed_and_removed_while_the_server_runs() {
    let home = home(&[("auth.mechanisms", "SCRAM-SHA-256, SCRAM-SHA-1, CRAM-MD5, PLAIN")]);
    fs::remove_file(accounts(&home)).unwrap();
    let server = TestServer::start(&home);
    assert!(!Client::new(&server).offer.contains("AUTH"));

    let made = passwd(&home, &["Eve"], "first secret\n");
    assert!(made.status.success(), "{}", text(&made.stderr));
    assert!(text(&made.stdout).starts_with("Eve is a new account in "), "{made:?}");
    let written = fs::read_to_string(accounts(&home)).unwrap();
    let mode = fs::metadata(accounts(&home)).unwrap().permissions().mode();
    assert_eq!((mode & 0o777, written.contains("secret")), (0o600, false));
    let offer = Client::new(&server).offer;
    assert!(offer.contains("250-AUTH SCRAM-SHA-256 SCRAM-SHA-1 CRAM-MD5 PLAIN\r\n"), "{offer}");
    assert!(Client::new(&server).plain("eve", "first secret").starts_with("235 2.7.0"));

    let changed = passwd(&home, &["eve"], "second secret");
    assert!(text(&changed.stdout).starts_with("eve has a new password in "), "{changed:?}");
    assert!(Client::new(&server).plain("eve", "first secret").starts_with("535 5.7.8"));
    assert!(Client::new(&server).plain("eve@mx.test", "second secret").starts_with("235"));

    let removed = passwd(&home, &["--delete", "EVE"], "");
    assert!(text(&removed.stdout).starts_with("EVE is no longer in "), "{removed:?}");
    assert_eq!(passwd(&home, &["--delete", "eve"], "").status.code(), Some(67));
    assert!(!Client::new(&server).offer.contains("AUTH"));
    let log = server.stop();
    assert!(log.contains("login: client=127.0.0.1 mechanism=PLAIN user=\"Eve\""), "{log}");
    assert!(!log.contains("secret"), "{log}");
}

#[test]
fn passwd_keeps_what_it_does_not_change_and_takes_nothing_that_is_no_password() {
    let home = home(&[]);
    let before = fs::read_to_string(accounts(&home)).unwrap();
    for (arguments, input, code, part) in [
        (&["eve"][..], "", 65, "no line"),
        (&["eve"], "\n", 65, "empty"),
        (&["eve"], "a\tb\n", 65, "control characters"),
        (&["eve"], &"x".repeat(2000), 65, "more than 1024"),
        (&[], "x\n", 64, "NAME"),
        (&["a b"], "x\n", 64, "no name"),
        (&["a:b"], "x\n", 64, "no name"),
        (&["eve", "bob"], "x\n", 64, "bob"),
        (&["--delete", "eve"], "", 67, "no account eve"),
    ] {
        let output = passwd(&home, arguments, input);
        assert_eq!(output.status.code(), Some(code), "{arguments:?} {output:?}");
        assert!(text(&output.stderr).contains(part), "{arguments:?} {output:?}");
        assert_eq!(fs::read_to_string(accounts(&home)).unwrap(), before);
    }
    let nowhere = Home::new(&[("auth.users".to_owned(), "HOME/etc/users".to_owned())]);
    let output = passwd(&nowhere, &["eve"], "x\n");
    let folder = format!("there is no folder {}; make it", nowhere.path().join("etc").display());
    assert!(text(&output.stderr).contains(&folder), "{output:?}");
    fs::set_permissions(accounts(&home), Permissions::from_mode(0o640)).unwrap();
    assert!(passwd(&home, &["bob"], "x\n").status.success());
    let after = fs::read_to_string(accounts(&home)).unwrap();
    let others = |text: &str| {
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        lines.retain(|line| !line.starts_with("bob:"));
        lines
    };
    assert_eq!(others(&after), others(&before));
    let mode = fs::metadata(accounts(&home)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o640);
}

#[test]
fn many_who_set_passwords_at_once_lose_nobodys() {
    let home = home(&[]);
    thread::scope(|scope| {
        for number in 0..4 {
            let home = &home;
            scope.spawn(move || {
                let name = format!("user{number}");
                assert!(passwd(home, &[&name], "x\n").status.success());
            });
        }
    });
    let text = fs::read_to_string(accounts(&home)).unwrap();
    assert_eq!(text.lines().filter(|line| line.starts_with("user")).count(), 4);
}

#[test]
fn a_file_that_everybody_can_read_is_refused_until_it_is_a_secret_again() {
    let home = home(&[]);
    fs::set_permissions(accounts(&home), Permissions::from_mode(0o644)).unwrap();
    let server = TestServer::start(&home);
    let mut client = Client::new(&server);
    assert!(client.offer.contains("AUTH"));
    assert!(client.plain("bob", "pass word").starts_with("454 4.7.0"));
    fs::set_permissions(accounts(&home), Permissions::from_mode(0o600)).unwrap();
    assert!(client.plain("bob", "pass word").starts_with("235"));
    let log = server.stop();
    assert!(log.contains("chmod o-rwx,g-w "), "{log}");
}

#[test]
fn bad_lines_are_named_and_the_others_count() {
    let home = home(&[]);
    let text = fs::read_to_string(accounts(&home)).unwrap();
    fs::write(accounts(&home), format!("eve:secret\n{text}bob:$6$x$y\n")).unwrap();
    let server = TestServer::start(&home);
    assert!(Client::new(&server).plain("bob", "pass word").starts_with("235"));
    assert!(Client::new(&server).plain("eve", "secret").starts_with("535"));
    let log = server.stop();
    assert!(log.contains("accounts:1: \"eve\", field 2: this is no hash"), "{log}");
    let line = text.lines().count() + 2;
    assert!(log.contains(&format!("accounts:{line}: \"bob\", field 2:")), "{log}");
    assert!(!log.contains("secret"), "{log}");
}

/// After ten guesses an address is not listened to, whatever it says, and others are.
#[test]
fn ten_thousand_failing_logins_hinder_nobody_else() {
    let home = home(&[("auth.auth_failures", "100")]);
    let server = TestServer::start(&home);
    let mut listened_to = 0;
    for session in 0..1000 {
        let mut client = Client::new(&server);
        for attempt in 0..10 {
            let reply = client.plain("bob", &format!("{session}-{attempt}"));
            match &reply[..9] {
                "535 5.7.8" => listened_to += 1,
                "454 4.7.0" => {}
                _ => panic!("{reply}"),
            }
        }
    }
    assert_eq!(listened_to, 10);
    assert!(Client::new(&server).plain("bob", "pass word").starts_with("454 4.7.0 Too many"));
    let elsewhere = connect_from([127, 0, 0, 2].into(), server.address);
    let mut elsewhere = Client::over(elsewhere.try_clone().unwrap(), elsewhere);
    assert!(elsewhere.plain("bob", "pass word").starts_with("235"));
    let log = server.stop();
    let line = "login failed: client=127.0.0.1 mechanism=PLAIN reason=wrong-password user=\"bob\"";
    assert_eq!(log.matches(line).count(), 10, "{log}");
    assert_eq!(log.matches("logins refused: client=127.0.0.1 minutes=1:").count(), 1);
}

/// Whoever logs in at once has his turn, one after the other: the memory of one hash is enough.
#[test]
fn many_log_in_at_once_and_take_the_memory_of_one() {
    let home = home(&[]);
    // Of the usual cost, 7 MiB.
    assert!(passwd(&home, &["eve"], "secret").status.success());
    let mut server = server::command(&home).stderr(Stdio::piped()).spawn().unwrap();
    let mut log = BufReader::new(server.stderr.take().unwrap()).lines();
    let is_listening = |line: String| Some(line.split_once("listening on ")?.1.to_owned());
    let address = log.find_map(|line| is_listening(line.unwrap())).unwrap();
    let address: SocketAddr = address.split(' ').next().unwrap().parse().unwrap();
    let drained = thread::spawn(move || log.for_each(|line| drop(line.unwrap())));
    thread::scope(|scope| {
        for _ in 0..40 {
            scope.spawn(|| {
                let stream = TcpStream::connect(address).unwrap();
                let mut client = Client::over(stream.try_clone().unwrap(), stream);
                assert!(client.plain("eve", "secret").starts_with("235"));
                assert!(client.say("MAIL FROM:<eve@mx.test>").starts_with("250"));
                assert!(client.say("RCPT TO:<zoe@far.test>").starts_with("250"));
            });
        }
    });
    let status = fs::read_to_string(format!("/proc/{}/status", server.id())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak_kib: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(peak_kib < 64 << 10, "{peak_kib} KiB");
    server.kill().unwrap();
    server.wait().unwrap();
    drained.join().unwrap();
}

#[test]
fn a_mechanism_that_an_account_has_no_keys_for_looks_like_a_wrong_password() {
    let home = home(&[]);
    let server = TestServer::start(&home);
    let mut client = Client::new(&server);
    for user in ["bob", "nobody"] {
        let first = client.say(&format!(
            "AUTH SCRAM-SHA-256 {}",
            STANDARD.encode(format!("n,,n={user},r=abcdefgh"))
        ));
        let first = STANDARD.decode(first.strip_prefix("334 ").unwrap()).unwrap();
        let first = text(&first).to_owned();
        let (nonce, rest) = first.strip_prefix("r=").unwrap().split_once(',').unwrap();
        assert!(rest.starts_with("s=") && rest.ends_with(",i=4096"), "{first}");
        let proof = STANDARD.encode([b'x'; 32]);
        let last = STANDARD.encode(format!("c=biws,r={nonce},p={proof}"));
        assert!(client.say(&last).starts_with("535 5.7.8"));
    }
    let log = server.stop();
    assert!(log.contains("run: mailwren passwd bob"), "{log}");
    for (user, reason) in [("bob", "no-keys"), ("nobody", "unknown-name")] {
        let line = format!("mechanism=SCRAM-SHA-256 reason={reason} user={user:?}");
        assert!(log.contains(&line), "{line}: {log}");
    }
}

#[test]
fn what_a_client_says_in_place_of_a_name_cannot_forge_a_line_of_the_log() {
    let home = home(&[]);
    let server = TestServer::start(&home);
    let mut client = Client::new(&server);
    let name = "x\" client=192.0.2.1 user=\"y";
    assert!(client.plain(name, "x").starts_with("535"));
    assert!(client.plain("a\nb", "x").starts_with("535"));
    let log = server.stop();
    let line = "client=127.0.0.1 mechanism=PLAIN reason=unknown-name \
                user=\"x\\\" client=192.0.2.1 user=\\\"y\"";
    assert!(log.contains(line), "{log}");
    assert!(!log.lines().any(|line| line.starts_with('b')), "{log}");
}

#[test]
fn check_tells_what_is_wrong_with_the_accounts() {
    let home = home(&[
        ("listen.out.address", "127.0.0.1:0"),
        ("listen.out.protocol", "submission"),
        ("listen.out.tls", "none"),
        ("listen.out.auth_without_tls", "yes"),
    ]);
    let check = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mailwren"));
        command.arg("--config").arg(home.config()).arg("check");
        let output = command.env_remove("MAILWREN_CONFIG").output().unwrap();
        (output.status.code(), text(&output.stderr).to_owned())
    };
    assert_eq!(check(), (Some(0), String::new()));

    let good = fs::read_to_string(accounts(&home)).unwrap();
    fs::write(accounts(&home), format!("eve:x\n{good}")).unwrap();
    let (code, said) = check();
    assert_eq!(code, Some(78));
    assert!(said.contains("accounts:1: \"eve\", field 2: this is no hash"), "{said}");

    fs::write(accounts(&home), "# nobody yet\n").unwrap();
    let (code, said) = check();
    assert_eq!(code, Some(0));
    assert!(said.contains("so nobody can use [listen.out]; run `mailwren passwd NAME`"), "{said}");

    fs::set_permissions(accounts(&home), Permissions::from_mode(0o644)).unwrap();
    let (code, said) = check();
    assert_eq!(code, Some(78));
    assert!(said.contains("accounts: everybody can read it; run: chmod"), "{said}");

    fs::remove_file(accounts(&home)).unwrap();
    let (code, said) = check();
    assert_eq!(code, Some(0));
    assert!(said.contains("warning: there is no such file, so nobody can use"), "{said}");
}

/// RFC 4422 appendix A: the system knows who is at the other end of a Unix socket.
#[test]
fn an_account_of_the_system_is_itself_over_a_unix_socket() {
    let home = home(&[
        ("listen.local.address", "unix:HOME/local.sock"),
        ("listen.local.auth", "required"),
    ]);
    let server = TestServer::start(&home);
    let connect = || {
        let stream = UnixStream::connect(home.path().join("local.sock")).unwrap();
        Client::over(stream.try_clone().unwrap(), stream)
    };
    let mut client = connect();
    assert!(client.offer.contains("AUTH EXTERNAL SCRAM-SHA-256 "), "{}", client.offer);
    assert!(client.say("MAIL FROM:<ann@mx.test>").starts_with("530 5.7.0"));
    let other = STANDARD.encode("no-such-account");
    assert!(client.say(&format!("AUTH EXTERNAL {other}")).starts_with("535 5.7.8"));
    assert_eq!(client.say("AUTH EXTERNAL"), "334");
    assert!(client.say("").starts_with("235 2.7.0"));
    assert!(client.say("MAIL FROM:<ann@mx.test>").starts_with("250"));
    assert!(connect().say("AUTH EXTERNAL =").starts_with("235 2.7.0"));
    assert!(connect().plain("bob", "pass word").starts_with("235 2.7.0"));
    assert!(!Client::new(&server).offer.contains("EXTERNAL"));
    server.stop();
}

/// A Dovecot that knows Ann, takes `secret` for a password, and goes away.
#[test]
fn with_dovecot_it_knows_the_accounts_and_the_file_does_not() {
    let home = home(&[("auth.dovecot", "HOME/dovecot")]);
    let dovecot = UnixListener::bind(home.path().join("dovecot")).unwrap();
    let server = TestServer::start(&home);
    let secret = STANDARD.encode("\0ann\0secret");
    let dovecot = thread::spawn(move || {
        // One that asks for the mechanisms, and two who log in.
        for _ in 0..3 {
            let (stream, _) = dovecot.accept().unwrap();
            let greeting = "VERSION\t1\t2\nMECH\tPLAIN\nMECH\tCRAM-MD5\nDONE\n";
            (&stream).write_all(greeting.as_bytes()).unwrap();
            for line in BufReader::new(&stream).lines() {
                let line = line.unwrap();
                if line.starts_with("AUTH\t") {
                    assert!(line.contains("\tlip=127.0.0.1\trip=127.0.0.1\t"), "{line}");
                    let answer = match line.ends_with(&format!("\tresp={secret}")) {
                        true => "OK\t1\tuser=ann@mx.test\n",
                        false => "FAIL\t1\tuser=ann\n",
                    };
                    (&stream).write_all(answer.as_bytes()).unwrap();
                }
            }
        }
    });
    let mut client = Client::new(&server);
    assert!(client.offer.contains("250-AUTH PLAIN\r\n"), "{}", client.offer);
    assert!(client.plain("ann", "pass word").starts_with("535 5.7.8"));
    assert!(client.plain("ann", "secret").starts_with("235 2.7.0"));
    dovecot.join().unwrap();
    assert!(Client::new(&server).plain("ann", "secret").starts_with("454 4.7.0"));
    let log = server.stop();
    assert!(log.contains("mechanism=PLAIN reason=dovecot user=\"ann\""), "{log}");
    assert!(log.contains("mechanism=PLAIN user=\"ann@mx.test\""), "{log}");
    assert!(log.contains("/dovecot cannot be used, logins are answered with 454"), "{log}");
    assert!(!log.contains("secret"), "{log}");
}
