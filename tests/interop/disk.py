"""Disks that a test may fill, cut off and break: file systems mounted where only the test sees
them, and system calls that fail. The mounts end with the test's last process, and a loop
device with its mount, so that nothing stays whatever happens."""

import contextlib
import fcntl
import os
import signal
import struct
import subprocess
import time
from pathlib import Path

from harness import PATIENCE, program, run, wait_for

# _IOR('X', 125, __u32) and its flag, from the kernel's fs/ext4/ext4.h.
EXT4_IOC_SHUTDOWN = 2 << 30 | 4 << 16 | ord("X") << 8 | 125
EXT4_GOING_FLAGS_NOLOGFLUSH = 2


def own_mounts(test):
    """Marks a test that wants a mount namespace of its own."""
    test.own_mounts = True
    return test


def drain(server):
    """Has the queue tried again and again until it is empty."""
    due = 0

    def is_empty():
        nonlocal due
        if not list((server.spool / "queue").iterdir()):
            return True
        if time.monotonic() > due:
            due = time.monotonic() + 0.1
            server.process.send_signal(signal.SIGUSR1)
        return False
    wait_for("the queue to be empty", is_empty)


def mount(*arguments):
    """Runs mount(8)."""
    run([program("mount"), *arguments])


def unless_busy(what, command):
    """Runs a command as soon as whoever has a file open there has closed it."""
    def is_done():
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
        assert done.returncode == 0 or "busy" in done.stderr, done.stderr
        return done.returncode == 0
    wait_for(what, is_done)


def unmount(path):
    """Unmounts, once the last process that was killed has let go of it."""
    unless_busy(f"{path} to be unmounted", [program("umount"), path])


def make_read_only(path):
    """Makes a mounted file system read-only, once nobody writes to it."""
    unless_busy(f"{path} to be read-only", [program("mount"), "-o", "remount,ro", path])


@contextlib.contextmanager
def tmpfs(path, size):
    """An empty file system in memory at `path`."""
    path.mkdir(exist_ok=True)
    mount("-t", "tmpfs", "-o", f"size={size}", "none", path)
    try:
        yield
    finally:
        unmount(path)


class Ext4:
    """A journaled file system in a file, whose power can be cut."""

    def __init__(self, image, path, mebibytes):
        self.image, self.path = image, path
        with image.open("wb") as file:
            file.truncate(mebibytes << 20)
        run([program("mkfs.ext4"), "-q", "-F", image])
        path.mkdir()

    def mount(self):
        """Mounts it, which replays its journal."""
        try:
            mount("-o", "loop", self.image, self.path)
        except AssertionError as error:
            raise AssertionError(
                "a loop device with ext4 is needed to cut the power of a disk: run this test as "
                f"root on a kernel that has both, not in a container without them\n{error}"
            ) from None

    def cut_power(self):
        """From here on nothing is written any more, not even what is in the journal's memory."""
        folder = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.ioctl(folder, EXT4_IOC_SHUTDOWN, struct.pack("I", EXT4_GOING_FLAGS_NOLOGFLUSH))
        finally:
            os.close(folder)

    def unmount(self):
        """Unmounts it; the loop device goes with it."""
        unmount(self.path)


class Faults(contextlib.AbstractContextManager):
    """A running server whose system calls fail as `what` says, such as
    `fsync:error=EIO:when=2`: the second one of each thread, from now on. `victims` is the name
    of the threads that it is for; without it, it is for all, and those that come yet. At the
    end of the block the server runs on unharmed."""

    def __init__(self, server, what, victims=None):
        process = server.process.pid
        # A thread gives itself its name, which it may not have come to yet.
        threads = wait_for(f"threads called {victims}", lambda: threads_of(process, victims)) \
            if victims else [process]
        self.trace, self.log = server.dir / "trace", str(server.log_path)
        calls = what.partition(":")[0]
        self.process = subprocess.Popen(
            [program("strace"), *([] if victims else ["-f"]), *(f"-p{it}" for it in threads), "-y",
             "-o", str(self.trace), "-e", f"trace={calls}", "-e", f"inject={what}"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        # Only when it says so has it taken them.
        for _ in threads:
            said = self.process.stderr.readline().decode()
            if " attached" in said:
                continue
            # A thread that waited for a session may just have ended, or be about to.
            wait_for(f"the end of the thread to which strace cannot be attached: {said}", lambda: any(
                f"{it})" in said and not Path(f"/proc/{process}/task/{it}").exists()
                for it in threads))

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        self.process.stderr.read()
        self.process.stderr.close()
        self.process.wait(PATIENCE)

    def was_hit(self):
        """Whether a call failed that was not for the log; known when the block has ended."""
        lines = self.trace.read_text(errors="replace").splitlines()
        return any("(INJECTED)" in line and self.log not in line for line in lines)


def thread_names(process):
    """The threads of a process with their names; one that ends while it is asked is none."""
    names = {}
    for thread in Path(f"/proc/{process}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            names[int(thread.name)] = (thread / "comm").read_text().strip()
    return names


def threads_of(process, name):
    """The threads of a process that have this name."""
    return [thread for thread, its_name in thread_names(process).items() if its_name == name]
