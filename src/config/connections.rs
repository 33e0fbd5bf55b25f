//! The keys of the sections about connections, and of who proves what on them: listeners,
//! their certificate, accounts, and the hosts that mail is relayed to. A part of the table in
//! [`reference`](super::reference).

use super::keys::{Key, Kind, UNSET, key};
use super::reference::{NETWORKS, PATH, YES_NO};

const MECHANISMS: Kind = Kind::Words("SASL mechanisms, such as SCRAM-SHA-256, PLAIN, LOGIN");
const SECRET: Kind = Kind::Words("a secret");
const TLS: Kind = Kind::Choice(&["none", "starttls", "implicit"]);
const TLS_OUT: Kind = Kind::Choice(&["none", "opportunistic", "starttls", "implicit"]);
const TLS_VERSION: Kind = Kind::Choice(&["1.0", "1.1", "1.2", "1.3"]);

/// `[listen.NAME]`.
pub(super) const LISTEN: &[Key] = &[
    key(
        "address",
        Kind::Words("ADDRESS:PORT, [IPV6]:PORT, unix:/path or systemd:NAME"),
        "127.0.0.1:25",
        "Where to listen: ADDRESS:PORT, [IPV6]:PORT, unix:/path or systemd:NAME. 0.0.0.0:25 is \
         port 25 of every network that the host is in; systemd:NAME are the sockets of the unit \
         with FileDescriptorName=NAME.",
    ),
    key(
        "networks",
        NETWORKS,
        "",
        "Only these clients may connect, such as 192.168.1.0/24, fd00::/8. Empty: all that can \
         reach the address.",
    ),
    key(
        "bare_newline",
        Kind::Choice(&["reject", "accept"]),
        "reject",
        "What to do with lines that end in LF instead of CRLF: refuse the message, or mend it, \
         for old devices. The message itself always ends with CRLF, a dot and CRLF.",
    ),
    key(
        "protocol",
        Kind::Choice(&["smtp", "submission", "lmtp", "odmr"]),
        "smtp",
        "The protocol that is spoken: `smtp`, or `submission` for people's programs, who log in, \
         on ports 587 and 465. lmtp and odmr are not built yet.",
    )
    .partly(),
    key(
        "tls",
        TLS,
        "",
        "Whether connections are encrypted: `starttls` when the client asks, `implicit` from the \
         beginning, or `none`. Empty: implicit on port 465, starttls on others.",
    ),
    key(
        "tls_minimum",
        TLS_VERSION,
        "",
        "The oldest version of TLS that is spoken here, for old devices. Empty: as [tls] minimum \
         says.",
    ),
    key(
        "auth",
        Kind::Choice(&["none", "optional", "required"]),
        "",
        "Who has to log in before mail is taken; who has logged in may relay. Empty: everybody \
         with `protocol = submission`, else nobody.",
    ),
    key(
        "auth_without_tls",
        YES_NO,
        "no",
        "Whether a password may come in the clear, for devices without TLS.",
    ),
    key(
        "proxy",
        NETWORKS,
        "",
        "The networks whose connections begin with a PROXY header, version 1 or 2.",
    )
    .later("the PROXY header is not built yet", UNSET),
    key("xclient", NETWORKS, "", "The networks that may use XCLIENT.")
        .later("XCLIENT is not built yet", UNSET),
];

/// `[tls]`.
pub(super) const SERVER_TLS: &[Key] = &[
    key(
        "certificate",
        PATH,
        "/etc/mailwren/cert.pem",
        "The certificate and its chain, PEM, the server's own first. Where neither this line nor \
         the file is there, the server makes a certificate of its own, which nobody can check, \
         in the folder tls of its state.",
    ),
    key("key", PATH, "/etc/mailwren/key.pem", "The private key of the certificate, PEM."),
    key(
        "minimum",
        TLS_VERSION,
        "1.2",
        "The oldest version of TLS that is spoken. For a device that knows only older ones give \
         it a listener of its own, with tls_minimum.",
    ),
];

/// `[auth]`.
pub(super) const AUTH: &[Key] = &[
    key("users", PATH, "/etc/mailwren/users", "The accounts, as `mailwren passwd` writes them."),
    key(
        "mechanisms",
        MECHANISMS,
        "SCRAM-SHA-256, PLAIN, LOGIN",
        "The ways to log in that are offered, of SCRAM-SHA-256, SCRAM-SHA-1, CRAM-MD5, PLAIN and \
         LOGIN.",
    ),
    key(
        "dovecot",
        Kind::Words("the absolute path of a socket, such as /run/dovecot/auth-client"),
        "",
        "Dovecot's socket, such as /run/dovecot/auth-client: then Dovecot knows the accounts, \
         and the file of `users` is not read.",
    ),
    key(
        "sender",
        Kind::Choice(&["own", "any"]),
        "own",
        "Whether those who logged in may send under their own address only, or any.",
    ),
    key(
        "trusted_users",
        Kind::Words("names of accounts"),
        "root, daemon, www-data",
        "The accounts of this host whose programs may send under any address; others only under \
         those that `sender` allows.",
    ),
    key(
        "auth_failures",
        Kind::Count(1, 100),
        "5",
        "After how many wrong passwords a session ends.",
    ),
];

/// `[smarthost]`, beside the keys of everything that mail is relayed to.
pub(super) const SMARTHOST_OWN: &[Key] = &[key(
    "host",
    Kind::Words("HOST or HOST:PORT, such as smtp.example.com:587"),
    "",
    "Its name, or several that are tried in order, with :PORT unless it is 25, such as \
     smtp.example.com:587.",
)];

/// The keys of everything that mail is relayed to.
pub(super) const NEXT_HOP: &[Key] = &[
    key(
        "tls",
        TLS_OUT,
        "",
        "How the connection is encrypted: `starttls` on ports 25 and 587, `implicit` on 465. \
         The server's certificate must bear the name of the host, or the mail waits. `none` \
         sends in the clear, which may do inside your own network; `opportunistic` encrypts \
         where the server offers it, and never looks at the certificate. Empty: implicit on \
         port 465, starttls on others.",
    ),
    key("user", Kind::Words("the name of an account"), "", "The account to log in to."),
    key(
        "password",
        SECRET,
        "",
        "The password itself. This file is for everybody to read, so password_file is better.",
    ),
    key(
        "password_file",
        PATH,
        "",
        "The file whose first line is the password. Only the server's account should be able to \
         read it.",
    ),
    key(
        "password_command",
        Kind::Words("a command"),
        "",
        "The command whose first line of output is the password or the token. It runs as the \
         server's account, and again when the server says that the token has expired.",
    ),
    key(
        "mechanisms",
        MECHANISMS,
        "SCRAM-SHA-256, SCRAM-SHA-1, CRAM-MD5, PLAIN, LOGIN",
        "The ways to log in that may be used; the best one that the server offers is. For a \
         token give OAUTHBEARER, XOAUTH2.",
    ),
    key(
        "auth_without_tls",
        YES_NO,
        "no",
        "Whether the password may go in the clear, where the connection is not encrypted.",
    ),
    key(
        "ca",
        Kind::Words("the absolute path of a file, such as /etc/mailwren/ca.pem"),
        "",
        "A file with the certificates, PEM, that are trusted instead of the system's. Empty: \
         the system's.",
    ),
    key(
        "fingerprint",
        Kind::Words("sha256: and 64 hexadecimal digits"),
        "",
        "The SHA-256 of the one certificate to trust, whatever name it bears and whoever signed \
         it: sha256: and 64 hexadecimal digits.",
    ),
    key(
        "fallback",
        Kind::Choice(&["plain"]),
        "",
        "With `plain`, opportunistic TLS that fails is followed by a try without.",
    ),
];
