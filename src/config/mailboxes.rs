//! The keys of the sections about people's mail on this host, and about what leaves it under their
//! names: a part of the table in [`reference`](super::reference).

use super::keys::{Key, Kind, UNSET, key};
use super::reference::{ADDRESS, HOUR, MINUTE, PATH, YEAR, YES_NO};

const CATCH_ALL: Kind =
    Kind::Words("an address, such as ann@home.example, or the name of a local user");

/// `[local]`.
pub(super) const LOCAL: &[Key] = &[
    key(
        "format",
        Kind::Choice(&["mbox", "maildir"]),
        "mbox",
        "How a mailbox is written: one file, or a folder with a file for each message.",
    ),
    key(
        "path",
        Kind::Words("an absolute path with {user}, {domain} or {home} in it"),
        "",
        "Where a user's mailbox is: a path with {user}, {domain} or, first, {home} in it. \
         Empty: /var/mail/{user} for mbox, {home}/Maildir for maildir. With .{detail} as its last \
         part, as in {home}/Maildir/.{detail}, mail for user+detail goes into that folder of the \
         Maildir, if the user has made one, and all other mail into the Maildir; with {detail} into a \
         Maildir within it. For mbox the last part is a file, and `inbox` beside it has all other mail.",
    ),
    key(
        "users",
        Kind::Words("system, any, or the absolute path of a file of names"),
        "system",
        "Who has a mailbox: `system`, the accounts of this host; `any` name; or the names in a \
         file, one on each line, whose absolute path stands here.",
    ),
    key(
        "aliases",
        PATH,
        "/etc/aliases",
        "The alias file, as aliases(5) describes it; `mailwren aliases` checks it. It need not \
         exist. Empty: none.",
    ),
    key(
        "subaddress",
        Kind::Words("one character that is no letter or digit, such as + or -, or nothing"),
        "+",
        "What separates a user from the detail in user+detail@domain. Empty: nothing does.",
    ),
    key(
        "catch_all",
        CATCH_ALL,
        "",
        "Who takes the mail for users that do not exist here: an address, or the name of a \
         local user. An alias `@domain` comes before it. Empty: it is refused.",
    ),
    key(
        "unknown",
        Kind::Words("reject, or an address"),
        "reject",
        "The same as catch_all, in other words: what becomes of mail for users that do not exist \
         here, `reject` or an address.",
    ),
    key(
        "forward",
        Kind::Words("a path with {user} or {home} in it"),
        "{home}/.forward",
        "The file in which a user says where the mail goes, in the form of aliases(5). It is read \
         as that user, and not at all where others can write to it or to its folder. With users \
         that are no accounts of the system there is none. Empty: none.",
    ),
    key(
        "command_user",
        Kind::Words("the name of an account, such as nobody"),
        "nobody",
        "The account that the commands in alias files run as. Those in a .forward run as its \
         owner, and root's as this account, too.",
    ),
    key(
        "command_timeout",
        Kind::Time(1, HOUR),
        "5m",
        "How long such a command may run before it is killed and tried again later.",
    ),
    key(
        "mbox_locks",
        Kind::Words("dotlock, fcntl and flock, in the order in which they are taken"),
        "dotlock, fcntl",
        "How an mbox is locked against mail readers: dotlock, fcntl and flock, in this order and no \
         others. Give what the readers of this host take. Where the owner of an mbox may not create \
         a file beside it, there is no dotlock, and the others must do.",
    ),
    key(
        "quota",
        YES_NO,
        "no",
        "Whether the file maildirsize in a Maildir counts, with the limits in its first line, such \
         as 10000000S,1000C for octets and messages (Maildir++). Mail that does not fit waits. A \
         Maildir without the file has no quota, and an mbox never has one.",
    ),
    key(
        "vacation",
        YES_NO,
        "no",
        "Whether ~/.vacation.msg is sent to people who write to a user of the system, once a week to \
         each (RFC 3834). It is a text in UTF-8, before which Subject, From and Reply-To fields and \
         an empty line may stand; $SUBJECT in it is the Subject of their message. It must belong to \
         the user, and nobody else may be able to write to it or to the home.",
    ),
    key(
        "lmtp",
        Kind::Words("unix:/path or HOST:PORT"),
        "",
        "Hand local mail to an LMTP server instead of writing files.",
    )
    .later("LMTP is not built yet", UNSET),
];

/// `[domain.NAME]`.
pub(super) const DOMAIN: &[Key] = &[
    key(
        "users",
        PATH,
        "",
        "The file with the users of the domain, one on each line. Empty: it has aliases only.",
    ),
    key(
        "aliases",
        PATH,
        "",
        "The alias file of the domain. Names in it are users and aliases of the domain, or of this \
         host where the domain has no users. Empty: none.",
    ),
    key(
        "path",
        Kind::Words("an absolute path with {user} in it"),
        "",
        "Where the mailboxes of the domain are: a path with {user} and perhaps {domain} in it, and \
         {detail} as in [local] path. They belong to the account of the server. Empty: /var/mail/{domain}/{user}.",
    ),
    key(
        "catch_all",
        CATCH_ALL,
        "",
        "Who takes the mail for users that the domain does not have. Empty: it is refused.",
    ),
];

/// `[rewrite]`.
pub(super) const REWRITE: &[Key] = &[
    key(
        "sender",
        ADDRESS,
        "",
        "The address that every sender of this host gets in mail that leaves it, in the envelope \
         and in the fields From, Sender and Reply-To: what a provider insists on. A From in \
         which no address can be read gets it, too. What From said stands in X-Original-From then, \
         and reports of the provider go to this address. Senders at a [domain.NAME] keep their \
         own. Empty: all do.",
    ),
    key(
        "masquerade",
        Kind::Words("a domain, such as home.example"),
        "",
        "The domain that the addresses of this host get instead of their own in mail that leaves \
         it, in To and Cc too. Empty: none.",
    ),
    key(
        "map",
        PATH,
        "",
        "A file of addresses and what they become, a pair on each line: `root me@example.com` for \
         a name of this host, `ann@home.example ann@example.com`, or `@old.example @new.example` for \
         all of a domain. It comes before the other two, and what it says is the end of it. It is read \
         again when it changes. Empty: none.",
    ),
    key(
        "name",
        Kind::Words("a text with {name}, {user} or {host} in it"),
        "{name} on {host}",
        "The display name in From where `sender` replaced the address: {name} is the name that there \
         was, or else the user, {user} what stood before the @, {host} this host. `root (Cron Daemon)` \
         becomes \"Cron Daemon on pi.home.example\". Without {name} in it, names before an address stay \
         as they are, and it is for those who had none. Empty: nothing is added to anybody.",
    ),
];

/// `[digest]`.
pub(super) const DIGEST: &[Key] = &[
    key(
        "burst",
        Kind::Count(0, 100_000),
        "20",
        "How many messages of one sender of this host to one recipient go out through the \
         smarthost one by one in a window; what comes on top waits for its end and is gathered \
         into one message. Not counted and never gathered is what answers another message \
         (In-Reply-To, References) and does not say that a program sent it (X-Cron-Env, \
         Auto-Submitted, Precedence: bulk), what asks to be told of its arrival, and what has come \
         through several hosts. A digest holds at most 200 messages, and 4 MiB, or half of \
         max_message_size if that is less; what is larger goes by itself. 0: nothing is ever gathered.",
    ),
    key("window", Kind::Time(MINUTE, YEAR), "1h", "How long such a window is."),
];
