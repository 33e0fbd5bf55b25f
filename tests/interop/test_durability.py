"""What got its 250 outlives system calls that fail, one after the other, and disks whose power
is cut."""

import contextlib
import os
import random
import signal
import time
from pathlib import Path

from disk import Ext4, Faults, drain, own_mounts
from harness import PATIENCE, Closed, Server, folder, smarthost, wait_for
from ledger import FAR, LOCAL, Load, at_peer, in_mailbox, send
from peers import Peer

# The calls by which a message is kept, how they fail, and the status of the refusal.
FAULTS = {
    "openat:error=ENOSPC": "4.3.1",
    "fsync,fdatasync:error=EIO": "4.3.0",
    "write,pwrite64,writev:error=ENOSPC": "4.3.1",
    "linkat:error=ENOSPC": "4.3.1",
    "renameat,renameat2:error=EIO": "4.3.0",
    "unlinkat:error=EIO": "4.3.0",
    "pread64:error=EIO": "4.3.0",
}
# Who makes them: a session, the two kinds of delivery, and the queue manager.
THREADS = ("session", "local", "relay", "queue")
# No message makes so many calls of one kind in one thread.
MOST_CALLS = 60
# Power cuts for each format.
CUTS = 5
# Messages that have been delivered at a cut while their removal from the spool, which nobody
# waits for, is not on disk: those between two commits of the journal.
MOST_UNDER_WAY = 40


class Trial:
    """A server and a next hop, and what they said of each message."""

    def __init__(self, mailbox_format, stack):
        self.format = mailbox_format
        self.peer = stack.enter_context(Peer())
        self.server = stack.enter_context(Server({
            "local": {"format": mailbox_format},
            "smarthost": smarthost(self.peer.port),
            # Each message is looked for by itself.
            "digest": {"burst": 0},
            # One thread of each kind, so that the calls of a message are counted in one.
            "queue": {"local_workers": 1, "relay_workers": 1},
            # Lines of the log are written calls too.
            "log": {"level": "warn"},
        }))
        self.promised, self.others = {}, {}
        self.deliver("first", [LOCAL, FAR])

    def deliver(self, token, recipients):
        """Sends a message without any fault."""
        with self.server.session() as client:
            assert send(client, token, recipients).code == 250
        self.promised[token] = recipients
        drain(self.server)

    def fail(self, what, victims, recipients, status, then):
        """Sends a message while calls of the threads `victims` fail as `what` says, or the
        process ends there. It may be refused, with this status. `then` is called while the
        fault is still there. Whether a call of a file was hit is returned."""
        token = f"{what.replace(' ', '')}/{victims}/{'+'.join(recipients)}!"
        self.others[token] = recipients
        # Threads of earlier sessions may be there, waiting for the next one; they call nothing.
        with self.server.session() as client, Faults(self.server, what, victims) as faults:
            with contextlib.suppress(Closed):
                reply = send(client, token, recipients)
                if reply.code == 250:
                    self.promised[token] = self.others.pop(token)
                else:
                    codes = {"4.3.0": 451, "4.3.1": 452}
                    assert (reply.code, reply.status) == (codes[status], status), (token, reply)
            then()
        was_hit = faults.was_hit()
        if was_hit and what.startswith("fsync") and victims == "session" and status:
            assert token in self.others, f"{token} was promised after a flush that failed"
        return was_hit

    def check(self, most):
        """Everybody who was promised a message has it; nobody has any more than `most` times.
        Returns what is not whole in the mailbox."""
        places = {LOCAL: in_mailbox(self.server, self.format), FAR: at_peer(self.peer)}
        for token, recipients in self.promised.items():
            for recipient in recipients:
                copies = places[recipient].whole[token]
                assert 1 <= copies <= most, f"{token} came {copies} times to {recipient}"
        for token in self.others:
            copies = [place.whole[token] for place in places.values()]
            assert max(copies) <= most, f"{token} was not promised, and came {copies} times"
        assert not places[FAR].torn, places[FAR].torn
        return places[LOCAL].torn


def one_by_one(faults, attempt):
    """Has every call of a message hit once. `attempt` gets what strace shall do and in which
    thread, and says whether there was such a call. Returns how many there were."""
    total = 0
    for what in faults:
        for victims in THREADS:
            for when in range(1, MOST_CALLS):
                if not attempt(f"{what}:when={when}", victims):
                    break
                total += 1
            else:
                raise AssertionError(f"{what} has no end in {victims}")
    return total


def fail_and_run_on(mailbox_format, recipients):
    """Each call fails once; the server runs on and delivers everything exactly once."""
    with contextlib.ExitStack() as stack:
        trial = Trial(mailbox_format, stack)
        hits = one_by_one(FAULTS, lambda what, victims: trial.fail(
            what, victims, recipients, FAULTS[what.rpartition(":")[0]],
            lambda: drain(trial.server)))
        trial.server.stop()
        trial.server.start()
        trial.server.wait_queue(0)
        torn = trial.check(most=1)
        assert not torn, torn
        print(f"note: {mailbox_format}, {len(recipients)} recipients: {hits} calls failed, "
              f"{len(trial.promised)} messages promised, {len(trial.others)} refused")


def lives(server):
    """Whether the server is there, and not just about to end."""
    try:
        with server.session():
            return True
    except (OSError, Closed):
        return False


def crash_at_each_call(mailbox_format, recipients):
    """The process is killed at each call once, and started again."""
    calls = [f"{what.partition(':')[0]}:signal=SIGKILL" for what in FAULTS]
    with contextlib.ExitStack() as stack:
        trial = Trial(mailbox_format, stack)
        server = trial.server

        def attempt(what, victims):
            trial.fail(what, victims, recipients, None, lambda: wait_for(
                "the kill or the end of the delivery",
                lambda: server.process.poll() is not None or not server.queue()))
            if lives(server):
                return False
            server.process.wait(PATIENCE)
            server.start()
            drain(server)
            return True
        hits = one_by_one([*calls, "sendto:signal=SIGKILL"], attempt)
        server.wait_queue(0)
        torn = trial.check(most=2)
        # What a kill leaves at the end of an mbox is there for good.
        assert not torn or mailbox_format == "mbox" and len(torn) <= hits, torn
        print(f"note: {mailbox_format}, {len(recipients)} recipients: {hits} calls killed, "
              f"{len(trial.promised)} messages promised, {len(torn)} torn in the mailbox")


def test_each_call_fails_maildir():
    """Whatever call fails once, a Maildir and a next hop get what was promised, once."""
    fail_and_run_on("maildir", [LOCAL])
    fail_and_run_on("maildir", [LOCAL, FAR])


def test_each_call_fails_mbox():
    """Whatever call fails once, an mbox and a next hop get what was promised, once."""
    fail_and_run_on("mbox", [LOCAL])
    fail_and_run_on("mbox", [LOCAL, FAR])


def test_kill_at_each_call_maildir():
    """Killed at whatever call, a Maildir and a next hop get what was promised."""
    crash_at_each_call("maildir", [LOCAL])
    crash_at_each_call("maildir", [LOCAL, FAR])


def test_kill_at_each_call_mbox():
    """Killed at whatever call, an mbox and a next hop get what was promised."""
    crash_at_each_call("mbox", [LOCAL])
    crash_at_each_call("mbox", [LOCAL, FAR])


def test_disk_that_takes_nothing():
    """While every flush or every write fails, messages are refused and nothing is delivered."""
    for mailbox_format in ("maildir", "mbox"):
        with contextlib.ExitStack() as stack:
            trial = Trial(mailbox_format, stack)
            for what, status in FAULTS.items():
                if what.startswith(("fsync", "write")):
                    for recipients in ([LOCAL], [FAR], [LOCAL, FAR]):
                        what_always = f"{what}:when=1+"
                        assert trial.fail(what_always, None, recipients, status, lambda: None)
            assert len(trial.others) == 6, trial.promised
            trial.deliver("last", [LOCAL, FAR])
            trial.server.kill()
            trial.server.start()
            trial.server.wait_queue(0)
            torn = trial.check(most=1)
            assert not torn, torn
            came = in_mailbox(trial.server, mailbox_format).whole
            assert not set(came) & set(trial.others), came


def cut_power_again_and_again(mailbox_format):
    """Loads a server whose spool and mailboxes are on one disk and cuts the power of that;
    everything that was promised is there once the disk is mounted again."""
    seed = random.randrange(1 << 32)
    print(f"note: seed {seed}")
    moments = random.Random(seed)
    with folder() as images, Peer() as peer:
        server = Server({"local": {"format": mailbox_format}, "smarthost": smarthost(peer.port),
                         "digest": {"burst": 0}})
        disk = Ext4(images / "disk", server.dir / "disk", 64)
        server.spool, server.mail = disk.path / "spool", disk.path / "mail"
        server.stack.callback(disk.unmount)
        disk.mount()
        server.mail.mkdir()
        with server:
            promised = {}
            for cut in range(CUTS):
                load = [Load(server, f"c{cut}t{n}") for n in range(4)]
                for thread in load:
                    thread.start()
                wait_for("the load to run", lambda: all(len(t.promised) > 2 for t in load))
                time.sleep(moments.uniform(0.0, 0.5))
                halt(server)
                disk.cut_power()
                server.kill()
                for thread in load:
                    thread.join(60)
                    promised |= thread.promised
                disk.unmount()
                disk.mount()
                age_locks(server)
                server.start()
                drain(server)
            server.wait_queue(0)
            check_after_cuts(in_mailbox(server, mailbox_format), at_peer(peer), promised)


def halt(server):
    """Lets no thread of the server do anything any more but end the system call that it is in,
    such as a flush, as a host without power does. Replies that are on their way count. A server
    that ran on would see flushes succeed that were under way at the cut: the kernel looks at
    the shutdown of the disk before a flush, not behind it."""
    tasks = Path(f"/proc/{server.process.pid}/task")
    server.process.send_signal(signal.SIGSTOP)

    def states():
        found = set()
        for task in tasks.iterdir():
            # One that ended meanwhile has none.
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                # The state is the first field behind the name, which is in parentheses.
                found.add((task / "stat").read_text().rpartition(")")[2].split()[0])
        return found
    wait_for("the server to stand still", lambda: states() <= {"T", "D"})


def age_locks(server):
    """Lets the five minutes pass after which a dot-lock without an owner is removed: its text
    is not flushed, so that a power cut may leave it empty."""
    for lock in server.mail.glob("*.lock"):
        print(f"note: a lock was left with {lock.stat().st_size} octets")
        os.utime(lock, (time.time() - 400,) * 2)


def check_after_cuts(local, far, promised):
    """Nothing is lost, nothing torn, and twice came only what was under way at a cut."""
    for recipient, place in ((LOCAL, local), (FAR, far)):
        lost = [token for token, recipients in promised.items()
                if recipient in recipients and not place.whole[token]]
        assert not lost, f"lost for {recipient}: {len(lost)} of {len(promised)}: {lost[:10]}"
        twice = [token for token, copies in place.whole.items() if copies > 1]
        print(f"note: {len(promised)} promised, {len(place.whole)} came to {recipient}, "
              f"{len(twice)} more than once, {len(place.torn)} torn")
        assert len(twice) <= MOST_UNDER_WAY * CUTS, twice
        assert max(place.whole.values()) <= 1 + CUTS, place.whole.most_common(3)
        # The end of an mbox, where one message was being written, may be there in part.
        assert len(place.torn) <= (CUTS if local is place else 0), place.torn


@own_mounts
def test_power_cut_maildir():
    """What was promised is in the Maildir after the power of its disk was cut in mid-load."""
    cut_power_again_and_again("maildir")


@own_mounts
def test_power_cut_mbox():
    """What was promised is in the mbox after the power of its disk was cut in mid-load."""
    cut_power_again_and_again("mbox")
