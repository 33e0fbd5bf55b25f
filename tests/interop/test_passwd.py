"""`mailwren passwd` as a person at a terminal meets it."""

import os
import pty
import re
import select
import termios
import time

from accounts import Accounts
from harness import PATIENCE, binary, folder, program, run

FIRST, SECOND = b"New password of zoe: ", b"Once more: "


def typed(server, *answers):
    """Runs `passwd zoe` on a terminal and types each answer when it is asked for: the exit code,
    all that the terminal showed, and whether it shows again what is typed."""
    child, terminal = pty.fork()
    if child == 0:
        os.execve(binary(), [binary(), "passwd", "zoe"], server.environment())
    shown = b""
    questions = [FIRST, SECOND][:len(answers)]
    deadline = time.monotonic() + PATIENCE
    while True:
        if questions and questions[0] in shown:
            assert not termios.tcgetattr(terminal)[3] & termios.ECHO, "the password is shown"
            os.write(terminal, answers[-len(questions)])
            questions.pop(0)
        left = deadline - time.monotonic()
        assert left > 0, f"passwd waits for something: {shown}"
        if not select.select([terminal], [], [], left)[0]:
            continue
        try:
            octets = os.read(terminal, 4096)
        except OSError:
            # How a terminal says that nobody has it open any more.
            octets = b""
        if not octets:
            break
        shown += octets
    _, status = os.waitpid(child, 0)
    is_echoing = bool(termios.tcgetattr(terminal)[3] & termios.ECHO)
    os.close(terminal)
    return os.waitstatus_to_exitcode(status), shown, is_echoing


def test_terminal():
    """The password is asked for twice and never shown, and the server takes it at once."""
    with Accounts() as server:
        code, shown, is_echoing = typed(server, b"right horse\n", b"right horse\n")
        assert (code, is_echoing) == (0, True), shown
        assert b"right" not in shown and b"zoe is a new account" in shown, shown
        server.logged_in(user="zoe", password="right horse").__exit__()


def test_nothing_changes():
    """Two that differ, none, and Ctrl-C change nothing; the terminal shows again what is typed.
    Who types none is not asked once more."""
    with Accounts() as server:
        before = (server.dir / "users").read_bytes()
        for answers, word in (((b"one\n", b"other\n"), b"not the same"), ((b"\n",), b"empty"),
                              ((b"on\x03",), b"interrupted"), ((b"\x04",), b"no line"),
                              ((b"one\n", b"o\x03"), b"interrupted")):
            code, shown, is_echoing = typed(server, *answers)
            assert (code, is_echoing) == (65, True), shown
            assert word in shown and b"nothing changed" in shown, shown
            assert len(answers) == 2 or SECOND not in shown, shown
        assert (server.dir / "users").read_bytes() == before


def test_lasts():
    """A file that is replaced is flushed before it gets its name, and its folder after that."""
    with folder() as there:
        users, trace = there / "users", there / "trace"
        (there / "mailwren.ini").write_text(f"[auth]\nusers = {users}\n")
        run([program("strace"), "-o", trace, "-e", "trace=fsync,fdatasync,rename,renameat,renameat2",
             binary(), "--config", there / "mailwren.ini", "passwd", "ann"], input=b"sesame-street\n")
        assert users.exists()
        calls = re.findall(r"^(\w+)\(", trace.read_text(), re.MULTILINE)
        kinds = ["flush" if call.startswith("f") else "name" for call in calls]
        assert kinds == ["flush", "name", "flush"], trace.read_text()
