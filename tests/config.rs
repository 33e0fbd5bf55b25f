//! What a configuration file may say, and what a person is told who wrote something else.
//! The mistakes and their messages stand in `config/mistakes.txt`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use log::LevelFilter;
use mailwren::config::keys::{Kind, REFERENCE, Section, Standing};
use mailwren::config::settings::{
    AuthRule, BareNewline, ClientTls, ListenAddress, ListenerTls, LogReceiver, MailboxFormat,
    SecretSource, Settings, TlsVersion, Users, Vrfy,
};
use mailwren::config::{ConfigError, HostNames, load, parse, sample};
use mailwren::mail::address::Domain;
use mailwren::smtp::sasl::Mechanism;
use proptest::prelude::*;

const HOST: &str = "pi.home.example";
const SHIPPED: &str = include_str!("../etc/mailwren.ini");
const MISTAKES: &str = include_str!("config/mistakes.txt");

fn read(text: impl AsRef<[u8]>) -> Result<Settings, ConfigError> {
    parse("m.ini", text.as_ref(), HOST)
}

fn settings(text: &str) -> Settings {
    read(text).unwrap_or_else(|error| panic!("{text}\n{error}"))
}

fn mistakes(text: impl AsRef<[u8]>) -> String {
    read(text).expect_err("this has mistakes").to_string()
}

#[test]
fn each_mistake_has_its_line_and_a_remedy() {
    let mut rows = 0;
    for block in MISTAKES.split("\n\n") {
        let lines = || block.lines().filter(|line| !line.starts_with("## "));
        let text: Vec<_> = lines().filter(|line| !line.starts_with("=> ")).collect();
        let expected: Vec<_> = lines().filter_map(|line| line.strip_prefix("=> ")).collect();
        if text.is_empty() {
            continue;
        }
        let found = mistakes(text.join("\n")).replace("m.ini:", "");
        assert_eq!(found.lines().collect::<Vec<_>>(), expected, "{block}");
        assert!(!found.contains("hunter2"), "a secret is shown: {found}");
        rows += 1;
    }
    assert!(rows > 110, "only {rows} blocks were found");
}

#[test]
fn octets_that_no_text_has_are_mistakes() {
    let control = "m.ini:2: the line has a control character; write it again";
    let long_line = format!("[server]\n# {}", "x".repeat(8 << 10));
    let long_socket = format!("[server]\nsocket = /{}", "x".repeat(107));
    let long_path = format!("[server]\nspool = /{}", "x".repeat(4095));
    let long_list = format!("[relay]\nnetworks = {}", "::1 ".repeat(65));
    let rows: &[(&[u8], &str)] = &[
        (b"[server]\nspool = /x\x01y", control),
        (b"[server]\nspool = /x\ry", control),
        (b"[server]\nspool = /x\0y", control),
        ("[server]\nspool = /x\u{85}y".as_bytes(), control),
        (b"[server]\n# \x1b[2J", control),
        (
            b"[server]\nspool = /caf\xe9",
            "m.ini:2: the line is not UTF-8; write it again in a UTF-8 editor",
        ),
        (
            b"[server]\nspool = /x\n\nspool = /y",
            "m.ini:4: [server] spool stands in line 2 already; remove one",
        ),
        (long_line.as_bytes(), "m.ini:2: the line is longer than 8 KiB; shorten it"),
        (
            long_path.as_bytes(),
            "m.ini:2: [server] spool: the path is too long; give at most 4095 octets",
        ),
        (
            long_list.as_bytes(),
            "m.ini:2: [relay] networks: the list is too long; give at most 64 entries",
        ),
    ];
    for (text, expected) in rows {
        assert_eq!(&mistakes(text), expected, "{:?}", String::from_utf8_lossy(text));
    }
    assert!(mistakes(long_socket).ends_with("is too long for a socket; give at most 107 octets"));
    let large = "#\n".repeat((1 << 19) + 1);
    let expected = "m.ini:1: the file is larger than 1 MiB; is it a configuration?";
    assert_eq!(mistakes(large), expected);
    assert_eq!(read("#\n".repeat(1 << 19)), read(""));
}

#[test]
fn the_number_of_mistakes_and_listeners_is_bounded() {
    let error = read("x\n".repeat(1 << 19)).expect_err("nothing of it is a line");
    assert_eq!(error.mistakes.len(), 101);
    // A look-up for each of very many names stays quick, or this would take minutes.
    let keys: String = (0..130_000).map(|number| format!("k{number}=\n")).collect();
    let sections: String = (0..100_000).map(|number| format!("[s{number}]\n")).collect();
    let listeners: String = (0..60_000).map(|number| format!("[listen.{number}]\n")).collect();
    for text in [format!("[server]\n{keys}"), sections, listeners] {
        assert!(mistakes(&text).lines().count() <= 101);
    }
    let mut text = String::new();
    for number in 0..65 {
        text.push_str(&format!("[listen.a{number}]\naddress = 127.0.0.1:{}\n", 2000 + number));
    }
    let expected = "m.ini:129: [listen.a64] is one too many; keep at most 64 listeners";
    assert_eq!(mistakes(text), expected);
}

#[test]
fn an_empty_file_is_a_safe_server() {
    let default = settings("");
    assert_eq!(Settings::default_with(HOST), Ok(default.clone()));

    let server = &default.server;
    assert_eq!(server.hostname.as_str(), HOST);
    assert_eq!(names(&default), [HOST, "localhost"]);
    assert!(!server.domains.all);
    assert_eq!(server.user, "mailwren");
    assert_eq!(server.spool, Path::new("/var/spool/mailwren"));
    assert_eq!(server.state, Path::new("/var/lib/mailwren"));
    assert_eq!(server.socket, Some(PathBuf::from("/run/mailwren/submit.sock")));
    assert_eq!(server.max_message_size, 35 << 20);
    assert_eq!((server.max_recipients, server.max_sessions), (1000, 200));
    assert_eq!(server.max_sessions_per_client, 50);
    assert_eq!(server.session_timeout, Duration::from_secs(300));
    assert_eq!((server.min_free_space, server.vrfy), (64 << 20, Vrfy::No));

    let [listener] = &default.listeners[..] else { panic!("{:?}", default.listeners) };
    assert_eq!((listener.name.as_str(), listener.networks.len()), ("smtp", 0));
    assert_eq!(listener.address, ListenAddress::Tcp("127.0.0.1:25".parse().unwrap()));
    assert_eq!(listener.bare_newline, BareNewline::Reject);

    assert_eq!(default.relay_networks, ["127.0.0.0/8", "::1/128"].map(|n| n.parse().unwrap()));
    let local = &default.local;
    assert_eq!((local.format, &local.users), (MailboxFormat::Mbox, &Users::System));
    assert_eq!(local.path, "/var/mail/{user}");
    assert_eq!(local.aliases, Some(PathBuf::from("/etc/aliases")));
    assert_eq!((local.subaddress, &local.catch_all), (Some('+'), &None));
    assert_eq!((default.smarthost, default.dns_servers), (None, vec![]));
    assert_eq!((default.log_level, default.log_to), (LevelFilter::Info, LogReceiver::Auto));
    assert_eq!(default.log_level, LevelFilter::Info);
    assert_eq!(default.events_size, 1 << 20);

    let minutes = [1, 5, 15, 30, 60, 120, 240].map(|minutes| Duration::from_secs(60 * minutes));
    assert_eq!(default.queue.retry, minutes);
    assert_eq!(default.queue.expire, Duration::from_secs(5 * 86_400));
    assert_eq!((default.queue.local_workers, default.queue.relay_workers), (2, 4));
    assert_eq!(default.queue.delay_warning, Some(Duration::from_secs(4 * 3600)));
    assert_eq!(default.queue.bounce_size, 50 << 10);
}

fn names(settings: &Settings) -> Vec<&str> {
    settings.server.domains.names.iter().map(|name| name.as_str()).collect()
}

#[test]
fn a_whole_file_is_read() {
    let text = "\u{feff}# A Pi\r\n[server]\r\nhostname = mail.home.example\r\n\
        domains = home.example  localhost,Home.Example\r\nuser = root\r\nspool = /s\r\n\
        state = /caf\u{e9};x#y\r\nsocket =\r\nmax_message_size = 1024G\r\nmax_recipients = 100\r\n\
        max_sessions = 65536\r\nmax_sessions_per_client = 1\r\nsession_timeout = 1h\r\n\
        min_free_space = 0\r\nvrfy = local\r\n\
        [listen.lan]\r\naddress = [::]:25\r\nnetworks = 192.168.1.0/24, fd00::1\r\n\
        protocol = smtp\r\ntls = none\r\nauth = none\r\nauth_without_tls = no\r\nproxy =\r\n\
        xclient =\r\n[listen.old-printer]\r\naddress = unix:/run/x\r\nbare_newline = accept\r\n\
        [relay]\r\nnetworks =\r\n\
        [local]\r\nformat = maildir\r\nusers = /etc/names\r\npath = /m/{domain}/{user}/\r\n\
        aliases =\r\nsubaddress = -\r\ncatch_all = ann\r\nforward =\r\nlmtp =\r\n\
        unknown = reject\r\nquota = no\r\nvacation = no\r\n\
        [smarthost]\r\nhost = a.test:587, [::1]:26 192.0.2.1\r\ntls = none\r\nuser =\r\n\
        auth_without_tls = no\r\n\
        [queue]\r\nretry = 1s 2m\r\nexpire = 1m\r\nlocal_workers = 64\r\nrelay_workers = 1\r\n\
        delay_warning =\r\ndirect = 0\r\n[dns]\r\nservers = ::1, 192.0.2.1:5353\r\n\
        [log]\r\nlevel = off\r\nto = syslog";
    let read = settings(text);
    assert_eq!(names(&read), ["home.example", "localhost"]);
    assert_eq!(read.server.hostname.as_str(), "mail.home.example");
    assert_eq!((read.server.user.as_str(), read.server.vrfy), ("root", Vrfy::Local));
    assert_eq!((read.server.socket, read.server.min_free_space), (None, 0));
    assert_eq!(read.server.state, Path::new("/caf\u{e9};x#y"));
    assert_eq!(read.server.max_message_size, 1 << 40);
    let names: Vec<_> = read.listeners.iter().map(|listener| listener.name.as_str()).collect();
    assert_eq!(names, ["lan", "old-printer"]);
    assert_eq!(read.listeners[0].address, ListenAddress::Tcp("[::]:25".parse().unwrap()));
    assert_eq!(read.listeners[0].networks[1], "fd00::1/128".parse().unwrap());
    assert_eq!(read.listeners[1].address, ListenAddress::Unix(PathBuf::from("/run/x")));
    assert_eq!(read.listeners[1].bare_newline, BareNewline::Accept);
    assert_eq!(read.relay_networks, []);
    assert_eq!(read.local.path, "/m/{domain}/{user}");
    assert_eq!(read.local.users, Users::File(PathBuf::from("/etc/names")));
    assert_eq!((read.local.aliases, read.local.subaddress), (None, Some('-')));
    assert_eq!(read.local.catch_all.unwrap().to_string(), "ann@home.example");
    let smarthost = read.smarthost.unwrap();
    assert_eq!((smarthost.tls, smarthost.ca), (ClientTls::None, None));
    let hosts: Vec<_> = smarthost.hosts.iter().map(|h| h.to_string()).collect();
    assert_eq!(hosts, ["a.test:587", "[IPv6:::1]:26", "[192.0.2.1]:25"]);
    assert_eq!(read.queue.retry, [1, 120].map(Duration::from_secs));
    assert_eq!(read.queue.delay_warning, None);
    assert_eq!(read.dns_servers, ["[::1]:53", "192.0.2.1:5353"].map(|s| s.parse().unwrap()));
    assert_eq!((read.log_level, read.log_to), (LevelFilter::Off, LogReceiver::Syslog));
}

#[test]
fn small_choices_have_their_meaning() {
    let all = settings("[server]\ndomains = *");
    assert_eq!((names(&all), all.server.domains.all), (vec![HOST], true));
    let all = settings("[server]\ndomains = *, a.test");
    assert_eq!((names(&all), all.server.domains.all), (vec!["a.test"], true));
    assert_eq!(names(&settings("[server]\nhostname = localhost")), ["localhost"]);
    assert_eq!(settings("[local]\nformat = maildir").local.path, "{home}/Maildir");
    assert_eq!(settings("[local]\nusers = any").local.path, "/var/mail/{user}");
    assert_eq!(settings("[local]\nsubaddress =").local.subaddress, None);
    let catch_all = settings("[local]\ncatch_all = \"a b\"@c.test").local.catch_all;
    assert_eq!(catch_all.unwrap().to_string(), "\"a b\"@c.test");
    for (value, mailbox) in [
        ("keep", None),
        ("postmaster", Some("postmaster@mx.home.test")),
        ("ann@c.test", Some("ann@c.test")),
    ] {
        let text = format!("[server]\ndomains = mx.home.test\n[queue]\ndouble_bounce = {value}");
        let queue = settings(&text).queue;
        assert_eq!(queue.double_bounce.map(|it| it.to_string()).as_deref(), mailbox);
    }
    assert_eq!(settings("[queue]\ndelay_warning = 0").queue.delay_warning, None);
    // Port 0 is a free port, another one for each.
    let free = "address = 127.0.0.1:0\n";
    assert_eq!(settings(&format!("[listen.a]\n{free}[listen.b]\n{free}")).listeners.len(), 2);
    // Blank values of what is worked out are as good as none.
    assert_eq!(read("[server]\nhostname =\ndomains =\n[local]\npath ="), read(""));
}

#[test]
fn mail_to_a_smarthost_is_encrypted_unless_a_person_said_otherwise() {
    let smarthost = |lines: &str| {
        let read = settings(&format!("[smarthost]\nhost = a.test\n{lines}")).smarthost.unwrap();
        (read.tls, read.ca)
    };
    assert_eq!(smarthost(""), (ClientTls::StartTls, None));
    assert_eq!(smarthost("ca ="), (ClientTls::StartTls, None));
    assert_eq!(smarthost("tls = starttls"), (ClientTls::StartTls, None));
    let ca = Some(PathBuf::from("/etc/ca.pem"));
    assert_eq!(smarthost("tls = implicit\nca = /etc/ca.pem"), (ClientTls::Implicit, ca));
    assert_eq!(smarthost("tls = none\nca ="), (ClientTls::None, None));
    let hosts = |hosts: &str| {
        settings(&format!("[smarthost]\nhost = {hosts}\ntls =")).smarthost.unwrap().tls
    };
    assert_eq!(hosts("a.test:465"), ClientTls::Implicit);
    assert_eq!(hosts("a.test:465, b.test:465"), ClientTls::Implicit);
    assert_eq!(hosts("a.test:465, b.test:587"), ClientTls::StartTls);
}

#[test]
fn an_account_at_a_smarthost_has_one_secret_which_debug_does_not_tell() {
    let login = |lines: &str| {
        let text = format!("[smarthost]\nhost = a.test\nuser = me\n{lines}");
        settings(&text).smarthost.unwrap().login.unwrap()
    };
    let inline = login("password = pass;word #2");
    assert_eq!(inline.secret, SecretSource::Inline("pass;word #2".into()));
    assert!(!format!("{inline:?}").contains("pass;word"));
    assert!(!inline.without_tls);
    assert_eq!(inline.mechanisms.len(), 5);
    let file = login("password_file = /etc/secret\nmechanisms = plain login PLAIN");
    assert_eq!(file.secret, SecretSource::File("/etc/secret".into()));
    assert_eq!(file.mechanisms, [Mechanism::Plain, Mechanism::Login]);
    let command = login("password_command = pass show me\ntls = none\nauth_without_tls = yes");
    assert_eq!(command.secret, SecretSource::Command("pass show me".into()));
    assert!(command.without_tls);
}

#[test]
fn a_fingerprint_may_have_colons() {
    let octets: Vec<_> = (0..32).map(|octet| format!("{octet:02X}")).collect();
    for separator in ["", ":"] {
        let hex = octets.join(separator);
        let text = format!("[smarthost]\nhost = a.test\nfingerprint = sha256:{hex}");
        let fingerprint = settings(&text).smarthost.unwrap().fingerprint;
        assert_eq!(fingerprint, Some(std::array::from_fn(|at| at as u8)));
    }
}

#[test]
fn a_listener_has_the_tls_and_the_logins_that_its_port_and_protocol_want() {
    let listener = |lines: &str| {
        let read = settings(&format!("[tls]\nminimum = 1.3\n[listen.a]\n{lines}"));
        let listener = &read.listeners[0];
        (listener.tls, listener.tls_minimum, listener.auth)
    };
    use AuthRule::{None as Nobody, Required};
    use ListenerTls::{Implicit, None as Plain, StartTls};
    use TlsVersion::{V1_0, V1_3};
    assert_eq!(listener(""), (StartTls, V1_3, Nobody));
    let submission = "protocol = submission\naddress = 127.0.0.1";
    assert_eq!(listener(&format!("{submission}:587")), (StartTls, V1_3, Required));
    assert_eq!(listener(&format!("{submission}:465")), (Implicit, V1_3, Required));
    assert_eq!(listener("address = unix:/run/a.sock"), (Plain, V1_3, Nobody));
    assert_eq!(listener("tls_minimum = 1.0"), (StartTls, V1_0, Nobody));
}

#[test]
fn the_name_of_the_host_has_to_be_one() {
    for (text, host, expected) in [
        (
            "",
            "my_pi",
            "f: [server] needs a line such as `hostname = mail.home.example`, since \
          the host's own name, `my_pi`, is no domain name",
        ),
        (
            "\n[server]",
            "a b\n",
            "f:2: [server] needs a line such as `hostname = \
          mail.home.example`, since the host's own name, `a b\\n`, is no domain name",
        ),
    ] {
        let error = parse("f", text.as_bytes(), host).expect_err("the name is bad");
        assert_eq!(error.to_string(), expected);
    }
    let named = parse("f", b"[server]\nhostname = pi", "my_pi").unwrap();
    assert_eq!(named.server.hostname.as_str(), "pi");
}

#[test]
fn where_no_domains_are_listed_all_names_of_the_host_are_local() {
    let all = ["localhost", "localhost.localdomain", "nas", "NAS.home.test"];
    let all: Vec<_> = all.iter().map(|name| name.parse().unwrap()).collect();
    let read = |text: &str| {
        let host = HostNames { own: "nas".to_owned(), all: all.clone() };
        parse("m.ini", text.as_bytes(), host).unwrap().server.domains
    };
    let is_local = |text: &str, name: &str| {
        let name = Domain::Name(name.parse().unwrap());
        let (domains, listed) = (read(text), settings(text).server.domains);
        assert!(!listed.contains(&name) || domains.contains(&name), "{text} {name}");
        (domains.contains(&name), domains.shares_users(&name))
    };
    let named = "[server]\nhostname = mail.example.org\n";
    for (text, origin) in [("", "nas"), (named, "mail.example.org")] {
        for name in ["nas", "nas.home.test", "localhost", "localhost.localdomain", origin] {
            assert_eq!(is_local(text, name), (true, true), "{text} {name}");
        }
        for name in ["pi", "home.test", "example.org", "b.nas.home.test"] {
            assert_eq!(is_local(text, name), (false, false), "{text} {name}");
        }
        let domains = read(text);
        assert_eq!(domains.origin().as_str(), origin);
        assert_eq!(
            domains.names.iter().map(|it| it.as_str()).collect::<Vec<_>>(),
            [origin, "localhost"]
        );
    }
    assert_eq!(is_local("[domain.nas.home.test]", "nas.home.test"), (true, false));
    for text in ["[server]\ndomains = a.test", "[server]\nhostname = mx.test\ndomains = a.test"] {
        assert_eq!(is_local(text, "a.test"), (true, true));
        for name in ["nas", "nas.home.test", "localhost", "localhost.localdomain", "mx.test"] {
            assert_eq!(is_local(text, name), (false, false), "{text} {name}");
        }
    }
    assert_eq!(read("[server]\ndomains = *").own, []);
}

#[test]
fn a_file_that_cannot_be_read_is_an_error_with_a_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("m.ini");
    let error = load(&file, HOST).expect_err("it is not there").to_string();
    let remedy = "mailwren setup makes one, or name yours with --config FILE";
    assert_eq!(error, format!("{}: there is no such file; {remedy}", file.display()));
    let error = load(folder.path(), HOST).expect_err("it is a folder").to_string();
    assert!(error.ends_with(": it is a folder; name a file with --config FILE"), "{error}");

    std::fs::write(&file, "\n[log]\nlevel = loud").unwrap();
    let error = load(&file, HOST).expect_err("the level is bad").to_string();
    assert!(error.starts_with(&format!("{}:3: [log] level: `loud`", file.display())), "{error}");
    std::fs::write(&file, "[log]\nlevel = debug").unwrap();
    assert_eq!(load(&file, HOST).unwrap().log_level, LevelFilter::Debug);
    std::fs::write(&file, vec![b'#'; 3 << 20]).unwrap();
    let error = load(&file, HOST).expect_err("it is too large").to_string();
    assert!(error.contains(":1: the file is larger than 1 MiB"), "{error}");
}

#[test]
fn the_shipped_file_is_the_reference() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("etc/mailwren.ini");
    // To write it anew after a change of the reference, run the tests with this variable set.
    if std::env::var_os("MAILWREN_WRITE_SAMPLE").is_some() {
        std::fs::write(&path, sample::render()).unwrap();
    }
    let hint = "MAILWREN_WRITE_SAMPLE=1 cargo test --test config writes etc/mailwren.ini anew";
    assert!(std::fs::read_to_string(path).unwrap() == sample::render(), "{hint}");
    assert_eq!(read(SHIPPED), read(""));
}

/// The lines of the shipped file from where `section` begins among what works, or else among
/// what is not there yet.
fn shipped_block(section: &Section, works: bool) -> impl Iterator<Item = &'static str> {
    let heading = section.heading();
    let beginnings = match works || section.later.is_some() {
        true => [heading.clone(), format!(";{heading}")],
        false => [format!("# In {heading}:"), String::from("-")],
    };
    let is_heading =
        |line: &&str| line.starts_with('[') || line.starts_with(";[") || line.starts_with("# In [");
    let block = SHIPPED.lines().skip_while(move |line| !beginnings.iter().any(|b| b == line));
    block.enumerate().take_while(move |(at, line)| *at == 0 || !is_heading(line)).map(|(_, l)| l)
}

#[test]
fn the_recipes_are_good_configurations() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("etc/recipes");
    let recipes: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(recipes.len() >= 6, "{recipes:?}");
    for recipe in recipes {
        if let Err(error) = load(&recipe, HOST) {
            panic!("{error}");
        }
        let text = std::fs::read_to_string(&recipe).unwrap();
        assert!(text.starts_with("# ") && text.contains("mailwren check"), "{recipe:?}");
        assert!(text.lines().all(|line| line.len() <= 100), "{recipe:?}");
    }
}

#[test]
fn the_shipped_file_explains_every_key_with_its_default() {
    for section in REFERENCE {
        for key in section.keys() {
            let works = section.later(key).is_none();
            let line = format!(";{} = {}", key.name, key.default);
            let lines: Vec<_> = shipped_block(section, works).collect();
            let at = lines.iter().position(|l| *l == line.trim_end());
            let at = at.unwrap_or_else(|| panic!("{} {line} is not there", section.heading()));
            assert!(lines[at - 1].starts_with("# "), "{line} is not explained");
        }
    }
}

#[test]
fn the_examples_at_the_top_are_good_configurations() {
    let head = SHIPPED.split("\n\n").next().unwrap();
    // Lines of an example are indented; an empty comment between two of them belongs to both.
    let lines = head.lines().map(|line| match line.strip_prefix("#     ") {
        Some(line) => line,
        None if line == "#" => "",
        None => "|",
    });
    let text: Vec<_> = lines.collect();
    let examples: Vec<_> =
        text.split(|line| *line == "|").map(|e| e.join("\n")).filter(|e| e.contains('[')).collect();
    assert_eq!(examples.len(), 5);
    for example in examples {
        settings(&example);
    }
}

#[test]
fn the_defaults_that_are_shown_are_the_defaults() {
    let mut text = String::new();
    let works = SHIPPED.split("Known, but not built yet").next().unwrap();
    for line in works.lines().filter(|line| !line.starts_with('#')) {
        text.push_str(line.trim_start_matches(';'));
        text.push('\n');
    }
    let text = text.replace("\nhost =", "\nhost = a.test");
    let mut expected = settings("[smarthost]\nhost = a.test\n[domain.example.org]");
    assert!(text.contains("\nmax_recipients = 1000\n"));
    assert!(expected.smarthost.is_some());
    // Files that are named must be there; the default ones need not.
    expected.tls.is_configured = true;
    assert_eq!(settings(&text), expected);
    (expected.smarthost, expected.tls.is_configured) = (None, false);
    (expected.domains, expected.server.domains.others) = (Vec::new(), Vec::new());
    assert_eq!(read(""), Ok(expected));
}

#[test]
fn what_the_reference_allows_is_taken_and_what_is_not_there_yet_is_not() {
    let mut choices = 0;
    for section in REFERENCE {
        for key in section.keys() {
            let text = |value: &str| match section.name {
                "smarthost" if key.name == "tls" => {
                    format!("[smarthost]\nhost = a.test\ntls = {value}")
                }
                "smarthost" if key.name == "fallback" => {
                    format!("[smarthost]\nhost = a.test\ntls = opportunistic\nfallback = {value}")
                }
                "listen" if key.name == "auth_without_tls" => {
                    format!("[listen.a]\nauth = optional\nauth_without_tls = {value}")
                }
                "smarthost" => format!(
                    "[smarthost]\n{}tls = none\n{} = {value}",
                    if key.name == "host" { "" } else { "host = a.test\n" },
                    key.name
                ),
                _ => format!("{}\n{} = {value}", section.heading(), key.name),
            };
            match (section.later(key), key.kind, key.standing) {
                (Some((why, accepted)), ..) => {
                    assert!(mistakes(text("hunter2")).contains("m.ini:"));
                    if !key.default.is_empty() && !accepted.contains(&key.default) {
                        assert!(mistakes(text(key.default)).contains(why), "{}", key.name);
                    }
                    for value in accepted.iter().filter(|_| section.later.is_none()) {
                        assert!(read(text(value)).is_ok(), "{} = {value}", key.name);
                    }
                }
                (None, Kind::Choice(words), Standing::Works) => {
                    choices += 1;
                    for word in words {
                        settings(&text(word));
                    }
                }
                (None, Kind::Choice(words), _) => {
                    let good: Vec<_> = words.iter().filter(|w| read(text(w)).is_ok()).collect();
                    assert_eq!(good, [&"smtp", &"submission"], "{}", key.name);
                }
                (None, ..) => {}
            }
        }
    }
    assert_eq!(choices, 16, "as many keys are a choice and work");
}

/// Reads and holds every mistake against the number of lines.
fn check_lines(text: &[u8]) -> Result<(), TestCaseError> {
    if let Err(error) = read(text) {
        let lines = text.split(|octet| *octet == b'\n').count();
        prop_assert!(!error.mistakes.is_empty());
        for mistake in &error.mistakes {
            prop_assert!((1..=lines).contains(&mistake.line), "{}", error);
            prop_assert!(!mistake.text.contains(char::is_control), "{}", error);
        }
        prop_assert_eq!(error.to_string().lines().count(), error.mistakes.len());
    }
    Ok(())
}

/// The shipped file with everything in it switched on.
fn switched_on() -> Vec<u8> {
    SHIPPED.replace("\n;", "\n").into_bytes()
}

proptest! {
    #[test]
    fn random_octets_never_panic(octets in prop::collection::vec(any::<u8>(), 0..400)) {
        check_lines(&octets)?;
    }

    #[test]
    fn random_lines_never_panic(
        lines in prop::collection::vec("(\\[|)[a-z._;#= \\\\{}/:0-9\u{e4}-]{0,12}(\\]|)(=|)[ -~]{0,6}", 0..20),
    ) {
        check_lines(lines.join("\n").as_bytes())?;
    }

    #[test]
    fn random_values_never_panic(
        values in prop::collection::vec("[0-9KMGsmhd,./:{}*\\[\\] a-z@-]{0,12}", 1..40),
    ) {
        let mut values = values.iter().cycle();
        let mut text = String::new();
        for section in REFERENCE {
            text.push_str(&format!("{}\n", section.heading()));
            for key in section.keys() {
                text.push_str(&format!("{} = {}\n", key.name, values.next().unwrap()));
            }
        }
        check_lines(text.as_bytes())?;
    }

    #[test]
    fn mutations_of_the_shipped_file_never_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3), 1..30),
        is_switched_on in any::<bool>(),
    ) {
        let mut text = if is_switched_on { switched_on() } else { SHIPPED.as_bytes().to_vec() };
        for (at, octet, change) in changes {
            let at = at.index(text.len());
            match change {
                0 => text[at] = octet,
                1 => text.insert(at, octet),
                _ => drop(text.remove(at)),
            }
        }
        check_lines(&text)?;
    }
}
