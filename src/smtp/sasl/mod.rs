//! SASL mechanisms (RFC 4422) as SMTP carries them (RFC 4954): what goes over the wire, with no
//! socket and no account in it. Octets in, octets out: base64 and lines are left to the SMTP
//! machines, random numbers and accounts come from outside.
//!
//! [`server::Exchange`] is one login as the server sees it, [`client::ClientExchange`] as the
//! client does, and [`keys`] is what a server keeps instead of a password.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

pub mod client;
pub mod keys;
mod md5;
pub mod prepare;
mod scram;
pub mod server;

/// The longest name or password, in octets.
pub const MAX_SECRET: usize = 1024;

/// The longest token, in octets: what fits into a line of 12288 in base64, with the rest of the
/// response.
pub const MAX_TOKEN: usize = 6144;

/// What makes one exchange different from every other: random printable characters.
#[derive(Clone, PartialEq, Eq)]
pub struct Nonce(String);

impl Nonce {
    /// A nonce of octets that nobody can guess.
    pub fn new(random: &[u8; 18]) -> Self {
        Self(STANDARD.encode(random))
    }
}

/// It is no secret once it was sent, and of no use to a reader.
impl fmt::Debug for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Nonce")
    }
}

/// A way to log in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mechanism {
    /// Who it is is known from outside (RFC 4422 appendix A): the account at the other end of a
    /// Unix socket.
    External,
    /// Neither side tells the password (RFC 7677).
    ScramSha256,
    /// The same with SHA-1 (RFC 5802).
    ScramSha1,
    /// A keyed MD5 of a challenge (RFC 2195).
    CramMd5,
    /// Name and password in one response (RFC 4616).
    Plain,
    /// Name and password in two responses; never a standard, and spoken by everybody.
    Login,
    /// A bearer token (RFC 7628).
    OauthBearer,
    /// The same, as Google did it first.
    Xoauth2,
}

impl Mechanism {
    /// Those that `[auth] mechanisms` may name.
    pub const OF_LISTENERS: [Self; 5] =
        [Self::ScramSha256, Self::ScramSha1, Self::CramMd5, Self::Plain, Self::Login];

    /// Those that a client may use, the best first.
    pub const OF_CLIENTS: [Self; 7] = [
        Self::ScramSha256,
        Self::ScramSha1,
        Self::OauthBearer,
        Self::Xoauth2,
        Self::CramMd5,
        Self::Plain,
        Self::Login,
    ];

    const ALL: [Self; 8] = [
        Self::External,
        Self::ScramSha256,
        Self::ScramSha1,
        Self::CramMd5,
        Self::Plain,
        Self::Login,
        Self::OauthBearer,
        Self::Xoauth2,
    ];

    /// The name as EHLO and AUTH have it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::External => "EXTERNAL",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha1 => "SCRAM-SHA-1",
            Self::CramMd5 => "CRAM-MD5",
            Self::Plain => "PLAIN",
            Self::Login => "LOGIN",
            Self::OauthBearer => "OAUTHBEARER",
            Self::Xoauth2 => "XOAUTH2",
        }
    }

    /// Whether what the client says is another each time, and hides the password it was made of.
    pub const fn hides_password(self) -> bool {
        matches!(self, Self::ScramSha256 | Self::ScramSha1 | Self::CramMd5)
    }

    /// The mechanism of that name, in any case.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mechanism| mechanism.name().eq_ignore_ascii_case(name))
    }
}

impl fmt::Display for Mechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests;
