//! The certificate that the server makes for itself where it was given none: nobody can check
//! it, but nobody who only listens can read along (RFC 7435).

use std::io::{self, Write};
use std::path::Path;

use openssl::asn1::{Asn1Integer, Asn1Time};
use openssl::bn::{BigNum, MsbOption};
use openssl::ec::{EcGroup, EcKey};
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::x509::extension::{
    BasicConstraints, ExtendedKeyUsage, KeyUsage, SubjectAlternativeName,
};
use openssl::x509::{X509, X509Name};

use crate::mail::address::DomainName;
use crate::sys::clock;
use crate::sys::disk::{Folder, Open};

/// How long it is valid: nobody renews it.
const LIFETIME_SECONDS: u64 = 10 * 366 * 86_400;
/// Where times of 32 bits end.
const LAST_32_BIT: i32 = i32::MAX;
/// Bits of an RSA key.
const RSA_BITS: u32 = 2048;
/// Bits of a serial number; RFC 5280 §4.1.2.2 allows 20 octets.
const SERIAL_BITS: i32 = 127;
/// The longest common name (RFC 5280, ub-common-name).
const MAX_COMMON_NAME: usize = 64;

/// The names of the two files in their folder.
pub(super) const CERTIFICATE: &str = "cert.pem";
/// See [`CERTIFICATE`].
pub(super) const KEY: &str = "key.pem";

/// A certificate and its key, PEM.
pub(super) struct Pems {
    pub(super) certificate: Vec<u8>,
    pub(super) key: Vec<u8>,
}

/// Makes a certificate for `host`: with an RSA key, or one of the elliptic curve P-256, which is
/// faster and which devices of before TLS 1.2 do not know.
///
/// # Errors
/// When OpenSSL fails, as without memory.
pub(super) fn make(host: &DomainName, rsa: bool) -> Result<Pems, ErrorStack> {
    let key = if rsa {
        PKey::from_rsa(Rsa::generate(RSA_BITS)?)?
    } else {
        let curve = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?;
        PKey::from_ec_key(EcKey::generate(&curve)?)?
    };
    let certificate = certificate(&host.to_string(), &key, rsa)?;
    Ok(Pems { certificate: certificate.to_pem()?, key: key.private_key_to_pem_pkcs8()? })
}

fn certificate(host: &str, key: &PKey<Private>, rsa: bool) -> Result<X509, ErrorStack> {
    let mut name = X509Name::builder()?;
    let common = if host.len() <= MAX_COMMON_NAME { host } else { "mailwren" };
    name.append_entry_by_nid(Nid::COMMONNAME, common)?;
    let name = name.build();
    let mut builder = X509::builder()?;
    builder.set_version(2)?;
    let mut serial = BigNum::new()?;
    serial.rand(SERIAL_BITS, MsbOption::ONE, false)?;
    let serial: Asn1Integer = serial.to_asn1_integer()?;
    builder.set_serial_number(&serial)?;
    builder.set_subject_name(&name)?;
    builder.set_issuer_name(&name)?;
    builder.set_pubkey(key)?;
    // A client whose clock was not set takes it, too; and where ours was not, it is still valid
    // when that is.
    builder.set_not_before(&*Asn1Time::from_unix(0)?)?;
    let end = clock::since_1970().as_secs().max(clock::PROGRAM_MADE) + LIFETIME_SECONDS;
    let end = end.try_into().unwrap_or(LAST_32_BIT.into());
    builder.set_not_after(&*Asn1Time::from_unix(end)?)?;
    let alternative =
        SubjectAlternativeName::new().dns(host).build(&builder.x509v3_context(None, None))?;
    builder.append_extension(alternative)?;
    // Whoever trusts it trusts this host alone.
    builder.append_extension(BasicConstraints::new().critical().build()?)?;
    let mut usage = KeyUsage::new();
    usage.critical().digital_signature();
    if rsa {
        usage.key_encipherment();
    }
    builder.append_extension(usage.build()?)?;
    builder.append_extension(ExtendedKeyUsage::new().server_auth().build()?)?;
    builder.sign(key, MessageDigest::sha256())?;
    Ok(builder.build())
}

/// Writes the two files into `folder`, each as a whole or not at all.
///
/// # Errors
/// When the disk fails.
pub(super) fn keep(folder: &Folder, pems: &Pems) -> io::Result<()> {
    // Should the second be missing after a crash, the two do not match, and are made anew.
    for (name, octets) in [(KEY, &pems.key), (CERTIFICATE, &pems.certificate)] {
        let draft = format!("{name}.new");
        let mut file = folder.open(&draft, Open::Anew)?;
        file.write_all(octets)?;
        file.flush_to_disk()?;
        folder.rename(&draft, folder, name)?;
    }
    folder.flush_to_disk()
}

/// Where the two files of `folder` are.
pub(super) fn paths(folder: &Path) -> [std::path::PathBuf; 2] {
    [folder.join(CERTIFICATE), folder.join(KEY)]
}

#[cfg(test)]
mod tests {
    use super::super::certificate::Certificate;
    use super::*;
    use crate::sys::disk::Disk;
    use crate::sys::disk::faults::{FailNth, each_fault};
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn it_is_for_the_host_and_for_long_whatever_the_clock_says() {
        let long = format!("{}.{}.test", "a".repeat(60), "b".repeat(60));
        for (host, rsa) in [("mx.test", false), ("mx.test", true), (&long, false)] {
            let host = host.parse().unwrap();
            let made = make(&host, rsa).unwrap();
            let read = Certificate::from_pem(&made.certificate, &made.key).unwrap();
            assert!(read.names(&host) && !read.names(&"other.test".parse().unwrap()));
            assert_eq!(read.suits_old_devices(), rsa);
            let (begin, end) = read.validity().unwrap();
            assert_eq!(begin, 0);
            let now = i64::try_from(clock::since_1970().as_secs()).unwrap();
            assert!(end > now + 3652 * 86_400, "{end}");
            assert!(end > i64::try_from(clock::PROGRAM_MADE).unwrap() + 3652 * 86_400);
        }
    }

    #[test]
    fn two_are_never_the_same() {
        let host = "mx.test".parse().unwrap();
        let (one, other) = (make(&host, false).unwrap(), make(&host, false).unwrap());
        assert_ne!(one.certificate, other.certificate);
        assert_ne!(one.key, other.key);
    }

    #[test]
    fn a_disk_that_fails_leaves_whole_files() {
        let made = make(&"mx.test".parse().unwrap(), false).unwrap();
        each_fault(FailNth::new, |watcher| {
            let base = tempfile::tempdir().unwrap();
            let keep_them = || {
                let folder = Disk::watched(watcher.clone()).open_folder(base.path())?;
                keep(&folder, &made)
            };
            let result = keep_them();
            assert_eq!(result.is_err(), watcher.failed().is_some());
            let [certificate, key] = paths(base.path());
            for (path, whole) in [(&certificate, &made.certificate), (&key, &made.key)] {
                if let Ok(found) = std::fs::read(path) {
                    assert_eq!(&found, whole);
                    let mode = std::fs::metadata(path).unwrap().permissions().mode();
                    assert_eq!(mode & 0o777, 0o600);
                }
            }
            assert!(result.is_err() || (certificate.exists() && key.exists()));
            result.is_ok()
        });
    }
}
