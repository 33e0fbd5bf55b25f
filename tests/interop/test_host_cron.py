"""What runs by the clock: cron, at and anacron, each with the sendmail call that is built into it."""

import time
from pathlib import Path

from harness import wait_for
from host import Host, only_crontabs, own_house
from test_clock import library

ROOT, ANN, BOB = (f"{user}@house.test" for user in ("root", "ann", "bob"))
CRON = ("Cron Daemon", ROOT)
# A job that prints what a program may damage on its way.
COMMAND = r"printf 'H\303\244llo\n.\nFrom cron\n'"


@own_house
def test_output_of_cron():
    """What a job of cron prints is mail for MAILTO or for the crontab's owner, and only then."""
    only_crontabs()
    with Host() as host:
        host.run(["crontab", "-"], "ann", input=f"@reboot {COMMAND}\n@reboot true\n")
        host.run(["crontab", "-"], input=f'MAILTO=bob\n@reboot echo for bob\nMAILTO=""\n'
                 "@reboot echo for nobody; touch /tmp/said\n")
        Path("/etc/cron.d/house").write_text("@reboot root echo of the system\n")
        host.background(["cron", "-f"])
        message = host.take("ann", ANN, f"Cron <ann@house> {COMMAND}", CRON, ANN)
        assert message.get_payload(decode=True) == "Hällo\n.\n>From cron\n".encode(), message
        assert ("X-Cron-Env", "<LOGNAME=ann>") in message.items(), message
        message = host.take("bob", ROOT, "Cron <root@house> echo for bob", CRON, BOB)
        assert message.get_content() == "for bob\n", message
        message = host.take("root", ROOT, "Cron <root@house> echo of the system", CRON, ROOT)
        assert message.get_content() == "of the system\n", message
        wait_for("the silent job", Path("/tmp/said").exists)
        assert not any(host.contents(user) for user in ("ann", "bob", "root"))


@own_house
def test_cron_each_minute():
    """A job of each minute is run at the next full one, and its output comes into a Maildir."""
    only_crontabs()
    with Host({"local": {"format": "maildir"}}) as host:
        host.run(["crontab", "-"], "ann", input="* * * * * echo each minute >&2\n")
        # Its clock, and no other one's, is about to be at a full minute.
        offset = 57 - int(time.time()) % 60
        host.background(["env", f"LD_PRELOAD={library()}", f"FAKETIME={offset:+d}", "cron", "-f"])
        wait_for("the first minute", lambda: host.contents("ann"))
        # Not a second one, which would be another minute's.
        host.run(["crontab", "-r"], "ann")
        message = host.take("ann", ANN, "Cron <ann@house> echo each minute >&2", CRON, ANN)
        assert message.get_content() == "each minute\n", message


@own_house
def test_at():
    """What a job of at prints is mail for its owner; with -m also when it printed nothing."""
    with Host() as host:
        host.background(["atd", "-f"])
        wait_for("atd", Path("/run/atd.pid").exists)
        host.run(["at", "now"], "ann", input=f"{COMMAND}\n")
        subject = "Output from your job        1"
        message = host.take("ann", ANN, subject, to=ANN)
        assert message.get_payload(decode=True) == "Hällo\n.\n>From cron\n".encode(), message
        host.run(["at", "-m", "now"], "bob", input="true\n")
        host.take("bob", BOB, subject.replace("1", "2"), to=BOB)


@own_house
def test_anacron():
    """What a job of anacron prints is mail for root."""
    table = "SHELL=/bin/sh\nMAILTO=root\n1 0 house echo Hällo; echo .; echo lost\n"
    with Host() as host:
        Path("/etc/anacrontab").write_text(table)
        # Without delay, and in the foreground up to the end of its last job.
        host.run(["anacron", "-d", "-n", "-f"])
        message = host.take("root", ROOT, "Anacron job 'house' on house.test", ("Anacron", ROOT),
                            ROOT)
        # It has no -i: a lone dot of a job's output ends the message.
        assert message.get_payload(decode=True) == "Hällo\n".encode(), message
