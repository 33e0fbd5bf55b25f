"""Mail on a host whose network goes and comes. Each test has a network namespace of its own,
in which nothing but loopback is up at first."""

import re
import subprocess

from harness import Server, own_network, program, wait_for
from peers import Peer

PORT = 2526
# TEST-NET-1: in this namespace it is whatever the test makes of it.
NEXT_HOP = "192.0.2.7"
SCHEDULE = {"retry": "1h, 2h", "relay_workers": "2"}


def ip(*arguments):
    """Runs ip(8)."""
    subprocess.run([program("ip"), *arguments], check=True)


def network_comes():
    """An interface with the next hop's address and a route, one after the other."""
    ip("link", "add", "net0", "type", "veth", "peer", "name", "net1")
    ip("link", "set", "net1", "up")
    ip("link", "set", "net0", "up")
    ip("address", "add", f"{NEXT_HOP}/24", "dev", "net0")
    ip("route", "add", "default", "via", "192.0.2.1", "dev", "net0")


def network_goes():
    """The interface is gone, with all that was on it."""
    ip("link", "delete", "net0")


def relaying(host=NEXT_HOP, **sections):
    """A server with a smarthost that nothing leads to yet."""
    smarthost = {"host": f"{host}:{PORT}", "tls": "none"}
    return Server({"smarthost": smarthost, "queue": SCHEDULE, **sections})


def attempts(server):
    """The attempts that the records in state/ count; one that is being written is not there yet."""
    files = [f for f in (server.spool / "state").iterdir() if not f.suffix]
    records = [f.read_text() for f in files]
    return [int(re.search(r"^attempts (\d+)$", text, re.M)[1]) for text in records]


@own_network
def test_goes_out_when_it_comes():
    """Without a network no attempt counts, and mail is out within seconds of its return."""
    with relaying() as server:
        for _ in range(20):
            server.deliver("zoe@far.test")
        server.wait_log(r"deferred .* status=4\.4\.0")
        wait_for("the records", lambda: len(attempts(server)) == 20)
        assert attempts(server) == [0] * 20, attempts(server)
        for _ in range(2):
            network_comes()
            with Peer(host=NEXT_HOP, port=PORT) as peer:
                # The schedule has it in an hour.
                peer.wait_messages(20)
                server.wait_queue(0)
            network_goes()
            for _ in range(20):
                server.deliver("zoe@far.test")
            wait_for("the records", lambda: len(attempts(server)) == 20)
            # The sessions that were kept broke with the network, which is no fault of the mail.
            assert attempts(server) == [0] * 20, attempts(server)


@own_network
def test_name_servers_out_of_reach():
    """A name server that no route leads to is no network, for the smarthost's name and for MX."""
    dns = {"servers": f"{NEXT_HOP}:53"}
    with relaying("smart.test", dns=dns) as server:
        server.deliver("zoe@far.test")
        server.wait_log(r"deferred .* status=4\.4\.3 .*this host has no network")
        wait_for("the record", lambda: attempts(server) == [0])
        waiting = len(re.findall("deferred", server.log()))
        network_comes()
        # Now it is a name server that does not answer, and that does count.
        wait_for("the next try", lambda: len(re.findall("deferred", server.log())) > waiting)
        wait_for("an attempt", lambda: attempts(server) == [1])


@own_network
def test_a_dead_host_is_no_dead_network():
    """With a network, a smarthost that is down uses up its schedule."""
    network_comes()
    with relaying() as server:
        server.deliver("zoe@far.test")
        server.wait_log(r"deferred .* status=4\.4\.1")
        wait_for("an attempt", lambda: attempts(server) == [1])


@own_network
def test_local_mail_needs_no_network():
    """Local mail is delivered without a network."""
    with relaying() as server:
        server.deliver("zoe@far.test")
        server.deliver("ann@mx.test")
        server.wait_mail("ann")
