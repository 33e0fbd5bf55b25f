"""Stand-ins for providers that cannot be had here: servers that answer as Gmail and Microsoft 365
do, as far as that decides whether mail gets through. TLS, AUTH with passwords and with tokens, who may send
as whom, sizes, and sessions at once."""

import base64
import re
import ssl

import harness
from peers import Message, Peer


class StandIn(Peer):
    """A provider with one account, on a port with STARTTLS. `mechanisms` are what EHLO offers once
    there is TLS; `secret` is the password, or the token of XOAUTH2."""

    name, mechanisms, max_size, at_once = "", "", 0, 1000
    # The lines of EHLO as well.
    extensions = ("PIPELINING", "8BITMIME", "ENHANCEDSTATUSCODES")

    def __init__(self, pair, user, secret, port=587):
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(pair.certificate, pair.key)
        self.user, self.secret = user, secret
        self.sessions, self.most = 0, 0
        self.refused = []
        super().__init__(port=port)

    def converse(self, connection, lines, number):
        """Reads commands until QUIT or the end."""
        with self.lock:
            self.sessions += 1
            self.most = max(self.most, self.sessions)
        session = Session(self, connection, lines, number)
        try:
            session.run()
        finally:
            session.leave()

    def refuse(self, reply):
        """Notes what is refused, and says so."""
        with self.lock:
            self.refused.append(reply)
        return reply

    def sender(self, address):
        """What is said to MAIL, where the sender is refused."""

    def content(self, octets):
        """What becomes of a message, or what is said where it is refused."""
        return octets


class Session:
    """One session with a stand-in."""

    def __init__(self, provider, connection, lines, number):
        self.provider, self.connection, self.lines = provider, connection, lines
        self.number, self.is_secured, self.has_login = number, False, False
        self.sender, self.recipients, self.is_counted = None, [], True

    def say(self, text):
        """Sends a reply."""
        self.connection.sendall(text.encode() + b"\r\n")

    def line(self):
        """The next line."""
        line = self.lines.readline()
        if not line.endswith(b"\r\n"):
            raise OSError("the client has left")
        return line[:-2].decode()

    def run(self):
        """Reads commands until QUIT or the end."""
        provider = self.provider
        self.say(f"220 {provider.name} ESMTP")
        while True:
            line = self.line()
            verb = line.split()[0].upper()
            if verb == "QUIT":
                # Before it is said: who hears it may come anew at once.
                self.leave()
                return self.say("221 2.0.0 closing")
            if verb == "STARTTLS":
                self.say("220 2.0.0 Ready to start TLS")
                self.connection = provider.context.wrap_socket(self.connection, server_side=True)
                self.connection.settimeout(harness.PATIENCE)
                self.lines, self.is_secured = self.connection.makefile("rb"), True
            elif verb == "EHLO":
                self.ehlo()
            elif verb == "AUTH":
                self.say(self.login(line))
            elif verb == "MAIL":
                self.say(self.mail(line))
            elif verb == "RCPT":
                self.recipients.append(re.search("<(.*)>", line)[1])
                self.say("250 2.1.5 OK")
            elif verb == "DATA":
                self.data()
            else:
                self.say("250 2.0.0 OK")

    def leave(self):
        """Counts it no longer among those that go on."""
        if self.is_counted:
            self.is_counted = False
            with self.provider.lock:
                self.provider.sessions -= 1

    def ehlo(self):
        """What it can."""
        provider = self.provider
        offered = [f"SIZE {provider.max_size}", *provider.extensions]
        offered.append(f"AUTH {provider.mechanisms}" if self.is_secured else "STARTTLS")
        lines = [provider.name, *offered]
        for at, text in enumerate(lines, 1):
            self.say(f"250{' ' if at == len(lines) else '-'}{text}")

    def login(self, line):
        """What is said in the end."""
        if not self.is_secured:
            return self.provider.refuse("530 5.7.0 Must issue a STARTTLS command first")
        _, mechanism, *rest = line.split()
        assert mechanism in self.provider.mechanisms.split(), line
        initial = rest[0] if rest else None
        if mechanism == "LOGIN":
            told = [self.ask("VXNlcm5hbWU6"), self.ask("UGFzc3dvcmQ6")]
            told = [decoded(text) for text in told]
        elif mechanism == "PLAIN":
            told = decoded(initial or self.ask("")).split("\0")[1:]
        else:
            fields = decoded(initial or self.ask("")).split("\1")
            told = [fields[0].removeprefix("user="), fields[1].removeprefix("auth=Bearer ")]
        if told != [self.provider.user, self.provider.secret]:
            return self.provider.refuse(f"535 5.7.8 {mechanism}: not accepted")
        if self.provider.sessions > self.provider.at_once:
            return self.provider.refuse("432 4.3.2 Concurrent connections limit exceeded")
        self.has_login = True
        return "235 2.7.0 Accepted"

    def ask(self, challenge):
        """The response to a challenge."""
        self.say(f"334 {challenge}")
        return self.line()

    def mail(self, line):
        """The answer to MAIL."""
        if not self.has_login:
            return self.provider.refuse("530 5.7.0 Authentication Required")
        self.sender, self.recipients = re.search("<(.*?)>", line)[1], []
        size = re.search(r"SIZE=(\d+)", line)
        if size and int(size[1]) > self.provider.max_size:
            return self.provider.refuse("552 5.3.4 Your message exceeded the size limits")
        refusal = self.provider.sender(self.sender)
        return self.provider.refuse(refusal) if refusal else "250 2.1.0 OK"

    def data(self):
        """Takes a message."""
        self.say("354 Go ahead")
        taken = self.provider.content(Peer.content(self.lines))
        if isinstance(taken, str):
            return self.say(self.provider.refuse(taken))
        message = Message(self.sender, self.recipients, taken, self.number)
        with self.provider.lock:
            self.provider.messages.append(message)
        self.say("250 2.0.0 OK")


class Gmail(StandIn):
    """Gmail: another author than the account gives way to it, and is not refused."""

    name, mechanisms = "smtp.gmail.com", "LOGIN PLAIN XOAUTH2"
    max_size = 35882577

    def content(self, octets):
        """The message as its recipient gets it."""
        return re.sub(rb"(?im)^From:.*<(?!" + re.escape(self.user.encode()) + rb">).*$",
                      b"From: <" + self.user.encode() + b">\r", octets)


class Office(StandIn):
    """Microsoft 365: tokens, no other sender, three connections at once."""

    name, mechanisms = "smtp.office365.com", "LOGIN XOAUTH2"
    max_size, at_once = 157286400, 3
    REFUSAL = ("554 5.2.252 SendAsDenied; 5.7.60 Client does not have permissions to send as this "
               "sender")

    def content(self, octets):
        """The message, or that its author is not the account's."""
        author = re.search(rb"(?im)^From:(.*)$", octets)[1]
        return octets if self.user.encode() in author else self.REFUSAL

    def sender(self, address):
        """The refusal of another sender; reports have none."""
        return "" if address in ("", self.user) else self.REFUSAL


def decoded(text):
    """The text behind base64."""
    return base64.b64decode(text).decode()
