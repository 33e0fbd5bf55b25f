"""Only CRLF.CRLF ends a message (RFC 5321 4.1.1.4): nobody smuggles a second one in."""

import contextlib

from harness import Closed, Server

# What some server or other has taken for the end of a message.
ENDS = {
    "LF.LF": b"\n.\n",
    "LF.CRLF": b"\n.\r\n",
    "CRLF.LF": b"\r\n.\n",
    "CR.CR": b"\r.\r",
    "CRLF.CR": b"\r\n.\r",
    "CR.CRLF": b"\r.\r\n",
    "CRLF NUL .CRLF": b"\r\n\0.\r\n",
    "LF.CR": b"\n.\r",
}
SECOND = (b"MAIL FROM:<evil@client.test>\r\nRCPT TO:<ann@mx.test>\r\nDATA\r\n"
          b"Subject: smuggled\r\n\r\nsmuggled\r\n.\r\nQUIT\r\n")


def attempt(server, end, drip):
    """One try; returns the replies after 354 up to the end of the session."""
    with server.session() as client:
        client.envelope("bob@client.test", ["ann@mx.test"])
        client.command("DATA", 354)
        octets = b"Subject: outer\r\n\r\nouter" + end + SECOND
        client.drip(octets) if drip else client.send(octets)
        # Sent after the content, so it is read as a command only when the content ended.
        replies = [client.reply()]
        while replies[-1].code not in (221, 421):
            replies.append(client.reply())
        return replies


def check(mode, drip):
    """Tries every end against a listener."""
    with Server({"listen.smtp": {"bare_newline": mode}}) as server:
        accepted = []
        for name, end in ENDS.items():
            replies = attempt(server, end, drip)
            # One reply to the content and one to QUIT: MAIL was never a command.
            codes = [reply.code for reply in replies]
            assert len(codes) == 2, f"{name}: {replies}"
            if mode == "reject" and name != "CRLF NUL .CRLF":
                assert codes[0] // 100 == 5, f"{name}: {replies}"
            assert codes[0] == 250 or codes[0] // 100 == 5, f"{name}: {replies}"
            accepted += [name] * (codes[0] == 250)
        if mode == "accept":
            assert set(accepted) >= {"LF.LF", "LF.CRLF", "CRLF.LF"}, accepted
        server.deliver(content=b"Subject: end\r\n\r\n")
        server.wait_queue(0)
        texts = server.wait_mail(count=len(accepted) + 1)
        assert not any(b"\nSubject: smuggled" in t.partition(b"\n\n")[0] for t in texts)
        assert not any(b"Return-Path: <evil" in t.partition(b"\n\n")[0] for t in texts)


def test_reject_in_one_segment():
    """No bare CR or LF ends a message that comes in one segment, and each is refused."""
    check("reject", drip=False)


def test_reject_byte_by_byte():
    """No bare CR or LF ends a message that comes in a segment per octet, and each is refused."""
    check("reject", drip=True)


def test_accept_in_one_segment():
    """With `bare_newline = accept` a bare LF is taken, and still ends nothing."""
    check("accept", drip=False)


def test_accept_byte_by_byte():
    """With `bare_newline = accept` the same holds for a segment per octet."""
    check("accept", drip=True)


def test_bare_newlines_in_commands():
    """A bare CR or LF in a command is refused and ends no command."""
    with Server() as server:
        for octets in [b"NOOP\nNOOP\r\n", b"NOOP\rNOOP\r\n", b"MAIL FROM:<a@b.test>\nRSET\r\n",
                       b"NOOP\n\r\n", b"NOOP\r\r\n"]:
            with server.session() as client:
                client.send(octets)
                assert client.reply().code // 100 == 5, octets
                # It may hang up on such a client; if not, the next command is the next one.
                with contextlib.suppress(Closed, ConnectionError):
                    client.command("QUIT", 221)


def test_accepted_newline_becomes_crlf():
    """With `bare_newline = accept` the message is stored with whole lines."""
    with Server({"listen.smtp": {"bare_newline": "accept"}}) as server:
        server.deliver(content=b"Subject: old printer\n\none\ntwo\r\n")
        assert server.wait_mail()[0].endswith(b"Subject: old printer\n\none\ntwo\n")
