"""`mailwren setup` against a real provider, Postfix with Dovecot's accounts: by flags, from a pipe and
on a terminal, and each thing that goes wrong."""

import contextlib
import fcntl
import os
import pty
import pwd
import re
import select
import shutil
import signal
import stat
import struct
import subprocess
import termios

import certs
from harness import PATIENCE, Server, as_root, binary, folder, free_port, program
from peers import dnsmasq
from providers import NAME, PASSWORD, USER, Dovecot, Postfix

ROOT = "zoe@far.test"
COMMENT = "# This line is mine, and stays.\n"


class House(contextlib.ExitStack):
    """A provider, and the configuration of a server that knows nothing of it yet."""

    def __init__(self, strict=False):
        super().__init__()
        self.dir = self.enter_context(folder())
        self.dir.chmod(0o711)
        self.authority = certs.Authority(self.dir / "ca")
        self.dns = self.enter_context(dnsmasq(f"--host-record={NAME},127.0.0.1"))
        dovecot = self.enter_context(Dovecot(self.dir))
        self.provider = self.enter_context(Strict(self.dir, self.authority.four(NAME), dovecot) if strict
                                           else Postfix(self.dir, self.authority.four(NAME), dovecot))
        self.server = Server({"smarthost": None, "dns": {"servers": self.dns},
                              "local": {"aliases": self.dir / "aliases"},
                              "server": {"user": "daemon"}})
        self.callback(self.server.stack.close)
        (self.dir / "aliases").write_text("# mine\nann: bob\n")
        self.server.dir.chmod(0o755)
        self.server.port = free_port()
        self.server.write_config()
        with self.config.open("a") as file:
            file.write(COMMENT)

    @property
    def config(self):
        """The configuration file."""
        return self.server.config_path

    @property
    def files(self):
        """What setup may write."""
        return [self.config, self.dir / "aliases", self.config.with_name("password")]

    @property
    def answer(self):
        """The provider as a person names it."""
        return f"{NAME}:{self.provider.port('starttls')}"

    def state(self):
        """The octets, the mode and the owner of each."""
        def of(path):
            if not path.exists():
                return None
            status = path.stat()
            return path.read_bytes(), status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns
        return [of(path) for path in self.files]

    def flags(self, port=None, sort="good", **changes):
        """The command line; None leaves a flag out."""
        port = port or self.provider.port("starttls", sort)
        values = {"smarthost": f"{NAME}:{port}", "user": USER, "root": ROOT, "sender": USER,
                  "ca": self.authority.ca, **changes}
        flags = [part for name, value in values.items() if value is not None
                 for part in (f"--{name}", str(value))]
        return [binary(), "--config", self.config, "setup", "--yes", "--password-stdin", *flags]

    def run(self, command, text=f"{PASSWORD}\n"):
        """Runs setup: the exit code, and what it said."""
        done = subprocess.run(list(map(str, command)), input=text, text=True, timeout=60,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              env=self.server.environment())
        assert PASSWORD not in done.stdout, done.stdout
        return done.returncode, done.stdout

    def fails(self, code, *words, text=f"{PASSWORD}\n", **changes):
        """Setup ends with that code and these words, and has written nothing."""
        before = self.state()
        found, said = self.run(self.flags(**changes), text)
        assert found == code and all(word in said for word in words), (found, said)
        assert "Nothing was written." in said and self.state() == before, said

    def check_written(self):
        """What was asked for is there, with the right owner and mode, and all else as it was."""
        config, aliases, password = self.files
        text = config.read_text()
        assert COMMENT in text and PASSWORD not in text, text
        assert aliases.read_text() == f"# mine\nann: bob\nroot: {ROOT}\n"
        assert password.read_text() == f"{PASSWORD}\n"
        status, account = password.stat(), pwd.getpwnam("daemon")
        assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) \
            == (0o640, 0, account.pw_gid), oct(status.st_mode)


class Strict(Postfix):
    """One that takes mail from the account's own address alone."""

    def main(self, accounts):
        owners = self.folder / "owners"
        owners.write_text(f"/^(.*)$/ $1\n")
        return super().main(accounts) + (
            f"smtpd_sender_login_maps = regexp:{owners}\n"
            "smtpd_sender_restrictions = reject_sender_login_mismatch\n")


@as_root
def test_flags():
    """Flags alone: a test message at the provider, the files with the right rights, a second run that
    changes no octet, and then a server that sends root's mail there."""
    with House() as house:
        code, said = house.run(house.flags())
        assert code == 0, said
        for words in (f"{NAME} is at 127.0.0.1", "connected to ", "TLSv1.3, and the certificate is good",
                      f"logged in as {USER}", f"a test message from {USER} to {ROOT} was taken: 250"):
            assert words in said, said
        test = house.provider.wait_mail()[0].decode()
        assert "can send mail" in test and f"From: <{USER}>" in test, test
        house.check_written()
        before = house.state()
        code, said = house.run(house.flags())
        assert code == 0 and "nothing to change" in said, said
        assert house.state() == before and len(house.provider.mail()) == 1
        with served(house) as server:
            server.deliver("root@mx.test", b"From: <root@mx.test>\r\nSubject: cron\r\n\r\nx\r\n")
            assert b"Subject: cron" in house.provider.wait_mail(2)[-1]
            server.wait_queue(0)


@contextlib.contextmanager
def served(house):
    """The server with what setup has written, and not a word more."""
    text = house.config.read_text()
    server = house.server
    server.spool.mkdir(exist_ok=True)
    for path in (server.spool, server.dir / "state"):
        path.mkdir(exist_ok=True)
        shutil.chown(path, "daemon", "daemon")
    server.write_config = lambda: house.config.write_text(
        text.replace(f":{port}\n", f":{server.port}\n"))
    port = server.port
    with server:
        yield server


@as_root
def test_what_goes_wrong():
    """A wrong password, a bad certificate, a closed port, an unknown name, TLS where there is none:
    each in plain words with what to do, and nothing is written."""
    with House() as house:
        port = house.provider.port
        house.fails(77, "535", "check --user and the password", text="wrong\n")
        house.fails(69, "expired", "clock of this host", sort="expired")
        house.fails(69, f"and not for {NAME}", "--smarthost", sort="wrong name")
        house.fails(69, "signed itself", "--ca FILE", sort="self-signed")
        house.fails(69, "issuer is not trusted", "with --ca FILE", ca=None)
        closed = free_port()
        house.fails(69, "refused the connection", f"nothing listens on port {closed}", ":587", port=closed)
        house.fails(69, "there is no host nowhere.test", smarthost="nowhere.test:587")
        house.fails(69, "does not offer STARTTLS", port=port("plain"))
        house.fails(69, "--tls starttls", tls="implicit")
        house.fails(64, "give --root", root=None)
        house.fails(64, "the line is empty", text="\n")
        house.fails(64, "ended too early", text="")
        assert house.provider.mail() == []


@as_root
def test_sender_refused():
    """A provider that takes only the account's own address: the sender is named, with --sender."""
    with House(strict=True) as house:
        house.fails(69, "refused the sender other@far.test: 553", "--sender", sender="other@far.test")
        code, said = house.run(house.flags())
        assert code == 0, said
        house.check_written()


def answers(house):
    """What a person says, in the order of the questions."""
    return [house.answer, USER, PASSWORD, "", ROOT]


def asking(house):
    """The command line that leaves everything to the dialogue but the authority."""
    return [str(binary()), "--config", str(house.config), "setup", "--ca", str(house.authority.ca)]


@as_root
def test_pipe():
    """Answers come from a pipe as well; where they end too early nothing is written."""
    with House() as house:
        before = house.state()
        for count in range(5):
            code, said = house.run(asking(house), "".join(f"{it}\n" for it in answers(house)[:count]))
            assert code == 64 and "ended too early" in said and house.state() == before, said
        code, said = house.run(asking(house), "".join(f"{it}\n" for it in answers(house)))
        assert code == 0, said
        house.check_written()


# A person on a terminal: the words that are waited for, and what is typed then.
LISTED = "Who takes mail for other hosts?"
UP, ENTER, CTRL_C, CTRL_D = b"\x1b[A", b"\r", b"\x03", b"\x04"
FULL = {"TERM": "xterm", "size": (24, 80)}


@as_root
def test_keys():
    """On a terminal with a screen the provider is taken from a list, a wrong answer is asked for
    again at once, and the password is not shown. After a refused one all that was said is
    proposed again. No colour is used."""
    with House() as house:
        host, user, password, _, root = [it.encode() for it in answers(house)]
        code, shown = typed(house, [
            (LISTED, UP), ("> another server", ENTER),
            ("HOST:PORT:", b"a b" + ENTER), ("is no host", host + ENTER),
            ("Account there", user + ENTER), (f"Password of {USER}", b"wrong horse" + ENTER),
            (f"[{USER}]", ENTER),
            ("root's mail goes:", b"zoe@" + ENTER), ("is no address", root + ENTER),
            ("535", b""), ("[Y/n]", b"y"),
            (f"> {house.answer}", ENTER), (f"[{USER}]", ENTER), ("the one of before", password + ENTER),
            (f"[{USER}]", ENTER), (f"[{ROOT}]", ENTER), ("written:", b"")], **FULL)
        assert code == 0 and "horse" not in shown and PASSWORD not in shown, shown
        assert not re.search(r"\x1b\[[0-9;]*m", shown), shown
        house.check_written()


@as_root
def test_keys_end():
    """Ctrl-C ends it at each kind of question, and no to another try: with nothing written, and
    a terminal that shows what is typed, and its cursor."""
    with House() as house:
        before = house.state()
        to_password = [(LISTED, UP), ("> another", ENTER), ("HOST:PORT", b"127.0.0.1:1" + ENTER),
                       ("Account there", b"x@far.test" + ENTER)]
        to_end = [*to_password, ("Password of", b"sesame" + ENTER), ("comes from", ENTER),
                  ("root's mail", b"z@far.test" + ENTER), ("[Y/n]", b"n")]
        for steps in ([(LISTED, CTRL_C)], [*to_password[:2], ("HOST:PORT", b"a" + CTRL_C)],
                      [*to_password, ("Password of", b"a" + CTRL_C)], [*to_end[:-1], ("[Y/n]", CTRL_C)],
                      to_end):
            code, shown = typed(house, steps, **FULL)
            assert code == 64 and "stopped\r\nNothing was written." in shown, (code, shown)
            assert house.state() == before and "sesame" not in shown, shown


@as_root
def test_signals_end():
    """SIGTERM and SIGHUP end it at a list, at a line and at the password, on any terminal: with nothing
    written, and a terminal that shows what is typed, and its cursor."""
    with House() as house:
        before = house.state()
        keys = [(LISTED, UP), ("> another", ENTER), ("HOST:PORT", b"127.0.0.1:1" + ENTER),
                ("Account there", b"x@far.test" + ENTER)]
        lines = [("or server [none]: ", b"127.0.0.1:1\n"), ("Account", b"x@far.test\n")]
        for ends in (signal.SIGTERM, signal.SIGHUP):
            for steps in ([(LISTED, ends)], [*keys[:2], ("HOST:PORT", ends)],
                          [*keys, ("Password of", ends)]):
                code, shown = typed(house, steps, **FULL)
                assert (code, house.state()) == (-ends, before), (code, shown)
            code, shown = typed(house, [*lines, ("Password", ends)], TERM="dumb", size=(24, 80))
            assert (code, house.state()) == (-ends, before), (code, shown)
            assert "\x1b" not in shown, shown


@as_root
def test_lines_on_a_terminal():
    """A terminal that is dumb, or does not say how large it is, gets lines and no control sequence;
    Ctrl-D ends it."""
    with House() as house:
        host, user, password, _, root = answers(house)
        first = [("or server [none]: ", host), ("Account", user), ("Password", "wrong horse"),
                 (f"[{USER}]: ", ""), ("root's mail goes: ", root), ("said? [yes]: ", ""),
                 (f"[{host}]: ", ""), (f"[{USER}]: ", ""), ("the one of before", password),
                 (f"[{USER}]: ", ""), (f"[{ROOT}]: ", "")]
        lines = [(words, f"{line}\n".encode()) for words, line in first]
        code, shown = typed(house, lines, TERM="vt220", size=(0, 0))
        assert code == 0, shown
        assert "535" in shown and "horse" not in shown and "\x1b" not in shown, shown
        house.check_written()
        before = house.state()
        for steps in ([(": ", CTRL_D)], [(": ", b"\n"), (": ", b"\n"), ("Password", CTRL_D)]):
            code, shown = typed(house, steps, TERM="dumb", size=(24, 80))
            assert code == 64 and "Nothing was written" in shown and house.state() == before, shown
            assert "\x1b" not in shown, shown


def typed(house, steps, TERM, size):
    """Runs the dialogue on a terminal, and types each thing once its words have been shown: the
    exit code, and all that was shown. Then the terminal is as it was."""
    terminal, other = pty.openpty()
    fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("4H", *size, 0, 0))
    before = termios.tcgetattr(other)
    environment = {**house.server.environment(), "TERM": TERM}
    child = subprocess.Popen(asking(house), stdin=other, stdout=other, stderr=other, env=environment,
                             start_new_session=True,
                             preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))
    shown, seen = "", 0
    try:
        for words, keys in steps:
            while (at := shown.find(words, seen)) < 0:
                assert select.select([terminal], [], [], PATIENCE)[0], f"no {words!r} in {shown}"
                shown += os.read(terminal, 4096).decode(errors="replace")
            seen = at + len(words)
            if isinstance(keys, signal.Signals):
                child.send_signal(keys)
            else:
                os.write(terminal, keys)
        code = child.wait(PATIENCE)
    finally:
        child.kill()
        child.wait()
    while select.select([terminal], [], [], 0)[0]:
        shown += os.read(terminal, 4096).decode(errors="replace")
    assert termios.tcgetattr(other) == before, "the terminal is not as it was"
    assert shown.rfind("\x1b[?25h") >= shown.rfind("\x1b[?25l"), "the cursor is hidden"
    os.close(other)
    os.close(terminal)
    return code, shown


# The calls by which files are written, and how they fail.
FAULTS = ["write:error=ENOSPC", "fsync:error=EIO", "fchmod:error=EPERM", "fchown:error=EPERM",
          "rename,renameat,renameat2:error=ENOSPC", "unlink,unlinkat:error=EIO",
          *(f"{calls}:signal=SIGKILL" for calls in
            ("write", "fsync", "rename,renameat,renameat2", "unlink,unlinkat"))]
# No run makes so many of one kind.
MOST_CALLS = 60


def account(house, name):
    """Flags and a password for one account and one root, with nothing tried."""
    flags = house.flags(smarthost=f"mx.{name}.test", user=f"{name}@far.test", sender=f"{name}@far.test",
                        root=f"{name}-root@far.test")
    return [*flags, "--no-test"], f"{name} sesame\n"


def named(house):
    """Whose the configuration is, and what is in the password file that it names."""
    entries = dict(line.split(" = ", 1) for line in house.config.read_text().splitlines()
                   if " = " in line and not line.startswith((";", "#")))
    assert os.path.isabs(entries["password_file"]), entries
    with open(entries["password_file"], encoding="utf-8") as file:
        return entries["user"].partition("@")[0], file.read()


@as_root
def test_each_call_fails():
    """Whatever call fails or is the last one, while another account takes the place of the one
    that is there: the configuration is the old or the new one, with the password that belongs to
    it; the new one finds root's new address; and another run ends with the new one alone."""
    with House() as house:
        (before, old), (after, new) = account(house, "old"), account(house, "new")
        assert house.run(before, old)[0] == 0
        place, kept = house.config.parent, house.dir / "kept"
        aliases = house.dir / "aliases"
        shutil.copytree(place, kept, ignore=lambda _, names: {"spool", "state"} & set(names))
        old_aliases, trace, hits = aliases.read_text(), house.dir / "trace", 0

        def attempt(what):
            for path in [*place.glob("*password*"), *place.glob(".*.new"), house.dir / ".aliases.new"]:
                path.unlink(missing_ok=True)
            for name in ("mailwren.ini", "password"):
                shutil.copy2(kept / name, place / name)
            aliases.write_text(old_aliases)
            code, said = house.run([program("strace"), "-o", trace, "-e", f"inject={what}", *after], new)
            if not any(sign in trace.read_text(errors="replace") for sign in ("(INJECTED)", "SIGKILL")):
                assert code == 0, said
                return False
            owner, password = named(house)
            assert password == f"{owner} sesame\n", (what, owner, password)
            assert owner == "old" or "root: new-root@far.test\n" in aliases.read_text(), what
            if "Nothing was written" in said or f"{house.config}" in said.partition("Not written: ")[2]:
                assert owner == "old", (what, said)
            code, said = house.run(after, new)
            assert code == 0 and named(house) == ("new", new), (what, said)
            assert len(aliases.read_text()) == len(old_aliases), aliases.read_text()
            return True
        for what in FAULTS:
            for when in range(1, MOST_CALLS):
                if not attempt(f"{what}:when={when}"):
                    break
                hits += 1
            else:
                raise AssertionError(f"{what} has no end")
        left = sorted(path.name for path in place.glob("*password*"))
        assert left == ["password2"], left
        print(f"note: {hits} calls failed")
