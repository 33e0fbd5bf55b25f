//! Which TLS was agreed upon, read from the server's first words, which are never encrypted
//! (RFC 5246 §7.4.1.3, RFC 8446 §4.1.3): native-tls does not tell.

use std::fmt;

/// The most octets of the server's first words that are kept to be read.
pub const MAX_OCTETS: usize = 512;

/// The content type of a record with a handshake in it (RFC 8446 §5.1).
const HANDSHAKE: u8 = 22;
/// The type of a handshake message that is a ServerHello.
const SERVER_HELLO: u8 = 2;
/// The extension with the version, from TLS 1.3 on (RFC 8446 §4.2.1).
const SUPPORTED_VERSIONS: u16 = 43;

/// What the server chose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerHello {
    version: u16,
    cipher_suite: u16,
}

impl ServerHello {
    /// Reads it from the beginning of what the server sent; `None` where it is not there as a
    /// whole, or is in more than one record, which no server does.
    pub fn read(octets: &[u8]) -> Option<Self> {
        let mut rest = octets;
        let (kind, _version, _length) = (byte(&mut rest)?, number(&mut rest)?, number(&mut rest)?);
        let (message, &[_, high, low]) = (byte(&mut rest)?, take(&mut rest, 3)?) else {
            return None;
        };
        if kind != HANDSHAKE || message != SERVER_HELLO {
            return None;
        }
        // The record may go on with other messages.
        let mut rest = take(&mut rest, u16::from_be_bytes([high, low]).into())?;
        let (mut version, _random) = (number(&mut rest)?, take(&mut rest, 32)?);
        let session_id = byte(&mut rest)?;
        take(&mut rest, session_id.into())?;
        let (cipher_suite, _compression) = (number(&mut rest)?, byte(&mut rest)?);
        // Before TLS 1.3 there need not be any extension. They go on to the end.
        let _length = number(&mut rest);
        while let Some((extension, content)) = next_extension(&mut rest) {
            if let (SUPPORTED_VERSIONS, &[high, low]) = (extension, content) {
                version = u16::from_be_bytes([high, low]);
            }
        }
        Some(Self { version, cipher_suite })
    }

    /// The version, such as `TLSv1.3`.
    pub const fn version(self) -> &'static str {
        match self.version {
            0x0304 => "TLSv1.3",
            0x0303 => "TLSv1.2",
            0x0302 => "TLSv1.1",
            0x0301 => "TLSv1",
            _ => "TLS",
        }
    }
}

/// With the number of the cipher suite in IANA's registry.
impl fmt::Display for ServerHello {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, cipher suite 0x{:04X}", self.version(), self.cipher_suite)
    }
}

fn next_extension<'a>(rest: &mut &'a [u8]) -> Option<(u16, &'a [u8])> {
    let (kind, length) = (number(rest)?, number(rest)?);
    Some((kind, take(rest, length.into())?))
}

fn byte(rest: &mut &[u8]) -> Option<u8> {
    take(rest, 1)?.first().copied()
}

fn number(rest: &mut &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes(take(rest, 2)?.try_into().ok()?))
}

fn take<'a>(rest: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(count)?;
    *rest = left;
    Some(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A ServerHello with that version in its old place and these extensions.
    fn hello(version: u16, extensions: &[u8]) -> Vec<u8> {
        let body =
            [&version.to_be_bytes()[..], &[7; 32], &[4, 1, 2, 3, 4], &[0x13, 0x02, 0], extensions]
                .concat();
        let length = body.len() as u8;
        let record = [22, 3, 3, 0, length + 4, 2, 0, 0, length];
        [&record[..], &body].concat()
    }

    fn version(octets: &[u8]) -> Option<&'static str> {
        ServerHello::read(octets).map(ServerHello::version)
    }

    #[test]
    fn the_version_is_where_that_version_has_it() {
        let plain: &[u8] = &[0, 5, 0xff, 1, 0, 1, 0];
        let newer: &[u8] = &[0, 11, 0xff, 1, 0, 1, 0, 0, 43, 0, 2, 3, 4];
        for (octets, expected) in [
            (hello(0x0303, newer), "TLSv1.3"),
            (hello(0x0303, plain), "TLSv1.2"),
            (hello(0x0302, plain), "TLSv1.1"),
            (hello(0x0301, &[]), "TLSv1"),
            (hello(0x0505, &[]), "TLS"),
            // The certificate follows in the same record.
            ([hello(0x0303, plain), vec![11, 0, 0, 43, 0, 2, 3, 4]].concat(), "TLSv1.2"),
        ] {
            assert_eq!(version(&octets), Some(expected));
        }
        let read = ServerHello::read(&hello(0x0303, newer)).unwrap();
        assert_eq!(read.to_string(), "TLSv1.3, cipher suite 0x1302");
    }

    #[test]
    fn what_is_cut_off_or_no_hello_is_nothing() {
        let whole = hello(0x0303, &[]);
        for length in 0..whole.len() {
            assert_eq!(version(&whole[..length]), None, "{length}");
        }
        for octet in 0..=u8::MAX {
            assert_eq!(version(&[octet; MAX_OCTETS]), None);
        }
        assert_eq!(version(b"220 plain.test ESMTP\r\n"), None);
    }
}
