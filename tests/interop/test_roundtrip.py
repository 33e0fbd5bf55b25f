"""What Python's smtplib sends, Python's mailbox and email read back unchanged."""

import email
import mailbox
import re
import smtplib
import subprocess
from email.message import EmailMessage

from harness import Server, folder, program, run, wait_for

HEADER = b"From: <bob@client.test>\nTo: <ann@mx.test>\nSubject: %d\n\n"
BODIES = [
    b"plain\n",
    b"",
    b".\n",
    b"..\n...\n. \n.a\n",
    b"first\n.\nMAIL FROM:<x@y.test>\n.\n\n.\n",
    b"x" * 998 + b"\n" + b"." * 998 + b"\n",
    b"From here\n>From there\n>>From everywhere\nFrom: no\n From no\n",
    b"\nFrom after an empty line\n\n\n\n",
    "Grüße, 漢字\n".encode(),
    bytes(range(128, 256)) + b"\n",
    b"\t \n trailing \t\n",
    # Dots around the ends of likely buffers.
    b"".join((b"y" * 989 + b"\n.") * 4 + b"y" * (4096 - 991 * 4 - n) + b"\n.\n" for n in range(5)),
    b"".join(b".%04d\n" % n for n in range(20000)),
]


def sent(number, body):
    """The message as it is, with LF."""
    return HEADER % number + body


def send_all(server):
    """Sends each body with smtplib, over one connection."""
    with smtplib.SMTP(server.host, server.port, "client.test", timeout=60) as smtp:
        for number, body in enumerate(BODIES):
            content = sent(number, body).replace(b"\n", b"\r\n")
            smtp.sendmail("bob@client.test", ["ann@mx.test"], content, ["BODY=8BITMIME"])


def without_trace(text):
    """A message without what a final delivery adds at its head (RFC 5321 4.4)."""
    added = re.compile(rb"(?:Return-Path|Delivered-To|Received): .*\n(?:[ \t].*\n)*")
    seen = []
    while found := added.match(text):
        seen.append(found[0].partition(b":")[0])
        text = text[found.end():]
    assert sorted(seen) == [b"Delivered-To", b"Received", b"Return-Path"], seen
    assert seen[0] == b"Return-Path", seen
    return text


def check(messages):
    """Each message is what was sent."""
    assert len(messages) == len(BODIES), f"{len(messages)} of {len(BODIES)}"
    by_number = {int(email.message_from_bytes(m)["Subject"]): m for m in messages}
    for number, body in enumerate(BODIES):
        got, want = without_trace(by_number[number]), sent(number, body)
        assert got == want, f"body {number}:\n{got[-300:]!r}\nis not\n{want[-300:]!r}"


def test_maildir():
    """Dots, long lines, From_ lines and 8-bit octets come through a Maildir unchanged."""
    with Server() as server:
        send_all(server)
        server.wait_mail(count=len(BODIES))
        box = mailbox.Maildir(server.mail / "ann", create=False)
        check([box.get_bytes(key) for key in box.keys()])


def test_mbox():
    """The same come through an mbox, once `>From` is read back."""
    with Server({"local": {"format": "mbox"}}) as server:
        send_all(server)
        wait_for("the mailbox", (server.mail / "ann").exists)
        server.wait_queue(0)
        box = mailbox.mbox(server.mail / "ann", create=False)
        for message in box:
            assert message.get_from().startswith("bob@client.test "), message.get_from()
        check([re.sub(rb"(?m)^>(>*From )", rb"\1", box.get_bytes(key)) for key in box.keys()])


def test_mime():
    """A MIME message with an attachment is the same after the way through."""
    message = EmailMessage()
    message["From"], message["To"] = "bob@client.test", "ann@mx.test"
    message["Subject"] = "Grüße"
    message.set_content("text äöü\n", cte="8bit")
    message.add_attachment(bytes(range(256)) * 300, maintype="image", subtype="png",
                           filename="ü.png")
    with Server() as server:
        with smtplib.SMTP(server.host, server.port, "client.test", timeout=60) as smtp:
            assert smtp.send_message(message) == {}
        got = email.message_from_bytes(server.wait_mail()[0], policy=email.policy.default)
    assert got["Subject"] == "Grüße"
    assert got.get_body().get_content() == "text äöü\n"
    assert next(got.iter_attachments()).get_content() == bytes(range(256)) * 300


def test_smtplib_errors():
    """smtplib sees which recipients were refused and why."""
    with folder() as names:
        (names / "users").write_text("ann\n")
        with Server({"local": {"users": names / "users"}}) as server:
            with smtplib.SMTP(server.host, server.port, "client.test", timeout=60) as smtp:
                refused = smtp.sendmail("bob@client.test", ["ann@mx.test", "nobody@mx.test"],
                                        "Subject: two\r\n\r\n")
                assert list(refused) == ["nobody@mx.test"], refused
                assert refused["nobody@mx.test"][0] == 550, refused
            server.wait_mail()


def mutt_reads(box, count):
    """Lets mutt, in a terminal of `script`, copy every message out of a mailbox."""
    with folder() as home:
        command = (f"<tag-pattern>~A<enter><tag-prefix><pipe-message>"
                   f"cat > {home}/copy<enter><exit>")
        (home / "rc").write_text(
            f"set folder={home} record=\"\" copy=no quit=yes pipe_split=no pipe_decode=no wait_key=no "
            f"confirmappend=no header_cache=\"\" mark_old=no sort=mailbox-order delete=no move=no\n"
            f"push \"{command}\"\n")
        mutt = f"{program('mutt')} -n -R -F {home}/rc -f {box}"
        run([program("script"), "-qec", mutt, "/dev/null"],
            env={"PATH": "/usr/bin:/bin", "HOME": str(home), "TERM": "vt100", "LINES": "24",
                 "COLUMNS": "80"}, stdin=subprocess.DEVNULL)
        copy = (home / "copy").read_bytes()
    subjects = re.findall(rb"(?m)^Subject: from wren (\d+)$", copy)
    assert sorted(map(int, subjects)) == list(range(count)), subjects


def deliver_some(server, count):
    """Messages with numbered subjects, some of them awkward in an mbox."""
    for number in range(count):
        body = b"From here\r\n\r\nFrom there\r\n"
        server.deliver(content=b"Subject: from wren %d\r\n\r\n%s" % (number, body))


def test_mutt_reads_maildir():
    """mutt finds every message in the Maildir."""
    with Server() as server:
        deliver_some(server, 5)
        server.wait_mail(count=5)
        mutt_reads(server.mail / "ann", 5)


def test_mutt_reads_mbox():
    """mutt finds every message in the mbox, and takes no line of a body for another one."""
    with Server({"local": {"format": "mbox"}}) as server:
        deliver_some(server, 5)
        wait_for("the mailbox", (server.mail / "ann").exists)
        server.wait_queue(0)
        mutt_reads(server.mail / "ann", 5)
