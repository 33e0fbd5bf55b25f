"""`check` on a host with real things in it: other servers on our ports, wrong owners and modes, a
name server, a full disk, a clock that was not set. And `check --fix`, which mends what is safe."""

import contextlib
import os
import pwd
import re
import shutil
import subprocess
import sys
from pathlib import Path

from disk import mount, own_mounts
from harness import PATIENCE, Server, as_root, binary, folder, own_network, run, within
from host import Host, own_house
from peers import dnsmasq
from providers import Exim, Postfix
from test_clock import library, ten_minutes_into_1970
from test_provider import World

EX_CONFIG = 78
# Every system has it, and nobody logs in to it.
ACCOUNT = "daemon"


class Place:
    """A folder with a configuration for a server of that account, which need not run."""

    def __init__(self, path, port, settings, account):
        self.path, self.config = path, path / "mailwren.ini"
        path.chmod(0o755)
        for name in ("spool", "state", "mail"):
            (path / name).mkdir()
            shutil.chown(path / name, account, account)
        self.write(f"[server]\nhostname = pi\nuser = {account}\nspool = {path}/spool\n"
                   f"state = {path}/state\nsocket = {path}/submit.sock\nmin_free_space = 1M\n"
                   f"[listen.smtp]\naddress = 127.0.0.1:{port}\ntls = none\n"
                   f"[local]\nformat = maildir\npath = {path}/mail/{{user}}\nusers = any\n"
                   f"aliases =\n{settings}")

    def write(self, text):
        """Writes the configuration."""
        self.config.write_text(text)
        self.config.chmod(0o644)

    def check(self, *options, expect=0, **more):
        """What `check` says, but for where the spool of a test may be and who reads root's mail."""
        printed = run([binary(), "--config", self.config, "check", *options], expect=expect,
                      text=True, **more)
        usual = r": note: |in memory \(tmpfs\)|mail for root|root's mail"
        return [line for line in printed.splitlines() if not re.search(usual, line)]


@contextlib.contextmanager
def place(port=0, settings="", account="root"):
    """Such a folder, for a while."""
    with folder() as path:
        yield Place(path, port, settings, account)


def clean(place_):
    """What `check` says when all is well."""
    return [f"{place_.config}: no mistakes found"]


@as_root
@own_network
def test_another_program_on_the_port_is_named():
    """Who listens on port 25 is told with program and pid, also where it has any address."""
    program = ("import socket, time; s = socket.create_server((%r, 25)); print(flush=True); "
               "time.sleep(99)")
    with place(25) as here:
        assert here.check() == clean(here)
        for address in ("127.0.0.1", "0.0.0.0"):
            process = subprocess.Popen([sys.executable, "-c", program % address],
                                       stdout=subprocess.PIPE)
            try:
                process.stdout.readline()
                lines = here.check(expect=EX_CONFIG)
                name = Path(os.readlink(f"/proc/{process.pid}/exe")).name
                by = f"{name} (pid {process.pid})"
                told = f"{here.config}:9: port 25 of 127.0.0.1 is taken by {by};"
                assert len(lines) == 1 and lines[0].startswith(told), lines
            finally:
                process.kill()
                process.wait()
        assert here.check() == clean(here)


@as_root
def test_mail_servers_on_the_port_are_named():
    """Postfix and Exim on our port are called by their names, with the way to stop them."""
    for kind, name in (Postfix, r"postfix \(master, pid \d+\)"), (Exim, r"exim4 \(pid \d+\)"):
        with World(kind) as world, place(world.provider.port("plain")) as here:
            lines = here.check(expect=EX_CONFIG)
            way = rf"stop it with `(systemctl disable --now|service) {name.split()[0]}"
            assert len(lines) == 1 and re.search(f"is taken by {name}; {way}", lines[0]), lines


@as_root
def test_our_own_server_is_no_mistake():
    """A server of ours that runs is a note; one with another spool on our port is not ours."""
    with Server({"server": {"hostname": "pi"}}) as server:
        printed = server.command("check")
        assert re.search(rf"note: mailwren \(pid {server.process.pid}\) listens on port "
                         rf"{server.port} of 127.0.0.1, {server.dir}/submit.sock", printed), printed
        with place(server.port) as here:
            lines = here.check(expect=EX_CONFIG)
            told = f"a mailwren with another spool (pid {server.process.pid})"
            assert len(lines) == 1 and told in lines[0], lines


@own_house
def test_a_sendmail_of_others_is_named():
    """On a host as it is installed nothing is wrong; another package's `sendmail` is told."""
    with Host({"server": {"hostname": "house"}}) as house:
        printed = house.command("check")
        complaints = [line for line in printed.splitlines() if ": warning: " in line]
        # Nobody reads root's mail there.
        assert len(complaints) == 1, printed
        for path in ("/usr/sbin/sendmail", "/usr/lib/sendmail"):
            Path(path).unlink(missing_ok=True)
        assert "/usr/sbin/sendmail: warning: there is none" in house.command("check")
        Path("/usr/sbin/sendmail").write_text("#!/bin/sh\n")
        Path("/usr/sbin/sendmail").chmod(0o755)
        # The house has a package of that name, so that others find a mail server.
        Path("/var/lib/dpkg/info/mailwren.list").write_text("/.\n")
        Path("/var/lib/dpkg/info/postfix.list").write_text("/usr/sbin\n/usr/sbin/sendmail\n")
        with open("/var/lib/dpkg/status", "a") as packages:
            packages.write("\nPackage: postfix\nStatus: install ok installed\nVersion: 3.7\n"
                           "Architecture: all\nMaintainer: ann <ann@mx.test>\nDescription: x\n")
        told = "/usr/sbin/sendmail: warning: it is that of the package postfix, so programs"
        printed = house.command("check")
        assert told in printed, printed
        Path("/var/lib/dpkg/info/postfix.list").unlink()
        assert "/usr/sbin/sendmail: warning: it is another program's" in house.command("check")


def state(path):
    """Owner, group and mode, as people write them."""
    status = path.stat()
    return f"{pwd.getpwuid(status.st_uid).pw_name} {status.st_gid} {status.st_mode & 0o7777:o}"


@as_root
def test_owners_and_modes_are_told_and_mended():
    """Wrong owners and modes are told and left alone; `--fix` mends each, and finds no more."""
    gid = pwd.getpwnam(ACCOUNT).pw_gid
    login = "[smarthost]\nhost = 127.0.0.1:1\ntls = starttls\nuser = me\npassword_file = %s\n" \
            "[rewrite]\nsender = me@far.example\n"
    with folder() as secrets:
        secrets.chmod(0o755)
        password = secrets / "password"
        password.write_text("sesame\n")
        with place(settings=login % password, account=ACCOUNT) as here:
            password.chmod(0o600)
            shutil.chown(password, ACCOUNT)
            assert here.check() == clean(here)
            spool = here.path / "spool"
            (spool / "drop").mkdir()
            (spool / "queue").mkdir()
            (spool / "lock").write_text("")
            (spool / "queue").chmod(0o777)
            shutil.chown(password, "root", "root")
            password.chmod(0o644)
            here.config.chmod(0o666)
            shutil.rmtree(here.path / "state")
            shutil.chown(spool, "root", "root")
            drop, queue, lock = (spool / name for name in ("drop", "queue", "lock"))
            victims = (here.config, password, spool, drop, queue, lock)
            before = [state(path) for path in victims]
            lines = here.check(expect=EX_CONFIG)
            for path in victims:
                assert [line for line in lines if line.startswith(f"{path}: ")], (path, lines)
            assert [state(path) for path in victims] == before, "it was to look only"
            assert not (here.path / "state").exists()

            lines = here.check("--fix")
            assert [line for line in lines if not line.startswith("mended: ")] == clean(here), lines
            assert len(lines) == len(victims) + 2, lines
            expected = {here.config: "root 0 644", password: f"root {gid} 640",
                        spool: f"{ACCOUNT} {gid} 755", drop: f"{ACCOUNT} {gid} 1733",
                        queue: f"{ACCOUNT} {gid} 750", lock: f"{ACCOUNT} {gid} 644",
                        here.path / "state": f"{ACCOUNT} {gid} 711"}
            assert {path: state(path) for path in expected} == expected
            assert here.check("--fix") == clean(here), "a second time there is nothing to mend"


@as_root
def test_links_are_not_mended():
    """What a link or a second name leads to keeps its owner and mode, and the check says why."""
    with folder() as elsewhere, place(account=ACCOUNT) as here:
        target = elsewhere / "target"
        target.write_text("not yours\n")
        target.chmod(0o600)
        (elsewhere / "folder").mkdir()
        (here.path / "spool/queue").symlink_to(elsewhere / "folder")
        os.link(target, here.path / "spool/lock")
        before = [state(target), state(elsewhere / "folder")]
        printed = "\n".join(here.check("--fix", expect=EX_CONFIG))
        assert "spool/queue: cannot be mended: it is a link" in printed, printed
        assert "spool/lock: cannot be mended: it has several names" in printed, printed
        assert [state(target), state(elsewhere / "folder")] == before


@as_root
def test_an_ordinary_user_is_told_what_needs_root():
    """Without root it looks at what it may, and mends nothing of others."""
    with place() as here:
        program = here.path / "mailwren"
        shutil.copy(binary(), program)
        program.chmod(0o755)
        here.config.chmod(0o666)
        account = pwd.getpwnam("nobody")
        done = subprocess.run([program, "--config", here.config, "check", "--fix"], text=True,
                              capture_output=True, timeout=60, user=account.pw_uid,
                              group=account.pw_gid, extra_groups=[])
        assert done.returncode == 0, done
        assert "cannot be mended: Operation not permitted" in done.stderr, done
        assert "try it as root" in done.stderr, done
        assert state(here.config).endswith(" 666")


@own_network
def test_names_in_the_dns():
    """The smarthost's name must be there; a host that brings mail to others needs a name itself."""
    # A record of a host has a reverse name, which leads back; that of an address has none.
    records = ("--host-record=mx.known.test,192.0.2.7", "--host-record=smart.test,192.0.2.1",
               "--address=/mx.nameless.test/192.0.2.8", "--local=/2.0.192.in-addr.arpa/")
    with dnsmasq(*records) as dns:
        def lines(*, hostname="pi", host=None, expect=0):
            smart = f"[smarthost]\nhost = {host}\ntls = none\n[rewrite]\nsender = me@far.example\n"
            with place(settings=(smart if host else "") + f"[dns]\nservers = {dns}\n") as here:
                text = here.config.read_text()
                here.write(text.replace("hostname = pi", f"hostname = {hostname}"))
                # One that waits in vain takes longer.
                printed, _ = within(2.5, lambda: here.check(expect=expect))
                return "\n".join(line for line in printed if line != clean(here)[0])

        assert lines(host="smart.test:25") == ""
        assert "host gone.test: there is no such name" in lines(host="gone.test", expect=EX_CONFIG)
        assert lines(hostname="mx.known.test") == ""
        nameless = lines(hostname="mx.nameless.test")
        assert "the address 192.0.2.8, from which mail goes, has no reverse name" in nameless
        assert "mx.gone.test: there is no such name" in lines(hostname="mx.gone.test")


@own_network
def test_a_name_server_that_is_away_costs_seconds():
    """Without an answer the check ends after a few seconds, and says so."""
    settings = "[smarthost]\nhost = smart.test\ntls = none\n[rewrite]\nsender = me@far.example\n"
    with place(settings=settings + "[dns]\nservers = 127.0.0.1:9\n") as here:
        printed = "\n".join(within(10, here.check)[0])
        assert re.search(r"name server|no network", printed), printed


@as_root
@own_mounts
def test_a_full_and_a_read_only_spool():
    """A spool that is full, without inodes, read-only or in memory is told."""
    with place() as here:
        spool = here.path / "spool"
        mount("-t", "tmpfs", "-o", "size=4m,nr_inodes=20,mode=0711", "none", spool)
        try:
            command = [binary(), "--config", here.config, "check"]
            assert "it is in memory (tmpfs)" in run(command)
            (spool / "big").write_bytes(b"x" * (3500 << 10))
            printed = "\n".join(here.check(expect=EX_CONFIG))
            assert "0 MiB are free, fewer than the 1 of" in printed, printed
            (spool / "big").unlink()
            with contextlib.suppress(OSError):
                for number in range(40):
                    (spool / str(number)).touch()
            assert "no more files (inodes)" in "\n".join(here.check(expect=EX_CONFIG))
            mount("-o", "remount,ro", spool)
            assert "its file system is read-only" in "\n".join(here.check(expect=EX_CONFIG))
        finally:
            subprocess.run(["umount", spool], check=True, timeout=PATIENCE)


@as_root
@own_mounts
def test_full_mailboxes():
    """Mailboxes on a file system of their own are looked at, too: they are no reason to refuse mail."""
    with place() as here:
        mail = here.path / "mail"
        said = f"{mail}: warning: 3 MiB are free, fewer than the"
        assert said not in "\n".join(here.check())
        mount("-t", "tmpfs", "-o", "size=4m,mode=0755", "none", mail)
        try:
            (mail / "big").write_bytes(b"x" * (512 << 10))
            printed = "\n".join(here.check())
            assert said in printed, printed
            mount("-o", "remount,ro", mail)
            assert f"{mail}: its file system is read-only" in "\n".join(here.check(expect=EX_CONFIG))
        finally:
            subprocess.run(["umount", mail], check=True, timeout=PATIENCE)


def test_a_clock_that_was_not_set():
    """A clock of 1970 is a mistake, told with what it shows."""
    with folder() as path:
        config = path / "mailwren.ini"
        user = pwd.getpwuid(os.geteuid()).pw_name
        config.write_text(f"[server]\nhostname = pi\nuser = {user}\nspool = {path}/s\n"
                          f"state = {path}/t\nsocket =\n[listen.smtp]\naddress = 127.0.0.1:0\n"
                          f"[local]\nformat = maildir\npath = {path}/{{user}}\nusers = any\n")
        faked = {**os.environ, "LD_PRELOAD": library(), "FAKETIME_NO_CACHE": "1",
                 "FAKETIME": f"{ten_minutes_into_1970():+d}"}
        printed = run([binary(), "--config", config, "check"], EX_CONFIG, env=faked, text=True)
        assert re.search(r"^the clock: it was not set: it shows .* 1970", printed, re.M), printed


@as_root
def test_what_is_left_over_is_told():
    """Mail that was kept or waits is counted, and whom nobody knows any more is named."""
    with Server({"server": {"hostname": "pi"}, "local": {"users": "DIR/users"},
                 "queue": {"direct": "0"}}) as server:
        (server.dir / "users").write_text("ann\nroot\n")
        # Its mailbox is not there, so that the message waits.
        shutil.rmtree(server.mail)
        server.deliver("ann@mx.test")
        server.wait_queue(1)
        server.stop()
        server.mail.mkdir()
        (server.dir / "users").write_text("root\n")
        (server.spool / "failed").mkdir(mode=0o700)
        (server.spool / "failed/x").write_text("")
        queued = [f for f in server.queue() if f.parent.name == "queue"]
        before = queued[0].read_bytes()
        printed = server.command("check")
        assert "failed: warning: 1 files there failed" in printed, printed
        assert "no server runs, and 1 message waits there" in printed, printed
        assert re.search(r"queue/\w+: warning: it is for ann@mx.test, who is not known", printed)
        assert queued[0].read_bytes() == before
