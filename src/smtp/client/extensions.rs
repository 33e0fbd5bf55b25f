//! What a server can do beyond RFC 5321.

use crate::smtp::reply_parser::PeerReply;

/// What the server offered in its answer to EHLO (RFC 5321 §4.1.1.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Extensions {
    pub(super) start_tls: bool,
    pub(super) pipelining: bool,
    pub(super) eight_bit_mime: bool,
    pub(super) size: bool,
    pub(super) dsn: bool,
    /// The most octets of a message; `None` where the server names no limit.
    pub(super) limit_octets: Option<u64>,
}

impl Extensions {
    /// Reads the lines behind the first one, which is the greeting.
    pub(super) fn offered_in(reply: &PeerReply) -> Self {
        let mut extensions = Self::default();
        for line in reply.lines().iter().skip(1) {
            let (keyword, parameter) = line.split_once(' ').unwrap_or((line, ""));
            match keyword.to_ascii_uppercase().as_str() {
                "STARTTLS" => extensions.start_tls = true,
                "PIPELINING" => extensions.pipelining = true,
                "8BITMIME" => extensions.eight_bit_mime = true,
                "DSN" => extensions.dsn = true,
                "SIZE" => {
                    extensions.size = true;
                    // RFC 1870 §4: 0, or nothing, is no fixed limit.
                    let limit = parameter.trim().parse().ok();
                    extensions.limit_octets = limit.filter(|&limit| limit > 0);
                }
                _ => {}
            }
        }
        extensions
    }
}
