//! Certificates for tests: an authority, one below it, and what they sign.

use std::fs;
use std::path::Path;

use openssl::asn1::{Asn1Object, Asn1OctetString, Asn1Time};
use openssl::bn::{BigNum, MsbOption};
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::x509::extension::{BasicConstraints, SubjectAlternativeName};
use openssl::x509::{X509, X509Extension, X509Name};

/// The kind of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Ec,
    Rsa,
}

/// A certificate, its key, and the certificate that signed it.
#[derive(Clone)]
pub(crate) struct Identity {
    pub(crate) certificate: X509,
    pub(crate) key: PKey<Private>,
    above: Vec<X509>,
}

/// What a certificate is to say.
pub(crate) struct Wish<'a> {
    pub(crate) host: &'a str,
    pub(crate) kind: Kind,
    /// From and to so many seconds from now.
    pub(crate) seconds: (i64, i64),
    /// Whether it says where the certificate above it can be had.
    pub(crate) names_issuer: bool,
}

/// An authorityInfoAccess with caIssuers (RFC 5280 §4.2.2.1), DER.
const ISSUER_AT: &[u8] =
    b"\x30\x1a\x30\x18\x06\x08\x2b\x06\x01\x05\x05\x07\x30\x02\x86\x0chttp://a.tes";

impl<'a> Wish<'a> {
    pub(crate) const fn new(host: &'a str) -> Self {
        Self { host, kind: Kind::Ec, seconds: (-86_400, 86_400 * 90), names_issuer: false }
    }

    pub(crate) fn of(self, kind: Kind) -> Self {
        Self { kind, ..self }
    }

    pub(crate) fn valid(self, from: i64, to: i64) -> Self {
        Self { seconds: (from, to), ..self }
    }

    pub(crate) fn naming_its_issuer(self) -> Self {
        Self { names_issuer: true, ..self }
    }

    /// The certificate, signed by itself.
    pub(crate) fn alone(&self) -> Identity {
        self.make(None)
    }

    fn make(&self, issuer: Option<&Identity>) -> Identity {
        let key = match self.kind {
            Kind::Rsa => PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap(),
            Kind::Ec => {
                let curve = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
                PKey::from_ec_key(EcKey::generate(&curve).unwrap()).unwrap()
            }
        };
        let mut name = X509Name::builder().unwrap();
        name.append_entry_by_nid(Nid::COMMONNAME, self.host).unwrap();
        let name = name.build();
        let mut builder = X509::builder().unwrap();
        builder.set_version(2).unwrap();
        let mut serial = BigNum::new().unwrap();
        serial.rand(64, MsbOption::ONE, false).unwrap();
        builder.set_serial_number(&serial.to_asn1_integer().unwrap()).unwrap();
        builder.set_subject_name(&name).unwrap();
        let issuer_name = issuer.map_or(&*name, |issuer| issuer.certificate.subject_name());
        builder.set_issuer_name(issuer_name).unwrap();
        builder.set_pubkey(&key).unwrap();
        builder.set_not_before(&in_seconds(self.seconds.0)).unwrap();
        builder.set_not_after(&in_seconds(self.seconds.1)).unwrap();
        let mut alternative = SubjectAlternativeName::new();
        let alternative = alternative.dns(self.host);
        let alternative = alternative.build(&builder.x509v3_context(None, None)).unwrap();
        builder.append_extension(alternative).unwrap();
        if self.host.ends_with("authority.test") {
            builder
                .append_extension(BasicConstraints::new().critical().ca().build().unwrap())
                .unwrap();
        }
        if self.names_issuer {
            let name = Asn1Object::from_str("authorityInfoAccess").unwrap();
            let value = Asn1OctetString::new_from_bytes(ISSUER_AT).unwrap();
            let extension = X509Extension::new_from_der(&name, false, &value).unwrap();
            builder.append_extension(extension).unwrap();
        }
        let signer = issuer.map_or(&key, |issuer| &issuer.key);
        builder.sign(signer, MessageDigest::sha256()).unwrap();
        let above = issuer.map(|issuer| issuer.certificate.clone()).into_iter().collect();
        Identity { certificate: builder.build(), key, above }
    }
}

impl Identity {
    /// Writes `cert.pem`, the chain included, and `key.pem`.
    pub(crate) fn write(&self, folder: &Path) {
        self.write_certificate(folder);
        self.write_key(folder);
    }

    /// As who takes the file without the chain.
    pub(crate) fn without_chain(self) -> Self {
        Self { above: Vec::new(), ..self }
    }

    pub(crate) fn write_certificate(&self, folder: &Path) {
        let mut pem = self.certificate.to_pem().unwrap();
        for above in &self.above {
            pem.extend(above.to_pem().unwrap());
        }
        replace(&folder.join("cert.pem"), &pem);
    }

    pub(crate) fn write_key(&self, folder: &Path) {
        replace(&folder.join("key.pem"), &self.key.private_key_to_pem_pkcs8().unwrap());
    }
}

/// A root, and what it lets sign.
pub(crate) struct Authority {
    pub(crate) root: Identity,
    between: Identity,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let root = Wish::new("root.authority.test").alone();
        let between = Wish::new("between.authority.test").make(Some(&root));
        Self { root, between }
    }

    /// A certificate that only who gets the chain can check by the root.
    pub(crate) fn sign(&self, wish: &Wish<'_>) -> Identity {
        wish.make(Some(&self.between))
    }
}

/// As programs that renew certificates do it.
fn replace(path: &Path, octets: &[u8]) {
    let draft = path.with_extension("draft");
    fs::write(&draft, octets).unwrap();
    fs::rename(&draft, path).unwrap();
}

fn in_seconds(seconds: i64) -> Asn1Time {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    Asn1Time::from_unix(i64::try_from(now.as_secs()).unwrap() + seconds).unwrap()
}
