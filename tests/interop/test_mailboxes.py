"""Mailboxes that mail readers work on while mail comes in, and what the two sides tell each other:
locks, sizes, quotas, folders."""

import re
import threading
import time

import ledger
import readers
from harness import Server, as_root, wait_for
from readers import OWNER, Reader, done, imap, unpacked

RECIPIENT = f"{OWNER}@mx.test"
# A reader is at work so many times, and for so many seconds, while mail comes in.
ROUNDS, SECONDS = 3, 5
# No writer sends more in a round, however slow the reader is: some end only when no mail comes.
MOST = 200


class Host(Server):
    """A server whose mailboxes belong to the accounts of the system."""

    def __init__(self, mailbox_format, **local):
        path = self.path_of(local.pop("folder", ""))
        super().__init__({"local": {"format": mailbox_format, "users": "system", "path": path,
                                    **local},
                          "log": {"level": "warn"}})
        self.dir.chmod(0o711)
        self.mail.chmod(0o1777)

    @staticmethod
    def path_of(folder):
        return f"DIR/mail/{{user}}{folder}"


class Writer(threading.Thread):
    """Sends numbered messages one after the other until it is told to stop."""

    def __init__(self, server, name, pause=0.01):
        super().__init__(daemon=True)
        self.server, self.prefix, self.pause, self.sent = server, name, pause, []
        self.stop, self.most = threading.Event(), MOST

    def go_on(self):
        """Lets it send as many again."""
        self.most = len(self.sent) + MOST

    def run(self):
        with self.server.session() as client:
            while not self.stop.wait(self.pause):
                if len(self.sent) >= self.most:
                    continue
                token = f"{self.prefix}-{len(self.sent)}"
                reply = ledger.send(client, token, [RECIPIENT])
                assert reply.code == 250, reply
                self.sent.append(token)


def take_while_mail_comes(mailbox_format, take, **local):
    """Two writers and a reader; in the end each message is there once and whole."""
    with Host(mailbox_format, **local) as server:
        reader = Reader(server, mailbox_format)
        server.deliver(RECIPIENT, ledger.content("first"))
        reader.locks = local.get("mbox_locks", reader.locks).replace(",", "")
        # mutt writes nothing while new mail comes in all the time.
        pause = 0.1 if take is readers.by_mutt else 0.01
        writers = [Writer(server, name, pause) for name in ("a", "b")]
        for writer in writers:
            writer.start()
        rounds, begin = 0, time.monotonic()
        while rounds < ROUNDS or time.monotonic() < begin + SECONDS:
            for writer in writers:
                writer.go_on()
            wait_for("mail", lambda: not reader.is_empty())
            take(reader)
            rounds += 1
        for writer in writers:
            assert writer.is_alive() and writer.sent, "it was stopped"
            writer.stop.set()
        taken = len(reader.arrivals(reader.saved).whole)
        assert taken, "nothing was taken while mail came in"
        for writer in writers:
            writer.join()
        server.wait_queue(0)
        wait_for("the mailbox to be empty", lambda: take(reader) or reader.is_empty())
        found = reader.arrivals(reader.box, reader.saved)
        expected = {"first": 1} | {token: 1 for writer in writers for token in writer.sent}
        assert not found.torn, found.torn[:3]
        assert found.whole == expected, {
            "lost": sorted(expected.keys() - found.whole.keys())[:5],
            "twice": [token for token, count in found.whole.items() if count > 1][:5]}
        print(f"note: {len(expected)} messages, {taken} of them taken {take.__name__} in {rounds} "
              "rounds while others came in")


def mbox_test(take, **local):
    @as_root
    def test():
        take_while_mail_comes("mbox", take, **local)
    return test


def maildir_test(take):
    @as_root
    def test():
        take_while_mail_comes("maildir", take)
    return test


for _take in readers.MBOX:
    _name = f"test_mbox_{_take.__name__}"
    globals()[_name] = mbox_test(_take)
    globals()[_name].__doc__ = \
        f"No message is lost, torn or doubled in an mbox while taken out {_take.__name__}."
for _take in readers.MAILDIR:
    _name = f"test_maildir_{_take.__name__}"
    globals()[_name] = maildir_test(_take)
    globals()[_name].__doc__ = \
        f"No message is lost, torn or doubled in a Maildir while taken out {_take.__name__}."


for _locks in ("fcntl, flock, dotlock", "dotlock", "fcntl", "flock"):
    _name = "test_mbox_locks_" + _locks.replace(", ", "_")
    globals()[_name] = mbox_test(readers.by_dovecot, mbox_locks=_locks)
    globals()[_name].__doc__ = f"The same where Dovecot and we take {_locks}, and no other lock."


@as_root
def test_lockfile_keeps_mail_out():
    """While a script has the lock of procmail's lockfile nothing comes in, then everything."""
    with Host("mbox") as server:
        reader = Reader(server, "mbox")
        reader.as_owner([unpacked("usr/bin/lockfile"), f"{reader.box}.lock"])
        writer = Writer(server, "a")
        writer.start()
        server.wait_log("locked by another program")
        assert reader.is_empty()
        writer.stop.set()
        writer.join()
        reader.as_owner(["rm", "-f", f"{reader.box}.lock"])
        server.wait_queue(0)
        assert reader.arrivals(reader.box).whole == {token: 1 for token in writer.sent}


@as_root
def test_notes_of_strangers():
    """Fields that readers of an mbox trust hide nothing from Dovecot and mailx: neither the
    message that comes with them nor the next."""
    with Host("mbox") as server:
        reader = Reader(server, "mbox")
        server.deliver(RECIPIENT, b"Subject: one\r\nContent-Length: 900\r\nStatus: RO\r\n"
                                  b"X-Status: D\r\nX-IMAPbase: 7 9\r\nX-UID: 4000000000\r\n\r\nx\r\n")
        server.deliver(RECIPIENT, b"Subject: two\r\n\r\ny\r\nFrom z\r\n>From z\r\n")
        listed = reader.as_owner([unpacked("usr/bin/bsd-mailx"), "-n", "-N"], "headers\nexit\n",
                                 MAIL=str(reader.box))
        assert "one" in listed and "two" in listed, listed
        with imap(reader) as session:
            assert done(session.select("INBOX")) == [b"2"]
            assert done(session.search(None, "UNSEEN", "UNDELETED")) == [b"1 2"]
            assert done(session.fetch("1:2", "(UID)")) == [b"1 (UID 1)", b"2 (UID 2)"]
            body = done(session.fetch("2", "(BODY.PEEK[TEXT])"))[0][1]
            assert body.startswith(b"y\r\n>From z\r\n>>From z\r\n"), body


@as_root
def test_quota_with_dovecot():
    """We and Dovecot see the same quota: our lines count there, and its lines here. Mail that is
    over it waits, and comes in when there is room."""
    plugins = """mail_plugins = quota
protocol imap {
  mail_plugins = quota imap_quota
}
plugin {
  quota = maildir:User quota
}"""
    with Host("maildir", quota="yes") as server:
        reader = Reader(server, "maildir")
        server.deliver(RECIPIENT)
        sheet = reader.box / "maildirsize"
        octets = next((reader.box / "new").iterdir()).stat().st_size
        # Dovecot takes the limits from the file.
        reader.as_owner(["sh", "-c", f"echo {octets * 4}S,3C >{sheet}; echo {octets} 1 >>{sheet}"])
        server.deliver(RECIPIENT)
        server.deliver(RECIPIENT)
        assert sheet.read_text().splitlines()[1:] == [f"{octets} 1"] * 3
        with imap(reader, plugins) as session:
            usage = b" ".join(done(session.getquota('"User quota"'))).decode()
            assert re.search(r"MESSAGE 3 3\b", usage), usage
            server.deliver(RECIPIENT)
            server.wait_log(r"4\.2\.2.*maildirsize")
            done(session.select("INBOX"))
            done(session.store("1", "+FLAGS", "(\\Deleted)"))
            done(session.expunge())
        assert f"-{octets} -1" in sheet.read_text(), sheet.read_text()
        server.wait_queue(0)
        assert sheet.read_text().splitlines()[-1] == f"{octets} 1"
        with imap(reader, plugins) as session:
            assert done(session.select("INBOX")) == [b"3"]
            usage = b" ".join(done(session.getquota('"User quota"'))).decode()
            assert re.search(r"MESSAGE 3 3\b", usage), usage


@as_root
def test_sizes_in_names():
    """The size in a name is the file's, and Dovecot believes it."""
    with Host("maildir") as server:
        reader = Reader(server, "maildir")
        server.deliver(RECIPIENT, ledger.content("big!"))
        file = next((reader.box / "new").iterdir())
        octets = file.stat().st_size
        assert file.name.endswith(f",S={octets}"), file.name
        lines = file.read_bytes().count(b"\n")
        with imap(reader) as session:
            done(session.select("INBOX"))
            size = done(session.fetch("1", "(RFC822.SIZE)"))[0]
            assert size == b"1 (RFC822.SIZE %d)" % (octets + lines), size
        log = (reader.home / "dovecot.log").read_text()
        assert not re.search("error|corrupt", log, re.I), log


@as_root
def test_folders_by_detail():
    """Mail for user+folder goes into a folder that Dovecot has made, and to others into the
    mailbox."""
    for mailbox_format, folder in (("maildir", "/.{detail}"), ("mbox", "/{detail}")):
        with Host(mailbox_format, folder=folder) as server:
            reader = Reader(server, mailbox_format)
            if mailbox_format == "mbox":
                reader.as_owner(["mkdir", reader.box])
                reader.box /= "inbox"
            server.deliver(RECIPIENT)
            with imap(reader, "" if mailbox_format == "maildir" else
                      f"mail_location = mbox:{reader.box.parent}:INBOX={reader.box}") as session:
                done(session.create("lists"))
                for detail in ("lists", "LISTS", "other", "a.b"):
                    server.deliver(f"{OWNER}+{detail}@mx.test")
                for name, count in (("INBOX", 3), ("lists", 2)):
                    assert done(session.select(name)) == [str(count).encode()], (name, mailbox_format)
