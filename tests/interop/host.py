"""A house for unchanged programs: a root file system, processes and a network of a test's own, in
which cron, mail(1), smartd and the others are installed from their packages, and mailwren is what
they find at /usr/sbin/sendmail.

`build-house` makes the layer that they are in; `move_in` lays it over the machine's root file
system, and a layer in memory on top, so that nothing a test writes reaches the machine or another
test. The test itself runs in the house, as its root: paths are those of any host."""

import mailbox
import os
import pwd
import shutil
import stat
import subprocess
from email import message_from_bytes, message_from_string, policy
from email.header import decode_header, make_header
from email.utils import getaddresses, parseaddr
from pathlib import Path

import harness
from disk import mount
from harness import PATIENCE, ROOT, Server, binary, program, run, wait_for

IMAGE = ROOT / "target/test-tools/house.img"
NAME = "house.test"
DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
ADDRESS_FIELDS = ("From", "Sender", "Reply-To", "To", "Cc")
# What a program of the system finds in its environment.
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


def own_house(test):
    """Marks a test that wants a house of its own."""
    test.own_house = True
    return test


def prefix():
    """What runs a command in namespaces of its own, whose processes all end with it."""
    assert os.geteuid() == 0, "a house is a file system on a loop device: run this test as root"
    assert IMAGE.exists(), f"{IMAGE} is missing: run `tests/interop/install-tools test`"
    return [program("unshare"), "--mount", "--pid", "--fork", "--kill-child", "--net", "--uts",
            "--ipc"]


def move_in():
    """Makes the house the root of this process, which has namespaces of its own already."""
    harness.loopback_up()
    # On the machine it is an empty folder: the mounts are seen in this namespace alone.
    base = IMAGE.with_suffix("")
    base.mkdir(exist_ok=True)
    own, mailwren = ROOT, binary()
    mount("-t", "tmpfs", "none", base)
    layer, memory, root = base / "layer", base / "memory", base / "root"
    for folder in (layer, memory / "upper", memory / "work", root):
        folder.mkdir(parents=True)
    mount("-o", "loop,ro,noload", IMAGE, layer)
    mount("-t", "overlay", "overlay", "-o",
          f"lowerdir={layer}/upper:/,upperdir={memory}/upper,workdir={memory}/work", root)
    mount("-t", "proc", "none", root / "proc")
    for folder in ("dev", "run", "tmp"):
        mount("-t", "tmpfs", "-o", "mode=0755", "none", root / folder)
    (root / "tmp").chmod(0o1777)
    make_devices(root / "dev")
    # The tests, wherever they are.
    inside = root / own.relative_to("/")
    inside.mkdir(parents=True, exist_ok=True)
    mount("--rbind", own, inside)
    mount("--bind", mailwren, root / "usr/sbin/mailwren")
    run([program("hostname"), NAME])
    os.chroot(root)
    os.chdir("/")
    os.environ["MAILWREN_BIN"] = "/usr/sbin/mailwren"


def make_devices(folder):
    """The devices that every program expects, and none of the machine's own."""
    for name in DEVICES:
        status = os.stat(f"/dev/{name}")
        os.mknod(folder / name, stat.S_IFCHR | 0o666, status.st_rdev)
        (folder / name).chmod(0o666)
    for name in ("shm", "pts"):
        (folder / name).mkdir()
    mount("-t", "tmpfs", "none", folder / "shm")
    mount("-t", "devpts", "-o", "newinstance,ptmxmode=0666,mode=0620", "none", folder / "pts")
    (folder / "ptmx").symlink_to("pts/ptmx")
    (folder / "fd").symlink_to("/proc/self/fd")
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        (folder / name).symlink_to(f"/proc/self/fd/{number}")


class Host(Server):
    """The house's mailwren, at its default places, started as root as its unit does.

    `settings` is laid over a configuration that says nothing but the host's name. Users are root,
    ann and bob; a user's mail is in an mbox or, with `format = maildir`, a Maildir."""

    def __init__(self, settings=None):
        super().__init__(settings)
        self.config_path = Path("/etc/mailwren/mailwren.ini")
        self.spool = Path("/var/spool/mailwren")
        self.mail = Path("/var/mail")

    def settings(self):
        """The configuration as a map of maps."""
        # Nothing answers there, and in the house there is no network either.
        sections = {"server": {"hostname": NAME}, "dns": {"servers": "127.0.0.1:9"}}
        return harness.laid_over(sections, self.overrides)

    def write_config(self):
        """Writes the configuration where the program expects it."""
        self.port = 25
        self.config_path.parent.mkdir(exist_ok=True)
        super().write_config()

    def make_folders(self):
        """Makes the folder of its socket, which systemd makes on other hosts."""
        socket = Path("/run/mailwren")
        socket.mkdir(exist_ok=True)
        shutil.chown(socket, "mailwren", "mailwren")

    def environment(self):
        """What a program of the system finds: no word of where the configuration is."""
        return {"PATH": PATH, "LANG": "C.UTF-8", "RUST_BACKTRACE": "1"}

    def run(self, command, user="root", expect=0, environment=None, **options):
        """Runs a program as a user who has logged in, and returns what it printed."""
        account = pwd.getpwnam(user)
        known = {"PATH": PATH, "LANG": "C.UTF-8", "HOME": account.pw_dir, "USER": user,
                 "LOGNAME": user, "SHELL": "/bin/sh", "TERM": "dumb"}
        if "input" in options and isinstance(options["input"], str):
            options["input"] = options["input"].encode()
        elif "input" not in options:
            options.setdefault("stdin", subprocess.DEVNULL)
        return run(command, expect, user=account.pw_uid, group=account.pw_gid,
                   extra_groups=os.getgrouplist(user, account.pw_gid), cwd=account.pw_dir,
                   env={**known, **(environment or {})}, **options)

    @property
    def has_maildirs(self):
        """Whether mailboxes are Maildirs."""
        return self.settings().get("local", {}).get("format") == "maildir"

    def box(self, user):
        """The user's mailbox: its path, for mbox the file."""
        return Path(pwd.getpwnam(user).pw_dir) / "Maildir" if self.has_maildirs else self.mail / user

    def contents(self, user):
        """The octets of each message in a user's mailbox."""
        if self.has_maildirs:
            return [file.read_bytes() for file in sorted(self.box(user).glob("new/*"))]
        if not self.box(user).exists():
            return []
        box = mailbox.mbox(self.box(user), create=False)
        try:
            return [box.get_bytes(key) for key in box.keys()]
        finally:
            box.close()

    def wait_mail(self, user="ann", count=1):
        """Waits until a mailbox has that many messages and nothing else is on its way, and returns
        their octets."""
        wait_for(f"{count} messages for {user}", lambda: len(self.contents(user)) >= count)
        self.wait_queue(0)
        found = self.contents(user)
        assert len(found) == count, f"{len(found)} messages for {user}, not {count}: {found}"
        return found

    def take(self, user, sender, subject, author=None, to=None):
        """Waits for the only message that a user gets, takes it out of the mailbox, and returns it.
        Looked at is what holds for every program: whose the mailbox is, the sender, the name and
        address of the author, the subject, whom it is to, and each field that readers count on is
        there once, and no address is a bare name."""
        octets = self.wait_mail(user)[0]
        self.check_owner(user)
        message = message_from_bytes(octets, policy=policy.default)
        for name in ("Return-Path", "Delivered-To", "Received", "From", "Date", "Message-ID"):
            assert len(message.get_all(name, [])) == 1, f"{name}: {message.get_all(name)}"
        assert "Bcc" not in message, octets
        # As text, since a program may put 8-bit octets there as they are.
        fields = message_from_string(octets.decode(errors="replace"))
        found = {
            "sender": message["Return-Path"],
            "author": parseaddr(fields["From"]),
            "subject": str(make_header(decode_header(fields["Subject"]))),
            "to": parseaddr(fields["To"])[1] if to or "To" in message else None,
            "bare names": bare_names(fields),
            "defects": message.defects,
        }
        wanted = {"sender": f"<{sender}>", "author": author or ("", sender), "subject": subject,
                  "to": to, "bare names": [], "defects": []}
        assert found == wanted, f"{found}, not {wanted}:\n{octets.decode(errors='replace')}"
        self.empty(user)
        return message

    def check_owner(self, user):
        """The mailbox is its user's, and nobody else can read it."""
        for path in [self.box(user), *self.box(user).glob("new/*")]:
            status = path.stat()
            owner = pwd.getpwuid(status.st_uid).pw_name
            assert owner == user, f"{path} is {owner}'s"
            assert status.st_mode & 0o077 == 0, f"{path} has mode {status.st_mode:o}"

    def empty(self, user):
        """Takes all messages out of a mailbox, as a reader does."""
        box = self.box(user)
        if self.has_maildirs:
            for file in box.glob("new/*"):
                file.unlink()
        else:
            os.truncate(box, 0)

    def background(self, command, **options):
        """Starts a program of the system, which runs up to the end of the test."""
        process = subprocess.Popen(list(map(str, command)), stdin=subprocess.DEVNULL,
                                   env={"PATH": PATH}, cwd="/", **options)
        self.stack.callback(stop, process)
        return process


def only_crontabs(*names):
    """Takes away what packages have brought into /etc/cron.d, but for these."""
    for file in Path("/etc/cron.d").iterdir():
        if file.name not in names:
            file.unlink()


def stop(process):
    """Ends a program of the system, if it has not ended."""
    if process.poll() is None:
        process.terminate()
    process.wait(PATIENCE)


def bare_names(message):
    """The addresses without a domain in the fields that an answer goes to."""
    fields = [body for name in ADDRESS_FIELDS for body in message.get_all(name, [])]
    return [found for _, found in getaddresses(fields) if found and "@" not in found]
