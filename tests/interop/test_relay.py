"""On to the smarthost: now, later, or back to the sender."""

import threading
import time
from email import message_from_bytes

from harness import PATIENCE, Server, free_port, smarthost
from peers import Peer


def relaying(port, **sections):
    """A server whose smarthost is at a port."""
    return Server({"smarthost": smarthost(port), **sections})


def bounce_of(server, user="ann"):
    """The one delivery report in a Maildir, its parts checked (RFC 3464)."""
    raw = server.wait_mail(user)[0]
    report = message_from_bytes(raw)
    assert report["Return-Path"] == "<>", report["Return-Path"]
    assert report.get_content_type() == "multipart/report", report.get_content_type()
    assert report.get_param("report-type") == "delivery-status"
    for field in ("From", "To", "Subject", "Date", "Message-ID", "MIME-Version"):
        assert report[field], f"no {field}"
    assert "MAILER-DAEMON@MX.TEST" in report["From"].upper(), report["From"]
    assert report["Auto-Submitted"], "no Auto-Submitted (RFC 3834)"
    human, status, original = report.get_payload()
    assert human.get_content_type() == "text/plain"
    assert status.get_content_type() == "message/delivery-status"
    assert original.get_content_type() in ("message/rfc822", "text/rfc822-headers")
    assert "the original" in original.as_string(), original.as_string()
    per_message, *per_recipient = status.get_payload()
    assert per_message["Reporting-MTA"].startswith("dns;"), per_message["Reporting-MTA"]
    for fields in per_recipient:
        assert fields["Action"] == "failed", fields["Action"]
        assert fields["Final-Recipient"].startswith("rfc822;"), fields["Final-Recipient"]
        assert fields["Status"][0] == "5", fields["Status"]
    return human.get_payload(), per_recipient


ORIGINAL = b"From: <ann@mx.test>\r\nSubject: the original\r\n\r\nbody\r\n"


def test_comes_back():
    """While the smarthost is away mail waits, and goes out when it is back."""
    port = free_port()
    with relaying(port) as server:
        server.deliver("zoe@far.test")
        server.wait_log("deferred")
        server.wait_queue(1)
        with Peer(port=port) as peer:
            peer.wait_messages(1)
            server.wait_queue(0)
            server.wait_log("relayed")
        assert not server.new_mail("bob")


def test_survives_a_restart():
    """What waits for the smarthost is sent after a restart and after kill -9."""
    port = free_port()
    with relaying(port) as server:
        server.deliver("zoe@far.test", b"Subject: one\r\n\r\n")
        server.wait_log("deferred")
        server.stop()
        server.start()
        server.deliver("zoe@far.test", b"Subject: two\r\n\r\n")
        server.kill()
        server.start()
        with Peer(port=port) as peer:
            peer.wait_messages(2)
            server.wait_queue(0)
            assert len(peer.messages) == 2


def test_temporary_refusals():
    """A 4yz at any stage leaves the mail in the queue, and it goes out later."""
    for verb in ("GREETING", "MAIL", "RCPT", "DATA", "BODY"):
        refusals = [b"451 4.7.1 come back later\r\n"] * 2
        with Peer({verb: lambda _: refusals.pop() if refusals else None}) as peer:
            with relaying(peer.port) as server:
                server.deliver("zoe@far.test")
                peer.wait_messages(1)
                server.wait_queue(0)
                assert not refusals, verb
                assert "come back later" in server.log(), "the log does not tell the reply"
                assert "bounced" not in server.log()


def test_hang_ups():
    """A smarthost that hangs up at any stage loses no mail."""
    for verb in ("GREETING", "EHLO", "MAIL", "RCPT", "DATA", "BODY"):
        hang_ups = [b""] * 2
        with Peer({verb: lambda _: hang_ups.pop() if hang_ups else None}) as peer:
            with relaying(peer.port) as server:
                server.deliver("zoe@far.test")
                peer.wait_messages(1)
                server.wait_queue(0)
                assert not hang_ups, verb
                assert "bounced" not in server.log()


def test_permanent_refusals_bounce():
    """A 5yz to MAIL, RCPT, DATA or the message comes back as an RFC 3464 report."""
    for verb in ("MAIL", "RCPT", "DATA", "BODY"):
        with Peer({verb: lambda _: b"550 5.7.9 we do not like this\r\n"}) as peer:
            with relaying(peer.port) as server:
                server.deliver("zoe@far.test", ORIGINAL, sender="ann@mx.test")
                human, fields = bounce_of(server)
                assert len(fields) == 1
                assert fields[0]["Final-Recipient"].endswith("zoe@far.test"), verb
                assert fields[0]["Status"] == "5.7.9", f"{verb}: {fields[0]['Status']}"
                assert "we do not like this" in fields[0]["Diagnostic-Code"], verb
                assert "zoe@far.test" in human and "we do not like this" in human, human
                server.wait_queue(0)
                server.wait_log("bounced")


def test_some_recipients_refused():
    """Of several recipients only the refused ones bounce, in one report."""
    def rcpt(line):
        return b"550 5.1.1 no such user\r\n" if b"<no" in line else None
    with Peer({"RCPT": rcpt}) as peer, relaying(peer.port) as server:
        with server.session() as client:
            recipients = ["a@far.test", "no1@far.test", "b@else.test", "no2@else.test"]
            client.send_message("ann@mx.test", recipients, ORIGINAL)
        _, fields = bounce_of(server)
        refused = sorted(f["Final-Recipient"].split(";")[1].strip() for f in fields)
        assert refused == ["no1@far.test", "no2@else.test"], refused
        assert peer.wait_messages(1)[0].recipients == ["<a@far.test>", "<b@else.test>"]
        server.wait_queue(0)


def test_null_sender_gets_no_bounce():
    """A message from <> that is refused comes back to nobody; the postmaster is told."""
    with Peer({"RCPT": lambda _: b"550 5.1.1 no\r\n"}) as peer, relaying(peer.port) as server:
        server.deliver("zoe@far.test", ORIGINAL, sender="")
        server.wait_log("5.1.1")
        server.wait_queue(0)
        boxes = [folder.name for folder in server.mail.iterdir()]
        assert boxes == ["postmaster"], boxes
        server.wait_mail("postmaster")


def test_one_transaction():
    """All recipients of a message go to the smarthost in one transaction."""
    with Peer() as peer, relaying(peer.port) as server:
        recipients = [f"u{n}@d{n}.test" for n in range(60)]
        with server.session() as client:
            client.send_message("bob@client.test", recipients, b"Subject: sixty\r\n\r\n")
        message = peer.wait_messages(1)[0]
        assert message.recipients == [f"<{r}>" for r in recipients]
        server.wait_queue(0)
        assert len(peer.messages) == 1


def test_connection_is_kept():
    """One connection carries the messages that wait for it."""
    are_all_there = threading.Event()

    def slow(_):
        are_all_there.wait(PATIENCE)
    queue = {"retry": "1s", "relay_workers": "1"}
    with Peer({"BODY": slow}) as peer, relaying(peer.port, queue=queue) as server:
        for _ in range(10):
            server.deliver("zoe@far.test")
        are_all_there.set()
        peer.wait_messages(10)
        server.wait_queue(0)
        assert peer.connections <= 2, f"{peer.connections} connections for ten messages"


def test_content_is_whole():
    """Dots, 8-bit octets and long lines reach the smarthost as they came."""
    body = (b".\r\n..\r\n.a\r\n" + bytes(range(128, 256)) + b"\r\n" + b"z" * 990 + b"\r\n"
            + b".dot\r\n" * 3000 + b"last\r\n")
    content = b"Subject: whole\r\n\r\n" + body
    with Peer() as peer, relaying(peer.port) as server:
        with server.session() as client:
            client.command("MAIL FROM:<bob@client.test> BODY=8BITMIME", 250)
            client.command("RCPT TO:<zoe@far.test>", 250)
            client.command("DATA", 354)
            client.command(content.replace(b"\r\n.", b"\r\n..") + b".\r\n", 250)
        message = peer.wait_messages(1)[0]
        assert message.content.endswith(content), "changed on the way"
        head = message.content[:-len(content)]
        assert head.startswith(b"Received: ") and head.count(b"\nReceived:") == 0, head
        assert b"BODY=8BITMIME" in message.sender, message.sender


def test_without_extensions():
    """A smarthost that knows HELO only is served."""
    answers = {"EHLO": lambda _: b"502 5.5.1 what?\r\n"}
    with Peer(answers) as peer, relaying(peer.port) as server:
        server.deliver("zoe@far.test")
        assert peer.wait_messages(1)[0].sender == b"MAIL FROM:<bob@client.test>\r\n"
        server.wait_queue(0)


def test_hostile_replies():
    """Endless, huge and malformed replies cost little and lose nothing."""
    hostile = {
        "endless lines": b"250-more\r\n" * 200000,
        "a line of a megabyte": b"250 " + b"x" * 1000000 + b"\r\n",
        "no code": b"hello there\r\n",
        "control characters": b"451 4.0.0 \x1b[2J\x07\x00\x9b\rfoo\r\n",
        "a code of nine": b"999 what\r\n",
        "nothing before the end": b"\n\n\n\n",
    }
    for verb in ("EHLO", "RCPT"):
        for name, octets in hostile.items():
            answers = [octets]
            with Peer({verb: lambda _: answers.pop() if answers else None}) as peer:
                with relaying(peer.port) as server:
                    before = server.memory("VmHWM")
                    server.deliver("zoe@far.test")
                    peer.wait_messages(1)
                    server.wait_queue(0)
                    raw = set(server.log_path.read_bytes())
                    bad = [c for c in raw if (c < 32 and c != 10) or c >= 127]
                    assert not bad, f"{verb}: {name}: {bad}"
                    grown = server.memory("VmHWM") - before
                    assert grown < 2 << 20, f"{verb}: {name}: {grown} octets"


def test_local_mail_is_not_delayed():
    """A dead smarthost does not delay local mail."""
    silent = {"GREETING": lambda _: time.sleep(PATIENCE)}
    with Peer(silent) as peer, relaying(peer.port) as server:
        for _ in range(10):
            server.deliver("zoe@far.test")
        begin = time.monotonic()
        server.deliver("ann@mx.test")
        server.wait_mail("ann")
        assert time.monotonic() - begin < 10
