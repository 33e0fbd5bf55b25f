"""Delivery status notifications, asked for with smtplib and read with Python's email package
(RFC 3461, 3464, 6522)."""

import smtplib
from email import message_from_bytes, policy

from harness import Server, binary, folder, run, smarthost, wait_for
from peers import Peer

DSN = b"250-peer.test\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-DSN\r\n250 SIZE 100000000\r\n"
CONTENT = "From: <sue@mx.test>\r\nSubject: the original\r\n\r\nGr\u00fc\u00dfe\r\n".encode()


def submit(server, recipients, mail_options=("ENVID=QQ+2B1",), content=CONTENT):
    """Sends a message from sue; `recipients` maps an address to its parameters."""
    with smtplib.SMTP(server.host, server.port, "client.test", timeout=30) as client:
        client.ehlo()
        assert client.has_extn("dsn")
        code, text = client.mail("sue@mx.test", ["BODY=8BITMIME", *mail_options])
        assert code == 250, text
        for address, options in recipients.items():
            code, text = client.rcpt(address, options.split())
            assert code == 250, text
        code, text = client.data(content)
        assert code == 250, text


def reports(server, count=1, user="sue"):
    """The reports in a Maildir, the form of each checked: (whole, fields of each recipient,
    the returned part)."""
    found = []
    for raw in server.wait_mail(user, count):
        report = message_from_bytes(raw, policy=policy.default)
        assert not report.defects, report.defects
        assert report["Return-Path"] == "<>" and report["Auto-Submitted"] == "auto-replied"
        assert report.get_content_type() == "multipart/report", report.get_content_type()
        assert report["Content-Type"].params["report-type"] == "delivery-status"
        human, status, returned = report.iter_parts()
        assert human.get_content_type() == "text/plain" and not human.defects
        assert status.get_content_type() == "message/delivery-status" and not status.defects
        message, *recipients = status.get_payload()
        assert message["Reporting-MTA"] == "dns; mx.test", message["Reporting-MTA"]
        assert message["Arrival-Date"] and "Action" not in message
        fields = {r["Final-Recipient"].partition("rfc822; ")[2]: r for r in recipients}
        assert len(fields) == len(recipients)
        for address, of_recipient in fields.items():
            assert f"<{address}>" in human.get_content(), human.get_content()
            assert of_recipient["Last-Attempt-Date"], address
        found.append((message, fields, returned))
    return found


def actions(fields):
    """Address, action and status of each recipient."""
    return {to: (of["Action"], of["Status"]) for to, of in fields.items()}


def test_passed_on():
    """A next hop with DSN is told RET, ENVID, NOTIFY and ORCPT just as they came, and nobody
    here reports success."""
    with Peer({"EHLO": DSN}) as peer, Server({"smarthost": smarthost(peer.port)}) as server:
        submit(server, {
            "zoe@far.test": "NOTIFY=SUCCESS,DELAY ORCPT=rfc822;Zoe+2Bx@Far.test",
            "yan@far.test": "NOTIFY=NEVER",
        }, ["RET=HDRS", "ENVID=QQ+2B1"])
        peer.wait_messages(1)
        server.wait_queue(0)
        commands = [line.decode().rstrip() for line in peer.commands]
        assert any(c.startswith("MAIL FROM:<sue@mx.test>") and
                   c.endswith(" RET=HDRS ENVID=QQ+2B1") for c in commands), commands
        assert "RCPT TO:<zoe@far.test> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;Zoe+2Bx@Far.test" \
            in commands, commands
        assert "RCPT TO:<yan@far.test> NOTIFY=NEVER ORCPT=rfc822;yan@far.test" in commands
        assert not server.new_mail("sue")


def test_success():
    """Success is reported where it was asked for: delivered here, relayed to a host without
    DSN, and expanded for an alias of several; in one report with what failed."""
    def rcpt(line):
        assert b" " not in line.split(b">")[1].strip(), line
        return b"550-5.1.1 no\r\n550 5.1.1 such user\r\n" if b"<no" in line else None
    with folder() as files, Peer({"RCPT": rcpt}) as peer:
        (files / "aliases").write_text("both: ann, bob\n")
        with Server({"smarthost": smarthost(peer.port),
                     "local": {"aliases": files / "aliases"}}) as server:
            submit(server, {
                "ann@mx.test": "NOTIFY=SUCCESS ORCPT=rfc822;Ann+2Bx@mx.test",
                "carl@mx.test": "NOTIFY=FAILURE",
                "both@mx.test": "NOTIFY=SUCCESS,FAILURE",
                "zoe@far.test": "NOTIFY=SUCCESS",
                "yan@far.test": "",
                "no@far.test": "",
                "no1@far.test": "NOTIFY=SUCCESS,DELAY",
            })
            message, fields, returned = reports(server)[0]
            assert actions(fields) == {
                "ann@mx.test": ("delivered", "2.1.5"),
                "both@mx.test": ("expanded", "2.1.5"),
                "zoe@far.test": ("relayed", "2.1.9"),
                "no@far.test": ("failed", "5.1.1"),
            }, actions(fields)
            assert message["Original-Envelope-Id"] == "QQ+1"
            assert fields["ann@mx.test"]["Original-Recipient"] == "rfc822;Ann+x@mx.test"
            assert "Original-Recipient" not in fields["zoe@far.test"]
            failed = fields["no@far.test"]
            assert failed["Remote-MTA"] == "dns; [127.0.0.1]", failed["Remote-MTA"]
            assert failed["Diagnostic-Code"] == "smtp; 550 5.1.1 no 5.1.1 such user"
            assert returned.get_content_type() == "message/rfc822"
            assert returned.get_payload(0)["Subject"] == "the original"
            assert CONTENT in server.wait_mail("sue")[0].replace(b"\n", b"\r\n")
            server.wait_queue(0)


def test_headers_only():
    """RET=HDRS returns the header section alone, and so does a message above bounce_size."""
    with Peer({"RCPT": lambda _: b"550 5.1.1 no\r\n"}) as peer:
        with Server({"smarthost": smarthost(peer.port),
                     "queue": {"bounce_size": "1K"}}) as server:
            large = CONTENT + b"x" * 70 + (b"\r\n" + b"y" * 70) * 20 + b"\r\n"
            submit(server, {"a@far.test": ""}, ["RET=HDRS"])
            submit(server, {"b@far.test": ""}, ["RET=FULL"], large)
            for _, _, returned in reports(server, 2):
                assert returned.get_content_type() == "text/rfc822-headers"
                assert returned.get_content().strip().endswith("Subject: the original")


def test_delay_once():
    """A message that waits is reported late once, before it goes out after all."""
    refusals = [b"451 4.7.1 come back later\r\n"] * 3
    with Peer({"RCPT": lambda _: refusals.pop() if refusals else None}) as peer:
        with Server({"smarthost": smarthost(peer.port),
                     "queue": {"retry": "1s", "delay_warning": "1s"}}) as server:
            submit(server, {"zoe@far.test": ""}, [])
            peer.wait_messages(1)
            message, fields, returned = reports(server)[0]
            assert actions(fields) == {"zoe@far.test": ("delayed", "4.7.1")}
            assert fields["zoe@far.test"]["Will-Retry-Until"]
            assert "Original-Envelope-Id" not in message
            assert returned.get_content_type() == "text/rfc822-headers"
            server.wait_queue(0)


def test_double_bounce():
    """A report that cannot be delivered goes to the postmaster, and to failed/ where nobody
    wants it."""
    for double_bounce in ("postmaster", "keep"):
        with Peer({"RCPT": lambda _: b"550 5.1.1 no\r\n"}) as peer:
            with Server({"smarthost": smarthost(peer.port),
                         "queue": {"double_bounce": double_bounce}}) as server:
                with server.session() as client:
                    client.send_message("gone@far.test", ["zoe@far.test"], CONTENT)
                if double_bounce == "keep":
                    server.wait_log("nobody can be told")
                    kept = sorted((server.spool / "failed").iterdir())
                    assert len(kept) == 2 and kept[1].suffix == ".state", kept
                    assert b"zoe@far.test" in kept[0].read_bytes()
                else:
                    _, fields, _ = reports(server, user="postmaster")[0]
                    assert actions(fields) == {"gone@far.test": ("failed", "5.1.1")}
                    server.wait_queue(0)


def test_sendmail_options():
    """sendmail -N, -R and -V say the same as NOTIFY, RET and ENVID."""
    with Peer({"EHLO": DSN}) as peer, Server({"smarthost": smarthost(peer.port)}) as server:
        for notify, wire in (("never", "NEVER"), ("success,delay", "SUCCESS,DELAY")):
            run([binary(), "--config", server.config_path, "sendmail", "-i", "-f", "sue@mx.test", "-N", notify,
                 "-R", "hdrs", "-V", "a b+c", "zoe@far.test"], input=b"Subject: x\n\nbody\n")
            wait_for(f"NOTIFY={wire}", lambda w=wire: any(
                f"RCPT TO:<zoe@far.test> NOTIFY={w} " in line.decode() for line in peer.commands))
        mails = [line.decode() for line in peer.commands if line.startswith(b"MAIL")]
        assert all(mail.rstrip().endswith(" RET=HDRS ENVID=a+20b+2Bc") for mail in mails), mails
