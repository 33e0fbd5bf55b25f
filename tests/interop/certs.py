"""Certificates as people have them: good ones, expired ones, ones for another name, ones that
nobody signed. openssl(1) makes them, in the test's own folder."""

import hashlib
import ssl
from pathlib import Path

from harness import program, run

KINDS = {
    "ec": ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
    "rsa": ["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
}
LEAF = """basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature, keyEncipherment
extendedKeyUsage = serverAuth
subjectAltName = {names}
"""
ISSUER = """basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
"""


class Pair:
    """A certificate, with its chain, and its key: two PEM files."""

    def __init__(self, certificate, key):
        self.certificate, self.key = Path(certificate), Path(key)

    def fingerprint(self):
        """SHA-256 of the server's own certificate, in hexadecimal."""
        first = self.certificate.read_text().split("-----END")[0] + "-----END CERTIFICATE-----\n"
        return hashlib.sha256(ssl.PEM_cert_to_DER_cert(first)).hexdigest()


class Authority:
    """A certificate authority in a folder, with one intermediate."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.folder.mkdir(exist_ok=True)
        self.count = 0
        self.root = self.make("Test Root", ISSUER, None, "ec", days=3650)
        self.middle = self.make("Test Intermediate", ISSUER, self.root, "ec", days=3650)

    @property
    def ca(self):
        """The file of the root, for who trusts it."""
        return self.root.certificate

    def issue(self, *names, kind="ec", expired=False, by_intermediate=False, days=30):
        """A certificate for DNS names and IP addresses."""
        issuer = self.middle if by_intermediate else self.root
        pair = self.make(names[0], LEAF.format(names=alternatives(names)), issuer, kind,
                         expired=expired, days=days)
        if by_intermediate:
            with pair.certificate.open("a") as file:
                file.write(self.middle.certificate.read_text())
        return pair

    def self_signed(self, *names, kind="ec"):
        """A certificate that nobody else signed."""
        return self.make(names[0], LEAF.format(names=alternatives(names)), None, kind)

    def four(self, name):
        """One certificate of each sort that a provider may show, by the sort's name."""
        return {
            "good": self.issue(name, by_intermediate=True),
            "expired": self.issue(name, expired=True),
            "wrong name": self.issue("other.test"),
            "self-signed": self.self_signed(name),
        }

    def make(self, name, extensions, issuer, kind, expired=False, days=30):
        """A key, a request and a certificate, signed by `issuer` or by itself."""
        self.count += 1
        stem = self.folder / f"{self.count}"
        key, request, certificate, file = (
            stem.with_suffix(suffix) for suffix in (".key", ".csr", ".pem", ".ext"))
        openssl = program("openssl")
        run([openssl, "genpkey", *KINDS[kind], "-out", key])
        run([openssl, "req", "-new", "-key", key, "-subj", f"/CN={name}", "-out", request])
        file.write_text(extensions)
        signer = ["-signkey", key] if issuer is None else \
            ["-CA", issuer.certificate, "-CAkey", issuer.key]
        # A serial of its own, so that two of one issuer are never taken for the same.
        sign = [openssl, "x509", "-req", "-in", request, "-out", certificate, "-sha256",
                "-days", days, "-set_serial", 1000 + self.count, "-extfile", file, *signer]
        run([program("faketime"), "100 days ago", *sign] if expired else sign)
        key.chmod(0o600)
        return Pair(certificate, key)


def alternatives(names):
    """The subjectAltName of names and addresses."""
    return ", ".join(("IP:" if n.replace(".", "").isdigit() or ":" in n else "DNS:") + n
                     for n in names)
