"""Fifty sessions at once: nothing is lost, nothing comes twice."""

import mailbox
import re
from email import message_from_bytes

from harness import Server, folder, smarthost, smtp_source, wait_for
from peers import sink

COUNT = 2000
LOAD = ("-s", 50, "-m", COUNT, "-l", 4096, "-f", "bob@client.test")


def load_settings(**local):
    """Room for fifty sessions."""
    return {"server": {"max_sessions": 100, "max_sessions_per_client": 100}, "local": local}


def check_each_once(messages):
    """Each message of smtp-source and each queue id is there exactly once."""
    assert len(messages) == COUNT, f"{len(messages)} messages, not {COUNT}"
    ids = {message["Message-Id"] for message in messages}
    assert len(ids) == COUNT, f"{COUNT - len(ids)} came twice"
    received = [re.search(r"\bid (\w+)", m.get_all("Received")[0]) for m in messages]
    assert all(received), "a Received field without an id"
    assert len({found[1] for found in received}) == COUNT, "queue ids repeat"


def test_maildir():
    """2000 messages from 50 sessions arrive in a Maildir exactly once."""
    with Server(load_settings()) as server:
        smtp_source(server.port, *LOAD, "-t", "ann@mx.test")
        wait_for("all of them", lambda: len(server.new_mail()) >= COUNT)
        server.wait_queue(0)
        check_each_once([message_from_bytes(f.read_bytes()) for f in server.new_mail()])
        assert not list((server.mail / "ann/tmp").iterdir()), "something is left in tmp"


def test_mbox():
    """2000 messages from 50 sessions arrive in an mbox exactly once."""
    with Server(load_settings(format="mbox")) as server:
        smtp_source(server.port, *LOAD, "-t", "ann@mx.test")
        wait_for("the mailbox", (server.mail / "ann").exists)
        server.wait_queue(0)
        check_each_once(list(mailbox.mbox(server.mail / "ann", create=False)))
        assert [f.name for f in server.mail.iterdir()] == ["ann"], "a lock is left"


def test_relay():
    """2000 messages from 50 sessions reach the smarthost exactly once."""
    with folder() as dumps, sink("-d", "m.", cwd=dumps) as port:
        settings = load_settings() | {"smarthost": smarthost(port)}
        with Server(settings) as server:
            smtp_source(server.port, *LOAD, "-t", "zoe@far.test")
            # As long as some go out.
            while left := len(server.queue()):
                wait_for(f"fewer than {left} files", lambda n=left: len(server.queue()) < n)
            # smtp-sink writes its own Received field above ours.
            texts = [file.read_bytes() for file in dumps.iterdir()]
            messages = [message_from_bytes(t.partition(b"smtp-sink")[2].partition(b"\n\t")[2]
                                           .partition(b"\n")[2]) for t in texts]
            check_each_once(messages)
