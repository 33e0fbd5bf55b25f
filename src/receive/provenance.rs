//! From whom a message comes, and how: what its session knows when it begins, for the Received
//! field (RFC 5321 §4.4), the spool and the log.

use std::sync::Arc;

use crate::config::settings::{Listener, SenderRule, Settings};
use crate::receive::peer::Peer;
use crate::receive::tls::secured::Encryption;
use crate::smtp::server::Introduction;

/// The facts of a session that go on with each of its messages.
#[derive(Clone, Copy, Debug)]
pub struct Provenance<'a> {
    /// The client.
    pub peer: Peer,
    /// How it introduced itself; `None` where there was no session: the message lay in `drop/`.
    pub introduction: Option<&'a Introduction>,
    /// Whether the connection is encrypted.
    pub is_secured: bool,
    /// What it is encrypted with, where that is known.
    pub encryption: Option<Encryption>,
    /// Who logged in.
    pub user: Option<&'a Arc<str>>,
    /// Where the client connected to.
    pub listener: &'a Listener,
}

impl<'a> Provenance<'a> {
    /// What the spool says of the client: `192.0.2.1`, or `192.0.2.1 as ann`.
    pub fn client(&self) -> String {
        match self.user {
            Some(user) => format!("{} as {user}", self.peer),
            None => self.peer.to_string(),
        }
    }

    /// What stands behind `with` in a Received field; the version of TLS is a comment. The name of
    /// the user is not told: it is nobody's business but the log's.
    pub fn with(&self) -> String {
        let keyword = self.transmission_type();
        match self.encryption {
            Some(Encryption { version, .. }) => format!("{keyword} (using {version})"),
            None => keyword.to_owned(),
        }
    }

    /// The clause for the cipher, at the end of a Received field (RFC 8314 §4.3).
    pub fn tls_clause(&self) -> String {
        match self.encryption {
            Some(Encryption { cipher, .. }) => format!("\r\n\ttls {cipher}"),
            None => String::new(),
        }
    }

    /// The keyword for how the message was transmitted (RFC 3848). Who says HELO uses no
    /// extension; what was encrypted from the beginning counts like what STARTTLS encrypted. What
    /// came as a file was never in a session, and has no registered keyword.
    fn transmission_type(&self) -> &'static str {
        let Some(introduction) = self.introduction else { return "local" };
        match (introduction.is_extended, self.is_secured, self.user.is_some()) {
            (false, ..) => "SMTP",
            (true, false, false) => "ESMTP",
            (true, false, true) => "ESMTPA",
            (true, true, false) => "ESMTPS",
            (true, true, true) => "ESMTPSA",
        }
    }

    /// Whose addresses alone the author of the message may have, if anybody's: nobody looks at what
    /// accounts of this host write there (see [`crate::route::owner`]).
    pub fn bound_user(&self, settings: &Settings) -> Option<&'a str> {
        bound_user(self.peer, self.user, settings)
    }
}

/// The same for a session that has no message yet: whose addresses alone MAIL may name.
pub fn bound_user<'a>(
    peer: Peer,
    user: Option<&'a Arc<str>>,
    settings: &Settings,
) -> Option<&'a str> {
    match (peer, settings.auth.sender) {
        (Peer::Host { .. }, SenderRule::Own) => user.map(|user| &**user),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::settings::{
        AuthRule, BareNewline, ListenAddress, ListenerTls, Protocol, TlsVersion,
    };

    #[test]
    fn the_keyword_says_how_a_message_came() {
        let listener = Listener {
            name: "submission".into(),
            address: ListenAddress::Tcp(([127, 0, 0, 1], 0).into()),
            protocol: Protocol::Submission,
            tls: ListenerTls::StartTls,
            tls_minimum: TlsVersion::V1_2,
            auth: AuthRule::Required,
            auth_without_tls: false,
            networks: Vec::new(),
            bare_newline: BareNewline::Reject,
        };
        let user: Arc<str> = "ann".into();
        let peer = Peer::Host { remote: [192, 0, 2, 1].into(), local: [192, 0, 2, 2].into() };
        for (is_extended, is_secured, has_user, keyword) in [
            (false, false, false, "SMTP"),
            (false, false, true, "SMTP"),
            (false, true, false, "SMTP"),
            (false, true, true, "SMTP"),
            (true, false, false, "ESMTP"),
            (true, false, true, "ESMTPA"),
            (true, true, false, "ESMTPS"),
            (true, true, true, "ESMTPSA"),
        ] {
            let introduction = Introduction { name: "c.test".parse().unwrap(), is_extended };
            let provenance = Provenance {
                peer,
                introduction: Some(&introduction),
                is_secured,
                encryption: None,
                user: has_user.then_some(&user),
                listener: &listener,
            };
            assert_eq!(provenance.with(), keyword);
            assert_eq!(provenance.tls_clause(), "");
            let (version, cipher) = ("TLSv1.3", "TLS_AES_128_GCM_SHA256");
            let encryption = Some(Encryption { version, cipher });
            let encrypted = Provenance { encryption, ..provenance };
            assert_eq!(encrypted.with(), format!("{keyword} (using TLSv1.3)"));
            assert_eq!(encrypted.tls_clause(), "\r\n\ttls TLS_AES_128_GCM_SHA256");
            let client = if has_user { "192.0.2.1 as ann" } else { "192.0.2.1" };
            assert_eq!(provenance.client(), client);
        }
    }
}
