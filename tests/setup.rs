//! `mailwren setup` as a person and as Ansible meet it: what it says of a server that refuses
//! something, that nothing is written then, and that what it writes is all that was asked for.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

#[path = "support/home.rs"]
mod home;
#[path = "support/peer.rs"]
#[expect(dead_code, reason = "peers misbehave in more ways than these tests need")]
mod peer;
#[path = "support/sessions.rs"]
mod sessions;

use home::Home;
use peer::{Answer, Peer, say};

const ROOT: &str = "zoe@far.test";
const SENDER: &str = "me@home.test";

/// Files of this host, and a way to set them up.
struct House {
    home: Home,
}

/// The code that setup ended with, and all that it said.
type Said = (i32, String);

impl House {
    fn new() -> Self {
        Self::with(&[])
    }

    fn with(changes: &[(&str, &str)]) -> Self {
        let usual = [("dns.servers", "127.0.0.1:9")];
        let changes = usual.iter().chain(changes);
        let changes: Vec<_> =
            changes.map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Self { home: Home::new(&changes) }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mailwren"));
        command.arg("--config").arg(self.home.config()).arg("setup").args(arguments);
        command.env_remove("MAILWREN_CONFIG").stdin(Stdio::piped());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run(&self, arguments: &[&str], input: &str) -> Said {
        let mut child = self.command(arguments).spawn().unwrap();
        // Who needs no answer may have left.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        let output = child.wait_with_output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap(), String::from_utf8(said).unwrap())
    }

    /// Sets it up for a peer that wants no login.
    fn relay_to(&self, peer: &Peer, more: &[&str]) -> Said {
        let address = peer.address().to_string();
        let usual =
            ["--yes", "--smarthost", &address, "--user", "", "--root", ROOT, "--sender", SENDER];
        self.run(&[&usual, more].concat(), "")
    }

    /// The octets of all files that setup may write.
    fn state(&self) -> Vec<Option<Vec<u8>>> {
        let names = ["mailwren.ini", "aliases", "password"];
        names.map(|name| fs::read(self.home.path().join(name)).ok()).into()
    }

    /// Fails unless setup for such a peer ends so, with these words, and writes nothing.
    fn refuses(
        &self,
        answer: impl Fn(&str) -> Option<Answer> + Send + Sync + 'static,
        code: i32,
        words: &[&str],
    ) {
        let peer = Peer::new(move |_, line| answer(line));
        let before = self.state();
        let (found, said) = self.relay_to(&peer, &["--tls", "none"]);
        assert_eq!(found, code, "{said}");
        for word in words.iter().chain(&["What to do: ", "Nothing was written."]) {
            assert!(said.contains(word), "{word:?} is not in\n{said}");
        }
        assert_eq!(self.state(), before);
    }
}

#[test]
fn what_is_refused_is_told_with_what_to_do() {
    let house = House::new();
    let at = |verb: &'static str, reply: &'static str| {
        move |line: &str| if line.starts_with(verb) { say(reply) } else { None }
    };
    for (verb, reply, code, words) in [
        (
            "MAIL",
            "553 5.7.1 not yours\r\n",
            69,
            ["refused the sender me@home.test: 553", "--sender"],
        ),
        ("MAIL", "530 5.7.0 log in\r\n", 69, ["refused to take mail without more", "give --user"]),
        (
            "RCPT",
            "553 5.7.1 Sender address rejected\r\n",
            69,
            ["the sender me@home.test", "--sender"],
        ),
        ("RCPT", "550 5.1.1 who\r\n", 69, ["refused the recipient zoe@far.test: 550", "--root"]),
        (
            "RCPT",
            "450 4.2.0 greylisted\r\n",
            75,
            ["the recipient zoe@far.test", "try it again in ten minutes; else see that --root"],
        ),
        ("MAIL", "450 4.7.1 greylisted\r\n", 75, ["450", "What to do: this may pass"]),
        ("RCPT", "554 5.7.1 Relay access denied\r\n", 69, ["554", "want a login: give --user"]),
        (".", "554 5.2.252 SendAsDenied\r\n", 69, ["refused the message: 554", "--sender"]),
        (".", "554 5.7.1 spam\r\n", 69, ["refused the message: 554", "ask who runs it"]),
        (".", "550 5.7.1 From is not yours\r\n", 69, ["refused the message: 550", "--sender"]),
        (
            "connect",
            "554 5.7.1 blocked\r\n",
            69,
            ["will not talk to us: 554", "this host's address"],
        ),
        ("connect", "421 4.3.2 busy\r\n", 75, ["will not talk to us: 421", "try it again later"]),
        (
            "connect",
            "* OK [CAPABILITY IMAP4rev1]\r\n",
            69,
            ["does not speak SMTP", "is for something else, such as reading mail"],
        ),
    ] {
        house.refuses(at(verb, reply), code, &words);
    }
}

#[test]
fn what_another_setup_wrote_meanwhile_is_not_ours() {
    let house = House::new();
    let aliases = house.home.path().join("aliases");
    let mine = aliases.clone();
    // Somebody writes the alias file while the host is tried.
    let peer = Peer::new(move |_, line| {
        if line.starts_with("MAIL") {
            fs::write(&mine, "root: other@far.test\n").unwrap();
        }
        None
    });
    let (code, said) = house.relay_to(&peer, &["--tls", "none"]);
    assert_eq!(code, 71, "{said}");
    let expected = format!("Not written: {}, ", aliases.display());
    assert!(said.contains("somebody has changed it meanwhile"), "{said}");
    assert!(said.contains(&expected) && !said.contains("All of it"), "{said}");
    assert_eq!(fs::read_to_string(&aliases).unwrap(), "root: other@far.test\n");
}

#[test]
fn a_port_that_nobody_listens_on() {
    let house = House::new();
    let before = house.state();
    let closed = Peer::polite().address().to_string();
    let port = closed.rsplit_once(':').unwrap().1.to_owned();
    let base = ["--yes", "--user", "", "--root", ROOT, "--sender", SENDER, "--smarthost"];
    let (code, said) = house.run(&[&base[..], &[&closed]].concat(), "");
    assert_eq!(code, 69, "{said}");
    assert!(said.contains(&format!("nothing listens on port {port} there")), "{said}");
    assert!(said.contains("try --smarthost 127.0.0.1:587"), "{said}");
    assert_eq!(house.state(), before);
}

#[test]
fn a_login_is_needed_and_not_offered() {
    let house = House::new();
    let peer = Peer::polite();
    let address = peer.address().to_string();
    let text = fs::read_to_string(house.home.config()).unwrap();
    let text = text.replace("[smarthost]\n", "[smarthost]\nauth_without_tls = yes\n");
    fs::write(house.home.config(), text).unwrap();
    let arguments = [
        "--yes",
        "--smarthost",
        &address,
        "--user",
        "me@home.test",
        "--password-stdin",
        "--tls",
        "none",
        "--root",
        ROOT,
    ];
    let (code, said) = house.run(&arguments, "sesame\n");
    assert_eq!(code, 69, "{said}");
    assert!(said.contains("give --user ''") && !said.contains("sesame"), "{said}");
    // In the clear by mistake is not by wish.
    let house = House::new();
    let (code, said) = house.run(&arguments, "sesame\n");
    assert_eq!(code, 64, "{said}");
    assert!(said.contains("the password would go in the clear"), "{said}");
    assert!(peer.sessions().iter().all(|session| !format!("{session:?}").contains("AUTH")));
}

#[test]
fn what_is_written_is_what_was_asked_for_and_once() {
    let house = House::new();
    let peer = Peer::polite();
    let before = fs::read_to_string(house.home.config()).unwrap();
    let windows = before.replace('\n', "\r\n") + "# mine";
    fs::write(house.home.config(), &windows).unwrap();
    fs::set_permissions(house.home.config(), Permissions::from_mode(0o664)).unwrap();
    let (code, said) = house.relay_to(&peer, &["--tls", "none"]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("a test message from me@home.test to zoe@far.test was taken: 250"));
    let sessions = peer.sessions();
    assert!(sessions[0].commands.iter().any(|line| line.starts_with("MAIL FROM:<me@home.test>")));
    let content = String::from_utf8(sessions[0].contents[0].clone()).unwrap();
    for field in [
        "From: <me@home.test>",
        "To: <zoe@far.test>",
        "Subject: mx.test can send mail",
        "Date: ",
        "Message-ID: <",
        "Auto-Submitted: auto-generated",
    ] {
        assert!(content.contains(field), "{field} is not in {content}");
    }
    let text = fs::read_to_string(house.home.config()).unwrap();
    let expected = windows
        .replace("host = 127.0.0.1:1\r\n", &format!("host = {}\r\n", peer.address()))
        + "\r\n\r\n[rewrite]\r\nsender = me@home.test\r\n";
    assert_eq!(text, expected);
    assert_eq!(mode(&house.home.config()), 0o664);
    let aliases = fs::read_to_string(house.home.path().join("aliases")).unwrap();
    assert!(aliases.starts_with("root: zoe@far.test\nstaff: ann, bob\n"), "{aliases}");
    let state = house.state();
    let (code, said) = house.relay_to(&peer, &["--tls", "none"]);
    assert!(code == 0 && said.contains("nothing to change"), "{said}");
    assert_eq!((house.state(), peer.sessions().len()), (state, 1));
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn a_secret_is_for_the_server_alone_and_nowhere_else() {
    let house = House::new();
    let arguments = [&UNTRIED[..], &[ROOT]].concat();
    let dry = [&arguments[..], &["--dry-run"]].concat();
    let before = house.state();
    let (code, said) = house.run(&dry, "sesame\n");
    assert!(code == 0 && said.contains("this would be written:"), "{said}");
    assert_eq!(house.state(), before);
    let (code, said) = house.run(&arguments, "sesame\n");
    assert!(code == 0 && !said.contains("sesame"), "{said}");
    let password = house.home.path().join("password");
    assert_eq!((fs::read(&password).unwrap(), mode(&password)), (b"sesame\n".into(), 0o600));
    let text = fs::read_to_string(house.home.config()).unwrap();
    assert!(!text.contains("sesame") && text.contains("host = mx.far.test:587\n"), "{text}");
    // Rights that are too wide are mended, though the password is the same.
    fs::set_permissions(&password, Permissions::from_mode(0o644)).unwrap();
    let (code, said) = house.run(&arguments, "sesame\n");
    assert!(code == 0 && said.contains("password: the password"), "{said}");
    assert_eq!(mode(&password), 0o600);
    let (code, said) = house.run(&arguments, "sesame\n");
    assert!(code == 0 && said.contains("nothing to change"), "{said}");
}

#[test]
fn nothing_is_asked_where_nothing_could_be_written() {
    let house = House::new();
    fs::set_permissions(house.home.path(), Permissions::from_mode(0o755)).unwrap();
    let output = house.command(&[]).uid(65534).gid(65534).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(77), "{said}");
    assert!(said.contains("run it as root: sudo mailwren setup") && !said.contains('?'), "{said}");
    // One's own file, whose group one could not keep.
    for path in [house.home.path().to_owned(), house.home.config()] {
        std::os::unix::fs::chown(path, Some(65534), Some(0)).unwrap();
    }
    let output = house.command(&[]).uid(65534).gid(65534).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(77) && said.contains("mailwren.ini: "), "{said}");
    let aliases = house.home.path().join("aliases");
    fs::rename(&aliases, house.home.path().join("elsewhere")).unwrap();
    std::os::unix::fs::symlink("elsewhere", &aliases).unwrap();
    let (code, said) = house.run(&[], "");
    assert!(
        code == 71 && said.contains("aliases: it is a symbolic link; name its target"),
        "{said}"
    );
}

#[test]
fn mistakes_in_the_files_come_first() {
    let house = House::new();
    let config = house.home.config();
    let good = fs::read_to_string(&config).unwrap();
    fs::write(&config, format!("{good}[serverr]\n")).unwrap();
    let (code, said) = house.run(&[], "");
    assert!(code == 78 && said.contains("serverr") && !said.contains("Provider"), "{said}");
    fs::write(&config, good).unwrap();
    fs::write(house.home.path().join("aliases"), "a: b\nroot\n").unwrap();
    let (code, said) = house.run(&[], "");
    assert!(code == 78 && said.contains("aliases: line 2: there is no colon"), "{said}");
}

#[test]
fn no_smarthost_is_a_wish_too() {
    let house = House::new();
    let to = |root| house.run(&["--yes", "--smarthost", "none", "--root", root], "");
    let (code, said) = to("daemon");
    assert!(code == 64 && said.contains("no user of this host"), "{said}");
    let (code, said) = to("bob");
    assert!(code == 0 && said.contains("no [smarthost] any more"), "{said}");
    let text = fs::read_to_string(house.home.config()).unwrap();
    assert!(!text.contains("smarthost"), "{text}");
}

/// What needs no peer: an account, a password as a line of standard input, and nothing tried.
const UNTRIED: [&str; 10] = [
    "--yes",
    "--no-test",
    "--smarthost",
    "mx.far.test",
    "--tls",
    "starttls",
    "--user",
    SENDER,
    "--password-stdin",
    "--root",
];

#[test]
fn what_the_server_could_not_read_is_told_before() {
    let house = House::with(&[("server.user", "daemon")]);
    let before = house.state();
    let all = [&UNTRIED[..], &[ROOT]].concat();
    let open = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    open(house.home.path(), 0o700);
    let (code, said) = house.run(&all, "sesame\n");
    assert!(code == 78 && said.contains("which may not enter /"), "{said}");
    assert!(said.contains("Nothing was written.") && house.state() == before, "{said}");
    open(house.home.path(), 0o755);
    let folder = house.home.path().join("closed");
    fs::create_dir(&folder).unwrap();
    let ca = folder.join("ca.pem");
    fs::write(&ca, "").unwrap();
    open(&folder, 0o700);
    let with_ca = [&all[..], &["--ca", ca.to_str().unwrap()]].concat();
    let (code, said) = house.run(&with_ca, "sesame\n");
    assert!(code == 78 && said.contains("chmod o+x") && said.contains("closed"), "{said}");
    open(&folder, 0o711);
    open(&ca, 0o640);
    let (code, said) = house.run(&with_ca, "sesame\n");
    assert!(code == 78 && said.contains("may not read it; run: chmod o+r"), "{said}");
    assert_eq!(house.state(), before);
    // The configuration was there before, and is its owner's to open.
    open(&house.home.config(), 0o600);
    let (code, said) = house.run(&all, "sesame\n");
    assert!(code == 0 && said.contains("mailwren.ini: the server runs as \"daemon\""), "{said}");
    assert_eq!(mode(&house.home.path().join("password")), 0o640);
}

#[test]
fn who_listens_already_and_who_is_not_there_are_told() {
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = other.local_addr().unwrap().to_string();
    let house = House::with(&[("listen.smtp.address", &address)]);
    fs::remove_file(house.home.path().join("aliases")).unwrap();
    let (code, said) = house.run(&[&UNTRIED[..], &["zoe@far"]].concat(), " sesame\r\n");
    assert_eq!(code, 0, "{said}");
    for words in [
        "the server does not run",
        "something else listens on port",
        "mailwren check says what",
        "zoe@far has no dot behind the @",
        "begins or ends with a blank",
    ] {
        assert!(said.contains(words), "{words} is not in {said}");
    }
    let read = |name| fs::read_to_string(house.home.path().join(name)).unwrap();
    assert_eq!((read("aliases"), read("password")), ("root: zoe@far\n".into(), " sesame\n".into()));
}

#[test]
fn a_pipe_that_says_nonsense_is_not_asked_without_end() {
    let house = House::new();
    let before = house.state();
    let (code, said) = house.run(&[], &"a b\n".repeat(9));
    assert!(code == 64 && said.matches("is no host").count() == 6, "{said}");
    let (code, said) = house.run(&["--smarthost", "none"], &"\n \n".repeat(9));
    assert!(code == 0 && said.contains("Where root's mail goes [ann]"), "{said}");
    assert_ne!(house.state(), before);
}
