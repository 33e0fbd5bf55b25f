//! Who may log in, and how: `[auth]`, `[tls]`, and what a `[listen.NAME]` says of both.

use super::addresses;
use super::load::user;
use super::mistake::shown;
use super::paths;
use super::reader::Reader;
use super::settings::{
    Auth, AuthRule, BareNewline, ListenAddress, Listener, ListenerTls, Protocol, SenderRule,
    ServerTls, TlsVersion,
};
use super::values::list;
use crate::smtp::sasl::Mechanism;

/// The port of submission with TLS from the beginning (RFC 8314 §3.3).
pub(super) const SUBMISSIONS_PORT: u16 = 465;
const TLS_VERSIONS: [(&str, TlsVersion); 4] = [
    ("1.0", TlsVersion::V1_0),
    ("1.1", TlsVersion::V1_1),
    ("1.2", TlsVersion::V1_2),
    ("1.3", TlsVersion::V1_3),
];

/// Reads `[tls]`: the files, and the oldest version for listeners that name none.
pub(super) fn server_tls(section: &mut Reader<'_>) -> Option<(ServerTls, TlsVersion)> {
    let is_configured = section.is_set("certificate") || section.is_set("key");
    let certificate = section.value("certificate", paths::path);
    let key = section.value("key", paths::path);
    let minimum = section.choice("minimum", &TLS_VERSIONS);
    Some((ServerTls { certificate: certificate?, key: key?, is_configured }, minimum?))
}

/// Reads `[auth]`.
pub(super) fn auth(section: &mut Reader<'_>) -> Option<Auth> {
    let users = section.value("users", paths::path);
    let mechanisms = section.value("mechanisms", |text| mechanisms(text, false));
    let dovecot = section.value("dovecot", |text| match text {
        "" => Ok(None),
        _ => paths::socket(text).map(Some),
    });
    let sender = section.choice("sender", &[("own", SenderRule::Own), ("any", SenderRule::Any)]);
    let trusted_users = section.value("trusted_users", |text| list(text, user));
    let auth_failures = section.number("auth_failures");
    Some(Auth {
        users: users?,
        mechanisms: mechanisms?,
        dovecot: dovecot?,
        sender: sender?,
        trusted_users: trusted_users?,
        auth_failures: u32::try_from(auth_failures?).unwrap_or(u32::MAX),
    })
}

/// Reads a `[listen.NAME]`. `tls_minimum` is what `[tls]` says.
pub(super) fn listener(
    section: &mut Reader<'_>,
    name: &str,
    tls_minimum: TlsVersion,
) -> Option<Listener> {
    let address = section.value("address", addresses::listen_address);
    let networks = section.value("networks", addresses::networks);
    let bare_newline = section.choice(
        "bare_newline",
        &[("reject", BareNewline::Reject), ("accept", BareNewline::Accept)],
    );
    let protocol = protocol(section);
    let tls = listener_tls(section, address.as_ref());
    let tls_minimum = match section.is_set("tls_minimum") {
        true => section.choice("tls_minimum", &TLS_VERSIONS),
        false => Some(tls_minimum),
    };
    let auth = auth_rule(section, protocol);
    let auth_without_tls = yes_no(section, "auth_without_tls");
    let listener = Listener {
        name: name.to_owned(),
        address: address?,
        protocol: protocol?,
        tls: tls?,
        tls_minimum: tls_minimum?,
        auth: auth?,
        auth_without_tls: auth_without_tls?,
        networks: networks?,
        bare_newline: bare_newline?,
    };
    check_usable(section, &listener);
    Some(listener)
}

fn protocol(section: &mut Reader<'_>) -> Option<Protocol> {
    section.value("protocol", |text| match text {
        "smtp" => Ok(Protocol::Smtp),
        "submission" => Ok(Protocol::Submission),
        "lmtp" | "odmr" => Err(format!("{text} is not built yet; give smtp or submission")),
        _ => Err(format!("{} is not known; give smtp or submission", shown(text))),
    })
}

fn listener_tls(section: &mut Reader<'_>, address: Option<&ListenAddress>) -> Option<ListenerTls> {
    if section.is_set("tls") {
        let tls = section.choice(
            "tls",
            &[
                ("none", ListenerTls::None),
                ("starttls", ListenerTls::StartTls),
                ("implicit", ListenerTls::Implicit),
            ],
        );
        if matches!(address, Some(ListenAddress::Unix(_))) && tls != Some(ListenerTls::None) {
            section.wrong("tls", "a Unix socket has no TLS and needs none; remove the line");
            return None;
        }
        return tls;
    }
    Some(match address? {
        ListenAddress::Unix(_) => ListenerTls::None,
        ListenAddress::Tcp(address) if address.port() == SUBMISSIONS_PORT => ListenerTls::Implicit,
        ListenAddress::Tcp(_) | ListenAddress::Systemd(_) => ListenerTls::StartTls,
    })
}

fn auth_rule(section: &mut Reader<'_>, protocol: Option<Protocol>) -> Option<AuthRule> {
    if !section.is_set("auth") {
        return Some(match protocol? {
            Protocol::Smtp => AuthRule::None,
            Protocol::Submission => AuthRule::Required,
        });
    }
    let rule = section.choice(
        "auth",
        &[
            ("none", AuthRule::None),
            ("optional", AuthRule::Optional),
            ("required", AuthRule::Required),
        ],
    )?;
    if protocol == Some(Protocol::Submission) && rule != AuthRule::Required {
        section.wrong(
            "auth",
            "submission is for those who log in (RFC 6409 4.3); remove the line, or give \
             `protocol = smtp`",
        );
        return None;
    }
    Some(rule)
}

/// Refuses listeners that nobody could use.
fn check_usable(section: &mut Reader<'_>, listener: &Listener) {
    let is_tcp = !matches!(listener.address, ListenAddress::Unix(_));
    let has_tls = listener.tls != ListenerTls::None;
    if is_tcp && listener.auth != AuthRule::None && !has_tls && !listener.auth_without_tls {
        section.wrong(
            "tls",
            "nobody could log in, since passwords do not come in the clear; give `tls = starttls`, \
             or `auth_without_tls = yes` if they may",
        );
    }
    if listener.auth_without_tls && listener.auth == AuthRule::None {
        section
            .wrong("auth_without_tls", "it does nothing without a line such as `auth = optional`");
    }
    if !has_tls && section.is_set("tls_minimum") {
        section.wrong("tls_minimum", "it does nothing without TLS; remove the line");
    }
}

/// SASL mechanisms, at least one, none twice. Those with tokens are for clients only.
pub(super) fn mechanisms(text: &str, is_client: bool) -> Result<Vec<Mechanism>, String> {
    let known: &[Mechanism] =
        if is_client { &Mechanism::OF_CLIENTS } else { &Mechanism::OF_LISTENERS };
    let mut mechanisms = Vec::new();
    for mechanism in list(text, |name| mechanism(name, known))? {
        if !mechanisms.contains(&mechanism) {
            mechanisms.push(mechanism);
        }
    }
    if mechanisms.is_empty() {
        return Err("it has no value".to_owned());
    }
    Ok(mechanisms)
}

fn mechanism(name: &str, known: &[Mechanism]) -> Result<Mechanism, String> {
    let found = known.iter().find(|mechanism| mechanism.name().eq_ignore_ascii_case(name));
    found.copied().ok_or_else(|| {
        let names: Vec<_> = known.iter().map(|mechanism| mechanism.name()).collect();
        format!("{} is no mechanism here; give some of {}", shown(name), names.join(", "))
    })
}

pub(super) fn yes_no(section: &mut Reader<'_>, key: &str) -> Option<bool> {
    section.choice(key, &[("no", false), ("yes", true)])
}
