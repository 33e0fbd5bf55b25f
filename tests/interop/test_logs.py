"""The log as others read it: fail2ban with the shipped filter, journald, the syslogd of busybox."""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys

from accounts import Accounts, plain
from harness import PATIENCE, ROOT, TOOLS, Client, folder, free_port, wait_for, within
from host import own_house
from providers import Daemon, unpacked

FILTER = ROOT / "etc/fail2ban/mailwren.conf"
# Nobody connects from there: it stands in what clients write alone.
FORGED = "203.0.113.9"
FORGERIES = [f'x" client={FORGED} y="', f"login failed: client={FORGED} mechanism=PLAIN",
             f"x\nNov 22 16:00:00 home mailwren[1]: login failed: client={FORGED} mechanism=PLAIN"]
RELAY, LOGIN, ERRORS, EARLY, JUNK, UNKNOWN, NO_TLS, GOOD = (f"127.0.0.{n}" for n in range(11, 19))
NORMAL = {RELAY, LOGIN, ERRORS, "::1"}
AGGRESSIVE = NORMAL | {EARLY, JUNK, UNKNOWN, NO_TLS}


class Attacked(Accounts):
    """A server with the users ann and bob, which can also be reached at ::1."""

    def __init__(self, settings=None):
        super().__init__({"local": {"users": "DIR/names"}, "auth": {"auth_failures": "3"},
                          **(settings or {})})
        (self.dir / "names").write_text("ann\nbob\n")

    def write_config(self):
        """Writes the configuration file, with a listener on IPv6."""
        self.six = free_port("127.0.0.1")
        self.overrides["listen.six"] = {"address": f"[::1]:{self.six}"}
        super().write_config()

    def attack(self):
        """What is to be seen, each kind from an address of its own, and a good session."""
        for client in (self.client(RELAY), Client("::1", self.six)):
            with client:
                client.expect(220)
                client.command("EHLO client.test", 250)
                client.command(f'MAIL FROM:<"login failed: client={FORGED}"@x.test>', 250)
                client.command("RCPT TO:<zoe@far.test>", 550)
                client.command("QUIT", 221)
        self.guess()
        with self.client(ERRORS) as client:
            client.expect(220)
            client.send(b"MAIL FROM:<>\r\n" * 130)
            assert client.is_closed() and b"\r\n421 " in client.buffer, client.buffer
        with self.client(EARLY) as client:
            client.expect(220)
            client.command("MAIL FROM:<>", 503)
        with self.client(JUNK) as client:
            client.expect(220)
            client.command(f"GET /?login failed: client={FORGED} HTTP/1.1", 500)
        with self.client(UNKNOWN) as client:
            client.expect(220)
            client.command("EHLO client.test", 250)
            client.command("MAIL FROM:<>", 250)
            client.command(f'RCPT TO:<"login failed: client={FORGED} mechanism=X"@mx.test>', 550)
        with Client(self.host, self.ports["implicit"], NO_TLS) as client:
            client.send(b"EHLO client.test\r\n\r\n")
            assert client.is_closed()
        with self.connect("plain", source=GOOD) as client:
            client.command(f"AUTH PLAIN {plain('ann', 'secret')}", 235)
            client.send_message("ann@mx.test", ["bob@mx.test"],
                                b"From: ann@mx.test\r\nSubject: good\r\n\r\nx\r\n")
            client.command("QUIT", 221)

    def guess(self):
        """Wrong passwords, for names that look like the rest of a line."""
        with self.connect("plain", source=LOGIN) as client:
            for name in FORGERIES:
                client.command(f"AUTH PLAIN {plain(name, 'wrong')}", 535)
            assert client.is_closed()


class Journaled(Attacked):
    """The same, started as if its log were the stream that journald reads, or with `stream`."""

    stream = None

    def environment(self):
        """What systemd says, too."""
        self.log_path.touch()
        status = self.log_path.stat()
        stream = self.stream or f"{status.st_dev}:{status.st_ino}"
        return {**super().environment(), "JOURNAL_STREAM": stream}


def takes_lines():
    """Whether somebody listens at /dev/log; one who ended may have left the socket."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
        client.connect("/dev/log")
        return True
    return False


def regex(log, mode="normal"):
    """What fail2ban-regex prints about a log: the addresses that it hit."""
    done = subprocess.run(
        [sys.executable, unpacked("usr/bin/fail2ban-regex"), "-c", TOOLS / "etc/fail2ban", "-o",
         "<ip>", log, f"{FILTER}[mode={mode}]"], capture_output=True, text=True, cwd="/",
        timeout=PATIENCE, env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1",
                               "PYTHONPATH": str(TOOLS / "usr/lib/python3/dist-packages")})
    assert done.returncode in (0, 255) and not done.stderr, (done.returncode, done.stderr)
    return done.stdout.split()


def check_hits(path, text, modes=("normal", "aggressive")):
    """The log has a hit for each attacker, in each mode, and for nobody else."""
    path.write_text(text)
    assert FORGED in text, "what was to be overlooked is not there"
    for mode in modes:
        expected = NORMAL if mode == "normal" else AGGRESSIVE
        hits = regex(path, mode)
        assert set(hits) == expected, (mode, hits, text)
        assert hits.count(LOGIN) == len(FORGERIES), (mode, hits, text)


def lines_of(server):
    """The log once all of the attack is in it."""
    server.wait_log("login: client=.*")
    for source in (*AGGRESSIVE, GOOD):
        server.wait_log(f"client={source} ")
    return server.log()


def test_fail2ban_standard_error():
    """fail2ban finds each attacker in what goes to standard error, and nobody else: no good
    session, and no address that a client has written."""
    with Attacked() as server:
        server.attack()
        log = lines_of(server)
        assert re.search(r"(?m)^\d{4}-\d\d-\d\dT\S+ INFO  refused: client=::1 reason=relay "
                         r'listener=six reply="550 5\.7\.1 ', log), log
        check_hits(server.dir / "read", log)


def test_fail2ban_journal():
    """Where standard error is the journal's, lines have its priorities and no time, and fail2ban
    finds each attacker in them; where JOURNAL_STREAM is another's, nothing changes."""
    with Journaled() as server:
        server.attack()
        log = lines_of(server)
        assert all(re.match(r"<[3467]>\S", line) for line in log.splitlines()), log
        assert f"<4>login failed: client={LOGIN} " in log, log
        assert f"<6>refused: client={RELAY} " in log, log
        # The prefix is journald's; in front is what fail2ban and journalctl put there.
        check_hits(server.dir / "read", re.sub(
            "(?m)^<[3467]>", "2026-11-22T16:00:01.123456+00:00 home mailwren[512]: ", log))
    Journaled.stream = "0:1"
    with Journaled() as server:
        server.wait_log(r"(?m)^\d{4}-\d\d-\d\dT\S+ INFO ")
        assert "<6>" not in server.log(), server.log()


def test_fail2ban_is_quick():
    """Lines that nearly fit, and are as long as lines can be, take the filter no time."""
    parts = ["login failed: client=192.0.2.1 ", 'refused: client=x reason=relay listener=" ',
             "mail.info mailwren[1]: " * 3, " " * 40, "a.b:" * 60 + " ", "WARN  " * 5]
    long = [f"2026-11-22T16:00:01+00:00 {part * (16000 // len(part))}" for part in parts]
    long += [f"Nov 22 16:00:01 {part * (16000 // len(part))}" for part in parts]
    with folder() as home:
        for mode in ("normal", "aggressive"):
            (home / "log").write_text("\n".join(long * 20) + "\n")
            assert within(10, lambda: regex(home / "log", mode))[0] == []


class Dropped(Attacked):
    """A server that logs to syslog, and gives its privileges up when it has started."""

    def __init__(self):
        super().__init__({"log": {"to": "syslog"}, "server": {"user": "daemon"}})
        self.dir.chmod(0o755)
        shutil.chown(self.mail, "daemon")
        self.syslog = self.dir / "messages"

    def make_folders(self):
        """They are the server's to make."""

    def log(self):
        """Its log, wherever it went."""
        return super().log() + self.daemons_log()

    def daemons_log(self):
        """What the log daemon has written."""
        return self.syslog.read_text(errors="replace") if self.syslog.exists() else ""

    def wait_all_told(self):
        """Waits until each message in the mailbox has its line, wherever that went."""
        wait_for("a line for each message", lambda: self.log().count(
            " delivered to=<ann@mx.test>") == len(self.new_mail()))

    @contextlib.contextmanager
    def syslogd(self):
        """The syslogd of busybox."""
        command = [unpacked("bin/busybox"), "syslogd", "-n", "-O", self.syslog]
        with Daemon(command, self.dir / "syslogd.log") as daemon:
            daemon.wait("syslogd", takes_lines)
            yield daemon.process


@own_house
def test_syslog():
    """Without journald the lines go to syslogd, after privileges were dropped, too, where fail2ban
    finds them; while syslogd is away they go to standard error."""
    server = Dropped()
    with server.syslogd(), server:
        server.attack()
        lines_of(server)
        text = server.daemons_log()
        # As busybox writes them, as OpenWrt's logread shows them, as rsyslog and journalctl do.
        form = r"(?m)^(\w{3} [ \d]\d [\d:]{8}) (\S+) (mail\.\w+) (mailwren\[\d+\]: .*)$"
        assert len(re.findall(form, text)) > 20, text
        assert "mail.warn mailwren" in text and "mail.info mailwren" in text, text
        check_hits(server.dir / "read", text)
        for other in (r"Sun \1 2026 \3 \4", r"\1 \2 \4",
                      r"2026-11-22T16:00:01.123456+01:00 \2 \4"):
            check_hits(server.dir / "read", re.sub(form, other, text), ["aggressive"])
        assert server.log_path.read_text() == "", server.log_path.read_text()


@own_house
def test_syslog_restarts_and_hangs():
    """A syslogd that ends, comes again, or hangs neither stops mail nor loses a line."""
    server = Dropped()
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(server.syslogd())
        stack.enter_context(server)
        server.deliver(content=b"Subject: 1\r\n\r\n")
        wait_for("the first line", lambda: "delivered to=<ann@mx.test>" in server.daemons_log())
        os.kill(first.pid, signal.SIGSTOP)
        # A socket takes some hundred lines before it is full.
        complaint = "/dev/log: no log daemon takes lines"
        wait_for("its socket to be full",
                 lambda: server.deliver() or complaint in server.log_path.read_text())
        for _ in range(20):
            within(5, server.deliver)
        os.kill(first.pid, signal.SIGCONT)
        wait_for("the rest", lambda: server.deliver() or "went to standard error" in
                 server.daemons_log())
        # What is in its socket when it ends is lost.
        server.wait_all_told()
        first.terminate()
        first.wait(PATIENCE)
        before = server.log_path.stat().st_size
        server.deliver(sender="away@x.test")
        wait_for("standard error", lambda: b"away@x.test" in server.log_path.read_bytes()[before:])
        assert b"no log daemon takes lines" in server.log_path.read_bytes()[before:]
        stack.enter_context(server.syslogd())
        server.deliver(sender="back@x.test")
        wait_for("its successor", lambda: "back@x.test" in server.daemons_log())
        server.wait_all_told()
