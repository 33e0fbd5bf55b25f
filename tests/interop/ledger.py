"""Numbered messages, what was promised for each, and what became of it."""

import collections
import mailbox
import threading
import zlib

from harness import Closed

LOCAL, FAR = "ann@mx.test", "zoe@far.test"


def lines_of(token):
    """How many lines the message has: few mostly, and some hundred KiB now and then, and
    wherever the token ends with an exclamation mark."""
    return 4000 if token.endswith("!") or zlib.crc32(token.encode()) % 9 == 0 else 3


def body(token):
    """What must come out again."""
    return f"a line of {token}\n" * lines_of(token) + f"end of {token}"


def content(token):
    """A message that tells whether it is whole."""
    return (f"Subject: {token}\n\n" + body(token) + "\n").replace("\n", "\r\n").encode()


def send(client, token, recipients, parameters=""):
    """Sends a message; returns the reply that decided over it."""
    commands = [f"MAIL FROM:<bob@mx.test>{parameters}", *(f"RCPT TO:<{to}>" for to in recipients), "DATA"]
    for command in commands:
        reply = client.command(command)
        if reply.code >= 400:
            return reply
    return client.command(content(token) + b".\r\n")


class Arrivals:
    """What is in a mailbox: how many whole copies of each message, and what is not whole."""

    def __init__(self, texts):
        self.whole, self.torn = collections.Counter(), []
        for text in texts:
            head, _, rest = text.replace(b"\r\n", b"\n").partition(b"\n\n")
            subjects = [line[9:] for line in head.split(b"\n") if line.startswith(b"Subject: ")]
            token = subjects[0].decode() if subjects else ""
            if token and rest.rstrip(b"\n") == body(token).encode():
                self.whole[token] += 1
            else:
                self.torn.append(token or text[:200])


def in_maildir(server, user="ann"):
    """What is in a user's Maildir."""
    return Arrivals(file.read_bytes() for file in server.new_mail(user))


def in_mbox(server, user="ann"):
    """What is in a user's mbox."""
    path = server.mail / user
    if not path.exists():
        return Arrivals([])
    box = mailbox.mbox(path, create=False)
    try:
        return Arrivals([box.get_bytes(key) for key in box.keys()])
    finally:
        box.close()


def in_mailbox(server, mailbox_format):
    """What is in ann's mailbox of that format."""
    return in_mbox(server) if mailbox_format == "mbox" else in_maildir(server)


def at_peer(peer):
    """What a next hop took."""
    return Arrivals(message.content for message in peer.messages)


class Load(threading.Thread):
    """Sends numbered messages as fast as it can until the server is gone or takes no more.
    `promised` has the recipients of each that got its 250."""

    def __init__(self, server, name):
        super().__init__(daemon=True)
        self.server, self.prefix, self.promised = server, name, {}

    def run(self):
        number = 0
        try:
            with self.server.session() as client:
                while True:
                    token, number = f"{self.prefix}-{number}", number + 1
                    recipients = [[LOCAL], [FAR], [LOCAL], [LOCAL, FAR]][number % 4]
                    reply = send(client, token, recipients)
                    if reply.code != 250:
                        return
                    self.promised[token] = recipients
        except (OSError, Closed):
            pass
