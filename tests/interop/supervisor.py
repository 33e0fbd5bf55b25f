"""A stand-in for systemd that keeps to its protocol and no more: it hears how a server says it is
(sd_notify(3)), keeps sockets that it is given, and hands them and its own over at each start
(sd_listen_fds(3)). `supervisor.py N NAMES COMMAND…` is the last step of a start: the descriptors
from 3 on are the server's own."""

import array
import contextlib
import os
import socket
import struct
import sys
from pathlib import Path

if __name__ == "__main__":
    count, names, command = int(sys.argv[1]), sys.argv[2], sys.argv[3:]
    os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(count), LISTEN_FDNAMES=names)
    if "WATCHDOG_USEC" in os.environ:
        os.environ["WATCHDOG_PID"] = str(os.getpid())
    for descriptor in range(3, 3 + count):
        with contextlib.suppress(OSError):
            os.set_inheritable(descriptor, True)
    os.execvp(command[0], command)

import subprocess  # noqa: E402

from harness import Server, binary, wait_for  # noqa: E402


# From the kernel's asm-generic/socket.h: the ancillary data have the moment at which it was sent.
SO_TIMESTAMP = 29


class Word:
    """What a server has said at once, and when, in seconds of the wall clock."""

    def __init__(self, text, at):
        self.at = at
        self.fields = dict(line.split("=", 1) for line in text.splitlines())

    def __contains__(self, line):
        name, _, value = line.partition("=")
        return self.fields.get(name) == value

    def __repr__(self):
        return repr(self.fields)


class Supervised(Server):
    """A server that is started by the stand-in. `held` are its own sockets: a map from the name of
    the unit's descriptor to functions of the server that give listening sockets, made before the
    first start. What the server has kept, and not forgotten, is in `kept`, by name. So many more as
    `missing` says are announced, and not there."""

    def __init__(self, *arguments, held=None, watchdog=None, abstract=False, keeps=False, missing=0,
                 **options):
        super().__init__(*arguments, **options)
        self.held, self.watchdog, self.keeps, self.missing = held or {}, watchdog, keeps, missing
        self.sockets, self.kept, self.words = None, {}, []
        self.ear = self.stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        path = self.dir / "notify"
        self.notify = f"@{path}" if abstract else str(path)
        self.ear.bind(f"\0{path}" if abstract else str(path))
        self.ear.setblocking(False)
        self.ear.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMP, 1)

    def start(self):
        """Starts the program with what it is handed, and waits until it says that it is ready."""
        self.make_folders()
        if self.sockets is None:
            made = [(name, make(self)) for name, makers in self.held.items() for make in makers]
            self.sockets = made
            for _, held in made:
                self.stack.enter_context(held)
        handed = [*self.sockets, *self.kept.items()]
        environment = {**self.environment(), "NOTIFY_SOCKET": self.notify}
        if self.watchdog:
            environment["WATCHDOG_USEC"] = str(int(self.watchdog * 1e6))
        command = [*self.wrapper, str(binary()), "serve", "--config", str(self.config_path)]
        launcher = [sys.executable, str(Path(__file__).resolve()),
                    str(len(handed) + self.missing),
                    ":".join(name for name, _ in handed)]
        begin = len(self.words)
        with self.log_path.open("ab") as log:
            self.process = spawn_with([held.fileno() for _, held in handed], [*launcher, *command],
                                      stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                      env=environment, cwd=self.dir)
        self.wait_word("READY=1", begin)

    def hear(self):
        """All that was said so far."""
        while True:
            try:
                text, ancillary, _, _ = self.ear.recvmsg(4096, 256)
            except BlockingIOError:
                return self.words
            parts = {kind: data for _, kind, data in ancillary}
            sockets = array.array("i", parts.get(socket.SCM_RIGHTS, b""))
            seconds, microseconds = struct.unpack("ll", parts[SO_TIMESTAMP])
            word = Word(text.decode(), seconds + microseconds / 1e6)
            self.words.append(word)
            name = word.fields.get("FDNAME")
            if "FDSTORE=1" in word:
                for number in sockets:
                    found = socket.socket(fileno=number)
                    if self.keeps:
                        self.kept[name] = self.stack.enter_context(found)
                    else:
                        found.close()
            if "FDSTOREREMOVE=1" in word:
                self.kept.pop(name).close()

    def wait_word(self, line, begin=0):
        """Waits until a line was said, behind the first `begin` words, and returns its word."""
        def said():
            assert self.process.poll() is None or line.startswith("STOPPING"), \
                f"the server ended with {self.process.returncode}:\n{self.log()}"
            return next((word for word in self.hear()[begin:] if line in word), None)
        return wait_for(line, said)


def spawn_with(descriptors, command, **options):
    """Starts a command whose descriptors from 3 on are these."""
    def arrange():
        # First out of the way, then in order: a number may be another one's place.
        free = [os.dup2(it, 200 + at, inheritable=True) for at, it in enumerate(descriptors)]
        for at, number in enumerate(free):
            os.dup2(number, 3 + at, inheritable=True)
        os.closerange(200, 200 + len(free))
    return subprocess.Popen(command, preexec_fn=arrange, close_fds=False, **options)


def tcp(port=None):
    """Makes a listening socket for `port` of loopback, or for what `port` says of the server."""
    def make(server):
        number = port(server) if callable(port) else server.port if port is None else port
        held = socket.socket()
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind((server.host, number))
        held.listen(1024)
        return held
    return make


def unix(name="submit.sock"):
    """Makes a listening Unix socket in the server's folder, as a socket unit does."""
    def make(server):
        held = socket.socket(socket.AF_UNIX)
        held.bind(str(server.dir / name))
        held.listen(1024)
        (server.dir / name).chmod(0o666)
        return held
    return make
