"""Dovecot and mutt, with the configuration of their packages, reading ann's mailbox while mail comes
into it: they mark, take out, delete and compact, and no message is lost, doubled or torn."""

import contextlib
import imaplib
import os
import pty
import subprocess
import threading
from pathlib import Path

import ledger
from harness import wait_for
from host import Host, own_house

ANN = "ann@house.test"
# How often a reader looks, and how much it must have found in all.
ROUNDS, ENOUGH = 8, 40
# Moves everything into another mailbox, and leaves.
MUTT = ["set confirmappend=no confirmcreate=no delete=yes quit=yes move=no wait_key=no",
        "set mbox_type=mbox mark_old=no sleep_time=0",
        r"push '<tag-pattern>~A<enter><tag-prefix><save-message>/home/ann/taken<enter><quit>'"]


class Sender(threading.Thread):
    """Sends numbered messages to ann, one after the other, up to the end of a `with` block."""

    def __init__(self, host):
        super().__init__(daemon=True)
        self.host, self.sent, self.failure, self.is_over = host, [], None, threading.Event()

    def __enter__(self):
        self.start()
        wait_for("the first messages", lambda: len(self.sent) > 3 or self.failure)
        return self

    def __exit__(self, *_):
        self.is_over.set()
        self.join()
        assert self.failure is None, self.failure

    def run(self):
        with self.host.session() as client:
            while not self.is_over.wait(0.01):
                token = f"message-{len(self.sent)}"
                reply = ledger.send(client, token, [ANN])
                if reply.code != 250:
                    self.failure = reply
                    return
                self.sent.append(token)


def check(sent, texts):
    """Every message that was sent is there, once and whole."""
    found = ledger.Arrivals(texts)
    assert not found.torn, f"torn: {found.torn}"
    assert found.whole == dict.fromkeys(sent, 1), \
        f"lost {set(sent) - set(found.whole)}, twice {[t for t, n in found.whole.items() if n > 1]}"


@contextlib.contextmanager
def dovecot(host, location=None):
    """Dovecot as its package sets it up, with another place of mail where one is given; a session of
    ann's."""
    if location:
        Path("/etc/dovecot/conf.d/99-house.conf").write_text(f"mail_location = {location}\n")
    host.run(["chpasswd"], input="ann:secret\n")
    Path("/run/dovecot").mkdir()
    process = host.background(["dovecot", "-F"])
    try:
        wait_for("Dovecot", Path("/run/dovecot/login/imap").exists)
        with imaplib.IMAP4("127.0.0.1", timeout=30) as imap:
            imap.login("ann", "secret")
            yield imap
    finally:
        process.terminate()
        process.wait()


def take_half(imap):
    """Takes the messages with odd numbers out of the inbox and marks the others; returns them."""
    imap.select("INBOX")
    _, (numbers,) = imap.search(None, "UNDELETED")
    taken = []
    for number in numbers.decode().split():
        _, found = imap.fetch(number, "(BODY.PEEK[])")
        if int(number) % 2:
            taken.append(found[0][1])
            imap.store(number, "+FLAGS", r"(\Deleted)")
        else:
            imap.store(number, "+FLAGS", r"(\Seen)")
    imap.expunge()
    return taken


def read_by_dovecot(host, location=None):
    """Takes messages out by IMAP while they come in; what is left at the end is read as well."""
    taken = []
    with dovecot(host, location) as imap:
        with Sender(host) as sender:
            while len(taken) < ENOUGH:
                taken += take_half(imap)
        imap.select("INBOX")
        _, found = imap.fetch("1:*", "(BODY.PEEK[])")
        check(sender.sent, taken + [part[1] for part in found if isinstance(part, tuple)])


@own_house
def test_dovecot_with_mbox():
    """Dovecot expunges from an mbox, which it compacts, while mail is appended."""
    with Host() as host:
        read_by_dovecot(host)
        assert "dot-lock" not in host.log(), host.log()


@own_house
def test_dovecot_with_maildir():
    """Dovecot moves files of a Maildir from new to cur and removes them while others come."""
    with Host({"local": {"format": "maildir"}}) as host:
        read_by_dovecot(host, "maildir:~/Maildir")


def mutt(host, path):
    """Has mutt move all messages of a mailbox into ~/taken, at a terminal as it needs one."""
    commands = [part for command in MUTT for part in ("-e", command)]
    terminal, end = pty.openpty()
    with os.fdopen(terminal, "rb", 0) as screen:
        shown = []
        reader = threading.Thread(target=drain, args=(screen, shown), daemon=True)
        reader.start()
        try:
            host.run(["mutt", "-f", path, *commands], "ann", stdin=end, capture_output=False,
                     environment={"TERM": "xterm"})
        finally:
            os.close(end)
            reader.join()


def drain(screen, shown):
    """Reads what a program shows at its terminal up to its end."""
    with contextlib.suppress(OSError):
        while octets := screen.read(65536):
            shown.append(octets)
