"""The recipes in etc/recipes, each run as it is shipped, on a host of its own with the provider that it
is for, or what stands for it."""

import email
import email.policy
import imaplib
import re
import shutil
import smtplib
import ssl
from email.utils import parseaddr
from pathlib import Path

import certs
from harness import ROOT, Client, binary, program, run
from host import Host, own_house
from peers import Message, listens
from providers import Daemon, Dovecot, Postfix
from standins import Gmail, Office, StandIn

RECIPES = ROOT / "etc/recipes"
SECRET, TOKEN = "abcd efgh ijkl mnop", "ya29.a-token"


class Cooked(Host):
    """A host that follows a recipe to the letter: the file is copied, what its head asks for is
    done, and the names in it are those of servers on this host, which a DNS server and a certificate
    authority of the test vouch for."""

    def __init__(self, recipe, names=(), changes=()):
        super().__init__()
        self.recipe, self.changes = RECIPES / f"{recipe}.ini", changes
        self.authority = certs.Authority(self.dir / "ca")
        self.trust()
        records = [f"--host-record={name},127.0.0.1" for name in names]
        Path("/etc/resolv.conf").unlink(missing_ok=True)
        Path("/etc/resolv.conf").write_text("nameserver 127.0.0.1\n")
        dnsmasq = [program("dnsmasq"), "--no-daemon", "--conf-file=/dev/null", "--no-hosts",
                   "--no-resolv", "--user=root", "--pid-file=", *records]
        daemon = self.stack.enter_context(Daemon(dnsmasq, self.dir / "dnsmasq.log"))
        daemon.wait("dnsmasq", lambda: listens(53))

    def trust(self):
        """Puts the authority among the system's."""
        hashed = run([program("openssl"), "x509", "-in", self.authority.ca, "-noout", "-hash"])
        shutil.copy(self.authority.ca, f"/etc/ssl/certs/{hashed.strip()}.0")

    def write_config(self):
        """Copies the recipe, as far as it can be left as it is."""
        text = self.recipe.read_text()
        for old, new in self.changes:
            assert old in text, f"{self.recipe.name} has no {old!r}"
            text = text.replace(old, new)
        self.port = 25
        self.config_path.parent.mkdir(exist_ok=True)
        self.config_path.write_text(text)

    def password(self):
        """Does what the head of a recipe says about the password."""
        run(["sh", "-c", "install -m 600 -o mailwren /dev/stdin /etc/mailwren/password"],
            input=f"{SECRET}\n".encode())

    def root_reads(self, address):
        """Does what it says about root's mail."""
        Path("/etc/aliases").write_text(f"root: {address}\n")

    def check(self):
        """`mailwren check` has nothing to say."""
        printed = run([binary(), "check"], env=self.environment()).splitlines()
        told = [line for line in printed if not is_of_the_house(line)]
        assert told == [f"{self.config_path}: no mistakes found"], printed


def is_of_the_house(line):
    """Whether a line of `mailwren check` is a note, or about there being no network here."""
    return ": note: " in line or "this host has no network" in line


def read(octets):
    """A message, parsed."""
    return email.message_from_bytes(octets, policy=email.policy.default)


def cron_mails_root(host):
    """cron's command line, as root."""
    host.run(["/usr/sbin/sendmail", "-i", "-FCronDaemon", "-B8BITMIME", "-oem", "root"], "root",
             input="From: root (Cron Daemon)\nTo: root\nSubject: Cron\n\nback up failed\n")


def check_provided(host, provider, address):
    """root's mail and that of a user come to the provider under the account's address, and local mail
    stays."""
    host.check()
    cron_mails_root(host)
    host.run(["mail", "-s", "to far", "zoe@far.test"], "ann", input="x\n")
    host.run(["mail", "-s", "to bob", "bob"], "ann", input="x\n")
    host.take("bob", "ann@house.test", "to bob", to="bob@house.test")
    messages = provider.wait_messages(2)
    host.wait_queue(0)
    found = {tuple(message.recipients): read(message.content) for message in messages}
    assert set(found) == {(address,), ("zoe@far.test",)}, found
    assert "Cron Daemon" in found[address,]["From"], found[address,]["From"]
    assert {address} == {parseaddr(message["From"])[1] for message in found.values()}
    assert {message.sender for message in messages} == {address}
    assert not provider.refused, provider.refused
    assert not re.search(": (deferred|bounced) ", host.log()), host.log()


@own_house
def test_gmail():
    """gmail.ini: with an app password mail of root and of users gets to Google under the account's
    address; what is too large for Google is refused at once."""
    host = Cooked("gmail", ["smtp.gmail.com"])
    host.root_reads("me@gmail.com")
    pair = host.authority.issue("smtp.gmail.com")
    with Gmail(pair, "me@gmail.com", SECRET) as provider:
        host.config_path.parent.mkdir(exist_ok=True)
        host.password()
        with host:
            check_provided(host, provider, "me@gmail.com")
            host.run(["/usr/sbin/sendmail", "zoe@far.test"], "ann", expect=69,
                     input=b"Subject: large\n\n" + (b"x" * 75 + b"\n") * 360_000)


@own_house
def test_office365():
    """office365.ini: with a token of a command mail gets to Microsoft under the account's address, over
    three connections at most."""
    host = Cooked("office365", ["smtp.office365.com"])
    host.root_reads("me@example.com")
    command = Path("/usr/local/bin/mail-token")
    command.write_text(f"#!/bin/sh\n[ $(id -un) = mailwren ] && echo {TOKEN}\n")
    command.chmod(0o755)
    pair = host.authority.issue("smtp.office365.com")
    with Office(pair, "me@example.com", TOKEN) as provider, host:
        check_provided(host, provider, "me@example.com")
        for number in range(20):
            host.run(["/usr/sbin/sendmail", f"zoe@far{number}.test"], "ann",
                     input="Subject: many\n\nx\n")
        provider.wait_messages(22)
        assert provider.most <= provider.at_once and not provider.refused, provider.refused


class Fastmail(Postfix):
    """Postfix on port 465 alone, which takes one sender from an account, in the envelope and in
    From."""

    ACCOUNT = "me@fastmail.com"
    refused = ()

    def main(self, accounts):
        """main.cf."""
        self.ports = {("implicit", "good"): 465}
        own = self.ACCOUNT.replace(".", r"\.")
        owners, fields = self.folder / "owners", self.folder / "fields"
        owners.write_text(f"/^{own}$/ {self.ACCOUNT}\n")
        fields.write_text(f"if /^From:/\n!/^From:([^@]*[ <])?{own}/ "
                          "REJECT 5.7.1 not authorised to send from this header address\nendif\n")
        return super().main(accounts) + f"""smtpd_sender_restrictions = reject_sender_login_mismatch
smtpd_sender_login_maps = regexp:{owners}
header_checks = regexp:{fields}
nested_header_checks =
"""

    def wait_messages(self, count):
        """What it has delivered."""
        messages = map(read, self.wait_mail(count))
        return [Message(m["Return-Path"].strip("<>"), [m["Delivered-To"]], m.as_bytes(), 0)
                for m in messages]


@own_house
def test_fastmail():
    """fastmail.ini: with an app password and TLS from the beginning mail gets to a provider that
    refuses any other sender."""
    host = Cooked("fastmail", ["smtp.fastmail.com"])
    host.root_reads("me@fastmail.com")
    host.config_path.parent.mkdir(exist_ok=True)
    host.password()
    host.dir.chmod(0o711)
    pairs = {"good": host.authority.issue("smtp.fastmail.com", by_intermediate=True)}
    with Dovecot(host.dir, {Fastmail.ACCOUNT: SECRET}) as accounts, \
            Fastmail(host.dir, pairs, accounts) as provider, host:
        check_provided(host, provider, Fastmail.ACCOUNT)


class Example(StandIn):
    """A provider like any other."""

    name, mechanisms, max_size = "smtp.example.com", "PLAIN LOGIN", 60 << 20


@own_house
def test_lan_relay():
    """lan-relay.ini: a scanner on port 25 and an old camera on 2525 reach the provider without a
    login; nobody of another network does."""
    ip = program("ip")
    for address in ("192.168.1.2/24", "192.168.1.50/24", "192.168.1.51/24", "198.51.100.7/32"):
        run([ip, "address", "add", address, "dev", "lo"])
    host = Cooked("lan-relay", ["smtp.example.com"])
    host.root_reads("me@example.com")
    host.config_path.parent.mkdir(exist_ok=True)
    host.password()
    pair = host.authority.issue("smtp.example.com")
    with Example(pair, "me@example.com", SECRET) as provider, host:
        host.check()
        run([program("swaks"), "--server", "192.168.1.2", "--local-interface", "192.168.1.50",
             "--ehlo", "scanner", "--from", "scanner@home.example", "--to", "zoe@far.test",
             "--attach", "@/bin/ls", "--tls-optional"])
        with Client("192.168.1.2", 2525, "192.168.1.51") as camera:
            camera.expect(220)
            camera.command(b"HELO camera\n", 250)
            camera.command(b"MAIL FROM:<camera@home.example>\n", 250)
            camera.command(b"RCPT TO:<zoe@far.test>\n", 250)
            camera.command(b"DATA\n", 354)
            camera.command(b"Subject: somebody\n\nat the door\n\r\n.\r\n", 250)
        cron_mails_root(host)
        messages = provider.wait_messages(3)
        assert [m.recipients for m in messages].count(["zoe@far.test"]) == 2
        assert {m.sender for m in messages} == {"me@example.com"}, messages
        assert not provider.refused, provider.refused
        authors = {read(m.content)["X-Original-From"] for m in messages}
        assert any("scanner@home.example" in (author or "") for author in authors), authors
        for port in (25, 2525):
            with Client("192.168.1.2", port, "198.51.100.7") as stranger:
                stranger.expect(554)


@own_house
def test_local_only():
    """local-only.ini: cron's mail gets into the mailbox of who reads root's; nothing leaves."""
    host = Cooked("local-only")
    host.root_reads("ann")
    with host:
        host.check()
        cron_mails_root(host)
        host.take("ann", "root@house.test", "Cron", ("Cron Daemon", "root@house.test"),
                  to="root@house.test")
        host.run(["/usr/sbin/sendmail", "zoe@far.test"], "ann", expect=67,
                 input="Subject: x\n\nx\n")
        host.run(["/usr/sbin/sendmail", "bob@far.test"], "ann", input="Subject: here\n\nx\n")
        host.take("bob", "ann@house.test", "here")
        with host.session() as client:
            client.command("MAIL FROM:<ann@house.test>", 250)
            client.command("RCPT TO:<zoe@far.test>", 550)


DOVECOT = """protocols = imap
listen = 127.0.0.1
ssl = no
disable_plaintext_auth = no
log_path = /dev/stderr
mail_location = maildir:~/Maildir
mail_plugins = quota
auth_mechanisms = plain login
passdb {
  driver = passwd-file
  args = /etc/dovecot/passwords
}
userdb {
  driver = passwd
}
protocol imap {
  mail_plugins = quota imap_quota
}
service auth {
  unix_listener auth-client {
    mode = 0660
    user = mailwren
  }
}
plugin {
  quota = maildir
  quota_rule = *:storage=1M
}
"""


@own_house
def test_dovecot():
    """dovecot.ini: people log in with Dovecot's passwords, send over 587 and 465, read by IMAP what
    came on port 25, and a quota that Dovecot keeps counts."""
    host = Cooked("dovecot", ["mail.example.org"])
    host.root_reads("ann")
    pair = host.authority.issue("mail.example.org", by_intermediate=True)
    live = Path("/etc/letsencrypt/live/mail.example.org")
    live.mkdir(parents=True)
    shutil.copy(pair.certificate, live / "fullchain.pem")
    shutil.copy(pair.key, live / "privkey.pem")
    Path("/etc/dovecot/dovecot.conf").write_text(DOVECOT)
    Path("/etc/dovecot/passwords").write_text("ann:{PLAIN}secret\nbob:{PLAIN}other\n")
    with Daemon([program("dovecot"), "-F"], host.dir / "dovecot.log") as dovecot, host:
        dovecot.wait("dovecot", lambda: listens(143))
        host.check()
        context = ssl.create_default_context(cafile=str(host.authority.ca))
        name = "mail.example.org"
        with smtplib.SMTP(name, 587) as client:
            client.starttls(context=context)
            client.login("ann", "secret")
            client.sendmail("ann@example.org", "bob@example.org",
                            "From: ann@example.org\r\nSubject: by 587\r\n\r\nx\r\n")
        with smtplib.SMTP_SSL(name, 465, context=context) as client:
            client.login("bob", "other")
            client.sendmail("bob@example.org", "ann@example.org",
                            "From: bob@example.org\r\nSubject: by 465\r\n\r\nx\r\n")
        host.deliver("bob@example.org", b"Subject: by 25\r\n\r\nx\r\n")
        host.wait_queue(0)
        assert subjects("bob", "other") == {"by 587", "by 25"}
        assert subjects("ann", "secret") == {"by 465"}
        run([program("ip"), "address", "add", "198.51.100.7/32", "dev", "lo"])
        with host.session("198.51.100.7") as stranger:
            stranger.command("MAIL FROM:<zoe@far.test>", 250)
            stranger.command("RCPT TO:<zoe@far.test>", 550)
        host.deliver("bob@example.org", b"Subject: large\r\n\r\n" +
                     (b"y" * 75 + b"\r\n") * 30_000)
        host.wait_log(r"deferred to=<bob@example\.org> status=4\.2\.2")


def subjects(user, password):
    """What a person sees by IMAP."""
    session = imaplib.IMAP4("127.0.0.1")
    session.login(user, password)
    session.select("INBOX")
    # Which has Dovecot begin to count.
    assert session.getquotaroot("INBOX")[0] == "OK"
    numbers = session.search(None, "ALL")[1][0].split()
    found = [session.fetch(number, "(BODY[HEADER.FIELDS (SUBJECT)])")[1] for number in numbers]
    session.logout()
    return {part[0][1].decode().partition(":")[2].strip() for part in found}


@own_house
def test_check():
    """`mailwren check` finds nothing in any recipe but what it tells its reader to put there."""
    missing = ("the password cannot be read", "put it there, or name another one in [tls]",
               "Dovecot is not there", "nobody reads root's mail",
               "has no address 192.168.1.2 now")
    recipes = sorted(RECIPES.glob("*.ini"))
    assert len(recipes) >= 6
    Path("/etc/aliases").unlink(missing_ok=True)
    for recipe in recipes:
        printed = run(["sh", "-c", f"{binary()} --config {recipe} check || true"])
        wrong = [line for line in printed.splitlines() if not line.endswith(": no mistakes found")
                 and not is_of_the_house(line) and not any(text in line for text in missing)]
        assert wrong == [], wrong
