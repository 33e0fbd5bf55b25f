"""Automatic replies of people who are away (RFC 3834), in a server that runs under an account of
its own and writes the mail of others."""

import contextlib
import os
import pwd
import re
import smtplib
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path

from disk import mount, own_mounts
from harness import Server, program, run, smarthost
from peers import Peer

ANN, BOB = 47110, 47111
AWAY = "Subject: Verreist: $SUBJECT\nFrom: Jörg Ann <ann@mx.test>\n\n" \
       "Grüße,\nich lese „$SUBJECT“ später.\n"


@contextlib.contextmanager
def two_people(port=None):
    """A server for the accounts ann, who is away, and bob, whose homes it can only enter as them.
    What is for others goes to the smarthost at `port`."""
    nobody = pwd.getpwnam("nobody")
    sections = {
        "server": {"user": "nobody"},
        "local": {"users": "system", "path": "{home}/Maildir", "vacation": "yes"},
    }
    server = Server(sections | ({"smarthost": smarthost(port)} if port else {}))
    accounts = Path("/etc/passwd").read_text()
    for name, uid in (("ann", ANN), ("bob", BOB)):
        home = server.dir / name
        home.mkdir(mode=0o700)
        os.chown(home, uid, uid)
        others = re.sub(rf"(?m)^{name}:.*\n", "", accounts)
        accounts = f"{others}{name}:x:{uid}:{uid}::{home}:/bin/sh\n"
    (server.dir / "passwd").write_text(accounts)
    (server.dir / "passwd").chmod(0o644)
    mount("--bind", server.dir / "passwd", "/etc/passwd")
    server.dir.chmod(0o755)
    for name in ("spool", "state"):
        (server.dir / name).mkdir()
        os.chown(server.dir / name, nobody.pw_uid, nobody.pw_gid)
    away(server, AWAY)
    # Where the harness looks for mail.
    for name in ("ann", "bob"):
        (server.mail / name).symlink_to(server.dir / name / "Maildir")
    with server:
        yield server


def away(server, text):
    """Writes what Ann sends."""
    path = server.dir / "ann/.vacation.msg"
    path.write_text(text)
    os.chown(path, ANN, ANN)


def mail(sender, **fields):
    """A message to Ann, as Python writes it."""
    message = EmailMessage()
    message["From"], message["To"] = sender, "Ann <ann@mx.test>"
    message["Subject"] = "Mittagessen in Köln"
    message["Message-ID"] = "<one@client.test>"
    message["References"] = "<zero@client.test>"
    for name, value in fields.items():
        message[name.replace("_", "-")] = value
    message.set_content("Hallo\n")
    return message


def send(server, message, sender=None):
    """Sends it with smtplib."""
    with smtplib.SMTP("127.0.0.1", server.port) as client:
        client.send_message(message, from_addr=sender, to_addrs=["ann@mx.test"])


def check_reply(octets, to):
    """It is what RFC 3834 section 3 wants."""
    reply = message_from_bytes(octets, policy=policy.default)
    assert not reply.defects, reply.defects
    assert reply["Auto-Submitted"] == "auto-replied", reply
    assert str(reply["From"]) == "Jörg Ann <ann@mx.test>", reply["From"]
    assert [a.addr_spec for a in reply["To"].addresses] == [to], reply["To"]
    assert reply["Subject"] == "Verreist: Mittagessen in Köln", reply["Subject"]
    assert reply["In-Reply-To"] == "<one@client.test>", reply["In-Reply-To"]
    assert reply["References"].split() == ["<zero@client.test>", "<one@client.test>"], reply
    assert reply["Date"].datetime and reply["Message-ID"], reply
    assert reply.get_content_type() == "text/plain"
    text = reply.get_content().splitlines()
    assert text == ["Grüße,", "ich lese „Mittagessen in Köln“ später."], text
    # Nothing but our own fields, and in front of them those of its way.
    names = {name.lower() for name in reply.keys()} - {"return-path", "delivered-to"}
    assert names == {
        "from", "to", "subject", "date", "message-id", "in-reply-to", "references",
        "auto-submitted", "mime-version", "content-type", "content-transfer-encoding"}, names


@own_mounts
def test_local_sender():
    """A sender of this host gets one reply, from the null sender, and one to a new message."""
    with two_people() as server:
        send(server, mail("bob@mx.test"))
        [reply] = server.wait_mail("bob")
        assert reply.startswith(b"Return-Path: <>\nDelivered-To: bob@mx.test\n"), reply
        check_reply(reply, "bob@mx.test")
        for number in range(3):
            send(server, mail("bob@mx.test"))
            server.wait_mail("ann", number + 2)
        server.wait_queue(0)
        server.wait_mail("bob")
        away(server, AWAY + "Ann\n")
        send(server, mail("bob@mx.test"))
        server.wait_mail("bob", 2)
        assert len(re.findall(r": replied to=<bob@mx.test> for=ann in=", server.log())) == 2


@own_mounts
def test_sender_elsewhere():
    """A sender of elsewhere gets one reply through the smarthost, also after a restart."""
    with Peer() as peer, two_people(peer.port) as server:
        send(server, mail("carl@far.test"))
        [taken] = peer.wait_messages(1)
        assert taken.sender.startswith(b"MAIL FROM:<> "), taken.sender
        assert taken.recipients == ["<carl@far.test>"], taken.recipients
        check_reply(taken.content, "carl@far.test")
        server.kill()
        server.start()
        send(server, mail("carl@far.test"))
        send(server, mail("dan@far.test"))
        peer.wait_messages(2)
        server.wait_mail("ann", 3)
        server.wait_queue(0)
        assert [m.recipients for m in peer.messages] == [["<carl@far.test>"], ["<dan@far.test>"]]


@own_mounts
def test_swaks():
    """swaks gets a reply; a message that does not name Ann gets none."""
    with Peer() as peer, two_people(peer.port) as server:
        def swaks(sender, *options):
            run([program("swaks"), "--server", f"127.0.0.1:{server.port}", "--from", sender,
                 "--to", "ann@mx.test", *options])
        swaks("eve@far.test", "--h-To", "everybody@far.test")
        swaks("fay@far.test")
        server.wait_mail("ann", 2)
        peer.wait_messages(1)
        server.wait_queue(0)
        assert [m.recipients for m in peer.messages] == [["<fay@far.test>"]]


@own_mounts
def test_no_reply():
    """Lists, programs, bulk mail, other people's files and Ann herself get no reply."""
    with Peer() as peer, two_people(peer.port) as server:
        for number, (sender, fields) in enumerate([
            ("u1@far.test", {"List_Id": "<x.far.test>"}),
            ("u2@far.test", {"Precedence": "bulk"}),
            ("u3@far.test", {"Auto_Submitted": "auto-generated"}),
            ("u4@far.test", {"X_Auto_Response_Suppress": "All"}),
            ("", {}),
            ("owner-x@far.test", {}),
            ("x-request@far.test", {}),
            ("MAILER-DAEMON@far.test", {}),
            ("root@mx.test", {}),
            ("ann@mx.test", {}),
        ]):
            send(server, mail("u@far.test", **fields), sender or "<>")
            server.wait_mail("ann", number + 1)
        # Bob may not read it, and has none himself.
        os.chown(server.dir / "ann/.vacation.msg", BOB, BOB)
        (server.dir / "ann/.vacation.msg").chmod(0o644)
        send(server, mail("u5@far.test"))
        server.wait_log(r"no automatic reply for ann: .*/ann/\.vacation\.msg is not sent: "
                        r"it belongs to another user")
        server.wait_queue(0)
        assert not peer.messages and not server.new_mail("bob"), [vars(m) for m in peer.messages]


@own_mounts
def test_two_who_are_away():
    """Two people who are away do not answer each other's replies."""
    with two_people() as server:
        away_too = server.dir / "bob/.vacation.msg"
        away_too.write_text("I am away, too.\n")
        os.chown(away_too, BOB, BOB)
        send(server, mail("bob@mx.test"))
        server.wait_mail("ann")
        server.wait_mail("bob")
        server.wait_queue(0)
        assert server.log().count(": replied ") == 1
