"""Logging in badly: wrong, endless, cancelled, and ten thousand times (RFC 4954)."""

import base64
import contextlib
import itertools
import threading
import time
from collections import Counter

from accounts import Accounts, encoded, plain
from harness import Client, Closed, loopback

FAILURES = 10_000
ATTACKERS = 8
# Guesses of one connection at once: nobody who guesses waits for an answer to each.
VOLLEY = 50
# Each costs the server ten passwords, one after the other, before it is not listened to.
ADDRESSES = 8
GROWTH = 4 << 20


def test_refusals():
    """What is no response is 501, an unknown mechanism 504, a cancelled login 501, a second one
    503, one in the middle of a transaction 503; the session goes on after each."""
    with Accounts() as server, server.connect("implicit") as client:
        client.command("AUTH PLAIN ====", 501)
        client.command("AUTH PLAIN a", 501)
        client.command("AUTH NONSENSE", 504)
        client.command("AUTH GSSAPI", 504)
        client.command("AUTH", 501)
        client.command("AUTH PLAIN", 334)
        client.command("*", 501)
        client.command("AUTH LOGIN", 334)
        client.command(encoded("ann"), 334)
        client.command("*", 501)
        client.command("AUTH PLAIN", 334)
        client.command("not base64!", 501)
        client.command("AUTH PLAIN " + plain("ann", "secret"), 235)
        client.command("AUTH PLAIN " + plain("ann", "secret"), 503)
        client.command("MAIL FROM:<ann@mx.test>", 250)
        client.command("AUTH PLAIN " + plain("ann", "secret"), 503)
        client.command("RCPT TO:<zoe@mx.test>", 250)


def test_hostile_responses():
    """NUL bytes, controls, bad UTF-8 and a megabyte in a response are refused with a reply or
    the end of the session, and cost nothing; the log stays one line of text for each event."""
    responses = [b"\0", b"\0\0", b"\0" * 100, b"\0ann\0", b"\0\0secret", b"ann\0ann\0se\0cret",
                 b"\0an\0n\0secret", b"\0\xff\xfe\0\xff", b"\0ann\r\nINFO forged\0x",
                 b"\0" + b"a" * 3000 + b"\0" + b"b" * 3000, b"\x1b[2J\0\x1b[2J\0\x07"]
    with Accounts({"auth": {"auth_failures": "100"}}) as server:
        server.logged_in().__exit__()
        before = server.settled()
        for number, response in enumerate(responses):
            for first in (True, False):
                # One address for each, since one that keeps failing is not listened to.
                with server.connect("implicit", source=loopback(30 + number)) as client:
                    with contextlib.suppress(Closed, OSError):
                        if first:
                            client.command("AUTH PLAIN " + encoded(response), 535, 501, 500)
                        else:
                            client.command("AUTH PLAIN", 334)
                            client.command(encoded(response), 535, 501, 500)
        mega = base64.b64encode(b"\0ann\0" + b"x" * (1 << 20))
        for begin in ("AUTH PLAIN ", "AUTH PLAIN\r\n", "AUTH LOGIN\r\n", "AUTH SCRAM-SHA-256\r\n"):
            with server.connect("implicit", source=loopback(4)) as client:
                with contextlib.suppress(Closed, OSError):
                    client.send(begin.encode() + mega + b"\r\n")
                    while reply := client.reply():
                        assert reply.code in (334, 500, 501, 421, 535), reply
                        if reply.code != 334:
                            break
        with server.connect("implicit", source=loopback(5)) as client:
            with contextlib.suppress(Closed, OSError):
                client.send(b"AUTH PLAIN\r\n")
                for _ in range(16):
                    client.send(b"A" * 65536)
                client.expect(334)
                client.expect(500, 501, 421)
        server.logged_in().__exit__()
        server.wait_settled(before, GROWTH)
        raw = set(server.log_path.read_bytes())
        assert not [c for c in raw if (c < 32 and c != 10) or c == 127], raw
        assert "\nINFO forged" not in server.log()


def test_five_failures():
    """After `auth_failures` wrong passwords the session ends with 421; the mail of others, and
    their logins, go on."""
    with Accounts() as server:
        with server.connect("implicit", source=loopback(2)) as client:
            codes = []
            with contextlib.suppress(Closed):
                for _ in range(6):
                    codes.append(client.command("AUTH PLAIN " + plain("ann", "wrong")).code)
            assert codes[:4] == [535] * 4 and codes[4] in (535, 421), codes
            assert client.is_closed()
        server.logged_in().__exit__()
        server.wait_log(loopback(2).replace(".", r"\.") + ".*ann")


def test_unknown_as_wrong():
    """An unknown name and a wrong password get the same reply after the same time."""
    with Accounts({"auth": {"auth_failures": "100"}}) as server:
        replies, times = {}, {"ann": [], "nobody-here": []}
        for round_ in range(5):
            for number, user in enumerate(times):
                source = loopback(10 + 2 * round_ + number)
                with server.connect("implicit", source=source) as client:
                    begin = time.monotonic()
                    reply = client.command("AUTH PLAIN " + plain(user, "wrong"), 535)
                    times[user].append(time.monotonic() - begin)
                    replies[user] = reply.text
        assert len(set(replies.values())) == 1, replies
        known, unknown = (sorted(t)[2] for t in times.values())
        assert abs(known - unknown) < 0.1 + max(known, unknown) / 3, times


def test_ten_thousand_failures():
    """Ten thousand failing logins from several addresses cost no memory and no thread that stays,
    and others log in and submit meanwhile."""
    with Accounts() as server:
        server.logged_in().__exit__()
        before = server.settled()
        # Each attacker gets refusals in the end, so what is counted is attempts.
        left, lock, answers, numbers = [FAILURES], threading.Lock(), Counter(), itertools.count()

        def attack(number):
            connections = 0
            while left[0] > 0:
                source = loopback(20 + (number + connections) % ADDRESSES)
                connections += 1
                with contextlib.suppress(OSError, Closed):
                    with Client(server.host, server.ports["plain"], source) as client:
                        fail(client)

        def fail(client):
            """Guesses until the server hangs up."""
            code = client.reply().code
            count(f"greeted {code}")
            if code != 220:
                return
            client.command("EHLO bad.test")
            while left[0] > 0:
                guesses = [plain(("ann", "nobody")[number % 2], f"guess{number}")
                           for number in itertools.islice(numbers, VOLLEY)]
                client.send("".join(f"AUTH PLAIN {guess}\r\n" for guess in guesses).encode())
                for _ in guesses:
                    count(int(client.line()[:3]))
                    with lock:
                        left[0] -= 1

        def count(answer):
            with lock:
                answers[answer] += 1

        attackers = [threading.Thread(target=attack, args=(n,)) for n in range(ATTACKERS)]
        begin = time.monotonic()
        for attacker in attackers:
            attacker.start()
        slowest, sent = 0.0, 0
        while any(a.is_alive() for a in attackers):
            start = time.monotonic()
            with server.logged_in() as client:
                client.send_message("ann@mx.test", ["zoe@mx.test"], b"Subject: on\r\n\r\n")
                client.command("QUIT", 221)
            sent += 1
            slowest = max(slowest, time.monotonic() - start)
            time.sleep(0.5)
        seconds = time.monotonic() - begin
        for attacker in attackers:
            attacker.join()
        server.wait_mail("zoe", sent)
        grown = server.wait_settled(before, GROWTH)
        print(f"note: {FAILURES} failing logins in {seconds:.0f} s, answers {answers}; {sent} "
              f"messages of others, the slowest after {slowest:.1f} s; {grown >> 10} KiB more")
        assert 235 not in answers and answers.get(535, 0) >= 5, answers
        assert slowest < 15, slowest
