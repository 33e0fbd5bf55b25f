//! The table of every section and key that a configuration may have: what works, and what is
//! known and does nothing yet. A name is never taken out or given another meaning.
//!
//! Bounds have their reasons beside them where a standard gives one; the others keep a slip
//! of the finger from turning into a server that answers nobody.

use super::connections::{AUTH, LISTEN, NEXT_HOP, SERVER_TLS, SMARTHOST_OWN};
use super::keys::{Key, Kind, Section, key};
use super::mailboxes::{DIGEST, DOMAIN, LOCAL, REWRITE};
use super::reserved::ROUTE;

/// Yes or no.
pub(super) const YES_NO: Kind = Kind::Choice(&["no", "yes"]);
/// Any networks.
pub(super) const NETWORKS: Kind =
    Kind::Words("networks or addresses, such as 192.168.1.0/24, fd00::/8");
/// Any address.
pub(super) const ADDRESS: Kind = Kind::Words("an address, such as ann@home.example");
/// Any path.
pub(super) const PATH: Kind = Kind::Words("an absolute path, such as /var/lib/mailwren");

/// Seconds in a minute.
pub(super) const MINUTE: u64 = 60;
/// Seconds in an hour.
pub(super) const HOUR: u64 = 60 * MINUTE;
/// Seconds in a year.
pub(super) const YEAR: u64 = 365 * 24 * HOUR;
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const TIB: u64 = 1 << 40;

/// Every section, in the order of the manual.
pub static REFERENCE: &[Section] = &[
    Section {
        name: "server",
        example: None,
        help: "The server itself: its name, whose mail it keeps, its folders and its limits.",
        later: None,
        own: SERVER,
        shared: &[],
    },
    Section {
        name: "listen",
        example: Some("smtp"),
        help: "Where mail comes in: any number of sections, each with a name of its own. \
               Without any there is one, on loopback, so that a new server is reachable from \
               nowhere else.",
        later: None,
        own: LISTEN,
        shared: &[],
    },
    Section {
        name: "relay",
        example: None,
        help: "Who may send mail through this server to other places. Everybody else only \
               reaches the domains that are delivered here.",
        later: None,
        own: RELAY,
        shared: &[],
    },
    Section {
        name: "local",
        example: None,
        help: "The mailboxes on this host.",
        later: None,
        own: LOCAL,
        shared: &[],
    },
    Section {
        name: "smarthost",
        example: None,
        help: "A mail server that takes everything for other places. Without this section \
               mail goes straight to the servers of the recipient's domain.",
        later: None,
        own: SMARTHOST_OWN,
        shared: NEXT_HOP,
    },
    Section {
        name: "queue",
        example: None,
        help: "What waits: when it is tried again, and by how many threads.",
        later: None,
        own: QUEUE,
        shared: &[],
    },
    Section {
        name: "dns",
        example: None,
        help: "Where names are looked up.",
        later: None,
        own: &[key(
            "servers",
            Kind::Words("addresses with or without a port, such as 192.168.1.1, [fd00::1]:53"),
            "",
            "The resolvers to ask, in order, such as 192.168.1.1, [fd00::1]:53. Empty: those of \
             the system.",
        )],
        shared: &[],
    },
    Section {
        name: "log",
        example: None,
        help: "What the server logs, and where.",
        later: None,
        own: LOG,
        shared: &[],
    },
    Section {
        name: "tls",
        example: None,
        help: "The certificate that listeners show. The files are read again when they change, \
               and on SIGHUP; new ones that cannot be used leave the old ones in use.",
        later: None,
        own: SERVER_TLS,
        shared: &[],
    },
    Section {
        name: "auth",
        example: None,
        help: "Accounts, and what those who logged in may do.",
        later: None,
        own: AUTH,
        shared: &[],
    },
    Section {
        name: "route",
        example: Some("office"),
        help: "Another way for some domains or senders: any number of sections, of which the \
               first that matches wins.",
        later: Some("routes are not built yet"),
        own: ROUTE,
        shared: NEXT_HOP,
    },
    Section {
        name: "rewrite",
        example: None,
        help: "Other addresses for what leaves this host.",
        later: None,
        own: REWRITE,
        shared: &[],
    },
    Section {
        name: "domain",
        example: Some("example.org"),
        help: "A domain with users of its own: any number of sections.",
        later: None,
        own: DOMAIN,
        shared: &[],
    },
    Section {
        name: "digest",
        example: None,
        help: "Gathers what one sender writes too often to one recipient, such as a crontab that fails \
               each minute, into one message.",
        later: None,
        own: DIGEST,
        shared: &[],
    },
];

const SERVER: &[Key] = &[
    key(
        "hostname",
        Kind::Words("a domain name, such as mail.home.example"),
        "",
        "The name in the greeting, in EHLO and in Received fields, such as mail.home.example. \
         Empty: the host's own name. In EHLO to other hosts a name without a dot gets the domain \
         that /etc/hosts has for it.",
    ),
    key(
        "domains",
        Kind::Words("domains, such as home.example, localhost"),
        "",
        "The domains whose mail is delivered here; the first one completes addresses that have \
         none. `*` means every domain. Empty: the hostname, localhost, and what else this host is \
         called: its own name, that name with its domain in /etc/hosts, that without one, and \
         localhost.localdomain.",
    ),
    key(
        "user",
        Kind::Words("the name of an account, such as mailwren"),
        "mailwren",
        "The account to run as after binding, when started as root. `root` keeps root.",
    ),
    key("spool", PATH, "/var/spool/mailwren", "The folder of the queue."),
    key(
        "state",
        PATH,
        "/var/lib/mailwren",
        "The folder of caches and what else must outlive a restart.",
    ),
    key(
        "socket",
        PATH,
        "/run/mailwren/submit.sock",
        "Where the sendmail command submits. Empty: nowhere.",
    ),
    key(
        "max_message_size",
        // RFC 5321 §4.5.3.1.7: a server takes at least 64K octets.
        Kind::Size(64 * KIB, TIB),
        "35M",
        "The largest message, headers and attachments included.",
    ),
    key(
        "max_recipients",
        // RFC 5321 §4.5.3.1.8: at least 100.
        Kind::Count(100, 100_000),
        "1000",
        "The most recipients of one message.",
    ),
    key(
        "max_sessions",
        Kind::Count(1, 65_536),
        "200",
        "The most clients at once, over all listeners. One more is asked to come back later.",
    ),
    key(
        "max_sessions_per_client",
        Kind::Count(1, 65_536),
        "50",
        "The most sessions at once from one address. With IPv6 the network /64 counts as one, \
         but for the addresses of a LAN (fe80::/10, fc00::/7).",
    ),
    key(
        "session_timeout",
        Kind::Time(1, HOUR),
        "5m",
        "How long to wait for the next command. RFC 5321 wants 5m.",
    ),
    key(
        "min_free_space",
        Kind::Size(0, TIB),
        "64M",
        "When less than this is free in the spool, clients are asked to come back later.",
    ),
    key(
        "vrfy",
        Kind::Choice(&["no", "local", "yes"]),
        "no",
        "Who is told by VRFY whether a user exists: nobody, those who may relay, or everybody.",
    ),
];

const RELAY: &[Key] = &[key(
    "networks",
    NETWORKS,
    "127.0.0.0/8, ::1",
    "The networks that may relay without logging in. For the machines of a LAN add it: \
     127.0.0.0/8, ::1, 192.168.1.0/24. Never add a network with strangers in it.",
)];

const QUEUE: &[Key] = &[
    key(
        "retry",
        Kind::Times(1, YEAR),
        "1m, 5m, 15m, 30m, 1h, 2h, 4h",
        "The pauses between tries; the last one repeats. Each is up to an eighth, and ten \
         minutes at most, shorter or longer, so that not all wakes at once.",
    ),
    key(
        "expire",
        Kind::Time(MINUTE, YEAR),
        "5d",
        "How long a message is tried before it goes back to its sender.",
    ),
    key("local_workers", Kind::Count(1, 64), "2", "The threads that write into mailboxes."),
    key(
        "relay_workers",
        Kind::Count(1, 64),
        "4",
        "The threads that send mail to other servers, half of which may run commands.",
    ),
    key(
        "delay_warning",
        Kind::Time(0, YEAR),
        "4h",
        "When the sender is told, once, that a message is still waiting. 0, or nothing: never.",
    ),
    key(
        "direct",
        Kind::Time(0, MINUTE),
        "2s",
        "How long a client waits for its answer while mail that is for this host alone is put \
         into the mailboxes. Where that does the spool flushes nothing; where it takes longer the \
         message is flushed there, the client gets its 250, and the delivery goes on. 0: clients \
         never wait.",
    ),
    key(
        "bounce_size",
        Kind::Size(0, TIB),
        "50K",
        "The largest message that goes back whole with the report of its failure, unless its \
         sender wants the header only. Of a larger one the header goes back.",
    ),
    key(
        "double_bounce",
        Kind::Words("an address, the name of a local user, or keep"),
        "postmaster",
        "Who is told of failed mail that has no sender, as reports have: an address or the name \
         of a local user. Where that fails too, and with `keep` at once, the message is kept in \
         the folder failed of the spool, with the last 100 of its kind.",
    ),
];

const LOG: &[Key] = &[
    key(
        "level",
        Kind::Choice(&["off", "error", "warn", "info", "debug", "trace"]),
        "info",
        "The least serious lines that are still logged. The variable RUST_LOG overrides it.",
    ),
    key(
        "to",
        Kind::Choice(&["auto", "stderr", "syslog"]),
        "auto",
        "Where the lines go. `auto`: standard error, with priorities where journald listens there, \
         with the time elsewhere. `stderr`: standard error, with the time. `syslog`: the log daemon \
         at /dev/log, for hosts without journald; while none takes them, standard error.",
    ),
    key(
        "events",
        Kind::Size(0, 100 * MIB),
        "1M",
        "How much the journal of events may take on disk, 64K or more: it is what the commands \
         trace and status know of messages that are gone, in the folder of [server] state. 0: none \
         is kept, and one that is there is removed.",
    ),
];
