"""What a host tells its owner by mail: smartd, mdadm, unattended-upgrades, apticron, logwatch,
logcheck and debsums, with the configuration that their packages bring. What they find is made up."""

import hashlib
import shutil
import subprocess
from pathlib import Path

from host import NAME, Host, only_crontabs, own_house

ROOT = "root@house.test"
# What smartd 7.3 sets for its script when `-M test` is given with its stock configuration
# (smartd(8), `-M exec`).
SMARTD = {
    "SMARTD_MAILER": "/usr/share/smartmontools/smartd-runner",
    "SMARTD_ADDRESS": "root",
    "SMARTD_MESSAGE": "TEST EMAIL from smartd for device: /dev/sda [SAT]",
    "SMARTD_FAILTYPE": "EmailTest",
    "SMARTD_TFIRST": "Sun Feb  1 12:00:00 2026 UTC",
    "SMARTD_TFIRSTEPOCH": "1769947200",
    "SMARTD_PREVCNT": "0",
    "SMARTD_NEXTDAYS": "",
    "SMARTD_DEVICESTRING": "/dev/sda [SAT]",
    "SMARTD_DEVICETYPE": "sat",
    "SMARTD_DEVICE": "/dev/sda",
    "SMARTD_DEVICEINFO": "Größe 4.00 TB, S/N:WX1",
}


def package(version):
    """Builds a package with nothing in it, and returns its file and the text that describes it."""
    folder = Path(f"/tmp/house-clock-{version}")
    (folder / "DEBIAN").mkdir(parents=True)
    control = (f"Package: house-clock\nVersion: {version}\nArchitecture: all\n"
               f"Maintainer: Ann <ann@{NAME}>\nDescription: the clock of the house\n")
    (folder / "DEBIAN/control").write_text(control)
    file = Path(f"/tmp/house-clock_{version}_all.deb")
    subprocess.run(["dpkg-deb", "--build", "--root-owner-group", folder, file], check=True,
                   stdout=subprocess.DEVNULL)
    return file, control


def offer_update(host):
    """Has the first version of a package installed, and the second one in a repository that says it
    is Debian's for security, and is the only one."""
    host.run(["dpkg", "-i", package(1)[0]])
    repository = Path("/srv/repository")
    repository.mkdir()
    file, control = package(2)
    shutil.copy(file, repository)
    octets = file.read_bytes()
    listed = (f"{control}Filename: ./{file.name}\nSize: {len(octets)}\n"
              f"SHA256: {hashlib.sha256(octets).hexdigest()}\n")
    (repository / "Packages").write_text(listed)
    codename = host.run(["sh", "-c", ". /etc/os-release; printf %s $VERSION_CODENAME"])
    (repository / "Release").write_text(
        f"Origin: Debian\nLabel: Debian-Security\nCodename: {codename}-security\n"
        f"Date: Sun, 01 Feb 2026 00:00:00 UTC\nSHA256:\n"
        f" {hashlib.sha256(listed.encode()).hexdigest()} {len(listed)} Packages\n")
    shutil.rmtree("/etc/apt/sources.list.d")
    shutil.rmtree("/var/lib/apt/lists")
    Path("/var/lib/apt/lists/partial").mkdir(parents=True)
    Path("/etc/apt/sources.list").write_text(f"deb [trusted=yes] file:{repository} ./\n")
    host.run(["apt-get", "update", "-q"])


@own_house
def test_smartd():
    """smartd's warning script mails root by way of its runner and mail(1)."""
    with Host() as host:
        host.run(["/usr/share/smartmontools/smartd_warning.sh"], environment=SMARTD)
        subject = f"SMART error (EmailTest) detected on host: {NAME.partition('.')[0]}"
        message = host.take("root", ROOT, subject, to=ROOT)
        for text in ("\nTEST EMAIL from smartd for device: /dev/sda [SAT]\n", "\nGröße 4.00 TB"):
            assert text in message.get_content(), message


@own_house
def test_mdadm():
    """`mdadm --monitor --test` mails root about an array, by the MAILADDR of its package."""
    with Host() as host:
        host.run(["mdadm", "--monitor", "--test", "--oneshot", "/dev/md0"])
        message = host.take("root", ROOT, f"TestMessage event on /dev/md0:{NAME}",
                            ("mdadm monitoring", ROOT), ROOT)
        assert "A TestMessage event had been detected on md device /dev/md0." \
            in message.get_content(), message


@own_house
def test_unattended_upgrades():
    """unattended-upgrades upgrades a package and mails its report, for `Mail "root"`."""
    with Host() as host:
        offer_update(host)
        Path("/etc/apt/apt.conf.d/52house").write_text('Unattended-Upgrade::Mail "root";\n')
        host.run(["unattended-upgrade"])
        message = host.take("root", ROOT, f"unattended-upgrades result for {NAME}: SUCCESS", to=ROOT)
        assert "Packages that were upgraded:\n house-clock\n" in message.get_content(), message
        assert message["Auto-Submitted"] == "auto-generated", message


@own_house
def test_apticron():
    """apticron mails root which packages have a newer version, by way of mailx."""
    with Host() as host:
        offer_update(host)
        host.run(["apticron"])
        message = host.take("root", ROOT, f"1 Debian package update(s) for {NAME}", to=ROOT)
        assert "\n\thouse-clock 2\n" in message.get_content(), message


@own_house
def test_logwatch():
    """logwatch mails its report, several addresses in one message."""
    with Host() as host:
        host.run(["logwatch", "--output", "mail", "--mailto", "root, bob", "--service", "dpkg",
                  "--range", "all"])
        for user in ("root", "bob"):
            message = host.take(user, ROOT, f"Logwatch for {NAME} (Linux)", to=ROOT)
            assert "Logwatch End" in message.get_content(), message
            assert message["Precedence"] == "bulk", message


@own_house
def test_logcheck():
    """logcheck, as cron starts it, mails its report, which the alias of its account leads to root."""
    only_crontabs("logcheck")
    Path("/etc/aliases").write_text("logcheck: root\n")
    # That is made at each boot.
    Path("/run/lock").mkdir()
    Path("/run/lock").chmod(0o1777)
    for name, text in (("syslog", "Feb  1 12:00:00 house kernel: something unheard-of\n"),
                       ("auth.log", "")):
        file = Path("/var/log") / name
        file.write_text(text)
        shutil.chown(file, group="adm")
        file.chmod(0o640)
    with Host() as host:
        host.background(["cron", "-f"])
        octets = host.wait_mail("root")[0]
        for text in (b"Return-Path: <logcheck@house.test>\n", b"\nTo: logcheck",
                     b"\nSubject: Reboot: ", b" house kernel: something unheard-of\n"):
            assert text in octets, octets
        host.check_owner("root")


@own_house
def test_debsums():
    """debsums in a job of cron: what it finds changed is mail for root."""
    only_crontabs()
    Path("/etc/cron.d/house").write_text("@reboot root debsums --changed --silent anacron\n")
    with Path("/usr/sbin/anacron").open("ab") as file:
        file.write(b"more")
    with Host() as host:
        host.background(["cron", "-f"])
        message = host.take("root", ROOT, "Cron <root@house> debsums --changed --silent anacron",
                            ("Cron Daemon", ROOT), ROOT)
        assert message.get_content() == "/usr/sbin/anacron\n", message
