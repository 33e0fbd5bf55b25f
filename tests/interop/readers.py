"""Mail readers that take messages out of a mailbox while mail comes in: Dovecot, mutt, bsd-mailx,
mailutils' movemail, procmail's lockfile with a shell script, and Python.

Each is a function of a `Reader` that moves what it finds into the mbox or Maildir `saved`, once.
They run as the account `OWNER`, whose mailbox it is, and so want a test to be `@as_root`."""

import contextlib
import imaplib
import mailbox
import os
import pwd
import pty
import re
import select
import shlex
import signal
import subprocess
import time
import traceback

from harness import PATIENCE, TOOLS, program
from ledger import Arrivals
from providers import unpacked

OWNER = "daemon"
# How many messages an IMAP client takes at a time.
HANDFUL = 40


class Reader:
    """The owner of a mailbox of a server, with a home of its own. `format` is that of the mailbox."""

    def __init__(self, server, mailbox_format):
        self.server, self.format = server, mailbox_format
        self.account = pwd.getpwnam(OWNER)
        self.box = server.mail / OWNER
        self.home = server.dir / "home"
        self.home.mkdir()
        os.chown(self.home, self.account.pw_uid, self.account.pw_gid)
        self.saved = self.home / "saved"
        # The locks of an mbox that Dovecot takes, in this order.
        self.locks = "dotlock fcntl"
        # What Dovecot called the messages that were taken with it.
        self.numbers = set()

    def environment(self, **more):
        """What its programs find."""
        return {"HOME": str(self.home), "PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "TERM": "vt100",
                "USER": OWNER, "LOGNAME": OWNER, "LC_ALL": "C", **more}

    def as_owner(self, command, text="", expect=0, **more):
        """Runs a program to its end and returns what it printed."""
        done = subprocess.run(list(map(str, command)), input=text.encode(), stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, cwd=self.home, timeout=PATIENCE,
                              env=self.environment(**more), user=self.account.pw_uid,
                              group=self.account.pw_gid, extra_groups=[])
        printed = done.stdout.decode(errors="replace")
        assert expect is None or done.returncode == expect, \
            f"{command} ended with {done.returncode}: {printed}"
        return printed

    def become_owner(self):
        """Makes this process the owner's for good."""
        os.setgroups([])
        os.setgid(self.account.pw_gid)
        os.setuid(self.account.pw_uid)
        os.chdir(self.home)

    def is_empty(self):
        """Whether nothing is left to take."""
        if self.format == "mbox":
            texts = re.split(rb"(?m)^From ", self.box.read_bytes() if self.box.exists() else b"")
            return not any(map(without_notes, texts))
        return not any(any((self.box / part).glob("*")) for part in ("new", "cur"))

    @staticmethod
    def arrivals(*paths):
        """What is in these mailboxes."""
        texts = []
        for path in paths:
            if path.is_dir():
                parts = [path / part for part in ("new", "cur")]
                texts += [file.read_bytes() for part in parts for file in part.glob("*")]
            elif path.exists():
                box = mailbox.mbox(path, create=False)
                texts += filter(without_notes, (box.get_bytes(key) for key in box.keys()))
                box.close()
        return Arrivals(texts)


def without_notes(text):
    """The text, unless it is the message that Dovecot keeps in an empty mbox for itself."""
    return b"" if b"\nSubject: DON'T DELETE THIS MESSAGE" in text[:1000] else text


@contextlib.contextmanager
def imap(reader, settings=""):
    """A session with Dovecot's IMAP server on the mailbox, logged in. `INBOX` is the mailbox, and
    for Maildir its folders are Maildir++."""
    library = TOOLS / "usr/lib/dovecot"
    location = f"maildir:{reader.box}" if reader.format == "maildir" \
        else f"mbox:{reader.home}/mail:INBOX={reader.box}"
    config = reader.home / "dovecot.conf"
    config.write_text(f"""base_dir = {reader.home}/run
state_dir = {reader.home}/state
libexec_dir = {library}
mail_plugin_dir = {library}/modules
log_path = /dev/stderr
ssl = no
protocols = imap
default_internal_user = {OWNER}
default_internal_group =
first_valid_uid = 1
first_valid_gid = 1
mail_uid = {OWNER}
mail_gid = {reader.account.pw_gid}
mail_location = {location}
mailbox_list_index = no
mbox_write_locks = {reader.locks}
mbox_read_locks = {reader.locks}
stats_writer_socket_path =
{settings}
""")
    libraries = f"{library}:{library}/modules/old-stats"
    command = ["env", f"LD_LIBRARY_PATH={libraries}", f"USER={OWNER}", f"HOME={reader.home}",
               program("setpriv"), f"--reuid={reader.account.pw_uid}",
               f"--regid={reader.account.pw_gid}", "--clear-groups",
               str(unpacked("usr/bin/doveconf")), "-f", "service=imap", "-c", str(config),
               "-m", "imap", "-p", "-e", str(unpacked("usr/lib/dovecot/imap"))]
    log = shlex.quote(str(reader.home / "dovecot.log"))
    session = imaplib.IMAP4_stream(f"exec {shlex.join(command)} 2>>{log}")
    try:
        yield session
        session.logout()
    finally:
        session.process.kill()
        session.process.wait()


def done(answer):
    """What an IMAP command gave; one that was refused fails the test."""
    kind, data = answer
    assert kind == "OK", data
    return data


def by_dovecot(reader):
    """Fetches messages a handful at a time, and deletes those."""
    with imap(reader) as session, mailbox_file(reader) as saved:
        for last in handfuls(session):
            found = done(session.fetch(f"1:{last}", "(UID BODY.PEEK[])"))
            for head, text in (part for part in found if isinstance(part, tuple)):
                # Dovecot may keep a message over an EXPUNGE. It has one number all the same.
                validity = session.untagged_responses["UIDVALIDITY"][-1]
                number = (validity, re.search(rb"UID (\d+)", head)[1])
                if number not in reader.numbers:
                    reader.numbers.add(number)
                    saved.add(text.replace(b"\r\n", b"\n"))
            done(session.store(f"1:{last}", "+FLAGS.SILENT", "(\\Deleted)"))
            done(session.expunge())


def by_moving(reader):
    """Moves messages to another folder with Dovecot."""
    with imap(reader) as session:
        session.create("saved")
        if reader.format == "maildir":
            reader.saved = reader.box / ".saved"
        else:
            reader.saved = reader.home / "mail/saved"
        for last in handfuls(session):
            done(session._simple_command("MOVE", f"1:{last}", "saved"))


def handfuls(session):
    """Selects the mailbox, and gives the number of the last message to take now, several times."""
    for _ in range(10):
        count = int(done(session.select("INBOX"))[0])
        if not count:
            return
        yield min(count, HANDFUL)


@contextlib.contextmanager
def mailbox_file(reader):
    """The mbox of what was taken."""
    saved = mailbox.mbox(reader.saved)
    yield saved
    saved.flush()
    saved.close()


def by_python(reader):
    """Locks, takes every other message out, writes the rest anew."""
    child = os.fork()
    if child:
        assert os.waitpid(child, 0)[1] == 0, "Python's mailbox is not content"
        return
    status = 1
    try:
        reader.become_owner()
        take_by_python(reader)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def take_by_python(reader):
    """The same, in a process of its own."""
    if reader.format == "maildir":
        box = mailbox.Maildir(reader.box, create=False)
    else:
        box = mailbox.mbox(reader.box, create=False)
    try:
        box.lock()
    except mailbox.ExternalClashError:
        # Another program is at work.
        box.close()
        return
    with mailbox_file(reader) as saved:
        keys = box.keys()
        for key in keys[::2] if len(keys) > 3 else keys:
            saved.add(box.get_bytes(key))
            box.remove(key)
    box.flush()
    box.unlock()
    box.close()


def by_mutt(reader):
    """Tags all messages, saves and so deletes them, and writes the mailbox anew."""
    if reader.is_empty():
        return
    config = reader.home / "muttrc"
    config.write_text(f"""set confirmappend=no confirmcreate=no delete=yes quit=yes move=no
set mbox_type=mbox folder={reader.home} spoolfile={reader.box} wait_key=no sleep_time=0
set mail_check=0 header_cache= beep=no
push "<tag-pattern>~A<enter><tag-prefix><save-message><kill-line>{reader.saved}<enter><sync-mailbox><quit>"
""")
    child, terminal = pty.fork()
    if not child:
        reader.become_owner()
        command = [program("mutt"), "-n", "-F", str(config), "-f", str(reader.box)]
        os.execve(command[0], command, reader.environment())
    screen, end = b"", time.monotonic() + PATIENCE
    asked = time.monotonic()
    try:
        while time.monotonic() < end:
            if select.select([terminal], [], [], 0.2)[0]:
                screen += os.read(terminal, 65536)
            if time.monotonic() > asked + 1:
                # It does not end while it has new mail to show.
                os.write(terminal, b"q")
                asked = time.monotonic()
        os.kill(child, signal.SIGKILL)
        raise AssertionError(f"mutt does not end: {screen[-2000:]!r}")
    except OSError:
        # Its terminal is gone, and so is mutt.
        pass
    finally:
        os.waitpid(child, 0)
        os.close(terminal)


def by_mailx(reader):
    """bsd-mailx: saves all messages of the system mailbox, which takes them out of it."""
    if not reader.is_empty():
        reader.as_owner([unpacked("usr/bin/bsd-mailx"), "-n", "-N"],
                        f"save * {reader.saved}\nquit\n", expect=None, MAIL=str(reader.box))


def by_movemail(reader):
    """movemail of mailutils."""
    if not reader.is_empty():
        reader.as_owner([unpacked("usr/bin/movemail.mailutils"), "--ignore-errors",
                         f"mbox:{reader.box}", f"mbox:{reader.saved}"], expect=None)


def by_lockfile(reader):
    """A shell script with procmail's lockfile."""
    script = (f"{unpacked('usr/bin/lockfile')} -1 -r 20 {reader.box}.lock && {{ "
              f"cat {reader.box} >>{reader.saved}; : >{reader.box}; rm -f {reader.box}.lock; }}")
    if not reader.is_empty():
        reader.as_owner(["sh", "-c", script], expect=None)


MBOX = (by_dovecot, by_moving, by_python, by_mutt, by_mailx, by_movemail, by_lockfile)
MAILDIR = (by_dovecot, by_moving, by_python, by_mutt)
