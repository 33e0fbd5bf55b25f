//! Mail providers by name: where they take mail of people who log in, and what they want to be told.

/// One of them.
#[derive(Debug)]
pub(super) struct Provider {
    /// What a person writes, in lower case; it has no dot, so that no host is called so.
    pub(super) name: &'static str,
    /// The server, and the port that is used.
    pub(super) host: &'static str,
    /// 587 is STARTTLS, 465 TLS from the beginning.
    pub(super) port: u16,
    /// What a person should know before the password is asked for. Empty where there is nothing.
    pub(super) hint: &'static str,
}

const APP: &str = "it wants an app password, made in the settings of the account with two-factor \
                   login on, not the ordinary one";
const SWITCH: &str = "sending by other programs (POP3 and IMAP) has to be switched on in the \
                      settings of the account first; with two-factor login it wants an app password";
const MICROSOFT: &str = "ordinary passwords are on their way out there: where it refuses yours, \
                         it wants a token, which [smarthost] password_command can get";

const fn known(name: &'static str, host: &'static str, port: u16, hint: &'static str) -> Provider {
    Provider { name, host, port, hint }
}

/// All that are known by name.
pub(super) static PROVIDERS: &[Provider] = &[
    known("gmail", "smtp.gmail.com", 587, APP),
    known("outlook", "smtp-mail.outlook.com", 587, MICROSOFT),
    known("office365", "smtp.office365.com", 587, MICROSOFT),
    known("icloud", "smtp.mail.me.com", 587, APP),
    known("yahoo", "smtp.mail.yahoo.com", 465, APP),
    known("aol", "smtp.aol.com", 465, APP),
    known("fastmail", "smtp.fastmail.com", 465, APP),
    known("gmx", "mail.gmx.net", 587, SWITCH),
    known("webde", "smtp.web.de", 587, SWITCH),
    known(
        "t-online",
        "securesmtp.t-online.de",
        465,
        "it wants the password for e-mail programs, not the one of the account",
    ),
    known("mailbox-org", "smtp.mailbox.org", 465, ""),
    known("posteo", "posteo.de", 465, ""),
    known(
        "proton",
        "127.0.0.1",
        1025,
        "Proton Mail Bridge must run on this host: it shows the user and the password to give, and \
         its certificate goes to --ca",
    ),
];

/// The provider of that name; `web.de` and `mailbox.org` are known as people write them, too.
pub(super) fn by_name(name: &str) -> Option<&'static Provider> {
    let name = name.to_ascii_lowercase();
    let name = match name.as_str() {
        "web.de" => "webde",
        "mailbox.org" => "mailbox-org",
        name => name,
    };
    PROVIDERS.iter().find(|provider| provider.name == name)
}

/// All names, for a person.
pub(super) fn names() -> String {
    PROVIDERS.iter().map(|provider| provider.name).collect::<Vec<_>>().join(", ")
}

/// The provider with that server.
pub(super) fn by_host(host: &str) -> Option<&'static Provider> {
    PROVIDERS.iter().find(|provider| provider.host.eq_ignore_ascii_case(host))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_no_hosts_and_stand_once() {
        for (at, provider) in PROVIDERS.iter().enumerate() {
            assert!(!provider.name.contains('.') && provider.host.contains('.'));
            assert!([465, 587, 1025].contains(&provider.port), "{}", provider.name);
            assert!(PROVIDERS[..at].iter().all(|other| other.name != provider.name));
        }
        assert_eq!(by_name("Web.de").map(|it| it.host), Some("smtp.web.de"));
        assert_eq!(by_host("SMTP.gmail.com").map(|it| it.name), Some("gmail"));
        assert!(by_name("smtp.gmail.com").is_none());
    }
}
