"""A spool that is away for a while: clients are told to come again, and mail flows once it is
back, without a restart."""

import shutil
import subprocess

from disk import drain, mount, own_mounts, program, tmpfs
from harness import Server, run, wait_for
from ledger import LOCAL, in_maildir, send
from test_disk import blocked_mailbox, mail


def away_and_back(server, take_away, bring_back, keeps_mail=True):
    """451 while the spool is away; afterwards what was in it is delivered, and what comes."""
    with server.session() as client:
        with blocked_mailbox(server):
            assert send(client, "waits", [LOCAL]).code == 250
            server.wait_log("deferred to=<ann@mx.test>")
            # Behind the line in the log comes its record, in two steps.
            records = server.spool / "state"
            wait_for("the record", lambda: [file.suffix for file in records.iterdir()] == [""])
            take_away()
            wait_for("451 while the spool is away", lambda: mail(client).code == 451)
            for _ in range(5):
                reply = mail(client)
                assert (reply.code, reply.status) == (451, "4.3.0"), reply
            assert server.log().count("spool: cannot be used") == 1, server.log()
            bring_back()
            wait_for("mail to be taken again", lambda: mail(client).code == 250)
        assert send(client, "comes", [LOCAL]).code == 250
    drain(server)
    expected = {"waits": 1, "comes": 1} if keeps_mail else {"comes": 1}
    assert in_maildir(server).whole == expected, in_maildir(server).whole
    server.stop()
    server.start()
    server.wait_queue(0)
    assert in_maildir(server).whole == expected, in_maildir(server).whole


def let_go(path):
    """Unmounts whatever is mounted there at the end."""
    subprocess.run([program("umount"), "-q", "-l", path])


@own_mounts
def test_unmounted_and_mounted_again():
    """A spool whose file system is unmounted and mounted again."""
    server = Server()
    disk = server.dir / "disk"
    server.stack.enter_context(tmpfs(disk, "4m"))
    server.spool.mkdir()
    attach = lambda: mount("--bind", disk, server.spool)
    detach = lambda: run([program("umount"), "-l", server.spool])
    attach()
    server.stack.callback(let_go, server.spool)
    with server:
        away_and_back(server, detach, attach)


@own_mounts
def test_another_disk_over_it():
    """A spool over which an empty file system is mounted: it is that spool then."""
    server = Server()
    server.stack.callback(let_go, server.spool)
    with server, server.session() as client:
        assert send(client, "first", [LOCAL]).code == 250
        drain(server)
        mount("-t", "tmpfs", "-o", "size=4m", "none", server.spool)
        assert send(client, "second", [LOCAL]).code == 250
        assert (server.spool / "queue").is_dir()
        wait_for("both", lambda: in_maildir(server).whole == {"first": 1, "second": 1})


def test_moved_away_and_back():
    """A spool whose folder is moved away and back."""
    with Server() as server:
        away = server.dir / "away"
        away_and_back(server, lambda: server.spool.rename(away), lambda: away.rename(server.spool))


def test_removed_and_made_again():
    """A spool whose folder is removed, with what was in it, and made again empty."""
    with Server() as server:
        away_and_back(server, lambda: shutil.rmtree(server.spool),
                      lambda: server.spool.mkdir(), keeps_mail=False)
