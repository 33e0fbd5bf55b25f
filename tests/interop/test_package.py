"""The Debian package: from its installation to its purge, next to the programs that want a mail
server and to the ones that are one."""

import os
import re
from pathlib import Path

import harness
from debian import Debian, own_debian, package
from harness import ROOT, binary, run, wait_for
from peers import Peer

# What dpkg, apt and the accounts' tools keep of any package that was there once.
OF_THE_TOOLS = re.compile(
    r"/var/(lib/(dpkg|apt|systemd)|log|cache)(/|$)|/etc/(passwd|group|shadow|gshadow|subuid|subgid)-?$"
    r"|/etc/ld\.so\.cache$|/var/lib$|/etc$")


@own_debian
def test_lintian():
    """lintian finds no fault, and the libraries that it needs are those that dpkg-shlibdeps finds."""
    with Debian("lintian") as debian:
        deb = package(debian.dir, compressed=True)
        inside = debian.bring(deb)
        # It is no upload to Debian's archive, whose first one closes a bug.
        debian.run(["lintian", "--allow-root", "--fail-on", "error,warning",
                    "--suppress-tags", "initial-upload-closes-no-bugs", inside])
        control = run(["dpkg-deb", "--field", deb, "Depends"])
        debian.path("/tmp/debian").mkdir()
        debian.path("/tmp/debian/control").write_text(
            "Source: mailwren\n\nPackage: mailwren\nArchitecture: any\n")
        debian.run(["dpkg-deb", "--extract", inside, "/tmp/debian/mailwren"])
        known = debian.run(["sh", "-c", "cd /tmp && exec dpkg-shlibdeps -O "
                            "debian/mailwren/usr/sbin/mailwren"])
        for name, version in re.findall(r"([\w.-]+) \(>= ([\w.]+)\)", known):
            ours = re.search(rf"{name} \(>= ([\w.]+)\)", control)
            assert ours and re.fullmatch(rf"{re.escape(version)}(\.0)*", ours[1]), (known, control)


@own_debian
def test_life():
    """Installed, upgraded with mail in the queue, removed and back, it keeps configuration and mail
    and asks nothing; a purge leaves nothing but mail."""
    with Debian() as debian:
        first, second = (debian.bring(package(debian.dir, version)) for version in ("0.9-1", "0.9-2"))
        debian.install("cron", "adduser", "openssl")
        debian.add_user("ann")
        before = debian.files()

        said = debian.install(first, "bsd-mailx")
        assert "exim" not in said and debian.status("mailwren") == "installed", said
        check_rights(debian)
        # No server runs yet.
        debian.run(["bsd-mailx", "-s", "early", "ann"], user="ann", input="no server yet\n")
        debian.start()
        wait_for("the mail from before", lambda: "no server yet" in debian.mail("ann"))
        assert not debian.run(["mailwren", "check"]).count("error:")
        debian.run(["sendmail", "root"], user="ann", input="Subject: hello\n\nto root\n")
        wait_for("mail for root", lambda: "to root" in debian.mail("root"))
        assert listening(25) <= {"127.0.0.1", "::1"}, listening(25)

        # A change of a person's own, and mail that cannot leave yet.
        port = harness.free_port()
        config = debian.path("/etc/mailwren/mailwren.ini")
        config.write_text(f"[smarthost]\nhost = 127.0.0.1:{port}\ntls = none\n"
                          "[queue]\nretry = 1s\n")
        changed = config.read_text()
        restart(debian)
        debian.run(["sendmail", "bob@provider.test"], input="Subject: late\n\nwaits\n")
        wait_for("a try", lambda: "deferred" in debian.log())
        debian.install(second)
        assert config.read_text() == changed
        assert "0.9-2" in debian.run(["dpkg-query", "--show", "mailwren"])
        assert "bob@provider.test" in debian.run(["mailq"])
        restart(debian)
        with Peer(port=port) as provider:
            taken = provider.wait_messages(1)[0]
            assert b"waits" in taken.content and taken.recipients == ["<bob@provider.test>"], taken
        wait_for("an empty queue", lambda: not queued(debian))

        # Removed while something waits.
        debian.run(["sendmail", "bob@provider.test"], input="Subject: later\n\nwaits, too\n")
        wait_for("a message in the queue", lambda: queued(debian))
        debian.stop()
        # With it goes what needs a mail server.
        said = debian.apt("remove", "mailwren", "bsd-mailx")
        assert "1 messages wait" in said and not debian.path("/usr/sbin/sendmail").exists(), said
        assert config.read_text() == changed and queued(debian)
        debian.install(first)
        assert config.read_text() == changed
        debian.start()
        with Peer(port=port) as provider:
            assert b"waits, too" in provider.wait_messages(1)[0].content
        wait_for("an empty queue", lambda: not queued(debian))
        debian.stop()

        (config.parent / "password").write_text("secret\n")
        debian.apt("purge", "mailwren", "bsd-mailx")
        debian.apt("autoremove", "--purge")
        left = changes(before, debian.files())
        assert left == {"/etc/aliases", "/etc/mailname", "/var/mail/ann", "/var/mail/root"}, left
        accounts = debian.path("/etc/passwd").read_text() + debian.path("/etc/group").read_text()
        assert "mailwren" not in accounts, accounts


@own_debian
def test_systemd():
    """systemd is told to start it, in an upgrade to start the service anew while its sockets stay, and
    what a person has disabled stays disabled."""
    with Debian() as debian:
        first, second = (debian.bring(package(debian.dir, version)) for version in ("0.9-1", "0.9-2"))
        # As where systemd runs, but for it: what it is told is written down. Links of units are made by
        # deb-systemd-helper, which leaves it to systemctl where there is one.
        debian.path("/run/systemd/system").mkdir(parents=True)
        for name in ("deb-systemd-invoke", "systemd-sysusers", "systemd-tmpfiles"):
            stub = debian.path(f"/usr/bin/{name}")
            stub.write_text(f'#!/bin/sh\necho "$*" >>/tmp/{name}\n')
            stub.chmod(0o755)
        debian.install(first)
        units = [name for name in ("mailwren.socket", "mailwren.service")
                 if debian.path(f"/usr/lib/systemd/system/{name}").exists()]
        assert told(debian) == [f"start {name}" for name in units], told(debian)
        wanted = debian.path("/etc/systemd/system/multi-user.target.wants/mailwren.service")
        assert wanted.is_symlink()
        wanted.unlink()
        debian.install(second)
        assert told(debian)[len(units):] == \
            ["start mailwren.socket"] * (len(units) - 1) + ["restart mailwren.service"], told(debian)
        assert not wanted.is_symlink()
        debian.apt("purge", "mailwren")
        assert told(debian)[-1] == "stop mailwren*.socket mailwren.service", told(debian)


@own_debian
def test_purge_keeps_mail():
    """A purge leaves mail that was never delivered, and the account that it belongs to, and says so."""
    with Debian() as debian:
        debian.install(debian.bring(package(debian.dir)))
        debian.run(["sendmail", "bob@elsewhere.test"], input="Subject: hello\n\nnot yet\n")
        said = debian.apt("purge", "mailwren")
        assert "1 messages that were never delivered" in said and "account is kept" in said, said
        dropped = list(debian.path("/var/spool/mailwren/drop").iterdir())
        assert len(dropped) == 1 and "mailwren:" in debian.path("/etc/passwd").read_text(), dropped
        assert not debian.path("/etc/mailwren").exists()


@own_debian
def test_purge_elsewhere():
    """The same where the configuration names another spool, and where nobody can tell what is there."""
    with Debian() as debian:
        deb = debian.bring(package(debian.dir))
        debian.install(deb)
        spool = debian.path("/srv/spool")
        spool.mkdir()
        debian.run(["chown", "mailwren:mailwren", "/srv/spool"])
        config = debian.path("/etc/mailwren/mailwren.ini")
        config.write_text("[server]\n spool = /srv/spool\n")
        debian.start()
        debian.run(["sendmail", "bob@elsewhere.test"], input="Subject: hello\n\nnot yet\n")
        debian.stop()
        said = debian.apt("purge", "mailwren")
        assert "never delivered are left in /srv/spool." in said and "account is kept" in said, said
        assert list((spool / "queue").iterdir()) and not debian.path("/var/spool/mailwren").exists()
        debian.install(deb)
        find = debian.path("/usr/sbin/find")
        find.write_text("#!/bin/sh\nexit 1\n")
        find.chmod(0o755)
        said = debian.apt("purge", "mailwren")
        assert "never delivered" in said and debian.path("/var/spool/mailwren/drop").exists(), said


@own_debian
def test_links_in_the_spool():
    """Where the server's account has put a link into its spool, root makes nothing at its end."""
    with Debian() as debian:
        deb = debian.bring(package(debian.dir))
        debian.install(deb)
        debian.apt("remove", "mailwren")
        debian.run(["sh", "-ec", "cd /var/spool/mailwren; rmdir drop; ln -s /root/roots drop"],
                   user="mailwren")
        roots = debian.path("/root/roots")
        debian.install(deb)
        assert not roots.exists(), "made by a link"
        roots.mkdir(0o700)
        debian.apt("install", "--reinstall", deb)
        status = roots.stat()
        assert (status.st_mode & 0o7777, status.st_uid) == (0o700, 0), status


@own_debian
def test_other_servers():
    """apt lets it take the place of another mail server, and another its own; dpkg alone does not."""
    with Debian() as debian:
        ours = debian.bring(package(debian.dir))
        # What wants a mail server gets Debian's own choice, where there is none.
        debian.install("bsd-mailx", "adduser")
        assert debian.status("exim4-daemon-light") == "installed"
        said = debian.run(["dpkg", "--install", ours], expect=1)
        assert "conflict" in said and debian.status("exim4-daemon-light") == "installed", said
        said = debian.install(ours)
        assert "exim4-daemon-light" in said and debian.status("bsd-mailx") == "installed", said
        assert debian.status("exim4-daemon-light") == "config-files"
        debian.run(["bsd-mailx", "-s", "hello", "root"], input="to ours\n")
        debian.start()
        wait_for("mail for root", lambda: "to ours" in debian.mail("root"))
        debian.stop()
        debian.install("postfix")
        assert (debian.status("mailwren"), debian.status("postfix")) == ("config-files", "installed")
        assert not debian.path("/usr/sbin/sendmail").is_symlink()
        debian.install(ours)
        assert os.readlink(debian.path("/usr/sbin/sendmail")) == "mailwren"


def test_from_nothing():
    """From an empty Debian to the mail of a failed job of cron at a provider, by `setup` alone."""
    print(run([ROOT / "tests/interop/from-nothing"], timeout=240))


def test_make_install():
    """`make install` goes where it is told, never over what is another's, and `make uninstall` leaves
    the configuration alone."""
    with harness.folder() as folder:
        make = ["make", "-s", "-C", ROOT, f"DESTDIR={folder}", "PREFIX=/opt/wren", f"BINARY={binary()}"]
        run([*make, "install"])
        unit = Path(folder, "opt/wren/lib/systemd/system/mailwren.service").read_text()
        assert "ExecStart=/opt/wren/sbin/mailwren serve" in unit and "/usr/sbin" not in unit, unit
        for name in ("sbin/sendmail", "bin/mailq", "bin/newaliases", "lib/sendmail"):
            assert (folder / "opt/wren" / name).resolve() == (folder / "opt/wren/sbin/mailwren").resolve()
        config = folder / "etc/mailwren/mailwren.ini"
        config.write_text("# mine\n")
        run([*make, "install"])
        assert config.read_text() == "# mine\n"
        run([*make, "uninstall"])
        left = {str(file.relative_to(folder)) for file in folder.rglob("*") if not file.is_dir()}
        assert left == {"etc/mailwren/mailwren.ini", "etc/aliases"}, left
        (folder / "opt/wren/sbin/sendmail").write_text("another's\n")
        said = run([*make, "install"], expect=2)
        assert "another mail server" in said and not (folder / "opt/wren/sbin/mailwren").exists(), said


def told(debian):
    """What systemd was told to do with units."""
    return debian.path("/tmp/deb-systemd-invoke").read_text().splitlines()


def restart(debian):
    """What an upgrade does where an init runs."""
    debian.stop()
    debian.start()


def queued(debian):
    """The files of messages that wait."""
    return list(debian.path("/var/spool/mailwren/queue").iterdir())


def check_rights(debian):
    """Nothing is set-id, and nobody else can look into what is the server's."""
    names = debian.run(["dpkg", "--listfiles", "mailwren"]).split()
    for path in map(debian.path, names):
        status = path.lstat()
        assert status.st_mode & 0o6000 == 0 and status.st_uid == status.st_gid == 0, path
    account = int(debian.run(["id", "-u", "mailwren"]))
    for path, mode, owner in (
            ("/var/spool/mailwren", 0o711, account), ("/var/spool/mailwren/drop", 0o1733, account),
            ("/var/lib/mailwren", 0o711, account), ("/etc/mailwren", 0o755, 0),
            ("/etc/mailwren/mailwren.ini", 0o644, 0), ("/etc/aliases", 0o644, 0)):
        status = debian.path(path).stat()
        assert (status.st_mode & 0o7777, status.st_uid) == (mode, owner), (path, oct(status.st_mode))


def listening(port):
    """The addresses that somebody listens on at a TCP port, of this network namespace."""
    found = set()
    for line in run([harness.program("ss"), "-Hltn", f"sport = :{port}"]).splitlines():
        found.add(line.split()[3].rpartition(":")[0].strip("[]"))
    return found


def changes(before, after):
    """The files that are not as they were, but for what the tools of the system keep."""
    return {path for path in before.keys() | after.keys()
            if before.get(path) != after.get(path) and not OF_THE_TOOLS.match(path)}
