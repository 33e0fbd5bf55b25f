"""The stock programs of a host whose mail all goes to a provider that takes it from one address alone,
with `[rewrite] sender` as the only line about it."""

import email
import os
import re
import shlex
import shutil
import smtplib
from email.header import decode_header, make_header
from email.utils import parseaddr
from pathlib import Path

from harness import binary, run, wait_for
from host import Host, only_crontabs, own_house
from providers import NAME, PASSWORD, USER
from test_clock import library
from test_host_code import PATCHES
from test_rewrite import World

ME = "me@far.test"
# Each program: as whom, the command, what it reads, and the name that a mail reader shows.
PROGRAMS = [
    ("root", ["mail", "-s", "bsd-mailx", "root"], "x\n", "root on house.test"),
    ("ann", ["mail", "-s", "bsd-mailx", ME], "x\n", "ann on house.test"),
    ("ann", ["mail.mailutils", "-s", "mailutils", ME], "x\n", "ann on house.test"),
    ("ann", ["s-nail", "-s", "s-nail", ME], "x\n", "ann on house.test"),
    ("ann", ["mutt", "-s", "mutt", ME], "x\n", "ann on house.test"),
    ("ann", ["php", "-r", f"exit(mail('{ME}', 'php', 'x') ? 0 : 1);"], "", "ann on house.test"),
    ("root", ["/usr/sbin/sendmail", "-FAnacron", "-odi", "root"], "Subject: anacron\n\nx\n",
     "Anacron on house.test"),
    ("root", ["/usr/sbin/sendmail", "-t"], "From: mdadm monitoring <root>\nTo: root\n\nx\n",
     "mdadm monitoring on house.test"),
    ("root", ["/usr/sbin/sendmail", "-oi", "-t"], "To: root\nSubject: [package on hold]\n\nx\n",
     "root on house.test"),
    # As cronie has it.
    ("root", ["/usr/sbin/sendmail", "-FCronDaemon", "-i", "-odi", "-oem", "-oi", "-t", "-f", "root"],
     'From: "(Cron Daemon)" <root>\nTo: root\nSubject: cronie\n\nx\n', "(Cron Daemon) on house.test"),
]


def settings(world):
    """A host that sends everything to the provider."""
    password, authority = Path("/etc/mailwren/password"), Path("/etc/mailwren/ca.pem")
    password.parent.mkdir(exist_ok=True)
    password.write_text(f"{PASSWORD}\n")
    password.chmod(0o600)
    shutil.chown(password, "mailwren")
    shutil.copy(world.authority.ca, authority)
    authority.chmod(0o644)
    Path("/etc/aliases").write_text(f"root: {ME}\n")
    port = world.provider.port("starttls")
    return {"smarthost": {"host": f"{NAME}:{port}", "tls": "starttls", "user": USER,
                          "password_file": password, "ca": authority},
            "dns": {"servers": world.dns}, "rewrite": {"sender": USER}}


def author(octets):
    """The name that a mail reader shows for a message, and the address."""
    name, address = parseaddr(email.message_from_bytes(octets)["From"])
    return str(make_header(decode_header(name))), address


@own_house
def test_programs_at_a_strict_provider():
    """What cron, mail(1), mutt, PHP and the others send is taken, and its From names the host."""
    only_crontabs()
    with World() as world, Host(settings(world)) as host:
        for count, (user, command, text, name) in enumerate(PROGRAMS, 1):
            host.run(command, user, input=text)
            octets = world.provider.wait_mail(count)[-1]
            assert author(octets) == (name, USER), (command, octets.decode())
            assert b"Return-Path: <%s>" % USER.encode() in octets, octets.decode()
        host.run(["crontab", "-"], input="@reboot echo of cron\n")
        host.background(["cron", "-f"])
        octets = world.provider.wait_mail(count + 1)[-1]
        assert author(octets) == ("Cron Daemon on house.test", USER), octets.decode()
        host.wait_queue(0)
        assert "rejected" not in host.log(), host.log()


def call_house():
    """Gives the host its names as Debian's installer does."""
    run(["hostname", "house"])
    Path("/etc/mailname").write_text("house.home.test\n")
    Path("/etc/hosts").write_text("127.0.0.1 localhost\n127.0.1.1 house.home.test house\n")


@own_house
def test_a_name_in_two_parts():
    """A host as Debian's installer makes one: it is called by a short name, and some programs find the
    full one in /etc/hosts and /etc/mailname. Its mail is read here, and taken by the provider."""
    only_crontabs()
    call_house()
    fail2ban = ["/usr/sbin/sendmail", "-f", "root@house.home.test"]
    programs = [("ann", ["mail.mailutils", "-s", "mailutils"], "x\n"),
                ("ann", ["mutt", "-s", "mutt"], "x\n"),
                ("root", fail2ban, "From: Fail2Ban <root@house.home.test>\nSubject: ban\n\nx\n")]
    with World() as world, \
            Host({**settings(world), "server": {"hostname": None}}) as host:
        for count, (user, command, text) in enumerate(programs, 1):
            host.run([*command, "bob"], user, input=text)
            assert f"<{user}@house" in host.wait_mail("bob")[0].decode()
            host.empty("bob")
            host.run([*command, ME], user, input=text)
            octets = world.provider.wait_mail(count)[-1]
            name = "Fail2Ban on house" if command is fail2ban else f"{user} on house"
            assert author(octets) == (name, USER), octets.decode()
            assert b"Return-Path: <%s>" % USER.encode() in octets, octets.decode()
        host.wait_queue(0)
        assert "rejected" not in host.log(), host.log()


def gathered(host):
    """How many messages wait to go out as one."""
    return run([binary(), "queue", "list"], env=host.environment()).count("gathered until")


@own_house
def test_a_name_in_two_parts_by_smtp():
    """On the same host, programs that speak SMTP themselves, as monit does, reach its users and root's
    alias by each name that the host has, and by no other. The provider, which refuses a client that
    calls itself by a short name, takes what goes there."""
    call_house()
    names = ["house", "house.home.test", "localhost", "localhost.localdomain"]
    with World() as world, \
            Host({**settings(world), "server": {"hostname": None}}) as host:
        for count, name in enumerate(names, 1):
            with smtplib.SMTP("127.0.0.1") as client:
                assert client.sendmail(f"monit@{name}", [f"root@{name}", f"bob@{name}"],
                                       "Subject: x\n\nx\n") == {}
                client.mail(f"monit@{name}")
                assert client.rcpt(f"nobody-here@{name}")[0] == 550, name
            assert b"Subject: x" in world.provider.wait_mail(count)[-1]
            host.wait_mail("bob", count)
        told = host.run(["mailwren", "route", "root@house.home.test", "root@home.test"])
        assert told.startswith(f"root@house.home.test: an alias for <{ME}>"), told
        assert "root@home.test: relayed to" in told, told
        assert b"Received: from house.home.test (" in world.provider.wait_mail(count)[-1]


@own_house
def test_flood_of_cron():
    """A crontab with more output than a person wants: as many messages as may go by themselves, and
    one with all the others, through a kill -9 in the middle; mutt opens what is in it."""
    only_crontabs()
    jobs, burst = 12, 3
    with World() as world, Host({**settings(world), "digest": {"burst": str(burst)}}) as host:
        host.run(["crontab", "-"], input="".join(
            f"@reboot echo job {number} failed; exit 1\n" for number in range(jobs)))
        host.background(["cron", "-f"])
        world.provider.wait_mail(burst)
        wait_for("the others", lambda: gathered(host) == jobs - burst)
        host.kill()
        host.start()
        world.provider.wait_mail(2 * burst)
        wait_for("the others", lambda: gathered(host) == jobs - 2 * burst)
        run([binary(), "queue", "retry", "--all"], env=host.environment())
        messages = world.provider.wait_mail(2 * burst + 1)
        host.wait_queue(0)
        found = re.findall(rb"(?m)^job (\d+) failed", b"".join(messages))
        assert sorted(map(int, found)) == list(range(jobs)), found
        assert author(messages[-1]) == ("root on house.test", USER), messages[-1].decode()
        check_in_mutt(host, messages[-1], jobs - 2 * burst)


@own_house
def test_flood_of_mail_each_minute():
    """A job of each minute fails and calls mail(1), whose messages do not say that a program sent them:
    as many as may go by themselves do so, and one has all the others."""
    only_crontabs()
    jobs, burst = 8, 3
    with World() as world, Host({**settings(world), "digest": {"burst": str(burst)}}) as host:
        # It fails so many times.
        host.run(["tee", "backup"], "ann", input=f"for n in $(seq {jobs}); do\n"
                 "mkdir done.$n 2>/dev/null && echo disk $n is full && exit 1; done; exit 0\n")
        host.run(["crontab", "-"], "ann",
                 input=f'* * * * * text=$(sh backup) || echo "$text" | mail -s failed {ME}\n')
        # A minute of its clock takes a fifth of a second.
        host.background(["env", f"LD_PRELOAD={library()}", "FAKETIME=+0 x300", "cron", "-f"])
        world.provider.wait_mail(burst)
        wait_for("the others", lambda: gathered(host) == jobs - burst)
        run([binary(), "queue", "retry", "--all"], env=host.environment())
        messages = world.provider.wait_mail(burst + 1)
        host.wait_queue(0)
        found = re.findall(rb"(?m)^disk (\d+) is full", b"".join(messages))
        assert sorted(map(int, found)) == list(range(1, jobs + 1)), found
        assert email.message_from_bytes(messages[-1])["Subject"] == \
            f"[house.test] {jobs - burst} messages: failed", messages[-1].decode()
        assert author(messages[-1]) == ("ann on house.test", USER), messages[-1].decode()
        assert not any(b"X-Cron-Env" in message for message in messages), messages


@own_house
def test_patch_series():
    """The patches of a series refer to the first and come one by one, however many. Where git was told
    not to refer, they are a flood like any other."""
    with World() as world, Host({**settings(world), "digest": {"burst": "2"}}) as host:
        host.run(["sh", "-c", PATCHES], "ann")
        command = ["git", "send-email", "--to", ME, "--suppress-cc=all", "--confirm=never"]
        # The letters of both series are the only ones that count.
        for count in (3, 6):
            host.run([*command, "/home/ann/patches"], "ann")
            world.provider.wait_mail(count)
        host.run([*command, "--no-thread", "/home/ann/patches"], "ann")
        wait_for("those without a thread", lambda: gathered(host) == 3)
        run([binary(), "queue", "retry", "--all"], env=host.environment())
        digest = world.provider.wait_mail(7)[-1]
        assert b"\n+.\n" in digest and b"Two patches" in digest, digest.decode()


def check_in_mutt(host, octets, count):
    """mutt shows all messages of a digest, each with its subject and its text."""
    Path("/tmp/digest").write_bytes(b"From x Sun Nov 22 12:00:00 2026\n" + octets + b"\n")
    # Else it asks whether to make it.
    host.run(["mkdir", "-p", "Mail"])
    # A pipe gets what the pager would show.
    command = ["mutt", "-R", "-n", "-f", "/tmp/digest", "-e", "set pipe_decode quit=yes wait_key=no",
               "-e", "push '<pipe-message>cat >/tmp/shown<enter><quit>'"]
    # A terminal that hangs up would end it at once.
    keyboard, fingers = os.pipe()
    host.run(["script", "--quiet", "--return", "--command", shlex.join(command), "/dev/null"],
             stdin=keyboard, environment={"TERM": "xterm"})
    os.close(keyboard)
    os.close(fingers)
    shown = Path("/tmp/shown").read_text()
    found = re.findall(r"Subject: Cron <root@house> echo job (\d+) failed; exit 1\n(?:\S.*\n)*\n"
                       r"(?:\[--.*\n|\n)*job (\d+) failed\n", shown)
    assert len(found) == count and all(one == other for one, other in found), shown
    assert "=_" not in shown, shown


@own_house
def test_automatic_reply():
    """The reply of somebody who is away is taken too: nobody's in the envelope, and From names her."""
    only_crontabs()
    with World() as world, Host({**settings(world), "local": {"vacation": "yes"}}) as host:
        host.run(["tee", ".vacation.msg"], "ann", input="From: Jörg Ann <ann>\n\nI am away.\n")
        content = b"From: carl@far.test\r\nTo: ann@house.test\r\nSubject: lunch\r\n\r\nx\r\n"
        host.deliver("ann@house.test", content, sender="carl@far.test")
        reply = world.provider.wait_mail()[0]
        assert b"Return-Path: <>\n" in reply, reply.decode()
        assert author(reply) == ("Jörg Ann on house.test", USER), reply.decode()
        assert b"Delivered-To: carl@far.test\n" in reply, reply.decode()
        host.wait_queue(0)
        host.deliver("ann@house.test", content, sender="carl@far.test")
        host.wait_queue(0)
        world.provider.wait_mail()
