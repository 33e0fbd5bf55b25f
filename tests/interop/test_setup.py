"""`mailwren setup` against a real provider, Postfix with Dovecot's accounts: by flags, from a pipe and
on a terminal, and each thing that goes wrong."""

import contextlib
import os
import pty
import pwd
import select
import shutil
import stat
import subprocess
import time

import certs
from harness import PATIENCE, Server, as_root, binary, folder, free_port
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
    server.dir.chmod(0o755)
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
    return [f"{NAME}:{house.provider.port('starttls')}", USER, PASSWORD, "", ROOT]


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


@as_root
def test_terminal():
    """On a terminal the password is not shown; after a wrong one the questions come again; Ctrl-D
    ends it."""
    with House() as house:
        right = answers(house)
        wrong = [*right[:2], "wrong horse", *right[3:]]
        code, shown = typed(house, [*wrong, *right])
        assert code == 0, shown
        assert "Once more, then" in shown and "535" in shown and "horse" not in shown, shown
        house.check_written()
        before = house.state()
        code, shown = typed(house, ["", None])
        assert code == 64 and "Nothing was written" in shown and house.state() == before, shown
        assert f"[{USER}]" in shown, shown


def typed(house, lines):
    """Runs the dialogue on a terminal and types each line when it is asked for, Ctrl-D for None."""
    child, terminal = pty.fork()
    if child == 0:
        command = asking(house)
        os.execve(command[0], command, house.server.environment())
    shown, seen = b"", 0
    lines = list(lines)
    deadline = time.monotonic() + PATIENCE
    while True:
        if lines and shown[seen:].rstrip(b" ").endswith(b":") and shown.endswith(b": "):
            line = lines.pop(0)
            os.write(terminal, b"\x04" if line is None else f"{line}\n".encode())
            seen = len(shown)
        left = deadline - time.monotonic()
        assert left > 0, f"setup waits for something: {shown}"
        if not select.select([terminal], [], [], left)[0]:
            continue
        try:
            octets = os.read(terminal, 4096)
        except OSError:
            # How a terminal says that nobody has it open any more.
            octets = b""
        if not octets:
            break
        shown += octets
    _, status = os.waitpid(child, 0)
    os.close(terminal)
    return os.waitstatus_to_exitcode(status), shown.decode(errors="replace")
