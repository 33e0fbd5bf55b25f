"""Bad input on TLS listeners: each time the log says why, the thread and its memory come back,
and the others are served on."""

import contextlib
import socket
import ssl
import subprocess
import time

from accounts import Accounts, secure, unverified
from harness import Client, program

SMTP = {"protocol": "smtp"}
# Sessions at once, and what a session may leave behind all in all.
MANY = 150
GROWTH = 3 << 20


class Listening(Accounts):
    """A server with a listener for each transport, where nobody logs in."""

    def __init__(self, **server):
        server = {"max_sessions_per_client": "200", "session_timeout": "3s", **server}
        super().__init__({"server": server}, users={}, listeners={
            "plain": {**SMTP, "tls": "none"}, "starttls": {**SMTP, "tls": "starttls"},
            "implicit": {**SMTP, "tls": "implicit"}})

    def serve_all(self):
        """Takes one message on each transport."""
        for name in self.ports:
            with self.connect(name) as client:
                client.send_message("bob@client.test", ["ann@mx.test"], b"Subject: x\r\n\r\n")
                client.command("QUIT", 221)

    @contextlib.contextmanager
    def unharmed(self):
        """What happens inside leaves no thread and next to no memory behind, and others are
        served meanwhile and after."""
        self.serve_all()
        before = self.settled()
        yield
        self.serve_all()
        self.wait_settled(before, GROWTH)

    def raw(self, name):
        """A connection without a word."""
        return Client(self.host, self.ports[name])


def hello():
    """The first record of a TLS handshake."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        unverified().wrap_bio(incoming, outgoing, server_hostname="localhost").do_handshake()
    return outgoing.read()


def starttls(client):
    """Up to the 220 of STARTTLS."""
    client.expect(220)
    client.command("EHLO client.test", 250)
    client.command("STARTTLS", 220)


def test_plain_on_tls():
    """Commands, garbage and NUL bytes where TLS should begin: the session ends at once."""
    garbage = (b"EHLO client.test\r\n", b"GET / HTTP/1.0\r\n\r\n", b"\0" * 5000, b"\xff" * 5000,
               b"\x16\x03\x01\xff\xff" + b"x" * 70000, b"\x16\x03\x01\0\0")
    with Listening() as server, server.unharmed():
        for octets in garbage:
            for name in ("implicit", "starttls"):
                with server.raw(name) as client:
                    if name == "starttls":
                        starttls(client)
                    with contextlib.suppress(OSError):
                        client.send(octets)
                    assert client.is_closed(15), (name, octets[:20])
                    assert not client.buffer.startswith(b"2"), client.buffer
        server.wait_log('handshake failed: .*error="the client speaks no TLS')


def test_tls_on_plain():
    """A handshake where commands should come is answered and ended, and the log says which
    port has TLS from its beginning."""
    with Listening() as server, server.unharmed():
        for name in ("plain", "starttls"):
            with server.raw(name) as client:
                client.send(hello())
                client.expect(220)
                assert client.is_closed(15)
            with server.raw(name) as client, contextlib.suppress(OSError):
                secure(client, unverified())
                raise AssertionError("TLS on a plain port")
        server.wait_log("begins TLS at once")


def test_never_finished():
    """Hundreds of handshakes that are begun and not finished end by themselves, and others are
    served meanwhile."""
    with Listening() as server, server.unharmed(), contextlib.ExitStack() as stack:
        record = hello()
        beginnings = (b"", record[:1], record[:5], record[:len(record) // 2], record)
        begin = time.monotonic()
        clients = []
        for number in range(MANY):
            client = stack.enter_context(server.raw(("implicit", "starttls")[number % 2]))
            if number % 2:
                starttls(client)
            client.send(beginnings[number % len(beginnings)])
            clients.append(client)
        server.serve_all()
        for client in clients:
            assert client.is_closed(20), "still open"
        assert time.monotonic() - begin < 20
        server.wait_log('handshake failed: .*error="the client did not finish it in time')


def test_dripped():
    """A handshake that comes octet by octet, too slowly, is ended in time all the same."""
    with Listening(session_timeout="2s") as server, server.unharmed():
        with server.raw("implicit") as client:
            begin = time.monotonic()
            with contextlib.suppress(OSError):
                for octet in hello():
                    client.send(bytes([octet]))
                    time.sleep(0.05)
            assert client.is_closed(10)
            assert time.monotonic() - begin < 30
        server.wait_log("handshake failed")


def test_half_a_record():
    """Half a record and a close, or a reset, at the beginning and in the middle of a session
    and of a message: no message comes of it."""
    with Listening() as server, server.unharmed():
        for number in range(60):
            with server.raw("implicit") as client:
                client.send(hello()[:20 + number])
                if number % 2:
                    client.abort()
        for number in range(40):
            client = server.connect("implicit")
            if number % 4 > 1:
                client.envelope("bob@client.test", ["zoe@mx.test"])
                client.command("DATA", 354)
                client.send(b"Subject: half\r\n\r\n")
            bare = socket.socket(fileno=client.socket.detach())
            with bare:
                # The head of a record of 256 octets, and some of them.
                bare.sendall(b"\x17\x03\x03\x01\x00" + b"z" * number)
                if number % 2:
                    bare.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        server.wait_queue(0)
        assert not server.new_mail("zoe")


def test_spoiled_record():
    """A record that was changed on the way ends the session, and its message is not taken."""
    with Listening() as server, server.unharmed():
        client = server.connect("implicit")
        client.envelope("bob@client.test", ["zoe@mx.test"])
        client.command("DATA", 354)
        with socket.socket(fileno=client.socket.detach()) as bare:
            bare.settimeout(15)
            bare.sendall(b"\x17\x03\x03\x00\x40" + b"z" * 64)
            with contextlib.suppress(ConnectionResetError):
                while bare.recv(4096):
                    pass
        assert not server.new_mail("zoe")


def test_renegotiation():
    """A client of TLS 1.2 that wants to renegotiate, again and again, is refused, and others are
    served."""
    with Listening() as server, server.unharmed():
        command = [program("openssl"), "s_client", "-tls1_2", "-connect",
                   f"127.0.0.1:{server.ports['implicit']}"]
        done = subprocess.run(command, input=b"R\n" * 50, timeout=30, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT)
        said = done.stdout.decode(errors="replace")
        assert "RENEGOTIATING" in said, said
        assert "no renegotiation" in said or "unexpected" in said or done.returncode, said


def test_truncated():
    """A connection that ends without close_notify in the middle of a message is no end of the
    message; one that ends between commands leaves nothing behind."""
    with Listening() as server, server.unharmed():
        for in_message in (True, False):
            client = server.connect("starttls")
            if in_message:
                client.envelope("bob@client.test", ["zoe@mx.test"])
                client.command("DATA", 354)
                client.send(b"Subject: cut\r\n\r\nhalf a line")
            socket.socket(fileno=client.socket.detach()).close()
        assert not server.new_mail("zoe")


def test_endless_hello():
    """A client whose hello says that it has 16 MiB is sent away after little of it."""
    with Listening() as server, server.unharmed():
        # Handshake records of a ClientHello that says it has 16 MiB.
        endless = b"\x16\x03\x01\x40\x00" + b"\x01\xff\xff\xff" + b"z" * 16380
        for _ in range(20):
            with server.raw("implicit") as client, contextlib.suppress(OSError):
                for _ in range(20):
                    client.send(endless)
                assert client.is_closed(15)
        server.wait_log("handshake failed")
