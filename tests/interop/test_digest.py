"""A flood of messages as one, read with Python's email package (RFC 2046 5.1.5)."""

import json
from email import message_from_bytes, policy

from harness import Server, smarthost, wait_for
from peers import Peer

SUBJECT = "Cron <root@pi> /usr/bin/backup"


def content(number):
    """What cron sends; some of it in UTF-8, with lines that begin with dots and dashes."""
    body = f"run {number}\r\n.\r\n--=_x\r\n" + ("Gr\u00fc\u00dfe\r\n" if number % 5 == 0 else "")
    return (f"From: root@mx.test (Cron Daemon)\r\nTo: root\r\nSubject: {SUBJECT}\r\n"
            f"X-Cron-Env: <LOGNAME=root>\r\n\r\n{body}").encode()


def relaying(peer, burst):
    """A server whose root reads mail elsewhere, by way of a smarthost."""
    server = Server({
        "smarthost": smarthost(peer.port),
        "local": {"aliases": "DIR/aliases"},
        "digest": {"burst": burst},
    })
    (server.dir / "aliases").write_text("root: me@far.test\n")
    return server


def send_all(server, numbers):
    """Sends notifications to root."""
    with server.session() as client:
        for number in numbers:
            octets = content(number).replace(b"\r\n.", b"\r\n..")
            client.send_message("root@mx.test", ["root@mx.test"], octets)


def listed(server, *arguments):
    """The queue, as programs read it."""
    return json.loads(server.command("queue", "list", "--json", *arguments))


def wait_gathered(server, count):
    """Waits until that many messages, and no others, wait to go out as one."""
    def as_wanted():
        states = [entry["state"] for entry in listed(server)]
        return states.count("gathered") == count == len(states)
    wait_for(f"{count} gathered messages", as_wanted)


def retry(server, *arguments):
    """Has messages tried at once."""
    server.command("queue", "retry", *arguments)


def check(message, numbers):
    """A digest of just these messages, each octet of them."""
    assert message.sender.startswith(b"MAIL FROM:<root@mx.test> "), message.sender
    assert b" BODY=8BITMIME" in message.sender, message.sender
    assert message.recipients == ["<me@far.test>"], message.recipients
    digest = message_from_bytes(message.content, policy=policy.default)
    assert not digest.defects, digest.defects
    assert digest["Subject"] == f"[mx.test] {len(numbers)} messages: {SUBJECT}"
    assert digest["From"].addresses[0].addr_spec == "root@mx.test"
    assert digest["To"].addresses[0].addr_spec == "me@far.test"
    assert digest["Auto-Submitted"] == "auto-generated" and digest["Message-ID"] and digest["Date"]
    assert digest.get_content_type() == "multipart/mixed"
    text, parts = digest.iter_parts()
    assert text.get_content_type() == "text/plain" and not text.defects
    assert text.get_content().count(SUBJECT) == len(numbers), text.get_content()
    assert parts.get_content_type() == "multipart/digest" and not parts.defects
    found = []
    for part in parts.iter_parts():
        assert part.get_content_type() == "message/rfc822" and not part.defects, part.defects
        original, = part.get_payload()
        assert not original.defects and original["Subject"] == SUBJECT
        assert original["X-Cron-Env"] == "<LOGNAME=root>"
        found.append(int(original.get_payload().split("\n")[0].split()[1]))
    assert found == numbers, found
    for number in numbers:
        assert content(number).partition(b"\r\n\r\n")[2] in message.content


def test_flood():
    """Twenty go out by themselves; the rest outlives a power cut, and goes out as one.

    What a person has tried goes at once, and a conversation is none of its business."""
    with Peer() as peer:
        with relaying(peer, burst=20) as server:
            send_all(server, range(30))
            peer.wait_messages(20)
            wait_gathered(server, 10)
            server.wait_log(r"many messages from=<root@mx.test> to=<me@far.test>")
            lines = server.command("queue", "list")
            assert lines.count("  gathered until 2") == 10, lines
            assert all(len(entry["recipients"]) == 2 for entry in listed(server))
            # One by itself.
            first = min(entry["id"] for entry in listed(server))
            retry(server, first)
            peer.wait_messages(21)
            wait_gathered(server, 9)
            with server.session() as client:
                for number in range(30):
                    answer = b"From: root@mx.test\r\nIn-Reply-To: <%d@far.test>\r\n\r\nx\r\n" % number
                    client.send_message("root@mx.test", ["me@far.test"], answer)
            peer.wait_messages(51)
            wait_gathered(server, 9)
            # A new start counts anew: nothing is lost by it.
            server.kill()
            server.start()
            peer.wait_messages(60)
            server.wait_queue()
            send_all(server, range(100, 151))
            peer.wait_messages(60 + 11)
            wait_gathered(server, 40)
            retry(server, "--all")
            peer.wait_messages(72)
            server.wait_queue()
            check(peer.messages[71], list(range(111, 151)))
            assert server.log().count(": gathered to=<me@far.test> in=") == 40
            singles = b"".join(message.content for message in peer.messages[:71])
            assert all(b"run %d\r\n" % number in singles for number in [*range(30), *range(100, 111)])


def test_off():
    """With burst = 0 each goes by itself."""
    with Peer() as peer:
        with relaying(peer, burst=0) as server:
            send_all(server, range(30))
            peer.wait_messages(30)
            server.wait_queue()
