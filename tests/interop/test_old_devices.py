"""Printers and their kind: TLS 1.0 or none, LOGIN, HELO, bare newlines; on a listener of their
own, which weakens no other."""

import ssl

from accounts import Accounts, ancient, encoded
from harness import Client, loopback
from test_tls import scan

PRINTER = {"protocol": "smtp", "tls": "starttls", "tls_minimum": "1.0", "auth": "required",
           "auth_without_tls": "yes", "bare_newline": "accept", "networks": "127.0.0.0/8"}


def printing(**keys):
    """A server with a listener for a printer. Old devices know RSA alone."""
    server = Accounts(listeners={"printer": {**PRINTER, **keys}})
    server.pair = server.authority.issue("localhost", kind="rsa")
    return server


def login(client, newline=b"\r\n"):
    """AUTH LOGIN as old devices do it, step by step."""
    client.send(b"AUTH LOGIN" + newline)
    assert client.expect(334).text == encoded("Username:")
    client.send(encoded("ann").encode() + newline)
    assert client.expect(334).text == encoded("Password:")
    client.send(encoded("secret").encode() + newline)
    client.expect(235)


def print_page(client, newline=b"\r\n"):
    """One message, as a device sends it."""
    for line, code in ((b"MAIL FROM:<ann@mx.test>", 250), (b"RCPT TO:<zoe@mx.test>", 250),
                       (b"DATA", 354)):
        client.send(line + newline)
        client.expect(code)
    # However the lines of a message end, it ends with CRLF, a dot and CRLF.
    client.send(newline.join((b"Subject: scan", b"", b"page")) + b"\r\n.\r\n")
    client.expect(250)


def test_tls_1_0():
    """A device that knows only TLS 1.0, or 1.1, submits through the printer's listener, with
    STARTTLS and with implicit TLS; the other listeners refuse it, and say why."""
    for tls in ("starttls", "implicit"):
        with printing(tls=tls) as server:
            for version in (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1):
                with server.connect("printer", ancient(version)) as client:
                    assert client.socket.version() in ("TLSv1", "TLSv1.1")
                    login(client)
                    print_page(client)
                for name in ("starttls", "implicit"):
                    try:
                        server.connect(name, ancient(version)).__exit__()
                        raise AssertionError(f"{name} speaks {version}")
                    except (ssl.SSLError, OSError):
                        pass
            server.wait_mail("zoe", 2)
            server.wait_log("tls_minimum")


def test_no_tls():
    """A device without TLS that knows HELO, LOGIN and bare newlines submits through the
    printer's listener; elsewhere its password is not taken in the clear."""
    with printing(tls="none", tls_minimum=None) as server:
        with Client(server.host, server.ports["printer"]) as client:
            client.expect(220)
            client.send(b"HELO printer\n")
            client.expect(250)
            login(client, b"\n")
            print_page(client, b"\n")
        assert b"\r" not in server.wait_mail("zoe", 1)[0]
        with Client(server.host, server.ports["starttls"]) as client:
            client.expect(220)
            client.command("HELO printer", 250)
            client.command("AUTH LOGIN", 530, 538, 502, 503, 504)
        with Client(server.host, server.ports["starttls"]) as client:
            client.expect(220)
            offered = client.command("EHLO printer", 250).text
            assert "AUTH" not in offered and "STARTTLS" in offered, offered


def test_others_are_not_weaker():
    """sslscan finds TLS 1.0 on the printer's listener, and neither that nor its ciphers on the
    others of the same server."""
    with printing() as server:
        versions, ciphers, _ = scan(server.ports["printer"], True)
        assert {"tls 1.0", "tls 1.1", "tls 1.2", "tls 1.3"} == versions, versions
        assert not any("NULL" in c or "anon" in c or "RC4" in c for _, c in ciphers), ciphers
        versions, ciphers, _ = scan(server.ports["starttls"], True)
        assert versions == {"tls 1.2", "tls 1.3"}, versions
        assert all(version in ("TLSv1.2", "TLSv1.3") for version, _ in ciphers), ciphers


def test_from_its_network_alone():
    """Who is not in `networks` of the printer's listener is sent away at once."""
    with printing(networks=loopback(9) + "/32") as server:
        with Client(server.host, server.ports["printer"]) as client:
            assert client.is_closed()
            assert not client.buffer.startswith(b"2"), client.buffer
        with server.connect("printer", server.trusting(), source=loopback(9)) as client:
            login(client)
            print_page(client)
        server.wait_mail("zoe", 1)
