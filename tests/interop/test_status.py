"""`mailwren status`, `mailwren trace` and the journal of events, as a person and a program use
them."""

import json
import os
import re
import signal
import stat
import subprocess
from pathlib import Path

from disk import make_read_only, own_mounts, tmpfs
from harness import Server, binary, free_port, run, smarthost, smtp_source, wait_for
from peers import Peer

EX_NOINPUT, EX_UNAVAILABLE, EX_NOPERM = 66, 69, 77
REFUSES = {"RCPT": b"550 5.1.1 \x1b]0;owned\x07 no such user\r\n"}


def status(server, expect=0):
    """What `mailwren status --json` knows."""
    return json.loads(server.command("status", "--json", expect=expect))


def trace(server, wanted, expect=0):
    """What `mailwren trace --json` knows, once the journal has it."""
    return json.loads(server.command("trace", "--json", wanted, expect=expect))


def events(server, wanted):
    """The names of all events in a trace, in their order within each message."""
    done = subprocess.run([binary(), "trace", "--json", wanted], env=server.environment(),
                          capture_output=True, text=True, timeout=60)
    messages = json.loads(done.stdout)["messages"]
    return [event["event"] for message in messages for event in message["events"]]


def wait_events(server, wanted, *names):
    """Waits until a trace has these events, and returns the trace."""
    wait_for(f"{names} in the trace of {wanted}",
             lambda: set(names) <= set(events(server, wanted)))
    return trace(server, wanted)


def journal(server):
    """The files of the journal."""
    return [file for file in (server.dir / "state").iterdir() if file.name.startswith("events")]


def is_harmless(text):
    """Nothing in it steers a terminal."""
    return not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", text)


def test_delivered_and_bounced():
    """A delivery and a bounce are told by id and by address, the report with what it is about;
    a restart forgets nothing."""
    with Peer(REFUSES) as peer, Server({"smarthost": smarthost(peer.port)}) as server:
        server.deliver("ann@mx.test", sender="sue@mx.test")
        server.deliver("bob@far.test", sender="sue@mx.test")
        told = wait_events(server, "bob@far.test", "received", "bounced", "reported")
        message, = told["messages"]
        bounced = next(event for event in message["events"] if event["event"] == "bounced")
        assert bounced["fields"]["status"] == "5.1.1" and message["queue"] is None, message
        report = next(event["fields"]["in"] for event in message["events"]
                      if event["event"] == "reported")
        wait_events(server, report, "delivered")
        # By either id both are told.
        for wanted in (message["id"], report):
            both = trace(server, wanted)["messages"]
            assert [it["id"] for it in both] == [message["id"], report], both
        server.stop()
        server.start()
        text = server.command("trace", message["id"])
        assert is_harmless(text) and "bounced" in text and "owned" in text, text
        assert events(server, "ann@mx.test") == ["received", "delivered"]
        assert events(server, "ann") == events(server, "<ann@MX.test>")
        log = server.log()
        in_log = re.search(rf"{message['id']}: (bounced .*)", log)[1]
        assert in_log in (server.dir / "state/events").read_text(), in_log
        today = wait_for("both in the count", lambda: status(server)["today"])
        assert (today["received"], today["delivered"], today["bounced"]) == (3, 2, 1), today


def test_queue():
    """What waits is told with its next try and the last error, by destination."""
    with Server({"smarthost": smarthost(free_port()), "queue": {"retry": "1h"}}) as server:
        for name in ("one", "two"):
            server.deliver(f"{name}@far.test", sender="sue@mx.test")
        known = wait_for("both to be deferred",
                         lambda: (it := status(server))["queue"]["destinations"]
                         and it["queue"]["destinations"][0]["last_error"]
                         and it["queue"]["destinations"][0]["waiting"] == 2 and it)
        destination, = known["queue"]["destinations"]
        assert known["queue"]["messages"] == destination["waiting"] == 2, known
        assert destination["destination"].startswith("[127.0.0.1]:"), known
        assert "refused" in destination["last_error"] and destination["next_try"], known
        told = wait_events(server, "one@far.test", "received")
        message, = told["messages"]
        assert message["queue"]["recipients"][0]["address"] == "one@far.test", message
        for other in ("three@far.test", "0000000000001"):
            assert trace(server, other, EX_NOINPUT)["messages"] == [], other
        server.command("queue", "hold", message["id"])
        assert "held by" in server.command("trace", message["id"])
        assert status(server)["queue"]["states"].get("held") == 1
        screen = server.command("status")
        assert "last error: " in screen and "next try in" in screen, screen


def test_digest():
    """Each message in a digest leads to the digest, and the digest to all of them."""
    with Peer() as peer:
        server = Server({"smarthost": smarthost(peer.port), "local": {"aliases": "DIR/aliases"},
                         "digest": {"burst": "1"}})
        (server.dir / "aliases").write_text("root: me@far.test\n")
        with server:
            for _ in range(3):
                server.deliver("root@mx.test", sender="root@mx.test")
            wait_for("two to wait for a digest",
                     lambda: status(server)["queue"]["states"] == {"gathered": 2})
            server.command("queue", "retry", "--all")
            server.wait_queue(0)
            wait_events(server, "root@mx.test", "gathered", "relayed")
            messages = trace(server, "root@mx.test")["messages"]
            gathered = [(message["id"], event["fields"]["in"]) for message in messages
                        for event in message["events"] if event["event"] == "gathered"]
            (first, digest), (second, same) = gathered
            assert digest == same, gathered
            assert [it["id"] for it in trace(server, digest)["messages"]] == \
                [first, second, digest]
            assert [it["id"] for it in trace(server, first)["messages"]] == [first, digest]


def test_server_up_and_down():
    """The status says who serves, since when and where; a record that a kill left fools nobody,
    and other accounts are told less."""
    with Server() as server:
        server.deliver()
        wait_events(server, "ann@mx.test", "delivered")
        up = status(server)["server"]
        assert up["state"] == "running" and up["pid"] == server.process.pid, up
        assert up["up_seconds"] < 600 and f"{server.port} [listen.smtp]" in up["listeners"][0], up
        assert up["written_octets"] is not None, up
        assert f"runs as process {server.process.pid}" in server.command("status")
        nobody = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
        if os.geteuid() == 0:
            server.dir.chmod(0o755)
            server.spool.chmod(0o700)
            told = subprocess.run([*nobody, str(binary()), "status"], env=server.environment(),
                                  capture_output=True, text=True)
            assert told.returncode == 0 and "runs as process" in told.stdout, told
            assert "only root" in told.stdout and "received" not in told.stdout, told
            def trace_as(*account):
                return subprocess.run([*account, str(binary()), "trace", "ann@mx.test"],
                                      env=server.environment(), capture_output=True, text=True)
            told = trace_as(*nobody)
            assert told.returncode == EX_NOPERM and "run this as root" in told.stderr, told
            # The group of the server's account reads the journal and not the queue.
            told = trace_as("setpriv", "--reuid", "65534", "--regid", "0", "--clear-groups")
            assert told.returncode == 0 and "delivered" in told.stdout, told
            assert "root is told" in told.stdout, told
        record = server.dir / "state/server"
        server.kill()
        assert record.exists()
        assert status(server, EX_UNAVAILABLE)["server"]["state"] == "down"
        assert "not running" in server.command("status", expect=EX_UNAVAILABLE)
        server.start()
        # It is written behind the greeting.
        wait_for("its own record", lambda: status(server)["server"]["pid"] == server.process.pid)
        record.unlink()
        assert "its record" in server.command("status")
        server.stop()
        server.start()
        server.stop()
        assert not record.exists()
        status(server, EX_UNAVAILABLE)


def test_unknown():
    """Who is not found is told why that may be."""
    with Server({"log": {"events": "0"}}) as server:
        server.deliver()
        server.wait_mail()
        told = server.command("trace", "ann@mx.test", expect=EX_NOINPUT)
        assert "events = 0" in told, told
        assert not journal(server) and "no journal is kept" in server.command("status")
        server.stop()
        server.overrides = {}
        server.write_config()
        server.start()
        wait_for("a journal with a line", lambda: any(it.stat().st_size for it in journal(server)))
        old, new = "0000000000001", "9zzzzzzzzzzzz"
        assert "see that the id is right" in server.command("trace", new, expect=EX_NOINPUT)
        assert "goes back to" in server.command("trace", old, expect=EX_NOINPUT)
        assert trace(server, new, EX_NOINPUT)["messages"] == []


def test_bounded():
    """After thousands of events the journal has its size, and knows the newest."""
    # A message is delivered as soon as it has come, so that both stand near each other.
    with Server({"log": {"events": "64K", "level": "warn"}}) as server:
        smtp_source(server.port, "-m", "1000", "-s", "8", "-f", "bob@mx.test", "-t", "ann@mx.test")
        server.deliver("last@mx.test")
        wait_events(server, "last@mx.test", "delivered")
        server.wait_queue(0)
        # Then it has written all that there was to write.
        server.stop()
        files = journal(server)
        size = sum(file.stat().st_size for file in files)
        assert len(files) == 4 and 32 << 10 < size <= 64 << 10, files
        modes = {stat.S_IMODE(file.stat().st_mode) for file in files}
        assert modes == {0o640}, modes
        told = trace(server, "bob@mx.test")
        kept = "".join(file.read_text() for file in files)
        known = set(re.findall(r" (\w{13}) received from=<bob@mx.test> ", kept))
        assert len(told["messages"]) == 20, len(told["messages"])
        # Of one message the end alone may be kept, and such an end is no message of bob's.
        assert told["left_out_messages"] == len(known) - 20, (told, len(known))


def test_hostile():
    """Addresses and replies forge no line and steer no terminal."""
    hostile = '"a> to=<eve@x> in=0000000000001"@mx.test'
    with Peer(REFUSES) as peer, Server({"smarthost": smarthost(peer.port)}) as server:
        server.deliver(f'"<eve@mx.test>"@far.test', sender=hostile)
        server.deliver("bob@far.test", sender=hostile)
        wait_for("both of them", lambda: events(server, hostile).count("bounced") >= 2)
        assert len(trace(server, hostile)["messages"]) >= 2, trace(server, hostile)
        for wanted in ("eve@x", "eve@mx.test"):
            assert trace(server, wanted, EX_NOINPUT)["messages"] == [], wanted
        assert is_harmless(server.command("trace", hostile))
        assert is_harmless(server.command("status"))
        # A journal that somebody else has written into.
        with (server.dir / "state/events").open("ab") as file:
            file.write(b"\x1b[2J\n2026-11-22T03:46:52+00:00 - started pid=\"\x1b[2J\"\n\0\0\n")
        text = server.command("trace", hostile)
        assert is_harmless(text) and "3 lines" in text, text


def test_killed():
    """A kill in the middle of everything leaves a journal that can be read and goes on."""
    with Server() as server:
        for number in range(3):
            load = subprocess.Popen(
                ["python3", "-c", "import sys; sys.path.insert(0, sys.argv[1]); import harness\n"
                 "while True:\n"
                 " with harness.Client('127.0.0.1', int(sys.argv[2])) as c:\n"
                 "  c.expect(220); c.command('EHLO x.test', 250)\n"
                 "  c.send_message('bob@mx.test', ['ann@mx.test'], b'Subject: x\\r\\n\\r\\nx\\r\\n')",
                 str(Path(__file__).parent), str(server.port)], stderr=subprocess.DEVNULL)
            wait_for("mail in the journal", lambda: "delivered" in events(server, "ann@mx.test"))
            server.kill()
            load.wait()
            # What a kill in the middle of a write leaves.
            with (server.dir / "state/events").open("ab") as file:
                file.write(b"2026-11-22T03:46:52+00:00 00000")
            server.start()
            server.deliver(f"after{number}@mx.test")
            told = wait_events(server, f"after{number}@mx.test", "delivered")
            assert told["journal"]["unreadable_lines"] == number + 1, told["journal"]


@own_mounts
def test_state_folder_read_only_or_full():
    """A state folder that cannot be written holds up no mail, and fills no log."""
    server = Server()
    server.stack.enter_context(tmpfs(server.dir / "state", "64k"))
    with server:
        (server.dir / "state/filling").write_bytes(b"")
        with (server.dir / "state/filling").open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError:
                pass
        for number in range(5):
            server.deliver(f"full{number}@mx.test")
        wait_for("the complaint", lambda: "the journal of events cannot be written" in server.log())
        (server.dir / "state/filling").unlink()
        server.deliver("well@mx.test")
        wait_events(server, "well@mx.test", "delivered")
        make_read_only(server.dir / "state")
        for number in range(5):
            server.deliver(f"ro{number}@mx.test")
            server.wait_mail(f"ro{number}")
        assert server.log().count("cannot be written") == 1, server.log()
