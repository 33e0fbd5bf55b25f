"""Each lock of an mbox by itself, between Dovecot and us: whichever of the two is stopped in the
middle of its work on the mailbox, the other one leaves it alone."""

import contextlib
import os
import signal
import threading
import time
from pathlib import Path

import ledger
from harness import PATIENCE, as_root, wait_for
from readers import Reader, done, imap
from test_mailboxes import RECIPIENT, Host

# So much is there that it takes a while to compact, in messages of some hundred KiB.
MANY = 20
# The lines of a message that takes a while to write.
LINES = 300_000
# How long a process runs between two looks at its locks, in seconds.
STEP = 0.0005
# What the kernel calls the locks of a file.
KINDS = {"fcntl": ("POSIX", "OFDLCK"), "flock": ("FLOCK",)}


def is_locked(box, lock):
    """Whether somebody has this lock on the mbox."""
    if lock == "dotlock":
        return Path(f"{box}.lock").exists()
    inode = str(box.stat().st_ino)
    # 1: POSIX  ADVISORY  WRITE 4711 08:01:1234 0 EOF
    held = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    return any(words[1] in KINDS[lock] and words[3] == "WRITE" and words[5].endswith(f":{inode}")
               for words in held)


def is_stopped(pid):
    """Whether no thread of a process runs."""
    states = []
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            states.append((thread / "stat").read_text().rpartition(")")[2].split()[0])
    return all(state in "TtZ" for state in states)


def stop(pid):
    """Stops a process."""
    os.kill(pid, signal.SIGSTOP)
    wait_for(f"process {pid} to stop", lambda: is_stopped(pid))


@contextlib.contextmanager
def stopped(pid, act, condition):
    """Does something in a thread, in the middle of which, at a moment when `condition()` is true, a
    process is stopped. It goes on, and the thread ends, with the `with` block."""
    failures = []

    def acting():
        try:
            act()
        except BaseException as failure:
            failures.append(failure)
    thread = threading.Thread(target=acting, daemon=True)
    stop(pid)
    try:
        thread.start()
        while not condition():
            assert thread.is_alive(), f"it was done without the lock: {failures}"
            os.kill(pid, signal.SIGCONT)
            time.sleep(STEP)
            stop(pid)
        yield
    finally:
        os.kill(pid, signal.SIGCONT)
    thread.join(PATIENCE)
    assert not thread.is_alive() and not failures, failures


@contextlib.contextmanager
def mailbox(lock):
    """A server, its reader, and an mbox with `MANY` messages, for which both take one lock alone."""
    with Host("mbox", mbox_locks=lock) as server:
        reader = Reader(server, "mbox")
        reader.locks = lock
        for number in range(MANY):
            server.deliver(RECIPIENT, ledger.content(f"{number}!"))
        server.wait_queue(0)
        yield server, reader


def while_dovecot_has(lock):
    """Dovecot is stopped while it compacts an mbox: what comes waits for it."""
    with mailbox(lock) as (server, reader), imap(reader) as session:
        done(session.select("INBOX"))

        def compact():
            for _ in range(MANY // 2):
                done(session.store("1", "+FLAGS", "(\\Deleted)"))
                done(session.expunge())
        with stopped(session.process.pid, compact, lambda: is_locked(reader.box, lock)):
            before = reader.box.read_bytes()
            server.deliver(RECIPIENT, ledger.content("new"))
            server.wait_log("locked by another program")
            assert reader.box.read_bytes() == before, "it was written to"
        server.wait_queue(0)
        found = reader.arrivals(reader.box)
        expected = dict.fromkeys([f"{number}!" for number in range(MANY // 2, MANY)] + ["new"], 1)
        assert (found.whole, found.torn) == (expected, []), found.torn[:3]


def while_we_have(lock):
    """We are stopped while we append to an mbox: Dovecot does not touch the mbox."""
    large = b"Subject: large\r\n\r\n" + b"a line\r\n" * LINES
    with mailbox(lock) as (server, reader), imap(reader, "mbox_lock_timeout = 2 secs") as session:
        done(session.select("INBOX"))
        done(session.store("1", "+FLAGS", "(\\Deleted)"))
        with stopped(server.process.pid, lambda: server.deliver(RECIPIENT, large),
                     lambda: is_locked(reader.box, lock)):
            before = reader.box.read_bytes()
            # It says that all is well, or that it cannot, and has removed none.
            assert session.expunge()[1][0] != b"1", "it was let in"
            assert reader.box.read_bytes() == before, "it was compacted"
        server.wait_queue(0)
        done(session.select("INBOX"))
        done(session.expunge())
        text = reader.box.read_bytes()
        assert text.count(b"\n\n" + b"a line\n" * LINES + b"\n") == 1, "torn"
        assert text.count(b"\nSubject: ") == MANY


@as_root
def test_an_old_lock_that_is_not_ours_to_remove():
    """Mail waits for a dot-lock that another user has left in a sticky folder, and the log does not
    claim that it was removed."""
    with Host("mbox") as server:
        reader = Reader(server, "mbox")
        lock = Path(f"{reader.box}.lock")
        lock.touch()
        os.utime(lock, (0, 0))
        server.deliver(RECIPIENT, ledger.content("new"))
        server.wait_log("locked by another program")
        assert "which was left behind" not in server.log() and lock.exists()
        lock.unlink()
        server.wait_queue(0)
        assert reader.arrivals(reader.box).whole == {"new": 1}


for _lock in ("dotlock", "fcntl", "flock"):
    for _scene in (while_dovecot_has, while_we_have):
        _name = f"test_{_scene.__name__}_{_lock}"
        globals()[_name] = as_root(lambda scene=_scene, lock=_lock: scene(lock))
        globals()[_name].__doc__ = _scene.__doc__.replace(":", f", with {_lock} alone:", 1)
