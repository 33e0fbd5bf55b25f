"""The `sendmail` that cron, mail(1) and scripts call."""

import os
import socket
import subprocess
from email import message_from_bytes, policy

from harness import Server, folder, program, run, smarthost
from peers import Peer

EX_USAGE, EX_TEMPFAIL = 64, 75


def sendmail(server, arguments, content, expect=0):
    """Runs `sendmail` with a message on its standard input."""
    return run([server.linked(), *arguments], expect=expect, input=content, env=server.environment(),
               cwd=server.dir)


def test_plain():
    """A message with LF and recipients as arguments arrives, completed and traced."""
    with Server() as server:
        sendmail(server, ["ann@mx.test"], b"Subject: plain\n\nhello\n.\nnot after the dot\n")
        message = message_from_bytes(server.wait_mail()[0])
        assert message["Subject"] == "plain"
        for field in ("From", "Date", "Message-ID"):
            assert len(message.get_all(field, [])) == 1, f"{field}: {message.get_all(field)}"
        assert f"uid {os.getuid()}" in message["Received"] \
            or f"uid={os.getuid()}" in message["Received"], message["Received"]
        # Without -i a lone dot ends the message.
        assert message.get_payload() == "hello\n", message.get_payload()


def test_lone_dot_with_i():
    """With -i or -oi a lone dot is only a dot."""
    with Server() as server:
        for number, flag in enumerate(["-i", "-oi"], 1):
            sendmail(server, [flag, "ann@mx.test"], b"Subject: dot\n\none\n.\ntwo\n..\n")
            texts = server.wait_mail(count=number)
            assert all(message_from_bytes(t).get_payload() == "one\n.\ntwo\n..\n" for t in texts)


def test_recipients_from_the_message():
    """With -t To, Cc and Bcc are the recipients, and Bcc is removed."""
    content = (b"To: Ann <ann@mx.test>, \"Eve, the other\" <eve@mx.test>\n"
               b"Cc: (a comment) dan@mx.test\nBcc: secret@mx.test,\n hidden@mx.test\n"
               b"Subject: many\n\nbody\n")
    with Server() as server:
        sendmail(server, ["-t", "-i"], content)
        for user in ("ann", "eve", "dan", "secret", "hidden"):
            text = server.wait_mail(user)[0]
            assert b"Bcc" not in text, text
            assert b"hidden@" not in text.replace(b"Delivered-To: hidden@mx.test", b""), text


def test_sender_and_name():
    """-f is the reverse-path, -F the name in a From that is added."""
    with Server() as server:
        arguments = ["-f", "root@client.test", "-F", "Ann's Cron", "ann@mx.test"]
        sendmail(server, arguments, b"Subject: f\n\n")
        message = message_from_bytes(server.wait_mail()[0])
        assert message["Return-Path"] == "<root@client.test>", message["Return-Path"]
        assert "Ann's Cron" in message["From"], message["From"]
        assert "root@client.test" in message["From"], message["From"]
        sendmail(server, ["-F", "Jörg, at home", "eve@mx.test"], b"Subject: f\n\n")
        message = message_from_bytes(server.wait_mail("eve")[0], policy=policy.default)
        assert message["From"].addresses[0].display_name == "Jörg, at home", message["From"]


def test_headers_are_kept():
    """From, Date and Message-ID that are there stay as they are."""
    fields = (b"From: Me <me@mx.test>\nDate: Sun, 01 Feb 2026 01:02:03 +0100\n"
              b"Message-ID: <kept@mx.test>\nSubject: kept\n")
    with Server() as server:
        sendmail(server, ["ann@mx.test"], fields + b"\nbody\n")
        text = server.wait_mail()[0]
        for line in fields.splitlines():
            assert text.count(line) == 1, line
        assert text.count(b"\nDate:") == 1 and text.count(b"\nMessage-ID:") == 1


def test_body_without_header():
    """A message that is only text gets a header and keeps its text."""
    with Server() as server:
        sendmail(server, ["ann@mx.test"], b"just a line\nand another\n")
        message = message_from_bytes(server.wait_mail()[0])
        assert message["From"] and "just a line\nand another\n" in message.get_payload()


def test_no_recipients():
    """Without a recipient the exit code is 64 and says why."""
    with Server() as server:
        assert sendmail(server, [], b"Subject: x\n\n", EX_USAGE)
        assert sendmail(server, ["-t"], b"Subject: x\n\nbody\n", EX_USAGE)
        server.wait_queue(0)


def test_relays():
    """A local user may send anywhere, whatever the relay networks are; 8-bit and dots too."""
    with Peer() as peer:
        settings = {"relay": {"networks": "192.0.2.0/24"},
                    "smarthost": smarthost(peer.port)}
        with Server(settings) as server:
            sendmail(server, ["-i", "zoe@far.test"], "Subject: ü\n\n.\n..ü\n".encode())
            content = peer.wait_messages(1)[0].content
            assert content.endswith("\r\n\r\n.\r\n..ü\r\n".encode()), content
            server.wait_queue(0)


def test_large_and_odd_input():
    """CRLF input, no last newline and a large message are fine; nothing smuggles a second one."""
    with Server() as server:
        sendmail(server, ["-i", "ann@mx.test"], b"Subject: crlf\r\n\r\none\r\ntwo\r\n")
        sendmail(server, ["-i", "eve@mx.test"], b"Subject: end\n\nno newline")
        sendmail(server, ["-i", "dan@mx.test"], b"Subject: big\n\n" + b"0123456789abcde\n" * 200000)
        sendmail(server, ["-i", "mal@mx.test"],
                 b"Subject: s\n\n.\r\nMAIL FROM:<evil@x.test>\nRCPT TO:<evil@mx.test>\nDATA\n.\n")
        assert server.wait_mail("ann")[0].endswith(b"\n\none\ntwo\n")
        assert server.wait_mail("eve")[0].endswith(b"\n\nno newline\n")
        assert server.wait_mail("dan")[0].count(b"0123456789abcde\n") == 200000
        assert b"\nDATA\n.\n" in server.wait_mail("mal")[0]
        server.wait_queue(0)
        assert not server.new_mail("evil")


def test_hostile_arguments():
    """Newlines and NULs in -f, -F and recipients make no field, no command and no path."""
    with Server() as server:
        sendmail(server, ["-F", "Name\nX-Evil: yes\r\nBcc: x", "ann@mx.test"], b"Subject: a\n\n")
        text = server.wait_mail("ann")[0]
        assert b"\nX-Evil" not in text and b"\nBcc" not in text, text
        for arguments in (["-f", "a@mx.test>\r\nRCPT TO:<evil@mx.test", "eve@mx.test"],
                          ["eve@mx.test>\r\nRCPT TO:<evil@mx.test"], ["../../evil"]):
            done = subprocess.run([server.dir / "sendmail", *arguments], input=b"Subject: b\n\n",
                                  capture_output=True, env=server.environment(), timeout=60)
            assert done.returncode in (0, 64, 65, 67, 68, 69, 75, 77), done
        server.deliver("last@mx.test")
        server.wait_queue(0)
        assert not server.new_mail("evil"), "an argument became a command"
        assert not [p for p in server.dir.rglob("evil*") if server.mail not in p.parents]


def test_command_lines_of_the_field():
    """The command lines of cron, anacron, mdadm, smartd, git and the others deliver."""
    to = b"To: ann\nSubject: field\n\nbody\n"
    plain = b"Subject: field\n\nbody\n"
    lines = [
        (["-FCronDaemon", "-i", "-odi", "-oem", "-oi", "-t", "-f", "root"], to),
        (["-i", "-FCronDaemon", "-B8BITMIME", "-oem", "ann"], plain),
        (["-FAnacron", "-odi", "ann"], plain),
        (["-t"], to),
        (["-oi", "-t"], to),
        (["ann@mx.test"], plain),
        (["-oi", "-f", "user@mx.test", "-t"], to),
        (["-t", "-i"], to),
        (["-i", "ann", "ann@localhost"], plain),
        (["-i", "--", "ann"], plain),
        (["-odb", "-oem", "-oQ/tmp/x", "-C", "/etc/mail/sendmail.cf", "ann"], plain)
        if os.geteuid() else (["-odb", "-oem", "-oQ/tmp/x", "ann"], plain),
        (["-f", "", "ann"], plain),
        (["-f", "<>", "ann"], plain),
        (["-oi", "-t", "-f", "a", "eve"], to),
        (["-i", "-B", "8BITMIME", "-F", "CronDaemon", "-odi", "ann"], plain),
        (["-Zunknown", "--nonsense", "-e", "m", "-L", "tag", "-A", "c", "ann"], plain),
        (["-G", "-N", "never", "-U", "-v", "-oi", "-O", "Timeout=1", "-h", "3", "-R",
          "hdrs", "ann"], plain),
    ]
    with Server() as server:
        for number, (arguments, content) in enumerate(lines, 1):
            sendmail(server, arguments, content)
            server.wait_queue(0)
            texts = server.wait_mail(count=len(server.new_mail()))
            assert len(texts) >= number, f"{arguments} delivered nothing"
        assert all(b"Subject: field" in t for t in texts)


def test_exit_codes():
    """Each way to fail has its code of sysexits(3) and a text, and nothing of it is sent."""
    settings = {"local": {"users": "DIR/users", "aliases": "DIR/aliases"},
                "server": {"max_message_size": "64K"}}
    server = Server(settings)
    (server.dir / "users").write_text("ann\n")
    (server.dir / "aliases").write_text("broken: |/bin/x y z\n")
    with server:
        message = b"Subject: x\n\n"
        for arguments, content, code, text in [
            ([], message, EX_USAGE, "no recipients"),
            (["-t"], message, EX_USAGE, "no recipients"),
            (["x@@y"], message, 65, "no address"),
            (["-f", "x@@y", "ann"], message, 65, "-f"),
            (["nobody-here"], message, 67, "no such user here"),
            (["nobody-here", "nor-here@localhost"], message, 67, "no such user here"),
            (["ann"], b"Subject: x\n\n" + b"x" * 70000, 69, "larger than"),
            (["-bd"], b"", 69, "mailwren serve"),
            (["-bv", "nobody-here"], b"", 67, "no such user here"),
            (["-bv"], b"", EX_USAGE, "name the addresses"),
            (["-bv", "ann", "ann@far.test"], b"", 0, "deliverable"),
            (["-bp"], b"", 0, "queue is empty"),
            (["-q"], b"", 0, ""),
            (["-qRfar.test"], b"", 0, ""),
            (["-bi"], b"", 0, ""),
        ]:
            output = sendmail(server, arguments, content, code)
            assert text in output, f"{arguments}: {output}"
        assert not server.new_mail()
        server.wait_queue(0)


def test_some_recipients_are_refused():
    """Who is refused beside others is told of by a report, so that nobody sends to all again."""
    server = Server({"local": {"users": "DIR/users"}})
    (server.dir / "users").write_text("ann\nbob\n")
    message, told, reports = b"Subject: x\n\n", "no such user here; the sender gets a report", 0
    with server:
        for number, (arguments, code, has_copy, is_reported, text) in enumerate([
            ([], 0, True, True, told),
            (["-oem"], 0, True, True, told),
            (["-oem", "-f", "<>"], 67, True, False, "no such user here\n"),
            (["-N", "never"], 67, True, False, "no such user here\n"),
            (["-oeq"], 67, True, False, ""),
            (["-oem"], 67, False, True, told),
            (["-oee"], 0, False, True, told),
            ([], 67, False, False, "no such user here\n"),
        ]):
            copies = len(server.new_mail())
            arguments = ["-f", "bob", *arguments, "nobody-here"] + ["ann"] * has_copy
            output = sendmail(server, arguments, message, code)
            assert text in output and output.count("\n") == (text != ""), (arguments, output)
            reports += is_reported
            server.wait_mail(count=copies + has_copy)
            server.wait_queue(0)
            if reports:
                assert len(server.wait_mail("bob", reports)) == reports, arguments
        for report in server.wait_mail("bob", reports):
            assert b"nobody-here@mx.test" in report and b"5.1.1" in report, report
    # Without a server it is the same in the end.
    server = Server({"local": {"users": "DIR/users"}})
    (server.dir / "users").write_text("ann\nbob\n")
    with server:
        server.stop()
        sendmail(server, ["-f", "bob", "ann", "nobody-here"], message)
        server.start()
        assert server.wait_mail("ann") and b"nobody-here" in server.wait_mail("bob")[0]


def test_one_mailbox_has_one_copy():
    """Who is named in several spellings has the message once, and two people of one spelling each."""
    settings = {"server": {"domains": "mx.test, other.test, localhost"},
                "local": {"users": "DIR/users"}, "domain.shop.test": {"users": "DIR/users"}}
    server = Server(settings)
    (server.dir / "users").write_text("ann\nBob\nbob\nroot\n")
    server.overrides["domain.shop.test"]["path"] = server.mail / "shop-{user}"
    everybody = ["ann", "Ann@localhost", f"ann@{socket.gethostname()}", "ANN@other.test",
                 "ann@MX.test.", "ann@shop.test", "Ann@shop.test", "Bob", "bob@other.test", "BOB",
                 "root", "postmaster"]
    copies = {"ann": 1, "shop-ann": 1, "Bob": 1, "bob": 1, "root": 1}
    with server:
        for number, is_running in enumerate([True, False], 1):
            if not is_running:
                server.stop()
            sendmail(server, everybody, b"Subject: once\n\n")
            if not is_running:
                server.start()
            for user in copies:
                server.wait_mail(user, number)
            server.wait_queue(0)
            found = {user: len(server.new_mail(user)) // number for user in copies}
            assert found == copies, found
        with server.session() as client:
            client.send_message("", ["ann@mx.test", "Ann@other.test"], b"Subject: once\r\n\r\n")
            server.wait_mail("ann", 3)
            server.wait_queue(0)
            assert len(server.new_mail("ann")) == 3


def test_pipe_session():
    """With -bs swaks and a plain dialog send over standard input and output."""
    with Server() as server:
        link = server.linked()
        for number in range(1, 3):
            run([program("swaks"), "--pipe", f"{link} -bs -odb -oem", "--from", "root@mx.test",
                 "--to", "ann@mx.test"], env=server.environment())
            server.wait_mail(count=number)
        # Programs of this host write names without a domain.
        dialog = b"EHLO x.test\r\nMAIL FROM:<root>\r\nRCPT TO:<ann>\r\nDATA\r\n"
        done = subprocess.run([link, "-bs"], input=dialog, capture_output=True, timeout=60,
                              env=server.environment())
        assert done.returncode == 0 and b"\r\n354 " in done.stdout, done
        assert len(server.new_mail()) == 2, "a message cut off in the middle was sent"
        # So do scripts end lines with LF, and say all at once. Who begins with CRLF means it.
        for is_running in (True, False):
            if not is_running:
                server.stop()
            dialog = (b"HELO x.test\nMAIL FROM:<root>\nRCPT TO:<eve>\nDATA\n"
                      b"Subject: lf\n\n..\n.\nQUIT\n")
            done = subprocess.run([link, "-bs"], input=dialog, capture_output=True, timeout=60,
                                  env=server.environment())
            assert b"\r\n221 " in done.stdout, done
            mixed = dialog.replace(b"\n", b"\r\n").replace(b"\r\n..\r\n", b"\n.\nRSET\r\n")
            done = subprocess.run([link, "-bs"], input=mixed, capture_output=True, timeout=60,
                                  env=server.environment())
            assert b"\r\n5" in done.stdout and b" Reset" not in done.stdout, done
        server.start()
        assert all(text.endswith(b"Subject: lf\n\n.\n") for text in server.wait_mail("eve", 2))


def test_resent():
    """A resent message goes to the last Resent-To and to nobody else."""
    with Server() as server:
        sendmail(server, ["-t"], b"Resent-To: ann\nResent-Bcc: dan\nResent-From: me@x.test\n"
                 b"Resent-Date: Sun, 01 Feb 2026 01:02:03 +0100\nFrom: a@b.test\nTo: eve\n"
                 b"Resent-From: old@x.test\nResent-To: eve\n\nbody\n")
        for user in ("ann", "dan"):
            assert b"Bcc" not in server.wait_mail(user)[0]
        server.wait_queue(0)
        assert not server.new_mail("eve")


def test_wrong_configuration_is_no_help():
    """An unreadable configuration does not stop `sendmail`: it takes the defaults."""
    with Server() as server, folder() as empty:
        done = subprocess.run([server.linked(), "ann@mx.test"], input=b"Subject: x\n\n",
                              capture_output=True, timeout=60,
                              env={**os.environ, "MAILWREN_CONFIG": str(empty / "none.ini")})
        # Nobody listens at the default place, nor is there a spool: it is told to come again.
        assert done.returncode == EX_TEMPFAIL, done
