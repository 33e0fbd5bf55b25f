"""The operator's commands on the queue, as a person, a script and another program use them."""

import json
import os
import re
import subprocess

from harness import Server, binary, free_port, run, smarthost, wait_for
from peers import Peer

EX_USAGE, EX_NOINPUT, EX_NOPERM = 64, 66, 77


def queue(server, *arguments, expect=0):
    """What `mailwren queue …` prints."""
    return server.command("queue", *arguments, expect=expect)


def mailq(server):
    """What `mailq` prints."""
    return run([server.linked("mailq")], env=server.environment(), text=True)


def listed(server, *arguments):
    """The list, as a program reads it."""
    return json.loads(queue(server, "list", "--json", *arguments))


def deferred(server, *names):
    """Sends a message to each of these at far.test and waits until it was tried in vain."""
    for name in names:
        server.deliver(f"{name}@far.test", sender=f"{name}@mx.test")
    wait_for("all of them to wait", lambda: len(listed(server)) == len(names) and all(
        entry["recipients"][0]["next_try"] for entry in listed(server)))
    return {entry["recipients"][0]["address"].split("@")[0]: entry for entry in listed(server)}


def test_json():
    """`queue list --json` is JSON that names every message, its recipients and their state."""
    with Server({"smarthost": smarthost(free_port()), "queue": {"retry": "1h"}}) as server:
        assert listed(server) == []
        entries = deferred(server, "ann", "o'brien+x", "eve")
        for name, entry in entries.items():
            assert re.fullmatch(r"[0-9a-z]{13}", entry["id"]), entry
            assert entry["sender"] == f"{name}@mx.test", entry
            assert 0 <= entry["age"] < 600 and 20 < entry["size"] < 2000, entry
            recipient, = entry["recipients"]
            assert recipient["address"] == f"{name}@far.test", recipient
            assert recipient["state"] in ("pending", "deferred"), recipient
            assert recipient["next_try"] > entry["received"], recipient
        # The first was tried, the others found their destination resting.
        replies = [entry["recipients"][0]["last_reply"] for entry in entries.values()]
        assert any(reply and "refused" in reply for reply in replies), replies


def test_operator():
    """hold, release, delete, bounce and retry do what they say while the server runs."""
    port = free_port()
    with Server({"smarthost": smarthost(port), "queue": {"retry": "1h"}}) as server:
        entries = deferred(server, "held", "gone", "back", "late")
        ids = {name: entry["id"] for name, entry in entries.items()}
        assert queue(server, "hold", ids["held"]) == "1 message held\n"
        assert queue(server, "delete", "--to", "gone@far.test") == "1 message deleted\n"
        assert queue(server, "bounce", "--from", "back@mx.test") == "1 message bounced\n"
        report = server.wait_mail("back")[0]
        assert b"Status: 5.3.0" in report and b"back@far.test" in report, report
        assert f"{ids['held']}!" in mailq(server)
        assert listed(server, ids["held"])[0]["held_by"], "nobody holds it"
        # The report is in the mailbox before it is out of the queue.
        wait_for("the two others", lambda: len(listed(server)) == 2)
        with Peer(port=port) as peer:
            assert queue(server, "retry", "--all").startswith("2 messages tried now")
            wait_for("the late one", lambda: ids["late"] not in queue(server))
            wait_for("the held one alone", lambda: len(listed(server)) == 1)
            assert queue(server, "release", "--all") == "1 message released\n"
            server.wait_queue(0)
            assert len(peer.messages) == 2, peer.messages
        assert mailq(server) == "Mail queue is empty\n"
        assert queue(server, "delete", ids["gone"], expect=EX_NOINPUT)
        queue(server, "delete", expect=EX_USAGE)


def test_down():
    """The same commands work on the files while the server is down."""
    with Server({"smarthost": smarthost(free_port()), "queue": {"retry": "1h"}}) as server:
        ids = {name: entry["id"] for name, entry in deferred(server, "held", "gone", "back").items()}
        server.stop()
        queue(server, "hold", ids["held"])
        queue(server, "delete", ids["gone"])
        assert "when the server runs again" in queue(server, "bounce", ids["back"])
        shown = queue(server, "show", ids["held"])
        assert "Subject: hello" in shown and "held        by " in shown, shown
        server.start()
        server.wait_mail("back")
        wait_for("the held one alone", lambda: [e["id"] for e in listed(server)] == [ids["held"]])


def test_stranger():
    """An account that may not see the queue is told who may."""
    assert os.geteuid() == 0, "this test changes to another account"
    with Server() as server:
        os.chmod(server.dir, 0o755)
        for arguments in (["list"], ["retry", "--all"], ["delete", "--all"]):
            done = subprocess.run(
                [binary(), "queue", *arguments], env=server.environment(), timeout=60,
                user="nobody", group="nogroup", extra_groups=[], capture_output=True, text=True)
            assert done.returncode == EX_NOPERM, done
            assert "permission denied; run this as root" in done.stderr, done


def test_terminal():
    """On a terminal nothing in a message steers it."""
    with Server({"smarthost": smarthost(free_port()), "queue": {"retry": "1h"}}) as server:
        server.deliver("ann@far.test", content=b"Subject: \x1b]0;gotcha\x07\r\n\r\n\x1b[2J\r\n")
        wait_for("it to wait", lambda: listed(server))
        id = listed(server)[0]["id"]
        command = f"{binary()} queue show {id}"
        shown = run(["script", "-qec", command, "/dev/null"], env=server.environment(), text=True)
        assert "\x1b" not in shown and "\x07" not in shown and "gotcha" in shown, repr(shown)
        assert "\x1b[2J" in queue(server, "show", id)
