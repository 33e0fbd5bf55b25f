"""People's programs submit through the listeners, with every transport and mechanism that
each of them knows (RFC 6409, RFC 4954, RFC 3207, RFC 8314)."""

from email import message_from_bytes

import clients
from accounts import ALL, Accounts, plain
from harness import Client, folder, smarthost
from peers import Peer
from providers import Dovecot

KEYWORDS = {"plain": "ESMTPA", "starttls": "ESMTPSA", "implicit": "ESMTPSA"}


def submission(server, transport, mechanism, **options):
    """A message to submit to the listener of a transport."""
    return clients.Submission(server.ports[transport], transport, mechanism,
                              server.authority.ca, server.files, **options)


def works(client):
    """Each transport and mechanism of a client takes a message into the Maildir, and the wrong
    password is answered with 535, once."""
    with Accounts() as server:
        combinations = clients.combinations(client)
        for transport, mechanism in combinations:
            subject = f"{transport} {mechanism}"
            verdict = client(submission(server, transport, mechanism, subject=subject))
            assert verdict.ok, f"{subject}: {verdict}"
        texts = server.wait_mail("zoe", len(combinations))
        for text in texts:
            message = message_from_bytes(text)
            transport = message["Subject"].split()[0] if message["Subject"] else ""
            if transport in KEYWORDS:
                assert f" with {KEYWORDS[transport]} " in message["Received"], message["Received"]
            assert message["Date"] and message["Message-ID"], message.items()
        wrong = client(submission(server, "starttls", "PLAIN", password="wrong-one"))
        assert not wrong.ok, wrong
        # mutt does not repeat what the server says.
        assert ("535" if client is not clients.mutt else "PLAIN failed") in wrong.output, wrong
        assert len(server.new_mail("zoe")) == len(combinations)
        log = server.log()
        for secret in ("secret", "wrong-one", plain("ann", "secret"), plain("ann", "wrong-one")):
            assert secret not in log, "the log has a password"


def test_swaks():
    """swaks submits in plain, STARTTLS and implicit TLS with PLAIN, LOGIN and CRAM-MD5."""
    works(clients.swaks)


def test_curl():
    """curl submits in plain, STARTTLS and implicit TLS with PLAIN, LOGIN and CRAM-MD5."""
    works(clients.curl)


def test_msmtp():
    """msmtp submits in plain, STARTTLS and implicit TLS with all five mechanisms."""
    works(clients.msmtp)


def test_s_nail():
    """s-nail submits in plain, STARTTLS and implicit TLS with PLAIN, LOGIN and CRAM-MD5."""
    works(clients.s_nail)


def test_mutt():
    """mutt submits in plain, STARTTLS and implicit TLS with all five mechanisms."""
    works(clients.mutt)


def test_python():
    """smtplib submits in plain, STARTTLS and implicit TLS with PLAIN, LOGIN and CRAM-MD5."""
    works(clients.python)


def test_nodemailer():
    """nodemailer submits in plain, STARTTLS and implicit TLS with PLAIN, LOGIN and CRAM-MD5."""
    works(clients.nodemailer)


def test_needs_a_login():
    """A submission listener takes no mail from those who have not logged in, not for here
    either; port 25 takes mail for here from all and relays for nobody."""
    with Peer() as peer, Accounts({"smarthost": smarthost(peer.port)}) as server:
        for transport in clients.TRANSPORTS:
            with server.connect(transport) as client:
                reply = client.command("MAIL FROM:<ann@mx.test>", 530)
                assert reply.status == "5.7.0", reply
            for recipient in ("zoe@mx.test", "zoe@far.test"):
                mail = submission(server, transport, None, recipient=recipient)
                verdict = clients.swaks(mail)
                assert not verdict.ok and "530" in verdict.output, verdict
        with server.session() as client:
            assert "AUTH" not in client.command("EHLO client.test", 250).text
            client.command("AUTH PLAIN " + plain("ann", "secret"), 502, 503)
            client.command("MAIL FROM:<ann@mx.test>", 250)
            assert client.command("RCPT TO:<zoe@far.test>", 550).status == "5.7.1"
            client.command("RCPT TO:<zoe@mx.test>", 250)
        with server.logged_in() as client:
            client.send_message("ann@mx.test", ["zoe@far.test"], b"Subject: out\r\n\r\n")
        message = peer.wait_messages(1)[0]
        assert message.recipients == ["<zoe@far.test>"], message.recipients


def test_port_25_with_optional_auth():
    """Where port 25 lets people log in, those who have may relay, and nobody else."""
    smtp = {"protocol": "smtp", "tls": "starttls", "auth": "optional"}
    with Peer() as peer:
        settings = {"smarthost": smarthost(peer.port)}
        with Accounts(settings, listeners={"mixed": smtp}) as server:
            with Client(server.host, server.ports["mixed"]) as client:
                client.expect(220)
                offered = client.command("EHLO client.test", 250).text
                assert "STARTTLS" in offered and "AUTH" not in offered, offered
                client.command("MAIL FROM:<x@client.test>", 250)
                client.command("RCPT TO:<zoe@far.test>", 550)
            with server.connect("mixed") as client:
                client.command("AUTH PLAIN " + plain("ann", "secret"), 235)
                client.send_message("ann@mx.test", ["zoe@far.test"], b"Subject: out\r\n\r\n")
            peer.wait_messages(1)


def test_is_completed():
    """A submission without Date and Message-ID, from an unqualified sender, is completed; one
    that has them keeps them (RFC 6409 8)."""
    with Accounts() as server:
        with server.logged_in() as client:
            client.send_message("ann", ["zoe@mx.test"], b"From: ann\r\nSubject: bare\r\n\r\nx\r\n")
        message = message_from_bytes(server.wait_mail("zoe", 1)[0])
        assert message["Return-Path"] == "<ann@mx.test>", message["Return-Path"]
        assert message.get_all("Date") and message["Message-ID"].endswith("mx.test>")
        own = (b"From: ann@mx.test\r\nDate: Thu, 1 Jan 2026 10:00:00 +0100\r\n"
               b"Message-ID: <own@mx.test>\r\n\r\nx\r\n")
        with server.logged_in() as client:
            client.send_message("ann@mx.test", ["yan@mx.test"], own)
        message = message_from_bytes(server.wait_mail("yan", 1)[0])
        assert message.get_all("Message-ID") == ["<own@mx.test>"], message.items()
        assert message.get_all("Date") == ["Thu, 1 Jan 2026 10:00:00 +0100"], message.items()


def test_own_sender():
    """Who logged in sends under his own address; with `sender = any` under every one."""
    content = b"From: <bob@mx.test>\r\nSubject: whose\r\n\r\nx\r\n"
    with Accounts() as server:
        with server.logged_in() as client:
            reply = client.command("MAIL FROM:<bob@mx.test>")
            assert reply.code in (550, 553) and reply.status.startswith("5.7."), reply
        with server.logged_in() as client:
            client.envelope("ann@mx.test", ["zoe@mx.test"])
            client.command("DATA", 354)
            reply = client.command(content + b".\r\n")
            assert reply.code in (550, 554) and reply.status.startswith("5.7."), reply
    with Accounts({"auth": {"sender": "any"}}) as server:
        with server.logged_in() as client:
            client.send_message("bob@mx.test", ["zoe@mx.test"], content)
        server.wait_mail("zoe", 1)


def test_dovecot_accounts():
    """With `[auth] dovecot` the accounts are Dovecot's: msmtp and swaks log in to those, with
    the mechanisms that both know, and a wrong password is refused."""
    with folder() as files:
        files.chmod(0o711)
        with Dovecot(files, {"ann": "secret"}) as dovecot:
            settings = {"auth": {"users": None, "dovecot": dovecot.client, "mechanisms": ALL}}
            with Accounts(settings, users={}) as server:
                count = 0
                for transport in clients.TRANSPORTS:
                    for mechanism in clients.KNOWN[clients.msmtp]:
                        verdict = clients.msmtp(submission(server, transport, mechanism))
                        assert verdict.ok, f"{transport} {mechanism}: {verdict}"
                        count += 1
                server.wait_mail("zoe", count)
                wrong = submission(server, "starttls", "PLAIN", password="wrong")
                verdict = clients.swaks(wrong)
                assert not verdict.ok and "535" in verdict.output, verdict
                dovecot.__exit__()
                verdict = clients.swaks(submission(server, "starttls", "PLAIN"))
                assert not verdict.ok and "454" in verdict.output, verdict


def test_passwd():
    """`mailwren passwd` makes accounts that count at once, changes passwords, and shows them to
    nobody."""
    with Accounts() as server:
        users = server.dir / "users"
        assert users.stat().st_mode & 0o777 == 0o600, oct(users.stat().st_mode)
        for password in ("first", "second"):
            server.passwd("carl", password)
            assert password not in users.read_text()
            server.logged_in(user="carl", password=password).__exit__()
        with server.connect("implicit") as client:
            assert client.command("AUTH PLAIN " + plain("carl", "first"), 535).status == "5.7.8"
        server.logged_in(user="bob", password="pa ss:wörd").__exit__()
