"""The addresses of this host at a provider that takes mail from one address alone: a Postfix that
knows which senders an account has, in the envelope and in From."""

import contextlib
import email
import email.policy
from email.header import decode_header, make_header
from email.utils import parseaddr

import certs
from harness import Server, as_root, binary, folder, run
from peers import dnsmasq
from providers import NAME, PASSWORD, USER, Dovecot, Postfix

CRON = b"""From: root (Cron Daemon)
To: root
Subject: Cron <root@pi> /usr/bin/backup
Content-Type: text/plain; charset=UTF-8
Auto-Submitted: auto-generated

Sicherung l\xc3\xa4uft nicht
.From the script
"""
REWRITE = {"sender": USER}


class Strict(Postfix):
    """A provider that refuses what an account may not send: for now, so that a test sees both."""

    def main(self, accounts):
        checks = self.folder / "from"
        own = USER.replace(".", r"\.")
        checks.write_text(f"if /^From:/\n!/^From:([^@]*[ <])?{own}/ REJECT not your address in From\n"
                          "endif\n")
        owners = self.folder / "owners"
        owners.write_text(f"/^{own}$/ {USER}\n")
        return super().main(accounts) + f"""smtpd_sender_restrictions = reject_sender_login_mismatch
smtpd_sender_login_maps = regexp:{owners}
smtpd_helo_restrictions = reject_non_fqdn_helo_hostname
header_checks = regexp:{checks}
nested_header_checks =
soft_bounce = yes
"""


class World(contextlib.ExitStack):
    """The provider, and a DNS server that knows its name."""

    def __init__(self):
        super().__init__()
        self.dir = self.enter_context(folder())
        self.dir.chmod(0o711)
        self.authority = certs.Authority(self.dir / "ca")
        self.dns = self.enter_context(dnsmasq(f"--host-record={NAME},127.0.0.1"))
        self.dovecot = self.enter_context(Dovecot(self.dir))
        self.provider = self.enter_context(
            Strict(self.dir, self.authority.four(NAME), self.dovecot))

    def server(self, rewrite):
        """A server that relays to the provider; root's mail goes to an address elsewhere."""
        password = self.dir / "password"
        password.write_text(PASSWORD + "\n")
        password.chmod(0o600)
        aliases = self.dir / "aliases"
        aliases.write_text("root: zoe@far.test\n")
        return Server({
            "server": {"hostname": "pi.home.test", "domains": "home.test, localhost"},
            "local": {"aliases": aliases},
            "smarthost": {"host": f"{NAME}:{self.provider.port('starttls')}", "tls": "starttls",
                          "user": USER, "password_file": password, "ca": self.authority.ca},
            "dns": {"servers": self.dns}, "rewrite": rewrite})

    def taken(self, count=1):
        """The last message of so many that the provider has taken, parsed."""
        octets = self.provider.wait_mail(count)[-1]
        return email.message_from_bytes(octets, policy=email.policy.default)

    def author(self, count=1):
        """The name that a mail reader shows for it, and the address. Python's newer parser knows
        no names in comments, and shows the blank between two encoded words."""
        octets = self.provider.wait_mail(count)[-1]
        name, address = parseaddr(email.message_from_bytes(octets)["From"])
        return str(make_header(decode_header(name))), address


def sendmail(server, arguments, content):
    """Submits as root's programs do."""
    command = [binary(), "sendmail", *arguments]
    run(command, input=content, env=server.environment())


def is_empty(provider):
    """Whether the provider has nothing, not even in its own queue."""
    return not provider.mail() and "queued as" not in provider.log()


@as_root
def test_cron_at_a_strict_provider():
    """A provider with reject_sender_login_mismatch and a check of From refuses root's cron mail, and
    takes it, while it waits, once `[rewrite] sender` is there."""
    with World() as world, world.server({}) as server:
        sendmail(server, ["-i", "-FCronDaemon", "-B8BITMIME", "-oem", "root"], CRON)
        server.wait_log(r"Sender address rejected: not owned by user")
        assert is_empty(world.provider)
        server.stop()
        server.overrides["rewrite"] = REWRITE
        server.write_config()
        server.start()
        taken = world.taken()
        server.wait_queue(0)
        assert taken["Return-Path"] == f"<{USER}>", taken["Return-Path"]
        assert world.author() == ("Cron Daemon on pi.home.test", USER), taken["From"]
        assert taken["X-Original-From"] == "root@home.test (Cron Daemon)", taken["X-Original-From"]
        assert taken["To"] == "root@home.test", taken["To"]
        assert taken["Subject"] == "Cron <root@pi> /usr/bin/backup"
        assert taken.get_content() == "Sicherung läuft nicht\n.From the script\n"


@as_root
def test_names():
    """A mail reader shows who it was and on which host, also where name and template are not ASCII."""
    rows = [
        ({}, b"root@raspberrypi", "root on pi.home.test"),
        # Debian's cron, cronie, mdadm, and a person's mail reader.
        ({}, b"root (Cron Daemon)", "Cron Daemon on pi.home.test"),
        ({}, b'"(Cron Daemon)" <root>', "(Cron Daemon) on pi.home.test"),
        ({}, b"mdadm monitoring <root>", "mdadm monitoring on pi.home.test"),
        # What a script has for an author: no address at all.
        ({}, b"Raspberry Pi", "Raspberry Pi on pi.home.test"),
        ({"name": "{user} on {host}"}, b"root (Cron Daemon)", "root on pi.home.test"),
        ({"name": "{user} on {host}"}, b"Ann Lee <ann@pi>", "Ann Lee"),
        ({"name": "{name} auf Müllers Pi"}, b"=?utf-8?q?J=C3=B6rg?= <j@home.test>",
         "Jörg auf Müllers Pi"),
        ({"name": "\"{user}\", (auf) <Müllers> Raspberry Pi im Schuppen, ganz hinten"},
         b"<root@pi>", "\"root\", (auf) <Müllers> Raspberry Pi im Schuppen, ganz hinten"),
    ]
    with World() as world:
        for count, (rewrite, field, expected) in enumerate(rows, 1):
            with world.server({**REWRITE, **rewrite}) as server:
                sendmail(server, ["-i", "zoe@far.test"], b"From: " + field + b"\n\nbody\n")
                taken = world.taken(count)
                assert world.author(count) == (expected, USER), taken["From"]
                assert [it.addr_spec for it in taken["From"].addresses] == [USER], taken["From"]
                server.wait_queue(0)


@as_root
def test_reports_and_other_senders():
    """A report of ours to somebody elsewhere has a From that the provider takes, and a sender who is
    none of this host keeps his own."""
    with World() as world, world.server(REWRITE) as server:
        # From a client that may relay: its failure is reported elsewhere.
        server.deliver("nobody@far.test", b"From: <eve@else.test>\r\n\r\nx\r\n",
                       sender="eve@else.test")
        server.wait_log("not owned by user")
        assert is_empty(world.provider)
        run([binary(), "queue", "bounce", "--all"], env=server.environment())
        taken = world.taken()
        assert taken["Return-Path"] == "<>", taken["Return-Path"]
        assert world.author() == ("Mail Delivery System on pi.home.test", USER), taken["From"]
        assert "MAILER-DAEMON@pi.home.test" in taken["X-Original-From"]
        assert taken["To"].addresses[0].addr_spec == "eve@else.test"
        server.wait_queue(0)
