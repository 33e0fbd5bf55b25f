"""What a client may say, and what it is answered."""

import re
import time

from harness import Closed, Server, folder, wait_for, within


def test_every_reply_has_an_enhanced_code():
    """Replies of class 2, 4 and 5 carry an RFC 3463 code, but those to greetings."""
    with Server() as server, server.session() as client:
        for line, code in [
            ("NOOP", 250), ("RSET", 250), ("HELP", 214), ("HELP MAIL", 214), ("VRFY ann", 252),
            ("FROB", 500), ("MAIL FROM:<a b>", None), ("RCPT TO:<ann@mx.test>", 503), ("DATA", 503),
            ("MAIL FROM:<a@b.test> FOO=1", 555), ("EXPN list", None),
            ("MAIL FROM:<a@b.test>", 250), ("MAIL FROM:<a@b.test>", 503),
            ("RCPT TO:<ann@mx.test>", 250), ("RSET", 250), ("QUIT", 221),
        ]:
            reply = client.command(line, *([code] if code else []))
            assert reply.status, f"{line} got {reply}"
            assert reply.status[0] == str(reply.code)[0], f"{line} got {reply}"


def test_ehlo_keywords():
    """EHLO offers SIZE with the limit, PIPELINING, 8BITMIME, ENHANCEDSTATUSCODES and HELP."""
    with Server({"server": {"max_message_size": "1M"}}) as server, server.client() as client:
        assert "mx.test" in client.expect(220).text
        lines = client.command("EHLO client.test", 250).lines
        assert lines[0].startswith("mx.test"), lines
        for keyword in ["SIZE 1048576", "PIPELINING", "8BITMIME", "ENHANCEDSTATUSCODES", "HELP"]:
            assert keyword in lines[1:], f"{keyword} is not in {lines}"


def test_size():
    """A message above the limit is refused at MAIL when it says so, else while it is read."""
    with Server({"server": {"max_message_size": "64K"}}) as server, server.session() as client:
        assert client.command("MAIL FROM:<a@b.test> SIZE=65537", 552).status == "5.3.4"
        client.command("MAIL FROM:<a@b.test> SIZE=65536", 250)
        client.command("RCPT TO:<ann@mx.test>", 250)
        client.command("DATA", 354)
        assert client.command(b"0123456789abcd\r\n" * 4097 + b".\r\n", 552).status == "5.3.4"
        # The session lives on, and a message of just that size is taken.
        client.envelope("a@b.test", ["ann@mx.test"])
        client.command("DATA", 354)
        client.command(b"0123456789abcd\r\n" * 4096 + b".\r\n", 250)
        client.command("QUIT", 221)
        server.wait_mail(count=1)
        server.wait_queue(0)


def test_unknown_user():
    """A local user who does not exist is refused with 550 5.1.1; postmaster always exists."""
    with folder() as names:
        (names / "users").write_text("ann\n")
        with Server({"local": {"users": names / "users"}}) as server:
            with server.session() as client:
                client.command("MAIL FROM:<bob@client.test>", 250)
                assert client.command("RCPT TO:<nobody@mx.test>", 550).status == "5.1.1"
                client.command("RCPT TO:<ann@mx.test>", 250)
                client.command("RCPT TO:<ANN+list@MX.TEST>", 250)


def test_postmaster():
    """Mail for postmaster is taken, with and without a domain (RFC 5321 4.5.1)."""
    with Server() as server:
        server.deliver("postmaster")
        server.deliver("postmaster@mx.test")
        server.wait_mail("postmaster", 2)


def test_vrfy():
    """VRFY says 252 by default, 250 and 550 with `yes`, and with `local` only to relay clients."""
    with folder() as names:
        (names / "users").write_text("ann\n")
        local = {"users": names / "users"}
        for mode, networks, ann, nobody in [
            ("no", "127.0.0.0/8", 252, 252), ("yes", "192.0.2.0/24", 250, 550),
            ("local", "127.0.0.0/8", 250, 550), ("local", "192.0.2.0/24", 252, 252),
        ]:
            settings = {"server": {"vrfy": mode}, "relay": {"networks": networks}, "local": local}
            with Server(settings) as server, server.session() as client:
                client.command("VRFY ann", ann)
                client.command("VRFY ann@mx.test", ann)
                client.command("VRFY nobody", nobody)
                client.command("VRFY", 501)
                assert client.command("EXPN staff").code in (252, 502, 550)


def test_help():
    """HELP names the commands, HELP with a topic explains it, and an unknown topic is told."""
    with Server() as server, server.session() as client:
        overview = client.command("HELP", 214)
        assert "RCPT" in overview.text, overview
        topic = client.command("HELP RCPT", 214)
        assert topic.text != overview.text and "RCPT" in topic.text, topic
        assert client.command("HELP XYZZY").code in (214, 504)


def test_max_sessions():
    """One session above max_sessions gets 421 and the next one is served when a slot is free."""
    with Server({"server": {"max_sessions": 3, "max_sessions_per_client": 3}}) as server:
        sessions = [greeted(server) for _ in range(3)]
        with server.client() as late:
            late.expect(421)
            assert late.is_closed(10), "not closed after 421"
        sessions.pop().__exit__()
        sessions.append(greeted(server))
        for session in sessions:
            session.command("QUIT", 221)


def greeted(server, source=None):
    """A session that has a slot, as soon as one is free."""
    def attempt():
        client = server.client(source)
        if client.reply().code == 220:
            return client
        client.socket.close()
        return None
    return wait_for("a free slot", attempt)


def test_max_sessions_per_client():
    """A client above max_sessions_per_client gets 421; another client is served meanwhile."""
    with Server({"server": {"max_sessions": 20, "max_sessions_per_client": 2}}) as server:
        sessions = [greeted(server, "127.0.0.3") for _ in range(2)]
        with server.client("127.0.0.3") as late, server.client("127.0.0.4") as other:
            late.expect(421)
            other.expect(220)
        for session in sessions:
            session.command("QUIT", 221)


def test_idle_timeout():
    """A client that says nothing is told 421 and cut off after session_timeout."""
    with Server({"server": {"session_timeout": "2s"}}) as server:
        # Before the server can begin to count.
        begin = time.monotonic()
        with server.session() as client:
            client.expect(421)
            assert client.is_closed(10), "not closed after 421"
            assert 1.5 < time.monotonic() - begin < 20


def test_dripping_timeout():
    """A client that drips a byte at a time is cut off after session_timeout all the same."""
    with Server({"server": {"session_timeout": "2s"}}) as server, server.session() as client:
        begin = time.monotonic()
        client.socket.settimeout(0.2)
        while time.monotonic() - begin < 20:
            try:
                client.send(b"N")
                assert client.reply().code == 421
                break
            except TimeoutError:
                continue
            except (Closed, OSError):
                break
        assert time.monotonic() - begin < 20, "the line may take for ever"


def test_dripping_message():
    """A client that drips its message a byte at a time is cut off, and nothing is kept of it."""
    with Server({"server": {"session_timeout": "2s"}}) as server, server.session() as client:
        client.envelope("bob@client.test", ["ann@mx.test"])
        client.command("DATA", 354)
        begin = time.monotonic()
        client.socket.settimeout(0.2)
        while time.monotonic() - begin < 20:
            try:
                client.send(b"x")
                if not client.socket.recv(100):
                    break
            except TimeoutError:
                continue
            except OSError:
                break
        assert time.monotonic() - begin < 20, "the message may take for ever"
        server.wait_queue(0)
        assert not server.new_mail()


def test_quit():
    """QUIT is answered at once and the connection closed, pipelined behind a message too."""
    with Server() as server:
        def quit_at_once():
            with server.session() as client:
                client.command("QUIT", 221)
                assert client.is_closed(10)
                assert client.buffer == b""
        within(2, quit_at_once)
        with server.session() as client:
            client.envelope("bob@client.test", ["ann@mx.test"])
            client.command("DATA", 354)
            client.send(b"Subject: last\r\n\r\nlast\r\n.\r\nQUIT\r\nNOOP\r\n")
            client.expect(250)
            client.expect(221)
            assert client.is_closed(10)
            assert client.buffer == b"", "something was said after 221"
        server.wait_mail()


def test_pipelining():
    """A batch of commands in one segment is answered in order, one reply for each."""
    with Server() as server, server.session() as client:
        client.send(b"MAIL FROM:<a@b.test>\r\nRCPT TO:<ann@mx.test>\r\nRCPT TO:<x@>\r\n"
                    b"NOOP\r\nRCPT TO:<eve@mx.test>\r\nDATA\r\n")
        codes = [client.reply().code for _ in range(6)]
        refused = codes[2]
        assert refused in (501, 553), codes
        assert codes == [250, 250, refused, 250, 250, 354]
        client.command(b"Subject: p\r\n\r\n.\r\n", 250)
        client.command("QUIT", 221)
        server.wait_mail("ann")
        server.wait_mail("eve")


def test_too_many_recipients():
    """Recipients above max_recipients get 452 and those before it are served."""
    with Server({"server": {"max_recipients": 100}}) as server, server.session() as client:
        client.command("MAIL FROM:<a@b.test>", 250)
        codes = [client.command(f"RCPT TO:<u{n}@mx.test>").code for n in range(102)]
        assert codes == [250] * 100 + [452] * 2, codes
        client.command("DATA", 354)
        client.command(b"Subject: many\r\n\r\n.\r\n", 250)
        wait_for("a hundred folders", lambda: len(list(server.mail.glob("*/new/*"))) == 100)


def test_address_forms():
    """Quoted local parts, literals and source routes are understood, nonsense is not."""
    with Server() as server, server.session() as client:
        for path, codes in [
            ('<"ann"@mx.test>', [250]), ("<@a.test,@b.test:ann@mx.test>", [250]),
            ("<Postmaster>", [250]), ("<ann@[127.0.0.1]>", [250]),
            ('<"john q\\" public"@mx.test>', [250, 550, 553]),
            ("<ann@mx.test", [501]), ("ann@mx.test", [250, 501]), ("<ann@@mx.test>", [501, 553]),
            ("<ann@[300.0.0.1]>", [501, 553]), ("<ann@[IPv6:::g]>", [501, 553]),
            ("<ann@mx..test>", [501, 553]), ("<.ann@mx.test>", [501, 553]), ("<>", [501, 553]),
            ("<@mx.test>", [501, 553]), ("<" + "a" * 65 + "@mx.test>", [250, 501, 550, 553]),
            ("<ann@" + "b" * 300 + ".test>", [501, 553]),
        ]:
            client.command("RSET", 250)
            client.command("MAIL FROM:<>", 250)
            client.command(f"RCPT TO:{path}", *codes)


def test_hostile_octets_never_reach_the_log():
    """Control characters in greetings, addresses and verbs are escaped in the log."""
    hostile = b"\x1b[2J\x07\x00\x7f\xff\xc2\x9b"
    with Server() as server:
        for line in [b"EHLO a" + hostile, b"HELO " + hostile, hostile, b"FROB" + hostile,
                     b"MAIL FROM:<" + hostile + b"@b.test>", b"VRFY " + hostile,
                     b'MAIL FROM:<"a\x1b\x07"@b.test>', b"MAIL FROM:<a@b.test> SIZE=" + hostile]:
            with server.client() as client:
                client.expect(220)
                client.send(line + b"\r\n")
                client.reply()
                client.command("EHLO client.test", 250)
                client.command("MAIL FROM:<a@b.test>", 250)
                client.command(b"RCPT TO:<" + hostile + b"@mx.test>\r\n")
                client.command(b'RCPT TO:<"' + hostile + b'"@mx.test>\r\n')
        server.deliver(content=b"Subject: \x1b[2J\r\nX: \x07\r\n\r\n\x1b\r\n")
        server.wait_mail()
        server.wait_log(r"delivered")
        raw = set(server.log_path.read_bytes())
        bad = sorted(c for c in raw if (c < 32 and c != 10) or c >= 127)
        assert not bad, f"octets {bad} in the log"


def test_log_stations():
    """The log has a line for `received` and for `delivered` with the message's id."""
    with Server() as server:
        server.deliver()
        server.wait_mail()
        found = server.wait_log(r"(\w{13}).* delivered|delivered.*?\b(\w{13})\b")
        queue_id = found[1] or found[2]
        lines = [line for line in server.log().splitlines() if queue_id in line]
        assert any("received" in line for line in lines), lines
        received = next(line for line in lines if "received" in line)
        for part in ["127.0.0.1", "bob@client.test"]:
            assert part in received, received
        assert any("ann@mx.test" in line for line in lines), lines
        assert "hello" not in re.sub(r"EHLO|HELO", "", server.log()), "content in the log"
