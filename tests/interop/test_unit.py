"""Under the rules of its unit (systemd/mailwren.service), as far as they can be had without systemd,
the server does all that it is for."""

import shutil
import ssl
import sys
from pathlib import Path

from certs import Authority
from harness import ROOT, binary, program, run, wait_for
from host import Host, own_house
from peers import Peer

UNIT = ROOT / "systemd/mailwren.service"
LAUNCHER = Path(__file__).with_name("unit.py")


def as_unit(host):
    """Has a host's server run as its unit says, with the folders that systemd-tmpfiles makes."""
    shutil.copy(ROOT / "systemd/mailwren.tmpfiles", "/usr/lib/tmpfiles.d/mailwren.conf")
    run([program("systemd-tmpfiles"), "--create", "mailwren.conf"])
    host.make_folders = lambda: None
    # Sees its own mounts alone.
    host.wrapper = [program("unshare"), "--mount", sys.executable, LAUNCHER, UNIT]
    return host


def status(host):
    """What the kernel says of the server's process."""
    lines = Path(f"/proc/{host.process.pid}/status").read_text().splitlines()
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)


def forward(user, text):
    """Writes a user's .forward."""
    file = Path(f"/home/{user}/.forward")
    file.write_text(text)
    shutil.chown(file, user, user)


@own_house
def test_local_delivery():
    """Under the unit mail gets into mboxes, Maildirs, files and commands of other accounts."""
    Path("/etc/aliases").write_text(
        "postmaster: root\nlog: |/usr/bin/cat >/var/log/sink/mail\narchive: /var/mail/archive\n")
    Path("/var/log/sink").mkdir(mode=0o777)
    Path("/var/log/sink").chmod(0o777)
    with as_unit(Host({"local": {"command_user": "nobody"}})) as host:
        found = status(host)
        kept = 1 << 6 | 1 << 7
        assert found["Uid"].split()[0] != "0" and found["NoNewPrivs"] == "1", found
        assert found["Seccomp"] == "2" and int(found["CapAmb"], 16) == 0, found
        assert int(found["CapEff"], 16) & ~(1 << 10) == kept, found
        for user in ("root", "ann"):
            host.deliver(f"{user}@house.test")
            host.wait_mail(user)
            host.check_owner(user)
            host.empty(user)
        # A Maildir and a command of bob's, both made with his identity.
        forward("bob", '/home/bob/Maildir/, "|cat >/home/bob/read; id -un >/home/bob/who"\n')
        host.deliver("bob@house.test")
        wait_for("bob's command", Path("/home/bob/who").exists)
        host.wait_queue(0)
        assert Path("/home/bob/who").read_text() == "bob\n"
        assert len(list(Path("/home/bob/Maildir/new").iterdir())) == 1
        assert Path("/home/bob/read").owner() == "bob"
        host.deliver("log@house.test")
        host.wait_queue(0)
        assert b"Subject: hello" in Path("/var/log/sink/mail").read_bytes()
        # And nowhere else.
        forward("ann", '"|touch /etc/x 2>/home/ann/refused; true"\n')
        host.deliver("ann@house.test")
        host.wait_queue(0)
        assert "Read-only" in Path("/home/ann/refused").read_text()
        assert "Operation not permitted" not in host.log(), host.log()


@own_house
def test_drop_tls_and_relay():
    """Under the unit sendmail, drop/, STARTTLS, port 25 and a smarthost work."""
    with Peer() as peer:
        settings = {"smarthost": {"host": f"127.0.0.1:{peer.port}", "tls": "none"},
                    "listen.smtp": {"address": "127.0.0.1:25"}}
        with as_unit(Host(settings)) as host:
            host.run(["/usr/sbin/sendmail", "bob"], "ann", input="Subject: by socket\n\nx\n")
            host.take("bob", "ann@house.test", "by socket")
            host.stop()
            host.run(["/usr/sbin/sendmail", "bob"], "ann", input="Subject: dropped\n\nx\n")
            host.start()
            host.take("bob", "ann@house.test", "dropped")
            with host.session() as client:
                client.command("STARTTLS", 220)
                context = ssl.create_default_context()
                context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
                client.socket = context.wrap_socket(client.socket)
                client.command("EHLO client.test", 250)
                client.send_message("ann@house.test", ["far@far.test"], b"Subject: far\r\n\r\n")
            wait_for("the smarthost", lambda: peer.messages)
            assert (Path("/var/lib/mailwren/tls/key.pem").stat().st_mode & 0o777) == 0o600


def key_of_roots(host):
    """Lays out a certificate as certbot does, for root alone, and gives its settings."""
    pair = Authority(host.dir).issue("house.test")
    live, archive = (Path("/etc/letsencrypt") / name for name in ("live", "archive"))
    for path in (live, archive):
        path.mkdir(parents=True, mode=0o700)
    for name, file, mode in (("fullchain", pair.certificate, 0o644), ("privkey", pair.key, 0o600)):
        shutil.copy(file, archive / f"{name}1.pem")
        (archive / f"{name}1.pem").chmod(mode)
        (live / f"{name}.pem").symlink_to(f"../archive/{name}1.pem")
    return {"certificate": live / "fullchain.pem", "key": live / "privkey.pem"}


def offers_tls(host):
    """Whether STARTTLS works."""
    with host.session() as client:
        client.send(b"STARTTLS\r\n")
        return client.reply().code == 220


@own_house
def test_key_of_roots():
    """Under the unit a key that only root may read, as certbot's, is used; where the server lacks
    the right that the unit gives it, the log and check say so, and what to do."""
    host = as_unit(Host())
    host.overrides = {"tls": key_of_roots(host), "dns": {"servers": ""}}
    Path("/etc/aliases").write_text("postmaster: root\nroot: ann\n")
    with host:
        assert offers_tls(host) and "ERROR" not in host.log(), host.log()
        assert "letsencrypt" not in run([binary(), "check"]), run([binary(), "check"])
        host.stop()
        Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").write_text("0")
        host.wrapper = [program("setpriv"), "--reuid", "mailwren", "--regid", "mailwren",
                        "--init-groups", "--inh-caps=-all", "--bounding-set=-all"]
        host.start()
        assert not offers_tls(host)
        for text in (host.log(), run([binary(), "check"], expect=78)):
            assert "or by its unit" in text and "TLS" in text, text
