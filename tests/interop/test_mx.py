"""Straight to the mail exchangers, found through dnsmasq (RFC 5321 5.1). Mail exchangers
listen on port 25, so each of these tests has a network namespace of its own."""

import socket
import struct
import threading
from email import message_from_bytes

from harness import Server, loopback, own_network, wait_for
from peers import Peer, dnsmasq

FIRST, SECOND, THIRD = loopback(2), loopback(3), loopback(4)


def asking(dns):
    """A server without a smarthost that asks this DNS server."""
    return Server({"dns": {"servers": dns}})


def mx(domain, *hosts):
    """MX records: (preference, host, address)."""
    records = []
    for preference, host, address in hosts:
        records.append(f"--mx-host={domain},{host},{preference}")
        if address:
            records.append(f"--host-record={host},{address}")
    return records


def exchanger(address, answers=None):
    """A mail exchanger at an address of loopback."""
    return Peer(answers, host=address, port=25)


def bounced_status(server):
    """The status in the report that ann got."""
    report = message_from_bytes(server.wait_mail("ann")[0])
    _, fields = report.get_payload()[1].get_payload()
    server.wait_queue(0)
    return fields["Status"]


def deliver(server, domain):
    """A message from ann to somebody at the domain."""
    server.deliver(f"zoe@{domain}", b"Subject: far\r\n\r\n", sender="ann@mx.test")


@own_network
def test_preference():
    """The exchanger of the lowest preference gets the mail, the others nothing."""
    records = mx("far.test", (20, "b.far.test", SECOND), (10, "a.far.test", FIRST),
                 (30, "c.far.test", THIRD))
    with dnsmasq(*records) as dns, exchanger(FIRST) as first:
        with exchanger(SECOND) as second, exchanger(THIRD) as third, asking(dns) as server:
            for _ in range(5):
                deliver(server, "far.test")
            first.wait_messages(5)
            server.wait_queue(0)
            assert second.connections == third.connections == 0


@own_network
def test_fallback():
    """When the first exchanger refuses the connection, greets 4yz or hangs up, the next gets it."""
    records = mx("far.test", (10, "a.far.test", FIRST), (20, "b.far.test", SECOND))
    with dnsmasq(*records) as dns, exchanger(SECOND) as second, asking(dns) as server:
        deliver(server, "far.test")
        second.wait_messages(1)
        for number, greeting in enumerate([b"421 4.3.2 not now\r\n", b""], 2):
            with exchanger(FIRST, {"GREETING": lambda _, g=greeting: g}):
                deliver(server, "far.test")
                second.wait_messages(number)
        server.wait_queue(0)


@own_network
def test_equal_preference_is_shared():
    """Exchangers of equal preference share the mail."""
    records = mx("far.test", (10, "a.far.test", FIRST), (10, "b.far.test", SECOND))
    with dnsmasq(*records) as dns, exchanger(FIRST) as one, exchanger(SECOND) as other:
        with asking(dns) as server:
            # Each try shuffles; that all of forty go to one of two happens once in 2^39.
            for number in range(1, 41):
                deliver(server, "far.test")
                wait_for("it", lambda: len(one.messages) + len(other.messages) == number)
                server.wait_queue(0)
                if one.messages and other.messages:
                    return
            # A kept connection may carry all of them; then both must be tried after a restart.
            for _ in range(39):
                server.stop()
                server.start()
                deliver(server, "far.test")
                server.wait_queue(0)
                if one.messages and other.messages:
                    return
            raise AssertionError(f"{len(one.messages)} and {len(other.messages)}")


@own_network
def test_address_only():
    """A domain without MX records is served at its own address."""
    with dnsmasq(f"--host-record=far.test,{FIRST}") as dns, exchanger(FIRST) as peer:
        with asking(dns) as server:
            deliver(server, "far.test")
            peer.wait_messages(1)
            server.wait_queue(0)


@own_network
def test_cname():
    """A domain that is an alias is followed to its exchanger."""
    records = ["--cname=alias.test,far.test", *mx("far.test", (10, "a.far.test", FIRST)),
               f"--host-record=far.test,{THIRD}"]
    with dnsmasq(*records) as dns, exchanger(FIRST) as peer, asking(dns) as server:
        deliver(server, "alias.test")
        peer.wait_messages(1)
        server.wait_queue(0)


@own_network
def test_ipv6():
    """An exchanger with only an IPv6 address is reached."""
    with dnsmasq(*mx("far.test", (10, "a.far.test", "::1"))) as dns, exchanger_v6() as peer:
        with asking(dns) as server:
            deliver(server, "far.test")
            peer.wait_messages(1)
            server.wait_queue(0)


def exchanger_v6():
    """A mail exchanger at ::1."""
    return Peer(host="::1", port=25, family=socket.AF_INET6)


@own_network
def test_address_literal():
    """Mail for a literal goes to that address and no name is looked up."""
    with exchanger(FIRST) as peer, asking("127.0.0.1:9") as server:
        deliver(server, f"[{FIRST}]")
        assert peer.wait_messages(1)[0].recipients == [f"<zoe@[{FIRST}]>"]
        server.wait_queue(0)


@own_network
def test_null_mx():
    """A domain that takes no mail bounces with 5.1.10 (RFC 7505)."""
    # Record type 15: preference 0 and the root.
    records = ["--dns-rr=null.test,15,000000", f"--host-record=null.test,{FIRST}"]
    with dnsmasq(*records) as dns, exchanger(FIRST) as peer, asking(dns) as server:
        deliver(server, "null.test")
        assert bounced_status(server) == "5.1.10"
        assert peer.connections == 0


@own_network
def test_no_such_domain():
    """A domain that does not exist bounces with 5.1.2."""
    with dnsmasq() as dns, asking(dns) as server:
        deliver(server, "nowhere.test")
        assert bounced_status(server) == "5.1.2"


@own_network
def test_no_address():
    """A domain with neither MX nor address bounces with 5.1.2."""
    with dnsmasq("--txt-record=silent.test,hello") as dns, asking(dns) as server:
        deliver(server, "silent.test")
        assert bounced_status(server) == "5.1.2"


class FailingDns(threading.Thread):
    """Answers every question with one response code, or not at all; passes on when told to."""

    def __init__(self, code):
        super().__init__(daemon=True)
        self.code, self.upstream = code, None
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.socket.getsockname()[1]}"
        self.start()

    def run(self):
        while True:
            question, client = self.socket.recvfrom(4096)
            if self.upstream:
                host, port = self.upstream.split(":")
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as through:
                    through.settimeout(5)
                    through.sendto(question, (host, int(port)))
                    self.socket.sendto(through.recv(4096), client)
            elif self.code is not None:
                flags, = struct.unpack(">H", question[2:4])
                head = question[:2] + struct.pack(">HHHHH", flags | 0x8080 | self.code, 1, 0, 0, 0)
                # The question section alone, without the OPT record behind it.
                end = question.index(b"\0", 12) + 5
                self.socket.sendto(head + question[12:end], client)


def deferred_then_delivered(code):
    """While the DNS fails mail waits; when it works the mail goes."""
    failing = FailingDns(code)
    with dnsmasq(*mx("far.test", (10, "a.far.test", FIRST))) as dns:
        with exchanger(FIRST) as peer, asking(failing.address) as server:
            deliver(server, "far.test")
            server.wait_log("deferred")
            server.wait_queue(1)
            assert "4.4.3" in server.log(), server.log()
            failing.upstream = dns
            peer.wait_messages(1)
            server.wait_queue(0)
            assert not server.new_mail("ann"), "it bounced"


@own_network
def test_servfail():
    """SERVFAIL is a temporary failure, 4.4.3."""
    deferred_then_delivered(2)


@own_network
def test_refused():
    """REFUSED is a temporary failure, 4.4.3."""
    deferred_then_delivered(5)


@own_network
def test_silent_dns():
    """A DNS server that does not answer is a temporary failure, 4.4.3."""
    deferred_then_delivered(None)


@own_network
def test_no_dns():
    """Without any DNS server mail waits in the queue."""
    with asking("127.0.0.1:9") as server:
        deliver(server, "far.test")
        server.wait_log("deferred")
        server.wait_queue(1)
        assert not server.new_mail("ann")
