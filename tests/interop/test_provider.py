"""On to a provider: Postfix with Dovecot's accounts (OpenSSL), and Exim with its own (GnuTLS),
each with a good, an expired, a wrongly named and a self-signed certificate."""

import contextlib
import re
import ssl
import subprocess
import time

import certs
from harness import Server, as_root, binary, folder, free_port, wait_for
from peers import Peer, dnsmasq
from providers import NAME, PASSWORD, USER, Dovecot, Exim, Postfix, token

CONTENT = b"From: <ann@mx.test>\r\nSubject: out\r\n\r\nbody\r\n"
SORTS = ("good", "expired", "wrong name", "self-signed")
# What the log says of each certificate that is refused.
REASONS = {"expired": "expired", "wrong name": "name|host", "self-signed": "self.signed|signed"}


class World(contextlib.ExitStack):
    """An authority, a provider, and a DNS server that knows the provider's name."""

    def __init__(self, kind=Postfix):
        super().__init__()
        self.dir = self.enter_context(folder())
        self.dir.chmod(0o711)
        self.authority = certs.Authority(self.dir / "ca")
        self.pairs = self.authority.four(NAME)
        names = (NAME, "smtp.gmail.com", "smtp.office365.com")
        self.dns = self.enter_context(
            dnsmasq(*(f"--host-record={name},127.0.0.1" for name in names)))
        self.password = PASSWORD
        if kind is Postfix:
            self.dovecot = self.enter_context(Dovecot(self.dir))
            self.provider = self.enter_context(Postfix(self.dir, self.pairs, self.dovecot))
        else:
            self.provider = self.enter_context(Exim(self.dir, self.pairs))
        self.taken = 0

    def relaying(self, port, environment=None, **keys):
        """A server whose smarthost is the provider; None removes a key."""
        password = self.dir / "password"
        password.write_text(self.password + "\n")
        password.chmod(0o600)
        known = {"host": f"{NAME}:{port}", "tls": "starttls", "user": USER,
                 "password_file": password, "ca": self.authority.ca, **keys}
        known = {key: value for key, value in known.items() if value is not None}
        server = Server({"smarthost": known, "dns": {"servers": self.dns}})
        if environment:
            inherited = server.environment
            server.environment = lambda: {**inherited(), **environment}
        return server

    def relays(self, port, **keys):
        """Sends one message, which the provider takes; gives it."""
        with self.relaying(port, **keys) as server:
            server.deliver("zoe@far.test", CONTENT, sender="ann@mx.test")
            server.wait_queue(0)
            assert "bounced" not in server.log(), server.log()
        self.taken += 1
        return self.provider.wait_mail(self.taken)[-1].decode()

    def waits(self, port, reason, **keys):
        """Sends one message, which stays in the queue with a status of 4.7.x, and a reason in
        the log; the provider gets nothing."""
        with self.relaying(port, **keys) as server:
            server.deliver("zoe@far.test", CONTENT, sender="ann@mx.test")
            server.wait_log(r"deferred.*4\.7\.\d+|4\.7\.\d+.*deferred")
            server.wait_queue(1)
            server.wait_log(f"(?i)4\\.7\\..*({reason})|({reason}).*4\\.7\\.")
            assert "bounced" not in server.log(), server.log()
        assert len(self.provider.mail()) == self.taken
        return server


def certificates(kind):
    """A provider's four certificates: the good one is trusted, the others leave the mail
    queued, on STARTTLS and on implicit TLS."""
    with World(kind) as world:
        for tls in ("starttls", "implicit"):
            received = world.relays(world.provider.port(tls), tls=tls)
            assert "ESMTPSA" in received.upper(), received
            for sort in SORTS[1:]:
                world.waits(world.provider.port(tls, sort), REASONS[sort], tls=tls)
        # No password was said to those that were not trusted.
        log = world.provider.log()
        assert log.count("sasl_username=") in (0, 2) and PASSWORD not in log, log


@as_root
def test_certificates_of_postfix():
    """Mail goes to a Postfix with a good certificate, and waits with 4.7.x and a reason where it
    is expired, for another name or self-signed, with STARTTLS and implicit TLS."""
    certificates(Postfix)


@as_root
def test_certificates_of_exim():
    """Mail goes to an Exim with a good certificate, and waits with 4.7.x and a reason where it
    is expired, for another name or self-signed, with STARTTLS and implicit TLS."""
    certificates(Exim)


@as_root
def test_trust():
    """A fingerprint pins one certificate, whatever is wrong with it, and no other; without `ca`
    the system's authorities count; opportunistic TLS takes any certificate."""
    with World() as world:
        port = world.provider.port
        for sort in SORTS:
            pin = f"sha256:{world.pairs[sort].fingerprint()}"
            world.relays(port("starttls", sort), ca=None, fingerprint=pin)
        wrong = f"sha256:{world.pairs['expired'].fingerprint()}"
        world.waits(port("starttls", "good"), "fingerprint", ca=None, fingerprint=wrong)
        world.waits(port("implicit", "good"), "fingerprint", ca=None, fingerprint=wrong,
                    tls="implicit")
        world.waits(port("starttls", "good"), "issuer|authority|trust|sign", ca=None)
        system = {"SSL_CERT_FILE": str(world.authority.ca), "SSL_CERT_DIR": "/nowhere"}
        world.relays(port("starttls", "good"), ca=None, environment=system)
        for sort in SORTS:
            received = world.relays(port("starttls", sort), ca=None, tls="opportunistic")
            assert "ESMTPSA" in received, received


@as_root
def test_mechanisms_of_postfix():
    """Each mechanism that Dovecot offers logs in, tokens too, and of several the best is
    taken."""
    with World() as world:
        port = world.provider.port("starttls")
        bearer = world.dir / "token"
        bearer.write_text(token() + "\n")
        bearer.chmod(0o600)
        used = []
        for mechanism in ("PLAIN", "LOGIN", "CRAM-MD5", "SCRAM-SHA-1", "SCRAM-SHA-256"):
            world.relays(port, mechanisms=mechanism)
            used.append(mechanism)
        for mechanism in ("XOAUTH2", "OAUTHBEARER"):
            world.relays(port, mechanisms=mechanism, password_file=bearer)
            used.append(mechanism)
        world.relays(port)
        used.append("SCRAM-SHA-256")
        # Postfix's log is written by a process of its own.
        def seen():
            return re.findall(r"sasl_method=([\w-]+)", world.provider.log())
        wait_for("a line for each", lambda: len(seen()) >= len(used))
        assert seen() == used, seen()


@as_root
def test_mechanisms_of_exim():
    """Each mechanism that Exim offers logs in, and of several the best is taken."""
    with World(Exim) as world:
        port = world.provider.port("implicit")
        for mechanism in ("PLAIN", "LOGIN", "CRAM-MD5"):
            world.relays(port, mechanisms=mechanism, tls="implicit")
        world.relays(port, tls="implicit")
        assert world.provider.log().count("A=cram") == 2, world.provider.log()


@as_root
def test_without_tls():
    """The password goes in the clear only where `auth_without_tls = yes` stands in the section;
    required TLS that is not offered leaves the mail queued."""
    with World() as world:
        port = world.provider.port("plain")
        world.waits(port, "STARTTLS")
        received = world.relays(port, tls="none", ca=None, auth_without_tls="yes")
        assert "with ESMTPA " in received, received
        # Opportunistic TLS that is not offered: the mail may go in the clear, the password not.
        world.waits(port, "password|clear|TLS", ca=None, tls="opportunistic")
        server = world.relaying(port, tls="none", ca=None)
        server.port = free_port()
        server.write_config()
        with server.stack:
            done = subprocess.run([binary(), "check"], env=server.environment(), text=True,
                                  capture_output=True, timeout=60)
            assert done.returncode != 0 and "auth_without_tls" in done.stdout + done.stderr


@as_root
def test_wrong_password():
    """A refused login leaves all mail queued, is one error in the log that names the section and
    a remedy, and is tried seldom, so that the provider does not lock the account; another
    password in its file sends the mail at once."""
    with World() as world:
        bad = world.dir / "bad"
        bad.write_text("hunter2\n")
        bad.chmod(0o600)
        with world.relaying(world.provider.port("starttls"), password_file=bad) as server:
            for _ in range(5):
                server.deliver("zoe@far.test", CONTENT, sender="ann@mx.test")
            server.wait_log(r"ERROR.*\[smarthost\]")
            # Longer than several rounds of the queue, whose pause is a second.
            time.sleep(6)
            log = server.log()
            errors = [line for line in log.splitlines() if "ERROR" in line]
            assert len(errors) == 1, errors
            assert "535" in log and "app password" in errors[0].lower(), errors
            server.wait_queue(5)
            tries = world.provider.log().count("authentication failed")
            assert 1 <= tries <= 3, f"{tries} tries"
            assert "bounced" not in log and not world.provider.mail()
            assert "hunter2" not in log and "hunter2" not in world.dovecot.daemon.log.read_text()
            # The next try by itself would be minutes later.
            bad.write_text(PASSWORD + "\n")
            world.provider.wait_mail(5)
            server.wait_queue(0)
            server.wait_log(r"INFO.*\[smarthost\] the login works again")


@as_root
def test_wrong_password_of_a_known_provider():
    """Where the provider is known to take no ordinary password, the error says what it takes."""
    with World() as world:
        world.password = "hunter2"
        for host, remedy in ("smtp.gmail.com", "app password, made in the settings"), \
                ("smtp.office365.com", "XOAUTH2"):
            pin = f"sha256:{world.pairs['good'].fingerprint()}"
            with world.relaying(world.provider.port("starttls"), ca=None, fingerprint=pin,
                                host=f"{host}:{world.provider.port('starttls')}") as server:
                server.deliver("zoe@far.test", CONTENT, sender="ann@mx.test")
                server.wait_log(rf"ERROR \[smarthost\] .*{host}.*535.*{remedy}")
                server.wait_queue(1)


@as_root
def test_expired_token():
    """When the server says that the token has expired, `password_command` runs again, and the
    mail goes out with the new one."""
    with World() as world:
        old, new = world.dir / "old", world.dir / "new"
        old.write_text(token(seconds=-60) + "\n")
        new.write_text(token() + "\n")
        script, runs = world.dir / "token.sh", world.dir / "runs"
        script.write_text(f'#!/bin/sh\necho run >> {runs}\n'
                          f'[ "$(wc -l < {runs})" -gt 1 ] && cat {new} || cat {old}\n')
        script.chmod(0o755)
        for mechanism in ("OAUTHBEARER", "XOAUTH2"):
            runs.write_text("")
            world.relays(world.provider.port("starttls"), password_file=None,
                         password_command=script, mechanisms=mechanism)
            assert len(runs.read_text().split()) == 2, runs.read_text()
        # Dovecot's log is written by a process of its own.
        said = lambda: world.dovecot.daemon.log.read_text()
        wait_for("two refusals", lambda: said().count("Token has expired") >= 2)
        assert said().count("Token has expired") == 2, said()


class Encrypting(Peer):
    """A peer that answers STARTTLS and begins TLS; what comes behind its 220 in the same
    segment is `injected`."""

    def __init__(self, pair, injected=b"", answers=None):
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(pair.certificate, pair.key)
        self.injected = injected
        super().__init__({"EHLO": b"250-peer.test\r\n250-STARTTLS\r\n250 PIPELINING\r\n",
                          **(answers or {})})

    def converse(self, connection, lines, number):
        """Commands up to STARTTLS, then TLS, then a session as of every peer."""
        self.answer(connection, "GREETING")
        for line in lines:
            with self.lock:
                self.commands.append(line)
            if line.upper().startswith(b"STARTTLS"):
                break
            self.answer(connection, line.split()[0].upper().decode(), line)
        else:
            return
        connection.sendall(b"220 2.0.0 go ahead\r\n" + self.injected)
        inside = {**self.answers, "GREETING": b"",
                  "EHLO": b"250-peer.test\r\n250 8BITMIME\r\n"}
        with self.context.wrap_socket(connection, server_side=True) as secured:
            with secured.makefile("rb") as encrypted:
                self.answers, outer = inside, self.answers
                self.say = lambda to, answer: answer and to.sendall(answer)
                try:
                    super().converse(secured, encrypted, number)
                finally:
                    self.answers = outer


def peer_world(peer, **keys):
    """A server whose smarthost is a peer of ours, without a login."""
    return Server({"smarthost": {"host": f"127.0.0.1:{peer.port}", **keys}})


def test_injected_behind_starttls():
    """What a server says in the clear behind the 220 of STARTTLS is thrown away, not taken for an
    answer inside TLS (CVE-2021-38371)."""
    injected = b"250-evil.test\r\n250-AUTH PLAIN LOGIN\r\n250 SIZE 1\r\n"
    with folder() as files:
        pair = certs.Authority(files / "ca").self_signed("peer.test")
        pin = f"sha256:{pair.fingerprint()}"
        with Encrypting(pair, injected) as peer:
            with peer_world(peer, tls="starttls", fingerprint=pin) as server:
                server.deliver("zoe@far.test", CONTENT)
                wait_for("an end", lambda: peer.messages or "deferred" in server.log())
                # SIZE 1 would have made the message too large for good.
                assert "bounced" not in server.log(), server.log()
                assert not any(c.startswith(b"AUTH") for c in peer.commands), peer.commands
        with Encrypting(pair) as peer:
            with peer_world(peer, tls="starttls", fingerprint=pin) as server:
                server.deliver("zoe@far.test", CONTENT)
                peer.wait_messages(1)
                hellos = [c for c in peer.commands if c.startswith(b"EHLO")]
                assert len(hellos) == 2, "EHLO is not asked again after TLS"


class Breaking(Peer):
    """A peer that hangs up in the handshake."""

    def converse(self, connection, lines, number):
        """A session that ends behind the reply to STARTTLS."""
        def up_to_starttls():
            for line in lines:
                yield line
                if line.upper().startswith(b"STARTTLS"):
                    raise OSError("hangs up")
        super().converse(connection, up_to_starttls(), number)


def test_refused_starttls():
    """A server that offers STARTTLS and then refuses it, or breaks the handshake, gets mail in
    the clear only with `fallback = plain`; required TLS never does."""
    offer = b"250-peer.test\r\n250-STARTTLS\r\n250 PIPELINING\r\n"
    for kind, reply in (Peer, b"454 4.7.0 not now\r\n"), (Breaking, b"220 2.0.0 go\r\n"):
        answers = {"EHLO": offer, "STARTTLS": reply}
        for keys in ({"tls": "starttls"}, {"tls": "opportunistic"}):
            with kind(answers) as peer, peer_world(peer, **keys) as server:
                server.deliver("zoe@far.test", CONTENT)
                server.wait_log(r"deferred")
                server.wait_queue(1)
                assert not peer.messages
                assert not any(c.startswith(b"MAIL") for c in peer.commands), peer.commands
        with kind(answers) as peer:
            with peer_world(peer, tls="opportunistic", fallback="plain") as server:
                server.deliver("zoe@far.test", CONTENT)
                peer.wait_messages(1)
                server.wait_queue(0)


def test_password_is_never_said():
    """A server that offers AUTH and no TLS hears no password from a section that wants TLS."""
    answers = {"EHLO": b"250-peer.test\r\n250-AUTH PLAIN LOGIN\r\n250 PIPELINING\r\n"}
    login = {"user": USER, "password": "hunter2"}
    for tls in ("starttls", "opportunistic"):
        with Peer(answers) as peer, peer_world(peer, tls=tls, **login) as server:
            server.deliver("zoe@far.test", CONTENT)
            server.wait_log(r"deferred")
            server.wait_queue(1)
            said = [c for c in peer.commands if c.startswith((b"AUTH", b"MAIL"))]
            assert not said, said
            assert "hunter2" not in server.log()
