"""What the tests share: a mailwren of their own in a folder of its own, and a client that
speaks SMTP byte by byte. Standard library only."""

import contextlib
import fcntl
import os
import pwd
import random
import re
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ROOT / "target/test-tools"
# Anything that a test waits for has come by then, on a slow and busy machine too.
PATIENCE = 60.0


def binary():
    """The program under test."""
    path = Path(os.environ.get("MAILWREN_BIN", ROOT / "target/release/mailwren")).resolve()
    if not os.access(path, os.X_OK):
        raise SystemExit(f"{path} is missing: run `make build` first")
    return path


def emulated(command):
    """A command that the program under test has printed. One for another machine, which a script
    starts in an emulator (tests/cross/test), names itself there, and cannot run by itself."""
    inside = os.environ.get("MAILWREN_EMULATED")
    return command.replace(inside, str(binary())) if inside else command


def program(name):
    """Where a program from a Debian package is; one that is missing fails the test."""
    found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if not found:
        raise AssertionError(f"{name} is not installed: run `tests/interop/install-tools test`")
    return found


def postfix_tool(name, *arguments):
    """The command line of one of postfix's tools, and its environment."""
    path = TOOLS / "usr/sbin" / name
    if not path.exists():
        raise AssertionError(f"{path} is missing: run `tests/interop/install-tools test`")
    libraries = str(TOOLS / "usr/lib/postfix")
    return [str(path), *map(str, arguments)], {**os.environ, "LD_LIBRARY_PATH": libraries}


def smtp_source(port, *arguments):
    """Runs smtp-source against `port` until it has sent everything."""
    command, environment = postfix_tool("smtp-source", *arguments, f"127.0.0.1:{port}")
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, f"smtp-source: {done.returncode} {done.stderr}"


def run(command, expect=0, **options):
    """Runs a command and returns what it printed; another exit code fails the test."""
    options.setdefault("timeout", 2 * PATIENCE)
    done = subprocess.run(list(map(str, command)), capture_output=True, **options)
    output = (done.stdout + done.stderr).decode(errors="replace") \
        if isinstance(done.stdout, bytes) else done.stdout + done.stderr
    assert done.returncode == expect, \
        f"{command} ended with {done.returncode}, not {expect}:\n{output}"
    return output


def wait_for(what, condition, deadline=PATIENCE):
    """Waits until `condition()` is true, and returns its value."""
    end = time.monotonic() + deadline
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"after {deadline:.0f} s still waiting for {what}")
        time.sleep(0.02)


def within(seconds, action, tries=5):
    """What `action()` gives, and the seconds that it took: fewer than `seconds`, but for tries in
    which this machine was busy with something else."""
    times = []
    for _ in range(tries):
        begin = time.monotonic()
        value = action()
        times.append(time.monotonic() - begin)
        if times[-1] < seconds:
            return value, times[-1]
    raise AssertionError(f"it took {min(times):.1f} s at the least, not {seconds} s: {times}")


def free_port(host="127.0.0.1"):
    """A port that nobody listens on, below those that the kernel gives to outgoing
    connections, so that none of those takes it before it is used."""
    while True:
        port = random.randint(10000, 32000)
        with socket.socket() as probe:
            with contextlib.suppress(OSError):
                probe.bind((host, port))
                return port


@contextlib.contextmanager
def folder():
    """A temporary folder, with a short name because a Unix socket's path is bounded."""
    with tempfile.TemporaryDirectory(prefix="mw-", dir="/tmp") as path:
        yield Path(path)


def smarthost(port):
    """The `[smarthost]` that a peer on this machine is."""
    return {"host": f"127.0.0.1:{port}", "tls": "none"}


def laid_over(sections, overrides):
    """A configuration with other values; None removes a key or a whole section."""
    for section, keys in overrides.items():
        if keys is None:
            sections.pop(section, None)
            continue
        known = sections.setdefault(section, {})
        known.update(keys)
        for key in [key for key, value in keys.items() if value is None]:
            del known[key]
    return sections


class Server(contextlib.AbstractContextManager):
    """A mailwren with a configuration, a spool and mailboxes of its own.

    `settings` maps a section to its keys and is laid over the defaults below; None removes a
    key or a whole section. The end of the `with` block stops it with SIGTERM, and fails the
    test unless it ended with 0 and nothing panicked."""

    def __init__(self, settings=None, wrapper=()):
        self.stack = contextlib.ExitStack()
        self.dir = self.stack.enter_context(folder())
        self.overrides = settings or {}
        self.wrapper = list(map(str, wrapper))
        self.host, self.port = "127.0.0.1", 0
        self.process = None
        self.log_path = self.dir / "log"
        self.config_path = self.dir / "mailwren.ini"
        self.spool = self.dir / "spool"
        self.mail = self.dir / "mail"
        self.mail.mkdir()

    def __enter__(self):
        for attempt in range(3):
            self.port = free_port(self.host)
            self.write_config()
            try:
                self.start()
                return self
            except AssertionError as error:
                # Somebody may have taken the port since it was found free.
                if attempt == 2 or "in use" not in str(error):
                    self.stack.close()
                    raise
        raise AssertionError("unreachable")

    def __exit__(self, kind, error, trace):
        try:
            if kind is None:
                self.stop()
            else:
                self.kill()
                print(f"--- the server's log\n{self.log()[-6000:]}")
        finally:
            self.stack.close()

    def settings(self):
        """The configuration as a map of maps."""
        sections = {
            "server": {
                "hostname": "mx.test",
                "domains": "mx.test, localhost",
                "user": pwd.getpwuid(os.geteuid()).pw_name,
                "spool": self.spool,
                "state": self.dir / "state",
                "socket": self.dir / "submit.sock",
                "min_free_space": "1M",
            },
            "listen.smtp": {"address": f"{self.host}:{self.port}", "protocol": "smtp"},
            "relay": {"networks": "127.0.0.0/8"},
            "local": {
                "format": "maildir",
                "path": self.mail / "{user}",
                "users": "any",
                "aliases": "",
            },
            "queue": {"retry": "1s"},
            # Nothing answers there: no test asks the world outside.
            "dns": {"servers": "127.0.0.1:9"},
            "log": {"level": "info"},
        }
        return laid_over(sections, self.overrides)

    def write_config(self):
        """Writes the configuration file."""
        lines = []
        for section, keys in self.settings().items():
            lines.append(f"[{section}]")
            lines += [f"{key} = {value}" for key, value in keys.items()]
        self.config_path.write_text("\n".join(lines).replace("DIR/", f"{self.dir}/") + "\n")

    def environment(self):
        """What a command of this server needs to find its configuration."""
        return {**os.environ, "MAILWREN_CONFIG": str(self.config_path), "RUST_BACKTRACE": "1"}

    def start(self):
        """Starts the program and waits for its greeting."""
        self.make_folders()
        command = [*self.wrapper, str(binary()), "serve", "--config", str(self.config_path)]
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env=self.environment(), cwd=self.dir)
        wait_for("the greeting", self.greets)

    def make_folders(self):
        """Makes what must be there before the start."""
        for path in (self.spool, self.dir / "state"):
            path.mkdir(exist_ok=True)

    def greets(self):
        """Whether the server is there yet."""
        if self.process.poll() is not None:
            raise AssertionError(f"the server ended with {self.process.returncode}:\n{self.log()}")
        with contextlib.suppress(OSError), self.client() as client:
            return client.reply().code in (220, 421)
        return False

    def kill(self):
        """Ends it as a power cut would."""
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait(PATIENCE)

    def stop(self):
        """Ends it in an orderly way, and checks that it did not suffer."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self.kill()
                raise AssertionError(f"SIGTERM did not stop it:\n{self.log()[-4000:]}") from None
        log = self.log()
        assert self.process.returncode == 0, \
            f"the server ended with {self.process.returncode}:\n{log[-4000:]}"
        assert "panicked" not in log, log[-4000:]

    def linked(self, name="sendmail"):
        """The program under another name, as packages install it."""
        link = self.dir / name
        with contextlib.suppress(FileExistsError):
            link.symlink_to(binary())
        return link

    def command(self, *arguments, expect=0):
        """What a command of the program prints about this server."""
        return run([binary(), *arguments], expect, env=self.environment(), text=True)

    def log(self):
        """What it has logged so far."""
        return self.log_path.read_bytes().decode(errors="backslashreplace") \
            if self.log_path.exists() else ""

    def wait_log(self, pattern):
        """Waits for a log line that matches the regular expression."""
        return wait_for(f"{pattern!r} in the log", lambda: re.search(pattern, self.log()))

    def client(self, source=None):
        """A new connection; its greeting is not read yet."""
        return Client(self.host, self.port, source)

    def session(self, source=None):
        """A new connection, greeted, EHLO said."""
        client = self.client(source)
        client.expect(220)
        client.command("EHLO client.test", 250)
        return client

    def deliver(self, recipient="ann@mx.test", content=b"Subject: hello\r\n\r\nhello\r\n",
                sender="bob@client.test"):
        """Sends one message that must be accepted."""
        with self.session() as client:
            client.send_message(sender, [recipient], content)
            client.command("QUIT", 221)

    def new_mail(self, user="ann"):
        """The files of a Maildir, oldest first."""
        return sorted((self.mail / user / "new").glob("*"), key=lambda f: f.stat().st_mtime_ns)

    def wait_mail(self, user="ann", count=1):
        """Waits until a Maildir has that many messages, not more, and returns their octets."""
        wait_for(f"{count} messages for {user}", lambda: len(self.new_mail(user)) >= count)
        files = self.new_mail(user)
        assert len(files) == count, f"{len(files)} messages for {user}, not {count}"
        return [file.read_bytes() for file in files]

    def queue(self):
        """What the spool holds: every file, finished or not."""
        return [f for f in self.spool.rglob("*") if f.is_file() and f.name not in ("lock", "clock")]

    def wait_queue(self, count=0):
        """Waits until `count` messages are in the queue; with 0, until the spool is empty."""
        def as_wanted():
            files = self.queue()
            return sum(f.parent.name == "queue" for f in files) == count and (count or not files)
        wait_for(f"{count} messages in the queue", as_wanted)

    def memory(self, field):
        """A line of /proc/PID/status or of smaps_rollup, in octets."""
        file = "smaps_rollup" if field in ("Pss", "Anonymous") else "status"
        text = Path(f"/proc/{self.process.pid}/{file}").read_text()
        return int(re.search(rf"^{field}:\s+(\d+) kB", text, re.M)[1]) * 1024


class Reply:
    """A reply of a server: its code and its lines without it."""

    def __init__(self, code, lines):
        self.code, self.lines = code, lines
        self.text = "\n".join(lines)

    @property
    def status(self):
        """The enhanced status code of its first line, or ''."""
        found = re.match(r"([245]\.\d{1,3}\.\d{1,3})(?: |$)", self.lines[0])
        return found[1] if found else ""

    def __repr__(self):
        return f"{self.code} {self.text!r}"


class Closed(Exception):
    """The server closed the connection."""


class Client(contextlib.AbstractContextManager):
    """One connection: octets out, replies in. Without a port, `host` is a Unix socket."""

    def __init__(self, host, port=None, source=None):
        self.buffer = b""
        if port is None:
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.settimeout(PATIENCE)
            self.socket.connect(str(host))
            return
        bind = (source, 0) if source else None
        self.socket = socket.create_connection((host, port), timeout=PATIENCE, source_address=bind)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __exit__(self, *_):
        self.socket.close()

    def abort(self):
        """Closes with a reset instead of an orderly end."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def send(self, octets):
        """Sends octets in one segment."""
        self.socket.sendall(octets)

    def drip(self, octets):
        """Sends each octet in a segment of its own."""
        for octet in octets:
            self.socket.sendall(bytes([octet]))

    def line(self):
        """One line that the server sent."""
        while b"\n" not in self.buffer:
            try:
                more = self.socket.recv(65536)
            except ConnectionResetError:
                more = b""
            if not more:
                raise Closed(self.buffer)
            self.buffer += more
        line, _, self.buffer = self.buffer.partition(b"\n")
        assert line.endswith(b"\r") and b"\r" not in line[:-1], line
        return line[:-1].decode("ascii")

    def reply(self):
        """One reply, all its lines."""
        lines = []
        while True:
            line = self.line()
            assert re.fullmatch(r"[2345]\d\d(?:[ -].*)?", line), f"not a reply: {line!r}"
            lines.append(line[4:])
            if line[3:4] != "-":
                return Reply(int(line[:3]), lines)

    def expect(self, *codes):
        """One reply, which has one of the codes."""
        reply = self.reply()
        assert reply.code in codes, f"{reply}, not {codes}"
        return reply

    def command(self, line, *codes):
        """Sends a line; returns the reply, which has one of the codes where some are given."""
        self.send(line if isinstance(line, bytes) else line.encode() + b"\r\n")
        reply = self.reply()
        assert not codes or reply.code in codes, f"{line!r} got {reply}, not {codes}"
        return reply

    def envelope(self, sender, recipients):
        """MAIL and RCPT, all accepted."""
        self.command(f"MAIL FROM:<{sender}>", 250)
        for recipient in recipients:
            self.command(f"RCPT TO:<{recipient}>", 250)

    def send_message(self, sender, recipients, content):
        """A whole transaction, accepted; `content` is CRLF-ended and needs no dot-stuffing."""
        self.envelope(sender, recipients)
        self.command("DATA", 354)
        return self.command(content + b".\r\n", 250)

    def is_closed(self, deadline=PATIENCE):
        """Reads until the server closes; what it still said is in `buffer`."""
        self.socket.settimeout(deadline)
        try:
            while more := self.socket.recv(65536):
                self.buffer += more
        except TimeoutError:
            return False
        except ConnectionResetError:
            pass
        return True


def own_network(test):
    """Marks a test that wants a network namespace of its own, and so every port of it."""
    test.own_network = True
    return test


def loopback(number):
    """An address of loopback that is this process' own, or nearly so."""
    return f"127.{1 + os.getpid() % 250}.{1 + os.getpid() // 250 % 250}.{number}"


def network_prefix():
    """What runs a command in a network namespace of its own. Where the kernel allows none,
    root may use the privileged ports of loopback as they are."""
    for prefix in (["unshare", "--map-root-user", "--net"], ["unshare", "--net"]):
        if subprocess.run([*prefix, "true"], capture_output=True).returncode == 0:
            return prefix
    if os.geteuid() == 0:
        return []
    raise AssertionError("no network namespace, and no root either: port 25 is out of reach")


def as_root(test):
    """Marks a test whose programs change to accounts of their own, as Postfix does."""
    test.as_root = True
    return test


def root_prefix():
    """What runs a command as root: a user namespace that has accounts of its own."""
    if os.geteuid() == 0:
        return []
    prefix = ["unshare", "--map-root-user", "--map-auto"]
    if subprocess.run([*prefix, "true"], capture_output=True).returncode == 0:
        return prefix
    raise AssertionError("no root, and no accounts for a user namespace: install uidmap, and "
                         "give this account lines in /etc/subuid and /etc/subgid")


def mount_prefix():
    """What runs a command in a mount namespace of its own."""
    for prefix in (["unshare", "--mount"], ["unshare", "--map-root-user", "--mount"]):
        if subprocess.run([*prefix, "true"], capture_output=True).returncode == 0:
            return prefix
    raise AssertionError("no mount namespace: run this as root, or allow user namespaces")


def loopback_up():
    """Brings up `lo` in a new network namespace."""
    siocgifflags, siocsifflags, iff_up = 0x8913, 0x8914, 1
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("16sh22x", b"lo", 0)
        _, flags = struct.unpack("16sh22x", fcntl.ioctl(control, siocgifflags, request))
        if flags & iff_up:
            return
        fcntl.ioctl(control, siocsifflags, struct.pack("16sh22x", b"lo", flags | iff_up))
