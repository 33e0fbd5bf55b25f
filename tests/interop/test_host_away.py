"""Programs that mail while no server runs: each is content, and its mail is there after the start."""

from pathlib import Path

from harness import wait_for
from host import NAME, Host, only_crontabs, own_house

ROOT, ANN, BOB = (f"{user}@{NAME}" for user in ("root", "ann", "bob"))
PATCH = """
git config --global user.name Ann && git config --global user.email ann@house.test &&
git init -q r && cd r && git commit -q --allow-empty -m 'One thing' &&
git format-patch -q --root --always -o ../patches
"""


def left(host):
    """The messages that programs have left for the server."""
    return [file for file in (host.spool / "drop").iterdir() if file.is_file()]


@own_house
def test_mail_by_hand():
    """mail(1) of three kinds, mutt, git and PHP end well without a server; nothing is lost."""
    programs = {
        "bsd": ["mail", "-s", "bsd", "bob"],
        "mailutils": ["mail.mailutils", "-s", "mailutils", "bob"],
        "s-nail": ["s-nail", "-s", "s-nail", "bob"],
        "mutt": ["mutt", "-s", "mutt", "bob"],
        "php": ["php", "-r", 'exit(mail("bob", "php", "text") ? 0 : 1);'],
        "[PATCH] One thing": ["git", "send-email", "--to", BOB, "--suppress-cc=all", "--confirm=never",
                              "/home/ann/patches"],
    }
    with Host() as host:
        host.run(["sh", "-c", PATCH], "ann")
        for subject, command in programs.items():
            host.stop()
            host.run(command, "ann", input="text\n")
            assert len(left(host)) == 1, (subject, left(host))
            assert left(host)[0].owner() == "ann", left(host)
            host.start()
            author = ("Ann", ANN) if subject.startswith("[") else ("", ANN)
            host.take("bob", ANN, subject, author, BOB)
            assert not left(host), subject


@own_house
def test_mail_by_the_clock():
    """What jobs of cron and at print without a server comes when there is one, from their owners."""
    only_crontabs()
    with Host() as host:
        host.stop()
        host.run(["crontab", "-"], "ann", input="@reboot echo of ann\n")
        Path("/etc/cron.d/house").write_text("@reboot root echo of root\n")
        host.background(["cron", "-f"])
        host.background(["atd", "-f"])
        wait_for("atd", Path("/run/atd.pid").exists)
        host.run(["at", "now"], "bob", input="echo of bob\n")
        wait_for("three messages", lambda: len(left(host)) == 3)
        host.start()
        cron = ("Cron Daemon", ROOT)
        host.take("ann", ANN, "Cron <ann@house> echo of ann", cron, ANN)
        host.take("root", ROOT, "Cron <root@house> echo of root", cron, ROOT)
        host.take("bob", BOB, "Output from your job        1", to=BOB)
