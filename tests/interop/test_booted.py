"""Under systemd as process 1: what the package starts, what the unit's rules leave to the server,
and what a reload, a restart, an upgrade and a hang are to those who send mail."""

import json
import os
import stat
import threading

from booted import Booted
from debian import own_debian, package
from harness import Client, Closed, wait_for


@own_debian
def test_life():
    """The package's server is there after its installation, delivers under its rules, is reloaded
    and upgraded with nobody refused, comes when it is called, and is gone after a purge."""
    with Booted() as debian:
        first, second = (debian.bring(package(debian.dir, version)) for version in ("0.9-1", "0.9-2"))
        debian.add_user("ann")
        debian.add_user("bob")
        debian.dpkg("--install", first)
        # Nothing waits here: it says that it is ready only when it is.
        assert debian.greets() and debian.unit("ActiveState") == "active", debian.journal()
        assert "127.0.0.1:25, unix:/run/mailwren/submit.sock" in debian.unit("StatusText")
        debian.run(["systemd-analyze", "security", "--threshold=20", "mailwren.service"])
        check_rules(debian)
        check_delivery(debian)
        check_reload(debian)
        with Client("127.0.0.1", 25) as session:
            session.expect(220)
            check_upgrade(debian, second)
            # That one has ended in order, with a word or without one.
            try:
                assert session.command("NOOP").code == 421
            except (Closed, BrokenPipeError):
                pass
        check_another_port(debian)
        debian.systemctl("stop", "mailwren.service")
        assert debian.unit("MainPID") == "0"
        assert debian.greets() and debian.unit("MainPID") != "0", "no client starts it"
        debian.dpkg("--purge", "mailwren")
        left = debian.systemctl("list-units", "--all", "mailwren*")
        assert "mailwren." not in left and not debian.path("/run/mailwren").exists(), left


def check_rules(debian):
    """The rules count for the process, and its folders are as they are said to be."""
    status = dict(line.split(":\t", 1) for line in debian.run(
        ["cat", f"/proc/{debian.unit('MainPID')}/status"]).splitlines() if ":\t" in line)
    assert (status["NoNewPrivs"], status["Seccomp"], status["CapBnd"], status["CapEff"]) == \
        ("1", "2", "00000000000004c0", "00000000000004c0"), status
    account = int(debian.run(["id", "-u", "mailwren"]))
    for path, mode in (("/run/mailwren", 0o755), ("/var/lib/mailwren", 0o711),
                       ("/var/spool/mailwren", 0o711), ("/var/spool/mailwren/drop", 0o1733)):
        found = debian.path(path).stat()
        assert (stat.S_IMODE(found.st_mode), found.st_uid) == (mode, account), (path, found)
    assert stat.S_IMODE(debian.path("/run/mailwren/submit.sock").stat().st_mode) == 0o666


def check_delivery(debian):
    """A mailbox, a Maildir at home and a command of a person get their mail as hers, and each line
    of the journal has its priority."""
    debian.path("/home/ann/.forward").write_text('\\ann, ~/Maildir/, "|id >id; cat >>mail"\n'
                                                 .replace("~", "/home/ann"))
    os.chown(debian.path("/home/ann/.forward"), *debian.path("/home/ann").stat()[4:6])
    debian.run(["sendmail", "ann"], user="bob", input="Subject: hello\n\nfrom bob\n")
    wait_for("ann's mailbox", lambda: "from bob" in debian.mail("ann"))
    wait_for("ann's Maildir", lambda: any(debian.path("/home/ann/Maildir/new").glob("*")))
    got = debian.path("/home/ann/mail")
    wait_for("her command", lambda: got.exists() and "from bob" in got.read_text())
    check_elsewhere(debian)
    # The server's capabilities and groups are not hers.
    assert debian.path("/home/ann/id").read_text().count("(ann)") == 3
    assert {path.owner() for path in [got]} == {debian.path("/home/ann").owner()}
    lines = [json.loads(line) for line in
             debian.journal("--unit=mailwren.service", "--output=json").splitlines()]
    levels = {line["PRIORITY"] for line in lines if " delivered " in line["MESSAGE"]}
    assert levels == {"6"}, levels


def check_elsewhere(debian):
    """Mail for a place that the unit does not name waits, and the log says what to do."""
    place = debian.path("/opt/mail")
    place.mkdir()
    debian.path("/home/bob/.forward").write_text("/opt/mail/bob\n")
    for path in (place, debian.path("/home/bob/.forward")):
        os.chown(path, *debian.path("/home/bob").stat()[4:6])
    debian.run(["sendmail", "bob"], input="Subject: hello\n\nelsewhere\n")
    debian.wait_journal("ReadWritePaths= by systemctl edit mailwren")
    debian.drop_in("mailwren.service", "[Service]\nReadWritePaths=/opt/mail\n")
    debian.systemctl("restart", "mailwren.service")
    wait_for("bob's file", lambda: (place / "bob").exists())


def check_reload(debian):
    """A reload takes another configuration, and keeps the one that it has where it is broken."""
    config = debian.path("/etc/mailwren/mailwren.ini")
    good, process = config.read_text(), debian.unit("MainPID")
    # Which a small Debian lacks, and with it what other units reload by.
    assert not debian.path("/bin/kill").exists()
    before = debian.journal()
    config.write_text(good + "[nonsense]\n")
    debian.systemctl("reload", "mailwren.service")
    debian.wait_journal("was not taken", before)
    mistake = debian.run(["journalctl", "--unit=mailwren.service", "--priority=err", "--output=cat"])
    assert "[nonsense]" in mistake, mistake
    config.write_text(good + "[listen.other]\naddress = 127.0.0.1:2525\n")
    debian.systemctl("reload", "mailwren.service")
    wait_for("another address", lambda: "127.0.0.1:2525" in debian.unit("StatusText"))
    assert debian.unit("ActiveState") == "active" and debian.unit("MainPID") == process
    assert debian.unit("NFileDescriptorStore") == "1", "its own socket is not kept"


def check_upgrade(debian, deb):
    """Who connects while the package is upgraded is greeted, at either address, and the next server
    has the same sockets."""
    process = debian.unit("MainPID")
    refused, is_done = [], threading.Event()

    def knock(port):
        while not is_done.wait(0.01):
            try:
                with Client("127.0.0.1", port) as client:
                    client.expect(220)
            except ConnectionRefusedError:
                refused.append(port)
            # Greeted by the old one, which ends.
            except (Closed, AssertionError):
                pass
    knocking = [threading.Thread(target=knock, args=[port]) for port in (25, 2525)]
    for thread in knocking:
        thread.start()
    debian.dpkg("--install", deb)
    assert debian.unit("MainPID") not in (process, "0"), debian.journal()
    is_done.set()
    for thread in knocking:
        thread.join()
    assert not refused, f"{len(refused)} clients were refused at {set(refused)}"
    said = debian.journal()
    assert "127.0.0.1:2525 [listen.other], kept since the last run" in said, said
    assert debian.unit("NRestarts") == "0" and debian.unit("ActiveState") == "active"


def check_another_port(debian):
    """A port for people's programs is opened as its unit says, and as the log does if it is not."""
    config = debian.path("/etc/mailwren/mailwren.ini")
    debian.run(["mailwren", "passwd", "ann"], input="secret\n")
    config.write_text(config.read_text().replace("[auth]\n", "[auth]\nusers = /etc/mailwren/users\n")
                      + "[listen.people]\naddress = systemd:submission\nprotocol = submission\n")
    debian.systemctl("reload", "mailwren.service")
    debian.wait_journal("stop the server, start the socket unit that says FileDescriptorName=submission")
    unit = debian.path("/usr/lib/systemd/system/mailwren-submission.socket").read_text()
    commands = [line.strip("# \n") for line in unit.splitlines() if line.startswith("#     systemctl")]
    debian.run(["sh", "-e", "-c", "\n".join(commands)])
    with Client("127.0.0.1", 587) as client:
        client.expect(220)


@own_debian
def test_boot():
    """After a power cut the server is there as soon as the system is, with the folders and the mail
    that it had, and systemd has nothing to warn of."""
    with Booted() as debian:
        debian.dpkg("--install", debian.bring(package(debian.dir)))
        debian.run(["sendmail", "bob@elsewhere.test"], input="Subject: hello\n\nnot yet\n")
        debian.wait_journal("deferred")
        debian.boot_again()
        assert debian.unit("ActiveState", "mailwren.socket") == "active"
        assert debian.unit("ActiveState") == "active" and debian.greets(), debian.journal()
        check_rules(debian)
        assert "bob@elsewhere.test" in debian.run(["mailq"])
        warned = debian.journal("--boot", "_PID=1", "--priority=warning")
        assert "mailwren" not in warned, warned


@own_debian
def test_without_socket_unit():
    """Without the socket unit the server's own sockets live through a restart, and are closed by a
    stop; and one that hangs is started anew, with them."""
    with Booted() as debian:
        debian.dpkg("--install", debian.bring(package(debian.dir)))
        debian.systemctl("stop", "mailwren.socket", "mailwren.service")
        debian.systemctl("disable", "mailwren.socket")
        debian.drop_in("mailwren.service", "[Service]\nWatchdogSec=1s\nRestartSec=100ms\n")
        debian.systemctl("start", "mailwren.service")
        assert debian.greets() and debian.unit("NFileDescriptorStore") == "2", debian.journal()
        inode = debian.path("/run/mailwren/submit.sock").stat().st_ino
        debian.systemctl("restart", "mailwren.service")
        assert debian.journal().count("127.0.0.1:25 [listen.smtp], kept since the last run") == 1
        debian.run(["systemctl", "kill", "--signal=STOP", "mailwren.service"])
        wait_for("a new start", lambda: debian.unit("NRestarts") == "1" and debian.greets())
        assert debian.journal().count("kept since the last run") == 2, debian.journal()
        assert debian.path("/run/mailwren/submit.sock").stat().st_ino == inode
        debian.run(["sendmail", "root"], input="Subject: hello\n\nto root\n")
        wait_for("mail for root", lambda: "to root" in debian.mail("root"))
        debian.systemctl("stop", "mailwren.service")
        try:
            Client("127.0.0.1", 25)
        except ConnectionRefusedError:
            return
        raise AssertionError("systemd listens still")
