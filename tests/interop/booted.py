"""A Debian of a test's own (debian.py) that is booted: systemd is its process 1, and starts what is
installed in it. To it the system is a container, of which nobody outside hears anything: processes,
mounts, host name and network are its own, and so are a cgroup and a view of it. It gets none of the
capabilities that are about the machine."""

import subprocess
from pathlib import Path

from debian import Debian
from disk import mount
from harness import PATIENCE, program, run, wait_for
from host import PATH

# Of the clock, of modules, devices and logs of the kernel: there is but one of each.
NOT_OURS = ("sys_time", "sys_module", "sys_rawio", "sys_boot", "sys_pacct", "syslog", "wake_alarm",
            "mac_admin", "mac_override", "audit_control", "audit_read")

# Whoever has /mnt for itself has all cgroups there; $0 is one of them.
IN_CGROUP = """
set -e
mount --make-rprivate /
mount -t cgroup2 none /mnt
cd "/mnt/$0"
"""
BECOME = IN_CGROUP + """
mkdir "$1"
echo 0 >"$1/cgroup.procs"
cd /
umount /mnt
shift
exec "$@"
"""
LEAVE = IN_CGROUP + 'find "$1" -depth -type d -exec rmdir {} +'

# Run in the new namespaces; the root of the Debian is $0. What it mounts is not seen outside.
BOOT = """
set -e
cd "$0"
mount --make-rprivate /
mount -t proc none proc
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
mount -t sysfs -o ro none sys
mount -t cgroup2 none sys/fs/cgroup
pivot_root . mnt
umount --lazy /mnt
exec chroot . env -i container=mailwren-test PATH="$PATH" "$@" </dev/null >/dev/null 2>&1
"""


class Booted(Debian):
    """The system, with `layer`, up and idle. Commands are run in it, by its root or a user."""

    def __init__(self, layer="systemd"):
        super().__init__(layer)
        # Nobody keeps packages from starting what they bring.
        self.path("/usr/sbin/policy-rc.d").unlink()
        # The one of this test's processes, by which namespaces are found.
        mount("-t", "proc", "none", "/proc")
        self.first, self.init = None, None
        above = next(line[3:] for line in Path("/proc/self/cgroup").read_text().splitlines()
                     if line.startswith("0::"))
        self.cgroup = [above.lstrip("/"), f"mailwren-test-{self.dir.name}"]

    def __enter__(self):
        # It goes into a cgroup of its own, and then takes that for the root of all.
        unshare = [program("unshare"), "--mount"]
        command = [*unshare, "sh", "-c", BECOME, *self.cgroup,
                   *unshare, "--pid", "--fork", "--kill-child", "--cgroup", "--ipc", "--uts",
                   "sh", "-c", BOOT, self.root,
                   "setpriv", "--bounding-set", ",".join(f"-{name}" for name in NOT_OURS),
                   "/usr/lib/systemd/systemd", "--system"]
        self.first = subprocess.Popen(
            list(map(str, command)), stdin=subprocess.DEVNULL, stdout=(self.dir / "log").open("ab"),
            stderr=subprocess.STDOUT, env={"PATH": PATH})
        try:
            wait_for("systemd", self.is_up)
        except BaseException:
            self.__exit__()
            raise
        return self

    def is_up(self):
        """Whether everything has started that starts at a boot."""
        assert self.first.poll() is None, \
            f"systemd did not begin, which takes root and a kernel with cgroup2:\n{self.log()}"
        children = Path(f"/proc/{self.first.pid}/task/{self.first.pid}/children").read_text().split()
        if not children or Path(f"/proc/{children[0]}/comm").read_text() != "systemd\n":
            return False
        self.init = int(children[0])
        state = subprocess.run([*self.inside(), "systemctl", "is-system-running"],
                               capture_output=True, text=True, check=False).stdout.strip()
        assert state not in ("degraded", "maintenance"), self.journal("--priority=warning")
        return state == "running"

    def inside(self, user=None):
        """What runs a command in it."""
        become = ["chroot", "--userspec", f"{user}:{user}", "/"] if user else []
        return [program("nsenter"), f"--target={self.init}", "--mount", "--pid", "--cgroup", "--ipc",
                "--uts", "--root", "--wd", *become]

    def __exit__(self, *reason):
        self.cut()
        super().__exit__(*reason)

    def cut(self):
        """Ends all of it at once, as a power cut does."""
        self.first.kill()
        self.first.wait(PATIENCE)
        wait_for("the end of its processes", self.is_gone)

    def boot_again(self):
        """Cuts the power and boots what is on its disk; /run is empty then."""
        self.cut()
        run([program("umount"), "--recursive", self.path("/run")])
        mount("-t", "tmpfs", "-o", "mode=0755", "none", self.path("/run"))
        self.__enter__()

    def is_gone(self):
        """Whether no process is left in its cgroup, which is then removed."""
        command = [program("unshare"), "--mount", "sh", "-c", LEAVE, *self.cgroup]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    def dpkg(self, *arguments):
        """Runs dpkg, which is done sooner than apt, on a package whose dependencies are there."""
        return self.run(["dpkg", "--force-unsafe-io", *arguments])

    def systemctl(self, *arguments, expect=0):
        """Runs systemctl, and returns what it said."""
        return self.run(["systemctl", "--no-pager", *arguments], expect)

    def unit(self, field, unit="mailwren.service"):
        """A property of a unit, as systemd has it now."""
        return self.systemctl("show", "--value", f"--property={field}", unit).strip()

    def drop_in(self, unit, text):
        """Lays other settings over a unit, as `systemctl edit` does."""
        folder = self.path(f"/etc/systemd/system/{unit}.d")
        folder.mkdir()
        (folder / "test.conf").write_text(text)
        self.systemctl("daemon-reload")

    def journal(self, *arguments):
        """What the server's unit has told the journal, or what the arguments ask for."""
        arguments = arguments or ("--unit=mailwren.service", "--output=cat")
        return self.run(["journalctl", "--no-pager", "--quiet", *arguments])

    def wait_journal(self, words, before=""):
        """Waits for words behind what was in the journal before."""
        return wait_for(f"{words!r} in the journal",
                        lambda: words in (said := self.journal())[len(before):] and said)
