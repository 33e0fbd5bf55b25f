"""What the listeners show those who look: versions, ciphers, certificates (RFC 3207, RFC 8314,
RFC 9325)."""

import os
import signal
import ssl
import subprocess
import xml.etree.ElementTree as xml

import clients
from accounts import Accounts, plain, secure, seen_certificate
from harness import Client, Closed, Server, binary, program, run, smarthost, wait_for

# What sslscan tells apart; the ciphers of the Mozilla list for TLS 1.2 begin with these.
MODERN = ("TLS_", "ECDHE-", "DHE-")
WEAK = ("NULL", "anon", "EXP", "RC4", "DES", "MD5", "CBC", "SEED", "IDEA")


def scan(port, starttls):
    """What sslscan finds: the versions that are spoken, the ciphers, and the whole report."""
    kind = ["--starttls-smtp"] if starttls else []
    printed = run([program("sslscan"), "--no-colour", "--xml=-", *kind, f"localhost:{port}"],
                  timeout=120)
    report = xml.fromstring(printed[printed.index("<?xml"):]).find("ssltest")
    assert report is not None, printed
    versions = {f"{p.get('type')} {p.get('version')}" for p in report.iter("protocol")
                if p.get("enabled") == "1"}
    return versions, [(c.get("sslversion"), c.get("cipher")) for c in report.iter("cipher")], report


def test_sslscan():
    """sslscan finds nothing below TLS 1.2, no weak cipher, no insecure renegotiation,
    no compression and no heartbleed, on STARTTLS and implicit TLS."""
    with Accounts() as server:
        for transport in ("starttls", "implicit"):
            versions, ciphers, report = scan(server.ports[transport], transport == "starttls")
            assert versions == {"tls 1.2", "tls 1.3"}, versions
            assert ciphers, xml.tostring(report)
            for version, cipher in ciphers:
                assert version in ("TLSv1.2", "TLSv1.3"), (version, cipher)
                assert cipher.startswith(MODERN), (version, cipher)
                assert not any(part in cipher for part in WEAK), (version, cipher)
            assert not any(c.get("supported") == "1" for c in report.iter("compression"))
            assert not any(h.get("vulnerable") == "1" for h in report.iter("heartbleed"))
            assert not any(r.get("supported") == "1" and r.get("secure") == "0"
                           for r in report.iter("renegotiation"))


def test_certificates_of_both_kinds():
    """Clients check the certificate with its chain, of an EC and of an RSA key; a client that
    does not know the authority goes away without having said its password."""
    for kind in ("ec", "rsa"):
        server = Accounts()
        server.pair = server.authority.issue("localhost", kind=kind, by_intermediate=True)
        stranger = server.authority.self_signed("localhost")
        with server:
            for client in (clients.python, clients.msmtp):
                for transport in ("starttls", "implicit"):
                    mail = clients.Submission(server.ports[transport], transport, "PLAIN",
                                              server.authority.ca, server.files)
                    verdict = client(mail)
                    assert verdict.ok, verdict
                    mail.ca = stranger.certificate
                    assert not client(mail).ok
            server.wait_mail("zoe", 4)
            server.wait_log("does not trust our certificate|handshake failed")


def test_renewed():
    """A certificate that was renewed is shown to new sessions, and the open ones go on. One
    that cannot be used is logged, and the one before it stays."""
    with Accounts() as server:
        first, files = server.pair.fingerprint(), server.pair
        second = server.authority.issue("localhost", "mx.test", kind="rsa")
        third = server.authority.issue("localhost", "mx.test")
        expected = [second.fingerprint(), third.fingerprint()]
        with server.logged_in("implicit") as one, server.logged_in("starttls") as other:
            assert seen_certificate(server, "implicit") == first
            replace(files, second)
            wait_for("the second certificate",
                     lambda: seen_certificate(server, "implicit") == expected[0])
            assert seen_certificate(server, "starttls") == expected[0]
            replace(files, third)
            server.process.send_signal(signal.SIGHUP)
            wait_for("the third certificate",
                     lambda: seen_certificate(server, "implicit") == expected[1])
            spoiled = server.dir / "new.pem"
            spoiled.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
            os.replace(spoiled, files.certificate)
            server.process.send_signal(signal.SIGHUP)
            server.wait_log(r"ERROR.*" + files.certificate.name)
            assert seen_certificate(server, "implicit") == expected[1]
            for client in (one, other):
                client.send_message("ann@mx.test", ["zoe@mx.test"], b"Subject: still\r\n\r\n")
            server.wait_mail("zoe", 2)


def replace(old, new):
    """Puts a pair where another was, as certbot does it: whole files, moved into place."""
    os.replace(new.key, old.key)
    os.replace(new.certificate, old.certificate)


def test_made_by_itself():
    """With no certificate configured the server makes one, says so, keeps it through a restart,
    and lets nobody else read its key."""
    with Server({"tls": {"certificate": None}}) as server:
        prints = []
        for _ in range(2):
            with server.session() as client:
                client.command("STARTTLS", 220)
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
                context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
                secure(client, context)
                client.command("EHLO client.test", 250)
                client.send_message("bob@client.test", ["ann@mx.test"], b"Subject: x\r\n\r\n")
                prints.append(client.socket.getpeercert(binary_form=True))
            server.stop()
            server.start()
        assert prints[0] == prints[1], "the restart made another certificate"
        assert " with ESMTPS " in server.wait_mail("ann", 2)[0].decode()
        server.wait_log("WARN.*has made one")
        for key in (server.dir / "state/tls").glob("*key*"):
            assert key.stat().st_mode & 0o077 == 0, oct(key.stat().st_mode)


def test_bytes_behind_starttls():
    """What comes in the clear behind STARTTLS is never taken for a command: the session ends,
    with a logged reason, and no mail comes of it (CVE-2011-0411)."""
    commands = (b"EHLO evil.test\r\nMAIL FROM:<x@evil.test>\r\nRCPT TO:<zoe@mx.test>\r\n"
                b"DATA\r\nSubject: smuggled\r\n\r\n.\r\n")
    with Accounts() as server:
        for first in (b"STARTTLS\r\n" + commands, b"STARTTLS\r\nNOOP\r\n"):
            with Client(server.host, server.ports["starttls"]) as client:
                client.expect(220)
                client.command("EHLO client.test", 250)
                client.send(first)
                try:
                    client.reply()
                    secure(client, server.trusting())
                    client.command("NOOP", 250)
                    raise AssertionError("the session went on")
                except (Closed, OSError, AssertionError) as error:
                    assert "went on" not in str(error), error
            server.wait_log("Nothing may follow STARTTLS|handshake failed")
        assert not server.new_mail("zoe")
        with server.connect("starttls") as client:
            client.command("STARTTLS", 503)


def test_forgets_what_was_before():
    """After STARTTLS the session knows nothing of what was said before it."""
    with Accounts(listeners={"mixed": {"protocol": "smtp", "tls": "starttls",
                                       "auth": "optional"}}) as server:
        with Client(server.host, server.ports["mixed"]) as client:
            client.expect(220)
            client.command("EHLO client.test", 250)
            client.command("MAIL FROM:<x@client.test>", 250)
            client.command("RCPT TO:<zoe@mx.test>", 250)
            client.command("STARTTLS", 220, 503)
        with Client(server.host, server.ports["mixed"]) as client:
            client.expect(220)
            client.command("EHLO client.test", 250)
            client.command("STARTTLS", 220)
            secure(client, server.trusting())
            client.command("MAIL FROM:<x@client.test>", 503)
            client.command("AUTH PLAIN " + plain("ann", "secret"), 503)
            assert "STARTTLS" not in client.command("EHLO client.test", 250).text
            client.command("AUTH PLAIN " + plain("ann", "secret"), 235)


def test_check():
    """`mailwren check` tells of a certificate that has expired, that does not go with its key,
    or that is for another name."""
    # With a smarthost nobody is asked for the name of this host.
    server = Accounts({"smarthost": smarthost(9)})
    good = server.pair
    expired = server.authority.issue("mx.test", expired=True)
    other = server.authority.issue("other.test")
    with server:
        for pair, key, word in ((good, good.key, None), (expired, expired.key, "expired"),
                                (good, other.key, "key"), (other, other.key, "mx.test")):
            server.pair = type(good)(pair.certificate, key)
            server.write_config()
            done = run_check(server)
            if word:
                assert word in done, f"{word!r} is not in:\n{done}"
            else:
                assert "expired" not in done, done


def run_check(server):
    """What `mailwren check` prints, whatever it ends with."""

    done = subprocess.run([binary(), "check"], capture_output=True, text=True, timeout=60,
                          env=server.environment())
    return done.stdout + done.stderr
