//! What a section says about the hosts that mail is relayed to: `[smarthost]`.

use super::login::{SUBMISSIONS_PORT, mechanisms, yes_no};
use super::mistake::shown;
use super::reader::Reader;
use super::settings::{ClientTls, HostPort, Login, SecretSource, Smarthost};
use super::{addresses, paths};

/// The longest name of an account and the longest password, in octets.
const MAX_LOGIN: usize = 1024;
/// The keys of which one says where the password is.
const SECRETS: [&str; 3] = ["password", "password_file", "password_command"];

/// Reads the section of a smarthost.
pub(super) fn smarthost(section: &mut Reader<'_>) -> Option<Smarthost> {
    let hosts = if section.is_set("host") {
        section.value("host", addresses::hosts)
    } else {
        section.wrong_section("needs a line such as `host = smtp.example.com:587`");
        None
    };
    let tls = client_tls(section, hosts.as_deref().unwrap_or_default());
    let ca = section.value("ca", paths::optional);
    let fingerprint = section.value("fingerprint", fingerprint);
    let falls_back_to_plain = section.value("fallback", fallback);
    let login = login(section, tls);
    if let Some(tls) = tls {
        check_trust(section, tls);
    }
    Some(Smarthost {
        section: section.name().to_owned(),
        hosts: hosts?,
        tls: tls?,
        ca: ca?,
        fingerprint: fingerprint?,
        falls_back_to_plain: falls_back_to_plain?,
        login: login?,
    })
}

/// How connections to all of these hosts are encrypted.
fn client_tls(section: &mut Reader<'_>, hosts: &[HostPort]) -> Option<ClientTls> {
    if section.is_set("tls") {
        return section.choice(
            "tls",
            &[
                ("starttls", ClientTls::StartTls),
                ("implicit", ClientTls::Implicit),
                ("opportunistic", ClientTls::Opportunistic),
                ("none", ClientTls::None),
            ],
        );
    }
    let is_implicit = !hosts.is_empty() && hosts.iter().all(|host| host.port == SUBMISSIONS_PORT);
    Some(if is_implicit { ClientTls::Implicit } else { ClientTls::StartTls })
}

/// Refuses what would look like safety and is none.
fn check_trust(section: &mut Reader<'_>, tls: ClientTls) {
    let idle: &[(&str, &str)] = match tls {
        ClientTls::None => &[
            ("ca", "it does nothing with `tls = none`; remove one of the two lines"),
            ("fingerprint", "it does nothing with `tls = none`; remove one of the two lines"),
            ("fallback", "it does nothing with `tls = none`; remove one of the two lines"),
        ],
        ClientTls::Opportunistic => &[
            ("ca", "opportunistic TLS looks at no certificate; give `tls = starttls`"),
            ("fingerprint", "opportunistic TLS looks at no certificate; give `tls = starttls`"),
        ],
        ClientTls::StartTls | ClientTls::Implicit => {
            &[("fallback", "mail never goes in the clear here; give `tls = opportunistic`")]
        }
    };
    for (key, why) in idle {
        if section.is_set(key) {
            section.wrong(key, why);
        }
    }
    if section.is_set("ca") && section.is_set("fingerprint") {
        section.wrong("ca", "it does nothing beside fingerprint; remove one of the two lines");
    }
}

fn fallback(text: &str) -> Result<bool, String> {
    match text {
        "" => Ok(false),
        "plain" => Ok(true),
        _ => Err(format!("{} is not known; give plain, or remove the line", shown(text))),
    }
}

/// `sha256:` and 64 hexadecimal digits, which may have colons between them, as openssl(1)
/// writes them.
fn fingerprint(text: &str) -> Result<Option<[u8; 32]>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let bad = || {
        let text = shown(text);
        format!("{text} is no fingerprint; give sha256: and 64 hexadecimal digits")
    };
    let digits = text.strip_prefix("sha256:").ok_or_else(bad)?.replace(':', "");
    if digits.len() != 64 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(bad());
    }
    let mut octets = [0; 32];
    for (at, octet) in octets.iter_mut().enumerate() {
        *octet = u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).map_err(|_| bad())?;
    }
    Ok(Some(octets))
}

/// The account; `Some(None)` where there is none.
fn login(section: &mut Reader<'_>, tls: Option<ClientTls>) -> Option<Option<Login>> {
    let mechanisms = section.value("mechanisms", |text| mechanisms(text, true));
    let without_tls = yes_no(section, "auth_without_tls");
    let given: Vec<_> = SECRETS.into_iter().filter(|key| section.is_set(key)).collect();
    if !section.is_set("user") {
        for key in given {
            section.wrong(key, "it does nothing without a line such as `user = me@example.com`");
        }
        return Some(None);
    }
    let user = section.value("user", secret_text);
    let secret = match given.as_slice() {
        [only] => secret(section, only),
        [] => {
            section
                .wrong("user", "it needs a line such as `password_file = /etc/mailwren/password`");
            None
        }
        [_, second, ..] => {
            section.wrong(second, "the password is given twice; remove one of the two lines");
            None
        }
    };
    let without_tls = without_tls?;
    if tls == Some(ClientTls::None) && !without_tls {
        section.wrong(
            "user",
            "the password would go in the clear, since `tls = none`; give `tls = starttls`, or \
             `auth_without_tls = yes` if that may be",
        );
    }
    Some(Some(Login { user: user?, secret: secret?, mechanisms: mechanisms?, without_tls }))
}

fn secret(section: &mut Reader<'_>, key: &str) -> Option<SecretSource> {
    section.value(key, |text| match key {
        "password" => secret_text(text).map(SecretSource::Inline),
        "password_file" => paths::path(text).map(SecretSource::File),
        _ => Ok(SecretSource::Command(text.to_owned())),
    })
}

/// A name or a password: text without control characters. It is not repeated in the error.
fn secret_text(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > MAX_LOGIN || text.chars().any(char::is_control) {
        return Err(format!("give 1 to {MAX_LOGIN} octets, none of them a control character"));
    }
    Ok(text.to_owned())
}
