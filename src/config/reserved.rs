//! The keys of the sections of which nothing works yet: a part of the table in
//! [`reference`](super::reference).

use super::keys::{Key, Kind, key};

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
