"""swaks, the tool that people debug mail with."""

from email import message_from_bytes

from harness import Server, folder, program, run

REFUSED_RECIPIENT, REFUSED_DATA = 24, 26


def swaks(server, *options, expect=0):
    """Runs swaks against the server."""
    return run([program("swaks"), "--server", f"127.0.0.1:{server.port}", "--from",
                "bob@client.test", "--to", "ann@mx.test", *options], expect=expect)


def test_basics():
    """swaks with HELO, EHLO, pipelining, attachments and headers is served."""
    with Server() as server:
        for number, options in enumerate([
            ("--protocol", "SMTP", "--helo", "client.test"),
            ("--protocol", "ESMTP", "--ehlo", "[127.0.0.1]"),
            ("--pipeline",),
            ("--attach-type", "text/plain", "--attach", "@" + __file__),
            ("--h-Subject", "pretty", "--add-header", "X-Test: yes"),
            ("--body", "line\n.\n..two\n.last"),
            ("--from", "<>"),
            ("--to", "ann@mx.test,ann@localhost"),
        ], 1):
            printed = swaks(server, *options)
            assert "<** " not in printed, printed
        # Those two are one mailbox.
        server.wait_queue(0)
        texts = server.wait_mail(count=number)
        bodies = [message_from_bytes(t).get_payload() for t in texts]
        assert any("line\n.\n..two\n.last" in b for b in bodies if isinstance(b, str)), bodies


def test_eight_bit():
    """An 8-bit body that swaks sends arrives octet for octet."""
    body = "Grüße aus Köln, ñ, 漢字".encode()
    with Server() as server, folder() as files:
        (files / "body").write_bytes(
            b"Subject: eight\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n"
            b"Content-Transfer-Encoding: 8bit\r\n\r\n" + body + b"\r\n")
        swaks(server, "--data", f"@{files / 'body'}")
        assert body in server.wait_mail()[0]


def test_size_refused():
    """swaks is told 552 after a message above the limit."""
    with Server({"server": {"max_message_size": "64K"}}) as server, folder() as files:
        (files / "body").write_text("x" * 70 + "\n" + ("y" * 70 + "\n") * 2000)
        printed = swaks(server, "--body", f"@{files / 'body'}", expect=REFUSED_DATA)
        assert "552 5.3.4" in printed, printed


def test_relay_denied():
    """swaks is told 550 5.7.1 for another domain, from a stranger."""
    with Server({"relay": {"networks": "192.0.2.0/24"}}) as server:
        printed = swaks(server, "--to", "zoe@far.test", expect=REFUSED_RECIPIENT)
        assert "550 5.7.1" in printed, printed
