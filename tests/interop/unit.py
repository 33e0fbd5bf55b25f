"""`unit.py UNIT COMMAND…` runs a command as systemd runs ExecStart= of a service, as far as a program
without systemd can: the account, the capabilities, the folders, the view of the file system, and the
system calls, of which systemd-analyze says what each group holds. To be run as root in a mount
namespace. A line of the unit that is neither done here nor known to be of no matter ends it, so that
none that matters is forgotten."""

import ctypes
import errno
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

ALLOW, EPERM = 0x7FFF0000, 0x00050000 | errno.EPERM
NOT_EQUAL, EQUAL, MASKED_EQUAL = 1, 4, 7
PROT_WRITE, PROT_EXEC = 2, 4
FAMILIES = {"AF_UNIX": 1, "AF_INET": 2, "AF_INET6": 10, "AF_NETLINK": 16}
# From the kernel's CLONE_NEW….
NAMESPACES = (0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000)
# What is for systemd itself, what the house lacks anyway, and what other lines here forbid already.
OF_NO_MATTER = {
    "Type", "NotifyAccess", "ExecStart", "ExecReload", "Restart", "RestartSec", "TimeoutStartSec",
    "TimeoutStopSec", "WatchdogSec", "FileDescriptorStoreMax", "RuntimeDirectoryPreserve", "RemoveIPC",
    "LimitNOFILE", "LimitCORE", "PrivateDevices", "PrivateMounts", "ProtectClock", "ProtectHostname",
    "ProtectControlGroups", "ProtectKernelLogs", "ProtectKernelModules", "RestrictRealtime",
    "LockPersonality", "SystemCallArchitectures", "SystemCallErrorNumber",
}


class Compare(ctypes.Structure):
    """struct scmp_arg_cmp."""

    _fields_ = [("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64),
                ("b", ctypes.c_uint64)]


class Filter:
    """A filter of system calls by libseccomp, for this process and what it becomes."""

    def __init__(self, default):
        self.library = ctypes.CDLL("libseccomp.so.2")
        self.library.seccomp_init.restype = ctypes.c_void_p
        self.context = ctypes.c_void_p(self.library.seccomp_init(default))

    def rule(self, action, name, *compares):
        """What becomes of a system call; of one that this architecture lacks nothing."""
        number = self.library.seccomp_syscall_resolve_name(name.encode())
        if number < 0:
            return
        array = (Compare * max(1, len(compares)))(*(Compare(*it) for it in compares))
        result = self.library.seccomp_rule_add_array(self.context, action, number, len(compares), array)
        assert result == 0, f"{name}: {os.strerror(-result)}"

    def load(self):
        """Has it count from here on."""
        result = self.library.seccomp_load(self.context)
        assert result == 0, os.strerror(-result)


def settings(unit):
    """The lines of [Service], in order."""
    lines, section = [], None
    for line in unit.read_text().splitlines():
        if line.startswith("["):
            section = line
        elif section == "[Service]" and "=" in line and not line.startswith("#"):
            name, _, value = line.partition("=")
            lines.append((name, value))
    return lines


def group(name):
    """The system calls of a group, those of groups in it included."""
    text = subprocess.run(["systemd-analyze", "syscall-filter", "--no-pager", name],
                          capture_output=True, text=True, check=True).stdout
    calls = set()
    for word in (line.strip() for line in text.splitlines()[1:]):
        if word.startswith("@"):
            calls |= group(word)
        elif word and not word.startswith("#"):
            calls.add(word)
    return calls


def system_calls(values):
    """What SystemCallFilter= lines leave, in order."""
    allowed = group("@default")
    for value in values:
        calls = set()
        for word in value.removeprefix("~").split():
            calls |= group(word) if word.startswith("@") else {word}
        allowed = allowed - calls if value.startswith("~") else allowed | calls
    return allowed


def mount(*arguments):
    """Runs mount(8)."""
    subprocess.run(["mount", *map(str, arguments)], check=True)


def confine_files(known):
    """ProtectSystem=strict with its exceptions, and the other views of the file system."""
    owner = known["User"][-1]
    mount("--make-rprivate", "/")
    writable = [Path(word.removeprefix("-")) for value in known["ReadWritePaths"]
                for word in value.split()]
    for name, above in (("RuntimeDirectory", "/run"), ("StateDirectory", "/var/lib")):
        path = Path(above) / known[name][-1]
        path.mkdir(exist_ok=True)
        shutil.chown(path, owner, known["Group"][-1])
        path.chmod(int(known[f"{name}Mode"][-1], 8))
        writable.append(path)
    assert known["ProtectSystem"] == ["strict"] and known["PrivateTmp"] == ["yes"]
    before = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for path in writable:
        if path.is_dir():
            mount("--bind", path, path)
    for point in before:
        is_special = point.split("/")[1] in ("dev", "proc", "sys")
        if not is_special and not any(str(it) == point for it in writable):
            mount("-o", "remount,bind,ro", point)
    for path in ("/tmp", "/var/tmp"):
        mount("-t", "tmpfs", "-o", "mode=1777", "none", path)
    assert known["ProtectProc"] == ["invisible"] and known["ProtectKernelTunables"] == ["yes"]
    mount("-t", "proc", "-o", "hidepid=invisible", "none", "/proc")
    mount("--bind", "/proc/sys", "/proc/sys")
    mount("-o", "remount,bind,ro", "/proc/sys")


def confine_calls(known):
    """The filters of system calls."""
    others = Filter(ALLOW)
    families = known["RestrictAddressFamilies"][-1].split()
    for family in set(range(46)) - {FAMILIES[name] for name in families}:
        others.rule(EPERM, "socket", (0, EQUAL, family, 0))
    assert known["MemoryDenyWriteExecute"] == ["yes"]
    both = PROT_WRITE | PROT_EXEC
    others.rule(EPERM, "mmap", (2, MASKED_EQUAL, both, both))
    for name in ("mprotect", "pkey_mprotect"):
        others.rule(EPERM, name, (2, MASKED_EQUAL, PROT_EXEC, PROT_EXEC))
    assert known["RestrictSUIDSGID"] == ["yes"]
    for name, at in (("chmod", 1), ("fchmod", 1), ("fchmodat", 2), ("mkdir", 1), ("mkdirat", 2)):
        for bit in (stat.S_ISUID, stat.S_ISGID):
            others.rule(EPERM, name, (at, MASKED_EQUAL, bit, bit))
    assert known["RestrictNamespaces"] == ["yes"]
    for flag in NAMESPACES:
        others.rule(EPERM, "clone", (0, MASKED_EQUAL, flag, flag))
    others.load()
    allowed = Filter(EPERM)
    for name in sorted(system_calls(known["SystemCallFilter"])):
        allowed.rule(ALLOW, name)
    allowed.load()


def main(unit, *command):
    """Becomes the command, under the rules of the unit."""
    known = {}
    for name, value in settings(Path(unit)):
        known.setdefault(name, []).append(value)
    done = {"User", "Group", "StateDirectory", "StateDirectoryMode", "RuntimeDirectory",
            "RuntimeDirectoryMode", "UMask", "AmbientCapabilities", "CapabilityBoundingSet",
            "NoNewPrivileges", "RestrictSUIDSGID", "ProtectSystem", "ReadWritePaths", "PrivateTmp",
            "ProtectKernelTunables", "ProtectProc", "RestrictAddressFamilies", "RestrictNamespaces",
            "MemoryDenyWriteExecute", "SystemCallFilter"}
    forgotten = set(known) - OF_NO_MATTER - done
    assert not forgotten, f"what does a server under {forgotten} still do?"
    confine_files(known)
    os.umask(int(known["UMask"][-1], 8))
    assert known["NoNewPrivileges"] == ["yes"]

    def capabilities(name):
        return ",".join(["-all", *("+" + it.lower().removeprefix("cap_")
                                   for it in known[name][-1].split())])
    ambient = capabilities("AmbientCapabilities")
    arguments = [
        "setpriv", "--reuid", known["User"][-1], "--regid", known["Group"][-1], "--init-groups",
        "--inh-caps", ambient, "--ambient-caps", ambient, "--bounding-set",
        capabilities("CapabilityBoundingSet"), "--no-new-privs", *command]
    # As systemd, which does it last; what follows is allowed to every service.
    confine_calls(known)
    os.execvp(arguments[0], arguments)


if __name__ == "__main__":
    main(*sys.argv[1:])
