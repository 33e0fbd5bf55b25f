"""The scripts for hosts without systemd (etc/init/), each by the init system that it is for: sysvinit's
way for real, OpenRC for real from its package, OpenWrt's procd by functions that note what they are
asked for."""

import contextlib
import os
import re
import shutil
import signal
from pathlib import Path

from harness import ROOT, TOOLS, program, run, wait_for
from host import PATH, Host, own_house

INIT = ROOT / "etc/init"
PID, LOG = Path("/run/mailwren.pid"), Path("/var/log/mailwren.log")


def test_syntax():
    """The scripts are sh's, as dash reads it."""
    for script in INIT.iterdir():
        run([program("dash"), "-n", script])
        assert os.access(script, os.X_OK), script


def under_init():
    """Leaves process 1 to reap what has lost its parent, as any host's does: scripts wait for it."""
    child = os.fork()
    while child:
        ended, status = os.wait()
        if ended == child:
            os._exit(1 if status else 0)


class Scripted(Host):
    """The house's mailwren, started by a script; `calls` is how a script is called."""

    def __init__(self, script, calls=(), settings=None):
        super().__init__(settings)
        self.path, self.calls = Path("/etc/init.d/mailwren"), list(calls)
        self.path.parent.mkdir(exist_ok=True)
        shutil.copy(INIT / script, self.path)
        self.log_path = LOG
        self.write_config()

    def call(self, word, expect=0):
        """Calls the script as root does, and returns what it says."""
        return run([*self.calls, self.path, word], expect, env={"PATH": PATH, "TERM": "dumb"}, cwd="/")

    def pid(self):
        """The server's process, which is the only one of its program."""
        found = {}
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdigit() and (entry / "exe").readlink().name == "mailwren":
                    status = (entry / "status").read_text()
                    found[entry.name] = re.search(r"PPid:\t(\d+)", status)[1]
        # A start has a child for a moment, which makes a certificate.
        found = [int(it) for it, parent in found.items() if parent not in found]
        assert len(found) < 2, found
        return found[0] if found else None

    def is_greeted(self):
        """Whether a client is."""
        try:
            with self.client() as client:
                return client.reply().code == 220
        except OSError:
            return False

    def life(self):
        """Starts it, uses it, reloads and restarts it, and stops it, each more than once."""
        self.call("start")
        wait_for("a greeting", self.is_greeted)
        first = self.pid()
        assert Path(f"/proc/{first}").owner() == "mailwren"
        self.call("start")
        assert self.pid() == first, "it was started twice"
        self.call("status")
        self.deliver("ann@house.test")
        self.wait_mail("ann")
        self.check_owner("ann")
        self.empty("ann")
        before = len(self.log())
        self.call("reload")
        wait_for("the reload", lambda: len(self.log()) > before)
        assert self.pid() == first, "a reload is no restart"
        self.call("restart")
        wait_for("a greeting", self.is_greeted)
        assert self.pid() not in (first, None)
        self.call("stop")
        assert self.pid() is None and not self.is_greeted()
        self.call("stop")


@own_house
def test_sysv():
    """start, status, reload, restart and stop do what LSB says, and a start says what is wrong."""
    under_init()
    host = Scripted("mailwren.sysv")
    host.call("status", 3)
    host.call("reload", 7)
    host.call("try-restart")
    assert host.pid() is None
    host.call("nonsense", 2)
    host.life()
    # When `start` is done, mail is taken.
    host.call("start")
    assert host.is_greeted()
    os.kill(host.pid(), signal.SIGKILL)
    wait_for("its end", lambda: host.pid() is None)
    host.call("status", 1)
    host.call("start")
    assert host.is_greeted()
    host.call("stop")
    host.call("status", 3)
    host.config_path.write_text("[server]\nnonsense = 1\n")
    said = host.call("start", 1)
    assert "nonsense" in said and host.pid() is None, said
    assert "panicked" not in host.log() and "systemd" not in host.log(), host.log()


def install_openrc():
    """Puts OpenRC into the house, from its unpacked packages, and has it take the house as booted."""
    assert (TOOLS / "sbin/openrc-run").exists(), \
        "OpenRC is missing: run `tests/interop/install-tools test`"
    for name in ("openrc", "openrc-run", "supervise-daemon", "rc-service"):
        shutil.copy(TOOLS / "sbin" / name, f"/sbin/{name}")
    shutil.copytree(TOOLS / "lib/rc", "/lib/rc", dirs_exist_ok=True)
    shutil.copy(TOOLS / "etc/rc.conf", "/etc/rc.conf")
    for library in (*TOOLS.glob("lib/*/librc.so.1"), *TOOLS.glob("lib/*/libeinfo.so.1")):
        shutil.copy(library, f"/lib/{library.parent.name}/{library.name}")
    for name in ("starting", "started", "options", "exclusive", "init.d", "daemons", "failed",
                 "inactive", "stopping", "wasinactive", "hotplugged", "scheduled", "tmp"):
        Path("/run/openrc", name).mkdir(parents=True, exist_ok=True)
    Path("/run/openrc/softlevel").write_text("default\n")


@own_house
def test_openrc():
    """openrc-run starts, reloads, restarts and stops it, and its supervisor replaces one that died."""
    under_init()
    install_openrc()
    for script in Path("/etc/init.d").iterdir():
        script.unlink()
    host = Scripted("mailwren.openrc", ["/sbin/openrc-run"])
    # All that is mounted here was before.
    text = "#!/sbin/openrc-run\nstart() { :; }\n"
    Path("/etc/init.d/localmount").write_text(text)
    Path("/etc/init.d/localmount").chmod(0o755)
    host.call("status", 3)
    host.life()
    host.call("start")
    wait_for("a greeting", host.is_greeted)
    first = host.pid()
    os.kill(first, signal.SIGKILL)
    wait_for("another one", lambda: host.pid() not in (first, None) and host.is_greeted())
    host.call("stop")
    wait_for("its end", lambda: host.pid() is None)


PROCD = """
for word in procd_open_instance procd_set_param procd_close_instance procd_send_signal; do
    eval "$word() { echo $word \\"\\$@\\"; }"
done
. "$1"
"$2"
"""


def procd(function):
    """What the script asks of procd in one of its functions."""
    return run([program("dash"), "-eu", "-c", PROCD, "rc.common", INIT / "mailwren.procd", function])


def test_procd():
    """procd is asked to run the server in the foreground, to keep it, and to send it SIGHUP."""
    lines = procd("start_service").splitlines()
    assert (lines[0], lines[-1]) == ("procd_open_instance", "procd_close_instance"), lines
    wanted = {"command": "/usr/sbin/mailwren serve", "respawn": "3600 5 5", "stderr": "1"}
    for name, value in wanted.items():
        assert f"procd_set_param {name} {value}" in lines, lines
    assert procd("reload_service") == "procd_send_signal mailwren\n"
    text = (INIT / "mailwren.procd").read_text()
    assert text.startswith("#!/bin/sh /etc/rc.common\n") and re.search("^USE_PROCD=1$", text, re.M)
