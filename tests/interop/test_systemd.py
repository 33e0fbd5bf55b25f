"""systemd starts the server, hands it sockets, and hears how it is. None runs here: its tools look
at the units, and `supervisor.py` keeps to its protocol."""

import contextlib
import re
import shutil
import signal
import socket
import stat
import subprocess
import threading
import time
from pathlib import Path

import clients
from accounts import Accounts
from disk import Faults
from harness import (PATIENCE, ROOT, Client, Closed, Server, as_root, binary, folder, free_port,
                     program, run, wait_for)
from supervisor import Supervised, tcp, unix

UNITS = ROOT / "systemd"
WATCHDOG = 1.0


def test_units():
    """systemd reads the units without a word, and counts their exposure at 2.0 or less."""
    with folder() as there:
        for unit in UNITS.iterdir():
            if unit.suffix in (".service", ".socket"):
                text = unit.read_text().replace("/usr/sbin/mailwren", str(binary()))
                (there / unit.name).write_text(text)
        for unit in sorted(there.iterdir()):
            done = subprocess.run([program("systemd-analyze"), "verify", "--man=no", unit],
                                  capture_output=True, text=True, timeout=60)
            assert (done.returncode, done.stderr) == (0, ""), f"{unit.name}: {done.stderr}"
        run([program("systemd-analyze"), "security", "--offline=true", "--threshold=20",
             "--no-pager", there / "mailwren.service"])


def test_account_and_folders():
    """systemd-sysusers makes the account and systemd-tmpfiles its folders, as the server has them."""
    with folder() as root:
        for name, target in (("sysusers", "sysusers.d"), ("tmpfiles", "tmpfiles.d")):
            (root / "usr/lib" / target).mkdir(parents=True)
            shutil.copy(UNITS / f"mailwren.{name}", root / f"usr/lib/{target}/mailwren.conf")
        (root / "etc").mkdir()
        run([program("systemd-sysusers"), f"--root={root}"])
        account = (root / "etc/passwd").read_text().split(":")
        assert account[0] == "mailwren" and account[6].strip().endswith("nologin"), account
        ids = int(account[2]), int(account[3])
        assert 0 < ids[0] < 1000, account
        run([program("systemd-tmpfiles"), f"--root={root}", "--create", "mailwren.conf"])
        found = {str(path.relative_to(root)): path.stat() for path in
                 [root / name for name in (
                     "run/mailwren", "var/spool/mailwren", "var/spool/mailwren/drop", "var/lib/mailwren")]}
        modes = {name: stat.S_IMODE(it.st_mode) for name, it in found.items()}
        assert modes == {"run/mailwren": 0o755, "var/spool/mailwren": 0o711,
                         "var/spool/mailwren/drop": 0o1733, "var/lib/mailwren": 0o711}, modes
        assert {(it.st_uid, it.st_gid) for it in found.values()} == {ids}, found


@as_root
def test_says_how_it_is():
    """It says when it is ready, reloads, is alive and stops, and no command finds the variables."""
    with folder() as there:
        (there / "aliases").write_text(f"printer: |/usr/bin/env >{there}/environment\n")
        there.chmod(0o777)
        settings = {"local": {"aliases": there / "aliases", "command_user": "nobody"}}
        for abstract in (False, True):
            with Supervised(settings, watchdog=WATCHDOG, abstract=abstract) as server:
                ready = server.wait_word("READY=1")
                assert f"{server.host}:{server.port}" in ready.fields["STATUS"], ready
                # When it says so, it is so.
                with server.client() as client:
                    client.expect(220)
                before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
                begin = len(server.hear())
                server.process.send_signal(signal.SIGHUP)
                reloading = server.wait_word("RELOADING=1", begin)
                after = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
                assert before <= int(reloading.fields["MONOTONIC_USEC"]) <= after, reloading
                server.wait_word("READY=1", server.words.index(reloading))
                wait_for("signs of life", lambda: sum("WATCHDOG=1" in it for it in server.hear()) > 3)
                assert min(gaps(server)) > WATCHDOG / 4, gaps(server)
                server.deliver("printer@mx.test")
                server.wait_queue(0)
                server.stop()
                stopping = server.wait_word("STOPPING=1")
                assert int(stopping.fields["EXTEND_TIMEOUT_USEC"]) > 1_000_000, stopping
            found = (there / "environment").read_text()
            assert "PATH=" in found and not re.search("NOTIFY|LISTEN_|WATCHDOG", found), found
            (there / "environment").unlink()


def test_watchdog():
    """While the queue manager or a listener hangs nobody says that it is alive, and then it is again."""
    hang = f":delay_enter={int(4 * WATCHDOG * 1e6)}:when=1"
    settings = {"smarthost": {"host": "127.0.0.1:9", "tls": "none"}}
    with Supervised(settings, watchdog=WATCHDOG) as server:
        server.deliver("ann@far.test")
        server.wait_log("deferred")
        server.wait_word("WATCHDOG=1")
        # It looks at the message now, which takes this disk long.
        before = len(gaps(server))
        with Faults(server, f"openat,renameat,renameat2,fsync,fdatasync{hang}", "queue"):
            server.process.send_signal(signal.SIGUSR1)
            server.wait_log("the queue manager has not answered")
            # Sessions are greeted all the same, which says nothing.
            with server.client() as client:
                client.expect(220)
            was_silent(server, before)
        before = len(gaps(server))
        with Faults(server, f"accept4{hang}", "listener"), server.client() as client:
            server.wait_log(f"the listener on 127.0.0.1:{server.port} has not answered")
            was_silent(server, before)
            client.expect(220)


def gaps(server):
    """The seconds between each two signs of life."""
    signs = [word.at for word in server.hear() if "WATCHDOG=1" in word]
    return [later - sooner for sooner, later in zip(signs, signs[1:])]


def was_silent(server, before):
    """Nobody says that the server is alive, behind the first `before` gaps, until what hangs comes
    back: where it only blinks, the gap is one of twice the usual."""
    wait_for("the end of a silence", lambda: max(gaps(server)[before:], default=0) > 2.5 * WATCHDOG)


class SupervisedAccounts(Accounts, Supervised):
    """Listeners for people, all handed over."""


def test_activation():
    """Real clients submit on handed-over ports 25, 587 and 465 and on the Unix socket."""
    def port(name):
        return tcp(lambda server: server.ports[name])
    held = {"mailwren.socket": [tcp(), unix()], "submission": [port("starttls")],
            "submissions": [port("implicit")]}

    class Activated(SupervisedAccounts):
        """Its people's ports are known by name, the others by address."""

        def settings(self):
            sections = super().settings()
            sections["listen.starttls"]["address"] = "systemd:submission"
            sections["listen.implicit"]["address"] = "systemd:submissions"
            return sections

    with Activated(held=held) as server:
        inode = (server.dir / "submit.sock").stat().st_ino
        for count, (transport, client) in enumerate(
                [("starttls", clients.curl), ("implicit", clients.curl),
                 ("starttls", clients.swaks), ("implicit", clients.msmtp)], 1):
            verdict = client(clients.Submission(server.ports[transport], transport, "PLAIN",
                                                server.authority.ca, server.files))
            assert verdict.ok, f"{transport}: {verdict}"
            server.wait_mail("zoe", count)
        server.deliver("ann@mx.test")
        run([server.linked(), "bob"], env=server.environment(), input=b"Subject: by socket\n\n")
        server.wait_mail("ann")
        server.wait_mail("bob")
        assert not list((server.spool / "drop").glob("*")), "nobody took it at the socket"
        assert (server.dir / "submit.sock").stat().st_ino == inode
        server.stop()
        assert (server.dir / "submit.sock").stat().st_ino == inode, "systemd's socket was replaced"


def test_socket_activate():
    """systemd-socket-activate starts it at the first client, who is served."""
    with Server() as model:
        model.stop()
        model.overrides = {"listen.other": {"address": "systemd:other"}}
        model.write_config()
        other = free_port()
        command = [program("systemd-socket-activate"), "-l", f"127.0.0.1:{model.port}", "-l",
                   f"127.0.0.1:{other}", "-l", model.dir / "submit.sock", "--fdname=a:other:c",
                   binary(), "serve", "--config", model.config_path]
        with model.log_path.open("ab") as log:
            model.process = subprocess.Popen(list(map(str, command)), stdout=log, stderr=log,
                                             env=model.environment())
        # It listens at once; the program is not there yet.
        wait_for("systemd's socket", lambda: "as 5" in model.log())
        with Client("127.0.0.1", other) as client:
            client.expect(220)
        model.deliver()
        model.wait_mail()


def serve(server, expect, **variables):
    """Runs the server of a configuration until it ends by itself, and returns what it said."""
    return run([binary(), "serve", "--config", server.config_path], expect,
               env={**server.environment(), **variables})


def test_descriptors_that_are_not_there():
    """Where more are announced than there are, the server takes nothing of its own for one of them."""
    with Supervised(held={"mail": [tcp()]}, missing=3) as server:
        assert server.log().count("is not open") == 3, server.log()
        server.deliver("ann@mx.test")
        server.wait_queue(0)
        server.process.send_signal(signal.SIGHUP)
        server.wait_word("RELOADING=1")


def test_missing_and_unused():
    """A socket that is missing is an error with its name; one that nobody uses, a warning."""
    spare = free_port()
    with Supervised(held={"x.socket": [tcp()], "spare": [tcp(spare)]}) as server:
        warning = server.wait_log(rf"127\.0\.0\.1:{spare} \(spare\), which no listener uses.*")[0]
        assert "systemd:spare" in warning and "stop the socket unit" in warning, warning
        numbers = []
        for link in Path(f"/proc/{server.process.pid}/fd").iterdir():
            # One that was closed meanwhile is none.
            with contextlib.suppress(FileNotFoundError):
                numbers.append(link.readlink())
        inode = Path(f"/proc/self/fd/{dict(server.sockets)['spare'].fileno()}").readlink()
        assert inode not in numbers, "it was not closed"
        server.stop()
        server.overrides = {"listen.smtp": {"address": "systemd:mail"}}
        server.write_config()
        # What is meant for another process is not for this one.
        for variables in ({}, {"LISTEN_PID": "1", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "mail"}):
            said = serve(server, 71, **variables)
            assert "systemd:mail" in said and "FileDescriptorName=mail" in said, said


class Sender(threading.Thread):
    """A client that sends message after message, and tries again what got no answer."""

    def __init__(self, server, number):
        super().__init__()
        self.server, self.number = server, number
        self.accepted, self.refused, self.cut = [], [], 0
        self.is_done = threading.Event()

    def run(self):
        count = 0
        while not self.is_done.is_set():
            count += 1
            name = f"{self.number}.{count}"
            try:
                with self.server.session() as client:
                    client.send_message("bob@client.test", ["ann@mx.test"],
                                        f"Subject: {name}\r\n\r\n".encode())
                    self.accepted.append(name)
            except ConnectionRefusedError:
                self.refused.append(name)
            # Told 421, or nothing, in the middle of a session: it comes again.
            except (Closed, ConnectionError, AssertionError):
                self.cut += 1


def restarted(server):
    """Starts the server anew, three times, while clients send."""
    senders = [Sender(server, number) for number in range(4)]
    for sender in senders:
        sender.start()
    try:
        for _ in range(3):
            enough = [len(sender.accepted) + 5 for sender in senders]
            wait_for("mail", lambda: all(
                len(sender.accepted) >= it for sender, it in zip(senders, enough)))
            server.stop()
            # Long enough for every client to come to a door without a server behind it.
            time.sleep(0.3)
            server.start()
        enough = [len(sender.accepted) + 5 for sender in senders]
        wait_for("mail", lambda: all(
            len(sender.accepted) >= it for sender, it in zip(senders, enough)))
    finally:
        for sender in senders:
            sender.is_done.set()
        for sender in senders:
            sender.join(PATIENCE)
    refused = [name for sender in senders for name in sender.refused]
    assert not refused, f"{len(refused)} clients were refused"
    server.wait_queue(0)
    texts = b"".join(file.read_bytes() for file in server.new_mail()).decode()
    arrived = re.findall(r"^Subject: (\S+)", texts, re.M)
    for sender in senders:
        assert set(sender.accepted) <= set(arrived), "a 250 was not kept"
    print(f"note: {len(arrived)} messages through 3 restarts, "
          f"{sum(sender.cut for sender in senders)} sessions cut")


def test_restart():
    """Nobody is refused while a server with systemd's sockets starts anew, and each 250 is kept."""
    with Supervised(held={"mailwren.socket": [tcp(), unix()]}) as server:
        restarted(server)


def test_restart_with_kept_sockets():
    """The same without a socket unit: the server has systemd keep the sockets that it bound."""
    with Supervised(keeps=True) as server:
        wait_for("two sockets", lambda: server.hear() and len(server.kept) == 2)
        inode = (server.dir / "submit.sock").stat().st_ino
        restarted(server)
        assert len(server.kept) == 2, server.kept
        assert (server.dir / "submit.sock").stat().st_ino == inode
        # A port that is no longer wanted does not stay open.
        server.stop()
        left = server.port
        server.port = free_port()
        server.write_config()
        server.start()
        wait_for("the old port to be closed", lambda: server.hear() and len(server.kept) == 2)
        assert f"kept-127.0.0.1-{server.port}" in server.kept, server.kept
        with contextlib.suppress(ConnectionRefusedError), socket.create_connection(
                ("127.0.0.1", left)):
            raise AssertionError("somebody listens at the old port still")
