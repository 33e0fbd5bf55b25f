"""A mailwren that people log in to: a listener for each transport, a certificate that an
authority of the test signed, and accounts that `mailwren passwd` wrote."""

import base64
import hashlib
import re
import ssl
import subprocess
import warnings
from pathlib import Path

import certs
from disk import threads_of
from harness import Client, Server, binary, free_port, wait_for

ALL = "SCRAM-SHA-256, SCRAM-SHA-1, CRAM-MD5, PLAIN, LOGIN"
USERS = {"ann": "secret", "bob": "pa ss:wörd"}


class Accounts(Server):
    """The server; `listen.smtp` is its port 25, without AUTH and for no network.

    `port` of the base is that of `listen.smtp`; `ports` maps plain, starttls and implicit to
    the submission listeners. `listeners` adds others: a name and its keys, without address."""

    def __init__(self, settings=None, users=None, listeners=None, **options):
        super().__init__(settings, **options)
        self.authority = certs.Authority(self.dir / "ca")
        self.pair = self.authority.issue("localhost", "mx.test", "127.0.0.1",
                                         by_intermediate=True)
        self.users = USERS if users is None else users
        self.files = self.dir / "client"
        self.files.mkdir()
        self.listeners = {
            "plain": {"protocol": "submission", "tls": "none", "auth_without_tls": "yes"},
            "starttls": {"protocol": "submission", "tls": "starttls"},
            "implicit": {"protocol": "submission", "tls": "implicit"},
            **(listeners or {}),
        }
        self.ports = {}

    def settings(self):
        """The configuration as a map of maps."""
        sections = {
            "tls": {"certificate": self.pair.certificate, "key": self.pair.key},
            "auth": {"users": self.dir / "users", "mechanisms": ALL},
            "relay": {"networks": "192.0.2.0/24"},
        }
        for name, keys in self.listeners.items():
            address = f"{self.host}:{self.ports[name]}"
            sections[f"listen.{name}"] = {"address": address, **keys}
        own, self.overrides = self.overrides, {}
        for section, keys in own.items():
            sections[section] = None if keys is None else {**(sections.get(section) or {}), **keys}
        self.overrides = sections
        try:
            return super().settings()
        finally:
            self.overrides = own

    def write_config(self):
        """Writes the configuration file, with other ports each time."""
        self.ports = {}
        for name in self.listeners:
            port = free_port(self.host)
            while port in (self.port, *self.ports.values()):
                port = free_port(self.host)
            self.ports[name] = port
        super().write_config()

    def start(self):
        """Writes the accounts where there are none yet, and starts the server."""
        (self.dir / "state").mkdir(exist_ok=True)
        if not (self.dir / "users").exists():
            for name, password in self.users.items():
                self.passwd(name, password)
        super().start()

    def passwd(self, name, password, expect=0):
        """Runs `mailwren passwd`, and returns what it printed."""
        done = subprocess.run([binary(), "passwd", name], input=f"{password}\n".encode(),
                              capture_output=True, env=self.environment(), timeout=60)
        printed = (done.stdout + done.stderr).decode(errors="replace")
        assert done.returncode == expect, f"passwd ended with {done.returncode}: {printed}"
        return printed

    def connect(self, name, context=None, source=None):
        """A greeted session with a submission listener, TLS begun where it has TLS."""
        client = Client(self.host, self.ports[name], source)
        kind = self.listeners[name].get("tls", "starttls")
        if kind == "implicit":
            secure(client, context or self.trusting())
        client.expect(220)
        client.command("EHLO client.test", 250)
        if kind == "starttls":
            client.command("STARTTLS", 220)
            secure(client, context or self.trusting())
            client.command("EHLO client.test", 250)
        return client

    def logged_in(self, name="implicit", user="ann", password="secret"):
        """A session that has logged in with PLAIN."""
        client = self.connect(name)
        client.command(f"AUTH PLAIN {plain(user, password)}", 235)
        return client

    def trusting(self):
        """A context that trusts the test's authority."""
        return ssl.create_default_context(cafile=str(self.authority.ca))

    def threads(self):
        """How many threads it has."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"^Threads:\s+(\d+)", status, re.M)[1])

    def settled(self):
        """Its threads and its own octets when nobody is connected. A thread waits for two seconds
        for a next session."""
        wait_for("the sessions to end", lambda: not threads_of(self.process.pid, "session"))
        return self.threads(), self.memory("Anonymous")

    def wait_settled(self, before, growth):
        """Waits until it has no more threads than `before`, which is what `settled` gave, and
        no more octets but `growth`; gives how many more it has."""
        threads, memory = before
        wait_for(f"{threads} threads again", lambda: self.threads() <= threads)
        wait_for(f"less than {growth} octets more",
                 lambda: self.memory("Anonymous") < memory + growth)
        return self.memory("Anonymous") - memory


def secure(client, context, name="localhost"):
    """Begins TLS on a connection, which shows that nothing was left unread before."""
    assert not client.buffer, client.buffer
    client.socket = context.wrap_socket(client.socket, server_hostname=name)


def encoded(text):
    """Base64."""
    return base64.b64encode(text if isinstance(text, bytes) else text.encode()).decode()


def plain(user, password):
    """The response of PLAIN (RFC 4616)."""
    return encoded(f"\0{user}\0{password}")


def unverified(**options):
    """A context that trusts whoever answers; `options` are set on it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    for name, value in options.items():
        setattr(context, name, value)
    return context


def ancient(version):
    """A context of an old device, which speaks this version of TLS alone."""
    context = unverified()
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        context.minimum_version = context.maximum_version = version
    return context


def seen_certificate(server, name):
    """The fingerprint of the certificate that a listener shows, in hexadecimal."""
    with server.connect(name, unverified()) as client:
        return hashlib.sha256(client.socket.getpeercert(binary_form=True)).hexdigest()
