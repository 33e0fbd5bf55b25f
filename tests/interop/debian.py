"""A Debian of a test's own: a minimal one, as debootstrap makes it, with processes, devices and a
network of its own, and our package to install in it. What a test writes is in memory and gone
with it. Archives of other packages lie in it already, so that nothing is fetched.

`build-debian` makes what is below; see there. Unlike the house it has no mailwren until a test
installs it, and nothing of this machine."""

import contextlib
import hashlib
import os
import shutil
import stat
import subprocess
from pathlib import Path

import harness
from disk import mount
from harness import ROOT, binary, program, run, wait_for
from host import PATH, make_devices

FOLDER = ROOT / "target/test-tools/debian"
BUILD = ROOT / "tests/interop/build-debian"
NAME = "pi.test"


def own_debian(test):
    """Marks a test that wants a Debian of its own."""
    test.own_debian = True
    return test


def prefix():
    """What runs a command in namespaces of its own, whose processes all end with it."""
    assert os.geteuid() == 0, "a Debian is a root file system: run this test as root"
    return [program("unshare"), "--mount", "--pid", "--fork", "--kill-child", "--net", "--uts",
            "--ipc"]


def package(folder, version="0.9-1", compressed=False):
    """Builds our package, and gives its path."""
    kind = {} if compressed else {"DPKG_DEB_COMPRESSOR_TYPE": "none"}
    architecture = run([program("dpkg"), "--print-architecture"]).strip()
    run([ROOT / "etc/debian/build", binary(), architecture, version, folder],
        env={**os.environ, **kind})
    return Path(folder) / f"mailwren_{version}_{architecture}.deb"


class Debian(contextlib.AbstractContextManager):
    """The system, at `root`. `layer` is what `build-debian` laid over the base, such as lintian."""

    def __init__(self, layer=None, base=FOLDER):
        for name in ("stamp", layer or "base"):
            assert (base / name).exists(), \
                f"{base / name} is missing: run `tests/interop/install-tools test`"
        harness.loopback_up()
        run([program("hostname"), NAME])
        self.stack = contextlib.ExitStack()
        self.dir = self.stack.enter_context(harness.folder())
        self.dir.chmod(0o755)
        memory = self.dir / "memory"
        memory.mkdir()
        mount("-t", "tmpfs", "none", memory)
        self.root = memory / "root"
        for name in ("upper", "work", "root"):
            (memory / name).mkdir()
        lower = ":".join(str(base / name) for name in (layer, "base") if name)
        mount("-t", "overlay", "overlay", "-o",
              f"lowerdir={lower},upperdir={memory}/upper,workdir={memory}/work", self.root)
        mount("-t", "proc", "none", self.root / "proc")
        for name in ("dev", "run", "tmp"):
            mount("-t", "tmpfs", "-o", "mode=0755", "none", self.root / name)
        (self.root / "tmp").chmod(0o1777)
        make_devices(self.root / "dev")
        self.path("/etc/hostname").write_text(f"{NAME}\n")
        self.path("/etc/hosts").write_text(f"127.0.0.1 localhost\n127.0.1.1 {NAME} pi\n")
        self.path("/etc/mailname").unlink(missing_ok=True)
        self.server = None

    def __exit__(self, *_):
        self.stop()
        # The mounts are of this namespace alone, and end with it.
        run([program("umount"), "--recursive", "--lazy", self.dir / "memory"])
        self.stack.close()

    def path(self, path):
        """Where a file of it is for the test."""
        return self.root / path.lstrip("/")

    def run(self, command, expect=0, user=None, **options):
        """Runs a program in it, as root or a user, and returns what it printed."""
        if isinstance(options.get("input"), str):
            options["input"] = options["input"].encode()
        elif "input" not in options:
            options["stdin"] = subprocess.DEVNULL
        environment = {"PATH": PATH, "HOME": f"/home/{user}" if user else "/root",
                       "USER": user or "root", "LOGNAME": user or "root", "LC_ALL": "C.UTF-8",
                       "DEBIAN_FRONTEND": "noninteractive"}
        return run([*self.inside(user), *command], expect, env=environment, **options)

    def inside(self, user=None):
        """What runs a command in it, as root or a user."""
        become = ["--userspec", f"{user}:{user}"] if user else []
        return [program("chroot"), *become, self.root]

    def apt(self, *arguments, expect=0):
        """Runs apt-get, which has no network and asks nothing."""
        return self.run(["apt-get", "-q", "-y", "--allow-downgrades",
                         "-o", "APT::Install-Recommends=false", "-o", "Dpkg::Use-Pty=0",
                         "-o", "Dpkg::Options::=--force-unsafe-io", *arguments], expect)

    def bring(self, file):
        """Puts a file of the test into /tmp, and gives its path there."""
        shutil.copy(file, self.path("/tmp"))
        return f"/tmp/{Path(file).name}"

    def install(self, *names):
        """Installs packages, by name or by path, and returns what apt said."""
        return self.apt("install", *names)

    def add_user(self, name):
        """Makes an account of a person."""
        self.run(["useradd", "--create-home", "--shell", "/bin/sh", name])

    def status(self, name):
        """What dpkg knows of a package: `installed`, `config-files`, or nothing."""
        command = ["dpkg-query", "--show", "--showformat", "${db:Status-Status}\n", name]
        done = subprocess.run([*self.inside(), *command], capture_output=True, text=True, check=False)
        return done.stdout.strip()

    def mail(self, user):
        """What is in a user's mailbox."""
        box = self.path(f"/var/mail/{user}")
        return box.read_text() if box.exists() else ""

    def background(self, command):
        """Starts a program, which runs up to the end of the test, or its `terminate`."""
        process = subprocess.Popen(
            [program("chroot"), self.root, *command], stdin=subprocess.DEVNULL,
            stdout=(self.dir / "log").open("ab"), stderr=subprocess.STDOUT,
            env={"PATH": PATH}, cwd="/")
        self.stack.callback(process.kill)
        return process

    def start(self):
        """Starts the server, as an init does: its unit is systemd's, which does not run here."""
        self.run(["install", "-d", "-o", "mailwren", "-g", "mailwren", "/run/mailwren"])
        self.server = self.background(["/usr/sbin/mailwren", "serve"])
        wait_for("the greeting", self.greets)

    def greets(self):
        """Whether the server is there yet."""
        assert not self.server or self.server.poll() is None, f"the server ended:\n{self.log()}"
        with contextlib.suppress(OSError), harness.Client("127.0.0.1", 25) as client:
            return client.reply().code == 220
        return False

    def stop(self):
        """Stops the server, if it runs."""
        if self.server:
            self.server.terminate()
            assert self.server.wait(harness.PATIENCE) == 0, self.log()
            self.server = None

    def log(self):
        """What the programs in the background have said."""
        return (self.dir / "log").read_text(errors="replace")

    def files(self):
        """Each file with its kind, mode, owner and content, for what runs nothing."""
        found = {}
        for folder, folders, names in os.walk(self.root):
            inside = Path(folder).relative_to(self.root)
            if inside == Path("."):
                for name in ("proc", "dev", "run", "tmp"):
                    folders.remove(name)
            for name in (*folders, *names):
                path = Path(folder, name)
                status = path.lstat()
                content = os.readlink(path) if path.is_symlink() else \
                    hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
                found[f"/{inside / name}"] = (stat.filemode(status.st_mode), status.st_uid,
                                              status.st_gid, content)
        return found
