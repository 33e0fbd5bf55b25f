"""A 250 after the message is a promise, and before it nothing has happened."""

import mailbox
import random
import re
import threading
import time
from email import message_from_bytes

from harness import Closed, Server, folder, program, wait_for


class Load(threading.Thread):
    """Sends numbered messages as fast as it can until the server is gone; notes each 250."""

    def __init__(self, server, name):
        super().__init__(daemon=True)
        self.server, self.prefix, self.acknowledged = server, name, []

    def run(self):
        number = 0
        try:
            with self.server.session() as client:
                while True:
                    token = f"{self.prefix}-{number}"
                    number += 1
                    content = (f"Subject: {token}\r\n\r\n" + "filling\r\n" * 300
                               + f"end of {token}\r\n")
                    client.send_message("bob@client.test", ["ann@mx.test"], content.encode())
                    self.acknowledged.append(token)
        except (OSError, Closed):
            pass


def ten_kills(mailbox_format, texts_of):
    """Kills a loaded server ten times; everything that was acknowledged is delivered then."""
    with Server({"local": {"format": mailbox_format}}) as server:
        acknowledged = []
        for round_number in range(10):
            load = [Load(server, f"r{round_number}t{n}") for n in range(4)]
            for thread in load:
                thread.start()
            wait_for("the load to run", lambda: all(thread.acknowledged for thread in load))
            time.sleep(random.uniform(0.0, 0.4))
            server.kill()
            for thread in load:
                thread.join(60)
                acknowledged += thread.acknowledged
            server.start()
        server.wait_queue(0)
        whole = set()
        for text in texts_of(server):
            found = re.search(rb"(?m)^Subject: (\S+)$", text)
            if found and text.rstrip().endswith(b"end of " + found[1]):
                whole.add(found[1].decode())
        lost = [token for token in acknowledged if token not in whole]
        assert len(acknowledged) >= 40, f"only {len(acknowledged)} messages in ten rounds"
        assert not lost, f"{len(lost)} of {len(acknowledged)} lost: {lost[:10]}"
        print(f"note: {len(acknowledged)} acknowledged, {len(whole)} delivered, ten kills")


def test_kill_maildir():
    """After ten times kill -9 every acknowledged message is in the Maildir."""
    ten_kills("maildir", lambda server: [f.read_bytes() for f in server.new_mail()])


def test_kill_mbox():
    """After ten times kill -9 every acknowledged message is in the mbox."""
    def texts(server):
        box = mailbox.mbox(server.mail / "ann", create=False)
        return [box.get_bytes(key) for key in box.keys()]
    ten_kills("mbox", texts)


def cut_session(server, steps, length, reset):
    """Says the first `length` octets of a session and cuts; True when 250 came for the end."""
    client = server.client()
    client.expect(220)
    acknowledged = False
    for octets, code in steps:
        client.send(octets[:length])
        if length < len(octets):
            break
        length -= len(octets)
        client.expect(code)
        acknowledged = octets.endswith(b"\r\n.\r\n") or acknowledged
        if not length:
            break
    client.abort() if reset else client.socket.close()
    return acknowledged


def test_cut_after_each_byte():
    """A connection cut after each octet of a session leaves only what was acknowledged."""
    with Server() as server:
        acknowledged = set()
        for reset in (False, True):
            total = None
            length = 0
            while total is None or length <= total:
                token = f"cut-{length:03}-{reset}"
                steps = [
                    (b"EHLO client.test\r\n", 250), (b"MAIL FROM:<bob@client.test>\r\n", 250),
                    (b"RCPT TO:<ann@mx.test>\r\n", 250), (b"DATA\r\n", 354),
                    (f"Subject: {token}\r\n\r\n.\r\n".encode(), 250), (b"QUIT\r\n", 221),
                ]
                total = sum(len(octets) for octets, _ in steps)
                if cut_session(server, steps, length, reset):
                    acknowledged.add(token)
                length += 1
        # QUIT has six octets; each session that came as far as the end of its message counts.
        assert len(acknowledged) == 2 * 7, acknowledged
        # What is not whole is in the spool or in tmp/ as long as its session lasts.
        unfinished = server.mail / "ann/tmp"
        wait_for("every session to end",
                 lambda: not server.queue() and not list(unfinished.iterdir()))
        subjects = [message_from_bytes(f.read_bytes())["Subject"] for f in server.new_mail()]
        assert sorted(subjects) == sorted(acknowledged), set(subjects) ^ acknowledged


def test_cut_leaves_nothing_in_the_spool():
    """A long message cut in the middle is gone from the spool, also after kill -9."""
    with Server() as server:
        for kill in (False, True):
            with server.session() as client:
                client.envelope("bob@client.test", ["ann@mx.test"])
                client.command("DATA", 354)
                client.send(b"Subject: half\r\n\r\n" + b"half of it\r\n" * 100000)
                if kill:
                    server.kill()
            if kill:
                server.start()
            server.wait_queue(0)
        assert not server.new_mail()


def trace_of_one_message(server_options):
    """Runs a server under strace for two messages; gives the lines from the end of the first
    session, which is a warm-up, to the end of the second."""
    with folder() as traces:
        trace = traces / "trace"
        wrapper = [program("strace"), "-D", "-f", "-y", "-s", "64", "-o", trace]
        is_mbox = server_options.get("local", {}).get("format") == "mbox"
        with Server(server_options, wrapper) as server:
            def wait(count):
                if not is_mbox:
                    server.wait_mail(count=count)
                server.wait_queue(0)

            def ends():
                lines = trace.read_text(errors="replace").splitlines()
                return lines, [n for n, line in enumerate(lines) if '"221 ' in line]

            server.deliver()
            wait(1)
            server.deliver()
            wait(2)
            wait_for("both sessions in the trace", lambda: len(ends()[1]) == 2)
            lines, (first, second) = ends()
            return server.spool, lines[first + 1:second + 1]


def flushes_before_the_250(lines):
    """What was flushed between the go-ahead to DATA and the 250, by path."""
    go_ahead = next(n for n, line in enumerate(lines) if '"354 ' in line)
    promise = next(n for n, line in enumerate(lines) if n > go_ahead and '"250 ' in line)
    found = (re.search(r"\b(?:fsync|fdatasync|syncfs)\(\d+<([^>]*)>", line)
             for line in lines[go_ahead:promise])
    return [flushed.group(1) for flushed in found if flushed]


def calls_in(lines):
    return [line for line in lines if re.match(r"\d+ +\w+\(", line)]


def test_flushed_before_the_250():
    """Without the direct path the spool file and its folder are flushed before the 250."""
    spool, lines = trace_of_one_message({"queue": {"direct": "0"}})
    flushed = flushes_before_the_250(lines)
    queue = str(spool / "queue")
    assert queue in flushed, flushed
    assert any(path.startswith(queue + "/") for path in flushed), flushed
    print(f"note: {len(calls_in(lines))} system calls for one message, flushed before its 250: "
          f"{len(flushed)}")


def test_one_flush_on_the_direct_path():
    """Mail for this host costs one flush of a file before its 250 and at most 45 system calls, but
    for those by which threads wait; nothing of it is written into the spool."""
    for local_format in ("maildir", "mbox"):
        spool, lines = trace_of_one_message({"local": {"format": local_format}})
        flushed = flushes_before_the_250(lines)
        folders = [path for path in flushed if path.endswith("/new")]
        assert len(flushed) - len(folders) == 1, flushed
        assert len(folders) <= 1 and str(spool) not in " ".join(flushed), flushed
        written = [line for line in lines
                   if re.search(r"\b(write|pwrite64|linkat|renameat)\(", line)
                   and str(spool) in line]
        assert not written, written
        print(f"note: {local_format}: {len(calls_in(lines))} system calls for a session with one "
              "message")
        # The call that reads it may have been interrupted by another thread's.
        message = calls_in(lines[next(n for n, line in enumerate(lines) if '"MAIL ' in line):])
        # How often threads wait for each other is the scheduler's to say, and the journal's thread
        # writes once a second, whatever there is.
        journal = {line.split()[0] for line in lines if "/state/events" in line}
        message = [line for line in message
                   if " futex(" not in line and line.split()[0] not in journal]
        assert len(message) <= 45, f"{len(message)} calls:\n" + "\n".join(message)


def test_no_process_is_started():
    """No process is started for a message."""
    _, lines = trace_of_one_message({"local": {"format": "maildir"}})
    started = [line for line in lines if re.search(r"\b(execve|vfork|fork)\(", line)]
    assert not started, started
