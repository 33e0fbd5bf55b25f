"""Mail that goes round in circles is stopped (RFC 5321 6.3)."""

from harness import Server


def fields(count, name="Received"):
    """That many fields."""
    return b"".join(b"%s: from a.test by b.test; Sun, 22 Nov 2026 10:00:%02d +0000\r\n"
                    % (name.encode(), n % 60) for n in range(count))


def refused_or_bounced(server, content):
    """The message is not delivered; the refusal or the bounce says 5.4.6."""
    with server.session() as client:
        client.envelope("ann@mx.test", ["eve@mx.test"])
        client.command("DATA", 354)
        reply = client.command(content + b".\r\n", 250, 554)
        if reply.code == 554:
            assert reply.status == "5.4.6", reply
        else:
            assert b"Status: 5.4.6" in server.wait_mail("ann")[0]
    server.wait_queue(0)
    assert not server.new_mail("eve")


def test_hundred_hops():
    """A message with a hundred Received fields is not sent on."""
    with Server() as server:
        refused_or_bounced(server, fields(100) + b"Subject: round\r\n\r\n")


def test_long_ways_are_fine():
    """A message with fifty Received fields is delivered, and so is one with many in its body."""
    with Server() as server:
        server.deliver(content=fields(50) + b"Subject: far\r\n\r\n")
        server.deliver(content=b"Subject: quoted\r\n\r\n" + fields(150))
        server.wait_mail(count=2)


def test_own_delivered_to():
    """A message that was already delivered to its recipient is not delivered again."""
    with Server() as server:
        refused_or_bounced(server, b"Delivered-To: eve@mx.test\r\nSubject: forwarded\r\n\r\n")


def test_other_delivered_to():
    """Somebody else's Delivered-To stops nothing."""
    with Server() as server:
        server.deliver(content=b"Delivered-To: eve@mx.test\r\nSubject: fine\r\n\r\n")
        server.wait_mail("ann")
