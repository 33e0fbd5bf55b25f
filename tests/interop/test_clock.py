"""Clocks that are wrong and clocks that jump, played with libfaketime: it changes what the wall
clock shows, and leaves those alone that nobody sets."""

import glob
import os
import re
import signal
import ssl
import time
from email import message_from_bytes

from accounts import Accounts
from harness import PATIENCE, Server, binary, free_port, run, smarthost, wait_for
from peers import Peer

YEAR = 365 * 86400
NOT_SET = "(clock not set)"


def library():
    """Where libfaketime is."""
    found = glob.glob("/usr/lib/*/faketime/libfaketime.so.1")
    assert found, "libfaketime is not installed: run `tests/interop/install-tools test`"
    return found[0]


class Clocked(Server):
    """A server whose wall clock the test sets. Mail expires after an hour."""

    def __init__(self, offset, settings=None, retry="1h"):
        queue = {"queue": {"retry": retry, "expire": "1h"}}
        super().__init__({**queue, **(settings or {})})
        self.offset_path = self.dir / "offset"
        self.set_clock(offset)
        self.wrapper = [
            "env", f"LD_PRELOAD={library()}", f"FAKETIME_TIMESTAMP_FILE={self.offset_path}",
            "FAKETIME_NO_CACHE=1", "DONT_FAKE_MONOTONIC=1", "FAKETIME_DONT_FAKE_MONOTONIC=1"]

    def set_clock(self, offset):
        """Sets the clock that many seconds away from the right time."""
        new = self.offset_path.with_suffix(".new")
        new.write_text(f"{offset:+d}\n")
        os.replace(new, self.offset_path)

    def deferrals(self):
        """How often a recipient was deferred."""
        return len(re.findall(" deferred ", self.log()))


def ten_minutes_into_1970():
    """The offset of a host without a clock chip that has just booted."""
    return 600 - int(time.time())


def jump(server, offset):
    """The clock jumps while a message waits for its second try."""
    # Before the first try, so that no delay of this test makes the pause behind it look shorter.
    begin = time.monotonic()
    server.deliver("zoe@far.test")
    wait_for("the first try", lambda: server.deferrals() >= 1)
    server.set_clock(offset)
    # These show that the server has looked at its clock since.
    for number in range(1, 4):
        server.deliver("ann@mx.test")
        server.wait_mail("ann", number)
    wait_for("the second try", lambda: server.deferrals() >= 2)
    took = time.monotonic() - begin
    # Six seconds, an eighth more or less: the jump neither woke it nor put it off.
    assert 4.5 < took < PATIENCE, f"tried again after {took:.1f} s"
    assert "bounced" not in server.log(), server.log()


def test_a_jump_of_decades_wakes_and_expires_nothing():
    """A host boots in 1970 and learns the time: mail neither expires nor wakes, and goes when due."""
    port = free_port()
    with Clocked(ten_minutes_into_1970(), {"smarthost": smarthost(port)}, "6s") as server:
        server.wait_log("WARN .*the clock of this host is not set")
        jump(server, 0)
        server.wait_log("INFO .*the clock of this host is set now")
        with Peer(port=port) as peer:
            peer.wait_messages(1)
            server.wait_queue(0)
        assert "bounced" not in server.log(), server.log()
        assert len(re.findall("clock of this host", server.log())) == 2, server.log()


def test_a_jump_back_wakes_and_expires_nothing():
    """The same for a clock that is set back by ten years."""
    port = free_port()
    with Clocked(0, {"smarthost": smarthost(port)}, "6s") as server:
        jump(server, -10 * YEAR)
        with Peer(port=port) as peer:
            peer.wait_messages(1)
            server.wait_queue(0)
        assert "bounced" not in server.log(), server.log()


def test_a_restart_after_a_jump():
    """Mail of 1970 is young after a restart in the right year, and the other way round."""
    port = free_port()
    with Clocked(ten_minutes_into_1970(), {"smarthost": smarthost(port)}) as server:
        offsets = (0, 30 * YEAR, ten_minutes_into_1970())
        for number, offset in enumerate(offsets, 1):
            server.deliver("zoe@far.test")
            records = server.spool / "state"
            wait_for("the records", lambda: len(list(records.iterdir())) == number)
            server.stop()
            before = server.deferrals()
            server.set_clock(offset)
            server.start()
            # One probes, and the others rest with their destination.
            wait_for("a try", lambda: server.deferrals() > before)
        server.wait_queue(3)
        assert "bounced" not in server.log(), server.log()
        with Peer(port=port) as peer:
            def everything_came():
                # A try that began before the peer was there may end after the first signal.
                server.process.send_signal(signal.SIGUSR1)
                return len(peer.messages) >= 3
            wait_for("the messages", everything_came)
            server.wait_queue(0)


def test_a_wrong_date_says_so():
    """A Received field and a report written without a clock say that it was not set."""
    refusing = {"RCPT": lambda _: b"550 5.1.1 no such user\r\n"}
    for offset, is_wrong in ((ten_minutes_into_1970(), True), (0, False)):
        with Peer(refusing) as peer:
            with Clocked(offset, {"smarthost": smarthost(peer.port)}) as server:
                server.deliver("ann@mx.test")
                mail = message_from_bytes(server.wait_mail("ann")[0])
                server.deliver("zoe@far.test", sender="bob@mx.test")
                report = message_from_bytes(server.wait_mail("bob")[0])
                server.wait_queue(0)
        for date in (mail["Received"].rpartition(";")[2].strip(), report["Date"]):
            assert date.endswith(NOT_SET) == is_wrong, date
            assert ("1970" in date) == is_wrong, date


def test_the_queue_says_so():
    """The queue commands show no age, date or next try that a clock told which was not set."""
    with Clocked(ten_minutes_into_1970(), {"smarthost": smarthost(free_port())}) as server:
        server.deliver("zoe@far.test")
        wait_for("the first try", lambda: server.deferrals() == 1)

        def queue(*arguments):
            command = [binary(), "queue", *arguments]
            return run(command, env=server.environment(), text=True)
        id = wait_for("the record", lambda: [f for f in (server.spool / "state").iterdir()
                                             if not f.suffix])[0].name
        assert "next try" not in queue(), queue()
        assert re.search(rf"\+0000 {re.escape(NOT_SET)}, \d+s ago", queue("show", id))
        run([*server.wrapper, binary(), "queue", "hold", id], env=server.environment())
        assert "    held by root\n" in queue(), queue()
        assert f"{id}!   179 (clock was not set)  bob@client.test\n" in \
            run([server.linked("mailq")], env=server.environment(), text=True)


def test_a_certificate_that_nobody_renews():
    """A server that has run for months tells once a day that its certificate expires, and when it
    has expired."""
    class Aged(Clocked, Accounts):
        """The server with listeners for people, and a clock that the test sets."""

    def seen_by_a_client():
        with server.connect("implicit", context):
            pass

    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    day = 86400
    server = Aged(0)
    server.pair = server.authority.issue("mx.test", days=90)
    with server:
        seen_by_a_client()
        assert "expire" not in server.log(), server.log()
        for days, said, count in ((70, "WARN .*it expires on", 0), (80, "WARN .*it expires on", 1),
                                  (81, "WARN .*it expires on", 2), (91, "ERROR .*has expired", 1)):
            server.set_clock(days * day)
            seen_by_a_client()
            seen_by_a_client()
            wait_for(f"{count} times {said!r}",
                     lambda: len(re.findall(said, server.log())) >= count)
            assert len(re.findall(said, server.log())) == count, server.log()
