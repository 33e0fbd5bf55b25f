//! The keys of the sections of which nothing works yet: a part of the table in
//! [`reference`](super::reference).

use super::keys::{Key, Kind, key};
use super::reference::{ADDRESS, MINUTE, PATH, YEAR};

const DOMAINS: Kind = Kind::Words("domains, such as home.example");

/// `[route.NAME]`, beside the keys of a smarthost.
pub(super) const ROUTE: &[Key] = &[
    key("domains", DOMAINS, "", "The recipients' domains that it is for; *.example.org works."),
    key("senders", Kind::Words("addresses or domains"), "", "The senders that it is for."),
    key(
        "via",
        Kind::Words("mx, HOST:PORT, lmtp:HOST:PORT, lmtp:unix:/path, local, discard or reject"),
        "",
        "Where the mail goes: mx, HOST:PORT, lmtp:HOST:PORT, lmtp:unix:/path, local, discard \
         or reject.",
    ),
];

/// `[rewrite]`.
pub(super) const REWRITE: &[Key] = &[
    key("sender", ADDRESS, "", "The address that every local sender gets."),
    key("masquerade", DOMAINS, "", "The domain that local senders get."),
    key("map", PATH, "", "A file of addresses and what they become."),
    key(
        "name",
        Kind::Words("a text with {user} and {host} in it"),
        "{user} on {host}",
        "The display name of a sender that was rewritten.",
    ),
];

/// `[domain.NAME]`.
pub(super) const DOMAIN: &[Key] = &[
    key("users", PATH, "", "The file with the users of the domain."),
    key("aliases", PATH, "", "The alias file of the domain."),
    key("path", PATH, "", "Where the mailboxes of the domain are."),
];

/// `[digest]`.
pub(super) const DIGEST: &[Key] = &[
    key(
        "burst",
        Kind::Count(1, 100_000),
        "20",
        "How many messages of one sender to one recipient go out one by one.",
    ),
    key("window", Kind::Time(MINUTE, YEAR), "1h", "In how much time they are counted."),
];
