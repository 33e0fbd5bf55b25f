"""A spool whose disk is full or read-only: clients are told to come again, nothing is lost, the
log is not flooded, and mail flows again without a restart."""

import contextlib
import signal

from disk import drain, make_read_only, mount, own_mounts, tmpfs
from harness import Client, Server, binary, program, run, smarthost, wait_for
from ledger import FAR, LOCAL, at_peer, in_maildir, lines_of, send
from peers import Peer

EX_TEMPFAIL = 75
# More than are needed to fill the spool of 1 MiB: each takes a page, and its record another.
MANY = 400
LINE = b"0123456789abcdef" * 4 + b"\r\n"


@contextlib.contextmanager
def small_spool(min_free_space, peer=None):
    """A server whose spool is a file system of 1 MiB."""
    settings = {
        "server": {"min_free_space": min_free_space, "max_message_size": "10M"},
        # Tried again when the test says so.
        "queue": {"retry": "1h"},
    }
    if peer:
        settings["smarthost"] = smarthost(peer.port)
    server = Server(settings)
    # Unmounted when the server has ended and before its folder goes.
    server.stack.enter_context(tmpfs(server.spool, "1m"))
    with server:
        yield server


@contextlib.contextmanager
def blocked_mailbox(server):
    """Nothing can be delivered to ann."""
    path = server.mail / "ann"
    path.write_bytes(b"This is no Maildir.\n")
    yield
    path.unlink()


def mail(client, parameters=""):
    """MAIL and its reply, and RSET when that is positive."""
    reply = client.command(f"MAIL FROM:<bob@mx.test>{parameters}")
    if reply.code == 250:
        client.command("RSET", 250)
    return reply


def is_told(reply, code, status):
    """Checks a reply."""
    assert (reply.code, reply.status) == (code, status), f"{reply}, not {code} {status}"


def fill(server):
    """Sends messages that say how small they are until even these are refused at MAIL; gives
    what was promised."""
    promised = []
    with server.session() as client:
        for number in range(MANY):
            token = f"fill-{number}"
            if lines_of(token) > 3:
                continue
            reply = send(client, token, [LOCAL], " SIZE=300")
            if reply.code != 250:
                is_told(reply, 452, "4.3.1")
                return promised
            promised.append(token)
    raise AssertionError(f"{MANY} messages do not fill the spool")


@own_mounts
def test_full_spool():
    """A full spool: 452 4.3.1 at MAIL for all clients, a bounce still fits, and it drains."""
    with Peer({"RCPT": b"450 4.2.0 later\r\n"}) as peer, small_spool("256K", peer) as server:
        with blocked_mailbox(server):
            with server.session() as client:
                assert send(client, "bounces", [FAR]).code == 250
            promised = fill(server)
            assert len(promised) > 50, promised
            with server.session() as client, Client(server.dir / "submit.sock") as local:
                local.expect(220)
                local.command("EHLO local", 250)
                for _ in range(5):
                    is_told(mail(client), 452, "4.3.1")
                    is_told(mail(local), 452, "4.3.1")
                    is_told(mail(local, " SIZE=200000"), 452, "4.3.1")
            run([binary(), "sendmail", "ann@mx.test"], expect=EX_TEMPFAIL,
                input=b"x: y\n\n" + LINE * 3000, env=server.environment())
            assert server.log().count("octets free") == 1, server.log()
            assert "Too little free space" not in server.log(), server.log()
            # What is kept free is for this.
            peer.answers["RCPT"] = b"550 5.1.1 nobody\r\n"
            bounce = wait_for("the bounce", lambda: retried(server) and server.new_mail("bob"))
            assert b"zoe@far.test" in bounce[0].read_bytes()
        drain(server)
        arrived = in_maildir(server)
        assert arrived.whole == dict.fromkeys(promised, 1) and not arrived.torn, arrived.whole
        server.deliver("eve@mx.test")
        server.wait_mail("eve")
        print(f"note: {len(promised)} messages filled it")


def retried(server):
    """Has the queue tried now."""
    server.process.send_signal(signal.SIGUSR1)
    return True


@own_mounts
def test_declared_size():
    """A declared SIZE that does not fit is refused at MAIL, before the message is read."""
    with small_spool("512K") as server, server.session() as client:
        is_told(mail(client, " SIZE=500000"), 250, "2.1.0")
        is_told(mail(client, " SIZE=530000"), 452, "4.3.1")
        is_told(mail(client, " SIZE=9000000"), 452, "4.3.1")
        # Never, and not only now.
        is_told(mail(client, " SIZE=20000000"), 552, "5.3.4")
        is_told(mail(client), 250, "2.1.0")


@own_mounts
def test_size_not_declared():
    """A message whose size nobody declared does not use up what is kept free."""
    with small_spool("512K") as server, server.session() as client:
        client.envelope("bob@mx.test", [LOCAL])
        client.command("DATA", 354)
        is_told(client.command(b"Subject: x\r\n\r\n" + LINE * 12000 + b".\r\n"), 452, "4.3.1")
        assert send(client, "small", [LOCAL]).code == 250
        server.wait_mail()
        server.wait_queue(0)


@own_mounts
def test_no_space_left():
    """Without a reserve, a message that the disk does not take is refused and leaves nothing."""
    with Peer() as peer, small_spool("0", peer) as server, server.session() as client:
        for number in range(3):
            for recipients in ([LOCAL], [FAR]):
                client.envelope("bob@mx.test", recipients)
                client.command("DATA", 354)
                content = b"Subject: x\r\n\r\n" + LINE * 20000
                is_told(client.command(content + b".\r\n"), 452, "4.3.1")
            token = f"small-{number}"
            assert send(client, token, [LOCAL, FAR]).code == 250
            drain(server)
            assert in_maildir(server).whole[token] == at_peer(peer).whole[token] == 1
        assert not in_maildir(server).torn and not at_peer(peer).torn
        server.wait_queue(0)
        assert server.log().count("cannot be kept") == 1, server.log()


def test_file_size_limit():
    """A mailbox at the limit of a file's size is full, 4.2.2; the server lives on."""
    settings = {"local": {"format": "mbox", "path": "DIR/mail/{user}"}, "queue": {"retry": "1h"}}
    with Server(settings, wrapper=[program("prlimit"), "--fsize=30000"]) as server:
        mailbox = server.mail / "ann"
        old = b"From bob@mx.test Sun Nov 22 08:00:00 2026\n\n" + b"x" * 28000 + b"\n\n"
        mailbox.write_bytes(old)
        server.deliver("ann@mx.test", b"Subject: x\r\n\r\n" + LINE * 60)
        server.wait_log(r"deferred to=<ann@mx.test> status=4\.2\.2 .*move mail out of the mailbox")
        assert mailbox.read_bytes() == old, "a part of the message is there"
        server.deliver("eve@mx.test")
        wait_for("mail for somebody else", lambda: (server.mail / "eve").exists())


@own_mounts
def test_read_only_spool():
    """A spool that turns read-only: 451 at MAIL, one error in the log, and mail once it is back."""
    with small_spool("64K") as server, server.session() as client:
        with blocked_mailbox(server):
            assert send(client, "waits", [LOCAL]).code == 250
            server.wait_log("deferred to=<ann@mx.test>")
            make_read_only(server.spool)
            for _ in range(5):
                is_told(mail(client), 451, "4.3.0")
                is_told(mail(client, " SIZE=1000"), 451, "4.3.0")
            assert server.log().count("cannot be used") == 1, server.log()
        # It can be read, and so delivered, but not removed.
        wait_for("the delivery", lambda: retried(server) and server.new_mail())
        server.wait_log("cannot be removed")
        for _ in range(5):
            before = server.log().count("told to try")
            retried(server)
            wait_for("another try", lambda n=before: server.log().count("told to try") > n)
        mount("-o", "remount,rw", server.spool)
        assert send(client, "comes", [LOCAL]).code == 250
        drain(server)
        assert in_maildir(server).whole == {"waits": 1, "comes": 1}, in_maildir(server).whole
        assert server.log().count("cannot be removed") == 1, server.log()
