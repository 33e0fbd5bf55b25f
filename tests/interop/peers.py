"""A next hop that answers what a test tells it to, and DNS servers."""

import contextlib
import os
import socket
import subprocess
import threading

import harness


class Message:
    """What a peer took."""

    def __init__(self, sender, recipients, content, connection):
        self.sender, self.recipients = sender, recipients
        self.content, self.connection = content, connection


class Peer(contextlib.AbstractContextManager):
    """An SMTP server on a thread per connection.

    `answers` maps a verb (`GREETING`, `EHLO`, `MAIL`, `RCPT`, `DATA`, `BODY`, …) to what it
    says instead of the usual: octets, or a function of the line that returns octets or None.
    Octets of b'' close the connection without a word."""

    USUAL = {
        "GREETING": b"220 peer.test ESMTP\r\n",
        "EHLO": b"250-peer.test\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SIZE 100000000\r\n",
        "HELO": b"250 peer.test\r\n",
        "DATA": b"354 go ahead\r\n",
        "BODY": b"250 2.0.0 taken\r\n",
        "QUIT": b"221 2.0.0 bye\r\n",
    }

    def __init__(self, answers=None, host="127.0.0.1", port=None, family=socket.AF_INET):
        self.answers = answers or {}
        self.messages, self.commands = [], []
        self.connections = 0
        self.lock = threading.Lock()
        self.listener = socket.create_server(
            (host, harness.free_port(host) if port is None else port), family=family, backlog=100)
        self.host, self.port = self.listener.getsockname()[:2]
        self.open = set()
        threading.Thread(target=self.accept, daemon=True).start()

    def __exit__(self, *_):
        # A blocked accept() holds the socket open until it is shut down.
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        with self.lock:
            for connection in self.open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def accept(self):
        """Takes connections until the listener is closed."""
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            connection.settimeout(harness.PATIENCE)
            with self.lock:
                self.connections += 1
                self.open.add(connection)
                number = self.connections
            threading.Thread(target=self.serve, args=(connection, number), daemon=True).start()

    def serve(self, connection, number):
        """One session."""
        # The server under test may hang up whenever it likes.
        with contextlib.suppress(OSError, ValueError), connection:
            with connection.makefile("rb") as lines:
                self.converse(connection, lines, number)
        with self.lock:
            self.open.discard(connection)

    def choose(self, verb, line=b""):
        """What it says to a verb."""
        answer = self.answers.get(verb)
        if callable(answer):
            answer = answer(line)
        return self.USUAL.get(verb, b"250 2.0.0 fine\r\n") if answer is None else answer

    def answer(self, connection, verb, line=b""):
        """Answers a verb, and returns what it said."""
        answer = self.choose(verb, line)
        self.say(connection, answer)
        return answer

    @staticmethod
    def say(connection, answer):
        """Sends an answer, or hangs up."""
        if not answer:
            raise OSError("hangs up")
        connection.sendall(answer)

    def converse(self, connection, lines, number):
        """Reads commands until QUIT or the end."""
        self.answer(connection, "GREETING")
        sender, recipients = None, []
        for line in lines:
            assert line.endswith(b"\r\n"), line
            verb = line.split()[0].upper().decode()
            with self.lock:
                self.commands.append(line)
            said = self.answer(connection, verb, line)
            if verb == "MAIL":
                sender, recipients = line, []
            elif verb == "RCPT" and said.startswith(b"2"):
                recipients.append(line.partition(b":")[2].split()[0].decode())
            elif verb == "DATA" and said.startswith(b"3"):
                content = self.content(lines)
                said = self.choose("BODY")
                # Before it is said: who hears it may look at once.
                if said.startswith(b"2"):
                    with self.lock:
                        self.messages.append(Message(sender, recipients, content, number))
                self.say(connection, said)
            elif verb == "QUIT":
                return

    @staticmethod
    def content(lines):
        """A message up to the lone dot, dots removed; only CRLF may be there."""
        content = bytearray()
        for line in lines:
            if line == b".\r\n":
                return bytes(content)
            content += line[1:] if line.startswith(b".") else line
        raise OSError("cut off in the message")

    def wait_messages(self, count):
        """Waits until it has taken that many messages, and returns them."""
        harness.wait_for(f"{count} messages at the peer", lambda: len(self.messages) >= count)
        return self.messages


@contextlib.contextmanager
def sink(*arguments, cwd=None):
    """Postfix's smtp-sink; gives its port."""
    port = harness.free_port()
    user = ["-u", "root"] if os.geteuid() == 0 else []
    command, environment = harness.postfix_tool(
        "smtp-sink", *user, *arguments, f"127.0.0.1:{port}", 1000)
    process = subprocess.Popen(command, env=environment, cwd=cwd, stdout=subprocess.DEVNULL)
    try:
        harness.wait_for("smtp-sink", lambda: listens(port))
        yield port
    finally:
        process.terminate()
        process.wait(harness.PATIENCE)


@contextlib.contextmanager
def dnsmasq(*records, port=None):
    """dnsmasq with these records and no others; gives `127.0.0.1:PORT`."""
    port = port or harness.free_port()
    command = [
        harness.program("dnsmasq"), "--no-daemon", "--conf-file=/dev/null", "--no-hosts",
        "--no-resolv", "--bind-interfaces", "--listen-address=127.0.0.1", f"--port={port}",
        "--pid-file=", "--local=/test/", *records]
    # It says on standard error what it does, which a failing test shows.
    process = subprocess.Popen(command)
    try:
        harness.wait_for("dnsmasq", lambda: listens(port) or process.poll() is not None)
        assert process.poll() is None, "dnsmasq does not run"
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(harness.PATIENCE)


def listens(port):
    """Whether somebody listens there."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False
