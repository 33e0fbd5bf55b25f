"""Never an open relay, whatever the address looks like."""

from harness import Server, smarthost
from peers import Peer

FAR = [
    "zoe@far.test", "zoe@[192.0.2.1]", "zoe@[IPv6:2001:db8::1]", '"zoe"@far.test',
    "@mx.test:zoe@far.test", "@mx.test,@localhost:zoe@far.test", "zoe@sub.mx.test",
    "zoe@mx.test.far.test",
]
# These are for this host, or for nobody: they may be taken, but never leave it.
TRICKS = [
    "zoe%far.test@mx.test", "zoe%far.test", "far.test!zoe@mx.test", "far.test!zoe",
    "mx.test!far.test!zoe", '"zoe@far.test"@mx.test', "zoe@far.test@mx.test",
    "zoe@mx.test@far.test",
    "zoe%far.test@localhost", '"zoe%far.test"@mx.test', "zoe%far.test@[127.0.0.1]",
    "zoe@far.test%mx.test",
    "@far.test:ann@mx.test", "far.test:zoe", "zoe@far.test,ann@mx.test", "zoe@far.test>ann@mx.test",
    "ann@mx.test> <zoe@far.test", "zoe@far.test\\@mx.test", "zoe@mx.test.", "|zoe@mx.test",
    "/etc/passwd@mx.test", "../ann@mx.test", "-oQ@mx.test",
]


def stranger(peer):
    """A server to which loopback is a stranger, and which has a smarthost."""
    return Server({"relay": {"networks": "192.0.2.0/24"},
                   "smarthost": smarthost(peer.port)})


def test_strangers_are_refused():
    """A stranger's recipient elsewhere is refused with 550 5.7.1."""
    with Peer() as peer, stranger(peer) as server, server.session() as client:
        client.command("MAIL FROM:<bob@mx.test>", 250)
        for recipient in FAR:
            reply = client.command(f"RCPT TO:<{recipient}>", 550)
            assert reply.status == "5.7.1", f"{recipient}: {reply}"
        client.command("QUIT", 221)


def test_tricks():
    """Percent hack, bang path, quoted at-sign and source route relay nothing to anywhere."""
    with Peer() as peer, stranger(peer) as server:
        for recipient in TRICKS:
            with server.session() as client:
                client.command("MAIL FROM:<bob@client.test>", 250)
                if client.command(f"RCPT TO:<{recipient}>", 250, 501, 550, 553).code == 250:
                    client.command("DATA", 354)
                    client.command(f"Subject: {recipient}\r\n\r\n.\r\n".encode(), 250)
        # It was all delivered here or refused; what waits would wait for the smarthost.
        server.wait_queue(0)
        assert peer.connections == 0, f"relayed: {peer.commands}"
        outside = [p for p in server.dir.rglob("*") if "etc" in p.name or "passwd" in p.name]
        assert not outside, outside
        assert not (server.dir / "ann").exists(), "a mailbox outside its folder"


def test_friends_relay():
    """A client of the relay networks may send elsewhere."""
    with Peer() as peer:
        with Server({"smarthost": smarthost(peer.port)}) as server:
            server.deliver("zoe@far.test")
            peer.wait_messages(1)
            server.wait_queue(0)
            server.wait_log("relayed")


def test_listener_networks():
    """A listener with `networks` serves only those clients."""
    with Server({"listen.smtp": {"networks": "127.0.0.1"}}) as server:
        with server.client("127.0.0.5") as client:
            # It may be turned away with a word or without one.
            assert client.is_closed(10)
            assert not client.buffer.startswith(b"220"), client.buffer
