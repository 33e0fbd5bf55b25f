"""What the users of a host might try against the server that was started as root: their `.forward`,
lists of theirs in the alias file, commands, and what they leave in drop/."""

import os
import re
import shutil
import stat
from email import message_from_bytes
from pathlib import Path

from disk import mount, own_mounts
from harness import Server, binary, run, wait_for

# The server's account, then two users. Their ids are nobody's on the machine.
ACCOUNTS = {"wren": 3100, "ann": 3101, "bob": 3102}
SECRET = "correct-horse-battery"


class Host(Server):
    """A server that was started as root, with accounts and homes of this test's own."""

    def __init__(self, settings=None):
        settings = dict(settings or {})
        local = {"users": "system", "aliases": "DIR/aliases", "path": "DIR/mail/{user}",
                 "command_user": "daemon", "command_timeout": "20s", **settings.pop("local", {})}
        super().__init__({"server": {"user": "wren"}, "local": local, **settings})
        self.dir.chmod(0o755)
        for name in ("passwd", "group"):
            text = Path(f"/etc/{name}").read_text().replace(":/root:", f":{self.home('root')}:")
            for user, number in ACCOUNTS.items():
                text += f"{user}:x:{number}:{number}:{user}:{self.home(user)}:/bin/sh\n" \
                    if name == "passwd" else f"{user}:x:{number}:\n"
            (self.dir / name).write_text(text)
            mount("--bind", self.dir / name, f"/etc/{name}")
        for user in ("ann", "bob"):
            self.home(user).mkdir(parents=True)
            self.home(user).chmod(0o755)
            self.give(self.home(user), user)
        self.mail.chmod(0o1777)
        self.aliases = self.dir / "aliases"
        self.aliases.write_text("")
        shutil.copy(binary(), self.dir / "sendmail")
        for path in (self.spool, self.dir / "state"):
            path.mkdir(mode=0o700)
            self.give(path, "wren")

    def home(self, user):
        """A user's home."""
        return self.dir / "homes" / user

    def give(self, path, user):
        """Makes a path a user's."""
        os.chown(path, ACCOUNTS[user], ACCOUNTS[user], follow_symlinks=False)

    def write(self, user, name, text, mode=0o644):
        """Writes a file of a user's in the home, as the user would."""
        path = self.home(user) / name
        path.write_text(text)
        path.chmod(mode)
        self.give(path, user)
        return path

    def run_as(self, user, command, expect=0, **options):
        """Runs a command as a user."""
        number = ACCOUNTS[user]
        return run(command, expect, user=number, group=number, extra_groups=[],
                   cwd=self.home(user), env=self.environment(), **options)

    def sendmail(self, user, arguments, content=b"Subject: x\n\nbody\n", expect=0):
        """Sends a message as a user."""
        return self.run_as(user, [self.dir / "sendmail", *arguments], expect, input=content)


def hostile_address():
    """A recipient and a sender that a shell, an option parser or a log could stumble over."""
    return '"ann+-$(id);`id`\'|x"@mx.test', '"-bob $(touch x)"@client.test'


@own_mounts
def test_lists_show_no_secret():
    """A link in the place of a list, or of its folder, shows nobody what only the server may read:
    those whom the list had before get its mail, and after a restart it waits."""
    with Host({"server": {"user": "wren", "vrfy": "yes"}}) as server:
        secret = server.dir / "password"
        secret.write_text(SECRET + "\n")
        secret.chmod(0o640)
        os.chown(secret, 0, ACCOUNTS["wren"])
        lists = server.home("ann") / "lists"
        server.aliases.write_text(f"friends: :include:{lists}/password\n")
        lists.mkdir()
        server.give(lists, "ann")
        server.write("ann", "lists/password", "bob\n", mode=0o600)
        server.sendmail("ann", ["friends"])
        server.wait_mail("bob")

        def links():
            (lists / "password").unlink()
            yield (lists / "password"), secret
            (lists / "password").unlink()
            lists.rmdir()
            yield lists, server.dir
        def asked(code):
            with server.session() as client:
                client.command("MAIL FROM:<eve@client.test>", 250)
                reply = client.command("RCPT TO:<friends@mx.test>", code)
                assert SECRET not in reply.text, reply
                assert SECRET not in client.command("EXPN friends").text
            server.sendmail("ann", ["friends"])
        for number, (link, target) in enumerate(links(), 2):
            link.symlink_to(target)
            server.give(link, "ann")
            asked(250)
            server.wait_mail("bob", number)
        server.stop()
        server.start()
        # What cannot be looked up now waits.
        asked(451)
        server.wait_log(r"deferred to=<friends@mx.test>")
        assert not server.new_mail("ann"), server.new_mail("ann")
        assert SECRET not in server.log()
        server.wait_log(r"user id 3101, who can change where it leads, may not read it")


@own_mounts
def test_what_is_around_a_command():
    """A command has its user's rights, a dozen harmless variables, three descriptors, and no way to
    the server."""
    with Host() as server:
        out, pid = server.home("ann") / "out", server.process.pid
        probes = [
            "env | sort | sed s/^/env:/",
            # In a shell of its own: pipes and files of this command are not the script's then.
            "(ls -l /proc/$$/fd >fds); sed -n 's/.* -> /fd:/p' fds",
            "grep -E '^(Uid|Gid|Groups|Cap[IPEA]|Sig[BI])' /proc/self/status", "echo umask:$(umask)",
            f"cat /proc/{pid}/environ", f"ls /proc/{pid}/fd/", f"head -c1 /proc/{pid}/mem",
            f"kill -0 {pid}", f"cat {server.spool}/queue/*", f"ls {server.spool}/drop",
            f"ls {server.dir}/state",
        ]
        script = server.write("ann", "probe", "#!/bin/sh\nexec 2>&1\n" + "\n".join(probes) + "\n")
        server.write("ann", ".forward", f'"|sh {script} >{out}.new; mv {out}.new {out}"\n')
        recipient, sender = hostile_address()
        with server.session() as client:
            client.send_message(sender, [recipient], b"Subject: x\r\n\r\n")
        wait_for("the command", out.exists)
        text = out.read_text()
        found = dict(line[4:].split("=", 1) for line in text.splitlines() if line.startswith("env:"))
        assert set(found) - {"_", "OLDPWD", "PWD"} == {
            "PATH", "HOME", "USER", "LOGNAME", "SHELL", "SENDER", "RECIPIENT", "ORIGINAL_RECIPIENT",
            "LOCAL", "DOMAIN", "EXTENSION", "QUEUE_ID"}, found
        assert all(re.fullmatch(r"[A-Za-z0-9!@%_=+:,./\[\]-]*", value) for value in found.values())
        assert found["EXTENSION"] == "___id___id___x", found
        assert found["SENDER"].startswith("_-bob"), found
        # The message, what is printed, and the script, which the shell reads.
        files = [re.sub(r":\[\d+\]", "", name) for name in re.findall(r"^fd:(.*)", text, re.M)]
        assert sorted(files) == sorted(["pipe", f"{out}.new", f"{out}.new", str(script)]), text
        number = ACCOUNTS["ann"]
        assert re.search(rf"^Uid:\s+{number}\s+{number}\s+{number}\s+{number}$", text, re.M), text
        assert re.search(rf"^Groups:\s+{number} *$", text, re.M) and "umask:0077" in text, text
        sets = re.findall(r"^((?:Cap|Sig)...):\s+(\w+)$", text, re.M)
        assert [value for _, value in sets] == ["0" * 16] * 6, sets
        assert len(re.findall("denied|not permitted", text)) == 7, text


@own_mounts
def test_nobody_sends_as_somebody_else():
    """Over the socket, by sendmail and with -bs, no spelling of another's address is a sender."""
    with Host({"domain.club.test": {"aliases": "DIR/club"}}) as server:
        (server.dir / "club").write_text("ann: bob\nbob: bob@mx.test\n")
        server.aliases.write_text("staff: ann, bob\nboss: bob\nhook: |true\n")
        wanted = {
            "root": 553, "ROOT@MX.TEST": 553, '"root"@mx.test': 553, "root@localhost": 553,
            "root@[127.0.0.1]": 553, "root@club.test": 553, "ann@club.test": 553, "bob": 553,
            "bob+ann@mx.test": 553, "boss@mx.test": 553, "hook@mx.test": 553, "@ann:root@mx.test": 553,
            "ann@far.test": 553, "nobody-at-all@mx.test": 553, "postmaster@mx.test": 553,
            "ann@mx.test": 250, "Ann+x@localhost": 250, "staff@mx.test": 250, "": 250,
        }
        lines = "EHLO x\r\n" + "".join(
            f"MAIL FROM:<{address}>\r\nRSET\r\n" for address in wanted) + "QUIT\r\n"
        output = server.run_as("ann", [server.dir / "sendmail", "-bs"], input=lines.encode())
        # The greeting and EHLO's last line, then two for each.
        replies = [line for line in output.splitlines() if re.match(r"\d{3} ", line)][2:-1:2]
        found = {address: int(reply[:3]) for address, reply in zip(wanted, replies, strict=True)}
        assert found == wanted, output


@own_mounts
def test_a_dropped_file_is_its_owners_whatever_it_says():
    """An envelope in drop/ that claims to be root's is that of the file's owner."""
    with Host({"server": {"user": "wren"}, "domain.club.test": {"aliases": "DIR/club"}}) as server:
        (server.dir / "club").write_text("ann: bob\n")
        folder = server.spool / "drop"
        wait_for("drop/", lambda: folder.exists() and stat.S_IMODE(folder.stat().st_mode) == 0o1733)
        for number, sender in enumerate(("root@mx.test", "root@club.test", "bob@localhost"), 1):
            name, content = f"6c3f2qrtgss{number:02}", "Subject: x\r\n\r\n"
            text = (f"mailwren 1\nid {name}\nreceived 1795000000\nclient uid 0\nfrom <{sender}>\n"
                    f"body 7bit\nto <bob@mx.test>\n\n{content}"
                    f"mailwren-end {len(content):016x}\n")
            file = server.write("ann", "message", text)
            server.run_as("ann", ["mv", file, folder / name])
            message = message_from_bytes(server.wait_mail("bob", number)[-1])
            assert message["Return-Path"] == "<ann@mx.test>", message
            assert "(uid 3101)" in message["Received"], message


@own_mounts
def test_a_home_in_the_hands_of_others_forwards_nothing():
    """A home that another user put there, by a link or without, has no `.forward` that counts; nor one
    that others could write, nor a file with several names of somebody else's."""
    with Host() as server:
        homes, ann, bob = server.home("ann").parent, server.home("ann"), server.home("bob")
        homes.chmod(0o777)
        mark = server.dir / "mark"
        mark.mkdir()
        mark.chmod(0o777)
        command = f'"|touch {mark}/$USER.$$"\n'
        attacks = [
            "mv ../ann ../away; mkdir ../ann; cp .forward ../ann",
            "ln -s bob ../ann",
            "mkdir ../bobs; cp .forward ../bobs; ln -s bobs ../ann",
            "mv ../away ../ann; chmod 777 .; ln .forward ../ann/.forward",
            "rm ../ann/.forward; ln -s ../bob/.forward ../ann/.forward",
            "rm ../ann/.forward; cp .forward ../ann/.forward",
        ]
        server.write("bob", ".forward", command)
        for number, attack in enumerate(attacks, 1):
            if number == 4:
                # Everybody may write into the home now.
                (homes / "away").chmod(0o777)
            server.run_as("bob", ["sh", "-c", f"cd {bob}; {attack}"])
            server.deliver("ann@mx.test", b"Subject: x\r\n\r\n")
            server.wait_mail("ann", number)
            assert not list(mark.iterdir()), attack
            if number in (1, 2, 3):
                server.run_as("bob", ["sh", "-c", f"cd {homes}; rm -r ann"])
        assert server.log().count("the mail goes into the mailbox of ann") == len(attacks)
        # Root's own runs, but never as root.
        server.home("root").mkdir(mode=0o755)
        (server.home("root") / ".forward").write_text(command)
        server.deliver("root@mx.test", b"Subject: x\r\n\r\n")
        wait_for("the command", lambda: list(mark.iterdir()))
        assert [file.owner() for file in mark.iterdir()] == ["daemon"], list(mark.iterdir())
