"""Mail that `sendmail` is given while no server takes it, and accounts that send their own."""

import contextlib
import os
import pwd
import random
import re
import shutil
import socket
import stat
import subprocess
import threading
import time
from email import message_from_bytes

from disk import own_mounts, tmpfs
from harness import Server, as_root, binary, program, run, wait_for

NOBODY = "nobody"
EX_TEMPFAIL, EX_NOPERM = 75, 77


class Host(Server):
    """A server that was started as root and runs as another account, for all accounts."""

    def __init__(self, settings=None, user="bin", **options):
        settings = settings or {}
        server = {"user": user, **settings.pop("server", {})}
        super().__init__({"server": server, **settings}, **options)
        self.dir.chmod(0o755)
        shutil.copy(binary(), self.dir / "sendmail")
        for path in (self.spool, self.dir / "state", self.mail):
            path.mkdir(exist_ok=True, mode=0o700)
            shutil.chown(path, user)

    def sendmail(self, arguments, content=b"Subject: x\n\nbody\n", expect=0, user="root", **more):
        """Runs `sendmail` as an account of this host."""
        account = pwd.getpwnam(user)
        return run([self.dir / "sendmail", *arguments], expect=expect, input=content,
                   env=self.environment(), cwd="/", user=account.pw_uid, group=account.pw_gid,
                   extra_groups=[], **more)

    def open_folder(self):
        """Waits until everybody can leave mail."""
        path = self.spool / "drop"
        wait_for("drop/", lambda: path.exists() and stat.S_IMODE(path.stat().st_mode) == 0o1733)
        return path

    def dropped(self):
        """The files in drop/."""
        return list((self.spool / "drop").iterdir())


@as_root
def test_accounts_send_as_themselves():
    """An account may use its own senders, a trusted one all, and Received tells who it was."""
    with Host() as server:
        uid = pwd.getpwnam(NOBODY).pw_uid
        host = socket.gethostname()
        for number, sender in enumerate(
                ["nobody", "nobody@mx.test", "nobody+cron@mx.test", "nobody@localhost",
                 f"nobody@{host}", f"nobody@{host.split('.')[0]}", "<>"], 1):
            server.sendmail(["-f", sender, "ann"], b"From: Me <me@far.test>\n\nx\n", user=NOBODY)
            message = message_from_bytes(server.wait_mail(count=number)[-1])
            assert f"(uid {uid})" in message["Received"], message["Received"]
            assert message["From"] == "Me <me@far.test>" and not message["Sender"]
            expected = "<>" if sender == "<>" else f"<nobody{'+cron' * ('+' in sender)}@mx.test>"
            assert message["Return-Path"] == expected, (sender, message["Return-Path"])
        for sender in ("root", "ann@mx.test", "nobody@far.test"):
            output = server.sendmail(["-f", sender, "ann"], expect=EX_NOPERM, user=NOBODY)
            assert "trusted_users" in output and "553 5.7.1" in output, output
        for user in ("root", "www-data", "bin"):
            server.sendmail(["-f", "any@far.test", "eve"], user=user)
        server.wait_mail("eve", count=3)
        # A configuration named by somebody else changes nothing.
        output = server.sendmail(["-C", "/nonexistent", "-oQ/tmp", "-X", "/tmp/log", "dan"],
                                 user=NOBODY)
        assert "-C is for root alone" in output and server.wait_mail("dan")
        assert server.sendmail(["-q"], user=NOBODY) == ""
        assert "root" in server.sendmail(["-qRx"], expect=EX_NOPERM, user=NOBODY)
        assert "root" in server.sendmail(["-bp"], expect=EX_NOPERM, user=NOBODY)


@as_root
def test_accounts_that_are_called_otherwise_elsewhere():
    """From a chroot or a container, where the account has no name or another one, mail goes out."""
    uid = pwd.getpwnam("games").pw_uid
    with Host() as server:
        server.open_folder()
        for number, name in enumerate(["", f"app:x:{uid}:{uid}::/:/bin/sh\n"], 1):
            (server.dir / "passwd").write_text(name)
            inside = (f"mount --bind {server.dir}/passwd /etc/passwd && exec setpriv --reuid {uid} "
                      f"--regid {uid} --clear-groups {server.dir}/sendmail ann")
            run(["unshare", "--mount", "sh", "-c", inside], input=b"Subject: x\n\n",
                env=server.environment())
            message = message_from_bytes(server.wait_mail(count=number)[-1])
            assert message["Return-Path"] == "<games@mx.test>", message["Return-Path"]
        assert server.sendmail(["-f", "app", "ann"], expect=EX_NOPERM, user="games")


@as_root
def test_everybody_leaves_mail_while_the_server_is_away():
    """What accounts leave is theirs alone, is delivered at the start, and never as somebody else."""
    with Host() as server:
        folder = server.open_folder()
        server.stop()
        for user, arguments in [
            (NOBODY, ["ann"]), (NOBODY, ["-f", "root", "eve"]), ("root", ["-f", "any@far.test", "dan"]),
        ]:
            assert server.sendmail(arguments, user=user) == ""
        for file in server.dropped():
            assert stat.S_IMODE(file.stat().st_mode) == 0o600
        listing = subprocess.run(["ls", str(folder)], user=NOBODY, capture_output=True)
        assert listing.returncode, listing
        assert "not accepted" not in server.sendmail(
            ["-t"], b"To: " + b",\n ".join(b"u%d" % n for n in range(250)) + b"\n\nx\n")
        assert len(server.dropped()) == 3 + 3, server.dropped()
        server.start()
        paths = {user: message_from_bytes(server.wait_mail(user)[0])["Return-Path"]
                 for user in ("ann", "eve", "dan", "u0", "u249")}
        assert paths["ann"] == "<nobody@mx.test>" and paths["dan"] == "<any@far.test>", paths
        assert paths["eve"] == "<nobody@mx.test>", paths
        wait_for("an empty drop/", lambda: not server.dropped())
        assert re.search(r"of uid \d+: 553 5.7.1 .*; sent as <nobody@mx.test>", server.log())


@as_root
def test_files_of_others_are_not_read():
    """A hard link to a file of root's, and one made unreadable, are not taken for mail."""
    with Host() as server:
        folder = server.open_folder()
        secret = server.dir / "secret"
        for number, mode in enumerate((0o600, 0o644), 1):
            secret.write_text("mailwren 1\nid 0000000000000\nreceived 1\nclient x\nfrom <>\n"
                              "body 7bit\nto <eve@mx.test>\n\nmailwren-end 0000000000000000\n")
            secret.chmod(mode)
            os.link(secret, folder / f"000000000000{number}")
            wait_for("it is set aside", lambda: not server.dropped())
        server.sendmail(["ann"], user=NOBODY)
        server.wait_mail("ann")
        assert not server.new_mail("eve"), "a file of somebody else was sent"
        assert server.log().count("has 2 names; kept as corrupt/") >= 1, server.log()


@as_root
def test_one_account_does_not_starve_others():
    """A thousand bad files of one account leave the server at work for others."""
    with Host() as server:
        folder = server.open_folder()
        script = (f"import os\nfor n in range(1000):\n"
                  f"    open('{folder}/%013d' % n, 'w').write('x' * n)\n"
                  f"    os.mkdir('{folder}/d%d' % n) if n < 50 else None\n"
                  f"    os.symlink('/etc/shadow', '{folder}/%013d' % (2000 + n))\n")
        run(["python3", "-c", script], user=NOBODY)
        server.sendmail(["ann"])
        server.stop()
        server.sendmail(["eve"])
        server.start()
        server.wait_mail("ann"), server.wait_mail("eve")
        wait_for("only folders", lambda: all(f.is_dir() for f in server.dropped()))
        kept = list((server.spool / "corrupt").iterdir())
        assert len(kept) <= 100, len(kept)
        assert server.log().count("\n") < 100, server.log()[-3000:]


def test_pipe_session_without_a_server():
    """With -bs and no server the message is taken by the program itself and delivered later."""
    with Server() as server:
        link = server.linked()
        wait_for("drop/", (server.spool / "drop").exists)
        server.stop()
        run([program("swaks"), "--pipe", f"{link} -bs", "--from", "root@mx.test", "--to",
             "ann@mx.test,eve@localhost", "--body", ".\n..dots\n."], env=server.environment())
        server.start()
        assert b"\n.\n..dots\n." in server.wait_mail("ann")[0]
        server.wait_mail("eve")


def test_refused_for_now():
    """Who cannot be looked up now gets the mail later, and the others get it once."""
    server = Server({"local": {"users": "DIR/users", "aliases": "DIR/aliases"}})
    (server.dir / "users").write_text("ann\neve\n")
    aliases = server.dir / "aliases"
    aliases.write_text(f"late: :include:{server.dir}/not-there\n")
    with server:
        with server.session() as client:
            client.command("MAIL FROM:<>", 250)
            client.command("RCPT TO:<late@mx.test>", 451)
        run([server.linked(), "late", "ann"], input=b"Subject: x\n\n",
            env=server.environment())
        server.wait_mail("ann")
        # Another size, so that it is seen to have changed within the same second.
        aliases.write_text("late: eve\n")
        server.wait_mail("eve")
        server.wait_queue(0)
        server.wait_mail("ann")


def test_flushed_before_the_exit():
    """strace sees the message flushed after its last octet, and its name before the exit."""
    with Server() as server:
        link = server.linked()
        wait_for("drop/", (server.spool / "drop").exists)
        server.stop()
        trace = server.dir / "trace"
        run([program("strace"), "-f", "-o", trace, "-e",
             "trace=write,linkat,rename,renameat,fsync,syncfs,exit_group",
             link, "ann"], input=b"Subject: x\n\n", env=server.environment())
        calls = [line.split(maxsplit=1)[1].split("(")[0] for line in trace.read_text().splitlines()
                 if "(" in line]
        named = max(i for i, call in enumerate(calls) if call in ("linkat", "rename", "renameat"))
        flushed = [i for i, call in enumerate(calls) if call in ("fsync", "syncfs")]
        assert flushed and flushed[-1] > named > calls.index("write"), calls
        assert calls[-1] == "exit_group" or "exited" in trace.read_text().splitlines()[-1], calls
        server.start()
        server.wait_mail()


def test_killed_at_any_moment():
    """kill -9 at any moment of sendmail: what ended with 0 is delivered, nothing twice."""
    with Server() as server:
        link = server.linked()
        wait_for("drop/", (server.spool / "drop").exists)
        said = []
        for is_away in (False, True):
            if is_away:
                server.stop()
            for number in range(60):
                subject = f"{is_away}-{number}"
                process = subprocess.Popen([link, "ann"], stdin=subprocess.PIPE,
                                           env=server.environment())
                process.stdin.write(f"Subject: {subject}\n\n{'x' * 20000}\n".encode())
                process.stdin.close()
                time.sleep(random.uniform(0, 0.03))
                process.kill()
                said += [subject] if process.wait() == 0 else []
        server.start()
        check_ledger(server, said)


def check_ledger(server, said):
    """Waits until each message of which somebody heard 0 is there; none may be there twice."""
    def subjects():
        found = [re.search(rb"^Subject: (\S+)$", file.read_bytes(), re.M)
                 for file in server.new_mail()]
        return [subject[1].decode() for subject in found]
    wait_for(f"{len(said)} messages", lambda: set(said) <= set(subjects()), 60)
    wait_for("an empty drop/",
             lambda: not [f for f in (server.spool / "drop").iterdir() if f.name[0] != "."])
    server.wait_queue(0)
    found = subjects()
    assert len(found) == len(set(found)), "a message was delivered twice"
    return found


def test_many_while_the_server_restarts():
    """200 sendmails while the server stops and starts: each exit with 0 is one message there."""
    with Server({"server": {"max_sessions_per_client": "5"}}) as server:
        link = server.linked()
        wait_for("drop/", (server.spool / "drop").exists)
        said, gate = [], threading.Semaphore(20)

        def send(subject):
            with gate:
                done = subprocess.run([link, "ann"], input=f"Subject: {subject}\n\nx\n".encode(),
                                      env=server.environment(), capture_output=True, timeout=120)
                if done.returncode == 0:
                    said.append(subject)
                else:
                    assert done.returncode == EX_TEMPFAIL, done

        threads = [threading.Thread(target=send, args=(f"m{n}",)) for n in range(200)]
        for thread in threads:
            thread.start()
        for _ in range(4):
            time.sleep(0.3)
            server.stop()
            time.sleep(0.2)
            server.start()
        for thread in threads:
            thread.join()
        found = check_ledger(server, said)
        assert sorted(found) == sorted(said), (len(found), len(said))
        assert len(said) == 200, len(said)


@as_root
def test_socket_fuzzed_by_nobody():
    """Random octets and idle sessions of one account over the socket do not keep others out."""
    with Host({"server": {"max_sessions": "40", "max_sessions_per_client": "20"}}) as server:
        script = (
            "import os, random, socket, sys\n"
            "random.seed(7)\nheld = []\n"
            "words = [b'EHLO x\\r\\n', b'MAIL FROM:<nobody>\\r\\n', b'MAIL FROM:<>\\r\\n',\n"
            "  b'RCPT TO:<ann@mx.test>\\r\\n', b'DATA\\r\\n', b'\\r\\n.\\r\\n', b'STARTTLS\\r\\n',\n"
            "  b'AUTH EXTERNAL =\\r\\n', b'AUTH PLAIN\\r\\n', b'\\0' * 300, b'A' * 5000,\n"
            "  b'BDAT 99999999999999999999 LAST\\r\\n', b'\\xff\\xfe\\n', b'VRFY \\xc3\\r\\n']\n"
            "for n in range(600):\n"
            "    s = socket.socket(socket.AF_UNIX)\n"
            "    s.settimeout(5)\n"
            "    try:\n"
            "        s.connect(sys.argv[1])\n"
            "        for _ in range(random.randrange(12)):\n"
            "            s.send(random.choice(words) if random.random() < .7 else os.urandom(40))\n"
            "    except OSError:\n"
            "        pass\n"
            "    held.append(s)\n"
            "    held = held[-60:]\n")
        process = subprocess.Popen(["python3", "-c", script, str(server.dir / "submit.sock")],
                                   user=NOBODY)
        for number in range(1, 6):
            server.sendmail(["eve"])
            server.wait_mail("eve", count=number)
        assert process.wait(60) == 0
        server.sendmail(["eve"])
        server.wait_mail("eve", count=6)
        assert "panicked" not in server.log() and "internal error" not in server.log()


@own_mounts
def test_full_disk():
    """On a full disk nothing is left and the exit code is 75; with room again it is delivered."""
    server = Server({"server": {"min_free_space": "0"}})
    server.stack.enter_context(tmpfs(server.spool, "1M"))
    with server:
        link = server.linked()
        wait_for("drop/", (server.spool / "drop").exists)
        server.stop()
        filler = server.spool / "filler"
        with contextlib.suppress(OSError), filler.open("wb") as file:
            for _ in range(512):
                file.write(b"x" * 4096)
                file.flush()
        output = run([link, "ann"], EX_TEMPFAIL, input=b"Subject: x\n\n" + b"y\n" * 9000,
                     env=server.environment())
        assert "drop: " in output and "not accepted" in output, output
        assert not list((server.spool / "drop").iterdir())
        filler.unlink()
        run([link, "ann"], input=b"Subject: x\n\n" + b"y\n" * 9000, env=server.environment())
        server.start()
        server.wait_mail()
