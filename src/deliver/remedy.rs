//! What a person can do when a smarthost does not let us log in: words for the end of an error.

use crate::config::settings::{Login, SecretSource};
use crate::smtp::client::LoginError;
use crate::smtp::sasl::Mechanism;

const APP_PASSWORD: &str =
    "it most likely wants an app password, made in the settings of the account, not its own";
/// Providers that take an ordinary password from nobody, or from few, by the end of the names of
/// their servers.
const PROVIDERS: [(&[&str], &str); 4] = [
    (
        &[
            "gmail.com",
            "googlemail.com",
            "google.com",
            "yahoo.com",
            "yahoodns.net",
            "aol.com",
            "me.com",
            "icloud.com",
            "fastmail.com",
            "zoho.com",
            "zoho.eu",
            "yandex.com",
            "yandex.ru",
            "mail.ru",
        ],
        APP_PASSWORD,
    ),
    (
        &["outlook.com", "office365.com", "hotmail.com", "live.com"],
        "it most likely wants an app password or a token: `mechanisms = XOAUTH2` with a \
         password_command, and SMTP AUTH switched on for the mailbox",
    ),
    (
        &["gmx.net", "gmx.com", "gmx.de", "web.de", "mail.com"],
        "it most likely wants SMTP switched on in the settings of the account and, with \
         two-factor login, an app password",
    ),
    (&["t-online.de"], "it wants the password for e-mail programs, not the one of the account"),
];

/// What can be done about `error`, met at the server called `host`, by whoever may change the
/// `section` with this login.
pub fn remedy(error: &LoginError, host: &str, section: &str, login: &Login) -> String {
    match error {
        LoginError::NotOffered => format!(
            "if it really needs none, remove `user` from [{section}], else see that it is the right \
             port and that nothing on the way takes AUTH out"
        ),
        LoginError::NoMechanism { offered } => other_mechanism(offered, section),
        LoginError::InTheClear => format!(
            "it offers no STARTTLS there: see that port and tls in [{section}] are the right ones, \
             or give `auth_without_tls = yes` if the password may go in the clear"
        ),
        LoginError::Refused { .. } => after_refusal(host, section, login),
        LoginError::NotNow(_) => "it is asked again later".to_owned(),
        LoginError::Impossible(_) | LoginError::NotBase64 | LoginError::Endless => {
            format!("see that host, user and {} in [{section}] are right", key(login))
        }
    }
}

fn after_refusal(host: &str, section: &str, login: &Login) -> String {
    let is_token =
        |mechanism: &Mechanism| matches!(mechanism, Mechanism::OauthBearer | Mechanism::Xoauth2);
    if matches!(login.secret, SecretSource::Command(_)) && !login.mechanisms.iter().any(is_token) {
        return format!(
            "check user and password_command in [{section}]; if that prints a token, give \
             `mechanisms = OAUTHBEARER, XOAUTH2` too"
        );
    }
    if login.mechanisms.iter().all(is_token) {
        return format!(
            "see that {} in [{section}] gives a token of this user that is good for SMTP",
            key(login)
        );
    }
    match wish_of_provider(host) {
        Some(words) => format!("{words}; then check user and {} in [{section}]", key(login)),
        None => format!(
            "check user and {} in [{section}]; an account with two-factor login may want an app \
             password there",
            key(login)
        ),
    }
}

/// What the provider of `host`, if it is a known one, wants instead of an ordinary password: a
/// clause.
pub fn wish_of_provider(host: &str) -> Option<&'static str> {
    let host = host.to_ascii_lowercase();
    let is_its = |end: &&str| {
        host.strip_suffix(end).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    };
    PROVIDERS.iter().find(|(ends, _)| ends.iter().any(is_its)).map(|(_, words)| *words)
}

fn other_mechanism(offered: &str, section: &str) -> String {
    let offers = |mechanism: &Mechanism| {
        let mut names = offered.split(' ');
        names.any(|name| name.eq_ignore_ascii_case(mechanism.name()))
    };
    match Mechanism::OF_CLIENTS.into_iter().find(offers) {
        Some(token @ (Mechanism::OauthBearer | Mechanism::Xoauth2)) => format!(
            "give `mechanisms = {token}` in [{section}], and a password_command that prints a token"
        ),
        Some(mechanism) => format!("give `mechanisms = {mechanism}` in [{section}]"),
        None => "mailwren knows none of them; use another server".to_owned(),
    }
}

/// The line that says where the secret is.
const fn key(login: &Login) -> &'static str {
    match login.secret {
        SecretSource::Inline(_) => "password",
        SecretSource::File(_) => "password_file",
        SecretSource::Command(_) => "password_command",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login(mechanisms: &[Mechanism]) -> Login {
        let secret = SecretSource::File("/etc/mailwren/password".into());
        Login { user: "me".into(), secret, mechanisms: mechanisms.to_vec(), without_tls: false }
    }

    #[test]
    fn known_providers_want_more_than_a_password() {
        let login = login(&[Mechanism::Plain]);
        let after = |host| after_refusal(host, "smarthost", &login);
        assert!(after("smtp.gmail.com").contains("app password"));
        assert!(after("SMTP.Office365.com").contains("XOAUTH2"));
        assert!(after("smtp.mail.me.com").contains("app password"));
        assert!(after("mail.gmx.net").contains("SMTP switched on"));
        let plain = "check user and password_file in [smarthost]; an account with two-factor \
                     login may want an app password there";
        for host in ["mail.example.com", "notgmail.com", "gmail.com.example", "192.0.2.1", "me"] {
            assert_eq!(after(host), plain, "{host}");
        }
    }

    #[test]
    fn a_server_without_a_mechanism_for_us_is_told_the_line_to_change() {
        for (offered, expected) in [
            (
                "XOAUTH2 GSSAPI",
                "give `mechanisms = XOAUTH2` in [smarthost], and a password_command",
            ),
            ("login", "give `mechanisms = LOGIN` in [smarthost]"),
            ("GSSAPI NTLM", "mailwren knows none of them"),
        ] {
            let words = other_mechanism(offered, "smarthost");
            assert!(words.starts_with(expected), "{words}");
        }
        let words = after_refusal("smtp.gmail.com", "smarthost", &login(&[Mechanism::Xoauth2]));
        assert!(words.contains("a token of this user"), "{words}");
        let command = SecretSource::Command("token".into());
        let login = Login { secret: command, ..login(&[Mechanism::Plain]) };
        let words = after_refusal("smtp.gmail.com", "smarthost", &login);
        assert!(words.contains("give `mechanisms = OAUTHBEARER, XOAUTH2`"), "{words}");
    }
}
