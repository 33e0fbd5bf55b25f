//! What a certificate's two files say: the chain and the key, whether they belong together, and
//! the context that a handshake needs.

use std::fmt;
use std::sync::OnceLock;

use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{Id, PKey, Private};
use openssl::ssl::SslContext;
use openssl::x509::X509;

use openssl::asn1::{Asn1Time, Asn1TimeRef};

use super::profile;
use crate::config::settings::TlsVersion;
use crate::mail::address::DomainName;

const SECONDS_PER_DAY: i64 = 86_400;

/// A certificate that can be shown: its chain, and the key that belongs to it.
pub struct Certificate {
    chain: Vec<X509>,
    key: PKey<Private>,
    /// One for each version that some listener takes for the oldest; made when it is needed.
    contexts: [OnceLock<SslContext>; 4],
}

/// Which of the two files is to blame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The one with the certificates.
    Certificate,
    /// The one with the key.
    Key,
}

/// Why a certificate cannot be shown: what it is, and what to do, without the file's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unusable {
    /// The file that has to be mended.
    pub part: Part,
    /// One line.
    pub text: String,
}

impl fmt::Debug for Certificate {
    /// Tells nothing of the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate").field("fingerprint", &self.fingerprint()).finish()
    }
}

impl Certificate {
    /// Reads the two files' octets: PEM, the server's own certificate first, the key in any
    /// form that OpenSSL knows, but without a passphrase.
    ///
    /// # Errors
    /// When they cannot be used, for a person to mend.
    pub fn from_pem(certificate: &[u8], key: &[u8]) -> Result<Self, Unusable> {
        let chain = read_chain(certificate)?;
        let key = read_key(key)?;
        match chain.iter().position(|certificate| is_its_key(certificate, &key)) {
            Some(0) => {}
            Some(_) => {
                return Err(of_certificate(
                    "its certificates are in the wrong order; put the server's own first".into(),
                ));
            }
            None => {
                return Err(Unusable {
                    part: Part::Key,
                    text: "it does not match the certificate; give the key that the certificate \
                           was made for"
                        .into(),
                });
            }
        }
        let usable = Self { chain, key, contexts: Default::default() };
        // Keys that are too short are found here.
        usable.context(TlsVersion::V1_2)?;
        Ok(usable)
    }

    /// The context for handshakes that take no version older than `minimum`.
    ///
    /// # Errors
    /// When OpenSSL finds the certificate too weak.
    pub fn context(&self, minimum: TlsVersion) -> Result<SslContext, Unusable> {
        let place = &self.contexts[minimum as usize];
        if let Some(context) = place.get() {
            return Ok(context.clone());
        }
        let made = profile::context(minimum, &self.chain, &self.key).map_err(|error| {
            of_certificate(format!("OpenSSL refuses it: {}; get a new one", in_words(&error)))
        })?;
        Ok(place.get_or_init(|| made).clone())
    }

    /// Its SHA-256 in hexadecimal digits, as people compare it.
    pub fn fingerprint(&self) -> String {
        let digest = self.own().and_then(|own| own.digest(MessageDigest::sha256()).ok());
        let octets = digest.iter().flat_map(|digest| digest.iter());
        let pairs: Vec<_> = octets.map(|octet| format!("{octet:02x}")).collect();
        pairs.join(":")
    }

    /// From when on and until when it is valid, in seconds since 1970; `None` where it does not
    /// say so in a way that can be read.
    pub fn validity(&self) -> Option<(i64, i64)> {
        let own = self.own()?;
        Some((seconds(own.not_before())?, seconds(own.not_after())?))
    }

    /// Whether it is for this host: one of its alternative names is, a `*` standing for the
    /// first label (RFC 6125 §6.4). Where it has none, its common name counts.
    pub fn names(&self, host: &DomainName) -> bool {
        let Some(own) = self.own() else { return false };
        let host = host.to_string().to_ascii_lowercase();
        let alternatives = own.subject_alt_names();
        let names: Vec<_> =
            alternatives.iter().flatten().filter_map(|name| name.dnsname()).collect();
        if !names.is_empty() {
            return names.iter().any(|name| is_name_for(name, &host));
        }
        let common = own.subject_name().entries_by_nid(Nid::COMMONNAME);
        let common = common.filter_map(|entry| entry.data().to_string().ok());
        common.into_iter().any(|name| is_name_for(&name, &host))
    }

    /// Whether its key is one that devices of before TLS 1.2 know.
    pub fn suits_old_devices(&self) -> bool {
        self.key.id() == Id::RSA
    }

    /// Whether it stands alone though its authority says where the one above it can be had, as
    /// public authorities do: whoever knows their roots alone does not trust it then.
    pub fn lacks_chain(&self) -> bool {
        let Some(own) = self.own() else { return false };
        let names_issuer = || {
            let places = own.authority_info();
            places.iter().flatten().any(|place| place.method().nid() == Nid::AD_CA_ISSUERS)
        };
        self.chain.len() == 1 && names_issuer()
    }

    fn own(&self) -> Option<&X509> {
        self.chain.first()
    }
}

impl Unusable {
    /// The text with the name of the file in front.
    pub fn of_file(&self, file: &std::path::Path) -> String {
        format!("{}: {}", file.display(), self.text)
    }
}

fn of_certificate(text: String) -> Unusable {
    Unusable { part: Part::Certificate, text }
}

fn read_chain(pem: &[u8]) -> Result<Vec<X509>, Unusable> {
    match X509::stack_from_pem(pem) {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        Ok(_) if is_der(pem) => Err(of_certificate(
            "it is DER; turn it into PEM with `openssl x509 -inform der`".into(),
        )),
        Ok(_) => Err(of_certificate(
            "there is no certificate in it; give one in PEM, its chain behind it".into(),
        )),
        Err(error) => Err(of_certificate(format!(
            "a certificate in it is damaged ({}); write the file anew",
            in_words(&error)
        ))),
    }
}

fn read_key(pem: &[u8]) -> Result<PKey<Private>, Unusable> {
    let unusable = |text: &str| Unusable { part: Part::Key, text: text.into() };
    // Without a call-back OpenSSL would ask the terminal.
    match PKey::private_key_from_pem_callback(pem, |_| Ok(0)) {
        Ok(key) => Ok(key),
        Err(_) if contains(pem, b"ENCRYPTED") => Err(unusable(
            "it has a passphrase, which nobody types at a start; write it without one with \
             `openssl pkey`",
        )),
        Err(_) if is_der(pem) => {
            Err(unusable("it is DER; turn it into PEM with `openssl pkey -inform der`"))
        }
        Err(_) if contains(pem, b"PRIVATE KEY-----") => {
            Err(unusable("the key in it is damaged; write the file anew"))
        }
        Err(_) => Err(unusable("there is no private key in it; give the certificate's, in PEM")),
    }
}

fn is_its_key(certificate: &X509, key: &PKey<Private>) -> bool {
    certificate.public_key().is_ok_and(|public| public.public_eq(key))
}

/// A sequence, with which all DER of certificates and keys begins.
fn is_der(octets: &[u8]) -> bool {
    octets.first() == Some(&0x30)
}

fn contains(octets: &[u8], text: &[u8]) -> bool {
    memchr::memmem::find(octets, text).is_some()
}

/// What OpenSSL says first.
fn in_words(errors: &ErrorStack) -> &'static str {
    errors.errors().first().and_then(openssl::error::Error::reason).unwrap_or("no reason given")
}

fn seconds(time: &Asn1TimeRef) -> Option<i64> {
    let since = Asn1Time::from_unix(0).ok()?.diff(time).ok()?;
    Some(i64::from(since.days) * SECONDS_PER_DAY + i64::from(since.secs))
}

/// Whether `pattern` of a certificate stands for `host`, which is in small letters.
fn is_name_for(pattern: &str, host: &str) -> bool {
    let pattern = pattern.trim_end_matches('.').to_ascii_lowercase();
    match pattern.strip_prefix("*.") {
        Some(parent) => host.split_once('.').is_some_and(|(_, rest)| rest == parent),
        None => pattern == host,
    }
}

#[cfg(test)]
mod tests {
    use super::super::self_signed;
    use super::*;

    fn made(rsa: bool) -> (Vec<u8>, Vec<u8>) {
        let made = self_signed::make(&"mx.test".parse().unwrap(), rsa).unwrap();
        (made.certificate, made.key)
    }

    fn refusal(certificate: &[u8], key: &[u8]) -> (Part, String) {
        let Unusable { part, text } = Certificate::from_pem(certificate, key).unwrap_err();
        (part, text)
    }

    #[test]
    fn any_form_of_the_key_is_read() {
        for rsa in [false, true] {
            let (certificate, pem) = made(rsa);
            let key = PKey::private_key_from_pem(&pem).unwrap();
            let of_its_type = match rsa {
                true => key.rsa().unwrap().private_key_to_pem().unwrap(),
                false => {
                    // What `openssl ecparam -genkey` writes has the parameters in front.
                    let mut both = b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n\
                                     -----END EC PARAMETERS-----\n"
                        .to_vec();
                    both.extend(key.ec_key().unwrap().private_key_to_pem().unwrap());
                    both
                }
            };
            let both = [&certificate[..], &pem].concat();
            for key in [&pem, &of_its_type, &both] {
                let read = Certificate::from_pem(&certificate, key).unwrap();
                assert_eq!(read.suits_old_devices(), rsa);
            }
        }
    }

    #[test]
    fn what_cannot_be_used_is_said() {
        let ((certificate, key), (other, other_key)) = (made(false), made(false));
        let check = |certificate: &[u8], key: &[u8], part: Part, words: &str| {
            let (found, text) = refusal(certificate, key);
            assert_eq!(found, part, "{text}");
            assert!(text.contains(words), "{words}: {text}");
        };
        check(&certificate, &other_key, Part::Key, "does not match");
        check(b"", &key, Part::Certificate, "no certificate");
        check(&key, &key, Part::Certificate, "no certificate");
        check(&certificate, b"", Part::Key, "no private key");
        check(&certificate, &certificate, Part::Key, "no private key");
        check(&certificate[..certificate.len() / 2], &key, Part::Certificate, "; ");
        check(&certificate, &key[..key.len() / 2], Part::Key, "damaged");
        check(&[&other[..], &certificate].concat(), &key, Part::Certificate, "wrong order");
        check(b"0\x82\x01", &key, Part::Certificate, "is DER");
        check(&certificate, b"0\x82\x01", Part::Key, "is DER");
        let cipher = openssl::symm::Cipher::aes_256_cbc();
        let locked = PKey::private_key_from_pem(&key).unwrap();
        let locked = locked.private_key_to_pem_pkcs8_passphrase(cipher, b"secret").unwrap();
        check(&certificate, &locked, Part::Key, "passphrase");
    }

    #[test]
    fn no_octets_make_it_panic() {
        let (certificate, key) = made(false);
        for end in 0..certificate.len() {
            let _ = Certificate::from_pem(&certificate[..end], &key);
        }
        for end in 0..key.len() {
            let _ = Certificate::from_pem(&certificate, &key[..end]);
        }
    }

    #[test]
    fn a_name_stands_for_its_host_alone() {
        for (pattern, host, is_for) in [
            ("mx.test", "mx.test", true),
            ("MX.Test.", "mx.test", true),
            ("*.test", "mx.test", true),
            ("*.test", "a.mx.test", false),
            ("*.mx.test", "mx.test", false),
            ("test", "mx.test", false),
            ("*", "mx", false),
            ("", "mx.test", false),
        ] {
            assert_eq!(is_name_for(pattern, host), is_for, "{pattern} {host}");
        }
    }

    #[test]
    fn the_debug_form_has_no_key() {
        let (certificate, key) = made(false);
        let read = Certificate::from_pem(&certificate, &key).unwrap();
        let text = format!("{read:?}");
        assert!(text.contains(&read.fingerprint()) && text.len() < 140, "{text}");
        assert_eq!(read.fingerprint().len(), 95);
    }
}
