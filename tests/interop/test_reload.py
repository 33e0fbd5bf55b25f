"""SIGHUP: the configuration is read again in the running process. No session ends by it, no listener
is closed for a moment, and a configuration with a mistake changes nothing."""

import base64
import contextlib
import ctypes
import os
import pwd
import re
import signal
import socket
import threading
from pathlib import Path

from disk import Faults, thread_names
from harness import (
    Client, Closed, Server, as_root, free_port, loopback, loopback_up, smarthost, wait_for)
from ledger import FAR, LOCAL, at_peer, content, in_maildir, send
from peers import Peer
from test_digest import send_all, wait_gathered

CLONE_NEWNET = 0x40000000
READ = "the configuration was read again: "
REFUSED = "the configuration was not taken"


class Reloading(Server):
    """A server whose configuration changes."""

    def change(self, settings):
        """Lays other settings over the configuration in its file."""
        for section, keys in settings.items():
            known = self.overrides.get(section)
            self.overrides[section] = None if keys is None else {**(known or {}), **keys}
        self.write_config()

    def hang_up(self, words):
        """Sends SIGHUP, and returns the log from there to the line with these words."""
        before = len(self.log())
        self.process.send_signal(signal.SIGHUP)
        wait_for(f"{words!r} in the log", lambda: words in self.log()[before:])
        return self.log()[before:]

    def reload(self, settings=None):
        """Has the server take other settings, and returns what it says has changed."""
        self.change(settings or {})
        return re.search(f"{READ}(.*)", self.hang_up(READ))[1]

    def refuse(self, settings=None):
        """Has the server refuse other settings; returns what it says of them, and takes them back."""
        before = {section: keys and dict(keys) for section, keys in self.overrides.items()}
        self.change(settings or {})
        try:
            return self.hang_up(REFUSED)
        finally:
            self.overrides = before
            self.write_config()

    def counted(self):
        """Its threads and its open descriptors."""
        process = Path(f"/proc/{self.process.pid}")
        return len(list((process / "task").iterdir())), len(list((process / "fd").iterdir()))

    def watches(self):
        """How many folders it watches."""
        links = []
        for file in Path(f"/proc/{self.process.pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                links.append(os.readlink(file))
        return links.count("anon_inode:inotify")


class OfAnAccount(Reloading):
    """The same in a folder that other accounts may enter."""

    def make_folders(self):
        """Makes none: the server makes its own."""
        os.chmod(self.dir, 0o755)


def begin(client, size=None):
    """A message up to DATA."""
    client.command("MAIL FROM:<bob@client.test>" + (f" SIZE={size}" if size else ""), 250)
    client.command("RCPT TO:<ann@mx.test>", 250)
    client.command("DATA", 354)


def test_sessions_end_under_the_rules_they_began_with():
    """A message in the middle of DATA is taken under the old limits; a new session has the new ones."""
    with Reloading({"server": {"max_message_size": "1M"}}) as server:
        big = b"Subject: big\r\n\r\n" + b"0123456789abcdef\r\n" * 10_000
        with server.session() as old:
            begin(old)
            old.send(big[:60_000])
            changes = server.reload({"server": {"max_message_size": "64K", "hostname": "mx2.test"}})
            assert changes == "[server] changed", changes
            with server.client() as new:
                assert "mx2.test" in new.expect(220).lines[0]
                assert "SIZE 65536" in new.command("EHLO client.test", 250).lines
                new.command(f"MAIL FROM:<bob@client.test> SIZE={len(big)}", 552)
            old.send(big[60_000:] + b".\r\n")
            old.expect(250)
            old.command(f"MAIL FROM:<bob@client.test> SIZE={len(big)}", 250)
        assert big.replace(b"\r\n", b"\n")[-1000:] in server.wait_mail()[0].replace(b"\r\n", b"\n")


def test_under_load():
    """Hundreds of messages over many connections during dozens of reloads: nobody is refused, and each
    arrives once."""
    with Peer() as peer, Reloading({"smarthost": smarthost(peer.port),
                                    "digest": {"burst": 0}}) as server:
        promised, refused, is_over = {}, [], threading.Event()

        def sender(name):
            number = 0
            while not is_over.is_set():
                try:
                    with server.session() as client:
                        for _ in range(3):
                            token, number = f"{name}-{number}", number + 1
                            recipients = [[LOCAL], [FAR], [LOCAL, FAR]][number % 3]
                            reply = send(client, token, recipients)
                            if reply.code != 250:
                                refused.append((token, reply))
                            promised[token] = recipients
                        client.command("QUIT", 221)
                except (OSError, Closed, AssertionError) as error:
                    refused.append((name, error))

        threads = [threading.Thread(target=sender, args=(f"s{n}",)) for n in range(4)]
        for thread in threads:
            thread.start()
        for number in range(40):
            words = server.reload({"queue": {"local_workers": 1 + number % 3,
                                             "relay_workers": 2 + number % 4},
                                   "server": {"session_timeout": f"{100 + number}s"}})
            assert "[server], [queue] changed" in words, words
        wait_for("hundreds of messages", lambda: len(promised) >= 300, 60)
        is_over.set()
        for thread in threads:
            thread.join()
        assert not refused, refused[:5]
        server.wait_queue()
        for address, arrivals in [(LOCAL, in_maildir(server)), (FAR, at_peer(peer))]:
            expected = [token for token, to in promised.items() if address in to]
            assert not arrivals.torn, arrivals.torn
            assert sorted(arrivals.whole.elements()) == sorted(expected), address


def test_mistakes_change_nothing():
    """Each mistake is in the log with its line; then the old configuration is still in force, all of it."""
    with Reloading() as server:
        assert server.reload() == "nothing has changed"
        text = server.config_path.read_text()
        server.config_path.write_text(text + "[queue]\nexpire = 1d\n[digest]\nburst = many\n[sever]\n")
        log = server.hang_up(REFUSED)
        for line, words in [(len(text.splitlines()) + 4, "burst"), (len(text.splitlines()) + 5, "sever")]:
            assert re.search(rf"ERROR {re.escape(str(server.config_path))}:{line}: .*{words}", log), log
        server.config_path.unlink()
        assert "there is no such file" in server.hang_up(REFUSED)
        aliases = server.dir / "aliases"
        aliases.write_text("root: ann\nbob ann\n")
        log = server.refuse({"server": {"max_message_size": "64K"}, "local": {"aliases": aliases}})
        assert f"{aliases}:2: " in log, log
        for settings, words in [
            ({"smarthost": {"host": "x.test", "tls": "none", "user": "ann", "auth_without_tls": "yes",
                            "password_file": "DIR/nothing"}}, "nothing"),
            ({"tls": {"certificate": "DIR/none.pem", "key": "DIR/none.key"}}, "none.pem"),
            ({"rewrite": {"map": "DIR/map"}}, "the map cannot be read"),
        ]:
            assert words in server.refuse({"server": {"max_message_size": "64K"}, **settings})
        with server.session() as client:
            client.command("MAIL FROM:<bob@client.test> SIZE=1000000", 250)
        server.deliver()
        assert server.reload() == "nothing has changed"


def test_what_takes_a_restart():
    """Who the server is and where its queue and its state are cannot change while it runs."""
    with Reloading() as server:
        log = server.refuse({"server": {"user": "daemon", "spool": "DIR/other", "state": "DIR/third",
                                        "max_message_size": "64K"}})
        for key in ("user", "spool", "state"):
            assert re.search(rf"ERROR .*\[server\] {key} .*takes a restart", log), log
        with server.session() as client:
            client.command("MAIL FROM:<bob@client.test> SIZE=1000000", 250)


def test_listeners():
    """Listeners come, go, move and change, and the sessions of all of them go on."""
    with Reloading() as server:
        port, second = free_port(), free_port()
        where = f"127.0.0.1:{port}"
        words = server.reload({"listen.new": {"address": where}, "server": {"socket": "DIR/other.sock"}})
        assert words == f"[listen.new] added on {where}; [server] changed", words
        assert not (server.dir / "submit.sock").exists() and (server.dir / "other.sock").is_socket()
        with Client("127.0.0.1", port) as old, server.session() as first:
            old.expect(220)
            assert "STARTTLS" in old.command("EHLO client.test", 250).lines
            assert server.reload({"listen.new": {"tls": "none", "networks": "192.0.2.0/24"}}) \
                == "[listen.new] changed"
            with Client("127.0.0.1", port) as new:
                new.expect(554)
            server.reload({"listen.new": {"networks": "127.0.0.0/8"}})
            with Client("127.0.0.1", port) as new:
                new.expect(220)
                assert "STARTTLS" not in new.command("EHLO client.test", 250).lines
            words = server.reload({"listen.new": None, "listen.smtp": {"address": f"127.0.0.1:{second}"}})
            assert words == f"[listen.smtp] moved to 127.0.0.1:{second}; [listen.new] removed", words
            for gone in (port, server.port):
                try:
                    Client("127.0.0.1", gone).expect(220)
                    raise AssertionError(f"{gone} is still open")
                except ConnectionRefusedError:
                    pass
            old.send_message("bob@client.test", ["ann@mx.test"], b"Subject: old\r\n\r\n")
            first.send_message("bob@client.test", ["ann@mx.test"], b"Subject: first\r\n\r\n")
        server.port = second
        server.deliver()
        server.wait_mail(count=3)


def test_from_one_address_to_all_and_back():
    """A listener that goes from one address of the host to all of them, or back, is closed at no moment:
    whoever connects all the time is greeted each time."""
    with Reloading() as server:
        failed, greeted, is_over = [], [], threading.Event()

        def knock():
            while not is_over.is_set():
                try:
                    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as client:
                        greeted.append(client.recv(3))
                        client.sendall(b"QUIT\r\n")
                        client.recv(100)
                except OSError as error:
                    failed.append(error)

        thread = threading.Thread(target=knock)
        thread.start()
        for _ in range(10):
            for host in ("0.0.0.0", "127.0.0.1"):
                server.reload({"listen.smtp": {"address": f"{host}:{server.port}"}})
        is_over.set()
        thread.join()
        assert set(greeted) == {b"220"} and len(failed) <= len(greeted) // 100, (failed, len(greeted))


def test_a_port_that_is_taken():
    """Where an address cannot be bound, nothing changes; once it can, everything does."""
    with Reloading() as server, socket.create_server(("127.0.0.1", 0)) as other:
        taken = f"127.0.0.1:{other.getsockname()[1]}"
        wanted = {"server": {"max_message_size": "64K", "socket": "DIR/other.sock"},
                  "listen.free": {"address": f"127.0.0.1:{free_port()}"},
                  "listen.taken": {"address": taken}}
        wait_for("the watches on wake/ and drop/", lambda: server.watches() == 2)
        before = server.counted()
        log = server.refuse(wanted)
        assert f"cannot listen on {taken}" in log and "stop it or choose another" in log, log
        assert not (server.dir / "other.sock").exists() and (server.dir / "submit.sock").is_socket()
        with server.session() as client:
            client.command("MAIL FROM:<bob@client.test> SIZE=1000000", 250)
        wait_for("no thread and no socket more", lambda: server.counted()[1] <= before[1])
        other.close()
        assert "[listen.taken] added" in server.reload(wanted)
        with server.session() as client:
            client.command("MAIL FROM:<bob@client.test> SIZE=1000000", 552)


def test_queued_mail_goes_the_new_way():
    """Another smarthost gets what waits for the one before, and what hangs there at once, too."""
    with Peer({"RCPT": b"451 4.3.0 not now\r\n"}) as one, Peer() as other:
        with Reloading({"smarthost": smarthost(one.port), "queue": {"retry": "1h"}}) as server:
            for number in range(5):
                server.deliver("zoe@far.test", content(f"m{number}"))
            wait_for("five tries", lambda: sum(b"RCPT" in line for line in one.commands) >= 5)
            assert server.reload({"smarthost": smarthost(other.port)}) == "[smarthost] changed"
            arrived = at_peer(other) if other.wait_messages(5) else None
            assert sorted(arrived.whole) == [f"m{number}" for number in range(5)]
            server.wait_queue()
            assert not any(message.recipients for message in one.messages)


def test_who_rests_goes_on_resting():
    """A destination that cannot be reached is not tried sooner because of a reload, and a password that
    was refused only when there is another one."""
    with Peer({"GREETING": b"421 4.3.2 not now\r\n"}) as peer:
        with Reloading({"smarthost": smarthost(peer.port), "queue": {"retry": "1h"}}) as server:
            server.deliver("zoe@far.test")
            wait_for("a try", lambda: peer.connections)
            server.wait_log("deferred")
            for number in range(3):
                server.reload({"queue": {"relay_workers": 2 + number}, "digest": {"burst": 50 + number}})
                server.deliver("zoe@far.test")
            server.wait_queue(4)
            assert peer.connections == 1, peer.connections
    offer = b"250-peer.test\r\n250 AUTH PLAIN\r\n"
    said = lambda password: base64.b64encode(b"\0ann\0" + password).strip()
    answer = lambda line: b"235 2.7.0 in\r\n" if said(b"right") in line else b"535 5.7.8 no\r\n"
    with Peer({"EHLO": offer, "AUTH": answer}) as peer:
        tries = lambda: sum(line.startswith(b"AUTH") for line in peer.commands)
        login = {**smarthost(peer.port), "user": "ann", "password": "wrong", "auth_without_tls": "yes"}
        with Reloading({"smarthost": login, "queue": {"retry": "1s"}}) as server:
            server.deliver("zoe@far.test")
            server.wait_log("the login of user")
            server.reload({"smarthost": {"tls": "opportunistic"}, "queue": {"relay_workers": 3}})
            server.deliver("zoe@far.test")
            server.reload({"smarthost": {"mechanisms": "PLAIN"}})
            server.wait_queue(2)
            assert tries() == 1, peer.commands
            server.reload({"smarthost": {"password": "right"}})
            peer.wait_messages(2)
            assert tries() >= 2


def test_fifty_reloads_leave_nothing_behind():
    """Threads, descriptors and memory are the same after many reloads as after a few."""
    with Peer() as peer, Reloading({"smarthost": smarthost(peer.port)}) as server:
        extra = f"127.0.0.1:{free_port()}"

        def turn(number):
            server.reload({
                "queue": {"relay_workers": 4, "local_workers": 1 + number % 2},
                "server": {"max_recipients": 100 + number},
                "listen.extra": {"address": extra} if number % 2 else None})
            server.deliver()
            server.deliver("zoe@far.test")

        for number in range(8):
            turn(number)
        peer.wait_messages(8)
        pools = 1 + 7 % 2 + 4

        def settled():
            names = list(thread_names(server.process.pid).values())
            workers = names.count("local") + names.count("relay")
            return workers == pools and "session" not in names and names.count("listener") == 3

        wait_for("the old pools to end", settled)
        before, memory = server.counted(), server.memory("Anonymous")
        for number in range(8, 58):
            turn(number)
        peer.wait_messages(58)
        wait_for("the old pools to end", settled)
        wait_for(f"{before} threads and descriptors", lambda: all(
            now <= then + more for now, then, more in zip(server.counted(), before, (0, 2))))
        growth = server.memory("Anonymous") - memory
        print(f"note: fifty reloads: {before} threads and descriptors, {growth >> 10} KiB more")
        assert growth < 2 << 20, growth


def test_signals_one_after_the_other():
    """SIGHUPs that come all at once end in the last configuration, and a SIGTERM behind one stops the
    server in order, with nothing lost."""
    with Reloading() as server:
        for number in range(20):
            server.change({"server": {"max_recipients": 100 + number}})
            server.process.send_signal(signal.SIGHUP)
        server.change({"server": {"hostname": "last.test"}})
        server.process.send_signal(signal.SIGHUP)

        def greeted():
            with server.client() as client:
                return "last.test" in client.expect(220).lines[0]
        wait_for("the last configuration", greeted)
        with server.session() as client:
            begin(client)
            server.change({"queue": {"local_workers": 3}})
            client.send(b"Subject: last\r\n\r\nx\r\n.\r\n")
            client.expect(250)
            server.process.send_signal(signal.SIGHUP)
            server.process.send_signal(signal.SIGTERM)
            server.process.wait(30)
        assert server.process.returncode == 0
        server.wait_mail()


def test_the_level_of_the_log():
    """[log] level counts at once."""
    with Reloading() as server:
        assert "DEBUG" not in server.log()
        server.change({"log": {"level": "debug"}})
        server.hang_up(READ)
        server.deliver()
        server.wait_log("DEBUG .*session ended")
        server.change({"log": {"level": "error"}})
        server.process.send_signal(signal.SIGHUP)
        wait_for("silence", lambda: not grows(server))


def grows(server):
    """Whether a session with a message leaves anything in the log."""
    before = server.log()
    server.deliver()
    return server.log() != before


@as_root
def test_an_account_without_root_binds_what_only_root_may():
    """Started as root, the server has dropped it; yet a reload reads a file that is root's alone, binds
    a port below 1024, and makes a socket in a folder of root's."""
    nobody = pwd.getpwnam("nobody")
    # Whoever is root in a user namespace alone has ports below 1024 in a network of its own only.
    if ctypes.CDLL(None).unshare(CLONE_NEWNET) == 0:
        loopback_up()
    with OfAnAccount({"server": {"user": "nobody"}}) as server:
        os.chmod(server.config_path, 0o600)
        host = loopback(7)
        words = server.reload({"listen.low": {"address": f"{host}:587"},
                               "server": {"socket": "DIR/made/other.sock"}})
        assert words.startswith("[listen.low] added"), words
        status = Path(f"/proc/{server.process.pid}/status").read_text()
        assert re.search(rf"^Uid:\s+{nobody.pw_uid}\s+{nobody.pw_uid}", status, re.M), status
        with Client(host, 587) as client:
            client.expect(220)
        assert (server.dir / "made/other.sock").is_socket()
        assert not (server.dir / "submit.sock").exists()
        server.reload({"listen.low": {"address": f"0.0.0.0:587"}})
        with Client("127.0.0.1", 587) as client:
            client.expect(220)


def test_who_waits_where_a_listener_closes():
    """Who has connected to a listener that goes, and was not accepted yet, gets a session still."""
    port = free_port()
    with Reloading({"listen.old": {"address": f"127.0.0.1:{port}"}}) as server:
        # The thread of the listener hangs on the first client.
        with Faults(server, "accept4:delay_exit=1500000", "listener"), \
                Client("127.0.0.1", port) as first, Client("127.0.0.1", port) as second:
            server.reload({"listen.old": None})
            first.expect(220)
            second.expect(220)


def test_what_is_gathered_goes_when_nothing_is_to_be():
    """Messages that wait to go out as one do so when a new configuration gathers nothing."""
    with Peer() as peer, Reloading({"smarthost": smarthost(peer.port), "digest": {"burst": 1},
                                    "local": {"aliases": "DIR/aliases"}}) as server:
        (server.dir / "aliases").write_text("root: me@far.test\n")
        server.hang_up(READ)
        send_all(server, range(3))
        wait_gathered(server, 2)
        server.reload({"digest": {"burst": 0}})
        server.wait_queue(0)
        assert len(peer.messages) == 2, peer.messages
