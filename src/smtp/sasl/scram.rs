//! SCRAM (RFC 5802, RFC 7677): the four messages and what is computed from them, for both
//! sides. There is no channel binding.

use std::str::Split;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use openssl::error::ErrorStack;
use openssl::hash::{MessageDigest, hash};
use openssl::memcmp;
use openssl::pkcs5::pbkdf2_hmac;
use openssl::pkey::PKey;
use openssl::sign::Signer;

use super::keys::{ScramHash, ScramKeys};

/// The longest nonce of the other side, in octets. 20 to 50 are usual, and it comes back in the
/// next message.
const MAX_NONCE: usize = 1024;

impl ScramHash {
    pub(super) fn digest(self) -> MessageDigest {
        match self {
            Self::Sha256 => MessageDigest::sha256(),
            Self::Sha1 => MessageDigest::sha1(),
        }
    }

    fn hash(self, octets: &[u8]) -> Result<Vec<u8>, ErrorStack> {
        hash(self.digest(), octets).map(|digest| digest.to_vec())
    }

    fn hmac(self, key: &[u8], octets: &[u8]) -> Result<Vec<u8>, ErrorStack> {
        let key = PKey::hmac(key)?;
        Signer::new(self.digest(), &key)?.sign_oneshot_to_vec(octets)
    }
}

/// What follows from a password (RFC 5802 §3).
pub(super) struct Secrets {
    client_key: Vec<u8>,
    pub(super) stored_key: Vec<u8>,
    pub(super) server_key: Vec<u8>,
}

/// Computes the keys of a prepared password: the one step that takes its time.
pub(super) fn secrets(
    hash: ScramHash,
    password: &str,
    salt: &[u8],
    iterations: u32,
) -> Result<Secrets, ErrorStack> {
    let mut salted = vec![0; hash.digest().size()];
    pbkdf2_hmac(password.as_bytes(), salt, iterations as usize, hash.digest(), &mut salted)?;
    let client_key = hash.hmac(&salted, b"Client Key")?;
    let stored_key = hash.hash(&client_key)?;
    let server_key = hash.hmac(&salted, b"Server Key")?;
    Ok(Secrets { client_key, stored_key, server_key })
}

impl Secrets {
    /// The client's proof of what both sides said, and the server's signature under it.
    pub(super) fn sign(
        &self,
        hash: ScramHash,
        auth_message: &str,
    ) -> Result<(Vec<u8>, Vec<u8>), ErrorStack> {
        let signature = hash.hmac(&self.stored_key, auth_message.as_bytes())?;
        let server_signature = hash.hmac(&self.server_key, auth_message.as_bytes())?;
        Ok((xor(&self.client_key, &signature), server_signature))
    }
}

impl ScramKeys {
    /// The server's signature of what both sides said; `None` where the client's proof is wrong.
    pub(super) fn check(
        &self,
        auth_message: &str,
        proof: &[u8],
    ) -> Result<Option<Vec<u8>>, ErrorStack> {
        let signature = self.hash.hmac(&self.stored_key, auth_message.as_bytes())?;
        let server_signature = self.hash.hmac(&self.server_key, auth_message.as_bytes())?;
        let stored_key = self.hash.hash(&xor(proof, &signature))?;
        let is_right = proof.len() == signature.len() && equal(&stored_key, &self.stored_key);
        Ok(is_right.then_some(server_signature))
    }
}

/// Whether two secrets are equal, in a time that does not tell where they differ.
pub(super) fn equal(left: &[u8], right: &[u8]) -> bool {
    left.len() == right.len() && memcmp::eq(left, right)
}

fn xor(left: &[u8], right: &[u8]) -> Vec<u8> {
    left.iter().zip(right).map(|(left, right)| left ^ right).collect()
}

/// A message is not as RFC 5802 §7 says; what is wrong with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed(pub(super) &'static str);

const MISPLACED: Malformed = Malformed("an attribute is missing or in the wrong place");
const MANDATORY: Malformed = Malformed("it wants an extension that nobody here knows");
const NOT_TEXT: Malformed = Malformed("it is not UTF-8");
const NOT_BASE64: Malformed = Malformed("it has something else where base64 belongs");
const NO_NONCE: Malformed = Malformed("its nonce is missing, too long or not printable");

/// The attributes of a message, one after the other.
struct Attributes<'a>(Split<'a, char>);

impl<'a> Attributes<'a> {
    /// # Errors
    /// An extension without which the message means something else (RFC 5802 §5.1, `m`).
    fn of(message: &'a str) -> Result<Self, Malformed> {
        let attributes = message.split(',');
        let is_extended = attributes.clone().any(|attribute| attribute.starts_with("m="));
        if is_extended { Err(MANDATORY) } else { Ok(Self(attributes)) }
    }

    /// The value of the next attribute, which has to be `name`.
    fn take(&mut self, name: char) -> Result<&'a str, Malformed> {
        let attribute = self.0.next().ok_or(MISPLACED)?;
        match attribute.strip_prefix(name).and_then(|rest| rest.strip_prefix('=')) {
            Some(value) => Ok(value),
            None => Err(MISPLACED),
        }
    }

    fn nonce(&mut self) -> Result<&'a str, Malformed> {
        let nonce = self.take('r')?;
        let is_good = (1..=MAX_NONCE).contains(&nonce.len())
            && nonce.bytes().all(|octet| octet.is_ascii_graphic());
        if is_good { Ok(nonce) } else { Err(NO_NONCE) }
    }

    fn octets(&mut self, name: char) -> Result<Vec<u8>, Malformed> {
        STANDARD.decode(self.take(name)?).map_err(|_| NOT_BASE64)
    }
}

fn text(message: &[u8]) -> Result<&str, Malformed> {
    std::str::from_utf8(message).map_err(|_| NOT_TEXT)
}

/// `client-first-message`.
pub(super) struct ClientFirst<'a> {
    /// What `c=` of the next message has to repeat.
    pub(super) gs2_header: &'a str,
    pub(super) bare: &'a str,
    /// Whom the client wants to be, where it says so.
    pub(super) authorization: Option<String>,
    pub(super) user: String,
    pub(super) nonce: &'a str,
}

impl<'a> ClientFirst<'a> {
    pub(super) fn parse(message: &'a [u8]) -> Result<Self, Malformed> {
        let message = text(message)?;
        let mut parts = message.splitn(3, ',');
        let (Some(flag), Some(authorization), Some(bare)) =
            (parts.next(), parts.next(), parts.next())
        else {
            return Err(MISPLACED);
        };
        // `y` is a client that could bind and thinks that we cannot, which is so; one that
        // insists on it (`p=`) has chosen another mechanism than the one that is offered.
        if flag != "n" && flag != "y" {
            return Err(Malformed("it wants channel binding"));
        }
        let authorization = match authorization {
            "" => None,
            _ => Some(name(authorization.strip_prefix("a=").ok_or(MISPLACED)?)?),
        };
        let mut attributes = Attributes::of(bare)?;
        let user = name(attributes.take('n')?)?;
        let nonce = attributes.nonce()?;
        let gs2_header = &message[..message.len() - bare.len()];
        Ok(Self { gs2_header, bare, authorization, user, nonce })
    }
}

/// `server-first-message`.
pub(super) struct ServerFirst<'a> {
    pub(super) nonce: &'a str,
    pub(super) salt: Vec<u8>,
    pub(super) iterations: u32,
}

impl<'a> ServerFirst<'a> {
    pub(super) fn parse(message: &'a [u8]) -> Result<(Self, &'a str), Malformed> {
        let message = text(message)?;
        let mut attributes = Attributes::of(message)?;
        let nonce = attributes.nonce()?;
        let salt = attributes.octets('s')?;
        let iterations =
            number(attributes.take('i')?).ok_or(Malformed("its number of iterations is none"))?;
        Ok((Self { nonce, salt, iterations }, message))
    }

    pub(super) fn write(nonce: &str, keys: &ScramKeys) -> String {
        format!("r={nonce},s={},i={}", STANDARD.encode(&keys.salt), keys.iterations)
    }
}

/// `client-final-message`.
pub(super) struct ClientFinal<'a> {
    /// The header of the first message, again.
    pub(super) gs2_header: Vec<u8>,
    pub(super) nonce: &'a str,
    pub(super) without_proof: &'a str,
    pub(super) proof: Vec<u8>,
}

impl<'a> ClientFinal<'a> {
    pub(super) fn parse(message: &'a [u8]) -> Result<Self, Malformed> {
        let message = text(message)?;
        let (without_proof, proof) = message.rsplit_once(",p=").ok_or(MISPLACED)?;
        let mut attributes = Attributes::of(without_proof)?;
        let gs2_header = attributes.octets('c')?;
        let nonce = attributes.nonce()?;
        let proof = STANDARD.decode(proof).map_err(|_| NOT_BASE64)?;
        Ok(Self { gs2_header, nonce, without_proof, proof })
    }

    pub(super) fn without_proof(gs2_header: &str, nonce: &str) -> String {
        format!("c={},r={nonce}", STANDARD.encode(gs2_header))
    }

    pub(super) fn write(without_proof: &str, proof: &[u8]) -> String {
        format!("{without_proof},p={}", STANDARD.encode(proof))
    }
}

/// `server-final-message`.
pub(super) enum ServerFinal<'a> {
    Verifier(Vec<u8>),
    /// The server's word for what is wrong.
    Error(&'a str),
}

impl<'a> ServerFinal<'a> {
    pub(super) fn parse(message: &'a [u8]) -> Result<Self, Malformed> {
        let message = text(message)?;
        let mut attributes = Attributes::of(message)?;
        if message.starts_with("e=") {
            return attributes.take('e').map(Self::Error);
        }
        attributes.octets('v').map(Self::Verifier)
    }
}

/// What both sides sign.
pub(super) fn auth_message(client_first: &str, server_first: &str, without_proof: &str) -> String {
    format!("{client_first},{server_first},{without_proof}")
}

/// A name as `saslname`.
pub(super) fn saslname(name: &str) -> String {
    name.replace('=', "=3D").replace(',', "=2C")
}

fn name(saslname: &str) -> Result<String, Malformed> {
    let mut pieces = saslname.split('=');
    let mut name = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let (code, rest) = piece.split_at_checked(2).ok_or(MISPLACED)?;
        name.push(match code {
            "2C" => ',',
            "3D" => '=',
            _ => return Err(Malformed("its name has `=` where `=3D` belongs")),
        });
        name.push_str(rest);
    }
    Ok(name)
}

/// A `posit-number`.
pub(super) fn number(text: &str) -> Option<u32> {
    let is_number = text.bytes().all(|digit| digit.is_ascii_digit()) && !text.starts_with('0');
    text.parse().ok().filter(|_| is_number)
}
