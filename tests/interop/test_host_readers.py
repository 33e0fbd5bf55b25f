"""Dovecot and mutt, with the configuration of their packages, reading ann's mailbox while mail comes
into it: they mark, take out, delete and compact, and no message is lost, doubled or torn."""

import contextlib
import imaplib
import mailbox
import os
import shlex
import socket
import threading
from pathlib import Path

import ledger
from harness import wait_for
from host import Host, own_house

ANN = "ann@house.test"
# How often a reader looks, and how many messages come meanwhile each time.
ROUNDS, BURST = 10, 40
# How many are there before, so that compacting takes a while.
LARGE = 300
# The pauses of the sender, by which mail comes all the time that a reader is at it, in seconds.
DOVECOT_PAUSE, MUTT_PAUSE = 0.002, 0.01
# Moves the first messages into another mailbox, and leaves.
MUTT = ["set confirmappend=no confirmcreate=no delete=yes quit=yes move=no wait_key=no",
        "set mbox_type=mbox mark_old=no sleep_time=0",
        r"push '<tag-pattern>~m 1-10<enter><tag-prefix><save-message>/home/ann/taken<enter><quit>'"]


class Sender(threading.Thread):
    """Sends numbered messages to ann, one after the other, as many as it was asked for. A `with` block
    waits for all of them."""

    def __init__(self, host):
        super().__init__(daemon=True)
        self.host, self.sent, self.failure, self.pause = host, [], None, 0.0
        self.wanted, self.is_over = threading.Semaphore(0), threading.Event()

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.is_over.set()
        self.join()
        assert self.failure is None, self.failure

    def ask(self, count, pause=0.0):
        """Has so many more sent, with a pause before each, in seconds."""
        self.pause = pause
        self.wanted.release(count)

    def run(self):
        with self.host.session() as client:
            while self.failure is None:
                if not self.wanted.acquire(timeout=0.05):
                    if self.is_over.is_set():
                        return
                    continue
                self.is_over.wait(self.pause)
                token = f"message-{len(self.sent)}"
                reply = ledger.send(client, token, [ANN])
                self.failure = None if reply.code == 250 else reply
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
        wait_for("Dovecot", answers)
        with imaplib.IMAP4("127.0.0.1", timeout=30) as imap:
            imap.login("ann", "secret")
            yield imap
    finally:
        process.terminate()
        process.wait()


def answers():
    """Whether Dovecot takes connections yet."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", 143)):
        return True
    return False


def fetched(imap, which):
    """The messages of the inbox by their numbers: UID and octets."""
    imap.select("INBOX")
    _, (numbers,) = imap.search(None, which)
    found = {}
    for number in map(int, numbers.split()):
        # "1 (UID 7 BODY[] {310}" and the octets.
        _, ((head, octets), *_) = imap.fetch(str(number), "(UID BODY.PEEK[])")
        found[number] = int(head.split()[2]), octets
    return found


def remove_some(imap):
    """Reads what is new, removes every other one of it and the first message of all, marks the rest,
    and compacts the inbox. Returns what was read by UID. Where mail came meanwhile, Dovecot may forget
    a mark of an mbox, and remove a message only next time; so what counts is the UID."""
    found = fetched(imap, "UNSEEN")
    for number in found:
        imap.store(str(number), "+FLAGS", r"(\Deleted)" if number % 2 else r"(\Seen)")
    imap.store("1", "+FLAGS", r"(\Deleted)")
    imap.expunge()
    return dict(found.values())


def fill(host, sender):
    """Makes a large inbox."""
    sender.ask(LARGE)
    wait_for("a large inbox", lambda: len(host.contents("ann")) == LARGE)


def read_by_dovecot(host, location=None):
    """Removes messages by IMAP while others come in; each has been seen under one UID alone."""
    with dovecot(host, location) as imap:
        with Sender(host) as sender:
            fill(host, sender)
            seen = dict(fetched(imap, "ALL").values())
            imap.store("1:*", "+FLAGS", r"(\Seen)")
            for _ in range(ROUNDS):
                sender.ask(BURST, DOVECOT_PAUSE)
                seen |= remove_some(imap)
        host.wait_queue(0)
        left = dict(fetched(imap, "ALL").values())
        check(sender.sent, (seen | left).values())
        assert len(left) < len(sender.sent) - ROUNDS // 2, "next to nothing was removed"


@own_house
def test_dovecot_with_mbox():
    """Dovecot expunges from an mbox, which it compacts, while mail is appended."""
    with Host() as host:
        read_by_dovecot(host)


@own_house
def test_dovecot_with_maildir():
    """Dovecot moves files of a Maildir from new to cur and removes them while others come."""
    with Host({"local": {"format": "maildir"}}) as host:
        read_by_dovecot(host, "maildir:~/Maildir")


def move_by_mutt(host, path):
    """Has mutt move the first messages of a mailbox into ~/taken, at a terminal as it needs one."""
    command = ["mutt", "-f", str(path), *(part for it in MUTT for part in ("-e", it))]
    keyboard, fingers = os.pipe()
    is_over = threading.Event()

    def type_quit():
        # When mail came while it was leaving, it stays, and wants to be told again.
        while not is_over.wait(0.3):
            os.write(fingers, b"q")
    person = threading.Thread(target=type_quit, daemon=True)
    person.start()
    try:
        host.run(["script", "--quiet", "--return", "--command", shlex.join(command), "/dev/null"],
                 "ann", stdin=keyboard, environment={"TERM": "xterm"})
    finally:
        is_over.set()
        person.join()
        os.close(keyboard)
        os.close(fingers)


def read_by_mutt(host):
    """Moves messages while they come in, again and again; what came last stays where it is."""
    # Else it asks whether to make it.
    host.run(["mkdir", "Mail"], "ann")
    with Sender(host) as sender:
        fill(host, sender)
        for _ in range(ROUNDS):
            # It does not leave while mail comes, so that must end.
            sender.ask(BURST, MUTT_PAUSE)
            move_by_mutt(host, host.box("ann"))
    host.wait_queue(0)
    box = mailbox.mbox("/home/ann/taken", create=False)
    taken = [box.get_bytes(key) for key in box.keys()]
    assert len(taken) >= ROUNDS * 5, f"only {len(taken)} of {len(sender.sent)} were taken"
    seen = [file.read_bytes() for file in host.box("ann").glob("cur/*")]
    check(sender.sent, taken + host.contents("ann") + seen)


@own_house
def test_mutt_with_mbox():
    """mutt takes messages out of an mbox while others are appended."""
    with Host() as host:
        read_by_mutt(host)


@own_house
def test_mutt_with_maildir():
    """mutt takes messages out of a Maildir while others come."""
    with Host({"local": {"format": "maildir"}}) as host:
        read_by_mutt(host)
